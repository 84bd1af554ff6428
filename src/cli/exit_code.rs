//! The exit codes: one table; a released number keeps its meaning.

use std::process::ExitCode;

/// How a run of the program ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Exit {
    /// Done.
    Done,
    /// The operation failed, or a gate did not pass.
    Failed,
    /// Bad usage or bad input; nothing changed.
    Refused,
    /// The state on disk is damaged; `pipeline doctor` says more.
    Damaged,
    /// Something is in the way.
    Busy,
    /// Ended by Ctrl-C.
    Interrupted,
}

impl Exit {
    /// Returns the number that the shell sees.
    #[must_use]
    pub const fn number(self) -> u8 {
        match self {
            Self::Done => 0,
            Self::Failed => 1,
            Self::Refused => 2,
            Self::Damaged => 3,
            Self::Busy => 4,
            Self::Interrupted => 130,
        }
    }
}

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> Self {
        Self::from(exit.number())
    }
}

/// What kind of error a command ended with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// The operation failed.
    Failed,
    /// The command line is wrong.
    Usage,
    /// What was given is wrong: an unknown id, a cycle, a broken file.
    Invalid,
    /// The state on disk is damaged.
    Damaged,
    /// Something is in the way: agents, another monitor, a lock, a newer state, a red base.
    Busy,
    /// Ended by Ctrl-C.
    Interrupted,
}

impl Kind {
    /// Returns the word in JSON.
    #[must_use]
    pub const fn word(self) -> &'static str {
        match self {
            Self::Failed => "failed",
            Self::Usage => "usage",
            Self::Invalid => "invalid",
            Self::Damaged => "damaged",
            Self::Busy => "busy",
            Self::Interrupted => "interrupted",
        }
    }

    /// Returns how the program ends on such an error.
    #[must_use]
    pub const fn exit(self) -> Exit {
        match self {
            Self::Failed => Exit::Failed,
            Self::Usage | Self::Invalid => Exit::Refused,
            Self::Damaged => Exit::Damaged,
            Self::Busy => Exit::Busy,
            Self::Interrupted => Exit::Interrupted,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::Kind;

    #[test]
    fn every_kind_has_its_released_number() {
        let table = [
            (Kind::Failed, 1),
            (Kind::Usage, 2),
            (Kind::Invalid, 2),
            (Kind::Damaged, 3),
            (Kind::Busy, 4),
            (Kind::Interrupted, 130),
        ];
        for (kind, number) in table {
            assert_eq!(kind.exit().number(), number, "{}", kind.word());
        }
    }
}
