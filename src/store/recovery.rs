//! What is put right in a journal that a crash left behind, and what must not be.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use crate::sys::{fail, file};

use super::segment::{Flaw, FlawKind, Position};
use super::{StoreError, line, view};

/// The most cut-off ends that are kept aside for one record.
const ASIDE_FILES_MAX: u32 = 1000;

/// The highest record that somebody was told of: a journal that ends before it is damaged.
#[derive(Debug, Clone, Copy)]
pub(super) struct Acknowledged {
    /// As our own process and the keepers know.
    known: u64,
    /// As the head of `state.json` says; not verified, for that reads the whole file.
    peeked: Option<u64>,
}

impl Acknowledged {
    /// Reads the view's claim; must happen before the journal is read, which is ahead of the view.
    pub(super) fn peek(known: u64, dir: &Path) -> Self {
        Self { known, peeked: view::peek_seq(dir) }
    }

    /// Returns the highest record acknowledged beyond `last`; `None` when there is none.
    pub(super) fn beyond(self, last: u64, dir: &Path) -> Option<u64> {
        // Only an intact view counts, and it may have moved on since the peek.
        let claim = self.peeked.filter(|peeked| *peeked > last);
        let claim = claim.filter(|peeked| view::read_seq(dir).is_some_and(|seq| seq >= *peeked));
        Some(self.known.max(claim.unwrap_or(0))).filter(|seq| *seq > last)
    }
}

/// Makes the error of a flaw that is not to be put right.
pub(super) fn refuse(path: &Path, flaw: Flaw) -> StoreError {
    let path = path.to_path_buf();
    let Flaw { line, offset, kind } = flaw;
    match kind {
        FlawKind::Torn(found) | FlawKind::Damaged(found) => {
            StoreError::Damaged { path, line, offset, found }
        }
        FlawKind::Newer(found) => StoreError::Newer { path, found, supported: line::FORMAT },
    }
}

/// Cuts off what follows `end` in the segment at `path`, keeping it aside; returns a warning.
///
/// Killed at any point, a repetition does the same: the segment is cut only when the copy is synced.
pub(super) fn cut_torn(path: &Path, end: Position, found: &str) -> Result<String, StoreError> {
    let attempt = "cut off the unfinished last record of journal";
    let cut = || -> io::Result<(PathBuf, u64)> {
        let segment = OpenOptions::new().read(true).write(true).open(path)?;
        let length = segment.metadata()?.len().saturating_sub(end.offset);
        let mut torn = vec![0; usize::try_from(length).map_err(io::Error::other)?];
        segment.read_exact_at(&mut torn, end.offset)?;
        let dir = path.parent().ok_or_else(|| io::Error::other("a journal at the root"))?;
        let (aside, mut copy) = create_aside(dir, end.seq.saturating_add(1))?;
        fail::point("torn.write")?;
        copy.write_all(&torn)?;
        fail::point("torn.sync")?;
        copy.sync_all()?;
        file::sync_dir(dir)?;
        fail::point("torn.cut")?;
        segment.set_len(end.offset)?;
        fail::point("torn.cut.sync")?;
        segment.sync_data()?;
        Ok((aside, length))
    };
    let (aside, length) = cut().map_err(StoreError::io(attempt, path))?;
    let Position { lines, offset, seq, .. } = end;
    Ok(format!(
        "record {} was unfinished ({found}) and never acknowledged: cut {length} bytes off `{}` at \
         line {} (byte {offset}) and kept them in `{}`",
        seq.saturating_add(1),
        path.display(),
        lines + 1,
        aside.display()
    ))
}

/// Makes a new file for the remains of record `seq`.
fn create_aside(dir: &Path, seq: u64) -> io::Result<(PathBuf, File)> {
    for n in 1..=ASIDE_FILES_MAX {
        let path = dir.join(format!("torn-{seq}-{n}"));
        match OpenOptions::new().write(true).create_new(true).open(&path) {
            Ok(file) => return Ok((path, file)),
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
            Err(error) => return Err(error),
        }
    }
    Err(io::Error::other(format!(
        "{ASIDE_FILES_MAX} cut-off ends of record {seq} are there already"
    )))
}

/// Deletes files that a crash left before their rename; only under the lock, so none is in use.
pub(super) fn sweep(temps: &[PathBuf]) {
    for temp in temps {
        // One that stays costs space only, and the next lock holder tries again.
        let _ = fs::remove_file(temp);
    }
}
