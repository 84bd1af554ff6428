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

use super::job::{AttemptRef, EndedBy, ExitRecord, JOB_VERSION, Job, StartedRecord};
use super::process::{MarkerSeen, Run};
use super::protocol::{Connection, Flow, KeeperReport, Order, decode};
use super::rendezvous::KeeperInfo;
use crate::sys::clock::{self, Clock, SystemClock};
use crate::sys::file::Spare;
use crate::sys::{fail, proc};

/// How long a keeper waits for the first monitor.
pub const FIRST_MONITOR_WAIT: Duration = Duration::from_secs(10);
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
    run: Option<Run>,
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
    match rustix::process::setsid() {
        Ok(_) | Err(Errno::PERM) => {}
        Err(error) => return Err(error.into()),
    }
    rustix::process::set_child_subreaper(Some(rustix::process::getpid()))?;
    let info = KeeperInfo::of_self(&options.socket)?;
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
    drop(keeper);
    drop(lock);
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
        let is_waiting = self.first_monitor_by.is_some_and(|until| clock::monotonic() < until);
        self.run.is_none() && (self.is_quitting || (self.monitor.is_none() && !is_waiting))
    }

    fn wait(&self) -> io::Result<()> {
        let mut fds: Vec<BorrowedFd<'_>> = vec![self.listener.as_fd()];
        fds.extend(self.monitor.as_ref().map(|monitor| monitor.stream().as_fd()));
        let mut deadline = self.first_monitor_by;
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
        let is_under_way = |run: &Run| run.job().attempt_ref() == attempt;
        if self.run.as_ref().is_some_and(is_under_way) {
            // Ordered twice: by a monitor that could not know that the first order had arrived.
            return self.report(&KeeperReport::Started { attempt: attempt.attempt });
        }
        match self.refusal(&job, &attempt) {
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
        };
        let begun = fail::point("keeper.started")
            .and_then(|()| started.write(&job.attempt_dir, self.spare.take()))
            .and_then(|()| Run::start(job, self.marker_seen));
        match begun {
            Ok(run) => {
                let has_started = run.has_started();
                self.run = Some(run);
                if has_started {
                    self.report(&KeeperReport::Started { attempt: attempt.attempt });
                }
            }
            Err(error) => {
                self.conclude(&attempt, not_started(&started, format!("cannot begin: {error}")));
            }
        }
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
        if let Some(record) = run.advance(clock::monotonic())? {
            let attempt = run.job().attempt_ref();
            self.run = None;
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
            eprintln!("cannot write `exit.json` in `{dir}`: {error}");
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

/// Why a job is not started.
enum Refusal {
    /// It has run already, and this came of it.
    Done(Box<ExitRecord>),
    /// For a reason.
    No(String),
}

fn not_started(started: &StartedRecord, reason: String) -> ExitRecord {
    ExitRecord {
        v: JOB_VERSION,
        attempt: started.attempt.clone(),
        nonce: started.nonce.clone(),
        started_ms: started.started_ms,
        ended_ms: started.started_ms,
        code: None,
        signal: None,
        command_index: 0,
        ended_by: EndedBy::SpawnFailed,
        reason,
        leaked: 0,
        left: 0,
        cpu_user_ms: 0,
        cpu_sys_ms: 0,
        max_rss_kib: 0,
        log_bytes: 0,
        log_dropped_bytes: 0,
    }
}
