//! What programs say last of their provider, and who is at work for it.

use std::collections::BTreeSet;

use pipeline::machine::State;
use pipeline::machine::attempt::{Fault, FaultKind};
use pipeline::machine::id::AttemptId;
use pipeline::machine::provider::Pause;
use pipeline::machine::time::Time;

use super::agent::Plan;

/// Returns what a program says that ends as planned. Drawn without the dice, so that old seeds draw the
/// rest as ever; who is done may say it as well.
pub fn fault_of(plan: Plan, attempt: &AttemptId, now_ms: u64) -> Option<Fault> {
    let name: u64 = attempt.as_str().bytes().map(u64::from).sum();
    let draw = name.wrapping_mul(31).wrapping_add(now_ms);
    let is_said = match plan {
        Plan::NoMarker | Plan::Fenced | Plan::Hangs | Plan::Silent | Plan::Liar => {
            draw.is_multiple_of(2)
        }
        Plan::Done | Plan::Headless => draw.is_multiple_of(16),
        Plan::Idle
        | Plan::Stays
        | Plan::Stale
        | Plan::Fails
        | Plan::Blocks
        | Plan::Changes
        | Plan::Crashes
        | Plan::WindowGone
        | Plan::Unstartable => false,
    };
    let kinds = [FaultKind::RateLimited, FaultKind::Unauthorized, FaultKind::ContextExceeded];
    let kind = kinds[(draw / 16 % 3) as usize];
    let names_time = (draw / 64).is_multiple_of(2);
    let until = names_time.then(|| Time::from_ms(now_ms.saturating_add(draw / 128 % 60_000)));
    is_said.then(|| Fault { kind, text: "429".into(), until })
}

/// Returns an attempt at work that began after the provider's pause, and for its agents. `beside`:
/// those that were at work when it began; a moment may be the same.
pub fn before<'a>(
    state: &'a State,
    provider: &str,
    pause: &Pause,
    beside: &BTreeSet<AttemptId>,
) -> Option<&'a AttemptId> {
    let mut live = state.attempts.values().filter(|attempt| attempt.is_work());
    let found = live.find(|attempt| {
        let group = state.settings.group_of(&attempt.agent);
        attempt.assigned_at >= pause.since
            && !beside.contains(&attempt.id)
            && group.is_some_and(|group| state.provider_of(group) == provider)
    });
    found.map(|attempt| &attempt.id)
}
