//! One agent's thread in the monitor: it starts the keeper, orders, and passes on the reports.

use std::collections::VecDeque;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use super::client::{Report, Reporter};
use super::connect::{Connector, Link};
use super::job::{AttemptRef, Job};
use super::probe::{Probe, probe};
use super::protocol::{Flow, KeeperReport, Order, decode, encode, send_line};
use crate::sys::proc::{self, Process};

/// How long a keeper whose connection ended may take to be gone.
const LEAVE_WAIT: Duration = Duration::from_secs(5);

/// What the caller's thread and the agent's share.
pub(super) struct Shared {
    pub(super) wake: OwnedFd,
    pub(super) desk: Mutex<Desk>,
}

/// The orders that wait, and the connection when it stands.
#[derive(Default)]
pub(super) struct Desk {
    asks: VecDeque<Ask>,
    /// The connection with its version, for orders from the caller's own thread; none while there
    /// is none.
    stream: Option<(UnixStream, u32)>,
    /// The attempt whose outcome is awaited.
    expected: Option<AttemptRef>,
    /// The thread is at an order that it took from `asks`.
    is_busy: bool,
    is_leaving: bool,
}

/// An order of the caller.
pub(super) enum Ask {
    Run(Box<Job>),
    Stop { attempt: String, grace: Duration },
    Adopt(AttemptRef),
    Quit,
}

impl Shared {
    /// Hands `ask` straight to the keeper when that listens, else to the agent's thread.
    pub(super) fn ask(&self, ask: Ask) {
        let mut desk = locked(&self.desk);
        // In order: nothing overtakes what still waits.
        let is_free = desk.asks.is_empty() && !desk.is_busy;
        if !(is_free && send_now(&mut desk, &ask)) {
            desk.asks.push_back(ask);
            drop(desk);
            self.wake();
        }
    }

    /// Tells the thread to end once nothing waits.
    pub(super) fn leave(&self) {
        locked(&self.desk).is_leaving = true;
        self.wake();
    }

    fn wake(&self) {
        // Full means that it is readable already.
        let _ = rustix::io::write(&self.wake, &1_u64.to_ne_bytes());
    }
}

/// Locks `mutex`, also after a panic elsewhere.
pub(super) fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // What is behind these locks is whole between any two statements, so a panic spoils nothing.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Sends an order over the standing connection; false when the thread has to do it.
fn send_now(desk: &mut Desk, ask: &Ask) -> bool {
    let Some((stream, version)) = &desk.stream else { return false };
    let (order, expected) = match ask {
        Ask::Run(job) => (Order::Run { job: job.clone() }, Some(job.attempt_ref())),
        Ask::Stop { attempt, grace } => (stop_order(attempt, *grace), None),
        Ask::Adopt(_) | Ask::Quit => return false,
    };
    // One that cannot be written is for the thread to tell of: nothing is wrong with the connection.
    let Ok(line) = encode(&order, *version) else { return false };
    let is_sent = send_line(stream, &line).is_ok();
    if !is_sent {
        desk.stream = None;
    } else if expected.is_some() {
        desk.expected = expected;
    }
    is_sent
}

fn stop_order(attempt: &str, grace: Duration) -> Order {
    let grace_ms = u64::try_from(grace.as_millis()).unwrap_or(u64::MAX);
    Order::Stop { attempt: attempt.to_owned(), grace_ms }
}

/// Returns the report on an order for which there is no keeper.
pub(super) fn unmet(agent: &str, ask: Ask, why: String) -> Report {
    let agent = agent.to_owned();
    match ask {
        Ask::Run(job) => Report::StartFailed { agent, attempt: job.attempt, why },
        Ask::Stop { attempt, .. } => Report::Refused { agent, attempt: Some(attempt), why },
        Ask::Adopt(attempt) => Report::Unreachable { agent, attempt: attempt.attempt, why },
        Ask::Quit => Report::Refused { agent, attempt: None, why },
    }
}

/// An agent's thread.
pub(super) struct Worker {
    connector: Connector,
    report: Reporter,
    shared: Arc<Shared>,
    link: Option<Link>,
    /// A keeper that has the lock and cannot be reached; its end is waited for.
    unreachable: Option<Process>,
    has_quit: bool,
}

impl Worker {
    pub(super) fn new(connector: Connector, report: Reporter, shared: Arc<Shared>) -> Self {
        Self { connector, report, shared, link: None, unreachable: None, has_quit: false }
    }

    /// Serves the agent until told to leave.
    pub(super) fn serve(mut self) {
        loop {
            self.read();
            let (ask, is_leaving) = {
                let mut desk = locked(&self.shared.desk);
                let ask = desk.asks.pop_front();
                desk.is_busy = ask.is_some();
                (ask, desk.is_leaving)
            };
            match ask {
                Some(ask) => self.carry_out(ask),
                None if is_leaving => return,
                None => self.wait(),
            }
        }
    }

    fn wait(&self) {
        let mut fds = vec![self.shared.wake.as_fd()];
        fds.extend(self.link.as_ref().map(|link| link.connection.stream().as_fd()));
        fds.extend(self.unreachable.as_ref().map(AsFd::as_fd));
        // A failing poll shows at the next read.
        let _ = proc::wait_readable(&fds, None);
        let mut count = [0_u8; 8];
        let _ = rustix::io::read(&self.shared.wake, &mut count);
    }

    fn carry_out(&mut self, ask: Ask) {
        match ask {
            Ask::Run(job) => match self.connect_or_start() {
                Ok(()) => self.order(job),
                Err(error) => self.tell(unmet(self.agent(), Ask::Run(job), error.to_string())),
            },
            Ask::Stop { attempt, grace } => match self.connect_if_alive() {
                Ok(true) => self.send(&stop_order(&attempt, grace)),
                Ok(false) => self.tell(unmet(
                    self.agent(),
                    Ask::Stop { attempt, grace },
                    "its keeper does not run".into(),
                )),
                Err(error) => {
                    let ask = Ask::Stop { attempt, grace };
                    self.tell(unmet(self.agent(), ask, error.to_string()));
                }
            },
            Ask::Adopt(attempt) => self.adopt(attempt),
            Ask::Quit => {
                // No keeper, or one that does not answer: there is nobody to leave.
                if self.connect_if_alive().unwrap_or(false) {
                    self.has_quit = true;
                    self.send(&Order::Quit);
                    if self.link.as_ref().is_some_and(|link| link.running.is_none()) {
                        // What is asked next needs another keeper, and waits until this one is gone.
                        self.lose();
                    }
                }
            }
        }
    }

    /// Takes over an attempt: that it runs is told, and its keeper reports the end; or the disk does
    /// at once.
    fn adopt(&mut self, attempt: AttemptRef) {
        match self.connect_if_alive() {
            Ok(_) => {
                let running = self.link.as_ref().and_then(|link| link.running.as_ref());
                if running == Some(&attempt.attempt) {
                    let (agent, name) = (self.agent().to_owned(), attempt.attempt.clone());
                    locked(&self.shared.desk).expected = Some(attempt);
                    // Its first monitor may have died before it was told.
                    self.tell(Report::Started { agent, attempt: name });
                } else {
                    self.settle(&attempt);
                }
            }
            Err(error) => {
                self.unreachable = self.connector.process();
                locked(&self.shared.desk).expected = Some(attempt.clone());
                self.tell(unmet(self.agent(), Ask::Adopt(attempt), error.to_string()));
            }
        }
    }

    fn connect_or_start(&mut self) -> io::Result<()> {
        if self.link.is_none() {
            let link = self.connector.connect_or_start()?;
            self.take(link)?;
        }
        Ok(())
    }

    /// Returns whether there is a connection now.
    fn connect_if_alive(&mut self) -> io::Result<bool> {
        if self.link.is_none()
            && let Some(link) = self.connector.connect_if_alive()?
        {
            self.take(link)?;
        }
        Ok(self.link.is_some())
    }

    fn take(&mut self, mut link: Link) -> io::Result<()> {
        let stream = link.connection.stream().try_clone()?;
        let version = link.connection.version();
        let early = std::mem::take(&mut link.early);
        self.tell(Report::Connected {
            agent: self.agent().to_owned(),
            pid: link.pid,
            running: link.running.clone(),
        });
        self.link = Some(link);
        self.unreachable = None;
        self.has_quit = false;
        locked(&self.shared.desk).stream = Some((stream, version));
        self.pass_on_lines(early);
        Ok(())
    }

    /// Orders a job. One that cannot be written, as with a path that is not UTF-8, starts nothing, and
    /// never would: the keeper is not to blame.
    fn order(&mut self, job: Box<Job>) {
        let (expected, order) = (job.attempt_ref(), Order::Run { job });
        let Some(link) = &self.link else { return };
        let line = match encode(&order, link.connection.version()) {
            Ok(line) => line,
            Err(error) => {
                let (agent, attempt) = (self.agent().to_owned(), expected.attempt);
                let why = format!("cannot write the order to its keeper: {error}");
                return self.tell(Report::StartFailed { agent, attempt, why });
            }
        };
        locked(&self.shared.desk).expected = Some(expected);
        if send_line(link.connection.stream(), &line).is_err() {
            self.lose();
        }
    }

    fn send(&mut self, order: &Order) {
        if let Some(link) = &mut self.link
            && link.connection.send(order).is_err()
        {
            self.lose();
        }
    }

    /// Passes on what has arrived.
    fn read(&mut self) {
        if self.unreachable.as_ref().is_some_and(Process::has_ended) {
            self.unreachable = None;
            self.settle_expected();
        }
        let Some(link) = &mut self.link else { return };
        let mut lines = Vec::new();
        let flow = link.connection.receive(&mut lines);
        self.pass_on_lines(lines);
        if !matches!(flow, Ok(Flow::Open)) {
            self.lose();
        }
    }

    fn pass_on_lines(&mut self, lines: Vec<Vec<u8>>) {
        for line in lines {
            match decode::<KeeperReport>(&line) {
                Ok(report) => self.pass_on(report),
                Err(error) => self.tell(Report::Refused {
                    agent: self.agent().to_owned(),
                    attempt: None,
                    why: format!("cannot read the keeper's report: {error}"),
                }),
            }
        }
    }

    fn pass_on(&mut self, report: KeeperReport) {
        let agent = self.agent().to_owned();
        let report = match report {
            KeeperReport::Hello { pid, running, .. } => Report::Connected { agent, pid, running },
            KeeperReport::Started { attempt, .. } => {
                self.note_running(Some(attempt.clone()));
                Report::Started { agent, attempt }
            }
            KeeperReport::Exited { record } => {
                self.note_running(None);
                self.forget(&record.attempt);
                Report::Exited { agent, record }
            }
            KeeperReport::Refused { attempt, why } => {
                // Told once: a keeper that leaves upon it would else be told as lost before it began,
                // which is a reason to order the attempt again.
                attempt.iter().for_each(|attempt| self.forget(attempt));
                Report::Refused { agent, attempt, why }
            }
        };
        self.tell(report);
    }

    fn note_running(&mut self, attempt: Option<String>) {
        if let Some(link) = &mut self.link {
            link.running = attempt;
        }
    }

    fn forget(&self, attempt: &str) {
        let mut desk = locked(&self.shared.desk);
        if desk.expected.as_ref().is_some_and(|expected| expected.attempt == attempt) {
            desk.expected = None;
        }
    }

    /// The connection has ended: the keeper left, died, or has another monitor.
    fn lose(&mut self) {
        locked(&self.shared.desk).stream = None;
        let Some(link) = self.link.take() else { return };
        if link.has_ended_within(LEAVE_WAIT) {
            self.settle_expected();
        } else {
            let expected = locked(&self.shared.desk).expected.clone();
            let attempt = expected.map(|expected| expected.attempt);
            self.tell(Report::Superseded { agent: self.agent().to_owned(), attempt });
        }
    }

    /// No keeper will report on the awaited attempt any more.
    fn settle_expected(&self) {
        let expected = locked(&self.shared.desk).expected.take();
        match expected {
            Some(attempt) => self.settle(&attempt),
            None if self.has_quit => {}
            None => {
                let agent = self.agent().to_owned();
                self.tell(Report::KeeperLost { agent, attempt: None, found: None });
            }
        }
    }

    /// Reports what the disk and /proc say of an attempt that no living keeper has.
    fn settle(&self, attempt: &AttemptRef) {
        let agent = self.agent().to_owned();
        self.tell(match probe(&self.connector.keeper_dir, attempt, |_| false) {
            Ok(Probe::Exited(record)) => Report::Exited { agent, record },
            found => Report::KeeperLost {
                agent,
                attempt: Some(attempt.attempt.clone()),
                found: found.ok(),
            },
        });
    }

    fn agent(&self) -> &str {
        &self.connector.agent
    }

    fn tell(&self, report: Report) {
        (self.report)(report);
    }
}
