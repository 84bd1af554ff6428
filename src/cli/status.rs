//! `pipeline status`: once, or again and again; and what a script wants to fail on.

use std::borrow::Cow;
use std::io::IsTerminal;
use std::time::Duration;

use super::args::{FailOn, StatusArgs};
use super::console::{Console, Format};
use super::error::Error;
use super::exit_code::Exit;
use super::gate::Gate;
use super::project::Open;
use super::show;
use super::views::page;
use crate::agent::rendezvous;
use crate::machine::apply::apply;
use crate::machine::attempt::{Attempt, AttemptPhase};
use crate::machine::change::TaskChange;
use crate::machine::id::TaskId;
use crate::machine::plan::{Outlook, outlook};
use crate::machine::schedule;
use crate::machine::task::Task;
use crate::machine::time::Time;
use crate::machine::{Change, State};
use crate::monitor::run::poll_interval_ms;
use crate::observe::blocked::needs_approval;
use crate::observe::page::{Page, clean, columns};
use crate::observe::status::{MonitorInfo, status as status_of};
use crate::observe::text;
use crate::observe::waiting::{On, Waits, is_a_look_owed};
use crate::store::lock::{is_held, read_owner};

/// How long a ready task may wait beside a free agent before it counts as stalled, in milliseconds.
const STALLED_MS: u64 = 60_000;
/// A watched status is made anew this often at least: times go on without an event.
const LOOK: Duration = Duration::from_secs(1);

/// Prints the status; with `--watch` again whenever it has changed.
pub fn run(mut open: Open, console: &mut Console<'_>, args: &StatusArgs) -> Result<Exit, Error> {
    let is_screen = args.watch && console.format == Format::Text && std::io::stdout().is_terminal();
    let mut last = String::new();
    loop {
        let told = rendered(&open, console.format, page(console));
        if is_screen {
            console.write(screen(&told, rows(), page(console).width).as_bytes())?;
        } else if mark(&open) != last {
            let gap = if last.is_empty() || console.format == Format::Json { "" } else { "\n" };
            console.write(format!("{gap}{told}").as_bytes())?;
            last = mark(&open);
        }
        if args.fail_on.iter().any(|what| is_so(*what, &open)) {
            return Ok(Exit::Failed);
        }
        if !args.watch || console.is_closed() {
            return Ok(Exit::Done);
        }
        open.wait_change(LOOK)?;
        open.state()?;
    }
}

/// What tells one status from the next where it is not drawn again: times pass on all the time.
fn mark(open: &Open) -> String {
    let (_, seq, _) = open.now();
    format!("{seq} {}", open.has_monitor())
}

fn rendered(open: &Open, format: Format, page: Page) -> String {
    let (state, seq, at) = open.now();
    let info = monitor_info(open);
    let now = open.clock().max(at);
    // Without a monitor nothing moves.
    let outlook = if info.running { outlook(state, now) } else { Outlook::Unknown };
    let document = status_of(state, seq, at, info).seen_at(state, now);
    let lane = open.project.lane_now(state);
    let document = document.with_lane(state, &lane).with_outlook(outlook, now);
    match format {
        Format::Text => text::text(&document, page.has_color, page.width),
        Format::Json => show::document(&document),
    }
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

/// Rows of the terminal; `None`: it does not say.
fn rows() -> Option<usize> {
    let size = rustix::termios::tcgetwinsize(std::io::stdout()).ok()?;
    Some(usize::from(size.ws_row)).filter(|rows| *rows > 1)
}

/// Returns what draws the text over what the terminal shows: from the top left corner on, each line
/// to its end, what is below cleared; what does not fit is counted. A line may take several rows.
fn screen(text: &str, rows: Option<usize>, width: usize) -> String {
    let count = text.lines().count();
    let taken = text.lines().scan(0, |taken, line| {
        *taken += columns(&clean(line)).div_ceil(width.max(1)).max(1);
        Some(*taken)
    });
    let shown = match rows {
        // The last row is for the cursor.
        Some(rows) if taken.clone().last().is_some_and(|all| all >= rows) => {
            taken.take_while(|taken| *taken + 2 <= rows).count()
        }
        Some(_) | None => count,
    };
    let mut out = String::from("\x1b[H");
    for line in text.lines().take(shown) {
        out.push_str(&format!("{line}\x1b[K\n"));
    }
    if shown < count {
        out.push_str(&format!("and {} lines more\x1b[K\n", count - shown));
    }
    out + "\x1b[J"
}

fn is_so(what: FailOn, open: &Open) -> bool {
    match what {
        FailOn::Blocked => {
            let (state, ..) = open.now();
            state.index.counts.blocked > 0
                || state.tasks.values().any(needs_approval)
                || open.project.lane_now(state).stuck.is_some()
        }
        FailOn::Stalled => is_stalled(open),
        FailOn::Unhealthy => super::doctor::is_unhealthy(&open.project),
    }
}

/// A ready task and a free agent for it, but no assignment for a minute; or an attempt under way that
/// nobody holds: its keeper is gone, or without a monitor it never had one.
fn is_stalled(open: &Open) -> bool {
    let (state, ..) = open.now();
    let has_monitor = open.has_monitor();
    let keepers = open.project.layout.keepers();
    let is_dead = |agent: &str| {
        let lock = rendezvous::lock_path(&keepers.join(agent));
        !is_held(&lock).unwrap_or(true)
    };
    // Before and after it runs, it is the monitor that has it.
    let may_die = |attempt: &&Attempt| attempt.phase == AttemptPhase::Running || !has_monitor;
    let mut at_risk = state.attempts.values().filter(may_die);
    at_risk.any(|attempt| is_dead(attempt.agent.as_str()))
        || is_left_waiting(state, open.clock(), has_monitor)
}

/// Returns the state with pauses of tasks ended that are over: without a monitor nobody does.
fn woken(state: &State, now: Time) -> Cow<'_, State> {
    let mut state = Cow::Borrowed(state);
    let due: Vec<_> = state.index.backoff.iter().take_while(|(until, _)| *until <= now).collect();
    let due: Vec<TaskId> = due.into_iter().map(|(_, id)| id.clone()).collect();
    for id in due {
        apply(state.to_mut(), &Change::Task(id, TaskChange::BackedOff { until: None }));
    }
    state
}

fn is_left_waiting(state: &State, now: Time, has_monitor: bool) -> bool {
    let recorded = state;
    let woken = woken(state, now);
    let state = woken.as_ref();
    let picked = schedule::pick(state, 1).assignments;
    let Some(task) = picked.first().and_then(|first| state.tasks.get(&first.task)) else {
        return false;
    };
    // What a person, a budget, the base or the machine keeps back is not left waiting.
    let reason = Waits::new(state).reason(task);
    let is_free_to_start = reason.is_some_and(|reason| match reason.on {
        On::Agent => true,
        On::Checkout => is_a_look_owed(state),
        On::Dependency
        | On::Conflict
        | On::RateLimit
        | On::Backoff
        | On::Budget
        | On::Approval
        | On::Hold
        | On::Rollout => false,
    });
    if !is_free_to_start || state.drain.is_some() {
        return false;
    }
    let past = |task: &Task| task.history.last().map(|attempt| attempt.assigned_at);
    let assigned = state.tasks.values().filter_map(past);
    let assigned = assigned.chain(state.attempts.values().map(|attempt| attempt.assigned_at));
    // A monitor that has just begun has not had its minute.
    let begun = has_monitor.then_some(state.monitor.started_at);
    let rested = recorded.tasks[&task.id].backoff_until;
    let last = assigned.chain(begun).chain(rested).max().unwrap_or_default().max(task.updated_at);
    now.ms_since(last) > STALLED_MS
}

#[cfg(test)]
mod tests {
    use super::{STALLED_MS, is_left_waiting, screen};
    use crate::machine::Command;
    use crate::observe::support::{End, Pipeline, settings, task};

    #[test]
    fn a_ready_task_beside_a_free_agent_stalls_after_a_minute_without_an_assignment() {
        let tasks = vec![task("A", &[]), task("B", &[])];
        let mut pipeline = Pipeline::started(settings(), tasks);
        let is_stalled = |pipeline: &Pipeline, ms: u64, has_monitor| {
            is_left_waiting(&pipeline.state, pipeline.now.plus_ms(ms), has_monitor)
        };
        assert!(!is_stalled(&pipeline, 10 * STALLED_MS, true), "the only architect is busy");
        pipeline.run("A.arch.1", End::Done);
        for has_monitor in [true, false] {
            assert!(!is_stalled(&pipeline, STALLED_MS, has_monitor), "not yet");
            assert!(is_stalled(&pipeline, STALLED_MS + 1, has_monitor));
        }
        pipeline.send(Command::Pause);
        assert!(!is_stalled(&pipeline, 10 * STALLED_MS, true), "a person wants it so");
    }

    #[test]
    fn what_waits_for_a_monitor_alone_stalls_too() {
        let is_stalled = |pipeline: &Pipeline, ms: u64| {
            is_left_waiting(&pipeline.state, pipeline.now.plus_ms(ms), false)
        };
        // None ever ran.
        let mut pipeline = Pipeline::new(settings());
        pipeline.send(Command::AddTasks { tasks: vec![task("A", &[])] });
        pipeline.turn();
        assert!(!is_stalled(&pipeline, STALLED_MS), "not yet");
        assert!(is_stalled(&pipeline, STALLED_MS + 1));
        // One ended before a pause was over.
        let mut pipeline = Pipeline::started(settings(), vec![task("A", &[])]);
        pipeline.run("A.arch.1", End::Status(1));
        let pause_ms = 5_000;
        assert!(!is_stalled(&pipeline, pause_ms + STALLED_MS), "not yet");
        assert!(is_stalled(&pipeline, pause_ms + STALLED_MS + 1));
        // A base that is red waits for a person.
        let mut checked = settings();
        checked.landing.checks = vec!["make test".into()];
        let mut pipeline = Pipeline::started(checked, vec![task("A", &[])]);
        pipeline.run("base.check.1", End::Tail(1, "boom"));
        assert!(!is_stalled(&pipeline, 10 * STALLED_MS));
    }

    #[test]
    fn what_does_not_fit_on_the_screen_is_counted() {
        let whole = "\x1b[Ha\x1b[K\nb\x1b[K\nc\x1b[K\n\x1b[J";
        assert_eq!(screen("a\nb\nc\n", Some(4), 80), whole);
        assert_eq!(screen("a\nb\nc\n", None, 80), whole);
        let cut = "\x1b[Ha\x1b[K\nand 2 lines more\x1b[K\n\x1b[J";
        assert_eq!(screen("a\nb\nc\n", Some(3), 80), cut);
        let long = "\x1b[31mabcd\x1b[0m\nb\nc\n";
        let two_rows = "\x1b[H\x1b[31mabcd\x1b[0m\x1b[K\nand 2 lines more\x1b[K\n\x1b[J";
        assert_eq!(screen(long, Some(4), 3), two_rows);
        assert!(screen(long, Some(4), 4).contains("\nc"), "it fits");
    }
}
