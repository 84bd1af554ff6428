//! The one way to call tmux: its own server on our socket, without anybody's settings.
//!
//! Windows and panes are named by the ids that tmux gives them, so nothing has to be quoted. What
//! tmux says is matched by status alone: a call that fails is tried in another way or given up.

use std::ffi::{OsStr, OsString};
use std::fs::{self, File};
use std::io;
use std::os::fd::AsFd;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::os::unix::net::UnixStream;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitStatus, Stdio};
use std::time::Duration;

use rustix::fs::FlockOperation;
use xxhash_rust::xxh3::xxh3_64;

use crate::sys::child::{self, Heard};
use crate::sys::fail;
use crate::sys::proc::{self, Process};

/// The oldest version that was thought through; 3.3 is what the tests run with.
pub const VERSION_MIN: (u32, u32) = (3, 0);

/// How long tmux may take to answer.
const CALL_MAX: Duration = Duration::from_secs(5);
/// How often a window is tried: other keepers open and close windows at the same time, the last of
/// which ends the server.
const OPEN_TRIES: usize = 10;
/// Size of a window that nobody looks at.
const SIZE: (&str, &str) = ("120", "40");
/// What of our environment tmux is given, and with it what has no environment of its own.
const ENVIRONMENT: &[&str] = &[
    "PATH",
    "HOME",
    "USER",
    "LOGNAME",
    "SHELL",
    "LANG",
    "LC_ALL",
    "LC_CTYPE",
    "TMPDIR",
    #[cfg(feature = "failpoints")]
    "PIPELINE_FAILPOINT",
    #[cfg(feature = "failpoints")]
    "PIPELINE_FAILPOINT_LOG",
    #[cfg(feature = "failpoints")]
    "PIPELINE_FAILPOINT_ONCE",
];
/// How long a server whose last window has closed may take to end.
const END_WAIT: Duration = Duration::from_secs(2);
/// The window's option that says whose it is; people may rename windows.
const AGENT_OPTION: &str = "@agent";

/// A server of ours, running or not.
#[derive(Debug, Clone)]
pub struct Tmux {
    socket: PathBuf,
}

/// A window just opened.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Window {
    /// tmux's id of the pane, such as `%3`.
    pub pane: String,
    /// The process in it.
    pub pid: i32,
}

/// Returns where the server of a project listens: beside the keepers' sockets, one for each folder
/// of keepers, and as long a path as theirs.
#[must_use]
pub fn server_socket(runtime_dir: &Path, keepers_dir: &Path) -> PathBuf {
    let hash = xxh3_64(keepers_dir.as_os_str().as_bytes());
    runtime_dir.join(format!("{hash:016x}.tmux"))
}

/// Returns the version of the tmux in `PATH`, as it says it and as numbers.
///
/// # Errors
/// When there is none, or it does not answer.
pub fn version() -> io::Result<(String, (u32, u32))> {
    let mut command = child::command("tmux", Path::new("/"));
    let said = run(command.arg("-V"), "-V")?;
    let text = said.strip_prefix("tmux ").unwrap_or(&said).to_owned();
    let digits: String =
        text.chars().skip_while(|c| !c.is_ascii_digit()).take_while(|c| *c != '-').collect();
    let mut parts = digits.split(|c: char| !c.is_ascii_digit()).map(str::parse::<u32>);
    let mut next = || parts.next().and_then(Result::ok).unwrap_or(0);
    let numbers = (next(), next());
    Ok((text, numbers))
}

/// Returns why agents in tmux cannot be started on this machine; `None`: they can.
#[must_use]
pub fn lacking() -> Option<String> {
    let (major, minor) = VERSION_MIN;
    // Once more: a call may be killed, or be late on a busy machine.
    let is_there = |error: &io::Error| error.kind() != io::ErrorKind::NotFound;
    let asked = match version() {
        Err(error) if is_there(&error) => version(),
        asked => asked,
    };
    match asked {
        Ok((_, numbers)) if numbers >= VERSION_MIN => None,
        Ok((text, _)) => Some(format!("tmux is {text}, {major}.{minor} or newer is needed")),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Some("tmux is not there".into()),
        Err(error) => Some(format!("tmux does not work: {error}")),
    }
}

impl Tmux {
    /// Names the server at `socket`; starts nothing.
    #[must_use]
    pub fn at(socket: PathBuf) -> Self {
        Self { socket }
    }

    /// Opens a window for `agent` in `session`, in which `words` run; starts server and session
    /// where they are missing.
    ///
    /// # Errors
    /// When tmux refuses for long.
    pub fn open(&self, session: &str, agent: &str, words: &[OsString]) -> io::Result<Window> {
        let format = "#{pane_id} #{pane_pid}";
        let target = format!("={session}:");
        let shared: [&str; 6] = ["-d", "-P", "-F", format, "-n", agent];
        let size = ["-s", session, "-x", SIZE.0, "-y", SIZE.1];
        // Without it nobody removes the socket either.
        let _gate = self.gate(FlockOperation::LockShared);
        let mut tries = 0;
        loop {
            tries += 1;
            let beside = ["new-window"].into_iter().chain(shared).chain(["-t", &target]);
            let first = ["start-server", ";"]
                .into_iter()
                .chain(["set-option", "-g", "default-terminal", "screen-256color", ";"])
                .chain(["set-option", "-g", "history-limit", "20000", ";"])
                .chain(["set-option", "-g", "status-left-length", "42", ";", "new-session"])
                .chain(shared)
                .chain(size);
            fail::point("tmux.open")?;
            let opened = self.call(beside, words).or_else(|_| self.call(first, words));
            match opened {
                Ok(said) => {
                    let window = window(&said)?;
                    let mark = ["set-option", "-w", "-t", &window.pane, AGENT_OPTION, agent];
                    // A window without the mark only cannot be found by `agent attach`.
                    let _ = self.call(mark, &[]);
                    return Ok(window);
                }
                Err(error) if tries >= OPEN_TRIES => return Err(error),
                Err(_) => {}
            }
        }
    }

    /// Returns what the pane shows, lines that were wrapped put together; whatever a person looks at
    /// there in copy mode.
    ///
    /// # Errors
    /// When there is no such pane.
    pub fn text(&self, pane: &str) -> io::Result<String> {
        self.call(["capture-pane", "-p", "-J", "-t", pane], &[])
    }

    /// Puts `text` into the pane's program as it is; arrives in copy mode too.
    ///
    /// Not with `-p`, by which tmux marks a paste: in copy mode it does not (seen with 3.3a).
    ///
    /// # Errors
    /// When there is no such pane.
    pub fn paste(&self, pane: &str, text: &str) -> io::Result<()> {
        fail::point("tmux.paste")?;
        let buffer = format!("pipeline-{}", pane.trim_start_matches('%'));
        let mut command = self.command();
        command.args(["set-buffer", "-b", &buffer, "--"]).arg(escaped(OsStr::new(text)));
        command.args([";", "paste-buffer", "-d", "-r", "-b", &buffer, "-t", pane]);
        run(&mut command, "paste-buffer").map(|_| ())
    }

    /// Removes the socket that a server leaves when it ends; one that is about to end is waited for a
    /// moment. A socket that is listened at stays, and so does any while a window is being opened.
    pub fn clear(&self) {
        if let Some(server) = self.process() {
            // By its process: a connection that is held open would keep it.
            let _ = proc::wait_readable(&[server.as_fd()], Some(END_WAIT));
        }
        let gate = self.gate(FlockOperation::NonBlockingLockExclusive);
        let is_dead = || match UnixStream::connect(&self.socket) {
            Ok(_) => false,
            Err(error) => error.kind() == io::ErrorKind::ConnectionRefused,
        };
        if gate.is_ok() && is_dead() && fail::point("tmux.clear").is_ok() {
            // One that stays is replaced by the next server.
            let _ = fs::remove_file(&self.socket);
        }
    }

    /// Takes hold of the server, while it runs.
    fn process(&self) -> Option<Process> {
        let is_there = UnixStream::connect(&self.socket).is_ok();
        let said = is_there.then(|| self.call(["display-message", "-p", "#{pid}"], &[]))?.ok()?;
        let stat = proc::read_stat(said.parse().ok()?).ok()??;
        Process::open(stat).ok()?
    }

    /// Locks the folder of the sockets, until what is returned goes: shared by those who open a
    /// window, which may make the socket; alone, by one who removes it.
    fn gate(&self, how: FlockOperation) -> io::Result<File> {
        let dir = File::open(self.socket.parent().unwrap_or(Path::new("/")))?;
        rustix::fs::flock(&dir, how)?;
        Ok(dir)
    }

    /// Returns session and window of an agent; `None`: it has none now.
    #[must_use]
    pub fn window_of(&self, agent: &str) -> Option<(String, String)> {
        let format = "#{session_group} #{session_name} #{window_id} #{@agent}";
        let said = self.call(["list-windows", "-a", "-F", format], &[]).ok()?;
        said.lines().find_map(|line| {
            let mut words = line.split(' ');
            let (group, session, window) = (words.next()?, words.next()?, words.next()?);
            let session = if group.is_empty() { session } else { group };
            (words.next() == Some(agent)).then(|| (session.to_owned(), window.to_owned()))
        })
    }

    /// Shows the window in this terminal until the person leaves, in a view of its own: several
    /// people may look at several windows.
    ///
    /// The view is removed from here: `destroy-unattached` makes the server of tmux 3.3a crash now
    /// and then when a view of several is left. One that stays goes with the last window.
    ///
    /// # Errors
    /// When tmux cannot be started.
    pub fn attach(&self, session: &str, window: &str) -> io::Result<ExitStatus> {
        let view = format!("{session}-view-{}", std::process::id());
        let mut command = child::command("tmux", Path::new("/"));
        command.env_remove("TMUX").env_remove("TMUX_PANE").stdin(Stdio::inherit());
        self.server(&mut command);
        command.args(["new-session", "-t", session, "-s", &view, ";"]);
        command.args(["select-window", "-t", &format!("{view}:{window}")]);
        fail::point("tmux.attach")?;
        let status = command.status()?;
        // Gone with its windows is gone too.
        let _ = self.call(["kill-session", "-t", &format!("={view}")], &[]);
        Ok(status)
    }

    fn server(&self, command: &mut Command) {
        command.args(["-u", "-f", "/dev/null", "-S"]).arg(escaped(self.socket.as_os_str()));
    }

    fn command(&self) -> Command {
        let mut command = child::command("tmux", Path::new("/"));
        command.env_clear().process_group(0);
        command.envs(ENVIRONMENT.iter().filter_map(|name| Some((name, std::env::var_os(name)?))));
        self.server(&mut command);
        command
    }

    fn call<'a>(
        &self,
        args: impl IntoIterator<Item = &'a str>,
        words: &[OsString],
    ) -> io::Result<String> {
        let args: Vec<&str> = args.into_iter().collect();
        let mut command = self.command();
        command.args(&args).args(words.iter().map(|word| escaped(word)));
        run(&mut command, args.first().copied().unwrap_or_default())
    }
}

fn window(said: &str) -> io::Result<Window> {
    let parsed = said.trim().split_once(' ').and_then(|(pane, pid)| {
        Some(Window { pane: pane.to_owned(), pid: pid.parse().ok().filter(|pid| *pid > 0)? })
    });
    parsed.ok_or_else(|| io::Error::other(format!("tmux opened a window and said `{said}`")))
}

/// tmux takes a word that ends in `;` as the end of a command.
fn escaped(word: &OsStr) -> OsString {
    match word.as_bytes().strip_suffix(b";") {
        Some(rest) => OsString::from_vec([rest, b"\\;"].concat()),
        None => word.to_owned(),
    }
}

fn run(command: &mut Command, what: &str) -> io::Result<String> {
    match child::output_within(command.process_group(0), CALL_MAX, None)? {
        Heard::Ended(output) if output.status.success() => {
            Ok(String::from_utf8_lossy(&output.stdout).trim_end_matches('\n').to_owned())
        }
        Heard::Ended(output) => {
            let said = String::from_utf8_lossy(&output.stderr);
            let said = [": ", said.trim()].concat();
            let said = said.trim_end_matches(": ");
            Err(io::Error::other(format!("`tmux {what}` failed ({}){said}", output.status)))
        }
        Heard::Late(_) => {
            Err(io::Error::other(format!("`tmux {what}` did not answer within {CALL_MAX:?}")))
        }
    }
}

#[cfg(test)]
mod tests {
    use std::ffi::OsStr;
    use std::os::unix::net::UnixListener;
    use std::path::Path;
    use std::time::Duration;

    use rustix::fs::FlockOperation;

    use super::{Tmux, escaped, server_socket, window};
    use crate::sys::clock::monotonic;

    #[test]
    fn socket_is_removed_when_nobody_listens_and_nobody_opens_a_window() {
        let dir = tempfile::tempdir().expect("temporary folder");
        let tmux = Tmux::at(dir.path().join("a.tmux"));
        tmux.clear();
        let server = UnixListener::bind(&tmux.socket).expect("listens");
        tmux.clear();
        assert!(tmux.socket.exists(), "it is in use");
        drop(server);
        let gate = tmux.gate(FlockOperation::LockShared).expect("nobody is alone");
        tmux.clear();
        assert!(tmux.socket.exists(), "a window is being opened");
        drop(gate);
        // What another test is starting shares both with us until it executes.
        let until = monotonic() + Duration::from_secs(10);
        while tmux.socket.exists() && monotonic() < until {
            tmux.clear();
        }
        assert!(!tmux.socket.exists());
    }

    #[test]
    fn word_that_ends_a_command_is_escaped() {
        assert_eq!(escaped(OsStr::new("a;")), "a\\;");
        assert_eq!(escaped(OsStr::new("a;b 'c' \"d\"")), "a;b 'c' \"d\"");
        assert_eq!(escaped(OsStr::new("")), "");
    }

    #[test]
    fn servers_socket_is_as_long_as_a_keepers() {
        let deep = Path::new("/").join("x".repeat(200));
        let socket = server_socket(Path::new("/run/user/1000/pipeline"), &deep);
        assert!(socket.as_os_str().len() < 108);
        assert_ne!(socket, server_socket(Path::new("/run/user/1000/pipeline"), Path::new("/y")));
    }

    #[test]
    fn window_without_a_process_is_none() {
        assert_eq!(
            window("%3 41\n").map(|window| (window.pane, window.pid)).ok(),
            Some(("%3".into(), 41))
        );
        for said in ["", "%3", "%3 x", "%3 0"] {
            assert!(window(said).is_err(), "{said}");
        }
    }
}
