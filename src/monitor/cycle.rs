//! The loop, generic over store, world and clock, so that a simulator drives this very loop.

use std::collections::BTreeSet;
use std::time::Duration;

use crate::machine::time::Time;
use crate::machine::{
    Answer, Change, Effect, Event, EventBody, State, next_deadline, pending_effects,
};
use crate::store::ledger::{Ledger, LedgerError, Turns};
use crate::store::{Store, StoreError};
use crate::sys::clock::Clock;

/// The world as the loop sees it: effects go out, observations and commands come back.
pub trait World {
    /// Begins to carry out an effect; must not wait. Its outcome comes back as an event.
    fn begin(&mut self, effect: &Effect, state: &State);

    /// Is told what was decided, once it is durable, with the state after it.
    fn tell(&mut self, changes: &[Change], state: &State, seq: u64, at: Time);

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
    /// One for each event.
    pub answers: Vec<Answer>,
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
    begun: BTreeSet<Effect>,
    last: Time,
}

impl<S: Store, W: World, C: Clock> Cycle<S, W, C> {
    /// Joins the parts; nothing is under way.
    pub fn new(ledger: Ledger<S>, world: W, clock: C, lock_wait: Duration) -> Self {
        Self { ledger, world, clock, lock_wait, begun: BTreeSet::new(), last: Time::default() }
    }

    /// Handles what happened, decides what comes next, and begins what is newly owed.
    ///
    /// # Errors
    /// The journal's; nothing was acted upon then.
    pub fn run(&mut self, bodies: Vec<EventBody>) -> Result<Cycled, LedgerError> {
        let cycled = self.transact(bodies, Turns::UntilQuiet)?;
        let state = self.ledger.state();
        // An effect that is owed no longer may be owed again later, under the same key.
        self.begun.retain(|effect| state.index.effects.contains(effect));
        let due: Vec<Effect> = pending_effects(state)
            .filter(|effect| !self.begun.contains(*effect))
            .cloned()
            .collect();
        for effect in due {
            self.world.begin(&effect, state);
            self.begun.insert(effect);
        }
        Ok(cycled)
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
        let random = self.world.random(bodies.len()).map_err(LedgerError::Random)?;
        let events: Vec<Event> = bodies
            .into_iter()
            .zip(random)
            .map(|(body, random)| Event { at, random, body })
            .collect();
        let before = self.ledger.seq();
        let done = loop {
            let done = self.ledger.transact(self.lock_wait, at, &events, turns);
            for warning in self.ledger.take_warnings() {
                self.world.warn(&warning);
            }
            match done {
                // Somebody was stopped while he held it: nothing is lost by waiting on.
                Err(LedgerError::Store(error @ StoreError::LockTimeout { .. })) => {
                    self.world.warn(&format!("{error}; waiting on"));
                }
                other => break other?,
            }
        };
        self.last = at;
        let (state, seq) = (self.ledger.state(), self.ledger.seq());
        for changes in [&done.foreign, &done.changes] {
            if !changes.is_empty() {
                self.world.tell(changes, state, seq, at);
            }
        }
        let has_changed = self.ledger.seq() != before;
        Ok(Cycled { answers: done.answers, has_changed, has_more: done.has_more })
    }

    /// Takes in what others appended, for showing; returns whether there was anything. The next
    /// [`Cycle::run`] acts on it.
    ///
    /// # Errors
    /// The journal's.
    pub fn notice(&mut self) -> Result<bool, LedgerError> {
        let before = self.ledger.seq();
        let foreign = self.ledger.refresh()?;
        if !foreign.is_empty() {
            let at = self.clock.now();
            self.world.tell(&foreign, self.ledger.state(), self.ledger.seq(), at);
        }
        // After a rotation the state is read anew, and single changes are not known.
        Ok(self.ledger.seq() != before)
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
