//! One run of one stage of one task by one agent, or of a check.

use super::id::{AgentName, AttemptId, Oid, StageName, TaskId};
use super::outside::Outside;
use super::schedule::demand::Demand;
use super::time::Time;
use super::usage::Usage;

/// What an attempt is for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum AttemptKind {
    /// A stage of a task.
    Work { stage: StageName },
    /// The stage's checks on what the attempt `of` left.
    StageCheck { stage: StageName, of: AttemptId },
    /// The landing checks on the merged commit.
    LandingCheck { commit: Oid },
    /// Setup and landing checks on the base itself.
    BaseCheck { commit: Oid },
}

/// Where an attempt stands in its life, in that order.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AttemptPhase {
    /// Its worktree is being made ready.
    Preparing,
    /// Ordered from the keeper, not yet seen running.
    Starting,
    /// Its process runs.
    Running,
    /// What it left is being committed.
    Saving,
    /// A check attempt looks at it.
    Checking,
    /// The task branch is being moved to its commit.
    Advancing,
}

/// How an attempt ended, as far as it matters for what follows.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Class {
    Completed,
    /// Marker, but no change where one was due.
    Empty,
    /// Exit without marker.
    Incomplete,
    /// Said so, or exited with another status than 0.
    Failed,
    /// The stage's checks did not pass.
    ChecksFailed,
    /// Conflict markers were left in files.
    ConflictLeft,
    /// Said so: needs a person.
    Blocked,
    ChangesRequested,
    /// The limit of its provider was reached.
    RateLimited,
    /// Its provider refused the key, or there is no credit or quota left.
    Unauthorized,
    /// The task did not fit into what its model can hold.
    ContextExceeded,
    TimedOut,
    Silent,
    /// Ended by a signal that we did not send.
    Crashed,
    /// The program could not be started.
    Unstartable,
    /// Its keeper or its outcome is gone.
    Lost,
    /// Worktree, setup, git or disk failed.
    Infrastructure,
    /// Ended by `stop --now` or `task cancel`.
    Stopped,
    /// Its landing met a conflict.
    Conflict,
    /// The landing checks did not pass on the merged tree.
    LandingChecksFailed,
    /// A task it depends on is blocked, cancelled or unknown.
    Dependency,
    /// The task has used up what it may cost.
    Budget,
}

impl Class {
    /// Returns the word used in JSON and text, e.g. `changes_requested`.
    #[must_use]
    pub const fn word(self) -> &'static str {
        match self {
            Self::Completed => "completed",
            Self::Empty => "empty",
            Self::Incomplete => "incomplete",
            Self::Failed => "failed",
            Self::ChecksFailed => "checks_failed",
            Self::ConflictLeft => "conflict_left",
            Self::Blocked => "blocked",
            Self::ChangesRequested => "changes_requested",
            Self::RateLimited => "rate_limited",
            Self::Unauthorized => "unauthorized",
            Self::ContextExceeded => "context_exceeded",
            Self::TimedOut => "timed_out",
            Self::Silent => "silent",
            Self::Crashed => "crashed",
            Self::Unstartable => "unstartable",
            Self::Lost => "lost",
            Self::Infrastructure => "infrastructure",
            Self::Stopped => "stopped",
            Self::Conflict => "conflict",
            Self::LandingChecksFailed => "landing_checks_failed",
            Self::Dependency => "dependency",
            Self::Budget => "budget",
        }
    }

    /// Returns true when the next attempt goes on from what this one left: it did not fail on its own
    /// judgement or ours, but was ended before it could say how it went.
    #[must_use]
    pub const fn is_cut_short(self) -> bool {
        match self {
            Self::RateLimited
            | Self::Unauthorized
            | Self::TimedOut
            | Self::Silent
            | Self::Stopped
            | Self::Lost
            | Self::Crashed => true,
            Self::Completed
            | Self::Empty
            | Self::Incomplete
            | Self::Failed
            | Self::ChecksFailed
            | Self::ConflictLeft
            | Self::Blocked
            | Self::ChangesRequested
            | Self::ContextExceeded
            | Self::Unstartable
            | Self::Infrastructure
            | Self::Conflict
            | Self::LandingChecksFailed
            | Self::Dependency
            | Self::Budget => false,
        }
    }

    /// Returns true when the attempt is counted as a failed try of its task at the stage.
    #[must_use]
    pub const fn is_failed_try(self) -> bool {
        match self {
            Self::Empty
            | Self::Incomplete
            | Self::Failed
            | Self::ChecksFailed
            | Self::ConflictLeft
            | Self::ContextExceeded
            | Self::TimedOut
            | Self::Silent
            | Self::Crashed => true,
            Self::Completed
            | Self::Blocked
            | Self::ChangesRequested
            | Self::RateLimited
            | Self::Unauthorized
            | Self::Unstartable
            | Self::Lost
            | Self::Infrastructure
            | Self::Stopped
            | Self::Conflict
            | Self::LandingChecksFailed
            | Self::Dependency
            | Self::Budget => false,
        }
    }

    /// Returns true when the attempt speaks of its provider alone: it is counted neither against its
    /// task nor against its agent, and not among those of a run.
    #[must_use]
    pub const fn is_of_provider(self) -> bool {
        match self {
            Self::RateLimited | Self::Unauthorized => true,
            Self::Completed
            | Self::Empty
            | Self::Incomplete
            | Self::Failed
            | Self::ChecksFailed
            | Self::ConflictLeft
            | Self::Blocked
            | Self::ChangesRequested
            | Self::ContextExceeded
            | Self::TimedOut
            | Self::Silent
            | Self::Crashed
            | Self::Unstartable
            | Self::Lost
            | Self::Infrastructure
            | Self::Stopped
            | Self::Conflict
            | Self::LandingChecksFailed
            | Self::Dependency
            | Self::Budget => false,
        }
    }

    /// Every class, in the order above.
    pub const ALL: [Self; 22] = [
        Self::Completed,
        Self::Empty,
        Self::Incomplete,
        Self::Failed,
        Self::ChecksFailed,
        Self::ConflictLeft,
        Self::Blocked,
        Self::ChangesRequested,
        Self::RateLimited,
        Self::Unauthorized,
        Self::ContextExceeded,
        Self::TimedOut,
        Self::Silent,
        Self::Crashed,
        Self::Unstartable,
        Self::Lost,
        Self::Infrastructure,
        Self::Stopped,
        Self::Conflict,
        Self::LandingChecksFailed,
        Self::Dependency,
        Self::Budget,
    ];
}

/// Who or what ended the process.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum EndedBy {
    /// It exited by itself.
    Exit,
    Timeout,
    Silence,
    /// It wrote its marker and stayed.
    MarkerGrace,
    Stop,
    /// There was no process.
    SpawnFailed,
}

/// The status line an agent left in its task file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Marker {
    Completed,
    Blocked(String),
    Failed(String),
    ChangesRequested(String),
}

/// What a program says of its provider that keeps it from going on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fault {
    pub kind: FaultKind,
    /// In its own words.
    pub text: String,
    /// When it says that it passes; `None`: it does not say.
    pub until: Option<Time>,
}

/// What kind of fault it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FaultKind {
    RateLimited,
    Unauthorized,
    ContextExceeded,
}

/// What was read of the process and its task file after the end.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Exit {
    pub started_at: Time,
    pub ended_at: Time,
    /// `None` when a signal ended it.
    pub code: Option<i32>,
    pub signal: Option<i32>,
    pub ended_by: EndedBy,
    /// Which of several commands ended it, from 0.
    pub command_index: u32,
    /// Processes that outlived the main one and were ended.
    pub leaked: u32,
    pub cpu_ms: u64,
    pub rss_kib_max: u64,
    /// The marker that counts for this attempt; `None`: none, another's, or behind a lost header.
    pub marker: Option<Marker>,
    /// What it wrote for the next stages.
    pub notes: String,
    /// End of its output, bounded; or why it could not be started.
    pub tail: String,
    /// What it used of its provider.
    pub usage: Usage,
    /// What went wrong between its program and its provider, where that is the last it said of it.
    pub fault: Option<Fault>,
}

/// How it ended, with the reason in words.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Outcome {
    pub class: Class,
    pub reason: String,
    pub at: Time,
}

/// A pause before an effect that failed is tried again.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Tries {
    /// Failures so far.
    pub failed: u32,
    /// Not before; `None`: at once.
    pub until: Option<Time>,
    pub why: String,
}

impl Tries {
    /// Returns true when it is tried again and again in vain, more often than `bound`: what is in
    /// its way needs a person.
    #[must_use]
    pub const fn is_stuck(&self, bound: u32) -> bool {
        self.until.is_some() && self.failed > bound
    }
}

/// In the reason of an attempt whose work could not be saved: where that is.
pub const LEFT: &str = "what it left is in its worktree slot";

/// A run and all that is known of it.
#[derive(Debug, Clone, PartialEq)]
pub struct Attempt {
    pub id: AttemptId,
    pub kind: AttemptKind,
    /// `None` for checks of the base.
    pub task: Option<TaskId>,
    pub agent: AgentName,
    pub nonce: String,
    /// Worktree slot of the agent, from 0.
    pub slot: u32,
    /// Hash of the settings it runs by.
    pub settings: String,
    /// Hash of the project's own prompt file that it was given; `None`: the built-in one, or none.
    pub prompt: Option<String>,
    /// Hash of the preset file that it was started by; `None`: not yet known, or it has no preset.
    pub preset: Option<String>,
    /// The attempt of the same task and stage that was cut short and that it goes on from.
    pub continues: Option<AttemptId>,
    /// The session of that one which it takes up again; `None`: it begins one of its own.
    pub session: Option<String>,
    /// What it takes of what is shared, as of its beginning; nothing for checks, and once it is over.
    pub demand: Demand,
    pub phase: AttemptPhase,
    pub assigned_at: Time,
    pub started_at: Option<Time>,
    /// Commit its worktree started at; known once prepared.
    pub base: Option<Oid>,
    /// Second parent owed after a conflict.
    pub merge: Option<Oid>,
    pub exit: Option<Exit>,
    /// What it left, committed; not yet on the task branch.
    pub saved: Option<Oid>,
    /// Set once judged: how it will end when saving is done.
    pub verdict: Option<Outcome>,
    /// Somebody wants it ended.
    pub is_stopping: bool,
    pub tries: Tries,
    /// What changed outside of the worktrees while it ran, by whomever.
    pub outside: Outside,
    /// Set when it is over.
    pub outcome: Option<Outcome>,
}

impl Attempt {
    /// Returns true for a stage of a task, false for a check.
    #[must_use]
    pub fn is_work(&self) -> bool {
        matches!(self.kind, AttemptKind::Work { .. })
    }

    /// Returns true when it ended without its work being saved: that stands in its worktree alone.
    #[must_use]
    pub fn is_unsaved(&self) -> bool {
        let is_left = |outcome: &Outcome| outcome.reason.contains(LEFT);
        self.saved.is_none() && self.outcome.as_ref().is_some_and(is_left)
    }

    /// Returns the stage, `None` for checks of landing and base.
    #[must_use]
    pub fn stage(&self) -> Option<&StageName> {
        match &self.kind {
            AttemptKind::Work { stage } | AttemptKind::StageCheck { stage, .. } => Some(stage),
            AttemptKind::LandingCheck { .. } | AttemptKind::BaseCheck { .. } => None,
        }
    }
}
