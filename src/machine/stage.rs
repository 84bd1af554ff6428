//! The way of a task through the configured stages.

use super::change::{Change, Steer, TaskChange};
use super::id::StageName;
use super::mode::Isolation;
use super::settings::{Settings, Stage};
use super::state::State;
use super::step;
use super::task::{Tally, Task, TaskPhase};
use super::time::Time;

impl Settings {
    /// Returns the stage of that long name, with its place.
    #[must_use]
    pub fn stage(&self, name: &str) -> Option<(usize, &Stage)> {
        self.stages.iter().enumerate().find(|(_, stage)| stage.name == name)
    }

    /// Returns the stage of that long or short name.
    #[must_use]
    pub fn stage_by_any_name(&self, name: &str) -> Option<&Stage> {
        self.stages.iter().find(|stage| stage.name == name || stage.short == name)
    }

    /// Returns the checks of that stage.
    #[must_use]
    pub fn checks_of(&self, stage: &StageName) -> &[String] {
        self.stage(stage.as_str()).map_or(&[], |(_, stage)| stage.checks.as_slice())
    }
}

impl Stage {
    /// Returns the long name as a type.
    #[must_use]
    pub fn id(&self) -> StageName {
        StageName::new(&self.name)
    }
}

/// Returns true when the task passes through the stage.
#[must_use]
pub fn applies(stage: &Stage, task: &Task) -> bool {
    let is_chosen = task.spec.stages.is_empty()
        || task.spec.stages.iter().any(|name| name.as_str() == stage.name);
    let is_labelled = stage.labels.is_empty()
        || stage.labels.iter().any(|label| task.spec.labels.contains(label));
    is_chosen && is_labelled
}

/// Returns the first stage of the task; `None` when it passes through none.
#[must_use]
pub fn first(settings: &Settings, task: &Task) -> Option<StageName> {
    settings.stages.iter().find(|stage| applies(stage, task)).map(Stage::id)
}

/// Returns true when `task` stands ready at its first stage and has not begun, while with `now`, itself
/// as it is edited, under `settings` it would begin at another one.
#[must_use]
pub fn begins_elsewhere(state: &State, task: &Task, settings: &Settings, now: &Task) -> bool {
    let TaskPhase::Ready { stage } = &task.phase else { return false };
    let at_first = first(&state.settings, task).as_ref() == Some(stage);
    at_first && !task.has_begun() && first(settings, now).as_ref() != Some(stage)
}

/// Returns the stage after `name`; `None` after the last.
#[must_use]
pub fn after(settings: &Settings, task: &Task, name: &StageName) -> Option<StageName> {
    let (place, _) = settings.stage(name.as_str())?;
    settings.stages[place + 1..].iter().find(|stage| applies(stage, task)).map(Stage::id)
}

/// Returns `name`, where the task passes through it, else where it goes on, as it may have been edited
/// meanwhile: at the stage after it, or at its first one while nothing of it is done. Where there is
/// none it stays at `name`.
#[must_use]
pub fn at_or_else(settings: &Settings, task: &Task, name: &StageName) -> StageName {
    let found = settings.stage(name.as_str());
    if found.is_none_or(|(_, stage)| applies(stage, task)) {
        return name.clone();
    }
    // Without git there is no branch to tell by.
    let has_worked = settings.project.isolation == Isolation::None && task.tally.attempts > 0;
    let has_begun = task.has_begun() || has_worked;
    let other = if has_begun { after(settings, task, name) } else { first(settings, task) };
    other.unwrap_or_else(|| name.clone())
}

/// Returns what moves a task on that stands at `name`, where it no longer passes through that stage:
/// nothing that happened there counts at the next one, but that `more` attempts were used. `None`: it
/// stays.
pub(super) fn pass_over(
    settings: &Settings,
    task: &Task,
    name: &StageName,
    more: u32,
    at: Time,
) -> Option<Vec<Change>> {
    let stage = Some(at_or_else(settings, task, name)).filter(|stage| stage != name)?;
    let steer = Steer {
        merge_owed: task.merge_owed.clone(),
        avoid: task.avoid.clone(),
        hint: task.hint.clone(),
        ..Steer::default()
    };
    let tally = Tally {
        stage_failures: 0,
        infrastructure: 0,
        attempts: task.tally.attempts + more,
        ..task.tally
    };
    let tallied = (tally != task.tally).then_some(TaskChange::Tallied { tally });
    let steered = TaskChange::Steered { steer: Box::new(steer) };
    let moved = TaskChange::Moved { to: TaskPhase::Ready { stage }, at };
    let changes = tallied.into_iter().chain([steered, moved]);
    Some(changes.map(|change| step::task(&task.id, change)).collect())
}

/// Returns where work goes back to from `name` (`None`: from the landing): the configured stage
/// where the task passes through it, else the nearest earlier one that must change something; `None` when there is none.
#[must_use]
pub fn back_from(settings: &Settings, task: &Task, name: Option<&StageName>) -> Option<StageName> {
    let found = name.and_then(|name| settings.stage(name.as_str()));
    let back = found.and_then(|(_, stage)| settings.stage(stage.returns_to.as_deref()?));
    if let Some((_, back)) = back.filter(|(_, back)| applies(back, task)) {
        return Some(back.id());
    }
    let end = found.map_or(settings.stages.len(), |(place, _)| place);
    let earlier = settings.stages[..end].iter().rev();
    earlier.clone().find(|stage| stage.must_change && applies(stage, task)).map(Stage::id)
}
