//! The loop, generic over store, world and clock, so that a simulator drives this very loop.

use std::time::Duration;

use crate::machine::time::Time;
use crate::machine::{Answer, Begun, Change, Effect, Event, EventBody, State, next_deadline};
use crate::store::Store;
use crate::store::ledger::{Foreign, Ledger, LedgerError, Turns};
use crate::sys::clock::Clock;

/// The world as the loop sees it: effects go out, observations and commands come back.
pub trait World {
    /// Begins to carry out an effect; must not wait. Its outcome comes back as an event.
    fn begin(&mut self, effect: &Effect, state: &State);

    /// Is told what was decided, with the state after it, to show it: once it is durable, but for
    /// what others decided and [`Cycle::notice`] read.
    fn tell(&mut self, changes: &[Change], state: &State, seq: u64, at: Time);

    /// Is told what another process decided, with the state at its end or later.
    fn tell_foreign(&mut self, foreign: &Foreign, state: &State) {
        self.tell(&foreign.changes, state, foreign.seq, foreign.time);
    }

    /// Does at once what cannot wait for an effect; called when something was decided, by whomever,
    /// and is durable.
    fn heed(&mut self, state: &State);

    /// May get ready for what comes next, once all that is owed was begun; must not wait.
    fn look_ahead(&mut self, state: &State);

    /// Tells people of something odd.
    fn warn(&mut self, text: &str);

    /// Returns `count` random values.
    ///
    /// # Errors
    /// When the kernel has none.
    fn random(&mut self, count: usize) -> std::io::Result<Vec<u128>>;
}

/// What a cycle left behind.
#[derive(Debug, Default)]
pub struct Cycled {
    /// One for each event, those that an earlier failure left over first.
    pub answers: Vec<Answer>,
    /// For each answer, whether it is one to a command.
    pub are_asked: Vec<bool>,
    /// Something changed, by us or by others.
    pub has_changed: bool,
    /// There is more to decide at once.
    pub has_more: bool,
}

/// State, world and clock, and which effects are under way.
#[derive(Debug)]
pub struct Cycle<S, W, C> {
    pub ledger: Ledger<S>,
    pub world: W,
    pub clock: C,
    /// How long to wait for the journal's lock.
    pub lock_wait: Duration,
    begun: Begun,
    last: Time,
    /// What a failed transaction was to record; the next one takes it in.
    owed: Vec<EventBody>,
    /// What others decided was read for showing, and is not heeded yet.
    has_noticed: bool,
}

impl<S: Store, W: World, C: Clock> Cycle<S, W, C> {
    /// Joins the parts; nothing is under way.
    pub fn new(ledger: Ledger<S>, world: W, clock: C, lock_wait: Duration) -> Self {
        let (begun, last, owed) = (Begun::default(), Time::default(), Vec::new());
        Self { ledger, world, clock, lock_wait, begun, last, owed, has_noticed: false }
    }

    /// Handles what happened, decides what comes next, and begins what is newly owed.
    ///
    /// # Errors
    /// The journal's; nothing was acted upon then. What happened is kept for the next call, and must
    /// not be handed in again.
    pub fn run(&mut self, bodies: Vec<EventBody>) -> Result<Cycled, LedgerError> {
        let cycled = self.transact(bodies, Turns::UntilQuiet)?;
        let state = self.ledger.state();
        for effect in self.begun.take_due(state) {
            self.world.begin(&effect, state);
        }
        self.world.look_ahead(state);
        Ok(cycled)
    }

    /// Begins an effect once more that was begun, and got lost on its way.
    pub fn begin_again(&mut self, effect: &Effect) {
        if self.begun.has(effect) {
            self.world.begin(effect, self.ledger.state());
        }
    }

    /// Keeps what happened for the next [`Cycle::run`].
    pub fn keep(&mut self, bodies: Vec<EventBody>) {
        self.owed.extend(bodies);
    }

    /// Handles what happened, but decides nothing of its own and begins nothing: for the first and
    /// the last word of a monitor.
    ///
    /// # Errors
    /// As [`Cycle::run`].
    pub fn record(&mut self, bodies: Vec<EventBody>) -> Result<Cycled, LedgerError> {
        self.transact(bodies, Turns::None)
    }

    fn transact(&mut self, bodies: Vec<EventBody>, turns: Turns) -> Result<Cycled, LedgerError> {
        let at = self.clock.now();
        self.owed.extend(bodies);
        let random = self.world.random(self.owed.len()).map_err(LedgerError::Random)?;
        let events: Vec<Event> = std::mem::take(&mut self.owed)
            .into_iter()
            .zip(random)
            .map(|(body, random)| Event { at, random, body })
            .collect();
        let before = self.ledger.seq();
        let done = self.ledger.transact(self.lock_wait, at, &events, turns);
        for warning in self.ledger.take_warnings() {
            self.world.warn(&warning);
        }
        let done = match done {
            Ok(done) => done,
            Err(error) => {
                self.owed = events.into_iter().map(|event| event.body).collect();
                return Err(error);
            }
        };
        self.begun.settle(&done.settled);
        let is_asked = |event: &Event| matches!(event.body, EventBody::Command(_));
        let are_asked = events.iter().map(is_asked).collect();
        self.last = at;
        let (state, seq) = (self.ledger.state(), self.ledger.seq());
        for foreign in &done.foreign {
            self.world.tell_foreign(foreign, state);
        }
        if !done.changes.is_empty() {
            self.world.tell(&done.changes, state, seq, at);
        }
        let has_changed = self.ledger.seq() != before;
        if std::mem::take(&mut self.has_noticed) || has_changed {
            self.world.heed(state);
        }
        Ok(Cycled { answers: done.answers, are_asked, has_changed, has_more: done.has_more })
    }

    /// Takes in what others appended, for showing; returns whether there was anything. The next
    /// [`Cycle::run`] acts on it.
    ///
    /// # Errors
    /// The journal's.
    pub fn notice(&mut self) -> Result<bool, LedgerError> {
        let before = self.ledger.seq();
        let caught = self.ledger.refresh()?;
        self.begun.settle(&caught.settled);
        for foreign in &caught.foreign {
            self.world.tell_foreign(foreign, self.ledger.state());
        }
        // After a rotation the state is read anew, and single changes are not known.
        let has_news = self.ledger.seq() != before;
        self.has_noticed |= has_news;
        Ok(has_news)
    }

    /// Returns when the machine wants to be woken; `None`: only by an event.
    ///
    /// What was due at the last cycle has been handled there and is not due again.
    pub fn deadline(&self) -> Option<Time> {
        next_deadline(self.ledger.state()).filter(|at| *at > self.last)
    }

    /// Returns true while an effect is being carried out.
    pub fn is_performing(&self) -> bool {
        !self.begun.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::{Cycle, World};
    use crate::machine::id::{AttemptId, Oid};
    use crate::machine::mode::{Isolation, Rollout};
    use crate::machine::time::Time;
    use crate::machine::{
        Change, Command, Effect, Event, EventBody, Observation, State, pending_effects,
    };
    use crate::observe::support::settings;
    use crate::store::ledger::{Ledger, Turns};
    use crate::store::memory::{Fault, MemoryStore};
    use crate::store::{Checkpoint, Json, Store as _, format};
    use crate::sys::clock::SystemClock;

    /// Notes what is begun and told.
    #[derive(Debug, Default)]
    struct Notes {
        begun: usize,
        heeded: usize,
        told: Vec<Change>,
    }

    impl World for Notes {
        fn begin(&mut self, _: &Effect, _: &State) {
            self.begun += 1;
        }

        fn tell(&mut self, changes: &[Change], _: &State, _: u64, _: Time) {
            self.told.extend_from_slice(changes);
        }

        fn heed(&mut self, _: &State) {
            self.heeded += 1;
        }

        fn look_ahead(&mut self, _: &State) {}

        fn warn(&mut self, _: &str) {}

        fn random(&mut self, count: usize) -> std::io::Result<Vec<u128>> {
            Ok(vec![1; count])
        }
    }

    /// A cycle over a new project, with the store that plays faults.
    fn cycle(isolation: Isolation) -> (Cycle<MemoryStore, Notes, SystemClock>, MemoryStore) {
        let mut settings = settings();
        settings.project.isolation = isolation;
        let state = State::new(settings, Time::default());
        let state = Json::of(&format::state_value(&state)).expect("it has a form");
        let store = MemoryStore::create(Checkpoint { seq: 0, time: Time::default(), state });
        let (ledger, _) = Ledger::open(store.another(), "monitor").expect("it opens");
        let wait = Duration::from_secs(1);
        (Cycle::new(ledger, Notes::default(), SystemClock::start(), wait), store)
    }

    #[test]
    fn an_effect_that_ends_and_is_owed_again_at_once_is_begun_again() {
        let (mut cycle, _store) = cycle(Isolation::Worktree);
        let (tip, branch) = (Oid::new("a"), Some(Oid::new("a")));
        let seen =
            |seen: &[Observation]| seen.iter().cloned().map(EventBody::Observation).collect();
        let there = Observation::BaseSeen { tip: tip.clone(), landed: branch };
        let gone = Observation::BaseSeen { tip: tip.clone(), landed: None };
        let taken = Observation::BaseTaken { base: tip.clone(), landed: tip, has_all: true };
        cycle.run(seen(&[there])).expect("it is written");
        assert_eq!(cycle.world.begun, 1);
        // Somebody removed the landing branch while its making was being told.
        cycle.run(seen(&[taken.clone(), gone])).expect("it is written");
        assert_eq!(cycle.world.begun, 2);
        cycle.run(seen(&[taken])).expect("it is written");
        assert!(cycle.ledger.state().base.is_taken());
        assert_eq!(cycle.world.begun, 2);
    }

    #[test]
    fn what_got_lost_on_its_way_is_begun_again_and_nothing_else_is() {
        let (mut cycle, _store) = cycle(Isolation::Worktree);
        let seen = Observation::BaseSeen { tip: Oid::new("a"), landed: Some(Oid::new("a")) };
        cycle.run(vec![EventBody::Observation(seen)]).expect("it is written");
        let begun: Vec<Effect> = pending_effects(cycle.ledger.state()).cloned().collect();
        assert_eq!((begun.len(), cycle.world.begun), (1, 1));
        cycle.begin_again(&begun[0]);
        cycle.begin_again(&Effect::Stop { attempt: AttemptId::new("A.test.1") });
        assert_eq!(cycle.world.begun, 2);
        cycle.run(Vec::new()).expect("it is written");
        assert_eq!(cycle.world.begun, 2);
    }

    #[test]
    fn shadow_and_back_while_the_base_follows_begins_that_step_again() {
        // Taken in by the transaction itself; shown before; by one that is refused and repeated; not
        // known one by one, since a checkpoint came behind.
        let no = (false, false, false);
        for (is_shown, is_refused, is_rotated) in
            [no, (true, false, false), (false, true, false), (false, false, true)]
        {
            let (mut cycle, store) = cycle(Isolation::Worktree);
            let (tip, landed) = (Oid::new("a"), Oid::new("b"));
            let seen = |seen| vec![EventBody::Observation(seen)];
            let there = Observation::BaseSeen { tip: tip.clone(), landed: Some(tip.clone()) };
            let taken =
                Observation::BaseTaken { base: tip, landed: landed.clone(), has_all: false };
            let followed = || seen(Observation::Followed { to: landed.clone() });
            cycle.run(seen(there)).expect("it is written");
            cycle.run(seen(taken)).expect("it is written");
            assert_eq!(cycle.world.begun, 2);
            let (mut other, _) = Ledger::open(store.another(), "cli").expect("it opens");
            for to in [Rollout::Shadow, Rollout::Production] {
                let body = EventBody::Command(Command::SetRollout { to, is_forced: true });
                let asked = [Event { at: Time::default(), random: 0, body }];
                let wait = Duration::from_secs(1);
                other.transact(wait, Time::default(), &asked, Turns::None).expect("it is written");
            }
            if is_rotated {
                let state = Json::of(&format::state_value(other.state())).expect("it has a form");
                let mut store = store.another();
                store.lock(Duration::from_secs(1)).expect("it is free");
                store.load().expect("it is read");
                let checkpoint = Checkpoint { seq: other.seq(), time: Time::default(), state };
                store.put_checkpoint(&checkpoint).expect("it is written");
                store.unlock();
            }
            if is_shown {
                assert!(cycle.notice().expect("it is read"));
            }
            let mut told = followed();
            if is_refused {
                store.fail_next(Fault::Refuse);
                assert!(cycle.run(std::mem::take(&mut told)).is_err());
            }
            // The answer finds nothing to follow, and then that is owed anew.
            cycle.run(told).expect("it is written");
            assert_eq!(cycle.world.begun, 3, "{is_shown} {is_refused} {is_rotated}");
            cycle.run(Vec::new()).expect("it is written");
            assert_eq!(cycle.world.begun, 3, "once");
            cycle.run(followed()).expect("it is written");
            assert_eq!(
                (cycle.ledger.state().base.tip.as_ref(), cycle.world.begun),
                (Some(&landed), 3)
            );
        }
    }

    #[test]
    fn what_a_failed_transaction_was_to_record_is_recorded_by_the_next_one() {
        // Refused; reported as failed but written.
        for fault in [Fault::Refuse, Fault::Tear(1)] {
            let (mut cycle, store) = cycle(Isolation::None);
            let told = |what: &str| Observation::ShortageSeen { what: Some(what.into()) };
            store.fail_next(fault);
            let first = vec![EventBody::Observation(told("the disk"))];
            assert!(cycle.run(first).is_err_and(|error| error.is_passing()));
            assert_eq!((cycle.world.begun, cycle.world.told.len()), (0, 0));
            let done = cycle.run(vec![EventBody::Command(Command::Pause)]).expect("it is written");
            assert_eq!((done.answers.len(), done.are_asked), (2, vec![false, true]));
            assert_eq!(cycle.ledger.state().shortage.as_deref(), Some("the disk"));
            assert!(cycle.ledger.state().is_paused);
        }
    }

    #[test]
    fn what_is_read_without_the_lock_is_shown_and_not_acted_upon() {
        let (mut cycle, mut store) = cycle(Isolation::None);
        let (mut other, _) = Ledger::open(store.another(), "cli").expect("it opens");
        let event =
            Event { at: Time::default(), random: 0, body: EventBody::Command(Command::Pause) };
        let wait = Duration::from_secs(1);
        for is_lost in [true, false] {
            // It stands, not synced, and its writer was told that it failed.
            store.fail_next(Fault::Tear(1));
            let told = other.transact(wait, event.at, std::slice::from_ref(&event), Turns::None);
            assert!(told.is_err());
            assert!(cycle.notice().expect("it is read"));
            assert!(cycle.ledger.state().is_paused);
            assert_eq!(cycle.world.heeded, 0);
            if is_lost {
                store.crash(0);
                cycle.ledger = Ledger::open(store.another(), "monitor").expect("it opens").0;
                assert!(!cycle.ledger.state().is_paused);
            }
        }
        cycle.run(Vec::new()).expect("it is read under the lock");
        assert_eq!((cycle.world.heeded, cycle.world.told.len()), (1, 2));
        store.crash(0);
        let (ledger, _) = Ledger::open(store, "cli").expect("it opens");
        assert!(ledger.state().is_paused, "what was heeded is durable");
    }
}
