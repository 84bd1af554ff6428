//! What people do by hand while the program may die: tasks taken, completed and taken up again, work
//! in salvage, and the pipeline taken out with work that has not landed.

use std::fs;
use std::path::Path;

use super::scenario::{MONITOR, add, cancelled, pilot, staged};
use crate::support::project::{Done, Project};

pub(super) const TAKE: &[&str] = &["task", "take", "A"];
pub(super) const GIVE: &[&str] = &["task", "give", "A"];
pub(super) const COMPLETE: &[&str] = &["task", "complete", "A", "--commit", "main"];
pub(super) const REOPEN: &[&str] = &["task", "reopen", "A"];
pub(super) const RESTORE: &[&str] = &["salvage", "restore", "A.impl.1"];
pub(super) const DROP: &[&str] = &["salvage", "drop", "A.impl.1"];
const A_KEPT: &str = "refs/pipeline/salvage/A.impl.1";
pub(super) const FORCE: &[&str] = &["deinit", "--force"];

/// A person's commit in the worktree that they were given.
fn commit_by_hand(project: &Project) {
    let dir = project.path(".pipeline/taken/A");
    let name = dir.to_str().expect("it is UTF-8");
    assert_eq!(project.git(&["-C", name, "status", "--porcelain"]), "", "{}", project.story());
    fs::write(dir.join("by-hand.txt"), "mine\n").expect("a file of the person's");
    project.git(&["-C", name, "add", "-A"]);
    project.git(&["-C", name, "commit", "-q", "-m", "By hand"]);
}

/// A task that a person has taken and committed to.
pub(super) fn in_hand(project: &Project) {
    pilot(project);
    add(project, "A", "implementation,supervisor");
    project.ok(TAKE);
    commit_by_hand(project);
}

/// Their worktree has lost its index, as git leaves it where it was killed while it made it.
pub(super) fn half_in_hand(project: &Project) {
    in_hand(project);
    let dir = project.path(".pipeline/taken/A");
    let admin = project.git(&["-C", dir.to_str().expect("it is UTF-8"), "rev-parse", "--git-dir"]);
    fs::remove_file(Path::new(&admin).join("index")).expect("it has an index");
}

/// They have moved it elsewhere.
pub(super) fn moved_in_hand(project: &Project) {
    in_hand(project);
    let moved = project.dir().join("moved");
    fs::rename(project.path(".pipeline/taken/A"), moved).expect("their worktree");
}

/// It has landed, and is open again; the agent's worktree is on its branch still.
pub(super) fn on_its_branch(project: &Project) {
    staged(project, 2);
    project.ok(MONITOR);
    let slot = ".pipeline/worktrees/implementation/0";
    project.git(&["-C", slot, "symbolic-ref", "HEAD", "refs/heads/pipeline/task/A"]);
    project.ok(REOPEN);
}

/// They have told git to pass over a file.
pub(super) fn hidden_in_hand(project: &Project) {
    in_hand(project);
    project.git(&["-C", ".pipeline/taken/A", "update-index", "--assume-unchanged", "a.txt"]);
}

/// They have done nothing yet.
pub(super) fn untouched_in_hand(project: &Project) {
    pilot(project);
    add(project, "A", "implementation");
    project.ok(TAKE);
}

pub(super) fn take_again(project: &Project) {
    project.ok(TAKE);
}

pub(super) fn give_on(project: &Project) {
    project.ok(GIVE);
}

/// The task goes on behind what the person did.
pub(super) fn give_back(project: &Project) {
    commit_by_hand(project);
    project.ok(&["task", "give", "A", "--stage", "implementation"]);
}

/// What the person did lands.
pub(super) fn give_landing(project: &Project) {
    commit_by_hand(project);
    project.ok(&["task", "give", "A", "--stage", "landing"]);
}

/// Said again it gives, or has given.
pub(super) fn give_again(project: &Project) {
    let is_taken = project.ok(&["task", "show", "A", "--json"]).contains("\"taken\"");
    let code = if is_taken { 0 } else { 2 };
    assert_eq!(project.run(GIVE).code, Some(code), "it is taken: {is_taken}");
}

pub(super) fn was_by_hand(project: &Project) {
    let file = project.git(&["show", "pipeline/landed:by-hand.txt"]);
    assert_eq!(file, "mine", "{}", project.story());
    assert!(!project.path(".pipeline/taken/A").exists(), "the worktree is gone");
    // A pin whose removal was killed says no more than what has landed.
    let pins = ["for-each-ref", "--no-merged", "pipeline/landed", "refs/pipeline/salvage"];
    assert_eq!(project.git(&pins), "", "{}", project.story());
}

/// Said again it completes, or has completed.
pub(super) fn complete_again(project: &Project) {
    let is_done = project.task("A") == "completed";
    let code = if is_done { 2 } else { 0 };
    assert_eq!(project.run(COMPLETE).code, Some(code), "it is completed: {is_done}");
}

/// A task that was cancelled while its agent was at work, which is kept in salvage.
pub(super) fn abandoned(project: &Project) {
    staged(project, 2);
    cancelled(project);
    project.ok(MONITOR);
    project.release("hold");
    assert_eq!(project.git(&["show", "refs/pipeline/salvage/A.impl.1:implementation-A.txt"]), "A");
}

pub(super) fn reopen_again(project: &Project) {
    let is_open = project.task("A") != "cancelled";
    let code = if is_open { 2 } else { 0 };
    assert_eq!(project.run(REOPEN).code, Some(code), "it is open: {is_open}");
}

/// Work in salvage, and a task that is still to be done.
pub(super) fn with_salvage(project: &Project) {
    abandoned(project);
    add(project, "B", "architect");
}

/// The work stands in a worktree on a branch of its own, whole, and in salvage still.
pub(super) fn is_restored(project: &Project) {
    let dir = project.path(".pipeline/restored/A.impl.1");
    let name = dir.to_str().expect("it is UTF-8");
    assert_eq!(project.git(&["-C", name, "status", "--porcelain"]), "", "{}", project.story());
    let branch = project.git(&["-C", name, "symbolic-ref", "--short", "HEAD"]);
    assert_eq!(branch, "salvage/A.impl.1");
    let text = fs::read_to_string(dir.join("implementation-A.txt")).expect("the work");
    assert_eq!(text, "A\n");
    let kept = project.git(&["rev-parse", "refs/pipeline/salvage/A.impl.1"]);
    assert_eq!(project.git(&["-C", name, "rev-parse", "HEAD"]), kept);
}

/// Says it again; a lock that may be a person's, which a git left that was killed, is taken away
/// first, as the error says.
fn as_told(project: &Project, args: &[&str]) -> Done {
    let done = project.run(args);
    let told =
        done.err.lines().find_map(|line| line.split_once("when no git runs here, type: rm -f "));
    let Some((_, lock)) = told else { return done };
    assert!(lock.starts_with(project.path(".git/").to_str().expect("UTF-8")), "{lock}");
    assert!(lock.ends_with(".lock"), "{lock}");
    fs::remove_file(lock).expect("it is there");
    project.run(args)
}

/// Done once more it is done.
pub(super) fn restore_again(project: &Project) {
    let done = as_told(project, RESTORE);
    assert_eq!(done.code, Some(0), "{}", done.err);
}

/// Said again it drops, or has dropped.
pub(super) fn drop_again(project: &Project) {
    let kept = project.git(&["for-each-ref", A_KEPT]);
    let code = if kept.is_empty() { 2 } else { 0 };
    let done = as_told(project, DROP);
    assert_eq!(done.code, Some(code), "{kept}: {}", done.err);
}

pub(super) fn is_dropped(project: &Project) {
    assert_eq!(project.git(&["for-each-ref", A_KEPT]), "", "{}", project.story());
}

/// Takes the pipeline out once more.
pub(super) fn taken_out(project: &Project, args: &[&str]) {
    let done = as_told(project, args);
    assert_eq!(done.code, Some(0), "{}", done.err);
}

/// The work that had not landed stands in a file of git.
pub(super) fn is_bundled(project: &Project) {
    let files = fs::read_dir(project.path(".git")).expect("it is there").flatten();
    let bundles = files.map(|entry| entry.path());
    let mut bundles = bundles.filter(|path| path.extension().is_some_and(|it| it == "bundle"));
    let bundle = bundles.next().expect("the work is in a file");
    let bundle = bundle.to_str().expect("it is UTF-8");
    project.git(&["fetch", "-q", bundle, "refs/pipeline/salvage/A.impl.1:refs/heads/unlanded"]);
    assert_eq!(project.git(&["show", "unlanded:implementation-A.txt"]), "A");
}
