//! An external scheduler that is at its best sometimes right.

use pipeline::machine::id::{AgentName, TaskId};
use pipeline::machine::proposal::{Pair, ProposalFault};
use pipeline::machine::task::TaskPhase;
use pipeline::machine::{Observation, State};

use super::dice::Dice;

/// Draws what it answers.
pub fn answer(state: &State, number: u64, dice: &mut Dice) -> Observation {
    let fault = match dice.below(12) {
        0..=5 => return Observation::Proposed { number, pairs: sensible(state, dice) },
        6 | 7 => return Observation::Proposed { number, pairs: nonsense(state, dice) },
        8 => return Observation::Proposed { number, pairs: Vec::new() },
        9 => ProposalFault::Late,
        10 => ProposalFault::Failed,
        _ => ProposalFault::Unreadable,
    };
    Observation::NotProposed { number, fault, why: "drawn".into() }
}

/// Returns what is met when it gives this answer.
pub fn mark(answer: &Observation) -> &'static str {
    match answer {
        Observation::Proposed { pairs, .. } if pairs.is_empty() => "the scheduler proposes nothing",
        Observation::Proposed { .. } => "the scheduler proposes something",
        _ => "the scheduler fails",
    }
}

/// Ready tasks for free agents of their stages, in any order; some may not start beside others.
fn sensible(state: &State, dice: &mut Dice) -> Vec<Pair> {
    let mut free: Vec<_> = state.agents.values().filter(|agent| state.is_free(agent)).collect();
    let mut ready: Vec<_> = state
        .tasks
        .values()
        .filter_map(|task| match &task.phase {
            TaskPhase::Ready { stage } => Some((&task.id, stage)),
            TaskPhase::Waiting
            | TaskPhase::Working { .. }
            | TaskPhase::Landing { .. }
            | TaskPhase::Blocked(_)
            | TaskPhase::Completed { .. }
            | TaskPhase::Cancelled { .. } => None,
        })
        .collect();
    let mut pairs = Vec::new();
    while !ready.is_empty() {
        let (id, stage) = ready.swap_remove(dice.below(ready.len()));
        let able: Vec<usize> =
            (0..free.len()).filter(|at| free[*at].stages.contains(stage)).collect();
        let Some(at) = dice.pick(&able) else { continue };
        pairs.push(Pair { task: id.clone(), agent: free.swap_remove(at).name.clone() });
    }
    pairs
}

/// Anything for anybody: what is not there, what is busy, and the same twice.
fn nonsense(state: &State, dice: &mut Dice) -> Vec<Pair> {
    let mut tasks: Vec<TaskId> = state.tasks.keys().cloned().collect();
    tasks.push(TaskId::new("nobody"));
    let mut agents: Vec<AgentName> = state.agents.keys().cloned().collect();
    agents.push(AgentName::new("nobody"));
    let pairs = (0..1 + dice.below(4))
        .filter_map(|_| Some(Pair { task: dice.pick(&tasks)?, agent: dice.pick(&agents)? }));
    let mut pairs: Vec<Pair> = pairs.collect();
    pairs.extend(pairs.first().cloned());
    pairs
}
