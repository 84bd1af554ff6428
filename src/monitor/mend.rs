//! Our own branches where others moved, removed or made them: put back to where the journal has them,
//! what was found kept in salvage.
//!
//! Only a found value is ever replaced, by compare-and-swap, so what an effect moves meanwhile stays.

use std::collections::BTreeSet;
use std::fmt;

use super::prepare::put_back;
use super::work::{Fault, oid, refs};
use crate::git::Repo;
use crate::machine::State;
use crate::machine::attempt::{Attempt, AttemptPhase};
use crate::machine::id::{Oid, TaskId};
use crate::machine::lane::LandingPhase;
use crate::machine::outside::Ran;

/// Where our branches are.
const BRANCHES: &str = "refs/heads/pipeline/";
/// Where those of tasks are.
const TASKS: &str = "refs/heads/pipeline/task/";
/// Digits of an object id in words.
const SHORT: usize = 12;

/// A branch that does not stand where it should.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mend {
    pub name: String,
    /// Where it was seen; `None`: nowhere.
    pub found: Option<String>,
    /// Where the journal has it; `None`: there is to be none.
    pub to: Option<String>,
    /// An effect under way puts it back: it is only told.
    pub is_seen_to: bool,
}

impl Mend {
    /// Returns the name in salvage under which what was found will be kept.
    pub fn salvage(&self) -> Option<String> {
        let found = self.found.as_ref()?;
        let short = match self.to {
            Some(_) => self.name.rsplit('/').next().unwrap_or(&self.name).to_owned(),
            None => flat(&self.name),
        };
        Some(refs::salvage(&format!("{short}.found-{}", found.get(..SHORT).unwrap_or(found))))
    }
}

impl fmt::Display for Mend {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let name = &self.name;
        match (&self.found, &self.to) {
            (None, _) => write!(f, "put back `{name}`, which is gone"),
            (Some(found), None) => {
                write!(f, "move `{name}` to salvage ({}): it belongs to no task", short(found))
            }
            (Some(found), Some(to)) => {
                let (found, to) = (short(found), short(to));
                write!(f, "put `{name}` back to {to}, keeping what was found ({found})")
            }
        }
    }
}

/// What was put back, and what could not be.
#[derive(Debug, Default)]
pub struct Mended {
    /// The attempts that ran when it was moved.
    pub ran: Vec<Ran>,
    pub words: Vec<String>,
    pub warnings: Vec<String>,
}

/// Returns whether a name in salvage is that of something found at a branch of ours.
pub fn is_found(name: &str) -> bool {
    name.starts_with(&refs::salvage("")) && name.contains(".found-")
}

/// Returns the landing branch, by full name.
pub fn landing_branch(state: &State) -> String {
    format!("refs/heads/{}", state.settings.landing.branch)
}

/// Returns what of `ours`, which are all there are, is to be mended.
pub fn all(state: &State, ours: &[(String, Option<String>)]) -> Vec<Mend> {
    let mut mends: Vec<Mend> =
        ours.iter().filter_map(|(name, at)| of(state, name, at.as_deref())).collect();
    let there: BTreeSet<&str> = ours.iter().map(|(name, _)| name.as_str()).collect();
    let landed = landing_branch(state);
    let missing = state.tasks.values().filter(|task| task.tip.is_some());
    let missing = missing.map(|task| refs::task(&task.id)).chain([landed]);
    let missing = missing.filter(|name| !there.contains(name.as_str()));
    mends.extend(missing.filter_map(|name| of(state, &name, None)));
    mends
}

/// Returns what is to be done about a branch of ours that stands at `found`; `None`: nothing.
pub fn of(state: &State, name: &str, found: Option<&str>) -> Option<Mend> {
    let mend = |to: Option<&Oid>, is_seen_to| {
        let (found, to) = (found.map(str::to_owned), to.map(|to| to.as_str().to_owned()));
        Mend { name: name.to_owned(), found, to, is_seen_to }
    };
    let is_one_of = |known: &[Option<&Oid>]| {
        let mut known = known.iter().flatten();
        found.is_some_and(|found| known.any(|known| known.as_str() == found))
    };
    if name == landing_branch(state) {
        let landed = state.base.landed.as_ref()?;
        let moving = state.landing.as_ref().and_then(|landing| match &landing.phase {
            LandingPhase::Moving { commit, .. } => Some(commit),
            LandingPhase::Merging | LandingPhase::Checking { .. } => None,
        });
        // While the base is taken in it is not known where that leads; nor while the pilot is dropped,
        // whether that is done.
        let is_reset = state.base.dropping.is_some();
        let is_known = is_reset || !state.base.is_taken() || is_one_of(&[Some(landed), moving]);
        return (!is_known).then(|| mend(Some(landed), moving.is_some()));
    }
    if !name.starts_with(BRANCHES) {
        return None;
    }
    let task = name.strip_prefix(TASKS).and_then(|id| id.parse::<TaskId>().ok());
    let Some(task) = task.and_then(|id| state.tasks.get(&id)) else {
        return found.is_some().then(|| mend(None, false));
    };
    // The branch of a finished task is for people to keep or to remove; where there is none on
    // record, preparing sees to it.
    // So is one that a person has taken.
    let tip = task.tip.as_ref().filter(|_| !task.is_final() && task.taken.is_none())?;
    let is_moved = |attempt: &&Attempt| {
        matches!(attempt.phase, AttemptPhase::Preparing | AttemptPhase::Advancing)
            && attempt.task.as_ref() == Some(&task.id)
    };
    let moved = state.attempts.values().find(is_moved);
    let (saved, landed) = match moved {
        Some(attempt) => (attempt.saved.as_ref(), state.base.landed.as_ref()),
        None => (None, None),
    };
    let is_known = is_one_of(&[Some(tip), saved, landed]);
    (!is_known).then(|| mend(Some(tip), moved.is_some()))
}

/// Puts them back: first what may be in the way of others.
pub fn run(mends: &[Mend], landed: &str, repo: &Repo) -> Mended {
    let mut done = Mended::default();
    let (made, moved): (Vec<&Mend>, Vec<&Mend>) = mends.iter().partition(|it| it.to.is_none());
    for mend in made.into_iter().chain(moved) {
        match one(mend, landed, repo) {
            Ok(Some(words)) => done.words.push(words),
            Ok(None) => {}
            Err(fault) => {
                let name = &mend.name;
                done.warnings.push(format!(
                    "`{name}` is not where it should be and cannot be put back, which is tried \
                     again: {fault}"
                ));
            }
        }
    }
    done
}

/// Puts one back; returns what is to be told.
fn one(mend: &Mend, landed: &str, repo: &Repo) -> Result<Option<String>, Fault> {
    let name = &mend.name;
    let (found, value) = match (mend.is_seen_to, &mend.found) {
        // As it was seen: by now it may be put back.
        (true, Some(found)) if !found.starts_with("-> ") => (Some(oid(found)?), mend.found.clone()),
        (true, _) => return Ok(Some(told(mend))),
        (false, _) => repo.read_value(name)?,
    };
    if value != mend.found {
        return by_another(mend, repo);
    }
    let is_alias = value.is_some_and(|value| value.starts_with("-> "));
    let Some(to) = &mend.to else {
        // Taken away under a checkout, its next commit would have no parent.
        if found.is_none() || !repo.checkouts_of(name)?.is_empty() {
            return Ok(None);
        }
        let short = found.as_ref().map_or("", |found| found.short());
        let kept = repo.move_to_salvage(name, &format!("{}.found-{short}", flat(name)))?;
        return Ok(kept.map(|kept| format!("{name} made, which is ours: moved to {kept}")));
    };
    let to = oid(to)?;
    // What others put on top of what has landed is taken up by the lane.
    let is_on_top = |found: &crate::git::Oid| -> Result<bool, Fault> {
        Ok(*name == *landed && !is_alias && repo.is_ancestor(&to, found)?)
    };
    if found.as_ref().map(is_on_top).transpose()?.unwrap_or(false) {
        return Ok(None);
    }
    if mend.is_seen_to {
        return Ok(Some(told(mend)));
    }
    match put_back(repo, name, &to, found.as_ref()) {
        Ok(()) => Ok(Some(told(mend))),
        Err(fault) => by_another(mend, repo)?.map(Some).ok_or(fault),
    }
}

/// Tells of one that an effect of ours has put back meanwhile; what another moved on is looked at
/// again.
fn by_another(mend: &Mend, repo: &Repo) -> Result<Option<String>, Fault> {
    let kept = mend.salvage().filter(|_| mend.to.is_some());
    let has_kept = kept.map(|kept| repo.read_ref(&kept)).transpose()?.flatten().is_some();
    let is_there = repo.read_value(&mend.name)?.1 == mend.found;
    Ok((has_kept && !is_there).then(|| told(mend)))
}

/// Says that one was moved or removed, and is put back.
fn told(mend: &Mend) -> String {
    let name = &mend.name;
    match &mend.found {
        None => format!("{name} removed: put back"),
        Some(alias) if alias.starts_with("-> ") => format!("{name} {alias}: put back"),
        Some(found) => {
            let (kept, short) = (mend.salvage().unwrap_or_default(), found.get(..SHORT));
            let short = short.unwrap_or(found);
            format!("{name} moved to {short}: put back, that is kept in {kept}")
        }
    }
}

/// Shortens an object id; the name that an alias stands for is said in full.
fn short(value: &str) -> &str {
    if value.starts_with("-> ") { value } else { value.get(..SHORT).unwrap_or(value) }
}

/// Returns a branch's name below ours as one word.
fn flat(name: &str) -> String {
    name.strip_prefix(BRANCHES).unwrap_or(name).replace('/', "-")
}
