//! Whole-file writes that a reader never sees half done.

use std::fs::{self, File, Permissions};
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt as _};
use std::path::Path;

use rustix::fs::{MemfdFlags, OFlags, memfd_create};
use tempfile::NamedTempFile;

use super::fail;
use crate::machine::shell::shell_word;

/// More than any file that [`small_text`] is asked for.
const SMALL_BYTES_MAX: u64 = 1 << 20;

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

/// Puts `bytes`, synced and for all to read, at `path` where nothing is; returns false where something
/// is. The temporary file is made in `temps`, a folder on the same disk.
///
/// # Errors
/// Any of create, write, sync and rename; nothing is at `path` then.
pub fn put_new(path: &Path, bytes: &[u8], temps: &Path) -> io::Result<bool> {
    let mut temp = Spare::make(temps)?.0;
    temp.write_all(bytes)?;
    temp.as_file().set_permissions(Permissions::from_mode(0o644))?;
    temp.as_file().sync_all()?;
    match temp.persist_noclobber(path) {
        Err(there) if there.error.kind() == io::ErrorKind::AlreadyExists => Ok(false),
        put => put.map(|_| true).map_err(|failure| failure.error),
    }
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

    /// Returns the file itself.
    pub(crate) fn into_inner(self) -> NamedTempFile {
        self.0
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

/// Makes a file without a name, in memory: what is given to a program, or heard of one, needs no folder
/// that may go away.
///
/// # Errors
/// When descriptors run out.
pub fn unnamed() -> io::Result<File> {
    Ok(memfd_create("pipeline", MemfdFlags::CLOEXEC)?.into())
}

/// Writes a file anew that nobody reads yet: what somebody left there, a pipe or a link, goes first.
///
/// # Errors
/// Any of removing what is there, and of writing.
pub fn write_anew(path: &Path, bytes: &[u8]) -> io::Result<()> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        Ok(()) | Err(_) => {}
    }
    File::options().write(true).create_new(true).open(path)?.write_all(bytes)
}

/// Makes the names in `dir` durable.
///
/// # Errors
/// When the folder cannot be opened or synced.
pub fn sync_dir(dir: &Path) -> io::Result<()> {
    fail::point("dir.sync")?;
    File::open(dir)?.sync_all()
}

/// Opens a regular file for reading, whatever somebody has put in its place.
///
/// # Errors
/// Any error of opening it, and anything but a regular file, a link to one too.
pub fn open_regular(path: &Path) -> io::Result<File> {
    regular(path, OFlags::NOFOLLOW)
}

fn regular(path: &Path, flags: OFlags) -> io::Result<File> {
    // A pipe does not hold the opener up: what was looked at is what is read.
    let flags = (flags | OFlags::NONBLOCK).bits().cast_signed();
    let file = File::options().read(true).custom_flags(flags).open(path)?;
    if !file.metadata()?.is_file() {
        return Err(io::Error::new(io::ErrorKind::InvalidData, "not a regular file"));
    }
    Ok(file)
}

/// Reads a file of at most `bytes_max` bytes; `None` when there is none.
///
/// # Errors
/// Any read error, and a file that is larger than the bound or not a regular file.
pub fn read_bounded(path: &Path, bytes_max: u64) -> io::Result<Option<Vec<u8>>> {
    whole(open_regular(path), bytes_max)
}

/// Reads as [`read_bounded`] does, but follows a link: for what people keep elsewhere.
///
/// # Errors
/// As there.
pub fn read_linked(path: &Path, bytes_max: u64) -> io::Result<Option<Vec<u8>>> {
    whole(regular(path, OFlags::empty()), bytes_max)
}

fn whole(opened: io::Result<File>, bytes_max: u64) -> io::Result<Option<Vec<u8>>> {
    let file = match opened {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(error),
    };
    let length = file.metadata()?.len();
    if length > bytes_max {
        let found = format!("{length} bytes, at most {bytes_max} are read");
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

/// Returns the text of a small file of git's or ours, as far as it is UTF-8; empty when it cannot be
/// read.
#[must_use]
pub fn small_text(path: &Path) -> String {
    let bytes = read_bounded(path, SMALL_BYTES_MAX).ok().flatten().unwrap_or_default();
    String::from_utf8_lossy(&bytes).into_owned()
}

/// Reads at most the last `bytes_max` bytes of a file.
///
/// # Errors
/// Any read error, and anything but a regular file.
pub fn read_end(path: &Path, bytes_max: u64) -> io::Result<Vec<u8>> {
    let mut file = open_regular(path)?;
    let length = file.metadata()?.len();
    file.seek(SeekFrom::Start(length.saturating_sub(bytes_max)))?;
    let mut bytes = Vec::new();
    file.take(bytes_max).read_to_end(&mut bytes)?;
    Ok(bytes)
}

/// Returns a path as one word of a command line that a person is to type.
#[must_use]
pub fn shell_path(path: &Path) -> String {
    shell_word(&path.to_string_lossy()).into_owned()
}
