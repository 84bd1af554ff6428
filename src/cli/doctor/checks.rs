//! `doctor --checks`: runs `setup` and the landing's checks on the base branch, in a worktree made for
//! it and removed again.

use std::io;
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::path::{Path, PathBuf};
use std::process::Output;
use std::sync::Arc;
use std::sync::atomic::{AtomicI32, Ordering};
use std::time::Duration;

use signal_hook::consts::{SIGINT, SIGTERM};
use signal_hook::iterator::Signals;

use super::finding::{Finding, Level};
use crate::agent::environment::agent_env;
use crate::cli::console::Console;
use crate::cli::error::Error;
use crate::cli::exit_code::Kind;
use crate::cli::project::Project;
use crate::git::{GitError, Oid, Repo, SlotRequest};
use crate::machine::settings::Settings;
use crate::monitor::prepare;
use crate::store::lock::{FileLock, read_owner};
use crate::sys::child::{self, Heard, Stop};
use crate::sys::{clock, fail};

pub const WHAT: &str = "base checks";
/// Held while they run, beside the journal.
const LOCK: &str = "doctor.lock";
/// Of what a check said, this much is shown.
const LINES_MAX: usize = 20;

/// Runs them one after another, up to the first that fails.
///
/// # Errors
/// Ctrl-C; the lock or the worktree cannot be had.
pub fn run(
    project: &Project,
    settings: &Settings,
    console: &mut Console<'_>,
) -> Result<Vec<Finding>, Error> {
    let base = &settings.project.base;
    let Some(repo) = &project.repo else {
        return Ok(vec![Finding::good(WHAT, "without git nothing lands: there are none")]);
    };
    if settings.landing.checks.is_empty() && settings.worktree.setup.is_empty() {
        let remedy = "write `checks = [\"…\"]` into `[landing]` of pipeline.toml";
        return Ok(vec![Finding::warning(WHAT, "there are none: whatever is done lands", remedy)]);
    }
    // There is one worktree for them: it is not taken from under another's check.
    let path = project.layout.state.join(LOCK);
    let lock = FileLock::try_exclusive(&path, "doctor --checks").map_err(|error| {
        Error::failed(format!("cannot lock `{}`", path.display())).because(&error).at(&path)
    })?;
    let Some(_alone) = lock else { return Ok(vec![taken(&path)]) };
    let stop = Arc::new(Stop::new().map_err(|error| cannot("watch for signals", &error))?);
    let told = raise_on_signal(&stop).map_err(|error| cannot("watch for signals", &error))?;
    let repo = repo.until(Arc::clone(&stop));
    let Some(at) = repo.read_ref(&format!("refs/heads/{base}")).map_err(of_git)? else {
        let found = format!("there is no branch `{base}`");
        return Ok(vec![Finding::bad(WHAT, found, "set `base` in `[project]` of pipeline.toml")]);
    };
    // No agent's name begins with a dot.
    let slot = project.layout.root.join(&settings.worktree.dir).join(".doctor/1");
    let bench = Bench { project, settings, repo: &repo, slot: &slot, at: &at, stop: &stop };
    let done = bench.run(console);
    // One that cannot be removed now is removed by the next, or with those of finished tasks.
    let removed = project.repo.as_ref().map(|repo| repo.remove_slot(&slot));
    let _ = std::fs::remove_dir(slot.parent().unwrap_or(&slot));
    if stop.is_raised() {
        return match told.load(Ordering::Relaxed) {
            SIGTERM => Ok(vec![Finding::warning(
                WHAT,
                "ended by SIGTERM before they were done: nothing is known of the base",
                "run them again: `pipeline doctor --checks`",
            )]),
            _ => Err(Error::new(Kind::Interrupted, "the checks were interrupted")),
        };
    }
    let findings = done?;
    removed.transpose().map_err(of_git)?;
    Ok(findings)
}

fn taken(path: &Path) -> Finding {
    let owner = read_owner(path).map_or(String::new(), |owner| format!(": {owner}"));
    Finding {
        level: Level::Refused,
        what: WHAT,
        found: format!("not run: another process runs them{owner}"),
        remedy: "wait until it is done, then look again".into(),
    }
}

/// Where checks are run.
struct Bench<'a> {
    project: &'a Project,
    settings: &'a Settings,
    repo: &'a Repo,
    slot: &'a Path,
    at: &'a Oid,
    stop: &'a Stop,
}

impl Bench<'_> {
    fn run(&self, console: &mut Console<'_>) -> Result<Vec<Finding>, Error> {
        let (path, at) = (self.slot, self.at);
        let request = SlotRequest { path, at, keep: &[], merge: None, is_ready: false };
        self.repo.prepare_slot(&request).map_err(of_git)?;
        let worktree = &self.settings.worktree;
        prepare::copy(&self.project.layout.root, &worktree.copy, path)
            .map_err(|fault| Error::failed("cannot fill the worktree").because_of(fault.0))?;
        let mut findings = Vec::new();
        let base = &self.settings.project.base;
        for command in worktree.setup.iter().chain(&self.settings.landing.checks) {
            console.note(&format!("running `{command}` on `{base}`"));
            let begun = clock::monotonic();
            let why = self.one(command).map_err(|error| cannot(command, &error))?;
            if self.stop.is_raised() {
                break;
            }
            let took_s = clock::monotonic().duration_since(begun).as_secs_f64();
            let Some(why) = why else {
                let found = format!("`{command}` passes on `{base}` ({took_s:.1} s)");
                findings.push(Finding::good(WHAT, found));
                continue;
            };
            findings.push(Finding::bad(
                WHAT,
                format!("`{command}` fails on `{base}` at {}: {why}", self.at.short()),
                "mend the base, or start anyway: pipeline monitor --allow-red-base",
            ));
            break;
        }
        Ok(findings)
    }

    /// Runs one command; returns why it failed, with the end of what it said.
    fn one(&self, command: &str) -> io::Result<Option<String>> {
        fail::point("doctor.check")?;
        let program: PathBuf = std::env::current_exe()?;
        let program_dir = program.parent().unwrap_or(Path::new("/"));
        let root = self.project.layout.root.to_string_lossy().into_owned();
        let extra = [("PIPELINE_PROJECT".to_owned(), root)];
        let env = agent_env(std::env::vars_os(), &["*".to_owned()], program_dir, &extra);
        let mut shell = child::command("sh", self.slot);
        shell.args(["-c", command]).env_clear().envs(env).process_group(0);
        let limit = Duration::from_millis(self.settings.landing.checks_timeout_ms);
        let heard = child::output_within(&mut shell, limit, Some(self.stop))?;
        Ok(match heard {
            Heard::Ended(output) if output.status.success() => None,
            Heard::Ended(output) => Some(format!("{}{}", ending(&output), tail(&output))),
            Heard::Late(output) => {
                Some(format!("not done after {} s{}", limit.as_secs(), tail(&output)))
            }
        })
    }
}

fn ending(output: &Output) -> String {
    match (output.status.code(), output.status.signal()) {
        (Some(code), _) => format!("exit status {code}"),
        (None, Some(signal)) => format!("ended by signal {signal}"),
        (None, None) => "no exit status".into(),
    }
}

/// Returns the last lines of what it said, each on a line of its own.
fn tail(output: &Output) -> String {
    let text = [output.stdout.as_slice(), output.stderr.as_slice()].concat();
    let text = String::from_utf8_lossy(&text);
    let lines: Vec<&str> = text.lines().collect();
    let last = lines.iter().skip(lines.len().saturating_sub(LINES_MAX));
    last.map(|line| format!("\n         | {line}")).collect()
}

/// Has what runs ended by Ctrl-C, which does not reach a process group of its own; returns where the
/// signal will stand, 0 until then.
fn raise_on_signal(stop: &Arc<Stop>) -> io::Result<Arc<AtomicI32>> {
    let mut signals = Signals::new([SIGINT, SIGTERM])?;
    let (stop, told) = (Arc::clone(stop), Arc::new(AtomicI32::new(0)));
    let heard = Arc::clone(&told);
    fail::point("doctor.signals")?;
    // Lives as long as the command.
    std::thread::Builder::new().name("signals".into()).spawn(move || {
        for signal in signals.forever() {
            heard.store(signal, Ordering::Relaxed);
            stop.raise();
        }
    })?;
    Ok(told)
}

fn cannot(what: &str, error: &io::Error) -> Error {
    Error::failed(format!("cannot run `{what}`")).because(error)
}

fn of_git(error: GitError) -> Error {
    Error::failed("cannot make or remove a worktree for the checks").because_git(&error)
}
