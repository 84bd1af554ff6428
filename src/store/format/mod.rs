//! What changes and the state look like on disk, format 1.
//!
//! The machine's types know nothing of JSON: each is mirrored here field by field, so that a new
//! field reaches a file only by being listed, and a compiler error asks for it.
//!
//! * A change is one flat object; its first field `kind` tells area and variant, `id` the task or
//!   the attempt. `{"kind":"task_moved","id":"TASK-001","to":{"ready":{"stage":"test"}},"at":0}`
//! * An enum is the word of its variant, or an object with that word as only key.
//! * Moments are integers, milliseconds since 1970-01-01 UTC; durations end in `_ms`.
//! * A task, its spec, an attempt and its exit leave out what is at its default; everything else is
//!   written, `null` included, and demanded on reading. Unknown fields and kinds are refused.
//! * Tasks, attempts and agents are arrays, each with its own id; two with one id are refused.
//! * What can be computed, the index, is not stored.
//!
//! A field added within format 1 is listed under `optional`, so that what was written before is
//! still read; a program from before it refuses the line that holds it.
//!
//! Format 0 is what programs from before these fields wrote; it is read as format 1 is, and a monitor
//! takes it over ([`super::ledger::Ledger::migrate`]) before anything is written.
//!
//! `state/schema` describes the same for others, `state/samples` holds one of everything.

mod attempt;
mod change;
mod error;
mod lane;
mod mirror;
mod settings;
mod state;
mod task;

#[cfg(test)]
mod drive;
#[cfg(test)]
pub(crate) mod golden;
#[cfg(test)]
mod sample;

pub use change::{changes_value, decode_changes, decode_changes_text, encode_changes};
pub use error::FormatError;
pub use state::{decode_state, decode_state_text, encode_state, state_value};
