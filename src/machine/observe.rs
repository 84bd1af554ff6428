//! What is decided when something was seen of an attempt; of landings see `landing.rs`.

use std::collections::BTreeMap;

use super::attempt::{Attempt, AttemptKind, AttemptPhase, Class, Exit, LEFT, Outcome, Tries};
use super::breaker;
use super::change::{AttemptChange, Change, LaneChange, ProjectChange, Steer, TaskChange};
use super::changed;
use super::event::{Event, EventBody, Observation};
use super::forecast;
use super::id::{AttemptId, Oid, StageName};
use super::judge;
use super::landing;
use super::lane::Follow;
use super::mode::Isolation;
use super::outside;
use super::proposal::answered;
use super::provider;
use super::purse;
use super::resume::{self, Onward};
use super::retry::delay_ms;
use super::settings::Completion;
use super::stage;
use super::state::State;
use super::step::{Step, attempt as of_attempt, lane, project, task as of_task};
use super::task::{
    Block, EVIDENCE_BYTES_MAX, Evidence, NOTES_BYTES_MAX, Task, TaskPhase, keep_ends, keep_tail,
};
use super::time::Time;
use super::turn::retry_stuck_lane;
use super::usage::Usage;

/// Decides what an observation leads to; a late or odd one is noted.
pub(super) fn decide(state: &State, event: &Event, seen: &Observation) -> Step {
    match seen {
        Observation::MonitorStarted { pid, allows_red_base } => {
            Step::accept(monitor_started(state, event, *pid, *allows_red_base))
        }
        Observation::MonitorEnded { why } => monitor_ended(event.at, why),
        Observation::Prepared { attempt, base, tip } => with(state, attempt, &PREPARING, |found| {
            prepared(state, event, found, base.as_ref(), tip.as_ref())
        }),
        Observation::Briefed { attempt, prompt } => briefed(state, attempt, prompt),
        Observation::Ordered { attempt: id, preset, session } => {
            ordered(state, id, preset, session)
        }
        Observation::Started { attempt, at } => started(state, attempt, *at),
        Observation::Exited { attempt, exit } => {
            with(state, attempt, &ALIVE, |found| exited(state, event, found, exit))
        }
        Observation::Lost { attempt, why } => {
            with(state, attempt, &ALIVE, |found| lost(state, event, found, why))
        }
        Observation::Saved { attempt, commit, has_changed, markers, notes, lacks } => {
            let left =
                Left { commit, has_changed: *has_changed, markers, notes, lacks: lacks.as_deref() };
            with(state, attempt, &SAVING, |found| saved(state, event, found, &left))
        }
        Observation::WorktreeGone { attempt, commit } => {
            with(state, attempt, &SAVING, |found| gone(state, event, found, commit.as_ref()))
        }
        Observation::CannotStart { attempt, why } => {
            with(state, attempt, &UNSTARTED, |found| cannot_start(state, event, found, why))
        }
        Observation::Advanced { attempt, changed } => with(state, attempt, &ADVANCING, |found| {
            advanced(state, event, found, changed.as_deref())
        }),
        Observation::Forecast { task, tip, tried, clashes } => {
            forecast::decide(state, task, tip, tried, clashes)
        }
        Observation::AttemptFaulted { attempt, why } => {
            with(state, attempt, &EVERY, |found| faulted(state, event, found, why))
        }
        Observation::SetupFailed { attempt, why } => {
            with(state, attempt, &PREPARING, |found| faulted(state, event, found, why))
        }
        Observation::OutsideSeen { ran, found, more, is_first } => {
            outside::decide(state, ran, found, *more, *is_first)
        }
        Observation::BranchesSeen { held } => outside::decide_held(state, held),
        Observation::ShortageSeen { what } => shortage_seen(state, what),
        Observation::AgentsSeen { unusable } => agents_seen(state, unusable),
        Observation::ProvidersSeen { of } => providers_seen(state, of),
        Observation::OverloadSeen { what } => overload_seen(state, what),
        Observation::Proposed { number, pairs } => answered(state, event.at, *number, Ok(pairs)),
        Observation::NotProposed { number, fault, why } => {
            answered(state, event.at, *number, Err((*fault, why)))
        }
        Observation::BaseSeen { .. }
        | Observation::BaseTaken { .. }
        | Observation::BaseConflicts { .. }
        | Observation::LaneFaulted { .. }
        | Observation::Merged { .. }
        | Observation::AlreadyLanded { .. }
        | Observation::MergeConflicts { .. }
        | Observation::Landed { .. }
        | Observation::LandingRaced { .. }
        | Observation::Followed { .. }
        | Observation::PilotDropped { .. }
        | Observation::HandLanded { .. }
        | Observation::FollowRefused { .. } => landing::decide(state, event, seen),
    }
}

/// Only whether there is one counts, not how much is left.
fn strain_seen(
    old: Option<&String>,
    new: &Option<String>,
    change: impl FnOnce(Option<String>) -> ProjectChange,
) -> Step {
    let is_same = old.is_some() == new.is_some();
    Step::accept(if is_same { Vec::new() } else { vec![project(change(new.clone()))] })
}

fn shortage_seen(state: &State, what: &Option<String>) -> Step {
    strain_seen(state.shortage.as_ref(), what, |what| ProjectChange::ShortageSet { what })
}

fn overload_seen(state: &State, what: &Option<String>) -> Step {
    strain_seen(state.overload.as_ref(), what, |what| ProjectChange::OverloadSet { what })
}

/// Only agents that changed are told of.
fn agents_seen(state: &State, unusable: &BTreeMap<String, String>) -> Step {
    let changed = state.agents.values().filter_map(|agent| {
        let why = state.group_of(agent).and_then(|group| unusable.get(&group.name));
        let change = ProjectChange::AgentUnusable { name: agent.name.clone(), why: why.cloned() };
        (agent.unusable.as_ref() != why).then(|| project(change))
    });
    Step::accept(changed.collect())
}

fn providers_seen(state: &State, of: &BTreeMap<String, String>) -> Step {
    let set = ProjectChange::ProvidersSet { of: of.clone() };
    Step::accept(if *of == state.providers { Vec::new() } else { vec![project(set)] })
}

fn monitor_ended(at: Time, why: &str) -> Step {
    Step::accept(vec![project(ProjectChange::MonitorEnded { why: why.to_owned(), at })])
}

const SAVING: [AttemptPhase; 1] = [AttemptPhase::Saving];
const ADVANCING: [AttemptPhase; 1] = [AttemptPhase::Advancing];
const PREPARING: [AttemptPhase; 1] = [AttemptPhase::Preparing];
const UNSTARTED: [AttemptPhase; 2] = [AttemptPhase::Preparing, AttemptPhase::Starting];
fn monitor_started(state: &State, event: &Event, pid: u32, allows_red_base: bool) -> Vec<Change> {
    let change = ProjectChange::MonitorStarted { pid, allows_red_base, at: event.at };
    let mut changes = vec![project(change)];
    // Whoever starts it anew may have made way for the base; it is asked again, also where it is to
    // go already, since git may have been killed on its way out.
    let base = &state.base;
    if let Some(follow) = base.follow.as_ref().filter(|follow| follow.tries.until.is_some()) {
        let to = base.landed.clone().unwrap_or_else(|| follow.to.clone());
        let follow = Some(Follow { to, tries: Tries::default(), is_passing: true });
        let (why, behind) = (base.why.clone(), base.behind);
        changes.push(lane(LaneChange::FollowSet { follow, why, behind }));
    }
    changes.extend(retry_stuck_lane(state));
    changes
}

/// The shortest pause after an effect that failed, in milliseconds.
const PAUSE_MS_MIN: u64 = 100;
const ALIVE: [AttemptPhase; 2] = [AttemptPhase::Starting, AttemptPhase::Running];
const EVERY: [AttemptPhase; 6] = [
    AttemptPhase::Preparing,
    AttemptPhase::Starting,
    AttemptPhase::Running,
    AttemptPhase::Saving,
    AttemptPhase::Checking,
    AttemptPhase::Advancing,
];

/// Decides for a live attempt in one of the phases; anything else is noted.
fn with(
    state: &State,
    id: &AttemptId,
    phases: &[AttemptPhase],
    decide: impl FnOnce(&Attempt) -> Vec<Change>,
) -> Step {
    match state.attempts.get(id) {
        Some(found) if phases.contains(&found.phase) => Step::accept(decide(found)),
        Some(found) => Step::note(format!("attempt `{id}` is already {:?}", found.phase)),
        None => Step::note(format!("attempt `{id}` is over")),
    }
}

fn completed(at: Time) -> Outcome {
    Outcome { class: Class::Completed, reason: String::new(), at }
}

/// As `completed`, with what was noted of it.
fn completed_with(found: &Attempt, at: Time) -> Outcome {
    let noted = found.verdict.as_ref().filter(|verdict| verdict.class == Class::Completed);
    Outcome { at, ..noted.cloned().unwrap_or_else(|| completed(at)) }
}

fn prepared(
    state: &State,
    event: &Event,
    found: &Attempt,
    base: Option<&Oid>,
    tip: Option<&Oid>,
) -> Vec<Change> {
    if found.is_stopping {
        let reason = "ended on request before it started".to_owned();
        let outcome = Outcome { class: Class::Stopped, reason, at: event.at };
        return if found.is_work() {
            end(state, event, found, &outcome)
        } else {
            end_check(state, event, found, &outcome)
        };
    }
    let change = AttemptChange::Prepared { base: base.cloned(), tip: tip.cloned() };
    vec![of_attempt(&found.id, change)]
}

fn started(state: &State, id: &AttemptId, at: Time) -> Step {
    with(state, id, &[AttemptPhase::Starting], |found| {
        vec![of_attempt(&found.id, AttemptChange::Started { at })]
    })
}

fn briefed(state: &State, id: &AttemptId, prompt: &str) -> Step {
    with(state, id, &UNSTARTED, |found| {
        if found.prompt.as_deref() == Some(prompt) {
            return Vec::new();
        }
        vec![of_attempt(&found.id, AttemptChange::Briefed { prompt: prompt.to_owned() })]
    })
}

fn ordered(state: &State, id: &AttemptId, preset: &str, session: &Option<String>) -> Step {
    with(state, id, &ALIVE, |found| {
        if found.preset.as_deref() == Some(preset) && found.session == *session {
            return Vec::new();
        }
        let (preset, session) = (preset.to_owned(), session.clone());
        vec![of_attempt(id, AttemptChange::Ordered { preset, session })]
    })
}

fn cannot_start(state: &State, event: &Event, found: &Attempt, why: &str) -> Vec<Change> {
    let outcome = Outcome { class: Class::Unstartable, reason: why.to_owned(), at: event.at };
    unstarted(state, event, found, &outcome)
}

/// Ends what is not known to have begun. Once it was to be ordered it may have: a power cut takes the
/// record of that away and leaves the work, which is saved first.
fn unstarted(state: &State, event: &Event, found: &Attempt, outcome: &Outcome) -> Vec<Change> {
    if !found.is_work() {
        return end_check(state, event, found, outcome);
    }
    let may_have_run = found.phase == AttemptPhase::Starting;
    if may_have_run && state.settings.project.isolation == Isolation::Worktree {
        let change = AttemptChange::Exited { exit: None, verdict: outcome.clone() };
        return vec![of_attempt(&found.id, change)];
    }
    end(state, event, found, outcome)
}

fn exited(state: &State, event: &Event, found: &Attempt, exit: &Exit) -> Vec<Change> {
    let verdict = match &found.kind {
        AttemptKind::Work { .. } => {
            judge::of_work(exit, completion_of(state, found), found.is_stopping)
        }
        AttemptKind::StageCheck { stage, .. } => {
            judge::of_check(exit, state.rules_of(found).checks_of(stage))
        }
        AttemptKind::LandingCheck { .. } | AttemptKind::BaseCheck { .. } => {
            judge::of_check(exit, &state.rules_of(found).landing.checks)
        }
    };
    let exit = Exit { usage: own_usage(state, found, exit), ..exit.clone() };
    let change =
        AttemptChange::Exited { exit: Some(Box::new(exit.clone())), verdict: verdict.clone() };
    let mut changes = vec![of_attempt(&found.id, change)];
    changes.extend(purse::warned(state, found, &exit.usage));
    // From here on the attempt is looked at as it will be once the exit is applied.
    let found = Attempt { exit: Some(exit), ..found.clone() };
    if !found.is_work() {
        changes.extend(end_check(state, event, &found, &verdict));
    } else if state.settings.project.isolation == Isolation::None {
        changes.extend(after_saving(state, event, &found, &verdict, None));
    }
    changes
}

/// Returns what the attempt itself used: some programs tell of a session that is taken up again all
/// that it ever used. One that does not name its session is still in the one it took up; where that is
/// not on record, since the monitor died with its order, what it used itself is not to be known.
fn own_usage(state: &State, found: &Attempt, exit: &Exit) -> Usage {
    let task = found.task.as_ref().and_then(|id| state.tasks.get(id));
    let history = task.into_iter().flat_map(|task| &task.history);
    let mut usage = exit.usage.clone();
    usage.session = usage.session.or_else(|| found.session.clone());
    if usage.is_session_total && usage.session.is_none() && found.continues.is_some() {
        return Usage::default();
    }
    usage.beyond(history.filter_map(|old| Some(&old.exit.as_ref()?.usage)))
}

fn lost(state: &State, event: &Event, found: &Attempt, why: &str) -> Vec<Change> {
    let verdict = Outcome { class: Class::Lost, reason: why.to_owned(), at: event.at };
    let change = AttemptChange::Exited { exit: None, verdict: verdict.clone() };
    let mut changes = vec![of_attempt(&found.id, change)];
    if !found.is_work() {
        changes.extend(end_check(state, event, found, &verdict));
    } else if state.settings.project.isolation == Isolation::None {
        changes.extend(end(state, event, found, &verdict));
    }
    changes
}

/// What was found in the worktree after the end.
struct Left<'a> {
    commit: &'a Option<Oid>,
    has_changed: bool,
    markers: &'a [String],
    notes: &'a [String],
    lacks: Option<&'a str>,
}

fn saved(state: &State, event: &Event, found: &Attempt, left: &Left<'_>) -> Vec<Change> {
    let mut changes =
        vec![of_attempt(&found.id, AttemptChange::Saved { commit: left.commit.clone() })];
    let mut verdict = found.verdict.clone().unwrap_or_else(|| completed(event.at));
    let must_change = found
        .stage()
        .and_then(|stage| state.rules_of(found).stage(stage.as_str()))
        .is_some_and(|(_, stage)| stage.must_change);
    let was_completed = verdict.class == Class::Completed;
    if was_completed {
        let is_merging = found.merge.is_some();
        if !left.markers.is_empty() {
            verdict.class = Class::ConflictLeft;
            verdict.reason = format!(
                "conflicts are left in {}: leave no marker, and `git add` or `git rm` what has none \
                 (a link, a binary file, one that a side removed)",
                left.markers.join(", ")
            );
        } else if let Some(why) = left.lacks {
            verdict.class = Class::Incomplete;
            verdict.reason = format!("said completed, but {why}");
        } else if must_change && !left.has_changed && !is_merging {
            let fault = found.exit.as_ref().and_then(judge::of_fault);
            let empty = (Class::Empty, "said completed but changed no file".into());
            (verdict.class, verdict.reason) = fault.unwrap_or(empty);
        }
    }
    for note in left.notes {
        let joint = if verdict.reason.is_empty() { "" } else { "; " };
        verdict.reason = format!("{}{joint}{note}", verdict.reason);
    }
    if !left.notes.is_empty() || (was_completed && verdict.class != Class::Completed) {
        let judged = AttemptChange::Judged { verdict: verdict.clone() };
        changes.push(of_attempt(&found.id, judged));
    }
    let found = Attempt { saved: left.commit.clone(), ..found.clone() };
    changes.extend(after_saving(state, event, &found, &verdict, left.commit.as_ref()));
    changes
}

/// Whatever the attempt said, it said without a worktree; only its end on request stands, and that
/// nothing was heard of it.
fn gone(state: &State, event: &Event, found: &Attempt, commit: Option<&Oid>) -> Vec<Change> {
    let saved = AttemptChange::Saved { commit: commit.cloned() };
    let mut changes = vec![of_attempt(&found.id, saved)];
    let stands = |verdict: &&Outcome| verdict.class == Class::Stopped || found.exit.is_none();
    let verdict = found.verdict.as_ref().filter(stands).cloned().unwrap_or_else(|| {
        let reason = "its worktree went away under it".to_owned();
        Outcome { class: Class::Lost, reason, at: event.at }
    });
    changes.push(of_attempt(&found.id, AttemptChange::Judged { verdict: verdict.clone() }));
    let found = Attempt { saved: commit.cloned(), ..found.clone() };
    changes.extend(end(state, event, &found, &verdict));
    changes
}

/// Goes on to the checks, to the branch, or to the end.
fn after_saving(
    state: &State,
    event: &Event,
    found: &Attempt,
    verdict: &Outcome,
    commit: Option<&Oid>,
) -> Vec<Change> {
    if verdict.class != Class::Completed {
        return end(state, event, found, verdict);
    }
    if found.stage().is_some_and(|stage| !state.rules_of(found).checks_of(stage).is_empty()) {
        return vec![of_attempt(&found.id, AttemptChange::Checking)];
    }
    match commit {
        Some(_) => vec![of_attempt(&found.id, AttemptChange::Advancing)],
        None => end(state, event, found, verdict),
    }
}

fn advanced(
    state: &State,
    event: &Event,
    found: &Attempt,
    changed: Option<&[String]>,
) -> Vec<Change> {
    let mut changes = end(state, event, found, &completed_with(found, event.at));
    changes.extend(branch_changed(state, found, changed));
    changes
}

/// Notes what the branch has changed so far, where that is not on record.
fn branch_changed(state: &State, found: &Attempt, changed: Option<&[String]>) -> Option<Change> {
    let task = found.task.as_ref().and_then(|id| state.tasks.get(id));
    let task = task.filter(|task| !task.is_final())?;
    let paths = changed::globs(changed?);
    (paths != task.changed).then(|| of_task(&task.id, TaskChange::BranchChanged { paths }))
}

/// Ends a check and carries its verdict to what it was for.
fn end_check(state: &State, event: &Event, check: &Attempt, verdict: &Outcome) -> Vec<Change> {
    let ended = AttemptChange::Ended { outcome: verdict.clone(), has_fresh_slot: false };
    let mut changes = vec![of_attempt(&check.id, ended)];
    match &check.kind {
        AttemptKind::StageCheck { of, .. } => {
            if let Some(parent) = state.attempts.get(of) {
                changes.extend(checked(state, event, parent, check, verdict));
            }
        }
        AttemptKind::LandingCheck { commit } => {
            changes.extend(landing::checked(state, event, check, commit, verdict));
        }
        AttemptKind::BaseCheck { commit } => {
            changes.extend(landing::base_checked(state, event, check, commit, verdict));
        }
        AttemptKind::Work { .. } => {}
    }
    changes
}

fn checked(
    state: &State,
    event: &Event,
    parent: &Attempt,
    check: &Attempt,
    verdict: &Outcome,
) -> Vec<Change> {
    let is_judged = matches!(verdict.class, Class::Completed | Class::ChecksFailed);
    if parent.is_stopping && !is_judged {
        let reason = "ended on request".to_owned();
        return end(state, event, parent, &Outcome { class: Class::Stopped, reason, at: event.at });
    }
    if verdict.class == Class::Completed {
        return match parent.saved {
            Some(_) => vec![of_attempt(&parent.id, AttemptChange::Advancing)],
            None => end(state, event, parent, &completed_with(parent, event.at)),
        };
    }
    if verdict.class == Class::ChecksFailed {
        let notes = completed_with(parent, event.at).reason;
        let reason = with_tail(&verdict.reason, check);
        let reason = if notes.is_empty() { reason } else { format!("{reason}\n{notes}") };
        let verdict = Outcome { class: Class::ChecksFailed, reason, at: event.at };
        return end(state, event, parent, &verdict);
    }
    stall(state, event, parent, &verdict.reason)
}

/// Joins a reason with the end of the attempt's output.
pub(super) fn with_tail(reason: &str, from: &Attempt) -> String {
    let tail = from.exit.as_ref().map_or("", |exit| exit.tail.trim_end());
    if tail.is_empty() { reason.to_owned() } else { format!("{reason}\n{tail}") }
}

fn faulted(state: &State, event: &Event, found: &Attempt, why: &str) -> Vec<Change> {
    // What failed while it was being stopped failed because of that.
    let class = if found.is_stopping { Class::Stopped } else { Class::Infrastructure };
    let outcome = Outcome { class, reason: why.to_owned(), at: event.at };
    match found.phase {
        // It runs on: only its end could not be brought about, and that is tried again.
        AttemptPhase::Running if found.is_stopping => {
            let tries = paused(state, event, counted(state, found.tries.failed), why);
            vec![of_attempt(&found.id, AttemptChange::Stalled { tries })]
        }
        // Told late: while its checks run nothing is owed of it.
        AttemptPhase::Running | AttemptPhase::Checking => Vec::new(),
        AttemptPhase::Preparing | AttemptPhase::Starting => {
            unstarted(state, event, found, &outcome)
        }
        AttemptPhase::Saving | AttemptPhase::Advancing => stall(state, event, found, why),
    }
}

/// Pauses an attempt whose effect failed; past the bound it ends, its worktree untouched.
fn stall(state: &State, event: &Event, found: &Attempt, why: &str) -> Vec<Change> {
    let failed = counted(state, found.tries.failed);
    if failed > state.settings.limits.infrastructure_retries {
        let reason = format!("{why}; {LEFT} {}", found.slot);
        let outcome = Outcome { class: Class::Infrastructure, reason, at: event.at };
        return end(state, event, found, &outcome);
    }
    let tries = paused(state, event, failed, why);
    vec![of_attempt(&found.id, AttemptChange::Stalled { tries })]
}

/// Returns how many failures there are with one more; during a shortage none is added, since it
/// comes to an end by itself and then all is tried again.
pub(super) fn counted(state: &State, failed: u32) -> u32 {
    if state.shortage.is_some() { failed } else { failed + 1 }
}

/// Returns a pause before the next try, by `[retry]`; never none, since some things are tried without
/// end.
pub(super) fn paused(state: &State, event: &Event, failed: u32, why: &str) -> Tries {
    let delay = delay_ms(&state.settings.retry, failed, event.random).max(PAUSE_MS_MIN);
    Tries { failed, until: Some(event.at.plus_ms(delay)), why: why.to_owned() }
}

/// Ends a work attempt and moves its task on, unless the task went another way meanwhile.
fn end(state: &State, event: &Event, found: &Attempt, outcome: &Outcome) -> Vec<Change> {
    let has_leaked = found.exit.as_ref().is_some_and(|exit| exit.leaked > 0);
    let task = found.task.as_ref().and_then(|id| state.tasks.get(id));
    // After a keeper's death nothing proves that all it left has ended. Where nothing but git was at
    // work, the slot is made again, so that no half-made one stays; if that fails too, another is.
    let is_half_made = has_setup_failed(event, found)
        || found.phase == AttemptPhase::Preparing
            && state.settings.worktree.setup.is_empty()
            && task.is_some_and(|task| task.tally.infrastructure == 0);
    let has_fresh_slot = has_leaked
        || outcome.class == Class::Lost
        || outcome.class == Class::Infrastructure && !is_half_made;
    let ended = AttemptChange::Ended { outcome: outcome.clone(), has_fresh_slot };
    let mut changes = vec![of_attempt(&found.id, ended)];
    if let Some(breaker) = breaker::after(state, found, outcome.class, event.at) {
        let (name, breaker) = (found.agent.clone(), Box::new(breaker));
        changes.push(project(ProjectChange::BreakerSet { name, breaker }));
    }
    if let Some((name, pause)) = provider::after(state, event.random, found, outcome, event.at) {
        let pause = pause.map(Box::new);
        changes.push(project(ProjectChange::ProviderSet { name, pause }));
    }
    if let (Some(task), Some(stage)) = (task, found.stage())
        && matches!(&task.phase, TaskPhase::Working { attempt, .. } if *attempt == found.id)
    {
        let end = End { state, event, found, task, stage, outcome };
        changes.extend(end.consequences());
    }
    changes
}

/// Returns whether it is its setup that failed, and not what comes to an end by itself.
fn has_setup_failed(event: &Event, found: &Attempt) -> bool {
    let is_said = matches!(event.body, EventBody::Observation(Observation::SetupFailed { .. }));
    is_said && found.phase == AttemptPhase::Preparing
}

/// An ended work attempt with all that its consequences depend on.
struct End<'a> {
    state: &'a State,
    event: &'a Event,
    found: &'a Attempt,
    task: &'a Task,
    stage: &'a StageName,
    outcome: &'a Outcome,
}

impl End<'_> {
    fn consequences(&self) -> Vec<Change> {
        match self.outcome.class {
            Class::Completed => self.completed(),
            Class::ChangesRequested => {
                let mut changes = vec![self.tallied(|tally| tally.attempts += 1)];
                changes.extend(self.noted());
                let back = landing::SendBack {
                    from: Some(self.stage),
                    attempt: &self.found.id,
                    class: Class::ChangesRequested,
                    text: &self.outcome.reason,
                    merge_owed: self.task.merge_owed.clone(),
                    used: self.task.tally.attempts + 1,
                };
                changes.extend(landing::send_back(self.state, self.event.at, self.task, &back));
                changes
            }
            // The answer that a person gives is of use beside the question only.
            Class::Blocked => [vec![self.evidenced()], self.gave_up()].concat(),
            Class::Unstartable => self.gave_up(),
            // How often a provider's limit does that is bounded by its pause.
            Class::Stopped | Class::RateLimited | Class::Unauthorized => {
                self.passed_over(0).unwrap_or_else(|| vec![self.steered(None), self.ready()])
            }
            Class::Lost | Class::Infrastructure => self.infrastructure(),
            Class::Empty
            | Class::Incomplete
            | Class::Failed
            | Class::ChecksFailed
            | Class::ConflictLeft
            | Class::ContextExceeded
            | Class::TimedOut
            | Class::Silent
            | Class::Crashed => self.failed(),
            // Not classes of a work attempt.
            Class::Conflict | Class::LandingChecksFailed | Class::Dependency | Class::Budget => {
                self.gave_up()
            }
        }
    }

    fn completed(&self) -> Vec<Change> {
        let id = &self.task.id;
        let mut changes = vec![self.tallied(|tally| {
            tally.attempts += 1;
            tally.stage_failures = 0;
            tally.infrastructure = 0;
        })];
        if let Some(tip) = &self.found.saved {
            changes.push(of_task(id, TaskChange::TipMoved { tip: tip.clone() }));
        }
        changes.extend(self.noted());
        changes.push(of_task(id, TaskChange::Steered { steer: Box::default() }));
        let at = self.event.at;
        let used = self.task.tally.attempts + 1;
        let limit = self.state.settings.limits.attempts_per_task;
        let to = match stage::after(&self.state.settings, self.task, self.stage) {
            Some(stage) if used >= limit => TaskPhase::Blocked(Block {
                stage: Some(stage),
                is_landing: false,
                class: Class::Failed,
                reason: format!("used up its {limit} attempts"),
                since: at,
            }),
            Some(stage) => TaskPhase::Ready { stage },
            None if self.state.settings.project.isolation == Isolation::None => {
                TaskPhase::Completed { commit: None, at }
            }
            None => TaskPhase::Landing { entry: self.state.entries + 1 },
        };
        changes.push(of_task(id, TaskChange::Moved { to, at }));
        changes
    }

    /// What the agent wrote for the others, if it did.
    fn noted(&self) -> Option<Change> {
        let notes = self.found.exit.as_ref().map_or("", |exit| exit.notes.as_str());
        let text = keep_tail(notes, NOTES_BYTES_MAX).to_owned();
        let noted = TaskChange::Noted { stage: self.stage.clone(), text };
        (!notes.trim().is_empty()).then(|| of_task(&self.task.id, noted))
    }

    fn failed(&self) -> Vec<Change> {
        let limits = &self.state.settings.limits;
        let failures = self.task.tally.stage_failures + 1;
        let used = self.task.tally.attempts + 1;
        if let Some(changes) = self.passed_over(1).filter(|_| used < limits.attempts_per_task) {
            return changes;
        }
        let mut changes = vec![
            self.tallied(|tally| {
                tally.attempts += 1;
                tally.stage_failures += 1;
            }),
            self.evidenced(),
        ];
        if failures >= limits.attempts_per_stage || used >= limits.attempts_per_task {
            changes.extend(self.gave_up());
        } else {
            changes.extend([self.steered(None), self.ready(), self.backed_off(failures)]);
        }
        changes
    }

    fn infrastructure(&self) -> Vec<Change> {
        let known = self.task.tally.infrastructure;
        let has_failed = has_setup_failed(self.event, self.found);
        let failures = if has_failed { known + 1 } else { counted(self.state, known) };
        // Its own end says how it went; any other is that of saving what it left.
        let is_unsaved = matches!(self.found.phase, AttemptPhase::Saving | AttemptPhase::Advancing)
            && self.outcome.class == Class::Infrastructure
            && self.found.verdict.as_ref() != Some(self.outcome);
        if let Some(changes) = self.passed_over(0).filter(|_| !is_unsaved) {
            return changes;
        }
        let mut changes = vec![self.tallied(|tally| tally.infrastructure = failures)];
        if is_unsaved || failures > self.state.settings.limits.infrastructure_retries {
            changes.extend(self.gave_up());
            return changes;
        }
        let avoid = (self.outcome.class == Class::Lost).then(|| self.found.agent.clone());
        if resume::is_stuck(self.found, self.outcome.class) {
            changes.push(self.evidenced());
        }
        changes.extend([self.steered(avoid), self.ready(), self.backed_off(failures)]);
        changes
    }

    fn gave_up(&self) -> Vec<Change> {
        let at = self.event.at;
        let block = Block {
            stage: Some(self.stage.clone()),
            is_landing: false,
            class: self.outcome.class,
            reason: self.outcome.reason.clone(),
            since: at,
        };
        let to = TaskPhase::Blocked(block);
        vec![self.steered(None), of_task(&self.task.id, TaskChange::Moved { to, at })]
    }

    fn ready(&self) -> Change {
        let to = TaskPhase::Ready { stage: self.stage.clone() };
        of_task(&self.task.id, TaskChange::Moved { to, at: self.event.at })
    }

    /// The task was edited meanwhile, and goes on at another stage, so many attempts further.
    fn passed_over(&self, more: u32) -> Option<Vec<Change>> {
        stage::pass_over(&self.state.settings, self.task, self.stage, more, self.event.at)
    }

    fn backed_off(&self, failures: u32) -> Change {
        let delay = delay_ms(&self.state.settings.retry, failures, self.event.random);
        let until = Some(self.event.at.plus_ms(delay));
        of_task(&self.task.id, TaskChange::BackedOff { until })
    }

    fn evidenced(&self) -> Change {
        let reason = &self.outcome.reason;
        let exit = self.found.exit.as_ref();
        let text = match self.outcome.class {
            // The reason holds their output already.
            Class::ChecksFailed => reason.clone(),
            // What it had found out until then; what it printed last says nothing of the question.
            Class::Blocked => {
                format!("{reason}\n{}", exit.map_or("", |exit| exit.notes.trim())).trim().to_owned()
            }
            Class::Completed
            | Class::Empty
            | Class::Incomplete
            | Class::Failed
            | Class::ConflictLeft
            | Class::ChangesRequested
            | Class::RateLimited
            | Class::Unauthorized
            | Class::ContextExceeded
            | Class::TimedOut
            | Class::Silent
            | Class::Crashed
            | Class::Unstartable
            | Class::Lost
            | Class::Infrastructure
            | Class::Stopped
            | Class::Conflict
            | Class::LandingChecksFailed
            | Class::Dependency
            | Class::Budget => with_tail(reason, self.found),
        };
        let apart = resume::is_stuck(self.found, self.outcome.class).then(|| self.set_apart());
        let text = apart.unwrap_or_default() + &text;
        let evidence = Evidence {
            from: self.found.id.clone(),
            stage: self.stage.clone(),
            class: self.outcome.class,
            text: keep_ends(&text, EVIDENCE_BYTES_MAX),
        };
        of_task(&self.task.id, TaskChange::Evidenced { evidence })
    }

    /// Says where the work is that is not gone on from.
    fn set_apart(&self) -> String {
        let kept = match &self.task.continues {
            Some(id) if self.task.resume_from.is_some() => {
                format!("; what was done is kept at refs/pipeline/salvage/{id}")
            }
            Some(_) | None => String::new(),
        };
        format!("It went on from an earlier attempt and got no further: begin anew{kept}.\n")
    }

    fn steered(&self, avoid: Option<super::id::AgentName>) -> Change {
        let onward = Onward::after(self.task, self.found, self.outcome.class);
        let Onward { continues, resume_from } = onward;
        let (merge_owed, hint) = (self.task.merge_owed.clone(), self.task.hint.clone());
        let steer = Steer { merge_owed, resume_from, continues, avoid, hint, ..Steer::default() };
        of_task(&self.task.id, TaskChange::Steered { steer: Box::new(steer) })
    }

    fn tallied(&self, change: impl FnOnce(&mut super::task::Tally)) -> Change {
        let mut tally = self.task.tally;
        change(&mut tally);
        of_task(&self.task.id, TaskChange::Tallied { tally })
    }
}

fn completion_of(state: &State, found: &Attempt) -> Completion {
    let group = state.rules_of(found).group_of(&found.agent);
    group.map_or(Completion::Marker, |group| group.completion)
}

/// Returns the change that gives up the landing under way.
pub(super) fn no_landing() -> Change {
    lane(LaneChange::LandingSet { landing: None })
}
