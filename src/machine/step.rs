//! What the machine decides when something happens.

use super::change::{AttemptChange, Change, LaneChange, ProjectChange, TaskChange};
use super::event::{Event, EventBody};
use super::id::{AttemptId, TaskId};
use super::state::State;
use super::{command, observe, rollout, turn, unserved};

/// The outcome of one event.
#[derive(Debug, Clone, PartialEq)]
pub struct Step {
    /// In the order in which they are to be applied; may be empty.
    pub changes: Vec<Change>,
    pub answer: Answer,
}

/// What the one who sent the event is told.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Answer {
    Accept,
    /// A forbidden command; nothing changes.
    Refuse(Refusal),
    /// Nothing was to be done, or something is worth a line.
    Note(String),
}

/// Why a command is refused.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refusal {
    pub kind: RefusalKind,
    pub reason: String,
    /// What to do next; may be empty.
    pub hint: String,
}

/// What kind of exit a refusal is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RefusalKind {
    /// Bad input: exit 2.
    Invalid,
    /// A gate does not hold: exit 1.
    Unmet,
    /// Something is in the way: exit 4.
    Busy,
}

impl Refusal {
    pub(super) fn invalid(reason: impl Into<String>) -> Self {
        Self { kind: RefusalKind::Invalid, reason: reason.into(), hint: String::new() }
    }

    pub(super) fn unmet(reason: impl Into<String>) -> Self {
        Self { kind: RefusalKind::Unmet, reason: reason.into(), hint: String::new() }
    }

    pub(super) fn busy(reason: impl Into<String>) -> Self {
        Self { kind: RefusalKind::Busy, reason: reason.into(), hint: String::new() }
    }

    pub(super) fn with_hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = hint.into();
        self
    }
}

/// Decides. Cannot fail: odd events are noted, forbidden commands refused.
#[must_use]
pub fn step(state: &State, event: &Event) -> Step {
    let mut decided = match &event.body {
        EventBody::Command(asked) => match command::decide(state, event, asked) {
            Ok(decided) => decided,
            Err(refusal) => Step { changes: Vec::new(), answer: Answer::Refuse(refusal) },
        },
        EventBody::Observation(seen) => observe::decide(state, event, seen),
        EventBody::Sort => Step::accept(turn::sort(state, event.at)),
        EventBody::Turn { nonces } => {
            Step { changes: turn::decide(state, event.at, nonces), answer: Answer::Accept }
        }
    };
    let told = unserved::told(state, &decided.changes);
    decided.changes.extend(told);
    let compared = rollout::compare(state, &decided.changes);
    decided.changes.extend(compared);
    decided
}

impl Step {
    pub(super) fn accept(changes: Vec<Change>) -> Self {
        Self { changes, answer: Answer::Accept }
    }

    pub(super) fn note(text: impl Into<String>) -> Self {
        Self { changes: Vec::new(), answer: Answer::Note(text.into()) }
    }
}

pub(super) fn project(change: ProjectChange) -> Change {
    Change::Project(change)
}

pub(super) fn lane(change: LaneChange) -> Change {
    Change::Lane(change)
}

pub(super) fn task(id: &TaskId, change: TaskChange) -> Change {
    Change::Task(id.clone(), change)
}

pub(super) fn attempt(id: &AttemptId, change: AttemptChange) -> Change {
    Change::Attempt(id.clone(), change)
}
