//! One project: writers, monitors that contend for it, and who hits them all.

use std::collections::{BTreeSet, VecDeque};
use std::fs::{self, File};
use std::os::unix::process::ExitStatusExt;
use std::path::Path;
use std::process::Stdio;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use pipeline::observe::document::state_document;
use pipeline::store::format::decode_state_text;
use pipeline::store::history::history;
use pipeline::store::journal::FileStore;
use pipeline::store::ledger::{Ledger, decode};
use rustix::process::Signal;
use serde_json::Value;

use super::model::{Entered, Entry, History, MonitorRun, judge};
use super::ops::{Answer, Op, answer};
use super::processes::{Dice, Pace, Places, Since, Victim, hit};
use crate::support::project::Project;

/// An agent that only says that it ran.
const BARE: &str = r#"
[project]
isolation = "none"

[[stage]]
name = "run"
short = "run"

[[agent]]
name = "worker"
stages = ["run"]
command = 'echo "$PIPELINE_ATTEMPT" >>"$E2E_DIR/runs"'
"#;
/// Tasks that writers choose from: few, so that they meet.
const IDS_MAX: usize = 8;
/// Monitors that want to be the one.
const MONITORS: usize = 3;
/// Requests of each writer at the end, when nobody is hit and no monitor runs.
const QUIET: u64 = 3;

/// What a round is made of.
#[derive(Debug, Clone, Copy)]
pub struct Plan {
    pub seed: u64,
    pub writers: usize,
    /// Ends when so many commands have been answered, and so many writers and monitors killed.
    pub commands: u64,
    pub kills: u64,
    pub has_git: bool,
    pub pace: Pace,
}

/// What a round came to.
#[derive(Debug, Default)]
pub struct Outcome {
    pub acknowledged: u64,
    pub refused: u64,
    pub kills: u64,
    pub monitors: u64,
    pub records: u64,
    pub faults: Vec<String>,
}

/// What threads share.
struct Round<'a> {
    plan: Plan,
    project: &'a Project,
    places: Places,
    ids: Mutex<VecDeque<String>>,
    acknowledged: AtomicU64,
    kills: AtomicU64,
    faults: Mutex<Vec<String>>,
}

/// Plays a round and judges it.
pub fn play(plan: Plan) -> Outcome {
    let project = if plan.has_git { Project::new(1) } else { bare() };
    let round = Round {
        plan,
        project: &project,
        places: Places::new(plan.writers + MONITORS, Since::begin()),
        ids: Mutex::default(),
        acknowledged: AtomicU64::new(0),
        kills: AtomicU64::new(0),
        faults: Mutex::default(),
    };
    let kept = project.dir().join("kept");
    fs::create_dir_all(kept.join("journal")).expect("a folder beside the project");
    let (mut entries, mut monitors) = round.hammer(&kept);
    monitors.push(round.stop());
    entries.extend(round.quiet());
    let mut outcome = round.judged(&kept, entries, monitors);
    outcome.faults.extend(round.faults.into_inner().unwrap_or_else(PoisonError::into_inner));
    outcome
}

fn bare() -> Project {
    let project = Project::bare();
    fs::create_dir(&project.root).expect("the project's folder");
    project.write("pipeline.toml", BARE);
    project.ok(&["init", "--isolation", "none"]);
    project
}

impl Round<'_> {
    fn fault(&self, text: String) {
        self.faults.lock().unwrap_or_else(PoisonError::into_inner).push(text);
    }

    fn state_dir(&self) -> std::path::PathBuf {
        let name = if self.plan.has_git { ".git/pipeline" } else { ".pipeline/state" };
        self.project.path(name)
    }

    /// Lets all loose; returns what was asked, and the monitors that ran.
    fn hammer(&self, kept: &Path) -> (Vec<Entry>, Vec<MonitorRun>) {
        let Plan { seed, writers, commands, kills, pace, .. } = self.plan;
        let dice = |thread: usize| Dice::new(seed.wrapping_mul(1000) + thread as u64);
        std::thread::scope(|scope| {
            let hitter = scope.spawn(move || hit(&self.places, pace, dice(999)));
            let writing: Vec<_> = (0..writers)
                .map(|writer| scope.spawn(move || self.write(writer, dice(writer))))
                .collect();
            let watching: Vec<_> = (writers..writers + MONITORS)
                .map(|place| scope.spawn(move || self.monitor(place, dice(place))))
                .collect();
            loop {
                self.keep(kept);
                let is_enough = self.acknowledged.load(Ordering::SeqCst) >= commands
                    && self.kills.load(Ordering::SeqCst) >= kills;
                let is_broken = writing.iter().any(std::thread::ScopedJoinHandle::is_finished);
                if is_enough || is_broken {
                    break;
                }
                std::thread::park_timeout(Duration::from_millis(20));
            }
            self.places.end();
            let entries = writing.into_iter().flat_map(|w| w.join().expect("a writer")).collect();
            hitter.join().expect("who hits");
            let ended = |handle: &std::thread::ScopedJoinHandle<'_, _>| handle.is_finished();
            while !watching.iter().all(ended) {
                for place in writers..writers + MONITORS {
                    self.places.get(place).iter().for_each(|victim| victim.send(Signal::TERM));
                }
                std::thread::park_timeout(Duration::from_millis(50));
            }
            self.keep(kept);
            let monitors = watching.into_iter().flat_map(|w| w.join().expect("a monitor"));
            (entries, monitors.collect())
        })
    }

    /// Gives every segment of the journal a second name, before the store deletes old ones.
    fn keep(&self, kept: &Path) {
        for entry in fs::read_dir(self.state_dir().join("journal")).expect("the journal").flatten()
        {
            let name = entry.file_name();
            if name.to_string_lossy().ends_with(".ndjson") {
                // There already, as a rule.
                let _ = fs::hard_link(entry.path(), kept.join("journal").join(name));
            }
        }
    }

    fn write(&self, writer: usize, mut dice: Dice) -> Vec<Entry> {
        let mut entries = Vec::new();
        while !self.places.is_over() {
            let op = self.next(writer, entries.len(), &mut dice);
            let Some(entry) = self.ask(writer, op) else { break };
            entries.push(entry);
        }
        entries
    }

    /// Runs one command; `None`, and a fault, when it answers as none may.
    fn ask(&self, writer: usize, op: Op) -> Option<Entry> {
        let words = op.args();
        let words: Vec<&str> = words.iter().map(String::as_str).collect();
        let mut command = self.project.command(&self.project.root, &words);
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let asked = self.places.since.now();
        let child = command.spawn().expect("the program starts");
        self.places.set(writer, Some(Victim::of(&child)));
        let output = child.wait_with_output().expect("it is ours");
        self.places.set(writer, None);
        let answered = self.places.since.now();
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        if output.status.signal() == Some(Signal::KILL.as_raw()) {
            self.kills.fetch_add(1, Ordering::SeqCst);
        } else if let Some(signal) = output.status.signal() {
            self.fault(format!("{words:?} died of signal {signal}"));
        }
        let read = answer(&op, output.status.code(), &text(&output.stdout), &text(&output.stderr));
        let answer = match read {
            Ok(answer) => answer,
            Err(odd) => {
                self.fault(odd);
                return None;
            }
        };
        if matches!(answer, Answer::Changed(_) | Answer::Unchanged) {
            self.acknowledged.fetch_add(1, Ordering::SeqCst);
        }
        if let Answer::Changed(Some(id)) = &answer {
            let mut ids = self.ids.lock().unwrap_or_else(PoisonError::into_inner);
            ids.push_back(id.clone());
            if ids.len() > IDS_MAX {
                ids.pop_front();
            }
        }
        Some(Entry { op, asked, answered, answer })
    }

    fn next(&self, writer: usize, number: usize, dice: &mut Dice) -> Op {
        let tag = format!("w{writer}.{number}.{}", dice.below(1 << 20));
        let mut known = || {
            let ids = self.ids.lock().unwrap_or_else(PoisonError::into_inner);
            let place = dice.below(ids.len().max(1) as u64) as usize;
            ids.get(place).cloned()
        };
        let (one, other) = (known(), known());
        let agent = if self.plan.has_git { "architect" } else { "worker" };
        let roll = dice.below(100);
        let flag = dice.chance(2);
        match (roll, one) {
            (0..5, _) => Op::Pause { is_paused: flag },
            (5..8, _) => Op::PauseAgent { name: agent.into(), is_paused: flag },
            (8..10, _) => Op::Edit { tag, id: "nobody".into() },
            (10..34, one) | (_, one @ None) => {
                let id = match dice.below(8) {
                    0 => other.clone(),
                    1 | 2 => Some(tag.clone()),
                    _ => None,
                };
                let needs = if dice.chance(5) { one.into_iter().collect() } else { Vec::new() };
                Op::Add { tag, id, needs, is_held: !dice.chance(4) }
            }
            (34..58, Some(id)) => Op::Edit { tag, id },
            (58..72, Some(id)) => Op::Hold { id, is_held: flag },
            (72..84, Some(id)) => Op::Retry { tag, id },
            (_, Some(id)) => Op::Cancel { id },
        }
    }

    /// Starts one monitor after the other; mostly another one runs.
    fn monitor(&self, place: usize, mut dice: Dice) -> Vec<MonitorRun> {
        let mut runs = Vec::new();
        while !self.places.is_over() {
            let run = self.run_monitor(place, &["monitor"]);
            let is_refused = run.refused_for.is_some();
            runs.push(run);
            let pause = if is_refused { 100 + dice.below(200) } else { dice.below(20) };
            std::thread::park_timeout(Duration::from_millis(pause));
        }
        runs
    }

    fn run_monitor(&self, place: usize, args: &[&str]) -> MonitorRun {
        let log = self.project.dir().join(format!("log-{place}"));
        let file = File::create(&log).expect("a file beside the project");
        let mut command = self.project.command(&self.project.root, args);
        command.stdin(Stdio::null()).stdout(file.try_clone().expect("a descriptor")).stderr(file);
        let started = self.places.since.now();
        let mut child = command.spawn().expect("the program starts");
        let victim = Victim::of(&child);
        self.places.set(place, Some(victim.clone()));
        let status = child.wait().expect("it is ours");
        self.places.set(place, None);
        let ended = self.places.since.now();
        let said = fs::read_to_string(&log).expect("what it said");
        let mut refused_for = None;
        match (status.code(), status.signal()) {
            (Some(4), _) if said.contains("another monitor runs") => {
                let named = said.split("(process ").nth(1).and_then(|rest| rest.split(' ').next());
                refused_for = Some(named.and_then(|pid| pid.parse().ok()));
            }
            (Some(0), _) => {}
            // Told to end before it listened.
            (_, Some(signal)) if signal == Signal::TERM.as_raw() => {}
            (_, Some(signal)) if signal == Signal::KILL.as_raw() => {
                self.kills.fetch_add(1, Ordering::SeqCst);
            }
            _ => self.fault(format!("a monitor ended with {status}: {said}")),
        }
        let killed = victim.killed();
        MonitorRun { pid: child.id(), started, killed, ended, refused_for }
    }

    /// Ends the agents that are left, as a monitor for a moment.
    fn stop(&self) -> MonitorRun {
        self.run_monitor(self.plan.writers, &["stop", "--now"])
    }

    /// Writers alone: afterwards the view must be that of the last of them.
    fn quiet(&self) -> Vec<Entry> {
        let ask = |writer: usize| {
            let mut dice = Dice::new(self.plan.seed + 7777 + writer as u64);
            let number = |nth| 1_000_000 + nth as usize;
            let ops = (0..QUIET).map(|nth| self.next(writer, number(nth), &mut dice));
            let ops: Vec<Op> = ops.collect();
            ops.into_iter().filter_map(|op| self.ask(writer, op)).collect::<Vec<_>>()
        };
        std::thread::scope(|scope| {
            let ask = &ask;
            let writers: Vec<_> =
                (0..self.plan.writers).map(|writer| scope.spawn(move || ask(writer))).collect();
            writers.into_iter().flat_map(|writer| writer.join().expect("a writer")).collect()
        })
    }

    fn judged(&self, kept: &Path, entries: Vec<Entry>, monitors: Vec<MonitorRun>) -> Outcome {
        self.keep(kept);
        let read = history(kept).expect("the journal is whole");
        let record = |record: &pipeline::store::Record| Entered {
            seq: record.seq,
            time: record.time,
            actor: record.actor.clone(),
            changes: decode(record).expect("records are understood"),
        };
        let store = FileStore::open(&self.state_dir(), 0);
        let (ledger, _) = Ledger::open(store, "judge").expect("the state is read");
        let history = History {
            start: decode_state_text(read.start.state.get()).expect("the first checkpoint"),
            start_seq: read.start.seq,
            records: read.records.iter().map(record).collect(),
            entries,
            monitors,
            end: ledger.state().clone(),
        };
        let mut faults = judge(&history);
        self.check_view(&ledger, &mut faults);
        let mut seen = BTreeSet::new();
        for attempt in self.project.runs() {
            if !seen.insert(attempt.clone()) {
                faults.push(format!("attempt {attempt} ran twice"));
            }
        }
        let refused = |entry: &&Entry| entry.answer == Answer::Refused;
        Outcome {
            acknowledged: self.acknowledged.load(Ordering::SeqCst),
            refused: history.entries.iter().filter(refused).count() as u64,
            kills: self.kills.load(Ordering::SeqCst),
            monitors: history.monitors.iter().filter(|run| run.refused_for.is_none()).count()
                as u64,
            records: history.records.len() as u64,
            faults,
        }
    }

    /// `state.json` is the view of the last record.
    fn check_view(&self, ledger: &Ledger<FileStore>, faults: &mut Vec<String>) {
        let text = fs::read(self.state_dir().join("state.json")).expect("the view is there");
        let mut view: Value = serde_json::from_slice(&text).expect("the view is whole");
        view.as_object_mut().expect("an object").remove("checksum");
        let wanted = state_document(ledger.state(), ledger.seq(), ledger.time());
        let wanted: Value = serde_json::from_slice(&wanted).expect("a document");
        if view != wanted {
            faults.push(format!(
                "state.json is the view of record {}, the last one is {}",
                view["seq"],
                ledger.seq()
            ));
        }
    }
}
