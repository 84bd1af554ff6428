//! What a keeper is ordered to run, and the two records it leaves in the attempt's folder.
//!
//! These are boundary structs: JSON on the keeper's socket and on disk. Unknown fields are ignored,
//! so that a newer monitor can talk to an older keeper.

use std::io;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::folder::FolderId;
use super::terminal::Terminal;
use super::tree::PROJECT_NAME;
use crate::sys::file::{self, Spare};

/// The version of [`Job`], [`StartedRecord`] and [`ExitRecord`].
pub const JOB_VERSION: u32 = 1;
/// From the polite signal to the forced end of a job.
pub const GRACE_MS: u64 = 5_000;
/// What a process that has said it is done may still take to leave.
pub const MARKER_GRACE_MS: u64 = 60_000;

const STARTED_FILE: &str = "started.json";
const EXIT_FILE: &str = "exit.json";
const RECORD_BYTES_MAX: u64 = 64 * 1024;

/// One command of a job.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum JobCommand {
    /// Program and arguments; a program with a slash is a path (from the job's folder, when
    /// relative), any other is looked up in the `PATH` of the job's environment.
    Argv(Vec<String>),
    /// Text for `sh -c`.
    Shell(String),
}

/// An order to run commands as one attempt.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Job {
    /// [`JOB_VERSION`] of the writer.
    pub v: u32,
    /// Attempt id.
    pub attempt: String,
    /// The attempt's nonce; the commands' environment carries it as `PIPELINE_NONCE`.
    pub nonce: String,
    /// Working folder.
    pub dir: PathBuf,
    /// Run one after another; the first that does not exit with 0 ends the job.
    pub commands: Vec<JobCommand>,
    /// Standard input of each command; `None` is the empty file.
    pub stdin: Option<PathBuf>,
    /// Where standard output and error go; an older file there is replaced.
    pub log: PathBuf,
    /// Most bytes kept in `log`, half of the beginning and up to half of the end.
    pub log_bytes: u64,
    /// The whole environment.
    pub env: Vec<(String, String)>,
    /// Most time for all commands together; `None` is no limit.
    pub timeout_ms: Option<u64>,
    /// Longest time without output; `None` is no limit.
    pub silence_ms: Option<u64>,
    /// Where `started.json` and `exit.json` go; exists.
    pub attempt_dir: PathBuf,
    /// The file in which the agent says that it is done; `None` for jobs that only exit.
    pub marker_file: Option<PathBuf>,
    /// From the marker to the polite signal.
    pub marker_grace_ms: u64,
    /// From the polite signal to the forced end.
    pub grace_ms: u64,
    /// Where people can watch; `None`: nowhere.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub terminal: Option<Terminal>,
}

impl Job {
    /// Returns what identifies the attempt.
    #[must_use]
    pub fn attempt_ref(&self) -> AttemptRef {
        AttemptRef {
            attempt: self.attempt.clone(),
            nonce: self.nonce.clone(),
            attempt_dir: self.attempt_dir.clone(),
        }
    }

    /// Returns what the commands' environment says of whose project they are.
    #[must_use]
    pub fn project(&self) -> Option<&str> {
        let entry = self.env.iter().find(|(name, _)| name == PROJECT_NAME);
        entry.map(|(_, value)| value.as_str())
    }
}

/// What identifies an attempt in the world.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AttemptRef {
    /// Attempt id.
    pub attempt: String,
    /// Its nonce.
    pub nonce: String,
    /// Its folder.
    pub attempt_dir: PathBuf,
}

/// Written before the first command is started; not synced (a power cut ends the commands too).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct StartedRecord {
    /// [`JOB_VERSION`] of the writer.
    pub v: u32,
    /// Attempt id.
    pub attempt: String,
    /// The attempt's nonce.
    pub nonce: String,
    /// The keeper's process id, also its session's.
    pub keeper_pid: i32,
    /// The keeper's start time in clock ticks since boot.
    pub keeper_start_ticks: u64,
    /// The boot that the two numbers above belong to.
    pub boot_id: String,
    /// Wall time in milliseconds since 1970-01-01 UTC.
    pub started_ms: u64,
    /// Leaders of the sessions that a job in a terminal has beside the keeper's.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub leaders: Vec<Leader>,
    /// The attempt's folder at the start; `None` where an older keeper does not say.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub folder: Option<FolderId>,
    /// [`Job::project`].
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub project: Option<String>,
}

/// The leader of a session, as long as it lives.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Leader {
    /// Process id, also the session's.
    pub pid: i32,
    /// Start time in clock ticks since boot.
    pub start_ticks: u64,
}

/// How the reason begins of a job for whose output there was no file: no command was started.
pub const NO_LOG: &str = "cannot create log";
/// The same, where its start could not be noted.
pub const NO_START: &str = "cannot begin";

/// What ended a job.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum EndedBy {
    /// A command exited by itself, or was ended by a signal that is not ours.
    Exit,
    /// `timeout_ms` passed.
    Timeout,
    /// `silence_ms` passed without output.
    Silence,
    /// The monitor ordered it.
    Stop,
    /// It had said that it was done, and did not leave.
    MarkerGrace,
    /// A command could not be started; `reason` says why.
    SpawnFailed,
    /// Its window went away, or there was none to be had; `reason` says how.
    Lost,
}

/// Written after the last process of the job is gone.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ExitRecord {
    /// [`JOB_VERSION`] of the writer.
    pub v: u32,
    /// Attempt id.
    pub attempt: String,
    /// The attempt's nonce.
    pub nonce: String,
    /// Wall time in milliseconds since 1970-01-01 UTC.
    pub started_ms: u64,
    /// `started_ms` plus the time awake since.
    pub ended_ms: u64,
    /// Exit status of the last command run; `None` when it had none.
    pub code: Option<i32>,
    /// The signal that ended the last command run.
    pub signal: Option<i32>,
    /// Index of the last command run, from 0.
    pub command_index: usize,
    /// What ended the job.
    pub ended_by: EndedBy,
    /// A sentence fragment for people; may be empty.
    pub reason: String,
    /// Processes that still lived after the last command had exited, and were ended.
    pub leaked: u32,
    /// Processes that not even a forced end removed (another user's, or stuck in the kernel).
    pub left: u32,
    /// Processor time of the commands and what they waited for, in user mode.
    pub cpu_user_ms: u64,
    /// The same in the kernel.
    pub cpu_sys_ms: u64,
    /// Largest resident size of one process among them.
    pub max_rss_kib: u64,
    /// Bytes that the commands wrote.
    pub log_bytes: u64,
    /// Of these, the bytes that the log does not hold.
    pub log_dropped_bytes: u64,
}

impl StartedRecord {
    /// Returns what is known of an attempt whose record makes no sense: its nonce, in this boot.
    ///
    /// # Errors
    /// When /proc is not mounted.
    pub fn unknown(attempt: &AttemptRef) -> io::Result<Self> {
        Ok(Self {
            v: JOB_VERSION,
            attempt: attempt.attempt.clone(),
            nonce: attempt.nonce.clone(),
            keeper_pid: -1,
            keeper_start_ticks: 0,
            boot_id: crate::sys::proc::boot_id()?,
            started_ms: 0,
            leaders: Vec::new(),
            folder: None,
            project: None,
        })
    }

    /// Reads the record of `attempt`; `None` when there is none, or it is of another nonce.
    ///
    /// # Errors
    /// When the file is there and cannot be read or understood.
    pub fn read(attempt: &AttemptRef) -> io::Result<Option<Self>> {
        let record: Option<Self> = read_record(&attempt.attempt_dir.join(STARTED_FILE))?;
        Ok(record.filter(|record| record.nonce == attempt.nonce))
    }

    /// Puts the record into `attempt_dir`.
    ///
    /// # Errors
    /// Any of create, write and rename.
    pub fn write(&self, attempt_dir: &Path, spare: Option<Spare>) -> io::Result<()> {
        Spare::put(spare, &attempt_dir.join(STARTED_FILE), &serde_json::to_vec(self)?)
    }
}

impl StartedRecord {
    /// Returns the record of an attempt of which nothing ran, or nothing is known.
    #[must_use]
    pub fn ended_without_status(&self, ended_by: EndedBy, reason: String) -> ExitRecord {
        ExitRecord {
            v: JOB_VERSION,
            attempt: self.attempt.clone(),
            nonce: self.nonce.clone(),
            started_ms: self.started_ms,
            ended_ms: self.started_ms,
            code: None,
            signal: None,
            command_index: 0,
            ended_by,
            reason,
            leaked: 0,
            left: 0,
            cpu_user_ms: 0,
            cpu_sys_ms: 0,
            max_rss_kib: 0,
            log_bytes: 0,
            log_dropped_bytes: 0,
        }
    }
}

impl ExitRecord {
    /// Reads the record of `attempt`; `None` when there is none, or it is of another nonce.
    ///
    /// # Errors
    /// When the file is there and cannot be read or understood.
    pub fn read(attempt: &AttemptRef) -> io::Result<Option<Self>> {
        let record: Option<Self> = read_record(&attempt.attempt_dir.join(EXIT_FILE))?;
        Ok(record.filter(|record| record.nonce == attempt.nonce))
    }

    /// Puts the record into `attempt_dir`.
    ///
    /// # Errors
    /// Any of create, write and rename.
    pub fn write(&self, attempt_dir: &Path, spare: Option<Spare>) -> io::Result<()> {
        Spare::put(spare, &attempt_dir.join(EXIT_FILE), &serde_json::to_vec(self)?)
    }
}

fn read_record<T: for<'de> Deserialize<'de>>(path: &Path) -> io::Result<Option<T>> {
    let Some(bytes) = file::read_bounded(path, RECORD_BYTES_MAX)? else { return Ok(None) };
    serde_json::from_slice(&bytes).map(Some).map_err(|error| {
        io::Error::new(io::ErrorKind::InvalidData, format!("`{}`: {error}", path.display()))
    })
}

#[cfg(test)]
mod tests {
    use super::{AttemptRef, EndedBy, ExitRecord, JOB_VERSION, JobCommand, StartedRecord};

    fn record() -> ExitRecord {
        ExitRecord {
            v: JOB_VERSION,
            attempt: "TASK-001.impl.1".into(),
            nonce: "aa".into(),
            started_ms: 1,
            ended_ms: 2,
            code: None,
            signal: Some(9),
            command_index: 0,
            ended_by: EndedBy::MarkerGrace,
            reason: String::new(),
            leaked: 0,
            left: 0,
            cpu_user_ms: 0,
            cpu_sys_ms: 0,
            max_rss_kib: 0,
            log_bytes: 0,
            log_dropped_bytes: 0,
        }
    }

    #[test]
    fn record_of_another_nonce_is_not_taken() {
        let dir = tempfile::tempdir().expect("temporary folder");
        let mut attempt = AttemptRef {
            attempt: "TASK-001.impl.1".into(),
            nonce: "aa".into(),
            attempt_dir: dir.path().into(),
        };
        assert_eq!(ExitRecord::read(&attempt).expect("reads"), None);
        record().write(dir.path(), None).expect("writes");
        assert_eq!(ExitRecord::read(&attempt).expect("reads"), Some(record()));
        attempt.nonce = "bb".into();
        assert_eq!(ExitRecord::read(&attempt).expect("reads"), None);
    }

    #[test]
    fn damaged_record_is_an_error_that_names_the_file() {
        let dir = tempfile::tempdir().expect("temporary folder");
        std::fs::write(dir.path().join("started.json"), "{").expect("writes");
        let attempt =
            AttemptRef { attempt: "a".into(), nonce: "aa".into(), attempt_dir: dir.path().into() };
        let error = StartedRecord::read(&attempt).expect_err("refused");
        assert!(error.to_string().contains("started.json"), "{error}");
    }

    #[test]
    fn words_on_disk_are_fixed() {
        let text = serde_json::to_string(&record()).expect("serialises");
        assert!(text.contains(r#""ended_by":"marker_grace""#), "{text}");
        let command = JobCommand::Argv(vec!["true".into()]);
        assert_eq!(serde_json::to_string(&command).expect("serialises"), r#"{"argv":["true"]}"#);
    }
}
