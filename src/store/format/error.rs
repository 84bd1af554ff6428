//! Why changes or a state could not be written as JSON or read from it.

use std::error::Error;
use std::fmt;

use serde_json::error::Category;

/// Why JSON could not be made or understood.
#[derive(Debug)]
pub enum FormatError {
    /// What is in memory has no form in JSON; a fault of the program.
    Encode {
        /// `changes` or `state`.
        what: &'static str,
        /// What has no form.
        source: serde_json::Error,
    },
    /// The text is not of this format: an unknown kind or field, a missing one, another type.
    Decode {
        /// `changes` or `state`.
        what: &'static str,
        /// What was found, with its column in the text.
        source: serde_json::Error,
    },
}

impl FormatError {
    /// Returns true when the text is JSON, and of another shape than this program writes. Where its
    /// checksum is right, another version of the program wrote it: damage does not make such.
    #[must_use]
    pub fn is_foreign(&self) -> bool {
        match self {
            Self::Decode { source, what: _ } => source.classify() == Category::Data,
            Self::Encode { .. } => false,
        }
    }
}

impl fmt::Display for FormatError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Encode { what, source: _ } => write!(f, "cannot write `{what}` as JSON"),
            Self::Decode { what, source: _ } => write!(f, "cannot read `{what}` from the journal"),
        }
    }
}

impl Error for FormatError {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        match self {
            Self::Encode { source, what: _ } | Self::Decode { source, what: _ } => Some(source),
        }
    }
}
