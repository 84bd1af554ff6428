//! How far the work below an epic is.

use super::id::TaskId;
use super::state::State;
use super::task::{Task, TaskKind, TaskPhase};

/// Tasks below an epic, however deep; epics among them are not counted, what is below them is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Progress {
    pub open: u32,
    pub completed: u32,
    pub cancelled: u32,
}

impl Progress {
    /// Returns what the task itself adds to the epics above it.
    #[must_use]
    pub fn of(task: &Task) -> Self {
        let mut own = Self::default();
        let counter = match (&task.phase, task.spec.kind) {
            (_, TaskKind::Epic) => return own,
            (TaskPhase::Completed { .. }, TaskKind::Task) => &mut own.completed,
            (TaskPhase::Cancelled { .. }, TaskKind::Task) => &mut own.cancelled,
            (
                TaskPhase::Waiting
                | TaskPhase::Ready { .. }
                | TaskPhase::Working { .. }
                | TaskPhase::Landing { .. }
                | TaskPhase::Blocked(_),
                TaskKind::Task,
            ) => &mut own.open,
        };
        *counter = 1;
        own
    }

    /// Returns true when there was something to do and none of it is open.
    #[must_use]
    pub const fn is_done(self) -> bool {
        self.open == 0 && self.completed + self.cancelled > 0
    }

    /// Returns how many tasks are done or are still to be done; cancelled ones are neither.
    #[must_use]
    pub const fn total(self) -> u32 {
        self.open + self.completed
    }

    const fn plus(self, other: Self) -> Self {
        Self {
            open: self.open + other.open,
            completed: self.completed + other.completed,
            cancelled: self.cancelled + other.cancelled,
        }
    }

    const fn minus(self, other: Self) -> Self {
        Self {
            open: self.open - other.open,
            completed: self.completed - other.completed,
            cancelled: self.cancelled - other.cancelled,
        }
    }
}

/// Returns what is at the task and below it.
pub(super) fn at_and_below(state: &State, id: &TaskId) -> Progress {
    let below = state.index.links(id).map(|links| links.below).unwrap_or_default();
    Progress::of(&state.tasks[id]).plus(below)
}

/// Puts `was` right to `is` in every epic above the task, as far as they are known.
/// Cost: how deep epics are nested.
pub(super) fn carry(state: &mut State, id: &TaskId, was: Progress, is: Progress) {
    if was == is {
        return;
    }
    let mut next = state.tasks[id].spec.parent.clone();
    while let Some(epic) = next {
        next = state.tasks.get(&epic).and_then(|task| task.spec.parent.clone());
        let links = state.index.links.entry(epic).or_default();
        links.below = links.below.plus(is).minus(was);
    }
}

/// Returns the open tasks below an epic, those of nested epics among them, by id. Cost: tasks.
pub fn open_below<'a>(state: &'a State, epic: &'a TaskId) -> impl Iterator<Item = &'a TaskId> {
    let parent = |id: &TaskId| state.tasks.get(id).and_then(|task| task.spec.parent.as_ref());
    let open =
        state.tasks.values().filter(|task| !task.is_final() && task.spec.kind == TaskKind::Task);
    let is_below = move |id: &&TaskId| {
        let mut above = std::iter::successors(parent(id), |above| parent(above));
        above.any(|above| above == epic)
    };
    open.map(|task| &task.id).filter(is_below)
}
