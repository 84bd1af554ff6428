//! Providers: whose models agents use, and when one gives nothing.
//!
//! A limit that is reached, or a key that is refused, is met by every agent of the provider, and by
//! none of another one. So it is the provider that pauses: its agents get nothing, their tasks may go
//! to others meanwhile, and no attempt of a task is used up by it.

use super::agent::Agent;
use super::attempt::{Attempt, Class, Outcome};
use super::id::{AgentName, AttemptId, StageName};
use super::retry::delay_ms;
use super::schedule::pool::{can_serve, may_take};
use super::settings::{AgentGroup, Retry};
use super::state::State;
use super::time::Time;

/// The shortest pause in milliseconds, whatever a program named and the settings say: an attempt that
/// meets a limit is used up nowhere, so nothing else bounds how often one is made.
const PAUSE_MS_MIN: u64 = 1_000;
/// Pauses that no program named grow to so many times the bound of `[retry]`: other failures pass by
/// themselves soon, a limit that is used up lasts for hours.
const CAP_FACTOR: u64 = 6;
/// It is asked again so long after the moment that was named, in milliseconds: clocks differ, and who
/// asks a moment too early is told of the next one.
const MARGIN_MS: u64 = 5_000;
/// Who tries first has been served after so long, in milliseconds: its program would have met the limit
/// at once.
pub const PROBE_MS: u64 = 5 * 60_000;
/// The longest pause that a program may name, in milliseconds: limits of a month are known.
const NAMED_MS_MAX: u64 = 32 * 24 * 60 * 60 * 1000;
/// Longest text kept of what a program said, in bytes.
const WHY_BYTES_MAX: usize = 512;

/// How a provider that reached a limit or refused a key stands; one that does well has none.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pause {
    /// Limits met in a row, those of attempts that ran beside each other counted once; 0 without a
    /// refusal: a person has said that it serves its agents again.
    pub limits: u32,
    /// When the last of them was met, or a person said so: attempts from before it tell nothing new.
    pub since: Time,
    /// Its agents get nothing before this moment; `None`: they do again.
    pub until: Option<Time>,
    /// It refused the key, or has no credit: its agents get nothing until a person says so.
    pub is_refused: bool,
    /// The agent that was told, to be named in `agent resume`.
    pub agent: AgentName,
    /// What its program said, in words.
    pub why: String,
    /// When the limit ends nobody said, or not rightly: afterwards one attempt tries first.
    pub is_guessed: bool,
    /// The attempt that tries first: the others wait until it is through. It lives.
    pub probe: Option<AttemptId>,
}

impl Pause {
    /// Returns true while its agents get nothing.
    #[must_use]
    pub const fn is_on(&self) -> bool {
        self.is_refused || self.until.is_some()
    }

    /// Returns true while another one of its agents gets nothing.
    #[must_use]
    pub const fn is_closed(&self) -> bool {
        self.is_on() || self.probe.is_some()
    }

    /// Returns true when the next attempt is the one that tries first.
    #[must_use]
    pub const fn is_to_be_tried(&self) -> bool {
        self.is_guessed && !self.is_closed()
    }

    /// Returns true when a person said that it serves its agents again, and nothing has happened since.
    #[must_use]
    pub const fn is_resumed(&self) -> bool {
        self.limits == 0 && !self.is_refused
    }

    /// Returns it as it is after a person said that it serves its agents again: what attempts from
    /// before meet is not held against it.
    pub(super) fn resumed(&self, at: Time) -> Self {
        let (limits, until, is_refused, is_guessed, probe) = (0, None, false, false, None);
        Self { limits, since: at, until, is_refused, is_guessed, probe, ..self.clone() }
    }

    /// Returns it with all of its agents let in.
    pub(super) fn opened(&self) -> Self {
        Self { is_guessed: false, probe: None, ..self.clone() }
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
        agent.is_free() && !self.pause_of(agent).is_some_and(Pause::is_closed)
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

    /// Returns the attempt that tries first, and that the agent waits for; `None`: it waits for none.
    #[must_use]
    pub fn probe_before<'a>(&'a self, agent: &Agent) -> Option<&'a AttemptId> {
        let probe = self.pause_of(agent)?.probe.as_ref();
        probe.filter(|probe| agent.attempt.as_ref() != Some(probe))
    }

    /// Returns the first moment at which a limit ends, or who tries first is through.
    #[must_use]
    pub(super) fn limit_deadline(&self) -> Option<Time> {
        let due = |pause: &Pause| pause.until.or_else(|| served_at(self, pause));
        self.pauses.values().filter_map(due).min()
    }
}

/// Returns when whoever tries first has run for so long that the provider serves it; `None`: nobody
/// tries, or its program has not begun.
fn served_at(state: &State, pause: &Pause) -> Option<Time> {
    let probe = state.attempts.get(pause.probe.as_ref()?)?;
    Some(probe.started_at?.plus_ms(PROBE_MS))
}

/// Returns how a provider stands from now on by the clock alone; `None`: as before.
pub(super) fn by_time(state: &State, pause: &Pause, at: Time) -> Option<Pause> {
    if pause.until.is_some_and(|until| until <= at) {
        return Some(Pause { until: None, ..pause.clone() });
    }
    served_at(state, pause).is_some_and(|served| served <= at).then(|| pause.opened())
}

/// Notes that an attempt begins: where one is to try first, it is that one.
pub(super) fn begin(state: &mut State, attempt: &Attempt) {
    let Some(group) = state.settings.group_of(&attempt.agent) else { return };
    let name = state.provider_of(group).to_owned();
    let Some(pause) = state.pauses.get_mut(&name) else { return };
    // A person's word comes with the clock of the command, which may be ahead of the monitor's: who
    // begins after it has heard it.
    pause.since = pause.since.min(attempt.assigned_at);
    if pause.is_to_be_tried() {
        pause.probe = Some(attempt.id.clone());
    }
}

/// Notes that an attempt is over; unless that told how the provider stands, another one tries.
pub(super) fn end(state: &mut State, id: &AttemptId) {
    for pause in state.pauses.values_mut().filter(|pause| pause.probe.as_ref() == Some(id)) {
        pause.probe = None;
    }
}

/// Asserts that whoever tries first is at work.
pub(super) fn check(state: &State) {
    for (name, pause) in &state.pauses {
        let Some(probe) = &pause.probe else { continue };
        assert!(pause.is_guessed, "`{probe}` tries first for `{name}`, whose limit's end is known");
        let attempt = state.attempts.get(probe);
        assert!(attempt.is_some_and(Attempt::is_work), "`{probe}` tries first for `{name}`");
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
    // It had another key, or another account, than those that a person let go on.
    if !is_new && old.is_some_and(Pause::is_resumed) {
        return None;
    }
    let new = match outcome.class {
        Class::Unauthorized => Some(Pause {
            limits: old.map_or(0, |old| old.limits),
            since: at,
            until: None,
            is_refused: true,
            agent: attempt.agent.clone(),
            why: why(outcome),
            is_guessed: false,
            probe: None,
        }),
        Class::RateLimited => limited(state, random, attempt, outcome, at)?,
        // It answered.
        Class::Completed
        | Class::Empty
        | Class::ChecksFailed
        | Class::ConflictLeft
        | Class::Blocked
        | Class::ChangesRequested => match old {
            Some(old) if old.is_on() || !is_new || old.is_resumed() => return None,
            // Another model of it, or another account with it, has limits of its own.
            Some(old) if is_of_others(state, old, group) => Some(old.opened()),
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

/// Returns true when agents of another group met the limit.
fn is_of_others(state: &State, pause: &Pause, group: &AgentGroup) -> bool {
    state.settings.group_of(&pause.agent).is_some_and(|met| met.name != group.name)
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
    let retry = &state.settings.retry;
    let retry = Retry { max_ms: retry.max_ms.saturating_mul(CAP_FACTOR), ..retry.clone() };
    let backoff = at.plus_ms(delay_ms(&retry, limits, random).max(PAUSE_MS_MIN));
    let is_sensible = |until: &Time| *until > at && until.ms_since(at) <= NAMED_MS_MAX;
    let named = fault.and_then(|fault| fault.until).filter(is_sensible);
    let named = named.map(|named| named.plus_ms(MARGIN_MS));
    // The first is believed; who names too short a time again and again is not.
    let is_guessed = named.is_none() || limits > 1;
    let until = match named {
        Some(named) if is_guessed => named.max(backoff),
        Some(named) => named,
        None => backoff,
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
        is_guessed,
        probe: None,
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
