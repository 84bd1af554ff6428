//! Carries out an attempt's git effects: save what it left, move the task branch.

use std::fmt;
use std::path::{Path, PathBuf};

use super::mend;
use super::prepare::put_back;
use crate::git::{Cas, GitError, ModuleWork, Oid, Repo, Snapshot, SnapshotRequest};
use crate::machine::Observation;
use crate::machine::id::{AttemptId, TaskId};

/// Why an effect failed, in words for the journal.
#[derive(Debug)]
pub struct Fault(pub String);

impl Fault {
    /// Says which file could not be dealt with.
    pub fn file(what: &str, path: &Path, error: &std::io::Error) -> Self {
        Self(format!("cannot {what} `{}`: {error}", path.display()))
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl From<GitError> for Fault {
    fn from(error: GitError) -> Self {
        let mut text = error.to_string();
        let mut source = std::error::Error::source(&error);
        while let Some(cause) = source {
            text.push_str(": ");
            text.push_str(&cause.to_string());
            source = cause.source();
        }
        Self(text)
    }
}

/// Takes an id from the record as git's.
pub fn oid(text: &str) -> Result<Oid, Fault> {
    text.parse().map_err(|error| Fault(format!("commit id `{text}`: {error}")))
}

/// The names of our refs.
pub mod refs {
    use crate::machine::id::TaskId;

    /// The task's branch, by full name.
    pub fn task(id: &TaskId) -> String {
        format!("refs/heads/pipeline/task/{id}")
    }

    /// The folder of all tasks' branches.
    pub fn task_dir() -> String {
        "refs/heads/pipeline/task/".into()
    }

    /// Where work that does not go on is kept.
    pub fn salvage(name: &str) -> String {
        format!("refs/pipeline/salvage/{name}")
    }

    /// Where a landing's commit is kept until it has landed.
    pub fn pending(id: &TaskId) -> String {
        format!("refs/pipeline/pending/{id}")
    }
}

/// Ignored files that are named to an agent which changed nothing else, at most.
const IGNORED_MAX: usize = 5;

/// What saving needs.
#[derive(Debug)]
pub struct Save {
    pub attempt: AttemptId,
    pub slot: PathBuf,
    pub tip: String,
    pub merge: Option<String>,
    /// Task file and copies, which are never committed.
    pub exclude: Vec<String>,
    pub message: String,
    pub date_s: u64,
    /// What the cleaning of the worktree leaves there.
    pub keep: Vec<String>,
    /// The commit that it began at, where that is kept as it is when nothing was added to it.
    pub begun: Option<String>,
    /// It said that it has completed a stage in which a file must change.
    pub needs_change: bool,
}

/// Commits and pins what an attempt left.
pub fn save(save: &Save, repo: &Repo) -> Result<Observation, Fault> {
    let tip = oid(&save.tip)?;
    let merge = save.merge.as_deref().map(oid).transpose()?;
    let begun = save.begun.as_deref().map(oid).transpose()?;
    // What `git clean` of a person left half removed must not pass for the agent's work.
    let is_gone = std::fs::symlink_metadata(save.slot.join(".git")).is_err();
    let modules = repo.keep_modules(&save.slot, &tip, save.attempt.as_str())?;
    let left = repo.snapshot(&SnapshotRequest {
        slot: &save.slot,
        tip: &tip,
        merge: merge.as_ref(),
        exclude: &save.exclude,
        message: &save.message,
        date_s: save.date_s,
        begun: begun.as_ref(),
        pin: &refs::salvage(save.attempt.as_str()),
    })?;
    let is_gone = is_gone || left.is_gone;
    let notes = notes(save, &left, &modules, repo)?;
    if !is_gone && left.left_out.is_empty() {
        repo.note_rest(&save.slot, left.commit.as_ref().unwrap_or(&tip), &save.exclude)?;
    }
    let commit = left.commit.map(|commit| crate::machine::id::Oid::new(commit.as_str()));
    if is_gone {
        return Ok(Observation::WorktreeGone { attempt: save.attempt.clone(), commit });
    }
    Ok(Observation::Saved {
        attempt: save.attempt.clone(),
        commit,
        has_changed: left.tree_changed,
        markers: left.conflicts,
        notes,
        lacks: lacks(&left.modules),
    })
}

/// Says what of a worktree is in no commit of the result, and where it is; what would go away with the
/// worktree is moved out of it.
fn notes(
    save: &Save,
    left: &Snapshot,
    modules: &[ModuleWork],
    repo: &Repo,
) -> Result<Vec<String>, Fault> {
    let attempt = save.attempt.as_str();
    let (to, aside) = repo.set_apart(&save.slot, &left.repositories, &save.keep, attempt)?;
    let mut notes: Vec<String> = modules.iter().map(note_of_module).collect();
    if !aside.is_empty() {
        let (names, to) = (aside.join("`, `"), to.display());
        notes.push(format!(
            "not committed, since it is a repository of its own: `{names}`; kept in `{to}`"
        ));
    }
    if !left.left_out.is_empty() {
        notes.push(format!("not committed: {}", left.left_out.join(", ")));
    }
    if save.needs_change && !left.tree_changed && !left.is_gone {
        let ignored = repo.ignored_in(&save.slot, &save.exclude, &save.keep)?;
        let named = ignored.iter().take(IGNORED_MAX).map(String::as_str).collect::<Vec<_>>();
        if !named.is_empty() {
            notes.push(format!("git ignores `{}`: that is never committed", named.join("`, `")));
        }
    }
    if !left.kept.is_empty() {
        notes.push(format!("commits that its HEAD left are kept at {}", left.kept.join(", ")));
    }
    Ok(notes)
}

fn note_of_module(work: &ModuleWork) -> String {
    let path = &work.path;
    let what = format!("what only the submodule `{path}` has is not part of it");
    match &work.bundle {
        Ok(bundle) => format!("{what}; kept in `{}`", bundle.display()),
        Err(why) => format!("{what}, and could not be kept: {why}"),
    }
}

/// Says why a result is not whole: a commit that names what nobody else could get must not land.
fn lacks(modules: &[String]) -> Option<String> {
    (!modules.is_empty()).then(|| {
        format!(
            "the submodule `{}` stands at a commit that no remote-tracking branch of it has: push it \
             there, and fetch that branch where it is not seen",
            modules.join("`, `")
        )
    })
}

/// What moving the task branch needs.
#[derive(Debug)]
pub struct Advance {
    pub attempt: AttemptId,
    pub task: TaskId,
    pub from: String,
    pub to: String,
    /// The attempts that it goes on from, one from another.
    pub continued: Vec<AttemptId>,
    /// Where the landing branch stands.
    pub landed: Option<String>,
}

/// Takes away a pin on what the commit holds.
fn unpin(repo: &Repo, pin: &str, by: &Oid) -> Result<(), GitError> {
    if let Some(found) = repo.read_ref(pin)?
        && repo.is_ancestor(&found, by)?
    {
        repo.cas_ref(pin, None, Some(&found))?;
    }
    Ok(())
}

/// Moves the task branch to what the attempt left; a value that somebody else put there is kept in
/// salvage. One that somebody has checked out stays.
pub fn advance(advance: &Advance, repo: &Repo) -> Result<Observation, Fault> {
    let (from, to) = (oid(&advance.from)?, oid(&advance.to)?);
    let name = refs::task(&advance.task);
    // Under the feet of who has it checked out it is not moved: the pins keep the work until it is.
    if mend::held_in(repo, &name)?.is_none() {
        if let Cas::Moved(found) = repo.cas_ref(&name, Some(&to), Some(&from))? {
            // What its agent committed on the branch itself is part of what was saved.
            let is_between = |it: &&Oid| {
                let is_ancestor = |a, b| repo.is_ancestor(a, b).unwrap_or(false);
                is_ancestor(&from, it) && is_ancestor(it, &to)
            };
            let own = found.as_ref().filter(is_between).unwrap_or(&from);
            put_back(repo, &name, &to, found.as_ref(), Some(own))?;
        }
        // The branch keeps it now; a pin that stays behind is listed as salvage, no more.
        let _ = repo.cas_ref(&refs::salvage(advance.attempt.as_str()), None, Some(&to));
        for earlier in &advance.continued {
            let _ = unpin(repo, &refs::salvage(earlier.as_str()), &to);
        }
    }
    // What it changed is for the scheduler; where git cannot tell, what was known still counts.
    let landed = advance.landed.as_deref().and_then(|landed| oid(landed).ok());
    let changed = landed.and_then(|landed| repo.branch_paths(&landed, &to).ok());
    Ok(Observation::Advanced { attempt: advance.attempt.clone(), changed })
}
