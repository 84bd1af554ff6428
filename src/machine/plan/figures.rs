//! What a schedule amounts to.

use std::collections::BTreeMap;

use super::forecast::Forecast;
use crate::machine::id::{AgentName, StageName, TaskId};
use crate::machine::settings::AgentGroup;
use crate::machine::state::State;

/// What is computed from a run ahead.
pub(super) struct Figures {
    pub(super) waves: Vec<Vec<TaskId>>,
    pub(super) critical_path: Vec<TaskId>,
    pub(super) critical_ms: u64,
    pub(super) work_ms: u64,
    pub(super) workers: usize,
    pub(super) lower_bound_ms: u64,
    pub(super) bottleneck: Option<(StageName, u64)>,
    pub(super) busy_ms: BTreeMap<AgentName, u64>,
}

/// A planned task in the chain that leads to its end.
#[derive(Default, Clone)]
struct Link<'a> {
    wave: usize,
    /// Its own work and the longest chain of work before it.
    chain_ms: u64,
    before: Option<&'a TaskId>,
}

impl Figures {
    /// Computes them. Cost: attempts and dependencies of the plan; no recursion.
    pub(super) fn of(forecast: &Forecast) -> Self {
        let mut busy_ms: BTreeMap<AgentName, u64> =
            forecast.end.agents.keys().map(|name| (name.clone(), 0)).collect();
        for entry in &forecast.schedule {
            *busy_ms.entry(entry.agent.clone()).or_default() += entry.end_ms - entry.start_ms;
        }
        let links = links(forecast);
        let (critical_path, critical_ms) = critical(&links);
        let waves = links.values().map(|link| link.wave + 1).max().unwrap_or(0);
        let mut waves: Vec<Vec<TaskId>> = vec![Vec::new(); waves];
        links.iter().for_each(|(id, link)| waves[link.wave].push((*id).clone()));
        let workers = workers(&forecast.end, |_| true);
        let (work_ms, stages) = work(forecast);
        let even_ms = work_ms.div_ceil(workers.max(1) as u64);
        let bottleneck = stages.into_iter().max_by_key(|(_, ms)| *ms);
        Self {
            waves,
            critical_path,
            critical_ms,
            work_ms,
            workers,
            lower_bound_ms: critical_ms.max(even_ms),
            bottleneck,
            busy_ms,
        }
    }
}

/// Returns how many agents may be given work, of groups for which `is_meant`: those that come when
/// they are needed among them, though they have left again when the plan ends.
fn workers(end: &State, is_meant: impl Fn(&[String]) -> bool) -> usize {
    let of = |group: &AgentGroup| {
        let may_come = end.is_scaling(group).then_some(group.count);
        let numbers = 1..=may_come.unwrap_or(end.target(group).count);
        numbers.filter(|number| is_worker(end, &group.member(*number))).count()
    };
    end.settings.agents.iter().filter(|group| is_meant(&group.stages)).map(of).sum()
}

/// Returns true for agents that may be given work.
fn is_worker(end: &State, name: &AgentName) -> bool {
    let may_come = end.settings.group_of(name).is_some_and(|group| end.is_scaling(group));
    match end.agents.get(name) {
        Some(agent) => {
            !agent.is_paused && end.refusal_of(agent).is_none() && (may_come || !agent.is_retired)
        }
        None => may_come && end.dismissed.get(name).is_none_or(|agent| !agent.is_paused),
    }
}

/// Returns the work of those who can be given any, and of each stage that for each who serves it.
fn work(forecast: &Forecast) -> (u64, BTreeMap<StageName, u64>) {
    let mut stages: BTreeMap<StageName, u64> = BTreeMap::new();
    for entry in forecast.schedule.iter().filter(|entry| is_worker(&forecast.end, &entry.agent)) {
        *stages.entry(entry.stage.clone()).or_default() += entry.least_ms;
    }
    let all = stages.values().sum();
    for (stage, ms) in &mut stages {
        let serves = |stages: &[String]| stages.iter().any(|name| name == stage.as_str());
        *ms = ms.div_ceil(workers(&forecast.end, serves).max(1) as u64);
    }
    (all, stages)
}

/// Ties each planned task to the one that its chain goes through. A task begins only when those
/// before it are done, so the schedule's order is one in which all of them are known.
fn links(forecast: &Forecast) -> BTreeMap<&TaskId, Link<'_>> {
    let mut own_ms: BTreeMap<&TaskId, u64> = BTreeMap::new();
    for entry in &forecast.schedule {
        *own_ms.entry(&entry.task).or_default() += entry.least_ms;
    }
    let mut links: BTreeMap<&TaskId, Link<'_>> = BTreeMap::new();
    for entry in &forecast.schedule {
        if links.contains_key(&entry.task) {
            continue;
        }
        let task = &forecast.end.tasks[&entry.task];
        let mut link = Link::default();
        for dep in &task.spec.depends_on {
            let Some((dep, before)) = links.get_key_value(dep) else { continue };
            link.wave = link.wave.max(before.wave + 1);
            if link.before.is_none() || before.chain_ms > link.chain_ms {
                (link.chain_ms, link.before) = (before.chain_ms, Some(*dep));
            }
        }
        link.chain_ms += own_ms[&entry.task];
        links.insert(&entry.task, link);
    }
    links
}

/// Returns the chain that takes longest.
fn critical(links: &BTreeMap<&TaskId, Link<'_>>) -> (Vec<TaskId>, u64) {
    let last = links.iter().max_by_key(|(_, link)| link.chain_ms);
    let Some((last, link)) = last else { return (Vec::new(), 0) };
    let (mut path, mut at) = (vec![(*last).clone()], link.before);
    while let Some(id) = at {
        path.push(id.clone());
        at = links[id].before;
    }
    path.reverse();
    (path, link.chain_ms)
}
