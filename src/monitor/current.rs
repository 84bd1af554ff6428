//! Sequential mode's `current-task.txt`: written by us, may be edited by a person.

use std::fs;

use crate::config::layout::Layout;
use crate::machine::State;
use crate::machine::mode::Orchestration;
use crate::sys::file::{Durability, read_bounded, write_atomic};

/// More than any task id.
const BYTES_MAX: u64 = 4096;

/// Writes the current task's id, if that is not what stands there.
pub fn write(layout: &Layout, state: &State) {
    if state.orchestration != Orchestration::Sequential {
        return;
    }
    let path = layout.root.join(&state.settings.project.current_task_file);
    let wanted = state.current.as_ref().map_or(String::new(), |id| format!("{id}\n"));
    if fs::read_to_string(&path).is_ok_and(|found| found == wanted) {
        return;
    }
    // For people to look at: a run does not depend on it.
    let _ = write_atomic(&path, wanted.as_bytes(), Durability::Process);
}

/// Returns what a person wrote there, trimmed; `None`: nothing, or what we wrote ourselves.
pub fn read_edit(layout: &Layout, state: &State) -> Option<String> {
    if state.orchestration != Orchestration::Sequential {
        return None;
    }
    let path = layout.root.join(&state.settings.project.current_task_file);
    let bytes = read_bounded(&path, BYTES_MAX).ok()??;
    let text = String::from_utf8_lossy(&bytes).trim().to_owned();
    let ours = state.current.as_ref().map_or("", |id| id.as_str());
    (!text.is_empty() && text != ours).then_some(text)
}
