//! Sequential mode's `current-task.txt`: written by us, may be edited by a person.

use std::fs;
use std::path::PathBuf;
use std::time::{Duration, Instant};

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
}

impl CurrentFile {
    /// Returns the file of a project whose state is `state`; what differs from it is an edit.
    pub fn of(state: &State) -> Self {
        let is_kept = state.orchestration == Orchestration::Sequential;
        Self { written: is_kept.then(|| id_of(state)), edit: None, emptied_at: None }
    }

    /// Writes the current task's id, if that is not what stands there, and no edit does or is being
    /// made.
    pub fn write(&mut self, layout: &Layout, state: &State) {
        if state.orchestration != Orchestration::Sequential {
            self.written = None;
            return;
        }
        let (path, wanted) = (path(layout, state), id_of(state));
        let found = fs::read_to_string(&path).ok().map(|text| text.trim().to_owned());
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
            // For people to look at: a run does not depend on it.
            let end = if wanted.is_empty() { "" } else { "\n" };
            let _ = write_atomic(&path, format!("{wanted}{end}").as_bytes(), Durability::Process);
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

    /// Returns what a person wrote there, trimmed; `None`: nothing, or what we wrote ourselves.
    pub fn read_edit(&mut self, layout: &Layout, state: &State) -> Option<String> {
        if state.orchestration != Orchestration::Sequential {
            return None;
        }
        let bytes = read_bounded(&path(layout, state), BYTES_MAX).ok()??;
        let text = String::from_utf8_lossy(&bytes).trim().to_owned();
        let edit = (!text.is_empty() && text != id_of(state)).then_some(text);
        self.edit.clone_from(&edit);
        edit
    }

    /// Writes what holds over the edit that was read last, unless there is a newer one.
    pub fn put_back(&mut self, layout: &Layout, state: &State) {
        let found = fs::read_to_string(path(layout, state)).unwrap_or_default();
        if self.edit.as_deref() == Some(found.trim()) {
            self.written = None;
            self.write(layout, state);
        }
    }
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

    use super::*;
    use crate::machine::id::TaskId;
    use crate::machine::time::Time;
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

    fn text(layout: &Layout, state: &State) -> String {
        fs::read_to_string(path(layout, state)).expect("it is there")
    }

    #[test]
    fn an_edit_that_has_emptied_the_file_and_not_yet_written_is_not_lost() {
        let (_dir, layout, mut state, mut file) = place();
        let mut editor = fs::File::create(path(&layout, &state)).expect("it is emptied");
        assert_eq!(file.read_edit(&layout, &state), None);
        // What happens meanwhile has the file written again, were it not for the edit.
        file.write(&layout, &state);
        state.current = Some(TaskId::new("B"));
        file.write(&layout, &state);
        editor.write_all(b"C\n").expect("the edit");
        assert_eq!(file.read_edit(&layout, &state).as_deref(), Some("C"));
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
}
