//! A backlog from import to landed, in each mode and each rollout.

use std::collections::BTreeSet;
use std::fs;

use rustix::fs::{CWD, FileType, Mode, mknodat};

use crate::support::processes_of;
use crate::support::project::{Backlog, Project, TWELVE};

#[test]
fn a_backlog_lands_in_an_order_that_respects_every_dependency() {
    let project = Project::new(2);
    project.import(TWELVE);
    let said = project.ok(&["monitor", "--until-idle", "--timeout", "240s"]);
    assert!(said.contains("12 open tasks, parallel, production"), "{said}");
    project.assert_landed(TWELVE);
    project.assert_nothing_left();
    assert_eq!(project.status()["counts"]["completed"], 12);
    // Nothing is to be done: at once, and well.
    project.ok(&["monitor", "--until-idle"]);
    project.ok(&["monitor", "--once"]);
    project.assert_nothing_left();
}

#[test]
fn polling_alone_is_enough() {
    let poll = "[monitor]\npoll = { busy = \"100ms\", normal = \"100ms\", idle = \"100ms\" }\n";
    let project = Project::with(1, poll);
    let mut monitor = project.monitor(&["--poll-only"]);
    project.import(&TWELVE[..3]);
    project.until("the tasks to land", || project.count("completed") == 3);
    project.ok(&["stop"]);
    assert_eq!(monitor.end(&project), Some(0));
    project.assert_landed(&TWELVE[..3]);
    project.assert_nothing_left();
}

/// The number of the last record in `state.json`.
fn view_seq(project: &Project) -> serde_json::Value {
    let text = fs::read_to_string(project.path(".pipeline/state/state.json")).expect("the view");
    serde_json::from_str::<serde_json::Value>(&text).expect("always a whole document")["seq"]
        .clone()
}

#[test]
fn the_view_follows_what_others_write_and_the_end() {
    let project = Project::new(1);
    let mut monitor = project.monitor(&[]);
    project.ok(&["task", "add", "Later", "--hold"]);
    project.until("the view of it", || view_seq(&project) == project.status()["seq"]);
    project.ok(&["stop"]);
    assert_eq!(monitor.end(&project), Some(0));
    assert_eq!(view_seq(&project), project.status()["seq"]);
    project.assert_nothing_left();
}

/// Processor time of a process so far, in clock ticks (proc(5): 100 a second).
fn ticks(pid: i32) -> u64 {
    ticks_in(&format!("/proc/{pid}/stat"))
}

/// The same of what a file of proc(5) is about: a process, or one of its threads.
pub(crate) fn ticks_in(stat: &str) -> u64 {
    let stat = fs::read_to_string(stat).expect("it runs");
    let rest = stat.rsplit(')').next().expect("a name in brackets");
    let fields: Vec<&str> = rest.split_whitespace().collect();
    [fields[11], fields[12]].map(|field| field.parse::<u64>().expect("a number")).iter().sum()
}

#[test]
fn a_drain_that_outlasts_the_timeout_waits_asleep() {
    let project = Project::new(1);
    project.import(&[("A", &[])]);
    project.hold("hold");
    let mut monitor = project.monitor(&["--until-idle", "--timeout", "15s"]);
    let begun = pipeline::sys::clock::monotonic();
    project.until("the first stage", || !project.runs().is_empty());
    let mut stop = project.start(&["stop", "--drain"]);
    monitor.until_said("stop");
    let past = |ms| begun.elapsed().as_millis() > ms;
    project.until("the time to be up", || past(15_200));
    let both = || [ticks(monitor.pid()), ticks(stop.pid())];
    let before = both();
    project.until("a second more", || past(16_200));
    for (who, (now, then)) in ["monitor", "stop"].iter().zip(both().iter().zip(before)) {
        let used = now - then;
        assert!(used < 30, "{who}: {used} of 100 ticks, in a second with nothing to do");
    }
    project.release("hold");
    assert_eq!(monitor.end(&project), Some(0));
    assert_eq!(stop.end(&project), Some(0));
    project.assert_nothing_left();
}

/// Work attempts that run at the same time, the most by the journal; and the order of first starts.
fn overlap(project: &Project) -> (usize, Vec<String>) {
    let (mut running, mut most) = (BTreeSet::new(), 0);
    let mut order: Vec<String> = Vec::new();
    for entry in project.log() {
        let attempt = entry["attempt"].as_str().unwrap_or_default().to_owned();
        if entry["kind"] == "attempt_added" && entry["purpose"] == "work" {
            let task = entry["task"].as_str().expect("work is on a task").to_owned();
            if !order.contains(&task) {
                order.push(task);
            }
            running.insert(attempt);
            most = most.max(running.len());
        } else if entry["kind"] == "attempt_ended" {
            running.remove(&attempt);
        }
    }
    (most, order)
}

#[test]
fn sequential_mode_takes_one_task_after_the_other() {
    let project = Project::new(2);
    project.ok(&["mode", "switch", "sequential"]);
    let backlog: &Backlog = &[("A", &[]), ("B", &["A"]), ("C", &[])];
    project.import(backlog);
    project.hold("hold.test");
    let mut monitor = project.monitor(&["--until-idle"]);
    project
        .until("the first task's test stage", || project.runs().iter().any(|id| id == "A.test.1"));
    let file = project.path(".pipeline/current-task.txt");
    assert_eq!(fs::read_to_string(&file).expect("it is there").trim(), "A");
    let agents = project.status()["agents"].as_object().expect("agents").clone();
    assert!(agents.values().all(|agent| agent["current_task"] == "A"), "{agents:#?}");
    assert_eq!(agents.values().filter(|agent| agent["status"] == "working").count(), 1);
    // An unknown id is put back with a warning.
    fs::write(&file, "NOBODY\n").expect("the file is ours to edit");
    monitor.until_said("NOBODY");
    project.until("the id to be put back", || {
        fs::read_to_string(&file).is_ok_and(|text| text.trim() == "A")
    });
    // What an agent can put there instead holds nobody up.
    let pipe = project.path(".pipeline/pipe");
    mknodat(CWD, &pipe, FileType::Fifo, Mode::RUSR | Mode::WUSR, 0).expect("a pipe");
    fs::rename(&pipe, &file).expect("it takes the place");
    monitor.until_said("not a regular file: put back");
    project.until("the id to be put back", || {
        let is_file = fs::symlink_metadata(&file).is_ok_and(|meta| meta.is_file());
        is_file && fs::read_to_string(&file).is_ok_and(|text| text.trim() == "A")
    });
    // A known one counts at the next stage boundary.
    fs::write(&file, "C\n").expect("the file is ours to edit");
    project.until("the edit to be seen", || {
        project
            .log()
            .iter()
            .any(|entry| entry["task"] == "C" && entry["kind"] == "current_task_set")
            || fs::read_to_string(&file).is_ok_and(|text| text.trim() == "C")
    });
    project.release("hold.test");
    assert_eq!(monitor.end(&project), Some(0));
    let (most, order) = overlap(&project);
    assert_eq!(most, 1, "{}", project.story());
    assert_eq!(order.len(), 3);
    project.assert_landed(backlog);
    project.assert_nothing_left();
}

#[test]
fn an_edit_of_the_current_task_counts_at_the_next_stage_without_file_events() {
    let poll = "[monitor]\npoll = { busy = \"100ms\", normal = \"100ms\", idle = \"100ms\" }\n";
    let project = Project::with(1, poll);
    project.ok(&["mode", "switch", "sequential"]);
    let backlog: &Backlog = &[("A", &[]), ("B", &[])];
    project.import(backlog);
    project.hold("hold.test");
    let mut monitor = project.monitor(&["--until-idle", "--poll-only"]);
    project.until("the test stage", || project.runs().iter().any(|id| id == "A.test.1"));
    project.write(".pipeline/current-task.txt", "B\n");
    // What happens meanwhile does not write over it.
    project.ok(&["pause"]);
    project.ok(&["resume"]);
    project.until("the edit to count", || project.ok(&["log"]).contains("B is the current task"));
    project.release("hold.test");
    assert_eq!(monitor.end(&project), Some(0));
    assert_eq!(project.runs()[..3], ["A.arch.1", "A.test.1", "B.arch.1"]);
    project.assert_landed(backlog);
    project.assert_nothing_left();
}

#[test]
fn the_mode_is_switched_in_the_middle() {
    let project = Project::new(2);
    project.import(TWELVE);
    project.hold("hold.architect");
    let mut monitor = project.monitor(&["--until-idle"]);
    project.until("two agents at work", || project.runs().len() == 2);
    project.ok(&["mode", "switch", "parallel"]);
    let said = project.fails(4, &["mode", "switch", "sequential"]);
    assert!(said.contains("architect-") && said.contains("is working on"), "{said}");
    let said = project.fails(4, &["mode", "switch", "sequential", "--wait", "200ms"]);
    assert!(said.contains("in the time given"), "{said}");
    assert_eq!(project.ok(&["mode", "show"]).trim(), "parallel");
    let mut switch = project.start(&["mode", "switch", "sequential", "--wait", "240s"]);
    project.until("the drain", || {
        project.ok(&["mode", "show", "--json"]).contains("\"to\":\"sequential\"")
    });
    project.hold("hold.implementation");
    project.release("hold.architect");
    assert_eq!(switch.end(&project), Some(0), "{}", switch.said());
    assert_eq!(project.status()["orchestration_mode"], "sequential");
    project.until("an implementation", || project.runs().iter().any(|id| id.contains(".impl.")));
    project.fails(4, &["mode", "switch", "parallel"]);
    project.ok(&["mode", "switch", "parallel", "--force"]);
    project.release("hold.implementation");
    assert_eq!(monitor.end(&project), Some(0));
    project.assert_landed(TWELVE);
    project.assert_nothing_left();
}

#[test]
fn a_pilot_works_on_its_slice_and_leaves_the_base_alone() {
    let project = Project::with(2, "[rollout]\npilot = { percent = 25 }\n");
    project.ok(&["rollout", "set", "pilot"]);
    project.import(TWELVE);
    let before = project.git(&["rev-parse", "main"]);
    // What is not in the slice waits for a person.
    let done = project.run(&["monitor", "--until-idle", "--timeout", "240s"]);
    assert_eq!(done.code, Some(1), "{}{}", done.out, done.err);
    assert_eq!(project.git(&["rev-parse", "main"]), before);
    let landed: BTreeSet<String> = project.landings("pipeline/landed").into_iter().collect();
    assert!(!landed.is_empty() && landed.len() < 12, "{landed:?}");
    for (id, deps) in TWELVE {
        if landed.contains(*id) {
            deps.iter().for_each(|dep| assert!(landed.contains(*dep), "{dep} of {id}: {landed:?}"));
        } else {
            assert_eq!(project.task(id), "unassigned");
            let branch = format!("refs/heads/pipeline/task/{id}");
            assert_eq!(project.git(&["for-each-ref", &branch]), "");
        }
    }
    let touched: BTreeSet<String> =
        project.runs().iter().filter_map(|id| Some(id.split_once('.')?.0.to_owned())).collect();
    assert_eq!(touched, landed);
    let waiting = project.status()["waiting"].as_array().expect("a list").clone();
    // Each says why: it is outside itself, or what it needs is.
    assert_eq!(waiting.len(), 12 - landed.len(), "{waiting:#?}");
    assert!(waiting.iter().any(|wait| wait["on"] == "rollout"), "{waiting:#?}");
    project.assert_nothing_left();
}

/// Everything of a repository that a run might change: refs, HEAD, files, worktrees.
fn picture(project: &Project) -> String {
    let files = project.git(&["ls-files", "--stage", "--others", "--exclude-standard"]);
    let refs = project.git(&["for-each-ref"]);
    let trees = project.git(&["worktree", "list", "--porcelain"]);
    let objects = project.git(&["count-objects", "-v"]);
    let config = fs::read_to_string(project.path(".git/config")).expect("git's settings");
    let mut dot: Vec<_> = fs::read_dir(project.path(".pipeline"))
        .expect("our folder")
        .map(|entry| entry.expect("an entry").file_name())
        .collect();
    dot.sort();
    format!("{files}\n{refs}\n{trees}\n{objects}\n{config}\n{dot:?}")
}

#[test]
fn shadow_says_what_it_would_do_and_does_nothing() {
    let project = Project::new(1);
    project.ok(&["rollout", "set", "shadow"]);
    project.import(TWELVE);
    let before = picture(&project);
    let mut monitor = project.monitor(&[]);
    monitor.until_said("would start A architect");
    // Its look at the base may still be going on.
    let pid = monitor.pid();
    project.until("the monitor alone", || {
        processes_of(&project.dir()).iter().map(|(pid, _)| *pid).eq([pid])
    });
    project.ok(&["stop"]);
    assert_eq!(monitor.end(&project), Some(0));
    assert_eq!(picture(&project), before);
    assert_eq!(project.runs(), [""; 0]);
    assert_eq!(project.count("completed"), 0);
    project.assert_nothing_left();
}

#[test]
fn a_red_base_starts_no_agent() {
    let project = Project::new(1);
    project.write("broken", "");
    project.commit("Break it");
    project.import(&TWELVE[..1]);
    let said = project.fails(4, &["monitor", "--until-idle"]);
    assert!(said.contains("it is broken") && said.contains("--allow-red-base"), "{said}");
    assert_eq!(project.runs(), [""; 0]);
    project.assert_nothing_left();
    // Allowed: the task takes the fault away itself.
    let agent = fs::read_to_string(project.path("tools/agent.sh")).expect("the agent");
    project.write("tools/agent.sh", &format!("{agent}rm -f broken\n"));
    project.commit("Let agents mend it");
    project.ok(&["monitor", "--until-idle", "--allow-red-base", "--timeout", "240s"]);
    project.assert_landed(&TWELVE[..1]);
    project.assert_nothing_left();
    // The fault is gone from the base: nothing of it is remembered.
    project.ok(&["monitor", "--until-idle"]);
}

#[test]
fn a_base_that_turned_red_between_two_monitors_starts_no_agent() {
    let project = Project::new(1);
    project.import(&TWELVE[..1]);
    project.ok(&["monitor", "--until-idle", "--timeout", "240s"]);
    let before = project.runs();
    project.write("broken", "");
    project.commit("Break it");
    project.ok(&["task", "add", "Later"]);
    project.fails(4, &["monitor", "--until-idle"]);
    assert_eq!(project.runs(), before);
    project.assert_nothing_left();
}

#[test]
fn a_red_base_is_judged_anew_by_the_next_monitor() {
    let project = Project::new(1);
    // Red for a reason outside of the repository, and in it.
    project.write("tools/check.sh", "test -e \"$E2E_DIR/tool\" && ! test -e broken\n");
    project.commit("Checks need a tool");
    project.import(&TWELVE[..1]);
    project.fails(4, &["monitor", "--until-idle"]);
    project.hold("tool");
    project.write("broken", "");
    project.commit("Break it");
    project.fails(4, &["monitor", "--until-idle"]);
    project.git(&["revert", "--no-edit", "HEAD"]);
    project.release("tool");
    project.fails(4, &["monitor", "--until-idle"]);
    project.hold("tool");
    project.ok(&["monitor", "--until-idle", "--timeout", "240s"]);
    project.assert_landed(&TWELVE[..1]);
    project.assert_nothing_left();
}

#[test]
fn logs_of_an_agent_are_followed_from_attempt_to_attempt() {
    let project = Project::new(1);
    let script = std::fs::read_to_string(project.path("tools/agent.sh")).expect("the agents'");
    project.write("tools/agent.sh", &format!("echo \"this is $PIPELINE_TASK_ID\"\n{script}"));
    project.commit("Agents say something");
    let logs = ["agent", "logs", "architect", "-f"];
    // Without a monitor there is nothing to wait for.
    assert!(project.run(&logs).err.contains("has not done anything yet"));
    let mut monitor = project.monitor(&[]);
    let mut following = project.start(&logs);
    following.until_said("has not done anything yet");
    project.import(&TWELVE[..1]);
    following.until_said("attempt A.arch.1");
    following.until_said("this is A");
    project.until("the first task to land", || project.count("completed") == 1);
    assert_eq!(following.has_ended(), None, "{}", following.said());
    project.ok(&["task", "add", "Another", "--id", "Z"]);
    following.until_said("this is Z");
    project.until("the other one to land", || project.count("completed") == 2);
    project.ok(&["stop"]);
    assert_eq!(monitor.end(&project), Some(0), "{}", monitor.said());
    assert_eq!(following.end(&project), Some(0), "{}", following.said());
    assert_eq!(following.said().matches("note: attempt ").count(), 2, "{}", following.said());
    project.assert_nothing_left();
}
