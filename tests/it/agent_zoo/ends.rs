//! How attempts end: markers, exit statuses, limits.

use std::fs;

use super::zoo::{QUICK, Zoo, agent, one_stage};

/// One task for each way to end; `attempts_per_stage = 1`, so each ends after one attempt.
struct Way {
    id: &'static str,
    script: &'static str,
    /// Class of the attempt.
    class: &'static str,
    /// Part of the reason.
    reason: &'static str,
}

const fn way(
    id: &'static str,
    script: &'static str,
    class: &'static str,
    reason: &'static str,
) -> Way {
    Way { id, script, class, reason }
}

const NO_LINE: &str = "without a status line";
const WAYS: [Way; 24] = [
    way("silent", "true", "incomplete", NO_LINE),
    way("fence", r#"printf '\n```\n## Status: COMPLETED\n```\n' >> "$F""#, "incomplete", NO_LINE),
    way("prose", r#"echo 'then ## Status: COMPLETED comes' >> "$F""#, "incomplete", NO_LINE),
    way("quoted", r#"printf '\n> ## Status: COMPLETED\n' >> "$F""#, "incomplete", NO_LINE),
    way("indented", r#"printf '\n    ## Status: COMPLETED\n' >> "$F""#, "incomplete", NO_LINE),
    way("stdout", "echo '## Status: COMPLETED'", "incomplete", NO_LINE),
    way("own-word", r#"printf '\n## Status: SHIPPED\n' >> "$F""#, "incomplete", NO_LINE),
    way("removed", r#"rm "$F""#, "incomplete", NO_LINE),
    way(
        "stale",
        r#"sed -i 's/^nonce: .*/nonce: 0123456789abcdef0123456789abcdef/' "$F"; pipeline done"#,
        "incomplete",
        NO_LINE,
    ),
    way("badexit", "pipeline done; exit 1", "failed", "said completed but exited with status 1"),
    way("noheader-1", "echo '## Status: COMPLETED' > \"$F\"; exit 1", "failed", "status 1"),
    way("noheader-0", "echo '## Status: COMPLETED' > \"$F\"", "completed", ""),
    way(
        "ours",
        "mkdir .pipeline; echo x > .pipeline/state; git add -f .pipeline; git commit -qm p; pipeline done",
        "completed",
        "",
    ),
    way("crlf", r#"printf '\r\n## Status: COMPLETED\r\n' >> "$F""#, "completed", ""),
    way("empty", r#"rm "$W"; pipeline done"#, "empty", "changed no file"),
    way(
        "ignored",
        r#"rm "$W"; mkdir lib; echo '*' > lib/.gitignore; echo x > lib/x; pipeline done"#,
        "empty",
        "said completed but changed no file; git ignores `lib`: that is never committed",
    ),
    way("onlytask", r#"rm "$W"; git add -f "$F"; git commit -qm x; pipeline done"#, "empty", ""),
    way(
        "older",
        "git add -A; git commit -qm fix; git checkout -q HEAD~1; pipeline done",
        "empty",
        "kept at refs/pipeline/salvage/older.impl.1.head.",
    ),
    way("fails", "pipeline fail 'it is too hard'", "failed", "it is too hard"),
    way("blocks", "pipeline block 'which colour?'", "blocked", "which colour?"),
    way("asks", "pipeline request-changes 'do more'", "changes_requested", "do more"),
    way("dies", "pipeline done; kill -9 $$", "failed", "signal 9"),
    way("crashes", "kill -11 $$", "crashed", "signal 11"),
    way("changed-its-mind", "pipeline done; pipeline fail 'no, wait'", "failed", "no, wait"),
];

#[test]
fn each_way_to_end_has_its_class_and_keeps_the_work() {
    let arms: String = WAYS.iter().map(|it| format!("{})\n{}\n;;\n", it.id, it.script)).collect();
    let script = format!(
        "F=$PIPELINE_TASK_FILE; W=work-$PIPELINE_TASK_ID\necho mine > $W\n\
         case $PIPELINE_TASK_ID in\n{arms}esac"
    );
    let zoo = Zoo::new(&one_stage("[limits]\nattempts_per_stage = 1", 4, &script));
    for way in &WAYS {
        zoo.add(way.id, &[]);
    }
    let ran = zoo.run();
    assert_eq!(ran.code, Some(1), "{ran:?}");
    let salvage = zoo.git(&["for-each-ref", "--format=%(refname)", "refs/pipeline/salvage"]);
    let landed = zoo.landed_files();
    assert!(!landed.iter().any(|it| it.starts_with(".pipeline")), "{landed:?}");
    for way in &WAYS {
        let (task, id) = (zoo.task(way.id), way.id);
        let attempts = task.attempts("work");
        let reason = attempts[0]["reason"].as_str().unwrap_or_default();
        assert_eq!(task.classes(), way.class, "{id}: {reason}");
        assert!(reason.contains(way.reason), "{id}: {reason}");
        let is_completed = way.class == "completed";
        assert_eq!(task.status(), if is_completed { "completed" } else { "blocked" }, "{id}");
        let work = format!("work-{id}");
        assert_eq!(landed.contains(&work), is_completed, "{id}: {landed:?}");
        if !is_completed {
            assert_eq!(task.class(), way.class, "{id}");
            assert!(ran.err.contains(id) || ran.out.contains(id), "{id} is not named: {ran:?}");
        }
        let kept = format!("refs/pipeline/salvage/{id}.impl.1");
        let is_kept = salvage.lines().any(|line| line == kept);
        let left_something = !is_completed && way.class != "empty";
        assert_eq!(is_kept, left_something, "{id}: {salvage}");
        if left_something {
            assert_eq!(zoo.git(&["show", &format!("{kept}:{work}")]), "mine");
            let names = zoo.git(&["ls-tree", "--name-only", &kept]);
            assert!(!names.contains("TASK-"), "{id}: {names}");
        }
    }
    assert!(landed.iter().all(|name| !name.starts_with("TASK-")), "{landed:?}");
    let told = zoo.task("own-word").evidence() + &zoo.task("stdout").evidence();
    assert!(told.contains("not understood: `## Status: SHIPPED`"), "{told}");
    assert!(told.contains("\n## Status: COMPLETED"), "the end of its output: {told}");
}

#[test]
fn an_agent_that_fails_twice_is_told_why_and_then_lands() {
    let script = r#"
echo run >> "$ZOO/runs"
n=$(wc -l < "$ZOO/runs")
cp "$PIPELINE_TASK_FILE" "$ZOO/seen-$n"
if [ "$n" -le 2 ]; then echo half > half.txt; echo "boom number $n"; exit 7; fi
test ! -e half.txt
echo whole > whole.txt
pipeline done"#;
    let zoo = Zoo::new(&one_stage("", 1, script));
    zoo.add("T-1", &[]);
    assert_eq!(zoo.run().code, Some(0));
    let task = zoo.task("T-1");
    assert_eq!((task.status(), task.classes().as_str()), ("completed", "failed failed completed"));
    let seen = zoo.read("seen-3");
    for part in ["T-1.impl.1 (failed)", "status 7", "boom number 1", "boom number 2"] {
        assert!(seen.contains(part), "{part} in {seen}");
    }
    assert!(!zoo.read("seen-1").contains("boom"));
    assert!(zoo.landed_files().contains(&"whole.txt".to_owned()));
    assert!(!zoo.landed_files().contains(&"half.txt".to_owned()));
    assert_eq!(zoo.status()["metrics"]["retries"], 2);
}

#[test]
fn failures_use_up_their_bound_and_retry_counts_anew() {
    let zoo = Zoo::new(&one_stage(
        "[limits]\nattempts_per_stage = 2",
        1,
        "echo x > x; test -e \"$ZOO/go\"; pipeline done",
    ));
    zoo.add("T-1", &[]);
    assert_eq!(zoo.run().code, Some(1));
    let task = zoo.task("T-1");
    assert_eq!((task.classes().as_str(), task.class()), ("failed failed", "failed"));
    std::fs::write(zoo.path("go"), "").expect("writes");
    zoo.ok(&["task", "retry", "T-1"]);
    assert_eq!(zoo.run().code, Some(0));
    assert_eq!(zoo.task("T-1").status(), "completed");
}

#[test]
fn a_time_limit_ends_the_tree_and_the_next_attempt_goes_on_from_there() {
    let script = r#"
if test -e half.txt; then
  cp "$PIPELINE_TASK_FILE" "$ZOO/seen"; mv half.txt whole.txt; pipeline done; exit 0
fi
echo half > half.txt
sleep 300 & sleep 300"#;
    let mut settings = one_stage("", 1, script);
    settings = settings.replace("must_change = true", "must_change = true\ntimeout = \"10s\"");
    let zoo = Zoo::new(&settings);
    zoo.add("T-1", &[]);
    assert_eq!(zoo.run().code, Some(0));
    let task = zoo.task("T-1");
    assert_eq!(task.classes(), "timed_out completed");
    assert!(zoo.read("seen").contains("longer than its time limit"), "{}", zoo.read("seen"));
    assert!(zoo.landed_files().contains(&"whole.txt".to_owned()));
}

#[test]
fn a_program_that_does_not_exist_blocks_at_once() {
    let odd = "[[stage]]\nname = \"odd\"\nshort = \"odd\"\nlabels = [\"odd\"]\n\
               [[agent]]\nname = \"ghost\"\nstages = [\"odd\"]\ncommand = [\"./no/such/program\"]\n";
    let settings = one_stage("", 1, "echo x > x; pipeline done") + odd;
    let zoo = Zoo::new(&settings);
    zoo.add("T-1", &["--stages", "odd", "--label", "odd"]);
    zoo.add("T-2", &[]);
    assert_eq!(zoo.run().code, Some(1));
    let task = zoo.task("T-1");
    assert_eq!((task.status(), task.classes().as_str()), ("blocked", "unstartable"));
    assert!(task.reason().contains("no/such/program"), "{}", task.reason());
    assert_eq!(zoo.task("T-2").status(), "completed");
}

#[test]
fn a_program_that_is_away_for_a_moment_blocks_one_task_and_not_the_queue() {
    let settings = format!(
        "{QUICK}\n[[stage]]\nname = \"implementation\"\nshort = \"impl\"\n\
         [[agent]]\nname = \"imp\"\nstages = [\"implementation\"]\n\
         command = [\"{{project}}/../tool\"]\n"
    );
    let zoo = Zoo::new(&settings);
    let script = "#!/bin/sh\ntest $PIPELINE_TASK_ID != T-1 || mv \"$ZOO/tool\" \"$ZOO/old\"\n\
                  echo x > by-$PIPELINE_TASK_ID; exec pipeline done\n";
    let put = || {
        fs::write(zoo.path("new"), script).expect("writes");
        let mode = std::os::unix::fs::PermissionsExt::from_mode(0o755);
        fs::set_permissions(zoo.path("new"), mode).expect("sets the mode");
        fs::rename(zoo.path("new"), zoo.path("tool")).expect("is put there");
    };
    put();
    for task in ["T-1", "T-2", "T-3", "T-4"] {
        zoo.add(task, &[]);
    }
    let mut monitor = zoo.start();
    zoo.until("T-2's end", || zoo.task("T-2").status() == "blocked");
    zoo.ok(&["stop", "--now"]);
    assert!(monitor.wait().expect("ends").success());
    assert_eq!(zoo.task("T-2").class(), "unstartable");
    // What has failed so is looked for from then on.
    let ran = zoo.run();
    let left = ["T-3", "T-4"].map(|task| zoo.task(task).status().to_owned());
    assert_eq!((ran.code, left), (Some(1), ["impl_ready", "impl_ready"].map(str::to_owned)));
    assert!(zoo.ok(&["status"]).contains("tool` is not there"), "{}", zoo.ok(&["status"]));
    put();
    zoo.ok(&["agent", "resume", "imp"]);
    assert_eq!(zoo.run().code, Some(1));
    let found = ["T-1", "T-2", "T-3", "T-4"].map(|task| zoo.task(task).status().to_owned());
    assert_eq!(found, ["completed", "blocked", "completed", "completed"]);
}

#[test]
fn changes_are_requested_within_the_bound_only() {
    let stages = "[[stage]]\nname = \"review\"\nshort = \"rev\"\nmust_change = false\n";
    let work = r#"cp "$PIPELINE_TASK_FILE" "$ZOO/impl-$PIPELINE_ATTEMPT"
echo "$PIPELINE_ATTEMPT" >> log.txt; pipeline done"#;
    let review = "pipeline request-changes \"more, after $PIPELINE_ATTEMPT\"";
    let settings = one_stage("[limits]\nsend_backs = 1", 1, work) + stages;
    let zoo = Zoo::new(&(settings + &agent("rev", "review", 1, review)));
    zoo.add("T-1", &[]);
    assert_eq!(zoo.run().code, Some(1));
    let task = zoo.task("T-1");
    let classes = "completed changes_requested completed changes_requested";
    assert_eq!((task.classes().as_str(), task.class()), (classes, "changes_requested"));
    assert!(task.reason().contains("more, after T-1.rev.2"), "{}", task.reason());
    let seen = zoo.read("impl-T-1.impl.2");
    assert!(seen.contains("more, after T-1.rev.1"), "{seen}");
    let branch = zoo.git(&["show", "pipeline/task/T-1:log.txt"]);
    assert_eq!(branch, "T-1.impl.1\nT-1.impl.2");
    assert!(!zoo.landed_files().contains(&"log.txt".to_owned()));
}

#[test]
fn notes_travel_from_stage_to_stage_and_never_land() {
    let stages = "[[stage]]\nname = \"review\"\nshort = \"rev\"\nmust_change = false\n";
    let note = r#"
sed -i '$d' "$PIPELINE_TASK_FILE"
printf 'Use the red one — nähmlich.\n\n## Status: COMPLETED ✅\n' >> "$PIPELINE_TASK_FILE"
echo x > x.txt"#;
    let read = r#"cp "$PIPELINE_TASK_FILE" "$ZOO/seen"; cp "$PIPELINE_PROMPT_FILE" "$ZOO/prompt"
cat > "$ZOO/stdin"; git status --porcelain > "$ZOO/status"; pipeline done"#;
    let settings = one_stage("", 1, note) + stages + &agent("rev", "review", 1, read);
    let zoo = Zoo::new(&settings);
    zoo.add("T-1", &["--body", "Make it so.\n## Status: COMPLETED"]);
    assert_eq!(zoo.run().code, Some(0));
    for name in ["seen", "prompt"] {
        let text = zoo.read(name);
        let (before, after) = text.split_once("Use the red one — nähmlich.").expect("the note");
        assert!(before.contains("### implementation"), "{text}");
        assert!(!after.contains("COMPLETED ✅\n\n#"), "{text}");
    }
    assert_eq!(zoo.read("stdin"), zoo.read("prompt"));
    assert_eq!(zoo.read("status"), "", "the task file is hidden from the agent's git");
    let all = zoo.git(&["log", "--all", "--format=", "--name-only"]);
    assert!(!all.contains("TASK-"), "{all}");
}
