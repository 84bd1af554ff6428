//! What gits that were killed left in our own domain: for a repair, when nobody is at work.

use std::fs;
use std::path::PathBuf;

use super::error::GitError;
use super::repo::Repo;
use super::slot::{MARK, registered, remove_file, remove_tree};

impl Repo {
    /// Returns lock files on refs of ours and in the folders of our slots, and the administrative
    /// folders of slots that were never made; sorted.
    ///
    /// Whether a living git holds one is for [`Repo::clear_stale_locks`] to find out.
    ///
    /// # Errors
    /// When the list of worktrees cannot be read.
    pub fn stale_locks(&self) -> Result<Vec<PathBuf>, GitError> {
        let mut found = self.ref_locks();
        for (_, locks) in self.slot_locks()? {
            found.extend(locks);
        }
        found.extend(self.never_made()?);
        found.sort();
        Ok(found)
    }

    /// Removes them; returns what was removed, sorted.
    ///
    /// # Errors
    /// [`GitError::Busy`] while a git of ours is at work; files that cannot be removed.
    pub fn clear_stale_locks(&self) -> Result<Vec<PathBuf>, GitError> {
        let mut removed = self.clear_stale_ref_locks()?;
        for (slot, locks) in self.slot_locks()? {
            let _gate = self.slot_gate(&slot)?;
            for path in locks {
                remove_file(&path)?;
                removed.push(path);
            }
        }
        let _registry = self.registry_gate()?;
        for path in self.never_made()? {
            remove_tree("git.remove_admin", &path)?;
            removed.push(path);
        }
        removed.sort();
        Ok(removed)
    }

    /// Returns each slot that has locks in its administrative folder, with these.
    fn slot_locks(&self) -> Result<Vec<(PathBuf, Vec<PathBuf>)>, GitError> {
        let mut found = Vec::new();
        for admin in self.admins()?.into_iter().filter(|admin| admin.join(MARK).exists()) {
            let entries = fs::read_dir(&admin).into_iter().flatten().flatten();
            let mut locks: Vec<PathBuf> = entries.map(|entry| entry.path()).collect();
            locks.retain(|path| path.extension().is_some_and(|it| it == "lock") && path.is_file());
            if let (Some(slot), false) = (registered(&admin), locks.is_empty()) {
                found.push((slot, locks));
            }
        }
        Ok(found)
    }

    /// Returns administrative folders which a killed `worktree add` of a slot left almost empty.
    fn never_made(&self) -> Result<Vec<PathBuf>, GitError> {
        let mut admins = self.admins()?;
        admins.retain(|admin| {
            let name = admin.file_name().unwrap_or_default().as_encoded_bytes();
            name.iter().all(u8::is_ascii_digit) && Self::is_half_made(admin)
        });
        Ok(admins)
    }
}

#[cfg(test)]
mod tests {
    use std::fs::{self, File};

    use crate::git::SlotRequest;
    use crate::git::scratch::Scratch;
    use crate::git::slot::HALF_MADE_AGE_MIN;

    #[test]
    fn locks_of_ours_and_slots_never_made_go_and_those_of_the_user_stay() {
        let scratch = Scratch::new();
        let (repo, git) = (&scratch.repo, scratch.root.join(".git"));
        assert!(repo.clear_stale_locks().unwrap().is_empty());
        let slot = scratch.dir.path().join("slots/1");
        let at = scratch.rev("HEAD");
        let (path, at) = (&slot, &at);
        let request = SlotRequest { path, at, keep: &[], merge: None, is_ready: false };
        repo.prepare_slot(&request).unwrap();
        for dir in ["refs/heads/pipeline/task", "worktrees/2", "worktrees/mine"] {
            fs::create_dir_all(git.join(dir)).unwrap();
        }
        let ours = ["refs/heads/pipeline/task/A.lock", "worktrees/1/index.lock"];
        let theirs = ["index.lock", "refs/heads/main.lock", "worktrees/mine/locked"];
        for name in ours.iter().chain(&theirs) {
            fs::write(git.join(name), "").unwrap();
        }
        fs::write(git.join("worktrees/2/locked"), "initializing").unwrap();
        for name in ["worktrees/2", "worktrees/mine"] {
            let dir = File::open(git.join(name)).unwrap();
            let now = dir.metadata().unwrap().modified().unwrap();
            dir.set_modified(now - 2 * HALF_MADE_AGE_MIN).unwrap();
        }
        let mut expected = [ours[0], ours[1], "worktrees/2"].map(|name| git.join(name));
        expected.sort();
        assert_eq!(repo.stale_locks().unwrap(), expected);
        assert_eq!(repo.clear_stale_locks().unwrap(), expected);
        assert!(expected.iter().all(|path| !path.exists()));
        assert!(theirs.iter().all(|name| git.join(name).exists()));
        assert!(repo.stale_locks().unwrap().is_empty());
    }
}
