//! All that the pipeline knows.
//!
//! Invariants, checked by [`State::check`] in tests and the simulator:
//! * every index equals a recount (`index.rs`);
//! * an agent's attempt exists, is live and names that agent; and the other way round;
//! * a group has the agents that it is to have, and beside them only busy ones that are retired;
//! * a task is `Working` exactly while a live work attempt names it or it was cancelled under one;
//! * the settings that a live attempt pins are there, and no others but the present ones;
//! * at most one live work attempt per task, at most one landing;
//! * the dependency graph has no cycle.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::agent::Agent;
use super::attempt::{Attempt, Tries};
use super::crew::Target;
use super::estimate::History;
use super::event::StopKind;
use super::id::{AgentName, AttemptId, TaskId};
use super::index::Index;
use super::lane::{Base, Landing};
use super::mode::{Orchestration, Rollout};
use super::outside::Outside;
use super::proposal::Proposal;
use super::provider::Pause;
use super::purse::{Run, Spent};
use super::rollout::Trial;
use super::settings::{AgentGroup, Settings};
use super::task::{Task, TaskPhase};
use super::time::Time;
use super::weigh::Weighing;

/// A switch of mode that waits for the last attempt.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Drain {
    pub to: Orchestration,
    /// Cleared when not done by then.
    pub until: Time,
}

/// The monitor that runs or ran last.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct MonitorFacts {
    pub pid: u32,
    pub started_at: Time,
    /// Work attempts added since it started.
    pub attempts: u32,
    /// Started with `--allow-red-base`.
    pub allows_red_base: bool,
    /// Begin of the second in which `launches` are counted, for `launch_rate`.
    pub launch_window: Time,
    pub launches: u32,
}

/// Sums over the life of the project.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Metrics {
    pub attempts: u64,
    /// Attempts after the first of a task's stage.
    pub retries: u64,
    /// End of one attempt to the start of the agent's next, in the last handoffs, milliseconds.
    pub handoff_ms: Vec<u64>,
    /// Per long stage name: durations of completed attempts, the last ones, milliseconds.
    pub stage_ms: BTreeMap<String, StageSum>,
    /// The same by group of agents and complexity too, the newest counting most.
    pub learned: History,
    /// Read and written; `None`: nothing is known.
    pub tokens: Option<u64>,
    /// Millionths of a dollar; `None`: nothing is known.
    pub cost_usd_micros: Option<u64>,
    /// The same by group of agents, where programs have providers.
    pub groups: BTreeMap<String, Spent>,
}

/// Durations of one stage.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct StageSum {
    pub count: u64,
    pub total_ms: u64,
    /// The last [`SAMPLES_MAX`], oldest first.
    pub samples_ms: Vec<u64>,
}

/// Samples kept of each distribution.
pub const SAMPLES_MAX: usize = 256;

/// The state; written by [`apply`](super::apply::apply) alone.
#[derive(Debug, Clone, PartialEq)]
pub struct State {
    pub settings: Arc<Settings>,
    /// Settings of before that live attempts still run by, oldest first.
    pub pinned: Vec<Arc<Settings>>,
    pub orchestration: Orchestration,
    pub rollout: Rollout,
    /// What was counted since it was set.
    pub trial: Trial,
    pub is_paused: bool,
    pub stopping: Option<StopKind>,
    pub drain: Option<Drain>,
    /// Sequential mode's task.
    pub current: Option<TaskId>,
    /// Parallel mode's task that all it asks for is kept for, until it can start.
    pub collecting: Option<TaskId>,
    pub monitor: MonitorFacts,
    pub run: Run,
    pub tasks: BTreeMap<TaskId, Task>,
    /// Live attempts; ended ones are in their task's history.
    pub attempts: BTreeMap<AttemptId, Attempt>,
    pub agents: BTreeMap<AgentName, Agent>,
    pub landing: Option<Landing>,
    pub base: Base,
    /// Tasks and lane entries numbered so far.
    pub entries: u64,
    pub metrics: Metrics,
    pub weighing: Weighing,
    /// What the machine the monitor runs on is short of, in words; nothing new starts then.
    pub shortage: Option<String>,
    /// How the machine's load exceeds the limit, in words; no task's attempt starts then.
    pub overload: Option<String>,
    /// What changed outside since the monitor started that is no attempt's: nobody ran.
    pub outside: Outside,
    /// Branches of ours that stand elsewhere and stay there, since somebody has them checked out, by
    /// full name, with the folder.
    pub held: BTreeMap<String, String>,
    /// How the external scheduler stands.
    pub proposal: Proposal,
    /// By group: how many agents there are to be, where that is not what the settings say.
    pub targets: BTreeMap<String, Target>,
    /// Those who left a group that grows and shrinks; they come back as they went.
    pub dismissed: BTreeMap<AgentName, Agent>,
    /// By group: whose models it uses, as its preset says; groups whose preset says nothing are not
    /// in it.
    pub providers: BTreeMap<String, String>,
    /// By provider: those that reached a limit or refused a key of late.
    pub pauses: BTreeMap<String, Pause>,
    /// Derived from all the above; kept by `apply`.
    pub index: Index,
}

impl State {
    /// Returns the state of a new project.
    #[must_use]
    pub fn new(settings: Settings, at: Time) -> Self {
        let mut state = Self {
            orchestration: settings.project.orchestration,
            rollout: settings.project.rollout,
            trial: Trial { since: at, ..Trial::default() },
            settings: Arc::new(settings),
            pinned: Vec::new(),
            is_paused: false,
            stopping: None,
            drain: None,
            current: None,
            collecting: None,
            monitor: MonitorFacts::default(),
            run: Run::default(),
            tasks: BTreeMap::new(),
            attempts: BTreeMap::new(),
            agents: BTreeMap::new(),
            landing: None,
            base: Base::default(),
            entries: 0,
            metrics: Metrics::default(),
            weighing: Weighing::default(),
            shortage: None,
            overload: None,
            outside: Outside::default(),
            held: BTreeMap::new(),
            proposal: Proposal::default(),
            targets: BTreeMap::new(),
            dismissed: BTreeMap::new(),
            providers: BTreeMap::new(),
            pauses: BTreeMap::new(),
            index: Index::default(),
        };
        super::crew::hire(&mut state, at);
        state
    }

    /// Returns the group that an agent is of.
    #[must_use]
    pub fn group_of(&self, agent: &Agent) -> Option<&AgentGroup> {
        self.settings.agents.get(agent.group)
    }

    /// Returns the settings that a live attempt was added under, by which it is run and judged.
    #[must_use]
    pub fn rules_of(&self, attempt: &Attempt) -> &Settings {
        let is_its = |settings: &&Arc<Settings>| settings.hash == attempt.settings;
        self.pinned.iter().find(is_its).unwrap_or(&self.settings)
    }

    /// Returns true while a task attempt runs.
    #[must_use]
    pub fn has_work(&self) -> bool {
        self.attempts.values().any(Attempt::is_work)
    }

    /// Returns true when only a person can move anything further, provided a turn has just found
    /// nothing to do.
    #[must_use]
    pub fn is_idle(&self) -> bool {
        self.attempts.is_empty()
            && !self.is_landing()
            && self.index.effects.is_empty()
            && self.index.backoff.is_empty()
            && self.drain.is_none()
            && super::turn::rate_deadline(self).is_none()
            && !super::turn::is_cooling_down(self)
            && !super::turn::is_declined(self)
            && !self.has_passing_trouble()
    }

    /// Returns true while a landing is under way that can come to an end without a person.
    #[must_use]
    pub fn is_landing(&self) -> bool {
        let bound = self.settings.limits.infrastructure_retries;
        let is_in_vain = self.is_base_check_stuck() && super::landing::disputed(self).is_some();
        let landing = self.landing.as_ref().filter(|_| !is_in_vain);
        landing.is_some_and(|landing| !landing.tries.is_stuck(bound))
    }

    /// Returns true when the checks of the base could not run, again and again past the bound: a
    /// person is needed, though they are tried on.
    #[must_use]
    pub fn is_base_check_stuck(&self) -> bool {
        self.base.check_tries.is_stuck(self.settings.limits.infrastructure_retries)
    }

    /// Returns the tries of the lane that are past their bound, so that a person is needed; it is
    /// tried on all the same, with pauses, and at once by the next monitor.
    #[must_use]
    pub fn stuck_lane(&self) -> Option<&Tries> {
        let bound = self.settings.limits.infrastructure_retries;
        let landing = self.landing.as_ref().map(|landing| &landing.tries);
        let dropping = self.base.dropping.as_ref().map(|dropping| &dropping.tries);
        let all = [landing, dropping, Some(&self.base.take_tries)];
        all.into_iter().flatten().find(|tries| tries.is_stuck(bound))
    }

    /// Returns true while something that failed is tried again without a person.
    fn has_passing_trouble(&self) -> bool {
        let bound = self.settings.limits.infrastructure_retries;
        let is_passing = |tries: &Tries| tries.until.is_some() && tries.failed <= bound;
        let follow = self.base.follow.as_ref().filter(|follow| follow.is_passing);
        let is_held_up = self.shortage.is_some() || self.overload.is_some();
        (is_held_up && super::turn::has_open_work(self))
            || follow.is_some_and(|follow| is_passing(&follow.tries))
            || is_passing(&self.base.take_tries)
            || self.base.dropping.as_ref().is_some_and(|dropping| is_passing(&dropping.tries))
            || is_passing(&self.base.check_tries)
    }

    /// Compares every index with a recount, and looks at the invariants above.
    ///
    /// # Panics
    /// When one does not hold: a fault of the program.
    pub fn check(&self) {
        let mut again = self.clone();
        super::index::rebuild(&mut again);
        assert_eq!(self.index, again.index, "an index differs from a recount");
        for (name, agent) in &self.agents {
            if let Some(id) = &agent.attempt {
                let attempt = self.attempts.get(id).expect("an agent's attempt is live");
                assert_eq!(&attempt.agent, name);
            }
        }
        super::crew::check(self);
        super::provider::check(self);
        let mut at_work = std::collections::BTreeSet::new();
        for attempt in self.attempts.values().filter(|attempt| attempt.is_work()) {
            assert_eq!(self.agents[&attempt.agent].attempt.as_ref(), Some(&attempt.id));
            assert!(at_work.insert(&attempt.task), "two attempts of {:?} are live", attempt.task);
        }
        for attempt in self.attempts.values() {
            assert_eq!(self.rules_of(attempt).hash, attempt.settings, "{}'s rules", attempt.id);
        }
        let is_pinned = |hash: &String| self.attempts.values().any(|a| a.settings == *hash);
        assert!(self.pinned.iter().all(|settings| is_pinned(&settings.hash)));
        for task in self.tasks.values() {
            let is_in_lane = matches!(task.phase, TaskPhase::Landing { .. });
            assert!(task.approval.is_none() || is_in_lane, "only a landing waits for approval");
            if let TaskPhase::Working { attempt, .. } = &task.phase {
                let live = self.attempts.get(attempt).and_then(|live| live.task.as_ref());
                assert_eq!(live, Some(&task.id), "a task is worked on by a live attempt");
            }
        }
        let rules = &self.settings.rollout.fallback;
        assert!(
            self.trial.landings.len() <= rules.window as usize,
            "more landings than the window"
        );
        let is_dropping = self.base.dropping.is_some();
        assert!(!is_dropping || self.landing.is_none(), "nothing lands on what is dropped");
        let is_following = self.base.follow.is_some();
        assert!(!is_following || self.rollout == Rollout::Production, "the base stays in pilot");
        let is_caught_up = self.base.landed == self.base.tip;
        assert!(!is_caught_up || self.base.behind == 0, "a base that stands there lacks nothing");
        if let Some(landing) = &self.landing {
            let phase = &self.tasks[&landing.task].phase;
            assert!(matches!(phase, TaskPhase::Landing { .. }), "what lands is in the lane");
        }
    }
}
