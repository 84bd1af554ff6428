//! From shadow over the pilot to production and back, with the real binary.

use std::collections::BTreeSet;

use serde_json::Value;

use crate::support::processes_of;
use crate::support::project::{Backlog, Project, TWELVE};

/// Nine tasks, six of which may be done at any time in this order.
const NINE: &Backlog = &[
    ("T-1", &[]),
    ("T-2", &["T-1"]),
    ("T-3", &["late"]),
    ("T-4", &[]),
    ("T-5", &["T-4", "T-2"]),
    ("T-6", &["late"]),
    ("T-7", &[]),
    ("T-8", &["T-7"]),
    ("T-9", &["late"]),
    ("late", &[]),
];

fn check(project: &Project) -> (Option<i32>, Value) {
    let done = project.run(&["rollout", "check", "--json"]);
    (done.code, serde_json::from_str(&done.out).expect("check is JSON"))
}

fn gate<'a>(checked: &'a Value, name: &str) -> &'a Value {
    let gates = checked["gates"].as_array().expect("a list of gates");
    gates.iter().find(|gate| gate["gate"] == name).expect("the gate is there")
}

/// The reasons why the rollout was set, in the journal.
fn reasons(project: &Project) -> Vec<String> {
    let log = project.log();
    let kinds = ["rollout_reasoned", "rollout_fell_back"];
    let entries = log.iter().filter(|entry| kinds.iter().any(|kind| entry["kind"] == *kind));
    entries.map(|entry| entry["reason"].as_str().expect("a reason").to_owned()).collect()
}

/// Each of the twelve is there, once.
fn is_landed_once(project: &Project, branch: &str) {
    assert_eq!(project.count("completed"), 12);
    let mut landed = project.landings(branch);
    landed.sort_unstable();
    let all: Vec<&str> = TWELVE.iter().map(|(id, _)| *id).collect();
    assert_eq!(landed, all);
}

/// A script lands a task by hand.
fn land_by_hand(project: &Project, id: &str) {
    project.write(&format!("by-hand/{id}.txt"), id);
    project.commit(&format!("{id}: done by a script"));
}

/// All that shadow must leave alone: refs but the base, worktrees, files, processes.
fn picture(project: &Project) -> String {
    let refs = project.git(&["for-each-ref"]);
    let refs: Vec<&str> = refs.lines().filter(|line| !line.ends_with("refs/heads/main")).collect();
    let trees = project.git(&["worktree", "list", "--porcelain"]);
    let trees: Vec<&str> = trees.lines().filter(|line| !line.starts_with("HEAD ")).collect();
    let files = project.git(&["status", "--porcelain", "--ignored"]);
    format!("{refs:?}\n{trees:?}\n{files}\n{:?}", processes_of(&project.dir()))
}

fn shadow(order: &[&str]) -> (Project, Value, Option<i32>) {
    let project = Project::with(1, "[rollout]\ngate = { completed = 6 }\n");
    project.ok(&["rollout", "set", "shadow"]);
    project.import(NINE);
    let banner = project.ok(&["monitor", "--once"]);
    assert!(banner.contains("shadow: says what it would do"), "{banner}");
    assert!(!banner.contains("lands on") && !banner.contains("at most"), "{banner}");
    let before = picture(&project);
    for id in order {
        land_by_hand(&project, id);
        let tip = project.git(&["rev-parse", "main"]);
        project.ok(&["monitor", "--once"]);
        assert_eq!(project.git(&["rev-parse", "main"]), tip);
        assert_eq!(project.task(id), "completed");
    }
    assert_eq!(picture(&project), before);
    assert_eq!(project.runs(), [""; 0]);
    let (code, checked) = check(&project);
    (project, checked, code)
}

#[test]
fn shadow_agrees_with_a_script_that_does_as_it_would() {
    let (project, checked, code) = shadow(&["T-1", "T-2", "T-4", "T-5", "T-7", "T-8"]);
    assert_eq!((code, &checked["passed"]), (Some(0), &Value::Bool(true)), "{checked:#}");
    assert_eq!(gate(&checked, "agreement")["figure"], 1.0);
    assert_eq!(gate(&checked, "success_rate")["asked"], false);
    assert_eq!(project.ok(&["rollout", "promote"]), "pilot\n");
    assert_eq!(reasons(&project).last().map(String::as_str), Some("promoted, every gate holds"));
    project.assert_nothing_left();
}

#[test]
fn shadow_disagrees_with_a_script_that_does_a_third_out_of_turn() {
    let order = ["T-1", "T-2", "T-3", "T-4", "T-5", "T-6", "T-7", "T-8", "T-9"];
    let (project, checked, code) = shadow(&order);
    assert_eq!((code, &checked["passed"]), (Some(1), &Value::Bool(false)), "{checked:#}");
    let agreement = gate(&checked, "agreement");
    assert_eq!((&agreement["figure"], &agreement["what"]), (&(6.0 / 9.0).into(), &"6 of 9".into()));
    let said = project.fails(1, &["rollout", "promote"]);
    assert!(said.contains("agreement is 0.66, at least 0.8 is needed"), "{said}");
    let log = project.ok(&["log"]);
    assert!(log.contains("T-3 was done by others, here it would not: it depends on late"), "{log}");
    assert!(log.contains("T-2 was done by others, as it would have been here"), "{log}");
    assert_eq!(project.ok(&["rollout", "show"]), "shadow\n");
    project.assert_nothing_left();
}

/// A quarter of twelve tasks landed by a pilot, and the base as it was; what landed.
fn piloted(more: &str) -> (Project, BTreeSet<String>, String) {
    let settings = format!("[rollout]\npilot = {{ percent = 25 }}\n{more}");
    let project = Project::with(2, &settings);
    project.ok(&["rollout", "set", "pilot"]);
    project.import(TWELVE);
    let before = project.git(&["rev-parse", "main"]);
    project.fails(1, &["monitor", "--until-idle", "--timeout", "240s"]);
    assert_eq!(project.git(&["rev-parse", "main"]), before);
    let landed: BTreeSet<String> = project.landings("pipeline/landed").into_iter().collect();
    assert!(!landed.is_empty() && landed.len() < 12, "{landed:?}");
    (project, landed, before)
}

#[test]
fn promotion_is_refused_then_granted_and_the_pilot_lands() {
    let (project, landed, before) = piloted("gate = { completed = 10 }\n");
    let said = project.fails(1, &["rollout", "promote", "--land-pilot"]);
    assert!(said.contains(&format!("completed is {}, at least 10", landed.len())), "{said}");
    assert_eq!(project.ok(&["rollout", "show"]), "pilot\n");
    let text = std::fs::read_to_string(project.path("pipeline.toml")).expect("the settings");
    project.write("pipeline.toml", &text.replace("completed = 10", "completed = 2"));
    project.commit("A lower gate");
    project.ok(&["monitor", "--once"]);
    assert_eq!(check(&project).0, Some(0));
    assert_eq!(project.ok(&["rollout", "promote", "--land-pilot"]), "production\n");
    project.ok(&["monitor", "--until-idle", "--timeout", "240s"]);
    assert_ne!(project.git(&["rev-parse", "main"]), before);
    project.assert_landed(TWELVE);
    project.assert_nothing_left();
}

#[test]
fn how_far_the_base_is_behind_is_one_measure_in_pilot_and_after_a_refusal() {
    let project = Project::new(1);
    project.ok(&["rollout", "set", "pilot"]);
    project.import(&[("A", &[]), ("B", &["A"])]);
    project.ok(&["monitor", "--until-idle", "--timeout", "240s"]);
    let behind = || project.status()["landing"]["behind"].clone();
    assert_eq!((project.count("completed"), behind()), (2, 2.into()));
    assert!(project.ok(&["status"]).contains("main is 2 landings behind pipeline/landed\n"));
    // In the way of the base.
    project.write("architect/A.txt", "mine\n");
    project.ok(&["rollout", "promote", "--force", "--land-pilot"]);
    project.ok(&["monitor", "--once"]);
    project.until("the refusal", || {
        project.ok(&["monitor", "--once"]);
        project.status()["landing"]["why"].as_str().is_some_and(|why| why.contains("cannot follow"))
    });
    assert_eq!(behind(), 2, "as counted by git");
    let report = project.ok(&["report", "--since", "1h"]);
    assert!(report.contains("`main` is 2 landings behind `pipeline/landed`."), "{report}");
    std::fs::remove_file(project.path("architect/A.txt")).expect("it is there");
    project.ok(&["monitor", "--until-idle", "--timeout", "240s"]);
    assert_eq!(behind(), 0);
    project.assert_nothing_left();
}

#[test]
fn a_dropped_pilot_goes_to_salvage_and_its_tasks_are_done_anew() {
    let (project, landed, before) = piloted("gate = { completed = 1 }\n");
    let tip = project.git(&["rev-parse", "pipeline/landed"]);
    assert_eq!(project.ok(&["rollout", "promote", "--drop-pilot"]), "production\n");
    project.ok(&["pause"]);
    project.ok(&["monitor", "--once"]);
    project.until("the reset", || project.git(&["rev-parse", "pipeline/landed"]) == before);
    assert_eq!(project.count("completed"), 0);
    let kept = project.git(&["for-each-ref", "--format=%(objectname)", "refs/pipeline/salvage/"]);
    assert!(kept.lines().any(|at| at == tip), "{kept}");
    project.ok(&["resume"]);
    project.ok(&["monitor", "--until-idle", "--timeout", "240s"]);
    is_landed_once(&project, "main");
    let runs = project.runs();
    for id in landed {
        let first = format!("{id}.arch.");
        assert_eq!(runs.iter().filter(|run| run.starts_with(&first)).count(), 2, "{id}");
    }
    let why = project.ok(&["salvage", "list"]).split_whitespace().collect::<Vec<_>>().join(" ");
    assert!(why.contains("what the pilot had landed: it was dropped"), "{why}");
    assert!(!why.contains("which was put back") && !why.contains("no branch of ours"), "{why}");
    project.assert_nothing_left();
}

#[test]
fn a_pilot_that_a_person_merged_is_not_done_again_when_it_is_dropped() {
    let project = Project::new(1);
    project.ok(&["rollout", "set", "pilot"]);
    project.import(&[("A", &[]), ("B", &[])]);
    let done = project.run(&["monitor", "--until-idle", "--timeout", "240s"]);
    assert_eq!(done.code, Some(0), "{}", project.story());
    project.git(&["merge", "-q", "--no-ff", "-m", "Theirs", "pipeline/landed"]);
    let merged = project.git(&["rev-parse", "main"]);
    let runs = project.runs();
    project.import(&[("C", &[])]);
    project.ok(&["task", "take", "C"]);
    let said = project.fails(4, &["rollout", "promote", "--force", "--drop-pilot"]);
    assert!(said.contains("`C` is taken by a person") && said.contains("task give C"), "{said}");
    project.ok(&["task", "give", "C"]);
    project.ok(&["task", "cancel", "C"]);
    project.ok(&["rollout", "promote", "--force", "--drop-pilot"]);
    project.ok(&["monitor", "--until-idle", "--timeout", "240s"]);
    assert_eq!(project.runs(), runs, "nothing is done again");
    assert_eq!([project.task("A"), project.task("B")], ["completed", "completed"]);
    let tips = ["main", "pipeline/landed"].map(|name| project.git(&["rev-parse", name]));
    assert_eq!(tips, [merged.clone(), merged]);
    project.assert_nothing_left();
}

/// Breaks what lands the first time, for a third of the twelve.
const BREAKING: &str = r#"set -eu
echo "$PIPELINE_ATTEMPT" >>"$E2E_DIR/runs"
[ "$PIPELINE_STAGE" = supervisor ] && exit 0
mkdir -p "$PIPELINE_STAGE"
echo "$PIPELINE_ATTEMPT" >"$PIPELINE_STAGE/$PIPELINE_TASK_ID.txt"
case "$PIPELINE_ATTEMPT" in
[AEHK].impl.1) echo "$PIPELINE_TASK_ID" >broken ;;
*.impl.*) rm -f broken ;;
esac
"#;

#[test]
fn production_falls_back_to_the_pilot_when_a_third_of_the_landings_break() {
    let fallback = "fallback = { window = 6, failure_rate = 0.3, cooldown = \"1h\" }\n";
    let project = Project::with(2, &format!("[rollout]\n{fallback}"));
    project.write("tools/agent.sh", BREAKING);
    project.commit("Agents that break a third");
    project.import(TWELVE);
    let done = project.run(&["monitor", "--until-idle", "--timeout", "240s"]);
    assert!(done.out.contains("rollout: fell back from production"), "{}{}", done.out, done.err);
    assert_eq!(project.ok(&["rollout", "show"]), "pilot\n");
    // The slice is everything: all of it lands, and the base stays where it was then.
    is_landed_once(&project, "pipeline/landed");
    assert_ne!(project.git(&["rev-parse", "main"]), project.git(&["rev-parse", "pipeline/landed"]));
    let fallen = reasons(&project);
    assert_eq!(fallen.len(), 1, "{fallen:?}");
    let said = project.fails(1, &["rollout", "promote"]);
    assert!(said.contains("cooldown is") && said.contains("at least 3600"), "{said}");
    let (code, checked) = check(&project);
    assert_eq!(code, Some(1));
    assert!(checked["reason"].as_str().expect("why").contains("fell back"), "{checked:#}");
    assert_eq!(project.ok(&["rollout", "promote", "--force"]), "production\n");
    project.ok(&["monitor", "--until-idle", "--timeout", "240s"]);
    is_landed_once(&project, "main");
    assert_eq!(project.ok(&["rollout", "show"]), "production\n");
    project.assert_nothing_left();
}
