//! A task on disk.

use std::collections::BTreeMap;

use crate::machine::attempt::{Attempt, Class};
use crate::machine::id::{AgentName, AttemptId, Oid, StageName, TaskId};
use crate::machine::purse::Spent;
use crate::machine::task::{
    Block, Clash, Evidence, Landed, Priority, Spec, Taken, Tally, Task, TaskKind, TaskPhase, Weight,
};
use crate::machine::time::Time;

use super::mirror::mirror;

mirror! { words Priority { Low, Medium, High, Critical } }
mirror! { words TaskKind { Task, Epic } }

mirror! {
    struct Spec { title: String }
    optional {
        body: String,
        priority: Priority,
        kind: TaskKind,
        parent: Option<TaskId>,
        depends_on: Vec<TaskId>,
        touches: Vec<String>,
        stages: Vec<StageName>,
        labels: Vec<String>,
        needs: Vec<String>,
        complexity: Option<String>,
        estimate_ms: Option<u64>,
        resources: BTreeMap<String, String>,
        is_exclusive: bool,
        command: Option<String>,
        extra: BTreeMap<String, String>,
    }
}

mirror! { enum TaskPhase {
    Waiting,
    Ready { stage: StageName },
    Working { stage: StageName, attempt: AttemptId },
    Landing { entry: u64 },
    Blocked(block: Block),
    Completed { commit: Option<Oid>, at: Time },
    Cancelled { at: Time },
} }

mirror! {
    struct Block { stage: Option<StageName>, class: Class, reason: String, since: Time }
    optional { is_landing: bool }
}

mirror! { struct Taken { dir: String, from: Oid, since: Time } }

mirror! { struct Clash { with: Option<TaskId>, paths: Vec<String> } }

mirror! { struct Weight { own_ms: u64, tail_ms: u64 } }

mirror! {
    struct Tally { attempts: u32, stage_failures: u32, infrastructure: u32, send_backs: u32 }
    optional { forgiven_micros: u64 }
}

mirror! {
    struct Spent { cost_usd_micros: u64, priced: u64, unpriced: u64 }
    optional { tokens: Option<u64> }
}

mirror! { struct Evidence { from: AttemptId, stage: StageName, class: Class, text: String } }

mirror! {
    struct Task {
        id: TaskId,
        spec: Spec,
        phase: TaskPhase,
        entry: u64,
        created_at: Time,
        updated_at: Time,
    }
    optional {
        is_front: bool,
        is_held: bool,
        backoff_until: Option<Time>,
        tally: Tally,
        tip: Option<Oid>,
        merge_owed: Option<Oid>,
        resume_from: Option<Oid>,
        continues: Option<AttemptId>,
        approved: Option<Oid>,
        approval: Option<String>,
        avoid: Option<AgentName>,
        notes: Vec<(StageName, String)>,
        evidence: Vec<Evidence>,
        hint: Option<String>,
        history: Vec<Attempt>,
        numbers: BTreeMap<String, u32>,
        is_announced: bool,
        unserved: Option<String>,
        weight: Weight,
        changed: Vec<String>,
        forecast: Vec<Clash>,
        spent: Spent,
        taken: Option<Taken>,
        is_by_hand: bool,
        landed: Landed,
    }
}

mirror! { words Landed { Elsewhere, Within, Merged } }
