//! The epics of a backlog: listed, or made of the names that tasks give.

use std::collections::{BTreeMap, BTreeSet};

use crate::machine::event::NewTask;
use crate::machine::id::{TASK_ID_BYTES_MAX, TaskId};
use crate::machine::task::{Spec, TaskKind};

/// Epics known so far; ids that differ in case only are one.
#[derive(Debug, Default)]
pub(super) struct Epics {
    /// By id in lower case.
    listed: BTreeMap<String, Entry>,
    /// Id in lower case by title.
    titles: BTreeMap<String, String>,
}

#[derive(Debug)]
struct Entry {
    epic: NewTask,
    /// What it names as its own epic.
    above: Option<String>,
    is_wanted: bool,
}

impl Epics {
    /// Takes an epic that the file lists. One that is not `is_wanted` counts only when named.
    ///
    /// Returns false when there is one of that id already.
    pub(super) fn list(&mut self, epic: NewTask, above: Option<String>, is_wanted: bool) -> bool {
        let Some(id) = &epic.id else { return false };
        let key = id.as_str().to_ascii_lowercase();
        self.titles.entry(epic.spec.title.clone()).or_insert_with(|| key.clone());
        let entry = Entry { epic, above, is_wanted };
        self.listed.insert(key, entry).is_none()
    }

    /// Returns the id of the epic of that id or title; makes one when there is none.
    ///
    /// # Errors
    /// When no id can be made of the name.
    pub(super) fn named(&mut self, name: &str) -> Result<TaskId, String> {
        let lower = name.to_ascii_lowercase();
        if self.listed.contains_key(&lower) {
            return Ok(self.want(&lower));
        }
        if let Some(key) = self.titles.get(name).cloned() {
            return Ok(self.want(&key));
        }
        let id = name.parse().or_else(|_| slug(name))?;
        let key = id.as_str().to_ascii_lowercase();
        if !self.listed.contains_key(&key) {
            let title = name.trim().to_owned();
            let spec = Spec { title, kind: TaskKind::Epic, ..Spec::default() };
            let epic = NewTask {
                id: Some(id),
                spec,
                is_front: false,
                is_held: false,
                may_lack_dependencies: false,
            };
            self.list(epic, None, true);
        }
        Ok(self.want(&key))
    }

    /// Returns the listed epic of that id, as something that is depended on; `None` when there is
    /// none.
    pub(super) fn depended(&mut self, id: &TaskId) -> Option<TaskId> {
        let key = id.as_str().to_ascii_lowercase();
        self.listed.contains_key(&key).then(|| self.want(&key))
    }

    fn want(&mut self, key: &str) -> TaskId {
        let entry = self.listed.get_mut(key).expect("callers looked the key up");
        entry.is_wanted = true;
        entry.epic.id.clone().expect("only epics with an id are listed")
    }

    /// Returns the wanted epics and those above them, in order of their ids in lower case.
    ///
    /// # Errors
    /// When no id can be made of a name above.
    pub(super) fn wanted(mut self) -> Result<Vec<NewTask>, String> {
        let mut done = BTreeSet::new();
        loop {
            let open = |(key, entry): (&String, &Entry)| {
                (entry.is_wanted && !done.contains(key)).then(|| key.clone())
            };
            let Some(key) = self.listed.iter().find_map(open) else { break };
            if let Some(above) = self.listed[&key].above.clone() {
                let parent = self.named(&above)?;
                let entry = self.listed.get_mut(&key).expect("it was found above");
                entry.epic.spec.parent = Some(parent);
            }
            done.insert(key);
        }
        let wanted = self.listed.into_values().filter(|entry| entry.is_wanted);
        Ok(wanted.map(|entry| entry.epic).collect())
    }
}

/// Makes an id of a name: what an id may not hold becomes `-`.
pub(super) fn slug(name: &str) -> Result<TaskId, String> {
    let mut text = String::new();
    for c in name.chars() {
        let is_kept = c.is_ascii_alphanumeric() || (c == '_' && !text.is_empty());
        let last = text.chars().next_back();
        if is_kept {
            text.push(c);
        } else if last.is_some_and(|last| !".-".contains(last)) {
            text.push(if c == '.' { '.' } else { '-' });
        }
    }
    text.truncate(TASK_ID_BYTES_MAX);
    let text = text.trim_end_matches(['-', '.', '_']);
    let text = text.strip_suffix(".lock").unwrap_or(text);
    text.parse().map_err(|_| format!("no id can be made of `{}`", name.escape_debug()))
}

#[cfg(test)]
mod tests {
    use super::slug;

    #[test]
    fn names_become_ids() {
        let long = "x".repeat(80);
        for (name, id) in [
            ("Wave 1: the core", "Wave-1-the-core"),
            ("  a..b/c.lock ", "a.b-c"),
            ("--_v1.2_x--", "v1.2_x"),
            (long.as_str(), &long[..64]),
        ] {
            assert_eq!(slug(name).map(|id| id.as_str().to_owned()).as_deref(), Ok(id), "{name}");
        }
        assert!(slug("…").is_err() && slug("").is_err());
    }
}
