//! What others land by hand on the base while the pipeline only looks on. Git is only read.
//!
//! A commit belongs to a task by its trailer `Pipeline-Task`, by a subject that begins with the id
//! (`ID: …`, `[ID] …`), or as the merge of a branch named after it (`…/ID`).

use std::collections::BTreeSet;

use super::lane::{self, Branches};
use super::work::{Fault, oid};
use crate::git::{HandCommit, Repo};
use crate::machine::id::{Oid, TaskId};
use crate::machine::mode::Rollout;
use crate::machine::{Observation, State};

/// What is looked for: commits since `from`, and whose they are.
#[derive(Debug, Clone)]
pub struct Wanted {
    from: Oid,
    open: BTreeSet<TaskId>,
}

impl Wanted {
    /// Returns what is to be looked for; `None`: the pipeline acts itself, or has not seen the base.
    pub fn of(state: &State) -> Option<Self> {
        let from = state.base.tip.clone().filter(|_| state.rollout == Rollout::Shadow)?;
        let open = state.tasks.values().filter(|task| !task.is_final());
        Some(Self { from, open: open.map(|task| task.id.clone()).collect() })
    }
}

/// Reads where base and landing branch stand, and what others have landed since the last look.
///
/// # Errors
/// When git fails, or the base branch is gone.
pub fn look(
    branches: &Branches,
    wanted: Option<&Wanted>,
    repo: &Repo,
) -> Result<Observation, Fault> {
    let seen = lane::look(branches, repo)?;
    let (Some(wanted), Observation::BaseSeen { tip, .. }) = (wanted, &seen) else {
        return Ok(seen);
    };
    if *tip == wanted.from {
        return Ok(seen);
    }
    let from = oid(wanted.from.as_str())?;
    let commits = match repo.commits_since(&from, &oid(tip.as_str())?) {
        Ok(commits) => commits,
        // Where the base was is gone with a history that was rewritten: what came since is not known.
        Err(_) if !repo.missing_commits(&[from])?.is_empty() => return Ok(seen),
        // Looked at again: a base that counts as seen is not read once more.
        Err(error) => return Err(error.into()),
    };
    let tasks = commits.iter().flat_map(|commit| {
        let named = names(commit).into_iter().filter_map(|name| name.parse::<TaskId>().ok());
        let open = named.filter(|id| wanted.open.contains(id));
        open.map(|id| (id, Oid::new(commit.oid.as_str()))).collect::<Vec<_>>()
    });
    let tasks = tasks.collect();
    Ok(Observation::HandLanded { from: wanted.from.clone(), tip: tip.clone(), tasks })
}

/// Returns the names that a commit may give its task, those of trailers first.
fn names(commit: &HandCommit) -> Vec<&str> {
    let mut names: Vec<&str> = commit.trailers.iter().map(String::as_str).collect();
    let subject = commit.subject.trim();
    let bracketed = subject.strip_prefix('[').and_then(|rest| rest.split_once(']'));
    names.extend(bracketed.map(|(name, _)| name));
    let first = subject.split_once(':').map(|(name, _)| name);
    names.extend(first.filter(|name| !name.contains(char::is_whitespace)));
    let merged = subject.strip_prefix("Merge branch '").and_then(|rest| rest.split_once('\''));
    let pulled = subject.strip_prefix("Merge pull request ");
    let pulled = pulled.and_then(|rest| rest.split_once(" from ")).map(|(_, branch)| branch);
    let branch = merged.map(|(branch, _)| branch).or(pulled);
    names.extend(branch.and_then(|branch| branch.rsplit('/').next()));
    names
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;
    use std::fs;

    use super::{Branches, Observation, Oid, Wanted, look, names};
    use crate::git::HandCommit;
    use crate::git::scratch::Scratch;

    #[test]
    fn commits_that_cannot_be_read_now_are_not_passed_over() {
        let scratch = Scratch::new();
        let from = scratch.rev("main");
        let between = scratch.commit_on(&from, "b", "b");
        let tip = scratch.commit_on(&between, "c", "c");
        scratch.git(["update-ref", "refs/heads/main", tip.as_str()]);
        let branches =
            Branches { base: "refs/heads/main".into(), landed: "refs/heads/landed".into() };
        let wanted = |from: &str| Wanted { from: Oid::new(from), open: BTreeSet::new() };
        let seen = |from: &str| look(&branches, Some(&wanted(from)), &scratch.repo);
        assert!(matches!(seen(from.as_str()), Ok(Observation::HandLanded { .. })));
        let (dir, name) = between.as_str().split_at(2);
        fs::remove_file(scratch.root.join(".git/objects").join(dir).join(name)).unwrap();
        assert!(seen(from.as_str()).is_err(), "it is looked at again");
        let rewritten = seen(&"1".repeat(40));
        assert!(matches!(rewritten, Ok(Observation::BaseSeen { .. })), "{rewritten:?}");
    }

    #[test]
    fn commits_name_their_task_by_trailer_subject_or_merged_branch() {
        let scratch = Scratch::new();
        let oid = scratch.rev("main");
        for (subject, trailers, expected) in [
            ("Add a login", &["T-1"][..], &["T-1"][..]),
            ("T-1: add a login", &[], &["T-1"]),
            ("[T-1] add a login", &[], &["T-1"]),
            ("Merge branch 'pipeline/task/T-1'", &[], &["T-1"]),
            ("Merge branch 'T-1' into main", &[], &["T-1"]),
            ("Merge pull request #3 from ann/T-1", &[], &["T-1"]),
            ("Revert \"T-1: add a login\"", &[], &[]),
            ("After T-1: a login", &[], &[]),
        ] {
            let trailers = trailers.iter().map(|&name| name.to_owned()).collect();
            let commit = HandCommit { oid: oid.clone(), subject: subject.into(), trailers };
            assert_eq!(names(&commit), expected, "{subject}");
        }
    }
}
