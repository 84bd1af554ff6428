//! A slot at rest, between two attempts: what comes in there meanwhile is a person's, and is kept before
//! the slot is used again.

use std::fs;
use std::path::Path;
use std::time::{Duration, SystemTime};

use super::error::GitError;
use super::gate::Gate;
use super::oid::Oid;
use super::repo::Repo;
use super::slot::{remove_file, settle};
use super::worktree::write;
use crate::sys::file::small_text;

/// In a slot's administrative folder, written when its rest begins: the commit that has all that lies in
/// the slot, and after NUL each the names that are in no commit.
pub(super) const REST: &str = "pipeline-rest";
/// A slot that is used again so soon is not looked at: no person is that quick, and the next attempt
/// waits.
const SOON: Duration = Duration::from_secs(2);

impl Repo {
    /// Notes that nobody works in a slot any more, and that `saved` has all that lies there, but for
    /// `exclude`: paths with `/`, taken literally.
    ///
    /// # Errors
    /// When the note cannot be written.
    pub fn note_rest(&self, slot: &Path, saved: &Oid, exclude: &[String]) -> Result<(), GitError> {
        let Some(admin) = self.admin_of(&settle(slot)?)? else { return Ok(()) };
        let fields: Vec<&str> =
            [saved.as_str()].into_iter().chain(exclude.iter().map(String::as_str)).collect();
        write(&admin.join(REST), &fields.join("\0"))
    }

    /// Returns whether something came into a slot at rest that is in no commit of ours.
    pub(super) fn is_disturbed(
        &self,
        gate: &Gate<'_>,
        slot: &Path,
        admin: &Path,
    ) -> Result<bool, GitError> {
        let Some(began) = rest_began(admin) else { return Ok(false) };
        if began.elapsed().is_ok_and(|rest| rest < SOON) || !self.is_touched(slot, ms(began))? {
            return Ok(false);
        }
        // Only what it says tells it from what lay there before: in a copy of the repository all is new.
        let text = small_text(&admin.join(REST));
        let mut fields = text.split('\0').map(str::to_owned);
        let saved = fields.next().unwrap_or_default().parse().ok();
        let exclude: Vec<String> = fields.collect();
        Ok(!self.is_as_saved_in(gate, slot, admin, saved.as_ref(), &exclude)?)
    }

    /// Keeps at `pin` what [`GitError::Disturbed`] is about, so that the slot can be used again. Returns
    /// false when there is nothing any more.
    ///
    /// # Errors
    /// When git fails, or some of it cannot be committed.
    pub fn keep_disturbed(&self, slot: &Path, pin: &str) -> Result<bool, GitError> {
        let slot = settle(slot)?;
        let Some(admin) = self.admin_of(&slot)? else { return Ok(false) };
        let Some(began) = rest_began(&admin) else { return Ok(false) };
        let text = small_text(&admin.join(REST));
        let exclude: Vec<String> = text.split('\0').skip(1).map(str::to_owned).collect();
        // The same date when it is done again.
        let is_kept = self.keep_slot(&slot, pin, &exclude, ms(began) / 1000)?;
        remove_file(&admin.join(REST))?;
        Ok(is_kept)
    }
}

/// Returns since when a slot has been at rest; `None`: somebody may be at work there.
fn rest_began(admin: &Path) -> Option<SystemTime> {
    fs::metadata(admin.join(REST)).and_then(|found| found.modified()).ok()
}

/// Returns a moment in milliseconds since 1970.
fn ms(at: SystemTime) -> u64 {
    let since = at.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use std::path::PathBuf;

    use super::*;
    use crate::git::scratch::Scratch;
    use crate::git::{SlotReady, SlotRequest};

    const PIN: &str = "refs/pipeline/salvage/A.impl.2.slot";

    struct Case {
        scratch: Scratch,
        slot: PathBuf,
        at: Oid,
    }

    impl Case {
        /// An attempt left `work.txt`, which is saved, and `TASK.md`, which is not.
        fn new() -> Self {
            let scratch = Scratch::new();
            let (slot, at) = (scratch.root.join(".pipeline/worktrees/a/0"), scratch.rev("HEAD"));
            let case = Self { scratch, slot, at };
            case.prepare(false).unwrap();
            case.write("work.txt", "work");
            case.write("TASK.md", "task");
            let saved = case.scratch.commit_on(&case.at, "work.txt", "work");
            case.scratch.git(["update-ref", "refs/heads/pipeline/task/A", saved.as_str()]);
            case.scratch.repo.note_rest(&case.slot, &saved, &["TASK.md".into()]).unwrap();
            case
        }

        fn prepare(&self, is_ready: bool) -> Result<SlotReady, GitError> {
            let (path, at) = (&self.slot, &self.at);
            let request = SlotRequest { path, at, keep: &[], merge: None, is_ready };
            self.scratch.repo.prepare_slot(&request)
        }

        fn write(&self, name: &str, text: &str) {
            fs::write(self.slot.join(name), text).unwrap();
        }

        /// Lets the rest have begun a minute before.
        fn wait(&self) {
            let admin = self.scratch.repo.admin_of(&self.slot).unwrap().unwrap();
            let note = fs::File::options().append(true).open(admin.join(REST)).unwrap();
            let began = note.metadata().unwrap().modified().unwrap();
            note.set_modified(began - Duration::from_secs(60)).unwrap();
        }

        fn assert_disturbed(&self, is_ready: bool) {
            assert!(matches!(self.prepare(is_ready), Err(GitError::Disturbed { .. })));
        }

        fn kept(&self, name: &str) -> String {
            self.scratch.git(["show", &format!("{PIN}:{name}")])
        }
    }

    #[test]
    fn what_came_into_a_slot_at_rest_is_kept_before_it_is_used() {
        let case = Case::new();
        case.write("work.txt", "mended by hand");
        case.write("new.txt", "new");
        case.wait();
        for _ in 0..2 {
            case.assert_disturbed(false);
        }
        assert!(case.scratch.repo.keep_disturbed(&case.slot, PIN).unwrap());
        assert_eq!(
            (case.kept("work.txt"), case.kept("new.txt")),
            ("mended by hand".into(), "new".into())
        );
        assert!(!case.scratch.git(["ls-tree", "--name-only", PIN]).contains("TASK.md"));
        case.prepare(false).unwrap();
        assert!(!case.slot.join("work.txt").exists());
        case.prepare(false).unwrap();
    }

    #[test]
    fn a_commit_that_came_into_a_slot_at_rest_is_kept() {
        let case = Case::new();
        let slot = case.slot.to_string_lossy().into_owned();
        case.scratch.git(["-C", &slot, "add", "work.txt"]);
        case.scratch.git(["-C", &slot, "commit", "-qm", "By hand"]);
        case.wait();
        case.assert_disturbed(false);
        assert!(case.scratch.repo.keep_disturbed(&case.slot, PIN).unwrap());
        assert_eq!(case.scratch.git(["log", "-1", "--format=%s", PIN]), "By hand");
    }

    #[test]
    fn what_an_attempt_left_is_in_nobodys_way() {
        // Written after the note as the clock has it, and saved all the same.
        let case = Case::new();
        case.wait();
        case.prepare(false).unwrap();
        assert!(!case.slot.join("work.txt").exists());
        // An attempt is at work now: there is no rest that could be disturbed.
        case.write("more.txt", "more");
        case.prepare(false).unwrap();
        assert!(!case.slot.join("more.txt").exists());
        // Nobody is that quick.
        let case = Case::new();
        case.write("work.txt", "more work");
        case.prepare(false).unwrap();
        assert!(!case.slot.join("work.txt").exists());
    }

    #[test]
    fn a_slot_that_was_made_ready_is_at_rest() {
        let case = Case::new();
        for is_disturbed in [false, true] {
            case.prepare(false).unwrap();
            case.scratch.repo.note_rest(&case.slot, &case.at, &[]).unwrap();
            case.wait();
            if is_disturbed {
                case.write("new.txt", "new");
                case.assert_disturbed(true);
                assert!(case.scratch.repo.keep_disturbed(&case.slot, PIN).unwrap());
                assert_eq!(case.kept("new.txt"), "new");
            }
            case.prepare(true).unwrap();
            assert!(!case.slot.join("new.txt").exists());
        }
    }
}
