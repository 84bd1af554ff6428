//! An attempt on disk.

use std::collections::BTreeMap;

use crate::machine::attempt::{
    Attempt, AttemptKind, AttemptPhase, Class, EndedBy, Exit, Fault, FaultKind, Marker, Outcome,
    Tries,
};
use crate::machine::id::{AgentName, AttemptId, Oid, StageName, TaskId};
use crate::machine::outside::Outside;
use crate::machine::schedule::demand::Demand;
use crate::machine::time::Time;
use crate::machine::usage::Usage;

use super::mirror::mirror;

mirror! { enum AttemptKind {
    Work { stage: StageName },
    StageCheck { stage: StageName, of: AttemptId },
    LandingCheck { commit: Oid },
    BaseCheck { commit: Oid },
} }

mirror! { words AttemptPhase { Preparing, Starting, Running, Saving, Checking, Advancing } }

mirror! { words Class {
    Completed,
    Empty,
    Incomplete,
    Failed,
    ChecksFailed,
    ConflictLeft,
    Blocked,
    ChangesRequested,
    RateLimited,
    Unauthorized,
    ContextExceeded,
    TimedOut,
    Silent,
    Crashed,
    Unstartable,
    Lost,
    Infrastructure,
    Stopped,
    Conflict,
    LandingChecksFailed,
    Dependency,
    Budget,
} }

mirror! { words EndedBy { Exit, Timeout, Silence, MarkerGrace, Stop, SpawnFailed } }

mirror! { enum Marker {
    Completed,
    Blocked(why: String),
    Failed(why: String),
    ChangesRequested(what: String),
} }

mirror! {
    struct Exit { started_at: Time, ended_at: Time, ended_by: EndedBy }
    optional {
        code: Option<i32>,
        signal: Option<i32>,
        command_index: u32,
        leaked: u32,
        cpu_ms: u64,
        rss_kib_max: u64,
        marker: Option<Marker>,
        notes: String,
        tail: String,
        usage: Usage,
        fault: Option<Fault>,
    }
}

mirror! { struct Fault { kind: FaultKind, text: String, until: Option<Time> } }

mirror! { words FaultKind { RateLimited, Unauthorized, ContextExceeded } }

mirror! {
    struct Usage { is_session_total: bool }
    optional {
        session: Option<String>,
        input_tokens: Option<u64>,
        output_tokens: Option<u64>,
        cached_tokens: Option<u64>,
        cost_usd_micros: Option<u64>,
    }
}

mirror! { struct Outcome { class: Class, reason: String, at: Time } }

mirror! { struct Tries { failed: u32, until: Option<Time>, why: String } }

mirror! {
    struct Attempt {
        id: AttemptId,
        kind: AttemptKind,
        agent: AgentName,
        nonce: String,
        slot: u32,
        settings: String,
        phase: AttemptPhase,
        assigned_at: Time,
    }
    optional {
        task: Option<TaskId>,
        started_at: Option<Time>,
        base: Option<Oid>,
        merge: Option<Oid>,
        exit: Option<Exit>,
        saved: Option<Oid>,
        verdict: Option<Outcome>,
        is_stopping: bool,
        tries: Tries,
        outcome: Option<Outcome>,
        demand: Demand,
        prompt: Option<String>,
        preset: Option<String>,
        continues: Option<AttemptId>,
        session: Option<String>,
        outside: Outside,
    }
}

mirror! {
    struct Outside { found: Vec<String> }
    optional { more: u64, beside: Vec<AttemptId>, marks: Vec<String> }
}

mirror! {
    struct Demand { is_exclusive: bool }
    optional {
        needs: Vec<String>,
        resources: BTreeMap<String, u64>,
        touches: Vec<String>,
        tier_min: u32,
        is_so_far: bool,
        is_fresh: bool,
    }
}

#[cfg(test)]
mod tests {
    use super::super::mirror::Written;
    use super::*;

    #[test]
    fn class_is_written_as_its_word() {
        for class in Class::ALL {
            let json = serde_json::to_string(&Written(&class)).unwrap();
            assert_eq!(json, format!("\"{}\"", class.word()));
        }
    }
}
