//! A pipeline in memory for tests: events in, state out.

use std::collections::BTreeMap;

use crate::machine::attempt::{AttemptPhase, EndedBy, Exit, Marker};
use crate::machine::change::Change;
use crate::machine::event::NewTask;
use crate::machine::id::{AgentName, AttemptId, Oid, TaskId};
use crate::machine::mode::{Isolation, Orchestration, Rollout};
use crate::machine::settings::{
    AgentCommand, AgentGroup, Completion, Landing, LauncherKind, Limits, Monitor, OnExit, Project,
    Retry, RolloutRules, Scheduler, Settings, Stage, Worktree,
};
use crate::machine::task::Spec;
use crate::machine::time::Time;
use crate::machine::{Answer, Command, Event, EventBody, Observation, State, apply, step};

fn stage(name: &str, short: &str, must_change: bool) -> Stage {
    Stage {
        name: name.into(),
        short: short.into(),
        prompt: None,
        must_change,
        checks: Vec::new(),
        timeout_ms: None,
        timeout_min_ms: 1_800_000,
        timeout_max_ms: 7_200_000,
        silence_ms: 600_000,
        labels: Vec::new(),
        returns_to: None,
        resources: Default::default(),
        estimate_ms: 600_000,
    }
}

fn agent(stage: &str, count: u32) -> AgentGroup {
    AgentGroup {
        name: stage.into(),
        stages: vec![stage.into()],
        count,
        scale_min: None,
        command: AgentCommand::Shell("true".into()),
        launcher: LauncherKind::Process,
        completion: Completion::Exit,
        env: BTreeMap::new(),
        env_allow: vec!["*".into()],
        provider: String::new(),
        capabilities: Vec::new(),
        tier: 1,
        complexity: Vec::new(),
    }
}

/// Four stages, an agent for each, two for the implementation; no checks.
pub(crate) fn settings() -> Settings {
    Settings {
        hash: "0000000000000001".into(),
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
            launch_rate: None,
        },
        worktree: Worktree {
            dir: ".pipeline/worktrees".into(),
            setup: Vec::new(),
            copy: Vec::new(),
            keep: Vec::new(),
            keep_finished_ms: 604_800_000,
        },
        limits: Limits {
            attempts_per_stage: 3,
            infrastructure_retries: 5,
            attempts_per_task: 12,
            send_backs: 2,
            attempts_per_run: 0,
            cost_usd_micros: 0,
            cost_usd_per_task_micros: 0,
            log_bytes: 16 << 20,
        },
        retry: Retry { first_ms: 5_000, factor: 2.0, max_ms: 300_000, jitter: 0.0 },
        stages: vec![
            stage("architect", "arch", false),
            stage("test", "test", true),
            stage("implementation", "impl", true),
            stage("supervisor", "super", false),
        ],
        agents: vec![
            agent("architect", 1),
            agent("test", 1),
            agent("implementation", 2),
            agent("supervisor", 1),
        ],
        landing: Landing {
            branch: "pipeline/landed".into(),
            checks: Vec::new(),
            checks_timeout_ms: 1_800_000,
            protect: vec!["pipeline.toml".into()],
            is_manual: false,
        },
        scheduler: Scheduler::default(),
        rollout: RolloutRules::default(),
        notify: Vec::new(),
    }
}

/// A task to be added, with what it depends on.
pub(crate) fn task(id: &str, depends_on: &[&str]) -> NewTask {
    NewTask {
        id: Some(TaskId::new(id)),
        spec: Spec {
            title: format!("Title of {id}"),
            depends_on: depends_on.iter().map(TaskId::new).collect(),
            ..Spec::default()
        },
        is_front: false,
        is_held: false,
        may_lack_dependencies: true,
    }
}

/// A pipeline in which `architect` works beside `second`, which is busy with `Z`; what fails is tried
/// again after ten minutes.
pub(crate) fn with_second(names: &[&str]) -> Pipeline {
    let mut settings = settings();
    settings.retry.first_ms = 600_000;
    settings.retry.max_ms = 600_000;
    settings.agents.push(AgentGroup { name: "second".into(), ..settings.agents[0].clone() });
    let mut busy = task("Z", &[]);
    busy.spec.needs = vec!["second".into()];
    let tasks = std::iter::once(busy).chain(names.iter().map(|name| task(name, &[])));
    Pipeline::started(settings, tasks.collect())
}

/// A commit id of 40 times the same character.
pub(crate) fn oid(digit: char) -> Oid {
    Oid::new(digit.to_string().repeat(40))
}

/// How an attempt ends in a test.
pub(crate) enum End<'a> {
    Done,
    Status(i32),
    Says(Marker),
    Tail(i32, &'a str),
}

/// The state with a clock that stands until it is set forward.
pub(crate) struct Pipeline {
    pub(crate) state: State,
    pub(crate) now: Time,
    pub(crate) seq: u64,
    /// Changes of the last event.
    pub(crate) last: Vec<Change>,
}

impl Pipeline {
    /// 2026-11-20 23:00 UTC; no monitor yet.
    pub(crate) fn new(settings: Settings) -> Self {
        let now = Time::from_ms(1_795_215_600_000);
        Self { state: State::new(settings, now), now, seq: 0, last: Vec::new() }
    }

    /// A monitor runs, the base is known; the tasks are added and what can be is assigned.
    pub(crate) fn started(settings: Settings, tasks: Vec<NewTask>) -> Self {
        let mut pipeline = Self::new(settings);
        pipeline.see(Observation::MonitorStarted { pid: 4711, allows_red_base: false });
        pipeline.see(Observation::BaseSeen { tip: oid('a'), landed: None });
        pipeline.see(Observation::BaseTaken { base: oid('a'), landed: oid('a'), has_all: true });
        pipeline.send(Command::AddTasks { tasks });
        pipeline.turn();
        pipeline
    }

    pub(crate) fn feed(&mut self, body: EventBody) -> Answer {
        let event = Event { at: self.now, random: 0, body };
        let decided = step(&self.state, &event);
        for change in &decided.changes {
            apply(&mut self.state, change);
        }
        self.seq += u64::from(!decided.changes.is_empty());
        self.last = decided.changes;
        decided.answer
    }

    pub(crate) fn send(&mut self, command: Command) {
        let answer = self.feed(EventBody::Command(command));
        assert!(!matches!(answer, Answer::Refuse(_)), "{answer:?}");
    }

    pub(crate) fn see(&mut self, seen: Observation) {
        let answer = self.feed(EventBody::Observation(seen));
        assert_eq!(answer, Answer::Accept);
    }

    /// Repeats the turn until it decides nothing more.
    pub(crate) fn turn(&mut self) {
        for round in 0.. {
            assert!(round < 1000, "turns do not end");
            self.feed(EventBody::Turn { nonces: vec![7; 8] });
            if self.last.is_empty() {
                return;
            }
        }
    }

    pub(crate) fn pass(&mut self, ms: u64) {
        self.now = self.now.plus_ms(ms);
    }

    /// Prepares and starts the live attempt.
    pub(crate) fn start(&mut self, id: &str) {
        let attempt = AttemptId::new(id);
        let (base, tip) = (Some(oid('a')), Some(oid('a')));
        self.see(Observation::Prepared { attempt: attempt.clone(), base, tip });
        let at = self.now;
        self.see(Observation::Started { attempt, at });
    }

    /// Starts the live attempt, lets a minute pass and ends it.
    pub(crate) fn run(&mut self, id: &str, end: End<'_>) {
        if self.state.attempts[&AttemptId::new(id)].phase == AttemptPhase::Preparing {
            self.start(id);
        }
        let started_at = self.now;
        self.pass(60_000);
        let (code, marker, tail) = match end {
            End::Done => (0, None, ""),
            End::Status(code) => (code, None, ""),
            End::Says(marker) => (0, Some(marker), ""),
            End::Tail(code, tail) => (code, None, tail),
        };
        let exit = Exit {
            started_at,
            ended_at: self.now,
            code: Some(code),
            signal: None,
            ended_by: EndedBy::Exit,
            command_index: 0,
            leaked: 0,
            cpu_ms: 10,
            rss_kib_max: 1,
            usage: crate::machine::usage::Usage::default(),
            fault: None,
            marker,
            notes: String::new(),
            tail: tail.into(),
        };
        let attempt = AttemptId::new(id);
        self.see(Observation::Exited { attempt: attempt.clone(), exit: Box::new(exit) });
        let Some(live) = self.state.attempts.get(&attempt) else { return };
        if live.phase == AttemptPhase::Saving {
            let commit = Some(oid('b'));
            let (has_changed, markers) = (true, Vec::new());
            self.see(Observation::Saved {
                attempt: attempt.clone(),
                commit,
                has_changed,
                markers,
                notes: Vec::new(),
                lacks: None,
            });
        }
        let phase = self.state.attempts.get(&attempt).map(|attempt| attempt.phase);
        if phase == Some(AttemptPhase::Advancing) {
            self.see(Observation::Advanced { attempt, changed: None });
        }
    }

    /// Takes a task through all four stages, so that it stands in the lane.
    pub(crate) fn run_stages(&mut self, id: &str) {
        self.turn();
        self.run(&format!("{id}.arch.1"), End::Done);
        self.run_rest(id);
    }

    /// Takes a task through the stages after the first.
    pub(crate) fn run_rest(&mut self, id: &str) {
        for short in ["test", "impl", "super"] {
            self.turn();
            self.run(&format!("{id}.{short}.1"), End::Done);
        }
    }

    /// Lands the task whose landing is under way.
    pub(crate) fn land(&mut self, id: &str) {
        self.turn();
        let task = TaskId::new(id);
        let onto = self.state.base.landed.clone().expect("the base is known");
        let (number, commit, protected) = (1, oid('c'), Vec::new());
        let merged = Observation::Merged { task: task.clone(), number, commit, onto, protected };
        self.see(merged);
        self.see(Observation::Landed { task, number, commit: oid('c') });
    }

    pub(crate) fn pause_agent(&mut self, name: &str) {
        self.send(Command::PauseAgent { name: AgentName::new(name) });
    }
}
