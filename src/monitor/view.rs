//! When `state.json` is renewed: within a second of a change while it is small, else every 30 s, and
//! whenever the loop goes idle or ends.

use std::path::Path;
use std::time::Duration;

use super::cycle::Cycle;
use super::world::RealWorld;
use crate::machine::time::Time;
use crate::observe::document::state_document;
use crate::store::Store;
use crate::store::ledger::{Ledger, Turns};
use crate::store::view::write_view;
use crate::sys::clock::Clock;

/// A quiet loop renews the view after this many milliseconds.
const QUIET_MS: u64 = 200;
/// A busy one after this many, while the view is small.
const SMALL_MS: u64 = 1_000;
/// A busy one after this many, when the view is large.
const LARGE_MS: u64 = 30_000;
/// What counts as small, in bytes.
pub const SMALL_BYTES_MAX: usize = 1 << 20;

/// Keeps `state.json` near the state.
#[derive(Debug, Default)]
pub struct View {
    first_change: Option<Time>,
    last_change: Time,
    bytes: usize,
}

impl View {
    /// Notes that the state changed.
    pub fn mark(&mut self, now: Time) {
        self.first_change.get_or_insert(now);
        self.last_change = now;
    }

    /// Returns when the view is due; `None`: it is up to date.
    pub fn due_at(&self) -> Option<Time> {
        let first = self.first_change?;
        let is_small = self.bytes <= SMALL_BYTES_MAX;
        let latest = first.plus_ms(if is_small { SMALL_MS } else { LARGE_MS });
        Some(latest.min(self.last_change.plus_ms(QUIET_MS)))
    }

    /// Writes the view if it is due; `None` for `now` writes what is not up to date at once.
    pub fn renew<S: Store, C: Clock>(&mut self, cycle: &Cycle<S, RealWorld, C>, now: Option<Time>) {
        let is_due = self.due_at().is_some_and(|due| now.is_none_or(|now| due <= now));
        if !is_due {
            return;
        }
        let (state, at) = (cycle.ledger.state(), cycle.clock.now());
        let document = state_document(state, cycle.ledger.seq(), cycle.ledger.time());
        self.bytes = document.len();
        self.first_change = None;
        match write_view(&cycle.world.layout.state, &document, at) {
            Ok(None) => {}
            Ok(Some(warning)) => cycle.world.progress.warn(&warning),
            // Only a view: the journal has it all, and the next change tries again.
            Err(error) => cycle.world.progress.warn(&format!("cannot write `state.json`: {error}")),
        }
    }
}

/// Writes the view of the newest record into `dir`; returns what to warn of.
///
/// Writes it again when others added to the journal meanwhile: two processes that write at the same
/// time could otherwise leave the older view of the two. `wait`: for the journal's lock, since a
/// view must not tell of a record that is not durable.
pub fn write_newest<S: Store>(
    dir: &Path,
    ledger: &mut Ledger<S>,
    wait: Duration,
    now: Time,
) -> Vec<String> {
    let mut warnings = Vec::new();
    loop {
        let shown = ledger.seq();
        let document = state_document(ledger.state(), shown, ledger.time());
        match write_view(dir, &document, now) {
            Ok(warning) => warnings.extend(warning),
            Err(error) => {
                // Only a view: the journal has it all.
                warnings.push(format!("cannot write `state.json`: {error}"));
                return warnings;
            }
        }
        let moved = ledger.refresh().and_then(|_| {
            let has_moved = ledger.seq() != shown;
            if has_moved {
                ledger.transact(wait, now, &[], Turns::None)?;
            }
            Ok(has_moved)
        });
        match moved {
            Ok(true) => {}
            Ok(false) => return warnings,
            Err(error) => {
                warnings.push(format!("`state.json` may be old: {error}"));
                return warnings;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config;
    use crate::machine::{Command, Event, EventBody, State};
    use crate::store::format::state_value;
    use crate::store::memory::MemoryStore;
    use crate::store::view::read_seq;
    use crate::store::{Checkpoint, Json};

    #[test]
    fn view_that_others_overtake_is_written_again() {
        let settings = config::load("[project]\nisolation = \"none\"\n").unwrap().settings;
        let now = Time::from_ms(1_000);
        let state = Json::of(&state_value(&State::new(settings, now))).unwrap();
        let store = MemoryStore::create(Checkpoint { seq: 0, time: now, state });
        let (mut other, _) = Ledger::open(store.another(), "other").unwrap();
        let (mut ledger, _) = Ledger::open(store, "cli").unwrap();
        let pause = Event { at: now, random: 0, body: EventBody::Command(Command::Pause) };
        other.transact(Duration::ZERO, now, &[pause], Turns::None).unwrap();
        let dir = tempfile::tempdir().unwrap();
        assert_eq!(write_newest(dir.path(), &mut ledger, Duration::ZERO, now), [""; 0]);
        assert_eq!(read_seq(dir.path()), Some(1));
    }
}
