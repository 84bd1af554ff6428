//! One current task; the next one when it has landed or needs a person.

use std::collections::BTreeSet;

use super::{Assignment, Picked, agent_for};
use crate::machine::id::{StageName, TaskId};
use crate::machine::state::State;
use crate::machine::task::TaskPhase;

pub(super) fn pick(state: &State, room: usize) -> Picked {
    let mut picked = Picked::default();
    let current = state.current.as_ref().filter(|id| is_going_on(state, id));
    let Some(current) = current else {
        let next = furthest(state);
        if next != state.current {
            picked.current = Some(next);
        }
        return picked;
    };
    // Also after a forced switch: what still runs ends before the next one starts.
    let is_quiet = !state.has_work() && state.landing.is_none() && room > 0;
    if let TaskPhase::Ready { stage } = &state.tasks[current].phase
        && is_quiet
        && is_queued(state, stage, current)
        && let Some(agent) = agent_for(state, current, stage, &BTreeSet::new())
    {
        let (task, stage, agent) = (current.clone(), stage.clone(), agent.name.clone());
        picked.assignments.push(Assignment { task, stage, agent });
    }
    picked
}

fn is_going_on(state: &State, id: &TaskId) -> bool {
    state.tasks.get(id).is_some_and(|task| match &task.phase {
        TaskPhase::Ready { stage } => task.backoff_until.is_some() || is_queued(state, stage, id),
        TaskPhase::Working { .. } => true,
        TaskPhase::Landing { .. } => task.approval.is_none() && state.base.conflict.is_none(),
        TaskPhase::Waiting
        | TaskPhase::Blocked(_)
        | TaskPhase::Completed { .. }
        | TaskPhase::Cancelled { .. } => false,
    })
}

/// Returns true when the task is neither held nor beyond the gate.
fn is_queued(state: &State, stage: &StageName, id: &TaskId) -> bool {
    let queues = state.index.ready.get(stage);
    queues.is_some_and(|queues| {
        let key = state.tasks[id].spec.needs.join(",");
        queues.get(&key).is_some_and(|queue| queue.contains(&(state.rank(id), id.clone())))
    })
}

/// Returns the ready task of the latest stage, the first in rank among its like.
fn furthest(state: &State) -> Option<TaskId> {
    let stages = state.settings.stages.iter().rev();
    let queues = stages.filter_map(|stage| state.index.ready.get(&StageName::new(&stage.name)));
    let mut firsts = queues.filter_map(|queues| {
        queues.values().filter_map(|queue| queue.first()).min().map(|(_, id)| id.clone())
    });
    firsts.next()
}
