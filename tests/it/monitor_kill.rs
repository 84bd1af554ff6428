//! Monitors and keepers killed in the middle: nothing is lost, nothing is done twice.

use std::fs;

use rustix::process::Signal;

use crate::support::project::{Project, Running, TWELVE};
use crate::support::{processes_of, signal};

/// A small generator, so that a run can be had again by its seed.
struct Dice(u64);

impl Dice {
    fn below(&mut self, limit: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 % limit
    }
}

/// Waits until the journal has grown by so many bytes, or the monitor has ended.
fn until_grown(project: &Project, monitor: &mut Running, bytes: u64) {
    let wanted = project.journal_bytes() + bytes;
    project.until("the journal to grow", || {
        project.journal_bytes() >= wanted || monitor.has_ended().is_some()
    });
}

fn killed_monitors(seed: u64, kills: usize) {
    eprintln!("seed {seed}");
    let project = Project::new(2);
    project.import(TWELVE);
    let mut dice = Dice(seed);
    for _ in 0..kills {
        let mut monitor = project.start(&["monitor", "--until-idle"]);
        until_grown(&project, &mut monitor, dice.below(20_000));
        monitor.kill();
    }
    project.ok(&["monitor", "--until-idle", "--timeout", "240s"]);
    project.assert_landed(TWELVE);
    project.assert_nothing_left();
}

#[test]
fn monitors_killed_at_any_moment_lose_nothing() {
    killed_monitors(0x9e37_79b9_7f4a_7c15, 5);
}

#[test]
fn monitors_killed_soon_after_their_start_lose_nothing() {
    let project = Project::new(2);
    project.import(&TWELVE[..4]);
    let mut dice = Dice(0x2545_f491_4f6c_dd1d);
    for _ in 0..5 {
        let mut monitor = project.start(&["monitor", "--until-idle"]);
        until_grown(&project, &mut monitor, 1 + dice.below(1_500));
        monitor.kill();
    }
    project.ok(&["monitor", "--until-idle", "--timeout", "240s"]);
    project.assert_landed(&TWELVE[..4]);
    project.assert_nothing_left();
}

/// Process ids of keepers with an agent at work.
fn keepers(project: &Project) -> Vec<i32> {
    let found = processes_of(&project.dir()).into_iter();
    found.filter(|(_, line)| line.contains("__keeper")).map(|(pid, _)| pid).collect()
}

#[test]
fn killed_keepers_cost_a_try_and_no_work() {
    let project = Project::new(2);
    project.import(TWELVE);
    let mut monitor = project.monitor(&["--until-idle"]);
    for stage in ["test", "implementation"] {
        let hold = format!("hold.{stage}");
        project.hold(&hold);
        let short = if stage == "test" { ".test." } else { ".impl." };
        let begun = project.runs().iter().filter(|id| id.contains(short)).count();
        project.until("an agent to be held", || {
            project.runs().iter().filter(|id| id.contains(short)).count() > begun
        });
        let runs = project.runs();
        let (before, mut held) = (runs.len(), runs.iter().filter(|id| id.contains(short)));
        let held = held.nth(begun).expect("it was waited for");
        let log = project.log();
        let is_added = |it: &&serde_json::Value| {
            it["kind"] == "attempt_added" && it["attempt"] == held.as_str()
        };
        let agent =
            log.iter().find(is_added).and_then(|it| it["agent"].as_str()).expect("an agent");
        let pid = keepers(&project).into_iter().find(|pid| {
            let line = fs::read_to_string(format!("/proc/{pid}/cmdline")).unwrap_or_default();
            line.contains(agent)
        });
        signal(pid.expect("the stage's keeper lives"), Signal::KILL);
        project.until("the loss to be seen", || {
            project.log().iter().any(|entry| entry["class"] == "lost")
        });
        project.release(&hold);
        project.until("work to go on", || project.runs().len() > before);
    }
    assert_eq!(monitor.end(&project), Some(0), "{}", project.story());
    project.assert_landed(TWELVE);
    project.assert_nothing_left();
}

#[test]
fn monitor_and_keepers_killed_together_lose_nothing() {
    let project = Project::new(2);
    project.import(&TWELVE[..4]);
    project.hold("hold.implementation");
    let mut monitor = project.monitor(&["--until-idle"]);
    project.until("an implementation", || project.runs().iter().any(|id| id.contains(".impl.")));
    monitor.kill();
    keepers(&project).into_iter().for_each(|pid| signal(pid, Signal::KILL));
    project.release("hold.implementation");
    project.ok(&["monitor", "--until-idle", "--timeout", "240s"]);
    project.assert_landed(&TWELVE[..4]);
    project.assert_nothing_left();
}

#[test]
fn agents_outlive_a_killed_monitor_and_are_adopted() {
    let project = Project::new(1);
    project.import(&TWELVE[..1]);
    project.hold("hold.implementation");
    let mut monitor = project.monitor(&["--until-idle"]);
    project.until("the implementation", || project.runs().iter().any(|id| id == "A.impl.1"));
    monitor.kill();
    let mut next = project.monitor(&["--until-idle"]);
    project.release("hold.implementation");
    assert_eq!(next.end(&project), Some(0));
    assert_eq!(project.runs(), ["A.arch.1", "A.test.1", "A.impl.1", "A.super.1"]);
    project.assert_landed(&TWELVE[..1]);
    project.assert_nothing_left();
}

/// Takes the journal back to before the start of an attempt was recorded, as if the monitor had been
/// killed in that moment.
fn forget_start(project: &Project, attempt: &str) {
    let dir = project.path(".git/pipeline");
    let journal = fs::read_dir(dir.join("journal")).expect("the journal is there").flatten();
    let segment = journal.map(|file| file.path()).max().expect("it has a segment");
    let text = fs::read_to_string(&segment).expect("the segment is text");
    let is_start = |line: &&str| {
        let line: serde_json::Value = serde_json::from_str(line).expect("lines of JSON");
        let changes = line["changes"].as_array().into_iter().flatten();
        changes.into_iter().any(|it| it["kind"] == "attempt_started" && it["id"] == attempt)
    };
    let start = text.lines().find(is_start).expect("the start is on record");
    let before = start.as_ptr() as usize - text.as_ptr() as usize;
    fs::write(&segment, &text[..before]).expect("the segment is ours");
    fs::remove_file(dir.join("state.json")).expect("the view is there");
}

#[test]
fn an_attempt_whose_keeper_does_not_answer_is_not_begun_beside_itself() {
    let project = Project::new(2);
    project.import(&TWELVE[..1]);
    project.hold("hold.architect");
    let mut monitor = project.monitor(&["--until-idle"]);
    let has_started = || {
        project
            .log()
            .iter()
            .any(|entry| entry["kind"] == "attempt_started" && entry["attempt"] == "A.arch.1")
    };
    project.until("the architect to run", || has_started() && !project.runs().is_empty());
    monitor.kill();
    forget_start(&project, "A.arch.1");
    // That of the base leaves with its monitor.
    project.until("its keeper alone", || keepers(&project).len() == 1);
    let [keeper] = keepers(&project)[..] else { panic!("{}", project.story()) };
    signal(keeper, Signal::STOP);

    let mut next = project.monitor(&["--until-idle"]);
    project.until("the keeper to be given up, or another agent to begin", || {
        next.said().contains("does not answer") || project.runs().len() > 1
    });
    assert_eq!(project.runs(), ["A.arch.1"], "{}", project.story());
    signal(keeper, Signal::CONT);
    // It is asked again, not only waited for.
    project.until("it to be adopted", has_started);
    assert_eq!(project.runs(), ["A.arch.1"], "{}", project.story());
    project.release("hold.architect");
    assert_eq!(next.end(&project), Some(0), "{}", project.story());
    assert_eq!(project.runs(), ["A.arch.1", "A.test.1", "A.impl.1", "A.super.1"]);
    project.assert_landed(&TWELVE[..1]);
    project.assert_nothing_left();
}

#[test]
fn a_setup_whose_keeper_was_killed_is_ended_before_the_next_one() {
    let setup = "[worktree]\nsetup = [\"echo $$ >> \\\"$E2E_DIR/setups\\\"; \
                 while [ -e \\\"$E2E_DIR/hold.setup\\\" ]; do sleep 0.02; done\"]\n";
    let project = Project::with(1, setup);
    project.import(&TWELVE[..1]);
    project.hold("hold.setup");
    let mut monitor = project.monitor(&["--until-idle"]);
    let setups = || -> Vec<i32> {
        let text = fs::read_to_string(project.dir().join("setups")).unwrap_or_default();
        text.lines().filter_map(|pid| pid.parse().ok()).collect()
    };
    project.until("setup to run", || setups().len() == 1);
    let [keeper] = keepers(&project)[..] else { panic!("{}", project.story()) };
    signal(keeper, Signal::KILL);
    // It is the base that is judged, in the same worktree each time.
    project.until("setup to run again", || setups().len() == 2);
    let alive = processes_of(&project.dir());
    assert!(!alive.iter().any(|(pid, _)| *pid == setups()[0]), "{alive:?}");
    project.release("hold.setup");
    assert_eq!(monitor.end(&project), Some(0), "{}", project.story());
    project.assert_landed(&TWELVE[..1]);
    project.assert_nothing_left();
}

/// What a killed keeper left runs on while it cannot be ended, so nothing begins beside it.
#[cfg(feature = "failpoints")]
#[test]
fn what_a_killed_keeper_left_is_ended_before_another_begins() {
    let project = Project::new(2);
    project.import(&TWELVE[..1]);
    project.hold("hold.architect");
    let mut monitor = project.monitor(&["--until-idle"]);
    let has = |key: &str, value: &str| {
        project.log().iter().any(|entry| entry["attempt"] == "A.arch.1" && entry[key] == value)
    };
    project.until("the architect to run", || {
        has("kind", "attempt_started") && !project.runs().is_empty()
    });
    monitor.kill();
    forget_start(&project, "A.arch.1");
    keepers(&project).into_iter().for_each(|pid| signal(pid, Signal::KILL));
    let while_file = project.dir().join("refuse");
    fs::write(&while_file, "").expect("a file beside the project");
    let env = [
        ("PIPELINE_FAILPOINT", "strays.end=error"),
        ("PIPELINE_FAILPOINT_WHILE", while_file.to_str().expect("UTF-8")),
    ];
    let mut next = project.start_with(&["monitor", "--until-idle"], &env);
    project.until("it to be said, or the attempt to be given up", || {
        next.said().contains("what it left cannot be ended") || has("kind", "attempt_ended")
    });
    assert!(!has("kind", "attempt_ended"), "{}", project.story());
    assert_eq!(project.runs(), ["A.arch.1"], "{}", project.story());
    fs::remove_file(&while_file).expect("it was there");
    project.until("it to be ended after all", || has("class", "lost"));
    project.release("hold.architect");
    assert_eq!(next.end(&project), Some(0), "{}", project.story());
    assert_eq!(project.runs(), ["A.arch.1", "A.arch.2", "A.test.1", "A.impl.1", "A.super.1"]);
    project.assert_landed(&TWELVE[..1]);
    project.assert_nothing_left();
}

#[test]
fn an_agent_that_ends_while_no_monitor_runs_is_taken_as_it_ended() {
    let project = Project::new(1);
    project.import(&TWELVE[..1]);
    project.hold("hold.implementation");
    let mut monitor = project.monitor(&["--until-idle"]);
    project.until("the implementation", || project.runs().iter().any(|id| id == "A.impl.1"));
    monitor.kill();
    project.release("hold.implementation");
    project.until("its keeper to leave", || processes_of(&project.dir()).is_empty());
    project.ok(&["monitor", "--until-idle", "--timeout", "240s"]);
    assert_eq!(project.runs(), ["A.arch.1", "A.test.1", "A.impl.1", "A.super.1"]);
    project.assert_landed(&TWELVE[..1]);
    project.assert_nothing_left();
}

#[test]
fn agents_are_ended_and_saved_though_the_monitor_that_was_told_to_is_killed() {
    let project = Project::new(1);
    project.hold("hold");
    project.ok(&["task", "add", "a task", "--id", "RUNS"]);
    let mut monitor = project.monitor(&[]);
    project.until("the agent", || project.runs().len() == 1);
    // What is stopped while it writes holds the lock.
    project.until("all to be written", || {
        let text = fs::read_to_string(project.path(".git/pipeline/state.json")).unwrap_or_default();
        let view: serde_json::Value = serde_json::from_str(&text).unwrap_or_default();
        let log = project.log();
        log.iter().any(|it| it["kind"] == "attempt_started" && it["attempt"] == "RUNS.arch.1")
            && log.last().is_some_and(|last| last["seq"] == view["seq"])
    });
    monitor.signal(Signal::STOP);
    let mut stop = project.start(&["stop", "--now"]);
    project.until("the order", || {
        project.log().last().is_some_and(|entry| entry["kind"] == "stop_requested")
    });
    monitor.kill();
    assert_eq!(stop.end(&project), Some(0), "{}", stop.said());
    let is_over = |entry: &serde_json::Value| {
        entry["kind"] == "attempt_ended" && entry["attempt"] == "RUNS.arch.1"
    };
    assert!(project.log().iter().any(is_over), "{}", project.story());
    project.until("its processes to leave", || processes_of(&project.dir()).is_empty());
}

#[test]
fn keepers_that_die_before_they_begin_are_given_up() {
    let project = Project::with(1, "[limits]\ninfrastructure_retries = 1\n");
    let text = fs::read_to_string(project.path("pipeline.toml")).expect("it is there");
    let text = text.replace("checks = [\"sh tools/check.sh\"]", "checks = []");
    project.write("pipeline.toml", &text);
    project.commit("No checks");
    project.import(&[("A", &[])]);
    let fault = [("PIPELINE_FAILPOINT", "keeper.started")];
    let mut monitor = project.start_with(&["monitor", "--until-idle"], &fault);
    assert_eq!(monitor.end(&project), Some(1), "{}", monitor.said());
    assert_eq!(project.task("A"), "blocked");
    assert!(monitor.said().contains("3 keepers in a row died before they began"));
    assert_eq!(project.runs(), Vec::<String>::new());
    // Without the fault it is as good as new.
    project.ok(&["task", "retry", "A"]);
    project.idle();
    assert_eq!(project.task("A"), "completed");
}
