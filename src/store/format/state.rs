//! The whole state on disk, as a checkpoint holds it.

use std::collections::BTreeMap;
use std::sync::Arc;

use serde::de::Deserializer;
use serde::ser::{Serialize, Serializer};
use serde_json::value::{RawValue, to_raw_value};

use crate::machine::State;
use crate::machine::agent::Agent;
use crate::machine::attempt::Attempt;
use crate::machine::breaker::Breaker;
use crate::machine::crew::Target;
use crate::machine::estimate::Learned;
use crate::machine::event::StopKind;
use crate::machine::id::{AgentName, AttemptId, StageName, TaskId};
use crate::machine::index;
use crate::machine::lane::{Base, Landing};
use crate::machine::mode::{Orchestration, Rollout};
use crate::machine::outside::Outside;
use crate::machine::proposal::{Pair, Proposal, ProposalFault, ProposalPhase};
use crate::machine::provider::Pause;
use crate::machine::purse::{Bound, Level, Run, Spent, Told};
use crate::machine::rollout::Trial;
use crate::machine::settings::Settings;
use crate::machine::state::{Drain, Metrics, MonitorFacts, StageSum};
use crate::machine::task::Task;
use crate::machine::time::Time;
use crate::machine::weigh::Weighing;

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
    optional {
        collecting: Option<TaskId>,
        shortage: Option<String>,
        overload: Option<String>,
        outside: Outside,
        held: BTreeMap<String, String>,
        pinned: Vec<Arc<Settings>>,
        weighing: Weighing,
        proposal: Proposal,
        targets: BTreeMap<String, Target>,
        dismissed: BTreeMap<AgentName, Agent>,
        run: Run,
        providers: BTreeMap<String, String>,
        pauses: BTreeMap<String, Pause>,
        trial: Trial,
    }
    derived { index }
}

mirror! { struct Trial {
    since: Time,
    why: String,
    completed: u64,
    failed: u64,
    agreed: u64,
    differed: u64,
    landings: Vec<bool>,
    fell_back_at: Option<Time>,
} }

mirror! { struct Weighing { at: Time, altered: u64, completed: u64 } }

mirror! { struct Proposal {
    number: u64,
    phase: ProposalPhase,
    declined_since: Option<Time>,
    faults: u32,
    told: Vec<ProposalFault>,
    until: Option<Time>,
} }

mirror! { enum ProposalPhase {
    Rest,
    Asked,
    Answered { at: Time, pairs: Vec<Pair>, has_taken: bool },
    Declined,
} }

mirror! { words ProposalFault { Late, Failed, Unreadable, Invalid, Declined } }

mirror! { struct Pair { task: TaskId, agent: AgentName } }

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
} optional {
    learned: BTreeMap<String, Learned>,
    tokens: Option<u64>,
    cost_usd_micros: Option<u64>,
    groups: BTreeMap<String, Spent>,
} }

mirror! { struct Run {
    began_at: Option<Time>,
    is_open: bool,
    attempts: u32,
    spent: Spent,
} optional { told: Vec<Told> } }

mirror! { struct Told { bound: Bound, level: Level, limit: u64 } }
mirror! { words Bound { Attempts, Cost, TaskCost } }
mirror! { words Level { Near, Reached } }

mirror! { struct Learned {
    count: u64,
    mean_us: u64,
    durations_ms: Vec<u64>,
} optional { below: BTreeMap<String, Learned> } }

mirror! { struct StageSum { count: u64, total_ms: u64, samples_ms: Vec<u64> } }

mirror! {
    struct Agent {
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
    }
    optional {
        last_task: Option<TaskId>,
        breaker: Breaker,
        spare: Option<u32>,
        unusable: Option<String>,
    }
}

mirror! { struct Target { count: u32, is_by_hand: bool } }

mirror! { struct Pause {
    limits: u32,
    since: Time,
    until: Option<Time>,
    is_refused: bool,
    agent: AgentName,
    why: String,
}
    optional {
        is_guessed: bool,
        probe: Option<AttemptId>,
    }
}

mirror! { struct Breaker {
    failures: u32,
    tasks: Vec<TaskId>,
    pauses: u32,
    until: Option<Time>,
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

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;
    use std::error::Error as _;

    use super::super::drive::{self, Drive};
    use super::super::sample::{self, at, plain_spec};
    use super::super::{decode_changes, encode_changes};
    use super::*;
    use crate::machine::change::ProjectChange;
    use crate::machine::settings::Slice;
    use crate::machine::task::{Landed, Priority, Spec, Tally, TaskKind, TaskPhase, Weight};
    use crate::machine::{Change, apply};

    fn check_read_back(state: &State) {
        let text = encode_state(state).unwrap();
        let again = decode_state(&text).unwrap();
        assert_eq!(again, *state);
        assert_eq!(encode_state(&again).unwrap().get(), text.get());
    }

    fn refusal(text: &str) -> String {
        decode_state_text(text).unwrap_err().source().unwrap().to_string()
    }

    #[test]
    fn state_is_read_back_with_its_index() {
        check_read_back(&State::new(sample::settings(Slice::Percent(0)), at(0)));
        check_read_back(&drive::worked_on().state);
        check_read_back(&drive::full());
    }

    #[test]
    fn settings_that_attempts_pin_are_read_back() {
        let mut state = drive::full();
        let mut settings = Settings::clone(&state.settings);
        settings.hash = "f".repeat(16);
        let settings = Box::new(settings);
        let change = ProjectChange::SettingsAdopted { settings, at: at(13) };
        apply(&mut state, &Change::Project(change));
        assert_eq!(state.pinned.len(), 1);
        check_read_back(&state);
    }

    #[test]
    fn changes_read_back_lead_to_the_same_state() {
        let drive = drive::worked_on();
        let changes = decode_changes(&encode_changes(&drive.decided).unwrap()).unwrap();
        assert_eq!(changes, drive.decided);
        let mut state = Drive::new().state;
        for change in &changes {
            apply(&mut state, change);
        }
        assert_eq!(state, drive.state);
    }

    #[test]
    fn what_a_state_may_hold_is_all_in_the_full_one() {
        let text = encode_state(&drive::full()).unwrap();
        let value: serde_json::Value = serde_json::from_str(text.get()).unwrap();
        let empty = value.as_object().unwrap().iter().filter(|(_, value)| {
            value.is_null() || **value == serde_json::json!([]) || **value == serde_json::json!({})
        });
        assert_eq!(empty.count(), 0);
        assert!(value.get("index").is_none());
    }

    #[test]
    fn plain_task_takes_less_than_300_bytes() {
        let mut drive = Drive::new();
        drive.add(plain_spec("Take the header out of the export"), false);
        let text = serde_json::to_string(&Written(&drive.state.tasks)).unwrap();
        assert!(text.len() < 300, "{text}");
        check_read_back(&drive.state);
    }

    /// A default that changes in the machine must not change what old files say.
    #[test]
    fn fields_left_out_keep_their_meaning() {
        let text = concat!(
            r#"[{"id":"a","spec":{"title":"t"},"phase":"waiting","entry":1,"#,
            r#""created_at":2,"updated_at":3}]"#
        );
        let Read(tasks): Read<BTreeMap<TaskId, Task>> = serde_json::from_str(text).unwrap();
        let spec = Spec {
            title: "t".into(),
            body: String::new(),
            priority: Priority::Medium,
            kind: TaskKind::Task,
            parent: None,
            depends_on: Vec::new(),
            touches: Vec::new(),
            stages: Vec::new(),
            labels: Vec::new(),
            needs: Vec::new(),
            complexity: None,
            estimate_ms: None,
            resources: BTreeMap::new(),
            is_exclusive: false,
            command: None,
            extra: BTreeMap::new(),
        };
        let tally = Tally {
            attempts: 0,
            stage_failures: 0,
            infrastructure: 0,
            send_backs: 0,
            forgiven_micros: 0,
        };
        let spent = Spent { cost_usd_micros: 0, priced: 0, unpriced: 0, tokens: None };
        let task = Task {
            id: TaskId::new("a"),
            spec,
            phase: TaskPhase::Waiting,
            entry: 1,
            is_front: false,
            is_held: false,
            created_at: Time::from_ms(2),
            updated_at: Time::from_ms(3),
            backoff_until: None,
            tally,
            tip: None,
            merge_owed: None,
            resume_from: None,
            continues: None,
            approved: None,
            approval: None,
            avoid: None,
            notes: Vec::new(),
            evidence: Vec::new(),
            hint: None,
            history: Vec::new(),
            numbers: BTreeMap::new(),
            is_announced: false,
            unserved: None,
            weight: Weight::default(),
            changed: Vec::new(),
            forecast: Vec::new(),
            taken: None,
            is_by_hand: false,
            landed: Landed::default(),
            spent,
        };
        assert_eq!(tasks, BTreeMap::from([(TaskId::new("a"), task)]));
    }

    #[test]
    fn unknown_missing_and_doubled_parts_are_refused_by_name() {
        let text = encode_state(&drive::worked_on().state).unwrap().get().to_owned();
        let with = |from: &str, to: &str| {
            assert!(text.contains(from), "{from}");
            refusal(&text.replacen(from, to, 1))
        };
        assert!(with("\"is_paused\"", "\"paused\"").contains("unknown field `paused`"));
        assert!(with("\"current\":null,", "").contains("missing field `current`"));
        assert!(with("\"title\":", "\"head\":").contains("unknown field `head`"));
        assert!(with("\"production\"", "\"half\"").contains("unknown variant `half`"));
        assert!(
            with("\"TASK-002\",\"spec\"", "\"TASK-001\",\"spec\"").contains("`TASK-001` is there")
        );
        assert!(with("\"entries\":", "\"entries\":-").contains("invalid value"));
    }

    #[test]
    fn part_of_a_state_is_refused_wherever_it_ends() {
        let text = encode_state(&drive::worked_on().state).unwrap().get().to_owned();
        for end in (0..text.len()).step_by(97).chain([text.len() - 1]) {
            assert!(decode_state_text(&text[..end]).is_err(), "{end} bytes");
        }
        assert!(decode_state_text(&(text + "{}")).is_err());
    }
}
