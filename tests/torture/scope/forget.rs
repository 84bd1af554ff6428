//! What nothing depends on any more is dropped, so that states from which the same can happen are
//! one state.

use std::sync::Arc;

use pipeline::machine::State;
use pipeline::machine::attempt::AttemptPhase as Phase;
use pipeline::machine::id::{AttemptId, TaskId};
use pipeline::machine::purse::Run;
use pipeline::machine::state::Metrics;

use super::node::{Monitor, Node};
use super::world::{Answer, Op, Stand};

impl Node {
    /// Drops it.
    pub fn forget(&mut self) {
        self.forget_figures();
        let state = &self.state;
        for monitor in [&mut self.monitor, &mut self.fenced].into_iter().flatten() {
            monitor.inbox.retain(|answer| !answer.is_dead(state));
            monitor.ops.retain(|op| !op.is_dead(state));
            monitor.inherited.retain(|id| is_in(state, id, &[Phase::Preparing, Phase::Starting]));
        }
        // With nothing left to do it is gone.
        self.fenced = self.fenced.take().filter(|fenced| !fenced.ops.is_empty());
        let monitors = || [&self.monitor, &self.fenced].into_iter().flatten();
        let is_acted_on = |id: &AttemptId| {
            let is_op = |monitor: &Monitor| monitor.ops.iter().any(|op| op.attempt() == Some(id));
            monitors().any(is_op)
        };
        let is_asked = |id: &AttemptId| is_in(state, id, &UNENDED) || is_acted_on(id);
        self.world.jobs.retain(|id, job| job.stand == Stand::Running || is_asked(id));
        let resumed: Vec<_> =
            state.tasks.values().filter_map(|task| task.resume_from.as_ref()).collect();
        let is_live = |id: &AttemptId| state.attempts.contains_key(id) || is_acted_on(id);
        self.world.pins.retain(|id, commit| is_live(id) || resumed.contains(&&*commit));
        let jobs = &self.world.jobs;
        let is_running =
            |id: &AttemptId| jobs.get(id).is_some_and(|job| job.stand == Stand::Running);
        for monitor in [&mut self.monitor, &mut self.fenced].into_iter().flatten() {
            monitor.attends.retain(is_running);
        }
    }

    fn forget_figures(&mut self) {
        let state = Arc::make_mut(&mut self.state);
        for task in state.tasks.values_mut() {
            // What is gone on from is looked up there.
            let continued = task.continues.clone();
            task.history.retain(|old| continued.as_ref() == Some(&old.id));
            task.evidence.clear();
            task.notes.clear();
        }
        let least = state.agents.values().map(|agent| agent.completed).min().unwrap_or(0);
        for agent in state.agents.values_mut() {
            // Only the order counts.
            agent.completed -= least;
            agent.failed = 0;
        }
        state.metrics = Metrics::default();
        state.monitor.attempts = state.monitor.attempts.min(1);
        state.monitor.launches = 0;
        state.run = Run::default();
    }
}

/// Phases in which it counts how an attempt's process stands.
const UNENDED: [Phase; 3] = [Phase::Preparing, Phase::Starting, Phase::Running];

fn is_in(state: &State, id: &AttemptId, phases: &[Phase]) -> bool {
    state.attempts.get(id).is_some_and(|attempt| phases.contains(&attempt.phase))
}

impl Answer {
    /// Returns true when the machine takes it for nothing from now on: attempts never go back, and
    /// neither their ids nor the numbers of landings come again.
    fn is_dead(&self, state: &State) -> bool {
        let is_over = |task: &TaskId, number: u32| {
            let landing = state.landing.as_ref();
            landing.is_none_or(|landing| landing.task != *task || landing.number != number)
        };
        match self {
            Self::Prepared { attempt, .. } => !is_in(state, attempt, &[Phase::Preparing]),
            Self::Started { attempt } => {
                !is_in(state, attempt, &[Phase::Preparing, Phase::Starting])
            }
            Self::Exited { attempt, .. } | Self::Lost { attempt } => {
                !is_in(state, attempt, &UNENDED)
            }
            Self::Saved { attempt, .. } => !is_in(
                state,
                attempt,
                &[Phase::Preparing, Phase::Starting, Phase::Running, Phase::Saving],
            ),
            Self::Advanced { attempt } | Self::Faulted { attempt } => {
                !state.attempts.contains_key(attempt)
            }
            Self::Merged { task, number, .. }
            | Self::AlreadyLanded { task, number, .. }
            | Self::Conflicts { task, number, .. }
            | Self::Landed { task, number, .. }
            | Self::Raced { task, number, .. } => is_over(task, *number),
            Self::Seen { .. }
            | Self::Taken { .. }
            | Self::Followed { .. }
            | Self::FollowRefused { .. }
            | Self::LaneFaulted => false,
        }
    }
}

impl Op {
    /// Returns true when it changes nothing in the world, and its answer is dead.
    fn is_dead(&self, state: &State) -> bool {
        match self {
            Self::FindAgain { attempt, is_starting: false, .. } => !is_in(state, attempt, &UNENDED),
            Self::FindAgain { .. }
            | Self::Prepare { .. }
            | Self::Start { .. }
            | Self::Stop { .. }
            | Self::Save { .. }
            | Self::Advance { .. }
            | Self::TakeBase { .. }
            | Self::Merge { .. }
            | Self::Land { .. }
            | Self::Follow { .. } => false,
        }
    }
}
