//! Named fail points: places at which a test kills the process or makes a call fail.
//!
//! Without the feature `failpoints` every call compiles to nothing. With it,
//! `PIPELINE_FAILPOINT=name[:n][=kill|error]` acts at the n-th pass (from 1) of the point `name`;
//! `PIPELINE_FAILPOINT_LOG=file` appends the name of every point passed, so that a test can
//! enumerate them.

use std::io;

/// Passes the fail point `name`; may not return.
///
/// # Errors
/// The injected error, when the environment asks for one at this point.
#[cfg(not(feature = "failpoints"))]
#[inline(always)]
pub fn point(_name: &'static str) -> io::Result<()> {
    Ok(())
}

/// Passes the fail point `name`; may not return.
///
/// # Errors
/// The injected error, when the environment asks for one at this point.
#[cfg(feature = "failpoints")]
pub fn point(name: &'static str) -> io::Result<()> {
    enabled::point(name)
}

#[cfg(feature = "failpoints")]
mod enabled {
    use std::io::{self, Write};
    use std::sync::LazyLock;
    use std::sync::atomic::{AtomicU64, Ordering};

    struct Plan {
        name: String,
        pass: u64,
        is_error: bool,
    }

    static PASSES: AtomicU64 = AtomicU64::new(0);
    static PLAN: LazyLock<Option<Plan>> = LazyLock::new(|| {
        let text = std::env::var("PIPELINE_FAILPOINT").ok()?;
        let (place, action) = text.split_once('=').unwrap_or((&text, "kill"));
        let (name, pass) = place.split_once(':').unwrap_or((place, "1"));
        let pass = pass.parse().ok()?;
        Some(Plan { name: name.into(), pass, is_error: action == "error" })
    });

    pub(super) fn point(name: &'static str) -> io::Result<()> {
        if let Ok(path) = std::env::var("PIPELINE_FAILPOINT_LOG") {
            let mut log = std::fs::OpenOptions::new().create(true).append(true).open(path)?;
            writeln!(log, "{name}")?;
        }
        let Some(plan) = PLAN.as_ref().filter(|plan| plan.name == name) else { return Ok(()) };
        if PASSES.fetch_add(1, Ordering::Relaxed) + 1 != plan.pass {
            return Ok(());
        }
        if plan.is_error {
            return Err(io::Error::other(format!("injected at fail point `{name}`")));
        }
        let me = rustix::process::getpid();
        // The signal cannot be caught, so nothing after this line runs.
        let _ = rustix::process::kill_process(me, rustix::process::Signal::KILL);
        Ok(())
    }
}
