//! A monitor of the simulation: the program's own loop with a port to the modelled world, started
//! and ended as `monitor::run` does it.

use std::cell::Cell;
use std::collections::{BTreeMap, BTreeSet};
use std::rc::Rc;
use std::time::Duration;

use pipeline::machine::agent::Agent;
use pipeline::machine::attempt::{Attempt, AttemptPhase};
use pipeline::machine::change::TaskChange;
use pipeline::machine::event::StopKind;
use pipeline::machine::forecast::trial;
use pipeline::machine::id::{AgentName, AttemptId, TaskId};
use pipeline::machine::mode::{Isolation, Rollout};
use pipeline::machine::schedule::ahead;
use pipeline::machine::time::Time;
use pipeline::machine::{Change, Command, Effect, EventBody, Observation, State};
use pipeline::monitor::cycle::{Cycle, World as Port};
use pipeline::store::ledger::{Ledger, LedgerError};
use pipeline::sys::clock::Clock;

use super::dice::Dice;
use super::disk::Disk;
use super::mend::Mending;
use super::post::Ask;
use super::propose;
use super::repo::{Commit, commit_of};
use super::work::{What, of_effect};
use super::world::{Order, Place, Probe, Report, World};

/// Longest that a monitor goes without a look of its own, in milliseconds.
const POLL_MS: u64 = 30_000;
/// As in `monitor::world::keepers`.
const STARTS_MAX: u32 = 3;
/// Between two looks at a load that is too high.
const LOAD_MS: u64 = 5_000;

/// Steady within a process: wall time at its start, and the monotonic clock since.
#[derive(Debug, Clone)]
pub struct SteadyClock {
    wall: u64,
    start: u64,
    mono: Rc<Cell<u64>>,
}

impl SteadyClock {
    /// Anchors a clock.
    pub fn start(wall: u64, mono: &Rc<Cell<u64>>) -> Self {
        Self { wall, start: mono.get(), mono: Rc::clone(mono) }
    }
}

impl SteadyClock {
    /// Returns a clock that is not before `time`, as `SystemClock::start_after`.
    fn after(self, time: Time) -> Self {
        Self { wall: self.wall.max(time.as_ms()), ..self }
    }
}

impl Clock for SteadyClock {
    fn now(&self) -> Time {
        Time::from_ms(self.wall + self.mono.get() - self.start)
    }
}

/// What the loop asked for, to be begun by the simulation.
#[derive(Debug)]
enum Asked {
    Git(What),
    Ahead(BTreeMap<Place, Commit>),
    Start(Box<Order>),
    Find(AttemptId, AgentName, AttemptPhase),
    Stop(AttemptId, AgentName),
}

/// The loop's side of the world.
#[derive(Debug)]
pub struct Door {
    asked: Vec<Asked>,
    told: Vec<Change>,
    inherited: BTreeSet<AttemptId>,
    dice: Dice,
}

impl Port for Door {
    fn begin(&mut self, effect: &Effect, state: &State) {
        let has_git = state.settings.project.isolation == Isolation::Worktree;
        match effect {
            Effect::Start { attempt, .. } => {
                let Some(found) = state.attempts.get(attempt) else { return };
                let (id, agent) = (attempt.clone(), found.agent.clone());
                if self.inherited.remove(&id) {
                    self.asked.push(Asked::Find(id, agent, found.phase));
                } else if let Some(order) = Order::of(state, &id) {
                    self.asked.push(Asked::Start(Box::new(order)));
                }
            }
            Effect::Stop { attempt } => {
                let found = state.attempts.get(attempt);
                let asked = found.map(|found| Asked::Stop(attempt.clone(), found.agent.clone()));
                self.asked.extend(asked);
            }
            Effect::Prepare { attempt, .. } => {
                self.inherited.remove(attempt);
                self.asked.extend(of_effect(effect, state).map(Asked::Git));
            }
            Effect::Propose { number } => {
                let answer = propose::answer(state, *number, &mut self.dice);
                self.asked.push(Asked::Git(What::Propose(Box::new(answer))));
            }
            Effect::Save { .. }
            | Effect::Advance { .. }
            | Effect::TakeBase { .. }
            | Effect::Merge { .. }
            | Effect::Land { .. }
            | Effect::Drop { .. }
            | Effect::Follow { .. } => {
                assert!(has_git, "{effect:?} without git");
                let is_of_lane = !matches!(effect, Effect::Save { .. } | Effect::Advance { .. });
                let is_shadow = state.rollout == Rollout::Shadow;
                assert!(!is_of_lane || !is_shadow, "I27: shadow begins {effect:?}");
                let is_following = matches!(effect, Effect::Follow { .. });
                let may_follow = state.rollout == Rollout::Production;
                assert!(!is_following || may_follow, "I27: the base follows");
                self.asked.extend(of_effect(effect, state).map(Asked::Git));
            }
        }
    }

    fn tell(&mut self, changes: &[Change], state: &State, _: u64, _: Time) {
        self.told = changes.to_vec();
        for change in changes {
            if let Change::Task(id, TaskChange::TipMoved { .. }) = change {
                let trial = trial(state, id).map(|trial| What::Try(Box::new(trial)));
                self.asked.extend(trial.map(Asked::Git));
            }
        }
    }

    fn heed(&mut self, _: &State) {}

    fn look_ahead(&mut self, state: &State) {
        let has_git = state.settings.project.isolation == Isolation::Worktree;
        let mut wanted: BTreeMap<Place, Commit> = BTreeMap::new();
        let found = ahead(state);
        assert!(found.len() as f64 <= state.settings.prefetch() * state.agents.len() as f64);
        let tasks: BTreeSet<&TaskId> = found.iter().map(|ahead| &ahead.task).collect();
        assert_eq!(tasks.len(), found.len(), "a task is prepared for twice");
        for ahead in &found {
            assert!(has_git && state.rollout != Rollout::Shadow, "I27: {ahead:?}");
            let is_there = |it: &Attempt| it.agent == ahead.agent && it.slot == ahead.slot;
            let user = state.attempts.values().find(|attempt| is_there(attempt));
            assert!(user.is_none(), "I9: {ahead:?} while {user:?} has the worktree");
            let place = (ahead.agent.clone(), ahead.slot);
            assert!(wanted.insert(place, commit_of(&ahead.at)).is_none(), "twice: {ahead:?}");
        }
        self.asked.push(Asked::Ahead(wanted));
    }

    fn warn(&mut self, _: &str) {}

    fn random(&mut self, count: usize) -> std::io::Result<Vec<u128>> {
        Ok((0..count).map(|_| u128::from(self.dice.draw())).collect())
    }
}

/// How far a monitor has come.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Boot {
    Begun,
    Recorded,
    /// The base was looked at; the attempts that ran are to be found again.
    Finding(Vec<AttemptId>),
    Up,
}

/// One monitor's life.
pub struct Monitor {
    pub cycle: Cycle<Disk, Door, SteadyClock>,
    pub number: u32,
    pub is_paused: bool,
    pub inbox: Vec<Report>,
    pub asks: Vec<Command>,
    boot: Boot,
    stop: Option<StopKind>,
    has_stop_order: bool,
    has_more: bool,
    next_poll: Time,
    /// When it looked at the load last.
    loaded_at: Time,
    is_leaving: bool,
    /// Its last transaction failed: what it has in memory is read anew by the next one.
    pub is_stale: bool,
    /// How often it has looked by itself.
    pub polls: u64,
    /// Attempts that could not be looked for, or whose keeper did not answer.
    unprobed: BTreeSet<AttemptId>,
    /// How many keepers have died before they began an attempt.
    false_starts: BTreeMap<AttemptId, u32>,
}

/// What a step of a monitor led to.
pub enum Lived {
    On,
    /// It ended: by itself, or since its journal failed.
    Ended,
}

impl Monitor {
    /// Takes the lock and reads the journal: the first of its steps.
    pub fn start(
        disk: &Disk,
        clock: SteadyClock,
        number: u32,
        stop: Option<StopKind>,
        dice: &mut Dice,
    ) -> Self {
        let (ledger, _) = Ledger::open(disk.another(), "monitor").expect("the journal is whole");
        let inherited = ledger.state().attempts.keys().cloned().collect();
        let (asked, told, dice) = (Vec::new(), Vec::new(), Dice(dice.draw()));
        let door = Door { asked, told, inherited, dice };
        let clock = clock.after(ledger.time());
        let next_poll = clock.now().plus_ms(POLL_MS);
        Self {
            cycle: Cycle::new(ledger, door, clock, Duration::ZERO),
            number,
            is_paused: false,
            inbox: Vec::new(),
            asks: Vec::new(),
            boot: Boot::Begun,
            stop,
            has_stop_order: stop.is_some(),
            has_more: false,
            next_poll,
            loaded_at: Time::default(),
            is_leaving: false,
            is_stale: false,
            polls: 0,
            unprobed: BTreeSet::new(),
            false_starts: BTreeMap::new(),
        }
    }

    /// Returns the time by its clock.
    pub fn now(&self) -> Time {
        self.cycle.clock.now()
    }

    /// Returns true once it has taken over.
    pub fn is_up(&self) -> bool {
        self.boot == Boot::Up
    }

    /// Returns true when it looks for an attempt again at the next poll.
    pub fn is_in_doubt(&self) -> bool {
        !self.unprobed.is_empty()
    }

    /// Returns true when its last transaction left something to decide.
    pub fn has_more(&self) -> bool {
        self.has_more
    }

    /// Returns true when a step would do something now.
    pub fn has_news(&self) -> bool {
        let now = self.cycle.clock.now();
        let is_due = self.cycle.deadline().is_some_and(|at| at <= now)
            || now >= self.next_poll
            || self.load_due_at().is_some_and(|at| at <= now);
        !self.is_up() || self.has_more || is_due || !self.inbox.is_empty() || !self.asks.is_empty()
    }

    /// Returns when it will look again, if nothing happens.
    pub fn wakes_at(&self) -> Time {
        let moments = [self.cycle.deadline(), self.load_due_at()];
        moments.into_iter().flatten().fold(self.next_poll, Time::min)
    }

    /// As `monitor::overload`: when to look whether the load has fallen.
    fn load_due_at(&self) -> Option<Time> {
        self.cycle.ledger.state().overload.as_ref()?;
        Some(self.loaded_at.plus_ms(LOAD_MS))
    }

    /// As `monitor::overload`: what is to be told before anything is decided.
    fn look_at_load(&mut self, world: &mut World) -> Option<EventBody> {
        let state = self.cycle.ledger.state();
        self.loaded_at = self.cycle.clock.now();
        let is_over = world.is_overloaded && state.settings.scheduler.load_limit > 0.0;
        if state.overload.is_some() == is_over {
            return None;
        }
        world.marks.hit(if is_over { "the load is too high" } else { "the load has fallen" });
        let what = is_over.then(|| "the load is 9".to_owned());
        Some(EventBody::Observation(Observation::OverloadSeen { what }))
    }

    /// Takes the next step.
    pub fn step(&mut self, world: &mut World, dice: &mut Dice) -> Lived {
        let result = match self.boot.clone() {
            Boot::Begun => self.record(world),
            Boot::Recorded => self.look(world, dice),
            Boot::Finding(mut left) => {
                if let Some(id) = left.pop() {
                    self.find_running(&id, world, dice);
                }
                self.boot = if left.is_empty() { Boot::Up } else { Boot::Finding(left) };
                return Lived::On;
            }
            Boot::Up => self.go(world, dice),
        };
        match result {
            Ok(false) => Lived::On,
            Ok(true) => {
                self.finish();
                Lived::Ended
            }
            // As `monitor::outage`: what happened is kept for the next transaction.
            Err(error) if error.is_passing() && self.is_up() && dice.permille(700) => {
                world.marks.hit("a monitor waits until its journal can be written");
                self.has_more = true;
                self.is_stale = true;
                Lived::On
            }
            Err(_) => {
                world.marks.hit("a monitor ends with a failed journal");
                self.finish();
                Lived::Ended
            }
        }
    }

    /// Returns what its last record says, for the judge.
    pub fn take_told(&mut self) -> Vec<Change> {
        std::mem::take(&mut self.cycle.world.told)
    }

    fn record(&mut self, world: &World) -> Result<bool, LedgerError> {
        let mut bodies: Vec<EventBody> = self.asks.drain(..).map(EventBody::Command).collect();
        let (pid, allows_red_base) = (self.number, world.is_kind);
        let seen = Observation::MonitorStarted { pid, allows_red_base };
        bodies.push(EventBody::Observation(seen));
        self.cycle.record(bodies)?;
        self.boot = Boot::Recorded;
        Ok(false)
    }

    fn look(&mut self, world: &mut World, dice: &mut Dice) -> Result<bool, LedgerError> {
        let mut bodies = Vec::new();
        let has_git = self.cycle.ledger.state().settings.project.isolation == Isolation::Worktree;
        if has_git {
            // A base that is gone ends it, with words.
            let Some(seen) = world.seen() else { return Ok(true) };
            bodies.push(EventBody::Observation(seen));
        }
        bodies.extend(self.agents_seen(world).map(EventBody::Observation));
        bodies.extend(self.stop.take().map(|kind| EventBody::Command(Command::Stop { kind })));
        let attempts = self.cycle.ledger.state().attempts.values();
        let running = attempts.filter(|attempt| attempt.phase == AttemptPhase::Running);
        let running = running.map(|attempt| attempt.id.clone()).collect();
        self.run(bodies, world, dice)?;
        self.boot = Boot::Finding(running);
        Ok(false)
    }

    fn find_running(&mut self, id: &AttemptId, world: &mut World, dice: &mut Dice) {
        let is_open = |attempt: &&Attempt| {
            matches!(attempt.phase, AttemptPhase::Starting | AttemptPhase::Running)
        };
        let found = self.cycle.ledger.state().attempts.get(id).filter(is_open);
        if let Some((agent, phase)) = found.map(|found| (found.agent.clone(), found.phase)) {
            self.find_again(id, &agent, phase, world, dice);
        }
    }

    fn go(&mut self, world: &mut World, dice: &mut Dice) -> Result<bool, LedgerError> {
        if !self.is_stale && self.is_over() {
            return Ok(true);
        }
        let now = self.cycle.clock.now();
        if now >= self.next_poll {
            self.poll(world, dice);
            self.next_poll = now.plus_ms(POLL_MS);
        }
        let mut bodies: Vec<EventBody> = self.asks.drain(..).map(EventBody::Command).collect();
        let count = 1 + dice.below(3);
        for _ in 0..count.min(self.inbox.len()) {
            let report = self.inbox.swap_remove(dice.below(self.inbox.len()));
            bodies.extend(self.take(report, world, dice));
        }
        let moments = [self.cycle.deadline(), self.load_due_at()];
        let is_due = moments.into_iter().flatten().any(|at| at <= now);
        if bodies.is_empty() && !is_due && !self.has_more && !self.cycle.notice()? {
            return Ok(false);
        }
        self.run(bodies, world, dice)?;
        Ok(false)
    }

    fn run(
        &mut self,
        bodies: Vec<EventBody>,
        world: &mut World,
        dice: &mut Dice,
    ) -> Result<(), LedgerError> {
        let load = self.look_at_load(world);
        let cycled = self.cycle.run(load.into_iter().chain(bodies).collect())?;
        self.has_more = cycled.has_more;
        self.is_stale = false;
        self.perform(world, dice);
        Ok(())
    }

    /// Begins what the loop asked for.
    fn perform(&mut self, world: &mut World, dice: &mut Dice) {
        for asked in std::mem::take(&mut self.cycle.world.asked) {
            match asked {
                Asked::Git(what) => world.begin(self.number, what, dice),
                Asked::Ahead(wanted) => world.want(self.number, wanted, dice),
                Asked::Start(order) => world.order(self.number, *order, dice),
                Asked::Find(id, agent, phase) => self.find_again(&id, &agent, phase, world, dice),
                Asked::Stop(id, agent) => world.send(self.number, agent, Ask::Stop(id), dice),
            }
        }
    }

    fn take(&mut self, report: Report, world: &mut World, dice: &mut Dice) -> Option<EventBody> {
        match report {
            Report::Seen(seen) => Some(EventBody::Observation(seen)),
            Report::Started(attempt) => {
                let known = self.cycle.ledger.state().attempts.get(&attempt);
                let is_news = known.is_some_and(|known| known.phase == AttemptPhase::Starting);
                let at = self.cycle.clock.now();
                is_news.then_some(EventBody::Observation(Observation::Started { attempt, at }))
            }
            Report::KeeperLost(id, found) => {
                let known = self.cycle.ledger.state().attempts.get(&id);
                if let Some(phase) = known.map(|known| known.phase) {
                    self.keeper_lost(&id, phase, found, world, dice);
                }
                None
            }
            Report::Looked(seen) => {
                let state = self.cycle.ledger.state();
                let mending =
                    Mending::of(state, &seen).filter(|_| state.rollout != Rollout::Shadow);
                if let Some(mending) = mending {
                    world.begin(self.number, What::Mend(mending), dice);
                }
                None
            }
            Report::Superseded(id) => {
                self.find_running(&id, world, dice);
                self.cycle.begin_again(&Effect::Stop { attempt: id });
                self.perform(world, dice);
                None
            }
            Report::Doubtful(id) => {
                world.marks.hit("an attempt is in doubt and looked for again");
                self.unprobed.insert(id);
                None
            }
        }
    }

    /// As `RealWorld::find_again`.
    fn find_again(
        &mut self,
        id: &AttemptId,
        agent: &AgentName,
        phase: AttemptPhase,
        world: &mut World,
        dice: &mut Dice,
    ) {
        let unreadable = world.mix.unreadable;
        if world.fails(dice, unreadable, "an attempt's record cannot be read") {
            // That says nothing of the attempt, which may be running: it is looked for again.
            self.unprobed.insert(id.clone());
            return;
        }
        match world.probe(id, agent) {
            Probe::KeeperAlive => world.adopt(self.number, id, agent),
            Probe::Ended(seen) => self.inbox.push(Report::Seen(*seen)),
            found @ (Probe::Strays | Probe::Started | Probe::Nothing) => {
                self.keeper_lost(id, phase, found, world, dice);
            }
        }
    }

    /// As `RealWorld::keeper_lost`.
    fn keeper_lost(
        &mut self,
        id: &AttemptId,
        phase: AttemptPhase,
        found: Probe,
        world: &mut World,
        dice: &mut Dice,
    ) {
        if found == Probe::Nothing && phase == AttemptPhase::Starting {
            let state = self.cycle.ledger.state();
            let is_stopping = state.attempts.get(id).is_some_and(|found| found.is_stopping);
            let count = self.false_starts.entry(id.clone()).or_default();
            *count += 1;
            if world.has_fates && (*count >= STARTS_MAX || is_stopping) {
                world.marks.hit("keepers in a row die before they begin");
                let why = "keepers in a row died before they began".to_owned();
                let seen = Observation::AttemptFaulted { attempt: id.clone(), why };
                self.inbox.push(Report::Seen(seen));
            } else if let Some(order) = Order::of(state, id) {
                world.marks.hit("an attempt is launched again");
                world.order(self.number, order, dice);
            }
            return;
        }
        world.begin_lost(self.number, id.clone(), found, dice);
    }

    /// As `RealWorld::look_at_agents`: which programs are there, if that is news.
    fn agents_seen(&self, world: &World) -> Option<Observation> {
        let state = self.cycle.ledger.state();
        let is_missing = |agent: &Agent| {
            state.group_of(agent).is_some_and(|group| world.missing.contains(&group.name))
        };
        let is_known = |agent: &Agent| agent.unusable.is_some() == is_missing(agent);
        (!state.agents.values().all(is_known)).then(|| world.agents())
    }

    /// As `Monitor::poll`: the safety net.
    fn poll(&mut self, world: &mut World, dice: &mut Dice) {
        self.polls += 1;
        for id in std::mem::take(&mut self.unprobed) {
            self.find_running(&id, world, dice);
        }
        self.inbox.extend(self.agents_seen(world).map(Report::Seen));
        let state = self.cycle.ledger.state();
        if state.settings.project.isolation == Isolation::Worktree {
            world.begin(self.number, What::Look, dice);
            world.begin(self.number, What::LookAtRefs(None), dice);
        }
        let running: Vec<(AttemptId, AgentName)> = state
            .attempts
            .values()
            .filter(|attempt| attempt.phase == AttemptPhase::Running)
            .map(|attempt| (attempt.id.clone(), attempt.agent.clone()))
            .collect();
        for (id, agent) in running {
            match world.probe(&id, &agent) {
                Probe::Ended(seen) => self.inbox.push(Report::Seen(*seen)),
                Probe::KeeperAlive => {}
                found @ (Probe::Strays | Probe::Started | Probe::Nothing) => {
                    self.keeper_lost(&id, AttemptPhase::Running, found, world, dice);
                }
            }
        }
    }

    /// As `Monitor::end`, for a monitor that runs until it is told.
    fn is_over(&mut self) -> bool {
        let state = self.cycle.ledger.state();
        let is_performing = self.cycle.is_performing();
        match state.stopping {
            // It waits some seconds for what it performs, no longer.
            Some(StopKind::Leave) if self.is_leaving => true,
            Some(StopKind::Leave) => {
                self.is_leaving = true;
                !is_performing
            }
            Some(StopKind::Drain | StopKind::Now) => {
                let is_over = state.attempts.is_empty() && !state.is_landing();
                is_over && !is_performing
            }
            None => self.has_stop_order,
        }
    }

    fn finish(&mut self) {
        self.cycle.world.told.clear();
        let why = "ended".to_owned();
        let ended = EventBody::Observation(Observation::MonitorEnded { why });
        // After a failed journal this may fail too; then the next monitor says that it started.
        let _ = self.cycle.record(vec![ended]);
    }
}
