//! What is decided when something was seen of the landing lane or the base.

use super::attempt::{Attempt, AttemptKind, Class, Outcome, Tries};
use super::change::{AttemptChange, Change, LaneChange, Steer, TaskChange};
use super::event::{Event, Observation};
use super::id::{AttemptId, Oid, StageName, TaskId};
use super::lane::{Dropping, Follow, Landing, LandingPhase, MANUAL};
use super::observe::{counted, no_landing, paused, with_tail};
use super::rollout;
use super::stage;
use super::state::State;
use super::step::{Step, attempt as of_attempt, lane, task as of_task};
use super::task::{Block, EVIDENCE_BYTES_MAX, Evidence, Task, TaskPhase, keep_ends};
use super::time::Time;
use super::turn::{base_check_due, landing_check};

/// Pause after a refusal that passes by itself (another git holds a lock), in milliseconds.
const FOLLOW_SOON_MS: u64 = 2_000;
/// Pause after a refusal that needs a person, in milliseconds.
const FOLLOW_LATER_MS: u64 = 15_000;

pub(super) fn decide(state: &State, event: &Event, seen: &Observation) -> Step {
    match seen {
        Observation::BaseSeen { tip, landed } => base_seen(state, event, tip, landed.as_ref()),
        // An answer that comes twice knows nothing of what has landed since.
        Observation::BaseTaken { .. } if state.base.is_taken() => {
            Step::note("the landing branch holds the base already")
        }
        Observation::BaseTaken { base, landed, has_all } => {
            base_taken(state, base, landed, *has_all)
        }
        Observation::BaseConflicts { base, paths } => base_conflicts(state, base, paths),
        Observation::LaneFaulted { why } => Step::accept(faulted(state, event, why)),
        Observation::Merged { task, number, commit, onto, protected } => {
            with(state, task, *number, |landing| {
                let made = Made { commit, onto, protected };
                merged(state, event, landing, &made)
            })
        }
        Observation::AlreadyLanded { task, number, commit } => {
            with(state, task, *number, |_| landed(event, task, commit, false))
        }
        Observation::MergeConflicts { task, number, onto, paths, with: others } => {
            with(state, task, *number, |landing| {
                conflicts(state, event, landing, onto, paths, others)
            })
        }
        Observation::Landed { task, number, commit } => with(state, task, *number, |_| {
            landed(event, task, commit, is_verified(state, task, commit))
        }),
        Observation::LandingRaced { task, number, found } => {
            with(state, task, *number, |landing| raced(state, event, landing, found.as_ref()))
        }
        Observation::Followed { to } => followed(state, to),
        Observation::PilotDropped { to, lost } => rollout::dropped(state, event.at, to, lost),
        Observation::HandLanded { from, tip, tasks } => {
            rollout::hand_landed(state, event.at, (from, tip), tasks)
        }
        Observation::FollowRefused { to, why, behind, is_passing } => {
            follow_refused(state, event, to, why, *behind, *is_passing)
        }
        Observation::MonitorStarted { .. }
        | Observation::MonitorEnded { .. }
        | Observation::Prepared { .. }
        | Observation::Briefed { .. }
        | Observation::Ordered { .. }
        | Observation::Started { .. }
        | Observation::Exited { .. }
        | Observation::Lost { .. }
        | Observation::Saved { .. }
        | Observation::WorktreeGone { .. }
        | Observation::CannotStart { .. }
        | Observation::Advanced { .. }
        | Observation::Forecast { .. }
        | Observation::AttemptFaulted { .. }
        | Observation::SetupFailed { .. }
        | Observation::OutsideSeen { .. }
        | Observation::BranchesSeen { .. }
        | Observation::ShortageSeen { .. }
        | Observation::AgentsSeen { .. }
        | Observation::ProvidersSeen { .. }
        | Observation::Proposed { .. }
        | Observation::NotProposed { .. }
        | Observation::OverloadSeen { .. } => Step::note("not of the lane"),
    }
}

fn base_taken(state: &State, base: &Oid, landed: &Oid, has_all: bool) -> Step {
    // Nor does the answer to an effect that is owed no longer; the new one finds out.
    if state.base.tip.as_ref() != Some(base) {
        return Step::note("the base moved on meanwhile");
    }
    let (base, landed) = (base.clone(), landed.clone());
    let mut changes = vec![lane(LaneChange::BaseTaken { base, landed })];
    if has_all && state.base.behind > 0 {
        let (follow, why) = (state.base.follow.clone(), state.base.why.clone());
        changes.push(lane(LaneChange::FollowSet { follow, why, behind: 0 }));
    }
    Step::accept(changes)
}

fn base_conflicts(state: &State, base: &Oid, paths: &[String]) -> Step {
    if state.base.tip.as_ref() != Some(base) {
        return Step::note("the base moved on meanwhile");
    }
    let paths = paths.join(", ");
    Step::accept(vec![lane(LaneChange::BaseConflicted { paths })])
}

fn followed(state: &State, to: &Oid) -> Step {
    if state.base.follow.as_ref().is_none_or(|follow| follow.to != *to) {
        return Step::note("the base is to follow elsewhere now");
    }
    Step::accept(vec![lane(LaneChange::BaseFollowed { to: to.clone() })])
}

/// Decides for the landing under way, if it is the one meant.
fn with(
    state: &State,
    task: &TaskId,
    number: u32,
    decide: impl FnOnce(&Landing) -> Vec<Change>,
) -> Step {
    match &state.landing {
        Some(landing) if landing.task == *task && landing.number == number => {
            Step::accept(decide(landing))
        }
        Some(_) | None => Step::note(format!("landing {number} of `{task}` is over")),
    }
}

fn base_seen(state: &State, event: &Event, tip: &Oid, landed: Option<&Oid>) -> Step {
    let base = &state.base;
    // Only the lane moves the landing branch. A look may be older than what has landed since, and
    // where somebody else moved it, the lane's next effect finds out.
    let is_gone = landed.is_none() && base.landed.is_some() && base.taken.is_some();
    let landed = base.landed.as_ref().or(landed);
    let mut changes = Vec::new();
    if base.dropping.as_ref().is_some_and(|dropping| dropping.to != *tip) {
        // What is on the base by now has landed, and stays.
        let dropping = Some(Dropping { to: tip.clone(), tries: Tries::default() });
        changes.push(lane(LaneChange::DropSet { dropping }));
    }
    if base.tip.as_ref() == Some(tip) && base.landed.as_ref() == landed && !is_gone {
        return Step::accept(changes);
    }
    let has_caught_up = landed == Some(tip);
    let is_stale = base.tip.as_ref() != Some(tip) && base.follow.is_some();
    if is_stale || (has_caught_up && base.behind > 0) {
        let behind = if has_caught_up { 0 } else { base.behind };
        // Where it is to go, but that git may have been killed on its way out: it is asked at once.
        let follow = base.follow.as_ref().filter(|_| has_caught_up).map(|follow| Follow {
            to: tip.clone(),
            tries: Tries { until: None, ..follow.tries.clone() },
            is_passing: follow.is_passing,
        });
        changes.push(lane(LaneChange::FollowSet { follow, why: None, behind }));
    }
    let (tip, landed) = (tip.clone(), landed.filter(|_| !is_gone).cloned());
    changes.push(lane(LaneChange::BaseSeen { tip, landed, at: event.at }));
    Step::accept(changes)
}

fn faulted(state: &State, event: &Event, why: &str) -> Vec<Change> {
    if let Some(dropping) = &state.base.dropping {
        let tries = paused(state, event, counted(state, dropping.tries.failed), why);
        return vec![rollout::not_dropped(dropping, tries)];
    }
    let Some(landing) = &state.landing else {
        let tries = paused(state, event, counted(state, state.base.take_tries.failed), why);
        return vec![lane(LaneChange::TakeStalled { tries })];
    };
    let failed = counted(state, landing.tries.failed);
    let is_moving = matches!(landing.phase, LandingPhase::Moving { .. });
    // Whether the branch was moved is not known then: given up, it might have landed all the same.
    if is_moving || failed <= state.settings.limits.infrastructure_retries {
        let tries = paused(state, event, failed, why);
        let landing = Some(Landing { tries, ..landing.clone() });
        return vec![lane(LaneChange::LandingSet { landing })];
    }
    let task = &state.tasks[&landing.task];
    let block = Block {
        stage: last_stage(state, task),
        is_landing: true,
        class: Class::Infrastructure,
        reason: format!("could not be landed: {why}"),
        since: event.at,
    };
    let moved = TaskChange::Moved { to: TaskPhase::Blocked(block), at: event.at };
    vec![no_landing(), of_task(&task.id, moved)]
}

fn last_stage(state: &State, task: &Task) -> Option<StageName> {
    let mut stages = state.settings.stages.iter().rev();
    stages.find(|stage| stage::applies(stage, task)).map(|stage| stage.id())
}

/// A merged commit.
struct Made<'a> {
    commit: &'a Oid,
    onto: &'a Oid,
    protected: &'a [String],
}

fn merged(state: &State, event: &Event, landing: &Landing, made: &Made<'_>) -> Vec<Change> {
    if landing.phase != LandingPhase::Merging {
        return Vec::new();
    }
    let task = &state.tasks[&landing.task];
    let is_approved = task.approved.is_some() && task.approved == task.tip;
    let is_manual = state.settings.landing.is_manual;
    if (is_manual || !made.protected.is_empty()) && !is_approved {
        let paths = made.protected.join(", ");
        let what = if paths.is_empty() { MANUAL.to_owned() } else { paths };
        return vec![no_landing(), of_task(&task.id, TaskChange::ApprovalAsked { what })];
    }
    let (commit, onto) = (made.commit.clone(), made.onto.clone());
    // Failures count on: a check that is lost each time must come to its bound.
    let mut next = landing.clone();
    next.tries.until = None;
    if state.settings.landing.checks.is_empty() {
        next.phase = LandingPhase::Moving { commit, onto };
        return vec![lane(LaneChange::LandingSet { landing: Some(next) })];
    }
    let kind = AttemptKind::LandingCheck { commit: commit.clone() };
    let check = landing_check(state, event.at, &task.id, kind, event.random);
    let id = check.id.clone();
    next.phase = LandingPhase::Checking { commit, onto, attempt: id.clone() };
    vec![
        of_attempt(&id, AttemptChange::Added { attempt: Box::new(check) }),
        lane(LaneChange::LandingSet { landing: Some(next) }),
    ]
}

/// Returns true when the checks of the present settings passed on a commit of the task.
fn is_verified(state: &State, task: &TaskId, commit: &Oid) -> bool {
    let kind = AttemptKind::LandingCheck { commit: commit.clone() };
    let mut checks = state.tasks[task].history.iter().filter(|old| old.kind == kind);
    checks.any(|check| {
        let is_passed = check.outcome.as_ref().is_some_and(|end| end.class == Class::Completed);
        is_passed && check.settings == state.settings.hash
    })
}

fn landed(event: &Event, id: &TaskId, commit: &Oid, is_verified: bool) -> Vec<Change> {
    let change = LaneChange::Landed { id: id.clone(), commit: commit.clone(), is_verified };
    let to = TaskPhase::Completed { commit: Some(commit.clone()), at: event.at };
    vec![lane(change), of_task(id, TaskChange::Moved { to, at: event.at })]
}

fn conflicts(
    state: &State,
    event: &Event,
    landing: &Landing,
    onto: &Oid,
    paths: &[String],
    with: &[TaskId],
) -> Vec<Change> {
    // Told late, after another try at the same merge was told: what came of that one goes on.
    if landing.phase != LandingPhase::Merging {
        return Vec::new();
    }
    let task = &state.tasks[&landing.task];
    let others: Vec<&str> = with.iter().map(TaskId::as_str).collect();
    let whose = if others.is_empty() {
        "what has landed".to_owned()
    } else {
        format!("what {} landed", others.join(", "))
    };
    let text = format!(
        "its work conflicts with {whose} in {}; the merge is prepared in the worktree",
        paths.join(", ")
    );
    let attempt = AttemptId::new(format!("{}.landing.{}", task.id, landing.number));
    let back = SendBack {
        from: None,
        attempt: &attempt,
        class: Class::Conflict,
        text: &text,
        merge_owed: Some(onto.clone()),
        used: task.tally.attempts,
    };
    let mut changes = vec![no_landing()];
    changes.extend(send_back(state, event.at, task, &back));
    changes
}

fn raced(state: &State, event: &Event, landing: &Landing, found: Option<&Oid>) -> Vec<Change> {
    // It stands where it is to be moved from, put back there: given up, another try that is still
    // under way would move it all the same.
    if matches!(&landing.phase, LandingPhase::Moving { onto, .. } if Some(onto) == found) {
        return faulted(state, event, "the landing branch was moved away, and is back");
    }
    let Some(tip) = state.base.tip.clone() else { return vec![no_landing()] };
    let seen = LaneChange::BaseSeen { tip, landed: found.cloned(), at: event.at };
    // Back into the lane: the next turn begins it anew, on what is there now.
    vec![no_landing(), lane(seen)]
}

fn follow_refused(
    state: &State,
    event: &Event,
    to: &Oid,
    why: &str,
    behind: u64,
    is_passing: bool,
) -> Step {
    let Some(follow) = state.base.follow.as_ref().filter(|follow| follow.to == *to) else {
        return Step::note("the base is to follow elsewhere now");
    };
    let pause = if is_passing { FOLLOW_SOON_MS } else { FOLLOW_LATER_MS };
    let tries = Tries {
        failed: follow.tries.failed + 1,
        until: Some(event.at.plus_ms(pause)),
        why: why.to_owned(),
    };
    // What has landed meanwhile goes along with the next try; it was not counted by this one.
    let to = state.base.landed.clone().unwrap_or_else(|| to.clone());
    let behind = if to == follow.to { behind } else { behind.max(state.base.behind) };
    let follow = Some(Follow { to, tries, is_passing });
    let why = Some(why.to_owned());
    Step::accept(vec![lane(LaneChange::FollowSet { follow, why, behind })])
}

/// The landing check is over.
pub(super) fn checked(
    state: &State,
    event: &Event,
    check: &Attempt,
    commit: &Oid,
    verdict: &Outcome,
) -> Vec<Change> {
    let Some(landing) = &state.landing else { return Vec::new() };
    let LandingPhase::Checking { onto, attempt, .. } = &landing.phase else { return Vec::new() };
    if *attempt != check.id {
        return Vec::new();
    }
    let mut next = landing.clone();
    match verdict.class {
        Class::Completed => {
            next.phase = LandingPhase::Moving { commit: commit.clone(), onto: onto.clone() };
            vec![lane(LaneChange::LandingSet { landing: Some(next) })]
        }
        Class::ChecksFailed if is_blameless(state, onto) => {
            blame(state, event.at, check, &verdict.reason, onto)
        }
        // Whether the task is at fault is not known before what it was merged onto is judged.
        Class::ChecksFailed => Vec::new(),
        // Back into the lane, which opens when the monitor runs again.
        Class::Stopped => vec![no_landing()],
        // Lost or not startable: the same commit is made and checked again.
        Class::Empty
        | Class::Incomplete
        | Class::Failed
        | Class::ConflictLeft
        | Class::Blocked
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
        | Class::Conflict
        | Class::LandingChecksFailed
        | Class::Dependency
        | Class::Budget => again(state, event, landing, &verdict.reason),
    }
}

/// A landing whose check failed, while nobody knows whether what it was merged onto passes.
pub(super) struct Disputed<'a> {
    task: &'a TaskId,
    check: &'a AttemptId,
    pub(super) onto: &'a Oid,
}

/// Returns the disputed landing: its check is over, and no verdict was drawn from it.
pub(super) fn disputed(state: &State) -> Option<Disputed<'_>> {
    let landing = state.landing.as_ref()?;
    let LandingPhase::Checking { onto, attempt, .. } = &landing.phase else { return None };
    let is_over = !state.attempts.contains_key(attempt);
    is_over.then_some(Disputed { task: &landing.task, check: attempt, onto })
}

/// Returns true when nothing lands until a person has done something about the base. On what is red
/// nothing passes; where a person said to go on all the same, it is tried.
#[must_use]
pub fn is_shut(state: &State) -> bool {
    let base = &state.base;
    let is_red = base.landed.as_ref().is_some_and(|landed| base.is_red_at(landed));
    base.conflict.is_some() || (is_red && !state.monitor.allows_red_base)
}

/// Returns true when a failed check on top of `onto` is not the fault of `onto`.
fn is_blameless(state: &State, onto: &Oid) -> bool {
    state.base.green.contains(onto) || state.monitor.allows_red_base
}

/// Settles a disputed landing as soon as what it was merged onto is judged, or cannot be judged.
pub(super) fn settle(state: &State, at: Time, changes: &mut Vec<Change>) {
    let Some(Disputed { task, check, onto }) = disputed(state) else { return };
    let base = &state.base;
    if is_blameless(state, onto) {
        let mut history = state.tasks[task].history.iter().rev();
        match history.find(|old| old.id == *check) {
            Some(check) => {
                let reason = check.outcome.as_ref().map_or("", |outcome| outcome.reason.as_str());
                changes.extend(blame(state, at, check, reason, onto));
            }
            None => changes.push(no_landing()),
        }
        return;
    }
    let is_red = base.is_red_at(onto);
    // During a shortage nothing is judged: back in the lane, it would be begun again at once.
    let is_short = state.shortage.is_some() && state.stopping.is_none();
    let is_awaited = is_short
        || base.checking.is_some()
        || base.check_tries.until.is_some()
        || base_check_due(state).is_some();
    if is_red || !is_awaited {
        // Back into the lane, which stays closed on what is red.
        changes.push(no_landing());
    }
}

/// Sends a task back whose landing check failed on top of what passes.
fn blame(state: &State, at: Time, check: &Attempt, reason: &str, onto: &Oid) -> Vec<Change> {
    let Some(landing) = &state.landing else { return Vec::new() };
    let task = &state.tasks[&landing.task];
    let text = with_tail(reason, check);
    let back = SendBack {
        from: None,
        attempt: &check.id,
        class: Class::LandingChecksFailed,
        text: &text,
        merge_owed: Some(onto.clone()),
        used: task.tally.attempts,
    };
    let mut changes = vec![no_landing()];
    changes.extend(send_back(state, at, task, &back));
    changes
}

/// Makes and checks the commit again after a pause; past the bound the task is blocked.
fn again(state: &State, event: &Event, landing: &Landing, why: &str) -> Vec<Change> {
    let failed = counted(state, landing.tries.failed);
    if failed > state.settings.limits.infrastructure_retries {
        return faulted(state, event, why);
    }
    let tries = paused(state, event, failed, why);
    let landing = Landing { phase: LandingPhase::Merging, tries, ..landing.clone() };
    vec![lane(LaneChange::LandingSet { landing: Some(landing) })]
}

/// The check of the base is over.
pub(super) fn base_checked(
    state: &State,
    event: &Event,
    check: &Attempt,
    commit: &Oid,
    verdict: &Outcome,
) -> Vec<Change> {
    // Ended on request, or judged by settings of old: the next turn owes a check anew.
    if verdict.class == Class::Stopped || check.settings != state.settings.hash {
        return Vec::new();
    }
    let commit = commit.clone();
    if verdict.class == Class::Completed {
        return vec![lane(LaneChange::BaseFoundGreen { commit })];
    }
    if verdict.class == Class::ChecksFailed {
        let text = with_tail(&verdict.reason, check);
        let tail = keep_ends(&text, EVIDENCE_BYTES_MAX);
        return vec![lane(LaneChange::BaseFoundRed { commit, tail })];
    }
    // It could not run, which says nothing of the commit: tried on, past the bound as well.
    let failed = counted(state, state.base.check_tries.failed);
    let tries = paused(state, event, failed, &verdict.reason);
    vec![lane(LaneChange::BaseCheckStalled { tries })]
}

/// Work that goes back to an earlier stage.
pub(super) struct SendBack<'a> {
    /// The stage that sends it; `None`: the landing.
    pub(super) from: Option<&'a StageName>,
    pub(super) attempt: &'a AttemptId,
    pub(super) class: Class,
    pub(super) text: &'a str,
    pub(super) merge_owed: Option<Oid>,
    /// Work attempts used up so far.
    pub(super) used: u32,
}

/// Sends a task back to the nearest earlier stage that must change something, within its bounds.
pub(super) fn send_back(state: &State, at: Time, task: &Task, back: &SendBack<'_>) -> Vec<Change> {
    let id = &task.id;
    let limits = &state.settings.limits;
    let target = stage::back_from(&state.settings, task, back.from);
    let stage = target.clone().or_else(|| back.from.cloned()).or_else(|| last_stage(state, task));
    let mut tally = task.tally;
    tally.attempts = back.used;
    tally.send_backs += 1;
    tally.stage_failures = 0;
    let steer = Steer { merge_owed: back.merge_owed.clone(), ..Steer::default() };
    let mut changes = vec![
        of_task(id, TaskChange::Tallied { tally }),
        of_task(id, TaskChange::Steered { steer: Box::new(steer) }),
    ];
    if let Some(stage) = stage.clone() {
        let text = keep_ends(back.text, EVIDENCE_BYTES_MAX);
        let evidence = Evidence { from: back.attempt.clone(), stage, class: back.class, text };
        changes.push(of_task(id, TaskChange::Evidenced { evidence }));
    }
    let is_within = tally.send_backs <= limits.send_backs && back.used < limits.attempts_per_task;
    let to = match target.filter(|_| is_within) {
        Some(stage) => TaskPhase::Ready { stage },
        None => TaskPhase::Blocked(Block {
            stage,
            is_landing: false,
            class: back.class,
            reason: back.text.to_owned(),
            since: at,
        }),
    };
    changes.push(of_task(id, TaskChange::Moved { to, at }));
    changes
}
