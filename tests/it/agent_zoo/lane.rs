//! Checks, conflicts and the landing.

use super::zoo::{Zoo, agent, one_stage};

/// Waits until both tasks have begun, so that both start from the same commit.
const TOGETHER: &str = r#"
touch "$ZOO/begun-$PIPELINE_TASK_ID"
until test -e "$ZOO/begun-T-1" && test -e "$ZOO/begun-T-2"; do sleep 0.02; done
"#;

#[test]
fn output_of_a_failed_check_is_told_and_the_checks_files_are_not_committed() {
    let script = r#"
cp "$PIPELINE_TASK_FILE" "$ZOO/seen-$PIPELINE_ATTEMPT"
echo x > x.txt
if grep -q 'no wanted here' "$PIPELINE_TASK_FILE"; then echo w > wanted; fi
pipeline done"#;
    let check = "checks = [\"echo junk > junk.txt; echo junk > x.txt\", \
                 \"test -f wanted || { echo no wanted here; exit 3; }\"]";
    let settings = one_stage("", 1, script);
    let zoo =
        Zoo::new(&settings.replace("must_change = true", &format!("must_change = true\n{check}")));
    zoo.add("T-1", &[]);
    assert_eq!(zoo.run().code, Some(0));
    let task = zoo.task("T-1");
    assert_eq!(task.classes(), "checks_failed completed");
    let seen = zoo.read("seen-T-1.impl.2");
    assert!(seen.contains("exited with status 3"), "{seen}");
    assert!(seen.contains("T-1.impl.1 (checks_failed)"), "{seen}");
    let files = zoo.landed_files();
    assert!(files.contains(&"wanted".to_owned()) && !files.contains(&"junk.txt".to_owned()));
    assert_eq!(zoo.git(&["show", "main:x.txt"]), "x");
    let kept = zoo.git(&["show", "refs/pipeline/salvage/T-1.impl.1:x.txt"]);
    assert_eq!(kept, "x");
}

/// Both tasks change the middle line; who lands second meets a conflict, and runs `resolve`.
fn conflicting(more: &str, resolve: &str) -> Zoo {
    let script = format!(
        "if grep -q 'Merge to finish' \"$PIPELINE_TASK_FILE\"; then\n\
         cp a.txt \"$ZOO/conflict-$PIPELINE_ATTEMPT\"; cp \"$PIPELINE_TASK_FILE\" \"$ZOO/seen\"\n\
         {resolve}\nexit 0\nfi\n{TOGETHER}\nsed -i \"s/^two.*/two by $PIPELINE_TASK_ID/\" a.txt\n\
         pipeline done"
    );
    let zoo = Zoo::new(&one_stage(more, 2, &script));
    zoo.add("T-1", &[]);
    zoo.add("T-2", &[]);
    zoo
}

/// The one that landed first, and the other.
fn in_order(zoo: &Zoo) -> (&'static str, &'static str) {
    let first = zoo.git(&["log", "--first-parent", "--reverse", "--format=%s", "main"]);
    let is_first = first.lines().nth(1).is_some_and(|line| line.contains("T-1"));
    if is_first { ("T-1", "T-2") } else { ("T-2", "T-1") }
}

#[test]
fn a_conflict_is_prepared_in_the_worktree_and_both_parents_are_committed() {
    let resolve = "printf 'one\\ntwo by both\\nthree\\n' > a.txt; pipeline done";
    let zoo = conflicting("[landing]\nchecks = [\"! grep -q '<<<' a.txt\"]", resolve);
    assert_eq!(zoo.run().code, Some(0));
    let (first, second) = in_order(&zoo);
    assert_eq!(zoo.task(first).classes(), "completed");
    assert_eq!(zoo.task(second).classes(), "completed completed");
    let conflict = zoo.read(&format!("conflict-{second}.impl.2"));
    for part in ["<<<<<<<", "|||||||", "=======", ">>>>>>>", "two by T-1", "two by T-2", "\ntwo\n"]
    {
        assert!(conflict.contains(part), "{part} in {conflict}");
    }
    let seen = zoo.read("seen");
    assert!(seen.contains("`a.txt`") && seen.contains(&format!("what {first} landed")), "{seen}");
    assert_eq!(zoo.git(&["show", "main:a.txt"]), "one\ntwo by both\nthree");
    let attempt = format!("--grep=Pipeline-Attempt: {second}.impl.2");
    let parents = zoo.git(&["log", "--all", &attempt, "--format=%P"]);
    assert_eq!(parents.split_whitespace().count(), 2, "{parents}");
    zoo.git(&["fsck", "--strict"]);
}

#[test]
fn markers_that_are_left_fail_the_attempt() {
    let zoo = conflicting("[limits]\nattempts_per_stage = 2", "echo y > y; pipeline done");
    assert_eq!(zoo.run().code, Some(1));
    let (first, second) = in_order(&zoo);
    assert_eq!(zoo.task(first).status(), "completed");
    let task = zoo.task(second);
    assert_eq!(task.classes(), "completed conflict_left conflict_left");
    assert_eq!((task.status(), task.class()), ("blocked", "conflict_left"));
    assert!(task.reason().contains("a.txt"), "{}", task.reason());
    // The second try stood before the same merge again.
    assert!(zoo.read(&format!("conflict-{second}.impl.3")).contains("|||||||"));
    assert_eq!(zoo.git(&["show", "main:a.txt"]), format!("one\ntwo by {first}\nthree"));
    let branch = zoo.git(&["show", &format!("pipeline/task/{second}:a.txt")]);
    assert_eq!(branch, format!("one\ntwo by {second}\nthree"));
}

#[test]
fn an_agent_that_aborts_or_commits_the_merge_itself_lands_all_the_same() {
    let resolve = r#"
if test "$PIPELINE_TASK_ID" = T-1; then git merge --abort; else git checkout -q --ours a.txt; fi
printf 'one\ntwo by both\nthree\n' > a.txt; git add a.txt; git commit -qm mine
pipeline done"#;
    let zoo = conflicting("", resolve);
    assert_eq!(zoo.run().code, Some(0));
    assert_eq!(zoo.git(&["show", "main:a.txt"]), "one\ntwo by both\nthree");
    zoo.git(&["fsck", "--strict"]);
}

#[test]
fn a_check_that_fails_on_the_merged_tree_sends_back_with_the_merge() {
    let script = format!(
        "cp \"$PIPELINE_TASK_FILE\" \"$ZOO/seen-$PIPELINE_ATTEMPT\"\n\
         if grep -q 'they do not fit' \"$PIPELINE_TASK_FILE\"; then\n\
         test -f by-T-1; test -f by-T-2; echo x > fixed; pipeline done; exit 0\nfi\n\
         {TOGETHER}\necho x > by-$PIPELINE_TASK_ID; pipeline done"
    );
    let check = "[landing]\nchecks = [\"if test -f by-T-1 && test -f by-T-2 && ! test -f fixed; \
                 then echo they do not fit; exit 1; fi\"]";
    let zoo = Zoo::new(&one_stage(check, 2, &script));
    zoo.add("T-1", &[]);
    zoo.add("T-2", &[]);
    assert_eq!(zoo.run().code, Some(0));
    let (first, second) = in_order(&zoo);
    assert_eq!(zoo.task(first).classes(), "completed");
    let task = zoo.task(second);
    assert_eq!(task.classes(), "completed completed");
    let seen = zoo.read(&format!("seen-{second}.impl.2"));
    assert!(seen.contains("landing_checks_failed"), "{seen}");
    assert!(!seen.contains("conflict\nmarkers in these files"), "nothing conflicts: {seen}");
    for name in ["by-T-1", "by-T-2", "fixed"] {
        assert!(zoo.landed_files().contains(&name.to_owned()), "{name}");
    }
}

#[test]
fn an_agent_that_votes_off_the_gate_waits_for_a_person() {
    let script = r#"
sed -i 's/^checks = .*/checks = []/' pipeline.toml; echo broken > broken; pipeline done"#;
    let zoo = Zoo::new(&one_stage("[landing]\nchecks = [\"true\"]", 1, script));
    zoo.add("T-1", &[]);
    zoo.add("T-2", &["--depends-on", "T-1"]);
    let ran = zoo.run();
    assert_eq!(ran.code, Some(1), "{ran:?}");
    assert!(ran.err.contains("T-1") || ran.out.contains("T-1"), "{ran:?}");
    assert_eq!(zoo.task("T-1").status(), "landing");
    let waiting = zoo.status()["waiting"].clone();
    let of_task = waiting.as_array().expect("a list").iter().find(|it| it["id"] == "T-1");
    let of_task = of_task.expect("it waits");
    assert_eq!(of_task["on"], "approval");
    assert!(of_task.to_string().contains("pipeline.toml"), "{of_task}");
    assert!(zoo.git(&["show", "main:pipeline.toml"]).contains("checks = [\"true\"]"));
    zoo.ok(&["task", "approve", "T-1"]);
    zoo.ok(&["task", "cancel", "T-2"]);
    assert_eq!(zoo.run().code, Some(0));
    assert_eq!(zoo.task("T-1").status(), "completed");
    assert!(zoo.git(&["show", "main:pipeline.toml"]).contains("checks = []"));
}

#[test]
fn commits_of_its_own_land_with_their_history() {
    let script = r#"
echo 1 > one.txt; git add -A; git commit -qm 'first of mine'
echo 2 > two.txt; git add -A; git commit -qm 'second of mine'
echo 3 > three.txt; pipeline done"#;
    let zoo = Zoo::new(&one_stage("", 1, script));
    zoo.add("T-1", &[]);
    assert_eq!(zoo.run().code, Some(0));
    let log = zoo.git(&["log", "--format=%s", "main"]);
    assert!(log.contains("first of mine") && log.contains("second of mine"), "{log}");
    let files = zoo.landed_files();
    for name in ["one.txt", "two.txt", "three.txt"] {
        assert!(files.contains(&name.to_owned()), "{files:?}");
    }
    assert!(files.iter().all(|name| !name.starts_with("TASK")), "{files:?}");
}

#[test]
fn a_rewritten_history_is_put_on_top_and_the_agents_own_is_kept() {
    let script = r#"
echo mine > mine.txt; git add -A; git commit -q --amend -m rewritten
git checkout -q -b elsewhere 2> "$ZOO/branch" || true
pipeline done"#;
    let zoo = Zoo::new(&one_stage("", 1, script));
    let before = zoo.git(&["rev-parse", "main"]);
    zoo.add("T-1", &[]);
    assert_eq!(zoo.run().code, Some(0));
    zoo.git(&["merge-base", "--is-ancestor", &before, "main"]);
    assert!(zoo.landed_files().contains(&"mine.txt".to_owned()));
    let subjects = zoo.git(&["log", "--format=%s", "main"]);
    assert!(!subjects.contains("rewritten"), "{subjects}");
    let kept = zoo.git(&["log", "-1", "--format=%s", "refs/pipeline/salvage/T-1.impl.1.head"]);
    assert_eq!(kept, "rewritten");
}

#[test]
fn an_agent_without_agents_of_a_stage_is_said() {
    let settings = one_stage("", 1, "echo x > x; pipeline done");
    let more = "[[stage]]\nname = \"review\"\nshort = \"rev\"\nmust_change = false\n";
    let zoo = Zoo::new(&(settings + more));
    zoo.add("T-1", &[]);
    let ran = zoo.run();
    assert_eq!(ran.code, Some(1));
    assert!(ran.err.contains("review"), "{ran:?}");
    let more = agent("rev", "review", 1, "pipeline done");
    let text = std::fs::read_to_string(zoo.root().join("pipeline.toml")).expect("readable");
    zoo.write("pipeline.toml", &(text + &more));
    assert_eq!(zoo.run().code, Some(0));
}

#[test]
fn branches_of_ours_that_an_agent_removes_or_moves_are_put_back() {
    let script = r#"
echo x > by-$PIPELINE_TASK_ID
if test "$PIPELINE_TASK_ID" = T-2; then
  git for-each-ref --format='%(refname)' refs/heads/pipeline | xargs -n1 git update-ref -d
fi
if test "$PIPELINE_TASK_ID" = T-3; then
  git commit -q --allow-empty -m astray
  git update-ref refs/heads/pipeline/landed "$(git commit-tree -m astray 'HEAD^{tree}')"
  git update-ref refs/heads/pipeline/task/T-3 HEAD
fi
pipeline done"#;
    let settings = one_stage("", 1, script).replace("\"production\"", "\"pilot\"");
    let zoo = Zoo::new(&settings);
    let base = zoo.git(&["rev-parse", "main"]);
    for (id, before) in [("T-1", None), ("T-2", Some("T-1")), ("T-3", Some("T-2"))] {
        let on = before.map(|before| format!("--depends-on={before}"));
        zoo.add(id, &on.iter().map(String::as_str).collect::<Vec<_>>());
    }
    let ran = zoo.run();
    assert_eq!(ran.code, Some(0), "{ran:?} {}", zoo.task("T-3").reason());
    let files = zoo.git(&["ls-tree", "-r", "--name-only", "pipeline/landed"]);
    for name in ["a.txt", "by-T-1", "by-T-2", "by-T-3"] {
        assert!(files.contains(name), "{name} in {files}");
    }
    let line = zoo.git(&["log", "--first-parent", "--format=%s", "pipeline/landed"]);
    assert_eq!(line.lines().count(), 4, "{line}");
    assert_eq!(zoo.git(&["rev-parse", "main"]), base);
    let kept = zoo.git(&["for-each-ref", "--format=%(subject)", "refs/pipeline/salvage"]);
    assert!(kept.contains("astray"), "{kept}");
}

#[test]
fn a_link_that_both_changed_is_left_in_conflict_until_it_is_staged() {
    let script = format!(
        "if grep -q 'Merge to finish' \"$PIPELINE_TASK_FILE\"; then\n\
         case $PIPELINE_ATTEMPT in *.2) ;; *) git add lnk;; esac\npipeline done\nexit 0\nfi\n\
         {TOGETHER}\nln -sfn by-$PIPELINE_TASK_ID lnk\npipeline done"
    );
    let zoo = Zoo::new(&one_stage("", 2, &script));
    std::os::unix::fs::symlink("nothing", zoo.root().join("lnk")).expect("a link");
    zoo.git(&["add", "lnk"]);
    zoo.git(&["commit", "-q", "-m", "link"]);
    zoo.add("T-1", &[]);
    zoo.add("T-2", &[]);
    assert_eq!(zoo.run().code, Some(0));
    let log = zoo.git(&["log", "--first-parent", "--reverse", "--format=%s", "main"]);
    let is_first =
        log.lines().find(|line| line.contains("T-")).is_some_and(|it| it.contains("T-1"));
    let task = zoo.task(if is_first { "T-2" } else { "T-1" });
    assert_eq!(task.classes(), "completed conflict_left completed");
    let left = task.attempts("work")[1]["reason"].to_string();
    assert!(left.contains("lnk: leave no marker"), "{left}");
}
