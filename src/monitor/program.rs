//! A program of the user's that the monitor tells or asks something: it reads standard input, and is
//! heard out within a time limit.

use std::io::{self, Seek, Write};
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::path::{Path, PathBuf};
use std::process::{Output, Stdio};
use std::time::Duration;

use crate::agent::environment::agent_env;
use crate::observe::page::{cut, first_line};
use crate::sys::child::{self, Heard, Stop};
use crate::sys::file::unnamed;

/// Columns shown of the command.
const COMMAND_COLUMNS_MAX: usize = 50;
/// Columns shown of what the command said.
const SAID_COLUMNS_MAX: usize = 160;

/// A program with arguments, ready to be run.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Program {
    command: Vec<String>,
    root: PathBuf,
    env: Vec<(String, String)>,
}

impl Program {
    /// Fills `command` in: `{project}` is the project's root, and a program path with a slash is
    /// taken from there. `extra` is put over the monitor's own environment.
    pub fn of(
        command: &[String],
        root: &Path,
        program_dir: &Path,
        extra: &[(String, String)],
    ) -> Self {
        let project = root.to_string_lossy().into_owned();
        let mut command: Vec<String> =
            command.iter().map(|word| word.replace("{project}", &project)).collect();
        if let Some(program) = command.first_mut().filter(|program| program.contains('/')) {
            *program = root.join(&*program).to_string_lossy().into_owned();
        }
        let mut extra = extra.to_vec();
        extra.push(("PIPELINE_PROJECT".to_owned(), project));
        let env = agent_env(std::env::vars_os(), &["*".to_owned()], program_dir, &extra);
        Self { command, root: root.to_owned(), env }
    }

    /// Returns the command line in short, for people.
    pub fn shown(&self) -> String {
        cut(&first_line(&self.command.join(" ")), COMMAND_COLUMNS_MAX).into_owned()
    }

    /// Runs it with `text` as its standard input; of each output the first `bytes_max` are kept.
    ///
    /// # Errors
    /// When it cannot be started, or not be waited for; when `stop` is raised before.
    pub fn run(
        &self,
        text: &str,
        limit: Duration,
        bytes_max: usize,
        stop: Option<&Stop>,
    ) -> io::Result<Heard> {
        let Some((program, args)) = self.command.split_first() else {
            return Err(io::Error::other("its command is empty"));
        };
        // A file, not a pipe: nobody has to feed it while it runs.
        let mut input = unnamed()?;
        input.write_all(text.as_bytes())?;
        input.rewind()?;
        let mut command = child::command(program, &self.root);
        command.args(args).stdin(Stdio::from(input));
        command.env_clear().envs(self.env.iter().map(|(name, value)| (name, value)));
        // A group of its own: all that it starts is ended with it, and Ctrl-C is for us.
        command.process_group(0);
        child::output_bounded(&mut command, limit, bytes_max, stop)
    }
}

/// Returns how a program that failed ended, and the last line that it wrote to standard error.
pub fn ended(output: &Output) -> String {
    let said = last_line(&output.stderr);
    match (output.status.code(), output.status.signal()) {
        (Some(code), _) => format!("ended with exit code {code}{said}"),
        (None, signal) => format!("was ended by signal {}{said}", signal.unwrap_or_default()),
    }
}

/// Returns the last line that is not blank, behind a colon.
fn last_line(said: &[u8]) -> String {
    let said = String::from_utf8_lossy(said);
    let last = said.lines().rev().find(|line| !line.trim().is_empty());
    last.map_or(String::new(), |line| format!(": {}", cut(&first_line(line), SAID_COLUMNS_MAX)))
}
