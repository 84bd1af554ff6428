//! `pipeline` takes a repository's backlog through stages, each done by an agent in a git worktree
//! of its own, and lands what passes.
//!
//! A pure state machine stands in the middle ([`machine`]); the world is at the rim. Read the
//! modules in this order.

// What they print to may be gone, and then they panic.
#![deny(clippy::print_stdout, clippy::print_stderr)]

pub mod machine;

pub mod store;

pub mod git;

pub mod agent;

pub mod config;

pub mod observe;

pub mod monitor;

pub mod cli;

pub mod sys;
