//! What comes next for agents, so that their worktrees can be made ready meanwhile.
//!
//! A guess that nothing depends on: what is really picked is decided when it can start.

use std::cmp::Reverse;

use super::demand::Demand;
use super::load::Load;
use super::parallel::Guesses;
use super::pool::{Pool, may_take};
use crate::machine::agent::Agent;
use crate::machine::attempt::{Attempt, AttemptPhase, Class};
use crate::machine::gate;
use crate::machine::id::{AgentName, Oid, StageName, TaskId};
use crate::machine::mode::Orchestration;
use crate::machine::purse;
use crate::machine::stage;
use crate::machine::state::State;
use crate::machine::task::Task;
use crate::machine::turn;

/// A worktree slot that may be made ready: nothing runs in it, and its agent gets it next.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ahead {
    pub agent: AgentName,
    pub slot: u32,
    /// What the agent would get.
    pub task: TaskId,
    /// Where that would start, by what is known now.
    pub at: Oid,
    /// The task is still being worked on, and its branch will have moved by then.
    pub is_moving: bool,
}

/// Returns what agents would get next, one slot of each, those first that end first; no task twice,
/// and no more than `Settings::prefetch` says. Cost: live attempts.
#[must_use]
pub fn ahead(state: &State) -> Vec<Ahead> {
    let most = (state.settings.prefetch() * state.agents.len() as f64) as usize;
    let is_due = state.orchestration != Orchestration::Sequential
        && turn::may_launch(state)
        && purse::attempts_left(state) > 0;
    if most == 0 || !is_due {
        return Vec::new();
    }
    let mut live: Vec<&Attempt> = state.attempts.values().filter(|it| it.is_work()).collect();
    live.sort_by_key(|attempt| (Reverse(nearness(attempt.phase)), attempt.assigned_at));
    let ended = live.iter().take(most).map(|attempt| &attempt.id).collect();
    let guesses = Guesses::of(state, Load::without(state, &ended));
    let mut guess = Guess { state, guesses, idle: Pool::of(state, &[]), found: Vec::new() };
    for attempt in live {
        guess.end(attempt);
        if guess.found.len() >= most {
            break;
        }
    }
    guess.found
}

/// Returns how near to its end an attempt in the phase is.
const fn nearness(phase: AttemptPhase) -> u8 {
    match phase {
        AttemptPhase::Preparing | AttemptPhase::Starting => 0,
        AttemptPhase::Running => 1,
        AttemptPhase::Saving => 2,
        AttemptPhase::Checking => 3,
        AttemptPhase::Advancing => 4,
    }
}

/// The near future: attempts end one after another, each well.
struct Guess<'a> {
    state: &'a State,
    guesses: Guesses<'a>,
    /// Who has nothing to do now and will have nothing.
    idle: Pool<'a>,
    found: Vec<Ahead>,
}

impl<'a> Guess<'a> {
    /// Takes the attempt for ended: its task goes on to the next stage, its agent to another task or
    /// with its own.
    fn end(&mut self, attempt: &'a Attempt) {
        let mut own = self.goes_on(attempt);
        if let Some((task, stage, demand)) = &own
            && let Some(agent) = self.idle.best(task, stage, demand)
        {
            self.idle.take(agent);
            self.note(agent, agent.slot, task, Some(attempt));
            own = None;
        }
        let Some(agent) = self.state.agents.get(&attempt.agent).filter(|it| it.may_work()) else {
            return;
        };
        own = own.filter(|(_, stage, demand)| may_take(self.state, agent, stage, demand));
        // The stage furthest along goes first.
        let stages = &self.state.settings;
        let place =
            own.as_ref().and_then(|(_, stage, _)| Some(stages.stage(stage.as_str())?.0 + 1));
        let slot = agent.slot_after();
        if let Some(next) = self.guesses.pick(agent, place.unwrap_or(0)) {
            let task = &self.state.tasks[&next.task];
            self.note(agent, slot, task, None);
        } else if let Some((task, ..)) = own {
            self.note(agent, slot, task, Some(attempt));
        }
    }

    /// Returns where the attempt's task goes on when it ends well.
    fn goes_on(&self, attempt: &Attempt) -> Option<(&'a Task, StageName, Demand)> {
        let task = self.state.tasks.get(attempt.task.as_ref()?)?;
        let is_good = attempt.verdict.as_ref().is_none_or(|it| it.class == Class::Completed);
        let may_go_on = is_good && !task.is_held && gate::may_act(self.state, &task.id);
        let next = stage::after(&self.state.settings, task, attempt.stage()?);
        let next = next.filter(|_| may_go_on)?;
        let demand = Demand::of(&self.state.settings, task, &next);
        Some((task, next, demand))
    }

    /// Notes what the agent gets; `of` is the attempt that the task comes from.
    fn note(&mut self, agent: &Agent, slot: u32, task: &Task, of: Option<&Attempt>) {
        let saved = of.and_then(|attempt| attempt.saved.as_ref());
        // A branch with nothing of its own is moved to what has landed.
        let tip = task.tip.as_ref().filter(|_| !task.changed.is_empty());
        let known = saved.or(task.resume_from.as_ref()).or(tip);
        let Some(at) = known.or(self.state.base.landed.as_ref()) else { return };
        self.found.push(Ahead {
            agent: agent.name.clone(),
            slot,
            task: task.id.clone(),
            at: at.clone(),
            is_moving: of.is_some() && saved.is_none(),
        });
    }
}
