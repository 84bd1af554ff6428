//! The store killed, and refused, at every one of its fail points.
//!
//! [`worker`] is run as a child process, once to list the points it passes, then once for every
//! pass with a kill there and once with an error. Whatever happens, what it acknowledged is still
//! there, and a second run brings it to the same end.

use std::collections::BTreeMap;
use std::fs::{self, OpenOptions};
use std::io::Write;
use std::path::Path;

use super::contract::{WAIT, checkpoint, first, record};
use super::journal::FileStore;
use super::{Loaded, Record, Store, StoreError, segment, view};
use crate::machine::time::Time;
use crate::sys::child;

/// The last record the worker writes.
const LAST: u64 = 8;

/// Where the worker keeps the highest record it was told is durable.
const ACKNOWLEDGED: &str = "acknowledged";

/// Names the folder in which the worker works; unset in an ordinary test run.
const DIR: &str = "PIPELINE_TEST_STORE";

fn last(loaded: &Loaded) -> u64 {
    loaded.records.last().map_or(loaded.checkpoint.seq, |record| record.seq)
}

fn acknowledged(dir: &Path) -> u64 {
    fs::read_to_string(dir.join(ACKNOWLEDGED)).map_or(0, |text| text.parse().unwrap())
}

/// Goes on from wherever the journal stands; after an error loads anew, as every caller does.
fn work(dir: &Path, tries_left: &mut u32) -> Result<(), StoreError> {
    let state = dir.join("state");
    if FileStore::is_fresh(&state)? {
        FileStore::create(&state, &first(), WAIT)?;
    }
    let mut store = FileStore::open(&state, acknowledged(dir));
    store.lock(WAIT)?;
    let mut seq = last(&store.load()?);
    while seq < LAST {
        let batch: Vec<Record> = (seq + 1..=seq + 1 + seq % 2).map(record).collect();
        store.append(seq, &batch)?;
        seq += batch.len() as u64;
        fs::write(dir.join(ACKNOWLEDGED), seq.to_string()).unwrap();
        if seq.is_multiple_of(3) {
            store.put_checkpoint(&checkpoint(seq))?;
        }
        // A view that fails must not stop anything.
        let _ = view::write_view(
            &state,
            format!(r#"{{"seq":{seq},"a":1}}"#).as_bytes(),
            Time::from_ms(0),
        );
        if seq == 5 && *tries_left == 3 {
            *tries_left -= 1;
            let newest = *segment::list(&state.join("journal"))?.segments.last().unwrap();
            let path = segment::path(&state.join("journal"), newest);
            let mut dying = OpenOptions::new().append(true).open(path).unwrap();
            dying.write_all(b"{\"v\":1,\"seq\":6,\"ti").unwrap();
            seq = last(&store.load()?);
        }
    }
    Ok(())
}

#[test]
fn worker() {
    let Some(dir) = std::env::var_os(DIR) else { return };
    let mut tries_left = 3;
    while work(Path::new(&dir), &mut tries_left).is_err() {
        assert!(tries_left > 0);
        tries_left -= 1;
    }
}

/// Appends; what fails is done once more by the same store.
#[test]
fn stubborn_worker() {
    let Some(dir) = std::env::var_os(DIR) else { return };
    let mut store = FileStore::open(&Path::new(&dir).join("state"), 0);
    let mut append = || {
        store.unlock();
        store.lock(WAIT)?;
        let seq = last(&store.load()?);
        store.append(seq, &[record(seq + 1)])
    };
    let failed: Result<(), StoreError> = append();
    assert!(failed.is_err());
    append().unwrap();
}

/// Runs the worker in `dir` with the environment `vars`; returns whether it came to its end.
fn run(dir: &Path, vars: &[(&str, &str)]) -> bool {
    run_worker("worker", dir, vars)
}

fn run_worker(name: &str, dir: &Path, vars: &[(&str, &str)]) -> bool {
    let mut command = child::command(std::env::current_exe().unwrap(), dir);
    let name = format!("store::crash::{name}");
    command.args(["--exact", &name, "--test-threads=1"]).env(DIR, dir);
    command.envs(vars.iter().copied());
    command.output().unwrap().status.success()
}

/// Loads as a reader and checks that nothing acknowledged is missing, and nothing is wrong.
fn check(dir: &Path, place: &str) {
    let state = dir.join("state");
    let acknowledged = acknowledged(dir);
    if acknowledged == 0 && FileStore::is_fresh(&state).unwrap() {
        return;
    }
    let loaded = FileStore::open(&state, acknowledged).load();
    let loaded = loaded.unwrap_or_else(|error| panic!("{place}: {error}"));
    assert!(last(&loaded) >= acknowledged, "{place}");
    let expected: Vec<Record> = (loaded.checkpoint.seq + 1..=last(&loaded)).map(record).collect();
    assert_eq!(loaded.records, expected, "{place}");
    assert_eq!(loaded.checkpoint, checkpoint(loaded.checkpoint.seq), "{place}");
}

#[test]
fn death_or_refusal_at_any_point_loses_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let log = dir.path().join("points");
    assert!(run(dir.path(), &[("PIPELINE_FAILPOINT_LOG", log.to_str().unwrap())]));
    check(dir.path(), "undisturbed");
    let mut passes = BTreeMap::<String, u32>::new();
    for name in fs::read_to_string(log).unwrap().lines() {
        *passes.entry(name.into()).or_default() += 1;
    }
    for name in ["journal.write", "journal.sync", "checkpoint.rename", "torn.cut", "dir.sync"] {
        assert!(passes.contains_key(name), "the worker passes `{name}`: {passes:?}");
    }
    for (name, count) in passes {
        for (pass, action) in (1..=count).flat_map(|pass| [(pass, "kill"), (pass, "error")]) {
            let place = format!("{name}:{pass}={action}");
            let dir = tempfile::tempdir().unwrap();
            let is_done = run(dir.path(), &[("PIPELINE_FAILPOINT", &place)]);
            assert_eq!(is_done, action == "error", "{place}");
            check(dir.path(), &place);
            assert!(run(dir.path(), &[]), "{place}");
            check(dir.path(), &place);
            let loaded = FileStore::open(&dir.path().join("state"), 0).load().unwrap();
            assert!(last(&loaded) >= LAST, "{place}");
        }
    }
}

#[test]
fn what_a_failed_sync_may_have_dropped_is_written_again_before_the_next_is_believed() {
    let dir = tempfile::tempdir().unwrap();
    let (state, log) = (dir.path().join("state"), dir.path().join("points"));
    FileStore::create(&state, &first(), WAIT).unwrap();
    let place = [
        ("PIPELINE_FAILPOINT", "journal.sync:1=error"),
        ("PIPELINE_FAILPOINT_LOG", log.to_str().unwrap()),
    ];
    assert!(run_worker("stubborn_worker", dir.path(), &place));
    let log = fs::read_to_string(log).unwrap();
    let of_sync = |name: &&str| ["journal.sync", "journal.again", "journal.write"].contains(name);
    let passed: Vec<&str> = log.lines().filter(of_sync).collect();
    let expected =
        ["journal.sync", "journal.again", "journal.sync", "journal.write", "journal.sync"];
    assert_eq!(passed, expected, "{log}");
    let loaded = FileStore::open(&state, 0).load().unwrap();
    assert_eq!(loaded.records, [record(1)]);
}
