//! What runs in an agent's window: starts what the keeper orders, one after another.
//!
//! It is to the keeper what a keeper is to the monitor, and speaks the same language; it lives as
//! long as the keeper's connection and the window do, and ends its agent when either goes away. It
//! is the subreaper of what it starts and holds the limits of it, so the record it sends is proof
//! that nothing is left. It writes no files but the log.

use std::io::{self, Read};
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::Duration;

use signal_hook::consts::{SIGHUP, SIGTERM, SIGWINCH};

use super::face::{Face, Keys, Pty};
use crate::agent::job::{EndedBy, ExitRecord, Job};
use crate::agent::process::{MarkerSeen, Run, STRAY_GRACE};
use crate::agent::protocol::{Connection, Flow, KeeperReport, Order, decode};
use crate::sys::{clock, fail, proc, signals};

/// How often a terminal that does not take what is written is tried again.
const WRITE_AGAIN: Duration = Duration::from_millis(20);
const READ_BYTES: usize = 16 * 1024;
/// Leaves the other screen, then resets and clears the terminal.
const FRESH: &[u8] = b"\x1b[?1049l\x1bc\x1b[H\x1b[2J";
/// Undoes what a program that was ended may have left: other screen, mouse, pastes, cursor, colours.
const TIDY: &str =
    "\x1b[?1049l\x1b[?1000l\x1b[?1002l\x1b[?1003l\x1b[?1006l\x1b[?2004l\x1b[?25h\x1b[0m";
/// Of the environment of whoever started the monitor: they speak of another terminal.
const FOREIGN: [&str; 7] = ["TMUX", "TMUX_PANE", "STY", "WINDOW", "COLUMNS", "LINES", "TERM"];

struct Shim {
    agent: String,
    marker_seen: MarkerSeen,
    keeper: Connection,
    face: Face,
    end: UnixStream,
    resized: UnixStream,
    run: Option<Run>,
    keys: Option<Keys>,
    is_leaving: bool,
}

/// Serves the keeper that listens at `socket`; the shim's whole life.
///
/// # Errors
/// When the keeper or the window is not there; when the kernel or /proc fails.
pub fn run(socket: &Path, agent: &str, marker_seen: MarkerSeen) -> io::Result<()> {
    signals::pass_on_as_usual(signals::ALL)?;
    rustix::process::set_child_subreaper(Some(rustix::process::getpid()))?;
    let (end, end_told) = UnixStream::pair()?;
    let (resized, resized_told) = UnixStream::pair()?;
    for signal in [SIGHUP, SIGTERM] {
        signal_hook::low_level::pipe::register(signal, end_told.try_clone()?)?;
    }
    signal_hook::low_level::pipe::register(SIGWINCH, resized_told)?;
    for stream in [&end, &resized] {
        stream.set_nonblocking(true)?;
    }
    fail::point("pane.connect")?;
    let mut shim = Shim {
        agent: agent.to_owned(),
        marker_seen,
        keeper: Connection::new(UnixStream::connect(socket)?)?,
        face: Face::open()?,
        end,
        resized,
        run: None,
        keys: None,
        is_leaving: false,
    };
    let (agent, pid) = (shim.agent.clone(), proc::own_pid());
    shim.keeper.send(&KeeperReport::Hello { agent, pid, running: None })?;
    while !(shim.is_leaving && shim.run.is_none()) {
        shim.wait()?;
        shim.take_signals();
        shim.take_orders();
        shim.take_keys();
        shim.advance()?;
    }
    Ok(())
}

impl Shim {
    fn wait(&self) -> io::Result<()> {
        let mut fds: Vec<BorrowedFd<'_>> = vec![self.resized.as_fd()];
        if !self.is_leaving {
            fds.extend([self.end.as_fd(), self.keeper.stream().as_fd(), self.face.as_fd()]);
        }
        let is_behind = self.face.is_behind() || self.keys.as_ref().is_some_and(Keys::is_behind);
        let mut timeout = is_behind.then_some(WRITE_AGAIN);
        if let Some(run) = &self.run {
            run.fds(&mut fds);
            let rest = run.deadline().map(|at| at.saturating_duration_since(clock::monotonic()));
            timeout = timeout.into_iter().chain(rest).min();
        }
        proc::wait_readable(&fds, timeout).map(|_| ())
    }

    fn take_signals(&mut self) {
        if has_come(&self.end) {
            self.leave();
        }
        if has_come(&self.resized)
            && let Some(keys) = &self.keys
        {
            keys.resize(self.face.size());
        }
    }

    /// Ends what runs, and then itself: without keeper or window there is nobody to serve.
    fn leave(&mut self) {
        self.is_leaving = true;
        if let Some(run) = &mut self.run {
            run.stop(STRAY_GRACE, clock::monotonic());
        }
    }

    fn take_orders(&mut self) {
        if self.is_leaving {
            return;
        }
        let mut lines = Vec::new();
        let flow = self.keeper.receive(&mut lines);
        for line in lines {
            match decode(&line) {
                Ok(Order::Run { job }) => self.start(*job),
                Ok(Order::Stop { attempt, grace_ms }) => {
                    if let Some(run) = self.run.as_mut().filter(|run| run.job().attempt == attempt)
                    {
                        run.stop(Duration::from_millis(grace_ms), clock::monotonic());
                    }
                }
                Ok(Order::Quit) => self.leave(),
                Err(error) => self.refuse(None, format!("cannot read an order: {error}")),
            }
        }
        if !matches!(flow, Ok(Flow::Open)) {
            self.leave();
        }
    }

    fn start(&mut self, mut job: Job) {
        let attempt = job.attempt.clone();
        if let Some(run) = &self.run {
            let why = format!("`{}` is under way in its window", run.job().attempt);
            return self.refuse(Some(attempt), why);
        }
        job.env.retain(|(name, _)| !FOREIGN.contains(&name.as_str()));
        let term = std::env::var("TERM").unwrap_or_else(|_| "screen".into());
        job.env.push(("TERM".into(), term));
        self.face.write(FRESH);
        if let Some(notice) = job.terminal.as_ref().and_then(|terminal| terminal.notice.as_ref()) {
            self.face.write(format!("{}\r\n", notice.replace('\n', "\r\n")).as_bytes());
        }
        let begun = Pty::make().and_then(|pty| {
            let keys = Keys::to(pty.master.try_clone()?);
            Ok((Run::start_on(pty, job, self.marker_seen), keys))
        });
        match begun {
            Ok((run, keys)) => {
                let leader = run.leader();
                let has_started = run.has_started();
                (self.run, self.keys) = (Some(run), Some(keys));
                if has_started {
                    self.report(&KeeperReport::Started { attempt, leader });
                }
            }
            Err(error) => {
                self.refuse(Some(attempt), format!("cannot make a terminal: {error}"));
            }
        }
    }

    fn take_keys(&mut self) {
        if self.is_leaving {
            return;
        }
        self.face.write(&[]);
        let mut buffer = [0_u8; READ_BYTES];
        match self.face.read(&mut buffer) {
            // Between two attempts nobody listens.
            Some(count) => {
                if let Some(keys) = &mut self.keys {
                    keys.write(&buffer[..count]);
                }
            }
            None => self.leave(),
        }
    }

    fn advance(&mut self) -> io::Result<()> {
        let Some(run) = &mut self.run else { return Ok(()) };
        if let Some(record) = run.advance(clock::monotonic())? {
            (self.run, self.keys) = (None, None);
            // One that was ended for want of keeper or window is lost, and not reported as ended.
            if !self.is_leaving {
                self.face.write(epitaph(&record).as_bytes());
                self.report(&KeeperReport::Exited { record: Box::new(record) });
            }
        }
        Ok(())
    }

    fn refuse(&mut self, attempt: Option<String>, why: String) {
        self.report(&KeeperReport::Refused { attempt, why });
    }

    fn report(&mut self, report: &KeeperReport) {
        if self.keeper.send(report).is_err() {
            self.leave();
        }
    }
}

/// Empties the pipe; returns whether there was anything in it.
fn has_come(mut pipe: &UnixStream) -> bool {
    let mut buffer = [0_u8; 64];
    let mut has_come = false;
    while pipe.read(&mut buffer).is_ok_and(|count| count > 0) {
        has_come = true;
    }
    has_come
}

/// Returns what is shown below an attempt that is over.
fn epitaph(record: &ExitRecord) -> String {
    let how = match (record.ended_by, record.code, record.signal) {
        (EndedBy::MarkerGrace, ..) => "said that it is done".to_owned(),
        (_, Some(code), _) => format!("exited with status {code}"),
        (_, None, Some(signal)) => format!("was ended by signal {signal}"),
        (_, None, None) => record.reason.clone(),
    };
    let attempt = &record.attempt;
    format!("{TIDY}\r\n[pipeline] {attempt} {how}; this window waits for the agent's next task\r\n")
}
