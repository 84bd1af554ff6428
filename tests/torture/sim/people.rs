//! Commands as people and scripts give them, and settings as they change: drawn at random.

use pipeline::machine::event::{Dependents, Edit, RetryTarget, StopKind};
use pipeline::machine::id::{AgentName, TaskId};
use pipeline::machine::mode::{Isolation, Orchestration, Rollout};
use pipeline::machine::settings::{Settings, Slice};
use pipeline::machine::task::{Priority, TaskKind};
use pipeline::machine::{Command, State};

use super::dice::Dice;
use crate::fixture::{group, id, new_task, settings};

const TASKS_MAX: usize = 8;

/// Draws a command against the state as it is.
pub fn command(state: &State, dice: &mut Dice) -> Command {
    match dice.below(30) {
        0..=6 => add_tasks(state, dice),
        7..=10 => edit(state, dice),
        11 => Command::HoldTasks { ids: some_tasks(state, dice) },
        12 | 13 => Command::ReleaseTasks { ids: some_tasks(state, dice) },
        14..=16 => retry(state, dice),
        17 | 29 => {
            let kinds = [Dependents::Refuse, Dependents::Cancel, Dependents::Release];
            let dependents = dice.pick(&kinds).unwrap_or(Dependents::Refuse);
            Command::CancelTasks { ids: some_tasks(state, dice), dependents }
        }
        18 | 19 => Command::ApproveTasks { ids: waiting_for_approval(state) },
        20 if dice.percent(30) => Command::Pause,
        20 | 21 | 28 => Command::Resume,
        22 => {
            let agents: Vec<AgentName> = state.agents.keys().cloned().collect();
            let name = dice.pick(&agents).unwrap_or_else(|| AgentName::new("nobody"));
            if dice.percent(20) {
                Command::PauseAgent { name }
            } else {
                Command::ResumeAgent { name }
            }
        }
        23 | 24 => {
            let all = [Orchestration::Sequential, Orchestration::Parallel];
            let to = dice.pick(&all).unwrap_or(Orchestration::Parallel);
            let wait_ms = dice.percent(60).then(|| dice.next() % 20_000);
            Command::SwitchMode { to, wait_ms, is_forced: dice.percent(30) }
        }
        25 => {
            let wide = Rollout::Production;
            let all = [wide, Rollout::Shadow, Rollout::Pilot, wide, wide];
            let to = dice.pick(&all).unwrap_or(wide);
            Command::SetRollout { to, is_forced: false }
        }
        26 | 27 if dice.percent(60) => {
            let kinds = [StopKind::Leave, StopKind::Drain, StopKind::Now, StopKind::Now];
            Command::Stop { kind: dice.pick(&kinds).unwrap_or(StopKind::Leave) }
        }
        _ => {
            let text = some_tasks(state, dice).first().map_or("x", TaskId::as_str).to_owned();
            Command::PickTask { text }
        }
    }
}

/// Draws one or two tasks.
fn some_tasks(state: &State, dice: &mut Dice) -> Vec<TaskId> {
    let all: Vec<TaskId> = state.tasks.keys().cloned().collect();
    let count = 1 + dice.below(2);
    (0..count).filter_map(|_| dice.pick(&all)).collect()
}

/// Returns the tasks whose landing waits for a person.
pub fn waiting_for_approval(state: &State) -> Vec<TaskId> {
    let tasks = state.tasks.values();
    tasks.filter(|task| task.approval.is_some()).map(|task| task.id.clone()).collect()
}

fn add_tasks(state: &State, dice: &mut Dice) -> Command {
    let mut tasks = Vec::new();
    let count = state.tasks.len();
    for n in 0..(1 + dice.below(3)) {
        if count + n >= TASKS_MAX {
            break;
        }
        let name = format!("T{}", count + n);
        let deps: Vec<String> = (0..dice.below(3))
            .map(|_| format!("T{}", dice.below(count + n + 2)))
            .filter(|dep| *dep != name)
            .collect();
        let deps: Vec<&str> = deps.iter().map(String::as_str).collect();
        let mut new = new_task(&name, &deps);
        new.may_lack_dependencies = dice.percent(50);
        new.is_front = dice.percent(10);
        new.is_held = dice.percent(10);
        new.spec.priority = priority(dice);
        if dice.percent(8) {
            new.spec.kind = TaskKind::Epic;
            new.spec.depends_on.clear();
        }
        let epics = state.tasks.values().filter(|task| task.spec.kind == TaskKind::Epic);
        let epics: Vec<TaskId> = epics.map(|task| task.id.clone()).collect();
        new.spec.parent = if dice.percent(30) { dice.pick(&epics) } else { None };
        new.spec.labels = labels(dice);
        new.spec.needs = needs(dice);
        tasks.push(new);
    }
    Command::AddTasks { tasks }
}

fn priority(dice: &mut Dice) -> Priority {
    let all = [Priority::Medium, Priority::Low, Priority::High, Priority::Critical];
    dice.pick(&all).unwrap_or(Priority::Medium)
}

fn labels(dice: &mut Dice) -> Vec<String> {
    if dice.percent(40) { vec!["pilot".into()] } else { Vec::new() }
}

fn needs(dice: &mut Dice) -> Vec<String> {
    match dice.below(10) {
        1 | 2 => vec!["gpu".into()],
        3 => vec!["gpu".into(), "arm".into()],
        4 => vec!["gpu,arm".into()],
        _ => Vec::new(),
    }
}

fn edit(state: &State, dice: &mut Dice) -> Command {
    let id = some_tasks(state, dice).first().cloned().unwrap_or_else(|| id("nobody"));
    let mut edit = Edit::default();
    match dice.below(8) {
        0 | 1 => edit.add_depends_on = some_tasks(state, dice),
        2 => edit.remove_depends_on = some_tasks(state, dice),
        3 => edit.depends_on = Some(Vec::new()),
        4 => edit.priority = Some(priority(dice)),
        5 => edit.labels = Some(labels(dice)),
        6 => edit.needs = Some(needs(dice)),
        _ => edit.is_front = Some(dice.percent(50)),
    }
    Command::EditTask { id, edit: Box::new(edit) }
}

fn retry(state: &State, dice: &mut Dice) -> Command {
    let stages = state.settings.stages.clone();
    let is_all = dice.percent(40);
    let target =
        if is_all { RetryTarget::Blocked } else { RetryTarget::Tasks(some_tasks(state, dice)) };
    let wants_stage = dice.percent(30);
    Command::RetryTasks {
        target,
        stage: dice.pick(&stages).filter(|_| wants_stage).map(|stage| stage.id()),
        note: dice.percent(20).then(|| "try harder".into()),
        is_fresh: dice.percent(20),
    }
}

/// Draws settings; those that follow `old` keep what may not change in a run.
pub fn some_settings(dice: &mut Dice, old: Option<&Settings>) -> Settings {
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
    new.monitor.launch_rate = dice.pick(&[None, Some(0), Some(1), Some(3)]).flatten();
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
    new.rollout.pilot = dice.pick(&slices).unwrap_or(Slice::Percent(50));
    let project = &mut new.project;
    if dice.percent(30) {
        project.orchestration = Orchestration::Sequential;
    }
    let all = [Rollout::Production, Rollout::Shadow, Rollout::Pilot, Rollout::Production];
    project.rollout = dice.pick(&all).unwrap_or(Rollout::Production);
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
