//! Carries out the lane's effects: take the base in, merge, land, let the base follow.

use globset::{GlobBuilder, GlobSet, GlobSetBuilder};

use super::prepare::put_back;
use super::work::{Fault, oid, refs};
use crate::git::{self, Cas, MergeRequest, Merged, Repo, TakeBase};
use crate::machine::Observation;
use crate::machine::id::{Oid, TaskId};
use crate::machine::lane::TYPE;

/// Most characters of git's own words that are told.
const WORDS_CHARS_MAX: usize = 300;

/// Branches of the lane, by full name.
#[derive(Debug, Clone)]
pub struct Branches {
    pub base: String,
    pub landed: String,
}

fn known(oid: &git::Oid) -> Oid {
    Oid::new(oid.as_str())
}

/// Reads where base and landing branch stand.
///
/// # Errors
/// When git fails, or the base branch is gone.
pub fn look(branches: &Branches, repo: &Repo) -> Result<Observation, Fault> {
    let tip = repo.read_ref(&branches.base)?;
    let tip = tip.ok_or_else(|| Fault(format!("the base branch `{}` is gone", branches.base)))?;
    let landed = repo.read_ref(&branches.landed)?;
    Ok(Observation::BaseSeen { tip: known(&tip), landed: landed.as_ref().map(known) })
}

/// Takes the base into the landing branch, which is made when it is missing.
pub fn take_base(
    branches: &Branches,
    base: &str,
    landed: Option<&str>,
    date_s: u64,
    repo: &Repo,
) -> Result<Observation, Fault> {
    let tip = oid(base)?;
    let taken = |at: &git::Oid| Observation::BaseTaken { base: Oid::new(base), landed: known(at) };
    let Some(landed) = landed else {
        return match repo.cas_ref(&branches.landed, Some(&tip), None)? {
            Cas::Done => Ok(taken(&tip)),
            Cas::Moved(_) => look(branches, repo),
        };
    };
    let landed = standing(branches, &oid(landed)?, repo)?;
    let name = branches.base.trim_start_matches("refs/heads/");
    let message = format!("Take in {name}\n");
    let next = match repo.take_base(&landed, &tip, &message, date_s)? {
        TakeBase::UpToDate => return Ok(taken(&landed)),
        TakeBase::Conflict(paths) => {
            return Ok(Observation::BaseConflicts { base: Oid::new(base), paths });
        }
        TakeBase::FastForward(next) | TakeBase::Merged(next) => next,
    };
    match repo.cas_ref(&branches.landed, Some(&next), Some(&landed))? {
        Cas::Done => Ok(taken(&next)),
        Cas::Moved(_) => Err(moved_by_others(branches)),
    }
}

/// Returns where the landing branch stands: at `recorded`, or at what descends from it. Anything
/// else would lose what has landed, so the branch is put back, and what was found kept in salvage.
fn standing(branches: &Branches, recorded: &git::Oid, repo: &Repo) -> Result<git::Oid, Fault> {
    let found = repo.read_ref(&branches.landed)?;
    if let Some(found) = &found
        && (found == recorded || repo.is_ancestor(recorded, found)?)
    {
        return Ok(found.clone());
    }
    put_back(repo, &branches.landed, recorded, found.as_ref())?;
    Ok(recorded.clone())
}

fn moved_by_others(branches: &Branches) -> Fault {
    Fault(format!("`{}` is being moved by somebody else", branches.landed))
}

/// What a landing's merge needs.
#[derive(Debug)]
pub struct Merge {
    pub task: TaskId,
    pub number: u32,
    pub tip: String,
    pub onto: String,
    pub title: String,
    pub date_s: u64,
    pub protect: Vec<String>,
}

/// Makes and pins the merged commit.
pub fn merge(merge: &Merge, repo: &Repo) -> Result<Observation, Fault> {
    let (onto, tip) = (oid(&merge.onto)?, oid(&merge.tip)?);
    let (task, number) = (merge.task.clone(), merge.number);
    let message = format!("Land {task}: {}\n\nPipeline-Task: {task}\n", merge.title);
    let made = repo.merge(&MergeRequest {
        ours: &onto,
        theirs: &tip,
        message: &message,
        date_s: merge.date_s,
        pin: Some(&refs::pending(&task)),
    })?;
    match made {
        Merged::AlreadyIn => Ok(Observation::AlreadyLanded { task, number, commit: known(&onto) }),
        Merged::Made { commit, changed_paths, .. } => {
            let protected = protected(&merge.protect, &changed_paths)?;
            let (commit, onto) = (known(&commit), known(&onto));
            Ok(Observation::Merged { task, number, commit, onto, protected })
        }
        Merged::Conflict { paths } => {
            let with = repo.tasks_touching(&tip, &onto, &paths)?;
            let with = with.iter().filter_map(|id| id.parse().ok()).collect();
            Ok(Observation::MergeConflicts { task, number, onto: known(&onto), paths, with })
        }
    }
}

fn protected(patterns: &[String], paths: &[String]) -> Result<Vec<String>, Fault> {
    let globs = glob_set(patterns).map_err(|error| Fault(format!("landing.protect: {error}")))?;
    Ok(paths.iter().filter(|path| globs.is_match(path)).cloned().collect())
}

fn glob_set(patterns: &[String]) -> Result<GlobSet, globset::Error> {
    let mut set = GlobSetBuilder::new();
    for pattern in patterns {
        set.add(GlobBuilder::new(pattern).literal_separator(true).build()?);
    }
    set.build()
}

/// Moves the landing branch from `onto` to `commit`.
pub fn land(
    branches: &Branches,
    task: &TaskId,
    number: u32,
    (onto, commit): (&str, &str),
    repo: &Repo,
) -> Result<Observation, Fault> {
    let (onto, made) = (oid(onto)?, oid(commit)?);
    let landed = || Observation::Landed { task: task.clone(), number, commit: known(&made) };
    if let Cas::Moved(_) = repo.cas_ref(&branches.landed, Some(&made), Some(&onto))? {
        let found = standing(branches, &onto, repo)?;
        if !repo.is_ancestor(&made, &found)? {
            // At `onto` again it lands at the next try.
            let found = Some(known(&found));
            return Ok(Observation::LandingRaced { task: task.clone(), number, found });
        }
    }
    // The landing branch keeps it now; a pin that stays behind costs nothing.
    let _ = repo.cas_ref(&refs::pending(task), None, Some(&made));
    Ok(landed())
}

/// Lets the base follow to `to`.
pub fn follow(
    branches: &Branches,
    to: &str,
    from: &str,
    repo: &Repo,
) -> Result<Observation, Fault> {
    let (target, from) = (oid(to)?, oid(from)?);
    let refused = |why: String, is_passing| -> Result<Observation, Fault> {
        let behind = repo.commits_between(&from, &target)?;
        Ok(Observation::FollowRefused { to: Oid::new(to), why, behind, is_passing })
    };
    match repo.base_follow(&branches.base, &target, &from)? {
        git::Follow::Followed => Ok(Observation::Followed { to: Oid::new(to) }),
        git::Follow::NotFastForward(Some(_)) => look(branches, repo),
        git::Follow::NotFastForward(None) => {
            refused(format!("the base branch `{}` is gone", branches.base), false)
        }
        git::Follow::Refused { why, command, stderr } => {
            let said = stderr.0.split_whitespace().collect::<Vec<_>>().join(" ");
            let said = if said.is_empty() { said } else { format!(" ({})", brief(&said)) };
            let next = command.map(|command| format!("{TYPE}{command}")).unwrap_or_default();
            refused(format!("{why}{said}{next}"), false)
        }
        git::Follow::Locked { path } => {
            refused(format!("another git holds `{}`", path.display()), true)
        }
    }
}

/// Cuts what git says to what fits a status line.
fn brief(text: &str) -> String {
    text.chars().take(WORDS_CHARS_MAX).collect()
}
