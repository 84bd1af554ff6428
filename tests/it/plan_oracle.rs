//! Plans of drawn backlogs, judged by code that shares nothing with the scheduler but what a glob
//! means, and measured against the best of all schedules.

use std::collections::{BTreeMap, BTreeSet};

use pipeline::machine::amount;
use pipeline::machine::event::NewTask;
use pipeline::machine::mode::{Isolation, Orchestration};
use pipeline::machine::overlap::any_overlap;
use pipeline::machine::plan::{ATTEMPTS_MAX, Entry, Plan, Workers, plan};
use pipeline::machine::settings::{AgentGroup, Policy, Settings, Stage};
use pipeline::machine::task::{Priority, Spec};
use pipeline::machine::{Command, State};

use crate::machine_support::{Machine, group, id, new_task, settings, stage};

/// Backlogs drawn for the judge, and for the comparison with the best schedule.
const JUDGED: u64 = 2_000;
const SOLVED: u64 = 1_000;

const POLICIES: [Policy; 4] =
    [Policy::CriticalPath, Policy::Priority, Policy::Fifo, Policy::Shortest];
/// There is so much of it.
const CPU: &str = "4";

/// A small generator of its own, so that a failure is had again.
struct Dice(u64);

impl Dice {
    /// Begins at a seed; near ones lead apart at once.
    fn new(seed: u64) -> Self {
        let mut dice = Self(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15));
        dice.below(2);
        dice
    }

    /// Below `end`; from the high bits of a linear congruential generator.
    fn below(&mut self, end: usize) -> usize {
        self.0 =
            self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        ((self.0 >> 33) % end as u64) as usize
    }

    fn one_in(&mut self, count: usize) -> bool {
        self.below(count) == 0
    }

    fn pick<T: Clone>(&mut self, from: &[T]) -> T {
        from[self.below(from.len())].clone()
    }
}

fn drawn_stages(dice: &mut Dice) -> Vec<Stage> {
    let mut stages = vec![stage("test", "test", false), stage("implementation", "impl", true)];
    if dice.one_in(2) {
        let mut security = stage("security", "sec", false);
        security.labels = vec!["risky".into()];
        stages.push(security);
    }
    for stage in &mut stages {
        stage.estimate_ms = 100 * (1 + dice.below(20) as u64);
        if dice.one_in(3) {
            stage.resources.insert("cpu".into(), 1000);
        }
        if dice.one_in(4) {
            stage.checks = vec!["true".into()];
        }
    }
    stages
}

fn drawn_settings(dice: &mut Dice) -> Settings {
    let mut settings = settings();
    settings.stages = drawn_stages(dice);
    let all = ["test", "implementation", "security"];
    settings.agents = vec![group("all", &all, 1 + dice.below(2) as u32)];
    if dice.one_in(2) {
        settings.agents = vec![group("plain", &all[..2], 1 + dice.below(3) as u32)];
        if dice.one_in(2) {
            settings.agents.push(group("one", &[dice.pick(&all)], 1));
        }
    }
    for group in &mut settings.agents {
        if dice.one_in(2) {
            group.capabilities = vec!["gpu".into()];
        }
    }
    settings.project.isolation = dice.pick(&[Isolation::None, Isolation::Worktree]);
    let modes = [Orchestration::Parallel, Orchestration::Hybrid, Orchestration::Sequential];
    settings.project.orchestration = modes[dice.below(8).saturating_sub(5)];
    settings.scheduler.policy = dice.pick(&POLICIES);
    let cpu = amount::parse("cpu", CPU).unwrap();
    settings.scheduler.resources = BTreeMap::from([("cpu".into(), cpu)]);
    settings
}

fn drawn_task(dice: &mut Dice, number: usize) -> NewTask {
    let mut task = new_task(&format!("T{number}"), &[]);
    let globs: [&[&str]; 6] = [&[], &[], &["a/*"], &["a/x", "c"], &["b/**"], &["**/x"]];
    let spec = &mut task.spec;
    let deps = (0..number).filter(|_| dice.one_in(4));
    spec.depends_on = deps.map(|dep| id(&format!("T{dep}"))).collect();
    spec.touches = globs[dice.below(6)].iter().map(|glob| (*glob).to_owned()).collect();
    spec.priority = dice.pick(&[Priority::Low, Priority::Medium, Priority::High]);
    spec.estimate_ms = dice.one_in(2).then(|| 1_000 + dice.below(4_000) as u64);
    spec.is_exclusive = dice.one_in(12);
    if dice.one_in(3) {
        let most = if dice.one_in(12) { "5" } else { "3" };
        spec.resources.insert("cpu".into(), dice.pick(&["0.5", "1", "2", most]).into());
    }
    if dice.one_in(8) {
        spec.needs = vec![dice.pick(&["gpu", "plain", "all", "all-1"]).into()];
    }
    if dice.one_in(3) {
        spec.labels = vec!["risky".into()];
    }
    if dice.one_in(8) {
        spec.stages = vec![pipeline::machine::id::StageName::new("implementation")];
    }
    task.is_front = dice.one_in(10);
    task.is_held = dice.one_in(16);
    task
}

fn with(settings: Settings, tasks: Vec<NewTask>) -> Machine {
    let mut machine = Machine::new(settings);
    machine.must(Command::AddTasks { tasks });
    machine
}

/// Judges one plan.
struct Judge<'a> {
    state: &'a State,
    plan: &'a Plan,
    seed: u64,
}

impl<'a> Judge<'a> {
    fn settings(&self) -> &'a Settings {
        &self.state.settings
    }

    fn spec(&self, entry: &Entry) -> &'a Spec {
        &self.state.tasks[&entry.task].spec
    }

    fn stage(&self, entry: &Entry) -> &'a Stage {
        let mut stages = self.settings().stages.iter();
        stages.find(|stage| stage.name == entry.stage.as_str()).expect("a stage of the settings")
    }

    /// The stages that the task has to pass, from what its spec says.
    fn stages_of(&self, spec: &Spec) -> Vec<&'a str> {
        let passes = |stage: &&Stage| {
            let is_chosen =
                spec.stages.is_empty() || spec.stages.iter().any(|s| s.as_str() == stage.name);
            let is_labelled = stage.labels.is_empty()
                || stage.labels.iter().any(|label| spec.labels.contains(label));
            is_chosen && is_labelled
        };
        self.settings().stages.iter().filter(passes).map(|stage| stage.name.as_str()).collect()
    }

    /// Groups by the names of their agents.
    fn group_of(&self, agent: &str) -> &'a AgentGroup {
        let mut groups = self.settings().agents.iter();
        let is_of = |group: &&AgentGroup| {
            (group.count == 1 && group.name == agent)
                || (1..=group.count)
                    .any(|n| group.count > 1 && format!("{}-{n}", group.name) == agent)
        };
        groups.find(is_of).unwrap_or_else(|| panic!("seed {}: who is {agent}?", self.seed))
    }

    fn can(&self, spec: &Spec, stage: &str, agent: &str) -> bool {
        let group = self.group_of(agent);
        let has = |need: &String| {
            group.capabilities.contains(need) || group.name == *need || agent == need
        };
        group.stages.iter().any(|name| name == stage) && spec.needs.iter().all(has)
    }

    fn cpu(&self, entry: &Entry) -> u64 {
        let own = self.spec(entry).resources.get("cpu");
        let own = own.and_then(|text| amount::parse("cpu", text)).unwrap_or(0);
        own.max(self.stage(entry).resources.get("cpu").copied().unwrap_or(0))
    }

    fn is_changing(&self, entry: &Entry) -> bool {
        self.stage(entry).must_change || self.settings().project.isolation == Isolation::None
    }

    fn is_alone(&self, entry: &Entry) -> bool {
        let spec = self.spec(entry);
        let is_unknown = spec.touches.is_empty() && self.is_changing(entry);
        let is_hybrid = self.settings().project.orchestration == Orchestration::Hybrid;
        spec.is_exclusive || (is_hybrid && is_unknown)
    }

    fn entries(&self, task: &str) -> Vec<&'a Entry> {
        self.plan.schedule.iter().filter(|entry| entry.task.as_str() == task).collect()
    }

    fn judge(&self) {
        for task in self.state.tasks.values() {
            self.judge_task(task.id.as_str(), &task.spec);
        }
        for (place, entry) in self.plan.schedule.iter().enumerate() {
            let others = self.plan.schedule[..place].iter();
            let beside = others.filter(|other| other.end_ms > entry.start_ms);
            self.judge_beside(entry, &beside.collect::<Vec<_>>());
        }
        self.judge_figures();
    }

    /// Its stages in order, by who can, after what it depends on; or left out for a reason.
    fn judge_task(&self, name: &str, spec: &Spec) {
        let (entries, seed) = (self.entries(name), self.seed);
        let stages = self.stages_of(spec);
        let passed: Vec<&str> = entries.iter().map(|entry| entry.stage.as_str()).collect();
        assert!(stages.starts_with(&passed), "seed {seed}: {name} passes {passed:?}");
        let is_left_out = self.plan.left_out.iter().any(|id| id.as_str() == name);
        assert_eq!(is_left_out, passed.len() < stages.len() || stages.is_empty(), "seed {seed}");
        assert!(!is_left_out || self.has_reason(name, spec), "seed {seed}: {name} is left out");
        for pair in entries.windows(2) {
            assert!(pair[0].end_ms <= pair[1].start_ms, "seed {seed}: {name} in two stages");
        }
        for entry in &entries {
            let is_able = self.can(spec, entry.stage.as_str(), entry.agent.as_str());
            assert!(is_able, "seed {seed}: {} cannot take {name}", entry.agent);
            assert!(entry.end_ms > entry.start_ms, "seed {seed}: {name} takes no time");
        }
        for dep in &spec.depends_on {
            let before = self.entries(dep.as_str());
            let whole = self.stages_of(&self.state.tasks[dep].spec).len();
            let (Some(first), last) = (entries.first(), before.last()) else { continue };
            let end = last.filter(|_| before.len() == whole).map(|last| last.end_ms);
            let is_after = end.is_some_and(|end| end <= first.start_ms);
            assert!(is_after, "seed {seed}: {name} begins before {dep} is done");
        }
    }

    /// Held, not servable, more than there is, or behind one of these.
    fn has_reason(&self, name: &str, spec: &Spec) -> bool {
        let task = &self.state.tasks[&id(name)];
        let agents: Vec<&str> = self.state.agents.keys().map(|name| name.as_str()).collect();
        let is_lacking = |stage: &&str| {
            let has_agent = agents.iter().any(|agent| self.can(spec, stage, agent));
            let own = spec.resources.get("cpu").and_then(|text| amount::parse("cpu", text));
            !has_agent || own > amount::parse("cpu", CPU)
        };
        let is_behind = |dep: &_| self.plan.left_out.contains(dep);
        task.is_held
            || spec.depends_on.iter().any(is_behind)
            || self.stages_of(spec).iter().any(is_lacking)
    }

    fn judge_beside(&self, entry: &Entry, beside: &[&Entry]) {
        let seed = self.seed;
        let is_sequential = self.settings().project.orchestration == Orchestration::Sequential;
        assert!(!is_sequential || beside.is_empty(), "seed {seed}: two at once in sequential mode");
        let cpu: u64 = beside.iter().map(|other| self.cpu(other)).sum();
        let all = amount::parse("cpu", CPU).unwrap();
        assert!(cpu + self.cpu(entry) <= all, "seed {seed}: too much cpu at {}", entry.start_ms);
        for other in beside {
            let pair = format!("seed {seed}: {} and {} at once", other.task, entry.task);
            assert_ne!(other.agent, entry.agent, "{pair}");
            assert!(!self.is_alone(other) && !self.is_alone(entry), "{pair}");
            let globs = [&self.spec(other).touches, &self.spec(entry).touches];
            let is_clash = self.is_changing(other)
                && self.is_changing(entry)
                && any_overlap(globs[0], globs[1]);
            assert!(!is_clash, "{pair}: same paths");
        }
    }

    fn judge_figures(&self) {
        let (plan, seed) = (self.plan, self.seed);
        let ends = plan.schedule.iter().map(|entry| entry.end_ms);
        assert_eq!(plan.makespan_ms, ends.max().unwrap_or(0), "seed {seed}");
        assert!(plan.lower_bound_ms <= plan.makespan_ms, "seed {seed}");
        let planned: BTreeSet<&str> = plan.schedule.iter().map(|e| e.task.as_str()).collect();
        let mut wave_of = BTreeMap::new();
        for (wave, ids) in plan.waves.iter().enumerate() {
            assert!(!ids.is_empty(), "seed {seed}");
            ids.iter().for_each(|id| assert_eq!(wave_of.insert(id.as_str(), wave), None));
        }
        assert_eq!(wave_of.keys().copied().collect::<BTreeSet<_>>(), planned, "seed {seed}");
        for id in planned {
            let deps = &self.state.tasks[&crate::machine_support::id(id)].spec.depends_on;
            let before = deps.iter().filter_map(|dep| wave_of.get(dep.as_str()));
            let wave = before.max().map_or(0, |wave| wave + 1);
            assert_eq!(wave_of[id], wave, "seed {seed}: {id}");
        }
        let path = &plan.critical_path;
        for pair in path.windows(2) {
            assert!(self.state.tasks[&pair[1]].spec.depends_on.contains(&pair[0]), "seed {seed}");
        }
        let on_path = plan.schedule.iter().filter(|entry| path.contains(&entry.task));
        let least: u64 = on_path.map(|entry| entry.least_ms).sum();
        assert_eq!(least, plan.critical_ms, "seed {seed}");
        let work: u64 = plan.schedule.iter().map(|entry| entry.end_ms - entry.start_ms).sum();
        assert_eq!(plan.busy_ms.values().sum::<u64>(), work, "seed {seed}");
    }
}

#[test]
fn thousands_of_drawn_backlogs_are_planned_as_they_may_be_worked_off() {
    let (mut planned, mut left_out) = (0, 0);
    for seed in 0..JUDGED {
        let mut dice = Dice::new(seed);
        let settings = drawn_settings(&mut dice);
        let count = 1 + dice.below(7);
        let tasks = (0..count).map(|number| drawn_task(&mut dice, number)).collect();
        let machine = with(settings, tasks);
        let plan = plan(&machine.state, machine.now, Workers::Agents, ATTEMPTS_MAX);
        Judge { state: &machine.state, plan: &plan, seed }.judge();
        plan.end.check();
        planned += plan.schedule.len();
        left_out += plan.left_out.len();
    }
    assert!(planned as u64 > 5 * JUDGED && left_out as u64 > JUDGED / 10, "{planned} {left_out}");
}

/// The least makespan of tasks on `m` machines, by trying every order in which they can be placed,
/// each as early as it goes: one of these schedules is the best (they are the active ones).
struct Best<'a> {
    deps: &'a [Vec<usize>],
    ms: &'a [u64],
    m: usize,
    /// Start and end of those that are placed.
    placed: Vec<Option<(u64, u64)>>,
    best: u64,
}

impl Best<'_> {
    fn search(&mut self, left: usize, makespan: u64) {
        if makespan >= self.best {
            return;
        }
        if left == 0 {
            self.best = makespan;
            return;
        }
        for task in 0..self.ms.len() {
            let ends = self.deps[task].iter().map(|dep| self.placed[*dep].map(|(_, end)| end));
            let Some(ends) = ends.collect::<Option<Vec<u64>>>() else { continue };
            if self.placed[task].is_some() {
                continue;
            }
            let start = self.earliest(ends.into_iter().max().unwrap_or(0), self.ms[task]);
            let end = start + self.ms[task];
            self.placed[task] = Some((start, end));
            self.search(left - 1, makespan.max(end));
            self.placed[task] = None;
        }
    }

    /// The first moment from `ready` on at which a machine is free for so long.
    fn earliest(&self, ready: u64, ms: u64) -> u64 {
        let placed: Vec<(u64, u64)> = self.placed.iter().flatten().copied().collect();
        let at_once = |at: u64| placed.iter().filter(|(from, to)| *from <= at && at < *to).count();
        let fits = |start: &u64| {
            let inside = placed.iter().map(|(from, _)| *from);
            let mut moments = inside.filter(|from| (*start..*start + ms).contains(from));
            at_once(*start) < self.m && moments.all(|moment| at_once(moment) < self.m)
        };
        let ends = placed.iter().map(|(_, to)| *to).filter(|to| *to >= ready);
        let mut starts: Vec<u64> = ends.chain([ready]).collect();
        starts.sort_unstable();
        starts.into_iter().find(fits).expect("after the last all machines are free")
    }
}

#[test]
fn no_plan_takes_more_than_twice_the_best_less_one_part_of_m() {
    let mut is_best = 0;
    for seed in 0..SOLVED {
        let mut dice = Dice::new(seed);
        let (n, m) = (1 + dice.below(6), 1 + dice.below(3));
        let ms: Vec<u64> = (0..n).map(|_| 1 + dice.below(12) as u64).collect();
        let deps: Vec<Vec<usize>> =
            (0..n).map(|task| (0..task).filter(|_| dice.one_in(3)).collect()).collect();
        let mut settings = settings();
        settings.project.isolation = Isolation::None;
        settings.stages = vec![stage("implementation", "impl", true)];
        settings.agents = vec![group("agent", &["implementation"], m as u32)];
        settings.scheduler.policy = dice.pick(&POLICIES);
        let task = |number: usize| {
            let names: Vec<String> = deps[number].iter().map(|dep| format!("T{dep}")).collect();
            let names: Vec<&str> = names.iter().map(String::as_str).collect();
            let mut task = new_task(&format!("T{number}"), &names);
            task.spec.estimate_ms = Some(ms[number]);
            task
        };
        let machine = with(settings, (0..n).map(task).collect());
        let plan = plan(&machine.state, machine.now, Workers::Agents, ATTEMPTS_MAX);
        let mut best = Best { deps: &deps, ms: &ms, m, placed: vec![None; n], best: u64::MAX };
        best.search(n, 0);
        let (best, m, made) = (best.best, m as u64, plan.makespan_ms);
        assert!(plan.lower_bound_ms <= best && best <= made, "seed {seed}: {best} {made}");
        assert!(made * m <= (2 * m - 1) * best, "seed {seed}: {made}, at best {best}, m {m}");
        is_best += u64::from(made == best);
    }
    assert!(is_best > SOLVED / 2, "{is_best} of {SOLVED} are the best");
}
