//! `pipeline salvage`: what failed attempts left, seen, taken and dropped.

use serde_json::Value;

use crate::support::project::Project;

/// Fails at the implementation of tasks whose id begins with F, leaving a file.
pub(crate) const FAILING: &str = r#"set -eu
echo "$PIPELINE_ATTEMPT" | tee -a "$PIPELINE_TASK_ID.txt"
case "$PIPELINE_TASK_ID.$PIPELINE_STAGE" in F*.implementation) exit 3 ;; esac
"#;

const RETRIES: &str = "[limits]\nattempts_per_stage = 2\n";

/// One task that landed and one whose two tries at the implementation failed.
fn failed() -> Project {
    let project = Project::with(1, RETRIES);
    project.write("tools/agent.sh", FAILING);
    project.commit("Agents that fail");
    for id in ["GOOD", "FAIL"] {
        project.ok(&["task", "add", "a task", "--id", id]);
    }
    project.fails(1, &["monitor", "--until-idle"]);
    assert_eq!(
        (project.task("GOOD"), project.task("FAIL")),
        ("completed".into(), "blocked".into())
    );
    project
}

fn list(project: &Project) -> Vec<Value> {
    let text = project.ok(&["salvage", "list", "--json"]);
    let document: Value = serde_json::from_str(&text).expect("JSON");
    document["salvage"].as_array().expect("a list").clone()
}

#[test]
fn what_failed_attempts_left_is_listed_with_whose_it_is_and_why() {
    let project = failed();
    let found = list(&project);
    assert_eq!(found.len(), 2, "{found:?}");
    let first = &found[0];
    let commit = project.git(&["rev-parse", "refs/pipeline/salvage/FAIL.impl.1"]);
    for (field, value) in [
        ("ref", "refs/pipeline/salvage/FAIL.impl.1"),
        ("task", "FAIL"),
        ("stage", "implementation"),
        ("attempt", "FAIL.impl.1"),
        ("class", "failed"),
        ("commit", commit.as_str()),
    ] {
        assert_eq!(first[field], value, "{first}");
    }
    // What the stages before left is on the task's branch.
    assert_eq!(
        (&first["files"], &first["added"], &first["is_held"]),
        (&1.into(), &1.into(), &false.into())
    );
    assert!(first["why"].as_str().is_some_and(|why| why.contains("status 3")), "{first}");
    let text = project.ok(&["salvage", "list"]);
    assert!(text.lines().all(|line| line.chars().count() <= 80), "{text}");
    assert!(text.contains("FAIL.impl.1  failed ") && text.contains("1 file +1 -0"), "{text}");
    let shown = project.ok(&["salvage", "show", "FAIL.impl.2"]);
    assert!(shown.contains(" FAIL.txt | 1 +") && shown.contains("\n+FAIL.impl.2\n"), "{shown}");
    assert!(!shown.contains("+FAIL.test.1"), "{shown}");
}

#[test]
fn salvage_is_restored_to_a_worktree_on_a_branch_of_its_own() {
    let project = failed();
    let at = |reference: &str| project.git(&["rev-parse", reference]);
    let path = project.ok(&["salvage", "restore", "FAIL.impl.1"]);
    let path = std::path::PathBuf::from(path.trim_end());
    let text = std::fs::read_to_string(path.join("FAIL.txt")).expect("its file");
    assert!(text.ends_with("FAIL.impl.1\n"), "{text}");
    assert_eq!(at("refs/heads/salvage/FAIL.impl.1"), at("refs/pipeline/salvage/FAIL.impl.1"));
    assert_eq!(project.git(&["status", "--porcelain"]), "");
    // Again is the same place, with what the person did there.
    std::fs::write(path.join("mine"), "edited").expect("writes");
    let again = project.ok(&["salvage", "restore", "refs/pipeline/salvage/FAIL.impl.1"]);
    assert_eq!(std::path::Path::new(again.trim_end()), path);
    assert!(path.join("mine").is_file());
    let said = project.fails(4, &["salvage", "restore", "FAIL.impl.1", "elsewhere"]);
    assert!(said.contains("is checked out at"), "{said}");
    let said = project.fails(4, &["salvage", "restore", "FAIL.impl.2", "tools"]);
    assert!(said.contains("is in the way") && said.contains("hint: "), "{said}");
    let other = project.dir().join("other");
    project.ok(&["salvage", "restore", "FAIL.impl.2", other.to_str().expect("UTF-8")]);
    assert!(other.join("FAIL.txt").is_file());
    // A branch of that name with other work stays.
    project.git(&["worktree", "remove", other.to_str().expect("UTF-8")]);
    project.git(&["branch", "-f", "salvage/FAIL.impl.2", "main"]);
    let said = project.fails(4, &["salvage", "restore", "FAIL.impl.2"]);
    assert!(said.contains("holds other work") && said.contains("git branch -m"), "{said}");
}

#[test]
fn nothing_is_restored_to_where_an_attempt_would_wipe_it() {
    let project = failed();
    let slot = ".pipeline/worktrees/implementation/7";
    for place in [slot, ".pipeline/mine", ".git/mine"] {
        let said = project.fails(4, &["salvage", "restore", "FAIL.impl.1", place]);
        assert!(said.contains("the pipeline's own") && said.contains("hint: "), "{said}");
        assert!(!project.path(place).exists());
    }
    assert_eq!(project.git(&["branch", "--list", "salvage/*"]), "");
    for place in [".pipeline/restored/mine", "elsewhere"] {
        project.ok(&["salvage", "restore", "FAIL.impl.1", place]);
        project.git(&["worktree", "remove", place]);
    }
}

#[test]
fn a_restored_worktree_that_was_deleted_is_made_again() {
    let project = failed();
    let restore = |args: &[&str]| {
        let path = project.ok(&[&["salvage", "restore", "FAIL.impl.1"], args].concat());
        let path = std::path::PathBuf::from(path.trim_end());
        assert!(path.join("FAIL.txt").is_file(), "{}", path.display());
        path
    };
    let path = restore(&[]);
    std::fs::remove_dir_all(&path).expect("it was there");
    let other = project.dir().join("other");
    assert_eq!(restore(&[other.to_str().expect("UTF-8")]), other);
    std::fs::remove_dir_all(&other).expect("it was there");
    assert_eq!(restore(&[]), path);
    std::fs::remove_dir_all(&path).expect("it was there");
    assert_eq!(restore(&[]), path);
}

#[cfg(feature = "failpoints")]
#[test]
fn a_restoring_that_was_cut_off_is_finished() {
    let project = failed();
    let args = ["salvage", "restore", "FAIL.impl.1"];
    for point in ["git.restored_branch", "git.hand_add", "git.hand_fill"] {
        let mut command = project.command(&project.root, &args);
        let ended = command.env("PIPELINE_FAILPOINT", point).output().expect("it starts");
        assert!(!ended.status.success(), "killed at {point}");
        let path = project.ok(&args);
        let path = std::path::PathBuf::from(path.trim_end());
        assert!(path.join("FAIL.txt").is_file(), "after {point}");
        assert_eq!(project.git(&["-C", path.to_str().expect("UTF-8"), "status", "--short"]), "");
        project.git(&["worktree", "remove", path.to_str().expect("UTF-8")]);
        project.git(&["branch", "-q", "-D", "salvage/FAIL.impl.1"]);
    }
}

#[test]
fn what_gits_that_were_killed_left_is_finished_or_told() {
    let project = failed();
    let (restore, drop) =
        (["salvage", "restore", "FAIL.impl.1"], ["salvage", "drop", "FAIL.impl.1"]);
    // Of a branch that may be the person's, and of all refs.
    for (name, args) in [("refs/heads/salvage/FAIL.impl.1", restore), ("packed-refs", drop)] {
        let lock = project.path(&format!(".git/{name}.lock"));
        std::fs::create_dir_all(lock.parent().expect("a folder")).expect("a folder");
        std::fs::write(&lock, "").expect("writes");
        let said = project.fails(1, &args);
        let told = format!("hint: when no git runs here, type: rm -f {}\n", lock.display());
        assert!(said.ends_with(&told), "{said}");
        std::fs::remove_file(&lock).expect("it is there");
        if args == restore {
            // A worktree that was about to be made.
            let dir = std::path::PathBuf::from(project.ok(&args).trim_end());
            let admin =
                project.git(&["-C", dir.to_str().expect("UTF-8"), "rev-parse", "--git-dir"]);
            std::fs::remove_file(std::path::Path::new(&admin).join("HEAD")).expect("it is there");
            std::fs::remove_file(dir.join("FAIL.txt")).expect("it is there");
            let said = project.fails(4, &args);
            assert!(said.contains("in the way: files of a broken worktree"), "{said}");
            for entry in std::fs::read_dir(&dir).expect("a folder").flatten() {
                match entry.path() {
                    path if path.ends_with(".git") => {}
                    path if path.is_dir() => std::fs::remove_dir_all(path).expect("it is there"),
                    path => std::fs::remove_file(path).expect("it is there"),
                }
            }
        }
        project.ok(&args);
    }
    assert!(project.path(".pipeline/restored/FAIL.impl.1/FAIL.txt").is_file());
}

#[test]
fn what_shares_nothing_with_a_lost_journal_is_listed_all_the_same() {
    let project = failed();
    std::fs::remove_dir_all(project.state_dir()).expect("it was there");
    project.ok(&["init", "--force"]);
    let found = list(&project);
    let attempt = found.iter().find(|entry| entry["ref"] == "refs/pipeline/salvage/FAIL.impl.1");
    let attempt = attempt.expect("it is listed");
    assert!(attempt["files"].as_u64().is_some_and(|files| files > 3), "{attempt}");
    assert!(attempt["added"].as_u64().is_some_and(|lines| lines > 3), "{attempt}");
    let shown = project.ok(&["salvage", "show", "FAIL.impl.1"]);
    assert!(shown.contains("\n+FAIL.impl.1\n"), "{shown}");
}

#[test]
fn work_in_worktrees_outlives_a_lost_journal() {
    let project = Project::with(1, "[worktree]\ncopy = [\".env\"]\n[scheduler]\nprefetch = 0\n");
    project.write(".env", "secret\n");
    project.git(&["config", "core.excludesFile", "/dev/null"]);
    project.ok(&["task", "add", "a task", "--id", "T"]);
    project.idle();
    let slot = |agent: &str| project.path(&format!(".pipeline/worktrees/{agent}/0"));
    std::fs::write(slot("implementation").join("precious.txt"), "precious").expect("writes");
    let supervisor = slot("supervisor").to_str().expect("UTF-8").to_owned();
    project.git(&["-C", &supervisor, "commit", "-q", "--allow-empty", "-m", "Mine"]);
    let mine = project.git(&["-C", &supervisor, "rev-parse", "HEAD"]);
    std::fs::remove_dir_all(project.state_dir().join("journal")).expect("it was there");
    let said = project.run(&["init", "--force"]);
    assert_eq!(said.code, Some(0), "{}", said.err);
    let kept = "refs/pipeline/salvage/init-implementation-0";
    assert!(said.err.contains("init-implementation-0"), "{}", said.err);
    assert_eq!(project.git(&["show", &format!("{kept}:precious.txt")]), "precious");
    let names = project.git(&["ls-tree", "--name-only", kept]);
    assert!(!names.contains(".env") && !names.contains("TASK"), "{names}");
    assert_eq!(project.git(&["rev-parse", "refs/pipeline/salvage/init-supervisor-0"]), mine);
    project.ok(&["task", "add", "a task", "--id", "U"]);
    project.idle();
    let path = project.ok(&["salvage", "restore", "init-implementation-0"]);
    assert!(std::path::Path::new(path.trim_end()).join("precious.txt").is_file());
}

#[test]
fn a_branch_that_a_person_has_checked_out_is_not_taken_by_a_new_start() {
    let project = failed();
    project.keepers_have_ended();
    project.git(&["switch", "-q", "pipeline/landed"]);
    std::fs::remove_dir_all(project.state_dir().join("journal")).expect("it was there");
    let refs = project.git(&["for-each-ref"]);
    let said = project.fails(4, &["init", "--force"]);
    assert!(
        said.contains("`pipeline/landed` is checked out at") && said.contains("--detach"),
        "{said}"
    );
    assert_eq!(project.git(&["for-each-ref"]), refs);
    assert_eq!(project.git(&["status", "--porcelain"]), "");
    assert!(project.state_dir().join("state.json").exists(), "nothing was moved aside");
    project.git(&["switch", "-q", "--detach"]);
    project.ok(&["init", "--force"]);
    assert_eq!(project.git(&["status", "--porcelain"]), "");
}

#[test]
fn a_ref_whose_commit_is_gone_is_listed_and_in_nobodys_way() {
    let project = failed();
    let bad = ".git/refs/pipeline/salvage/FAIL.impl.9";
    let name = "refs/pipeline/salvage/FAIL.impl.9";
    project.write(bad, &format!("{}\n", "1".repeat(40)));
    let found = list(&project);
    let gone: Vec<_> = found.iter().filter(|entry| entry["is_gone"] == true).collect();
    assert_eq!((found.len(), gone.len(), &gone[0]["ref"]), (3, 1, &name.into()), "{found:?}");
    assert_eq!((&found[0]["files"], &found[0]["is_gone"]), (&1.into(), &false.into()));
    let text = project.ok(&["salvage", "list"]);
    assert!(text.contains("its commit is gone") && text.contains("1 file +1 -0"), "{text}");
    assert!(project.ok(&["salvage", "show", "FAIL.impl.2"]).contains("\n+FAIL.impl.2\n"));
    for what in ["show", "restore"] {
        let said = project.fails(1, &["salvage", what, "FAIL.impl.9"]);
        assert!(said.contains("is gone") && said.contains("salvage drop FAIL.impl.9"), "{said}");
    }
    let told = project.run(&["doctor"]);
    assert!(told.out.contains("pipeline salvage drop FAIL.impl.9"), "{told:?}");
    project.ok(&["salvage", "drop", "FAIL.impl.9"]);
    assert_eq!(list(&project).len(), 2);
    assert!(!project.run(&["doctor"]).out.contains("salvage drop"));
    project.git(&["gc", "-q"]);
    // Nor does it keep anything from being taken out.
    project.write(bad, &format!("{}\n", "1".repeat(40)));
    project.ok(&["deinit", "--force"]);
    assert_eq!(project.git(&["for-each-ref", "--format=%(refname)"]), "refs/heads/main");
}

#[test]
fn what_is_dropped_is_named_so_that_it_can_be_taken_back() {
    let project = failed();
    let before = list(&project);
    let said = project.fails(2, &["salvage", "drop", "FAIL.impl.1", "FAIL.impl.7"]);
    assert!(said.contains("`FAIL.impl.7`") && said.contains("pipeline salvage list"), "{said}");
    assert_eq!(list(&project).len(), 2, "all or none");
    let said = project.ok(&["salvage", "drop", "FAIL.impl.1", "FAIL.impl.1"]);
    assert_eq!(list(&project).len(), 1);
    let words: Vec<&str> = said.split_whitespace().collect();
    let [name, commit] = words.as_slice() else { panic!("{said}") };
    project.git(&["update-ref", name, commit]);
    let ages = |list: &[Value]| list.iter().map(|it| it["commit"].clone()).collect::<Vec<_>>();
    assert_eq!(ages(&list(&project)), ages(&before));
    let text = project.ok(&["salvage", "drop", "FAIL.impl.1", "FAIL.impl.2", "--json"]);
    let document: Value = serde_json::from_str(&text).expect("JSON");
    assert_eq!(document["dropped"][1]["ref"], "refs/pipeline/salvage/FAIL.impl.2");
    assert!(list(&project).is_empty());
    let done = project.run(&["salvage", "list"]);
    assert_eq!((done.code, done.out.as_str()), (Some(0), ""));
    assert!(done.err.contains("nothing is kept in salvage"), "{}", done.err);
    let said = project.fails(2, &["salvage", "show", "FAIL.impl.1"]);
    assert!(said.contains("there is nothing in salvage under `FAIL.impl.1`"), "{said}");
}

#[test]
fn what_was_dropped_is_named_where_a_later_one_has_changed() {
    let project = failed();
    let first = list(&project)[0].clone();
    let name = "refs/pipeline/salvage/FAIL.impl.2";
    // Somebody moves it just before.
    project.before_git(&format!(
        "case \"$*\" in *update-ref*-d*{name}*) $git update-ref {name} HEAD </dev/null ;; esac"
    ));
    let done = project.run(&["salvage", "drop", "FAIL.impl.1", "FAIL.impl.2", "--json"]);
    assert_eq!(done.code, Some(1), "{}{}", done.out, done.err);
    assert!(done.err.contains("it has just changed"), "{}", done.err);
    let document: Value = serde_json::from_str(&done.out).expect("JSON");
    let [dropped] = document["dropped"].as_array().expect("a list").as_slice() else {
        panic!("{}", done.out)
    };
    assert_eq!((&dropped["ref"], &dropped["commit"]), (&first["ref"], &first["commit"]));
}

#[test]
fn what_the_next_attempt_goes_on_from_is_not_dropped() {
    let project = Project::new(1);
    project.hold("hold");
    project.ok(&["task", "add", "a task", "--id", "CUT"]);
    let mut monitor = project.monitor(&[]);
    project.until("the agent", || project.runs().len() == 1);
    std::fs::write(project.path(".pipeline/worktrees/architect/0/half"), "half").expect("writes");
    project.ok(&["stop", "--now"]);
    monitor.end(&project);
    let said = project.fails(4, &["salvage", "drop", "CUT.arch.1"]);
    assert!(said.contains("the next attempt at `CUT` goes on from it"), "{said}");
    assert_eq!(list(&project)[0]["class"], "stopped");
}

#[test]
fn without_git_there_is_no_salvage() {
    let project = Project::bare();
    std::fs::create_dir(&project.root).expect("a folder");
    project.ok(&["init", "--isolation", "none", "--agents", "shell"]);
    let said = project.fails(2, &["salvage", "list"]);
    assert!(said.contains("without git nothing is kept in salvage"), "{said}");
}
