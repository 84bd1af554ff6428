//! `pipeline demo`: four tasks through every stage, in seconds.

use serde_json::Value;

use crate::support::processes_of;
use crate::support::project::Project;

#[test]
fn four_tasks_land_and_one_is_sent_back() {
    let mut project = Project::bare();
    let dir = project.dir();
    // A folder that is not there yet, named from where we are.
    let done = project.command(&dir, &["demo", "project"]).output().expect("the program starts");
    let said = String::from_utf8_lossy(&done.stdout).into_owned();
    assert!(done.status.success(), "{said}{}", String::from_utf8_lossy(&done.stderr));
    assert!(said.contains("four tasks landed on main"), "{said}");
    project.root = dir.join("project");
    let mut landed = project.landings("main");
    assert!(
        landed.iter().position(|id| id == "greet") < landed.iter().position(|id| id == "shout")
    );
    landed.sort();
    assert_eq!(landed, ["count", "greet", "shout", "twice"]);
    let log = project.log();
    let sent_back = log
        .iter()
        .filter(|entry| entry["kind"] == "attempt_ended" && entry["class"] == "changes_requested");
    assert_eq!(sent_back.count(), 1, "{}", project.story());
    assert_eq!(project.count("completed"), 4);
    project.assert_nothing_left();
    let tests = pipeline::sys::child::command("sh", &project.root).arg("run-tests.sh").output();
    let tests = tests.expect("sh starts");
    assert!(tests.status.success(), "{tests:?}");
    assert_eq!(String::from_utf8_lossy(&tests.stdout).lines().count(), 4);
}

#[test]
fn without_a_folder_a_temporary_one_is_made_and_named() {
    let project = Project::bare();
    let dir = project.dir();
    let done = project.command(&dir, &["demo", "--json"]).output().expect("the program starts");
    let said = String::from_utf8_lossy(&done.stdout).into_owned();
    assert!(done.status.success(), "{said}{}", String::from_utf8_lossy(&done.stderr));
    let made: Vec<_> = std::fs::read_dir(dir.join("tmp")).expect("it is there").flatten().collect();
    assert_eq!(made.len(), 1, "{made:?}");
    let told: Value = serde_json::from_str(&said).expect("one value");
    assert_eq!(told["path"].as_str(), made[0].path().to_str());
    let landed = told["landed"].as_array().expect("a list");
    let is_landing = |line: &Value| line.as_str().is_some_and(|line| line.contains(" Land "));
    assert!(landed.len() == 4 && landed.iter().all(is_landing), "{said}");
    project.until("its processes to leave", || processes_of(&dir).is_empty());
}

#[test]
fn a_folder_with_something_in_it_is_refused() {
    let project = Project::bare();
    let dir = project.dir();
    let done = project.command(&dir, &["demo", "."]).output().expect("the program starts");
    assert_eq!(done.status.code(), Some(2));
    assert!(String::from_utf8_lossy(&done.stderr).contains("is not empty"));
}
