//! `pipeline task log`: what an agent wrote.

use std::borrow::Cow;
use std::io::{Read, Seek, SeekFrom};
use std::path::Path;
use std::time::Duration;

use serde_json::json;

use super::console::{Console, Format};
use super::error::Error;
use super::exit_code::Exit;
use super::gate::Gate;
use super::project::Open;
use super::task_args::TaskLogArgs;
use super::views::find;
use crate::machine::State;
use crate::machine::attempt::{Attempt, AttemptKind, Class, Outcome};
use crate::machine::id::AttemptId;
use crate::machine::task::{Block, Task, TaskPhase};
use crate::observe::page::first_line;
use crate::observe::words::{approval, used};
use crate::sys::file::open_regular;

/// How often a followed log is looked at: it grows without an event that we are told of.
pub const LOOK: Duration = Duration::from_millis(250);
/// Read at once, in bytes.
const READ_BYTES: usize = 64 * 1024;
/// Lines shown of what failed: its end, and at most [`READ_BYTES`] of it.
const END_LINES: usize = 100;

/// Prints the log of one attempt at a task, by default the newest that tells something; of a task
/// that needs a person, where what failed is asked for, first why.
pub fn of_task(open: Open, console: &mut Console<'_>, args: &TaskLogArgs) -> Result<Exit, Error> {
    let (state, ..) = open.now();
    let task = find(state, &args.id)?;
    let stage = match &args.stage {
        Some(name) => Some(
            state
                .settings
                .stage_by_any_name(name)
                .ok_or_else(|| Error::invalid(format!("there is no stage `{name}`")))?,
        ),
        None => None,
    };
    let is_all = stage.is_none() && args.attempt.is_none();
    if args.failed {
        tell_person(task, console);
    }
    let live = state.attempts.values().filter(|a| a.task.as_ref() == Some(&args.id));
    let mut attempts: Vec<&Attempt> = task.history.iter().chain(live).collect();
    attempts.retain(|attempt| {
        let is_stage = stage
            .is_none_or(|stage| attempt.stage().is_some_and(|name| name.as_str() == stage.name));
        let is_number = args.attempt.is_none_or(|n| number(&attempt.id) == Some(n));
        is_stage && is_number && (!args.failed || has_failed(attempt))
    });
    let wanted = match &task.phase {
        TaskPhase::Blocked(block) if args.failed && is_all => cause(&attempts, block),
        _ => newest(&attempts, args.attempt.is_some()),
    };
    let Some(attempt) = wanted else {
        if !is_all {
            return Err(Error::invalid(format!("task `{}` has no such attempt", args.id))
                .hint(format!("see `pipeline task show {}`", args.id)));
        }
        match &task.phase {
            _ if !args.failed => {
                console.note(&format!("task `{}` has had no attempt yet", args.id))
            }
            // Told already.
            TaskPhase::Blocked(_) => {}
            _ if task.approval.is_some() => {}
            _ => console.note(&format!("nothing of task `{}` has failed", args.id)),
        }
        return Ok(Exit::Done);
    };
    let id = attempt.id.clone();
    console.note(&format!("attempt {id}"));
    if let Some(used) = attempt.exit.as_ref().and_then(|exit| used(&exit.usage)) {
        console.note(&used);
    }
    let is_told = |outcome: &Outcome| match &task.phase {
        TaskPhase::Blocked(block) => block.reason == outcome.reason,
        _ => false,
    };
    if args.failed
        && let Some(outcome) = attempt.outcome.as_ref().filter(|outcome| !is_told(outcome))
    {
        console.note(&format!("{}: {}", outcome.class.word(), outcome.reason));
    }
    let path = open.project.layout.log(id.as_str());
    let start = if args.failed { start_of_end(&path)? } else { 0 };
    if start > 0 {
        console.note(&format!("its end; all of it is in {}", path.display()));
    }
    print_log(open, console, &id, start, args.follow)
}

/// Says what a person is needed for, if one is.
fn tell_person(task: &Task, console: &mut Console<'_>) {
    if let TaskPhase::Blocked(block) = &task.phase {
        // What checks said is the end of the log that follows.
        let reason = match block.class {
            Class::ChecksFailed | Class::LandingChecksFailed => first_line(&block.reason),
            _ => Cow::from(&block.reason),
        };
        console.note(&format!("{}: {reason}", block.class.word()));
    } else if let Some(what) = &task.approval {
        let (what, id) = (approval(what), &task.id);
        console.note(&format!("waits for approval: {what}; type: pipeline task approve {id}"));
    }
}

/// Returns the newest attempt that tells something: one at a stage, or a check that failed or runs.
/// Where a number was `named`, work comes before its check.
fn newest<'a>(attempts: &[&'a Attempt], is_named: bool) -> Option<&'a Attempt> {
    let tells = |attempt: &&&Attempt| {
        attempt.is_work() || !is_named && (attempt.outcome.is_none() || has_failed(attempt))
    };
    attempts.iter().rev().find(tells).or(attempts.last()).copied()
}

/// Returns the attempt, of those that failed, for which the task is blocked; a check that says why
/// rather than the work it looked at. `None`: none is to blame.
fn cause<'a>(failed: &[&'a Attempt], block: &Block) -> Option<&'a Attempt> {
    if block.class == Class::LandingChecksFailed {
        let is_landing = |a: &&&Attempt| matches!(a.kind, AttemptKind::LandingCheck { .. });
        return failed.iter().rev().find(is_landing).copied();
    }
    let is_it = |attempt: &&&Attempt| {
        let is_same = |it: &Outcome| it.class == block.class && it.reason == block.reason;
        attempt.is_work() && attempt.outcome.as_ref().is_some_and(is_same)
    };
    let work = *failed.iter().rev().find(is_it)?;
    let is_check = |attempt: &&&Attempt| match &attempt.kind {
        AttemptKind::StageCheck { of, .. } => *of == work.id,
        AttemptKind::Work { .. }
        | AttemptKind::LandingCheck { .. }
        | AttemptKind::BaseCheck { .. } => false,
    };
    Some(failed.iter().rev().find(is_check).copied().unwrap_or(work))
}

fn number(id: &AttemptId) -> Option<u32> {
    id.as_str().rsplit('.').next()?.parse().ok()
}

fn has_failed(attempt: &Attempt) -> bool {
    attempt.outcome.as_ref().is_some_and(|outcome| outcome.class != Class::Completed)
}

fn print_log(
    mut open: Open,
    console: &mut Console<'_>,
    id: &AttemptId,
    start: u64,
    is_following: bool,
) -> Result<Exit, Error> {
    show_log(&mut open, console, id, start, is_following)
}

/// Prints the log of an attempt from a byte on; where it is followed, until the attempt is over.
pub fn show_log(
    open: &mut Open,
    console: &mut Console<'_>,
    id: &AttemptId,
    start: u64,
    is_following: bool,
) -> Result<Exit, Error> {
    let path = open.project.layout.log(id.as_str());
    let is_over = |state: &State| !state.attempts.contains_key(id);
    if is_over(open.now().0) && !path.exists() {
        let has_started = |old: &&Attempt| old.id == *id && old.started_at.is_some();
        let mut over = open.now().0.tasks.values().flat_map(|task| &task.history);
        let why = match over.find(has_started) {
            // The log is made with the first that is printed.
            Some(_) if open.project.layout.attempt(id.as_str()).is_dir() => {
                format!("attempt {id} is over: it printed nothing")
            }
            Some(_) => format!("attempt {id} is over: its log is no longer kept"),
            None => format!("attempt {id} never started: there is no log of it"),
        };
        console.note(&why);
        return Ok(Exit::Done);
    }
    let mut at = start;
    loop {
        at = copy_from(&path, at, id, false, console)?;
        if !is_following || console.is_closed() || is_over(open.state()?.0) {
            // What came between the two looks.
            copy_from(&path, at, id, true, console)?;
            return Ok(Exit::Done);
        }
        open.wait_change(LOOK)?;
    }
}

/// Returns where the last lines of a log begin, in bytes.
fn start_of_end(path: &Path) -> Result<u64, Error> {
    let mut file = match open_regular(path) {
        Ok(file) => file,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(0),
        Err(error) => return Err(unreadable(path)(error)),
    };
    let bytes = file.metadata().map_err(unreadable(path))?.len();
    let from = bytes.saturating_sub(READ_BYTES as u64);
    file.seek(SeekFrom::Start(from)).map_err(unreadable(path))?;
    let mut end = Vec::new();
    file.take(READ_BYTES as u64).read_to_end(&mut end).map_err(unreadable(path))?;
    Ok(from + last_lines(&end, from > 0) as u64)
}

/// Returns where the last [`END_LINES`] lines begin; the first one of a part may be cut and is left
/// out, unless it is all there is.
fn last_lines(bytes: &[u8], is_part: bool) -> usize {
    let body = bytes.strip_suffix(b"\n").unwrap_or(bytes);
    let starts = body.iter().enumerate().filter(|(_, byte)| **byte == b'\n').map(|(at, _)| at + 1);
    let starts: Vec<usize> = starts.collect();
    match starts.len().checked_sub(END_LINES) {
        Some(place) => starts[place],
        None if is_part => starts.first().copied().unwrap_or(0),
        None => 0,
    }
}

fn unreadable(path: &Path) -> impl Fn(std::io::Error) -> Error + '_ {
    move |error| Error::failed(format!("cannot read the log `{}`", path.display())).because(&error)
}

/// Copies what the log holds behind `at` to standard output, as JSON an object for each line; returns
/// how far it got. A line without its end is left for the next look, unless this is the last one.
fn copy_from(
    path: &Path,
    at: u64,
    id: &AttemptId,
    is_last: bool,
    console: &mut Console<'_>,
) -> Result<u64, Error> {
    let failed = unreadable(path);
    let mut file = match open_regular(path) {
        Ok(file) => file,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(at),
        Err(error) => return Err(failed(error)),
    };
    let mut at = at;
    loop {
        file.seek(SeekFrom::Start(at)).map_err(&failed)?;
        let mut bytes = Vec::new();
        let count = (&file).take(READ_BYTES as u64).read_to_end(&mut bytes).map_err(&failed)?;
        if console.format == Format::Json {
            let is_whole = is_last || count == READ_BYTES;
            let end = bytes.iter().rposition(|byte| *byte == b'\n').map(|place| place + 1);
            let is_end = is_last && count < READ_BYTES;
            bytes.truncate(end.filter(|_| !is_end).unwrap_or(if is_whole { count } else { 0 }));
        }
        if bytes.is_empty() {
            return Ok(at);
        }
        at += bytes.len() as u64;
        match console.format {
            Format::Text => console.write(&bytes)?,
            Format::Json => {
                for line in bytes.strip_suffix(b"\n").unwrap_or(&bytes).split(|byte| *byte == b'\n')
                {
                    let line = String::from_utf8_lossy(line);
                    console.json(&json!({ "attempt": id.as_str(), "line": line }))?;
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{END_LINES, cause, last_lines, newest};
    use crate::machine::attempt::{Attempt, AttemptKind, Class, Outcome};
    use crate::machine::id::{Oid, TaskId};
    use crate::machine::task::{Block, TaskPhase};
    use crate::observe::support::{End, Pipeline, settings, task};

    fn ids(found: Option<&Attempt>) -> Option<&str> {
        found.map(|attempt| attempt.id.as_str())
    }

    #[test]
    fn a_block_is_told_by_the_attempt_that_caused_it_and_by_no_other() {
        let mut pipeline = Pipeline::started(settings(), vec![task("A", &[])]);
        for number in 1..=3 {
            pipeline.run(&format!("A.arch.{number}"), End::Status(1));
            pipeline.pass(60_000);
            pipeline.turn();
        }
        let task = &pipeline.state.tasks[&TaskId::new("A")];
        let TaskPhase::Blocked(block) = &task.phase else { panic!("{:?}", task.phase) };
        let failed: Vec<&Attempt> = task.history.iter().collect();
        assert_eq!(ids(cause(&failed, block)), Some("A.arch.3"));
        let reason = "conflicts in shared.txt".to_owned();
        let conflict = Block { class: Class::Conflict, reason, ..block.clone() };
        assert_eq!(ids(cause(&failed, &conflict)), None, "no attempt did that");
        let reason = "used up its 3 attempts".to_owned();
        assert_eq!(ids(cause(&failed, &Block { reason, ..block.clone() })), None);
        let mut check = failed[2].clone();
        check.kind = AttemptKind::LandingCheck { commit: Oid::new("a") };
        let failed = [failed[0], &check, failed[1]];
        let landing = Block { class: Class::LandingChecksFailed, ..block.clone() };
        assert_eq!(ids(cause(&failed, &landing)), Some("A.arch.3"));
    }

    #[test]
    fn a_check_that_passed_is_not_what_a_log_is_asked_for() {
        let mut pipeline = Pipeline::started(settings(), vec![task("A", &[])]);
        pipeline.run("A.arch.1", End::Done);
        let (work, at) = (&pipeline.state.tasks[&TaskId::new("A")].history[0], pipeline.now);
        let check = |class: Option<Class>| {
            let kind = AttemptKind::LandingCheck { commit: Oid::new("a") };
            let outcome = class.map(|class| Outcome { class, reason: String::new(), at });
            Attempt { kind, outcome, ..work.clone() }
        };
        for (class, is_told) in
            [(Some(Class::Completed), false), (Some(Class::ChecksFailed), true), (None, true)]
        {
            let check = check(class);
            let both = [work, &check];
            assert_eq!(newest(&both, false).is_some_and(Attempt::is_work), !is_told);
            assert!(newest(&both, true).is_some_and(Attempt::is_work), "it was named");
        }
        assert_eq!(ids(newest(&[], false)), None);
    }

    #[test]
    fn the_end_of_a_log_begins_at_a_line() {
        let lines = |count: usize| "x\n".repeat(count).into_bytes();
        assert_eq!(last_lines(b"", false), 0);
        assert_eq!(last_lines(&lines(END_LINES), false), 0);
        assert_eq!(last_lines(&lines(END_LINES + 1), false), 2);
        let open = [lines(END_LINES), b"y".to_vec()].concat();
        assert_eq!(last_lines(&open, false), 2, "a line without its end counts");
        assert_eq!(last_lines(b"cut\nwhole\n", true), 4);
        assert_eq!(last_lines(b"cut", true), 0, "better than nothing");
    }
}
