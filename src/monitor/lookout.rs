//! The thread that looks at what is not the agents': one look at a time, at most a part of one core,
//! and the last one kept in a file, so that a monitor that comes after a kill can compare.
//!
//! Our own refs are looked at whenever that is asked for; the checkout, which may be large, rests in
//! between.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender};
use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};

use super::mend;
use super::sources::Input;
use super::spans::Since;
use crate::git::{Difference, Entry, Look, OwnIndex, Repo};
use crate::machine::id::AttemptId;
use crate::machine::time::Time;
use crate::sys::clock::monotonic;
use crate::sys::fail;
use crate::sys::file::{Durability, read_bounded, write_atomic};

/// While attempts run, looks rest so many times as long as the last one took.
const REST_FACTOR: u32 = 3;
/// Shortest rest after a look that failed.
const REST_FAILED: Duration = Duration::from_secs(1);
/// Shortest rest after so many that failed in a row, whether attempts run or not.
const REST_GIVEN_UP: Duration = Duration::from_secs(300);
/// Looks that fail in a row until it is said that nothing is known.
pub const FAILURES_MAX: u32 = 3;
/// Most differences told of one look; the rest is counted.
const TOLD_MAX: usize = 64;
/// Largest file of a kept look that is read, in bytes.
const KEPT_BYTES_MAX: u64 = 256 << 20;

/// What is asked of the thread.
#[derive(Debug)]
pub enum Order {
    /// Look at the refs; with `ignored`: and at the checkout, but for paths that begin so.
    Look {
        number: u64,
        /// `None`: at our own refs alone, all of them.
        ignored: Option<Vec<String>>,
        /// The landing branch, which is ours wherever it is.
        landing: String,
        /// Attempts run, which are not to be slowed down.
        is_shared: bool,
        /// What is kept with it.
        since: Since,
    },
    /// What this look told is on record: keep it.
    Keep { number: u64 },
}

/// What a look told.
#[derive(Debug)]
pub struct Looked {
    /// Every order up to this one is answered.
    pub number: u64,
    pub began: Instant,
    pub ended: Instant,
    /// The checkout was looked at too.
    pub is_whole: bool,
    /// The first whole one of this monitor: compared with what the one before kept, if anything.
    pub is_first: bool,
    /// What differs from the whole look before, but for our own refs.
    pub differences: Vec<Difference>,
    /// Differences beyond those.
    pub more: u64,
    /// Our own refs and where they stand: all, or those that have changed since the look before.
    pub ours: Vec<(String, Option<String>)>,
    /// `ours` are all there are.
    pub are_all: bool,
    /// What was found at branches of ours, and kept in salvage since the whole look before: name and
    /// commit.
    pub salvaged: Vec<(String, String)>,
}

/// The answer to an order.
pub type Answer = Result<Looked, (u64, String)>;

/// The last look that a monitor before this one kept.
#[derive(Debug)]
pub struct Kept {
    pub look: Look,
    pub since: Since,
    /// What had been found at branches of ours is in it.
    pub has_salvage: bool,
}

/// Where looks are kept.
#[derive(Debug, Clone)]
pub struct Files {
    dir: PathBuf,
    look: PathBuf,
    since: PathBuf,
}

/// Begins the names of copies of the index.
const OWN_INDEX: &str = "outside.index.";

impl Files {
    /// Returns the files in the folder of the state.
    #[must_use]
    pub fn of(state_dir: &Path) -> Self {
        let dir = state_dir.to_owned();
        Self { look: dir.join("outside.json"), since: dir.join("outside.at"), dir }
    }

    /// Returns a copy of the index for this process alone, since a git of another one that was killed
    /// may still write to its own; those are removed.
    fn own_index(&self) -> OwnIndex {
        for entry in fs::read_dir(&self.dir).into_iter().flatten().flatten() {
            if entry.file_name().to_string_lossy().starts_with(OWN_INDEX) {
                // One that stays costs room alone.
                let _ = fs::remove_file(entry.path());
            }
        }
        OwnIndex::new(self.dir.join(format!("{OWN_INDEX}{}", std::process::id())))
    }

    /// Reads what was kept; `None` when there is nothing that can be used.
    #[must_use]
    pub fn read(&self) -> Option<Kept> {
        let bytes = read_bounded(&self.look, KEPT_BYTES_MAX).ok()??;
        let stored: Stored = serde_json::from_slice(&bytes).ok()?;
        let since = read_bounded(&self.since, KEPT_BYTES_MAX).ok()??;
        let (at, live): (u64, Vec<String>) = serde_json::from_slice(&since).ok()?;
        let live = live.iter().map(AttemptId::new).collect();
        let since = Since { at: Time::from_ms(at), live };
        let has_salvage = stored.has_salvage;
        Some(Kept { look: stored.look(), since, has_salvage })
    }

    /// Keeps another time with the look that is kept; where that fails nothing is known of it any more.
    pub(super) fn set_back(&self, since: &Since) {
        if self.write(None, since).is_err() {
            // One that stays is of a monitor before; nothing more can be done.
            let _ = fs::remove_file(&self.since);
        }
    }

    /// Keeps a look: first what was seen, then since when, so that a kill in between makes what was seen
    /// older than it is, never younger.
    pub(super) fn write(&self, look: Option<&Look>, since: &Since) -> std::io::Result<()> {
        fail::point("outside.keep")?;
        if let Some(look) = look {
            let bytes = serde_json::to_vec(&Stored::of(look)).map_err(std::io::Error::other)?;
            write_atomic(&self.look, &bytes, Durability::Process)?;
        }
        let live: Vec<&str> = since.live.iter().map(AttemptId::as_str).collect();
        let since = serde_json::to_vec(&(since.at.as_ms(), live)).map_err(std::io::Error::other)?;
        write_atomic(&self.since, &since, Durability::Process)
    }
}

/// A look on disk.
#[derive(Debug, Serialize, Deserialize)]
struct Stored {
    head: String,
    refs: Vec<(String, String)>,
    paths: Vec<(String, String, String)>,
    /// Of our own refs, what had been found at branches of ours is among `refs`.
    #[serde(default)]
    has_salvage: bool,
    #[serde(default)]
    shared: Option<BTreeMap<String, String>>,
}

impl Stored {
    fn of(look: &Look) -> Self {
        let path = |(path, entry): (&String, &Entry)| {
            (path.clone(), entry.letters.clone(), entry.stamp.clone())
        };
        // Where our own refs are to stand is in the journal, but not what was found there.
        let foreign = look.refs.iter().filter(|(name, _)| !is_ours(name) || mend::is_found(name));
        Self {
            head: look.head.clone(),
            refs: foreign.map(|(name, at)| (name.clone(), at.clone())).collect(),
            paths: look.paths.iter().map(path).collect(),
            has_salvage: true,
            shared: look.shared.clone(),
        }
    }

    fn look(self) -> Look {
        let path = |(path, letters, stamp)| (path, Entry { letters, stamp });
        Look {
            head: self.head,
            refs: self.refs.into_iter().collect(),
            paths: self.paths.into_iter().map(path).collect(),
            shared: self.shared,
        }
    }
}

/// The thread's own.
pub struct Lookout {
    pub repo: Arc<Repo>,
    pub files: Files,
    pub answers: Sender<Input>,
    /// The last whole look; at first the one that was kept.
    last: Option<Look>,
    /// What had been found at branches of ours is in `last`.
    has_salvage: bool,
    /// `last` is of this thread.
    has_looked: bool,
    own_index: OwnIndex,
    /// In a row.
    failures: u32,
}

/// A look at the checkout that waits.
#[derive(Debug)]
struct Whole {
    /// The orders that it answers: from, up to.
    first: u64,
    last: u64,
    ignored: Vec<String>,
    since: Since,
}

/// What waits to be done.
#[derive(Debug, Default)]
struct Waiting {
    /// The last order of a look at our own refs alone.
    refs: Option<u64>,
    whole: Option<Whole>,
    landing: String,
    is_shared: bool,
    keep: Option<u64>,
}

/// A look that is due.
#[derive(Debug, PartialEq, Eq)]
struct Due {
    /// Every order up to this one is answered by it.
    number: u64,
    /// What is looked at beside our own refs, and since when.
    whole: Option<(Vec<String>, Since)>,
    landing: String,
}

impl Waiting {
    fn add(&mut self, order: Order) {
        match order {
            Order::Keep { number } => self.keep = Some(number),
            Order::Look { number, ignored, landing, is_shared, since } => {
                (self.landing, self.is_shared) = (landing, is_shared);
                match ignored {
                    None => self.refs = Some(number),
                    Some(ignored) => {
                        let first = self.whole.as_ref().map_or(number, |whole| whole.first);
                        self.whole = Some(Whole { first, last: number, ignored, since });
                    }
                }
            }
        }
    }

    /// Takes what is due; `may_look`: the checkout has rested.
    fn take(&mut self, may_look: bool) -> Option<Due> {
        let landing = self.landing.clone();
        if may_look && let Some(whole) = self.whole.take() {
            let number = self.refs.take().map_or(whole.last, |refs| refs.max(whole.last));
            return Some(Due { number, whole: Some((whole.ignored, whole.since)), landing });
        }
        let number = self.refs.take()?;
        let Some(whole) = &mut self.whole else {
            return Some(Due { number, whole: None, landing });
        };
        // The checkout is still owed, and then all is answered.
        whole.last = whole.last.max(number);
        Some(Due { number: number.min(whole.first - 1), whole: None, landing })
    }
}

impl Lookout {
    /// Makes one that compares with what was kept.
    pub fn new(repo: Arc<Repo>, files: Files, answers: Sender<Input>, kept: Option<Kept>) -> Self {
        let has_salvage = kept.as_ref().is_some_and(|kept| kept.has_salvage);
        let (last, own_index) = (kept.map(|kept| kept.look), files.own_index());
        let (has_looked, failures) = (false, 0);
        Self { repo, files, answers, last, has_salvage, has_looked, own_index, failures }
    }

    /// Serves until nobody can order any more.
    pub fn serve(mut self, orders: &Receiver<Order>) {
        let mut waiting = Waiting::default();
        let mut rest_until = monotonic();
        // The number of the last whole look, what is kept with it, and whether its like is kept.
        let mut newest: Option<(u64, Since)> = None;
        let mut is_kept = self.last.is_some();
        loop {
            if let Some(number) = waiting.keep.take()
                && let Some((_, since)) = newest.as_ref().filter(|(newest, _)| *newest == number)
            {
                let look = self.last.as_ref().filter(|_| !is_kept);
                // Kept the next time; until then a kill leaves the one before.
                is_kept = self.files.write(look, since).is_ok();
            }
            let now = monotonic();
            let rest = rest_until.saturating_duration_since(now);
            let is_alone = !waiting.is_shared && self.failures < FAILURES_MAX;
            if let Some(due) = waiting.take(is_alone || rest.is_zero()) {
                let (number, is_whole) = (due.number, due.whole.is_some());
                let answer = self.look(&due);
                if is_whole {
                    self.failures = if answer.is_ok() { 0 } else { self.failures + 1 };
                    rest_until = monotonic() + rest_after(now.elapsed(), self.failures);
                }
                if let (Ok(looked), Some((_, since))) = (&answer, due.whole) {
                    newest = Some((number, since));
                    is_kept &= looked.differences.is_empty() && looked.salvaged.is_empty();
                }
                let told =
                    self.answers.send(Input::Looked(Box::new(answer.map_err(|why| (number, why)))));
                if told.is_err() {
                    return;
                }
                continue;
            }
            let next = if waiting.whole.is_some() {
                orders.recv_timeout(rest)
            } else {
                orders.recv().map_err(|_| RecvTimeoutError::Disconnected)
            };
            match next {
                Ok(order) => {
                    waiting.add(order);
                    orders.try_iter().for_each(|order| waiting.add(order));
                }
                Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) => return,
            }
        }
    }

    fn look(&mut self, asked: &Due) -> Result<Looked, String> {
        let began = monotonic();
        let is_whole = asked.whole.is_some();
        let ignored = asked.whole.as_ref().map(|(ignored, _)| &ignored[..]).unwrap_or_default();
        let is_ours = |name: &str| is_ours(name) || name == asked.landing;
        let look = self.repo.look_outside(is_whole, ignored, Some(&mut self.own_index));
        let look = look.map_err(|error| super::work::Fault::from(error).0)?;
        let ended = monotonic();
        let mut differences = match (&self.last, is_whole) {
            (Some(last), true) => last.differences(&look),
            (Some(_), false) | (None, _) => Vec::new(),
        };
        let (mut ours, mut salvaged) = (Vec::new(), Vec::new());
        differences.retain(|found| match found {
            Difference::Ref { name, new, .. } if is_ours(name) => {
                ours.push((name.clone(), new.clone()));
                salvaged.extend(
                    new.clone().filter(|_| mend::is_found(name)).map(|at| (name.clone(), at)),
                );
                false
            }
            Difference::Ref { .. }
            | Difference::Head { .. }
            | Difference::Path { .. }
            | Difference::Shared { .. } => true,
        });
        let is_first = is_whole && !self.has_looked;
        if is_first && !self.has_salvage {
            salvaged.clear();
        }
        let are_all = is_first || !is_whole;
        if are_all {
            let all = look.refs.iter().filter(|(name, _)| is_ours(name));
            ours = all.map(|(name, at)| (name.clone(), Some(at.clone()))).collect();
        }
        if is_whole {
            self.last = Some(look);
            self.has_looked = true;
        }
        let more = differences.len().saturating_sub(TOLD_MAX) as u64;
        differences.truncate(TOLD_MAX);
        let number = asked.number;
        Ok(Looked {
            number,
            began,
            ended,
            is_whole,
            is_first,
            differences,
            more,
            ours,
            are_all,
            salvaged,
        })
    }
}

/// Returns how long the checkout rests after a look that took so long, the last of so many that failed.
fn rest_after(took: Duration, failures: u32) -> Duration {
    let shortest = match failures {
        0 => Duration::ZERO,
        1..FAILURES_MAX => REST_FAILED,
        FAILURES_MAX.. => REST_GIVEN_UP,
    };
    (took * REST_FACTOR).max(shortest)
}

/// Returns whether a ref is in our part.
pub fn is_ours(name: &str) -> bool {
    name.starts_with("refs/heads/pipeline/") || name.starts_with("refs/pipeline/")
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    fn order(number: u64, is_whole: bool) -> Order {
        let ignored = is_whole.then(Vec::new);
        let since = Since { at: Time::default(), live: BTreeSet::new() };
        Order::Look { number, ignored, landing: String::new(), is_shared: true, since }
    }

    #[test]
    fn a_damaged_look_or_time_is_none_and_the_next_one_is_kept() {
        let dir = tempfile::tempdir().expect("temporary folder");
        let files = Files::of(dir.path());
        let live = BTreeSet::from([AttemptId::new("A.impl.1"), AttemptId::new("B.test.12")]);
        let since = Since { at: Time::from_ms(1_795_215_600_500), live };
        let look = Look {
            head: "refs/heads/main".into(),
            refs: [("refs/heads/mine".into(), "a".repeat(40))].into(),
            paths: BTreeMap::new(),
            shared: None,
        };
        files.write(Some(&look), &since).expect("a folder of ours");
        for path in [&files.look, &files.since] {
            let whole = fs::read(path).expect("it is kept");
            let zeroed = vec![0; whole.len()];
            let cuts = (0..whole.len()).map(|cut| &whole[..cut]);
            for bytes in cuts.chain([&zeroed[..]]) {
                fs::write(path, bytes).expect("a file of ours");
                assert!(files.read().is_none(), "{} bytes of {}", bytes.len(), path.display());
            }
            files.write(Some(&look), &since).expect("a folder of ours");
            let kept = files.read().expect("it is whole again");
            assert_eq!((kept.since.at, kept.since.live), (since.at, since.live.clone()));
            assert_eq!(kept.look.refs, look.refs);
        }
    }

    #[test]
    fn rests_are_a_multiple_of_what_a_look_took_and_minutes_once_it_is_given_up() {
        let seconds = Duration::from_secs;
        assert_eq!(rest_after(seconds(2), 0), seconds(6));
        assert_eq!(rest_after(Duration::ZERO, 1), REST_FAILED);
        assert_eq!(rest_after(seconds(60), 1), seconds(180));
        assert_eq!(rest_after(seconds(60), FAILURES_MAX), REST_GIVEN_UP);
    }

    #[test]
    fn our_refs_are_looked_at_while_the_checkout_rests() {
        let mut waiting = Waiting::default();
        waiting.add(order(1, true));
        waiting.add(order(2, false));
        let due = |waiting: &mut Waiting, may_look| {
            waiting.take(may_look).map(|due| (due.number, due.whole.is_some()))
        };
        // The first order is still owed.
        assert_eq!(due(&mut waiting, false), Some((0, false)));
        assert_eq!(due(&mut waiting, false), None);
        waiting.add(order(3, true));
        assert_eq!(due(&mut waiting, true), Some((3, true)));
        waiting.add(order(4, false));
        assert_eq!(due(&mut waiting, false), Some((4, false)));
        assert_eq!(due(&mut waiting, true), None);
    }
}
