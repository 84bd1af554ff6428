//! How much each task holds up: the longest chain of work behind it.
//!
//! The weights are part of the state, as of the last weighing: a weighing walks all open tasks, so
//! it is done once for many changes, and more seldom the more tasks there are.

use std::collections::BTreeMap;

use super::estimate;
use super::id::TaskId;
use super::settings::Policy;
use super::state::State;
use super::task::Weight;
use super::time::Time;

/// Attempts that complete before what was learned from them counts.
const COMPLETED_MIN: u64 = 32;
/// Tasks for which a weighing may be done once a millisecond.
const TASKS_PER_MS: u64 = 8;

/// When the weights were made, and what has changed since.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Weighing {
    pub at: Time,
    /// Tasks added and edited since.
    pub altered: u64,
    /// Attempts completed since.
    pub completed: u64,
}

/// Returns true when the weights are to be made anew.
#[must_use]
pub fn is_due(state: &State, at: Time) -> bool {
    let weighing = &state.weighing;
    let tasks = state.tasks.len() as u64;
    let is_asked = match state.settings.scheduler.policy {
        Policy::CriticalPath | Policy::Shortest => true,
        Policy::Priority | Policy::Fifo => false,
    };
    let has_learned = weighing.completed >= COMPLETED_MIN.max(tasks / TASKS_PER_MS);
    is_asked
        && (weighing.altered > 0 || has_learned)
        && at.ms_since(weighing.at) >= tasks / TASKS_PER_MS
}

/// Returns the weight of every open task. Cost: tasks and dependencies; no recursion.
#[must_use]
pub fn weights(state: &State) -> BTreeMap<TaskId, Weight> {
    let open = |id: &&TaskId| state.tasks.get(*id).is_some_and(|task| !task.is_final());
    let dependents = |id: &TaskId| {
        state.index.links(id).into_iter().flat_map(|links| &links.dependents).filter(open)
    };
    let mut found: BTreeMap<TaskId, Weight> = BTreeMap::new();
    let mut waits: BTreeMap<&TaskId, usize> = BTreeMap::new();
    let mut todo: Vec<&TaskId> = Vec::new();
    for task in state.tasks.values().filter(|task| !task.is_final()) {
        match dependents(&task.id).count() {
            0 => todo.push(&task.id),
            count => {
                waits.insert(&task.id, count);
            }
        }
    }
    while let Some(id) = todo.pop() {
        let task = &state.tasks[id];
        let own_ms = estimate::left_ms(state, task);
        let behind = dependents(id).filter_map(|id| found.get(id)).map(|weight| weight.tail_ms);
        let tail_ms = own_ms.saturating_add(behind.max().unwrap_or(0));
        found.insert(id.clone(), Weight { own_ms, tail_ms });
        for dep in task.spec.depends_on.iter().filter(open) {
            let left = waits.get_mut(dep).expect("an open dependency waits for its dependents");
            *left -= 1;
            if *left == 0 {
                todo.push(dep);
            }
        }
    }
    found
}
