//! `pipeline task add`, and how flags become what is said of a task.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::Read;
use std::path::Path;

use serde_json::json;

use crate::machine::Command;
use crate::machine::event::NewTask;
use crate::machine::id::TaskId;
use crate::machine::settings::Settings;
use crate::machine::task::{BODY_BYTES_MAX, Spec};

use super::console::Console;
use super::error::Error;
use super::gate::{self, Gate};
use super::serve;
use super::task_args::{AddArgs, SpecArgs};
use super::value;
use super::when;

/// Adds a task; prints its id and nothing else.
///
/// # Errors
/// Bad values, what the machine refuses, and what the project's store reports.
pub fn run(
    gate: &mut dyn Gate,
    console: &mut Console<'_>,
    dir: &Path,
    args: &AddArgs,
) -> Result<(), Error> {
    let body = body(console, dir, &args.spec)?;
    let spec = spec(&gate.state()?.0.settings, args, body.unwrap_or_default())?;
    let task = NewTask {
        id: args.id.clone(),
        spec,
        is_front: args.spec.front.unwrap_or_default(),
        is_held: args.spec.hold.unwrap_or_default(),
        may_lack_dependencies: false,
    };
    let sent = gate::send(gate, console, Command::AddTasks { tasks: vec![task] })?;
    let id = sent.added().next().cloned();
    let id = id.ok_or_else(|| Error::failed("the task was taken but not added"))?;
    // It is added: what goes wrong from here on must not make it look otherwise.
    console.data(&json!({ "id": id.as_str() }), id.as_str())?;
    if let Ok((state, _)) = gate.state() {
        serve::warn(state, &sent, console);
    }
    Ok(())
}

fn spec(settings: &Settings, args: &AddArgs, body: String) -> Result<Spec, Error> {
    let from = &args.spec;
    let parsed = Parsed::of(settings, from)?;
    Ok(Spec {
        title: args.title.trim().to_owned(),
        body,
        priority: from.priority.unwrap_or_default(),
        kind: args.kind.into(),
        parent: parsed.parent.flatten(),
        depends_on: parsed.depends_on.unwrap_or_default(),
        touches: parsed.touches.unwrap_or_default(),
        stages: parsed.stages.unwrap_or_default(),
        labels: parsed.labels.unwrap_or_default(),
        needs: parsed.needs.unwrap_or_default(),
        complexity: parsed.complexity.flatten(),
        estimate_ms: parsed.estimate_ms.flatten(),
        resources: parsed.resources.unwrap_or_default(),
        is_exclusive: from.exclusive.unwrap_or_default(),
        command: from.command.clone().filter(|command| !command.is_empty()),
        extra: BTreeMap::new(),
    })
}

/// The checked flags of `add` and `edit`; `None`: not given.
pub(super) struct Parsed {
    pub(super) parent: Option<Option<TaskId>>,
    pub(super) depends_on: Option<Vec<TaskId>>,
    pub(super) touches: Option<Vec<String>>,
    pub(super) stages: Option<Vec<crate::machine::id::StageName>>,
    pub(super) labels: Option<Vec<String>>,
    pub(super) needs: Option<Vec<String>>,
    pub(super) complexity: Option<Option<String>>,
    pub(super) estimate_ms: Option<Option<u64>>,
    pub(super) resources: Option<BTreeMap<String, String>>,
}

impl Parsed {
    pub(super) fn of(settings: &Settings, args: &SpecArgs) -> Result<Self, Error> {
        let word = |text: &str| Ok(text.trim().to_owned());
        let stage = |text: &str| value::stage(settings, text);
        let span_ms = |text: &str| {
            when::duration(text).map(|span| u64::try_from(span.as_millis()).unwrap_or(u64::MAX))
        };
        let pairs = list("--resource", args.resource.as_deref(), value::pair)?;
        Ok(Self {
            parent: one("--parent", args.parent.as_deref(), value::id)?,
            depends_on: list("--depends-on", args.depends_on.as_deref(), value::id)?,
            touches: list("--touches", args.touches.as_deref(), value::glob)?,
            stages: list("--stages", args.stages.as_deref(), stage)?,
            labels: list("--label", args.label.as_deref(), word)?,
            needs: list("--needs", args.needs.as_deref(), word)?,
            complexity: one("--complexity", args.complexity.as_deref(), value::complexity)?,
            estimate_ms: one("--estimate", args.estimate.as_deref(), span_ms)?,
            resources: pairs.map(unique).transpose()?,
        })
    }
}

/// Refuses a resource that is given twice.
fn unique(pairs: Vec<(String, String)>) -> Result<BTreeMap<String, String>, Error> {
    let mut resources = BTreeMap::new();
    for (name, amount) in pairs {
        if resources.contains_key(&name) {
            return Err(Error::invalid(format!("resource `{name}` is given twice")));
        }
        resources.insert(name, amount);
    }
    Ok(resources)
}

/// Reads one value; an empty one takes away.
fn one<T>(
    flag: &str,
    text: Option<&str>,
    read: impl Fn(&str) -> Result<T, String>,
) -> Result<Option<Option<T>>, Error> {
    let Some(text) = text else { return Ok(None) };
    if text.is_empty() {
        return Ok(Some(None));
    }
    read(text).map(|value| Some(Some(value))).map_err(|why| bad(flag, text, why))
}

/// Reads a list; empty values are left out.
fn list<T>(
    flag: &str,
    texts: Option<&[String]>,
    read: impl Fn(&str) -> Result<T, String>,
) -> Result<Option<Vec<T>>, Error> {
    let Some(texts) = texts else { return Ok(None) };
    let texts = texts.iter().filter(|text| !text.is_empty());
    let values = texts.map(|text| read(text).map_err(|why| bad(flag, text, why)));
    values.collect::<Result<Vec<T>, Error>>().map(Some)
}

fn bad(flag: &str, text: &str, why: String) -> Error {
    Error::invalid(format!("bad value `{}` for `{flag}`", text.escape_debug())).because_of(why)
}

/// Returns the body that the flags give; `None` when they give none.
///
/// # Errors
/// When the file or standard input cannot be read, is too long or no UTF-8.
pub(super) fn body(
    console: &mut Console<'_>,
    dir: &Path,
    args: &SpecArgs,
) -> Result<Option<String>, Error> {
    match (&args.body, &args.body_file) {
        (Some(text), _) => said(console, "body", text).map(Some),
        (None, Some(path)) if path.as_os_str() == "-" => said(console, "body", "-").map(Some),
        (None, Some(path)) => {
            let path = dir.join(path);
            let what = format!("body file `{}`", path.display());
            let bytes = read_file(&path, &what, BODY_BYTES_MAX as u64)?;
            text(&what, bytes).map(Some)
        }
        (None, None) => Ok(None),
    }
}

/// Returns the text itself, or standard input for `-`.
///
/// # Errors
/// When standard input cannot be read, is too long or no UTF-8.
pub(super) fn said(console: &mut Console<'_>, name: &str, given: &str) -> Result<String, Error> {
    if given != "-" {
        return Ok(given.to_owned());
    }
    let what = format!("{name} from standard input");
    let bytes = console.input(&what, BODY_BYTES_MAX as u64)?;
    text(&what, bytes)
}

fn text(what: &str, bytes: Vec<u8>) -> Result<String, Error> {
    String::from_utf8(bytes)
        .map_err(|error| Error::invalid(format!("{what} is no UTF-8")).because(&error))
}

/// Reads a file, a pipe or a link to one, of at most `bytes_max` bytes.
///
/// # Errors
/// When it cannot be read, or is longer.
pub fn read_file(path: &Path, what: &str, bytes_max: u64) -> Result<Vec<u8>, Error> {
    let mut bytes = Vec::new();
    let read = File::open(path).and_then(|file| file.take(bytes_max + 1).read_to_end(&mut bytes));
    if let Err(error) = read {
        let told = Error::invalid(format!("cannot read {what}")).because(&error).at(path);
        return Err(told.hint("name a file that is there and that you may read"));
    }
    if bytes.len() as u64 > bytes_max {
        return Err(Error::invalid(format!("{what} is longer than {bytes_max} bytes")).at(path));
    }
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use crate::cli::args::{Command, parse};
    use crate::cli::console::Format;
    use crate::cli::console::tests::captured;
    use crate::cli::gate::memory::Memory;
    use crate::cli::task_args::{AddArgs, TaskCommand};
    use crate::machine::id::TaskId;
    use crate::machine::task::Priority;

    fn args(words: &[&str]) -> AddArgs {
        let all = ["pipeline", "task", "add"].iter().chain(words).map(Into::into);
        match parse(&all.collect::<Vec<_>>()).expect("good usage").command {
            Command::Task(TaskCommand::Add(args)) => args,
            other => panic!("{other:?}"),
        }
    }

    /// Returns (exit code, output, error output).
    fn add(memory: &mut Memory, input: &str, words: &[&str]) -> (u8, String, String) {
        let (done, out, err) = captured(input, Format::Text, |console| {
            super::run(memory, console, Path::new("/nowhere"), &args(words))
                .inspect_err(|error| console.error(error))
        });
        (done.map_or_else(|error| error.kind.exit().number(), |()| 0), out, err)
    }

    #[test]
    fn id_alone_is_printed() {
        let mut memory = Memory::new();
        assert_eq!(add(&mut memory, "", &["One"]), (0, "TASK-001\n".into(), String::new()));
        let words = ["Two", "--id", "x", "--depends-on", "TASK-001", "--priority", "high"];
        let more = ["--touches", "src/**", "--stages", "impl", "--front", "--hold", "--body", "-"];
        let words: Vec<&str> = words.into_iter().chain(more).collect();
        assert_eq!(add(&mut memory, "do it\n", &words), (0, "x\n".into(), String::new()));
        let task = &memory.state.tasks[&TaskId::new("x")];
        assert_eq!(task.spec.body, "do it\n");
        assert_eq!(task.spec.priority, Priority::High);
        assert_eq!(task.spec.stages[0].as_str(), "implementation");
        assert!(task.is_front && task.is_held);
    }

    #[test]
    fn a_task_that_asks_for_more_than_there_is_is_told_at_once() {
        let mut memory = Memory::new();
        let (code, out, err) = add(&mut memory, "", &["One", "--resource", "tape=1"]);
        assert_eq!((code, out.as_str()), (0, "TASK-001\n"));
        let told = "warning: task `TASK-001`: `tape`: needs 1, there is 0 in all";
        assert!(err.starts_with(told), "{err}");
    }

    #[test]
    fn a_dependency_on_an_epic_is_said_to_hold_nothing_up() {
        let mut memory = Memory::new();
        add(&mut memory, "", &["E", "--id", "EP", "--kind", "epic"]);
        let (code, out, err) = add(&mut memory, "", &["One", "--depends-on", "EP"]);
        assert_eq!((code, out.as_str()), (0, "TASK-001\n"));
        let told = "warning: task `TASK-001` depends on the epic `EP`, which holds nothing up";
        assert!(err.starts_with(told), "{err}");
        assert_eq!(add(&mut memory, "", &["Two", "--depends-on", "TASK-001"]).2, "");
    }

    #[test]
    fn bad_values_change_nothing() {
        let mut memory = Memory::with(&["a"]);
        for (words, why) in [
            (vec!["T", "--id", "a"], "task `a` exists"),
            (vec!["T", "--id", "A"], "task `A` differs from another id in case only"),
            (vec!["T", "--depends-on", "b"], "depends on unknown `b`"),
            (vec!["T", "--id", "c", "--depends-on", "c"], "task `c` depends on itself"),
            (vec!["T", "--depends-on", "../x"], "bad value `../x` for `--depends-on`"),
            (vec!["T", "--touches", "/etc/*"], "leaves the project"),
            (vec!["T", "--stages", "deploy"], "the stages are test, implementation"),
            (vec!["T", "--parent", "a"], "the parent `a` of task `TASK-001` is not an epic"),
            (vec!["T", "--complexity", "hard"], "expected `simple`, `moderate` or `complex`"),
            (vec!["T", "--body-file", "gone"], "cannot read body file `/nowhere/gone`"),
            (vec!["T", "--resource", "a=1", "--resource", "a=2"], "resource `a` is given twice"),
            (vec![" "], "has no title"),
        ] {
            let (code, out, err) = add(&mut memory, "", &words);
            assert_eq!((code, out.as_str()), (2, ""), "{words:?}");
            assert!(err.contains(why), "{words:?}: {err}");
            assert_eq!(memory.state.tasks.len(), 1);
        }
    }

    #[test]
    fn input_that_is_no_text_is_refused() {
        let mut memory = Memory::new();
        let long = "x".repeat(crate::machine::task::BODY_BYTES_MAX + 1);
        let (code, _, err) = add(&mut memory, &long, &["T", "--body", "-"]);
        assert_eq!(code, 2);
        assert!(err.contains("body from standard input is longer than"), "{err}");
        let dir = tempfile::tempdir().expect("a folder");
        let path = dir.path().join("latin");
        std::fs::write(&path, b"\xff").expect("a file");
        let path = path.to_str().expect("text").to_owned();
        let (code, _, err) = add(&mut memory, "", &["T", "--body-file", &path]);
        assert_eq!(code, 2);
        assert!(err.contains("is no UTF-8"), "{err}");
    }

    #[test]
    fn what_no_agent_can_do_is_added_with_a_warning() {
        let mut memory = Memory::new();
        let (code, out, err) = add(&mut memory, "", &["T", "--needs", "tpu"]);
        assert_eq!((code, out.as_str()), (0, "TASK-001\n"));
        let text = "warning: task `TASK-001`: no agent of stage `test` has `tpu`\n";
        assert_eq!(err, text);
        let words = ["T", "--needs", "coder", "--stages", "impl"];
        assert_eq!(add(&mut memory, "", &words).2, "");
    }
}
