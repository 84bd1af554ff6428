//! How far the pipeline acts: shadow, pilot, production.

use super::id::TaskId;
use super::mode::Rollout;
use super::settings::Slice;
use super::state::State;
use super::task::Task;

/// Returns true when the pilot's slice names this task itself; closing over dependencies is the
/// index's part.
#[must_use]
pub fn is_selected(slice: &Slice, task: &Task) -> bool {
    match slice {
        Slice::Percent(percent) => bucket(&task.id) < *percent,
        Slice::Labels(labels) => labels.iter().any(|label| task.spec.labels.contains(label)),
        Slice::Tasks(ids) => ids.iter().any(|id| id == task.id.as_str()),
    }
}

/// Returns true when the pipeline may act for this task.
#[must_use]
pub fn may_act(state: &State, id: &TaskId) -> bool {
    match state.rollout {
        Rollout::Shadow => false,
        Rollout::Pilot => state.index.is_in_slice(id),
        Rollout::Production => true,
    }
}

/// Spreads ids evenly over 0..100, the same on every machine (FNV-1a, 64 bits).
fn bucket(id: &TaskId) -> u32 {
    let mut hash: u64 = 0xcbf2_9ce4_8422_2325;
    for byte in id.as_str().bytes() {
        hash = (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3);
    }
    // The low bits of FNV differ least for ids that differ in their last digit: mix the high half in.
    ((hash ^ (hash >> 32)) % 100) as u32
}
