//! The committed samples of format 1, and the schemas that describe it to others.
//!
//! `UPDATE_GOLDEN=1` writes the samples anew; the schemas are kept by hand.

use std::collections::BTreeSet;
use std::fs;
use std::path::PathBuf;

use serde_json::{Value, json};

use super::{decode_changes_text, decode_state_text, drive, encode_changes, encode_state, sample};
use crate::machine::Change;
use crate::machine::settings::Scheduler;

#[path = "../../../tests/it/support/schema.rs"]
mod rules;

pub(crate) use rules::fault;

fn path(name: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("state").join(name)
}

/// Returns the committed sample, after comparing it with what is written now.
fn check_sample(name: &str, written: &str) -> String {
    let path = path("samples").join(name);
    if std::env::var_os("UPDATE_GOLDEN").is_some() {
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(&path, written).unwrap();
    }
    let sample = fs::read_to_string(&path).unwrap();
    assert!(sample == written, "`{}` is no longer what is written", path.display());
    sample
}

fn changes_sample() -> (Vec<Change>, String) {
    let changes = sample::every_change();
    let line = |change| format!("{}\n", encode_changes(std::slice::from_ref(change)).unwrap());
    let text = changes.iter().map(line).collect();
    (changes, text)
}

fn schema(name: &str) -> Value {
    serde_json::from_str(&fs::read_to_string(path("schema").join(name)).unwrap()).unwrap()
}

/// Returns a line of the journal around `value`, with the store's fields.
fn line(name: &str, value: Value) -> Value {
    let (sum, time) = ("0123456789abcdef", "2026-11-20T23:00:00.000Z");
    let mut line = json!({"v": 1, "seq": 7, "time": time, "prev": sum, "sum": sum});
    line[name] = value;
    let extra = if name == "state" { ("kind", "checkpoint") } else { ("actor", "cli") };
    line[extra.0] = extra.1.into();
    line
}

#[test]
fn committed_changes_are_read_and_written_as_ever() {
    let (changes, text) = changes_sample();
    let sample = check_sample("changes-v1.ndjson", &text);
    let read: Vec<Change> =
        sample.lines().flat_map(|line| decode_changes_text(line).unwrap()).collect();
    assert_eq!(read, changes);
}

#[test]
fn committed_checkpoint_is_read_and_written_as_ever() {
    let state = drive::full();
    let sample =
        check_sample("checkpoint-v1.json", &format!("{}\n", encode_state(&state).unwrap()));
    assert_eq!(decode_state_text(&sample).unwrap(), state);
}

#[test]
fn checkpoint_of_before_the_scheduler_is_read() {
    let text = fs::read_to_string(path("samples").join("checkpoint-v1-first.json")).unwrap();
    let state = decode_state_text(&text).unwrap();
    assert_eq!(state.settings.scheduler, Scheduler::default());
    assert!(!state.tasks.is_empty());
}

#[test]
fn journal_lines_fit_their_schema() {
    let root = schema("journal.schema.json");
    let (_, text) = changes_sample();
    for changes in text.lines() {
        let line = line("changes", serde_json::from_str(changes).unwrap());
        assert_eq!(fault(&root, &root, &line), None, "{changes}");
    }
    for state in [drive::worked_on().state, drive::full()] {
        let text = encode_state(&state).unwrap();
        let line = line("state", serde_json::from_str(text.get()).unwrap());
        assert_eq!(fault(&root, &root["$defs"]["checkpoint"], &line), None);
        assert_eq!(fault(&root, &root, &line), None);
    }
    let odd = json!([{"kind": "task_moved", "id": "a", "to": "waiting", "at": 1, "by": "me"}]);
    assert!(fault(&root, &root, &line("changes", odd)).is_some());
}

/// A field that the schema knows and the program refuses, or the other way round, is found by
/// taking each field of each sample away in turn.
#[test]
fn schema_and_program_demand_the_same_fields() {
    let root = schema("journal.schema.json");
    let (_, text) = changes_sample();
    for text in text.lines() {
        let changes: Value = serde_json::from_str(text).unwrap();
        for key in changes[0].as_object().unwrap().keys() {
            let mut without = changes.clone();
            without[0].as_object_mut().unwrap().remove(key);
            let is_refused = decode_changes_text(&without.to_string()).is_err();
            let is_faulty = fault(&root, &root, &line("changes", without)).is_some();
            assert!(is_refused && is_faulty, "{text} without `{key}`");
        }
    }
}

#[test]
fn schema_lists_the_kinds_in_the_program() {
    let root = schema("journal.schema.json");
    let rules = root["$defs"]["change"]["oneOf"].as_array().unwrap();
    let named: BTreeSet<&str> =
        rules.iter().map(|rule| rule["properties"]["kind"]["const"].as_str().unwrap()).collect();
    assert_eq!(named, super::change::KINDS.iter().copied().collect());
}

#[test]
fn view_of_the_documented_shape_fits_its_schema() {
    let root = schema("state.schema.json");
    let task = json!({
        "id": "TASK-001", "title": "t", "status": "impl_wip", "assigned_to": "implementation-1",
        "priority": "medium", "depends_on": [], "created_at": "2026-11-20T23:00:00.000Z",
        "labels": ["more may be there"]
    });
    let agent = json!({
        "stages": ["implementation"], "status": "working", "until": null,
        "stage": "implementation", "current_task": "TASK-001", "attempt": "TASK-001.impl.1",
        "completed": 1, "failed": 0, "busy_s": 1.5
    });
    let view = json!({
        "version": "1.0.0", "format": 1, "seq": 7, "updated_at": "2026-11-20T23:00:00.000Z",
        "orchestration_mode": "parallel", "mode": "production", "tasks": {"TASK-001": task},
        "agents": {"implementation-1": agent},
        "queues": {
            "unassigned": [], "implementation": [], "landing": [], "blocked": [], "completed": []
        },
        "metrics": {"attempts": 1, "cost_usd": null, "handoff_ms": {"p50": 3.0, "p99": null}},
        "checksum": "0123456789abcdef"
    });
    assert_eq!(fault(&root, &root, &view), None);
    for (place, wrong) in [
        ("/tasks/TASK-001/status", json!("somewhere")),
        ("/agents/implementation-1/status", json!("asleep")),
        ("/queues/landing", json!(["../x"])),
        ("/seq", json!(-1)),
        ("/mode", json!("parallel")),
    ] {
        let mut view = view.clone();
        *view.pointer_mut(place).unwrap() = wrong;
        assert!(fault(&root, &root, &view).is_some(), "{place}");
    }
}
