//! The monitor's side of the keepers: starts them, orders, and passes on what they report.
//!
//! Each agent has a thread of its own that starts its keeper, connects and reads; nothing here waits
//! on the caller's thread. What a keeper reported is also on disk, so a lost report is read there.

use std::collections::HashMap;
use std::fmt;
use std::io;
use std::path::PathBuf;
use std::sync::{Arc, Mutex};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use rustix::event::EventfdFlags;

use super::Launcher;
use super::connect::{Connector, KeeperExe};
use super::job::{AttemptRef, ExitRecord, Job};
use super::line::{Ask, Desk, Shared, Worker, locked, unmet};
use super::probe::{IsHeld, Probe, probe};

/// Where keepers are and what they are started from.
#[derive(Debug, Clone)]
pub struct KeeperDirs {
    /// Holds one folder per agent.
    pub keepers_dir: PathBuf,
    /// What a keeper is started with; agent, folder and socket are appended.
    pub exe: KeeperExe,
    /// Where sockets lie; see [`super::rendezvous::runtime_dir`].
    pub runtime_dir: PathBuf,
}

/// What became of an order, or of an agent's keeper.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Report {
    /// A connection to the agent's keeper stands.
    Connected {
        /// The agent.
        agent: String,
        /// The keeper's process id.
        pid: i32,
        /// The attempt under way there.
        running: Option<String>,
    },
    /// The first command of the attempt runs; or one that was to be adopted does.
    Started {
        /// The agent.
        agent: String,
        /// Attempt id.
        attempt: String,
    },
    /// The attempt is over.
    Exited {
        /// The agent.
        agent: String,
        /// How it ended.
        record: Box<ExitRecord>,
    },
    /// The keeper did not carry out an order.
    Refused {
        /// The agent.
        agent: String,
        /// The attempt ordered.
        attempt: Option<String>,
        /// Why, for people.
        why: String,
    },
    /// There was no keeper to be had; the attempt was not started.
    StartFailed {
        /// The agent.
        agent: String,
        /// Attempt id.
        attempt: String,
        /// Why, for people.
        why: String,
    },
    /// The keeper lives and cannot be talked to, so nothing is known of the attempt, which may be
    /// running: adopt it again. The keeper's end is told in any case.
    Unreachable {
        /// The agent.
        agent: String,
        /// The attempt that was to be adopted.
        attempt: String,
        /// Why, for people.
        why: String,
    },
    /// The keeper died, or no living one has the attempt that was to be adopted.
    KeeperLost {
        /// The agent.
        agent: String,
        /// The attempt ordered or adopted whose outcome is not known.
        attempt: Option<String>,
        /// What the world says of that attempt, never `KeeperAlive` or `Exited`; `None` without an
        /// attempt, or when it could not be read.
        found: Option<Probe>,
    },
    /// The keeper lives but has let go of us; adopt its attempt again to be told of the end.
    Superseded {
        /// The agent.
        agent: String,
        /// The attempt ordered or adopted whose outcome is awaited; it may not have arrived.
        attempt: Option<String>,
    },
}

/// Receives reports, from the agents' threads.
pub(super) type Reporter = Arc<dyn Fn(Report) + Send + Sync>;

/// The keepers of a project, as a monitor uses them.
pub struct Keepers {
    dirs: KeeperDirs,
    report: Reporter,
    is_held: IsHeld,
    lines: Mutex<HashMap<String, Line>>,
}

impl fmt::Debug for Keepers {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("Keepers").field("dirs", &self.dirs).finish_non_exhaustive()
    }
}

/// One agent's thread and what it shares with the caller.
struct Line {
    shared: Arc<Shared>,
    thread: JoinHandle<()>,
    /// Its keeper was asked to leave.
    is_left: bool,
}

impl Keepers {
    /// Makes the monitor's side; connects to nobody yet.
    ///
    /// `report` is called from the agents' threads and must not block on them. `is_held` tells whether a lock file is locked.
    pub fn new(
        dirs: KeeperDirs,
        report: impl Fn(Report) + Send + Sync + 'static,
        is_held: IsHeld,
    ) -> Self {
        Self { dirs, report: Arc::new(report), is_held, lines: Mutex::new(HashMap::new()) }
    }

    /// Asks the keeper of `agent` to leave when it is idle; no keeper is started for it.
    pub fn quit(&self, agent: &str) {
        self.ask(agent, Ask::Quit);
    }

    /// Asks the keepers to leave of those agents for which `is_there` is false, each once until it is
    /// asked for something else.
    pub fn retain(&self, is_there: impl Fn(&str) -> bool) {
        let mut lines = locked(&self.lines);
        let is_gone = |name: &str, line: &Line| !line.is_left && !is_there(name);
        for (_, line) in lines.iter_mut().filter(|(name, line)| is_gone(name, line)) {
            line.is_left = true;
            line.shared.ask(Ask::Quit);
        }
    }

    /// Lets go of all keepers: each finishes its job and leaves.
    pub fn leave(&self) {
        let lines: Vec<Line> = locked(&self.lines).drain().map(|(_, line)| line).collect();
        for line in &lines {
            line.shared.leave();
        }
        for line in lines {
            // A thread that panicked has reported nothing more; the keeper is let go all the same.
            let _ = line.thread.join();
        }
    }

    /// Hands `ask` to the agent's thread, or straight to its keeper when that listens.
    fn ask(&self, agent: &str, ask: Ask) {
        let mut lines = locked(&self.lines);
        if !lines.contains_key(agent) {
            match self.open_line(agent) {
                Ok(line) => {
                    lines.insert(agent.to_owned(), line);
                }
                Err(error) => {
                    drop(lines);
                    let why = format!("cannot start a thread: {error}");
                    return (self.report)(unmet(agent, ask, why));
                }
            }
        }
        let Some(line) = lines.get_mut(agent) else { return };
        line.is_left = false;
        let shared = Arc::clone(&line.shared);
        drop(lines);
        shared.ask(ask);
    }

    fn open_line(&self, agent: &str) -> io::Result<Line> {
        let wake = rustix::event::eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)?;
        let shared = Arc::new(Shared { wake, desk: Mutex::new(Desk::default()) });
        let connector = Connector {
            agent: agent.to_owned(),
            keeper_dir: self.dirs.keepers_dir.join(agent),
            runtime_dir: self.dirs.runtime_dir.clone(),
            exe: self.dirs.exe.clone(),
            is_held: self.is_held,
        };
        let worker = Worker::new(connector, Arc::clone(&self.report), Arc::clone(&shared));
        let thread =
            thread::Builder::new().name(format!("keeper {agent}")).spawn(move || worker.serve())?;
        Ok(Line { shared, thread, is_left: false })
    }
}

impl Launcher for Keepers {
    fn start(&self, agent: &str, job: Job) {
        self.ask(agent, Ask::Run(Box::new(job)));
    }

    fn stop(&self, agent: &str, attempt: &str, grace: Duration) {
        self.ask(agent, Ask::Stop { attempt: attempt.to_owned(), grace });
    }

    fn adopt(&self, agent: &str, attempt: &AttemptRef) {
        self.ask(agent, Ask::Adopt(attempt.clone()));
    }

    fn probe(&self, agent: &str, attempt: &AttemptRef) -> io::Result<Probe> {
        probe(&self.dirs.keepers_dir.join(agent), attempt, self.is_held)
    }
}

impl Drop for Keepers {
    fn drop(&mut self) {
        self.leave();
    }
}
