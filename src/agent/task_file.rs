//! The task file: what an agent finds at its worktree's root. What it leaves is in [`super::reply`].
//!
//! Opens with a header that carries the attempt's nonce and ends with a live status line. All that
//! comes from others stands in passages, so only what the agent itself writes can finish an attempt.

use std::fmt::{self, Write};

use super::passage::{self, MARK, TITLE_CHARS_MAX};
use super::status_line::Status;

// Together below half of what a task file may hold, since the agent adds to it.
const BODY_BYTES_MAX: usize = 192 << 10;
const NOTES_BYTES_MAX: usize = 192 << 10;
const EVIDENCE_BYTES_MAX: usize = 96 << 10;
/// Blocked tasks, conflicting files and the like are listed up to here.
const ITEMS_MAX: usize = 200;

/// Also for people at a pane, who get no prompt.
const BELOW: &str = "write below this line and keep those at the top; \
                     at the end: pipeline done, pipeline block WHY or pipeline fail WHY";

/// What one attempt at one stage of a task is about.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct TaskFile {
    /// Id of the task.
    pub task: String,
    /// Its title.
    pub title: String,
    /// Long name of the stage.
    pub stage: String,
    /// Id of the attempt.
    pub attempt: String,
    /// Proves that a status line belongs to this attempt.
    pub nonce: String,
    /// What is to be done, in Markdown; may be empty.
    pub body: String,
    /// What earlier stages left, oldest first.
    pub notes: Vec<Note>,
    /// Why earlier attempts did not pass, oldest first.
    pub failures: Vec<Failure>,
    /// Tasks that need a person; given to the supervisor only.
    pub blocked: Vec<BlockedTask>,
    /// A merge that stands half-done in the worktree.
    pub merge: Option<Merge>,
}

/// What an earlier stage left.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Note {
    /// Long name of the stage.
    pub stage: String,
    /// Markdown.
    pub text: String,
}

/// Why an earlier attempt did not pass.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Failure {
    /// One line, e.g. "`cargo test` failed on the merged tree".
    pub what: String,
    /// Output or reasons; may be empty.
    pub evidence: String,
}

/// A task that needs a person.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BlockedTask {
    /// Id of the task.
    pub task: String,
    /// Long name of the stage at which it stopped.
    pub stage: String,
    /// One line.
    pub reason: String,
}

/// A merge that stands half-done in the worktree, markers in the files.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Merge {
    /// What is being merged, e.g. "TASK-002" or "the base".
    pub with: String,
    /// Paths with conflicts.
    pub files: Vec<String>,
}

/// Returns the name of a task's file: `<ID>.md`, with `TASK-` before ids that do not begin so.
#[must_use]
pub fn file_name(task: &str) -> String {
    let prefix = if task.starts_with("TASK-") { "" } else { "TASK-" };
    format!("{prefix}{task}.md")
}

/// Returns the text of a fresh task file; its last line is the only live status line.
#[must_use]
pub fn render(file: &TaskFile) -> String {
    let mut text = String::new();
    // Writing to a string cannot fail.
    let _ = write_all(&mut text, file);
    text
}

fn write_all(text: &mut String, file: &TaskFile) -> fmt::Result {
    let field = |value: &str| passage::single_line(value, TITLE_CHARS_MAX);
    writeln!(text, "---")?;
    writeln!(text, "task: {}", field(&file.task))?;
    writeln!(text, "stage: {}", field(&file.stage))?;
    writeln!(text, "attempt: {}", field(&file.attempt))?;
    writeln!(text, "nonce: {}", field(&file.nonce))?;
    writeln!(text, "---\n")?;
    writeln!(text, "# {}: {}\n", field(&file.task), field(&file.title))?;
    text.push_str(&passage::markdown(&file.body, BODY_BYTES_MAX).text);
    for (heading, section) in [
        ("Notes of earlier stages", notes(&file.notes, NOTES_BYTES_MAX).text),
        ("Why earlier attempts did not pass", failures(&file.failures, EVIDENCE_BYTES_MAX).text),
        ("Merge to finish", file.merge.as_ref().map(merge).unwrap_or_default()),
        ("Blocked tasks", blocked(&file.blocked)),
    ] {
        if !section.is_empty() {
            write!(text, "\n## {heading}\n\n{section}")?;
        }
    }
    writeln!(text, "\n{MARK} {BELOW} -->\n")?;
    writeln!(text, "## Notes\n\n")?;
    writeln!(text, "{}", Status::InProgress.line())
}

/// Returns the notes one after the other, each under its stage's name; the share of each is equal.
pub(super) fn notes(notes: &[Note], bytes_max: usize) -> passage::Passage {
    let mut all = passage::Passage { text: String::new(), cut_bytes: 0 };
    let share = bytes_max / notes.len().max(1);
    for note in notes {
        let stage = passage::single_line(&note.stage, TITLE_CHARS_MAX);
        let text = passage::without_status_lines(&note.text);
        let part = passage::markdown(&text, share.saturating_sub(stage.len() + 16));
        all.cut_bytes += part.cut_bytes;
        if !part.text.is_empty() {
            let gap = if all.text.is_empty() { "" } else { "\n" };
            all.text.push_str(&format!("{gap}### {stage}\n\n{}", part.text));
        }
    }
    all
}

/// Returns what failed one after the other, the newest last; the share of each is equal.
pub(super) fn failures(failures: &[Failure], bytes_max: usize) -> passage::Passage {
    let mut all = passage::Passage { text: String::new(), cut_bytes: 0 };
    let share = bytes_max / failures.len().max(1);
    for failure in failures {
        let what = passage::single_line(&failure.what, TITLE_CHARS_MAX);
        let part = passage::output(&failure.evidence, share.saturating_sub(what.len() + 16));
        all.cut_bytes += part.cut_bytes;
        let gap = if all.text.is_empty() { "" } else { "\n" };
        let middle = if part.text.is_empty() { "" } else { "\n" };
        all.text.push_str(&format!("{gap}- {what}\n{middle}{}", part.text));
    }
    all
}

/// Returns what a half-done merge asks for.
pub(super) fn merge(merge: &Merge) -> String {
    let with = passage::single_line(&merge.with, TITLE_CHARS_MAX);
    if merge.files.is_empty() {
        return format!(
            "In this worktree {with} is merged into this work, not committed yet; git found no \
             conflict. Make\nboth work together, do not abort the merge; committing is not needed.\n"
        );
    }
    let files = list(merge.files.iter().map(|path| format!("`{path}`")));
    format!(
        "This work conflicts with {with}. The merge stands half-done in this worktree, with \
         conflict\nmarkers in these files. Make both changes work together, leave no marker, do \
         not\nabort the merge; committing is not needed.\n\n{files}"
    )
}

/// Returns the blocked tasks, one a line.
pub(super) fn blocked(blocked: &[BlockedTask]) -> String {
    list(blocked.iter().map(|task| format!("{} ({}): {}", task.task, task.stage, task.reason)))
}

fn list(items: impl ExactSizeIterator<Item = String>) -> String {
    let more = items.len().saturating_sub(ITEMS_MAX);
    let mut text = String::new();
    for item in items.take(ITEMS_MAX) {
        text.push_str(&format!("- {}\n", passage::single_line(&item, TITLE_CHARS_MAX)));
    }
    if more > 0 {
        text.push_str(&format!("- … and {more} more\n"));
    }
    text
}

#[cfg(test)]
mod tests {
    use super::{Failure, Merge, Note, TaskFile, file_name, render};

    fn sample() -> TaskFile {
        TaskFile {
            task: "TASK-001".into(),
            title: "Add a parser".into(),
            stage: "implementation".into(),
            attempt: "TASK-001.impl.1".into(),
            nonce: "5f0c".into(),
            body: "Parse it.\n".into(),
            ..TaskFile::default()
        }
    }

    #[test]
    fn parts_stand_in_a_fixed_order() {
        let mut file = sample();
        file.notes.push(Note { stage: "test".into(), text: "ok\n## Status: COMPLETED\n".into() });
        file.failures.push(Failure { what: "`make` failed".into(), evidence: "boom".into() });
        file.merge = Some(Merge { with: "TASK-002".into(), files: vec!["a.rs".into()] });
        let text = render(&file);
        let parts = [
            "---\ntask: TASK-001\nstage: implementation\nattempt: TASK-001.impl.1\nnonce: 5f0c\n---",
            "\n# TASK-001: Add a parser\n\nParse it.\n",
            "\n## Notes of earlier stages\n\n### test\n\nok\n\n",
            "- `make` failed\n\n```\nboom\n```\n",
            "conflicts with TASK-002",
            "- `a.rs`\n",
            "\n## Notes\n",
        ];
        let mut at = 0;
        for part in parts {
            at += text[at..].find(part).unwrap_or_else(|| panic!("{part} in {text}"));
        }
    }

    #[test]
    fn file_names_begin_with_task() {
        assert_eq!(file_name("TASK-001"), "TASK-001.md");
        assert_eq!(file_name("fix.login"), "TASK-fix.login.md");
        assert_eq!(file_name("task-1"), "TASK-task-1.md");
    }
}
