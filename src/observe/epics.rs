//! Epics and how far they are.

use serde::Serialize;

use super::words;
use crate::machine::State;
use crate::machine::progress::Progress;
use crate::machine::task::{Task, TaskKind};

/// How far an epic is; nested epics count with what is below them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct ProgressEntry {
    /// Tasks below it that are completed.
    pub done: u32,
    /// Tasks below it but for the cancelled ones.
    pub total: u32,
}

impl ProgressEntry {
    /// Makes the entry.
    #[must_use]
    pub const fn of(progress: Progress) -> Self {
        Self { done: progress.completed, total: progress.total() }
    }

    /// Returns it in words, e.g. `2 of 3 done`.
    #[must_use]
    pub fn words(self) -> String {
        format!("{} of {} done", self.done, self.total)
    }
}

/// An epic in the status.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct EpicEntry<'a> {
    pub id: &'a str,
    pub title: &'a str,
    /// `unassigned`, `completed` or `cancelled`.
    pub status: &'static str,
    pub progress: ProgressEntry,
}

impl EpicEntry<'_> {
    /// Returns true until all below it is done.
    #[must_use]
    pub fn is_open(&self) -> bool {
        self.status == "unassigned"
    }
}

/// Returns how far an epic is; `None` for a task.
#[must_use]
pub fn progress(state: &State, task: &Task) -> Option<Progress> {
    let is_epic = task.spec.kind == TaskKind::Epic;
    let below = || state.index.links(&task.id).map(|links| links.below).unwrap_or_default();
    is_epic.then(below)
}

/// Returns every epic, in order of creation. Cost: tasks.
#[must_use]
pub fn epics(state: &State) -> Vec<EpicEntry<'_>> {
    let all = state.tasks.values().filter_map(|task| Some((task, progress(state, task)?)));
    let mut all: Vec<(&Task, Progress)> = all.collect();
    all.sort_by_key(|(task, _)| task.entry);
    let entries = all.into_iter().map(|(task, progress)| EpicEntry {
        id: task.id.as_str(),
        title: &task.spec.title,
        status: words::of_epic(state, task),
        progress: ProgressEntry::of(progress),
    });
    entries.collect()
}
