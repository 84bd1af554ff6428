//! The error a command ends with, and how it is told.

use std::error::Error as StdError;
use std::fmt;
use std::path::{Path, PathBuf};

use serde::Serialize;

use crate::git::GitError;
use crate::machine::{Refusal, RefusalKind};

use super::exit_code::Kind;

/// What failed, why, and what to do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Error {
    /// Fixes the exit code.
    pub kind: Kind,
    /// Lower-case fragment: what was attempted on what.
    pub message: String,
    /// From the nearest cause to the first one; may be empty.
    pub causes: Vec<String>,
    /// What to do, the best first; may be empty.
    pub hints: Vec<String>,
    /// The file or folder it is about.
    pub path: Option<PathBuf>,
}

impl Error {
    /// Makes an error without cause, hint and path.
    #[must_use]
    pub fn new(kind: Kind, message: impl Into<String>) -> Self {
        let message = message.into();
        Self { kind, message, causes: Vec::new(), hints: Vec::new(), path: None }
    }

    /// Makes an error of kind [`Kind::Failed`].
    #[must_use]
    pub fn failed(message: impl Into<String>) -> Self {
        Self::new(Kind::Failed, message)
    }

    /// Makes an error of kind [`Kind::Usage`].
    #[must_use]
    pub fn usage(message: impl Into<String>) -> Self {
        Self::new(Kind::Usage, message)
    }

    /// Makes an error of kind [`Kind::Invalid`].
    #[must_use]
    pub fn invalid(message: impl Into<String>) -> Self {
        Self::new(Kind::Invalid, message)
    }

    /// Makes an error of kind [`Kind::Busy`].
    #[must_use]
    pub fn busy(message: impl Into<String>) -> Self {
        Self::new(Kind::Busy, message)
    }

    /// Adds `cause` and all that is behind it.
    #[must_use]
    pub fn because(mut self, cause: &dyn StdError) -> Self {
        let mut next = Some(cause);
        while let Some(cause) = next {
            self.causes.push(cause.to_string());
            next = cause.source();
        }
        self
    }

    /// Adds git's failure, what is behind it, and what can be done about it.
    #[must_use]
    pub fn because_git(self, error: &GitError) -> Self {
        let told = self.because(error).hint(error.hint().unwrap_or_default());
        if let Some(lock) = error.lock() { told.at(&lock) } else { told }
    }

    /// Adds a cause in words.
    #[must_use]
    pub fn because_of(mut self, cause: impl Into<String>) -> Self {
        self.causes.push(cause.into());
        self
    }

    /// Adds a hint; an empty one is dropped.
    #[must_use]
    pub fn hint(mut self, hint: impl Into<String>) -> Self {
        let hint = hint.into();
        if !hint.is_empty() {
            self.hints.push(hint);
        }
        self
    }

    /// Names the file or folder it is about.
    #[must_use]
    pub fn at(mut self, path: &Path) -> Self {
        self.path = Some(path.to_owned());
        self
    }

    /// Returns the lines for a person, each ended.
    #[must_use]
    pub fn text(&self) -> String {
        let mut text = format!("error: {}\n", self.message);
        for cause in &self.causes {
            text.push_str(&format!("  caused by: {}\n", indented(cause)));
        }
        for hint in &self.hints {
            text.push_str(&format!("  hint: {}\n", indented(hint)));
        }
        text
    }

    /// Returns the JSON object, on one line, ended.
    #[must_use]
    pub fn json(&self) -> String {
        let hint = (!self.hints.is_empty()).then(|| self.hints.join("\n"));
        let body = Body {
            kind: self.kind.word(),
            message: &self.message,
            causes: &self.causes,
            hint: hint.as_deref(),
            path: self.path.as_ref().map(|path| path.to_string_lossy()),
        };
        let text = serde_json::to_string(&Object { error: body });
        format!("{}\n", text.expect("strings and lists of strings are always JSON"))
    }
}

/// Keeps further lines of a multi-line text below its first one.
fn indented(text: &str) -> String {
    text.trim_end().replace('\n', "\n    ")
}

#[derive(Serialize)]
struct Object<'a> {
    error: Body<'a>,
}

#[derive(Serialize)]
struct Body<'a> {
    kind: &'static str,
    message: &'a str,
    causes: &'a [String],
    hint: Option<&'a str>,
    path: Option<std::borrow::Cow<'a, str>>,
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl StdError for Error {}

impl From<Refusal> for Error {
    fn from(refusal: Refusal) -> Self {
        let Refusal { kind, reason, hint } = refusal;
        let kind = match kind {
            RefusalKind::Invalid => Kind::Invalid,
            RefusalKind::Unmet => Kind::Failed,
            RefusalKind::Busy => Kind::Busy,
        };
        Self::new(kind, reason).hint(hint)
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use crate::machine::{Refusal, RefusalKind};

    use super::Error;

    fn sample() -> Error {
        let cause = std::io::Error::other("no space\nleft");
        Error::failed("cannot write `a`").because(&cause).hint("free some").at(Path::new("/a"))
    }

    #[test]
    fn people_get_cause_and_hint_below() {
        let text = "error: cannot write `a`\n  caused by: no space\n    left\n  hint: free some\n";
        assert_eq!(sample().text(), text);
    }

    #[test]
    fn scripts_get_one_line_of_json() {
        let json = "{\"error\":{\"kind\":\"failed\",\"message\":\"cannot write `a`\",\
                    \"causes\":[\"no space\\nleft\"],\"hint\":\"free some\",\"path\":\"/a\"}}\n";
        assert_eq!(sample().json(), json);
        assert!(Error::usage("x").json().contains("\"causes\":[],\"hint\":null,\"path\":null"));
    }

    #[test]
    fn refusals_keep_their_kind() {
        for (kind, number) in
            [(RefusalKind::Invalid, 2), (RefusalKind::Unmet, 1), (RefusalKind::Busy, 4)]
        {
            let error = Error::from(Refusal { kind, reason: "no".into(), hint: String::new() });
            assert_eq!(error.kind.exit().number(), number);
            assert!(error.hints.is_empty());
        }
    }
}
