//! `pipeline schema`: the JSON Schemas of what the program writes and reads.

use clap::ValueEnum;

use super::console::Console;
use super::error::Error;

/// What there is a schema of.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum SchemaArg {
    /// `state.json`.
    State,
    /// `pipeline.toml`.
    Config,
    /// A line of the journal.
    Journal,
    /// `status --json`.
    Status,
    /// `task show --json`.
    Task,
    /// What a command of `[notify]` is told.
    Notify,
    /// What a command of `[scheduler]` is asked, and its answer.
    Scheduler,
}

impl SchemaArg {
    /// Returns the schema, a JSON document with a line feed at its end.
    #[must_use]
    pub const fn text(self) -> &'static str {
        match self {
            Self::State => include_str!("../../state/schema/state.schema.json"),
            Self::Config => include_str!("../../state/schema/config.schema.json"),
            Self::Journal => include_str!("../../state/schema/journal.schema.json"),
            Self::Status => include_str!("../../state/schema/status.schema.json"),
            Self::Task => include_str!("../../state/schema/task.schema.json"),
            Self::Notify => include_str!("../../state/schema/notify.schema.json"),
            Self::Scheduler => include_str!("../../state/schema/scheduler.schema.json"),
        }
    }
}

/// Prints a schema; it is JSON with `--json` and without.
///
/// # Errors
/// When standard output cannot be written.
pub fn run(console: &mut Console<'_>, what: SchemaArg) -> Result<(), Error> {
    console.write(what.text().as_bytes())
}
