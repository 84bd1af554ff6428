//! What can go wrong with the store, by what the caller can do about it.

use std::error::Error;
use std::fmt;
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::lock::Owner;

/// Why the store could not do what was asked.
#[derive(Debug)]
pub enum StoreError {
    /// Somebody else kept the lock for the whole wait.
    LockTimeout {
        /// The lock file.
        path: PathBuf,
        /// How long was waited.
        waited: Duration,
        /// Who holds it, as the file says; information only.
        owner: Option<Owner>,
    },
    /// The lock file was deleted or replaced while it was held: somebody else may hold the new one.
    LockLost {
        /// The lock file.
        path: PathBuf,
    },
    /// Others appended since the caller last read; read, decide anew, append again.
    Conflict {
        /// The last record, as the caller believed.
        expected: u64,
        /// The last record, as it is.
        found: u64,
    },
    /// The journal must be loaded before it can be appended to.
    Gap {
        /// The journal's folder.
        path: PathBuf,
    },
    /// There is no journal, and nothing shows that there ever was one.
    Missing {
        /// The journal's folder.
        path: PathBuf,
    },
    /// A journal was to be created where there is one, or remains of one.
    Exists {
        /// The journal's folder.
        path: PathBuf,
    },
    /// The journal is not what was written; nothing was changed.
    Damaged {
        /// The file, or the folder when a file is gone.
        path: PathBuf,
        /// The line, counted from 1; 0 when it is about the file as a whole.
        line: u64,
        /// Where that line starts, in bytes.
        offset: u64,
        /// What was found and what was expected.
        found: String,
    },
    /// The journal was written by a newer program; nothing was changed.
    Newer {
        /// The file.
        path: PathBuf,
        /// The format it is in.
        found: u64,
        /// The newest format this program knows.
        supported: u64,
    },
    /// The journal was written by an older program: a monitor has to take it over first.
    Older {
        /// The journal's folder.
        path: PathBuf,
        /// The format it is in.
        found: u64,
        /// The format that this program writes.
        current: u64,
    },
    /// The file system refused.
    Io {
        /// What was attempted, as a verb phrase ("append to journal").
        attempt: &'static str,
        /// On which file or folder.
        path: PathBuf,
        /// The system's answer.
        source: io::Error,
    },
}

impl StoreError {
    /// Makes the error of a failed system call, to be used with `map_err`.
    pub(super) fn io(attempt: &'static str, path: &Path) -> impl FnOnce(io::Error) -> Self {
        move |source| Self::Io { attempt, path: path.to_path_buf(), source }
    }

    /// Returns true when trying again later may help, since nothing but the file system, what a
    /// process may use, or another process stood in the way.
    #[must_use]
    pub fn is_passing(&self) -> bool {
        match self {
            // Without the folder there is nothing to come back to.
            Self::Io { source, .. } => {
                !matches!(source.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory)
            }
            // Somebody was stopped while he held it.
            Self::LockTimeout { .. } => true,
            Self::LockLost { .. }
            | Self::Conflict { .. }
            | Self::Gap { .. }
            | Self::Missing { .. }
            | Self::Exists { .. }
            | Self::Damaged { .. }
            | Self::Newer { .. }
            | Self::Older { .. } => false,
        }
    }

    /// Returns true when the disk, or the user's part of it, is full.
    #[must_use]
    pub fn is_full(&self) -> bool {
        let kinds = [io::ErrorKind::StorageFull, io::ErrorKind::QuotaExceeded];
        matches!(self, Self::Io { source, .. } if kinds.contains(&source.kind()))
    }

    /// Makes the damage of a file or folder as a whole.
    pub(super) fn damaged(path: &Path, found: impl Into<String>) -> Self {
        Self::Damaged { path: path.to_path_buf(), line: 0, offset: 0, found: found.into() }
    }
}

impl fmt::Display for StoreError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::LockTimeout { path, waited, owner } => {
                let (path, waited_ms) = (path.display(), waited.as_millis());
                write!(f, "cannot lock `{path}` within {waited_ms} ms")?;
                owner.as_ref().map_or(Ok(()), |owner| write!(f, ", held by {owner}"))
            }
            Self::LockLost { path } => {
                write!(
                    f,
                    "cannot go on under lock `{}`, it was deleted or replaced",
                    path.display()
                )
            }
            Self::Conflict { expected, found } => {
                write!(f, "cannot append after record {expected}, the last one is {found}")
            }
            Self::Gap { path } => {
                write!(f, "cannot append to journal `{}` before loading it anew", path.display())
            }
            Self::Missing { path } => write!(f, "cannot find a journal in `{}`", path.display()),
            Self::Exists { path } => {
                write!(f, "cannot create journal `{}`, there is one already", path.display())
            }
            Self::Damaged { path, line: 0, offset: _, found } => {
                write!(f, "cannot read journal `{}`, it is damaged: {found}", path.display())
            }
            Self::Damaged { path, line, offset, found } => {
                let path = path.display();
                write!(
                    f,
                    "cannot read journal `{path}`, line {line} (byte {offset}) is damaged: "
                )?;
                f.write_str(found)
            }
            Self::Newer { path, found, supported } => {
                let path = path.display();
                write!(f, "cannot use journal `{path}` of format {found}, ")?;
                write!(f, "this program knows formats up to {supported}")
            }
            Self::Older { path, found, current } => {
                let path = path.display();
                write!(f, "cannot write to journal `{path}` of format {found}, ")?;
                write!(f, "this program writes format {current}")
            }
            Self::Io { attempt, path, source: _ } => {
                write!(f, "cannot {attempt} `{}`", path.display())
            }
        }
    }
}

impl Error for StoreError {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        match self {
            Self::Io { source, .. } => Some(source),
            Self::LockTimeout { .. }
            | Self::LockLost { .. }
            | Self::Conflict { .. }
            | Self::Gap { .. }
            | Self::Missing { .. }
            | Self::Exists { .. }
            | Self::Damaged { .. }
            | Self::Newer { .. }
            | Self::Older { .. } => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_full_disk_and_a_used_up_quota_are_full_and_pass() {
        use rustix::io::Errno;
        let cases = [
            (Errno::NOSPC, true),
            (Errno::DQUOT, true),
            (Errno::IO, false),
            (Errno::STALE, false),
            (Errno::ROFS, false),
        ];
        for (errno, is_full) in cases {
            let error = StoreError::io("append to journal", Path::new("journal"))(errno.into());
            assert_eq!((error.is_full(), error.is_passing()), (is_full, true), "{errno}");
        }
    }

    #[test]
    fn messages_name_the_attempt_the_place_and_what_was_found() {
        let path = || PathBuf::from("journal/7");
        let owner = Some(Owner { pid: 12, what: "transaction".into() });
        let waited = Duration::from_secs(10);
        let source = io::Error::other("disk full");
        let cases = [
            (
                StoreError::LockTimeout { path: path(), waited, owner },
                "cannot lock `journal/7` within 10000 ms, held by process 12 (transaction)",
            ),
            (
                StoreError::Damaged { path: path(), line: 3, offset: 812, found: "short".into() },
                "cannot read journal `journal/7`, line 3 (byte 812) is damaged: short",
            ),
            (
                StoreError::damaged(&path(), "it is gone"),
                "cannot read journal `journal/7`, it is damaged: it is gone",
            ),
            (
                StoreError::Newer { path: path(), found: 3, supported: 1 },
                "cannot use journal `journal/7` of format 3, this program knows formats up to 1",
            ),
            (
                StoreError::io("append to journal", &path())(source),
                "cannot append to journal `journal/7`",
            ),
        ];
        for (error, expected) in &cases {
            assert_eq!(error.to_string(), *expected);
        }
        assert_eq!(cases[4].0.source().unwrap().to_string(), "disk full");
    }
}
