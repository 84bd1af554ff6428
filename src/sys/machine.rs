//! What the machine has: cores and memory.

use std::fs;
use std::num::NonZero;

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

#[cfg(test)]
mod tests {
    #[test]
    fn this_machine_has_a_core_and_some_memory() {
        assert!(super::cores() >= 1);
        assert!(super::memory_bytes().is_some_and(|bytes| bytes > 1 << 20));
    }
}
