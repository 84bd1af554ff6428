//! What the commands need of the rest of the program, in one place: the project, the monitor, the
//! views. Each function is one call to where it is done.

use std::ffi::OsString;
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::args::{
    AgentTestArgs, DeinitArgs, DemoArgs, DoctorArgs, GraphArgs, InitArgs, LogArgs, MonitorArgs,
    PlanArgs, ReportArgs, SalvageCommand, StatusArgs, StopArgs,
};
use super::console::{Console, Format};
use super::error::Error;
use super::exit_code::{Exit, Kind};
use super::gate::{Gate, Sent};
use super::monitor::Manner;
use super::project::{Open, Project};
use super::said::Said;
use super::task_args::{
    CancelArgs, CompleteArgs, DiffArgs, GiveArgs, ListArgs, PromptArgs, TakeArgs, TaskLogArgs,
};
use super::{
    agent_logs, agent_test as trial, attempt_log, demo as demonstration, doctor as health,
    graph as pictures, hands, journal, monitor as runs, prompt, report as told, status as stands,
    views,
};
use crate::agent::reply;
use crate::agent::status_line::Status;
use crate::machine::id::TaskId;
use crate::machine::{Command, State};
use crate::store::lock::is_held;
use crate::sys::signals;

/// Where and how a command runs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Context {
    /// Absolute: the working folder, or what `-C` says.
    pub dir: PathBuf,
    /// How long to wait for another process that writes the state.
    pub lock_wait_max: Duration,
    /// How much more is said than usual, from 0.
    pub verbosity: u8,
}

/// Finds and reads the project that the folder belongs to.
fn project(context: &Context, console: &mut Console<'_>) -> Result<Open, Error> {
    let mut open = Project::find(&context.dir)?.open(context.lock_wait_max)?;
    open.warnings.drain(..).for_each(|warning| console.warn(&warning));
    Ok(open)
}

/// As [`project`], for what is shown by the settings.
fn current(context: &Context, console: &mut Console<'_>) -> Result<Open, Error> {
    let mut open = project(context, console)?;
    open.look_at_settings();
    open.warnings.drain(..).for_each(|warning| console.warn(&warning));
    Ok(open)
}

/// A project whose warnings are told when the command is over.
struct Told(Open);

impl Gate for Told {
    fn state(&mut self) -> Result<(&State, u64), Error> {
        self.0.state()
    }

    fn send(&mut self, command: Command) -> Result<Sent, Error> {
        self.0.send(command)
    }

    fn wait_change(&mut self, wait_max: Duration) -> Result<(), Error> {
        self.0.wait_change(wait_max)
    }
}

impl Drop for Told {
    fn drop(&mut self) {
        for warning in &self.0.warnings {
            super::eprint_quietly(&format!("warning: {warning}\n"));
        }
    }
}

/// Opens the project that the folder belongs to.
///
/// # Errors
/// When there is none, or its state is damaged or of a newer program.
pub fn open(context: &Context) -> Result<Box<dyn Gate>, Error> {
    let open = Project::find(&context.dir)?.open(context.lock_wait_max)?;
    Ok(Box::new(Told(open)))
}

/// Writes the status line to a task file, atomically.
///
/// # Errors
/// When the file cannot be read or written.
pub fn set_status(path: &Path, said: &Said) -> io::Result<()> {
    let status = match said {
        Said::Done => Status::Completed,
        Said::Blocked(why) => Status::Blocked(why.clone()),
        Said::Failed(why) => Status::Failed(why.clone()),
        Said::ChangesRequested(what) => Status::ChangesRequested(what.clone()),
    };
    reply::set_status(path, &status)
}

fn manner(context: &Context, console: &Console<'_>) -> Manner {
    Manner {
        lock_wait: context.lock_wait_max,
        is_quiet: console.is_quiet,
        is_verbose: context.verbosity > 0,
    }
}

/// `pipeline init`.
///
/// # Errors
/// Whatever stops it.
pub fn init(context: &Context, console: &mut Console<'_>, args: &InitArgs) -> Result<Exit, Error> {
    super::init::run(args, &context.dir, context.lock_wait_max, console).map(|()| Exit::Done)
}

/// `pipeline demo`.
///
/// # Errors
/// Whatever stops it.
pub fn demo(context: &Context, console: &mut Console<'_>, args: &DemoArgs) -> Result<Exit, Error> {
    demonstration::run(args, &context.dir, context.lock_wait_max, console).map(|()| Exit::Done)
}

/// `pipeline deinit`.
///
/// # Errors
/// Whatever stops it.
pub fn deinit(
    context: &Context,
    console: &mut Console<'_>,
    args: &DeinitArgs,
) -> Result<Exit, Error> {
    let manner = manner(context, console);
    super::deinit::run(args, &context.dir, manner, console).map(|()| Exit::Done)
}

/// `pipeline monitor`.
///
/// # Errors
/// Whatever stops it.
pub fn monitor(
    context: &Context,
    console: &mut Console<'_>,
    args: &MonitorArgs,
) -> Result<Exit, Error> {
    let open = project(context, console)?;
    runs::run(args, open, manner(context, console), console)
}

/// `pipeline stop`.
///
/// # Errors
/// Whatever stops it.
pub fn stop(context: &Context, console: &mut Console<'_>, args: &StopArgs) -> Result<Exit, Error> {
    let open = project(context, console)?;
    runs::stop(args, open, manner(context, console), console)
}

/// What only shows what happens ends as the monitor does when it is told to leave.
fn follow(is_following: bool) {
    if is_following {
        // Where that cannot be had a signal ends it as ever.
        let _ = signals::leave_when_told();
    }
}

/// `pipeline status`.
///
/// # Errors
/// Whatever stops it.
pub fn status(
    context: &Context,
    console: &mut Console<'_>,
    args: &StatusArgs,
) -> Result<Exit, Error> {
    follow(args.watch);
    stands::run(current(context, console)?, console, args)
}

/// `pipeline log`.
///
/// # Errors
/// Whatever stops it.
pub fn log(context: &Context, console: &mut Console<'_>, args: &LogArgs) -> Result<Exit, Error> {
    follow(args.follow);
    journal::run(project(context, console)?, console, args)
}

/// `pipeline report`.
///
/// # Errors
/// Whatever stops it.
pub fn report(
    context: &Context,
    console: &mut Console<'_>,
    args: &ReportArgs,
) -> Result<Exit, Error> {
    told::run(&project(context, console)?, console, &context.dir, args)
}

/// `pipeline plan`.
///
/// # Errors
/// Whatever stops it.
pub fn plan(context: &Context, console: &mut Console<'_>, args: &PlanArgs) -> Result<Exit, Error> {
    views::plan(&current(context, console)?, console, args)
}

/// `pipeline graph`.
///
/// # Errors
/// Whatever stops it.
pub fn graph(
    context: &Context,
    console: &mut Console<'_>,
    args: &GraphArgs,
) -> Result<Exit, Error> {
    match &args.file {
        Some(file) => pictures::of_file(&context.dir.join(file), console, args),
        None => pictures::of_project(&project(context, console)?, console, args),
    }
}

/// `pipeline task list`.
///
/// # Errors
/// Whatever stops it.
pub fn task_list(
    context: &Context,
    console: &mut Console<'_>,
    args: &ListArgs,
) -> Result<Exit, Error> {
    views::tasks(&project(context, console)?, console, args)
}

/// `pipeline task show`.
///
/// # Errors
/// Whatever stops it.
pub fn task_show(context: &Context, console: &mut Console<'_>, id: &TaskId) -> Result<Exit, Error> {
    views::task(&project(context, console)?, console, id)
}

/// `pipeline task log`.
///
/// # Errors
/// Whatever stops it.
pub fn task_log(
    context: &Context,
    console: &mut Console<'_>,
    args: &TaskLogArgs,
) -> Result<Exit, Error> {
    follow(args.follow);
    attempt_log::of_task(project(context, console)?, console, args)
}

/// `pipeline task diff`.
///
/// # Errors
/// Whatever stops it.
pub fn task_diff(
    context: &Context,
    console: &mut Console<'_>,
    args: &DiffArgs,
) -> Result<Exit, Error> {
    views::diff(&project(context, console)?, console, args)
}

/// `pipeline task take`.
///
/// # Errors
/// Whatever stops it.
pub fn task_take(
    context: &Context,
    console: &mut Console<'_>,
    args: &TakeArgs,
) -> Result<Exit, Error> {
    hands::take(project(context, console)?, console, &context.dir, args)
}

/// `pipeline task give`.
///
/// # Errors
/// Whatever stops it.
pub fn task_give(
    context: &Context,
    console: &mut Console<'_>,
    args: &GiveArgs,
) -> Result<Exit, Error> {
    hands::give(project(context, console)?, console, args)
}

/// `pipeline task complete`.
///
/// # Errors
/// Whatever stops it.
pub fn task_complete(
    context: &Context,
    console: &mut Console<'_>,
    args: &CompleteArgs,
) -> Result<Exit, Error> {
    hands::complete(project(context, console)?, console, &context.dir, args)
}

/// `pipeline task cancel`.
///
/// # Errors
/// Whatever stops it.
pub fn task_cancel(
    context: &Context,
    console: &mut Console<'_>,
    args: &CancelArgs,
) -> Result<Exit, Error> {
    hands::cancel(project(context, console)?, console, args)
}

/// `pipeline task reopen`.
///
/// # Errors
/// Whatever stops it.
pub fn task_reopen(
    context: &Context,
    console: &mut Console<'_>,
    id: &TaskId,
) -> Result<Exit, Error> {
    hands::reopen(project(context, console)?, console, id)
}

/// `pipeline task prompt`.
///
/// # Errors
/// Whatever stops it.
pub fn task_prompt(
    context: &Context,
    console: &mut Console<'_>,
    args: &PromptArgs,
) -> Result<Exit, Error> {
    prompt::run(&project(context, console)?, console, args)
}

/// `pipeline agent list`.
///
/// # Errors
/// Whatever stops it.
pub fn agent_list(context: &Context, console: &mut Console<'_>) -> Result<Exit, Error> {
    views::agents(&current(context, console)?, console)
}

/// `pipeline agent logs`.
///
/// # Errors
/// Whatever stops it.
pub fn agent_logs(
    context: &Context,
    console: &mut Console<'_>,
    name: &str,
    is_following: bool,
) -> Result<Exit, Error> {
    follow(is_following);
    agent_logs::run(project(context, console)?, console, name, is_following)
}

/// `pipeline agent test`.
///
/// # Errors
/// Whatever stops it.
pub fn agent_test(
    context: &Context,
    console: &mut Console<'_>,
    args: &AgentTestArgs,
) -> Result<Exit, Error> {
    let manner = manner(context, console);
    trial::run(args, project(context, console)?, manner, console)
}

/// `pipeline salvage …`.
///
/// # Errors
/// Whatever stops it.
pub fn salvage(
    context: &Context,
    console: &mut Console<'_>,
    command: &SalvageCommand,
) -> Result<Exit, Error> {
    let open = project(context, console)?;
    super::salvage::run(&open, &context.dir, console, command).map(|()| Exit::Done)
}

/// `pipeline doctor`.
///
/// # Errors
/// Whatever stops it.
pub fn doctor(
    context: &Context,
    console: &mut Console<'_>,
    args: &DoctorArgs,
) -> Result<Exit, Error> {
    health::run(&context.dir, context.lock_wait_max, console, args)
}

/// Prints text or, where it is asked for, JSON that is rendered already.
///
/// # Errors
/// When standard output cannot be written.
pub fn print(
    console: &mut Console<'_>,
    text: impl FnOnce() -> String,
    json: impl FnOnce() -> String,
) -> Result<(), Error> {
    let data = match console.format {
        Format::Text => text(),
        Format::Json => json(),
    };
    console.write(data.as_bytes())
}

/// `pipeline __keeper`.
///
/// # Errors
/// Whatever stops it.
pub fn keeper(args: &[OsString]) -> Result<Exit, Error> {
    super::keeper::run(args).map(|()| Exit::Done)
}

/// `pipeline __pane`.
///
/// # Errors
/// Whatever stops it.
pub fn pane(args: &[OsString]) -> Result<Exit, Error> {
    super::keeper::hold_window(args).map(|()| Exit::Done)
}

/// `pipeline __held`.
///
/// # Errors
/// When the lock cannot be looked at.
pub fn held(path: &Path) -> Result<Exit, Error> {
    let is_held = is_held(path).map_err(|error| {
        Error::new(Kind::Busy, format!("cannot look at `{}`", path.display())).because(&error)
    })?;
    Ok(if is_held { Exit::Done } else { Exit::Failed })
}

/// `pipeline __exec`.
///
/// # Errors
/// Whatever stops it; else it does not return.
pub fn exec(args: &[OsString]) -> Result<Exit, Error> {
    Err(super::keeper::exec(args))
}

/// `pipeline agent attach`.
///
/// # Errors
/// Whatever stops it.
pub fn agent_attach(
    context: &Context,
    console: &mut Console<'_>,
    name: &str,
) -> Result<Exit, Error> {
    let open = project(context, console)?;
    super::attach::run(&open, name, console)
}
