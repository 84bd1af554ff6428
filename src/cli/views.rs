//! Commands that show the state.

use std::io::IsTerminal;

use jiff::tz::TimeZone;

use super::args::PlanArgs;
use super::console::{Console, Format};
use super::error::Error;
use super::exit_code::Exit;
use super::project::Open;
use super::rim::print;
use super::show;
use super::task_args::{DiffArgs, ListArgs};
use crate::machine::State;
use crate::machine::id::TaskId;
use crate::machine::plan::{Workers, attempts_max, plan as make_plan};
use crate::machine::task::{Landed, Task, TaskPhase};
use crate::observe::page::{Page, WIDTH_DEFAULT};

/// Returns the page of the console: the terminal's width, or 80 columns.
pub fn page(console: &Console<'_>) -> Page {
    terminal(console).unwrap_or(Page { has_color: console.is_colored, width: WIDTH_DEFAULT })
}

/// Returns the page of the terminal that the console writes on; `None`: it is no terminal.
pub fn terminal(console: &Console<'_>) -> Option<Page> {
    let stdout = std::io::stdout();
    stdout.is_terminal().then(|| {
        let size = rustix::termios::tcgetwinsize(&stdout);
        let width = size.map_or(WIDTH_DEFAULT, |size| size.ws_col.into());
        Page { has_color: console.is_colored, width }
    })
}

/// `pipeline plan`: nothing is written, a monitor that runs is not disturbed.
pub fn plan(open: &Open, console: &mut Console<'_>, args: &PlanArgs) -> Result<Exit, Error> {
    let (state, _, at) = open.now();
    let at = open.clock().max(at);
    let workers = args.workers.map_or(Workers::Agents, Workers::Alike);
    let plan = make_plan(state, at, workers, attempts_max(state, workers));
    let page = page(console);
    print(
        console,
        || show::render_plan(&plan, &TimeZone::system(), page),
        || show::render_plan_json(&plan),
    )?;
    Ok(Exit::Done)
}

/// `pipeline task list`.
pub fn tasks(open: &Open, console: &mut Console<'_>, args: &ListArgs) -> Result<Exit, Error> {
    let (state, ..) = open.now();
    let filter = show::Filter::new(&state.settings, &args.status, args.stage.as_deref())
        .map_err(|error| Error::usage(error.to_string()))?;
    let page = page(console);
    if console.format == Format::Text && !show::has_any(state, &filter) {
        let is_empty = state.tasks.is_empty();
        console.note(if is_empty { "no tasks yet" } else { "no task fits" });
        return Ok(Exit::Done);
    }
    print(
        console,
        || show::render_tasks(state, &filter, page),
        || show::render_tasks_json(state, &filter),
    )?;
    Ok(Exit::Done)
}

/// Finds a task, or says that there is none.
pub fn find<'a>(state: &'a State, id: &TaskId) -> Result<&'a Task, Error> {
    state.tasks.get(id).ok_or_else(|| {
        Error::invalid(format!("there is no task `{id}`")).hint("see `pipeline task list`")
    })
}

/// `pipeline task show`.
pub fn task(open: &Open, console: &mut Console<'_>, id: &TaskId) -> Result<Exit, Error> {
    let (state, ..) = open.now();
    let task = find(state, id)?;
    let page = page(console);
    print(
        console,
        || show::render_task(state, task, open.clock(), page),
        || show::render_task_json(state, task),
    )?;
    Ok(Exit::Done)
}

/// `pipeline task diff`.
pub fn diff(open: &Open, console: &mut Console<'_>, args: &DiffArgs) -> Result<Exit, Error> {
    let (state, ..) = open.now();
    let task = find(state, &args.id)?;
    let Some(repo) = &open.project.repo else {
        return Err(Error::usage("without git there is no diff"));
    };
    // What landed is told from its landing commit: its branch holds nothing more than that line.
    if task.landed == Landed::Within {
        console
            .note(&format!("task `{}` landed nothing of its own: all was there before", task.id));
        return tell_diff(console, task, b"");
    }
    let (since, tip) = match (&task.phase, &task.tip) {
        (TaskPhase::Completed { commit: Some(commit), .. }, _) => (format!("{commit}^1"), commit),
        (_, Some(tip)) => (format!("refs/heads/{}", state.settings.landing.branch), tip),
        (_, None) => {
            console.note(&format!("task `{}` has no work yet", task.id));
            return tell_diff(console, task, b"");
        }
    };
    let git = |error: crate::git::GitError| Error::failed("cannot make the diff").because(&error);
    let tip = tip.as_str().parse().map_err(|error| {
        Error::failed("the record of the task's branch is no commit id").because(&error)
    })?;
    let text = repo.diff_since(&since, &tip, args.stat).map_err(git)?;
    tell_diff(console, task, &text)
}

fn tell_diff(console: &mut Console<'_>, task: &Task, text: &[u8]) -> Result<Exit, Error> {
    match console.format {
        Format::Text => console.write(text)?,
        Format::Json => {
            let diff = String::from_utf8_lossy(text);
            console.json(&serde_json::json!({ "id": task.id.as_str(), "diff": diff }))?;
        }
    }
    Ok(Exit::Done)
}

/// `pipeline agent list`.
pub fn agents(open: &Open, console: &mut Console<'_>) -> Result<Exit, Error> {
    let (state, ..) = open.now();
    let (at, page) = (open.clock(), page(console));
    print(
        console,
        || show::render_agents(state, at, page),
        || show::render_agents_json(state, at),
    )?;
    Ok(Exit::Done)
}
