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
    /// No longer in the settings, or one too many: ends what it has, gets nothing new.
    pub is_retired: bool,
    pub attempt: Option<AttemptId>,
    /// The worktree slot of its attempt, or for its next one. No slot that it ever had has a greater
    /// number than this and `spare`.
    pub slot: u32,
    /// The slot that it had before and may have again; `None`: there is none.
    pub spare: Option<u32>,
    pub completed: u64,
    pub failed: u64,
    pub busy_ms: u64,
    /// Since when it has had nothing to do, or one that left while this one stayed.
    pub idle_since: Time,
    /// The task it has, or had last.
    pub last_task: Option<TaskId>,
    pub breaker: Breaker,
    /// Why it cannot start anything, in words: its program or preset is not there.
    pub unusable: Option<String>,
}

impl Agent {
    /// Returns one that has done nothing yet and serves nothing.
    #[must_use]
    pub fn new(name: AgentName, slot: u32, at: Time) -> Self {
        Self {
            name,
            group: 0,
            stages: Vec::new(),
            capabilities: Vec::new(),
            is_paused: false,
            is_retired: false,
            attempt: None,
            slot,
            spare: None,
            completed: 0,
            failed: 0,
            busy_ms: 0,
            idle_since: at,
            last_task: None,
            breaker: Breaker::default(),
            unusable: None,
        }
    }

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

    /// Returns the slot that its next attempt gets when the present one, in `slot`, ends well and
    /// slots take turns.
    #[must_use]
    pub fn slot_after(&self) -> u32 {
        self.spare.unwrap_or(self.slot + 1)
    }

    /// Begins in a slot: the spare one changes places with its own.
    pub(super) fn take_slot(&mut self, used: u32) {
        if self.spare == Some(used) {
            self.spare = Some(self.slot);
            self.slot = used;
        }
    }

    /// Goes on to the slot that can be made ready while the one of the last attempt is in use.
    pub(super) fn turn_slots(&mut self, used: u32) {
        if self.slot == used {
            self.slot = self.slot_after();
        }
        self.spare = Some(used);
    }

    /// Goes on to a slot never used: something may still be at work in the one of the last attempt,
    /// or what that left may be nowhere else. It is not used again.
    pub(super) fn give_up_slot(&mut self, used: u32) {
        let fresh = self.slot.max(self.spare.unwrap_or(0)) + 1;
        self.spare = [Some(self.slot), self.spare].into_iter().flatten().find(|slot| *slot != used);
        self.slot = fresh;
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
