//! `pipeline monitor` and `pipeline stop`.

use std::ffi::OsString;
use std::io::IsTerminal;
use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::process::Stdio;
use std::time::Duration;

use super::args::{LogFormat as Format, MonitorArgs, StopArgs};
use super::console::{self, Console};
use super::control::stop_kind;
use super::error::Error;
use super::exit_code::{Exit, Kind};
use super::gate::Gate;
use super::project::{CONFIG_BYTES_MAX, Open, Project, check_path};
use crate::agent::connect::KeeperExe;
use crate::config::layout::Layout;
use crate::machine::event::StopKind;
use crate::machine::{Command, State};
use crate::monitor::RunError;
use crate::monitor::notices::Notices;
use crate::monitor::progress::{LogFormat, Progress};
use crate::monitor::{End, Options, Until, run as run_monitor};
use crate::observe::remaining::remaining;
use crate::store::lock::read_owner;
use crate::sys::child;
use crate::sys::file::read_bounded;

/// How long `--detach` waits for the monitor in the background to be there.
const DETACH_WAIT: Duration = Duration::from_secs(10);
/// How long `stop` waits for a monitor that was told to leave.
const STOP_WAIT: Duration = Duration::from_secs(30);

/// What a monitor is run with, besides the project.
#[derive(Debug, Clone, Copy)]
pub struct Manner {
    pub lock_wait: Duration,
    pub is_quiet: bool,
    pub is_verbose: bool,
}

/// Returns what keepers are started from: this very program.
///
/// # Errors
/// When the kernel does not tell.
pub fn keeper_exe() -> Result<KeeperExe, Error> {
    let program = std::env::current_exe()
        .map_err(|error| Error::failed("cannot find this program's file").because(&error))?;
    Ok(KeeperExe { program, args: vec![OsString::from("__keeper")] })
}

/// Runs the monitor.
///
/// # Errors
/// Another monitor runs, there are no agents, the base is red, or the journal fails.
pub fn run(
    args: &MonitorArgs,
    open: Open,
    manner: Manner,
    console: &mut Console<'_>,
) -> Result<Exit, Error> {
    let until = until(args, &open)?;
    check_path(&open.project.layout)?;
    need_agents(open.now().0, &open.project)?;
    if args.detach {
        return detach(open, console);
    }
    let project = open.into_project();
    let layout = project.layout.clone();
    if args.log_format == Format::Json {
        console.format = console::Format::Json;
    }
    let format = match console.format {
        console::Format::Text => LogFormat::Text,
        console::Format::Json => LogFormat::Json,
    };
    let is_live = std::io::stderr().is_terminal() && std::io::stdout().is_terminal();
    let keeper = keeper_exe()?;
    let program_dir = keeper.program.parent().map(PathBuf::from).unwrap_or_default();
    let notices = Notices::new(layout.root.clone(), program_dir);
    let progress = Progress::new(format, is_live, manner.is_quiet, manner.is_verbose);
    let end = run_monitor(Options {
        layout: project.layout,
        repo: project.repo,
        until,
        is_poll_only: args.poll_only,
        allows_red_base: args.allow_red_base,
        stop: None,
        lock_wait: manner.lock_wait,
        progress: progress.with_notices(notices),
        keeper,
    });
    conclude(end, layout, manner)
}

fn until(args: &MonitorArgs, open: &Open) -> Result<Until, Error> {
    let within_ms = args.timeout.map(|timeout| timeout.as_millis() as u64);
    if args.until_idle {
        return Ok(Until::Idle { within_ms });
    }
    if let Some(when) = &args.until {
        let at = when.future(open.clock(), &jiff::tz::TimeZone::system());
        return at.map(Until::Moment).map_err(Error::usage);
    }
    Ok(if args.once { Until::Once } else { Until::Told })
}

/// A monitor without agents would wait for ever.
fn need_agents(state: &State, project: &Project) -> Result<(), Error> {
    // The file counts, not the adopted settings: the monitor adopts it first of all.
    let bytes = read_bounded(&project.layout.config(), CONFIG_BYTES_MAX).ok().flatten();
    let text = bytes.and_then(|bytes| String::from_utf8(bytes).ok());
    let loaded = text.map(|text| crate::config::load_in(&project.layout.root, &text));
    let has_agents = match loaded {
        Some(Ok(loaded)) => !loaded.settings.agents.is_empty(),
        Some(Err(error)) if state.settings.agents.is_empty() => {
            return Err(super::init::config_error(&error).at(&project.layout.config()));
        }
        Some(Err(_)) | None => !state.settings.agents.is_empty(),
    };
    if has_agents {
        return Ok(());
    }
    Err(Error::usage("there are no agents")
        .at(&project.layout.config())
        .hint("add an `[[agent]]` to pipeline.toml")
        .hint(
            "or move the file away and `pipeline init --agents shell`: it writes agents that work",
        ))
}

fn conclude(end: Result<End, RunError>, layout: Layout, manner: Manner) -> Result<Exit, Error> {
    match end {
        Ok(End::Done) => Ok(Exit::Done),
        Ok(End::PersonNeeded) => Err(left(layout, manner, "only a person can move what is left")?),
        Ok(End::TimedOut) => Err(left(layout, manner, "the time is up before all is done")?),
        Ok(End::RedBase { output }) => {
            let told = Error::busy("the checks are red on the base branch: no agent was started");
            Err(told
                .because_of(output)
                .hint("mend the base, or start anyway with --allow-red-base"))
        }
        Ok(End::Interrupted) => Ok(Exit::Interrupted),
        Err(error) => Err(error_of(error)),
    }
}

/// Returns the error that names each task that is left, with what it waits for.
fn left(layout: Layout, manner: Manner, what: &str) -> Result<Error, Error> {
    let open = Project { layout, repo: None }.open(manner.lock_wait)?;
    let state = open.now().0;
    let lines = remaining(state);
    let told = Error::failed(format!("{what} ({})", counted(lines.len(), "task")));
    let told = lines.into_iter().fold(told, Error::because_of).hint("see `pipeline status`");
    if state.attempts.is_empty() {
        return Ok(told);
    }
    Ok(told.hint("agents go on: `pipeline monitor` takes them up, `pipeline stop --now` ends them"))
}

fn counted(count: usize, noun: &str) -> String {
    format!("{count} {noun}{}", if count == 1 { "" } else { "s" })
}

/// Turns a monitor's error into the command line's.
pub fn error_of(error: RunError) -> Error {
    let error = match error {
        RunError::Ledger(error) => return Error::from(error).hint("agents that run live on"),
        other @ (RunError::Taken { .. }
        | RunError::Fenced { .. }
        | RunError::Io { .. }
        | RunError::Git(_)) => other,
    };
    let (kind, hint) = match &error {
        RunError::Taken { .. } => (Kind::Busy, Some("`pipeline stop` ends it")),
        RunError::Fenced { .. } => {
            (Kind::Busy, Some("agents that run live on: `pipeline monitor` takes them up"))
        }
        RunError::Ledger(_) => (Kind::Failed, None),
        RunError::Io { source, .. } if source.kind() == std::io::ErrorKind::PermissionDenied => {
            (Kind::Failed, Some("make the state's folder writable for you"))
        }
        RunError::Io { .. } | RunError::Git(_) => (Kind::Failed, None),
    };
    let told = Error::new(kind, error.to_string());
    let told = match std::error::Error::source(&error) {
        Some(cause) => told.because(cause),
        None => told,
    };
    match hint {
        Some(hint) => told.hint(hint),
        None => told,
    }
}

/// Starts the monitor in the background, in a process group of its own, and waits until it is there.
fn detach(mut open: Open, console: &mut Console<'_>) -> Result<Exit, Error> {
    if open.has_monitor() {
        let path = open.project.layout.monitor_lock();
        let pid = read_owner(&path).map(|owner| owner.pid);
        return Err(error_of(RunError::Taken { path, pid }));
    }
    // From here, since `-C` may be relative.
    let dir = crate::sys::env::working_dir()
        .map_err(|error| Error::failed("cannot find the working folder").because(&error))?;
    let log = open.project.layout.state.join("logs/monitor.log");
    let file = |error: std::io::Error| {
        Error::failed(format!("cannot open `{}`", log.display())).because(&error)
    };
    if let Some(parent) = log.parent() {
        std::fs::create_dir_all(parent).map_err(file)?;
    }
    let output = std::fs::OpenOptions::new().create(true).append(true).open(&log).map_err(file)?;
    let errors = output.try_clone().map_err(file)?;
    let exe = keeper_exe()?.program;
    let rest = std::env::args_os().skip(1).filter(|arg| arg != "--detach");
    let mut command = child::command(exe, &dir);
    command.args(rest).stdin(Stdio::null()).stdout(output).stderr(errors).process_group(0);
    let mut started = command
        .spawn()
        .map_err(|error| Error::failed("cannot start the monitor").because(&error))?;
    let before = open.now().1;
    let clock = crate::sys::clock::monotonic();
    loop {
        let (state, seq) = open.state()?;
        if seq > before && state.monitor.pid == started.id() {
            console.note(&format!(
                "the monitor runs as process {}; log: {}",
                started.id(),
                log.display()
            ));
            return Ok(Exit::Done);
        }
        let ended = started.try_wait();
        let is_done = |open: &mut Open| -> Result<bool, Error> {
            let (state, seq) = open.state()?;
            Ok(seq > before && state.monitor.pid == started.id())
        };
        if let Ok(Some(status)) = ended
            && !is_done(&mut open)?
        {
            return Err(Error::failed(format!("the monitor ended at once ({status})"))
                .hint(format!("see {}", log.display())));
        }
        if clock.elapsed() > DETACH_WAIT {
            return Err(Error::failed("the monitor is not there yet")
                .hint(format!("see {}", log.display())));
        }
        open.wait_change(Duration::from_millis(100))?;
    }
}

/// Tells the monitor to end; without one, acts for it where that is needed.
///
/// # Errors
/// When the journal fails, or the monitor does not end in time.
pub fn stop(
    args: &StopArgs,
    mut open: Open,
    manner: Manner,
    console: &mut Console<'_>,
) -> Result<Exit, Error> {
    let kind = stop_kind(args);
    if !open.has_monitor() {
        let has_work = !open.now().0.attempts.is_empty();
        if !has_work {
            console.note("no monitor runs");
            return Ok(Exit::Done);
        }
        if kind == StopKind::Leave {
            console.note("no monitor runs; agents may: `pipeline stop --now` ends them");
            return Ok(Exit::Done);
        }
        return stop_alone(kind, open, manner);
    }
    let mut told = open.state()?.0.monitor.started_at;
    open.send(Command::Stop { kind })?;
    let clock = crate::sys::clock::monotonic();
    while open.has_monitor() {
        if kind != StopKind::Drain && clock.elapsed() > STOP_WAIT {
            return Err(Error::failed("the monitor has not ended yet; it was told to"));
        }
        open.wait_change(Duration::from_millis(100))?;
        // One that was just starting up forgets what was said to the one before it.
        let state = open.state()?.0;
        if state.stopping.is_none() && state.monitor.started_at != told {
            told = state.monitor.started_at;
            open.send(Command::Stop { kind })?;
        }
    }
    if kind != StopKind::Leave && !open.state()?.0.attempts.is_empty() {
        // It died of something else, and has not done what it was told.
        return stop_alone(kind, open, manner);
    }
    Ok(Exit::Done)
}

/// No monitor runs, but agents do: takes its place until they are waited for or ended.
fn stop_alone(kind: StopKind, open: Open, manner: Manner) -> Result<Exit, Error> {
    let project = open.into_project();
    let layout = project.layout.clone();
    let end = run_monitor(Options {
        layout: project.layout,
        repo: project.repo,
        until: Until::Told,
        is_poll_only: false,
        allows_red_base: true,
        stop: Some(kind),
        lock_wait: manner.lock_wait,
        progress: Progress::new(LogFormat::Text, false, true, false),
        keeper: keeper_exe()?,
    });
    conclude(end, layout, manner)
}
