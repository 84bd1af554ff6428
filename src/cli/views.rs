//! Commands that show the state.

use std::io::IsTerminal;
use std::time::Duration;

use jiff::tz::TimeZone;

use super::args::{FailOn, PlanArgs, StatusArgs};
use super::console::{Console, Format};
use super::error::Error;
use super::exit_code::Exit;
use super::project::Open;
use super::rim::print;
use super::show;
use super::task_args::{DiffArgs, ListArgs};
use crate::machine::State;
use crate::machine::attempt::AttemptPhase;
use crate::machine::id::TaskId;
use crate::machine::plan::{Outlook, Workers, attempts_max, outlook, plan as make_plan};
use crate::machine::purse;
use crate::machine::schedule;
use crate::machine::task::TaskPhase;
use crate::machine::time::Time;
use crate::monitor::run::poll_interval_ms;
use crate::observe::page::{Page, WIDTH_DEFAULT};
use crate::observe::status::{MonitorInfo, status as status_of};
use crate::observe::text;
use crate::store::lock::{is_held, read_owner};

/// How long a ready task may wait beside a free agent before it counts as stalled, in milliseconds.
const STALLED_MS: u64 = 60_000;

/// Returns the page of the console: the terminal's width, or 80 columns.
pub fn page(console: &Console<'_>) -> Page {
    let stdout = std::io::stdout();
    let width = if stdout.is_terminal() {
        rustix::termios::tcgetwinsize(&stdout).map_or(WIDTH_DEFAULT, |size| size.ws_col.into())
    } else {
        WIDTH_DEFAULT
    };
    Page { has_color: console.is_colored, width }
}

fn monitor_info(open: &Open) -> MonitorInfo {
    let running = open.has_monitor();
    let owner = read_owner(&open.project.layout.monitor_lock());
    MonitorInfo {
        running,
        pid: owner.map(|owner| owner.pid).filter(|_| running),
        poll_interval_s: Duration::from_millis(poll_interval_ms(open.now().0)).as_secs_f64(),
    }
}

/// `pipeline status`.
pub fn status(open: &Open, console: &mut Console<'_>, args: &StatusArgs) -> Result<Exit, Error> {
    let (state, seq, at) = open.now();
    let info = monitor_info(open);
    let has_monitor = info.running;
    let now = open.clock().max(at);
    // Without a monitor nothing moves.
    let outlook = if has_monitor { outlook(state, now) } else { Outlook::Unknown };
    let document = status_of(state, seq, at, info).with_outlook(outlook, now);
    let page = page(console);
    print(
        console,
        || text::text(&document, page.has_color, page.width),
        || show::document(&document),
    )?;
    let fails = args.fail_on.iter().any(|what| match what {
        FailOn::Blocked => state.index.counts.blocked > 0,
        FailOn::Stalled => is_stalled(open, state, at, has_monitor),
        FailOn::Unhealthy => super::doctor::is_unhealthy(&open.project),
    });
    Ok(if fails { Exit::Failed } else { Exit::Done })
}

/// A ready task and a free agent for it, but no assignment; or an attempt without a living keeper.
fn is_stalled(open: &Open, state: &State, at: Time, has_monitor: bool) -> bool {
    let has_pick = !schedule::pick(state, 1).assignments.is_empty();
    let is_old = open.clock().ms_since(at) > STALLED_MS;
    let is_used_up = purse::attempts_left(state) == 0;
    let is_held_up = state.is_paused || state.overload.is_some() || is_used_up;
    let is_waiting = has_pick && (is_old || !has_monitor) && !is_held_up;
    let keepers = open.project.layout.keepers();
    let is_dead = |agent: &str| {
        let lock = crate::agent::rendezvous::lock_path(&keepers.join(agent));
        !is_held(&lock).unwrap_or(true)
    };
    let mut running = state.attempts.values().filter(|a| a.phase == AttemptPhase::Running);
    is_waiting || running.any(|attempt| is_dead(attempt.agent.as_str()))
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
pub fn find<'a>(state: &'a State, id: &TaskId) -> Result<&'a crate::machine::task::Task, Error> {
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
    let (since, tip) = match (&task.phase, &task.tip) {
        (TaskPhase::Completed { commit: Some(commit), .. }, _) => (format!("{commit}^1"), commit),
        (_, Some(tip)) => (format!("refs/heads/{}", state.settings.landing.branch), tip),
        (_, None) => {
            console.note(&format!("task `{}` has no work yet", task.id));
            return Ok(Exit::Done);
        }
    };
    let git = |error: crate::git::GitError| Error::failed("cannot make the diff").because(&error);
    let tip = tip.as_str().parse().map_err(|error| {
        Error::failed("the record of the task's branch is no commit id").because(&error)
    })?;
    let text = repo.diff_since(&since, &tip, args.stat).map_err(git)?;
    match console.format {
        Format::Text => console.write(&text)?,
        Format::Json => {
            let diff = String::from_utf8_lossy(&text);
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
