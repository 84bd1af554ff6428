//! Worktrees that are made ready ahead: that it happens, once, and that nothing depends on it.

use std::fs;

use rustix::process::Signal;
use serde_json::Value;

use crate::support::project::{Project, Running};
use crate::support::{install, processes_of};

/// Notes where it begins and what it finds there, and waits while its task is held.
const AGENT: &str = r#"set -eu
{ echo "$PIPELINE_TASK_ID in ${PWD##*/}"; ls; git rev-parse HEAD; cat "$PIPELINE_TASK_FILE"; } \
    >"$E2E_DIR/found.$PIPELINE_TASK_ID"
echo "$PIPELINE_ATTEMPT" >>"$E2E_DIR/runs"
while [ -e "$E2E_DIR/hold.$PIPELINE_TASK_ID" ]; do sleep 0.02; done
echo "$PIPELINE_TASK_ID" >"$PIPELINE_TASK_ID.txt"
"#;

/// Stands for git: notes where it checks out, and hangs there once if it is told to.
const GIT: &str = r#"#!/bin/sh
case " $* " in
*" read-tree --reset "*)
    echo "$GIT_WORK_TREE" >>"$E2E_DIR/checkouts"
    case "$GIT_WORK_TREE" in
    */1) rmdir "$E2E_DIR/hang" 2>/dev/null && exec sleep 600 ;;
    esac
    ;;
esac
exec "$REAL_GIT" "$@"
"#;

/// A project in which only tasks A, B and so on are worked on, one after another by one agent, and A
/// is held.
fn project(settings: &str, tasks: &[&str]) -> Project {
    let project = Project::with(1, settings);
    project.write("tools/agent.sh", AGENT);
    project.commit("An agent that notes");
    fs::create_dir(project.dir().join("bin")).expect("a folder for it");
    let git = project.dir().join("bin/git");
    install(&git, GIT);
    for id in tasks {
        project.ok(&["task", "add", "Change it", "--id", id, "--stages", "implementation"]);
    }
    project.hold("hold.A");
    project
}

fn monitor(project: &Project) -> Running {
    let path = std::env::var("PATH").expect("a path");
    let mut dirs = std::env::split_paths(&path);
    let git = dirs.find_map(|dir| fs::canonicalize(dir.join("git")).ok()).expect("there is a git");
    let path = format!("{}:{path}", project.dir().join("bin").display());
    let env = [("PATH", path.as_str()), ("REAL_GIT", git.to_str().expect("it is UTF-8"))];
    let mut running = project.start_with(&["monitor", "--until-idle"], &env);
    running.until_said("open task");
    running
}

/// Returns what the agent found when it began with a task.
fn found(project: &Project, id: &str) -> String {
    fs::read_to_string(project.dir().join(format!("found.{id}"))).unwrap_or_default()
}

fn until_begun(project: &Project, id: &str) {
    let begun = format!("{id}.impl.1");
    project.until("its agent", || project.runs().contains(&begun));
}

/// Returns how often was checked out in a slot of the agent.
fn checkouts(project: &Project, slot: &str) -> usize {
    let all = fs::read_to_string(project.dir().join("checkouts")).unwrap_or_default();
    let place = project.path(".pipeline/worktrees/implementation").join(slot);
    all.lines().filter(|line| *line == place.to_str().expect("it is UTF-8")).count()
}

/// Waits until the slot stands at a commit, with all its files.
fn until_ready(project: &Project, slot: &str, at: &str) {
    let dir = format!(".pipeline/worktrees/implementation/{slot}");
    project.until("the worktree", || {
        let head = project.try_git(&["-C", &dir, "rev-parse", "HEAD"]);
        let is_clean = project.try_git(&["-C", &dir, "status", "--porcelain"]).out.is_empty();
        head.code == Some(0) && head.out.trim() == project.git(&["rev-parse", at]) && is_clean
    });
}

fn ends(project: &Project, mut monitor: Running, landed: u64) {
    assert_eq!(monitor.end(project), Some(0), "{}", project.story());
    assert_eq!(project.count("completed"), landed);
    let lost = |entry: &Value| entry["kind"] == "attempt_failing" || entry["class"] == "lost";
    assert!(!project.log().iter().any(lost), "{}", project.story());
    project.until("all to be gone", || processes_of(&project.dir()).is_empty());
}

#[test]
fn the_next_worktree_is_made_ready_beside_the_agent_and_once() {
    let project = project("", &["A", "B"]);
    project.hold("hold.B");
    let monitor = monitor(&project);
    until_begun(&project, "A");
    until_ready(&project, "1", "pipeline/landed");
    assert_eq!(found(&project, "A").lines().next(), Some("A in 0"));
    // All that happens in between has it made ready no second time.
    for priority in ["high", "low", "high"] {
        project.ok(&["task", "edit", "B", "--priority", priority]);
    }
    project.release("hold.A");
    until_begun(&project, "B");
    assert_eq!(found(&project, "B").lines().next(), Some("B in 1"));
    assert_eq!(checkouts(&project, "1"), 1, "an attempt takes over what is ready");
    project.release("hold.B");
    ends(&project, monitor, 2);
}

#[test]
fn what_is_out_of_date_or_was_meddled_with_is_not_used() {
    let project = project("", &["A", "B"]);
    let monitor = monitor(&project);
    until_ready(&project, "1", "pipeline/landed");
    project.ok(&["task", "edit", "B", "--title", "Change it well"]);
    project.write("person.txt", "mine\n");
    project.commit("Mine");
    project.until("the base", || {
        project.git(&["rev-parse", "main"]) == project.git(&["rev-parse", "pipeline/landed"])
    });
    let slot = ".pipeline/worktrees/implementation/1";
    until_ready(&project, "1", "main");
    project.write(&format!("{slot}/README"), "not the project\n");
    project.write(&format!("{slot}/left.txt"), "left\n");
    project.release("hold.A");
    until_begun(&project, "B");
    let found = found(&project, "B");
    assert!(found.starts_with("B in 1\n") && found.contains("Change it well"), "{found}");
    assert!(found.contains("person.txt") && !found.contains("left.txt"), "{found}");
    assert!(found.contains(&project.git(&["rev-parse", "main"])), "{found}");
    ends(&project, monitor, 2);
    assert_eq!(project.git(&["show", "main:README"]), "a project");
}

#[test]
fn one_that_hangs_holds_up_neither_an_attempt_nor_the_end() {
    let project = project("", &["A", "B", "C"]);
    let hang = project.dir().join("hang");
    let hangs = || checkouts(&project, "1") == 1 && !hang.exists();
    fs::create_dir(&hang).expect("a folder beside the project");
    let first = monitor(&project);
    project.until("one that hangs", hangs);
    project.hold("hold.B");
    project.release("hold.A");
    until_begun(&project, "B");
    assert_eq!(found(&project, "B").lines().next(), Some("B in 1"));
    // And once more, at the monitor's end.
    project.hold("hold.C");
    project.release("hold.B");
    until_begun(&project, "C");
    drop(fs::remove_file(project.dir().join("checkouts")));
    fs::create_dir(&hang).expect("a folder beside the project");
    project.ok(&["task", "add", "Last", "--id", "D", "--stages", "implementation"]);
    project.until("one that hangs", hangs);
    let mut first = first;
    first.signal(Signal::TERM);
    assert_eq!(first.end(&project), Some(0));
    let is_hanging = |(_, line): &(i32, String)| line.contains("sleep 600");
    assert!(!processes_of(&project.dir()).iter().any(is_hanging), "{}", project.story());
    project.release("hold.C");
    ends(&project, monitor(&project), 4);
}

#[test]
fn without_prefetch_nothing_is_made_ready_and_one_worktree_is_used() {
    let project = project("[scheduler]\nprefetch = 0\n", &["A", "B"]);
    let monitor = monitor(&project);
    until_begun(&project, "A");
    project.ok(&["task", "edit", "B", "--priority", "high"]);
    project.release("hold.A");
    ends(&project, monitor, 2);
    assert_eq!(found(&project, "B").lines().next(), Some("B in 0"));
    assert!(!project.path(".pipeline/worktrees/implementation/1").exists());
}
