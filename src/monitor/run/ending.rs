//! When a monitor ends, and what becomes of what runs then.

use signal_hook::consts::{SIGHUP, SIGINT};

use super::{End, Monitor, RunError, Until};
use crate::machine::event::StopKind;
use crate::machine::settings::OnExit;
use crate::machine::time::Time;
use crate::machine::{Command, EventBody, State};
use crate::sys::clock::Clock;

/// How long a first SIGINT waits for a second one.
const SECOND_SIGNAL_MS: u64 = 5_000;
/// How long a monitor that leaves waits for git calls under way.
const LEAVE_WAIT_MS: u64 = 5_000;

impl Monitor {
    /// Returns when to look again whether it is time to end. A moment that the last look has seen
    /// pass wakes nobody any more: what is under way ends first.
    pub(super) fn end_due_at(&self) -> Option<Time> {
        let leave = self
            .leave_at
            .map(|at| if at <= self.looked_at { at.plus_ms(LEAVE_WAIT_MS) } else { at });
        let last = self.last_moment().filter(|at| *at > self.looked_at);
        leave.into_iter().chain(last).min()
    }

    pub(super) fn last_moment(&self) -> Option<Time> {
        match self.until {
            Until::Idle { within_ms: Some(within) } => Some(self.started_at.plus_ms(within)),
            Until::Moment(at) => Some(at),
            Until::Idle { within_ms: None } | Until::Told | Until::Once => None,
        }
    }

    /// Returns the end of a monitor whose last moment has come.
    pub(super) fn time_up(&self, now: Time) -> Option<End> {
        let is_up = self.last_moment().is_some_and(|at| now >= at);
        is_up.then_some(match self.until {
            Until::Idle { .. } => End::TimedOut,
            Until::Moment(_) | Until::Told | Until::Once if self.is_interrupted => End::Interrupted,
            Until::Moment(_) | Until::Told | Until::Once => End::Done,
        })
    }

    pub(super) fn on_signal(&mut self, signal: i32, bodies: &mut Vec<EventBody>) {
        if signal == SIGHUP {
            self.cycle.world.progress.lose_terminal();
            return;
        }
        let state = self.cycle.ledger.state();
        let (has_running, on_exit) = (!state.attempts.is_empty(), on_exit(state));
        let running = running(state);
        let now = self.cycle.clock.now();
        let is_first = self.leave_at.is_none() && !self.is_interrupted;
        let progress = &mut self.cycle.world.progress;
        self.is_interrupted |= signal == SIGINT;
        let kind = match (is_first, signal, on_exit) {
            (false, SIGINT, _) | (true, _, OnExit::Kill) => StopKind::Now,
            (true, _, OnExit::Drain) => StopKind::Drain,
            (true, _, OnExit::Leave) => StopKind::Leave,
            (false, _, _) => return,
        };
        match kind {
            StopKind::Leave if has_running && signal == SIGINT => {
                progress.warn(&format!(
                    "nothing new starts, but {running} will go on; Ctrl-C again within 5 s ends them"
                ));
                self.leave_at = Some(now.plus_ms(SECOND_SIGNAL_MS));
            }
            StopKind::Leave => self.leave_at = Some(now),
            StopKind::Now => {
                progress.warn(&ending(&running));
                self.leave_at = None;
            }
            StopKind::Drain => progress.warn(&format!("waiting for {running}")),
        }
        bodies.push(EventBody::Command(Command::Stop { kind }));
    }

    /// Ends what runs, or waits for it, once time is up, where the settings say so.
    pub(super) fn stop_in_time(&mut self) -> Option<EventBody> {
        let (now, state) = (self.cycle.clock.now(), self.cycle.ledger.state());
        if self.time_up(now).is_none()
            || self.is_time_up
            || state.attempts.is_empty()
            || state.stopping.is_some()
        {
            return None;
        }
        let (kind, words) = match on_exit(state) {
            OnExit::Leave => return None,
            OnExit::Drain => (StopKind::Drain, format!("waiting for {}", running(state))),
            OnExit::Kill => (StopKind::Now, ending(&running(state))),
        };
        self.is_time_up = true;
        self.cycle.world.progress.warn(&format!("time is up: {words}"));
        Some(EventBody::Command(Command::Stop { kind }))
    }

    pub(super) fn end(&mut self) -> Result<Option<End>, RunError> {
        let now = self.cycle.clock.now();
        self.looked_at = now;
        let state = self.cycle.ledger.state();
        let is_performing = self.cycle.is_performing() || self.cycle.world.outside.is_owed();
        let done = match self.time_up(now).filter(|_| self.is_time_up) {
            _ if self.is_interrupted => End::Interrupted,
            Some(end) => end,
            None => End::Done,
        };
        if let Some(at) = self.leave_at {
            let is_over = !is_performing || now >= at.plus_ms(LEAVE_WAIT_MS);
            return Ok((now >= at && is_over).then_some(done));
        }
        match state.stopping {
            Some(StopKind::Leave) => {
                self.leave_at = Some(now);
                return Ok((!is_performing).then_some(done));
            }
            Some(StopKind::Drain | StopKind::Now) => {
                let is_over = state.attempts.is_empty() && !state.is_landing();
                return Ok((is_over && !is_performing).then_some(done));
            }
            None => {}
        }
        if self.has_stop_order {
            return Ok(Some(done));
        }
        let is_unused = state.attempts.is_empty() && state.monitor.attempts == 0;
        // A base that moved on meanwhile is judged anew.
        let is_newest = |commit| state.base.tip.as_ref() == Some(commit);
        if let Some((commit, output)) = state.base.red.as_ref().filter(|_| is_unused)
            && is_newest(commit)
            && !self.allows_red_base
        {
            return Ok(Some(End::RedBase { output: output.clone() }));
        }
        if let Some(end) = self.time_up(now) {
            self.leave_at = Some(now);
            return Ok(Some(end));
        }
        let is_quiet = !is_performing && state.is_idle();
        match self.until {
            Until::Once => Ok((!is_performing && self.has_looked).then_some(done)),
            Until::Idle { .. } if is_quiet => {
                let counts = state.index.counts;
                let is_all =
                    counts.unassigned + counts.ready + counts.landing + counts.blocked == 0;
                Ok(Some(if is_all { done } else { End::PersonNeeded }))
            }
            Until::Idle { .. } | Until::Told | Until::Moment(_) => Ok(None),
        }
    }
}

/// Says how many agents run.
fn running(state: &State) -> String {
    match state.attempts.len() {
        1 => "1 agent".to_owned(),
        count => format!("{count} agents"),
    }
}

fn ending(running: &str) -> String {
    format!("ending {running}; work is saved")
}

fn on_exit(state: &State) -> OnExit {
    let in_ci = std::env::var_os("CI").is_some();
    state.settings.monitor.on_exit.unwrap_or(if in_ci { OnExit::Kill } else { OnExit::Leave })
}
