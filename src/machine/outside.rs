//! What changed outside of the worktrees while attempts ran: told, never judged, since people work
//! there at the same time.

use std::collections::BTreeMap;

use super::change::{AttemptChange, Change, ProjectChange};
use super::id::{AttemptId, TaskId};
use super::state::State;
use super::step::{Step, attempt as of_attempt, project};

/// Most differences kept with one attempt; the rest is counted.
pub const FOUND_MAX: usize = 12;
/// Most other attempts kept that ran meanwhile.
pub const BESIDE_MAX: usize = 8;
/// Most marks of differences kept with one attempt, the newest.
pub const MARKS_MAX: usize = 24;

/// One difference.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Found {
    pub words: String,
    /// Tells it from another change of the same thing, by what stood there before and after; empty:
    /// there is no need to.
    pub mark: String,
}

impl Found {
    /// Makes one that needs no mark.
    #[must_use]
    pub fn plain(words: impl Into<String>) -> Self {
        Self { words: words.into(), mark: String::new() }
    }
}

/// What was found changed outside while an attempt ran.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Outside {
    /// In words, one difference each, in the order in which they were found.
    pub found: Vec<String>,
    /// Differences that are not named.
    pub more: u64,
    /// Attempts that ran meanwhile too, any of which may have done it; at most [`BESIDE_MAX`].
    pub beside: Vec<AttemptId>,
    /// Marks of the differences, the newest last, named or not; at most [`MARKS_MAX`].
    pub marks: Vec<String>,
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
        for mark in news.marks.iter().filter(|mark| !mark.is_empty()) {
            self.marks.retain(|known| known != mark);
            self.marks.push(mark.clone());
        }
        let surplus = self.marks.len().saturating_sub(MARKS_MAX);
        self.marks.drain(..surplus);
    }
}

/// An attempt that ran, live or over, with its task; `None`: a check of the base.
pub type Ran = (AttemptId, Option<TaskId>);

/// Tells each attempt that ran of what it was not told yet; where none ran, the project.
///
/// `is_first`: a monitor's first look, which compares with what the one before it kept, and so may
/// repeat a look that was told and not kept, after a kill. A difference that one of `ran` was told of
/// in that very form is then nobody's again.
pub(super) fn decide(
    state: &State,
    ran: &[Ran],
    found: &[Found],
    more: u64,
    is_first: bool,
) -> Step {
    let known: Vec<&Outside> = ran.iter().filter_map(|ran| outside_of(state, ran)).collect();
    let is_repeated =
        |found: &&Found| is_first && known.iter().any(|known| known.marks.contains(&found.mark));
    let news: Vec<&Found> = found.iter().filter(|found| !is_repeated(found)).collect();
    if news.is_empty() && (more == 0 || !found.is_empty()) {
        return Step::accept(Vec::new());
    }
    if ran.is_empty() {
        let untold = untold(&news, more, Some(&state.outside));
        let told = |found| project(ProjectChange::FoundOutside { found });
        return Step::accept(untold.map(told).into_iter().collect());
    }
    let told = ran.iter().filter_map(|of @ (id, task)| {
        let mut found = untold(&news, more, outside_of(state, of))?;
        let others = ran.iter().map(|(other, _)| other).filter(|other| *other != id);
        found.beside = others.take(BESIDE_MAX).cloned().collect();
        Some(of_attempt(id, AttemptChange::FoundOutside { task: task.clone(), found }))
    });
    Step::accept(told.collect::<Vec<Change>>())
}

/// Returns what of `news` is not among what is `known`; `None`: nothing.
fn untold(news: &[&Found], more: u64, known: Option<&Outside>) -> Option<Outside> {
    let is_new = |found: &&&Found| known.is_none_or(|it| !it.found.contains(&found.words));
    let news: Vec<&&Found> = news.iter().filter(is_new).collect();
    let found = Outside {
        found: news.iter().map(|found| found.words.clone()).collect(),
        more,
        beside: Vec::new(),
        marks: news.iter().map(|found| found.mark.clone()).filter(|it| !it.is_empty()).collect(),
    };
    (!found.is_empty()).then_some(found)
}

/// Takes in which branches of ours people have checked out, by name, with where.
pub(super) fn decide_held(state: &State, held: &BTreeMap<String, String>) -> Step {
    let set = ProjectChange::BranchesHeld { held: held.clone() };
    Step::accept(if *held == state.held { Vec::new() } else { vec![project(set)] })
}

fn outside_of<'a>(state: &'a State, (id, task): &Ran) -> Option<&'a Outside> {
    if let Some(live) = state.attempts.get(id) {
        return Some(&live.outside);
    }
    let task = state.tasks.get(task.as_ref()?)?;
    task.history.iter().rev().find(|old| old.id == *id).map(|old| &old.outside)
}

/// Keeps what was found while nobody ran.
pub(super) fn apply_to_nobody(state: &mut State, found: &Outside) {
    state.outside.join(found);
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
    use super::{BESIDE_MAX, FOUND_MAX, MARKS_MAX, Outside};
    use crate::machine::id::AttemptId;

    #[test]
    fn what_an_attempt_keeps_is_bounded() {
        let news = |from: usize| Outside {
            found: (from..from + 10).map(|n| format!("file {n}")).collect(),
            more: 1,
            beside: (from..from + 10).map(|n| AttemptId::new(format!("A.impl.{n}"))).collect(),
            marks: (from..from + 10).map(|n| format!("{n:016x}")).collect(),
        };
        let mut kept = Outside::default();
        assert!(kept.is_empty());
        for from in [0, 5, 10, 20] {
            kept.join(&news(from));
        }
        assert_eq!((kept.found.len(), kept.beside.len()), (FOUND_MAX, BESIDE_MAX));
        // Four times one, and what of 30 has no room.
        assert!(kept.more >= 4 + 30 - FOUND_MAX as u64, "{kept:?}");
        assert_eq!(kept.marks.len(), MARKS_MAX);
        assert_eq!(kept.marks.last(), Some(&format!("{:016x}", 29)));
        assert_eq!(kept.found[10], "file 10");
    }
}
