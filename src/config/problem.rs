//! What can be wrong with `pipeline.toml`, and where.

use std::fmt;

/// Why the settings were not taken.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ConfigError {
    /// The file asks for a newer program than this one; nothing else of it was read.
    Newer {
        /// The file's `requires`.
        required: String,
        /// The version of this program.
        running: &'static str,
    },
    /// The file asks for an older program than this one; nothing else of it was read.
    Older {
        /// The file's `requires`.
        required: String,
        /// The version of this program.
        running: &'static str,
    },
    /// Something in the file is wrong.
    Invalid {
        /// At least one, in the order of the file.
        problems: Vec<Problem>,
    },
}

/// One thing that is wrong, with its place.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Problem {
    /// From 1.
    pub line: usize,
    /// In characters, from 1.
    pub column: usize,
    /// What is wrong there.
    pub what: Wrong,
}

/// What is wrong at a place.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Wrong {
    /// Not TOML.
    Syntax {
        /// The parser's words.
        message: String,
    },
    /// No such key.
    UnknownKey {
        /// With its section, e.g. `project.bsae`.
        key: String,
        /// The known one that was probably meant.
        nearest: Option<String>,
        /// All keys of that section.
        known: Vec<String>,
    },
    /// A word that the key does not have.
    UnknownValue {
        /// With its section.
        key: String,
        /// The word found.
        value: String,
        /// The known one that was probably meant.
        nearest: Option<String>,
        /// All words the key has.
        known: Vec<String>,
    },
    /// A value that a later version will take.
    NotYet {
        /// With its section.
        key: String,
        /// As written in the file.
        value: String,
        /// What to do instead; may be empty.
        instead: &'static str,
    },
    /// A value of another type.
    Type {
        /// With its section.
        key: String,
        /// The type it must have.
        expected: &'static str,
        /// The type found.
        found: &'static str,
    },
    /// A value of the right type that makes no sense there.
    Value {
        /// With its section.
        key: String,
        /// As written in the file, or the part of it that is wrong.
        value: String,
        /// What it must be.
        expected: String,
    },
    /// A file that the value names and that is of no use.
    File {
        /// With its section.
        key: String,
        /// As written in the file.
        value: String,
        /// What is wrong with it.
        why: String,
    },
    /// A key that must be given.
    Missing {
        /// With its section.
        key: String,
        /// What it must be.
        expected: &'static str,
    },
}

impl fmt::Display for ConfigError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Newer { required, running } => write!(
                f,
                "cannot use `pipeline.toml`: it requires version `{required}`, this is {running}; \
                 a newer program is needed"
            ),
            Self::Older { required, running } => write!(
                f,
                "cannot use `pipeline.toml`: it requires version `{required}`, this is {running}; \
                 an older program is needed"
            ),
            Self::Invalid { problems } => {
                write!(f, "cannot use `pipeline.toml`")?;
                match problems.as_slice() {
                    [problem] => write!(f, ": {problem}"),
                    several => several.iter().try_for_each(|problem| write!(f, "\n  {problem}")),
                }
            }
        }
    }
}

impl std::error::Error for ConfigError {}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "line {}, column {}: {}", self.line, self.column, self.what)
    }
}

impl fmt::Display for Wrong {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Syntax { message } => write!(f, "not TOML: {message}"),
            Self::UnknownKey { key, nearest, known } => {
                write!(f, "unknown key `{key}`, {}", Meant { nearest, known })
            }
            Self::UnknownValue { key, value, nearest, known } => {
                write!(f, "unknown value `{value}` of `{key}`, {}", Meant { nearest, known })
            }
            Self::NotYet { key, value, instead } => {
                write!(f, "`{key} = {value}` is not yet built")?;
                if instead.is_empty() { Ok(()) } else { write!(f, "; {instead}") }
            }
            Self::Type { key, expected, found } => {
                write!(f, "`{key}` must be {expected}, found {found}")
            }
            Self::Value { key, value, expected } => {
                write!(f, "`{key}` must be {expected}, found `{value}`")
            }
            Self::File { key, value, why } => write!(f, "cannot use `{key}`, `{value}`: {why}"),
            Self::Missing { key, expected } => write!(f, "`{key}` is missing: {expected}"),
        }
    }
}

/// The end of a message about an unknown word.
struct Meant<'a> {
    nearest: &'a Option<String>,
    known: &'a [String],
}

impl fmt::Display for Meant<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.nearest {
            Some(nearest) => write!(f, "did you mean `{nearest}`?"),
            None => write!(f, "known are `{}`", self.known.join("`, `")),
        }
    }
}
