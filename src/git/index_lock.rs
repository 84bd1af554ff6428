//! The index of a person's checkout, locked by us while git works on a copy of it.
//!
//! `git merge` reads the index before it locks it (2.47): what a person adds in between falls out of it,
//! and their next commit takes that away. So git's lock is taken before git is started, by a file that
//! says whose it is: one that is left over is told from that of any other git.

use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};

use super::error::GitError;
use super::slot::remove_file;
use crate::sys::fail;
use crate::sys::file::{Spare, put_new};

/// How our lock begins, for whoever looks into it.
const TEXT: &str =
    "pipeline moves this branch forward; what was cut short, `pipeline monitor` ends:";

/// A checkout's index, its lock, and the copy of it that is git's to write.
#[derive(Debug)]
pub(super) struct IndexLock {
    pub(super) index: PathBuf,
    pub(super) lock: PathBuf,
    pub(super) copy: PathBuf,
    /// What the lock says; a line, for the shell.
    pub(super) text: String,
}

impl IndexLock {
    /// Locks nothing yet; `admin`: the checkout's administrative folder; `dir`: a folder of ours on the
    /// same disk; `note`: the name of the note there that tells of it.
    pub(super) fn new(admin: &Path, dir: &Path, note: &str) -> Self {
        Self {
            index: admin.join("index"),
            lock: admin.join("index.lock"),
            copy: dir.join(format!("{note}.index")),
            text: format!("{TEXT} {note}"),
        }
    }

    /// Returns whether the index is a link: git locks what that leads to.
    pub(super) fn is_link(&self) -> bool {
        fs::symlink_metadata(&self.index).is_ok_and(|index| index.is_symlink())
    }

    /// Locks the index and copies it; returns false where another git has it locked.
    pub(super) fn take(&self) -> Result<bool, GitError> {
        if !self.put()? {
            return Ok(false);
        }
        self.forget_copy().and_then(|()| self.make_copy()).or_else(|failure| {
            self.release()?;
            Err(failure)
        })?;
        Ok(true)
    }

    /// Locks the index again that somebody has unlocked. The copy is empty before that: what git wrote
    /// while the index was locked first never comes in the place of what was written since.
    pub(super) fn retake(&self) -> Result<(), GitError> {
        File::create(&self.copy).map_err(file_error("write", &self.copy))?;
        if self.put()? {
            return Ok(());
        }
        let taken = io::Error::new(io::ErrorKind::AlreadyExists, "another git has it locked");
        Err(file_error("lock", &self.index)(taken))
    }

    /// Copies the index that is locked once more.
    pub(super) fn copy_again(&self) -> Result<(), GitError> {
        remove_file(&self.copy_lock())?;
        if !self.index.exists() {
            // An empty file is no index.
            remove_file(&self.copy)?;
        }
        self.make_copy()
    }

    /// Returns false where another git has the index locked.
    fn put(&self) -> Result<bool, GitError> {
        let put = fail::point("git.index_lock").and_then(|()| {
            put_new(&self.lock, format!("{}\n", self.text).as_bytes(), self.temps())
        });
        // Over a network it may be told as there that was just put there.
        Ok(put.map_err(file_error("make", &self.lock))? || self.is_ours()?)
    }

    fn temps(&self) -> &Path {
        self.copy.parent().unwrap_or(Path::new("."))
    }

    fn make_copy(&self) -> Result<(), GitError> {
        let copy = || -> io::Result<()> {
            let mut index = match File::open(&self.index) {
                // Nothing has been added yet.
                Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
                opened => opened?,
            };
            let meta = index.metadata()?;
            let mut temp = Spare::make(self.temps())?.into_inner();
            io::copy(&mut index, &mut temp)?;
            temp.as_file().set_permissions(meta.permissions())?;
            // Files that are as old as their index are read, since they may have changed behind it.
            temp.as_file().set_modified(meta.modified()?)?;
            temp.persist(&self.copy).map(drop).map_err(|failure| failure.error)
        };
        copy().map_err(file_error("copy", &self.index))
    }

    /// Returns whether the lock is there, and ours.
    pub(super) fn is_ours(&self) -> Result<bool, GitError> {
        let read = || -> io::Result<bool> {
            let found = fs::symlink_metadata(&self.lock)?;
            // That of a git grows to an index.
            let may_be = found.is_file() && found.len() == self.text.len() as u64 + 1;
            Ok(may_be && fs::read(&self.lock)?.trim_ascii_end() == self.text.as_bytes())
        };
        match fail::point("git.read_lock").and_then(|()| read()) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
            read => read.map_err(file_error("read", &self.lock)),
        }
    }

    /// Returns whether git may have begun: it needs the copy, which goes last to the index's place.
    pub(super) fn has_copy(&self) -> bool {
        self.copy.exists()
    }

    /// Returns whether git has written the copy; what cannot be told counts as written.
    pub(super) fn is_written(&self) -> bool {
        let (of, copy) = (fs::read(&self.index).ok(), fs::read(&self.copy).ok());
        copy.is_none_or(|copy| !copy.is_empty() && of.is_none_or(|of| of != copy))
    }

    /// Puts the copy in the index's place where that is still ours to write, and unlocks it.
    pub(super) fn install(&self) -> Result<(), GitError> {
        if self.is_ours()? {
            let put = fail::point("git.index_install");
            match put.and_then(|()| fs::rename(&self.copy, &self.index)) {
                // Whoever was killed had come so far.
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                installed => installed.map_err(file_error("write", &self.index))?,
            }
        }
        self.release()
    }

    /// Unlocks the index as it is; a lock of another git stays.
    pub(super) fn release(&self) -> Result<(), GitError> {
        self.forget_copy()?;
        if self.is_ours()? { remove_file(&self.lock) } else { Ok(()) }
    }

    fn forget_copy(&self) -> Result<(), GitError> {
        remove_file(&self.copy)?;
        remove_file(&self.copy_lock())
    }

    /// Returns the lock that git takes on the copy.
    fn copy_lock(&self) -> PathBuf {
        let mut lock = self.copy.clone().into_os_string();
        lock.push(".lock");
        lock.into()
    }
}

fn file_error(doing: &'static str, path: &Path) -> impl FnOnce(io::Error) -> GitError {
    let path = path.to_owned();
    move |source| GitError::File { doing, path, source }
}
