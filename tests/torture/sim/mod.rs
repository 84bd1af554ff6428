//! (to be written)

use clap::Args;
use libtest_mimic::Trial;

use crate::figures::Figures;

/// How much to do.
#[derive(Debug, Args)]
pub struct Options {}

/// Runs the layer.
pub fn run(_options: &Options) -> Figures {
    Figures::new("sim")
}

/// The fixed part, for `cargo test`.
pub fn trials() -> Vec<Trial> {
    Vec::new()
}
