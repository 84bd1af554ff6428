//! The task file: what an agent finds at its worktree's root. What it leaves is in [`super::reply`].
//!
//! Opens with a header that carries the attempt's nonce and ends with a live status line. All that
//! comes from others stands in passages, so only what the agent itself writes can finish an attempt.

use std::fmt::{self, Write};

use super::passage::{self, MARK, Passage, TITLE_CHARS_MAX, WHOLE};
use super::status_line::Status;

// Together below half of what a task file may hold, since the agent adds to it.
pub(super) const BODY_BYTES_MAX: usize = 192 << 10;
const NOTES_BYTES_MAX: usize = 192 << 10;
const EVIDENCE_BYTES_MAX: usize = 48 << 10;
pub(super) const HINT_BYTES_MAX: usize = 48 << 10;
/// Blocked tasks, conflicting files and the like are listed up to here.
const ITEMS_MAX: usize = 200;
/// Longest name of a stage or an attempt above its text, in characters.
const NAME_CHARS_MAX: usize = 100;
/// The least that a text among others is cut to, in bytes, its name included.
const PART_BYTES_MIN: usize = 4 * NAME_CHARS_MAX + 16 + passage::PASSAGE_BYTES_MIN;

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
    /// What a person said with `task retry --note`, in Markdown.
    pub hint: Option<String>,
    /// Tasks that need a person; given to the supervisor only.
    pub blocked: Vec<BlockedTask>,
    /// A merge that stands half-done in the worktree.
    pub merge: Option<Merge>,
    /// The attempt that it goes on from, which was cut short.
    pub resumed: Option<Resumed>,
}

/// An attempt at the same stage that was cut short.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Resumed {
    /// Its id; may be empty.
    pub attempt: String,
    /// How it ended, one line; may be empty.
    pub how: String,
    /// Where what it had done is.
    pub work: Work,
}

/// Where the work of an attempt is that was cut short.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Work {
    /// In the working folder.
    Here,
    /// It had changed no file.
    Nothing,
    /// It could not be taken over.
    Apart,
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
    let body = passage::markdown(&file.body, BODY_BYTES_MAX);
    text.push_str(&body.text);
    let sections = [
        (RESUMED, passage::whole(&resumed(file))),
        (NOTES, notes(&file.notes, NOTES_BYTES_MAX)),
        (BLOCKED, blocked(&file.blocked, WHOLE)),
        (FAILURES, failures(&file.failures, EVIDENCE_BYTES_MAX)),
        (MERGE, merge(file, WHOLE)),
        (PERSON, hint(file, HINT_BYTES_MAX)),
    ];
    for (heading, section) in &sections {
        if !section.text.is_empty() {
            write!(text, "\n## {heading}\n\n{}", section.text)?;
        }
    }
    let sections = sections.iter().map(|(heading, section)| (*heading, section.cut_bytes));
    let cut = [(TASK, body.cut_bytes)].into_iter().chain(sections).filter(|(_, cut)| *cut > 0);
    let cut: Vec<&str> = cut.map(|(heading, _)| heading).collect();
    if !cut.is_empty() {
        let task = field(&file.task);
        writeln!(
            text,
            "\nShortened above: {}. Whole: `pipeline task show {task}`.",
            cut.join(", ")
        )?;
    }
    writeln!(text, "\n{MARK} {BELOW} -->\n")?;
    writeln!(text, "## Notes\n\n")?;
    writeln!(text, "{}", Status::InProgress.line())
}

/// Headings of the sections, in task file and prompt.
pub(super) const TASK: &str = "The task";
pub(super) const PERSON: &str = "From a person";
pub(super) const RESUMED: &str = "Where you begin";
pub(super) const MERGE: &str = "Merge to finish";
pub(super) const FAILURES: &str = "Why earlier attempts did not pass";
pub(super) const NOTES: &str = "Notes of earlier stages";
pub(super) const BLOCKED: &str = "Blocked tasks";

/// Returns what a person said.
pub(super) fn hint(file: &TaskFile, bytes_max: usize) -> Passage {
    passage::markdown(file.hint.as_deref().unwrap_or_default(), bytes_max)
}

/// Returns what is to be known of the work that is there already; empty without any.
pub(super) fn resumed(file: &TaskFile) -> String {
    let Some(Resumed { attempt, how, work }) = &file.resumed else { return String::new() };
    let line = |text: &str| passage::single_line(text, NAME_CHARS_MAX);
    let aside = [attempt, how].map(|text| line(text)).into_iter().filter(|text| !text.is_empty());
    let aside = aside.collect::<Vec<_>>().join(": ");
    let aside = if aside.is_empty() { aside } else { format!(" ({aside})") };
    let rest = match work {
        Work::Here => {
            "What it had done is in this\nfolder: look at it, keep what is right, and go on from \
             there."
                .to_owned()
        }
        Work::Nothing => "It had changed no file.".to_owned(),
        Work::Apart => format!(
            "What it had done could\nnot be put in this folder: see `git show \
             refs/pipeline/salvage/{}`, where that is there.",
            line(attempt)
        ),
    };
    format!("An earlier attempt at this stage was cut short{aside}. {rest}\n")
}

/// Returns the greatest length to which texts of these lengths must be cut to fit in `room`
/// together: those that are shorter stay whole, and what they do not need goes to the others.
fn level(lengths: impl Iterator<Item = usize>, room: usize) -> usize {
    let mut lengths: Vec<usize> = lengths.collect();
    lengths.sort_unstable();
    let mut left = room;
    let mut count = lengths.len();
    for length in lengths {
        if length > left / count {
            return left / count;
        }
        left -= length;
        count -= 1;
    }
    usize::MAX
}

/// Cuts each of several texts so that all fit in `bytes_max`, and joins them by a blank line. Where
/// there are too many, the oldest are left out.
fn together<T>(items: &[T], bytes_max: usize, part: impl Fn(&T, usize) -> Passage) -> Passage {
    let most = (bytes_max / (PART_BYTES_MIN + 1)).max(1);
    let (old, kept) = items.split_at(items.len().saturating_sub(most));
    let mut all = passage::whole("");
    all.cut_bytes = old.iter().map(|item| part(item, WHOLE).text.len()).sum();
    let whole: Vec<Passage> = kept.iter().map(|item| part(item, WHOLE)).collect();
    // One byte for the blank line before each.
    let share = level(whole.iter().map(|whole| whole.text.len() + 1), bytes_max);
    for (item, whole) in kept.iter().zip(whole) {
        let part = if whole.text.len() < share { whole } else { part(item, share - 1) };
        let gap = if all.text.is_empty() || part.text.is_empty() { "" } else { "\n" };
        all.text.push_str(gap);
        all.text.push_str(&part.text);
        all.cut_bytes += part.cut_bytes;
    }
    all
}

/// Returns the notes one after the other, each under its stage's name; the longest are cut first.
pub(super) fn notes(notes: &[Note], bytes_max: usize) -> Passage {
    together(notes, bytes_max, |note, bytes_max| {
        let heading = format!("### {}\n\n", passage::single_line(&note.stage, NAME_CHARS_MAX));
        let text = passage::without_status_lines(&note.text);
        headed(heading, |room| passage::markdown(&text, room), bytes_max)
    })
}

/// Returns what failed one after the other, the newest last; the longest are cut first.
pub(super) fn failures(failures: &[Failure], bytes_max: usize) -> Passage {
    together(failures, bytes_max, |failure, bytes_max| {
        let what = format!("- {}\n", passage::single_line(&failure.what, NAME_CHARS_MAX));
        if failure.evidence.trim().is_empty() {
            return passage::whole(&what);
        }
        headed(what + "\n", |room| passage::output(&failure.evidence, room), bytes_max)
    })
}

/// Puts a heading before a text, unless that is empty.
fn headed(heading: String, text: impl Fn(usize) -> Passage, bytes_max: usize) -> Passage {
    let part = text(bytes_max.saturating_sub(heading.len()));
    let heading = if part.text.is_empty() { String::new() } else { heading };
    Passage { text: heading + &part.text, ..part }
}

/// Returns what a half-done merge asks for; empty without one.
pub(super) fn merge(file: &TaskFile, bytes_max: usize) -> Passage {
    let Some(merge) = &file.merge else { return passage::whole("") };
    let with = passage::single_line(&merge.with, NAME_CHARS_MAX);
    if merge.files.is_empty() {
        return passage::whole(&format!(
            "In this worktree {with} is merged into this work, not committed yet; git found no \
             conflict. Make\nboth work together, do not abort the merge; committing is not needed.\n"
        ));
    }
    let text = format!(
        "This work conflicts with {with}. The merge stands half-done in this worktree, with \
         conflict\nmarkers in these files. Make both changes work together, leave no marker, do \
         not\nabort the merge; committing is not needed. What has no markers (a link, a binary \
         file, one\nthat a side removed): `git add` or `git rm` it once it is as it should be.\n\n"
    );
    let files = merge.files.iter();
    headed(text, |room| list(files.clone().map(|path| format!("`{path}`")), room), bytes_max)
}

/// Returns the blocked tasks, one a line.
pub(super) fn blocked(blocked: &[BlockedTask], bytes_max: usize) -> Passage {
    let lines = blocked.iter();
    list(lines.map(|task| format!("{} ({}): {}", task.task, task.stage, task.reason)), bytes_max)
}

/// Returns one line for each item as far as they fit; the others are counted.
fn list(items: impl ExactSizeIterator<Item = String>, bytes_max: usize) -> Passage {
    /// Of the line that counts what is left out.
    const MORE_BYTES_MAX: usize = 40;
    let mut all = Passage { text: String::new(), cut_bytes: 0 };
    let mut left_out = 0;
    for (place, item) in items.enumerate() {
        let line = format!("- {}\n", passage::single_line(&item, TITLE_CHARS_MAX));
        let has_room = all.text.len() + line.len() + MORE_BYTES_MAX <= bytes_max;
        if place < ITEMS_MAX && left_out == 0 && has_room {
            all.text.push_str(&line);
        } else {
            left_out += 1;
            all.cut_bytes += line.len();
        }
    }
    if left_out > 0 {
        all.text.push_str(&format!("- … and {left_out} more\n"));
    }
    all
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
