//! Every interleaving of a small backlog: two tasks, one depending on the other, two agents, two
//! crashes, and what a killed monitor had begun beside the next one.
//!
//! The machine's own functions are driven over every order of what can happen: answers, steps of
//! effects, ends of agents, deadlines, commands, crashes. Time and chance are constant, so states
//! are told apart by what can still become of them.

mod canon;
mod config;
mod explore;
mod forget;
mod moves;
mod node;
mod world;

use clap::Args;
use libtest_mimic::{Failed, Trial};

use crate::figures::Figures;
use config::{Budget, Config};
use explore::explore;
use world::Flaw;

/// How much to do.
#[derive(Debug, Args)]
pub struct Options {
    /// Crashes of the monitor in each configuration.
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
    figures.is_part = options.only.is_some();
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
    let flaws = [
        ("started_twice", Flaw::ForgetsStart, "was executed 2 times"),
        ("exit_forgotten", Flaw::ForgetsExit, "the machine is not idle"),
        ("work_not_pinned", Flaw::ForgetsPin, "is lost"),
        ("landed_too_early", Flaw::LandsLater, "counts as landed"),
        ("looks_that_are_stale", Flaw::LooksBack, "does not come to an end"),
    ];
    let caught = flaws.map(|(name, flaw, why)| {
        Trial::test(format!("scope::world_with_{name}_is_caught"), move || is_caught(flaw, why))
    });
    let crash = Trial::test("scope::every_order_with_a_crash_comes_to_its_end", || {
        is_walked_whole(&small(Flaw::None))
    });
    let switch = Trial::test("scope::every_order_of_rollout_switches_comes_to_its_end", || {
        let mut config = small(Flaw::None);
        config.commands = config::rollout_switches();
        is_walked_whole(&config)
    });
    caught.into_iter().chain([crash, switch]).collect()
}

/// Returns a scope that is explored in seconds by a debug build.
fn small(flaw: Flaw) -> Config {
    let mut config = config::all(1).swap_remove(0);
    config.budget = Budget { crashes: 1, ..Budget::default() };
    config.settings.stages.truncate(1);
    for agent in &mut config.settings.agents {
        agent.stages.truncate(1);
    }
    if flaw == Flaw::LooksBack {
        config.budget = Budget { commits: 1, ..Budget::default() };
    }
    config.flaw = flaw;
    config
}

fn is_walked_whole(config: &Config) -> Result<(), Failed> {
    let found = explore(config, 1_000_000);
    let is_whole = found.is_complete && found.violation.is_none() && found.ends > 0;
    if is_whole { Ok(()) } else { Err(format!("{found:?}").into()) }
}

fn is_caught(flaw: Flaw, why: &str) -> Result<(), Failed> {
    let found = explore(&small(flaw), 1_000_000);
    match &found.violation {
        Some(violation) if violation.contains(why) => Ok(()),
        Some(_) | None => Err(format!("`{why}` is not found: {found:?}").into()),
    }
}
