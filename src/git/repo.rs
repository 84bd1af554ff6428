//! A repository: where it is, whose it is, and what agents' git is given.

use std::ffi::{OsStr, OsString};
use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, OnceLock};

use super::call::{Call, FSYNC, Git, Reply};
use super::error::{GitError, Stderr};
use super::gate::{Gate, WAIT_MAX};
use super::main_checkout;
use super::oid::{ObjectFormat, Oid};
use crate::sys::child::Stop;
use crate::sys::file::read_linked;

/// Largest excludes file of a person's that is read, in bytes.
const EXCLUDES_BYTES_MAX: u64 = 16 << 20;
/// A git repository with a checkout.
#[derive(Debug)]
pub struct Repo {
    pub(super) git: Git,
    pub(super) root: PathBuf,
    pub(super) common: PathBuf,
    pub(super) format: ObjectFormat,
    pub(super) refs_turn: Mutex<()>,
    pub(super) registry_turn: Mutex<()>,
    identity: OnceLock<Identity>,
}

/// Who our commits are by.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Identity {
    /// Name of author and committer.
    pub name: String,
    /// Mail address of both.
    pub email: String,
    /// Whether the user's own settings hold both; else this is the pipeline's.
    pub is_configured: bool,
}

/// Returns the exclude file of the repository around `dir`, which may have no commit yet, and the path
/// from its checkout's root to `dir`, with a slash behind; `None` where git finds none, or is not there.
#[must_use]
pub fn exclude_of(dir: &Path) -> Option<(PathBuf, String)> {
    let call = Call::read("git.exclude", dir)
        .args(["rev-parse", "--path-format=absolute", "--is-inside-work-tree"])
        .args(["--git-path", "info/exclude", "--show-prefix"]);
    let reply = Git::default().ok(call).ok()?;
    let text = String::from_utf8(reply.stdout).ok()?;
    let [is_inside, path, below, ""] = *text.split('\n').collect::<Vec<_>>() else { return None };
    (is_inside == "true").then(|| (PathBuf::from(path), below.to_owned()))
}

impl Repo {
    /// Finds the repository that `dir` belongs to: from its root, a folder below it, a linked
    /// worktree or a slot of ours.
    ///
    /// # Errors
    /// [`GitError::NotARepository`], [`GitError::Bare`], [`GitError::NoCheckout`],
    /// [`GitError::NoCommits`] when no branch has a commit; git's own failures else.
    pub fn discover(dir: &Path) -> Result<Self, GitError> {
        Self::discover_by(Git::default(), dir)
    }

    pub(super) fn discover_by(git: Git, dir: &Path) -> Result<Self, GitError> {
        let names = ["--git-common-dir", "--absolute-git-dir"];
        let call = Call::read("git.discover", dir)
            .args(["rev-parse", "--path-format=absolute"])
            .args(names)
            .args(["--show-object-format", "--is-bare-repository", "--is-inside-work-tree"])
            .args(["--show-cdup", "HEAD^{commit}"]);
        let reply = git.run(call)?;
        let lines: Vec<&[u8]> = reply.stdout.split(|byte| *byte == b'\n').collect();
        let [common, own, format, bare, inside, cdup, head, ..] = lines.as_slice() else {
            return Err(not_found(dir, reply));
        };
        let format = match *format {
            b"sha1" => ObjectFormat::Sha1,
            b"sha256" => ObjectFormat::Sha256,
            found => return Err(GitError::answer(&reply.call, found)),
        };
        let common = canonical(Path::new(OsStr::from_bytes(common)))?;
        if *bare == b"true" {
            return Err(main_checkout::bare(&common, dir));
        }
        let is_main = canonical(Path::new(OsStr::from_bytes(own)))? == common;
        let root = if is_main && *inside == b"true" {
            canonical(&dir.join(OsStr::from_bytes(cdup)))?
        } else {
            main_checkout::find(&git, &common, dir)?
        };
        let is_born = std::str::from_utf8(head).is_ok_and(|text| text.parse::<Oid>().is_ok());
        let (refs_turn, registry_turn) = (Mutex::new(()), Mutex::new(()));
        let identity = OnceLock::new();
        let repo = Self { git, root, common, format, refs_turn, registry_turn, identity };
        if !is_born && repo.list_refs("refs/heads/")?.is_empty() {
            return Err(GitError::NoCommits { root: repo.root });
        }
        Ok(repo)
    }

    /// Returns the same repository for calls that `stop` ends, and that wait for no thread of this one.
    #[must_use]
    pub fn until(&self, stop: Arc<Stop>) -> Self {
        Self {
            git: Git { env: self.git.env.clone(), stop: Some(stop) },
            root: self.root.clone(),
            common: self.common.clone(),
            format: self.format,
            refs_turn: Mutex::new(()),
            registry_turn: Mutex::new(()),
            identity: self.identity.clone(),
        }
    }

    /// Returns the root of the main checkout, absolute, without symbolic links.
    #[must_use]
    pub fn root(&self) -> &Path {
        &self.root
    }

    /// Returns the common git folder, shared by all worktrees, absolute.
    #[must_use]
    pub fn common_dir(&self) -> &Path {
        &self.common
    }

    /// Returns the hash that names the repository's objects.
    #[must_use]
    pub fn object_format(&self) -> ObjectFormat {
        self.format
    }

    /// Returns who our commits are by: the user's configured name and mail, else
    /// `pipeline <pipeline@localhost>`. Read once for each [`Repo`].
    ///
    /// # Errors
    /// When the settings cannot be read.
    pub fn identity(&self) -> Result<Identity, GitError> {
        if let Some(identity) = self.identity.get() {
            return Ok(identity.clone());
        }
        let call = Call::read("git.config", &self.root).args([
            "config",
            "-z",
            "--get-regexp",
            r"^user\.(name|email)$",
        ]);
        let reply = self.git.run(call)?;
        if reply.code > 1 {
            return Err(reply.failure(&self.root));
        }
        let (mut name, mut email) = (None, None);
        // The last value of a name is the one that counts.
        for field in reply.texts() {
            match field.split_once('\n') {
                Some(("user.name", value)) => name = Some(value.to_owned()),
                Some(("user.email", value)) => email = Some(value.to_owned()),
                Some(_) | None => {}
            }
        }
        let is_given = |value: &String| !value.trim().is_empty();
        let identity = match (name.filter(is_given), email.filter(is_given)) {
            (Some(name), Some(email)) => Identity { name, email, is_configured: true },
            (Some(_) | None, Some(_) | None) => Identity {
                name: "pipeline".into(),
                email: "pipeline@localhost".into(),
                is_configured: false,
            },
        };
        Ok(self.identity.get_or_init(|| identity).clone())
    }

    /// Returns the environment for an agent's own git: no background repacking, our syncing, the
    /// attempt's `excludes` file in place of the user's (see [`Repo::user_excludes`]), and an
    /// identity only where the user has none.
    ///
    /// # Errors
    /// When the user's settings cannot be read.
    pub fn agent_git_env(
        &self,
        excludes: Option<&Path>,
    ) -> Result<Vec<(OsString, OsString)>, GitError> {
        let mut settings: Vec<(&str, OsString)> = vec![
            ("gc.auto", "0".into()),
            ("maintenance.auto", "false".into()),
            ("core.fsync", FSYNC.into()),
        ];
        settings.extend(excludes.map(|path| ("core.excludesFile", path.into())));
        let mut env = vec![("GIT_CONFIG_COUNT".into(), settings.len().to_string().into())];
        for (index, (key, value)) in settings.into_iter().enumerate() {
            env.push((format!("GIT_CONFIG_KEY_{index}").into(), key.into()));
            env.push((format!("GIT_CONFIG_VALUE_{index}").into(), value));
        }
        let identity = self.identity()?;
        if !identity.is_configured {
            for role in ["AUTHOR", "COMMITTER"] {
                env.push((format!("GIT_{role}_NAME").into(), identity.name.clone().into()));
                env.push((format!("GIT_{role}_EMAIL").into(), identity.email.clone().into()));
            }
        }
        Ok(env)
    }

    /// Returns the text of the user's own excludes file, to be put before an attempt's; empty when
    /// there is none.
    ///
    /// # Errors
    /// When the settings or the file cannot be read.
    pub fn user_excludes(&self) -> Result<Vec<u8>, GitError> {
        let call = Call::read("git.config", &self.root).args([
            "config",
            "-z",
            "--type=path",
            "core.excludesFile",
        ]);
        let reply = self.git.run(call)?;
        let given = reply.fields().next().map(|path| PathBuf::from(OsStr::from_bytes(path)));
        let variable = |name: &str| {
            let own = self.git.env.iter().find(|(key, _)| key == name);
            own.map(|(_, value)| value.clone()).or_else(|| std::env::var_os(name))
        };
        // gitignore(5): $XDG_CONFIG_HOME/git/ignore, or $HOME/.config/git/ignore.
        let usual = || {
            let set = |name| variable(name).filter(|value| !value.is_empty()).map(PathBuf::from);
            let config = set("XDG_CONFIG_HOME").or_else(|| Some(set("HOME")?.join(".config")))?;
            Some(config.join("git/ignore"))
        };
        let Some(path) = given.filter(|_| reply.code == 0).or_else(usual) else {
            return Ok(Vec::new());
        };
        // What is no file says nothing: people put `/dev/null` there.
        if fs::metadata(&path).is_ok_and(|meta| !meta.is_file()) {
            return Ok(Vec::new());
        }
        match read_linked(&path, EXCLUDES_BYTES_MAX) {
            Ok(bytes) => Ok(bytes.unwrap_or_default()),
            Err(source) => Err(GitError::File { doing: "read", path, source }),
        }
    }

    /// Returns the folder of the gates and of other small files of this module.
    pub(super) fn gates_dir(&self) -> PathBuf {
        self.common.join("pipeline/git")
    }

    pub(super) fn refs_gate(&self) -> Result<Gate<'_>, GitError> {
        Gate::close(&self.gates_dir(), "refs.lock", Some(&self.refs_turn), WAIT_MAX)
    }

    pub(super) fn registry_gate(&self) -> Result<Gate<'_>, GitError> {
        Gate::close(&self.gates_dir(), "registry.lock", Some(&self.registry_turn), WAIT_MAX)
    }
}

/// Returns the path without symbolic links.
pub(super) fn canonical(path: &Path) -> Result<PathBuf, GitError> {
    fs::canonicalize(path).map_err(|source| GitError::File {
        doing: "find",
        path: path.into(),
        source,
    })
}

fn not_found(dir: &Path, reply: Reply) -> GitError {
    if reply.stderr.contains("not a git repository") {
        GitError::NotARepository { dir: dir.into(), stderr: Stderr(reply.stderr) }
    } else {
        reply.failure(dir)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::git::scratch::Scratch;

    fn found_from(scratch: &Scratch, dir: &Path) -> PathBuf {
        Repo::discover_by(scratch.repo.git.clone(), dir).unwrap().root().to_owned()
    }

    #[test]
    fn the_main_checkout_is_found_from_anywhere() {
        let scratch = Scratch::new();
        let below = scratch.root.join("a b/ü");
        fs::create_dir_all(&below).unwrap();
        let linked = scratch.dir.path().join("linked");
        scratch.git(["worktree", "add", "-q", linked.to_str().unwrap()]);
        for dir in [&scratch.root, &below, &linked, &scratch.root.join(".git")] {
            assert_eq!(found_from(&scratch, dir), scratch.root, "{}", dir.display());
        }
        assert_eq!(scratch.repo.common_dir(), scratch.root.join(".git"));
        assert_eq!(scratch.repo.object_format(), ObjectFormat::Sha1);
    }

    #[test]
    fn no_repository_a_bare_one_and_an_empty_one_are_told_apart() {
        let scratch = Scratch::new();
        let git = || scratch.repo.git.clone();
        let other = scratch.dir.path().join("other");
        fs::create_dir(&other).unwrap();
        let none = Repo::discover_by(git(), &other);
        assert!(matches!(none, Err(GitError::NotARepository { .. })));
        scratch.git(["init", "-q", "--bare", other.to_str().unwrap()]);
        let bare = Repo::discover_by(git(), &other);
        assert!(matches!(bare, Err(GitError::Bare { .. })));
        let empty = scratch.dir.path().join("empty");
        scratch.git(["init", "-q", empty.to_str().unwrap()]);
        let empty = Repo::discover_by(git(), &empty);
        assert!(matches!(empty, Err(GitError::NoCommits { .. })));
    }

    #[test]
    fn sha256_repositories_work() {
        let scratch = Scratch::new();
        let dir = scratch.dir.path().join("long");
        scratch.git(["init", "-q", "--object-format=sha256", dir.to_str().unwrap()]);
        scratch.git(["-C", dir.to_str().unwrap(), "commit", "-q", "--allow-empty", "-m", "x"]);
        let repo = Repo::discover_by(scratch.repo.git.clone(), &dir).unwrap();
        assert_eq!(repo.object_format(), ObjectFormat::Sha256);
        let head = repo.read_ref("refs/heads/main").unwrap().unwrap();
        assert_eq!(head.as_str().len(), 64);
    }

    #[test]
    fn identity_is_the_users_or_ours() {
        let scratch = Scratch::new();
        let identity = scratch.repo.identity().unwrap();
        assert_eq!((identity.name.as_str(), identity.is_configured), ("Ann", true));
        let env = scratch.repo.agent_git_env(None).unwrap();
        assert!(!env.iter().any(|(name, _)| name == "GIT_AUTHOR_NAME"));

        scratch.git(["config", "--global", "--unset", "user.email"]);
        let repo = scratch.reopened();
        let identity = repo.identity().unwrap();
        assert_eq!(
            (identity.email.as_str(), identity.is_configured),
            ("pipeline@localhost", false)
        );
        let env = repo.agent_git_env(Some(Path::new("/x/excludes"))).unwrap();
        let has = |name: &str, value: &str| env.iter().any(|(k, v)| k == name && v == value);
        assert!(has("GIT_COMMITTER_EMAIL", "pipeline@localhost"));
        assert!(has("GIT_CONFIG_COUNT", "4"));
        assert!(has("GIT_CONFIG_KEY_3", "core.excludesFile"));
        assert!(has("GIT_CONFIG_VALUE_3", "/x/excludes"));
    }

    #[test]
    fn user_excludes_come_from_the_setting_or_the_usual_place() {
        let scratch = Scratch::new();
        assert!(scratch.repo.user_excludes().unwrap().is_empty());
        let usual = scratch.home().join(".config/git");
        fs::create_dir_all(&usual).unwrap();
        fs::write(usual.join("ignore"), "usual\n").unwrap();
        assert_eq!(scratch.repo.user_excludes().unwrap(), b"usual\n");
        fs::write(scratch.home().join("mine"), "mine\n").unwrap();
        scratch.git(["config", "--global", "core.excludesFile", "~/mine"]);
        assert_eq!(scratch.repo.user_excludes().unwrap(), b"mine\n");
    }
}
