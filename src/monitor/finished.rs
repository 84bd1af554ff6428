//! What finished tasks leave goes after `worktree.keep_finished`: folders and logs of attempts, branches
//! whose work has landed, worktrees. Work that has not landed stays, whatever its task came to.
//!
//! A thread beside the loop removes it in small steps. Nothing is recorded: what is gone is gone, and
//! what a kill left is found again.

use std::collections::BTreeSet;
use std::fmt;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::Duration;

use super::job::setup_id;
use super::work::{Fault, oid, refs};
use crate::config::layout::Layout;
use crate::git::{Cas, Oid, Repo};
use crate::machine::State;
use crate::machine::id::{AttemptId, TaskId};
use crate::machine::task::{Task, TaskPhase};
use crate::machine::time::Time;
use crate::sys::fail;

/// Tasks cleaned up after in one pass, at most.
const TASKS_MAX: usize = 64;
/// Between two passes while more is due, in milliseconds, and at least.
const PAUSE_MS_MIN: u64 = 1_000;
/// Between two passes at most, in milliseconds.
const PAUSE_MS_MAX: u64 = 600_000;
/// Checks of the base, which belong to no task.
pub const BASE_CHECKS: &str = "base.check.";

/// Whose remains may go, and what must stay.
#[derive(Debug, Default)]
pub struct Due {
    /// Tasks that finished long enough ago, with their attempts.
    tasks: Vec<(TaskId, Time, Vec<AttemptId>)>,
    /// There are more of them.
    has_more: bool,
    /// Slots that live attempts or unfinished tasks have.
    held: BTreeSet<PathBuf>,
    live: BTreeSet<String>,
    slots_dir: PathBuf,
    landed: Option<String>,
    keep: Duration,
}

impl Due {
    /// Returns what is due; tasks in `done` were cleaned up after.
    #[must_use]
    pub fn of(state: &State, layout: &Layout, now: Time, done: &BTreeSet<(TaskId, Time)>) -> Self {
        let worktree = &state.settings.worktree;
        let mut due = Self {
            live: state.attempts.keys().map(|id| id.as_str().to_owned()).collect(),
            slots_dir: layout.root.join(&worktree.dir),
            landed: state.base.landed.as_ref().map(|oid| oid.as_str().to_owned()),
            keep: Duration::from_millis(worktree.keep_finished_ms),
            ..Self::default()
        };
        let slot = |agent: &str, slot| layout.slot(&worktree.dir, agent, slot);
        due.held.extend(state.attempts.values().map(|it| slot(it.agent.as_str(), it.slot)));
        let busy: BTreeSet<&TaskId> =
            state.attempts.values().filter_map(|it| it.task.as_ref()).collect();
        for task in state.tasks.values() {
            let is_due = |at: &Time| at.plus_ms(worktree.keep_finished_ms) <= now;
            match finished_at(task).filter(|_| !busy.contains(&task.id)) {
                Some(at) if is_due(&at) && !done.contains(&(task.id.clone(), at)) => {
                    due.has_more |= due.tasks.len() == TASKS_MAX;
                    if due.tasks.len() < TASKS_MAX {
                        let attempts = task.history.iter().map(|it| it.id.clone()).collect();
                        due.tasks.push((task.id.clone(), at, attempts));
                    }
                }
                Some(at) if is_due(&at) => {}
                Some(_) | None => {
                    due.held.extend(task.history.iter().map(|it| slot(it.agent.as_str(), it.slot)))
                }
            }
        }
        due
    }

    /// Returns what there is to remove.
    ///
    /// # Errors
    /// When git fails.
    pub fn look(&self, layout: &Layout, repo: Option<&Repo>) -> Result<Vec<Remains>, Fault> {
        let mut found = Vec::new();
        for id in self.tasks.iter().flat_map(|(_, _, attempts)| attempts) {
            for id in [id.as_str().to_owned(), setup_id(id)] {
                found.extend(present(layout.attempt(&id)).map(Remains::Attempt));
                found.extend(present(layout.log(&id)).map(Remains::Log));
            }
        }
        found.extend(self.base_checks(layout));
        let Some(repo) = repo else { return Ok(found) };
        self.look_at_refs(repo, &mut found)?;
        for slot in repo.own_slots(&self.slots_dir)? {
            let idle = repo.slot_idle(&slot)?;
            if !self.held.contains(&slot) && idle.is_some_and(|idle| idle >= self.keep) {
                found.push(Remains::Slot(slot));
            }
        }
        Ok(found)
    }

    /// Branches and salvage of these tasks of which everything has landed.
    fn look_at_refs(&self, repo: &Repo, found: &mut Vec<Remains>) -> Result<(), Fault> {
        let Some(landed) = self.landed.as_deref().map(oid).transpose()? else { return Ok(()) };
        if self.tasks.is_empty() {
            return Ok(());
        }
        let branches = repo.list_refs(&refs::task_dir())?;
        let salvage = repo.list_salvage()?;
        let used: BTreeSet<String> =
            repo.checkouts()?.into_iter().filter_map(|checkout| checkout.branch).collect();
        for (id, ..) in &self.tasks {
            let (branch, pins) = (refs::task(id), refs::salvage(&format!("{id}.")));
            let of_task = |(name, _): &&(String, Oid)| {
                (*name == branch && !used.contains(name)) || name.starts_with(&pins)
            };
            for (name, at) in branches.iter().chain(&salvage).filter(of_task) {
                // What is not there any more cannot be told to have landed.
                if repo.is_ancestor(at, &landed).unwrap_or(false) {
                    found.push(Remains::Ref(name.clone(), at.clone()));
                }
            }
        }
        Ok(())
    }

    fn base_checks(&self, layout: &Layout) -> Vec<Remains> {
        let is_old = |path: &Path| {
            let modified = fs::symlink_metadata(path).and_then(|meta| meta.modified()).ok();
            modified.and_then(|at| at.elapsed().ok()).is_some_and(|age| age >= self.keep)
        };
        let is_live = |name: &str| {
            let name = name.strip_suffix(".log").unwrap_or(name);
            self.live.contains(name.strip_suffix(".setup").unwrap_or(name))
        };
        let mut found = Vec::new();
        for (dir, make) in [("attempts", Remains::Attempt as fn(_) -> _), ("logs", Remains::Log)] {
            for entry in fs::read_dir(layout.state.join(dir)).into_iter().flatten().flatten() {
                let name = entry.file_name().to_string_lossy().into_owned();
                if name.starts_with(BASE_CHECKS) && !is_live(&name) && is_old(&entry.path()) {
                    found.push(make(entry.path()));
                }
            }
        }
        found.sort();
        found
    }
}

fn finished_at(task: &Task) -> Option<Time> {
    match &task.phase {
        TaskPhase::Completed { at, .. } | TaskPhase::Cancelled { at } => Some(*at),
        TaskPhase::Waiting
        | TaskPhase::Ready { .. }
        | TaskPhase::Working { .. }
        | TaskPhase::Landing { .. }
        | TaskPhase::Blocked(_) => None,
    }
}

fn present(path: PathBuf) -> Option<PathBuf> {
    fs::symlink_metadata(&path).is_ok().then_some(path)
}

/// Something that a finished task left.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum Remains {
    /// An attempt's folder.
    Attempt(PathBuf),
    Log(PathBuf),
    /// A branch, or a pin in salvage, of which everything has landed.
    Ref(String, Oid),
    Slot(PathBuf),
}

impl fmt::Display for Remains {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let path = match self {
            Self::Ref(name, at) => return write!(f, "remove `{name}` ({at}), which has landed"),
            Self::Slot(path) => return write!(f, "remove the idle worktree `{}`", path.display()),
            Self::Attempt(path) | Self::Log(path) => path,
        };
        write!(f, "remove `{}`, whose task finished long ago", path.display())
    }
}

impl Remains {
    /// Removes it; gone already is fine.
    ///
    /// # Errors
    /// Git's and the file system's own.
    pub fn remove(&self, repo: Option<&Repo>) -> Result<(), Fault> {
        let removed = |path: &Path, done: io::Result<()>| match done {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
            other => other.map_err(|error| Fault::file("remove", path, &error)),
        };
        let point = || fail::point("finished.remove");
        match (self, repo) {
            (Self::Attempt(path), _) => {
                removed(path, point().and_then(|()| fs::remove_dir_all(path)))
            }
            (Self::Log(path), _) => removed(path, point().and_then(|()| fs::remove_file(path))),
            (Self::Ref(name, at), Some(repo)) => match repo.cas_ref(name, None, Some(at))? {
                // One that has moved is looked at anew.
                Cas::Done | Cas::Moved(_) => Ok(()),
            },
            (Self::Slot(path), Some(repo)) => Ok(repo.remove_slot(path)?),
            (Self::Ref(..) | Self::Slot(_), None) => Ok(()),
        }
    }
}

/// The thread of one monitor, and what it must not touch.
#[derive(Debug, Clone, Default)]
pub struct Cleaning(Arc<Shared>);

#[derive(Debug, Default)]
struct Shared {
    inner: Mutex<Inner>,
    changed: Condvar,
}

#[derive(Debug, Default)]
struct Inner {
    /// When the next pass is due; `None`: at once.
    next: Option<Time>,
    is_at_work: bool,
    /// Tasks that were cleaned up after, with when they finished.
    done: BTreeSet<(TaskId, Time)>,
    /// Slots that attempts got since the pass began.
    reserved: BTreeSet<PathBuf>,
    /// The slot that is being removed.
    removing: Option<PathBuf>,
}

impl Cleaning {
    /// Begins a pass where one is due. `share` is held until it is over.
    pub fn heed(
        &self,
        state: &State,
        layout: &Layout,
        repo: Option<Arc<Repo>>,
        now: Time,
        share: Arc<()>,
    ) {
        let mut inner = self.inner();
        if inner.is_at_work || inner.next.is_some_and(|next| now < next) {
            return;
        }
        let due = Due::of(state, layout, now, &inner.done);
        let keep_ms = state.settings.worktree.keep_finished_ms;
        let pause_ms = (keep_ms / 8).clamp(PAUSE_MS_MIN, PAUSE_MS_MAX);
        inner.next = Some(now.plus_ms(if due.has_more { PAUSE_MS_MIN } else { pause_ms }));
        inner.reserved.clear();
        let (cleaning, layout) = (self.clone(), layout.clone());
        let run = move || {
            crate::sys::machine::yield_to_others();
            cleaning.pass(&due, &layout, repo.as_deref());
            drop(share);
        };
        // Without a thread the next pass does it.
        inner.is_at_work = thread::Builder::new().name("finished".into()).spawn(run).is_ok();
    }

    /// Keeps a slot from being removed: an attempt gets it.
    pub fn reserve(&self, place: &Path) {
        self.inner().reserved.insert(place.to_owned());
    }

    /// Waits until a slot that was reserved is not being removed any more.
    pub fn wait_for(&self, place: &Path) {
        let mut inner = self.inner();
        while inner.removing.as_deref() == Some(place) {
            let waited = self.0.changed.wait(inner);
            inner = waited.unwrap_or_else(PoisonError::into_inner);
        }
    }

    /// What cannot be looked at or removed now is found again by the next pass.
    fn pass(&self, due: &Due, layout: &Layout, repo: Option<&Repo>) {
        let found = due.look(layout, repo);
        let mut is_done = found.is_ok();
        for remains in found.unwrap_or_default() {
            is_done &= match &remains {
                Remains::Slot(place) if !self.begin_removing(place) => true,
                Remains::Slot(_) | Remains::Attempt(_) | Remains::Log(_) | Remains::Ref(..) => {
                    remains.remove(repo).is_ok()
                }
            };
            self.inner().removing = None;
            self.0.changed.notify_all();
        }
        let mut inner = self.inner();
        inner.is_at_work = false;
        if is_done {
            inner.done.extend(due.tasks.iter().map(|(id, at, _)| (id.clone(), *at)));
        }
    }

    fn begin_removing(&self, place: &Path) -> bool {
        let mut inner = self.inner();
        let is_free = !inner.reserved.contains(place);
        inner.removing = is_free.then(|| place.to_owned());
        is_free
    }

    fn inner(&self) -> MutexGuard<'_, Inner> {
        self.0.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::Cleaning;

    #[test]
    fn a_slot_that_an_attempt_gets_is_not_removed_or_waited_for() {
        let cleaning = Cleaning::default();
        let (one, other) = (Path::new("/w/a/0"), Path::new("/w/a/1"));
        cleaning.reserve(one);
        assert!(!cleaning.begin_removing(one));
        cleaning.wait_for(one);
        assert!(cleaning.begin_removing(other));
        cleaning.reserve(other);
        let waits = {
            let cleaning = cleaning.clone();
            std::thread::spawn(move || cleaning.wait_for(other))
        };
        assert!(!waits.is_finished(), "it is being removed");
        cleaning.inner().removing = None;
        cleaning.0.changed.notify_all();
        waits.join().expect("it ends");
    }
}
