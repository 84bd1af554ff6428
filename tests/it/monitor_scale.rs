//! How many agents there are, in real runs: by the queues, and by a person beside the monitor.

use std::fs;

use serde_json::Value;

use crate::support::processes_of;
use crate::support::project::{Backlog, Project};

const EIGHT: &Backlog = &[
    ("A", &[]),
    ("B", &[]),
    ("C", &[]),
    ("D", &[]),
    ("E", &[]),
    ("F", &[]),
    ("G", &[]),
    ("H", &[]),
];

/// A project whose groups have `scale` instead of `count = 1`.
fn scaling(scale: &str) -> Project {
    let project = Project::new(1);
    let text = fs::read_to_string(project.path("pipeline.toml")).expect("its settings");
    project.write("pipeline.toml", &text.replace("count = 1", &format!("scale = {scale}")));
    project.commit("Scaling");
    project
}

fn list(project: &Project) -> Value {
    serde_json::from_str(&project.ok(&["agent", "list", "--json"])).expect("agents are JSON")
}

/// Names of the agents of a stage, those that leave after their task in brackets.
fn names(project: &Project, stage: &str) -> Vec<String> {
    let list = list(project);
    let all = list["agents"].as_array().expect("a list").iter();
    let own = all.filter(|agent| agent["stages"][0] == stage);
    let name = |agent: &Value| {
        let name = agent["name"].as_str().expect("a name");
        if agent["retiring"] == true { format!("({name})") } else { name.to_owned() }
    };
    own.map(name).collect()
}

/// Attempts that an agent was given.
fn given(project: &Project, agent: &str) -> usize {
    let log = project.log();
    let added = log.iter().filter(|entry| entry["kind"] == "attempt_added");
    added.filter(|entry| entry["agent"] == agent && entry["purpose"] == "work").count()
}

fn has_keeper(project: &Project, agent: &str) -> bool {
    let all = processes_of(&project.dir());
    all.iter().any(|(_, line)| line.contains("__keeper") && line.contains(agent))
}

#[test]
fn eight_tasks_bring_four_agents_and_those_sent_away_leave_after_their_task() {
    let project = scaling("{ min = 1, max = 4 }");
    project.import(EIGHT);
    project.hold("hold.architect");
    let mut monitor = project.monitor(&[]);
    project.until("four at once", || project.runs().len() == 4);
    let four = ["architect-1", "architect-2", "architect-3", "architect-4"];
    assert_eq!(names(&project, "architect"), four);
    assert_eq!(names(&project, "test"), ["test-1"]);
    assert_eq!(list(&project)["groups"][0]["target"], 4);

    let refused = project.fails(2, &["agent", "scale", "architect", "5"]);
    assert!(refused.contains("`architect` has from 1 to 4 agents, not 5"), "{refused}");
    let said = project.run(&["agent", "scale", "architect", "2"]);
    assert!(said.err.contains("after their task leave: architect-3, architect-4"), "{said:?}");
    monitor.kill();
    let sent = ["architect-1", "architect-2", "(architect-3)", "(architect-4)"];
    assert_eq!(names(&project, "architect"), sent);

    let mut monitor = project.monitor(&[]);
    assert_eq!(project.runs().len(), 4, "{}", project.story());
    assert!(has_keeper(&project, "architect-4"));
    project.release("hold.architect");
    project.until("them to have left", || names(&project, "architect").len() == 2);
    project.until("their keepers to leave", || !has_keeper(&project, "architect-4"));
    project.until("all to land", || project.count("completed") == 8);
    project.ok(&["stop"]);
    assert_eq!(monitor.end(&project), Some(0), "{}", project.story());
    assert_eq!((given(&project, "architect-3"), given(&project, "architect-4")), (1, 1));
    assert_eq!(names(&project, "architect"), four[..2]);
    project.assert_landed(EIGHT);
    project.assert_nothing_left();
}

#[test]
fn a_group_that_a_person_lets_grow_and_go_beside_a_killed_monitor_does_as_told() {
    let project = Project::new(1);
    project.import(&EIGHT[..4]);
    project.hold("hold.architect");
    let mut monitor = project.monitor(&[]);
    project.until("the first", || project.runs().len() == 1);
    // The monitor is dead when it is told.
    monitor.kill();
    project.ok(&["agent", "scale", "architect", "3"]);
    let mut monitor = project.monitor(&[]);
    project.until("two more", || project.runs().len() == 3);
    assert_eq!(names(&project, "architect"), ["architect", "architect-2", "architect-3"]);

    let said = project.run(&["agent", "scale", "architect", "0"]);
    assert!(said.err.contains("no agent serves `architect` now"), "{said:?}");
    project.release("hold.architect");
    project.until("all to have left", || names(&project, "architect").is_empty());
    project.until("three to land", || project.count("completed") == 3);
    let waits = &project.status()["waiting"][0];
    let what = waits["what"].as_str().expect("it says why");
    assert!(what.contains("pipeline agent scale architect 1"), "{waits}");
    monitor.kill();

    project.ok(&["agent", "scale", "architect", "auto"]);
    assert_eq!(project.status()["agents"]["architect"]["completed"], 1);
    project.ok(&["monitor", "--until-idle", "--timeout", "240s"]);
    assert_eq!(names(&project, "architect"), ["architect"]);
    project.assert_landed(&EIGHT[..4]);
    project.assert_nothing_left();
}

#[test]
fn a_group_of_none_comes_when_something_is_to_be_done() {
    let project = scaling("{ min = 0, max = 2 }");
    project.import(&EIGHT[..3]);
    let shown = project.ok(&["agent", "list"]);
    assert!(shown.contains("architect: 0 of 0 to 2, by queue length"), "{shown}");
    project.ok(&["monitor", "--until-idle", "--timeout", "240s"]);
    project.assert_landed(&EIGHT[..3]);
    let log = project.ok(&["log"]);
    assert!(log.contains("agents of architect: 2 from now on: for 2 tasks that wait"), "{log}");
    project.assert_nothing_left();
}
