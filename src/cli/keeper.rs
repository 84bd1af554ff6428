//! `pipeline __keeper`: the process that holds one agent.

use std::ffi::OsString;
use std::path::PathBuf;

use super::error::Error;
use crate::agent::keeper::{self, KeeperOptions};
use crate::agent::rendezvous::lock_path;
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
