//! What the program is killed in: small projects, each with one thing that happens.

use std::fs;

use super::hands::{
    COMPLETE, DROP, FORCE, GIVE, REOPEN, RESTORE, TAKE, abandoned, complete_again, drop_again,
    give_again, give_back, give_landing, give_on, half_in_hand, hidden_in_hand, in_hand,
    is_bundled, is_dropped, is_restored, moved_in_hand, on_its_branch, reopen_again, restore_again,
    take_again, taken_out, untouched_in_hand, was_by_hand, with_salvage,
};
use super::launch::{
    by_person, came_back, in_window, install, installed, person, uninstall, was_typed,
};
use super::looks::{
    AGENT_TEST, DIFF, DOCTOR_CHECKS, EDIT, LIST, WAIT, check_again, checked, diff_again,
    edit_again, is_edited, is_swept, list_again, tested, with_diff, with_editor,
    with_stray_salvage,
};
use super::outside::{
    EDITS, IN_THE_WAY, astray, at_the_end, by_hand, edited, edits_stay, half_way, in_the_way,
    is_kept, is_put_back, stays, unlocked,
};
use super::upkeep::{
    LONG, REPAIR, damage, is_apart, is_kept_aside, is_mended, is_removed, is_rotated, is_saved,
    is_taken_over, is_told, is_whole, long_again, long_journal, longer_journal, notified,
    of_older_format, repair_again, torn, untidy, wild, with_a_last_word, with_submodule,
};
use crate::support::project::Project;

/// What agents run: waits where it is held, leaves a file for its task, or does what its task says.
const AGENT: &str = r#"#!/bin/sh
set -eu
case "$PIPELINE_PROJECT" in "$E2E_DIR"/*) ;; *) exit 9 ;; esac
if [ -t 0 ]; then
    printf '> '
    read -r line
    case "$line" in *"Read TASK-A.md, "*) ;; *) exit 8 ;; esac
    trap 'pipeline done' EXIT
fi
echo "$PIPELINE_ATTEMPT" >>"$E2E_DIR/runs"
if grep -q 'Merge to finish' "$PIPELINE_TASK_FILE"; then
    printf 'one\ntwo by both\nthree\n' >a.txt
    exit 0
fi
case "$PIPELINE_TASK_ID" in
FAILS) [ -e "$E2E_DIR/failed" ] || { touch "$E2E_DIR/failed"; exit 3; } ;;
AHEAD-1)
    # The worktree of the next one is made meanwhile, unless there is none to come.
    n=0
    until [ -e ../1/a.txt ] || [ $n = 100 ]; do sleep 0.02; n=$((n + 1)); done
    ;;
TWO-*)
    touch "$E2E_DIR/begun-$PIPELINE_TASK_ID"
    until [ -e "$E2E_DIR/begun-TWO-1" ] && [ -e "$E2E_DIR/begun-TWO-2" ]; do sleep 0.02; done
    sed -i "s/^two.*/two by $PIPELINE_TASK_ID/" a.txt
    exit 0 ;;
esac
echo "$PIPELINE_TASK_ID" >"$PIPELINE_STAGE-$PIPELINE_TASK_ID.txt"
while [ -e "$E2E_DIR/hold" ]; do sleep 0.02; done
"#;

pub(super) const STAGES: [&str; 4] = ["architect", "test", "implementation", "supervisor"];

/// Goes on until nothing is left to do.
pub(super) const MONITOR: &[&str] = &["monitor", "--until-idle", "--timeout", "240s"];

/// One thing that happens, and what holds afterwards wherever it was interrupted.
#[derive(Debug)]
pub(crate) struct Scenario {
    pub(crate) name: &'static str,
    /// Makes the project, once.
    pub(super) prepare: fn(&Project),
    /// Brings it to where it is to be interrupted: what cannot be kept in files.
    pub(super) begin: fn(&Project),
    /// What is interrupted.
    pub(super) args: &'static [&'static str],
    /// Puts right what the interrupted command left undone; nothing is, where it says that it is done.
    pub(super) again: fn(&Project),
    /// What people do next in any case, before the monitor goes on.
    pub(super) next: fn(&Project),
    /// Exit status of the monitor that goes on until nothing is left to do.
    pub(super) code: i32,
    /// Tasks on the landing branch at the end, each once.
    pub(super) landed: &'static [&'static str],
    /// At each point tmux is killed, and not the process that is there.
    pub(super) strikes_terminal: bool,
    /// How often a stage may be completed: more than once where work is sent back.
    pub(super) most: usize,
    /// What a person has left in the checkout, as `git status --porcelain` tells it.
    pub(super) dirt: &'static [&'static str],
    /// What else holds at the end.
    pub(super) check: fn(&Project),
}

/// Nothing is to be done, or to hold.
fn nothing(_: &Project) {}

/// A scenario in which one task lands.
const PLAIN: Scenario = Scenario {
    name: "",
    prepare: nothing,
    begin: nothing,
    args: MONITOR,
    again: nothing,
    next: nothing,
    code: 0,
    landed: &["A"],
    strikes_terminal: false,
    most: 1,
    dirt: &[],
    check: nothing,
};

/// All of them.
pub(crate) const SCENARIOS: &[Scenario] = &[
    Scenario {
        name: "init",
        prepare: repository,
        args: &["init"],
        again: init_again,
        next: |project| add(project, "A", "architect"),
        ..PLAIN
    },
    Scenario { name: "add", prepare: pilot, args: ADD, again: add_again, ..PLAIN },
    Scenario {
        name: "import",
        prepare: backlog,
        args: &["task", "import", "../backlog.json"],
        again: import_again,
        landed: &["A", "B", "C"],
        ..PLAIN
    },
    Scenario {
        name: "no-git",
        prepare: without_git,
        landed: &[],
        check: |project| assert_eq!(project.task("A"), "completed"),
        ..PLAIN
    },
    Scenario { name: "architect", prepare: |project| staged(project, 0), ..PLAIN },
    Scenario { name: "test", prepare: |project| staged(project, 1), ..PLAIN },
    Scenario { name: "implementation", prepare: |project| staged(project, 2), ..PLAIN },
    Scenario { name: "supervisor", prepare: |project| staged(project, 3), ..PLAIN },
    Scenario { name: "landing", prepare: landing, check: base_followed, ..PLAIN },
    Scenario { name: "following", prepare: following, check: base_followed, ..PLAIN },
    Scenario { name: "edited", prepare: edited, dirt: EDITS, check: edits_stay, ..PLAIN },
    Scenario { name: "pilot-dropped", prepare: dropped, most: 2, check: kept_in_salvage, ..PLAIN },
    Scenario { name: "base-moved", prepare: base_moved, check: base_followed, ..PLAIN },
    Scenario {
        name: "conflict",
        prepare: conflict,
        landed: &["TWO-1", "TWO-2"],
        most: 2,
        check: base_followed,
        ..PLAIN
    },
    Scenario { name: "finished", prepare: finished, check: is_cleaned, ..PLAIN },
    Scenario {
        name: "deinit",
        prepare: landed,
        args: &["deinit"],
        again: |project| taken_out(project, &["deinit"]),
        next: set_up_anew,
        ..PLAIN
    },
    Scenario { name: "ahead", prepare: ahead, landed: &["AHEAD-1", "AHEAD-2"], ..PLAIN },
    Scenario { name: "retry", prepare: retry, landed: &["FAILS"], ..PLAIN },
    Scenario {
        name: "cancel",
        prepare: |project| staged(project, 2),
        begin: cancelled,
        landed: &[],
        check: |project| assert_eq!(project.task("A"), "cancelled"),
        ..PLAIN
    },
    Scenario {
        name: "take",
        prepare: |project| staged(project, 2),
        args: TAKE,
        again: take_again,
        next: give_back,
        check: was_by_hand,
        ..PLAIN
    },
    Scenario {
        name: "take-again",
        prepare: half_in_hand,
        args: TAKE,
        again: take_again,
        next: give_on,
        check: was_by_hand,
        ..PLAIN
    },
    Scenario {
        name: "give",
        prepare: in_hand,
        args: GIVE,
        again: give_again,
        check: was_by_hand,
        ..PLAIN
    },
    Scenario {
        name: "complete",
        prepare: drained,
        begin: running,
        args: COMPLETE,
        again: complete_again,
        landed: &["B"],
        check: |project| assert_eq!(project.task("A"), "completed"),
        ..PLAIN
    },
    Scenario { name: "reopen", prepare: abandoned, args: REOPEN, again: reopen_again, ..PLAIN },
    Scenario {
        name: "salvage-restored",
        prepare: with_salvage,
        args: RESTORE,
        again: restore_again,
        landed: &["B"],
        check: is_restored,
        ..PLAIN
    },
    Scenario {
        name: "salvage-dropped",
        prepare: with_salvage,
        args: DROP,
        again: drop_again,
        landed: &["B"],
        check: is_dropped,
        ..PLAIN
    },
    Scenario {
        name: "deinit-forced",
        prepare: with_salvage,
        args: FORCE,
        again: |project| taken_out(project, FORCE),
        next: set_up_anew,
        check: is_bundled,
        ..PLAIN
    },
    Scenario {
        name: "drain",
        prepare: drained,
        begin: draining,
        landed: &["A", "B"],
        check: is_sequential,
        ..PLAIN
    },
    Scenario {
        name: "growing",
        prepare: growing,
        landed: &["A", "B", "C"],
        check: has_grown,
        ..PLAIN
    },
    Scenario {
        name: "scale",
        prepare: scaled,
        begin: running,
        args: SCALE,
        again: scale_again,
        landed: &["A", "B"],
        check: |project| assert_eq!(target(project), 1),
        ..PLAIN
    },
    Scenario {
        name: "checkpoint",
        prepare: long_journal,
        args: LONG,
        again: long_again,
        code: 1,
        landed: &[],
        check: is_rotated,
        ..PLAIN
    },
    Scenario {
        name: "scheduler",
        prepare: scheduled,
        landed: &["A", "B"],
        check: is_scheduled,
        ..PLAIN
    },
    Scenario {
        name: "mode",
        prepare: |project| staged(project, 0),
        args: &["mode", "switch", "sequential"],
        again: mode_again,
        check: is_sequential,
        ..PLAIN
    },
    Scenario {
        name: "rollout",
        prepare: behind,
        args: &["rollout", "set", "production"],
        again: rollout_again,
        check: base_followed,
        ..PLAIN
    },
    Scenario { name: "promoted", prepare: promoted, check: base_followed, ..PLAIN },
    Scenario { name: "window", prepare: in_window, check: was_typed, ..PLAIN },
    Scenario {
        name: "window-server",
        prepare: in_window,
        strikes_terminal: true,
        check: was_typed,
        ..PLAIN
    },
    Scenario { name: "person", prepare: person, check: by_person, ..PLAIN },
    Scenario {
        name: "person-server",
        prepare: person,
        strikes_terminal: true,
        check: by_person,
        ..PLAIN
    },
    Scenario { name: "program-back", prepare: came_back, ..PLAIN },
    Scenario {
        name: "program-gone",
        prepare: installed,
        begin: uninstall,
        args: &["monitor", "--once"],
        next: install,
        ..PLAIN
    },
    Scenario {
        name: "astray",
        prepare: |project| staged(project, 2),
        begin: astray,
        check: is_put_back,
        ..PLAIN
    },
    Scenario {
        name: "by-hand",
        prepare: |project| {
            with(project, &format!("{PILOT}[scheduler]\nprefetch = 0\n"), 1);
            project.ok(&["init"]);
            add(project, "A", "implementation");
        },
        begin: by_hand,
        landed: &["A", "B"],
        check: is_kept,
        ..PLAIN
    },
    Scenario {
        name: "stop-now",
        prepare: |project| staged(project, 2),
        begin: running,
        args: &["stop", "--now"],
        ..PLAIN
    },
    Scenario { name: "torn", prepare: torn, check: is_kept_aside, ..PLAIN },
    Scenario { name: "older-format", prepare: of_older_format, check: is_taken_over, ..PLAIN },
    Scenario {
        name: "repair",
        prepare: with_a_last_word,
        begin: damage,
        args: REPAIR,
        again: repair_again,
        check: is_mended,
        ..PLAIN
    },
    Scenario {
        name: "submodule",
        prepare: with_submodule,
        landed: &["A", "B"],
        check: is_saved,
        ..PLAIN
    },
    Scenario { name: "untidy", prepare: untidy, landed: &["A", "B"], check: is_whole, ..PLAIN },
    Scenario { name: "wild", prepare: wild, landed: &["A", "B"], check: is_apart, ..PLAIN },
    Scenario { name: "half-way", prepare: half_way, check: base_followed, ..PLAIN },
    Scenario { name: "at-the-end", prepare: at_the_end, check: base_followed, ..PLAIN },
    Scenario { name: "unlocked", prepare: unlocked, check: base_followed, ..PLAIN },
    Scenario { name: "in-the-way", prepare: in_the_way, dirt: IN_THE_WAY, check: stays, ..PLAIN },
    Scenario {
        name: "take-moved",
        prepare: moved_in_hand,
        args: TAKE,
        again: take_again,
        next: give_on,
        check: was_by_hand,
        ..PLAIN
    },
    Scenario {
        name: "take-slot",
        prepare: on_its_branch,
        args: TAKE,
        again: take_again,
        next: give_landing,
        landed: &["A", "A"],
        most: 2,
        check: was_by_hand,
        ..PLAIN
    },
    Scenario {
        name: "give-hidden",
        prepare: hidden_in_hand,
        args: GIVE,
        again: give_again,
        check: was_by_hand,
        ..PLAIN
    },
    Scenario {
        name: "deinit-taken",
        prepare: untouched_in_hand,
        args: &["deinit"],
        again: |project| taken_out(project, &["deinit"]),
        next: set_up_anew,
        ..PLAIN
    },
    Scenario { name: "agent-test", prepare: tested, args: AGENT_TEST, check: is_swept, ..PLAIN },
    Scenario {
        name: "doctor-checks",
        prepare: checked,
        args: DOCTOR_CHECKS,
        again: check_again,
        ..PLAIN
    },
    Scenario {
        name: "edit",
        prepare: with_editor,
        args: EDIT,
        again: edit_again,
        check: is_edited,
        ..PLAIN
    },
    Scenario { name: "diff", prepare: with_diff, args: DIFF, again: diff_again, ..PLAIN },
    Scenario {
        name: "salvage-listed",
        prepare: with_stray_salvage,
        args: LIST,
        again: list_again,
        landed: &["B"],
        ..PLAIN
    },
    Scenario {
        name: "mode-waited",
        prepare: |project| staged(project, 2),
        begin: running,
        args: WAIT,
        check: |project| {
            mode_again(project);
            is_sequential(project);
        },
        ..PLAIN
    },
    Scenario {
        name: "checkpoint-again",
        prepare: longer_journal,
        args: LONG,
        again: long_again,
        code: 1,
        landed: &[],
        check: is_removed,
        ..PLAIN
    },
    Scenario { name: "notified", prepare: notified, check: is_told, ..PLAIN },
];

const ADD: &[&str] = &["task", "add", "One", "--id", "A", "--stages", "architect"];
const SCALE: &[&str] = &["agent", "scale", "implementation", "1"];
/// Settings with `count` agents for each stage. Five tries take four seconds: more than an error lasts.
pub(super) fn settings(more: &str, count: usize) -> String {
    let mut text = format!(
        "{more}\n[retry]\nbackoff = {{ first = \"50ms\", factor = 3.0, max = \"2s\", jitter = 0.1 }}\n"
    );
    for stage in STAGES {
        text.push_str(&format!(
            "\n[[agent]]\nname = \"{stage}\"\nstages = [\"{stage}\"]\ncount = {count}\n\
             command = [\"sh\", \"{{project}}/tools/agent.sh\"]\n"
        ));
    }
    text
}

/// A repository that knows of no pipeline yet.
pub(super) fn with(project: &Project, more: &str, count: usize) {
    fs::create_dir(&project.root).expect("the project's folder");
    project.git(&["init", "-q", "-b", "main"]);
    project.write("tools/agent.sh", AGENT);
    project.write("a.txt", "one\ntwo\nthree\n");
    project.write("pipeline.toml", &settings(more, count));
    project.commit("A beginning");
}

pub(super) const PILOT: &str = "[project]\nrollout = \"pilot\"\n";

fn repository(project: &Project) {
    with(project, PILOT, 1);
}

/// A pipeline that leaves the base alone.
pub(super) fn pilot(project: &Project) {
    repository(project);
    project.ok(&["init"]);
}

pub(super) fn add(project: &Project, id: &str, stages: &str) {
    project.ok(&["task", "add", &format!("Task {id}"), "--id", id, "--stages", stages]);
}

/// One task with one stage.
pub(super) fn staged(project: &Project, stage: usize) {
    pilot(project);
    add(project, "A", STAGES[stage]);
}

fn init_again(project: &Project) {
    project.ok(&["init"]);
}

/// Adds it again: it is there, or it is not.
fn add_again(project: &Project) {
    let is_there = project.run(&["task", "show", "A"]).code == Some(0);
    let code = if is_there { 2 } else { 0 };
    assert_eq!(project.run(ADD).code, Some(code), "it is there: {is_there}");
}

fn backlog(project: &Project) {
    pilot(project);
    let tasks = serde_json::json!({ "tasks": [
        { "id": "A", "title": "First", "stages": ["architect"] },
        { "id": "B", "title": "Second", "stages": ["architect"], "depends_on": ["A"] },
        { "id": "C", "title": "Third", "stages": ["architect"], "depends_on": ["B"] },
    ] });
    fs::write(project.dir().join("backlog.json"), tasks.to_string()).expect("the backlog");
}

/// Imports again: all are there, or none is.
fn import_again(project: &Project) {
    let total = project.count("total");
    assert!(total == 0 || total == 3, "{total} of 3 tasks are there");
    if total == 0 {
        project.ok(&["task", "import", "../backlog.json"]);
    }
}

fn without_git(project: &Project) {
    fs::create_dir(&project.root).expect("the project's folder");
    project.write("tools/agent.sh", AGENT);
    project.write("pipeline.toml", &settings("[project]\nisolation = \"none\"\n", 1));
    project.ok(&["init", "--isolation", "none"]);
    add(project, "A", "architect,implementation");
}

const CHECKS: &str = "[landing]\nchecks = [\"test -e a.txt\"]\n";

/// A base that nobody has checked out, and checks.
fn landing(project: &Project) {
    with(project, CHECKS, 1);
    project.git(&["switch", "-q", "--detach"]);
    project.ok(&["init", "--base", "main"]);
    add(project, "A", "implementation");
}

/// A base that is checked out.
pub(super) fn following(project: &Project) {
    with(project, "", 1);
    project.ok(&["init"]);
    add(project, "A", "architect");
}

/// What a pilot has landed is to go, and its task to be done anew.
fn dropped(project: &Project) {
    following(project);
    project.ok(&["rollout", "set", "pilot"]);
    project.ok(MONITOR);
    project.git(&["tag", "pilot", "pipeline/landed"]);
    project.ok(&["rollout", "promote", "--force", "--drop-pilot"]);
}

/// What the pilot had landed stands in salvage, and nowhere else.
fn kept_in_salvage(project: &Project) {
    base_followed(project);
    let of = ["for-each-ref", "--points-at=pilot", "--format=%(refname)", "refs/pipeline/salvage/"];
    assert!(project.git(&of).contains("refs/pipeline/salvage/pilot-"), "{}", project.story());
    let on_base = project.try_git(&["merge-base", "--is-ancestor", "pilot", "main"]);
    assert_eq!(on_base.code, Some(1), "{}", project.story());
}

/// Something has landed, and a person has gone on since.
fn base_moved(project: &Project) {
    with(project, "", 1);
    project.ok(&["init"]);
    add(project, "OLD", "architect");
    project.ok(MONITOR);
    project.write("person.txt", "mine\n");
    project.commit("Mine");
    add(project, "A", "architect");
}

/// What a task left that has landed may go, while another one is worked on.
fn finished(project: &Project) {
    with(project, "[worktree]\nkeep_finished = \"0s\"\n", 1);
    project.ok(&["init"]);
    add(project, "OLD", "architect");
    project.ok(MONITOR);
    add(project, "A", "architect");
}

fn is_cleaned(project: &Project) {
    project.ok(&["monitor", "--once"]);
    let refs = project.git(&["for-each-ref", "refs/heads/pipeline/task/OLD"]);
    assert_eq!(refs, "", "its branch has landed");
    assert!(!project.path(".git/pipeline/attempts/OLD.arch.1").exists());
}

/// A pipeline with nothing left to do.
pub(super) fn landed(project: &Project) {
    with(project, "", 1);
    project.ok(&["init"]);
    add(project, "OLD", "architect");
    project.ok(MONITOR);
}

/// Looks that nothing of the pipeline is left, and sets up another one.
fn set_up_anew(project: &Project) {
    for name in [".git/pipeline", ".git/pipeline-removed", ".git/worktrees", ".pipeline"] {
        assert!(!project.path(name).exists(), "{name} is left");
    }
    let refs = project.git(&["for-each-ref", "--format=%(refname)"]);
    assert_eq!(refs, "refs/heads/main");
    project.ok(&["init"]);
    add(project, "A", "architect");
}

fn conflict(project: &Project) {
    with(project, "", 2);
    project.ok(&["init"]);
    add(project, "TWO-1", "implementation");
    add(project, "TWO-2", "implementation");
}

/// Two tasks that one agent works on one after the other: the worktree of the second is made ready
/// beside the first.
fn ahead(project: &Project) {
    pilot(project);
    add(project, "AHEAD-1", "implementation");
    add(project, "AHEAD-2", "implementation");
}

fn retry(project: &Project) {
    pilot(project);
    add(project, "FAILS", "implementation");
}

/// The agent of the one task at work, and no monitor.
pub(super) fn running(project: &Project) {
    fs::write(project.dir().join("hold"), "").expect("a file beside the project");
    let mut monitor = project.start(MONITOR);
    project.until("the agent", || !project.runs().is_empty());
    monitor.kill();
}

pub(super) fn cancelled(project: &Project) {
    running(project);
    project.ok(&["task", "cancel", "A"]);
}

fn drained(project: &Project) {
    pilot(project);
    add(project, "A", "implementation");
    add(project, "B", "test");
}

/// A drain that waits for an agent, and no monitor.
fn draining(project: &Project) {
    running(project);
    let mut switch = project.start(&["mode", "switch", "sequential", "--wait", "240s"]);
    project.until("the drain", || {
        project.ok(&["mode", "show", "--json"]).contains("\"to\":\"sequential\"")
    });
    switch.kill();
    project.release("hold");
}

/// Three tasks for a group that has nobody yet.
fn growing(project: &Project) {
    pilot(project);
    let text = settings(PILOT, 1).replace("count = 1", "scale = { min = 0, max = 3 }");
    project.write("pipeline.toml", &text);
    project.commit("Scaling");
    ["A", "B", "C"].iter().for_each(|id| add(project, id, "architect"));
}

fn has_grown(project: &Project) {
    let is_grown = |entry: &serde_json::Value| {
        entry["kind"] == "agents_scaled" && entry["group"] == "architect" && entry["count"] == 3
    };
    assert!(project.log().iter().any(is_grown), "{}", project.story());
}

/// Two agents where the settings say one, each with a task.
fn scaled(project: &Project) {
    pilot(project);
    project.ok(&["agent", "scale", "implementation", "2"]);
    ["A", "B"].iter().for_each(|id| add(project, id, "implementation"));
}

fn scale_again(project: &Project) {
    project.ok(SCALE);
}

/// Agents that the implementation's group is to have.
fn target(project: &Project) -> u64 {
    let list = project.ok(&["agent", "list", "--json"]);
    let list: serde_json::Value = serde_json::from_str(&list).expect("agents are JSON");
    let mut groups = list["groups"].as_array().expect("a list").iter();
    let group = groups.find(|group| group["name"] == "implementation").expect("it is there");
    group["target"].as_u64().expect("a number")
}

fn is_sequential(project: &Project) {
    assert_eq!(project.status()["orchestration_mode"], "sequential");
}

fn mode_again(project: &Project) {
    project.ok(&["mode", "switch", "sequential"]);
}

/// Names the second task, which the built-in scheduler would not begin with, and then the first.
const SCHEDULER: &str = r#"question=$(cat)
case $question in *'{"id":"B"'*) task=B ;; *) task=A ;; esac
echo "{\"format\":1,\"assignments\":[{\"task\":\"$task\",\"agent\":\"architect\"}]}"
"#;

/// Two tasks, and a program that says who gets them.
fn scheduled(project: &Project) {
    with(project, &format!("{PILOT}[scheduler]\ncommand = [\"sh\", \"tools/scheduler.sh\"]\n"), 1);
    project.write("tools/scheduler.sh", SCHEDULER);
    project.commit("A scheduler");
    project.ok(&["init"]);
    add(project, "A", "architect");
    add(project, "B", "architect");
}

/// Its order was followed, wherever it was asked once more; unless it was too slow.
fn is_scheduled(project: &Project) {
    let log = project.log();
    let is_late = log.iter().any(|entry| entry["kind"] == "proposal_faulted");
    let first = log.iter().find(|entry| entry["purpose"] == "work");
    let first = first.expect("something was begun");
    assert!(is_late || first["task"] == "B", "{first}");
}

/// A pilot whose task has landed; the base has not followed.
fn behind(project: &Project) {
    staged(project, 0);
    project.ok(MONITOR);
}

fn promoted(project: &Project) {
    behind(project);
    project.ok(&["rollout", "set", "production"]);
}

fn rollout_again(project: &Project) {
    project.ok(&["rollout", "set", "production"]);
}

pub(super) fn base_followed(project: &Project) {
    let (base, landed) = ("refs/heads/main", "refs/heads/pipeline/landed");
    assert_eq!(project.git(&["rev-parse", base]), project.git(&["rev-parse", landed]));
}
