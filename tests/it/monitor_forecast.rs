//! Two tasks that edit the same lines: when the conflict is known, and what it costs.

use serde_json::{Value, json};

use crate::support::project::Project;

/// Tests and implementation rewrite the same line; a merge that was prepared is settled.
const AGENT: &str = r#"set -eu
echo "$PIPELINE_ATTEMPT" >>"$E2E_DIR/runs"
while [ -e "$E2E_DIR/hold.$PIPELINE_STAGE" ]; do sleep 0.02; done
case "$PIPELINE_STAGE" in architect | supervisor) exit 0 ;; esac
if grep -q '^<<<<<<<' shared.txt; then printf 'one\nboth\nthree\n' >shared.txt; exit 0; fi
printf 'one\n%s of %s\nthree\n' "$PIPELINE_STAGE" "$PIPELINE_TASK_ID" >shared.txt
"#;

/// A project with tasks A and B, whose title is followed by `args` when they are added.
fn project(args: &[&str]) -> Project {
    let project = Project::new(2);
    project.write("tools/agent.sh", AGENT);
    project.write("shared.txt", "one\ntwo\nthree\n");
    project.commit("Lines to change");
    for id in ["A", "B"] {
        project.ok(&[&["task", "add", "Change it", "--id", id], args].concat());
    }
    project
}

fn has_run(project: &Project, attempt: &str) -> bool {
    project.runs().iter().any(|run| run == attempt)
}

/// Waits for the forecast while nothing can land, looks at how it is shown, and lets both land;
/// returns the journal.
fn foreseen_and_landed(project: &Project) -> Vec<Value> {
    project.until("the forecast", || project.status()["forecast"] != json!([]));
    let forecast = project.status()["forecast"].clone();
    let pair = [&forecast[0]["id"], &forecast[0]["with"]];
    assert!(pair == ["A", "B"] || pair == ["B", "A"], "{forecast}");
    assert_eq!(forecast[0]["paths"], json!(["shared.txt"]));
    assert_eq!(project.count("landing") + project.count("completed"), 0);
    for (id, other) in [("A", "B"), ("B", "A")] {
        let shown = project.ok(&["task", "show", id]);
        let words = format!("would conflict with {other} in shared.txt");
        assert!(shown.contains(&words), "{shown}");
    }
    let log = project.ok(&["log"]);
    assert!(log.contains("would conflict with"), "{log}");
    project.release("hold.supervisor");
    project.until("both landings", || project.count("completed") == 2);
    assert_eq!(project.git(&["show", "pipeline/landed:shared.txt"]), "one\nboth\nthree");
    assert_eq!(project.status()["forecast"], json!([]));
    project.log()
}

/// Returns how often work was sent back, and the work attempts that ran.
fn cost(project: &Project, log: &[Value]) -> (usize, usize) {
    let is_conflict = |entry: &&Value| entry["class"] == "conflict";
    let is_back = |entry: &&Value| entry["kind"] == "task_evidenced";
    (log.iter().filter(is_back).filter(is_conflict).count(), project.runs().len())
}

/// Returns the place of the first entry of a kind.
fn first(log: &[Value], kind: &str) -> usize {
    let found = log.iter().position(|entry| entry["kind"] == kind);
    found.unwrap_or_else(|| panic!("no {kind} in {log:#?}"))
}

#[test]
fn without_touches_a_conflict_is_foreseen_when_the_first_stage_ends() {
    let project = project(&[]);
    project.hold("hold.test");
    project.hold("hold.implementation");
    project.hold("hold.supervisor");
    let mut monitor = project.monitor(&["--until-idle"]);
    project
        .until("both at once", || has_run(&project, "A.test.1") && has_run(&project, "B.test.1"));
    project.release("hold.test");
    project.until("the forecast", || project.status()["forecast"] != json!([]));
    // From now on the two are known to change the same paths.
    project.until("one that waits", || {
        let waiting = project.status()["waiting"].clone();
        let all = waiting.as_array().expect("a list");
        all.iter().any(|entry| entry["on"] == "conflict")
    });
    project.release("hold.implementation");
    let log = foreseen_and_landed(&project);
    assert_eq!(monitor.end(&project), Some(0), "{}", project.story());
    assert!(first(&log, "task_forecast") < first(&log, "landed"));
    // One is sent back once, to the implementation: that and the supervisor run once more.
    assert_eq!(cost(&project, &log), (1, 8 + 2), "{}", project.story());
    project.assert_nothing_left();
}

#[test]
fn with_touches_the_second_begins_on_what_the_first_landed_and_nothing_is_sent_back() {
    let project = project(&["--touches", "shared.txt"]);
    project.hold("hold.supervisor");
    let mut monitor = project.monitor(&["--until-idle"]);
    project.until("the first to wait for its last stage", || {
        project.runs().iter().any(|run| run.contains(".super."))
    });
    let waiting = project.status()["waiting"].clone();
    let all = waiting.as_array().expect("a list");
    let second = all.iter().find(|entry| entry["on"] == "conflict").expect("the second waits");
    let why = second["what"].as_str().unwrap_or_default();
    assert!(why.contains("has changed the same paths and lands first"), "{waiting}");
    project.release("hold.supervisor");
    assert_eq!(monitor.end(&project), Some(0), "{}", project.story());
    assert_eq!(cost(&project, &project.log()), (0, 8), "{}", project.story());
    let other = if second["id"] == "A" { "A" } else { "B" };
    let line = format!("one\nimplementation of {other}\nthree");
    assert_eq!(project.git(&["show", "pipeline/landed:shared.txt"]), line);
    assert_eq!(project.count("completed"), 2);
    project.assert_nothing_left();
}
