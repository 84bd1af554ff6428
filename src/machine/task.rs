//! A unit of work and where it stands.

use std::collections::BTreeMap;

use super::attempt::{Attempt, Class};
use super::id::{AgentName, AttemptId, Oid, StageName, TaskId};
use super::purse::Spent;
use super::time::Time;

/// How urgent a task is; the greater goes first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default)]
pub enum Priority {
    Low,
    #[default]
    Medium,
    High,
    Critical,
}

/// A task proper, or a heading over tasks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum TaskKind {
    #[default]
    Task,
    /// Never assigned, not counted, complete when no child is open, holds nothing up.
    Epic,
}

/// What a person or an import says of a task; nothing that the pipeline finds out.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Spec {
    pub title: String,
    pub body: String,
    pub priority: Priority,
    pub kind: TaskKind,
    pub parent: Option<TaskId>,
    /// Sorted, without repetition; every id exists or is in `Task::missing`.
    pub depends_on: Vec<TaskId>,
    /// Path globs.
    pub touches: Vec<String>,
    /// Long names of stages to pass; empty: all that its labels allow.
    pub stages: Vec<StageName>,
    pub labels: Vec<String>,
    /// Capabilities an agent must have, sorted.
    pub needs: Vec<String>,
    /// `simple`, `moderate` or `complex`.
    pub complexity: Option<String>,
    pub estimate_ms: Option<u64>,
    /// Named amounts as given, e.g. `memory` = `4GiB`.
    pub resources: BTreeMap<String, String>,
    pub is_exclusive: bool,
    /// For agents with `command = "task"`; run by `sh -c`.
    pub command: Option<String>,
    /// Unknown fields of its source as JSON text, by name.
    pub extra: BTreeMap<String, String>,
}

/// Where a task stands in its life, in that order.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum TaskPhase {
    /// For dependencies, a hold or the rollout.
    Waiting,
    /// May start as soon as an agent is free and `backoff_until` has passed.
    Ready { stage: StageName },
    /// An attempt has it.
    Working { stage: StageName, attempt: AttemptId },
    /// All stages passed; in the lane since the given moment, in order of `entry`.
    Landing { entry: u64 },
    /// Needs a person, or depends on a task that does.
    Blocked(Block),
    /// Landed, at the commit given (`None` without git).
    Completed { commit: Option<Oid>, at: Time },
    /// Given up by a person.
    Cancelled { at: Time },
}

/// Why a task is blocked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Block {
    /// The stage to go on from after `task retry`; `None` before the first.
    pub stage: Option<StageName>,
    /// Nothing of the work has to change: all stages passed, and the lane could not do its part. It
    /// goes back into the lane.
    pub is_landing: bool,
    pub class: Class,
    pub reason: String,
    pub since: Time,
}

/// What has been used up of the bounds in `[limits]`; set to zero by `task retry`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Tally {
    /// Work attempts of any stage that ended.
    pub attempts: u32,
    /// Task failures of the present stage in a row.
    pub stage_failures: u32,
    /// Infrastructure failures of the present stage in a row.
    pub infrastructure: u32,
    pub send_backs: u32,
    /// Of what the task has spent, what counts no more; in millionths of a dollar.
    pub forgiven_micros: u64,
}

impl Tally {
    /// Returns true when nothing has happened since all was counted anew.
    #[must_use]
    pub const fn is_new(&self) -> bool {
        let Self { attempts, stage_failures, infrastructure, send_backs, forgiven_micros: _ } =
            *self;
        attempts == 0 && stage_failures == 0 && infrastructure == 0 && send_backs == 0
    }
}

/// What went wrong, for the next attempt's task file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Evidence {
    pub from: AttemptId,
    pub stage: StageName,
    pub class: Class,
    /// At most [`EVIDENCE_BYTES_MAX`] bytes.
    pub text: String,
}

/// Longest text of one piece of evidence.
pub const EVIDENCE_BYTES_MAX: usize = 4096;
/// Pieces of evidence kept, the newest.
pub const EVIDENCE_COUNT_MAX: usize = 4;
/// Longest notes kept of one stage.
pub const NOTES_BYTES_MAX: usize = 16 * 1024;
/// Longest title and body of a task.
pub const TITLE_BYTES_MAX: usize = 1024;
/// Longest body of a task; prompts and task files hold a part of a long one.
pub const BODY_BYTES_MAX: usize = 2 * 1024 * 1024;

/// Work of others that conflicts with the task's branch, should both land as they stand.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Clash {
    /// Whose it is; `None`: what has landed, by no task that is known.
    pub with: Option<TaskId>,
    /// The files in conflict.
    pub paths: Vec<String>,
}

/// How much work is left, and how much waits for it; as of the last weighing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Weight {
    /// Expected duration of its own stages, in milliseconds.
    pub own_ms: u64,
    /// The same with the longest chain of work behind it.
    pub tail_ms: u64,
}

/// A task with all that is known of it.
#[derive(Debug, Clone, PartialEq)]
pub struct Task {
    pub id: TaskId,
    pub spec: Spec,
    pub phase: TaskPhase,
    /// Order of creation, from 1.
    pub entry: u64,
    /// Goes before all that is not in front.
    pub is_front: bool,
    pub is_held: bool,
    pub created_at: Time,
    pub updated_at: Time,
    /// Not before this moment, after a failure.
    pub backoff_until: Option<Time>,
    pub tally: Tally,
    /// Tip of `pipeline/task/<ID>`; `None` before the first completed work.
    pub tip: Option<Oid>,
    /// The landing branch's tip that must be merged in the next attempt, after a conflict.
    pub merge_owed: Option<Oid>,
    /// The salvaged commit that the next attempt starts from, when work was cut short.
    pub resume_from: Option<Oid>,
    /// The attempt that was cut short and that the next one goes on from: by what it left, by its
    /// session, or by both. See `resume.rs`.
    pub continues: Option<AttemptId>,
    /// A person allowed a landing that touches protected paths, for the tip given.
    pub approved: Option<Oid>,
    /// The landing waits for `task approve`: what it touches.
    pub approval: Option<String>,
    /// The agent of the last lost attempt: another one is preferred.
    pub avoid: Option<AgentName>,
    /// What each stage that completed left for the next ones, in order of completion.
    pub notes: Vec<(StageName, String)>,
    pub evidence: Vec<Evidence>,
    /// What a person said with `task retry --note`.
    pub hint: Option<String>,
    /// Ended attempts, oldest first, checks among them.
    pub history: Vec<Attempt>,
    /// Attempts ever added, by stage short (or `land`): the last number used.
    pub numbers: BTreeMap<String, u32>,
    /// Shadow mode has said that this task would start.
    pub is_announced: bool,
    /// What was told to be missing for it, of agents or of what is shared.
    pub unserved: Option<String>,
    pub weight: Weight,
    /// Path globs of what its branch has changed so far against where it left the landing branch,
    /// sorted; empty: nothing, or not known. See `changed.rs`.
    pub changed: Vec<String>,
    /// What its branch would conflict with, as last tried. See `forecast.rs`.
    pub forecast: Vec<Clash>,
    /// What all its attempts took.
    pub spent: Spent,
    /// A person has it, in a worktree of theirs; it is held then.
    pub taken: Option<Taken>,
    /// Completed by a person's word, not by a landing.
    pub is_by_hand: bool,
    /// How the lane landed it.
    pub landed: Landed,
}

/// How the work of a task came onto the landing branch.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Landed {
    /// Not by the lane: not yet, by others, by a person's word, or without git.
    #[default]
    Elsewhere,
    /// The landing branch held all of it already: nothing was merged.
    Within,
    /// By a merge commit of its own.
    Merged,
}

/// A task in a person's hands.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Taken {
    /// The person's worktree, absolute.
    pub dir: String,
    /// Where its branch stood then.
    pub from: Oid,
    pub since: Time,
}

impl Task {
    /// Returns true once it has work of its own, or an attempt was made.
    #[must_use]
    pub fn has_begun(&self) -> bool {
        self.tip.is_some() || !self.history.is_empty()
    }

    /// Returns true when all its stages have passed, and only its landing is to come.
    #[must_use]
    pub fn stands_in_lane(&self) -> bool {
        match &self.phase {
            TaskPhase::Landing { .. } => true,
            TaskPhase::Blocked(block) => block.is_landing,
            TaskPhase::Waiting
            | TaskPhase::Ready { .. }
            | TaskPhase::Working { .. }
            | TaskPhase::Completed { .. }
            | TaskPhase::Cancelled { .. } => false,
        }
    }

    /// Returns true when nothing further will happen to it by itself or by a person's retry.
    #[must_use]
    pub fn is_final(&self) -> bool {
        matches!(self.phase, TaskPhase::Completed { .. } | TaskPhase::Cancelled { .. })
    }

    /// Returns true when a dependency on this task is met.
    #[must_use]
    pub fn is_met(&self) -> bool {
        self.spec.kind == TaskKind::Epic || matches!(self.phase, TaskPhase::Completed { .. })
    }

    /// Returns true when a dependency on this task cannot be met without a person.
    #[must_use]
    pub fn is_dead_end(&self) -> bool {
        self.spec.kind == TaskKind::Task
            && matches!(self.phase, TaskPhase::Blocked(_) | TaskPhase::Cancelled { .. })
    }

    /// Returns the stage it stands in, if it stands in one.
    #[must_use]
    pub fn stage(&self) -> Option<&StageName> {
        match &self.phase {
            TaskPhase::Ready { stage } | TaskPhase::Working { stage, .. } => Some(stage),
            TaskPhase::Blocked(block) => block.stage.as_ref(),
            TaskPhase::Waiting
            | TaskPhase::Landing { .. }
            | TaskPhase::Completed { .. }
            | TaskPhase::Cancelled { .. } => None,
        }
    }
}

/// Cuts `text` to at most `bytes_max` bytes at a character boundary, keeping the end.
#[must_use]
pub fn keep_tail(text: &str, bytes_max: usize) -> &str {
    let mut start = text.len().saturating_sub(bytes_max);
    while !text.is_char_boundary(start) {
        start += 1;
    }
    &text[start..]
}

/// Cuts `text` to at most `bytes_max` bytes, keeping its first line, or the beginning of that, and its
/// end: the line says what failed, the end how.
#[must_use]
pub fn keep_ends(text: &str, bytes_max: usize) -> String {
    const GAP: &str = "\n[…]\n";
    if text.len() <= bytes_max {
        return text.to_owned();
    }
    let first = text.lines().next().unwrap_or_default();
    let mut end = first.len().min(bytes_max / 4);
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    let tail = keep_tail(&text[end..], bytes_max.saturating_sub(end + GAP.len()));
    format!("{}{GAP}{tail}", &text[..end])
}

#[cfg(test)]
mod tests {
    use super::keep_ends;

    #[test]
    fn the_reason_and_the_end_of_a_long_text_are_kept() {
        let text = format!("`make` exited with status 2\n{}the end é", "output é\n".repeat(600));
        for bytes_max in 40..400 {
            let kept = keep_ends(&text, bytes_max);
            assert!(kept.len() <= bytes_max && kept.ends_with(" é"), "{bytes_max}: {kept}");
            assert!(kept.starts_with("`make` exi"), "{kept}");
        }
        let kept = keep_ends(&text, 400);
        assert!(kept.starts_with("`make` exited with status 2\n[…]\n"), "{kept}");
        assert_eq!(keep_ends("short", 5), "short");
        assert_eq!(keep_ends(&"é".repeat(300), 50).len(), 50 - 1);
    }
}
