//! `pipeline deinit`: nothing of ours is left, nothing of a person's is gone.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

#[cfg(feature = "failpoints")]
use rustix::process::Signal;
use serde_json::Value;
use walkdir::WalkDir;

use crate::salvage::FAILING;
use crate::support::processes_of;
use crate::support::project::Project;

/// A repository without a pipeline.
fn plain() -> Project {
    let project = Project::bare();
    fs::create_dir(&project.root).expect("the project's folder");
    project.git(&["init", "-q", "-b", "main"]);
    project.write("README", "a project\n");
    project.commit("A beginning");
    project
}

/// Every file and folder of the repository with what it holds, but for objects, what git notes of
/// merges, and what the base and its log say.
fn files(project: &Project) -> BTreeMap<String, Vec<u8>> {
    let moving = ["objects", "logs", "index", "ORIG_HEAD"].map(|it| project.path(".git").join(it));
    let main = project.path(".git/refs/heads/main");
    let entries = WalkDir::new(&project.root).into_iter();
    let kept = entries.filter_entry(|entry| !moving.iter().any(|it| it == entry.path()));
    let read = |path: &Path| fs::read(path).unwrap_or_default();
    let name = |path: &Path| path.strip_prefix(&project.root).expect("below").display().to_string();
    kept.map(|entry| entry.expect("readable"))
        .filter(|entry| entry.path() != main && !name(entry.path()).starts_with("notes"))
        .map(|entry| (name(entry.path()), read(entry.path())))
        .collect()
}

/// Says which files are not the same.
fn assert_same(one: &BTreeMap<String, Vec<u8>>, other: &BTreeMap<String, Vec<u8>>) {
    let names: std::collections::BTreeSet<&String> = one.keys().chain(other.keys()).collect();
    let differing: Vec<_> = names.iter().filter(|it| one.get(**it) != other.get(**it)).collect();
    assert!(differing.is_empty(), "{differing:?}");
}

/// Nothing of ours is left.
fn assert_gone(project: &Project, before: &BTreeMap<String, Vec<u8>>) {
    let after = files(project);
    let names = |files: &BTreeMap<String, Vec<u8>>| files.keys().cloned().collect::<Vec<_>>();
    assert_eq!(names(&after), names(before));
    assert_same(&after, before);
    assert_eq!(project.git(&["status", "--porcelain"]), "");
    assert_eq!(project.git(&["for-each-ref", "--format=%(refname)"]), "refs/heads/main");
    assert_eq!(project.git(&["worktree", "list"]).lines().count(), 1);
    assert!(!project.path(".git/logs/refs/heads/pipeline").exists());
    assert_eq!(processes_of(&project.dir()), []);
    let sockets = fs::read_dir(project.dir().join("run/pipeline")).into_iter().flatten().count();
    assert_eq!(sockets, 0, "sockets of keepers");
}

/// Two tasks done by agents that `init` wrote.
fn run(project: &Project) {
    project.ok(&["init", "--agents", "shell"]);
    for id in ["ONE", "TWO"] {
        project.ok(&["task", "add", "a task", "--id", id]);
    }
    project.ok(&["monitor", "--until-idle"]);
    project.keepers_have_ended();
}

#[test]
fn after_a_run_the_repository_is_as_before_init_but_for_what_landed() {
    let project = plain();
    let before = files(&project);
    run(&project);
    let there = files(&project);
    let said = project.ok(&["deinit", "-n"]);
    // What is too long for a line goes on below it.
    let is_told = |line: &str| line.starts_with("would  ") || line.starts_with("         ");
    assert!(said.lines().all(is_told), "{said}");
    let is_whole = |line: &str| line.chars().count() <= 80 || line.split('`').count() == 3;
    assert!(said.lines().all(is_whole), "only a name by itself may be longer: {said}");
    assert_same(&files(&project), &there);
    let done = project.ok(&["deinit"]);
    assert_eq!(done.replace("done   ", "would  "), said);
    assert_gone(&project, &before);
    assert!(project.path("notes/ONE.md").is_file(), "what landed stays");
    let again = project.run(&["deinit"]);
    assert_eq!((again.code, again.out.as_str()), (Some(0), ""));
    assert!(again.err.contains("nothing of a pipeline is left"), "{}", again.err);
    project.fails(2, &["status"]);
    run(&project);
}

#[test]
fn an_exclude_file_that_was_not_there_goes_and_an_open_one_is_open_again() {
    let project = plain();
    let path = project.path(".git/info/exclude");
    fs::remove_dir_all(project.path(".git/info")).expect("its folder");
    let before = files(&project);
    project.ok(&["init", "--agents", "shell"]);
    project.ok(&["deinit"]);
    assert_gone(&project, &before);
    fs::create_dir(project.path(".git/info")).expect("a folder");
    fs::write(&path, "*.log\n*.bak").expect("writes");
    let before = files(&project);
    project.ok(&["init", "--agents", "shell"]);
    project.ok(&["init"]);
    project.ok(&["deinit"]);
    assert_gone(&project, &before);
}

#[test]
fn settings_that_a_person_committed_or_edited_stay() {
    let project = plain();
    project.ok(&["init", "--agents", "shell"]);
    let text = fs::read_to_string(project.path("pipeline.toml")).expect("its settings");
    project.write("pipeline.toml", &format!("{text}# mine\n"));
    assert!(project.run(&["deinit"]).err.contains("pipeline.toml stays: it is not as"));
    assert!(project.path("pipeline.toml").is_file());
    fs::remove_file(project.path("pipeline.toml")).expect("it was there");
    project.ok(&["init", "--agents", "shell"]);
    project.git(&["add", "pipeline.toml"]);
    assert!(project.run(&["deinit"]).err.contains("pipeline.toml stays: it is in your git"));
    assert!(project.path("pipeline.toml").is_file());
}

#[test]
fn a_folder_that_holds_something_else_stays_and_is_said_to() {
    let project = plain();
    let before = files(&project);
    project.ok(&["init", "--agents", "shell"]);
    let dot = fs::canonicalize(project.path(".pipeline")).expect("a folder");
    fs::create_dir_all(dot.join("worktrees/empty")).expect("a folder");
    fs::write(dot.join("mynote"), "mine\n").expect("writes");
    let gone = format!("remove the folder `{}`", dot.display());
    let stays = format!("`{}` stays: it holds `mynote`", dot.display());
    for args in [&["deinit", "-n", "--json"][..], &["deinit", "--json"]] {
        let told: serde_json::Value = serde_json::from_str(&project.ok(args)).expect("JSON");
        let lines = |name: &str| told[name].as_array().expect("an array").clone();
        assert!(!lines("steps").contains(&gone.as_str().into()), "{args:?}: {told}");
        assert_eq!(lines("kept"), [stays.as_str()], "{args:?}");
    }
    assert_eq!(project.git(&["status", "--porcelain"]), "?? .pipeline/");
    assert!(!dot.join("worktrees").exists(), "what is empty goes");
    fs::remove_dir_all(&dot).expect("it is there");
    assert_gone(&project, &before);
}

/// A task that landed, and one that failed with work on its branch and in salvage.
fn failed() -> Project {
    let project = Project::with(1, "[limits]\nattempts_per_stage = 1\n");
    project.write("tools/agent.sh", FAILING);
    project.commit("Agents that fail");
    for id in ["GOOD", "FAIL"] {
        project.ok(&["task", "add", "a task", "--id", id]);
    }
    project.fails(1, &["monitor", "--until-idle"]);
    project.keepers_have_ended();
    project
}

#[test]
fn unlanded_work_is_refused_and_forced_into_a_file() {
    let project = failed();
    let there = files(&project);
    let tip = |name: &str| project.git(&["rev-parse", name]);
    let (salvage, branch) = ("refs/pipeline/salvage/FAIL.impl.1", "refs/heads/pipeline/task/FAIL");
    let (left, done) = (tip(salvage), tip(branch));
    for args in [&["deinit"][..], &["deinit", "-n"]] {
        let said = project.fails(4, args);
        assert!(said.contains("2 refs hold work that has not landed"), "{said}");
        assert!(said.contains(salvage) && said.contains(branch), "{said}");
        assert!(said.contains("--force puts all into a file first"), "{said}");
        assert_same(&files(&project), &there);
    }
    let said = project.fails(4, &["deinit", "--keep-branches"]);
    assert!(said.contains("1 ref holds") && said.contains(salvage), "{said}");
    let document: Value =
        serde_json::from_str(&project.ok(&["deinit", "--force", "--json"])).expect("JSON");
    let bundle = document["bundle"].as_str().expect("a file").to_owned();
    assert!(document["steps"][0].as_str().is_some_and(|it| it.contains(&bundle)), "{document}");
    assert!(!project.path(".git/pipeline").exists() && !project.path(".pipeline").exists());
    assert_eq!(project.git(&["for-each-ref", "--format=%(refname)"]), "refs/heads/main");
    project.git(&["fetch", "-q", &bundle, "refs/*:refs/heads/unlanded/*"]);
    assert_eq!(tip("refs/heads/unlanded/pipeline/salvage/FAIL.impl.1"), left);
    assert_eq!(tip("refs/heads/unlanded/heads/pipeline/task/FAIL"), done);
}

#[test]
fn what_only_a_detached_head_or_a_stash_holds_has_not_landed() {
    let project = failed();
    project.ok(&["salvage", "drop", "FAIL.impl.1"]);
    let branch = "refs/heads/pipeline/task/FAIL";
    let done = project.git(&["rev-parse", branch]);
    let refused = || {
        let said = project.fails(4, &["deinit"]);
        assert!(said.contains("1 ref holds") && said.contains(branch), "{said}");
    };
    project.git(&["switch", "-q", "--detach", branch]);
    refused();
    project.write("README", "edited\n");
    project.git(&["stash", "-q"]);
    project.git(&["switch", "-q", "main"]);
    refused();
    project.git(&["switch", "-q", "--detach", branch]);
    let said = project.ok(&["deinit", "--force"]);
    let bundle = said.split('`').nth(1).expect("the file");
    project.git(&["switch", "-q", "main"]);
    project.git(&["stash", "drop", "-q"]);
    project.git(&["reflog", "expire", "--expire=now", "--all"]);
    project.git(&["gc", "-q", "--prune=now"]);
    project.git(&["fetch", "-q", bundle, "refs/*:refs/heads/unlanded/*"]);
    assert_eq!(project.git(&["rev-parse", "unlanded/heads/pipeline/task/FAIL"]), done);
}

#[test]
fn nothing_is_removed_while_another_process_writes_the_state() {
    let project = plain();
    run(&project);
    let before = project.git(&["for-each-ref"]);
    let path = project.path(".git/pipeline/lock");
    let lock = fs::OpenOptions::new().write(true).open(path).expect("the journal's lock is there");
    lock.lock().expect("locks");
    for args in [&["deinit"][..], &["deinit", "--force"]] {
        let said = project.fails(4, &[&["--lock-timeout", "100ms"], args].concat());
        assert!(said.contains("another process writes the state"), "{said}");
        assert_eq!(project.git(&["for-each-ref"]), before);
        assert!(project.path(".pipeline/state").exists());
    }
    drop(lock);
    project.ok(&["deinit"]);
}

#[test]
fn branches_are_kept_where_that_is_asked_for() {
    let project = failed();
    project.ok(&["salvage", "drop", "FAIL.impl.1"]);
    let branches = || project.git(&["for-each-ref", "refs/heads/pipeline"]);
    let before = branches();
    // What such a branch holds is not lost with salvage.
    project.git(&["update-ref", "refs/pipeline/salvage/HELD", "pipeline/task/FAIL"]);
    project.ok(&["deinit", "--keep-branches"]);
    assert_eq!(branches(), before);
    assert!(!project.path(".git/pipeline").exists() && !project.path(".pipeline").exists());
    assert!(!project.path(".git/worktrees").exists());
    // They go the next time, as work that has not landed does.
    let said = project.fails(4, &["deinit"]);
    assert!(said.contains("refs/heads/pipeline/task/FAIL"), "{said}");
    project.ok(&["deinit", "--force"]);
    assert_eq!(branches(), "");
    assert!(!project.path(".git/pipeline").exists());
}

#[test]
fn what_runs_is_refused_and_forced_to_end() {
    let project = Project::not_ahead(1);
    project.hold("hold");
    project.ok(&["task", "add", "a task", "--id", "RUNS"]);
    let mut monitor = project.monitor(&[]);
    project.until("the agent", || project.runs().len() == 1);
    assert!(project.run(&["deinit", "-n", "--force"]).err.contains("would be ended first"));
    for args in [&["deinit"][..], &["deinit", "-n"]] {
        let said = project.fails(4, args);
        assert!(said.contains("while a monitor runs") && said.contains("stop --now"), "{said}");
    }
    monitor.kill();
    let said = project.fails(4, &["deinit"]);
    assert!(said.contains("while agents are at work") && said.contains("RUNS.arch.1"), "{said}");
    fs::write(project.path(".pipeline/worktrees/architect/0/half"), "half").expect("writes");
    let said = project.ok(&["deinit", "--force"]);
    assert!(said.contains("put the work of 1 ref into"), "{said}");
    assert_eq!(processes_of(&project.dir()), []);
    assert!(!project.path(".git/pipeline").exists() && !project.path(".pipeline").exists());
    let bundle = said.split('`').nth(1).expect("the file");
    project.git(&["fetch", "-q", bundle, "refs/*:refs/heads/unlanded/*"]);
    let half = project.git(&["show", "unlanded/pipeline/salvage/RUNS.arch.1:half"]);
    assert_eq!(half, "half");
}

/// A task whose agent was left alone by its monitor, with work that is not saved.
#[cfg(feature = "failpoints")]
fn left_alone() -> Project {
    let project = Project::new(1);
    project.hold("hold");
    project.ok(&["task", "add", "a task", "--id", "RUNS"]);
    let mut monitor = project.monitor(&[]);
    project.until("the agent", || project.runs().len() == 1);
    monitor.kill();
    fs::write(project.path(".pipeline/worktrees/architect/0/half"), "half").expect("writes");
    project
}

/// It saves the work and takes all out.
#[cfg(feature = "failpoints")]
fn saves_and_takes_out(project: &Project) {
    let said = project.ok(&["deinit", "--force"]);
    let bundle = said.split('`').nth(1).expect("the file");
    project.git(&["fetch", "-q", bundle, "refs/*:refs/heads/unlanded/*"]);
    let half = project.git(&["show", "unlanded/pipeline/salvage/RUNS.arch.1:half"]);
    assert_eq!(half, "half");
    assert_eq!(processes_of(&project.dir()), []);
}

/// `PIPELINE_FAILPOINT` that acts while a file beside the project is there.
#[cfg(feature = "failpoints")]
fn at_save(project: &Project, action: &str) -> [(&'static str, String); 2] {
    project.hold("unsaved");
    let file = project.dir().join("unsaved");
    [
        ("PIPELINE_FAILPOINT", format!("git.copy_index={action}")),
        ("PIPELINE_FAILPOINT_WHILE", file.to_str().expect("UTF-8").to_owned()),
    ]
}

#[cfg(feature = "failpoints")]
#[test]
fn nothing_is_taken_out_when_the_ending_of_agents_is_interrupted() {
    let project = left_alone();
    let env = at_save(&project, "error");
    let env = env.each_ref().map(|(name, value)| (*name, value.as_str()));
    let mut deinit = project.start_with(&["deinit", "--force"], &env);
    let is_at_work = |line: &str| line.contains("agent.sh");
    project.until("the agent's end", || {
        !processes_of(&project.dir()).iter().any(|(_, line)| is_at_work(line))
    });
    deinit.signal(Signal::INT);
    assert_eq!(deinit.end(&project), Some(130), "{}", deinit.said());
    assert!(deinit.said().contains("interrupted before all agents had ended"), "{}", deinit.said());
    project.release("unsaved");
    let half = project.path(".pipeline/worktrees/architect/0/half");
    assert_eq!(fs::read_to_string(half).expect("it is there"), "half");
    saves_and_takes_out(&project);
}

#[cfg(feature = "failpoints")]
#[test]
fn the_work_is_saved_first_when_the_monitor_dies_before_it_saved_it() {
    let project = left_alone();
    let env = at_save(&project, "kill");
    let env = env.each_ref().map(|(name, value)| (*name, value.as_str()));
    let mut monitor = project.start_with(&["monitor"], &env);
    monitor.until_said("open task");
    saves_and_takes_out(&project);
    assert!(monitor.end(&project).is_none(), "it was killed");
}

#[test]
fn what_a_person_has_open_is_never_forced_away() {
    let project = failed();
    let path = project.ok(&["salvage", "restore", "FAIL.impl.1"]);
    let mine = Path::new(path.trim_end()).join("mine");
    fs::write(&mine, "mine").expect("writes");
    let said = project.fails(4, &["deinit", "--force"]);
    assert!(
        said.contains("holds what is not committed") && said.contains("worktree move"),
        "{said}"
    );
    fs::remove_file(&mine).expect("it was there");
    let at = path.trim_end();
    project.git(&["-C", at, "switch", "-q", "--detach"]);
    project.git(&["-C", at, "commit", "-q", "--allow-empty", "-m", "Mine"]);
    let said = project.fails(4, &["deinit", "--force"]);
    assert!(
        said.contains("commits that no branch of yours has") && said.contains("switch -c"),
        "{said}"
    );
    project.git(&["-C", at, "switch", "-q", "-C", "salvage/FAIL.impl.1"]);
    let elsewhere = project.dir().join("elsewhere");
    let place = elsewhere.to_str().expect("UTF-8");
    project.git(&["worktree", "add", "-q", place, "pipeline/task/FAIL"]);
    let said = project.fails(4, &["deinit", "--force"]);
    assert!(said.contains("`pipeline/task/FAIL` is checked out at"), "{said}");
    project.git(&["-C", place, "switch", "-q", "-c", "mine"]);
    // The person's branches hold all of it now.
    let said = project.ok(&["deinit"]);
    assert!(!said.contains("bundle"), "{said}");
    assert!(elsewhere.join("FAIL.txt").is_file());
    assert!(project.git(&["branch", "--list", "salvage/FAIL.impl.1"]).contains("FAIL.impl.1"));
}

/// A task whose work git could not save: a filter that it must run is not there.
fn unsaved() -> Project {
    let settings = "[worktree]\nkeep_finished = \"0s\"\n[limits]\ninfrastructure_retries = 0\n";
    let project = Project::with(1, settings);
    project.write(".gitattributes", "*.bin filter=lost\n");
    project.write("tools/agent.sh", "date >new.bin\ndate >code.txt\n");
    project.commit("Files behind a filter");
    project.git(&["config", "filter.lost.clean", "no-such-program"]);
    project.git(&["config", "filter.lost.required", "true"]);
    project.ok(&["task", "add", "a task", "--id", "T"]);
    project.fails(1, &["monitor", "--until-idle"]);
    project.keepers_have_ended();
    project
}

#[test]
fn work_that_could_not_be_saved_stays_in_its_worktree() {
    let project = unsaved();
    assert_eq!(project.git(&["for-each-ref", "refs/pipeline/salvage/"]), "");
    let left = WalkDir::new(project.path(".pipeline/worktrees")).into_iter().flatten();
    let code = left.map(|it| it.into_path()).find(|path| path.ends_with("code.txt"));
    let code = code.expect("the agent wrote it");
    for args in [&["deinit"][..], &["deinit", "-n"], &["deinit", "--force"]] {
        let said = project.fails(4, args);
        assert!(said.contains("alone holds what `T.arch.1` left"), "{said}");
        assert!(said.contains("git worktree remove --force"), "{said}");
    }
    project.ok(&["task", "cancel", "T"]);
    project.ok(&["doctor", "--repair"]);
    assert!(code.is_file(), "cleaning spares it");
    project.fails(4, &["deinit"]);
    let slot = code.parent().expect("its worktree").to_str().expect("UTF-8").to_owned();
    project.git(&["worktree", "remove", "--force", &slot]);
    project.ok(&["deinit"]);
    assert!(!project.path(".pipeline").exists());
}

#[test]
fn what_a_person_did_in_a_worktree_of_ours_is_in_the_way() {
    let project = Project::not_ahead(1);
    project.ok(&["task", "add", "a task", "--id", "T"]);
    project.idle();
    let slot = project.path(".pipeline/worktrees/implementation/0");
    let git = |args: &[&str]| project.git(&[&["-C", slot.to_str().expect("UTF-8")], args].concat());
    let refused = || {
        for args in [&["deinit"][..], &["deinit", "-n"], &["deinit", "--force"]] {
            let said = project.fails(4, args);
            assert!(said.contains("worktrees/implementation/0` holds what came after"), "{said}");
            assert!(said.contains("git worktree remove --force"), "{said}");
        }
    };
    fs::write(slot.join("mine.txt"), "mine").expect("writes");
    git(&["add", "mine.txt"]);
    git(&["commit", "-q", "-m", "Mine"]);
    refused();
    git(&["branch", "mine"]);
    fs::write(slot.join("more.txt"), "more").expect("writes");
    refused();
    fs::remove_file(slot.join("more.txt")).expect("it was there");
    project.ok(&["deinit"]);
    assert!(!slot.exists());
    assert_eq!(project.git(&["show", "mine:mine.txt"]), "mine");
}

#[test]
fn a_persons_worktree_with_submodules_goes_unless_they_are_filled() {
    let project = Project::new(1);
    let at = project.git(&["rev-parse", "HEAD"]);
    project.git(&["update-index", "--add", "--cacheinfo", &format!("160000,{at},sub")]);
    fs::create_dir(project.path("sub")).expect("where it would be");
    project.git(&["commit", "-q", "-m", "A submodule"]);
    project.ok(&["task", "add", "a task", "--id", "A"]);
    let path = project.ok(&["task", "take", "A"]);
    let sub = Path::new(path.trim_end()).join("sub");
    let sub = sub.to_str().expect("UTF-8");
    let root = project.root.to_str().expect("UTF-8");
    project.git(&["clone", "-q", root, sub]);
    project.git(&["-C", sub, "checkout", "-q", &at]);
    let there = files(&project);
    for args in [&["deinit"][..], &["deinit", "--force"]] {
        let said = project.fails(4, args);
        assert!(said.contains("holds submodules") && said.contains("remove --force"), "{said}");
    }
    assert_same(&files(&project), &there);
    fs::remove_dir_all(sub).expect("it was filled");
    fs::create_dir(sub).expect("as git leaves it");
    project.ok(&["deinit"]);
    assert!(!project.path(".pipeline").exists());
}

#[test]
fn a_folder_of_the_persons_in_our_place_stays() {
    let project = plain();
    project.write(".pipeline/state/x", "mine\n");
    project.git(&["add", "-f", ".pipeline/state/x"]);
    project.git(&["commit", "-q", "-m", "Mine"]);
    assert!(project.fails(4, &["init"]).contains("is in the way"));
    project.run(&["deinit"]);
    assert_eq!(project.git(&["status", "--porcelain", "--untracked-files=no"]), "");
    assert!(project.path(".pipeline/state/x").is_file());
}

#[test]
fn ignored_files_in_a_persons_worktree_are_in_the_way() {
    let project = Project::new(1);
    project.write(".gitignore", "*.env\nbuilt/\n");
    project.write("pipeline.toml", &kept(&project));
    project.commit("What is ignored");
    project.ok(&["task", "add", "a task", "--id", "A"]);
    let path = project.ok(&["task", "take", "A"]);
    let place = Path::new(path.trim_end());
    fs::create_dir(place.join("built")).expect("a folder that settings keep");
    fs::write(place.join("built/x"), "x").expect("writes");
    fs::write(place.join("local.env"), "mine").expect("writes");
    project.ok(&["monitor", "--once"]);
    for args in [&["deinit"][..], &["deinit", "--force"]] {
        let said = project.fails(4, args);
        assert!(said.contains("holds `local.env`, which git ignores"), "{said}");
        assert!(said.contains("worktree move"), "{said}");
    }
    assert!(place.join("local.env").is_file());
    fs::remove_file(place.join("local.env")).expect("it was there");
    project.ok(&["deinit"]);
    assert!(!project.path(".pipeline").exists());
}

/// The settings, with a folder that is kept.
fn kept(project: &Project) -> String {
    let text = fs::read_to_string(project.path("pipeline.toml")).expect("its settings");
    format!("[worktree]\nkeep = [\"built\"]\n{text}")
}

#[test]
fn without_git_the_folder_is_as_before() {
    let project = Project::bare();
    fs::create_dir(&project.root).expect("a folder");
    project.write("README", "a project\n");
    project.ok(&["init", "--isolation", "none", "--agents", "shell"]);
    project.ok(&["task", "add", "a task", "--id", "ONE"]);
    project.ok(&["monitor", "--until-idle"]);
    project.ok(&["deinit"]);
    let mut names: Vec<_> = fs::read_dir(&project.root)
        .expect("it is there")
        .map(|entry| entry.expect("readable").file_name().into_string().expect("UTF-8"))
        .collect();
    names.sort();
    assert_eq!(names, ["README", "notes"]);
    assert!(project.fails(2, &["deinit"]).contains("there is no pipeline in"));
}

/// Where there is a git all the same, what is kept there is not committed with the folder.
#[test]
fn without_git_in_a_repository_nothing_of_ours_gets_into_a_commit() {
    let project = plain();
    project.write("part [1]/README", "a part\n");
    project.commit("A part");
    for folder in [".", "part [1]"] {
        let before = files(&project);
        let none = ["-C", folder, "init", "--isolation", "none", "--agents", "shell"];
        project.ok(&none);
        project.ok(&none);
        project.ok(&["-C", folder, "task", "add", "a task"]);
        let seen = project.git(&["status", "--porcelain", "-z", "-uall"]);
        let config = Path::new(folder).join("pipeline.toml");
        let config = config.strip_prefix(".").unwrap_or(&config).display();
        assert_eq!(seen, format!("?? {config}\0"), "{folder}");
        project.ok(&["-C", folder, "deinit"]);
        assert_same(&files(&project), &before);
    }
    // One that has no commit yet.
    let young = project.path("young");
    fs::create_dir(&young).expect("a folder");
    let at = young.to_str().expect("UTF-8");
    project.git(&["-C", at, "init", "-q"]);
    project.ok(&["-C", at, "init", "--isolation", "none", "--agents", "shell"]);
    assert_eq!(project.git(&["-C", at, "status", "--porcelain", "-uall"]), "?? pipeline.toml");
}

/// Copies a folder with all in it, links as links.
#[cfg(feature = "failpoints")]
fn copy(from: &Path, to: &Path) {
    let mut command = pipeline::sys::child::command("cp", Path::new("/"));
    assert!(command.arg("-a").args([from, to]).status().expect("it starts").success());
}

/// Killed, or refused a write, at each point; then run again.
#[cfg(feature = "failpoints")]
#[test]
fn killed_anywhere_it_goes_on_when_it_is_run_again() {
    let project = plain();
    let before = files(&project);
    run(&project);
    // A worktree of a person, without work in it, and a socket of a killed keeper.
    project.git(&["update-ref", "refs/pipeline/salvage/ONE.impl.1", "main"]);
    let restored = project.path(".pipeline/restored/x");
    project.git(&["worktree", "add", "-q", "--detach", restored.to_str().expect("UTF-8")]);
    let kept = project.dir().join("kept");
    copy(&project.root, &kept);
    let log = project.dir().join("points");
    let mut logged = project.command(&project.root, &["deinit"]);
    let logged = logged.env("PIPELINE_FAILPOINT_LOG", &log).output().expect("it starts");
    assert!(logged.status.success(), "{}", String::from_utf8_lossy(&logged.stderr));
    let mut passes: BTreeMap<String, usize> = BTreeMap::new();
    for name in fs::read_to_string(&log).expect("points").lines() {
        *passes.entry(name.to_owned()).or_default() += 1;
    }
    assert!(passes.len() > 15 && passes.contains_key("deinit.rename"), "{passes:?}");
    let mut killed = 0;
    for (name, count) in passes {
        let strikes = [(1, "kill"), (1, "error"), (count, "kill")];
        for (pass, how) in strikes.into_iter().take(if count == 1 { 2 } else { 3 }) {
            fs::remove_dir_all(&project.root).expect("it is there");
            copy(&kept, &project.root);
            let mut command = project.command(&project.root, &["deinit"]);
            let plan = format!("{name}:{pass}={how}");
            let ended = command.env("PIPELINE_FAILPOINT", &plan).output().expect("it starts");
            killed += usize::from(!ended.status.success());
            let done = project.run(&["deinit"]);
            assert_eq!(done.code, Some(0), "after {plan}: {}{}", done.out, done.err);
            assert_gone(&project, &before);
        }
    }
    assert!(killed > 30, "only {killed} were stopped");
}
