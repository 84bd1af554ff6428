//! A night with agents that fail in every way, and the morning after: what the screens say, that
//! what they say to type works, and that git agrees with the report.

use std::fs;

use serde_json::Value;

use crate::support::project::Project;

/// How the stand-in of a provider's program is read.
const PRESET: &str = r#"about = "a stand-in"
provider = "meter"
headless = ["meter"]

[[output]]
fact = "limit"
when = { "/type" = "error" }
at = ["/message"]

[[output]]
fact = "until"
when = { "/type" = "error" }
at = ["/retry_after"]

[[output]]
fact = "cost_usd"
at = ["/cost"]
"#;

const METER: &str = r#"#!/bin/sh
cat >/dev/null
echo '{"cost":0.02}'
if [ -e "$HOME/morning" ]; then echo done >"$PIPELINE_TASK_ID.txt"; pipeline done; exit; fi
echo '{"type":"error","message":"five-hour limit reached","retry_after":3600}'
"#;

/// Does what its task's name says; in the morning all are good. Those in conflict began before what
/// they conflict with landed.
const CODER: &str = r#"set -eu
dir=$E2E_DIR/home
id=$PIPELINE_TASK_ID
landed() { git -C "$PIPELINE_PROJECT" cat-file -e "pipeline/landed:shared.txt" 2>/dev/null; }
if [ -e "$dir/morning" ]; then
  rm -f broken
  if [ -e shared.txt ]; then
    grep -v '^[<=>|][<=>|]*' shared.txt | sort -u >"$dir/$id.sorted"
    cp "$dir/$id.sorted" shared.txt
  fi
  echo "$id" >"$id.txt"
  exit 0
fi
case $id in
  LAND-1)
    until [ -e "$dir/MIX-1" ] && [ -e "$dir/MIX-2" ]; do sleep 0.1; done
    echo first >shared.txt ;;
  MIX-*)
    if [ -e "$dir/$id" ]; then echo again >>"$id.txt"; exit 0; fi
    touch "$dir/$id"
    until landed; do sleep 0.1; done
    echo "$id" >shared.txt ;;
  ASK) pipeline block 'which colour shall the shed have, and may the door be green?' ;;
  FAIL) echo 'cc: fatal error: no input files'; exit 1 ;;
  BREAK) echo x >broken ;;
  IDLE) ;;
  *) echo "$id" >"$id.txt" ;;
esac
"#;

const CHECK: &str = "i=0; while [ $i -lt 200 ]; do i=$((i+1)); echo \"test $i ok\"; done\n\
    if [ -e broken ]; then echo 'test shed_has_a_door FAILED'; exit 1; fi\n";

const SETTINGS: &str = r#"[retry]
backoff = { first = "10ms" }
[limits]
attempts_per_stage = 2
send_backs = 1
[landing]
checks = ["sh tools/check.sh"]
[[stage]]
name = "implementation"
[[stage]]
name = "supervisor"
[[agent]]
name = "coder"
stages = ["implementation"]
count = 3
command = ["sh", "{project}/tools/coder.sh"]
capabilities = ["code"]
[[agent]]
name = "metered"
stages = ["implementation"]
preset = "claude"
capabilities = ["meter"]
[[agent]]
name = "judge"
stages = ["supervisor"]
command = ["true"]
capabilities = ["code", "meter"]
"#;

/// Ten tasks; the first three are begun first.
const TASKS: [&str; 10] =
    ["LAND-1", "MIX-1", "MIX-2", "LAND-2", "LAND-3", "ASK", "FAIL", "BREAK", "IDLE", "LIMIT"];

fn night() -> Project {
    let project = Project::bare();
    fs::create_dir(&project.root).expect("the project's folder");
    project.git(&["init", "-q", "-b", "main"]);
    project.write("README", "a shed\n");
    project.write("tools/coder.sh", CODER);
    project.write("tools/check.sh", CHECK);
    project.write("agents/presets/claude.toml", PRESET);
    project.write("pipeline.toml", SETTINGS);
    project.commit("A beginning");
    project.install("meter", METER);
    project.ok(&["init"]);
    let tasks: Vec<Value> = TASKS
        .iter()
        .map(|id| {
            let (needs, priority) = match *id {
                "LIMIT" => ("meter", "medium"),
                "LAND-1" | "MIX-1" | "MIX-2" => ("code", "critical"),
                _ => ("code", "medium"),
            };
            serde_json::json!({ "id": id, "title": format!("Build | the <shed>, {id}"),
                "needs": [needs], "priority": priority })
        })
        .collect();
    let file = project.dir().join("backlog.json");
    fs::write(&file, serde_json::json!({ "tasks": tasks }).to_string()).expect("the backlog");
    project.ok(&["task", "import", &file.to_string_lossy()]);
    let mut monitor = project.start(&["monitor"]);
    // One after another: each has its own limit, and a night is long on a busy machine.
    let count = |name: &str| project.status()["counts"][name].as_u64();
    project.until("the good ones to land", || count("completed") == Some(3));
    for blocked in 1..=6 {
        project.until("the bad ones to be blocked", || count("blocked") >= Some(blocked));
    }
    let is_limited = || project.status()["waiting"][0]["on"] == "rate_limit";
    project.until("the limit to be waited for", is_limited);
    project.ok(&["stop"]);
    monitor.end(&project);
    project
}

/// The lines of `status` about what needs a person: (task, command to type).
fn to_type(status: &str) -> Vec<(String, String)> {
    let (_, section) = status.split_once("\nneeds a person\n").expect("somebody is needed");
    let lines = section.lines().take_while(|line| line.starts_with("  "));
    let found = lines.filter_map(|line| {
        let (id, command) = (line.split_whitespace().next()?, line.split_once(": pipeline ")?.1);
        // The reason may have a colon of its own, the command has none.
        let command = command.rsplit_once(": pipeline ").map_or(command, |(_, last)| last);
        Some((id.to_owned(), format!("pipeline {command}")))
    });
    found.collect()
}

fn report(project: &Project, args: &[&str]) -> Value {
    let text = project.ok(&[&["report", "--format", "json"], args].concat());
    serde_json::from_str(&text).expect("a report is JSON")
}

fn ids(list: &Value) -> Vec<&str> {
    let mut ids: Vec<&str> = list
        .as_array()
        .expect("a list")
        .iter()
        .map(|entry| entry["id"].as_str().expect("an id"))
        .collect();
    ids.sort_unstable();
    ids
}

fn check_status(project: &Project) {
    crate::status_shape::check(&project.status());
    let said = project.ok(&["status"]);
    let first = said.lines().next().expect("a first line");
    assert!(first.starts_with("3 of 10 landed ("), "{said}");
    assert!(first.ends_with("), 6 need a person, 1 waits, cost $0.02"), "{said}");
    assert!(first.chars().count() <= 80, "{first}");
    let range = first.split(['(', ')']).nth(1).expect("a range");
    let landed = project.git(&["log", "--first-parent", "--format=%s", range]);
    assert_eq!(landed.lines().filter(|line| line.starts_with("Land LAND-")).count(), 3, "{landed}");
    assert_eq!(landed.lines().count(), 3, "{landed}");
    let commands = to_type(&said);
    let mut blocked: Vec<&str> = commands.iter().map(|(id, _)| id.as_str()).collect();
    blocked.sort_unstable();
    assert_eq!(blocked, ["ASK", "BREAK", "FAIL", "IDLE", "MIX-1", "MIX-2"], "{said}");
    assert!(said.contains("  LIMIT  rate_limit  `meter` has reached a limit: five"), "{said}");
    let width = |line: &&str| line.chars().count() > 80 && !line.contains(": pipeline ");
    assert_eq!(said.lines().find(width), None, "{said}");
    let color = project.ok(&["status", "--color", "always"]);
    assert!(color.starts_with("\u{1b}[32m3 of 10 landed ("), "{color}");
    project.fails(1, &["status", "--fail-on", "blocked"]);
    project.ok(&["status", "--fail-on", "stalled", "--fail-on", "unhealthy"]);
    project.fails(1, &["status", "--json", "--fail-on", "unhealthy", "--fail-on", "blocked"]);
}

fn check_logs(project: &Project) {
    let broken = project.run(&["task", "log", "BREAK", "--failed"]);
    assert!(broken.out.ends_with("test 200 ok\ntest shed_has_a_door FAILED\n"), "{broken:?}");
    assert!(broken.err.contains("checks_failed: `sh tools/check.sh`"), "{broken:?}");
    assert!(broken.out.starts_with("test 102 ok\n"), "its last 100 lines: {broken:?}");
    assert!(broken.err.contains("note: its end; all of it is in /"), "{broken:?}");
    let failed = project.run(&["task", "log", "FAIL", "--failed"]);
    assert!(failed.out.ends_with("cc: fatal error: no input files\n"), "{failed:?}");
    assert!(failed.err.contains("note: failed: exited with status 1"), "{failed:?}");
    let said = |args: &[&str]| {
        let done = project.run(&[&["task", "log"], args].concat());
        assert_eq!(done.code, Some(0), "{args:?}: {}", done.err);
        done.err
    };
    assert_eq!(said(&["LAND-2", "--failed"]), "note: nothing of task `LAND-2` has failed\n");
    let work = said(&["LAND-2"]);
    assert!(work.starts_with("note: attempt LAND-2.super.1\n"), "not the landing's check: {work}");
    assert!(work.contains("LAND-2.super.1 is over: it printed nothing\n"), "{work}");
    let asked = said(&["ASK", "--failed"]);
    assert!(asked.starts_with("note: blocked: which colour"), "{asked}");
    assert_eq!(asked.matches("which colour").count(), 1, "{asked}");
}

fn check_report(project: &Project) {
    let told = report(project, &[]);
    assert_eq!(ids(&told["landed"]), ["LAND-1", "LAND-2", "LAND-3"]);
    assert_eq!(ids(&told["blocked"]), ["ASK", "BREAK", "FAIL", "IDLE", "MIX-1", "MIX-2"]);
    let classes = |id: &str| {
        let blocked = told["blocked"].as_array().expect("a list").iter();
        let mut found = blocked.filter(|entry| entry["id"] == id).map(|entry| &entry["class"]);
        found.next().cloned().unwrap_or_default()
    };
    assert_eq!(classes("ASK"), "blocked");
    assert_eq!(classes("BREAK"), "landing_checks_failed");
    assert_eq!(classes("FAIL"), "failed");
    assert_eq!(classes("IDLE"), "empty");
    assert_eq!(classes("MIX-1"), "conflict_left");
    assert_eq!(told["waiting"][0]["on"], "rate_limit");
    verified(project, &told);
    adds_up(project, &told);
    let md = project.ok(&["report"]);
    assert!(md.starts_with("# Pipeline report\n\nFrom 2"), "{md}");
    let summary = "3 landed, 6 need a person, 1 waits, cost $0.02.";
    assert!(md.contains(&format!("\n{}\n", summary)), "{md}");
    assert!(md.contains(r"| LAND-1 | Build \| the \<shed\>, LAND-1 |"), "{md}");
    assert!(md.contains("`pipeline task retry ASK --note 'ANSWER'` |"), "{md}");
}

/// Every command that the report names succeeds, and shows what it says.
fn verified(project: &Project, told: &Value) {
    let list = told["verify"].as_str().expect("a command");
    let shown = project.shell(list);
    assert_eq!(shown.code, Some(0), "{list}: {shown:?}");
    assert_eq!(shown.out.lines().count(), 3, "{shown:?}");
    for entry in told["landed"].as_array().expect("a list") {
        let id = entry["id"].as_str().expect("an id");
        let commit = entry["commit"].as_str().expect("a commit");
        let format = "--format=%(trailers:key=Pipeline-Task,valueonly)";
        assert_eq!(project.git(&["log", "-1", format, commit]), id);
        let commands = entry["verify"].as_array().expect("a list");
        assert_eq!(commands.len(), 2, "{entry}");
        for line in commands {
            let line = line.as_str().expect("a command");
            let done = project.shell(line);
            assert_eq!(done.code, Some(0), "{line}: {done:?}");
            let file = if id == "LAND-1" { "shared.txt" } else { &format!("{id}.txt") };
            assert!(!line.contains("diff") || done.out.contains(file), "{line}: {done:?}");
        }
        assert_eq!(entry["checks"][0]["exit"], 0, "{entry}");
        assert_eq!(entry["attempts"], 2, "{entry}");
    }
}

/// The report's sums are those of the journal.
fn adds_up(project: &Project, told: &Value) {
    let log = project.log();
    let of = |kind: &str| log.iter().filter(|entry| entry["kind"] == kind).collect::<Vec<_>>();
    let begun = of("attempt_added");
    let works: Vec<&&Value> = begun.iter().filter(|entry| entry["purpose"] == "work").collect();
    let is_work = |entry: &&&Value| works.iter().any(|work| work["attempt"] == entry["attempt"]);
    let ended = of("attempt_ended");
    let ended: Vec<&&Value> = ended.iter().filter(is_work).collect();
    let of_class = |class: &str| ended.iter().filter(|entry| entry["class"] == class).count();
    let good = of_class("completed");
    // What a provider refuses is nobody's failure.
    let failed = ended.len() - good - of_class("rate_limited");
    let totals = &told["totals"];
    assert_eq!(totals["attempts"], works.len());
    assert_eq!(totals["completed"], good);
    assert_eq!(totals["failed"], failed);
    assert_eq!((&totals["running"], &totals["escalations"]), (&0.into(), &0.into()));
    // Both conflicts and the broken landing.
    assert_eq!(totals["sent_back"], 3, "{totals}");
    assert_eq!(totals["classes"]["rate_limited"], 1, "{totals}");
    let sum = |list: &Value, field: &str| -> u64 {
        let list = list.as_object().expect("an object").values();
        list.map(|entry| entry[field].as_u64().expect("a number")).sum()
    };
    assert_eq!(sum(&told["agents"], "attempts"), works.len() as u64);
    assert_eq!(sum(&told["stages"], "n"), good as u64);
    assert_eq!(sum(&told["stages"], "failed"), failed as u64);
    assert_eq!(totals["retries"], sum(&told["stages"], "retries"));
    let cost = told["totals"]["cost_usd"].as_f64().expect("a number");
    assert!((cost - 0.02).abs() < 1e-9, "{cost}");
}

fn check_doctor(project: &Project) {
    let found = project.ok(&["doctor"]);
    assert!(!found.contains("leftovers"), "what failed to land is none: {found}");
}

fn check_files(project: &Project) {
    let path = project.dir().join("night.html");
    let name = path.to_string_lossy();
    let done = project.run(&["report", "--format", "html", "-o", &name]);
    assert_eq!((done.code, done.out.as_str()), (Some(0), ""), "{done:?}");
    let html = fs::read_to_string(&path).expect("it is written");
    assert!(html.starts_with("<!doctype html>") && html.ends_with("</html>\n"), "{html}");
    assert!(html.contains("<td>Build | the &lt;shed&gt;, LAND-1<td>"), "{html}");
    let said = project.fails(1, &["report", "-o", "no/such/folder/x.md"]);
    assert!(said.contains("cannot write the report to `") && said.contains("hint: "), "{said}");
    let said = project.fails(2, &["report", "--json", "--format", "md"]);
    assert!(said.contains("another format than --format"), "{said}");
    let said = project.fails(2, &["report", "--since", "2100-01-01T00:00:00Z"]);
    assert!(said.contains("--since lies ahead"), "{said}");
    project.fails(2, &["report", "--since", "soon"]);
}

#[test]
fn a_night_of_failures_is_told_and_each_is_brought_home_by_what_is_said_to_type() {
    let project = night();
    check_status(&project);
    check_logs(&project);
    check_report(&project);
    check_files(&project);
    check_doctor(&project);
    let commands = to_type(&project.ok(&["status"]));
    fs::write(project.dir().join("home/morning"), "").expect("the morning");
    for (id, line) in &commands {
        let done = project.shell(line);
        assert_eq!(done.code, Some(0), "{id}: {line}: {done:?}");
    }
    project.ok(&["agent", "resume", "metered"]);
    project.ok(&["monitor", "--until-idle", "--timeout", "240s"]);
    assert_eq!(project.count("completed"), 10, "{}", project.story());
    let first = project.ok(&["status"]);
    assert!(first.starts_with("10 of 10 landed (7 in this run: "), "{first}");
    let told = report(&project, &[]);
    let home = ["ASK", "BREAK", "FAIL", "IDLE", "LIMIT", "MIX-1", "MIX-2"];
    assert_eq!(ids(&told["landed"]), home);
    assert_eq!(ids(&report(&project, &["--since", "1h"])["landed"]).len(), 10);
    project.assert_nothing_left();
}
