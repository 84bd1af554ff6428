//! Entries of worktrees that came along when the repository was copied as files. Their paths lead to
//! the worktrees of the original, which are not ours, whatever the entries say.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use super::error::GitError;
use super::repo::Repo;
use super::slot::{MARK, linked, registered};

impl Repo {
    /// Returns whether the worktree at `slot` is another repository's: both name each other.
    pub(super) fn is_others(&self, slot: &Path) -> bool {
        let Some(link) = linked(slot) else { return false };
        let Some(dir) = link.parent() else { return false };
        // By another path, as through a mount, it may be ours all the same.
        let is_same = match (fs::metadata(dir), fs::metadata(self.common.join("worktrees"))) {
            (Ok(theirs), Ok(ours)) => (theirs.dev(), theirs.ino()) == (ours.dev(), ours.ino()),
            (Err(_), _) | (_, Err(_)) => false,
        };
        !is_same && registered(&link).as_deref() == Some(slot)
    }

    /// Removes the entries of slots that are another repository's, and nothing of the slots.
    ///
    /// # Errors
    /// When another git of ours is at work, or an entry cannot be removed.
    pub fn forget_copied(&self) -> Result<(), GitError> {
        let _registry = self.registry_gate()?;
        for admin in self.admins()? {
            let is_slot = admin.join(MARK).exists();
            if is_slot && registered(&admin).is_some_and(|slot| self.is_others(&slot)) {
                self.remove_admin(&admin)?;
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use crate::git::scratch::Scratch;
    use crate::git::{GitError, Repo, SlotRequest};

    #[test]
    fn a_copy_leaves_the_worktrees_of_the_original_alone() {
        let scratch = Scratch::new();
        let (slot, at) = (scratch.root.join(".pipeline/worktrees/test/0"), scratch.rev("HEAD"));
        let request = SlotRequest { path: &slot, at: &at, keep: &[], merge: None, is_ready: false };
        scratch.repo.prepare_slot(&request).unwrap();
        fs::write(slot.join("new.txt"), "work").unwrap();
        let copy = scratch.dir.path().join("copy");
        let mut command = crate::sys::child::command("cp", &scratch.root);
        assert!(command.arg("-a").args([&scratch.root, &copy]).status().unwrap().success());
        let repo = Repo::discover_by(scratch.repo.git.clone(), &copy).unwrap();
        assert!(repo.own_slots(&copy.join(".pipeline")).unwrap().is_empty());
        assert!(matches!(repo.remove_slot(&slot), Err(GitError::ForeignSlot { .. })));
        assert!(matches!(repo.prepare_slot(&request), Err(GitError::ForeignSlot { .. })));
        repo.forget_copied().unwrap();
        assert!(repo.admins().unwrap().is_empty());
        assert_eq!(fs::read_to_string(slot.join("new.txt")).unwrap(), "work");
        scratch.repo.forget_copied().unwrap();
        assert!(scratch.repo.is_slot(&slot).unwrap(), "its own entry stays");
        scratch.repo.remove_slot(&slot).unwrap();
    }
}
