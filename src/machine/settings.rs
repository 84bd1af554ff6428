//! The settings the machine and the rim run by: `pipeline.toml`, validated, every default filled in.
//!
//! Plain data. They enter the state as one change, so all processes use the adopted ones.

use std::collections::BTreeMap;

use super::mode::{Isolation, Orchestration, Rollout};

/// All of `pipeline.toml`.
#[derive(Debug, Clone, PartialEq)]
pub struct Settings {
    /// Identifies the settings: 16 hex digits over the file's text; attempts pin it.
    pub hash: String,
    pub project: Project,
    pub monitor: Monitor,
    pub worktree: Worktree,
    pub limits: Limits,
    pub retry: Retry,
    /// In pipeline order, at least one.
    pub stages: Vec<Stage>,
    /// Groups in file order; may be empty.
    pub agents: Vec<AgentGroup>,
    pub landing: Landing,
    pub rollout: RolloutRules,
}

/// `[project]`.
#[derive(Debug, Clone, PartialEq)]
pub struct Project {
    /// Branch that work starts from and returns to; short name, e.g. `main`.
    pub base: String,
    /// Counts for a new state only.
    pub orchestration: Orchestration,
    /// Counts for a new state only.
    pub rollout: Rollout,
    pub isolation: Isolation,
    /// Relative to the project's root.
    pub current_task_file: String,
}

/// `[monitor]`; intervals in milliseconds.
#[derive(Debug, Clone, PartialEq)]
pub struct Monitor {
    pub poll_busy_ms: u64,
    pub poll_normal_ms: u64,
    pub poll_idle_ms: u64,
    /// `None`: not set (kill where `CI` is set in the monitor's environment, leave elsewhere).
    pub on_exit: Option<OnExit>,
    /// Most attempts started per second; 0: no limit; `None`: not set (10, and 0 for `command`).
    pub launch_rate: Option<u32>,
}

/// What becomes of running agents when the monitor ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OnExit {
    Leave,
    Drain,
    Kill,
}

/// `[worktree]`.
#[derive(Debug, Clone, PartialEq)]
pub struct Worktree {
    /// Relative to the project's root.
    pub dir: String,
    /// Shell commands.
    pub setup: Vec<String>,
    /// Paths relative to the project's root.
    pub copy: Vec<String>,
    /// Paths relative to a worktree's root.
    pub keep: Vec<String>,
    pub keep_finished_ms: u64,
}

/// `[limits]`; 0 means none where INTERFACE says so.
#[derive(Debug, Clone, PartialEq)]
pub struct Limits {
    pub attempts_per_stage: u32,
    pub infrastructure_retries: u32,
    pub attempts_per_task: u32,
    pub send_backs: u32,
    pub attempts_per_run: u32,
    pub log_bytes: u64,
}

/// `[retry]`: delay before try n is `first * factor^(n-1)`, at most `max`, give or take `jitter`.
#[derive(Debug, Clone, PartialEq)]
pub struct Retry {
    pub first_ms: u64,
    /// At least 1.
    pub factor: f64,
    pub max_ms: u64,
    /// Share of the delay, 0 to 1.
    pub jitter: f64,
}

/// One `[[stage]]`.
#[derive(Debug, Clone, PartialEq)]
pub struct Stage {
    pub name: String,
    pub short: String,
    /// A file of the project; `None`: the built-in prompt of that name, or a general one.
    pub prompt: Option<String>,
    pub must_change: bool,
    /// Shell commands.
    pub checks: Vec<String>,
    /// `None` is `auto`.
    pub timeout_ms: Option<u64>,
    pub timeout_min_ms: u64,
    pub timeout_max_ms: u64,
    pub silence_ms: u64,
    /// Empty: every task passes through.
    pub labels: Vec<String>,
    /// `None`: the nearest earlier `must_change` stage.
    pub returns_to: Option<String>,
    pub estimate_ms: u64,
}

/// One `[[agent]]`: a group of `count` alike agents.
#[derive(Debug, Clone, PartialEq)]
pub struct AgentGroup {
    pub name: String,
    /// Long names of the stages served, at least one.
    pub stages: Vec<String>,
    pub count: u32,
    pub command: AgentCommand,
    pub completion: Completion,
    pub env: BTreeMap<String, String>,
    /// Patterns with `*`; as in INTERFACE, `GIT_*` never passes unless named in full.
    pub env_allow: Vec<String>,
    pub capabilities: Vec<String>,
    pub tier: u32,
    pub complexity: Vec<String>,
}

/// What an agent runs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum AgentCommand {
    /// Program and arguments, no shell.
    Argv(Vec<String>),
    /// `sh -c`.
    Shell(String),
    /// The task's own command, by `sh -c`.
    Task,
}

/// How an attempt says that it is done.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Completion {
    /// A status line in the task file.
    Marker,
    /// Exit status 0 is enough.
    Exit,
}

/// `[landing]`.
#[derive(Debug, Clone, PartialEq)]
pub struct Landing {
    /// Short branch name, e.g. `pipeline/landed`.
    pub branch: String,
    /// Shell commands, run on the merged result.
    pub checks: Vec<String>,
    pub checks_timeout_ms: u64,
    /// Globs; prompt files of stages are added by validation.
    pub protect: Vec<String>,
}

/// `[rollout]`, as far as it is built.
#[derive(Debug, Clone, PartialEq)]
pub struct RolloutRules {
    pub pilot: Slice,
}

/// Which tasks a pilot acts for; closed over dependencies by the machine.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Slice {
    /// 0 to 100, by a hash of the id.
    Percent(u32),
    Labels(Vec<String>),
    Tasks(Vec<String>),
}
