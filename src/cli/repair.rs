//! `pipeline doctor --repair`: mends what a crash or a damaged disk left; deletes nothing of value.
//!
//! The damaged original of a journal is kept beside it. What is swept is what no living process can
//! still want: neither a monitor nor a keeper may run.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::alone;
use super::error::Error;
use super::exit_code::Kind;
use super::orphans::{self, Orphan};
use super::project::Project;
use crate::config::layout::Layout;
use crate::git::{CutOff, GitError, Oid, Repo};
use crate::machine::State;
use crate::machine::time::Time;
use crate::monitor::finished::{Due, Remains};
use crate::monitor::lookout::is_ours;
use crate::monitor::mend::{self, Mend};
use crate::monitor::sweep;
use crate::observe::document::state_document;
use crate::store::journal::FileStore;
use crate::store::ledger::{Ledger, LedgerError};
use crate::store::view::{read_seq, write_view};
use crate::store::{StoreError, repair};
use crate::sys::clock::{Clock, SystemClock};

/// Refs under which landings are kept while they are checked.
const PENDING: &str = "refs/pipeline/pending/";

/// Returns what a repair would do, one sentence fragment each; nothing is changed.
///
/// # Errors
/// Damage that cannot be mended; git's failures.
pub fn plan(project: &Project) -> Result<Vec<String>, Error> {
    let dir = &project.layout.state;
    let mends = repair::plan(dir)?;
    let mut steps: Vec<String> = mends.iter().map(ToString::to_string).collect();
    if !mends.is_empty() || read_seq(dir).is_none() {
        steps.push(view_step(&project.layout));
    }
    steps.extend(sweep::leftovers(&project.layout).iter().map(|path| removal(path)));
    // A journal that is yet to be mended does not tell what has finished, nor which landing is under
    // way.
    let state = mends.is_empty().then(|| load(dir)).transpose()?.map(|(state, ..)| state);
    if let Some(state) = &state {
        let orphans = orphans::all(project, state).into_iter().filter(Orphan::is_due);
        steps.extend(orphans.map(|orphan| orphan_step(&orphan)));
        steps.extend(finished(project, state)?.iter().map(ToString::to_string));
    }
    let Some(repo) = &project.repo else { return Ok(steps) };
    steps.extend(repo.cut_short().map_err(git)?.iter().map(|it| cut_short_step(it)));
    steps.extend(repo.stale_locks().map_err(git)?.iter().map(|it| removal(it)));
    let slots = lost_slots(project, repo, state.as_ref())?;
    steps.extend(slots.iter().map(|slot| slot_step(slot)));
    steps.extend(CutOff::all(&project.layout.hands()).iter().map(|it| removal(&it.rest)));
    if let Some(state) = &state {
        steps.extend(moved(repo, state).map_err(git)?.iter().map(ToString::to_string));
        steps.extend(stale_pending(repo, state)?.iter().map(|(name, _)| pending_step(name)));
    }
    Ok(steps)
}

/// Mends; adds what was done to `done`, as [`plan`] told it.
///
/// # Errors
/// A monitor or a keeper runs; damage that cannot be mended; git's and the file system's own. A
/// repetition goes on where an error stopped it; what was done before it is in `done` all the same.
pub fn run(project: &Project, wait: Duration, done: &mut Vec<String>) -> Result<(), Error> {
    let (layout, dir) = (&project.layout, &project.layout.state);
    let _alone = alone::take(layout, "doctor --repair", "repair")?;
    let mends = repair::repair(dir, wait)?;
    done.extend(mends.iter().map(ToString::to_string));
    let (state, seq, time) = load(dir)?;
    if !mends.is_empty() || read_seq(dir).is_none() {
        let document = state_document(&state, seq, time);
        let warning = write_view(dir, &document, SystemClock::start().now())
            .map_err(|error| Error::failed("cannot write `state.json`").because(&error))?;
        done.push(view_step(layout));
        done.extend(warning);
    }
    for path in sweep::leftovers(layout) {
        sweep::remove(&path).map_err(|error| {
            Error::failed(format!("cannot remove `{}`", path.display())).because(&error)
        })?;
        done.push(removal(&path));
    }
    for orphan in orphans::all(project, &state).into_iter().filter(Orphan::is_due) {
        orphan.remove().map_err(|error| {
            Error::failed(format!("cannot remove `{}`", orphan.path().display())).because(&error)
        })?;
        done.push(orphan_step(&orphan));
    }
    let mut failed = Ok(());
    for remains in finished(project, &state)? {
        match remains.remove(project.repo.as_ref()) {
            Ok(()) => done.push(remains.to_string()),
            // The rest is mended all the same.
            Err(fault) if failed.is_ok() => {
                let error = Error::failed(format!("cannot {remains}"));
                failed = Err(error.because_of(fault.to_string()));
            }
            Err(_) => {}
        }
    }
    let Some(repo) = &project.repo else { return failed };
    let left = repo.cut_short().map_err(git)?;
    let ended = match repo.end_left_steps(wait) {
        Err(at_work @ GitError::Busy { .. }) => return failed.and(Err(git(at_work))),
        ended => ended.map_err(git),
    };
    let still = repo.cut_short().map_err(git)?;
    done.extend(left.iter().filter(|it| !still.contains(it)).map(|it| cut_short_step(it)));
    // The rest is mended all the same.
    failed = failed.and(ended);
    let removed = repo.clear_stale_locks().map_err(git)?;
    done.extend(removed.iter().map(|path| removal(path)));
    for slot in lost_slots(project, repo, Some(&state))? {
        repo.remove_slot(&slot).map_err(git)?;
        done.push(slot_step(&slot));
    }
    for CutOff { place, rest } in CutOff::all(&layout.hands()) {
        repo.clear_hand(&place).map_err(git)?;
        done.push(removal(&rest));
    }
    put_back(repo, &state, done)?;
    for (name, oid) in stale_pending(repo, &state)? {
        let short = name.trim_start_matches(PENDING);
        repo.move_to_salvage(&name, &format!("{short}.pending-{}", oid.short())).map_err(git)?;
        done.push(pending_step(&name));
    }
    failed
}

fn load(dir: &Path) -> Result<(State, u64, Time), Error> {
    let (ledger, _) = Ledger::open(FileStore::open(dir, 0), "repair")?;
    Ok((ledger.state().clone(), ledger.seq(), ledger.time()))
}

/// Returns what tasks left that finished longer than `worktree.keep_finished` ago.
fn finished(project: &Project, state: &State) -> Result<Vec<Remains>, Error> {
    let due = Due::of(state, &project.layout, SystemClock::start().now(), &BTreeSet::new());
    let found = due.look(&project.layout, project.repo.as_ref()).map_err(|fault| {
        Error::failed("cannot look for what finished tasks left").because_of(fault.to_string())
    })?;
    Ok(found.remains.into_iter().map(|(_, remains)| remains).collect())
}

/// Returns branches of ours that do not stand where the journal has them, but for those that an
/// effect under way puts back.
///
/// # Errors
/// Git's failures.
pub fn moved(repo: &Repo, state: &State) -> Result<Vec<Mend>, GitError> {
    let refs = repo.look_outside(false, &[], None)?.refs.into_iter();
    let landing = mend::landing_branch(state);
    let ours: Vec<(String, Option<String>)> = refs
        .filter(|(name, _)| is_ours(name) || *name == landing)
        .map(|(name, at)| (name, Some(at)))
        .collect();
    let mut mends = mend::all(state, &ours);
    mends.retain(|mend| !mend.is_moving && !state.held.contains_key(&mend.name));
    Ok(mends)
}

/// Puts them back as a monitor does.
fn put_back(repo: &Repo, state: &State, done: &mut Vec<String>) -> Result<(), Error> {
    let mends = moved(repo, state).map_err(git)?;
    let mended = mend::run(&mends, &[], &mend::landing_branch(state), repo);
    done.extend(mended.words);
    let held = mended.held.iter();
    done.extend(held.map(|(name, dir)| format!("left `{name}`, which is checked out in `{dir}`")));
    match mended.warnings.first() {
        None => Ok(()),
        Some(warning) => Err(Error::failed(warning.clone()).hint("repair it once more")),
    }
}

/// Returns worktrees of agents that are gone, of which git still has an entry.
fn lost_slots(
    project: &Project,
    repo: &Repo,
    state: Option<&State>,
) -> Result<Vec<PathBuf>, Error> {
    let Some(state) = state else { return Ok(Vec::new()) };
    let dir = project.layout.root.join(&state.settings.worktree.dir);
    let mut slots = repo.own_slots(&dir).map_err(git)?;
    slots.retain(|slot| fs::symlink_metadata(slot).is_err());
    Ok(slots)
}

fn cut_short_step(index: &Path) -> String {
    format!("end the fast-forward that was cut short and left `{}`", index.display())
}

fn slot_step(slot: &Path) -> String {
    format!("remove git's entry for the worktree `{}`, which is gone", slot.display())
}

/// Returns refs of landings that are over: what failed its checks, or waits for approval, lands yet.
fn stale_pending(repo: &Repo, state: &State) -> Result<Vec<(String, Oid)>, Error> {
    let mut refs = repo.list_refs(PENDING).map_err(git)?;
    let open = state.tasks.values().filter(|task| !task.is_final());
    let open: BTreeSet<&str> = open.map(|task| task.id.as_str()).collect();
    refs.retain(|(name, _)| !open.contains(name.trim_start_matches(PENDING)));
    Ok(refs)
}

fn removal(path: &Path) -> String {
    format!("remove `{}`, which a killed process left", path.display())
}

fn orphan_step(orphan: &Orphan) -> String {
    let path = orphan.path().display();
    match orphan {
        Orphan::Attempt { .. } => {
            format!("remove `{path}`, of an attempt that the journal has not")
        }
        Orphan::Socket(_) => removal(orphan.path()),
    }
}

fn pending_step(name: &str) -> String {
    format!("move `{name}`, whose landing is over, to salvage")
}

fn view_step(layout: &Layout) -> String {
    format!("write `{}` anew", layout.state.join("state.json").display())
}

fn git(error: GitError) -> Error {
    let kind = if matches!(error, GitError::Busy { .. }) { Kind::Busy } else { Kind::Failed };
    Error::new(kind, "cannot look for what git left").because_git(&error)
}

impl From<StoreError> for Error {
    fn from(error: StoreError) -> Self {
        LedgerError::Store(error).into()
    }
}
