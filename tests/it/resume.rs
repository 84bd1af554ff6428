//! Attempts that are cut short, with the real binary: the next one finds their work, and is in their
//! session where its program can take that up.

use std::fs;

use serde_json::{Value, json};

use crate::support::project::Project;

/// Tells its session and all that this used so far, and does a part of the work by the number of the
/// attempt: the first hangs, the second is killed, the third says that it is done.
const WORKER: &str = r#"#!/bin/sh
set -eu
echo "$PIPELINE_ATTEMPT $* in $PWD" >>"$E2E_DIR/starts"
cat >"$E2E_DIR/$PIPELINE_ATTEMPT.prompt"
if [ -e "$E2E_DIR/refuse" ] && [ "$1" = again ]; then echo "no such session"; exit 1; fi
echo '{"session":"s-1"}'
case $PIPELINE_ATTEMPT in
*.1) echo half >>a.txt; echo '{"total":100}'; exec sleep 600 ;;
*.2) echo more >>a.txt; echo '{"total":250}'; kill -TERM $$ ;;
*) echo end >>a.txt; echo '{"total":260}'; pipeline done ;;
esac
"#;

const PRESET: &str = r#"about = "a worker"
headless = ["worker", "first"]
resume = ["worker", "again", "{session}"]
session_total = true
env_allow = ["E2E_DIR"]
[[output]]
fact = "session"
at = ["/session"]
[[output]]
fact = "input_tokens"
at = ["/total"]
"#;

/// A project with a task and a worker, every attempt of which needs a person's retry.
fn project() -> Project {
    let project = Project::bare();
    fs::create_dir(&project.root).expect("the project's folder");
    project.git(&["init", "-q", "-b", "main"]);
    project.write(
        "pipeline.toml",
        "[limits]\nattempts_per_stage = 1\n[landing]\nchecks = [\"true\"]\n\
         [[stage]]\nname = \"implementation\"\ntimeout = \"8s\"\n\
         [[agent]]\nname = \"coder\"\nstages = [\"impl\"]\npreset = \"worker\"\n",
    );
    project.write("agents/presets/worker.toml", PRESET);
    project.install("worker", WORKER);
    project.commit("A beginning");
    project.ok(&["init"]);
    project.ok(&["task", "add", "First", "--id", "A"]);
    project
}

impl Project {
    /// Lets the next attempt run; says what it will read, and that this is what it read.
    fn attempt(&self, code: i32, retry: &[&str]) -> String {
        if self.count("blocked") > 0 {
            self.ok(&[&["task", "retry", "A"], retry].concat());
        }
        let prompt = self.ok(&["task", "prompt", "A"]);
        let done = self.run(&["monitor", "--until-idle", "--timeout", "240s"]);
        assert_eq!(done.code, Some(code), "{}\n{}", done.err, self.story());
        let starts = self.starts();
        let last = starts.last().expect("one has started");
        let file =
            self.dir().join(format!("{}.prompt", last.split(' ').next().unwrap_or_default()));
        assert_eq!(fs::read_to_string(file).expect("it has read"), prompt);
        prompt
    }

    /// What the worker was started with, and where, one line for each attempt.
    fn starts(&self) -> Vec<String> {
        let text = fs::read_to_string(self.dir().join("starts")).unwrap_or_default();
        text.lines().map(str::to_owned).collect()
    }

    /// How the worker was started: attempts and words, without the folder.
    fn words(&self) -> Vec<String> {
        let starts = self.starts();
        starts.iter().map(|line| line.split(" in ").next().unwrap_or_default().into()).collect()
    }

    fn attempts(&self) -> Vec<Value> {
        let task = self.ok(&["task", "show", "A", "--json"]);
        let task: Value = serde_json::from_str(&task).expect("a task is JSON");
        let all = task["attempts"].as_array().expect("an array").iter();
        all.filter(|attempt| attempt["kind"] == "work").cloned().collect()
    }
}

#[test]
fn what_was_cut_short_is_found_by_the_next_attempt_in_the_same_session() {
    let project = project();
    let prompt = project.attempt(1, &[]);
    assert!(!prompt.contains("cut short"), "{prompt}");
    let shown = project.ok(&["task", "show", "A"]);
    assert!(shown.contains("\ncontinues   A.impl.1 (timed_out), session s-1\n"), "{shown}");
    let prompt = project.attempt(1, &[]);
    let told =
        "cut short (A.impl.1: ran longer than its time limit). What it had done is in this\n";
    assert!(prompt.contains(told), "{prompt}");
    let prompt = project.attempt(0, &[]);
    assert!(prompt.contains("cut short (A.impl.2: ended by signal 15). What it"), "{prompt}");
    assert_eq!(project.git(&["show", "main:a.txt"]), "half\nmore\nend");
    let expected = ["A.impl.1 first", "A.impl.2 again s-1", "A.impl.3 again s-1"];
    assert_eq!(project.words(), expected);
    let folder = |line: &String| line.split(" in ").nth(1).map(str::to_owned);
    let starts = project.starts();
    assert!(starts.iter().all(|line| folder(line) == folder(&starts[0])), "{starts:?}");

    let attempts = project.attempts();
    let field = |name: &str| attempts.iter().map(|it| it[name].clone()).collect::<Vec<_>>();
    assert_eq!(field("class"), ["timed_out", "crashed", "completed"]);
    assert_eq!(field("continues"), [json!(null), json!("A.impl.1"), json!("A.impl.2")]);
    assert_eq!(field("resumed_session"), [json!(null), json!("s-1"), json!("s-1")]);
    let used = attempts.iter().map(|it| it["usage"]["input_tokens"].clone()).collect::<Vec<_>>();
    assert_eq!(used, [100, 150, 10], "of a session's total each has what it used");
    assert_eq!(project.status()["metrics"]["tokens"], 260);
    let presets = field("preset");
    assert!(presets[0].is_string() && presets.iter().all(|it| *it == presets[0]), "{presets:?}");

    let log = project.ok(&["log"]);
    assert!(log.contains("(attempt A.impl.2, continues A.impl.1)"), "{log}");
    assert!(log.contains("A implementation takes up session s-1 again"), "{log}");
    let shown = project.ok(&["task", "show", "A"]);
    assert!(shown.contains("completed (10 tokens); continues A.impl.2\n"), "{shown}");
    let by = project.git(&[
        "log",
        "--reverse",
        "--format=%(trailers:key=Pipeline-Attempt,valueonly,separator=%x2C)",
        "main",
        "--",
        "a.txt",
    ]);
    assert_eq!(by, "A.impl.1\nA.impl.2\nA.impl.3");
    let kept = project.git(&["for-each-ref", "--format=%(refname)", "refs/pipeline/salvage/"]);
    assert_eq!(kept, "", "what is on a branch is no salvage");
    project.assert_nothing_left();
}

#[test]
fn work_is_gone_on_from_where_the_session_cannot_be() {
    let project = project();
    project.attempt(1, &[]);
    fs::write(project.dir().join("refuse"), "").expect("a file beside the project");
    // It ends at once: the session is given up, and the work is not.
    let prompt = project.attempt(1, &[]);
    assert!(prompt.contains("cut short (A.impl.1"), "{prompt}");
    let prompt = project.attempt(0, &[]);
    assert!(
        prompt.contains("cut short (A.impl.1") && prompt.contains("no such session"),
        "{prompt}"
    );
    assert_eq!(project.words(), ["A.impl.1 first", "A.impl.2 again s-1", "A.impl.3 first"]);
    assert_eq!(project.git(&["show", "main:a.txt"]), "half\nend");
    project.assert_nothing_left();
}

#[test]
fn another_preset_file_and_a_fresh_beginning_take_up_no_session() {
    let project = project();
    project.attempt(1, &[]);
    project.write("agents/presets/worker.toml", &format!("# Another one.\n{PRESET}"));
    project.attempt(1, &[]);
    let attempts = project.attempts();
    assert_ne!(attempts[0]["preset"], attempts[1]["preset"]);
    assert_eq!(attempts[1]["continues"], "A.impl.1");
    let prompt = project.attempt(0, &["--fresh"]);
    assert!(!prompt.contains("cut short"), "{prompt}");
    assert_eq!(project.words(), ["A.impl.1 first", "A.impl.2 first", "A.impl.3 first"]);
    assert_eq!(project.git(&["show", "main:a.txt"]), "end");
    project.git(&["restore", "agents"]);
    project.assert_nothing_left();
}

#[test]
fn salvage_that_is_gone_is_said_and_the_attempt_begins_at_the_branch() {
    let project = project();
    project.attempt(1, &[]);
    let salvage = "refs/pipeline/salvage/A.impl.1";
    assert_eq!(project.git(&["show", &format!("{salvage}:a.txt")]), "half");
    project.git(&["update-ref", "-d", salvage]);
    for slot in ["0", "1"] {
        let slot = project.path(&format!(".pipeline/worktrees/coder/{slot}"));
        if slot.exists() {
            let slot = slot.to_string_lossy().into_owned();
            project.git(&["worktree", "remove", "--force", "--force", &slot]);
        }
    }
    project.git(&["reflog", "expire", "--expire=now", "--all"]);
    project.git(&["gc", "-q", "--prune=now"]);
    let prompt = project.attempt(1, &[]);
    assert!(prompt.contains("could\nnot be put in this folder: see `git show refs/"), "{prompt}");
    project.attempt(0, &[]);
    assert_eq!(project.git(&["show", "main:a.txt"]), "more\nend");
    project.assert_nothing_left();
}
