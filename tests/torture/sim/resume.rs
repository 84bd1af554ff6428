//! What attempts that were cut short leave to the next: their commit and their session.

use std::collections::{BTreeMap, BTreeSet};

use pipeline::machine::State;
use pipeline::machine::attempt::{Attempt, Exit};
use pipeline::machine::id::{AttemptId, Oid};
use pipeline::machine::usage::Usage;

use super::repo::{Repo, commit_of};

/// Tokens that one run uses.
const RUN_TOKENS: u64 = 10;

/// What runs there were in each session of a program that tells of all of them together.
#[derive(Debug, Default, Clone)]
pub struct Sessions(BTreeMap<String, BTreeSet<AttemptId>>);

impl Sessions {
    /// Returns what a run tells at its end; `resumed`: the session that it took up.
    pub fn told(&mut self, attempt: &AttemptId, resumed: Option<&String>) -> Usage {
        let session = resumed.cloned().unwrap_or_else(|| format!("s-{attempt}"));
        let runs = self.0.entry(session.clone()).or_default();
        runs.insert(attempt.clone());
        let input_tokens = Some(RUN_TOKENS * runs.len() as u64);
        // Now and then one that took up a session does not name it.
        let is_named = resumed.is_none() || runs.len().is_multiple_of(2);
        let session = is_named.then_some(session);
        Usage { session, input_tokens, is_session_total: true, ..Usage::default() }
    }
}

/// Returns the ended attempt that a live one goes on from.
fn continued<'a>(state: &'a State, attempt: &Attempt) -> Option<&'a Attempt> {
    let id = attempt.continues.as_ref()?;
    let history = &state.tasks[attempt.task.as_ref()?].history;
    let found = history.iter().find(|old| old.id == *id);
    Some(found.unwrap_or_else(|| panic!("I29: `{}` goes on from `{id}`, unknown", attempt.id)))
}

/// A worktree begins at the task's branch, or at what the attempt left that is gone on from.
pub fn begins(state: &State, id: &AttemptId, base: &Option<Oid>, tip: &Option<Oid>, repo: &Repo) {
    let Some(attempt) = state.attempts.get(id).filter(|attempt| attempt.is_work()) else { return };
    let Some(old) = continued(state, attempt) else {
        assert_eq!(base, tip, "I29: `{id}` begins neither at its branch nor at what was left");
        return;
    };
    assert_eq!(old.stage(), attempt.stage(), "I29: `{id}` goes on from another stage");
    let class = old.outcome.as_ref().map(|outcome| outcome.class);
    assert!(class.is_some_and(|class| class.is_cut_short()), "I29: `{id}` from {class:?}");
    let left = old.saved.as_ref().or(tip.as_ref());
    assert_eq!(base.as_ref(), left, "I29: `{id}` does not begin with what `{}` left", old.id);
    if let (Some(base), Some(tip)) = (base, tip) {
        let holds = repo.holds(commit_of(base), commit_of(tip));
        assert!(holds, "I29: `{id}` begins at {base}, which the branch at {tip} cannot move to");
    }
}

/// A session is taken up by the agent that had it, in the folder where it had it, and by nobody else.
pub fn takes_up(state: &State, id: &AttemptId, session: &str) {
    let attempt = &state.attempts[id];
    let old = continued(state, attempt).unwrap_or_else(|| panic!("I30: `{id}` has no session"));
    let known = old.exit.as_ref().and_then(|exit| exit.usage.session.as_deref());
    assert_eq!(known, Some(session), "I30: `{id}` takes up a session of its own making");
    let place = |attempt: &Attempt| (attempt.agent.clone(), attempt.slot);
    assert_eq!(place(attempt), place(old), "I30: `{id}` takes up a session of elsewhere");
}

/// Of a session's total each run is told what it used itself.
pub fn used(id: &AttemptId, exit: &Exit) {
    if let Some(tokens) = exit.usage.input_tokens {
        assert_eq!(tokens, RUN_TOKENS, "I30: `{id}` is told the tokens of others");
    }
}
