//! What people do beside the pipeline, in their checkout and to what is ours.

use std::fs;
use std::io::Write;
use std::time::Duration;

use super::scenario::{MONITOR, add, base_followed, following};
use crate::support::project::Project;

/// What `edited` leaves in the checkout.
pub(super) const EDITS: &[&str] = &[" M a.txt", "A  staged.txt", "?? untracked.txt"];

/// A person's files that stand in no commit: what is in each.
const FILES: [(&str, &str); 4] = [
    ("a.txt", "one\ntwo\nthree, edited\n"),
    ("staged.txt", "staged\n"),
    ("untracked.txt", "untracked\n"),
    ("ignored.txt", "ignored\n"),
];

/// A checkout in which a person works while the base follows.
pub(super) fn edited(project: &Project) {
    following(project);
    for (name, text) in FILES {
        project.write(name, text);
    }
    let exclude = fs::File::options().append(true).open(project.path(".git/info/exclude"));
    exclude.and_then(|mut file| file.write_all(b"ignored.txt\n")).expect("a file of git's");
    project.git(&["add", "staged.txt"]);
}

/// All of it is there to the byte, and in the index what was put there.
pub(super) fn edits_stay(project: &Project) {
    base_followed(project);
    for (name, text) in FILES {
        let is = fs::read_to_string(project.path(name)).unwrap_or_default();
        assert_eq!(is, text, "{name}\n{}", project.story());
    }
    let status = project.git(&["status", "--porcelain"]);
    assert_eq!(status.lines().collect::<Vec<_>>(), EDITS, "{}", project.story());
    assert_eq!(project.git(&["show", ":staged.txt"]), "staged");
}

/// While the agent ran, somebody moved and made branches of ours; no monitor has seen it.
pub(super) fn astray(project: &Project) {
    fs::write(project.dir().join("hold"), "").expect("a file beside the project");
    let mut monitor = project.start(MONITOR);
    project.until("the agent", || !project.runs().is_empty());
    project.until("a look", || project.path(".git/pipeline/outside.at").exists());
    monitor.kill();
    let astray = project.git(&["commit-tree", "-m", "Astray", "main^{tree}"]);
    for name in ["landed", "mine", "task/A"] {
        project.git(&["update-ref", &format!("refs/heads/pipeline/{name}"), &astray]);
    }
    // The last word in the log is a person's, so that a monitor that never began is known.
    project.ok(&["task", "edit", "A", "--priority", "high"]);
    project.release("hold");
}

/// What was found is in salvage and told of, and nothing else is where our branches are.
pub(super) fn is_put_back(project: &Project) {
    // Where a killed git had left a lock on all refs, which is a person's to remove, it is gone now.
    project.ok(MONITOR);
    let names = project.git(&["for-each-ref", "--format=%(refname:short)", "refs/heads/pipeline/"]);
    assert_eq!(names, "pipeline/landed\npipeline/task/A", "{}", project.story());
    let log = project.log();
    let told: Vec<&str> = log
        .iter()
        // What that lock held up is told when it is put back, and then nobody runs any more.
        .filter(|entry| {
            entry["kind"] == "attempt_found_outside" || entry["kind"] == "found_outside"
        })
        .flat_map(|entry| entry["found"].as_array().into_iter().flatten())
        .filter_map(|line| line.as_str())
        .collect();
    for what in ["landed", "mine", "A"] {
        let salvage = format!("refs/pipeline/salvage/{what}.found-");
        let kept = project.git(&["for-each-ref", "--format=%(subject)", &format!("{salvage}*")]);
        assert_eq!(kept, "Astray", "{what}\n{}", project.story());
        let is_told = told.iter().any(|line| line.contains(&salvage));
        assert!(is_told, "{what} in {told:#?}\n{}", project.story());
    }
}

/// Somebody has made a file in the worktree that the next attempt gets, a minute after the last one.
pub(super) fn by_hand(project: &Project) {
    project.ok(MONITOR);
    project.write(".pipeline/worktrees/implementation/0/by-hand.txt", "by hand\n");
    let note =
        fs::File::options().append(true).open(project.path(".git/worktrees/0/pipeline-rest"));
    let note = note.expect("it is noted that nobody works there");
    let began = note.metadata().and_then(|found| found.modified()).expect("a time");
    note.set_modified(began - Duration::from_secs(60)).expect("is set back");
    add(project, "B", "implementation");
}

/// It is in salvage, and nowhere else.
pub(super) fn is_kept(project: &Project) {
    let kept = project.git(&["for-each-ref", "--format=%(refname)", "refs/pipeline/salvage/B.*"]);
    let holds = |name: &str| {
        project.git(&["ls-tree", "-r", "--name-only", name]).lines().any(|it| it == "by-hand.txt")
    };
    assert!(kept.lines().any(holds), "{kept}\n{}", project.story());
    assert!(!holds("pipeline/landed"), "{}", project.story());
}

/// What `in_the_way` leaves in the checkout.
pub(super) const IN_THE_WAY: &[&str] = &[" M a.txt", "?? architect-A.txt"];

/// A checkout that cannot follow: a person's file stands where a new one is to come.
pub(super) fn in_the_way(project: &Project) {
    following(project);
    project.write("a.txt", "one\ntwo\nthree, edited\n");
    project.write("architect-A.txt", "mine\n");
}

/// Both are as they were, and it is told.
pub(super) fn stays(project: &Project) {
    let file = |name: &str| fs::read_to_string(project.path(name)).unwrap_or_default();
    assert_eq!(file("a.txt"), "one\ntwo\nthree, edited\n", "{}", project.story());
    assert_eq!(file("architect-A.txt"), "mine\n", "{}", project.story());
    let status = project.status();
    let why = status["landing"]["why"].as_str().unwrap_or_default();
    assert!(why.contains("architect-A.txt"), "{why}\n{}", project.story());
}

/// Changes a file that is there, and makes one.
const CHANGES: &str = "#!/bin/sh\nset -eu\necho \"$PIPELINE_ATTEMPT\" >>\"$E2E_DIR/runs\"\n\
                       echo four >>a.txt\necho A >architect-A.txt\n";

/// A monitor was killed as it had the index of the checkout locked, for git to fast-forward it.
fn about_to_follow(project: &Project) {
    following(project);
    project.write("tools/agent.sh", CHANGES);
    project.commit("Another agent");
    let mut command = project.command(&project.root, MONITOR);
    let killed = command.env("PIPELINE_FAILPOINT", "git.base_merge=kill").output();
    assert_eq!(killed.expect("it starts").status.code(), None, "{}", project.story());
    project.keepers_have_ended();
    assert!(project.path(".git/index.lock").exists());
}

/// Git was killed with it: one file is written, and one removed.
pub(super) fn half_way(project: &Project) {
    about_to_follow(project);
    project.write("architect-A.txt", "A\n");
    fs::remove_file(project.path("a.txt")).expect("it is there");
}

/// Git had come to its end: its index was only to be put in the place of the person's.
pub(super) fn at_the_end(project: &Project) {
    about_to_follow(project);
    let index = "GIT_INDEX_FILE=$(echo .git/pipeline/*/base-follow.index) && export GIT_INDEX_FILE";
    let moved = "git update-ref refs/heads/main pipeline/landed";
    let read = "git read-tree -m -u main pipeline/landed";
    let done = project.shell(&format!("{index} && {read} && {moved}"));
    assert_eq!(done.code, Some(0), "{}", done.err);
}

/// A person has removed the lock since.
pub(super) fn unlocked(project: &Project) {
    at_the_end(project);
    fs::remove_file(project.path(".git/index.lock")).expect("it is there");
}
