//! People and the world around a run: commits, edits, cleaning, signals, several writers.

use std::collections::BTreeSet;
use std::fs;

use rustix::process::Signal;
use serde_json::Value;

use crate::support::processes_of;
use crate::support::project::{Backlog, Project, TWELVE};

const ONE: &Backlog = &[("A", &[])];
const CHAIN: &Backlog = &[("A", &[]), ("B", &["A"]), ("C", &["B"])];
const TWO: &Backlog = &[("A", &[]), ("B", &["A"])];

/// A monitor with the one task held in its implementation.
fn held(project: &Project, args: &[&str]) -> crate::support::project::Running {
    project.import(ONE);
    project.hold("hold.implementation");
    let monitor = project.monitor(args);
    project.until("the implementation", || project.runs().iter().any(|id| id == "A.impl.1"));
    monitor
}

const ONCE_EACH: [&str; 4] = ["A.arch.1", "A.test.1", "A.impl.1", "A.super.1"];

#[test]
fn commits_of_people_are_taken_in() {
    let project = Project::new(2);
    project.import(TWELVE);
    let mut monitor = project.monitor(&["--until-idle"]);
    let mut commits = Vec::new();
    for number in 0..3 {
        let landed = project.count("completed");
        project.write(&format!("person/{number}.txt"), "mine\n");
        // Only what is named, as a person would; the base may be moving under us.
        project.until("a commit between two landings", || {
            project.try_git(&["add", "person"]).code == Some(0)
                && project.try_git(&["commit", "-q", "-m", "Mine", "--", "person"]).code == Some(0)
        });
        commits.push(project.git(&["rev-parse", "HEAD"]));
        project.until("another landing", || {
            project.count("completed") > landed || project.count("completed") == 12
        });
    }
    assert_eq!(monitor.end(&project), Some(0), "{}", project.story());
    for commit in commits {
        project.git(&["merge-base", "--is-ancestor", &commit, "main"]);
    }
    for number in 0..3 {
        assert_eq!(project.git(&["show", &format!("main:person/{number}.txt")]), "mine");
    }
    assert_eq!(project.git(&["rev-parse", "main"]), project.git(&["rev-parse", "pipeline/landed"]));
    project.assert_stages_once(TWELVE);
    project.assert_nothing_left();
}

#[test]
fn an_edit_in_the_way_holds_up_the_base_alone() {
    let project = Project::new(1);
    project.import(ONE);
    // What the task is to make is here already, untracked.
    project.write("architect/A.txt", "something of a person\n");
    let before = project.git(&["rev-parse", "main"]);
    let done = project.run(&["monitor", "--until-idle", "--timeout", "240s"]);
    assert_eq!(project.task("A"), "completed", "{}", project.story());
    assert_eq!(project.git(&["rev-parse", "main"]), before);
    assert_eq!(
        fs::read_to_string(project.path("architect/A.txt")).expect("it is there"),
        "something of a person\n"
    );
    let said = format!("{}{}{}", project.ok(&["status"]), done.out, done.err);
    assert!(said.contains("git merge --ff-only --no-squash --no-overwrite-ignore"), "{said}");
    assert!(project.status()["landing"]["behind"].as_u64() > Some(0));
    fs::remove_file(project.path("architect/A.txt")).expect("it is ours");
    project.ok(&["monitor", "--until-idle", "--timeout", "240s"]);
    project.assert_landed(ONE);
    project.assert_nothing_left();
}

#[test]
fn the_base_follows_once_the_edit_is_gone_and_more_has_landed() {
    let project = Project::new(1);
    project.write("architect/A.txt", "something of a person\n");
    project.import(ONE);
    let mut monitor = project.monitor(&[]);
    project.until("the landing", || project.task("A") == "completed");
    project.until("the refusal", || project.status()["landing"]["why"].is_string());
    fs::remove_file(project.path("architect/A.txt")).expect("it is ours");
    project.ok(&["task", "add", "More", "--id", "B"]);
    project.until("the second landing", || project.task("B") == "completed");
    project.until("the base to follow", || {
        project.git(&["rev-parse", "main"]) == project.git(&["rev-parse", "pipeline/landed"])
    });
    project.ok(&["stop"]);
    assert_eq!(monitor.end(&project), Some(0));
    project.assert_landed(&[("A", &[]), ("B", &[])]);
    project.assert_nothing_left();
}

#[test]
fn cleaning_the_checkout_in_the_middle_costs_no_work() {
    let project = Project::not_ahead(1);
    // The settings are a person's own file here: cleaning takes them away too.
    project.git(&["rm", "-q", "--cached", "pipeline.toml"]);
    project.git(&["commit", "-q", "-m", "Settings are not for everybody"]);
    project.import(CHAIN);
    project.hold("hold.implementation");
    let mut monitor = project.monitor(&["--until-idle"]);
    project.until("the implementation", || project.runs().iter().any(|id| id == "A.impl.1"));
    project.git(&["clean", "-ffdxq"]);
    assert!(!project.path("pipeline.toml").exists());
    project.release("hold.implementation");
    assert_eq!(monitor.end(&project), Some(0), "{}", project.story());
    project.assert_landed(CHAIN);
    project.assert_nothing_left();
    // The link for people is there again.
    let view = fs::read(project.path(".pipeline/state/state.json")).expect("the link is back");
    serde_json::from_slice::<Value>(&view).expect("the view is JSON");
}

#[test]
fn worktrees_deleted_under_agents_are_made_again() {
    let project = Project::not_ahead(1);
    project.import(CHAIN);
    project.hold("hold.test");
    let mut monitor = project.monitor(&["--until-idle"]);
    project.until("the test stage", || project.runs().iter().any(|id| id == "A.test.1"));
    fs::remove_dir_all(project.path(".pipeline/worktrees")).expect("it is there");
    project.release("hold.test");
    assert_eq!(monitor.end(&project), Some(0), "{}", project.story());
    project.assert_landed(CHAIN);
    project.assert_nothing_left();
}

#[test]
fn broken_settings_keep_the_old_ones() {
    let project = Project::new(1);
    let mut monitor = held(&project, &["--until-idle"]);
    let good = fs::read_to_string(project.path("pipeline.toml")).expect("the settings");
    project.write("pipeline.toml", "[landing\n");
    monitor.until_said("is broken, the settings stay as they were");
    let more = good.replace("[landing]", "[limits]\nsend_backs = 3\n\n[landing]");
    project.write("pipeline.toml", &more);
    monitor.until_said("settings adopted");
    project.write("pipeline.toml", &good);
    project.release("hold.implementation");
    assert_eq!(monitor.end(&project), Some(0));
    project.assert_landed(ONE);
    project.assert_nothing_left();
}

#[test]
fn settings_that_are_refused_are_told_and_taken_up_when_nothing_is_in_their_way() {
    let project = Project::with(1, "[monitor]\npoll = { busy = \"200ms\" }\n");
    let mut monitor = held(&project, &["--until-idle"]);
    let good = fs::read_to_string(project.path("pipeline.toml")).expect("the settings");
    let mut less = good.replace("stages = [\"implementation\"]", "stages = [\"supervisor\"]");
    for stage in ["architect", "test", "supervisor"] {
        less.push_str(&format!("[[stage]]\nname = \"{stage}\"\n"));
    }
    project.write("pipeline.toml", &less);
    let why = "pipeline.toml` is refused, the settings stay as they were: task `A` stands in stage \
               `implementation`; the new settings lack that stage; finish the task or keep the stage";
    monitor.until_said(why);
    let status = project.run(&["status"]);
    assert_eq!(status.code, Some(0), "{}", status.err);
    assert!(status.err.contains(why), "{}", status.err);
    let found = project.ok(&["doctor"]);
    assert!(found.contains("is refused, the settings stay as they were: task `A`"), "{found}");
    project.hold("hold.supervisor");
    project.release("hold.implementation");
    monitor.until_said("settings adopted");
    assert_eq!(monitor.said().matches("is refused").count(), 1, "{}", monitor.said());
    let status = project.run(&["status"]);
    assert!(!status.err.contains("is refused"), "{}", status.err);
    project.write("pipeline.toml", &good);
    project.release("hold.supervisor");
    assert_eq!(monitor.end(&project), Some(0), "{}", project.story());
    project.assert_landed(ONE);
    project.assert_nothing_left();
}

#[test]
fn there_is_one_monitor() {
    let project = Project::new(1);
    let mut monitor = held(&project, &["--until-idle"]);
    let pid = monitor.pid().to_string();
    for args in [&["monitor"][..], &["monitor", "--once"], &["run", "--detach"]] {
        let said = project.fails(4, args);
        assert!(said.contains(&pid) && said.contains("pipeline stop"), "{said}");
    }
    project.release("hold.implementation");
    assert_eq!(monitor.end(&project), Some(0));
    project.assert_landed(ONE);
    project.assert_nothing_left();
}

#[test]
fn after_a_term_agents_go_on_and_are_adopted() {
    let project = Project::new(1);
    let mut monitor = held(&project, &["--until-idle"]);
    monitor.signal(Signal::TERM);
    assert_eq!(monitor.end(&project), Some(0), "{}", monitor.said());
    assert!(!processes_of(&project.dir()).is_empty());
    assert_eq!(project.status()["monitor"]["running"], false);
    let mut next = project.monitor(&["--until-idle"]);
    project.release("hold.implementation");
    assert_eq!(next.end(&project), Some(0));
    assert_eq!(project.runs(), ONCE_EACH);
    project.assert_landed(ONE);
    project.assert_nothing_left();
}

#[test]
fn a_hangup_ends_nothing() {
    let project = Project::new(1);
    let mut monitor = held(&project, &["--until-idle"]);
    monitor.signal(Signal::HUP);
    project.release("hold.implementation");
    assert_eq!(monitor.end(&project), Some(0));
    assert_eq!(project.runs(), ONCE_EACH);
    project.assert_landed(ONE);
}

#[test]
fn a_lock_that_somebody_keeps_is_waited_for() {
    let project = Project::new(1);
    let mut monitor = held(&project, &["--until-idle", "--lock-timeout", "100ms"]);
    let path = project.path(".git/pipeline/lock");
    let lock = fs::OpenOptions::new().write(true).open(path).expect("the journal's lock is there");
    lock.lock().expect("locks");
    project.release("hold.implementation");
    monitor.until_said("it is tried again");
    drop(lock);
    assert_eq!(monitor.end(&project), Some(0), "{}", monitor.said());
    assert_eq!(project.runs(), ONCE_EACH);
    project.assert_landed(ONE);
}

#[test]
fn a_monitor_ends_as_asked_while_somebody_keeps_the_lock() {
    let project = Project::new(1);
    let mut monitor = held(&project, &["--lock-timeout", "100ms"]);
    let path = project.path(".git/pipeline/lock");
    let lock = fs::OpenOptions::new().write(true).open(path).expect("the journal's lock is there");
    lock.lock().expect("locks");
    // It has something to write.
    project.release("hold.implementation");
    monitor.until_said("it is tried again");
    monitor.signal(Signal::TERM);
    assert_eq!(monitor.end(&project), Some(0), "{}", monitor.said());
    // Nobody begins meanwhile.
    for args in [&["--once"][..], &["--until-idle", "--timeout", "240s"]] {
        let said = project.fails(4, &[&["monitor", "--lock-timeout", "100ms"], args].concat());
        assert!(said.contains("cannot lock"), "{said}");
    }
    drop(lock);
    project.idle();
    assert_eq!(project.runs(), ONCE_EACH);
    project.assert_landed(ONE);
}

#[test]
fn when_time_is_up_agents_are_ended_or_waited_for_where_the_settings_say_so() {
    let project = Project::with(1, "[monitor]\non_exit = \"kill\"\n");
    // An agent that runs already, however slow the machine is.
    let killed = |args: &[&str]| {
        let before = project.runs().len();
        let mut first = project.monitor(&[]);
        project.until("the agent", || project.runs().len() > before);
        first.kill();
        project.monitor(args)
    };
    project.ok(&["task", "add", "Task A", "--id", "A", "--stages", "implementation,supervisor"]);
    project.hold("hold.implementation");
    let mut monitor = killed(&["--until-idle", "--timeout", "1s"]);
    half_done(&project);
    assert_eq!(monitor.end(&project), Some(1), "{}", monitor.said());
    let said = monitor.said();
    assert!(said.contains("time is up: ending 1 agent; work is saved"), "{said}");
    assert!(!said.contains("agents go on"), "{said}");
    project.keepers_have_ended();
    assert_saved(&project);
    let text = fs::read_to_string(project.path("pipeline.toml")).expect("the settings");
    project.write("pipeline.toml", &text.replace("\"kill\"", "\"drain\""));
    let mut monitor = killed(&["--until", "1s"]);
    monitor.until_said("time is up: waiting for 1 agent");
    project.release("hold.implementation");
    assert_eq!(monitor.end(&project), Some(0), "{}", monitor.said());
    let task = project.ok(&["task", "show", "A", "--json"]);
    assert!(task.contains("\"status\":\"super_ready\""), "done, and nothing new begun: {task}");
    project.keepers_have_ended();
}

/// The refs under which unfinished work is kept.
fn salvage(project: &Project) -> String {
    project.git(&["for-each-ref", "--format=%(refname)", "refs/pipeline/salvage/"])
}

/// What the held agent has made so far.
fn half_done(project: &Project) {
    project.write(".pipeline/worktrees/implementation/0/half.txt", "half done\n");
}

fn assert_saved(project: &Project) {
    let saved = salvage(project);
    assert!(saved.contains("A.impl.1"), "{saved}\n{}", project.story());
    assert_eq!(project.git(&["show", &format!("{}:half.txt", saved.trim())]), "half done");
}

#[test]
fn a_second_interrupt_ends_agents_and_saves_their_work() {
    let project = Project::new(1);
    let mut monitor = held(&project, &[]);
    half_done(&project);
    monitor.signal(Signal::INT);
    monitor.until_said("Ctrl-C again");
    monitor.signal(Signal::INT);
    assert_eq!(monitor.end(&project), Some(130));
    assert_saved(&project);
    project.assert_nothing_left();
    project.release("hold.implementation");
    project.ok(&["monitor", "--until-idle", "--timeout", "240s"]);
    project.assert_landed(ONE);
    project.assert_nothing_left();
}

#[test]
fn an_interrupt_with_nothing_running_ends_at_once() {
    let project = Project::new(1);
    let mut monitor = project.monitor(&[]);
    monitor.signal(Signal::INT);
    assert_eq!(monitor.end(&project), Some(130));
    project.assert_nothing_left();
}

#[test]
fn stop_leaves_agents_at_work() {
    let project = Project::new(1);
    let mut monitor = held(&project, &[]);
    project.ok(&["stop"]);
    assert_eq!(monitor.end(&project), Some(0));
    assert!(!processes_of(&project.dir()).is_empty());
    // Nothing runs that it could end.
    project.ok(&["stop"]);
    // Waited for without a monitor.
    let mut drain = project.start(&["stop", "--drain"]);
    project.until("the drain to stand in for the monitor", || {
        project.status()["monitor"]["pid"] == drain.pid()
    });
    project.release("hold.implementation");
    assert_eq!(drain.end(&project), Some(0), "{}", drain.said());
    assert_eq!(project.runs(), ONCE_EACH[..3]);
    project.assert_nothing_left();
    project.ok(&["monitor", "--until-idle", "--timeout", "240s"]);
    assert_eq!(project.runs(), ONCE_EACH);
    project.assert_landed(ONE);
    project.assert_nothing_left();
}

#[test]
fn stop_now_ends_agents_with_a_monitor_and_without() {
    let project = Project::new(1);
    let mut monitor = held(&project, &[]);
    half_done(&project);
    project.ok(&["stop", "--now"]);
    assert_eq!(monitor.end(&project), Some(0));
    assert_saved(&project);
    project.assert_nothing_left();
    // Again, and the monitor is killed before.
    let mut monitor = project.monitor(&[]);
    project.until("the next try", || project.runs().iter().any(|id| id == "A.impl.2"));
    monitor.kill();
    project.ok(&["stop", "--now"]);
    project.assert_nothing_left();
    project.release("hold.implementation");
    project.ok(&["monitor", "--until-idle", "--timeout", "240s"]);
    project.assert_landed(ONE);
    project.assert_nothing_left();
}

#[test]
fn a_drain_waits_for_agents_and_starts_nothing() {
    let project = Project::new(1);
    let mut monitor = held(&project, &[]);
    let mut stop = project.start(&["stop", "--drain"]);
    monitor.until_said("stop");
    project.ok(&["task", "add", "Later", "--id", "Z"]);
    project.release("hold.implementation");
    assert_eq!(stop.end(&project), Some(0), "{}", stop.said());
    assert_eq!(monitor.end(&project), Some(0));
    assert_eq!(project.runs(), ONCE_EACH[..3]);
    project.assert_nothing_left();
    project.ok(&["monitor", "--until-idle", "--timeout", "240s"]);
    project.assert_landed(&[("A", &[]), ("Z", &[])]);
}

#[test]
fn once_performs_what_is_due_and_waits_for_no_agent() {
    let project = Project::new(1);
    project.import(TWO);
    project.hold("hold");
    // Checks of the base, then one agent at work.
    for _ in 0..20 {
        project.ok(&["monitor", "--once"]);
        if !project.runs().is_empty() {
            break;
        }
        project.until("checks to end", || {
            project.ok(&["log"]).contains("passes its checks")
                || processes_of(&project.dir()).is_empty()
        });
    }
    assert_eq!(project.runs(), ["A.arch.1"], "{}", project.story());
    assert_eq!(project.status()["agents"]["architect"]["status"], "working");
    project.ok(&["monitor", "--once"]);
    assert_eq!(project.runs(), ["A.arch.1"]);
    project.release("hold");
    project.ok(&["monitor", "--until-idle", "--timeout", "240s"]);
    project.assert_landed(TWO);
    project.assert_nothing_left();
}

#[test]
fn a_detached_monitor_goes_on_alone() {
    let project = Project::new(1);
    project.import(TWO);
    project.hold("hold.supervisor");
    // From the folder above, as `git -C` is used.
    let args = ["-C", "project", "monitor", "--detach", "--until-idle"];
    let done = project.command(&project.dir(), &args).output().expect("the program starts");
    let said = String::from_utf8_lossy(&done.stderr).into_owned();
    assert_eq!(done.status.code(), Some(0), "{said}");
    let pid = project.status()["monitor"]["pid"].to_string();
    assert!(said.contains(&pid), "{said}");
    project.release("hold.supervisor");
    project.until("its end", || project.status()["monitor"]["running"] == false);
    project.assert_landed(TWO);
    project.assert_nothing_left();
}

#[test]
fn time_is_up_at_the_time_out() {
    let project = Project::new(1);
    project.import(ONE);
    project.hold("hold");
    let done = project.run(&["monitor", "--until-idle", "--timeout", "20s"]);
    assert_eq!(done.code, Some(1), "{}{}", done.out, done.err);
    assert!(done.err.contains("time is up"), "{}", done.err);
    assert_eq!(project.runs(), ["A.arch.1"]);
    project.release("hold");
    project.ok(&["monitor", "--until-idle", "--timeout", "240s"]);
    project.assert_landed(ONE);
    project.assert_nothing_left();
}

#[test]
fn four_writers_add_tasks_while_a_monitor_runs() {
    const EACH: usize = 12;
    let project = Project::new(1);
    project.hold("hold");
    let mut monitor = project.monitor(&[]);
    let view = project.path(".git/pipeline/state.json");
    let mut ids = BTreeSet::new();
    std::thread::scope(|scope| {
        let add = |writer: usize| {
            let add = |number: usize| {
                let title = format!("Task {number} of {writer}");
                project.ok(&["task", "add", &title]).trim().to_owned()
            };
            (0..EACH).map(add).collect::<Vec<_>>()
        };
        let writers: Vec<_> = (0..4).map(|writer| scope.spawn(move || add(writer))).collect();
        let mut looks = 0;
        project.until("the writers", || {
            let text = fs::read(&view).expect("the view is always there");
            serde_json::from_slice::<Value>(&text).expect("the view is always whole");
            looks += 1;
            writers.iter().all(|writer| writer.is_finished())
        });
        assert!(looks > 10);
        for writer in writers {
            for id in writer.join().expect("a writer") {
                assert!(ids.insert(id.clone()), "{id} was given twice");
            }
        }
    });
    assert_eq!(ids.len(), 4 * EACH);
    project.ok(&["stop", "--now"]);
    assert_eq!(monitor.end(&project), Some(0));
    let text = fs::read(&view).expect("the view is there");
    let state: Value = serde_json::from_slice(&text).expect("the view is whole");
    let tasks = state["tasks"].as_object().expect("tasks");
    assert_eq!(tasks.keys().cloned().collect::<BTreeSet<_>>(), ids);
    let titles: BTreeSet<&str> =
        tasks.values().map(|task| task["title"].as_str().expect("a title")).collect();
    assert_eq!(titles.len(), 4 * EACH);
    project.assert_nothing_left();
}

#[test]
fn what_others_decide_is_told_as_theirs() {
    let project = Project::new(1);
    project.import(ONE);
    project.hold("hold.implementation");
    let mut monitor = project.start(&["monitor", "--until-idle", "--log-format", "json"]);
    project.until("the implementation", || project.runs().iter().any(|id| id == "A.impl.1"));
    project.ok(&["pause"]);
    monitor.until_said("\"kind\":\"paused\"");
    project.ok(&["resume"]);
    project.release("hold.implementation");
    assert_eq!(monitor.end(&project), Some(0), "{}", monitor.said());
    // Each line stands in the journal just so: number, moment and actor included.
    let journal = project.ok(&["--json", "log"]);
    let said = monitor.said();
    let told: Vec<&str> = said.lines().filter(|line| line.starts_with("{\"seq\":")).collect();
    for line in &told {
        assert!(journal.lines().any(|written| written == *line), "{line}\n{journal}");
    }
    let paused = told.iter().find(|line| line.contains("\"kind\":\"paused\""));
    assert!(paused.is_some_and(|line| line.contains("\"actor\":\"cli\"")), "{paused:?}");
    project.assert_landed(ONE);
}
