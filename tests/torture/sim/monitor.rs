//! A monitor in the model: the program's own loop over the store in memory, the modelled world and
//! a modelled clock. What it does outside that loop is what `src/monitor/run.rs` does.

use std::cell::{Cell, RefCell};
use std::collections::BTreeSet;
use std::rc::Rc;
use std::time::Duration;

use pipeline::machine::attempt::{Attempt, AttemptKind, AttemptPhase};
use pipeline::machine::id::AttemptId;
use pipeline::machine::lane::LandingPhase;
use pipeline::machine::mode::{Isolation, Rollout};
use pipeline::machine::time::Time;
use pipeline::machine::{Change, Effect, EventBody, Observation, State};
use pipeline::monitor::cycle::{Cycle, World};
use pipeline::store::ledger::{Ledger, LedgerError};
use pipeline::store::memory::MemoryStore;
use pipeline::sys::clock::Clock;

use super::place::{Mail, Place, Run, Work, touches_refs};

/// Steady time and wall time of the machine, in milliseconds.
#[derive(Debug)]
pub struct Clocks {
    pub steady: Cell<u64>,
    pub wall: Cell<u64>,
}

/// A process's clock: wall time at its start, and steady time since.
#[derive(Debug)]
pub struct ProcessClock {
    clocks: Rc<Clocks>,
    wall: u64,
    steady: u64,
}

impl ProcessClock {
    pub fn start(clocks: &Rc<Clocks>) -> Self {
        let (wall, steady) = (clocks.wall.get(), clocks.steady.get());
        Self { clocks: Rc::clone(clocks), wall, steady }
    }
}

impl Clock for ProcessClock {
    fn now(&self) -> Time {
        Time::from_ms(self.wall + self.clocks.steady.get() - self.steady)
    }
}

/// The world as one monitor reaches it.
#[derive(Debug)]
pub struct SimWorld {
    id: u32,
    place: Rc<RefCell<Place>>,
    inherited: BTreeSet<AttemptId>,
    randoms: u128,
    /// Changes told since somebody looked.
    pub told: usize,
}

impl World for SimWorld {
    fn begin(&mut self, effect: &Effect, state: &State) {
        let is_shadow = state.rollout == Rollout::Shadow;
        assert!(!(is_shadow && touches_refs(effect)), "shadow begins {effect:?}");
        if let Some(work) = self.work(effect, state) {
            self.place.borrow_mut().begin(self.id, work);
        }
    }

    fn tell(&mut self, changes: &[Change], _: &State, _: u64, _: Time) {
        self.told += changes.len();
    }

    fn warn(&mut self, _: &str) {}

    fn random(&mut self, count: usize) -> std::io::Result<Vec<u128>> {
        let first = self.randoms;
        self.randoms += count as u128;
        Ok((first..self.randoms).collect())
    }
}

impl SimWorld {
    fn work(&mut self, effect: &Effect, state: &State) -> Option<Work> {
        let has_git = state.settings.project.isolation == Isolation::Worktree;
        match effect {
            Effect::Start { attempt, .. } => {
                let found = state.attempts.get(attempt)?;
                if self.inherited.remove(attempt) {
                    self.find_again(found);
                    return None;
                }
                Some(order(found))
            }
            Effect::Stop { attempt } => {
                let agent = state.attempts.get(attempt)?.agent.to_string();
                Some(Work::Stop { attempt: attempt.clone(), agent })
            }
            Effect::Prepare { attempt, .. } if has_git => {
                self.inherited.remove(attempt);
                Some(prepare(state, state.attempts.get(attempt)?))
            }
            Effect::Save { attempt, .. } if has_git => {
                let found = state.attempts.get(attempt)?;
                let task = state.tasks.get(found.task.as_ref()?)?;
                let tip = task.tip.clone().or(found.base.clone())?;
                let merge = found.merge.clone();
                Some(Work::Save { attempt: attempt.clone(), tip, merge })
            }
            Effect::Advance { attempt, .. } if has_git => {
                let found = state.attempts.get(attempt)?;
                let task = found.task.clone()?;
                let (from, to) = (state.tasks.get(&task)?.tip.clone()?, found.saved.clone()?);
                Some(Work::Advance { attempt: attempt.clone(), task, from, to })
            }
            Effect::TakeBase { base, landed, .. } if has_git => {
                Some(Work::TakeBase { base: base.clone(), landed: landed.clone() })
            }
            Effect::Merge { task, number, .. } if has_git => {
                let tip = state.tasks[task].tip.clone()?;
                let onto = state.base.landed.clone()?;
                Some(Work::Merge { task: task.clone(), number: *number, tip, onto })
            }
            Effect::Land { task, number, .. } if has_git => {
                let LandingPhase::Moving { commit, onto } = state.landing.as_ref()?.phase.clone()
                else {
                    return None;
                };
                Some(Work::Land { task: task.clone(), number: *number, onto, commit })
            }
            Effect::Follow { to, .. } if has_git => {
                Some(Work::Follow { to: to.clone(), from: state.base.tip.clone()? })
            }
            Effect::Prepare { .. }
            | Effect::Save { .. }
            | Effect::Advance { .. }
            | Effect::TakeBase { .. }
            | Effect::Merge { .. }
            | Effect::Land { .. }
            | Effect::Follow { .. } => None,
        }
    }

    /// Looks for an attempt that a monitor before this one ordered, or was about to.
    fn find_again(&self, attempt: &Attempt) {
        let mut place = self.place.borrow_mut();
        let id = &attempt.id;
        if let Some(exit) = place.exits.get(id).cloned() {
            let (attempt, exit) = (id.clone(), Box::new(exit));
            return place.mail.push(Mail::Seen(Observation::Exited { attempt, exit }));
        }
        if let Some(keeper) = place.keepers.get_mut(attempt.agent.as_str()) {
            keeper.monitor = Some(self.id);
            if keeper.attempt.as_ref() == Some(id) {
                let (attempt, at) = (id.clone(), attempt.assigned_at);
                return place.mail.push(Mail::Seen(Observation::Started { attempt, at }));
            }
        }
        let why = "its keeper died".to_owned();
        if place.orphans.contains_key(id) {
            return place.begin(self.id, Work::EndOrphans { attempt: id.clone(), why });
        }
        let is_unstarted = !place.started.contains(id);
        if is_unstarted && attempt.phase == AttemptPhase::Starting {
            return place.begin(self.id, order(attempt));
        }
        place.mail.push(Mail::Seen(Observation::Lost { attempt: id.clone(), why }));
    }
}

fn order(attempt: &Attempt) -> Work {
    let run = Run {
        agent: attempt.agent.to_string(),
        slot: attempt.slot,
        task: attempt.task.clone(),
        is_work: attempt.is_work(),
    };
    Work::Order { attempt: attempt.id.clone(), run }
}

fn prepare(state: &State, attempt: &Attempt) -> Work {
    let task = attempt.task.as_ref().and_then(|id| state.tasks.get(id));
    let (start, is_work) = match &attempt.kind {
        AttemptKind::LandingCheck { commit } | AttemptKind::BaseCheck { commit } => {
            (Some(commit.clone()), false)
        }
        AttemptKind::Work { .. } => (state.base.landed.clone(), true),
        AttemptKind::StageCheck { .. } => (state.base.landed.clone(), false),
    };
    Work::Prepare {
        attempt: attempt.id.clone(),
        task: attempt.task.clone().filter(|_| is_work),
        tip: task.and_then(|task| task.tip.clone()).filter(|_| is_work),
        start,
        resume: task.and_then(|task| task.resume_from.clone()).filter(|_| is_work),
    }
}

/// A monitor that lives.
#[derive(Debug)]
pub struct Monitor {
    pub cycle: Cycle<MemoryStore, SimWorld, ProcessClock>,
    place: Rc<RefCell<Place>>,
    /// The last transaction failed; the next one tries again.
    pub is_failing: bool,
}

impl Monitor {
    /// Takes over, up to its step `steps` (of 3): killed there, inside its own recovery.
    ///
    /// # Errors
    /// The journal's: it ends.
    pub fn start(
        id: u32,
        store: &MemoryStore,
        place: &Rc<RefCell<Place>>,
        clocks: &Rc<Clocks>,
        steps: usize,
    ) -> Result<Self, LedgerError> {
        let (ledger, _) = Ledger::open(store.another(), "monitor")?;
        let inherited = ledger.state().attempts.keys().cloned().collect();
        let randoms = u128::from(id) << 64;
        let world = SimWorld { id, place: Rc::clone(place), inherited, randoms, told: 0 };
        let clock = ProcessClock::start(clocks);
        let cycle = Cycle::new(ledger, world, clock, Duration::ZERO);
        let mut monitor = Self { cycle, place: Rc::clone(place), is_failing: false };
        place.borrow_mut().monitor = Some(id);
        let seen = Observation::MonitorStarted { pid: id, allows_red_base: false };
        if steps > 0 {
            monitor.cycle.record(vec![EventBody::Observation(seen)])?;
        }
        if steps > 1 {
            let attempts = monitor.state().attempts.values();
            let running = attempts.filter(|attempt| attempt.phase == AttemptPhase::Running);
            let running: Vec<AttemptId> = running.map(|attempt| attempt.id.clone()).collect();
            let look = place.borrow().look();
            monitor.handle(look.into_iter().collect())?;
            if steps > 2 {
                running.iter().for_each(|id| monitor.find_again(id));
            }
        }
        Ok(monitor)
    }

    pub fn state(&self) -> &State {
        self.cycle.ledger.state()
    }

    /// Handles observations, and decides what comes next until nothing does.
    ///
    /// # Errors
    /// The journal's; the observations are kept for the next call.
    pub fn handle(&mut self, seen: Vec<Observation>) -> Result<(), LedgerError> {
        let mut bodies: Vec<EventBody> = seen.into_iter().map(EventBody::Observation).collect();
        let mut rounds = 0;
        loop {
            let cycled = self.cycle.run(std::mem::take(&mut bodies));
            self.is_failing = cycled.is_err();
            if !cycled?.has_more {
                return Ok(());
            }
            rounds += 1;
            assert!(rounds < 64, "the turn never ends");
        }
    }

    /// Turns mail into what the loop is told.
    pub fn open(&mut self, mail: Vec<Mail>) -> Vec<Observation> {
        let mut seen = Vec::new();
        for letter in mail {
            match letter {
                Mail::Seen(observation) => seen.push(observation),
                Mail::KeeperGone(id) => self.find_again(&id),
            }
        }
        seen
    }

    /// Looks for an attempt that should be running.
    pub fn find_again(&mut self, id: &AttemptId) {
        let is_alive = |attempt: &&Attempt| {
            matches!(attempt.phase, AttemptPhase::Starting | AttemptPhase::Running)
        };
        let found = self.state().attempts.get(id).filter(is_alive).cloned();
        if let Some(attempt) = found {
            self.cycle.world.find_again(&attempt);
        }
    }

    /// The look that catches what no message told.
    pub fn poll(&mut self) -> Vec<Observation> {
        let attempts = self.state().attempts.values();
        let running = attempts.filter(|attempt| attempt.phase == AttemptPhase::Running);
        let running: Vec<AttemptId> = running.map(|attempt| attempt.id.clone()).collect();
        for id in running {
            let place = self.place.borrow();
            let is_kept = place.runs.contains_key(&id);
            let is_being_ended = place
                .jobs
                .iter()
                .any(|job| matches!(&job.work, Work::EndOrphans { attempt, .. } if *attempt == id));
            drop(place);
            if !is_kept && !is_being_ended {
                self.find_again(&id);
            }
        }
        self.place.borrow().look().into_iter().collect()
    }
}
