//! The keeper's orders, made from the state.

use std::path::{Path, PathBuf};

use super::preset::{self, Launch, Purpose};
use crate::agent::environment::agent_env;
use crate::agent::job::{AttemptRef, GRACE_MS, JOB_VERSION, Job, JobCommand, MARKER_GRACE_MS};
use crate::agent::terminal::typing::Typing;
use crate::agent::terminal::{Terminal, session_name};
use crate::agent::{passage, task_file};
use crate::config::layout::Layout;
use crate::git::Repo;
use crate::machine::State;
use crate::machine::attempt::{Attempt, AttemptKind};
use crate::machine::estimate;
use crate::machine::id::AttemptId;
use crate::machine::mode::Isolation;
use crate::machine::preset::Interactive;
use crate::machine::resume;
use crate::machine::settings::{AgentCommand, AgentGroup, Completion, LauncherKind, Settings};
use crate::machine::task::Task;

/// The paths of one attempt.
#[derive(Debug, Clone)]
pub struct Places {
    pub dir: PathBuf,
    pub attempt_dir: PathBuf,
    pub prompt_file: PathBuf,
    pub task_file: PathBuf,
    pub excludes: PathBuf,
    pub log: PathBuf,
}

/// Returns where an attempt's files lie.
pub fn places(layout: &Layout, settings: &Settings, attempt: &Attempt) -> Places {
    let attempt_dir = layout.attempt(attempt.id.as_str());
    let name = attempt.task.as_ref().map(|task| task_file::file_name(task.as_str()));
    let is_bare = settings.project.isolation == Isolation::None;
    let dir = if is_bare {
        layout.root.clone()
    } else {
        layout.slot(&settings.worktree.dir, attempt.agent.as_str(), attempt.slot)
    };
    let file_dir = if is_bare { &attempt_dir } else { &dir };
    Places {
        task_file: file_dir.join(name.unwrap_or_default()),
        prompt_file: attempt_dir.join("prompt.md"),
        excludes: attempt_dir.join("excludes"),
        log: layout.log(attempt.id.as_str()),
        dir,
        attempt_dir,
    }
}

/// Returns under what id an attempt's setup is run.
pub fn setup_id(attempt: &AttemptId) -> String {
    format!("{attempt}.setup")
}

/// Returns what identifies an attempt in the world.
pub fn reference(layout: &Layout, attempt: &Attempt) -> AttemptRef {
    AttemptRef {
        attempt: attempt.id.as_str().into(),
        nonce: attempt.nonce.clone(),
        attempt_dir: layout.attempt(attempt.id.as_str()),
    }
}

/// What every job of a project is given.
#[derive(Debug)]
pub struct Surroundings<'a> {
    pub layout: &'a Layout,
    pub repo: Option<&'a Repo>,
    /// The folder of the running program; first in `PATH`.
    pub program_dir: &'a Path,
}

/// Returns whether the attempt's agent must say with a status line that it is done.
pub fn needs_marker(state: &State, attempt: &Attempt) -> bool {
    let group = state.rules_of(attempt).group_of(&attempt.agent);
    group.is_none_or(|group| group.completion == Completion::Marker)
}

/// What the keeper is ordered to do.
#[derive(Debug)]
pub struct Order {
    pub job: Job,
    /// Hash of the preset file that it is started by; `None` without a preset.
    pub preset: Option<String>,
    /// The session that it takes up again.
    pub session: Option<String>,
}

impl Order {
    fn of(job: Job) -> Self {
        Self { job, preset: None, session: None }
    }
}

/// Why there is nothing to run.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum NoOrder {
    /// The settings know the agent no longer.
    AgentGone,
    /// The agent runs the task's own command, and the task has none.
    NoCommand,
    /// Its preset cannot be used, in words.
    NoPreset(String),
}

/// Returns the order for an attempt.
///
/// # Errors
/// Why there is nothing to run.
pub fn order(
    around: &Surroundings<'_>,
    state: &State,
    attempt: &Attempt,
) -> Result<Order, NoOrder> {
    let settings = state.rules_of(attempt);
    let places = places(around.layout, settings, attempt);
    match &attempt.kind {
        AttemptKind::Work { .. } => work(around, state, attempt, places),
        AttemptKind::StageCheck { stage, .. } => {
            let checks = settings.stage(stage.as_str()).map(|(_, stage)| stage.checks.clone());
            let checks = checks.unwrap_or_default();
            Ok(Order::of(checks_job(around, settings, attempt, &places, &checks)))
        }
        AttemptKind::LandingCheck { .. } | AttemptKind::BaseCheck { .. } => {
            let checks = &settings.landing.checks;
            Ok(Order::of(checks_job(around, settings, attempt, &places, checks)))
        }
    }
}

fn work(
    around: &Surroundings<'_>,
    state: &State,
    attempt: &Attempt,
    places: Places,
) -> Result<Order, NoOrder> {
    let settings = state.rules_of(attempt);
    let group = settings.group_of(&attempt.agent).ok_or(NoOrder::AgentGone)?;
    let task = attempt.task.as_ref().and_then(|id| state.tasks.get(id));
    let own = task.and_then(|task| task.spec.command.clone());
    let stage = attempt.stage().and_then(|stage| settings.stage(stage.as_str()));
    let is_preset = matches!(group.command, AgentCommand::Preset { .. });
    let stage = stage.map(|(_, stage)| stage);
    let session = resume::session(state, attempt);
    let stage_name = stage.map_or("", |stage| stage.name.as_str());
    let purpose = Purpose { stage: stage_name, settings, places: &places, session };
    let launch = launch(around, group, own, purpose)?;
    let timeout = stage.map(|stage| estimate::timeout_ms(state, stage, task, Some(&group.name)));
    let marker_file = (group.completion == Completion::Marker).then(|| places.task_file.clone());
    let mut job = base(around, settings, attempt, &places, &launch.env_allow, &launch.env);
    job.commands = vec![launch.command];
    if has_prompt(state, attempt) {
        let prompt = places.prompt_file.to_string_lossy().into_owned();
        job.env.push(("PIPELINE_PROMPT_FILE".into(), prompt));
        job.stdin = launch.has_stdin.then_some(places.prompt_file.clone());
    }
    job.timeout_ms = timeout;
    job.silence_ms = stage.filter(|_| is_preset).map(|stage| stage.silence_ms);
    job.marker_file = marker_file;
    if group.launcher == LauncherKind::Tmux {
        in_window(around.layout, &mut job, group, task, launch.interactive);
    }
    Ok(Order { job, preset: launch.preset, session: launch.session })
}

/// Moves a job into the agent's window. It is over when its marker has stood for a moment, since a
/// program with an input line does not leave by itself; a person is not hurried.
fn in_window(
    layout: &Layout,
    job: &mut Job,
    group: &AgentGroup,
    task: Option<&Task>,
    known: Option<Interactive>,
) {
    let is_person = group.command == AgentCommand::Person;
    let named = |name: &str| {
        let found = job.env.iter().find(|(found, _)| found == name);
        found.map(|(_, value)| value.clone())
    };
    let file = named("PIPELINE_TASK_FILE").unwrap_or_default();
    let file = file.strip_prefix(&format!("{}/", job.dir.display())).unwrap_or(&file);
    let mut typing = Typing::line(file, named("PIPELINE_PROMPT_FILE").as_deref());
    if let Some(known) = known {
        typing.ready = Some(known.ready).filter(|ready| !ready.is_empty());
        typing.busy = Some(known.busy).filter(|busy| !busy.is_empty());
        typing.submit = known.submit;
    }
    let project = layout.root.file_name().map(|name| name.to_string_lossy());
    job.terminal = Some(Terminal {
        session: session_name(&project.unwrap_or_default()),
        typing: (!is_person).then_some(typing),
        notice: is_person.then(|| notice(file, task)),
    });
    job.marker_file = named("PIPELINE_TASK_FILE").map(PathBuf::from);
    job.marker_grace_ms = MARKER_STABLE_MS;
    job.stdin = None;
    job.silence_ms = None;
    if is_person {
        job.timeout_ms = None;
    }
}

/// Returns what a person finds above the shell.
fn notice(file: &str, task: Option<&Task>) -> String {
    let title = task.map(|task| format!("{}: {}", task.id, task.spec.title)).unwrap_or_default();
    let title = passage::single_line(&title, passage::TITLE_CHARS_MAX);
    let file = passage::single_line(file, passage::TITLE_CHARS_MAX);
    format!(
        "[pipeline] This is yours: {title}\n\
         Do what {file} says, in this folder. Then type one of these:\n  \
         pipeline done                    your stage is done\n  \
         pipeline request-changes \"WHAT\"  an earlier stage must do more\n  \
         pipeline block \"WHY\"             nobody can go on here\n  \
         pipeline fail \"WHY\"              it did not work, try again\n\
         Nothing is typed for you, and there is no time limit.\n"
    )
}

/// How long a marker stands before an attempt in a window is over.
const MARKER_STABLE_MS: u64 = 2_000;

/// A shell, and another one when it is left: only `pipeline done` and its sisters end the attempt.
const PERSON: &str = "while :; do \"${SHELL:-sh}\"; printf '%s\\n' \
                      '[pipeline] Still yours: type \"pipeline done\" when it is done.'; sleep 1; done";

/// Returns whether the attempt is given a prompt. Without git a task's own command is no agent but a
/// plain job: it reads none, and a file less is made for it.
pub fn has_prompt(state: &State, attempt: &Attempt) -> bool {
    let settings = state.rules_of(attempt);
    let is_bare = settings.project.isolation == Isolation::None;
    let group = settings.group_of(&attempt.agent);
    let is_own = group.is_some_and(|group| group.command == AgentCommand::Task);
    attempt.is_work() && !(is_bare && is_own)
}

/// Fills in the placeholders; a program path with a slash is taken from the project's root.
fn launch(
    around: &Surroundings<'_>,
    group: &AgentGroup,
    own: Option<String>,
    purpose: Purpose<'_>,
) -> Result<Launch, NoOrder> {
    let places = purpose.places;
    let fill = |text: &String| {
        let path = |path: &Path| path.to_string_lossy().into_owned();
        text.replace("{project}", &path(&around.layout.root))
            .replace("{prompt_file}", &path(&places.prompt_file))
            .replace("{task_file}", &path(&places.task_file))
            .replace("{model}", "")
    };
    let command = match &group.command {
        AgentCommand::Shell(text) => JobCommand::Shell(fill(text)),
        AgentCommand::Argv(words) => {
            let mut words: Vec<String> = words.iter().map(fill).collect();
            if let Some(program) = words.first_mut().filter(|program| program.contains('/')) {
                *program = around.layout.root.join(&*program).to_string_lossy().into_owned();
            }
            JobCommand::Argv(words)
        }
        AgentCommand::Task => own.map(JobCommand::Shell).ok_or(NoOrder::NoCommand)?,
        AgentCommand::Person => JobCommand::Shell(PERSON.into()),
        AgentCommand::Preset { .. } => {
            let root = &around.layout.root;
            if let Some(why) = preset::trouble(root, around.program_dir, group) {
                return Err(NoOrder::NoPreset(why));
            }
            return preset::launch(root, group, purpose).map_err(NoOrder::NoPreset);
        }
    };
    let (env, env_allow) = (group.env.clone(), group.env_allow.clone());
    let (preset, session) = (None, None);
    Ok(Launch { command, env, env_allow, has_stdin: true, interactive: None, preset, session })
}

/// Returns the job that runs `commands` one after another in the attempt's worktree.
pub fn checks_job(
    around: &Surroundings<'_>,
    settings: &Settings,
    attempt: &Attempt,
    places: &Places,
    commands: &[String],
) -> Job {
    let all = vec!["*".to_owned()];
    let mut job = base(around, settings, attempt, places, &all, &std::collections::BTreeMap::new());
    job.commands = commands.iter().cloned().map(JobCommand::Shell).collect();
    if job.commands.is_empty() {
        // Setup alone judges the base then.
        job.commands.push(JobCommand::Shell("true".into()));
    }
    job.timeout_ms = Some(settings.landing.checks_timeout_ms);
    job
}

fn base(
    around: &Surroundings<'_>,
    settings: &Settings,
    attempt: &Attempt,
    places: &Places,
    allow: &[String],
    own: &std::collections::BTreeMap<String, String>,
) -> Job {
    let path = |path: &Path| path.to_string_lossy().into_owned();
    let mut extra: Vec<(String, String)> = Vec::new();
    if let Some(repo) = around.repo {
        let excludes = attempt.is_work().then_some(places.excludes.as_path());
        // Without it the agent's git has the user's settings, which is no reason not to start.
        let git = repo.agent_git_env(excludes).unwrap_or_default();
        extra.extend(git.into_iter().filter_map(|(name, value)| {
            Some((name.into_string().ok()?, value.into_string().ok()?))
        }));
    }
    // Settings may not name it; where an agent is tried out, it is the project that it is of.
    extra.push(("PIPELINE_PROJECT".into(), path(&around.layout.root)));
    extra.extend(own.iter().map(|(name, value)| (name.clone(), value.clone())));
    let stage = attempt.stage().map_or("landing", |stage| stage.as_str());
    let task = attempt.task.as_ref().map_or("", |task| task.as_str());
    extra.extend([
        ("PIPELINE_TASK_ID".into(), task.into()),
        ("PIPELINE_STAGE".into(), stage.into()),
        ("PIPELINE_AGENT".into(), attempt.agent.as_str().into()),
        ("PIPELINE_ATTEMPT".into(), attempt.id.as_str().into()),
        ("PIPELINE_NONCE".into(), attempt.nonce.clone()),
    ]);
    if attempt.is_work() {
        extra.push(("PIPELINE_TASK_FILE".into(), path(&places.task_file)));
    }
    Job {
        v: JOB_VERSION,
        attempt: attempt.id.as_str().into(),
        nonce: attempt.nonce.clone(),
        dir: places.dir.clone(),
        commands: Vec::new(),
        stdin: None,
        log: places.log.clone(),
        log_bytes: settings.limits.log_bytes,
        env: agent_env(std::env::vars_os(), allow, around.program_dir, &extra),
        timeout_ms: None,
        silence_ms: None,
        attempt_dir: places.attempt_dir.clone(),
        marker_file: None,
        marker_grace_ms: MARKER_GRACE_MS,
        grace_ms: GRACE_MS,
        terminal: None,
    }
}
