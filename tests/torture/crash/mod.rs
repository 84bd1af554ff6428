//! Crash points on the real binary: SIGKILL before every call that changes something.
//!
//! For each scenario all points of a run are listed; then, for each, the same project is run with
//! the kill there, and once more without: every task has landed once, no stage was completed twice,
//! the repository is whole, and nothing is left behind. Where the kill is of git or of a keeper, the
//! living monitor comes through by itself.

#[cfg(target_arch = "x86_64")]
pub(crate) mod case;
#[cfg(target_arch = "x86_64")]
mod check;
#[cfg(target_arch = "x86_64")]
mod fail_points;
#[cfg(target_arch = "x86_64")]
mod hands;
#[cfg(target_arch = "x86_64")]
mod launch;
#[cfg(target_arch = "x86_64")]
mod looks;
#[cfg(target_arch = "x86_64")]
mod order;
#[cfg(target_arch = "x86_64")]
mod outside;
#[cfg(target_arch = "x86_64")]
pub(crate) mod points;
#[cfg(target_arch = "x86_64")]
pub(crate) mod scenario;
#[cfg(target_arch = "x86_64")]
mod upkeep;

use clap::Args;
use libtest_mimic::Trial;

use crate::figures::Figures;

/// How much to do.
#[derive(Debug, Args)]
pub struct Options {
    /// Only this scenario; may be given again.
    #[arg(long)]
    scenario: Vec<String>,
    /// Only in processes whose role begins so: `monitor`, `keeper`, `git commit-tree`, `git fetch#2`.
    #[arg(long)]
    role: Option<String>,
    /// Only at this point of the process.
    #[arg(long)]
    ordinal: Option<u32>,
    /// Only at system calls of this name, as `--list` shows it; may be given again.
    #[arg(long)]
    call: Vec<String>,
    /// At most so many points of each scenario, spread over all of them; 0: every one.
    #[arg(long, default_value_t = 0)]
    sample: usize,
    /// So many pairs of a point and a second one in the run that follows, for each scenario.
    #[arg(long, default_value_t = 0)]
    twice: usize,
    /// Scenarios' runs at the same time.
    #[arg(long, default_value_t = 2)]
    jobs: usize,
    /// Where the choice of pairs begins.
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// Pass over the scenarios in which an earlier run with this switch, of the same program and the
    /// same numbers, came to the end and saw nothing wrong.
    #[arg(long)]
    resume: bool,
    /// Only list the points.
    #[arg(long)]
    list: bool,
    /// At the program's own fail points instead of system calls: `--role` is the beginning of their
    /// names, `--ordinal` the number of the pass.
    #[arg(long, conflicts_with_all = ["twice", "call", "list", "resume"])]
    fail_points: bool,
}

/// Runs the layer.
#[cfg(target_arch = "x86_64")]
pub fn run(options: &Options) -> Figures {
    if options.fail_points { fail_points::run(options) } else { points::run(options) }
}

/// Says that the layer cannot be run.
#[cfg(not(target_arch = "x86_64"))]
pub fn run(_options: &Options) -> Figures {
    let mut figures = Figures::new("crash");
    figures.failures.push("system calls are followed on x86_64 only".into());
    figures
}

/// The fixed part, for `cargo test`.
#[cfg(target_arch = "x86_64")]
pub fn trials() -> Vec<Trial> {
    [points::trials(), fail_points::trials(), order::trials()].into_iter().flatten().collect()
}

/// The fixed part: nothing can be followed here, and it says so.
#[cfg(not(target_arch = "x86_64"))]
pub fn trials() -> Vec<Trial> {
    let trial = Trial::test("crash::system_calls_are_followed_on_x86_64_only", || Ok(()));
    vec![trial.with_ignored_flag(true)]
}
