//! From a keeper's report to an observation: the exit record, the task file's last word, the log's
//! end.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::mpsc::Sender;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use jiff::tz::TimeZone;

use super::sources::Input;
use crate::agent::client::Report;
use crate::agent::job::{EndedBy as Ended, ExitRecord, NO_LOG, NO_START};
use crate::agent::moment;
use crate::agent::probe::Probe;
use crate::agent::reply;
use crate::agent::status_line::Status;
use crate::agent::transcript::Transcripts;
use crate::agent::usage::{self, Output, Reading, Trouble};
use crate::machine::attempt::{EndedBy, Exit, Fault, Marker};
use crate::machine::id::AttemptId;
use crate::machine::preset::Preset;
use crate::machine::task::{EVIDENCE_BYTES_MAX, NOTES_BYTES_MAX, keep_tail};
use crate::machine::time::Time;
use crate::machine::{EventBody, Observation};
use crate::sys::file::{read_bounded, read_end};
use crate::sys::room::is_shortage;

/// Largest `usage_file` read, in bytes.
const DOCUMENT_BYTES_MAX: u64 = 64 << 20;
/// More than what the keeper writes into a log of its own.
const LOG_NOTE_BYTES_MAX: u64 = 1 << 10;
/// Longest text kept of a fault, in bytes.
const FAULT_BYTES_MAX: usize = 1 << 10;

/// What is to be read when an attempt ends.
#[derive(Debug, Clone)]
pub struct Watched {
    /// The worktree, with git.
    pub slot: Option<PathBuf>,
    pub nonce: String,
    /// `None` for checks.
    pub task_file: Option<PathBuf>,
    /// Without a status line it has failed, so the end of its output is evidence.
    pub needs_marker: bool,
    pub log: PathBuf,
    /// How the output is read; `None`: it is not.
    pub output: Option<Box<OutputRules>>,
}

/// How the output of an attempt is read.
#[derive(Debug, Clone)]
pub struct OutputRules {
    pub preset: Preset,
    /// The preset's `usage_file`.
    pub document: Option<PathBuf>,
    /// Where the events of an agent in a terminal stand, whose log is what people saw.
    pub transcripts: Option<Transcripts>,
}

/// How a setup job ended, told to the thread that waits for it.
#[derive(Debug)]
pub enum SetupEnd {
    Exited(Box<ExitRecord>),
    Gone {
        why: String,
        /// What its dead keeper left.
        found: Option<Probe>,
    },
    /// Its keeper lives and does not answer, so it may be under way.
    Unreachable,
}

/// Attempts ordered from keepers, shared with the keepers' threads.
#[derive(Debug, Default)]
pub struct Watch {
    attempts: Mutex<HashMap<String, Watched>>,
    setups: Mutex<HashMap<String, Sender<SetupEnd>>>,
    /// How many keepers have died before they began an attempt.
    false_starts: Mutex<HashMap<String, u32>>,
}

fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // Every change of the maps is one insert or remove, so a panic elsewhere leaves them whole.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Watch {
    /// Remembers what belongs to an attempt.
    pub fn add(&self, attempt: &str, watched: Watched) {
        locked(&self.attempts).insert(attempt.to_owned(), watched);
    }

    /// Counts a keeper that died before it began the attempt; returns how many have.
    pub fn count_false_start(&self, attempt: &str) -> u32 {
        let mut counts = locked(&self.false_starts);
        let count = counts.entry(attempt.to_owned()).or_default();
        *count += 1;
        *count
    }

    /// Directs the end of a setup job to `sender`.
    pub fn add_setup(&self, job: &str, sender: Sender<SetupEnd>) {
        locked(&self.setups).insert(job.to_owned(), sender);
    }

    fn setup_ended(&self, job: &str, end: SetupEnd) -> Option<SetupEnd> {
        match locked(&self.setups).remove(job) {
            Some(sender) => {
                // The thread that waited has given up: then nobody needs the outcome.
                let _ = sender.send(end);
                None
            }
            None => Some(end),
        }
    }

    fn take(&self, attempt: &str) -> Option<Watched> {
        locked(&self.attempts).remove(attempt)
    }

    /// Returns whether a setup job is under way.
    pub fn has_setup(&self, job: &str) -> bool {
        locked(&self.setups).contains_key(job)
    }
}

/// Turns a report into input for the loop; runs on the keeper's thread.
pub fn pass_on(watch: &Arc<Watch>, input: &Sender<Input>, report: Report) {
    let seen = |observation| {
        // The loop has ended: the record on disk is for the next monitor.
        let _ = input.send(Input::Event(EventBody::Observation(observation)));
    };
    match report {
        Report::Connected { .. } => {}
        Report::Started { attempt, .. } => {
            if !watch.has_setup(&attempt) {
                let _ = input.send(Input::Started(AttemptId::new(attempt)));
            }
        }
        Report::Exited { record, .. } => {
            let id = record.attempt.clone();
            if let Some(SetupEnd::Exited(record)) = watch.setup_ended(&id, SetupEnd::Exited(record))
            {
                let watched = watch.take(&id);
                seen(ended(&record, watched.as_ref()));
            }
        }
        Report::Refused { attempt: Some(attempt), why, .. }
        | Report::StartFailed { attempt, why, .. } => {
            let gone = SetupEnd::Gone { why: why.clone(), found: None };
            if watch.setup_ended(&attempt, gone).is_some() {
                seen(Observation::AttemptFaulted { attempt: AttemptId::new(attempt), why });
            }
        }
        Report::KeeperLost { agent, attempt: Some(attempt), found } => {
            let why = format!("the keeper of `{agent}` is gone");
            if watch.has_setup(&attempt) {
                let _ = watch.setup_ended(&attempt, SetupEnd::Gone { why, found });
            } else {
                let _ = input.send(Input::KeeperLost { agent, attempt, found });
            }
        }
        Report::Superseded { attempt: Some(attempt), .. } => {
            let _ = input.send(Input::Superseded { attempt: AttemptId::new(attempt) });
        }
        Report::Unreachable { agent, attempt, why } => {
            // Nothing is known of it, so no failure is told: it is asked for again.
            if watch.setup_ended(&attempt, SetupEnd::Unreachable).is_some() {
                let attempt = AttemptId::new(attempt);
                let warning = format!(
                    "the keeper of `{agent}` lives and does not answer ({why}); `{attempt}` may be \
                     running, so nothing takes its place, and it is asked for again"
                );
                let _ = input.send(Input::Doubtful { attempt, warning });
            }
        }
        Report::Superseded { attempt: None, .. }
        | Report::Refused { attempt: None, .. }
        | Report::KeeperLost { attempt: None, .. } => {}
    }
}

/// Returns what is to be told of an ended attempt. One that went wrong in a worktree that somebody
/// took away is lost: what it would have done there is not known.
pub fn ended(record: &ExitRecord, watched: Option<&Watched>) -> Observation {
    let attempt = AttemptId::new(&record.attempt);
    let slot = watched.and_then(|watched| watched.slot.as_deref());
    let is_gone = slot.is_some_and(|slot| !slot.join(".git").exists());
    let is_by_itself = matches!(record.ended_by, Ended::Exit | Ended::SpawnFailed);
    let is_for_us = is_shortage(&record.reason)
        || [NO_LOG, NO_START].iter().any(|begin| record.reason.starts_with(begin));
    if record.ended_by == Ended::SpawnFailed && is_for_us {
        // Not for want of the program: it is started again, when there is room.
        let why = record.reason.clone();
        return match record.command_index {
            0 => Observation::AttemptFaulted { attempt, why },
            _ => Observation::Lost { attempt, why },
        };
    }
    if record.ended_by == Ended::Lost {
        return Observation::Lost { attempt, why: record.reason.clone() };
    }
    if is_gone && is_by_itself && record.code != Some(0) {
        return Observation::Lost { attempt, why: "its worktree is gone".into() };
    }
    Observation::Exited { attempt, exit: Box::new(exit_of(record, watched)) }
}

/// Returns what the machine is told of an attempt's end.
fn exit_of(record: &ExitRecord, watched: Option<&Watched>) -> Exit {
    let said = watched.and_then(|watched| {
        watched.task_file.as_deref().map(|file| read_reply(file, &watched.nonce, record.code))
    });
    let Said { marker, notes, unreadable } = said.unwrap_or_default();
    let reading = watched.and_then(|watched| read_output(record, watched)).unwrap_or_default();
    let is_clean = record.code == Some(0)
        && match marker {
            None => watched.is_none_or(|watched| !watched.needs_marker),
            Some(Marker::Completed) => true,
            Some(Marker::Blocked(_) | Marker::Failed(_) | Marker::ChangesRequested(_)) => false,
        };
    let tail = match watched {
        _ if !record.reason.is_empty() && record.ended_by == Ended::SpawnFailed => {
            record.reason.clone()
        }
        Some(watched) if !is_clean => {
            let odd = unreadable.map(|line| format!("not understood: `{line}`\n"));
            odd.unwrap_or_default() + &evidence(&watched.log, &reading)
        }
        Some(_) | None => String::new(),
    };
    Exit {
        started_at: Time::from_ms(record.started_ms),
        ended_at: Time::from_ms(record.ended_ms),
        code: record.code,
        signal: record.signal,
        ended_by: match record.ended_by {
            // One that is lost is told as such, above.
            Ended::Exit | Ended::Lost => EndedBy::Exit,
            Ended::Timeout => EndedBy::Timeout,
            Ended::Silence => EndedBy::Silence,
            Ended::Stop => EndedBy::Stop,
            Ended::MarkerGrace => EndedBy::MarkerGrace,
            Ended::SpawnFailed => EndedBy::SpawnFailed,
        },
        command_index: u32::try_from(record.command_index).unwrap_or(u32::MAX),
        leaked: record.leaked + record.left,
        cpu_ms: record.cpu_user_ms + record.cpu_sys_ms,
        rss_kib_max: record.max_rss_kib,
        marker,
        notes,
        tail,
        fault: fault(record, watched, &reading),
        usage: reading.usage,
    }
}

/// Returns what stands between the program and its provider, as its output or its exit status says.
fn fault(record: &ExitRecord, watched: Option<&Watched>, reading: &Reading) -> Option<Fault> {
    let ended = Time::from_ms(record.ended_ms);
    if let Some(Trouble { kind, text, until }) = &reading.fault {
        return Some(Fault {
            kind: *kind,
            text: keep_head(text, FAULT_BYTES_MAX).to_owned(),
            until: until.as_ref().and_then(|text| moment::until(text, ended, &TimeZone::system())),
        });
    }
    let preset = &watched?.output.as_ref()?.preset;
    let kind = *preset.exit.get(&record.code?)?;
    let said = reading.error.as_deref().or(reading.text.as_deref());
    let status = format!("exited with status {}", record.code?);
    let text = keep_head(said.unwrap_or(&status), FAULT_BYTES_MAX).to_owned();
    Some(Fault { kind, text, until: None })
}

/// Lets the end of a limit, which was named by the clock on the wall, be as far from `now` as from
/// `wall`: the monitor's clock stands still while the machine sleeps, and heeds no clock that is set.
pub fn date_limit(body: &mut EventBody, wall: Time, now: Time) {
    if let EventBody::Observation(Observation::Exited { exit, .. }) = body
        && let Some(until) = exit.fault.as_mut().and_then(|fault| fault.until.as_mut())
    {
        *until = now.plus_ms(until.ms_since(wall));
    }
}

/// Cuts `text` to at most `bytes_max` bytes, keeping its beginning.
fn keep_head(text: &str, bytes_max: usize) -> &str {
    let mut end = text.len().min(bytes_max);
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    &text[..end]
}

fn read_output(record: &ExitRecord, watched: &Watched) -> Option<Reading> {
    let OutputRules { preset, document, transcripts } = &**watched.output.as_ref()?;
    // Without a log nothing was said.
    let log = match transcripts {
        Some(transcripts) => transcripts.find(record.started_ms).map(|(_, text)| text),
        None => {
            let bytes_max = record.log_bytes.max(DOCUMENT_BYTES_MAX) + LOG_NOTE_BYTES_MAX;
            read_bounded(&watched.log, bytes_max).ok()?
        }
    };
    let log = log.unwrap_or_default();
    let document =
        document.as_ref().and_then(|path| read_bounded(path, DOCUMENT_BYTES_MAX).ok()?);
    let is_whole = record.log_dropped_bytes == 0 || transcripts.is_some();
    let output = Output { log: &log, document: document.as_deref(), is_whole };
    Some(usage::read(output, preset))
}

/// Returns what an attempt's output says of its failure: what was read of it, and the lines at its end
/// that are no events; all of the end where nothing was read.
fn evidence(log: &Path, reading: &Reading) -> String {
    let end = tail_of(log);
    let mut said: Vec<&str> = Vec::new();
    let fault = reading.fault.as_ref().map(|fault| fault.text.clone());
    for text in [&reading.text, &reading.error, &fault].into_iter().flatten() {
        if !said.iter().any(|known| known.contains(text.as_str())) {
            said.push(text);
        }
    }
    if said.is_empty() {
        return end;
    }
    // The first may be the rest of one that is an event.
    let lines = end.lines().skip(1).filter(|line| !line.trim_start().starts_with('{'));
    said.extend(lines.filter(|line| !line.trim().is_empty()));
    keep_tail(&said.join("\n"), EVIDENCE_BYTES_MAX).to_owned()
}

/// What counts for an attempt of what stands in its task file.
#[derive(Debug, Default)]
pub struct Said {
    pub marker: Option<Marker>,
    pub notes: String,
    /// A last status line that says nothing known.
    pub unreadable: Option<String>,
}

fn read_reply(file: &Path, nonce: &str, code: Option<i32>) -> Said {
    match read_bounded(file, reply::FILE_BYTES_MAX) {
        Ok(Some(bytes)) => said_in(&bytes, nonce, code),
        Ok(None) | Err(_) => Said::default(),
    }
}

/// Reads the status that counts for this attempt, and the notes.
///
/// Another nonce: ignored. Header gone: accepted only with this attempt's own exit 0.
pub fn said_in(bytes: &[u8], nonce: &str, code: Option<i32>) -> Said {
    let Ok(parsed) = reply::read(bytes) else { return Said::default() };
    let is_own = match &parsed.nonce {
        Some(found) => found == nonce,
        None => code == Some(0),
    };
    if !is_own {
        return Said::default();
    }
    let marker = parsed.status.and_then(|status| match status {
        Status::InProgress => None,
        Status::Completed => Some(Marker::Completed),
        Status::Blocked(why) => Some(Marker::Blocked(why)),
        Status::Failed(why) => Some(Marker::Failed(why)),
        Status::ChangesRequested(what) => Some(Marker::ChangesRequested(what)),
    });
    let notes = keep_tail(&parsed.notes, NOTES_BYTES_MAX).to_owned();
    Said { marker, notes, unreadable: parsed.unreadable }
}

/// Returns whether the task file says, for this attempt, that it is done: the keeper's question.
pub fn has_marker(file: &Path, nonce: &str) -> bool {
    let Ok(Some(bytes)) = read_bounded(file, reply::FILE_BYTES_MAX) else { return false };
    reply::read(&bytes).is_ok_and(|parsed| {
        let is_said = parsed.status.is_some_and(|status| status != Status::InProgress);
        is_said && parsed.nonce.as_deref() == Some(nonce)
    })
}

/// Returns the end of a log, bounded; empty when it cannot be read.
pub fn tail_of(log: &Path) -> String {
    let read = || -> std::io::Result<String> {
        let bytes = read_end(log, EVIDENCE_BYTES_MAX as u64)?;
        Ok(String::from_utf8_lossy(&bytes).into_owned())
    };
    read().map(|text| keep_tail(&text, EVIDENCE_BYTES_MAX).to_owned()).unwrap_or_default()
}

/// Returns why an attempt whose keeper died is lost; `None`: it never started.
pub fn lost_because(found: Option<&Probe>) -> Option<String> {
    match found {
        Some(Probe::Nothing) => None,
        Some(Probe::Strays(_)) => Some("its keeper died; what it left running was ended".into()),
        Some(Probe::Elsewhere) => {
            Some("it ran in another folder, of which this one is a copy".into())
        }
        Some(Probe::Started(_) | Probe::KeeperAlive | Probe::Exited(_)) | None => {
            Some("its keeper died, and nothing is left of it".into())
        }
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;
    use crate::agent::job::{AttemptRef, StartedRecord};
    use crate::machine::attempt::FaultKind;

    fn head(nonce: &str) -> String {
        format!(
            "---\ntask: A\nstage: test\nattempt: A.test.1\nnonce: {nonce}\n---\n\n# A: title\n\n"
        )
    }

    fn said(bytes: impl AsRef<[u8]>, code: Option<i32>) -> Option<Marker> {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("TASK-A.md");
        fs::write(&file, bytes).unwrap();
        read_reply(&file, "5f0c", code).marker
    }

    #[test]
    fn a_marker_counts_under_the_nonce_of_its_attempt_alone() {
        let done = "## Status: COMPLETED\n";
        let own = head("5f0c") + done;
        assert_eq!(said(&own, Some(0)), Some(Marker::Completed));
        // The end that a late process of an older attempt writes.
        let other = head("beef") + done;
        assert_eq!(said(&other, Some(0)), None);
        // Without a header the attempt's own exit 0 stands for it, and nothing else does.
        assert_eq!(said(done, Some(0)), Some(Marker::Completed));
        assert_eq!(said(done, Some(1)), None);
        assert_eq!(said(done, None), None);

        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("TASK-A.md");
        for (text, is_marker) in [(&own, true), (&other, false), (&done.to_owned(), false)] {
            fs::write(&file, text).unwrap();
            assert_eq!(has_marker(&file, "5f0c"), is_marker, "{text}");
        }
    }

    #[test]
    fn what_hinders_us_is_no_fault_of_the_agents_program() {
        let attempt_dir = PathBuf::new();
        let attempt = AttemptRef { attempt: "A.impl.1".into(), nonce: "5f0c".into(), attempt_dir };
        let record = StartedRecord::unknown(&attempt).unwrap();
        for (why, is_ours) in [
            (format!("{NO_LOG} `A.impl.1.log`: Permission denied"), true),
            (format!("{NO_START}: Permission denied"), true),
            ("cannot run `agent`: No space left on device".into(), true),
            ("cannot run `agent`: Permission denied".into(), false),
        ] {
            let record = record.clone().ended_without_status(Ended::SpawnFailed, why.clone());
            let is_fault = matches!(ended(&record, None), Observation::AttemptFaulted { .. });
            assert_eq!(is_fault, is_ours, "{why}");
        }
    }

    #[test]
    fn a_limit_ends_when_its_provider_said_though_the_machine_slept() {
        let attempt_dir = PathBuf::new();
        let attempt = AttemptRef { attempt: "A.impl.1".into(), nonce: "5f0c".into(), attempt_dir };
        let record = StartedRecord::unknown(&attempt).unwrap();
        let exit = exit_of(&record.ended_without_status(Ended::Exit, String::new()), None);
        let (wall, now) = (Time::from_ms(9_000_000), Time::from_ms(1_000_000));
        for (said, meant) in [(9_060_000, 1_060_000), (8_999_000, 1_000_000)] {
            let until = Some(Time::from_ms(said));
            let fault = Fault { kind: FaultKind::RateLimited, text: String::new(), until };
            let exit = Box::new(Exit { fault: Some(fault), ..exit.clone() });
            let attempt = AttemptId::new("A.impl.1");
            let mut body = EventBody::Observation(Observation::Exited { attempt, exit });
            date_limit(&mut body, wall, now);
            let EventBody::Observation(Observation::Exited { exit, .. }) = body else { panic!() };
            assert_eq!(exit.fault.unwrap().until, Some(Time::from_ms(meant)));
        }
    }

    #[test]
    fn a_marker_cut_anywhere_is_none_or_whole() {
        let text = head("5f0c") + "## Status: COMPLETED";
        let begin = text.find("## Status").unwrap();
        for end in begin..text.len() {
            assert_eq!(said(&text[..end], Some(0)), None, "{}", &text[begin..end]);
        }
        assert_eq!(said(&text, Some(0)), Some(Marker::Completed));
    }

    #[test]
    fn odd_bytes_around_a_marker_do_not_hide_it() {
        let dos = (head("5f0c") + "## Status: COMPLETED\n").replace('\n', "\r\n");
        let mut bytes = head("5f0c").into_bytes();
        bytes.extend(b"\xff\xfe notes \0 \x80\n\n## Status: COMPLETED");
        for text in [dos.into_bytes(), bytes] {
            let shown = String::from_utf8_lossy(&text).into_owned();
            assert_eq!(said(text, Some(0)), Some(Marker::Completed), "{shown}");
        }
    }

    #[test]
    fn what_is_no_task_file_says_nothing_and_holds_nobody_up() {
        let dir = tempfile::tempdir().unwrap();
        let real = dir.path().join("real.md");
        fs::write(&real, head("5f0c") + "## Status: COMPLETED\n").unwrap();
        let file = dir.path().join("TASK-A.md");
        std::os::unix::fs::symlink(&real, &file).unwrap();
        assert_eq!(read_reply(&file, "5f0c", Some(0)).marker, None, "a link");
        fs::remove_file(&file).unwrap();

        // Opening a pipe waits for its other end, unless told not to.
        let made = crate::sys::child::command("mkfifo", dir.path()).arg(&file).status().unwrap();
        assert!(made.success());
        assert_eq!(read_reply(&file, "5f0c", Some(0)).marker, None, "a pipe");
        assert!(!has_marker(&file, "5f0c"));
        fs::remove_file(&file).unwrap();

        let mut large = head("5f0c") + "## Status: COMPLETED\n";
        large.push_str(&"x".repeat(reply::FILE_BYTES_MAX as usize));
        assert_eq!(said(large, Some(0)), None, "too large");
    }
}
