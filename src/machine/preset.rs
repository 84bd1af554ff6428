//! How a coding assistant's command line is called and understood, as data.
//!
//! Nothing of it is decided upon here: settings name a preset, the rim reads it from a file, starts
//! what it says, and reads the output by its rules.

use std::collections::BTreeMap;

use super::attempt::FaultKind;

/// A preset file, read and checked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Preset {
    /// The file's name without `.toml`.
    pub name: String,
    /// What it is, in a few words.
    pub about: String,
    /// Whose models it uses by default; may be empty.
    pub provider: String,
    /// The command that installs it; may be empty.
    pub install: String,
    /// What its agents may do without being asked, in words; may be empty.
    pub allows: String,
    /// The line that does one task without a terminal; empty: there is none.
    pub headless: Vec<Part>,
    /// The same for a session that is taken up again; empty: it cannot.
    pub resume: Vec<Part>,
    /// How the prompt gets to it.
    pub prompt: PromptBy,
    /// Added to the environment.
    pub env: BTreeMap<String, String>,
    /// Variables that pass besides [`ENV_ALLOW`], patterns with `*`.
    pub env_allow: Vec<String>,
    /// Variables with a key by which its use may be billed, where there may be a subscription.
    pub billed_by: Vec<String>,
    /// How it is used in a terminal; `None`: it is not.
    pub interactive: Option<Interactive>,
    /// A file in the attempt's folder whose JSON document is read like the last line of output.
    pub usage_file: Option<String>,
    /// Tokens and cost are those of the whole session, not of the run.
    pub is_session_total: bool,
    /// What its output says, and where.
    pub output: Vec<OutputRule>,
    /// Exit statuses that tell of a fault of its provider, where the output tells of none.
    pub exit: BTreeMap<i32, FaultKind>,
}

/// The variables that every preset's agents are given, where there are any.
pub const ENV_ALLOW: [&str; 8] = ["PATH", "HOME", "USER", "SHELL", "TERM", "LANG", "TMPDIR", "TZ"];

/// The keys that `submit` may name, with what a terminal sends for them.
pub const KEYS: [(&str, &str); 8] = [
    ("Enter", "\r"),
    ("Escape", "\x1b"),
    ("Tab", "\t"),
    ("Space", " "),
    ("C-d", "\x04"),
    ("C-j", "\n"),
    ("C-m", "\r"),
    ("C-s", "\x13"),
];

/// A part of a command line.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Part {
    /// One argument.
    Word(String),
    /// Arguments that are left out where a placeholder in them has no value, and that are there once
    /// for each value where it has several.
    Group(Vec<String>),
}

/// How a prompt gets to a program.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PromptBy {
    /// On standard input, then end of file.
    Stdin,
    /// The line names it; standard input is empty.
    Line,
}

/// How a program is used in a terminal.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Interactive {
    /// The command line.
    pub line: Vec<Part>,
    /// A regular expression on the pane's lines: it takes input.
    pub ready: String,
    /// One that says that it is at work; may be empty.
    pub busy: String,
    /// Keys that send what was typed, of those in [`KEYS`].
    pub submit: Vec<String>,
    /// Files in which it keeps the events of its sessions: paths that begin with `~` or a variable of
    /// its environment, `*` for any characters of one name. They are read like output.
    pub transcript: Vec<String>,
    /// A program that its provider refused, and to whose transcript nothing comes for so long, is ended.
    pub still_ms: u64,
}

/// Where one fact stands in the output.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OutputRule {
    /// Which fact.
    pub fact: Fact,
    /// JSON pointers and the text that must stand there, for the rule to look at a line; all of them.
    pub when: BTreeMap<String, String>,
    /// JSON pointers: of numbers all that are there are added, of texts the first counts. Empty: the
    /// rule looks at lines of text.
    pub at: Vec<String>,
    /// A regular expression on the text found; its first group, or all it matches, is the value.
    pub pattern: Option<String>,
    /// What several findings make.
    pub take: Take,
    /// A JSON pointer: of findings with the same text there the last counts, and those are added.
    pub each: Option<String>,
}

/// What can be read from output.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fact {
    /// What the session is called, to take it up again.
    Session,
    /// Tokens read, those from a cache included.
    InputTokens,
    /// Tokens written.
    OutputTokens,
    /// Of the tokens read, those from a cache.
    CachedTokens,
    /// Money, in dollars.
    CostUsd,
    /// What it said last.
    Text,
    /// It says that something went wrong.
    Error,
    /// It says that its provider's limit is reached.
    Limit,
    /// It says that its provider refused the key, or that there is no credit or quota.
    Unauthorized,
    /// It says that the task does not fit into what its model can hold.
    Context,
    /// When it says that the limit ends: a moment, a time of day, or how long it lasts.
    Until,
    /// A sign that its model answers: what it said of its provider before is over.
    Progress,
}

impl Fact {
    /// Returns the kind of fault that it tells of; `None`: of none.
    #[must_use]
    pub const fn fault(self) -> Option<FaultKind> {
        match self {
            Self::Limit => Some(FaultKind::RateLimited),
            Self::Unauthorized => Some(FaultKind::Unauthorized),
            Self::Context => Some(FaultKind::ContextExceeded),
            Self::Session
            | Self::InputTokens
            | Self::OutputTokens
            | Self::CachedTokens
            | Self::CostUsd
            | Self::Text
            | Self::Error
            | Self::Until
            | Self::Progress => None,
        }
    }
}

/// What several findings of one rule make.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Take {
    /// The last one counts.
    Last,
    /// They are added, texts one behind the other.
    All,
}

impl Part {
    /// Returns its first word.
    #[must_use]
    pub fn first_word(&self) -> Option<&str> {
        match self {
            Self::Word(word) => Some(word),
            Self::Group(words) => words.first().map(String::as_str),
        }
    }
}

impl Preset {
    /// Returns the program's name or path; `None` without a headless line.
    #[must_use]
    pub fn program(&self) -> Option<&str> {
        self.headless.first()?.first_word()
    }
}
