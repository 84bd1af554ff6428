//! Commands that look, try or edit: killed, they leave everything as it was, or as it is to be.

use std::fs;
use std::os::unix::fs::PermissionsExt;

use super::hands::with_salvage;
use super::scenario::{PILOT, add, landed, staged, with};
use crate::support::project::Project;

pub(super) const AGENT_TEST: &[&str] = &["agent", "test", "architect"];
pub(super) const DOCTOR_CHECKS: &[&str] = &["doctor", "--checks"];
pub(super) const EDIT: &[&str] = &["task", "edit", "A"];
pub(super) const DIFF: &[&str] = &["task", "diff", "OLD"];
pub(super) const LIST: &[&str] = &["salvage", "list"];
pub(super) const WAIT: &[&str] = &["mode", "switch", "sequential", "--wait", "1s"];

/// Where a test of an agent works whose command was killed; its process id is no one's.
const LEFT: &str = ".pipeline/tests/architect-999999999";

/// Does what the task of a test asks for.
const OBLIGING: &str =
    "#!/bin/sh\nset -eu\necho \"$PIPELINE_ATTEMPT\" >>\"$E2E_DIR/runs\"\necho hello >hello.txt\n";

/// One test of an agent was killed before.
pub(super) fn tested(project: &Project) {
    staged(project, 0);
    project.write("tools/agent.sh", OBLIGING);
    project.commit("An obliging agent");
    project.write(&format!("{LEFT}/left.txt"), "left\n");
}

/// The next test removes what killed ones left.
pub(super) fn is_swept(project: &Project) {
    // One attempt of a test is called as another's.
    fs::remove_file(project.dir().join("runs")).expect("agents have run");
    project.ok(AGENT_TEST);
    let left = fs::read_dir(project.path(".pipeline/tests")).expect("it has been there").flatten();
    let left: Vec<_> = left.map(|entry| entry.path()).collect();
    assert_eq!(left, Vec::<std::path::PathBuf>::new());
}

/// Checks that a person has run, and a task.
pub(super) fn checked(project: &Project) {
    with(project, &format!("{PILOT}[landing]\nchecks = [\"test -e a.txt\"]\n"), 1);
    project.ok(&["init"]);
    add(project, "A", "architect");
}

pub(super) fn check_again(project: &Project) {
    project.ok(DOCTOR_CHECKS);
}

/// A task, and an editor.
pub(super) fn with_editor(project: &Project) {
    staged(project, 0);
    let programs = project.dir().join("programs");
    fs::create_dir(&programs).expect("a folder");
    let editor = programs.join("editor");
    fs::write(&editor, "#!/bin/sh\nprintf 'Edited\\n\\nThe body\\n' >\"$1\"\n").expect("a script");
    fs::set_permissions(editor, fs::Permissions::from_mode(0o755)).expect("its mode");
}

/// What the editor wrote stays where the command was killed, for the person; said again it edits.
pub(super) fn edit_again(project: &Project) {
    for entry in fs::read_dir(project.dir().join("tmp")).expect("a folder").flatten() {
        let name = entry.file_name().to_string_lossy().into_owned();
        assert!(name.starts_with("A-"), "{name}");
        fs::remove_file(entry.path()).expect("it is there");
    }
    project.ok(EDIT);
}

pub(super) fn is_edited(project: &Project) {
    let task = project.ok(&["task", "show", "A", "--json"]);
    let task: serde_json::Value = serde_json::from_str(&task).expect("JSON");
    assert_eq!((&task["title"], &task["body"]), (&"Edited".into(), &"The body\n".into()));
}

/// What has landed, and a task that is still to be done.
pub(super) fn with_diff(project: &Project) {
    landed(project);
    add(project, "A", "architect");
}

pub(super) fn diff_again(project: &Project) {
    assert!(project.ok(DIFF).contains("+++ b/architect-OLD.txt"));
}

/// Work in salvage, some of which shares nothing with what has landed, and a task.
pub(super) fn with_stray_salvage(project: &Project) {
    with_salvage(project);
    let stray = project.git(&["commit-tree", "-m", "Stray", "main^{tree}"]);
    project.git(&["update-ref", "refs/pipeline/salvage/stray", &stray]);
}

pub(super) fn list_again(project: &Project) {
    assert!(project.ok(LIST).contains("stray"));
}
