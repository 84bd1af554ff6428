//! What was spent, and how near the bounds on it are.

use serde::Serialize;

use super::figures::dollars;
use super::waiting::{On, Reason};
use super::words::{Stamp, amount};
use crate::machine::State;
use crate::machine::id::TaskId;
use crate::machine::purse::{self, Bound, Level, Spent, money};

/// The run, as JSON shows it.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct RunEntry {
    /// `None`: there was none.
    pub since: Option<Stamp>,
    /// Work attempts begun.
    pub attempts: u32,
    /// `None`: no limit.
    pub attempts_limit: Option<u32>,
    /// As far as it is known; `None`: nothing is.
    pub cost_usd: Option<f64>,
    /// Attempts whose cost is not known.
    pub cost_unknown: u64,
    /// What the attempts at work may cost, as far as others of their agents tell.
    pub cost_expected_usd: f64,
    /// `None`: no limit.
    pub cost_limit_usd: Option<f64>,
    /// `None`: not known.
    pub tokens: Option<u64>,
    /// A line for each bound that is near or reached.
    #[serde(skip)]
    pub told: Vec<String>,
}

/// Returns what the run has used of its bounds.
#[must_use]
pub fn run(state: &State) -> RunEntry {
    let (limits, run) = (&state.settings.limits, &state.run);
    let cost_limit = Some(limits.cost_usd_micros).filter(|limit| *limit > 0);
    let told = purse::bounds(state).into_iter().filter_map(|(bound, used, limit)| {
        let what = used_of(bound, used, limit);
        Some(match Level::of(used, limit)? {
            Level::Near => format!("{what} (`limits.{}`)", bound.key()),
            Level::Reached => format!("no new attempt starts: {}", raise(&what, bound)),
        })
    });
    RunEntry {
        since: run.began_at.map(Stamp),
        attempts: run.attempts,
        attempts_limit: Some(limits.attempts_per_run).filter(|limit| *limit > 0),
        cost_usd: run.spent.cost().map(dollars),
        cost_unknown: run.spent.unpriced,
        cost_expected_usd: dollars(purse::expected(state)),
        cost_limit_usd: cost_limit.map(dollars),
        tokens: run.spent.tokens,
        told: told.collect(),
    }
}

/// Returns `40 of 40 attempts made`, `$5.12 of $5.00 spent`.
fn used_of(bound: Bound, used: u64, limit: u64) -> String {
    match bound {
        Bound::Attempts => format!("{used} of {limit} attempts made"),
        Bound::Cost | Bound::TaskCost => format!("{} of {} spent", money(used), money(limit)),
    }
}

fn raise(what: &str, bound: Bound) -> String {
    format!("{what}: raise `limits.{}`", bound.key())
}

/// Returns why the bounds of the run let nothing start; `None`: they do.
#[must_use]
pub fn used_up(state: &State) -> Option<Reason> {
    if purse::attempts_left(state) > 0 {
        return None;
    }
    let reached = purse::bounds(state)
        .into_iter()
        .find(|(_, used, limit)| Level::of(*used, *limit) == Some(Level::Reached));
    let what = match reached {
        Some((bound, used, limit)) => raise(&used_of(bound, used, limit), bound),
        None => {
            let limit = money(state.settings.limits.cost_usd_micros);
            format!("running attempts may cost the rest of {limit} (`limits.cost_usd`)")
        }
    };
    Some(Reason { on: On::Budget, what, until: None })
}

/// Returns what is told of a bound, of the run's or of a task's.
#[must_use]
pub fn told(bound: Bound, level: Level, task: Option<&TaskId>, used: u64, limit: u64) -> String {
    let what = used_of(bound, used, limit);
    let of = task.map(|id| format!("{id}: ")).unwrap_or_default();
    match level {
        Level::Near => {
            let percent = used.saturating_mul(100).checked_div(limit).unwrap_or(100);
            format!("{of}warning: {what}, {percent} % (`limits.{}`)", bound.key())
        }
        Level::Reached => {
            let what = raise(&what, bound);
            format!("{of}no new attempt starts, running ones finish: {what}")
        }
    }
}

/// Returns what something cost: `cost $1.20`, `cost at least $1.20 (3 attempts unknown)`, `cost
/// unknown`; `None`: it has cost nothing that anybody could know of.
#[must_use]
pub fn cost_words(cost_usd: Option<f64>, unknown: u64) -> Option<String> {
    let noun = if unknown == 1 { "attempt" } else { "attempts" };
    let money = cost_usd.map(|usd| money((usd * 1e6).round() as u64));
    match (money, unknown) {
        (None, 0) => None,
        (None, _) => Some("cost unknown".to_owned()),
        (Some(money), 0) => Some(format!("cost {money}")),
        (Some(money), _) => Some(format!("cost at least {money} ({unknown} {noun} unknown)")),
    }
}

/// Returns tokens and cost: `12.7k tokens, cost $0.01`; `None`: there is nothing to know.
#[must_use]
pub fn spent_words(spent: &Spent) -> Option<String> {
    let tokens = spent.tokens.map(|tokens| format!("{} tokens", amount(tokens)));
    let cost = cost_words(spent.cost().map(dollars), spent.unpriced);
    let parts: Vec<String> = tokens.into_iter().chain(cost).collect();
    (!parts.is_empty()).then(|| parts.join(", "))
}

#[cfg(test)]
mod tests {
    use super::{cost_words, told};
    use crate::machine::id::TaskId;
    use crate::machine::purse::{Bound, Level};

    #[test]
    fn what_is_not_known_is_said() {
        for (cost, unknown, words) in [
            (None, 0, None),
            (None, 2, Some("cost unknown")),
            (Some(0.0), 0, Some("cost $0.00")),
            (Some(1.2), 0, Some("cost $1.20")),
            (Some(1.2), 1, Some("cost at least $1.20 (1 attempt unknown)")),
            (Some(1.2), 3, Some("cost at least $1.20 (3 attempts unknown)")),
        ] {
            assert_eq!(cost_words(cost, unknown).as_deref(), words);
        }
    }

    #[test]
    fn a_bound_is_told_with_what_is_used_and_what_to_raise() {
        let near = told(Bound::Attempts, Level::Near, None, 33, 40);
        assert_eq!(near, "warning: 33 of 40 attempts made, 82 % (`limits.attempts_per_run`)");
        let near = told(Bound::TaskCost, Level::Near, Some(&TaskId::new("A")), 840_000, 1_000_000);
        let words = "A: warning: $0.84 of $1.00 spent, 84 % (`limits.cost_usd_per_task`)";
        assert_eq!(near, words);
        let reached = told(Bound::Cost, Level::Reached, None, 5_120_000, 5_000_000);
        let words = "no new attempt starts, running ones finish: $5.12 of $5.00 spent: raise \
                     `limits.cost_usd`";
        assert_eq!(reached, words);
    }
}
