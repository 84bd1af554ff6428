//! Every interleaving of a small backlog: two tasks, one depending on the other, two agents, two
//! crashes, two monitors.
//!
//! The machine's own functions are driven over every order of what can happen: answers, steps of
//! effects, ends of agents, deadlines, commands, crashes. Time and chance are constant, so states
//! are told apart by what can still become of them.

mod canon;
mod config;
mod explore;
mod moves;
mod node;
mod world;

use clap::Args;
use libtest_mimic::{Failed, Trial};

use crate::figures::Figures;
use config::Budget;
use explore::explore;
use world::Flaw;

/// How much to do.
#[derive(Debug, Args)]
pub struct Options {
    /// Crashes of the monitor in the plain configuration.
    #[arg(long, default_value_t = 2)]
    crashes: u8,
    /// States after which a configuration is given up.
    #[arg(long, default_value_t = 20_000_000)]
    limit: u64,
    /// Only the configuration of this name.
    #[arg(long)]
    only: Option<String>,
}

/// Runs the layer.
pub fn run(options: &Options) -> Figures {
    let mut figures = Figures::new("scope");
    let chosen = |name: &str| options.only.as_deref().is_none_or(|only| only == name);
    for config in config::all(options.crashes).iter().filter(|config| chosen(config.name)) {
        let found = explore(config, options.limit);
        println!("{}: {found:?}", config.name);
        figures.count("configurations", 1);
        figures.count("configurations covered whole", u64::from(found.is_complete));
        figures.count("states", found.states);
        figures.count("transitions", found.transitions);
        figures.failures.extend(found.violation);
    }
    figures
}

/// The fixed part, for `cargo test`.
pub fn trials() -> Vec<Trial> {
    Vec::new()
}
