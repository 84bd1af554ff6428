//! The proof that nothing is lost: the program is driven into everything that can go wrong.
//!
//! Without arguments it is a test like the others: a fixed part of every layer, named as libtest
//! names tests. `run LAYER` runs one layer as long as asked; `scripts/torture` calls that.

mod crash;
mod damage;
mod errors;
mod figures;
mod mutants;
mod report;
mod scope;
mod sim;
#[allow(dead_code, reason = "the integration tests use the rest")]
#[path = "../it/support/mod.rs"]
mod support;
#[cfg(target_arch = "x86_64")]
mod tracer;
mod writers;

use std::env;
use std::process::ExitCode;

use clap::Parser;
use figures::Figures;

/// One layer of the proof.
#[derive(Debug, Parser)]
#[command(name = "scripts/torture", disable_help_subcommand = true)]
enum Layer {
    /// The real loop over a modelled world, by seeds.
    Sim(sim::Options),
    /// Every interleaving of a small backlog.
    Scope(scope::Options),
    /// SIGKILL at every mutating system call of monitor, keeper and git.
    Crash(crash::Options),
    /// The same calls fail instead.
    Errors(errors::Options),
    /// Damaged files.
    Damage(damage::Options),
    /// Bugs seeded on purpose: each must be caught.
    Mutants(mutants::Options),
    /// Many writers, killed and stopped.
    Writers(writers::Options),
    /// The table of what earlier runs counted, into docs/reliability.md.
    Report,
}

fn main() -> ExitCode {
    let args: Vec<String> = env::args().skip(1).collect();
    if args.first().is_none_or(|first| first != "run") {
        let trials = [
            sim::trials(),
            scope::trials(),
            crash::trials(),
            errors::trials(),
            damage::trials(),
            writers::trials(),
            mutants::trials(),
        ];
        let arguments = libtest_mimic::Arguments::from_args();
        return libtest_mimic::run(&arguments, trials.into_iter().flatten().collect()).exit_code();
    }
    let figures: Figures = match Layer::parse_from(args) {
        Layer::Sim(options) => sim::run(&options),
        Layer::Scope(options) => scope::run(&options),
        Layer::Crash(options) => crash::run(&options),
        Layer::Errors(options) => errors::run(&options),
        Layer::Damage(options) => damage::run(&options),
        Layer::Mutants(options) => mutants::run(&options),
        Layer::Writers(options) => writers::run(&options),
        Layer::Report => return report::run(),
    };
    figures.finish()
}
