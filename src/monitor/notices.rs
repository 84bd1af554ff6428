//! Tells a program of the user's what happened, beside the loop: what it does, and whether it works,
//! changes nothing of the run.
//!
//! A thread runs it for one event after the other, each within a time limit, and ends whatever it
//! left. What is to be told waits in a queue with an end; a monitor that is killed tells no more.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, channel, sync_channel};
use std::thread;
use std::time::Duration;

use super::program::{Program, ended};
use crate::agent::tree::{NONCE_NAME, end_carriers};
use crate::machine::State;
use crate::machine::attempt::AttemptKind;
use crate::machine::change::{Change, ProjectChange};
use crate::machine::time::Time;
use crate::observe::notice::{Moment, Notice, finished, notices};
use crate::sys::child::{Heard, Stop};
use crate::sys::{env, fail};

/// How long it may take for one event.
const LIMIT: Duration = Duration::from_secs(10);
/// How long what it left is given to end.
const GRACE: Duration = Duration::from_secs(1);
/// How long a monitor that ends waits for what is still to be told.
const CLOSE_WAIT: Duration = Duration::from_secs(5);
/// Events that wait to be told; further ones are dropped, and counted.
const QUEUE_MAX: usize = 64;
/// Kept of what the program says.
const SAID_BYTES_MAX: usize = 4096;

/// The program that is told, of one monitor.
#[derive(Debug)]
pub struct Notices {
    root: PathBuf,
    program_dir: PathBuf,
    teller: Option<Teller>,
    /// Something was at work since it was last told that all is done.
    has_worked: bool,
    /// Events for which there was no room, since the last warning.
    dropped: u64,
}

#[derive(Debug)]
struct Teller {
    orders: SyncSender<Order>,
    /// What went wrong; ends with the thread.
    faults: Receiver<String>,
    stop: Arc<Stop>,
}

#[derive(Debug)]
struct Order {
    program: Program,
    nonce: String,
    notice: Notice,
}

impl Notices {
    /// Makes it for the project at `root`; `program_dir` comes first in the program's `PATH`.
    #[must_use]
    pub const fn new(root: PathBuf, program_dir: PathBuf) -> Self {
        Self { root, program_dir, teller: None, has_worked: false, dropped: 0 }
    }

    /// Tells what the monitor decided, with the state after it; does not wait. Returns what has gone
    /// wrong since.
    pub fn tell(&mut self, changes: &[Change], state: &State, seq: u64, at: Time) -> Vec<String> {
        self.has_worked |= is_at_work(state);
        if !state.settings.notify.is_empty() {
            let project = self.root.to_string_lossy().into_owned();
            let moment = Moment { seq, at, project: &project };
            let mut told = notices(changes, state, moment);
            let why = changes.iter().find_map(why_ended);
            let is_idle = state.is_idle();
            if self.has_worked && (is_idle || why.is_some() && state.attempts.is_empty()) {
                self.has_worked = false;
                let why = why.filter(|_| !is_idle);
                told.push(finished(state, why, moment));
            }
            for notice in told {
                self.send(state, notice);
            }
        }
        self.faults()
    }

    /// Returns what has gone wrong since the last call.
    pub fn faults(&mut self) -> Vec<String> {
        let mut faults: Vec<String> =
            self.teller.iter().flat_map(|teller| teller.faults.try_iter()).collect();
        match std::mem::take(&mut self.dropped) {
            0 => {}
            count => faults.push(format!(
                "`notify.command` is slower than what happens: {count} events were not told"
            )),
        }
        faults
    }

    /// Waits until all is told, no longer than [`CLOSE_WAIT`]; returns what has gone wrong.
    pub fn close(&mut self) -> Vec<String> {
        let mut faults = self.faults();
        let Some(Teller { orders, faults: receiver, stop }) = self.teller.take() else {
            return faults;
        };
        drop(orders);
        let until = crate::sys::clock::monotonic() + CLOSE_WAIT;
        loop {
            let rest = until.saturating_duration_since(crate::sys::clock::monotonic());
            match receiver.recv_timeout(rest) {
                Ok(fault) => faults.push(fault),
                Err(RecvTimeoutError::Disconnected) => return faults,
                Err(RecvTimeoutError::Timeout) => break,
            }
        }
        stop.raise();
        // It ends what runs, and tells how many were not told.
        faults.extend(receiver.iter());
        faults
    }

    fn send(&mut self, state: &State, notice: Notice) {
        let order = match self.order(state, notice) {
            Ok(order) => order,
            Err(_) => return self.dropped += 1,
        };
        if self.teller.is_none() {
            self.teller = Teller::start().ok();
        }
        // Without a thread, or with one that is behind, it is not told.
        let teller = self.teller.as_ref();
        let is_sent = teller.is_some_and(|teller| teller.orders.try_send(order).is_ok());
        self.dropped += u64::from(!is_sent);
    }

    fn order(&self, state: &State, notice: Notice) -> std::io::Result<Order> {
        let nonce = env::random_values(1)?.iter().map(|value| format!("{value:032x}")).collect();
        let mut extra = vec![
            ("PIPELINE_EVENT".to_owned(), notice.event.word().to_owned()),
            (NONCE_NAME.to_owned(), nonce),
        ];
        extra
            .extend(notice.task.as_ref().map(|id| ("PIPELINE_TASK_ID".to_owned(), id.to_string())));
        let nonce = extra[1].1.clone();
        let command = &state.settings.notify;
        let program = Program::of(command, &self.root, &self.program_dir, &extra);
        Ok(Order { program, nonce, notice })
    }
}

impl Teller {
    fn start() -> std::io::Result<Self> {
        let (orders, queue) = sync_channel(QUEUE_MAX);
        let (sender, faults) = channel();
        let stop = Arc::new(Stop::new()?);
        let stopped = Arc::clone(&stop);
        let tell = move |fault| {
            // The monitor has gone on without: nobody is to be told.
            let _ = sender.send(fault);
        };
        let run = move || tell_all(&queue, &stopped, tell);
        thread::Builder::new().name("notify".into()).spawn(run)?;
        Ok(Self { orders, faults, stop })
    }
}

/// Tells one after the other; what fails in the same way again is said once.
fn tell_all(queue: &Receiver<Order>, stop: &Stop, tell: impl Fn(String)) {
    let mut last = None;
    let mut lost = 0;
    for order in queue {
        if stop.is_raised() {
            lost += 1;
            continue;
        }
        let fault = order.run(stop);
        lost += u64::from(fault.is_some() && stop.is_raised());
        if let Some(fault) = fault.as_ref().filter(|fault| last.as_ref() != Some(*fault)) {
            tell(fault.clone());
        }
        last = fault;
    }
    if lost > 0 {
        let events =
            if lost == 1 { "1 event was".to_owned() } else { format!("{lost} events were") };
        tell(format!("the monitor ended: {events} not told to `notify.command`"));
    }
}

impl Order {
    /// Runs the program and ends what it left; returns what went wrong.
    fn run(&self, stop: &Stop) -> Option<String> {
        let shown = self.program.shown();
        let heard = fail::point("notify.run")
            .and_then(|()| self.program.run(&self.notice.text, LIMIT, SAID_BYTES_MAX, Some(stop)));
        let left = end_carriers(&self.nonce, GRACE).err();
        let goes_on = "the run goes on; see `[notify] command`";
        match heard {
            Ok(Heard::Ended(output)) if output.status.success() => {
                left.map(|error| format!("cannot look for what `{shown}` left: {error}"))
            }
            Ok(_) | Err(_) if stop.is_raised() => {
                Some(format!("the monitor ended before `{shown}` did: it was ended"))
            }
            Err(error) => Some(format!("cannot run `{shown}`: {error}; {goes_on}")),
            Ok(Heard::Late(_)) => {
                let limit = LIMIT.as_secs();
                Some(format!("`{shown}` took longer than {limit} s and was ended; {goes_on}"))
            }
            Ok(Heard::Ended(output)) => Some(format!("`{shown}` {}; {goes_on}", ended(&output))),
        }
    }
}

/// Returns true while the work of a task is under way, also what another monitor began.
fn is_at_work(state: &State) -> bool {
    let is_of_task = |kind: &AttemptKind| match kind {
        AttemptKind::Work { .. }
        | AttemptKind::StageCheck { .. }
        | AttemptKind::LandingCheck { .. } => true,
        AttemptKind::BaseCheck { .. } => false,
    };
    state.is_landing() || state.attempts.values().any(|attempt| is_of_task(&attempt.kind))
}

fn why_ended(change: &Change) -> Option<&str> {
    match change {
        Change::Project(ProjectChange::MonitorEnded { why, .. }) => Some(why),
        Change::Project(_) | Change::Task(..) | Change::Attempt(..) | Change::Lane(_) => None,
    }
}
