//! The keeper's side of an agent's window: opens it, orders the shim in it, types, and sees that
//! nothing is left when the window goes away.
//!
//! A [`PaneRun`] is used as a [`Run`](crate::agent::process::Run) is. What it knows of an attempt's
//! end is the shim's record; a connection that ends without one says that the attempt is lost.

use std::ffi::OsString;
use std::fs;
use std::io::{self, Read};
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use super::tmux::{Tmux, Window};
use super::typing::{Paste, Screen, Typist};
use crate::agent::job::{EndedBy, ExitRecord, Job, Leader, StartedRecord};
use crate::agent::process::STRAY_GRACE;
use crate::agent::protocol::{Connection, Flow, KeeperReport, Order, decode};
use crate::agent::tree::{KILL_WAIT_MAX, end_orphans};
use crate::sys::clock::{self, Clock, SystemClock};
use crate::sys::fail;
use crate::sys::file::open_regular;
use crate::sys::proc::{self, Process};

/// The hidden command that runs in a window, given the socket and the agent.
pub const PANE_WORD: &str = "__pane";

/// How long a shim may take to connect.
const OPEN_WAIT_MAX: Duration = Duration::from_secs(10);
/// What a shim may take longer than the limits that it holds, before its window is given up.
const SHIM_SLACK: Duration = Duration::from_secs(30);
/// How long a shim that is let go may take to leave.
const LEAVE_WAIT: Duration = Duration::from_secs(2);

/// Where an agent's window is opened, and what runs in it.
#[derive(Debug, Clone)]
pub struct Place {
    /// The project's server.
    pub tmux: Tmux,
    /// Where the shim finds us.
    pub socket: PathBuf,
    /// The agent.
    pub agent: String,
}

/// A shim that listens, in its window.
#[derive(Debug)]
pub struct Link {
    connection: Connection,
    pane: String,
    shim: Leader,
}

impl Link {
    /// Returns itself while the shim is there; between attempts it says nothing.
    fn while_open(mut self) -> Option<Self> {
        let mut lines = Vec::new();
        let flow = self.connection.receive(&mut lines);
        (matches!(flow, Ok(Flow::Open)) && lines.is_empty()).then_some(self)
    }

    /// Lets go of the shim, which closes its window, and waits a moment until it has.
    pub fn close(self) {
        let process = process(self.shim);
        drop(self.connection);
        if let Some(process) = process {
            // A window that stays is closed when its shim gets round to it.
            let _ = proc::wait_readable(&[process.as_fd()], Some(LEAVE_WAIT));
        }
    }

    /// Ends the shim by force, and with it the window.
    fn kill(&self) {
        if let Some(process) = process(self.shim) {
            process.signal(rustix::process::Signal::KILL);
        }
    }
}

fn process(leader: Leader) -> Option<Process> {
    let stat = proc::read_stat(leader.pid).ok()??;
    if stat.start_ticks != leader.start_ticks {
        return None;
    }
    Process::open(stat).ok()?
}

/// An attempt in a window.
#[derive(Debug)]
pub struct PaneRun {
    job: Job,
    place: Place,
    started: StartedRecord,
    phase: Phase,
    typist: Option<Typist>,
    /// The shim is dead or stuck if the attempt is not over by then.
    give_up_at: Option<Instant>,
    has_started: bool,
}

/// Where it stands, in order.
#[derive(Debug)]
enum Phase {
    /// The window is there; its shim may take until the time given to connect.
    Opening(UnixListener, Option<Connection>, Window, Instant),
    /// The shim has the order.
    Running(Link),
    /// Nothing runs; what is to be told.
    Failed(EndedBy, String),
    Over,
}

impl PaneRun {
    /// Orders `job` from the shim behind `link`, or opens a window for it. What cannot be done is
    /// told by the next `advance`.
    #[must_use]
    pub fn start(job: Job, place: Place, started: StartedRecord, link: Option<Link>) -> Self {
        let mut run = Self {
            job,
            place,
            started,
            phase: Phase::Over,
            typist: None,
            give_up_at: None,
            has_started: false,
        };
        match link.and_then(Link::while_open) {
            Some(link) => run.order(link),
            None => {
                run.phase = match run.open() {
                    Ok((listener, window)) => {
                        let until = clock::monotonic() + OPEN_WAIT_MAX;
                        Phase::Opening(listener, None, window, until)
                    }
                    Err(error) => lost(format!("cannot open a window in tmux: {error}")),
                };
            }
        }
        run
    }

    fn open(&self) -> io::Result<(UnixListener, Window)> {
        match fs::remove_file(&self.place.socket) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            Ok(()) | Err(_) => {}
        }
        fail::point("pane.listen")?;
        let listener = UnixListener::bind(&self.place.socket)?;
        listener.set_nonblocking(true)?;
        let words = [program()?, PANE_WORD.into(), self.place.socket.clone().into()];
        let words: Vec<OsString> = words.into_iter().chain([(&self.place.agent).into()]).collect();
        let session = self.job.terminal.as_ref().map_or("pipeline", |it| it.session.as_str());
        // A server that is started must not end up below us, who end what is below us; nothing else
        // is, now.
        rustix::process::set_child_subreaper(None)?;
        let window = self.place.tmux.open(session, &self.place.agent, &words);
        rustix::process::set_child_subreaper(Some(rustix::process::getpid()))?;
        Ok((listener, window?))
    }

    fn order(&mut self, mut link: Link) {
        self.started.leaders = vec![link.shim];
        let ordered = self
            .started
            .write(&self.job.attempt_dir, None)
            .and_then(|()| link.connection.send(&Order::Run { job: Box::new(self.job.clone()) }));
        self.phase = match ordered {
            Ok(()) => {
                let grace = Duration::from_millis(self.job.grace_ms);
                let limit = self.job.timeout_ms.map(Duration::from_millis);
                self.give_up_at =
                    limit.map(|limit| clock::monotonic() + limit + grace + SHIM_SLACK);
                Phase::Running(link)
            }
            Err(error) => lost(format!("cannot order the attempt in its window: {error}")),
        };
    }

    /// Returns the job.
    #[must_use]
    pub fn job(&self) -> &Job {
        &self.job
    }

    /// Returns whether the command was started.
    #[must_use]
    pub fn has_started(&self) -> bool {
        self.has_started
    }

    /// Adds the descriptors of which one becomes readable when there is something to do.
    pub fn fds<'a>(&'a self, fds: &mut Vec<BorrowedFd<'a>>) {
        match &self.phase {
            Phase::Opening(_, Some(connection), ..) => fds.push(connection.stream().as_fd()),
            Phase::Opening(listener, None, ..) => fds.push(listener.as_fd()),
            Phase::Running(link) => fds.push(link.connection.stream().as_fd()),
            Phase::Failed(..) | Phase::Over => {}
        }
    }

    /// Returns when to call [`Self::advance`] if no descriptor becomes readable.
    #[must_use]
    pub fn deadline(&self) -> Option<Instant> {
        match &self.phase {
            Phase::Opening(.., until) => Some(*until),
            Phase::Running(_) => {
                let typing = self.typist.as_ref().and_then(Typist::due);
                [typing, self.give_up_at].into_iter().flatten().min()
            }
            Phase::Failed(..) | Phase::Over => Some(clock::monotonic()),
        }
    }

    /// Asks the attempt to end.
    pub fn stop(&mut self, grace: Duration, now: Instant) {
        let slack = KILL_WAIT_MAX + STRAY_GRACE + SHIM_SLACK;
        match &mut self.phase {
            Phase::Opening(..) => {
                self.phase = Phase::Failed(EndedBy::Stop, "stopped by order".into());
            }
            Phase::Running(link) => {
                let attempt = self.job.attempt.clone();
                let grace_ms = u64::try_from(grace.as_millis()).unwrap_or(u64::MAX);
                if link.connection.send(&Order::Stop { attempt, grace_ms }).is_err() {
                    link.kill();
                }
                let by = now + grace + slack;
                self.give_up_at = Some(self.give_up_at.map_or(by, |at| at.min(by)));
            }
            Phase::Failed(..) | Phase::Over => {}
        }
    }

    /// Does all that is due at `now`; the record, once, when nothing of the attempt is left, and the
    /// shim where it is there for the next one.
    ///
    /// # Errors
    /// When the kernel or /proc fails; what runs is then to be ended by the monitor.
    pub fn advance(&mut self, now: Instant) -> io::Result<Option<(ExitRecord, Option<Link>)>> {
        match std::mem::replace(&mut self.phase, Phase::Over) {
            Phase::Opening(listener, connection, window, until) => {
                self.phase = self.meet(listener, connection, window, until, now)?;
                if let Phase::Running(_) = self.phase {
                    return self.advance(now);
                }
                Ok(None)
            }
            Phase::Running(link) => self.follow(link, now),
            Phase::Failed(by, reason) => Ok(Some((self.record(by, reason), None))),
            Phase::Over => Ok(None),
        }
    }

    /// Waits for the shim's hello, which must be of the process that tmux started.
    fn meet(
        &mut self,
        listener: UnixListener,
        mut connection: Option<Connection>,
        window: Window,
        until: Instant,
        now: Instant,
    ) -> io::Result<Phase> {
        if connection.is_none()
            && let Ok((stream, _)) = listener.accept()
        {
            connection = Some(Connection::new(stream)?);
        }
        let mut lines = Vec::new();
        let flow = connection.as_mut().map(|connection| connection.receive(&mut lines));
        let is_gone = flow.is_some_and(|flow| !matches!(flow, Ok(Flow::Open)));
        let hello = lines.first().map(|line| decode::<KeeperReport>(line));
        let is_ours =
            matches!(&hello, Some(Ok(KeeperReport::Hello { pid, .. })) if *pid == window.pid);
        let stat = if is_ours { proc::read_stat(window.pid)? } else { None };
        if let Some(stat) = stat.filter(|_| !is_gone)
            && let Some(connection) = connection.take()
        {
            let _ = fs::remove_file(&self.place.socket);
            let shim = Leader { pid: stat.pid, start_ticks: stat.start_ticks };
            self.order(Link { connection, pane: window.pane, shim });
            return Ok(std::mem::replace(&mut self.phase, Phase::Over));
        }
        if is_gone || hello.is_some() || until <= now {
            return Ok(lost("its window in tmux went away before it was started".into()));
        }
        Ok(Phase::Opening(listener, connection, window, until))
    }

    fn follow(
        &mut self,
        mut link: Link,
        now: Instant,
    ) -> io::Result<Option<(ExitRecord, Option<Link>)>> {
        let mut lines = Vec::new();
        let flow = link.connection.receive(&mut lines);
        for line in lines {
            match decode(&line) {
                Ok(KeeperReport::Started { leader, .. }) => self.note_start(leader, now),
                Ok(KeeperReport::Exited { record }) if self.is_ours(&record) => {
                    return Ok(Some((*record, Some(link))));
                }
                Ok(KeeperReport::Refused { why, .. }) => return Ok(Some(self.lose(&why)?)),
                Ok(KeeperReport::Hello { .. } | KeeperReport::Exited { .. }) => {}
                Err(error) => return Ok(Some(self.lose(&error.to_string())?)),
            }
        }
        if !matches!(flow, Ok(Flow::Open)) {
            return Ok(Some(self.lose("its window in tmux went away")?));
        }
        if self.give_up_at.is_some_and(|at| at <= now) {
            link.kill();
            return Ok(Some(self.lose("its window in tmux did not answer and was closed")?));
        }
        if let Some(typist) = &mut self.typist {
            typist
                .advance(now, &Shown { tmux: &self.place.tmux, pane: &link.pane, job: &self.job });
        }
        self.phase = Phase::Running(link);
        Ok(None)
    }

    fn is_ours(&self, record: &ExitRecord) -> bool {
        record.attempt == self.job.attempt && record.nonce == self.job.nonce
    }

    fn note_start(&mut self, leader: Option<i32>, now: Instant) {
        self.has_started = true;
        let stat = leader.and_then(|pid| proc::read_stat(pid).ok().flatten());
        if let Some(stat) = stat {
            let leader = Leader { pid: stat.pid, start_ticks: stat.start_ticks };
            self.started.leaders.push(leader);
            // For the case that we and the shim are killed: then a process without the nonce is
            // found by its session. The nonce alone finds nearly all.
            let _ = self.started.write(&self.job.attempt_dir, None);
        }
        let typing = self.job.terminal.as_ref().and_then(|terminal| terminal.typing.clone());
        self.typist = typing.map(|typing| Typist::new(typing, now));
    }

    /// The window is gone, and with it the one who saw to the tree: ends what is left of it.
    fn lose(&self, reason: &str) -> io::Result<(ExitRecord, Option<Link>)> {
        let ended = end_orphans(&self.started, STRAY_GRACE)?;
        let mut record = self.record(EndedBy::Lost, reason.to_owned());
        (record.leaked, record.left) = (ended.found, ended.left);
        Ok((record, None))
    }

    fn record(&self, by: EndedBy, reason: String) -> ExitRecord {
        let now_ms = SystemClock::start().now().as_ms().max(self.started.started_ms);
        ExitRecord { ended_ms: now_ms, ..self.started.ended_without_status(by, reason) }
    }
}

fn lost(reason: String) -> Phase {
    Phase::Failed(EndedBy::Lost, reason)
}

/// The pane in which an attempt runs.
struct Shown<'a> {
    tmux: &'a Tmux,
    pane: &'a str,
    job: &'a Job,
}

impl Screen for Shown<'_> {
    fn text(&self) -> io::Result<String> {
        self.tmux.text(self.pane)
    }

    fn paste(&self, text: &str, how: Paste) -> io::Result<()> {
        if how == Paste::Bracketed && asks_for_brackets(&self.job.log) {
            return self.tmux.paste(self.pane, &format!("\x1b[200~{text}\x1b[201~"));
        }
        self.tmux.paste(self.pane, text)
    }

    fn has_output(&self) -> bool {
        // Made with the first byte that the command writes.
        self.job.log.exists()
    }
}

/// Most of a log that is looked through: a program says early what it wants.
const LOG_BYTES_MAX: u64 = 1 << 20;

/// Returns true when the program that wrote `log` wants pastes marked (DECSET 2004).
fn asks_for_brackets(log: &Path) -> bool {
    let mut bytes = Vec::new();
    let read = open_regular(log).and_then(|file| file.take(LOG_BYTES_MAX).read_to_end(&mut bytes));
    let last = |word: &[u8]| bytes.windows(word.len()).rposition(|found| found == word);
    read.is_ok() && last(b"\x1b[?2004h") > last(b"\x1b[?2004l")
}

/// Returns this program's file; by way of /proc when it has been replaced since we started.
fn program() -> io::Result<OsString> {
    let path = std::env::current_exe()?;
    if path.exists() {
        return Ok(path.into());
    }
    Ok(format!("/proc/{}/exe", proc::own_pid()).into())
}

#[cfg(test)]
mod tests {
    use super::asks_for_brackets;

    #[test]
    fn pastes_are_marked_for_a_program_that_asks_last() {
        let dir = tempfile::tempdir().expect("temporary folder");
        let log = dir.path().join("log");
        assert!(!asks_for_brackets(&log));
        for (text, is_asked) in [
            ("plain", false),
            ("a\x1b[?2004hb", true),
            ("\x1b[?2004h x \x1b[?2004l", false),
            ("\x1b[?2004l\x1b[?2004h", true),
        ] {
            std::fs::write(&log, text).expect("writes");
            assert_eq!(asks_for_brackets(&log), is_asked, "{text:?}");
        }
    }
}
