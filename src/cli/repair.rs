//! `pipeline doctor --repair`: mends what a crash or a damaged disk left; deletes nothing of value.
//!
//! The damaged original of a journal is kept beside it. What is swept is what no living process can
//! still want: neither a monitor nor a keeper may run.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;
use std::time::Duration;

use super::error::Error;
use super::project::Project;
use crate::agent::rendezvous;
use crate::config::layout::Layout;
use crate::git::{GitError, Oid, Repo};
use crate::machine::State;
use crate::machine::time::Time;
use crate::monitor::finished::{Due, Remains};
use crate::monitor::sweep;
use crate::observe::document::state_document;
use crate::store::journal::FileStore;
use crate::store::ledger::{Ledger, LedgerError};
use crate::store::lock::{FileLock, is_held, read_owner};
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
        steps.extend(finished(project, state)?.iter().map(ToString::to_string));
    }
    let Some(repo) = &project.repo else { return Ok(steps) };
    steps.extend(repo.stale_locks().map_err(git)?.iter().map(|it| removal(it)));
    if let Some(state) = &state {
        steps.extend(stale_pending(repo, state)?.iter().map(|(name, _)| pending_step(name)));
    }
    Ok(steps)
}

/// Mends; returns what was done, as [`plan`] told it.
///
/// # Errors
/// A monitor or a keeper runs; damage that cannot be mended; git's and the file system's own. A
/// repetition goes on where an error stopped it.
pub fn run(project: &Project, wait: Duration) -> Result<Vec<String>, Error> {
    let (layout, dir) = (&project.layout, &project.layout.state);
    let _alone = alone(layout)?;
    let mends = repair::repair(dir, wait)?;
    let mut done: Vec<String> = mends.iter().map(ToString::to_string).collect();
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
    for remains in finished(project, &state)? {
        remains.remove(project.repo.as_ref()).map_err(|fault| {
            Error::failed(format!("cannot {remains}")).because_of(fault.to_string())
        })?;
        done.push(remains.to_string());
    }
    let Some(repo) = &project.repo else { return Ok(done) };
    let removed = repo.clear_stale_locks().map_err(git)?;
    done.extend(removed.iter().map(|path| removal(path)));
    for (name, oid) in stale_pending(repo, &state)? {
        let short = name.trim_start_matches(PENDING);
        repo.move_to_salvage(&name, &format!("{short}.pending-{}", oid.short())).map_err(git)?;
        done.push(pending_step(&name));
    }
    Ok(done)
}

/// Takes the monitor's place, once it is sure that no keeper lives.
fn alone(layout: &Layout) -> Result<FileLock, Error> {
    let path = layout.monitor_lock();
    let lock = FileLock::try_exclusive(&path, "doctor --repair").map_err(|error| {
        Error::failed(format!("cannot lock `{}`", path.display())).because(&error)
    })?;
    let Some(lock) = lock else {
        let owner = read_owner(&path).map_or(String::new(), |owner| format!(": {owner}"));
        return Err(Error::busy(format!("cannot repair while a monitor runs{owner}"))
            .hint("end it with `pipeline stop`")
            .at(&path));
    };
    let keepers = fs::read_dir(layout.keepers()).into_iter().flatten().flatten();
    for keeper in keepers.map(|entry| entry.path()) {
        let path = rendezvous::lock_path(&keeper);
        if is_held(&path).unwrap_or(true) {
            let name = keeper.file_name().unwrap_or_default().to_string_lossy();
            return Err(Error::busy(format!("cannot repair while agent `{name}` is at work"))
                .hint("wait for it, or end it with `pipeline stop --now`")
                .at(&path));
        }
    }
    Ok(lock)
}

fn load(dir: &Path) -> Result<(State, u64, Time), Error> {
    let (ledger, _) = Ledger::open(FileStore::open(dir, 0), "repair")?;
    Ok((ledger.state().clone(), ledger.seq(), ledger.time()))
}

/// Returns what tasks left that finished longer than `worktree.keep_finished` ago.
fn finished(project: &Project, state: &State) -> Result<Vec<Remains>, Error> {
    let due = Due::of(state, &project.layout, SystemClock::start().now(), &BTreeSet::new());
    due.look(&project.layout, project.repo.as_ref()).map_err(|fault| {
        Error::failed("cannot look for what finished tasks left").because_of(fault.to_string())
    })
}

/// Returns refs of landings that are not under way.
fn stale_pending(repo: &Repo, state: &State) -> Result<Vec<(String, Oid)>, Error> {
    let mut refs = repo.list_refs(PENDING).map_err(git)?;
    let current = state.landing.as_ref().map(|landing| landing.task.to_string());
    refs.retain(|(name, _)| Some(name.trim_start_matches(PENDING)) != current.as_deref());
    Ok(refs)
}

fn removal(path: &Path) -> String {
    format!("remove `{}`, which a killed process left", path.display())
}

fn pending_step(name: &str) -> String {
    format!("move `{name}`, whose landing is over, to salvage")
}

fn view_step(layout: &Layout) -> String {
    format!("write `{}` anew", layout.state.join("state.json").display())
}

fn git(error: GitError) -> Error {
    Error::failed("cannot look for what git left").because(&error)
}

impl From<StoreError> for Error {
    fn from(error: StoreError) -> Self {
        LedgerError::Store(error).into()
    }
}
