//! What finished tasks leave goes after `keep_finished`; work that has not landed stays.

use std::fs;
use std::path::PathBuf;

use crate::salvage::FAILING;
use crate::support::project::{Project, TWELVE};

/// Names in a folder of the state, sorted; those of checks of the base left out.
fn names(project: &Project, dir: &str) -> Vec<String> {
    let entries = fs::read_dir(project.path(".git/pipeline").join(dir)).expect("it is there");
    let name = |entry: std::io::Result<fs::DirEntry>| entry.expect("readable").file_name();
    let mut names: Vec<String> =
        entries.map(|entry| name(entry).into_string().expect("UTF-8")).collect();
    names.retain(|name| !name.starts_with("base."));
    names.sort();
    names
}

fn refs(project: &Project) -> Vec<String> {
    let text = project.git(&[
        "for-each-ref",
        "--format=%(refname)",
        "refs/heads/pipeline/task",
        "refs/pipeline",
    ]);
    text.lines().map(str::to_owned).collect()
}

fn slots(project: &Project) -> usize {
    project.git(&["worktree", "list"]).lines().count() - 1
}

/// Has tasks that landed, that failed, that were cancelled with work and without.
fn mixed(settings: &str) -> Project {
    let more = "[limits]\nattempts_per_stage = 1\n[scheduler]\nprefetch = 0\n";
    let project = Project::with(1, &format!("{settings}{more}"));
    project.write("tools/agent.sh", FAILING);
    project.commit("Agents that fail");
    for id in ["GOOD", "FAIL", "FOUL", "GONE"] {
        project.ok(&["task", "add", "a task", "--id", id]);
    }
    project.ok(&["task", "hold", "GONE"]);
    project.fails(1, &["monitor", "--until-idle"]);
    project.ok(&["task", "cancel", "FOUL", "GONE"]);
    project.keepers_have_ended();
    project
}

const NOW: &str = "[worktree]\nkeep_finished = \"0s\"\n";
const OFTEN: &str =
    "[monitor]\npoll = { busy = \"100ms\", normal = \"100ms\", idle = \"100ms\" }\n";

/// Has what finished tasks leave go at once from now on.
fn clean_now(project: &Project) {
    let text = fs::read_to_string(project.path("pipeline.toml")).expect("its settings");
    project.write("pipeline.toml", &format!("{NOW}{text}"));
}

/// The same, of which all may go by now, and no monitor has cleaned up anything.
fn due() -> Project {
    let project = mixed("");
    project.ok(&["rollout", "set", "shadow"]);
    clean_now(&project);
    project.ok(&["monitor", "--once"]);
    project.ok(&["rollout", "set", "production"]);
    project.keepers_have_ended();
    project
}

/// Waits until the monitor is done with all that it could find by now.
fn passes(project: &Project) {
    for name in ["base.check.a.log", "base.check.b.log"] {
        let path = project.state_dir().join("logs").join(name);
        fs::write(&path, "").expect("a log that may go");
        project.until("it to be removed", || !path.exists());
    }
}

/// The worktrees of an agent, below a folder of the project.
fn slots_in(project: &Project, dir: &str) -> Vec<PathBuf> {
    let entries = fs::read_dir(project.path(dir)).into_iter().flatten();
    entries.map(|entry| entry.expect("readable").path()).collect()
}

/// Holds a task at its implementation while `meddle` is done and the monitor cleans up.
fn cleaned_under_an_attempt(project: &Project, meddle: impl FnOnce()) {
    project.hold("hold.implementation");
    project.ok(&["task", "add", "a task", "--id", "A"]);
    let mut monitor = project.monitor(&["--until-idle"]);
    project.until("the implementation", || project.runs().iter().any(|id| id == "A.impl.1"));
    let [slot] = &slots_in(project, ".pipeline/worktrees/implementation")[..] else {
        panic!("one worktree: {}", project.git(&["worktree", "list"]));
    };
    meddle();
    passes(project);
    assert!(slot.join(".git").exists(), "it is at work there");
    project.release("hold.implementation");
    assert_eq!(monitor.end(project), Some(0), "{}", project.story());
    assert_eq!(project.runs().len(), 4, "{:?}", project.runs());
}

/// What may go has gone, and nothing else.
fn assert_cleaned(project: &Project) {
    let is_of_failed = |name: &String| name.starts_with("FAIL.");
    for dir in ["attempts", "logs"] {
        let names = names(project, dir);
        assert!(names.iter().all(is_of_failed) && names.len() == 3, "{dir}: {names:?}");
    }
    assert_eq!(
        refs(project),
        [
            "refs/heads/pipeline/task/FAIL",
            "refs/heads/pipeline/task/FOUL",
            "refs/pipeline/salvage/FAIL.impl.1",
            "refs/pipeline/salvage/FOUL.impl.1",
        ]
    );
    // The task that needs a person may go on in its worktrees.
    assert!((1..=3).contains(&slots(project)), "{}", project.git(&["worktree", "list"]));
    assert_eq!(project.git(&["show", "main:GOOD.txt"]).lines().count(), 4);
    assert_eq!(project.task("GOOD"), "completed");
}

#[test]
fn the_monitor_cleans_up_after_finished_tasks_and_leaves_unlanded_work() {
    let project = mixed(NOW);
    project.ok(&["monitor", "--once"]);
    project.ok(&["monitor", "--once"]);
    assert_cleaned(&project);
    project.ok(&["doctor"]);
    let shown = project.ok(&["task", "show", "GOOD"]);
    assert!(shown.contains("completed"), "{shown}");
    let log = project.run(&["task", "log", "GOOD"]);
    assert_eq!((log.code, log.out.as_str()), (Some(0), ""));
    assert!(log.err.contains("its log is no longer kept"), "{}", log.err);
    // It can be taken up again, with all that it needs made anew.
    project.write("tools/agent.sh", "echo x >>fixed.$PIPELINE_TASK_ID\n");
    project.ok(&["task", "retry", "FAIL"]);
    project.ok(&["monitor", "--until-idle"]);
    assert_eq!(project.task("FAIL"), "completed");
}

#[test]
fn doctor_cleans_up_too_and_says_so_first() {
    let project = due();
    let before = (refs(&project), names(&project, "attempts"), slots(&project));
    let said = project.ok(&["doctor", "--repair", "-n"]);
    assert!(said.contains("remove `refs/heads/pipeline/task/GOOD`"), "{said}");
    assert!(said.contains("whose task finished long ago"), "{said}");
    assert_eq!((refs(&project), names(&project, "attempts"), slots(&project)), before);
    project.ok(&["doctor", "--repair"]);
    assert_cleaned(&project);
    assert!(project.ok(&["doctor", "--repair"]).contains("nothing to repair"));
}

#[test]
fn nothing_goes_before_its_time() {
    let project = mixed("");
    let before =
        (refs(&project), names(&project, "attempts"), names(&project, "logs"), slots(&project));
    assert!(before.0.contains(&"refs/heads/pipeline/task/GOOD".to_owned()));
    project.ok(&["monitor", "--once"]);
    project.ok(&["doctor", "--repair"]);
    let after =
        (refs(&project), names(&project, "attempts"), names(&project, "logs"), slots(&project));
    assert_eq!(after, before);
}

#[test]
fn a_branch_that_a_person_has_checked_out_stays() {
    let project = due();
    let place = project.dir().join("mine");
    let place = place.to_str().expect("UTF-8");
    project.git(&["worktree", "add", "-q", place, "pipeline/task/GOOD"]);
    project.ok(&["monitor", "--once"]);
    assert!(refs(&project).contains(&"refs/heads/pipeline/task/GOOD".to_owned()));
    assert!(project.git(&["worktree", "list"]).contains("/mine "));
}

#[test]
fn a_branch_goes_once_nobody_has_it_checked_out_any_more() {
    let project = mixed("");
    let place = project.dir().join("mine");
    let place = place.to_str().expect("UTF-8");
    project.git(&["worktree", "add", "-q", place, "pipeline/task/GOOD"]);
    let text = fs::read_to_string(project.path("pipeline.toml")).expect("its settings");
    project.write("pipeline.toml", &format!("{NOW}{OFTEN}{text}"));
    let monitor = project.monitor(&[]);
    passes(&project);
    let is_there = || refs(&project).contains(&"refs/heads/pipeline/task/GOOD".to_owned());
    assert!(is_there());
    project.git(&["worktree", "remove", place]);
    project.until("its branch to go", || !is_there());
    monitor.signal(rustix::process::Signal::TERM);
}

#[test]
fn in_shadow_nothing_goes() {
    let project = mixed("");
    let all = |project: &Project| (refs(project), names(project, "attempts"), slots(project));
    let before = all(&project);
    project.ok(&["rollout", "set", "shadow"]);
    clean_now(&project);
    project.ok(&["monitor", "--once"]);
    assert_eq!(all(&project), before);
}

#[test]
fn worktrees_behind_a_link_stay_under_their_attempts() {
    let project = Project::with(1, &format!("{NOW}{OFTEN}"));
    let near = project.path(".pipeline/worktrees");
    let far = project.dir().join("far");
    fs::create_dir(&far).expect("a folder");
    if near.exists() {
        fs::remove_dir(&near).expect("it is empty");
    }
    fs::create_dir_all(project.path(".pipeline")).expect("its folder");
    std::os::unix::fs::symlink(&far, &near).expect("a link");
    cleaned_under_an_attempt(&project, || {});
    assert_eq!(project.count("completed"), 1);
}

#[test]
fn worktrees_stay_under_their_attempts_when_new_ones_go_elsewhere() {
    let project = Project::with(1, &format!("{NOW}{OFTEN}"));
    cleaned_under_an_attempt(&project, || {
        let text = fs::read_to_string(project.path("pipeline.toml")).expect("its settings");
        let moved = text.replace("[worktree]\n", "[worktree]\ndir = \".pipeline/others\"\n");
        let adopted = || project.ok(&["log", "--json"]).matches("settings_adopted").count();
        let before = adopted();
        project.write("pipeline.toml", &moved);
        project.until("it to be adopted", || adopted() > before);
    });
}

#[test]
fn a_worktree_with_a_commit_of_a_person_stays_and_one_that_cannot_be_read() {
    let project = mixed("");
    let slot = |agent: &str| slots_in(&project, &format!(".pipeline/worktrees/{agent}"))[0].clone();
    let (mine, broken) = (slot("supervisor"), slot("landing"));
    let git = |dir: &PathBuf, args: &[&str]| {
        project.git(&[&["-C", dir.to_str().expect("UTF-8")], args].concat())
    };
    git(&mine, &["commit", "-q", "--allow-empty", "-m", "Mine"]);
    let commit = git(&mine, &["rev-parse", "HEAD"]);
    fs::write(git(&broken, &["rev-parse", "--git-path", "index"]), "none").expect("its index");
    clean_now(&project);
    project.ok(&["monitor", "--once"]);
    project.ok(&["doctor", "--repair"]);
    assert_eq!(git(&mine, &["rev-parse", "HEAD"]), commit);
    assert!(broken.join(".git").exists());
    assert_eq!(slots_in(&project, ".pipeline/worktrees/base").len(), 0, "others go");
    project.git(&["branch", "mine", &commit]);
    project.ok(&["monitor", "--once"]);
    assert!(!mine.exists(), "the branch holds it");
}

#[test]
fn what_cannot_be_removed_keeps_a_repair_from_nothing_else() {
    let project = due();
    let stuck = project.state_dir().join("attempts/GOOD.arch.1");
    fs::remove_dir_all(&stuck).expect("it was there");
    fs::write(&stuck, "no folder").expect("a file in its place");
    project.git(&["update-ref", "refs/pipeline/pending/GOOD", "main"]);
    let said = project.fails(1, &["doctor", "--repair"]);
    assert!(said.contains("cannot remove `") && said.contains("attempts/GOOD.arch.1`"), "{said}");
    assert!(
        !refs(&project)
            .iter()
            .any(|name| name.starts_with("refs/pipeline/pending/") || name.ends_with("/GOOD"))
    );
    fs::remove_file(&stuck).expect("it was there");
    project.ok(&["doctor", "--repair"]);
}

#[test]
fn a_worktree_with_a_file_of_a_person_stays() {
    let project = mixed("");
    let slots = || slots_in(&project, ".pipeline/worktrees/supervisor");
    assert!(!slots().is_empty(), "none is cleaned away yet");
    let mine = slots()[0].join("notes/mine.txt");
    fs::create_dir(mine.parent().expect("a folder")).expect("a folder of a person's");
    fs::write(&mine, "mine").expect("writes");
    clean_now(&project);
    // One that ends does not wait for what it has not begun to remove.
    let left = |count| {
        project.until("the others to go", || {
            project.ok(&["monitor", "--once"]);
            slots().len() == count
        });
    };
    left(1);
    assert_eq!(fs::read_to_string(&mine).expect("it stays"), "mine");
    fs::remove_file(&mine).expect("it was there");
    left(0);
}

#[test]
fn cleaning_all_the_time_disturbs_no_attempt() {
    let project = Project::with(2, &format!("{NOW}{OFTEN}"));
    project.import(TWELVE);
    project.ok(&["monitor", "--until-idle"]);
    assert_eq!(project.count("completed"), 12);
    let runs = project.runs();
    assert_eq!(runs.len(), 48, "no attempt was begun twice: {runs:?}");
}

/// Killed at each removal, it is gone on with.
#[cfg(feature = "failpoints")]
#[test]
fn a_cleaning_that_was_killed_is_gone_on_with() {
    let project = due();
    for point in
        ["finished.remove:1", "finished.remove:5", "git.update_ref:1", "git.remove_admin:1"]
    {
        let mut command = project.command(&project.root, &["doctor", "--repair"]);
        let ended = command.env("PIPELINE_FAILPOINT", point).output().expect("it starts");
        assert!(!ended.status.success(), "{point} was not passed");
    }
    project.ok(&["doctor", "--repair"]);
    assert_cleaned(&project);
}
