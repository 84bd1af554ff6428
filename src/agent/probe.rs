//! What the world says of an attempt that nobody watched.

use std::io;
use std::path::Path;

use super::folder::FolderId;
use super::job::{AttemptRef, ExitRecord, StartedRecord};
use super::rendezvous::lock_path;
use super::tree::Strays;
use crate::sys::fail;

/// Tells whether somebody holds the lock on this file.
pub type IsHeld = fn(&Path) -> bool;

/// What became of an attempt; the first that fits, in this order.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Probe {
    /// It ended.
    Exited(Box<ExitRecord>),
    /// The agent's keeper lives: adopt it, it knows.
    KeeperAlive,
    /// The keeper died and left processes: end them, the attempt is lost.
    Strays(StartedRecord),
    /// It was started in the folder that this one is a copy of, whose processes are not ours: lost.
    Elsewhere,
    /// It was started, and nothing is left of it: lost.
    Started(StartedRecord),
    /// It was never started: launch it.
    Nothing,
}

/// Reads what became of `attempt`, whose agent's keeper has the folder `keeper_dir`.
///
/// A record that is there and makes no sense (a power cut may leave that) says that it was started.
///
/// # Errors
/// When a record or /proc cannot be read.
pub fn probe(keeper_dir: &Path, attempt: &AttemptRef, is_held: IsHeld) -> io::Result<Probe> {
    fail::point("probe.read")?;
    if let Ok(Some(record)) = understood(ExitRecord::read(attempt))? {
        return Ok(Probe::Exited(Box::new(record)));
    }
    if is_held(&lock_path(keeper_dir)) {
        return Ok(Probe::KeeperAlive);
    }
    // Once more: it may have ended, and its keeper left, between the two looks.
    let exit = match understood(ExitRecord::read(attempt))? {
        Ok(Some(record)) => return Ok(Probe::Exited(Box::new(record))),
        Ok(None) => Ok(()),
        Err(Garbled) => Err(Garbled),
    };
    let started = match understood(StartedRecord::read(attempt))? {
        Ok(Some(started)) => started,
        Ok(None) if exit.is_ok() => return Ok(Probe::Nothing),
        Ok(None) | Err(Garbled) => StartedRecord::unknown(attempt)?,
    };
    if !FolderId::is_home(started.folder, &attempt.attempt_dir)? {
        return Ok(Probe::Elsewhere);
    }
    let strays = Strays::of_dead_keeper(&started)?;
    Ok(if strays.is_empty() { Probe::Started(started) } else { Probe::Strays(started) })
}

/// A record is there, but not what was written.
struct Garbled;

/// Tells a record that cannot be understood from one that cannot be read.
fn understood<T>(read: io::Result<Option<T>>) -> io::Result<Result<Option<T>, Garbled>> {
    match read {
        Ok(record) => Ok(Ok(record)),
        Err(error) if error.kind() == io::ErrorKind::InvalidData => Ok(Err(Garbled)),
        Err(error) => Err(error),
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::{Probe, probe};
    use crate::agent::folder::FolderId;
    use crate::agent::job::{AttemptRef, JOB_VERSION, StartedRecord};
    use crate::sys::proc;

    #[test]
    fn keeper_alive_comes_before_started_and_nothing_last() {
        let dir = tempfile::tempdir().expect("temporary folder");
        let attempt = AttemptRef {
            attempt: "a".into(),
            nonce: format!("probe-{}", proc::own_pid()),
            attempt_dir: dir.path().into(),
        };
        let check = |is_held| probe(dir.path(), &attempt, is_held).expect("probes");
        assert_eq!(check(|_| false), Probe::Nothing);
        let started = StartedRecord {
            v: JOB_VERSION,
            attempt: "a".into(),
            nonce: attempt.nonce.clone(),
            keeper_pid: -1,
            keeper_start_ticks: 1,
            boot_id: proc::boot_id().expect("readable"),
            started_ms: 0,
            leaders: Vec::new(),
            folder: None,
            project: None,
        };
        started.write(dir.path(), None).expect("writes");
        assert_eq!(check(|_| false), Probe::Started(started.clone()));
        assert_eq!(check(|_| true), Probe::KeeperAlive);
        for garbled in ["torn", "", "\0\0", "[1]"] {
            fs::write(dir.path().join("exit.json"), garbled).expect("writes");
            assert!(matches!(check(|_| false), Probe::Started(_)), "it has run");
            assert_eq!(check(|_| true), Probe::KeeperAlive);
            fs::write(dir.path().join("started.json"), garbled).expect("writes");
            assert!(matches!(check(|_| false), Probe::Started(_)), "{garbled}");
            fs::remove_file(dir.path().join("started.json")).expect("goes");
            assert!(matches!(check(|_| false), Probe::Started(_)), "{garbled}");
        }
        let elsewhere = tempfile::tempdir().expect("temporary folder");
        let folder = FolderId::of(elsewhere.path()).ok();
        let copied = StartedRecord { folder, ..started };
        copied.write(dir.path(), None).expect("writes");
        assert_eq!(check(|_| false), Probe::Elsewhere);
    }
}
