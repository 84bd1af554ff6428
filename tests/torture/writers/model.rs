//! The judge: what processes asked and were answered, against what the journal says.
//!
//! The journal is the one order of all that was decided. It is held against the answers by time:
//! whatever was answered before something else was asked stands before it. And it is held against
//! the machine: each record of a command is what the machine decides on the state before it, each
//! refusal is right in some state that the command can have seen.

use std::collections::{BTreeMap, BTreeSet};

use pipeline::machine::change::ProjectChange;
use pipeline::machine::time::Time;
use pipeline::machine::{self, Change, Event, EventBody, State};

use super::ops::{Answer, Op, record_key};

/// A request with its answer; times in nanoseconds since the beginning.
#[derive(Debug, Clone)]
pub struct Entry {
    pub op: Op,
    pub asked: u64,
    /// When its process was gone, at the latest.
    pub answered: u64,
    pub answer: Answer,
}

/// One monitor's process, from its start to its end.
#[derive(Debug, Clone)]
pub struct MonitorRun {
    pub pid: u32,
    pub started: u64,
    /// When it was told to die, if it was.
    pub killed: Option<u64>,
    pub ended: u64,
    /// With exit code 4: whom it named.
    pub refused_for: Option<Option<u32>>,
}

/// A record, decoded.
#[derive(Debug, Clone)]
pub struct Entered {
    pub seq: u64,
    pub time: Time,
    pub actor: String,
    pub changes: Vec<Change>,
}

/// All there is to judge.
#[derive(Debug, Clone)]
pub struct History {
    /// Before the first record.
    pub start: State,
    pub start_seq: u64,
    pub records: Vec<Entered>,
    pub entries: Vec<Entry>,
    pub monitors: Vec<MonitorRun>,
    /// As a process reads it at the end.
    pub end: State,
}

/// Returns everything that is wrong; empty when nothing is.
pub fn judge(history: &History) -> Vec<String> {
    let mut faults = Vec::new();
    check_numbers(history, &mut faults);
    let keyed = Keyed::of(history, &mut faults);
    let order = Order::of(history, &keyed);
    check_order(history, &keyed, &mut faults);
    check_counts(history, &keyed, &order, &mut faults);
    check_decisions(history, &keyed, &order, &mut faults);
    check_monitors(history, &order, &mut faults);
    faults
}

fn check_numbers(history: &History, faults: &mut Vec<String>) {
    for (record, expected) in history.records.iter().zip(history.start_seq + 1..) {
        if record.seq != expected {
            faults.push(format!("record {} stands where {expected} should", record.seq));
            return;
        }
    }
}

/// Requests and records under the key that they share.
struct Keyed<'a> {
    entries: BTreeMap<String, Vec<&'a Entry>>,
    /// Places in `History::records`.
    records: BTreeMap<String, Vec<usize>>,
}

impl<'a> Keyed<'a> {
    fn of(history: &'a History, faults: &mut Vec<String>) -> Self {
        let mut keyed = Self { entries: BTreeMap::new(), records: BTreeMap::new() };
        for entry in &history.entries {
            keyed.entries.entry(entry.op.key()).or_default().push(entry);
        }
        for (place, record) in history.records.iter().enumerate() {
            if record.actor != "cli" {
                continue;
            }
            match record_key(&record.changes).filter(|key| keyed.entries.contains_key(key)) {
                Some(key) => keyed.records.entry(key).or_default().push(place),
                None => faults.push(format!("nobody asked for record {}", record.seq)),
            }
        }
        keyed
    }

    /// Requests whose record is known for sure: (place of the record, request).
    fn sure(&self) -> BTreeMap<usize, &'a Entry> {
        let single = self.records.iter().filter_map(|(key, places)| {
            let entries = self.entries.get(key)?;
            (places.len() == 1 && entries.len() == 1).then(|| (places[0], entries[0]))
        });
        single.collect()
    }
}

/// What is known of when each record came to be, and what a request can have seen.
struct Order {
    /// Not before, by place of the record.
    earliest: Vec<u64>,
    /// Not after.
    latest: Vec<u64>,
}

impl Order {
    fn of(history: &History, keyed: &Keyed<'_>) -> Self {
        let count = history.records.len();
        let (mut earliest, mut latest) = (vec![0; count], vec![u64::MAX; count]);
        let sure = keyed.sure();
        let mut bound = 0;
        for (place, slot) in earliest.iter_mut().enumerate() {
            bound = sure.get(&place).map_or(bound, |entry| bound.max(entry.asked));
            *slot = bound;
        }
        let mut bound = u64::MAX;
        for (place, slot) in latest.iter_mut().enumerate().rev() {
            bound = sure.get(&place).map_or(bound, |entry| bound.min(entry.answered));
            *slot = bound;
        }
        Self { earliest, latest }
    }

    fn fits(&self, place: usize, entry: &Entry) -> bool {
        entry.asked <= self.latest[place] && entry.answered >= self.earliest[place]
    }

    /// Returns how many records a request must have seen at least and can have seen at most.
    fn seen(&self, entry: &Entry) -> (usize, usize) {
        let least = self.latest.partition_point(|latest| *latest < entry.asked);
        let most = self.earliest.partition_point(|earliest| *earliest <= entry.answered);
        (least, most)
    }
}

/// What was answered before something was asked stands before it.
fn check_order(history: &History, keyed: &Keyed<'_>, faults: &mut Vec<String>) {
    let mut last_asked: Option<(u64, usize)> = None;
    for (place, entry) in keyed.sure() {
        if let Some((asked, earlier)) = last_asked.filter(|(asked, _)| *asked > entry.answered) {
            faults.push(format!(
                "record {} was asked for {} ns after record {} had been answered, but stands \
                 before it",
                history.records[earlier].seq,
                asked - entry.answered,
                history.records[place].seq
            ));
        }
        last_asked = last_asked.max(Some((entry.asked, place)));
    }
}

/// Every change that was answered has a record of its own, and every record its request.
fn check_counts(history: &History, keyed: &Keyed<'_>, order: &Order, faults: &mut Vec<String>) {
    let none = Vec::new();
    for (key, entries) in &keyed.entries {
        let places = keyed.records.get(key).unwrap_or(&none);
        let mut acked: Vec<&Entry> = Vec::new();
        let mut open: Vec<&Entry> = Vec::new();
        for entry in entries {
            match entry.answer {
                Answer::Changed(_) => acked.push(entry),
                Answer::Killed => open.push(entry),
                Answer::Unchanged | Answer::Refused | Answer::Locked => {}
            }
        }
        let lost = matched(order, places, &acked).0;
        lost.iter().for_each(|entry| faults.push(format!("lost, though answered: {entry:?}")));
        let all: Vec<&Entry> = acked.iter().chain(&open).copied().collect();
        for place in matched(order, places, &all).1 {
            let seq = history.records[place].seq;
            faults.push(format!("record {seq} ({key}) is there without a request, or twice"));
        }
    }
    let mut ids = BTreeSet::new();
    for (place, entry) in keyed.sure() {
        let Answer::Changed(Some(id)) = &entry.answer else { continue };
        let record = &history.records[place];
        let added = record.changes.iter().find_map(|change| match change {
            Change::Task(id, _) => Some(id.as_str()),
            Change::Project(_) | Change::Attempt(..) | Change::Lane(_) => None,
        });
        if added != Some(id) {
            faults.push(format!("record {} adds {added:?}, told was {id}", record.seq));
        }
        if !ids.insert(id.clone()) {
            faults.push(format!("the id {id} was given twice"));
        }
    }
}

/// Gives records to requests, the one that was answered first first: no other way serves more.
/// Returns the requests and the places that are left over.
fn matched<'a>(
    order: &Order,
    places: &[usize],
    entries: &[&'a Entry],
) -> (Vec<&'a Entry>, Vec<usize>) {
    let mut left: Vec<&Entry> = entries.to_vec();
    left.sort_by_key(|entry| entry.answered);
    let mut without = Vec::new();
    for place in places {
        match left.iter().position(|entry| order.fits(*place, entry)) {
            Some(found) => drop(left.remove(found)),
            None => without.push(*place),
        }
    }
    (left, without)
}

/// A request that changed nothing, until a state is found in which that is right.
struct Idle<'a> {
    entry: &'a Entry,
    most: usize,
}

/// Each record is what the machine decides on the state before it, and so is each refusal.
fn check_decisions(history: &History, keyed: &Keyed<'_>, order: &Order, faults: &mut Vec<String>) {
    let is_idle = |entry: &&Entry| matches!(entry.answer, Answer::Unchanged | Answer::Refused);
    let mut idle: Vec<(usize, Idle<'_>)> = history
        .entries
        .iter()
        .filter(is_idle)
        .map(|entry| {
            let (least, most) = order.seen(entry);
            (least, Idle { entry, most })
        })
        .collect();
    idle.sort_by_key(|(least, _)| std::cmp::Reverse(*least));
    let mut keys: BTreeMap<usize, &Op> = BTreeMap::new();
    for (key, places) in &keyed.records {
        keys.extend(places.iter().map(|place| (*place, &keyed.entries[key][0].op)));
    }
    let mut state = history.start.clone();
    let mut waiting: Vec<Idle<'_>> = Vec::new();
    for place in 0..=history.records.len() {
        while idle.last().is_some_and(|(least, _)| *least == place) {
            waiting.extend(idle.pop().map(|(_, idle)| idle));
        }
        waiting.retain(|idle| !is_right(&state, idle.entry));
        waiting.retain(|idle| {
            let is_over = idle.most <= place;
            if is_over {
                faults.push(format!("no state it can have seen explains {:?}", idle.entry));
            }
            !is_over
        });
        let Some(record) = history.records.get(place) else { break };
        if let Some(op) = keys.get(&place) {
            let decided = decided(&state, op, record.time);
            if decided != record.changes {
                faults.push(format!(
                    "record {} was decided on another state: {:?} instead of {:?}",
                    record.seq, record.changes, decided
                ));
            }
        }
        record.changes.iter().for_each(|change| machine::apply(&mut state, change));
    }
    if state != history.end {
        faults.push("the state at the end is not what the journal's records make".into());
    }
}

/// What a command changes, and which tasks go where it has put their dependencies.
fn decided(state: &State, op: &Op, at: Time) -> Vec<Change> {
    let mut state = state.clone();
    let mut all = Vec::new();
    let mut next = event(op, at);
    loop {
        let changes = machine::step(&state, &next).changes;
        if changes.is_empty() {
            return all;
        }
        changes.iter().for_each(|change| machine::apply(&mut state, change));
        all.extend(changes);
        next.body = EventBody::Sort;
    }
}

fn event(op: &Op, at: Time) -> Event {
    Event { at, random: 0, body: EventBody::Command(op.command()) }
}

/// Returns whether a request that changed nothing was answered rightly in this state.
fn is_right(state: &State, entry: &Entry) -> bool {
    let decided = machine::step(state, &event(&entry.op, Time::default()));
    let is_refused = matches!(decided.answer, machine::Answer::Refuse(_));
    decided.changes.is_empty() && is_refused == (entry.answer == Answer::Refused)
}

/// One monitor after the other; who was refused named one that lived.
fn check_monitors(history: &History, order: &Order, faults: &mut Vec<String>) {
    let run_of = |pid: u32| history.monitors.iter().find(|run| run.pid == pid);
    let mut running: Option<u32> = None;
    for (place, record) in history.records.iter().enumerate() {
        if record.actor != "monitor" {
            continue;
        }
        let mut has_right = running.is_some();
        for change in &record.changes {
            match change {
                Change::Project(ProjectChange::MonitorStarted { pid, .. }) => {
                    // The one before was dead by then: it cannot have been killed afterwards.
                    let before = running.and_then(run_of);
                    if let Some(run) =
                        before.filter(|run| run.killed.unwrap_or(run.ended) > order.latest[place])
                    {
                        faults.push(format!("monitor {pid} began while {} ran", run.pid));
                    }
                    if run_of(*pid).is_none() {
                        faults.push(format!("monitor {pid} is none of ours"));
                    }
                    running = Some(*pid);
                    has_right = true;
                }
                Change::Project(ProjectChange::MonitorEnded { .. }) => running = None,
                Change::Project(_) | Change::Task(..) | Change::Attempt(..) | Change::Lane(_) => {}
            }
        }
        if !has_right {
            faults.push(format!("record {} is by a monitor that had ended", record.seq));
        }
    }
    for run in &history.monitors {
        let Some(named) = run.refused_for else { continue };
        let was_alive = |other: &&MonitorRun| {
            Some(other.pid) == named && other.started <= run.ended && other.ended >= run.started
        };
        if !history.monitors.iter().any(|other| was_alive(&other)) {
            faults.push(format!("monitor {} gave way to {named:?}, which did not run", run.pid));
        }
    }
}
