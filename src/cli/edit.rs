//! `pipeline task edit`: by flags, or title and body in the person's editor.

use std::fs;
use std::path::Path;
use std::process::Stdio;

use crate::machine::Command;
use crate::machine::event::Edit;
use crate::machine::settings::Settings;
use crate::machine::task::{BODY_BYTES_MAX, TITLE_BYTES_MAX, TaskKind};
use crate::sys::{child, fail};

use super::add::{Parsed, body, read_file};
use super::console::Console;
use super::error::Error;
use super::gate::{self, Gate};
use super::serve;
use super::task_args::EditArgs;

/// Changes a task.
///
/// # Errors
/// Bad values, what the machine refuses, an editor that fails, and what the store reports.
pub fn run(
    gate: &mut dyn Gate,
    console: &mut Console<'_>,
    dir: &Path,
    args: &EditArgs,
    editor: Option<&str>,
) -> Result<(), Error> {
    let body = body(console, dir, &args.spec)?;
    let edit = from_flags(&gate.state()?.0.settings, args, body)?;
    if edit == Edit::default() {
        return by_hand(gate, console, dir, args, editor);
    }
    send(gate, console, args, edit)
}

fn send(
    gate: &mut dyn Gate,
    console: &mut Console<'_>,
    args: &EditArgs,
    edit: Edit,
) -> Result<(), Error> {
    let command = Command::EditTask { id: args.id.clone(), edit: Box::new(edit) };
    gate::send(gate, console, command)?;
    // It is changed: what goes wrong from here on must not make it look otherwise.
    if let Ok((state, _)) = gate.state() {
        serve::warn_of(state, &args.id, console);
    }
    Ok(())
}

/// Returns the editor that the environment names: `VISUAL`, else `EDITOR`; `None` without either.
#[must_use]
pub fn editor() -> Option<String> {
    let named = |name: &str| std::env::var(name).ok().filter(|text| !text.trim().is_empty());
    named("VISUAL").or_else(|| named("EDITOR"))
}

fn from_flags(settings: &Settings, args: &EditArgs, body: Option<String>) -> Result<Edit, Error> {
    let parsed = Parsed::of(settings, &args.spec)?;
    Ok(Edit {
        title: args.title.as_ref().map(|title| title.trim().to_owned()),
        body,
        priority: args.spec.priority,
        kind: args.kind.map(TaskKind::from),
        parent: parsed.parent,
        depends_on: parsed.depends_on,
        add_depends_on: args.add_depends_on.clone(),
        remove_depends_on: args.remove_depends_on.clone(),
        touches: parsed.touches,
        stages: parsed.stages,
        labels: parsed.labels,
        needs: parsed.needs,
        complexity: parsed.complexity,
        estimate_ms: parsed.estimate_ms,
        resources: parsed.resources,
        command: args.spec.command.clone(),
        is_exclusive: args.spec.exclusive,
        is_front: args.spec.front,
        is_held: args.spec.hold,
    })
}

/// Lets the person edit the form; it is kept when it cannot be taken.
fn by_hand(
    gate: &mut dyn Gate,
    console: &mut Console<'_>,
    dir: &Path,
    args: &EditArgs,
    editor: Option<&str>,
) -> Result<(), Error> {
    let id = &args.id;
    let (state, _) = gate.state()?;
    let Some(task) = state.tasks.get(id) else {
        return Err(
            Error::invalid(format!("there is no task `{id}`")).hint("see `pipeline task list`")
        );
    };
    let Some(editor) = editor else {
        return Err(Error::usage(format!("nothing says how to change task `{id}`"))
            .hint("give flags such as `--title`, or set EDITOR"));
    };
    let (title, body) = (task.spec.title.clone(), task.spec.body.clone());
    let form = format!("{title}\n\n{body}");
    let cannot = |error: &dyn std::error::Error| {
        Error::failed(format!("cannot edit task `{id}`")).because(error)
    };
    let prefix = format!("{id}-");
    let file = tempfile::Builder::new().prefix(&prefix).suffix(".md").tempfile();
    let file = file.map_err(|error| cannot(&error))?.into_temp_path();
    fail::point("edit.write").and_then(|()| fs::write(&file, &form)).map_err(|e| cannot(&e))?;
    open(editor, dir, &file)?;
    let take = || -> Result<Option<(String, String)>, Error> {
        let bytes_max = (TITLE_BYTES_MAX + BODY_BYTES_MAX + 2) as u64;
        let bytes = read_file(&file, "the edited task", bytes_max)?;
        let text = String::from_utf8(bytes)
            .map_err(|error| Error::invalid("the edited task is no UTF-8").because(&error))?;
        if text == form { Ok(None) } else { read_form(&text).map(Some) }
    };
    let sent = take().and_then(|edited| match edited {
        None => {
            console.note("nothing changed");
            Ok(())
        }
        Some((new_title, new_body)) => {
            let is_new = |new: &str, old: &str| new.trim_end() != old.trim_end();
            let edit = Edit {
                title: is_new(&new_title, &title).then_some(new_title),
                body: is_new(&new_body, &body).then_some(new_body),
                ..Edit::default()
            };
            send(gate, console, args, edit)
        }
    });
    sent.map_err(|error| match file.keep() {
        Ok(path) => error.hint(format!("what you wrote is in {}", path.display())),
        Err(_) => error,
    })
}

/// Runs the editor as a shell would, on the terminal of this process.
fn open(editor: &str, dir: &Path, file: &Path) -> Result<(), Error> {
    let failed = || Error::failed(format!("the editor `{editor}` failed"));
    let script = format!("{editor} \"$@\"");
    fail::point("edit.spawn").map_err(|error| failed().because(&error))?;
    let mut command = child::command("sh", dir);
    command.arg("-c").arg(script).arg(editor).arg(file).stdin(Stdio::inherit());
    let status = command.status().map_err(|error| failed().because(&error))?;
    if status.success() { Ok(()) } else { Err(failed().because_of(status.to_string())) }
}

/// Splits the form: the title on the first line, the body after the next empty lines.
fn read_form(text: &str) -> Result<(String, String), Error> {
    let text = text.strip_prefix('\u{feff}').unwrap_or(text);
    let (title, body) = text.split_once('\n').unwrap_or((text, ""));
    if title.trim().is_empty() {
        return Err(Error::invalid("the edited task has no title on its first line"));
    }
    let body = body.trim_start_matches(['\n', '\r']).trim_end();
    let end = if body.is_empty() { "" } else { "\n" };
    Ok((title.trim().to_owned(), format!("{body}{end}")))
}

#[cfg(test)]
mod tests {
    use crate::cli::args::{Command, parse};
    use crate::cli::console::Format;
    use crate::cli::console::tests::captured;
    use crate::cli::gate::memory::Memory;
    use crate::cli::task_args::{EditArgs, TaskCommand};
    use crate::machine::id::TaskId;
    use crate::machine::task::{Task, TaskKind};

    fn args(words: &[&str]) -> EditArgs {
        let all = ["pipeline", "task", "edit"].iter().chain(words).map(Into::into);
        match parse(&all.collect::<Vec<_>>()).expect("good usage").command {
            Command::Task(TaskCommand::Edit(args)) => args,
            other => panic!("{other:?}"),
        }
    }

    fn edit(memory: &mut Memory, words: &[&str], editor: Option<&str>) -> (u8, String) {
        let dir = tempfile::tempdir().expect("a folder");
        let (done, out, err) = captured("", Format::Text, |console| {
            super::run(memory, console, dir.path(), &args(words), editor)
                .inspect_err(|error| console.error(error))
        });
        assert_eq!(out, "");
        (done.map_or_else(|error| error.kind.exit().number(), |()| 0), err)
    }

    fn task(memory: &Memory) -> &Task {
        &memory.state.tasks[&TaskId::new("a")]
    }

    #[test]
    fn flags_change_what_they_name_and_empty_values_take_away() {
        let mut memory = Memory::with(&["a", "b", "c"]);
        let words = ["a", "--title", "New", "--depends-on", "b", "--needs", "gpu", "--exclusive"];
        assert_eq!(edit(&mut memory, &words, None), (0, String::new()));
        let spec = &task(&memory).spec;
        assert_eq!((spec.title.as_str(), spec.is_exclusive), ("New", true));
        let words = ["a", "--add-depends-on", "c", "--remove-depends-on", "b", "--exclusive=false"];
        assert_eq!(edit(&mut memory, &words, None).0, 0);
        assert_eq!(task(&memory).spec.depends_on, [TaskId::new("c")]);
        let words = ["a", "--depends-on", "", "--needs", "", "--body", "text"];
        assert_eq!(edit(&mut memory, &words, None).0, 0);
        let spec = &task(&memory).spec;
        assert!(spec.depends_on.is_empty() && spec.needs.is_empty() && !spec.is_exclusive);
        assert_eq!(spec.body, "text");
    }

    #[test]
    fn an_edit_that_asks_for_more_than_there_is_is_told_at_once() {
        let mut memory = Memory::with(&["a"]);
        let (code, err) = edit(&mut memory, &["a", "--resource", "tape=1"], None);
        assert_eq!(code, 0);
        assert!(err.starts_with("warning: task `a`: `tape`: needs 1, there is 0 in all"), "{err}");
        assert_eq!(edit(&mut memory, &["a", "--resource", ""], None), (0, String::new()));
    }

    #[test]
    fn a_dependency_on_an_epic_is_told_at_once() {
        let mut memory = Memory::with(&["a"]);
        memory.add_epic("e");
        let (code, err) = edit(&mut memory, &["a", "--add-depends-on", "e"], None);
        assert_eq!(code, 0);
        assert!(err.starts_with("warning: task `a` depends on the epic `e`"), "{err}");
    }

    #[test]
    fn cycles_and_unknown_ids_are_refused() {
        let mut memory = Memory::with(&["a", "b"]);
        assert_eq!(edit(&mut memory, &["b", "--depends-on", "a"], None).0, 0);
        let (code, err) = edit(&mut memory, &["a", "--add-depends-on", "b"], None);
        assert_eq!(code, 2);
        assert!(err.contains("dependencies form a cycle: a -> b -> a"), "{err}");
        assert!(edit(&mut memory, &["a", "--add-depends-on", "x"], None).1.contains("unknown `x`"));
        assert!(edit(&mut memory, &["x", "--title", "y"], None).1.contains("no task `x`"));
    }

    #[test]
    fn a_task_becomes_an_epic_and_back_while_nothing_counts_on_what_it_is() {
        let mut memory = Memory::with(&["a", "b", "c"]);
        let mut as_kind = |id: &str, kind: &str, and: &[&str]| {
            let done = edit(&mut memory, &[&[id, "--kind", kind], and].concat(), None);
            memory.state.check();
            (done, memory.state.tasks[&TaskId::new("a")].spec.kind)
        };
        assert_eq!(as_kind("a", "epic", &[]), ((0, String::new()), TaskKind::Epic));
        assert_eq!(as_kind("a", "task", &[]), ((0, String::new()), TaskKind::Task));
        assert_eq!(as_kind("a", "epic", &[]).0.0, 0);
        assert_eq!(as_kind("b", "task", &["--parent", "a"]).0.0, 0);
        let steps = [
            (["b", "--parent", "a"], "a", "task", "`b` is below it"),
            (["b", "--parent", ""], "b", "task", ""),
            (["b", "--depends-on", "a"], "a", "task", "`b` depends on it"),
            (["c", "--hold", "--front"], "c", "epic", "it is held"),
        ];
        for (words, id, kind, why) in steps {
            assert_eq!(edit(&mut memory, &words, None).0, 0, "{words:?}");
            let (code, err) = edit(&mut memory, &[id, "--kind", kind], None);
            assert!(why.is_empty() || code == 4 && err.contains(why), "{err}");
            assert!(why.is_empty() || err.contains("hint: first `pipeline task "), "{err}");
        }
        memory.state.check();
    }

    #[test]
    fn without_flags_and_editor_it_says_what_to_give() {
        let (code, err) = edit(&mut Memory::with(&["a"]), &["a"], None);
        assert_eq!(code, 2);
        assert!(err.contains("set EDITOR"), "{err}");
        let (code, err) = edit(&mut Memory::with(&["a"]), &["NOPE"], None);
        assert_eq!(code, 2);
        assert!(err.contains("there is no task `NOPE`"), "that comes first: {err}");
    }

    #[test]
    fn editor_changes_title_and_body() {
        let mut memory = Memory::with(&["a"]);
        let script = "f() { printf 'Other\\n\\nline 1\\n\\nline 2\\n\\n' > \"$1\"; }; f";
        assert_eq!(edit(&mut memory, &["a"], Some(script)), (0, String::new()));
        let spec = &task(&memory).spec;
        assert_eq!((spec.title.as_str(), spec.body.as_str()), ("Other", "line 1\n\nline 2\n"));
        let (code, err) = edit(&mut memory, &["a"], Some("true"));
        assert_eq!((code, err.as_str()), (0, "note: nothing changed\n"));
        let (code, err) = edit(&mut memory, &["a"], Some("false"));
        assert_eq!(code, 1);
        assert!(err.contains("the editor `false` failed"), "{err}");
    }

    #[test]
    fn what_cannot_be_taken_is_kept() {
        let mut memory = Memory::with(&["a"]);
        let (code, err) = edit(&mut memory, &["a"], Some("f() { printf '\\nlost' > \"$1\"; }; f"));
        assert_eq!(code, 2);
        let kept = err.split("what you wrote is in ").nth(1).expect("a path").trim();
        assert_eq!(std::fs::read_to_string(kept).expect("the form"), "\nlost");
        std::fs::remove_file(kept).expect("it is there");
    }
}
