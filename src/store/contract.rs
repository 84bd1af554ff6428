//! What every [`Store`] promises: the same cases over each implementation.

use std::thread;
use std::time::Duration;

use super::journal::FileStore;
use super::memory::MemoryStore;
use super::{Checkpoint, Json, Record, Store, StoreError, TAIL_BYTES_MIN, Tail};
use crate::machine::time::Time;

/// Long enough for any test, so that a wait that ends early is a fault.
pub(super) const WAIT: Duration = Duration::from_secs(30);
const SHORT: Duration = Duration::from_millis(5);

/// Returns the checkpoint that test journals start with.
pub(super) fn first() -> Checkpoint {
    checkpoint(0)
}

pub(super) fn checkpoint(seq: u64) -> Checkpoint {
    let state = Json::of(&serde_json::json!({"tasks": {"TASK-001": {"seq": seq}}})).unwrap();
    Checkpoint { seq, time: Time::from_ms(1_795_215_600_000 + seq), state }
}

pub(super) fn record(seq: u64) -> Record {
    let changes = Json::of(&serde_json::json!([{"kind": "noted", "seq": seq}])).unwrap();
    let time = Time::from_ms(1_795_215_600_000 + seq);
    Record { seq, time, actor: "test".into(), changes }
}

fn records(range: std::ops::RangeInclusive<u64>) -> Vec<Record> {
    range.map(record).collect()
}

fn heavy_record(seq: u64) -> Record {
    let text = "x".repeat(usize::try_from(TAIL_BYTES_MIN).unwrap());
    Record { changes: Json::of(&[text]).unwrap(), ..record(seq) }
}

/// A fresh journal and a way to get further handles on it.
type Open<'a> = &'a (dyn Fn() -> Box<dyn Store + Send> + Sync);

fn over_each(case: fn(Open<'_>)) {
    let memory = MemoryStore::create(first());
    case(&|| Box::new(memory.another()));
    let dir = tempfile::tempdir().unwrap();
    FileStore::create(dir.path(), &first(), WAIT).unwrap();
    case(&|| Box::new(FileStore::open(dir.path(), 0)));
}

/// Returns a handle that holds the lock and has loaded.
fn writer(open: Open<'_>) -> Box<dyn Store + Send> {
    let mut store = open();
    store.lock(WAIT).unwrap();
    store.load().unwrap();
    store
}

#[test]
fn what_was_appended_is_loaded_in_order() {
    over_each(|open| {
        let mut store = writer(open);
        store.append(0, &records(1..=2)).unwrap();
        store.append(2, &records(3..=3)).unwrap();
        store.append(3, &[]).unwrap();
        let loaded = open().load().unwrap();
        assert_eq!(loaded.checkpoint, first());
        assert_eq!(loaded.records, records(1..=3));
        assert!(loaded.warnings.is_empty());
    });
}

#[test]
fn reader_gets_what_follows_its_last() {
    over_each(|open| {
        let (mut store, mut reader) = (writer(open), open());
        assert_eq!(reader.read_from(0).unwrap(), Tail::Gap);
        reader.load().unwrap();
        assert_eq!(reader.read_from(0).unwrap(), Tail::Records(vec![]));
        store.append(0, &records(1..=2)).unwrap();
        assert_eq!(reader.read_from(0).unwrap(), Tail::Records(records(1..=2)));
        store.append(2, &records(3..=3)).unwrap();
        assert_eq!(reader.read_from(2).unwrap(), Tail::Records(records(3..=3)));
        assert_eq!(reader.read_from(1).unwrap(), Tail::Records(records(2..=3)));
        assert_eq!(reader.read_from(9).unwrap(), Tail::Gap);
        assert_eq!(store.read_from(3).unwrap(), Tail::Records(vec![]));
    });
}

#[test]
fn lock_held_by_another_times_out() {
    over_each(|open| {
        let mut holder = writer(open);
        let mut other = open();
        holder.lock(SHORT).unwrap();
        assert!(matches!(other.lock(SHORT), Err(StoreError::LockTimeout { .. })));
        holder.unlock();
        other.lock(SHORT).unwrap();
        assert!(matches!(holder.lock(SHORT), Err(StoreError::LockTimeout { .. })));
        drop(other);
        holder.lock(SHORT).unwrap();
    });
}

#[test]
fn append_after_the_wrong_record_is_a_conflict() {
    over_each(|open| {
        let (mut a, mut b) = (writer(open), open());
        a.append(0, &records(1..=1)).unwrap();
        let conflict = a.append(0, &records(1..=1));
        assert!(matches!(conflict, Err(StoreError::Conflict { expected: 0, found: 1 })));
        a.unlock();
        b.load().unwrap();
        b.lock(WAIT).unwrap();
        b.append(1, &records(2..=3)).unwrap();
        b.unlock();
        a.lock(WAIT).unwrap();
        let conflict = a.append(1, &records(2..=2));
        assert!(matches!(conflict, Err(StoreError::Conflict { expected: 1, found: 3 })));
        let conflict = a.put_checkpoint(&checkpoint(1));
        assert!(matches!(conflict, Err(StoreError::Conflict { expected: 1, found: 3 })));
        assert_eq!(a.read_from(1).unwrap(), Tail::Records(records(2..=3)));
        a.append(3, &records(4..=4)).unwrap();
        assert_eq!(open().load().unwrap().records, records(1..=4));
    });
}

#[test]
fn append_before_a_load_is_a_gap() {
    over_each(|open| {
        let mut store = open();
        store.lock(WAIT).unwrap();
        assert!(matches!(store.append(0, &records(1..=1)), Err(StoreError::Gap { .. })));
        assert!(!store.wants_checkpoint());
    });
}

#[test]
fn load_starts_at_the_newest_checkpoint() {
    over_each(|open| {
        let mut store = writer(open);
        store.append(0, &records(1..=3)).unwrap();
        store.put_checkpoint(&checkpoint(3)).unwrap();
        store.put_checkpoint(&checkpoint(3)).unwrap();
        store.append(3, &records(4..=5)).unwrap();
        let loaded = open().load().unwrap();
        assert_eq!((loaded.checkpoint, loaded.records), (checkpoint(3), records(4..=5)));
    });
}

#[test]
fn rotation_is_a_gap_to_others_until_they_load() {
    over_each(|open| {
        let (mut store, mut other) = (writer(open), open());
        other.load().unwrap();
        store.append(0, &records(1..=2)).unwrap();
        store.put_checkpoint(&checkpoint(2)).unwrap();
        assert_eq!(other.read_from(0).unwrap(), Tail::Gap);
        other.load().unwrap();
        assert_eq!(other.read_from(2).unwrap(), Tail::Records(vec![]));
        store.append(2, &records(3..=3)).unwrap();
        store.put_checkpoint(&checkpoint(3)).unwrap();
        store.unlock();
        other.lock(WAIT).unwrap();
        assert!(matches!(other.append(2, &records(3..=3)), Err(StoreError::Gap { .. })));
        other.load().unwrap();
        other.append(3, &records(4..=4)).unwrap();
    });
}

#[test]
fn checkpoint_is_due_when_the_tail_weighs_enough() {
    over_each(|open| {
        let mut store = writer(open);
        store.append(0, &[record(1)]).unwrap();
        assert!(!store.wants_checkpoint());
        store.append(1, &[heavy_record(2)]).unwrap();
        assert!(store.wants_checkpoint());
        store.put_checkpoint(&checkpoint(2)).unwrap();
        assert!(!store.wants_checkpoint());
    });
}

#[test]
fn two_writers_lose_nothing_and_agree_on_one_order() {
    const EACH: u64 = 40;
    /// Appends `EACH` records, reading what the other wrote before each; returns all it saw.
    fn write(mut store: Box<dyn Store + Send>, actor: &str) -> Vec<Record> {
        let mut seen = store.load().unwrap().records;
        for _ in 0..EACH {
            store.lock(WAIT).unwrap();
            let last = seen.last().map_or(0, |record| record.seq);
            match store.read_from(last).unwrap() {
                Tail::Records(new) => seen.extend(new),
                Tail::Gap => seen = store.load().unwrap().records,
            }
            let last = seen.last().map_or(0, |record| record.seq);
            let mine = Record { actor: actor.into(), ..record(last + 1) };
            store.append(last, std::slice::from_ref(&mine)).unwrap();
            seen.push(mine);
            store.unlock();
        }
        seen
    }
    over_each(|open| {
        thread::scope(|scope| {
            let writers = ["a", "b"].map(|actor| scope.spawn(move || write(open(), actor)));
            let seen = writers.map(|writer| writer.join().unwrap());
            let all = open().load().unwrap().records;
            assert_eq!(all.len() as u64, 2 * EACH);
            for seen in seen {
                assert_eq!(seen, all[..seen.len()]);
            }
        });
    });
}
