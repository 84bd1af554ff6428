//! How the monitor comes to a connection with an agent's keeper: to the one that lives, or a new one.

use std::ffi::OsString;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Read};
use std::os::fd::AsFd;
use std::os::unix::fs::MetadataExt;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::thread;
use std::time::{Duration, Instant};

use super::probe::IsHeld;
use super::protocol::{Connection, Flow, KeeperReport, decode};
use super::rendezvous::{self, KeeperInfo};
use crate::sys::file::read_end;
use crate::sys::proc::{self, Process};
use crate::sys::{child, clock, fail};

/// How long a keeper that holds its lock may be out of reach, which it is while it starts or leaves.
const REACH_WAIT_MAX: Duration = Duration::from_secs(3);
/// How long a keeper may take to listen or to answer.
const KEEPER_WAIT_MAX: Duration = Duration::from_secs(10);
/// How long to wait before looking again at a keeper that has its lock and does not listen yet, or
/// starting one anew.
const LOOK_AGAIN: Duration = Duration::from_millis(20);
/// In a keeper's folder: what it says on its standard error.
pub const KEEPER_LOG: &str = "keeper.log";
const STDERR_BYTES_MAX: u64 = 1024 * 1024;
const STDERR_QUOTED_BYTES: u64 = 2000;

/// The program that becomes a keeper.
#[derive(Debug, Clone)]
pub struct KeeperExe {
    /// The program's file.
    pub program: PathBuf,
    /// What stands before agent, folder and socket.
    pub args: Vec<OsString>,
}

/// Everything needed to reach one agent's keeper.
#[derive(Debug, Clone)]
pub struct Connector {
    /// The agent.
    pub agent: String,
    /// The keeper's folder.
    pub keeper_dir: PathBuf,
    /// Where sockets lie, while it is there.
    pub runtime_dir: PathBuf,
    /// What a keeper is started from.
    pub exe: KeeperExe,
    /// Tells whether a lock file is locked.
    pub is_held: IsHeld,
}

/// A connection whose keeper has said hello.
#[derive(Debug)]
pub struct Link {
    /// The connection.
    pub connection: Connection,
    /// The keeper's process id.
    pub pid: i32,
    /// The attempt that was under way at the hello.
    pub running: Option<String>,
    /// Lines that came right behind the hello.
    pub early: Vec<Vec<u8>>,
    process: Option<Process>,
}

impl Link {
    /// Waits until the keeper's process has ended, at most `wait`; returns whether it has.
    #[must_use]
    pub fn has_ended_within(&self, wait: Duration) -> bool {
        self.process.as_ref().is_none_or(|process| has_ended_within(process, wait))
    }
}

impl Connector {
    /// Connects to the keeper that has the lock; `None` when nobody has it.
    ///
    /// # Errors
    /// When one has the lock but cannot be reached, or does not answer.
    pub fn connect_if_alive(&self) -> io::Result<Option<Link>> {
        let give_up_at = clock::monotonic() + REACH_WAIT_MAX;
        while (self.is_held)(&rendezvous::lock_path(&self.keeper_dir)) {
            match self.try_connect() {
                Ok(link) => return Ok(Some(link)),
                Err(error) if clock::monotonic() >= give_up_at => return Err(error),
                Err(_) => self.wait_for_change(give_up_at)?,
            }
        }
        Ok(None)
    }

    /// Connects to the agent's keeper, starting one when there is none.
    ///
    /// # Errors
    /// When none could be started, with the end of what it said; when one does not answer.
    pub fn connect_or_start(&self) -> io::Result<Link> {
        let give_up_at = clock::monotonic() + KEEPER_WAIT_MAX;
        loop {
            if let Some(link) = self.connect_if_alive()? {
                return Ok(link);
            }
            let place = Place::find(self)?;
            let started = self.start_keeper(&place.socket);
            let is_started = started.is_ok();
            let error = match started.and_then(|()| self.try_connect()) {
                Ok(link) => return Ok(link),
                Err(error) => error,
            };
            // Another monitor's keeper may have been quicker with the lock.
            let is_beaten = (self.is_held)(&rendezvous::lock_path(&self.keeper_dir));
            let is_gone = place.is_gone(is_started);
            if !(is_beaten || is_gone) || clock::monotonic() >= give_up_at {
                return Err(error);
            }
            proc::wait_readable(&[], Some(LOOK_AGAIN))?;
        }
    }

    fn try_connect(&self) -> io::Result<Link> {
        let info = KeeperInfo::read(&self.keeper_dir)
            .ok_or_else(|| io::Error::other("the keeper has not said where it listens"))?;
        fail::point("keeper.connect")?;
        let mut connection = Connection::new(UnixStream::connect(&info.socket)?)?;
        let give_up_at = clock::monotonic() + KEEPER_WAIT_MAX;
        let mut lines = Vec::new();
        while lines.is_empty() {
            let rest = give_up_at.saturating_duration_since(clock::monotonic());
            let is_silent = proc::wait_readable(&[connection.stream().as_fd()], Some(rest))? == 0;
            let flow = connection.receive(&mut lines)?;
            if lines.is_empty() && (flow == Flow::Ended || (is_silent && rest.is_zero())) {
                return Err(io::Error::other("the keeper did not say hello"));
            }
        }
        let early = lines.split_off(1);
        match decode(&lines[0])? {
            KeeperReport::Hello { pid, running, .. } => {
                // Who says hello has written its own by then; the one read above may be older.
                let info = KeeperInfo::read(&self.keeper_dir).filter(|info| info.pid == pid);
                let info = info.ok_or_else(|| io::Error::other("another keeper answered"))?;
                Ok(Link { connection, pid, running, early, process: info.process()? })
            }
            KeeperReport::Started { .. }
            | KeeperReport::Exited { .. }
            | KeeperReport::Refused { .. } => {
                Err(io::Error::other("the keeper did not say hello first"))
            }
        }
    }

    /// Takes hold of the keeper that last said where it listens; `None` when it is gone.
    #[must_use]
    pub fn process(&self) -> Option<Process> {
        KeeperInfo::read(&self.keeper_dir)?.process().ok().flatten()
    }

    /// Waits until the keeper that does not answer is gone, or a moment when it is just starting.
    fn wait_for_change(&self, give_up_at: Instant) -> io::Result<()> {
        let rest = give_up_at.saturating_duration_since(clock::monotonic());
        match self.process() {
            Some(process) => proc::wait_readable(&[process.as_fd()], Some(rest.min(LOOK_AGAIN))),
            None => proc::wait_readable(&[], Some(LOOK_AGAIN)),
        }
        .map(|_| ())
    }

    /// Returns where a new keeper's socket is to lie. The folder known since the monitor's start goes
    /// away when the user's last session ends.
    fn runtime_dir(&self) -> io::Result<PathBuf> {
        let known = &self.runtime_dir;
        let usable = rendezvous::private_dir(known).map(|()| known.clone());
        usable.or_else(|_| rendezvous::runtime_dir()).map_err(|error| {
            let why = format!("cannot make a folder for sockets in place of `{}`", known.display());
            io::Error::new(error.kind(), format!("{why}: {error}"))
        })
    }

    /// Starts a keeper and returns when it listens.
    fn start_keeper(&self, socket: &Path) -> io::Result<()> {
        let stderr_path = self.keeper_dir.join(KEEPER_LOG);
        let stderr = OpenOptions::new().create(true).append(true).open(&stderr_path)?;
        if stderr.metadata()?.len() > STDERR_BYTES_MAX {
            stderr.set_len(0)?;
        }
        let mut command = child::command(&self.exe.program, &self.keeper_dir);
        command.args(&self.exe.args).arg(&self.agent).arg(&self.keeper_dir).arg(socket);
        command.stdout(Stdio::piped()).stderr(stderr);
        fail::point("keeper.start")?;
        let mut keeper = command.spawn().map_err(|error| {
            let program = self.exe.program.display();
            io::Error::new(error.kind(), format!("cannot start `{program}`: {error}"))
        })?;
        let said = keeper.stdout.take();
        // Reaps it whenever it ends; the keeper outlives us, so this thread is not waited for.
        let reaper = thread::Builder::new().stack_size(64 * 1024);
        let reaper = reaper.name("keeper reaper".into()).spawn(move || keeper.wait());
        reaper?;
        let Some(mut said) = said else { return Err(io::Error::other("no pipe to the keeper")) };
        if proc::wait_readable(&[said.as_fd()], Some(KEEPER_WAIT_MAX))? == 0 {
            return Err(io::Error::other("the keeper does not listen"));
        }
        let mut byte = [0_u8; 1];
        if said.read(&mut byte)? == 0 {
            let end = stderr_end(&stderr_path);
            return Err(io::Error::other(format!("the keeper left at once: {end}")));
        }
        Ok(())
    }
}

/// Where a new keeper is to listen.
struct Place {
    socket: PathBuf,
    folder: Option<File>,
}

impl Place {
    fn find(connector: &Connector) -> io::Result<Self> {
        fs::create_dir_all(&connector.keeper_dir)?;
        let dir = connector.runtime_dir()?;
        let socket = rendezvous::socket_path(&dir, &connector.keeper_dir)?;
        let folder = match File::open(dir) {
            Ok(folder) => Some(folder),
            Err(error) if error.kind() == io::ErrorKind::NotFound => None,
            Err(error) => return Err(error),
        };
        Ok(Self { socket, folder })
    }

    /// Returns whether it went away since it was found, which it may at any moment.
    fn is_gone(&self, is_started: bool) -> bool {
        // A folder that was removed has no links.
        let is_removed = |folder: &File| folder.metadata().is_ok_and(|meta| meta.nlink() == 0);
        self.folder.as_ref().is_none_or(is_removed) || (is_started && !self.socket.exists())
    }
}

fn has_ended_within(process: &Process, wait: Duration) -> bool {
    proc::wait_readable(&[process.as_fd()], Some(wait)).is_ok_and(|count| count > 0)
}

fn stderr_end(path: &Path) -> String {
    let bytes = read_end(path, STDERR_QUOTED_BYTES).unwrap_or_default();
    String::from_utf8_lossy(&bytes).trim().to_owned()
}
