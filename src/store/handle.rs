//! The newest segment as one process has it open: how far it was read, and writing after that.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::{Path, PathBuf};

use crate::sys::fail;

use super::segment::{self, Position, Scan};
use super::{StoreError, line};

/// The newest segment, as far as it was read.
#[derive(Debug)]
pub(super) struct Handle {
    file: File,
    /// For appending; opened when first needed, since readers may lack the right.
    writer: Option<File>,
    path: PathBuf,
    device: u64,
    inode: u64,
    /// In which the checkpoint is written.
    pub(super) format: u64,
    /// After the checkpoint.
    pub(super) base: Position,
    /// After the last line that was read or written.
    pub(super) end: Position,
    /// Whether all up to `end` was synced by this process.
    pub(super) is_synced: bool,
    /// Whether the folders that name the file were.
    pub(super) is_named: bool,
}

/// How the newest segment on disk compares with what was read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum End {
    Same,
    Longer,
    /// Rotated, shortened, rewritten or gone.
    Moved,
}

impl Handle {
    /// Takes a segment that was read up to `end`, and not yet synced.
    pub(super) fn new(
        file: File,
        path: PathBuf,
        base: Position,
        end: Position,
    ) -> Result<Self, StoreError> {
        let meta = file.metadata().map_err(StoreError::io("look at journal", &path))?;
        let (device, inode) = (meta.dev(), meta.ino());
        let (writer, is_synced, is_named) = (None, false, false);
        let format = line::FORMAT;
        Ok(Self { file, writer, path, device, inode, format, base, end, is_synced, is_named })
    }

    /// Compares the end of the journal in the folder `journal` with what was read.
    pub(super) fn compare_end(&self, journal: &Path) -> Result<End, StoreError> {
        if segment::list(journal)?.segments.last() != Some(&self.base.seq) {
            return Ok(End::Moved);
        }
        let meta = match fs::metadata(&self.path) {
            Ok(meta) => meta,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(End::Moved),
            Err(error) => return Err(StoreError::io("look at journal", &self.path)(error)),
        };
        let is_same_file = meta.dev() == self.device && meta.ino() == self.inode;
        if !is_same_file || meta.len() < self.end.offset {
            return Ok(End::Moved);
        }
        // A failed append may have been cut off and replaced by another of the same length.
        let expected = line::end_of_line(self.end.sum);
        let mut found = vec![0; expected.len()];
        let offset = self.end.offset.saturating_sub(found.len() as u64);
        let read = self.file.read_exact_at(&mut found, offset);
        if read.is_err() || found != expected {
            return Ok(End::Moved);
        }
        Ok(if meta.len() > self.end.offset { End::Longer } else { End::Same })
    }

    /// Reads the records from `start`, which is `base` or `end`, to the file's present end.
    pub(super) fn scan_from(&self, start: Position) -> Result<Scan, StoreError> {
        let read = || -> io::Result<Vec<u8>> {
            let length = self.file.metadata()?.len().saturating_sub(start.offset);
            let mut bytes = vec![0; usize::try_from(length).map_err(io::Error::other)?];
            let mut filled = 0;
            while filled < bytes.len() {
                match self.file.read_at(&mut bytes[filled..], start.offset + filled as u64)? {
                    // Cut off meanwhile, which only the lock prevents.
                    0 => break,
                    count => filled += count,
                }
            }
            bytes.truncate(filled);
            Ok(bytes)
        };
        let bytes = read().map_err(StoreError::io("read journal", &self.path))?;
        Ok(segment::scan_records(&bytes, start))
    }

    /// Appends lines that end in `end`, in one write, and syncs them.
    ///
    /// On failure tries to cut them off again; the handle must not be used any more.
    pub(super) fn append(&mut self, bytes: &[u8], end: Position) -> Result<(), StoreError> {
        let mut file = match self.writer.take() {
            Some(file) => file,
            None => self.open_writer()?,
        };
        if let Err(error) = write(&mut file, bytes).and_then(|()| sync(&file)) {
            // When this fails as well, whoever loads next finds the rest and judges it.
            let _ = fail::point("journal.uncut")
                .and_then(|()| file.set_len(self.end.offset))
                .and_then(|()| file.sync_data());
            return Err(StoreError::io("append to journal", &self.path)(error));
        }
        self.writer = Some(file);
        self.end = end;
        Ok(())
    }

    /// Writes what was read once more where it stands: after a failed sync the kernel takes the bytes
    /// for written, and the next sync would succeed without them.
    pub(super) fn write_again(&mut self) -> Result<(), StoreError> {
        let write = || -> io::Result<()> {
            let mut bytes = vec![0; usize::try_from(self.end.offset).map_err(io::Error::other)?];
            self.file.read_exact_at(&mut bytes, 0)?;
            fail::point("journal.again")?;
            OpenOptions::new().write(true).open(&self.path)?.write_all_at(&bytes, 0)
        };
        write().map_err(StoreError::io("write again what was found in journal", &self.path))
    }

    /// Syncs the file, whoever wrote it.
    pub(super) fn sync(&mut self) -> Result<(), StoreError> {
        sync(&self.file).map_err(StoreError::io("sync journal", &self.path))?;
        self.is_synced = true;
        Ok(())
    }

    /// Opens the segment for appending, making sure that it is still the same file.
    fn open_writer(&self) -> Result<File, StoreError> {
        let opened = OpenOptions::new().append(true).open(&self.path).and_then(|file| {
            let meta = file.metadata()?;
            if meta.dev() == self.device && meta.ino() == self.inode {
                return Ok(file);
            }
            Err(io::Error::other("the file was replaced while under the lock"))
        });
        opened.map_err(StoreError::io("open journal", &self.path))
    }

    /// Makes the next append fail, as well as cutting it off: the writer can only read.
    #[cfg(test)]
    pub(super) fn break_writer(&mut self) {
        self.writer = Some(File::open(&self.path).unwrap());
    }
}

/// Writes all bytes, at once unless the disk takes only a part: then the rest tells why.
fn write(file: &mut File, bytes: &[u8]) -> io::Result<()> {
    fail::point("journal.write")?;
    file.write_all(bytes)
}

fn sync(file: &File) -> io::Result<()> {
    fail::point("journal.sync")?;
    file.sync_data()
}
