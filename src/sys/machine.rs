//! What the machine has: cores and memory.

use std::fs;
use std::num::NonZero;

/// What is given way by: a third of the share that others get where all want to run.
const NICENESS: i32 = 5;

/// Returns the number of cores that this process may use, at least 1.
#[must_use]
pub fn cores() -> u64 {
    std::thread::available_parallelism().map_or(1, NonZero::get) as u64
}

/// Returns the bytes of memory there are; `None` where the kernel does not say.
#[must_use]
pub fn memory_bytes() -> Option<u64> {
    let text = fs::read_to_string("/proc/meminfo").ok()?;
    let line = text.lines().find_map(|line| line.strip_prefix("MemTotal:"))?;
    let kib: u64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
    kib.checked_mul(1024)
}

/// Returns the number of processes that ran or wanted to, over the last minute on average; `None`
/// where the kernel does not say (`proc_loadavg(5)`).
#[must_use]
pub fn load_average() -> Option<f64> {
    load_in(&fs::read_to_string("/proc/loadavg").ok()?)
}

/// Lets everything else go first from now on, on this thread and for the children that it starts.
pub fn yield_to_others() {
    // Where that is not allowed it goes on as before.
    let _ = rustix::process::nice(NICENESS);
}

fn load_in(text: &str) -> Option<f64> {
    text.split_whitespace().next()?.parse().ok().filter(|load: &f64| load.is_finite())
}

#[cfg(test)]
mod tests {
    #[test]
    fn this_machine_has_a_core_and_some_memory() {
        assert!(super::cores() >= 1);
        assert!(super::memory_bytes().is_some_and(|bytes| bytes > 1 << 20));
        assert!(super::load_average().is_some_and(|load| load >= 0.0));
    }

    #[test]
    fn load_of_the_last_minute_is_the_first_number() {
        assert_eq!(super::load_in("9.10 3.50 1.02 3/512 4242\n"), Some(9.1));
        for text in ["", "\n", "inf 1 1", "nan", "x 1.0"] {
            assert_eq!(super::load_in(text), None, "{text:?}");
        }
    }
}
