//! The store's twin in memory, for tests and the simulator.
//!
//! Handles made by [`MemoryStore::another`] share one journal, as processes share a folder. It also
//! plays the faults a disk has: an append that fails, one that fails but stands, and a crash that
//! loses what was not synced.

use std::sync::{Arc, Condvar, Mutex, MutexGuard};
use std::time::Duration;

use super::{Checkpoint, Loaded, Record, Store, StoreError, Tail};

/// What the lock file and the journal are called in messages.
const NAME: &str = "memory";

/// How the next append goes wrong.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    /// It is refused; nothing is written.
    Refuse,
    /// It is reported as failed, but this many of its records were written, not synced.
    Tear(usize),
}

/// One handle on a journal in memory.
#[derive(Debug)]
pub struct MemoryStore {
    shared: Arc<Shared>,
    is_locked: bool,
    /// The checkpoint and the last record this handle has seen; `None` when it must load.
    seen: Option<(u64, u64)>,
}

#[derive(Debug)]
struct Shared {
    journal: Mutex<Journal>,
    unlocked: Condvar,
}

#[derive(Debug)]
struct Journal {
    checkpoint: Checkpoint,
    records: Vec<Record>,
    /// How many of `records` survive a crash.
    synced: usize,
    is_locked: bool,
    fault: Option<Fault>,
}

impl Journal {
    fn last(&self) -> u64 {
        self.records.last().map_or(self.checkpoint.seq, |record| record.seq)
    }
}

impl MemoryStore {
    /// Makes a journal that starts with `first`.
    #[must_use]
    pub fn create(first: Checkpoint) -> Self {
        let (records, synced, is_locked, fault) = (Vec::new(), 0, false, None);
        let journal = Journal { checkpoint: first, records, synced, is_locked, fault };
        let shared = Shared { journal: Mutex::new(journal), unlocked: Condvar::new() };
        Self { shared: Arc::new(shared), is_locked: false, seen: None }
    }

    /// Returns another handle on the same journal, as another process would have.
    #[must_use]
    pub fn another(&self) -> Self {
        Self { shared: Arc::clone(&self.shared), is_locked: false, seen: None }
    }

    /// Makes the next append, of whichever handle, go wrong.
    pub fn fail_next(&self, fault: Fault) {
        self.journal().fault = Some(fault);
    }

    /// Takes back a fault that has not come true yet.
    pub fn clear_fault(&self) {
        self.journal().fault = None;
    }

    /// Loses all but the first `kept` records that were not synced, as a power cut does.
    ///
    /// Every other handle should be dropped as well; this one must load, and has no lock.
    pub fn crash(&mut self, kept: usize) {
        let mut journal = self.journal();
        let durable = journal.synced + kept;
        journal.records.truncate(durable);
        journal.synced = journal.records.len();
        drop(journal);
        self.seen = None;
        self.unlock();
    }

    fn journal(&self) -> MutexGuard<'_, Journal> {
        self.shared.journal.lock().expect("no handle panics in the middle of a change")
    }

    /// Returns the journal for a write after `expected`.
    fn journal_for_write(&self, expected: u64) -> Result<MutexGuard<'_, Journal>, StoreError> {
        assert!(self.is_locked, "the journal is written under the lock only");
        let journal = self.journal();
        let (base, seen) = self.seen.ok_or(StoreError::Gap { path: NAME.into() })?;
        if base != journal.checkpoint.seq {
            return Err(StoreError::Gap { path: NAME.into() });
        }
        let found = journal.last();
        if found != expected || found != seen {
            return Err(StoreError::Conflict { expected, found });
        }
        Ok(journal)
    }
}

impl Drop for MemoryStore {
    fn drop(&mut self) {
        self.unlock();
    }
}

impl Store for MemoryStore {
    fn lock(&mut self, wait: Duration) -> Result<(), StoreError> {
        if self.is_locked {
            return Ok(());
        }
        let journal = self.journal();
        let waited = self.shared.unlocked.wait_timeout_while(journal, wait, |held| held.is_locked);
        let (mut journal, _) = waited.expect("no handle panics in the middle of a change");
        if journal.is_locked {
            return Err(StoreError::LockTimeout { path: NAME.into(), waited: wait, owner: None });
        }
        journal.is_locked = true;
        drop(journal);
        self.is_locked = true;
        Ok(())
    }

    fn unlock(&mut self) {
        if std::mem::take(&mut self.is_locked) {
            self.journal().is_locked = false;
            self.shared.unlocked.notify_one();
        }
    }

    fn load(&mut self) -> Result<Loaded, StoreError> {
        let mut journal = self.journal();
        if self.is_locked {
            journal.synced = journal.records.len();
        }
        let (checkpoint, records) = (journal.checkpoint.clone(), journal.records.clone());
        let seen = (checkpoint.seq, journal.last());
        drop(journal);
        self.seen = Some(seen);
        Ok(Loaded { checkpoint, records, warnings: Vec::new() })
    }

    fn read_from(&mut self, after: u64) -> Result<Tail, StoreError> {
        let Some((base, _)) = self.seen else { return Ok(Tail::Gap) };
        let mut journal = self.journal();
        let last = journal.last();
        if base != journal.checkpoint.seq || after < base || after > last {
            drop(journal);
            self.seen = None;
            return Ok(Tail::Gap);
        }
        if self.is_locked {
            journal.synced = journal.records.len();
        }
        let records = journal.records.iter().filter(|record| record.seq > after).cloned().collect();
        drop(journal);
        self.seen = Some((base, last));
        Ok(Tail::Records(records))
    }

    fn append(&mut self, expected: u64, records: &[Record]) -> Result<(), StoreError> {
        super::assert_consecutive(expected, records);
        let mut journal = self.journal_for_write(expected)?;
        let fault = journal.fault.take();
        let written = match fault {
            None => records,
            Some(Fault::Refuse) => &[],
            Some(Fault::Tear(written)) => &records[..written.min(records.len())],
        };
        journal.records.extend_from_slice(written);
        let last = journal.last();
        if fault.is_some() {
            drop(journal);
            self.seen = None;
            let source = std::io::Error::other("injected");
            return Err(StoreError::Io { attempt: "append to journal", path: NAME.into(), source });
        }
        journal.synced = journal.records.len();
        drop(journal);
        self.seen = self.seen.map(|(base, _)| (base, last));
        Ok(())
    }

    fn wants_checkpoint(&self) -> bool {
        let journal = self.journal();
        let tail_bytes = journal.records.iter().map(|record| record.changes.get().len() as u64);
        let checkpoint_bytes = journal.checkpoint.state.get().len() as u64;
        self.seen.is_some() && super::is_checkpoint_due(tail_bytes.sum(), checkpoint_bytes)
    }

    fn put_checkpoint(&mut self, checkpoint: &Checkpoint) -> Result<(), StoreError> {
        let mut journal = self.journal_for_write(checkpoint.seq)?;
        if journal.checkpoint.seq != checkpoint.seq {
            journal.checkpoint = checkpoint.clone();
            journal.records.clear();
            journal.synced = 0;
        }
        drop(journal);
        self.seen = Some((checkpoint.seq, checkpoint.seq));
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::contract::{WAIT, first, record};

    fn loaded() -> MemoryStore {
        let mut store = MemoryStore::create(first());
        store.lock(WAIT).unwrap();
        store.load().unwrap();
        store
    }

    #[test]
    fn refused_append_leaves_nothing_and_needs_a_load() {
        let mut store = loaded();
        store.fail_next(Fault::Refuse);
        assert!(matches!(store.append(0, &[record(1)]), Err(StoreError::Io { .. })));
        assert!(matches!(store.append(0, &[record(1)]), Err(StoreError::Gap { .. })));
        assert_eq!(store.load().unwrap().records, []);
        store.append(0, &[record(1)]).unwrap();
    }

    #[test]
    fn torn_append_may_stand_or_be_lost_in_a_crash() {
        for kept in [0, 1] {
            let mut store = loaded();
            store.append(0, &[record(1)]).unwrap();
            store.fail_next(Fault::Tear(1));
            assert!(store.append(1, &[record(2), record(3)]).is_err());
            store.crash(kept);
            assert_eq!(store.load().unwrap().records.len(), 1 + kept);
        }
    }

    #[test]
    fn found_records_are_durable_once_read_under_the_lock() {
        let mut store = loaded();
        store.fail_next(Fault::Tear(1));
        assert!(store.append(0, &[record(1)]).is_err());
        assert_eq!(store.load().unwrap().records.len(), 1);
        store.crash(0);
        assert_eq!(store.load().unwrap().records.len(), 1);
    }
}
