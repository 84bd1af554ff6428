//! The person's own checkout, and where the repository lies.

use std::ffi::OsStr;
use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use super::{ONCE_EACH, ONE, TWO, assert_ends_landed, held};
use crate::support::project::Project;

#[test]
fn edits_and_files_of_a_person_survive_a_run() {
    let project = Project::new(1);
    project.write(".git/info/exclude", "/.pipeline/\n*.log\n");
    project.import(TWO);
    project.write("README", "a project, edited\n");
    project.write("notes.txt", "untracked\n");
    project.write("architect/mine.txt", "untracked, beside what lands\n");
    project.write("build.log", "ignored\n");
    project.write("staged.txt", "staged\n");
    project.git(&["add", "staged.txt"]);
    let before = project.git(&["status", "--porcelain", "--ignored"]);
    project.ok(&["monitor", "--until-idle", "--timeout", "240s"]);
    project.assert_landed(TWO);
    assert_eq!(project.git(&["rev-parse", "main"]), project.git(&["rev-parse", "pipeline/landed"]));
    let after = project.git(&["status", "--porcelain", "--ignored"]);
    assert_eq!(after.replace("architect/mine.txt", "architect/"), before);
    for (name, text) in [
        ("README", "a project, edited\n"),
        ("notes.txt", "untracked\n"),
        ("architect/mine.txt", "untracked, beside what lands\n"),
        ("build.log", "ignored\n"),
        ("staged.txt", "staged\n"),
    ] {
        assert_eq!(fs::read_to_string(project.path(name)).expect(name), text);
    }
}

#[test]
fn another_branch_in_the_checkout_stays_and_the_base_follows() {
    let project = Project::new(1);
    let mut monitor = held(&project, TWO);
    project.git(&["checkout", "-q", "-b", "mine"]);
    project.write("mine.txt", "mine\n");
    project.commit("Mine");
    let mine = project.git(&["rev-parse", "HEAD"]);
    project.release("hold.implementation");
    assert_ends_landed(&project, &mut monitor, TWO);
    assert_eq!(project.git(&["rev-parse", "HEAD"]), mine);
    assert_eq!(project.git(&["symbolic-ref", "HEAD"]), "refs/heads/mine");
    assert!(!project.path("architect").exists());
}

#[test]
fn what_is_told_to_type_works_and_is_seen_without_a_monitor() {
    let project = Project::new(1);
    project.write("architect", "mine\n");
    project.import(ONE);
    project.ok(&["monitor", "--until-idle", "--timeout", "240s"]);
    let landing = project.status()["landing"].clone();
    assert_eq!(landing["behind"], 1, "{landing}");
    let command = landing["next"].as_str().expect("a command");
    let lines = project.ok(&["status"]);
    assert!(lines.contains("what is not tracked is in the way"), "{lines}");
    assert!(lines.contains(&format!("\n  {command}\n")), "{lines}");
    assert!(project.run(&["doctor"]).out.contains("does not follow"));

    let done = project.shell(command);
    assert_eq!(done.code, Some(0), "{command}: {}", done.err);
    assert_eq!(fs::read_to_string(project.path("architect.aside-1")).expect("it"), "mine\n");
    assert_eq!(project.git(&["rev-parse", "main"]), project.git(&["rev-parse", "pipeline/landed"]));
    // While a step of the base is not over, what it may have left must be told.
    project.write(".git/pipeline/git/base-follow", "");
    assert!(project.status()["landing"]["why"].is_string());
    fs::remove_file(project.path(".git/pipeline/git/base-follow")).expect("it is there");
    let landing = project.status()["landing"].clone();
    assert_eq!((&landing["behind"], landing["why"].is_null()), (&0.into(), true), "{landing}");
    assert!(!project.run(&["doctor"]).out.contains("does not follow"));
}

#[test]
fn what_is_in_the_way_no_longer_is_not_told_once_the_monitor_has_ended() {
    let project = Project::new(1);
    project.write("architect/A.txt", "before\n");
    project.commit("Before");
    project.write("architect/A.txt", "mine\n");
    project.import(ONE);
    project.ok(&["monitor", "--until-idle", "--timeout", "240s"]);
    let told = |what: &str, next: &str| {
        let landing = project.status()["landing"].clone();
        let (why, command) = (landing["why"].as_str(), landing["next"].as_str());
        assert!(why.is_some_and(|why| why.contains(what)), "{what}: {landing}");
        assert!(command.is_some_and(|it| it.contains(next)), "{next}: {landing}");
        for args in [&["doctor"][..], &["report"]] {
            let said = project.run(args).out.replace('\\', "");
            assert!(said.contains(what) && said.contains(next), "{what}, {next}: {said}");
        }
    };
    let stands = || told("edits of `architect/A.txt` are in the way", "git stash push");
    let is_gone = || told("what was in its way is gone", "pipeline monitor");
    stands();
    project.git(&["stash", "push", "-q"]);
    is_gone();
    // Whatever is in the way by now, it is not gone.
    project.git(&["branch", "side", "main~1"]);
    project.git(&["checkout", "-q", "side"]);
    project.write("side.txt", "side\n");
    project.commit("Side");
    project.git(&["checkout", "-q", "main"]);
    project.git(&["merge", "-q", "--no-ff", "--no-commit", "side"]);
    stands();
    project.git(&["merge", "--abort"]);
    is_gone();
    project.git(&["stash", "pop", "-q"]);
    stands();
    // The command on record fast-forwards, which is over with a commit.
    project.git(&["stash", "push", "-q"]);
    project.git(&["merge", "-q", "--no-ff", "--no-edit", "side"]);
    told("it has moved on since", "pipeline monitor");
    project.idle();
    project.assert_landed(ONE);
    assert!(project.status()["landing"]["why"].is_null());
}

#[test]
fn a_commit_in_a_checkout_of_the_landing_branch_takes_nothing_back() {
    let project = Project::new(1);
    let until_idle = || project.ok(&["monitor", "--until-idle", "--timeout", "240s"]);
    project.import(ONE);
    until_idle();
    let look = project.dir().join("look");
    let dir = look.to_str().expect("a path");
    project.git(&["worktree", "add", "-q", dir, "pipeline/landed"]);
    project.import(&[("B", &[])]);
    until_idle();
    assert_eq!(project.git(&["-C", dir, "status", "--porcelain"]), "");
    assert!(look.join("architect/B.txt").exists());
    fs::write(look.join("README"), "reviewed\n").expect("written");
    project.git(&["-C", dir, "commit", "-qam", "Reviewed"]);

    // An edit where the next task lands: it waits for the person, and says what to type.
    fs::create_dir_all(look.join("architect")).expect("a folder");
    fs::write(look.join("architect/C.txt"), "mine\n").expect("written");
    project.import(&[("C", &[])]);
    let mut monitor = project.monitor(&["--until-idle"]);
    project.until("the reason", || project.ok(&["status"]).contains("cannot move on"));
    assert_eq!(fs::read_to_string(look.join("architect/C.txt")).expect("there"), "mine\n");
    fs::remove_file(look.join("architect/C.txt")).expect("it is there");
    assert_eq!(monitor.end(&project), Some(0), "{}{}", monitor.said(), project.story());
    assert_eq!(project.git(&["-C", dir, "status", "--porcelain"]), "");
    for name in ["A", "B", "C"] {
        assert!(project.path(&format!("architect/{name}.txt")).exists(), "{name}");
    }
    assert_eq!(fs::read_to_string(project.path("README")).expect("there"), "reviewed\n");
}

#[test]
fn a_pilot_lands_in_the_main_checkout_of_the_landing_branch() {
    let project = Project::new(1);
    project.ok(&["rollout", "set", "pilot"]);
    let until_idle = || project.ok(&["monitor", "--until-idle", "--timeout", "240s"]);
    project.import(ONE);
    until_idle();
    project.git(&["switch", "-q", "pipeline/landed"]);
    project.import(&[("B", &[])]);
    until_idle();
    assert_eq!(project.git(&["status", "--porcelain"]), "");
    assert!(project.path("architect/B.txt").exists());
    // No agent is blamed for what landed there.
    let log = project.log();
    assert!(!log.iter().any(|it| it["found"].to_string().contains("architect/")), "{log:#?}");
}

#[test]
fn a_repository_moved_while_nothing_runs_goes_on() {
    let mut project = Project::new(1);
    let mut monitor = held(&project, TWO);
    project.write(".pipeline/worktrees/implementation/0/half.txt", "half done\n");
    project.ok(&["stop", "--now"]);
    assert_eq!(monitor.end(&project), Some(0));
    let to = project.dir().join("moved");
    fs::rename(&project.root, &to).expect("a folder can be moved");
    project.root = to;
    project.release("hold.implementation");
    let mut monitor = project.monitor(&["--until-idle"]);
    assert_ends_landed(&project, &mut monitor, TWO);
    assert!(!project.dir().join("project").exists());
}

#[test]
fn a_repository_moved_under_its_agents_loses_no_task() {
    let mut project = Project::new(1);
    let mut monitor = held(&project, ONE);
    monitor.kill();
    let to = project.dir().join("moved");
    fs::rename(&project.root, &to).expect("a folder can be moved");
    project.root = to;
    let mut monitor = project.monitor(&["--until-idle"]);
    project.release("hold.implementation");
    assert_eq!(monitor.end(&project), Some(0));
    // A git that was killed with the monitor may have left a lock in an entry of the old place, which
    // no worktree uses again.
    project.ok(&["doctor", "--repair"]);
    project.assert_landed(ONE);
    project.assert_nothing_left();
}

#[test]
fn a_repository_moved_under_a_living_monitor_ends_it_and_goes_on_in_its_new_place() {
    let mut project = Project::not_ahead(1);
    // One task: nothing else is being made while it is moved.
    let mut monitor = held(&project, ONE);
    let to = project.dir().join("moved");
    fs::rename(&project.root, &to).expect("a folder can be moved");
    assert_eq!(monitor.end(&project), Some(4), "another may run in what is at the old place");
    assert!(!project.root.exists(), "nothing is made there");
    project.root = to;
    let mut monitor = project.monitor(&["--until-idle"]);
    project.release("hold.implementation");
    assert_eq!(monitor.end(&project), Some(0));
    project.ok(&["doctor", "--repair"]);
    project.assert_landed(ONE);
    project.assert_nothing_left();
}

#[test]
fn a_copy_of_a_repository_leaves_the_agents_of_the_original_alone() {
    let project = Project::new(1);
    let mut monitor = held(&project, ONE);
    let copies = project.dir().join("copies");
    fs::create_dir(&copies).expect("a folder");
    let (copy, other) = (copies.join("copy"), copies.join("other"));
    for to in [&copy, &other] {
        let (from, to) = (project.root.display(), to.display());
        assert_eq!(project.shell(&format!("cp -a '{from}' '{to}'")).code, Some(0));
    }
    let in_copy = |dir: &Path, args: &[&str]| {
        // Its agents are not held.
        let mut command = project.command(dir, args);
        let done = command.env("E2E_DIR", &copies).output().expect("the program starts");
        let said = String::from_utf8_lossy(&[done.stdout, done.stderr].concat()).into_owned();
        assert_eq!(done.status.code(), Some(0), "{args:?}: {said}{}", project.story());
        let slot = project.path(".pipeline/worktrees/implementation/0/.git");
        assert!(slot.exists(), "{args:?}: {said}");
        said
    };
    in_copy(&copy, &["stop", "--now"]);
    let log = in_copy(&copy, &["log"]);
    assert!(log.contains("it ran in another folder, of which this one is a copy"), "{log}");
    in_copy(&copy, &["monitor", "--until-idle", "--timeout", "240s"]);
    in_copy(&copy, &["doctor", "--repair"]);
    for dir in [&copy, &other] {
        in_copy(dir, &["deinit", "--force"]);
    }
    let main =
        project.shell(&format!("git -C '{}' show main:implementation/A.txt", copy.display()));
    assert_eq!(main.out, "A\n", "it landed there: {}", main.err);
    project.release("hold.implementation");
    assert_ends_landed(&project, &mut monitor, ONE);
    assert_eq!(project.runs(), ONCE_EACH, "{}", project.story());
}

#[test]
fn a_path_that_is_not_utf_8_is_refused_and_what_runs_there_ends() {
    let mut project = Project::new(1);
    let mut monitor = held(&project, ONE);
    monitor.kill();
    let to = project.dir().join(OsStr::from_bytes(b"m\xffy"));
    fs::rename(&project.root, &to).expect("a folder can be moved");
    project.root = to;
    let refused = "its path is not UTF-8\n  hint: rename the folder";
    for args in [&["monitor", "--until-idle"][..], &["monitor", "--detach"]] {
        let said = project.fails(2, args);
        assert!(said.contains(refused), "{said}");
    }
    project.ok(&["stop", "--now"]);
    project.keepers_have_ended();
    assert_eq!(project.count("wip"), 0);
    project.ok(&["deinit", "--force"]);
    for args in [&["init"][..], &["init", "--isolation", "none"]] {
        let said = project.fails(2, args);
        assert!(said.contains(refused), "{said}");
    }
    assert!(!project.state_dir().exists() && !project.path(".pipeline/state").exists());
}

#[test]
fn every_folder_of_the_repository_is_the_same_project() {
    let project = Project::new(1);
    let mut monitor = held(&project, ONE);
    project.write("deep/er/file", "");
    let other = project.dir().join("other");
    project.git(&["worktree", "add", "-q", "--detach", other.to_str().expect("a path")]);
    for dir in [
        project.path("deep/er"),
        project.path(".pipeline"),
        project.path(".pipeline/worktrees/implementation/0"),
        other,
    ] {
        let mut command = project.command(&dir, &["task", "list", "--json"]);
        let output = command.output().expect("the program starts");
        let told = String::from_utf8_lossy(&output.stdout).into_owned();
        assert!(output.status.success() && told.contains("Task A"), "{}: {told}", dir.display());
        let second = project.command(&dir, &["monitor"]).output().expect("the program starts");
        assert_eq!(second.status.code(), Some(4), "{}", dir.display());
    }
    fs::remove_dir_all(project.path("deep")).expect("it is ours");
    project.release("hold.implementation");
    assert_ends_landed(&project, &mut monitor, ONE);
}
