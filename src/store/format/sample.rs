//! One of everything, for tests: every kind of change with every variant of what it carries.

use std::collections::BTreeMap;

use crate::machine::Change;
use crate::machine::attempt::{
    Attempt, AttemptKind, AttemptPhase, Class, EndedBy, Exit, Fault, FaultKind, Marker, Outcome,
    Tries,
};
use crate::machine::breaker::Breaker;
use crate::machine::change::{AttemptChange, LaneChange, ProjectChange, Steer, TaskChange};
use crate::machine::crew::Target;
use crate::machine::event::StopKind;
use crate::machine::id::{AgentName, AttemptId, Oid, StageName, TaskId};
use crate::machine::lane::{Dropping, Follow, Landing, LandingPhase};
use crate::machine::mode::{Isolation, Orchestration, Rollout};
use crate::machine::outside::Outside;
use crate::machine::proposal::{Pair, Proposal, ProposalFault, ProposalPhase};
use crate::machine::provider::Pause;
use crate::machine::purse::{Bound, Level, Spent};
use crate::machine::schedule::demand::Demand;
use crate::machine::settings::{
    AgentCommand, AgentGroup, Completion, Landing as LandingRules, LauncherKind, Limits, Monitor,
    OnExit, Policy, Project, Retry, RolloutRules, Scheduler, Settings, Slice, Stage, Worktree,
};
use crate::machine::state::Drain;
use crate::machine::task::{
    Block, Clash, Evidence, Landed, Priority, Spec, Taken, Tally, Task, TaskKind, TaskPhase, Weight,
};
use crate::machine::time::Time;
use crate::machine::usage::Usage;

const START_MS: u64 = 1_795_215_600_000;

pub(super) fn at(ms: u64) -> Time {
    Time::from_ms(START_MS + ms)
}

pub(super) fn oid(digit: char) -> Oid {
    Oid::new(digit.to_string().repeat(40))
}

pub(super) fn strings(texts: &[&str]) -> Vec<String> {
    texts.iter().map(|text| (*text).to_owned()).collect()
}

fn pairs(of: &[(&str, &str)]) -> BTreeMap<String, String> {
    of.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect()
}

fn stage(name: &str, short: &str, must_change: bool) -> Stage {
    Stage {
        name: name.into(),
        short: short.into(),
        prompt: (!must_change).then(|| format!("agents/{name}.md")),
        must_change,
        checks: if must_change { strings(&["make \"quick\""]) } else { Vec::new() },
        timeout_ms: must_change.then_some(3_600_000),
        timeout_min_ms: 1_800_000,
        timeout_max_ms: 7_200_000,
        silence_ms: 600_000,
        labels: Vec::new(),
        returns_to: (!must_change).then(|| "implementation".into()),
        resources: [("db".to_owned(), 1000)].into(),
        estimate_ms: 600_000,
    }
}

fn group(name: &str, count: u32, command: AgentCommand) -> AgentGroup {
    AgentGroup {
        name: name.into(),
        stages: strings(&[name]),
        count,
        launcher: if command == AgentCommand::Person {
            LauncherKind::Tmux
        } else {
            LauncherKind::Process
        },
        scale_min: (count > 1).then_some(1),
        command,
        completion: if count > 1 { Completion::Marker } else { Completion::Exit },
        env: pairs(&[("LANG", "C.UTF-8"), ("EMPTY", "")]),
        env_allow: strings(&["*"]),
        provider: if count > 1 { "anthropic".into() } else { String::new() },
        capabilities: strings(&["rust"]),
        tier: 1,
        complexity: strings(&["complex"]),
    }
}

fn preset(name: &str, model: &str) -> AgentCommand {
    AgentCommand::Preset { name: name.into(), model: model.into(), is_env_own: true }
}

pub(super) fn settings(pilot: Slice) -> Settings {
    Settings {
        hash: "0123456789abcdef".into(),
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
            setup: strings(&["true"]),
            copy: strings(&[".env"]),
            keep: strings(&["target"]),
            keep_finished_ms: 604_800_000,
        },
        limits: Limits {
            attempts_per_stage: 3,
            infrastructure_retries: 5,
            attempts_per_task: 12,
            send_backs: 2,
            attempts_per_run: 0,
            cost_usd_micros: 25_000_000,
            cost_usd_per_task_micros: 0,
            log_bytes: 16 << 20,
        },
        retry: Retry { first_ms: 5_000, factor: 2.0, max_ms: 300_000, jitter: 0.1 },
        stages: vec![stage("implementation", "impl", true), stage("supervisor", "super", false)],
        agents: vec![
            group("implementation", 2, AgentCommand::Argv(strings(&["sh", "impl.sh"]))),
            group("supervisor", 1, AgentCommand::Shell("true && true".into())),
            group("script", 1, AgentCommand::Task),
            group("person", 1, AgentCommand::Person),
            group("assistant", 1, preset("claude", "large")),
        ],
        landing: LandingRules {
            branch: "pipeline/landed".into(),
            checks: strings(&["make check"]),
            checks_timeout_ms: 1_800_000,
            protect: strings(&["pipeline.toml", ".github/**"]),
            is_manual: true,
        },
        scheduler: Scheduler {
            policy: Policy::Shortest,
            resources: [("db".to_owned(), 4000), ("memory".to_owned(), 8 << 30)].into(),
            ..Scheduler::default()
        },
        rollout: RolloutRules { pilot, ..RolloutRules::default() },
        notify: strings(&["tools/tell", "{project}"]),
    }
}

pub(super) fn plain_spec(title: &str) -> Spec {
    Spec { title: title.into(), ..Spec::default() }
}

fn full_spec() -> Spec {
    Spec {
        title: "Naïve 🦀 \"title\"".into(),
        body: "line\nline\t\u{0}\u{7f}".into(),
        priority: Priority::Critical,
        kind: TaskKind::Epic,
        parent: Some(TaskId::new("TASK-900")),
        depends_on: vec![TaskId::new("TASK-901"), TaskId::new("TASK-902")],
        touches: strings(&["src/**", "docs/*.md"]),
        stages: vec![StageName::new("implementation")],
        labels: strings(&["pilot"]),
        needs: strings(&["rust"]),
        complexity: Some("complex".into()),
        estimate_ms: Some(u64::MAX),
        resources: pairs(&[("memory", "4GiB"), ("db", "1")]),
        is_exclusive: true,
        command: Some("make it".into()),
        extra: pairs(&[("source", "{\"n\":1.50}")]),
    }
}

fn full_exit(marker: Marker) -> Exit {
    Exit {
        started_at: at(1_000),
        ended_at: at(61_000),
        code: Some(-1),
        signal: Some(9),
        ended_by: EndedBy::Timeout,
        command_index: 1,
        leaked: 2,
        cpu_ms: 12_345,
        rss_kib_max: 65_536,
        usage: Usage {
            session: Some("5e55".into()),
            input_tokens: Some(1_200),
            output_tokens: Some(0),
            cached_tokens: None,
            cost_usd_micros: Some(12_300),
            is_session_total: true,
        },
        marker: Some(marker),
        notes: "for the next".into(),
        tail: "error: no\n".into(),
        fault: Some(Fault {
            kind: FaultKind::RateLimited,
            text: "429".into(),
            until: Some(at(90_000)),
        }),
    }
}

fn outcome(class: Class) -> Outcome {
    Outcome { class, reason: "because".into(), at: at(62_000) }
}

pub(super) fn tries() -> Tries {
    Tries { failed: 2, until: Some(at(90_000)), why: "disk full".into() }
}

fn full_attempt(kind: AttemptKind, phase: AttemptPhase) -> Attempt {
    Attempt {
        id: AttemptId::new("TASK-001.impl.7"),
        kind,
        task: Some(TaskId::new("TASK-001")),
        agent: AgentName::new("implementation-1"),
        nonce: "000000000000000000000000000000ff".into(),
        slot: 1,
        settings: "0123456789abcdef".into(),
        phase,
        assigned_at: at(500),
        started_at: Some(at(1_000)),
        base: Some(oid('a')),
        merge: Some(oid('b')),
        exit: Some(full_exit(Marker::Failed("why".into()))),
        saved: Some(oid('c')),
        verdict: Some(outcome(Class::Failed)),
        is_stopping: true,
        prompt: Some("0123456789abcdef".into()),
        preset: Some("fedcba9876543210".into()),
        continues: Some(AttemptId::new("TASK-001.impl.6")),
        session: Some("5e55".into()),
        demand: Demand {
            needs: vec!["gpu".into()],
            is_so_far: true,
            is_exclusive: true,
            ..Demand::default()
        },
        tries: tries(),
        outside: outside(),
        outcome: Some(outcome(Class::TimedOut)),
    }
}

/// A branch of ours that somebody has checked out.
pub(super) fn held() -> BTreeMap<String, String> {
    BTreeMap::from([("refs/heads/pipeline/task/TASK-001".into(), "/home/me/mine".into())])
}

pub(super) fn outside() -> Outside {
    Outside {
        found: vec!["main checkout: ?? x.txt".into()],
        more: 2,
        beside: vec![AttemptId::new("TASK-002.impl.1")],
        marks: vec!["0123456789abcdef".into()],
    }
}

pub(super) fn full_task() -> Task {
    let work = AttemptKind::Work { stage: StageName::new("implementation") };
    Task {
        id: TaskId::new("TASK-800"),
        spec: full_spec(),
        phase: phases().pop().expect("there are phases"),
        entry: 800,
        is_front: true,
        is_held: true,
        created_at: at(0),
        updated_at: at(1),
        backoff_until: Some(at(2)),
        tally: Tally {
            attempts: 1,
            stage_failures: 2,
            infrastructure: 3,
            send_backs: 4,
            forgiven_micros: 5,
        },
        tip: Some(oid('1')),
        merge_owed: Some(oid('2')),
        resume_from: Some(oid('3')),
        continues: Some(AttemptId::new("TASK-001.impl.6")),
        approved: Some(oid('4')),
        approval: Some("pipeline.toml".into()),
        avoid: Some(AgentName::new("implementation-2")),
        notes: vec![(StageName::new("implementation"), "notes".into())],
        evidence: vec![evidence()],
        hint: Some("try harder".into()),
        history: vec![full_attempt(work, AttemptPhase::Saving)],
        numbers: BTreeMap::from([("impl".into(), 7), ("land".into(), 1)]),
        is_announced: true,
        unserved: Some("no agent serves stage `docs`".into()),
        weight: Weight { own_ms: 1, tail_ms: 2 },
        changed: vec!["a\\*b".into(), "src/**".into()],
        forecast: vec![Clash { with: None, paths: vec!["src/a.rs".into()] }],
        spent: Spent { cost_usd_micros: 12_300, priced: 1, unpriced: 2, tokens: Some(1_200) },
        taken: Some(taken()),
        is_by_hand: true,
        landed: Landed::Merged,
    }
}

fn taken() -> Taken {
    Taken { dir: "/project/.pipeline/taken/TASK-001".into(), from: oid('b'), since: at(5) }
}

fn evidence() -> Evidence {
    Evidence {
        from: AttemptId::new("TASK-001.impl.6"),
        stage: StageName::new("implementation"),
        class: Class::ChecksFailed,
        text: "2 tests failed".into(),
    }
}

/// Every phase of a task; a finished one last, since a state may hold it whatever else it holds.
fn phases() -> Vec<TaskPhase> {
    let stage = || StageName::new("implementation");
    let block = |stage| Block {
        stage,
        is_landing: false,
        class: Class::LandingChecksFailed,
        reason: "reason".into(),
        since: at(5),
    };
    vec![
        TaskPhase::Waiting,
        TaskPhase::Ready { stage: stage() },
        TaskPhase::Working { stage: stage(), attempt: AttemptId::new("TASK-001.impl.7") },
        TaskPhase::Landing { entry: 801 },
        TaskPhase::Blocked(block(Some(stage()))),
        TaskPhase::Blocked(block(None)),
        TaskPhase::Blocked(Block { is_landing: true, ..block(Some(stage())) }),
        TaskPhase::Completed { commit: None, at: at(6) },
        TaskPhase::Cancelled { at: at(7) },
        TaskPhase::Completed { commit: Some(oid('d')), at: at(6) },
    ]
}

/// Every kind of change, each variant of what it carries at least once.
pub(super) fn every_change() -> Vec<Change> {
    let mut changes = project_changes();
    let id = TaskId::new("TASK-001");
    changes.extend(task_changes().into_iter().map(|change| Change::Task(id.clone(), change)));
    let id = AttemptId::new("TASK-001.impl.7");
    changes.extend(attempt_changes().into_iter().map(|change| Change::Attempt(id.clone(), change)));
    changes.extend(lane_changes().into_iter().map(Change::Lane));
    changes
}

fn project_changes() -> Vec<Change> {
    let (id, stage) = (TaskId::new("TASK-001"), StageName::new("implementation"));
    let slices = [
        Slice::Percent(100),
        Slice::Labels(strings(&["pilot"])),
        Slice::Tasks(strings(&["TASK-001"])),
    ];
    let adopted = |slice| Box::new(settings(slice));
    let mut changes: Vec<ProjectChange> = slices
        .into_iter()
        .map(|slice| ProjectChange::SettingsAdopted { settings: adopted(slice), at: at(0) })
        .collect();
    for kind in [StopKind::Leave, StopKind::Drain, StopKind::Now] {
        changes.push(ProjectChange::StopRequested { kind });
    }
    for to in [Orchestration::Sequential, Orchestration::Parallel] {
        changes.push(ProjectChange::ModeSwitched { to });
        changes.push(ProjectChange::DrainSet { drain: Some(Drain { to, until: at(9) }) });
    }
    for to in [Rollout::Shadow, Rollout::Pilot, Rollout::Production] {
        changes.push(ProjectChange::RolloutSet { to });
    }
    let why = "fell back from production".to_owned();
    changes.push(ProjectChange::RolloutReasoned { why, is_fallback: true, at: at(0) });
    for difference in [None, Some("it depends on TASK-002".to_owned())] {
        changes.push(ProjectChange::Compared { id: id.clone(), difference });
    }
    for agent in [None, Some(AgentName::new("implementation-1"))] {
        let (id, stage) = (id.clone(), stage.clone());
        changes.push(ProjectChange::WouldStart { id, stage, agent });
    }
    changes.extend([
        ProjectChange::MonitorStarted { pid: 4242, allows_red_base: true, at: at(0) },
        ProjectChange::MonitorEnded { why: "stopped".into(), at: at(1) },
        ProjectChange::PauseSet { is_paused: true },
        ProjectChange::AgentPauseSet { name: AgentName::new("script"), is_paused: false },
        breaker_set(),
        provider_set(),
        ProjectChange::ProviderSet { name: "anthropic".into(), pause: None },
        providers_set(),
        ProjectChange::AgentUnusable { name: AgentName::new("script"), why: Some("gone".into()) },
        ProjectChange::AgentUnusable { name: AgentName::new("script"), why: None },
        scaled(),
        ProjectChange::DrainSet { drain: None },
        ProjectChange::CurrentTaskSet { id: Some(id.clone()) },
        ProjectChange::CurrentTaskSet { id: None },
        ProjectChange::CollectingSet { id: Some(id) },
        ProjectChange::CollectingSet { id: None },
        ProjectChange::ShortageSet { what: Some("the disk is full".into()) },
        ProjectChange::ShortageSet { what: None },
        ProjectChange::OverloadSet { what: Some("the load is 9.1".into()) },
        ProjectChange::OverloadSet { what: None },
        ProjectChange::FoundOutside { found: outside() },
        ProjectChange::BranchesHeld { held: held() },
        ProjectChange::Weighed { at: at(7) },
        budget_told(Bound::Attempts, Level::Near, None),
        budget_told(Bound::Cost, Level::Reached, None),
        budget_told(Bound::TaskCost, Level::Near, Some(TaskId::new("TASK-001"))),
        ProjectChange::ProposalFaulted { fault: ProposalFault::Late, why: "no answer".into() },
        proposal_refused(),
    ]);
    changes.extend(proposals().map(|proposal| {
        let proposal = Box::new(proposal);
        ProjectChange::ProposalSet { proposal }
    }));
    changes.into_iter().map(Change::Project).collect()
}

fn proposal_refused() -> ProjectChange {
    ProjectChange::ProposalRefused {
        task: TaskId::new("TASK-001"),
        agent: AgentName::new("script"),
        why: "the task is held".into(),
    }
}

pub(super) fn budget_told(bound: Bound, level: Level, task: Option<TaskId>) -> ProjectChange {
    ProjectChange::BudgetTold { bound, level, task, used: 21_000_000, limit: 25_000_000 }
}

/// The external scheduler in every phase.
pub(super) fn proposals() -> impl Iterator<Item = Proposal> {
    let pair = Pair { task: TaskId::new("TASK-001"), agent: AgentName::new("script") };
    let phases = [
        ProposalPhase::Rest,
        ProposalPhase::Declined,
        ProposalPhase::Answered { at: at(8), pairs: vec![pair], has_taken: true },
        ProposalPhase::Asked,
    ];
    phases.into_iter().map(|phase| Proposal {
        number: 3,
        phase,
        declined_since: Some(at(7)),
        faults: 2,
        told: vec![
            ProposalFault::Late,
            ProposalFault::Failed,
            ProposalFault::Unreadable,
            ProposalFault::Invalid,
            ProposalFault::Declined,
        ],
        until: Some(at(9)),
    })
}

/// One of two stays.
pub(super) fn scaled() -> ProjectChange {
    ProjectChange::AgentsScaled {
        group: "implementation".into(),
        target: Target { count: 1, is_by_hand: true },
        why: "by hand".into(),
        at: at(6),
    }
}

fn task_changes() -> Vec<TaskChange> {
    let steer = Steer {
        merge_owed: Some(oid('b')),
        resume_from: Some(oid('c')),
        continues: Some(AttemptId::new("TASK-001.impl.7")),
        avoid: Some(AgentName::new("script")),
        hint: Some("hint".into()),
        is_fresh: true,
    };
    let mut changes = vec![
        TaskChange::Added { task: Box::new(full_task()) },
        TaskChange::Edited { spec: Box::new(full_spec()), is_front: true, at: at(3) },
        TaskChange::Edited { spec: Box::new(plain_spec("plain")), is_front: false, at: at(3) },
        TaskChange::HeldSet { is_held: true },
        TaskChange::BackedOff { until: Some(at(4)) },
        TaskChange::BackedOff { until: None },
        TaskChange::Tallied { tally: Tally::default() },
        TaskChange::Noted { stage: StageName::new("supervisor"), text: "fine".into() },
        TaskChange::Evidenced { evidence: evidence() },
        TaskChange::Steered { steer: Box::new(steer) },
        TaskChange::Steered { steer: Box::default() },
        TaskChange::ApprovalAsked { what: "pipeline.toml".into() },
        TaskChange::Approved { tip: Some(oid('e')) },
        TaskChange::Approved { tip: None },
        TaskChange::Taken { taken: taken() },
        TaskChange::Given { commit: oid('c') },
        TaskChange::DoneByHand { commit: Some(oid('d')) },
        TaskChange::DoneByHand { commit: None },
        TaskChange::Unserved { what: Some("no agent serves stage `docs`".into()) },
        TaskChange::Unserved { what: None },
        TaskChange::TipMoved { tip: oid('f') },
        TaskChange::Forecast {
            clashes: vec![Clash {
                with: Some(TaskId::new("TASK-002")),
                paths: vec!["src/a.rs".into()],
            }],
            tried: vec![TaskId::new("TASK-002")],
        },
        TaskChange::Forecast { clashes: Vec::new(), tried: Vec::new() },
        TaskChange::BranchChanged { paths: vec!["src/a.rs".into()] },
    ];
    changes.extend(phases().into_iter().map(|to| TaskChange::Moved { to, at: at(8) }));
    changes
}

fn attempt_changes() -> Vec<AttemptChange> {
    let (stage, of) = (StageName::new("implementation"), AttemptId::new("TASK-001.impl.6"));
    let kinds = [
        (AttemptKind::Work { stage: stage.clone() }, AttemptPhase::Preparing),
        (AttemptKind::StageCheck { stage, of }, AttemptPhase::Starting),
        (AttemptKind::LandingCheck { commit: oid('a') }, AttemptPhase::Running),
        (AttemptKind::BaseCheck { commit: oid('b') }, AttemptPhase::Checking),
        (AttemptKind::BaseCheck { commit: oid('b') }, AttemptPhase::Advancing),
    ];
    let added = |(kind, phase)| {
        let attempt = Box::new(full_attempt(kind, phase));
        AttemptChange::Added { attempt }
    };
    let mut changes: Vec<AttemptChange> = kinds.into_iter().map(added).collect();
    let markers = [
        Marker::Completed,
        Marker::Blocked("who".into()),
        Marker::Failed("why".into()),
        Marker::ChangesRequested("what".into()),
    ];
    for marker in markers {
        let exit = Some(Box::new(full_exit(marker)));
        changes.push(AttemptChange::Exited { exit, verdict: outcome(Class::TimedOut) });
    }
    let ends = [EndedBy::Exit, EndedBy::Silence, EndedBy::MarkerGrace, EndedBy::Stop];
    for ended_by in ends.into_iter().chain([EndedBy::SpawnFailed]) {
        let exit = Some(Box::new(Exit { ended_by, ..clean_exit() }));
        changes.push(AttemptChange::Exited { exit, verdict: outcome(Class::Stopped) });
    }
    for class in Class::ALL {
        changes.push(AttemptChange::Judged { verdict: outcome(class) });
    }
    changes.extend([
        AttemptChange::Prepared { base: Some(oid('a')), tip: None },
        AttemptChange::Briefed { prompt: "0123456789abcdef".into() },
        AttemptChange::Ordered { preset: "fedcba9876543210".into(), session: None },
        AttemptChange::Ordered { preset: "fedcba9876543210".into(), session: Some("5e55".into()) },
        AttemptChange::Started { at: at(10) },
        AttemptChange::StopRequested,
        AttemptChange::Exited { exit: None, verdict: outcome(Class::Lost) },
        AttemptChange::Saved { commit: Some(oid('c')) },
        AttemptChange::Saved { commit: None },
        AttemptChange::Checking,
        AttemptChange::Advancing,
        AttemptChange::Stalled { tries: tries() },
        AttemptChange::Ended { outcome: outcome(Class::Completed), has_fresh_slot: true },
        AttemptChange::FoundOutside { task: None, found: outside() },
    ]);
    changes
}

fn lane_changes() -> Vec<LaneChange> {
    let id = TaskId::new("TASK-001");
    let attempt = AttemptId::new("TASK-001.land.1");
    let (commit, onto) = (oid('c'), oid('d'));
    let phases = [
        LandingPhase::Merging,
        LandingPhase::Checking { commit: commit.clone(), onto: onto.clone(), attempt },
        LandingPhase::Moving { commit, onto },
    ];
    let landing = |phase| Landing {
        task: id.clone(),
        number: 2,
        begun_at: at(11),
        phase,
        tries: Tries::default(),
    };
    let set = |phase| LaneChange::LandingSet { landing: Some(landing(phase)) };
    let mut changes: Vec<LaneChange> = phases.into_iter().map(set).collect();
    changes.extend([
        LaneChange::BaseSeen { tip: oid('a'), landed: None, at: at(12) },
        LaneChange::BaseTaken { base: oid('a'), landed: oid('b') },
        LaneChange::BaseConflicted { paths: "src/a.rs, src/b.rs".into() },
        LaneChange::TakeStalled { tries: tries() },
        LaneChange::BaseCheckBegun { id: AttemptId::new("base.check.1") },
        LaneChange::BaseCheckStalled { tries: tries() },
        LaneChange::BaseFoundGreen { commit: oid('a') },
        LaneChange::BaseFoundRed { commit: oid('a'), tail: "red\n".into() },
        LaneChange::LandingSet { landing: None },
        LaneChange::Landed { id: id.clone(), commit: oid('c'), is_verified: true },
        follow_set(),
        LaneChange::FollowSet { follow: None, why: None, behind: 0 },
        LaneChange::BaseFollowed { to: oid('c') },
        LaneChange::DropSet { dropping: Some(Dropping { to: oid('a'), tries: tries() }) },
        LaneChange::PilotDropped { to: oid('a') },
    ]);
    changes
}

pub(super) fn breaker_set() -> ProjectChange {
    let (tasks, until) = (vec![TaskId::new("TASK-001")], Some(at(120_000)));
    let breaker = Box::new(Breaker { failures: 3, tasks, pauses: 1, until });
    ProjectChange::BreakerSet { name: AgentName::new("script"), breaker }
}

pub(super) fn provider_set() -> ProjectChange {
    let pause = Pause {
        limits: 2,
        since: at(11),
        until: Some(at(60_000)),
        is_refused: true,
        agent: AgentName::new("script"),
        why: "API Error: 429".into(),
        is_guessed: true,
        probe: Some(AttemptId::new("TASK-001.impl.1")),
    };
    ProjectChange::ProviderSet { name: "anthropic".into(), pause: Some(Box::new(pause)) }
}

pub(super) fn providers_set() -> ProjectChange {
    ProjectChange::ProvidersSet { of: [("script".into(), "anthropic".into())].into() }
}

pub(super) fn follow_set() -> LaneChange {
    let follow = Follow { to: oid('c'), tries: tries(), is_passing: false };
    LaneChange::FollowSet { follow: Some(follow), why: Some("uncommitted".into()), behind: 3 }
}

pub(super) fn clean_exit() -> Exit {
    Exit {
        started_at: at(0),
        ended_at: at(1),
        code: Some(0),
        signal: None,
        ended_by: EndedBy::Exit,
        command_index: 0,
        leaked: 0,
        cpu_ms: 0,
        rss_kib_max: 0,
        usage: Usage::default(),
        marker: None,
        notes: String::new(),
        tail: String::new(),
        fault: None,
    }
}
