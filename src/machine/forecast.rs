//! Which open branches would conflict, as tried when a stage ends: told early, holding up nothing.
//!
//! No effect that is owed: a trial that a crash took along is made again when the branch next moves.

use super::attempt::Class;
use super::change::TaskChange;
use super::changed;
use super::id::{Oid, TaskId};
use super::state::State;
use super::step::{Step, task as of_task};
use super::task::{Clash, Task};

/// Most other branches that one branch is tried against.
pub const OTHERS_MAX: usize = 8;
/// Most conflicts kept of one branch.
pub const CLASHES_MAX: usize = 16;
/// Most paths kept of one conflict.
pub const CLASH_PATHS_MAX: usize = 16;

/// What a branch is to be tried against.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Trial {
    pub task: TaskId,
    /// Where its branch stands.
    pub tip: Oid,
    /// Where the landing branch stands; `None`: the branch holds that already.
    pub onto: Option<Oid>,
    /// Open branches that changed some of the same paths, and where they stand; those with most of
    /// them first.
    pub others: Vec<(TaskId, Oid)>,
}

/// Returns what the task's branch is to be tried against; `None`: nothing. Cost: open branches.
#[must_use]
pub fn trial(state: &State, id: &TaskId) -> Option<Trial> {
    let task = state.tasks.get(id).filter(|task| !task.is_final())?;
    let tip = task.tip.clone()?;
    let onto = state.base.landed.clone().filter(|landed| !holds(task, landed));
    let others = state.index.branches.iter().filter(|other| *other != id);
    let others = others.map(|other| (changed::common(task, &state.tasks[other]), other));
    let mut others: Vec<(usize, &TaskId)> = others.filter(|(common, _)| *common > 0).collect();
    others.sort_by_key(|(common, _)| std::cmp::Reverse(*common));
    others.truncate(OTHERS_MAX);
    let tips = others.into_iter().filter_map(|(_, other)| {
        let tip = state.tasks[other].tip.clone()?;
        Some((other.clone(), tip))
    });
    let trial = Trial { task: id.clone(), tip, onto, others: tips.collect() };
    (trial.onto.is_some() || !trial.others.is_empty()).then_some(trial)
}

/// Returns true when the branch was made from, or has taken in, what has landed up to `landed`.
fn holds(task: &Task, landed: &Oid) -> bool {
    task.history.iter().any(|attempt| {
        let has_merged =
            attempt.outcome.as_ref().is_some_and(|outcome| outcome.class == Class::Completed);
        attempt.base.as_ref() == Some(landed)
            || (has_merged && attempt.merge.as_ref() == Some(landed))
    })
}

/// Notes what a trial told, where that is not on record; `tip` is where the branch stood.
pub(super) fn decide(
    state: &State,
    id: &TaskId,
    tip: &Oid,
    tried: &[TaskId],
    clashes: &[Clash],
) -> Step {
    let found = state.tasks.get(id).filter(|task| !task.is_final());
    let Some(task) = found.filter(|task| task.tip.as_ref() == Some(tip)) else {
        return Step::note(format!("the branch of `{id}` has moved on since it was tried"));
    };
    let mut clashes = clashes.to_vec();
    clashes.truncate(CLASHES_MAX);
    for clash in &mut clashes {
        clash.paths.truncate(CLASH_PATHS_MAX);
    }
    let names_it = |other: &&TaskId| {
        let other = state.tasks.get(*other);
        other.is_some_and(|other| other.forecast.iter().any(|it| it.with.as_ref() == Some(id)))
    };
    let tried: Vec<TaskId> = tried.iter().filter(names_it).cloned().collect();
    if clashes == task.forecast && tried.is_empty() {
        return Step::accept(Vec::new());
    }
    Step::accept(vec![of_task(id, TaskChange::Forecast { clashes, tried })])
}
