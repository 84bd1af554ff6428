//! Locks that the kernel frees when their holder dies: `flock` on a file.
//!
//! The file's content says who took it last; it is information for people, never authority. A probe
//! takes the lock shared for an instant, so an owner tries for [`PROBE_GRACE`] before it believes
//! that the lock is taken. This is the only file that uses `fs2`.

use std::fmt;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Seek, SeekFrom, Write};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::thread;
use std::time::Duration;

use fs2::FileExt;

use crate::sys::{clock, fail, file, proc};

/// How long an owner goes on trying before a lock counts as taken.
pub const PROBE_GRACE: Duration = Duration::from_millis(200);

/// How long it goes on while the process that the file names is gone: a child that this one was about
/// to start holds the lock until it executes its program, which takes long on a busy machine.
pub const DEAD_GRACE: Duration = Duration::from_secs(10);

/// The longest pause between two tries.
const PAUSE_MAX: Duration = Duration::from_millis(5);

/// The longest text that is read as an owner, in bytes.
const OWNER_BYTES_MAX: u64 = 4096;

/// An exclusive lock, given back on drop and by the death of the process.
#[derive(Debug)]
pub struct FileLock {
    file: File,
    path: PathBuf,
}

/// Who took a lock last, as its file says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Owner {
    /// The process.
    pub pid: u32,
    /// What it took the lock for ("monitor").
    pub what: String,
}

impl Owner {
    /// Returns whether no such process is alive; false where that cannot be told.
    fn is_gone(&self) -> bool {
        let stat = i32::try_from(self.pid).map(proc::read_stat);
        matches!(stat, Ok(Ok(stat)) if stat.is_none_or(|stat| stat.state == b'Z'))
    }
}

impl fmt::Display for Owner {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "process {} ({})", self.pid, self.what)
    }
}

impl FileLock {
    /// Takes the lock at `path` for `what`, making the file if need be; `None` when it is taken.
    ///
    /// Tries for [`PROBE_GRACE`], so that a probe is not mistaken for an owner, and for [`DEAD_GRACE`]
    /// while the owner is gone.
    ///
    /// # Errors
    /// When the file cannot be made, opened or locked for another reason.
    pub fn try_exclusive(path: &Path, what: &str) -> io::Result<Option<Self>> {
        let start = clock::monotonic();
        loop {
            let lock = Self::exclusive(path, what, PROBE_GRACE)?;
            let is_gone = || read_owner(path).is_some_and(|owner| owner.is_gone());
            if lock.is_some() || start.elapsed() > DEAD_GRACE || !is_gone() {
                return Ok(lock);
            }
        }
    }

    /// Takes the lock at `path` for `what`, waiting `wait` at most; `None` when it stays taken.
    ///
    /// # Errors
    /// When the file cannot be made, opened or locked for another reason.
    pub fn exclusive(path: &Path, what: &str, wait: Duration) -> io::Result<Option<Self>> {
        let start = clock::monotonic();
        let mut pause = Duration::from_micros(50);
        loop {
            if let Some(mut lock) = Self::once(path)? {
                // Only information, so a full disk must not keep anyone from locking.
                let _ = lock.write_owner(what);
                return Ok(Some(lock));
            }
            let left = wait.saturating_sub(clock::monotonic().duration_since(start));
            if left.is_zero() {
                return Ok(None);
            }
            thread::sleep(pause.min(left));
            pause = (pause * 2).min(PAUSE_MAX);
        }
    }

    /// Tries once; `None` when it is taken, or the file was replaced meanwhile.
    fn once(path: &Path) -> io::Result<Option<Self>> {
        fail::point("lock.open")?;
        let file =
            OpenOptions::new().read(true).write(true).create(true).truncate(false).open(path)?;
        if !is_taken(FileExt::try_lock_exclusive(&file))? {
            let lock = Self { file, path: path.to_path_buf() };
            return Ok(lock.is_still_ours()?.then_some(lock));
        }
        Ok(None)
    }

    /// Returns false when the file was deleted or replaced, so that another may hold a new one.
    ///
    /// # Errors
    /// When that cannot be told now: it says nothing of who holds the lock.
    pub fn is_still_ours(&self) -> io::Result<bool> {
        let there = match fail::point("lock.look").and_then(|()| fs::metadata(&self.path)) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(false),
            other => other?,
        };
        let ours = self.file.metadata()?;
        Ok(ours.nlink() > 0 && ours.dev() == there.dev() && ours.ino() == there.ino())
    }

    fn write_owner(&mut self, what: &str) -> io::Result<()> {
        let text = format!("{} {what}\n", std::process::id());
        self.file.seek(SeekFrom::Start(0))?;
        self.file.write_all(text.as_bytes())?;
        self.file.set_len(text.len() as u64)
    }
}

impl Drop for FileLock {
    fn drop(&mut self) {
        // Said aloud, since a child between fork and exec shares the open file. When it fails, the
        // close that follows gives the lock back as well.
        let _ = FileExt::unlock(&self.file);
    }
}

/// Returns whether somebody holds the lock at `path`; false when there is no such file.
///
/// # Errors
/// When the file cannot be opened or probed.
pub fn is_held(path: &Path) -> io::Result<bool> {
    let file = match file::open_regular(path) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(false),
        Err(error) => return Err(error),
    };
    if is_taken(FileExt::try_lock_shared(&file))? {
        return Ok(true);
    }
    FileExt::unlock(&file)?;
    Ok(false)
}

/// Returns who took the lock at `path` last; `None` when the file does not tell.
#[must_use]
pub fn read_owner(path: &Path) -> Option<Owner> {
    let bytes = file::read_bounded(path, OWNER_BYTES_MAX).ok()??;
    let text = String::from_utf8(bytes).ok()?;
    let (pid, what) = text.strip_suffix('\n')?.split_once(' ')?;
    Some(Owner { pid: pid.parse().ok()?, what: what.into() })
}

/// Turns the answer of a lock call into whether somebody else has it.
fn is_taken(answer: io::Result<()>) -> io::Result<bool> {
    match answer {
        Ok(()) => Ok(false),
        Err(error) if error.kind() == io::ErrorKind::WouldBlock => Ok(true),
        Err(error) if error.kind() == io::ErrorKind::Interrupted => Ok(true),
        Err(error) => Err(error),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn path() -> (tempfile::TempDir, PathBuf) {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("lock");
        (dir, path)
    }

    #[test]
    fn second_owner_is_refused_until_the_first_drops() {
        let (_dir, path) = path();
        let first = FileLock::try_exclusive(&path, "first").unwrap().unwrap();
        assert!(is_held(&path).unwrap());
        let short = Duration::from_millis(5);
        assert!(FileLock::exclusive(&path, "second", short).unwrap().is_none());
        assert_eq!(read_owner(&path).unwrap().what, "first");
        drop(first);
        assert!(!is_held(&path).unwrap());
        assert!(FileLock::exclusive(&path, "second", short).unwrap().is_some());
        let owner = Owner { pid: std::process::id(), what: "second".into() };
        assert_eq!(read_owner(&path), Some(owner));
    }

    #[test]
    fn probe_of_nothing_makes_no_file() {
        let (_dir, path) = path();
        assert!(!is_held(&path).unwrap());
        assert!(read_owner(&path).is_none());
        assert!(!path.exists());
    }

    #[test]
    fn waiter_gets_the_lock_when_it_is_given_back() {
        let (_dir, path) = path();
        let first = FileLock::try_exclusive(&path, "first").unwrap().unwrap();
        let there = path.clone();
        let waiter =
            thread::spawn(move || FileLock::exclusive(&there, "second", Duration::from_secs(20)));
        drop(first);
        assert!(waiter.join().unwrap().unwrap().is_some());
    }

    #[test]
    fn shared_probe_does_not_look_like_an_owner() {
        let (_dir, path) = path();
        drop(FileLock::try_exclusive(&path, "made").unwrap());
        let probe = File::open(&path).unwrap();
        FileExt::lock_shared(&probe).unwrap();
        let there = path.clone();
        let owner = thread::spawn(move || FileLock::try_exclusive(&there, "owner"));
        FileExt::unlock(&probe).unwrap();
        assert!(owner.join().unwrap().unwrap().is_some());
    }

    #[test]
    fn deleted_or_replaced_lock_is_noticed() {
        let (_dir, path) = path();
        let lock = FileLock::try_exclusive(&path, "first").unwrap().unwrap();
        assert!(lock.is_still_ours().unwrap());
        fs::remove_file(&path).unwrap();
        assert!(!lock.is_still_ours().unwrap());
        let other = FileLock::try_exclusive(&path, "second").unwrap().unwrap();
        assert!(!lock.is_still_ours().unwrap());
        assert!(other.is_still_ours().unwrap());
    }

    #[test]
    fn lock_of_a_killed_process_is_free() {
        let (_dir, path) = path();
        drop(FileLock::try_exclusive(&path, "made").unwrap());
        let held = OpenOptions::new().read(true).open(&path).unwrap();
        FileExt::lock_exclusive(&held).unwrap();
        // The child is the only one to keep the open file once `held` is gone.
        let mut child = crate::sys::child::command("sleep", Path::new("/"))
            .arg("600")
            .stdout(std::process::Stdio::from(held))
            .spawn()
            .unwrap();
        assert!(is_held(&path).unwrap());
        child.kill().unwrap();
        child.wait().unwrap();
        assert!(FileLock::try_exclusive(&path, "next").unwrap().is_some());
    }

    #[test]
    fn lock_that_a_child_of_a_dead_process_still_holds_is_waited_for() {
        let (_dir, path) = path();
        drop(FileLock::try_exclusive(&path, "made").unwrap());
        let held = OpenOptions::new().read(true).open(&path).unwrap();
        FileExt::lock_exclusive(&held).unwrap();
        let mut gone = crate::sys::child::command("true", Path::new("/")).spawn().unwrap();
        gone.wait().unwrap();
        for (pid, is_waited_for) in [(std::process::id(), false), (gone.id(), true)] {
            fs::write(&path, format!("{pid} monitor\n")).unwrap();
            let there = path.clone();
            let taker = thread::spawn(move || FileLock::try_exclusive(&there, "next"));
            // The time is what it is about.
            thread::sleep(2 * PROBE_GRACE);
            if is_waited_for {
                assert!(!taker.is_finished(), "its owner is gone");
                FileExt::unlock(&held).unwrap();
            }
            assert_eq!(taker.join().unwrap().unwrap().is_some(), is_waited_for);
        }
    }
}
