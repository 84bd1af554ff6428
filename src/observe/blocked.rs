//! Tasks that need a person, with the command to type.

use std::collections::BTreeSet;

use serde::Serialize;

use super::words::Stamp;
use crate::machine::State;
use crate::machine::attempt::Class;
use crate::machine::id::TaskId;
use crate::machine::task::{Block, Task, TaskPhase};

/// Steps taken from a task to the one that holds it up.
const STEPS_MAX: usize = 64;

/// A blocked task.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Blocked<'a> {
    pub id: &'a str,
    /// Where it goes on; `None` before the first stage.
    pub stage: Option<&'a str>,
    pub class: &'static str,
    /// May have several lines.
    pub reason: &'a str,
    /// Work attempts it has had.
    pub attempts: usize,
    /// The branch with what was done; `None` when nothing was completed.
    pub branch: Option<String>,
    pub since: Stamp,
    /// The command to type.
    pub next: String,
    /// Where it failed, for people: the stage in short, or that it was being landed.
    #[serde(skip)]
    pub place: Option<&'a str>,
    /// False when a blocked task it depends on must be seen to first.
    #[serde(skip)]
    pub is_root: bool,
}

/// Returns whether its landing waits for a person's approval; a held one waits for its release.
#[must_use]
pub const fn needs_approval(task: &Task) -> bool {
    task.approval.is_some() && !task.is_held
}

/// Returns the entry of a task; `None` when it is not blocked.
#[must_use]
pub fn blocked<'a>(state: &'a State, task: &'a Task) -> Option<Blocked<'a>> {
    let TaskPhase::Blocked(block) = &task.phase else { return None };
    let (next, is_root) = next(state, task, block);
    let stage = block.stage.as_ref().map(|stage| stage.as_str());
    let short = |stage| Some(state.settings.stage_by_any_name(stage)?.short.as_str());
    Some(Blocked {
        id: task.id.as_str(),
        stage,
        place: if is_at_landing(block) { Some("landing") } else { stage.and_then(short) },
        class: block.class.word(),
        reason: &block.reason,
        attempts: task.history.iter().filter(|attempt| attempt.is_work()).count(),
        branch: task.tip.as_ref().map(|_| format!("pipeline/task/{}", task.id)),
        since: Stamp(block.since),
        next,
        is_root,
    })
}

/// Returns true for what went wrong in the lane, whatever stage it goes on from.
const fn is_at_landing(block: &Block) -> bool {
    block.is_landing || matches!(block.class, Class::Conflict | Class::LandingChecksFailed)
}

/// Returns the command to type, and whether it is about the task itself.
fn next(state: &State, task: &Task, block: &Block) -> (String, bool) {
    let id = &task.id;
    if task.taken.is_some() {
        return (format!("pipeline task give {id}"), true);
    }
    match block.class {
        Class::Dependency => for_dependency(state, task),
        Class::Blocked if block.stage.is_none() => {
            (format!("pipeline task edit {id} --stages NAME"), true)
        }
        Class::Blocked => (format!("pipeline task retry {id} --note 'ANSWER'"), true),
        Class::Completed
        | Class::Empty
        | Class::Incomplete
        | Class::Failed
        | Class::ChecksFailed
        | Class::ConflictLeft
        | Class::ChangesRequested
        | Class::RateLimited
        | Class::Unauthorized
        | Class::ContextExceeded
        | Class::TimedOut
        | Class::Silent
        | Class::Crashed
        | Class::Unstartable
        | Class::Lost
        | Class::Infrastructure
        | Class::Stopped
        | Class::Conflict
        | Class::LandingChecksFailed
        | Class::Budget => (format!("pipeline task retry {id}"), true),
    }
}

/// Follows dead ends down to the task that a person must see to.
fn for_dependency(state: &State, task: &Task) -> (String, bool) {
    let mut at = task;
    let mut seen = BTreeSet::from([&task.id]);
    for _ in 0..STEPS_MAX {
        let is_dead = |id: &&TaskId| state.tasks.get(*id).is_none_or(Task::is_dead_end);
        let Some(dead) = at.spec.depends_on.iter().find(is_dead) else { break };
        let found = state.tasks.get(dead);
        match found.map(|dep| (dep, &dep.phase)) {
            Some((dep, TaskPhase::Blocked(block))) => {
                if block.class != Class::Dependency {
                    return (next(state, dep, block).0, false);
                }
                if !seen.insert(dead) {
                    break;
                }
                at = dep;
            }
            // Cancelled or unknown: the task that names it must let it go.
            Some(_) | None => {
                let next = format!("pipeline task edit {} --remove-depends-on {dead}", at.id);
                return (next, at.id == task.id);
            }
        }
    }
    (format!("pipeline task show {}", at.id), true)
}

#[cfg(test)]
mod tests {
    use super::blocked;
    use crate::machine::attempt::{Class, Marker};
    use crate::machine::event::Dependents;
    use crate::machine::id::TaskId;
    use crate::machine::task::TaskPhase;
    use crate::machine::{Command, State};
    use crate::observe::support::{End, Pipeline, settings, task};

    fn next(pipeline: &Pipeline, id: &str) -> (String, bool) {
        let found = blocked(&pipeline.state, &pipeline.state.tasks[&TaskId::new(id)]);
        let found = found.unwrap_or_else(|| panic!("{id} is not blocked"));
        (found.next, found.is_root)
    }

    #[test]
    fn the_command_is_about_the_task_that_holds_the_others_up() {
        let tasks = vec![task("A", &[]), task("B", &["A"]), task("C", &["B"])];
        let mut pipeline = Pipeline::started(settings(), tasks);
        pipeline.run("A.arch.1", End::Says(Marker::Blocked("which colour?".into())));
        pipeline.turn();
        let retry = "pipeline task retry A --note 'ANSWER'";
        assert_eq!(next(&pipeline, "A"), (retry.into(), true));
        assert_eq!(next(&pipeline, "C"), (retry.into(), false));
        let found = blocked(&pipeline.state, &pipeline.state.tasks[&TaskId::new("A")]);
        let found = found.expect("it is blocked");
        assert_eq!((found.attempts, found.class, found.stage), (1, "blocked", Some("architect")));
        assert_eq!(found.branch.as_deref(), Some("pipeline/task/A"));
    }

    #[test]
    fn an_unknown_or_cancelled_dependency_is_to_be_let_go() {
        let tasks = vec![task("A", &["X"]), task("B", &[]), task("D", &["A"])];
        let mut pipeline = Pipeline::started(settings(), tasks);
        let cancel = "pipeline task edit A --remove-depends-on X";
        assert_eq!(next(&pipeline, "A"), (cancel.into(), true));
        assert_eq!(next(&pipeline, "D"), (cancel.into(), false));
        let ids = vec![TaskId::new("B")];
        pipeline.send(Command::CancelTasks { ids, dependents: Dependents::Release });
        pipeline.send(Command::AddTasks { tasks: vec![task("E", &["B"])] });
        pipeline.turn();
        let drop = "pipeline task edit E --remove-depends-on B";
        assert_eq!(next(&pipeline, "E"), (drop.into(), true));
    }

    #[test]
    fn what_failed_at_landing_is_not_told_of_the_stage_it_goes_on_from() {
        let mut pipeline = Pipeline::started(settings(), vec![task("A", &[])]);
        let says = End::Says(Marker::Blocked("which colour?".into()));
        pipeline.run("A.arch.1", says);
        let id = TaskId::new("A");
        let place = |state: &State| {
            let found = blocked(state, &state.tasks[&id]).expect("it is blocked");
            (found.stage.map(str::to_owned), found.place.map(str::to_owned))
        };
        let stage = Some("architect".to_owned());
        assert_eq!(place(&pipeline.state), (stage.clone(), Some("arch".into())));
        let mut state = pipeline.state.clone();
        let task = state.tasks.get_mut(&id).expect("it is there");
        let TaskPhase::Blocked(block) = &mut task.phase else { panic!("{:?}", task.phase) };
        block.class = Class::LandingChecksFailed;
        assert_eq!(place(&state), (stage, Some("landing".into())));
    }

    #[test]
    fn a_failure_is_tried_again_by_retry() {
        let mut pipeline = Pipeline::started(settings(), vec![task("A", &[])]);
        for number in 1..=3 {
            pipeline.run(&format!("A.arch.{number}"), End::Status(1));
            pipeline.pass(60_000);
            pipeline.turn();
        }
        assert_eq!(next(&pipeline, "A"), ("pipeline task retry A".into(), true));
    }
}
