//! The command line of `pipeline task`.

use std::path::PathBuf;

use clap::{Subcommand, ValueEnum};

use crate::machine::id::TaskId;
use crate::machine::task::{Priority, TaskKind};

use super::value;

#[derive(Debug, Subcommand)]
pub enum TaskCommand {
    /// Add a task and print its id.
    Add(AddArgs),
    /// Add the tasks of a backlog file, all or none.
    Import(ImportArgs),
    /// List tasks.
    List(ListArgs),
    /// Show a task with all that is known of it.
    Show {
        /// Name the task.
        #[arg(value_parser = value::id)]
        id: TaskId,
    },
    /// Change a task; without flags, title and body in $EDITOR. An empty value takes away.
    Edit(EditArgs),
    /// Assign these tasks no more.
    Hold(IdsArgs),
    /// Let held tasks go on.
    Release(IdsArgs),
    /// Let tasks go on from the stage that failed, attempts counted anew.
    Retry(RetryArgs),
    /// Hold a task and make a worktree for yourself; prints its path.
    ///
    /// The worktree is on the task's branch, pipeline/task/ID, so what you commit there counts. Said
    /// again, it makes what is missing and prints the path again.
    Take(TakeArgs),
    /// Give a task back that you took, with what you committed.
    Give(GiveArgs),
    /// Give tasks up.
    Cancel(CancelArgs),
    /// Say that you did a task yourself.
    ///
    /// An agent at work on it is ended, its work kept in salvage; what depends on the task goes on.
    Complete(CompleteArgs),
    /// Let a completed or cancelled task be worked on again, from its first stage.
    ///
    /// What has landed stays; a cancelled task goes on from its branch.
    Reopen {
        /// Name the task.
        #[arg(value_parser = value::id)]
        id: TaskId,
    },
    /// Allow landings that wait for a person.
    Approve(IdsArgs),
    /// Print what the agents of a task wrote.
    Log(TaskLogArgs),
    /// Show what a task changes.
    Diff(DiffArgs),
    /// Print exactly what an agent would be given for a task.
    ///
    /// The next attempt at the stage gets this on standard input, byte for byte, unless something
    /// happens before: notes, failures, a changed prompt file. Id and nonce of the attempt do not
    /// stand in a prompt, only in the task file. pipeline.toml counts as it stands.
    Prompt(PromptArgs),
}

/// What `add` and `edit` share; an empty value takes away what was there.
#[derive(Debug, Default, clap::Args)]
pub struct SpecArgs {
    /// Say what is to be done; `-` reads standard input.
    #[arg(long, value_name = "TEXT", conflicts_with = "body_file", allow_hyphen_values = true)]
    pub body: Option<String>,
    /// Read the body from a file.
    #[arg(long, value_name = "F")]
    pub body_file: Option<PathBuf>,
    /// Start after this task has landed; may be given several times.
    #[arg(long, value_name = "ID", value_delimiter = ',')]
    pub depends_on: Option<Vec<String>>,
    /// Name the files it will change; may be given several times.
    #[arg(long, value_name = "GLOB")]
    pub touches: Option<Vec<String>>,
    /// Set the priority: low, medium, high, critical.
    #[arg(long, value_name = "P", value_parser = value::priority)]
    pub priority: Option<Priority>,
    /// Put it below an epic.
    #[arg(long, value_name = "EPIC")]
    pub parent: Option<String>,
    /// Let it pass through these stages only.
    #[arg(long, value_name = "NAME,…", value_delimiter = ',')]
    pub stages: Option<Vec<String>>,
    /// Give it a label; may be given several times.
    #[arg(long, value_name = "L")]
    pub label: Option<Vec<String>>,
    /// Say how hard it is: simple, moderate, complex.
    #[arg(long, value_name = "C")]
    pub complexity: Option<String>,
    /// Give it only to agents with this capability, or of this name; may be given several times.
    #[arg(long, value_name = "CAPABILITY")]
    pub needs: Option<Vec<String>>,
    /// Run it alone.
    #[arg(long, num_args = 0..=1, require_equals = true, default_missing_value = "true")]
    #[arg(value_name = "BOOL")]
    pub exclusive: Option<bool>,
    /// Set an amount it uses while it runs; may be given several times.
    #[arg(long, value_name = "K=V")]
    pub resource: Option<Vec<String>>,
    /// Say how long it will take: `30s`, `5m`, `2h`.
    #[arg(long, value_name = "DURATION")]
    pub estimate: Option<String>,
    /// Set the command for agents that run each task's own.
    #[arg(long, value_name = "CMD", allow_hyphen_values = true)]
    pub command: Option<String>,
    /// Put it before all that is not in front.
    #[arg(long, num_args = 0..=1, require_equals = true, default_missing_value = "true")]
    #[arg(value_name = "BOOL")]
    pub front: Option<bool>,
    /// Do not assign it before `task release`.
    #[arg(long, num_args = 0..=1, require_equals = true, default_missing_value = "true")]
    #[arg(value_name = "BOOL")]
    pub hold: Option<bool>,
}

#[derive(Debug, clap::Args)]
pub struct AddArgs {
    /// Say in a few words what it is.
    #[arg(value_name = "TITLE")]
    pub title: String,
    /// Give it this id instead of the next TASK-nnn.
    #[arg(long, value_parser = value::id)]
    pub id: Option<TaskId>,
    #[command(flatten)]
    pub spec: SpecArgs,
    /// Say what it is.
    #[arg(long, value_enum, default_value = "task")]
    pub kind: KindArg,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum KindArg {
    Task,
    Epic,
}

impl From<KindArg> for TaskKind {
    fn from(kind: KindArg) -> Self {
        match kind {
            KindArg::Task => Self::Task,
            KindArg::Epic => Self::Epic,
        }
    }
}

#[derive(Debug, clap::Args)]
pub struct ImportArgs {
    /// Read this file; `-` reads standard input.
    pub file: PathBuf,
    /// Say what the file is.
    #[arg(long, default_value = "json")]
    pub format: String,
    /// Check everything and change nothing.
    #[arg(short = 'n', long)]
    pub dry_run: bool,
    /// Say what becomes of dependencies that nobody knows.
    #[arg(long, value_enum, value_name = "HOW", default_value = "error")]
    pub on_missing: OnMissing,
    /// Import finished tasks too, as open ones.
    #[arg(long)]
    pub all: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum OnMissing {
    /// Refuse the file.
    Error,
    /// Drop them.
    Ignore,
    /// Block the tasks that have them.
    Block,
}

#[derive(Debug, clap::Args)]
pub struct ListArgs {
    /// List tasks with this status only; may be given several times.
    #[arg(long, value_name = "S", value_delimiter = ',')]
    pub status: Vec<String>,
    /// List tasks that stand in this stage only.
    #[arg(long, value_name = "NAME")]
    pub stage: Option<String>,
}

#[derive(Debug, clap::Args)]
pub struct EditArgs {
    /// Name the task.
    #[arg(value_parser = value::id)]
    pub id: TaskId,
    /// Set the title.
    #[arg(long, value_name = "TITLE")]
    pub title: Option<String>,
    /// Make it an epic, or a task; only before anything was begun for it.
    #[arg(long, value_enum)]
    pub kind: Option<KindArg>,
    #[command(flatten)]
    pub spec: SpecArgs,
    /// Let it wait for this task too; may be given several times.
    #[arg(long, value_name = "ID", value_parser = value::id, value_delimiter = ',')]
    pub add_depends_on: Vec<TaskId>,
    /// Let it wait for this task no more; may be given several times.
    #[arg(long, value_name = "ID", value_parser = value::id, value_delimiter = ',')]
    pub remove_depends_on: Vec<TaskId>,
}

#[derive(Debug, clap::Args)]
pub struct IdsArgs {
    /// Name the tasks.
    #[arg(value_name = "ID", required = true, value_parser = value::id)]
    pub ids: Vec<TaskId>,
}

#[derive(Debug, clap::Args)]
pub struct RetryArgs {
    /// Name the tasks.
    #[arg(value_name = "ID", required_unless_present = "blocked", value_parser = value::id)]
    pub ids: Vec<TaskId>,
    /// Retry every blocked task.
    #[arg(long, conflicts_with = "ids")]
    pub blocked: bool,
    /// Go on from this stage; without it a task whose work is done, and which could not be landed,
    /// is landed, the others go on from where they failed.
    #[arg(long, value_name = "NAME")]
    pub stage: Option<String>,
    /// Tell the next agent something; `-` reads standard input.
    #[arg(long, value_name = "TEXT", allow_hyphen_values = true)]
    pub note: Option<String>,
    /// Start again from the base; the old work stays in salvage.
    #[arg(long)]
    pub fresh: bool,
}

#[derive(Debug, clap::Args)]
pub struct TakeArgs {
    /// Name the task.
    #[arg(value_parser = value::id)]
    pub id: TaskId,
    /// Make the worktree here; without it in .pipeline/taken.
    #[arg(value_name = "DIR")]
    pub place: Option<PathBuf>,
}

#[derive(Debug, clap::Args)]
pub struct GiveArgs {
    /// Name the task.
    #[arg(value_parser = value::id)]
    pub id: TaskId,
    /// Go on from this stage, or `landing`: nothing more is to be done. Without it: from where it
    /// stood; behind that stage where it must change something and you committed.
    #[arg(long, value_name = "NAME|landing")]
    pub stage: Option<String>,
}

#[derive(Debug, clap::Args)]
pub struct CompleteArgs {
    /// Name the task.
    #[arg(value_parser = value::id)]
    pub id: TaskId,
    /// Name the commit that did it; it must be on the base or the landing branch.
    #[arg(long, value_name = "C")]
    pub commit: Option<String>,
}

#[derive(Debug, clap::Args)]
pub struct CancelArgs {
    #[command(flatten)]
    pub ids: IdsArgs,
    /// Say what becomes of the open tasks that depend on them.
    #[arg(long, value_enum)]
    pub dependents: Option<DependentsArg>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum DependentsArg {
    /// Give them up as well.
    Cancel,
    /// Let them go on without.
    Release,
}

#[derive(Debug, clap::Args)]
pub struct TaskLogArgs {
    /// Name the task.
    #[arg(value_parser = value::id)]
    pub id: TaskId,
    /// Take attempts at this stage only.
    #[arg(long, value_name = "NAME")]
    pub stage: Option<String>,
    /// Take the N-th attempt at the stage.
    #[arg(long, value_name = "N")]
    pub attempt: Option<u32>,
    /// Show the end of the last attempt or check that failed.
    #[arg(long)]
    pub failed: bool,
    /// Go on with what is written.
    #[arg(short, long)]
    pub follow: bool,
}

#[derive(Debug, clap::Args)]
pub struct DiffArgs {
    /// Name the task.
    #[arg(value_parser = value::id)]
    pub id: TaskId,
    /// Show the names of files and how much of them.
    #[arg(long)]
    pub stat: bool,
}

#[derive(Debug, clap::Args)]
pub struct PromptArgs {
    /// Name the task.
    #[arg(value_parser = value::id)]
    pub id: TaskId,
    /// Take this stage; without it the one at which the task goes on.
    #[arg(long, value_name = "NAME")]
    pub stage: Option<String>,
}
