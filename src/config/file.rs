//! The keys of `pipeline.toml`, each with its default: the file read into [`Settings`].
//!
//! Looks at one key at a time; what several keys must agree on is in [`super::validate`].

use crate::machine::amount::{self, Amounts};
use crate::machine::mode::{Isolation, Orchestration, Rollout};
use crate::machine::preset::ENV_ALLOW;
use crate::machine::settings::{
    AgentCommand, AgentGroup, Completion, FallbackRules, GROUP_AGENTS_MAX, GateRules, Landing,
    LauncherKind, Limits, Monitor, OnExit, Policy, Project, Retry, RolloutRules, Scheduler,
    Settings, Slice, Stage, Worktree,
};

use crate::sys::machine;

use super::reader::Section;

/// What the file says, with the tables it said it in.
#[derive(Debug)]
pub struct Read<'a> {
    /// Complete, but what keys must agree on is not yet looked at.
    pub settings: Settings,
    /// Where to report problems of `[project]`.
    pub project: Section<'a>,
    /// Where to report problems of `[worktree]`.
    pub worktree: Section<'a>,
    /// As long as `settings.stages`, or empty when the four default stages are used.
    pub stages: Vec<Section<'a>>,
    /// As long as `settings.agents`.
    pub agents: Vec<Section<'a>>,
    /// Where to report problems of `[landing]`.
    pub landing: Section<'a>,
    /// Where to report problems of `[rollout]`.
    pub rollout: Section<'a>,
}

/// The stages of a file that names none: name and short name, in order.
pub const DEFAULT_STAGES: [(&str, &str); 4] =
    [("architect", "arch"), ("test", "test"), ("implementation", "impl"), ("supervisor", "super")];

/// Reads every key below the root; problems go to the root's report.
#[must_use]
pub fn read<'a>(root: &mut Section<'a>, hash: String) -> Read<'a> {
    // Looked at by the caller, before anything else.
    root.has("requires");
    let (project, project_at) = project(root.section("project"));
    let monitor = monitor(root.section("monitor"));
    let (worktree, worktree_at) = worktree(root.section("worktree"));
    let limits = limits(root.section("limits"));
    let retry = retry(root.section("retry"));
    let (stages, stages_at) = stages(root);
    let (agents, agents_at) = root.sections("agent").into_iter().map(agent).unzip();
    let scheduler = scheduler(root.section("scheduler"));
    let (landing, landing_at) = landing(root.section("landing"));
    let (rollout, rollout_at) = rollout(root.section("rollout"));
    let notify = notify(root.section("notify"));
    root.finish();
    Read {
        settings: Settings {
            hash,
            project,
            monitor,
            worktree,
            limits,
            retry,
            stages,
            agents,
            scheduler,
            landing,
            rollout,
            notify,
        },
        project: project_at,
        worktree: worktree_at,
        stages: stages_at,
        agents: agents_at,
        landing: landing_at,
        rollout: rollout_at,
    }
}

fn project(mut at: Section<'_>) -> (Project, Section<'_>) {
    let project = Project {
        base: at.string("base").unwrap_or_else(|| "main".into()),
        orchestration: at.word(
            "orchestration_mode",
            Orchestration::Parallel,
            &[
                ("parallel", Some(Orchestration::Parallel)),
                ("sequential", Some(Orchestration::Sequential)),
                ("hybrid", Some(Orchestration::Hybrid)),
            ],
        ),
        rollout: at.word(
            "rollout",
            Rollout::Production,
            &[
                ("production", Some(Rollout::Production)),
                ("pilot", Some(Rollout::Pilot)),
                ("shadow", Some(Rollout::Shadow)),
            ],
        ),
        isolation: at.word(
            "isolation",
            Isolation::Worktree,
            &[("worktree", Some(Isolation::Worktree)), ("none", Some(Isolation::None))],
        ),
        current_task_file: at
            .string("current_task_file")
            .unwrap_or_else(|| ".pipeline/current-task.txt".into()),
    };
    at.finish();
    (project, at)
}

/// Polling more often than this is a busy loop, not a safety net.
const POLL_MS_MIN: u64 = 10;

fn monitor(mut at: Section<'_>) -> Monitor {
    let mut poll = at.section("poll");
    let monitor = Monitor {
        poll_busy_ms: poll.duration_ms("busy", "15s", POLL_MS_MIN),
        poll_normal_ms: poll.duration_ms("normal", "30s", POLL_MS_MIN),
        poll_idle_ms: poll.duration_ms("idle", "60s", POLL_MS_MIN),
        on_exit: at.word(
            "on_exit",
            None,
            &[
                ("leave", Some(Some(OnExit::Leave))),
                ("drain", Some(Some(OnExit::Drain))),
                ("kill", Some(Some(OnExit::Kill))),
            ],
        ),
        launch_rate: if at.has("launch_rate") {
            Some(at.integer("launch_rate", 10, 0..=100_000))
        } else {
            None
        },
    };
    poll.finish();
    at.finish();
    monitor
}

fn worktree(mut at: Section<'_>) -> (Worktree, Section<'_>) {
    let worktree = Worktree {
        dir: at.string("dir").unwrap_or_else(|| ".pipeline/worktrees".into()),
        setup: at.strings("setup").unwrap_or_default(),
        copy: at.strings("copy").unwrap_or_default(),
        keep: at.strings("keep").unwrap_or_default(),
        keep_finished_ms: at.duration_ms("keep_finished", "7d", 0),
    };
    at.finish();
    (worktree, at)
}

/// Less than this holds no head and tail worth reading.
const LOG_BYTES_MIN: u64 = 4096;

/// The greatest bound on a cost, in dollars.
const COST_USD_MAX: f64 = 1e9;

/// Returns dollars as millionths; what is more than nothing stays so, since 0 means no limit.
fn micros(usd: f64) -> u64 {
    let micros = (usd * 1e6).round() as u64;
    if usd > 0.0 { micros.max(1) } else { 0 }
}

fn limits(mut at: Section<'_>) -> Limits {
    let limits = Limits {
        attempts_per_stage: at.integer("attempts_per_stage", 3, 1..=10_000),
        infrastructure_retries: at.integer("infrastructure_retries", 5, 0..=10_000),
        attempts_per_task: at.integer("attempts_per_task", 12, 1..=100_000),
        send_backs: at.integer("send_backs", 2, 0..=10_000),
        attempts_per_run: at.integer("attempts_per_run", 0, 0..=u32::MAX),
        cost_usd_micros: micros(at.float("cost_usd", 0.0, 0.0..=COST_USD_MAX)),
        cost_usd_per_task_micros: micros(at.float("cost_usd_per_task", 0.0, 0.0..=COST_USD_MAX)),
        log_bytes: at.bytes("log_bytes", 16 << 20, LOG_BYTES_MIN),
    };
    at.finish();
    limits
}

fn retry(mut at: Section<'_>) -> Retry {
    let mut backoff = at.section("backoff");
    let retry = Retry {
        first_ms: backoff.duration_ms("first", "5s", 0),
        factor: backoff.float("factor", 2.0, 1.0..=1000.0),
        max_ms: backoff.duration_ms("max", "5m", 0),
        jitter: backoff.float("jitter", 0.1, 0.0..=1.0),
    };
    backoff.finish();
    at.finish();
    retry
}

fn stages<'a>(root: &mut Section<'a>) -> (Vec<Stage>, Vec<Section<'a>>) {
    let sections = root.sections("stage");
    if !sections.is_empty() {
        return sections.into_iter().map(stage).unzip();
    }
    let default = |(name, short): (&str, &str)| Stage {
        name: name.into(),
        short: short.into(),
        prompt: None,
        must_change: must_change(name),
        checks: Vec::new(),
        timeout_ms: None,
        timeout_min_ms: 30 * 60 * 1000,
        timeout_max_ms: 2 * 3600 * 1000,
        silence_ms: 10 * 60 * 1000,
        labels: Vec::new(),
        returns_to: None,
        resources: Amounts::new(),
        estimate_ms: 10 * 60 * 1000,
    };
    (DEFAULT_STAGES.into_iter().map(default).collect(), Vec::new())
}

/// Two of the default stages only read and write down what they think.
fn must_change(stage: &str) -> bool {
    stage != "architect" && stage != "supervisor"
}

fn stage(mut at: Section<'_>) -> (Stage, Section<'_>) {
    let name = at.string("name").unwrap_or_else(|| {
        at.missing("name", "the name of the stage");
        String::new()
    });
    let known = DEFAULT_STAGES.into_iter().find(|(long, _)| *long == name);
    let short = at.string("short").unwrap_or_else(|| known.map_or(&*name, |(_, s)| s).to_owned());
    let stage = Stage {
        short,
        prompt: at.string("prompt"),
        must_change: at.boolean("must_change", must_change(&name)),
        checks: at.strings("checks").unwrap_or_default(),
        timeout_ms: timeout(&mut at),
        timeout_min_ms: at.duration_ms("timeout_min", "30m", 1),
        timeout_max_ms: at.duration_ms("timeout_max", "2h", 1),
        silence_ms: at.duration_ms("silence", "10m", 1),
        labels: at.strings("labels").unwrap_or_default(),
        returns_to: at.string("returns_to").filter(|stage| !stage.is_empty()),
        resources: at.amounts("resources"),
        estimate_ms: at.duration_ms("estimate", "10m", 1),
        name,
    };
    at.finish();
    (stage, at)
}

fn timeout(at: &mut Section<'_>) -> Option<u64> {
    match at.string("timeout").as_deref() {
        None | Some("auto") => None,
        Some(_) => Some(at.duration_ms("timeout", "2h", 1)),
    }
}

fn agent(mut at: Section<'_>) -> (AgentGroup, Section<'_>) {
    let name = at.string("name").unwrap_or_else(|| {
        at.missing("name", "the name of the agent");
        String::new()
    });
    let stages = at.strings("stages").unwrap_or_else(|| {
        at.missing("stages", "the stages that the agent serves");
        Vec::new()
    });
    at.word("sandbox", (), &[("none", Some(())), ("landlock", None), ("bwrap", None)]);
    let (count, scale_min) = count(&mut at);
    let command = command(&mut at);
    let is_preset = matches!(command, AgentCommand::Preset { .. });
    let launcher = launcher(&mut at, &command);
    let has_marker = is_preset || command == AgentCommand::Person;
    let completion = if has_marker { Completion::Marker } else { Completion::Exit };
    let env_allow = match is_preset {
        true => ENV_ALLOW.map(str::to_owned).to_vec(),
        false => vec!["*".into()],
    };
    let group = AgentGroup {
        name,
        stages,
        count,
        scale_min,
        command,
        launcher,
        completion: at.word(
            "completion",
            completion,
            &[("marker", Some(Completion::Marker)), ("exit", Some(Completion::Exit))],
        ),
        env: at.section("env").all_strings().into_iter().collect(),
        env_allow: at.strings("env_allow").unwrap_or(env_allow),
        provider: at.string("provider").unwrap_or_default(),
        capabilities: at.strings("capabilities").unwrap_or_default(),
        tier: at.integer("tier", 1, 1..=1000),
        complexity: at.strings("complexity").unwrap_or_default(),
    };
    at.finish();
    (group, at)
}

/// Reads `launcher`; a person has a window in any case.
fn launcher(at: &mut Section<'_>, command: &AgentCommand) -> LauncherKind {
    let words = [("process", Some(LauncherKind::Process)), ("tmux", Some(LauncherKind::Tmux))];
    let is_person = *command == AgentCommand::Person;
    let default = if is_person { LauncherKind::Tmux } else { LauncherKind::Process };
    let launcher = at.word("launcher", default, &words);
    if is_person && launcher == LauncherKind::Process {
        at.wrong_value("launcher", "process", "\"tmux\" for a person, who works in a window");
    }
    launcher
}

/// Reads `count` or `scale`: the most agents, and the least where the queues decide.
fn count(at: &mut Section<'_>) -> (u32, Option<u32>) {
    let count = at.integer("count", 1, 1..=GROUP_AGENTS_MAX);
    if !at.has("scale") {
        return (count, None);
    }
    if count != 1 {
        let expected = "left out beside `scale`, whose `max` says how many there may be";
        at.wrong_value("count", &count.to_string(), expected);
    }
    let mut scale = at.section("scale");
    if !at.is_table("scale") {
        return (count, None);
    }
    let least = scale.integer("min", 1, 0..=GROUP_AGENTS_MAX);
    if !scale.has("max") {
        scale.missing("max", "the most agents that there may be");
    }
    let most = scale.integer("max", least.max(1), 1..=GROUP_AGENTS_MAX);
    if least > most {
        scale.wrong_value("min", &least.to_string(), "at most `max`");
    }
    scale.finish();
    (most, Some(least))
}

/// Reads `preset` with its `model`, or `command`; where it is wrong the value returned is of no use,
/// the report says so.
fn command(at: &mut Section<'_>) -> AgentCommand {
    const EXPECTED: &str = "a program with arguments, a shell line, \"task\" or \"person\"";
    let (has_preset, has_command) = (at.has("preset"), at.has("command"));
    let model = at.string("model");
    if has_preset {
        let name = at.string("preset").unwrap_or_default();
        if has_command {
            at.wrong_value(
                "command",
                "…",
                "left out beside `preset`: one of them says what to run",
            );
        }
        if name == "person" {
            return AgentCommand::Person;
        }
        let is_env_own = at.has("env_allow");
        let model = model.unwrap_or_default();
        return AgentCommand::Preset { name, model, is_env_own };
    }
    if let Some(model) = model {
        at.wrong_value("model", &model, "left out without a `preset`");
    }
    if !has_command {
        at.missing("preset", "the program to use, or `command`: what to run");
        return AgentCommand::Task;
    }
    if at.is_list("command") {
        let argv = at.raw_strings("command");
        if argv.first().is_none_or(|program| program.trim().is_empty()) {
            at.wrong_value("command", "[]", EXPECTED);
        }
        return AgentCommand::Argv(argv);
    }
    match at.string("command") {
        Some(text) if text == "task" => AgentCommand::Task,
        Some(text) if text == "person" => AgentCommand::Person,
        Some(text) => {
            if text.trim().is_empty() {
                at.wrong_value("command", &text, EXPECTED);
            }
            AgentCommand::Shell(text)
        }
        None => AgentCommand::Task,
    }
}

fn scheduler(mut at: Section<'_>) -> Scheduler {
    let policies = [
        ("critical-path", Some(Policy::CriticalPath)),
        ("priority", Some(Policy::Priority)),
        ("fifo", Some(Policy::Fifo)),
        ("shortest", Some(Policy::Shortest)),
    ];
    let mut resources = at.amounts("resources");
    resources.entry(amount::CPU.into()).or_insert(machine::cores() * 1000);
    if let Some(bytes) = machine::memory_bytes() {
        resources.entry(amount::MEMORY.into()).or_insert(bytes);
    }
    let scheduler = Scheduler {
        policy: at.word("policy", Policy::CriticalPath, &policies),
        affinity: at.boolean("affinity", true),
        resources,
        load_limit: at.float("load_limit", 0.0, 0.0..=1_000_000.0),
        escalate_after: at.integer("escalate_after", 2, 1..=10_000),
        command: program(&mut at),
        prefetch: Some(at.float("prefetch", 2.0, 0.0..=1_000.0)),
    };
    at.finish();
    scheduler
}

fn notify(mut at: Section<'_>) -> Vec<String> {
    let command = program(&mut at);
    at.finish();
    command
}

/// Reads `command`, a program of the user's with its arguments; empty: there is none.
fn program(at: &mut Section<'_>) -> Vec<String> {
    const EXPECTED: &str = "a program with arguments, as a list";
    if !at.is_list("command") {
        return at.strings("command").unwrap_or_default();
    }
    let argv = at.raw_strings("command");
    if argv.first().is_some_and(|program| program.trim().is_empty()) {
        at.wrong_value("command", &argv[0], EXPECTED);
    }
    argv
}

fn landing(mut at: Section<'_>) -> (Landing, Section<'_>) {
    let strategies = [("verified", Some(false)), ("optimistic", None), ("manual", Some(true))];
    let is_manual = at.word("strategy", false, &strategies);
    at.word("style", (), &[("merge", Some(())), ("squash", None)]);
    let landing = Landing {
        branch: at.string("branch").unwrap_or_else(|| "pipeline/landed".into()),
        checks: at.strings("checks").unwrap_or_default(),
        checks_timeout_ms: at.duration_ms("checks_timeout", "30m", 1),
        protect: at
            .strings("protect")
            .unwrap_or_else(|| vec!["pipeline.toml".into(), ".github/**".into()]),
        is_manual,
    };
    at.finish();
    (landing, at)
}

/// The landings of a window are kept in the state, one by one.
const FALLBACK_WINDOW_MAX: u32 = 1000;

fn rollout(mut at: Section<'_>) -> (RolloutRules, Section<'_>) {
    let mut gate = at.section("gate");
    let gate_rules = GateRules {
        completed: gate.integer("completed", 10, 0..=1_000_000),
        success_rate: gate.float("success_rate", 0.9, 0.0..=1.0),
        reverts: gate.integer("reverts", 0, 0..=1_000_000),
        agreement: gate.float("agreement", 0.8, 0.0..=1.0),
    };
    gate.finish();
    let mut fallback = at.section("fallback");
    let fallback_rules = FallbackRules {
        window: fallback.integer("window", 20, 1..=FALLBACK_WINDOW_MAX),
        failure_rate: fallback.float("failure_rate", 0.5, 0.0..=1.0),
        revert_rate: fallback.float("revert_rate", 0.2, 0.0..=1.0),
        cooldown_ms: fallback.duration_ms("cooldown", "1h", 0),
    };
    fallback.finish();
    let pilot = pilot(&mut at);
    at.finish();
    (RolloutRules { pilot, gate: gate_rules, fallback: fallback_rules }, at)
}

fn pilot(at: &mut Section<'_>) -> Slice {
    let mut pilot = at.section("pilot");
    let given: Vec<&str> =
        ["percent", "labels", "tasks"].into_iter().filter(|key| pilot.has(key)).collect();
    let slice = if pilot.has("labels") {
        Slice::Labels(pilot.strings("labels").unwrap_or_default())
    } else if pilot.has("tasks") {
        Slice::Tasks(pilot.strings("tasks").unwrap_or_default())
    } else {
        Slice::Percent(pilot.integer("percent", 100, 0..=100))
    };
    if given.len() > 1 {
        let expected = "one of `percent`, `labels` and `tasks`";
        at.wrong_value("pilot", &given.join("`, `"), expected);
    }
    pilot.finish();
    slice
}
