//! Plain text for a terminal: cleaned of control characters, cut, padded, painted.
//!
//! A character counts as one column; wide ones may overrun, which costs looks only.

use std::borrow::Cow;

/// Columns where the terminal does not say otherwise.
pub const WIDTH_DEFAULT: usize = 80;
/// Narrowest page that is laid out for.
pub const WIDTH_MIN: usize = 40;

/// What a piece of text means; its colour follows from it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ink {
    Plain,
    Strong,
    Good,
    Busy,
    Bad,
    Faint,
}

impl Ink {
    const fn code(self) -> &'static str {
        match self {
            Self::Plain => "",
            Self::Strong => "\x1b[1m",
            Self::Good => "\x1b[32m",
            Self::Busy => "\x1b[36m",
            Self::Bad => "\x1b[31m",
            Self::Faint => "\x1b[2m",
        }
    }
}

/// How a page is laid out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Page {
    pub has_color: bool,
    /// Columns; at least [`WIDTH_MIN`] are used.
    pub width: usize,
}

impl Page {
    /// Makes a page of that width without colour.
    #[must_use]
    pub const fn plain(width: usize) -> Self {
        Self { has_color: false, width }
    }

    /// Returns the columns to lay out for.
    #[must_use]
    pub fn columns(self) -> usize {
        self.width.max(WIDTH_MIN)
    }

    /// Puts colour around the text where the page has colour.
    #[must_use]
    pub fn paint(self, ink: Ink, text: &str) -> String {
        if self.has_color && ink != Ink::Plain && !text.is_empty() {
            format!("{}{text}\x1b[0m", ink.code())
        } else {
            text.to_owned()
        }
    }
}

/// Returns the text on one line, safe to print: control characters and line ends become blanks;
/// colour codes, and characters that reorder text, are dropped.
#[must_use]
pub fn clean(text: &str) -> Cow<'_, str> {
    if !text.chars().any(|c| c.is_control() || is_reordering(c)) {
        return Cow::Borrowed(text.trim_end());
    }
    let mut line = String::with_capacity(text.len());
    let mut rest = text.chars().peekable();
    while let Some(c) = rest.next() {
        if c == '\x1b' && rest.next_if_eq(&'[').is_some() {
            while rest.next_if(|c| !('@'..='~').contains(c)).is_some() {}
            rest.next();
        } else if !is_reordering(c) {
            line.push(if c.is_control() { ' ' } else { c });
        }
    }
    Cow::Owned(line.trim_end().to_owned())
}

/// Returns several lines, each safe to print; tabs stay.
#[must_use]
pub fn clean_lines(text: &str) -> String {
    let lines = text.lines().map(|line| line.split('\t').map(clean).collect::<Vec<_>>().join("\t"));
    lines.collect::<Vec<_>>().join("\n")
}

/// Returns true for characters that change the direction of what follows.
const fn is_reordering(c: char) -> bool {
    matches!(c, '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}' | '\u{200e}' | '\u{200f}')
}

/// Returns the first line of the text, cleaned.
#[must_use]
pub fn first_line(text: &str) -> Cow<'_, str> {
    clean(text.trim_start().lines().next().unwrap_or(""))
}

/// Returns at most `columns` columns of the text; a cut shows as `…`.
#[must_use]
pub fn cut(text: &str, columns: usize) -> Cow<'_, str> {
    match text.char_indices().nth(columns) {
        None => Cow::Borrowed(text),
        Some(_) if columns == 0 => Cow::Borrowed(""),
        Some(_) => {
            let kept: String = text.chars().take(columns - 1).collect();
            Cow::Owned(format!("{}…", kept.trim_end()))
        }
    }
}

/// Puts words together to lines of at most `columns` columns; a longer word has a line of its own.
#[must_use]
pub fn filled(words: &[impl AsRef<str>], between: &str, columns: usize) -> Vec<String> {
    let mut lines: Vec<String> = Vec::new();
    for word in words.iter().map(AsRef::as_ref) {
        let wide = |line: &str| [line, between, word].map(self::columns).iter().sum::<usize>();
        match lines.last_mut().filter(|line| wide(line) <= columns) {
            Some(line) => {
                line.push_str(between);
                line.push_str(word);
            }
            None => lines.push(word.to_owned()),
        }
    }
    lines
}

/// Returns the text in lines of at most `columns` columns, broken at blanks outside of backticks: a
/// name or a path stays whole, and has a line of its own where it is longer.
#[must_use]
pub fn broken(text: &str, columns: usize) -> Vec<String> {
    let mut words = vec![String::new()];
    let mut is_quoted = false;
    for c in clean(text).chars() {
        is_quoted ^= c == '`';
        match words.last_mut() {
            Some(word) if c != ' ' || is_quoted => word.push(c),
            Some(_) | None => words.push(String::new()),
        }
    }
    filled(&words, " ", columns)
}

/// Returns the columns of the text.
#[must_use]
pub fn columns(text: &str) -> usize {
    text.chars().count()
}

/// One field of a table.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Cell {
    pub text: String,
    pub ink: Ink,
}

impl Cell {
    /// Makes a field of cleaned text.
    #[must_use]
    pub fn new(text: &str) -> Self {
        Self { text: clean(text).into_owned(), ink: Ink::Plain }
    }

    /// Gives the field a meaning.
    #[must_use]
    pub fn inked(self, ink: Ink) -> Self {
        Self { ink, ..self }
    }
}

/// Lays rows out in columns two blanks apart; the last column takes what is left of the page and is
/// cut to it, and no other column is wider than a third of it. Each line ends in a line feed.
#[must_use]
pub fn table(page: Page, indent: usize, rows: &[Vec<Cell>]) -> String {
    let count = rows.iter().map(Vec::len).max().unwrap_or(0);
    let width_max = page.columns() / 3;
    let widest = |place: usize| {
        let cells = rows.iter().filter_map(|row| row.get(place));
        cells.map(|cell| columns(&cell.text)).max().unwrap_or(0).min(width_max)
    };
    let widths: Vec<usize> = (0..count.saturating_sub(1)).map(widest).collect();
    let mut out = String::new();
    for row in rows {
        let mut line = " ".repeat(indent);
        let mut at = indent;
        for (place, cell) in row.iter().enumerate() {
            let left = page.columns().saturating_sub(at);
            let room = widths.get(place).copied().unwrap_or(left).min(left);
            let text = cut(&cell.text, room);
            line.push_str(&page.paint(cell.ink, &text));
            if place + 1 < row.len() {
                line.push_str(&" ".repeat(room.saturating_sub(columns(&text)) + 2));
                at += room + 2;
            }
        }
        out.push_str(line.trim_end());
        out.push('\n');
    }
    out
}

#[cfg(test)]
mod tests {
    use super::{Cell, Ink, Page, broken, clean, clean_lines, cut, table};

    #[test]
    fn control_characters_never_reach_the_terminal() {
        assert_eq!(clean("a\x1b[1;31mb\nc\u{9b}d\u{202e}e\r\n"), "ab c de");
        assert_eq!(clean("a\x1b[3"), "a");
        assert_eq!(clean_lines("a\tb\x07\n\x1b]0;x"), "a\tb\n ]0;x");
    }

    #[test]
    fn cuts_fall_between_characters_and_show() {
        assert_eq!(cut("äöü", 3), "äöü");
        assert_eq!(cut("äöüß", 3), "äö…");
        assert_eq!(cut("ab", 0), "");
    }

    #[test]
    fn a_line_is_broken_between_words_and_never_within_a_name() {
        let lines = broken("remove `a path` and go on `x`", 12);
        assert_eq!(lines, ["remove", "`a path` and", "go on `x`"]);
        assert_eq!(broken("put `a longer path` away", 10), ["put", "`a longer path`", "away"]);
        assert_eq!(broken("", 10), [""]);
    }

    #[test]
    fn tables_fit_the_page_and_are_painted_only_if_asked() {
        let row = |a: &str, b: &str| vec![Cell::new(a).inked(Ink::Bad), Cell::new(b)];
        let rows = [row("id", "title"), row("TASK-001", &"x".repeat(100))];
        let plain = table(Page::plain(60), 2, &rows);
        assert!(plain.lines().all(|line| line.chars().count() <= 60), "{plain}");
        assert!(plain.starts_with("  id        title\n"), "{plain}");
        assert!(!plain.contains('\x1b'));
        let painted = table(Page { has_color: true, width: 60 }, 2, &rows);
        assert!(painted.contains("\x1b[31mTASK-001\x1b[0m  x"), "{painted}");
    }
}
