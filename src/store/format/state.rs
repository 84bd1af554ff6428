//! The whole state on disk, as a checkpoint holds it.

use std::collections::BTreeMap;
use std::sync::Arc;

use serde::de::Deserializer;
use serde::ser::{Serialize, Serializer};
use serde_json::value::{RawValue, to_raw_value};

use crate::machine::State;
use crate::machine::agent::Agent;
use crate::machine::attempt::Attempt;
use crate::machine::event::StopKind;
use crate::machine::id::{AgentName, AttemptId, StageName, TaskId};
use crate::machine::index;
use crate::machine::lane::{Base, Landing};
use crate::machine::mode::{Orchestration, Rollout};
use crate::machine::settings::Settings;
use crate::machine::state::{Drain, Metrics, MonitorFacts, StageSum};
use crate::machine::task::Task;
use crate::machine::time::Time;

use super::FormatError;
use super::mirror::{Mirror, Read, Written, mirror, read_keyed};

/// Writes the state as a JSON object.
///
/// # Errors
/// [`FormatError::Encode`] for a number that JSON cannot hold, which validated settings have not.
pub fn encode_state(state: &State) -> Result<Box<RawValue>, FormatError> {
    to_raw_value(&state_value(state))
        .map_err(|source| FormatError::Encode { what: "state", source })
}

/// Returns the object that [`encode_state`] writes, to be serialised elsewhere without a copy.
#[must_use]
pub fn state_value(state: &State) -> impl Serialize + '_ {
    Written(state)
}

/// Reads what [`encode_state`] wrote, and makes the index.
///
/// # Errors
/// [`FormatError::Decode`] for anything else; its source names an unknown field.
pub fn decode_state(state: &RawValue) -> Result<State, FormatError> {
    decode_state_text(state.get())
}

/// Reads what [`encode_state`] wrote, from text that may not be JSON, and makes the index.
///
/// # Errors
/// [`FormatError::Decode`] for anything else; its source names an unknown field.
pub fn decode_state_text(text: &str) -> Result<State, FormatError> {
    let read = serde_json::from_str::<Read<State>>(text);
    let Read(mut state) = read.map_err(|source| FormatError::Decode { what: "state", source })?;
    index::rebuild(&mut state);
    Ok(state)
}

mirror! {
    struct State {
        settings: Arc<Settings>,
        orchestration: Orchestration,
        rollout: Rollout,
        is_paused: bool,
        stopping: Option<StopKind>,
        drain: Option<Drain>,
        current: Option<TaskId>,
        monitor: MonitorFacts,
        agents: BTreeMap<AgentName, Agent>,
        landing: Option<Landing>,
        base: Base,
        entries: u64,
        metrics: Metrics,
        attempts: BTreeMap<AttemptId, Attempt>,
        tasks: BTreeMap<TaskId, Task>,
    }
    derived { index }
}

mirror! { words StopKind { Leave, Drain, Now } }

mirror! { struct Drain { to: Orchestration, until: Time } }

mirror! { struct MonitorFacts {
    pid: u32,
    started_at: Time,
    attempts: u32,
    allows_red_base: bool,
    launch_window: Time,
    launches: u32,
} }

mirror! { struct Metrics {
    attempts: u64,
    retries: u64,
    handoff_ms: Vec<u64>,
    stage_ms: BTreeMap<String, StageSum>,
} }

mirror! { struct StageSum { count: u64, total_ms: u64, samples_ms: Vec<u64> } }

mirror! { struct Agent {
    name: AgentName,
    group: usize,
    stages: Vec<StageName>,
    capabilities: Vec<String>,
    is_paused: bool,
    is_retired: bool,
    attempt: Option<AttemptId>,
    slot: u32,
    completed: u64,
    failed: u64,
    busy_ms: u64,
    idle_since: Time,
} }

/// Mirrors a map as the array of its values, each of which carries its key.
macro_rules! mirror_keyed {
    ($($key:ident => $value:ident . $field:ident),+ $(,)?) => {$(
        impl Mirror for BTreeMap<$key, $value> {
            fn write<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
                to.collect_seq(self.values().map(Written))
            }

            fn read<'de, D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
                read_keyed(from, |value: &$value| &value.$field)
            }
        }
    )+};
}

mirror_keyed!(AgentName => Agent.name, AttemptId => Attempt.id, TaskId => Task.id);
