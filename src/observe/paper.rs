//! Documents of headings, paragraphs, tables and commands, written as Markdown or HTML.
//!
//! All text is taken for what anybody may have written: it is cleaned, and says nothing to whoever
//! shows the document.

use std::borrow::Cow;

use super::page::clean;

/// A piece of text.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Piece {
    Text(String),
    /// A command, or a name of something.
    Code(String),
}

impl Piece {
    /// Makes plain text.
    #[must_use]
    pub fn text(text: impl Into<String>) -> Self {
        Self::Text(text.into())
    }

    /// Makes a command or a name.
    #[must_use]
    pub fn code(text: impl Into<String>) -> Self {
        Self::Code(text.into())
    }
}

/// Something that documents are written on.
pub trait Paper {
    /// Writes a heading; level 1 is the document's own, and comes first.
    fn heading(&mut self, level: u8, text: &str);
    /// Writes a paragraph.
    fn paragraph(&mut self, pieces: &[Piece]);
    /// Writes a table; one without rows is left out.
    fn table(&mut self, head: &[&str], rows: &[Vec<Piece>]);
    /// Writes commands to type, a line each; none are left out.
    fn commands(&mut self, lines: &[String]);
    /// Returns the document, ended by a line feed.
    fn finish(self: Box<Self>) -> String;
}

/// Markdown with tables.
#[derive(Debug, Default)]
pub struct Markdown(String);

/// One page that needs no other file.
#[derive(Debug)]
pub struct Html(String);

impl Paper for Markdown {
    fn heading(&mut self, level: u8, text: &str) {
        if !self.0.is_empty() {
            self.0.push('\n');
        }
        let marks = "#".repeat(level.into());
        self.0.push_str(&format!("{marks} {}\n", plain(text)));
    }

    fn paragraph(&mut self, pieces: &[Piece]) {
        let text: String = pieces.iter().map(|piece| marked(piece, false)).collect();
        self.0.push_str(&format!("\n{text}\n"));
    }

    fn table(&mut self, head: &[&str], rows: &[Vec<Piece>]) {
        if rows.is_empty() {
            return;
        }
        self.0.push_str(&format!("\n| {} |\n", head.join(" | ")));
        self.0.push_str(&format!("|{}\n", " --- |".repeat(head.len())));
        for row in rows {
            let cells: Vec<String> = row.iter().map(|piece| marked(piece, true)).collect();
            self.0.push_str(&format!("| {} |\n", cells.join(" | ")));
        }
    }

    fn commands(&mut self, lines: &[String]) {
        if lines.is_empty() {
            return;
        }
        self.0.push_str("\n```sh\n");
        for line in lines {
            self.0.push_str(&format!("{}\n", clean(line)));
        }
        self.0.push_str("```\n");
    }

    fn finish(self: Box<Self>) -> String {
        self.0
    }
}

fn marked(piece: &Piece, is_cell: bool) -> String {
    match piece {
        Piece::Text(text) => plain(text),
        Piece::Code(text) if text.is_empty() => String::new(),
        Piece::Code(text) => {
            let text = clean(text);
            // A fence one longer than the longest run inside.
            let longest = text.split(|c| c != '`').map(str::len).max().unwrap_or(0);
            let fence = "`".repeat(longest + 1);
            let gap = if longest > 0 { " " } else { "" };
            let text = if is_cell { text.replace('|', "\\|") } else { text.into_owned() };
            format!("{fence}{gap}{text}{gap}{fence}")
        }
    }
}

/// Returns a piece on one line, safe to show; a blank at its end, before another piece, stays.
fn cleaned(text: &str) -> Cow<'_, str> {
    let cleaned = clean(text);
    if text.ends_with(' ') { Cow::Owned(format!("{cleaned} ")) } else { cleaned }
}

/// Returns text in which nothing means anything to Markdown.
fn plain(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    let text = cleaned(text);
    let mut chars = text.chars().peekable();
    let mut last = ' ';
    while let Some(c) = chars.next() {
        let next = chars.peek().copied().unwrap_or(' ');
        // Within a word it means nothing.
        let is_joint = c == '_' && last.is_alphanumeric() && next.is_alphanumeric();
        if "\\`*_[]<>|#~&!".contains(c) && !is_joint {
            out.push('\\');
        }
        out.push(c);
        last = c;
    }
    out
}

const HEAD: &str = "<!doctype html>\n<html lang=\"en\">\n<meta charset=\"utf-8\">\n\
<meta name=\"viewport\" content=\"width=device-width\">\n<title>Pipeline report</title>\n<style>\n\
:root { color-scheme: light dark }\n\
body { font: 15px/1.45 system-ui, sans-serif; max-width: 62em; margin: 2em auto; padding: 0 1em }\n\
table { border-collapse: collapse; width: 100% }\n\
th, td { text-align: left; vertical-align: top; padding: .25em .7em .25em 0;\n\
  border-bottom: 1px solid #8884 }\n\
code, pre { font: 13px/1.45 ui-monospace, monospace }\n\
pre { overflow-x: auto; padding: .6em; border: 1px solid #8884 }\n</style>\n";

impl Default for Html {
    fn default() -> Self {
        Self(HEAD.to_owned())
    }
}

impl Paper for Html {
    fn heading(&mut self, level: u8, text: &str) {
        self.0.push_str(&format!("<h{level}>{}</h{level}>\n", escaped(text)));
    }

    fn paragraph(&mut self, pieces: &[Piece]) {
        let text: String = pieces.iter().map(tagged).collect();
        self.0.push_str(&format!("<p>{text}</p>\n"));
    }

    fn table(&mut self, head: &[&str], rows: &[Vec<Piece>]) {
        if rows.is_empty() {
            return;
        }
        let head: String = head.iter().map(|name| format!("<th>{}", escaped(name))).collect();
        self.0.push_str(&format!("<table>\n<tr>{head}\n"));
        for row in rows {
            let cells: String = row.iter().map(|piece| format!("<td>{}", tagged(piece))).collect();
            self.0.push_str(&format!("<tr>{cells}\n"));
        }
        self.0.push_str("</table>\n");
    }

    fn commands(&mut self, lines: &[String]) {
        if lines.is_empty() {
            return;
        }
        self.0.push_str("<pre>");
        for line in lines {
            self.0.push_str(&format!("{}\n", escaped(line)));
        }
        self.0.push_str("</pre>\n");
    }

    fn finish(self: Box<Self>) -> String {
        self.0 + "</html>\n"
    }
}

fn tagged(piece: &Piece) -> String {
    match piece {
        Piece::Text(text) => escaped(text),
        Piece::Code(text) if text.is_empty() => String::new(),
        Piece::Code(text) => format!("<code>{}</code>", escaped(text)),
    }
}

fn escaped(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in cleaned(text).chars() {
        match c {
            '&' => out.push_str("&amp;"),
            '<' => out.push_str("&lt;"),
            '>' => out.push_str("&gt;"),
            '"' => out.push_str("&quot;"),
            '\'' => out.push_str("&#39;"),
            other => out.push(other),
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::{Html, Markdown, Paper, Piece};

    fn written(mut paper: Box<dyn Paper>, piece: &Piece) -> String {
        paper.table(&["a"], &[vec![piece.clone()]]);
        paper.paragraph(std::slice::from_ref(piece));
        paper.finish()
    }

    #[test]
    fn what_others_wrote_says_nothing_to_markdown() {
        let text = Piece::text("a|b <script> [x](y) *z* _e_f_\n# h");
        let out = written(Box::<Markdown>::default(), &text);
        let plain = r"a\|b \<script\> \[x\](y) \*z\* \_e_f\_ \# h";
        assert_eq!(out, format!("\n| a |\n| --- |\n| {plain} |\n\n{plain}\n"));
        let out = written(Box::<Markdown>::default(), &Piece::code("a ``b`` | c"));
        assert_eq!(out, "\n| a |\n| --- |\n| ``` a ``b`` \\| c ``` |\n\n``` a ``b`` | c ```\n");
        let mut paper = Box::<Markdown>::default();
        paper.commands(&["git x\n```\nrm".to_owned()]);
        assert_eq!(paper.finish(), "\n```sh\ngit x ``` rm\n```\n");
    }

    #[test]
    fn what_others_wrote_says_nothing_to_html() {
        let text = Piece::text("<script>alert('x')</script> & \"y\"");
        let out = written(Box::<Html>::default(), &text);
        let escaped = "&lt;script&gt;alert(&#39;x&#39;)&lt;/script&gt; &amp; &quot;y&quot;";
        assert!(out.contains(&format!("<td>{escaped}\n")), "{out}");
        assert!(out.contains(&format!("<p>{escaped}</p>\n")) && !out.contains("<script"), "{out}");
    }

    #[test]
    fn a_blank_before_a_name_stays() {
        let pieces = [Piece::text("it is at "), Piece::code("x"), Piece::text(".")];
        for (mut paper, expected) in [
            (Box::<Markdown>::default() as Box<dyn Paper>, "\nit is at `x`.\n"),
            (Box::<Html>::default(), "<p>it is at <code>x</code>.</p>\n"),
        ] {
            paper.paragraph(&pieces);
            let out = paper.finish();
            assert!(out.contains(expected), "{out}");
        }
    }

    #[test]
    fn what_is_empty_is_left_out() {
        for mut paper in [Box::<Markdown>::default() as Box<dyn Paper>, Box::<Html>::default()] {
            paper.table(&["a"], &[]);
            paper.commands(&[]);
            let out = paper.finish();
            assert!(!out.contains("<pre>") && !out.contains("```") && !out.contains('|'), "{out}");
        }
    }
}
