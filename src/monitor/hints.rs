//! What file events say: only that something changed. However many come, one of a kind is on its way,
//! and what it leads to is done now and then.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use super::sources::Input;
use crate::machine::time::Time;

/// From one look that a hint led to until the next.
const REST_MS: u64 = 100;
/// From a hint that a user's file changes until it is read: who writes it in place has as a rule
/// written the whole of it by then.
const SETTLE_MS: u64 = 50;

/// Which hints were sent and have led to no look yet; shared with who sends them.
#[derive(Debug, Clone, Default)]
pub struct Sent {
    refs: Arc<AtomicBool>,
    files: Arc<AtomicBool>,
}

impl Sent {
    /// Notes that it is sent; returns whether it is to be: one of its kind may be on its way.
    pub fn is_new(&self, input: &Input) -> bool {
        let sent = match input {
            Input::Refs => &self.refs,
            Input::Files => &self.files,
            _ => return true,
        };
        !sent.swap(true, Ordering::AcqRel)
    }
}

/// When the hints of a kind are followed.
#[derive(Debug, Default)]
struct Due {
    at: Option<Time>,
    followed_at: Option<Time>,
}

impl Due {
    fn put(&mut self, at: Time) {
        let rested = self.followed_at.map_or(at, |followed| followed.plus_ms(REST_MS));
        self.at = Some(self.at.unwrap_or(at.max(rested)));
    }

    /// Returns whether it is time; what is sent from then on is another hint.
    fn take(&mut self, sent: &AtomicBool, now: Time) -> bool {
        let is_time = self.at.is_some_and(|at| at <= now);
        if is_time {
            (self.at, self.followed_at) = (None, Some(now));
            sent.store(false, Ordering::Release);
        }
        is_time
    }
}

/// The hints that arrived and are to be followed.
#[derive(Debug, Default)]
pub struct Hints {
    sent: Sent,
    refs: Due,
    files: Due,
}

impl Hints {
    /// Takes in hints of which `sent` knows.
    #[must_use]
    pub fn of(sent: Sent) -> Self {
        Self { sent, ..Self::default() }
    }

    pub fn put_refs(&mut self, now: Time) {
        self.refs.put(now);
    }

    pub fn put_files(&mut self, now: Time) {
        self.files.put(now.plus_ms(SETTLE_MS));
    }

    /// Returns whether base or landing branch are to be looked at, before that is done.
    pub fn take_refs(&mut self, now: Time) -> bool {
        self.refs.take(&self.sent.refs, now)
    }

    /// The same of the user's files.
    pub fn take_files(&mut self, now: Time) -> bool {
        self.files.take(&self.sent.files, now)
    }

    /// Returns when the next one is to be followed.
    #[must_use]
    pub fn due_at(&self) -> Option<Time> {
        self.refs.at.into_iter().chain(self.files.at).min()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn of_many_hints_one_is_sent_and_what_it_leads_to_is_done_now_and_then() {
        let sent = Sent::default();
        let mut hints = Hints::of(sent.clone());
        let at = Time::from_ms;
        assert!(sent.is_new(&Input::Files) && !sent.is_new(&Input::Files));
        assert!(sent.is_new(&Input::Refs) && sent.is_new(&Input::Journal));
        hints.put_refs(at(1000));
        assert!(hints.take_refs(at(1000)) && !hints.take_refs(at(1000)), "the first at once");
        assert!(sent.is_new(&Input::Refs), "what comes after the look is another one");
        hints.put_refs(at(1001));
        assert_eq!(hints.due_at(), Some(at(1000 + REST_MS)));
        assert!(!hints.take_refs(at(1099)) && !sent.is_new(&Input::Refs));
        assert!(hints.take_refs(at(1100)) && hints.due_at().is_none());
        hints.put_files(at(2000));
        hints.put_files(at(2040));
        assert!(!hints.take_files(at(2049)) && hints.take_files(at(2050)), "once it has settled");
    }
}
