//! What wakes the loop: keepers and effects by channel, files by notify, signals. All are hints
//! but the events themselves; polling alone suffices.

use std::path::{Path, PathBuf};
use std::sync::mpsc::Sender;
use std::thread;

use notify::{RecommendedWatcher, RecursiveMode, Watcher};
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};
use signal_hook::iterator::Signals;

use super::hints::Sent;
use super::lookout;
use super::mend::Mended;
use super::progress::Progress;
use crate::agent::probe::Probe;
use crate::config::layout::Layout;
use crate::git::Repo;
use crate::machine::id::AttemptId;
use crate::machine::mode::Isolation;
use crate::machine::{EventBody, State};

/// Something that arrived.
#[derive(Debug)]
pub enum Input {
    Event(EventBody),
    /// The attempt's process runs.
    Started(AttemptId),
    KeeperLost {
        agent: String,
        attempt: String,
        found: Option<Probe>,
    },
    /// Its keeper lives, and will not tell of it by itself.
    Superseded {
        attempt: AttemptId,
    },
    /// It may be running, and its keeper does not answer, or what a dead one left would not end: it
    /// is looked for again.
    Doubtful {
        attempt: AttemptId,
        warning: String,
    },
    /// A look at what is outside of the worktrees.
    Looked(Box<lookout::Answer>),
    /// Branches of ours that were put back.
    Mended(Mended),
    /// The journal may have grown.
    Journal,
    /// Base or landing branch may have moved.
    Refs,
    /// Settings or current-task file may have changed.
    Files,
    Signal(i32),
}

/// What is watched.
#[derive(Debug, Clone)]
struct Watched {
    /// The journal's folder.
    journal: PathBuf,
    /// The folder in which the base's ref lies as a file, if there is git.
    refs: Option<PathBuf>,
    /// Files of the user that count: settings, current task.
    files: Vec<PathBuf>,
    /// Their folders are watched, since an editor replaces files by renaming.
    is_by_folder: bool,
}

/// Watches what matters of a project until dropped; where the kernel gives no events that is said, and
/// polling goes on without.
pub fn open_watcher(
    layout: &Layout,
    repo: Option<&Repo>,
    state: &State,
    to: (&Sender<Input>, &Sent),
    progress: &mut Progress,
) -> Option<RecommendedWatcher> {
    let current = layout.root.join(&state.settings.project.current_task_file);
    let base =
        repo.map(|repo| repo.common_dir().join("refs/heads").join(&state.settings.project.base));
    // Agents without a worktree write into the project's folder all the time: there the files are
    // watched themselves, and an editor's replacing them is for the poll to see.
    let is_bare = state.settings.project.isolation == Isolation::None;
    let watched = Watched {
        journal: layout.state.join("journal"),
        refs: base.and_then(|base| base.parent().map(PathBuf::from)),
        files: vec![layout.config(), current],
        is_by_folder: !is_bare,
    };
    let none = |error| {
        progress.warn(&format!("no file events ({error}): looking now and then instead"));
    };
    watch_files(&watched, to).map_err(none).ok()
}

fn watch_files(
    watched: &Watched,
    (input, hints): (&Sender<Input>, &Sent),
) -> notify::Result<RecommendedWatcher> {
    let (sender, hints) = (input.clone(), hints.clone());
    let seen = watched.clone();
    let mut watcher = notify::recommended_watcher(move |event: notify::Result<notify::Event>| {
        for input in inputs_of(&seen, event).into_iter().filter(|input| hints.is_new(input)) {
            // The loop has ended, and the watcher with it.
            let _ = sender.send(input);
        }
    })?;
    watcher.watch(&watched.journal, RecursiveMode::NonRecursive)?;
    let files = watched.files.iter().map(PathBuf::as_path);
    let parents =
        files.filter_map(|file| if watched.is_by_folder { file.parent() } else { Some(file) });
    let mut dirs: Vec<&Path> = watched.refs.as_deref().into_iter().chain(parents).collect();
    dirs.sort_unstable();
    dirs.dedup();
    for dir in dirs.iter().filter(|dir| dir.exists()) {
        watcher.watch(dir, RecursiveMode::NonRecursive)?;
    }
    Ok(watcher)
}

/// Returns what an event of the kernel is a hint to; everything, when some were lost.
fn inputs_of(watched: &Watched, event: notify::Result<notify::Event>) -> Vec<Input> {
    let event = match event {
        Ok(event) if !event.need_rescan() => event,
        Ok(_) | Err(_) => return vec![Input::Journal, Input::Refs, Input::Files],
    };
    if event.kind.is_access() {
        return Vec::new();
    }
    let below = |dir: &Path| event.paths.iter().any(|path| path.starts_with(dir));
    if below(&watched.journal) {
        return vec![Input::Journal];
    }
    let is_lock = |path: &PathBuf| path.extension().is_some_and(|ending| ending == "lock");
    let is_ref = watched.refs.as_deref().is_some_and(below) && !event.paths.iter().all(is_lock);
    let is_file = event.paths.iter().any(|path| watched.files.contains(path));
    let refs = is_ref.then_some(Input::Refs);
    refs.into_iter().chain(is_file.then_some(Input::Files)).collect()
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

#[cfg(test)]
mod tests {
    use notify::event::{Event, EventKind, Flag, ModifyKind, RenameMode};

    use super::*;

    fn hints(event: notify::Result<Event>) -> String {
        let watched = Watched {
            journal: "/p/.pipeline/state/journal".into(),
            refs: Some("/p/.git/refs/heads".into()),
            files: vec!["/p/pipeline.toml".into()],
            is_by_folder: true,
        };
        let words = inputs_of(&watched, event).into_iter().map(|input| format!("{input:?}"));
        words.collect::<Vec<_>>().join(" ")
    }

    fn renamed(path: &str) -> notify::Result<Event> {
        let kind = EventKind::Modify(ModifyKind::Name(RenameMode::To));
        Ok(Event::new(kind).add_path(path.into()))
    }

    #[test]
    fn lost_events_are_a_hint_to_everything() {
        let overflow = Event::new(EventKind::Other).set_flag(Flag::Rescan);
        assert_eq!(hints(Ok(overflow)), "Journal Refs Files");
        assert_eq!(hints(Err(notify::Error::generic("no watches left"))), "Journal Refs Files");
    }

    #[test]
    fn files_that_are_replaced_by_renaming_are_seen() {
        assert_eq!(hints(renamed("/p/pipeline.toml")), "Files");
        assert_eq!(hints(renamed("/p/.git/refs/heads/main")), "Refs");
        assert_eq!(hints(renamed("/p/.git/refs/heads/main.lock")), "");
        assert_eq!(hints(renamed("/p/.pipeline/state/journal/1.ndjson")), "Journal");
        assert_eq!(hints(renamed("/p/other.txt")), "");
    }
}
