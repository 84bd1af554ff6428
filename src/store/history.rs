//! All records that are still there, for reading a log; the state is never made of this.

use std::path::Path;

use super::segment::{self, FlawKind, Scan, Whole};
use super::{Checkpoint, Record, StoreError, joint, line, recovery};

/// The records of all segments kept, with the state before the first of them.
#[derive(Debug)]
pub struct History {
    pub start: Checkpoint,
    /// In which the newest segment is written, and the one this program writes, where that is newer.
    pub older: Option<(u64, u64)>,
    /// In order, without a gap.
    pub records: Vec<Record>,
}

/// Reads the journal in `dir` from its oldest segment on, without the lock.
///
/// A torn end is left out. Cost: all of the journal.
///
/// # Errors
/// Damage in the middle, a newer format, or the file system's own.
pub fn history(dir: &Path) -> Result<History, StoreError> {
    let journal = dir.join("journal");
    let mut found: Option<History> = None;
    let segments = segment::list(&journal)?.segments;
    for &seq in &segments {
        let path = segment::path(&journal, seq);
        let bytes = segment::read(&path)?;
        let Whole { format, checkpoint, prev, scan: Scan { records, flaw, .. }, .. } =
            segment::scan(seq, bytes).map_err(|flaw| recovery::refuse(&path, flaw))?;
        if let Some(flaw) = flaw.filter(|flaw| !matches!(flaw.kind, FlawKind::Torn(_))) {
            return Err(recovery::refuse(&path, flaw));
        }
        if segments.last() == Some(&seq) {
            joint::check(&journal, &segments, prev)?;
        }
        let older = (format < line::FORMAT).then_some((format, line::FORMAT));
        match &mut found {
            Some(history) => {
                history.older = older;
                history.records.extend(records);
            }
            None => found = Some(History { start: checkpoint, older, records }),
        }
    }
    found.ok_or(StoreError::Missing { path: journal })
}
