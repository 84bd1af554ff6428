//! What `doctor` finds, how bad it is, and how it is told.

use serde::Serialize;

use crate::cli::console::Console;
use crate::cli::error::Error;
use crate::cli::exit_code::{Exit, Kind};

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

pub fn tell(findings: &[Finding], console: &mut Console<'_>) -> Result<(), Error> {
    for finding in findings {
        let mark = match finding.level {
            Level::Good => "ok     ",
            Level::Warning => "warning",
            Level::Bad => "bad    ",
            Level::Refused => "refused",
            Level::Damaged => "damaged",
        };
        console.line(&format!("{mark}  {}: {}", finding.what, finding.found))?;
        if !finding.remedy.is_empty() {
            console.line(&format!("         {}", finding.remedy))?;
        }
    }
    Ok(())
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
