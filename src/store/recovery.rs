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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::machine::time::Time;
    use crate::store::contract::{WAIT, checkpoint, first, record};
    use crate::store::journal::FileStore;
    use crate::store::{Loaded, Record, Store, segment};

    /// The files in a folder, by name, with their bytes.
    type Files = Vec<(PathBuf, Vec<u8>)>;

    struct Place {
        dir: tempfile::TempDir,
        segment: PathBuf,
    }

    /// Makes a journal of two segments: records 1 and 2, then a checkpoint, then 3 to 5.
    fn place() -> Place {
        let dir = tempfile::tempdir().unwrap();
        let mut store = FileStore::create(dir.path(), &first(), WAIT).unwrap();
        store.lock(WAIT).unwrap();
        store.load().unwrap();
        store.append(0, &[record(1), record(2)]).unwrap();
        store.put_checkpoint(&checkpoint(2)).unwrap();
        store.append(2, &[record(3), record(4)]).unwrap();
        store.append(4, &[record(5)]).unwrap();
        let segment = segment::path(&dir.path().join("journal"), 2);
        Place { dir, segment }
    }

    fn all() -> Vec<Record> {
        (3..=5).map(record).collect()
    }

    impl Place {
        fn open(&self, acknowledged: u64) -> FileStore {
            FileStore::open(self.dir.path(), acknowledged)
        }

        fn load_locked(&self, acknowledged: u64) -> Result<Loaded, StoreError> {
            let mut store = self.open(acknowledged);
            store.lock(WAIT)?;
            store.load()
        }

        fn bytes(&self) -> Vec<u8> {
            fs::read(&self.segment).unwrap()
        }

        fn put(&self, bytes: &[u8]) {
            fs::write(&self.segment, bytes).unwrap();
        }

        /// What the journal's folder holds.
        fn files(&self) -> Files {
            let entries = fs::read_dir(self.dir.path().join("journal")).unwrap();
            let paths = entries.map(|entry| entry.unwrap().path());
            let mut files: Files =
                paths.map(|path| (path.clone(), fs::read(path).unwrap())).collect();
            files.sort();
            files
        }

        fn remove_asides(&self) {
            for (path, _) in self.files() {
                if path.extension().is_none() {
                    fs::remove_file(path).unwrap();
                }
            }
        }
    }

    /// Where each line starts, and the end.
    fn line_starts(bytes: &[u8]) -> Vec<usize> {
        let feeds = bytes.iter().enumerate().filter(|(_, byte)| **byte == b'\n');
        [0].into_iter().chain(feeds.map(|(at, _)| at + 1)).collect()
    }

    #[test]
    fn journal_cut_at_any_byte_is_a_prefix_or_damaged() {
        let place = place();
        let whole = place.bytes();
        let starts = line_starts(&whole);
        for cut in 0..=whole.len() {
            place.put(&whole[..cut]);
            let lines = starts.iter().filter(|start| **start <= cut).count() - 1;
            let before = place.files();
            let unlocked = place.open(0).load();
            assert_eq!(place.files(), before, "a reader changes nothing");
            if lines == 0 {
                assert!(matches!(unlocked, Err(StoreError::Damaged { line: 1, .. })), "{cut}");
                assert!(matches!(place.load_locked(0), Err(StoreError::Damaged { .. })), "{cut}");
                assert_eq!(place.files(), before);
                continue;
            }
            assert_eq!(unlocked.unwrap().records, all()[..lines - 1], "{cut}");
            let loaded = place.load_locked(0).unwrap();
            assert_eq!(loaded.records, all()[..lines - 1], "{cut}");
            let is_torn = !starts.contains(&cut);
            assert_eq!(loaded.warnings.len(), usize::from(is_torn), "{cut}");
            assert_eq!(place.bytes(), whole[..starts[lines]]);
            if is_torn {
                let aside = place.segment.with_file_name(format!("torn-{}-1", lines + 2));
                assert_eq!(fs::read(aside).unwrap(), whole[starts[lines]..cut]);
            }
            place.remove_asides();
        }
    }

    #[test]
    fn cut_of_an_acknowledged_record_is_damage_and_changes_nothing() {
        let place = place();
        let whole = place.bytes();
        let last = line_starts(&whole)[3];
        for cut in last..whole.len() {
            place.put(&whole[..cut]);
            let before = place.files();
            for answer in [place.open(5).load(), place.load_locked(5)] {
                let Err(StoreError::Damaged { line: 4, offset, .. }) = answer else {
                    panic!("{cut}: {answer:?}");
                };
                assert_eq!(offset, last as u64);
            }
            assert_eq!(place.files(), before);
        }
        assert_eq!(place.load_locked(4).unwrap().records, all()[..2]);
    }

    #[test]
    fn view_shows_what_was_acknowledged_unless_edited() {
        let place = place();
        let whole = place.bytes();
        place.put(&whole[..whole.len() - 1]);
        view::write_view(place.dir.path(), br#"{"seq":5,"a":1}"#, Time::from_ms(0)).unwrap();
        assert!(matches!(place.load_locked(0), Err(StoreError::Damaged { line: 4, .. })));
        let view = place.dir.path().join("state.json");
        let edited = fs::read_to_string(&view).unwrap().replace("5", "6");
        fs::write(&view, edited).unwrap();
        assert_eq!(place.load_locked(0).unwrap().records, all()[..2]);
    }

    #[test]
    fn no_flipped_bit_is_read_as_something_else() {
        let place = place();
        let whole = place.bytes();
        let last = line_starts(&whole)[3];
        for at in 0..whole.len() {
            let mut bytes = whole.clone();
            bytes[at] ^= 1 << (at % 8);
            place.put(&bytes);
            let before = place.files();
            match place.load_locked(0) {
                // The line feed before the last record is part of the last bad line.
                Ok(loaded) if at + 1 >= last => {
                    let good = if at + 1 == last { 1 } else { 2 };
                    assert_eq!(loaded.records, all()[..good], "{at}");
                    assert_eq!(loaded.warnings.len(), 1);
                    place.remove_asides();
                }
                Err(StoreError::Damaged { .. } | StoreError::Newer { .. }) => {
                    assert_eq!(place.files(), before, "{at}");
                }
                other => panic!("{at}: {other:?}"),
            }
        }
    }

    #[test]
    fn writing_goes_on_after_a_cut() {
        let place = place();
        let whole = place.bytes();
        place.put(&whole[..whole.len() - 3]);
        let mut store = place.open(0);
        store.lock(WAIT).unwrap();
        let warning = store.load().unwrap().warnings.remove(0);
        assert!(warning.contains("record 5 was unfinished") && warning.contains("torn-5-1"));
        store.append(4, &[record(5)]).unwrap();
        assert_eq!(place.bytes(), whole);
        store.unlock();
        // The same again gets a name of its own.
        place.put(&whole[..whole.len() - 9]);
        assert!(place.load_locked(0).unwrap().warnings[0].contains("torn-5-2"));
    }

    #[test]
    fn newer_format_is_refused_without_changing_a_byte() {
        let place = place();
        let whole = place.bytes();
        let starts = line_starts(&whole);
        for start in [starts[0], starts[1], starts[3]] {
            let mut bytes = whole.clone();
            bytes[start + 5] = b'2';
            for bytes in [&bytes[..], &bytes[..bytes.len() - 1]] {
                place.put(bytes);
                fs::write(place.segment.with_file_name(".left.tmp"), "").unwrap();
                let before = place.files();
                for answer in [place.open(0).load(), place.load_locked(9)] {
                    let Err(StoreError::Newer { found: 2, supported: 1, .. }) = answer else {
                        panic!("{answer:?}");
                    };
                }
                assert_eq!(place.files(), before);
            }
        }
    }

    #[test]
    fn zeroed_or_empty_segment_is_damage_although_an_older_one_is_whole() {
        let place = place();
        let whole = place.bytes();
        for bytes in [vec![], vec![0; whole.len()]] {
            place.put(&bytes);
            let before = place.files();
            assert!(matches!(place.load_locked(0), Err(StoreError::Damaged { line: 1, .. })));
            assert_eq!(place.files(), before);
        }
    }

    #[test]
    fn lost_journal_is_never_an_empty_start() {
        let place = place();
        view::write_view(place.dir.path(), br#"{"seq":5}"#, Time::from_ms(0)).unwrap();
        fs::remove_file(&place.segment).unwrap();
        assert!(matches!(place.load_locked(5), Err(StoreError::Damaged { .. })), "older one left");
        fs::remove_dir_all(place.dir.path().join("journal")).unwrap();
        assert!(matches!(place.load_locked(0), Err(StoreError::Damaged { line: 0, .. })));
        assert!(!FileStore::is_fresh(place.dir.path()).unwrap());
        let again = FileStore::create(place.dir.path(), &first(), WAIT);
        assert!(matches!(again, Err(StoreError::Exists { .. })));
        fs::remove_file(place.dir.path().join("state.json")).unwrap();
        assert!(matches!(place.load_locked(5), Err(StoreError::Damaged { line: 0, .. })));
        assert!(matches!(place.load_locked(0), Err(StoreError::Missing { .. })));
        assert!(FileStore::is_fresh(place.dir.path()).unwrap());
    }
}
