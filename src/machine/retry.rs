//! Exponential backoff.

use super::settings::Retry;

/// Returns the delay in milliseconds before the try after `failures` failures (from 1), spread by
/// `random` over the configured jitter.
#[must_use]
pub fn delay_ms(retry: &Retry, failures: u32, random: u128) -> u64 {
    let exponent = f64::from(failures.saturating_sub(1).min(64));
    let plain = (retry.first_ms as f64 * retry.factor.powf(exponent)).min(retry.max_ms as f64);
    let share = (random as u32) as f64 / f64::from(u32::MAX);
    let spread = 1.0 + retry.jitter * (2.0 * share - 1.0);
    (plain * spread).max(0.0) as u64
}

#[cfg(test)]
mod tests {
    use super::{Retry, delay_ms};

    #[test]
    fn delays_grow_to_the_bound_and_stay_within_the_jitter() {
        let retry = Retry { first_ms: 5_000, factor: 2.0, max_ms: 300_000, jitter: 0.1 };
        for (failures, plain) in [(1, 5_000), (2, 10_000), (3, 20_000), (9, 300_000), (99, 300_000)]
        {
            for random in [0, 1 << 31, u128::from(u32::MAX)] {
                let delay = delay_ms(&retry, failures, random);
                assert!(delay.abs_diff(plain) <= plain / 10 + 1, "{failures}: {delay}");
            }
        }
    }
}
