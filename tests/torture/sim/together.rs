//! What may run beside what, judged apart from the scheduler: paths, shared resources, tasks that
//! must be alone.

use std::collections::{BTreeMap, BTreeSet};

use pipeline::machine::State;
use pipeline::machine::agent::Agent;
use pipeline::machine::amount;
use pipeline::machine::attempt::Attempt;
use pipeline::machine::gate;
use pipeline::machine::id::{StageName, TaskId};
use pipeline::machine::mode::{Isolation, Orchestration};
use pipeline::machine::overlap::any_overlap;
use pipeline::machine::provider::Pause;
use pipeline::machine::task::{Task, TaskPhase};

use super::able::{comers, may_take};

fn is_changing(state: &State, stage: &StageName) -> bool {
    let is_bare = state.settings.project.isolation == Isolation::None;
    is_bare || state.settings.stage(stage.as_str()).is_none_or(|(_, stage)| stage.must_change)
}

/// What a task asks for, or what a running one took when it began.
struct Asked {
    id: TaskId,
    paths: Vec<String>,
    amounts: BTreeMap<String, u64>,
    is_alone: bool,
    /// It is to change something.
    is_changing: bool,
}

/// Returns what a task asks for as things are: the paths it names, else what its branch changed.
fn asked(state: &State, task: &Task, stage: &StageName) -> Asked {
    let config = state.settings.stage(stage.as_str());
    let mut amounts = config.map(|(_, config)| config.resources.clone()).unwrap_or_default();
    for (name, text) in &task.spec.resources {
        let own = amount::parse(name, text).expect("it was looked at when it was given");
        let most = amounts.entry(name.clone()).or_default();
        *most = own.max(*most);
    }
    let is_unknown = task.spec.touches.is_empty();
    let paths = if is_unknown { &task.changed } else { &task.spec.touches };
    let is_changing = is_changing(state, stage);
    let is_hybrid = state.orchestration == Orchestration::Hybrid;
    Asked {
        id: task.id.clone(),
        paths: if is_changing { paths.clone() } else { Vec::new() },
        amounts,
        is_alone: task.spec.is_exclusive || (is_hybrid && is_changing && is_unknown),
        is_changing,
    }
}

/// Returns what those that run took.
fn running(state: &State) -> Vec<Asked> {
    let is_hybrid = state.orchestration == Orchestration::Hybrid;
    let works = state.attempts.values().filter(|attempt| attempt.is_work());
    works
        .filter_map(|attempt| {
            let (demand, stage) = (&attempt.demand, attempt.stage()?);
            let is_unknown = demand.touches.is_empty() || demand.is_so_far;
            Some(Asked {
                id: attempt.task.clone()?,
                paths: demand.touches.clone(),
                amounts: demand.resources.clone(),
                is_alone: demand.is_exclusive
                    || (is_hybrid && is_unknown && is_changing(state, stage)),
                is_changing: is_changing(state, stage),
            })
        })
        .collect()
}

fn clash(one: &Asked, other: &Asked) -> bool {
    one.is_alone || other.is_alone || any_overlap(&one.paths, &other.paths)
}

/// Returns why the task cannot run beside what runs; `None`: it can.
fn obstacle(state: &State, task: &Asked) -> Option<String> {
    let mut running = running(state);
    running.retain(|other| other.id != task.id);
    if let Some(other) = running.iter().find(|other| clash(task, other)) {
        return Some(format!("`{}` runs", other.id));
    }
    let is_fresh = state.tasks[&task.id].changed.is_empty();
    if is_fresh && state.orchestration != Orchestration::Sequential {
        let mut others = state.tasks.values().filter(|other| other.id != task.id);
        if let Some(other) = others.find(|other| is_to_land(state, other, &task.paths)) {
            return Some(format!("`{}` is to land", other.id));
        }
        let mut others = state.tasks.values().filter(|other| other.id != task.id);
        if let Some(other) = others.find(|other| must_land_first(state, other, task)) {
            return Some(format!("one of both is alone, and `{}` is to land", other.id));
        }
    }
    task.amounts.iter().filter(|(_, wanted)| **wanted > 0).find_map(|(name, wanted)| {
        let taken: u64 = running.iter().filter_map(|other| other.amounts.get(name)).sum();
        let all = state.settings.scheduler.resources.get(name).copied().unwrap_or(0);
        (taken + wanted > all).then(|| format!("{taken} of {all} `{name}` are taken"))
    })
}

/// Returns true when `other` is in the lane and one of the two must be alone: the one that begins now
/// would not see what the other has changed. Who names its paths need not be told twice.
fn must_land_first(state: &State, other: &Task, task: &Asked) -> bool {
    let is_in_lane = matches!(other.phase, TaskPhase::Landing { .. });
    let is_apart = task.is_alone || (other.spec.is_exclusive && task.paths.is_empty());
    is_in_lane && task.is_changing && is_apart && is_going_on(state, other)
}

/// Returns true when a task has changed one of the paths, and nobody need do anything for it to land.
fn is_to_land(state: &State, task: &Task, paths: &[String]) -> bool {
    let changes = |globs: &[String]| any_overlap(globs, paths);
    is_going_on(state, task)
        && !task.changed.is_empty()
        && (changes(&task.changed) || changes(&task.spec.touches))
}

/// Returns true when nobody need do anything for the task to land.
fn is_going_on(state: &State, task: &Task) -> bool {
    let is_possible = match &task.phase {
        TaskPhase::Ready { stage } => {
            // A limit that is reached ends by itself.
            let is_served = has_agent(state, task, stage, |pause| pause.is_refused);
            let can_run = !is_beyond(state, task, stage) && is_served;
            state.index.is_unblocked(&task.id) && can_run
        }
        TaskPhase::Landing { .. } => {
            let base = &state.base;
            let is_red =
                base.red.is_some() && base.red.as_ref().map(|(at, _)| at) == base.landed.as_ref();
            let is_shut = base.conflict.is_some() || (is_red && !state.monitor.allows_red_base);
            task.approval.is_none() && !is_shut && state.index.is_unblocked(&task.id)
        }
        TaskPhase::Working { .. } => return true,
        _ => false,
    };
    is_possible && !task.is_held && gate::may_act(state, &task.id)
}

/// Returns true when somebody serves the task, or may come and is not kept from by such a pause.
fn has_agent(state: &State, task: &Task, stage: &StageName, is_kept: fn(&Pause) -> bool) -> bool {
    // One whose program is missing, or whose key is refused, needs a person, as one that is paused does.
    let is_refused = |agent: &Agent| {
        let name = state.provider_of(&state.settings.agents[agent.group]);
        state.pauses.get(name).is_some_and(|pause| pause.is_refused)
    };
    let is_usable = |agent: &Agent| agent.unusable.is_none() && !is_refused(agent);
    let serves = |agent: &&Agent| !agent.is_paused && !agent.is_retired && is_usable(agent);
    let mut there = state.agents.values().filter(serves);
    let takes = |agent: &Agent| may_take(state, agent, task, stage);
    there.any(takes) || comers(state, is_kept).iter().any(takes)
}

/// Asserts that an attempt may start beside what runs, and says what it takes.
pub fn may_run(state: &State, new: &Attempt, id: &TaskId, stage: &StageName) {
    let asked = asked(state, &state.tasks[id], stage);
    let found = obstacle(state, &asked);
    assert_eq!(found, None, "`{id}` starts in {stage}");
    assert_eq!(new.demand.resources, asked.amounts, "`{id}` in {stage}");
    assert_eq!(new.demand.touches, asked.paths, "`{id}` in {stage}");
}

/// Returns true when there is never enough for the task.
pub fn is_beyond(state: &State, task: &Task, stage: &StageName) -> bool {
    let all = &state.settings.scheduler.resources;
    let wanted = asked(state, task, stage).amounts;
    wanted.into_iter().any(|(name, wanted)| wanted > all.get(&name).copied().unwrap_or(0))
}

/// Returns the ready tasks that something keeps from starting: what runs, or what waits itself and
/// may come first. Who collects keeps what it has until an agent is free for it.
pub fn kept(state: &State) -> BTreeSet<TaskId> {
    let mut kept = BTreeSet::new();
    let mut waiting: Vec<Asked> = Vec::new();
    let mut open: Vec<(Asked, bool)> = Vec::new();
    for task in state.tasks.values() {
        let TaskPhase::Ready { stage } = &task.phase else { continue };
        let may_come = !task.is_held
            && task.backoff_until.is_none()
            && gate::may_act(state, &task.id)
            && has_agent(state, task, stage, Pause::is_on)
            && !is_beyond(state, task, stage);
        let asked = asked(state, task, stage);
        let is_collecting = state.collecting.as_ref() == Some(&task.id);
        if obstacle(state, &asked).is_none() && !is_collecting {
            open.push((asked, may_come));
        } else {
            kept.insert(task.id.clone());
            waiting.extend(Some(asked).filter(|_| may_come));
        }
    }
    while let Some(first) = waiting.pop() {
        let shares =
            |task: &Asked| task.amounts.keys().any(|name| first.amounts.contains_key(name));
        let (behind, rest) =
            open.into_iter().partition(|(task, _)| shares(task) || clash(task, &first));
        open = rest;
        let behind: Vec<(Asked, bool)> = behind;
        for (task, may_come) in behind {
            kept.insert(task.id.clone());
            waiting.extend(Some(task).filter(|_| may_come));
        }
    }
    kept
}
