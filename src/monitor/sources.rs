//! What wakes the loop: keepers and effects by channel, files by notify, signals. All are hints
//! but the events themselves; polling alone suffices.

use std::path::{Path, PathBuf};
use std::sync::mpsc::Sender;
use std::thread;

use notify::{RecommendedWatcher, RecursiveMode, Watcher};
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};
use signal_hook::iterator::Signals;

use crate::agent::probe::Probe;
use crate::machine::EventBody;
use crate::machine::id::AttemptId;

/// Something that arrived.
#[derive(Debug)]
pub enum Input {
    Event(EventBody),
    /// The attempt's process runs.
    Started(AttemptId),
    KeeperLost { agent: String, attempt: String, found: Option<Probe> },
    Superseded { agent: String },
    /// The journal may have grown.
    Journal,
    /// Refs, settings or the current-task file may have changed.
    Files,
    Signal(i32),
}

/// Watches files until dropped; `None` where the kernel has no events to give.
pub fn watch_files(
    journal: &Path,
    others: &[PathBuf],
    input: &Sender<Input>,
) -> notify::Result<RecommendedWatcher> {
    let sender = input.clone();
    let journal_dir = journal.to_path_buf();
    let mut watcher = notify::recommended_watcher(move |event: notify::Result<notify::Event>| {
        // An error (overflow among them) means that something was missed: look at everything.
        let Ok(event) = event else {
            let _ = sender.send(Input::Files);
            return;
        };
        if event.kind.is_access() {
            return;
        }
        let is_journal = |path: &PathBuf| path.starts_with(&journal_dir);
        let is_noise = |path: &PathBuf| {
            let name = path.file_name().unwrap_or_default().to_string_lossy();
            name.ends_with(".lock") || name.ends_with(".tmp")
        };
        let paths = || event.paths.iter().filter(|path| !is_noise(path));
        if paths().any(|path| !is_journal(path)) || event.need_rescan() {
            let _ = sender.send(Input::Files);
        } else if paths().any(is_journal) {
            let _ = sender.send(Input::Journal);
        }
    })?;
    watcher.watch(journal, RecursiveMode::NonRecursive)?;
    for path in others.iter().filter(|path| path.exists()) {
        watcher.watch(path, RecursiveMode::NonRecursive)?;
    }
    Ok(watcher)
}

/// Passes on SIGINT, SIGTERM and SIGHUP.
///
/// # Errors
/// When the handlers cannot be set.
pub fn watch_signals(input: &Sender<Input>) -> std::io::Result<signal_hook::iterator::Handle> {
    let mut signals = Signals::new([SIGINT, SIGTERM, SIGHUP])?;
    let handle = signals.handle();
    let sender = input.clone();
    crate::sys::fail::point("signals.spawn")?;
    thread::Builder::new().name("signals".into()).spawn(move || {
        for signal in signals.forever() {
            if sender.send(Input::Signal(signal)).is_err() {
                return;
            }
        }
    })?;
    Ok(handle)
}
