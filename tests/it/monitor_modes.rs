//! Stages and agents that are only configured, and hybrid mode, by what the journal of a real run
//! says.

use std::collections::{BTreeMap, BTreeSet};

use crate::support::project::Project;

/// Returns the stages that each task has completed, by long name, in order.
fn passed(project: &Project) -> BTreeMap<String, Vec<String>> {
    let mut passed: BTreeMap<String, Vec<String>> = BTreeMap::new();
    let mut live: BTreeMap<String, String> = BTreeMap::new();
    for entry in project.log() {
        let text = |name: &str| entry[name].as_str().unwrap_or_default().to_owned();
        if entry["kind"] == "attempt_added" && entry["purpose"] == "work" {
            live.insert(text("attempt"), text("stage"));
        } else if entry["kind"] == "attempt_ended"
            && let Some(stage) = live.remove(&text("attempt"))
        {
            assert_eq!(entry["class"], "completed", "{}", project.story());
            passed.entry(text("task")).or_default().push(stage);
        }
    }
    passed
}

/// The block of the README that configures stages of one's own.
fn readme_config() -> &'static str {
    let readme = include_str!("../../README.md");
    let blocks = readme.split("```toml\n").skip(1).filter_map(|rest| rest.split("```").next());
    let mut own = blocks.filter(|block| block.contains("name = \"docs\""));
    own.next().expect("the README shows stages of one's own")
}

#[test]
fn stages_of_ones_own_are_passed_by_the_tasks_they_are_for() {
    let project = Project::new(1);
    project.write("pipeline.toml", readme_config());
    project.commit("Stages of our own");
    project.ok(&["task", "add", "Plain", "--id", "A"]);
    project.ok(&["task", "add", "Safe", "--id", "S", "--label", "security"]);
    project.ok(&["task", "add", "Other", "--id", "B", "--label", "else", "--depends-on", "S"]);
    project.ok(&["monitor", "--until-idle", "--timeout", "240s"]);
    assert_eq!(project.count("completed"), 3, "{}", project.story());
    let plain = ["architect", "test", "implementation", "docs", "supervisor"];
    let safe = ["architect", "test", "implementation", "docs", "security", "supervisor"];
    let expected = [("A", &plain[..]), ("B", &plain), ("S", &safe)];
    let passed = passed(&project);
    for (task, stages) in expected {
        assert_eq!(passed[task], stages, "{task}");
    }
    let by = |stage: &str| {
        let log = project.log();
        let of = log.iter().filter(|entry| entry["kind"] == "attempt_added");
        let of = of.filter(|entry| entry["stage"] == stage);
        of.map(|entry| entry["agent"].as_str().expect("an agent").to_owned())
            .collect::<BTreeSet<_>>()
    };
    assert_eq!(by("docs"), BTreeSet::from(["writer".to_owned()]));
    assert_eq!(by("security"), BTreeSet::from(["auditor".to_owned()]));
    assert_eq!(project.git(&["ls-files", "docs", "security"]).lines().count(), 4);
    project.assert_nothing_left();
}

/// Pairs of work attempts that were live at the same time, each as (task, stage).
fn side_by_side(project: &Project) -> Vec<[(String, String); 2]> {
    let mut live: BTreeMap<String, (String, String)> = BTreeMap::new();
    let mut pairs = Vec::new();
    for entry in project.log() {
        let text = |name: &str| entry[name].as_str().unwrap_or_default().to_owned();
        if entry["kind"] == "attempt_added" && entry["purpose"] == "work" {
            let own = (text("task"), text("stage"));
            pairs.extend(live.values().map(|other| [own.clone(), other.clone()]));
            live.insert(text("attempt"), own);
        } else if entry["kind"] == "attempt_ended" {
            live.remove(&text("attempt"));
        }
    }
    pairs
}

#[test]
fn hybrid_mode_runs_what_may_clash_alone_and_the_rest_in_parallel() {
    let project = Project::with(3, "[project]\norchestration_mode = \"hybrid\"\n");
    project.ok(&["task", "add", "One", "--id", "A", "--touches", "*/A.txt"]);
    project.ok(&["task", "add", "Two", "--id", "B", "--touches", "*/B.txt"]);
    project.hold("hold.test");
    let mut monitor = project.monitor(&["--until-idle"]);
    let begun = |id: &str| project.runs().iter().any(|run| run == id);
    project.until("both to change files", || begun("A.test.1") && begun("B.test.1"));
    project.ok(&["task", "add", "Anywhere", "--id", "X"]);
    let waits = |id: &str, what: &str| {
        let status = project.status();
        let waiting = status["waiting"].as_array().expect("a list");
        waiting.iter().any(|wait| {
            let is_said = wait["what"].as_str().is_some_and(|said| said.contains(what));
            wait["id"] == id && wait["on"] == "conflict" && is_said
        })
    };
    // It may think beside them, not change files.
    project.until("the unbound one to wait", || waits("X", "runs alone, and "));
    assert!(begun("X.arch.1") && project.task("X") == "test_ready");
    project.ok(&["task", "add", "Alone", "--id", "Z", "--exclusive"]);
    project.until("the exclusive one to wait", || waits("Z", "runs alone, and "));
    project.release("hold.test");
    assert_eq!(monitor.end(&project), Some(0), "{}", project.story());
    assert_eq!(project.count("completed"), 4, "{}", project.story());
    let pairs = side_by_side(&project);
    let is_at = |of: &(String, String), task: &str, stages: &[&str]| {
        of.0 == task && (stages.is_empty() || stages.contains(&of.1.as_str()))
    };
    let at_once = |a: &str, b: &str, stage: &str| {
        pairs.iter().any(|[p, q]| {
            let one = is_at(p, a, &[stage]) && is_at(q, b, &[stage]);
            one || (is_at(p, b, &[stage]) && is_at(q, a, &[stage]))
        })
    };
    assert!(at_once("A", "B", "test"), "{pairs:?}");
    let changing = ["test", "implementation"];
    let is_alone = |of: &(String, String)| is_at(of, "X", &changing) || is_at(of, "Z", &[]);
    let wrong = pairs.iter().find(|pair| pair.iter().any(is_alone));
    assert_eq!(wrong, None, "{}", project.story());
    project.assert_nothing_left();
}

#[test]
fn a_busy_pipeline_is_switched_to_hybrid_mode_and_back_when_it_has_drained() {
    let project = Project::new(1);
    project.import(&[("A", &[]), ("B", &[])]);
    project.hold("hold.architect");
    let mut monitor = project.monitor(&["--until-idle"]);
    project.until("the first stage", || !project.runs().is_empty());
    let said = project.fails(4, &["mode", "switch", "hybrid"]);
    assert!(said.contains("A") && said.contains("architect"), "{said}");
    let mut switch = project.start(&["mode", "switch", "hybrid", "--wait", "30s"]);
    project.until("the drain", || project.log().iter().any(|entry| entry["kind"] == "drain_set"));
    project.release("hold.architect");
    assert_eq!(switch.end(&project), Some(0), "{}", switch.said());
    assert!(project.ok(&["mode", "show"]).contains("hybrid"));
    assert_eq!(monitor.end(&project), Some(0), "{}", project.story());
    assert_eq!(project.status()["orchestration_mode"], "hybrid");
    project.ok(&["mode", "switch", "hybrid"]);
    project.ok(&["mode", "switch", "parallel"]);
    assert_eq!(project.status()["orchestration_mode"], "parallel");
    project.assert_landed(&[("A", &[]), ("B", &[])]);
    project.assert_nothing_left();
}
