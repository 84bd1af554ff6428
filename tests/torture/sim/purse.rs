//! What attempts cost, counted again from the journal's changes: no attempt begins while a bound is
//! used up, and nothing that was spent is forgotten.

use std::collections::BTreeMap;

use pipeline::machine::State;
use pipeline::machine::attempt::{Attempt, AttemptPhase, Class, Exit};
use pipeline::machine::change::{AttemptChange, Change, ProjectChange, TaskChange};
use pipeline::machine::id::{AttemptId, TaskId};
use pipeline::machine::purse::{Bound, Level};

use super::dice::Dice;

/// Returns what an attempt says that it cost, in millionths of a dollar: the same whenever asked.
pub fn cost_of(attempt: &AttemptId) -> Option<u64> {
    let hash = |seed: u64, byte: u8| seed.wrapping_mul(0x0100_0000_01b3) ^ u64::from(byte);
    let mut dice = Dice(attempt.as_str().bytes().fold(0, hash));
    (!dice.permille(250)).then(|| dice.below(300_000) as u64)
}

/// The count.
#[derive(Debug, Default)]
pub struct Purse {
    /// The run's monitor has not ended of itself.
    is_open: bool,
    attempts: u32,
    spent: u64,
    /// Since the task was last tried anew.
    tasks: BTreeMap<TaskId, u64>,
    /// By group: their sum and number.
    groups: BTreeMap<String, (u64, u64)>,
    /// What was told last of each bound.
    told: BTreeMap<Bound, (Level, u64)>,
}

impl Purse {
    /// Looks at a change before it counts.
    pub fn before(&mut self, state: &State, change: &Change) {
        match change {
            Change::Project(ProjectChange::MonitorStarted { .. }) => {
                if !self.is_open && !state.has_work() {
                    (self.attempts, self.spent) = (0, 0);
                    self.told.clear();
                }
                self.is_open = true;
            }
            Change::Project(ProjectChange::MonitorEnded { .. }) => self.is_open = false,
            Change::Project(ProjectChange::BudgetTold {
                bound,
                level,
                task: None,
                limit,
                used,
            }) => {
                assert_eq!(Level::of(*used, *limit), Some(*level), "I28: {change:?}");
                let old = self.told.insert(*bound, (*level, *limit));
                let is_new = old.is_none_or(|(old, of)| of != *limit || old < *level);
                assert!(is_new, "I28: {bound:?} is told again");
            }
            Change::Attempt(id, AttemptChange::Exited { exit: Some(exit), .. }) => {
                self.ended(state, id, exit);
            }
            Change::Attempt(_, AttemptChange::Added { attempt }) if attempt.is_work() => {
                self.may_begin(state, attempt);
                self.attempts += 1;
            }
            // To these their provider gave nothing.
            Change::Attempt(id, AttemptChange::Ended { outcome, .. })
                if state.attempts[id].is_work()
                    && matches!(outcome.class, Class::RateLimited | Class::Unauthorized) =>
            {
                self.attempts -= 1;
            }
            Change::Task(id, TaskChange::Tallied { tally }) => {
                if tally.forgiven_micros != state.tasks[id].tally.forgiven_micros {
                    self.tasks.remove(id);
                }
            }
            Change::Project(_) | Change::Task(..) | Change::Attempt(..) | Change::Lane(_) => {}
        }
    }

    fn ended(&mut self, state: &State, id: &AttemptId, exit: &Exit) {
        let attempt = &state.attempts[id];
        let Some(cost) = exit.usage.cost_usd_micros.filter(|_| attempt.is_work()) else { return };
        self.spent += cost;
        if let Some(task) = &attempt.task {
            *self.tasks.entry(task.clone()).or_default() += cost;
        }
        if let Some(group) = state.rules_of(attempt).group_of(&attempt.agent) {
            let (sum, count) = self.groups.entry(group.name.clone()).or_default();
            (*sum, *count) = (*sum + cost, *count + 1);
        }
    }

    /// What the attempts at work may cost.
    fn expected(&self, state: &State) -> u64 {
        let unended = [AttemptPhase::Preparing, AttemptPhase::Starting, AttemptPhase::Running];
        let live = state.attempts.values().filter(|it| it.is_work() && unended.contains(&it.phase));
        let groups = live.filter_map(|it| state.rules_of(it).group_of(&it.agent));
        let costs = groups.filter_map(|group| self.groups.get(&group.name));
        costs.map(|(sum, count)| sum / count).sum()
    }

    /// Returns true when a bound of the run keeps everything from beginning.
    pub fn is_used_up(&self, state: &State) -> bool {
        let limits = &state.settings.limits;
        let (attempts, cost) = (limits.attempts_per_run, limits.cost_usd_micros);
        (attempts > 0 && self.attempts >= attempts)
            || (cost > 0 && self.spent + self.expected(state) >= cost)
    }

    fn may_begin(&self, state: &State, new: &Attempt) {
        assert!(!self.is_used_up(state), "I28: `{}` begins beyond the run's bounds", new.id);
        let limit = state.settings.limits.cost_usd_per_task_micros;
        let spent = new.task.as_ref().and_then(|id| self.tasks.get(id)).copied().unwrap_or(0);
        assert!(limit == 0 || spent < limit, "I28: `{}` begins beyond its task's bound", new.id);
    }

    /// What the state says is what was counted.
    pub fn agrees(&self, state: &State) {
        let run = &state.run;
        assert_eq!((run.attempts, run.spent.cost_usd_micros), (self.attempts, self.spent), "I28");
    }
}
