//! Makes the worktrees of what comes next ready while agents are at work.
//!
//! Nothing depends on it. What was made ready is remembered in memory only, and whoever prepares an
//! attempt takes over what still fits, or does everything. One thread does it, one worktree after
//! another, after everything that is owed: it waits while as much of that is under way as there are
//! cores.
//!
//! **Invariants.** Once [`Prefetch::withdraw`] was called for a place, nothing is begun in it, and
//! what was is ended, or waits for a gate and then does nothing: [`Prefetch::take`] comes before the
//! attempt's own git. What was made ready is handed out once.

use std::collections::{BTreeMap, VecDeque};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError, Weak};
use std::thread;
use std::time::{Duration, Instant};

use super::work::{Fault, oid};
use crate::git::{Repo, SlotRequest};
use crate::machine::id::AgentName;
use crate::sys::child::Stop;
use crate::sys::{clock, machine};

/// How long an attempt waits for what is being done in its place, before that is ended.
const PATIENCE: Duration = Duration::from_millis(250);
/// Where a place is made ready again, since its commit has changed, the thread rests for so many
/// times what that took: branches may move all the time.
const REST: u32 = 9;
/// And no longer: on a busy machine what it took says more of the others than of itself.
const LONGEST_REST: Duration = Duration::from_secs(10);

/// A worktree as it is wanted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Wanted {
    pub agent: AgentName,
    pub place: PathBuf,
    /// The commit.
    pub at: String,
    /// Its branch will have moved: only worth it where there is no worktree at all.
    pub is_moving: bool,
}

/// The preparations of one monitor.
#[derive(Debug, Clone, Default)]
pub struct Prefetch(Arc<Shared>);

#[derive(Debug, Default)]
struct Shared {
    inner: Mutex<Inner>,
    changed: Condvar,
}

#[derive(Debug, Default)]
struct Inner {
    /// Next first.
    wanted: VecDeque<Wanted>,
    under_way: Option<(PathBuf, Arc<Stop>)>,
    ready: BTreeMap<PathBuf, Wanted>,
    /// What was last begun for an agent: it is not begun twice.
    begun: BTreeMap<AgentName, Wanted>,
    /// Until then nothing is made ready that was before.
    rests_until: Option<Instant>,
    has_thread: bool,
    is_closed: bool,
}

impl Prefetch {
    /// Has these made ready, in this order, and nothing else any more. `others` is held by a share of
    /// each piece of work that comes first.
    pub fn want(&self, wanted: Vec<Wanted>, repo: &Arc<Repo>, others: &Arc<()>) {
        let mut inner = self.inner();
        inner.wanted = wanted.into();
        let Inner { wanted, begun, .. } = &mut *inner;
        wanted.retain(|wanted| begun.get(&wanted.agent) != Some(wanted));
        if wanted.is_empty() || inner.is_closed {
            return;
        }
        if inner.has_thread {
            self.0.changed.notify_all();
            return;
        }
        let (prefetch, repo) = (self.clone(), Arc::clone(repo));
        // The thread itself is none of them.
        let others = Arc::downgrade(others);
        let serve = move || prefetch.serve(&repo, &others);
        // Without a thread nothing is made ready ahead.
        inner.has_thread = thread::Builder::new().name("prefetch".into()).spawn(serve).is_ok();
    }

    /// Says that some of the work that comes first has ended.
    pub fn nudge(&self) {
        // Under the lock: whoever has looked and not yet begun to wait would miss it.
        let _inner = self.inner();
        self.0.changed.notify_all();
    }

    /// Begins nothing more in a place: an attempt gets it.
    pub fn withdraw(&self, place: &Path) {
        self.inner().wanted.retain(|wanted| wanted.place != place);
    }

    /// Returns whether a place was made ready at the commit; waits a little for what is under way
    /// there, and then ends it.
    pub fn take(&self, place: &Path, at: &str) -> bool {
        let mut inner = self.inner();
        let deadline = clock::monotonic() + PATIENCE;
        while let Some(stop) = inner.stop_of(place) {
            let left = deadline.saturating_duration_since(clock::monotonic());
            if left.is_zero() {
                stop.raise();
                break;
            }
            let waited = self.0.changed.wait_timeout(inner, left);
            inner = waited.unwrap_or_else(PoisonError::into_inner).0;
        }
        let ready = inner.ready.remove(place);
        ready.is_some_and(|ready| ready.at == at)
    }

    /// Ends what is under way, and begins nothing more.
    pub fn close(&self) {
        let mut inner = self.inner();
        inner.is_closed = true;
        if let Some((_, stop)) = &inner.under_way {
            stop.raise();
        }
        self.0.changed.notify_all();
        let deadline = clock::monotonic() + PATIENCE;
        while inner.has_thread && clock::monotonic() < deadline {
            let waited = self.0.changed.wait_timeout(inner, PATIENCE);
            inner = waited.unwrap_or_else(PoisonError::into_inner).0;
        }
    }

    fn serve(&self, repo: &Repo, others: &Weak<()>) {
        crate::sys::machine::yield_to_others();
        while let Some((wanted, stop)) = self.next(others) {
            let begun = clock::monotonic();
            let made = make(&wanted, repo, &stop);
            let took = clock::monotonic().duration_since(begun);
            let mut inner = self.inner();
            if inner.is_closed && stop.is_raised() && inner.stop_of(&wanted.place).is_some() {
                // Ended with the monitor: no attempt has asked for the place. What cannot be taken
                // away goes when the slot is used.
                let _ = repo.tidy_slot(&wanted.place);
            }
            inner.under_way = None;
            // What failed is found out by the attempt that needs it, if it is still so then.
            if made.is_ok_and(|is_made| is_made) && !stop.is_raised() {
                inner.ready.insert(wanted.place.clone(), wanted);
            }
            inner.rests_until = Some(clock::monotonic() + (took * REST).min(LONGEST_REST));
            self.0.changed.notify_all();
        }
    }

    /// Waits for the next to be made ready; `None`: nothing more is to be.
    fn next(&self, others: &Weak<()>) -> Option<(Wanted, Arc<Stop>)> {
        let mut inner = self.inner();
        loop {
            // One share is the loop's own.
            let is_idle = others.strong_count() <= machine::cores() as usize;
            let now = clock::monotonic();
            let found = inner.next(now).filter(|_| is_idle && !inner.is_closed);
            let stop = found.and_then(|at| Some((at, Arc::new(Stop::new().ok()?))));
            if let Some((at, stop)) = stop
                && let Some(wanted) = inner.wanted.remove(at)
            {
                inner.ready.remove(&wanted.place);
                inner.begun.insert(wanted.agent.clone(), wanted.clone());
                inner.under_way = Some((wanted.place.clone(), Arc::clone(&stop)));
                return Some((wanted, stop));
            }
            if inner.is_closed || others.strong_count() == 0 {
                inner.has_thread = false;
                self.0.changed.notify_all();
                return None;
            }
            let rest = inner.rests_until.map(|at| at.saturating_duration_since(now));
            let rest = rest.filter(|rest| !rest.is_zero() && !inner.wanted.is_empty());
            inner = match rest {
                Some(rest) => {
                    let waited = self.0.changed.wait_timeout(inner, rest);
                    waited.unwrap_or_else(PoisonError::into_inner).0
                }
                None => self.0.changed.wait(inner).unwrap_or_else(PoisonError::into_inner),
            };
        }
    }

    fn inner(&self) -> MutexGuard<'_, Inner> {
        self.0.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Inner {
    fn stop_of(&self, place: &Path) -> Option<Arc<Stop>> {
        let (at, stop) = self.under_way.as_ref()?;
        (at == place).then(|| Arc::clone(stop))
    }

    /// Returns the place in `wanted` of what may be begun now.
    fn next(&self, now: Instant) -> Option<usize> {
        let is_resting = self.rests_until.is_some_and(|until| now < until);
        let is_again = |wanted: &Wanted| {
            self.begun.get(&wanted.agent).is_some_and(|begun| begun.place == wanted.place)
        };
        self.wanted.iter().position(|wanted| !is_resting || !is_again(wanted))
    }
}

/// Makes a worktree ready; returns whether it was.
fn make(wanted: &Wanted, repo: &Repo, stop: &Arc<Stop>) -> Result<bool, Fault> {
    crate::sys::fail::point("prefetch.run").map_err(|error| Fault(error.to_string()))?;
    if wanted.is_moving && wanted.place.exists() {
        return Ok(false);
    }
    let request = SlotRequest {
        path: &wanted.place,
        at: &oid(&wanted.at)?,
        keep: &[],
        merge: None,
        is_ready: false,
    };
    // One that was disturbed is left to the attempt, which tells of it.
    let repo = repo.until(Arc::clone(stop));
    let ready = repo.prepare_slot(&request)?;
    repo.note_rest(&wanted.place, request.at, &[])?;
    Ok(ready.unclean.is_empty())
}
