//! The simulator over the pure machine: a seed drives tasks, agents, faults, restarts and commands;
//! after every event the promises are checked; then everything is well and all must come to an end.

use std::collections::BTreeSet;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};

use pipeline::machine::attempt::Class;
use pipeline::machine::change::{AttemptChange, Change, TaskChange};
use pipeline::machine::event::{Dependents, Edit, RetryTarget, StopKind};
use pipeline::machine::id::{AgentName, TaskId};
use pipeline::machine::lane::LandingPhase;
use pipeline::machine::mode::{Isolation, Orchestration, Rollout};
use pipeline::machine::schedule::can_serve;
use pipeline::machine::settings::{Settings, Slice};
use pipeline::machine::task::{Priority, TaskKind, TaskPhase};
use pipeline::machine::{Command, Effect, gate, graph, next_deadline, turn};

use crate::machine_support::{Machine, group, id, new_task, settings};
use crate::machine_world::{Dice, World};

const SEEDS: u64 = 400;
const EVENTS: usize = 500;
const TASKS_MAX: usize = 12;
/// Rounds in which a kind world must bring everything to its end.
const ROUNDS_MAX: usize = 6_000;

struct Sim {
    machine: Machine,
    world: World,
    dice: Dice,
    settings_made: u64,
}

#[test]
fn seeds_keep_every_promise_and_come_to_an_end() {
    let mut reached = BTreeSet::new();
    for seed in 0..SEEDS {
        let run = || {
            let mut sim = Sim::new(seed);
            sim.run();
            sim.ways()
        };
        match catch_unwind(AssertUnwindSafe(run)) {
            Ok(ways) => reached.extend(ways),
            Err(panic) => {
                eprintln!("the simulator failed with seed {seed}");
                resume_unwind(panic);
            }
        }
    }
    // What the simulator never does it does not test.
    for class in Class::ALL {
        assert!(reached.contains(class.word()), "no seed comes to `{}`", class.word());
    }
}

impl Sim {
    fn new(seed: u64) -> Self {
        let mut dice = Dice(seed);
        let settings = random_settings(&mut dice, None);
        let mut machine = Machine::new(settings);
        machine.nonces = 1 + dice.below(6);
        let mut sim = Self { machine, world: World::new(), dice, settings_made: 0 };
        sim.world.restart(&mut sim.machine);
        sim
    }

    fn run(&mut self) {
        for _ in 0..EVENTS {
            self.event();
            self.machine.turns();
            self.check();
        }
        self.machine.state.check();
        self.heal();
        self.finish();
    }

    /// How attempts ended and why tasks were sent back or blocked.
    fn ways(&self) -> BTreeSet<&'static str> {
        let classes = self.machine.log.iter().filter_map(|change| match change {
            Change::Attempt(_, AttemptChange::Ended { outcome, .. }) => Some(outcome.class),
            Change::Task(_, TaskChange::Evidenced { evidence }) => Some(evidence.class),
            Change::Task(_, TaskChange::Moved { to: TaskPhase::Blocked(block), .. }) => {
                Some(block.class)
            }
            Change::Project(_) | Change::Task(..) | Change::Attempt(..) | Change::Lane(_) => None,
        });
        classes.map(Class::word).collect()
    }

    fn event(&mut self) {
        if self.machine.state.stopping.is_some() && self.dice.percent(15) {
            return self.world.restart(&mut self.machine);
        }
        match self.dice.below(100) {
            0..=31 => {
                self.world.act(&self.machine, &mut self.dice);
            }
            32..=63 => {
                self.world.answer_one(&mut self.machine, &mut self.dice);
            }
            64..=75 => {
                self.world.finish_one(&self.machine, &mut self.dice);
            }
            76..=83 => self.machine.now = self.machine.now.plus_ms(self.dice.next() % 8_000),
            84 | 85 => {
                let seen = self.world.base_seen();
                self.machine.see(seen);
            }
            86 => self.world.move_base(),
            87 => self.world.restart(&mut self.machine),
            88 => self.world.repeat_one(&mut self.machine, &mut self.dice),
            89 if self.dice.percent(10) => self.world.delete_landed(),
            _ => self.command(),
        }
    }

    fn command(&mut self) {
        let asked = match self.dice.below(30) {
            0..=6 => self.add_tasks(),
            7..=10 => self.edit(),
            11 => Command::HoldTasks { ids: self.some_tasks() },
            12 | 13 => Command::ReleaseTasks { ids: self.some_tasks() },
            14..=16 => self.retry(),
            17 | 29 => {
                let kinds = [Dependents::Refuse, Dependents::Cancel, Dependents::Release];
                let dependents = self.dice.pick(&kinds).unwrap();
                Command::CancelTasks { ids: self.some_tasks(), dependents }
            }
            18 | 19 => Command::ApproveTasks { ids: self.waiting_for_approval() },
            20 if self.dice.percent(30) => Command::Pause,
            20 | 21 | 28 => Command::Resume,
            22 => {
                let agents: Vec<AgentName> = self.machine.state.agents.keys().cloned().collect();
                let name = self.dice.pick(&agents).unwrap_or_else(|| AgentName::new("nobody"));
                if self.dice.percent(20) {
                    Command::PauseAgent { name }
                } else {
                    Command::ResumeAgent { name }
                }
            }
            23 | 24 => self.switch(),
            25 => {
                let wide = Rollout::Production;
                let all = [Rollout::Shadow, Rollout::Pilot, wide, wide, wide];
                let to = self.dice.pick(&all).unwrap();
                Command::SetRollout { to, is_forced: false }
            }
            26 => {
                self.settings_made += 1;
                let old = self.machine.state.settings.clone();
                let mut new = random_settings(&mut self.dice, Some(&old));
                new.hash = format!("{:016}", self.settings_made);
                Command::AdoptSettings { settings: Box::new(new) }
            }
            27 if self.dice.percent(60) => {
                let kinds = [StopKind::Leave, StopKind::Drain, StopKind::Now, StopKind::Now];
                Command::Stop { kind: self.dice.pick(&kinds).unwrap() }
            }
            _ => {
                let text = self.some_tasks().first().map_or("x", TaskId::as_str).to_owned();
                Command::PickTask { text }
            }
        };
        self.machine.ask(asked);
    }

    fn switch(&mut self) -> Command {
        let all = [Orchestration::Sequential, Orchestration::Parallel];
        let to = self.dice.pick(&all).unwrap();
        let wait_ms = self.dice.percent(60).then(|| self.dice.next() % 20_000);
        Command::SwitchMode { to, wait_ms, is_forced: self.dice.percent(30) }
    }

    fn some_tasks(&mut self) -> Vec<TaskId> {
        let all: Vec<TaskId> = self.machine.state.tasks.keys().cloned().collect();
        let count = 1 + self.dice.below(2);
        (0..count).filter_map(|_| self.dice.pick(&all)).collect()
    }

    fn waiting_for_approval(&self) -> Vec<TaskId> {
        let tasks = self.machine.state.tasks.values();
        tasks.filter(|task| task.approval.is_some()).map(|task| task.id.clone()).collect()
    }

    fn add_tasks(&mut self) -> Command {
        let mut tasks = Vec::new();
        let count = self.machine.state.tasks.len();
        for n in 0..(1 + self.dice.below(3)) {
            if count + n >= TASKS_MAX {
                break;
            }
            let name = format!("T{}", count + n);
            let deps: Vec<String> = (0..self.dice.below(3))
                .map(|_| format!("T{}", self.dice.below(count + n + 2)))
                .filter(|dep| *dep != name)
                .collect();
            let deps: Vec<&str> = deps.iter().map(String::as_str).collect();
            let mut new = new_task(&name, &deps);
            new.may_lack_dependencies = self.dice.percent(50);
            new.is_front = self.dice.percent(10);
            new.is_held = self.dice.percent(10);
            new.spec.priority = self.priority();
            if self.dice.percent(8) {
                new.spec.kind = TaskKind::Epic;
                new.spec.depends_on.clear();
            }
            let epics = self.machine.state.tasks.values().filter(|t| t.spec.kind == TaskKind::Epic);
            let epics: Vec<TaskId> = epics.map(|task| task.id.clone()).collect();
            new.spec.parent = if self.dice.percent(30) { self.dice.pick(&epics) } else { None };
            new.spec.labels = self.labels();
            new.spec.needs = self.needs();
            tasks.push(new);
        }
        Command::AddTasks { tasks }
    }

    fn priority(&mut self) -> Priority {
        let all = [Priority::Low, Priority::Medium, Priority::High, Priority::Critical];
        self.dice.pick(&all).unwrap()
    }

    fn labels(&mut self) -> Vec<String> {
        if self.dice.percent(40) { vec!["pilot".into()] } else { Vec::new() }
    }

    fn needs(&mut self) -> Vec<String> {
        match self.dice.below(10) {
            0 | 1 => vec!["gpu".into()],
            2 => vec!["gpu".into(), "arm".into()],
            3 => vec!["gpu,arm".into()],
            _ => Vec::new(),
        }
    }

    fn edit(&mut self) -> Command {
        let id = self.some_tasks().first().cloned().unwrap_or_else(|| id("nobody"));
        let mut edit = Edit::default();
        match self.dice.below(8) {
            0 | 1 => edit.add_depends_on = self.some_tasks(),
            2 => edit.remove_depends_on = self.some_tasks(),
            3 => edit.depends_on = Some(Vec::new()),
            4 => edit.priority = Some(self.priority()),
            5 => edit.labels = Some(self.labels()),
            6 => edit.needs = Some(self.needs()),
            _ => edit.is_front = Some(self.dice.percent(50)),
        }
        Command::EditTask { id, edit: Box::new(edit) }
    }

    fn retry(&mut self) -> Command {
        let stages = self.machine.state.settings.stages.clone();
        let is_all = self.dice.percent(40);
        let target =
            if is_all { RetryTarget::Blocked } else { RetryTarget::Tasks(self.some_tasks()) };
        let wants_stage = self.dice.percent(30);
        Command::RetryTasks {
            target,
            stage: self.dice.pick(&stages).filter(|_| wants_stage).map(|stage| stage.id()),
            note: self.dice.percent(20).then(|| "try harder".into()),
            is_fresh: self.dice.percent(20),
        }
    }

    /// What holds after every event, once the turn has found nothing more to do.
    fn check(&mut self) {
        let state = &self.machine.state;
        self.world.check(state);
        let effects = self.machine.effects();
        let is_of_attempt = |effect: &Effect| match effect {
            Effect::Prepare { .. }
            | Effect::Start { .. }
            | Effect::Stop { .. }
            | Effect::Save { .. }
            | Effect::Advance { .. } => true,
            Effect::TakeBase { .. }
            | Effect::Merge { .. }
            | Effect::Land { .. }
            | Effect::Follow { .. } => false,
        };
        if state.rollout == Rollout::Shadow {
            assert!(effects.iter().all(is_of_attempt), "shadow touches refs: {effects:?}");
        }
        if state.rollout != Rollout::Production {
            let follows = effects.iter().any(|effect| matches!(effect, Effect::Follow { .. }));
            assert!(!follows, "the base follows in {:?}", state.rollout);
        }
        for task in state.tasks.values() {
            if let TaskPhase::Working { attempt, .. } = &task.phase {
                let live = state.attempts.get(attempt);
                assert_eq!(live.and_then(|live| live.task.as_ref()), Some(&task.id));
            }
        }
        if let Some(landing) = &state.landing {
            let phase = &state.tasks[&landing.task].phase;
            assert!(matches!(phase, TaskPhase::Landing { .. }), "{landing:?} at {phase:?}");
            if let LandingPhase::Checking { attempt, .. } = &landing.phase {
                let mut old = state.tasks[&landing.task].history.iter();
                let has_failed = old.any(|old| {
                    let class = old.outcome.as_ref().map(|outcome| outcome.class);
                    old.id == *attempt && class == Some(Class::ChecksFailed)
                });
                let is_live = state.attempts.contains_key(attempt);
                assert!(is_live || has_failed, "the check of {landing:?} is gone");
            }
        }
        self.nobody_waits();
        if self.dice.percent(25) {
            state.check();
            let nodes: Vec<(&str, Vec<&str>)> = state
                .tasks
                .values()
                .map(|task| {
                    let deps = task.spec.depends_on.iter().map(TaskId::as_str).collect();
                    (task.id.as_str(), deps)
                })
                .collect();
            assert_eq!(graph::report(&nodes).cycle_count, 0);
        }
    }

    /// An agent never waits while a task it could take is ready.
    fn nobody_waits(&self) {
        let state = &self.machine.state;
        let may_launch = state.stopping.is_none()
            && !state.is_paused
            && state.drain.is_none()
            && turn::is_base_good(state)
            && turn::launch_room(state, self.machine.now) != Some(0);
        let per_run = state.settings.limits.attempts_per_run;
        let is_used_up = per_run > 0 && state.monitor.attempts >= per_run;
        if !may_launch || is_used_up {
            return;
        }
        let is_sequential = state.orchestration == Orchestration::Sequential;
        let is_busy = state.has_work() || state.landing.is_some();
        for task in state.tasks.values() {
            let TaskPhase::Ready { stage } = &task.phase else { continue };
            let is_met = |dep: &TaskId| state.tasks.get(dep).is_some_and(|dep| dep.is_met());
            let may_start = !task.is_held
                && task.backoff_until.is_none()
                && gate::may_act(state, &task.id)
                && task.spec.depends_on.iter().all(is_met);
            let mut agents = state.agents.values().filter(|agent| agent.is_free());
            let able = agents.find(|agent| can_serve(state, agent, stage, &task.spec.needs));
            let (true, Some(agent)) = (may_start, able) else { continue };
            // In sequential mode the current task has the word, while it can go on by itself.
            let current = state.current.as_ref().filter(|_| is_sequential);
            let is_patient = is_busy
                || current.is_some_and(|current| {
                    let current = &state.tasks[current];
                    current.backoff_until.is_some() || self.is_in_lane(current.id.clone())
                });
            assert!(
                is_sequential && is_patient,
                "`{}` waits for {stage} while `{}` is free; current is {:?}",
                task.id,
                agent.name,
                state.current
            );
        }
    }

    fn is_in_lane(&self, id: TaskId) -> bool {
        self.machine.state.index.lane.values().any(|other| *other == id)
    }

    /// From here on nothing fails, nothing is held, and everything is allowed.
    fn heal(&mut self) {
        self.world.is_kind = true;
        self.world.move_base();
        self.world.restart(&mut self.machine);
        let machine = &mut self.machine;
        machine.ask(Command::Resume);
        let agents: Vec<AgentName> = machine.state.agents.keys().cloned().collect();
        for name in agents {
            machine.ask(Command::ResumeAgent { name });
        }
        machine.ask(Command::SetRollout { to: Rollout::Production, is_forced: true });
        let mut settings = (*machine.state.settings).clone();
        settings.hash = "healed".into();
        settings.limits.attempts_per_run = 0;
        machine.ask(Command::AdoptSettings { settings: Box::new(settings) });
        let ids = machine.state.tasks.keys().cloned().collect();
        machine.ask(Command::ReleaseTasks { ids });
        self.help();
    }

    /// What a person does about what needs a person.
    fn help(&mut self) {
        let ids = self.waiting_for_approval();
        self.machine.ask(Command::ApproveTasks { ids });
        let (target, stage, note) = (RetryTarget::Blocked, None, None);
        self.machine.ask(Command::RetryTasks { target, stage, note, is_fresh: false });
        self.machine.turns();
    }

    fn finish(&mut self) {
        for round in 0..ROUNDS_MAX {
            let is_moving = self.world.act(&self.machine, &mut self.dice)
                | self.world.answer_one(&mut self.machine, &mut self.dice)
                | self.world.finish_one(&self.machine, &mut self.dice);
            self.machine.turns();
            self.check();
            if is_moving || self.world.has_answers() {
                continue;
            }
            let state = &self.machine.state;
            if !state.is_idle() {
                let deadline = next_deadline(state);
                let stuck = || format!("round {round}: neither idle nor timed: {state:#?}");
                self.machine.now = deadline.unwrap_or_else(|| panic!("{}", stuck()));
                self.machine.turns();
            } else if self.is_helpless() {
                return self.all_is_explained();
            } else {
                self.help();
            }
        }
        panic!("a kind world does not come to an end: {:#?}", self.machine.state);
    }

    /// Nothing is left that a person's approval or retry would move.
    fn is_helpless(&self) -> bool {
        let dead = |task: &TaskPhase| match task {
            TaskPhase::Blocked(block) => {
                block.class == Class::Dependency
                    || block.reason.starts_with("passes through no stage")
            }
            TaskPhase::Waiting
            | TaskPhase::Ready { .. }
            | TaskPhase::Working { .. }
            | TaskPhase::Landing { .. }
            | TaskPhase::Completed { .. }
            | TaskPhase::Cancelled { .. } => true,
        };
        let tasks = &self.machine.state.tasks;
        self.waiting_for_approval().is_empty() && tasks.values().all(|task| dead(&task.phase))
    }

    fn all_is_explained(&self) {
        let state = &self.machine.state;
        state.check();
        assert!(state.landing.is_none() && state.attempts.is_empty());
        let is_met = |dep: &TaskId| state.tasks.get(dep).is_some_and(|dep| dep.is_met());
        for task in state.tasks.values().filter(|task| task.spec.kind == TaskKind::Task) {
            let waits = !task.spec.depends_on.iter().all(is_met);
            let is_explained = match &task.phase {
                TaskPhase::Completed { .. } | TaskPhase::Cancelled { .. } => true,
                TaskPhase::Waiting => waits,
                TaskPhase::Ready { stage } => {
                    let mut agents = state.agents.values();
                    let needs = &task.spec.needs;
                    waits || !agents.any(|agent| can_serve(state, agent, stage, needs))
                }
                TaskPhase::Blocked(block) => waits || block.reason.contains("no stage"),
                TaskPhase::Working { .. } | TaskPhase::Landing { .. } => false,
            };
            assert!(is_explained, "`{}` stands at {:?} for ever: {state:#?}", task.id, task.phase);
        }
        if state.settings.project.isolation == Isolation::Worktree {
            assert_eq!(state.base.tip, state.base.taken, "the base was not taken in");
            let is_behind = state.base.landed != state.base.tip;
            assert!(!is_behind, "the base did not follow: {:?}", state.base);
        }
    }
}

fn random_settings(dice: &mut Dice, old: Option<&Settings>) -> Settings {
    let mut new = settings();
    let from = dice.below(3);
    let to = from + 1 + dice.below(4 - from);
    new.stages = new.stages[from..to].to_vec();
    for stage in &mut new.stages {
        if dice.percent(30) {
            stage.checks = vec!["check".into()];
        }
        if dice.percent(15) {
            stage.labels = vec!["pilot".into()];
        }
    }
    new.agents.clear();
    for stage in new.stages.clone() {
        new.agents.push(group(&stage.name, &[&stage.name], 1 + dice.below(2) as u32));
    }
    let all: Vec<String> = new.stages.iter().map(|stage| stage.name.clone()).collect();
    let mut wide = group("wide", &[], 1 + dice.below(2) as u32);
    wide.stages = all;
    wide.capabilities = vec!["gpu".into()];
    if dice.percent(50) {
        wide.capabilities.push("arm".into());
    }
    if dice.percent(60) {
        new.agents.push(wide);
    }
    if dice.percent(40) {
        new.landing.checks = vec!["check".into()];
    }
    new.monitor.launch_rate = dice.pick(&[None, Some(0), Some(1), Some(3)]).unwrap();
    let limits = &mut new.limits;
    limits.attempts_per_stage = 1 + dice.below(3) as u32;
    limits.infrastructure_retries = dice.below(4) as u32;
    limits.attempts_per_task = 3 + dice.below(6) as u32;
    limits.send_backs = dice.below(3) as u32;
    limits.attempts_per_run = if dice.percent(20) { 20 } else { 0 };
    let slices = [
        Slice::Percent(50),
        Slice::Labels(vec!["pilot".into()]),
        Slice::Tasks(vec!["T1".into(), "T3".into()]),
    ];
    new.rollout.pilot = dice.pick(&slices).unwrap();
    let project = &mut new.project;
    if dice.percent(30) {
        project.orchestration = Orchestration::Sequential;
    }
    let all = [Rollout::Shadow, Rollout::Pilot, Rollout::Production, Rollout::Production];
    project.rollout = dice.pick(&all).unwrap();
    if dice.percent(20) {
        project.isolation = Isolation::None;
    }
    if let Some(old) = old {
        project.isolation = old.project.isolation;
        // Lower limits would find tasks beyond them already.
        new.limits = old.limits.clone();
    }
    new
}
