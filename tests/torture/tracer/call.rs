//! System calls as seen at their entry: which of them change something, and what it is.

use std::fs::{self, File};
use std::os::unix::fs::FileExt;
use std::path::{Component, Path, PathBuf};

use nix::errno::Errno;
use nix::libc;
use nix::sys::ptrace;
use nix::unistd::Pid;

use super::Point;

/// `op` of a stop at the entry of a call (ptrace(2), `PTRACE_GET_SYSCALL_INFO`).
const ENTRY: u8 = 1;
/// Longest path that is told.
const PATH_BYTES_MAX: usize = 512;
/// The folder that a process works in, in the place of a descriptor, as the kernel reads it.
const AT_WORKING_FOLDER: u64 = libc::AT_FDCWD.cast_unsigned() as u64;
/// Longest record or message that is told.
const TEXT_BYTES_MAX: u64 = 64 * 1024;
/// How the names begin that the kernel hands out for what is no file.
const NO_FILES: [&str; 2] = ["pipe:", "anon_inode:"];

/// What a call changes, and which of its arguments says so.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    /// Bytes go to the descriptor; the argument is which one it is.
    Output(usize),
    /// Something is done to the file of the descriptor.
    Descriptor,
    /// Paths are changed; the argument is the last of them.
    Path(usize),
    /// A file is opened: path, flags, or where they lie.
    Open(usize, usize),
    OpenIn(usize, usize),
    /// A lock is taken or given back, by one of the commands for a descriptor.
    Lock,
    /// A thread of another process gets a signal: the thread, the signal.
    Signal(usize, usize),
    /// A program is executed, if it is there: a search tries many places.
    Program,
    /// A process is made, unless it is a thread: the flags, or where they lie.
    Birth,
    BirthIn,
    /// Nothing to be told but its name.
    Plain,
}

/// Calls that change something outside of their process (Linux, x86_64), also those that the program
/// does not use today: what it does tomorrow is to be seen. Of what is written into memory that is a
/// file's nothing is.
const CALLS: &[(libc::c_long, &str, Kind)] = &[
    (libc::SYS_write, "write", Kind::Output(0)),
    (libc::SYS_pwrite64, "pwrite", Kind::Output(0)),
    (libc::SYS_writev, "writev", Kind::Output(0)),
    (libc::SYS_pwritev, "pwritev", Kind::Output(0)),
    (libc::SYS_sendto, "sendto", Kind::Output(0)),
    (libc::SYS_pwritev2, "pwritev", Kind::Output(0)),
    (libc::SYS_sendmsg, "sendmsg", Kind::Output(0)),
    (libc::SYS_sendmmsg, "sendmmsg", Kind::Output(0)),
    (libc::SYS_sendfile, "sendfile", Kind::Output(0)),
    (libc::SYS_splice, "splice", Kind::Output(2)),
    (libc::SYS_tee, "tee", Kind::Output(1)),
    (libc::SYS_vmsplice, "vmsplice", Kind::Output(0)),
    (libc::SYS_io_submit, "io_submit", Kind::Plain),
    (libc::SYS_io_uring_enter, "io_uring_enter", Kind::Plain),
    (libc::SYS_copy_file_range, "copy_file_range", Kind::Plain),
    (libc::SYS_fsync, "fsync", Kind::Descriptor),
    (libc::SYS_fdatasync, "fdatasync", Kind::Descriptor),
    (libc::SYS_sync_file_range, "sync_file_range", Kind::Descriptor),
    (libc::SYS_syncfs, "syncfs", Kind::Descriptor),
    (libc::SYS_sync, "sync", Kind::Plain),
    (libc::SYS_msync, "msync", Kind::Plain),
    (libc::SYS_ftruncate, "ftruncate", Kind::Descriptor),
    (libc::SYS_fallocate, "fallocate", Kind::Descriptor),
    (libc::SYS_fchmod, "fchmod", Kind::Descriptor),
    (libc::SYS_fchown, "fchown", Kind::Descriptor),
    (libc::SYS_fsetxattr, "fsetxattr", Kind::Descriptor),
    (libc::SYS_fremovexattr, "fremovexattr", Kind::Descriptor),
    (libc::SYS_flock, "flock", Kind::Descriptor),
    (libc::SYS_fcntl, "lock", Kind::Lock),
    (libc::SYS_bind, "bind", Kind::Descriptor),
    (libc::SYS_listen, "listen", Kind::Descriptor),
    (libc::SYS_connect, "connect", Kind::Descriptor),
    (libc::SYS_shutdown, "shutdown", Kind::Descriptor),
    (libc::SYS_open, "open", Kind::Open(0, 1)),
    (libc::SYS_openat, "open", Kind::Open(1, 2)),
    (libc::SYS_openat2, "open", Kind::OpenIn(1, 2)),
    (libc::SYS_creat, "creat", Kind::Path(0)),
    (libc::SYS_mknod, "mknod", Kind::Path(0)),
    (libc::SYS_mknodat, "mknod", Kind::Path(1)),
    (libc::SYS_rename, "rename", Kind::Path(1)),
    (libc::SYS_renameat, "rename", Kind::Path(3)),
    (libc::SYS_renameat2, "rename", Kind::Path(3)),
    (libc::SYS_link, "link", Kind::Path(1)),
    (libc::SYS_linkat, "link", Kind::Path(3)),
    (libc::SYS_symlink, "symlink", Kind::Path(1)),
    (libc::SYS_symlinkat, "symlink", Kind::Path(2)),
    (libc::SYS_unlink, "unlink", Kind::Path(0)),
    (libc::SYS_unlinkat, "unlink", Kind::Path(1)),
    (libc::SYS_rmdir, "rmdir", Kind::Path(0)),
    (libc::SYS_mkdir, "mkdir", Kind::Path(0)),
    (libc::SYS_mkdirat, "mkdir", Kind::Path(1)),
    (libc::SYS_truncate, "truncate", Kind::Path(0)),
    (libc::SYS_chmod, "chmod", Kind::Path(0)),
    (libc::SYS_fchmodat, "chmod", Kind::Path(1)),
    (libc::SYS_fchmodat2, "chmod", Kind::Path(1)),
    (libc::SYS_chown, "chown", Kind::Path(0)),
    (libc::SYS_lchown, "chown", Kind::Path(0)),
    (libc::SYS_fchownat, "chown", Kind::Path(1)),
    (libc::SYS_setxattr, "setxattr", Kind::Path(0)),
    (libc::SYS_lsetxattr, "setxattr", Kind::Path(0)),
    (libc::SYS_removexattr, "removexattr", Kind::Path(0)),
    (libc::SYS_lremovexattr, "removexattr", Kind::Path(0)),
    (libc::SYS_utime, "utimens", Kind::Path(0)),
    (libc::SYS_utimes, "utimens", Kind::Path(0)),
    (libc::SYS_futimesat, "utimens", Kind::Path(1)),
    (libc::SYS_utimensat, "utimens", Kind::Path(1)),
    (libc::SYS_execve, "execve", Kind::Program),
    (libc::SYS_execveat, "execve", Kind::Path(1)),
    (libc::SYS_fork, "fork", Kind::Plain),
    (libc::SYS_vfork, "vfork", Kind::Plain),
    (libc::SYS_clone, "clone", Kind::Birth),
    (libc::SYS_clone3, "clone", Kind::BirthIn),
    (libc::SYS_kill, "kill", Kind::Plain),
    (libc::SYS_tkill, "tkill", Kind::Signal(0, 1)),
    (libc::SYS_tgkill, "tkill", Kind::Signal(1, 2)),
    (libc::SYS_rt_sigqueueinfo, "sigqueue", Kind::Plain),
    (libc::SYS_rt_tgsigqueueinfo, "sigqueue", Kind::Signal(1, 2)),
    (libc::SYS_pidfd_send_signal, "pidfd_send_signal", Kind::Plain),
    (libc::SYS_exit_group, "exit", Kind::Plain),
];

/// Calls whose paths may begin at the folder of a descriptor, the argument before each.
const AT: [libc::c_long; 15] = [
    libc::SYS_openat,
    libc::SYS_openat2,
    libc::SYS_mknodat,
    libc::SYS_renameat,
    libc::SYS_renameat2,
    libc::SYS_linkat,
    libc::SYS_symlinkat,
    libc::SYS_unlinkat,
    libc::SYS_mkdirat,
    libc::SYS_fchmodat,
    libc::SYS_fchmodat2,
    libc::SYS_fchownat,
    libc::SYS_futimesat,
    libc::SYS_utimensat,
    libc::SYS_execveat,
];

/// A call that is about to be made.
pub(super) struct Entered {
    /// As told to people.
    pub(super) call: String,
    /// The record or message that it writes.
    pub(super) text: String,
    /// Files and folders that it changes: in full, or from the base on.
    pub(super) places: Vec<String>,
}

/// Returns the call that a stopped thread is about to make; `None` when it is not at an entry, or the
/// call changes nothing outside.
pub(super) fn entered(pid: Pid, role: &str, base: &Path) -> Option<Entered> {
    let regs = ptrace::getregs(pid).ok()?;
    let number = regs.orig_rax.cast_signed();
    let (_, name, kind) = CALLS.iter().find(|(call, _, _)| *call == number)?;
    if ptrace::syscall_info(pid).ok()?.op != ENTRY {
        return None;
    }
    let args = [regs.rdi, regs.rsi, regs.rdx, regs.r10];
    let base = base.to_str().unwrap_or_default();
    let about = match kind {
        Kind::Output(place) => {
            let to = args[*place];
            // Standard output and error are read by people, but for a keeper's, which is a message.
            let is_message = to > 2 || role.starts_with("keeper");
            let file = descriptor(pid, to).filter(|_| is_message)?;
            let is_file = !is_device(&file) && !NO_FILES.iter().any(|name| file.starts_with(name));
            (is_file || to == 1).then_some(file)?
        }
        Kind::Descriptor => descriptor(pid, args[0])?,
        Kind::Path(place) => path(pid, args[*place]),
        Kind::Program => Some(path(pid, args[0])).filter(|path| Path::new(path).exists())?,
        Kind::Open(place, flags) => opened(pid, args[*place], args[*flags])?,
        Kind::OpenIn(place, flags) => opened(pid, args[*place], word(pid, args[*flags])?)?,
        Kind::Lock => descriptor(pid, args[0]).filter(|_| is_lock(args[1]))?,
        Kind::Signal(to, signal) => signalled(pid, args[*to], args[*signal])?,
        Kind::Birth => process(args[0])?,
        Kind::BirthIn => process(word(pid, args[0])?)?,
        Kind::Plain => String::new(),
    };
    let has_text = about.ends_with(".ndjson") || about.starts_with("socket:");
    let is_plain = ["write", "sendto"].contains(name);
    let text = if has_text && is_plain { text(pid, args[1], args[2]) } else { String::new() };
    let from_base = |path: String| match path.strip_prefix(base) {
        Some(rest) => rest.trim_start_matches('/').to_owned(),
        None => path,
    };
    let places = places(pid, number, *kind, args).into_iter().map(from_base).collect();
    let about =
        about.strip_prefix(base).map_or(about.as_str(), |rest| rest.trim_start_matches('/'));
    Some(Entered { call: format!("{name} {about}").trim_end().to_owned(), text, places })
}

/// Makes the call that a thread is about to make do nothing.
pub(super) fn skip(pid: Pid) {
    if let Ok(mut regs) = ptrace::getregs(pid) {
        regs.orig_rax = u64::MAX;
        // It fails only when the thread is gone, and its call with it.
        let _ = ptrace::setregs(pid, regs);
    }
}

/// Makes the call that a thread comes back from one that failed.
pub(super) fn fail(pid: Pid, errno: Errno) {
    if let Ok(mut regs) = ptrace::getregs(pid) {
        regs.rax = i64::from(-(errno as i32)).cast_unsigned();
        // It fails only when the thread is gone.
        let _ = ptrace::setregs(pid, regs);
    }
}

/// Returns whether the kernel could answer the call at the point in this way.
pub fn can_fail(point: &Point, errno: Errno) -> bool {
    let (name, about) = point.call.split_once(' ').unwrap_or((&point.call, ""));
    let is = |names: &[&str]| names.contains(&name);
    if about.starts_with("socket:") {
        return false;
    }
    let is_write = is(&["write", "pwrite", "writev", "pwritev", "copy_file_range"]);
    let is_sync = is(&["fsync", "fdatasync"]);
    let is_making = is(&["open", "creat", "mkdir", "rename", "link", "symlink", "mknod"]);
    // A git that cannot remove its own lock leaves it, and nobody but git may say that it is stale.
    let is_removing = is(&["unlink", "rmdir"]) && !about.ends_with(".lock");
    match errno {
        Errno::ENOSPC | Errno::EDQUOT => is_write || is_sync || is_making || is(&["fallocate"]),
        // The second as from a network file system whose server has been exchanged.
        Errno::EIO | Errno::ESTALE => {
            is_write || is_sync || is_making || is_removing || is(&["ftruncate"])
        }
        Errno::EACCES | Errno::EROFS => is_making || is_removing,
        Errno::EMFILE => is(&["open", "creat"]),
        Errno::EINTR => is_write || is_sync || is(&["open", "flock"]),
        Errno::EAGAIN => is(&["fork", "vfork", "clone"]),
        _ => false,
    }
}

fn process(flags: u64) -> Option<String> {
    (flags & u64::from(libc::CLONE_THREAD.cast_unsigned()) == 0).then(String::new)
}

fn is_lock(command: u64) -> bool {
    let locks = [libc::F_SETLK, libc::F_SETLKW, libc::F_OFD_SETLK, libc::F_OFD_SETLKW];
    locks.iter().any(|lock| u64::from(lock.cast_unsigned()) == command)
}

/// What ends or stops another process; what a process does to itself is seen as its end.
fn signalled(pid: Pid, to: u64, signal: u64) -> Option<String> {
    let harmless = [0, libc::SIGCHLD, libc::SIGCONT, libc::SIGURG, libc::SIGWINCH];
    let is_harmless = harmless.iter().any(|it| u64::from(it.cast_unsigned()) == signal);
    let is_own = Path::new(&format!("/proc/{pid}/task/{to}")).exists();
    (!is_harmless && !is_own).then(String::new)
}

fn opened(pid: Pid, place: u64, flags: u64) -> Option<String> {
    let flags = i32::try_from(flags & u64::from(u32::MAX)).unwrap_or_default();
    let makes = flags & (libc::O_CREAT | libc::O_TRUNC) != 0;
    let writes = flags & libc::O_ACCMODE != libc::O_RDONLY;
    let path = path(pid, place);
    ((makes || writes) && !is_device(&path)).then_some(path)
}

/// Files may lie in memory, in a folder beside the devices.
fn is_device(path: &str) -> bool {
    path.starts_with("/dev/") && !path.starts_with("/dev/shm/")
}

fn descriptor(pid: Pid, number: u64) -> Option<String> {
    let link = fs::read_link(format!("/proc/{pid}/fd/{number}")).ok()?;
    Some(link.to_string_lossy().into_owned())
}

fn word(pid: Pid, place: u64) -> Option<u64> {
    let mut bytes = [0_u8; 8];
    memory(pid)?.read_exact_at(&mut bytes, place).ok()?;
    Some(u64::from_ne_bytes(bytes))
}

fn path(pid: Pid, place: u64) -> String {
    let mut bytes = [0_u8; PATH_BYTES_MAX];
    let read = memory(pid).and_then(|memory| memory.read_at(&mut bytes, place).ok());
    let bytes = &bytes[..read.unwrap_or_default()];
    let end = bytes.iter().position(|byte| *byte == 0).unwrap_or(bytes.len());
    String::from_utf8_lossy(&bytes[..end]).into_owned()
}

/// Returns what a call changes, in full.
fn places(pid: Pid, number: i64, kind: Kind, args: [u64; 4]) -> Vec<String> {
    let named = |place: usize| {
        let folder = if AT.contains(&number) { args[place - 1] } else { AT_WORKING_FOLDER };
        in_full(pid, folder, &path(pid, args[place]))
    };
    match kind {
        Kind::Output(place) => descriptor(pid, args[place]).into_iter().collect(),
        Kind::Descriptor | Kind::Lock => descriptor(pid, args[0]).into_iter().collect(),
        // What is renamed is gone from where it was.
        Kind::Path(place) if number == libc::SYS_rename => vec![named(place - 1), named(place)],
        Kind::Path(3) if number != libc::SYS_linkat => vec![named(1), named(3)],
        Kind::Path(place) | Kind::Open(place, _) | Kind::OpenIn(place, _) => vec![named(place)],
        Kind::Program | Kind::Signal(..) | Kind::Birth | Kind::BirthIn | Kind::Plain => Vec::new(),
    }
}

fn in_full(pid: Pid, folder: u64, name: &str) -> String {
    let folder = match folder & u64::from(u32::MAX) {
        AT_WORKING_FOLDER => fs::read_link(format!("/proc/{pid}/cwd")).ok(),
        folder => descriptor(pid, folder).map(PathBuf::from),
    };
    let mut full = PathBuf::new();
    for part in folder.unwrap_or_default().join(name).components() {
        match part {
            Component::ParentDir => drop(full.pop()),
            Component::CurDir => {}
            part => full.push(part),
        }
    }
    full.to_string_lossy().into_owned()
}

fn text(pid: Pid, place: u64, length: u64) -> String {
    let mut bytes = vec![0_u8; usize::try_from(length.min(TEXT_BYTES_MAX)).unwrap_or_default()];
    let read = memory(pid).and_then(|memory| memory.read_at(&mut bytes, place).ok());
    String::from_utf8_lossy(&bytes[..read.unwrap_or_default()]).into_owned()
}

fn memory(pid: Pid) -> Option<File> {
    File::open(format!("/proc/{pid}/mem")).ok()
}
