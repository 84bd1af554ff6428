//! Does one step; whatever is gone already is as it should be.

use std::fs;
use std::io::{self, ErrorKind};
use std::os::unix::net::UnixStream;
use std::path::Path;

use walkdir::WalkDir;

use super::plan::{Step, removed};
use crate::agent::terminal::tmux::Tmux;
use crate::cli::error::Error;
use crate::cli::init_record::{Exclude, exclude_text};
use crate::config::layout::Layout;
use crate::git::{Cas, GitError, Oid, Repo};
use crate::sys::fail;
use crate::sys::file::{Durability, sync_dir, write_atomic};

/// Does a step of taking the pipeline out of the project.
///
/// # Errors
/// What could not be done, on what.
pub fn step(step: &Step, layout: &Layout, repo: Option<&Repo>) -> Result<(), Error> {
    let of_git = |done: Result<(), GitError>| {
        done.map_err(|error| Error::failed(format!("cannot {step}")).because_git(&error))
    };
    let of_files = |path: &Path, done: io::Result<()>| {
        done.map_err(|error| Error::failed(format!("cannot {step}")).because(&error).at(path))
    };
    match (step, repo) {
        (Step::Bundle { path, names }, Some(repo)) => of_git(repo.bundle(path, names)),
        (Step::RemoveSlot(path), Some(repo)) => of_git(repo.remove_slot(path)),
        (Step::RemoveCheckout(path), Some(repo)) => of_git(repo.remove_checkout(path)),
        (Step::RemoveRef { name, oid }, Some(repo)) => remove_ref(repo, name, oid),
        (
            Step::Bundle { .. }
            | Step::RemoveSlot(_)
            | Step::RemoveCheckout(_)
            | Step::RemoveRef { .. },
            None,
        ) => Ok(()),
        (Step::RemoveSocket(path), _) => of_files(path, remove_socket(path)),
        (Step::RestoreExclude { path, line, before }, _) => {
            of_files(path, restore(path, line, *before, &layout.state))
        }
        (Step::RemoveFile(path), _) => of_files(path, remove_file(path)),
        (Step::RemoveTree(path), _) => of_files(path, remove_tree(path)),
        (Step::RemoveEmpty(path), _) => of_files(path, remove_empty(path)),
        (Step::RemoveState(path), _) => {
            if let Some(repo) = repo.filter(|_| *path == layout.state) {
                // The last calls that close a gate, which lies in the state.
                of_git(repo.clear_stale_locks().map(drop))?;
                of_git(repo.forget_copied())?;
                repo.sweep_folders();
            }
            remove_state(path, layout)
        }
    }
}

fn remove_ref(repo: &Repo, name: &str, oid: &Oid) -> Result<(), Error> {
    let failed =
        |error: GitError| Error::failed(format!("cannot remove `{name}`")).because_git(&error);
    match repo.cas_ref(name, None, Some(oid)).map_err(failed)? {
        Cas::Done | Cas::Moved(None) => Ok(()),
        Cas::Moved(Some(now)) => Err(Error::busy(format!("cannot remove `{name}`: it has moved"))
            .because_of(format!("it was {oid} and is {now}"))),
    }
}

fn gone_is_fine(done: io::Result<()>) -> io::Result<()> {
    match done {
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(()),
        other => other,
    }
}

/// Removes a socket at which nobody listens.
fn remove_socket(path: &Path) -> io::Result<()> {
    if path.extension().is_some_and(|it| it == "tmux") {
        // A server that is about to end is waited for.
        Tmux::at(path.into()).clear();
    }
    if UnixStream::connect(path).is_ok() {
        return Err(io::Error::other("somebody listens there"));
    }
    remove_file(path)
}

fn remove_file(path: &Path) -> io::Result<()> {
    gone_is_fine(fail::point("deinit.remove_file").and_then(|()| fs::remove_file(path)))
}

fn remove_tree(path: &Path) -> io::Result<()> {
    gone_is_fine(fail::point("deinit.remove_tree").and_then(|()| fs::remove_dir_all(path)))
}

/// Removes empty folders from below; one that holds something stays with those above it.
fn remove_empty(path: &Path) -> io::Result<()> {
    fail::point("deinit.remove_empty")?;
    let entries = WalkDir::new(path).contents_first(true).into_iter().flatten();
    for entry in entries.filter(|entry| entry.file_type().is_dir()) {
        match fs::remove_dir(entry.path()) {
            Err(error) if error.kind() == ErrorKind::DirectoryNotEmpty => {}
            other => gone_is_fine(other)?,
        }
    }
    Ok(())
}

/// Takes our line out of the exclude file; what `init` had to make for it goes too.
fn restore(path: &Path, line: &str, before: Exclude, state: &Path) -> io::Result<()> {
    let text = exclude_text(path)?.unwrap_or_default();
    let Some(kept) = before.without(&text, line) else { return Ok(()) };
    if before.was_there || !kept.is_empty() {
        // Made in our own folder, which goes whatever happens; and what a link leads to is replaced.
        let path = fs::canonicalize(path)?;
        let temp = state.join("exclude.new");
        write_atomic(&temp, kept.as_bytes(), Durability::Power)?;
        fs::set_permissions(&temp, fs::metadata(&path)?.permissions())?;
        fail::point("deinit.exclude")?;
        return match fs::rename(&temp, &path) {
            Err(error) if error.kind() == ErrorKind::CrossesDevices => {
                write_atomic(&path, kept.as_bytes(), Durability::Power)
            }
            other => other,
        };
    }
    remove_file(path)?;
    match path.parent().filter(|_| !before.had_folder).map(fs::remove_dir) {
        Some(Err(error)) if error.kind() != ErrorKind::DirectoryNotEmpty => Err(error),
        Some(_) | None => Ok(()),
    }
}

/// Removes the state: by a rename first, after which there is no pipeline any more.
fn remove_state(path: &Path, layout: &Layout) -> Result<(), Error> {
    let failed = |error: io::Error| {
        Error::failed(format!("cannot remove the folder `{}`", path.display()))
            .because(&error)
            .at(path)
    };
    let aside = removed(&layout.state);
    if *path == layout.state {
        // What an earlier run left there.
        remove_tree(&aside).map_err(failed)?;
        fail::point("deinit.rename").and_then(|()| fs::rename(path, &aside)).map_err(failed)?;
        sync_dir(aside.parent().unwrap_or(path)).map_err(failed)?;
    }
    remove_tree(&aside).map_err(failed)
}
