//! What attempts cost, and the bounds of `[limits]` on it.
//!
//! What a program does not say is not known, and never taken for nothing: such attempts are counted
//! apart. A bound can only hold what is known, so it is the number of attempts that bounds the rest.

use super::attempt::{Attempt, AttemptPhase, EndedBy, Exit};
use super::change::{Change, ProjectChange};
use super::id::{AttemptId, TaskId};
use super::index;
use super::settings::{AgentCommand, AgentGroup, Limits};
use super::state::State;
use super::step::project;
use super::task::Task;
use super::time::Time;
use super::usage::{self, Usage};

/// What attempts took of their providers together.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Spent {
    /// Millionths of a dollar; of those alone that said so.
    pub cost_usd_micros: u64,
    /// Attempts that said what they cost.
    pub priced: u64,
    /// Attempts that did not, though their program is one that costs something.
    pub unpriced: u64,
    /// Read and written; `None`: nothing is known.
    pub tokens: Option<u64>,
}

impl Spent {
    /// Returns the cost as far as it is known; `None`: nothing is.
    #[must_use]
    pub fn cost(&self) -> Option<u64> {
        (self.priced > 0).then_some(self.cost_usd_micros)
    }

    /// Returns what one of these attempts cost on average; 0 where nothing is known.
    #[must_use]
    pub fn mean(&self) -> u64 {
        self.cost_usd_micros.checked_div(self.priced).unwrap_or(0)
    }

    /// Adds an attempt that has cost something; `None`: what, nobody knows.
    pub fn add(&mut self, usage: Option<&Usage>) {
        match usage.and_then(|usage| usage.cost_usd_micros) {
            Some(cost) => {
                self.cost_usd_micros = self.cost_usd_micros.saturating_add(cost);
                self.priced += 1;
            }
            None => self.unpriced += 1,
        }
        self.tokens = usage::sum(self.tokens, usage.and_then(Usage::tokens));
    }
}

/// What the bounds of a run count: it begins with a monitor that finds no attempt at work and no
/// monitor before it that was killed, and it is over when the monitor ends of itself.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Run {
    /// `None` before the first.
    pub began_at: Option<Time>,
    /// Its monitor has not said that it ends: it is at work, or was killed.
    pub is_open: bool,
    /// Work attempts added, but for those to which their provider gave nothing.
    pub attempts: u32,
    pub spent: Spent,
    /// What was told of its bounds; at most once each.
    pub told: Vec<Told>,
}

/// That a bound is near or reached, and what it was then.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Told {
    pub bound: Bound,
    pub level: Level,
    /// In the bound's unit.
    pub limit: u64,
}

/// A bound of `[limits]` that is worth a warning.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Bound {
    /// `attempts_per_run`.
    Attempts,
    /// `cost_usd`, in millionths of a dollar.
    Cost,
    /// `cost_usd_per_task`, in millionths of a dollar.
    TaskCost,
}

impl Bound {
    /// Returns the key in `[limits]`.
    #[must_use]
    pub const fn key(self) -> &'static str {
        match self {
            Self::Attempts => "attempts_per_run",
            Self::Cost => "cost_usd",
            Self::TaskCost => "cost_usd_per_task",
        }
    }
}

/// How much of a bound is used up.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Level {
    /// Four fifths.
    Near,
    /// All: nothing new starts.
    Reached,
}

impl Level {
    /// Returns how much of the limit is used; `None`: there is none, or it is far.
    #[must_use]
    pub const fn of(used: u64, limit: u64) -> Option<Self> {
        if limit == 0 {
            None
        } else if used >= limit {
            Some(Self::Reached)
        } else if used.saturating_mul(5) >= limit.saturating_mul(4) {
            Some(Self::Near)
        } else {
            None
        }
    }
}

/// Returns millionths of a dollar as dollars, with as many digits as tell something: `$1.20`.
#[must_use]
pub fn money(micros: u64) -> String {
    let dollars = micros as f64 / 1e6;
    if (1..100).contains(&micros) {
        format!("${dollars:.6}")
    } else if micros < 1_000_000 && !micros.is_multiple_of(10_000) {
        format!("${dollars:.4}")
    } else {
        format!("${dollars:.2}")
    }
}

/// Returns the bounds of the run: what is used up, and the limit, 0 where there is none.
#[must_use]
pub fn bounds(state: &State) -> [(Bound, u64, u64); 2] {
    let (limits, run) = (&state.settings.limits, &state.run);
    [
        (Bound::Attempts, u64::from(run.attempts), u64::from(limits.attempts_per_run)),
        (Bound::Cost, run.spent.cost_usd_micros, limits.cost_usd_micros),
    ]
}

/// Returns how many attempts this run may still begin: none once a bound is used up.
///
/// What runs is taken to cost what its group's attempts cost on average, before the first what all
/// of the run do, so that many at once go beyond the bound by little; while nothing at all is known,
/// by as many as there are agents.
/// Cost: live attempts, where there is a bound on the cost.
#[must_use]
pub fn attempts_left(state: &State) -> u32 {
    let by_number = match state.settings.limits.attempts_per_run {
        0 => u32::MAX,
        per_run => per_run.saturating_sub(state.run.attempts),
    };
    let limit = state.settings.limits.cost_usd_micros;
    if limit == 0 || by_number == 0 {
        return by_number;
    }
    let used = state.run.spent.cost_usd_micros.saturating_add(expected(state));
    let left = limit.saturating_sub(used);
    // With the dearest alone no more would begin; the turns go on until nothing is left.
    let dearest = state.settings.agents.iter().map(|group| mean_of(state, group)).max();
    let by_cost = match dearest.unwrap_or(0) {
        0 if left > 0 => u32::MAX,
        0 => 0,
        dearest => u32::try_from(left.div_ceil(dearest)).unwrap_or(u32::MAX),
    };
    by_number.min(by_cost)
}

/// Returns what the attempts at work are expected to cost, in millionths of a dollar.
#[must_use]
pub fn expected(state: &State) -> u64 {
    let costs = state.attempts.values().filter(|attempt| is_at_work(attempt)).map(|attempt| {
        let group = state.rules_of(attempt).group_of(&attempt.agent);
        group.map_or(0, |group| mean_of(state, group))
    });
    costs.fold(0, u64::saturating_add)
}

/// Returns what an attempt of the group is expected to cost.
fn mean_of(state: &State, group: &AgentGroup) -> u64 {
    match state.metrics.groups.get(&group.name) {
        Some(spent) => spent.mean(),
        None if has_provider(group) => state.run.spent.mean(),
        None => 0,
    }
}

const fn has_provider(group: &AgentGroup) -> bool {
    matches!(group.command, AgentCommand::Preset { .. })
}

/// What it cost is not known yet.
fn is_at_work(attempt: &Attempt) -> bool {
    let is_before_its_end = match attempt.phase {
        AttemptPhase::Preparing | AttemptPhase::Starting | AttemptPhase::Running => true,
        AttemptPhase::Saving | AttemptPhase::Checking | AttemptPhase::Advancing => false,
    };
    attempt.is_work() && is_before_its_end
}

/// Returns what a task has spent since its attempts were last counted anew.
#[must_use]
pub fn spent_by(task: &Task) -> u64 {
    task.spent.cost_usd_micros.saturating_sub(task.tally.forgiven_micros)
}

/// Returns true when the task has used up what it may cost.
#[must_use]
pub fn is_overdrawn(limits: &Limits, task: &Task) -> bool {
    Level::of(spent_by(task), limits.cost_usd_per_task_micros) == Some(Level::Reached)
}

/// Returns why a task that is overdrawn goes no further, in words.
pub(super) fn overdrawn_words(limits: &Limits, task: &Task) -> String {
    let (spent, limit) = (money(spent_by(task)), money(limits.cost_usd_per_task_micros));
    format!("spent {spent} of its {limit} (`limits.{}`)", Bound::TaskCost.key())
}

/// Returns true when an attempt of the group that ended so has cost something, known or not.
#[must_use]
pub fn has_cost(group: Option<&AgentGroup>, exit: Option<&Exit>) -> bool {
    let has_provider = group.is_some_and(has_provider);
    let usage = exit.map(|exit| &exit.usage);
    let is_told = usage.is_some_and(|it| it.cost_usd_micros.is_some() || it.tokens().is_some());
    let has_run = exit.is_none_or(|exit| exit.ended_by != EndedBy::SpawnFailed);
    is_told || (has_provider && has_run)
}

/// Notes what an attempt cost that has just ended, or been lost.
pub(super) fn note(state: &mut State, id: &AttemptId, exit: Option<&Exit>) {
    let Some(attempt) = state.attempts.get(id).filter(|attempt| attempt.is_work()) else { return };
    let group = state.rules_of(attempt).group_of(&attempt.agent);
    if !has_cost(group, exit) {
        return;
    }
    let usage = exit.map(|exit| &exit.usage);
    let (group, task) = (group.map(|group| group.name.clone()), attempt.task.clone());
    state.run.spent.add(usage);
    if let Some(group) = group {
        state.metrics.groups.entry(group).or_default().add(usage);
    }
    if let Some(task) = task {
        index::update(state, &task, false, |task| task.spent.add(usage));
    }
}

/// Notes that a monitor begins: it goes on with the run of one that was killed, or that left agents
/// at work.
pub(super) fn begin(state: &mut State, at: Time) {
    let goes_on = state.run.began_at.is_some() && (state.run.is_open || state.has_work());
    if !goes_on {
        state.run = Run { began_at: Some(at), ..Run::default() };
    }
    state.run.is_open = true;
}

/// Returns what is to be told of the run's bounds: each is told once to be near, and once to be
/// used up, unless it is changed.
pub(super) fn tell(state: &State) -> Vec<Change> {
    let told = |bound, level, limit| {
        let is_said = |old: &Told| (old.bound, old.limit) == (bound, limit) && old.level >= level;
        state.run.told.iter().any(is_said)
    };
    let new = bounds(state).into_iter().filter_map(|(bound, used, limit)| {
        let level = Level::of(used, limit).filter(|level| !told(bound, *level, limit))?;
        Some(project(ProjectChange::BudgetTold { bound, level, task: None, used, limit }))
    });
    new.collect()
}

/// Remembers what was told; of a task its next attempts tell.
pub(super) fn remember(state: &mut State, bound: Bound, level: Level, limit: u64) {
    if bound != Bound::TaskCost {
        state.run.told.retain(|old| old.bound != bound);
        state.run.told.push(Told { bound, level, limit });
    }
}

/// Returns the warning due when an attempt ends that brings its task near its bound.
pub(super) fn warned(state: &State, found: &Attempt, usage: &Usage) -> Option<Change> {
    let limit = state.settings.limits.cost_usd_per_task_micros;
    let id: &TaskId = found.task.as_ref().filter(|_| found.is_work())?;
    let before = spent_by(state.tasks.get(id)?);
    let used = before.saturating_add(usage.cost_usd_micros?);
    let is_new = Level::of(before, limit).is_none() && Level::of(used, limit) == Some(Level::Near);
    let (bound, level, task) = (Bound::TaskCost, Level::Near, Some(id.clone()));
    is_new.then(|| project(ProjectChange::BudgetTold { bound, level, task, used, limit }))
}

#[cfg(test)]
mod tests {
    use super::{Level, Spent, Usage, money};

    #[test]
    fn what_is_not_known_is_counted_and_not_taken_for_nothing() {
        let usage = |cost| Usage { cost_usd_micros: cost, ..Usage::default() };
        let mut spent = Spent::default();
        assert_eq!((spent.cost(), spent.mean()), (None, 0));
        spent.add(Some(&usage(None)));
        spent.add(None);
        assert_eq!((spent.cost(), spent.unpriced, spent.tokens), (None, 2, None));
        spent.add(Some(&usage(Some(0))));
        assert_eq!((spent.cost(), spent.mean()), (Some(0), 0), "for nothing is known, too");
        spent.add(Some(&Usage { input_tokens: Some(7), ..usage(Some(300)) }));
        assert_eq!((spent.cost(), spent.mean(), spent.tokens), (Some(300), 150, Some(7)));
        spent.add(Some(&usage(Some(u64::MAX))));
        assert_eq!(spent.cost_usd_micros, u64::MAX);
    }

    #[test]
    fn a_bound_is_near_from_four_fifths_on() {
        let (near, reached) = (Some(Level::Near), Some(Level::Reached));
        for (used, limit, level) in [
            (0, 0, None),
            (9, 0, None),
            (0, 10, None),
            (7, 10, None),
            (8, 10, near),
            (9, 10, near),
            (10, 10, reached),
            (11, 10, reached),
            (3, 4, None),
            (u64::MAX, u64::MAX, reached),
        ] {
            assert_eq!(Level::of(used, limit), level, "{used} of {limit}");
        }
    }

    #[test]
    fn small_sums_are_not_shown_as_nothing() {
        for (micros, text) in [
            (0, "$0.00"),
            (7, "$0.000007"),
            (1_234, "$0.0012"),
            (50_000, "$0.05"),
            (55_500, "$0.0555"),
            (1_234_567, "$1.23"),
            (250_000_000, "$250.00"),
        ] {
            assert_eq!(money(micros), text);
        }
    }
}
