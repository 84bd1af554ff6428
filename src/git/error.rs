//! What can go wrong with git.

use std::error::Error;
use std::path::PathBuf;
use std::{fmt, io};

use super::oid::{Oid, OidError};

/// What git wrote to its standard error, whole.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Stderr(pub String);

impl fmt::Display for Stderr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0.trim_end() {
            "" => f.write_str("git wrote no message"),
            text => f.write_str(text),
        }
    }
}

impl Error for Stderr {}

/// A git operation that did not succeed.
#[derive(Debug)]
pub enum GitError {
    /// The folder lies in no repository.
    NotARepository {
        /// Where was looked.
        dir: PathBuf,
        /// What git said.
        stderr: Stderr,
    },
    /// The repository has no commit yet.
    NoCommits {
        /// Its root.
        root: PathBuf,
    },
    /// The repository has no checkout.
    Bare {
        /// Where was looked.
        dir: PathBuf,
        /// It once had one, so that somebody only set it to be bare.
        had_checkout: bool,
    },
    /// The git folder lies apart from the main checkout, and does not say where that is.
    NoCheckout {
        /// Where was looked.
        dir: PathBuf,
        /// The git folder.
        common: PathBuf,
    },
    /// Git could not be started, or its output not read; nothing may be assumed about the outcome.
    Start {
        /// The command line.
        call: String,
        /// Why.
        source: io::Error,
    },
    /// Git ended with a status that means failure.
    Failed {
        /// The command line.
        call: String,
        /// Its folder.
        dir: PathBuf,
        /// Its exit status.
        code: i32,
        /// What it said.
        stderr: Stderr,
    },
    /// Git was ended by a signal: whether it did its work is unknown. Probe or repeat.
    Killed {
        /// The command line.
        call: String,
        /// Its folder.
        dir: PathBuf,
        /// The signal's number.
        signal: i32,
        /// What it said.
        stderr: Stderr,
    },
    /// Git did not end in time and was ended: whether it did its work is unknown. Probe or repeat.
    Late {
        /// The command line.
        call: String,
        /// Its folder.
        dir: PathBuf,
        /// How long it was given.
        limit_ms: u64,
        /// What it said.
        stderr: Stderr,
    },
    /// Git answered with something this program does not understand.
    Answer {
        /// The command line.
        call: String,
        /// What was found.
        found: String,
    },
    /// A file or folder of ours could not be read or written.
    File {
        /// The verb, as in "cannot {doing} `path`".
        doing: &'static str,
        /// On what.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// Another git of ours, perhaps of a monitor that died, is still at work in the same place.
    Busy {
        /// The lock it holds.
        path: PathBuf,
        /// How long was waited.
        wait_ms: u64,
    },
    /// The place for a worktree is taken by something that is not ours.
    ForeignSlot {
        /// The place.
        path: PathBuf,
        /// What is there.
        why: &'static str,
    },
    /// Something came into a worktree while nobody worked there, and is kept nowhere yet.
    Disturbed {
        /// The worktree.
        path: PathBuf,
    },
    /// A worktree does not stand where it was put.
    SlotHead {
        /// The worktree.
        path: PathBuf,
        /// Where it stands; empty when nowhere.
        found: String,
        /// Where it should.
        expected: Oid,
    },
    /// A ref outside `refs/heads/pipeline/` and `refs/pipeline/` would have been moved or removed.
    ForeignRef {
        /// The ref's full name.
        name: String,
    },
}

impl GitError {
    /// Returns what the person can do, where that is known.
    #[must_use]
    pub fn hint(&self) -> Option<String> {
        match self {
            Self::NotARepository { .. } => Some("run `git init` here, or use `-C DIR`".into()),
            Self::NoCommits { .. } => {
                Some("make a first commit: `git commit --allow-empty -m first`".into())
            }
            Self::Bare { dir, had_checkout: true } => Some(format!(
                "use a clone that has a checkout, or if somebody only set that: \
                 git -C {} config core.bare false",
                crate::sys::file::shell_path(dir)
            )),
            Self::Bare { dir, had_checkout: false } => Some(format!(
                "use a clone with a checkout of its own, which a worktree of a bare repository is \
                 not: git clone {} NEW-DIR",
                crate::sys::file::shell_path(dir)
            )),
            Self::NoCheckout { .. } => {
                Some("run it in the main checkout, or use `-C DIR` with that".into())
            }
            Self::Start { .. } => Some("is git 2.38 or newer installed and in `PATH`?".into()),
            Self::ForeignSlot { path, .. } | Self::Disturbed { path } => {
                Some(format!("move `{}` out of the way", path.display()))
            }
            Self::Late { .. } => Some("does its disk answer, and do its filters?".into()),
            Self::Busy { .. } => Some("try again when that git has ended".into()),
            // It may be a person's.
            Self::Failed { .. } => self.lock().map(|lock| {
                let path = crate::sys::file::shell_path(&lock);
                format!("when no git runs here, type: rm -f {path}")
            }),
            Self::Killed { .. }
            | Self::Answer { .. }
            | Self::File { .. }
            | Self::SlotHead { .. }
            | Self::ForeignRef { .. } => None,
        }
    }

    /// Returns the lock file that kept git from its work: of another git, or of one that was killed.
    #[must_use]
    pub fn lock(&self) -> Option<PathBuf> {
        let Self::Failed { dir, stderr, .. } = self else { return None };
        let (_, rest) = stderr.0.split_once("Unable to create '")?;
        Some(dir.join(rest.split_once("': File exists")?.0))
    }

    pub(super) fn answer(call: &str, found: &[u8]) -> Self {
        Self::Answer { call: call.into(), found: String::from_utf8_lossy(found).into_owned() }
    }

    pub(super) fn bad_oid(call: &str, error: OidError) -> Self {
        Self::Answer { call: call.into(), found: error.text }
    }
}

impl fmt::Display for GitError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NotARepository { dir, .. } => {
                write!(f, "cannot find a git repository at `{}`", dir.display())
            }
            Self::NoCommits { root } => {
                write!(f, "cannot use the repository `{}`: it has no commit", root.display())
            }
            Self::Bare { dir, .. } => {
                write!(f, "cannot use the repository at `{}`: it is bare", dir.display())
            }
            Self::NoCheckout { dir, common } => write!(
                f,
                "cannot find the main checkout of the repository at `{}`: its git folder `{}` lies \
                 apart, and does not say where it is",
                dir.display(),
                common.display()
            ),
            Self::Start { call, .. } => write!(f, "cannot run `{call}`"),
            Self::Failed { call, dir, code, .. } => {
                write!(f, "cannot run `{call}` in `{}`: exit status {code}", dir.display())
            }
            Self::Killed { call, dir, signal, .. } => write!(
                f,
                "cannot tell how `{call}` in `{}` ended: killed by signal {signal}",
                dir.display()
            ),
            Self::Late { call, dir, limit_ms, .. } => write!(
                f,
                "cannot tell how `{call}` in `{}` ended: it took longer than {limit_ms} ms",
                dir.display()
            ),
            Self::Answer { call, found } => {
                write!(f, "cannot understand the answer of `{call}`: found `{found}`")
            }
            Self::File { doing, path, .. } => write!(f, "cannot {doing} `{}`", path.display()),
            Self::Busy { path, wait_ms } => write!(
                f,
                "cannot get `{}` within {wait_ms} ms: another git of the pipeline holds it",
                path.display()
            ),
            Self::ForeignSlot { path, why } => {
                write!(f, "cannot use `{}` as a worktree: {why}", path.display())
            }
            Self::Disturbed { path } => write!(
                f,
                "cannot use the worktree `{}`: something in it came after its last attempt",
                path.display()
            ),
            Self::SlotHead { path, found, expected } => write!(
                f,
                "cannot prepare the worktree `{}`: it stands at `{found}`, expected `{expected}`",
                path.display()
            ),
            Self::ForeignRef { name } => {
                write!(f, "cannot move `{name}`: it is not a ref of the pipeline")
            }
        }
    }
}

impl Error for GitError {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        match self {
            Self::Start { source, .. } | Self::File { source, .. } => Some(source),
            Self::NotARepository { stderr, .. }
            | Self::Failed { stderr, .. }
            | Self::Killed { stderr, .. }
            | Self::Late { stderr, .. } => Some(stderr),
            Self::NoCommits { .. }
            | Self::Bare { .. }
            | Self::NoCheckout { .. }
            | Self::Answer { .. }
            | Self::Busy { .. }
            | Self::ForeignSlot { .. }
            | Self::Disturbed { .. }
            | Self::SlotHead { .. }
            | Self::ForeignRef { .. } => None,
        }
    }
}
