//! One job inside a keeper: its commands, its limits, and the end of its last process.
//!
//! A [`Run`] never blocks: the keeper polls [`Run::fds`] until [`Run::deadline`] and calls
//! [`Run::advance`]. The exit status decides when a command is over, never the end of its output,
//! which a stray may hold open. Limits are on the monotonic clock, so time asleep counts for none.

use std::fs::{self, File};
use std::io::{self, Read};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::process::ExitStatusExt;
use std::path::Path;
use std::process::ExitStatus;
use std::time::{Duration, Instant, SystemTime};

use rustix::pipe::PipeFlags;
use rustix::process::Signal;
use wait4::Wait4;

use super::job::{EndedBy, ExitRecord, JOB_VERSION, Job, NO_LOG};
use super::log::CappedLog;
use super::spawn::{Main, Mouth, spawn};
use super::terminal::face::{Face, Pty};
use super::tree::{KILL_WAIT_MAX, RESCAN, Strays};
use crate::machine::time::Time;
use crate::sys::clock;
use crate::sys::clock::{Clock, SystemClock};
use crate::sys::proc::{self, Children};

/// How long strays of a job that ended by itself may finish by themselves (a `tee` does).
pub const STRAY_SETTLE: Duration = Duration::from_millis(200);
/// From the polite signal to the forced end of strays.
pub const STRAY_GRACE: Duration = Duration::from_secs(2);

/// How often the marker file is looked at.
const MARKER_TICK: Duration = Duration::from_secs(1);
/// How often orphans of a long command are reaped.
const REAP_TICK: Duration = Duration::from_secs(60);
const READ_BYTES: usize = 64 * 1024;
/// Most output taken at once, so that a flood cannot keep limits and orders waiting.
const DRAIN_BYTES_MAX: usize = 1024 * 1024;

/// Tells whether the file says that the attempt with this nonce is done.
pub type MarkerSeen = fn(&Path, &str) -> bool;

/// A job under way.
#[derive(Debug)]
pub struct Run {
    job: Job,
    marker_seen: MarkerSeen,
    wall: SystemClock,
    started_at: Instant,
    started: Time,
    log: Option<CappedLog>,
    output: Output,
    phase: Phase,
    ending: Option<Ending>,
    index: usize,
    status: Option<ExitStatus>,
    silent_since: Instant,
    marker: Marker,
    reap_at: Instant,
    user: Duration,
    system: Duration,
    max_rss_kib: u64,
    leaked: usize,
    left: usize,
}

/// Where a job stands, in order.
#[derive(Debug)]
enum Phase {
    /// A command runs.
    Running(Main),
    /// It was asked to end, and is ended by force at the time given.
    Ending(Main, Instant),
    /// It was ended by force; given up at the time given.
    Killing(Main, Instant),
    /// It is gone; strays may finish by themselves until the time given.
    Settling(Strays, Instant),
    /// Strays were asked to end.
    Terminating(Strays, Instant),
    /// Strays were ended by force; given up at the time given.
    Clearing(Strays, Instant),
    /// Nothing is left.
    Over,
}

#[derive(Debug)]
struct Output {
    reader: File,
    writer: OwnedFd,
    is_open: bool,
    /// The window in which it is shown, for a job in a terminal.
    face: Option<Face>,
}

/// How often a window that does not take what is written is tried again.
const SHOW_AGAIN: Duration = Duration::from_millis(20);

impl Output {
    /// Returns true while the window has to take what was written before.
    fn is_held_up(&self) -> bool {
        self.face.as_ref().is_some_and(Face::is_full)
    }
}

/// What a look for strays has found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Found {
    /// Nothing lives.
    None,
    /// Some that were known before.
    Known,
    /// Others.
    New,
}

/// Why the job is being ended; the first reason stays.
#[derive(Debug)]
struct Ending {
    by: EndedBy,
    reason: String,
}

#[derive(Debug)]
struct Marker {
    look_at: Instant,
    looked: Option<(SystemTime, u64)>,
    seen_at: Option<Instant>,
}

impl Run {
    /// Starts the first command of `job`; one that cannot start is over at the next `advance`.
    ///
    /// # Errors
    /// When there is no pipe to be had; nothing was started then.
    pub fn start(job: Job, marker_seen: MarkerSeen) -> io::Result<Self> {
        let (reader, writer) = rustix::pipe::pipe_with(PipeFlags::CLOEXEC)?;
        rustix::io::ioctl_fionbio(&reader, true)?;
        let output = Output { reader: reader.into(), writer, is_open: true, face: None };
        Ok(Self::begin(job, marker_seen, output))
    }

    /// Starts the command of `job` on a terminal, all three of its standard files.
    #[must_use]
    pub fn start_on(pty: Pty, job: Job, marker_seen: MarkerSeen) -> Self {
        let Pty { master, slave, face } = pty;
        let output = Output { reader: master, writer: slave, is_open: true, face: Some(face) };
        Self::begin(job, marker_seen, output)
    }

    fn begin(job: Job, marker_seen: MarkerSeen, output: Output) -> Self {
        let wall = SystemClock::start();
        let now = clock::monotonic();
        let mut run = Self {
            marker_seen,
            wall,
            started_at: now,
            started: wall.now(),
            log: None,
            output,
            phase: Phase::Over,
            ending: None,
            index: 0,
            status: None,
            silent_since: now,
            marker: Marker { look_at: now + MARKER_TICK, looked: None, seen_at: None },
            reap_at: now + REAP_TICK,
            user: Duration::ZERO,
            system: Duration::ZERO,
            max_rss_kib: 0,
            leaked: 0,
            left: 0,
            job,
        };
        match CappedLog::create(&run.job.log, run.job.log_bytes) {
            Ok(log) => {
                run.log = Some(log);
                run.spawn();
            }
            Err(error) => run.end_as(
                EndedBy::SpawnFailed,
                format!("{NO_LOG} `{}`: {error}", run.job.log.display()),
            ),
        }
        run
    }

    /// Returns the job.
    #[must_use]
    pub fn job(&self) -> &Job {
        &self.job
    }

    /// Returns whether a command was started at all, or is running.
    #[must_use]
    pub fn has_started(&self) -> bool {
        self.status.is_some() || !matches!(self.phase, Phase::Over)
    }

    /// Returns the process that leads the running command's group, and on a terminal its session.
    #[must_use]
    pub fn leader(&self) -> Option<i32> {
        match &self.phase {
            Phase::Running(main) => Some(main.pid.as_raw_nonzero().get()),
            Phase::Ending(..)
            | Phase::Killing(..)
            | Phase::Settling(..)
            | Phase::Terminating(..)
            | Phase::Clearing(..)
            | Phase::Over => None,
        }
    }

    /// Adds the descriptors of which one becomes readable when there is something to do.
    pub fn fds<'a>(&'a self, fds: &mut Vec<BorrowedFd<'a>>) {
        if self.output.is_open && !self.output.is_held_up() {
            fds.push(self.output.reader.as_fd());
        }
        match &self.phase {
            Phase::Running(main) | Phase::Ending(main, _) | Phase::Killing(main, _) => {
                fds.push(main.fd.as_fd());
            }
            Phase::Settling(strays, _)
            | Phase::Terminating(strays, _)
            | Phase::Clearing(strays, _) => fds.extend(strays.fds()),
            Phase::Over => {}
        }
    }

    /// Returns when to call [`Self::advance`] if no descriptor becomes readable.
    #[must_use]
    pub fn deadline(&self) -> Option<Instant> {
        let is_behind = self.output.face.as_ref().is_some_and(Face::is_behind);
        let show_at = is_behind.then(|| clock::monotonic() + SHOW_AGAIN);
        self.phase_deadline().into_iter().chain(show_at).min()
    }

    fn phase_deadline(&self) -> Option<Instant> {
        match &self.phase {
            Phase::Running(_) => {
                let marker = self.job.marker_file.as_ref().map(|_| self.marker.look_at);
                [self.timeout_at(), self.silence_at(), self.leave_at(), marker, Some(self.reap_at)]
                    .into_iter()
                    .flatten()
                    .min()
            }
            Phase::Settling(strays, at) | Phase::Terminating(strays, at) if !strays.is_empty() => {
                Some(*at)
            }
            Phase::Ending(_, at) => Some(*at),
            Phase::Killing(_, at)
            | Phase::Settling(_, at)
            | Phase::Terminating(_, at)
            | Phase::Clearing(_, at) => Some((*at).min(clock::monotonic() + RESCAN)),
            Phase::Over => Some(self.started_at),
        }
    }

    /// Asks the job to end; an end already under way is only hastened.
    pub fn stop(&mut self, grace: Duration, now: Instant) {
        match &mut self.phase {
            Phase::Ending(_, at) | Phase::Settling(_, at) | Phase::Terminating(_, at) => {
                *at = (*at).min(now + grace);
            }
            Phase::Running(_) => {
                self.end(EndedBy::Stop, "stopped by order".into(), grace, now);
            }
            Phase::Killing(..) | Phase::Clearing(..) | Phase::Over => {}
        }
    }

    /// Does all that is due at `now`; the record, once, when nothing of the job is left.
    ///
    /// # Errors
    /// When the kernel or /proc fails; the run is then to be dropped, its processes to be ended by
    /// the monitor.
    pub fn advance(&mut self, now: Instant) -> io::Result<Option<ExitRecord>> {
        self.drain(now);
        loop {
            let before = std::mem::replace(&mut self.phase, Phase::Over);
            let (phase, is_settled) = match before {
                Phase::Running(main) => self.run(main, now)?,
                Phase::Ending(main, at) => self.wait_for_end(main, at, now)?,
                Phase::Killing(main, at) => self.force_end(main, at, now)?,
                Phase::Settling(strays, at) => self.settle(strays, at, now)?,
                Phase::Terminating(strays, at) => self.terminate(strays, at, now)?,
                Phase::Clearing(strays, at) => self.clear(strays, at, now)?,
                Phase::Over => return Ok(Some(self.finish())),
            };
            self.phase = phase;
            if is_settled && !matches!(self.phase, Phase::Over) {
                return Ok(None);
            }
        }
    }

    /// Looks after a running command: its exit, then its limits.
    fn run(&mut self, mut main: Main, now: Instant) -> io::Result<(Phase, bool)> {
        if proc::is_dead_child(main.fd.as_fd())? {
            self.reap(&mut main)?;
            if self.status.is_some_and(|status| status.success())
                && self.index + 1 < self.job.commands.len()
            {
                self.index += 1;
                self.spawn();
                let phase = std::mem::replace(&mut self.phase, Phase::Over);
                if !matches!(phase, Phase::Over) {
                    return Ok((phase, true));
                }
            }
            return self.after_main(Phase::Settling, now + STRAY_SETTLE);
        }
        if self.reap_at <= now {
            self.reap_at = now + REAP_TICK;
            proc::reap_orphans(main.pid.as_raw_nonzero().get())?;
        }
        self.look_at_marker(now);
        let is_due = |at: Option<Instant>| at.is_some_and(|at| at <= now);
        let grace = Duration::from_millis(self.job.grace_ms);
        self.phase = Phase::Running(main);
        if is_due(self.timeout_at()) {
            let limit = Duration::from_millis(self.job.timeout_ms.unwrap_or_default());
            self.end(EndedBy::Timeout, format!("not done within {limit:?}"), grace, now);
        } else if is_due(self.leave_at()) {
            let reason = "said that it was done, and did not leave".into();
            self.end(EndedBy::MarkerGrace, reason, grace, now);
        } else if is_due(self.silence_at()) {
            let limit = Duration::from_millis(self.job.silence_ms.unwrap_or_default());
            self.end(EndedBy::Silence, format!("no output for {limit:?}"), grace, now);
        }
        Ok((std::mem::replace(&mut self.phase, Phase::Over), true))
    }

    fn wait_for_end(
        &mut self,
        mut main: Main,
        at: Instant,
        now: Instant,
    ) -> io::Result<(Phase, bool)> {
        if proc::is_dead_child(main.fd.as_fd())? {
            self.reap(&mut main)?;
            return self.after_main(Phase::Terminating, at.max(now));
        }
        if at > now {
            return Ok((Phase::Ending(main, at), true));
        }
        Ok((Phase::Killing(main, now + KILL_WAIT_MAX), false))
    }

    fn force_end(
        &mut self,
        mut main: Main,
        at: Instant,
        now: Instant,
    ) -> io::Result<(Phase, bool)> {
        // The child is not reaped yet, so the group's id cannot be another's.
        let _ = rustix::process::kill_process_group(main.pid, Signal::KILL);
        Strays::of_keeper(&self.job)?.kill();
        if proc::is_dead_child(main.fd.as_fd())? {
            self.reap(&mut main)?;
            return self.after_main(Phase::Terminating, now);
        }
        if at > now {
            return Ok((Phase::Killing(main, at), true));
        }
        self.left += 1;
        Ok((Phase::Over, true))
    }

    /// The last command has gone: over at once when no child is left, as it nearly always is.
    fn after_main(
        &mut self,
        next: fn(Strays, Instant) -> Phase,
        until: Instant,
    ) -> io::Result<(Phase, bool)> {
        if proc::reap_children()? == Children::None {
            return Ok((Phase::Over, true));
        }
        Ok((next(Strays::of_keeper(&self.job)?, until), false))
    }

    fn settle(
        &mut self,
        mut strays: Strays,
        at: Instant,
        now: Instant,
    ) -> io::Result<(Phase, bool)> {
        if self.look_for(&mut strays)? == Found::None {
            return Ok((Phase::Over, true));
        }
        if at > now {
            return Ok((Phase::Settling(strays, at), true));
        }
        self.leaked += strays.len();
        strays.terminate();
        Ok((Phase::Terminating(strays, now + STRAY_GRACE), true))
    }

    fn terminate(
        &mut self,
        mut strays: Strays,
        at: Instant,
        now: Instant,
    ) -> io::Result<(Phase, bool)> {
        match self.look_for(&mut strays)? {
            Found::None => return Ok((Phase::Over, true)),
            Found::New => strays.terminate(),
            Found::Known => {}
        }
        if at > now {
            return Ok((Phase::Terminating(strays, at), true));
        }
        if self.ending.is_some() {
            self.leaked += strays.len();
        }
        Ok((Phase::Clearing(strays, now + KILL_WAIT_MAX), false))
    }

    fn clear(
        &mut self,
        mut strays: Strays,
        at: Instant,
        now: Instant,
    ) -> io::Result<(Phase, bool)> {
        strays.kill();
        if self.look_for(&mut strays)? == Found::None {
            return Ok((Phase::Over, true));
        }
        if at > now {
            return Ok((Phase::Clearing(strays, at), true));
        }
        self.left += strays.len();
        Ok((Phase::Over, true))
    }

    /// Leaves in `strays` what still lives of the job, and looks again when that is nothing.
    fn look_for(&self, strays: &mut Strays) -> io::Result<Found> {
        strays.forget_ended();
        if !strays.is_empty() {
            return Ok(Found::Known);
        }
        *strays = Strays::of_keeper(&self.job)?;
        let children = proc::reap_children()?;
        // Without a stray but with a child: one is about to die, and is looked for again soon.
        let is_over = strays.is_empty() && children == Children::None;
        Ok(if is_over { Found::None } else { Found::New })
    }

    /// Asks the running command and everything below the keeper to end.
    fn end(&mut self, by: EndedBy, reason: String, grace: Duration, now: Instant) {
        let Phase::Running(main) = std::mem::replace(&mut self.phase, Phase::Over) else { return };
        self.end_as(by, reason);
        // The group at once, so that a shell is not left to go on with its next command.
        let _ = rustix::process::kill_process_group(main.pid, Signal::TERM);
        let _ = rustix::process::kill_process_group(main.pid, Signal::CONT);
        if let Ok(strays) = Strays::of_keeper(&self.job) {
            strays.terminate();
        }
        self.phase = Phase::Ending(main, now + grace);
    }

    fn end_as(&mut self, by: EndedBy, reason: String) {
        self.ending.get_or_insert(Ending { by, reason });
    }

    /// Starts the command at `index`; a failure is noted and leaves the phase `Over`.
    fn spawn(&mut self) {
        let mouth = match self.output.face {
            Some(_) => Mouth::Terminal(&self.output.writer),
            None => Mouth::Pipe(&self.output.writer),
        };
        match spawn(&self.job, self.index, mouth) {
            Ok(main) => {
                self.status = None;
                self.phase = Phase::Running(main);
            }
            Err(why) => {
                self.status = None;
                self.end_as(EndedBy::SpawnFailed, why);
            }
        }
    }

    fn reap(&mut self, main: &mut Main) -> io::Result<()> {
        let used = main.child.wait4()?;
        self.status = Some(used.status);
        self.user += used.rusage.utime;
        self.system += used.rusage.stime;
        self.max_rss_kib = self.max_rss_kib.max(used.rusage.maxrss / 1024);
        Ok(())
    }

    /// Takes what was written so far, up to a bound.
    fn drain(&mut self, now: Instant) {
        let mut buffer = [0_u8; READ_BYTES];
        let mut taken = 0;
        if let Some(face) = &mut self.output.face {
            face.write(&[]);
        }
        while self.output.is_open && !self.output.is_held_up() && taken < DRAIN_BYTES_MAX {
            match self.output.reader.read(&mut buffer) {
                Ok(count) if count > 0 => {
                    taken += count;
                    self.silent_since = now;
                    if let Some(log) = &mut self.log {
                        log.write(&buffer[..count]);
                    }
                    if let Some(face) = &mut self.output.face {
                        face.write(&buffer[..count]);
                    }
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return,
                Ok(_) | Err(_) => self.output.is_open = false,
            }
        }
    }

    fn look_at_marker(&mut self, now: Instant) {
        let Some(path) = self.job.marker_file.as_ref().filter(|_| self.marker.look_at <= now)
        else {
            return;
        };
        self.marker.look_at = now + MARKER_TICK;
        let looked =
            fs::metadata(path).ok().and_then(|meta| Some((meta.modified().ok()?, meta.len())));
        if looked != self.marker.looked {
            self.marker.looked = looked;
            let is_seen = (self.marker_seen)(path, &self.job.nonce);
            self.marker.seen_at =
                if is_seen { Some(self.marker.seen_at.unwrap_or(now)) } else { None };
        }
    }

    fn timeout_at(&self) -> Option<Instant> {
        Some(self.started_at + Duration::from_millis(self.job.timeout_ms?))
    }

    fn silence_at(&self) -> Option<Instant> {
        Some(self.silent_since + Duration::from_millis(self.job.silence_ms?))
    }

    fn leave_at(&self) -> Option<Instant> {
        Some(self.marker.seen_at? + Duration::from_millis(self.job.marker_grace_ms))
    }

    fn finish(&mut self) -> ExitRecord {
        self.drain(self.silent_since);
        self.output.is_open = false;
        let total = self.log.take().map(CappedLog::finish);
        let (ended_by, mut reason) = match self.ending.take() {
            Some(ending) => (ending.by, ending.reason),
            None => (EndedBy::Exit, String::new()),
        };
        if let Some(error) = total.as_ref().and_then(|total| total.error.as_ref()) {
            let separator = if reason.is_empty() { "" } else { "; " };
            reason.push_str(&format!("{separator}the log is not whole: {error}"));
        }
        let ms = |time: Duration| u64::try_from(time.as_millis()).unwrap_or(u64::MAX);
        ExitRecord {
            v: JOB_VERSION,
            attempt: self.job.attempt.clone(),
            nonce: self.job.nonce.clone(),
            started_ms: self.started.as_ms(),
            ended_ms: self.wall.now().as_ms(),
            code: self.status.and_then(|status| status.code()),
            signal: self.status.and_then(|status| status.signal()),
            command_index: self.index,
            ended_by,
            reason,
            leaked: u32::try_from(self.leaked).unwrap_or(u32::MAX),
            left: u32::try_from(self.left).unwrap_or(u32::MAX),
            cpu_user_ms: ms(self.user),
            cpu_sys_ms: ms(self.system),
            max_rss_kib: self.max_rss_kib,
            log_bytes: total.as_ref().map_or(0, |total| total.bytes),
            log_dropped_bytes: total.as_ref().map_or(0, |total| total.dropped),
        }
    }
}
