//! One current task; the next one when it has landed or needs a person.

use super::demand::Demand;
use super::load::Load;
use super::parallel::AGEING;
use super::pool::{Pool, has_agent};
use super::{Assignment, Picked};
use crate::machine::gate;
use crate::machine::id::{StageName, TaskId};
use crate::machine::settings::Stage;
use crate::machine::state::State;
use crate::machine::task::{Task, TaskPhase};

pub(super) fn pick(state: &State, pool: &Pool<'_>, room: usize) -> Picked {
    let mut picked = Picked::default();
    let current = state.current.as_ref().filter(|id| is_going_on(state, id));
    let Some(current) = current else {
        let next = next(state);
        if next != state.current {
            picked.current = Some(next);
        }
        return picked;
    };
    // Also after a forced switch: what still runs ends before the next one starts.
    let is_quiet = !state.has_work() && state.landing.is_none() && room > 0;
    if let TaskPhase::Ready { stage } = &state.tasks[current].phase
        && is_quiet
        && state.tasks[current].backoff_until.is_none()
        && let demand = Demand::of(&state.settings, &state.tasks[current], stage)
        && Load::of(state).obstacle(current, stage, &demand).is_none()
        && let Some(agent) = pool.best(&state.tasks[current], stage, &demand)
    {
        let (task, stage, agent) = (current.clone(), stage.clone(), agent.name.clone());
        picked.assignments.push(Assignment { task, stage, agent });
    }
    picked
}

fn is_going_on(state: &State, id: &TaskId) -> bool {
    state.tasks.get(id).is_some_and(|task| match &task.phase {
        TaskPhase::Ready { stage } => {
            let is_free = !task.is_held && gate::may_act(state, id) && state.index.is_unblocked(id);
            is_free && can_run(state, task, stage)
        }
        TaskPhase::Working { .. } => true,
        TaskPhase::Landing { entry } => {
            let is_under_way = state.landing.as_ref().is_some_and(|landing| landing.task == *id);
            is_under_way || (state.index.lane.contains_key(entry) && state.base.conflict.is_none())
        }
        TaskPhase::Waiting
        | TaskPhase::Blocked(_)
        | TaskPhase::Completed { .. }
        | TaskPhase::Cancelled { .. } => false,
    })
}

/// Returns true when an agent and all that it asks for is there, busy or not; one task that lacks
/// something must not hold up all others.
fn can_run(state: &State, task: &Task, stage: &StageName) -> bool {
    let demand = Demand::of(&state.settings, task, stage);
    let obstacle = Load::of(state).obstacle(&task.id, stage, &demand);
    has_agent(state, stage, &demand) && obstacle.is_none_or(|found| found.is_passing())
}

/// Returns the one furthest along; where that is one not begun, every so many completed tasks the
/// oldest one.
fn next(state: &State) -> Option<TaskId> {
    let next = furthest(state)?;
    let is_due = state.index.counts.completed as u64 % AGEING == AGEING - 1;
    let task = &state.tasks[&next];
    let is_new = matches!(task.phase, TaskPhase::Ready { .. }) && task.history.is_empty();
    Some(if is_due && is_new { oldest(state).unwrap_or(next) } else { next })
}

fn oldest(state: &State) -> Option<TaskId> {
    let firsts = state.index.ready.iter().filter_map(|(stage, queues)| {
        let able = |id: &TaskId| can_run(state, &state.tasks[id], stage);
        queues.by_age().find(|(_, id, _)| able(id)).map(|(entry, id, _)| (entry, id))
    });
    firsts.min().map(|(_, id)| id.clone())
}

/// Returns the task of the latest stage that is ready or, after a forced switch, still worked on;
/// the first in rank among its like.
fn furthest(state: &State) -> Option<TaskId> {
    let mut firsts = state.settings.stages.iter().rev().map(Stage::id).filter_map(|stage| {
        let queues = state.index.ready.get(&stage);
        let heads = queues.into_iter().flat_map(|queues| queues.heads());
        let ready = heads.map(|((_, id), _)| id);
        let ready = ready.filter(|id| can_run(state, &state.tasks[*id], &stage));
        let works = |id: &&TaskId| match &state.tasks[*id].phase {
            TaskPhase::Working { stage: at, .. } => *at == stage,
            TaskPhase::Waiting
            | TaskPhase::Ready { .. }
            | TaskPhase::Landing { .. }
            | TaskPhase::Blocked(_)
            | TaskPhase::Completed { .. }
            | TaskPhase::Cancelled { .. } => false,
        };
        let worked_on = state.attempts.values().filter_map(|a| a.task.as_ref()).filter(works);
        ready.chain(worked_on).min_by_key(|id| (state.rank(id), *id)).cloned()
    });
    firsts.next()
}
