//! The pure core: what the pipeline decides, and nothing of how it is done.
//!
//! No files, clock, environment, threads, randomness or logging: everything arrives in an event.

pub mod mode;
pub mod settings;
pub mod time;
