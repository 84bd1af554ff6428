//! A person's worktree: on a branch of ours, made and removed by us, theirs in between.
//!
//! **Invariants.** Nothing in it is lost by us: it is filled once, before it is theirs, and removed
//! only when all of it is committed. What is there already and is not an empty folder stays.

use std::ffi::{OsStr, OsString};
use std::fs;
use std::path::{Path, PathBuf};

use super::call::Call;
use super::error::GitError;
use super::oid::Oid;
use super::refs::one_oid;
use super::repo::{Repo, canonical};
use super::slot::{Found, remove_file, remove_tree};
use crate::sys::fail;

/// In a worktree's administrative folder, while a git command there waits to be gone on with.
const UNDER_WAY: [(&str, &str); 6] = [
    ("MERGE_HEAD", "merge"),
    ("CHERRY_PICK_HEAD", "cherry-pick"),
    ("REVERT_HEAD", "revert"),
    ("rebase-merge", "rebase"),
    ("rebase-apply", "rebase"),
    ("BISECT_LOG", "bisect"),
];

/// How a person's worktree stands.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Hand {
    pub head: Oid,
    /// The branch it is on, by full name; `None`: detached.
    pub branch: Option<String>,
    /// Files that differ from there, and those that git does not track; as git names them.
    pub unsaved: Vec<String>,
    /// Files and folders that git ignores.
    pub ignored: Vec<String>,
    /// The git command that is half done there, e.g. `rebase`.
    pub under_way: Option<&'static str>,
}

impl Hand {
    /// Returns what git ignores there but for what is named in `keep`: it may be the person's.
    #[must_use]
    pub fn ignored_but(&self, keep: &[String]) -> Vec<&str> {
        let plain = |name: &str| name.trim_matches('/').to_owned();
        let is_made = |name: &&str| keep.iter().any(|kept| plain(kept) == plain(name));
        self.ignored.iter().map(String::as_str).filter(|name| !is_made(name)).collect()
    }
}

impl Repo {
    /// Returns the true path of a place for a worktree, which need not be there; the folder above
    /// it is made.
    ///
    /// # Errors
    /// When the folder above cannot be made or found.
    pub fn hand_path(&self, path: &Path) -> Result<PathBuf, GitError> {
        let (Some(parent), Some(name)) = (path.parent(), path.file_name()) else {
            return Err(GitError::ForeignSlot { path: path.into(), why: "it is the root" });
        };
        fs::create_dir_all(parent).map_err(|source| GitError::File {
            doing: "create",
            path: parent.into(),
            source,
        })?;
        Ok(canonical(parent)?.join(name))
    }

    /// Refuses a place where no worktree can be made without losing something.
    ///
    /// # Errors
    /// [`GitError::ForeignSlot`] with what is there.
    pub fn check_hand_place(&self, path: &Path) -> Result<(), GitError> {
        let taken = |why| Err(GitError::ForeignSlot { path: path.into(), why });
        match self.find_slot(path)? {
            Found::Absent => Ok(()),
            Found::Foreign(why) => taken(why),
            Found::Ready(_) => taken("it is another worktree of this repository"),
            Found::Broken if has_files(path) => taken("files of a broken worktree are there"),
            Found::Broken => Ok(()),
        }
    }

    /// Makes a worktree at `path`, a true path, on `branch` (short name), unless it is there.
    ///
    /// # Errors
    /// [`GitError::ForeignSlot`] when the place is taken; git's failures. To be repeated then.
    pub fn add_hand(&self, path: &Path, branch: &str) -> Result<(), GitError> {
        let gate = self.slot_gate(path)?;
        let admin = match self.find_slot(path)? {
            Found::Ready(admin) => admin,
            Found::Absent | Found::Broken | Found::Foreign(_) => {
                self.check_hand_place(path)?;
                let registry = self.registry_gate()?;
                self.clear_slot(&gate, path)?;
                let call = Call::write("git.hand_add", &self.root)
                    .args(["worktree", "add", "--no-checkout", "-q", "--"])
                    .args([path.as_os_str(), OsStr::new(branch)]);
                self.git.ok(call.gate(&registry))?;
                let admin = self.admin_of(path)?;
                admin.ok_or_else(|| {
                    GitError::answer("git worktree add", path.as_os_str().as_encoded_bytes())
                })?
            }
        };
        if admin.join("index").exists() {
            // It was filled, and is the person's since.
            return Ok(());
        }
        // What git left that was killed on the way here.
        for name in ["index.lock", "locked"] {
            remove_file(&admin.join(name))?;
        }
        let args = ["read-tree", "--reset", "-u", "HEAD"];
        self.git.ok(Call::write("git.hand_fill", path).args(args).gate(&gate)).map(|_| ())
    }

    /// Returns how the person's worktree at `path` stands; `None` when no whole one is there.
    ///
    /// # Errors
    /// When git fails there.
    pub fn hand_at(&self, path: &Path) -> Result<Option<Hand>, GitError> {
        let Found::Ready(admin) = self.find_slot(path)? else { return Ok(None) };
        let call = Call::read("git.hand_head", path).args(["rev-parse", "--verify", "HEAD"]);
        let head = one_oid(&self.git.ok(call)?)?;
        let call = Call::read("git.hand_branch", path).args(["symbolic-ref", "-q", "HEAD"]);
        let reply = self.git.run(call)?;
        let branch = (reply.code == 0).then(|| reply.line());
        let under_way = UNDER_WAY.iter().find(|(name, _)| admin.join(name).exists());
        let call = Call::read("git.hand_status", path).args([
            "status",
            "--porcelain=v1",
            "-z",
            "--no-renames",
            "--untracked-files=normal",
            "--ignored=traditional",
            "--ignore-submodules=none",
        ]);
        let (mut unsaved, mut ignored) = (Vec::new(), Vec::new());
        for field in self.git.ok(call)?.texts() {
            let (kind, name) = field.split_at_checked(3).unwrap_or((&field, ""));
            if kind == "!! " { &mut ignored } else { &mut unsaved }.push(name.to_owned());
        }
        let under_way = under_way.map(|(_, what)| *what);
        Ok(Some(Hand { head, branch, unsaved, ignored, under_way }))
    }

    /// Takes slots of ours in which an agent went to `branch` (full name) off it, where they stand; no
    /// file changes.
    ///
    /// # Errors
    /// When git fails.
    pub fn free_of_slots(&self, branch: &str) -> Result<(), GitError> {
        for checkout in self.checkouts_of(branch)?.iter().filter(|it| !it.is_gone) {
            if let Some(head) = &checkout.head
                && self.is_slot(&checkout.path)?
            {
                self.detach_hand(&checkout.path, head)?;
            }
        }
        Ok(())
    }

    /// Puts a person's worktree on `branch` (short name) again.
    ///
    /// # Errors
    /// When git refuses, as it does where that would overwrite something.
    pub fn switch_hand(&self, path: &Path, branch: &str) -> Result<(), GitError> {
        let args = ["switch", "-q", "--no-guess", branch];
        self.git.ok(Call::write("git.hand_switch", path).args(args)).map(|_| ())
    }

    /// Takes a person's worktree off its branch, where it stands; no file changes.
    ///
    /// # Errors
    /// When git fails.
    pub fn detach_hand(&self, path: &Path, head: &Oid) -> Result<(), GitError> {
        let args = ["update-ref", "--no-deref", "HEAD", head.as_str()];
        self.git.ok(Call::write("git.hand_detach", path).args(args)).map(|_| ())
    }

    /// Removes a person's worktree in which nothing would be lost, as [`Repo::hand_at`] has told. It
    /// goes at once, by a rename; what is left when this is interrupted, [`Repo::clear_hand`] removes.
    ///
    /// # Errors
    /// [`GitError::ForeignSlot`] where it is locked or has submodules of its own; files that cannot be
    /// removed.
    pub fn remove_hand(&self, path: &Path) -> Result<(), GitError> {
        let gate = self.slot_gate(path)?;
        let Found::Ready(admin) = self.find_slot(path)? else { return Ok(()) };
        for (name, why) in [("locked", "it is locked"), ("modules", "it has submodules")] {
            if admin.join(name).exists() {
                return Err(GitError::ForeignSlot { path: path.into(), why });
            }
        }
        let gone = gone(path);
        remove_tree("git.hand_gone", &gone)?;
        let renamed = fail::point("git.hand_rename").and_then(|()| fs::rename(path, &gone));
        renamed.map_err(|source| GitError::File { doing: "rename", path: path.into(), source })?;
        let _registry = self.registry_gate()?;
        remove_tree("git.hand_gone", &gone)?;
        self.clear_slot(&gate, path)
    }

    /// Removes what is left of a worktree whose removal was interrupted, or whose folder is gone.
    ///
    /// # Errors
    /// Files that cannot be removed.
    pub fn clear_hand(&self, path: &Path) -> Result<(), GitError> {
        let gate = self.slot_gate(path)?;
        remove_tree("git.hand_gone", &gone(path))?;
        match self.find_slot(path)? {
            Found::Broken if !has_files(path) => {
                let _registry = self.registry_gate()?;
                self.clear_slot(&gate, path)
            }
            Found::Broken | Found::Absent | Found::Ready(_) | Found::Foreign(_) => Ok(()),
        }
    }

    /// Returns the commit that a person names, from where they stand; `None`: there is none.
    ///
    /// # Errors
    /// When git cannot be run.
    pub fn resolve(&self, dir: &Path, name: &str) -> Result<Option<Oid>, GitError> {
        let commit = format!("{name}^{{commit}}");
        let args = ["rev-parse", "--verify", "--quiet", "--end-of-options", &commit];
        let reply = self.git.run(Call::read("git.resolve", dir).args(args))?;
        if reply.code == 0 { one_oid(&reply).map(Some) } else { Ok(None) }
    }
}

/// Returns where a worktree goes that is being removed.
fn gone(path: &Path) -> PathBuf {
    let mut name = OsString::from(".");
    name.push(path.file_name().unwrap_or_default());
    name.push(".pipeline-gone");
    path.with_file_name(name)
}

/// Returns true when a folder holds more than the link to its repository.
fn has_files(path: &Path) -> bool {
    let entries = fs::read_dir(path).into_iter().flatten().flatten();
    entries.into_iter().any(|entry| entry.file_name() != ".git")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::git::scratch::Scratch;

    struct Case {
        scratch: Scratch,
        path: PathBuf,
    }

    const BRANCH: &str = "pipeline/task/A";

    fn made() -> Case {
        let scratch = Scratch::new();
        scratch.git(["branch", BRANCH]);
        let path = scratch.repo.hand_path(&scratch.root.join(".hand/A")).unwrap();
        scratch.repo.add_hand(&path, BRANCH).unwrap();
        Case { scratch, path }
    }

    fn hand(case: &Case) -> Hand {
        case.scratch.repo.hand_at(&case.path).unwrap().expect("it is there")
    }

    #[test]
    fn a_worktree_is_made_on_its_branch_and_made_again_as_it_is() {
        let case = made();
        let found = hand(&case);
        assert_eq!(found.head, case.scratch.rev("main"));
        assert!(found.unsaved.is_empty() && found.ignored.is_empty());
        fs::write(case.path.join("a.txt"), "mine\n").unwrap();
        case.scratch.repo.add_hand(&case.path, BRANCH).unwrap();
        assert_eq!(hand(&case).unsaved, ["a.txt"]);
        let branch = case.scratch.git_in(&case.path, ["symbolic-ref", "HEAD"]);
        assert_eq!(branch, format!("refs/heads/{BRANCH}"));
    }

    #[test]
    fn one_that_was_not_filled_is_filled() {
        let case = made();
        let admin = case.scratch.repo.admin_of(&case.path).unwrap().expect("its folder");
        fs::remove_file(admin.join("index")).unwrap();
        fs::write(admin.join("index.lock"), "").unwrap();
        fs::write(admin.join("locked"), "initializing").unwrap();
        fs::remove_file(case.path.join("a.txt")).unwrap();
        case.scratch.repo.add_hand(&case.path, BRANCH).unwrap();
        assert!(hand(&case).unsaved.is_empty() && case.path.join("a.txt").exists());
        assert!(!admin.join("locked").exists());
    }

    #[test]
    fn places_with_something_in_them_are_refused_and_stay() {
        let case = made();
        let repo = &case.scratch.repo;
        let other = repo.hand_path(&case.scratch.root.join("full")).unwrap();
        fs::create_dir(&other).unwrap();
        repo.check_hand_place(&other).unwrap();
        fs::write(other.join("mine"), "mine").unwrap();
        assert!(matches!(repo.check_hand_place(&other), Err(GitError::ForeignSlot { .. })));
        // A worktree that git was told to forget is a person's all the same.
        let admin = repo.admin_of(&case.path).unwrap().expect("its folder");
        fs::remove_dir_all(admin).unwrap();
        assert!(repo.add_hand(&case.path, BRANCH).is_err());
        assert!(case.path.join("a.txt").exists());
    }

    #[test]
    fn what_is_not_committed_is_seen_and_never_removed() {
        let case = made();
        let repo = &case.scratch.repo;
        fs::write(case.path.join(".gitignore"), "*.log\n").unwrap();
        fs::write(case.path.join("x.log"), "ignored").unwrap();
        let found = hand(&case);
        assert_eq!(
            (found.unsaved, found.ignored),
            (vec![".gitignore".into()], vec!["x.log".into()])
        );
        case.scratch.git_in(&case.path, ["add", "-A"]);
        case.scratch.git_in(&case.path, ["commit", "-q", "-m", "mine"]);
        let head = hand(&case).head;
        assert_eq!(head, case.scratch.rev(BRANCH));
        repo.detach_hand(&case.path, &head).unwrap();
        assert!(repo.checkouts_of(&format!("refs/heads/{BRANCH}")).unwrap().is_empty());
        assert!(hand(&case).unsaved.is_empty() && hand(&case).branch.is_none());
        repo.switch_hand(&case.path, BRANCH).unwrap();
        assert_eq!(hand(&case).branch, Some(format!("refs/heads/{BRANCH}")));
        let name = case.path.to_str().expect("it is UTF-8");
        case.scratch.git(["worktree", "lock", name]);
        assert!(repo.remove_hand(&case.path).is_err() && case.path.exists());
        case.scratch.git(["worktree", "unlock", name]);
        repo.remove_hand(&case.path).unwrap();
        assert!(!case.path.exists() && repo.hand_at(&case.path).unwrap().is_none());
    }

    #[test]
    fn a_removal_that_was_interrupted_is_finished() {
        let case = made();
        let repo = &case.scratch.repo;
        fs::rename(&case.path, gone(&case.path)).unwrap();
        fs::remove_file(gone(&case.path).join(".git")).unwrap();
        repo.clear_hand(&case.path).unwrap();
        assert!(!gone(&case.path).exists() && repo.admin_of(&case.path).unwrap().is_none());
        // One that stands is left alone.
        repo.add_hand(&case.path, BRANCH).unwrap();
        repo.clear_hand(&case.path).unwrap();
        assert!(hand(&case).unsaved.is_empty());
    }

    #[test]
    fn a_merge_under_way_is_seen() {
        let case = made();
        let theirs = case.scratch.commit_on(&case.scratch.rev("main"), "b.txt", "b\n");
        let args = ["merge", "--no-ff", "--no-commit", "-q", theirs.as_str()];
        case.scratch.git_in(&case.path, args);
        assert_eq!(hand(&case).under_way, Some("merge"));
    }

    #[test]
    fn commits_are_found_by_name_and_options_are_none() {
        let scratch = Scratch::new();
        let resolve = |name: &str| scratch.repo.resolve(&scratch.root, name).unwrap();
        assert_eq!(resolve("HEAD"), Some(scratch.rev("main")));
        assert_eq!(
            (resolve("nothing"), resolve("--all"), resolve("HEAD:a.txt")),
            (None, None, None)
        );
    }
}
