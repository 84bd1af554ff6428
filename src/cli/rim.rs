//! What the commands need of the rest of the program, in one place: the project, the monitor, the
//! views. Each function is one call to where it is done.

use std::ffi::OsString;
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::machine::event::StopKind;

use super::args::{DoctorArgs, GraphArgs, InitArgs, LogArgs, MonitorArgs, StatusArgs};
use super::console::Console;
use super::error::Error;
use super::exit_code::Exit;
use super::gate::Gate;
use super::said::Said;
use super::task_args::{DiffArgs, ListArgs, TaskLogArgs};
use crate::machine::id::TaskId;

/// Where and how a command runs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Context {
    /// Absolute: the working folder, or what `-C` says.
    pub dir: PathBuf,
    /// How long to wait for another process that writes the state.
    pub lock_wait_max: Duration,
    /// How much more is said than usual, from 0.
    pub verbosity: u8,
}

/// Opens the project that the folder belongs to.
///
/// # Errors
/// When there is none, or its state is damaged or of a newer program.
pub fn open(_: &Context) -> Result<Box<dyn Gate>, Error> {
    unwired("the project")
}

/// Returns true while a monitor runs for the project.
///
/// # Errors
/// As [`open`].
pub fn has_monitor(_: &Context) -> Result<bool, Error> {
    unwired("stop")
}

/// Ends what a monitor left running, without one.
///
/// # Errors
/// As [`open`].
pub fn stop_alone(_: &Context, _: &mut Console<'_>, _: StopKind) -> Result<Exit, Error> {
    unwired("stop")
}

/// Writes the status line to a task file, atomically.
///
/// # Errors
/// When the file cannot be read or written.
pub fn set_status(_: &Path, _: &Said) -> io::Result<()> {
    Err(io::Error::other("not wired"))
}

macro_rules! elsewhere {
    ($($name:ident($($args:ty),*);)*) => {
        $(
            #[doc = concat!("`pipeline ", stringify!($name), "`.")]
            ///
            /// # Errors
            /// Whatever stops it.
            pub fn $name(_: &Context, _: &mut Console<'_>, $(_: $args),*) -> Result<Exit, Error> {
                unwired(stringify!($name))
            }
        )*
    };
}

elsewhere! {
    init(&InitArgs);
    demo(Option<&Path>);
    monitor(&MonitorArgs);
    status(&StatusArgs);
    log(&LogArgs);
    graph(&GraphArgs);
    task_list(&ListArgs);
    task_show(&TaskId);
    task_log(&TaskLogArgs);
    task_diff(&DiffArgs);
    agent_list();
    agent_logs(&str, bool);
    doctor(&DoctorArgs);
    keeper(&[OsString]);
}

fn unwired<T>(what: &str) -> Result<T, Error> {
    Err(Error::failed(format!("{what} is not wired")))
}
