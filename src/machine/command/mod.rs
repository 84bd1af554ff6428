//! What is decided when somebody asks for something.

mod add;
mod control;
mod edit;
mod hands;
mod rollout;
mod scale;

pub(super) use edit::ended;

use super::event::{Command, Event};
use super::id::TaskId;
use super::state::State;
use super::step::{Refusal, Step};
use super::task::Task;

/// Decides a command; `Err` is the refusal, and nothing changes.
pub(super) fn decide(state: &State, event: &Event, asked: &Command) -> Result<Step, Refusal> {
    match asked {
        Command::AddTasks { tasks } => add::add(state, event.at, tasks),
        Command::EditTask { id, edit } => edit::edit(state, event.at, id, edit),
        Command::HoldTasks { ids } => edit::hold(state, ids, true),
        Command::ReleaseTasks { ids } => edit::hold(state, ids, false),
        Command::RetryTasks { target, stage, note, is_fresh } => {
            let how =
                edit::Retry { stage: stage.as_ref(), note: note.as_ref(), is_fresh: *is_fresh };
            edit::retry(state, event.at, target, &how)
        }
        Command::CancelTasks { ids, dependents } => edit::cancel(state, event.at, ids, *dependents),
        Command::ApproveTasks { ids } => edit::approve(state, ids),
        Command::TakeTask { id, dir, from } => hands::take(state, event.at, id, dir, from),
        Command::GiveTask { id, to, commit, changed } => {
            hands::give(state, event.at, id, to, (commit, changed.as_deref()))
        }
        Command::CompleteTask { id, commit } => {
            hands::complete(state, event.at, id, commit.as_ref())
        }
        Command::ReopenTask { id, is_fresh } => hands::reopen(state, event.at, id, *is_fresh),
        Command::Pause => Ok(control::pause(state, true)),
        Command::Resume => Ok(control::pause(state, false)),
        Command::PauseAgent { name } => control::pause_agent(state, event.at, name, true),
        Command::ResumeAgent { name } => control::pause_agent(state, event.at, name, false),
        Command::ScaleAgents { group, to } => scale::scale(state, event.at, group, *to),
        Command::SwitchMode { to, wait_ms, is_forced } => {
            control::switch(state, event.at, *to, *wait_ms, *is_forced)
        }
        Command::SetRollout { to, is_forced } => rollout::set(state, event.at, *to, *is_forced),
        Command::Promote { is_forced, pilot } => {
            rollout::promote(state, event.at, *is_forced, *pilot)
        }
        Command::Demote => rollout::demote(state, event.at),
        Command::AdoptSettings { settings } => control::adopt(state, event.at, settings),
        Command::Stop { kind } => Ok(control::stop(*kind)),
        Command::PickTask { text } => Ok(control::pick(state, text)),
    }
}

/// Refuses what has to wait for something that the monitor is about to end: by itself where one runs.
fn wait(reason: String) -> Refusal {
    Refusal::busy(reason).with_hint(
        "try again in a moment; where no monitor runs, `pipeline monitor --once` ends it first",
    )
}

/// Finds a task, or says that there is none.
pub(super) fn find<'a>(state: &'a State, id: &TaskId) -> Result<&'a Task, Refusal> {
    state.tasks.get(id).ok_or_else(|| {
        Refusal::invalid(format!("there is no task `{id}`")).with_hint("see `pipeline task list`")
    })
}
