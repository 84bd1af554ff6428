//! The one way to build a child process.

use std::ffi::OsStr;
use std::path::Path;
use std::process::{Command, Stdio};

/// Returns a command for `program` in the folder `dir`, with standard input closed.
///
/// The environment is inherited; git and agents fix theirs in [`crate::git`] and
/// [`crate::agent`].
#[expect(clippy::disallowed_methods, reason = "this is the one place that builds commands")]
pub fn command(program: impl AsRef<OsStr>, dir: &Path) -> Command {
    let mut command = Command::new(program);
    command.current_dir(dir).stdin(Stdio::null());
    command
}
