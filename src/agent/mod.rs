//! Agents at work: how a job is started, watched, ended and found again.
//!
//! A **keeper** is this program in a session of its own, one per agent, that outlives the monitor.
//! [`client`] is the monitor's side of it, [`keeper`] the process itself, [`process`] one job in it.
//! [`task_file`] and [`prompt`] are what an agent is given, [`reply`] what it answers. This folder
//! knows processes and files; it does not know what an outcome means.

pub(crate) mod budget;
pub mod client;
pub mod connect;
pub mod environment;
pub mod folder;
pub mod job;
pub mod keeper;
pub(crate) mod line;
pub mod log;
pub mod moment;
pub mod passage;
pub mod probe;
pub mod process;
pub mod prompt;
pub mod protocol;
pub mod rendezvous;
pub mod reply;
pub mod spawn;
pub mod status_line;
pub mod task_file;
pub mod terminal;
pub mod transcript;
pub mod tree;
pub mod usage;

use std::io;
use std::time::Duration;

use job::{AttemptRef, Job};
use probe::Probe;

/// A way to run jobs that outlives the monitor; the process launcher now, others beside it.
pub trait Launcher: Send + Sync {
    /// Orders `job` from `agent` and returns at once; what becomes of it arrives as reports.
    fn start(&self, agent: &str, job: Job);

    /// Orders the attempt ended: a polite signal, `grace`, then an end by force.
    fn stop(&self, agent: &str, attempt: &str, grace: Duration);

    /// Connects to what is left of an attempt; its outcome arrives as a report.
    fn adopt(&self, agent: &str, attempt: &AttemptRef);

    /// Reads from the world what became of an attempt.
    ///
    /// # Errors
    /// When its files or /proc cannot be read.
    fn probe(&self, agent: &str, attempt: &AttemptRef) -> io::Result<Probe>;
}
