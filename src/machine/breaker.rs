//! An agent that fails again and again gets nothing for a while, and others do its work.
//!
//! It pauses only where there are such others: whether an agent or the tasks are at fault is seen by
//! comparison, and where nobody else is there its pause would hold up the work and save nothing. But
//! where its own program could not be started it pauses at once: each further task would be blocked.

use super::agent::Agent;
use super::attempt::{Attempt, Class};
use super::id::TaskId;
use super::schedule::pool::Takers;
use super::settings::AgentCommand;
use super::state::State;
use super::time::Time;

/// Failures in a row that open the breaker: two may be chance, and a task has three attempts.
const FAILURES_MAX: u32 = 3;
/// The first pause in milliseconds: as long as a program takes to be started anew, or a network to
/// come back.
const PAUSE_MS_FIRST: u64 = 60_000;
/// The longest pause: what was mended in the night is found out within half an hour.
const PAUSE_MS_MAX: u64 = 30 * 60_000;

/// How an agent did of late. The default is that of one that does well.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Breaker {
    /// Failures in a row that speak against it.
    pub failures: u32,
    /// The tasks whose own failures are among them: another one of theirs says nothing new.
    pub tasks: Vec<TaskId>,
    /// Pauses since it last did well; its next attempt is a trial then.
    pub pauses: u32,
    /// It gets nothing before this moment.
    pub until: Option<Time>,
}

impl Breaker {
    /// Returns true when its next attempt decides whether it goes on.
    #[must_use]
    pub const fn is_on_trial(&self) -> bool {
        self.pauses > 0
    }

    /// Returns how long its last pause is or was, in milliseconds.
    #[must_use]
    pub fn pause_ms(&self) -> u64 {
        let doubled = self.pauses.saturating_sub(1).min(16);
        (PAUSE_MS_FIRST << doubled).min(PAUSE_MS_MAX)
    }
}

/// What the end of an attempt says of the agent.
enum Mark {
    Good,
    /// Something about the agent or the place it works in.
    Bad,
    /// Its program is not there, or cannot be executed.
    NoProgram,
    /// The task's own failure: many of these speak against the agent only together.
    BadTask,
    Nothing,
}

/// Returns the agent's breaker after an attempt, when that changes it.
pub(super) fn after(state: &State, attempt: &Attempt, class: Class, at: Time) -> Option<Breaker> {
    let agent = state.agents.get(&attempt.agent)?;
    let old = &agent.breaker;
    let is_new = |task: &&TaskId| old.is_on_trial() || !old.tasks.contains(*task);
    let mut new = old.clone();
    let mark = mark(state, agent, attempt, class);
    let has_program = !matches!(mark, Mark::NoProgram);
    match mark {
        Mark::Good => new = Breaker::default(),
        Mark::Nothing => {}
        Mark::Bad | Mark::NoProgram => new.failures += 1,
        Mark::BadTask => {
            if let Some(task) = attempt.task.as_ref().filter(is_new) {
                new.failures += 1;
                new.tasks.push(task.clone());
            }
        }
    }
    let is_over = (new.failures >= FAILURES_MAX || new.is_on_trial())
        && new.failures > old.failures
        && has_others(state, agent, attempt);
    if is_over || !has_program {
        new.pauses += 1;
        new.until = Some(at.plus_ms(new.pause_ms()));
        new.tasks.clear();
    }
    (new != *old).then_some(new)
}

/// Returns true when another agent is there that may take what failed, and did not fail of late.
fn has_others(state: &State, agent: &Agent, attempt: &Attempt) -> bool {
    let Some(stage) = attempt.stage() else { return false };
    let takers = Takers::of(state, stage, &attempt.demand);
    state.agents.values().any(|other| {
        other.name != agent.name
            && state.may_work(other)
            && takers.has(other)
            && state.cools_until(other).is_none()
            && !other.breaker.is_on_trial()
    })
}

fn mark(state: &State, agent: &Agent, attempt: &Attempt, class: Class) -> Mark {
    let command = state.group_of(agent).map(|group| &group.command);
    let runs_own_command = match command {
        Some(AgentCommand::Argv(_) | AgentCommand::Shell(_) | AgentCommand::Preset { .. }) => true,
        // What a task brings along fails by itself; a person cannot fail.
        Some(AgentCommand::Task | AgentCommand::Person) | None => false,
    };
    match class {
        Class::Completed | Class::Blocked | Class::ChangesRequested => Mark::Good,
        // While disk or descriptors are short everything fails.
        Class::Lost | Class::Infrastructure if state.shortage.is_none() => Mark::Bad,
        // Without an exit nothing was run: the task was refused.
        Class::Unstartable if attempt.exit.is_some() && runs_own_command => Mark::NoProgram,
        Class::Unstartable if attempt.exit.is_some() => Mark::Bad,
        Class::Crashed if runs_own_command => Mark::Bad,
        Class::Empty
        | Class::Incomplete
        | Class::Failed
        | Class::ChecksFailed
        | Class::ConflictLeft
        | Class::ContextExceeded
        | Class::TimedOut
        | Class::Silent
            if runs_own_command =>
        {
            Mark::BadTask
        }
        Class::Empty
        | Class::Incomplete
        | Class::Failed
        | Class::ChecksFailed
        | Class::ConflictLeft
        // These speak against the provider, which pauses.
        | Class::RateLimited
        | Class::Unauthorized
        | Class::ContextExceeded
        | Class::TimedOut
        | Class::Silent
        | Class::Crashed
        | Class::Unstartable
        | Class::Lost
        | Class::Infrastructure
        | Class::Stopped
        | Class::Conflict
        | Class::LandingChecksFailed
        | Class::Dependency
        | Class::Budget => Mark::Nothing,
    }
}
