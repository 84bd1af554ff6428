//! Who is waited for: tasks that people have in windows of ours.

use crate::machine::State;
use crate::machine::attempt::{Attempt, AttemptPhase};
use crate::machine::settings::AgentCommand;

/// A task that a person has.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Asked<'a> {
    /// The task's id.
    pub id: &'a str,
    pub agent: &'a str,
    /// Long name of the stage.
    pub stage: &'a str,
    /// The command to type.
    pub next: String,
}

/// Returns what a person has been asked to do; `None`: the attempt is a program's, or has no window
/// yet, or is over.
#[must_use]
pub fn asked<'a>(state: &'a State, attempt: &'a Attempt) -> Option<Asked<'a>> {
    let agent = attempt.agent.as_str();
    let group = state.rules_of(attempt).group_of(&attempt.agent)?;
    let is_asked = group.command == AgentCommand::Person
        && attempt.is_work()
        && attempt.phase == AttemptPhase::Running;
    let (id, stage) = (attempt.task.as_ref()?.as_str(), attempt.stage()?.as_str());
    is_asked.then(|| Asked { id, agent, stage, next: format!("pipeline agent attach {agent}") })
}

/// Returns all that people have been asked to do, by task.
#[must_use]
pub fn all(state: &State) -> Vec<Asked<'_>> {
    let mut all: Vec<_> =
        state.attempts.values().filter_map(|attempt| asked(state, attempt)).collect();
    all.sort_by_key(|asked| asked.id);
    all
}
