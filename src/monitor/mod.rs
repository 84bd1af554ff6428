//! The monitor: the loop, what wakes it, and how effects are carried out.
//!
//! [`cycle`] is the loop over any store, world and clock; [`world`] the real world: git, keepers,
//! files. Nothing here decides what happens next; that is the machine's.

pub mod brief;
pub mod cycle;
pub mod progress;
pub mod run;
pub mod view;
pub mod world;

mod ahead;
mod current;
mod error;
pub mod finished;
mod forecast;
mod hand;
mod hints;
pub mod job;
mod lane;
pub mod lookout;
pub mod mend;
pub mod notices;
mod outage;
mod outside;
mod overload;
pub mod prepare;
pub mod preset;
mod printer;
mod program;
mod propose;
pub mod report;
pub mod room;
mod settings_file;
mod sources;
pub mod spans;
mod standstill;
pub mod sweep;
mod takeover;
mod work;

pub use error::RunError;
pub use run::{End, Options, Until, run};
