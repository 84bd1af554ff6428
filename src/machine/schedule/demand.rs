//! What a task's stage asks for: of agents, of what is shared, and of paths.

use std::collections::BTreeSet;
use std::ops::Bound::{Excluded, Unbounded};

use crate::machine::amount::{self, Amounts};
use crate::machine::attempt::Attempt;
use crate::machine::id::StageName;
use crate::machine::mode::{Isolation, Orchestration};
use crate::machine::settings::{AgentGroup, Settings, Stage};
use crate::machine::task::Task;

/// Tasks of one demand may stand for each other: where one cannot start, none can.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Default)]
pub struct Demand {
    /// Capabilities, sorted.
    pub needs: Vec<String>,
    /// The task's own amounts and the stage's; where both name one, the greater.
    pub resources: Amounts,
    /// Path globs that nothing else may change meanwhile; empty: not known, or nothing is changed.
    pub touches: Vec<String>,
    /// `touches` is what the branch has changed so far, and may become more.
    pub is_so_far: bool,
    /// Its branch is to change something and has changed nothing yet: it can wait for the branches of
    /// others to land, and then begins on top of them.
    pub is_fresh: bool,
    pub is_exclusive: bool,
    /// The tier of agents that is asked for after failures, or a higher one; 0: any. By the settings
    /// alone: who is there is looked at by `Takers`.
    pub tier_min: u32,
}

impl Demand {
    /// Returns what `task` asks for in `stage`.
    #[must_use]
    pub fn of(settings: &Settings, task: &Task, stage: &StageName) -> Self {
        let config = settings.stage(stage.as_str()).map(|(_, config)| config);
        let mut resources = config.map_or_else(Amounts::new, |config| config.resources.clone());
        for (name, text) in &task.spec.resources {
            // What cannot be read was refused when it was given.
            let amount = amount::parse(name, text).unwrap_or(0);
            let most = resources.entry(name.clone()).or_default();
            *most = amount.max(*most);
        }
        let is_changing = config.is_none_or(|config| is_changing(settings, config));
        let is_so_far = is_changing && task.spec.touches.is_empty() && !task.changed.is_empty();
        let touches = if is_so_far { &task.changed } else { &task.spec.touches };
        Self {
            needs: task.spec.needs.clone(),
            resources,
            touches: if is_changing { touches.clone() } else { Vec::new() },
            is_so_far,
            is_fresh: is_changing && task.changed.is_empty(),
            is_exclusive: task.spec.is_exclusive,
            tier_min: tier_min(settings, task, stage),
        }
    }

    /// Returns what an attempt holds that begins with it: nothing is waited for any more.
    #[must_use]
    pub fn begun(self) -> Self {
        Self { is_fresh: false, ..self }
    }

    /// Returns true when it names what it will change and can wait until others have landed there.
    #[must_use]
    pub const fn waits_for_branches(&self) -> bool {
        self.is_fresh && !self.touches.is_empty()
    }
}

/// Returns the tier that is asked for, 0 for any: after each `escalate_after` failures at the stage the
/// next one above that of the attempt which failed last then, of the tiers that could take the task;
/// while there is a higher one.
fn tier_min(settings: &Settings, task: &Task, stage: &StageName) -> u32 {
    let (failures, every) = (task.tally.stage_failures, settings.scheduler.escalate_after.max(1));
    if failures < every || task.stage() != Some(stage) {
        return 0;
    }
    let able = |group: &&AgentGroup| group.can_serve(stage.as_str(), &task.spec.needs);
    let groups = settings.agents.iter().filter(able);
    let tiers: BTreeSet<u32> = groups.map(|group| group.tier).collect();
    let (Some(lowest), Some(highest)) = (tiers.first(), tiers.last()) else { return 0 };
    if lowest == highest {
        return 0;
    }
    let is_failed = |old: &&Attempt| {
        let is_its = old.is_work() && old.stage() == Some(stage);
        is_its && old.outcome.as_ref().is_some_and(|outcome| outcome.class.is_failed_try())
    };
    let mut failed = task.history.iter().rev().filter(is_failed);
    let last = failed.nth((failures % every) as usize);
    let group = last.and_then(|old| settings.group_of(&old.agent));
    // Of a group that is gone nothing is known.
    let failed_at = group.map_or(*lowest, |group| group.tier);
    *tiers.range((Excluded(failed_at), Unbounded)).next().unwrap_or(highest)
}

/// Returns true when attempts of the stage change files that others may change too.
#[must_use]
pub fn is_changing(settings: &Settings, stage: &Stage) -> bool {
    stage.must_change || settings.project.isolation == Isolation::None
}

/// Returns true when nothing else may run beside: a person said so, or in hybrid mode what it may
/// clash with is not known.
#[must_use]
pub fn is_alone(
    settings: &Settings,
    mode: Orchestration,
    stage: &StageName,
    demand: &Demand,
) -> bool {
    let config = settings.stage(stage.as_str()).map(|(_, config)| config);
    let is_unknown = (demand.touches.is_empty() || demand.is_so_far)
        && config.is_none_or(|config| is_changing(settings, config));
    demand.is_exclusive || (mode == Orchestration::Hybrid && is_unknown)
}
