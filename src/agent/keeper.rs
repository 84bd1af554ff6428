//! The keeper: a process of its own, one per agent, that runs its agent's jobs one after another.
//!
//! It starts only what a monitor orders over the socket, and what it starts it sees to the end: when
//! the monitor goes away it finishes the job, writes `exit.json` and leaves. It is the leader of its
//! own session, without a terminal, and the subreaper of everything below it.
//! It is one thread around one poll(2); it knows nothing of tasks.

use std::io::{self, Write};
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::net::UnixListener;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use rustix::io::Errno;

use super::folder::FolderId;
use super::job::{AttemptRef, EndedBy, ExitRecord, JOB_VERSION, Job, NO_START, StartedRecord};
use super::process::{MarkerSeen, Run};
use super::protocol::{Connection, Flow, KeeperReport, Order, decode};
use super::rendezvous::KeeperInfo;
use super::terminal::pane::{Link, PaneRun, Place};
use super::terminal::tmux::{Tmux, server_socket};
use crate::sys::clock::{self, Clock, SystemClock};
use crate::sys::file::Spare;
use crate::sys::{fail, proc, signals};

/// How long a keeper waits for the first monitor.
pub const FIRST_MONITOR_WAIT: Duration = Duration::from_secs(10);
/// How long until it looks again whether its socket is there for the first monitor.
const LOOK_AGAIN: Duration = Duration::from_millis(20);
/// What a keeper writes to its standard output when it listens.
pub const READY: &[u8] = b"ready\n";

/// What a keeper is started with.
#[derive(Debug, Clone)]
pub struct KeeperOptions {
    /// The agent it serves.
    pub agent: String,
    /// Its folder, `keepers/<agent>`.
    pub dir: PathBuf,
    /// Where to listen.
    pub socket: PathBuf,
    /// Tells whether a marker file says that the attempt is done.
    pub marker_seen: MarkerSeen,
}

#[derive(Debug)]
struct Keeper {
    agent: String,
    dir: PathBuf,
    marker_seen: MarkerSeen,
    info: KeeperInfo,
    listener: UnixListener,
    monitor: Option<Connection>,
    run: Option<Work>,
    place: Place,
    /// The agent's window, between two attempts in it.
    window: Option<Link>,
    /// For the next record: of its start while nothing runs, then of its end.
    spare: Option<Spare>,
    is_quitting: bool,
    first_monitor_by: Option<Instant>,
}

/// Serves one agent until there is nothing to do; the keeper's whole life.
///
/// `lock` is the held lock of the keeper's folder, released last. Makes the caller the leader of a
/// new session and a subreaper, so this is for a process started for it.
///
/// # Errors
/// When it cannot become leader or listen; when the kernel or /proc fails during a job, whose
/// processes are then left to the monitor to end.
pub fn run(options: KeeperOptions, lock: impl Send) -> io::Result<()> {
    // PERM: it leads its group already. Not asked with getsid(2), which in a container may answer 0
    // (the session's leader is outside), a value that rustix cannot hold.
    signals::pass_on_as_usual(signals::ALL)?;
    match rustix::process::setsid() {
        Ok(_) | Err(Errno::PERM) => {}
        Err(error) => return Err(error.into()),
    }
    rustix::process::set_child_subreaper(Some(rustix::process::getpid()))?;
    let info = KeeperInfo::of_self(&options.dir, &options.socket)?;
    match std::fs::remove_file(&options.socket) {
        Ok(()) => {}
        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
        Err(error) => return Err(error),
    }
    fail::point("keeper.listen")?;
    let listener = UnixListener::bind(&options.socket)?;
    listener.set_nonblocking(true)?;
    info.write(&options.dir)?;
    // Nobody may be reading, which only means that the monitor is gone already.
    let _ = io::stdout().write_all(READY).and_then(|()| io::stdout().flush());
    let mut keeper = Keeper {
        place: place(&options),
        window: None,
        agent: options.agent,
        dir: options.dir,
        marker_seen: options.marker_seen,
        info,
        listener,
        monitor: None,
        run: None,
        spare: None,
        is_quitting: false,
        first_monitor_by: Some(clock::monotonic() + FIRST_MONITOR_WAIT),
    };
    let served = keeper.serve();
    // The next keeper makes its own; a left-over file would only be replaced.
    let _ = std::fs::remove_file(&options.socket);
    if let Some(window) = keeper.window.take() {
        window.close();
    }
    let server = keeper.place.tmux.clone();
    drop(keeper);
    drop(lock);
    // Nobody waits for us any more.
    server.clear();
    served
}

impl Keeper {
    fn serve(&mut self) -> io::Result<()> {
        while !self.may_leave() {
            self.make_spare();
            self.wait()?;
            self.accept()?;
            self.take_orders();
            self.advance()?;
        }
        Ok(())
    }

    /// Makes the file of the next record now, when nobody waits for it. Without one it is made then.
    fn make_spare(&mut self) {
        if self.spare.is_none() {
            let dir = self.run.as_ref().map_or(&self.dir, |run| &run.job().attempt_dir);
            self.spare = Spare::make(dir).ok();
        }
    }

    fn may_leave(&self) -> bool {
        let in_time = |until| clock::monotonic() < until && self.info.socket.exists();
        let is_waiting = self.first_monitor_by.is_some_and(in_time);
        self.run.is_none() && (self.is_quitting || (self.monitor.is_none() && !is_waiting))
    }

    fn wait(&self) -> io::Result<()> {
        let mut fds: Vec<BorrowedFd<'_>> = vec![self.listener.as_fd()];
        fds.extend(self.monitor.as_ref().map(|monitor| monitor.stream().as_fd()));
        // Without its socket nobody can come, and another keeper is wanted at once.
        let look_at = clock::monotonic() + LOOK_AGAIN;
        let mut deadline = self.first_monitor_by.map(|until| until.min(look_at));
        if let Some(run) = &self.run {
            run.fds(&mut fds);
            deadline = [deadline, run.deadline()].into_iter().flatten().min();
        }
        let timeout = deadline.map(|at| at.saturating_duration_since(clock::monotonic()));
        proc::wait_readable(&fds, timeout).map(|_| ())
    }

    /// Takes the newest monitor; it replaces the one before.
    fn accept(&mut self) -> io::Result<()> {
        loop {
            match self.listener.accept() {
                Ok((stream, _)) => {
                    self.first_monitor_by = None;
                    self.monitor = Some(Connection::new(stream)?);
                    let running = self.run.as_ref().map(|run| run.job().attempt.clone());
                    let (agent, pid) = (self.agent.clone(), self.info.pid);
                    self.report(&KeeperReport::Hello { agent, pid, running });
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(()),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) if error.kind() == io::ErrorKind::ConnectionAborted => {}
                Err(error) => return Err(error),
            }
        }
    }

    fn take_orders(&mut self) {
        let Some(monitor) = &mut self.monitor else { return };
        let mut lines = Vec::new();
        let flow = monitor.receive(&mut lines);
        for line in lines {
            match decode(&line) {
                Ok(Order::Run { job }) => self.start(*job),
                Ok(Order::Stop { attempt, grace_ms }) => {
                    self.stop(attempt, Duration::from_millis(grace_ms));
                }
                Ok(Order::Quit) => self.is_quitting = true,
                Err(error) => self.refuse(None, format!("cannot read an order: {error}")),
            }
        }
        if !matches!(flow, Ok(Flow::Open)) {
            self.monitor = None;
        }
    }

    fn start(&mut self, job: Job) {
        let attempt = job.attempt_ref();
        let is_under_way = |run: &&Work| run.job().attempt_ref() == attempt;
        if let Some(run) = self.run.as_ref().filter(is_under_way) {
            // Ordered twice: by a monitor that could not know that the first order had arrived.
            if run.has_started() {
                self.report_start(attempt.attempt);
            }
            return;
        }
        match self.refusal(&job, &attempt) {
            Ok(None) if self.is_cut_off(&job) => {
                self.is_quitting = true;
                let why =
                    "the folder of its sockets is gone, so that another keeper takes its place";
                return self.refuse(Some(attempt.attempt), why.into());
            }
            Ok(None) => {}
            Ok(Some(Refusal::Done(record))) => {
                return self.report(&KeeperReport::Exited { record });
            }
            Ok(Some(Refusal::No(why))) => return self.refuse(Some(attempt.attempt), why),
            Err(error) => {
                let why = format!("cannot read what is left of the attempt: {error}");
                return self.refuse(Some(attempt.attempt), why);
            }
        }
        let started = StartedRecord {
            v: JOB_VERSION,
            attempt: job.attempt.clone(),
            nonce: job.nonce.clone(),
            keeper_pid: self.info.pid,
            keeper_start_ticks: self.info.start_ticks,
            boot_id: self.info.boot_id.clone(),
            started_ms: SystemClock::start().now().as_ms(),
            leaders: Vec::new(),
            folder: FolderId::of(&job.attempt_dir).ok(),
            project: job.project().map(str::to_owned),
        };
        let begun = fail::point("keeper.started")
            .and_then(|()| started.write(&job.attempt_dir, self.spare.take()))
            .and_then(|()| self.begin(job, &started));
        match begun {
            Ok(run) => {
                let has_started = run.has_started();
                self.run = Some(run);
                if has_started {
                    self.report_start(attempt.attempt);
                }
            }
            Err(error) => {
                let why = format!("{NO_START}: {error}");
                self.conclude(&attempt, started.ended_without_status(EndedBy::SpawnFailed, why));
            }
        }
    }

    /// Returns whether the job is for a window, and what lay beside our socket is gone, tmux's own too.
    fn is_cut_off(&self, job: &Job) -> bool {
        job.terminal.is_some() && !self.info.socket.exists()
    }

    fn begin(&mut self, job: Job, started: &StartedRecord) -> io::Result<Work> {
        if job.terminal.is_none() {
            return Run::start(job, self.marker_seen).map(Work::Own);
        }
        let (place, window) = (self.place.clone(), self.window.take());
        Ok(Work::InWindow(PaneRun::start(job, place, started.clone(), window)))
    }

    fn report_start(&mut self, attempt: String) {
        self.report(&KeeperReport::Started { attempt, leader: None });
    }

    /// Returns why the job may not be started now.
    fn refusal(&self, job: &Job, attempt: &AttemptRef) -> io::Result<Option<Refusal>> {
        let no = |why: &str| Ok(Some(Refusal::No(why.to_owned())));
        if job.v != JOB_VERSION {
            return no("the job is of another version");
        }
        if let Some(run) = &self.run {
            return no(&format!("`{}` is under way", run.job().attempt));
        }
        if self.is_quitting {
            return no("the keeper is leaving");
        }
        if let Some(record) = ExitRecord::read(attempt)? {
            return Ok(Some(Refusal::Done(Box::new(record))));
        }
        if StartedRecord::read(attempt)?.is_some() {
            return no("it was started before");
        }
        Ok(None)
    }

    fn stop(&mut self, attempt: String, grace: Duration) {
        match self.run.as_mut().filter(|run| run.job().attempt == attempt) {
            Some(run) => run.stop(grace, clock::monotonic()),
            None => self.refuse(Some(attempt), "it is not under way".into()),
        }
    }

    fn advance(&mut self) -> io::Result<()> {
        let Some(run) = &mut self.run else { return Ok(()) };
        let had_started = run.has_started();
        let (attempt, now) = (run.job().attempt_ref(), clock::monotonic());
        let ended = match run {
            Work::Own(run) => run.advance(now)?.map(|record| (record, None)),
            Work::InWindow(run) => run.advance(now)?,
        };
        if !had_started && run.has_started() {
            self.report_start(attempt.attempt.clone());
        }
        if let Some((record, window)) = ended {
            self.run = None;
            self.window = window.or(self.window.take());
            self.conclude(&attempt, record);
        }
        Ok(())
    }

    /// Leaves the record on disk, then reports it.
    fn conclude(&mut self, attempt: &AttemptRef, record: ExitRecord) {
        let written = fail::point("keeper.exit")
            .and_then(|()| record.write(&attempt.attempt_dir, self.spare.take()));
        if let Err(error) = written {
            // The report still goes out; without a monitor the attempt counts as lost.
            let dir = attempt.attempt_dir.display();
            // The disk that has no room for the one may have none for the other.
            let _ = writeln!(io::stderr(), "cannot write `exit.json` in `{dir}`: {error}");
        }
        self.report(&KeeperReport::Exited { record: Box::new(record) });
    }

    fn refuse(&mut self, attempt: Option<String>, why: String) {
        self.report(&KeeperReport::Refused { attempt, why });
    }

    /// Tells the monitor; one that does not listen is let go, and will find what is on disk.
    fn report(&mut self, report: &KeeperReport) {
        if let Some(monitor) = &mut self.monitor
            && monitor.send(report).is_err()
        {
            self.monitor = None;
        }
    }
}

/// A job under way.
#[derive(Debug)]
enum Work {
    /// Of our own children.
    Own(Run),
    /// In the agent's window, by its shim.
    InWindow(PaneRun),
}

impl Work {
    fn job(&self) -> &Job {
        match self {
            Self::Own(run) => run.job(),
            Self::InWindow(run) => run.job(),
        }
    }

    fn has_started(&self) -> bool {
        match self {
            Self::Own(run) => run.has_started(),
            Self::InWindow(run) => run.has_started(),
        }
    }

    fn fds<'a>(&'a self, fds: &mut Vec<BorrowedFd<'a>>) {
        match self {
            Self::Own(run) => run.fds(fds),
            Self::InWindow(run) => run.fds(fds),
        }
    }

    fn deadline(&self) -> Option<Instant> {
        match self {
            Self::Own(run) => run.deadline(),
            Self::InWindow(run) => run.deadline(),
        }
    }

    fn stop(&mut self, grace: Duration, now: Instant) {
        match self {
            Self::Own(run) => run.stop(grace, now),
            Self::InWindow(run) => run.stop(grace, now),
        }
    }
}

/// Returns where the agent's window is opened.
fn place(options: &KeeperOptions) -> Place {
    let (runtime, keepers) = (options.socket.parent(), options.dir.parent());
    let server = runtime.zip(keepers).map(|(runtime, keepers)| server_socket(runtime, keepers));
    Place {
        tmux: Tmux::at(server.unwrap_or_else(|| options.dir.join("tmux"))),
        socket: options.socket.with_extension("pane"),
        agent: options.agent.clone(),
    }
}

/// Why a job is not started.
enum Refusal {
    /// It has run already, and this came of it.
    Done(Box<ExitRecord>),
    /// For a reason.
    No(String),
}
