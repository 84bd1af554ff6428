//! Providers: whose models agents use, and when one gives nothing.
//!
//! A limit that is reached, or a key that is refused, is met by every agent of the provider, and by
//! none of another one. So it is the provider that pauses: its agents get nothing, their tasks may go
//! to others meanwhile, and no attempt of a task is used up by it.

use super::agent::Agent;
use super::attempt::{Attempt, Class, Outcome};
use super::id::{AgentName, StageName};
use super::retry::delay_ms;
use super::schedule::pool::{can_serve, may_take};
use super::settings::AgentGroup;
use super::state::State;
use super::time::Time;

/// The shortest pause in milliseconds, whatever a program named and the settings say: an attempt that
/// meets a limit is used up nowhere, so nothing else bounds how often one is made.
const PAUSE_MS_MIN: u64 = 1_000;
/// The longest pause that a program may name, in milliseconds: limits of a month are known.
const NAMED_MS_MAX: u64 = 32 * 24 * 60 * 60 * 1000;
/// Longest text kept of what a program said, in bytes.
const WHY_BYTES_MAX: usize = 512;

/// How a provider that reached a limit or refused a key stands; one that does well has none.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pause {
    /// Limits met in a row, those of attempts that ran beside each other counted once.
    pub limits: u32,
    /// When the last of them was met: attempts from before it tell nothing new.
    pub since: Time,
    /// Its agents get nothing before this moment; `None`: they do again.
    pub until: Option<Time>,
    /// It refused the key, or has no credit: its agents get nothing until a person says so.
    pub is_refused: bool,
    /// The agent that was told, to be named in `agent resume`.
    pub agent: AgentName,
    /// What its program said, in words.
    pub why: String,
}

impl Pause {
    /// Returns true while its agents get nothing.
    #[must_use]
    pub const fn is_on(&self) -> bool {
        self.is_refused || self.until.is_some()
    }

    /// Returns the command that ends it.
    #[must_use]
    pub fn command(&self) -> String {
        format!("pipeline agent resume {}", self.agent)
    }
}

impl State {
    /// Returns whose models the group uses: as the settings say, else its preset; without either it
    /// stands for itself.
    #[must_use]
    pub fn provider_of<'a>(&'a self, group: &'a AgentGroup) -> &'a str {
        if !group.provider.is_empty() {
            return &group.provider;
        }
        self.providers.get(&group.name).map_or(&group.name, String::as_str)
    }

    /// Returns whose models the agent uses; empty: its group has gone.
    #[must_use]
    pub fn provider_of_agent<'a>(&'a self, agent: &Agent) -> &'a str {
        self.group_of(agent).map_or("", |group| self.provider_of(group))
    }

    /// Returns how the provider of an agent stands; `None`: well.
    #[must_use]
    pub fn pause_of(&self, agent: &Agent) -> Option<&Pause> {
        if self.pauses.is_empty() {
            return None;
        }
        self.pause_of_group(self.group_of(agent)?)
    }

    /// Returns how the provider of a group stands; `None`: well.
    #[must_use]
    pub fn pause_of_group(&self, group: &AgentGroup) -> Option<&Pause> {
        self.pauses.get(self.provider_of(group))
    }

    /// Returns what an agent's provider refused; `None`: nothing.
    #[must_use]
    pub fn refusal_of(&self, agent: &Agent) -> Option<&Pause> {
        self.pause_of(agent).filter(|pause| pause.is_refused)
    }

    /// Returns true when the agent may get an attempt now.
    #[must_use]
    pub fn is_free(&self, agent: &Agent) -> bool {
        agent.is_free() && !self.pause_of(agent).is_some_and(Pause::is_on)
    }

    /// Returns true when the agent may get an attempt without a person's doing; it may be busy, cool
    /// down, or wait for a limit to end.
    #[must_use]
    pub fn may_work(&self, agent: &Agent) -> bool {
        agent.may_work() && self.refusal_of(agent).is_none()
    }

    /// Returns before when the agent gets nothing, though it may work; `None`: nothing keeps it.
    #[must_use]
    pub fn cools_until(&self, agent: &Agent) -> Option<Time> {
        let limit = self.pause_of(agent).and_then(|pause| pause.until);
        agent.breaker.until.max(limit)
    }

    /// Returns the first moment at which a limit ends.
    #[must_use]
    pub(super) fn limit_deadline(&self) -> Option<Time> {
        self.pauses.values().filter_map(|pause| pause.until).min()
    }
}

/// Returns how the provider of an attempt's agent stands after its end, when that changes it; within:
/// `None`: well.
pub(super) fn after(
    state: &State,
    random: u128,
    attempt: &Attempt,
    outcome: &Outcome,
    at: Time,
) -> Option<(String, Option<Pause>)> {
    let group = state.settings.group_of(&attempt.agent)?;
    let name = state.provider_of(group);
    let old = state.pauses.get(name);
    let is_new = old.is_none_or(|old| attempt.assigned_at >= old.since);
    let new = match outcome.class {
        Class::Unauthorized => Some(Pause {
            limits: old.map_or(0, |old| old.limits),
            since: at,
            until: None,
            is_refused: true,
            agent: attempt.agent.clone(),
            why: why(outcome),
        }),
        Class::RateLimited => limited(state, random, attempt, outcome, at)?,
        // It answered.
        Class::Completed
        | Class::Empty
        | Class::ChecksFailed
        | Class::ConflictLeft
        | Class::Blocked
        | Class::ChangesRequested => match old {
            Some(old) if old.is_on() || !is_new => return None,
            Some(_) | None => None,
        },
        Class::Incomplete
        | Class::Failed
        | Class::ContextExceeded
        | Class::TimedOut
        | Class::Silent
        | Class::Crashed
        | Class::Unstartable
        | Class::Lost
        | Class::Infrastructure
        | Class::Stopped
        | Class::Conflict
        | Class::LandingChecksFailed
        | Class::Dependency
        | Class::Budget => return None,
    };
    (new.as_ref() != old).then(|| (name.to_owned(), new))
}

/// Returns how a provider stands after a limit; `None`: as before.
fn limited(
    state: &State,
    random: u128,
    attempt: &Attempt,
    outcome: &Outcome,
    at: Time,
) -> Option<Option<Pause>> {
    let old = state.settings.group_of(&attempt.agent).and_then(|group| state.pause_of_group(group));
    if old.is_some_and(|old| old.is_refused) {
        return None;
    }
    let fault = attempt.exit.as_ref().and_then(|exit| exit.fault.as_ref());
    let is_new = old.is_none_or(|old| attempt.assigned_at >= old.since);
    let limits = old.map_or(0, |old| old.limits).saturating_add(u32::from(is_new)).max(1);
    let backoff = delay_ms(&state.settings.retry, limits, random).max(PAUSE_MS_MIN);
    let is_sensible = |until: &Time| *until > at && until.ms_since(at) <= NAMED_MS_MAX;
    let named = fault.and_then(|fault| fault.until).filter(is_sensible);
    let until = match named {
        // The first is believed; who names too short a time again and again is not.
        Some(named) if limits == 1 => named.max(at.plus_ms(PAUSE_MS_MIN)),
        Some(named) => named.max(at.plus_ms(backoff)),
        None => at.plus_ms(backoff),
    };
    let in_force = old.and_then(|old| old.until);
    if in_force.is_some_and(|in_force| !is_new && in_force >= until) {
        return None;
    }
    Some(Some(Pause {
        limits,
        since: at,
        until: Some(until),
        is_refused: false,
        agent: attempt.agent.clone(),
        why: why(outcome),
    }))
}

fn why(outcome: &Outcome) -> String {
    let line = outcome.reason.lines().find(|line| !line.trim().is_empty()).unwrap_or("no reason");
    let mut end = line.len().min(WHY_BYTES_MAX);
    while !line.is_char_boundary(end) {
        end -= 1;
    }
    line[..end].trim().to_owned()
}

/// Forgets the pauses of providers that no group has any more, and names in the others somebody who is
/// there.
pub(super) fn prune(state: &mut State) {
    let mut pauses = std::mem::take(&mut state.pauses);
    let groups = &state.settings.agents;
    pauses.retain(|name, _| groups.iter().any(|group| state.provider_of(group) == name));
    for (name, pause) in &mut pauses {
        let known = || state.agents.values().chain(state.dismissed.values());
        let is_its = |agent: &&Agent| {
            let group = state.settings.group_of(&agent.name);
            group.is_some_and(|group| state.provider_of(group) == name)
        };
        if !known().filter(is_its).any(|agent| agent.name == pause.agent) {
            // `agent resume` knows the provider's name too.
            let other = known().find(is_its).map(|agent| agent.name.clone());
            pause.agent = other.unwrap_or_else(|| AgentName::new(name));
        }
    }
    state.pauses = pauses;
}

/// Returns true when an agent that waits for a limit to end may take up work afterwards.
pub(super) fn is_awaited(state: &State) -> bool {
    let limited = |group: &AgentGroup| {
        let pause = state.pause_of_group(group);
        pause.is_some_and(|pause| !pause.is_refused && pause.until.is_some())
    };
    let mut demands = state
        .index
        .ready
        .iter()
        .flat_map(|(stage, queues)| queues.demands().map(move |(demand, _)| (stage, demand)));
    demands.any(|(stage, demand)| {
        let there = state.agents.values().any(|agent| {
            state.group_of(agent).is_some_and(limited)
                && agent.may_work()
                && may_take(state, agent, stage, demand)
        });
        let comes = || super::scale::may_bring(state, stage, &demand.needs, demand.tier_min);
        let is_possible =
            super::schedule::load::Obstacle::beyond(&state.settings, demand).is_none();
        is_possible && (there || comes())
    })
}

/// Returns that those who could serve the stage are refused by their provider, in words, with the
/// command to type; `None`: one is not, or there are none.
#[must_use]
pub fn refused(state: &State, stage: &StageName, needs: &[String]) -> Option<String> {
    let mut able = state.agents.values().filter(|agent| !agent.is_retired);
    let by_agent = able.find_map(|agent| {
        let pause = state.refusal_of(agent).filter(|_| can_serve(state, agent, stage, needs))?;
        Some((state.group_of(agent)?, pause))
    });
    let mut groups = state.settings.agents.iter();
    let (group, pause) = by_agent.or_else(|| {
        groups.find_map(|group| {
            let pause = state.pause_of_group(group).filter(|pause| pause.is_refused)?;
            group.can_serve(stage.as_str(), needs).then_some((group, pause))
        })
    })?;
    Some(format!("{}: {}", refusal_words(state.provider_of(group), pause), pause.command()))
}

/// Says what a provider refused.
#[must_use]
pub fn refusal_words(provider: &str, pause: &Pause) -> String {
    format!("`{provider}` refuses its agents ({})", pause.why)
}
