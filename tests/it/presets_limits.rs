//! Programs whose provider reaches a limit or refuses a key, with scripts in their place.

use std::fs;

use serde_json::Value;

use crate::presets::STAND_IN;
use crate::support::project::Project;

/// How the stand-in's output is read; it is in the place of a preset that is built in.
const PRESET: &str = r#"about = "a stand-in"
provider = "meter"
headless = ["meter"]

[[output]]
fact = "limit"
when = { "/type" = "error", "/status" = "429" }
at = ["/message"]

[[output]]
fact = "until"
when = { "/type" = "error", "/status" = "429" }
at = ["/retry_after"]

[[output]]
fact = "unauthorized"
when = { "/type" = "error", "/status" = "401" }
at = ["/message"]
"#;

const AGENTS: &str = "[[agent]]\nname = \"coder\"\nstages = [\"impl\"]\npreset = \"claude\"\n\
    [[agent]]\nname = \"judge\"\nstages = [\"super\"]\npreset = \"codex\"\n\
    [limits]\nattempts_per_stage = 1\n";

/// A project whose implementation is done by a program that first says `first`, which is all that it
/// does then, and exits with 0; the second time it does its work, says the same, and is done.
fn project(first: &str) -> Project {
    let project = Project::with_agents(AGENTS);
    project.write("agents/presets/claude.toml", PRESET);
    project.commit("A preset");
    project.install("codex", STAND_IN);
    let script = format!(
        "#!/bin/sh\nset -eu\ncat >/dev/null\necho x >>\"$HOME/runs\"\n\
         if [ \"$(wc -l <\"$HOME/runs\")\" = 2 ]; then echo work >work.txt; fi\n\
         echo '{first}'\n\
         if [ \"$(wc -l <\"$HOME/runs\")\" = 2 ]; then pipeline done; fi\n"
    );
    project.install("meter", &script);
    project.ok(&["task", "add", "First", "--id", "A"]);
    project
}

fn runs(project: &Project) -> usize {
    let text = fs::read_to_string(project.dir().join("home/runs")).unwrap_or_default();
    text.lines().count()
}

fn classes(project: &Project) -> Vec<String> {
    let text = project.ok(&["task", "show", "A", "--json"]);
    let task: Value = serde_json::from_str(&text).expect("a task is JSON");
    let attempts = task["attempts"].as_array().expect("a list").iter();
    attempts.filter_map(|attempt| attempt["class"].as_str().map(str::to_owned)).collect()
}

#[test]
fn a_limit_is_waited_for_until_the_time_it_names_and_uses_up_no_attempt() {
    let limit = r#"{"type":"error","status":429,"message":"slow down","retry_after":12}"#;
    let project = project(limit);
    let mut monitor = project.start(&["monitor", "--until-idle", "--timeout", "240s"]);
    let mut status = Value::Null;
    project.until("the limit to be told", || {
        status = project.status();
        let waits = &status["waiting"][0];
        waits["on"] == "rate_limit" && waits["until"].is_string()
    });
    assert_eq!(status["agents"]["coder"]["status"], "cooling", "{status}");
    assert_eq!(status["providers"]["meter"]["status"], "rate_limited", "{status}");
    assert_eq!(status["providers"]["meter"]["why"], "slow down", "{status}");
    let said = project.ok(&["status"]);
    assert!(said.contains("`meter` has reached a limit: slow down (in "), "{said}");
    assert_eq!(runs(&project), 1, "nothing starts meanwhile");
    // What it says beside work that is done does not count.
    assert_eq!(monitor.end(&project), Some(0), "{}", monitor.said());
    assert_eq!(classes(&project), ["rate_limited", "completed", "completed", "completed"]);
    assert_eq!((runs(&project), project.count("completed")), (2, 1));
    let log = project.ok(&["log"]);
    assert!(log.contains("meter has reached a limit: its agents get nothing for "), "{log}");
    assert_eq!(project.status()["providers"], serde_json::json!({}));
    project.assert_nothing_left();
}

#[test]
fn a_refused_key_waits_for_a_person_also_over_a_restart() {
    let project = project(r#"{"type":"error","status":401,"message":"no such key"}"#);
    for _ in 0..2 {
        let said = project.fails(1, &["monitor", "--until-idle", "--timeout", "240s"]);
        let why = "`meter` refuses its agents (no such key): pipeline agent resume coder";
        assert!(said.contains(why), "{said}");
        assert_eq!(runs(&project), 1, "nothing starts");
    }
    let said = project.ok(&["status"]);
    assert!(
        said.starts_with("0 of 1 landed, 1 provider needs a person, 1 waits, cost unknown\n"),
        "{said}"
    );
    assert!(said.contains("\n  meter  no such key: pipeline agent resume coder\n"), "{said}");
    assert!(said.lines().all(|line| line.chars().count() <= 80), "{said}");
    let list = project.ok(&["agent", "list"]);
    assert!(list.contains("coder  paused  meter: no such key"), "{list}");
    project.ok(&["agent", "resume", "coder"]);
    project.ok(&["monitor", "--until-idle", "--timeout", "240s"]);
    assert_eq!(classes(&project), ["unauthorized", "completed", "completed", "completed"]);
    project.assert_nothing_left();
}
