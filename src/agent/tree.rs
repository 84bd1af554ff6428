//! Finding and ending every process of an attempt.
//!
//! A process belongs to an attempt when its environment carries the attempt's nonce and names its
//! project (a copy of a project may run the same attempt, under the same nonce), when it
//! descends from such a one, when it descends from the attempt's keeper (a subreaper, so orphans
//! stay below it), or when it is in the session of that keeper after the keeper's death.
//! Nothing is found by name, and every signal goes through a verified [`Process`].

use std::collections::HashSet;
use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::time::Duration;

use rustix::process::Signal;

use super::job::{Job, Leader, StartedRecord};
use crate::sys::proc::{self, Process, ProcessStat};
use crate::sys::{clock, fail};

/// How long a forced end may take; what lives then is another user's, or stuck in the kernel.
pub const KILL_WAIT_MAX: Duration = Duration::from_secs(10);
/// How often a forced end looks for processes forked meanwhile.
pub const RESCAN: Duration = Duration::from_millis(50);

/// The name under which the nonce stands in the environment.
pub const NONCE_NAME: &str = "PIPELINE_NONCE";
/// The name under which the project's root stands there.
pub const PROJECT_NAME: &str = "PIPELINE_PROJECT";

/// Processes of an attempt, taken hold of; all were alive when found.
#[derive(Debug, Default)]
pub struct Strays {
    processes: Vec<Process>,
}

impl Strays {
    /// Finds what lives below the calling keeper, and whatever carries the nonce of its `job`.
    ///
    /// # Errors
    /// When /proc cannot be read, or descriptors run out.
    pub fn of_keeper(job: &Job) -> io::Result<Self> {
        let all = proc::all()?;
        let me = proc::own_pid();
        let roots: HashSet<i32> = carriers(&all, &job.nonce, job.project()).chain([me]).collect();
        Self::open(&all, &with_descendants(&all, roots))
    }

    /// Finds what a keeper that is dead has left of the attempt in `started`.
    ///
    /// Empty after a reboot. The keeper's session counts only while no other process has taken its
    /// id, and for processes no older than the keeper.
    ///
    /// # Errors
    /// When /proc cannot be read, or descriptors run out.
    pub fn of_dead_keeper(started: &StartedRecord) -> io::Result<Self> {
        if proc::boot_id()? != started.boot_id {
            return Ok(Self::default());
        }
        let all = proc::all()?;
        let found = carriers(&all, &started.nonce, started.project.as_deref());
        let mut roots: HashSet<i32> = found.collect();
        let leader = all.iter().find(|stat| stat.pid == started.keeper_pid);
        if leader
            .is_none_or(|stat| stat.start_ticks == started.keeper_start_ticks && stat.state == b'Z')
        {
            roots.extend(all.iter().filter_map(|stat| {
                let is_member = stat.session == started.keeper_pid
                    && stat.start_ticks >= started.keeper_start_ticks;
                is_member.then_some(stat.pid)
            }));
        }
        for leader in &started.leaders {
            roots.extend(led_by(&all, leader));
        }
        Self::open(&all, &with_descendants(&all, roots))
    }

    /// Finds whatever carries `nonce`, and what lives below it.
    ///
    /// # Errors
    /// When /proc cannot be read, or descriptors run out.
    pub fn of_nonce(nonce: &str) -> io::Result<Self> {
        let all = proc::all()?;
        let roots = carriers(&all, nonce, None).collect();
        Self::open(&all, &with_descendants(&all, roots))
    }

    /// Takes hold of those among `pids` that live, leaving out the caller and its ancestors.
    fn open(all: &[ProcessStat], pids: &HashSet<i32>) -> io::Result<Self> {
        let spared = ancestors(all, proc::own_pid());
        let mut processes = Vec::new();
        for stat in all {
            if !pids.contains(&stat.pid) || spared.contains(&stat.pid) {
                continue;
            }
            processes.extend(Process::open(*stat)?.filter(|process| !process.has_ended()));
        }
        Ok(Self { processes })
    }

    /// Returns how many there are, whether they still live or not.
    #[must_use]
    pub fn len(&self) -> usize {
        self.processes.len()
    }

    /// Returns whether none was found.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.processes.is_empty()
    }

    /// Lets go of those that have ended.
    pub fn forget_ended(&mut self) {
        self.processes.retain(|process| !process.has_ended());
    }

    /// Asks each to end; a stopped one is set going so that it can.
    pub fn terminate(&self) {
        for process in &self.processes {
            process.signal(Signal::TERM);
            process.signal(Signal::CONT);
        }
    }

    /// Ends each by force.
    pub fn kill(&self) {
        for process in &self.processes {
            process.signal(Signal::KILL);
        }
    }

    /// Returns descriptors of which one becomes readable when a process ends.
    pub fn fds(&self) -> impl Iterator<Item = BorrowedFd<'_>> {
        self.processes.iter().map(AsFd::as_fd)
    }
}

/// How the ending of a left-over tree went.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct EndedTree {
    /// Processes found at first.
    pub found: u32,
    /// Processes that had to be ended by force.
    pub killed: u32,
    /// Processes that even that did not end.
    pub left: u32,
}

/// Ends what a dead keeper has left of an attempt, and waits until it is gone.
///
/// Blocks for `grace` and [`KILL_WAIT_MAX`] at most. Call it only when the keeper's lock is free.
///
/// # Errors
/// When /proc cannot be read, or descriptors run out.
pub fn end_orphans(started: &StartedRecord, grace: Duration) -> io::Result<EndedTree> {
    fail::point("strays.end")?;
    end_found(|| Strays::of_dead_keeper(started), grace)
}

/// Ends what carries `nonce` and no keeper holds, and waits until it is gone; blocks as
/// [`end_orphans`].
///
/// # Errors
/// When /proc cannot be read, or descriptors run out.
pub fn end_carriers(nonce: &str, grace: Duration) -> io::Result<EndedTree> {
    fail::point("strays.end")?;
    end_found(|| Strays::of_nonce(nonce), grace)
}

fn end_found(find: impl Fn() -> io::Result<Strays>, grace: Duration) -> io::Result<EndedTree> {
    let mut strays = find()?;
    let mut ended = EndedTree { found: count(&strays), ..EndedTree::default() };
    let kill_at = clock::monotonic() + grace;
    strays.terminate();
    loop {
        strays.forget_ended();
        if strays.is_empty() {
            strays = find()?;
            if strays.is_empty() {
                return Ok(ended);
            }
            strays.terminate();
        }
        let rest = kill_at.saturating_duration_since(clock::monotonic());
        if rest.is_zero() {
            break;
        }
        proc::wait_readable(&strays.fds().collect::<Vec<_>>(), Some(rest))?;
    }
    ended.killed = count(&strays);
    let give_up_at = clock::monotonic() + KILL_WAIT_MAX;
    while !strays.is_empty() && clock::monotonic() < give_up_at {
        strays.kill();
        proc::wait_readable(&strays.fds().collect::<Vec<_>>(), Some(RESCAN))?;
        strays.forget_ended();
        if strays.is_empty() {
            strays = find()?;
        }
    }
    ended.left = count(&strays);
    Ok(ended)
}

/// Returns the leader and its session's members; nobody once another process has its id.
fn led_by(all: &[ProcessStat], leader: &Leader) -> Vec<i32> {
    let is_reused =
        all.iter().any(|stat| stat.pid == leader.pid && stat.start_ticks != leader.start_ticks);
    let is_member = |stat: &&ProcessStat| {
        stat.session == leader.pid && stat.start_ticks >= leader.start_ticks && !is_reused
    };
    all.iter().filter(is_member).map(|stat| stat.pid).collect()
}

fn count(strays: &Strays) -> u32 {
    u32::try_from(strays.len()).unwrap_or(u32::MAX)
}

fn carriers<'a>(
    all: &'a [ProcessStat],
    nonce: &str,
    project: Option<&str>,
) -> impl Iterator<Item = i32> + 'a {
    let mut entries = vec![format!("{NONCE_NAME}={nonce}")];
    entries.extend(project.map(|root| format!("{PROJECT_NAME}={root}")));
    let is_usable = !nonce.is_empty();
    all.iter()
        .filter(move |stat| is_usable && proc::environ_has(stat.pid, &entries))
        .map(|stat| stat.pid)
}

/// Returns `roots` and everything below them.
fn with_descendants(all: &[ProcessStat], roots: HashSet<i32>) -> HashSet<i32> {
    let mut members = roots;
    loop {
        let before = members.len();
        for stat in all {
            if members.contains(&stat.ppid) {
                members.insert(stat.pid);
            }
        }
        if members.len() == before {
            return members;
        }
    }
}

/// Returns `pid` and everything above it.
fn ancestors(all: &[ProcessStat], pid: i32) -> HashSet<i32> {
    let mut line = HashSet::from([1]);
    let mut next = pid;
    while line.insert(next) {
        let Some(stat) = all.iter().find(|stat| stat.pid == next) else { break };
        next = stat.ppid;
    }
    line
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;
    use std::time::Duration;

    use super::{NONCE_NAME, PROJECT_NAME, ancestors, end_orphans, with_descendants};
    use crate::agent::job::{JOB_VERSION, StartedRecord};
    use crate::sys::child::command;
    use crate::sys::proc::{self, ProcessStat};

    fn stat(pid: i32, ppid: i32) -> ProcessStat {
        ProcessStat { pid, state: b'S', ppid, session: 1, start_ticks: 1 }
    }

    fn started(nonce: &str, keeper_pid: i32) -> StartedRecord {
        StartedRecord {
            v: JOB_VERSION,
            attempt: "a".into(),
            nonce: nonce.into(),
            keeper_pid,
            keeper_start_ticks: 1,
            boot_id: proc::boot_id().expect("readable"),
            started_ms: 0,
            leaders: Vec::new(),
            folder: None,
            project: None,
        }
    }

    #[test]
    fn descendants_are_found_in_any_order() {
        let all = [stat(9, 8), stat(8, 7), stat(7, 1), stat(6, 1)];
        assert_eq!(with_descendants(&all, HashSet::from([7])), HashSet::from([7, 8, 9]));
        assert_eq!(ancestors(&all, 9), HashSet::from([9, 8, 7, 1]));
    }

    #[test]
    fn carrier_of_the_nonce_is_ended_and_its_neighbour_left() {
        let dir = tempfile::tempdir().expect("temporary folder");
        let nonce = format!("tree-{}", proc::own_pid());
        let neighbour = format!("{nonce}-neighbour");
        let start = |value: &str| {
            let mut command = command("sh", dir.path());
            command.args(["-c", "trap '' TERM; sleep 60 & wait"]).env(NONCE_NAME, value);
            command.spawn().expect("starts")
        };
        let (mut ours, mut other) = (start(&nonce), start(&neighbour));
        // A parent goes on before its child's environment is in place.
        for (child, value) in [(&ours, &nonce), (&other, &neighbour)] {
            while !proc::environ_has(child.id().cast_signed(), &[format!("{NONCE_NAME}={value}")]) {
            }
        }
        // A session of pid 0 has no members that we may look at: only the nonce counts here.
        let ended = end_orphans(&started(&nonce, -1), Duration::from_millis(50)).expect("ends");
        assert!(ended.found >= 1 && ended.left == 0, "{ended:?}");
        assert!(ours.wait().expect("reaped").code().is_none());
        assert!(other.try_wait().expect("looked at").is_none());
        let swept = end_orphans(&started(&neighbour, -1), Duration::ZERO).expect("ends");
        assert!(swept.killed >= 1, "{swept:?}");
        other.wait().expect("reaped");
    }

    #[test]
    fn carrier_of_the_nonce_in_another_project_is_left() {
        let dir = tempfile::tempdir().expect("temporary folder");
        let nonce = format!("copy-{}", proc::own_pid());
        let start = |root: &str| {
            let mut command = command("sleep", dir.path());
            command.arg("60").env(NONCE_NAME, &nonce).env(PROJECT_NAME, root);
            command.spawn().expect("starts")
        };
        let (mut ours, mut other) = (start("/ours"), start("/other"));
        for (child, root) in [(&ours, "/ours"), (&other, "/other")] {
            let entry = format!("{PROJECT_NAME}={root}");
            while !proc::environ_has(child.id().cast_signed(), std::slice::from_ref(&entry)) {}
        }
        let record = StartedRecord { project: Some("/ours".into()), ..started(&nonce, -1) };
        let ended = end_orphans(&record, Duration::from_secs(60)).expect("ends");
        assert_eq!((ended.found, ended.left), (1, 0));
        assert!(ours.wait().expect("reaped").code().is_none());
        assert!(other.try_wait().expect("looked at").is_none());
        other.kill().expect("ends");
        other.wait().expect("reaped");
    }

    #[test]
    fn nothing_is_looked_for_after_a_reboot() {
        let dir = tempfile::tempdir().expect("temporary folder");
        let nonce = format!("boot-{}", proc::own_pid());
        let mut child =
            command("sleep", dir.path()).arg("60").env(NONCE_NAME, &nonce).spawn().expect("starts");
        let mut record = started(&nonce, -1);
        record.boot_id = "another boot".into();
        assert_eq!(end_orphans(&record, Duration::ZERO).expect("ends").found, 0);
        child.kill().expect("ends");
        child.wait().expect("reaped");
    }
}
