//! Tasks in a person's hands: take, give, complete, reopen.
//!
//! A task that is taken is held, so nothing of the pipeline touches it: no attempt starts, nothing of
//! it lands, its branch is the person's.

use super::edit::{counted_anew, withdrawn};
use super::rollout::check_not_dropping;
use super::{find, wait};
use crate::machine::change::{Change, Steer, TaskChange};
use crate::machine::changed::globs;
use crate::machine::event::GiveTo;
use crate::machine::id::{Oid, StageName, TaskId};
use crate::machine::mode::{Isolation, Rollout};
use crate::machine::resume::Onward;
use crate::machine::stage;
use crate::machine::state::State;
use crate::machine::step::{self, Refusal, Step};
use crate::machine::task::{Taken, Task, TaskKind, TaskPhase};
use crate::machine::time::Time;

/// Refuses what a person can do nothing about by themselves: a project without git, shadow mode.
fn check_mode(state: &State) -> Result<(), Refusal> {
    if state.settings.project.isolation == Isolation::None {
        let reason = "without git there is no worktree to give";
        return Err(Refusal::invalid(reason).with_hint(
            "`pipeline task hold ID`, do it in the project's folder, `pipeline task complete ID`",
        ));
    }
    if state.rollout == Rollout::Shadow {
        let reason = "the rollout is shadow: no branch and no worktree is made";
        return Err(Refusal::busy(reason).with_hint(
            "`pipeline rollout promote`; or do it in a checkout of yours and then \
             `pipeline task complete ID`",
        ));
    }
    Ok(())
}

/// Refuses epics and finished tasks.
fn check_open(task: &Task) -> Result<(), Refusal> {
    let id = &task.id;
    if task.spec.kind == TaskKind::Epic {
        return Err(Refusal::invalid(format!("task `{id}` is an epic: it has no work of its own"))
            .with_hint("name one of the tasks below it"));
    }
    let how = match &task.phase {
        TaskPhase::Completed { .. } => "is completed",
        TaskPhase::Cancelled { .. } => "is cancelled",
        TaskPhase::Waiting
        | TaskPhase::Ready { .. }
        | TaskPhase::Working { .. }
        | TaskPhase::Landing { .. }
        | TaskPhase::Blocked(_) => return Ok(()),
    };
    Err(Refusal::invalid(format!("task `{id}` {how}"))
        .with_hint(format!("`pipeline task reopen {id}` lets it be worked on again")))
}

/// Refuses a task at which an agent is at work, or was until a moment ago.
fn check_unattended(state: &State, task: &Task) -> Result<(), Refusal> {
    let id = &task.id;
    let mut live = state.attempts.values();
    let Some(busy) = live.find(|a| a.is_work() && a.task.as_ref() == Some(id)) else {
        return Ok(());
    };
    if busy.is_stopping {
        return Err(wait(format!("attempt `{}` is still being ended", busy.id)));
    }
    let reason = format!("agent `{}` is working on `{id}` (attempt `{}`)", busy.agent, busy.id);
    Err(Refusal::busy(reason).with_hint(format!(
        "`pipeline task hold {id}` keeps it from going on after this stage; take it then"
    )))
}

pub(super) fn take(
    state: &State,
    at: Time,
    id: &TaskId,
    dir: &str,
    from: &Oid,
) -> Result<Step, Refusal> {
    let task = find(state, id)?;
    check_open(task)?;
    if let Some(taken) = &task.taken {
        if taken.dir == dir {
            return Ok(Step::accept(Vec::new()));
        }
        let reason = format!("task `{id}` is taken already, in `{}`", taken.dir);
        return Err(Refusal::busy(reason)
            .with_hint(format!("work there, or `pipeline task give {id}` first")));
    }
    check_mode(state)?;
    check_not_dropping(state)?;
    check_unattended(state, task)?;
    // Of what waits in the lane nothing lands while it is held.
    let mut changes = withdrawn(state, id)?;
    let taken = Taken { dir: dir.to_owned(), from: from.clone(), since: at };
    changes.push(step::task(id, TaskChange::Taken { taken }));
    Ok(Step::accept(changes))
}

pub(super) fn give(
    state: &State,
    at: Time,
    id: &TaskId,
    to: &GiveTo,
    (commit, changed): (&Oid, Option<&[String]>),
) -> Result<Step, Refusal> {
    let task = find(state, id)?;
    let Some(taken) = &task.taken else {
        return Err(Refusal::invalid(format!("task `{id}` is not taken"))
            .with_hint(format!("`pipeline task take {id}` makes a worktree for you")));
    };
    let has_own = *commit != taken.from;
    let to = aim(state, task, to, has_own)?;
    let onward = if has_own { Onward::default() } else { Onward::of(task) };
    let steer = Steer {
        merge_owed: task.merge_owed.clone().filter(|_| !has_own),
        resume_from: onward.resume_from,
        continues: onward.continues,
        avoid: task.avoid.clone(),
        hint: task.hint.clone(),
        is_fresh: false,
    };
    let mut changes = vec![
        step::task(id, TaskChange::Tallied { tally: counted_anew(task) }),
        step::task(id, TaskChange::Steered { steer: Box::new(steer) }),
    ];
    if has_own && (task.approval.is_some() || task.approved.is_some()) {
        // What was asked or allowed was another tip's.
        changes.push(step::task(id, TaskChange::Approved { tip: None }));
    }
    if let Some(paths) = changed.map(globs).filter(|paths| *paths != task.changed) {
        changes.push(step::task(id, TaskChange::BranchChanged { paths }));
    }
    changes.push(step::task(id, TaskChange::Given { commit: commit.clone() }));
    if to != task.phase {
        changes.push(step::task(id, TaskChange::Moved { to, at }));
    } else if task.backoff_until.is_some() {
        changes.push(step::task(id, TaskChange::BackedOff { until: None }));
    }
    Ok(Step::accept(changes))
}

/// Returns the phase in which a task goes on that is given back.
fn aim(state: &State, task: &Task, to: &GiveTo, has_own: bool) -> Result<TaskPhase, Refusal> {
    let settings = &state.settings;
    let ready = |stage: StageName| TaskPhase::Ready { stage };
    match to {
        GiveTo::Landing => landing(state, task),
        GiveTo::Stage(stage) => {
            let found = settings.stage(stage.as_str());
            if found.is_none_or(|(_, found)| !stage::applies(found, task)) {
                let reason = format!("task `{}` does not pass through stage `{stage}`", task.id);
                return Err(
                    Refusal::invalid(reason).with_hint("see its stages with `pipeline task show`")
                );
            }
            Ok(ready(stage.clone()))
        }
        GiveTo::Onward => {
            if task.stands_in_lane() {
                return landing(state, task);
            }
            let first = || stage::first(settings, task);
            let Some(stage) = task.stage().cloned().or_else(first) else {
                return Ok(TaskPhase::Waiting);
            };
            let found = settings.stage(stage.as_str());
            let is_done = has_own && found.is_some_and(|(_, found)| found.must_change);
            match stage::after(settings, task, &stage).filter(|_| is_done) {
                Some(next) => Ok(ready(next)),
                None if is_done => landing(state, task),
                None if task.phase == TaskPhase::Waiting => Ok(TaskPhase::Waiting),
                None => Ok(ready(stage::at_or_else(settings, task, &stage))),
            }
        }
    }
}

/// Returns a place at the end of the lane; nothing lands before what it depends on.
fn landing(state: &State, task: &Task) -> Result<TaskPhase, Refusal> {
    let unmet = |dep: &&TaskId| state.tasks.get(*dep).is_none_or(|dep| !dep.is_met());
    let names: Vec<&str> = task.spec.depends_on.iter().filter(unmet).map(TaskId::as_str).collect();
    if names.is_empty() {
        return Ok(TaskPhase::Landing { entry: state.entries + 1 });
    }
    let (id, names) = (&task.id, names.join(", "));
    let reason = format!("task `{id}` cannot land before what it depends on: {names}");
    Err(Refusal::busy(reason).with_hint(format!(
        "give it to a stage with `--stage NAME`, or \
         `pipeline task edit {id} --remove-depends-on ID` where it needs that no more"
    )))
}

pub(super) fn complete(
    state: &State,
    at: Time,
    id: &TaskId,
    commit: Option<&Oid>,
) -> Result<Step, Refusal> {
    let task = find(state, id)?;
    check_open(task)?;
    if commit.is_some() {
        // What is dropped is no place to have landed on.
        check_not_dropping(state)?;
    }
    let mut changes = withdrawn(state, id)?;
    changes.push(step::task(id, TaskChange::DoneByHand { commit: commit.cloned() }));
    let to = TaskPhase::Completed { commit: commit.cloned(), at };
    changes.push(step::task(id, TaskChange::Moved { to, at }));
    Ok(Step::accept(changes))
}

pub(super) fn reopen(
    state: &State,
    at: Time,
    id: &TaskId,
    is_fresh: bool,
) -> Result<Step, Refusal> {
    let task = find(state, id)?;
    let has_landed = match &task.phase {
        TaskPhase::Completed { .. } => true,
        TaskPhase::Cancelled { .. } => false,
        TaskPhase::Waiting
        | TaskPhase::Ready { .. }
        | TaskPhase::Working { .. }
        | TaskPhase::Landing { .. }
        | TaskPhase::Blocked(_) => {
            return Err(Refusal::invalid(format!("task `{id}` is not finished"))
                .with_hint(format!("`pipeline task retry {id}` tries it again")));
        }
    };
    check_unattended(state, task)?;
    // What has landed is no beginning; what was given up is work still.
    let steer = Steer { is_fresh: has_landed || is_fresh, ..Steer::default() };
    let to = TaskPhase::Waiting;
    let changes: Vec<Change> = vec![
        step::task(id, TaskChange::Tallied { tally: counted_anew(task) }),
        step::task(id, TaskChange::Steered { steer: Box::new(steer) }),
        step::task(id, TaskChange::Moved { to, at }),
    ];
    Ok(Step::accept(changes))
}
