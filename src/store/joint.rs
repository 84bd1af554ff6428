//! Where one segment ends and the next begins.
//!
//! A segment's checkpoint names the checksum of the last record of the segment before. Where both
//! lines are whole and do not fit, one of the two files is not of this journal, or has lost its end.
//! A checkpoint that names 0 begins a journal, or stands where one was repaired: it follows nothing.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use super::segment;
use super::{StoreError, line};

/// What is read of a segment's end at first, in bytes: more than most records.
const BLOCK_BYTES: u64 = 16 * 1024;

/// Two segments that do not fit.
#[derive(Debug)]
pub(super) struct Misfit {
    /// The one before.
    pub(super) older: PathBuf,
    /// The number of its last line.
    pub(super) last: u64,
    sum: u64,
    prev: u64,
}

impl Misfit {
    /// What is told of it.
    pub(super) fn found(&self) -> String {
        let Self { older, last, sum, prev } = self;
        format!(
            "it follows checksum {prev:016x}, but `{}` before it ends in record {last} with {sum:016x}",
            older.display()
        )
    }
}

/// Compares the newest of `segments`, whose checkpoint follows the checksum `prev`, with the one
/// before it.
///
/// # Errors
/// [`StoreError::Damaged`] when they do not fit.
pub(super) fn check(journal: &Path, segments: &[u64], prev: u64) -> Result<(), StoreError> {
    let [.., older, newest] = segments else { return Ok(()) };
    let Some(misfit) = misfit(&segment::path(journal, *older), prev) else { return Ok(()) };
    Err(refusal(&segment::path(journal, *newest), &misfit))
}

/// Makes the error of the segment at `newest`, which does not follow the one before it. It names the
/// remedy, since a repair cannot always tell which of the two is right.
pub(super) fn refusal(newest: &Path, misfit: &Misfit) -> StoreError {
    let found = format!(
        "{}; one of the two is not of this journal, or was cut: move that one to another folder",
        misfit.found()
    );
    StoreError::Damaged { path: newest.into(), line: 1, offset: 0, found }
}

/// Compares the checksum `prev` with the last line of the segment at `older`, of which it reads no
/// more; `None` when they fit, or when there is nothing whole to compare with.
///
/// What cannot be read there is for `doctor` to tell: the state does not depend on it.
pub(super) fn misfit(older: &Path, prev: u64) -> Option<Misfit> {
    if prev == 0 {
        return None;
    }
    let file = segment::open(older).ok()?;
    let length = file.metadata().ok()?.len();
    let expected = line::end_of_line(prev);
    let mut found = vec![0; expected.len()];
    let offset = length.checked_sub(found.len() as u64)?;
    file.read_exact_at(&mut found, offset).ok()?;
    if found == expected {
        return None;
    }
    let last = line::read(&last_line(&file, length).ok()??).ok()?;
    Some(Misfit { older: older.into(), last: last.seq, sum: last.sum, prev })
}

/// Returns the last line without its line feed; `None` when it has none.
fn last_line(file: &File, length: u64) -> io::Result<Option<Vec<u8>>> {
    let mut block = BLOCK_BYTES;
    loop {
        let start = length.saturating_sub(block);
        let mut bytes = vec![0; usize::try_from(length - start).map_err(io::Error::other)?];
        file.read_exact_at(&mut bytes, start)?;
        if bytes.pop() != Some(b'\n') {
            return Ok(None);
        }
        if let Some(feed) = bytes.iter().rposition(|byte| *byte == b'\n') {
            return Ok(Some(bytes.split_off(feed + 1)));
        }
        if start == 0 {
            return Ok(Some(bytes));
        }
        block = block.saturating_mul(4);
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;
    use crate::machine::time::Time;
    use crate::store::contract::{WAIT, checkpoint, first, record};
    use crate::store::journal::FileStore;
    use crate::store::{Json, Record, Store};

    struct Place {
        dir: tempfile::TempDir,
    }

    impl Place {
        /// A journal of two segments; the second begins behind record `last`.
        fn new(last: u64, records: &[Record]) -> Self {
            let dir = tempfile::tempdir().unwrap();
            let mut store = FileStore::create(dir.path(), &first(), WAIT).unwrap();
            store.lock(WAIT).unwrap();
            store.load().unwrap();
            store.append(0, records).unwrap();
            store.put_checkpoint(&checkpoint(last)).unwrap();
            store.append(last, &[record(last + 1)]).unwrap();
            Self { dir }
        }

        fn segment(&self, seq: u64) -> PathBuf {
            segment::path(&self.dir.path().join("journal"), seq)
        }

        fn load(&self) -> Result<u64, StoreError> {
            let mut store = FileStore::open(self.dir.path(), 0);
            let unlocked = store.load().map(|loaded| loaded.checkpoint.seq);
            store.lock(WAIT).unwrap();
            let locked = store.load().map(|loaded| loaded.checkpoint.seq);
            assert_eq!(format!("{unlocked:?}"), format!("{locked:?}"));
            locked
        }
    }

    fn refused(place: &Place, newest: u64, older: u64) {
        match place.load() {
            Err(StoreError::Damaged { path, line: 1, offset: 0, found }) => {
                assert_eq!(path, place.segment(newest));
                assert!(found.contains(place.segment(older).to_str().unwrap()), "{found}");
            }
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn a_segment_of_another_journal_under_a_higher_number_is_damage() {
        let ours = Place::new(2, &[record(1), record(2)]);
        let foreign = Place::new(4, &(1..=4).map(record).collect::<Vec<_>>());
        fs::copy(foreign.segment(4), ours.segment(4)).unwrap();
        refused(&ours, 4, 2);
        fs::remove_file(ours.segment(4)).unwrap();
        assert_eq!(ours.load().unwrap(), 2);
    }

    #[test]
    fn an_older_segment_of_another_journal_or_without_its_end_is_damage() {
        let place = Place::new(2, &[record(1), record(2)]);
        let whole = fs::read(place.segment(0)).unwrap();
        let feeds: Vec<usize> = (0..whole.len()).filter(|at| whole[*at] == b'\n').collect();
        for feed in &feeds[..2] {
            fs::write(place.segment(0), &whole[..=*feed]).unwrap();
            refused(&place, 2, 0);
        }
        let changes = Json::of(&["x".repeat(3 * BLOCK_BYTES as usize)]).unwrap();
        let at = Time::from_ms(1);
        let long = Record { seq: 2, time: at, actor: "cli".into(), changes };
        let other = Place::new(2, &[record(1), long]);
        assert_eq!(other.load().unwrap(), 2);
        fs::copy(other.segment(0), place.segment(0)).unwrap();
        refused(&place, 2, 0);
    }

    #[test]
    fn what_of_an_older_segment_is_not_whole_is_not_compared() {
        let place = Place::new(2, &[record(1), record(2)]);
        let whole = fs::read(place.segment(0)).unwrap();
        let mut flipped = whole.clone();
        flipped[whole.len() - 9] ^= 1;
        for bytes in [&whole[..whole.len() - 1], &whole[..20], b"", b"garbage\n", &flipped] {
            fs::write(place.segment(0), bytes).unwrap();
            assert_eq!(place.load().unwrap(), 2);
        }
        fs::remove_file(place.segment(0)).unwrap();
        assert_eq!(place.load().unwrap(), 2);
        fs::create_dir(place.segment(0)).unwrap();
        assert_eq!(place.load().unwrap(), 2);
    }
}
