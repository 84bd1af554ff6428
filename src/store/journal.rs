//! The journal in files: `<state>/journal/<seq>.ndjson` under `<state>/lock`.
//!
//! Invariants:
//! * Only a lock holder writes, cuts, rotates or deletes. Before it writes it compares the file's
//!   end (newest name, inode, length, last checksum) with what it read.
//! * A record is acknowledged after `fdatasync` of the file and syncs of the folders that name it,
//!   by whoever acts on it, not only by whoever wrote it.
//! * After a failed write or sync the handle is dropped and the tail cut off again: a second sync
//!   could succeed although the first one lost the bytes.
//! * Nothing that was acknowledged is ever cut; the last two checkpoints stay.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::sys::{fail, file};

use super::lock::{self, FileLock};
use super::recovery::{self, Acknowledged};
use super::segment::{self, Flaw, FlawKind, Position};
use super::{Checkpoint, Loaded, Record, Store, StoreError, Tail, line};

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
    open: Option<Open>,
}

/// The newest segment, as far as it was read.
#[derive(Debug)]
struct Open {
    file: File,
    /// For appending; opened when first needed, since readers may lack the right.
    writer: Option<File>,
    path: PathBuf,
    device: u64,
    inode: u64,
    /// After the checkpoint.
    base: Position,
    /// After the last line that was read or written.
    end: Position,
    /// Whether all up to `end` was synced by this process.
    is_synced: bool,
    /// Whether the folders that name the file were.
    is_named: bool,
}

impl Open {
    /// Takes a segment that was read up to `end`, and not yet synced.
    fn new(file: File, path: PathBuf, base: Position, end: Position) -> Result<Self, StoreError> {
        let meta = file.metadata().map_err(StoreError::io("look at journal", &path))?;
        let (device, inode) = (meta.dev(), meta.ino());
        let (writer, is_synced, is_named) = (None, false, false);
        Ok(Self { file, writer, path, device, inode, base, end, is_synced, is_named })
    }
}

/// How the newest segment on disk compares with what was read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum End {
    Same,
    Longer,
    /// Rotated, shortened, rewritten or gone.
    Moved,
}

impl FileStore {
    /// Names the store in the folder `dir`; touches nothing.
    ///
    /// `acknowledged` is the highest record somebody is known to have been told of, as by a keeper;
    /// 0 when unknown. What `state.json` shows is looked up here.
    #[must_use]
    pub fn open(dir: &Path, acknowledged: u64) -> Self {
        let journal = dir.join("journal");
        Self { dir: dir.into(), journal, lock: None, acknowledged, open: None }
    }

    /// Makes the folder `dir` and a journal in it that starts with `first`; waits `wait` for the lock.
    ///
    /// # Errors
    /// [`StoreError::Exists`] unless [`FileStore::is_fresh`]; the lock's and the file system's.
    pub fn create(dir: &Path, first: &Checkpoint, wait: Duration) -> Result<Self, StoreError> {
        let mut store = Self::open(dir, 0);
        let journal = &store.journal;
        fs::create_dir_all(journal).map_err(StoreError::io("make folder", journal))?;
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
        let has_view = view.try_exists().map_err(StoreError::io("look for", &view))?;
        Ok(listing.segments.is_empty() && !listing.has_torn && !has_view)
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
        let (checkpoint, base, scan) = segment::scan(seq, bytes).map_err(refuse)?;
        let torn = match scan.flaw {
            None => None,
            Some(Flaw { kind: FlawKind::Torn(found), .. }) => Some(found),
            Some(flaw) => return Err(refuse(flaw)),
        };
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
        self.open = Some(Open::new(file, path, base, end)?);
        self.make_durable()?;
        Ok(Loaded { checkpoint, records: scan.records, warnings })
    }

    /// Returns whether we hold the lock, and makes sure that it is still the one others see.
    fn is_locked(&mut self) -> Result<bool, StoreError> {
        let is_ours = self.lock.as_ref().map(FileLock::is_still_ours);
        if is_ours == Some(false) {
            self.open = None;
            self.lock = None;
            return Err(StoreError::LockLost { path: self.dir.join("lock") });
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
            sync(&open.file).map_err(StoreError::io("sync journal", &open.path))?;
            open.is_synced = true;
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

    /// Compares the journal's end on disk with what was read.
    fn compare_end(&self, open: &Open) -> Result<End, StoreError> {
        if segment::list(&self.journal)?.segments.last() != Some(&open.base.seq) {
            return Ok(End::Moved);
        }
        let meta = match fs::metadata(&open.path) {
            Ok(meta) => meta,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(End::Moved),
            Err(error) => return Err(StoreError::io("look at journal", &open.path)(error)),
        };
        let is_same_file = meta.dev() == open.device && meta.ino() == open.inode;
        if !is_same_file || meta.len() < open.end.offset {
            return Ok(End::Moved);
        }
        // A failed append may have been cut off and replaced by another of the same length.
        let expected = line::end_of_line(open.end.sum);
        let mut found = vec![0; expected.len()];
        let offset = open.end.offset.saturating_sub(found.len() as u64);
        let read = open.file.read_exact_at(&mut found, offset);
        if read.is_err() || found != expected {
            return Ok(End::Moved);
        }
        Ok(if meta.len() > open.end.offset { End::Longer } else { End::Same })
    }

    /// Takes the handle out for a write after `expected`, when nobody else wrote since.
    fn open_for_write(&mut self, expected: u64) -> Result<Open, StoreError> {
        assert!(self.is_locked()?, "the journal is written under the lock only");
        let gap = || StoreError::Gap { path: self.journal.clone() };
        let open = self.open.as_ref().ok_or_else(gap)?;
        let found = match self.compare_end(open)? {
            End::Same => open.end.seq,
            End::Longer => segment::scan_records(&read_after(open, open.end)?, open.end).end.seq,
            End::Moved => {
                let gap = gap();
                self.open = None;
                return Err(gap);
            }
        };
        if found != expected || found != open.end.seq {
            return Err(StoreError::Conflict { expected, found });
        }
        self.make_durable()?;
        let gap = || StoreError::Gap { path: self.journal.clone() };
        self.open.take().ok_or_else(gap)
    }

    /// Reads what follows `after`, or `None` when that cannot be told.
    fn read_tail(&mut self, after: u64) -> Result<Option<Vec<Record>>, StoreError> {
        let Some(mut open) = self.open.take() else { return Ok(None) };
        if self.compare_end(&open)? == End::Moved || after < open.base.seq {
            return Ok(None);
        }
        let start = if after == open.end.seq { open.end } else { open.base };
        let scan = segment::scan_records(&read_after(&open, start)?, start);
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
            write_and_sync(&mut open, &bytes)?;
        }
        open.end = end;
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
        let mut next = Open::new(segment::open(&path)?, path, end, end)?;
        (next.is_synced, next.is_named) = (true, true);
        self.open = Some(next);
        Ok(())
    }
}

/// Reads the newest segment from `start` to its present end.
fn read_after(open: &Open, start: Position) -> Result<Vec<u8>, StoreError> {
    let read = || -> io::Result<Vec<u8>> {
        let length = open.file.metadata()?.len().saturating_sub(start.offset);
        let mut bytes = vec![0; usize::try_from(length).map_err(io::Error::other)?];
        let mut filled = 0;
        while filled < bytes.len() {
            match open.file.read_at(&mut bytes[filled..], start.offset + filled as u64)? {
                // Cut off meanwhile, which only the lock prevents.
                0 => break,
                count => filled += count,
            }
        }
        bytes.truncate(filled);
        Ok(bytes)
    };
    read().map_err(StoreError::io("read journal", &open.path))
}

/// Appends `bytes` in one write and syncs them; on failure tries to cut them off again.
fn write_and_sync(open: &mut Open, bytes: &[u8]) -> Result<(), StoreError> {
    let mut file = match open.writer.take() {
        Some(file) => file,
        None => open_writer(open)?,
    };
    if let Err(error) = write_once(&mut file, bytes).and_then(|()| sync(&file)) {
        // When this fails as well, whoever loads next finds the rest and judges it.
        let _ = fail::point("journal.uncut")
            .and_then(|()| file.set_len(open.end.offset))
            .and_then(|()| file.sync_data());
        return Err(StoreError::io("append to journal", &open.path)(error));
    }
    open.writer = Some(file);
    Ok(())
}

/// Opens the segment for appending, making sure that it is still the same file.
fn open_writer(open: &Open) -> Result<File, StoreError> {
    let opened = OpenOptions::new().append(true).open(&open.path).and_then(|file| {
        let meta = file.metadata()?;
        if meta.dev() == open.device && meta.ino() == open.inode {
            return Ok(file);
        }
        Err(io::Error::other("the file was replaced while under the lock"))
    });
    opened.map_err(StoreError::io("open journal", &open.path))
}

/// Writes all bytes at once; a part counts as a failure.
fn write_once(file: &mut File, bytes: &[u8]) -> io::Result<()> {
    fail::point("journal.write")?;
    loop {
        match file.write(bytes) {
            Ok(count) if count == bytes.len() => return Ok(()),
            Ok(count) => {
                let found = format!("only {count} of {} bytes were written", bytes.len());
                return Err(io::Error::new(io::ErrorKind::WriteZero, found));
            }
            // Nothing was written.
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
}

fn sync(file: &File) -> io::Result<()> {
    fail::point("journal.sync")?;
    file.sync_data()
}
