//! What is true while no monitor runs, and how a command that only looks on is told to leave.

use rustix::process::Signal;
use serde_json::Value;

use crate::support::project::Project;

fn add(project: &Project, args: &[&str]) {
    project.ok(&[&["task", "add", "A task"][..], args].concat());
}

/// Returns the statuses of the tasks named, as they are told to programs.
fn statuses(project: &Project, ids: &[&str]) -> Vec<String> {
    ids.iter().map(|id| project.task(id)).collect()
}

#[test]
fn statuses_are_exact_while_no_monitor_runs() {
    let project = Project::new(1);
    add(&project, &["--id", "A"]);
    add(&project, &["--id", "B", "--depends-on", "A"]);
    add(&project, &["--id", "HELD", "--hold"]);
    let all = ["A", "B", "HELD"];
    assert_eq!(statuses(&project, &all), ["arch_ready", "unassigned", "unassigned"]);
    let status = project.status();
    assert_eq!(
        (&status["counts"]["ready"], &status["counts"]["unassigned"]),
        (&1.into(), &2.into())
    );
    assert_eq!(status["queues"]["architect"], serde_json::json!(["A"]));
    project.ok(&["task", "release", "HELD"]);
    let said = project.ok(&["task", "hold", "A", "--json"]);
    assert!(!said.contains("HELD"), "{said}");
    assert_eq!(statuses(&project, &all), ["unassigned", "unassigned", "arch_ready"]);
    project.ok(&["status", "--fail-on", "blocked"]);
    let file = project.dir().join("backlog.json");
    let backlog = "{\"tasks\":[{\"id\":\"LOST\",\"title\":\"Lost\",\"depends_on\":[\"GONE\"]}]}";
    std::fs::write(&file, backlog).expect("a backlog");
    project.ok(&["task", "import", file.to_str().expect("UTF-8"), "--on-missing", "block"]);
    assert_eq!(project.task("LOST"), "blocked");
    project.fails(1, &["status", "--fail-on", "blocked"]);
    project.ok(&["task", "edit", "LOST", "--remove-depends-on", "GONE"]);
    assert_eq!(project.task("LOST"), "arch_ready");
    project.ok(&["status", "--fail-on", "blocked"]);
    project.ok(&["task", "complete", "A"]);
    assert_eq!(statuses(&project, &all), ["completed", "arch_ready", "arch_ready"]);
}

#[test]
fn what_has_not_begun_begins_where_new_settings_or_an_edit_say() {
    let project = Project::new(1);
    add(&project, &["--id", "A"]);
    add(&project, &["--id", "B"]);
    assert_eq!(project.task("A"), "arch_ready");
    project.ok(&["task", "edit", "A", "--stages", "implementation,supervisor"]);
    assert_eq!(project.task("A"), "impl_ready");
    // A stage before the first one that there was, which itself is gone.
    let stage = "[[stage]]\nname = \"docs\"\nshort = \"docs\"\n\n[[agent]]\nname = \"docs\"\n\
                 stages = [\"docs\"]\ncommand = [\"true\"]\n";
    project.write("pipeline.toml", stage);
    project.ok(&["task", "edit", "B", "--priority", "high"]);
    // Of the stages that A was to go through there is none.
    assert_eq!(statuses(&project, &["A", "B"]), ["blocked", "docs_ready"]);
}

#[test]
fn a_mode_that_the_file_names_and_that_is_not_at_work_is_pointed_out() {
    let project = Project::with(1, "[project]\norchestration_mode = \"sequential\"\n");
    let what = "`orchestration_mode` in pipeline.toml is `parallel`";
    assert!(!project.ok(&["doctor"]).contains(what));
    let text = std::fs::read_to_string(project.path("pipeline.toml")).expect("settings");
    project.write("pipeline.toml", &text.replace("\"sequential\"", "\"parallel\""));
    let done = project.run(&["monitor", "--once"]);
    assert!(format!("{}{}", done.out, done.err).contains(what), "{}{}", done.out, done.err);
    let said = project.ok(&["doctor"]);
    assert!(said.contains(what) && said.contains("`pipeline mode switch parallel`"), "{said}");
}

#[test]
fn a_base_branch_that_is_gone_is_a_finding_before_a_monitor_meets_it() {
    let project = Project::new(1);
    let text = std::fs::read_to_string(project.path("pipeline.toml")).expect("settings");
    let text = if text.contains("[project]\n") {
        text.replace("[project]\n", "[project]\nbase = \"gone\"\n")
    } else {
        format!("[project]\nbase = \"gone\"\n{text}")
    };
    project.write("pipeline.toml", &text);
    let said = project.fails(1, &["doctor"]);
    assert!(said.contains("the base branch `gone` is gone"), "{said}");
}

#[test]
fn the_log_of_an_attempt_is_an_object_for_each_line() {
    let project = Project::new(1);
    project.write("tools/agent.sh", "#!/bin/sh\nprintf 'one\\ntwo\\n\\nlast'\nexit 3\n");
    project.commit("An agent that talks");
    add(&project, &["--id", "A", "--stages", "implementation"]);
    project.fails(1, &["monitor", "--until-idle"]);
    let said = project.ok(&["task", "log", "A", "--json"]);
    let lines: Vec<Value> =
        said.lines().map(|line| serde_json::from_str(line).expect("JSON")).collect();
    let text: Vec<&str> = lines.iter().filter_map(|line| line["line"].as_str()).collect();
    assert_eq!(text, ["one", "two", "", "last"]);
    assert!(lines[0]["attempt"].as_str().is_some_and(|id| id.starts_with("A.impl.")), "{said}");
}

#[test]
fn what_looks_on_leaves_with_its_own_status_when_it_is_told_to() {
    let project = Project::new(1);
    add(&project, &["--id", "A"]);
    for args in [&["log", "-f"][..], &["status", "--watch"]] {
        for (signal, code) in [(Signal::TERM, 0), (Signal::INT, 130)] {
            let mut running = project.start(args);
            running.until_said("A");
            running.signal(signal);
            assert_eq!(running.end(&project), Some(code), "{args:?}");
        }
    }
}
