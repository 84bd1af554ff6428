//! Watches the machine's load, where `scheduler.load_limit` bounds it.

use crate::machine::time::Time;
use crate::machine::{EventBody, Observation, State};
use crate::sys::machine::load_average;

/// Between two looks while work may start.
const LOOK_MS: u64 = 1_000;
/// Between two looks while the load is too high.
const AGAIN_MS: u64 = 5_000;
/// The load must fall below this part of the limit before work starts again.
const PART: f64 = 0.9;

/// When the load was looked at.
#[derive(Debug, Default)]
pub struct Watch {
    looked_at: Option<Time>,
}

impl Watch {
    /// Looks at the load, unless there is no limit or that has just been done; returns what the
    /// machine is to be told.
    pub fn look(&mut self, state: &State, now: Time) -> Option<EventBody> {
        let limit = state.settings.scheduler.load_limit;
        if limit <= 0.0 {
            return news(state, None);
        }
        if self.looked_at.is_some_and(|at| now.ms_since(at) < LOOK_MS && at <= now) {
            return None;
        }
        self.looked_at = Some(now);
        // What cannot be known holds nothing up.
        let load = load_average().unwrap_or(0.0);
        news(state, excess(load, limit, state.overload.is_some()))
    }

    /// Returns when to look whether the load has fallen; `None`: it is not waited for.
    pub fn due_at(&self, state: &State) -> Option<Time> {
        state.overload.as_ref()?;
        Some(self.looked_at?.plus_ms(AGAIN_MS))
    }
}

/// Returns in words how the load exceeds the limit.
fn excess(load: f64, limit: f64, is_over: bool) -> Option<String> {
    let bound = if is_over { limit * PART } else { limit };
    let is_above = if is_over { load >= bound } else { load > bound };
    is_above
        .then(|| format!("the machine's load is {load}, above `scheduler.load_limit` = {limit}"))
}

/// Returns what is to be told; only whether the load is too high counts, not how high it is.
fn news(state: &State, what: Option<String>) -> Option<EventBody> {
    let is_news = state.overload.is_some() != what.is_some();
    is_news.then_some(EventBody::Observation(Observation::OverloadSeen { what }))
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::{Watch, excess};
    use crate::machine::time::Time;
    use crate::machine::{EventBody, Observation, State};
    use crate::observe::support::settings;

    #[test]
    fn load_is_too_high_above_the_limit_and_until_a_tenth_below_it() {
        assert_eq!(excess(4.0, 4.0, false), None);
        let words = "the machine's load is 4.01, above `scheduler.load_limit` = 4";
        assert_eq!(excess(4.01, 4.0, false).as_deref(), Some(words));
        assert!(excess(3.7, 4.0, true).is_some());
        assert_eq!(excess(3.59, 4.0, true), None);
        assert_eq!(excess(3.7, 4.0, false), None);
    }

    #[test]
    fn without_a_limit_an_old_overload_is_over_at_once_and_nothing_is_waited_for() {
        let mut state = State::new(settings(), Time::default());
        let mut watch = Watch::default();
        assert_eq!(watch.look(&state, Time::from_ms(1)), None);
        assert_eq!(watch.due_at(&state), None);
        state.overload = Some("the load".into());
        let over = EventBody::Observation(Observation::OverloadSeen { what: None });
        assert_eq!(watch.look(&state, Time::from_ms(2)), Some(over));
    }

    #[test]
    fn load_is_looked_at_again_after_five_seconds() {
        let mut state = State::new(settings(), Time::default());
        Arc::make_mut(&mut state.settings).scheduler.load_limit = 1e6;
        state.overload = Some("the load".into());
        let mut watch = Watch::default();
        assert!(watch.look(&state, Time::from_ms(7)).is_some());
        assert_eq!(watch.due_at(&state), Some(Time::from_ms(5_007)));
        assert_eq!(watch.look(&state, Time::from_ms(500)), None, "it has just been looked at");
    }
}
