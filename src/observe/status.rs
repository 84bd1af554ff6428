//! What `pipeline status --json` prints, and the queues and agents of `state.json`.

use std::collections::BTreeMap;

use serde::{Serialize, Serializer};

use super::agents::{self, AgentEntry};
use super::blocked::{Blocked, blocked};
use super::epics::{EpicEntry, epics};
use super::fallback::{FellBack, fell_back};
use super::figures::{Figures, figures};
use super::forecast::{self, ForecastEntry};
use super::lane::{Lane, correct, trouble};
use super::outside;
use super::persons::{self, Asked};
use super::providers::{self, ProviderEntry};
use super::purse::{self, RunEntry};
use super::waiting::{Waiting, Waits};
use super::words::{self, Stamp};
use crate::machine::State;
use crate::machine::attempt::Attempt;
use crate::machine::mode::Isolation;
use crate::machine::plan::Outlook;
use crate::machine::task::{Task, TaskKind, TaskPhase};
use crate::machine::time::Time;

/// Version of the documents' shape.
pub const VERSION: &str = "1.0.0";

/// The status, in the field order of its JSON.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct StatusDocument<'a> {
    pub version: &'static str,
    pub seq: u64,
    pub updated_at: Stamp,
    pub orchestration_mode: &'static str,
    /// The rollout.
    pub mode: &'static str,
    pub paused: bool,
    pub monitor: MonitorInfo,
    pub counts: Counts,
    /// By `unassigned`, each stage's long name, `landing`, `blocked` and `completed`.
    pub queues: Queues<'a>,
    pub agents: BTreeMap<&'a str, AgentEntry<'a>>,
    /// Providers that reached a limit or refused a key, by name.
    pub providers: BTreeMap<&'a str, ProviderEntry<'a>>,
    /// In order of rank.
    pub waiting: Vec<Waiting<'a>>,
    /// Longest blocked first.
    pub blocked: Vec<Blocked<'a>>,
    /// In order of creation.
    pub epics: Vec<EpicEntry<'a>>,
    pub landing: LandingEntry<'a>,
    /// The fallback that the rollout stands at; `None`: it was set by a person.
    pub fell_back: Option<FellBack<'a>>,
    /// Branches that would conflict, by task; each conflict once.
    pub forecast: Vec<ForecastEntry<'a>>,
    /// What the limits of `[limits]` count.
    pub run: RunEntry,
    pub metrics: Figures<'a>,
    /// When all is done that can be worked off, by the plan; `None`: not known, or too much to plan
    /// at every look.
    pub eta: Option<Stamp>,
    /// The same for text.
    #[serde(skip)]
    pub outlook: Outlook,
    /// The moment it is seen from.
    #[serde(skip)]
    pub now: Time,
    /// Without git nothing lands; tasks complete.
    #[serde(skip)]
    pub has_git: bool,
    /// What the machine is short of, or how loaded; in the JSON each task that waits for it says so.
    #[serde(skip)]
    pub shortage: Option<&'a str>,
    /// Tasks completed by a person's word without a commit: nothing of them landed.
    #[serde(skip)]
    pub done_by_hand: usize,
    /// What the last run landed; `None`: nothing, or without git.
    #[serde(skip)]
    pub landings: Option<Landings>,
    /// The last attempt while which something changed outside of the worktrees, and how many there
    /// are since the monitor's start; in JSON `task show` tells of it.
    #[serde(skip)]
    pub outside: Option<(&'a Attempt, usize)>,
    /// Branches of ours that somebody has checked out elsewhere, by name, with the folder; in JSON
    /// the log tells of it.
    #[serde(skip)]
    pub held: &'a BTreeMap<String, String>,
    /// Something was put back while no agent ran; in JSON the log tells of it.
    #[serde(skip)]
    pub is_put_back: bool,
    /// The task whose landing is stuck; in JSON `landing` says why.
    #[serde(skip)]
    pub stuck: Option<&'a str>,
    /// What people have in windows; in JSON their agents are `working`.
    #[serde(skip)]
    pub asked: Vec<Asked<'a>>,
}

/// The monitor, as far as the rim knows it.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct MonitorInfo {
    pub running: bool,
    pub pid: Option<u32>,
    /// The interval in force now, in seconds.
    #[serde(serialize_with = "number")]
    pub poll_interval_s: f64,
}

/// Writes whole numbers without a point.
fn number<S: Serializer>(value: &f64, serializer: S) -> Result<S::Ok, S::Error> {
    if value.fract() == 0.0 && *value >= 0.0 {
        serializer.serialize_u64(*value as u64)
    } else {
        serializer.serialize_f64(*value)
    }
}

/// How many tasks stand where; each is counted once, epics are not.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct Counts {
    pub total: usize,
    pub unassigned: usize,
    pub ready: usize,
    pub wip: usize,
    pub landing: usize,
    pub blocked: usize,
    pub completed: usize,
    pub cancelled: usize,
}

/// Landing branch and base.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct LandingEntry<'a> {
    pub branch: &'a str,
    pub base: &'a str,
    /// Landings that the base lacks.
    pub behind: u64,
    /// What is in the way of landing, of starting work or of the base; `None`: nothing.
    pub why: Option<String>,
    /// The command to type about it.
    pub next: Option<String>,
}

/// Landings of the last run.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Landings {
    pub count: usize,
    /// For git, with short ids; their commits, in order.
    pub range: String,
}

/// Ids by queue: names in pipeline order, ids in order of rank.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Queues<'a>(pub Vec<(&'a str, Vec<&'a str>)>);

impl<'a> Queues<'a> {
    /// Returns a queue by name; `None` when there is none of that name.
    #[must_use]
    pub fn get(&self, name: &str) -> Option<&[&'a str]> {
        let found = self.0.iter().find(|(queue, _)| *queue == name);
        found.map(|(_, ids)| ids.as_slice())
    }
}

impl Serialize for Queues<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_map(self.0.iter().map(|(name, ids)| (name, ids)))
    }
}

/// Makes the status. Cost: tasks.
#[must_use]
pub fn status(state: &State, seq: u64, at: Time, monitor: MonitorInfo) -> StatusDocument<'_> {
    let ranked = ranked(state);
    let mut waits = Waits::new(state);
    let waiting = ranked.iter().filter_map(|task| {
        waits.reason(task).map(|reason| Waiting { id: task.id.as_str(), reason })
    });
    let waiting = waiting.collect();
    let mut in_the_way: Vec<Blocked<'_>> =
        ranked.iter().filter_map(|task| blocked(state, task)).collect();
    in_the_way.sort_by_key(|entry| entry.since.0);
    StatusDocument {
        version: VERSION,
        seq,
        updated_at: Stamp(at),
        orchestration_mode: words::orchestration(state.orchestration),
        mode: words::rollout(state.rollout),
        paused: state.is_paused,
        monitor,
        counts: counts(state),
        queues: queues_of(state, &ranked),
        agents: agent_entries(state, at),
        providers: providers::entries(state),
        waiting,
        blocked: in_the_way,
        epics: epics(state),
        landing: landing(state),
        fell_back: fell_back(state),
        forecast: forecast::all(state),
        run: purse::run(state),
        metrics: figures(state, at),
        eta: None,
        outlook: Outlook::Unknown,
        now: at,
        has_git: state.settings.project.isolation == Isolation::Worktree,
        shortage: state.shortage.as_deref().or(state.overload.as_deref()),
        done_by_hand: ranked.iter().filter(|task| words::is_done_without_landing(task)).count(),
        landings: landings(state, &ranked),
        outside: outside::newest(state),
        held: &state.held,
        is_put_back: !state.outside.is_empty(),
        stuck: Lane::on_record(state).stuck_task(state),
        asked: persons::all(state),
    }
}

fn landings(state: &State, tasks: &[&Task]) -> Option<Landings> {
    let since = state.run.began_at?;
    let of_run = |task: &&Task| words::completed_at(task).is_some_and(|at| at >= since);
    let has_landed = |task: &&Task| of_run(task) && !words::is_done_without_landing(task);
    let mut landed: Vec<&Task> = tasks.iter().copied().filter(has_landed).collect();
    landed.sort_by_key(|task| (words::completed_at(task), task.entry));
    let range = words::landings_range(landed.iter().copied(), words::short_oid)?;
    Some(Landings { count: landed.len(), range })
}

impl<'a> StatusDocument<'a> {
    /// Sees it from a later moment than that of the newest record: agents go on, pauses pass.
    #[must_use]
    pub fn seen_at(self, state: &'a State, now: Time) -> Self {
        Self { now, agents: agent_entries(state, now), ..self }
    }

    /// Sees lane and base otherwise than they are on record.
    #[must_use]
    pub fn with_lane(self, state: &'a State, lane: &Lane<'a>) -> Self {
        let (landing, stuck) = (landing_of(state, lane), lane.stuck_task(state));
        let mut waiting = self.waiting;
        correct(&mut waiting, state, lane);
        Self { landing, stuck, waiting, ..self }
    }

    /// Adds when all is done, seen from `at`.
    #[must_use]
    pub fn with_outlook(self, outlook: Outlook, at: Time) -> Self {
        let eta = match outlook {
            Outlook::Ends { in_ms } => Some(Stamp(at.plus_ms(in_ms))),
            Outlook::TooMuch | Outlook::Unknown => None,
        };
        Self { eta, outlook, ..self }
    }
}

/// Returns the queues; stages in pipeline order.
#[must_use]
pub fn queues(state: &State) -> Queues<'_> {
    queues_of(state, &ranked(state))
}

/// Returns every agent's entry by name.
#[must_use]
pub fn agent_entries(state: &State, at: Time) -> BTreeMap<&str, AgentEntry<'_>> {
    let agents = state.agents.values();
    agents.map(|agent| (agent.name.as_str(), agents::entry(state, agent, at))).collect()
}

/// Returns the tasks that are no epics, in the order of the machine's ready queues.
pub(super) fn ranked(state: &State) -> Vec<&Task> {
    let tasks = state.tasks.values().filter(|task| task.spec.kind == TaskKind::Task);
    let mut tasks: Vec<_> = tasks.map(|task| (state.rank(&task.id), task)).collect();
    tasks.sort_unstable_by_key(|(rank, _)| *rank);
    tasks.into_iter().map(|(_, task)| task).collect()
}

fn queues_of<'a>(state: &'a State, ranked: &[&'a Task]) -> Queues<'a> {
    let stages = state.settings.stages.iter().map(|stage| stage.name.as_str());
    let mut unassigned = Vec::new();
    let mut ready: Vec<(&str, Vec<&str>)> = stages.map(|name| (name, Vec::new())).collect();
    let mut landing: Vec<(u64, &str)> = Vec::new();
    let mut blocked: Vec<(Time, &str)> = Vec::new();
    let mut completed: Vec<(Time, &str)> = Vec::new();
    for task in ranked {
        let id = task.id.as_str();
        match &task.phase {
            TaskPhase::Waiting => unassigned.push(id),
            TaskPhase::Ready { .. } if !state.is_open(task) => unassigned.push(id),
            TaskPhase::Ready { stage } => {
                let queue = ready.iter_mut().find(|(name, _)| *name == stage.as_str());
                if let Some((_, queue)) = queue {
                    queue.push(id);
                }
            }
            TaskPhase::Landing { entry } => landing.push((*entry, id)),
            TaskPhase::Blocked(block) => blocked.push((block.since, id)),
            TaskPhase::Completed { at, .. } => completed.push((*at, id)),
            TaskPhase::Working { .. } | TaskPhase::Cancelled { .. } => {}
        }
    }
    landing.sort_unstable();
    blocked.sort();
    completed.sort();
    let mut all = vec![("unassigned", unassigned)];
    all.extend(ready);
    all.push(("landing", landing.into_iter().map(|(_, id)| id).collect()));
    all.push(("blocked", blocked.into_iter().map(|(_, id)| id).collect()));
    all.push(("completed", completed.into_iter().map(|(_, id)| id).collect()));
    Queues(all)
}

pub(super) fn counts(state: &State) -> Counts {
    let counts = &state.index.counts;
    let open = counts.unassigned + counts.ready + counts.wip + counts.landing + counts.blocked;
    Counts {
        total: open + counts.completed + counts.cancelled,
        unassigned: counts.unassigned,
        ready: counts.ready,
        wip: counts.wip,
        landing: counts.landing,
        blocked: counts.blocked,
        completed: counts.completed,
        cancelled: counts.cancelled,
    }
}

pub(super) fn landing(state: &State) -> LandingEntry<'_> {
    landing_of(state, &Lane::on_record(state))
}

pub(super) fn landing_of<'a>(state: &'a State, lane: &Lane<'_>) -> LandingEntry<'a> {
    let (branch, base) = (&state.settings.landing.branch, &state.settings.project.base);
    let (why, next) = trouble(state, lane).unzip();
    LandingEntry { branch, base, behind: lane.base.behind, why, next }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::{MonitorInfo, ranked, status};
    use crate::machine::id::TaskId;
    use crate::machine::plan::{Outlook, outlook};
    use crate::machine::task::{Priority, TaskKind};
    use crate::machine::{Command, Observation};
    use crate::observe::support::{End, Pipeline, oid, settings, task};
    use crate::observe::text::text;

    const MONITOR: MonitorInfo =
        MonitorInfo { running: true, pid: Some(4711), poll_interval_s: 15.0 };

    fn of(pipeline: &Pipeline) -> Value {
        let status = status(&pipeline.state, pipeline.seq, pipeline.now, MONITOR);
        serde_json::to_value(status).expect("it has string keys")
    }

    fn keys(value: &Value) -> Vec<&str> {
        let mut keys: Vec<&str> =
            value.as_object().expect("an object").keys().map(String::as_str).collect();
        keys.sort_unstable();
        keys
    }

    fn mixed() -> Pipeline {
        let mut epic = task("E", &[]);
        epic.spec.kind = TaskKind::Epic;
        let mut urgent = task("U", &[]);
        urgent.spec.priority = Priority::High;
        let mut front = task("F", &[]);
        front.is_front = true;
        let tasks = vec![epic, task("A", &[]), task("B", &["A"]), task("C", &[]), urgent, front];
        let mut pipeline = Pipeline::started(settings(), tasks);
        pipeline.run("F.arch.1", End::Done);
        pipeline.turn();
        pipeline
    }

    #[test]
    fn fields_are_those_of_the_interface() {
        let mut pipeline = mixed();
        pipeline.run("U.arch.1", End::Says(crate::machine::attempt::Marker::Blocked("?".into())));
        let json = of(&pipeline);
        let top = "agents blocked counts epics eta fell_back forecast landing metrics mode monitor \
                   orchestration_mode paused providers queues run seq updated_at version waiting";
        assert_eq!(keys(&json), top.split_whitespace().collect::<Vec<_>>());
        assert_eq!(keys(&json["monitor"]), ["pid", "poll_interval_s", "running"]);
        assert_eq!(json["monitor"]["poll_interval_s"].to_string(), "15");
        let counts = "blocked cancelled completed landing ready total unassigned wip";
        assert_eq!(keys(&json["counts"]), counts.split_whitespace().collect::<Vec<_>>());
        let agent = "attempt busy_s completed current_task failed stage stages status until";
        let agents = &json["agents"]["architect"];
        assert_eq!(keys(agents), agent.split_whitespace().collect::<Vec<_>>());
        assert_eq!(keys(&json["waiting"][0]), ["id", "on", "until", "what"]);
        let blocked = "attempts branch class id next reason since stage";
        assert_eq!(keys(&json["blocked"][0]), blocked.split_whitespace().collect::<Vec<_>>());
        let epic = json!({"id": "E", "title": "Title of E", "status": "unassigned",
            "progress": {"done": 0, "total": 0}});
        assert_eq!(json["epics"], json!([epic]));
        assert_eq!(keys(&json["landing"]), ["base", "behind", "branch", "next", "why"]);
        let metrics = "attempts cost_unknown cost_usd handoff_ms retries reverts stage_s throughput_per_h \
                       tokens utilization";
        assert_eq!(keys(&json["metrics"]), metrics.split_whitespace().collect::<Vec<_>>());
        assert_eq!(json["metrics"]["cost_usd"], Value::Null);
        assert_eq!(keys(&json["metrics"]["handoff_ms"]), ["p50", "p99"]);
        assert_eq!(keys(&json["metrics"]["stage_s"]["architect"]), ["mean", "n", "p95"]);
    }

    #[test]
    fn each_task_is_counted_once_and_epics_never() {
        let json = of(&mixed());
        let counts = json!({"total": 5, "unassigned": 1, "ready": 2, "wip": 2, "landing": 0,
            "blocked": 0, "completed": 0, "cancelled": 0});
        assert_eq!(json["counts"], counts);
        let queues = json!({"unassigned": ["B"], "architect": ["A", "C"], "test": [],
            "implementation": [], "supervisor": [], "landing": [], "blocked": [],
            "completed": []});
        assert_eq!(json["queues"], queues);
        let waiting: Vec<&str> = json["waiting"]
            .as_array()
            .expect("an array")
            .iter()
            .map(|entry| entry["id"].as_str().expect("an id"))
            .collect();
        assert_eq!(waiting, ["A", "B", "C"]);
    }

    #[test]
    fn the_end_is_told_as_a_moment_and_as_a_span_where_it_is_known() {
        let pipeline = Pipeline::started(settings(), vec![task("A", &[])]);
        let tell = |outlook| {
            let status = status(&pipeline.state, pipeline.seq, pipeline.now, MONITOR);
            let status = status.with_outlook(outlook, pipeline.now);
            let json = serde_json::to_value(&status).expect("it has string keys");
            let text = text(&status, false, 80).lines().nth(1).unwrap_or_default().to_owned();
            (json["eta"].clone(), text)
        };
        let mode = "parallel, production, monitor 4711 runs";
        let moment = json!("2026-11-20T23:40:00.000Z");
        let known = tell(outlook(&pipeline.state, pipeline.now));
        assert_eq!(known, (moment, format!("{mode}, about 40 min 0 s to go")));
        let much = format!("{mode}, for the end see pipeline plan");
        assert_eq!(tell(Outlook::TooMuch), (Value::Null, much));
        assert_eq!(tell(Outlook::Unknown), (Value::Null, mode.to_owned()));
    }

    #[test]
    fn ranks_are_the_machines() {
        let state = mixed().state;
        let ids: Vec<&TaskId> = ranked(&state).iter().map(|task| &task.id).collect();
        assert!(ids.is_sorted_by_key(|id| state.rank(id)), "{ids:?}");
    }

    #[test]
    fn landed_tasks_stand_in_completed_and_the_base_says_how_far_behind_it_is() {
        let mut pipeline = Pipeline::started(settings(), vec![task("A", &[])]);
        pipeline.run_stages("A");
        pipeline.land("A");
        pipeline.turn();
        let why = "local changes to `a.rs`\nwould be overwritten".to_owned();
        pipeline.see(Observation::FollowRefused {
            to: oid('c'),
            why,
            behind: 2,
            is_passing: false,
        });
        let json = of(&pipeline);
        assert_eq!(json["queues"]["completed"], json!(["A"]));
        let landing = json!({"branch": "pipeline/landed", "base": "main", "behind": 2,
            "why": "`main` cannot follow: local changes to `a.rs`",
            "next": "git status"});
        assert_eq!(json["landing"], landing);
    }

    #[test]
    fn a_pilot_that_the_base_does_not_follow_is_promoted_not_set() {
        let mut pipeline = Pipeline::started(settings(), vec![task("A", &[])]);
        let to = crate::machine::mode::Rollout::Pilot;
        pipeline.send(Command::SetRollout { to, is_forced: false });
        pipeline.run_stages("A");
        pipeline.land("A");
        pipeline.turn();
        let landing = &of(&pipeline)["landing"];
        assert_eq!(landing["why"], "in pilot `main` does not follow");
        assert_eq!(landing["next"], "pipeline rollout promote", "the gates are asked");
    }

    #[test]
    fn a_refusal_that_says_what_to_type_is_told_with_that() {
        let mut pipeline = Pipeline::started(settings(), vec![task("A", &[])]);
        pipeline.run_stages("A");
        pipeline.land("A");
        pipeline.turn();
        let why = "git was killed half-way; type: rm -f 'x.lock' && git reset".to_owned();
        let to = oid('c');
        pipeline.see(Observation::FollowRefused { to, why, behind: 0, is_passing: false });
        let landing = &of(&pipeline)["landing"];
        assert_eq!(landing["why"], "`main` cannot follow: git was killed half-way");
        assert_eq!(landing["next"], "rm -f 'x.lock' && git reset");
    }

    #[test]
    fn a_conflicting_base_is_merged_by_hand() {
        let mut pipeline = Pipeline::started(settings(), vec![task("A", &[])]);
        pipeline.see(Observation::BaseSeen { tip: oid('d'), landed: Some(oid('a')) });
        pipeline.see(Observation::BaseConflicts { base: oid('d'), paths: vec!["x".into()] });
        pipeline.send(Command::Pause);
        let json = of(&pipeline);
        assert_eq!(json["landing"]["next"], "git merge pipeline/landed");
        assert_eq!(json["paused"], true);
    }
}
