//! What an attempt is given: task file and prompt, made from the state.

use std::path::Path;

use crate::agent::prompt::{self, Context, Prompt};
use crate::agent::task_file::{self, BlockedTask, Failure, Merge, Note, Resumed, TaskFile, Work};
use crate::config::prompt_file::{self, PromptFile, Unusable};
use crate::git::{GitError, Oid, Repo};
use crate::machine::State;
use crate::machine::attempt::{Attempt, AttemptKind};
use crate::machine::mode::Isolation;
use crate::machine::resume;
use crate::machine::settings::{Settings, Stage};
use crate::machine::stage;
use crate::machine::task::{Task, TaskPhase};
use crate::sys::file::write_anew;

/// Blocked tasks listed to the supervisor.
const BLOCKED_MAX: usize = 50;

/// Everything about an attempt that its files are made of; a copy, to be used on another thread.
#[derive(Debug, Clone)]
pub struct Brief {
    file: TaskFile,
    stages: Vec<String>,
    landed: String,
    returns_to: Option<String>,
    checks: Vec<String>,
    landing_checks: Vec<String>,
    must_change: bool,
    /// Without git the task file lies beside the prompt, not in the working folder.
    is_bare: bool,
    /// A prompt file of the project, relative to its root.
    prompt: Option<String>,
}

/// What an agent is told of its role.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Role {
    pub text: String,
    /// Of the project's own prompt file; `None`: the built-in role.
    pub hash: Option<String>,
}

/// Collects what an attempt's files say; `None` for checks.
pub fn of(state: &State, attempt: &Attempt) -> Option<Brief> {
    let AttemptKind::Work { stage } = &attempt.kind else { return None };
    let task = state.tasks.get(attempt.task.as_ref()?)?;
    let settings = state.rules_of(attempt);
    let (_, stage) = settings.stage(stage.as_str())?;
    let mut brief = of_next(state, settings, task, stage);
    brief.file.attempt = attempt.id.as_str().into();
    brief.file.nonce.clone_from(&attempt.nonce);
    Some(brief)
}

/// Collects what the next attempt at a stage would be told by these settings; its id and nonce, which
/// stand in the task file alone, are left blank.
pub fn of_next(state: &State, settings: &Settings, task: &Task, stage: &Stage) -> Brief {
    let notes = task
        .notes
        .iter()
        .map(|(stage, text)| Note { stage: stage.as_str().into(), text: text.clone() });
    let failures = task.evidence.iter().map(|evidence| Failure {
        what: format!("{} ({})", evidence.from, evidence.class.word()),
        evidence: evidence.text.clone(),
    });
    let file = TaskFile {
        task: task.id.as_str().into(),
        title: task.spec.title.clone(),
        stage: stage.name.clone(),
        attempt: String::new(),
        nonce: String::new(),
        body: task.spec.body.clone(),
        notes: notes.collect(),
        failures: failures.collect(),
        hint: task.hint.clone(),
        blocked: blocked(state, stage, task),
        merge: None,
        resumed: resumed(task, stage),
    };
    let is_bare = settings.project.isolation == Isolation::None;
    let returns_to = stage::back_from(settings, task, Some(&stage.id()));
    let passes = settings.stages.iter().filter(|stage| stage::applies(stage, task));
    Brief {
        file,
        stages: passes.map(|stage| stage.name.clone()).collect(),
        landed: settings.landing.branch.clone(),
        returns_to: returns_to.map(|stage| stage.as_str().to_owned()),
        checks: stage.checks.clone(),
        landing_checks: if is_bare { Vec::new() } else { settings.landing.checks.clone() },
        must_change: stage.must_change && !is_bare,
        is_bare,
        prompt: stage.prompt.clone(),
    }
}

/// Returns what is told of the attempt at the stage that was cut short. One from before the record
/// named it is told of by what it left.
fn resumed(task: &Task, stage: &Stage) -> Option<Resumed> {
    let work = if task.resume_from.is_some() { Work::Here } else { Work::Nothing };
    let Some(found) = resume::continued(task, &stage.id()) else {
        let is_unnamed = task.continues.is_none() && task.resume_from.is_some();
        let (attempt, how) = (String::new(), String::new());
        return is_unnamed.then_some(Resumed { attempt, how, work });
    };
    let how = found.outcome.as_ref().map_or("", |outcome| outcome.reason.as_str());
    Some(Resumed { attempt: found.id.as_str().into(), how: how.to_owned(), work })
}

/// Returns whether work can go on from the salvaged commit: it is there, and the branch at `tip` can
/// move to it.
///
/// # Errors
/// When git cannot tell.
pub fn is_resumable(repo: &Repo, tip: &Oid, resume: &Oid) -> Result<bool, GitError> {
    let is_missing = !repo.missing_commits(std::slice::from_ref(resume))?.is_empty();
    Ok(!is_missing && repo.is_ancestor(tip, resume)?)
}

/// The supervisor is told what needs a person.
fn blocked(state: &State, stage: &Stage, of: &Task) -> Vec<BlockedTask> {
    let is_supervisor = stage.name == "supervisor" || stage.short == "super";
    if !is_supervisor || state.index.counts.blocked == 0 {
        return Vec::new();
    }
    let tasks = state.tasks.values().filter(|task| task.id != of.id);
    let listed = tasks.filter_map(|task| match &task.phase {
        TaskPhase::Blocked(block) => Some(BlockedTask {
            task: task.id.as_str().into(),
            stage: block.stage.as_ref().map_or("", |stage| stage.as_str()).into(),
            reason: block.reason.clone(),
        }),
        TaskPhase::Waiting
        | TaskPhase::Ready { .. }
        | TaskPhase::Working { .. }
        | TaskPhase::Landing { .. }
        | TaskPhase::Completed { .. }
        | TaskPhase::Cancelled { .. } => None,
    });
    listed.take(BLOCKED_MAX).collect()
}

impl Brief {
    /// Adds the merge that stands half-done in the worktree.
    pub fn set_merge(&mut self, files: Vec<String>) {
        self.file.merge = Some(Merge { with: "what has landed".into(), files });
    }

    /// Takes back that the folder holds the work of an attempt that was cut short.
    pub fn set_apart(&mut self) {
        if let Some(resumed) = &mut self.file.resumed {
            resumed.work = Work::Apart;
        }
    }

    /// Returns the role: the project's own, read from below `root`, or the built-in one.
    ///
    /// # Errors
    /// When the project's prompt file is of no use; the built-in one does not take its place.
    pub fn role(&self, root: &Path) -> Result<Role, Unusable> {
        match &self.prompt {
            Some(name) => {
                let PromptFile { text, hash } = prompt_file::read(root, name)?;
                Ok(Role { text, hash: Some(hash) })
            }
            None => Ok(Role { text: prompt::built_in(&self.file.stage).into(), hash: None }),
        }
    }

    /// Returns the prompt for a role.
    #[must_use]
    pub fn prompt(&self, role: &Role) -> Prompt {
        let name = task_file::file_name(&self.file.task);
        let stages: Vec<&str> = self.stages.iter().map(String::as_str).collect();
        let context = Context {
            file: &self.file,
            stages: &stages,
            landed: Some(&*self.landed).filter(|_| !self.is_bare),
            path: if self.is_bare { "$PIPELINE_TASK_FILE" } else { &name },
            returns_to: self.returns_to.as_deref(),
            checks: &self.checks,
            landing_checks: &self.landing_checks,
            must_change: self.must_change,
        };
        prompt::render(&role.text, &context)
    }

    /// Puts the task file where the attempt finds it; nobody reads it yet.
    ///
    /// # Errors
    /// Any of write.
    pub fn write_task_file(&self, path: &Path) -> std::io::Result<()> {
        crate::sys::fail::point("brief.write")?;
        write_anew(path, task_file::render(&self.file).as_ref())
    }

    /// Puts the prompt where the attempt finds it; nobody reads it yet.
    ///
    /// # Errors
    /// Any of write.
    pub fn write_prompt(&self, path: &Path, role: &Role) -> std::io::Result<()> {
        crate::sys::fail::point("brief.write_prompt")?;
        write_anew(path, self.prompt(role).text.as_bytes())
    }
}
