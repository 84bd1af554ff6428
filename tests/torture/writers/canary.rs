//! Proves the judge: a true history passes, and every way of spoiling it is caught.

use std::time::Duration;

use pipeline::machine::time::Time;
use pipeline::machine::{self, Change, Event, EventBody, State};
use pipeline::store::Checkpoint;
use pipeline::store::Json;
use pipeline::store::format::state_value;
use pipeline::store::ledger::{Ledger, Turns};
use pipeline::store::memory::MemoryStore;

use super::model::{Entered, Entry, History, MonitorRun, judge};
use super::ops::{Answer, Op};

const SETTINGS: &str = "[project]\nisolation = \"none\"\n\n[[agent]]\nname = \"worker\"\n\
    stages = [\"architect\", \"test\", \"implementation\", \"supervisor\"]\ncommand = \"true\"\n";

fn requests() -> Vec<Op> {
    let add = |tag: &str| Op::Add { tag: tag.into(), id: None, needs: vec![], is_held: true };
    let (one, two) = ("TASK-001".to_owned(), "TASK-002".to_owned());
    vec![
        add("a"),
        add("b"),
        Op::Pause { is_paused: true },
        Op::Edit { tag: "c".into(), id: one.clone() },
        Op::Pause { is_paused: true },
        Op::Hold { id: one.clone(), is_held: false },
        Op::Pause { is_paused: false },
        Op::Pause { is_paused: true },
        Op::Cancel { id: one.clone() },
        Op::Hold { id: one, is_held: true },
        Op::Edit { tag: "d".into(), id: two },
        Op::PauseAgent { name: "nobody".into(), is_paused: true },
    ]
}

/// Requests one after the other, each answered before the next one is asked.
fn history() -> History {
    let settings = pipeline::config::load(SETTINGS).expect("good settings").settings;
    let at = Time::from_ms(1_000);
    let start = State::new(settings, at);
    let state = Json::of(&state_value(&start)).expect("JSON");
    let store = MemoryStore::create(Checkpoint { seq: 0, time: at, state });
    let (mut ledger, _) = Ledger::open(store, "cli").expect("it opens");
    let (mut records, mut entries) = (Vec::new(), Vec::new());
    for (number, op) in (1..).zip(requests()) {
        let time = Time::from_ms(1_000 + number);
        let event = Event { at: time, random: 0, body: EventBody::Command(op.command()) };
        let done = ledger.transact(Duration::ZERO, time, &[event], Turns::None).expect("it does");
        let added = done.changes.iter().find_map(|change| match (change, &op) {
            (Change::Task(id, _), Op::Add { .. }) => Some(id.as_str().to_owned()),
            _ => None,
        });
        let answer = match &done.answers[0] {
            machine::Answer::Refuse(_) => Answer::Refused,
            _ if done.changes.is_empty() => Answer::Unchanged,
            _ => Answer::Changed(added),
        };
        if !done.changes.is_empty() {
            let (seq, actor, changes) = (ledger.seq(), "cli".into(), done.changes);
            records.push(Entered { seq, time, actor, changes });
        }
        entries.push(Entry { op, asked: number * 10, answered: number * 10 + 5, answer });
    }
    let end = ledger.state().clone();
    History { start, start_seq: 0, records, entries, monitors: Vec::new(), end }
}

/// Numbers the records anew, so that only what they hold is wrong.
fn renumber(history: &mut History) {
    let numbers = history.start_seq + 1..;
    history.records.iter_mut().zip(numbers).for_each(|(record, seq)| record.seq = seq);
}

fn has_killed(mut history: History, entry: usize) -> History {
    history.entries[entry].answer = Answer::Killed;
    history
}

/// A monitor's records, put before all others.
fn with_monitors(pids: &[u32], runs: &[(u32, u64, u64)]) -> History {
    use pipeline::machine::change::ProjectChange::MonitorStarted;
    let mut history = history();
    for (place, pid) in pids.iter().enumerate() {
        let time = Time::from_ms(999);
        let started = MonitorStarted { pid: *pid, allows_red_base: false, at: time };
        let changes = vec![Change::Project(started)];
        machine::apply(&mut history.end, &changes[0]);
        let actor = "monitor".into();
        history.records.insert(place * 3, Entered { seq: 0, time, actor, changes });
    }
    let run = |(pid, killed, ended): &(u32, u64, u64)| MonitorRun {
        pid: *pid,
        started: 1,
        killed: Some(*killed),
        ended: *ended,
        refused_for: None,
    };
    history.monitors = runs.iter().map(run).collect();
    renumber(&mut history);
    history
}

type Spoil = fn(&mut History);

const SPOILT: [(&str, Spoil); 10] = [
    ("a lost record", |history| drop(history.records.remove(3))),
    ("a doubled record", |history| history.records.insert(3, history.records[2].clone())),
    ("a doubled toggle", |history| history.records.insert(3, history.records[5].clone())),
    ("two records in the wrong order", |history| history.records.swap(0, 1)),
    ("a toggle in the wrong place", |history| {
        let toggle = history.records.remove(2);
        history.records.push(toggle);
    }),
    ("a record nobody asked for", |history| drop(history.entries.remove(3))),
    ("a refusal that is wrong", |history| history.entries[3].answer = Answer::Refused),
    ("a refusal without a reason", |history| {
        history.entries[9].op = Op::Hold { id: "TASK-002".into(), is_held: true };
    }),
    ("a wrong id", |history| history.entries[0].answer = Answer::Changed(Some("B".into()))),
    ("another state at the end", |history| history.end.is_paused = false),
];

/// # Errors
/// What the judge got wrong.
pub fn check() -> Result<(), String> {
    for good in [
        history(),
        // Killed between its record and its answer.
        has_killed(history(), 3),
        has_killed(history(), 7),
        with_monitors(&[7, 8], &[(7, 20, 22), (8, 90, 91)]),
    ] {
        let faults = judge(&good);
        if !faults.is_empty() {
            return Err(format!("a true history is refused: {faults:#?}"));
        }
    }
    for (what, spoil) in SPOILT {
        let mut bad = history();
        spoil(&mut bad);
        renumber(&mut bad);
        if judge(&bad).is_empty() {
            return Err(format!("{what} is not caught"));
        }
    }
    let mut gap = history();
    gap.records[4].seq += 1;
    let beside = with_monitors(&[7, 8], &[(7, 100, 101), (8, 110, 111)]);
    let stranger = with_monitors(&[7], &[(8, 90, 91)]);
    for (what, bad) in [("a gap", gap), ("two monitors", beside), ("a strange monitor", stranger)] {
        if judge(&bad).is_empty() {
            return Err(format!("{what} is not caught"));
        }
    }
    Ok(())
}
