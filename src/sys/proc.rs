//! What the kernel says about running processes, and signals that cannot hit a stranger.
//!
//! A process id alone names nobody: the kernel gives it out again. Here a process is its id
//! together with its start time, and a signal goes through a pidfd whose start time was read after
//! the pidfd was opened. Layout of the files read: proc(5).

use std::fs;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::time::Duration;

use rustix::event::{PollFd, PollFlags, Timespec};
use rustix::io::Errno;
use rustix::process::{Pid, PidfdFlags, Signal, WaitId, WaitIdOptions, WaitOptions};

/// One process at the moment it was looked at.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ProcessStat {
    /// Process id.
    pub pid: i32,
    /// State letter of proc(5); `Z` is dead but for its threads, `T` stopped.
    pub state: u8,
    /// Parent's id; 0 for none.
    pub ppid: i32,
    /// Session's id.
    pub session: i32,
    /// Start time in clock ticks since boot; with `pid` it names the process for one boot.
    pub start_ticks: u64,
}

/// A process held by a descriptor: a signal reaches it or nobody.
#[derive(Debug)]
pub struct Process {
    /// What it was when it was taken hold of.
    pub stat: ProcessStat,
    fd: OwnedFd,
}

impl Process {
    /// Takes hold of the process seen as `stat`; `None` when that one is gone.
    ///
    /// # Errors
    /// When there are no descriptors left, or the kernel has no pidfd (before 5.3).
    pub fn open(stat: ProcessStat) -> io::Result<Option<Self>> {
        let Some(pid) = Pid::from_raw(stat.pid) else { return Ok(None) };
        let fd = match rustix::process::pidfd_open(pid, PidfdFlags::empty()) {
            Ok(fd) => fd,
            // EINVAL: the id is a thread's by now, so the process is gone.
            Err(Errno::SRCH | Errno::INVAL) => return Ok(None),
            Err(error) => return Err(error.into()),
        };
        let is_same = read_stat(stat.pid)?.is_some_and(|now| now.start_ticks == stat.start_ticks);
        Ok(is_same.then_some(Self { stat, fd }))
    }

    /// Sends `signal`; a process that is gone or belongs to somebody else is left as it is.
    pub fn signal(&self, signal: Signal) {
        // Gone is what we want; not permitted is seen by the caller, since the process stays.
        let _ = rustix::process::pidfd_send_signal(&self.fd, signal);
    }

    /// Returns whether all its threads have ended (it may still wait for its parent to reap it).
    #[must_use]
    pub fn has_ended(&self) -> bool {
        wait_readable(&[self.fd.as_fd()], Some(Duration::ZERO)).is_ok_and(|count| count > 0)
    }
}

impl AsFd for Process {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

/// Returns the id of the running boot.
///
/// # Errors
/// When /proc is not mounted.
pub fn boot_id() -> io::Result<String> {
    Ok(fs::read_to_string("/proc/sys/kernel/random/boot_id")?.trim().to_owned())
}

/// Looks at one process; `None` when there is none by that id, or /proc hides it from us.
///
/// # Errors
/// When /proc cannot be read or has another layout.
pub fn read_stat(pid: i32) -> io::Result<Option<ProcessStat>> {
    match fs::read(format!("/proc/{pid}/stat")) {
        Ok(text) => parse_stat(&text)
            .map(Some)
            .ok_or_else(|| io::Error::other(format!("unknown layout of `/proc/{pid}/stat`"))),
        Err(error) if is_gone(&error) => Ok(None),
        Err(error) => Err(error),
    }
}

/// Looks at every process that /proc shows us, in no particular order.
///
/// # Errors
/// When /proc cannot be read.
pub fn all() -> io::Result<Vec<ProcessStat>> {
    let mut found = Vec::new();
    for entry in fs::read_dir("/proc")? {
        let name = entry?.file_name();
        let Some(pid) = name.to_str().and_then(|name| name.parse().ok()) else { continue };
        found.extend(read_stat(pid)?);
    }
    Ok(found)
}

/// Returns whether the environment that process `pid` was started with has all `entries`, each being
/// `NAME=value`.
///
/// False as well when it is gone or not ours to read.
#[must_use]
pub fn environ_has(pid: i32, entries: &[String]) -> bool {
    fs::read(format!("/proc/{pid}/environ")).is_ok_and(|text| {
        let has = |entry: &String| text.split(|byte| *byte == 0).any(|it| it == entry.as_bytes());
        entries.iter().all(has)
    })
}

/// Returns whether a process that /proc lets us look at has the file open.
#[must_use]
pub fn is_held_open(path: &Path) -> bool {
    let id = |path: &Path| fs::metadata(path).map(|file| (file.dev(), file.ino())).ok();
    let Some(wanted) = id(path) else { return false };
    let below = |dir: &Path| fs::read_dir(dir).into_iter().flatten().flatten();
    below(Path::new("/proc"))
        .filter(|entry| entry.file_name().as_encoded_bytes()[0].is_ascii_digit())
        .flat_map(|process| below(&process.path().join("fd")))
        .any(|file| id(&file.path()) == Some(wanted))
}

/// What there was to reap of the caller's children.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Children {
    /// No child is left, and so, for a subreaper, no descendant.
    None,
    /// At least one lives.
    Some,
}

/// Reaps every dead child, and tells whether living ones are left.
///
/// # Errors
/// When the kernel refuses wait4(2).
pub fn reap_children() -> io::Result<Children> {
    loop {
        match rustix::process::wait(WaitOptions::NOHANG) {
            Ok(Some(_)) | Err(Errno::INTR) => {}
            Ok(None) => return Ok(Children::Some),
            Err(Errno::CHILD) => return Ok(Children::None),
            Err(error) => return Err(error.into()),
        }
    }
}

/// Reaps the dead children other than `main`, by a look at every process.
///
/// For a subreaper whose own child runs long and leaves orphans.
///
/// # Errors
/// When /proc cannot be read.
pub fn reap_orphans(main: i32) -> io::Result<()> {
    let me = own_pid();
    for stat in all()? {
        if stat.ppid == me && stat.state == b'Z' && stat.pid != main {
            // Still alive by another thread, or reaped already: nothing to do.
            let _ = rustix::process::waitpid(Pid::from_raw(stat.pid), WaitOptions::NOHANG);
        }
    }
    Ok(())
}

/// Returns whether the child behind `process` is dead and waits to be reaped.
///
/// # Errors
/// When it is no child of the caller.
pub fn is_dead_child(process: BorrowedFd<'_>) -> io::Result<bool> {
    let options = WaitIdOptions::EXITED | WaitIdOptions::NOHANG | WaitIdOptions::NOWAIT;
    Ok(rustix::process::waitid(WaitId::PidFd(process), options)?.is_some())
}

/// Returns the caller's process id.
#[must_use]
pub fn own_pid() -> i32 {
    rustix::process::getpid().as_raw_nonzero().get()
}

/// Waits until one of `fds` is readable (or hung up), at most `timeout`; returns how many are.
///
/// `None` waits without limit. A signal that interrupts counts as none readable.
///
/// # Errors
/// When poll(2) refuses.
pub fn wait_readable(fds: &[BorrowedFd<'_>], timeout: Option<Duration>) -> io::Result<usize> {
    let mut polled: Vec<PollFd<'_>> =
        fds.iter().map(|fd| PollFd::from_borrowed_fd(*fd, PollFlags::IN)).collect();
    let timeout = timeout.and_then(|timeout| Timespec::try_from(timeout).ok());
    match rustix::event::poll(&mut polled, timeout.as_ref()) {
        Ok(count) => Ok(count),
        Err(Errno::INTR) => Ok(0),
        Err(error) => Err(error.into()),
    }
}

fn is_gone(error: &io::Error) -> bool {
    let is_dead = error.raw_os_error() == Some(Errno::SRCH.raw_os_error());
    // Not permitted: a mount with `hidepid`, where only our own processes are shown.
    is_dead || matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::PermissionDenied)
}

/// Reads `pid (name) state ppid pgrp session …`; the name may hold blanks and parentheses.
fn parse_stat(text: &[u8]) -> Option<ProcessStat> {
    let name_end = text.iter().rposition(|byte| *byte == b')')?;
    let pid_end = text.iter().position(|byte| *byte == b' ')?;
    let pid = std::str::from_utf8(&text[..pid_end]).ok()?.parse().ok()?;
    let rest = std::str::from_utf8(text.get(name_end + 2..)?).ok()?;
    let fields: Vec<&str> = rest.split_ascii_whitespace().collect();
    Some(ProcessStat {
        pid,
        state: *fields.first()?.as_bytes().first()?,
        ppid: fields.get(1)?.parse().ok()?,
        session: fields.get(3)?.parse().ok()?,
        start_ticks: fields.get(19)?.parse().ok()?,
    })
}

#[cfg(test)]
mod tests {
    use super::{Process, all, boot_id, environ_has, own_pid, parse_stat, read_stat};
    use crate::sys::child::command;

    #[test]
    fn name_with_blanks_and_parentheses_does_not_shift_fields() {
        let text = b"77 (a) b (c) S 5 6 7 0 -1 0 0 0 0 0 1 2 3 4 20 0 1 0 4242 0 0";
        let stat = parse_stat(text).expect("parses");
        assert_eq!((stat.pid, stat.state, stat.ppid, stat.session), (77, b'S', 5, 7));
        assert_eq!(stat.start_ticks, 4242);
    }

    #[test]
    fn short_stat_line_is_refused() {
        assert_eq!(parse_stat(b"77 (a) S 5"), None);
        assert_eq!(parse_stat(b""), None);
    }

    #[test]
    fn own_process_is_listed() {
        let me = read_stat(own_pid()).expect("readable").expect("alive");
        assert!(all().expect("readable").contains(&me) || me.state == b'R');
        assert_eq!(boot_id().expect("readable").len(), 36);
    }

    #[test]
    fn reused_pid_is_not_taken_hold_of() {
        let mut stat = read_stat(own_pid()).expect("readable").expect("alive");
        assert!(Process::open(stat).expect("opens").is_some());
        stat.start_ticks += 1;
        assert!(Process::open(stat).expect("opens").is_none());
    }

    #[test]
    fn environment_is_matched_by_whole_entry() {
        let dir = tempfile::tempdir().expect("temporary folder");
        let mut child = command("sleep", dir.path())
            .arg("60")
            .env("PIPELINE_NONCE", "abc")
            .spawn()
            .expect("starts");
        let pid = i32::try_from(child.id()).expect("fits");
        // The kernel lets the parent go on a moment before the environment is in place.
        let has = |entry: &str| environ_has(pid, &[entry.to_owned()]);
        while !has("PIPELINE_NONCE=abc") {
            assert!(child.try_wait().expect("looked at").is_none());
        }
        assert!(!has("PIPELINE_NONCE=ab"));
        child.kill().expect("ends");
        child.wait().expect("reaped");
        assert!(!has("PIPELINE_NONCE=abc"));
    }
}
