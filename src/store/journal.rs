//! The journal in files: `<state>/journal/<seq>.ndjson` under `<state>/lock`.
//!
//! Invariants:
//! * Only a lock holder writes, cuts, rotates or deletes. Before it writes it compares the file's
//!   end (newest name, inode, length, last checksum) with what it read.
//! * A record is acknowledged after `fdatasync` of the file and syncs of the folders that name it,
//!   by whoever acts on it, not only by whoever wrote it.
//! * After a failed write or sync the handle is dropped and the tail cut off again: a second sync
//!   could succeed although the first one lost the bytes. Where what was found may be such bytes, it
//!   is written once more before it is synced.
//! * Nothing that was acknowledged is ever cut; the last two checkpoints stay.

use std::fs;
use std::io::{ErrorKind, Read};
use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::machine::time::Time;
use crate::sys::{fail, file};

use super::handle::{End, Handle};
use super::lock::{self, FileLock};
use super::recovery::{self, Acknowledged};
use super::segment::{self, Flaw, FlawKind, Whole};
use super::{Checkpoint, Json, Loaded, Record, Store, StoreError, Tail, joint, line, migration};

/// How often a reader without the lock looks again before it believes in damage.
const READ_TRIES: u32 = 3;

/// How many checkpoints stay.
const SEGMENTS_KEPT: usize = 2;

/// The store in a folder.
#[derive(Debug)]
pub struct FileStore {
    dir: PathBuf,
    journal: PathBuf,
    lock: Option<FileLock>,
    acknowledged: u64,
    /// `None` before the first load and after any failure.
    open: Option<Handle>,
    /// A write or sync of ours failed, and no sync has succeeded since.
    is_suspect: bool,
}

impl FileStore {
    /// Names the store in the folder `dir`; touches nothing.
    ///
    /// `acknowledged` is the highest record somebody is known to have been told of, as by a keeper;
    /// 0 when unknown. What `state.json` shows is looked up here.
    #[must_use]
    pub fn open(dir: &Path, acknowledged: u64) -> Self {
        let journal = dir.join("journal");
        Self { dir: dir.into(), journal, lock: None, acknowledged, open: None, is_suspect: false }
    }

    /// Makes the folder `dir` and a journal in it that starts with `first`; waits `wait` for the lock.
    ///
    /// # Errors
    /// [`StoreError::Exists`] unless [`FileStore::is_fresh`]; the lock's and the file system's.
    pub fn create(dir: &Path, first: &Checkpoint, wait: Duration) -> Result<Self, StoreError> {
        let mut store = Self::open(dir, 0);
        let journal = &store.journal;
        fail::point("journal.create")
            .and_then(|()| fs::create_dir_all(journal))
            .map_err(StoreError::io("make folder", journal))?;
        store.lock(wait)?;
        if !Self::is_fresh(dir)? {
            return Err(StoreError::Exists { path: store.journal.clone() });
        }
        let prepared = segment::prepare(&store.journal, first, 0)?;
        segment::publish(&store.journal, prepared)?;
        for folder in dir.parent().into_iter().chain([dir]) {
            file::sync_dir(folder).map_err(StoreError::io("sync folder", folder))?;
        }
        store.unlock();
        Ok(store)
    }

    /// Returns true when nothing in `dir` shows that there ever was a journal.
    ///
    /// # Errors
    /// When the folders cannot be read.
    pub fn is_fresh(dir: &Path) -> Result<bool, StoreError> {
        let listing = segment::list(&dir.join("journal"))?;
        let view = super::view::path(dir);
        // Whatever stands there, a link into nothing too.
        let has_view = match fs::symlink_metadata(&view) {
            Err(error) if error.kind() == ErrorKind::NotFound => false,
            other => other.map(|_| true).map_err(StoreError::io("look for", &view))?,
        };
        Ok(listing.segments.is_empty() && !listing.has_remains && !has_view)
    }

    /// Returns true when something in `dir` shows that there was a journal, but none of it is left.
    ///
    /// # Errors
    /// As [`FileStore::is_fresh`].
    pub fn is_lost(dir: &Path) -> Result<bool, StoreError> {
        let listing = segment::list(&dir.join("journal"))?;
        Ok(listing.segments.is_empty() && !Self::is_fresh(dir)?)
    }

    /// Reads the newest segment.
    fn load_once(&mut self) -> Result<Loaded, StoreError> {
        let acknowledged = Acknowledged::peek(self.acknowledged, &self.dir);
        let listing = segment::list(&self.journal)?;
        let Some(&seq) = listing.segments.last() else {
            if self.acknowledged == 0 && Self::is_fresh(&self.dir)? {
                return Err(StoreError::Missing { path: self.journal.clone() });
            }
            let found = "it holds no segment, but there was a journal here";
            return Err(StoreError::damaged(&self.journal, found));
        };
        let path = segment::path(&self.journal, seq);
        let mut file = segment::open(&path)?;
        let mut bytes = Vec::new();
        file.read_to_end(&mut bytes).map_err(StoreError::io("read journal", &path))?;
        let refuse = |flaw| recovery::refuse(&path, flaw);
        let Whole { format, checkpoint, prev, base, scan } =
            segment::scan(seq, bytes).map_err(refuse)?;
        let torn = match scan.flaw {
            None => None,
            Some(Flaw { kind: FlawKind::Torn(found), .. }) => Some(found),
            Some(flaw) => return Err(refuse(flaw)),
        };
        joint::check(&self.journal, &listing.segments, prev)?;
        let end = scan.end;
        if let Some(known) = acknowledged.beyond(end.seq, &self.dir) {
            let found =
                format!("the last whole record is {}, but {known} was acknowledged", end.seq);
            let (line, offset) = (end.lines + 1, end.offset);
            return Err(StoreError::Damaged { path, line, offset, found });
        }
        let mut warnings = Vec::new();
        if self.is_locked()? {
            if let Some(found) = torn {
                warnings.push(recovery::cut_torn(&path, end, &found)?);
            }
            recovery::sweep(&listing.temps);
        }
        let mut open = Handle::new(file, path, base, end)?;
        open.format = format;
        self.open = Some(open);
        self.make_durable()?;
        Ok(Loaded { checkpoint, records: scan.records, warnings })
    }

    /// Returns whether we hold the lock, and makes sure that it is still the one others see.
    fn is_locked(&mut self) -> Result<bool, StoreError> {
        let is_ours = self.lock.as_ref().map(FileLock::is_still_ours).transpose();
        let path = self.dir.join("lock");
        let is_ours = is_ours.map_err(StoreError::io("look at lock", &path))?;
        if is_ours == Some(false) {
            self.open = None;
            self.lock = None;
            return Err(StoreError::LockLost { path });
        }
        Ok(is_ours.is_some())
    }

    /// Under the lock, syncs what was read but not synced by this process.
    fn make_durable(&mut self) -> Result<(), StoreError> {
        if self.lock.is_none() {
            return Ok(());
        }
        // Taken out, so that a failure leaves no handle behind.
        let Some(mut open) = self.open.take() else { return Ok(()) };
        if !open.is_synced {
            // Set before, so that a failure leaves it so.
            if std::mem::replace(&mut self.is_suspect, true) {
                open.write_again()?;
            }
            open.sync()?;
            self.is_suspect = false;
        }
        if !open.is_named {
            for folder in [&self.journal, &self.dir] {
                file::sync_dir(folder).map_err(StoreError::io("sync folder", folder))?;
            }
            open.is_named = true;
        }
        self.acknowledged = self.acknowledged.max(open.end.seq);
        self.open = Some(open);
        Ok(())
    }

    /// Refuses to write what an older program, which may be at work here, would not understand.
    fn refuse_older(&self, open: &Handle) -> Result<(), StoreError> {
        if open.format >= line::FORMAT {
            return Ok(());
        }
        let (path, found, current) = (self.journal.clone(), open.format, line::FORMAT);
        Err(StoreError::Older { path, found, current })
    }

    /// Takes the handle out for a write after `expected`, when nobody else wrote since.
    fn open_for_write(&mut self, expected: u64) -> Result<Handle, StoreError> {
        assert!(self.is_locked()?, "the journal is written under the lock only");
        let gap = || StoreError::Gap { path: self.journal.clone() };
        let open = self.open.as_ref().ok_or_else(gap)?;
        let last = open.end.seq;
        let found = match open.compare_end(&self.journal)? {
            End::Same => Some(last),
            // Longer, but by no record: an unfinished line, which loading cuts off.
            End::Longer => Some(open.scan_from(open.end)?.end.seq).filter(|found| *found != last),
            End::Moved => None,
        };
        let Some(found) = found else {
            let gap = gap();
            self.open = None;
            return Err(gap);
        };
        if found != expected || found != last {
            return Err(StoreError::Conflict { expected, found });
        }
        self.make_durable()?;
        let gap = || StoreError::Gap { path: self.journal.clone() };
        self.open.take().ok_or_else(gap)
    }

    /// Reads what follows `after`, or `None` when that cannot be told.
    fn read_tail(&mut self, after: u64) -> Result<Option<Vec<Record>>, StoreError> {
        let Some(mut open) = self.open.take() else { return Ok(None) };
        if open.compare_end(&self.journal)? == End::Moved || after < open.base.seq {
            return Ok(None);
        }
        let start = if after == open.end.seq { open.end } else { open.base };
        let scan = open.scan_from(start)?;
        let is_readable = match scan.flaw.map(|flaw| flaw.kind) {
            None => true,
            // Somebody may be writing it. Under the lock nobody is: loading puts it right.
            Some(FlawKind::Torn(_)) => self.lock.is_none(),
            Some(FlawKind::Damaged(_) | FlawKind::Newer(_)) => false,
        };
        if !is_readable || scan.end.seq < after || scan.end.offset < open.end.offset {
            return Ok(None);
        }
        open.is_synced &= scan.end.offset == open.end.offset;
        open.end = scan.end;
        self.open = Some(open);
        self.make_durable()?;
        let is_new = |record: &Record| record.seq > after;
        Ok(Some(scan.records.into_iter().filter(is_new).collect()))
    }
}

impl FileStore {
    /// Returns the format of the journal as it was read, where that is older than what is written.
    #[must_use]
    pub fn older_format(&self) -> Option<u64> {
        self.open.as_ref().map(|open| open.format).filter(|format| *format < line::FORMAT)
    }

    /// Goes on in a new segment of the present format, which starts with the state after the last
    /// record; returns where the journal as it was is kept. Under the lock, after a load.
    ///
    /// Killed at any point, a repetition does the same.
    ///
    /// # Errors
    /// As for [`Store::put_checkpoint`]; the journal as it was remains valid.
    pub(super) fn migrate(
        &mut self,
        time: Time,
        state: Json,
    ) -> Result<(PathBuf, u64), StoreError> {
        let last = self.open.as_ref().map_or(0, |open| open.end.seq);
        let open = self.open_for_write(last)?;
        let backup = migration::keep(&self.dir, &self.journal, open.format, last)?;
        // Two segments cannot have one number.
        let seq = if open.base.seq == last { last.saturating_add(1) } else { last };
        let prepared =
            segment::prepare(&self.journal, &Checkpoint { seq, time, state }, open.end.sum)?;
        let (path, end) = segment::publish(&self.journal, prepared)?;
        let mut next = Handle::new(segment::open(&path)?, path, end, end)?;
        (next.is_synced, next.is_named) = (true, true);
        self.acknowledged = self.acknowledged.max(seq);
        self.open = Some(next);
        Ok((backup, seq))
    }
}

impl Store for FileStore {
    fn lock(&mut self, wait: Duration) -> Result<(), StoreError> {
        if self.lock.is_some() {
            return Ok(());
        }
        let path = self.dir.join("lock");
        self.lock = FileLock::exclusive(&path, "transaction", wait)
            .map_err(StoreError::io("lock", &path))?;
        if self.lock.is_none() {
            let owner = lock::read_owner(&path);
            return Err(StoreError::LockTimeout { path, waited: wait, owner });
        }
        Ok(())
    }

    fn unlock(&mut self) {
        self.lock = None;
    }

    fn load(&mut self) -> Result<Loaded, StoreError> {
        for _ in 1..READ_TRIES {
            self.open = None;
            match self.load_once() {
                // Without the lock, a rotation or a cut in the middle of reading looks like this.
                Err(StoreError::Damaged { .. }) if self.lock.is_none() => {}
                other => return other,
            }
        }
        self.load_once()
    }

    fn read_from(&mut self, after: u64) -> Result<Tail, StoreError> {
        Ok(self.read_tail(after)?.map_or(Tail::Gap, Tail::Records))
    }

    fn append(&mut self, expected: u64, records: &[Record]) -> Result<(), StoreError> {
        super::assert_consecutive(expected, records);
        let mut open = self.open_for_write(expected)?;
        let mut bytes = Vec::new();
        let mut end = open.end;
        for record in records {
            end.sum = line::write_record(&mut bytes, record, end.sum);
            end.seq = record.seq;
            end.lines += 1;
        }
        end.offset += bytes.len() as u64;
        if !bytes.is_empty() {
            self.refuse_older(&open)?;
            self.is_suspect = true;
            open.append(&bytes, end)?;
            self.is_suspect = false;
        }
        self.acknowledged = self.acknowledged.max(end.seq);
        self.open = Some(open);
        Ok(())
    }

    fn wants_checkpoint(&self) -> bool {
        self.open.as_ref().is_some_and(|open| {
            let tail_bytes = open.end.offset - open.base.offset;
            super::is_checkpoint_due(tail_bytes, open.base.offset)
        })
    }

    fn put_checkpoint(&mut self, checkpoint: &Checkpoint) -> Result<(), StoreError> {
        let open = self.open_for_write(checkpoint.seq)?;
        if open.base.seq == checkpoint.seq {
            self.open = Some(open);
            return Ok(());
        }
        self.refuse_older(&open)?;
        let prepared = match segment::prepare(&self.journal, checkpoint, open.end.sum) {
            Ok(prepared) => prepared,
            Err(error) => {
                self.open = Some(open);
                return Err(error);
            }
        };
        let (path, end) = segment::publish(&self.journal, prepared)?;
        let listing = segment::list(&self.journal)?;
        let older = listing.segments.len().saturating_sub(SEGMENTS_KEPT);
        for seq in &listing.segments[..older] {
            // One that stays costs space only, and the next rotation tries again.
            let _ = fail::point("segment.remove")
                .and_then(|()| fs::remove_file(segment::path(&self.journal, *seq)));
        }
        recovery::sweep(&listing.temps);
        let mut next = Handle::new(segment::open(&path)?, path, end, end)?;
        (next.is_synced, next.is_named) = (true, true);
        self.open = Some(next);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::fs::OpenOptions;
    use std::io::{self, Write};

    use super::*;
    use crate::store::contract::{WAIT, checkpoint, first, record};

    fn store() -> (tempfile::TempDir, FileStore) {
        let dir = tempfile::tempdir().unwrap();
        let mut store = FileStore::create(dir.path(), &first(), WAIT).unwrap();
        store.lock(WAIT).unwrap();
        store.load().unwrap();
        (dir, store)
    }

    fn names(store: &FileStore) -> Vec<String> {
        let entries = fs::read_dir(&store.journal).unwrap();
        let name = |entry: io::Result<fs::DirEntry>| entry.unwrap().file_name();
        let mut names: Vec<_> = entries.map(|entry| name(entry).into_string().unwrap()).collect();
        names.sort();
        names
    }

    #[test]
    fn creation_is_refused_where_a_journal_is() {
        let (dir, mut store) = store();
        store.append(0, &[record(1)]).unwrap();
        store.unlock();
        let again = FileStore::create(dir.path(), &first(), WAIT);
        assert!(matches!(again, Err(StoreError::Exists { .. })));
        assert_eq!(store.load().unwrap().records, [record(1)]);
    }

    #[test]
    fn rotation_keeps_two_checkpoints_and_sweeps_leftovers() {
        let (_dir, mut store) = store();
        fs::write(store.journal.join(".left.tmp"), "half").unwrap();
        for seq in 1..=4 {
            store.append(seq - 1, &[record(seq)]).unwrap();
            store.put_checkpoint(&checkpoint(seq)).unwrap();
        }
        let kept = ["00000000000000000003.ndjson", "00000000000000000004.ndjson"];
        assert_eq!(names(&store), kept);
        assert_eq!(store.load().unwrap().checkpoint, checkpoint(4));
    }

    #[test]
    fn chain_leads_from_segment_to_segment() {
        let (_dir, mut store) = store();
        store.append(0, &[record(1), record(2)]).unwrap();
        store.put_checkpoint(&checkpoint(2)).unwrap();
        let value = |path: PathBuf, last: bool| -> serde_json::Value {
            let text = fs::read_to_string(path).unwrap();
            let line = if last { text.lines().last() } else { text.lines().next() };
            serde_json::from_str(line.unwrap()).unwrap()
        };
        let old = value(segment::path(&store.journal, 0), true);
        let new = value(segment::path(&store.journal, 2), false);
        assert_eq!((&old["seq"], &new["seq"]), (&2.into(), &2.into()));
        assert_eq!(old["sum"], new["prev"]);
        assert_eq!((&new["kind"], &new["v"]), (&"checkpoint".into(), &1.into()));
    }

    #[test]
    fn failed_append_drops_the_handle_and_loading_goes_on() {
        let (_dir, mut store) = store();
        store.append(0, &[record(1)]).unwrap();
        store.open.as_mut().unwrap().break_writer();
        assert!(matches!(store.append(1, &[record(2)]), Err(StoreError::Io { .. })));
        assert_eq!(store.read_from(1).unwrap(), Tail::Gap);
        assert!(matches!(store.append(1, &[record(2)]), Err(StoreError::Gap { .. })));
        assert_eq!(store.load().unwrap().records, [record(1)]);
        store.append(1, &[record(2)]).unwrap();
    }

    #[test]
    fn rewritten_end_of_equal_length_is_a_gap() {
        let (dir, mut store) = store();
        let mut reader = FileStore::open(dir.path(), 0);
        store.append(0, &[record(1)]).unwrap();
        reader.load().unwrap();
        let base = store.open.as_ref().unwrap().base;
        let segment =
            OpenOptions::new().write(true).open(segment::path(&store.journal, 0)).unwrap();
        segment.set_len(base.offset).unwrap();
        let mut other = FileStore::open(dir.path(), 0);
        store.unlock();
        other.lock(WAIT).unwrap();
        other.load().unwrap();
        other.append(0, &[Record { actor: "tset".into(), ..record(1) }]).unwrap();
        other.unlock();
        reader.lock(WAIT).unwrap();
        assert_eq!(reader.read_from(1).unwrap(), Tail::Gap);
        assert_eq!(reader.load().unwrap().records[0].actor, "tset");
    }

    #[test]
    fn shortened_and_replaced_files_are_gaps() {
        let (dir, mut store) = store();
        store.append(0, &[record(1), record(2)]).unwrap();
        let path = segment::path(&store.journal, 0);
        let whole = fs::read(&path).unwrap();
        let mut reader = FileStore::open(dir.path(), 0);
        reader.load().unwrap();
        fs::write(&path, &whole[..whole.len() - 1]).unwrap();
        assert_eq!(reader.read_from(2).unwrap(), Tail::Gap);
        assert!(matches!(store.append(2, &[record(3)]), Err(StoreError::Gap { .. })));
        assert!(matches!(store.load(), Err(StoreError::Damaged { line: 3, .. })), "acknowledged");
        file::write_atomic(&path, &whole, file::Durability::Process).unwrap();
        reader.load().unwrap();
        file::write_atomic(&path, &whole, file::Durability::Process).unwrap();
        assert_eq!(reader.read_from(2).unwrap(), Tail::Gap);
        fs::remove_file(&path).unwrap();
        assert_eq!(reader.read_from(2).unwrap(), Tail::Gap);
    }

    #[test]
    fn reader_ignores_a_line_in_the_making_and_reads_it_when_whole() {
        let (dir, mut store) = store();
        let mut reader = FileStore::open(dir.path(), 0);
        reader.load().unwrap();
        store.append(0, &[record(1)]).unwrap();
        let path = segment::path(&store.journal, 0);
        let whole = fs::read(&path).unwrap();
        let base = usize::try_from(store.open.as_ref().unwrap().base.offset).unwrap();
        for cut in base..whole.len() {
            fs::write(&path, &whole[..cut]).unwrap();
            assert_eq!(reader.read_from(0).unwrap(), Tail::Records(vec![]), "{cut}");
        }
        fs::write(&path, &whole).unwrap();
        assert_eq!(reader.read_from(0).unwrap(), Tail::Records(vec![record(1)]));
    }

    #[test]
    fn line_left_unfinished_by_the_dead_is_a_gap_under_the_lock() {
        let (dir, mut store) = store();
        store.append(0, &[record(1)]).unwrap();
        let path = segment::path(&store.journal, 0);
        let mut segment = OpenOptions::new().append(true).open(path).unwrap();
        segment.write_all(b"{\"v\":1,\"se").unwrap();
        assert!(matches!(store.append(1, &[record(2)]), Err(StoreError::Gap { .. })));
        store.load().unwrap();
        segment.write_all(b"{\"v\":1,\"se").unwrap();
        assert_eq!(store.read_from(1).unwrap(), Tail::Gap);
        assert_eq!(store.load().unwrap().warnings.len(), 1);
        store.append(1, &[record(2)]).unwrap();
        assert_eq!(FileStore::open(dir.path(), 2).load().unwrap().records.len(), 2);
    }

    #[test]
    fn lock_file_deleted_while_held_stops_the_writer() {
        let (dir, mut store) = store();
        fs::remove_file(dir.path().join("lock")).unwrap();
        let mut other = FileStore::open(dir.path(), 0);
        other.lock(WAIT).unwrap();
        assert!(matches!(store.append(0, &[record(1)]), Err(StoreError::LockLost { .. })));
        other.load().unwrap();
        other.append(0, &[record(1)]).unwrap();
    }

    #[test]
    fn lock_file_that_cannot_be_looked_at_is_an_error_that_passes_and_no_lost_lock() {
        let (dir, _) = store();
        let (place, aside) = (dir.path().join("state"), dir.path().join("aside"));
        let mut store = FileStore::create(&place, &first(), WAIT).unwrap();
        store.lock(WAIT).unwrap();
        store.load().unwrap();
        // A link to itself: its end is never found, which is not to say that nothing is there.
        fs::rename(&place, &aside).unwrap();
        std::os::unix::fs::symlink(&place, &place).unwrap();
        let refused = store.append(0, &[record(1)]).unwrap_err();
        assert!(matches!(refused, StoreError::Io { .. }) && refused.is_passing(), "{refused:?}");
        fs::remove_file(&place).unwrap();
        fs::rename(&aside, &place).unwrap();
        store.load().unwrap();
        store.append(0, &[record(1)]).unwrap();
        assert_eq!(store.load().unwrap().records, [record(1)]);
    }

    #[test]
    fn state_that_was_read_unlocked_is_synced_before_it_is_built_upon() {
        let (dir, mut store) = store();
        store.append(0, &[record(1)]).unwrap();
        store.unlock();
        let mut other = FileStore::open(dir.path(), 0);
        other.load().unwrap();
        assert!(!other.open.as_ref().unwrap().is_synced);
        other.lock(WAIT).unwrap();
        assert_eq!(other.read_from(1).unwrap(), Tail::Records(vec![]));
        let open = other.open.as_ref().unwrap();
        assert!(open.is_synced && open.is_named);
        assert_eq!(other.acknowledged, 1);
    }
}
