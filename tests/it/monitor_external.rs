//! An external scheduler: a program of the user's says who gets what.

use std::fs;

use crate::support::project::{Backlog, Project};

const FOUR: &Backlog = &[("A", &[]), ("B", &[]), ("C", &[]), ("D", &[])];
const TWO: &Backlog = &[("A", &[]), ("B", &[])];

const SETTINGS: &str = "[scheduler]\ncommand = [\"sh\", \"tools/scheduler.sh\"]\n";

/// A project with two agents for each stage, whose scheduler is `script`.
fn project(script: &str) -> Project {
    Project::on(2, SETTINGS, |root| {
        fs::create_dir(root.join("tools")).expect("its folder");
        fs::write(root.join("tools/scheduler.sh"), script).expect("a scheduler");
    })
}

/// Returns what was told of the scheduler.
fn told(project: &Project) -> Vec<String> {
    let log = project.log();
    let told = log
        .iter()
        .filter(|line| line["kind"] == "proposal_faulted" || line["kind"] == "proposal_refused");
    told.map(|line| line["reason"].as_str().unwrap_or_default().to_owned()).collect()
}

/// Lands two tasks whatever the scheduler does; what was told of it.
fn lands_beside(script: &str) -> Vec<String> {
    let project = project(script);
    project.import(TWO);
    let said = project.ok(&["monitor", "--until-idle", "--timeout", "240s"]);
    assert!(said.contains("who gets what says `sh tools/scheduler.sh`"), "{said}");
    assert_eq!(project.count("completed"), 2, "{}", project.story());
    project.assert_nothing_left();
    told(&project)
}

#[test]
fn its_order_is_followed() {
    let script = include_str!("../../docs/examples/scheduler.sh").replace("| sort;", "| sort -r;");
    let project = project(&script);
    project.import(FOUR);
    project.hold("hold");
    let mut monitor = project.start(&["monitor", "--until-idle", "--timeout", "240s"]);
    project.until("two agents", || project.runs().len() == 2);
    let mut first = project.runs();
    first.sort();
    assert_eq!(
        first,
        ["C.arch.1", "D.arch.1"],
        "the last ones, which nobody else would begin with"
    );
    project.release("hold");
    assert_eq!(monitor.end(&project), Some(0));
    assert_eq!(project.count("completed"), 4);
    assert_eq!(told(&project), Vec::<String>::new());
    project.assert_nothing_left();
}

#[test]
fn nonsense_is_told_once_and_all_lands() {
    let told = lands_beside("echo nonsense");
    let [why] = told.as_slice() else { panic!("{told:?}") };
    assert!(why.contains("not JSON of the form that is documented"), "{why}");
    let told = lands_beside("echo '{\"format\":2,\"assignments\":[]}'");
    assert_eq!(told, ["the answer of `sh tools/scheduler.sh`: its `format` is 2, expected 1"]);
}

#[test]
fn one_that_crashes_is_told_with_its_words_and_all_lands() {
    let told = lands_beside("echo 'no idea' >&2; exit 3");
    assert_eq!(told, ["`sh tools/scheduler.sh` ended with exit code 3: no idea"]);
    let told = lands_beside("kill -9 $$");
    assert_eq!(told, ["`sh tools/scheduler.sh` was ended by signal 9"]);
}

#[test]
fn one_that_hangs_is_ended_with_all_it_started_and_all_lands() {
    let told = lands_beside("sleep 600 & sleep 600");
    assert_eq!(told, ["`sh tools/scheduler.sh` gave no answer within 5 s and was ended"]);
}

#[test]
fn unknown_tasks_and_agents_given_twice_are_refused_and_all_lands() {
    let pair = |task: &str, agent: &str| format!(r#"{{"task":"{task}","agent":"{agent}"}}"#);
    let a = "architect-1";
    let pairs = [pair("X", a), pair("A", a), pair("B", a), pair("B", "test-1")].join(",");
    let told = lands_beside(&format!("echo '{{\"format\":1,\"assignments\":[{pairs}]}}'"));
    let first = &told[..3];
    let expected = [
        "there is no such task",
        "the agent is given A already",
        "the agent does not serve stage `architect`",
    ];
    assert_eq!(first, expected, "{told:?}");
    assert!(told.contains(&"nothing of the 4 it proposed can be carried out".to_owned()));
}

#[test]
fn a_program_that_is_not_there_is_told_and_all_lands() {
    let project = Project::with(2, "[scheduler]\ncommand = [\"tools/none\"]\n");
    project.import(TWO);
    project.ok(&["monitor", "--until-idle", "--timeout", "240s"]);
    let told = told(&project);
    let [why] = told.as_slice() else { panic!("{told:?}") };
    assert!(why.contains("tools/none` cannot be started: No such file"), "{why}");
    project.assert_nothing_left();
}
