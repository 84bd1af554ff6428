//! The one way to build a child process, and to hear it out within a time limit.

use std::ffi::OsStr;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;
use std::process::{Child, ChildStderr, ChildStdout, Command, Output, Stdio};
use std::time::{Duration, Instant};

use rustix::buffer::spare_capacity;
use rustix::event::{EventfdFlags, PollFd, PollFlags, Timespec, eventfd};
use rustix::io::Errno;
use rustix::process::{Pid, PidfdFlags, Signal};

use super::clock;

/// How long a child is given to end when it is told to, and how long after its end its output is
/// still read: a stray outside of its group may hold it open for ever.
const DRAIN: Duration = Duration::from_secs(2);
const CHUNK_BYTES: usize = 64 * 1024;

/// Returns a command for `program` in the folder `dir`, with standard input closed.
///
/// The environment is inherited; git and agents fix theirs in [`crate::git`] and
/// [`crate::agent`].
#[expect(clippy::disallowed_methods, reason = "this is the one place that builds commands")]
pub fn command(program: impl AsRef<OsStr>, dir: &Path) -> Command {
    let mut command = Command::new(program);
    command.current_dir(dir).stdin(Stdio::null());
    command
}

/// How a child ended that had a time limit.
#[derive(Debug)]
pub enum Heard {
    /// By itself, or by a signal of others.
    Ended(Output),
    /// It was still there at the limit, and was ended with its group; what it had said.
    Late(Output),
}

/// Ends children that are heard out with it, from any thread.
#[derive(Debug)]
pub struct Stop(OwnedFd);

impl Stop {
    /// Makes one that is not raised.
    ///
    /// # Errors
    /// When there are no descriptors left.
    pub fn new() -> io::Result<Self> {
        let flags = EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK;
        Ok(Self(eventfd(0, flags)?))
    }

    /// Ends what runs with it, and whatever would be started; it stays raised.
    pub fn raise(&self) {
        // It only fails where it has been raised as often as can be counted.
        let _ = rustix::io::write(&self.0, &1_u64.to_ne_bytes());
    }

    /// Returns true once it was raised.
    pub fn is_raised(&self) -> bool {
        let mut polled = [PollFd::new(&self.0, PollFlags::IN)];
        let now = Timespec { tv_sec: 0, tv_nsec: 0 };
        rustix::event::poll(&mut polled, Some(&now)).is_ok_and(|count| count > 0)
    }
}

/// Runs a command, which leads a process group of its own, to its end or to `limit`. Where `stop` is
/// raised it is ended with its group, as by a signal of others.
///
/// The child is reaped after the last signal, so that none can reach another process.
///
/// # Errors
/// When it cannot be started, or not be waited for; when `stop` is raised before.
pub fn output_within(
    command: &mut Command,
    limit: Duration,
    stop: Option<&Stop>,
) -> io::Result<Heard> {
    run(command, limit, None, stop)
}

/// As [`output_within`], but keeps no more than the first `bytes_max` of each output, and leaves
/// nothing of the group behind however it ended.
///
/// # Errors
/// As [`output_within`].
pub fn output_bounded(
    command: &mut Command,
    limit: Duration,
    bytes_max: usize,
    stop: Option<&Stop>,
) -> io::Result<Heard> {
    run(command, limit, Some(bytes_max), stop)
}

fn run(
    command: &mut Command,
    limit: Duration,
    bytes_max: Option<usize>,
    stop: Option<&Stop>,
) -> io::Result<Heard> {
    if stop.is_some_and(Stop::is_raised) {
        return Err(io::Error::other("it is wanted no longer"));
    }
    let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn()?;
    let mut pipes = Pipes {
        out: child.stdout.take(),
        err: child.stderr.take(),
        stdout: Vec::new(),
        stderr: Vec::new(),
        bytes_max: bytes_max.unwrap_or(usize::MAX),
    };
    let is_late = match hear(&child, &mut pipes, limit, stop) {
        Ok(is_late) => is_late,
        Err(error) => {
            // Nobody would wait for it any more.
            end_group(&child, Signal::KILL);
            child.wait()?;
            return Err(error);
        }
    };
    if bytes_max.is_some() {
        end_group(&child, Signal::KILL);
    }
    let status = child.wait()?;
    let output = Output { status, stdout: pipes.stdout, stderr: pipes.stderr };
    Ok(if is_late { Heard::Late(output) } else { Heard::Ended(output) })
}

/// Reads until the child has ended and said all; returns whether it had to be ended for that.
fn hear(
    child: &Child,
    pipes: &mut Pipes,
    limit: Duration,
    mut stop: Option<&Stop>,
) -> io::Result<bool> {
    let pid = Pid::from_child(child);
    let process = rustix::process::pidfd_open(pid, PidfdFlags::empty())?;
    let mut deadline = clock::monotonic() + limit;
    let mut is_late = false;
    // Asked first: git takes its lock files away, some of which lie where others work.
    let mut signals = [Signal::TERM, Signal::KILL].into_iter();
    loop {
        let is_over = pipes.step(&process, deadline, stop)?;
        if is_over && pipes.are_closed() {
            return Ok(is_late);
        }
        let is_stopped = stop.take_if(|stop| stop.is_raised()).is_some();
        if is_stopped || clock::monotonic() >= deadline {
            is_late |= !is_stopped;
            let Some(signal) = signals.next() else { return Ok(true) };
            end_group(child, signal);
            deadline = clock::monotonic() + DRAIN;
        }
    }
}

fn end_group(child: &Child, signal: Signal) {
    // Gone already is what is wanted.
    let _ = rustix::process::kill_process_group(Pid::from_child(child), signal);
}

/// What a child says, and its ends of it; `None`: closed.
struct Pipes {
    out: Option<ChildStdout>,
    err: Option<ChildStderr>,
    stdout: Vec<u8>,
    stderr: Vec<u8>,
    /// Kept of each; what comes behind is read and forgotten, so that the child can end.
    bytes_max: usize,
}

impl Pipes {
    fn are_closed(&self) -> bool {
        self.out.is_none() && self.err.is_none()
    }

    /// Waits for the next piece of output or for the child's end, no longer than to `deadline`;
    /// returns whether the child has ended.
    fn step(
        &mut self,
        process: &OwnedFd,
        deadline: Instant,
        stop: Option<&Stop>,
    ) -> io::Result<bool> {
        let wait = deadline.saturating_duration_since(clock::monotonic());
        let wait = Timespec {
            tv_sec: i64::try_from(wait.as_secs()).unwrap_or(i64::MAX),
            tv_nsec: i64::from(wait.subsec_nanos()),
        };
        let (out, err) = (self.out.as_ref(), self.err.as_ref());
        let fds = [out.map(AsFd::as_fd), err.map(AsFd::as_fd)];
        let mut polled: Vec<PollFd<'_>> =
            fds.iter().flatten().map(|fd| PollFd::from_borrowed_fd(*fd, PollFlags::IN)).collect();
        // While output is open its end is what is waited for: an ended child has been heard out.
        let is_closed = polled.is_empty();
        if is_closed {
            polled.push(PollFd::new(process, PollFlags::IN));
        }
        polled.extend(stop.map(|stop| PollFd::new(&stop.0, PollFlags::IN)));
        match rustix::event::poll(&mut polled, Some(&wait)) {
            Ok(0) | Err(Errno::INTR) => return Ok(false),
            Ok(_) => {}
            Err(error) => return Err(error.into()),
        }
        let is_ready: Vec<bool> = polled.iter().map(|fd| !fd.revents().is_empty()).collect();
        let mut ready = is_ready.into_iter();
        if is_closed {
            return Ok(ready.next() == Some(true));
        }
        if self.out.is_some() && ready.next() == Some(true) {
            take(&mut self.out, &mut self.stdout)?;
            self.stdout.truncate(self.bytes_max);
        }
        if self.err.is_some() && ready.next() == Some(true) {
            take(&mut self.err, &mut self.stderr)?;
            self.stderr.truncate(self.bytes_max);
        }
        Ok(false)
    }
}

/// Reads what is there; closes the pipe at its end.
fn take(pipe: &mut Option<impl AsFd>, to: &mut Vec<u8>) -> io::Result<()> {
    let Some(from) = pipe else { return Ok(()) };
    to.reserve(CHUNK_BYTES);
    match rustix::io::read(from, spare_capacity(to)) {
        Ok(0) => *pipe = None,
        Ok(_) | Err(Errno::INTR) => {}
        Err(error) => return Err(error.into()),
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::io::Read;
    use std::os::unix::process::CommandExt;

    use super::*;

    fn run(script: &str, limit: Duration) -> Heard {
        let mut shell = command("sh", Path::new("/"));
        shell.args(["-c", script]).process_group(0);
        output_within(&mut shell, limit, None).expect("a shell runs")
    }

    #[test]
    fn both_outputs_are_heard_to_the_end_whatever_their_size() {
        let script = "head -c 300000 /dev/zero; head -c 200000 /dev/zero >&2; exit 3";
        match run(script, Duration::from_secs(60)) {
            Heard::Ended(output) => {
                assert_eq!((output.stdout.len(), output.stderr.len()), (300_000, 200_000));
                assert_eq!(output.status.code(), Some(3));
            }
            Heard::Late(output) => panic!("{output:?}"),
        }
    }

    #[test]
    fn a_child_that_closed_its_output_is_waited_for() {
        match run("exec >&- 2>&-; read line < /dev/null; exit 4", Duration::from_secs(60)) {
            Heard::Ended(output) => assert_eq!(output.status.code(), Some(4)),
            Heard::Late(output) => panic!("{output:?}"),
        }
    }

    #[test]
    fn of_a_bounded_child_the_first_bytes_are_kept_and_no_member_of_its_group() {
        // What stays behind holds none of the outputs; when its end of the pipe is closed, it is gone.
        let (mut alive, held) = io::pipe().expect("a pipe");
        let script = "exec 3<&0; sleep 600 >&- 2>&- & head -c 300000 /dev/zero; echo so >&2";
        let mut shell = command("sh", Path::new("/"));
        shell.args(["-c", script]).process_group(0).stdin(held);
        let heard = output_bounded(&mut shell, Duration::from_secs(60), 1000, None);
        drop(shell);
        match heard.expect("a shell runs") {
            Heard::Ended(output) => {
                assert_eq!((output.stdout.len(), output.stderr.as_slice()), (1000, &b"so\n"[..]));
            }
            Heard::Late(output) => panic!("{output:?}"),
        }
        assert_eq!(alive.read(&mut [0]).expect("it is read"), 0, "something of it is left");
    }

    #[test]
    fn what_is_wanted_no_longer_is_ended_with_its_group_or_never_started() {
        let stop = Stop::new().expect("a descriptor");
        let mut shell = command("sh", Path::new("/"));
        shell.args(["-c", "echo so far; sleep 600 & sleep 600"]).process_group(0);
        let heard = std::thread::scope(|scope| {
            let child =
                scope.spawn(|| output_within(&mut shell, Duration::from_secs(60), Some(&stop)));
            assert!(!stop.is_raised());
            stop.raise();
            child.join().expect("it does not panic")
        });
        // Raised before the start there is an error.
        if let Ok(heard) = heard {
            assert!(matches!(heard, Heard::Ended(output) if !output.status.success()));
        }
        assert!(stop.is_raised());
        let mut shell = command("true", Path::new("/"));
        assert!(output_within(&mut shell, Duration::from_secs(60), Some(&stop)).is_err());
    }

    #[test]
    fn what_is_ended_may_tidy_up_first_and_what_does_not_end_is_made_to() {
        for end in ["exit 1", "true"] {
            let script = format!("trap 'echo tidy; {end}' TERM; while :; do sleep 0.01; done");
            match run(&script, Duration::from_secs(3)) {
                Heard::Late(output) => {
                    assert!(output.stdout.starts_with(b"tidy\n"), "{output:?}");
                    assert!(!output.status.success());
                }
                Heard::Ended(output) => panic!("{output:?}"),
            }
        }
    }

    #[test]
    fn what_hangs_is_ended_with_its_group_and_what_it_said_is_kept() {
        // The output ends when the last of the group is gone.
        match run("echo so far; sleep 600 & sleep 600", Duration::from_secs(3)) {
            Heard::Late(output) => {
                assert_eq!(output.stdout, b"so far\n");
                assert!(!output.status.success());
            }
            Heard::Ended(output) => panic!("{output:?}"),
        }
    }
}
