//! Time as the program sees it.

use std::time::{Instant, SystemTime, UNIX_EPOCH};

use crate::machine::time::Time;

/// Where the loop reads the time from; the simulator has its own.
pub trait Clock {
    /// Returns the present moment; never runs backwards within one process.
    fn now(&self) -> Time;
}

/// The machine's clock: wall time at the process's start plus monotonic time since.
///
/// A wall clock set forward or back during a run therefore moves no deadline, and time asleep
/// counts against no limit (`CLOCK_MONOTONIC` stands still in suspend).
#[derive(Debug, Clone, Copy)]
pub struct SystemClock {
    wall: Time,
    start: Instant,
}

impl SystemClock {
    /// Anchors the clock at the present wall time.
    #[expect(clippy::disallowed_methods, reason = "this is the one place that reads the clocks")]
    #[must_use]
    pub fn start() -> Self {
        let wall = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        Self { wall: Time::from_ms(wall.as_millis() as u64), start: Instant::now() }
    }

    /// Anchors the clock at the present wall time, but not before `last`: a wall clock that was set
    /// back while no process looked must not make pauses and deadlines longer.
    #[must_use]
    pub fn start_after(last: Time) -> Self {
        let clock = Self::start();
        Self { wall: clock.wall.max(last), ..clock }
    }
}

impl Clock for SystemClock {
    #[expect(clippy::disallowed_methods, reason = "this is the one place that reads the clocks")]
    fn now(&self) -> Time {
        let elapsed = Instant::now().duration_since(self.start);
        Time::from_ms(self.wall.as_ms() + elapsed.as_millis() as u64)
    }
}

/// Returns the monotonic clock, for limits within one process.
#[expect(clippy::disallowed_methods, reason = "this is the one place that reads the clocks")]
#[must_use]
pub fn monotonic() -> Instant {
    Instant::now()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_clock_set_back_between_two_processes_does_not_go_back_here() {
        let wall = SystemClock::start().now();
        let hour = 3_600_000;
        let last = wall.plus_ms(hour);
        let now = SystemClock::start_after(last).now();
        assert!(now >= last && now.ms_since(last) < hour, "{now:?}");
        let now = SystemClock::start_after(Time::from_ms(1)).now();
        assert!(now >= wall && now.ms_since(wall) < hour, "{now:?}");
    }
}
