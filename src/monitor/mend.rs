//! Our own branches where others moved, removed or made them: put back to where the journal has them,
//! what was found kept in salvage.
//!
//! Only a found value is ever replaced, by compare-and-swap, so what an effect moves meanwhile stays.
//! A branch that somebody has checked out is left until he goes: his next commit would lose its parent.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use super::prepare::put_back;
use super::work::{Fault, oid, refs};
use crate::git::{self, Repo};
use crate::machine::State;
use crate::machine::attempt::AttemptPhase;
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
    /// Of a task's branch: where the landing branch stands. What lies between `to` and that is where
    /// preparing moves a branch that has nothing of its own, before the record knows of it.
    pub landed: Option<String>,
    /// An attempt of its task is at work, or what it left is being dealt with.
    pub is_at_work: bool,
    /// An attempt of its task is being prepared.
    pub is_preparing: bool,
    /// An effect that moves it is owed, and puts it back as well.
    pub is_moving: bool,
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

/// What came of one.
#[derive(Debug, PartialEq, Eq)]
enum Done {
    /// In words.
    Told(String),
    /// Somebody has it checked out in that folder.
    Held(String),
    Nothing,
}

/// What was put back, and what could not be.
#[derive(Debug, Default)]
pub struct Mended {
    /// The attempts that ran when it was moved.
    pub ran: Vec<Ran>,
    pub words: Vec<String>,
    pub warnings: Vec<String>,
    /// Those that could not be put back.
    pub failed: Vec<Mend>,
    /// Branches that somebody has checked out, by name, with the folder.
    pub held: BTreeMap<String, String>,
    /// All branches of ours were looked at.
    pub are_all: bool,
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
    let mend = |to: Option<&Oid>| {
        let (found, to) = (found.map(str::to_owned), to.map(|to| to.as_str().to_owned()));
        Mend {
            name: name.to_owned(),
            found,
            to,
            landed: None,
            is_at_work: false,
            is_preparing: false,
            is_moving: false,
        }
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
        return (!is_known).then(|| Mend { is_moving: moving.is_some(), ..mend(Some(landed)) });
    }
    if !name.starts_with(BRANCHES) {
        return None;
    }
    let task = name.strip_prefix(TASKS).and_then(|id| id.parse::<TaskId>().ok());
    let Some(task) = task.and_then(|id| state.tasks.get(&id)) else {
        return found.is_some().then(|| mend(None));
    };
    // The branch of a finished task is for people to keep or to remove; where there is none on
    // record, preparing sees to it.
    // So is one that a person has taken.
    let tip = task.tip.as_ref().filter(|_| !task.is_final() && task.taken.is_none())?;
    let of_task = || state.attempts.values().filter(|it| it.task.as_ref() == Some(&task.id));
    let mut advancing = of_task().filter(|it| it.phase == AttemptPhase::Advancing);
    let saved = advancing.next().and_then(|attempt| attempt.saved.as_ref());
    (!is_one_of(&[Some(tip), saved])).then(|| Mend {
        landed: state.base.landed.as_ref().map(|landed| landed.as_str().to_owned()),
        is_at_work: of_task().any(|it| match it.phase {
            AttemptPhase::Starting
            | AttemptPhase::Running
            | AttemptPhase::Saving
            | AttemptPhase::Checking
            | AttemptPhase::Advancing => true,
            AttemptPhase::Preparing => false,
        }),
        is_preparing: of_task().any(|it| it.phase == AttemptPhase::Preparing),
        is_moving: of_task()
            .any(|it| matches!(it.phase, AttemptPhase::Preparing | AttemptPhase::Advancing)),
        ..mend(Some(tip))
    })
}

/// Puts them back: first what may be in the way of others. Of those that failed `earlier` and are
/// not found any more it is told when an effect of ours has put them back meanwhile.
pub fn run(mends: &[Mend], earlier: &[Mend], landed: &str, repo: &Repo) -> Mended {
    let mut done = Mended::default();
    let (made, moved): (Vec<&Mend>, Vec<&Mend>) = mends.iter().partition(|it| it.to.is_none());
    let found = made.into_iter().chain(moved).map(|mend| (mend, one(mend, landed, repo)));
    let is_found = |mend: &&Mend| mends.iter().any(|it| it.name == mend.name);
    let gone = earlier.iter().filter(|mend| !is_found(mend));
    for (mend, result) in found.chain(gone.map(|mend| (mend, by_another(mend, repo)))) {
        match result {
            Ok(Done::Told(words)) => done.words.push(words),
            Ok(Done::Held(dir)) => {
                done.held.insert(mend.name.clone(), dir);
            }
            Ok(Done::Nothing) => {}
            Err(fault) => {
                let name = &mend.name;
                done.warnings.push(format!(
                    "`{name}` is not where it should be and cannot be put back, which is tried \
                     again: {fault}"
                ));
                done.failed.push(mend.clone());
            }
        }
    }
    done
}

/// Returns the folder in which a person has a branch checked out. Our own slots are made ready off any
/// branch; one in which an agent has gone to a branch is still ours.
pub fn held_in(repo: &Repo, name: &str) -> Result<Option<String>, Fault> {
    for checkout in repo.checkouts_of(name)?.into_iter().filter(|checkout| !checkout.is_gone) {
        if !repo.is_slot(&checkout.path)? {
            return Ok(Some(checkout.path.display().to_string()));
        }
    }
    Ok(None)
}

/// Returns whether one of our own slots is on a branch.
fn is_in_slot(repo: &Repo, name: &str) -> Result<bool, Fault> {
    for checkout in repo.checkouts_of(name)? {
        if repo.is_slot(&checkout.path)? {
            return Ok(true);
        }
    }
    Ok(false)
}

/// Puts one back.
fn one(mend: &Mend, landed: &str, repo: &Repo) -> Result<Done, Fault> {
    let name = &mend.name;
    let (found, value) = repo.read_value(name)?;
    if value != mend.found {
        return by_another(mend, repo);
    }
    let is_alias = value.is_some_and(|value| value.starts_with("-> "));
    if *name == *landed {
        // What others put on top of what has landed is taken up by the lane.
        let to = mend.to.as_deref().map(oid).transpose()?;
        let ends = to.as_ref().zip(found.as_ref()).filter(|_| !is_alias);
        if ends.map(|(to, found)| repo.is_ancestor(to, found)).transpose()?.unwrap_or(false) {
            return Ok(Done::Nothing);
        }
        if found.is_some()
            && let Some(dir) = held_in(repo, name)?
        {
            return Ok(Done::Held(dir));
        }
    } else if let Some(dir) = held_in(repo, name)? {
        return Ok(Done::Held(dir));
    } else if mend.is_at_work && is_in_slot(repo, name)? {
        // Its agent commits there: that is saved when it is done, and the branch is moved then.
        return Ok(Done::Nothing);
    }
    let Some(to) = &mend.to else {
        if found.is_none() {
            return Ok(Done::Nothing);
        }
        let short = found.as_ref().map_or("", |found| found.short());
        let kept = repo.move_to_salvage(name, &format!("{}.found-{short}", flat(name)))?;
        let told = |kept| Done::Told(format!("{name} made, which is ours: moved to {kept}"));
        return Ok(kept.map_or(Done::Nothing, told));
    };
    let to = oid(to)?;
    if let Some(found) = found.as_ref().filter(|_| !is_alias)
        && is_own(mend, &to, found, repo)?
    {
        if !mend.is_preparing {
            // Nobody's: preparing has failed behind it. What is newer stays.
            repo.cas_ref(name, Some(&to), Some(found))?;
        }
        return Ok(Done::Nothing);
    }
    match put_back(repo, name, &to, found.as_ref(), None) {
        Ok(()) => Ok(Done::Told(told(mend))),
        Err(fault) => match by_another(mend, repo)? {
            Done::Nothing => Err(fault),
            done @ (Done::Told(_) | Done::Held(_)) => Ok(done),
        },
    }
}

/// Returns whether preparing may have moved a task's branch there.
fn is_own(mend: &Mend, to: &git::Oid, found: &git::Oid, repo: &Repo) -> Result<bool, Fault> {
    let Some(landed) = &mend.landed else { return Ok(false) };
    Ok(repo.is_ancestor(to, found)? && repo.is_ancestor(found, &oid(landed)?)?)
}

/// Tells of one that an effect of ours has put back meanwhile; what another moved on is looked at
/// again.
fn by_another(mend: &Mend, repo: &Repo) -> Result<Done, Fault> {
    let kept = mend.salvage().filter(|_| mend.to.is_some());
    let has_kept = kept.map(|kept| repo.read_ref(&kept)).transpose()?.flatten().is_some();
    let is_there = repo.read_value(&mend.name)?.1 == mend.found;
    Ok(if has_kept && !is_there { Done::Told(told(mend)) } else { Done::Nothing })
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::git::scratch::Scratch;

    const NAME: &str = "refs/heads/pipeline/task/A";
    const LANDED: &str = "refs/heads/pipeline/landed";

    fn mend(found: &git::Oid, to: &git::Oid, landed: &git::Oid, is_preparing: bool) -> Mend {
        Mend {
            name: NAME.into(),
            found: Some(found.to_string()),
            to: Some(to.to_string()),
            landed: Some(landed.to_string()),
            is_at_work: false,
            is_preparing,
            is_moving: is_preparing,
        }
    }

    fn put(scratch: &Scratch, mend: &Mend) -> Mended {
        let found = mend.found.clone().expect("it is somewhere");
        scratch.git(["update-ref", NAME, &found]);
        run(std::slice::from_ref(mend), &[], LANDED, &scratch.repo)
    }

    #[test]
    fn where_preparing_moves_a_branch_is_nobodys_doing() {
        let scratch = Scratch::new();
        let tip = scratch.rev("HEAD");
        // What had landed when it began, and what has landed since.
        let begun = scratch.commit_on(&tip, "b", "b");
        let landed = scratch.commit_on(&begun, "c", "c");
        for (is_preparing, at) in [(true, &begun), (false, &tip)] {
            let done = put(&scratch, &mend(&begun, &tip, &landed, is_preparing));
            assert!(done.words.is_empty() && done.warnings.is_empty(), "{done:?}");
            assert_eq!(scratch.rev(NAME), *at);
        }
        assert_eq!(scratch.repo.list_salvage().unwrap(), []);
        // Anything else is.
        let astray = scratch.commit_on(&begun, "astray", "astray");
        let done = put(&scratch, &mend(&astray, &tip, &landed, true));
        let kept = format!("refs/pipeline/salvage/A.found-{}", astray.short());
        assert!(done.words[0].ends_with(&format!("kept in {kept}")), "{done:?}");
        assert_eq!(scratch.rev(NAME), tip);
        assert_eq!(scratch.repo.list_salvage().unwrap(), [(kept, astray)]);
    }

    #[test]
    fn a_look_that_is_out_of_date_tells_of_nothing() {
        let scratch = Scratch::new();
        let tip = scratch.rev("HEAD");
        let older = scratch.commit_on(&tip, "b", "b");
        scratch.git(["update-ref", NAME, tip.as_str()]);
        for is_preparing in [true, false] {
            let old = mend(&older, &tip, &tip, is_preparing);
            for old in [Mend { found: None, ..old.clone() }, old] {
                let done = run(&[old], &[], LANDED, &scratch.repo);
                assert!(done.words.is_empty() && done.warnings.is_empty(), "{done:?}");
            }
        }
    }

    #[test]
    fn one_that_failed_is_told_when_an_effect_of_ours_has_put_it_back_meanwhile() {
        let scratch = Scratch::new();
        let tip = scratch.rev("HEAD");
        let astray = scratch.commit_on(&tip, "astray", "astray");
        let saved = scratch.commit_on(&tip, "saved", "saved");
        scratch.git(["update-ref", NAME, astray.as_str()]);
        let failed = [mend(&astray, &tip, &tip, false)];
        // Nothing can be kept under that name.
        let in_the_way = format!("{}/in-the-way", failed[0].salvage().expect("it is somewhere"));
        scratch.git(["update-ref", &in_the_way, tip.as_str()]);
        let done = run(&failed, &[], LANDED, &scratch.repo);
        assert_eq!((done.words.len(), done.warnings.len()), (0, 1), "{done:?}");
        assert_eq!(done.failed, failed);
        scratch.git(["update-ref", "-d", &in_the_way]);
        // It is where it was: the next look finds it, so that nothing is told here.
        let done = run(&[], &failed, LANDED, &scratch.repo);
        assert!(done.words.is_empty() && done.failed.is_empty(), "{done:?}");
        assert_eq!(scratch.rev(NAME), astray);
        put_back(&scratch.repo, NAME, &saved, Some(&astray), None).unwrap();
        let done = run(&[], &failed, LANDED, &scratch.repo);
        assert_eq!(done.words, [told(&failed[0])]);
        assert_eq!(scratch.rev(NAME), saved);
        // One that is found again is put back, and told once.
        let again = [mend(&saved, &tip, &tip, false)];
        let done = run(&again, &failed, LANDED, &scratch.repo);
        assert_eq!(done.words, [told(&again[0])]);
        assert_eq!(scratch.rev(NAME), tip);
    }
}
