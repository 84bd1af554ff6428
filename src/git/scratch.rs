//! A scratch repository for the tests of this module, apart from the developer's settings.

use std::ffi::OsString;
use std::fs;
use std::path::{Path, PathBuf};

use tempfile::TempDir;

use super::call::{Call, Git};
use super::{Oid, Repo};

pub(crate) struct Scratch {
    pub(crate) dir: TempDir,
    pub(crate) root: PathBuf,
    pub(crate) repo: Repo,
}

impl Scratch {
    /// A repository on branch `main` with one commit: `a.txt` of ten lines.
    pub(crate) fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let base = fs::canonicalize(dir.path()).unwrap();
        let home = base.join("home");
        fs::create_dir(&home).unwrap();
        let env = |name: &str, value: OsString| (OsString::from(name), value);
        let git = Git {
            stop: None,
            env: vec![
                env("HOME", home.clone().into()),
                env("XDG_CONFIG_HOME", home.join(".config").into()),
                env("GIT_CONFIG_NOSYSTEM", "1".into()),
                env("GIT_CONFIG_GLOBAL", home.join("gitconfig").into()),
            ],
        };
        let settings =
            "[user]\n name = Ann\n email = ann@example.org\n[init]\n defaultBranch = main\n";
        fs::write(home.join("gitconfig"), settings).unwrap();
        let root = base.join("repo ü");
        fs::create_dir(&root).unwrap();
        let run = |args: &[&str]| git.ok(Call::write("git.x", &root).args(args)).unwrap();
        run(&["init", "-q"]);
        fs::write(root.join("a.txt"), "1\n2\n3\n4\n5\n6\n7\n8\n9\n10\n").unwrap();
        run(&["add", "-A"]);
        run(&["commit", "-q", "-m", "first"]);
        let repo = Repo::discover_by(git, &root).unwrap();
        Self { dir, root, repo }
    }

    pub(crate) fn home(&self) -> PathBuf {
        fs::canonicalize(self.dir.path()).unwrap().join("home")
    }

    pub(crate) fn reopened(&self) -> Repo {
        Repo::discover_by(self.repo.git.clone(), &self.root).unwrap()
    }

    /// Runs git in the main checkout; returns its output without the line end.
    pub(crate) fn git<'a>(&self, args: impl IntoIterator<Item = &'a str>) -> String {
        self.git_in(&self.root, args)
    }

    pub(crate) fn git_in<'a>(&self, dir: &Path, args: impl IntoIterator<Item = &'a str>) -> String {
        self.repo.git.ok(Call::write("git.x", dir).args(args)).unwrap().line()
    }

    pub(crate) fn rev(&self, name: &str) -> Oid {
        self.git(["rev-parse", name]).parse().unwrap()
    }

    /// Makes a commit on top of `parent` with the file `path` of text `text`; no checkout moves.
    pub(crate) fn commit_on(&self, parent: &Oid, path: &str, text: &str) -> Oid {
        let index = self.dir.path().join("scratch-index");
        let run = |args: &[&str], input: &str| {
            let call = Call::write("git.x", &self.root).args(args).bytes(input.as_bytes());
            self.repo.git.ok(call.env("GIT_INDEX_FILE", &index)).unwrap().line()
        };
        let blob = run(&["hash-object", "-w", "--stdin"], text);
        run(&["read-tree", parent.as_str()], "");
        run(&["update-index", "--add", "--cacheinfo", &format!("100644,{blob},{path}")], "");
        let tree = run(&["write-tree"], "");
        let message = format!("change {path}");
        run(&["commit-tree", &tree, "-p", parent.as_str(), "-m", &message], "").parse().unwrap()
    }

    /// Makes `count` commits that change nothing, one on top of the other; returns the last one.
    pub(crate) fn line_on(&self, parent: &Oid, count: usize) -> Oid {
        let one = |n: usize| {
            let from = if n == 0 { format!("from {parent}\n") } else { String::new() };
            format!("commit refs/line\ncommitter Ann <ann@example.org> {n} +0000\ndata 0\n{from}")
        };
        let text: String = (0..count).map(one).collect();
        let args = ["fast-import", "--quiet"];
        let call = Call::write("git.x", &self.root).args(args).bytes(text.as_bytes());
        self.repo.git.ok(call).unwrap();
        let last = self.rev("refs/line");
        self.git(["update-ref", "-d", "refs/line"]);
        last
    }

    /// Returns the text of `path` in `commit`; `None` when it is not there.
    pub(crate) fn text_at(&self, commit: &Oid, path: &str) -> Option<String> {
        let name = format!("{commit}:{path}");
        let call = Call::read("git.x", &self.root).args(["cat-file", "blob", &name]);
        let reply = self.repo.git.run(call).unwrap();
        (reply.code == 0).then(|| String::from_utf8(reply.stdout).unwrap())
    }

    pub(crate) fn parents(&self, commit: &Oid) -> Vec<Oid> {
        let line = self.git(["rev-list", "--parents", "-n1", commit.as_str()]);
        line.split(' ').skip(1).map(|oid| oid.parse().unwrap()).collect()
    }

    pub(crate) fn fsck(&self) {
        self.git(["fsck", "--strict", "--no-dangling"]);
    }
}
