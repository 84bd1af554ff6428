//! What lies about and belongs to nobody: folders of attempts that the journal does not know, sockets
//! of keepers that were killed.

use std::collections::BTreeSet;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use walkdir::WalkDir;

use super::project::Project;
use crate::agent::rendezvous::{self, KeeperInfo};
use crate::machine::State;
use crate::monitor::finished::BASE_CHECKS;
use crate::monitor::job::setup_id;
use crate::store::lock::is_held;
use crate::sys::fail;

/// Something that nobody needs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Orphan {
    /// The folder of an attempt that neither runs nor is in the history of a task.
    Attempt {
        path: PathBuf,
        /// It is older than `worktree.keep_finished`.
        is_due: bool,
    },
    /// Where a keeper listened that was killed.
    Socket(PathBuf),
}

/// Returns all of them, sorted by kind and path.
#[must_use]
pub fn all(project: &Project, state: &State) -> Vec<Orphan> {
    let mut found = attempts(project, state);
    found.extend(sockets(project).into_iter().map(Orphan::Socket));
    found
}

fn attempts(project: &Project, state: &State) -> Vec<Orphan> {
    let history = state.tasks.values().flat_map(|task| task.history.iter().map(|it| &it.id));
    let known: BTreeSet<String> = state
        .attempts
        .keys()
        .chain(history)
        .flat_map(|id| [id.as_str().to_owned(), setup_id(id)])
        .collect();
    let keep = Duration::from_millis(state.settings.worktree.keep_finished_ms);
    let dir = project.layout.state.join("attempts");
    let entries = WalkDir::new(dir).min_depth(1).max_depth(1).sort_by_file_name();
    let dirs = entries.into_iter().flatten().filter(|entry| entry.file_type().is_dir());
    let is_unknown = |name: &str| !name.starts_with(BASE_CHECKS) && !known.contains(name);
    dirs.filter(|entry| entry.file_name().to_str().is_some_and(is_unknown))
        .map(|entry| Orphan::Attempt {
            is_due: age(entry.path()).is_some_and(|age| age >= keep),
            path: entry.into_path(),
        })
        .collect()
}

/// Returns for how long nothing has been written to a folder and what is in it.
fn age(dir: &Path) -> Option<Duration> {
    let entries = WalkDir::new(dir).into_iter().flatten();
    let modified = entries.filter_map(|entry| entry.metadata().ok()?.modified().ok());
    modified.max()?.elapsed().ok()
}

fn sockets(project: &Project) -> Vec<PathBuf> {
    let entries = fs::read_dir(project.layout.keepers()).into_iter().flatten().flatten();
    let mut found: Vec<PathBuf> = entries.filter_map(|entry| left_socket(&entry.path())).collect();
    found.sort();
    found
}

/// Returns the socket of the keeper in `dir`, where that is dead and did not remove it.
#[must_use]
pub fn left_socket(dir: &Path) -> Option<PathBuf> {
    if is_held(&rendezvous::lock_path(dir)).unwrap_or(true) {
        return None;
    }
    let info = KeeperInfo::read(dir)?;
    let is_dead =
        info.process().is_ok_and(|process| process.is_none_or(|process| process.has_ended()));
    // What `keeper.json` says is believed only where a keeper of this folder listens.
    let is_own = info.socket.parent().is_some_and(|runtime| {
        rendezvous::socket_path(runtime, dir).is_ok_and(|own| own == info.socket)
    });
    (is_dead && is_own && fs::symlink_metadata(&info.socket).is_ok()).then_some(info.socket)
}

impl Orphan {
    /// Returns where it is.
    #[must_use]
    pub fn path(&self) -> &Path {
        match self {
            Self::Attempt { path, .. } | Self::Socket(path) => path,
        }
    }

    /// Returns whether a repair removes it.
    #[must_use]
    pub fn is_due(&self) -> bool {
        match self {
            Self::Attempt { is_due, .. } => *is_due,
            Self::Socket(_) => true,
        }
    }

    /// Removes it; gone already is fine.
    ///
    /// # Errors
    /// The file system's own.
    pub fn remove(&self) -> io::Result<()> {
        let removed = fail::point("orphan.remove").and_then(|()| match self {
            Self::Attempt { path, .. } => fs::remove_dir_all(path),
            Self::Socket(path) => fs::remove_file(path),
        });
        match removed {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
            other => other,
        }
    }
}
