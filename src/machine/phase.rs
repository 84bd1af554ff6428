//! The table of all moves: what may follow what.
//!
//! For every phase and trigger exactly one row fits; the test walks them all, and
//! `tests/golden/transitions.txt` shows the table.

use super::attempt::AttemptPhase;
use super::task::TaskPhase;

/// A task's phase without its data.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TaskStand {
    Waiting,
    Ready,
    Working,
    Landing,
    Blocked,
    Completed,
    Cancelled,
}

impl TaskStand {
    /// Every phase, in life-cycle order.
    pub const ALL: [Self; 7] = [
        Self::Waiting,
        Self::Ready,
        Self::Working,
        Self::Landing,
        Self::Blocked,
        Self::Completed,
        Self::Cancelled,
    ];
}

impl From<&TaskPhase> for TaskStand {
    fn from(phase: &TaskPhase) -> Self {
        match phase {
            TaskPhase::Waiting => Self::Waiting,
            TaskPhase::Ready { .. } => Self::Ready,
            TaskPhase::Working { .. } => Self::Working,
            TaskPhase::Landing { .. } => Self::Landing,
            TaskPhase::Blocked(_) => Self::Blocked,
            TaskPhase::Completed { .. } => Self::Completed,
            TaskPhase::Cancelled { .. } => Self::Cancelled,
        }
    }
}

/// What moves a task, with its guard.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TaskTrigger {
    /// Dependencies met, not held, the gate open.
    Freed,
    /// A dependency cannot be met without a person.
    Doomed,
    /// A dead end among its dependencies went away before its first stage.
    Revived,
    /// A dead end among its dependencies went away, or `task retry`, with a stage to go on from; or
    /// `task edit` took away the stage that it stood at.
    Resumed,
    Assigned,
    /// The attempt completed, and a stage follows.
    StageDone,
    /// The attempt completed the last stage, and there is git.
    LastStageDone,
    /// The attempt completed the last stage without git; or the landing branch holds it.
    Landed,
    /// The attempt failed within its bounds.
    Failed,
    /// Work goes back to an earlier stage, within its bound.
    SentBack,
    /// A bound is used up, or a person is needed.
    GaveUp,
    /// `task retry`; or a task that has not begun has another first stage now.
    Retried,
    /// `task retry` of one whose stages all passed, and that the lane could not land.
    Relined,
    /// `task cancel`.
    Cancelled,
    /// Others landed it while the pipeline looked on.
    LandedByHand,
    /// What the pilot landed was dropped.
    Dropped,
    /// `task give`, to a stage.
    GivenBack,
    /// `task give --stage landing`.
    GivenToLand,
    /// `task complete`.
    Done,
    /// `task reopen`.
    Reopened,
}

impl TaskTrigger {
    /// Every trigger.
    pub const ALL: [Self; 20] = [
        Self::Freed,
        Self::Doomed,
        Self::Revived,
        Self::Resumed,
        Self::Assigned,
        Self::StageDone,
        Self::LastStageDone,
        Self::Landed,
        Self::Failed,
        Self::SentBack,
        Self::GaveUp,
        Self::Retried,
        Self::Relined,
        Self::Cancelled,
        Self::LandedByHand,
        Self::Dropped,
        Self::GivenBack,
        Self::GivenToLand,
        Self::Done,
        Self::Reopened,
    ];
}

/// Where a trigger leads.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Move {
    To(TaskStand),
    /// Late or odd: noted, nothing changes.
    Ignored,
    /// A command that is answered with the reason.
    Refused,
}

/// Returns where `trigger` leads a task that stands at `from`.
#[must_use]
pub const fn task_move(from: TaskStand, trigger: TaskTrigger) -> Move {
    use TaskStand as S;
    use TaskTrigger as T;
    match (from, trigger) {
        (S::Waiting, T::Freed) => Move::To(S::Ready),
        (S::Waiting | S::Ready, T::Doomed) => Move::To(S::Blocked),
        (S::Blocked, T::Revived) => Move::To(S::Waiting),
        (S::Waiting | S::Ready | S::Blocked, T::Resumed) => Move::To(S::Ready),
        (S::Ready, T::Assigned) => Move::To(S::Working),
        (S::Working, T::StageDone | T::Failed | T::SentBack) => Move::To(S::Ready),
        (S::Working, T::LastStageDone) => Move::To(S::Landing),
        (S::Working | S::Landing, T::Landed) => Move::To(S::Completed),
        (S::Landing, T::SentBack) => Move::To(S::Ready),
        (S::Working | S::Landing | S::Ready, T::GaveUp) => Move::To(S::Blocked),
        (S::Blocked, T::Relined) => Move::To(S::Landing),
        (S::Blocked | S::Ready | S::Waiting, T::Retried) => Move::To(S::Waiting),
        (S::Waiting | S::Ready | S::Working | S::Landing | S::Blocked, T::Cancelled) => {
            Move::To(S::Cancelled)
        }
        (S::Waiting | S::Ready | S::Working | S::Landing | S::Blocked, T::LandedByHand) => {
            Move::To(S::Completed)
        }
        (S::Ready | S::Landing | S::Blocked | S::Completed, T::Dropped) => Move::To(S::Waiting),
        (S::Waiting | S::Ready | S::Landing | S::Blocked, T::GivenBack) => Move::To(S::Ready),
        (S::Waiting | S::Ready | S::Landing | S::Blocked, T::GivenToLand) => Move::To(S::Landing),
        (S::Waiting | S::Ready | S::Working | S::Landing | S::Blocked, T::Done) => {
            Move::To(S::Completed)
        }
        (S::Completed | S::Cancelled, T::Reopened) => Move::To(S::Waiting),
        (S::Working | S::Landing | S::Completed | S::Cancelled, T::Retried)
        | (S::Completed | S::Cancelled, T::Cancelled | T::Done)
        | (S::Working | S::Completed | S::Cancelled, T::GivenBack | T::GivenToLand)
        | (S::Waiting | S::Ready | S::Working | S::Landing | S::Blocked, T::Reopened) => {
            Move::Refused
        }
        (
            S::Waiting
            | S::Ready
            | S::Working
            | S::Landing
            | S::Blocked
            | S::Completed
            | S::Cancelled,
            T::Freed
            | T::Doomed
            | T::Revived
            | T::Resumed
            | T::Assigned
            | T::StageDone
            | T::LastStageDone
            | T::Landed
            | T::Failed
            | T::SentBack
            | T::GaveUp
            | T::Relined
            | T::LandedByHand
            | T::Dropped,
        ) => Move::Ignored,
    }
}

/// Asserts that the table knows a move between two phases of a task.
///
/// # Panics
/// When no trigger leads from the one to the other: a fault of the program.
pub(super) fn assert_task_move(from: &TaskPhase, to: &TaskPhase) {
    let (from, to) = (TaskStand::from(from), TaskStand::from(to));
    let mut triggers = TaskTrigger::ALL.iter();
    let is_known = triggers.any(|trigger| task_move(from, *trigger) == Move::To(to));
    assert!(is_known, "no row leads a task from {from:?} to {to:?}");
}

/// Returns the phases that may follow a phase of an attempt; it may end in each of them.
#[must_use]
pub const fn attempt_moves(from: AttemptPhase) -> &'static [AttemptPhase] {
    use AttemptPhase as P;
    match from {
        P::Preparing => &[P::Starting],
        // A quick exit may be seen before the start.
        P::Starting => &[P::Running, P::Saving],
        P::Running => &[P::Saving],
        P::Saving => &[P::Checking, P::Advancing],
        P::Checking => &[P::Advancing],
        P::Advancing => &[],
    }
}

/// Asserts that an attempt may move so.
///
/// # Panics
/// When it may not: a fault of the program.
pub(super) fn assert_attempt_move(from: AttemptPhase, to: AttemptPhase) {
    let is_known = from == to || attempt_moves(from).contains(&to);
    assert!(is_known, "no row leads an attempt from {from:?} to {to:?}");
}
