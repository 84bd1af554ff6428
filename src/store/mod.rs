//! Where the truth is kept.

pub mod format;
