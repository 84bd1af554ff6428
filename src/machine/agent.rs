//! A named worker.

use super::breaker::Breaker;
use super::id::{AgentName, AttemptId, StageName, TaskId};
use super::time::Time;

/// An agent and what it does now.
#[derive(Debug, Clone, PartialEq)]
pub struct Agent {
    pub name: AgentName,
    /// Index of its group in `Settings::agents`.
    pub group: usize,
    /// Long names, in the group's order.
    pub stages: Vec<StageName>,
    pub capabilities: Vec<String>,
    pub is_paused: bool,
    /// No longer in the settings: ends what it has, gets nothing new.
    pub is_retired: bool,
    pub attempt: Option<AttemptId>,
    /// The worktree slot for its next attempt.
    pub slot: u32,
    pub completed: u64,
    pub failed: u64,
    pub busy_ms: u64,
    pub idle_since: Time,
    /// The task it has, or had last.
    pub last_task: Option<TaskId>,
    pub breaker: Breaker,
    /// Why it cannot start anything, in words: its program or preset is not there.
    pub unusable: Option<String>,
}

impl Agent {
    /// Returns true when it may get an attempt now.
    #[must_use]
    pub fn is_free(&self) -> bool {
        self.attempt.is_none() && self.may_work() && self.breaker.until.is_none()
    }

    /// Returns true when it is neither paused nor about to leave, and can be started; it may be busy or
    /// cool down.
    #[must_use]
    pub fn may_work(&self) -> bool {
        !self.is_paused && !self.is_retired && self.unusable.is_none()
    }

    /// Returns true when it has all of `needs`.
    #[must_use]
    pub fn has_all(&self, needs: &[String]) -> bool {
        needs.iter().all(|need| self.capabilities.contains(need))
    }
}

/// The pseudo-agent that runs landing checks.
pub const LANDING_AGENT: &str = "landing";
/// The pseudo-agent that runs checks of the base.
pub const BASE_AGENT: &str = "base";
