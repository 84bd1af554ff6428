//! Who is there: the agents that each group is to have, and those that left it.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::agent::Agent;
use super::breaker::Breaker;
use super::id::{AgentName, StageName};
use super::provider;
use super::settings::{AgentGroup, Settings};
use super::state::State;
use super::time::Time;

/// How many agents a group is to have.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Target {
    /// Those with the numbers from 1 to this.
    pub count: u32,
    /// A person said so; it stays until `count` or `scale` of the group change.
    pub is_by_hand: bool,
}

impl Target {
    const fn of(group: &AgentGroup, count: u32) -> Self {
        Self { count, is_by_hand: false }.within(group)
    }

    /// Returns it within what the settings allow.
    const fn within(self, group: &AgentGroup) -> Self {
        let Some(least) = group.scale_min else { return self };
        let count = if self.count > group.count { group.count } else { self.count };
        Self { count: if count < least { least } else { count }, ..self }
    }
}

impl State {
    /// Returns how many agents the group is to have now.
    #[must_use]
    pub fn target(&self, group: &AgentGroup) -> Target {
        let given = self.targets.get(&group.name).copied();
        given.unwrap_or_else(|| Target::of(group, group.least()))
    }

    /// Returns true when the queues decide how many agents the group has.
    #[must_use]
    pub fn is_scaling(&self, group: &AgentGroup) -> bool {
        group.scale_min.is_some() && !self.target(group).is_by_hand
    }
}

/// Makes the agents of the settings; those no longer in them are retired, at once when idle.
pub(super) fn hire(state: &mut State, at: Time) {
    let settings = Arc::clone(&state.settings);
    for agent in state.agents.values_mut() {
        agent.is_retired = true;
    }
    for place in 0..settings.agents.len() {
        fill(state, &settings, place, at);
    }
    dismiss_idle(state);
}

/// Makes the agents of new settings. Targets stay where neither `count` nor `scale` changed; where the
/// queues decide, the present number does, within the new bounds.
pub(super) fn adopt(state: &mut State, old: &Settings, at: Time) {
    let settings = Arc::clone(&state.settings);
    let mut targets = std::mem::take(&mut state.targets);
    targets.retain(|name, target| {
        let (Some(was), Some(is)) = (old.group(name), settings.group(name)) else { return false };
        let is_same = (was.count, was.scale_min) == (is.count, is.scale_min);
        if !is_same {
            *target = Target::of(is, target.count);
        }
        let is_kept = is_same || is.scale_min.is_some();
        is_kept
            && *target != Target::of(is, is.least())
            && settings.stranger(is, target.count).is_none()
    });
    state.targets = targets;
    state.dismissed.retain(|name, _| settings.group_of(name).is_some());
    for agent in state.agents.values_mut().filter(|agent| agent.breaker != Breaker::default()) {
        // What was mended in its settings is worth a new start.
        if old.agents.get(agent.group) != settings.group_of(&agent.name) {
            agent.breaker = Breaker::default();
        }
    }
    for agent in state.dismissed.values_mut() {
        if old.group_of(&agent.name) != settings.group_of(&agent.name) {
            agent.breaker = Breaker::default();
        }
    }
    hire(state, at);
    provider::prune(state);
}

/// Gives a group its target: who is missing comes, who is too many retires, at once when idle.
pub(super) fn scale(state: &mut State, name: &str, target: Target, at: Time) {
    let settings = Arc::clone(&state.settings);
    let Some(place) = settings.agents.iter().position(|group| group.name == name) else { return };
    let group = &settings.agents[place];
    if target == Target::of(group, group.least()) {
        state.targets.remove(name);
    } else {
        state.targets.insert(name.to_owned(), target);
    }
    for agent in state.agents.values_mut().filter(|agent| agent.group == place) {
        let number = group.number_of(agent.name.as_str());
        agent.is_retired |= number.is_none_or(|number| number > target.count);
    }
    fill(state, &settings, place, at);
    dismiss_idle(state);
}

/// Brings the agents of a group that are missing, and takes back those that were retired.
fn fill(state: &mut State, settings: &Settings, place: usize, at: Time) {
    let group = &settings.agents[place];
    let count = state.target(group).count;
    let is_new =
        |name: &AgentName| !state.agents.contains_key(name) && !state.dismissed.contains_key(name);
    let names: Vec<AgentName> = (1..=count).map(|number| group.member(number)).collect();
    let slots = free_slots(state, names.iter().filter(|name| is_new(name)));
    // What keeps one of them from starting keeps them all, and nobody looks at those who have left.
    let known = names.iter().find_map(|name| state.agents.get(name));
    let unusable = known.map(|agent| agent.unusable.clone());
    for name in names {
        let back = state.dismissed.remove(&name);
        if let Some(until) = back.as_ref().and_then(|agent| agent.breaker.until) {
            state.index.cooling.insert((until, name.clone()));
        }
        let slot = slots.get(&name).copied().unwrap_or(0);
        let agent = state.agents.entry(name.clone()).or_insert_with(|| {
            let back = back.map(|agent| Agent { idle_since: at, ..agent });
            let new = back.unwrap_or_else(|| Agent::new(name, slot, at));
            Agent { unusable: unusable.clone().unwrap_or(new.unusable), ..new }
        });
        agent.group = place;
        agent.stages = group.stages.iter().map(StageName::new).collect();
        agent.capabilities.clone_from(&group.capabilities);
        agent.is_retired = false;
    }
}

/// Returns for each name the first slot after all that attempts of an agent so called had: one that
/// was let go and forgotten may have left unsaved work in them.
fn free_slots<'a>(
    state: &State,
    names: impl Iterator<Item = &'a AgentName>,
) -> BTreeMap<AgentName, u32> {
    let mut slots: BTreeMap<AgentName, u32> = names.map(|name| (name.clone(), 0)).collect();
    if slots.is_empty() {
        return slots;
    }
    for attempt in state.tasks.values().flat_map(|task| &task.history) {
        if let Some(slot) = slots.get_mut(&attempt.agent) {
            *slot = (*slot).max(attempt.slot + 1);
        }
    }
    slots
}

fn dismiss_idle(state: &mut State) {
    let gone = state.agents.values().filter(|agent| agent.is_retired && agent.attempt.is_none());
    let gone: Vec<AgentName> = gone.map(|agent| agent.name.clone()).collect();
    dismiss(state, &gone);
}

/// Lets agents go that have nothing to do; where their group is still there, they may come back.
pub(super) fn dismiss(state: &mut State, names: &[AgentName]) {
    let gone: Vec<Agent> = names.iter().filter_map(|name| state.agents.remove(name)).collect();
    for agent in &gone {
        stand_in(state, agent);
    }
    for agent in gone {
        forget(state, agent);
    }
}

/// The one idle longest takes the place of one that leaves by its number though it worked later, so
/// that others do not leave because of the same idle one.
fn stand_in(state: &mut State, gone: &Agent) {
    let settings = Arc::clone(&state.settings);
    let Some(group) = settings.group_of(&gone.name).filter(|group| state.is_scaling(group)) else {
        return;
    };
    let is_its = |agent: &&mut Agent| {
        agent.is_free() && group.number_of(agent.name.as_str()).is_some_and(|n| n <= group.count)
    };
    let longest = state.agents.values_mut().filter(is_its).min_by_key(|agent| agent.idle_since);
    if let Some(agent) = longest.filter(|agent| agent.idle_since < gone.idle_since) {
        agent.idle_since = gone.idle_since;
    }
}

fn forget(state: &mut State, mut agent: Agent) {
    let name = &agent.name;
    if let Some(until) = agent.breaker.until {
        state.index.cooling.remove(&(until, name.clone()));
    }
    if state.settings.group_of(name).is_some() {
        agent.is_retired = false;
        state.dismissed.insert(agent.name.clone(), agent);
    }
}

/// Looks at what [`State::check`] says of groups.
pub(super) fn check(state: &State) {
    let mut there = 0;
    for (place, group) in state.settings.agents.iter().enumerate() {
        let target = state.target(group);
        assert_eq!(target, target.within(group), "`{}` is beyond its bounds", group.name);
        for name in (1..=target.count).map(|number| group.member(number)) {
            let agent = &state.agents[&name];
            assert!(agent.group == place && !agent.is_retired, "{agent:?} of `{}`", group.name);
        }
        there += target.count as usize;
    }
    let retired = state.agents.values().filter(|agent| agent.is_retired);
    assert!(retired.clone().all(|agent| agent.attempt.is_some()), "one that has left is there");
    assert_eq!(state.agents.len(), there + retired.count(), "agents beyond the targets");
    let is_back = |name: &AgentName| state.agents.contains_key(name);
    assert!(!state.dismissed.keys().any(is_back), "one that left is there as well");
    assert!(state.dismissed.values().all(|agent| agent.attempt.is_none() && !agent.is_retired));
}
