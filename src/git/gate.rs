//! Gates: who may run a writing git in one place, across threads, processes and deaths.
//!
//! A gate is a locked file. The lock goes along to git as its standard input (the file is empty), so
//! a git that outlives a killed monitor keeps the gate closed until it ends. Whoever holds a gate
//! therefore knows that no git of ours is at work there, and that a `*.lock` found there is stale.

use std::fs::{self, File, TryLockError};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::Duration;

use super::error::GitError;
use crate::sys::{clock, fail};

/// Longest wait for a git of another process or of a dead one; a checkout may take minutes.
pub(super) const WAIT_MAX: Duration = Duration::from_secs(120);
/// Pause between two tries.
const PAUSE: Duration = Duration::from_millis(5);

/// A gate that is held; it opens when this value and every git started with it are gone.
pub(super) struct Gate<'a> {
    file: File,
    _turn: Option<MutexGuard<'a, ()>>,
}

impl<'a> Gate<'a> {
    /// Waits for the gate `name` below `dir`; threads that share `turn` queue there first.
    pub(super) fn close(
        dir: &Path,
        name: &str,
        turn: Option<&'a Mutex<()>>,
        wait_max: Duration,
    ) -> Result<Self, GitError> {
        // The mutex guards no data, so one whose holder panicked is as good as new.
        let turn = turn.map(|it| it.lock().unwrap_or_else(PoisonError::into_inner));
        let path = dir.join(name);
        let file = open(dir, &path).map_err(|source| GitError::File {
            doing: "open",
            path: path.clone(),
            source,
        })?;
        let start = clock::monotonic();
        loop {
            match file.try_lock() {
                Ok(()) => return Ok(Self { file, _turn: turn }),
                Err(TryLockError::WouldBlock) => {
                    if clock::monotonic().duration_since(start) >= wait_max {
                        let wait_ms = wait_max.as_millis() as u64;
                        return Err(GitError::Busy { path, wait_ms });
                    }
                    thread::sleep(PAUSE);
                }
                Err(TryLockError::Error(source)) => {
                    return Err(GitError::File { doing: "lock", path, source });
                }
            }
        }
    }

    /// Returns the lock as a file to hand to git.
    pub(super) fn share(&self) -> io::Result<File> {
        self.file.try_clone()
    }
}

fn open(dir: &Path, path: &PathBuf) -> io::Result<File> {
    fail::point("git.gate")?;
    fs::create_dir_all(dir)?;
    File::options().read(true).write(true).create(true).truncate(false).open(path)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sys::child;

    #[test]
    fn a_gate_stays_closed_while_a_child_of_a_dead_holder_lives() {
        let dir = tempfile::tempdir().unwrap();
        let gate = Gate::close(dir.path(), "x.lock", None, Duration::ZERO).unwrap();
        let mut command = child::command("sleep", dir.path());
        let mut child = command.arg("60").stdin(gate.share().unwrap()).spawn().unwrap();
        drop(command);
        drop(gate);
        let busy = Gate::close(dir.path(), "x.lock", None, Duration::ZERO);
        assert!(matches!(busy, Err(GitError::Busy { .. })));
        child.kill().unwrap();
        child.wait().unwrap();
        assert!(Gate::close(dir.path(), "x.lock", None, Duration::from_secs(10)).is_ok());
    }
}
