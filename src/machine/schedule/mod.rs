//! Who gets what: a pure pick from the ready tasks. A new mode is one file and one arm here.

mod parallel;
mod sequential;

use std::collections::BTreeSet;

use super::agent::Agent;
use super::id::{AgentName, StageName, TaskId};
use super::mode::Orchestration;
use super::state::State;

/// A task's stage for an agent.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Assignment {
    pub task: TaskId,
    pub stage: StageName,
    pub agent: AgentName,
}

/// What is to be done now.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Picked {
    /// At most as many as asked for; no task and no agent twice.
    pub assignments: Vec<Assignment>,
    /// Sequential mode goes on to this task.
    pub current: Option<Option<TaskId>>,
}

/// Picks at most `room` assignments.
#[must_use]
pub fn pick(state: &State, room: usize) -> Picked {
    match state.orchestration {
        Orchestration::Sequential => sequential::pick(state, room),
        Orchestration::Parallel => parallel::pick(state, room),
    }
}

/// Returns the best free agent for a task's stage: not the one to avoid if another is free, then
/// the one that completed least, then by name. Cost: agents.
fn agent_for<'a>(
    state: &'a State,
    task: &TaskId,
    stage: &StageName,
    used: &BTreeSet<&AgentName>,
) -> Option<&'a Agent> {
    let task = &state.tasks[task];
    let fits = |agent: &&Agent| {
        agent.is_free()
            && !used.contains(&agent.name)
            && can_serve(state, agent, stage, &task.spec.needs)
    };
    let order = |agent: &&Agent| {
        let is_avoided = task.avoid.as_ref() == Some(&agent.name);
        (is_avoided, agent.completed, agent.name.clone())
    };
    state.agents.values().filter(fits).min_by_key(order)
}

/// Returns true when the agent serves the stage and has what is needed; its own name and its
/// group's count as capabilities.
#[must_use]
pub fn can_serve(state: &State, agent: &Agent, stage: &StageName, needs: &[String]) -> bool {
    let group = state.settings.agents.get(agent.group).map_or("", |group| group.name.as_str());
    let has = |need: &String| {
        agent.capabilities.contains(need) || agent.name.as_str() == need || group == need
    };
    agent.stages.contains(stage) && needs.iter().all(has)
}
