//! What changed outside of the worktrees while attempts ran: told, never judged, since people work
//! there at the same time.

use super::change::{AttemptChange, Change};
use super::id::{AttemptId, TaskId};
use super::state::State;
use super::step::{Step, attempt as of_attempt};

/// Most differences kept with one attempt; the rest is counted.
pub const FOUND_MAX: usize = 12;
/// Most other attempts kept that ran meanwhile.
pub const BESIDE_MAX: usize = 8;

/// What was found changed outside while an attempt ran.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Outside {
    /// In words, one difference each, in the order in which they were found.
    pub found: Vec<String>,
    /// Differences that are not named.
    pub more: u64,
    /// Attempts that ran meanwhile too, any of which may have done it; at most [`BESIDE_MAX`].
    pub beside: Vec<AttemptId>,
}

impl Outside {
    /// Returns true when nothing was found.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.found.is_empty() && self.more == 0
    }

    /// Adds what was found later.
    fn join(&mut self, news: &Self) {
        self.more += news.more;
        for found in &news.found {
            if self.found.contains(found) {
                continue;
            }
            if self.found.len() < FOUND_MAX {
                self.found.push(found.clone());
            } else {
                self.more += 1;
            }
        }
        for id in &news.beside {
            if self.beside.len() < BESIDE_MAX && !self.beside.contains(id) {
                self.beside.push(id.clone());
            }
        }
    }
}

/// An attempt that ran, live or over, with its task; `None`: a check of the base.
pub type Ran = (AttemptId, Option<TaskId>);

/// Tells each attempt that ran. What one of them has been told of before is a look repeated after a
/// kill: that is nobody's again.
pub(super) fn decide(state: &State, ran: &[Ran], found: &[String], more: u64) -> Step {
    let known: Vec<&Outside> = ran.iter().filter_map(|ran| outside_of(state, ran)).collect();
    let is_known = |line: &&String| known.iter().any(|outside| outside.found.contains(line));
    let news: Vec<String> = found.iter().filter(|line| !is_known(line)).cloned().collect();
    if news.is_empty() && (more == 0 || !found.is_empty()) {
        return Step::accept(Vec::new());
    }
    let told = ran.iter().map(|(id, task)| {
        let others = ran.iter().map(|(other, _)| other).filter(|other| *other != id);
        let found = Outside {
            found: news.clone(),
            more,
            beside: others.take(BESIDE_MAX).cloned().collect(),
        };
        of_attempt(id, AttemptChange::FoundOutside { task: task.clone(), found })
    });
    Step::accept(told.collect::<Vec<Change>>())
}

fn outside_of<'a>(state: &'a State, (id, task): &Ran) -> Option<&'a Outside> {
    if let Some(live) = state.attempts.get(id) {
        return Some(&live.outside);
    }
    let task = state.tasks.get(task.as_ref()?)?;
    task.history.iter().rev().find(|old| old.id == *id).map(|old| &old.outside)
}

/// Keeps what was found with its attempt.
pub(super) fn apply(state: &mut State, id: &AttemptId, task: Option<&TaskId>, found: &Outside) {
    if let Some(live) = state.attempts.get_mut(id) {
        live.outside.join(found);
        return;
    }
    // No index holds anything of an attempt that is over.
    let task = task.and_then(|task| state.tasks.get_mut(task));
    let history = task.into_iter().flat_map(|task| task.history.iter_mut().rev());
    for old in history.filter(|old| old.id == *id).take(1) {
        old.outside.join(found);
    }
}

#[cfg(test)]
mod tests {
    use super::{BESIDE_MAX, FOUND_MAX, Outside};
    use crate::machine::id::AttemptId;

    #[test]
    fn what_an_attempt_keeps_is_bounded() {
        let news = |from: usize| Outside {
            found: (from..from + 10).map(|n| format!("file {n}")).collect(),
            more: 1,
            beside: (from..from + 10).map(|n| AttemptId::new(format!("A.impl.{n}"))).collect(),
        };
        let mut kept = Outside::default();
        assert!(kept.is_empty());
        for from in [0, 5, 10] {
            kept.join(&news(from));
        }
        assert_eq!((kept.found.len(), kept.beside.len()), (FOUND_MAX, BESIDE_MAX));
        // Three times one, and what of 20 has no room.
        assert!(kept.more >= 3 + 20 - FOUND_MAX as u64, "{kept:?}");
        assert_eq!(kept.found[10], "file 10");
    }
}
