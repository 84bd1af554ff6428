//! Mends a damaged journal, on request only; nothing is deleted.
//!
//! * Lines are found by their content, wherever they stand, and put in order by number and chain. The
//!   state is that of the checkpoint from which they reach furthest.
//! * A journal that does not load gets a new segment with that state, and is whole from its rename
//!   on. Its number is not below any that was ever shown, so that none is used for two records.
//! * Then what is damaged is set aside under a name of its own. Killed at any point, a repetition
//!   goes on from there.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::fmt;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::journal::FileStore;
use super::ledger::{Ledger, LedgerError, decode};
use super::line::{self, BadLine, Line};
use super::segment::{self, ASIDE, FlawKind, Scan, Whole};
use super::{Checkpoint, Json, Record, Store, StoreError, format, joint, view};
use crate::machine::time::Time;
use crate::machine::{State, apply};
use crate::sys::{fail, file};

/// The most damaged segments of one name that are kept.
const ASIDE_FILES_MAX: u32 = 1000;

/// One thing to be done, or done.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Mend {
    /// A new segment takes up where the readable records end.
    Restart {
        /// The last record that counts.
        last: u64,
        /// Its number in the new segment.
        seq: u64,
        /// Records that somebody was told of and that cannot be read, at the most.
        lost: u64,
    },
    /// A damaged segment gets another name.
    SetAside {
        /// The segment.
        path: PathBuf,
        /// Its new name.
        aside: PathBuf,
        /// What is wrong with it.
        found: String,
    },
    /// The last record was not written to its end: it is cut off and kept.
    Cut {
        /// The segment.
        path: PathBuf,
        /// Where the record starts, in bytes.
        offset: u64,
    },
}

impl fmt::Display for Mend {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Restart { last, seq, lost } => {
                write!(
                    f,
                    "begin a new segment at record {seq} with the state after record {last}"
                )?;
                match lost {
                    0 => f.write_str(" (nothing is lost)"),
                    1 => f.write_str(" (1 later record cannot be read and is lost)"),
                    lost => write!(f, " ({lost} later records cannot be read and are lost)"),
                }
            }
            Self::SetAside { path, aside, found } => {
                let (path, aside) = (path.display(), aside.display());
                write!(f, "set the damaged segment `{path}` aside as `{aside}` ({found})")
            }
            Self::Cut { path, offset } => {
                let path = path.display();
                write!(
                    f,
                    "cut the unfinished last record off `{path}` at byte {offset}, keeping it"
                )
            }
        }
    }
}

/// Returns what a repair of the journal in `dir` would do, in order; nothing is changed.
///
/// # Errors
/// Damage that cannot be mended, a newer format, no journal, or the file system's own.
pub fn plan(dir: &Path) -> Result<Vec<Mend>, LedgerError> {
    // What else there is to do shows when this is done.
    match stray(dir)? {
        Some(mend) => Ok(vec![mend]),
        None => Ok(examine(dir)?.mends),
    }
}

/// Mends the journal in `dir`, waiting `wait` for its lock; returns what was done. No monitor may run.
///
/// Loads the journal at the end.
///
/// # Errors
/// As [`plan`], and the lock's. A repetition goes on where an error stopped it.
pub fn repair(dir: &Path, wait: Duration) -> Result<Vec<Mend>, LedgerError> {
    let mut store = FileStore::open(dir, 0);
    store.lock(wait)?;
    let journal = dir.join("journal");
    let mut done: Vec<Mend> = stray(dir)?.into_iter().collect();
    set_aside(&journal, &done)?;
    let Examined { mends, fresh } = examine(dir)?;
    if let Some(checkpoint) = fresh {
        // What stands before it may be damaged or incomplete: it is not compared with that.
        let prepared = segment::prepare(&journal, &checkpoint, 0)?;
        segment::publish(&journal, prepared)?;
    }
    set_aside(&journal, &mends)?;
    done.extend(mends);
    // Under the lock this also cuts off an unfinished record.
    Ledger::open(store, "repair")?;
    Ok(done)
}

fn set_aside(journal: &Path, mends: &[Mend]) -> Result<(), StoreError> {
    for mend in mends {
        if let Mend::SetAside { path, aside, .. } = mend {
            fail::point("repair.aside")
                .and_then(|()| fs::rename(path, aside))
                .and_then(|()| file::sync_dir(journal))
                .map_err(StoreError::io("set aside", path))?;
        }
    }
    Ok(())
}

/// Finds which of the last two segments is not of this journal, where they do not fit: the one in
/// which the record is not that `state.json` shows; else the newest, where the other one follows the
/// one before; else an older one that is damaged itself.
///
/// # Errors
/// When nothing tells which it is: then a person must.
fn stray(dir: &Path) -> Result<Option<Mend>, LedgerError> {
    let journal = dir.join("journal");
    let segments = segment::list(&journal)?.segments;
    let [earlier @ .., older, newest] = segments.as_slice() else { return Ok(None) };
    let (older_path, newest_path) =
        (segment::path(&journal, *older), segment::path(&journal, *newest));
    let Some(Ok(last)) = scanned(&newest_path, *newest) else { return Ok(None) };
    let Some(misfit) = joint::misfit(&older_path, last.prev) else { return Ok(None) };
    let before = match scanned(&older_path, *older) {
        Some(Err(FlawKind::Newer(_))) => return Ok(None),
        Some(Ok(before)) => Some(before),
        Some(Err(FlawKind::Torn(_) | FlawKind::Damaged(_))) | None => None,
    };
    let shown = view::read_seq(dir).unwrap_or(0);
    let is_in_newest = (*newest..=last.scan.end.seq).contains(&shown);
    let is_in_older = shown > 0 && (*older..=misfit.last).contains(&shown);
    let path = match (is_in_newest, is_in_older) {
        (true, false) => older_path,
        (false, true) => newest_path,
        (true, true) | (false, false) => match (before, earlier.last()) {
            (Some(before), Some(first))
                if before.prev != 0
                    && joint::misfit(&segment::path(&journal, *first), before.prev).is_none() =>
            {
                newest_path
            }
            (Some(_), _) => return Err(joint::refusal(&newest_path, &misfit).into()),
            (None, _) => older_path,
        },
    };
    let aside = aside(&path)?;
    Ok(Some(Mend::SetAside { path, aside, found: misfit.found() }))
}

/// Reads a segment that may have an unfinished end, but no other flaw; `None` when it cannot be read.
fn scanned(path: &Path, seq: u64) -> Option<Result<Whole, FlawKind>> {
    let bytes = segment::read(path).ok()?;
    Some(match segment::scan(seq, bytes) {
        Ok(Whole { scan: Scan { flaw: Some(flaw), .. }, .. })
            if !matches!(flaw.kind, FlawKind::Torn(_)) =>
        {
            Err(flaw.kind)
        }
        Ok(whole) => Ok(whole),
        Err(flaw) => Err(flaw.kind),
    })
}

struct Examined {
    mends: Vec<Mend>,
    /// A new segment's checkpoint.
    fresh: Option<Checkpoint>,
}

fn examine(dir: &Path) -> Result<Examined, LedgerError> {
    let journal = dir.join("journal");
    let mut segments = segment::list(&journal)?.segments;
    segments.dedup();
    let mut found = Found { segments: segments.iter().copied().collect(), ..Found::default() };
    let mut flawed = Vec::new();
    for &seq in &segments {
        let path = segment::path(&journal, seq);
        if let Some((why, flaw)) = look(&path, seq, &mut found)? {
            flawed.push((path, why, flaw));
        }
    }
    let refused = match Ledger::open(FileStore::open(dir, 0), "repair") {
        Ok(_) => None,
        Err(LedgerError::Store(error @ StoreError::Damaged { .. })) => Some(error),
        Err(error) => return Err(error),
    };
    let (mut mends, mut fresh) = (Vec::new(), None);
    let newest = segments.last().map(|seq| segment::path(&journal, *seq));
    if let Some(error) = refused {
        let shown = view::read_seq(dir).unwrap_or(0);
        let (mend, made) = found.restart(shown)?.ok_or(error)?;
        mends.push(mend);
        fresh = Some(made);
    }
    for (path, found, flaw) in flawed {
        let is_cut = fresh.is_none() && Some(&path) == newest.as_ref();
        if let (true, Some(offset)) = (is_cut, flaw) {
            mends.push(Mend::Cut { path, offset });
            continue;
        }
        let aside = aside(&path)?;
        mends.push(Mend::SetAside { path, aside, found });
    }
    Ok(Examined { mends, fresh })
}

/// Collects the lines of a segment; returns what is wrong with it, and where its last record starts
/// when that is merely unfinished.
fn look(
    path: &Path,
    seq: u64,
    found: &mut Found,
) -> Result<Option<(String, Option<u64>)>, StoreError> {
    let bytes = match segment::read(path) {
        Ok(bytes) => bytes,
        Err(StoreError::Damaged { found, .. }) => return Ok(Some((found, None))),
        Err(error) => return Err(error),
    };
    found.collect(&bytes).map_err(|version| StoreError::Newer {
        path: path.into(),
        found: version,
        supported: line::FORMAT,
    })?;
    let flaw = match segment::scan(seq, bytes) {
        Ok(Whole { format, scan: Scan { flaw: None, records, .. }, .. }) => {
            if format < line::FORMAT && records.is_empty() {
                found.taken_over.insert(seq);
            }
            return Ok(None);
        }
        Ok(Whole { scan: Scan { flaw: Some(flaw), .. }, .. }) | Err(flaw) => flaw,
    };
    let place = format!("line {} at byte {}", flaw.line, flaw.offset);
    match flaw.kind {
        FlawKind::Torn(why) => Ok(Some((format!("{place}: {why}"), Some(flaw.offset)))),
        FlawKind::Damaged(why) => Ok(Some((format!("{place}: {why}"), None))),
        FlawKind::Newer(version) => {
            let (path, supported) = (path.into(), line::FORMAT);
            Err(StoreError::Newer { path, found: version, supported })
        }
    }
}

/// Returns a name that is free for the damaged segment at `path`.
fn aside(path: &Path) -> Result<PathBuf, StoreError> {
    let stem = path.file_stem().unwrap_or_default().to_string_lossy();
    let mut names =
        (1..=ASIDE_FILES_MAX).map(|n| path.with_file_name(format!("{ASIDE}{stem}-{n}")));
    let free = names.find(|path| fs::symlink_metadata(path).is_err());
    free.ok_or_else(|| {
        let why = io::Error::other(format!("{ASIDE_FILES_MAX} of that name are there already"));
        StoreError::io("set aside", path)(why)
    })
}

/// A record with its place in the chain.
struct Link {
    record: Record,
    prev: u64,
    sum: u64,
}

/// All whole lines of a journal, wherever they stood.
#[derive(Default)]
struct Found {
    /// Numbers of the segments, by their names.
    segments: BTreeSet<u64>,
    /// Whole segments of an older format without a record: taken over, the journal goes on in the
    /// segment of the next number, which is no record's.
    taken_over: BTreeSet<u64>,
    /// With their checksums, by number.
    checkpoints: BTreeMap<u64, (Checkpoint, u64)>,
    records: HashMap<u64, Vec<Link>>,
}

impl Found {
    /// Takes all whole lines; the error is the number of a newer format.
    fn collect(&mut self, bytes: &[u8]) -> Result<(), u64> {
        for text in bytes.split(|byte| *byte == b'\n') {
            match line::read(text) {
                Ok(line) => self.take(text, line),
                Err(BadLine::Newer(version)) => return Err(version),
                Err(BadLine::Damaged(_)) => self.dig(text),
            }
        }
        Ok(())
    }

    /// Takes the whole lines within a stretch that is not one itself.
    fn dig(&mut self, text: &[u8]) {
        let start: &[u8] = br#"{"v":"#;
        let mut at = 0;
        while let Some(rest) = text.get(at..) {
            let next = rest.windows(start.len()).position(|part| part == start);
            let Some(next) = next else { return };
            at += next;
            match line::whole_prefix(&text[at..]) {
                Some((length, line)) => {
                    self.take(&text[at..at + length], line);
                    at += length;
                }
                None => at += start.len(),
            }
        }
    }

    fn take(&mut self, text: &[u8], line: Line) {
        let Line { format: _, seq, time, actor, value, prev, sum } = line;
        let Some(json) = Json::from_verified(text[..value.end].to_vec(), value.start) else {
            return;
        };
        match actor {
            None => {
                self.checkpoints.insert(seq, (Checkpoint { seq, time, state: json }, sum));
            }
            Some(actor) => {
                let record = Record { seq, time, actor, changes: json };
                let links = self.records.entry(seq).or_default();
                if links.iter().all(|link| link.sum != sum) {
                    links.push(Link { record, prev, sum });
                }
            }
        }
    }

    /// Returns the record after the one numbered `seq` with checksum `sum`.
    fn next(&self, seq: u64, sum: u64) -> Option<&Link> {
        let number = seq.checked_add(1)?;
        let Some(links) = self.records.get(&number) else {
            let is_passed = self.taken_over.contains(&seq) && self.segments.contains(&number);
            return if is_passed { self.next(number, 0) } else { None };
        };
        let after = |sum: u64| links.iter().find(|link| link.prev == sum);
        let checkpoint = self.checkpoints.get(&seq).and_then(|(_, sum)| after(*sum));
        // A segment began here whose checkpoint is damaged: its checksum is not known.
        let is_alone = links.len() == 1 && self.segments.contains(&seq);
        after(sum).or(checkpoint).or_else(|| links.first().filter(|_| is_alone))
    }

    /// Returns the chain of records from a checkpoint on.
    fn chain(&self, seq: u64, sum: u64) -> Vec<&Link> {
        let first = self.next(seq, sum);
        std::iter::successors(first, |link| self.next(link.record.seq, link.sum)).collect()
    }

    /// Returns the new start of the journal; `None` when no checkpoint is left. `shown` is what
    /// `state.json` shows as acknowledged.
    fn restart(&self, shown: u64) -> Result<Option<(Mend, Checkpoint)>, LedgerError> {
        let reach = |seq: u64, sum: u64| {
            let chain = self.chain(seq, sum);
            (chain.last().map_or(seq, |link| link.record.seq), chain)
        };
        let chains = self.checkpoints.values().map(|(from, sum)| (from, reach(from.seq, *sum)));
        // Of those that reach as far, the last one: the newest checkpoint.
        let best = chains.max_by_key(|(_, (last, _))| *last);
        let Some((from, (last, chain))) = best else { return Ok(None) };
        let known = [shown, self.highest(), last].into_iter().max().unwrap_or(last);
        let newest = self.segments.last().copied().unwrap_or(0);
        let seq = if known > newest { known } else { newest.saturating_add(1) };
        let (mut state, mut time) = (state_of(from)?, from.time);
        for link in &chain {
            for change in &decode(&link.record)? {
                apply(&mut state, change);
            }
            time = link.record.time;
        }
        let checkpoint = checkpoint(seq, time, &state)?;
        Ok(Some((Mend::Restart { last, seq, lost: known - last }, checkpoint)))
    }

    /// Returns the highest number that any line bears, or a segment.
    fn highest(&self) -> u64 {
        let records = self.records.keys().max().copied();
        let checkpoints = self.checkpoints.keys().next_back().copied();
        let segments = self.segments.last().copied();
        [records, checkpoints, segments].into_iter().flatten().max().unwrap_or(0)
    }
}

fn state_of(checkpoint: &Checkpoint) -> Result<State, LedgerError> {
    format::decode_state_text(checkpoint.state.get())
        .map_err(|source| LedgerError::Format { seq: checkpoint.seq, source })
}

fn checkpoint(seq: u64, time: Time, state: &State) -> Result<Checkpoint, LedgerError> {
    let state = Json::of(&format::state_value(state))
        .map_err(|source| LedgerError::Encode { seq, source })?;
    Ok(Checkpoint { seq, time, state })
}
