//! Without git: a durable runner of commands.

use super::zoo::Zoo;

const RUNNER: &str = r#"
[project]
isolation = "none"

[retry]
backoff = { first = "300ms", factor = 2.0, max = "2s", jitter = 0.0 }

[[stage]]
name = "run"
short = "run"

[[agent]]
name = "worker"
stages = ["run"]
count = 3
command = "task"
"#;

#[test]
fn commands_run_in_order_of_dependencies_and_are_retried_after_a_pause() {
    let zoo = Zoo::bare(RUNNER);
    let date = "date +%s%N >> \"$ZOO/$PIPELINE_TASK_ID\"";
    let flaky = format!("{date}; test \"$(wc -l < \"$ZOO/b\")\" -ge 3");
    zoo.add("a", &["--command", &format!("{date}; pwd > \"$ZOO/where\"; echo out > made")]);
    zoo.add("b", &["--depends-on", "a", "--command", &flaky]);
    zoo.add("c", &["--depends-on", "b", "--command", date]);
    let ran = zoo.run();
    assert_eq!(ran.code, Some(0), "{ran:?}");
    assert_eq!(zoo.task("b").classes(), "failed failed completed");
    let times = |name: &str| -> Vec<u64> {
        zoo.read(name)
            .lines()
            .map(|line| line.parse::<u64>().expect("a time") / 1_000_000)
            .collect()
    };
    let (a, b, c) = (times("a"), times("b"), times("c"));
    assert!(a[0] <= b[0] && b[2] <= c[0], "{a:?} {b:?} {c:?}");
    assert!(b[1] - b[0] >= 300 && b[2] - b[1] >= 600, "{b:?}");
    assert_eq!(zoo.read("where").trim_end(), zoo.root().to_str().expect("a path"));
    assert!(zoo.root().join("made").exists());
    assert!(!zoo.root().join(".git").exists());
    let attempts = zoo.task("b");
    let codes: Vec<_> =
        attempts.attempts("work").iter().map(|it| it["exit_code"].clone()).collect();
    assert_eq!(codes, [1, 1, 0]);
}

#[test]
fn a_command_that_keeps_failing_blocks_what_depends_on_it_and_nothing_else() {
    let zoo = Zoo::bare(&(RUNNER.to_owned() + "\n[limits]\nattempts_per_stage = 2\n"));
    zoo.add("bad", &["--command", "echo the reason; exit 42"]);
    zoo.add("after", &["--depends-on", "bad", "--command", "true"]);
    zoo.add("other", &["--command", "true"]);
    let ran = zoo.run();
    assert_eq!(ran.code, Some(1));
    let bad = zoo.task("bad");
    assert_eq!((bad.status(), bad.classes().as_str()), ("blocked", "failed failed"));
    assert!(bad.reason().contains("status 42"), "{}", bad.reason());
    assert!(bad.evidence().contains("the reason"), "{}", bad.evidence());
    assert_eq!(zoo.task("after").class(), "dependency");
    assert_eq!(zoo.task("other").status(), "completed");
    assert!(zoo.ok(&["task", "log", "bad"]).contains("the reason"));
}

#[test]
fn a_task_without_a_command_is_refused_at_once() {
    let zoo = Zoo::bare(RUNNER);
    zoo.add("none", &[]);
    assert_eq!(zoo.run().code, Some(1));
    let task = zoo.task("none");
    assert_eq!((task.status(), task.class()), ("blocked", "unstartable"));
    assert!(task.reason().contains("the task has none"), "{}", task.reason());
}

#[test]
fn a_status_line_counts_beside_exit_zero_and_notes_travel() {
    let stages = "[[stage]]\nname = \"look\"\nshort = \"look\"\n[[agent]]\nname = \"looker\"\n\
                  stages = [\"look\"]\ncommand = 'cat \"$PIPELINE_TASK_FILE\" > \"$ZOO/seen\"'\n";
    let zoo = Zoo::bare(&(RUNNER.to_owned() + "\n" + stages));
    let note = "printf 'a word to the next\\n' >> \"$PIPELINE_TASK_FILE\"";
    zoo.add("says", &["--command", note]);
    zoo.add("stops", &["--command", "pipeline block 'ask me'"]);
    assert_eq!(zoo.run().code, Some(1));
    assert_eq!(zoo.task("says").status(), "completed");
    assert!(zoo.read("seen").contains("a word to the next"), "{}", zoo.read("seen"));
    let stops = zoo.task("stops");
    assert_eq!((stops.class(), stops.reason()), ("blocked", "ask me"));
}
