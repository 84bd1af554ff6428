//! What can be found without a scan: kept by `apply`, never written elsewhere.
//!
//! A task's entries are taken out before it changes and put back after, so that they cannot drift;
//! [`rebuild`] makes all of them anew, for a change of settings or rollout and for the recount that
//! the tests compare with.

use std::collections::{BTreeMap, BTreeSet};

use super::agent::Agent;
use super::breaker::Breaker;
use super::effect::{self, Effect};
use super::gate;
use super::id::{AgentName, StageName, TaskId};
use super::mode::Rollout;
use super::progress::{self, Progress};
use super::proposal;
use super::purse;
use super::schedule::demand::Demand;
use super::schedule::queues::Queues;
use super::schedule::rank::Rank;
use super::settings::Settings;
use super::state::State;
use super::task::{Task, TaskKind, TaskPhase};
use super::time::Time;

/// Highest number counted on from when an id is made; a person may give any.
const TASK_NUMBER_MAX: u64 = 1_000_000_000;

/// How many tasks stand where; epics are not counted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Counts {
    pub unassigned: usize,
    pub ready: usize,
    pub wip: usize,
    pub landing: usize,
    pub blocked: usize,
    pub completed: usize,
    pub cancelled: usize,
}

/// What ties a task to others.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Links {
    /// Tasks that depend on it.
    pub dependents: BTreeSet<TaskId>,
    /// Dependencies that are not met, unknown ones among them.
    pub unmet: u32,
    /// Dependencies that cannot be met without a person, unknown ones among them.
    pub dead_ends: u32,
    /// Why it is in the pilot's slice: itself, and each dependent that is. 0: it is not.
    pub slice_votes: u32,
    /// What is below this epic.
    pub below: Progress,
}

/// All indexes.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Index {
    pub counts: Counts,
    /// One for each task, and for ids that others name as parent or dependency.
    pub links: BTreeMap<TaskId, Links>,
    /// Waiting tasks with nothing in the way.
    pub startable: BTreeSet<TaskId>,
    /// Waiting and ready tasks that only shadow mode holds back and that were not yet announced.
    pub announceable: BTreeSet<TaskId>,
    /// Waiting and ready tasks with a dead end among their dependencies.
    pub doomed: BTreeSet<TaskId>,
    /// Tasks blocked by a dependency that is no longer a dead end.
    pub freed: BTreeSet<TaskId>,
    /// Ready tasks that have used up what they may cost.
    pub overdrawn: BTreeSet<TaskId>,
    /// By stage, then by demand, in order of rank. Held and gated tasks are not in it, nor
    /// those whose dependencies an edit made unmet.
    pub ready: BTreeMap<StageName, Queues>,
    /// Tasks that wait for a moment.
    pub backoff: BTreeSet<(Time, TaskId)>,
    /// Agents that get nothing before a moment.
    pub cooling: BTreeSet<(Time, AgentName)>,
    /// Tasks to land, in order of entry; those that wait for approval, the gate or a dependency, or
    /// are held, are not in it.
    pub lane: BTreeMap<u64, TaskId>,
    /// The highest n of all ids `TASK-n`, for the next one.
    pub number_max: u64,
    /// Unfinished tasks whose branch has changed something.
    pub branches: BTreeSet<TaskId>,
    pub effects: BTreeSet<Effect>,
    /// Lower-case ids: two that differ in case only are refused.
    pub folded: BTreeSet<String>,
    lane_effects: Vec<Effect>,
}

impl Index {
    /// Returns the links of a task; none at all for an unknown id.
    #[must_use]
    pub fn links(&self, id: &TaskId) -> Option<&Links> {
        self.links.get(id)
    }

    /// Returns what the lane owes now; at most two.
    #[must_use]
    pub fn lane_effects(&self) -> &[Effect] {
        &self.lane_effects
    }

    /// Returns true when every dependency of the task is met.
    #[must_use]
    pub fn is_unblocked(&self, id: &TaskId) -> bool {
        self.links.get(id).is_none_or(|links| links.unmet == 0)
    }

    /// Returns true when the pilot acts for the task.
    #[must_use]
    pub fn is_in_slice(&self, id: &TaskId) -> bool {
        self.links.get(id).is_some_and(|links| links.slice_votes > 0)
    }
}

impl State {
    /// Returns true when neither a hold, the gate nor a dependency keeps the task from going on.
    #[must_use]
    pub fn is_open(&self, task: &Task) -> bool {
        let is_met = self.index.links(&task.id).is_none_or(|links| links.unmet == 0);
        is_met && !task.is_held && gate::may_act(self, &task.id)
    }

    /// Returns the task's place among the ready ones.
    ///
    /// # Panics
    /// When there is no such task.
    #[must_use]
    pub fn rank(&self, id: &TaskId) -> Rank {
        Rank::of(&self.tasks[id], self.settings.scheduler.policy)
    }
}

/// Makes all indexes anew. Cost: tasks and dependencies.
pub fn rebuild(state: &mut State) {
    state.index = Index::default();
    let ids: Vec<TaskId> = state.tasks.keys().cloned().collect();
    for id in &ids {
        tie(state, id);
        let own = Progress::of(&state.tasks[id]);
        progress::carry(state, id, Progress::default(), own);
    }
    for id in &ids {
        if gate::is_selected(&state.settings.rollout.pilot, &state.tasks[id]) {
            vote(state, id, true, &Placed::None);
        }
    }
    for id in &ids {
        insert(state, id);
    }
    let due: Vec<Effect> = state.attempts.values().filter_map(effect::of_attempt).collect();
    state.index.effects.extend(due);
    state.index.effects.extend(proposal::effect(&state.proposal));
    let cooling = |agent: &Agent| Some((agent.breaker.until?, agent.name.clone()));
    state.index.cooling = state.agents.values().filter_map(cooling).collect();
    refresh_lane(state);
}

/// Changes how an agent did, and keeps the index true.
pub(super) fn set_breaker(state: &mut State, name: &AgentName, breaker: &Breaker) {
    let Some(agent) = state.agents.get_mut(name) else {
        // Its last attempt ended with it.
        if let Some(agent) = state.dismissed.get_mut(name) {
            agent.breaker.clone_from(breaker);
        }
        return;
    };
    if let Some(until) = agent.breaker.until {
        state.index.cooling.remove(&(until, name.clone()));
    }
    agent.breaker.clone_from(breaker);
    if let Some(until) = agent.breaker.until {
        state.index.cooling.insert((until, name.clone()));
    }
}

/// Ties a task to its dependencies.
fn tie(state: &mut State, id: &TaskId) {
    let task = state.tasks[id].clone();
    let folded = id.as_str().to_ascii_lowercase();
    let number = folded.strip_prefix("task-").and_then(|number| number.parse().ok());
    let number = number.filter(|number| *number <= TASK_NUMBER_MAX).unwrap_or(0);
    state.index.number_max = state.index.number_max.max(number);
    state.index.folded.insert(folded);
    state.index.links.entry(id.clone()).or_default();
    for dep in &task.spec.depends_on {
        let (is_met, is_dead_end) = standing(state, dep);
        state.index.links.entry(dep.clone()).or_default().dependents.insert(id.clone());
        let links = state.index.links.entry(id.clone()).or_default();
        links.unmet += u32::from(!is_met);
        links.dead_ends += u32::from(is_dead_end);
    }
}

/// Ties a task, counts it in the epics above it, and counts its votes; its own entries are not in
/// the index then.
pub(super) fn link(state: &mut State, id: &TaskId) {
    tie(state, id);
    let counted = progress::at_and_below(state, id);
    progress::carry(state, id, Progress::default(), counted);
    let task = state.tasks[id].clone();
    // Dependents were linked before: their votes have not passed through this task yet.
    if state.index.is_in_slice(id) {
        for dep in &task.spec.depends_on {
            vote(state, dep, true, &Placed::AllBut(id));
        }
    }
    if gate::is_selected(&state.settings.rollout.pilot, &task) {
        vote(state, id, true, &Placed::AllBut(id));
    }
}

/// Undoes [`link`].
pub(super) fn unlink(state: &mut State, id: &TaskId) {
    let task = state.tasks[id].clone();
    if gate::is_selected(&state.settings.rollout.pilot, &task) {
        vote(state, id, false, &Placed::AllBut(id));
    }
    let is_still_in = state.index.is_in_slice(id);
    for dep in &task.spec.depends_on {
        if is_still_in {
            vote(state, dep, false, &Placed::AllBut(id));
        }
        if let Some(links) = state.index.links.get_mut(dep) {
            links.dependents.remove(id);
            // Nothing else names it, and it does not exist.
            if *links == Links::default() && !state.tasks.contains_key(dep) {
                state.index.links.remove(dep);
            }
        }
    }
    let counted = progress::at_and_below(state, id);
    progress::carry(state, id, counted, Progress::default());
    if let Some(links) = state.index.links.get_mut(id) {
        links.unmet = 0;
        links.dead_ends = 0;
    }
}

/// Whose entries are in the index while votes pass.
enum Placed<'a> {
    None,
    AllBut(&'a TaskId),
}

/// Adds or takes one vote for the slice, and passes it on to dependencies where the task enters or
/// leaves the slice by it. Iterative: chains may be long.
fn vote(state: &mut State, id: &TaskId, is_for: bool, placed: &Placed<'_>) {
    let mut todo = vec![id.clone()];
    while let Some(id) = todo.pop() {
        let is_known = state.tasks.contains_key(&id);
        let is_placed = match placed {
            Placed::None => false,
            Placed::AllBut(own) => is_known && **own != id,
        };
        if is_placed {
            remove(state, &id);
        }
        let links = state.index.links.entry(id.clone()).or_default();
        let before = links.slice_votes;
        links.slice_votes = if is_for { before + 1 } else { before.saturating_sub(1) };
        let has_crossed = (before == 0) != (links.slice_votes == 0);
        if is_placed {
            insert(state, &id);
        }
        if has_crossed && is_known {
            todo.extend(state.tasks[&id].spec.depends_on.iter().cloned());
        }
    }
}

/// Returns whether a dependency on `id` is met, and whether it is a dead end.
fn standing(state: &State, id: &TaskId) -> (bool, bool) {
    state.tasks.get(id).map_or((false, true), |task| (task.is_met(), task.is_dead_end()))
}

/// Changes a task and keeps every index true.
///
/// `is_relinking`: dependencies, parent or labels may change.
pub(super) fn update(
    state: &mut State,
    id: &TaskId,
    is_relinking: bool,
    change: impl FnOnce(&mut Task),
) {
    let Some(task) = state.tasks.get(id) else { return };
    let (was_met, was_dead_end) = (task.is_met(), task.is_dead_end());
    let was = Progress::of(task);
    remove(state, id);
    if is_relinking {
        unlink(state, id);
    }
    let task = state.tasks.get_mut(id).expect("it was there above");
    change(task);
    let (is_met, is_dead_end) = (task.is_met(), task.is_dead_end());
    let is = Progress::of(task);
    if is_relinking {
        link(state, id);
    } else {
        progress::carry(state, id, was, is);
    }
    insert(state, id);
    if (was_met, was_dead_end) != (is_met, is_dead_end) {
        pass_on(state, id, (was_met, was_dead_end), (is_met, is_dead_end));
    }
}

/// Puts a new task in; others may have named it before.
pub(super) fn add(state: &mut State, task: Task) {
    let id = task.id.clone();
    let now = (task.is_met(), task.is_dead_end());
    state.tasks.insert(id.clone(), task);
    link(state, &id);
    insert(state, &id);
    pass_on(state, &id, (false, true), now);
}

/// Tells the dependents that a dependency's standing changed.
fn pass_on(state: &mut State, id: &TaskId, was: (bool, bool), is: (bool, bool)) {
    let dependents = state.index.links.get(id).map(|links| links.dependents.clone());
    for dependent in dependents.unwrap_or_default() {
        remove(state, &dependent);
        let links = state.index.links.entry(dependent.clone()).or_default();
        links.unmet = links.unmet + u32::from(!is.0) - u32::from(!was.0);
        links.dead_ends = links.dead_ends + u32::from(is.1) - u32::from(was.1);
        insert(state, &dependent);
    }
}

fn remove(state: &mut State, id: &TaskId) {
    place(state, id, false);
}

fn insert(state: &mut State, id: &TaskId) {
    place(state, id, true);
}

fn put<T: Ord>(set: &mut BTreeSet<T>, item: T, is_in: bool) {
    if is_in {
        set.insert(item);
    } else {
        set.remove(&item);
    }
}

/// Puts the task's entries in, or takes them out, by what it is now.
fn place(state: &mut State, id: &TaskId, is_in: bool) {
    let task = &state.tasks[id];
    let may_act = gate::may_act(state, id);
    let is_open = state.is_open(task);
    let is_unannounced = state.rollout == Rollout::Shadow && !task.is_announced;
    let index = &mut state.index;
    if task.spec.kind == TaskKind::Epic {
        return;
    }
    if !task.changed.is_empty() && !task.is_final() {
        put(&mut index.branches, id.clone(), is_in);
    }
    let links = &index.links[id];
    let counts = &mut index.counts;
    let counter = match &task.phase {
        TaskPhase::Waiting => {
            if links.dead_ends > 0 {
                put(&mut index.doomed, id.clone(), is_in);
            } else if links.unmet == 0 && !task.is_held {
                if may_act {
                    put(&mut index.startable, id.clone(), is_in);
                } else if is_unannounced {
                    put(&mut index.announceable, id.clone(), is_in);
                }
            }
            &mut counts.unassigned
        }
        TaskPhase::Ready { stage } => {
            if links.dead_ends > 0 {
                put(&mut index.doomed, id.clone(), is_in);
            } else if links.unmet == 0 && !task.is_held && is_unannounced {
                put(&mut index.announceable, id.clone(), is_in);
            }
            place_ready(index, &state.settings, (task, stage), is_open, is_in);
            let counts = &mut index.counts;
            if is_open { &mut counts.ready } else { &mut counts.unassigned }
        }
        TaskPhase::Working { .. } => &mut counts.wip,
        TaskPhase::Landing { entry } => {
            if is_open && task.approval.is_none() {
                if is_in {
                    index.lane.insert(*entry, id.clone());
                } else {
                    index.lane.remove(entry);
                }
            }
            &mut counts.landing
        }
        TaskPhase::Blocked(block) => {
            if block.class == super::attempt::Class::Dependency && links.dead_ends == 0 {
                put(&mut index.freed, id.clone(), is_in);
            }
            &mut counts.blocked
        }
        TaskPhase::Completed { .. } => &mut counts.completed,
        TaskPhase::Cancelled { .. } => &mut counts.cancelled,
    };
    *counter = if is_in { *counter + 1 } else { *counter - 1 };
}

/// Puts a ready task where it is found by whoever starts it, wakes it, or gives it up.
fn place_ready(
    index: &mut Index,
    settings: &Settings,
    (task, stage): (&Task, &StageName),
    is_open: bool,
    is_in: bool,
) {
    if is_open && purse::is_overdrawn(&settings.limits, task) {
        put(&mut index.overdrawn, task.id.clone(), is_in);
    } else if let Some(until) = task.backoff_until {
        put(&mut index.backoff, (until, task.id.clone()), is_in);
    } else if is_open {
        let demand = Demand::of(settings, task, stage);
        let place = (Rank::of(task, settings.scheduler.policy), task.id.clone());
        let queues = index.ready.entry(stage.clone()).or_default();
        if is_in {
            queues.insert(demand, place);
        } else {
            queues.remove(demand, &place);
        }
        if queues.is_empty() {
            index.ready.remove(stage);
        }
    }
}

/// Makes the lane's effects anew.
pub(super) fn refresh_lane(state: &mut State) {
    let due = effect::of_lane(state);
    for old in std::mem::replace(&mut state.index.lane_effects, due.clone()) {
        state.index.effects.remove(&old);
    }
    state.index.effects.extend(due);
}
