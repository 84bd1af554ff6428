//! What an attempt used of its provider, as far as its program said so.

/// Tokens and money of one run. `None` is unknown, which is not zero.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Usage {
    /// The program's name for its session, to take it up again.
    pub session: Option<String>,
    /// Read, those from a cache included.
    pub input_tokens: Option<u64>,
    /// Written.
    pub output_tokens: Option<u64>,
    /// Of those read, the ones from a cache.
    pub cached_tokens: Option<u64>,
    /// Millionths of a dollar.
    pub cost_usd_micros: Option<u64>,
    /// As its program reports them they are the session's so far.
    pub is_session_total: bool,
}

impl Usage {
    /// Returns what the run itself used: of a session's total, what is beyond the `earlier` runs of
    /// that session.
    #[must_use]
    pub fn beyond<'a>(mut self, earlier: impl Iterator<Item = &'a Self>) -> Self {
        if !self.is_session_total || self.session.is_none() {
            return self;
        }
        for before in earlier.filter(|before| before.session == self.session) {
            for (total, used) in [
                (&mut self.input_tokens, before.input_tokens),
                (&mut self.output_tokens, before.output_tokens),
                (&mut self.cached_tokens, before.cached_tokens),
                (&mut self.cost_usd_micros, before.cost_usd_micros),
            ] {
                *total = total.map(|total| total.saturating_sub(used.unwrap_or(0)));
            }
        }
        self
    }

    /// Returns tokens read and written together; `None`: neither is known.
    #[must_use]
    pub fn tokens(&self) -> Option<u64> {
        sum(self.input_tokens, self.output_tokens)
    }
}

/// Adds what is known; `None`: nothing is.
#[must_use]
pub fn sum(left: Option<u64>, right: Option<u64>) -> Option<u64> {
    match (left, right) {
        (Some(left), Some(right)) => Some(left.saturating_add(right)),
        (known, None) | (None, known) => known,
    }
}

#[cfg(test)]
mod tests {
    use super::Usage;

    fn run(session: &str, input: u64, cost: Option<u64>) -> Usage {
        Usage {
            session: Some(session.into()),
            input_tokens: Some(input),
            cost_usd_micros: cost,
            is_session_total: true,
            ..Usage::default()
        }
    }

    #[test]
    fn of_a_sessions_total_only_what_is_new_is_the_runs() {
        let first = run("s", 100, Some(7));
        let second = run("s", 250, Some(9)).beyond([&first].into_iter());
        assert_eq!((second.input_tokens, second.cost_usd_micros), (Some(150), Some(2)));
        let third = run("s", 260, None).beyond([&first, &second].into_iter());
        assert_eq!((third.input_tokens, third.cost_usd_micros), (Some(10), None));
        assert_eq!(third.output_tokens, None, "unknown stays unknown");
        let other = run("t", 30, None).beyond([&first].into_iter());
        assert_eq!(other.input_tokens, Some(30));
    }

    #[test]
    fn a_run_that_reports_itself_is_taken_as_it_is() {
        let first = run("s", 100, None);
        let own = Usage { is_session_total: false, ..run("s", 40, None) };
        assert_eq!(own.clone().beyond([&first].into_iter()), own);
        assert_eq!(own.tokens(), Some(40));
        assert_eq!(Usage::default().tokens(), None);
    }
}
