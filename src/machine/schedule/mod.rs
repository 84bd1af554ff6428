//! Who gets what: a pure pick from the ready tasks. A new mode is one file and one arm here.

mod ahead;
pub mod demand;
mod kept;
pub mod load;
mod parallel;
mod paths;
pub mod pool;
pub mod proposed;
pub mod queues;
pub mod rank;
mod sequential;

use super::agent::Agent;
use super::id::{AgentName, StageName, TaskId};
use super::mode::Orchestration;
use super::state::State;

pub use ahead::{Ahead, ahead};
pub use parallel::{AGEING, Standing};
use pool::Pool;

pub use pool::can_serve;

/// A task's stage for an agent.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Assignment {
    pub task: TaskId,
    pub stage: StageName,
    pub agent: AgentName,
}

/// What is to be done now.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Picked {
    /// At most as many as asked for; no task and no agent twice.
    pub assignments: Vec<Assignment>,
    /// Sequential mode goes on to this task.
    pub current: Option<Option<TaskId>>,
    /// This task collects what it asks for from now on.
    pub collecting: Option<Option<TaskId>>,
}

/// Picks at most `room` assignments.
#[must_use]
pub fn pick(state: &State, room: usize) -> Picked {
    pick_with(state, &[], room)
}

/// Picks as if `added` were there as well, free.
#[must_use]
pub fn pick_with(state: &State, added: &[Agent], room: usize) -> Picked {
    let pool = Pool::of(state, added);
    match state.orchestration {
        Orchestration::Sequential => sequential::pick(state, &pool, room),
        Orchestration::Parallel | Orchestration::Hybrid => parallel::pick(state, pool, room),
    }
}
