//! What each agent does.

use serde::Serialize;

use super::words::Stamp;
use crate::machine::State;
use crate::machine::agent::Agent;
use crate::machine::mode::Orchestration;
use crate::machine::provider::Pause;
use crate::machine::time::Time;

/// What an agent is at.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum AgentStatus {
    Idle,
    /// Has an attempt, also when it is paused: it gets nothing new then.
    Working,
    Paused,
    /// Failed again and again, or its provider has reached a limit: gets nothing for a while.
    Cooling,
    /// Cannot be started.
    Failed,
}

impl AgentStatus {
    /// Returns the word used in JSON and text.
    #[must_use]
    pub const fn word(self) -> &'static str {
        match self {
            Self::Idle => "idle",
            Self::Working => "working",
            Self::Paused => "paused",
            Self::Cooling => "cooling",
            Self::Failed => "failed",
        }
    }
}

/// An agent as JSON shows it.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct AgentEntry<'a> {
    pub stages: Vec<&'a str>,
    pub status: AgentStatus,
    /// When the status ends by itself; `None`: it does not.
    pub until: Option<Stamp>,
    /// Of the attempt it has.
    pub stage: Option<&'a str>,
    /// In sequential mode every agent shows the current task.
    pub current_task: Option<&'a str>,
    pub attempt: Option<&'a str>,
    /// Attempts.
    pub completed: u64,
    /// Attempts.
    pub failed: u64,
    /// The attempt it has included, in seconds.
    pub busy_s: f64,
    /// Why it cannot be started, or what its provider refused.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub why: Option<&'a str>,
    /// Its provider, and what that refused.
    #[serde(skip)]
    pub refused: Option<(&'a str, &'a Pause)>,
    /// How long it has had the attempt, in milliseconds.
    #[serde(skip)]
    pub at_it_ms: Option<u64>,
    /// How much of the status is left, in milliseconds, where it ends by itself.
    #[serde(skip)]
    pub left_ms: Option<u64>,
    /// Why it leaves after its attempt, in words; `None`: it does not.
    #[serde(skip)]
    pub leaves: Option<&'static str>,
}

/// Returns an agent's entry at the moment given.
#[must_use]
pub fn entry<'a>(state: &'a State, agent: &'a Agent, at: Time) -> AgentEntry<'a> {
    let attempt = agent.attempt.as_ref().and_then(|id| state.attempts.get(id));
    let current = match state.orchestration {
        Orchestration::Sequential => state.current.as_ref(),
        Orchestration::Parallel | Orchestration::Hybrid => None,
    };
    let task = attempt.and_then(|attempt| attempt.task.as_ref()).or(current);
    let refusal = state.refusal_of(agent);
    let cools = state.cools_until(agent).filter(|until| *until > at);
    let is_cooling = cools.is_some() || state.probe_before(agent).is_some();
    let is_paused = agent.is_paused || refusal.is_some();
    let status = match (attempt, is_paused, &agent.unusable, is_cooling) {
        (Some(_), ..) => AgentStatus::Working,
        (None, true, ..) => AgentStatus::Paused,
        (None, false, Some(_), _) => AgentStatus::Failed,
        (None, false, None, true) => AgentStatus::Cooling,
        (None, false, None, false) => AgentStatus::Idle,
    };
    let until = cools.filter(|_| status == AgentStatus::Cooling);
    let at_it_ms = attempt.map(|attempt| at.ms_since(attempt.assigned_at));
    AgentEntry {
        stages: agent.stages.iter().map(|stage| stage.as_str()).collect(),
        status,
        until: until.map(Stamp),
        stage: attempt.and_then(|attempt| attempt.stage()).map(|stage| stage.as_str()),
        current_task: task.map(|id| id.as_str()),
        attempt: attempt.map(|attempt| attempt.id.as_str()),
        completed: agent.completed,
        failed: agent.failed,
        busy_s: (agent.busy_ms + at_it_ms.unwrap_or(0)) as f64 / 1000.0,
        why: agent.unusable.as_deref().or(refusal.map(|pause| pause.why.as_str())),
        refused: refusal.map(|pause| (state.provider_of_agent(agent), pause)),
        at_it_ms,
        left_ms: until.map(|until| until.ms_since(at)),
        leaves: agent.is_retired.then(|| leaves(state, agent)),
    }
}

fn leaves(state: &State, agent: &Agent) -> &'static str {
    match state.settings.group_of(&agent.name) {
        Some(_) => "scaled down",
        None => "no longer in the settings",
    }
}

#[cfg(test)]
mod tests {
    use super::{AgentStatus, entry};
    use crate::machine::id::AgentName;
    use crate::machine::mode::Orchestration;
    use crate::observe::support::{End, Pipeline, settings, task, with_second};

    #[test]
    fn in_sequential_mode_all_show_the_current_task_and_one_works() {
        let mut sequential = settings();
        sequential.project.orchestration = Orchestration::Sequential;
        let mut pipeline = Pipeline::started(sequential, vec![task("A", &[]), task("B", &[])]);
        pipeline.pause_agent("test");
        let at = pipeline.now.plus_ms(1_500);
        let agents = pipeline.state.agents.values();
        let all: Vec<_> = agents.map(|agent| entry(&pipeline.state, agent, at)).collect();
        assert!(all.iter().all(|agent| agent.current_task == Some("A")));
        let working: Vec<_> =
            all.iter().filter(|agent| agent.status == AgentStatus::Working).collect();
        assert_eq!(working.len(), 1);
        assert_eq!(working[0].attempt, Some("A.arch.1"));
        assert_eq!(working[0].stage, Some("architect"));
        assert!((working[0].busy_s - 1.5).abs() < 1e-9);
        let test = entry(&pipeline.state, &pipeline.state.agents[&AgentName::new("test")], at);
        assert_eq!(test.status, AgentStatus::Paused);
    }

    #[test]
    fn an_agent_that_cools_down_says_until_when() {
        let mut pipeline = with_second(&["A", "B", "C"]);
        for attempt in ["A.arch.1", "B.arch.1", "C.arch.1"] {
            pipeline.run(attempt, End::Status(1));
            pipeline.turn();
        }
        let agent = &pipeline.state.agents[&AgentName::new("architect")];
        let shown = entry(&pipeline.state, agent, pipeline.now);
        let until = shown.until.map(|until| until.0);
        assert_eq!((shown.status.word(), until), ("cooling", Some(pipeline.now.plus_ms(60_000))));
        assert_eq!(
            entry(&pipeline.state, agent, pipeline.now.plus_ms(1_000)).left_ms,
            Some(59_000)
        );
    }
}
