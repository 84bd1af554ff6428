//! A slot at rest, between two attempts: what comes in there meanwhile is a person's, and is kept before
//! the slot is used again.

use std::fs::{self, File};
use std::path::Path;
use std::time::{Duration, SystemTime};

use rustix::fs::{Timespec, Timestamps, UTIME_NOW};
use serde::{Deserialize, Serialize};

use super::error::GitError;
use super::gate::Gate;
use super::oid::Oid;
use super::repo::Repo;
use super::slot::{remove_file, settle};
use super::snapshot::SnapshotRequest;
use crate::sys::fail;
use crate::sys::file::{Durability, read_bounded, write_atomic};

/// In a slot's administrative folder, written when its rest begins.
pub(super) const REST: &str = "pipeline-rest";
/// A slot that is used again so soon is not looked at: no person is that quick, and the next attempt
/// waits.
const SOON: Duration = Duration::from_secs(2);
const REST_BYTES_MAX: u64 = 1 << 20;
const NOW: Timestamps = {
    let now = Timespec { tv_sec: 0, tv_nsec: UTIME_NOW };
    Timestamps { last_access: now, last_modification: now }
};

/// What lies in a slot at rest.
#[derive(Serialize, Deserialize)]
struct Rest {
    /// The commit that has all of it.
    saved: String,
    /// But for these names, which are in no commit.
    exclude: Vec<String>,
    /// Since when, in milliseconds since 1970: when the note was last written or renewed.
    #[serde(skip)]
    since_ms: u64,
}

impl Repo {
    /// Notes that nobody works in a slot any more, and that `saved` has all that lies there, but for
    /// `exclude`: paths with `/`, taken literally.
    ///
    /// # Errors
    /// When the note cannot be written, or is wanted no longer.
    pub fn note_rest(&self, slot: &Path, saved: &Oid, exclude: &[String]) -> Result<(), GitError> {
        let slot = settle(slot)?;
        // Whoever uses the slot after this one forgets it.
        let _gate = self.slot_gate(&slot)?;
        self.git.go_on()?;
        let Some(admin) = self.admin_of(&slot)? else { return Ok(()) };
        let rest = Rest { saved: saved.to_string(), exclude: exclude.to_vec(), since_ms: 0 };
        let path = admin.join(REST);
        let written = fail::point("git.rest")
            .and_then(|()| write_atomic(&path, &serde_json::to_vec(&rest)?, Durability::Process));
        written.map_err(|source| GitError::File { doing: "write", path, source })
    }

    /// Says that what has been written since in a slot at rest is of something of ours, too.
    ///
    /// # Errors
    /// When the list of worktrees cannot be read.
    pub fn renew_rest(&self, slot: &Path) -> Result<(), GitError> {
        if let Some(admin) = self.admin_of(&settle(slot)?)?
            && let Ok(note) = File::options().append(true).open(admin.join(REST))
        {
            // Where that fails it is kept, and told, like what a person did.
            let _ = rustix::fs::futimens(&note, &NOW);
        }
        Ok(())
    }

    /// Forgets that a slot is at rest.
    ///
    /// # Errors
    /// When the note cannot be removed.
    pub fn end_rest(&self, slot: &Path) -> Result<(), GitError> {
        let admin = self.admin_of(&settle(slot)?)?;
        admin.map_or(Ok(()), |admin| remove_file(&admin.join(REST)))
    }

    /// Returns whether something came into a slot at rest that is in no commit of ours; also where that
    /// cannot be told.
    pub(super) fn is_disturbed(
        &self,
        gate: &Gate<'_>,
        slot: &Path,
        admin: &Path,
    ) -> Result<bool, GitError> {
        let Some(rest) = Rest::read(admin) else { return Ok(false) };
        let look = || -> Result<bool, GitError> {
            if !self.is_touched(slot, rest.since_ms)? {
                return Ok(false);
            }
            // Only what it says tells it from what lay there before: in a copy of the repository all
            // is new.
            let saved = rest.saved.parse().ok();
            Ok(!self.is_as_saved_in(gate, slot, admin, saved.as_ref(), &rest.exclude)?)
        };
        match look() {
            Err(GitError::Failed { .. }) => Ok(true),
            looked => looked,
        }
    }

    /// Keeps what [`GitError::Disturbed`] is about: at `pin`, and beside the slot what cannot be
    /// committed, but for what `keep` leaves there. Returns where it is kept; nowhere: it is gone.
    ///
    /// # Errors
    /// When git fails, or some of it cannot be kept.
    pub fn keep_disturbed(
        &self,
        slot: &Path,
        pin: &str,
        keep: &[String],
    ) -> Result<Vec<String>, GitError> {
        let slot = settle(slot)?;
        let Some(admin) = self.admin_of(&slot)? else { return Ok(Vec::new()) };
        let Some(rest) = Rest::read(&admin) else { return Ok(Vec::new()) };
        let (tip, name) = (self.slot_commit(&admin)?, pin.rsplit('/').next().unwrap_or(pin));
        let modules = self.keep_modules(&slot, &tip, name)?;
        let left = self.snapshot(&SnapshotRequest {
            slot: &slot,
            tip: &tip,
            merge: None,
            exclude: &rest.exclude,
            message: "What came into a worktree while nobody worked there",
            // The same when it is done again.
            date_s: rest.since_ms / 1000,
            begun: None,
            pin,
        })?;
        let is_own = left.commit.is_none() && self.has_own_commit(&slot, 0)?;
        if is_own {
            self.keep_at(pin, &tip)?;
        }
        let (to, aside) = self.set_apart(&slot, &left.repositories, keep, name)?;
        let mut places: Vec<String> = Vec::new();
        places.extend((is_own || left.commit.is_some()).then(|| pin.to_owned()));
        places.extend((!aside.is_empty()).then(|| to.display().to_string()));
        for module in modules {
            match module.bundle {
                Ok(bundle) => places.push(bundle.display().to_string()),
                Err(_) => return Err(GitError::Disturbed { path: slot }),
            }
        }
        if left.left_out.is_empty() { Ok(places) } else { Err(GitError::Disturbed { path: slot }) }
    }
}

impl Rest {
    /// Reads the note of a slot that has been at rest for longer than a moment.
    fn read(admin: &Path) -> Option<Self> {
        let path = admin.join(REST);
        let since = fs::metadata(&path).and_then(|found| found.modified()).ok()?;
        if since.elapsed().is_ok_and(|rest| rest < SOON) {
            return None;
        }
        let text = match read_bounded(&path, REST_BYTES_MAX) {
            Ok(text) => text?,
            Err(_) => Vec::new(),
        };
        // One that cannot be understood, as a power cut may leave it, still tells since when.
        let nothing = Self { saved: String::new(), exclude: Vec::new(), since_ms: 0 };
        let said = serde_json::from_slice(&text).unwrap_or(nothing);
        let since = since.duration_since(SystemTime::UNIX_EPOCH).ok()?;
        let since_ms = u64::try_from(since.as_millis()).ok()?;
        Some(Self { since_ms, ..said })
    }
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

        fn note(&self) -> PathBuf {
            self.scratch.repo.admin_of(&self.slot).unwrap().unwrap().join(REST)
        }

        /// Lets the rest have begun a minute before.
        fn wait(&self) {
            let note = File::options().append(true).open(self.note()).unwrap();
            let began = note.metadata().unwrap().modified().unwrap();
            note.set_modified(began - Duration::from_secs(60)).unwrap();
        }

        fn assert_disturbed(&self, is_ready: bool) {
            assert!(matches!(self.prepare(is_ready), Err(GitError::Disturbed { .. })));
        }

        fn keep(&self) -> Vec<String> {
            let kept = self.scratch.repo.keep_disturbed(&self.slot, PIN, &[]).unwrap();
            self.scratch.repo.end_rest(&self.slot).unwrap();
            kept
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
        assert_eq!(case.keep(), [PIN]);
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
        assert_eq!(case.keep(), [PIN]);
        assert_eq!(case.scratch.git(["log", "-1", "--format=%s", PIN]), "By hand");
    }

    #[test]
    fn what_git_hides_or_cannot_commit_is_kept_too() {
        let case = Case::new();
        let slot = case.slot.to_string_lossy().into_owned();
        let git = |args: &[&str]| case.scratch.git([&["-C", &slot][..], args].concat());
        git(&["add", "work.txt"]);
        git(&["update-index", "--skip-worktree", "work.txt"]);
        git(&["init", "-q", "inner"]);
        case.write("new.txt", "new");
        case.wait();
        case.assert_disturbed(false);
        let [pin, aside] = &case.keep()[..] else { panic!("two places") };
        assert_eq!((pin.as_str(), case.kept("new.txt").as_str()), (PIN, "new"));
        assert!(Path::new(aside).join("inner/.git").exists());
        case.prepare(false).unwrap();
        assert!(!case.slot.join("new.txt").exists() && !case.slot.join("inner").exists());
    }

    #[test]
    fn what_came_beside_a_damaged_note_is_kept() {
        type Damage = fn(&[u8]) -> Vec<u8>;
        let damages: [Damage; 5] = [
            |_| Vec::new(),
            |whole| vec![0; whole.len()],
            |whole| whole[..whole.len() / 2].to_vec(),
            |whole| whole[..whole.len() - 1].to_vec(),
            |_| b"[1, 2]".to_vec(),
        ];
        for damaged in damages {
            let case = Case::new();
            case.write("new.txt", "new");
            let whole = fs::read(case.note()).unwrap();
            fs::write(case.note(), damaged(&whole)).unwrap();
            case.wait();
            case.assert_disturbed(false);
            assert_eq!(case.keep(), [PIN]);
            assert_eq!(
                (case.kept("new.txt"), case.kept("work.txt")),
                ("new".into(), "work".into())
            );
            case.prepare(false).unwrap();
            assert!(!case.slot.join("new.txt").exists());
        }
    }

    #[test]
    fn what_cannot_be_told_stays() {
        let case = Case::new();
        let slot = case.slot.to_string_lossy().into_owned();
        case.scratch.git(["-C", &slot, "switch", "-q", "--orphan", "mine"]);
        case.write("new.txt", "new");
        case.wait();
        for _ in 0..2 {
            case.assert_disturbed(false);
            case.scratch.repo.keep_disturbed(&case.slot, PIN, &[]).unwrap_err();
        }
        assert!(case.slot.join("new.txt").exists());
    }

    #[test]
    fn what_checks_write_is_nobodys_work() {
        let case = Case::new();
        case.wait();
        case.write("coverage.xml", "of a check");
        case.assert_disturbed(false);
        case.scratch.repo.renew_rest(&case.slot).unwrap();
        let modified = |path: &Path| fs::metadata(path).unwrap().modified().unwrap();
        assert!(modified(&case.note()) >= modified(&case.slot.join("coverage.xml")));
        case.prepare(false).unwrap();
        assert!(!case.slot.join("coverage.xml").exists());
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
                assert_eq!(case.keep(), [PIN]);
                assert_eq!(case.kept("new.txt"), "new");
            }
            case.prepare(true).unwrap();
            assert!(!case.slot.join("new.txt").exists());
        }
    }
}
