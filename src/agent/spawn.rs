//! Starting one command of a job: the only place in which an agent's program is executed.

use std::ffi::OsString;
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Stdio};

use rustix::io::Errno;
use rustix::process::{Pid, PidfdFlags, Signal};

use super::job::{Job, JobCommand};
use crate::sys::file::open_regular;
use crate::sys::{child, fail};

/// A command that runs.
#[derive(Debug)]
pub(super) struct Main {
    pub(super) child: Child,
    /// Also its group's id.
    pub(super) pid: Pid,
    /// Readable when it has exited.
    pub(super) fd: OwnedFd,
}

/// Where the standard files of a command lead.
#[derive(Debug, Clone, Copy)]
pub(super) enum Mouth<'a> {
    /// Both outputs go to a pipe, the input is the job's.
    Pipe(&'a OwnedFd),
    /// All three are a terminal, which becomes the command's own.
    Terminal(&'a OwnedFd),
}

/// Starts the command of `job` at `index`, its standard files being those of `mouth`.
///
/// # Errors
/// What was tried and why it failed, as a fragment for people; nothing runs then.
pub(super) fn spawn(job: &Job, index: usize, mouth: Mouth<'_>) -> Result<Main, String> {
    let start_by_name = |words: &[&str]| {
        find_program(words[0], &job.dir, &job.env)
            .and_then(|program| start(job, &program, words, mouth))
    };
    let (words, started) = match job.commands.get(index) {
        Some(JobCommand::Shell(line)) => {
            let is_piped = matches!(mouth, Mouth::Pipe(_));
            let plain = plain_words(line).filter(|_| is_piped).map(|words| {
                // As a shell takes it, which a script sees in `$0`.
                let started = start(job, Path::new(words[0]), &words, mouth);
                (words, started)
            });
            match plain {
                Some((words, started)) if !is_for_a_shell(&started) => (words, started),
                Some(_) | None => {
                    let words = vec!["sh", "-c", line];
                    let started = start_by_name(&words);
                    (words, started)
                }
            }
        }
        Some(JobCommand::Argv(argv)) if !argv.is_empty() => {
            let words: Vec<&str> = argv.iter().map(String::as_str).collect();
            let started = start_by_name(&words);
            (words, started)
        }
        Some(JobCommand::Argv(_)) => return Err("cannot start an empty command".into()),
        None => return Err("cannot start a job without commands".into()),
    };
    started
        .map_err(|error| format!("cannot start `{}` in `{}`: {error}", words[0], job.dir.display()))
}

/// Returns true when nothing was executed, and a shell would say why or run it as a script.
fn is_for_a_shell(started: &io::Result<Main>) -> bool {
    let error = started.as_ref().err().and_then(Errno::from_io_error);
    matches!(error, Some(Errno::NOENT | Errno::ACCESS | Errno::NOEXEC))
}

/// Starts `program`; the first of `words` is the name that it is given.
fn start(job: &Job, program: &Path, words: &[&str], mouth: Mouth<'_>) -> io::Result<Main> {
    let (mut command, output) = match mouth {
        Mouth::Pipe(output) => {
            let mut command = child::command(program, &job.dir);
            command.arg0(words[0]).args(&words[1..]).process_group(0);
            if let Some(stdin) = &job.stdin {
                let file = open_regular(stdin).map_err(|error| {
                    io::Error::new(error.kind(), format!("input `{}`: {error}", stdin.display()))
                })?;
                command.stdin(Stdio::from(file));
            }
            (command, output)
        }
        Mouth::Terminal(terminal) => {
            // By way of this program, which makes the terminal the command's own.
            let mut command = child::command("/proc/self/exe", &job.dir);
            command.arg(EXEC_WORD).arg(program).args(words).stdin(terminal.try_clone()?);
            (command, terminal)
        }
    };
    command.env_clear().envs(job.env.iter().map(|(name, value)| (name, value)));
    command.stdout(Stdio::from(output.try_clone()?));
    command.stderr(Stdio::from(output.try_clone()?));
    fail::point("keeper.spawn")?;
    let mut child = command.spawn()?;
    let pid = Pid::from_child(&child);
    match rustix::process::pidfd_open(pid, PidfdFlags::empty()) {
        Ok(fd) => Ok(Main { child, pid, fd }),
        Err(error) => {
            // Without a descriptor its exit could not be seen, so it must not run.
            let _ = rustix::process::kill_process_group(pid, Signal::KILL);
            let _ = child.wait();
            Err(error.into())
        }
    }
}

/// The hidden command that makes its standard input its terminal and becomes the program named.
pub const EXEC_WORD: &str = "__exec";

/// Becomes the program that `words` begin with, given the others: its name, then its arguments. It
/// leads a session whose terminal is the standard input.
///
/// # Errors
/// Always: what is returned is why it did not become the program.
pub fn exec_on_terminal(words: &[OsString]) -> io::Error {
    let [program, name, args @ ..] = words else {
        return io::Error::other("no program is named");
    };
    let prepared = rustix::process::setsid()
        .and_then(|_| rustix::process::ioctl_tiocsctty(io::stdin()))
        .map_err(io::Error::from);
    if let Err(error) = prepared {
        return error;
    }
    let mut command = child::command(program, Path::new("."));
    command.arg0(name).args(args).stdin(Stdio::inherit()).exec()
}

/// Returns the words of a shell line that is nothing but a program's path and plain arguments, which
/// needs no shell: make(1) does likewise.
fn plain_words(line: &str) -> Option<Vec<&str>> {
    let is_plain = |c: char| c.is_ascii_alphanumeric() || "/._-+,:@% ".contains(c);
    let words: Vec<&str> = line.split(' ').filter(|word| !word.is_empty()).collect();
    (words.first()?.contains('/') && line.chars().all(is_plain)).then_some(words)
}

/// Returns the file to execute for `program`: looked up here, since a search at exec is slower.
pub(crate) fn find_program(
    program: &str,
    dir: &Path,
    env: &[(String, String)],
) -> io::Result<PathBuf> {
    if program.contains('/') {
        return Ok(dir.join(program));
    }
    let path = env.iter().find(|(name, _)| name == "PATH").map_or("", |(_, value)| value);
    for folder in path.split(':').filter(|folder| !folder.is_empty()) {
        let file = dir.join(folder).join(program);
        let is_runnable = rustix::fs::access(&file, rustix::fs::Access::EXEC_OK).is_ok();
        if is_runnable && file.is_file() {
            return Ok(file);
        }
    }
    Err(io::Error::new(io::ErrorKind::NotFound, format!("not found in PATH `{path}`")))
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::{find_program, plain_words};

    #[test]
    fn only_what_any_shell_takes_word_by_word_goes_without_one() {
        assert_eq!(plain_words("tools/x  -n 3 a=b"), None);
        assert_eq!(plain_words("tools/x  -n 3 a,b"), Some(vec!["tools/x", "-n", "3", "a,b"]));
        assert_eq!(plain_words("/bin/true"), Some(vec!["/bin/true"]));
        for line in ["", " ", "exit 1", "true", "A=/b c", "/a $b", "/a 'b'", "/a\nb", "~/a", "/a*"]
        {
            assert_eq!(plain_words(line), None, "{line}");
        }
    }

    #[test]
    fn program_is_looked_up_in_the_jobs_own_path() {
        let env = |path: &str| vec![("PATH".to_owned(), path.to_owned())];
        let dir = Path::new("/tmp");
        assert!(find_program("sh", dir, &env("/usr/bin:/bin")).is_ok());
        let error = find_program("sh", dir, &env("/nowhere")).expect_err("refused");
        assert!(error.to_string().contains("/nowhere"), "{error}");
        assert!(find_program("sh", dir, &[]).is_err());
    }

    #[test]
    fn program_with_a_slash_is_a_path_from_the_jobs_folder() {
        let found = find_program("tools/x.sh", Path::new("/p"), &[]).expect("a path");
        assert_eq!(found, Path::new("/p/tools/x.sh"));
        let found = find_program("/bin/sh", Path::new("/p"), &[]).expect("a path");
        assert_eq!(found, Path::new("/bin/sh"));
    }
}
