//! What the monitor says while it runs: a line per event, and on a terminal a live line per agent.

use super::notices::Notices;
use super::printer::{Picture, Printer, Stream};
use crate::machine::agent::Agent;
use crate::machine::change::ProjectChange;
use crate::machine::mode::{Isolation, Orchestration, Rollout};
use crate::machine::purse::money;
use crate::machine::time::Time;
use crate::machine::{Change, State, proposal};
use crate::observe::lines::{line, lines};
use crate::observe::log_json::json_line;
use crate::observe::page::first_line;

/// How events are written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LogFormat {
    Text,
    Json,
}

/// The monitor's name in the journal.
pub const OWN: &str = "monitor";
/// The live lines are redrawn this often while agents work, in milliseconds: seconds pass on them.
const TICK_MS: u64 = 1_000;
/// After a change they are redrawn this soon after the last time, in milliseconds.
const RENEW_MS: u64 = 100;

/// The monitor's voice. Lines go to standard output, warnings and live lines to standard error.
#[derive(Debug)]
pub struct Progress {
    format: LogFormat,
    is_quiet: bool,
    is_verbose: bool,
    printer: Printer,
    last_tick: Time,
    has_agents_at_work: bool,
    /// Something has changed that the live lines do not show yet.
    is_stale: bool,
    /// Tells a program of the user's too; `None`: not in this run.
    notices: Option<Notices>,
}

impl Progress {
    /// Makes the voice; `is_live`: standard error is a terminal to draw on.
    #[must_use]
    pub fn new(format: LogFormat, is_live: bool, is_quiet: bool, is_verbose: bool) -> Self {
        let is_live = is_live && format == LogFormat::Text && !is_quiet;
        let words = match format {
            LogFormat::Text => |count| format!("warning: {}", left_out(count)),
            LogFormat::Json => |count| aside_json("warning", &left_out(count)),
        };
        let last_tick = Time::default();
        Self {
            format,
            is_quiet,
            is_verbose,
            printer: Printer::new(is_live, words),
            last_tick,
            has_agents_at_work: false,
            is_stale: true,
            notices: None,
        }
    }

    /// Lets `notices` be told what this monitor decides.
    #[must_use]
    pub fn with_notices(self, notices: Notices) -> Self {
        Self { notices: Some(notices), ..self }
    }

    /// Says what this run will do.
    pub fn open(&mut self, state: &State) {
        if self.is_quiet || self.format == LogFormat::Json {
            return;
        }
        for line in plan(state) {
            self.line(line);
        }
    }

    /// Tells what `actor` decided.
    pub fn tell(&mut self, changes: &[Change], state: &State, seq: u64, at: Time, actor: &str) {
        self.has_agents_at_work = !state.attempts.is_empty();
        self.is_stale = true;
        self.speak(changes, state, seq, at, actor);
        // What others decided they know.
        if let Some(notices) = self.notices.as_mut().filter(|_| actor == OWN) {
            let faults = notices.tell(changes, state, seq, at);
            faults.iter().for_each(|fault| self.warn(fault));
        }
    }

    fn speak(&self, changes: &[Change], state: &State, seq: u64, at: Time, actor: &str) {
        if self.is_quiet {
            // What costs money is said to everybody.
            let is_purse =
                |it: &&Change| matches!(it, Change::Project(ProjectChange::BudgetTold { .. }));
            let told = changes.iter().filter(is_purse).filter_map(|change| line(change, state));
            told.for_each(|line| self.warn(line.trim_start_matches("warning: ")));
            return;
        }
        match self.format {
            LogFormat::Text => {
                for line in lines(changes, state) {
                    self.line(format!("{} {line}", clock_face(at)));
                }
            }
            LogFormat::Json => {
                for change in changes {
                    self.line(json_line(seq, at, actor, change));
                }
            }
        }
    }

    /// Redraws the live lines when that is due.
    pub fn tick(&mut self, state: &State, now: Time) {
        let faults = self.notices.as_mut().map(Notices::faults).unwrap_or_default();
        faults.iter().for_each(|fault| self.warn(fault));
        if self.due_at().is_none_or(|due| now < due) {
            return;
        }
        self.last_tick = now;
        self.is_stale = false;
        let doing =
            |agent: &Agent| match agent.attempt.as_ref().and_then(|id| state.attempts.get(id)) {
                Some(attempt) => {
                    let since = now.ms_since(attempt.started_at.unwrap_or(attempt.assigned_at));
                    format!("{}  {} s", attempt.id, since / 1000)
                }
                None if agent.is_paused => "paused".into(),
                None if agent.unusable.is_some() => "cannot start".into(),
                None if state.refusal_of(agent).is_some() => "refused by its provider".into(),
                None if state.cools_until(agent).is_some() => "cooling".into(),
                None if state.probe_before(agent).is_some() => "cooling".into(),
                None => "idle".into(),
            };
        let counts = state.index.counts;
        self.printer.show(Picture {
            agents: state.agents.iter().map(|(name, agent)| (name.clone(), doing(agent))).collect(),
            totals: format!(
                "  {} landed, {} working, {} ready, {} waiting, {} landing, {} need a person",
                counts.completed,
                counts.wip,
                counts.ready,
                counts.unassigned,
                counts.landing,
                counts.blocked
            ),
        });
    }

    /// Returns when the live lines are due; `None`: nothing moves on them.
    pub fn due_at(&self) -> Option<Time> {
        if !self.printer.is_live() {
            return None;
        }
        let wait_ms = match (self.is_stale, self.has_agents_at_work) {
            (true, _) => RENEW_MS,
            (false, true) => TICK_MS,
            (false, false) => return None,
        };
        Some(self.last_tick.plus_ms(wait_ms))
    }

    /// Says that something is odd; also when quiet.
    pub fn warn(&self, text: &str) {
        match self.format {
            LogFormat::Text => self.to_error(format!("warning: {text}")),
            LogFormat::Json => self.to_error(aside_json("warning", text)),
        }
    }

    /// Says something for those who look closely.
    pub fn note(&self, text: &str) {
        if self.is_verbose {
            self.to_error(match self.format {
                LogFormat::Text => format!("note: {text}"),
                LogFormat::Json => aside_json("note", text),
            });
        }
    }

    /// The terminal is gone: goes on without.
    pub fn lose_terminal(&mut self) {
        self.printer.lose_terminal();
    }

    /// Takes the live lines off the screen, and waits a little for what is still to be told.
    pub fn close(&mut self) {
        if let Some(mut notices) = self.notices.take() {
            notices.close().iter().for_each(|fault| self.warn(fault));
        }
        self.printer.close();
    }

    fn line(&self, text: String) {
        self.printer.line(Stream::Out, text);
    }

    fn to_error(&self, text: String) {
        self.printer.line(Stream::Error, text);
    }
}

fn left_out(count: u64) -> String {
    format!("{count} lines were left out here, nobody took them: see `pipeline log`")
}

/// Returns what is said beside the stream, in the form all commands use.
fn aside_json(word: &str, text: &str) -> String {
    serde_json::json!({ word: { "message": text } }).to_string()
}

/// Returns the local time of day, `22:04:05`.
fn clock_face(at: Time) -> String {
    let moment = jiff::Timestamp::from_millisecond(at.as_ms() as i64).unwrap_or_default();
    moment.to_zoned(jiff::tz::TimeZone::system()).strftime("%H:%M:%S").to_string()
}

/// Returns what the run may cost, and has cost.
fn cost_left(state: &State) -> String {
    let (limit, spent) = (state.settings.limits.cost_usd_micros, &state.run.spent);
    match (limit, spent.cost()) {
        (0, _) => String::new(),
        (limit, None) => format!(", {}", money(limit)),
        (limit, Some(spent)) => format!(", {} of which {} are spent", money(limit), money(spent)),
    }
}

/// Returns what the run will do: agents, where it lands, the most attempts it can make.
fn plan(state: &State) -> Vec<String> {
    let settings = &state.settings;
    let counts = state.index.counts;
    let open = counts.unassigned + counts.ready + counts.wip + counts.landing + counts.blocked;
    let groups: Vec<String> = settings
        .agents
        .iter()
        .map(|group| {
            let count = match group.scale_min.filter(|_| state.is_scaling(group)) {
                Some(least) => format!("{least} to {}", group.count),
                None => state.target(group).count.to_string(),
            };
            format!("{count} {} ({})", group.name, group.stages.join(", "))
        })
        .collect();
    let mode = match state.orchestration {
        Orchestration::Sequential => "sequential",
        Orchestration::Parallel => "parallel",
        Orchestration::Hybrid => "hybrid",
    };
    let rollout = match state.rollout {
        Rollout::Shadow => "shadow: says what it would do and does nothing",
        Rollout::Pilot => "pilot: acts for its slice, the base does not follow",
        Rollout::Production => "production",
    };
    let mut lines = vec![
        format!("{open} open {}, {mode}, {rollout}", if open == 1 { "task" } else { "tasks" }),
        format!("agents: {}", if groups.is_empty() { "none".into() } else { groups.join("; ") }),
    ];
    if state.rollout == Rollout::Shadow {
        // No attempt, no landing: there is nothing to bound.
        return lines;
    }
    if settings.project.isolation == Isolation::Worktree {
        let follows = match state.rollout {
            Rollout::Production => format!(", which `{}` follows", settings.project.base),
            Rollout::Shadow | Rollout::Pilot => String::new(),
        };
        let checks = &settings.landing.checks;
        let checked = if checks.is_empty() {
            "without a check".to_owned()
        } else {
            format!("after {}", checks.join(", "))
        };
        lines.push(format!("lands on `{}`{follows}, {checked}", settings.landing.branch));
    }
    if proposal::is_in_use(state) {
        let command = settings.scheduler.command.join(" ");
        lines.push(format!("who gets what says `{}`", first_line(&command)));
    }
    let per_task = u64::from(settings.limits.attempts_per_task) * open as u64;
    let per_run = u64::from(settings.limits.attempts_per_run);
    let most = if per_run == 0 { per_task } else { per_run.min(per_task) };
    lines.push(format!("at most {most} attempts{} ([limits])", cost_left(state)));
    lines
}
