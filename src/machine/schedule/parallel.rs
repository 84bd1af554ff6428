//! As many tasks at once as there are agents; the stage furthest along is served first.

use std::collections::{BTreeMap, BTreeSet};

use super::{Assignment, Picked, agent_for};
use crate::machine::id::{AgentName, StageName, TaskId};
use crate::machine::index::{Rank, ReadyQueues};
use crate::machine::state::State;

pub(super) fn pick(state: &State, room: usize) -> Picked {
    let mut picked = Picked::default();
    let mut used: BTreeSet<&AgentName> = BTreeSet::new();
    for stage in state.settings.stages.iter().rev() {
        let name = StageName::new(&stage.name);
        if let Some(queues) = state.index.ready.get(&name) {
            serve(state, &name, queues, room, &mut used, &mut picked);
        }
    }
    picked
}

/// Serves one stage in order of rank over all its queues. A queue whose head no free agent can
/// take is left out: the rest of it needs the same.
fn serve<'a>(
    state: &'a State,
    stage: &StageName,
    queues: &ReadyQueues,
    room: usize,
    used: &mut BTreeSet<&'a AgentName>,
    picked: &mut Picked,
) {
    let mut heads: BTreeMap<(Rank, &TaskId), usize> = BTreeMap::new();
    let mut rest: Vec<_> = queues.values().map(|queue| queue.iter()).collect();
    for (place, queue) in rest.iter_mut().enumerate() {
        heads.extend(queue.next().map(|(rank, id)| ((*rank, id), place)));
    }
    while picked.assignments.len() < room {
        let Some(((_, task), place)) = heads.pop_first() else { return };
        let Some(agent) = agent_for(state, task, stage, used) else { continue };
        used.insert(&agent.name);
        let agent = agent.name.clone();
        picked.assignments.push(Assignment { task: task.clone(), stage: stage.clone(), agent });
        heads.extend(rest[place].next().map(|(rank, id)| ((*rank, id), place)));
    }
}
