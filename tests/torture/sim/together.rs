//! What may run beside what, judged apart from the scheduler: paths, shared resources, tasks that
//! must be alone.

use std::collections::BTreeMap;

use pipeline::machine::State;
use pipeline::machine::amount;
use pipeline::machine::gate;
use pipeline::machine::id::{StageName, TaskId};
use pipeline::machine::mode::{Isolation, Orchestration};
use pipeline::machine::overlap::any_overlap;
use pipeline::machine::task::{Task, TaskPhase};

use super::able::may_take;

fn is_changing(state: &State, stage: &StageName) -> bool {
    let is_bare = state.settings.project.isolation == Isolation::None;
    is_bare || state.settings.stage(stage.as_str()).is_none_or(|(_, stage)| stage.must_change)
}

fn is_alone(state: &State, task: &Task, stage: &StageName) -> bool {
    let is_unknown = task.spec.touches.is_empty() && is_changing(state, stage);
    task.spec.is_exclusive || (state.orchestration == Orchestration::Hybrid && is_unknown)
}

fn amounts(state: &State, task: &Task, stage: &StageName) -> BTreeMap<String, u64> {
    let config = state.settings.stage(stage.as_str());
    let mut all = config.map(|(_, config)| config.resources.clone()).unwrap_or_default();
    for (name, text) in &task.spec.resources {
        let own = amount::parse(name, text).expect("it was looked at when it was given");
        let most = all.entry(name.clone()).or_default();
        *most = own.max(*most);
    }
    all
}

/// Returns the paths a task is judged by: those it names, else what its branch changed so far.
fn paths(task: &Task) -> &[String] {
    if task.spec.touches.is_empty() { &task.changed } else { &task.spec.touches }
}

type Placed<'a> = (&'a Task, &'a StageName);

fn clash(state: &State, one: Placed<'_>, other: Placed<'_>) -> bool {
    is_alone(state, one.0, one.1)
        || is_alone(state, other.0, other.1)
        || (is_changing(state, one.1)
            && is_changing(state, other.1)
            && any_overlap(paths(one.0), paths(other.0)))
}

fn running(state: &State) -> Vec<Placed<'_>> {
    let works = state.attempts.values().filter(|attempt| attempt.is_work());
    works.filter_map(|a| Some((state.tasks.get(a.task.as_ref()?)?, a.stage()?))).collect()
}

/// Returns why the task cannot run beside what runs; `None`: it can.
fn obstacle(state: &State, task: Placed<'_>) -> Option<String> {
    let running: Vec<Placed<'_>> =
        running(state).into_iter().filter(|other| other.0.id != task.0.id).collect();
    if let Some(other) = running.iter().find(|other| clash(state, task, **other)) {
        return Some(format!("`{}` runs", other.0.id));
    }
    amounts(state, task.0, task.1).into_iter().filter(|(_, wanted)| *wanted > 0).find_map(
        |(name, wanted)| {
            let taken = running
                .iter()
                .filter_map(|(task, stage)| amounts(state, task, stage).get(&name).copied());
            let taken: u64 = taken.sum();
            let all = state.settings.scheduler.resources.get(&name).copied().unwrap_or(0);
            (taken + wanted > all).then(|| format!("{taken} of {all} `{name}` are taken"))
        },
    )
}

fn has_agent(state: &State, task: &Task, stage: &StageName) -> bool {
    let mut there = state.agents.values().filter(|agent| !agent.is_paused && !agent.is_retired);
    there.any(|agent| may_take(state, agent, task, stage))
}

/// Asserts that a task may start beside what runs.
pub fn may_run(state: &State, id: &TaskId, stage: &StageName) {
    let found = obstacle(state, (&state.tasks[id], stage));
    assert_eq!(found, None, "`{id}` starts in {stage}");
}

/// Returns true when there is never enough for the task.
pub fn is_beyond(state: &State, task: &Task, stage: &StageName) -> bool {
    let all = &state.settings.scheduler.resources;
    let wanted = amounts(state, task, stage);
    wanted.into_iter().any(|(name, wanted)| wanted > all.get(&name).copied().unwrap_or(0))
}

/// Returns true when something keeps the task from starting: what runs, or what waits for that and
/// comes first.
pub fn is_kept(state: &State, task: &Task, stage: &StageName) -> bool {
    if obstacle(state, (task, stage)).is_some() {
        return true;
    }
    let own = amounts(state, task, stage);
    state.tasks.values().filter(|other| other.id != task.id).any(|other| {
        let TaskPhase::Ready { stage: at } = &other.phase else { return false };
        let is_waiting = !other.is_held
            && other.backoff_until.is_none()
            && gate::may_act(state, &other.id)
            && has_agent(state, other, at)
            && !is_beyond(state, other, at)
            && obstacle(state, (other, at)).is_some();
        let shares = amounts(state, other, at).keys().any(|name| own.contains_key(name));
        is_waiting && (shares || clash(state, (task, stage), (other, at)))
    })
}
