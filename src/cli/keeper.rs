//! `pipeline __keeper`, `__pane` and `__exec`: the processes that hold one agent.

use std::ffi::OsString;
use std::path::{Path, PathBuf};

use super::error::Error;
use crate::agent::keeper::{self, KeeperOptions};
use crate::agent::rendezvous::lock_path;
use crate::agent::spawn::exec_on_terminal;
use crate::agent::terminal::shim;
use crate::monitor::report::has_marker;
use crate::store::lock::FileLock;

/// Serves one agent; `args`: agent, its folder, its socket.
///
/// # Errors
/// When another keeper holds the agent, or the keeper fails.
pub fn run(args: &[OsString]) -> Result<(), Error> {
    let [agent, dir, socket] = args else {
        return Err(Error::usage("`__keeper` is started by the monitor only"));
    };
    let (dir, socket) = (PathBuf::from(dir), PathBuf::from(socket));
    let path = lock_path(&dir);
    let lock = FileLock::try_exclusive(&path, "keeper").map_err(|error| {
        Error::failed(format!("cannot lock `{}`", path.display())).because(&error)
    })?;
    let lock = lock.ok_or_else(|| Error::busy(format!("`{}` is held", path.display())))?;
    let agent = agent.to_string_lossy().into_owned();
    let options = KeeperOptions { agent, dir, socket, marker_seen: has_marker };
    keeper::run(options, lock).map_err(|error| Error::failed("the keeper failed").because(&error))
}

/// Holds one agent's window; `args`: its keeper's socket, the agent.
///
/// # Errors
/// When the keeper is not there, or the window fails.
pub fn hold_window(args: &[OsString]) -> Result<(), Error> {
    let [socket, agent] = args else {
        return Err(Error::usage("`__pane` is started by a keeper only"));
    };
    let agent = agent.to_string_lossy();
    shim::run(Path::new(socket), &agent, has_marker)
        .map_err(|error| Error::failed("the agent's window failed").because(&error))
}

/// Becomes a program on the terminal that is the standard input; `args`: its file, name, arguments.
pub fn exec(args: &[OsString]) -> Error {
    let name = args.first().map(|name| name.to_string_lossy()).unwrap_or_default();
    let error = exec_on_terminal(args);
    Error::failed(format!("cannot start `{name}`")).because(&error)
}
