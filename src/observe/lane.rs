//! What is in the way of the lane and of the base: as on record, or as it is seen now.

use std::borrow::Cow;

use super::page::first_line;
use super::waiting::{On, Waiting};
use super::words;
use crate::machine::State;
use crate::machine::attempt::Tries;
use crate::machine::lane::{Base, TYPE};
use crate::machine::mode::{Isolation, Rollout};
use crate::machine::shell::shell_word;

/// The lane and the base, seen.
#[derive(Debug, Clone)]
pub struct Lane<'a> {
    pub base: Cow<'a, Base>,
    /// What is past its bound of tries: a person is needed.
    pub stuck: Option<&'a Tries>,
    /// What kept the landing under way is gone, which no monitor has seen yet.
    pub is_freed: bool,
}

/// Stands for why the base does not follow, where that is gone and no monitor has seen it yet.
pub const GONE: &str = "what was in its way is gone";
/// The same where the base has moved on meanwhile.
pub const MOVED: &str = "it has moved on since, which is taken in first";

impl<'a> Lane<'a> {
    /// Returns it as it is on record.
    #[must_use]
    pub fn on_record(state: &'a State) -> Self {
        Self { base: Cow::Borrowed(&state.base), stuck: state.stuck_lane(), is_freed: false }
    }

    /// Returns the id of the task whose landing is stuck.
    #[must_use]
    pub fn stuck_task(&self, state: &'a State) -> Option<&'a str> {
        let landing = state.landing.as_ref().filter(|_| self.stuck.is_some())?;
        Some(landing.task.as_str())
    }
}

/// Corrects what the task of a landing waits for that is tried as soon as a monitor runs.
pub fn correct(waiting: &mut [Waiting<'_>], state: &State, lane: &Lane<'_>) {
    let Some(landing) = state.landing.as_ref().filter(|_| lane.is_freed) else { return };
    for entry in waiting.iter_mut().filter(|entry| entry.id == landing.task.as_str()) {
        entry.reason.on = On::Checkout;
        entry.reason.what = "what was in the way is gone: pipeline monitor".into();
        entry.reason.until = None;
    }
}

/// Returns what is in the way, and the command to type.
#[must_use]
pub fn trouble(state: &State, lane: &Lane<'_>) -> Option<(String, String)> {
    if state.settings.project.isolation == Isolation::None {
        return None;
    }
    let (branch, name) = (&state.settings.landing.branch, &state.settings.project.base);
    let base = &lane.base;
    if let Some(tries) = lane.stuck {
        return Some(stuck(branch, tries));
    }
    if let Some(paths) = &base.conflict {
        let why = format!("`{name}` conflicts with `{branch}` in {}", first_line(paths));
        return Some((why, format!("git merge {}", shell_word(branch))));
    }
    if let Some((commit, tail)) = base.red.as_ref().filter(|_| !state.monitor.allows_red_base) {
        let name = words::branch_at(state, commit);
        let why = format!("checks fail on `{name}` itself: {}", first_line(tail));
        return Some((why, "pipeline monitor --allow-red-base".into()));
    }
    if state.is_base_check_stuck() {
        let why = first_line(&base.check_tries.why);
        let why = format!("the checks on `{name}` itself could not run: {why}");
        return Some((why, "pipeline doctor --checks".into()));
    }
    if let Some((why @ (GONE | MOVED), command)) = refused(base) {
        return Some((format!("`{name}` does not follow yet: {why}"), command));
    }
    if let Some((why, command)) = refused(base) {
        return Some((format!("`{name}` cannot follow: {}", first_line(why)), command));
    }
    if state.rollout == Rollout::Pilot && base.behind > 0 {
        let why = format!("in pilot `{name}` does not follow");
        return Some((why, "pipeline rollout promote".into()));
    }
    None
}

/// Returns why the landing branch is stuck, and the command to type.
#[must_use]
pub fn stuck(branch: &str, tries: &Tries) -> (String, String) {
    // Which program or file failed is for a look at everything.
    let (why, next) = tries.why.split_once(TYPE).unwrap_or((&tries.why, "pipeline doctor"));
    let head = format!("`{branch}` cannot move on: ");
    let why = why.strip_prefix(&head).unwrap_or(why);
    (format!("{head}{}", first_line(why)), next.to_owned())
}

/// Returns why the base does not follow, if it was refused, and the command to type.
#[must_use]
pub fn refused(base: &Base) -> Option<(&str, String)> {
    let why = base.why.as_deref()?;
    if let Some((why, command)) = why.split_once(TYPE) {
        return Some((why, command.to_owned()));
    }
    if [GONE, MOVED].contains(&why) {
        return Some((why, "pipeline monitor".into()));
    }
    // What passes by itself, or what only a look can tell: no merge that nobody has thought of.
    Some((why, "git status".into()))
}
