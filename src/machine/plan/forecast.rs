//! The run ahead: a copy of the state, a clock that jumps, and a kind world.

use std::cmp::Reverse;
use std::collections::{BTreeSet, BinaryHeap};

use super::{Assumed, Entry};
use crate::machine::agent::Agent;
use crate::machine::apply::apply;
use crate::machine::attempt::{Attempt, AttemptPhase, EndedBy, Exit, Marker};
use crate::machine::effect::{Effect, next_deadline, pending_effects};
use crate::machine::estimate;
use crate::machine::event::{Command, Event, EventBody, Observation};
use crate::machine::id::{AttemptId, Oid, TaskId};
use crate::machine::lane::LandingPhase;
use crate::machine::mode::{Isolation, Rollout};
use crate::machine::proposal;
use crate::machine::schedule;
use crate::machine::settings::Settings;
use crate::machine::state::State;
use crate::machine::step::step;
use crate::machine::time::Time;

/// Most attempts added by one turn.
const NONCES: u128 = 64;
/// Moments in a row at which nothing happens, after which nothing more is expected.
const QUIET_MAX: u32 = 1_000;
/// Stands for commits that there are none of.
const COMMIT: &str = "0000000000000000000000000000000000000000";

/// How far a run ahead goes at most, give or take a turn.
#[derive(Clone, Copy)]
pub(super) struct Bounds {
    /// Attempts that begin.
    pub(super) attempts: usize,
    /// Looks at work that may not start beside what runs.
    pub(super) looks: usize,
}

/// What came of a run ahead.
pub(super) struct Forecast {
    /// In the order in which it was decided, which is by start.
    pub(super) schedule: Vec<Entry>,
    pub(super) makespan_ms: u64,
    pub(super) end: State,
    pub(super) assumed: Vec<Assumed>,
    pub(super) is_cut: bool,
    /// Looks at work that could not start.
    pub(super) looks: usize,
}

impl Forecast {
    /// Runs `state` ahead from `at` on, by other settings where some are given, until nothing more
    /// happens by itself or a bound is reached.
    pub(super) fn run(state: &State, at: Time, settings: Option<Settings>, bounds: Bounds) -> Self {
        let mut ahead = Ahead {
            origin: state,
            state: state.clone(),
            from: at,
            now: at,
            random: 0,
            ends: BinaryHeap::new(),
            vain: BTreeSet::new(),
            schedule: Vec::new(),
            looks: 0,
            bounds,
        };
        let assumed = ahead.prepare(settings);
        ahead.take_up();
        ahead.go();
        // What is left does not wait for a pause.
        ahead.ask(Command::Resume);
        let is_full = ahead.is_full();
        let is_cut = is_full && !schedule::pick(&ahead.state, 1).assignments.is_empty();
        let ends = ahead.schedule.iter().map(|entry| entry.end_ms);
        let makespan_ms = ends.max().unwrap_or(0);
        let Ahead { schedule, state: end, looks, .. } = ahead;
        Self { schedule, makespan_ms, end, assumed, is_cut, looks }
    }
}

struct Ahead<'a> {
    /// What is known when the plan is made: durations come from it.
    origin: &'a State,
    state: State,
    from: Time,
    now: Time,
    random: u128,
    /// When what runs ends, and which was begun first.
    ends: BinaryHeap<Reverse<(Time, u128, AttemptId)>>,
    /// Effects whose answer changed nothing: not answered again.
    vain: BTreeSet<Effect>,
    schedule: Vec<Entry>,
    /// Looks at what is ready while an agent was free.
    looks: usize,
    bounds: Bounds,
}

impl Ahead<'_> {
    /// Feeds an event; returns whether it changed anything.
    fn feed(&mut self, body: EventBody) -> bool {
        self.random += 1;
        let event = Event { at: self.now, random: self.random, body };
        let decided = step(&self.state, &event);
        decided.changes.iter().for_each(|change| apply(&mut self.state, change));
        !decided.changes.is_empty()
    }

    fn see(&mut self, seen: Observation) -> bool {
        self.feed(EventBody::Observation(seen))
    }

    fn ask(&mut self, asked: Command) {
        self.feed(EventBody::Command(asked));
    }

    /// Brings about that a monitor runs and everything may start.
    fn prepare(&mut self, settings: Option<Settings>) -> Vec<Assumed> {
        let mut assumed = Vec::new();
        let has_trouble = self.state.base.red.is_some() || self.state.base.conflict.is_some();
        if has_trouble {
            assumed.push(Assumed::GoodBase);
        }
        self.see(Observation::MonitorStarted { pid: 0, allows_red_base: true });
        if self.state.is_paused {
            assumed.push(Assumed::Resumed);
            self.ask(Command::Resume);
        }
        if self.state.shortage.is_some() {
            assumed.push(Assumed::Room);
            self.see(Observation::ShortageSeen { what: None });
        }
        if self.state.overload.is_some() {
            assumed.push(Assumed::Calm);
            self.see(Observation::OverloadSeen { what: None });
        }
        if self.state.rollout == Rollout::Shadow {
            assumed.push(Assumed::Production);
            self.ask(Command::SetRollout { to: Rollout::Production, is_forced: true });
        }
        if self.state.settings.project.isolation == Isolation::Worktree {
            let base = &self.state.base;
            let known = base.tip.clone().filter(|_| base.conflict.is_none());
            let tip = known.unwrap_or_else(|| Oid::new(COMMIT));
            let landed = Some(base.landed.clone().unwrap_or_else(|| tip.clone()));
            self.see(Observation::BaseSeen { tip, landed });
        }
        if proposal::is_in_use(&self.state) {
            assumed.push(Assumed::BuiltIn);
        }
        if let Some(settings) = settings.or_else(|| built_in(&self.state.settings)) {
            self.ask(Command::AdoptSettings { settings: Box::new(settings) });
        }
        assumed.sort();
        assumed
    }

    /// Expects the end of what runs already.
    fn take_up(&mut self) {
        let is_running = |attempt: &&Attempt| attempt.phase == AttemptPhase::Running;
        let running = self.state.attempts.values().filter(is_running);
        let ids: Vec<AttemptId> = running.map(|attempt| attempt.id.clone()).collect();
        for id in ids {
            self.expect_end(&id, true);
        }
    }

    /// Notes when the attempt will end, and puts work into the schedule.
    fn expect_end(&mut self, id: &AttemptId, is_running: bool) {
        let attempt = &self.state.attempts[id];
        let Some((task, stage)) = attempt.task.clone().zip(attempt.stage().cloned()) else {
            self.ends.push(Reverse((self.now, self.random, id.clone())));
            return;
        };
        if !attempt.is_work() {
            self.ends.push(Reverse((self.now, self.random, id.clone())));
            return;
        }
        let (mut ms, mut least_ms) = self.durations(attempt, &task);
        if is_running {
            let begun = attempt.started_at.unwrap_or(attempt.assigned_at);
            ms = ms.saturating_sub(self.now.ms_since(begun)).max(ms / estimate::OVERDUE_PART);
            least_ms = ms;
        }
        let agent = attempt.agent.clone();
        let start_ms = self.now.ms_since(self.from);
        let end_ms = start_ms.saturating_add(ms);
        self.ends.push(Reverse((self.now.plus_ms(ms), self.random, id.clone())));
        self.schedule.push(Entry { task, stage, agent, start_ms, end_ms, is_running, least_ms });
    }

    /// Returns how long the attempt takes, and how long the fastest would.
    fn durations(&self, attempt: &Attempt, task: &TaskId) -> (u64, u64) {
        let (Some(task), Some(stage)) = (self.origin.tasks.get(task), attempt.stage()) else {
            return (0, 0);
        };
        let of = |group| estimate::of_stage(self.origin, task, stage, group);
        let ms = of(self.group_of(attempt));
        let groups = self.origin.settings.agents.iter();
        let serving = groups.filter(|group| group.stages.iter().any(|name| name == stage.as_str()));
        let least = serving.map(|group| of(Some(&group.name))).min();
        (ms, least.map_or(ms, |least| least.min(ms)))
    }

    /// Returns the group whose durations count; `None`: those of all.
    fn group_of(&self, attempt: &Attempt) -> Option<&str> {
        let settings = &self.origin.settings;
        if let Some(agent) = self.origin.agents.get(&attempt.agent) {
            return estimate::group_of(settings, agent);
        }
        // One more of a group is a group of its own, and can do what that group can.
        let own = self.state.settings.group_of(&attempt.agent)?;
        let is_like = |name: &&str| own.name.strip_prefix(name) == Some(super::ONE_MORE);
        settings.agents.iter().map(|group| group.name.as_str()).find(is_like)
    }

    /// Goes from moment to moment at which something happens.
    fn go(&mut self) {
        let mut quiet = 0;
        loop {
            let has_changed = self.settle();
            quiet = if has_changed { 0 } else { quiet + 1 };
            let end = self.ends.peek().map(|Reverse((at, ..))| *at);
            let deadline = next_deadline(&self.state).filter(|at| *at > self.now);
            let Some(next) = end.into_iter().chain(deadline).min() else { return };
            if quiet > QUIET_MAX {
                return;
            }
            self.now = next.max(self.now);
            while let Some(Reverse((at, ..))) = self.ends.peek()
                && *at <= self.now
            {
                let Some(Reverse((_, _, id))) = self.ends.pop() else { return };
                self.end(id, EndedBy::Exit);
            }
        }
    }

    /// Takes turns and does what is owed until nothing more is; returns whether anything changed.
    fn settle(&mut self) -> bool {
        let mut has_changed = false;
        loop {
            if self.is_full() && !self.state.is_paused {
                self.ask(Command::Pause);
            }
            let is_done = self.perform();
            let first = self.random << 64;
            let nonces = (0..NONCES).map(|n| first + n).collect();
            let is_turned = self.feed(EventBody::Turn { nonces });
            self.count_looks();
            if !is_done && !is_turned {
                return has_changed;
            }
            has_changed = true;
        }
    }

    fn is_full(&self) -> bool {
        self.schedule.len() >= self.bounds.attempts || self.looks >= self.bounds.looks
    }

    /// Counts what the turn looked at in vain: an agent that is free has been offered all there is.
    fn count_looks(&mut self) {
        if self.state.agents.values().any(Agent::is_free) {
            let queues = self.state.index.ready.values();
            self.looks += queues.map(|queues| queues.demands().len()).sum::<usize>();
        }
    }

    /// Does at once whatever the world owes.
    fn perform(&mut self) -> bool {
        let mut is_done = false;
        loop {
            let due = pending_effects(&self.state).find(|effect| !self.vain.contains(effect));
            let Some(effect) = due.cloned() else { return is_done };
            if self.answer(&effect) {
                is_done = true;
            } else {
                self.vain.insert(effect);
            }
        }
    }

    fn answer(&mut self, effect: &Effect) -> bool {
        match effect {
            Effect::Prepare { attempt, .. } => {
                let (base, tip) = (Some(Oid::new(COMMIT)), None);
                self.see(Observation::Prepared { attempt: attempt.clone(), base, tip })
            }
            Effect::Start { attempt, .. } => {
                let at = self.now;
                let is_seen = self.see(Observation::Started { attempt: attempt.clone(), at });
                if is_seen {
                    self.expect_end(attempt, false);
                }
                is_seen
            }
            Effect::Stop { attempt } => self.end(attempt.clone(), EndedBy::Stop),
            Effect::Save { attempt, .. } => {
                let (attempt, commit) = (attempt.clone(), None);
                let markers = Vec::new();
                self.see(Observation::Saved {
                    attempt,
                    commit,
                    has_changed: true,
                    markers,
                    notes: Vec::new(),
                    lacks: None,
                })
            }
            Effect::Advance { attempt, .. } => {
                self.see(Observation::Advanced { attempt: attempt.clone(), changed: None })
            }
            Effect::TakeBase { base, landed, .. } => {
                let landed = landed.clone().unwrap_or_else(|| base.clone());
                self.see(Observation::BaseTaken { base: base.clone(), landed, has_all: false })
            }
            Effect::Merge { task, number, .. } | Effect::Land { task, number, .. } => {
                self.land(task, *number)
            }
            Effect::Follow { to, .. } => self.see(Observation::Followed { to: to.clone() }),
            // Nothing is landed before that is done, and what is planned begins after it.
            Effect::Drop { to, .. } => {
                self.see(Observation::PilotDropped { to: to.clone(), lost: Vec::new() })
            }
            // Nobody is asked: what it would say is not known.
            Effect::Propose { .. } => false,
        }
    }

    fn land(&mut self, task: &TaskId, number: u32) -> bool {
        let made = self.state.landing.as_ref().and_then(|landing| match &landing.phase {
            LandingPhase::Moving { commit, .. } => Some(commit.clone()),
            LandingPhase::Merging | LandingPhase::Checking { .. } => None,
        });
        let landed = self.state.base.landed.clone();
        let commit = made.or(landed).unwrap_or_else(|| Oid::new(COMMIT));
        self.see(Observation::AlreadyLanded { task: task.clone(), number, commit })
    }

    fn end(&mut self, id: AttemptId, ended_by: EndedBy) -> bool {
        let Some(attempt) = self.state.attempts.get(&id) else { return false };
        let exit = Exit {
            started_at: attempt.started_at.unwrap_or(self.now),
            ended_at: self.now,
            code: Some(0),
            signal: None,
            ended_by,
            command_index: 0,
            leaked: 0,
            cpu_ms: 0,
            rss_kib_max: 0,
            usage: crate::machine::usage::Usage::default(),
            fault: None,
            marker: Some(Marker::Completed),
            notes: String::new(),
            tail: String::new(),
        };
        self.see(Observation::Exited { attempt: id, exit: Box::new(exit) })
    }
}

/// Returns settings by which nobody else is asked who gets what; `None`: those are.
fn built_in(settings: &Settings) -> Option<Settings> {
    let has_command = !settings.scheduler.command.is_empty();
    has_command.then(|| {
        let mut changed = settings.clone();
        changed.hash = "plan".into();
        changed.scheduler.command.clear();
        changed
    })
}
