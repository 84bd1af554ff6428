//! What the next attempt goes on from, when one at its stage was cut short.
//!
//! Two things can be taken over, each where it is known: what was left in the worktree, as a salvaged
//! commit, and the session of the program, where the same agent gets the same folder again.

use super::agent::Agent;
use super::attempt::{Attempt, Class, EndedBy};
use super::id::{AttemptId, Oid, StageName};
use super::state::State;
use super::task::Task;

/// A program that was to take up a session again and ends sooner than this, in milliseconds, without
/// having done anything, could not.
const REFUSED_MS_MAX: u64 = 60_000;

/// What a task's next attempt starts from; nothing: the task's branch.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(super) struct Onward {
    pub(super) continues: Option<AttemptId>,
    pub(super) resume_from: Option<Oid>,
}

impl Onward {
    /// Returns what the task goes on from as it stands.
    pub(super) fn of(task: &Task) -> Self {
        Self { continues: task.continues.clone(), resume_from: task.resume_from.clone() }
    }

    /// Returns what the task goes on from after an attempt that did not complete its stage.
    pub(super) fn after(task: &Task, found: &Attempt, class: Class) -> Self {
        let is_idle = found.saved.is_none() || is_as_begun(found);
        let never_began = found.started_at.is_none() && is_idle;
        // What is left after a fault of git or disk stays where it is, and is not known.
        let is_unknown = class == Class::Infrastructure
            || class == Class::Lost && found.saved.is_none() && task.resume_from.is_some();
        if never_began || is_unknown || is_refused(found, class) {
            return Self::of(task);
        }
        if !class.is_cut_short() || is_stuck(found, class) {
            return Self::default();
        }
        let session = found.exit.as_ref().and_then(|exit| exit.usage.session.as_ref());
        let is_of_use = found.saved.is_some() || session.is_some();
        Self { continues: is_of_use.then(|| found.id.clone()), resume_from: found.saved.clone() }
    }
}

/// Returns true when an attempt left the very commit that it began at.
fn is_as_begun(found: &Attempt) -> bool {
    found.base.is_some() && found.saved == found.base
}

/// Returns true when an attempt went on from another one and got no further: whatever stops them may
/// be in what is taken over. One ended on request, or by its provider, tells nothing of that.
pub(super) fn is_stuck(found: &Attempt, class: Class) -> bool {
    let is_telling =
        matches!(class, Class::TimedOut | Class::Silent | Class::Crashed | Class::Lost);
    let is_idle = found.base.is_some() && (found.saved.is_none() || is_as_begun(found));
    is_telling && found.continues.is_some() && is_idle
}

/// Returns true when its program could not take up the session: the next attempt goes on from the same
/// work, with a session of its own.
fn is_refused(found: &Attempt, class: Class) -> bool {
    let (Some(_), Some(exit)) = (&found.session, &found.exit) else { return false };
    let is_ended = matches!(class, Class::Failed | Class::Incomplete | Class::Crashed)
        && exit.ended_by == EndedBy::Exit;
    let ran_ms = exit.ended_at.ms_since(exit.started_at);
    let is_idle = found.saved.is_none() || is_as_begun(found);
    let is_silent = exit.marker.is_none() && exit.usage.tokens().is_none_or(|tokens| tokens == 0);
    is_ended && is_idle && is_silent && ran_ms < REFUSED_MS_MAX
}

/// Returns the ended attempt that the task's next one at the stage goes on from.
#[must_use]
pub fn continued<'a>(task: &'a Task, stage: &StageName) -> Option<&'a Attempt> {
    before(task, task.continues.as_ref()?).filter(|found| found.stage() == Some(stage))
}

fn before<'a>(task: &'a Task, id: &AttemptId) -> Option<&'a Attempt> {
    task.history.iter().rev().find(|old| old.id == *id)
}

/// Returns the attempts that one goes on from, the last first.
#[must_use]
pub fn chain(task: &Task, attempt: &Attempt) -> Vec<AttemptId> {
    let step = |found: &Attempt| found.continues.clone();
    let next = |id: &AttemptId| before(task, id).and_then(step);
    std::iter::successors(step(attempt), next).collect()
}

/// Returns the attempt whose session the task's next one can take up again; `None` also when one since
/// then tried and could not.
fn with_session<'a>(task: &'a Task, continues: &AttemptId) -> Option<&'a Attempt> {
    let found = before(task, continues)?;
    let is_begun = |old: &&Attempt| old.is_work() && old.started_at.is_some();
    let last = task.history.iter().rev().find(is_begun)?;
    let is_known = found.exit.as_ref().is_some_and(|exit| exit.usage.session.is_some());
    (is_known && last.id == found.id).then_some(found)
}

/// Returns the agent and the worktree slot that know the session which the task's next attempt can take
/// up: some programs look for it by their folder.
#[must_use]
pub fn place(task: &Task) -> Option<(&super::id::AgentName, u32)> {
    let found = with_session(task, task.continues.as_ref()?)?;
    Some((&found.agent, found.slot))
}

/// Returns the slot for the task's next attempt by the agent: that of the session, where it is one that
/// the agent may have now.
pub(super) fn slot(task: &Task, agent: &Agent) -> u32 {
    let own = place(task).filter(|(name, _)| **name == agent.name).map(|(_, slot)| slot);
    let is_free = |slot: &u32| *slot == agent.slot || Some(*slot) == agent.spare;
    own.filter(is_free).unwrap_or(agent.slot)
}

/// A session that may be taken up again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Session<'a> {
    /// The program's name for it.
    pub name: &'a str,
    /// Hash of the preset file that it was begun by: another program does not know it.
    pub preset: &'a str,
}

/// Returns the session that the live attempt may take up again.
#[must_use]
pub fn session<'a>(state: &'a State, attempt: &Attempt) -> Option<Session<'a>> {
    let task = state.tasks.get(attempt.task.as_ref()?)?;
    let found = with_session(task, attempt.continues.as_ref()?)?;
    let is_there = found.agent == attempt.agent && found.slot == attempt.slot;
    let name = found.exit.as_ref()?.usage.session.as_deref();
    let preset = found.preset.as_deref();
    name.zip(preset).filter(|_| is_there).map(|(name, preset)| Session { name, preset })
}
