//! Names as types: a task id is never mistaken for an agent's name.

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

macro_rules! name_type {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $name(Arc<str>);

        impl $name {
            /// Takes the text as it is; what comes from outside goes through a validator first.
            #[must_use]
            pub fn new(text: impl AsRef<str>) -> Self {
                Self(Arc::from(text.as_ref()))
            }

            /// Returns the text.
            #[must_use]
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }
    };
}

name_type!(
    /// A task's id, e.g. `TASK-001`.
    TaskId
);
name_type!(
    /// A stage's long name, e.g. `implementation`.
    StageName
);
name_type!(
    /// An agent's name, e.g. `implementation-2`.
    AgentName
);
name_type!(
    /// An attempt's id, e.g. `TASK-001.impl.1`.
    AttemptId
);
name_type!(
    /// A git object id in hex.
    Oid
);

/// Longest task id in bytes.
pub const TASK_ID_BYTES_MAX: usize = 64;

impl FromStr for TaskId {
    type Err = String;

    /// Accepts what [`TaskId::check`] does.
    fn from_str(text: &str) -> Result<Self, String> {
        Self::check(text).map(|()| Self::new(text))
    }
}

impl TaskId {
    /// Accepts `[A-Za-z0-9][A-Za-z0-9._-]{0,63}` without `..`, a final `.` or a final `.lock`.
    ///
    /// # Errors
    /// What is wrong with it.
    pub fn check(text: &str) -> Result<(), String> {
        let refuse = |why: &str| Err(format!("task id `{}` {why}", text.escape_debug()));
        if text.is_empty() || text.len() > TASK_ID_BYTES_MAX {
            return refuse("must have 1 to 64 characters");
        }
        if !text.starts_with(|c: char| c.is_ascii_alphanumeric()) {
            return refuse("must begin with a letter or a digit");
        }
        if !text.bytes().all(|b| b.is_ascii_alphanumeric() || b"._-".contains(&b)) {
            return refuse("may hold only letters, digits, `.`, `_` and `-`");
        }
        if text.contains("..") || text.ends_with('.') || text.ends_with(".lock") {
            return refuse("must not hold `..` or end in `.` or `.lock`");
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::TaskId;

    #[test]
    fn ids_that_git_or_paths_would_choke_on_are_refused() {
        for bad in ["", "-a", ".a", "a..b", "a.", "a.lock", "a/b", "a b", "ä", &"x".repeat(65)] {
            assert!(bad.parse::<TaskId>().is_err(), "{bad}");
        }
        for good in ["a", "TASK-001", "AFP-W0.M1_x", &"x".repeat(64)] {
            assert_eq!(good.parse::<TaskId>().as_ref().map(TaskId::as_str), Ok(good));
        }
    }
}
