//! One JSON object per decision, for `pipeline log --json`.
//!
//! Tells what a person or a script would ask of a log; it is not the journal's own record.

use std::collections::BTreeMap;

use serde::Serialize;

use super::figures::dollars;
use super::forecast::ForecastEntry;
use super::words::{Stamp, attempt_kind, orchestration, rollout, task_of_attempt};
use crate::machine::attempt::{AttemptKind, Outcome, Tries};
use crate::machine::breaker::Breaker;
use crate::machine::change::{AttemptChange, Change, LaneChange, ProjectChange, TaskChange};
use crate::machine::event::StopKind;
use crate::machine::id::{AgentName, AttemptId, TaskId};
use crate::machine::lane::{Landing, LandingPhase};
use crate::machine::outside::Outside;
use crate::machine::provider::Pause;
use crate::machine::purse::{Bound, Level};
use crate::machine::task::TaskPhase;
use crate::machine::time::Time;

/// The object; what a decision does not have is left out.
#[derive(Debug, Default, Serialize)]
struct Entry<'a> {
    seq: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    time: Option<Stamp>,
    actor: &'a str,
    kind: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    task: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    attempt: Option<&'a str>,
    /// `work` or what is checked.
    #[serde(skip_serializing_if = "Option::is_none")]
    purpose: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    agent: Option<&'a str>,
    /// Of agents.
    #[serde(skip_serializing_if = "Option::is_none")]
    group: Option<&'a str>,
    /// Whose models agents use.
    #[serde(skip_serializing_if = "Option::is_none")]
    provider: Option<&'a str>,
    /// Agents it is to have.
    #[serde(skip_serializing_if = "Option::is_none")]
    count: Option<u32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    stage: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    to: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    class: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    reason: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    commit: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    title: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    until: Option<Stamp>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pid: Option<u32>,
    /// What changed outside of the worktrees while it ran.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    found: Vec<&'a str>,
    /// As much that is not named.
    #[serde(skip_serializing_if = "Option::is_none")]
    more: Option<u64>,
    /// Attempts that ran meanwhile too.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    beside: Vec<&'a str>,
    /// Failures so far.
    #[serde(skip_serializing_if = "Option::is_none")]
    failed: Option<u32>,
    /// Of `[limits]`.
    #[serde(skip_serializing_if = "Option::is_none")]
    bound: Option<&'static str>,
    /// Of the bound, in dollars or attempts.
    #[serde(skip_serializing_if = "Option::is_none")]
    used: Option<f64>,
    /// In dollars or attempts.
    #[serde(skip_serializing_if = "Option::is_none")]
    limit: Option<f64>,
    /// Landings that the base lacks.
    #[serde(skip_serializing_if = "Option::is_none")]
    behind: Option<u64>,
    /// What a branch would conflict with.
    #[serde(skip_serializing_if = "Option::is_none")]
    forecast: Option<Vec<ForecastEntry<'a>>>,
    /// Hash of a prompt file of the project.
    #[serde(skip_serializing_if = "Option::is_none")]
    prompt: Option<&'a str>,
    /// Hash of a preset file.
    #[serde(skip_serializing_if = "Option::is_none")]
    preset: Option<&'a str>,
    /// The attempt that one goes on from.
    #[serde(skip_serializing_if = "Option::is_none")]
    continues: Option<&'a str>,
    /// The session that is taken up again.
    #[serde(skip_serializing_if = "Option::is_none")]
    session: Option<&'a str>,
}

/// Returns one decision of the transaction `seq` as a JSON object, without a line feed.
#[must_use]
pub fn json_line(seq: u64, time: Time, actor: &str, change: &Change) -> String {
    let entry = match change {
        Change::Project(change) => of_project(change),
        Change::Task(id, change) => {
            Entry { task: Some(id.as_str()), ..of_task(id.as_str(), change) }
        }
        Change::Attempt(id, change) => of_attempt(id, change),
        Change::Lane(change) => of_lane(change),
    };
    let entry = Entry { seq, time: Some(Stamp(time)), actor, ..entry };
    serde_json::to_string(&entry).expect("every key is a string")
}

fn kind(kind: &'static str) -> Entry<'static> {
    Entry { kind, ..Entry::default() }
}

const fn yes_or_no(flag: bool, yes: &'static str, no: &'static str) -> &'static str {
    if flag { yes } else { no }
}

fn chosen<'a>(word: &'static str, id: Option<&'a TaskId>) -> Entry<'a> {
    Entry { task: id.map(TaskId::as_str), ..kind(word) }
}

fn lacking<'a>(what: Option<&'a str>, began: &'static str, ended: &'static str) -> Entry<'a> {
    Entry { reason: what, ..kind(yes_or_no(what.is_some(), began, ended)) }
}

fn reasoned(why: &str, is_fallback: bool) -> Entry<'_> {
    let word = yes_or_no(is_fallback, "rollout_fell_back", "rollout_reasoned");
    Entry { reason: Some(why), ..kind(word) }
}

fn compared<'a>(id: &'a TaskId, difference: Option<&'a str>) -> Entry<'a> {
    let word = yes_or_no(difference.is_none(), "agreed", "differed");
    Entry { task: Some(id.as_str()), reason: difference, ..kind(word) }
}

const fn stop_word(kind: StopKind) -> &'static str {
    match kind {
        StopKind::Leave => "leave",
        StopKind::Drain => "drain",
        StopKind::Now => "now",
    }
}

fn usable<'a>(agent: &'a str, why: Option<&'a str>) -> Entry<'a> {
    let entry = kind(yes_or_no(why.is_some(), "agent_unusable", "agent_usable"));
    Entry { agent: Some(agent), reason: why, ..entry }
}

fn of_breaker<'a>(agent: &'a str, breaker: &Breaker) -> Entry<'a> {
    Entry {
        agent: Some(agent),
        failed: Some(breaker.failures),
        until: breaker.until.map(Stamp),
        ..kind("agent_breaker_set")
    }
}

fn of_budget(bound: Bound, level: Level, used: u64, limit: u64) -> Entry<'static> {
    let amount = |count: u64| match bound {
        Bound::Attempts => count as f64,
        Bound::Cost | Bound::TaskCost => dollars(count),
    };
    Entry {
        bound: Some(bound.key()),
        used: Some(amount(used)),
        limit: Some(amount(limit)),
        ..kind(yes_or_no(level == Level::Near, "budget_near", "budget_reached"))
    }
}

fn of_pause<'a>(provider: &'a str, pause: Option<&'a Pause>) -> Entry<'a> {
    let entry = match pause {
        Some(pause) if pause.is_refused => kind("provider_refused"),
        Some(pause) if pause.until.is_some() => kind("provider_paused"),
        Some(pause) if !pause.is_resumed() => kind("provider_tried_again"),
        Some(_) | None => kind("provider_resumed"),
    };
    let refused = pause.filter(|pause| !pause.is_resumed());
    Entry {
        provider: Some(provider),
        reason: refused.map(|pause| pause.why.as_str()),
        until: pause.and_then(|pause| pause.until).map(Stamp),
        ..entry
    }
}

fn branches_held(held: &BTreeMap<String, String>) -> Entry<'_> {
    Entry { found: held.keys().map(String::as_str).collect(), ..kind("branches_held") }
}

fn refused<'a>(task: &'a TaskId, agent: &'a AgentName, why: &'a str) -> Entry<'a> {
    let entry = Entry { reason: Some(why), ..kind("proposal_refused") };
    Entry { task: Some(task.as_str()), agent: Some(agent.as_str()), ..entry }
}

fn of_project(change: &ProjectChange) -> Entry<'_> {
    match change {
        ProjectChange::SettingsAdopted { settings, .. } => {
            Entry { to: Some(&settings.hash), ..kind("settings_adopted") }
        }
        ProjectChange::MonitorStarted { pid, .. } => {
            Entry { pid: Some(*pid), ..kind("monitor_started") }
        }
        ProjectChange::MonitorEnded { why, .. } => {
            Entry { reason: Some(why), ..kind("monitor_ended") }
        }
        ProjectChange::StopRequested { kind: stop } => {
            Entry { to: Some(stop_word(*stop)), ..kind("stop_requested") }
        }
        ProjectChange::PauseSet { is_paused } => kind(yes_or_no(*is_paused, "paused", "resumed")),
        ProjectChange::AgentPauseSet { name, is_paused } => {
            let entry = kind(yes_or_no(*is_paused, "agent_paused", "agent_resumed"));
            Entry { agent: Some(name.as_str()), ..entry }
        }
        ProjectChange::AgentUnusable { name, why } => usable(name.as_str(), why.as_deref()),
        ProjectChange::AgentsScaled { group, target, why, .. } => Entry {
            group: Some(group),
            count: Some(target.count),
            reason: Some(why),
            ..kind("agents_scaled")
        },
        ProjectChange::BreakerSet { name, breaker } => of_breaker(name.as_str(), breaker),
        ProjectChange::ProviderSet { name, pause } => of_pause(name, pause.as_deref()),
        ProjectChange::ProvidersSet { .. } => kind("providers_set"),
        ProjectChange::ModeSwitched { to } => {
            Entry { to: Some(orchestration(*to)), ..kind("mode_switched") }
        }
        ProjectChange::DrainSet { drain } => Entry {
            to: drain.map(|drain| orchestration(drain.to)),
            until: drain.map(|drain| Stamp(drain.until)),
            ..kind("drain_set")
        },
        ProjectChange::RolloutSet { to } => Entry { to: Some(rollout(*to)), ..kind("rollout_set") },
        ProjectChange::RolloutReasoned { why, is_fallback, .. } => reasoned(why, *is_fallback),
        ProjectChange::Compared { id, difference } => compared(id, difference.as_deref()),
        ProjectChange::CurrentTaskSet { id } => chosen("current_task_set", id.as_ref()),
        ProjectChange::CollectingSet { id } => chosen("collecting_set", id.as_ref()),
        ProjectChange::ShortageSet { what } => {
            lacking(what.as_deref(), "shortage_began", "shortage_ended")
        }
        ProjectChange::OverloadSet { what } => {
            lacking(what.as_deref(), "overload_began", "overload_ended")
        }
        ProjectChange::FoundOutside { found } => outside("found_outside", found),
        ProjectChange::BranchesHeld { held } => branches_held(held),
        ProjectChange::ProposalSet { .. } => kind("proposal_set"),
        ProjectChange::ProposalFaulted { why, .. } => {
            Entry { reason: Some(why), ..kind("proposal_faulted") }
        }
        ProjectChange::ProposalRefused { task, agent, why } => refused(task, agent, why),
        ProjectChange::BudgetTold { bound, level, task, used, limit } => Entry {
            task: task.as_ref().map(TaskId::as_str),
            ..of_budget(*bound, *level, *used, *limit)
        },
        ProjectChange::Weighed { .. } => kind("weighed"),
        ProjectChange::WouldStart { id, stage, agent } => Entry {
            task: Some(id.as_str()),
            stage: Some(stage.as_str()),
            agent: agent.as_ref().map(|agent| agent.as_str()),
            ..kind("would_start")
        },
    }
}

fn of_task<'a>(id: &'a str, change: &'a TaskChange) -> Entry<'a> {
    match change {
        TaskChange::Added { task } => Entry { title: Some(&task.spec.title), ..kind("task_added") },
        TaskChange::Edited { spec, .. } => {
            Entry { title: Some(&spec.title), ..kind("task_edited") }
        }
        TaskChange::HeldSet { is_held } => kind(yes_or_no(*is_held, "task_held", "task_released")),
        TaskChange::Moved { to, .. } => moved(to),
        TaskChange::BackedOff { until } => {
            Entry { until: until.map(Stamp), ..kind("task_backed_off") }
        }
        TaskChange::Tallied { tally } => {
            Entry { failed: Some(tally.stage_failures), ..kind("task_tallied") }
        }
        TaskChange::Noted { stage, .. } => {
            Entry { stage: Some(stage.as_str()), ..kind("task_noted") }
        }
        TaskChange::Evidenced { evidence } => Entry {
            stage: Some(evidence.stage.as_str()),
            attempt: Some(evidence.from.as_str()),
            class: Some(evidence.class.word()),
            reason: Some(&evidence.text),
            ..kind("task_evidenced")
        },
        TaskChange::Steered { steer } => {
            let continues = steer.continues.as_ref().map(|id| id.as_str());
            let commit = steer.resume_from.as_ref().map(|oid| oid.as_str());
            Entry { reason: steer.hint.as_deref(), continues, commit, ..kind("task_steered") }
        }
        TaskChange::ApprovalAsked { what } => {
            Entry { reason: Some(what), ..kind("task_approval_asked") }
        }
        TaskChange::Approved { tip } => {
            let entry = kind(yes_or_no(tip.is_some(), "task_approved", "task_approval_ended"));
            Entry { commit: tip.as_ref().map(|tip| tip.as_str()), ..entry }
        }
        TaskChange::Taken { taken } => Entry {
            reason: Some(&taken.dir),
            commit: Some(taken.from.as_str()),
            ..kind("task_taken")
        },
        TaskChange::Given { commit } => {
            Entry { commit: Some(commit.as_str()), ..kind("task_given") }
        }
        TaskChange::DoneByHand { commit } => {
            let commit = commit.as_ref().map(|commit| commit.as_str());
            Entry { commit, ..kind("task_done_by_hand") }
        }
        TaskChange::Unserved { what } => Entry { reason: what.as_deref(), ..kind("task_unserved") },
        TaskChange::Forecast { clashes, .. } => {
            let entries = clashes.iter().map(|clash| ForecastEntry::new(id, clash)).collect();
            Entry { forecast: Some(entries), ..kind("task_forecast") }
        }
        TaskChange::BranchChanged { .. } => kind("task_branch_changed"),
        TaskChange::TipMoved { tip } => {
            Entry { commit: Some(tip.as_str()), ..kind("task_tip_moved") }
        }
    }
}

fn moved(to: &TaskPhase) -> Entry<'_> {
    let moved = |to: &'static str| Entry { to: Some(to), ..kind("task_moved") };
    match to {
        TaskPhase::Waiting => moved("unassigned"),
        TaskPhase::Ready { stage } => Entry { stage: Some(stage.as_str()), ..moved("ready") },
        TaskPhase::Working { stage, attempt } => {
            Entry { stage: Some(stage.as_str()), attempt: Some(attempt.as_str()), ..moved("wip") }
        }
        TaskPhase::Landing { .. } => moved("landing"),
        TaskPhase::Blocked(block) => Entry {
            stage: block.stage.as_ref().map(|stage| stage.as_str()),
            class: Some(block.class.word()),
            reason: Some(&block.reason),
            ..moved("blocked")
        },
        TaskPhase::Completed { commit, .. } => {
            let commit = commit.as_ref().map(|commit| commit.as_str());
            Entry { commit, ..moved("completed") }
        }
        TaskPhase::Cancelled { .. } => moved("cancelled"),
    }
}

fn judged<'a>(name: &'static str, outcome: &'a Outcome) -> Entry<'a> {
    let reason = Some(outcome.reason.as_str()).filter(|reason| !reason.is_empty());
    Entry { class: Some(outcome.class.word()), reason, ..kind(name) }
}

fn stalled<'a>(name: &'static str, tries: &'a Tries) -> Entry<'a> {
    let reason = Some(tries.why.as_str());
    Entry { until: tries.until.map(Stamp), failed: Some(tries.failed), reason, ..kind(name) }
}

fn of_attempt<'a>(id: &'a AttemptId, change: &'a AttemptChange) -> Entry<'a> {
    let entry = match change {
        AttemptChange::Added { attempt } => {
            let commit = match &attempt.kind {
                AttemptKind::LandingCheck { commit } | AttemptKind::BaseCheck { commit } => {
                    Some(commit.as_str())
                }
                AttemptKind::Work { .. } | AttemptKind::StageCheck { .. } => None,
            };
            Entry {
                purpose: Some(attempt_kind(&attempt.kind)),
                agent: Some(attempt.agent.as_str()),
                stage: attempt.stage().map(|stage| stage.as_str()),
                commit,
                continues: attempt.continues.as_ref().map(|id| id.as_str()),
                ..kind("attempt_added")
            }
        }
        AttemptChange::Prepared { base, .. } => {
            Entry { commit: base.as_ref().map(|base| base.as_str()), ..kind("attempt_prepared") }
        }
        AttemptChange::Briefed { prompt } => {
            Entry { prompt: Some(prompt), ..kind("attempt_briefed") }
        }
        AttemptChange::Ordered { preset, session } => {
            Entry { preset: Some(preset), session: session.as_deref(), ..kind("attempt_ordered") }
        }
        AttemptChange::Started { .. } => kind("attempt_started"),
        AttemptChange::StopRequested => kind("attempt_stop_requested"),
        AttemptChange::Exited { verdict, .. } => judged("attempt_exited", verdict),
        AttemptChange::Saved { commit } => {
            Entry { commit: commit.as_ref().map(|oid| oid.as_str()), ..kind("attempt_saved") }
        }
        AttemptChange::Judged { verdict } => judged("attempt_judged", verdict),
        AttemptChange::Checking => kind("attempt_checking"),
        AttemptChange::Advancing => kind("attempt_advancing"),
        AttemptChange::Stalled { tries } => stalled("attempt_stalled", tries),
        AttemptChange::Ended { outcome, .. } => judged("attempt_ended", outcome),
        AttemptChange::FoundOutside { found, .. } => outside("attempt_found_outside", found),
    };
    Entry { task: task_of_attempt(id), attempt: Some(id.as_str()), ..entry }
}

fn outside<'a>(name: &'static str, found: &'a Outside) -> Entry<'a> {
    Entry {
        found: found.found.iter().map(String::as_str).collect(),
        more: Some(found.more).filter(|more| *more > 0),
        beside: found.beside.iter().map(|id| id.as_str()).collect(),
        ..kind(name)
    }
}

fn of_lane(change: &LaneChange) -> Entry<'_> {
    match change {
        LaneChange::BaseSeen { tip, .. } => {
            Entry { commit: Some(tip.as_str()), ..kind("base_seen") }
        }
        LaneChange::BaseTaken { base, .. } => {
            Entry { commit: Some(base.as_str()), ..kind("base_taken") }
        }
        LaneChange::BaseConflicted { paths } => {
            Entry { reason: Some(paths), ..kind("base_conflicted") }
        }
        LaneChange::TakeStalled { tries } => stalled("take_stalled", tries),
        LaneChange::BaseCheckBegun { id } => {
            Entry { attempt: Some(id.as_str()), ..kind("base_check_begun") }
        }
        LaneChange::BaseCheckStalled { tries } => stalled("base_check_stalled", tries),
        LaneChange::BaseFoundGreen { commit } => {
            Entry { commit: Some(commit.as_str()), ..kind("base_found_green") }
        }
        LaneChange::BaseFoundRed { commit, tail } => {
            Entry { commit: Some(commit.as_str()), reason: Some(tail), ..kind("base_found_red") }
        }
        LaneChange::LandingSet { landing } => {
            landing.as_ref().map_or_else(|| kind("landing_set"), landing_set)
        }
        LaneChange::Landed { id, commit, .. } => {
            Entry { task: Some(id.as_str()), commit: Some(commit.as_str()), ..kind("landed") }
        }
        LaneChange::FollowSet { follow, why, behind } => Entry {
            commit: follow.as_ref().map(|follow| follow.to.as_str()),
            reason: why.as_deref(),
            behind: Some(*behind),
            ..kind("follow_set")
        },
        LaneChange::BaseFollowed { to } => {
            Entry { commit: Some(to.as_str()), ..kind("base_followed") }
        }
        LaneChange::DropSet { dropping } => Entry {
            commit: dropping.as_ref().map(|dropping| dropping.to.as_str()),
            reason: dropping.as_ref().map(|it| it.tries.why.as_str()).filter(|why| !why.is_empty()),
            ..kind("drop_set")
        },
        LaneChange::PilotDropped { to } => {
            Entry { commit: Some(to.as_str()), ..kind("pilot_dropped") }
        }
    }
}

fn landing_set(landing: &Landing) -> Entry<'_> {
    let (to, commit) = match &landing.phase {
        LandingPhase::Merging => ("merging", None),
        LandingPhase::Checking { commit, .. } => ("checking", Some(commit)),
        LandingPhase::Moving { commit, .. } => ("moving", Some(commit)),
    };
    let tries = &landing.tries;
    Entry {
        task: Some(landing.task.as_str()),
        to: Some(to),
        commit: commit.map(|commit| commit.as_str()),
        reason: tries.until.map(|_| tries.why.as_str()),
        until: tries.until.map(Stamp),
        ..kind("landing_set")
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::json_line;
    use crate::machine::Command;
    use crate::observe::support::{End, Pipeline, settings, task};

    fn last(pipeline: &Pipeline) -> Vec<Value> {
        let lines = pipeline.last.iter().map(|change| {
            let line = json_line(pipeline.seq, pipeline.now, "monitor:4711", change);
            assert!(!line.contains('\n'), "{line}");
            serde_json::from_str(&line).expect("an object")
        });
        lines.collect()
    }

    #[test]
    fn each_change_is_one_object_with_its_facts() {
        let mut pipeline = Pipeline::started(settings(), Vec::new());
        pipeline.send(Command::AddTasks { tasks: vec![task("A", &[])] });
        let added = json!({"seq": pipeline.seq, "time": "2026-11-20T23:00:00.000Z",
            "actor": "monitor:4711", "kind": "task_added", "task": "A", "title": "Title of A"});
        assert_eq!(last(&pipeline), [added]);
        pipeline.turn();
        pipeline.run("A.arch.1", End::Status(3));
        let seen = last(&pipeline);
        let ended = seen.iter().find(|entry| entry["kind"] == "attempt_ended").expect("it ended");
        assert_eq!((&ended["task"], &ended["attempt"]), (&json!("A"), &json!("A.arch.1")));
        assert_eq!(ended["class"], "failed");
        assert_eq!(ended["reason"], "exited with status 3");
        let moved = seen.iter().find(|entry| entry["kind"] == "task_moved").expect("it moved");
        assert_eq!((&moved["to"], &moved["stage"]), (&json!("ready"), &json!("architect")));
    }

    #[test]
    fn a_landing_carries_its_commit() {
        let mut pipeline = Pipeline::started(settings(), vec![task("A", &[])]);
        pipeline.run_stages("A");
        pipeline.land("A");
        let seen = last(&pipeline);
        assert_eq!(seen[0]["kind"], "landed");
        assert_eq!(seen[0]["commit"], "c".repeat(40));
        assert_eq!(seen[1]["to"], "completed");
    }
}
