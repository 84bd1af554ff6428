//! Who goes first.

use crate::machine::settings::Policy;
use crate::machine::task::{Priority, Task};

/// Tasks with this label go before all that are not in front: they mend what was broken.
pub const REGRESSION: &str = "regression";

/// Place in a ready queue; the least goes first: what is in front, then regressions, then by
/// priority, then by policy, then by age.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Rank {
    is_behind_front: bool,
    is_behind_regressions: bool,
    lack_of_priority: u8,
    by_policy: u64,
    entry: u64,
}

impl Rank {
    /// Returns the task's place under `policy`.
    #[must_use]
    pub fn of(task: &Task, policy: Policy) -> Self {
        let lack = match task.spec.priority {
            Priority::Critical => 0,
            Priority::High => 1,
            Priority::Medium => 2,
            Priority::Low => 3,
        };
        let lack_of_priority = if policy == Policy::Fifo { 0 } else { lack };
        let by_policy = match policy {
            Policy::CriticalPath => u64::MAX - task.weight.tail_ms,
            Policy::Shortest => task.weight.own_ms,
            Policy::Priority | Policy::Fifo => 0,
        };
        Self {
            is_behind_front: !task.is_front,
            is_behind_regressions: !task.spec.labels.iter().any(|label| label == REGRESSION),
            lack_of_priority,
            by_policy,
            entry: task.entry,
        }
    }

    /// Returns the task's order of creation.
    #[must_use]
    pub const fn entry(&self) -> u64 {
        self.entry
    }
}
