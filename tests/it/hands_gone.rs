//! Worktrees of people that were moved, removed or rewritten behind the pipeline's back, and removals
//! that were cut off.

use std::fs;
use std::path::{Path, PathBuf};

use crate::support::project::Project;

fn project() -> Project {
    let project = Project::new(1);
    project.import(&[("A", &[])]);
    project
}

fn taken(project: &Project, args: &[&str]) -> PathBuf {
    let out = project.ok(&[&["task", "take"], args].concat());
    out.strip_suffix('\n').expect("one line").into()
}

fn text(path: &Path) -> &str {
    path.to_str().expect("it is UTF-8")
}

/// Runs git in a worktree.
fn git(project: &Project, dir: &Path, args: &[&str]) -> String {
    project.git(&[&["-C", text(dir)], args].concat())
}

fn commit_in(project: &Project, dir: &Path, name: &str) {
    fs::write(dir.join(name), "mine\n").expect("a file of the person's");
    git(project, dir, &["add", "-A"]);
    git(project, dir, &["commit", "-q", "-m", "By hand"]);
}

/// Moves a folder as `mv` does, which git is not told of.
fn moved(project: &Project, dir: &Path) -> PathBuf {
    let place = project.dir().join("moved");
    fs::rename(dir, &place).expect("it was there");
    place
}

#[test]
fn a_worktree_that_was_moved_is_not_cut_off_when_its_task_is_given() {
    let project = project();
    let dir = taken(&project, &["A"]);
    commit_in(&project, &dir, "on-branch.txt");
    let place = moved(&project, &dir);
    git(&project, &place, &["switch", "-q", "--detach"]);
    commit_in(&project, &place, "beside.txt");
    let head = git(&project, &place, &["rev-parse", "HEAD"]);
    fs::write(place.join("draft"), "x").expect("a file");
    git(&project, &place, &["add", "draft"]);
    let told = project.run(&["doctor"]).out;
    assert!(
        told.contains("git worktree repair") && told.contains("pipeline task give A"),
        "{told}"
    );
    let done = project.run(&["task", "give", "A", "--stage", "landing"]);
    assert_eq!(done.code, Some(0), "{}", done.err);
    assert!(done.err.contains("is gone: what was not committed"), "{}", done.err);
    assert!(done.err.contains("git worktree repair"), "{}", done.err);
    assert_eq!(git(&project, &place, &["rev-parse", "HEAD"]), head);
    assert_eq!(git(&project, &place, &["status", "--short"]), "A  draft");
    git(&project, &place, &["worktree", "repair"]);
    let listed = project.git(&["worktree", "list"]);
    assert!(listed.contains(text(&place)), "{listed}");
}

#[test]
fn a_worktree_that_was_moved_is_not_cut_off_when_its_task_is_taken_again() {
    let project = project();
    let dir = taken(&project, &["A"]);
    commit_in(&project, &dir, "mine.txt");
    let place = moved(&project, &dir);
    git(&project, &place, &["switch", "-q", "--detach"]);
    commit_in(&project, &place, "beside.txt");
    let head = git(&project, &place, &["rev-parse", "HEAD"]);
    assert_eq!(taken(&project, &["A"]), dir);
    assert!(dir.join("mine.txt").exists() && !dir.join("beside.txt").exists());
    assert_eq!(git(&project, &dir, &["symbolic-ref", "HEAD"]), "refs/heads/pipeline/task/A");
    assert_eq!(git(&project, &place, &["rev-parse", "HEAD"]), head);
    assert_eq!(git(&project, &place, &["status", "--short"]), "");
    git(&project, &place, &["worktree", "repair"]);
    let listed = project.git(&["worktree", "list"]);
    assert!(listed.contains(text(&place)) && listed.contains(text(&dir)), "{listed}");
    // On the branch still, and moved: one on it is as good as the other.
    let again = project.dir().join("again");
    fs::rename(&dir, &again).expect("it was there");
    assert_eq!(taken(&project, &["A"]), dir);
    assert_eq!(git(&project, &again, &["status", "--short"]), "");
    commit_in(&project, &dir, "more.txt");
    project.ok(&["task", "give", "A", "--stage", "landing"]);
    assert!(!dir.exists());
    assert_eq!(git(&project, &place, &["rev-parse", "HEAD"]), head);
}

#[test]
fn a_branch_that_a_person_rewrote_is_not_moved_back_under_them() {
    let project = project();
    // An agent's commit is what they begin from.
    project.hold("hold.test");
    let mut monitor = project.monitor(&[]);
    project.until("the second stage", || project.runs().len() == 2);
    project.ok(&["task", "hold", "A"]);
    project.release("hold.test");
    project.until("its end", || project.task("A") != "test_wip");
    project.ok(&["stop", "--now"]);
    monitor.end(&project);
    let dir = taken(&project, &["A"]);
    git(&project, &dir, &["commit", "-q", "--amend", "-m", "Said better"]);
    let head = git(&project, &dir, &["rev-parse", "HEAD"]);
    assert_eq!(taken(&project, &["A"]), dir, "it only says where");
    assert_eq!(git(&project, &dir, &["rev-parse", "HEAD"]), head);
    assert_eq!(project.git(&["rev-parse", "pipeline/task/A"]), head);
    assert_eq!(git(&project, &dir, &["status", "--short"]), "");
}

#[test]
fn a_worktree_that_was_deleted_is_in_the_way_of_nothing() {
    let project = project();
    let place = project.dir().join("a");
    taken(&project, &["A", text(&place)]);
    commit_in(&project, &place, "mine.txt");
    fs::remove_dir_all(&place).expect("it was there");
    project.ok(&["task", "cancel", "A"]);
    project.ok(&["task", "reopen", "A"]);
    let dir = taken(&project, &["A"]);
    assert_eq!(dir, project.path(".pipeline/taken/A"));
    assert_eq!(git(&project, &dir, &["symbolic-ref", "HEAD"]), "refs/heads/pipeline/task/A");
    git(&project, &dir, &["switch", "-q", "--detach"]);
    commit_in(&project, &dir, "more.txt");
    let head = git(&project, &dir, &["rev-parse", "HEAD"]);
    fs::remove_dir_all(&dir).expect("it was there");
    let said = project.fails(4, &["deinit", "--force"]);
    let hint = format!("git branch NAME {head}");
    assert!(said.contains(&hint) && !said.contains("switch"), "{said}");
    project.git(&["branch", "kept", &head]);
    let done = project.run(&["deinit", "--force"]);
    assert_eq!(done.code, Some(0), "{}", done.err);
    assert!(
        done.err.contains("which is gone, stays") && done.err.contains("prune"),
        "{}",
        done.err
    );
    assert!(!project.path(".pipeline").exists());
    project.git(&["worktree", "prune"]);
    assert_eq!(project.git(&["worktree", "list"]).lines().count(), 1);
}

#[test]
fn a_worktree_that_was_moved_is_not_cut_off_by_deinit() {
    let project = project();
    let dir = taken(&project, &["A"]);
    git(&project, &dir, &["switch", "-q", "-c", "own"]);
    let place = moved(&project, &dir);
    fs::write(place.join("draft"), "x").expect("a file");
    git(&project, &place, &["add", "draft"]);
    project.ok(&["deinit"]);
    assert!(!project.path(".pipeline").exists());
    assert_eq!(git(&project, &place, &["status", "--short"]), "A  draft");
}

#[test]
fn a_persons_own_branch_and_folders_stay_when_they_give() {
    let project = project();
    project.write(".gitignore", "*.key\n");
    project.commit("Keys");
    let trees = project.dir().join("trees");
    fs::create_dir(&trees).expect("a folder of the person's");
    let place = trees.join("A");
    taken(&project, &["A", text(&place)]);
    git(&project, &place, &["switch", "-q", "-c", "own"]);
    commit_in(&project, &place, "mine.txt");
    fs::write(place.join("my.key"), "secret").expect("a file");
    let done = project.run(&["task", "give", "A", "--stage", "test"]);
    assert_eq!(done.code, Some(0), "{}", done.err);
    assert!(done.err.contains("git ignores `my.key` there"), "{}", done.err);
    assert_eq!(git(&project, &place, &["symbolic-ref", "HEAD"]), "refs/heads/own");
    fs::remove_file(place.join("my.key")).expect("it was there");
    project.git(&["worktree", "remove", text(&place)]);
    taken(&project, &["A", text(&place)]);
    project.ok(&["task", "give", "A", "--stage", "test"]);
    assert!(!place.exists() && trees.is_dir(), "the folder is not ours");
}

/// Kills `complete` between the renaming and the removal of a worktree.
#[cfg(feature = "failpoints")]
fn cut_off(project: &Project, pass: &str) {
    let mut command = project.command(&project.root, &["task", "complete", "A"]);
    let ended = command.env("PIPELINE_FAILPOINT", pass).output().expect("it starts");
    assert!(!ended.status.success(), "it was killed");
    assert!(!project.path(".pipeline/taken/A").exists());
    assert!(project.path(".pipeline/taken/.A.pipeline-gone").is_dir());
    assert_eq!(project.task("A"), "completed");
}

#[cfg(feature = "failpoints")]
#[test]
fn a_removal_that_was_cut_off_is_told_and_finished() {
    for (pass, is_entry_left) in [("git.remove_slot:1=kill", true), ("git.hand_gone:2=kill", false)]
    {
        let project = project();
        taken(&project, &["A"]);
        cut_off(&project, pass);
        assert_eq!(
            project.git(&["worktree", "list"]).lines().count(),
            1 + usize::from(is_entry_left)
        );
        let told = project.run(&["doctor"]).out;
        assert!(told.contains("whose removal was cut off"), "{told}");
        let planned = project.ok(&["doctor", "--repair", "-n"]);
        assert!(planned.contains(".A.pipeline-gone"), "{planned}");
        project.ok(&["doctor", "--repair"]);
        assert!(!project.path(".pipeline/taken/.A.pipeline-gone").exists());
        assert_eq!(project.git(&["worktree", "list"]).lines().count(), 1);
    }
    let project = project();
    taken(&project, &["A"]);
    cut_off(&project, "git.remove_slot:1=kill");
    project.ok(&["deinit"]);
    assert!(!project.path(".pipeline").exists());
    assert_eq!(project.git(&["worktree", "list"]).lines().count(), 1);
}

#[cfg(feature = "failpoints")]
#[test]
fn files_that_cannot_be_removed_are_told_with_where_they_are() {
    let project = project();
    taken(&project, &["A"]);
    let mut command = project.command(&project.root, &["task", "give", "A", "--stage", "test"]);
    let done =
        command.env("PIPELINE_FAILPOINT", "git.hand_gone:2=error").output().expect("it starts");
    let said = String::from_utf8_lossy(&done.stderr).into_owned();
    assert!(done.status.success(), "{said}");
    let rest = project.path(".pipeline/taken/.A.pipeline-gone");
    assert!(said.contains(&format!("to remove them: rm -rf '{}'", rest.display())), "{said}");
    assert!(rest.is_dir());
}
