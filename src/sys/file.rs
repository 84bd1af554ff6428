//! Whole-file writes that a reader never sees half done.

use std::fs::File;
use std::io::{self, Read, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use rustix::fs::OFlags;
use tempfile::NamedTempFile;

use super::fail;
use crate::machine::shell::shell_word;

/// How far a write is pushed before it counts as done.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Durability {
    /// Survives the death of the process, not a power cut: no sync.
    Process,
    /// Survives a power cut: file and folder are synced.
    Power,
}

/// Puts `bytes` at `path` by a temporary file beside it and a rename.
///
/// A reader sees the old file or the new one, never a part. The temporary file's name is unique and
/// ends in `.tmp`; one left by a crash is never opened again.
///
/// # Errors
/// Any of create, write, sync and rename; the old file then still stands.
pub fn write_atomic(path: &Path, bytes: &[u8], durability: Durability) -> io::Result<()> {
    let dir = path.parent().ok_or_else(|| io::Error::other("a file at the root"))?;
    let mut temp = Spare::make(dir)?.0;
    fail::point("file.write")?;
    temp.write_all(bytes)?;
    if durability == Durability::Power {
        fail::point("file.sync")?;
        temp.as_file().sync_all()?;
    }
    fail::point("file.rename")?;
    temp.persist(path).map_err(|error| error.error)?;
    if durability == Durability::Power {
        sync_dir(dir)?;
    }
    Ok(())
}

/// An empty temporary file, made while there is time for it: most of what a small file costs. It is
/// removed unless it is used.
#[derive(Debug)]
pub struct Spare(NamedTempFile);

impl Spare {
    /// Makes one in `dir`, named as in [`write_atomic`].
    ///
    /// # Errors
    /// When no file can be made there.
    pub fn make(dir: &Path) -> io::Result<Self> {
        tempfile::Builder::new().prefix(".").suffix(".tmp").tempfile_in(dir).map(Self)
    }

    /// Puts `bytes` at `path` as [`write_atomic`] does with [`Durability::Process`], by this file if
    /// it still serves.
    ///
    /// # Errors
    /// As there.
    pub fn put(spare: Option<Self>, path: &Path, bytes: &[u8]) -> io::Result<()> {
        if let Some(Self(mut temp)) = spare
            && fail::point("file.write_spare").and_then(|()| temp.write_all(bytes)).is_ok()
            && temp.persist(path).is_ok()
        {
            return Ok(());
        }
        write_atomic(path, bytes, Durability::Process)
    }
}

/// Makes the names in `dir` durable.
///
/// # Errors
/// When the folder cannot be opened or synced.
pub fn sync_dir(dir: &Path) -> io::Result<()> {
    fail::point("dir.sync")?;
    File::open(dir)?.sync_all()
}

/// Reads a file of at most `bytes_max` bytes; `None` when there is none.
///
/// # Errors
/// Any read error, and a file that is larger than the bound or not a regular file.
pub fn read_bounded(path: &Path, bytes_max: u64) -> io::Result<Option<Vec<u8>>> {
    // A link is an error, and a pipe does not hold the opener up: what was looked at is what is read.
    let flags = OFlags::NOFOLLOW | OFlags::NONBLOCK;
    let open = File::options().read(true).custom_flags(flags.bits().cast_signed()).open(path);
    let file = match open {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(error),
    };
    let meta = file.metadata()?;
    if !meta.is_file() {
        return Err(io::Error::new(io::ErrorKind::InvalidData, "not a regular file"));
    }
    if meta.len() > bytes_max {
        let found = format!("{} bytes, at most {bytes_max} are read", meta.len());
        return Err(io::Error::new(io::ErrorKind::InvalidData, found));
    }
    let mut bytes = Vec::new();
    // It may grow while it is read.
    file.take(bytes_max + 1).read_to_end(&mut bytes)?;
    if bytes.len() as u64 > bytes_max {
        return Err(io::Error::other(format!("more than {bytes_max} bytes")));
    }
    Ok(Some(bytes))
}

/// Returns a path as one word of a command line that a person is to type.
#[must_use]
pub fn shell_path(path: &Path) -> String {
    shell_word(&path.to_string_lossy()).into_owned()
}
