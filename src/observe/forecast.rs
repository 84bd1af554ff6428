//! What would conflict, in words and for JSON.

use serde::Serialize;

use super::page::clean;
use crate::machine::State;
use crate::machine::task::{Clash, Task, TaskPhase};

/// Paths named in words; the rest is counted.
const PATHS_MAX: usize = 3;

/// A branch and what it would conflict with.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct ForecastEntry<'a> {
    pub id: &'a str,
    /// `None`: what has landed, by no task that is known.
    pub with: Option<&'a str>,
    pub paths: &'a [String],
}

impl<'a> ForecastEntry<'a> {
    /// Makes the entry of one conflict of a task's branch.
    #[must_use]
    pub fn new(id: &'a str, clash: &'a Clash) -> Self {
        Self { id, with: clash.with.as_ref().map(|id| id.as_str()), paths: &clash.paths }
    }
}

/// Returns what is foreseen for the task, in the order tried, then what others were told of it;
/// without those with cancelled tasks. Cost: open branches.
#[must_use]
pub fn of_task<'a>(state: &'a State, task: &'a Task) -> Vec<ForecastEntry<'a>> {
    let own = of_branch(state, task);
    let others = state.index.branches.iter().filter(|other| **other != task.id && !task.is_final());
    let told = others.flat_map(|other| of_branch(state, &state.tasks[other]));
    let told = told.filter(|entry| entry.with == Some(task.id.as_str()));
    let turned = told.map(|entry| ForecastEntry {
        id: task.id.as_str(),
        with: Some(entry.id),
        paths: entry.paths,
    });
    own.chain(turned).collect()
}

/// Returns all that is foreseen, by task; each conflict once. Cost: open branches.
#[must_use]
pub fn all(state: &State) -> Vec<ForecastEntry<'_>> {
    state.index.branches.iter().flat_map(|id| of_branch(state, &state.tasks[id])).collect()
}

fn of_branch<'a>(state: &'a State, task: &'a Task) -> impl Iterator<Item = ForecastEntry<'a>> {
    let is_cancelled = |clash: &&Clash| {
        let with = clash.with.as_ref().and_then(|id| state.tasks.get(id));
        with.is_some_and(|with| matches!(with.phase, TaskPhase::Cancelled { .. }))
    };
    let clashes = task.forecast.iter().filter(move |clash| !is_cancelled(clash));
    clashes.map(|clash| ForecastEntry::new(task.id.as_str(), clash))
}

/// Returns a conflict as what follows `would conflict with`.
#[must_use]
pub fn words(entry: &ForecastEntry<'_>) -> String {
    let mut paths: Vec<String> =
        entry.paths.iter().take(PATHS_MAX).map(|path| clean(path).into_owned()).collect();
    if entry.paths.len() > PATHS_MAX {
        paths.push(format!("{} more", entry.paths.len() - PATHS_MAX));
    }
    format!("{} in {}", entry.with.unwrap_or("what has landed"), paths.join(", "))
}
