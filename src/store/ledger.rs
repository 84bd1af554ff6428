//! The transaction: lock, read what others wrote, decide, append, sync, unlock.
//!
//! Every process that changes the state does it through here, the monitor and each command alike.

use std::fmt;
use std::path::PathBuf;
use std::time::Duration;

use super::format::{self, FormatError};
use super::journal::FileStore;
use super::{Checkpoint, Json, Record, Store, StoreError, Tail, line};
use crate::machine::time::Time;
use crate::machine::turn::TURN_ITEMS_MAX;
use crate::machine::{
    Answer, Change, Effect, Event, EventBody, State, apply, apply_settling, step,
};

/// Turns in one transaction; the rest follows in the next one.
const TURNS_MAX: usize = 64;
/// Attempts that one turn may add.
const NONCES: usize = 64;

/// Why a transaction or a read failed; the state in memory is read anew by the next one.
#[derive(Debug)]
pub enum LedgerError {
    Store(StoreError),
    /// A record or checkpoint that is whole but not understood.
    Format {
        seq: u64,
        source: FormatError,
    },
    Encode {
        seq: u64,
        source: serde_json::Error,
    },
    /// The kernel gave no random bytes.
    Random(std::io::Error),
}

impl fmt::Display for LedgerError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Store(error) => error.fmt(f),
            Self::Format { seq, .. } => write!(f, "cannot understand journal record {seq}"),
            Self::Encode { seq, .. } => write!(f, "cannot write journal record {seq} as JSON"),
            Self::Random(_) => f.write_str("cannot get random bytes from the kernel"),
        }
    }
}

impl std::error::Error for LedgerError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Self::Store(error) => error.source(),
            Self::Format { source, .. } => Some(source),
            Self::Encode { source, .. } => Some(source),
            Self::Random(source) => Some(source),
        }
    }
}

impl LedgerError {
    /// Returns true when trying again later may help.
    #[must_use]
    pub fn is_passing(&self) -> bool {
        match self {
            Self::Store(error) => error.is_passing(),
            Self::Format { .. } | Self::Encode { .. } => false,
            Self::Random(_) => true,
        }
    }

    /// Returns true when the disk is full.
    #[must_use]
    pub fn is_full(&self) -> bool {
        matches!(self, Self::Store(error) if error.is_full())
    }
}

impl From<StoreError> for LedgerError {
    fn from(error: StoreError) -> Self {
        Self::Store(error)
    }
}

/// A state with the journal it comes from.
#[derive(Debug)]
pub struct Ledger<S> {
    store: S,
    actor: String,
    state: State,
    seq: u64,
    time: Time,
    is_stale: bool,
    /// What the store put right since it was last asked for.
    warnings: Vec<String>,
    /// What others settled and no transaction has told yet, since it failed.
    settled: Vec<Effect>,
    /// What the lane owed when the state was last told to whoever acts on it.
    lane: Vec<Effect>,
}

/// What others had decided since this process last looked.
#[derive(Debug, Default)]
pub struct Caught {
    /// In order; not known where the state was read anew.
    pub foreign: Vec<Foreign>,
    /// Effects that were owed no longer at some moment of it, as [`Done::settled`].
    pub settled: Vec<Effect>,
}

/// A record that another process appended.
#[derive(Debug, Clone, PartialEq)]
pub struct Foreign {
    pub seq: u64,
    pub time: Time,
    /// Who decided it, for people ("cli").
    pub actor: String,
    pub changes: Vec<Change>,
}

/// What a transaction did.
#[derive(Debug)]
pub struct Done {
    /// One for each event, in order.
    pub answers: Vec<Answer>,
    /// What others had decided since this process last looked, in order.
    pub foreign: Vec<Foreign>,
    /// What was decided and is now durable, in order.
    pub changes: Vec<Change>,
    /// How many of these the events themselves made; what followed from them stands behind.
    pub direct: usize,
    /// The turn was cut off at its bound: there is more to decide at once.
    pub has_more: bool,
    /// Effects that were owed no longer at some moment since the last transaction, ours or others',
    /// though they may be owed again: see [`apply_settling`].
    pub settled: Vec<Effect>,
}

/// Whether the machine may also decide what comes next: the monitor's part.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Turns {
    None,
    UntilQuiet,
}

impl<S: Store> Ledger<S> {
    /// Reads the state; the second value holds what the store put right, to be shown.
    ///
    /// # Errors
    /// What `load` says, or a record of another shape.
    pub fn open(mut store: S, actor: &str) -> Result<(Self, Vec<String>), LedgerError> {
        let (state, seq, time, warnings) = load(&mut store)?;
        let (actor, is_stale) = (actor.to_owned(), false);
        let (kept, settled) = (Vec::new(), Vec::new());
        let lane = state.index.lane_effects().to_vec();
        let ledger =
            Self { store, actor, state, seq, time, is_stale, warnings: kept, settled, lane };
        Ok((ledger, warnings))
    }

    /// Returns the state as last read or decided.
    pub fn state(&self) -> &State {
        &self.state
    }

    /// Returns the number of the last record the state contains.
    pub fn seq(&self) -> u64 {
        self.seq
    }

    /// Returns when the last record was decided.
    pub fn time(&self) -> Time {
        self.time
    }

    /// Returns what the store put right since this was last asked, to be shown; may be empty.
    pub fn take_warnings(&mut self) -> Vec<String> {
        std::mem::take(&mut self.warnings)
    }

    /// Takes in what others appended, without the lock; returns it.
    ///
    /// For showing only: nothing may be acted upon before a transaction has seen it.
    ///
    /// # Errors
    /// What the store says, or a record of another shape.
    pub fn refresh(&mut self) -> Result<Caught, LedgerError> {
        let result = self.catch_up();
        self.is_stale |= result.is_err();
        result
    }

    /// Carries out the events as one transaction; `at` dates its record.
    ///
    /// When this returns, what was decided is durable, and only then may it be acted upon or told.
    ///
    /// # Errors
    /// Nothing of the transaction counts then; what others see is for the next `load` to tell.
    pub fn transact(
        &mut self,
        wait: Duration,
        at: Time,
        events: &[Event],
        turns: Turns,
    ) -> Result<Done, LedgerError> {
        self.store.lock(wait)?;
        let mut result = self.transact_locked(at, events, turns);
        self.is_stale |= result.is_err();
        if let Ok(done) = &mut result {
            done.settled.append(&mut self.settled);
            self.lane = self.state.index.lane_effects().to_vec();
        }
        self.store.unlock();
        result
    }

    fn transact_locked(
        &mut self,
        at: Time,
        events: &[Event],
        turns: Turns,
    ) -> Result<Done, LedgerError> {
        let caught = self.catch_up()?;
        self.settled.extend(caught.settled);
        let mut done = Done {
            answers: Vec::with_capacity(events.len()),
            foreign: caught.foreign,
            changes: Vec::new(),
            direct: 0,
            has_more: false,
            settled: Vec::new(),
        };
        for event in events {
            let decided = step(&self.state, event);
            self.take(decided.changes, &mut done);
            done.answers.push(decided.answer);
        }
        done.direct = done.changes.len();
        match turns {
            Turns::UntilQuiet => self.take_turns(at, &mut done)?,
            Turns::None if has_command(events) && done.direct > 0 => self.sort(at, &mut done),
            Turns::None => {}
        }
        if done.changes.is_empty() {
            return Ok(done);
        }
        let changes = Json::of(&format::changes_value(&done.changes))
            .map_err(|source| LedgerError::Encode { seq: self.seq + 1, source })?;
        let record = Record { seq: self.seq + 1, time: at, actor: self.actor.clone(), changes };
        self.store.append(self.seq, &[record])?;
        self.seq += 1;
        self.time = at;
        if self.store.wants_checkpoint() {
            let state = Json::of(&format::state_value(&self.state))
                .map_err(|source| LedgerError::Encode { seq: self.seq, source })?;
            match self.store.put_checkpoint(&Checkpoint { seq: self.seq, time: at, state }) {
                // The record stands, so this must not be told as a failure. Whether the new segment
                // has its name is not known: all is read anew, and the next record tries again.
                Err(error) if error.is_passing() => self.is_stale = true,
                other => other?,
            }
        }
        Ok(done)
    }

    fn take_turns(&mut self, at: Time, done: &mut Done) -> Result<(), LedgerError> {
        for _ in 0..TURNS_MAX {
            let free = self.state.agents.values().filter(|agent| self.state.is_free(agent)).count();
            let wanted = (free + self.state.attempts.len() + 1).min(NONCES);
            let nonces = crate::sys::env::random_values(wanted).map_err(LedgerError::Random)?;
            let event = Event { at, random: 0, body: EventBody::Turn { nonces } };
            let decided = step(&self.state, &event);
            if decided.changes.is_empty() {
                return Ok(());
            }
            self.take(decided.changes, done);
        }
        done.has_more = true;
        Ok(())
    }

    /// Lets tasks go where a command has put their dependencies.
    fn sort(&mut self, at: Time, done: &mut Done) {
        for _ in 0..=TURNS_MAX + self.state.tasks.len() / TURN_ITEMS_MAX {
            let decided = step(&self.state, &Event { at, random: 0, body: EventBody::Sort });
            if decided.changes.is_empty() {
                return;
            }
            self.take(decided.changes, done);
        }
    }

    fn take(&mut self, decided: Vec<Change>, done: &mut Done) {
        // From here to a successful append the state in memory is ahead of the journal: any error
        // on the way makes it stale.
        for change in &decided {
            apply_settling(&mut self.state, change, &mut done.settled);
        }
        done.changes.extend(decided);
    }

    fn catch_up(&mut self) -> Result<Caught, LedgerError> {
        if !self.is_stale
            && let Tail::Records(records) = self.store.read_from(self.seq)?
        {
            return self.apply_records(&records);
        }
        let (state, seq, time, warnings) = load(&mut self.store)?;
        self.warnings.extend(warnings);
        self.state = state;
        // What was settled by records that are not known one by one is not known either: all that
        // was owed may have been, whether it is owed again or will be. Others settle nothing but the
        // lane's.
        let is_ahead = seq > self.seq;
        let owed = self.lane.iter().filter(|_| is_ahead);
        let settled = owed.cloned().collect();
        self.seq = seq;
        self.time = time;
        self.is_stale = false;
        Ok(Caught { foreign: Vec::new(), settled })
    }

    fn apply_records(&mut self, records: &[Record]) -> Result<Caught, LedgerError> {
        let mut all = Caught::default();
        for record in records {
            let changes = decode(record)?;
            for change in &changes {
                apply_settling(&mut self.state, change, &mut all.settled);
            }
            self.seq = record.seq;
            self.time = record.time;
            let (seq, time, actor) = (record.seq, record.time, record.actor.clone());
            all.foreign.push(Foreign { seq, time, actor, changes });
        }
        Ok(all)
    }
}

fn has_command(events: &[Event]) -> bool {
    events.iter().any(|event| matches!(event.body, EventBody::Command(_)))
}

/// A journal of an older format that was taken over.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Migrated {
    pub from: u64,
    /// Where the journal is kept as it was.
    pub backup: PathBuf,
}

impl fmt::Display for Migrated {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (from, to, backup) = (self.from, line::FORMAT, self.backup.display());
        write!(
            f,
            "the journal was of format {from} and goes on in format {to}; as it was it is kept in \
             `{backup}`"
        )
    }
}

impl Ledger<FileStore> {
    /// Takes a journal of an older format over, for who holds the monitor's lock: an older monitor
    /// would not understand what is written then. `None`: it is of the present one.
    ///
    /// # Errors
    /// The lock's and the file system's; the journal as it was remains valid.
    pub fn migrate(&mut self, wait: Duration) -> Result<Option<Migrated>, LedgerError> {
        if self.store.older_format().is_none() {
            return Ok(None);
        }
        self.store.lock(wait)?;
        let migrated = self.migrate_locked();
        self.is_stale |= migrated.is_err();
        self.store.unlock();
        migrated
    }

    fn migrate_locked(&mut self) -> Result<Option<Migrated>, LedgerError> {
        self.catch_up()?;
        let Some(from) = self.store.older_format() else { return Ok(None) };
        let state = Json::of(&format::state_value(&self.state))
            .map_err(|source| LedgerError::Encode { seq: self.seq, source })?;
        let (backup, seq) = self.store.migrate(self.time, state)?;
        self.seq = seq;
        Ok(Some(Migrated { from, backup }))
    }
}

/// Returns the changes of a record.
///
/// # Errors
/// When one is of a shape that this build does not know.
pub fn decode(record: &Record) -> Result<Vec<Change>, LedgerError> {
    format::decode_changes_text(record.changes.get())
        .map_err(|source| LedgerError::Format { seq: record.seq, source })
}

fn load<S: Store>(store: &mut S) -> Result<(State, u64, Time, Vec<String>), LedgerError> {
    let loaded = store.load()?;
    let checkpoint = loaded.checkpoint;
    let mut state = format::decode_state_text(checkpoint.state.get())
        .map_err(|source| LedgerError::Format { seq: checkpoint.seq, source })?;
    let (mut seq, mut time) = (checkpoint.seq, checkpoint.time);
    for record in &loaded.records {
        for change in &decode(record)? {
            apply(&mut state, change);
        }
        seq = record.seq;
        time = record.time;
    }
    Ok((state, seq, time, loaded.warnings))
}
