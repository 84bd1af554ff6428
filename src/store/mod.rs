//! Where the truth is kept: an append-only journal of numbered records behind the [`Store`] seam.
//!
//! [`journal::FileStore`] keeps it in files, [`memory::MemoryStore`] in memory for tests and the
//! simulator; both pass the same contract. What a change or a state *means* is not known here:
//! both are opaque [`Json`]. [`view`] writes `state.json`, which is never read back as state.

pub mod format;
pub mod history;
pub mod journal;
pub mod ledger;
pub mod lock;
pub mod memory;
pub mod view;

mod error;
mod handle;
mod joint;
mod json;
mod line;
mod migration;
mod recovery;
pub mod repair;
mod segment;

#[cfg(test)]
mod contract;
#[cfg(all(test, feature = "failpoints"))]
mod crash;

use std::time::Duration;

use crate::machine::time::Time;

pub use error::StoreError;
pub use json::Json;

/// One transaction: what changed, when and by whom.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Record {
    /// Its place in the one order of all records; grows by 1 without a gap.
    pub seq: u64,
    /// When it was decided; written in milliseconds, UTC.
    pub time: Time,
    /// Who caused it, for people ("monitor", "cli").
    pub actor: String,
    /// A JSON array of changes, each with a `kind`.
    pub changes: Json,
}

/// The whole state as it was after the record `seq`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Checkpoint {
    /// The last record the state contains; 0 before the first.
    pub seq: u64,
    /// When it was made; written in milliseconds, UTC.
    pub time: Time,
    /// The state as a JSON object.
    pub state: Json,
}

/// What a full load found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Loaded {
    /// The newest checkpoint.
    pub checkpoint: Checkpoint,
    /// The records after it, in order and without a gap; may be empty.
    pub records: Vec<Record>,
    /// What was put right on the way, one sentence each, to be shown to the user; may be empty.
    pub warnings: Vec<String>,
}

/// What was appended since a reader last looked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Tail {
    /// The records that follow, in order and without a gap; empty when there is nothing new.
    Records(Vec<Record>),
    /// They cannot be told from here (rotated, shortened, replaced, or never loaded): load anew.
    Gap,
}

/// An append-only journal of records with checkpoints, shared by several processes.
///
/// A writer's turn is `lock`, `read_from` (and `load` on [`Tail::Gap`]), `append`, `unlock`. After
/// any error what the caller holds in memory is stale: it loads anew.
pub trait Store {
    /// Takes the exclusive lock, waiting `wait` at most; does nothing when it is held already.
    ///
    /// # Errors
    /// [`StoreError::LockTimeout`] when somebody else kept it.
    fn lock(&mut self, wait: Duration) -> Result<(), StoreError>;

    /// Gives the lock back; does nothing without it. Dropping the store does the same.
    fn unlock(&mut self);

    /// Reads the newest checkpoint and all that follows it; under the lock also makes it durable.
    ///
    /// Under the lock an unfinished last record is cut off, kept aside and reported in `warnings`;
    /// without it that record is ignored. Costs as much as the state and its tail are large.
    ///
    /// # Errors
    /// Damage, a newer format, no journal at all, or the file system's own; the journal is then as
    /// before.
    fn load(&mut self) -> Result<Loaded, StoreError>;

    /// Returns the records that anyone appended after `after`, the last one the caller has seen.
    ///
    /// Under the lock they are durable when this returns. Costs as much as there is new.
    ///
    /// # Errors
    /// Only the file system's own; everything odd is a [`Tail::Gap`], which `load` then judges.
    fn read_from(&mut self, after: u64) -> Result<Tail, StoreError>;

    /// Appends `records`, which follow `expected`, as one write, and makes them durable.
    ///
    /// After any other error than `Conflict` it is open whether they stand, until `load` tells.
    ///
    /// # Errors
    /// [`StoreError::Conflict`] when `expected` is not the last record, [`StoreError::Gap`] when
    /// the journal must be loaded first, or the file system's own.
    ///
    /// # Panics
    /// Without the lock, or when the records' numbers do not follow `expected`.
    fn append(&mut self, expected: u64, records: &[Record]) -> Result<(), StoreError>;

    /// Returns true when the records since the last checkpoint weigh as much as that checkpoint.
    ///
    /// So, over a run, checkpoints cost a constant per record however large the state is.
    fn wants_checkpoint(&self) -> bool;

    /// Puts a checkpoint of the state after the last record; later loads start there.
    ///
    /// Does nothing when the newest checkpoint has the same `seq`.
    ///
    /// # Errors
    /// As for [`Store::append`]; the journal as it was remains valid.
    ///
    /// # Panics
    /// Without the lock.
    fn put_checkpoint(&mut self, checkpoint: &Checkpoint) -> Result<(), StoreError>;
}

/// The smallest tail that makes a checkpoint worth its syncs, in bytes.
const TAIL_BYTES_MIN: u64 = 1 << 20;

/// Returns whether a tail of `tail_bytes` after a checkpoint of `checkpoint_bytes` is long enough.
fn is_checkpoint_due(tail_bytes: u64, checkpoint_bytes: u64) -> bool {
    tail_bytes >= checkpoint_bytes.max(TAIL_BYTES_MIN)
}

/// Panics unless the numbers of `records` follow `expected` without a gap.
fn assert_consecutive(expected: u64, records: &[Record]) {
    let follows = records.iter().zip(1..).all(|(record, step)| record.seq == expected + step);
    assert!(follows, "the numbers of appended records follow {expected} without a gap");
}
