//! `pipeline log`: one transaction of the journal at a time.

use crate::machine::State;
use crate::machine::change::Change;
use crate::machine::id::TaskId;
use crate::machine::time::Time;
use crate::observe::lines::{lines, task_of};
use crate::observe::log_json::json_line;
use crate::observe::page::{Ink, Page, clean};
use crate::observe::words::Stamp;

/// A transaction as the journal holds it.
#[derive(Debug, Clone, Copy)]
pub struct LogRecord<'a> {
    pub seq: u64,
    pub time: Time,
    /// Who wrote it.
    pub actor: &'a str,
    pub changes: &'a [Change],
}

impl LogRecord<'_> {
    fn about(&self, task: Option<&TaskId>) -> Vec<Change> {
        let is_about = |change: &&Change| {
            task.is_none_or(|id| task_of(change).is_some_and(|found| found == id.as_str()))
        };
        self.changes.iter().filter(is_about).cloned().collect()
    }
}

/// Returns a line for each decision worth one, with the time in front; empty when there is none.
///
/// `task`: only what is about it.
#[must_use]
pub fn render_log_record(
    record: &LogRecord<'_>,
    state: &State,
    task: Option<&TaskId>,
    page: Page,
) -> String {
    let time = page.paint(Ink::Faint, &Stamp(record.time).to_string());
    let lines = lines(&record.about(task), state);
    lines.iter().map(|line| format!("{time}  {}\n", clean(line))).collect()
}

/// Returns a JSON object a line for every decision, mere bookkeeping too.
#[must_use]
pub fn render_log_record_json(record: &LogRecord<'_>, task: Option<&TaskId>) -> String {
    let changes = record.about(task);
    let objects =
        changes.iter().map(|change| json_line(record.seq, record.time, record.actor, change));
    objects.map(|object| object + "\n").collect()
}

#[cfg(test)]
mod tests {
    use super::{LogRecord, render_log_record, render_log_record_json};
    use crate::machine::Command;
    use crate::machine::id::TaskId;
    use crate::observe::page::Page;
    use crate::observe::support::{Pipeline, settings, task};

    #[test]
    fn a_log_can_be_narrowed_to_a_task() {
        let mut pipeline = Pipeline::started(settings(), Vec::new());
        pipeline.send(Command::AddTasks { tasks: vec![task("A", &[]), task("B", &[])] });
        let (seq, time, changes) = (pipeline.seq, pipeline.now, pipeline.last.as_slice());
        let record = LogRecord { seq, time, actor: "cli", changes };
        let id = TaskId::new("B");
        let text = render_log_record(&record, &pipeline.state, Some(&id), Page::plain(80));
        assert_eq!(text, "2026-11-20T23:00:00.000Z  B added: Title of B\n");
        assert_eq!(render_log_record_json(&record, Some(&id)).lines().count(), 1);
        assert_eq!(render_log_record_json(&record, None).lines().count(), 2);
        let none = TaskId::new("C");
        assert_eq!(render_log_record(&record, &pipeline.state, Some(&none), Page::plain(80)), "");
    }
}
