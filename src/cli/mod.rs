//! The command line: what is asked, who does it, how it is told.
//!
//! Commands that only read the state or send one command to the machine are done here, against
//! [`gate::Gate`]; all others go through [`rim`].

pub mod args;
pub mod console;
pub mod error;
pub mod exit_code;
pub mod gate;
pub mod import;
pub mod project;
mod repair;
mod report;
pub mod rim;
pub mod said;
pub mod show;
pub mod task_args;
pub mod value;
pub mod when;

mod add;
mod agent_logs;
mod agent_test;
mod alone;
mod attach;
mod attempt_log;
mod complete;
mod control;
mod deinit;
mod demo;
mod doctor;
mod edit;
mod graph;
mod hands;
mod init;
mod init_agents;
mod init_record;
mod journal;
mod keeper;
mod man;
mod monitor;
mod orphans;
mod prompt;
mod rollout;
mod salvage;
mod schema;
mod serve;
mod status;
mod steer;
mod views;
mod word;

use std::ffi::OsString;
use std::io::{self, Write};
use std::path::PathBuf;
use std::process::ExitCode;

use crate::machine;
use crate::sys::{env, signals};

use args::{AgentCommand, Args, Command, Early, Globals};
use console::{Color, Console, Format};
use error::Error;
use exit_code::Exit;
use rim::Context;
use said::Said;
use task_args::TaskCommand;

/// Runs the program with its arguments, the first being its name.
#[must_use]
pub fn run(args: impl IntoIterator<Item = OsString>) -> ExitCode {
    // Not fatal: most commands start nothing.
    let _ = signals::pass_on_as_usual(signals::CHILDREN);
    let args: Vec<OsString> = args.into_iter().collect();
    match args::parse(&args) {
        Ok(args) => {
            let format = if args.globals.json { Format::Json } else { Format::Text };
            let mut console = Console::process(format, args.globals.quiet, args.globals.color);
            let done =
                context(&args.globals).and_then(|context| dispatch(&context, &mut console, &args));
            let exit = done.unwrap_or_else(|error| {
                console.error(&error);
                error.kind.exit()
            });
            exit.into()
        }
        Err(Early::Asked(text)) => {
            let mut console = Console::process(Format::Text, false, Color::Never);
            let printed = text.print().and_then(|()| io::stdout().flush());
            let done = console.written(printed).map(|()| Exit::Done);
            done.unwrap_or_else(|error| {
                console.error(&error);
                error.kind.exit()
            })
            .into()
        }
        Err(Early::Wrong(text, told)) => {
            let is_json = args::has_json(&args);
            if is_json {
                Console::process(Format::Json, false, Color::Never).error(&told);
            } else {
                eprint_quietly(&Early::text(&text, &told));
            }
            told.kind.exit().into()
        }
    }
}

fn eprint_quietly(text: &str) {
    // Nobody is left to tell when standard error cannot be written.
    let _ = io::stderr().write_all(text.as_bytes());
}

fn context(globals: &Globals) -> Result<Context, Error> {
    let dir = env::working_dir();
    let dir = dir.map_err(|e| Error::failed("cannot find the working folder").because(&e))?;
    let dir = globals.dir.iter().fold(dir, |dir, next| dir.join(next));
    if !globals.dir.is_empty() && !dir.is_dir() {
        return Err(Error::invalid(format!("`{}` is no folder", dir.display())).at(&dir));
    }
    Ok(Context { dir, lock_wait_max: globals.lock_timeout, verbosity: globals.verbose })
}

fn dispatch(context: &Context, console: &mut Console<'_>, args: &Args) -> Result<Exit, Error> {
    let plain = |console: &mut Console<'_>, command| {
        let done = control::plain(&mut *rim::open(context)?, console, command);
        done.map(|()| Exit::Done)
    };
    let say = |console: &mut Console<'_>, said: Result<Said, Error>| {
        let named = std::env::var_os(said::TASK_FILE_VARIABLE).map(PathBuf::from);
        let done = said::run(console, &context.dir, named, &said?, rim::set_status);
        done.map(|()| Exit::Done)
    };
    match &args.command {
        Command::Init(args) => rim::init(context, console, args),
        Command::Demo(args) => rim::demo(context, console, args),
        Command::Deinit(args) => rim::deinit(context, console, args),
        Command::Task(command) => task(context, console, command),
        Command::Monitor(args) => rim::monitor(context, console, args),
        Command::Pause => plain(console, machine::Command::Pause),
        Command::Resume => plain(console, machine::Command::Resume),
        Command::Stop(args) => rim::stop(context, console, args),
        Command::Mode(command) => {
            control::mode(&mut *rim::open(context)?, console, command).map(|()| Exit::Done)
        }
        Command::Rollout(command) => rollout::run(&mut *rim::open(context)?, console, command),
        Command::Status(args) => rim::status(context, console, args),
        Command::Log(args) => rim::log(context, console, args),
        Command::Report(args) => rim::report(context, console, args),
        Command::Plan(args) => rim::plan(context, console, args),
        Command::Graph(args) => rim::graph(context, console, args),
        Command::Agent(command) => agent(context, console, command),
        Command::Salvage(command) => rim::salvage(context, console, command),
        Command::Done => say(console, Ok(Said::Done)),
        Command::Block(args) => say(console, Said::blocked(args)),
        Command::Fail(args) => say(console, Said::failed(args)),
        Command::RequestChanges(args) => say(console, Said::changes_requested(args)),
        Command::Doctor(args) => rim::doctor(context, console, args),
        Command::Completions { shell } => complete::script(console, *shell).map(|()| Exit::Done),
        Command::Man => man::run(console).map(|()| Exit::Done),
        Command::Schema { what } => schema::run(console, *what).map(|()| Exit::Done),
        Command::Complete { words } => {
            complete::run(console, &context.dir, words).map(|()| Exit::Done)
        }
        Command::Keeper { args } => rim::keeper(args),
        Command::Pane { args } => rim::pane(args),
        Command::Held { path } => rim::held(path),
        Command::Exec { args } => rim::exec(args),
    }
}

fn task(
    context: &Context,
    console: &mut Console<'_>,
    command: &TaskCommand,
) -> Result<Exit, Error> {
    let dir = &context.dir;
    let open = || rim::open(context);
    match command {
        TaskCommand::Add(args) => add::run(&mut *open()?, console, dir, args)?,
        TaskCommand::Import(args) => import::run(&mut *open()?, console, dir, args)?,
        TaskCommand::List(args) => return rim::task_list(context, console, args),
        TaskCommand::Show { id } => return rim::task_show(context, console, id),
        TaskCommand::Edit(args) => {
            let editor = edit::editor();
            edit::run(&mut *open()?, console, dir, args, editor.as_deref())?;
        }
        TaskCommand::Hold(args) => steer::hold(&mut *open()?, console, args)?,
        TaskCommand::Release(args) => steer::release(&mut *open()?, console, args)?,
        TaskCommand::Retry(args) => steer::retry(&mut *open()?, console, args)?,
        TaskCommand::Take(args) => return rim::task_take(context, console, args),
        TaskCommand::Give(args) => return rim::task_give(context, console, args),
        TaskCommand::Complete(args) => return rim::task_complete(context, console, args),
        TaskCommand::Reopen { id } => return rim::task_reopen(context, console, id),
        TaskCommand::Cancel(args) => return rim::task_cancel(context, console, args),
        TaskCommand::Approve(args) => steer::approve(&mut *open()?, console, args)?,
        TaskCommand::Log(args) => return rim::task_log(context, console, args),
        TaskCommand::Diff(args) => return rim::task_diff(context, console, args),
        TaskCommand::Prompt(args) => return rim::task_prompt(context, console, args),
    }
    Ok(Exit::Done)
}

fn agent(
    context: &Context,
    console: &mut Console<'_>,
    command: &AgentCommand,
) -> Result<Exit, Error> {
    match command {
        AgentCommand::List => return rim::agent_list(context, console),
        AgentCommand::Pause { name } => {
            control::pause_agent(&mut *rim::open(context)?, console, name)?;
        }
        AgentCommand::Resume { name } => {
            control::resume_agent(&mut *rim::open(context)?, console, name)?;
        }
        AgentCommand::Attach { name } => return rim::agent_attach(context, console, name),
        AgentCommand::Test(args) => return rim::agent_test(context, console, args),
        AgentCommand::Scale { group, to } => {
            control::scale(&mut *rim::open(context)?, console, group, *to)?;
        }
        AgentCommand::Logs { name, follow } => {
            return rim::agent_logs(context, console, name, *follow);
        }
    }
    Ok(Exit::Done)
}
