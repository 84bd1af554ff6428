//! What the scheduler would do: the machine itself, run ahead in virtual time on a copy of the state.
//!
//! Every attempt takes what it is expected to take and completes, checks pass, what is done lands at
//! once. Nothing is decided here: who gets what, and when, is what `step` says to turns.

mod figures;
mod forecast;

use std::collections::BTreeMap;

use super::id::{AgentName, StageName, TaskId};
use super::settings::{AgentCommand, AgentGroup, Completion, LauncherKind, Settings};
use super::state::State;
use super::task::{Task, TaskKind};
use super::time::Time;

use figures::Figures;
use forecast::{Bounds, Forecast};

/// Attempts to plan at most, where nothing else is said.
pub const ATTEMPTS_MAX: usize = 20_000;
/// Attempts times agents: a decision looks at every agent that is free.
const LOOKS_MAX: usize = 4_000_000;
/// Tasks of a state that is planned for a quick look: it is copied, whatever is open of it.
const OUTLOOK_TASKS_MAX: usize = 5_000;
/// Open tasks times stages that are planned for a quick look; each takes some 20 µs.
pub const OUTLOOK_ATTEMPTS_MAX: usize = 2_000;
/// Looks at work that may not start beside what runs, for a quick look; each takes about 1 µs.
const OUTLOOK_LOOKS_MAX: usize = 200_000;
/// The same for a plan: some ten seconds.
const LOOKS_IN_VAIN_MAX: usize = 10_000_000;
/// Groups of which one more agent is tried.
pub const GROUPS_MAX: usize = 20;
/// Attempts planned in all to find out what one more agent of each group would save.
const GAIN_ATTEMPTS_MAX: usize = 40_000;
/// The group of `--workers`.
const WORKERS: &str = "worker";
/// Behind the name of a group: one more of it.
const ONE_MORE: &str = " (one more)";

/// Who does the work of the plan.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Workers {
    /// The agents of the settings, as they are: paused ones get nothing.
    Agents,
    /// So many that serve every stage and can do all that any agent can; each attempt takes what the
    /// stage usually takes. What runs already is ended beside them by whoever runs it.
    Alike(u32),
}

/// One attempt of the plan; moments in milliseconds from its beginning.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    pub task: TaskId,
    pub stage: StageName,
    pub agent: AgentName,
    pub start_ms: u64,
    pub end_ms: u64,
    /// It runs already; the plan holds what is left of it.
    pub is_running: bool,
    /// What the fastest who could take it would need.
    pub least_ms: u64,
}

/// Where the plan differs from how things stand.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Assumed {
    /// The pipeline is paused, and was taken for resumed.
    Resumed,
    /// In shadow nothing starts; it was taken for production.
    Production,
    /// The base is not in order, or not known; it was taken for good.
    GoodBase,
    /// The machine is short of something; it was taken for having enough.
    Room,
    /// The machine is busier than it may be for a start; it was taken for calm.
    Calm,
    /// An external scheduler decides; the built-in one stood in for it.
    BuiltIn,
}

/// What the run would be.
#[derive(Debug, Clone, PartialEq)]
pub struct Plan {
    /// By start, then by agent.
    pub schedule: Vec<Entry>,
    /// When the last planned task has landed.
    pub makespan_ms: u64,
    /// Tasks by how many planned ones they wait for in a row: none shares a wave with what it
    /// depends on. In order of id.
    pub waves: Vec<Vec<TaskId>>,
    /// The chain of tasks that takes longest, each waiting for the one before.
    pub critical_path: Vec<TaskId>,
    pub critical_ms: u64,
    /// Work of those who can be given any.
    pub work_ms: u64,
    /// Agents that can be given work.
    pub workers: usize,
    /// No schedule is shorter: the critical path, or the work shared out evenly.
    pub lower_bound_ms: u64,
    /// The stage with the most work for each of those who serve it: `lower_bound_ms` of that stage
    /// alone.
    pub bottleneck: Option<(StageName, u64)>,
    /// How long each agent works.
    pub busy_ms: BTreeMap<AgentName, u64>,
    /// Saved by one more agent, by group; `None`: not tried, there is too much to plan.
    pub gain_ms: Option<BTreeMap<String, u64>>,
    /// Open tasks that do not come to their end in the plan, with what it comes to.
    pub left_out: Vec<TaskId>,
    /// More was to be planned than was asked for.
    pub is_cut: bool,
    pub assumed: Vec<Assumed>,
    /// The state as the plan leaves it: says what those left out wait for.
    pub end: State,
    /// When the plan begins.
    pub from: Time,
}

/// When all is done that can be worked off, as things stand.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outlook {
    /// So many milliseconds from now.
    Ends { in_ms: u64 },
    /// There is too much to plan for a quick look.
    TooMuch,
    /// Nothing moves, or only after somebody has done something.
    Unknown,
}

/// Plans only as much as a quick look may cost. Cost: bounded by [`OUTLOOK_TASKS_MAX`],
/// [`OUTLOOK_ATTEMPTS_MAX`] and [`OUTLOOK_LOOKS_MAX`].
#[must_use]
pub fn outlook(state: &State, at: Time) -> Outlook {
    let counts = state.index.counts;
    let open = counts.unassigned + counts.ready + counts.wip + counts.landing;
    if open == 0 {
        return Outlook::Unknown;
    }
    let attempts_max = attempts_max(state, Workers::Agents).min(OUTLOOK_ATTEMPTS_MAX);
    if state.tasks.len() > OUTLOOK_TASKS_MAX
        || open.saturating_mul(state.settings.stages.len()) > attempts_max
    {
        return Outlook::TooMuch;
    }
    let bounds = Bounds { attempts: attempts_max, looks: OUTLOOK_LOOKS_MAX };
    let forecast = Forecast::run(state, at, None, bounds);
    let is_as_it_stands = forecast.assumed.iter().all(|assumed| *assumed == Assumed::BuiltIn);
    if forecast.schedule.is_empty() || !is_as_it_stands {
        Outlook::Unknown
    } else if forecast.is_cut {
        Outlook::TooMuch
    } else {
        Outlook::Ends { in_ms: forecast.makespan_ms }
    }
}

/// Returns how many attempts can be planned in a few seconds.
#[must_use]
pub fn attempts_max(state: &State, workers: Workers) -> usize {
    let agents = match workers {
        Workers::Agents => {
            let groups = state.settings.agents.iter().filter(|group| state.is_scaling(group));
            let may_come = groups.map(|group| group.count as usize).sum::<usize>();
            state.agents.len().max(may_come)
        }
        Workers::Alike(count) => count as usize,
    };
    ATTEMPTS_MAX.min(LOOKS_MAX / agents.max(1)).max(agents)
}

/// Plans what is open in `state`, from `at` on; no attempt begins once `attempts_max` have, give or
/// take a turn. Cost: that of the decisions themselves, and of as many again for the gains as
/// [`GAIN_ATTEMPTS_MAX`] allows.
#[must_use]
pub fn plan(state: &State, at: Time, workers: Workers, attempts_max: usize) -> Plan {
    let settings = match workers {
        Workers::Agents => None,
        Workers::Alike(count) => Some(alike(&state.settings, count)),
    };
    let bounds = Bounds { attempts: attempts_max, looks: LOOKS_IN_VAIN_MAX };
    let forecast = Forecast::run(state, at, settings, bounds);
    let gain_ms = match workers {
        Workers::Agents => gains(state, at, &forecast),
        Workers::Alike(count) => {
            gain_of(state, at, &forecast, || alike(&state.settings, count + 1))
                .map(|gain| BTreeMap::from([(WORKERS.to_owned(), gain)]))
        }
    };
    let figures = Figures::of(&forecast);
    let Forecast { schedule, end, assumed, is_cut, makespan_ms, .. } = forecast;
    let left_out = end.tasks.values().filter(|task| is_left_out(state, task));
    Plan {
        left_out: left_out.map(|task| task.id.clone()).collect(),
        schedule,
        makespan_ms,
        waves: figures.waves,
        critical_path: figures.critical_path,
        critical_ms: figures.critical_ms,
        work_ms: figures.work_ms,
        workers: figures.workers,
        lower_bound_ms: figures.lower_bound_ms,
        bottleneck: figures.bottleneck,
        busy_ms: figures.busy_ms,
        gain_ms,
        is_cut,
        assumed,
        end,
        from: at,
    }
}

fn is_left_out(state: &State, task: &Task) -> bool {
    let was_open = state.tasks.get(&task.id).is_some_and(|task| !task.is_final());
    was_open && !task.is_final() && task.spec.kind == TaskKind::Task
}

/// Returns settings by which `count` agents serve every stage and have every capability.
fn alike(settings: &Settings, count: u32) -> Settings {
    let mut changed = settings.clone();
    changed.hash = format!("plan, {count} workers");
    changed.scheduler.command.clear();
    // Names of agents and groups count as capabilities.
    let names = settings.agents.iter().flat_map(AgentGroup::names);
    let mut capabilities: Vec<String> = names.map(|name| name.as_str().to_owned()).collect();
    capabilities.extend(settings.agents.iter().map(|group| group.name.clone()));
    capabilities.extend(settings.agents.iter().flat_map(|group| group.capabilities.clone()));
    capabilities.sort();
    capabilities.dedup();
    let stages = settings.stages.iter().map(|stage| stage.name.clone()).collect();
    let group = AgentGroup { capabilities, ..group(WORKERS, stages, count) };
    changed.agents = vec![group];
    changed
}

fn group(name: &str, stages: Vec<String>, count: u32) -> AgentGroup {
    AgentGroup {
        name: name.to_owned(),
        stages,
        count,
        scale_min: None,
        command: AgentCommand::Task,
        launcher: LauncherKind::Process,
        completion: Completion::Exit,
        env: BTreeMap::new(),
        env_allow: Vec::new(),
        provider: String::new(),
        capabilities: Vec::new(),
        tier: 1,
        complexity: Vec::new(),
    }
}

/// Returns what one more agent of each group would save, of the first [`GROUPS_MAX`].
fn gains(state: &State, at: Time, plain: &Forecast) -> Option<BTreeMap<String, u64>> {
    let groups = state.settings.agents.iter().enumerate().take(GROUPS_MAX);
    let count = groups.len();
    let is_too_much = plain.schedule.len().saturating_mul(count) > GAIN_ATTEMPTS_MAX
        || plain.looks.saturating_mul(count) > LOOKS_IN_VAIN_MAX;
    if is_too_much {
        return None;
    }
    let of_group = |(place, group): (usize, &AgentGroup)| {
        let gain = gain_of(state, at, plain, || one_more(&state.settings, place));
        gain.map(|gain| (group.name.clone(), gain))
    };
    groups.map(of_group).collect()
}

fn gain_of(
    state: &State,
    at: Time,
    plain: &Forecast,
    settings: impl FnOnce() -> Settings,
) -> Option<u64> {
    if plain.is_cut || plain.schedule.len() > GAIN_ATTEMPTS_MAX {
        return None;
    }
    let bounds = Bounds { attempts: ATTEMPTS_MAX, looks: LOOKS_IN_VAIN_MAX };
    let more = Forecast::run(state, at, Some(settings()), bounds);
    // With more agents other tasks may be served, which takes its time.
    (!more.is_cut).then(|| plain.makespan_ms.saturating_sub(more.makespan_ms))
}

/// Returns settings with one more agent of a group. It is a group of its own, so that the others
/// keep their names.
fn one_more(settings: &Settings, place: usize) -> Settings {
    let mut changed = settings.clone();
    let mut group = settings.agents[place].clone();
    changed.hash = format!("plan, one more {}", group.name);
    group.capabilities.push(group.name.clone());
    group.name.push_str(ONE_MORE);
    (group.count, group.scale_min) = (1, None);
    changed.agents.push(group);
    changed.scheduler.command.clear();
    changed
}
