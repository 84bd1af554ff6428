//! What an agent left in its task file: status, notes, and whether the header still proves whose it is.
//!
//! Also writes a status into the file, for `pipeline done` and its sisters.

use std::borrow::Cow;
use std::fmt;
use std::fs::OpenOptions;
use std::io::{self, Write};
use std::path::Path;

use crate::sys::fail;
use crate::sys::file::{self, Durability};

use super::passage::{self, MARK};
use super::status_line::{self, Place, Status};

/// Larger files are not read.
pub const FILE_BYTES_MAX: u64 = 1 << 20;

/// The header is not looked for further down.
const HEADER_LINES_MAX: usize = 16;

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
    let is_lossy = matches!(text, Cow::Owned(_));
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

    use super::{FILE_BYTES_MAX, Parsed, append, ending, read, set_status};
    use crate::agent::status_line::Status;
    use crate::agent::task_file::{BlockedTask, Failure, Merge, Note, TaskFile, render};

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
                Note { stage: "test".into(), text: format!("{}\n", "~".repeat(99)).repeat(900) };
                9
            ];
        let evidence = "`".repeat(200_000);
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
}
