//! The monitor's place, for a command that wants no process of ours beside it.

use std::fs;
use std::thread;
use std::time::Duration;

use super::error::Error;
use crate::agent::rendezvous::lock_path;
use crate::config::layout::Layout;
use crate::store::lock::{FileLock, is_held, read_owner};
use crate::sys::clock;

/// How long keepers may take to leave once nothing is to be done.
const KEEPERS_WAIT: Duration = Duration::from_secs(10);
/// Between two looks at them.
const PAUSE: Duration = Duration::from_millis(20);

/// Takes the monitor's place for `command`, once the keepers have left, which they do when they have
/// nothing to do; `doing`: what cannot be done beside them.
///
/// # Errors
/// A monitor or a keeper runs; the lock cannot be had.
pub fn take(layout: &Layout, command: &str, doing: &str) -> Result<FileLock, Error> {
    let begun = clock::monotonic();
    loop {
        let place = place(layout, command, doing)?;
        let Some(name) = keeper(layout) else { return Ok(place) };
        // A monitor that begins meanwhile is not kept from it.
        drop(place);
        while keeper(layout).is_some() && begun.elapsed() <= KEEPERS_WAIT {
            thread::sleep(PAUSE);
        }
        if begun.elapsed() > KEEPERS_WAIT {
            return Err(Error::busy(format!("cannot {doing} while agent `{name}` is at work"))
                .hint("wait for it, or end it with `pipeline stop --now`"));
        }
    }
}

fn place(layout: &Layout, command: &str, doing: &str) -> Result<FileLock, Error> {
    let path = layout.monitor_lock();
    let lock = FileLock::try_exclusive(&path, command).map_err(|error| {
        Error::failed(format!("cannot lock `{}`", path.display())).because(&error).at(&path)
    })?;
    lock.ok_or_else(|| {
        match read_owner(&path) {
            Some(owner) if owner.what != "monitor" => {
                Error::busy(format!("cannot {doing} beside {owner}"))
                    .hint("try again when it has ended")
            }
            owner => {
                let owner = owner.map_or(String::new(), |owner| format!(": {owner}"));
                Error::busy(format!("cannot {doing} while a monitor runs{owner}"))
                    .hint("end it with `pipeline stop`")
            }
        }
        .at(&path)
    })
}

/// Returns an agent whose keeper lives.
fn keeper(layout: &Layout) -> Option<String> {
    let dirs = fs::read_dir(layout.keepers()).into_iter().flatten().flatten();
    let found = dirs.map(|entry| entry.path()).find(|dir| is_held(&lock_path(dir)).unwrap_or(true));
    found.map(|dir| dir.file_name().unwrap_or_default().to_string_lossy().into_owned())
}
