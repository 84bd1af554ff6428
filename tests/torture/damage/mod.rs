//! Damaged files (L6): every cut and every flipped bit of a small journal, and whatever else becomes
//! of files, over the real store and, for a sample, the real program.
//!
//! What is loaded must be the state after a prefix of the records that has all that was acknowledged;
//! else loading is refused and no byte has changed. A refused journal is then repaired: what is whole
//! counts again, and every damaged byte is still there.

mod cases;
mod forge;
mod oracle;
mod program;
mod sample;

use clap::Args;
use libtest_mimic::{Failed, Trial};

use crate::figures::Figures;
use oracle::Place;
use sample::Sample;

/// How much to do.
#[derive(Debug, Args)]
pub struct Options {
    /// Records in the journal.
    #[arg(long, default_value_t = 64)]
    records: usize,
    /// Flip every n-th bit, and cut checkpoints at every n-th byte.
    #[arg(long, default_value_t = 1)]
    bits: usize,
    /// Repair every n-th damaged journal of the groups that are large; of the others every one.
    #[arg(long, default_value_t = 16)]
    repairs: usize,
}

/// The most failures that are told.
const FAILURES_MAX: usize = 20;

/// Runs the layer.
pub fn run(options: &Options) -> Figures {
    let mut figures = Figures::new("damage");
    let sample = Sample::of_commands(options.records);
    figures.count("journal bytes", sample.bytes());
    for part in cases::PARTS {
        let (name, _) = part;
        let steps = Steps { bits: options.bits, repairs: options.repairs };
        check(&sample, *part, &steps, &mut figures);
        eprintln!("{name}: {} failures so far", figures.failures.len());
    }
    for (name, check) in program::CHECKS {
        figures.count("cases of the real program", check());
        eprintln!("{name}: held");
    }
    figures
}

/// The fixed part, for `cargo test`.
pub fn trials() -> Vec<Trial> {
    let mut trials: Vec<Trial> = cases::PARTS
        .iter()
        .map(|part| {
            Trial::test(format!("damage::{}", part.0), move || {
                let sample = Sample::small();
                let mut figures = Figures::new("damage");
                check(sample, *part, &Steps { bits: 97, repairs: 16 }, &mut figures);
                fail_with(&figures.failures)
            })
        })
        .collect();
    trials.extend(program::CHECKS.iter().map(|(name, check)| {
        Trial::test(format!("damage::{name}"), move || {
            check();
            Ok(())
        })
    }));
    trials
}

/// Which of many cases are done.
struct Steps {
    bits: usize,
    repairs: usize,
}

fn check(sample: &Sample, part: cases::Part, steps: &Steps, figures: &mut Figures) {
    let (name, cases) = part;
    let place = Place::new();
    let mut number = 0;
    cases(sample, steps.bits, &mut |case| {
        number += 1;
        let is_repaired = !cases::MANY.contains(&name) || number % steps.repairs == 0;
        figures.count(case.kind, 1);
        match place.check(sample, &case, is_repaired) {
            Ok(done) => figures.count(done, 1),
            Err(_) if figures.failures.len() >= FAILURES_MAX => {}
            Err(why) => figures.failures.push(format!("{}: {why}", case.name)),
        }
    });
}

fn fail_with(failures: &[String]) -> Result<(), Failed> {
    if failures.is_empty() { Ok(()) } else { Err(failures.join("\n").into()) }
}
