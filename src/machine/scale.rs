//! How many agents a group with `scale` has: as many as have something to do.
//!
//! It grows at once, by those whom the scheduler itself would give a task if they were there. It
//! shrinks slowly, by those that had nothing to do for [`IDLE_MS`]: the highest numbers go first, and
//! one of them that is busy goes after its task.

use std::collections::BTreeMap;
use std::ops::RangeInclusive;

use super::agent::Agent;
use super::change::{Change, ProjectChange};
use super::crew::Target;
use super::id::StageName;
use super::schedule::{self, queues::Queues};
use super::settings::AgentGroup;
use super::state::State;
use super::step::project;
use super::time::Time;
use super::turn::TURN_ITEMS_MAX;

/// An agent goes that had nothing to do for so long, in milliseconds: longer than a task takes from
/// one stage to the next, so that agents do not come and go with every task; short beside an attempt,
/// so that what an idle one keeps open costs little.
pub const IDLE_MS: u64 = 60_000;

/// Returns what is to change now; `room`: how many attempts may start, 0 where none may.
pub(super) fn decide(state: &State, at: Time, room: usize) -> Vec<Change> {
    let grown = growth(state, room).into_iter().map(|(name, (count, waiting))| {
        let why = match waiting {
            1 => "for 1 task that waits".to_owned(),
            more => format!("for {more} tasks that wait"),
        };
        scaled(name, count, why, at)
    });
    let grown: Vec<Change> = grown.collect();
    if grown.is_empty() { shrinking(state, at) } else { grown }
}

fn scaled(group: &str, count: u32, why: String, at: Time) -> Change {
    let target = Target { count, is_by_hand: false };
    project(ProjectChange::AgentsScaled { group: group.to_owned(), target, why, at })
}

/// Returns the groups that may have more agents than they have, by their place; none whose agents
/// cannot start or are refused by their provider.
fn growing(state: &State) -> impl Iterator<Item = (usize, &AgentGroup, u32)> {
    let groups = state.settings.agents.iter().enumerate();
    groups.filter_map(|(place, group)| {
        let count = state.target(group).count;
        let may_grow = state.is_scaling(group) && count < group.count;
        let is_unusable = |agent: &Agent| agent.group == place && agent.unusable.is_some();
        let is_refused = state.pause_of_group(group).is_some_and(|pause| pause.is_refused);
        (may_grow && !is_refused && !state.agents.values().any(is_unusable))
            .then_some((place, group, count))
    })
}

/// Returns the numbers above `count` of agents that the group may yet get and that can do what is
/// asked for; `None`: there are none.
fn newcomers(
    group: &AgentGroup,
    count: u32,
    stage: &StageName,
    needs: &[String],
) -> Option<RangeInclusive<u32>> {
    let mut numbers = count + 1..=group.count;
    if !group.stages.iter().any(|name| name == stage.as_str()) {
        return None;
    }
    for need in needs.iter().filter(|need| **need != group.name) {
        if !group.capabilities.contains(need) {
            let number = group.number_of(need).filter(|number| numbers.contains(number))?;
            numbers = number..=number;
        }
    }
    (!numbers.is_empty()).then_some(numbers)
}

/// Returns true when a group may grow by an agent that can do what is asked for.
#[must_use]
pub fn may_bring(state: &State, stage: &StageName, needs: &[String], tier_min: u32) -> bool {
    able(state, stage, needs).any(|group| group.tier >= tier_min)
}

/// Returns true when it may do so now: the limit of its provider is not reached.
pub(super) fn may_bring_now(
    state: &State,
    stage: &StageName,
    needs: &[String],
    tier_min: u32,
) -> bool {
    let is_limited =
        |group: &AgentGroup| state.pause_of_group(group).is_some_and(|pause| pause.until.is_some());
    able(state, stage, needs).any(|group| group.tier >= tier_min && !is_limited(group))
}

/// Returns the highest tier of such groups; `None`: there are none.
pub(super) fn highest_to_come(state: &State, stage: &StageName, needs: &[String]) -> Option<u32> {
    able(state, stage, needs).map(|group| group.tier).max()
}

/// Returns the groups that may grow by an agent that can do what is asked for.
fn able<'a>(
    state: &'a State,
    stage: &'a StageName,
    needs: &'a [String],
) -> impl Iterator<Item = &'a AgentGroup> {
    growing(state)
        .filter_map(move |(_, group, count)| newcomers(group, count, stage, needs).map(|_| group))
}

/// Returns the name that the next agent of a group would have which can do what is asked for.
pub(super) fn next_name(state: &State, stage: &StageName, needs: &[String]) -> Option<String> {
    let mut groups = growing(state);
    groups.find_map(|(_, group, count)| {
        let numbers = newcomers(group, count, stage, needs)?;
        Some(group.member(*numbers.start()).to_string())
    })
}

/// Returns the groups that are to grow, with their new number of agents and how many tasks wait for
/// one. Cost: nothing while no group may grow, else that of a pick.
pub(super) fn growth(state: &State, room: usize) -> BTreeMap<&str, (u32, usize)> {
    let room = room.min(TURN_ITEMS_MAX);
    let mut wanted = BTreeMap::new();
    if room == 0 || state.index.ready.is_empty() {
        return wanted;
    }
    // Those of a provider whose limit is reached would have nothing to do.
    let has_room =
        |group: &AgentGroup| state.pause_of_group(group).is_none_or(|it| !it.is_closed());
    let added = growing(state)
        .filter(|(_, group, _)| has_room(group))
        .flat_map(|(place, group, count)| strangers(state, place, group, count, room));
    let added: Vec<Agent> = added.collect();
    if added.is_empty() {
        return wanted;
    }
    let picked = schedule::pick_with(state, &added, room);
    // By place: how many tasks wait, and the highest number that one of them asks for by name.
    let mut waiting: BTreeMap<usize, (usize, u32)> = BTreeMap::new();
    for picked in &picked.assignments {
        let Some(agent) = added.iter().find(|agent| agent.name == picked.agent) else { continue };
        let group = &state.settings.agents[agent.group];
        let needs = &state.tasks[&picked.task].spec.needs;
        let numbers = newcomers(group, state.target(group).count, &picked.stage, needs);
        let asked = numbers.filter(|numbers| numbers.start() == numbers.end());
        let (count, highest) = waiting.entry(agent.group).or_default();
        *count += 1;
        *highest = asked.map_or(0, |numbers| *numbers.end()).max(*highest);
    }
    for (place, (waiting, highest)) in waiting {
        let group = &state.settings.agents[place];
        let count = reaching(state, group, waiting).max(highest);
        wanted.insert(group.name.as_str(), (count, waiting));
    }
    wanted
}

/// Returns agents that a group may yet get, no more than tasks wait.
fn strangers(
    state: &State,
    place: usize,
    group: &AgentGroup,
    count: u32,
    room: usize,
) -> Vec<Agent> {
    let stages: Vec<StageName> = group.stages.iter().map(StageName::new).collect();
    let queues: Vec<&Queues> =
        stages.iter().filter_map(|stage| state.index.ready.get(stage)).collect();
    let ready = queues.iter().map(|queues| queues.len()).sum::<usize>().min(room);
    let plain = count + 1..=group.count.min(count.saturating_add(ready as u32));
    let needs =
        queues.iter().flat_map(|queues| queues.demands()).flat_map(|(demand, _)| &demand.needs);
    let named = needs.filter_map(|need| group.number_of(need));
    let mut numbers: Vec<u32> = named.filter(|n| *n > *plain.end() && *n <= group.count).collect();
    numbers.extend(plain);
    numbers.sort_unstable();
    numbers.dedup();
    let agent = |number: u32| Agent {
        group: place,
        stages: stages.clone(),
        capabilities: group.capabilities.clone(),
        ..Agent::new(group.member(number), 0, Time::default())
    };
    numbers.into_iter().filter(|_| ready > 0).map(agent).collect()
}

/// Returns the number of agents by which a group gets so many more that are free; all it may have,
/// where these do not suffice.
fn reaching(state: &State, group: &AgentGroup, mut more: usize) -> u32 {
    for number in state.target(group).count + 1..=group.count {
        let name = group.member(number);
        // A busy one that was to go stays, and takes nothing now; a paused one comes back as it went.
        let is_busy = state.agents.contains_key(&name);
        let is_free = state.dismissed.get(&name).is_none_or(Agent::is_free);
        more -= usize::from(!is_busy && is_free);
        if more == 0 {
            return number;
        }
    }
    group.count
}

/// Returns the groups with `scale` that have more agents than the least, with what each of them has.
fn shrinkable(state: &State) -> impl Iterator<Item = (&AgentGroup, Crew)> {
    let groups = state.settings.agents.iter().enumerate();
    let more = groups
        .filter(|(_, group)| state.is_scaling(group) && state.target(group).count > group.least());
    more.map(|(place, group)| (group, Crew::of(state, place, group)))
}

/// What a group has beside those that are busy, paused or cool down.
struct Crew {
    count: u32,
    /// Busy ones that go after their task.
    retiring: usize,
    /// Since when the idle ones are; sorted.
    idle_since: Vec<Time>,
}

impl Crew {
    fn of(state: &State, place: usize, group: &AgentGroup) -> Self {
        let count = state.target(group).count;
        let is_its = |agent: &&Agent| match group.number_of(agent.name.as_str()) {
            Some(number) => agent.is_retired && number > count && number <= group.count,
            None => false,
        };
        let retiring = state.agents.values().filter(is_its).count();
        let own = state.agents.values().filter(|agent| agent.group == place && agent.is_free());
        let mut idle_since: Vec<Time> = own.map(|agent| agent.idle_since).collect();
        idle_since.sort_unstable();
        Self { count, retiring, idle_since }
    }

    /// Returns when the group has more agents than it needs; while others still go, that takes as
    /// many more.
    fn surplus_at(&self) -> Option<Time> {
        self.idle_since.get(self.retiring).map(|since| since.plus_ms(IDLE_MS))
    }
}

/// Returns when the next group shrinks if nothing happens.
pub(super) fn deadline(state: &State) -> Option<Time> {
    shrinkable(state).filter_map(|(_, crew)| crew.surplus_at()).min()
}

fn shrinking(state: &State, at: Time) -> Vec<Change> {
    let due = shrinkable(state).filter(|(_, crew)| crew.surplus_at().is_some_and(|due| due <= at));
    let shrunk = due.map(|(group, crew)| {
        let is_long = |since: &&Time| since.plus_ms(IDLE_MS) <= at;
        let idle = crew.idle_since.iter().take_while(is_long).count();
        let surplus = (idle - crew.retiring) as u32;
        let count = crew.count.saturating_sub(surplus).max(group.least());
        let why = match idle {
            1 => "1 had nothing to do for a minute".to_owned(),
            more => format!("{more} had nothing to do for a minute"),
        };
        scaled(&group.name, count, why, at)
    });
    shrunk.collect()
}
