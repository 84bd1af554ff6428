//! What the world still owes.

use std::collections::BTreeSet;

use super::apply::apply;
use super::attempt::{Attempt, AttemptPhase};
use super::change::Change;
use super::id::{AttemptId, Oid, TaskId};
use super::lane::LandingPhase;
use super::mode::{Isolation, Rollout};
use super::proposal;
use super::state::State;
use super::time::Time;

/// A request to the world; doing it twice equals doing it once.
///
/// `failed` counts the tries before, so that each try has a key of its own.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Effect {
    /// Make the worktree ready: checkout, copy, setup, task file.
    Prepare { attempt: AttemptId, failed: u32 },
    /// Order the attempt from its agent's keeper.
    Start { attempt: AttemptId, failed: u32 },
    /// End its process tree.
    Stop { attempt: AttemptId },
    /// Commit and pin what it left.
    Save { attempt: AttemptId, failed: u32 },
    /// Move the task branch to what it left.
    Advance { attempt: AttemptId, failed: u32 },
    /// Take the base into the landing branch, which is made when it is missing.
    TakeBase { base: Oid, landed: Option<Oid>, failed: u32 },
    /// Make and pin the merged commit.
    Merge { task: TaskId, number: u32, failed: u32 },
    /// Move the landing branch to it.
    Land { task: TaskId, number: u32, failed: u32 },
    /// Let the base follow.
    Follow { to: Oid, failed: u32 },
    /// Reset the landing branch to the base, and keep what it held in salvage.
    Drop { to: Oid, failed: u32 },
    /// Ask the external scheduler.
    Propose { number: u64 },
}

/// Returns the effects that are due, in a fixed order; an index kept by `apply`.
pub fn pending_effects(state: &State) -> impl Iterator<Item = &Effect> {
    state.index.effects.iter()
}

/// The effects that a monitor has begun, so that each is begun once.
///
/// An effect that was owed no longer, if only for a moment, and is owed again is another one, though
/// its key is the same: what came of the first may have been taken for nothing meanwhile.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Default)]
pub struct Begun(BTreeSet<Effect>);

impl Begun {
    /// Forgets what was owed no longer at some moment, by [`apply_settling`].
    pub fn settle(&mut self, settled: &[Effect]) {
        self.0.retain(|effect| !settled.contains(effect));
    }

    /// Returns what is to be begun now, and takes it for begun.
    pub fn take_due(&mut self, state: &State) -> Vec<Effect> {
        self.0.retain(|effect| state.index.effects.contains(effect));
        let due = pending_effects(state).filter(|effect| !self.0.contains(*effect));
        let due: Vec<Effect> = due.cloned().collect();
        self.0.extend(due.iter().cloned());
        due
    }

    /// Returns true when the effect is under way.
    #[must_use]
    pub fn has(&self, effect: &Effect) -> bool {
        self.0.contains(effect)
    }

    /// Returns true when nothing is under way.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

/// Applies a change, and adds to `settled` the effects that are owed no longer by it: whatever was
/// begun for them has been answered, or is out of date, also where they are owed again later.
pub fn apply_settling(state: &mut State, change: &Change, settled: &mut Vec<Effect>) {
    let owed = match change {
        Change::Task(..) => Vec::new(),
        Change::Attempt(id, _) => state.attempts.get(id).and_then(of_attempt).into_iter().collect(),
        Change::Project(_) => {
            let asked = proposal::effect(&state.proposal);
            state.index.lane_effects().iter().cloned().chain(asked).collect()
        }
        Change::Lane(_) => state.index.lane_effects().to_vec(),
    };
    apply(state, change);
    settled.extend(owed.into_iter().filter(|effect| !state.index.effects.contains(effect)));
}

/// Returns when to wake if nothing happens; `None`: nothing is timed. Once the turn has found
/// nothing to do it lies ahead, so that a loop that waits for it does not spin.
#[must_use]
pub fn next_deadline(state: &State) -> Option<Time> {
    let backoff = state.index.backoff.first().map(|(until, _)| *until);
    let attempts = state.attempts.values().filter_map(|attempt| attempt.tries.until);
    let landing = state.landing.as_ref().and_then(|landing| landing.tries.until);
    let follow = state.base.follow.as_ref().and_then(|follow| follow.tries.until);
    let drain = state.drain.map(|drain| drain.until);
    let rate = super::turn::rate_deadline(state);
    let surplus = super::scale::deadline(state);
    let base = &state.base;
    let cooling = state.index.cooling.first().map(|(until, _)| *until);
    let single = [
        backoff,
        cooling,
        state.limit_deadline(),
        landing,
        follow,
        drain,
        rate,
        proposal::deadline(state),
        surplus,
        base.take_tries.until,
        base.check_tries.until,
        base.dropping.as_ref().and_then(|dropping| dropping.tries.until),
        super::rollout::deadline(state),
    ];
    attempts.chain(single.into_iter().flatten()).min()
}

/// Returns what a live attempt asks of the world.
pub(super) fn of_attempt(attempt: &Attempt) -> Option<Effect> {
    if attempt.tries.until.is_some() {
        return None;
    }
    let (id, failed) = (attempt.id.clone(), attempt.tries.failed);
    match attempt.phase {
        AttemptPhase::Preparing => Some(Effect::Prepare { attempt: id, failed }),
        AttemptPhase::Starting => Some(Effect::Start { attempt: id, failed }),
        AttemptPhase::Running => attempt.is_stopping.then_some(Effect::Stop { attempt: id }),
        AttemptPhase::Saving => Some(Effect::Save { attempt: id, failed }),
        AttemptPhase::Checking => None,
        AttemptPhase::Advancing => Some(Effect::Advance { attempt: id, failed }),
    }
}

/// Returns what landing lane and base ask of the world; at most two effects.
pub(super) fn of_lane(state: &State) -> Vec<Effect> {
    let is_quiet =
        state.rollout == Rollout::Shadow || state.settings.project.isolation == Isolation::None;
    if is_quiet {
        return Vec::new();
    }
    let mut effects = Vec::new();
    let base = &state.base;
    if let Some(dropping) = &base.dropping {
        // Until that is done nothing stands on the landing branch.
        let (to, failed) = (dropping.to.clone(), dropping.tries.failed);
        let is_due = dropping.tries.until.is_none();
        return is_due.then_some(Effect::Drop { to, failed }).into_iter().collect();
    }
    match &state.landing {
        Some(landing) if landing.tries.until.is_some() => {}
        Some(landing) => {
            let (task, number) = (landing.task.clone(), landing.number);
            let failed = landing.tries.failed;
            match landing.phase {
                LandingPhase::Merging => effects.push(Effect::Merge { task, number, failed }),
                LandingPhase::Checking { .. } => {}
                LandingPhase::Moving { .. } => effects.push(Effect::Land { task, number, failed }),
            }
        }
        None => {
            let due = base.tip.as_ref().filter(|_| !base.is_taken());
            if let (Some(tip), None, None) = (due, &base.conflict, base.take_tries.until) {
                let failed = base.take_tries.failed;
                let landed = base.landed.clone();
                effects.push(Effect::TakeBase { base: tip.clone(), landed, failed });
            }
        }
    }
    if let Some(follow) = base.follow.as_ref().filter(|follow| follow.tries.until.is_none()) {
        effects.push(Effect::Follow { to: follow.to.clone(), failed: follow.tries.failed });
    }
    effects
}
