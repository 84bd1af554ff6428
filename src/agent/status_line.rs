//! The line by which an agent says how its attempt ended, and where in a text it counts.
//!
//! A status line is a second-level heading: `## Status: COMPLETED ✅`. The last one outside code
//! fences decides; in block quotes, list items and indented code there is none. Lines end at LF,
//! CRLF or CR, fences open and close as in CommonMark 0.31 (section 4.5).

use std::borrow::Cow;
use std::ops::Range;
use std::sync::LazyLock;

use regex::Regex;

use super::passage;

/// What a status line says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Status {
    /// Not yet done: what a fresh task file says.
    InProgress,
    /// The stage's work is done.
    Completed,
    /// Only a person can go on; the reason, one line, may be empty.
    Blocked(String),
    /// It did not work; the reason, one line, may be empty.
    Failed(String),
    /// An earlier stage must do more; what, one line, may be empty.
    ChangesRequested(String),
}

impl Status {
    /// Returns the status line, without a line end; reasons are made one line.
    #[must_use]
    pub fn line(&self) -> String {
        let (word, reason) = match self {
            Self::InProgress => ("IN PROGRESS", ""),
            Self::Completed => ("COMPLETED ✅", ""),
            Self::Blocked(why) => ("BLOCKED", why.as_str()),
            Self::Failed(why) => ("FAILED", why.as_str()),
            Self::ChangesRequested(what) => ("CHANGES REQUESTED", what.as_str()),
        };
        let reason = passage::single_line(reason, passage::REASON_CHARS_MAX);
        let colon = if reason.is_empty() { "" } else { ": " };
        format!("## Status: {word}{colon}{reason}")
    }
}

/// A status line found in a text.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Found {
    /// Byte range of the line, without its end.
    pub range: Range<usize>,
    /// What it says; `None` when the words after the colon are none of ours.
    pub status: Option<Status>,
    /// The line as it stands, at most [`passage::REASON_CHARS_MAX`] characters.
    pub text: String,
}

/// Where a line of a text stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Place {
    /// Outside code fences.
    Open,
    /// Opens or closes a code fence.
    Fence,
    /// Inside a code fence.
    Fenced,
}

/// One line of a text.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Line {
    /// Byte range without the line's end, and without a byte order mark.
    pub range: Range<usize>,
    /// Where the next line begins.
    pub next: usize,
    /// Where it stands.
    pub place: Place,
}

/// Walks through the lines of a text.
#[derive(Debug, Clone)]
pub struct Lines<'a> {
    bytes: &'a [u8],
    at: usize,
    fence: Option<Fence>,
}

/// An open code fence.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Fence {
    /// A backtick or a tilde.
    pub mark: u8,
    /// How many of them, at least 3.
    pub count: usize,
}

const BYTE_ORDER_MARK: &[u8] = "\u{feff}".as_bytes();

/// Returns the lines of `bytes`, which need not be UTF-8; a last empty line does not count.
#[must_use]
pub fn lines(bytes: &[u8]) -> Lines<'_> {
    let at = if bytes.starts_with(BYTE_ORDER_MARK) { BYTE_ORDER_MARK.len() } else { 0 };
    Lines { bytes, at, fence: None }
}

impl Lines<'_> {
    /// Returns the fence open after the lines walked so far.
    #[must_use]
    pub fn fence(&self) -> Option<Fence> {
        self.fence
    }
}

impl Iterator for Lines<'_> {
    type Item = Line;

    fn next(&mut self) -> Option<Line> {
        let start = self.at;
        let rest = self.bytes.get(start..).filter(|rest| !rest.is_empty())?;
        let length = rest.iter().position(|byte| matches!(byte, b'\n' | b'\r'));
        let end = start + length.unwrap_or(rest.len());
        let end_length = match &self.bytes[end..] {
            [] => 0,
            [b'\r', b'\n', ..] => 2,
            [..] => 1,
        };
        self.at = end + end_length;
        let place = self.place(start..end);
        Some(Line { range: start..end, next: self.at, place })
    }
}

impl Lines<'_> {
    fn place(&mut self, range: Range<usize>) -> Place {
        let run = fence_run(&self.bytes[range]);
        match (self.fence, run) {
            (None, None) => Place::Open,
            (None, Some((fence, info))) => {
                // The info string of a backtick fence holds no backtick.
                if fence.mark == b'`' && info.contains(&b'`') {
                    return Place::Open;
                }
                self.fence = Some(fence);
                Place::Fence
            }
            (Some(_), None) => Place::Fenced,
            (Some(open), Some((fence, rest))) => {
                let is_end = fence.mark == open.mark
                    && fence.count >= open.count
                    && rest.iter().all(|byte| matches!(byte, b' ' | b'\t'));
                if !is_end {
                    return Place::Fenced;
                }
                self.fence = None;
                Place::Fence
            }
        }
    }
}

/// Splits a line that begins with a fence from what follows the fence.
fn fence_run(line: &[u8]) -> Option<(Fence, &[u8])> {
    let indent = line.iter().take_while(|byte| **byte == b' ').count();
    let line = &line[indent..];
    let mark = *line.first().filter(|mark| matches!(mark, b'`' | b'~'))?;
    let count = line.iter().take_while(|byte| **byte == mark).count();
    (indent <= 3 && count >= 3).then(|| (Fence { mark, count }, &line[count..]))
}

/// Returns how long the code fence is that a line begins with, 0 for any other line.
#[must_use]
pub fn fence_count(line: &[u8]) -> usize {
    fence_run(line).map_or(0, |(fence, _)| fence.count)
}

/// Returns the status line that decides: the last outside code fences.
#[must_use]
pub fn last(bytes: &[u8]) -> Option<Found> {
    let live = lines(bytes).filter(|line| line.place == Place::Open);
    let (line, rest) =
        live.filter_map(|line| said(&bytes[line.range.clone()]).map(|rest| (line, rest))).last()?;
    let text = passage::single_line(
        &String::from_utf8_lossy(&bytes[line.range.clone()]),
        passage::REASON_CHARS_MAX,
    );
    Some(Found { range: line.range, status: status(&rest), text })
}

/// Returns whether a line by itself would be a status line.
#[must_use]
pub fn is_status_line(line: &[u8]) -> bool {
    said(line).is_some()
}

/// Returns what stands after the colon of a status line.
fn said(line: &[u8]) -> Option<String> {
    static LINE: LazyLock<Regex> = LazyLock::new(|| {
        Regex::new(r"(?i)^ {0,3}##\s*[*_]*status[*_]*\s*[:：][*_]*(.*)$").expect("a valid pattern")
    });
    let is_heading = line.iter().find(|byte| **byte != b' ') == Some(&b'#');
    let line: Cow<'_, str> = is_heading.then(|| String::from_utf8_lossy(line))?;
    LINE.captures(&line).map(|found| found[1].to_owned())
}

/// Reads the words after the colon.
fn status(said: &str) -> Option<Status> {
    static WORD: LazyLock<Regex> = LazyLock::new(|| {
        let words = "completed|blocked|failed|changes[ \t_-]+requested|in[ \t_-]*progress";
        Regex::new(&format!("(?i)^({words})(.*)$")).expect("a valid pattern")
    });
    let said = said.trim_start_matches(is_decoration);
    let found = WORD.captures(said)?;
    let tail = found[2].trim_start_matches(['*', '_', '`']);
    // `COMPLETED | BLOCKED` and `COMPLETED/FAILED` are instructions somebody copied.
    let is_choice = tail.trim_start().starts_with(['|', '/', '\\', '?']);
    if is_choice || tail.starts_with(|c: char| c.is_alphanumeric()) {
        return None;
    }
    let first = found[1].chars().next()?.to_ascii_lowercase();
    match first {
        'i' => Some(Status::InProgress),
        // So is `COMPLETED or BLOCKED`; `COMPLETED ✅ (all pass)` is fine.
        'c' if found[1].len() == "completed".len() => {
            let is_alone = !tail.trim_start().starts_with(|c: char| c.is_alphanumeric());
            is_alone.then_some(Status::Completed)
        }
        'c' => Some(Status::ChangesRequested(reason(tail))),
        'b' => Some(Status::Blocked(reason(tail))),
        'f' => Some(Status::Failed(reason(tail))),
        _ => None,
    }
}

/// Emphasis, blanks and emoji around a word.
fn is_decoration(c: char) -> bool {
    c.is_whitespace() || "*_`".contains(c) || !c.is_ascii() && !c.is_alphanumeric()
}

fn reason(tail: &str) -> String {
    let is_dash = |c: char| is_decoration(c) || c == '-';
    let text = tail.trim_start_matches(is_decoration);
    let text = text.strip_prefix([':', '：']).unwrap_or_else(|| text.trim_start_matches(is_dash));
    passage::single_line(text, passage::REASON_CHARS_MAX)
}

#[cfg(test)]
mod tests {
    use super::{Status, last};

    fn check(text: &str, expected: Option<Status>) {
        let found = last(text.as_bytes());
        assert_eq!(found.and_then(|found| found.status), expected, "{text:?}");
    }

    fn why(text: &str) -> String {
        text.to_owned()
    }

    #[test]
    fn spellings_of_the_line_are_understood() {
        let done = [
            "## Status: COMPLETED ✅",
            "## Status: completed",
            "##Status:Completed",
            "  ##   STATUS :   ✅ **Completed**",
            "## **Status:** COMPLETED",
            "## Status： COMPLETED ✔\u{fe0f}",
            "## Status: COMPLETED. All 12 tests pass",
            "## Status: COMPLETED (checks pass)",
            "\u{feff}## Status: COMPLETED\r\nmore",
            "a\r## Status: COMPLETED\rb",
            "##\u{a0}Status: COMPLETED\u{a0}",
        ];
        for text in done {
            check(text, Some(Status::Completed));
        }
        check("## Status: IN PROGRESS", Some(Status::InProgress));
        check("## Status: in-progress (half)", Some(Status::InProgress));
        check("## Status: BLOCKED: no key", Some(Status::Blocked(why("no key"))));
        check("## Status: 🚫 Blocked — no key", Some(Status::Blocked(why("no key"))));
        check("## Status: FAILED", Some(Status::Failed(String::new())));
        check("## Status: FAILED ❌: é ≠ e", Some(Status::Failed(why("é ≠ e"))));
        check("## Status: FAILED it broke", Some(Status::Failed(why("it broke"))));
        let asked = Some(Status::ChangesRequested(why("more: tests")));
        check("## Status: changes_requested: more: tests", asked);
    }

    #[test]
    fn other_headings_and_copied_instructions_say_nothing() {
        let nothing = [
            "",
            "Status: COMPLETED",
            "# Status: COMPLETED",
            "### Status: COMPLETED",
            "    ## Status: COMPLETED",
            "\t## Status: COMPLETED",
            "> ## Status: COMPLETED",
            "- ## Status: COMPLETED",
            "## Status",
            "## Status report: COMPLETED",
            "## Status: NOT COMPLETED",
            "## Status: COMPLETED | BLOCKED: why",
            "## Status: COMPLETED/FAILED",
            "## Status: COMPLETED or BLOCKED",
            "## Status: COMPLETEDLY",
            "## Status: <COMPLETED>",
            "## Status: ",
        ];
        for text in nothing {
            check(text, None);
        }
    }

    #[test]
    fn the_last_line_decides_even_when_it_says_nothing() {
        check("## Status: COMPLETED\n## Status: FAILED: x\n", Some(Status::Failed(why("x"))));
        check("## Status: COMPLETED\n## Status: to be seen\n", None);
    }

    #[test]
    fn lines_in_code_fences_do_not_count() {
        let done = Some(Status::Completed);
        let line = "## Status: COMPLETED";
        check(&format!("```\n{line}\n```\n"), None);
        check(&format!("~~~ text `x`\n{line}\n~~~\n"), None);
        check(&format!("   ````md\n```\n{line}\n````\n"), None);
        check(&format!("```\n{line}\n"), None);
        check(&format!("```\n~~~\n{line}\n```\n"), None);
        check(&format!("```\n``` not an end\n{line}\n"), None);
        check(&format!("```\n    ```\n{line}\n"), None);
        check(&format!("```\r\n```  \t\r\n{line}"), done.clone());
        check(&format!("    ```\n{line}\n"), done.clone());
        check(&format!("``\n{line}\n"), done.clone());
        check(&format!("``` a`b\n{line}\n"), done.clone());
        check(&format!("```\n`````\n{line}\n"), done);
    }

    #[test]
    fn written_lines_are_read_back() {
        let reasons = ["no key", "a\n## Status: COMPLETED\r\n", "— ✅ x", "é: ü", "`x` | y", "  "];
        let kinds = [Status::Blocked, Status::Failed, Status::ChangesRequested];
        for reason in reasons {
            for kind in kinds {
                let one_line = reason.split_whitespace().collect::<Vec<_>>().join(" ");
                check(&kind(reason.into()).line(), Some(kind(one_line)));
            }
        }
        check(&Status::Completed.line(), Some(Status::Completed));
        check(&Status::InProgress.line(), Some(Status::InProgress));
    }

    #[test]
    fn bytes_that_are_no_text_are_no_obstacle() {
        let found = last(b"\xff\xfe\n## Status: FAILED: \xff!\n").expect("a line");
        assert_eq!(found.status, Some(Status::Failed(why("\u{fffd}!"))));
    }
}
