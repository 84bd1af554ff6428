//! What the commands that only look print: pure functions from the state to text or JSON.
//!
//! Text ends in a line feed; a JSON document too. Nothing here reads files or asks the terminal.

mod agents;
mod gantt;
mod graph;
mod json;
mod log;
mod picture;
mod plan;
mod task;
mod tasks;

pub use agents::{render_agents, render_agents_json};
pub use graph::{sketch_of, work_of, write_json, write_text};
pub use json::document;
pub use log::{LogRecord, render_log_record, render_log_record_json};
pub use picture::{write_dot, write_mermaid};
pub use plan::{render_plan, render_plan_json};
pub use task::{render_task, render_task_json};
pub use tasks::{Filter, UnknownFilter, has_any, render_tasks, render_tasks_json};
