//! Keeps the journal as it was, before it goes on in a newer format.

use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};

use super::{StoreError, segment};
use crate::sys::{fail, file};

/// Copies the segments of `journal` into a folder of their own beside it, durably; returns that. One
/// that a killed migration made is taken as it is.
pub(super) fn keep(
    dir: &Path,
    journal: &Path,
    format: u64,
    last: u64,
) -> Result<PathBuf, StoreError> {
    let backup = dir.join(format!("journal.format-{format}-{last}"));
    if backup.is_dir() {
        return Ok(backup);
    }
    let temp = backup.with_extension("tmp");
    let segments = segment::list(journal)?.segments;
    let copy = || -> io::Result<()> {
        if temp.exists() {
            fs::remove_dir_all(&temp)?;
        }
        fail::point("migrate.folder")?;
        fs::create_dir(&temp)?;
        for seq in segments {
            let to = segment::path(&temp, seq);
            fail::point("migrate.copy")?;
            fs::copy(segment::path(journal, seq), &to)?;
            fail::point("migrate.sync")?;
            File::open(&to)?.sync_all()?;
        }
        file::sync_dir(&temp)?;
        fail::point("migrate.rename")?;
        fs::rename(&temp, &backup)?;
        file::sync_dir(dir)
    };
    copy().map_err(StoreError::io("keep the journal as it was in", &backup))?;
    Ok(backup)
}
