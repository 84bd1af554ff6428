//! Many writers beside monitors that contend, all of them killed and stopped at random.
//!
//! Every command is recorded with when it was asked and answered; afterwards a model holds the
//! answers against the journal: what was answered is there once, in an order that time allows, and
//! each record is what the machine decides on the state before it.

mod canary;
mod model;
mod ops;
mod processes;
mod round;

use clap::Args;
use libtest_mimic::{Failed, Trial};

use crate::figures::Figures;
use processes::Pace;
use round::{Outcome, Plan, play};

/// Between two hits, in milliseconds.
const PACE: Pace = Pace { shortest_ms: 20, longest_ms: 100 };
/// Every so many rounds one is played in a git repository.
const GIT_ROUND: u64 = 8;

/// How much to do.
#[derive(Debug, Args)]
pub struct Options {
    /// Acknowledged commands, at least
    #[arg(long, default_value_t = 2_000)]
    commands: u64,
    /// Processes killed, at least
    #[arg(long, default_value_t = 20)]
    kills: u64,
    /// Of the first round; the next ones count on
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// Processes that write at a time
    #[arg(long, default_value_t = 16)]
    writers: usize,
    /// Acknowledged commands in one project
    #[arg(long, default_value_t = 1_000)]
    round: u64,
}

/// Runs the layer.
pub fn run(options: &Options) -> Figures {
    let mut figures = Figures::new("writers");
    let (mut commands, mut kills, mut seed) = (0, 0, options.seed);
    while commands < options.commands || kills < options.kills {
        let has_git = seed % GIT_ROUND == 0;
        let in_round = if has_git { options.round / 4 } else { options.round };
        let left = options.commands.saturating_sub(commands);
        let plan = Plan {
            seed,
            writers: options.writers,
            commands: in_round.min(left.max(1)),
            kills: in_round * options.kills / options.commands.max(1),
            has_git,
            pace: PACE,
        };
        let Outcome { acknowledged, refused, kills: killed, monitors, records, faults } =
            play(plan);
        println!("seed {seed}: {acknowledged} answered, {killed} killed, {} faults", faults.len());
        figures.count("rounds", 1);
        figures.count("acknowledged commands", acknowledged);
        figures.count("refused commands", refused);
        figures.count("killed processes", killed);
        figures.count("monitors", monitors);
        figures.count("records", records);
        figures.failures.extend(faults.iter().map(|fault| format!("--seed {seed}: {fault}")));
        (commands, kills, seed) = (commands + acknowledged, kills + killed, seed + 1);
    }
    figures
}

/// The fixed part, for `cargo test`.
pub fn trials() -> Vec<Trial> {
    vec![
        Trial::test("writers::what_killed_writers_were_told_is_there_once_in_one_order", || {
            fixed(Plan {
                seed: 1,
                writers: 16,
                commands: 250,
                kills: 10,
                has_git: false,
                pace: PACE,
            })
        }),
        Trial::test("writers::writers_beside_landings_lose_nothing", || {
            fixed(Plan { seed: 2, writers: 4, commands: 60, kills: 3, has_git: true, pace: PACE })
        }),
        Trial::test("writers::a_lost_doubled_moved_or_stale_record_is_caught", || {
            canary::check().map_err(Failed::from)
        }),
    ]
}

fn fixed(plan: Plan) -> Result<(), Failed> {
    let faults = play(plan).faults;
    if faults.is_empty() { Ok(()) } else { Err(Failed::from(faults.join("\n"))) }
}
