//! Sequential mode's `current-task.txt`: written by us, may be edited by a person.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use super::progress::Progress;
use crate::config::layout::Layout;
use crate::machine::State;
use crate::machine::mode::Orchestration;
use crate::sys::clock;
use crate::sys::file::{Durability, read_bounded, write_atomic};

/// More than any task id.
const BYTES_MAX: u64 = 4096;
/// How long a file that somebody has emptied is left to him: most programs empty a file first, and
/// write into it then.
const EMPTIED_GRACE: Duration = Duration::from_secs(2);

/// What we know of the file. An edit stays until it has been read, however much happens meanwhile.
#[derive(Debug, Default)]
pub struct CurrentFile {
    /// What stands there by our hand; `None`: whatever stands there is of no account.
    written: Option<String>,
    /// The last edit that was read.
    edit: Option<String>,
    /// Since when it is seen empty where we had written something.
    emptied_at: Option<Instant>,
    /// True once it was said that what stands there is no file of ours, until it is one.
    is_odd: bool,
}

impl CurrentFile {
    /// Returns the file of a project whose state is `state`; what differs from it is an edit.
    pub fn of(state: &State) -> Self {
        let is_kept = state.orchestration == Orchestration::Sequential;
        Self { written: is_kept.then(|| id_of(state)), edit: None, emptied_at: None, is_odd: false }
    }

    /// Writes the current task's id, if that is not what stands there, and no edit does or is being
    /// made.
    pub fn write(&mut self, layout: &Layout, state: &State) {
        if state.orchestration != Orchestration::Sequential {
            self.written = None;
            return;
        }
        let (path, wanted) = (path(layout, state), id_of(state));
        let found = match read(&path) {
            Found::Text(text) => Some(text),
            Found::Nothing => None,
            // To be put back with a warning, by who reads the edits.
            Found::Odd(_) => return,
        };
        // Written over now, what is being written would go into a file without a name.
        if self.is_being_written(found.as_deref()) {
            return;
        }
        let is_edit = |found: &&String| {
            self.written.as_ref().is_some_and(|written| !found.is_empty() && *found != written)
        };
        if found.as_ref() != Some(&wanted) {
            if found.as_ref().is_some_and(|found| is_edit(&found)) {
                return;
            }
            put(&path, &wanted);
            self.emptied_at = None;
        }
        self.written = Some(wanted);
    }

    /// Returns true for a while after somebody has emptied the file.
    fn is_being_written(&mut self, found: Option<&str>) -> bool {
        let has_written = self.written.as_ref().is_some_and(|written| !written.is_empty());
        if found != Some("") || !has_written {
            self.emptied_at = None;
            return false;
        }
        let now = clock::monotonic();
        now.duration_since(*self.emptied_at.get_or_insert(now)) < EMPTIED_GRACE
    }

    /// Returns what a person wrote there, trimmed; `None`: nothing, or what we wrote ourselves. What is
    /// no small regular file is put back at once, with a warning.
    pub fn read_edit(
        &mut self,
        layout: &Layout,
        state: &State,
        progress: &Progress,
    ) -> Option<String> {
        if state.orchestration != Orchestration::Sequential {
            return None;
        }
        let path = path(layout, state);
        let found = read(&path);
        let was_odd = std::mem::replace(&mut self.is_odd, matches!(found, Found::Odd(_)));
        let text = match found {
            Found::Text(text) => text,
            Found::Nothing => return None,
            Found::Odd(why) => {
                if !was_odd {
                    let name = &state.settings.project.current_task_file;
                    progress.warn(&format!("current task: `{name}` is {why}: put back"));
                }
                // A folder stays: what is in it is not ours.
                put(&path, &id_of(state));
                self.written = Some(id_of(state));
                return None;
            }
        };
        let edit = (!text.is_empty() && text != id_of(state)).then_some(text);
        self.edit.clone_from(&edit);
        edit
    }

    /// Writes what holds over the edit that was read last, unless there is a newer one.
    pub fn put_back(&mut self, layout: &Layout, state: &State) {
        let found = read(&path(layout, state));
        if matches!(found, Found::Text(text) if self.edit.as_ref() == Some(&text)) {
            self.written = None;
            self.write(layout, state);
        }
    }
}

/// What stands at the place of the file.
enum Found {
    /// No file, or one that cannot be read now.
    Nothing,
    /// Its text, trimmed.
    Text(String),
    /// What nobody reads: an agent may have put it there, a pipe without an end or a link to anything.
    Odd(&'static str),
}

fn read(path: &Path) -> Found {
    match read_bounded(path, BYTES_MAX) {
        Ok(None) => Found::Nothing,
        Ok(Some(bytes)) => Found::Text(String::from_utf8_lossy(&bytes).trim().to_owned()),
        Err(_) => match fs::symlink_metadata(path) {
            Ok(meta) if !meta.is_file() => Found::Odd("not a regular file"),
            Ok(meta) if meta.len() > BYTES_MAX => Found::Odd("too large"),
            Ok(_) | Err(_) => Found::Nothing,
        },
    }
}

fn put(path: &Path, id: &str) {
    let end = if id.is_empty() { "" } else { "\n" };
    // For people to look at: a run does not depend on it.
    let _ = write_atomic(path, format!("{id}{end}").as_bytes(), Durability::Process);
}

fn path(layout: &Layout, state: &State) -> PathBuf {
    layout.root.join(&state.settings.project.current_task_file)
}

/// Returns the id of the current task; empty when there is none.
fn id_of(state: &State) -> String {
    state.current.as_ref().map_or(String::new(), ToString::to_string)
}

#[cfg(test)]
mod tests {
    use std::io::Write;
    use std::os::unix::fs::symlink;

    use rustix::fs::{CWD, FileType, Mode, mknodat};

    use super::*;
    use crate::machine::id::TaskId;
    use crate::machine::time::Time;
    use crate::monitor::progress::LogFormat;
    use crate::observe::support::settings;

    /// A sequential project whose current task is `A`, as its file says.
    fn place() -> (tempfile::TempDir, Layout, State, CurrentFile) {
        let dir = tempfile::tempdir().expect("temporary folder");
        let layout = Layout::of_folder(dir.path());
        fs::create_dir(layout.dot()).expect("its folder");
        let mut state = State::new(settings(), Time::default());
        state.orchestration = Orchestration::Sequential;
        let mut file = CurrentFile::of(&state);
        state.current = Some(TaskId::new("A"));
        file.write(&layout, &state);
        assert_eq!(text(&layout, &state), "A\n");
        (dir, layout, state, file)
    }

    fn voice() -> Progress {
        Progress::new(LogFormat::Text, false, true, false)
    }

    fn text(layout: &Layout, state: &State) -> String {
        fs::read_to_string(path(layout, state)).expect("it is there")
    }

    #[test]
    fn an_edit_that_has_emptied_the_file_and_not_yet_written_is_not_lost() {
        let (_dir, layout, mut state, mut file) = place();
        let mut editor = fs::File::create(path(&layout, &state)).expect("it is emptied");
        assert_eq!(file.read_edit(&layout, &state, &voice()), None);
        // What happens meanwhile has the file written again, were it not for the edit.
        file.write(&layout, &state);
        state.current = Some(TaskId::new("B"));
        file.write(&layout, &state);
        editor.write_all(b"C\n").expect("the edit");
        assert_eq!(file.read_edit(&layout, &state, &voice()).as_deref(), Some("C"));
        file.write(&layout, &state);
        assert_eq!(text(&layout, &state), "C\n");
    }

    #[test]
    fn a_file_that_stays_empty_is_written_again() {
        let (_dir, layout, state, mut file) = place();
        fs::write(path(&layout, &state), "").expect("it is emptied");
        file.write(&layout, &state);
        assert_eq!(text(&layout, &state), "");
        let begun = file.emptied_at.expect("it is seen");
        file.emptied_at = begun.checked_sub(EMPTIED_GRACE);
        file.write(&layout, &state);
        assert_eq!(text(&layout, &state), "A\n");
        // The next one who empties it has as much time.
        fs::write(path(&layout, &state), "").expect("it is emptied");
        file.write(&layout, &state);
        assert_eq!(text(&layout, &state), "");
    }

    #[test]
    fn what_is_no_small_file_is_put_back_unread() {
        let (dir, layout, state, mut file) = place();
        let (path, other) = (path(&layout, &state), dir.path().join("other"));
        fs::write(&other, "B\n").expect("a file");
        let pipe = || {
            let mode = Mode::RUSR | Mode::WUSR;
            mknodat(CWD, &path, FileType::Fifo, mode, 0).expect("a pipe");
        };
        let link = || symlink(&other, &path).expect("a link");
        let large = || {
            let file = fs::File::create(&path).expect("a file");
            file.set_len(1 << 40).expect("a large one");
        };
        for make in [&pipe as &dyn Fn(), &link, &large] {
            fs::remove_file(&path).expect("it is there");
            make();
            file.write(&layout, &state);
            file.put_back(&layout, &state);
            assert_eq!(file.read_edit(&layout, &state, &voice()), None);
            assert!(fs::symlink_metadata(&path).expect("it is there").is_file());
            assert_eq!(text(&layout, &state), "A\n");
        }
        assert_eq!(fs::read_to_string(&other).expect("it stays"), "B\n");
        // An edit that comes after counts.
        fs::write(&path, "B\n").expect("the edit");
        assert_eq!(file.read_edit(&layout, &state, &voice()).as_deref(), Some("B"));
    }
}
