//! The journal that is damaged: made by real commands, in two segments with a checkpoint each.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::sync::LazyLock;
use std::time::Duration;

use pipeline::machine::time::Time;
use pipeline::machine::{State, apply};
use pipeline::store::journal::FileStore;
use pipeline::store::ledger::decode;
use pipeline::store::view::write_view;
use pipeline::store::{Checkpoint, Json, Store, format};

use crate::support::project::Project;

/// Files by their path below the state folder.
pub(super) type Files = BTreeMap<String, Vec<u8>>;

pub(super) const VIEW: &str = "state.json";
pub(super) const OLDER: &str = "journal/00000000000000000000.ndjson";

const WAIT: Duration = Duration::from_secs(10);

/// A whole journal, and the state after each of its records.
pub(super) struct Sample {
    /// Both segments and the view.
    pub(super) files: Files,
    /// Name of the newest segment.
    pub(super) newest: String,
    /// The newest checkpoint's number.
    pub(super) base: u64,
    /// The last record's number.
    pub(super) last: u64,
    /// The state as text after each record, by number.
    pub(super) states: Vec<String>,
}

static SMALL: LazyLock<Sample> = LazyLock::new(|| Sample::of_commands(6));

impl Sample {
    /// A journal small enough for every test run.
    pub(super) fn small() -> &'static Self {
        &SMALL
    }

    /// Makes a journal by `records` commands.
    pub(super) fn of_commands(records: usize) -> Self {
        let project = Project::new(1);
        let state = project.path(".git/pipeline");
        for n in 0..records {
            if n == records / 2 {
                rotate(&state);
            }
            command(&project, n);
        }
        let mut store = FileStore::open(&state, 0);
        let last = store.load().expect("it is whole");
        let last = last.records.last().expect("records follow the checkpoint").seq;
        let mut files = Files::new();
        for entry in fs::read_dir(state.join("journal")).expect("the journal").flatten() {
            let name = format!("journal/{}", entry.file_name().to_str().expect("UTF-8"));
            files.insert(name, fs::read(entry.path()).expect("a segment"));
        }
        assert_eq!(files.len(), 2, "two segments");
        let newest = files.keys().next_back().expect("two segments").clone();
        let states = states(&state.join("journal"), &files);
        // As a monitor leaves it: the view shows the last record.
        let document = format!("{{\"seq\":{last},\"tasks\":{{}}}}");
        write_view(&state, document.as_bytes(), Time::from_ms(0)).expect("the view");
        files.insert(VIEW.into(), fs::read(state.join(VIEW)).expect("the view"));
        let base = newest["journal/".len()..][..20].parse().expect("a number");
        assert_eq!(states.len() as u64, last + 1);
        Self { files, newest, base, last, states }
    }

    pub(super) fn bytes(&self) -> u64 {
        self.segments().map(|(_, bytes)| bytes.len() as u64).sum()
    }

    pub(super) fn segments(&self) -> impl Iterator<Item = (&String, &Vec<u8>)> {
        self.files.iter().filter(|(name, _)| *name != VIEW)
    }
}

fn command(project: &Project, n: usize) {
    let id = format!("TASK-{:03}", n / 4 + 1);
    let title = format!("Säge {n} \"quer\"");
    match n % 4 {
        0 => project.ok(&["task", "add", &title, "--id", &id, "--body", "one\ntwo"]),
        1 => project.ok(&["task", "hold", &id]),
        2 => project.ok(&["task", "edit", &id, "--priority", "high"]),
        _ => project.ok(&["task", "release", &id]),
    };
}

/// Begins a new segment, as a long journal does by itself.
fn rotate(state: &Path) {
    let mut store = FileStore::open(state, 0);
    store.lock(WAIT).expect("nobody has it");
    let (seq, time, now) = fold(&mut store);
    let state = Json::of(&format::state_value(&now)).expect("it is JSON");
    store.put_checkpoint(&Checkpoint { seq, time, state }).expect("a segment more");
}

fn fold(store: &mut FileStore) -> (u64, Time, State) {
    let loaded = store.load().expect("it is whole");
    let checkpoint = loaded.checkpoint;
    let mut state = format::decode_state_text(checkpoint.state.get()).expect("a state");
    let (mut seq, mut time) = (checkpoint.seq, checkpoint.time);
    for record in &loaded.records {
        let changes = decode(record).expect("its changes");
        changes.iter().for_each(|change| apply(&mut state, change));
        (seq, time) = (record.seq, record.time);
    }
    (seq, time, state)
}

/// Returns the state as text.
pub(super) fn text(state: &State) -> String {
    Json::of(&format::state_value(state)).expect("it is JSON").get().to_owned()
}

/// Returns the state after each record, by replaying the oldest segment and those after it.
fn states(journal: &Path, files: &Files) -> Vec<String> {
    let dir = tempfile::tempdir().expect("temporary folder");
    fs::create_dir(dir.path().join("journal")).expect("its folder");
    let mut states: Vec<String> = Vec::new();
    for name in files.keys() {
        let file = journal.join(&name["journal/".len()..]);
        fs::copy(file, dir.path().join(name)).expect("a copy");
        let loaded = FileStore::open(dir.path(), 0).load().expect("it is whole");
        let mut state = format::decode_state_text(loaded.checkpoint.state.get()).expect("a state");
        match states.last() {
            None => states.push(text(&state)),
            Some(before) => assert_eq!(*before, text(&state), "a checkpoint equals its replay"),
        }
        for record in &loaded.records {
            decode(record).expect("its changes").iter().for_each(|it| apply(&mut state, it));
            states.push(text(&state));
        }
    }
    states
}
