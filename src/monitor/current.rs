//! Sequential mode's `current-task.txt`: written by us, may be edited by a person.

use std::fs;
use std::path::PathBuf;

use crate::config::layout::Layout;
use crate::machine::State;
use crate::machine::mode::Orchestration;
use crate::sys::file::{Durability, read_bounded, write_atomic};

/// More than any task id.
const BYTES_MAX: u64 = 4096;

/// What we know of the file. An edit stays until it has been read, however much happens meanwhile.
#[derive(Debug, Default)]
pub struct CurrentFile {
    /// What stands there by our hand; `None`: whatever stands there is of no account.
    written: Option<String>,
    /// The last edit that was read.
    edit: Option<String>,
}

impl CurrentFile {
    /// Returns the file of a project whose state is `state`; what differs from it is an edit.
    pub fn of(state: &State) -> Self {
        let is_kept = state.orchestration == Orchestration::Sequential;
        Self { written: is_kept.then(|| id_of(state)), edit: None }
    }

    /// Writes the current task's id, if that is not what stands there, and no edit does.
    pub fn write(&mut self, layout: &Layout, state: &State) {
        if state.orchestration != Orchestration::Sequential {
            self.written = None;
            return;
        }
        let (path, wanted) = (path(layout, state), id_of(state));
        let found = fs::read_to_string(&path).ok().map(|text| text.trim().to_owned());
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
        }
        self.written = Some(wanted);
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
