//! What agents did in submodules and nobody else has: put into bundles, since it goes with the slot.

use std::ffi::OsString;
use std::fs::{self, File};
use std::path::{Path, PathBuf};

use super::call::Call;
use super::error::GitError;
use super::gate::Gate;
use super::left::aside;
use super::oid::Oid;
use super::refs::one_oid;
use super::repo::Repo;
use super::slot::{Found, remove_file, settle};
use super::snapshot::is_behind_link;
use crate::sys::{fail, file};

/// In a submodule: what was put into its bundle.
const SAVED: &str = "refs/pipeline/saved";

/// What a submodule of a slot holds that is in none of its remotes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ModuleWork {
    /// Where it is, below the slot.
    pub path: String,
    /// The bundle that holds it, commits and uncommitted files.
    pub bundle: PathBuf,
    /// It stands at a commit that nobody else could get: a commit here must not name it.
    pub is_ahead: bool,
}

/// A submodule, and the bundle for what is found in it.
struct Module<'a> {
    dir: PathBuf,
    bundle: PathBuf,
    gate: &'a Gate<'a>,
}

impl Repo {
    /// Bundles what a slot's submodules, and theirs, hold that is in none of their remotes and not at
    /// `tip`, in a folder beside the slot that is named `name`. What git ignores is left out. Done
    /// twice it is done once. Cost: nothing without submodules, two calls for each that is filled.
    ///
    /// # Errors
    /// When git fails in one that is whole, or a bundle cannot be written.
    pub fn keep_modules(
        &self,
        slot: &Path,
        tip: &Oid,
        name: &str,
    ) -> Result<Vec<ModuleWork>, GitError> {
        let slot = settle(slot)?;
        let Found::Ready(admin) = self.find_slot(&slot)? else { return Ok(Vec::new()) };
        if !slot.join(".gitmodules").exists() && !admin.join("modules").exists() {
            return Ok(Vec::new());
        }
        let gate = self.slot_gate(&slot)?;
        let mut found = Vec::new();
        self.keep_below(&gate, &slot, tip.as_str(), &aside(&slot, name), &mut found)?;
        for work in &mut found {
            if let Ok(below) = Path::new(&work.path).strip_prefix(&slot) {
                work.path = below.display().to_string();
            }
        }
        Ok(found)
    }

    /// Does it for the submodules of `dir`, which `commit` has where they were; paths are whole.
    fn keep_below(
        &self,
        gate: &Gate<'_>,
        dir: &Path,
        commit: &str,
        to: &Path,
        found: &mut Vec<ModuleWork>,
    ) -> Result<(), GitError> {
        let modules = match self.modules(dir) {
            // An index that is broken.
            Err(GitError::Failed { .. }) => return Ok(()),
            modules => modules?,
        };
        for path in modules {
            let below = path.strip_prefix(dir).unwrap_or(&path).to_owned();
            if is_behind_link(dir, &below) || fs::symlink_metadata(path.join(".git")).is_err() {
                continue;
            }
            let Some(head) = self.module_head(&path)? else { continue };
            let was_at = self.module_in(dir, commit, &below)?;
            let mut bundle = to.join(&below).into_os_string();
            bundle.push(".bundle");
            let module = Module { dir: path.clone(), bundle: bundle.into(), gate };
            self.keep_below(gate, &path, &was_at, &to.join(&below), found)?;
            if let Some(is_ahead) = self.keep_module(&module, head, &was_at)? {
                let Module { dir, bundle, .. } = module;
                found.push(ModuleWork { path: dir.display().to_string(), bundle, is_ahead });
            }
        }
        Ok(())
    }

    /// Returns the commit at which `commit` has a submodule; empty: it has none.
    fn module_in(&self, dir: &Path, commit: &str, below: &Path) -> Result<String, GitError> {
        if commit.is_empty() {
            return Ok(String::new());
        }
        let mut name = OsString::from(format!("{commit}:"));
        name.push(below);
        let args = ["rev-parse", "--verify", "--quiet", "--end-of-options"];
        let call = Call::read("git.module_in", dir).args(args).args([name]);
        Ok(self.git.run(call)?.line())
    }

    /// Returns where a submodule stands; `None`: it has no commit, or is no whole repository.
    fn module_head(&self, dir: &Path) -> Result<Option<Oid>, GitError> {
        let call =
            Call::read("git.module_head", dir).args(["rev-parse", "--verify", "HEAD^{commit}"]);
        // Git must not take the slot for it where it is broken.
        let call = call.env("GIT_CEILING_DIRECTORIES", dir.parent().unwrap_or(dir));
        let reply = self.git.run(call)?;
        if reply.code == 0 { one_oid(&reply).map(Some) } else { Ok(None) }
    }

    /// Bundles what a submodule at `head` holds that is not at `was_at` nor in its remotes; returns
    /// whether it stands at such a commit. `None`: there is nothing.
    fn keep_module(
        &self,
        module: &Module<'_>,
        head: Oid,
        was_at: &str,
    ) -> Result<Option<bool>, GitError> {
        let Module { dir, bundle, gate } = module;
        let read = |point| Call::read(point, dir);
        let args = ["status", "--porcelain", "-z", "--untracked-files=all"];
        let status = read("git.module_status").args(args).args(["--ignore-submodules=none"]);
        let status = self.git.run(status)?;
        // Of a broken index the worst is assumed.
        let is_dirty = status.code != 0 || status.fields().next().is_some();
        let others = ["--not", "--remotes", "--tags"];
        let args = ["rev-list", "-n1", "--ignore-missing", head.as_str()];
        let alone = read("git.module_ahead")
            .args(args)
            .args(others)
            .args(Some(was_at).filter(|it| !it.is_empty()));
        let is_ahead = head.as_str() != was_at && !self.git.ok(alone)?.line().is_empty();
        if !is_ahead && !is_dirty {
            return Ok(None);
        }
        let failed = |source| GitError::File { doing: "write", path: bundle.clone(), source };
        let folder = bundle.parent().unwrap_or(Path::new("/"));
        fs::create_dir_all(folder).map_err(failed)?;
        let temp = bundle.with_extension("bundle.tmp");
        let commit = if is_dirty { self.module_files(module, &head, &temp)? } else { head };
        let write = |point| Call::write(point, dir).gate(gate);
        let set =
            || self.git.ok(write("git.module_ref").args(["update-ref", SAVED, commit.as_str()]));
        // What was left by a git that was killed here.
        remove_file(&temp.with_extension("tmp.lock"))?;
        if let Err(error) = set() {
            let Some(lock) = error.lock().filter(|it| it.ends_with("pipeline/saved.lock")) else {
                return Err(error);
            };
            remove_file(&lock)?;
            set()?;
        }
        let args = ["bundle", "create", "-q"];
        let made = write("git.module_bundle").args(args).args([&temp]).args([SAVED]).args(others);
        self.git.ok(made)?;
        fail::point("git.module_put")
            .and_then(|()| File::open(&temp)?.sync_all())
            .and_then(|()| fs::rename(&temp, bundle))
            .and_then(|()| file::sync_dir(folder))
            .map_err(failed)?;
        Ok(Some(is_ahead))
    }

    /// Makes a commit of a submodule's files on top of its `head`, through an index beside `temp`.
    fn module_files(&self, module: &Module<'_>, head: &Oid, temp: &Path) -> Result<Oid, GitError> {
        let index = temp.with_extension("index");
        let call = |args: &[&str]| {
            let call = Call::write("git.module_files", &module.dir).args(args).gate(module.gate);
            self.git.ok(call.env("GIT_INDEX_FILE", &index))
        };
        remove_file(&index)?;
        remove_file(&index.with_extension("index.lock"))?;
        call(&["read-tree", head.as_str()])?;
        call(&["add", "-A", "--", ":(top)"])?;
        let tree = one_oid(&call(&["write-tree"])?)?;
        remove_file(&index)?;
        let args = ["commit-tree", "-m", "What was not committed", "-p", head.as_str()];
        let commit = Call::write("git.module_commit", &module.dir).args(args).args([tree.as_str()]);
        one_oid(&self.git.ok(self.signed(commit.gate(module.gate), None)?)?)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::git::SlotRequest;
    use crate::git::scratch::Scratch;

    const LOCAL: &str = "protocol.file.allow=always";

    /// A slot with the submodule `sub`, which has `deep`, both filled; the origin of `sub` is returned.
    fn filled(scratch: &Scratch) -> (PathBuf, PathBuf) {
        let at = |name: &str| scratch.root.with_file_name(name);
        let (lib, deep, slot) = (at("lib"), at("deep"), at("slots").join("1"));
        for dir in [&deep, &lib] {
            scratch.git(["init", "-q", dir.to_str().unwrap()]);
            commit(scratch, dir, "v", "one");
        }
        let add = |dir: &Path, from: &Path, name: &str| {
            let from = from.to_str().unwrap();
            scratch.git_in(dir, ["-c", LOCAL, "submodule", "--quiet", "add", "--", from, name]);
            scratch.git_in(dir, ["commit", "-qam", name]);
        };
        add(&lib, &deep, "deep");
        add(&scratch.root, &lib, "sub");
        let at = scratch.rev("HEAD");
        let (path, at) = (&slot, &at);
        let request = SlotRequest { path, at, keep: &[], merge: None, is_ready: false };
        scratch.repo.prepare_slot(&request).unwrap();
        let fill = ["-c", LOCAL, "submodule", "--quiet", "update", "--init", "--recursive"];
        scratch.git_in(&slot, fill);
        (slot, lib)
    }

    fn commit(scratch: &Scratch, dir: &Path, name: &str, text: &str) -> String {
        fs::write(dir.join(name), text).unwrap();
        scratch.git_in(dir, ["add", "-A"]);
        scratch.git_in(dir, ["commit", "-q", "-m", text]);
        scratch.git_in(dir, ["rev-parse", "HEAD"])
    }

    fn kept(scratch: &Scratch, slot: &Path) -> Vec<(String, bool)> {
        let found = scratch.repo.keep_modules(slot, &scratch.rev("HEAD"), "A").unwrap();
        let file = |it: &ModuleWork| it.bundle.strip_prefix(slot.with_file_name("left/A")).is_ok();
        assert!(found.iter().all(file), "{found:?}");
        found.into_iter().map(|it| (it.path, it.is_ahead)).collect()
    }

    #[test]
    fn what_only_a_submodule_has_is_bundled_however_deep_it_lies() {
        let scratch = Scratch::new();
        let (slot, lib) = filled(&scratch);
        assert!(kept(&scratch, &slot).is_empty(), "nothing was done there");
        assert!(!slot.with_file_name("left").exists());
        let made = commit(&scratch, &slot.join("sub/deep"), "v", "two");
        fs::write(slot.join("sub/deep/new"), "not committed").unwrap();
        let bundles = slot.with_file_name("left/A");
        fs::create_dir_all(bundles.join("sub")).unwrap();
        for name in ["deep.bundle.tmp", "deep.bundle.tmp.lock", "deep.bundle.index.lock"] {
            fs::write(bundles.join("sub").join(name), "of one that was killed").unwrap();
        }
        let lock =
            ["rev-parse", "--path-format=absolute", "--git-path", "refs/pipeline/saved.lock"];
        let lock = PathBuf::from(scratch.git_in(&slot.join("sub"), lock));
        fs::create_dir(lock.parent().unwrap()).unwrap();
        fs::write(&lock, "").unwrap();
        let expected = [("sub/deep".to_owned(), true), ("sub".to_owned(), false)];
        for _ in 0..2 {
            assert_eq!(kept(&scratch, &slot), expected);
        }
        let deep = scratch.root.with_file_name("deep");
        let bundle = bundles.join("sub/deep.bundle");
        scratch.git_in(&deep, ["fetch", "-q", bundle.to_str().unwrap(), SAVED]);
        assert_eq!(scratch.git_in(&deep, ["rev-parse", "FETCH_HEAD~1"]), made);
        assert_eq!(scratch.git_in(&deep, ["show", "FETCH_HEAD:new"]), "not committed");
        let names = fs::read_dir(bundles.join("sub")).unwrap().count();
        assert_eq!(names, 1, "nothing else is left there");
        let bundle = bundles.join("sub.bundle");
        scratch.git_in(&lib, ["fetch", "-q", bundle.to_str().unwrap(), SAVED]);
        assert_eq!(scratch.git_in(&lib, ["rev-parse", "FETCH_HEAD:deep"]), made);
    }

    #[test]
    fn what_others_have_and_what_is_no_repository_is_not() {
        let scratch = Scratch::new();
        let (slot, lib) = filled(&scratch);
        let sub = slot.join("sub");
        // A commit of the origin, another that is the tip's and on no branch, and one that was tagged.
        commit(&scratch, &lib, "v", "two");
        scratch.git_in(&sub, ["fetch", "-q"]);
        scratch.git_in(&sub, ["checkout", "-q", "FETCH_HEAD"]);
        assert!(kept(&scratch, &slot).is_empty());
        let own = commit(&scratch, &sub, "v", "three");
        assert_eq!(kept(&scratch, &slot), [("sub".to_owned(), true)]);
        scratch.git(["update-index", "--cacheinfo", &format!("160000,{own},sub")]);
        scratch.git(["commit", "-q", "-m", "a commit that its person has"]);
        assert!(kept(&scratch, &slot).is_empty());
        fs::write(slot.join("sub/.git"), "gitdir: nowhere").unwrap();
        assert!(kept(&scratch, &slot).is_empty());
        fs::remove_dir_all(&sub).unwrap();
        assert!(kept(&scratch, &slot).is_empty());
    }
}
