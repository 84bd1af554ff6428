//! `rollout set`, `promote` and `demote`.

use super::wait;
use crate::machine::change::{Change, LaneChange};
use crate::machine::effect::Effect;
use crate::machine::event::PilotEnd;
use crate::machine::lane::{Dropping, LandingPhase};
use crate::machine::mode::{Isolation, Rollout};
use crate::machine::rollout::{self, Gate, GateName};
use crate::machine::state::State;
use crate::machine::step::{Answer, Refusal, Step, lane};
use crate::machine::time::Time;

/// Sets the rollout that a person names; what does not hold is only told, but for the cooldown after
/// a fallback: what was judged bad a moment ago goes on when a person insists.
pub(super) fn set(state: &State, at: Time, to: Rollout, is_forced: bool) -> Result<Step, Refusal> {
    if state.rollout == to {
        return Ok(Step::accept(Vec::new()));
    }
    let unmet = if is_upward(state.rollout, to) { unmet(state, at) } else { Vec::new() };
    let cooling = rollout::gates(state, at)
        .into_iter()
        .find(|gate| gate.name == GateName::Cooldown && !gate.holds)
        .filter(|_| !is_forced && !unmet.is_empty());
    if let Some(gate) = cooling {
        let reason = format!("cannot set {}: {}, {}", word(to), gate.words(), gate.what);
        return Err(Refusal::unmet(reason).with_hint(
            "`pipeline rollout check` shows every gate, `--force` sets it all the same",
        ));
    }
    let why = with_unmet(if is_forced { "set, forced" } else { "set by hand" }, &unmet);
    let changes = changes(state, to, why, at)?;
    let is_told = !is_forced && !unmet.is_empty();
    let told = || Answer::Note(format!("gates that do not hold: {}", unmet.join(", ")));
    let answer = if is_told { told() } else { Answer::Accept };
    Ok(Step { changes, answer })
}

/// Goes on to the next rollout, if the gates hold or the person insists.
pub(super) fn promote(
    state: &State,
    at: Time,
    is_forced: bool,
    pilot: Option<PilotEnd>,
) -> Result<Step, Refusal> {
    let from = word(state.rollout);
    let Some(to) = rollout::next(state.rollout) else {
        return Err(Refusal::invalid("cannot promote: the rollout is production, the last one")
            .with_hint("`pipeline rollout demote` goes back to the pilot"));
    };
    if pilot.is_some() && state.rollout != Rollout::Pilot {
        let reason = format!("there is no pilot to land or to drop: the rollout is {from}");
        return Err(Refusal::invalid(reason).with_hint("promote without that flag"));
    }
    let unmet = unmet(state, at);
    if !is_forced && !unmet.is_empty() {
        let reason = format!("cannot promote from {from} to {}: {}", word(to), unmet.join(", "));
        return Err(Refusal::unmet(reason).with_hint(
            "`pipeline rollout check` shows every gate, `--force` promotes all the same",
        ));
    }
    let what = if is_forced { "promoted, forced" } else { "promoted, every gate holds" };
    let mut changes = changes(state, to, with_unmet(what, &unmet), at)?;
    let answer = match pilot {
        Some(PilotEnd::Drop) => match drop_pilot(state)? {
            Some(dropping) => {
                changes.push(lane(LaneChange::DropSet { dropping: Some(dropping) }));
                let branch = &state.settings.landing.branch;
                Answer::Note(format!(
                    "the monitor resets `{branch}` to `{}` and keeps what was on it in salvage; \
                     its tasks are done anew",
                    state.settings.project.base
                ))
            }
            None => Answer::Note("the pilot has landed nothing that could be dropped".to_owned()),
        },
        Some(PilotEnd::Land) | None => landed_note(state, to),
    };
    Ok(Step { changes, answer })
}

/// Goes back to the rollout before.
pub(super) fn demote(state: &State, at: Time) -> Result<Step, Refusal> {
    let Some(to) = rollout::previous(state.rollout) else {
        return Err(Refusal::invalid("cannot demote: the rollout is shadow, the first one")
            .with_hint("`pipeline pause` and `pipeline stop` end even its looking on"));
    };
    Ok(Step::accept(changes(state, to, "demoted by hand".to_owned(), at)?))
}

/// Says that the base follows from now on.
fn landed_note(state: &State, to: Rollout) -> Answer {
    let (base, behind) = (&state.settings.project.base, state.base.behind);
    if to != Rollout::Production || behind == 0 {
        return Answer::Accept;
    }
    let landings = if behind == 1 { "1 landing".to_owned() } else { format!("{behind} landings") };
    Answer::Note(format!("the monitor lets `{base}` follow by {landings} of the pilot"))
}

/// Returns where the landing branch goes; `None`: it stands there already.
fn drop_pilot(state: &State) -> Result<Option<Dropping>, Refusal> {
    if state.settings.project.isolation == Isolation::None {
        let reason =
            "there is nothing to drop: without git nothing is landed apart from the project";
        return Err(Refusal::invalid(reason).with_hint("promote without `--drop-pilot`"));
    }
    // Branches of tasks under way stand on what is dropped.
    let running = state.attempts.keys().next().map(|id| format!("attempt `{id}` is under way"));
    let landing = state.landing.as_ref();
    let landing = landing.map(|landing| format!("task `{}` is being landed", landing.task));
    if let Some(what) = running.or(landing) {
        return Err(Refusal::busy(format!("cannot drop the pilot: {what}"))
            .with_hint("`pipeline pause`, wait until nothing runs, then try again"));
    }
    if let Some(task) = state.tasks.values().find(|task| task.taken.is_some()) {
        // What they have in hand stands on it too.
        let id = &task.id;
        let reason = format!("cannot drop the pilot: task `{id}` is taken by a person");
        return Err(Refusal::busy(reason)
            .with_hint(format!("`pipeline task give {id}` first, then try again")));
    }
    let (base, landed) = (&state.base.tip, &state.base.landed);
    let Some(to) = base.clone().filter(|to| landed.as_ref().is_some_and(|landed| landed != to))
    else {
        return Ok(None);
    };
    if state.index.lane_effects().iter().any(|owed| matches!(owed, Effect::TakeBase { .. })) {
        // Carried out late, it would find the branch reset, and put it back to what was dropped.
        let (branch, base) = (&state.settings.landing.branch, &state.settings.project.base);
        return Err(wait(format!("cannot drop the pilot: `{branch}` is taking `{base}` in")));
    }
    Ok(Some(Dropping { to, tries: Default::default() }))
}

/// Refuses what must not stand on the landing branch of a pilot that is being dropped.
pub(super) fn check_not_dropping(state: &State) -> Result<(), Refusal> {
    if state.base.dropping.is_none() {
        return Ok(());
    }
    let branch = &state.settings.landing.branch;
    let reason = format!("`{branch}` is being reset right now: the pilot is dropped");
    Err(Refusal::busy(reason).with_hint("`pipeline monitor --once` does it; then try again"))
}

fn changes(state: &State, to: Rollout, why: String, at: Time) -> Result<Vec<Change>, Refusal> {
    let moving = state.landing.as_ref().filter(|landing| {
        to == Rollout::Shadow && matches!(landing.phase, LandingPhase::Moving { .. })
    });
    if let Some(landing) = moving {
        // Whether the branch was moved is not known yet, and in shadow nothing finds that out.
        return Err(wait(format!("task `{}` is being landed right now", landing.task)));
    }
    if to != Rollout::Production {
        check_not_dropping(state)?;
    }
    Ok(rollout::set(state, to, why, at))
}

const fn is_upward(from: Rollout, to: Rollout) -> bool {
    match (from, to) {
        (Rollout::Shadow, Rollout::Pilot | Rollout::Production)
        | (Rollout::Pilot, Rollout::Production) => true,
        (Rollout::Shadow, Rollout::Shadow)
        | (Rollout::Pilot, Rollout::Shadow | Rollout::Pilot)
        | (Rollout::Production, _) => false,
    }
}

/// Returns each gate that does not hold, in words.
fn unmet(state: &State, at: Time) -> Vec<String> {
    let gates = rollout::gates(state, at);
    gates.iter().filter(|gate| !gate.holds).map(Gate::words).collect()
}

fn with_unmet(what: &str, unmet: &[String]) -> String {
    if unmet.is_empty() { what.to_owned() } else { format!("{what}, though {}", unmet.join(", ")) }
}

const fn word(rollout: Rollout) -> &'static str {
    match rollout {
        Rollout::Shadow => "shadow",
        Rollout::Pilot => "pilot",
        Rollout::Production => "production",
    }
}
