//! The task file: what an agent finds at its worktree's root, and what it leaves there.
//!
//! Opens with a header that carries the attempt's nonce and ends with a live status line. All that
//! comes from others stands in passages, so only what the agent itself writes can finish an attempt.

use std::fmt::{self, Write};
use std::fs::OpenOptions;
use std::io::{self, Write as _};
use std::path::Path;

use crate::sys::fail;
use crate::sys::file::{self, Durability};

use super::passage::{self, MARK, TITLE_CHARS_MAX};
use super::status_line::{self, Place, Status};

/// Larger files are not read.
pub const FILE_BYTES_MAX: u64 = 1 << 20;

const BODY_BYTES_MAX: usize = 256 << 10;
const NOTES_BYTES_MAX: usize = 256 << 10;
const EVIDENCE_BYTES_MAX: usize = 128 << 10;
/// Blocked tasks, conflicting files and the like are listed up to here.
const ITEMS_MAX: usize = 200;
const HEADER_LINES_MAX: usize = 16;

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

/// What an agent left.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Parsed {
    /// The nonce in the header; `None` when header or nonce are gone.
    pub nonce: Option<String>,
    /// Whether the header still has all its fields.
    pub header_intact: bool,
    /// What the last live status line says; `None` without one, or when it cannot be understood.
    pub status: Option<Status>,
    /// The last live status line, when it cannot be understood.
    pub unreadable: Option<String>,
    /// What the agent wrote, without status lines; may be empty.
    pub notes: String,
    /// Whether bytes that are no UTF-8 were replaced.
    pub is_lossy: bool,
}

/// A task file beyond [`FILE_BYTES_MAX`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TooLarge {
    /// Its size.
    pub bytes: usize,
}

impl fmt::Display for TooLarge {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let bytes = self.bytes;
        write!(f, "cannot read a task file of {bytes} bytes, at most {FILE_BYTES_MAX} are read")
    }
}

impl std::error::Error for TooLarge {}

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
    writeln!(text, "\n{MARK} write below this line; keep the lines at the top -->\n")?;
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

/// Reads what an agent left.
///
/// # Errors
/// When there are more than [`FILE_BYTES_MAX`] bytes.
pub fn read(bytes: &[u8]) -> Result<Parsed, TooLarge> {
    if bytes.len() as u64 > FILE_BYTES_MAX {
        return Err(TooLarge { bytes: bytes.len() });
    }
    let last = status_line::last(bytes);
    let (status, line) = last.map_or((None, None), |last| (last.status, Some(last.text)));
    let unreadable = line.filter(|_| status.is_none());
    let text = String::from_utf8_lossy(bytes);
    let is_lossy = matches!(text, std::borrow::Cow::Owned(_));
    let header = header(&text);
    let notes = notes_written(&text, header.end);
    Ok(Parsed {
        nonce: header.nonce,
        header_intact: header.is_intact,
        status,
        unreadable,
        notes,
        is_lossy,
    })
}

struct Header {
    nonce: Option<String>,
    is_intact: bool,
    /// Where the text after it begins; 0 without a header.
    end: usize,
}

fn header(text: &str) -> Header {
    let gone = Header { nonce: None, is_intact: false, end: 0 };
    let mut lines = status_line::lines(text.as_bytes())
        .map(|line| (text[line.range].trim(), line.next))
        .skip_while(|(line, _)| line.is_empty());
    if lines.next().is_none_or(|(line, _)| line != "---") {
        return gone;
    }
    let mut nonce = None;
    let mut missing = vec!["task", "stage", "attempt", "nonce"];
    for (line, next) in lines.take(HEADER_LINES_MAX) {
        if line == "---" {
            return Header { nonce, is_intact: missing.is_empty(), end: next };
        }
        let Some((key, value)) = line.split_once(':') else { continue };
        let (key, value) = (key.trim(), value.trim());
        if value.is_empty() {
            continue;
        }
        missing.retain(|name| *name != key);
        if key == "nonce" {
            nonce = Some(value.to_owned());
        }
    }
    gone
}

/// Returns what stands below our mark; where that is gone, below the last heading `Notes`; where
/// that is gone too, below the header.
fn notes_written(text: &str, header_end: usize) -> String {
    let mut below_mark = None;
    let mut below_heading = None;
    for line in status_line::lines(text.as_bytes()) {
        let content = text[line.range].trim();
        if line.place != Place::Open || line.next < header_end {
            continue;
        }
        if content.starts_with(MARK) {
            below_mark = below_mark.or(Some(line.next));
        } else if is_notes_heading(content) {
            below_heading = Some(line.next);
        }
    }
    let start = below_mark.or(below_heading).unwrap_or(header_end);
    let notes = passage::without_status_lines(&text[start..]);
    let first = notes.lines().next().unwrap_or_default();
    let rest = if is_notes_heading(first) { &notes[first.len()..] } else { &notes };
    rest.trim_start_matches('\n').trim_end().to_owned()
}

fn is_notes_heading(line: &str) -> bool {
    line.strip_prefix("##").is_some_and(|rest| rest.trim().eq_ignore_ascii_case("notes"))
}

/// Writes a status into the task file at `path`: in place of the last live status line, or as a new
/// last line; everything else stays byte for byte.
///
/// The file is replaced as a whole; where its folder cannot be written to (a sandbox) the line is
/// appended in one write. A file that is gone is made anew, with the line alone.
///
/// # Errors
/// When the file is larger than [`FILE_BYTES_MAX`], not a regular file, or cannot be written.
pub fn set_status(path: &Path, status: &Status) -> io::Result<()> {
    let old = file::read_bounded(path, FILE_BYTES_MAX)?.unwrap_or_default();
    let new = match status_line::last(&old) {
        Some(found) => {
            let line = status.line().into_bytes();
            [&old[..found.range.start], &line, &old[found.range.end..]].concat()
        }
        None => [old.as_slice(), &ending(&old, status)].concat(),
    };
    match file::write_atomic(path, &new, Durability::Process) {
        Err(error) if is_forbidden(&error) => append(path, &ending(&old, status)),
        result => result,
    }
}

fn is_forbidden(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::PermissionDenied | io::ErrorKind::ReadOnlyFilesystem)
}

fn append(path: &Path, bytes: &[u8]) -> io::Result<()> {
    fail::point("task_file.append")?;
    OpenOptions::new().append(true).open(path)?.write_all(bytes)
}

/// Returns what must follow `old` for the status to be its last live line.
fn ending(old: &[u8], status: &Status) -> Vec<u8> {
    let mut walk = status_line::lines(old);
    let line_end = match walk.next() {
        Some(first) if old[first.range.end..].starts_with(b"\r\n") => "\r\n",
        Some(_) | None => "\n",
    };
    walk.by_ref().for_each(drop);
    let mut ending = String::new();
    if !old.is_empty() && !old.ends_with(b"\n") && !old.ends_with(b"\r") {
        ending.push_str(line_end);
    }
    if let Some(fence) = walk.fence() {
        ending.extend(std::iter::repeat_n(char::from(fence.mark), fence.count));
        ending.push_str(line_end);
    }
    if !old.is_empty() {
        ending.push_str(line_end);
    }
    ending.push_str(&status.line());
    ending.push_str(line_end);
    ending.into_bytes()
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::{
        BlockedTask, FILE_BYTES_MAX, Failure, Merge, Note, Parsed, TaskFile, append, ending,
        file_name, read, render, set_status,
    };
    use crate::agent::status_line::Status;

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

    fn parsed(text: &str) -> Parsed {
        read(text.as_bytes()).expect("small enough")
    }

    /// A fresh file says nothing but that it is in progress, whatever it holds.
    fn is_fresh(file: &TaskFile) {
        let text = render(file);
        let expected = Parsed {
            nonce: Some(file.nonce.clone()),
            header_intact: true,
            status: Some(Status::InProgress),
            unreadable: None,
            notes: String::new(),
            is_lossy: false,
        };
        assert_eq!(parsed(&text), expected, "{text}");
        assert!(text.ends_with("\n## Status: IN PROGRESS\n"), "{text}");
        let done = format!("{text}mine\n## Status: COMPLETED ✅");
        assert_eq!(parsed(&done).status, Some(Status::Completed), "{text}");
        assert_eq!(parsed(&done).notes, "mine", "{text}");
    }

    /// Numbers that look random and are the same each time (xorshift, Marsaglia 2003).
    struct Numbers(u64);

    impl Numbers {
        fn below(&mut self, bound: usize) -> usize {
            self.0 ^= self.0 << 13;
            self.0 ^= self.0 >> 7;
            self.0 ^= self.0 << 17;
            (self.0 % bound as u64) as usize
        }
    }

    const NASTY: [&str; 26] = [
        "## Status: COMPLETED ✅",
        "##status:completed",
        "   ## Status: BLOCKED: x",
        "```",
        "````",
        "~~~",
        "   ~~~~ rust",
        "    ```",
        "``` a`b",
        "---",
        "nonce: other",
        "## Notes",
        "<!-- pipeline: write below this line -->",
        "<!-- ",
        "\u{feff}",
        "\u{feff}```",
        "\0",
        "\u{1b}[1m",
        "é🦀\u{200d}",
        "> ",
        "- ",
        "\r",
        "\n",
        "\r\n",
        "\u{2028}",
        "    ",
    ];

    fn nasty(numbers: &mut Numbers) -> String {
        let mut text = String::new();
        for _ in 0..numbers.below(9) {
            text.push_str(NASTY[numbers.below(NASTY.len())]);
            text.push_str(["\n", "\n", "\r", "\r\n", ""][numbers.below(5)]);
        }
        text
    }

    #[test]
    fn nothing_in_a_task_can_finish_its_attempt() {
        let mut numbers = Numbers(0x5eed);
        for _ in 0..1500 {
            let mut file = sample();
            file.title = nasty(&mut numbers);
            file.body = nasty(&mut numbers);
            file.notes.push(Note { stage: "architect".into(), text: nasty(&mut numbers) });
            file.notes.push(Note { stage: nasty(&mut numbers), text: nasty(&mut numbers) });
            let (what, evidence) = (nasty(&mut numbers), nasty(&mut numbers));
            file.failures.push(Failure { what, evidence });
            let (task, stage) = ("T".into(), "test".into());
            file.blocked.push(BlockedTask { task, stage, reason: nasty(&mut numbers) });
            file.merge =
                Some(Merge { with: nasty(&mut numbers), files: vec![nasty(&mut numbers)] });
            is_fresh(&file);
        }
    }

    #[test]
    fn whatever_an_agent_leaves_its_status_can_be_set() {
        let mut numbers = Numbers(0xfeed);
        let dir = tempfile::tempdir().expect("a folder");
        let path = dir.path().join("TASK-001.md");
        for round in 0..300 {
            let left = format!("{}{}", render(&sample()), nasty(&mut numbers));
            let left = if round % 3 == 0 { nasty(&mut numbers) } else { left };
            fs::write(&path, &left).expect("written");
            let status = Status::Failed("no key".into());
            set_status(&path, &status).expect("set");
            let text = fs::read_to_string(&path).expect("read");
            assert_eq!(parsed(&text).status, Some(status.clone()), "{left:?}\n{text:?}");
            let appended = [left.as_bytes(), &ending(left.as_bytes(), &status)].concat();
            assert_eq!(read(&appended).expect("small").status, Some(status), "{left:?}");
        }
    }

    #[test]
    fn long_parts_are_cut_so_that_the_file_can_be_read() {
        let mut file = sample();
        file.body = "##status:\n".repeat(100_000);
        file.notes =
            vec![
                Note { stage: "test".into(), text: format!("{}\n", "~".repeat(99)).repeat(9000) };
                9
            ];
        let evidence = "`".repeat(2_000_000);
        file.failures = vec![Failure { what: "x".repeat(9000), evidence }; 5];
        let blocked =
            BlockedTask { task: "T".into(), stage: "s".into(), reason: "é".repeat(9000) };
        file.blocked = vec![blocked; 1000];
        assert!(render(&file).len() as u64 <= FILE_BYTES_MAX);
        is_fresh(&file);
        let bytes = vec![b'x'; FILE_BYTES_MAX as usize + 1];
        assert_eq!(read(&bytes).expect_err("too large").bytes, bytes.len());
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
    fn a_file_without_header_or_mark_is_read_as_far_as_it_goes() {
        let bare = parsed("did it\r\n## Status: COMPLETED\r\n");
        assert_eq!((bare.nonce, bare.header_intact), (None, false));
        assert_eq!((bare.status, bare.notes.as_str()), (Some(Status::Completed), "did it"));
        let part = parsed("\u{feff}\n---\r\nnonce: n\r\n---\r\ntext\n## notes \nmine");
        assert_eq!((part.nonce.as_deref(), part.header_intact), (Some("n"), false));
        assert_eq!(part.notes, "mine");
        assert_eq!(parsed("---\nnonce: n\n").nonce, None);
        assert_eq!(parsed("---\nnonce:\n---\n").nonce, None);
        let odd = parsed("## Status: maybe");
        assert_eq!((odd.status, odd.unreadable.as_deref()), (None, Some("## Status: maybe")));
        let lossy = read(b"\xff\n## Status: COMPLETED").expect("small");
        assert!(lossy.is_lossy);
        assert_eq!(lossy.status, Some(Status::Completed));
    }

    #[test]
    fn setting_a_status_changes_that_line_only() {
        let dir = tempfile::tempdir().expect("a folder");
        let path = dir.path().join("TASK-001.md");
        let check = |old: &[u8], status: Status, expected: &[u8]| {
            fs::write(&path, old).expect("written");
            set_status(&path, &status).expect("set");
            let new = fs::read(&path).expect("read");
            assert_eq!(String::from_utf8_lossy(&new), String::from_utf8_lossy(expected));
            assert_eq!(new, expected);
        };
        let done = "## Status: COMPLETED ✅".as_bytes();
        let (before, after) = (b"\xff\r\n".as_slice(), b"\r\n\r\nmore".as_slice());
        let old = [before, b"## Status: IN PROGRESS", after].concat();
        check(&old, Status::Completed, &[before, done, after].concat());
        check(b"", Status::Failed("x".into()), b"## Status: FAILED: x\n");
        check(b"a", Status::Failed("x".into()), b"a\n\n## Status: FAILED: x\n");
        check(
            b"a\r\n```",
            Status::Failed("x".into()),
            b"a\r\n```\r\n```\r\n\r\n## Status: FAILED: x\r\n",
        );
    }

    #[test]
    fn a_missing_file_is_made_and_a_link_is_refused() {
        let dir = tempfile::tempdir().expect("a folder");
        let path = dir.path().join("TASK-001.md");
        set_status(&path, &Status::Completed).expect("made");
        append(&path, &ending(b"x", &Status::Failed("y".into()))).expect("appended");
        let text = fs::read_to_string(&path).expect("read");
        assert_eq!(parsed(&text).status, Some(Status::Failed("y".into())));
        let link = dir.path().join("link.md");
        std::os::unix::fs::symlink(&path, &link).expect("linked");
        assert!(set_status(&link, &Status::Completed).is_err());
        assert_eq!(fs::read_to_string(&path).expect("read"), text);
    }

    #[test]
    fn file_names_begin_with_task() {
        assert_eq!(file_name("TASK-001"), "TASK-001.md");
        assert_eq!(file_name("fix.login"), "TASK-fix.login.md");
        assert_eq!(file_name("task-1"), "TASK-task-1.md");
    }
}
