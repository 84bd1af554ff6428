//! Who may take what, judged apart from the scheduler.

use pipeline::machine::State;
use pipeline::machine::agent::Agent;
use pipeline::machine::id::StageName;
use pipeline::machine::schedule::can_serve;
use pipeline::machine::task::Task;

/// Returns true when the agent may take the task's present stage: it serves it, has what is needed,
/// and as many tiers stand below it as the task's failures ask for, where there are so many.
pub fn may_take(state: &State, agent: &Agent, task: &Task, stage: &StageName) -> bool {
    let tier = |agent: &Agent| state.settings.agents[agent.group].tier;
    let serves =
        |agent: &&Agent| !agent.is_retired && can_serve(state, agent, stage, &task.spec.needs);
    let mut tiers: Vec<u32> = state.agents.values().filter(serves).map(tier).collect();
    tiers.sort_unstable();
    tiers.dedup();
    let steps = task.tally.stage_failures / state.settings.scheduler.escalate_after;
    let least = tiers.get(steps as usize).or(tiers.last()).copied();
    serves(&agent) && Some(tier(agent)) >= least
}
