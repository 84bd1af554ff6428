//! One run: first anything may go wrong, then nothing does, and all must come to its end.

use std::cell::{Cell, RefCell};
use std::collections::BTreeSet;
use std::rc::Rc;
use std::time::Duration;

use pipeline::machine::attempt::Class;
use pipeline::machine::event::RetryTarget;
use pipeline::machine::id::{AgentName, Oid, TaskId};
use pipeline::machine::lane::LandingPhase;
use pipeline::machine::mode::{Isolation, Orchestration, Rollout};
use pipeline::machine::schedule::can_serve;
use pipeline::machine::task::{TaskKind, TaskPhase};
use pipeline::machine::time::Time;
use pipeline::machine::{Answer, Command, Event, EventBody, Observation, State, gate, turn};
use pipeline::store::ledger::{Ledger, Turns};
use pipeline::store::memory::{Fault, MemoryStore};
use pipeline::store::{Checkpoint, Json, format};
use pipeline::sys::clock::Clock;

use super::audit::Audit;
use super::dice::Dice;
use super::git::{BASE, LANDED, task_ref};
use super::mix::Mix;
use super::monitor::{Clocks, Monitor, ProcessClock};
use super::people::{command, some_settings, waiting_for_approval};
use super::place::Place;

/// Rounds in which a world without faults must bring everything to its end.
const ROUNDS_MAX: usize = 8_000;

/// Changes told of a failure.
const STORY_MAX: usize = 40;

/// A whole modelled machine with the program on it.
pub struct Sim {
    dice: Dice,
    mix: Mix,
    store: MemoryStore,
    clocks: Rc<Clocks>,
    place: Rc<RefCell<Place>>,
    monitor: Option<Monitor>,
    monitors: u32,
    audit: Audit,
    settings_made: u64,
    /// Refs that people took away: what only they held may be gone.
    has_been_robbed: bool,
    /// Kinds of events that took place.
    pub did: BTreeSet<&'static str>,
    pub steps: u64,
}

impl Sim {
    pub fn new(mut dice: Dice) -> Self {
        let mix = Mix::draw(&mut dice);
        let settings = some_settings(&mut dice, None);
        let clocks = Rc::new(Clocks { steady: Cell::new(0), wall: Cell::new(1_000_000) });
        let at = Time::from_ms(clocks.wall.get());
        let state = State::new(settings, at);
        let state = Json::of(&format::state_value(&state)).expect("a state is JSON");
        let store = MemoryStore::create(Checkpoint { seq: 0, time: at, state });
        let audit = Audit::new(store.another());
        let place = Rc::new(RefCell::new(Place::new(mix)));
        Self {
            dice,
            mix,
            store,
            clocks,
            place,
            monitor: None,
            monitors: 0,
            audit,
            settings_made: 0,
            has_been_robbed: false,
            did: BTreeSet::new(),
            steps: 0,
        }
    }

    /// Runs both phases; panics where a promise breaks.
    pub fn run(&mut self, events: usize) {
        self.start_monitor(3);
        for _ in 0..events {
            if !self.dice.next_event() {
                break;
            }
            self.event();
            self.check();
        }
        self.audit.state.check();
        self.audit.refold();
        self.heal();
        self.finish();
    }

    pub fn ways(&self) -> &BTreeSet<&'static str> {
        &self.audit.ways
    }

    /// Has every change of the journal noted, for the story of a failure.
    pub fn tell_all(&mut self) {
        self.audit.story = Some(Vec::new());
    }

    /// Returns the newest changes of the journal, oldest first.
    pub fn story(&self) -> String {
        let told = self.audit.story.as_deref().unwrap_or_default();
        told[told.len().saturating_sub(STORY_MAX)..].join("\n  ")
    }

    pub fn into_dice(self) -> Dice {
        self.dice
    }

    fn now(&self) -> Time {
        match &self.monitor {
            Some(monitor) => monitor.cycle.clock.now(),
            None => Time::from_ms(self.clocks.wall.get()),
        }
    }

    fn pass_ms(&self, ms: u64) {
        self.clocks.steady.set(self.clocks.steady.get() + ms);
        self.clocks.wall.set(self.clocks.wall.get() + ms);
    }

    fn did(&mut self, what: &'static str) {
        self.did.insert(what);
    }

    fn event(&mut self) {
        if self.trouble() {
            return;
        }
        if self.monitor.is_none() && self.dice.percent(30) {
            let steps = if self.dice.percent(self.mix.crash * 3) { self.dice.below(3) } else { 3 };
            return self.start_monitor(steps);
        }
        match self.dice.below(100) {
            0..=37 => self.advance(),
            38..=69 => self.deliver(),
            70..=81 => self.finish_one(),
            82..=89 => self.pass_time(),
            90 | 91 => self.poll(),
            _ => {
                if self.dice.percent(self.mix.command * 5) {
                    self.command();
                }
            }
        }
    }

    /// One of the faults of the mix; returns false when none was drawn.
    fn trouble(&mut self) -> bool {
        let mix = self.mix;
        if self.dice.percent(mix.crash) {
            self.did("crash");
            self.lose_monitor();
        } else if self.dice.percent(mix.power) {
            self.did("power cut");
            self.lose_power();
        } else if self.dice.percent(mix.keeper) {
            self.did("keeper killed");
            self.place.borrow_mut().kill_keeper(&mut self.dice);
        } else if self.dice.percent(mix.write) {
            let fault = if self.dice.percent(50) { Fault::Tear(1) } else { Fault::Refuse };
            self.did(if fault == Fault::Refuse { "write refused" } else { "write torn" });
            self.store.fail_next(fault);
        } else if self.dice.percent(mix.jump) {
            self.did("clock jump");
            let by = self.dice.next() % 7_200_000;
            let wall = self.clocks.wall.get() + by;
            self.clocks.wall.set(wall.saturating_sub(3_600_000).max(1));
        } else if self.dice.percent(mix.people) {
            self.people();
        } else if self.dice.percent(mix.settings) {
            self.did("settings");
            self.adopt();
        } else {
            let is_stopping = self.monitor.as_ref().is_some_and(|m| m.state().stopping.is_some());
            if !(is_stopping && self.dice.percent(15)) {
                return false;
            }
            self.did("stop");
            self.end_monitor();
        }
        true
    }

    fn start_monitor(&mut self, steps: usize) {
        self.monitors += 1;
        let started = Monitor::start(self.monitors, &self.store, &self.place, &self.clocks, steps);
        match started {
            Ok(monitor) if steps == 3 => self.monitor = Some(monitor),
            Ok(_) | Err(_) => {
                self.did("killed at its start");
                let now = Time::from_ms(self.clocks.wall.get());
                self.place.borrow_mut().lose_monitor(&mut self.dice, now);
            }
        }
    }

    fn lose_monitor(&mut self) {
        let now = self.now();
        self.monitor = None;
        self.place.borrow_mut().lose_monitor(&mut self.dice, now);
    }

    fn end_monitor(&mut self) {
        if let Some(monitor) = &mut self.monitor {
            let seen = Observation::MonitorEnded { why: "asked to".into() };
            // When that cannot be recorded it ends all the same.
            let _ = monitor.cycle.record(vec![EventBody::Observation(seen)]);
        }
        self.lose_monitor();
    }

    fn lose_power(&mut self) {
        let now = self.now();
        self.monitor = None;
        self.place.borrow_mut().lose_power(&mut self.dice, now);
        let kept = self.dice.below(2);
        self.store.crash(kept);
        self.audit.after_power_cut();
    }

    fn advance(&mut self) {
        let now = self.now();
        self.place.borrow_mut().advance_one(&mut self.dice, now);
    }

    fn finish_one(&mut self) {
        let now = self.now();
        self.place.borrow_mut().finish_one(&mut self.dice, now);
    }

    /// A few letters reach the monitor, in any order.
    fn deliver(&mut self) {
        let Some(monitor) = &mut self.monitor else { return };
        let mut mail = Vec::new();
        {
            let mut place = self.place.borrow_mut();
            for _ in 0..=self.dice.below(3) {
                if !place.mail.is_empty() {
                    let at = self.dice.below(place.mail.len());
                    mail.push(place.mail.swap_remove(at));
                }
            }
        }
        let seen = monitor.open(mail);
        self.handle(seen);
    }

    fn poll(&mut self) {
        if let Some(monitor) = &mut self.monitor {
            let seen = monitor.poll();
            self.handle(seen);
        }
    }

    fn pass_time(&mut self) {
        let ms = self.dice.next() % 8_000;
        self.pass_ms(ms);
        self.handle(Vec::new());
    }

    /// The monitor's turn; what fails is tried again with the next one.
    fn handle(&mut self, seen: Vec<Observation>) {
        let Some(monitor) = &mut self.monitor else { return };
        if monitor.handle(seen).is_ok() {
            self.audit.acknowledged = self.audit.acknowledged.max(monitor.cycle.ledger.seq());
        }
    }

    /// Another process gives a command; returns what it was answered, if it was.
    fn ask(&mut self, asked: Command) -> Option<Answer> {
        let (mut ledger, _) = Ledger::open(self.store.another(), "cli").expect("it can be read");
        let at = ProcessClock::start(&self.clocks).now();
        self.audit.catch_up();
        self.audit.is_retry |= matches!(asked, Command::RetryTasks { .. });
        let random = u128::from(self.dice.next());
        let event = Event { at, random, body: EventBody::Command(asked) };
        let before = ledger.seq();
        let done = ledger.transact(Duration::ZERO, at, &[event], Turns::None).ok()?;
        let answer = done.answers.into_iter().next()?;
        self.audit.acknowledged = self.audit.acknowledged.max(ledger.seq());
        if let Answer::Refuse(_) = answer {
            assert_eq!(ledger.seq(), before, "a refused command changed something");
        }
        Some(answer)
    }

    fn command(&mut self) {
        let asked = command(&self.audit.state, &mut self.dice);
        if self.ask(asked).is_some() {
            self.did("command");
        }
        // Mostly the monitor hears of it at once; else it finds it with its next transaction.
        if self.dice.percent(70) {
            self.handle(Vec::new());
        }
    }

    fn adopt(&mut self) {
        self.settings_made += 1;
        let old = self.audit.state.settings.clone();
        let mut new = some_settings(&mut self.dice, Some(&old));
        new.hash = format!("{:016}", self.settings_made);
        self.ask(Command::AdoptSettings { settings: Box::new(new) });
    }

    /// Somebody works in the repository.
    fn people(&mut self) {
        let mut place = self.place.borrow_mut();
        let git = &mut place.git;
        let key = format!("person {}", self.clocks.steady.get());
        let base = git.read(BASE);
        let what = match (self.dice.below(6), base) {
            (0..=2, Some(base)) => {
                let next = git.commit(&[&base], None, &key);
                git.set(BASE, Some(&next));
                "a commit on the base"
            }
            (3, Some(_)) => {
                let next = git.commit(&[], None, &key);
                git.set(BASE, Some(&next));
                self.has_been_robbed = true;
                "a base rewritten"
            }
            (4, _) => {
                git.set(LANDED, None);
                self.has_been_robbed = true;
                "a landing branch deleted"
            }
            _ => {
                let tasks: Vec<TaskId> = self.audit.state.tasks.keys().cloned().collect();
                if let Some(task) = self.dice.pick(&tasks) {
                    git.set(&task_ref(&task), None);
                    self.has_been_robbed = true;
                }
                "a task branch deleted"
            }
        };
        drop(place);
        self.did(what);
    }

    /// What holds after every event.
    fn check(&mut self) {
        self.steps += 1;
        self.audit.catch_up();
        let is_sampled = self.steps.is_multiple_of(64);
        if let Some(monitor) = self.monitor.as_ref().filter(|monitor| !monitor.is_failing) {
            let is_current = monitor.cycle.ledger.seq() == self.audit.seq;
            if is_current && is_sampled {
                let is_same = *monitor.state() == self.audit.state;
                assert!(is_same, "the monitor's state is not the journal's");
            }
        }
        let state = &self.audit.state;
        if let Some(landing) = &state.landing {
            let phase = &state.tasks[&landing.task].phase;
            assert!(matches!(phase, TaskPhase::Landing { .. }), "{landing:?} at {phase:?}");
            if let LandingPhase::Checking { attempt, .. } = &landing.phase {
                assert!(state.attempts.contains_key(attempt), "the check of {landing:?} is gone");
            }
        }
        for task in state.tasks.values() {
            if let TaskPhase::Working { attempt, .. } = &task.phase {
                let live = state.attempts.get(attempt);
                assert_eq!(live.and_then(|live| live.task.as_ref()), Some(&task.id));
            }
        }
        for id in self.place.borrow().runs.keys() {
            assert!(state.attempts.contains_key(id), "`{id}` runs, but its attempt is over");
        }
        if is_sampled {
            state.check();
            self.check_git();
        }
    }

    /// No work is lost, and nothing has landed twice.
    fn check_git(&self) {
        let place = self.place.borrow();
        let state = &self.audit.state;
        let mut roots: Vec<Oid> = place.git.refs().map(|(_, oid)| oid).collect();
        roots.extend(state.tasks.values().filter_map(|task| task.tip.clone()));
        roots.extend(state.attempts.values().filter_map(|attempt| attempt.saved.clone()));
        if !self.has_been_robbed {
            let reached = place.git.reach(roots);
            let lost = place.git.missing(&reached, &place.works);
            assert!(lost.is_empty(), "no ref holds {lost:?}");
            let landed = place.git.read(LANDED).map(|tip| place.git.landings(&tip));
            for (task, times) in landed.unwrap_or_default() {
                assert_eq!(times, 1, "`{task}` has landed {times} times");
            }
        }
    }

    /// An agent never waits while a task it could take is ready.
    fn nobody_waits(&self) {
        let Some(monitor) = self.monitor.as_ref().filter(|monitor| !monitor.is_failing) else {
            return;
        };
        let state = monitor.state();
        let now = monitor.cycle.clock.now();
        let may_launch = state.stopping.is_none()
            && !state.is_paused
            && state.drain.is_none()
            && turn::is_base_good(state)
            && turn::launch_room(state, now) != Some(0);
        let per_run = state.settings.limits.attempts_per_run;
        let is_used_up = per_run > 0 && state.monitor.attempts >= per_run;
        if !may_launch || is_used_up {
            return;
        }
        let is_sequential = state.orchestration == Orchestration::Sequential;
        let is_busy = state.has_work() || state.landing.is_some();
        for task in state.tasks.values() {
            let TaskPhase::Ready { stage } = &task.phase else { continue };
            let is_met = |dep: &TaskId| state.tasks.get(dep).is_some_and(|dep| dep.is_met());
            let may_start = !task.is_held
                && task.backoff_until.is_none()
                && gate::may_act(state, &task.id)
                && task.spec.depends_on.iter().all(is_met);
            let mut agents = state.agents.values().filter(|agent| agent.is_free());
            let able = agents.find(|agent| can_serve(state, agent, stage, &task.spec.needs));
            let (true, Some(agent)) = (may_start, able) else { continue };
            // In sequential mode the current task has the word, while it can go on by itself.
            let current = state.current.as_ref().filter(|_| is_sequential);
            let is_patient = is_busy
                || current.is_some_and(|id| {
                    let in_lane = state.index.lane.values().any(|other| other == id);
                    state.tasks[id].backoff_until.is_some() || in_lane
                });
            assert!(
                is_sequential && is_patient,
                "`{}` waits for {stage} while `{}` is free; current is {:?}",
                task.id,
                agent.name,
                state.current
            );
        }
    }

    /// From here on nothing fails, nothing is held, and everything is allowed.
    fn heal(&mut self) {
        self.dice.next_event();
        self.mix = Mix::default();
        self.place.borrow_mut().mix = self.mix;
        self.lose_monitor();
        // A fault of the store that is still armed is used up by one of these.
        for asked in [Command::Pause, Command::Resume, Command::Pause, Command::Resume] {
            self.ask(asked);
        }
        {
            let mut place = self.place.borrow_mut();
            let parent = place.git.read(LANDED).or(place.git.read(BASE));
            let next = place.git.commit(&parent.iter().collect::<Vec<_>>(), None, "healed");
            place.git.set(BASE, Some(&next));
        }
        self.start_monitor(3);
        self.audit.catch_up();
        assert!(self.ask(Command::Resume).is_some(), "a healthy journal takes it");
        let agents: Vec<AgentName> = self.audit.state.agents.keys().cloned().collect();
        for name in agents {
            self.ask(Command::ResumeAgent { name });
        }
        self.ask(Command::SetRollout { to: Rollout::Production, is_forced: true });
        let mut settings = (*self.audit.state.settings).clone();
        settings.hash = "healed".into();
        settings.limits.attempts_per_run = 0;
        self.ask(Command::AdoptSettings { settings: Box::new(settings) });
        let ids = self.audit.state.tasks.keys().cloned().collect();
        self.ask(Command::ReleaseTasks { ids });
        self.help();
    }

    /// What a person does about what needs a person.
    fn help(&mut self) {
        let ids = waiting_for_approval(&self.audit.state);
        self.ask(Command::ApproveTasks { ids });
        let (target, stage, note) = (RetryTarget::Blocked, None, None);
        self.ask(Command::RetryTasks { target, stage, note, is_fresh: false });
        self.handle(Vec::new());
        self.check();
    }

    fn finish(&mut self) {
        for _ in 0..ROUNDS_MAX {
            self.dice.next_event();
            self.advance();
            self.deliver();
            self.finish_one();
            self.check();
            self.nobody_waits();
            let place = self.place.borrow();
            if !place.jobs.is_empty() || !place.mail.is_empty() || !place.runs.is_empty() {
                continue;
            }
            drop(place);
            let monitor = self.monitor.as_ref().expect("nothing ends it");
            if let Some(deadline) = monitor.cycle.deadline() {
                let now = self.now();
                self.pass_ms(deadline.ms_since(now).max(1));
                self.handle(Vec::new());
            } else if !monitor.state().is_idle() {
                // A message was lost: the poll finds out.
                self.pass_ms(15_000);
                self.poll();
            } else if self.is_helpless() {
                return self.all_is_explained();
            } else {
                self.help();
            }
        }
        panic!("a world without faults does not come to an end: {:#?}", self.audit.state);
    }

    /// Nothing is left that a person's approval or retry would move.
    fn is_helpless(&self) -> bool {
        let dead = |task: &TaskPhase| match task {
            TaskPhase::Blocked(block) => {
                block.class == Class::Dependency
                    || block.reason.starts_with("passes through no stage")
            }
            TaskPhase::Waiting
            | TaskPhase::Ready { .. }
            | TaskPhase::Working { .. }
            | TaskPhase::Landing { .. }
            | TaskPhase::Completed { .. }
            | TaskPhase::Cancelled { .. } => true,
        };
        let state = &self.audit.state;
        waiting_for_approval(state).is_empty() && state.tasks.values().all(|t| dead(&t.phase))
    }

    fn all_is_explained(&mut self) {
        self.audit.catch_up();
        self.audit.refold();
        let state = &self.audit.state;
        state.check();
        self.check_git();
        assert!(state.landing.is_none() && state.attempts.is_empty(), "something is left open");
        let is_met = |dep: &TaskId| state.tasks.get(dep).is_some_and(|dep| dep.is_met());
        let has_git = state.settings.project.isolation == Isolation::Worktree;
        let place = self.place.borrow();
        let landed = place.git.read(LANDED).map(|tip| place.git.landings(&tip)).unwrap_or_default();
        for task in state.tasks.values().filter(|task| task.spec.kind == TaskKind::Task) {
            let waits = !task.spec.depends_on.iter().all(is_met);
            let is_explained = match &task.phase {
                TaskPhase::Completed { .. } => {
                    let is_there = landed.contains_key(&task.id) || !has_git;
                    assert!(is_there || self.has_been_robbed, "`{}` is not on landed", task.id);
                    true
                }
                TaskPhase::Cancelled { .. } => true,
                TaskPhase::Waiting => waits,
                TaskPhase::Ready { stage } => {
                    let mut agents = state.agents.values();
                    let needs = &task.spec.needs;
                    waits || !agents.any(|agent| can_serve(state, agent, stage, needs))
                }
                TaskPhase::Blocked(block) => waits || block.reason.contains("no stage"),
                TaskPhase::Working { .. } | TaskPhase::Landing { .. } => false,
            };
            assert!(is_explained, "`{}` stands at {:?} for ever: {state:#?}", task.id, task.phase);
        }
        if has_git {
            assert_eq!(state.base.tip, state.base.taken, "the base was not taken in");
            let is_behind = state.base.landed != state.base.tip;
            assert!(!is_behind, "the base did not follow: {:?}", state.base);
        }
        assert!(place.runs.is_empty() && place.orphans.is_empty(), "something runs");
    }
}
