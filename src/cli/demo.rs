//! `pipeline demo`: the whole way of four tasks in a scratch repository, without any account.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde_json::json;

use super::args::{DemoArgs, InitArgs};
use super::console::{Console, Format};
use super::error::Error;
use super::gate::Gate;
use super::init::init;
use super::monitor::{error_of, keeper_exe};
use super::project::Project;
use crate::git::Repo;
use crate::machine::Command;
use crate::machine::event::NewTask;
use crate::machine::id::TaskId;
use crate::machine::task::Spec;
use crate::monitor::progress::{LogFormat, Progress};
use crate::monitor::{End, Options, Until, run as run_monitor};
use crate::sys::file::shell_path;

const FILES: [(&str, &str); 6] = [
    ("pipeline.toml", include_str!("../../demo/pipeline.toml")),
    ("run-tests.sh", include_str!("../../demo/run-tests.sh")),
    ("agents/architect.sh", include_str!("../../demo/architect.sh")),
    ("agents/test.sh", include_str!("../../demo/test.sh")),
    ("agents/implementation.sh", include_str!("../../demo/implementation.sh")),
    ("agents/supervisor.sh", include_str!("../../demo/supervisor.sh")),
];

/// Id, title, what it depends on.
const TASKS: [(&str, &str, &[&str]); 4] = [
    ("greet", "A command that greets by name", &[]),
    ("shout", "A command that greets loudly", &["greet"]),
    ("count", "A command that counts its arguments", &[]),
    ("twice", "A command that says things twice", &[]),
];

/// More than enough for four tasks, in milliseconds.
const LIMIT_MS: u64 = 120_000;

/// Runs the demonstration.
///
/// # Errors
/// When DIR is taken, git is missing, or the four tasks do not land.
pub fn run(
    args: &DemoArgs,
    cwd: &Path,
    wait: Duration,
    console: &mut Console<'_>,
) -> Result<(), Error> {
    let dir = place(args, cwd)?;
    let file = |error: std::io::Error| {
        Error::failed(format!("cannot write into `{}`", dir.display())).because(&error)
    };
    for (name, text) in FILES {
        let path = dir.join(name);
        let parent = path.parent().unwrap_or(&dir);
        fs::create_dir_all(parent).and_then(|()| fs::write(&path, text)).map_err(file)?;
    }
    let git =
        |error: crate::git::GitError| Error::failed("cannot make the repository").because(&error);
    let repo = Repo::create(&dir, "A project without any command yet").map_err(git)?;
    init(&no_init_args(), &dir, wait)?;
    let project = Project::find(&dir)?;
    let mut open = project.open(wait)?;
    open.send(Command::AddTasks { tasks: TASKS.map(task).to_vec() })?;
    let layout = open.into_project().layout;
    console.note(&format!("a scratch repository in {}", dir.display()));
    let is_json = console.format == Format::Json;
    let end = run_monitor(Options {
        layout,
        repo: Some(repo),
        until: Until::Idle { within_ms: Some(LIMIT_MS) },
        is_poll_only: false,
        allows_red_base: false,
        stop: None,
        lock_wait: wait,
        progress: Progress::new(LogFormat::Text, false, console.is_quiet || is_json, false),
        keeper: keeper_exe()?,
    });
    let end = end.map_err(error_of)?;
    report(&dir, &end, console)
}

fn place(args: &DemoArgs, cwd: &Path) -> Result<PathBuf, Error> {
    let Some(dir) = &args.dir else {
        let made = tempfile::Builder::new().prefix("pipeline-demo-").tempdir();
        let made =
            made.map_err(|error| Error::failed("cannot make a temporary folder").because(&error))?;
        // Left behind on purpose: the user is told where to look.
        return Ok(made.keep());
    };
    let dir = cwd.join(dir);
    let is_taken = fs::read_dir(&dir).is_ok_and(|mut entries| entries.next().is_some());
    if is_taken || dir.is_file() {
        return Err(Error::usage(format!("`{}` is not empty", dir.display()))
            .hint("name a folder that does not exist yet"));
    }
    fs::create_dir_all(&dir).map_err(|error| {
        Error::failed(format!("cannot make `{}`", dir.display())).because(&error)
    })?;
    fs::canonicalize(&dir)
        .map_err(|error| Error::failed(format!("cannot open `{}`", dir.display())).because(&error))
}

fn no_init_args() -> InitArgs {
    InitArgs { base: None, agents: Vec::new(), launcher: None, isolation: None, force: false }
}

fn task((id, title, deps): (&str, &str, &[&str])) -> NewTask {
    let depends_on = deps.iter().map(TaskId::new).collect();
    let spec = Spec { title: title.into(), depends_on, ..Spec::default() };
    NewTask {
        id: Some(TaskId::new(id)),
        spec,
        is_front: false,
        is_held: false,
        may_lack_dependencies: false,
    }
}

fn report(dir: &Path, end: &End, console: &mut Console<'_>) -> Result<(), Error> {
    if *end != End::Done {
        return Err(Error::failed("the four tasks did not all land")
            .hint(format!("look with: pipeline -C {} status", shell_path(dir))));
    }
    let git = |error: crate::git::GitError| Error::failed("cannot read history").because(&error);
    let repo = Repo::discover(dir).map_err(git)?;
    let history = repo.first_parents("main", TASKS.len()).map_err(git)?;
    if console.format == Format::Json {
        return console.json(&json!({ "path": dir.to_string_lossy(), "landed": history }));
    }
    console.line("")?;
    console.line("four tasks landed on main, the newest first:")?;
    for line in history {
        console.line(&format!("  {line}"))?;
    }
    console.line("")?;
    let dir = shell_path(dir);
    console.line("the review of `count` sent it back once; `shout` waited for `greet`. Look:")?;
    console.line(&format!("  pipeline -C {dir} status"))?;
    console.line(&format!("  pipeline -C {dir} task show count"))?;
    console.line(&format!("  git -C {dir} log --graph --oneline"))?;
    console.line(&format!("  sh {dir}/run-tests.sh"))
}
