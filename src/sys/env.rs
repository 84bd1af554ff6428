//! What the process was started with, read once.

use std::io;
use std::path::PathBuf;

/// Returns the absolute working folder; everything else in the program uses absolute paths.
///
/// # Errors
/// When the folder was removed or cannot be read.
#[expect(clippy::disallowed_methods, reason = "this is the one place that reads it")]
pub fn working_dir() -> io::Result<PathBuf> {
    std::env::current_dir()
}

/// Returns `bytes` random bytes' worth of 128-bit values from the kernel.
///
/// # Errors
/// When the kernel has no source of randomness.
pub fn random_values(count: usize) -> io::Result<Vec<u128>> {
    let mut raw = vec![0_u8; count * 16];
    getrandom::fill(&mut raw).map_err(|error| io::Error::other(error.to_string()))?;
    let value = |chunk: &[u8; 16]| u128::from_le_bytes(*chunk);
    Ok(raw.as_chunks::<16>().0.iter().map(value).collect())
}
