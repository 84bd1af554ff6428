//! Named fail points: places at which a test kills the process, makes a thread panic or a call fail.
//!
//! Without the feature `failpoints` every call compiles to nothing. With it,
//! `PIPELINE_FAILPOINT=name[:n][=kill|error|panic]` acts at the n-th pass (from 1) of the point `name`;
//! `PIPELINE_FAILPOINT=name=full|error` with `PIPELINE_FAILPOINT_WHILE=file` acts at every pass while
//! that file is there, `full` by the error of a full disk;
//! `PIPELINE_FAILPOINT_LOG=file` appends the name of every point passed, so that a test can
//! enumerate them; `%p` in it is the process's id. With `PIPELINE_FAILPOINT_ONCE=file` only the process
//! that makes that file acts, of all that come there.

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
    use std::path::PathBuf;
    use std::sync::LazyLock;
    use std::sync::atomic::{AtomicU64, Ordering};

    struct Plan {
        name: String,
        pass: u64,
        action: Action,
        /// Acts at every pass while this is there, instead of at one.
        while_there: Option<PathBuf>,
    }

    #[derive(Clone, Copy)]
    enum Action {
        Kill,
        Error,
        Full,
        Panic,
    }

    static PASSES: AtomicU64 = AtomicU64::new(0);
    static PLAN: LazyLock<Option<Plan>> = LazyLock::new(|| {
        let text = std::env::var("PIPELINE_FAILPOINT").ok()?;
        let (place, action) = text.split_once('=').unwrap_or((&text, "kill"));
        let (name, pass) = place.split_once(':').unwrap_or((place, "1"));
        let pass = pass.parse().ok()?;
        let action = match action {
            "error" => Action::Error,
            "full" => Action::Full,
            "panic" => Action::Panic,
            _ => Action::Kill,
        };
        let while_there = std::env::var_os("PIPELINE_FAILPOINT_WHILE").map(PathBuf::from);
        Some(Plan { name: name.into(), pass, action, while_there })
    });

    pub(super) fn point(name: &'static str) -> io::Result<()> {
        if let Ok(path) = std::env::var("PIPELINE_FAILPOINT_LOG") {
            let path = path.replace("%p", &std::process::id().to_string());
            let mut log = std::fs::OpenOptions::new().create(true).append(true).open(path)?;
            // In one write: several processes write there.
            log.write_all(format!("{name}\n").as_bytes())?;
        }
        let Some(plan) = PLAN.as_ref().filter(|plan| plan.name == name) else { return Ok(()) };
        let is_due = match &plan.while_there {
            Some(file) => file.exists(),
            None => PASSES.fetch_add(1, Ordering::Relaxed) + 1 == plan.pass,
        };
        let is_first = |path| std::fs::File::create_new(path).is_ok();
        if !is_due || !std::env::var_os("PIPELINE_FAILPOINT_ONCE").is_none_or(is_first) {
            return Ok(());
        }
        match plan.action {
            Action::Error => {
                return Err(io::Error::other(format!("injected at fail point `{name}`")));
            }
            Action::Full => return Err(rustix::io::Errno::NOSPC.into()),
            Action::Panic => panic!("injected at fail point `{name}`"),
            Action::Kill => {}
        }
        let me = rustix::process::getpid();
        // The signal cannot be caught, so nothing after this line runs.
        let _ = rustix::process::kill_process(me, rustix::process::Signal::KILL);
        Ok(())
    }
}
