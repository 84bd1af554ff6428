//! The agents that may get an attempt now, and which of them is best for a task.

use std::collections::BTreeSet;

use super::demand::Demand;
use crate::machine::agent::Agent;
use crate::machine::id::{AgentName, StageName};
use crate::machine::state::State;
use crate::machine::task::Task;

/// Free agents; each is taken at most once.
#[derive(Debug)]
pub struct Pool<'a> {
    state: &'a State,
    free: BTreeSet<&'a AgentName>,
}

impl<'a> Pool<'a> {
    /// Looks at who is free. Cost: agents.
    #[must_use]
    pub fn of(state: &'a State) -> Self {
        let free = state.agents.values().filter(|agent| agent.is_free()).map(|agent| &agent.name);
        Self { state, free: free.collect() }
    }

    /// Returns true when nobody is free.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.free.is_empty()
    }

    /// Returns true when somebody free serves the stage.
    #[must_use]
    pub fn serves(&self, stage: &StageName) -> bool {
        self.agents().any(|agent| agent.stages.contains(stage))
    }

    fn agents(&self) -> impl Iterator<Item = &'a Agent> {
        self.free.iter().map(|name| &self.state.agents[*name])
    }

    /// Returns the best free agent for a task's stage: not the one to avoid if another is free, then
    /// the one that completed least, then by name. Cost: free agents.
    #[must_use]
    pub fn best(&self, task: &Task, stage: &StageName, demand: &Demand) -> Option<&'a Agent> {
        let able = self.agents().filter(|agent| can_serve(self.state, agent, stage, &demand.needs));
        able.min_by_key(|agent| {
            let is_avoided = task.avoid.as_ref() == Some(&agent.name);
            (is_avoided, agent.completed, &agent.name)
        })
    }

    /// Returns the free agents that have ended one attempt less than a multiple of `every`.
    #[must_use]
    pub fn due(&self, every: u64) -> Vec<&'a Agent> {
        let is_due = |agent: &&Agent| (agent.completed + agent.failed) % every == every - 1;
        self.agents().filter(is_due).collect()
    }

    /// Returns true while the agent has not been taken.
    #[must_use]
    pub fn has(&self, agent: &Agent) -> bool {
        self.free.contains(&agent.name)
    }

    /// Takes an agent out.
    pub fn take(&mut self, agent: &Agent) {
        self.free.remove(&agent.name);
    }
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

/// Returns true when an agent is there for it that is neither paused nor about to leave.
#[must_use]
pub fn has_agent(state: &State, stage: &StageName, needs: &[String]) -> bool {
    let mut there = state.agents.values().filter(|agent| !agent.is_paused && !agent.is_retired);
    there.any(|agent| can_serve(state, agent, stage, needs))
}
