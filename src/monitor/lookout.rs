//! The thread that looks at what is not the agents': one look at a time, at most a part of one core,
//! and the last one kept in a file, so that a monitor that comes after a kill can compare.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender};
use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};

use super::sources::Input;
use crate::git::{Difference, Entry, Look, Repo};
use crate::machine::time::Time;
use crate::sys::clock::{Clock, SystemClock, monotonic};
use crate::sys::fail;
use crate::sys::file::{Durability, read_bounded, write_atomic};

/// While attempts run, looks rest so many times as long as the last one took.
const REST_FACTOR: u32 = 3;
/// Longest rest.
const REST_MAX: Duration = Duration::from_secs(30);
/// Rest after a look that failed.
const REST_FAILED: Duration = Duration::from_secs(1);
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
        /// Attempts run, which are not to be slowed down.
        is_shared: bool,
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
    /// What differs from the whole look before, but for our own refs.
    pub differences: Vec<Difference>,
    /// Differences beyond those.
    pub more: u64,
    /// Our own refs and where they stand: all, or those that have changed since the look before.
    pub ours: Vec<(String, Option<String>)>,
    /// `ours` are all there are.
    pub are_all: bool,
}

/// The answer to an order.
pub type Answer = Result<Looked, (u64, String)>;

/// The last look that a monitor before this one kept, and when it began.
#[derive(Debug)]
pub struct Kept {
    pub look: Look,
    pub at: Time,
}

/// Where looks are kept.
#[derive(Debug, Clone)]
pub struct Files {
    look: PathBuf,
    at: PathBuf,
}

impl Files {
    /// Returns the files in the folder of the state.
    #[must_use]
    pub fn of(state_dir: &Path) -> Self {
        Self { look: state_dir.join("outside.json"), at: state_dir.join("outside.at") }
    }

    /// Reads what was kept; `None` when there is nothing that can be used.
    #[must_use]
    pub fn read(&self) -> Option<Kept> {
        let bytes = read_bounded(&self.look, KEPT_BYTES_MAX).ok()??;
        let stored: Stored = serde_json::from_slice(&bytes).ok()?;
        let at = fs::read_to_string(&self.at).ok()?.trim().parse().ok()?;
        Some(Kept { look: stored.look(), at: Time::from_ms(at) })
    }

    /// Keeps a look: first what was seen, then when, so that a kill in between makes what was seen
    /// older than it is, never younger.
    fn write(&self, look: Option<&Look>, at: Time) -> std::io::Result<()> {
        fail::point("outside.keep")?;
        if let Some(look) = look {
            let bytes = serde_json::to_vec(&Stored::of(look)).map_err(std::io::Error::other)?;
            write_atomic(&self.look, &bytes, Durability::Process)?;
        }
        write_atomic(&self.at, at.as_ms().to_string().as_bytes(), Durability::Process)
    }
}

/// A look on disk.
#[derive(Debug, Serialize, Deserialize)]
struct Stored {
    head: String,
    refs: Vec<(String, String)>,
    paths: Vec<(String, String, String)>,
}

impl Stored {
    fn of(look: &Look) -> Self {
        let path = |(path, entry): (&String, &Entry)| {
            (path.clone(), entry.letters.clone(), entry.stamp.clone())
        };
        // Where our own refs are to stand is in the journal.
        let foreign = look.refs.iter().filter(|(name, _)| !is_ours(name));
        Self {
            head: look.head.clone(),
            refs: foreign.map(|(name, at)| (name.clone(), at.clone())).collect(),
            paths: look.paths.iter().map(path).collect(),
        }
    }

    fn look(self) -> Look {
        let path = |(path, letters, stamp)| (path, Entry { letters, stamp });
        Look {
            head: self.head,
            refs: self.refs.into_iter().collect(),
            paths: self.paths.into_iter().map(path).collect(),
        }
    }
}

/// The thread's own.
pub struct Lookout {
    pub repo: Arc<Repo>,
    pub clock: SystemClock,
    pub files: Files,
    pub answers: Sender<Input>,
    /// The last whole look; at first the one that was kept.
    pub last: Option<Look>,
    /// `last` is of this thread.
    pub has_looked: bool,
}

/// What waits to be done.
#[derive(Debug, Default)]
struct Waiting {
    number: u64,
    ignored: Option<Vec<String>>,
    is_wanted: bool,
    is_shared: bool,
    keep: Option<u64>,
}

impl Waiting {
    fn add(&mut self, order: Order) {
        match order {
            Order::Keep { number } => self.keep = Some(number),
            Order::Look { number, ignored, is_shared } => {
                self.number = number;
                self.ignored = ignored.or(self.ignored.take());
                self.is_wanted = true;
                self.is_shared = is_shared;
            }
        }
    }
}

impl Lookout {
    /// Serves until nobody can order any more.
    pub fn serve(mut self, orders: &Receiver<Order>) {
        let mut waiting = Waiting::default();
        let mut rest_until = monotonic();
        // The number of the last whole look, when it began, and whether its like is kept.
        let mut newest: Option<(u64, Time)> = None;
        let mut is_kept = self.last.is_some();
        loop {
            if let Some(number) = waiting.keep.take()
                && let Some((_, at)) = newest.filter(|(newest, _)| *newest == number)
            {
                let look = self.last.as_ref().filter(|_| !is_kept);
                // Kept the next time; until then a kill leaves the one before.
                is_kept = self.files.write(look, at).is_ok();
            }
            let now = monotonic();
            let rest = rest_until.saturating_duration_since(now);
            if waiting.is_wanted && (!waiting.is_shared || rest.is_zero()) {
                let asked = std::mem::take(&mut waiting);
                let (at, number, is_whole) =
                    (self.clock.now(), asked.number, asked.ignored.is_some());
                let answer = self.look(&asked);
                let took = monotonic().duration_since(now);
                let rest =
                    if answer.is_ok() { (took * REST_FACTOR).min(REST_MAX) } else { REST_FAILED };
                rest_until = monotonic() + rest;
                if let (Ok(looked), true) = (&answer, is_whole) {
                    newest = Some((number, at));
                    is_kept &= looked.differences.is_empty();
                }
                let told =
                    self.answers.send(Input::Looked(Box::new(answer.map_err(|why| (number, why)))));
                if told.is_err() {
                    return;
                }
                continue;
            }
            let next = if waiting.is_wanted {
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

    fn look(&mut self, asked: &Waiting) -> Result<Looked, String> {
        let began = monotonic();
        let is_whole = asked.ignored.is_some();
        let ignored = asked.ignored.as_deref().unwrap_or_default();
        let look = self.repo.look_outside(is_whole, ignored);
        let look = look.map_err(|error| super::work::Fault::from(error).0)?;
        let ended = monotonic();
        let mut differences = match (&self.last, is_whole) {
            (Some(last), true) => last.differences(&look),
            (Some(_), false) | (None, _) => Vec::new(),
        };
        let mut ours = Vec::new();
        differences.retain(|found| match found {
            Difference::Ref { name, new, .. } if is_ours(name) => {
                ours.push((name.clone(), new.clone()));
                false
            }
            Difference::Ref { .. } | Difference::Head { .. } | Difference::Path { .. } => true,
        });
        let are_all = !self.has_looked || !is_whole;
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
        Ok(Looked { number, began, ended, is_whole, differences, more, ours, are_all })
    }
}

/// Returns whether a ref is in our part.
pub fn is_ours(name: &str) -> bool {
    name.starts_with("refs/heads/pipeline/") || name.starts_with("refs/pipeline/")
}
