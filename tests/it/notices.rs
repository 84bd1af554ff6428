//! `[notify] command`: what it is told, and that nothing of it holds up a run.

use std::fs;

use pipeline::sys::clock::monotonic;
use serde_json::Value;

use crate::support::project::Project;
use crate::support::schema::fault;

const TELL: &str = "set -eu\ncat >>\"$E2E_DIR/told\"\n\
                    echo \"$PIPELINE_EVENT ${PIPELINE_TASK_ID-}\" >>\"$E2E_DIR/events\"\n";

/// A project that tells `script`, with one agent for each stage; `BAD` fails.
fn project(settings: &str, script: &str) -> Project {
    let settings =
        format!("[notify]\ncommand = [\"sh\", \"{{project}}/tools/tell.sh\"]\n{settings}");
    let project = Project::on(1, &settings, |dir| {
        fs::create_dir(dir.join("tools")).expect("a folder");
        fs::write(dir.join("tools/tell.sh"), script).expect("a script");
    });
    let agent = fs::read_to_string(project.path("tools/agent.sh")).expect("the agent");
    let bad = "[ \"$PIPELINE_TASK_ID\" = BAD ] && { echo 'no luck'; exit 3; }\n";
    project.write("tools/agent.sh", &agent.replace("set -eu\n", &format!("set -eu\n{bad}")));
    project.commit("An agent that fails");
    project
}

fn told(project: &Project) -> Vec<Value> {
    let text = fs::read_to_string(project.dir().join("told")).unwrap_or_default();
    text.lines().map(|line| serde_json::from_str(line).expect("JSON")).collect()
}

#[test]
fn a_program_is_told_of_what_is_worth_it() {
    let limits = "[limits]\nattempts_per_stage = 2\nattempts_per_run = 6\n";
    let project = project(limits, TELL);
    for id in ["GOOD", "BAD"] {
        project.ok(&["task", "add", "A \"title\"", "--id", id]);
    }
    project.ok(&["task", "add", "Later", "--id", "LATER", "--depends-on", "BAD"]);
    project.fails(1, &["monitor", "--until-idle", "--timeout", "240s"]);
    let schema: Value =
        serde_json::from_str(&project.ok(&["schema", "notify"])).expect("a schema is JSON");
    let told = told(&project);
    for one in &told {
        assert_eq!(fault(&schema, &schema, one), None, "{one:#}");
        assert_eq!(one["project"], project.root.to_str().expect("UTF-8"));
    }
    let of =
        |event: &str| -> Vec<&Value> { told.iter().filter(|one| one["event"] == event).collect() };
    let [landed] = of("landed")[..] else { panic!("{told:#?}") };
    assert_eq!((&landed["task"], &landed["title"]), (&"GOOD".into(), &"A \"title\"".into()));
    let commit = landed["commit"].as_str().expect("a commit");
    assert_eq!(project.git(&["rev-parse", "pipeline/landed"]), commit);
    let [failed] = of("failed")[..] else { panic!("{told:#?}") };
    assert_eq!((&failed["attempt"], &failed["class"]), (&"BAD.arch.1".into(), &"failed".into()));
    let [blocked] = of("blocked")[..] else { panic!("{told:#?}: LATER waits for BAD") };
    assert_eq!(blocked["task"], "BAD");
    let next = blocked["next"].as_str().expect("a command");
    assert!(next.starts_with("pipeline task retry BAD"), "{next}");
    assert!(!of("budget").is_empty(), "{told:#?}");
    let [finished] = of("finished")[..] else { panic!("{told:#?}") };
    assert_eq!(finished["counts"]["blocked"], 2);
    assert_eq!(told.last(), Some(finished));
    let events = fs::read_to_string(project.dir().join("events")).expect("the events");
    let expected: Vec<String> = told
        .iter()
        .map(|one| {
            let task = one["task"].as_str().unwrap_or_default();
            format!("{} {task}", one["event"].as_str().expect("a word"))
        })
        .collect();
    assert_eq!(events.lines().collect::<Vec<_>>(), expected);
    project.assert_nothing_left();
}

#[test]
fn a_program_that_hangs_holds_nothing_up_and_leaves_no_process() {
    let hang = "echo $$ >>\"$E2E_DIR/hanging\"\nsetsid sleep 600 >/dev/null 2>&1 &\nsleep 600\n";
    let project = project("", hang);
    for id in ["A", "B"] {
        project.ok(&["task", "add", "T", "--id", id]);
    }
    let began = monotonic();
    let done = project.run(&["monitor", "--until-idle", "--timeout", "240s"]);
    assert_eq!(done.code, Some(0), "{}{}", done.out, done.err);
    assert_eq!(project.count("completed"), 2);
    assert!(done.err.contains("were not told to `notify.command`"), "{}", done.err);
    assert!(done.err.contains("the monitor ended before `sh "), "{}", done.err);
    assert!(!done.err.contains("signal 15"), "{}", done.err);
    assert!(began.elapsed().as_secs() < 200, "{:?}", began.elapsed());
    assert!(project.dir().join("hanging").exists(), "it was told");
    project.assert_nothing_left();
}

#[test]
fn a_program_that_fails_or_is_not_there_is_warned_of_once() {
    let project = project("", "echo 'no mail today' >&2\nexit 3\n");
    for id in ["A", "B"] {
        project.ok(&["task", "add", "T", "--id", id]);
    }
    let done = project.run(&["monitor", "--until-idle", "--timeout", "240s"]);
    assert_eq!(done.code, Some(0), "{}{}", done.out, done.err);
    let warned = "ended with exit code 3: no mail today; the run goes on";
    assert_eq!(done.err.matches(warned).count(), 1, "{}", done.err);
    let text = fs::read_to_string(project.path("pipeline.toml")).expect("the settings");
    let gone = text.replace("\"sh\", \"{project}/tools/tell.sh\"", "\"no-such-program\"");
    project.write("pipeline.toml", &gone);
    project.commit("Another program");
    project.ok(&["task", "add", "T", "--id", "C"]);
    let done = project.run(&["monitor", "--until-idle", "--timeout", "240s"]);
    assert_eq!(done.code, Some(0), "{}{}", done.out, done.err);
    assert_eq!(done.err.matches("cannot run `no-such-program`").count(), 1, "{}", done.err);
    project.assert_nothing_left();
}

#[test]
fn the_end_of_work_that_a_killed_monitor_began_is_told() {
    let project = project("", TELL);
    project.ok(&["task", "add", "T", "--id", "A", "--stages", "architect"]);
    project.hold("hold");
    let mut monitor = project.monitor(&["--until-idle"]);
    project.until("the agent to run", || !project.runs().is_empty());
    monitor.kill();
    project.release("hold");
    project.ok(&["monitor", "--until-idle", "--timeout", "240s"]);
    let told: Vec<Value> = told(&project).iter().map(|one| one["event"].clone()).collect();
    assert_eq!(told, ["landed", "finished"]);
    project.ok(&["monitor", "--once"]);
    assert_eq!(self::told(&project).len(), 2, "that monitor did nothing");
    project.assert_nothing_left();
}

#[test]
fn what_others_decide_and_what_is_not_asked_for_is_not_told() {
    let project = project("", TELL);
    project.ok(&["task", "add", "T", "--id", "A"]);
    project.ok(&["task", "hold", "A"]);
    project.ok(&["monitor", "--once"]);
    project.ok(&["task", "cancel", "A"]);
    project.ok(&["monitor", "--until-idle", "--timeout", "240s"]);
    assert_eq!(told(&project), Vec::<Value>::new(), "nothing was begun, so nothing is finished");
}
