//! `pipeline agent logs`: what an agent writes, from attempt to attempt where it is followed.

use super::attempt_log::{LOOK, show_log};
use super::console::Console;
use super::error::Error;
use super::exit_code::Exit;
use super::gate::Gate;
use super::project::Open;
use crate::machine::State;
use crate::machine::attempt::Attempt;
use crate::machine::id::{AgentName, AttemptId};
use crate::machine::time::Time;

/// Prints the log of what an agent does, or did last; where it is followed, of what it does next as
/// well, until no monitor runs and it has nothing.
pub fn run(
    mut open: Open,
    console: &mut Console<'_>,
    name: &str,
    is_following: bool,
) -> Result<Exit, Error> {
    let name = &AgentName::new(name);
    let (state, mut seen, _) = open.now();
    let agent = state.agents.get(name).or_else(|| state.dismissed.get(name)).ok_or_else(|| {
        Error::invalid(format!("there is no agent `{name}`")).hint("see `pipeline agent list`")
    })?;
    let live = agent.attempt.as_ref().and_then(|id| state.attempts.get(id));
    let mut next = live.map(shown).or_else(|| next_of(state, name, None));
    if next.is_none() {
        console.note(&format!("agent `{name}` has not done anything yet"));
    }
    let mut after = None;
    loop {
        if let Some((at, id)) = next.take() {
            console.note(&format!("attempt {id}"));
            show_log(&mut open, console, &id, 0, is_following)?;
            after = Some(at);
        }
        // Asked before the state is read, which then holds all that it did.
        let has_monitor = open.has_monitor();
        let (state, seq) = open.state()?;
        if seq != seen {
            seen = seq;
            next = next_of(state, name, Some(after.unwrap_or_default()));
        }
        if !is_following || console.is_closed() || (next.is_none() && !has_monitor) {
            return Ok(Exit::Done);
        }
        if next.is_none() {
            open.wait_change(LOOK)?;
        }
    }
}

fn shown(attempt: &Attempt) -> (Time, AttemptId) {
    (attempt.assigned_at, attempt.id.clone())
}

/// Returns the agent's first attempt after a moment, or its newest one, with when it was assigned.
fn next_of(state: &State, name: &AgentName, after: Option<Time>) -> Option<(Time, AttemptId)> {
    let ended = state.tasks.values().flat_map(|task| &task.history);
    let all = ended.chain(state.attempts.values());
    let own = all.filter(|attempt| attempt.agent == *name && attempt.is_work());
    let found = match after {
        Some(after) => own
            .filter(|attempt| attempt.assigned_at > after)
            .min_by_key(|attempt| attempt.assigned_at),
        None => own.max_by_key(|attempt| attempt.assigned_at),
    };
    found.map(shown)
}
