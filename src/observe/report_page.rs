//! The report for people: the same words on whatever paper.

use jiff::Timestamp;
use jiff::tz::TimeZone;

use super::page::first_line;
use super::paper::{Paper, Piece};
use super::purse::cost_words;
use super::report::{Done, Landed, Report};
use super::waiting::On;
use super::words::{Stamp, amount, approval, landings as landings_words, span};
use crate::machine::purse::money;

/// What shows the end of what failed.
const WHY: &str = "pipeline task log ID --failed";
/// Waiting tasks named; the rest is counted.
const WAITING_MAX: usize = 50;
/// Characters of a commit id: told apart in the largest repositories.
const OID_CHARS: usize = 12;

/// Writes the report; moments are told in the zone given.
#[must_use]
pub fn write(report: &Report<'_>, mut paper: Box<dyn Paper>, zone: &TimeZone) -> String {
    let out = paper.as_mut();
    out.heading(1, "Pipeline report");
    let (since, until) = (report.since.0, report.until.0);
    out.paragraph(&[Piece::text(format!(
        "From {} to {} ({}), {}, {}.",
        moment(report.since, zone),
        moment(report.until, zone),
        span(until.ms_since(since)),
        report.orchestration_mode,
        report.mode
    ))]);
    out.paragraph(&[Piece::text(summary(report))]);
    if let Some(it) = &report.fell_back {
        let (at, why) = (moment(it.at, zone), first_line(it.why));
        let text = format!("The rollout fell back from production at {at}: {why}: ");
        out.paragraph(&[Piece::text(text), Piece::code(it.next)]);
    }
    landings(report, out, zone);
    done_by_hand(report, out, zone);
    people(report, out, zone);
    waiting(report, out, zone);
    stages(report, out);
    totals(report, out);
    agents(report, out);
    slowest(report, out);
    paper.finish()
}

fn moment(stamp: Stamp, zone: &TimeZone) -> String {
    let ms = i64::try_from(stamp.0.as_ms()).unwrap_or(i64::MAX);
    let moment = Timestamp::from_millisecond(ms).unwrap_or(Timestamp::MAX);
    moment.to_zoned(zone.clone()).strftime("%Y-%m-%d %H:%M %Z").to_string()
}

fn in_words(seconds: f64) -> String {
    span((seconds * 1000.0) as u64)
}

fn dollars(usd: Option<f64>) -> String {
    usd.map(|usd| money((usd * 1e6).round() as u64)).unwrap_or_default()
}

fn percent(share: f64) -> String {
    format!("{:.0} %", share * 100.0)
}

fn count(n: impl ToString) -> Piece {
    Piece::text(n.to_string())
}

fn summary(report: &Report<'_>) -> String {
    let roots = report.blocked.iter().filter(|blocked| blocked.is_root).count();
    let approvals = report.waiting.iter().filter(|entry| entry.reason.on == On::Approval).count();
    let persons = roots + approvals;
    let waits = report.waiting.len() - approvals + report.blocked.len() - roots;
    let mut parts = vec![format!("{} landed", report.landed.len())];
    if !report.done_by_hand.is_empty() {
        parts.push(format!("{} done by a person", report.done_by_hand.len()));
    }
    parts.extend([
        format!("{persons} {} a person", if persons == 1 { "needs" } else { "need" }),
        format!("{waits} {}", if waits == 1 { "waits" } else { "wait" }),
    ]);
    let in_work = report.totals.running;
    if in_work > 0 {
        parts.push(format!("{in_work} in work"));
    }
    parts.extend(cost_words(report.totals.cost_usd, report.totals.cost_unknown));
    parts.join(", ") + "."
}

fn landings(report: &Report<'_>, out: &mut dyn Paper, zone: &TimeZone) {
    out.heading(2, "Landed");
    if report.landed.is_empty() {
        out.paragraph(&[Piece::text("Nothing.")]);
    }
    let rows: Vec<Vec<Piece>> = report.landed.iter().map(|entry| landing(entry, zone)).collect();
    out.table(&["task", "title", "landed", "commit", "attempts", "took", "cost", "checks"], &rows);
    let mut lines: Vec<String> = report.verify.iter().map(|line| brief(line)).collect();
    for entry in &report.landed {
        if !entry.verify.is_empty() {
            lines.push(format!("# {}", entry.id));
            lines.extend(entry.verify.iter().map(|line| brief(line)));
        }
    }
    if !lines.is_empty() {
        out.paragraph(&[Piece::text("To see it in the repository:")]);
    }
    out.commands(&lines);
    let trouble = &report.landing;
    if trouble.behind > 0 {
        let (base, branch) = (trouble.base, trouble.branch);
        let behind = format!(" is {} behind ", landings_words(trouble.behind));
        let pieces =
            [Piece::code(base), Piece::text(behind), Piece::code(branch), Piece::text(".")];
        out.paragraph(&pieces);
    }
    if let (Some(why), Some(next)) = (&trouble.why, &trouble.next) {
        out.paragraph(&[Piece::text(format!("{why}: ")), Piece::code(next)]);
    }
}

fn done_by_hand(report: &Report<'_>, out: &mut dyn Paper, zone: &TimeZone) {
    let row = |entry: &Done<'_>| {
        let title = first_line(entry.title).into_owned();
        vec![Piece::text(entry.id), Piece::text(title), Piece::text(moment(entry.at, zone))]
    };
    let rows: Vec<Vec<Piece>> = report.done_by_hand.iter().map(row).collect();
    if !rows.is_empty() {
        out.heading(2, "Done by a person");
        out.table(&["task", "title", "done"], &rows);
    }
}

/// Shortens the commit ids in a command.
fn brief(line: &str) -> String {
    let mut out = String::with_capacity(line.len());
    let mut digits = String::new();
    for c in line.chars().chain(['\0']) {
        if c.is_ascii_digit() || ('a'..='f').contains(&c) {
            digits.push(c);
            continue;
        }
        let is_id = matches!(digits.len(), 40 | 64);
        out.push_str(if is_id { &digits[..OID_CHARS] } else { &digits });
        digits.clear();
        if c != '\0' {
            out.push(c);
        }
    }
    out
}

fn landing(entry: &Landed<'_>, zone: &TimeZone) -> Vec<Piece> {
    let exits = entry.checks.iter().map(|check| match check.exit {
        Some(code) => format!("exit {code}"),
        None => "no exit status".to_owned(),
    });
    vec![
        Piece::text(entry.id),
        Piece::text(first_line(entry.title)),
        Piece::text(moment(entry.at, zone)),
        Piece::code(entry.commit.map(brief).unwrap_or_default()),
        count(entry.attempts),
        Piece::text(in_words(entry.wall_s)),
        Piece::text(dollars(entry.cost_usd)),
        Piece::text(exits.collect::<Vec<_>>().join(", ")),
    ]
}

fn people(report: &Report<'_>, out: &mut dyn Paper, zone: &TimeZone) {
    let mut rows: Vec<Vec<Piece>> = Vec::new();
    for entry in report.blocked.iter().filter(|entry| entry.is_root) {
        let is_landing = entry.place == Some("landing");
        let stage = if is_landing { entry.place } else { entry.stage };
        let stage = stage.map(|stage| format!("{stage}: ")).unwrap_or_default();
        rows.push(vec![
            Piece::text(entry.id),
            Piece::text(format!("{stage}{}", entry.class)),
            Piece::text(first_line(entry.reason)),
            count(entry.attempts),
            Piece::text(moment(entry.since, zone)),
            Piece::code(&entry.next),
        ]);
    }
    for entry in report.waiting.iter().filter(|entry| entry.reason.on == On::Approval) {
        rows.push(vec![
            Piece::text(entry.id),
            Piece::text(On::Approval.word()),
            Piece::text(approval(&entry.reason.what)),
            Piece::text(""),
            Piece::text(""),
            Piece::code(format!("pipeline task approve {}", entry.id)),
        ]);
    }
    if rows.is_empty() {
        return;
    }
    out.heading(2, "Needs a person");
    out.table(&["task", "class", "why", "attempts", "since", "type"], &rows);
    if report.blocked.iter().any(|entry| entry.is_root) {
        out.paragraph(&[Piece::text("More of each: "), Piece::code(WHY), Piece::text(".")]);
    }
    let held_up: Vec<&str> =
        report.blocked.iter().filter(|entry| !entry.is_root).map(|entry| entry.id).collect();
    if !held_up.is_empty() {
        let names = held_up[..held_up.len().min(WAITING_MAX)].join(", ");
        let dots = if held_up.len() > WAITING_MAX { ", …" } else { "" };
        let verb = if held_up.len() == 1 { "depends" } else { "depend" };
        let what = format!("{} more {verb} on these: {names}{dots}.", held_up.len());
        out.paragraph(&[Piece::text(what)]);
    }
}

fn waiting(report: &Report<'_>, out: &mut dyn Paper, zone: &TimeZone) {
    let entries = || report.waiting.iter().filter(|entry| entry.reason.on != On::Approval);
    let rows: Vec<Vec<Piece>> = entries()
        .take(WAITING_MAX)
        .map(|entry| {
            let (on, what) = (entry.reason.on.word(), entry.reason.what.as_str());
            let until = entry.reason.until.map(|until| moment(until, zone)).unwrap_or_default();
            vec![Piece::text(entry.id), Piece::text(on), Piece::text(what), Piece::text(until)]
        })
        .collect();
    if rows.is_empty() {
        return;
    }
    out.heading(2, "Waiting");
    out.table(&["task", "for", "what", "until"], &rows);
    let more = entries().count() - rows.len();
    if more > 0 {
        out.paragraph(&[Piece::text(format!("And {more} more."))]);
    }
}

fn stages(report: &Report<'_>, out: &mut dyn Paper) {
    out.heading(2, "Stages");
    let row = |(name, stage): &(&str, super::report::StageReport)| {
        let took = |seconds: f64| match stage.took.n {
            0 => Piece::text(""),
            _ => Piece::text(in_words(seconds)),
        };
        vec![
            Piece::text(*name),
            count(stage.took.n),
            took(stage.took.mean),
            took(stage.took.p95),
            count(stage.retries),
            count(stage.failed),
        ]
    };
    let rows: Vec<Vec<Piece>> = report.stages.0.iter().map(row).collect();
    out.table(&["stage", "completed", "mean", "p95", "retries", "failed"], &rows);
}

fn totals(report: &Report<'_>, out: &mut dyn Paper) {
    let totals = &report.totals;
    let mut parts = vec![
        format!("{} attempts", totals.attempts),
        format!("{} completed", totals.completed),
        format!("{} failed", totals.failed),
        format!("{} retries", totals.retries),
        format!("{} sent back", totals.sent_back),
        format!("{} escalations", totals.escalations),
    ];
    parts.extend(totals.tokens.map(|tokens| format!("{} tokens", amount(tokens))));
    parts.extend(cost_words(totals.cost_usd, totals.cost_unknown));
    out.paragraph(&[Piece::text(parts.join(", ") + ".")]);
    let rows: Vec<Vec<Piece>> =
        totals.classes.iter().map(|(class, n)| vec![Piece::text(*class), count(n)]).collect();
    out.table(&["ended as", "attempts and checks"], &rows);
}

fn agents(report: &Report<'_>, out: &mut dyn Paper) {
    out.heading(2, "Agents");
    out.paragraph(&[Piece::text(format!(
        "{} of their time had an attempt.",
        percent(report.utilization)
    ))]);
    let row = |(name, agent): (&&str, &super::report::AgentReport)| {
        vec![
            Piece::text(*name),
            count(agent.attempts),
            count(agent.failed),
            Piece::text(in_words(agent.busy_s)),
            Piece::text(agent.idle_s.map_or_else(|| "has left".into(), in_words)),
            Piece::text(percent(agent.utilization)),
            Piece::text(dollars(agent.cost_usd)),
        ]
    };
    let rows: Vec<Vec<Piece>> = report.agents.iter().map(row).collect();
    out.table(&["agent", "attempts", "failed", "busy", "idle", "utilisation", "cost"], &rows);
}

fn slowest(report: &Report<'_>, out: &mut dyn Paper) {
    let row = |task: &super::report::Slow<'_>| {
        vec![
            Piece::text(task.id),
            Piece::text(first_line(task.title)),
            Piece::text(&task.status),
            count(task.attempts),
            Piece::text(in_words(task.work_s)),
            Piece::text(in_words(task.wall_s)),
        ]
    };
    let rows: Vec<Vec<Piece>> = report.slowest.iter().map(row).collect();
    if rows.is_empty() {
        return;
    }
    out.heading(2, "Slowest tasks");
    out.table(&["task", "title", "status", "attempts", "worked on", "from first to last"], &rows);
}
