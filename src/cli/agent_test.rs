//! `pipeline agent test`: one small task done by one agent, the whole way from prompt to landing, in a
//! repository made for it.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde::Serialize;

use super::args::{AgentTestArgs, InitArgs};
use super::console::Console;
use super::error::Error;
use super::exit_code::Exit;
use super::gate::Gate;
use super::init::init;
use super::monitor::{Manner, error_of, keeper_exe};
use super::project::{Open, Project};
use super::prompt::settings_of_file;
use crate::agent::rendezvous;
use crate::config;
use crate::config::layout::Layout;
use crate::git::Repo;
use crate::machine::Command;
use crate::machine::State;
use crate::machine::attempt::{Attempt, Class};
use crate::machine::event::NewTask;
use crate::machine::id::TaskId;
use crate::machine::settings::{AgentCommand, AgentGroup, OnExit, Settings};
use crate::machine::task::Spec;
use crate::monitor::preset;
use crate::monitor::progress::{LogFormat, Progress};
use crate::monitor::{End, Options, Until, run as run_monitor};
use crate::observe::words::{span, used};
use crate::store::lock::{FileLock, is_held};

/// Where tests have their places, below `.pipeline`.
const TESTS: &str = "tests";
/// How the names of their locks end, beside them.
const LOCK: &str = "lock";
/// The only task.
const TASK: &str = "TEST";
const TITLE: &str = "Write a file";
const BODY: &str = "Make a file `hello.txt` in the current folder that holds one line, `hello`. Change \
                    nothing else. Then run `grep -qx hello hello.txt`, which must succeed.";
/// What the task's landing is checked by, and the agent must be free to run.
const CHECK: &str = "grep -qx hello hello.txt";
/// How long the keeper may take to leave after the end.
const KEEPER_WAIT: Duration = Duration::from_secs(10);

/// What became of it.
#[derive(Debug, Serialize)]
struct Verdict {
    agent: String,
    works: bool,
    /// How its attempt ended; `null`: there was none.
    class: Option<&'static str>,
    /// What went wrong; empty when it works.
    reason: String,
    ran_s: Option<f64>,
    /// Tokens and money, in words; `null`: not known.
    used: Option<String>,
    /// What it wrote, kept where it does not work.
    log: Option<PathBuf>,
}

/// Tries an agent; 0 when it works, else 1.
///
/// # Errors
/// When there is no such agent, or no place to try it in.
pub fn run(
    args: &AgentTestArgs,
    open: Open,
    manner: Manner,
    console: &mut Console<'_>,
) -> Result<Exit, Error> {
    let root = open.project.layout.root.clone();
    let group = group(&open, &args.name, console)?;
    let group = tried(&root, &group)?;
    let exe = keeper_exe()?;
    let program_dir = exe.program.parent().unwrap_or(&root).to_owned();
    let verdict = match preset::trouble(&root, &program_dir, &group) {
        Some(why) => Verdict {
            agent: group.name.clone(),
            works: false,
            class: None,
            reason: format!("it cannot start: {why}"),
            ran_s: None,
            used: None,
            log: None,
        },
        None => {
            console.note(&format!("agent `{}` is given one small task …", group.name));
            sweep(&open.project.layout.dot().join(TESTS));
            let place = Place::make(&open, &group.name)?;
            place.try_out(&root, &group, args.timeout, manner)?
        }
    };
    tell(&verdict, console)?;
    Ok(if verdict.works { Exit::Done } else { Exit::Failed })
}

fn tell(verdict: &Verdict, console: &mut Console<'_>) -> Result<(), Error> {
    let Verdict { agent, works, class, reason, ran_s, used, log } = verdict;
    let ran = ran_s.map(|s| span((s * 1000.0) as u64));
    let figures: Vec<String> = ran.into_iter().chain(used.clone()).collect();
    let figures = match figures.is_empty() {
        true => String::new(),
        false => format!(" ({})", figures.join(", ")),
    };
    let mut text = if *works {
        format!(
            "agent `{agent}` works{figures}:\n\
             it read its prompt, changed a file, passed a check and said that it was done"
        )
    } else {
        let class = class.map(|class| format!("{class}: ")).unwrap_or_default();
        format!("agent `{agent}` does not work{figures}:\n{class}{reason}")
    };
    if let Some(log) = log {
        text.push_str(&format!("\nwhat it wrote: {}", log.display()));
    }
    console.data(verdict, &text)
}

/// Returns the group of that name, or that the agent of that name is of; the file counts, and where it
/// is broken the adopted settings, with a warning.
fn group(open: &Open, name: &str, console: &mut Console<'_>) -> Result<AgentGroup, Error> {
    let newer = settings_of_file(open, console);
    let settings = newer.as_ref().unwrap_or(&open.now().0.settings);
    let is_meant = |group: &&AgentGroup| {
        group.name == name || group.names().any(|agent| agent.as_str() == name)
    };
    settings.agents.iter().find(is_meant).cloned().ok_or_else(|| {
        let known: Vec<&str> = settings.agents.iter().map(|group| group.name.as_str()).collect();
        Error::invalid(format!("there is no agent `{name}`")).hint(match known.is_empty() {
            true => "pipeline.toml has none yet: add an `[[agent]]` there".to_owned(),
            false => format!("pipeline.toml has {}", known.join(", ")),
        })
    })
}

/// Returns the group as it is tried: one agent, for the one stage, its paths those of the project.
fn tried(root: &Path, group: &AgentGroup) -> Result<AgentGroup, Error> {
    let text = root.to_string_lossy();
    let fill = |word: &String| word.replace("{project}", &text);
    let command = match &group.command {
        AgentCommand::Shell(line) => AgentCommand::Shell(fill(line)),
        AgentCommand::Argv(words) => {
            let mut words: Vec<String> = words.iter().map(fill).collect();
            if let Some(program) = words.first_mut().filter(|program| program.contains('/')) {
                *program = root.join(&*program).to_string_lossy().into_owned();
            }
            AgentCommand::Argv(words)
        }
        AgentCommand::Task => {
            return Err(Error::invalid(format!(
                "agent `{}` runs the tasks' own commands: there is nothing to try",
                group.name
            )));
        }
        AgentCommand::Person => {
            let told = format!("agent `{}` is a person: there is nothing to try", group.name);
            return Err(Error::invalid(told));
        }
        preset @ AgentCommand::Preset { .. } => preset.clone(),
    };
    let stages = vec!["implementation".to_owned()];
    let mut env = group.env.clone();
    env.insert("PIPELINE_PROJECT".to_owned(), text.into_owned());
    Ok(AgentGroup { command, stages, env, count: 1, scale_min: None, ..group.clone() })
}

/// A repository of its own, beside the worktrees; removed at the end.
struct Place {
    dir: PathBuf,
    /// Held until the end: what a test left that was killed is told by it.
    _lock: FileLock,
    /// Where the log goes that is kept.
    log: PathBuf,
}

impl Drop for Place {
    fn drop(&mut self) {
        // What is left is in nobody's way, and the next test has another name.
        let _ = fs::remove_dir_all(&self.dir);
        let _ = fs::remove_file(lock_path(&self.dir));
    }
}

impl Place {
    fn make(open: &Open, name: &str) -> Result<Self, Error> {
        let layout = &open.project.layout;
        let dir = layout.dot().join(TESTS).join(format!("{name}-{}", std::process::id()));
        let log = layout.state.join(format!("logs/test-{name}.log"));
        let make = || {
            crate::sys::fail::point("agent_test.make")?;
            fs::create_dir_all(layout.dot().join(TESTS))?;
            let lock = FileLock::try_exclusive(&lock_path(&dir), "agent test")?;
            fs::create_dir(&dir)?;
            lock.ok_or_else(|| std::io::Error::other("another test has it locked"))
        };
        let lock = make().map_err(|error| file_error("make", &dir, &error))?;
        Ok(Self { dir, _lock: lock, log })
    }

    fn try_out(
        &self,
        root: &Path,
        group: &AgentGroup,
        timeout: Duration,
        manner: Manner,
    ) -> Result<Verdict, Error> {
        self.fill(root, group)?;
        let git = |error: crate::git::GitError| {
            Error::failed("cannot make a repository to try it in").because(&error)
        };
        let repo = Repo::create(&self.dir, "A place to try an agent in").map_err(git)?;
        let shell = InitArgs {
            base: None,
            agents: vec!["shell".to_owned()],
            launcher: None,
            isolation: None,
            force: false,
        };
        init(&shell, &self.dir, manner.lock_wait)?;
        // From here on the settings adopted count, which a file could only change.
        let config = self.dir.join("pipeline.toml");
        fs::remove_file(&config).map_err(|error| file_error("remove", &config, &error))?;
        let mut open = Project::find(&self.dir)?.open(manner.lock_wait)?;
        let settings = Box::new(settings(group, timeout)?);
        open.send(Command::AdoptSettings { settings })?;
        open.send(Command::AddTasks { tasks: vec![task()] })?;
        let layout = open.into_project().layout;
        let keepers = layout.keepers();
        let end = run_monitor(Options {
            layout,
            repo: Some(repo),
            until: Until::Idle { within_ms: None },
            is_poll_only: false,
            allows_red_base: true,
            stop: None,
            lock_wait: manner.lock_wait,
            progress: Progress::new(LogFormat::Text, false, true, false),
            keeper: keeper_exe()?,
        });
        let end = end.map_err(error_of)?;
        let mut open = Project::find(&self.dir)?.open(manner.lock_wait)?;
        await_keepers(&mut open, &keepers)?;
        let verdict = verdict(open.now().0, group, end == End::Interrupted);
        Ok(Verdict { log: self.keep_log(&open, &verdict), ..verdict })
    }

    /// Puts a file to commit and the agent's preset there, its paths those of the project.
    fn fill(&self, root: &Path, group: &AgentGroup) -> Result<(), Error> {
        let readme = self.dir.join("README");
        fs::write(&readme, "A place to try an agent in.\n")
            .map_err(|error| file_error("write", &readme, &error))?;
        let AgentCommand::Preset { name, .. } = &group.command else { return Ok(()) };
        let Some(text) = config::preset::abroad(root, name) else { return Ok(()) };
        let presets = self.dir.join(config::preset::DIR);
        fs::create_dir_all(&presets).map_err(|error| file_error("make", &presets, &error))?;
        let file = presets.join(format!("{name}.toml"));
        fs::write(&file, text).map_err(|error| file_error("write", &file, &error))
    }

    /// Keeps what the agent wrote, where it does not work and wrote something.
    fn keep_log(&self, open: &Open, verdict: &Verdict) -> Option<PathBuf> {
        let attempt = last_work(open.now().0).filter(|_| !verdict.works)?;
        let log = open.project.layout.log(attempt.id.as_str());
        // No monitor may have run yet. Without a copy the verdict stands all the same.
        fs::create_dir_all(self.log.parent()?).ok()?;
        fs::copy(log, &self.log).ok().map(|_| self.log.clone())
    }
}

/// Removes what tests left that were killed. What cannot be removed is in nobody's way.
fn sweep(tests: &Path) {
    for entry in fs::read_dir(tests).into_iter().flatten().flatten() {
        let path = entry.path();
        let is_lock = path.extension().is_some_and(|it| it == LOCK);
        let dir = if is_lock { path.with_extension("") } else { path };
        let lock = lock_path(&dir);
        let is_at_work = is_held(&lock).unwrap_or(true);
        let keepers = Layout::of_repository(&dir, &dir.join(".git")).keepers();
        if !is_at_work && !has_keepers(&keepers) {
            let _ =
                crate::sys::fail::point("agent_test.sweep").and_then(|()| fs::remove_dir_all(&dir));
            let _ = fs::remove_file(&lock);
        }
    }
}

/// Returns where a test's place is locked.
fn lock_path(dir: &Path) -> PathBuf {
    let mut path = dir.as_os_str().to_owned();
    path.push(".");
    path.push(LOCK);
    path.into()
}

/// Returns whether a keeper is at work.
fn has_keepers(keepers: &Path) -> bool {
    let dirs = fs::read_dir(keepers).into_iter().flatten().flatten();
    let mut locks = dirs.map(|dir| rendezvous::lock_path(&dir.path()));
    locks.any(|lock| is_held(&lock).unwrap_or(true))
}

fn file_error(what: &str, path: &Path, error: &std::io::Error) -> Error {
    Error::failed(format!("cannot {what} `{}`", path.display())).because(error).at(path)
}

/// Returns settings of one stage and one agent that ends with the command.
fn settings(group: &AgentGroup, timeout: Duration) -> Result<Settings, Error> {
    let text = "[[stage]]\nname = \"implementation\"\n\
                [limits]\nattempts_per_stage = 1\ninfrastructure_retries = 1\nsend_backs = 0\n";
    let loaded = config::load(text)
        .map_err(|error| Error::failed("cannot make settings for the test").because(&error))?;
    let mut settings = loaded.settings;
    settings.monitor.on_exit = Some(OnExit::Kill);
    settings.landing.checks = vec![CHECK.to_owned()];
    settings.stages[0].timeout_ms = Some(u64::try_from(timeout.as_millis()).unwrap_or(u64::MAX));
    settings.agents = vec![group.clone()];
    Ok(settings)
}

fn task() -> NewTask {
    let spec = Spec { title: TITLE.to_owned(), body: BODY.to_owned(), ..Spec::default() };
    NewTask {
        id: Some(TaskId::new(TASK)),
        spec,
        is_front: false,
        is_held: false,
        may_lack_dependencies: false,
    }
}

/// The keepers leave by themselves; until then their folders are theirs.
fn await_keepers(open: &mut Open, keepers: &Path) -> Result<(), Error> {
    let clock = crate::sys::clock::monotonic();
    loop {
        if clock.elapsed() > KEEPER_WAIT || !has_keepers(keepers) {
            return Ok(());
        }
        open.wait_change(Duration::from_millis(20))?;
    }
}

fn last_work(state: &State) -> Option<&Attempt> {
    let task = state.tasks.get(&TaskId::new(TASK))?;
    task.history.iter().rev().find(|attempt| attempt.is_work())
}

fn verdict(state: &State, group: &AgentGroup, is_interrupted: bool) -> Verdict {
    let task = state.tasks.get(&TaskId::new(TASK));
    let attempt = last_work(state);
    let outcome = attempt.and_then(|attempt| attempt.outcome.as_ref());
    let exit = attempt.and_then(|attempt| attempt.exit.as_ref());
    let works = state.index.counts.completed == 1;
    let said = task.and_then(|task| task.evidence.last()).map(|evidence| evidence.text.clone());
    let reason = match outcome {
        _ if works => String::new(),
        _ if is_interrupted => "interrupted".to_owned(),
        // It did its stage; what it made is not what was asked for.
        Some(outcome) if outcome.class == Class::Completed => {
            format!("it said that it was done, but `{CHECK}` fails")
        }
        Some(outcome) => said.unwrap_or_else(|| outcome.reason.clone()),
        None => task
            .and_then(|task| crate::observe::waiting::Waits::new(state).reason(task))
            .map_or_else(|| "it was never started".to_owned(), |reason| reason.what),
    };
    Verdict {
        agent: group.name.clone(),
        works,
        class: outcome.map(|outcome| outcome.class.word()).filter(|_| !works),
        reason: reason.trim_end().to_owned(),
        ran_s: exit.map(|exit| exit.ended_at.ms_since(exit.started_at) as f64 / 1000.0),
        used: exit.and_then(|exit| used(&exit.usage)),
        log: None,
    }
}
