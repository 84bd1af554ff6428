//! What an agent is given and what it says.
//!
//! The task file carries both: header, task and notes go in, notes and a status line come out. The
//! prompt is the same in one text. Neither knows of processes, git or the journal.

pub mod passage;
pub mod prompt;
pub mod reply;
pub mod status_line;
pub mod task_file;
