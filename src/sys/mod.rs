//! The only raw system calls: clock, child processes, atomic file writes, room on
//! the disk, fail points, the end by a panic.
//!
//! Everything here is small and knows nothing of tasks, journals or agents.

pub mod child;
pub mod clock;
pub mod env;
pub mod fail;
pub mod file;
pub mod machine;
pub mod panic;
pub mod proc;
pub mod room;
pub mod signals;
