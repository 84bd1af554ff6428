//! What `doctor` finds, how bad it is, and how it is told.

use serde::Serialize;

use crate::cli::console::Console;
use crate::cli::error::Error;
use crate::cli::exit_code::{Exit, Kind};
use crate::cli::views::{self, terminal};
use crate::observe::page::{Ink, Page, broken};

/// How bad a finding is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Level {
    Good,
    /// Works, but should be looked at.
    Warning,
    /// A run would fail.
    Bad,
    /// The state was written by a newer program, or cannot be had now.
    Refused,
    /// The state on disk is damaged.
    Damaged,
}

pub fn level_of(kind: Kind) -> Level {
    match kind {
        Kind::Damaged => Level::Damaged,
        Kind::Busy => Level::Refused,
        Kind::Failed | Kind::Usage | Kind::Invalid | Kind::Interrupted => Level::Bad,
    }
}

/// One thing looked at.
#[derive(Debug, Clone, Serialize)]
pub struct Finding {
    pub level: Level,
    pub what: &'static str,
    pub found: String,
    /// What to do about it; empty when it is good.
    pub remedy: String,
}

impl Finding {
    pub fn good(what: &'static str, found: impl Into<String>) -> Self {
        Self { level: Level::Good, what, found: found.into(), remedy: String::new() }
    }

    pub fn warning(
        what: &'static str,
        found: impl Into<String>,
        remedy: impl Into<String>,
    ) -> Self {
        Self { level: Level::Warning, what, found: found.into(), remedy: remedy.into() }
    }

    pub fn bad(what: &'static str, found: impl Into<String>, remedy: impl Into<String>) -> Self {
        Self { level: Level::Bad, what, found: found.into(), remedy: remedy.into() }
    }
}

/// What stands before a command that ends a remedy.
const TYPE: &str = "type: ";
/// Columns before what was found, and before a remedy.
const INDENT: &str = "         ";

/// Tells each finding with its remedy, broken to lines where the console is a terminal.
pub fn tell(findings: &[Finding], console: &mut Console<'_>) -> Result<(), Error> {
    let page = terminal(console);
    for finding in findings {
        let (mark, ink) = match finding.level {
            Level::Good => ("ok     ", Ink::Good),
            Level::Warning => ("warning", Ink::Busy),
            Level::Bad => ("bad    ", Ink::Bad),
            Level::Refused => ("refused", Ink::Bad),
            Level::Damaged => ("damaged", Ink::Bad),
        };
        let mark = views::page(console).paint(ink, mark);
        let found = format!("{}: {}", finding.what, finding.found);
        console.line(&format!("{mark}  {}", folded(&found, page)))?;
        if !finding.remedy.is_empty() {
            console.line(&format!("{INDENT}{}", folded(&finding.remedy, page)))?;
        }
    }
    Ok(())
}

/// Tells what a repair did or would do.
pub fn tell_steps(steps: &[String], mark: &str, console: &mut Console<'_>) -> Result<(), Error> {
    let page = terminal(console);
    steps.iter().try_for_each(|step| console.line(&format!("{mark}  {}", folded(step, page))))
}

/// Returns the text in lines of the page, all but the first indented. What a check said stays as it
/// is, and a command to type stays whole.
fn folded(text: &str, page: Option<Page>) -> String {
    let Some(page) = page else { return text.to_owned() };
    let columns = page.columns().saturating_sub(INDENT.len());
    let mut lines = Vec::new();
    for line in text.split('\n') {
        match line.split_once(TYPE) {
            _ if line.starts_with(INDENT) => lines.push(line.to_owned()),
            Some((before, command)) if line.len() > columns => {
                lines.extend(broken(&format!("{before}{}", TYPE.trim_end()), columns));
                lines.push(command.to_owned());
            }
            Some(_) | None => lines.extend(broken(line, columns)),
        }
    }
    let is_said = |line: &String| line.starts_with(INDENT);
    let indent =
        |line: &String| if is_said(line) { line.clone() } else { format!("{INDENT}{line}") };
    let lines: Vec<String> = lines.iter().map(indent).collect();
    lines.join("\n").trim_start().to_owned()
}

pub fn exit_of(findings: &[Finding]) -> Exit {
    let has = |level| findings.iter().any(|finding| finding.level == level);
    if has(Level::Damaged) {
        Exit::Damaged
    } else if has(Level::Refused) {
        Exit::Busy
    } else if has(Level::Bad) {
        Exit::Failed
    } else {
        Exit::Done
    }
}

#[cfg(test)]
mod tests {
    use super::folded;
    use crate::observe::page::Page;

    #[test]
    fn long_findings_are_broken_on_a_terminal_alone() {
        let path = format!("/a place/{}", "x".repeat(60));
        let text = format!(
            "the folder `{path}` belongs to nobody, as far as anybody can tell from here\n         | \
             {}\nlook at what is in it, then type: rm -r '{path}'",
            "said ".repeat(30)
        );
        assert_eq!(folded(&text, None), text);
        let told = folded(&text, Some(Page::plain(80)));
        let lines: Vec<&str> = told.lines().collect();
        let name = format!("         `{path}`");
        let command = format!("         rm -r '{path}'");
        assert_eq!(lines[..2], ["the folder", &name]);
        assert!(lines.contains(&"         look at what is in it, then type:"), "{told}");
        assert_eq!(lines.last(), Some(&command.as_str()));
        assert!(told.contains(&format!("\n         | {}", "said ".repeat(30))), "{told}");
        let is_wide = |line: &&&str| line.len() > 80;
        assert_eq!(lines.iter().filter(is_wide).count(), 2, "what was said, the command: {told}");
        assert_eq!(folded("short, type: ls", Some(Page::plain(80))), "short, type: ls");
    }
}
