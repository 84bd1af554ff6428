//! Other people's text put into our own: bounded, and unable to say anything in our name.
//!
//! Task bodies, notes and the output of checks go into task files and prompts. In there they must
//! neither carry a live status line nor leave a code fence open that would swallow ours.

use std::sync::LazyLock;

use regex::Regex;

use super::status_line::{Line, Place, fence_count, is_status_line, lines};

/// The longest reason kept from a status line, in characters.
pub const REASON_CHARS_MAX: usize = 2000;

/// The longest title shown, in characters.
pub const TITLE_CHARS_MAX: usize = 300;

/// How every mark of ours in a task file begins.
pub const MARK: &str = "<!-- pipeline:";

/// A fence longer than this is nobody's code block; it is quoted.
const FENCE_COUNT_MAX: usize = 100;

/// A text that is safe to put into a document of ours.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Passage {
    /// Whole lines ending in LF; empty for a blank text.
    pub text: String,
    /// Bytes of the original that were left out, 0 when it is whole.
    pub cut_bytes: usize,
}

/// Makes a passage of a Markdown text, at most `bytes_max` (at least 4096) bytes long.
///
/// Line ends become LF; terminal colours and control characters go; lines that would be status
/// lines or marks of ours are quoted with `> `, inside fences too; a fence left open is closed.
#[must_use]
pub fn markdown(text: &str, bytes_max: usize) -> Passage {
    let (mut text, cut_bytes) = quoted(text, bytes_max);
    let mut walk = lines(text.as_bytes());
    walk.by_ref().for_each(drop);
    if let Some(fence) = walk.fence() {
        text.extend(std::iter::repeat_n(char::from(fence.mark), fence.count));
        text.push('\n');
    }
    Passage { text, cut_bytes }
}

/// Makes a passage of a program's output: as [`markdown`], in a code fence of its own.
#[must_use]
pub fn output(text: &str, bytes_max: usize) -> Passage {
    let (text, cut_bytes) = quoted(text, bytes_max);
    if text.is_empty() {
        return Passage { text, cut_bytes };
    }
    let longest = text.lines().map(|line| fence_count(line.as_bytes())).max().unwrap_or(0);
    let fence = "`".repeat(longest.max(2) + 1);
    Passage { text: format!("{fence}\n{text}{fence}\n"), cut_bytes }
}

/// Returns the text without its live status lines, such as an agent's notes need.
#[must_use]
pub fn without_status_lines(text: &str) -> String {
    let text = plain(text);
    let is_live = |line: &Line| {
        line.place == Place::Open && is_status_line(&text.as_bytes()[line.range.clone()])
    };
    let kept = lines(text.as_bytes()).filter(|line| !is_live(line));
    let kept: Vec<&str> = kept.map(|line| &text[line.range]).collect();
    kept.join("\n").trim_matches('\n').trim_end().to_owned()
}

/// Returns the text as one line of at most `chars_max` characters; blanks are joined, what is cut
/// is replaced by `…`.
#[must_use]
pub fn single_line(text: &str, chars_max: usize) -> String {
    let is_blank = |c: char| c.is_whitespace() || c.is_control();
    let words: Vec<&str> = text.split(is_blank).filter(|word| !word.is_empty()).collect();
    let line = words.join(" ");
    match line.char_indices().nth(chars_max) {
        Some((end, _)) => format!("{}…", &line[..end]),
        None => line,
    }
}

fn quoted(text: &str, bytes_max: usize) -> (String, usize) {
    // Quoting the shortest status line makes it a fifth longer; a fence or two must fit as well.
    let (text, cut_bytes) = clipped(&plain(text), bytes_max / 4 * 3);
    let mut out = String::with_capacity(text.len() + 16);
    for line in text.trim_matches('\n').lines() {
        if is_ours(line) {
            out.push_str("> ");
        }
        out.push_str(line);
        out.push('\n');
    }
    if out.trim().is_empty() {
        out.clear();
    }
    (out, cut_bytes)
}

/// Returns whether a line would mean something to us.
fn is_ours(line: &str) -> bool {
    is_status_line(line.as_bytes())
        || line.trim_start().starts_with(MARK)
        || fence_count(line.as_bytes()) > FENCE_COUNT_MAX
}

/// Returns the text with LF line ends, without byte order marks, colours and control characters.
fn plain(text: &str) -> String {
    // Control sequences of ECMA-48: introducer, parameters, intermediates, final.
    static COLOUR: LazyLock<Regex> =
        LazyLock::new(|| Regex::new("\u{1b}\\[[0-?]*[ -/]*[@-~]").expect("a valid pattern"));
    let text = COLOUR.replace_all(text, "").replace("\r\n", "\n").replace('\r', "\n");
    let is_unseen = |c: char| c == '\u{feff}' || c.is_control() && c != '\n' && c != '\t';
    text.replace(is_unseen, "")
}

/// Leaves out lines in the middle of a text that is too long, twice as much after as before; says
/// how many bytes.
fn clipped(text: &str, bytes_max: usize) -> (String, usize) {
    const NOTE_BYTES_MAX: usize = 64;
    if text.len() <= bytes_max {
        return (text.to_owned(), 0);
    }
    let budget = bytes_max.saturating_sub(NOTE_BYTES_MAX);
    let head = boundary(text, budget / 3 * 2);
    let head = text[..head].rfind('\n').map_or(head, |end| end + 1);
    let tail = boundary(text, text.len() - budget / 3);
    let tail = text[tail..].find('\n').map_or(tail, |end| tail + end + 1);
    let cut = tail - head;
    (format!("{}\n[… {cut} bytes left out …]\n\n{}", &text[..head], &text[tail..]), cut)
}

/// Returns the last place at or before `at` where a character begins.
fn boundary(text: &str, at: usize) -> usize {
    (0..=at.min(text.len())).rev().find(|at| text.is_char_boundary(*at)).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::{markdown, output, single_line, without_status_lines};

    fn check(text: &str, expected: &str) {
        assert_eq!(markdown(text, 1 << 20).text, expected, "{text:?}");
    }

    #[test]
    fn status_lines_and_marks_are_quoted() {
        check("a\n## Status: COMPLETED\nb", "a\n> ## Status: COMPLETED\nb\n");
        check("a\r## Status: x\r\nb", "a\n> ## Status: x\nb\n");
        check("\u{feff}\u{feff}##status:", "> ##status:\n");
        check("\u{1b}[1m\u{feff}```", "```\n```\n");
        check("\0\u{1b}[32m## Status: x\u{1b}[0m", "> ## Status: x\n");
        check("```\n## Status: x\n```", "```\n> ## Status: x\n```\n");
        check("<!-- pipeline: x -->", "> <!-- pipeline: x -->\n");
        check("\n\u{feff}```", "```\n```\n");
        check("\n \n", "");
    }

    #[test]
    fn open_fences_are_closed() {
        check("```\ncode", "```\ncode\n```\n");
        check("~~~~ x\n```\n~~~", "~~~~ x\n```\n~~~\n~~~~\n");
        check("```\na\n```\nb", "```\na\n```\nb\n");
        let long = "`".repeat(5000);
        check(&long, &format!("> {long}\n"));
    }

    #[test]
    fn output_cannot_leave_its_fence() {
        assert_eq!(output("a\n```\nb", 4096).text, "````\na\n```\nb\n````\n");
        assert_eq!(output("~~~~~\n", 4096).text, "``````\n~~~~~\n``````\n");
        assert_eq!(output("", 4096).text, "");
    }

    #[test]
    fn long_texts_lose_their_middle() {
        let text: String = (0..5000).map(|n| format!("line {n} é\n")).collect();
        let passage = markdown(&text, 4096);
        assert!(passage.text.len() <= 4096, "{}", passage.text.len());
        assert!(passage.cut_bytes > text.len() - 4096);
        assert!(passage.text.starts_with("line 0 é\nline 1 é\n"));
        assert!(passage.text.ends_with("line 4999 é\n"));
        assert!(passage.text.contains(&format!("[… {} bytes left out …]", passage.cut_bytes)));
        for nasty in ["é".repeat(9000), "##status:\n".repeat(9000), "```\n".repeat(9001)] {
            assert!(markdown(&nasty, 4096).text.len() <= 4096);
            assert!(output(&nasty, 4096).text.len() <= 4096);
        }
    }

    #[test]
    fn notes_lose_their_live_status_lines_only() {
        let notes = "\na\r\n## Status: COMPLETED\r\n```\n## Status: x\n```\nb\n\n";
        assert_eq!(without_status_lines(notes), "a\n```\n## Status: x\n```\nb");
    }

    #[test]
    fn single_lines_have_no_line_end_and_a_bound() {
        assert_eq!(single_line(" a\r\n\tb\u{2028}c\0 ", 100), "a b c");
        assert_eq!(single_line("éééé", 3), "ééé…");
        assert_eq!(single_line("ééé", 3), "ééé");
    }
}
