//! What the machine lends: locks that hold, room on the disk, file events.

use std::fs;
use std::io;
use std::path::Path;
use std::time::Duration;

use notify::{ErrorKind, RecursiveMode, Watcher};

use super::finding::Finding;
use crate::cli::project::Project;
use crate::machine::settings::Settings;
use crate::monitor::room;
use crate::store::lock::{FileLock, is_held};
use crate::sys::child::{self, Heard};
use crate::sys::fail;

/// Less free space than this is worth a warning, in bytes.
const FREE_BYTES_MIN: u64 = 1 << 30;
/// How long another process may take to look at a lock.
const LOOK_MAX: Duration = Duration::from_secs(10);
/// Fewer instances of inotify than this are soon used up by other programs of the user.
const INSTANCES_MIN: u64 = 16;
/// Folders that a monitor watches, at most, besides one for each agent.
const WATCHES_MIN: u64 = 64;
/// What `__held` exits with where the lock is free.
pub const FREE: i32 = 1;
const EVENTS: &str = "file events";

/// Tries a lock of our own on this very file system: a second descriptor and another process must
/// see that it is held, and that it is free again.
pub fn locks(project: &Project) -> Finding {
    // Swept like every temporary file where we are killed.
    let name = format!(".doctor-{}.tmp", std::process::id());
    let path = project.layout.state.join(name);
    let tried = try_lock(&path);
    // Only a trial; nobody else uses that name.
    let _ = fs::remove_file(&path);
    let local = "use a local file system: this one cannot keep two monitors apart";
    match tried {
        Ok(None) => Finding::good("locks", "file locks work here, between processes too"),
        Ok(Some(found)) => Finding::bad("locks", found, local),
        Err(error) => {
            let found = format!("cannot try a lock at `{}`: {error}", path.display());
            Finding::bad("locks", found, "make the state folder writable for you")
        }
    }
}

/// Returns what does not work; `None`: all does.
fn try_lock(path: &Path) -> io::Result<Option<&'static str>> {
    let Some(lock) = FileLock::try_exclusive(path, "doctor")? else {
        return Ok(Some("a lock that nobody holds cannot be had"));
    };
    if !is_held(path)? {
        return Ok(Some("a lock that is held does not look held through a second descriptor"));
    }
    if !is_held_for_another(path)? {
        return Ok(Some("a lock that is held does not look held to another process"));
    }
    drop(lock);
    let is_free = !is_held(path)? && !is_held_for_another(path)?;
    Ok((!is_free).then_some("a lock that was given back still looks held"))
}

/// Asks another process.
fn is_held_for_another(path: &Path) -> io::Result<bool> {
    fail::point("doctor.child")?;
    let program = std::env::current_exe()?;
    let mut command = child::command(program, path.parent().unwrap_or(Path::new("/")));
    std::os::unix::process::CommandExt::process_group(&mut command, 0);
    let heard = child::output_within(command.arg("__held").arg(path), LOOK_MAX, None)?;
    match heard {
        Heard::Ended(output) if output.status.success() => Ok(true),
        Heard::Ended(output) if output.status.code() == Some(FREE) => Ok(false),
        Heard::Ended(output) => {
            let said = String::from_utf8_lossy(&output.stderr).trim().to_owned();
            Err(io::Error::other(format!("the process that looks at it failed: {said}")))
        }
        Heard::Late(_) => Err(io::Error::other("the process that looks at it does not answer")),
    }
}

/// Looks at the room on the disks of the state and of the worktrees.
pub fn space(project: &Project, settings: Option<&Settings>) -> Vec<Finding> {
    let state = &project.layout.state;
    let worktrees = settings
        .map_or(project.layout.dot(), |settings| project.layout.root.join(&settings.worktree.dir));
    if let Some(lacking) = room::lacking(state, &worktrees) {
        let remedy = "make room there: no agent is started until then; see: df -h .; df -i .";
        return vec![Finding::bad("disk", lacking, remedy)];
    }
    let Ok(found) = crate::sys::room::room(state) else { return Vec::new() };
    let inodes = match found.inodes {
        0 => String::new(),
        _ => format!(" and {} inodes", found.free_inodes),
    };
    let told = format!("{} MiB{inodes} free", found.free_bytes >> 20);
    vec![if found.free_bytes >= FREE_BYTES_MIN {
        Finding::good("disk", told)
    } else {
        Finding::warning("disk", told, "make room: worktrees and logs need it; see: df -h .")
    }]
}

/// Watches the journal's folder as a monitor does, and looks at the bounds of that.
pub fn file_events(project: &Project, settings: Option<&Settings>) -> Finding {
    if let Err(error) = watch(&project.layout.state) {
        let what = match &error.kind {
            ErrorKind::MaxFilesWatch => "the kernel has no watch left for this user",
            ErrorKind::Io(_) => "the kernel gives no file events",
            ErrorKind::Generic(_)
            | ErrorKind::PathNotFound
            | ErrorKind::WatchNotFound
            | ErrorKind::InvalidConfig(_) => "a folder cannot be watched",
        };
        return Finding::warning(EVENTS, format!("{what}: {error}"), remedy(&error.kind));
    }
    let (instances, watches) = (bound("instances"), bound("watches"));
    let agents = settings.map_or(0, |it| it.agents.iter().map(|it| u64::from(it.count)).sum());
    let wanted = WATCHES_MIN + agents;
    if watches.is_some_and(|watches| watches < wanted) {
        let found = format!("only {} folders can be watched", watches.unwrap_or(0));
        return Finding::warning(EVENTS, found, remedy(&ErrorKind::MaxFilesWatch));
    }
    if instances.is_some_and(|instances| instances < INSTANCES_MIN) {
        let found = format!("only {} programs can watch", instances.unwrap_or(0));
        return Finding::warning(EVENTS, found, remedy(&ErrorKind::Generic(String::new())));
    }
    let told = |bound: Option<u64>| bound.map_or("any number of".into(), |it| it.to_string());
    let (instances, watches) = (told(instances), told(watches));
    Finding::good(EVENTS, format!("{instances} watchers, {watches} folders possible"))
}

fn watch(state: &Path) -> notify::Result<()> {
    fail::point("doctor.watch").map_err(notify::Error::io)?;
    let mut watcher = notify::recommended_watcher(|_: notify::Result<notify::Event>| {})?;
    watcher.watch(&state.join("journal"), RecursiveMode::NonRecursive)
}

fn remedy(kind: &ErrorKind) -> String {
    let (name, value) = match kind {
        ErrorKind::MaxFilesWatch => ("watches", 524_288),
        ErrorKind::Generic(_)
        | ErrorKind::Io(_)
        | ErrorKind::PathNotFound
        | ErrorKind::WatchNotFound
        | ErrorKind::InvalidConfig(_) => ("instances", 512),
    };
    format!(
        "sudo sysctl fs.inotify.max_user_{name}={value}; until then a monitor polls, as with \
         `pipeline monitor --poll-only`"
    )
}

/// Returns the lower of the bounds of the machine and of this user; `None`: not known.
fn bound(name: &str) -> Option<u64> {
    let read = |path: String| fs::read_to_string(path).ok()?.trim().parse::<u64>().ok();
    let machine = read(format!("/proc/sys/fs/inotify/max_user_{name}"));
    let own = read(format!("/proc/sys/user/max_inotify_{name}"));
    machine.into_iter().chain(own).min()
}
