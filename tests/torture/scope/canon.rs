//! A state as 128 bits: equal for states from which the same can happen.

use std::fmt::{self, Write};
use std::hash::Hash;

use pipeline::machine::State;
use xxhash_rust::xxh3::Xxh3;

use super::node::Node;

struct Text<'a>(&'a mut Xxh3);

impl Write for Text<'_> {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        self.0.update(text.as_bytes());
        Ok(())
    }
}

/// Returns the hash of all that a node's future depends on. Settings are those of the whole space;
/// the index follows from the rest.
pub fn digest(node: &Node) -> u128 {
    let mut hash = Xxh3::new();
    write_state(&mut Text(&mut hash), &node.state).expect("a hash takes any text");
    (&node.world, &node.monitor, &node.fenced, node.left, node.asked).hash(&mut hash);
    node.done.hash(&mut hash);
    hash.digest128()
}

fn write_state(to: &mut impl Write, state: &State) -> fmt::Result {
    let drive = (state.orchestration, state.rollout, state.is_paused, state.stopping, state.drain);
    let lane = (&state.landing, &state.base, &state.current, state.monitor.attempts, state.entries);
    write!(to, "{drive:?}{lane:?}")?;
    for task in state.tasks.values() {
        let stand = (&task.phase, task.is_held, task.backoff_until, task.tally, &task.numbers);
        let work = (&task.tip, &task.merge_owed, &task.resume_from, &task.avoid, &task.hint);
        let rest = (&task.approved, &task.approval, &task.spec.depends_on, task.is_announced);
        let rest = (rest, &task.changed, &task.continues);
        write!(to, "{stand:?}{work:?}{rest:?}")?;
    }
    for agent in state.agents.values() {
        let slots = (agent.slot, agent.spare);
        let stand = (agent.is_paused, &agent.attempt, slots, agent.completed);
        write!(to, "{stand:?}")?;
    }
    for attempt in state.attempts.values() {
        let stand = (&attempt.id, &attempt.kind, &attempt.agent, attempt.slot, attempt.phase);
        let work = (&attempt.base, &attempt.merge, &attempt.saved, &attempt.verdict);
        let leaked = attempt.exit.as_ref().map(|exit| exit.leaked);
        let has_begun = (attempt.started_at.is_some(), &attempt.continues);
        let rest = (leaked, attempt.is_stopping, &attempt.tries, has_begun);
        write!(to, "{stand:?}{work:?}{rest:?}")?;
    }
    Ok(())
}
