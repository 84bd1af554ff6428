//! Carries out the lane's effects: take the base in, merge, land, let the base follow.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;
use std::time::Duration;

use globset::{GlobBuilder, GlobSet, GlobSetBuilder};

use super::mend::held_in;
use super::prepare::put_back;
use super::room;
use super::work::{Fault, oid, refs};
use crate::git::{self, Cas, MergeRequest, Merged, Repo, TakeBase};
use crate::machine::Observation;
use crate::machine::id::{Oid, TaskId};
use crate::machine::lane::TYPE;
use crate::sys::file::shell_path;

/// Most characters of git's own words that are told.
const WORDS_CHARS_MAX: usize = 300;

/// A git that lives holds its locks for less.
const LOCK_AGE_MIN: Duration = Duration::from_secs(10);

/// Branches of the lane, by full name.
#[derive(Debug, Clone)]
pub struct Branches {
    pub base: String,
    pub landed: String,
}

/// Returns a branch as people name it.
fn short(branch: &str) -> &str {
    branch.strip_prefix("refs/heads/").unwrap_or(branch)
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
    let gone = || Fault(format!("the base branch `{}` is gone", short(&branches.base)));
    let tip = tip.ok_or_else(gone)?;
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
    let taken = |at: &git::Oid, has_all| Observation::BaseTaken {
        base: Oid::new(base),
        landed: known(at),
        has_all,
    };
    let Some(landed) = landed else {
        return match repo.cas_ref(&branches.landed, Some(&tip), None)? {
            Cas::Done => Ok(taken(&tip, true)),
            // The look says where, which the record does not know yet.
            Cas::Moved(Some(_)) => look(branches, repo),
            Cas::Moved(None) => Err(moved_by_others(branches)),
        };
    };
    // Where the branch moved before that was killed there is nothing to move.
    let _ = repo.end_left_steps(Duration::ZERO);
    let landed = standing(branches, &oid(landed)?, repo)?;
    let has_all = repo.is_ancestor(&landed, &tip)?;
    let name = short(&branches.base);
    let message = format!("Take in {name}\n");
    let next = match repo.take_base(&landed, &tip, &message, date_s)? {
        TakeBase::UpToDate => return Ok(taken(&landed, has_all)),
        TakeBase::Conflict(paths) => {
            return Ok(Observation::BaseConflicts { base: Oid::new(base), paths });
        }
        TakeBase::FastForward(next) | TakeBase::Merged(next) => next,
    };
    if move_on(branches, &next, &landed, repo)? {
        Ok(taken(&next, has_all))
    } else {
        Err(moved_by_others(branches))
    }
}

/// Moves the landing branch forward, and a checkout of it along; false where it stood elsewhere.
fn move_on(
    branches: &Branches,
    to: &git::Oid,
    from: &git::Oid,
    repo: &Repo,
) -> Result<bool, Fault> {
    let name = short(&branches.landed);
    match repo.landing_follow(&branches.landed, to, from)? {
        git::Follow::Followed => Ok(true),
        git::Follow::NotFastForward(_) => Ok(false),
        git::Follow::Refused { why, command, stderr } => {
            let why = refusal(&why, command.as_deref(), &stderr);
            Err(Fault(format!("`{name}` cannot move on: {why}")))
        }
        git::Follow::Locked { path } => {
            let path = path.display();
            Err(Fault(format!("`{name}` cannot move on: another git holds `{path}`")))
        }
    }
}

/// Refuses to move the landing branch elsewhere than forward while a person has it checked out: what
/// is committed there next would take back what it moved over.
fn left_by_people(branches: &Branches, repo: &Repo) -> Result<(), Fault> {
    if let Some(lock) = repo.busy_checkout(true)? {
        return Err(Fault(locked(&lock)));
    }
    let Some(dir) = held_in(repo, &branches.landed)? else { return Ok(()) };
    let (name, leave) = (short(&branches.landed), git::leave_command(Path::new(&dir)));
    Err(Fault(format!("`{name}` is to be put back, and is checked out in `{dir}`{TYPE}{leave}")))
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
    if found.is_some() {
        left_by_people(branches, repo)?;
    }
    put_back(repo, &branches.landed, recorded, found.as_ref(), None)?;
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
    if !move_on(branches, &made, &onto, repo)? {
        let found = standing(branches, &onto, repo)?;
        // Put back to where it is to be moved from: once more.
        let is_moved = found == onto && move_on(branches, &made, &onto, repo)?;
        if !is_moved && !repo.is_ancestor(&made, &found)? {
            let found = Some(known(&found));
            return Ok(Observation::LandingRaced { task: task.clone(), number, found });
        }
    }
    // The landing branch keeps it now; a pin that stays behind costs nothing.
    let _ = repo.cas_ref(&refs::pending(task), None, Some(&made));
    Ok(landed())
}

/// Returns where base and landing branch stand, unless the base stands at `to`.
fn base_beside(branches: &Branches, to: &Oid, repo: &Repo) -> Result<Option<Observation>, Fault> {
    let seen = look(branches, repo)?;
    let is_there = matches!(&seen, Observation::BaseSeen { tip, .. } if tip == to);
    Ok((!is_there).then_some(seen))
}

/// Resets the landing branch to `to`, keeps what it held in salvage, and tells which of the tasks that
/// are `done` it held. Done before and not told, it is found done. A base that moved is told instead:
/// it may have followed until now, or people moved it, and what is on it has landed.
pub fn drop_pilot(
    branches: &Branches,
    to: &Oid,
    landed: Option<&Oid>,
    done: &BTreeMap<TaskId, Oid>,
    repo: &Repo,
) -> Result<Observation, Fault> {
    let target = oid(to.as_str())?;
    let _gate = repo.base_gate()?;
    if let Some(seen) = base_beside(branches, to, repo)? {
        return Ok(seen);
    }
    let found = repo.read_ref(&branches.landed)?;
    if found.as_ref().is_some_and(|found| *found != target) {
        left_by_people(branches, repo)?;
    }
    let landed = landed.map(|landed| oid(landed.as_str())).transpose()?;
    let held = [landed.as_ref(), found.as_ref()].into_iter().flatten().filter(|at| **at != target);
    for at in held {
        let kept = refs::salvage(&format!("pilot-{}", at.short()));
        repo.cas_ref(&kept, Some(at), None)?;
    }
    if found.as_ref() != Some(&target)
        && let Cas::Moved(_) = repo.cas_ref(&branches.landed, Some(&target), found.as_ref())?
    {
        return Err(moved_by_others(branches));
    }
    if let Some(seen) = base_beside(branches, to, repo)? {
        return Ok(seen);
    }
    let held = landed.map(|landed| repo.all_since(&target, &landed)).transpose()?;
    let held: BTreeSet<Oid> = held.iter().flatten().map(known).collect();
    let lost = done.iter().filter(|(_, commit)| held.contains(*commit));
    let lost = lost.map(|(id, _)| id.clone()).collect();
    Ok(Observation::PilotDropped { to: to.clone(), lost })
}

/// Lets the base follow to `to`; every answer differs from the record, `from`, so that none leaves
/// the effect owed under the key that was answered.
pub fn follow(
    branches: &Branches,
    to: &str,
    from: &str,
    repo: &Repo,
) -> Result<Observation, Fault> {
    let (target, from) = (oid(to)?, oid(from)?);
    let refused = |why: String, is_passing| -> Result<Observation, Fault> {
        let behind = repo.landings_between(&from, &target)?;
        Ok(Observation::FollowRefused { to: Oid::new(to), why, behind, is_passing })
    };
    let gate = repo.base_gate()?;
    // What cannot be ended is told by the step that it is of.
    let _ = repo.settle_left(&gate);
    // One that is begun late must not take along what was dropped meanwhile.
    let landed = repo.read_ref(&branches.landed)?;
    let is_landed = landed.map(|landed| repo.is_ancestor(&target, &landed)).transpose()?;
    if is_landed != Some(true) {
        return refused(format!("`{}` does not hold {to}", short(&branches.landed)), true);
    }
    // A checkout that is written to without room stands half-way until there is.
    if let Some(why) = room::lacking(repo.common_dir(), repo.root()) {
        return refused(why, true);
    }
    match repo.base_follow(&gate, &branches.base, &target, &from)? {
        git::Follow::Followed => Ok(Observation::Followed { to: Oid::new(to) }),
        git::Follow::NotFastForward(Some(found)) if found == from => {
            let base = &branches.base;
            refused(format!("`{base}` at {from} has commits that {to} does not contain"), false)
        }
        git::Follow::NotFastForward(Some(found)) => {
            let landed = repo.read_ref(&branches.landed)?;
            Ok(Observation::BaseSeen { tip: known(&found), landed: landed.as_ref().map(known) })
        }
        git::Follow::NotFastForward(None) => {
            let (base, landed) = (short(&branches.base), short(&branches.landed));
            let why = format!("the base branch `{base}` is gone; type: git branch {base} {landed}");
            refused(why, false)
        }
        git::Follow::Refused { why, command, stderr } => {
            refused(refusal(&why, command.as_deref(), &stderr), false)
        }
        git::Follow::Locked { path } => refused(locked(&path), true),
    }
}

/// Says that another git is at work, and of a lock that has been there for long how to be rid of it.
fn locked(path: &Path) -> String {
    let found = format!("another git holds `{}`", path.display());
    let made = fs::symlink_metadata(path).and_then(|lock| lock.modified()).ok();
    match made.and_then(|made| made.elapsed().ok()) {
        Some(age) if age >= LOCK_AGE_MIN => {
            let age_s = age.as_secs();
            let path = shell_path(path);
            format!("{found} for {age_s} s; when no git runs there{TYPE}rm -f {path}")
        }
        Some(_) | None => found,
    }
}

/// Returns why a branch was not moved, with git's words and the command to type.
fn refusal(why: &str, command: Option<&str>, stderr: &git::Stderr) -> String {
    let said = stderr.0.split_whitespace().collect::<Vec<_>>().join(" ");
    let said = if said.is_empty() { said } else { format!(" ({})", brief(&said)) };
    let next = command.map(|command| format!("{TYPE}{command}")).unwrap_or_default();
    format!("{why}{said}{next}")
}

/// Cuts what git says to what fits a status line.
fn brief(text: &str) -> String {
    text.chars().take(WORDS_CHARS_MAX).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::git::scratch::Scratch;

    fn branches() -> Branches {
        Branches { base: "refs/heads/main".into(), landed: "refs/heads/pipeline/landed".into() }
    }

    /// A base and a landing branch with a commit each: the repository, their common beginning, what
    /// landed, and the base.
    fn parted() -> (Scratch, git::Oid, git::Oid, git::Oid) {
        let scratch = Scratch::new();
        let old = scratch.rev("main");
        let ours = scratch.commit_on(&old, "ours", "ours");
        let theirs = scratch.commit_on(&old, "theirs", "theirs");
        scratch.git(["reset", "-q", "--hard", theirs.as_str()]);
        scratch.git(["branch", "pipeline/landed", ours.as_str()]);
        (scratch, old, ours, theirs)
    }

    #[test]
    fn no_answer_of_a_follow_says_what_is_on_record() {
        let (scratch, old, ours, theirs) = parted();
        let ask = |from: &git::Oid| {
            follow(&branches(), ours.as_str(), from.as_str(), &scratch.repo).expect("an answer")
        };
        match ask(&old) {
            Observation::BaseSeen { tip, .. } => assert_eq!(tip.as_str(), theirs.as_str()),
            other => panic!("{other:?}"),
        }
        match ask(&theirs) {
            Observation::FollowRefused { is_passing: false, why, .. } => {
                assert!(why.contains("does not contain"), "{why}");
            }
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn a_lock_that_has_been_there_for_long_is_told_with_how_to_be_rid_of_it() {
        let scratch = Scratch::new();
        let old = scratch.rev("main");
        let to = scratch.commit_on(&old, "landed", "landed");
        scratch.git(["branch", "pipeline/landed", to.as_str()]);
        let path = scratch.root.join(".git/index.lock");
        let lock = fs::File::create(&path).expect("a lock");
        let ask = || match follow(&branches(), to.as_str(), old.as_str(), &scratch.repo)
            .expect("an answer")
        {
            Observation::FollowRefused { is_passing: true, why, .. } => why,
            other => panic!("{other:?}"),
        };
        assert!(!ask().contains(TYPE), "a git may be at work");
        lock.set_modified(std::time::SystemTime::UNIX_EPOCH).expect("its time can be set");
        let remedy = format!("; when no git runs there{TYPE}rm -f {}", shell_path(&path));
        assert!(ask().ends_with(&remedy), "{remedy}");
        fs::remove_file(&path).expect("it is there");
        let step = follow(&branches(), to.as_str(), old.as_str(), &scratch.repo);
        assert!(matches!(step, Ok(Observation::Followed { .. })), "{step:?}");
    }

    #[test]
    fn a_step_of_the_base_that_is_begun_late_does_not_take_along_what_was_dropped() {
        let scratch = Scratch::new();
        let (repo, old) = (&scratch.repo, scratch.rev("main"));
        let piloted = scratch.commit_on(&old, "piloted", "piloted");
        scratch.git(["branch", "pipeline/landed", piloted.as_str()]);
        let task = "A".parse::<TaskId>().expect("an id");
        let done = BTreeMap::from([(task.clone(), known(&piloted))]);
        let drop = |to: &git::Oid, done| {
            drop_pilot(&branches(), &known(to), Some(&known(&piloted)), done, repo)
        };
        match drop(&old, &done).expect("an answer") {
            Observation::PilotDropped { lost, .. } => assert_eq!(lost, [task]),
            other => panic!("{other:?}"),
        }
        let late = follow(&branches(), piloted.as_str(), old.as_str(), repo).expect("an answer");
        assert!(matches!(late, Observation::FollowRefused { is_passing: true, .. }), "{late:?}");
        assert_eq!(scratch.rev("main"), old);

        // The other way about: what the base has taken along by then is not dropped.
        scratch.git(["branch", "-f", "pipeline/landed", piloted.as_str()]);
        let step = follow(&branches(), piloted.as_str(), old.as_str(), repo).expect("an answer");
        assert!(matches!(step, Observation::Followed { .. }), "{step:?}");
        let late = drop(&old, &done).expect("an answer");
        assert!(
            matches!(&late, Observation::BaseSeen { tip, .. } if *tip == known(&piloted)),
            "{late:?}"
        );
        match drop(&piloted, &done).expect("an answer") {
            Observation::PilotDropped { lost, .. } => assert_eq!(lost, []),
            other => panic!("{other:?}"),
        }
        assert_eq!(scratch.rev("pipeline/landed"), piloted);
    }

    /// Lands `made` on `onto`.
    fn land_one(onto: &git::Oid, made: &git::Oid, repo: &Repo) -> Result<Observation, Fault> {
        let task = "A".parse().expect("an id");
        land(&branches(), &task, 1, (onto.as_str(), made.as_str()), repo)
    }

    #[test]
    fn a_checkout_of_the_landing_branch_moves_along_or_what_lands_waits() {
        let scratch = Scratch::new();
        let (repo, old) = (&scratch.repo, scratch.rev("main"));
        let (look, landed) = (scratch.home().join("look"), "pipeline/landed");
        scratch.git(["branch", landed]);
        scratch.git(["worktree", "add", "-q", look.to_str().expect("a path"), landed]);
        let status = || scratch.git_in(&look, ["status", "--porcelain"]);
        let first = scratch.commit_on(&old, "b", "b");
        std::fs::write(look.join("mine"), "mine").expect("written");
        let seen = land_one(&old, &first, repo).expect("an answer");
        assert!(matches!(seen, Observation::Landed { .. }), "{seen:?}");
        assert_eq!((scratch.rev(landed), status()), (first.clone(), "?? mine".into()));

        // The base is taken in there, too.
        let base = scratch.commit_on(&old, "base", "base");
        let taken = take_base(&branches(), base.as_str(), Some(first.as_str()), 1, repo);
        assert!(matches!(taken, Ok(Observation::BaseTaken { .. })), "{taken:?}");
        let merged = scratch.rev(landed);
        assert_eq!((look.join("base").exists(), status()), (true, "?? mine".into()));

        // An edit in the way stays, and what lands waits until the branch is left.
        let next = scratch.commit_on(&merged, "a.txt", "theirs");
        std::fs::write(look.join("a.txt"), "mine").expect("written");
        let Err(Fault(why)) = land_one(&merged, &next, repo) else { panic!("landed") };
        assert!(why.contains("switch --detach"), "{why}");
        assert_eq!((scratch.rev(landed), status()), (merged.clone(), " M a.txt\n?? mine".into()));
        let lock = scratch.root.join(".git/worktrees/look/index.lock");
        std::fs::write(&lock, "").expect("written");
        let Err(Fault(why)) = land_one(&merged, &next, repo) else { panic!("landed") };
        assert!(why.contains("index.lock") && lock.exists(), "{why}");
        std::fs::remove_file(lock).expect("removed");
        scratch.git_in(&look, ["switch", "-q", "--detach"]);
        let seen = land_one(&merged, &next, repo).expect("an answer");
        assert!(matches!(seen, Observation::Landed { .. }), "{seen:?}");
        assert_eq!(scratch.rev(landed), next);
        assert_eq!(std::fs::read_to_string(look.join("a.txt")).expect("there"), "mine");
    }

    #[test]
    fn the_landing_branch_is_not_put_back_under_a_person() {
        let scratch = Scratch::new();
        let (repo, old) = (&scratch.repo, scratch.rev("main"));
        let piloted = scratch.commit_on(&old, "piloted", "piloted");
        scratch.git(["switch", "-q", "-c", "pipeline/landed", piloted.as_str()]);
        let drop = || {
            let (to, landed) = (known(&old), known(&piloted));
            drop_pilot(&branches(), &to, Some(&landed), &BTreeMap::new(), repo)
        };
        let Err(Fault(why)) = drop() else { panic!("dropped") };
        assert!(why.contains("; type: git -C"), "{why}");
        let status = || scratch.git(["status", "--porcelain"]);
        assert_eq!((scratch.rev("pipeline/landed"), status()), (piloted.clone(), String::new()));

        // Nor where he took back what had landed.
        scratch.git(["reset", "-q", "--hard", old.as_str()]);
        let next = scratch.commit_on(&piloted, "next", "next");
        let Err(Fault(why)) = land_one(&piloted, &next, repo) else { panic!("landed") };
        assert!(why.contains("is to be put back"), "{why}");
        assert_eq!((scratch.rev("pipeline/landed"), status()), (old.clone(), String::new()));
        scratch.git(["switch", "-q", "main"]);
        let seen = land_one(&piloted, &next, repo).expect("an answer");
        assert!(matches!(seen, Observation::Landed { .. }), "{seen:?}");
        assert_eq!(scratch.rev("pipeline/landed"), next);
        scratch.git(["branch", "-f", "pipeline/landed", piloted.as_str()]);
        let dropped = drop().expect("an answer");
        assert!(matches!(dropped, Observation::PilotDropped { .. }), "{dropped:?}");
    }

    #[test]
    fn a_fast_forward_of_the_landing_branch_that_was_killed_is_finished() {
        let scratch = Scratch::new();
        let (repo, old) = (&scratch.repo, scratch.rev("main"));
        scratch.git(["switch", "-q", "-c", "pipeline/landed"]);
        let next = scratch.commit_on(&old, "next", "next");
        // Killed when the files stood there, and the branch did not.
        let dir = scratch.root.join(".git/pipeline/git");
        std::fs::create_dir_all(&dir).expect("made");
        let note = format!("{next}\n{}", scratch.root.display());
        std::fs::write(dir.join("landing-follow"), note).expect("written");
        scratch.git(["read-tree", "-m", "-u", old.as_str(), next.as_str()]);
        let seen = land_one(&old, &next, repo).expect("an answer");
        assert!(matches!(seen, Observation::Landed { .. }), "{seen:?}");
        assert_eq!(scratch.git(["status", "--porcelain"]), "");
        assert!(!dir.join("landing-follow").exists());
    }

    #[test]
    fn a_base_that_a_person_merged_the_landings_into_is_told_to_have_all() {
        let (scratch, _, ours, _) = parted();
        let take = |tip: &git::Oid, from: &git::Oid| {
            let taken = take_base(&branches(), tip.as_str(), Some(from.as_str()), 1, &scratch.repo);
            match taken.expect("an answer") {
                Observation::BaseTaken { landed, has_all, .. } => (oid(landed.as_str()), has_all),
                other => panic!("{other:?}"),
            }
        };
        scratch.git(["merge", "-q", "--no-edit", "pipeline/landed"]);
        let merged = scratch.rev("main");
        let (landed, has_all) = take(&merged, &ours);
        let landed = landed.expect("a commit");
        assert!(has_all && landed != merged, "its own line stays the first parent");
        let later = scratch.commit_on(&merged, "later", "later");
        let (_, has_all) = take(&later, &landed);
        assert!(!has_all, "the base does not hold what the landing branch made");
    }

    #[test]
    fn a_pilot_of_very_many_commits_is_dropped_with_all_of_its_tasks() {
        let scratch = Scratch::new();
        let old = scratch.rev("main");
        let piloted = scratch.commit_on(&old, "piloted", "piloted");
        let many = scratch.line_on(&piloted, 10_001);
        scratch.git(["branch", "pipeline/landed", many.as_str()]);
        let task = "A".parse::<TaskId>().expect("an id");
        let done = BTreeMap::from([(task.clone(), known(&piloted))]);
        let (to, landed) = (known(&old), known(&many));
        match drop_pilot(&branches(), &to, Some(&landed), &done, &scratch.repo) {
            Ok(Observation::PilotDropped { lost, .. }) => assert_eq!(lost, [task]),
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn a_landing_branch_that_somebody_made_is_told_to_a_record_without_one() {
        let scratch = Scratch::new();
        let tip = scratch.rev("main");
        let made = scratch.commit_on(&tip, "made", "made");
        scratch.git(["branch", "pipeline/landed", made.as_str()]);
        let taken = take_base(&branches(), tip.as_str(), None, 1, &scratch.repo);
        match taken.expect("an answer") {
            Observation::BaseSeen { landed: Some(landed), .. } => {
                assert_eq!(landed.as_str(), made.as_str());
            }
            other => panic!("{other:?}"),
        }
    }
}
