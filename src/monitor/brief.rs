//! What an attempt is given: task file and prompt, made from the state.

use std::fs;
use std::path::Path;

use crate::agent::prompt::{self, Context};
use crate::agent::task_file::{self, BlockedTask, Failure, Merge, Note, TaskFile};
use crate::machine::State;
use crate::machine::attempt::{Attempt, AttemptKind};
use crate::machine::settings::Stage;
use crate::machine::stage;
use crate::machine::task::{Task, TaskPhase};

/// Blocked tasks listed to the supervisor.
const BLOCKED_MAX: usize = 50;
/// Bound of a project's own prompt file, in bytes.
const PROMPT_BYTES_MAX: u64 = 256 * 1024;

/// Everything about an attempt that its files are made of; a copy, to be used on another thread.
#[derive(Debug, Clone)]
pub struct Brief {
    pub file: TaskFile,
    hint: Option<String>,
    returns_to: Option<String>,
    /// A prompt file of the project, relative to its root.
    prompt: Option<String>,
}

/// Collects what an attempt's files say; `None` for checks.
pub fn of(state: &State, attempt: &Attempt) -> Option<Brief> {
    let AttemptKind::Work { stage } = &attempt.kind else { return None };
    let task = state.tasks.get(attempt.task.as_ref()?)?;
    let settings = state.rules_of(attempt);
    let (_, configured) = settings.stage(stage.as_str())?;
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
        stage: stage.as_str().into(),
        attempt: attempt.id.as_str().into(),
        nonce: attempt.nonce.clone(),
        body: task.spec.body.clone(),
        notes: notes.collect(),
        failures: failures.collect(),
        blocked: blocked(state, configured, task),
        merge: None,
    };
    let returns_to = stage::back_from(settings, task, Some(stage));
    Some(Brief {
        file,
        hint: task.hint.clone(),
        returns_to: returns_to.map(|stage| stage.as_str().to_owned()),
        prompt: configured.prompt.clone(),
    })
}

/// The supervisor is told what needs a person.
fn blocked(state: &State, stage: &Stage, of: &Task) -> Vec<BlockedTask> {
    if stage.short != "super" || state.index.counts.blocked == 0 {
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

    /// Returns the prompt; `path` is the task file as the agent would open it.
    ///
    /// # Errors
    /// When the project's prompt file cannot be read.
    pub fn prompt(&self, root: &Path, path: &str) -> std::io::Result<String> {
        let own = match &self.prompt {
            Some(name) => {
                let bytes = crate::sys::file::read_bounded(&root.join(name), PROMPT_BYTES_MAX);
                let missing = || std::io::Error::other("there is no such file");
                let bytes = bytes.and_then(|bytes| bytes.ok_or_else(missing)).map_err(|error| {
                    std::io::Error::other(format!("cannot read prompt `{name}`: {error}"))
                })?;
                Some(String::from_utf8_lossy(&bytes).into_owned())
            }
            None => None,
        };
        let role = own.as_deref().unwrap_or_else(|| prompt::built_in(&self.file.stage));
        let context = Context {
            file: &self.file,
            path,
            hint: self.hint.as_deref(),
            returns_to: self.returns_to.as_deref(),
        };
        Ok(prompt::render(role, &context))
    }

    /// Puts task file and, where there is one, prompt where the attempt finds them; nobody reads them
    /// yet.
    ///
    /// # Errors
    /// Any of read and write.
    pub fn write(
        &self,
        root: &Path,
        task_file: &Path,
        prompt_file: Option<&Path>,
    ) -> std::io::Result<()> {
        crate::sys::fail::point("brief.write")?;
        fs::write(task_file, task_file::render(&self.file))?;
        let Some(prompt_file) = prompt_file else { return Ok(()) };
        let name = task_file.file_name().map(|name| name.to_string_lossy().into_owned());
        fs::write(prompt_file, self.prompt(root, &name.unwrap_or_default())?)
    }
}
