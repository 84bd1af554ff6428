//! What a pipeline leaves in a repository, for taking it out: slots, refs, and work that no other ref
//! holds.

use std::ffi::OsStr;
use std::fs::{self, File};
use std::io::ErrorKind;
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use walkdir::WalkDir;

use super::call::Call;
use super::error::GitError;
use super::gate::Gate;
use super::left::LOGGED;
use super::oid::Oid;
use super::refs::{Checkout, one_oid};
use super::repo::Repo;
use super::rest::REST;
use super::slot::{MARK, registered, remove_file};
use super::snapshot::SnapshotRequest;
use crate::sys::{fail, file};

/// Folders of the common git folder in which nothing of ours is to stay, not even empty ones.
const FOLDERS: [&str; 5] = [
    "refs/heads/pipeline",
    "refs/pipeline",
    "logs/refs/heads/pipeline",
    "logs/refs/pipeline",
    "worktrees",
];
/// Our branches, as refs that hold nothing.
const BUT_BRANCHES: &str = "--exclude=pipeline/*";
/// Which refs are not ours. A HEAD or a stash is none of them: what these alone hold is lost with the
/// next `git switch` or `git stash drop`.
pub(super) const OTHERS: [&str; 5] = ["--not", BUT_BRANCHES, "--branches", "--tags", "--remotes"];

impl Repo {
    /// Returns every slot of ours, wherever it lies, and those below `dir` that were never filled;
    /// sorted. A person's worktree there is none of them.
    ///
    /// # Errors
    /// When the list of worktrees cannot be read.
    pub fn own_slots(&self, dir: &Path) -> Result<Vec<PathBuf>, GitError> {
        let dir = fs::canonicalize(dir).unwrap_or_else(|_| dir.into());
        let mut slots: Vec<PathBuf> = Vec::new();
        for admin in self.admins()? {
            let is_marked = admin.join(MARK).exists();
            let is_unfilled = is_unfilled(&admin);
            let is_ours = |path: &PathBuf| is_marked || (is_unfilled && path.starts_with(&dir));
            let slot = registered(&admin).filter(is_ours);
            slots.extend(slot.filter(|slot| !self.is_others(slot)));
        }
        slots.sort();
        slots.dedup();
        Ok(slots)
    }

    /// Returns for how long nothing has been made ready or looked at in a slot; `None`: not known.
    ///
    /// # Errors
    /// When the list of worktrees cannot be read.
    pub fn slot_idle(&self, slot: &Path) -> Result<Option<Duration>, GitError> {
        let Some(admin) = self.admin_of(slot)? else { return Ok(None) };
        let index = fs::metadata(admin.join("index")).or_else(|_| fs::metadata(&admin));
        let modified = index.and_then(|meta| meta.modified()).ok();
        Ok(modified.and_then(|at| at.elapsed().ok()))
    }

    /// Returns whether a slot was filled to the end when it was last made ready.
    ///
    /// # Errors
    /// When the list of worktrees cannot be read.
    pub fn is_filled(&self, slot: &Path) -> Result<bool, GitError> {
        Ok(self.admin_of(slot)?.is_some_and(|admin| admin.join(LOGGED).exists()))
    }

    /// Returns whether something in a slot was made after the moment given in milliseconds: a commit
    /// that no ref holds, or a file, new or changed, that is in no commit there. What git ignores does
    /// not count; of a slot whose folder is gone, since its removal was cut off, no file is left.
    ///
    /// # Errors
    /// When git fails there.
    pub fn is_touched(&self, slot: &Path, since_ms: u64) -> Result<bool, GitError> {
        if self.has_own_commit(slot, since_ms)? {
            return Ok(true);
        }
        if !slot.join(".git").exists() {
            // Whose what else is there would be is not known.
            return Ok(slot.exists());
        }
        let args = ["status", "--porcelain", "-z", "--no-renames", "--untracked-files=all"];
        let reply = self.git.ok(Call::read("git.status", slot).args(args))?;
        let mut names = reply.fields().filter_map(|field| field.get(3..));
        let changed_ms = |name| changed_ms(&slot.join(OsStr::from_bytes(name)));
        Ok(names.any(|name| changed_ms(name).is_some_and(|at| at > since_ms)))
    }

    /// Returns whether a slot's HEAD came after the moment to a commit that no ref holds: with the slot
    /// it would be gone.
    pub(super) fn has_own_commit(&self, slot: &Path, since_ms: u64) -> Result<bool, GitError> {
        let Some(admin) = self.admin_of(slot)? else { return Ok(false) };
        let places = ["HEAD", "reftable"].map(|name| changed_ms(&admin.join(name)));
        if places.into_iter().flatten().all(|at| at <= since_ms) || is_unfilled(&admin) {
            return Ok(false);
        }
        let head = self.slot_commit(&admin)?;
        let call = Call::read("git.own_commit", &self.root).args([
            "rev-list",
            "--ignore-missing",
            "-n1",
            head.as_str(),
            "--not",
            "--branches",
            "--tags",
            "--remotes",
            "--glob=refs/pipeline",
        ]);
        Ok(!self.git.ok(call)?.line().is_empty())
    }

    /// Returns whether all that a slot has is held elsewhere: its HEAD by a ref, and its files, but for
    /// those of `exclude`, by `saved`; `None`: by its HEAD.
    ///
    /// # Errors
    /// When git fails.
    pub fn is_as_saved(
        &self,
        slot: &Path,
        saved: Option<&Oid>,
        exclude: &[String],
    ) -> Result<bool, GitError> {
        let Some(admin) = self.admin_of(slot)? else { return Ok(true) };
        let gate = self.slot_gate(slot)?;
        self.is_as_saved_in(&gate, slot, &admin, saved, exclude)
    }

    pub(super) fn is_as_saved_in(
        &self,
        gate: &Gate<'_>,
        slot: &Path,
        admin: &Path,
        saved: Option<&Oid>,
        exclude: &[String],
    ) -> Result<bool, GitError> {
        if self.has_own_commit(slot, 0)? {
            return Ok(false);
        }
        let tip = saved.cloned().map_or_else(|| self.slot_commit(admin), Ok)?;
        let (tip, message) = (&tip, "");
        let (merge, begun, pin, date_s) = (None, None, "", 0);
        let request = SnapshotRequest { slot, tip, merge, exclude, message, date_s, begun, pin };
        let taken = self.take_files(gate, slot, admin, tip, &request)?;
        let is_whole = taken.repositories.is_empty() && taken.left_out.is_empty();
        Ok(is_whole && taken.modules.is_empty() && taken.tree == self.tree_of(tip)?)
    }

    /// Keeps at `pin` what a slot has that no ref holds: its files as a commit, or a commit made there.
    /// `exclude`: as for [`Repo::snapshot`]. Returns false when there is nothing.
    ///
    /// # Errors
    /// When git fails, or some of it cannot be committed.
    pub fn keep_slot(
        &self,
        slot: &Path,
        pin: &str,
        exclude: &[String],
        date_s: u64,
    ) -> Result<bool, GitError> {
        let Some(admin) = self.admin_of(slot)? else { return Ok(false) };
        if is_unfilled(&admin) {
            return Ok(false);
        }
        let head = self.slot_commit(&admin)?;
        let left = self.snapshot(&SnapshotRequest {
            slot,
            tip: &head,
            merge: None,
            exclude,
            message: "What lay in a worktree of an earlier pipeline",
            date_s,
            begun: None,
            pin,
        })?;
        if !left.repositories.is_empty() || !left.modules.is_empty() || !left.left_out.is_empty() {
            let why = "some of it cannot be committed";
            return Err(GitError::ForeignSlot { path: slot.into(), why });
        }
        if left.commit.is_none() && self.has_own_commit(slot, 0)? {
            self.keep_at(pin, &head)?;
            return Ok(true);
        }
        Ok(left.commit.is_some())
    }

    /// Returns the commit at which a slot stands, wherever its folder was moved to.
    pub(super) fn slot_commit(&self, admin: &Path) -> Result<Oid, GitError> {
        let call = Call::read("git.slot_commit", &self.root);
        let args = ["rev-parse", "--verify", "HEAD^{commit}"];
        one_oid(&self.git.ok(self.in_slot(call, &self.root, admin).args(args))?)
    }

    /// Returns those of `names` that hold commits which no ref but ours does; where our branches stay
    /// (`keeps_branches`), what they hold is held.
    ///
    /// # Errors
    /// When git fails.
    pub fn unlanded(
        &self,
        names: &[(String, Oid)],
        keeps_branches: bool,
    ) -> Result<Vec<(String, Oid)>, GitError> {
        if names.is_empty() {
            return Ok(Vec::new());
        }
        let input: String = names.iter().map(|(_, oid)| format!("{oid}\n")).collect();
        let call = Call::read("git.unlanded", &self.root)
            // A ref whose commit is gone holds nothing.
            .args(["rev-list", "--ignore-missing", "--stdin"])
            .args(OTHERS.into_iter().filter(|arg| !keeps_branches || *arg != BUT_BRANCHES))
            .bytes(input.as_bytes());
        let reply = self.git.ok(call)?;
        let text = reply.line();
        let alone: std::collections::BTreeSet<&str> = text.lines().collect();
        let is_alone = |(_, oid): &&(String, Oid)| alone.contains(oid.as_str());
        Ok(names.iter().filter(is_alone).cloned().collect())
    }

    /// Puts what `names` hold, and no other ref does, into a bundle at `path`; verified and synced.
    /// A whole one that is there already stays.
    ///
    /// # Errors
    /// When git fails, or the file cannot be written.
    pub fn bundle(&self, path: &Path, names: &[(String, Oid)]) -> Result<(), GitError> {
        if path.exists() && self.is_bundle_of(path, names)? {
            return Ok(());
        }
        let temp = path.with_extension("bundle.tmp");
        // What was left by a git that was killed here.
        remove_file(&temp.with_extension("tmp.lock"))?;
        let call = Call::write("git.bundle", &self.root)
            .args(["bundle", "create", "-q"])
            .args([temp.as_os_str()])
            .args(names.iter().map(|(name, _)| name.as_str()))
            .args(OTHERS);
        self.git.ok(call)?;
        if !self.is_bundle_of(&temp, names)? {
            return Err(GitError::answer("git bundle create", temp.as_os_str().as_encoded_bytes()));
        }
        let put = || {
            fail::point("git.bundle_put")?;
            File::open(&temp)?.sync_all()?;
            fs::rename(&temp, path)?;
            file::sync_dir(path.parent().unwrap_or(Path::new("/")))
        };
        put().map_err(|source| GitError::File { doing: "write", path: path.into(), source })
    }

    /// Returns whether git finds the bundle whole, and all of `names` in it.
    fn is_bundle_of(&self, path: &Path, names: &[(String, Oid)]) -> Result<bool, GitError> {
        let call = Call::read("git.bundle_verify", &self.root).args(["bundle", "verify", "-q"]);
        if self.git.run(call.args([path]))?.code != 0 {
            return Ok(false);
        }
        let call = Call::read("git.bundle_heads", &self.root).args(["bundle", "list-heads"]);
        let text = self.git.ok(call.args([path]))?.line();
        let heads: std::collections::BTreeSet<&str> = text.lines().collect();
        Ok(names.iter().all(|(name, oid)| heads.contains(format!("{oid} {name}").as_str())))
    }

    /// Returns whether a person's worktree has submodules that are filled, with commits of their own.
    ///
    /// # Errors
    /// When git fails there.
    pub fn has_modules(&self, checkout: &Checkout) -> Result<bool, GitError> {
        if checkout.is_gone {
            return Ok(false);
        }
        let admin = self.admin_of(&checkout.path)?;
        if admin.is_some_and(|admin| admin.join("modules").exists()) {
            return Ok(true);
        }
        let modules = self.modules(&checkout.path)?;
        Ok(modules.iter().any(|path| path.join(".git").exists()))
    }

    /// Returns where a worktree has submodules, filled or not.
    pub(super) fn modules(&self, dir: &Path) -> Result<Vec<PathBuf>, GitError> {
        let args = ["ls-files", "-z", "--stage"];
        let reply = self.git.ok(Call::read("git.modules", dir).args(args))?;
        let links = reply.fields().filter_map(|entry| entry.strip_prefix(b"160000 "));
        let names = links.filter_map(|entry| entry.splitn(2, |byte| *byte == b'\t').nth(1));
        Ok(names.map(|name| dir.join(OsStr::from_bytes(name))).collect())
    }

    /// Removes a person's worktree, which must be clean, or what is left of one.
    ///
    /// # Errors
    /// When it is not, and those of [`Repo::remove_hand`].
    pub fn remove_checkout(&self, checkout: &Path) -> Result<(), GitError> {
        match self.hand_at(checkout)? {
            Some(hand) if hand.unsaved.is_empty() => self.remove_hand(checkout),
            None if !checkout.exists() => self.clear_hand(checkout).map(drop),
            Some(_) | None => {
                let why = "something in it is not committed";
                Err(GitError::ForeignSlot { path: checkout.into(), why })
            }
        }
    }

    /// Removes the empty folders that refs and worktrees of ours left; what is in use stays.
    pub fn sweep_folders(&self) {
        for folder in FOLDERS {
            let entries = WalkDir::new(self.common.join(folder)).contents_first(true).into_iter();
            for entry in entries.flatten().filter(|entry| entry.file_type().is_dir()) {
                match fs::remove_dir(entry.path()) {
                    Err(error) if error.kind() != ErrorKind::DirectoryNotEmpty => break,
                    Ok(()) | Err(_) => {}
                }
            }
        }
    }
}

/// Returns whether a worktree is still in the making: detached, and filled after it was marked. One that
/// is noted to be at rest was, whatever became of its index.
fn is_unfilled(admin: &Path) -> bool {
    !is_on_branch(admin) && !admin.join("index").exists() && !admin.join(REST).exists()
}

/// Returns whether a worktree's HEAD is on a branch; where refs lie in tables its file does not say.
pub(super) fn is_on_branch(admin: &Path) -> bool {
    let head = file::small_text(&admin.join("HEAD"));
    head.starts_with("ref:") && !admin.join("reftable").exists()
}

/// Returns when a file was last changed in any way, in milliseconds since 1970.
fn changed_ms(path: &Path) -> Option<u64> {
    let meta = fs::symlink_metadata(path).ok()?;
    u64::try_from(meta.ctime() * 1000 + meta.ctime_nsec() / 1_000_000).ok()
}

#[cfg(test)]
mod tests {
    use crate::git::SlotRequest;
    use crate::git::scratch::Scratch;

    #[test]
    fn a_commit_in_a_slot_that_no_ref_holds_is_lost_with_it() {
        let scratch = Scratch::new();
        let (repo, slot) = (&scratch.repo, scratch.root.join(".pipeline/worktrees/a/0"));
        let at = scratch.commit_on(&scratch.rev("HEAD"), "b", "b");
        let request = SlotRequest { path: &slot, at: &at, keep: &[], merge: None, is_ready: false };
        repo.prepare_slot(&request).unwrap();
        assert!(!repo.is_touched(&slot, u64::MAX).unwrap(), "it came before");
        assert!(repo.is_touched(&slot, 0).unwrap());
        scratch.git(["update-ref", "refs/pipeline/x", at.as_str()]);
        assert!(!repo.is_touched(&slot, 0).unwrap());
        scratch.git_in(&slot, ["commit", "-q", "--allow-empty", "-m", "Mine"]);
        assert!(repo.is_touched(&slot, 0).unwrap());
        std::fs::remove_dir_all(&slot).unwrap();
        assert!(repo.is_touched(&slot, 0).unwrap(), "git's entry holds it");
    }

    #[test]
    fn work_is_unlanded_until_another_ref_holds_it_and_a_bundle_brings_it_back() {
        let scratch = Scratch::new();
        let repo = &scratch.repo;
        let one = scratch.rev("HEAD");
        let (two, three) = (scratch.commit_on(&one, "b", "b"), scratch.commit_on(&one, "c", "c"));
        let names = ["refs/heads/pipeline/task/A", "refs/pipeline/salvage/B", "refs/pipeline/x"];
        for (name, oid) in names.iter().zip([&two, &three, &one]) {
            scratch.git(["update-ref", name, oid.as_str()]);
        }
        // A slot stands there; that holds nothing.
        let slot = scratch.dir.path().join("slot");
        let path = slot.to_str().unwrap();
        scratch.git(["worktree", "add", "-q", "--detach", path, two.as_str()]);
        let all: Vec<_> = names.iter().map(|it| (*it).to_owned()).zip([two, three, one]).collect();
        assert_eq!(repo.unlanded(&all, false).unwrap(), all[..2]);
        assert_eq!(repo.unlanded(&all[1..], true).unwrap(), all[1..2]);
        scratch.git(["update-ref", "refs/heads/pipeline/task/B", all[1].1.as_str()]);
        assert!(repo.unlanded(&all[1..], true).unwrap().is_empty(), "a branch that stays holds it");
        scratch.git(["update-ref", "-d", "refs/heads/pipeline/task/B"]);
        let file = scratch.dir.path().join("x.bundle");
        // A git was killed before.
        std::fs::write(scratch.dir.path().join("x.bundle.tmp.lock"), "").unwrap();
        for _ in 0..2 {
            repo.bundle(&file, &all[..2]).unwrap();
        }
        assert!(!repo.is_bundle_of(&file, &all).unwrap());
        scratch.git(["update-ref", "-d", names[1]]);
        scratch.git(["fetch", "-q", file.to_str().unwrap(), "refs/*:refs/heads/back/*"]);
        assert_eq!(scratch.rev("refs/heads/back/pipeline/salvage/B"), all[1].1);
        assert!(repo.unlanded(&all, false).unwrap().is_empty(), "the person's branches hold it");
    }
}
