//! One readable line per decision, for `pipeline log` and the monitor's plain output.

use super::forecast::{self, ForecastEntry};
use super::outside;
use super::page::{clean, first_line};
use super::purse;
use super::words::{
    self, Stamp, attempt_words, branch_at, landings, short_oid, span, task_of_attempt,
};
use crate::machine::State;
use crate::machine::attempt::{Attempt, AttemptKind, Class, Outcome};
use crate::machine::breaker::Breaker;
use crate::machine::change::{AttemptChange, Change, LaneChange, ProjectChange, TaskChange};
use crate::machine::event::StopKind;
use crate::machine::id::{AgentName, AttemptId, TaskId};
use crate::machine::lane::{Follow, Landing};
use crate::machine::provider::{Pause, refusal_words};
use crate::machine::settings::Settings;
use crate::machine::task::{Block, TaskPhase};

/// Returns the lines of one transaction; a failed attempt's line also says when it is tried again.
///
/// Of `state` only the settings are used, so that old transactions read the same as new ones.
#[must_use]
pub fn lines(changes: &[Change], state: &State) -> Vec<String> {
    let spoken = changes.iter().enumerate().filter_map(|(place, change)| {
        let line = line(change, state)?;
        let more = match change {
            Change::Attempt(id, AttemptChange::Ended { outcome, .. }) => {
                again(id, outcome, &changes[place + 1..], state)
            }
            Change::Project(_) | Change::Task(..) | Change::Attempt(..) | Change::Lane(_) => None,
        };
        Some(more.map_or_else(|| line.clone(), |more| format!("{line} ({more})")))
    });
    spoken.collect()
}

/// Returns what the rest of a transaction says of the next try.
fn again(id: &AttemptId, outcome: &Outcome, rest: &[Change], state: &State) -> Option<String> {
    let words = attempt_words(&state.settings, id);
    if words.is_check {
        return None;
    }
    let of_task = rest.iter().filter_map(|change| match change {
        Change::Task(task, change) if Some(task.as_str()) == words.task => Some(change),
        Change::Project(_) | Change::Task(..) | Change::Attempt(..) | Change::Lane(_) => None,
    });
    let until = of_task.clone().find_map(|change| {
        if let TaskChange::BackedOff { until } = change { *until } else { None }
    })?;
    let pause = span(until.ms_since(outcome.at));
    let tally = of_task.clone().find_map(|change| {
        if let TaskChange::Tallied { tally } = change { Some(*tally) } else { None }
    });
    let limit = state.settings.limits.attempts_per_stage;
    match (outcome.class, tally) {
        (Class::Lost | Class::Infrastructure, _) | (_, None) => Some(format!("again in {pause}")),
        (_, Some(tally)) => Some(format!("try {} of {limit} in {pause}", tally.stage_failures + 1)),
    }
}

/// Returns one line for a decision, `None` for mere bookkeeping. No time, no line feed.
///
/// Of `state` only the settings are used: what happened is in the change.
#[must_use]
pub fn line(change: &Change, state: &State) -> Option<String> {
    match change {
        Change::Project(change) => of_project(change),
        Change::Task(id, change) => of_task(id, change),
        Change::Attempt(id, change) => of_attempt(state, id, change),
        Change::Lane(change) => of_lane(state, change),
    }
}

/// Returns the task that a decision is about; `None`: the whole, an agent, or the base.
#[must_use]
pub fn task_of(change: &Change) -> Option<&str> {
    match change {
        Change::Task(id, _) => Some(id.as_str()),
        Change::Attempt(id, _) => task_of_attempt(id),
        Change::Lane(LaneChange::Landed { id, .. }) => Some(id.as_str()),
        Change::Lane(LaneChange::LandingSet { landing }) => {
            landing.as_ref().map(|landing| landing.task.as_str())
        }
        Change::Project(
            ProjectChange::WouldStart { id, .. }
            | ProjectChange::Compared { id, .. }
            | ProjectChange::ProposalRefused { task: id, .. }
            | ProjectChange::CurrentTaskSet { id: Some(id) }
            | ProjectChange::CollectingSet { id: Some(id) }
            | ProjectChange::BudgetTold { task: Some(id), .. },
        ) => Some(id.as_str()),
        Change::Lane(
            LaneChange::BaseSeen { .. }
            | LaneChange::BaseTaken { .. }
            | LaneChange::BaseConflicted { .. }
            | LaneChange::TakeStalled { .. }
            | LaneChange::BaseCheckBegun { .. }
            | LaneChange::BaseCheckStalled { .. }
            | LaneChange::BaseFoundGreen { .. }
            | LaneChange::BaseFoundRed { .. }
            | LaneChange::FollowSet { .. }
            | LaneChange::BaseFollowed { .. }
            | LaneChange::DropSet { .. }
            | LaneChange::PilotDropped { .. },
        )
        | Change::Project(
            ProjectChange::SettingsAdopted { .. }
            | ProjectChange::AgentUnusable { .. }
            | ProjectChange::MonitorStarted { .. }
            | ProjectChange::MonitorEnded { .. }
            | ProjectChange::StopRequested { .. }
            | ProjectChange::PauseSet { .. }
            | ProjectChange::AgentPauseSet { .. }
            | ProjectChange::AgentsScaled { .. }
            | ProjectChange::BreakerSet { .. }
            | ProjectChange::ProviderSet { .. }
            | ProjectChange::ProvidersSet { .. }
            | ProjectChange::ModeSwitched { .. }
            | ProjectChange::DrainSet { .. }
            | ProjectChange::RolloutSet { .. }
            | ProjectChange::RolloutReasoned { .. }
            | ProjectChange::CurrentTaskSet { id: None }
            | ProjectChange::CollectingSet { id: None }
            | ProjectChange::BudgetTold { task: None, .. }
            | ProjectChange::Weighed { .. }
            | ProjectChange::ProposalSet { .. }
            | ProjectChange::ProposalFaulted { .. }
            | ProjectChange::FoundOutside { .. }
            | ProjectChange::BranchesHeld { .. }
            | ProjectChange::ShortageSet { .. }
            | ProjectChange::OverloadSet { .. },
        ) => None,
    }
}

fn usable(agent: &AgentName, why: Option<&str>) -> String {
    match why {
        Some(why) => format!("agent {agent} cannot start: {}", first_line(why)),
        None => format!("agent {agent} can start again"),
    }
}

const fn stops(kind: StopKind) -> &'static str {
    match kind {
        StopKind::Leave => "agents keep running",
        StopKind::Drain => "agents are waited for",
        StopKind::Now => "agents are ended, their work saved",
    }
}

fn failing(name: &AgentName, breaker: &Breaker) -> Option<String> {
    match breaker.until {
        Some(_) => {
            let pause = span(breaker.pause_ms());
            let failed = match breaker.failures {
                1 => "failed".to_owned(),
                failures => format!("failed {failures} times in a row"),
            };
            Some(format!("agent {name} {failed}: gets nothing for {pause}"))
        }
        None if breaker.is_on_trial() => Some(format!("agent {name} is given another trial")),
        None => None,
    }
}

/// Says how a provider stands; a pause that is over is said by what starts then.
fn served(name: &str, pause: Option<&Pause>) -> Option<String> {
    let Some(pause) = pause else { return Some(format!("{name} serves its agents again")) };
    if pause.is_refused {
        let (words, command) = (refusal_words(name, pause), pause.command());
        return Some(format!("{words}; needs a person: {command}"));
    }
    if pause.is_resumed() {
        return served(name, None);
    }
    let left = span(pause.until?.ms_since(pause.since));
    Some(format!("{name} has reached a limit: its agents get nothing for {left}"))
}

fn of_project(change: &ProjectChange) -> Option<String> {
    Some(match change {
        ProjectChange::SettingsAdopted { settings, .. } => {
            format!("settings adopted ({})", settings.hash)
        }
        ProjectChange::MonitorStarted { pid, allows_red_base, .. } => {
            let red = if *allows_red_base { ", a red base allowed" } else { "" };
            format!("monitor {pid} started{red}")
        }
        ProjectChange::MonitorEnded { why, .. } => format!("monitor ended: {}", first_line(why)),
        ProjectChange::StopRequested { kind } => format!("stop requested: {}", stops(*kind)),
        ProjectChange::PauseSet { is_paused: true } => "paused".into(),
        ProjectChange::PauseSet { is_paused: false } => "resumed".into(),
        ProjectChange::AgentPauseSet { name, is_paused } => {
            format!("agent {name} {}", if *is_paused { "paused" } else { "resumed" })
        }
        ProjectChange::AgentUnusable { name, why } => usable(name, why.as_deref()),
        ProjectChange::AgentsScaled { group, target, why, .. } => {
            format!("agents of {group}: {} from now on: {}", target.count, first_line(why))
        }
        ProjectChange::BreakerSet { name, breaker } => failing(name, breaker)?,
        ProjectChange::ProviderSet { name, pause } => served(name, pause.as_deref())?,
        ProjectChange::ModeSwitched { to } => format!("mode {}", words::orchestration(*to)),
        ProjectChange::DrainSet { drain: Some(drain) } => {
            let (to, until) = (words::orchestration(drain.to), Stamp(drain.until));
            format!("mode {to} as soon as no agent works, at the latest {until}")
        }
        ProjectChange::DrainSet { drain: None } => "the switch of mode was given up".into(),
        ProjectChange::RolloutSet { to } => format!("rollout {}", words::rollout(*to)),
        ProjectChange::RolloutReasoned { why, .. } => format!("rollout: {}", first_line(why)),
        ProjectChange::Compared { id, difference } => compared(id, difference.as_deref()),
        ProjectChange::CurrentTaskSet { id } => {
            return id.as_ref().map(|id| format!("{id} is the current task"));
        }
        ProjectChange::CollectingSet { id } => {
            let id = id.as_ref()?;
            format!("{id} has its turn: what it needs is kept for it until it can start")
        }
        ProjectChange::ShortageSet { what: Some(what) }
        | ProjectChange::OverloadSet { what: Some(what) } => {
            format!("nothing new starts, running agents go on: {}", first_line(what))
        }
        ProjectChange::ShortageSet { what: None } => "there is room again: going on".into(),
        ProjectChange::OverloadSet { what: None } => {
            "the load is no longer above the limit: going on".into()
        }
        ProjectChange::FoundOutside { found } => outside::by_nobody(found),
        ProjectChange::BranchesHeld { held } => outside::held(held),
        ProjectChange::ProposalFaulted { why, .. } => {
            format!("external scheduler: {}; the built-in one decides", first_line(why))
        }
        ProjectChange::ProposalRefused { task, agent, why } => {
            let why = first_line(why);
            format!("external scheduler: {task} → {agent} is refused: {why}")
        }
        ProjectChange::BudgetTold { bound, level, task, used, limit } => {
            purse::told(*bound, *level, task.as_ref(), *used, *limit)
        }
        ProjectChange::ProvidersSet { .. }
        | ProjectChange::Weighed { .. }
        | ProjectChange::ProposalSet { .. } => return None,
        ProjectChange::WouldStart { id, stage, agent: Some(agent) } => {
            format!("would start {id} {stage} → {agent}")
        }
        ProjectChange::WouldStart { id, stage, agent: None } => {
            format!("would start {id} {stage}, but no agent can take it")
        }
    })
}

fn compared(id: &TaskId, difference: Option<&str>) -> String {
    match difference.map(first_line) {
        None => format!("{id} was done by others, as it would have been here"),
        Some(why) => format!("{id} was done by others, here it would not: {why}"),
    }
}

fn of_task(id: &TaskId, change: &TaskChange) -> Option<String> {
    match change {
        TaskChange::Added { task } => Some(format!("{id} added: {}", clean(&task.spec.title))),
        TaskChange::Edited { .. } => Some(format!("{id} edited")),
        TaskChange::HeldSet { is_held: true } => Some(format!("{id} held")),
        TaskChange::HeldSet { is_held: false } => Some(format!("{id} released")),
        TaskChange::Moved { to, .. } => moved(id, to),
        // Only `task retry` counts anew.
        TaskChange::Tallied { tally } => tally.is_new().then(|| format!("{id} is tried anew")),
        TaskChange::Evidenced { evidence } => match evidence.class {
            Class::Conflict | Class::LandingChecksFailed => {
                Some(format!("{id} landing: {}", first_line(&evidence.text)))
            }
            // Said by the attempt's own line.
            Class::Completed
            | Class::Empty
            | Class::Incomplete
            | Class::Failed
            | Class::ChecksFailed
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
            | Class::Stopped
            | Class::Dependency
            | Class::Budget => None,
        },
        TaskChange::Steered { steer } => {
            steer.is_fresh.then(|| format!("{id} begins again from the base"))
        }
        TaskChange::ApprovalAsked { what } => {
            let what = first_line(what);
            let why = words::approval(&what);
            Some(format!("{id} needs a person: {why}: pipeline task approve {id}"))
        }
        TaskChange::Approved { tip: Some(_) } => Some(format!("{id} approved")),
        TaskChange::Approved { tip: None } => {
            Some(format!("{id}: an approval asked for or given before counts no more"))
        }
        TaskChange::Taken { taken } => {
            Some(format!("{id} taken by a person: {}", clean(&taken.dir)))
        }
        TaskChange::Given { commit } => Some(format!("{id} given back at {}", short_oid(commit))),
        TaskChange::DoneByHand { .. } => Some(format!("{id} done by a person")),
        TaskChange::Unserved { what: Some(what) } => {
            Some(format!("{id} can be taken by nobody: {}", first_line(what)))
        }
        TaskChange::Unserved { what: None } => Some(format!("{id} can be taken again")),
        TaskChange::Forecast { clashes, .. } => {
            let each = clashes.iter().map(|clash| ForecastEntry::new(id.as_str(), clash));
            let each: Vec<String> = each.map(|entry| forecast::words(&entry)).collect();
            (!each.is_empty()).then(|| format!("{id} would conflict with {}", each.join("; with ")))
        }
        TaskChange::BackedOff { .. }
        | TaskChange::Noted { .. }
        | TaskChange::TipMoved { .. }
        | TaskChange::BranchChanged { .. } => None,
    }
}

fn moved(id: &TaskId, to: &TaskPhase) -> Option<String> {
    match to {
        TaskPhase::Landing { .. } => Some(format!("{id} passed every stage, lands next")),
        TaskPhase::Blocked(Block { class: Class::Dependency, reason, .. }) => {
            Some(format!("{id} blocked: {}", first_line(reason)))
        }
        TaskPhase::Blocked(Block { class, reason, .. }) => {
            let why = match reason.trim() {
                "" => class.word().into(),
                reason => first_line(reason),
            };
            Some(format!("{id} needs a person: {why}"))
        }
        // With a commit the landing's own line says it.
        TaskPhase::Completed { commit: None, .. } => Some(format!("{id} completed")),
        TaskPhase::Cancelled { .. } => Some(format!("{id} cancelled")),
        TaskPhase::Waiting
        | TaskPhase::Ready { .. }
        | TaskPhase::Working { .. }
        | TaskPhase::Completed { commit: Some(_), .. } => None,
    }
}

/// Names what an attempt is about: `TASK-001 implementation`, `TASK-001 landing checks`.
fn subject(state: &State, id: &AttemptId) -> String {
    let words = attempt_words(&state.settings, id);
    let what = if words.is_check { format!("{} checks", words.what) } else { words.what.into() };
    words.task.map_or_else(|| what.clone(), |task| format!("{task} {what}"))
}

fn of_attempt(state: &State, id: &AttemptId, change: &AttemptChange) -> Option<String> {
    let subject = || subject(state, id);
    match change {
        AttemptChange::Added { attempt } => Some(added(&state.settings, &subject(), attempt)),
        AttemptChange::StopRequested => Some(format!("{} is asked to end", subject())),
        AttemptChange::Stalled { tries } => {
            tries.until?;
            Some(format!("{}: {}; tried again", subject(), first_line(&tries.why)))
        }
        AttemptChange::Ordered { session: Some(session), .. } => {
            Some(format!("{} takes up session {} again", subject(), first_line(session)))
        }
        AttemptChange::Ended { outcome, .. } => {
            let is_check = attempt_words(&state.settings, id).is_check;
            Some(format!("{} {}", subject(), ended(outcome, is_check)))
        }
        AttemptChange::FoundOutside { found, .. } => Some(outside::line(id.as_str(), found)),
        AttemptChange::Prepared { .. }
        | AttemptChange::Briefed { .. }
        | AttemptChange::Ordered { session: None, .. }
        | AttemptChange::Started { .. }
        | AttemptChange::Exited { .. }
        | AttemptChange::Saved { .. }
        | AttemptChange::Judged { .. }
        | AttemptChange::Checking
        | AttemptChange::Advancing => None,
    }
}

/// Returns which tier failures have led to; `None`: to none yet.
fn escalated(settings: &Settings, attempt: &Attempt) -> Option<String> {
    let asked = attempt.demand.tier_min;
    let tier = settings.group_of(&attempt.agent).map_or(0, |group| group.tier);
    Some(match asked {
        0 => return None,
        asked if tier < asked => format!(", tier {tier}: nobody of tier {asked} works"),
        _ => format!(", escalated to tier {tier}"),
    })
}

fn added(settings: &Settings, subject: &str, attempt: &Attempt) -> String {
    let id = &attempt.id;
    match &attempt.kind {
        AttemptKind::Work { .. } => {
            let continues = attempt.continues.as_ref().map(|id| format!(", continues {id}"));
            let continues = continues.unwrap_or_default();
            let escalated = escalated(settings, attempt).unwrap_or_default();
            format!("{subject} → {} (attempt {id}{continues}{escalated})", attempt.agent)
        }
        AttemptKind::StageCheck { .. } => format!("{subject} begin (attempt {id})"),
        AttemptKind::LandingCheck { commit } | AttemptKind::BaseCheck { commit } => {
            format!("{subject} begin on {} (attempt {id})", short_oid(commit))
        }
    }
}

/// Says how an attempt ended, from the verb on.
fn ended(outcome: &Outcome, is_check: bool) -> String {
    let verb = match outcome.class {
        Class::Completed if is_check => return "passed".into(),
        Class::Completed => "completed",
        Class::Empty => "changed nothing",
        Class::Incomplete => "ended unfinished",
        Class::Failed => "failed",
        Class::ChecksFailed if is_check => "failed",
        Class::ChecksFailed => "failed its checks",
        Class::ConflictLeft => "left conflicts",
        Class::Blocked => "is blocked",
        Class::ChangesRequested => "requested changes",
        Class::RateLimited => "met a limit",
        Class::Unauthorized => "was refused by its provider",
        Class::ContextExceeded => "grew too large",
        Class::TimedOut => "timed out",
        Class::Silent => "fell silent",
        Class::Crashed => "crashed",
        Class::Unstartable => "could not be started",
        Class::Lost => "was lost",
        Class::Infrastructure => "had no working ground",
        Class::Stopped => "was stopped",
        Class::Conflict => "met a conflict",
        Class::LandingChecksFailed => "failed the landing checks",
        Class::Dependency => "lacks a dependency",
        Class::Budget => "cost too much",
    };
    match outcome.reason.trim() {
        "" => verb.into(),
        reason => format!("{verb}: {}", first_line(reason)),
    }
}

fn of_lane(state: &State, change: &LaneChange) -> Option<String> {
    let (base, branch) = (&state.settings.project.base, &state.settings.landing.branch);
    match change {
        LaneChange::BaseTaken { base: taken, landed } if taken == landed => {
            Some(format!("{base} and {branch} both stand at {}", short_oid(taken)))
        }
        LaneChange::BaseTaken { base: taken, .. } => {
            Some(format!("{branch} took {base} in at {}", short_oid(taken)))
        }
        LaneChange::BaseConflicted { paths } => {
            let paths = first_line(paths);
            Some(format!("{base} conflicts with {branch} in {paths}: git merge {branch}"))
        }
        LaneChange::TakeStalled { tries } => {
            tries.until?;
            Some(format!(
                "{branch} could not take {base} in: {}; tried again",
                first_line(&tries.why)
            ))
        }
        LaneChange::BaseCheckStalled { tries } => {
            tries.until?;
            Some(format!("base checks could not run: {}; tried again", first_line(&tries.why)))
        }
        LaneChange::BaseFoundGreen { commit } => {
            let name = branch_at(state, commit);
            Some(format!("{name} at {} passes its checks", short_oid(commit)))
        }
        LaneChange::BaseFoundRed { commit, tail } => {
            let name = branch_at(state, commit);
            let (commit, tail) = (short_oid(commit), first_line(tail));
            Some(format!("{name} at {commit} fails its checks, nothing new starts: {tail}"))
        }
        LaneChange::LandingSet { landing } => stalled_landing(landing.as_ref()?),
        LaneChange::Landed { id, commit, .. } => {
            Some(format!("{id} landed as {}", short_oid(commit)))
        }
        LaneChange::FollowSet { follow, why, behind } => {
            let why = first_line(why.as_deref()?);
            // Tried again every few seconds: the first refusal is enough.
            is_first_refusal(follow.as_ref()?)
                .then(|| format!("{base} stays {} behind {branch}: {why}", landings(*behind)))
        }
        LaneChange::BaseFollowed { to } => Some(format!("{base} follows to {}", short_oid(to))),
        LaneChange::DropSet { dropping } => {
            let tries = &dropping.as_ref()?.tries;
            Some(match tries.until {
                Some(_) => {
                    format!("{branch} could not be reset: {}; tried again", first_line(&tries.why))
                }
                None => format!("{branch} goes back to {base}, the pilot's landings to salvage"),
            })
        }
        LaneChange::PilotDropped { to } => {
            Some(format!("{branch} was reset to {base} at {}", short_oid(to)))
        }
        LaneChange::BaseSeen { .. } | LaneChange::BaseCheckBegun { .. } => None,
    }
}

fn stalled_landing(landing: &Landing) -> Option<String> {
    landing.tries.until?;
    Some(format!("{} landing: {}; tried again", landing.task, first_line(&landing.tries.why)))
}

fn is_first_refusal(follow: &Follow) -> bool {
    !follow.is_passing && follow.tries.failed == 1 && follow.tries.until.is_some()
}

#[cfg(test)]
mod tests {
    use super::lines;
    use crate::machine::attempt::Marker;
    use crate::machine::change::Change;
    use crate::machine::event::{GiveTo, RetryTarget, StopKind};
    use crate::machine::id::TaskId;
    use crate::machine::mode::Rollout;
    use crate::machine::{Command, Event, EventBody, Observation, apply, step};
    use crate::observe::log_json::json_line;
    use crate::observe::support::{End, Pipeline, oid, settings, task, with_second};

    /// Lines of the turns that follow.
    fn turns(pipeline: &mut Pipeline) -> Vec<String> {
        let mut all = Vec::new();
        loop {
            let body = EventBody::Turn { nonces: vec![7; 8] };
            let event = Event { at: pipeline.now, random: 0, body };
            let decided = step(&pipeline.state, &event);
            if decided.changes.is_empty() {
                return all;
            }
            for change in &decided.changes {
                apply(&mut pipeline.state, change);
            }
            all.extend(lines(&decided.changes, &pipeline.state));
        }
    }

    fn last(pipeline: &Pipeline) -> Vec<String> {
        lines(&pipeline.last, &pipeline.state)
    }

    #[test]
    fn a_task_is_followed_from_its_agent_to_its_commit() {
        let mut pipeline = Pipeline::started(settings(), Vec::new());
        pipeline.send(Command::AddTasks { tasks: vec![task("A", &[])] });
        assert_eq!(last(&pipeline), ["A added: Title of A"]);
        assert_eq!(turns(&mut pipeline), ["A architect → architect (attempt A.arch.1)"]);
        pipeline.run("A.arch.1", End::Done);
        assert_eq!(last(&pipeline), ["A architect completed"]);
        pipeline.run_rest("A");
        assert_eq!(last(&pipeline), ["A supervisor completed", "A passed every stage, lands next"]);
        pipeline.land("A");
        assert_eq!(last(&pipeline), ["A landed as ccccccc"]);
        assert_eq!(turns(&mut pipeline), Vec::<String>::new());
        pipeline.see(Observation::Followed { to: oid('c') });
        assert_eq!(last(&pipeline), ["main follows to ccccccc"]);
    }

    #[test]
    fn a_failure_says_when_it_is_tried_again_and_when_it_is_not() {
        let mut pipeline = Pipeline::started(settings(), vec![task("A", &[])]);
        pipeline.run("A.arch.1", End::Tail(1, "noise"));
        let first = "A architect failed: exited with status 1 (try 2 of 3 in 5 s)";
        assert_eq!(last(&pipeline), [first]);
        for number in 2..=3 {
            pipeline.pass(60_000);
            pipeline.turn();
            pipeline.run(&format!("A.arch.{number}"), End::Status(1));
        }
        let end =
            ["A architect failed: exited with status 1", "A needs a person: exited with status 1"];
        assert_eq!(last(&pipeline), end);
        let target = RetryTarget::Blocked;
        pipeline.send(Command::RetryTasks { target, stage: None, note: None, is_fresh: true });
        assert_eq!(last(&pipeline), ["A is tried anew", "A begins again from the base"]);
    }

    #[test]
    fn an_attempt_after_failures_says_to_which_tier_they_led() {
        let mut tiered = settings();
        tiered.stages.truncate(1);
        tiered.scheduler.escalate_after = 1;
        tiered.agents[1].stages = vec!["architect".into()];
        tiered.agents[1].tier = 2;
        let mut pipeline = Pipeline::started(tiered, vec![task("A", &[])]);
        pipeline.run("A.arch.1", End::Status(1));
        pipeline.pass(60_000);
        let begin = "A architect → test (attempt A.arch.2, escalated to tier 2)";
        assert_eq!(turns(&mut pipeline), [begin]);
        pipeline.run("A.arch.2", End::Status(1));
        pipeline.pause_agent("test");
        pipeline.pass(60_000);
        let begin = "A architect → architect (attempt A.arch.3, tier 1: nobody of tier 2 works)";
        assert_eq!(turns(&mut pipeline), [begin]);
    }

    #[test]
    fn other_commits_end_an_approval_and_are_not_told_as_one() {
        let mut pipeline = Pipeline::started(settings(), vec![task("A", &[])]);
        pipeline.run_stages("A");
        pipeline.turn();
        let protected = vec!["pipeline.toml".to_owned()];
        let (commit, onto, id) = (oid('c'), oid('a'), TaskId::new("A"));
        let merged = Observation::Merged { task: id.clone(), number: 1, commit, onto, protected };
        pipeline.see(merged);
        pipeline.send(Command::ApproveTasks { ids: vec![id.clone()] });
        assert_eq!(last(&pipeline), ["A approved"]);
        let from = pipeline.state.tasks[&id].tip.clone().expect("it has a tip");
        pipeline.send(Command::TakeTask { id: id.clone(), dir: "/x".into(), from });
        let (to, commit, changed) = (GiveTo::Onward, oid('d'), None);
        pipeline.send(Command::GiveTask { id, to, commit, changed });
        let told = last(&pipeline).join("\n");
        assert!(told.contains("A: an approval asked for or given before counts no more"), "{told}");
        assert!(!told.contains("A approved"), "{told}");
        let of_journal = |change: &Change| json_line(1, pipeline.now, "cli", change);
        let journal: String = pipeline.last.iter().map(of_journal).collect();
        assert!(journal.contains(r#""kind":"task_approval_ended""#), "{journal}");
    }

    #[test]
    fn failed_checks_are_told_once_with_the_next_try() {
        let mut checked = settings();
        checked.stages[0].checks = vec!["make lint".into()];
        let mut pipeline = Pipeline::started(checked, vec![task("A", &[])]);
        pipeline.run("A.arch.1", End::Done);
        let begin = "A architect checks begin (attempt A.arch-check.1)";
        assert_eq!(turns(&mut pipeline), [begin]);
        pipeline.run("A.arch-check.1", End::Tail(1, "lint"));
        let failed = "`make lint` exited with status 1";
        let expected = [
            format!("A architect checks failed: {failed}"),
            format!("A architect failed its checks: {failed} (try 2 of 3 in 5 s)"),
        ];
        assert_eq!(last(&pipeline), expected);
    }

    #[test]
    fn what_agents_say_cannot_steer_the_terminal() {
        let mut pipeline = Pipeline::started(settings(), vec![task("A", &[])]);
        let said = "\x1b[2Jwho?\nsecond".to_owned();
        pipeline.run("A.arch.1", End::Says(Marker::Blocked(said)));
        assert_eq!(last(&pipeline), ["A architect is blocked: who?", "A needs a person: who?"]);
    }

    #[test]
    fn shadow_says_what_it_would_start() {
        let mut shadow = settings();
        shadow.project.rollout = Rollout::Shadow;
        let mut pipeline = Pipeline::new(shadow);
        pipeline.send(Command::AddTasks { tasks: vec![task("A", &[])] });
        assert_eq!(turns(&mut pipeline), ["would start A architect → architect"]);
    }

    #[test]
    fn base_checks_and_conflicts_are_told() {
        let mut checked = settings();
        checked.landing.checks = vec!["make test".into()];
        let mut pipeline = Pipeline::started(checked, vec![task("A", &[])]);
        pipeline.run("base.check.1", End::Tail(2, "boom"));
        let failed = "`make test` exited with status 2";
        let expected = [
            format!("base checks failed: {failed}"),
            format!("main at aaaaaaa fails its checks, nothing new starts: {failed}"),
        ];
        assert_eq!(last(&pipeline), expected);
        pipeline.see(Observation::BaseSeen { tip: oid('d'), landed: Some(oid('a')) });
        assert_eq!(last(&pipeline), Vec::<String>::new());
        pipeline.see(Observation::BaseConflicts { base: oid('d'), paths: vec!["x".into()] });
        let conflict = "main conflicts with pipeline/landed in x: git merge pipeline/landed";
        assert_eq!(last(&pipeline), [conflict]);
    }

    #[test]
    fn an_agent_that_fails_again_and_again_is_told_once_with_its_pause() {
        let mut pipeline = with_second(&["A", "B", "C"]);
        for attempt in ["A.arch.1", "B.arch.1"] {
            pipeline.run(attempt, End::Status(1));
            assert!(!last(&pipeline).join("; ").contains("agent"), "{:?}", last(&pipeline));
            pipeline.turn();
        }
        pipeline.run("C.arch.1", End::Status(1));
        let told = "agent architect failed 3 times in a row: gets nothing for 1 min 0 s";
        assert!(last(&pipeline).iter().any(|line| line == told), "{:?}", last(&pipeline));
        pipeline.pass(60_000);
        let lines = turns(&mut pipeline);
        assert_eq!(lines[0], "agent architect is given another trial");
    }

    #[test]
    fn what_nobody_can_take_is_told() {
        let mut needy = task("A", &[]);
        needy.spec.needs = vec!["gpu".into()];
        let mut pipeline = Pipeline::started(settings(), Vec::new());
        pipeline.send(Command::AddTasks { tasks: vec![needy] });
        let told = "A can be taken by nobody: no agent of stage `architect` has `gpu`";
        assert_eq!(turns(&mut pipeline), [told]);
    }

    #[test]
    fn commands_on_the_whole_are_told() {
        let mut pipeline = Pipeline::started(settings(), vec![task("A", &[])]);
        let mut told = |command: Command| {
            pipeline.send(command);
            last(&pipeline).join("; ")
        };
        assert_eq!(told(Command::Pause), "paused");
        assert_eq!(told(Command::HoldTasks { ids: vec![TaskId::new("A")] }), "A held");
        assert_eq!(
            told(Command::SetRollout { to: Rollout::Pilot, is_forced: true }),
            "rollout pilot; rollout: set, forced"
        );
        let stop = told(Command::Stop { kind: StopKind::Now });
        assert_eq!(stop, "stop requested: agents are ended, their work saved");
    }
}
