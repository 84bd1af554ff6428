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

/// The least bound of a passage, in bytes: room for the note that all of it was left out.
pub const PASSAGE_BYTES_MIN: usize = 128;

/// A bound that cuts nothing.
pub const WHOLE: usize = usize::MAX / 2;

/// Returns a text of our own as a passage.
#[must_use]
pub fn whole(text: &str) -> Passage {
    Passage { text: text.to_owned(), cut_bytes: 0 }
}

/// Makes a passage of a Markdown text, at most `bytes_max` (at least [`PASSAGE_BYTES_MIN`]) bytes
/// long.
///
/// Line ends become LF; terminal colours and control characters go; lines that would be status
/// lines or marks of ours are quoted with `> `, inside fences too; a fence left open is closed.
#[must_use]
pub fn markdown(text: &str, bytes_max: usize) -> Passage {
    fitted(text, bytes_max, Side::Head, |mut text| {
        let mut walk = lines(text.as_bytes());
        walk.by_ref().for_each(drop);
        if let Some(fence) = walk.fence() {
            text.extend(std::iter::repeat_n(char::from(fence.mark), fence.count));
            text.push('\n');
        }
        text
    })
}

/// Makes a passage of a program's output: as [`markdown`], in a code fence of its own. Of one that is
/// cut the end is kept rather than the beginning: there it says what failed.
#[must_use]
pub fn output(text: &str, bytes_max: usize) -> Passage {
    fitted(text, bytes_max, Side::Tail, |text| {
        if text.is_empty() {
            return text;
        }
        let longest = text.lines().map(|line| fence_count(line.as_bytes())).max().unwrap_or(0);
        let fence = "`".repeat(longest.max(2) + 1);
        format!("{fence}\n{text}{fence}\n")
    })
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

/// Which side of a text keeps twice as much as the other when its middle is left out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Side {
    Head,
    Tail,
}

/// Cuts, quotes and finishes a text. Quoting and finishing make it longer, so it is cut again by what
/// it is too long.
fn fitted(text: &str, bytes_max: usize, more: Side, finish: impl Fn(String) -> String) -> Passage {
    let plain = plain(text);
    let mut room = bytes_max;
    loop {
        let (clipped, cut_bytes) = clipped(&plain, room, more);
        let text = finish(quoted(&clipped));
        let excess = text.len().saturating_sub(bytes_max);
        if excess == 0 || room == 0 {
            return Passage { text, cut_bytes };
        }
        room = room.min(plain.len()).saturating_sub(excess);
    }
}

/// Returns whole lines, those that would mean something to us quoted; nothing for a blank text.
fn quoted(text: &str) -> String {
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
    out
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

/// Leaves out lines in the middle of a text that is too long; says how many bytes.
fn clipped(text: &str, bytes_max: usize, more: Side) -> (String, usize) {
    const NOTE_BYTES_MAX: usize = 64;
    if text.len() <= bytes_max {
        return (text.to_owned(), 0);
    }
    let third = bytes_max.saturating_sub(NOTE_BYTES_MAX) / 3;
    let (head, tail) = match more {
        Side::Head => (2 * third, third),
        Side::Tail => (third, 2 * third),
    };
    let head = boundary(text, head);
    let head = text[..head].rfind('\n').map_or(head, |end| end + 1);
    let tail = boundary(text, text.len() - tail);
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
    use super::{PASSAGE_BYTES_MIN, markdown, output, single_line, without_status_lines};

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
        assert!(passage.text.len() > 3900, "{}", passage.text.len());
        assert!(passage.text.starts_with("line 0 é\nline 1 é\n"));
        assert!(passage.text.ends_with("line 4999 é\n"));
        assert!(passage.text.contains(&format!("[… {} bytes left out …]", passage.cut_bytes)));
        let nasty = ["é", "##status:\n", "```\n", "x", "~~~~~~~~\n", "`"].map(|it| it.repeat(1501));
        for nasty in nasty.into_iter().chain([format!("{}\n", "`".repeat(99)).repeat(99)]) {
            for max in (PASSAGE_BYTES_MIN..600).step_by(17).chain([4096, 8999]) {
                let (text, fenced) = (markdown(&nasty, max).text, output(&nasty, max).text);
                assert!(text.len() <= max && fenced.len() <= max, "{max} {nasty:.20}");
            }
        }
    }

    #[test]
    fn of_output_the_end_is_kept_rather_than_the_beginning() {
        let text: String = (0..5000).map(|n| format!("line {n}\n")).collect();
        let passage = output(&text, 6144);
        let (head, tail) = passage.text.split_once("[…").expect("it is cut");
        assert!(tail.len() > head.len() * 3 / 2, "{} {}", head.len(), tail.len());
        assert!(head.starts_with("```\nline 0\n") && tail.ends_with("line 4999\n```\n"));
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
