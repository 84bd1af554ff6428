//! Which tasks can never be taken: worth a warning when they are added or edited.

use crate::machine::change::TaskChange;
use crate::machine::id::TaskId;
use crate::machine::stage;
use crate::machine::task::{Task, TaskKind};
use crate::machine::unserved::missing;
use crate::machine::{Change, State};

use super::console::Console;
use super::gate::Sent;

/// Warnings shown; the rest is counted.
const WARNINGS_MAX: usize = 10;

/// Warns of each added task that has a stage which can never be done. `state` holds the agents; the
/// tasks are taken from the changes.
pub fn warn(state: &State, sent: &Sent, console: &mut Console<'_>) {
    let added = sent.changes.iter().filter_map(|change| match change {
        Change::Task(_, TaskChange::Added { task }) => Some(&**task),
        Change::Project(_) | Change::Task(..) | Change::Attempt(..) | Change::Lane(_) => None,
    });
    let found: Vec<String> = added.filter_map(|task| unserved(state, task)).collect();
    for text in found.iter().take(WARNINGS_MAX) {
        console.warn(text);
    }
    if found.len() > WARNINGS_MAX {
        let more = found.len() - WARNINGS_MAX;
        console.warn(&format!("{more} more tasks have a stage that can never be done"));
    }
}

/// Warns of one task that stands in the state.
pub fn warn_of(state: &State, id: &TaskId, console: &mut Console<'_>) {
    if let Some(text) = state.tasks.get(id).and_then(|task| unserved(state, task)) {
        console.warn(&text);
    }
}

/// Returns what is missing; `None` when every stage of the task has what it asks for, and for epics.
fn unserved(state: &State, task: &Task) -> Option<String> {
    if task.spec.kind == TaskKind::Epic {
        return None;
    }
    let mut stages = state.settings.stages.iter().filter(|found| stage::applies(found, task));
    let missing = stages.find_map(|found| missing(state, task, &found.id()))?;
    Some(format!("task `{}`: {missing}", task.id))
}
