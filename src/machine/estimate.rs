//! How long work is expected to take.

use super::settings::Stage;
use super::stage;
use super::state::State;
use super::task::{Task, TaskPhase};

/// Returns how long `task` is expected to take in `stage`, in milliseconds: its share of what a
/// person said of the task, else the mean of what the stage took so far, else the configured one.
#[must_use]
pub fn stage_ms(state: &State, task: &Task, config: &Stage) -> u64 {
    if let Some(all) = task.spec.estimate_ms {
        let stages = state.settings.stages.iter().filter(|stage| stage::applies(stage, task));
        return all / (stages.count().max(1) as u64);
    }
    let learned = state.metrics.stage_ms.get(&config.name).filter(|sum| sum.count > 0);
    learned.map_or(config.estimate_ms, |sum| sum.total_ms / sum.count)
}

/// Returns how long the stages that the task has still to pass are expected to take.
#[must_use]
pub fn left_ms(state: &State, task: &Task) -> u64 {
    let at = match &task.phase {
        TaskPhase::Waiting => None,
        TaskPhase::Ready { stage } | TaskPhase::Working { stage, .. } => Some(stage),
        TaskPhase::Blocked(block) => block.stage.as_ref(),
        TaskPhase::Landing { .. } | TaskPhase::Completed { .. } | TaskPhase::Cancelled { .. } => {
            return 0;
        }
    };
    let first = at.and_then(|at| state.settings.stage(at.as_str())).map_or(0, |(place, _)| place);
    let left = state.settings.stages[first..].iter().filter(|stage| stage::applies(stage, task));
    left.map(|stage| stage_ms(state, task, stage)).fold(0, u64::saturating_add)
}
