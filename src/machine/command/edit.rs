//! Commands on tasks that exist.

use std::collections::BTreeSet;

use super::add::{Above, check_spec, draw, refuse_cycles};
use super::{find, wait};
use crate::machine::attempt::{AttemptPhase, Class};
use crate::machine::change::{AttemptChange, Change, LaneChange, Steer, TaskChange};
use crate::machine::event::{Dependents, Edit, RetryTarget};
use crate::machine::graph::Sketch;
use crate::machine::id::{StageName, TaskId};
use crate::machine::lane::LandingPhase;
use crate::machine::mode::Isolation;
use crate::machine::progress;
use crate::machine::resume::Onward;
use crate::machine::stage;
use crate::machine::state::State;
use crate::machine::step::{self, Refusal, Step};
use crate::machine::task::{Spec, Tally, Task, TaskKind, TaskPhase};
use crate::machine::time::Time;

/// Tasks named in one hint; the rest is counted.
const NAMES_MAX: usize = 10;

pub(super) fn edit(state: &State, at: Time, id: &TaskId, edit: &Edit) -> Result<Step, Refusal> {
    let task = find(state, id)?;
    let known = &task.spec.depends_on;
    if let Some(dep) = edit.remove_depends_on.iter().find(|dep| !known.contains(dep)) {
        return Err(Refusal::invalid(format!("`{id}` does not depend on `{dep}`"))
            .with_hint(format!("see `pipeline task show {id}`")));
    }
    let spec = edited(&task.spec, edit);
    check_spec(state, id, &spec)?;
    let is_other_kind = spec.kind != task.spec.kind;
    if is_other_kind {
        check_kind(state, task)?;
    }
    for dep in &spec.depends_on {
        let is_new = !task.spec.depends_on.contains(dep);
        if is_new && !state.tasks.contains_key(dep) {
            return Err(Refusal::invalid(format!("`{id}` depends on unknown `{dep}`")));
        }
    }
    if let Some(parent) = &spec.parent
        && state.tasks.get(parent).is_none_or(|parent| parent.spec.kind != TaskKind::Epic)
    {
        return Err(Refusal::invalid(format!("the parent `{parent}` is not an epic")));
    }
    Above::default().look(id, |epic| {
        if epic == id { Some(&spec) } else { state.tasks.get(epic).map(|task| &task.spec) }
    })?;
    if spec.depends_on != task.spec.depends_on {
        check_path(state, id, &spec)?;
    }
    let is_front = edit.is_front.unwrap_or(task.is_front);
    let edited = Task { spec, ..task.clone() };
    check_stages(state, task, &edited)?;
    let mut changes = Vec::new();
    let is_put_back = is_other_kind && task.phase != TaskPhase::Waiting;
    if is_put_back || stage::begins_elsewhere(state, task, &state.settings, &edited) {
        changes.push(step::task(id, TaskChange::Moved { to: TaskPhase::Waiting, at }));
    } else if let TaskPhase::Ready { stage } = &task.phase {
        let over = stage::pass_over(&state.settings, &edited, stage, 0, at);
        changes.extend(over.unwrap_or_default());
    }
    let is_unmet = |dep: &TaskId| !task.spec.depends_on.contains(dep) && !state.tasks[dep].is_met();
    let is_landing = matches!(task.phase, TaskPhase::Landing { .. });
    if is_landing && edited.spec.depends_on.iter().any(is_unmet) {
        // It is to land behind them: a landing under way is begun anew then.
        changes.extend(withdrawn(state, id)?);
    }
    let change = TaskChange::Edited { spec: Box::new(edited.spec), is_front, at };
    changes.push(step::task(id, change));
    let mut step = Step::accept(changes);
    if let Some(is_held) = edit.is_held {
        step.changes.extend(hold(state, std::slice::from_ref(id), is_held)?.changes);
    }
    Ok(step)
}

/// Refuses to take the last stage from a task that stands at it: nothing would follow.
fn check_stages(state: &State, task: &Task, edited: &Task) -> Result<(), Refusal> {
    let is_working = matches!(task.phase, TaskPhase::Working { .. });
    let is_under_way = is_working || (task.has_begun() && !task.stands_in_lane());
    let Some(name) = task.stage().filter(|_| is_under_way) else { return Ok(()) };
    let Some((place, found)) = state.settings.stage(name.as_str()) else { return Ok(()) };
    let goes_on = |task: &Task| {
        stage::applies(found, task) || stage::after(&state.settings, task, name).is_some()
    };
    if !goes_on(task) || goes_on(edited) {
        return Ok(());
    }
    let id = &task.id;
    let mut earlier = state.settings.stages[..place].iter().rev();
    let hint = match earlier.find(|stage| stage::applies(stage, edited)) {
        Some(stage) => {
            format!("to go back first: `pipeline task retry {id} --stage {}`", stage.name)
        }
        None if state.settings.project.isolation == Isolation::None => {
            format!("to end it as it is: `pipeline task complete {id}`")
        }
        None => format!(
            "to land it as it is: `pipeline task take {id}`, then `pipeline task give {id} --stage landing`"
        ),
    };
    let hint = if is_working { format!("when its attempt has ended, {hint}") } else { hint };
    let reason = format!("`{id}` stands at stage `{name}`, and none follows it");
    Err(Refusal::busy(reason).with_hint(hint))
}

/// Refuses to make a task an epic, or an epic a task, where its work, a person or other tasks already
/// count on what it is.
fn check_kind(state: &State, task: &Task) -> Result<(), Refusal> {
    let id = &task.id;
    let refuse = |why: String| Refusal::busy(format!("`{id}` stays of its kind: {why}"));
    let is_at_start = matches!(task.phase, TaskPhase::Waiting | TaskPhase::Ready { .. });
    if task.has_begun() || !is_at_start {
        let hint = "add another one, and cancel this one";
        return Err(refuse("it has begun, is blocked or is finished".into()).with_hint(hint));
    }
    refuse_taken(task)?;
    if task.is_held {
        let hint = format!("first `pipeline task release {id}`");
        return Err(refuse("it is held".into()).with_hint(hint));
    }
    let waits = state.index.links(id).and_then(|links| links.dependents.first());
    if let Some(other) = waits {
        let hint = format!("first `pipeline task edit {other} --remove-depends-on {id}`");
        return Err(refuse(format!("`{other}` depends on it")).with_hint(hint));
    }
    let is_below = |other: &&Task| other.spec.parent.as_ref() == Some(id);
    if let Some(other) = state.tasks.values().find(is_below) {
        let hint = format!("first `pipeline task edit {} --parent ''`", other.id);
        return Err(refuse(format!("`{}` is below it", other.id)).with_hint(hint));
    }
    Ok(())
}

fn edited(old: &Spec, edit: &Edit) -> Spec {
    let mut spec = old.clone();
    let Edit { title, body, priority, parent, depends_on, add_depends_on, .. } = edit.clone();
    spec.title = title.unwrap_or(spec.title);
    spec.body = body.unwrap_or(spec.body);
    spec.priority = priority.unwrap_or(spec.priority);
    spec.kind = edit.kind.unwrap_or(spec.kind);
    spec.parent = parent.unwrap_or(spec.parent);
    spec.depends_on = depends_on.unwrap_or(spec.depends_on);
    spec.depends_on.extend(add_depends_on);
    spec.depends_on.retain(|dep| !edit.remove_depends_on.contains(dep));
    spec.depends_on.sort();
    spec.depends_on.dedup();
    let Edit { touches, stages, labels, needs, complexity, estimate_ms, .. } = edit.clone();
    spec.touches = touches.unwrap_or(spec.touches);
    spec.stages = stages.unwrap_or(spec.stages);
    spec.labels = labels.unwrap_or(spec.labels);
    spec.needs = needs.unwrap_or(spec.needs);
    for list in [&mut spec.needs, &mut spec.labels] {
        list.sort();
        list.dedup();
    }
    spec.complexity = complexity.unwrap_or(spec.complexity);
    spec.estimate_ms = estimate_ms.unwrap_or(spec.estimate_ms);
    spec.resources = edit.resources.clone().unwrap_or(spec.resources);
    spec.command = edit.command.clone().or(spec.command).filter(|command| !command.is_empty());
    spec.is_exclusive = edit.is_exclusive.unwrap_or(spec.is_exclusive);
    spec
}

/// Refuses dependencies from which the task itself can be reached. Cost: what it depends on.
fn check_path(state: &State, id: &TaskId, spec: &Spec) -> Result<(), Refusal> {
    let mut sketch = Sketch::default();
    draw(&mut sketch, id, spec);
    let mut seen = BTreeSet::from([id]);
    let mut todo: Vec<&TaskId> = spec.depends_on.iter().collect();
    while let Some(next) = todo.pop() {
        if !seen.insert(next) {
            continue;
        }
        if let Some(task) = state.tasks.get(next) {
            draw(&mut sketch, next, &task.spec);
            todo.extend(&task.spec.depends_on);
        }
    }
    refuse_cycles(sketch)
}

pub(super) fn hold(state: &State, ids: &[TaskId], is_held: bool) -> Result<Step, Refusal> {
    let mut changes = Vec::new();
    for id in ids {
        let task = find(state, id)?;
        if task.is_final() && is_held {
            return Err(Refusal::invalid(format!("task `{id}` is finished"))
                .with_hint(format!("`pipeline task reopen {id}` lets it be worked on again")));
        }
        if !is_held {
            refuse_taken(task)?;
        } else if task.spec.kind == TaskKind::Epic {
            return Err(refuse_epic(state, id));
        }
        if task.is_held != is_held {
            changes.push(step::task(id, TaskChange::HeldSet { is_held }));
        }
    }
    Ok(Step::accept(changes))
}

/// Refuses to hold an epic: its tasks would go on all the same.
fn refuse_epic(state: &State, id: &TaskId) -> Refusal {
    let mut open = progress::open_below(state, id).map(TaskId::as_str);
    let names: Vec<&str> = open.by_ref().take(NAMES_MAX).collect();
    let hint = match (names.is_empty(), open.count()) {
        (true, _) => "no task below it is open".to_owned(),
        (false, 0) => format!("hold its tasks: `pipeline task hold {}`", names.join(" ")),
        (false, more) => {
            format!("hold its tasks: `pipeline task hold {} …`, {more} more", names.join(" "))
        }
    };
    Refusal::invalid(format!("task `{id}` is an epic: it has no work of its own")).with_hint(hint)
}

/// Refuses a task that a person has.
fn refuse_taken(task: &Task) -> Result<(), Refusal> {
    let Some(taken) = &task.taken else { return Ok(()) };
    let reason = format!("task `{}` is taken by a person, in `{}`", task.id, taken.dir);
    Err(Refusal::busy(reason).with_hint(format!("`pipeline task give {}` gives it back", task.id)))
}

/// How `task retry` goes on.
pub(super) struct Retry<'a> {
    pub(super) stage: Option<&'a StageName>,
    pub(super) note: Option<&'a String>,
    pub(super) is_fresh: bool,
}

pub(super) fn retry(
    state: &State,
    at: Time,
    target: &RetryTarget,
    how: &Retry<'_>,
) -> Result<Step, Refusal> {
    let ids: BTreeSet<TaskId> = match target {
        RetryTarget::Tasks(ids) => ids.iter().cloned().collect(),
        RetryTarget::Blocked => {
            let tasks = state.tasks.values();
            tasks.filter(|task| is_retriable(task)).map(|task| task.id.clone()).collect()
        }
    };
    if ids.is_empty() {
        let has_blocked = state.index.counts.blocked > 0;
        let other = "no blocked task can be retried: something else frees them";
        return Ok(Step::note(if has_blocked { other } else { "no task is blocked" }));
    }
    let mut changes = Vec::new();
    let mut entry = state.entries;
    for id in &ids {
        let task = find(state, id)?;
        changes.extend(retry_one(state, at, task, how, &mut entry)?);
    }
    Ok(Step::accept(changes))
}

/// Returns true when its work is done, and only the lane has to try again.
fn is_relined(task: &Task, how: &Retry<'_>) -> bool {
    let is_landing = matches!(&task.phase, TaskPhase::Blocked(block) if block.is_landing);
    is_landing && how.stage.is_none() && !how.is_fresh
}

fn is_retriable(task: &Task) -> bool {
    let is_blocked =
        matches!(&task.phase, TaskPhase::Blocked(block) if block.class != Class::Dependency);
    is_blocked && task.taken.is_none()
}

/// `entry`: the last number given in the lane.
fn retry_one(
    state: &State,
    at: Time,
    task: &Task,
    how: &Retry<'_>,
    entry: &mut u64,
) -> Result<Vec<Change>, Refusal> {
    let id = &task.id;
    let refuse = |why: &str| Err(Refusal::invalid(format!("task `{id}` {why}")));
    if task.spec.kind == TaskKind::Epic {
        return refuse("is an epic: it has no stages");
    }
    refuse_taken(task)?;
    let stood_at = match &task.phase {
        TaskPhase::Blocked(block) if block.class == Class::Dependency => {
            return Err(Refusal::invalid(format!("task `{id}` waits for a dependency"))
                .with_hint("retry what it depends on; it is freed by itself"));
        }
        TaskPhase::Blocked(block) => block.stage.clone(),
        TaskPhase::Ready { stage } => Some(stage.clone()),
        TaskPhase::Waiting => None,
        TaskPhase::Working { .. } => return refuse("is being worked on"),
        TaskPhase::Landing { .. } if task.approval.is_some() => {
            return Err(Refusal::invalid(format!("task `{id}` waits for approval"))
                .with_hint(format!("`pipeline task approve {id}` lets it land")));
        }
        TaskPhase::Landing { .. } => return refuse("is being landed"),
        TaskPhase::Completed { .. } => return refuse_finished(id, finished_words(task)),
        TaskPhase::Cancelled { .. } => return refuse_finished(id, "is cancelled"),
    };
    if let Some(stage) = how.stage {
        let found = state.settings.stage(stage.as_str());
        if found.is_none_or(|(_, found)| !stage::applies(found, task)) {
            return refuse(&format!("does not pass through stage `{stage}`"));
        }
    }
    let onto = stood_at.as_ref().map(|name| stage::at_or_else(&state.settings, task, name));
    let stage = how.stage.cloned().or(onto.filter(|_| !how.is_fresh));
    // What was cut short at one stage is no beginning for another.
    let goes_on = !how.is_fresh && stage == stood_at;
    let onward = if goes_on { Onward::of(task) } else { Onward::default() };
    let to = match stage {
        _ if is_relined(task, how) => {
            *entry += 1;
            TaskPhase::Landing { entry: *entry }
        }
        Some(stage) => TaskPhase::Ready { stage },
        None => TaskPhase::Waiting,
    };
    let steer = Steer {
        merge_owed: task.merge_owed.clone().filter(|_| !how.is_fresh),
        resume_from: onward.resume_from,
        continues: onward.continues,
        avoid: task.avoid.clone(),
        hint: how.note.cloned().or_else(|| task.hint.clone()),
        is_fresh: how.is_fresh,
    };
    let mut changes = vec![
        step::task(id, TaskChange::Tallied { tally: counted_anew(task) }),
        step::task(id, TaskChange::Steered { steer: Box::new(steer) }),
    ];
    if to != task.phase {
        changes.push(step::task(id, TaskChange::Moved { to, at }));
    } else if task.backoff_until.is_some() {
        changes.push(step::task(id, TaskChange::BackedOff { until: None }));
    }
    Ok(changes)
}

/// Says how a completed task came to that.
fn finished_words(task: &Task) -> &'static str {
    let has_commit = matches!(task.phase, TaskPhase::Completed { commit: Some(_), .. });
    match (has_commit, task.is_by_hand) {
        (true, _) => "has landed",
        (false, true) => "was completed by hand",
        (false, false) => "is completed",
    }
}

fn refuse_finished<T>(id: &TaskId, how: &str) -> Result<T, Refusal> {
    Err(Refusal::invalid(format!("task `{id}` {how}"))
        .with_hint(format!("`pipeline task reopen {id}` lets it be worked on again")))
}

/// Returns the tally of a task whose attempts and cost are counted anew.
pub(super) fn counted_anew(task: &Task) -> Tally {
    Tally { forgiven_micros: task.spent.cost_usd_micros, ..Tally::default() }
}

pub(super) fn cancel(
    state: &State,
    at: Time,
    ids: &[TaskId],
    dependents: Dependents,
) -> Result<Step, Refusal> {
    let mut chosen: BTreeSet<TaskId> = BTreeSet::new();
    let mut todo: Vec<TaskId> = ids.iter().rev().cloned().collect();
    while let Some(id) = todo.pop() {
        let task = find(state, &id)?;
        if chosen.contains(&id) || matches!(task.phase, TaskPhase::Cancelled { .. }) {
            continue;
        }
        if matches!(task.phase, TaskPhase::Completed { .. }) {
            return Err(Refusal::invalid(format!("task `{id}` {}", finished_words(task))));
        }
        if dependents == Dependents::Cancel {
            todo.extend(open_dependents(state, &id));
        }
        chosen.insert(id);
    }
    let mut changes = Vec::new();
    for id in &chosen {
        let left: Vec<TaskId> =
            open_dependents(state, id).into_iter().filter(|d| !chosen.contains(d)).collect();
        if dependents == Dependents::Refuse && !left.is_empty() {
            let names: Vec<&str> = left.iter().map(TaskId::as_str).collect();
            let reason = format!("open tasks depend on `{id}`: {}", names.join(", "));
            return Err(Refusal::busy(reason).with_hint("say `--dependents cancel|release`"));
        }
        for dependent in left {
            let task = &state.tasks[&dependent];
            let mut spec = task.spec.clone();
            spec.depends_on.retain(|dep| !chosen.contains(dep));
            let change = TaskChange::Edited { spec: Box::new(spec), is_front: task.is_front, at };
            changes.push(step::task(&dependent, change));
        }
    }
    for id in &chosen {
        changes.extend(cancel_one(state, at, id)?);
    }
    Ok(Step::accept(changes))
}

fn open_dependents(state: &State, id: &TaskId) -> Vec<TaskId> {
    let links = state.index.links(id);
    let dependents = links.into_iter().flat_map(|links| &links.dependents);
    dependents.filter(|id| !state.tasks[*id].is_final()).cloned().collect()
}

fn cancel_one(state: &State, at: Time, id: &TaskId) -> Result<Vec<Change>, Refusal> {
    let mut changes = withdrawn(state, id)?;
    let to = TaskPhase::Cancelled { at };
    changes.push(step::task(id, TaskChange::Moved { to, at }));
    Ok(changes)
}

/// Takes a task out of the lane, and ends the attempts at it; one that is being landed right now
/// cannot be.
pub(super) fn withdrawn(state: &State, id: &TaskId) -> Result<Vec<Change>, Refusal> {
    let mut changes = Vec::new();
    if let Some(landing) = state.landing.as_ref().filter(|landing| &landing.task == id) {
        if matches!(landing.phase, LandingPhase::Moving { .. }) {
            return Err(wait(format!("task `{id}` is being landed right now")));
        }
        changes.push(step::lane(LaneChange::LandingSet { landing: None }));
    }
    changes.extend(ended(state, id));
    Ok(changes)
}

/// Ends the attempts at a task.
pub(in crate::machine) fn ended(state: &State, id: &TaskId) -> impl Iterator<Item = Change> {
    let attempts = state.attempts.values().filter(|a| a.task.as_ref() == Some(id));
    let is_over = |phase| matches!(phase, AttemptPhase::Saving | AttemptPhase::Advancing);
    let live = attempts.filter(move |attempt| !attempt.is_stopping && !is_over(attempt.phase));
    live.map(|attempt| step::attempt(&attempt.id, AttemptChange::StopRequested))
}

pub(super) fn approve(state: &State, ids: &[TaskId]) -> Result<Step, Refusal> {
    let mut changes = Vec::new();
    for id in ids {
        let task = find(state, id)?;
        if task.approval.is_none() {
            let reason = format!("task `{id}` does not wait for approval");
            return Err(Refusal::invalid(reason));
        }
        changes.push(step::task(id, TaskChange::Approved { tip: task.tip.clone() }));
    }
    Ok(Step::accept(changes))
}
