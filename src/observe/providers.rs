//! Which providers give nothing, until when, and what a person can do about it.

use std::collections::BTreeMap;

use serde::Serialize;

use super::words::Stamp;
use crate::machine::State;
use crate::machine::provider::Pause;

/// How a provider stands that gives nothing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum ProviderStatus {
    /// It reached a limit, and is asked again when that ends.
    RateLimited,
    /// It refused the key, or there is no credit: a person must see to it.
    Unauthorized,
}

/// A provider as JSON shows it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct ProviderEntry<'a> {
    pub status: ProviderStatus,
    /// When it is asked again; `None`: when a person says so.
    pub until: Option<Stamp>,
    /// In its own words.
    pub why: &'a str,
    /// Those who use its models.
    pub agents: Vec<&'a str>,
    /// The command to type.
    pub next: String,
}

/// Returns the providers that give nothing now. Cost: nothing where there are none, else agents.
#[must_use]
pub fn entries(state: &State) -> BTreeMap<&str, ProviderEntry<'_>> {
    let shut = state.pauses.iter().filter(|(_, pause)| pause.is_on());
    shut.map(|(name, pause)| (name.as_str(), entry(state, name, pause))).collect()
}

fn entry<'a>(state: &'a State, name: &str, pause: &'a Pause) -> ProviderEntry<'a> {
    let status = match pause.is_refused {
        true => ProviderStatus::Unauthorized,
        false => ProviderStatus::RateLimited,
    };
    let its = state.agents.values().filter(|agent| state.provider_of_agent(agent) == name);
    ProviderEntry {
        status,
        until: pause.until.map(Stamp),
        why: &pause.why,
        agents: its.map(|agent| agent.name.as_str()).collect(),
        next: pause.command(),
    }
}
