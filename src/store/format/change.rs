//! Changes on disk: one flat object each, `kind` first.

use std::collections::BTreeMap;
use std::fmt;

use serde::de::value::MapAccessDeserializer;
use serde::de::{Deserialize, Deserializer, Error as _, MapAccess, Visitor};
use serde::ser::{Serialize, Serializer};
use serde_json::value::{RawValue, to_raw_value};

use crate::machine::Change;
use crate::machine::attempt::{Attempt, Exit, Outcome, Tries};
use crate::machine::breaker::Breaker;
use crate::machine::change::{AttemptChange, LaneChange, ProjectChange, Steer, TaskChange};
use crate::machine::crew::Target;
use crate::machine::event::StopKind;
use crate::machine::id::{AgentName, AttemptId, Oid, StageName, TaskId};
use crate::machine::lane::{Dropping, Follow, Landing};
use crate::machine::mode::{Orchestration, Rollout};
use crate::machine::outside::Outside;
use crate::machine::proposal::{Proposal, ProposalFault};
use crate::machine::provider::Pause;
use crate::machine::purse::{Bound, Level};
use crate::machine::settings::Settings;
use crate::machine::state::Drain;
use crate::machine::task::{Clash, Evidence, Spec, Taken, Tally, Task, TaskPhase};
use crate::machine::time::Time;

use super::FormatError;
use super::mirror::{Mirror, Read, Written, mirror};

/// Writes changes as a JSON array, in their order.
///
/// # Errors
/// [`FormatError::Encode`] for a number that JSON cannot hold, which validated settings have not.
pub fn encode_changes(changes: &[Change]) -> Result<Box<RawValue>, FormatError> {
    to_raw_value(&changes_value(changes))
        .map_err(|source| FormatError::Encode { what: "changes", source })
}

/// Returns the array that [`encode_changes`] writes, to be serialised elsewhere without a copy.
#[must_use]
pub fn changes_value(changes: &[Change]) -> impl Serialize + '_ {
    Changes(changes)
}

/// Reads what [`encode_changes`] wrote.
///
/// # Errors
/// [`FormatError::Decode`] for anything else; its source names an unknown kind or field.
pub fn decode_changes(changes: &RawValue) -> Result<Vec<Change>, FormatError> {
    decode_changes_text(changes.get())
}

/// Reads what [`encode_changes`] wrote, from text that may not be JSON.
///
/// # Errors
/// [`FormatError::Decode`] for anything else; its source names an unknown kind or field.
pub fn decode_changes_text(text: &str) -> Result<Vec<Change>, FormatError> {
    let read = serde_json::from_str::<Read<Vec<Change>>>(text);
    read.map(|Read(changes)| changes)
        .map_err(|source| FormatError::Decode { what: "changes", source })
}

struct Changes<'a>(&'a [Change]);

impl Serialize for Changes<'_> {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        to.collect_seq(self.0.iter().map(Written))
    }
}

/// Reads one change: its kind first, so that the rest is read once, as what it is.
struct ChangeVisitor;

impl<'de> Visitor<'de> for ChangeVisitor {
    type Value = Change;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a change")
    }

    fn visit_map<M: MapAccess<'de>>(self, mut fields: M) -> Result<Change, M::Error> {
        match fields.next_key::<String>()? {
            Some(first) if first == "kind" => {}
            Some(first) => {
                return Err(M::Error::custom(format_args!("found `{first}` before `kind`")));
            }
            None => return Err(M::Error::missing_field("kind")),
        }
        let kind: String = fields.next_value()?;
        read_fields(&kind, fields)
    }
}

/// Mirrors [`Change`]: each row is a kind, its fields, and the change they make, which is the
/// pattern for writing and the expression for reading.
macro_rules! kinds {
    ($($kind:literal { $($field:ident: $type:ty),+ } => { $($change:tt)+ })+) => {
        impl Mirror for Change {
            fn write<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
                match self {$(
                    $($change)+ => {
                        #[derive(serde::Serialize)]
                        struct Fields<'a> {
                            kind: &'a str,
                            $($field: Written<'a, $type>,)+
                        }
                        Fields { kind: $kind, $($field: Written($field),)+ }.serialize(to)
                    }
                )+}
            }

            fn read<'de, D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
                from.deserialize_map(ChangeVisitor)
            }
        }

        /// Reads what follows the kind.
        fn read_fields<'de, M: MapAccess<'de>>(kind: &str, from: M) -> Result<Change, M::Error> {
            match kind {
                $($kind => {
                    #[derive(serde::Deserialize)]
                    #[serde(deny_unknown_fields)]
                    struct Fields {
                        $(#[serde(deserialize_with = "Mirror::read")] $field: $type,)+
                    }
                    let from = MapAccessDeserializer::new(from);
                    let Fields { $($field),+ } = Fields::deserialize(from)?;
                    Ok($($change)+)
                })+
                unknown => Err(M::Error::custom(format_args!("unknown kind `{unknown}`"))),
            }
        }

        #[cfg(test)]
        pub(super) const KINDS: &[&str] = &[$($kind),+];
    };
}

kinds! {
    "settings_adopted" { settings: Box<Settings>, at: Time } => {
        Change::Project(ProjectChange::SettingsAdopted { settings, at })
    }
    "monitor_started" { pid: u32, allows_red_base: bool, at: Time } => {
        Change::Project(ProjectChange::MonitorStarted { pid, allows_red_base, at })
    }
    "monitor_ended" { why: String, at: Time } => {
        Change::Project(ProjectChange::MonitorEnded { why, at })
    }
    "stop_requested" { how: StopKind } => {
        Change::Project(ProjectChange::StopRequested { kind: how })
    }
    "pause_set" { is_paused: bool } => {
        Change::Project(ProjectChange::PauseSet { is_paused })
    }
    "agent_pause_set" { name: AgentName, is_paused: bool } => {
        Change::Project(ProjectChange::AgentPauseSet { name, is_paused })
    }
    "agents_scaled" { group: String, target: Target, why: String, at: Time } => {
        Change::Project(ProjectChange::AgentsScaled { group, target, why, at })
    }
    "breaker_set" { name: AgentName, breaker: Box<Breaker> } => {
        Change::Project(ProjectChange::BreakerSet { name, breaker })
    }
    "provider_set" { name: String, pause: Option<Box<Pause>> } => {
        Change::Project(ProjectChange::ProviderSet { name, pause })
    }
    "providers_set" { of: BTreeMap<String, String> } => {
        Change::Project(ProjectChange::ProvidersSet { of })
    }
    "agent_unusable" { name: AgentName, why: Option<String> } => {
        Change::Project(ProjectChange::AgentUnusable { name, why })
    }
    "mode_switched" { to: Orchestration } => {
        Change::Project(ProjectChange::ModeSwitched { to })
    }
    "drain_set" { drain: Option<Drain> } => {
        Change::Project(ProjectChange::DrainSet { drain })
    }
    "rollout_set" { to: Rollout } => {
        Change::Project(ProjectChange::RolloutSet { to })
    }
    "rollout_reasoned" { why: String, is_fallback: bool, at: Time } => {
        Change::Project(ProjectChange::RolloutReasoned { why, is_fallback, at })
    }
    "compared" { id: TaskId, difference: Option<String> } => {
        Change::Project(ProjectChange::Compared { id, difference })
    }
    "current_task_set" { id: Option<TaskId> } => {
        Change::Project(ProjectChange::CurrentTaskSet { id })
    }
    "collecting_set" { id: Option<TaskId> } => {
        Change::Project(ProjectChange::CollectingSet { id })
    }
    "shortage_set" { what: Option<String> } => {
        Change::Project(ProjectChange::ShortageSet { what })
    }
    "overload_set" { what: Option<String> } => {
        Change::Project(ProjectChange::OverloadSet { what })
    }
    "found_outside" { found: Outside } => {
        Change::Project(ProjectChange::FoundOutside { found })
    }
    "branches_held" { held: BTreeMap<String, String> } => {
        Change::Project(ProjectChange::BranchesHeld { held })
    }
    "proposal_set" { proposal: Box<Proposal> } => {
        Change::Project(ProjectChange::ProposalSet { proposal })
    }
    "proposal_faulted" { fault: ProposalFault, why: String } => {
        Change::Project(ProjectChange::ProposalFaulted { fault, why })
    }
    "proposal_refused" { task: TaskId, agent: AgentName, why: String } => {
        Change::Project(ProjectChange::ProposalRefused { task, agent, why })
    }
    "budget_told" {
        bound: Bound, level: Level, task: Option<TaskId>, used: u64, limit: u64
    } => {
        Change::Project(ProjectChange::BudgetTold { bound, level, task, used, limit })
    }
    "weighed" { at: Time } => { Change::Project(ProjectChange::Weighed { at }) }
    "would_start" { id: TaskId, stage: StageName, agent: Option<AgentName> } => {
        Change::Project(ProjectChange::WouldStart { id, stage, agent })
    }

    "task_added" { id: TaskId, task: Box<Task> } => {
        Change::Task(id, TaskChange::Added { task })
    }
    "task_edited" { id: TaskId, spec: Box<Spec>, is_front: bool, at: Time } => {
        Change::Task(id, TaskChange::Edited { spec, is_front, at })
    }
    "task_held_set" { id: TaskId, is_held: bool } => {
        Change::Task(id, TaskChange::HeldSet { is_held })
    }
    "task_moved" { id: TaskId, to: TaskPhase, at: Time } => {
        Change::Task(id, TaskChange::Moved { to, at })
    }
    "task_backed_off" { id: TaskId, until: Option<Time> } => {
        Change::Task(id, TaskChange::BackedOff { until })
    }
    "task_tallied" { id: TaskId, tally: Tally } => {
        Change::Task(id, TaskChange::Tallied { tally })
    }
    "task_noted" { id: TaskId, stage: StageName, text: String } => {
        Change::Task(id, TaskChange::Noted { stage, text })
    }
    "task_evidenced" { id: TaskId, evidence: Evidence } => {
        Change::Task(id, TaskChange::Evidenced { evidence })
    }
    "task_steered" { id: TaskId, steer: Box<Steer> } => {
        Change::Task(id, TaskChange::Steered { steer })
    }
    "task_approval_asked" { id: TaskId, what: String } => {
        Change::Task(id, TaskChange::ApprovalAsked { what })
    }
    "task_approved" { id: TaskId, tip: Option<Oid> } => {
        Change::Task(id, TaskChange::Approved { tip })
    }
    "task_taken" { id: TaskId, taken: Taken } => {
        Change::Task(id, TaskChange::Taken { taken })
    }
    "task_given" { id: TaskId, commit: Oid } => {
        Change::Task(id, TaskChange::Given { commit })
    }
    "task_done_by_hand" { id: TaskId, commit: Option<Oid> } => {
        Change::Task(id, TaskChange::DoneByHand { commit })
    }
    "task_unserved" { id: TaskId, what: Option<String> } => {
        Change::Task(id, TaskChange::Unserved { what })
    }
    "task_branch_changed" { id: TaskId, paths: Vec<String> } => {
        Change::Task(id, TaskChange::BranchChanged { paths })
    }
    "task_forecast" { id: TaskId, clashes: Vec<Clash>, tried: Vec<TaskId> } => {
        Change::Task(id, TaskChange::Forecast { clashes, tried })
    }
    "task_tip_moved" { id: TaskId, tip: Oid } => {
        Change::Task(id, TaskChange::TipMoved { tip })
    }

    "attempt_added" { id: AttemptId, attempt: Box<Attempt> } => {
        Change::Attempt(id, AttemptChange::Added { attempt })
    }
    "attempt_prepared" { id: AttemptId, base: Option<Oid>, tip: Option<Oid> } => {
        Change::Attempt(id, AttemptChange::Prepared { base, tip })
    }
    "attempt_briefed" { id: AttemptId, prompt: String } => {
        Change::Attempt(id, AttemptChange::Briefed { prompt })
    }
    "attempt_ordered" { id: AttemptId, preset: String, session: Option<String> } => {
        Change::Attempt(id, AttemptChange::Ordered { preset, session })
    }
    "attempt_started" { id: AttemptId, at: Time } => {
        Change::Attempt(id, AttemptChange::Started { at })
    }
    "attempt_stop_requested" { id: AttemptId } => {
        Change::Attempt(id, AttemptChange::StopRequested)
    }
    "attempt_exited" { id: AttemptId, exit: Option<Box<Exit>>, verdict: Outcome } => {
        Change::Attempt(id, AttemptChange::Exited { exit, verdict })
    }
    "attempt_saved" { id: AttemptId, commit: Option<Oid> } => {
        Change::Attempt(id, AttemptChange::Saved { commit })
    }
    "attempt_judged" { id: AttemptId, verdict: Outcome } => {
        Change::Attempt(id, AttemptChange::Judged { verdict })
    }
    "attempt_checking" { id: AttemptId } => {
        Change::Attempt(id, AttemptChange::Checking)
    }
    "attempt_advancing" { id: AttemptId } => {
        Change::Attempt(id, AttemptChange::Advancing)
    }
    "attempt_stalled" { id: AttemptId, tries: Tries } => {
        Change::Attempt(id, AttemptChange::Stalled { tries })
    }
    "attempt_ended" { id: AttemptId, outcome: Outcome, has_fresh_slot: bool } => {
        Change::Attempt(id, AttemptChange::Ended { outcome, has_fresh_slot })
    }
    "attempt_found_outside" { id: AttemptId, task: Option<TaskId>, found: Outside } => {
        Change::Attempt(id, AttemptChange::FoundOutside { task, found })
    }

    "base_seen" { tip: Oid, landed: Option<Oid>, at: Time } => {
        Change::Lane(LaneChange::BaseSeen { tip, landed, at })
    }
    "base_taken" { base: Oid, landed: Oid } => {
        Change::Lane(LaneChange::BaseTaken { base, landed })
    }
    "base_conflicted" { paths: String } => {
        Change::Lane(LaneChange::BaseConflicted { paths })
    }
    "take_stalled" { tries: Tries } => {
        Change::Lane(LaneChange::TakeStalled { tries })
    }
    "base_check_begun" { id: AttemptId } => {
        Change::Lane(LaneChange::BaseCheckBegun { id })
    }
    "base_check_stalled" { tries: Tries } => {
        Change::Lane(LaneChange::BaseCheckStalled { tries })
    }
    "base_found_green" { commit: Oid } => {
        Change::Lane(LaneChange::BaseFoundGreen { commit })
    }
    "base_found_red" { commit: Oid, tail: String } => {
        Change::Lane(LaneChange::BaseFoundRed { commit, tail })
    }
    "landing_set" { landing: Option<Landing> } => {
        Change::Lane(LaneChange::LandingSet { landing })
    }
    "landed" { id: TaskId, commit: Oid, is_verified: bool } => {
        Change::Lane(LaneChange::Landed { id, commit, is_verified })
    }
    "follow_set" { follow: Option<Follow>, why: Option<String>, behind: u64 } => {
        Change::Lane(LaneChange::FollowSet { follow, why, behind })
    }
    "base_followed" { to: Oid } => {
        Change::Lane(LaneChange::BaseFollowed { to })
    }
    "drop_set" { dropping: Option<Dropping> } => {
        Change::Lane(LaneChange::DropSet { dropping })
    }
    "pilot_dropped" { to: Oid } => {
        Change::Lane(LaneChange::PilotDropped { to })
    }
}

mirror! {
    struct Steer {
        merge_owed: Option<Oid>,
        resume_from: Option<Oid>,
        avoid: Option<AgentName>,
        hint: Option<String>,
        is_fresh: bool,
    }
    optional { continues: Option<AttemptId> }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;
    use std::error::Error as _;

    use super::super::sample;
    use super::*;

    fn refusal(text: &str) -> String {
        let error = decode_changes_text(text).unwrap_err();
        assert_eq!(error.to_string(), "cannot read `changes` from the journal");
        error.source().unwrap().to_string()
    }

    #[test]
    fn every_change_is_read_back_as_it_was() {
        let changes = sample::every_change();
        let text = encode_changes(&changes).unwrap();
        assert_eq!(decode_changes(&text).unwrap(), changes);
        for change in changes {
            let text = encode_changes(std::slice::from_ref(&change)).unwrap();
            assert!(text.get().starts_with(r#"[{"kind":""#), "{text}");
            assert_eq!(decode_changes(&text).unwrap(), [change], "{text}");
        }
    }

    #[test]
    fn every_kind_has_a_sample_and_a_name_of_its_own() {
        let text = encode_changes(&sample::every_change()).unwrap();
        let values: Vec<serde_json::Value> = serde_json::from_str(text.get()).unwrap();
        let found: BTreeSet<&str> = values.iter().map(|it| it["kind"].as_str().unwrap()).collect();
        assert_eq!(found, KINDS.iter().copied().collect());
        assert_eq!(found.len(), KINDS.len());
    }

    #[test]
    fn no_changes_are_an_empty_array() {
        assert_eq!(encode_changes(&[]).unwrap().get(), "[]");
        assert_eq!(decode_changes_text(" [] ").unwrap(), []);
    }

    #[test]
    fn change_is_one_flat_object() {
        let id = TaskId::new("TASK-001");
        let to = TaskPhase::Ready { stage: StageName::new("test") };
        let moved = Change::Task(id, TaskChange::Moved { to, at: Time::from_ms(5) });
        let expected = concat!(
            r#"[{"kind":"task_moved","id":"TASK-001","#,
            r#""to":{"ready":{"stage":"test"}},"at":5}]"#
        );
        assert_eq!(encode_changes(&[moved]).unwrap().get(), expected);
    }

    #[test]
    fn what_is_not_of_this_format_is_refused_by_name() {
        for (text, expected) in [
            (r#"[{"kind":"task_melted","id":"a"}]"#, "unknown kind `task_melted`"),
            (r#"[{"kind":"pause_set","is_paused":true,"by":1}]"#, "unknown field `by`"),
            (r#"[{"kind":"pause_set"}]"#, "missing field `is_paused`"),
            (r#"[{"kind":"current_task_set"}]"#, "missing field `id`"),
            (r#"[{"kind":"attempt_checking","id":"a","kind":"b"}]"#, "unknown field `kind`"),
            (r#"[{"kind":"mode_switched","to":"sideways"}]"#, "unknown variant `sideways`"),
            (r#"[{"is_paused":true,"kind":"pause_set"}]"#, "found `is_paused` before `kind`"),
            (r#"[{"kind":"task_moved","id":"a","at":1,"to":{"ready":{"x":1}}}]"#, "field `x`"),
            (r#"[{"kind":"task_moved","id":"a","at":1,"to":{"asleep":{}}}]"#, "`asleep`"),
            (r#"[{"kind":"task_moved","id":"a","at":"now","to":"waiting"}]"#, "invalid type"),
            (r#"[{"kind":"task_moved","id":"a","at":1,"at":1,"to":"waiting"}]"#, "duplicate field"),
            ("[{}]", "missing field `kind`"),
            ("{}", "invalid type: map"),
            ("[] []", "trailing characters"),
            ("", "EOF"),
        ] {
            let found = refusal(text);
            assert!(found.contains(expected), "{text}: {found}");
        }
    }

    #[test]
    fn part_of_the_changes_is_refused_wherever_it_ends() {
        let text = encode_changes(&sample::every_change()[..4]).unwrap().get().to_owned();
        for end in (0..text.len()).filter(|end| text.is_char_boundary(*end)) {
            assert!(decode_changes_text(&text[..end]).is_err(), "{end} bytes");
        }
    }
}
