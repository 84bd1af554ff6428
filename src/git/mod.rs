//! Everything that touches git: the one way to call it, refs, worktree slots, what an agent left
//! behind, landing, and the base that follows.
//!
//! All calls block, may be made from several threads at once, and are idempotent: done twice equals
//! done once, and a call that was killed at any instant is repeated as it stands. Nothing here knows
//! of tasks, attempts or stages; names of refs, messages and dates come from the caller.
//!
//! Locks that a dead git left behind are removed only in our own domain: `refs/heads/pipeline/`,
//! `refs/pipeline/` and the administrative folders of our slots; never in the user's checkout.

mod base;
mod call;
mod conflict;
mod copied;
mod create;
mod error;
mod forecast;
mod gate;
mod halfway;
mod hand;
mod history;
mod index_lock;
mod kept;
mod landing;
mod left;
mod look;
mod main_checkout;
mod modules;
mod obstacle;
mod oid;
mod own_index;
mod refs;
mod remains;
mod repo;
mod rest;
#[cfg(test)]
pub(crate) mod scratch;
mod shape;
mod slot;
mod snapshot;
mod stale;
mod whole;
mod worktree;

pub use base::{BaseGate, Follow, leave_command};
pub use error::{GitError, Stderr};
pub use hand::{CutOff, Hand};
pub use history::HandCommit;
pub use kept::{Kept, Size};
pub use landing::{MergeRequest, Merged, TakeBase};
pub use look::{Difference, Entry, Look};
pub use modules::ModuleWork;
pub use obstacle::UNEXPLAINED;
pub use oid::{ObjectFormat, Oid, OidError};
pub use own_index::OwnIndex;
pub use refs::{Cas, Checkout};
pub use repo::{Identity, Repo, exclude_of};
pub use shape::Shape;
pub use snapshot::{Snapshot, SnapshotRequest};
pub use worktree::{Changed, SlotReady, SlotRequest};
