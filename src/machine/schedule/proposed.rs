//! What of a proposal can be carried out: the very checks that the own choice passes.

use std::collections::BTreeMap;

use super::Assignment;
use super::demand::Demand;
use super::load::Load;
use super::pool::Takers;
use crate::machine::agent::Agent;
use crate::machine::id::{AgentName, StageName, TaskId};
use crate::machine::proposal::Pair;
use crate::machine::provider::Pause;
use crate::machine::state::State;
use crate::machine::task::{Task, TaskPhase};

/// What came of a look at proposed pairs.
#[derive(Debug, Default)]
pub struct Examined {
    /// In the order proposed; no task and no agent twice.
    pub picked: Vec<Assignment>,
    /// What cannot be carried out, and why, in words.
    pub refused: Vec<(Pair, String)>,
    /// How many were looked at.
    pub examined: usize,
}

/// Looks at the pairs in their order, until `room` of them are picked. Each one counts for those
/// behind it.
#[must_use]
pub fn examine(state: &State, pairs: &[Pair], room: usize) -> Examined {
    let asked: Vec<Asked<'_>> = pairs.iter().map(|pair| Asked::of(state, pair)).collect();
    let mut load = Load::of(state);
    let (mut tasks, mut agents) = (BTreeMap::new(), BTreeMap::new());
    let mut found = Examined::default();
    for asked in &asked {
        if found.picked.len() >= room {
            break;
        }
        found.examined += 1;
        match asked.fault(&load, &tasks, &agents) {
            Ok((task, stage, demand)) => {
                let pair = asked.pair;
                load.start(&task.id, stage, demand);
                tasks.insert(&task.id, &pair.agent);
                agents.insert(&pair.agent, &task.id);
                let (task, agent) = (task.id.clone(), pair.agent.clone());
                found.picked.push(Assignment { task, stage: stage.clone(), agent });
            }
            Err(why) => found.refused.push((asked.pair.clone(), why)),
        }
    }
    found
}

/// A pair with what it is about.
struct Asked<'a> {
    state: &'a State,
    pair: &'a Pair,
    /// `None`: there is no such task, or it is not ready.
    ready: Option<(&'a Task, &'a StageName, Demand)>,
}

impl<'a> Asked<'a> {
    fn of(state: &'a State, pair: &'a Pair) -> Self {
        let ready = state.tasks.get(&pair.task).and_then(|task| match &task.phase {
            TaskPhase::Ready { stage } if is_startable(state, task) => {
                Some((task, stage, Demand::of(&state.settings, task, stage)))
            }
            TaskPhase::Ready { .. }
            | TaskPhase::Waiting
            | TaskPhase::Working { .. }
            | TaskPhase::Landing { .. }
            | TaskPhase::Blocked(_)
            | TaskPhase::Completed { .. }
            | TaskPhase::Cancelled { .. } => None,
        });
        Self { state, pair, ready }
    }

    /// Returns what is to start.
    ///
    /// # Errors
    /// Why it cannot, in words.
    fn fault<'b>(
        &'b self,
        load: &Load<'_>,
        tasks: &BTreeMap<&TaskId, &AgentName>,
        agents: &BTreeMap<&AgentName, &TaskId>,
    ) -> Result<(&'a Task, &'a StageName, &'b Demand), String> {
        let (state, pair) = (self.state, self.pair);
        let task = state.tasks.get(&pair.task).ok_or("there is no such task")?;
        let agent = state.agents.get(&pair.agent).ok_or("there is no such agent")?;
        if let Some(agent) = tasks.get(&pair.task) {
            return Err(format!("the task is given to {agent} already"));
        }
        if let Some(task) = agents.get(&pair.agent) {
            return Err(format!("the agent is given {task} already"));
        }
        let (task, stage, demand) = match &self.ready {
            Some((task, stage, demand)) => (*task, *stage, demand),
            None => return Err(not_ready(task).into()),
        };
        if !state.is_free(agent) {
            return Err(not_free(state, agent));
        }
        if let Some(first) = tried_first(state, agent, agents) {
            return Err(format!("agent {first} tries their provider first after a limit"));
        }
        if !agent.stages.contains(stage) {
            return Err(format!("the agent does not serve stage `{stage}`"));
        }
        let takers = Takers::of(state, stage, demand);
        if !takers.has(agent) {
            return Err(match takers.tier_min {
                0 => format!("the agent has not all of `{}`", demand.needs.join("`, `")),
                tier => format!("the agent lacks what is needed, or is below tier {tier}"),
            });
        }
        match load.obstacle(&task.id, stage, demand) {
            Some(obstacle) => Err(obstacle.words(state, demand)),
            None => Ok((task, stage, demand)),
        }
    }
}

/// Returns who was given something already of a provider where one is to try first.
fn tried_first<'a>(
    state: &State,
    agent: &Agent,
    agents: &BTreeMap<&'a AgentName, &TaskId>,
) -> Option<&'a AgentName> {
    state.pause_of(agent).filter(|pause| pause.is_to_be_tried())?;
    let provider = state.provider_of_agent(agent);
    let is_its = |name: &&AgentName| {
        let other = state.agents.get(*name);
        other.is_some_and(|other| state.provider_of_agent(other) == provider)
    };
    agents.keys().copied().find(is_its)
}

fn is_startable(state: &State, task: &Task) -> bool {
    task.backoff_until.is_none() && state.is_open(task)
}

fn not_ready(task: &Task) -> &'static str {
    match &task.phase {
        TaskPhase::Ready { .. } if task.is_held => "the task is held",
        TaskPhase::Ready { .. } if task.backoff_until.is_some() => {
            "the task pauses after a failure"
        }
        TaskPhase::Ready { .. } | TaskPhase::Waiting => "the task may not start yet",
        TaskPhase::Working { .. } => "the task is worked on already",
        TaskPhase::Landing { .. } => "the task has no stage left, it lands",
        TaskPhase::Blocked(_) => "the task is blocked",
        TaskPhase::Completed { .. } | TaskPhase::Cancelled { .. } => "the task is finished",
    }
}

fn not_free(state: &State, agent: &Agent) -> String {
    if let Some(attempt) = &agent.attempt {
        return format!("the agent works on {attempt}");
    }
    let what = if agent.is_retired {
        "has left"
    } else if agent.is_paused {
        "is paused"
    } else if state.refusal_of(agent).is_some() {
        "is refused by its provider"
    } else if state.pause_of(agent).is_some_and(Pause::is_on) {
        "waits for its provider's limit to end"
    } else if let Some(probe) = state.probe_before(agent) {
        return format!("the agent waits for {probe}, which tries their provider first");
    } else {
        "failed of late and cools down"
    };
    format!("the agent {what}")
}
