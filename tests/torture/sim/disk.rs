//! The memory store with a disk's faults, and with checkpoints often enough to meet them.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::rc::Rc;
use std::time::Duration;

use pipeline::store::memory::{Fault, MemoryStore};
use pipeline::store::{Checkpoint, Loaded, Record, Store, StoreError, Tail};

/// What all handles on one disk share.
#[derive(Debug, Default)]
struct Shared {
    /// Records since the last checkpoint.
    tail: u64,
    /// The next checkpoint is refused.
    fails_checkpoint: bool,
    /// Records whose writers were told that they failed, though they may stand.
    limbo: BTreeMap<u64, Record>,
}

/// One process's handle on the journal.
#[derive(Debug)]
pub struct Disk {
    inner: MemoryStore,
    shared: Rc<RefCell<Shared>>,
    checkpoint_every: u64,
    /// A torn append is due: its records go into limbo.
    torn: Rc<RefCell<bool>>,
}

impl Disk {
    /// Makes a journal that starts with `first`, with a checkpoint every so many records.
    pub fn create(first: Checkpoint, checkpoint_every: u64) -> Self {
        let inner = MemoryStore::create(first);
        Self { inner, shared: Rc::default(), checkpoint_every, torn: Rc::default() }
    }

    /// Returns another process's handle.
    pub fn another(&self) -> Self {
        let (shared, torn) = (Rc::clone(&self.shared), Rc::clone(&self.torn));
        Self { inner: self.inner.another(), shared, checkpoint_every: self.checkpoint_every, torn }
    }

    /// The next append is refused; nothing of it stands.
    pub fn refuse_next(&self) {
        self.inner.fail_next(Fault::Refuse);
    }

    /// The next append is reported as failed, and stands, not synced.
    pub fn tear_next(&self) {
        self.inner.fail_next(Fault::Tear(usize::MAX));
        *self.torn.borrow_mut() = true;
    }

    /// The next checkpoint is refused, after its record was written.
    pub fn refuse_next_checkpoint(&self) {
        self.shared.borrow_mut().fails_checkpoint = true;
    }

    /// Nothing goes wrong any more.
    pub fn heal(&self) {
        self.inner.clear_fault();
        *self.torn.borrow_mut() = false;
        self.shared.borrow_mut().fails_checkpoint = false;
    }

    /// Loses what was not synced, but for the first `kept` records.
    pub fn cut_power(&mut self, kept: usize) {
        self.inner.crash(kept);
    }

    /// Returns the record of that number, if it stands though its writer was told otherwise.
    pub fn limbo(&self, seq: u64) -> Option<Record> {
        self.shared.borrow().limbo.get(&seq).cloned()
    }
}

impl Store for Disk {
    fn lock(&mut self, wait: Duration) -> Result<(), StoreError> {
        self.inner.lock(wait)
    }

    fn unlock(&mut self) {
        self.inner.unlock();
    }

    fn load(&mut self) -> Result<Loaded, StoreError> {
        self.inner.load()
    }

    fn read_from(&mut self, after: u64) -> Result<Tail, StoreError> {
        self.inner.read_from(after)
    }

    fn append(&mut self, expected: u64, records: &[Record]) -> Result<(), StoreError> {
        let is_torn = std::mem::take(&mut *self.torn.borrow_mut());
        let mut shared = self.shared.borrow_mut();
        let wants_checkpoint = shared.tail + 1 >= self.checkpoint_every;
        // What stood there is lost: nobody has seen it.
        let _ = shared.limbo.split_off(&(expected + 1));
        if is_torn || (shared.fails_checkpoint && wants_checkpoint) {
            shared.limbo.extend(records.last().map(|record| (record.seq, record.clone())));
        }
        self.inner.append(expected, records)?;
        shared.tail += 1;
        Ok(())
    }

    fn wants_checkpoint(&self) -> bool {
        self.shared.borrow().tail >= self.checkpoint_every
    }

    fn put_checkpoint(&mut self, checkpoint: &Checkpoint) -> Result<(), StoreError> {
        let mut shared = self.shared.borrow_mut();
        if std::mem::take(&mut shared.fails_checkpoint) {
            let source = std::io::Error::other("injected");
            let attempt = "write checkpoint";
            return Err(StoreError::Io { attempt, path: "memory".into(), source });
        }
        self.inner.put_checkpoint(checkpoint)?;
        shared.tail = 0;
        Ok(())
    }
}
