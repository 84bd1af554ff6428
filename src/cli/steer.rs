//! Commands on tasks that exist: hold, release, retry, cancel, approve.

use serde_json::json;

use crate::machine::attempt::Class;
use crate::machine::event::{Dependents, RetryTarget};
use crate::machine::id::TaskId;
use crate::machine::progress;
use crate::machine::task::{Task, TaskKind, TaskPhase};
use crate::machine::{Command, State};
use crate::observe::blocked::{Blocked, blocked};
use crate::observe::page::first_line;
use crate::observe::words::listed;

use super::add::said;
use super::console::{Console, Format};
use super::error::Error;
use super::gate::{self, Gate, Sent};
use super::task_args::{CancelArgs, DependentsArg, IdsArgs, RetryArgs};
use super::value;

/// Tasks named in one note; the rest is counted.
const NAMES_MAX: usize = 10;

/// Holds tasks back.
///
/// # Errors
/// What the machine refuses, and what the store reports.
pub fn hold(gate: &mut dyn Gate, console: &mut Console<'_>, args: &IdsArgs) -> Result<(), Error> {
    let sent = gate::send(gate, console, Command::HoldTasks { ids: args.ids.clone() })?;
    tell(console, &sent)
}

/// Lets held tasks go on.
///
/// # Errors
/// As [`hold`].
pub fn release(
    gate: &mut dyn Gate,
    console: &mut Console<'_>,
    args: &IdsArgs,
) -> Result<(), Error> {
    let sent = gate::send(gate, console, Command::ReleaseTasks { ids: args.ids.clone() })?;
    tell(console, &sent)
}

/// Allows landings.
///
/// # Errors
/// As [`hold`].
pub fn approve(
    gate: &mut dyn Gate,
    console: &mut Console<'_>,
    args: &IdsArgs,
) -> Result<(), Error> {
    let sent = gate::send(gate, console, Command::ApproveTasks { ids: args.ids.clone() })?;
    tell(console, &sent)
}

/// Lets tasks go on from the stage that failed.
///
/// # Errors
/// As [`hold`]; and an unknown stage.
pub fn retry(
    gate: &mut dyn Gate,
    console: &mut Console<'_>,
    args: &RetryArgs,
) -> Result<(), Error> {
    let note = args.note.as_deref().map(|text| said(console, "note", text)).transpose()?;
    let (state, _) = gate.state()?;
    let elsewhere = if args.blocked { freed_elsewhere(state) } else { Vec::new() };
    let settings = &state.settings;
    let stage = args.stage.as_deref().map(|text| value::stage(settings, text)).transpose();
    let stage = stage.map_err(Error::invalid)?;
    let target =
        if args.blocked { RetryTarget::Blocked } else { RetryTarget::Tasks(args.ids.clone()) };
    let command = Command::RetryTasks { target, stage, note, is_fresh: args.fresh };
    let sent = gate::send(gate, console, command)?;
    for line in elsewhere.iter().take(NAMES_MAX) {
        console.note(line);
    }
    if elsewhere.len() > NAMES_MAX {
        console.note(&format!("and {} more: pipeline status", elsewhere.len() - NAMES_MAX));
    }
    tell(console, &sent)
}

/// Returns, of the blocked tasks that no retry frees, what does.
fn freed_elsewhere(state: &State) -> Vec<String> {
    let is_one = |task: &&Task| match &task.phase {
        TaskPhase::Blocked(block) => block.class == Class::Dependency || task.taken.is_some(),
        _ => false,
    };
    let entries = state.tasks.values().filter(is_one).filter_map(|task| blocked(state, task));
    // What another blocked task holds up goes on with that one.
    let own = entries.filter(|entry| entry.is_root);
    own.map(|Blocked { id, reason, next, .. }| {
        format!("task `{id}` stays blocked: {}; type: {next}", first_line(reason))
    })
    .collect()
}

/// Gives tasks up.
///
/// # Errors
/// As [`hold`].
pub fn cancel(
    gate: &mut dyn Gate,
    console: &mut Console<'_>,
    args: &CancelArgs,
) -> Result<(), Error> {
    let dependents = match args.dependents {
        None => Dependents::Refuse,
        Some(DependentsArg::Cancel) => Dependents::Cancel,
        Some(DependentsArg::Release) => Dependents::Release,
    };
    let command = Command::CancelTasks { ids: args.ids.ids.clone(), dependents };
    let sent = gate::send(gate, console, command)?;
    // They are cancelled: what goes wrong from here on must not make it look otherwise.
    if let Ok((state, _)) = gate.state() {
        for id in sent.touched() {
            tell_of_epic(console, state, id);
        }
    }
    tell(console, &sent)
}

/// Says how many tasks below a cancelled epic go on.
fn tell_of_epic(console: &mut Console<'_>, state: &State, id: &TaskId) {
    let is_cancelled_epic = state.tasks.get(id).is_some_and(|task| {
        task.spec.kind == TaskKind::Epic && matches!(task.phase, TaskPhase::Cancelled { .. })
    });
    if is_cancelled_epic {
        let open: Vec<&TaskId> = progress::open_below(state, id).collect();
        if !open.is_empty() {
            let what = if open.len() == 1 {
                "1 task stays"
            } else {
                &format!("{} tasks stay", open.len())
            };
            let names = listed(open.into_iter(), NAMES_MAX);
            console.note(&format!("epic `{id}` is cancelled, and below it {what} open: {names}"));
        }
    }
}

/// Names the tasks that changed; people read it as a note, scripts as data.
fn tell(console: &mut Console<'_>, sent: &Sent) -> Result<(), Error> {
    let ids: Vec<&str> = sent.touched().into_iter().map(|id| id.as_str()).collect();
    match console.format {
        Format::Json => console.json(&json!({ "tasks": ids })),
        Format::Text if !ids.is_empty() => {
            console.note(&format!("changed: {}", ids.join(", ")));
            Ok(())
        }
        Format::Text => {
            if sent.note.is_none() {
                console.note("nothing changed");
            }
            Ok(())
        }
    }
}

#[cfg(test)]
mod tests {
    use crate::cli::args::{Command, parse};
    use crate::cli::console::tests::captured;
    use crate::cli::console::{Console, Format};
    use crate::cli::error::Error;
    use crate::cli::gate::memory::Memory;
    use crate::cli::task_args::TaskCommand;
    use crate::machine::event::Edit;
    use crate::machine::id::TaskId;
    use crate::machine::task::TaskPhase;

    fn act(memory: &mut Memory, console: &mut Console<'_>, line: &str) -> Result<(), Error> {
        let words = ["pipeline", "task"].into_iter().chain(line.split(' ')).map(Into::into);
        match parse(&words.collect::<Vec<_>>()).expect("good usage").command {
            Command::Task(TaskCommand::Hold(args)) => super::hold(memory, console, &args),
            Command::Task(TaskCommand::Release(args)) => super::release(memory, console, &args),
            Command::Task(TaskCommand::Retry(args)) => super::retry(memory, console, &args),
            Command::Task(TaskCommand::Cancel(args)) => super::cancel(memory, console, &args),
            Command::Task(TaskCommand::Approve(args)) => super::approve(memory, console, &args),
            other => panic!("{other:?}"),
        }
    }

    /// Returns (exit code, error output or JSON).
    fn check(memory: &mut Memory, line: &str, format: Format) -> (u8, String) {
        let (done, out, err) = captured("from a person\n", format, |console| {
            act(memory, console, line).inspect_err(|error| console.error(error))
        });
        (done.map_or_else(|error| error.kind.exit().number(), |()| 0), out + &err)
    }

    fn chained() -> Memory {
        let mut memory = Memory::with(&["a", "b", "c"]);
        let edit = Edit { add_depends_on: vec![TaskId::new("a")], ..Edit::default() };
        let command =
            crate::machine::Command::EditTask { id: TaskId::new("b"), edit: Box::new(edit) };
        crate::cli::gate::Gate::send(&mut memory, command).expect("a good edit");
        memory
    }

    #[test]
    fn tasks_are_held_and_released() {
        let mut memory = Memory::with(&["a", "b"]);
        let (code, text) = check(&mut memory, "hold a b", Format::Json);
        assert_eq!((code, text.as_str()), (0, "{\"tasks\":[\"a\",\"b\"]}\n"));
        assert!(memory.state.tasks[&TaskId::new("a")].is_held);
        let (code, text) = check(&mut memory, "release a", Format::Text);
        assert_eq!((code, text.as_str()), (0, "note: changed: a\n"));
        assert!(!memory.state.tasks[&TaskId::new("a")].is_held);
    }

    #[test]
    fn unknown_tasks_are_refused() {
        let mut memory = Memory::with(&["a"]);
        for line in ["hold a x", "release x", "retry x", "cancel x", "approve x"] {
            let (code, text) = check(&mut memory, line, Format::Text);
            assert_eq!(code, 2, "{line}");
            assert!(text.starts_with("error: there is no task `x`\n  hint: "), "{text}");
        }
        assert!(!memory.state.tasks[&TaskId::new("a")].is_held);
    }

    #[test]
    fn what_others_wait_for_is_cancelled_only_when_said() {
        let mut memory = chained();
        let (code, text) = check(&mut memory, "cancel a", Format::Text);
        assert_eq!(code, 4);
        assert!(text.contains("open tasks depend on `a`: b"), "{text}");
        let (code, text) = check(&mut memory, "cancel a --dependents cancel", Format::Json);
        assert_eq!((code, text.as_str()), (0, "{\"tasks\":[\"a\",\"b\"]}\n"));
        let mut memory = chained();
        assert_eq!(check(&mut memory, "cancel a --dependents release", Format::Text).0, 0);
        assert!(memory.state.tasks[&TaskId::new("b")].spec.depends_on.is_empty());
    }

    #[test]
    fn retry_takes_a_stage_and_a_note() {
        let mut memory = Memory::with(&["a"]);
        let (code, _) = check(&mut memory, "retry a --stage impl --note -", Format::Text);
        assert_eq!(code, 0);
        let task = &memory.state.tasks[&TaskId::new("a")];
        assert_eq!(task.hint.as_deref(), Some("from a person\n"));
        assert!(
            matches!(&task.phase, TaskPhase::Ready { stage } if stage.as_str() == "implementation")
        );
        let (code, text) = check(&mut memory, "retry a --stage deploy", Format::Text);
        assert_eq!(code, 2);
        assert!(text.contains("there is no stage `deploy`"), "{text}");
    }

    #[test]
    fn retry_of_all_blocked_says_when_there_are_none() {
        let mut memory = Memory::with(&["a"]);
        let (code, text) = check(&mut memory, "retry --blocked", Format::Text);
        assert_eq!((code, text.as_str()), (0, "note: no task is blocked\n"));
    }

    #[test]
    fn approval_is_for_what_waits_for_it() {
        let mut memory = Memory::with(&["a"]);
        let (code, text) = check(&mut memory, "approve a", Format::Text);
        assert_eq!(code, 2);
        assert!(text.contains("does not wait for approval"), "{text}");
    }

    #[test]
    fn finished_tasks_are_not_held() {
        let mut memory = Memory::with(&["a"]);
        assert_eq!(check(&mut memory, "cancel a", Format::Text).0, 0);
        let (code, text) = check(&mut memory, "hold a", Format::Text);
        assert_eq!(code, 2);
        assert!(text.contains("is finished"), "{text}");
    }

    /// An epic with a task below it and one below an epic of its own; a third is finished.
    fn with_epic() -> Memory {
        let mut memory = Memory::with(&["a", "b", "c"]);
        memory.add_epic("EP");
        memory.add_epic("IN");
        for (id, parent) in [("IN", "EP"), ("a", "EP"), ("b", "IN"), ("c", "EP")] {
            let (id, parent) = (TaskId::new(id), Some(Some(TaskId::new(parent))));
            let edit = Box::new(Edit { parent, ..Edit::default() });
            let command = crate::machine::Command::EditTask { id, edit };
            crate::cli::gate::Gate::send(&mut memory, command).expect("a good edit");
        }
        assert_eq!(check(&mut memory, "cancel c", Format::Text).0, 0);
        memory
    }

    #[test]
    fn an_epic_is_not_held_and_its_tasks_are_named() {
        let mut memory = with_epic();
        let (code, text) = check(&mut memory, "hold EP", Format::Text);
        assert_eq!(code, 2);
        assert!(text.contains("task `EP` is an epic: it has no work of its own"), "{text}");
        assert!(text.contains("hint: hold its tasks: `pipeline task hold a b`"), "{text}");
        assert!(!memory.state.tasks[&TaskId::new("EP")].is_held);
    }

    #[test]
    fn who_cancels_an_epic_is_told_what_stays_open() {
        let mut memory = with_epic();
        let (code, text) = check(&mut memory, "cancel EP", Format::Text);
        let told = "note: epic `EP` is cancelled, and below it 2 tasks stay open: a, b\n";
        assert_eq!((code, text), (0, format!("{told}note: changed: EP\n")));
        let (code, text) = check(&mut memory, "cancel b", Format::Text);
        assert_eq!((code, text.as_str()), (0, "note: changed: b\n"));
    }
}
