//! Tasks in a person's hands: `pipeline task take`, `give`, `complete`, `reopen`.
//!
//! What is to be is journalled first; worktree and branch follow from it, so that the same command,
//! said again after it was interrupted, finishes what it began. `give` is the other way round: the
//! branch holds what was committed before the journal counts on it.

use std::path::{Component, Path, PathBuf};

use serde_json::json;

use super::console::{Console, Format};
use super::error::Error;
use super::exit_code::Exit;
use super::gate::{self, Gate};
use super::project::Open;
use super::steer;
use super::task_args::{CancelArgs, CompleteArgs, GiveArgs, TakeArgs};
use super::value;
use super::views::find;
use crate::config::layout::Layout;
use crate::git::{Cas, CutOff, GitError, Hand, Oid, Repo};
use crate::machine::event::GiveTo;
use crate::machine::id::{self, TaskId};
use crate::machine::settings::Settings;
use crate::machine::task::{Taken, Task};
use crate::machine::{Answer, Command, Event, EventBody, State, step};
use crate::observe::words::own_merge;
use crate::sys::fail;
use crate::sys::file::shell_path;

/// Files named in a refusal; the rest is counted.
const NAMES_MAX: usize = 5;
/// What `--stage` says for the lane.
const LANDING: &str = "landing";

/// Holds a task and makes a worktree for the person; its path is all that is printed.
///
/// # Errors
/// A task that cannot be taken, a place that is taken, what git and the store report.
pub fn take(
    mut open: Open,
    console: &mut Console<'_>,
    dir: &Path,
    args: &TakeArgs,
) -> Result<Exit, Error> {
    let id = &args.id;
    let repo = open.project.repo.take();
    let layout = open.project.layout.clone();
    let state = open.state()?.0;
    let task = find(state, id)?;
    let before = task.taken.clone();
    let place = match (&args.place, &before) {
        (None, Some(taken)) => PathBuf::from(&taken.dir),
        (None, None) => layout.taken().join(id.as_str()),
        (Some(given), _) => dir.join(given),
    };
    let Some(repo) = repo else {
        // The machine says why.
        let from = id::Oid::new("");
        open.send(Command::TakeTask { id: id.clone(), dir: String::new(), from })?;
        return Err(Error::usage("without git there is no worktree to give"));
    };
    let place = if before.is_some() && args.place.is_none() {
        place
    } else {
        check_not_ours(id, &place, &layout, &repo, &state.settings)?;
        settled(&repo, &place)?
    };
    let branch = branch_of(id);
    let from = match &before {
        Some(taken) => oid(&taken.from)?,
        None => match left_behind(&repo, &place, &branch)? {
            Some(head) => head,
            None => start(&repo, state, task)?,
        },
    };
    let name = place.to_str().map(str::to_owned).ok_or_else(|| {
        Error::invalid(format!("the path `{}` is not UTF-8", place.display())).at(&place)
    })?;
    let command =
        Command::TakeTask { id: id.clone(), dir: name, from: id::Oid::new(from.as_str()) };
    check(state, &command)?;
    if before.is_none() {
        check_place(&repo, &place, &branch, &from)?;
        level(&repo, &branch, &from)?;
    }
    let notes = notes(state, task);
    gate::send(&mut open, console, command)?;
    tell_warnings(&mut open, console);
    make(&repo, &place, &branch, &from, before.is_some()).map_err(|error| {
        error
            .hint(format!("task `{id}` is held for you; `pipeline task take {id}` tries it again"))
            .hint(format!("`pipeline task give {id}` gives it back"))
    })?;
    notes.iter().for_each(|note| console.note(note));
    let path = place.display().to_string();
    match console.format {
        Format::Text => console.line(&path)?,
        Format::Json => console.json(&json!({
            "id": id.as_str(), "worktree": path, "branch": short_of(&branch),
        }))?,
    }
    Ok(Exit::Done)
}

/// Gives a task back with what is committed.
///
/// # Errors
/// A task that is not taken, work that is not committed, what git and the store report.
pub fn give(mut open: Open, console: &mut Console<'_>, args: &GiveArgs) -> Result<Exit, Error> {
    let id = &args.id;
    let repo = open.project.repo.take();
    let state = open.state()?.0;
    let task = find(state, id)?;
    let (Some(taken), Some(repo)) = (task.taken.clone(), repo) else {
        return Err(Error::invalid(format!("task `{id}` is not taken"))
            .hint(format!("`pipeline task take {id}` makes a worktree for you")));
    };
    let to = aim(&state.settings, args.stage.as_deref())?;
    let branch = branch_of(id);
    let place = locate(&repo, &taken, &branch)?;
    let hand =
        place.as_deref().map(|place| repo.hand_at(place).map_err(git)).transpose()?.flatten();
    if let (Some(place), Some(hand)) = (&place, &hand) {
        check_saved(id, place, hand)?;
        check_on_branch(&repo, id, place, hand)?;
    }
    let commit = match &hand {
        Some(hand) => hand.head.clone(),
        None => repo.read_ref(&branch).map_err(git)?.map_or_else(|| oid(&taken.from), Ok)?,
    };
    let landed = format!("refs/heads/{}", state.settings.landing.branch);
    let onto = repo.read_ref(&landed).map_err(git)?;
    // Only the order of work depends on it.
    let changed = onto.and_then(|onto| repo.branch_paths(&onto, &commit).ok());
    let command =
        Command::GiveTask { id: id.clone(), to, commit: id::Oid::new(commit.as_str()), changed };
    check(state, &command)?;
    let (keep, folder) = (state.settings.worktree.keep.clone(), open.project.layout.taken());
    pin(&repo, &branch, &commit, &oid(&taken.from)?)?;
    fail::point("hands.give").map_err(|error| Error::failed("cannot give").because(&error))?;
    let left = match (&place, &hand) {
        (Some(place), Some(hand)) => retire(&repo, id, (place, hand), (&keep, &folder)),
        (Some(_) | None, Some(_) | None) => clear(&repo, &taken),
    };
    let sent = gate::send(&mut open, console, command);
    sent.map_err(|error| {
        error.hint(format!(
            "what you committed is on `{}`; the same command tries it again",
            short_of(&branch)
        ))
    })?;
    if let Some(left) = &left {
        console.warn(left);
    }
    tell_where(&mut open, console, id)
}

/// Takes a person's word that a task is done.
///
/// # Errors
/// A commit that has not landed, a finished task, what git and the store report.
pub fn complete(
    mut open: Open,
    console: &mut Console<'_>,
    dir: &Path,
    args: &CompleteArgs,
) -> Result<Exit, Error> {
    let id = &args.id;
    let repo = open.project.repo.take();
    let state = open.state()?.0;
    let task = find(state, id)?;
    let taken = task.taken.clone();
    let settings = state.settings.clone();
    let commit = match (&args.commit, &repo) {
        (None, _) => None,
        (Some(_), None) => return Err(Error::usage("without git there is no commit to name")),
        (Some(name), Some(repo)) => Some(landed_commit(repo, &settings, dir, id, name)?),
    };
    let named = commit.as_ref().map(|commit| id::Oid::new(commit.as_str()));
    gate::send(&mut open, console, Command::CompleteTask { id: id.clone(), commit: named })?;
    if let (Some(taken), Some(repo)) = (taken, repo) {
        let folder = open.project.layout.taken();
        put_away(&repo, &settings, (&taken, &folder), id, console);
    }
    tell_where(&mut open, console, id)
}

/// Gives tasks up; worktrees of people stay, off the branches.
///
/// # Errors
/// What the machine refuses, and what the store reports.
pub fn cancel(mut open: Open, console: &mut Console<'_>, args: &CancelArgs) -> Result<Exit, Error> {
    let repo = open.project.repo.take();
    let dir = |task: &Task| Some((task.id.clone(), task.taken.clone()?));
    let taken: Vec<(TaskId, Taken)> = open.state()?.0.tasks.values().filter_map(dir).collect();
    steer::cancel(&mut open, console, args)?;
    let Some(repo) = repo else { return Ok(Exit::Done) };
    for (id, taken) in &taken {
        if open.state()?.0.tasks.get(id).is_some_and(|task| task.taken.is_none()) {
            tell_left(&repo, taken, id, console);
        }
    }
    Ok(Exit::Done)
}

/// Takes the worktree of a task that was given up off its branch, and says what becomes of it.
fn tell_left(repo: &Repo, taken: &Taken, id: &TaskId, console: &mut Console<'_>) {
    let looked = || -> Result<Option<(PathBuf, Hand)>, Error> {
        let Some(place) = locate(repo, taken, &branch_of(id))? else { return Ok(None) };
        Ok(repo.hand_at(&place).map_err(git)?.map(|hand| (place, hand)))
    };
    match looked() {
        Ok(None) => {}
        Ok(Some((place, hand))) => {
            leave(repo, &place, &hand, id);
            let (dir, word) = (place.display(), shell_path(&place));
            console.note(&format!("the worktree of `{id}` stays, off the task's branch: {dir}"));
            if hand.head.as_str() != taken.from.as_str() {
                console.note(&format!(
                    "it holds commits that were not given; to keep them: \
                     git -C {word} switch -c NAME"
                ));
            }
            console.note(&format!("to remove it: git worktree remove {word}"));
        }
        Err(error) => {
            console.warn(&format!("the worktree `{}` stays: {}", taken.dir, error.message));
        }
    }
}

/// Takes a worktree that stays off the task's branch, which others may move from now on. Where that
/// fails `reopen` finds it.
fn leave(repo: &Repo, place: &Path, hand: &Hand, id: &TaskId) {
    if hand.branch.as_deref() == Some(branch_of(id).as_str()) {
        let _ = repo.detach_hand(place, &hand.head);
    }
}

/// Lets a finished task be worked on again.
///
/// # Errors
/// A task that is not finished, what git and the store report.
pub fn reopen(mut open: Open, console: &mut Console<'_>, id: &TaskId) -> Result<Exit, Error> {
    let repo = open.project.repo.take();
    let state = open.state()?.0;
    let task = find(state, id)?;
    let is_gone = match (&task.tip, &repo) {
        (Some(tip), Some(repo)) => !repo.missing_commits(&[oid(tip)?]).map_err(git)?.is_empty(),
        (Some(_) | None, Some(_) | None) => false,
    };
    let given_up = match &repo {
        Some(repo) => left_on_branch(repo, state, task)?,
        None => None,
    };
    // What others landed, or what was there already, is no merge that could be undone as one.
    let merge = own_merge(task).cloned();
    let command = Command::ReopenTask { id: id.clone(), is_fresh: is_gone };
    check(state, &command)?;
    if let Some(repo) = &repo {
        check_nobody_on(repo, &branch_of(id), None)?;
    }
    gate::send(&mut open, console, command)?;
    if is_gone {
        console
            .warn(&format!("the branch of `{id}` is gone: it begins again from what has landed"));
    }
    if let Some(merge) = merge {
        let short = merge.as_str().get(..12).unwrap_or(merge.as_str());
        console.note(&format!("what has landed stays; to undo it: git revert -m 1 {short}"));
    }
    if let Some(commit) = given_up {
        let short = commit.short();
        console.note(&format!(
            "commits on its branch that were not given go to salvage when it is worked on; \
             to go on from them: pipeline task take {id} DIR, there: git merge {short}"
        ));
    }
    tell_where(&mut open, console, id)
}

/// Returns where a task's branch stands, if that is neither what is on record nor has landed: a
/// person's commits, who had it and did not give it back.
fn left_on_branch(repo: &Repo, state: &State, task: &Task) -> Result<Option<Oid>, Error> {
    let Some(found) = repo.read_ref(&branch_of(&task.id)).map_err(git)? else { return Ok(None) };
    let is_known = task.tip.as_ref().is_some_and(|tip| tip.as_str() == found.as_str());
    let is_old = is_known || has_landed(repo, &state.settings, &found)?;
    Ok((!is_old).then_some(found))
}

/// Says what sending the command put right.
fn tell_warnings(open: &mut Open, console: &mut Console<'_>) {
    open.warnings.drain(..).for_each(|warning| console.warn(&warning));
}

/// Says where a task stands now.
fn tell_where(open: &mut Open, console: &mut Console<'_>, id: &TaskId) -> Result<Exit, Error> {
    tell_warnings(open, console);
    let state = open.state()?.0;
    let task = find(state, id)?;
    let words = crate::observe::words::StatusWords::new(&state.settings);
    let status = words.of(state, task).to_owned();
    match console.format {
        Format::Json => console.json(&json!({ "tasks": [id.as_str()], "status": status }))?,
        Format::Text => console.note(&format!("{id} is {status} now")),
    }
    Ok(Exit::Done)
}

fn aim(settings: &Settings, stage: Option<&str>) -> Result<GiveTo, Error> {
    match stage {
        None => Ok(GiveTo::Onward),
        Some(name) if name == LANDING && settings.stage_by_any_name(name).is_none() => {
            Ok(GiveTo::Landing)
        }
        Some(name) => {
            let found = value::stage(settings, name).map_err(|why| {
                Error::invalid(why).hint("or `--stage landing`: nothing more is to be done")
            })?;
            Ok(GiveTo::Stage(found))
        }
    }
}

/// Asks the machine what it would say, before anything is touched.
fn check(state: &State, command: &Command) -> Result<(), Error> {
    let body = EventBody::Command(command.clone());
    let event = Event { at: crate::machine::time::Time::default(), random: 0, body };
    match step(state, &event).answer {
        Answer::Refuse(refusal) => Err(refusal.into()),
        Answer::Accept | Answer::Note(_) => Ok(()),
    }
}

fn branch_of(id: &TaskId) -> String {
    format!("refs/heads/pipeline/task/{id}")
}

fn short_of(branch: &str) -> &str {
    branch.strip_prefix("refs/heads/").unwrap_or(branch)
}

fn git(error: GitError) -> Error {
    Error::failed("git failed on the task's worktree or branch").because_git(&error)
}

fn oid(of: &id::Oid) -> Result<Oid, Error> {
    of.as_str().parse().map_err(|error| Error::failed("the record is no commit id").because(&error))
}

fn settled(repo: &Repo, place: &Path) -> Result<PathBuf, Error> {
    repo.hand_path(place).map_err(|error| taken_place(place, &error))
}

/// Refuses a place below the pipeline's own folders, where an attempt would wipe it.
fn check_not_ours(
    id: &TaskId,
    place: &Path,
    layout: &Layout,
    repo: &Repo,
    settings: &Settings,
) -> Result<(), Error> {
    if !is_ours(place, &layout.taken(), layout, repo, settings) {
        return Ok(());
    }
    Err(not_there(&true_path(place))
        .hint(format!("name another folder: pipeline task take {id} DIR"))
        .hint(format!("or none: `pipeline task take {id}` makes one below `.pipeline/taken`")))
}

/// Returns whether a place lies below the pipeline's own folders, or git's, and not below `free`.
pub(super) fn is_ours(
    place: &Path,
    free: &Path,
    layout: &Layout,
    repo: &Repo,
    settings: &Settings,
) -> bool {
    let place = true_path(place);
    let is_free = place.strip_prefix(true_path(free)).is_ok_and(|rest| rest != Path::new(""));
    let slots = layout.root.join(&settings.worktree.dir);
    let ours = [&layout.dot(), &slots, repo.common_dir()];
    !is_free && ours.into_iter().any(|dir| place.starts_with(true_path(dir)))
}

/// Says that nothing of a person's is put into a folder of ours.
pub(super) fn not_there(place: &Path) -> Error {
    Error::busy(format!("no worktree can be made at `{}`", place.display()))
        .because_of("the folder is the pipeline's own, or git's: what lies there is overwritten")
        .at(place)
}

/// Returns a path without `..` and links, as far as it is there.
fn true_path(path: &Path) -> PathBuf {
    let mut whole = PathBuf::new();
    for part in path.components() {
        match part {
            Component::ParentDir => {
                whole.pop();
            }
            Component::CurDir => {}
            Component::Prefix(_) | Component::RootDir | Component::Normal(_) => whole.push(part),
        }
        if let Ok(found) = std::fs::canonicalize(&whole) {
            whole = found;
        }
    }
    whole
}

fn taken_place(place: &Path, error: &GitError) -> Error {
    Error::busy(format!("no worktree can be made at `{}`", place.display()))
        .because(error)
        .hint("name another folder: pipeline task take ID DIR")
        .at(place)
}

/// Returns where a worktree stands that is on the task's branch already: the person's, from before.
fn left_behind(repo: &Repo, place: &Path, branch: &str) -> Result<Option<Oid>, Error> {
    let hand = repo.hand_at(place).map_err(git)?;
    Ok(hand.filter(|hand| hand.branch.as_deref() == Some(branch)).map(|hand| hand.head))
}

/// Returns true when a worktree that stayed behind can be put on the task's branch again, which will
/// stand at `from`: nothing in it is lost by that.
fn is_reusable(repo: &Repo, place: &Path, branch: &str, from: &Oid) -> Result<bool, Error> {
    let Some(hand) = repo.hand_at(place).map_err(git)? else { return Ok(false) };
    if hand.branch.as_deref() == Some(branch) {
        return Ok(true);
    }
    let is_clean = hand.unsaved.is_empty() && hand.under_way.is_none() && hand.branch.is_none();
    Ok(is_clean && repo.is_ancestor(&hand.head, from).map_err(git)?)
}

/// Refuses a place, or a branch, that somebody else has.
fn check_place(repo: &Repo, place: &Path, branch: &str, from: &Oid) -> Result<(), Error> {
    if !is_reusable(repo, place, branch, from)? {
        repo.check_hand_place(place).map_err(|error| taken_place(place, &error))?;
    }
    check_nobody_on(repo, branch, Some(place))
}

/// Refuses a branch that a person has checked out elsewhere than at `place`.
fn check_nobody_on(repo: &Repo, branch: &str, place: Option<&Path>) -> Result<(), Error> {
    let is_other = |path: &Path| place.is_none_or(|place| path != place);
    for checkout in repo.checkouts_of(branch).map_err(git)? {
        let is_elsewhere = !checkout.is_gone && is_other(&checkout.path);
        if is_elsewhere && !repo.is_slot(&checkout.path).map_err(git)? {
            let (branch, dir) = (short_of(branch), checkout.path.display());
            return Err(Error::busy(format!("the branch `{branch}` is checked out in `{dir}`"))
                .hint(format!("git -C {} switch --detach", shell_path(&checkout.path)))
                .at(&checkout.path));
        }
    }
    Ok(())
}

/// Returns where the person begins: at the task's branch, or, where that has nothing of its own, at
/// what has landed; before anything has, at the base.
fn start(repo: &Repo, state: &State, task: &Task) -> Result<Oid, Error> {
    let read = |name: &str| repo.read_ref(&format!("refs/heads/{name}")).map_err(git);
    let landed = match read(&state.settings.landing.branch)? {
        Some(landed) => Some(landed),
        None => read(&state.settings.project.base)?,
    };
    let landed = landed.ok_or_else(|| {
        let base = &state.settings.project.base;
        Error::failed(format!("there is no branch `{base}` to begin from"))
            .hint("set `project.base` in pipeline.toml")
    })?;
    let Some(tip) = task.tip.as_ref().map(oid).transpose()? else { return Ok(landed) };
    let is_lost = !repo.missing_commits(std::slice::from_ref(&tip)).map_err(git)?.is_empty();
    let has_none = task.merge_owed.is_none() && task.resume_from.is_none();
    if is_lost || has_none && repo.is_ancestor(&tip, &landed).map_err(git)? {
        return Ok(landed);
    }
    Ok(tip)
}

/// Returns what the person is to know before they begin.
fn notes(state: &State, task: &Task) -> Vec<String> {
    let landed = &state.settings.landing.branch;
    let owed = task.merge_owed.as_ref().map(|_| {
        format!(
            "it did not land as it is; to have in it what has landed, there: git merge {landed}"
        )
    });
    let kept = task.resume_from.as_ref().map(|commit| {
        let short = commit.as_str().get(..12).unwrap_or(commit.as_str());
        format!("work that was cut short is kept; to go on from it, there: git merge {short}")
    });
    owed.into_iter().chain(kept).collect()
}

/// Makes branch and worktree, as far as they are not there. A branch that a person had before is
/// theirs wherever it stands above `from`, or is checked out.
fn make(repo: &Repo, place: &Path, branch: &str, from: &Oid, was_taken: bool) -> Result<(), Error> {
    fail::point("hands.take").map_err(|error| Error::failed("cannot take").because(&error))?;
    repo.free_of_slots(branch).map_err(git)?;
    let found = repo.read_ref(branch).map_err(git)?;
    let is_theirs = match &found {
        Some(found) if found == from => true,
        Some(found) if was_taken => {
            // One that they rewrote is not moved under them either.
            let stand = repo.checkouts_of(branch).map_err(git)?;
            stand.iter().any(|it| !it.is_gone) || repo.is_ancestor(from, found).map_err(git)?
        }
        Some(_) | None => false,
    };
    if !is_theirs {
        move_branch(repo, branch, from, found.as_ref())?;
    }
    repo.add_hand(place, short_of(branch)).map_err(git)?;
    match repo.hand_at(place).map_err(git)? {
        // The person's own doing where they had it before.
        Some(hand) if hand.branch.is_none() && !was_taken => {
            repo.switch_hand(place, short_of(branch)).map_err(git)
        }
        Some(_) | None => Ok(()),
    }
}

/// Takes a branch that stands elsewhere to where the person begins, before that is on record: from
/// then on what stands above it is theirs, and what was given up, or dropped with a pilot, is not.
fn level(repo: &Repo, branch: &str, from: &Oid) -> Result<(), Error> {
    fail::point("hands.level").map_err(|error| Error::failed("cannot take").because(&error))?;
    repo.free_of_slots(branch).map_err(git)?;
    match repo.read_ref(branch).map_err(git)? {
        Some(found) if found != *from => move_branch(repo, branch, from, Some(&found)),
        Some(_) | None => Ok(()),
    }
}

/// Moves the task's branch; what it held is kept in salvage.
fn move_branch(repo: &Repo, branch: &str, to: &Oid, found: Option<&Oid>) -> Result<(), Error> {
    if let Some(found) = found {
        let name = branch.rsplit('/').next().unwrap_or(branch);
        let kept = format!("refs/pipeline/salvage/{name}.found-{}", found.short());
        repo.cas_ref(&kept, Some(found), None).map_err(git)?;
    }
    match repo.cas_ref(branch, Some(to), found).map_err(git)? {
        Cas::Done => Ok(()),
        Cas::Moved(_) => {
            let reason = format!("the branch `{}` is being moved by somebody", short_of(branch));
            Err(Error::busy(reason).hint("try again"))
        }
    }
}

/// Lets the task's branch hold what is given; what it held before, and that does not, is kept.
fn pin(repo: &Repo, branch: &str, commit: &Oid, from: &Oid) -> Result<(), Error> {
    let found = repo.read_ref(branch).map_err(git)?;
    let is_within = |old: &Oid| repo.is_ancestor(old, commit).map_err(git);
    if !is_within(from)? {
        let name = branch.rsplit('/').next().unwrap_or(branch);
        let kept = format!("refs/pipeline/salvage/{name}.before-{}", from.short());
        repo.cas_ref(&kept, Some(from), None).map_err(git)?;
    }
    match &found {
        Some(found) if found == commit => Ok(()),
        Some(found) if is_within(found)? => match repo.cas_ref(branch, Some(commit), Some(found)) {
            Ok(Cas::Done) => Ok(()),
            Ok(Cas::Moved(other)) => move_branch(repo, branch, commit, other.as_ref()),
            Err(error) => Err(git(error)),
        },
        found => move_branch(repo, branch, commit, found.as_ref()),
    }
}

/// Finds the person's worktree, also where they moved it; `None`: it is gone.
fn locate(repo: &Repo, taken: &Taken, branch: &str) -> Result<Option<PathBuf>, Error> {
    let place = PathBuf::from(&taken.dir);
    if repo.hand_at(&place).map_err(git)?.is_some() {
        return Ok(Some(place));
    }
    let others = repo.checkouts_of(branch).map_err(git)?;
    Ok(others.into_iter().find(|checkout| !checkout.is_gone).map(|checkout| checkout.path))
}

/// Refuses work that is not committed.
fn check_saved(id: &TaskId, place: &Path, hand: &Hand) -> Result<(), Error> {
    let dir = place.display();
    if let Some(what) = hand.under_way {
        let how = if what == "bisect" { "git bisect reset" } else { "finish it, or --abort it" };
        return Err(Error::busy(format!("a {what} is under way in `{dir}`"))
            .hint(format!("{how}; then: pipeline task give {id}"))
            .at(place));
    }
    if hand.unsaved.is_empty() {
        return Ok(());
    }
    let names = hand.unsaved.iter().take(NAMES_MAX).cloned().collect::<Vec<_>>().join(", ");
    let more = hand.unsaved.len().saturating_sub(NAMES_MAX);
    let more = if more > 0 { format!(", and {more} more") } else { String::new() };
    let word = shell_path(place);
    Err(Error::busy(format!("not everything in `{dir}` is committed: {names}{more}"))
        .hint(format!("to keep it: git -C {word} add -A && git -C {word} commit"))
        .hint(format!("to put it away: git -C {word} stash -u"))
        .at(place))
}

/// Refuses a worktree that stands beside the task's branch: what the person committed there would not
/// be in what they give.
fn check_on_branch(repo: &Repo, id: &TaskId, place: &Path, hand: &Hand) -> Result<(), Error> {
    let branch = branch_of(id);
    let is_on = hand.branch.as_ref() == Some(&branch);
    let Some(tip) = repo.read_ref(&branch).map_err(git)?.filter(|_| !is_on) else { return Ok(()) };
    if repo.is_ancestor(&tip, &hand.head).map_err(git)? {
        return Ok(());
    }
    let (branch, dir) = (short_of(&branch), place.display());
    let found = match &hand.branch {
        Some(other) => format!("on `{}`", short_of(other)),
        None => format!("detached at {}", hand.head.short()),
    };
    let reason = format!("`{dir}` is {found}, which does not hold what is on `{branch}`");
    let dir = shell_path(place);
    Err(Error::busy(reason)
        .hint(format!("to give the branch: git -C {dir} switch {branch}; then give it again"))
        .hint(format!("to give what stands there, take the branch in: git -C {dir} merge {branch}"))
        .at(place))
}

/// Clears up where the person's worktree was; returns what is to be told.
fn clear(repo: &Repo, taken: &Taken) -> Option<String> {
    match repo.clear_hand(Path::new(&taken.dir)) {
        Ok(false) => None,
        Ok(true) => Some(format!(
            "the worktree `{}` is gone: what was not committed on its branch is not given; where you \
             moved it, type: git worktree repair",
            taken.dir
        )),
        Err(error) => Some(format!("something of the worktree stays: {error}")),
    }
}

/// Removes the person's worktree where nothing in it is lost by that; else takes it off the task's
/// branch, which goes on without it, and returns what is to be told. `keep`: what a setup leaves there;
/// `folder`: ours, from which folders that are empty go.
fn retire(
    repo: &Repo,
    id: &TaskId,
    (place, hand): (&Path, &Hand),
    (keep, folder): (&[String], &Path),
) -> Option<String> {
    let dir = shell_path(place);
    let changed = match repo.hand_at(place) {
        Ok(Some(now)) if now == *hand => None,
        Ok(now) => Some((now, "it changed meanwhile".to_owned())),
        Err(error) => Some((None, format!("it cannot be looked at ({error})"))),
    };
    if let Some((now, why)) = changed {
        // What came since it was looked at is not given, and nobody was told of it.
        leave(repo, place, now.as_ref().unwrap_or(hand), id);
        return Some(format!("the worktree stays: {why}; to remove it: git worktree remove {dir}"));
    }
    let theirs = hand.ignored_but(keep);
    let why = match theirs.first() {
        Some(first) if theirs.len() == 1 => format!("git ignores `{first}` there"),
        Some(first) => format!("git ignores `{first}` and {} more there", theirs.len() - 1),
        None => match repo.remove_hand(place) {
            Ok(()) => {
                let above = place.parent().filter(|it| it.starts_with(true_path(folder)));
                // Only an empty one goes.
                let _ = above.map(std::fs::remove_dir);
                return None;
            }
            Err(error) => {
                let is_there = std::fs::symlink_metadata(place).is_ok();
                if let Some(CutOff { rest, .. }) = CutOff::of(place).filter(|_| !is_there) {
                    let rest = shell_path(&rest);
                    return Some(format!(
                        "files of the worktree stay: {error}; to remove them: rm -rf {rest}"
                    ));
                }
                error.to_string()
            }
        },
    };
    leave(repo, place, hand, id);
    Some(format!("the worktree stays: {why}; to remove it: git worktree remove --force {dir}"))
}

/// Finds the commit that a person names, which must have landed: what depends on the task begins
/// with it.
fn landed_commit(
    repo: &Repo,
    settings: &Settings,
    dir: &Path,
    id: &TaskId,
    name: &str,
) -> Result<Oid, Error> {
    let Some(commit) = repo.resolve(dir, name).map_err(git)? else {
        return Err(Error::invalid(format!("there is no commit `{}`", name.escape_debug()))
            .hint("see `git log`"));
    };
    if has_landed(repo, settings, &commit)? {
        return Ok(commit);
    }
    let (base, landed) = (&settings.project.base, &settings.landing.branch);
    let reason = format!("commit `{name}` is neither on `{base}` nor on `{landed}`");
    Err(Error::invalid(reason)
        .hint(format!("merge it into `{base}` first, then say this again"))
        .hint(format!("to have it checked and landed: `pipeline task take {id}`, merge it there, `pipeline task give {id} --stage landing`")))
}

fn has_landed(repo: &Repo, settings: &Settings, commit: &Oid) -> Result<bool, Error> {
    for name in [&settings.project.base, &settings.landing.branch] {
        let tip = repo.read_ref(&format!("refs/heads/{name}")).map_err(git)?;
        if let Some(tip) = tip
            && repo.is_ancestor(commit, &tip).map_err(git)?
        {
            return Ok(true);
        }
    }
    Ok(false)
}

/// Removes the worktree of a task that is done, where all of it has landed; the task is completed
/// either way.
fn put_away(
    repo: &Repo,
    settings: &Settings,
    (taken, folder): (&Taken, &Path),
    id: &TaskId,
    console: &mut Console<'_>,
) {
    let looked = || -> Result<Option<String>, Error> {
        let Some(place) = locate(repo, taken, &branch_of(id))? else { return Ok(None) };
        let Some(hand) = repo.hand_at(&place).map_err(git)? else { return Ok(None) };
        let is_saved = hand.unsaved.is_empty() && hand.under_way.is_none();
        if is_saved && has_landed(repo, settings, &hand.head)? {
            return Ok(retire(repo, id, (&place, &hand), (&settings.worktree.keep, folder)));
        }
        leave(repo, &place, &hand, id);
        let dir = place.display();
        Ok(Some(format!("the worktree `{dir}` stays: it holds work that has not landed")))
    };
    match looked() {
        Ok(None) => {}
        Ok(Some(text)) => console.warn(&text),
        Err(error) => {
            console.warn(&format!("the worktree `{}` stays: {}", taken.dir, error.message))
        }
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::{TaskId, branch_of, retire, short_of};
    use crate::git::scratch::Scratch;

    #[test]
    fn a_worktree_that_changed_since_it_was_looked_at_stays() {
        let scratch = Scratch::new();
        let (repo, id) = (&scratch.repo, "A".parse::<TaskId>().expect("an id"));
        let branch = branch_of(&id);
        let tip = scratch.rev("HEAD");
        scratch.git(["update-ref", &branch, tip.as_str()]);
        let folder = scratch.root.join(".pipeline/taken");
        fs::create_dir_all(&folder).expect("its folder");
        let place = folder.join("A");
        repo.add_hand(&place, short_of(&branch)).expect("a worktree");
        let retired = |hand| retire(repo, &id, (&place, hand), (&[], &folder));
        let seen = repo.hand_at(&place).expect("git works").expect("it is there");
        fs::write(place.join("late.txt"), "late").expect("a file");
        let told = retired(&seen).expect("it stays");
        assert!(told.contains("it changed meanwhile"), "{told}");
        assert_eq!(fs::read_to_string(place.join("late.txt")).expect("it is there"), "late");
        assert!(repo.checkouts_of(&branch).expect("git works").is_empty(), "off the branch");
        fs::remove_file(place.join("late.txt")).expect("it was there");
        let seen = repo.hand_at(&place).expect("git works").expect("it is there");
        assert_eq!(retired(&seen), None);
        assert!(!place.exists());
    }
}
