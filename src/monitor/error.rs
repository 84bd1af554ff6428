//! Why a monitor could not run.

use std::fmt;
use std::io;
use std::path::PathBuf;

use crate::store::ledger::LedgerError;

/// Why it could not run.
#[derive(Debug)]
pub enum RunError {
    /// Another monitor runs.
    Taken {
        path: PathBuf,
        pid: Option<u32>,
    },
    /// Its lock was deleted or replaced while it ran: another monitor may have begun.
    Fenced {
        path: PathBuf,
    },
    Ledger(LedgerError),
    Io {
        attempt: String,
        source: io::Error,
    },
    Git(String),
}

impl fmt::Display for RunError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Taken { path, pid: Some(pid) } => {
                write!(f, "another monitor runs (process {pid} holds `{}`)", path.display())
            }
            Self::Taken { path, pid: None } => {
                write!(f, "another monitor runs (`{}` is held)", path.display())
            }
            Self::Fenced { path } => write!(
                f,
                "the lock `{}` was deleted or replaced, so another monitor may run: this one ends",
                path.display()
            ),
            Self::Ledger(error) => error.fmt(f),
            Self::Io { attempt, .. } => f.write_str(attempt),
            Self::Git(text) => f.write_str(text),
        }
    }
}

impl std::error::Error for RunError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Self::Ledger(error) => error.source(),
            Self::Io { source, .. } => Some(source),
            Self::Taken { .. } | Self::Fenced { .. } | Self::Git(_) => None,
        }
    }
}

impl From<LedgerError> for RunError {
    fn from(error: LedgerError) -> Self {
        Self::Ledger(error)
    }
}

/// Makes the error of an attempt to do something with a file.
pub(super) fn io_error(attempt: impl Into<String>) -> impl FnOnce(io::Error) -> RunError {
    let attempt = attempt.into();
    move |source| RunError::Io { attempt, source }
}
