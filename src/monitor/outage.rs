//! While the journal cannot be written: what arrives is kept, and tries grow rare.
//!
//! Nothing is decided meanwhile, nothing acted upon and nothing told: agents go on by themselves.

use std::collections::VecDeque;
use std::sync::mpsc::{Receiver, RecvTimeoutError};
use std::time::Duration;

use signal_hook::consts::{SIGINT, SIGTERM};

use super::sources::Input;
use crate::sys::clock;

/// The first pause before another try.
const PAUSE: Duration = Duration::from_secs(1);
/// The longest one.
const PAUSE_MAX: Duration = Duration::from_secs(30);

/// What has arrived and was not handled yet, and how long to wait before the next try.
#[derive(Debug, Default)]
pub struct Outage {
    arrived: VecDeque<Input>,
    is_on: bool,
    /// The last pause; `None`: there was none yet.
    pause: Option<Duration>,
}

impl Outage {
    /// Returns true while the journal cannot be written.
    pub fn is_on(&self) -> bool {
        self.is_on
    }

    /// Begins it, without a pause before the next try.
    pub fn begin(&mut self) {
        self.is_on = true;
    }

    /// Returns true until the first pause, before which people are told.
    pub fn is_untold(&self) -> bool {
        self.pause.is_none()
    }

    /// Ends it.
    pub fn end(&mut self) {
        (self.is_on, self.pause) = (false, None);
    }

    /// Returns what arrived first, waiting for it at most `wait`.
    pub fn next(
        &mut self,
        receiver: &Receiver<Input>,
        wait: Duration,
    ) -> Result<Input, RecvTimeoutError> {
        match self.arrived.pop_front() {
            Some(input) => Ok(input),
            None => receiver.recv_timeout(wait),
        }
    }

    /// Waits until the next try, keeping what arrives, at most `rest`; returns the signal that asks
    /// for the end, if one does.
    pub fn wait(&mut self, receiver: &Receiver<Input>, rest: Option<Duration>) -> Option<i32> {
        let pause = self.pause.map_or(PAUSE, |pause| (pause * 2).min(PAUSE_MAX));
        (self.is_on, self.pause) = (true, Some(pause));
        let until = clock::monotonic() + rest.map_or(pause, |rest| pause.min(rest));
        loop {
            let rest = until.saturating_duration_since(clock::monotonic());
            match receiver.recv_timeout(rest) {
                Ok(Input::Signal(signal @ (SIGINT | SIGTERM))) => return Some(signal),
                Ok(input) => self.arrived.push_back(input),
                Err(RecvTimeoutError::Timeout | RecvTimeoutError::Disconnected) => return None,
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc::channel;
    use std::time::Duration;

    use signal_hook::consts::{SIGHUP, SIGTERM};

    use super::{Outage, PAUSE, PAUSE_MAX};
    use crate::machine::id::AttemptId;
    use crate::monitor::sources::Input;

    #[test]
    fn what_arrives_meanwhile_is_kept_in_order_and_a_signal_ends_the_wait() {
        let (sender, receiver) = channel();
        let mut outage = Outage::default();
        let of = |id: &str| Input::Superseded { attempt: AttemptId::new(id) };
        let inputs = [of("a"), Input::Signal(SIGHUP), Input::Signal(SIGTERM), of("b")];
        inputs.into_iter().for_each(|input| sender.send(input).expect("it is received"));
        assert_eq!(outage.wait(&receiver, None), Some(SIGTERM));
        assert!(outage.is_on());
        let mut next = || outage.next(&receiver, Duration::ZERO);
        assert!(matches!(next(), Ok(Input::Superseded { attempt }) if attempt.as_str() == "a"));
        assert!(matches!(next(), Ok(Input::Signal(SIGHUP))));
        assert!(matches!(next(), Ok(Input::Superseded { attempt }) if attempt.as_str() == "b"));
        assert!(next().is_err());
    }

    #[test]
    fn tries_grow_rare_up_to_a_bound_and_begin_anew() {
        let (sender, receiver) = channel();
        let mut outage = Outage::default();
        let mut pauses = Vec::new();
        for _ in 0..7 {
            sender.send(Input::Signal(SIGTERM)).expect("it is received");
            outage.wait(&receiver, None);
            pauses.extend(outage.pause);
        }
        assert_eq!((pauses[0], pauses[1], pauses[6]), (PAUSE, PAUSE * 2, PAUSE_MAX));
        outage.end();
        assert!(!outage.is_on());
        assert_eq!(outage.wait(&receiver, Some(Duration::ZERO)), None, "there is no time left");
    }
}
