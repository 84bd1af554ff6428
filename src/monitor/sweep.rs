//! Temporary files that a killed monitor, keeper or command left before their rename.

use std::ffi::OsStr;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use walkdir::{DirEntry, WalkDir};

use crate::agent::rendezvous;
use crate::config::layout::Layout;
use crate::store::lock::is_held;
use crate::sys::fail;

/// A younger file may be in the making, by a command.
const AGE_MIN: Duration = Duration::from_secs(2);

/// Removes leftovers when no keeper lives, who could be writing one; for the start of a monitor.
pub fn at_start(layout: &Layout) {
    let mut keepers = fs::read_dir(layout.keepers()).into_iter().flatten().flatten();
    let is_alive =
        |entry: fs::DirEntry| is_held(&rendezvous::lock_path(&entry.path())).unwrap_or(true);
    if keepers.any(is_alive) {
        return;
    }
    for path in leftovers(layout) {
        // One that stays costs space only, and the next start tries again.
        let _ = remove(&path);
    }
}

/// Returns the temporary files of the state and of `.pipeline`, sorted; not those of the journal,
/// which whoever holds its lock removes, nor those of worktrees.
#[must_use]
pub fn leftovers(layout: &Layout) -> Vec<PathBuf> {
    let below = |dir: &Path, depth: usize| {
        let entries = WalkDir::new(dir).min_depth(1).max_depth(depth).into_iter();
        entries.flatten().filter(is_leftover).map(DirEntry::into_path).collect::<Vec<_>>()
    };
    let attempts = below(&layout.state.join("attempts"), 2);
    let keepers = below(&layout.keepers(), 2);
    let mut found = [below(&layout.state, 1), attempts, keepers, below(&layout.dot(), 1)].concat();
    found.sort();
    found
}

/// Removes one of them.
///
/// # Errors
/// The file system's own; one that is gone already is none.
pub fn remove(path: &Path) -> io::Result<()> {
    match fail::point("sweep.remove").and_then(|()| fs::remove_file(path)) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        other => other,
    }
}

fn is_leftover(entry: &DirEntry) -> bool {
    let name = entry.file_name().as_encoded_bytes();
    let is_named = name.starts_with(b".")
        && Path::new(entry.file_name()).extension() == Some(OsStr::new("tmp"));
    let modified = entry.metadata().ok().and_then(|meta| meta.modified().ok());
    let is_old = modified.and_then(|at| at.elapsed().ok()).is_some_and(|age| age >= AGE_MIN);
    is_named && entry.file_type().is_file() && is_old
}
