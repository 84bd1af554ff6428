//! `pipeline task import`: a backlog file becomes tasks, all or none, in one transaction.
//!
//! [`json::parse`] reads the file and knows nothing of the project; [`resolve`] holds it against
//! the state.

mod epics;
mod field;
pub mod json;
pub mod outline;

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use serde_json::json;

use crate::machine::change::TaskChange;
use crate::machine::event::NewTask;
use crate::machine::id::TaskId;
use crate::machine::task::TaskKind;
use crate::machine::{Answer, Change, Command, Event, EventBody, State, step};
use crate::sys::clock::{Clock, SystemClock};

use super::add::read_file;
use super::console::Console;
use super::error::Error;
use super::exit_code::Kind;
use super::gate::{self, Gate, Sent};
use super::serve;
use super::task_args::{ImportArgs, OnMissing};
use super::value;

/// Largest file read.
pub const FILE_BYTES_MAX: u64 = 64 * 1024 * 1024;

/// Warnings shown; the rest is counted.
const WARNINGS_MAX: usize = 10;

/// What a backlog file holds.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Parsed {
    /// In order of the file. Stage names are as written; dependencies on skipped tasks are left
    /// out.
    pub tasks: Vec<NewTask>,
    /// Epics that a task or another such epic names, in order of their ids.
    pub epics: Vec<NewTask>,
    /// Finished tasks that were left out.
    pub skipped: usize,
    /// Values that mean nothing here and were kept as they are, one sentence each.
    pub warnings: Vec<String>,
}

/// What [`json::parse`] is to do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Finished {
    /// They count as met.
    Skip,
    /// They are imported as open.
    Open,
}

/// Imports a backlog file.
///
/// # Errors
/// A file that cannot be read or is wrong, unknown dependencies, what the machine refuses, and what
/// the store reports; the state is then as before.
pub fn run(
    gate: &mut dyn Gate,
    console: &mut Console<'_>,
    dir: &Path,
    args: &ImportArgs,
) -> Result<(), Error> {
    check_format(&args.format)?;
    let is_input = args.file.as_os_str() == "-";
    let path = dir.join(&args.file);
    let name = if is_input { "standard input".into() } else { format!("`{}`", path.display()) };
    let bytes = if is_input {
        console.input(&name, FILE_BYTES_MAX)?
    } else {
        read_file(&path, &name, FILE_BYTES_MAX)?
    };
    // A store that fails is told as it is: nothing is wrong with the file then.
    let within = |mut error: Error| {
        if error.kind != Kind::Invalid {
            return error;
        }
        error.path = error.path.or_else(|| (!is_input).then(|| path.clone()));
        error.message = format!("cannot import {name}: {}", error.message);
        error
    };
    let finished = if args.all { Finished::Open } else { Finished::Skip };
    let mut parsed = json::parse(&bytes, finished).map_err(within)?;
    let skipped = parsed.skipped;
    let (state, _) = gate.state()?;
    let tasks = resolve(&mut parsed, state, args.on_missing).map_err(within)?;
    warn(console, &parsed.warnings);
    let command = Command::AddTasks { tasks };
    let sent = if args.dry_run {
        rehearse(state, command).map_err(within)?
    } else {
        gate::send(gate, console, command).map_err(within)?
    };
    tell(console, &sent, skipped, args)?;
    // They are imported: what goes wrong from here on must not make it look otherwise.
    if let Ok((state, _)) = gate.state() {
        serve::warn(state, &sent, console);
    }
    Ok(())
}

fn check_format(format: &str) -> Result<(), Error> {
    match format {
        "json" => Ok(()),
        "jsonl" | "taskmaster" | "beads" | "github" | "markdown" => {
            Err(Error::usage(format!("format `{format}`: not yet")).hint("the format is json"))
        }
        _ => Err(Error::usage(format!("`{}` is no format", format.escape_debug()))
            .hint("the format is json")),
    }
}

fn warn(console: &mut Console<'_>, warnings: &[String]) {
    for text in warnings.iter().take(WARNINGS_MAX) {
        console.warn(text);
    }
    if warnings.len() > WARNINGS_MAX {
        console.warn(&format!("{} more warnings", warnings.len() - WARNINGS_MAX));
    }
}

/// Asks the machine what it would say, and changes nothing.
fn rehearse(state: &State, command: Command) -> Result<Sent, Error> {
    let at = SystemClock::start().now();
    let event = Event { at, random: 0, body: EventBody::Command(command) };
    let done = step(state, &event);
    match done.answer {
        Answer::Accept => Ok(Sent { note: None, changes: done.changes }),
        Answer::Note(note) => Ok(Sent { note: Some(note), changes: done.changes }),
        Answer::Refuse(refusal) => Err(refusal.into()),
    }
}

/// Returns the tasks to add, epics first: stages by their long names, existing epics left out, and
/// unknown dependencies treated as asked.
///
/// # Errors
/// Every unknown dependency, and every unknown stage.
pub fn resolve(
    parsed: &mut Parsed,
    state: &State,
    on_missing: OnMissing,
) -> Result<Vec<NewTask>, Error> {
    let existing = existing_epics(parsed, state);
    let mut batch = std::mem::take(&mut parsed.epics);
    batch.retain(|epic| epic.id.as_ref().is_none_or(|id| !existing.contains_key(id)));
    batch.append(&mut parsed.tasks);
    let known: BTreeSet<TaskId> = batch.iter().filter_map(|task| task.id.clone()).collect();
    let mut dangling = Vec::new();
    let mut problems = Vec::new();
    for (index, task) in batch.iter_mut().enumerate() {
        let name = task.id.as_ref().map_or_else(|| format!("task {index}"), |id| format!("`{id}`"));
        task.may_lack_dependencies = on_missing == OnMissing::Block;
        if let Some(parent) = &mut task.spec.parent {
            *parent = existing.get(parent).unwrap_or(parent).clone();
        }
        for dep in &mut task.spec.depends_on {
            *dep = existing.get(dep).unwrap_or(dep).clone();
        }
        task.spec.depends_on.retain(|dep| {
            let is_known = known.contains(dep) || state.tasks.contains_key(dep);
            if !is_known {
                dangling.push(format!("{name} depends on unknown `{dep}`"));
            }
            is_known || on_missing != OnMissing::Ignore
        });
        for stage in &mut task.spec.stages {
            match value::stage(&state.settings, stage.as_str()) {
                Ok(found) => *stage = found,
                Err(why) => problems.push(format!("{name}: field `stages`: {why}")),
            }
        }
    }
    if !problems.is_empty() {
        return Err(Error::invalid(problems.join("; ")));
    }
    match on_missing {
        OnMissing::Error if !dangling.is_empty() => Err(Error::invalid(dangling.join("; "))
            .hint("add the missing tasks, or say `--on-missing ignore` or `block`")),
        OnMissing::Ignore => {
            parsed.warnings.extend(dangling.into_iter().map(|text| format!("{text}: ignored")));
            Ok(batch)
        }
        OnMissing::Error | OnMissing::Block => Ok(batch),
    }
}

/// Returns the ids of the file's epics that exist, as the state spells them.
fn existing_epics(parsed: &Parsed, state: &State) -> BTreeMap<TaskId, TaskId> {
    let folded = |id: &TaskId| id.as_str().to_ascii_lowercase();
    let ids = parsed.epics.iter().filter_map(|epic| epic.id.as_ref());
    let wanted: BTreeMap<String, &TaskId> = ids.map(|id| (folded(id), id)).collect();
    if wanted.is_empty() {
        return BTreeMap::new();
    }
    let epics = state.tasks.values().filter(|task| task.spec.kind == TaskKind::Epic);
    let pair = |id: &TaskId| wanted.get(&folded(id)).map(|own| ((*own).clone(), id.clone()));
    epics.filter_map(|task| pair(&task.id)).collect()
}

/// Says what was imported; epics are counted apart.
fn tell(
    console: &mut Console<'_>,
    sent: &Sent,
    skipped: usize,
    args: &ImportArgs,
) -> Result<(), Error> {
    let (mut ids, mut epic_ids) = (Vec::new(), Vec::new());
    for change in &sent.changes {
        if let Change::Task(id, TaskChange::Added { task }) = change {
            match task.spec.kind {
                TaskKind::Task => ids.push(id.as_str()),
                TaskKind::Epic => epic_ids.push(id.as_str()),
            }
        }
    }
    let (tasks, epics) = (ids.len(), epic_ids.len());
    let json = json!({
        "imported": tasks, "epics": epics, "skipped": skipped,
        "ids": ids, "epic_ids": epic_ids, "dry_run": args.dry_run,
    });
    let verb = if args.dry_run { "would import" } else { "imported" };
    let tasks = counted(tasks, "task");
    let epics = counted(epics, "epic");
    console.data(&json, &format!("{verb} {tasks} and {epics}, skipped {skipped}"))
}

fn counted(count: usize, noun: &str) -> String {
    let end = if count == 1 { "" } else { "s" };
    format!("{count} {noun}{end}")
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use crate::cli::args::{Command, parse};
    use crate::cli::console::Format;
    use crate::cli::console::tests::captured;
    use crate::cli::gate::memory::Memory;
    use crate::machine::id::TaskId;
    use crate::machine::task::{TaskKind, TaskPhase};

    /// Imports from standard input; returns (exit code, output, error output).
    fn import(memory: &mut Memory, input: &str, flags: &str) -> (u8, String, String) {
        let words = ["pipeline", "task", "import", "-"].into_iter().chain(flags.split_whitespace());
        let args = parse(&words.map(Into::into).collect::<Vec<_>>()).expect("good usage");
        let Command::Task(crate::cli::task_args::TaskCommand::Import(import)) = args.command else {
            panic!("no import")
        };
        let format = if args.globals.json { Format::Json } else { Format::Text };
        let (done, out, err) = captured(input, format, |console| {
            super::run(memory, console, Path::new("/nowhere"), &import)
                .inspect_err(|error| console.error(error))
        });
        (done.map_or_else(|error| error.kind.exit().number(), |()| 0), out, err)
    }

    const BACKLOG: &str = r#"{
        "epics": [{"id": "E1", "title": "First"}, {"id": "E2", "title": "Nobody's"}],
        "tasks": [
            {"id": "a", "title": "A", "status": "done", "epic": "E1"},
            {"id": "b", "title": "B", "dependencies": ["a"], "epic": "First", "stages": ["impl"]},
            {"id": "c", "title": "C", "depends_on": ["b"], "epic": "Big things!", "status": "wip"}
        ]}"#;

    #[test]
    fn finished_tasks_are_skipped_and_count_as_met() {
        let mut memory = Memory::new();
        let (code, out, err) = import(&mut memory, BACKLOG, "");
        assert_eq!((code, err.as_str()), (0, ""));
        assert_eq!(out, "imported 2 tasks and 2 epics, skipped 1\n");
        let task = |id: &str| &memory.state.tasks[&TaskId::new(id)];
        assert!(task("b").spec.depends_on.is_empty());
        assert_eq!(task("b").spec.parent, Some(TaskId::new("E1")));
        assert_eq!(task("b").spec.stages[0].as_str(), "implementation");
        assert_eq!(task("c").spec.parent, Some(TaskId::new("Big-things")));
        assert_eq!(task("Big-things").spec.kind, TaskKind::Epic);
        assert_eq!(task("Big-things").spec.title, "Big things!");
    }

    #[test]
    fn all_imports_them_as_open() {
        let mut memory = Memory::new();
        let (_, out, _) = import(&mut memory, BACKLOG, "--all --json");
        let json = "{\"dry_run\":false,\"epic_ids\":[\"Big-things\",\"E1\"],\"epics\":2,\
                    \"ids\":[\"a\",\"b\",\"c\"],\"imported\":3,\"skipped\":0}\n";
        assert_eq!(out, json);
        assert_eq!(memory.state.tasks[&TaskId::new("b")].spec.depends_on, [TaskId::new("a")]);
    }

    #[test]
    fn dry_run_says_the_same_and_changes_nothing() {
        let mut memory = Memory::new();
        let (code, out, _) = import(&mut memory, BACKLOG, "-n");
        assert_eq!((code, out.as_str()), (0, "would import 2 tasks and 2 epics, skipped 1\n"));
        assert!(memory.state.tasks.is_empty());
        let cycle = r#"[{"id":"a","title":"A","depends_on":["b"]},
                        {"id":"b","title":"B","depends_on":["a"]}]"#;
        let (code, _, err) = import(&mut memory, cycle, "-n");
        assert_eq!(code, 2);
        assert!(err.contains("dependencies form a cycle: a -> b -> a"), "{err}");
    }

    #[test]
    fn every_unknown_dependency_is_named_and_nothing_is_imported() {
        let mut memory = Memory::with(&["old"]);
        let tasks: Vec<String> = (0..50)
            .map(|n| format!(r#"{{"id":"t{n}","title":"T","depends_on":["gone{n}","old"]}}"#))
            .collect();
        let input = format!("[{}]", tasks.join(","));
        let (code, out, err) = import(&mut memory, &input, "");
        assert_eq!((code, out.as_str()), (2, ""));
        for n in 0..50 {
            assert!(err.contains(&format!("`t{n}` depends on unknown `gone{n}`")), "{err}");
        }
        assert_eq!(memory.state.tasks.len(), 1);
        assert_eq!(import(&mut memory, &input, "--on-missing ignore").0, 0);
        assert_eq!(memory.state.tasks[&TaskId::new("t7")].spec.depends_on, [TaskId::new("old")]);
    }

    #[test]
    fn unknown_dependencies_may_block() {
        let mut memory = Memory::new();
        let input = r#"[{"id":"a","title":"A","depends_on":["gone"]}]"#;
        assert_eq!(import(&mut memory, input, "--on-missing block").0, 0);
        memory.turn();
        let task = &memory.state.tasks[&TaskId::new("a")];
        assert!(matches!(task.phase, TaskPhase::Blocked(_)), "{:?}", task.phase);
    }

    #[test]
    fn epics_that_exist_are_used_in_any_case() {
        let mut memory = Memory::new();
        assert_eq!(import(&mut memory, r#"[{"id":"a","title":"A","epic":"Core"}]"#, "").0, 0);
        let (code, out, err) =
            import(&mut memory, r#"[{"id":"b","title":"B","epic":"core","dependencies":[1]}]"#, "");
        assert_eq!(code, 2, "{out}");
        assert!(err.contains("`b` depends on unknown `1`"), "{err}");
        let (_, out, _) = import(&mut memory, r#"[{"id":"b","title":"B","epic":"core"}]"#, "");
        assert_eq!(out, "imported 1 task and 0 epics, skipped 0\n");
        assert_eq!(memory.state.tasks[&TaskId::new("b")].spec.parent, Some(TaskId::new("Core")));
    }

    #[test]
    fn what_exists_is_not_imported_again() {
        let mut memory = Memory::new();
        assert_eq!(import(&mut memory, BACKLOG, "").0, 0);
        let (code, _, err) = import(&mut memory, BACKLOG, "");
        assert_eq!(code, 2);
        assert!(err.contains("error: cannot import standard input: task `b` exists"), "{err}");
    }

    #[test]
    fn formats_that_are_not_built_say_so() {
        for (format, text) in [("beads", "format `beads`: not yet"), ("x", "`x` is no format")] {
            let (code, _, err) = import(&mut Memory::new(), "[]", &format!("--format {format}"));
            assert_eq!(code, 2);
            assert!(err.contains(text), "{err}");
        }
    }

    #[test]
    fn unknown_stages_and_unserved_needs_are_told() {
        let mut memory = Memory::new();
        let (code, _, err) =
            import(&mut memory, r#"[{"id":"a","title":"A","stages":["deploy"]}]"#, "");
        assert_eq!(code, 2);
        assert!(err.contains("`a`: field `stages`: there is no stage `deploy`"), "{err}");
        let (code, _, err) = import(&mut memory, r#"[{"id":"a","title":"A","agent":"gui"}]"#, "");
        assert_eq!(code, 0);
        assert!(err.contains("warning: task `a`: no agent of stage `test` has `gui`"), "{err}");
    }

    #[test]
    fn missing_files_are_bad_input() {
        let words = ["pipeline", "task", "import", "gone.json"].map(Into::into);
        let args = parse(&words).expect("good usage");
        let Command::Task(crate::cli::task_args::TaskCommand::Import(args)) = args.command else {
            panic!("no import")
        };
        let (done, _, _) = captured("", Format::Text, |console| {
            super::run(&mut Memory::new(), console, Path::new("/nowhere"), &args)
        });
        let error = done.unwrap_err();
        assert_eq!(error.kind.exit().number(), 2);
        assert_eq!(error.path.as_deref(), Some(Path::new("/nowhere/gone.json")));
    }
}
