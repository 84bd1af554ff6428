//! Watches over room: on the disk before launches, of anything after a failure that tells of it.
//!
//! The machine is told only when it turns short, and when there is room again; of the load
//! likewise. Beside the journal
//! lies a reserve, given up when the disk is full, so that the ends of running agents can still be
//! recorded.

use std::fs::{self, OpenOptions};
use std::path::{Path, PathBuf};

use rustix::fs::{FallocateFlags, fallocate};

use super::overload;
use crate::machine::time::Time;
use crate::machine::{EventBody, Observation, State};
use crate::sys::fail;
use crate::sys::room::{Room, is_shortage, room};

/// Less free space than this stops launches, on a large disk.
const FREE_BYTES_MIN: u64 = 64 * 1024 * 1024;
/// Fewer free inodes than this do, where they are bounded.
const FREE_INODES_MIN: u64 = 4096;
/// On a small disk this part of it counts, if that is less.
const PART: u64 = 100;
/// Size of the reserve, in bytes.
const RESERVE_BYTES: u64 = 1024 * 1024;
/// Between two looks at the disk.
const LOOK_MS: u64 = 250;
/// The first pause after a failure, where the disk itself shows no shortage.
const PAUSE_MS: u64 = 1_000;
/// The longest one.
const PAUSE_MAX_MS: u64 = 30_000;
/// After so many of its own lengths without a failure the pause begins anew.
const CALM: u64 = 10;

/// The guard of one monitor.
#[derive(Debug)]
pub struct Guard {
    state_dir: PathBuf,
    worktrees: PathBuf,
    looked_at: Option<Time>,
    /// When the last failure told of a shortage.
    failed_at: Option<Time>,
    pause_ms: u64,
    has_reserve: bool,
    load: overload::Watch,
}

impl Guard {
    /// Watches the file systems of both folders; the second one may be missing still.
    pub fn new(state_dir: PathBuf, worktrees: PathBuf) -> Self {
        let (looked_at, failed_at, has_reserve) = (None, None, false);
        let (pause_ms, load) = (PAUSE_MS, overload::Watch::default());
        Self { state_dir, worktrees, looked_at, failed_at, pause_ms, has_reserve, load }
    }

    /// Looks at the disk and the load, unless that has just been done; returns what the machine is to
    /// be told.
    pub fn look(&mut self, state: &State, now: Time) -> Vec<EventBody> {
        let disk = self.look_at_disk(state, now);
        disk.into_iter().chain(self.load.look(state, now)).collect()
    }

    fn look_at_disk(&mut self, state: &State, now: Time) -> Option<EventBody> {
        if self.looked_at.is_some_and(|at| now.ms_since(at) < LOOK_MS && at <= now) {
            return None;
        }
        self.looked_at = Some(now);
        let is_short = state.shortage.is_some();
        let found = self.lacking(if is_short { 2 } else { 1 });
        if found.is_none() && !is_short {
            self.make_reserve();
        }
        let is_paused = self.pause_end().is_some_and(|end| now < end);
        let is_news = match &found {
            Some(_) => !is_short,
            None => is_short && !is_paused,
        };
        is_news.then(|| seen(found))
    }

    /// Takes notice of a failure; returns what the machine is to be told before it.
    pub fn failed(&mut self, why: &str, state: &State, now: Time) -> Option<EventBody> {
        if !is_shortage(why) {
            // Git does not always say why.
            self.looked_at = None;
            return self.look_at_disk(state, now);
        }
        let is_calm = |at: Time| now.ms_since(at) > self.pause_ms.saturating_mul(CALM);
        self.pause_ms = match self.failed_at {
            // Those that fail together count once.
            Some(at) if now.ms_since(at) < self.pause_ms => self.pause_ms,
            Some(at) if !is_calm(at) => (self.pause_ms * 2).min(PAUSE_MAX_MS),
            Some(_) | None => PAUSE_MS,
        };
        self.failed_at = Some(now);
        Some(seen(Some(why.lines().next().unwrap_or_default().to_owned())))
    }

    /// Returns when to look whether there is room again and the load has fallen; `None`: nothing is
    /// waited for.
    pub fn due_at(&self, state: &State) -> Option<Time> {
        self.room_due_at(state).into_iter().chain(self.load.due_at(state)).min()
    }

    fn room_due_at(&self, state: &State) -> Option<Time> {
        state.shortage.as_ref()?;
        let next = self.looked_at?.plus_ms(PAUSE_MS);
        Some(self.pause_end().map_or(next, |end| next.max(end)))
    }

    /// Gives the reserve up; returns whether there was one.
    pub fn release(&mut self) -> bool {
        self.has_reserve = false;
        fail::point("reserve.remove").and_then(|()| fs::remove_file(self.reserve())).is_ok()
    }

    fn reserve(&self) -> PathBuf {
        self.state_dir.join("reserve")
    }

    fn pause_end(&self) -> Option<Time> {
        self.failed_at.map(|at| at.plus_ms(self.pause_ms))
    }

    /// Returns what there is too little of, of `times` what is wanted, in words.
    fn lacking(&self, times: u64) -> Option<String> {
        let worktrees = self.worktrees.ancestors().find(|dir| dir.exists());
        let dirs = [Some(self.state_dir.as_path()), worktrees];
        dirs.into_iter().flatten().find_map(|dir| {
            // One that cannot be asked is found out by what fails there.
            let found = room(dir).ok()?;
            lacking_in(dir, &found, times)
        })
    }

    /// Makes the reserve, where there is none: what it cannot be made of now is tried again later.
    fn make_reserve(&mut self) {
        if self.has_reserve {
            return;
        }
        let path = self.reserve();
        let make = || -> std::io::Result<()> {
            fail::point("reserve.make")?;
            let file = OpenOptions::new().create(true).append(true).open(&path)?;
            fallocate(&file, FallocateFlags::empty(), 0, RESERVE_BYTES)?;
            Ok(())
        };
        self.has_reserve = make().is_ok();
        if !self.has_reserve {
            // A part of it is of no use; where it cannot be removed it takes no room either.
            let _ = fs::remove_file(&path);
        }
    }
}

/// Returns why something failed that was not an agent's doing.
pub fn fault_of(body: &EventBody) -> Option<&str> {
    let EventBody::Observation(seen) = body else { return None };
    match seen {
        Observation::AttemptFaulted { why, .. }
        | Observation::LaneFaulted { why }
        | Observation::FollowRefused { is_passing: true, why, .. }
        | Observation::Lost { why, .. } => Some(why),
        _ => None,
    }
}

fn seen(what: Option<String>) -> EventBody {
    EventBody::Observation(Observation::ShortageSeen { what })
}

/// Returns what there is too little of for a launch, on the disks of both folders, in words; the
/// second one may be missing still.
#[must_use]
pub fn lacking(state_dir: &Path, worktrees: &Path) -> Option<String> {
    Guard::new(state_dir.into(), worktrees.into()).lacking(1)
}

fn lacking_in(dir: &Path, found: &Room, times: u64) -> Option<String> {
    let dir = dir.display();
    if found.is_read_only {
        return Some(format!("`{dir}` is on a read-only file system"));
    }
    let wanted = FREE_BYTES_MIN.min(found.bytes / PART).saturating_mul(times);
    if found.free_bytes < wanted {
        let (free, wanted) = (found.free_bytes / 1024, wanted / 1024);
        return Some(format!("the disk of `{dir}` has {free} KiB free, {wanted} KiB are wanted"));
    }
    let wanted = FREE_INODES_MIN.min(found.inodes / PART).saturating_mul(times);
    (found.inodes > 0 && found.free_inodes < wanted).then(|| {
        let free = found.free_inodes;
        format!("the disk of `{dir}` has {free} inodes free, {wanted} are wanted")
    })
}

#[cfg(test)]
mod tests {
    use super::{Guard, lacking_in};
    use std::path::Path;

    use crate::machine::time::Time;
    use crate::machine::{EventBody, Observation, State};
    use crate::observe::support::settings;
    use crate::sys::room::Room;

    fn room(free_bytes: u64, bytes: u64) -> Room {
        let (free_inodes, inodes) = (1_000_000, 2_000_000);
        Room { free_bytes, bytes, free_inodes, inodes, is_read_only: false }
    }

    #[test]
    fn bound_is_64_mib_or_a_hundredth_of_a_small_disk() {
        const MIB: u64 = 1024 * 1024;
        let check = |found: Room, times| lacking_in(Path::new("/x"), &found, times).is_some();
        assert!(check(room(63 * MIB, 1_000_000 * MIB), 1));
        assert!(!check(room(64 * MIB, 1_000_000 * MIB), 1));
        assert!(check(room(64 * MIB, 1_000_000 * MIB), 2));
        assert!(check(room(MIB / 2, 100 * MIB), 1));
        assert!(!check(room(MIB, 100 * MIB), 1));
        let few = Room { free_inodes: 100, inodes: 1_000_000, ..room(MIB, 100 * MIB) };
        assert!(check(few, 1));
        assert!(!check(Room { free_inodes: 0, inodes: 0, ..few }, 1));
        assert!(check(Room { is_read_only: true, ..room(100 * MIB, 100 * MIB) }, 1));
    }

    #[test]
    fn failures_of_a_kind_pause_longer_each_time_and_others_not_at_all() {
        let dir = tempfile::tempdir().expect("temporary folder");
        let mut guard = Guard::new(dir.path().into(), dir.path().into());
        let (state, at) = (State::new(settings(), Time::default()), Time::from_ms);
        assert!(guard.failed("cannot run `git`: exit status 1", &state, at(0)).is_none());
        let told = guard.failed("git: No space left on device\nmore", &state, at(0));
        let what = Some("git: No space left on device".to_owned());
        let seen = Observation::ShortageSeen { what };
        assert_eq!(told, Some(EventBody::Observation(seen)));
        let mut pause = |now: u64| {
            guard.failed("Too many open files", &state, at(now));
            guard.pause_end().map(|end| end.ms_since(at(now)))
        };
        assert_eq!(pause(500), Some(1_000));
        assert_eq!(pause(2_000), Some(2_000));
        assert_eq!(pause(5_000), Some(4_000));
        assert_eq!(pause(100_000), Some(1_000));
    }

    #[test]
    fn a_damaged_reserve_is_made_whole_and_what_is_none_is_no_harm() {
        let dir = tempfile::tempdir().expect("temporary folder");
        let path = dir.path().join("reserve");
        let guard = || Guard::new(dir.path().into(), dir.path().into());
        let size = || std::fs::metadata(&path).map(|meta| meta.len()).ok();
        for bytes in [&b""[..], &[0; 9], &[7; 5000]] {
            std::fs::write(&path, bytes).expect("a file");
            let mut guard = guard();
            guard.make_reserve();
            assert_eq!(size(), Some(super::RESERVE_BYTES));
            assert!(guard.release() && size().is_none());
        }
        std::fs::create_dir(&path).expect("a folder");
        let mut guard = guard();
        guard.make_reserve();
        assert!(!guard.has_reserve && !guard.release() && path.is_dir());
    }

    #[test]
    fn reserve_is_made_once_given_up_once_and_made_again() {
        let dir = tempfile::tempdir().expect("temporary folder");
        let mut guard = Guard::new(dir.path().into(), dir.path().join("none/yet"));
        assert!(!guard.release());
        guard.make_reserve();
        let size = || std::fs::metadata(dir.path().join("reserve")).map(|meta| meta.len()).ok();
        assert_eq!(size(), Some(super::RESERVE_BYTES));
        assert!(guard.release() && !guard.release());
        guard.make_reserve();
        assert_eq!(size(), Some(super::RESERVE_BYTES));
    }
}
