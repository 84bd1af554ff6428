//! Sums, rates and quantiles.

use std::collections::BTreeMap;

use serde::Serialize;

use crate::machine::State;
use crate::machine::attempt::Attempt;
use crate::machine::state::StageSum;
use crate::machine::task::{Task, TaskKind, TaskPhase};
use crate::machine::time::Time;

/// Rates are over this long, or since the monitor started where that is less; milliseconds.
pub const RATE_WINDOW_MS: u64 = 3_600_000;

/// What `metrics` holds.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Figures<'a> {
    /// Work attempts ever added.
    pub attempts: u64,
    /// Those after the first of a task's stage.
    pub retries: u64,
    pub reverts: u64,
    /// `None`: not known.
    pub cost_usd: Option<f64>,
    /// Attempts whose cost is not known, and is not in `cost_usd`.
    pub cost_unknown: u64,
    /// `None`: not known.
    pub tokens: Option<u64>,
    /// Tasks completed per hour, within [`RATE_WINDOW_MS`].
    pub throughput_per_h: f64,
    /// Share of the agents' time that had an attempt, 0 to 1, within [`RATE_WINDOW_MS`].
    pub utilization: f64,
    pub handoff_ms: Handoff,
    /// By long stage name; stages without a completed attempt are not in it.
    pub stage_s: BTreeMap<&'a str, StageFigures>,
}

/// From an assignment to the agent's start, in milliseconds; `None` before the first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct Handoff {
    pub p50: Option<u64>,
    pub p99: Option<u64>,
}

/// Durations of completed attempts, in seconds.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct StageFigures {
    pub n: u64,
    pub mean: f64,
    /// Of the newest samples.
    pub p95: f64,
}

/// Computes the figures. Cost: tasks, and the attempts of those that moved within the window.
#[must_use]
pub fn figures(state: &State, at: Time) -> Figures<'_> {
    let metrics = &state.metrics;
    let hour_ago = Time::from_ms(at.as_ms().saturating_sub(RATE_WINDOW_MS));
    let window = Window { from: hour_ago.max(state.monitor.started_at), to: at };
    let handoff = sorted(&metrics.handoff_ms);
    let stages = metrics.stage_ms.iter().filter(|(_, sum)| sum.count > 0);
    Figures {
        attempts: metrics.attempts,
        retries: metrics.retries,
        reverts: 0,
        cost_usd: metrics.cost_usd_micros.map(dollars),
        cost_unknown: metrics.groups.values().map(|spent| spent.unpriced).sum(),
        tokens: metrics.tokens,
        throughput_per_h: rounded(window.throughput_per_h(state)),
        utilization: rounded(window.utilization(state)),
        handoff_ms: Handoff { p50: quantile(&handoff, 50), p99: quantile(&handoff, 99) },
        stage_s: stages.map(|(name, sum)| (name.as_str(), of_stage(sum))).collect(),
    }
}

/// Returns millionths of a dollar as dollars.
#[must_use]
pub fn dollars(micros: u64) -> f64 {
    micros as f64 / 1e6
}

/// Returns the figures of durations in milliseconds, in any order; all 0 where there are none.
pub(super) fn of_samples(mut samples_ms: Vec<u64>) -> StageFigures {
    samples_ms.sort_unstable();
    let (n, total) = (samples_ms.len() as u64, samples_ms.iter().sum::<u64>());
    let mean = if n == 0 { 0.0 } else { total as f64 / n as f64 / 1000.0 };
    let p95 = quantile(&samples_ms, 95).unwrap_or(0);
    StageFigures { n, mean: rounded(mean), p95: p95 as f64 / 1000.0 }
}

fn of_stage(sum: &StageSum) -> StageFigures {
    let p95 = quantile(&sorted(&sum.samples_ms), 95).unwrap_or(0);
    let mean = sum.total_ms as f64 / sum.count as f64 / 1000.0;
    StageFigures { n: sum.count, mean: rounded(mean), p95: p95 as f64 / 1000.0 }
}

fn sorted(samples: &[u64]) -> Vec<u64> {
    let mut samples = samples.to_vec();
    samples.sort_unstable();
    samples
}

/// Returns the nearest-rank quantile of sorted samples; `None` when there are none.
fn quantile(sorted: &[u64], percent: usize) -> Option<u64> {
    let rank = (sorted.len() * percent).div_ceil(100);
    sorted.get(rank.max(1) - 1).copied()
}

/// Keeps three digits after the point.
pub(super) fn rounded(value: f64) -> f64 {
    (value * 1000.0).round() / 1000.0
}

/// A stretch of time.
#[derive(Debug, Clone, Copy)]
struct Window {
    from: Time,
    to: Time,
}

impl Window {
    fn ms(self) -> f64 {
        self.to.ms_since(self.from) as f64
    }

    fn throughput_per_h(self, state: &State) -> f64 {
        let is_in = |task: &&Task| {
            let at = match task.phase {
                TaskPhase::Completed { at, .. } => at,
                TaskPhase::Waiting
                | TaskPhase::Ready { .. }
                | TaskPhase::Working { .. }
                | TaskPhase::Landing { .. }
                | TaskPhase::Blocked(_)
                | TaskPhase::Cancelled { .. } => return false,
            };
            task.spec.kind == TaskKind::Task && at >= self.from
        };
        if self.ms() < 1.0 {
            return 0.0;
        }
        state.tasks.values().filter(is_in).count() as f64 * 3_600_000.0 / self.ms()
    }

    fn utilization(self, state: &State) -> f64 {
        let agents = state.agents.values().filter(|agent| !agent.is_retired).count();
        if agents == 0 || self.ms() < 1.0 {
            return 0.0;
        }
        // A task is moved when its attempt ends, so an older one has none within the window.
        let recent = state.tasks.values().filter(|task| task.updated_at >= self.from);
        let past = recent.flat_map(|task| &task.history);
        let all = past.chain(state.attempts.values()).filter(|attempt| attempt.is_work());
        let busy: u64 = all.map(|attempt| self.overlap_ms(attempt)).sum();
        (busy as f64 / self.ms() / agents as f64).min(1.0)
    }

    fn overlap_ms(self, attempt: &Attempt) -> u64 {
        let end = attempt.outcome.as_ref().map_or(self.to, |outcome| outcome.at);
        end.min(self.to).ms_since(attempt.assigned_at.max(self.from))
    }
}

#[cfg(test)]
mod tests {
    use super::{Handoff, figures, quantile};
    use crate::observe::support::{End, Pipeline, settings, task};

    #[test]
    fn quantiles_are_samples() {
        assert_eq!(quantile(&[], 99), None);
        assert_eq!(quantile(&[7], 50), Some(7));
        let hundred: Vec<u64> = (1..=100).collect();
        assert_eq!(quantile(&hundred, 50), Some(50));
        assert_eq!(quantile(&hundred, 99), Some(99));
    }

    #[test]
    fn rates_count_from_the_monitors_start() {
        let mut pipeline = Pipeline::started(settings(), vec![task("A", &[])]);
        pipeline.run_stages("A");
        pipeline.land("A");
        // Four attempts of a minute each, one after another; five agents.
        let figures = figures(&pipeline.state, pipeline.now);
        assert!((figures.throughput_per_h - 15.0).abs() < 1e-9, "{figures:?}");
        assert!((figures.utilization - 0.2).abs() < 1e-9, "{figures:?}");
        assert_eq!((figures.attempts, figures.retries), (4, 0));
        assert_eq!(figures.handoff_ms, Handoff { p50: Some(0), p99: Some(0) });
        let stage = figures.stage_s["implementation"];
        assert_eq!(stage.n, 1);
        assert!((stage.mean - 60.0).abs() < 1e-9 && (stage.p95 - 60.0).abs() < 1e-9);
    }

    #[test]
    fn a_second_try_is_a_retry_and_nothing_divides_by_zero() {
        let mut pipeline = Pipeline::started(settings(), vec![task("A", &[])]);
        let before = figures(&pipeline.state, pipeline.now);
        assert!(before.utilization.is_finite() && before.throughput_per_h.is_finite());
        pipeline.run("A.arch.1", End::Status(1));
        pipeline.pass(5_000);
        pipeline.turn();
        assert_eq!(figures(&pipeline.state, pipeline.now).retries, 1);
    }
}
