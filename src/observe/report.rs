//! What a run did, for the morning after.
//!
//! Made of the state alone, which keeps every attempt: the journal's older segments may be gone. An
//! attempt counts as begun when it was assigned within the stretch of time, as ended when it was
//! over within it; from the beginning of a run on the begun are the ended and those at work.

use std::collections::BTreeMap;

use serde::{Serialize, Serializer};

use super::blocked::{Blocked, blocked};
use super::fallback::{FellBack, fell_back};
use super::figures::{StageFigures, dollars, of_samples, rounded};
use super::lane::{Lane, correct};
use super::status::{Counts, LandingEntry, VERSION, counts, landing, landing_of, ranked};
use super::waiting::{Waiting, Waits};
use super::words::{
    self, Stamp, StatusWords, completed_at, is_done_without_landing, landed_as, landings_range,
    own_merge,
};
use crate::machine::State;
use crate::machine::attempt::{Attempt, AttemptKind, Class};
use crate::machine::id::Oid;
use crate::machine::purse::{self, Spent};
use crate::machine::shell::shell_word;
use crate::machine::task::{Landed as Landing, Task, TaskKind, TaskPhase};
use crate::machine::time::Time;

/// Slowest tasks named.
const SLOWEST_MAX: usize = 10;

/// What happened in a stretch of time, and how things stand; in the field order of its JSON.
#[derive(Debug, Serialize)]
pub struct Report<'a> {
    pub version: &'static str,
    pub since: Stamp,
    pub until: Stamp,
    pub orchestration_mode: &'static str,
    /// The rollout.
    pub mode: &'static str,
    /// As things stand now.
    pub counts: Counts,
    /// In order of landing.
    pub landed: Vec<Landed<'a>>,
    /// The landings as a range for git, in full; `None`: there is none.
    pub range: Option<String>,
    /// The command that lists them.
    pub verify: Option<String>,
    /// Done by a person's word, and without a commit: nothing landed. In order of time.
    pub done_by_hand: Vec<Done<'a>>,
    /// Longest blocked first, as things stand now.
    pub blocked: Vec<Blocked<'a>>,
    /// In order of rank, as things stand now.
    pub waiting: Vec<Waiting<'a>>,
    pub landing: LandingEntry<'a>,
    /// The fallback that the rollout stands at; `None`: it was set by a person.
    pub fell_back: Option<FellBack<'a>>,
    pub totals: Totals,
    /// In pipeline order.
    pub stages: Stages<'a>,
    /// Share of the agents' time that had an attempt, 0 to 1.
    pub utilization: f64,
    pub agents: BTreeMap<&'a str, AgentReport>,
    /// By time worked on within the stretch, the slowest first.
    pub slowest: Vec<Slow<'a>>,
}

/// A task that a person said is done.
#[derive(Debug, Serialize)]
pub struct Done<'a> {
    pub id: &'a str,
    pub title: &'a str,
    pub at: Stamp,
}

/// A task that was completed.
#[derive(Debug, Serialize)]
pub struct Landed<'a> {
    pub id: &'a str,
    pub title: &'a str,
    pub at: Stamp,
    /// `None`: without git.
    pub commit: Option<&'a str>,
    /// Work attempts.
    pub attempts: usize,
    /// From the first assignment to the landing.
    pub wall_s: f64,
    /// What its work attempts took together, by long stage name.
    pub stage_s: BTreeMap<&'a str, f64>,
    /// As far as it is known; `None`: nothing is.
    pub cost_usd: Option<f64>,
    /// What was asked of the merged tree; empty: nothing, or not by the pipeline.
    pub checks: Vec<CheckEntry<'a>>,
    /// Commands that show it in the repository.
    pub verify: Vec<String>,
}

/// A check of the merged tree that counted for the landing.
#[derive(Debug, Serialize)]
pub struct CheckEntry<'a> {
    pub attempt: &'a str,
    /// Exit status of the last command; `None`: a signal ended it.
    pub exit: Option<i32>,
}

/// Sums over all tasks.
#[derive(Debug, Default, Serialize)]
pub struct Totals {
    /// Work attempts begun.
    pub attempts: u64,
    /// Of all that ended.
    pub completed: u64,
    /// Of all that ended; with `completed` all of them.
    pub failed: u64,
    /// At work now.
    pub running: u64,
    /// Begun, and not the first at its task's stage.
    pub retries: u64,
    /// Begun at an earlier stage than the one before.
    pub sent_back: u64,
    /// Begun by an agent of a higher tier than those before it at its task's stage.
    pub escalations: u64,
    /// How attempts and checks ended, by class; `completed` is left out.
    pub classes: BTreeMap<&'static str, u64>,
    /// As far as it is known; `None`: nothing is.
    pub cost_usd: Option<f64>,
    /// Attempts whose cost is not known, and is not in `cost_usd`.
    pub cost_unknown: u64,
    /// `None`: not known.
    pub tokens: Option<u64>,
}

/// By long stage name, in pipeline order.
#[derive(Debug)]
pub struct Stages<'a>(pub Vec<(&'a str, StageReport)>);

impl Serialize for Stages<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_map(self.0.iter().map(|(name, report)| (name, report)))
    }
}

/// What a stage did.
#[derive(Debug, Serialize)]
pub struct StageReport {
    /// Of completed attempts, in seconds.
    #[serde(flatten)]
    pub took: StageFigures,
    pub retries: u64,
    pub failed: u64,
}

/// What an agent did.
#[derive(Debug, Serialize)]
pub struct AgentReport {
    /// Work attempts begun.
    pub attempts: u64,
    pub completed: u64,
    pub failed: u64,
    pub busy_s: f64,
    /// `None`: it is no longer there.
    pub idle_s: Option<f64>,
    /// Share of the time that it had an attempt, 0 to 1.
    pub utilization: f64,
    /// As far as it is known; `None`: nothing is.
    pub cost_usd: Option<f64>,
}

/// A task that took long.
#[derive(Debug, Serialize)]
pub struct Slow<'a> {
    pub id: &'a str,
    pub title: &'a str,
    pub status: String,
    /// Work attempts begun.
    pub attempts: u64,
    /// What agents had it for, within the stretch.
    pub work_s: f64,
    /// From its first assignment to its landing, or to the end of the stretch.
    pub wall_s: f64,
}

/// Returns when something last happened to an attempt or a task landed; `None`: nothing ever did.
#[must_use]
pub fn last_activity(state: &State) -> Option<Time> {
    let ends = |task: &Task| {
        let last = task.history.iter().rev().find_map(|attempt| Some(attempt.outcome.as_ref()?.at));
        last.max(completed_at(task))
    };
    state.tasks.values().filter_map(ends).max()
}

impl<'a> Report<'a> {
    /// Sees lane and base otherwise than they are on record.
    #[must_use]
    pub fn with_lane(self, state: &'a State, lane: &Lane<'a>) -> Self {
        let mut waiting = self.waiting;
        correct(&mut waiting, state, lane);
        Self { landing: landing_of(state, lane), waiting, ..self }
    }
}

/// Makes the report. Cost: tasks, and the attempts of those that moved within the stretch.
#[must_use]
pub fn report(state: &State, since: Time, until: Time) -> Report<'_> {
    let stretch = Stretch { from: since, to: until };
    let mut sums = Sums::new(state, stretch);
    let tasks = || state.tasks.values().filter(|task| task.spec.kind == TaskKind::Task);
    // A task is moved when its attempt ends, so an older one has none within the stretch.
    tasks().filter(|task| task.updated_at >= since).for_each(|task| sums.take(task));
    let finished = tasks().filter_map(|task| Some((task, completed_at(task)?)));
    let mut finished: Vec<_> = finished.filter(|(_, at)| stretch.holds(*at)).collect();
    finished.sort_by_key(|(task, at)| (*at, task.entry));
    let (by_hand, finished): (Vec<_>, Vec<_>) =
        finished.into_iter().partition(|(task, _)| is_done_without_landing(task));
    let by_hand = by_hand.into_iter().map(|(task, at)| Done {
        id: task.id.as_str(),
        title: &task.spec.title,
        at: Stamp(at),
    });
    let range = landings_range(finished.iter().map(|(task, _)| *task), Oid::as_str);
    let verify = range.as_ref().map(|range| format!("git log --first-parent --oneline {range}"));
    let ranked = ranked(state);
    let mut waits = Waits::new(state);
    let waiting = ranked.iter().filter_map(|task| {
        waits.reason(task).map(|reason| Waiting { id: task.id.as_str(), reason })
    });
    let waiting = waiting.collect();
    let mut in_the_way: Vec<Blocked<'_>> =
        ranked.iter().filter_map(|task| blocked(state, task)).collect();
    in_the_way.sort_by_key(|entry| entry.since.0);
    let (agents, utilization) = sums.agents();
    Report {
        version: VERSION,
        since: Stamp(since),
        until: Stamp(until),
        orchestration_mode: words::orchestration(state.orchestration),
        mode: words::rollout(state.rollout),
        counts: counts(state),
        landed: landed(state, &finished),
        done_by_hand: by_hand.collect(),
        range,
        verify,
        blocked: in_the_way,
        waiting,
        landing: landing(state),
        fell_back: fell_back(state),
        stages: sums.stages(),
        utilization,
        agents,
        slowest: sums.slowest(),
        totals: sums.totals(),
    }
}

fn landed<'a>(state: &'a State, finished: &[(&'a Task, Time)]) -> Vec<Landed<'a>> {
    let branch = shell_word(&state.settings.landing.branch);
    let base = shell_word(&state.settings.project.base);
    let entry = |(task, at): &(&'a Task, Time)| {
        let commit = landed_as(task);
        let mut verify = Vec::new();
        verify.extend(commit.map(|commit| match task.landed {
            Landing::Merged | Landing::Within => {
                format!("git merge-base --is-ancestor {commit} {branch}")
            }
            // What others landed is on the base, and on the landing branch, if there is one, as soon
            // as that has taken the base in.
            Landing::Elsewhere => format!("git branch --list --contains {commit} {base} {branch}"),
        }));
        // What needed no merge has no commit of its own to look at.
        verify.extend(own_merge(task).map(|commit| format!("git diff --stat {commit}~1 {commit}")));
        let works = || task.history.iter().filter(|attempt| attempt.is_work());
        let mut stage_s: BTreeMap<&str, f64> = BTreeMap::new();
        for attempt in works() {
            if let Some(stage) = attempt.stage() {
                *stage_s.entry(stage.as_str()).or_default() += seconds(took_ms(attempt, *at));
            }
        }
        let begun = works().map(|attempt| attempt.assigned_at).min().unwrap_or(task.created_at);
        Landed {
            id: task.id.as_str(),
            title: &task.spec.title,
            at: Stamp(*at),
            commit: commit.map(Oid::as_str),
            attempts: works().count(),
            wall_s: seconds(at.ms_since(begun)),
            stage_s,
            cost_usd: task.spent.cost().map(dollars),
            checks: checks_of(task, commit),
            verify,
        }
    };
    finished.iter().map(entry).collect()
}

fn checks_of<'a>(task: &'a Task, landed: Option<&Oid>) -> Vec<CheckEntry<'a>> {
    let is_its = |attempt: &&Attempt| match &attempt.kind {
        AttemptKind::LandingCheck { commit } => Some(commit) == landed,
        AttemptKind::Work { .. }
        | AttemptKind::StageCheck { .. }
        | AttemptKind::BaseCheck { .. } => false,
    };
    let passed = task.history.iter().filter(is_its).filter(|attempt| !has_failed(attempt));
    let entry = |attempt: &'a Attempt| CheckEntry {
        attempt: attempt.id.as_str(),
        exit: attempt.exit.as_ref().and_then(|exit| exit.code),
    };
    passed.map(entry).collect()
}

fn has_failed(attempt: &Attempt) -> bool {
    attempt.outcome.as_ref().is_some_and(|outcome| outcome.class != Class::Completed)
}

/// How long an agent had the attempt, up to `now`.
fn took_ms(attempt: &Attempt, now: Time) -> u64 {
    let end = attempt.outcome.as_ref().map_or(now, |outcome| outcome.at);
    end.ms_since(attempt.assigned_at)
}

fn seconds(ms: u64) -> f64 {
    ms as f64 / 1000.0
}

/// A stretch of time, both ends included.
#[derive(Debug, Clone, Copy)]
struct Stretch {
    from: Time,
    to: Time,
}

impl Stretch {
    fn holds(self, at: Time) -> bool {
        self.from <= at && at <= self.to
    }

    fn ms(self) -> u64 {
        self.to.ms_since(self.from)
    }

    fn overlap_ms(self, attempt: &Attempt) -> u64 {
        let end = attempt.outcome.as_ref().map_or(self.to, |outcome| outcome.at);
        end.min(self.to).ms_since(attempt.assigned_at.max(self.from))
    }
}

#[derive(Debug, Default)]
struct StageSums {
    took_ms: Vec<u64>,
    retries: u64,
    failed: u64,
}

#[derive(Debug, Default)]
struct AgentSums {
    attempts: u64,
    completed: u64,
    failed: u64,
    busy_ms: u64,
    spent: Spent,
}

/// What is added up, task by task.
struct Sums<'a> {
    state: &'a State,
    stretch: Stretch,
    totals: Totals,
    spent: Spent,
    stages: BTreeMap<&'a str, StageSums>,
    agents: BTreeMap<&'a str, AgentSums>,
    /// (time worked on, attempts begun, task), for all that were worked on.
    worked: Vec<(u64, u64, &'a Task)>,
}

/// What came before an attempt at the same task.
#[derive(Debug, Default)]
struct Before<'a> {
    /// By stage: the highest tier that tried.
    tiers: BTreeMap<&'a str, u32>,
    /// Place of the last one's stage in the pipeline.
    place: Option<usize>,
    /// To the last one its provider gave nothing: the same try is made again.
    is_same_try: bool,
}

/// What an attempt is beside those before it.
struct Step {
    is_retry: bool,
    is_sent_back: bool,
    is_escalated: bool,
}

impl<'a> Before<'a> {
    fn next(&mut self, state: &State, attempt: &'a Attempt) -> Step {
        let stage = attempt.stage().map_or("", |stage| stage.as_str());
        let tier = state.settings.group_of(&attempt.agent).map_or(0, |group| group.tier);
        let place = state.settings.stages.iter().position(|known| known.name == stage);
        let before = self.tiers.get(stage).copied();
        let is_sent_back = self.place.is_some_and(|last| place.is_some_and(|place| place < last));
        let is_retry = before.is_some() && !self.is_same_try;
        self.is_same_try =
            attempt.outcome.as_ref().is_some_and(|ended| ended.class.is_of_provider());
        self.tiers.insert(stage, before.unwrap_or(0).max(tier));
        self.place = place.or(self.place);
        let is_escalated = before.is_some_and(|before| before < tier);
        Step { is_retry, is_sent_back, is_escalated }
    }
}

impl<'a> Sums<'a> {
    fn new(state: &'a State, stretch: Stretch) -> Self {
        let stages = state.settings.stages.iter();
        Self {
            state,
            stretch,
            totals: Totals::default(),
            spent: Spent::default(),
            stages: stages.map(|stage| (stage.name.as_str(), StageSums::default())).collect(),
            agents: state.agents.keys().map(|n| (n.as_str(), AgentSums::default())).collect(),
            worked: Vec::new(),
        }
    }

    fn take(&mut self, task: &'a Task) {
        let live = match &task.phase {
            TaskPhase::Working { attempt, .. } => self.state.attempts.get(attempt),
            TaskPhase::Waiting
            | TaskPhase::Ready { .. }
            | TaskPhase::Landing { .. }
            | TaskPhase::Blocked(_)
            | TaskPhase::Completed { .. }
            | TaskPhase::Cancelled { .. } => None,
        };
        let (mut before, mut begun, mut work_ms) = (Before::default(), 0, 0);
        for attempt in task.history.iter().chain(live) {
            self.take_end(attempt);
            if !attempt.is_work() {
                continue;
            }
            work_ms += self.stretch.overlap_ms(attempt);
            let step = before.next(self.state, attempt);
            if self.stretch.holds(attempt.assigned_at) {
                begun += 1;
                self.take_begin(attempt, &step);
            }
        }
        if work_ms > 0 || begun > 0 {
            self.worked.push((work_ms, begun, task));
        }
    }

    fn take_begin(&mut self, attempt: &'a Attempt, step: &Step) {
        self.totals.attempts += 1;
        self.totals.retries += u64::from(step.is_retry);
        self.totals.sent_back += u64::from(step.is_sent_back);
        self.totals.escalations += u64::from(step.is_escalated);
        self.totals.running += u64::from(attempt.outcome.is_none());
        self.agents.entry(attempt.agent.as_str()).or_default().attempts += 1;
        if let Some(stage) = attempt.stage() {
            let stage = self.stages.entry(stage.as_str()).or_default();
            stage.retries += u64::from(step.is_retry);
        }
    }

    fn take_end(&mut self, attempt: &'a Attempt) {
        if attempt.is_work() {
            let agent = self.agents.entry(attempt.agent.as_str()).or_default();
            agent.busy_ms += self.stretch.overlap_ms(attempt);
        }
        let ended = attempt.outcome.as_ref().filter(|outcome| self.stretch.holds(outcome.at));
        let Some(outcome) = ended else { return };
        let is_good = outcome.class == Class::Completed;
        if !is_good {
            *self.totals.classes.entry(outcome.class.word()).or_default() += 1;
        }
        let Some(stage) = attempt.stage().filter(|_| attempt.is_work()) else { return };
        let agent = self.agents.entry(attempt.agent.as_str()).or_default();
        let stage = self.stages.entry(stage.as_str()).or_default();
        if is_good {
            self.totals.completed += 1;
            agent.completed += 1;
            stage
                .took_ms
                .push(outcome.at.ms_since(attempt.started_at.unwrap_or(attempt.assigned_at)));
        } else if !outcome.class.is_of_provider() {
            self.totals.failed += 1;
            agent.failed += 1;
            stage.failed += 1;
        }
        let group = self.state.settings.group_of(&attempt.agent);
        if purse::has_cost(group, attempt.exit.as_ref()) {
            let usage = attempt.exit.as_ref().map(|exit| &exit.usage);
            agent.spent.add(usage);
            self.spent.add(usage);
        }
    }

    fn totals(self) -> Totals {
        Totals {
            cost_usd: self.spent.cost().map(dollars),
            cost_unknown: self.spent.unpriced,
            tokens: self.spent.tokens,
            ..self.totals
        }
    }

    /// Stages that the settings no longer have come last.
    fn stages(&mut self) -> Stages<'a> {
        let mut sums = std::mem::take(&mut self.stages);
        let known: Vec<_> = self.state.settings.stages.iter().map(|s| s.name.as_str()).collect();
        let known = known.into_iter().filter_map(|name| Some((name, sums.remove(name)?)));
        let mut all: Vec<(&str, StageSums)> = known.collect();
        all.extend(sums);
        let report = |(name, sums): (&'a str, StageSums)| {
            let StageSums { took_ms, retries, failed } = sums;
            (name, StageReport { took: of_samples(took_ms), retries, failed })
        };
        Stages(all.into_iter().map(report).collect())
    }

    fn agents(&mut self) -> (BTreeMap<&'a str, AgentReport>, f64) {
        let ms = self.stretch.ms();
        let share = |busy: u64, of: u64| match of {
            0 => 0.0,
            of => rounded((busy as f64 / of as f64).min(1.0)),
        };
        let (mut busy, mut there) = (0, 0);
        let mut all = BTreeMap::new();
        for (name, sums) in std::mem::take(&mut self.agents) {
            let is_there = self.state.agents.keys().any(|known| known.as_str() == name);
            if is_there {
                (busy, there) = (busy + sums.busy_ms, there + 1);
            }
            let report = AgentReport {
                attempts: sums.attempts,
                completed: sums.completed,
                failed: sums.failed,
                busy_s: seconds(sums.busy_ms),
                idle_s: is_there.then(|| seconds(ms.saturating_sub(sums.busy_ms))),
                utilization: share(sums.busy_ms, ms),
                cost_usd: sums.spent.cost().map(dollars),
            };
            all.insert(name, report);
        }
        (all, share(busy, ms * there))
    }

    fn slowest(&mut self) -> Vec<Slow<'a>> {
        let words = StatusWords::new(&self.state.settings);
        let mut worked = std::mem::take(&mut self.worked);
        worked.sort_by_key(|(work_ms, _, task)| (std::cmp::Reverse(*work_ms), task.entry));
        let slow = |(work_ms, attempts, task): (u64, u64, &'a Task)| {
            let works = task.history.iter().filter(|attempt| attempt.is_work());
            let begun = works.map(|attempt| attempt.assigned_at).min().unwrap_or(task.created_at);
            let end = completed_at(task).unwrap_or(self.stretch.to);
            Slow {
                id: task.id.as_str(),
                title: &task.spec.title,
                status: words.of(self.state, task).to_owned(),
                attempts,
                work_s: seconds(work_ms),
                wall_s: seconds(end.ms_since(begun)),
            }
        };
        worked.into_iter().take(SLOWEST_MAX).map(slow).collect()
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use jiff::tz::TimeZone;

    use super::{last_activity, report};
    use crate::machine::attempt::Marker;
    use crate::machine::id::TaskId;
    use crate::machine::mode::Rollout;
    use crate::machine::task::TaskKind;
    use crate::machine::time::Time;
    use crate::machine::{Command, Observation};
    use crate::observe::paper::Markdown;
    use crate::observe::report_page::write;
    use crate::observe::support::{End, Pipeline, oid, settings, task};

    fn told(pipeline: &Pipeline, since: Time) -> Value {
        serde_json::to_value(report(&pipeline.state, since, pipeline.now)).expect("string keys")
    }

    #[test]
    fn the_sums_are_those_of_the_stretch_alone() {
        let mut pipeline = Pipeline::started(settings(), vec![task("A", &[])]);
        let begin = pipeline.now;
        pipeline.run_stages("A");
        pipeline.land("A");
        pipeline.pass(60_000);
        let noon = pipeline.now;
        pipeline.send(Command::AddTasks { tasks: vec![task("B", &[]), task("C", &["B"])] });
        pipeline.turn();
        pipeline.run("B.arch.1", End::Status(1));
        pipeline.pass(5_000);
        pipeline.turn();
        pipeline.run("B.arch.2", End::Says(Marker::Blocked("which?".into())));
        let all = told(&pipeline, begin);
        assert_eq!(all["landed"][0]["id"], "A");
        assert_eq!(all["landed"][0]["stage_s"]["test"], 60.0);
        let c = oid('c');
        assert_eq!(all["range"], format!("{c}~1..{c}"));
        assert_eq!(all["verify"], format!("git log --first-parent --oneline {c}~1..{c}"));
        let totals = &all["totals"];
        assert_eq!((&totals["completed"], &totals["failed"]), (&json!(4), &json!(2)), "{all}");
        assert_eq!(totals["retries"], 1, "{all}");
        assert_eq!(totals["classes"], json!({"blocked": 1, "failed": 1}));
        assert_eq!(all["stages"]["architect"]["n"], 1);
        assert_eq!(all["stages"]["architect"]["failed"], 2);
        assert_eq!(all["blocked"][0]["id"], "B");
        assert_eq!(all["agents"]["supervisor"]["busy_s"], 60.0);
        assert_eq!(all["agents"]["implementation-2"]["busy_s"], 0.0);
        let late = told(&pipeline, noon);
        assert_eq!(late["landed"], json!([]));
        assert_eq!((&late["range"], &late["verify"]), (&Value::Null, &Value::Null));
        assert_eq!(late["totals"]["completed"], 0, "{late}");
        assert_eq!(late["slowest"][0]["id"], "B");
        assert_eq!(last_activity(&pipeline.state), Some(pipeline.now));
    }

    #[test]
    fn what_is_at_work_is_counted_and_what_never_ran_divides_by_nothing() {
        let mut epic = task("E", &[]);
        epic.spec.kind = TaskKind::Epic;
        let mut pipeline = Pipeline::started(settings(), vec![epic, task("A", &[])]);
        let now = pipeline.now;
        let nothing = told(&pipeline, now);
        assert_eq!(nothing["utilization"], 0.0);
        assert_eq!(last_activity(&pipeline.state), None);
        pipeline.start("A.arch.1");
        pipeline.pass(30_000);
        let told = told(&pipeline, now);
        assert_eq!(
            (&told["totals"]["attempts"], &told["totals"]["running"]),
            (&json!(1), &json!(1))
        );
        assert_eq!(told["agents"]["architect"]["busy_s"], 30.0);
        assert_eq!(told["agents"]["test"]["idle_s"], 30.0);
        assert_eq!(told["utilization"], 0.2, "one of five");
        assert_eq!(told["slowest"].as_array().map(Vec::len), Some(1), "no epic: {told}");
    }

    #[test]
    fn a_higher_tier_is_an_escalation_and_an_earlier_stage_was_sent_back() {
        let mut tiered = settings();
        tiered.scheduler.escalate_after = 1;
        tiered.agents[0].stages.push("implementation".into());
        tiered.agents[0].tier = 2;
        tiered.agents[2].count = 1;
        tiered.retry.first_ms = 1;
        let mut pipeline = Pipeline::started(tiered, vec![task("A", &[])]);
        pipeline.run("A.arch.1", End::Done);
        pipeline.turn();
        pipeline.run("A.test.1", End::Done);
        pipeline.turn();
        pipeline.run("A.impl.1", End::Status(1));
        pipeline.pass(60_000);
        pipeline.turn();
        pipeline.run("A.impl.2", End::Done);
        pipeline.turn();
        let changes = Marker::ChangesRequested("the name".into());
        pipeline.run("A.super.1", End::Says(changes));
        pipeline.turn();
        let totals = &told(&pipeline, Time::from_ms(0))["totals"];
        assert_eq!(totals["sent_back"], 1, "{totals}");
        let is_by = |number: usize, name: &str| {
            pipeline.state.tasks[&TaskId::new("A")].history[number].agent.as_str() == name
        };
        assert!(is_by(2, "implementation") && is_by(3, "architect"), "the second is of tier 2");
        assert_eq!(totals["escalations"], 1, "{totals}");
    }

    #[test]
    fn what_needed_no_merge_is_not_shown_as_one() {
        let mut pipeline = Pipeline::started(settings(), vec![task("A", &[])]);
        pipeline.run_stages("A");
        pipeline.turn();
        // Where the landing branch stands is another task's landing.
        let commit = oid('a');
        assert_eq!(pipeline.state.base.landed.as_ref(), Some(&commit));
        let (task, number) = (TaskId::new("A"), 1);
        pipeline.see(Observation::AlreadyLanded { task, number, commit: commit.clone() });
        assert_eq!(pipeline.state.base.behind, 0, "nothing came onto it");
        let told = told(&pipeline, Time::from_ms(0));
        assert_eq!(told["landed"][0]["commit"], commit.as_str());
        let shown = format!("git merge-base --is-ancestor {commit} pipeline/landed");
        assert_eq!(told["landed"][0]["verify"], json!([shown]));
        assert_eq!(told["range"], Value::Null, "there is no commit of its own");
    }

    #[test]
    fn what_others_landed_is_looked_for_where_it_may_be() {
        let mut pipeline = Pipeline::started(settings(), Vec::new());
        pipeline.send(Command::SetRollout { to: Rollout::Shadow, is_forced: true });
        pipeline.send(Command::AddTasks { tasks: vec![task("A", &[])] });
        let (from, tip, tasks) = (oid('a'), oid('d'), vec![(TaskId::new("A"), oid('d'))]);
        pipeline.see(Observation::HandLanded { from, tip, tasks });
        let told = told(&pipeline, Time::from_ms(0));
        let shown = format!("git branch --list --contains {} main pipeline/landed", oid('d'));
        assert_eq!(told["landed"][0]["verify"], json!([shown]));
    }

    #[test]
    fn what_a_person_says_is_done_did_not_land() {
        let mut pipeline = Pipeline::started(settings(), vec![task("A", &[]), task("B", &[])]);
        pipeline.send(Command::CompleteTask { id: TaskId::new("B"), commit: None });
        let told = told(&pipeline, Time::from_ms(0));
        assert_eq!(told["landed"], json!([]));
        assert_eq!(told["done_by_hand"][0]["id"], "B");
        let report = report(&pipeline.state, Time::from_ms(0), pipeline.now);
        let text = write(&report, Box::<Markdown>::default(), &TimeZone::UTC);
        assert!(text.contains("\n0 landed, 1 done by a person, 0 need"), "{text}");
        assert!(text.contains("\n## Done by a person\n\n| task"), "{text}");
    }
}
