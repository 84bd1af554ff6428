//! `pipeline plan`.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use jiff::tz::TimeZone;
use jiff::{Timestamp, Zoned};
use serde::Serialize;

use super::gantt::{brief, gantt};
use super::json::{Assessment, document};
use crate::machine::complexity;
use crate::machine::id::TaskId;
use crate::machine::plan::{Assumed, Entry, Plan};
use crate::machine::schedule::demand::Demand;
use crate::machine::schedule::pool::has_agent;
use crate::machine::task::{Task, TaskKind, TaskPhase};
use crate::machine::time::Time;
use crate::observe::page::{Cell, Ink, Page, cut, filled, first_line, table};
use crate::observe::waiting::Waits;
use crate::observe::words::{Stamp, span};

/// Lines of the schedule, the waves and what is left out; the rest is counted.
const LINES_MAX: usize = 20;
/// Tasks of the critical path that are named.
const PATH_MAX: usize = 40;
/// Agents listed with what they do.
const AGENTS_MAX: usize = 40;

/// Returns the plan for people: sums, critical path, agents, waves, schedule, picture, and what is
/// left out.
#[must_use]
pub fn render_plan(plan: &Plan, zone: &TimeZone, page: Page) -> String {
    let mut out = head(plan, zone);
    if !plan.schedule.is_empty() {
        critical_path(plan, page, &mut out);
        agents(plan, page, &mut out);
        gains(plan, page, &mut out);
        waves(plan, page, &mut out);
        complexities(plan, page, &mut out);
        schedule(plan, zone, page, &mut out);
        out.push('\n');
        out.push_str(&gantt(plan, page));
    }
    left_out_text(plan, page, &mut out);
    out
}

fn count(number: usize, what: &str) -> String {
    format!("{number} {what}{}", if number == 1 { "" } else { "s" })
}

/// Returns why there is nothing to schedule.
fn why_empty(plan: &Plan) -> &'static str {
    let mut tasks = plan.end.tasks.values().filter(|task| task.spec.kind == TaskKind::Task);
    let is_landed = |task: &Task| match &task.phase {
        TaskPhase::Completed { at, .. } => *at >= plan.from,
        TaskPhase::Waiting
        | TaskPhase::Ready { .. }
        | TaskPhase::Working { .. }
        | TaskPhase::Landing { .. }
        | TaskPhase::Blocked(_)
        | TaskPhase::Cancelled { .. } => false,
    };
    if !plan.left_out.is_empty() {
        "nothing can be planned"
    } else if tasks.clone().next().is_none() {
        "there are no tasks yet: pipeline task add"
    } else if tasks.any(is_landed) {
        "all that is left is to land"
    } else {
        "nothing is left to do"
    }
}

fn head(plan: &Plan, zone: &TimeZone) -> String {
    if plan.schedule.is_empty() {
        return format!("{}\n", why_empty(plan));
    }
    let tasks: usize = plan.waves.iter().map(Vec::len).sum();
    let (tasks, attempts) = (count(tasks, "task"), count(plan.schedule.len(), "attempt"));
    let agents = count(plan.workers, "agent");
    let end = clock(plan, plan.makespan_ms, zone);
    let mut out = format!("{tasks} in {attempts} by {agents}: {}", span(plan.makespan_ms));
    out.push_str(&format!(", until {end}\n"));
    let even_ms = plan.work_ms.div_ceil(plan.workers.max(1) as u64);
    let ratio = plan.makespan_ms as f64 / plan.lower_bound_ms.max(1) as f64;
    let bound = span(plan.lower_bound_ms);
    let why = if plan.critical_ms >= even_ms { "the critical path" } else { "all the work shared" };
    let _ = writeln!(out, "at least {bound} ({why}); the plan takes {ratio:.2} times that");
    if let Some((stage, ms)) = plan.bottleneck.as_ref().filter(|(_, ms)| *ms > even_ms) {
        let stage = cut(stage.as_str(), 24).into_owned();
        let _ = writeln!(out, "busiest stage: {stage}, {} for each who serves it", span(*ms));
    }
    if plan.is_cut {
        let _ = writeln!(out, "only the first {attempts} are planned");
    }
    for assumed in &plan.assumed {
        let _ = writeln!(out, "planned as if {}", as_if(*assumed));
    }
    out
}

const fn as_if(assumed: Assumed) -> &'static str {
    match assumed {
        Assumed::Resumed => "the pipeline were resumed",
        Assumed::Production => "the rollout were production",
        Assumed::GoodBase => "the base were in order",
        Assumed::Room => "nothing were short on this machine",
        Assumed::Calm => "the load of this machine were within its limit",
        Assumed::BuiltIn => "the built-in scheduler decided, not `scheduler.command`",
    }
}

/// Returns the time of day, with the day where it is not the plan's first.
fn clock(plan: &Plan, after_ms: u64, zone: &TimeZone) -> String {
    let zoned = |at: Time| {
        let ms = i64::try_from(at.as_ms()).unwrap_or(i64::MAX);
        let moment = Timestamp::from_millisecond(ms).unwrap_or(Timestamp::MAX);
        Zoned::new(moment, zone.clone())
    };
    let (from, at) = (zoned(plan.from), zoned(plan.from.plus_ms(after_ms)));
    let is_near = after_ms < 6 * 86_400_000;
    let form = match (from.date() == at.date(), is_near) {
        (true, _) => "%H:%M",
        (false, true) => "%a %H:%M",
        (false, false) => "%Y-%m-%d %H:%M",
    };
    at.strftime(form).to_string()
}

fn heading(words: &str, out: &mut String) {
    let _ = writeln!(out, "\n{words}");
}

fn critical_path(plan: &Plan, page: Page, out: &mut String) {
    heading(&format!("critical path, {}", span(plan.critical_ms)), out);
    let shown = &plan.critical_path[..plan.critical_path.len().min(PATH_MAX)];
    let mut words: Vec<String> = shown.iter().map(|id| format!("{id} >")).collect();
    if let (Some(last), Some(id)) = (words.last_mut(), shown.last()) {
        *last = id.to_string();
    }
    for line in filled(&words, " ", page.columns() - 2) {
        let _ = writeln!(out, "  {line}");
    }
    let more = plan.critical_path.len() - shown.len();
    if more > 0 {
        let _ = writeln!(out, "  > and {more} more");
    }
}

fn faint(words: &[&str]) -> Vec<Cell> {
    words.iter().map(|word| Cell::new(word).inked(Ink::Faint)).collect()
}

fn utilization(plan: &Plan, busy_ms: u64) -> f64 {
    busy_ms as f64 / plan.makespan_ms.max(1) as f64
}

fn agents(plan: &Plan, page: Page, out: &mut String) {
    let mut counts: BTreeMap<&str, usize> = BTreeMap::new();
    for entry in &plan.schedule {
        *counts.entry(entry.agent.as_str()).or_default() += 1;
    }
    out.push('\n');
    let mut rows = vec![faint(&["agent", "attempts", "works", "share of the time"])];
    rows.extend(plan.busy_ms.iter().take(AGENTS_MAX).map(|(name, busy_ms)| {
        let share = format!("{:.0} %", utilization(plan, *busy_ms) * 100.0);
        let count = counts.get(name.as_str()).copied().unwrap_or(0).to_string();
        vec![
            Cell::new(name.as_str()),
            Cell::new(&count),
            Cell::new(&span(*busy_ms)),
            Cell::new(&share),
        ]
    }));
    out.push_str(&table(page, 0, &rows));
    if plan.busy_ms.len() > AGENTS_MAX {
        let _ = writeln!(out, "and {} more", count(plan.busy_ms.len() - AGENTS_MAX, "agent"));
    }
}

fn gains(plan: &Plan, page: Page, out: &mut String) {
    let Some(gain_ms) = &plan.gain_ms else {
        heading("what one more agent would save was not tried: there is too much to plan", out);
        return;
    };
    if gain_ms.is_empty() {
        return;
    }
    out.push('\n');
    let mut rows = vec![faint(&["one more of", "saves"])];
    rows.extend(gain_ms.iter().map(|(group, ms)| {
        let saved = if *ms == 0 { "nothing".to_owned() } else { span(*ms) };
        vec![Cell::new(group), Cell::new(&saved)]
    }));
    out.push_str(&table(page, 0, &rows));
}

fn waves(plan: &Plan, page: Page, out: &mut String) {
    out.push('\n');
    let mut rows = vec![faint(&["wave", "tasks", ""])];
    rows.extend(plan.waves.iter().take(LINES_MAX).enumerate().map(|(place, ids)| {
        // More would not fit on the line.
        let names: Vec<&str> = ids.iter().take(page.columns()).map(TaskId::as_str).collect();
        let (number, count) = ((place + 1).to_string(), ids.len().to_string());
        vec![Cell::new(&number), Cell::new(&count), Cell::new(&names.join(" "))]
    }));
    out.push_str(&table(page, 0, &rows));
    if plan.waves.len() > LINES_MAX {
        let _ = writeln!(out, "and {} more", count(plan.waves.len() - LINES_MAX, "wave"));
    }
}

/// Returns the planned tasks in order of id.
fn planned(plan: &Plan) -> Vec<&Task> {
    let mut ids: Vec<&TaskId> = plan.waves.iter().flatten().collect();
    ids.sort_unstable();
    ids.into_iter().filter_map(|id| plan.end.tasks.get(id)).collect()
}

/// Lists how complex the tasks are and why, by which the kind of agent is chosen.
fn complexities(plan: &Plan, page: Page, out: &mut String) {
    out.push('\n');
    let tasks = planned(plan);
    let mut rows = vec![faint(&["task", "complexity", "why"])];
    rows.extend(tasks.iter().take(LINES_MAX).map(|task| {
        let (word, why) = (complexity::of(&task.spec).word(), complexity::reason(&task.spec));
        vec![Cell::new(task.id.as_str()), Cell::new(word), Cell::new(&why)]
    }));
    out.push_str(&table(page, 0, &rows));
    if tasks.len() > LINES_MAX {
        let more = count(tasks.len() - LINES_MAX, "task");
        let _ = writeln!(out, "and {more} more: pipeline plan --json");
    }
}

fn schedule(plan: &Plan, zone: &TimeZone, page: Page, out: &mut String) {
    out.push('\n');
    let mut rows = vec![faint(&["in", "at", "for", "agent", "task", "stage"])];
    rows.extend(plan.schedule.iter().take(LINES_MAX).map(|entry| {
        let after = if entry.is_running { "runs".to_owned() } else { brief(entry.start_ms) };
        vec![
            Cell::new(&after),
            Cell::new(&clock(plan, entry.start_ms, zone)),
            Cell::new(&brief(entry.end_ms - entry.start_ms)),
            Cell::new(entry.agent.as_str()),
            Cell::new(entry.task.as_str()),
            Cell::new(entry.stage.as_str()),
        ]
    }));
    out.push_str(&table(page, 0, &rows));
    if plan.schedule.len() > LINES_MAX {
        let more = count(plan.schedule.len() - LINES_MAX, "attempt");
        let _ = writeln!(out, "and {more} more: pipeline plan --json");
    }
}

/// Returns each task left out with its reason.
fn left_out(plan: &Plan) -> Vec<(&TaskId, String)> {
    let mut waits = Waits::new(&plan.end);
    let tasks = plan.left_out.iter().map(|id| &plan.end.tasks[id]);
    tasks.map(|task| (&task.id, reason(plan, &mut waits, task))).collect()
}

fn reason<'a>(plan: &'a Plan, waits: &mut Waits<'a>, task: &'a Task) -> String {
    if let TaskPhase::Blocked(block) = &task.phase {
        return format!("blocked: {}", first_line(&block.reason));
    }
    let is_next = match &task.phase {
        TaskPhase::Ready { stage } => {
            plan.end.is_open(task)
                && task.backoff_until.is_none()
                && has_agent(&plan.end, stage, &Demand::of(&plan.end.settings, task, stage))
        }
        TaskPhase::Waiting
        | TaskPhase::Working { .. }
        | TaskPhase::Landing { .. }
        | TaskPhase::Blocked(_)
        | TaskPhase::Completed { .. }
        | TaskPhase::Cancelled { .. } => false,
    };
    if plan.is_cut && is_next {
        return "beyond what is planned".to_owned();
    }
    let found = waits.reason(task);
    found.map_or_else(
        || "is not done within the plan".to_owned(),
        |reason| format!("{}: {}", reason.on.word(), reason.what),
    )
}

fn left_out_text(plan: &Plan, page: Page, out: &mut String) {
    let all = left_out(plan);
    if all.is_empty() {
        return;
    }
    heading(&format!("left out: {}", count(all.len(), "task")), out);
    let listed = all.iter().take(LINES_MAX);
    let rows: Vec<Vec<Cell>> =
        listed.map(|(id, why)| vec![Cell::new(id.as_str()), Cell::new(why)]).collect();
    out.push_str(&table(page, 2, &rows));
    if all.len() > LINES_MAX {
        let _ = writeln!(out, "  and {} more: pipeline plan --json", all.len() - LINES_MAX);
    }
}

#[derive(Serialize)]
struct Document<'a> {
    from: Stamp,
    schedule: Vec<Row<'a>>,
    waves: Vec<Vec<&'a str>>,
    /// By task.
    complexity: BTreeMap<&'a str, Assessment>,
    critical_path: Vec<&'a str>,
    critical_path_s: f64,
    makespan_s: f64,
    lower_bound_s: f64,
    work_s: f64,
    workers: usize,
    bottleneck: Option<Bottleneck<'a>>,
    utilization: BTreeMap<&'a str, f64>,
    /// Seconds by group; `None`: not tried.
    gain: Option<BTreeMap<&'a str, f64>>,
    left_out: Vec<LeftOut<'a>>,
    is_cut: bool,
    assumed: Vec<&'static str>,
}

#[derive(Serialize)]
struct Row<'a> {
    task: &'a str,
    stage: &'a str,
    agent: &'a str,
    start_s: f64,
    end_s: f64,
    running: bool,
}

impl<'a> Row<'a> {
    fn of(entry: &'a Entry) -> Self {
        Self {
            task: entry.task.as_str(),
            stage: entry.stage.as_str(),
            agent: entry.agent.as_str(),
            start_s: seconds(entry.start_ms),
            end_s: seconds(entry.end_ms),
            running: entry.is_running,
        }
    }
}

#[derive(Serialize)]
struct Bottleneck<'a> {
    stage: &'a str,
    each_s: f64,
}

#[derive(Serialize)]
struct LeftOut<'a> {
    id: &'a str,
    reason: String,
}

fn seconds(ms: u64) -> f64 {
    ms as f64 / 1000.0
}

/// Returns the plan as one JSON document.
#[must_use]
pub fn render_plan_json(plan: &Plan) -> String {
    let share = |ms: u64| (utilization(plan, ms) * 10_000.0).round() / 10_000.0;
    let bottleneck = plan.bottleneck.as_ref();
    let gain = plan.gain_ms.as_ref();
    document(&Document {
        from: Stamp(plan.from),
        schedule: plan.schedule.iter().map(Row::of).collect(),
        waves: plan.waves.iter().map(|ids| ids.iter().map(TaskId::as_str).collect()).collect(),
        complexity: planned(plan)
            .into_iter()
            .map(|task| (task.id.as_str(), Assessment::of(&task.spec)))
            .collect(),
        critical_path: plan.critical_path.iter().map(TaskId::as_str).collect(),
        critical_path_s: seconds(plan.critical_ms),
        makespan_s: seconds(plan.makespan_ms),
        lower_bound_s: seconds(plan.lower_bound_ms),
        work_s: seconds(plan.work_ms),
        workers: plan.workers,
        bottleneck: bottleneck
            .map(|(stage, ms)| Bottleneck { stage: stage.as_str(), each_s: seconds(*ms) }),
        utilization: plan.busy_ms.iter().map(|(name, ms)| (name.as_str(), share(*ms))).collect(),
        gain: gain.map(|gain| gain.iter().map(|(name, ms)| (&**name, seconds(*ms))).collect()),
        left_out: left_out(plan)
            .into_iter()
            .map(|(id, reason)| LeftOut { id: id.as_str(), reason })
            .collect(),
        is_cut: plan.is_cut,
        assumed: plan.assumed.iter().map(|assumed| as_if(*assumed)).collect(),
    })
}

#[cfg(test)]
mod tests {
    use jiff::tz::TimeZone;
    use serde_json::{Value, json};

    use super::{render_plan, render_plan_json};
    use crate::machine::id::TaskId;
    use crate::machine::plan::{ATTEMPTS_MAX, Plan, Workers, plan};
    use crate::observe::page::Page;
    use crate::observe::support::{Pipeline, settings, task};

    /// B depends on A; C is held.
    fn planned() -> Plan {
        let mut held = task("C", &[]);
        held.is_held = true;
        let mut settings = settings();
        settings.stages.truncate(2);
        settings.agents.truncate(2);
        let pipeline = Pipeline::started(settings, vec![task("A", &[]), task("B", &["A"]), held]);
        plan(&pipeline.state, pipeline.now, Workers::Agents, ATTEMPTS_MAX)
    }

    #[test]
    fn the_text_says_who_what_and_when() {
        let text = render_plan(&planned(), &TimeZone::UTC, Page::plain(80));
        let expected = "\
2 tasks in 4 attempts by 2 agents: 40 min 0 s, until 23:40
at least 40 min 0 s (the critical path); the plan takes 1.00 times that

critical path, 40 min 0 s
  A > B

agent      attempts  works       share of the time
architect  2         20 min 0 s  50 %
test       2         20 min 0 s  50 %

one more of  saves
architect    nothing
test         nothing

wave  tasks
1     1      A
2     1      B

task  complexity  why
A     moderate    assessed: no body, 0 paths, 0 dependencies
B     moderate    assessed: no body, 0 paths, 1 dependency

in   at     for  agent      task  stage
0    23:00  10m  architect  A     architect
10m  23:10  10m  test       A     test
20m  23:20  10m  architect  B     architect
30m  23:30  10m  test       B     test

A architect, T test; a column is 1m
           |0          |12m        |24m        |36m
architect  |AAAAAAAAAA..........aaaaaaaaaa..........|
test       |..........TTTTTTTTTT..........tttttttttt|

left out: 1 task
  C  hold: held by a person: pipeline task release C
";
        assert_eq!(text, expected);
        let narrow = render_plan(&planned(), &TimeZone::UTC, Page::plain(40));
        let table = narrow.lines().skip(2);
        assert!(table.clone().all(|line| line.chars().count() <= 40), "{narrow}");
    }

    #[test]
    fn an_empty_plan_says_why_it_is_empty() {
        let head = |pipeline: &Pipeline| {
            let plan = plan(&pipeline.state, pipeline.now, Workers::Agents, ATTEMPTS_MAX);
            let text = render_plan(&plan, &TimeZone::UTC, Page::plain(80));
            text.lines().next().map(str::to_owned).unwrap_or_default()
        };
        let none = Pipeline::started(settings(), Vec::new());
        assert_eq!(head(&none), "there are no tasks yet: pipeline task add");
        let mut held = task("A", &[]);
        held.is_held = true;
        assert_eq!(head(&Pipeline::started(settings(), vec![held])), "nothing can be planned");
        let mut pipeline = Pipeline::started(settings(), vec![task("A", &[])]);
        pipeline.run_stages("A");
        assert_eq!(head(&pipeline), "all that is left is to land");
        pipeline.turn();
        pipeline.land("A");
        pipeline.pass(1);
        assert_eq!(head(&pipeline), "nothing is left to do");
    }

    #[test]
    fn a_long_critical_path_stays_within_the_page() {
        let mut plan = planned();
        let ids = (0..60).map(|n| TaskId::new(format!("C{}", "9".repeat(5 + n % 9))));
        plan.critical_path = ids.collect();
        let mut out = String::new();
        super::critical_path(&plan, Page::plain(80), &mut out);
        let wide = out.lines().map(|line| line.chars().count()).max();
        assert!(wide.is_some_and(|wide| (70..=80).contains(&wide)), "{out}");
        let names = out.lines().filter(|line| line.starts_with("  C")).collect::<Vec<_>>();
        assert_eq!(names.join(" ").matches(" > ").count(), 39, "{out}");
        assert!(out.ends_with("\n  > and 20 more\n"), "{out}");
    }

    #[test]
    fn the_document_has_the_fields_that_others_rely_on() {
        let json: Value = serde_json::from_str(&render_plan_json(&planned())).expect("JSON");
        let second = json!({"task": "A", "stage": "test", "agent": "test", "start_s": 600.0,
            "end_s": 1200.0, "running": false});
        assert_eq!(json["schedule"][1], second);
        assert_eq!(json["waves"], json!([["A"], ["B"]]));
        let assessed = "assessed: no body, 0 paths, 1 dependency";
        let expected = json!({"complexity": "moderate", "reason": assessed});
        assert_eq!(json["complexity"]["B"], expected);
        assert_eq!(json["critical_path"], json!(["A", "B"]));
        assert_eq!(json["makespan_s"], 2400.0);
        assert_eq!(json["lower_bound_s"], 2400.0);
        assert_eq!(json["utilization"], json!({"architect": 0.5, "test": 0.5}));
        assert_eq!(json["gain"], json!({"architect": 0.0, "test": 0.0}));
        assert_eq!(json["left_out"][0]["id"], "C");
    }
}
