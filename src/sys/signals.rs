//! Signals that whoever started this process has it ignore, as `nohup` and a script's `&` do.
//!
//! exec(2) keeps what is ignored and resets what is handled, so a handler that does nothing lets the
//! programs started from here begin as usual, while nothing changes for this process.

use std::io;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use signal_hook::consts::{
    SIGALRM, SIGCHLD, SIGHUP, SIGINT, SIGQUIT, SIGTERM, SIGTSTP, SIGTTIN, SIGTTOU, SIGUSR1, SIGUSR2,
};
use signal_hook::iterator::Signals;

/// Without it the kernel reaps children itself, and how they ended is not to be known.
pub const CHILDREN: &[i32] = &[SIGCHLD];
/// What a program that was started afresh relies on; SIGPIPE is reset by the standard library.
pub const ALL: &[i32] = &[
    SIGALRM, SIGCHLD, SIGHUP, SIGINT, SIGQUIT, SIGTERM, SIGTSTP, SIGTTIN, SIGTTOU, SIGUSR1, SIGUSR2,
];

/// Lets what is started from now on have those of `signals` that are ignored here as usual.
///
/// # Errors
/// When /proc cannot be read, or a handler is refused.
pub fn pass_on_as_usual(signals: &[i32]) -> io::Result<()> {
    let ignored = ignored(&std::fs::read_to_string("/proc/self/status")?);
    for signal in signals.iter().filter(|signal| ignored >> (*signal - 1) & 1 == 1) {
        signal_hook::flag::register(*signal, Arc::new(AtomicBool::new(false)))?;
    }
    Ok(())
}

/// Ends this process with status 0 on SIGTERM and 130 on SIGINT, for one that only shows what happens
/// until it is told to leave.
///
/// # Errors
/// When the signals or a thread cannot be had; they then end it as ever.
pub fn leave_when_told() -> io::Result<()> {
    let mut signals = Signals::new([SIGTERM, SIGINT])?;
    let wait = move || {
        if let Some(signal) = signals.forever().next() {
            std::process::exit(if signal == SIGINT { 130 } else { 0 });
        }
    };
    std::thread::Builder::new().name("signals".into()).spawn(wait).map(drop)
}

/// Reads the mask of what is ignored; bit 0 is signal 1.
fn ignored(status: &str) -> u64 {
    let mask = status.lines().find_map(|line| line.strip_prefix("SigIgn:"));
    mask.and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok()).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::ignored;

    #[test]
    fn mask_is_found_in_the_status() {
        assert_eq!(ignored("SigBlk:\t00000001\nSigIgn:\t0000000000001006\nSigCgt:\t2\n"), 0x1006);
        assert_eq!(ignored("Name:\tx\n"), 0);
    }
}
