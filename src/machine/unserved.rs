//! Ready tasks that no agent there is can ever take: told at once, and once.

use super::apply::apply;
use super::change::{Change, ProjectChange, TaskChange};
use super::id::StageName;
use super::schedule::demand::Demand;
use super::schedule::load::Obstacle;
use super::schedule::pool::lacking;
use super::state::State;
use super::step::task as of_task;
use super::task::{Task, TaskPhase};

/// Returns what is to be told about the tasks that the changes make ready or edit, and after a change
/// of settings, of what agents can start or of what a provider refuses about all that are ready. Cost:
/// after these, the state.
pub(super) fn told(state: &State, changes: &[Change]) -> Vec<Change> {
    let is_for_all = |change: &&Change| match change {
        Change::Project(
            ProjectChange::SettingsAdopted { .. } | ProjectChange::AgentUnusable { .. },
        ) => true,
        Change::Project(ProjectChange::ProviderSet { name, pause }) => {
            let was_refused = state.pauses.get(name).is_some_and(|pause| pause.is_refused);
            was_refused != pause.as_ref().is_some_and(|pause| pause.is_refused)
        }
        // What the queues decide takes nobody away who cannot come back.
        Change::Project(ProjectChange::AgentsScaled { group, target, .. }) => {
            let group = state.settings.group(group);
            target.is_by_hand || group.is_some_and(|group| !state.is_scaling(group))
        }
        Change::Project(_) | Change::Task(..) | Change::Attempt(..) | Change::Lane(_) => false,
    };
    if changes.iter().any(|change| is_for_all(&change)) {
        let mut later = state.clone();
        changes.iter().filter(is_for_all).for_each(|change| apply(&mut later, change));
        let ready = later.tasks.values().filter_map(|task| match &task.phase {
            TaskPhase::Ready { stage } => told_of(&later, task, stage),
            TaskPhase::Waiting
            | TaskPhase::Working { .. }
            | TaskPhase::Landing { .. }
            | TaskPhase::Blocked(_)
            | TaskPhase::Completed { .. }
            | TaskPhase::Cancelled { .. } => None,
        });
        return ready.chain(told_of_changed(&later, changes)).collect();
    }
    told_of_changed(state, changes).collect()
}

/// Returns what is to be told about the tasks that the changes make ready or edit.
fn told_of_changed<'a>(
    state: &'a State,
    changes: &'a [Change],
) -> impl Iterator<Item = Change> + 'a {
    (0..changes.len())
        .filter_map(|place| told_at(state, &changes[..=place], changes.get(place + 1)))
}

/// Tells about the last of `changes`; of a task that an edit moves as well it is told with the edit.
fn told_at(state: &State, changes: &[Change], next: Option<&Change>) -> Option<Change> {
    let (Change::Task(id, change), before) = changes.split_last()? else { return None };
    let task = state.tasks.get(id)?;
    if let TaskChange::Moved { to: TaskPhase::Ready { stage }, .. } = change {
        let is_edited_next =
            matches!(next, Some(Change::Task(of, TaskChange::Edited { .. })) if of == id);
        return if is_edited_next { None } else { told_of(state, task, stage) };
    }
    let TaskChange::Edited { spec, .. } = change else { return None };
    let phase = match before.last() {
        Some(Change::Task(of, TaskChange::Moved { to, .. })) if of == id => to,
        Some(_) | None => &task.phase,
    };
    let TaskPhase::Ready { stage } = phase else { return None };
    let edited = Task { spec: (**spec).clone(), ..task.clone() };
    told_of(state, &edited, stage)
}

fn told_of(state: &State, task: &Task, stage: &StageName) -> Option<Change> {
    let what = missing(state, task, stage);
    (what != task.unserved).then(|| of_task(&task.id, TaskChange::Unserved { what }))
}

/// Returns what there never is for the task's stage, in words; `None`: nothing is missing. Agents
/// that are paused, busy or cool down are there.
#[must_use]
pub fn missing(state: &State, task: &Task, stage: &StageName) -> Option<String> {
    lacking(state, stage, &task.spec.needs).or_else(|| {
        let demand = Demand::of(&state.settings, task, stage);
        Obstacle::beyond(&state.settings, &demand).map(|beyond| beyond.words(state, &demand))
    })
}
