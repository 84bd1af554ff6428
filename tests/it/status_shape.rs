//! `status --json` field by field, and a status that is watched.

use rustix::process::Signal;
use serde_json::{Value, json};

use crate::support::project::Project;
use crate::support::{processes_of, signal};

/// Looks at a value: an object of the shape has its fields at least, a list consists of such; `*`
/// stands for any names; a text names kinds, and words that are to stand there.
fn fits(place: &str, value: &Value, shape: &Value) {
    match shape {
        Value::Object(fields) => {
            let found = value.as_object().unwrap_or_else(|| panic!("{place} is {value}"));
            if let Some(each) = fields.get("*") {
                assert!(!found.is_empty(), "{place} is empty: nothing is shown");
                found.iter().for_each(|(name, it)| fits(&format!("{place}.{name}"), it, each));
                return;
            }
            for (name, shape) in fields {
                let place = format!("{place}.{name}");
                let it = found.get(name).unwrap_or_else(|| panic!("{place} is missing"));
                fits(&place, it, shape);
            }
        }
        Value::Array(shapes) => {
            let found = value.as_array().unwrap_or_else(|| panic!("{place} is {value}"));
            found.iter().for_each(|it| fits(&format!("{place}[]"), it, &shapes[0]));
        }
        Value::String(kinds) => {
            let is_it = kinds.split('|').any(|kind| is_a(value, kind));
            assert!(is_it, "{place} is {value}, expected {kinds}");
        }
        other => panic!("{place}: {other} is no shape"),
    }
}

fn is_a(value: &Value, kind: &str) -> bool {
    match kind {
        "null" => value.is_null(),
        "bool" => value.is_boolean(),
        "count" => value.is_u64(),
        "number" => value.is_number(),
        "text" => value.is_string(),
        "time" => value.as_str().is_some_and(|text| text.parse::<jiff::Timestamp>().is_ok()),
        word => value == word,
    }
}

/// The status as others rely on it.
pub(crate) fn check(status: &Value) {
    let agent = json!({"stages": ["text"], "status": "idle|working|paused|cooling|failed",
        "until": "time|null", "stage": "text|null", "current_task": "text|null",
        "attempt": "text|null", "completed": "count", "failed": "count", "busy_s": "number"});
    let on = "dependency|conflict|rate_limit|backoff|checkout|agent|budget|approval|hold|rollout";
    let shape = json!({
        "version": "1.0.0", "seq": "count", "updated_at": "time",
        "orchestration_mode": "sequential|parallel|hybrid",
        "mode": "shadow|pilot|production", "paused": "bool",
        "monitor": {"running": "bool", "pid": "count|null", "poll_interval_s": "number"},
        "counts": {"total": "count", "unassigned": "count", "ready": "count", "wip": "count",
            "landing": "count", "blocked": "count", "completed": "count", "cancelled": "count"},
        "queues": {"unassigned": ["text"], "implementation": ["text"], "supervisor": ["text"],
            "landing": ["text"], "blocked": ["text"], "completed": ["text"]},
        "agents": {"*": agent},
        "waiting": [{"id": "text", "on": on, "what": "text", "until": "time|null"}],
        "blocked": [{"id": "text", "stage": "text|null", "class": "text", "reason": "text",
            "attempts": "count", "branch": "text|null", "since": "time", "next": "text"}],
        "landing": {"branch": "text", "base": "text", "behind": "count", "why": "text|null"},
        "metrics": {"attempts": "count", "retries": "count", "reverts": "count",
            "cost_usd": "number|null", "tokens": "count|null", "throughput_per_h": "number",
            "utilization": "number", "handoff_ms": {"p50": "count|null", "p99": "count|null"},
            "stage_s": {"*": {"n": "count", "mean": "number", "p95": "number"}}}
    });
    fits("status", status, &shape);
    for list in ["waiting", "blocked"] {
        assert!(
            !status[list].as_array().expect("a list").is_empty(),
            "no {list}: nothing is shown"
        );
    }
    let counts = status["counts"].as_object().expect("an object");
    let parts = counts.iter().filter(|(name, _)| *name != "total");
    let sum: u64 = parts.map(|(_, n)| n.as_u64().expect("a count")).sum();
    assert_eq!(sum, counts["total"], "each task is counted once");
}

#[test]
fn a_watched_status_goes_on_until_what_a_script_waits_for_is_so() {
    let project = Project::new(1);
    project.hold("hold");
    let mut watch = project.start(&["status", "--watch", "--json", "--fail-on", "stalled"]);
    watch.until_said("\"total\":0");
    project.ok(&["task", "add", "One", "--id", "A"]);
    watch.until_said("\"total\":1");
    let mut monitor = project.monitor(&[]);
    project.until("the agent to run", || project.runs().len() == 1);
    project.until("that to be known", || project.status()["metrics"]["handoff_ms"]["p50"].is_u64());
    monitor.kill();
    // Its keeper holds it: nothing is lost, and nothing stalls.
    assert_eq!(project.run(&["status", "--fail-on", "stalled"]).code, Some(0));
    assert!(watch.has_ended().is_none(), "{}", watch.said());
    let keepers = processes_of(&project.dir()).into_iter();
    let keepers = keepers.filter(|(_, line)| line.contains(" __keeper "));
    keepers.for_each(|(pid, _)| signal(pid, Signal::KILL));
    assert_eq!(watch.end(&project), Some(1), "{}", watch.said());
    project.fails(1, &["status", "--fail-on", "stalled"]);
    project.ok(&["status", "--fail-on", "blocked"]);
    let seqs: Vec<u64> = watch
        .said()
        .lines()
        .map(|line| serde_json::from_str::<Value>(line).expect("a line is JSON"))
        .map(|status| status["seq"].as_u64().expect("a number"))
        .collect();
    assert!(seqs.len() >= 3 && seqs.is_sorted(), "{seqs:?}");
    project.release("hold");
    project.ok(&["monitor", "--until-idle", "--timeout", "240s"]);
    assert_eq!(project.count("completed"), 1);
    project.assert_nothing_left();
}
