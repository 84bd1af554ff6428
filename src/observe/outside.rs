//! What changed outside of the worktrees while attempts ran, in words.

use std::collections::BTreeMap;

use crate::machine::State;
use crate::machine::attempt::Attempt;
use crate::machine::outside::Outside;

/// Other attempts named; the rest is counted.
const BESIDE_NAMED_MAX: usize = 3;

/// Returns a line for each difference, and one for those that are not named.
#[must_use]
pub fn lines(outside: &Outside) -> Vec<String> {
    let more = (outside.more > 0).then(|| format!("and {} more", outside.more));
    outside.found.iter().cloned().chain(more).collect()
}

/// Names an attempt, and those that ran meanwhile.
#[must_use]
pub fn ran(id: &str, outside: &Outside) -> String {
    let beside = &outside.beside;
    if beside.is_empty() {
        return id.to_owned();
    }
    let named: Vec<&str> = beside.iter().take(BESIDE_NAMED_MAX).map(|id| id.as_str()).collect();
    let more = match beside.len().saturating_sub(BESIDE_NAMED_MAX) {
        0 => String::new(),
        more => format!(" and {more} more"),
    };
    format!("{id} (and {}{more})", named.join(", "))
}

/// Says all of it on one line.
#[must_use]
pub fn line(id: &str, outside: &Outside) -> String {
    format!("changed while {} ran: {}", ran(id, outside), lines(outside).join("; "))
}

/// The same of what changed while nobody ran.
#[must_use]
pub fn by_nobody(outside: &Outside) -> String {
    format!("changed while no agent ran: {}", lines(outside).join("; "))
}

/// Returns a branch as people name it.
#[must_use]
pub fn branch(name: &str) -> &str {
    name.strip_prefix("refs/heads/").unwrap_or(name)
}

/// Says which branches of ours stand elsewhere and stay there.
#[must_use]
pub fn held(held: &BTreeMap<String, String>) -> String {
    if held.is_empty() {
        return "no branch of ours that stands elsewhere is checked out any more".into();
    }
    let one = |(name, dir): (&String, &String)| {
        let name = branch(name);
        format!("{name} stands elsewhere and is checked out in {dir}: left until it is not")
    };
    held.iter().map(one).collect::<Vec<_>>().join("; ")
}

/// Returns the attempt to look at: the last one, of those since the monitor's start, while which
/// something changed outside; and how many there are. Cost: all attempts ever made.
#[must_use]
pub fn newest(state: &State) -> Option<(&Attempt, usize)> {
    let over = state.tasks.values().flat_map(|task| &task.history);
    let since = state.monitor.started_at;
    let is_told = |attempt: &&Attempt| {
        let is_recent = attempt.outcome.as_ref().is_none_or(|outcome| outcome.at >= since);
        is_recent && !attempt.outside.is_empty()
    };
    let told: Vec<&Attempt> = state.attempts.values().chain(over).filter(is_told).collect();
    let count = told.len();
    told.into_iter().max_by_key(|attempt| attempt.assigned_at).map(|newest| (newest, count))
}

#[cfg(test)]
mod tests {
    use super::{line, newest};
    use crate::machine::Observation;
    use crate::machine::id::{AttemptId, TaskId};
    use crate::machine::outside::{Found, Outside};
    use crate::observe::support::{End, Pipeline, settings, task};

    #[test]
    fn the_line_names_who_ran_and_counts_what_has_no_room() {
        let ids = ["B.impl.1", "C.impl.1", "D.impl.1", "E.impl.1"].map(AttemptId::new);
        let found = vec!["main checkout: ?? x.txt".to_owned()];
        let alone = Outside { found: found.clone(), ..Outside::default() };
        assert_eq!(line("A.impl.1", &alone), "changed while A.impl.1 ran: main checkout: ?? x.txt");
        let among = Outside { found, more: 3, beside: ids.to_vec(), ..Outside::default() };
        assert_eq!(
            line("A.impl.1", &among),
            "changed while A.impl.1 (and B.impl.1, C.impl.1, D.impl.1 and 1 more) ran: main \
             checkout: ?? x.txt; and 3 more"
        );
    }

    /// A change of a file of the main checkout; `now`: what is in it.
    fn file(name: &str, now: &str) -> Found {
        Found { words: format!("main checkout: M {name}"), mark: format!("{name} {now}") }
    }

    fn seen(ids: &[&AttemptId], found: &[Found], is_first: bool) -> Observation {
        let ran = |id: &&AttemptId| {
            let task = id.as_str().split('.').next().unwrap_or_default();
            ((*id).clone(), Some(TaskId::new(task)))
        };
        let ran = ids.iter().map(ran).collect();
        Observation::OutsideSeen { ran, found: found.to_vec(), more: 0, is_first }
    }

    /// Takes it in; returns how much was decided.
    fn told(pipeline: &mut Pipeline, seen: Observation) -> usize {
        pipeline.see(seen);
        pipeline.last.len()
    }

    #[test]
    fn what_was_found_is_kept_with_an_attempt_that_is_over_and_told_once() {
        let mut pipeline = Pipeline::started(settings(), vec![task("A", &[])]);
        pipeline.run("A.arch.1", End::Done);
        pipeline.turn();
        assert!(newest(&pipeline.state).is_none());
        let (over, live) = (AttemptId::new("A.arch.1"), AttemptId::new("A.test.1"));
        pipeline.see(seen(&[&over], &[file("x", "1")], false));
        // The same look once more, after a kill: not of the one that runs now.
        pipeline.see(seen(&[&over, &live], &[file("x", "1")], true));
        assert!(pipeline.state.attempts[&live].outside.is_empty());
        let (attempt, count) = newest(&pipeline.state).expect("one is told of");
        assert_eq!((&attempt.id, count), (&over, 1));
        assert_eq!(attempt.outside.found, ["main checkout: M x"]);
        let made = Found::plain("refs/heads/topic made at abc");
        pipeline.see(seen(&[&over, &live], &[made], false));
        let (attempt, count) = newest(&pipeline.state).expect("two are told of");
        assert_eq!((&attempt.id, count, &attempt.outside.beside), (&live, 2, &vec![over]));
        pipeline.state.check();
        // Told of nobody that is known: nothing happens.
        let stranger = AttemptId::new("Z.arch.1");
        pipeline.see(seen(&[&stranger], &[Found::plain("x")], false));
        pipeline.state.check();
    }

    #[test]
    fn a_second_change_of_the_same_file_is_told_with_who_ran_then() {
        let mut pipeline = Pipeline::started(settings(), vec![task("A", &[])]);
        pipeline.run("A.arch.1", End::Done);
        pipeline.turn();
        let (long, later) = (AttemptId::new("A.arch.1"), AttemptId::new("A.test.1"));
        pipeline.see(seen(&[&long], &[file("x", "1")], false));
        // Known to one that still runs, by the same words.
        let count = told(&mut pipeline, seen(&[&long, &later], &[file("x", "2")], false));
        assert_eq!(pipeline.state.attempts[&later].outside.found, ["main checkout: M x"]);
        assert_eq!(count, 1, "the other knows of it");
        // What a monitor's first look finds beyond what was told is news too.
        pipeline.see(seen(&[&later], &[file("y", "1")], false));
        let count =
            told(&mut pipeline, seen(&[&long, &later], &[file("y", "1"), file("y", "2")], true));
        assert_eq!(count, 1, "the second change, with the one that does not know of the first");
        pipeline.state.check();
    }

    #[test]
    fn what_is_put_back_while_nobody_runs_is_told_once() {
        let mut pipeline = Pipeline::started(settings(), vec![task("A", &[])]);
        let put_back = || vec![Found::plain("refs/heads/pipeline/landed moved")];
        assert_eq!(told(&mut pipeline, seen(&[], &put_back(), false)), 1);
        assert_eq!(told(&mut pipeline, seen(&[], &put_back(), false)), 0);
        assert_eq!(pipeline.state.outside.found, ["refs/heads/pipeline/landed moved"]);
        let held = |dir: Option<&str>| {
            let name = "refs/heads/pipeline/task/A".to_owned();
            let held = dir.map(|dir| (name, dir.to_owned())).into_iter().collect();
            Observation::BranchesSeen { held }
        };
        assert_eq!(told(&mut pipeline, held(Some("/mine"))), 1);
        assert_eq!(told(&mut pipeline, held(Some("/mine"))), 0);
        assert_eq!(told(&mut pipeline, held(None)), 1);
        pipeline.state.check();
    }
}
