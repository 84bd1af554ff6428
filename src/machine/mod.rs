//! The pure core: what the pipeline decides, and nothing of how it is done.
//!
//! No files, clock, environment, threads, randomness or logging: everything arrives in an event.
//! [`step`](step::step) decides, [`apply`](apply::apply) is the only writer of [`State`],
//! [`pending_effects`](effect::pending_effects) says what the world still owes.

pub mod amount;
pub mod id;
pub mod mode;
pub mod settings;
pub mod time;

pub mod agent;
pub mod attempt;
pub mod breaker;
pub mod lane;
pub mod outside;
pub mod purse;
pub mod task;
pub mod usage;

pub mod change;
pub mod event;
pub mod state;

pub mod apply;
pub mod index;
pub mod phase;

pub mod changed;
pub mod complexity;
pub mod crew;
pub mod effect;
pub mod estimate;
pub mod forecast;
pub mod gate;
pub mod glob;
pub mod graph;
pub mod overlap;
pub mod plan;
pub mod preset;
pub mod progress;
pub mod proposal;
pub mod provider;
pub mod resume;
pub mod retry;
pub mod rollout;
pub mod scale;
pub mod schedule;
pub mod shell;
pub mod stage;
pub mod unserved;
pub mod weigh;

pub mod step;
pub mod turn;

mod command;
mod judge;
mod landing;
mod names;
mod observe;
pub use apply::apply;
pub use change::Change;
pub use effect::{Begun, Effect, apply_settling, next_deadline, pending_effects};
pub use event::{Command, Event, EventBody, Observation};
pub use state::State;
pub use step::{Answer, Refusal, RefusalKind, Step, step};
