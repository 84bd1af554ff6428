//! What finished tasks leave goes after `worktree.keep_finished`: folders and logs of attempts, branches
//! whose work has landed, worktrees. Work that has not landed stays, whatever its task came to.
//!
//! A thread beside the loop removes it in small steps. Nothing is recorded: what is gone is gone, and
//! what a kill left is found again.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, SystemTime};

use super::job::setup_id;
use super::work::{Fault, oid, refs};
use crate::agent::task_file::file_name;
use crate::config::layout::Layout;
use crate::git::{Cas, Oid, Repo};
use crate::machine::State;
use crate::machine::agent::BASE_AGENT;
use crate::machine::attempt::Attempt;
use crate::machine::id::{AttemptId, TaskId};
use crate::machine::mode::Rollout;
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

/// The last attempt in a slot.
#[derive(Debug)]
struct Left {
    /// When it was over.
    at: Time,
    attempt: AttemptId,
    /// The commit of what it left there; `None`: nothing.
    saved: Option<String>,
    /// Files there which are in no commit of ours.
    others: Vec<String>,
}

/// Whose remains may go, and what must stay.
#[derive(Debug, Default)]
pub struct Due {
    /// Tasks that finished long enough ago, with their attempts.
    tasks: Vec<(TaskId, Time, Vec<AttemptId>)>,
    /// There are more of them.
    has_more: bool,
    /// Slots that live attempts or unfinished tasks have, as the settings spell them.
    held: BTreeSet<PathBuf>,
    /// The last attempt in a slot; spelled likewise.
    left: BTreeMap<PathBuf, Left>,
    /// Ends of paths of slots that hold work which could not be saved.
    unsaved: BTreeSet<PathBuf>,
    /// Slots that live attempts have; spelled likewise.
    busy: BTreeSet<PathBuf>,
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
            unsaved: unsaved(state).map(|(end, _)| end).collect(),
            ..Self::default()
        };
        let slot = |it: &Attempt| {
            let dir = &state.rules_of(it).worktree.dir;
            layout.slot(dir, it.agent.as_str(), it.slot)
        };
        due.busy.extend(state.attempts.values().map(slot));
        due.held.clone_from(&due.busy);
        let busy: BTreeSet<&TaskId> =
            state.attempts.values().filter_map(|it| it.task.as_ref()).collect();
        let mut last: BTreeMap<PathBuf, (Time, &Attempt)> = BTreeMap::new();
        for old in state.tasks.values().flat_map(|task| &task.history) {
            if let Some(end) = &old.outcome {
                let last = last.entry(slot(old)).or_insert((end.at, old));
                *last = if last.0 <= end.at { (end.at, old) } else { *last };
            }
        }
        due.left.extend(last.into_iter().map(|(slot, (at, old))| {
            let copied = state.rules_of(old).worktree.copy.iter().cloned();
            let task = old.task.iter().map(|id| file_name(id.as_str()));
            let left = Left {
                at,
                attempt: old.id.clone(),
                saved: old.saved.as_ref().map(|oid| oid.as_str().to_owned()),
                others: copied.chain(task).chain([".pipeline".to_owned()]).collect(),
            };
            (slot, left)
        }));
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
                Some(_) | None => due.held.extend(task.history.iter().map(slot)),
            }
        }
        due
    }

    /// Returns what there is to remove. A slot that git cannot read stays.
    ///
    /// # Errors
    /// When git fails.
    pub fn look(&self, layout: &Layout, repo: Option<&Repo>) -> Result<Found, Fault> {
        let mut found = Found::default();
        for (task, _, attempts) in &self.tasks {
            for id in attempts.iter().flat_map(|id| [id.as_str().to_owned(), setup_id(id)]) {
                let folder = present(layout.attempt(&id)).map(Remains::Attempt);
                let log = present(layout.log(&id)).map(Remains::Log);
                found
                    .remains
                    .extend(folder.into_iter().chain(log).map(|it| (Some(task.clone()), it)));
            }
        }
        let (checks, checked_at) = self.base_checks(layout);
        found.remains.extend(checks.into_iter().map(|it| (None, it)));
        let Some(repo) = repo else { return Ok(found) };
        self.look_at_refs(repo, &mut found)?;
        let held: BTreeSet<PathBuf> = self.held.iter().map(|slot| real(slot)).collect();
        let left = self.left_at(layout);
        for slot in repo.own_slots(&self.slots_dir)? {
            let is_touched = || is_touched(repo, &slot, &left, checked_at);
            let is_unsaved = self.unsaved.iter().any(|end| slot.ends_with(end));
            if !held.contains(&slot) && !is_unsaved && self.is_idle(&slot, repo) && !is_touched() {
                found.remains.push((None, Remains::Slot(slot)));
            }
        }
        Ok(found)
    }

    /// Returns those of `slots` in which something came after their last attempt. One that is at work,
    /// or whose filling or removal was cut off, is none of them, nor one of `doctor`, whose checks are no
    /// attempts.
    #[must_use]
    pub fn touched(&self, layout: &Layout, repo: &Repo, slots: &[PathBuf]) -> Vec<PathBuf> {
        let (left, checked_at) = (self.left_at(layout), self.base_checks(layout).1);
        let is_of_agent = |slot: &Path| {
            let agent = slot.parent().and_then(Path::file_name);
            agent.is_some_and(|name| !name.as_encoded_bytes().starts_with(b"."))
        };
        let busy: BTreeSet<PathBuf> = self.busy.iter().map(|slot| real(slot)).collect();
        let is_whole = |slot: &Path| {
            let is_cut_off = slot.exists() && !slot.join(".git").exists();
            !is_cut_off && repo.is_filled(slot).unwrap_or(true)
        };
        let is_looked_at =
            |slot: &&PathBuf| is_of_agent(slot) && !busy.contains(slot.as_path()) && is_whole(slot);
        let of_last: BTreeMap<PathBuf, &Left> =
            self.left.iter().map(|(slot, left)| (real(slot), left)).collect();
        // In a copy of the repository all files are new.
        let is_as_left = |slot: &Path| -> Result<bool, Fault> {
            let last = of_last.get(slot);
            let saved = last.and_then(|last| last.saved.as_deref()).map(oid).transpose()?;
            Ok(repo.is_as_saved(slot, saved.as_ref(), last.map_or(&[], |last| &last.others))?)
        };
        let is_touched = |slot: &&PathBuf| {
            is_touched(repo, slot, &left, checked_at) && !is_as_left(slot).unwrap_or(false)
        };
        slots.iter().filter(is_looked_at).filter(is_touched).cloned().collect()
    }

    /// Returns when the last attempt in each slot was over, in milliseconds since 1970, by the slot's
    /// true path. A clock that slept is behind that of the files: what it left itself counts as well.
    fn left_at(&self, layout: &Layout) -> BTreeMap<PathBuf, u64> {
        let times = |(slot, left): (&PathBuf, &Left)| {
            let id = left.attempt.as_str();
            let written = [layout.attempt(id), layout.log(id)].into_iter();
            let written = written.filter_map(|path| modified_ms(&fs::metadata(path).ok()?));
            (real(slot), written.max().unwrap_or(0).max(left.at.as_ms()))
        };
        self.left.iter().map(times).collect()
    }

    /// Returns whether nothing was made ready or looked at in a slot for long enough.
    fn is_idle(&self, slot: &Path, repo: &Repo) -> bool {
        repo.slot_idle(slot).ok().flatten().is_some_and(|idle| idle >= self.keep)
    }

    /// Branches and salvage of these tasks of which everything has landed.
    fn look_at_refs(&self, repo: &Repo, found: &mut Found) -> Result<(), Fault> {
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
            let of_task = |(name, _): &&(String, Oid)| *name == branch || name.starts_with(&pins);
            for (name, at) in branches.iter().chain(&salvage).filter(of_task) {
                // What is not there any more cannot be told to have landed.
                if !repo.is_ancestor(at, &landed).unwrap_or(false) {
                    continue;
                }
                if used.contains(name) {
                    found.in_use.insert(id.clone());
                } else {
                    found.remains.push((Some(id.clone()), Remains::Ref(name.clone(), at.clone())));
                }
            }
        }
        Ok(())
    }

    /// Returns what old checks of the base left, and when the last one of all wrote something.
    fn base_checks(&self, layout: &Layout) -> (Vec<Remains>, Option<u64>) {
        let is_live = |name: &str| {
            let name = name.strip_suffix(".log").unwrap_or(name);
            self.live.contains(name.strip_suffix(".setup").unwrap_or(name))
        };
        let (mut found, mut last_ms) = (Vec::new(), None);
        for (dir, make) in [("attempts", Remains::Attempt as fn(_) -> _), ("logs", Remains::Log)] {
            for entry in fs::read_dir(layout.state.join(dir)).into_iter().flatten().flatten() {
                let name = entry.file_name().to_string_lossy().into_owned();
                if !name.starts_with(BASE_CHECKS) {
                    continue;
                }
                let meta = entry.metadata().ok();
                last_ms = last_ms.max(meta.as_ref().and_then(modified_ms));
                let age = meta.and_then(|meta| meta.modified().ok()?.elapsed().ok());
                if !is_live(&name) && age.is_some_and(|age| age >= self.keep) {
                    found.push(make(entry.path()));
                }
            }
        }
        found.sort();
        (found, last_ms)
    }
}

/// What was found.
#[derive(Debug, Default)]
pub struct Found {
    /// What there is to remove, with the task that left it.
    pub remains: Vec<(Option<TaskId>, Remains)>,
    /// Tasks whose branch somebody has checked out: it goes when he does.
    in_use: BTreeSet<TaskId>,
}

/// Returns whether something in a slot came after its last attempt: that is a person's. Where none is
/// known all of it is, and so is what git cannot read.
fn is_touched(
    repo: &Repo,
    slot: &Path,
    left: &BTreeMap<PathBuf, u64>,
    checked_at: Option<u64>,
) -> bool {
    let is_of_base = slot.parent().is_some_and(|dir| dir.ends_with(BASE_AGENT));
    let known = left.get(slot).copied().or(checked_at.filter(|_| is_of_base));
    repo.is_touched(slot, known.unwrap_or(0)).unwrap_or(true)
}

fn modified_ms(meta: &fs::Metadata) -> Option<u64> {
    let since = meta.modified().ok()?.duration_since(SystemTime::UNIX_EPOCH).ok()?;
    u64::try_from(since.as_millis()).ok()
}

/// Returns a slot's path as git has it, with no link above it; what is not there stays as it is.
fn real(slot: &Path) -> PathBuf {
    let there = slot
        .ancestors()
        .skip(1)
        .find_map(|above| Some(fs::canonicalize(above).ok()?.join(slot.strip_prefix(above).ok()?)));
    there.unwrap_or_else(|| slot.to_owned())
}

/// Returns the slots that alone hold the work of an attempt, which could not be saved, each as the end
/// of its path: wherever the worktrees lay then.
pub fn unsaved(state: &State) -> impl Iterator<Item = (PathBuf, &AttemptId)> {
    let history = state.tasks.values().flat_map(|task| &task.history);
    history.filter(|old| old.is_unsaved()).map(|old| {
        let slot = old.slot.to_string();
        (Path::new(old.agent.as_str()).join(slot), &old.id)
    })
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
    /// Those of them of which something stays, until all others were cleaned up after.
    kept: Vec<(TaskId, Time)>,
    /// Slots that attempts got since the pass began.
    reserved: BTreeSet<PathBuf>,
    /// What is being removed.
    removing: Option<Remains>,
    is_closed: bool,
}

impl Cleaning {
    /// Begins a pass where one is due, but in shadow, where git is only read. `share` is held until it
    /// is over.
    pub fn heed(
        &self,
        state: &State,
        layout: &Layout,
        repo: Option<Arc<Repo>>,
        now: Time,
        share: Arc<()>,
    ) {
        if state.rollout == Rollout::Shadow {
            return;
        }
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
        self.inner().reserved.insert(real(place));
    }

    /// Waits until a slot that was reserved is not being removed any more.
    pub fn wait_for(&self, place: &Path) {
        let slot = Remains::Slot(real(place));
        self.wait_while(|inner| inner.removing.as_ref() == Some(&slot));
    }

    /// Removes nothing more, and waits for what is being removed: the next monitor may want it.
    pub fn close(&self) {
        self.inner().is_closed = true;
        self.wait_while(|inner| inner.removing.is_some());
    }

    fn wait_while(&self, is_so: impl Fn(&Inner) -> bool) {
        let mut inner = self.inner();
        while is_so(&inner) {
            let waited = self.0.changed.wait(inner);
            inner = waited.unwrap_or_else(PoisonError::into_inner);
        }
    }

    /// What cannot be looked at or removed now is found again by a later pass.
    fn pass(&self, due: &Due, layout: &Layout, repo: Option<&Repo>) {
        let found = due.look(layout, repo);
        let is_known = found.is_ok();
        let Found { remains, in_use: mut kept } = found.unwrap_or_default();
        for (task, remains) in remains {
            if !self.remove(&remains, due, repo) {
                kept.extend(task);
            }
        }
        let mut inner = self.inner();
        inner.is_at_work = false;
        if is_known {
            inner.settle(due, &kept);
        }
    }

    /// Removes one thing; returns whether it is gone.
    fn remove(&self, remains: &Remains, due: &Due, repo: Option<&Repo>) -> bool {
        if !self.begin(remains) {
            return false;
        }
        let is_free = match (remains, repo) {
            // It may have come into use since it was looked at.
            (Remains::Slot(slot), Some(repo)) => due.is_idle(slot, repo),
            (Remains::Slot(_), None)
            | (Remains::Attempt(_) | Remains::Log(_) | Remains::Ref(..), _) => true,
        };
        let is_gone = is_free && remains.remove(repo).is_ok();
        self.inner().removing = None;
        self.0.changed.notify_all();
        is_gone
    }

    /// Returns whether it may be removed now; then nobody gets it until that is done.
    fn begin(&self, remains: &Remains) -> bool {
        let mut inner = self.inner();
        let is_reserved = inner.reserved.iter().any(|it| *remains == Remains::Slot(it.clone()));
        let is_free = !inner.is_closed && !is_reserved;
        inner.removing = is_free.then(|| remains.clone());
        is_free
    }

    fn inner(&self) -> MutexGuard<'_, Inner> {
        self.0.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Inner {
    /// Is told that a pass is over. The tasks in `kept` are due again once all others were.
    fn settle(&mut self, due: &Due, kept: &BTreeSet<TaskId>) {
        for (id, at, _) in &due.tasks {
            let task = (id.clone(), *at);
            self.kept.extend(kept.contains(id).then(|| task.clone()));
            self.done.insert(task);
        }
        if !due.has_more {
            for task in std::mem::take(&mut self.kept) {
                self.done.remove(&task);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;
    use std::path::{Path, PathBuf};

    use super::{Cleaning, Due, Inner, Remains, Time};
    use crate::machine::id::TaskId;

    fn slot(path: &str) -> Remains {
        Remains::Slot(PathBuf::from(path))
    }

    /// Says that what is being removed is gone.
    fn is_gone(cleaning: &Cleaning) {
        cleaning.inner().removing = None;
        cleaning.0.changed.notify_all();
    }

    #[test]
    fn a_slot_that_an_attempt_gets_is_not_removed_or_waited_for() {
        let cleaning = Cleaning::default();
        let (one, other) = (Path::new("/w/a/0"), Path::new("/w/a/1"));
        cleaning.reserve(one);
        assert!(!cleaning.begin(&slot("/w/a/0")));
        cleaning.wait_for(one);
        assert!(cleaning.begin(&slot("/w/a/1")));
        cleaning.reserve(other);
        let waits = {
            let cleaning = cleaning.clone();
            std::thread::spawn(move || cleaning.wait_for(other))
        };
        assert!(!waits.is_finished(), "it is being removed");
        is_gone(&cleaning);
        waits.join().expect("it ends");
    }

    #[test]
    fn a_slot_is_the_same_however_its_path_is_spelled() {
        let dir = tempfile::tempdir().expect("a folder");
        let dir = std::fs::canonicalize(dir.path()).expect("its true path");
        std::fs::create_dir(dir.join("far")).expect("a folder");
        std::os::unix::fs::symlink("far", dir.join("near")).expect("a link");
        // The agent's own folder is not there yet.
        let cleaning = Cleaning::default();
        cleaning.reserve(&dir.join("near/a/0"));
        assert!(!cleaning.begin(&Remains::Slot(dir.join("far/a/0"))));
    }

    #[test]
    fn one_that_ends_waits_for_what_is_being_removed_and_begins_no_more() {
        let cleaning = Cleaning::default();
        assert!(cleaning.begin(&slot("/w/a/0")));
        let closes = {
            let cleaning = cleaning.clone();
            std::thread::spawn(move || cleaning.close())
        };
        while !cleaning.inner().is_closed {
            std::thread::yield_now();
        }
        assert!(!closes.is_finished(), "it is being removed");
        is_gone(&cleaning);
        closes.join().expect("it ends");
        assert!(!cleaning.begin(&slot("/w/a/1")));
    }

    #[test]
    fn a_task_of_which_something_stays_holds_up_no_other() {
        let id = |name: &str| name.parse::<TaskId>().expect("an id");
        let due = |name: &str, has_more| {
            let tasks = vec![(id(name), Time::default(), Vec::new())];
            Due { tasks, has_more, ..Due::default() }
        };
        let mut inner = Inner::default();
        let done = |inner: &Inner| -> Vec<String> {
            inner.done.iter().map(|(id, _)| id.to_string()).collect()
        };
        inner.settle(&due("A", true), &BTreeSet::from([id("A")]));
        assert_eq!(done(&inner), ["A"], "the next come first");
        inner.settle(&due("B", false), &BTreeSet::new());
        assert_eq!(done(&inner), ["B"], "then it is looked at again");
    }
}
