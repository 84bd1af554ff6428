//! Simulation: the program's own loop (`monitor::cycle::Cycle`) over the store in memory, in a
//! modelled world, by a seed.
//!
//! A seed draws its own mix of faults (`mix`). After every event the journal is read by `audit`,
//! which holds each change against the promises at that moment; `run` holds the whole against them
//! and then lets a world without faults bring everything to its end. A failure prints its seed and
//! the fewest events that still fail.

mod audit;
mod dice;
mod git;
mod mix;
mod monitor;
mod people;
mod place;
mod run;

use std::collections::BTreeSet;
use std::panic::{self, AssertUnwindSafe, catch_unwind};
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;

use clap::Args;
use libtest_mimic::{Failed, Trial};
use pipeline::machine::attempt::Class;

use crate::figures::Figures;
use dice::{Dice, Script};
use run::Sim;

/// Events of a run's first phase.
const EVENTS: usize = 400;
/// Everything that a seed can do to the program; what no seed does is not tested.
const KINDS: [&str; 14] = [
    "crash",
    "power cut",
    "keeper killed",
    "write refused",
    "write torn",
    "clock jump",
    "settings",
    "stop",
    "killed at its start",
    "command",
    "a commit on the base",
    "a base rewritten",
    "a landing branch deleted",
    "a task branch deleted",
];

/// How much to do.
#[derive(Debug, Args)]
pub struct Options {
    /// Steps in all.
    #[arg(long, default_value_t = 1_000_000)]
    steps: u64,
    /// The first seed.
    #[arg(long, default_value_t = 0)]
    seed: u64,
    /// Threads.
    #[arg(long, default_value_t = 2)]
    jobs: usize,
}

/// What one run came to.
struct Ran {
    steps: u64,
    ways: BTreeSet<&'static str>,
    did: BTreeSet<&'static str>,
    /// What broke, and the draws that led there.
    broke: Option<(String, Script)>,
}

fn run_one(dice: Dice) -> Ran {
    let mut sim = Sim::new(dice);
    let outcome = catch_unwind(AssertUnwindSafe(|| sim.run(EVENTS)));
    let (steps, ways, did) = (sim.steps, sim.ways().clone(), sim.did.clone());
    let broke = outcome.err().map(|panic| (text_of(&*panic), sim.into_dice().into_script()));
    Ran { steps, ways, did, broke }
}

fn text_of(panic: &(dyn std::any::Any + Send)) -> String {
    let text = panic.downcast_ref::<String>().cloned();
    text.or_else(|| panic.downcast_ref::<&str>().map(|text| (*text).to_owned())).unwrap_or_default()
}

/// What a failure says, without the names in it.
fn kind_of(text: &str) -> String {
    let line = text.lines().next().unwrap_or_default();
    line.split('`').step_by(2).flat_map(str::chars).filter(|c| !c.is_ascii_digit()).collect()
}

/// Leaves out events, in ever smaller pieces, while the rest still breaks.
fn shrink(mut script: Script, first: &str) -> (Script, String) {
    let mut why = first.to_owned();
    let mut size = script.len() / 2;
    while size > 0 {
        let mut at = 1;
        while at < script.len() {
            let mut shorter = script.clone();
            shorter.drain(at..(at + size).min(script.len()));
            match run_one(Dice::of_script(shorter.clone())).broke {
                Some((text, _)) if kind_of(&text) == kind_of(first) => {
                    (script, why) = (shorter, text);
                }
                Some(_) | None => at += size,
            }
        }
        size /= 2;
    }
    (script, why)
}

fn describe(seed: u64, first: &str, script: Script) -> String {
    let drawn = script.len();
    let (least, why) = shrink(script, first);
    let count = least.len();
    let mut sim = Sim::new(Dice::of_script(least));
    sim.tell_all();
    let _ = catch_unwind(AssertUnwindSafe(|| sim.run(EVENTS)));
    let story = sim.story();
    format!(
        "seed {seed}: {first}\n  the fewest of its {drawn} events that break: {count}: {why}\n  {story}"
    )
}

/// Runs the layer.
pub fn run(options: &Options) -> Figures {
    panic::set_hook(Box::new(|_| {}));
    let figures = Mutex::new(Figures::new("sim"));
    let (next, steps) = (AtomicU64::new(options.seed), AtomicU64::new(0));
    let seen = Mutex::new(BTreeSet::new());
    thread::scope(|scope| {
        for _ in 0..options.jobs.max(1) {
            scope.spawn(|| {
                while steps.load(Ordering::Relaxed) < options.steps {
                    let seed = next.fetch_add(1, Ordering::Relaxed);
                    let ran = run_one(Dice::of_seed(seed));
                    let before = steps.fetch_add(ran.steps, Ordering::Relaxed);
                    if before / 1_000_000 != (before + ran.steps) / 1_000_000 {
                        eprintln!("{} steps", before + ran.steps);
                    }
                    if let Ok(mut seen) = seen.lock() {
                        seen.extend(ran.ways.into_iter().chain(ran.did));
                    }
                    if let (Some((first, script)), Ok(mut figures)) = (ran.broke, figures.lock()) {
                        if figures.failures.len() >= 20 {
                            return;
                        }
                        figures.failures.push(describe(seed, &first, script));
                    }
                }
            });
        }
    });
    let mut figures = figures.into_inner().unwrap_or_else(|poisoned| poisoned.into_inner());
    figures.count("steps", steps.into_inner());
    figures.count("seeds", next.into_inner() - options.seed);
    figures
        .count("kinds of events and ends", seen.into_inner().map_or(0, |seen| seen.len() as u64));
    figures
}

/// The fixed part, for `cargo test`.
pub fn trials() -> Vec<Trial> {
    vec![Trial::test("sim::seeds_keep_every_promise_and_come_to_an_end", || {
        let mut seen = BTreeSet::new();
        for seed in 0..250 {
            let ran = run_one(Dice::of_seed(seed));
            if let Some((first, script)) = ran.broke {
                return Err(Failed::from(describe(seed, &first, script)));
            }
            seen.extend(ran.ways.into_iter().chain(ran.did));
        }
        let wanted = KINDS.into_iter().chain(Class::ALL.map(Class::word));
        let missing: Vec<&str> = wanted.filter(|what| !seen.contains(what)).collect();
        if missing.is_empty() {
            Ok(())
        } else {
            Err(format!("no seed comes to {missing:?}").into())
        }
    })]
}
