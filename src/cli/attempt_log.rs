//! `pipeline task log`: what an agent wrote.

use std::fs::File;
use std::io::{Read, Seek, SeekFrom};
use std::path::Path;
use std::time::Duration;

use super::console::Console;
use super::error::Error;
use super::exit_code::Exit;
use super::gate::Gate;
use super::project::Open;
use super::task_args::TaskLogArgs;
use super::views::find;
use crate::machine::State;
use crate::machine::attempt::{Attempt, Class};
use crate::machine::id::AttemptId;
use crate::machine::task::TaskPhase;
use crate::observe::words::used;

/// How often a followed log is looked at: it grows without an event that we are told of.
pub const LOOK: Duration = Duration::from_millis(250);
/// Read at once, in bytes.
const READ_BYTES: usize = 64 * 1024;
/// Lines shown of what failed: its end, and at most [`READ_BYTES`] of it.
const END_LINES: usize = 100;

/// Prints the log of one attempt at a task, by default the newest.
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
    let live = state.attempts.values().filter(|a| a.task.as_ref() == Some(&args.id));
    let mut attempts: Vec<&Attempt> = task.history.iter().chain(live).collect();
    attempts.retain(|attempt| {
        let is_stage = stage
            .is_none_or(|stage| attempt.stage().is_some_and(|name| name.as_str() == stage.name));
        let is_number = args.attempt.is_none_or(|n| number(&attempt.id) == Some(n));
        is_stage && is_number && (!args.failed || has_failed(attempt))
    });
    // Of an attempt and its failed check, the check is the later one and says what is wrong.
    let wanted = attempts.iter().rev().find(|attempt| args.attempt.is_none() || attempt.is_work());
    let Some(attempt) = wanted.or(attempts.last()) else {
        let is_all = stage.is_none() && args.attempt.is_none() && !args.failed;
        if is_all {
            console.note(&format!("task `{}` has had no attempt yet", args.id));
            return Ok(Exit::Done);
        }
        if args.failed
            && let TaskPhase::Blocked(block) = &task.phase
        {
            console.note(&format!("{}: {}", block.class.word(), block.reason));
            return Ok(Exit::Done);
        }
        return Err(Error::invalid(format!("task `{}` has no such attempt", args.id))
            .hint(format!("see `pipeline task show {}`", args.id)));
    };
    let id = attempt.id.clone();
    console.note(&format!("attempt {id}"));
    if let Some(used) = attempt.exit.as_ref().and_then(|exit| used(&exit.usage)) {
        console.note(&used);
    }
    if args.failed
        && let Some(outcome) = &attempt.outcome
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
            Some(_) => format!("attempt {id} is over: its log is no longer kept"),
            None => format!("attempt {id} never started: there is no log of it"),
        };
        console.note(&why);
        return Ok(Exit::Done);
    }
    let mut at = start;
    loop {
        at = copy_from(&path, at, console)?;
        if !is_following || console.is_closed() || is_over(open.state()?.0) {
            // What came between the two looks.
            copy_from(&path, at, console)?;
            return Ok(Exit::Done);
        }
        open.wait_change(LOOK)?;
    }
}

/// Returns where the last lines of a log begin, in bytes.
fn start_of_end(path: &Path) -> Result<u64, Error> {
    let mut file = match File::open(path) {
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

/// Copies what the log holds behind `at` to standard output; returns how far it got.
fn copy_from(path: &Path, at: u64, console: &mut Console<'_>) -> Result<u64, Error> {
    let failed = unreadable(path);
    let mut file = match File::open(path) {
        Ok(file) => file,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(at),
        Err(error) => return Err(failed(error)),
    };
    file.seek(SeekFrom::Start(at)).map_err(&failed)?;
    let mut at = at;
    let mut buffer = vec![0; READ_BYTES];
    loop {
        let count = file.read(&mut buffer).map_err(&failed)?;
        if count == 0 {
            return Ok(at);
        }
        at += count as u64;
        console.write(&buffer[..count])?;
    }
}

#[cfg(test)]
mod tests {
    use super::{END_LINES, last_lines};

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
