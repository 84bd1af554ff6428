//! The landing lane and the base branch, as far as the machine knows them.

use super::attempt::Tries;
use super::id::{AttemptId, Oid, TaskId};
use super::time::Time;

/// Stands for the paths that need approval where every landing does.
pub const MANUAL: &str = "landing.strategy = \"manual\"";

/// A landing under way; there is at most one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Landing {
    pub task: TaskId,
    /// The n-th landing of this task, from 1.
    pub number: u32,
    /// Dates of the commit, so that a repetition gives the same id.
    pub begun_at: Time,
    pub phase: LandingPhase,
    pub tries: Tries,
}

/// Where a landing stands, in life-cycle order.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum LandingPhase {
    /// The merged commit is being made and pinned.
    Merging,
    /// The landing checks run on it. Once they have failed, the landing stays here while `onto`
    /// itself is judged, unless that is known to pass.
    Checking { commit: Oid, onto: Oid, attempt: AttemptId },
    /// The landing branch is being moved from `onto` to `commit`.
    Moving { commit: Oid, onto: Oid },
}

/// Commits remembered as passing: what has landed until the base has followed, with room.
pub const GREEN_MAX: usize = 64;

/// What is known of the base and the landing branch.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Base {
    /// Tip of the base branch when last looked at.
    pub tip: Option<Oid>,
    pub seen_at: Time,
    /// Tip of the landing branch.
    pub landed: Option<Oid>,
    /// The base's tip that the landing branch holds.
    pub taken: Option<Oid>,
    /// The base conflicts with what has landed: which paths. Landing pauses.
    pub conflict: Option<String>,
    /// Commits known to pass setup and landing checks, the last [`GREEN_MAX`], newest last.
    pub green: Vec<Oid>,
    /// The commit that failed them, of the base or of the landing branch, with the end of the output.
    pub red: Option<(Oid, String)>,
    /// The check of the base that runs.
    pub checking: Option<AttemptId>,
    /// Checks of the base added so far.
    pub checks: u32,
    /// Checks of the base that were lost in a row.
    pub check_tries: Tries,
    /// Takes of the base that failed for want of git or disk.
    pub take_tries: Tries,
    pub follow: Option<Follow>,
    /// Landings on the landing branch that the base does not have; what was taken in with them, and
    /// the commits of each, are not counted.
    pub behind: u64,
    /// The landing branch is to be reset, with what the pilot landed on it.
    pub dropping: Option<Dropping>,
    /// Why the base does not follow; behind [`TYPE`], the command to type about it.
    pub why: Option<String>,
}

impl Base {
    /// Returns true when the landing branch exists and holds the base as last seen.
    #[must_use]
    pub fn is_taken(&self) -> bool {
        self.landed.is_some() && self.tip.is_some() && self.taken == self.tip
    }

    /// Base and landing branch both stand at `to`, and nothing is to follow.
    pub(super) fn meet_at(&mut self, to: &Oid) {
        self.taken = Some(to.clone());
        self.follow = None;
        self.why = None;
        self.behind = 0;
    }

    /// The landing branch, now at `landed`, has taken the base in at `taken`.
    pub(super) fn take(&mut self, taken: &Oid, landed: &Oid) {
        self.taken = Some(taken.clone());
        self.landed = Some(landed.clone());
        self.take_tries = Tries::default();
        self.conflict = None;
        self.note_caught_up();
    }

    /// Where both stand at one commit the base lacks nothing; what git said on the way there stays.
    pub(super) fn note_caught_up(&mut self) {
        if self.landed == self.tip {
            self.behind = 0;
        }
    }

    /// What has landed is off the landing branch.
    pub(super) fn reset_to(&mut self, to: &Oid) {
        self.landed = Some(to.clone());
        self.dropping = None;
        self.conflict = None;
        self.meet_at(to);
    }

    /// Returns true when `commit` was the last to fail setup and landing checks.
    #[must_use]
    pub fn is_red_at(&self, commit: &Oid) -> bool {
        self.red.as_ref().is_some_and(|(red, _)| red == commit)
    }

    /// Returns true when the base's tip is known to pass setup and landing checks.
    #[must_use]
    pub fn is_known_green(&self) -> bool {
        self.tip.as_ref().is_some_and(|tip| self.green.contains(tip))
    }
}

/// What the pilot landed is to go from the landing branch, and to stay in salvage.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Dropping {
    /// The base's tip, where the landing branch is to stand.
    pub to: Oid,
    pub tries: Tries,
}

/// Stands before the command in [`Base::why`].
pub const TYPE: &str = "; type: ";

/// The base is to be moved to a commit.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Follow {
    pub to: Oid,
    pub tries: Tries,
    /// The last refusal passes by itself, e.g. a lock; else a person is needed.
    pub is_passing: bool,
}
