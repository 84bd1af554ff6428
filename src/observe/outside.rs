//! What changed outside of the worktrees while attempts ran, in words.

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
    use crate::machine::outside::Outside;
    use crate::observe::support::{End, Pipeline, settings, task};

    #[test]
    fn the_line_names_who_ran_and_counts_what_has_no_room() {
        let ids = ["B.impl.1", "C.impl.1", "D.impl.1", "E.impl.1"].map(AttemptId::new);
        let found = vec!["main checkout: ?? x.txt".to_owned()];
        let alone = Outside { found: found.clone(), ..Outside::default() };
        assert_eq!(line("A.impl.1", &alone), "changed while A.impl.1 ran: main checkout: ?? x.txt");
        let among = Outside { found, more: 3, beside: ids.to_vec() };
        assert_eq!(
            line("A.impl.1", &among),
            "changed while A.impl.1 (and B.impl.1, C.impl.1, D.impl.1 and 1 more) ran: main \
             checkout: ?? x.txt; and 3 more"
        );
    }

    #[test]
    fn what_was_found_is_kept_with_an_attempt_that_is_over_and_told_once() {
        let mut pipeline = Pipeline::started(settings(), vec![task("A", &[])]);
        pipeline.run("A.arch.1", End::Done);
        pipeline.turn();
        assert!(newest(&pipeline.state).is_none());
        let (over, live) = (AttemptId::new("A.arch.1"), AttemptId::new("A.test.1"));
        let seen = |ids: &[&AttemptId], found: &[&str]| Observation::OutsideSeen {
            ran: ids.iter().map(|id| ((*id).clone(), Some(TaskId::new("A")))).collect(),
            found: found.iter().map(|line| (*line).to_owned()).collect(),
            more: 0,
        };
        pipeline.see(seen(&[&over], &["main checkout: ?? x.txt"]));
        // The same look once more, after a kill: not of the one that runs now.
        pipeline.see(seen(&[&over, &live], &["main checkout: ?? x.txt"]));
        assert!(pipeline.state.attempts[&live].outside.is_empty());
        let (attempt, count) = newest(&pipeline.state).expect("one is told of");
        assert_eq!((&attempt.id, count), (&over, 1));
        assert_eq!(attempt.outside.found, ["main checkout: ?? x.txt"]);
        pipeline.see(seen(&[&over, &live], &["refs/heads/topic made at abc"]));
        let (attempt, count) = newest(&pipeline.state).expect("two are told of");
        assert_eq!((&attempt.id, count, &attempt.outside.beside), (&live, 2, &vec![over]));
        pipeline.state.check();
        // Told of nobody that is known: nothing happens.
        let stranger = AttemptId::new("Z.arch.1");
        pipeline.see(seen(&[&stranger], &["x"]));
        pipeline.state.check();
    }
}
