//! What each task that nobody works on waits for.

use std::borrow::Cow;
use std::collections::BTreeMap;

use serde::Serialize;

use super::page::first_line;
use super::purse;
use super::words::{self, Stamp, last_failure, listed};
use crate::machine::State;
use crate::machine::agent::Agent;
use crate::machine::gate;
use crate::machine::id::{StageName, TaskId};
use crate::machine::mode::{Isolation, Orchestration, Rollout};
use crate::machine::proposal;
use crate::machine::schedule::Standing;
use crate::machine::schedule::demand::Demand;
use crate::machine::schedule::load::Obstacle;
use crate::machine::schedule::pool::{Takers, lacking};
use crate::machine::stage;
use crate::machine::task::{Task, TaskKind, TaskPhase};
use crate::machine::time::Time;
use crate::machine::turn::is_base_good;

/// Names listed in one reason; the rest is counted.
const NAMES_MAX: usize = 5;

/// What kind of thing is waited for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum On {
    /// Tasks it depends on.
    Dependency,
    /// The base conflicts with what has landed, or another task works on the same paths.
    Conflict,
    /// The end of a limit of the agents' provider.
    RateLimit,
    /// A pause after a failure.
    Backoff,
    /// The base or the landing branch must be in order first, or others land before it.
    Checkout,
    /// An agent that may take it.
    Agent,
    /// A limit of the run is used up.
    Budget,
    /// `task approve`.
    Approval,
    /// A person holds the task or the whole pipeline.
    Hold,
    /// The rollout does not let the pipeline act for it.
    Rollout,
}

impl On {
    /// Returns the word used in JSON and text.
    #[must_use]
    pub const fn word(self) -> &'static str {
        match self {
            Self::Dependency => "dependency",
            Self::Conflict => "conflict",
            Self::RateLimit => "rate_limit",
            Self::Backoff => "backoff",
            Self::Checkout => "checkout",
            Self::Agent => "agent",
            Self::Budget => "budget",
            Self::Approval => "approval",
            Self::Hold => "hold",
            Self::Rollout => "rollout",
        }
    }
}

/// A reason to wait.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Reason {
    pub on: On,
    /// In words, one line.
    pub what: String,
    /// When it passes by itself; `None`: not known, or not by itself.
    pub until: Option<Stamp>,
}

impl Reason {
    fn new(on: On, what: impl Into<String>) -> Self {
        Self { on, what: what.into(), until: None }
    }

    fn until(self, until: Option<Time>) -> Self {
        Self { until: until.map(Stamp), ..self }
    }
}

/// A task with its reason.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Waiting<'a> {
    pub id: &'a str,
    #[serde(flatten)]
    pub reason: Reason,
}

/// Finds reasons; what many tasks share is found once.
#[derive(Debug)]
pub struct Waits<'a> {
    state: &'a State,
    /// Holds for every task that is ready.
    shared: Option<Reason>,
    /// By stage and what is needed: what no agent has; `None`: one has it all.
    lacking: BTreeMap<(StageName, &'a [String]), Option<Reason>>,
    /// By stage, what is needed, and the least tier.
    agents: BTreeMap<(&'a str, &'a [String], u32), Reason>,
    /// What runs, and what comes first.
    standing: Standing<'a>,
}

impl<'a> Waits<'a> {
    /// Looks at what holds for all tasks.
    #[must_use]
    pub fn new(state: &'a State) -> Self {
        let (lacking, agents) = (BTreeMap::new(), BTreeMap::new());
        Self { state, shared: shared(state), lacking, agents, standing: Standing::of(state) }
    }

    /// Returns what the task waits for; `None` for an epic, and for a task that is being worked on
    /// or landed, is blocked or is final.
    pub fn reason(&mut self, task: &'a Task) -> Option<Reason> {
        if task.spec.kind == TaskKind::Epic {
            return None;
        }
        match &task.phase {
            TaskPhase::Waiting => Some(self.of_waiting(task)),
            TaskPhase::Ready { stage } => Some(self.of_ready(task, stage)),
            TaskPhase::Landing { .. } => self.of_landing(task),
            TaskPhase::Working { .. }
            | TaskPhase::Blocked(_)
            | TaskPhase::Completed { .. }
            | TaskPhase::Cancelled { .. } => None,
        }
    }

    fn of_waiting(&mut self, task: &'a Task) -> Reason {
        if task.is_held {
            return held(task);
        }
        let state = self.state;
        self.unmet(task)
            .or_else(|| {
                let stage = stage::first(&state.settings, task)?;
                self.missing(task, &stage, &Demand::of(&state.settings, task, &stage))
            })
            .or_else(|| self.gated(&task.id))
            .or_else(|| self.shared.clone())
            .unwrap_or_else(|| Reason::new(On::Agent, "the monitor's next turn"))
    }

    /// Returns the tasks that it depends on and that are not done.
    fn unmet(&self, task: &Task) -> Option<Reason> {
        let tasks = &self.state.tasks;
        let is_unmet = |id: &&TaskId| tasks.get(*id).is_none_or(|dep| !dep.is_met());
        let mut open = task.spec.depends_on.iter().filter(is_unmet).peekable();
        open.peek()?;
        Some(Reason::new(On::Dependency, listed(open, NAMES_MAX)))
    }

    fn of_ready(&mut self, task: &'a Task, stage: &'a StageName) -> Reason {
        if task.is_held {
            return held(task);
        }
        // It may have been put at a stage by a person, or linked since.
        if let Some(reason) = self.unmet(task) {
            return reason;
        }
        // All else passes, and would be waited for in vain.
        let demand = Demand::of(&self.state.settings, task, stage);
        if let Some(reason) = self.missing(task, stage, &demand) {
            return reason;
        }
        if task.backoff_until.is_some() {
            let why = last_failure(task).map_or(Cow::Borrowed("a failure"), first_line);
            return Reason::new(On::Backoff, format!("after: {why}")).until(task.backoff_until);
        }
        if let Some(reason) = self.gated(&task.id).or_else(|| self.shared.clone()) {
            return reason;
        }
        let state = self.state;
        if state.orchestration == Orchestration::Sequential
            && let Some(current) = state.current.as_ref().filter(|current| **current != task.id)
        {
            return Reason::new(On::Agent, format!("{current} is the current task"));
        }
        if let Some(obstacle) = self.standing.obstacle(&task.id, stage, &demand) {
            return obstructed(state, &obstacle, &demand);
        }
        let has_free = || {
            let takers = Takers::of(state, stage, &demand);
            state.agents.values().any(|agent| state.is_free(agent) && takers.has(agent))
        };
        if proposal::is_awaited(state) && has_free() {
            return Reason::new(On::Agent, "the external scheduler (`scheduler.command`)");
        }
        let key = (stage.as_str(), task.spec.needs.as_slice(), demand.tier_min);
        let reason = self.agents.entry(key).or_insert_with(|| of_agents(state, stage, &demand));
        reason.clone()
    }

    /// Returns what there never is for the task's stage.
    fn missing(&mut self, task: &'a Task, stage: &StageName, demand: &Demand) -> Option<Reason> {
        let (state, needs) = (self.state, task.spec.needs.as_slice());
        let lacks =
            || lacking(state, stage, needs).map(|what| Reason::new(On::Agent, first_line(&what)));
        let lacks = self.lacking.entry((stage.clone(), needs)).or_insert_with(lacks);
        lacks.clone().or_else(|| {
            let beyond = Obstacle::beyond(&state.settings, demand)?;
            Some(obstructed(state, &beyond, demand))
        })
    }

    fn of_landing(&self, task: &Task) -> Option<Reason> {
        let state = self.state;
        let base = &state.base;
        if let Some(landing) = state.landing.as_ref().filter(|landing| landing.task == task.id) {
            let why = format!("after: {}", first_line(&landing.tries.why));
            let until = landing.tries.until;
            if until.is_none() && !state.is_landing() {
                // It is in doubt, and what it was merged onto cannot be judged.
                return known_trouble(state).map(|what| Reason::new(On::Checkout, what));
            }
            return until.map(|_| Reason::new(On::Backoff, why).until(until));
        }
        if task.is_held {
            return Some(held(task));
        }
        // It was linked since.
        if let Some(reason) = self.unmet(task) {
            return Some(reason);
        }
        if let Some(paths) = &task.approval {
            return Some(Reason::new(On::Approval, first_line(paths)));
        }
        if let Some(reason) = self.gated(&task.id) {
            return Some(reason);
        }
        if let Some(reason) = dropping(state) {
            return Some(reason);
        }
        let (name, branch) = (&state.settings.project.base, &state.settings.landing.branch);
        if let Some(paths) = &base.conflict {
            let what = format!("`{name}` conflicts with `{branch}` in {}", first_line(paths));
            return Some(Reason::new(On::Conflict, what));
        }
        if base.take_tries.until.is_some() {
            let why = first_line(&base.take_tries.why);
            let what = format!("`{branch}` could not take `{name}` in: {why}");
            return Some(Reason::new(On::Checkout, what).until(base.take_tries.until));
        }
        if let Some((commit, tail)) = &base.red
            && base.landed.as_ref() == Some(commit)
            && !state.monitor.allows_red_base
        {
            let name = words::branch_at(state, commit);
            let what = format!("checks fail on `{name}` itself: {}", first_line(tail));
            return Some(Reason::new(On::Checkout, what));
        }
        if let Some(landing) = &state.landing {
            return Some(Reason::new(On::Checkout, format!("the landing of {}", landing.task)));
        }
        if base.tip.is_none() || base.taken != base.tip {
            let what = format!("`{branch}` takes `{name}` in first");
            return Some(Reason::new(On::Checkout, what));
        }
        let first = state.index.lane.values().next().filter(|first| **first != task.id);
        let what = first.map_or_else(
            || "the monitor's next turn".to_owned(),
            |first| format!("the landing of {first}"),
        );
        Some(Reason::new(On::Checkout, what))
    }

    fn gated(&self, id: &TaskId) -> Option<Reason> {
        if gate::may_act(self.state, id) {
            return None;
        }
        let what = match self.state.rollout {
            Rollout::Shadow => "the rollout is shadow",
            Rollout::Pilot | Rollout::Production => "outside the pilot's slice",
        };
        Some(Reason::new(On::Rollout, what))
    }
}

fn obstructed(state: &State, obstacle: &Obstacle<'_>, demand: &Demand) -> Reason {
    let on = match obstacle {
        Obstacle::Clash(_)
        | Obstacle::Unlanded(_)
        | Obstacle::Beside(_)
        | Obstacle::NotAlone(_)
        | Obstacle::Behind(_)
        | Obstacle::BehindAlone(_) => On::Conflict,
        Obstacle::Short { .. } | Obstacle::Beyond(_) => On::Agent,
    };
    Reason::new(on, obstacle.words(state, demand))
}

fn held(task: &Task) -> Reason {
    let id = &task.id;
    let what = match &task.taken {
        Some(_) => format!("taken by a person: pipeline task give {id}"),
        None => format!("held by a person: pipeline task release {id}"),
    };
    Reason::new(On::Hold, what)
}

/// Returns why nothing at all is started.
fn shared(state: &State) -> Option<Reason> {
    if state.is_paused {
        return Some(Reason::new(On::Hold, "the pipeline is paused: pipeline resume"));
    }
    if state.stopping.is_some() {
        return Some(Reason::new(On::Hold, "the monitor is stopping"));
    }
    if let Some(drain) = state.drain {
        let what = format!("the switch to {} mode", words::orchestration(drain.to));
        return Some(Reason::new(On::Agent, what).until(Some(drain.until)));
    }
    if let Some(reason) = dropping(state) {
        return Some(reason);
    }
    if let Some(what) = state.shortage.as_deref().filter(|_| state.rollout != Rollout::Shadow) {
        return Some(Reason::new(On::Backoff, format!("goes on by itself: {}", first_line(what))));
    }
    if let Some(what) = state.overload.as_deref().filter(|_| state.rollout != Rollout::Shadow) {
        return Some(Reason::new(On::Backoff, first_line(what)));
    }
    if state.rollout != Rollout::Shadow && !is_base_good(state) {
        return Some(Reason::new(On::Checkout, base_trouble(state)));
    }
    purse::used_up(state)
}

/// Returns that the pilot is dropped first, while that is so.
fn dropping(state: &State) -> Option<Reason> {
    let tries = &state.base.dropping.as_ref()?.tries;
    let branch = &state.settings.landing.branch;
    let mut what = format!("`{branch}` is reset first, the pilot is dropped");
    if tries.until.is_some() {
        what = format!("{what}: {}", first_line(&tries.why));
    }
    Some(Reason::new(On::Checkout, what).until(tries.until))
}

/// Returns why the base lets nothing start, in words.
fn base_trouble(state: &State) -> String {
    let name = &state.settings.project.base;
    known_trouble(state).unwrap_or_else(|| format!("the monitor looks at `{name}` first"))
}

/// Returns true where nothing is wrong with the base, as far as is known: a monitor has to look.
#[must_use]
pub fn is_a_look_owed(state: &State) -> bool {
    state.base.dropping.is_none() && known_trouble(state).is_none()
}

fn known_trouble(state: &State) -> Option<String> {
    let (base, name) = (&state.base, &state.settings.project.base);
    let is_git = state.settings.project.isolation == Isolation::Worktree;
    if is_git && let Some((commit, tail)) = &base.red {
        let name = words::branch_at(state, commit);
        return Some(format!("checks fail on `{name}` itself: {}", first_line(tail)));
    }
    if let Some(paths) = base.conflict.as_deref() {
        let branch = &state.settings.landing.branch;
        return Some(format!("`{name}` conflicts with `{branch}` in {}", first_line(paths)));
    }
    if base.checking.is_some() {
        return Some(format!("the checks on `{name}` itself are running"));
    }
    if base.check_tries.until.is_some() {
        let why = first_line(&base.check_tries.why);
        return Some(format!("the checks on `{name}` itself could not run: {why}"));
    }
    if base.take_tries.until.is_some() {
        return Some(format!(
            "`{name}` could not be taken in: {}",
            first_line(&base.take_tries.why)
        ));
    }
    None
}

/// Returns which agents of the stage are busy or cool down; none is missing.
fn of_agents(state: &State, stage: &StageName, demand: &Demand) -> Reason {
    let takers = Takers::of(state, stage, demand);
    let able = || {
        let there = state.agents.values().filter(|agent| !agent.is_retired);
        there.filter(|agent| takers.has(agent))
    };
    let names = |agents: &mut dyn Iterator<Item = &Agent>| {
        let all: Vec<&str> = agents.map(|agent| agent.name.as_str()).take(NAMES_MAX).collect();
        all.join(", ")
    };
    let who = match takers.tier_min {
        0 => format!("stage `{stage}`"),
        tier => format!("stage `{stage}`, from tier {tier} on after failures"),
    };
    let free = names(&mut able().filter(|agent| state.is_free(agent)));
    if !free.is_empty() {
        return Reason::new(On::Agent, format!("the monitor's next turn ({free} free)"));
    }
    let mut unusable = able().filter_map(|agent| Some((agent, agent.unusable.as_ref()?)));
    if !able().any(|agent| agent.may_work())
        && let Some((agent, why)) = unusable.next()
    {
        let what = format!("{who}: agent `{}` cannot start: {}", agent.name, first_line(why));
        return Reason::new(On::Agent, what);
    }
    if able().next().is_none() {
        // One comes: none is missing.
        return Reason::new(On::Agent, format!("{who}: the monitor's next turn"));
    }
    if let Some(first) = able().next().filter(|_| able().all(|agent| agent.is_paused)) {
        let all = names(&mut able());
        let what = format!("{who}: {all} paused: pipeline agent resume {}", first.name);
        return Reason::new(On::Agent, what);
    }
    if let Some(reason) = of_limits(state, able).or_else(|| of_probe(state, able)) {
        return reason;
    }
    let busy = names(&mut able().filter(|agent| agent.attempt.is_some()));
    let mut cooling =
        able().filter(|agent| state.may_work(agent) && state.cools_until(agent).is_some());
    let first = cooling.clone().filter_map(|agent| state.cools_until(agent)).min();
    let cooled = names(&mut cooling);
    match (busy.is_empty(), cooled.is_empty()) {
        (_, true) => Reason::new(On::Agent, format!("{who}: {busy} busy")),
        (false, false) => {
            let what = format!("{who}: {busy} busy, {cooled} cools down");
            Reason::new(On::Agent, what)
        }
        (true, false) => {
            let what = format!("{who}: {cooled} cools down");
            Reason::new(On::Agent, what).until(first)
        }
    }
}

/// Returns that all who could take it wait for the end of a limit.
fn of_limits<'a, I: Iterator<Item = &'a Agent>>(
    state: &'a State,
    able: impl Fn() -> I,
) -> Option<Reason> {
    let limited = |agent: &&Agent| {
        let pause = state.pause_of(agent).filter(|pause| !pause.is_refused)?;
        Some((state.provider_of(state.group_of(agent)?), pause, pause.until?))
    };
    let mut at_work = able().filter(|agent| state.may_work(agent)).peekable();
    at_work.peek()?;
    if at_work.any(|agent| limited(&agent).is_none()) {
        return None;
    }
    let first = able().filter(|agent| state.may_work(agent)).filter_map(|agent| limited(&agent));
    let (provider, pause, until) = first.min_by_key(|(_, _, until)| *until)?;
    let what = format!("`{provider}` has reached a limit: {}", first_line(&pause.why));
    Some(Reason::new(On::RateLimit, what).until(Some(until)))
}

/// Returns that all who could take it wait for the one that tries first after a limit.
fn of_probe<'a, I: Iterator<Item = &'a Agent>>(
    state: &'a State,
    able: impl Fn() -> I,
) -> Option<Reason> {
    let at_work = || able().filter(|agent| state.may_work(agent) && agent.attempt.is_none());
    let agent = at_work().next()?;
    let probe = state.probe_before(agent)?;
    let is_held = |agent: &Agent| state.probe_before(agent).is_some();
    if !at_work().all(is_held) {
        return None;
    }
    let provider = state.provider_of(state.group_of(agent)?);
    let what = format!("`{provider}` has reached a limit: {probe} tries first");
    Some(Reason::new(On::RateLimit, what))
}

#[cfg(test)]
mod tests {
    use super::{On, Waits};
    use crate::machine::attempt::Marker;
    use crate::machine::event::{GiveTo, PilotEnd, StopKind};
    use crate::machine::id::{StageName, TaskId};
    use crate::machine::mode::{Orchestration, Rollout};
    use crate::machine::settings::{Settings, Slice};
    use crate::machine::{Answer, Command, EventBody, Observation};
    use crate::observe::support::{End, Pipeline, oid, settings, task, with_second};

    fn check(pipeline: &Pipeline, id: &str, on: On, what: &str) {
        let mut waits = Waits::new(&pipeline.state);
        let found = waits.reason(&pipeline.state.tasks[&TaskId::new(id)]);
        let found = found.unwrap_or_else(|| panic!("{id} waits for nothing"));
        assert_eq!(found.on, on, "{found:?}");
        assert!(found.what.contains(what), "{found:?} lacks {what:?}");
    }

    fn with(change: impl FnOnce(&mut Settings)) -> Settings {
        let mut settings = settings();
        change(&mut settings);
        settings
    }

    #[test]
    fn waiting_tasks_name_dependency_hold_or_rollout() {
        let mut held = task("C", &[]);
        held.is_held = true;
        let tasks = vec![task("A", &[]), task("B", &["A"]), held];
        let pipeline = Pipeline::started(settings(), tasks);
        check(&pipeline, "B", On::Dependency, "A");
        check(&pipeline, "C", On::Hold, "pipeline task release C");
        let pilot = with(|settings| {
            settings.project.rollout = Rollout::Pilot;
            settings.rollout.pilot = Slice::Tasks(vec!["A".into()]);
        });
        let pipeline = Pipeline::started(pilot, vec![task("A", &[]), task("B", &[])]);
        check(&pipeline, "B", On::Rollout, "slice");
        let shadow = with(|settings| settings.project.rollout = Rollout::Shadow);
        let pipeline = Pipeline::started(shadow, vec![task("A", &[])]);
        check(&pipeline, "A", On::Rollout, "shadow");
    }

    #[test]
    fn tasks_wait_for_a_pilot_that_is_being_dropped() {
        let pilot = with(|settings| settings.project.rollout = Rollout::Pilot);
        let mut pipeline = Pipeline::started(pilot, vec![task("A", &[]), task("L", &[])]);
        pipeline.run_stages("A");
        pipeline.land("A");
        pipeline.run_stages("L");
        pipeline.send(Command::HoldTasks { ids: vec![TaskId::new("L")] });
        pipeline.send(Command::Pause);
        pipeline.send(Command::AddTasks { tasks: vec![task("B", &[])] });
        pipeline.turn();
        pipeline.send(Command::ReleaseTasks { ids: vec![TaskId::new("L")] });
        let drop = Command::Promote { is_forced: true, pilot: Some(PilotEnd::Drop) };
        assert!(matches!(pipeline.feed(EventBody::Command(drop)), Answer::Note(_)));
        pipeline.send(Command::Resume);
        pipeline.turn();
        let first = "`pipeline/landed` is reset first, the pilot is dropped";
        check(&pipeline, "B", On::Checkout, first);
        check(&pipeline, "L", On::Checkout, first);
        pipeline.see(Observation::LaneFaulted { why: "disk full".into() });
        pipeline.turn();
        for id in ["B", "L"] {
            check(&pipeline, id, On::Checkout, "the pilot is dropped: disk full");
            let reason =
                Waits::new(&pipeline.state).reason(&pipeline.state.tasks[&TaskId::new(id)]);
            assert!(reason.is_some_and(|reason| reason.until.is_some()), "{id}");
        }
    }

    #[test]
    fn ready_tasks_say_which_agents_are_busy_paused_or_missing() {
        let mut pipeline = Pipeline::started(settings(), vec![task("A", &[]), task("B", &[])]);
        check(&pipeline, "B", On::Agent, "architect busy");
        pipeline.run("A.arch.1", End::Done);
        check(&pipeline, "B", On::Agent, "architect free");
        pipeline.pause_agent("architect");
        check(&pipeline, "B", On::Agent, "architect paused");
        let unserved = with(|settings| {
            settings.agents.remove(0);
        });
        let pipeline = Pipeline::started(unserved, vec![task("A", &[])]);
        check(&pipeline, "A", On::Agent, "no agent serves stage `architect`");
        let mut needy = task("A", &[]);
        needy.spec.needs = vec!["gpu".into()];
        let pipeline = Pipeline::started(settings(), vec![needy]);
        check(&pipeline, "A", On::Agent, "has `gpu`");
    }

    #[test]
    fn what_there_never_is_goes_before_what_passes() {
        let short = with(|settings| {
            settings.landing.checks = vec!["make test".into()];
            settings.scheduler.resources.insert("cpu".into(), 4_000);
        });
        let mut needy = task("A", &[]);
        needy.spec.needs = vec!["gpu".into()];
        let mut great = task("B", &[]);
        let amounts =
            [("cpu", "8"), ("db", "1")].map(|(name, it)| (name.to_owned(), it.to_owned()));
        great.spec.resources = amounts.into();
        let mut pipeline = Pipeline::started(short, vec![needy, great, task("C", &[])]);
        pipeline.see(Observation::OverloadSeen { what: Some("the machine's load".into()) });
        let beyond = "`cpu`: needs 8, there is 4 in all; `db`: needs 1, there is 0 in all \
                      (`scheduler.resources`)";
        for _ in 0..2 {
            check(&pipeline, "A", On::Agent, "no agent of stage `architect` has `gpu`");
            check(&pipeline, "B", On::Agent, beyond);
            pipeline.send(Command::Pause);
        }
        check(&pipeline, "C", On::Hold, "paused");
    }

    #[test]
    fn what_nobody_serves_is_said_before_any_monitor_has_run() {
        let mut pipeline = Pipeline::new(settings());
        let mut needing = task("A", &[]);
        needing.spec.needs = vec!["gpu".into()];
        let tasks = vec![needing, task("B", &[]), task("C", &["B"])];
        pipeline.send(Command::AddTasks { tasks });
        check(&pipeline, "A", On::Agent, "no agent of stage `architect` has `gpu`");
        check(&pipeline, "B", On::Checkout, "the monitor looks at `main` first");
        check(&pipeline, "C", On::Dependency, "B");
    }

    #[test]
    fn who_is_kept_back_by_one_that_comes_first_names_it() {
        let one_stage = with(|settings| {
            settings.stages.drain(..2);
            settings.agents.drain(..2);
            settings.agents[0].count = 3;
            settings.scheduler.resources.insert("db".into(), 2_000);
        });
        let touching = |name: &str, globs: &[&str]| {
            let mut task = task(name, &[]);
            task.spec.touches = globs.iter().map(|glob| (*glob).to_owned()).collect();
            task
        };
        let wanting = |name: &str, amount: &str| {
            let mut task = task(name, &[]);
            task.spec.resources.insert("db".into(), amount.into());
            task
        };
        let tasks = vec![
            touching("A", &["src/a"]),
            touching("B", &["src/**"]),
            touching("C", &["src/c"]),
            wanting("D", "1"),
        ];
        let pipeline = Pipeline::started(one_stage.clone(), tasks);
        check(&pipeline, "B", On::Conflict, "A changes the same paths");
        check(&pipeline, "C", On::Conflict, "B comes first and waits for the same");
        let tasks = vec![wanting("A", "1"), wanting("B", "2"), wanting("C", "1")];
        let pipeline = Pipeline::started(one_stage.clone(), tasks);
        check(&pipeline, "B", On::Agent, "`db`: needs 2, 1 free");
        check(&pipeline, "C", On::Conflict, "B comes first and waits for the same");
        let mut alone = task("B", &[]);
        alone.spec.is_exclusive = true;
        let tasks = vec![task("A", &[]), alone, task("C", &[])];
        let pipeline = Pipeline::started(one_stage, tasks);
        check(&pipeline, "B", On::Conflict, "runs alone, and A is not done");
        check(&pipeline, "C", On::Conflict, "B comes first and runs alone");
    }

    #[test]
    fn what_a_person_gave_to_a_stage_waits_for_its_dependencies_all_the_same() {
        let mut pipeline = Pipeline::started(settings(), vec![task("A", &[]), task("B", &["A"])]);
        let (id, from) = (TaskId::new("B"), oid('a'));
        pipeline.send(Command::TakeTask { id: id.clone(), dir: "/x".into(), from });
        let to = GiveTo::Stage(StageName::new("implementation"));
        pipeline.send(Command::GiveTask { id, to, commit: oid('b'), changed: None });
        check(&pipeline, "B", On::Dependency, "A");
    }

    #[test]
    fn a_tier_asked_for_after_failures_is_named() {
        let tiered = with(|settings| {
            settings.stages.truncate(1);
            settings.scheduler.escalate_after = 1;
            settings.agents.truncate(2);
            settings.agents[1].stages = vec!["architect".into()];
            settings.agents[1].tier = 2;
        });
        let mut pipeline = Pipeline::started(tiered, vec![task("A", &[]), task("B", &[])]);
        pipeline.run("A.arch.1", End::Status(1));
        pipeline.pass(5_000);
        pipeline.turn();
        check(&pipeline, "A", On::Agent, "stage `architect`, from tier 2 on after failures: test");
    }

    #[test]
    fn agents_that_cool_down_are_named_with_the_end_of_it() {
        let mut pipeline = with_second(&["A", "B", "C", "D"]);
        for attempt in ["A.arch.1", "B.arch.1", "C.arch.1"] {
            pipeline.run(attempt, End::Status(1));
            pipeline.turn();
        }
        check(&pipeline, "D", On::Agent, "second busy, architect cools down");
        let end = pipeline.now.plus_ms(60_000);
        pipeline.pause_agent("second");
        pipeline.run("Z.arch.1", End::Done);
        check(&pipeline, "D", On::Agent, "stage `architect`: architect cools down");
        let mut waits = Waits::new(&pipeline.state);
        let reason = waits.reason(&pipeline.state.tasks[&TaskId::new("D")]).expect("it waits");
        assert_eq!(reason.until.map(|until| until.0), Some(end));
        pipeline.pause_agent("architect");
        check(&pipeline, "D", On::Agent, "architect, second paused");
    }

    #[test]
    fn a_failure_waits_until_its_pause_is_over() {
        let mut pipeline = Pipeline::started(settings(), vec![task("A", &[])]);
        pipeline.run("A.arch.1", End::Says(Marker::Failed("no plan".into())));
        check(&pipeline, "A", On::Backoff, "after: no plan");
        let mut waits = Waits::new(&pipeline.state);
        let reason = waits.reason(&pipeline.state.tasks[&TaskId::new("A")]);
        let until = reason.and_then(|reason| reason.until).expect("it has an end");
        assert_eq!(until.0, pipeline.now.plus_ms(5_000));
    }

    #[test]
    fn what_holds_all_is_said_of_each() {
        let started = || Pipeline::started(settings(), vec![task("A", &[]), task("B", &[])]);
        let mut pipeline = started();
        pipeline.send(Command::Pause);
        check(&pipeline, "B", On::Hold, "paused");
        let mut pipeline = started();
        pipeline.send(Command::Stop { kind: StopKind::Drain });
        check(&pipeline, "B", On::Hold, "stopping");
        let mut pipeline = started();
        let (to, wait_ms) = (Orchestration::Sequential, Some(1_000));
        pipeline.send(Command::SwitchMode { to, wait_ms, is_forced: false });
        check(&pipeline, "B", On::Agent, "sequential");
        let budget = with(|settings| settings.limits.attempts_per_run = 1);
        let pipeline = Pipeline::started(budget, vec![task("A", &[]), task("B", &[])]);
        check(&pipeline, "B", On::Budget, "attempts_per_run");
        let sequential = with(|settings| {
            settings.project.orchestration = Orchestration::Sequential;
        });
        let pipeline = Pipeline::started(sequential, vec![task("A", &[]), task("B", &[])]);
        check(&pipeline, "B", On::Agent, "A is the current task");
    }

    #[test]
    fn a_red_base_is_named_with_its_output() {
        let checked = with(|settings| settings.landing.checks = vec!["make test".into()]);
        let mut pipeline = Pipeline::started(checked, vec![task("A", &[])]);
        check(&pipeline, "A", On::Checkout, "are running");
        pipeline.run("base.check.1", End::Tail(1, "boom"));
        check(&pipeline, "A", On::Checkout, "`make test` exited with status 1");
    }

    #[test]
    fn landings_wait_for_approval_conflict_or_each_other() {
        let mut pipeline = Pipeline::started(settings(), vec![task("A", &[])]);
        pipeline.run_stages("A");
        check(&pipeline, "A", On::Checkout, "next turn");
        pipeline.turn();
        let mut waits = Waits::new(&pipeline.state);
        assert_eq!(waits.reason(&pipeline.state.tasks[&TaskId::new("A")]), None);
        let protected = vec!["pipeline.toml".to_owned()];
        pipeline.see(Observation::Merged {
            task: TaskId::new("A"),
            number: 1,
            commit: oid('c'),
            onto: oid('a'),
            protected,
        });
        check(&pipeline, "A", On::Approval, "pipeline.toml");
        pipeline.send(Command::ApproveTasks { ids: vec![TaskId::new("A")] });
        pipeline.see(Observation::BaseSeen { tip: oid('d'), landed: Some(oid('a')) });
        check(&pipeline, "A", On::Checkout, "takes `main` in first");
        pipeline.see(Observation::BaseConflicts { base: oid('d'), paths: vec!["x.rs".into()] });
        check(&pipeline, "A", On::Conflict, "x.rs");
    }
}
