//! `pipeline task prompt`: what the next attempt at a stage would be given.

use serde::Serialize;

use super::console::{Console, Format};
use super::error::Error;
use super::exit_code::Exit;
use super::project::{CONFIG_BYTES_MAX, Open};
use super::show;
use super::task_args::PromptArgs;
use super::views::find;
use crate::agent::prompt::Cut;
use crate::config;
use crate::git::{Oid, Repo};
use crate::machine::State;
use crate::machine::mode::Isolation;
use crate::machine::settings::{AgentCommand, Settings, Stage};
use crate::machine::stage;
use crate::machine::task::{Task, TaskKind};
use crate::monitor::brief;
use crate::sys::file::read_bounded;

/// The prompt with what is to be known of it.
#[derive(Debug, Serialize)]
struct Document<'a> {
    id: &'a str,
    stage: &'a str,
    /// The project's own prompt file; `null`: the built-in role.
    role: Option<RoleFile<'a>>,
    bytes: usize,
    /// What was left out for length.
    cut: Vec<CutEntry<'a>>,
    prompt: &'a str,
}

#[derive(Debug, Serialize)]
struct RoleFile<'a> {
    file: &'a str,
    hash: &'a str,
}

#[derive(Debug, Serialize)]
struct CutEntry<'a> {
    section: &'a str,
    bytes: usize,
    /// A file or a command that has all of it.
    whole: &'a str,
}

impl<'a> CutEntry<'a> {
    fn of(cut: &'a Cut) -> Self {
        Self { section: cut.section, bytes: cut.bytes, whole: &cut.whole }
    }
}

/// `pipeline task prompt`.
pub fn run(open: &Open, console: &mut Console<'_>, args: &PromptArgs) -> Result<Exit, Error> {
    let (state, ..) = open.now();
    let task = find(state, &args.id)?;
    let newer = settings_of_file(open, console);
    let settings = newer.as_ref().unwrap_or(&state.settings);
    let stage = stage_of(settings, task, args.stage.as_deref())?;
    need_prompt(settings, stage)?;
    let mut brief = brief::of_next(state, settings, task, stage);
    if let (Some(repo), Some(merge)) = (&open.project.repo, &task.merge_owed) {
        brief.set_merge(conflicts(repo, state, task, merge.as_str())?);
    }
    if let (Some(repo), Some(resume)) = (&open.project.repo, &task.resume_from)
        && !is_resumable(repo, task, resume.as_str())?
    {
        brief.set_apart();
    }
    let role = brief.role(&open.project.layout.root).map_err(|unusable| {
        Error::failed(format!("cannot make the prompt of stage `{}`", stage.name))
            .because(&unusable)
            .hint("mend the file, or leave `prompt` out of pipeline.toml to use the built-in one")
    })?;
    let prompt = brief.prompt(&role);
    if task.is_final() {
        console.note(&format!("task `{}` is finished: its notes are no longer kept", task.id));
    }
    match console.format {
        Format::Text => console.write(prompt.text.as_bytes())?,
        Format::Json => {
            let file = stage.prompt.as_deref().zip(role.hash.as_deref());
            let document = show::document(&Document {
                id: task.id.as_str(),
                stage: &stage.name,
                role: file.map(|(file, hash)| RoleFile { file, hash }),
                bytes: prompt.text.len(),
                cut: prompt.cut.iter().map(CutEntry::of).collect(),
                prompt: &prompt.text,
            });
            console.write(document.as_bytes())?;
        }
    }
    Ok(Exit::Done)
}

/// Returns the settings of `pipeline.toml` where they are not yet adopted: the next attempt runs by
/// them. Those of a broken file do not count.
pub fn settings_of_file(open: &Open, console: &mut Console<'_>) -> Option<Settings> {
    let path = open.project.layout.config();
    let bytes = read_bounded(&path, CONFIG_BYTES_MAX).ok()??;
    match config::load_in(&open.project.layout.root, &String::from_utf8_lossy(&bytes)) {
        Ok(loaded) => {
            Some(loaded.settings).filter(|settings| settings.hash != open.now().0.settings.hash)
        }
        Err(error) => {
            let path = path.display();
            console.warn(&format!("`{path}` is broken, the old settings count: {error}"));
            None
        }
    }
}

/// Returns the stage that is asked for, which the task must pass through.
fn stage_of<'a>(
    settings: &'a Settings,
    task: &Task,
    name: Option<&str>,
) -> Result<&'a Stage, Error> {
    let id = &task.id;
    if task.spec.kind == TaskKind::Epic {
        return Err(Error::usage(format!("task `{id}` is an epic: no agent is given it")));
    }
    let passes = settings.stages.iter().filter(|stage| stage::applies(stage, task));
    let known: Vec<&str> = passes.map(|stage| stage.name.as_str()).collect();
    let hint = format!("its stages are {}", known.join(", "));
    let Some(name) = name else {
        let onto = task.stage().map(|at| stage::at_or_else(settings, task, at));
        let next = onto.or_else(|| stage::first(settings, task));
        let next = next.and_then(|next| settings.stage(next.as_str()));
        let none = || Error::usage(format!("task `{id}` has no stage to go on with")).hint(hint);
        return next.map(|(_, stage)| stage).ok_or_else(none);
    };
    match settings.stage_by_any_name(name) {
        None => Err(Error::usage(format!("there is no stage `{name}`")).hint(hint)),
        Some(stage) if !stage::applies(stage, task) => {
            let text = format!("task `{id}` does not pass through stage `{name}`");
            Err(Error::usage(text).hint(hint))
        }
        Some(stage) => Ok(stage),
    }
}

/// Refuses a stage whose agents read no prompt.
fn need_prompt(settings: &Settings, stage: &Stage) -> Result<(), Error> {
    let mut groups = settings.agents.iter().filter(|group| group.stages.contains(&stage.name));
    let is_bare = settings.project.isolation == Isolation::None;
    let has_own =
        |group: &crate::machine::settings::AgentGroup| matches!(group.command, AgentCommand::Task);
    if is_bare && groups.clone().next().is_some() && groups.all(has_own) {
        let text = format!("the agents of stage `{}` are given no prompt", stage.name);
        return Err(Error::usage(text)
            .hint("without git a task's own command is a plain job: it reads nothing"));
    }
    Ok(())
}

/// Returns whether the attempt would find the work of the one that was cut short.
fn is_resumable(repo: &Repo, task: &Task, resume: &str) -> Result<bool, Error> {
    let Some(tip) = &task.tip else { return Ok(false) };
    let failed = |cause: &dyn std::error::Error| {
        Error::failed(format!("cannot see what was salvaged of `{}`", task.id)).because(cause)
    };
    let oid = |text: &str| text.parse::<Oid>().map_err(|error| failed(&error));
    brief::is_resumable(repo, &oid(tip.as_str())?, &oid(resume)?).map_err(|error| failed(&error))
}

/// Returns the files in conflict in the merge that the attempt would find half-done.
fn conflicts(repo: &Repo, state: &State, task: &Task, merge: &str) -> Result<Vec<String>, Error> {
    let failed = |cause: &dyn std::error::Error| {
        Error::failed("cannot see what the merge to finish conflicts in").because(cause)
    };
    let start = task.resume_from.as_ref().or(task.tip.as_ref()).or(state.base.landed.as_ref());
    let Some(start) = start else { return Ok(Vec::new()) };
    let oid = |text: &str| text.parse::<Oid>().map_err(|error| failed(&error));
    repo.conflicts(&oid(start.as_str())?, &oid(merge)?).map_err(|error| failed(&error))
}
