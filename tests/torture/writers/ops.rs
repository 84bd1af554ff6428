//! What a writer asks for: the same thing as words for the program and as a command of the machine.

use pipeline::machine::change::{ProjectChange, TaskChange};
use pipeline::machine::event::{Dependents, Edit, NewTask, RetryTarget};
use pipeline::machine::id::{AgentName, TaskId};
use pipeline::machine::task::{Spec, TaskPhase};
use pipeline::machine::{Change, Command};

/// One request. A tag is in no other request, so its record can be told from all others.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Op {
    Add { tag: String, id: Option<String>, needs: Vec<String>, is_held: bool },
    Edit { tag: String, id: String },
    Retry { tag: String, id: String },
    Hold { id: String, is_held: bool },
    Cancel { id: String },
    Pause { is_paused: bool },
    PauseAgent { name: String, is_paused: bool },
}

impl Op {
    /// Returns the program's arguments.
    pub fn args(&self) -> Vec<String> {
        let mut words: Vec<&str> = vec!["--json"];
        match self {
            Self::Add { tag, id, needs, is_held } => {
                words.extend(["task", "add", tag]);
                id.iter().for_each(|id| words.extend(["--id", id]));
                needs.iter().for_each(|id| words.extend(["--depends-on", id]));
                words.extend(is_held.then_some("--hold"));
            }
            Self::Edit { tag, id } => words.extend(["task", "edit", id, "--title", tag]),
            Self::Retry { tag, id } => words.extend(["task", "retry", id, "--note", tag]),
            Self::Hold { id, is_held } => {
                words.extend(["task", if *is_held { "hold" } else { "release" }, id]);
            }
            Self::Cancel { id } => words.extend(["task", "cancel", id]),
            Self::Pause { is_paused } => words.push(if *is_paused { "pause" } else { "resume" }),
            Self::PauseAgent { name, is_paused } => {
                words.extend(["agent", if *is_paused { "pause" } else { "resume" }, name]);
            }
        }
        words.into_iter().map(str::to_owned).collect()
    }

    /// Returns what the machine is asked.
    pub fn command(&self) -> Command {
        match self {
            Self::Add { tag, id, needs, is_held } => {
                let depends_on = needs.iter().map(TaskId::new).collect();
                let spec = Spec { title: tag.clone(), depends_on, ..Spec::default() };
                let id = id.as_ref().map(TaskId::new);
                let (is_front, may_lack_dependencies) = (false, false);
                let is_held = *is_held;
                let task = NewTask { id, spec, is_front, is_held, may_lack_dependencies };
                Command::AddTasks { tasks: vec![task] }
            }
            Self::Edit { tag, id } => {
                let edit = Box::new(Edit { title: Some(tag.clone()), ..Edit::default() });
                Command::EditTask { id: TaskId::new(id), edit }
            }
            Self::Retry { tag, id } => {
                let target = RetryTarget::Tasks(vec![TaskId::new(id)]);
                let note = Some(tag.clone());
                Command::RetryTasks { target, stage: None, note, is_fresh: false }
            }
            Self::Hold { id, is_held: true } => Command::HoldTasks { ids: vec![TaskId::new(id)] },
            Self::Hold { id, is_held: false } => {
                Command::ReleaseTasks { ids: vec![TaskId::new(id)] }
            }
            Self::Cancel { id } => {
                let ids = vec![TaskId::new(id)];
                Command::CancelTasks { ids, dependents: Dependents::Refuse }
            }
            Self::Pause { is_paused: true } => Command::Pause,
            Self::Pause { is_paused: false } => Command::Resume,
            Self::PauseAgent { name, is_paused } => {
                let name = AgentName::new(name);
                if *is_paused {
                    Command::PauseAgent { name }
                } else {
                    Command::ResumeAgent { name }
                }
            }
        }
    }

    /// Returns what its record is found by; equal requests without a tag have the same.
    pub fn key(&self) -> String {
        match self {
            Self::Add { tag, .. } | Self::Edit { tag, .. } | Self::Retry { tag, .. } => tag.clone(),
            Self::Hold { id, is_held } => held_key(id, *is_held),
            Self::Cancel { id } => cancel_key(id),
            Self::Pause { is_paused } => pause_key("", *is_paused),
            Self::PauseAgent { name, is_paused } => pause_key(name, *is_paused),
        }
    }
}

fn held_key(id: &str, is_held: bool) -> String {
    format!("hold {id} {is_held}")
}

fn cancel_key(id: &str) -> String {
    format!("cancel {id}")
}

fn pause_key(name: &str, is_paused: bool) -> String {
    format!("pause {name} {is_paused}")
}

/// Returns the key of a record that a command made; `None` when none of ours makes such a one.
pub fn record_key(changes: &[Change]) -> Option<String> {
    changes.iter().find_map(|change| match change {
        Change::Task(id, change) => match change {
            TaskChange::Added { task } => Some(task.spec.title.clone()),
            TaskChange::Edited { spec, .. } => Some(spec.title.clone()),
            TaskChange::Steered { steer } => steer.hint.clone(),
            TaskChange::HeldSet { is_held } => Some(held_key(id.as_str(), *is_held)),
            TaskChange::Moved { to: TaskPhase::Cancelled { .. }, .. } => {
                Some(cancel_key(id.as_str()))
            }
            _ => None,
        },
        Change::Project(ProjectChange::PauseSet { is_paused }) => Some(pause_key("", *is_paused)),
        Change::Project(ProjectChange::AgentPauseSet { name, is_paused }) => {
            Some(pause_key(name.as_str(), *is_paused))
        }
        Change::Project(_) | Change::Attempt(..) | Change::Lane(_) => None,
    })
}

/// What a process answered.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Answer {
    /// Done, and it changed something; the id that was printed.
    Changed(Option<String>),
    /// Done, there was nothing to change.
    Unchanged,
    /// Refused by the machine.
    Refused,
    /// Killed before it answered.
    Killed,
    /// It could not have the lock: nothing was done.
    Locked,
}

/// Reads an answer.
///
/// # Errors
/// What it answered, when no command may answer so.
pub fn answer(op: &Op, code: Option<i32>, out: &str, err: &str) -> Result<Answer, String> {
    let odd = || Err(format!("{:?} answered {code:?}: {out}{err}", op.args()));
    let data: Option<serde_json::Value> = serde_json::from_str(out).ok();
    // What was printed is told, even if the kill came before the exit.
    let is_told = data.is_some();
    match (code, op) {
        (None, _) if !is_told => Ok(Answer::Killed),
        (None | Some(0), Op::Add { .. }) => {
            let id = data.and_then(|data| data["id"].as_str().map(str::to_owned));
            if id.is_some() { Ok(Answer::Changed(id)) } else { odd() }
        }
        (None | Some(0), Op::Hold { .. } | Op::Cancel { .. } | Op::Retry { .. }) => {
            match data.as_ref().and_then(|data| data["tasks"].as_array()).map(Vec::len) {
                Some(0) => Ok(Answer::Unchanged),
                Some(1) => Ok(Answer::Changed(None)),
                _ => odd(),
            }
        }
        (Some(0), Op::Pause { .. } | Op::PauseAgent { .. }) if err.contains("\"note\"") => {
            Ok(Answer::Unchanged)
        }
        (Some(0), Op::Edit { .. } | Op::Pause { .. } | Op::PauseAgent { .. }) => {
            Ok(Answer::Changed(None))
        }
        (Some(4), _) if err.contains("--lock-timeout") => Ok(Answer::Locked),
        (Some(2 | 4), _) => Ok(Answer::Refused),
        _ => odd(),
    }
}
