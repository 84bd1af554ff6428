//! Follows a command and all it starts, call by call, and strikes at a chosen one (ptrace(2)).
//!
//! A **point** is the moment before a system call that changes something outside of its process:
//! files, sockets, locks, other processes, its own end. Points are counted for each process by
//! itself, so that they are found again in the next run: `git update-ref#2`, point 7. Processes are
//! named by what they execute: `monitor`, `keeper architect`, `git merge-tree`; what agents execute
//! is let go. tmux is followed for what it starts, and has no points. x86_64 only.
//!
//! One thread traces one command at a time, and has no other child meanwhile: it waits for all of
//! its children. When it ends, the kernel kills what it still traces.

mod call;
mod role;

use std::collections::{BTreeMap, BTreeSet};
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{self, RecvTimeoutError};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};
use std::{fs, thread};

use libtest_mimic::{Failed, Trial};
use nix::errno::Errno;
use nix::sys::ptrace::{self, Event, Options};
use nix::sys::signal::{Signal, kill};
use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};
use nix::unistd::Pid;

use call::Entered;
pub use call::can_fail;
use pipeline::sys::clock::monotonic;
use role::Role;

/// Starts the command only when it has been taken hold of.
const START: &str = "read -r go && exec \"$@\"";

/// A moment before a call.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Point {
    /// Which process, with its number among those of the same role: `git commit-tree#3`.
    pub role: String,
    /// Its number among the points of the process, from 1.
    pub ordinal: u32,
    /// The call and what it is about, for people.
    pub call: String,
    /// The thread that makes it.
    pub thread: i32,
    /// What it writes, where that is a record of the journal or a message; the beginning of a long one.
    pub text: String,
    /// Files and folders that it changes: in full, or from the base on.
    pub places: Vec<String>,
}

impl Point {
    /// Returns true when it is the traced command itself that is there, and none of its children.
    pub fn is_of_command(&self) -> bool {
        self.role.starts_with("monitor#") || self.role.starts_with("command#")
    }
}

/// What to do.
#[derive(Debug, Clone)]
pub enum Plan {
    /// List all points.
    Observe,
    /// End the process with SIGKILL before the call takes effect, and let all others go.
    Kill { role: String, ordinal: u32 },
    /// End tmux with SIGKILL instead, its server as well as its calls.
    KillTerminal { role: String, ordinal: u32 },
    /// Let the call fail instead, or the first one after it that can fail in this way: threads make
    /// theirs in another order each time. `lasting`: and for so long every call that can, in whatever
    /// process. Then let all go.
    Fail { role: String, ordinal: u32, errno: Errno, lasting: Option<Duration> },
}

/// What a traced run was like.
#[derive(Debug)]
pub struct Outcome {
    /// The points passed, in order, up to the strike.
    pub points: Vec<Point>,
    /// Where it was struck; `None`: the point was not reached.
    pub struck: Option<Point>,
    /// Exit status of the command; `None`: a signal ended it.
    pub code: Option<i32>,
    /// The time was up, and all was killed.
    pub is_late: bool,
}

/// Where what the command says goes, below its base.
pub const OUTPUT: &str = "monitor-traced";

/// Runs `command` by `plan`, at most so long; paths below the folder `base` are told from there, and
/// what the command says is kept there, in `monitor-traced`.
///
/// # Errors
/// When it does not start, or tracing is not permitted.
pub fn trace(command: &Command, plan: &Plan, base: &Path, limit: Duration) -> io::Result<Outcome> {
    let output = fs::File::create(base.join(OUTPUT))?;
    let mut held = held_back(command);
    let mut child = held.stdout(output.try_clone()?).stderr(output).spawn()?;
    let pid = Pid::from_raw(child.id().cast_signed());
    let options = Options::PTRACE_O_TRACESYSGOOD
        | Options::PTRACE_O_TRACEFORK
        | Options::PTRACE_O_TRACEVFORK
        | Options::PTRACE_O_TRACECLONE
        | Options::PTRACE_O_TRACEEXEC
        | Options::PTRACE_O_EXITKILL;
    if let Err(error) = ptrace::seize(pid, options).and_then(|()| ptrace::interrupt(pid)) {
        // It ends by itself when its input does.
        drop(child.stdin.take());
        child.wait()?;
        return Err(error.into());
    }
    if let Some(mut input) = child.stdin.take() {
        input.write_all(b"\n")?;
    }
    let mut tracer = Tracer::new(pid, plan.clone(), base);
    let watch = Watch::new(&tracer.living, limit);
    tracer.follow()?;
    tracer.end(&mut child, watch)
}

/// The tracer itself, on a small program; ignored, with the reason, where nothing can be traced.
pub fn trials() -> Vec<Trial> {
    let obstacle = obstacle();
    let trial = Trial::test("tracer::a_call_that_is_to_fail_fails_and_has_no_effect", || {
        let dir = tempfile::tempdir()?;
        let mut command = pipeline::sys::child::command("mkdir", dir.path());
        command.args(["first", "second"]).env("LC_ALL", "C");
        for (lasting, left) in [(None, 1), (Some(Duration::from_secs(10)), 0)] {
            let (role, errno) = ("mkdir#1".to_owned(), Errno::ENOSPC);
            let plan = Plan::Fail { role, ordinal: 1, errno, lasting };
            let outcome = trace(&command, &plan, dir.path(), Duration::from_secs(10))?;
            let said = fs::read_to_string(dir.path().join(OUTPUT))?;
            let made = ["first", "second"].map(|name| fs::remove_dir(dir.path().join(name)));
            assert_eq!(outcome.code, Some(1), "{:?}", outcome.points);
            assert!(said.contains("No space left on device"), "{said}");
            assert_eq!(made.iter().filter(|made| made.is_ok()).count(), left, "{said}");
        }
        Ok(())
    });
    let unused = Trial::test("tracer::calls_that_nobody_makes_yet_are_seen", sees_what_is_not_used);
    let kind = obstacle.unwrap_or_default();
    let is_ignored = !kind.is_empty();
    let ready = |trial: Trial| trial.with_kind(kind.clone()).with_ignored_flag(is_ignored);
    [trial, unused].map(ready).into()
}

/// Calls that the program does not make today are seen all the same.
fn sees_what_is_not_used() -> Result<(), Failed> {
    let dir = tempfile::tempdir()?;
    let id = rustix::process::getuid().as_raw().to_string();
    let cases = [
        (&["mkfifo", "it"][..], "mknod it"),
        (&["chown", &id, "it"], "chown it"),
        (&["sync", "-f", "."], "syncfs"),
    ];
    for (words, wanted) in cases {
        let mut command = pipeline::sys::child::command(words[0], dir.path());
        command.args(&words[1..]);
        let outcome = trace(&command, &Plan::Observe, dir.path(), Duration::from_secs(10))?;
        let is_seen = outcome.points.iter().any(|point| point.call == wanted);
        assert!(outcome.code == Some(0) && is_seen, "{words:?}: {:?}", outcome.points);
    }
    Ok(())
}

/// Says why nothing can be traced here; `None`: it can.
pub fn obstacle() -> Option<String> {
    let dir = tempfile::tempdir().expect("a temporary folder");
    let command = pipeline::sys::child::command("true", dir.path());
    let traced = trace(&command, &Plan::Observe, dir.path(), Duration::from_secs(10));
    traced.err().map(|error| format!("ptrace is not permitted here: {error}"))
}

/// The same command behind a shell that waits for a line.
fn held_back(command: &Command) -> Command {
    let dir = command.get_current_dir().unwrap_or(Path::new("/"));
    let mut held = pipeline::sys::child::command("sh", dir);
    held.env_clear();
    held.args(["-c", START, "sh"]).arg(command.get_program()).args(command.get_args());
    held.envs(command.get_envs().filter_map(|(name, value)| Some((name, value?))));
    if !command.get_envs().any(|(name, _)| name == "PATH") {
        held.env("PATH", std::env::var_os("PATH").unwrap_or_default());
    }
    held.stdin(Stdio::piped());
    held
}

/// Kills all that lives when the time is up.
struct Watch {
    done: mpsc::Sender<()>,
    thread: thread::JoinHandle<bool>,
}

impl Watch {
    fn new(living: &Living, limit: Duration) -> Self {
        let (done, is_done) = mpsc::channel();
        let living = Arc::clone(living);
        let thread = thread::spawn(move || {
            let is_late = is_done.recv_timeout(limit) == Err(RecvTimeoutError::Timeout);
            while is_late && is_done.recv_timeout(Duration::from_millis(20)).is_err() {
                kill_all(&living);
            }
            is_late
        });
        Self { done, thread }
    }

    /// Ends the watch; returns whether it had to act.
    fn end(self) -> bool {
        // Nobody listens any more when it has acted and seen the end.
        let _ = self.done.send(());
        self.thread.join().unwrap_or(true)
    }
}

type Living = Arc<Mutex<BTreeSet<i32>>>;

fn kill_all(living: &Living) {
    for pid in living.lock().unwrap_or_else(PoisonError::into_inner).iter() {
        // Gone is what it is to be.
        let _ = kill(Pid::from_raw(*pid), Signal::SIGKILL);
    }
}

/// Returns whether a process is traced by this thread.
fn is_tracing() -> bool {
    let line = format!("TracerPid:\t{}\n", nix::unistd::gettid());
    let entries = fs::read_dir("/proc").into_iter().flatten().flatten();
    entries.filter(|entry| entry.file_name().as_encoded_bytes()[0].is_ascii_digit()).any(|entry| {
        fs::read_to_string(entry.path().join("status")).is_ok_and(|it| it.contains(&line))
    })
}

/// A process that is followed.
#[derive(Debug)]
struct Process {
    /// `None`: what it does is not counted.
    role: Option<String>,
    ordinal: u32,
}

struct Tracer {
    plan: Plan,
    base: PathBuf,
    main: Pid,
    code: Option<i32>,
    /// The command has ended and was waited for.
    has_ended: bool,
    /// Threads, with the id of their process.
    threads: BTreeMap<i32, i32>,
    processes: BTreeMap<i32, Process>,
    /// Ids of the followed processes, for who ends them.
    living: Living,
    /// How many there were of each role.
    numbers: BTreeMap<String, u32>,
    points: Vec<Point>,
    struck: Option<Point>,
    /// Threads in a call that is made to fail.
    failing: BTreeSet<i32>,
    /// All calls fail until then.
    fails_until: Option<Instant>,
    /// What is followed is let go as it stops.
    is_over: bool,
}

impl Tracer {
    fn new(main: Pid, plan: Plan, base: &Path) -> Self {
        let id = main.as_raw();
        Self {
            plan,
            base: base.to_owned(),
            main,
            code: None,
            has_ended: false,
            threads: BTreeMap::from([(id, id)]),
            processes: BTreeMap::from([(id, Process { role: None, ordinal: 0 })]),
            living: Arc::new(Mutex::new(BTreeSet::from([id]))),
            numbers: BTreeMap::new(),
            points: Vec::new(),
            struck: None,
            failing: BTreeSet::new(),
            fails_until: None,
            is_over: false,
        }
    }

    /// Goes on until nothing is followed any more.
    fn follow(&mut self) -> io::Result<()> {
        let flags = WaitPidFlag::__WALL | WaitPidFlag::__WNOTHREAD;
        // Of a child whose parent was killed while it made it nobody tells: it is stopped, and waited for.
        while !self.threads.is_empty() || is_tracing() {
            match waitpid(None, Some(flags)) {
                Ok(status) => self.on(status),
                Err(Errno::EINTR) => {}
                Err(Errno::ECHILD) => break,
                Err(error) => return Err(error.into()),
            }
        }
        Ok(())
    }

    fn end(mut self, child: &mut Child, watch: Watch) -> io::Result<Outcome> {
        if !self.has_ended {
            self.living.lock().unwrap_or_else(PoisonError::into_inner).insert(self.main.as_raw());
            self.code = child.wait()?.code();
        }
        let is_late = watch.end();
        let (points, struck) = (std::mem::take(&mut self.points), self.struck.take());
        Ok(Outcome { points, struck, code: self.code, is_late })
    }

    fn on(&mut self, status: WaitStatus) {
        match status {
            WaitStatus::Exited(pid, code) => {
                self.code = self.code.or((pid == self.main).then_some(code));
                self.has_ended |= pid == self.main;
                self.forget(pid);
            }
            WaitStatus::Signaled(pid, _, _) => {
                self.has_ended |= pid == self.main;
                self.forget(pid);
            }
            WaitStatus::Stopped(pid, signal) => self.resume(pid, Some(signal)),
            WaitStatus::PtraceSyscall(pid) => {
                self.add(pid);
                self.on_call(pid);
                self.resume(pid, None);
            }
            WaitStatus::PtraceEvent(pid, _, event) => {
                self.add(pid);
                self.on_event(pid, event);
                self.resume(pid, None);
            }
            WaitStatus::Continued(_) | WaitStatus::StillAlive => {}
        }
    }

    fn on_event(&mut self, pid: Pid, event: i32) {
        let is_birth =
            [Event::PTRACE_EVENT_FORK, Event::PTRACE_EVENT_VFORK, Event::PTRACE_EVENT_CLONE]
                .iter()
                .any(|birth| *birth as i32 == event);
        if is_birth && let Ok(id) = ptrace::getevent(pid) {
            self.add(Pid::from_raw(i32::try_from(id).unwrap_or_default()));
        }
        if event == Event::PTRACE_EVENT_EXEC as i32 {
            self.on_exec(pid);
        }
    }

    fn on_exec(&mut self, pid: Pid) {
        let id = pid.as_raw();
        let role = match role::of(id, pid == self.main) {
            Role::Ours(role) => Some(self.numbered(role)),
            Role::Terminal => None,
            Role::Foreign => {
                // An agent's program: not ours to follow.
                if ptrace::detach(pid, None).is_ok() {
                    self.forget(pid);
                }
                return;
            }
        };
        self.processes.insert(id, Process { role, ordinal: 0 });
    }

    fn numbered(&mut self, role: String) -> String {
        let number = self.numbers.entry(role.clone()).or_default();
        *number += 1;
        format!("{role}#{number}")
    }

    /// Takes in a thread or a process not seen before.
    fn add(&mut self, pid: Pid) {
        let id = pid.as_raw();
        if self.threads.contains_key(&id) {
            return;
        }
        let process = field(id, "Tgid:").unwrap_or(id);
        self.threads.insert(id, process);
        if self.processes.contains_key(&process) {
            return;
        }
        let parent = field(process, "PPid:").and_then(|parent| self.processes.get(&parent));
        let role = parent.and_then(|parent| parent.role.as_ref()).map(|role| {
            let name = role.split_once('#').map_or(role.as_str(), |(name, _)| name);
            format!("child of {name}")
        });
        let role = role.map(|role| self.numbered(role));
        self.processes.insert(process, Process { role, ordinal: 0 });
        self.living.lock().unwrap_or_else(PoisonError::into_inner).insert(process);
    }

    fn forget(&mut self, pid: Pid) {
        let id = pid.as_raw();
        let Some(process) = self.threads.remove(&id) else { return };
        if !self.threads.values().any(|of| *of == process) {
            self.processes.remove(&process);
            self.living.lock().unwrap_or_else(PoisonError::into_inner).remove(&process);
        }
    }

    fn on_call(&mut self, pid: Pid) {
        let id = pid.as_raw();
        if self.failing.remove(&id) {
            return self.on_failed(pid);
        }
        let Some(process_id) = self.threads.get(&id).copied() else { return };
        let Some(process) = self.processes.get_mut(&process_id) else { return };
        let Some(role) = process.role.clone().filter(|_| !self.is_over) else { return };
        let Some(Entered { call, text, places }) = call::entered(pid, &role, &self.base) else {
            return;
        };
        process.ordinal += 1;
        let point = Point { role, ordinal: process.ordinal, call, thread: id, text, places };
        self.points.push(point.clone());
        match &self.plan {
            Plan::Kill { role, ordinal } if *role == point.role && *ordinal == point.ordinal => {
                call::skip(pid);
                // It is stopped, so it is there.
                let _ = kill(Pid::from_raw(process_id), Signal::SIGKILL);
                self.struck = Some(point);
                self.release();
            }
            Plan::KillTerminal { role, ordinal }
                if *role == point.role && *ordinal == point.ordinal =>
            {
                self.kill_terminal();
                self.struck = Some(point);
                self.release();
            }
            Plan::Fail { role, ordinal, errno, lasting } => {
                let is_there = *role == point.role && *ordinal <= point.ordinal;
                let is_first = self.struck.is_none() && is_there;
                let is_late = self.fails_until.is_some_and(|until| until <= monotonic());
                if is_late {
                    self.release();
                } else if (is_first || self.struck.is_some()) && call::can_fail(&point, *errno) {
                    call::skip(pid);
                    self.failing.insert(id);
                    if is_first {
                        self.fails_until = lasting.map(|lasting| monotonic() + lasting);
                        self.struck = Some(point);
                    }
                }
            }
            Plan::Observe | Plan::Kill { .. } | Plan::KillTerminal { .. } => {}
        }
    }

    /// Ends every tmux that is followed, if there is one now.
    fn kill_terminal(&self) {
        let is_tmux = |id: &&i32| matches!(role::of(**id, false), Role::Terminal);
        for id in self.processes.keys().filter(is_tmux) {
            // Gone is what it is to be.
            let _ = kill(Pid::from_raw(*id), Signal::SIGKILL);
        }
    }

    /// A thread comes back from a call that did nothing.
    fn on_failed(&mut self, pid: Pid) {
        if let Plan::Fail { errno, lasting, .. } = &self.plan {
            call::fail(pid, *errno);
            if lasting.is_none() {
                self.release();
            }
        }
    }

    /// Stops every thread that is followed, so that it can be let go.
    fn release(&mut self) {
        self.is_over = true;
        for id in self.threads.keys() {
            // One that is stopped is let go as it is resumed.
            let _ = ptrace::interrupt(Pid::from_raw(*id));
        }
    }

    /// Returns whether the calls of a thread are points of this run: where one process is struck, the
    /// others only tell what they start, which takes half the time of a run.
    fn is_looked_at(&self, pid: Pid) -> bool {
        match &self.plan {
            Plan::Kill { role, .. } | Plan::KillTerminal { role, .. } => {
                let process = self.threads.get(&pid.as_raw()).and_then(|id| self.processes.get(id));
                process.and_then(|process| process.role.as_ref()) == Some(role)
            }
            Plan::Observe | Plan::Fail { .. } => true,
        }
    }

    /// Lets a stopped thread go on; after the strike, out of sight.
    fn resume(&mut self, pid: Pid, signal: Option<Signal>) {
        if !self.threads.contains_key(&pid.as_raw()) {
            // Let go before, or come from nowhere: it goes on by itself.
            let _ = ptrace::detach(pid, signal);
            return;
        }
        if !self.is_over || self.failing.contains(&pid.as_raw()) {
            // It fails only when the thread has been killed, which is told next.
            let _ = if self.is_looked_at(pid) {
                ptrace::syscall(pid, signal)
            } else {
                ptrace::cont(pid, signal)
            };
        } else if ptrace::detach(pid, signal).is_ok() {
            self.forget(pid);
        }
    }
}

impl Drop for Tracer {
    fn drop(&mut self) {
        kill_all(&self.living);
    }
}

/// A number out of a thread's status.
fn field(id: i32, name: &str) -> Option<i32> {
    let text = fs::read_to_string(format!("/proc/{id}/status")).ok()?;
    let line = text.lines().find(|line| line.starts_with(name))?;
    line.split_whitespace().nth(1)?.parse().ok()
}
