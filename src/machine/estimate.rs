//! How long work is expected to take: learned from what completed, configured before.
//!
//! Learned is a tree: of a stage, below it of each group of agents, below that of each complexity.
//! The narrowest that has seen enough is asked. A mean is the plain one of the first durations and
//! from then on an exponentially weighted moving one (S. W. Roberts, "Control chart tests based on
//! geometric moving averages", 1959); a 95th percentile is the weighted nearest-rank one of the
//! newest durations, their weight halved every [`HALF_LIFE`].

use std::collections::BTreeMap;

use super::agent::Agent;
use super::attempt::Attempt;
use super::complexity;
use super::id::StageName;
use super::settings::{Settings, Stage};
use super::stage;
use super::state::State;
use super::task::{Task, TaskPhase};
use super::time::Time;

/// Durations kept of each, the newest.
pub const DURATIONS_MAX: usize = 64;
/// Durations after which one counts half as much for the percentile.
const HALF_LIFE: f64 = 16.0;
/// Share of the newest duration in a mean: one of so many.
const MEAN_OF: u64 = 16;
/// Durations that something narrower than a stage needs to be believed, and a timeout to be drawn
/// from what was learned.
pub const COUNT_MIN: u64 = 4;
/// An attempt that runs longer than expected is expected to run on for this part of it.
pub const OVERDUE_PART: u64 = 10;
/// Names kept below each part of the tree; the one with the fewest durations goes first.
const NAMES_MAX: usize = 64;

/// Durations of completed attempts.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Learned {
    pub count: u64,
    /// In microseconds, so that small steps are not lost.
    pub mean_us: u64,
    /// The newest [`DURATIONS_MAX`], oldest first, milliseconds.
    pub durations_ms: Vec<u64>,
    /// The same of what is narrower, by name.
    pub below: BTreeMap<String, Learned>,
}

/// What completed attempts took, by long name of the stage.
pub type History = BTreeMap<String, Learned>;

/// Whose durations: a stage's, of a group, for a complexity; each only with the one before.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Subject<'a> {
    pub stage: &'a str,
    pub group: Option<&'a str>,
    pub complexity: Option<&'a str>,
}

impl<'a> Subject<'a> {
    fn names(self) -> impl Iterator<Item = &'a str> {
        let narrower = [self.group, self.group.and(self.complexity)];
        [self.stage].into_iter().chain(narrower.into_iter().flatten())
    }
}

impl Learned {
    fn add(&mut self, ms: u64) {
        self.count += 1;
        let (new, old) = (i128::from(ms) * 1000, i128::from(self.mean_us));
        let mean = old + (new - old) / i128::from(self.count.min(MEAN_OF));
        self.mean_us = u64::try_from(mean).unwrap_or(u64::MAX);
        if self.durations_ms.len() >= DURATIONS_MAX {
            self.durations_ms.remove(0);
        }
        self.durations_ms.push(ms);
    }

    /// Returns the mean in milliseconds.
    #[must_use]
    pub const fn mean_ms(&self) -> u64 {
        self.mean_us / 1000
    }

    /// Returns the 95th percentile in milliseconds; 0 without durations.
    #[must_use]
    pub fn p95_ms(&self) -> u64 {
        let newest_first = self.durations_ms.iter().rev().enumerate();
        let mut weighed: Vec<(u64, f64)> =
            newest_first.map(|(age, ms)| (*ms, (-(age as f64) / HALF_LIFE).exp2())).collect();
        weighed.sort_unstable_by_key(|(ms, _)| *ms);
        let bound = weighed.iter().map(|(_, weight)| weight).sum::<f64>() * 0.95;
        let mut sum = 0.0;
        let found = weighed.iter().find(|(_, weight)| {
            sum += weight;
            sum >= bound
        });
        found.or(weighed.last()).map_or(0, |(ms, _)| *ms)
    }
}

/// Adds what a completed attempt took, to all that it is a case of.
pub fn learn(history: &mut History, subject: Subject<'_>, ms: u64) {
    let mut at = history;
    for name in subject.names() {
        if !at.contains_key(name) && at.len() >= NAMES_MAX {
            let least = at.iter().min_by_key(|(_, learned)| learned.count);
            let least = least.map(|(name, _)| name.clone());
            least.map(|name| at.remove(&name));
        }
        let learned = at.entry(name.to_owned()).or_default();
        learned.add(ms);
        at = &mut learned.below;
    }
}

/// Returns what is known of the subject: of the narrowest that has [`COUNT_MIN`] durations, else of
/// the stage; `None` when nothing of it has completed.
#[must_use]
pub fn learned<'a>(history: &'a History, subject: Subject<'_>) -> Option<&'a Learned> {
    let mut found = None;
    let mut at = history;
    for name in subject.names() {
        let Some(learned) = at.get(name) else { break };
        if found.is_none() || learned.count >= COUNT_MIN {
            found = Some(learned);
        }
        at = &learned.below;
    }
    found
}

/// Returns how long attempts of the stage take, in milliseconds, by group and complexity as far as
/// they are known; the configured estimate without history.
#[must_use]
fn usual_ms(state: &State, config: &Stage, group: Option<&str>, complexity: Option<&str>) -> u64 {
    let subject = Subject { stage: &config.name, group, complexity };
    if let Some(learned) = learned(&state.metrics.learned, subject) {
        return learned.mean_ms();
    }
    // What was journalled before there was a history by group.
    let sum = state.metrics.stage_ms.get(&config.name).filter(|sum| sum.count > 0);
    sum.map_or(config.estimate_ms, |sum| sum.total_ms / sum.count)
}

/// Returns how long `task` is expected to take in `stage` by an agent of `group`, in milliseconds:
/// its share of what a person said of the task, in the ratio of what its stages usually take; else
/// what the stage usually takes. `None`: any group; where only one serves the stage, that one.
#[must_use]
pub fn attempt_ms(state: &State, task: &Task, config: &Stage, group: Option<&str>) -> u64 {
    let complexity = Some(complexity::of(&task.spec).word());
    let usual = |config: &Stage, group: Option<&str>| {
        let group = group.or_else(|| sole_group(&state.settings, config));
        usual_ms(state, config, group, complexity)
    };
    let Some(all) = task.spec.estimate_ms else { return usual(config, group) };
    let (mut before, mut own, mut behind) = (0_u128, 0_u128, 0_u128);
    for stage in state.settings.stages.iter().filter(|stage| stage::applies(stage, task)) {
        let ms = u128::from(usual(stage, None));
        if stage.name == config.name {
            own = ms;
        } else if own == 0 {
            before += ms;
        } else {
            behind += ms;
        }
    }
    let sum = (before + own + behind).max(1);
    // Cut at both ends, so that the shares add up to the whole.
    let share = u128::from(all) * (before + own) / sum - u128::from(all) * before / sum;
    u64::try_from(share).unwrap_or(all)
}

fn sole_group<'a>(settings: &'a Settings, config: &Stage) -> Option<&'a str> {
    let mut serving = settings.agents.iter().filter(|group| group.stages.contains(&config.name));
    let first = serving.next()?;
    serving.next().is_none().then_some(first.name.as_str())
}

/// Returns how long `task` is expected to take in `stage`, whoever takes it, in milliseconds.
#[must_use]
pub fn stage_ms(state: &State, task: &Task, config: &Stage) -> u64 {
    attempt_ms(state, task, config, None)
}

/// Returns how long the stages that the task has still to pass are expected to take.
#[must_use]
pub fn left_ms(state: &State, task: &Task) -> u64 {
    let at = match &task.phase {
        TaskPhase::Waiting => None,
        TaskPhase::Ready { stage } | TaskPhase::Working { stage, .. } => Some(stage),
        TaskPhase::Blocked(block) => block.stage.as_ref(),
        TaskPhase::Landing { .. } | TaskPhase::Completed { .. } | TaskPhase::Cancelled { .. } => {
            return 0;
        }
    };
    let first = at.and_then(|at| state.settings.stage(at.as_str())).map_or(0, |(place, _)| place);
    let left = state.settings.stages[first..].iter().filter(|stage| stage::applies(stage, task));
    left.map(|stage| stage_ms(state, task, stage)).fold(0, u64::saturating_add)
}

/// Returns the group that the agent is of; `None` when the settings no longer have it.
#[must_use]
pub fn group_of<'a>(settings: &'a Settings, agent: &Agent) -> Option<&'a str> {
    let group = settings.agents.get(agent.group).filter(|_| !agent.is_retired);
    group.map(|group| group.name.as_str())
}

/// Returns how long an attempt at the stage may take, in milliseconds: what the stage says, else
/// twice what it is expected to take and at least one and a half times the 95th percentile, within
/// the stage's bounds; the upper bound while nothing is known.
#[must_use]
pub fn timeout_ms(state: &State, config: &Stage, task: Option<&Task>, group: Option<&str>) -> u64 {
    if let Some(timeout) = config.timeout_ms {
        return timeout;
    }
    let complexity = task.map(|task| complexity::of(&task.spec).word());
    let subject = Subject { stage: &config.name, group, complexity };
    let learned = learned(&state.metrics.learned, subject);
    let Some(learned) = learned.filter(|learned| learned.count >= COUNT_MIN) else {
        return config.timeout_max_ms;
    };
    // A person who gave a long task more time has given its attempts more time.
    let said = task.filter(|task| task.spec.estimate_ms.is_some());
    let said = said.map_or(0, |task| attempt_ms(state, task, config, group));
    let twice = learned.mean_ms().max(said).saturating_mul(2);
    let bound = learned.p95_ms().saturating_mul(3) / 2;
    // Not `clamp`: it panics on bounds the wrong way round.
    twice.max(bound).max(config.timeout_min_ms).min(config.timeout_max_ms)
}

/// Returns how long a live attempt is expected to go on, in milliseconds; 0 for one that is no task's.
#[must_use]
pub fn remaining_ms(state: &State, attempt: &Attempt, now: Time) -> u64 {
    let task = attempt.task.as_ref().and_then(|id| state.tasks.get(id));
    let ms =
        task.zip(attempt.stage()).map_or(0, |(task, stage)| of_stage(state, task, stage, None));
    let begun = attempt.started_at.unwrap_or(attempt.assigned_at);
    ms.saturating_sub(now.ms_since(begun)).max(ms / OVERDUE_PART)
}

/// Returns the same as [`attempt_ms`] for the stage of that name; 0 when there is none.
#[must_use]
pub fn of_stage(state: &State, task: &Task, stage: &StageName, group: Option<&str>) -> u64 {
    let config = state.settings.stage(stage.as_str());
    config.map_or(0, |(_, config)| attempt_ms(state, task, config, group))
}

#[cfg(test)]
mod tests {
    use super::{COUNT_MIN, DURATIONS_MAX, History, Learned, NAMES_MAX, Subject, learn, learned};

    fn subject<'a>(group: Option<&'a str>, complexity: Option<&'a str>) -> Subject<'a> {
        Subject { stage: "implementation", group, complexity }
    }

    fn history(entries: &[(Option<&str>, Option<&str>, u64, u64)]) -> History {
        let mut history = History::new();
        for (group, complexity, ms, count) in entries {
            (0..*count).for_each(|_| learn(&mut history, subject(*group, *complexity), *ms));
        }
        history
    }

    #[test]
    fn the_narrowest_that_has_seen_enough_is_asked() {
        let history = history(&[
            (Some("fast"), Some("simple"), 1_000, COUNT_MIN),
            (Some("fast"), Some("complex"), 9_000, COUNT_MIN - 1),
            (Some("slow"), None, 50_000, 1),
        ]);
        let mean = |group, complexity| {
            learned(&history, subject(group, complexity)).map_or(0, Learned::mean_ms)
        };
        assert_eq!(mean(Some("fast"), Some("simple")), 1_000);
        // Too few complex ones: all of the group count; too few of `slow`: all of the stage.
        assert_eq!(mean(Some("fast"), Some("complex")), (4 * 1_000 + 3 * 9_000) / 7);
        // A moving mean is rounded with each step.
        assert!(mean(Some("slow"), None).abs_diff((4 * 1_000 + 3 * 9_000 + 50_000) / 8) <= 1);
        assert_eq!(mean(None, Some("simple")), mean(None, None));
        assert_eq!(learned(&History::new(), subject(None, None)), None);
    }

    #[test]
    fn what_was_long_ago_fades_and_takes_no_more_room() {
        let mut learned = Learned::default();
        (0..1000).for_each(|_| learned.add(60_000));
        assert_eq!((learned.mean_ms(), learned.p95_ms()), (60_000, 60_000));
        (0..100).for_each(|_| learned.add(10_000));
        let mean = learned.mean_ms();
        assert!((10_000..10_100).contains(&mean), "{mean}");
        assert_eq!((learned.p95_ms(), learned.durations_ms.len()), (10_000, DURATIONS_MAX));
        learned.add(0);
        assert!(learned.mean_ms() < mean);
        let mut history = History::new();
        for n in 0..3 * NAMES_MAX {
            let name = format!("group-{n}");
            (0..=n).for_each(|_| learn(&mut history, subject(Some(&name), None), 5));
        }
        let groups = &history["implementation"].below;
        assert_eq!(groups.len(), NAMES_MAX);
        assert!(groups.contains_key("group-191") && !groups.contains_key("group-0"));
    }

    #[test]
    fn the_percentile_is_a_duration_that_19_of_20_do_not_exceed() {
        let mut learned = Learned::default();
        assert_eq!(learned.p95_ms(), 0);
        (0..DURATIONS_MAX as u64).for_each(|n| learned.add(if n % 32 == 0 { 900 } else { n }));
        // Two of 64 are outliers, old ones at that.
        assert!((60..=63).contains(&learned.p95_ms()), "{}", learned.p95_ms());
        (0..4).for_each(|_| learned.add(800));
        assert_eq!(learned.p95_ms(), 800);
    }
}
