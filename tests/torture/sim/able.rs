//! Who may take what, and how many there may be, judged apart from the scheduler.

use pipeline::machine::State;
use pipeline::machine::agent::Agent;
use pipeline::machine::attempt::{Attempt, Class};
use pipeline::machine::id::{AgentName, StageName};
use pipeline::machine::provider::Pause;
use pipeline::machine::schedule::can_serve;
use pipeline::machine::settings::AgentGroup;
use pipeline::machine::task::Task;
use pipeline::machine::time::Time;

/// Returns true when the agent may take the task's present stage: it serves it, has what is needed,
/// and is above the tier that failed often enough, where there is a higher one; or it is of the highest
/// tier in which anybody may work or come.
pub fn may_take(state: &State, agent: &Agent, task: &Task, stage: &StageName) -> bool {
    let tier = state.settings.agents[agent.group].tier;
    let serves = |group: &&AgentGroup| group.can_serve(stage.as_str(), &task.spec.needs);
    let groups = state.settings.agents.iter().filter(serves);
    let mut tiers: Vec<u32> = groups.map(|group| group.tier).collect();
    tiers.sort_unstable();
    tiers.dedup();
    let least = match failed_tier(state, task, stage, tiers.first().copied()) {
        Some(failed) => tiers.iter().find(|tier| **tier > failed).or(tiers.last()).copied(),
        None => tiers.first().copied(),
    };
    let serves_it =
        |agent: &Agent| !agent.is_retired && can_serve(state, agent, stage, &task.spec.needs);
    serves_it(agent) && (Some(tier) >= least || tier >= highest_there(state, serves_it))
}

/// Returns the tier of the attempt with which the task had last failed a multiple of
/// `escalate_after` times at its stage; `lowest` where its group is gone. `None`: not so often.
fn failed_tier(state: &State, task: &Task, stage: &StageName, lowest: Option<u32>) -> Option<u32> {
    let settings = &state.settings;
    let every = settings.scheduler.escalate_after as usize;
    let failures = task.tally.stage_failures as usize;
    let failed: Vec<&Attempt> = task
        .history
        .iter()
        .filter(|old| {
            let class = old.outcome.as_ref().map(|outcome| outcome.class);
            old.is_work() && old.stage() == Some(stage) && class.is_some_and(Class::is_failed_try)
        })
        .collect();
    let in_a_row = failed.get(failed.len().saturating_sub(failures)..).unwrap_or_default();
    let last = in_a_row.chunks_exact(every).last().and_then(|chunk| chunk.last());
    let tier = last.and_then(|old| settings.group_of(&old.agent)).map(|group| group.tier);
    if failures < every { None } else { tier.or(lowest) }
}

/// Returns the highest tier of those agents that are neither paused nor unable to start, or come.
fn highest_there(state: &State, serves_it: impl Fn(&Agent) -> bool) -> u32 {
    let works = |agent: &&Agent| {
        !agent.is_paused && agent.unusable.is_none() && state.refusal_of(agent).is_none()
    };
    // A limit that is reached ends by itself, and is waited for.
    let to_come = comers(state, |pause| pause.is_refused);
    let there = state.agents.values().filter(works).cloned().chain(to_come);
    let tiers = there.filter(|agent| serves_it(agent));
    tiers.map(|agent| state.settings.agents[agent.group].tier).max().unwrap_or(0)
}

/// Returns true when a person said how many agents the group has.
fn is_by_hand(state: &State, group: &AgentGroup) -> bool {
    state.targets.get(&group.name).is_some_and(|target| target.is_by_hand)
}

/// Returns the agents that are not there, and come when the queues ask for them; not those who left
/// paused or to cool down, nor those whose provider gives nothing.
pub fn may_come(state: &State) -> Vec<Agent> {
    comers(state, Pause::is_closed)
}

/// Returns these but for those whose provider is kept from by such a pause.
pub fn comers(state: &State, is_kept: fn(&Pause) -> bool) -> Vec<Agent> {
    let mut found = Vec::new();
    for (place, group) in state.settings.agents.iter().enumerate() {
        let mut own = state.agents.values().filter(|agent| agent.group == place);
        // A program that is not there is not there for others of the group either.
        let is_unusable = own.any(|agent| agent.unusable.is_some());
        if group.scale_min.is_none() || is_by_hand(state, group) || is_unusable {
            continue;
        }
        if state.pause_of_group(group).is_some_and(is_kept) {
            continue;
        }
        let absent = group.names().filter(|name| !state.agents.contains_key(name));
        let is_free =
            |name: &AgentName| state.dismissed.get(name).is_none_or(|agent| agent.is_free());
        found.extend(absent.filter(is_free).map(|name| Agent {
            group: place,
            stages: group.stages.iter().map(StageName::new).collect(),
            capabilities: group.capabilities.clone(),
            ..Agent::new(name, 0, Time::default())
        }));
    }
    found
}

/// Asserts that each group has as many agents as it may have, those that leave after their task not
/// counted; and with those, no more of its present names than its settings or a person allow.
pub fn are_as_many_as_may_be(state: &State) {
    for (place, group) in state.settings.agents.iter().enumerate() {
        let own = state.agents.values().filter(|agent| agent.group == place && !agent.is_retired);
        let there = own.count() as u32;
        let least = group.scale_min.unwrap_or(group.count);
        let bounds = least..=group.count;
        let is_free_choice = group.scale_min.is_none() && is_by_hand(state, group);
        assert!(
            is_free_choice || bounds.contains(&there),
            "{there} of {bounds:?} `{}`",
            group.name
        );
        if group.scale_min.is_some() {
            let named = group.names().filter(|name| state.agents.contains_key(name)).count();
            assert!(named as u32 <= group.count, "{named} agents of `{}`", group.name);
        }
    }
}
