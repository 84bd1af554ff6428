//! Commands on the whole: pause, modes, settings, stop.

use crate::machine::breaker::Breaker;
use crate::machine::change::{Change, ProjectChange, TaskChange};
use crate::machine::event::StopKind;
use crate::machine::gate;
use crate::machine::id::{AgentName, TaskId};
use crate::machine::mode::Orchestration;
use crate::machine::settings::Settings;
use crate::machine::stage;
use crate::machine::state::{Drain, State};
use crate::machine::step::{self, Refusal, Step};
use crate::machine::task::{Task, TaskPhase};
use crate::machine::time::Time;

pub(super) fn pause(state: &State, is_paused: bool) -> Step {
    if state.is_paused == is_paused {
        let word = if is_paused { "paused" } else { "not paused" };
        return Step::note(format!("already {word}"));
    }
    Step::accept(vec![step::project(ProjectChange::PauseSet { is_paused })])
}

pub(super) fn pause_agent(
    state: &State,
    at: Time,
    name: &AgentName,
    is_paused: bool,
) -> Result<Step, Refusal> {
    let Some(agent) = state.agents.get(name).or_else(|| state.dismissed.get(name)) else {
        if let Some(served) = serves(state, name.as_str(), at).filter(|_| !is_paused) {
            return Ok(Step::accept(vec![served]));
        }
        return Err(Refusal::invalid(format!("there is no agent `{name}`"))
            .with_hint("see `pipeline agent list`"));
    };
    let set = |breaker: Breaker| {
        let (name, breaker) = (name.clone(), Box::new(breaker));
        step::project(ProjectChange::BreakerSet { name, breaker })
    };
    // A person who lets it go on knows better than what it did of late.
    let forgiven = (!is_paused && agent.breaker != Breaker::default()).then(Breaker::default);
    let group = state.settings.group_of(name).filter(|_| !is_paused);
    let served = group.and_then(|group| serves(state, state.provider_of(group), at));
    if agent.is_paused == is_paused && forgiven.is_none() && served.is_none() {
        let word = if is_paused { "is paused already" } else { "is not paused" };
        return Ok(Step::note(format!("agent `{name}` {word}")));
    }
    let change = ProjectChange::AgentPauseSet { name: name.clone(), is_paused };
    let change = (agent.is_paused != is_paused).then(|| step::project(change));
    Ok(Step::accept(change.into_iter().chain(forgiven.map(set)).chain(served).collect()))
}

/// A person says that a provider serves its agents again; `None`: nothing says otherwise.
fn serves(state: &State, provider: &str, at: Time) -> Option<Change> {
    let pause = state.pauses.get(provider).filter(|pause| !pause.is_resumed())?;
    let pause = Some(Box::new(pause.resumed(at)));
    Some(step::project(ProjectChange::ProviderSet { name: provider.to_owned(), pause }))
}

pub(super) fn switch(
    state: &State,
    at: Time,
    to: Orchestration,
    wait_ms: Option<u64>,
    is_forced: bool,
) -> Result<Step, Refusal> {
    if state.orchestration == to {
        let drain = state.drain.map(|_| step::project(ProjectChange::DrainSet { drain: None }));
        return Ok(Step::accept(drain.into_iter().collect()));
    }
    let busy = state.attempts.values().find(|attempt| attempt.is_work());
    let Some(busy) = busy.filter(|_| !is_forced) else {
        return Ok(Step::accept(vec![step::project(ProjectChange::ModeSwitched { to })]));
    };
    let Some(wait_ms) = wait_ms else {
        let task = busy.task.as_ref().map_or("", TaskId::as_str);
        let reason = format!("agent `{}` is working on `{task}`", busy.agent);
        return Err(Refusal::busy(reason)
            .with_hint("`--wait 10m` switches when the last one ends, `--force` at once"));
    };
    let drain = Some(Drain { to, until: at.plus_ms(wait_ms) });
    Ok(Step::accept(vec![step::project(ProjectChange::DrainSet { drain })]))
}

pub(super) fn adopt(state: &State, at: Time, settings: &Settings) -> Result<Step, Refusal> {
    if settings.hash == state.settings.hash {
        return Ok(Step::accept(Vec::new()));
    }
    let gone = |name: &str| settings.stage(name).is_none();
    let elsewhere = |task: &Task| stage::begins_elsewhere(state, task, settings, task);
    for stage in state.settings.stages.iter().filter(|stage| gone(&stage.name)) {
        let stands_there = |phase: &TaskPhase| match phase {
            TaskPhase::Ready { stage: at } | TaskPhase::Working { stage: at, .. } => {
                at.as_str() == stage.name
            }
            TaskPhase::Blocked(block) => {
                block.stage.as_ref().is_some_and(|at| at.as_str() == stage.name)
            }
            TaskPhase::Waiting
            | TaskPhase::Landing { .. }
            | TaskPhase::Completed { .. }
            | TaskPhase::Cancelled { .. } => false,
        };
        let mut stay = state.tasks.values().filter(|task| !elsewhere(task));
        if let Some(task) = stay.find(|task| stands_there(&task.phase)) {
            let reason = format!("task `{}` stands in stage `{}`", task.id, stage.name);
            return Err(Refusal::busy(reason)
                .with_hint("the new settings lack that stage; finish the task or keep the stage"));
        }
    }
    if settings.project.isolation != state.settings.project.isolation {
        let reason = "`project.isolation` cannot change in a project that exists";
        return Err(Refusal::invalid(reason));
    }
    let (old, new) = (&state.settings.project.base, &settings.project.base);
    if old != new && state.base.landed.is_some() {
        // The other branch would be taken in, and then follow to all of the old one.
        let branch = &state.settings.landing.branch;
        return Err(Refusal::invalid(format!(
            "`project.base` cannot change from `{old}` to `{new}` once there is `{branch}`, and the \
             old settings go on: set it back, or let all land, then `pipeline deinit` and \
             `pipeline init`"
        )));
    }
    let moved = state.tasks.values().filter(|task| elsewhere(task));
    let moved = moved
        .map(|moved| step::task(&moved.id, TaskChange::Moved { to: TaskPhase::Waiting, at }))
        .collect::<Vec<_>>();
    let settings = Box::new(settings.clone());
    let adopted = step::project(ProjectChange::SettingsAdopted { settings, at });
    Ok(Step::accept([moved, vec![adopted]].concat()))
}

pub(super) fn stop(kind: StopKind) -> Step {
    Step::accept(vec![step::project(ProjectChange::StopRequested { kind })])
}

/// Takes up an edit of `current-task.txt`; anything but a task that may start is put back.
pub(super) fn pick(state: &State, text: &str) -> Step {
    let id = TaskId::new(text);
    if state.orchestration != Orchestration::Sequential || state.current.as_ref() == Some(&id) {
        return Step::accept(Vec::new());
    }
    let put_back =
        |why: &str| Step::note(format!("current task `{}` {why}: put back", text.escape_debug()));
    match state.tasks.get(&id).map(|task| (&task.phase, task.is_held)) {
        None => put_back("is unknown"),
        Some((_, true)) => put_back("is held"),
        Some((TaskPhase::Completed { .. } | TaskPhase::Cancelled { .. }, _)) => {
            put_back("is finished")
        }
        Some((TaskPhase::Waiting | TaskPhase::Blocked(_) | TaskPhase::Landing { .. }, _)) => {
            put_back("is not ready")
        }
        Some(_) if !state.index.is_unblocked(&id) => put_back("waits for a dependency"),
        Some(_) if !gate::may_act(state, &id) => put_back("is beyond the rollout"),
        Some((TaskPhase::Ready { .. } | TaskPhase::Working { .. }, _)) => {
            Step::accept(vec![step::project(ProjectChange::CurrentTaskSet { id: Some(id) })])
        }
    }
}
