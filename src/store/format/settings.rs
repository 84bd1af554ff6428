//! The settings on disk.

use std::collections::BTreeMap;

use crate::machine::mode::{Isolation, Orchestration, Rollout};
use crate::machine::settings::{
    AgentCommand, AgentGroup, Completion, FallbackRules, GateRules, Landing, LauncherKind, Limits,
    Monitor, OnExit, Policy, Project, Retry, RolloutRules, Scheduler, Settings, Slice, Stage,
    Worktree,
};

use super::mirror::mirror;

mirror! { struct Settings {
    hash: String,
    project: Project,
    monitor: Monitor,
    worktree: Worktree,
    limits: Limits,
    retry: Retry,
    stages: Vec<Stage>,
    agents: Vec<AgentGroup>,
    landing: Landing,
    rollout: RolloutRules,
} optional { scheduler: Scheduler, notify: Vec<String> } }

mirror! { struct Scheduler {
    policy: Policy,
    affinity: bool,
    resources: BTreeMap<String, u64>,
    load_limit: f64,
    escalate_after: u32,
} optional { command: Vec<String>, prefetch: Option<f64> } }

mirror! { words Policy { CriticalPath, Priority, Fifo, Shortest } }

mirror! { struct Project {
    base: String,
    orchestration: Orchestration,
    rollout: Rollout,
    isolation: Isolation,
    current_task_file: String,
} }

mirror! { words Orchestration { Sequential, Parallel, Hybrid } }
mirror! { words Rollout { Shadow, Pilot, Production } }
mirror! { words Isolation { Worktree, None } }

mirror! { struct Monitor {
    poll_busy_ms: u64,
    poll_normal_ms: u64,
    poll_idle_ms: u64,
    on_exit: Option<OnExit>,
    launch_rate: Option<u32>,
} }

mirror! { words OnExit { Leave, Drain, Kill } }

mirror! { struct Worktree {
    dir: String,
    setup: Vec<String>,
    copy: Vec<String>,
    keep: Vec<String>,
    keep_finished_ms: u64,
} }

mirror! { struct Limits {
    attempts_per_stage: u32,
    infrastructure_retries: u32,
    attempts_per_task: u32,
    send_backs: u32,
    attempts_per_run: u32,
    log_bytes: u64,
} optional { cost_usd_micros: u64, cost_usd_per_task_micros: u64 } }

mirror! { struct Retry { first_ms: u64, factor: f64, max_ms: u64, jitter: f64 } }

mirror! { struct Stage {
    name: String,
    short: String,
    prompt: Option<String>,
    must_change: bool,
    checks: Vec<String>,
    timeout_ms: Option<u64>,
    timeout_min_ms: u64,
    timeout_max_ms: u64,
    silence_ms: u64,
    labels: Vec<String>,
    returns_to: Option<String>,
    estimate_ms: u64,
} optional { resources: BTreeMap<String, u64> } }

mirror! { struct AgentGroup {
    name: String,
    stages: Vec<String>,
    count: u32,
    command: AgentCommand,
    completion: Completion,
    env: BTreeMap<String, String>,
    env_allow: Vec<String>,
    capabilities: Vec<String>,
    tier: u32,
    complexity: Vec<String>,
} optional { launcher: LauncherKind, scale_min: Option<u32>, provider: String } }

mirror! { enum AgentCommand {
    Argv(words: Vec<String>),
    Shell(line: String),
    Task,
    Person,
    Preset { name: String, model: String, is_env_own: bool },
} }
mirror! { words LauncherKind { Process, Tmux } }
mirror! { words Completion { Marker, Exit } }

mirror! { struct Landing {
    branch: String,
    checks: Vec<String>,
    checks_timeout_ms: u64,
    protect: Vec<String>,
} optional { is_manual: bool } }

mirror! { struct RolloutRules {
    pilot: Slice,
} optional { gate: GateRules, fallback: FallbackRules } }

mirror! { struct GateRules { completed: u32, success_rate: f64, reverts: u32, agreement: f64 } }

mirror! { struct FallbackRules {
    window: u32,
    failure_rate: f64,
    revert_rate: f64,
    cooldown_ms: u64,
} }

mirror! { enum Slice { Percent(percent: u32), Labels(labels: Vec<String>), Tasks(ids: Vec<String>) } }
