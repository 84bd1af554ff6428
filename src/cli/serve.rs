//! Which tasks can never be taken, or wait for nothing: worth a warning when they are added or edited.

use std::collections::BTreeSet;

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

/// Warns of each added task that has a stage which can never be done, or that depends on an epic.
/// `state` holds the agents; the tasks are taken from the changes.
pub fn warn(state: &State, sent: &Sent, console: &mut Console<'_>) {
    let added = sent.changes.iter().filter_map(|change| match change {
        Change::Task(_, TaskChange::Added { task }) => Some(&**task),
        Change::Project(_) | Change::Task(..) | Change::Attempt(..) | Change::Lane(_) => None,
    });
    let found = added.clone().filter_map(|task| unserved(state, task)).collect();
    tell(console, found, "more tasks have a stage that can never be done");
    // Rehearsed, the new ones are not in the state.
    let of_state = state.tasks.values();
    let all = of_state.chain(added.clone()).filter(|task| task.spec.kind == TaskKind::Epic);
    let epics: BTreeSet<&TaskId> = all.map(|epic| &epic.id).collect();
    let found = added.filter_map(|task| in_vain(task, |id| epics.contains(id))).collect();
    tell(console, found, "more tasks depend on epics, which hold nothing up");
}

fn tell(console: &mut Console<'_>, found: Vec<String>, more: &str) {
    for text in found.iter().take(WARNINGS_MAX) {
        console.warn(text);
    }
    if found.len() > WARNINGS_MAX {
        console.warn(&format!("{} {more}", found.len() - WARNINGS_MAX));
    }
}

/// Warns of one task that stands in the state.
pub fn warn_of(state: &State, id: &TaskId, console: &mut Console<'_>) {
    let Some(task) = state.tasks.get(id) else { return };
    let is_epic =
        |id: &TaskId| state.tasks.get(id).is_some_and(|task| task.spec.kind == TaskKind::Epic);
    for text in unserved(state, task).into_iter().chain(in_vain(task, is_epic)) {
        console.warn(&text);
    }
}

/// Returns which epic the task depends on: an epic holds nothing up.
fn in_vain(task: &Task, is_epic: impl Fn(&TaskId) -> bool) -> Option<String> {
    let epic = task.spec.depends_on.iter().find(|id| is_epic(id))?;
    let id = &task.id;
    Some(format!(
        "task `{id}` depends on the epic `{epic}`, which holds nothing up: name tasks of it"
    ))
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
