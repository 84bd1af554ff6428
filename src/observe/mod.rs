//! What the pipeline tells of itself: the state as a document, the status, a line per change.
//!
//! Pure: reads the machine's state, writes text or serialisable structs; knows no files, no
//! terminal and no clock. Numbers come out in the units of their field's name.

pub mod agents;
pub mod blocked;
pub mod document;
pub mod epics;
pub mod fallback;
pub mod figures;
pub mod flow;
pub mod forecast;
pub mod lane;
pub mod lines;
pub mod log_json;
pub mod notice;
pub mod outside;
pub mod page;
pub mod paper;
pub mod persons;
pub mod providers;
pub mod purse;
pub mod remaining;
pub mod report;
pub mod report_page;
pub mod salvage;
pub mod status;
pub mod text;
pub mod waiting;
pub mod words;

#[cfg(test)]
pub(crate) mod support;
