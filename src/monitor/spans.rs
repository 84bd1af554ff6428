//! Who ran when, between looks at what is outside of the worktrees.
//!
//! What stood at one look and no longer at the next changed between the begin of the first and the
//! end of the second, so it is told with every attempt that ran meanwhile, and with no other.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Instant;

use crate::machine::State;
use crate::machine::attempt::{Attempt, AttemptPhase};
use crate::machine::id::{AttemptId, TaskId};
use crate::machine::outside::Ran;
use crate::machine::time::Time;

/// Attempts that ran, until a look that began after their end has told what changed.
#[derive(Debug, Default)]
pub struct Spans {
    ran: BTreeMap<AttemptId, Span>,
    /// When the last whole look began; `None`: before this monitor.
    since: Option<Instant>,
}

/// Whom a look that is kept did not see to their end: those live when it was asked for, and those
/// assigned later. No end is compared: its time is that of a keeper's clock.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Since {
    /// When it was asked for, by the monitor's clock.
    pub at: Time,
    pub live: BTreeSet<AttemptId>,
}

impl Since {
    /// Returns what is to be kept with a look that is asked for now.
    #[must_use]
    pub fn new(state: &State, at: Time) -> Self {
        let is_live =
            |attempt: &&Attempt| attempt.phase == AttemptPhase::Preparing || is_running(attempt);
        let live = state.attempts.values().filter(is_live).map(|attempt| attempt.id.clone());
        Self { at, live: live.collect() }
    }

    fn has(&self, attempt: &Attempt) -> bool {
        attempt.assigned_at >= self.at || self.live.contains(&attempt.id)
    }
}

/// From when to when an attempt ran.
#[derive(Debug)]
struct Span {
    task: Option<TaskId>,
    begun: Instant,
    ended: Option<Instant>,
}

impl Span {
    const fn is_over(&self) -> bool {
        self.ended.is_some()
    }
}

impl Spans {
    /// Takes in who runs when a monitor begins, and who ran since the look that was kept.
    pub fn open(&mut self, state: &State, kept: Option<&Since>, now: Instant) {
        let over = state.tasks.values().flat_map(|task| &task.history);
        for attempt in state.attempts.values().chain(over) {
            let has_run = attempt.phase != AttemptPhase::Preparing
                && kept.is_some_and(|kept| kept.has(attempt));
            if is_running(attempt) || has_run {
                let ended = (!is_running(attempt)).then_some(now);
                let span = Span { task: attempt.task.clone(), begun: now, ended };
                self.ran.insert(attempt.id.clone(), span);
            }
        }
    }

    /// Takes in an attempt that is started now.
    pub fn begin(&mut self, id: &AttemptId, task: Option<TaskId>, now: Instant) {
        self.ran.entry(id.clone()).or_insert(Span { task, begun: now, ended: None });
    }

    /// Finds out who has ended; returns true if somebody has.
    pub fn end(&mut self, state: &State, now: Instant) -> bool {
        let mut has_ended = false;
        for (id, span) in self.ran.iter_mut().filter(|(_, span)| !span.is_over()) {
            if !state.attempts.get(id).is_some_and(is_running) {
                span.ended = Some(now);
                has_ended = true;
            }
        }
        has_ended
    }

    /// Returns true while somebody runs.
    #[must_use]
    pub fn is_shared(&self) -> bool {
        self.ran.values().any(|span| !span.is_over())
    }

    /// Returns true when nobody is known to have run.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.ran.is_empty()
    }

    /// Returns who ran between the last whole look and one that ended at `ended`.
    #[must_use]
    pub fn meanwhile(&self, ended: Instant) -> Vec<Ran> {
        let is_after = |at: Instant| self.since.is_none_or(|since| at > since);
        let overlaps = |span: &Span| span.begun < ended && span.ended.is_none_or(is_after);
        let ran = self.ran.iter().filter(|(_, span)| overlaps(span));
        ran.map(|(id, span)| (id.clone(), span.task.clone())).collect()
    }

    /// A whole look that began then has told what changed.
    pub fn looked(&mut self, began: Instant) {
        self.since = Some(began);
        self.ran.retain(|_, span| span.ended.is_none_or(|ended| ended > began));
    }

    /// Returns the names of all, for people.
    #[must_use]
    pub fn names(&self) -> String {
        let ids: Vec<&str> = self.ran.keys().map(AttemptId::as_str).collect();
        ids.join(", ")
    }

    /// Gives up those that have ended, of which nothing can be told any more; returns their names.
    pub fn forget_ended(&mut self) -> String {
        let over = self.ran.iter().filter(|(_, span)| span.is_over());
        let ids: Vec<String> = over.map(|(id, _)| id.to_string()).collect();
        self.ran.retain(|_, span| !span.is_over());
        ids.join(", ")
    }
}

/// Returns whether an attempt is at work, or may be.
#[must_use]
pub fn is_running(attempt: &Attempt) -> bool {
    matches!(attempt.phase, AttemptPhase::Starting | AttemptPhase::Running)
        && attempt.outcome.is_none()
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::machine::attempt::{Class, Outcome};
    use crate::observe::support::{Pipeline, settings, task};
    use crate::sys::clock::monotonic;

    /// Numbers from a seed.
    struct Dice(u64);

    impl Dice {
        fn below(&mut self, end: u64) -> u64 {
            self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            (self.0 >> 33) % end
        }
    }

    /// Plays some attempts and looks; each look must tell all who ran since the one before began.
    fn play(seed: u64) -> usize {
        let (mut dice, begin) = (Dice(seed), monotonic());
        let at = |ms: u64| begin + Duration::from_millis(ms);
        let drawn: Vec<(AttemptId, u64, u64)> = (0..8)
            .map(|n| {
                let begun = dice.below(100);
                (AttemptId::new(format!("A.impl.{n}")), begun, begun + 1 + dice.below(40))
            })
            .collect();
        let mut spans = Spans::default();
        let (mut since, mut now, mut told) = (0, 0, 0);
        for number in 0..12 {
            let began = now + dice.below(12);
            now = began + 1 + dice.below(8);
            for (id, begun, end) in drawn.iter().filter(|(_, begun, _)| *begun < now) {
                // One that was told of is forgotten; it does not come back.
                if spans.ran.contains_key(id) || *end > since {
                    let ended = (*end <= now).then(|| at(*end));
                    spans.ran.insert(id.clone(), Span { task: None, begun: at(*begun), ended });
                }
            }
            if dice.below(4) == 0 {
                continue;
            }
            let ran = spans.meanwhile(at(now));
            spans.looked(at(began));
            let ran_then = drawn.iter().filter(|(_, begun, end)| *begun < now && *end > since);
            let expected: Vec<Ran> = ran_then.map(|(id, _, _)| (id.clone(), None)).collect();
            assert_eq!(ran, expected, "seed {seed}, look {number}");
            told += ran.len();
            since = began;
        }
        told
    }

    #[test]
    fn each_change_is_told_with_all_who_ran_then_and_with_no_other() {
        let told: usize = (0..2_000).map(play).sum();
        assert!(told > 10_000, "{told}");
    }

    #[test]
    fn who_was_live_at_a_look_that_is_kept_or_came_later_ran_since_whatever_time_it_ended() {
        let mut pipeline = Pipeline::started(settings(), vec![task("A", &[])]);
        let (_, one) = pipeline.state.attempts.pop_first().expect("it is assigned");
        let mut state = pipeline.state;
        let mut add = |id: &str, phase, assigned_ms, ended_ms: Option<u64>| {
            let mut attempt = Attempt { id: AttemptId::new(id), phase, ..one.clone() };
            attempt.assigned_at = Time::from_ms(assigned_ms);
            let outcome = |at| Outcome { class: Class::Failed, reason: String::new(), at };
            attempt.outcome = ended_ms.map(Time::from_ms).map(outcome);
            state.attempts.insert(attempt.id.clone(), attempt);
        };
        // The keeper's clock is behind the monitor's, or ahead of it.
        add("A.impl.1", AttemptPhase::Running, 10, Some(20));
        add("B.impl.1", AttemptPhase::Running, 10, Some(900));
        add("C.impl.1", AttemptPhase::Running, 100, Some(20));
        add("D.impl.1", AttemptPhase::Running, 10, None);
        add("E.impl.1", AttemptPhase::Preparing, 100, None);
        let live = BTreeSet::from(["A.impl.1", "D.impl.1"].map(AttemptId::new));
        let kept = Since { at: Time::from_ms(100), live };
        let opened = |kept| {
            let mut spans = Spans::default();
            spans.open(&state, kept, monotonic());
            spans.names()
        };
        assert_eq!(opened(Some(&kept)), "A.impl.1, C.impl.1, D.impl.1");
        assert_eq!(opened(None), "D.impl.1", "no more is known");
        let seen = Since::new(&state, Time::from_ms(200));
        assert_eq!(seen.live, BTreeSet::from(["D.impl.1", "E.impl.1"].map(AttemptId::new)));
    }
}
