//! What a seed draws before it begins: settings, and its own mix of faults.

use std::collections::BTreeMap;

use pipeline::machine::mode::{Isolation, Orchestration, Rollout};
use pipeline::machine::settings::{
    AgentCommand, AgentGroup, Completion, Landing, LauncherKind, Limits, Monitor, OnExit, Policy,
    Project, Retry, RolloutRules, Scheduler, Settings, Slice, Stage, Worktree,
};

use super::dice::Dice;

/// How often what goes wrong, in 1000: each seed has its own.
#[derive(Debug, Clone, Default)]
pub struct Mix {
    /// An agent's or a check's end is a bad one.
    pub bad_end: u64,
    /// It leaves a process behind.
    pub leak: u64,
    /// An effect fails, before it was done or after.
    pub fault: u64,
    /// An effect is never answered.
    pub hang: u64,
    /// An answer comes once more.
    pub repeat: u64,
    /// A merge conflicts; the base does with what has landed.
    pub conflict: u64,
    /// A landing touches protected paths.
    pub protected: u64,
    /// The base's checkout refuses.
    pub refusal: u64,
    /// An attempt's record cannot be read.
    pub unreadable: u64,
    /// A report of a keeper is not passed on.
    pub deaf: u64,
    /// An order comes late.
    pub late: u64,
    /// An order is lost with its connection, or with the keeper that is started for it.
    pub cut: u64,
    /// A worktree's setup fails.
    pub setup: u64,
}

impl Mix {
    /// Draws one; most seeds lack most faults, so that each meets the others alone.
    pub fn draw(dice: &mut Dice) -> Self {
        fn drawn(dice: &mut Dice, most: usize) -> u64 {
            match dice.below(3) {
                0 => 0,
                1 => 1 + dice.below(most / 8 + 1) as u64,
                _ => 1 + dice.below(most) as u64,
            }
        }
        // Drawn apart, so that old seeds draw the rest as ever.
        let mut more = Dice(dice.0 ^ 0x0f47_e500);
        let mut some = |most: usize| drawn(dice, most);
        Self {
            bad_end: some(600),
            leak: some(100),
            fault: some(250),
            hang: some(40),
            repeat: some(150),
            conflict: some(600),
            protected: some(150),
            refusal: some(400),
            unreadable: some(100),
            deaf: some(150),
            late: drawn(&mut more, 800),
            cut: drawn(&mut more, 150),
            setup: drawn(&mut more, 300),
        }
    }
}

fn stage(name: &str, short: &str, must_change: bool) -> Stage {
    Stage {
        name: name.into(),
        short: short.into(),
        prompt: None,
        must_change,
        checks: Vec::new(),
        timeout_ms: Some(30_000),
        timeout_min_ms: 1,
        timeout_max_ms: 30_000,
        silence_ms: 0,
        labels: Vec::new(),
        returns_to: None,
        resources: Default::default(),
        estimate_ms: 1,
    }
}

fn group(name: &str, stages: Vec<String>, count: usize, completion: Completion) -> AgentGroup {
    AgentGroup {
        name: name.into(),
        stages,
        count: count as u32,
        scale_min: None,
        command: AgentCommand::Shell("true".into()),
        launcher: LauncherKind::Process,
        completion,
        env: BTreeMap::new(),
        env_allow: Vec::new(),
        provider: String::new(),
        capabilities: Vec::new(),
        tier: 1,
        complexity: Vec::new(),
    }
}

fn plain() -> Settings {
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
            attempts_per_stage: 3,
            infrastructure_retries: 5,
            attempts_per_task: 12,
            send_backs: 2,
            attempts_per_run: 0,
            cost_usd_micros: 0,
            cost_usd_per_task_micros: 0,
            log_bytes: 4096,
        },
        retry: Retry { first_ms: 5_000, factor: 2.0, max_ms: 300_000, jitter: 0.1 },
        stages: vec![
            stage("architect", "arch", false),
            stage("test", "test", true),
            stage("implementation", "impl", true),
            stage("supervisor", "super", false),
        ],
        agents: Vec::new(),
        landing: Landing {
            branch: "pipeline/landed".into(),
            checks: Vec::new(),
            checks_timeout_ms: 30_000,
            protect: Vec::new(),
            is_manual: false,
        },
        scheduler: Scheduler::default(),
        rollout: RolloutRules::default(),
        notify: Vec::new(),
    }
}

/// Draws what came later, by dice of its own, so that old seeds draw the rest as ever.
fn more(new: &mut Settings, mut more: Dice) {
    for group in &mut new.agents {
        group.tier = 1 + more.below(3) as u32;
        let words = ["simple", "moderate", "complex"].map(str::to_owned);
        group.complexity = more.pick(&words).filter(|_| more.permille(300)).into_iter().collect();
    }
    new.scheduler.escalate_after = 1 + more.below(2) as u32;
    new.scheduler.load_limit = if more.permille(400) { 1.0 } else { 0.0 };
    if more.permille(250) {
        new.scheduler.command = vec!["scheduler".into()];
    }
    for group in &mut new.agents {
        if more.permille(350) {
            group.count = 1 + more.below(3) as u32;
            group.scale_min = Some(more.below(group.count as usize + 1) as u32);
        }
    }
    for group in &mut new.agents {
        if more.permille(400) {
            group.launcher = LauncherKind::Tmux;
        }
        group.provider = ["", "one", "two"][more.below(3)].into();
    }
    // Enough for a few attempts of those that `purse::cost_of` draws.
    let limits = &mut new.limits;
    if more.permille(300) {
        limits.cost_usd_micros = 1 + more.below(3_000_000) as u64;
    }
    if more.permille(300) {
        limits.cost_usd_per_task_micros = 1 + more.below(1_500_000) as u64;
    }
    if more.permille(400) {
        let fallback = &mut new.rollout.fallback;
        fallback.window = 2 + more.below(4) as u32;
        fallback.failure_rate = 0.3;
        fallback.cooldown_ms = 1_000 * more.below(600) as u64;
    }
}

/// Draws settings; `old`: those they replace in a project that exists.
pub fn settings(dice: &mut Dice, old: Option<&Settings>) -> Settings {
    let mut new = plain();
    let from = dice.below(3);
    let to = from + 1 + dice.below(4 - from);
    new.stages = new.stages[from..to].to_vec();
    for stage in &mut new.stages {
        if dice.permille(300) {
            stage.checks = vec!["check".into()];
        }
        if dice.permille(100) {
            stage.labels = vec!["pilot".into()];
        }
        if dice.permille(100) {
            stage.resources.insert("db".into(), 1000);
        }
    }
    let all: Vec<String> = new.stages.iter().map(|stage| stage.name.clone()).collect();
    for name in &all {
        let completion = if dice.permille(150) { Completion::Exit } else { Completion::Marker };
        new.agents.push(group(name, vec![name.clone()], 1 + dice.below(2), completion));
    }
    if dice.permille(500) {
        let mut wide = group("wide", all, 1 + dice.below(2), Completion::Marker);
        wide.capabilities = vec!["gpu".into()];
        new.agents.push(wide);
    }
    for _ in 0..dice.below(3) {
        new.landing.checks.push(format!("check {}", dice.below(3)));
    }
    new.monitor.launch_rate = dice.pick(&[None, Some(0), Some(1), Some(3)]).unwrap_or(None);
    let limits = &mut new.limits;
    limits.attempts_per_stage = 1 + dice.below(3) as u32;
    limits.infrastructure_retries = dice.below(4) as u32;
    limits.attempts_per_task = 3 + dice.below(6) as u32;
    limits.send_backs = dice.below(3) as u32;
    limits.attempts_per_run = if dice.permille(150) { 10 } else { 0 };
    let slices = [
        Slice::Percent(50),
        Slice::Labels(vec!["pilot".into()]),
        Slice::Tasks(vec!["T1".into(), "T3".into()]),
    ];
    new.rollout.pilot = slices[dice.below(3)].clone();
    let project = &mut new.project;
    let wide = Orchestration::Parallel;
    let modes = [Orchestration::Sequential, Orchestration::Hybrid, wide, wide];
    project.orchestration = modes[dice.below(4)];
    let policies = [Policy::CriticalPath, Policy::Priority, Policy::Fifo, Policy::Shortest];
    new.scheduler.policy = policies[dice.below(4)];
    new.scheduler.resources.insert("db".into(), 1000 + 1000 * dice.below(2) as u64);
    let later = Dice(dice.0 ^ 0x71e5);
    let wide = Rollout::Production;
    project.rollout = [Rollout::Shadow, Rollout::Pilot, wide, wide, wide, wide][dice.below(6)];
    if dice.permille(100) {
        project.isolation = Isolation::None;
    }
    if let Some(old) = old {
        project.isolation = old.project.isolation;
        // Lower limits would find tasks beyond them already.
        new.limits = old.limits.clone();
    }
    more(&mut new, later);
    new
}

/// Draws what came last; `old`: those they replace. Seeds that failed before that go without.
pub fn newest(new: &mut Settings, old: Option<&Settings>, mut dice: Dice) {
    new.landing.is_manual = dice.permille(200);
    for place in 1..new.stages.len() {
        let to = new.stages[dice.below(place)].name.clone();
        new.stages[place].returns_to = dice.permille(700).then_some(to);
    }
    if old.is_some() && dice.permille(500) {
        // Not lower: who is beyond them has one more attempt before it is blocked.
        let limits = &mut new.limits;
        limits.attempts_per_stage += dice.below(2) as u32;
        limits.infrastructure_retries += dice.below(2) as u32;
        limits.attempts_per_task += dice.below(3) as u32;
        limits.send_backs += dice.below(2) as u32;
        limits.attempts_per_run = [0, 5, 20][dice.below(3)];
    }
    if dice.permille(250) {
        new.worktree.setup.push(format!("setup {}", dice.below(2)));
    }
}
