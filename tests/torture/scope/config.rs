//! The small scopes: two tasks, two agents, two stages, and how much may go wrong.

use std::collections::BTreeMap;

use pipeline::machine::event::{Dependents, NewTask, RetryTarget};
use pipeline::machine::id::TaskId;
use pipeline::machine::mode::{Isolation, Orchestration, Rollout};
use pipeline::machine::settings::{
    AgentCommand, AgentGroup, Completion, Landing, LauncherKind, Limits, Monitor, OnExit, Project,
    Retry, RolloutRules, Scheduler, Settings, Stage, Worktree,
};
use pipeline::machine::task::Spec;
use pipeline::machine::time::Time;
use pipeline::machine::{Command, Event, EventBody, State, apply, step};

use super::world::Flaw;

/// The one moment at which everything happens: time is a question of order here. A deadline is
/// fired at the moment it names, everything else at this one.
pub const NOW: Time = Time::from_ms(1_000_000);
/// How long a mode switch waits.
const DRAIN_MS: u64 = 3_000;

/// What may still go wrong on the way, each so many times.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub struct Budget {
    /// The monitor is killed.
    pub crashes: u8,
    /// The monitor is killed, and what it had begun goes on beside the next one.
    pub fences: u8,
    /// An agent or a check ends with a failure.
    pub failures: u8,
    /// A keeper is killed with its agent.
    pub deaths: u8,
    /// An effect fails, or is done and reported as failed.
    pub faults: u8,
    /// A merge meets a conflict.
    pub conflicts: u8,
    /// A person commits to the base.
    pub commits: u8,
}

/// One space to be explored.
#[derive(Debug, Clone)]
pub struct Config {
    pub name: &'static str,
    pub settings: Settings,
    /// The second task depends on the first.
    pub is_chained: bool,
    pub budget: Budget,
    /// Each may be asked once, at any time.
    pub commands: Vec<Command>,
    pub flaw: Flaw,
}

impl Config {
    /// Returns the state from which everything begins: both tasks are added.
    pub fn initial(&self) -> State {
        let mut state = State::new(self.settings.clone(), NOW);
        let depends_on = if self.is_chained { vec![TaskId::new("A")] } else { Vec::new() };
        let tasks = vec![new_task("A", Vec::new()), new_task("B", depends_on)];
        let body = EventBody::Command(Command::AddTasks { tasks });
        for change in step(&state, &Event { at: NOW, random: 0, body }).changes {
            apply(&mut state, &change);
        }
        assert_eq!(state.tasks.len(), 2, "both tasks are added");
        state
    }
}

fn new_task(name: &str, depends_on: Vec<TaskId>) -> NewTask {
    NewTask {
        id: Some(TaskId::new(name)),
        spec: Spec { title: name.into(), depends_on, ..Spec::default() },
        is_front: false,
        is_held: false,
        may_lack_dependencies: false,
    }
}

/// Returns every configuration, each with so many crashes.
pub fn all(crashes: u8) -> Vec<Config> {
    let plain = |name, budget| Config {
        name,
        settings: settings(),
        is_chained: true,
        budget,
        commands: Vec::new(),
        flaw: Flaw::None,
    };
    let crashed = Budget { crashes, ..Budget::default() };
    let mut checked = plain("checks", Budget { failures: 1, ..crashed });
    checked.settings.landing.checks = vec!["check".into()];
    checked.settings.stages[0].checks = vec!["check".into()];
    let mut apart = plain("independent", crashed);
    apart.is_chained = false;
    let mut found = vec![
        plain("crashes", Budget { failures: 1, ..crashed }),
        plain("deaths", Budget { deaths: 1, failures: 1, ..crashed }),
        plain("faults", Budget { faults: 1, ..crashed }),
        plain("conflicts", Budget { conflicts: 1, ..crashed }),
        plain("commits", Budget { commits: 1, ..crashed }),
        plain("two monitors", Budget { fences: 1, failures: 1, ..crashed }),
        checked,
        apart,
    ];
    for (name, commands) in asked() {
        let budget = Budget { failures: 1, ..crashed };
        found.push(Config { commands, ..plain(name, budget) });
    }
    found
}

/// Returns the alphabets of commands, with names.
fn asked() -> Vec<(&'static str, Vec<Command>)> {
    let ids = || vec![TaskId::new("A")];
    let cancel = |dependents| Command::CancelTasks { ids: ids(), dependents };
    let (target, stage, note) = (RetryTarget::Blocked, None, None);
    let retry = Command::RetryTasks { target, stage, note, is_fresh: false };
    let target = RetryTarget::Tasks(ids());
    let fresh = Command::RetryTasks { target, stage: None, note: None, is_fresh: true };
    let switch = |to, wait_ms, is_forced| Command::SwitchMode { to, wait_ms, is_forced };
    vec![
        ("cancel", vec![cancel(Dependents::Release), cancel(Dependents::Cancel)]),
        ("retry", vec![retry, fresh]),
        ("pause", vec![Command::Pause, Command::Resume]),
        (
            "modes",
            vec![
                switch(Orchestration::Sequential, None, true),
                switch(Orchestration::Sequential, Some(DRAIN_MS), false),
                switch(Orchestration::Parallel, None, true),
            ],
        ),
        ("rollout", rollout_switches()),
    ]
}

/// Returns the switch to shadow, and the one back.
pub fn rollout_switches() -> Vec<Command> {
    let switch = |to| Command::SetRollout { to, is_forced: true };
    vec![switch(Rollout::Shadow), switch(Rollout::Production)]
}

/// Returns two stages, the second of which changes nothing, and two agents for both.
pub fn settings() -> Settings {
    let stages = vec![stage("build", "bld", true), stage("review", "rev", false)];
    let agent = |name: &str| AgentGroup {
        name: name.into(),
        stages: stages.iter().map(|stage| stage.name.clone()).collect(),
        count: 1,
        scale_min: None,
        command: AgentCommand::Shell("true".into()),
        launcher: LauncherKind::Process,
        completion: Completion::Exit,
        env: BTreeMap::new(),
        env_allow: Vec::new(),
        provider: String::new(),
        capabilities: Vec::new(),
        tier: 1,
        complexity: Vec::new(),
    };
    Settings {
        hash: "0".repeat(16),
        project: Project {
            base: "main".into(),
            orchestration: Orchestration::Parallel,
            rollout: Rollout::Production,
            isolation: Isolation::Worktree,
            current_task_file: ".pipeline/current-task.txt".into(),
        },
        monitor: Monitor {
            poll_busy_ms: 15_000,
            poll_normal_ms: 30_000,
            poll_idle_ms: 60_000,
            on_exit: Some(OnExit::Leave),
            launch_rate: Some(0),
        },
        worktree: Worktree {
            dir: ".pipeline/worktrees".into(),
            setup: Vec::new(),
            copy: Vec::new(),
            keep: Vec::new(),
            keep_finished_ms: 0,
        },
        limits: Limits {
            attempts_per_stage: 2,
            infrastructure_retries: 1,
            attempts_per_task: 4,
            send_backs: 1,
            attempts_per_run: 0,
            cost_usd_micros: 0,
            cost_usd_per_task_micros: 0,
            log_bytes: 4096,
        },
        retry: Retry { first_ms: 1_000, factor: 1.0, max_ms: 1_000, jitter: 0.0 },
        agents: vec![agent("one"), agent("two")],
        stages,
        landing: Landing {
            branch: "pipeline/landed".into(),
            checks: Vec::new(),
            checks_timeout_ms: 1,
            protect: Vec::new(),
            is_manual: false,
        },
        scheduler: Scheduler::default(),
        rollout: RolloutRules::default(),
        notify: Vec::new(),
    }
}

fn stage(name: &str, short: &str, must_change: bool) -> Stage {
    Stage {
        name: name.into(),
        short: short.into(),
        prompt: None,
        must_change,
        checks: Vec::new(),
        timeout_ms: None,
        timeout_min_ms: 1,
        timeout_max_ms: 2,
        silence_ms: 0,
        labels: Vec::new(),
        returns_to: None,
        resources: Default::default(),
        estimate_ms: 1,
    }
}
