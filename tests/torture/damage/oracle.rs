//! What may become of a damaged journal, and nothing else.

use std::collections::{BTreeMap, HashSet};
use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::time::Duration;

use pipeline::cli::error::Error;
use pipeline::store::journal::FileStore;
use pipeline::store::ledger::{Ledger, LedgerError};
use pipeline::store::repair::{Mend, plan, repair};
use pipeline::store::{Store, StoreError};

use super::sample::{Files, Sample, VIEW, text};

/// Length of a line's last two fields with the line feed: what tells which line it follows.
const LINE_END_BYTES: usize = 53;

/// What is said of two segments that do not fit.
const MISFIT: &str = "one of the two is not of this journal";

const WAIT: Duration = Duration::from_secs(10);

/// What stands in the place of a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Put {
    Folder,
    /// A link to nothing.
    Dangling,
    /// A link to the file itself, elsewhere.
    Link,
    Pipe,
    Unreadable,
}

/// A damaged state folder.
pub(super) struct Case {
    /// What is counted.
    pub(super) kind: &'static str,
    pub(super) name: String,
    pub(super) files: Files,
    pub(super) put: Option<(String, Put)>,
}

impl Case {
    pub(super) fn new(kind: &'static str, name: String, files: Files) -> Self {
        Self { kind, name, files, put: None }
    }

    /// Returns the record that the view shows as acknowledged.
    fn shown(&self, sample: &Sample) -> u64 {
        let is_whole = self.files.get(VIEW) == Some(&sample.files[VIEW]);
        let is_there = self.put.as_ref().is_none_or(|(place, _)| place != VIEW);
        if is_whole && is_there { sample.last } else { 0 }
    }

    /// Returns true when nothing shows that records are gone: the newest segment ends early, or in
    /// zeros as a power cut leaves them of a write, with less behind them than the end of a line.
    fn is_shorter(&self, sample: &Sample) -> bool {
        let (newest, whole) = (self.files.get(&sample.newest), &sample.files[&sample.newest]);
        newest.is_none_or(|bytes| {
            let common = bytes.iter().zip(whole).take_while(|(a, b)| a == b).count();
            let zeros = bytes[common..].iter().take_while(|byte| **byte == 0).count();
            bytes.len() - common - zeros < LINE_END_BYTES
        })
    }
}

/// A folder, preferably in memory, where each case is laid out.
pub(super) struct Place {
    dir: tempfile::TempDir,
}

/// All below a folder: content, or what else stands there.
type Seen = BTreeMap<PathBuf, Vec<u8>>;

impl Place {
    pub(super) fn new() -> Self {
        let memory = Path::new("/dev/shm");
        let mut builder = tempfile::Builder::new();
        let dir = builder.prefix("damage-");
        let dir = if memory.is_dir() { dir.tempdir_in(memory) } else { dir.tempdir() };
        Self { dir: dir.expect("temporary folder") }
    }

    fn state(&self) -> PathBuf {
        self.dir.path().join("state")
    }

    /// Lays the case out; false where this user may read everything, so that it is no case.
    fn lay_out(&self, case: &Case) -> bool {
        let state = self.state();
        let elsewhere = self.dir.path().join("elsewhere");
        for dir in [&state, &elsewhere] {
            if dir.is_dir() {
                fs::remove_dir_all(dir).expect("it is ours");
            }
            fs::create_dir(dir).expect("a folder");
        }
        fs::create_dir(state.join("journal")).expect("a folder");
        for (name, bytes) in &case.files {
            fs::write(state.join(name), bytes).expect("a file");
        }
        let Some((name, put)) = &case.put else { return true };
        let path = state.join(name);
        if *put == Put::Unreadable {
            if !path.exists() {
                return false;
            }
            let mode = fs::Permissions::from_mode(0o000);
            fs::set_permissions(&path, mode).expect("it is ours");
            let is_closed = fs::read(&path).is_err() && fs::read_dir(&path).is_err();
            let mode = fs::Permissions::from_mode(if is_closed { 0o000 } else { 0o700 });
            fs::set_permissions(&path, mode).expect("it is ours");
            return is_closed;
        }
        let away = elsewhere.join("it");
        if path.exists() {
            fs::rename(&path, &away).expect("it moves");
        }
        match put {
            Put::Folder if name == "journal" => fs::write(&path, "a file").expect("a file"),
            Put::Folder => fs::create_dir(&path).expect("a folder"),
            Put::Dangling => symlink(elsewhere.join("nothing"), &path).expect("a link"),
            Put::Link => symlink(&away, &path).expect("a link"),
            Put::Pipe | Put::Unreadable => {
                let (dir, mode) = (rustix::fs::CWD, rustix::fs::Mode::from_raw_mode(0o600));
                let kind = rustix::fs::FileType::Fifo;
                rustix::fs::mknodat(dir, &path, kind, mode, 0).expect("a pipe");
            }
        }
        true
    }

    /// Loads without and with the lock, and repairs what was refused; tells what became of it.
    pub(super) fn check(
        &self,
        sample: &Sample,
        case: &Case,
        is_repaired: bool,
    ) -> Result<&'static str, String> {
        if !self.lay_out(case) {
            return Ok("not applicable");
        }
        let state = self.state();
        let before = see(&state);
        let reader = Ledger::open(FileStore::open(&state, 0), "test");
        same(&before, &see(&state), "a reader")?;
        let planned = is_repaired.then(|| plan(&state));
        same(&before, &see(&state), "a plan")?;
        let mut store = FileStore::open(&state, 0);
        if let Err(error) = store.lock(WAIT) {
            return Err(format!("cannot lock: {error}"));
        }
        let writer = Ledger::open(store, "test");
        match (reader, writer) {
            (Ok((reader, _)), Ok((ledger, warnings))) => {
                if (reader.seq(), text(reader.state())) != (ledger.seq(), text(ledger.state())) {
                    return Err("reader and writer see two states".into());
                }
                let (seq, state) = (ledger.seq(), text(ledger.state()));
                drop(ledger);
                self.loaded(sample, case, (seq, state), &warnings)?;
                if is_repaired {
                    self.mended(sample, case, &before)?;
                }
                Ok(if warnings.is_empty() { "loaded" } else { "loaded, the last record cut" })
            }
            (Err(error), Err(again)) => {
                same(&before, &see(&state), "a refused load")?;
                if error.to_string() != again.to_string() {
                    return Err(format!("reader: {error}; writer: {again}"));
                }
                self.refused(sample, case, &error)?;
                is_told(again)?;
                if is_newer(&error)
                    || planned.is_some_and(|planned| planned.is_err_and(|error| is_newer(&error)))
                {
                    let answer = repair(&state, WAIT);
                    same(&before, &see(&state), "a repair of a newer format")?;
                    let is_refused = answer.is_err_and(|error| is_newer(&error));
                    return if is_refused { Ok("newer") } else { Err("it was repaired".into()) };
                }
                if is_repaired {
                    self.mended(sample, case, &before)?;
                }
                Ok("refused")
            }
            (Ok(_), Err(error)) => Err(format!("only the writer is refused: {error}")),
            (Err(error), Ok(_)) => Err(format!("only the reader is refused: {error}")),
        }
    }

    fn loaded(
        &self,
        sample: &Sample,
        case: &Case,
        (seq, state): (u64, String),
        warnings: &[String],
    ) -> Result<(), String> {
        if sample.states.get(seq as usize) != Some(&state) {
            return Err(format!("the state is none after record {seq}"));
        }
        if seq < case.shown(sample) {
            return Err(format!("record {} was acknowledged, loaded was {seq}", sample.last));
        }
        let lost = sample.last - seq;
        if lost > 1 && !case.is_shorter(sample) {
            return Err(format!("{lost} records are cut off"));
        }
        if lost == 1 && !case.is_shorter(sample) && warnings.is_empty() {
            return Err("a record is cut off in silence".into());
        }
        for warning in warnings {
            let kept = warning.rsplit('`').nth(1).map(fs::read);
            let Some(Ok(kept)) = kept else { return Err(format!("not kept: {warning}")) };
            let mut whole = fs::read(self.state().join(&sample.newest)).unwrap_or_default();
            whole.extend(kept);
            if case.files.get(&sample.newest) != Some(&whole) {
                return Err("what was cut off is not what is kept".into());
            }
        }
        Ok(())
    }

    /// A refusal names the place: the file, and the first line that is not as it was written.
    fn refused(&self, sample: &Sample, case: &Case, error: &LedgerError) -> Result<(), String> {
        let LedgerError::Store(store) = error else { return Err(format!("refused: {error}")) };
        let is_unreadable = matches!(case.put, Some((_, Put::Unreadable)));
        let path = match store {
            StoreError::Damaged { path, .. }
            | StoreError::Newer { path, .. }
            | StoreError::Older { path, .. } => path,
            StoreError::Io { path, .. } if is_unreadable => path,
            StoreError::Missing { path } if case.files.is_empty() => path,
            other => return Err(format!("refused for another reason: {other}")),
        };
        if !path.starts_with(self.state()) {
            return Err(format!("`{}` is elsewhere", path.display()));
        }
        let Some((name, line, offset)) = first_damage(sample, case) else { return Ok(()) };
        let place = match store {
            StoreError::Damaged { line, offset, .. } => (*line, *offset),
            // The file alone is told then.
            _ => (line, offset),
        };
        if (path, place) == (&self.state().join(&name), (line, offset)) {
            return Ok(());
        }
        Err(format!("refused: {error}; damaged is `{name}`, line {line} (byte {offset})"))
    }

    /// Repairs, and checks that all that is whole counts and that every damaged byte is kept.
    fn mended(&self, sample: &Sample, case: &Case, before: &Seen) -> Result<(), String> {
        let state = self.state();
        let least = least(sample, case);
        let here = see(&state);
        let mends = match repair(&state, WAIT) {
            Ok(mends) => mends,
            Err(LedgerError::Store(StoreError::Newer { .. })) => {
                return same(&here, &see(&state), "a refused repair");
            }
            Err(error) if least.is_none() => {
                same(&here, &see(&state), "a refused repair")?;
                return self.refused(sample, case, &error);
            }
            Err(_) if matches!(case.put, Some((_, Put::Unreadable))) => return Ok(()),
            // Two segments that do not fit, and no view: which of them it is, a person must say.
            Err(error) if case.shown(sample) == 0 && error.to_string().contains(MISFIT) => {
                return same(&here, &see(&state), "a refused repair");
            }
            Err(error) => return Err(format!("not repaired: {error}")),
        };
        let (ledger, _) = Ledger::open(FileStore::open(&state, 0), "test")
            .map_err(|error| format!("not loaded after a repair: {error}"))?;
        let restart = mends.iter().find_map(|mend| match mend {
            Mend::Restart { last, .. } => Some(*last),
            Mend::SetAside { .. } | Mend::Cut { .. } => None,
        });
        let last = restart.unwrap_or(ledger.seq());
        if sample.states.get(last as usize) != Some(&text(ledger.state())) {
            return Err(format!("the repaired state is none after record {last}: {mends:?}"));
        }
        if least.is_some_and(|least| last < least) {
            return Err(format!("repaired up to {last}, whole up to {least:?}: {mends:?}"));
        }
        if ledger.seq() < case.shown(sample) {
            return Err(format!("{} comes after the acknowledged ones", ledger.seq()));
        }
        let after = see(&state);
        let kept: HashSet<&[u8]> = after.values().map(Vec::as_slice).collect();
        for (path, bytes) in before {
            let is_cut =
                || after.get(path).is_some_and(|now| !bytes.is_empty() && bytes.starts_with(now));
            let is_swept = path.extension().is_some_and(|it| it == "tmp");
            if !is_swept && !kept.contains(bytes.as_slice()) && !is_cut() {
                return Err(format!("`{}` is not kept: {mends:?}", path.display()));
            }
        }
        match plan(&state) {
            Ok(rest) if rest.is_empty() => Ok(()),
            rest => Err(format!("a repair leaves something to repair: {rest:?}")),
        }
    }
}

/// Returns the file that the state is read from, and number and place of its first line that is not as
/// it was written; `None` where no line is known: what stands there is no file, or nothing does.
fn first_damage(sample: &Sample, case: &Case) -> Option<(String, u64, u64)> {
    let is_of_journal = |name: &&String| *name != VIEW && is_segment(name);
    let name = case.files.keys().rfind(is_of_journal).filter(|_| case.put.is_none())?;
    let (bytes, whole) = (&case.files[name], sample.files.get(name));
    let common = |whole: &Vec<u8>| bytes.iter().zip(whole).take_while(|(a, b)| a == b).count();
    let start = match whole {
        // What is damaged is the one before, which this one does not follow.
        Some(whole) if bytes == whole && *name == sample.newest => 0,
        Some(whole) => common(whole),
        // Another's: it does not follow the one before.
        None => 0,
    };
    let before = &bytes[..start];
    let line = before.iter().filter(|byte| **byte == b'\n').count() + 1;
    let offset = before.iter().rposition(|byte| *byte == b'\n').map_or(0, |feed| feed + 1);
    Some((name.clone(), line as u64, offset as u64))
}

/// Looks that the command that meets the error says what to do, and on which file.
fn is_told(error: LedgerError) -> Result<(), String> {
    let (text, told) = (error.to_string(), Error::from(error));
    let is_whole = told.message.contains(&text) && told.path.is_some();
    let has_hint = told.hints.iter().any(|hint| !hint.trim().is_empty());
    if is_whole && has_hint { Ok(()) } else { Err(format!("no hint, or no place: {told:?}")) }
}

/// Whether a name is one that would be read: others are of no account.
fn is_segment(name: &str) -> bool {
    let digits = name.trim_start_matches("journal/").strip_suffix(".ndjson");
    digits.is_some_and(|it| it.len() == 20 && it.bytes().all(|byte| byte.is_ascii_digit()))
}

fn is_newer(error: &LedgerError) -> bool {
    matches!(error, LedgerError::Store(StoreError::Newer { .. }))
}

/// Returns up to which record the journal is whole, from any checkpoint on, by a simple look.
fn least(sample: &Sample, case: &Case) -> Option<u64> {
    let is_there = |name: &String| {
        case.put.as_ref().is_none_or(|(place, _)| place != name && place != "journal")
    };
    let segments = case.files.iter().filter(|(name, _)| *name != VIEW && is_there(name));
    let segments = segments.filter(|(name, _)| is_segment(name));
    let found: HashSet<&[u8]> =
        segments.flat_map(|(_, bytes)| bytes.split_inclusive(|byte| *byte == b'\n')).collect();
    let mut best = None;
    for (_, whole) in sample.segments() {
        let mut lines = whole.split_inclusive(|byte| *byte == b'\n');
        if lines.next().is_some_and(|line| found.contains(line)) {
            let base =
                if std::ptr::eq(whole, &sample.files[&sample.newest]) { sample.base } else { 0 };
            let count = lines.take_while(|line| found.contains(line)).count() as u64;
            best = best.max(Some(base + count));
        }
    }
    best
}

fn same(before: &Seen, after: &Seen, who: &str) -> Result<(), String> {
    // Taking the lock makes its file.
    let without = |seen: &Seen| -> Seen {
        seen.iter()
            .filter(|(path, _)| !path.ends_with("lock"))
            .map(|it| (it.0.clone(), it.1.clone()))
            .collect()
    };
    if without(before) == without(after) { Ok(()) } else { Err(format!("{who} changed files")) }
}

fn see(dir: &Path) -> Seen {
    let mut seen = Seen::new();
    for entry in walkdir::WalkDir::new(dir).min_depth(1).into_iter().flatten() {
        let path = entry.into_path();
        let meta = fs::symlink_metadata(&path).expect("it is there");
        let content = if meta.is_file() {
            fs::read(&path).unwrap_or_else(|_| b"(unreadable)".to_vec())
        } else {
            format!("({:?})", meta.file_type()).into_bytes()
        };
        seen.insert(path, content);
    }
    seen
}
