//! Errors injected: every call that changes something fails, by each error the kernel could give,
//! once or for a while.
//!
//! The runs are those of the layer `crash`. Nothing panics, nothing is called done that is not, and
//! when the error is gone everything lands.

#[cfg(target_arch = "x86_64")]
mod strikes;

use clap::Args;
use libtest_mimic::Trial;

use crate::figures::Figures;

/// How much to do.
#[derive(Debug, Args)]
pub struct Options {
    /// Only this scenario of the layer `crash`; may be given again.
    #[arg(long)]
    scenario: Vec<String>,
    /// Only in processes whose role begins so: `monitor`, `keeper`, `git commit-tree`, `git fetch#2`.
    #[arg(long)]
    role: Option<String>,
    /// Only at this point of the process.
    #[arg(long)]
    ordinal: Option<u32>,
    /// Only this error, `ENOSPC`.
    #[arg(long)]
    errno: Option<String>,
    /// At most so many errors in each scenario, spread over all of them; 0: every one.
    #[arg(long, default_value_t = 0)]
    sample: usize,
    /// Runs at the same time.
    #[arg(long, default_value_t = 2)]
    jobs: usize,
}

/// Runs the layer.
#[cfg(target_arch = "x86_64")]
pub fn run(options: &Options) -> Figures {
    strikes::run(options)
}

/// Says that the layer cannot be run.
#[cfg(not(target_arch = "x86_64"))]
pub fn run(_options: &Options) -> Figures {
    let mut figures = Figures::new("errors");
    figures.failures.push("system calls are followed on x86_64 only".into());
    figures
}

/// The fixed part, for `cargo test`.
#[cfg(target_arch = "x86_64")]
pub fn trials() -> Vec<Trial> {
    strikes::trials()
}

/// The fixed part: nothing can be followed here, and it says so.
#[cfg(not(target_arch = "x86_64"))]
pub fn trials() -> Vec<Trial> {
    let trial = Trial::test("errors::system_calls_are_followed_on_x86_64_only", || Ok(()));
    vec![trial.with_ignored_flag(true)]
}
