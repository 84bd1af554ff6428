//! A machine with a hand on its clock, for cases and simulator; checks on every change what must
//! hold at that very moment.

use std::collections::{BTreeMap, BTreeSet};

use pipeline::machine::attempt::{Attempt, Class, EndedBy, Exit, Marker};
use pipeline::machine::change::{AttemptChange, Change, TaskChange};
use pipeline::machine::event::{EventBody, NewTask};
use pipeline::machine::id::{AttemptId, Oid, StageName, TaskId};
use pipeline::machine::mode::{Isolation, Orchestration, Rollout};
use pipeline::machine::phase::{Move, TaskStand, TaskTrigger, task_move};
use pipeline::machine::settings::{
    AgentCommand, AgentGroup, Completion, Landing, LauncherKind, Limits, Monitor, OnExit, Project,
    Retry, RolloutRules, Scheduler, Settings, Stage, Worktree,
};
use pipeline::machine::task::{Spec, TaskPhase};
use pipeline::machine::time::Time;
use pipeline::machine::{
    Answer, Command, Effect, Event, Observation, State, apply, next_deadline, pending_effects, step,
};

/// Turns after which a machine that still decides something is taken for a livelock.
const TURNS_MAX: usize = 400;

pub fn stage(name: &str, short: &str, must_change: bool) -> Stage {
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

pub fn group(name: &str, stages: &[&str], count: u32) -> AgentGroup {
    AgentGroup {
        name: name.into(),
        stages: stages.iter().map(|name| (*name).to_owned()).collect(),
        count,
        scale_min: None,
        command: AgentCommand::Shell("true".into()),
        launcher: LauncherKind::Process,
        completion: Completion::Marker,
        env: BTreeMap::new(),
        env_allow: Vec::new(),
        provider: String::new(),
        capabilities: Vec::new(),
        tier: 1,
        complexity: Vec::new(),
    }
}

/// Four stages with an agent each, production, parallel, no checks, no jitter.
pub fn settings() -> Settings {
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
            log_bytes: 0,
        },
        retry: Retry { first_ms: 5_000, factor: 2.0, max_ms: 300_000, jitter: 0.0 },
        stages: vec![
            stage("architect", "arch", false),
            stage("test", "test", true),
            stage("implementation", "impl", true),
            stage("supervisor", "super", false),
        ],
        agents: ["architect", "test", "implementation", "supervisor"]
            .map(|name| group(name, &[name], 1))
            .to_vec(),
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

pub fn id(text: &str) -> TaskId {
    TaskId::new(text)
}

pub fn new_task(name: &str, deps: &[&str]) -> NewTask {
    let depends_on = deps.iter().map(|dep| id(dep)).collect();
    NewTask {
        id: Some(id(name)),
        spec: Spec { title: name.into(), depends_on, ..Spec::default() },
        is_front: false,
        is_held: false,
        may_lack_dependencies: false,
    }
}

/// How an agent ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum End {
    Done,
    Silent,
    Fail,
    NoMarker,
    Blocked,
    Changes,
    Timeout,
    Crash,
    Unstartable,
    Stopped,
}

pub fn exit(end: End, at: Time) -> Exit {
    let (code, signal, ended_by, marker) = match end {
        End::Done => (Some(0), None, EndedBy::Exit, Some(Marker::Completed)),
        End::Silent => (None, Some(15), EndedBy::Silence, None),
        End::Fail => (Some(1), None, EndedBy::Exit, Some(Marker::Failed("no".into()))),
        End::NoMarker => (Some(0), None, EndedBy::Exit, None),
        End::Blocked => (Some(0), None, EndedBy::Exit, Some(Marker::Blocked("who".into()))),
        End::Changes => {
            (Some(0), None, EndedBy::Exit, Some(Marker::ChangesRequested("more".into())))
        }
        End::Timeout => (None, Some(15), EndedBy::Timeout, None),
        End::Crash => (None, Some(11), EndedBy::Exit, None),
        End::Unstartable => (None, None, EndedBy::SpawnFailed, None),
        End::Stopped => (None, Some(15), EndedBy::Stop, None),
    };
    Exit {
        started_at: at,
        ended_at: at,
        code,
        signal,
        ended_by,
        command_index: 0,
        leaked: 0,
        cpu_ms: 0,
        rss_kib_max: 0,
        usage: pipeline::machine::usage::Usage::default(),
        fault: None,
        marker,
        notes: "notes".into(),
        tail: "tail".into(),
    }
}

/// The machine under test.
pub struct Machine {
    pub state: State,
    pub now: Time,
    pub random: u128,
    /// Nonces given to a turn.
    pub nonces: usize,
    /// Every attempt ever added.
    pub seen: BTreeSet<AttemptId>,
    /// Stages that completed and were not sent back or retried since.
    done: BTreeMap<TaskId, BTreeSet<StageName>>,
    /// What was decided, newest last.
    pub log: Vec<Change>,
}

impl Machine {
    pub fn new(settings: Settings) -> Self {
        let now = Time::from_ms(1_000_000);
        Self {
            state: State::new(settings, now),
            now,
            random: 1,
            nonces: 8,
            seen: BTreeSet::new(),
            done: BTreeMap::new(),
            log: Vec::new(),
        }
    }

    /// Steps and applies; panics where a promise breaks.
    pub fn send(&mut self, body: EventBody) -> (usize, Answer) {
        self.random += 1;
        let retried = matches!(
            &body,
            EventBody::Command(
                Command::RetryTasks { .. } | Command::GiveTask { .. } | Command::ReopenTask { .. }
            )
        );
        let event = Event { at: self.now, random: self.random, body };
        let step = step(&self.state, &event);
        for change in &step.changes {
            self.before(change, retried);
            apply(&mut self.state, change);
        }
        self.log.extend(step.changes.iter().cloned());
        (step.changes.len(), step.answer)
    }

    fn before(&mut self, change: &Change, is_retry: bool) {
        match change {
            Change::Task(id, TaskChange::Moved { to, .. }) => self.before_move(id, to),
            Change::Task(id, TaskChange::Evidenced { evidence }) => {
                let sent_back =
                    [Class::ChangesRequested, Class::Conflict, Class::LandingChecksFailed];
                if sent_back.contains(&evidence.class) {
                    self.done.remove(id);
                }
            }
            Change::Task(id, TaskChange::Steered { steer }) if is_retry || steer.is_fresh => {
                self.done.remove(id);
            }
            Change::Attempt(id, AttemptChange::Added { attempt }) => {
                assert!(self.seen.insert(id.clone()), "attempt `{id}` was added before");
                if attempt.is_work() {
                    self.before_work(attempt);
                }
            }
            Change::Attempt(id, AttemptChange::Ended { outcome, .. }) => {
                let attempt = &self.state.attempts[id];
                if let (true, Some(task), Some(stage), Class::Completed) =
                    (attempt.is_work(), &attempt.task, attempt.stage(), outcome.class)
                {
                    self.done.entry(task.clone()).or_default().insert(stage.clone());
                }
            }
            Change::Project(_) | Change::Task(..) | Change::Attempt(..) | Change::Lane(_) => {}
        }
    }

    fn before_move(&mut self, id: &TaskId, to: &TaskPhase) {
        let from = TaskStand::from(&self.state.tasks[id].phase);
        let to_stand = TaskStand::from(to);
        let mut triggers = TaskTrigger::ALL.iter();
        let is_known = triggers.any(|trigger| task_move(from, *trigger) == Move::To(to_stand));
        assert!(is_known, "`{id}`: the table lacks {from:?} -> {to_stand:?}");
    }

    fn before_work(&self, new: &Attempt) {
        let state = &self.state;
        let (id, stage) = (new.task.as_ref().unwrap(), new.stage().unwrap());
        let task = &state.tasks[id];
        assert_ne!(state.rollout, Rollout::Shadow, "`{id}` starts in shadow");
        if state.rollout == Rollout::Pilot {
            assert!(state.index.is_in_slice(id), "`{id}` is not in the slice");
        }
        assert!(state.stopping.is_none() && !state.is_paused && state.drain.is_none());
        for dep in &task.spec.depends_on {
            let is_met = state.tasks.get(dep).is_some_and(|dep| dep.is_met());
            assert!(is_met, "`{id}` starts before `{dep}` is complete");
        }
        let others = state.attempts.values().filter(|other| other.is_work());
        for other in others {
            assert_ne!(other.task.as_ref(), Some(id), "two attempts of `{id}` live");
            assert_ne!(other.agent, new.agent, "two attempts of `{}` live", new.agent);
            assert_ne!(state.orchestration, Orchestration::Sequential, "two work in sequential");
        }
        let limits = &state.settings.limits;
        assert!(task.tally.attempts < limits.attempts_per_task, "`{id}` has no attempts left");
        assert!(task.tally.stage_failures < limits.attempts_per_stage, "`{id}`: {:?}", task.tally);
        assert!(task.tally.infrastructure <= limits.infrastructure_retries);
        assert!(task.tally.send_backs <= limits.send_backs);
        let is_done = self.done.get(id).is_some_and(|done| done.contains(stage));
        assert!(!is_done, "`{id}` runs {stage} again");
        let agent = &state.agents[&new.agent];
        assert!(state.is_free(agent), "`{}` gets `{id}`: {:?}", agent.name, state.pause_of(agent));
        assert!(agent.stages.contains(stage));
        assert!(state.settings.stage(stage.as_str()).is_some());
    }

    pub fn see(&mut self, seen: Observation) -> Answer {
        self.send(EventBody::Observation(seen)).1
    }

    pub fn ask(&mut self, asked: Command) -> Answer {
        self.send(EventBody::Command(asked)).1
    }

    /// Accepted, or the test fails.
    pub fn must(&mut self, asked: Command) {
        let shown = format!("{asked:?}");
        let answer = self.ask(asked);
        assert_eq!(answer, Answer::Accept, "{shown}");
        self.turns();
    }

    /// The reason and hint of a refusal; the state is as before.
    pub fn refused(&mut self, asked: Command) -> String {
        let before = self.state.clone();
        let shown = format!("{asked:?}");
        let Answer::Refuse(refusal) = self.ask(asked) else { panic!("not refused: {shown}") };
        assert!(before == self.state, "a refusal changed the state: {shown}");
        refusal.reason
    }

    /// Turns until nothing more is decided.
    pub fn turns(&mut self) {
        for _ in 0..TURNS_MAX {
            self.random += 1;
            let first = self.random << 8;
            let nonces = (0..self.nonces as u128).map(|n| first + n).collect();
            if self.send(EventBody::Turn { nonces }).0 == 0 {
                let deadline = next_deadline(&self.state);
                assert!(
                    deadline.is_none_or(|at| at > self.now),
                    "after a turn the deadline {deadline:?} lies in the past of {:?}",
                    self.now
                );
                return;
            }
        }
        panic!("the turn never ends: {:?}", self.log.iter().rev().take(6).collect::<Vec<_>>());
    }

    pub fn pass_ms(&mut self, ms: u64) {
        self.now = self.now.plus_ms(ms);
        self.turns();
    }

    /// Goes to the next deadline.
    pub fn pass_to_deadline(&mut self) {
        let at = next_deadline(&self.state).expect("something is timed");
        self.now = self.now.max(at);
        self.turns();
    }

    /// The base is seen and taken in, the monitor runs.
    pub fn begin(&mut self) {
        self.see(Observation::MonitorStarted { pid: 1, allows_red_base: false });
        self.base_moves("base-1");
    }

    pub fn base_moves(&mut self, to: &str) {
        let landed = self.state.base.landed.clone();
        self.see(Observation::BaseSeen { tip: Oid::new(to), landed });
        self.turns();
        // Nothing of ours has landed: the landing branch goes along.
        self.see(Observation::BaseTaken {
            base: Oid::new(to),
            landed: Oid::new(to),
            has_all: true,
        });
        self.turns();
    }

    pub fn add(&mut self, tasks: &[NewTask]) {
        self.must(Command::AddTasks { tasks: tasks.to_vec() });
    }

    /// The live work attempt of a task.
    pub fn work(&self, task: &str) -> Attempt {
        let task = Some(id(task));
        let mut all = self.state.attempts.values();
        let found = all.find(|attempt| attempt.is_work() && attempt.task == task);
        found.cloned().unwrap_or_else(|| panic!("{task:?} is worked on: {}", self.phase_of(&task)))
    }

    fn phase_of(&self, task: &Option<TaskId>) -> String {
        format!("{:?}", task.as_ref().map(|id| &self.state.tasks[id].phase))
    }

    /// Prepares and starts the task's attempt.
    pub fn start(&mut self, task: &str) -> AttemptId {
        let attempt = self.work(task).id;
        self.start_attempt(&attempt);
        attempt
    }

    pub fn start_attempt(&mut self, attempt: &AttemptId) {
        let attempt = attempt.clone();
        self.see(Observation::Prepared { attempt: attempt.clone(), base: None, tip: None });
        self.see(Observation::Started { attempt, at: self.now });
        self.turns();
    }

    /// Starts the task's attempt and lets it end so.
    pub fn run(&mut self, task: &str, end: End) -> AttemptId {
        let attempt = self.start(task);
        self.exit(&attempt, end);
        attempt
    }

    pub fn exit(&mut self, attempt: &AttemptId, end: End) {
        let exit = Box::new(exit(end, self.now));
        self.see(Observation::Exited { attempt: attempt.clone(), exit });
        self.save(attempt, true, &[]);
        self.see(Observation::Advanced { attempt: attempt.clone(), changed: None });
        self.turns();
    }

    pub fn save(&mut self, attempt: &AttemptId, has_changed: bool, markers: &[&str]) {
        self.see(Observation::Saved {
            attempt: attempt.clone(),
            commit: Some(Oid::new(format!("saved-{attempt}"))),
            has_changed,
            markers: markers.iter().map(|path| (*path).to_owned()).collect(),
            notes: Vec::new(),
            lacks: None,
        });
        self.turns();
    }

    /// Runs all remaining stages of the task with success, up to the lane.
    pub fn complete_stages(&mut self, task: &str) {
        while !matches!(self.state.tasks[&id(task)].phase, TaskPhase::Landing { .. }) {
            self.run(task, End::Done);
        }
    }

    /// Lands the landing under way.
    pub fn land(&mut self, task: &str) {
        let merge = self.merge();
        assert_eq!(merge.task, id(task));
        self.turns();
        self.see(merge.landed());
        self.turns();
    }

    /// Lets all that is in the lane land.
    pub fn land_all(&mut self) {
        while let Some(landing) = self.state.landing.clone() {
            self.land(landing.task.as_str());
        }
    }

    /// Makes the merge of the landing under way, onto what has landed.
    pub fn merge(&mut self) -> Merge {
        let landing = self.state.landing.clone().expect("a landing is under way");
        let (task, number) = (landing.task, landing.number);
        let commit = Oid::new(format!("merge-{task}-{number}"));
        let onto = self.state.base.landed.clone().expect("the base is taken in");
        let merge = Merge { task, number, commit, onto };
        let (task, commit, onto) = (merge.task.clone(), merge.commit.clone(), merge.onto.clone());
        self.see(Observation::Merged { task, number, commit, onto, protected: Vec::new() });
        merge
    }

    pub fn effects(&self) -> Vec<Effect> {
        pending_effects(&self.state).cloned().collect()
    }

    /// One line of where the task stands, e.g. `ready impl`, `blocked failed impl`.
    pub fn stand(&self, task: &str) -> String {
        let short = |name: &StageName| {
            let found = self.state.settings.stage(name.as_str());
            found.map_or_else(|| name.to_string(), |(_, stage)| stage.short.clone())
        };
        let task = &self.state.tasks[&id(task)];
        match &task.phase {
            TaskPhase::Waiting => "waiting".into(),
            TaskPhase::Ready { stage } => format!("ready {}", short(stage)),
            TaskPhase::Working { attempt, .. } => format!("working {attempt}"),
            TaskPhase::Landing { .. } => "landing".into(),
            TaskPhase::Blocked(block) => {
                let stage = block.stage.as_ref().map_or_else(|| "-".into(), short);
                format!("blocked {} {stage}", block.class.word())
            }
            TaskPhase::Completed { .. } => "completed".into(),
            TaskPhase::Cancelled { .. } => "cancelled".into(),
        }
    }
}

/// A landing's merge.
pub struct Merge {
    pub task: TaskId,
    pub number: u32,
    pub commit: Oid,
    pub onto: Oid,
}

impl Merge {
    /// The landing branch was moved to it.
    pub fn landed(&self) -> Observation {
        let (task, number, commit) = (self.task.clone(), self.number, self.commit.clone());
        Observation::Landed { task, number, commit }
    }
}
