//! The settings the machine and the rim run by: `pipeline.toml`, validated, every default filled in.
//!
//! Plain data. They enter the state as one change, so all processes use the adopted ones.

use std::collections::BTreeMap;

use super::amount::Amounts;
use super::id::AgentName;
use super::mode::{Isolation, Orchestration, Rollout};

/// All of `pipeline.toml`.
#[derive(Debug, Clone, PartialEq)]
pub struct Settings {
    /// Identifies the settings: 16 hex digits over the file's text; attempts pin it.
    pub hash: String,
    /// What the project is.
    pub project: Project,
    /// How the loop waits, starts and ends.
    pub monitor: Monitor,
    /// How worktrees are made ready.
    pub worktree: Worktree,
    /// How often and how much.
    pub limits: Limits,
    /// How long to wait before a try.
    pub retry: Retry,
    /// In pipeline order, at least one.
    pub stages: Vec<Stage>,
    /// Groups in file order; may be empty.
    pub agents: Vec<AgentGroup>,
    /// Who goes first, and what there is to share.
    pub scheduler: Scheduler,
    /// How work lands.
    pub landing: Landing,
    /// Which slice a pilot acts for.
    pub rollout: RolloutRules,
    /// Program and arguments that are told of what happens; empty: nobody is.
    pub notify: Vec<String>,
}

impl Settings {
    /// Returns the only group so called.
    #[must_use]
    pub fn group(&self, name: &str) -> Option<&AgentGroup> {
        let mut so_called = self.agents.iter().filter(|group| group.name == name);
        so_called.next().filter(|_| so_called.next().is_none())
    }

    /// Returns the agent of another group that is called as one of the first `count` of `group` would
    /// be, letter case aside.
    #[must_use]
    pub fn stranger(&self, group: &AgentGroup, count: u32) -> Option<AgentName> {
        let others = self.agents.iter().filter(|other| other.name != group.name);
        let mut others = others.flat_map(AgentGroup::names);
        let own = group.name.to_ascii_lowercase();
        let folded = AgentGroup { name: own, ..group.clone() };
        others.find(|name| {
            let number = folded.number_of(&name.as_str().to_ascii_lowercase());
            number.is_some_and(|number| number <= count)
        })
    }

    /// Returns the group that an agent is of; `None` for checks, and for agents of other settings. A
    /// name beyond the settings' numbers is that of an agent that a person asked for.
    #[must_use]
    pub fn group_of(&self, agent: &AgentName) -> Option<&AgentGroup> {
        let numbered = |group: &&AgentGroup| group.number_of(agent.as_str());
        let mut groups = self.agents.iter();
        groups
            .find(|group| numbered(group).is_some_and(|number| number <= group.count))
            .or_else(|| self.agents.iter().find(|group| numbered(group).is_some()))
    }
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
    /// Where agents run.
    pub isolation: Isolation,
    /// Relative to the project's root.
    pub current_task_file: String,
}

/// `[monitor]`; intervals in milliseconds.
#[derive(Debug, Clone, PartialEq)]
pub struct Monitor {
    /// With more than three attempts running.
    pub poll_busy_ms: u64,
    /// With one to three attempts running.
    pub poll_normal_ms: u64,
    /// With no attempt running.
    pub poll_idle_ms: u64,
    /// `None`: not set (kill where `CI` is set in the monitor's environment, leave elsewhere).
    pub on_exit: Option<OnExit>,
    /// Most attempts started per second; 0: no limit; `None`: not set (10, and 0 for `command`).
    pub launch_rate: Option<u32>,
}

/// What becomes of running agents when the monitor ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OnExit {
    /// They go on.
    Leave,
    /// They are waited for.
    Drain,
    /// They are ended, their work saved.
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
    /// How long worktrees, attempts and branches of finished tasks stay.
    pub keep_finished_ms: u64,
}

/// `[limits]`; 0 means none where INTERFACE says so.
#[derive(Debug, Clone, PartialEq)]
pub struct Limits {
    /// Task failures at one stage, at least 1.
    pub attempts_per_stage: u32,
    /// Failures that are not the task's; counted apart.
    pub infrastructure_retries: u32,
    /// Over all stages, at least 1.
    pub attempts_per_task: u32,
    /// Changes requested, conflicts and failed landing checks together.
    pub send_backs: u32,
    /// 0: no limit.
    pub attempts_per_run: u32,
    /// Of a run, in millionths of a dollar; 0: no limit.
    pub cost_usd_micros: u64,
    /// Of a task, in millionths of a dollar; 0: no limit.
    pub cost_usd_per_task_micros: u64,
    /// Of one attempt's log, head and tail kept; at least 4096.
    pub log_bytes: u64,
}

/// `[retry]`: delay before try n is `first * factor^(n-1)`, at most `max`, give or take `jitter`.
#[derive(Debug, Clone, PartialEq)]
pub struct Retry {
    /// Delay before the first retry.
    pub first_ms: u64,
    /// At least 1.
    pub factor: f64,
    /// Longest delay.
    pub max_ms: u64,
    /// Share of the delay, 0 to 1.
    pub jitter: f64,
}

/// Longest prompt file of a project, in bytes: such a role is never cut, and a prompt must hold the
/// task as well.
pub const ROLE_BYTES_MAX: usize = 16 << 10;

/// One `[[stage]]`.
#[derive(Debug, Clone, PartialEq)]
pub struct Stage {
    /// Long name; neither it nor the short one is another stage's, letter case aside.
    pub name: String,
    /// Used in statuses and ids of attempts; without `.`.
    pub short: String,
    /// A file of the project; `None`: the built-in prompt of that name, or a general one.
    pub prompt: Option<String>,
    /// Whether completing without a change to the tree is a failure.
    pub must_change: bool,
    /// Shell commands.
    pub checks: Vec<String>,
    /// `None` is `auto`.
    pub timeout_ms: Option<u64>,
    /// Least automatic timeout.
    pub timeout_min_ms: u64,
    /// Greatest automatic timeout, not below the least.
    pub timeout_max_ms: u64,
    /// No output for so long ends an attempt; has no meaning for agents with a command.
    pub silence_ms: u64,
    /// Empty: every task passes through.
    pub labels: Vec<String>,
    /// Long name of an earlier stage; `None`: the nearest earlier `must_change` stage.
    pub returns_to: Option<String>,
    /// What each of its attempts takes of [`Scheduler::resources`].
    pub resources: Amounts,
    /// Expected duration until there is history.
    pub estimate_ms: u64,
}

/// Most agents of a group.
pub const GROUP_AGENTS_MAX: u32 = 10_000;

/// One `[[agent]]`: a group of alike agents.
#[derive(Debug, Clone, PartialEq)]
pub struct AgentGroup {
    /// The agent's name, or what numbered ones begin with.
    pub name: String,
    /// Long names of the stages served, at least one.
    pub stages: Vec<String>,
    /// At least 1; one keeps the bare name, more are numbered from 1. With `scale_min` the most.
    pub count: u32,
    /// With `scale`, the least: the queues decide how many there are. `None`: always `count`.
    pub scale_min: Option<u32>,
    /// What is run.
    pub command: AgentCommand,
    /// In what it is run.
    pub launcher: LauncherKind,
    /// How it says that it is done.
    pub completion: Completion,
    /// Added to the environment; never `PIPELINE_*`.
    pub env: BTreeMap<String, String>,
    /// Patterns with `*`; as in INTERFACE, `GIT_*` never passes unless named in full.
    pub env_allow: Vec<String>,
    /// Whose models it uses, where that is not what its preset says; empty: as the preset says.
    pub provider: String,
    /// What tasks may need.
    pub capabilities: Vec<String>,
    /// At least 1; escalation goes to the next higher one.
    pub tier: u32,
    /// Of `simple`, `moderate`, `complex`: preferred for these.
    pub complexity: Vec<String>,
}

impl AgentGroup {
    /// Returns true when it serves the stage and has what is needed; its own name and those of its
    /// agents count as capabilities.
    #[must_use]
    pub fn can_serve(&self, stage: &str, needs: &[String]) -> bool {
        let has = |need: &String| {
            self.capabilities.contains(need) || self.name == *need || self.has_member(need)
        };
        self.stages.iter().any(|name| name == stage) && needs.iter().all(has)
    }

    fn has_member(&self, name: &str) -> bool {
        self.number_of(name).is_some_and(|number| number <= self.count)
    }

    /// Returns how many agents there are when nobody and nothing asks for another number.
    #[must_use]
    pub fn least(&self) -> u32 {
        self.scale_min.unwrap_or(self.count)
    }

    /// Returns the name of an agent by its number, from 1; the first of a group that the settings
    /// give one agent has the bare name, also when a person asks for more.
    #[must_use]
    pub fn member(&self, number: u32) -> AgentName {
        if self.count == 1 && number == 1 {
            return AgentName::new(&self.name);
        }
        AgentName::new(format!("{}-{number}", self.name))
    }

    /// Returns the number of the agent so called, however high; `None`: it is of another group.
    #[must_use]
    pub fn number_of(&self, agent: &str) -> Option<u32> {
        if agent == self.name {
            return (self.count == 1).then_some(1);
        }
        let digits = agent.strip_prefix(&self.name)?.strip_prefix('-')?;
        let is_plain = digits.bytes().all(|byte| byte.is_ascii_digit()) && !digits.starts_with('0');
        let number = digits.parse().ok().filter(|_| is_plain)?;
        (self.count > 1 || number > 1).then_some(number)
    }

    /// Returns the names of its agents by the settings, in order of number.
    pub fn names(&self) -> impl Iterator<Item = AgentName> + '_ {
        (1..=self.count).map(|number| self.member(number))
    }
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
    /// Nothing: a person works there, with a shell.
    Person,
    /// What the preset of that name says when an attempt starts.
    Preset {
        name: String,
        /// Empty: the program's own choice.
        model: String,
        /// `env_allow` stands as the file has it: what the preset names does not pass by itself.
        is_env_own: bool,
    },
}

/// In what an agent's program runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum LauncherKind {
    /// A plain process.
    #[default]
    Process,
    /// A window of tmux, in which people can watch and help.
    Tmux,
}

/// How an attempt says that it is done.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Completion {
    /// A status line in the task file.
    Marker,
    /// Exit status 0 is enough.
    Exit,
}

/// `[scheduler]`, as far as it is built.
#[derive(Debug, Clone, PartialEq)]
pub struct Scheduler {
    /// Who goes first among tasks of one priority.
    pub policy: Policy,
    /// Whether an agent is preferred that knows the task's epic or files.
    pub affinity: bool,
    /// What there is of each resource, the machine's cores and memory among them.
    pub resources: Amounts,
    /// Load average above which nothing new starts; 0: no limit.
    pub load_limit: f64,
    /// Failed or empty attempts at a stage after which an agent of the next tier is asked.
    pub escalate_after: u32,
    /// Program and arguments of an external scheduler; empty: the built-in one decides.
    pub command: Vec<String>,
    /// Worktrees kept ready ahead, times agents; `None`: adopted before there was such a setting (2).
    pub prefetch: Option<f64>,
}

impl Settings {
    /// Returns how many worktrees are kept ready ahead for each agent; 0: none, and an agent has one.
    ///
    /// None where worktrees hold more than git puts there: setup and caches of a second one for each
    /// agent cost far more than a checkout that is waited for.
    #[must_use]
    pub fn prefetch(&self) -> f64 {
        let is_plain = self.worktree.setup.is_empty() && self.worktree.keep.is_empty();
        let is_due = is_plain && self.project.isolation == Isolation::Worktree;
        if is_due { self.scheduler.prefetch.unwrap_or(2.0) } else { 0.0 }
    }
}

impl Default for Scheduler {
    fn default() -> Self {
        Self {
            policy: Policy::CriticalPath,
            affinity: true,
            resources: Amounts::new(),
            load_limit: 0.0,
            escalate_after: 2,
            command: Vec::new(),
            prefetch: None,
        }
    }
}

/// Who goes first; what is in front, regressions and priorities come before, but with `Fifo`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Policy {
    /// What the longest chain of work waits for.
    CriticalPath,
    /// What was added first.
    Priority,
    /// What was added first, whatever its priority.
    Fifo,
    /// What takes the least time.
    Shortest,
}

/// `[landing]`.
#[derive(Debug, Clone, PartialEq)]
pub struct Landing {
    /// Short branch name, e.g. `pipeline/landed`.
    pub branch: String,
    /// Shell commands, run on the merged result.
    pub checks: Vec<String>,
    /// Of one check.
    pub checks_timeout_ms: u64,
    /// Globs; prompt files of stages are added by validation.
    pub protect: Vec<String>,
    /// Nothing lands before a person has allowed it.
    pub is_manual: bool,
}

/// `[rollout]`.
#[derive(Debug, Clone, PartialEq)]
pub struct RolloutRules {
    /// The pilot's tasks.
    pub pilot: Slice,
    pub gate: GateRules,
    pub fallback: FallbackRules,
}

impl Default for RolloutRules {
    fn default() -> Self {
        let (gate, fallback) = (GateRules::default(), FallbackRules::default());
        Self { pilot: Slice::Percent(100), gate, fallback }
    }
}

/// What must hold before the next rollout.
#[derive(Debug, Clone, PartialEq)]
pub struct GateRules {
    /// Tasks done since the rollout was set.
    pub completed: u32,
    /// From 0 to 1.
    pub success_rate: f64,
    /// At most so many.
    pub reverts: u32,
    /// From 0 to 1, in shadow.
    pub agreement: f64,
}

impl Default for GateRules {
    fn default() -> Self {
        Self { completed: 10, success_rate: 0.9, reverts: 0, agreement: 0.8 }
    }
}

/// When production falls back to the pilot.
#[derive(Debug, Clone, PartialEq)]
pub struct FallbackRules {
    /// Landings that are looked at, the last ones; at least 1.
    pub window: u32,
    /// From 0 to 1: more failed landings than this share of the window.
    pub failure_rate: f64,
    /// From 0 to 1; nothing is reverted as long as nothing lands unchecked.
    pub revert_rate: f64,
    /// After a fallback: none again before, and no promotion.
    pub cooldown_ms: u64,
}

impl Default for FallbackRules {
    fn default() -> Self {
        Self { window: 20, failure_rate: 0.5, revert_rate: 0.2, cooldown_ms: 3_600_000 }
    }
}

/// Which tasks a pilot acts for; closed over dependencies by the machine.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Slice {
    /// 0 to 100, by a hash of the id.
    Percent(u32),
    /// Tasks with one of these labels.
    Labels(Vec<String>),
    /// These ids.
    Tasks(Vec<String>),
}
