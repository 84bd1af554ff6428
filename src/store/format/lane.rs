//! The landing lane and the base on disk.

use crate::machine::attempt::Tries;
use crate::machine::id::{AttemptId, Oid, TaskId};
use crate::machine::lane::{Base, Dropping, Follow, Landing, LandingPhase};
use crate::machine::time::Time;

use super::mirror::mirror;

mirror! { struct Landing {
    task: TaskId,
    number: u32,
    begun_at: Time,
    phase: LandingPhase,
    tries: Tries,
} }

mirror! { enum LandingPhase {
    Merging,
    Checking { commit: Oid, onto: Oid, attempt: AttemptId },
    Moving { commit: Oid, onto: Oid },
} }

mirror! { struct Base {
    tip: Option<Oid>,
    seen_at: Time,
    landed: Option<Oid>,
    taken: Option<Oid>,
    conflict: Option<String>,
    green: Vec<Oid>,
    red: Option<(Oid, String)>,
    checking: Option<AttemptId>,
    checks: u32,
    check_tries: Tries,
    take_tries: Tries,
    follow: Option<Follow>,
    behind: u64,
    why: Option<String>,
} optional { dropping: Option<Dropping> } }

mirror! { struct Dropping { to: Oid, tries: Tries } }

mirror! { struct Follow { to: Oid, tries: Tries, is_passing: bool } }
