//! Agents that are no plain command: in a window, a person, a program that comes and goes.

use std::fs;

use super::scenario::{MONITOR, PILOT, STAGES, add, pilot, settings};
use crate::support::project::Project;

const COMMAND: &str = "command = [\"sh\", \"{project}/tools/agent.sh\"]";

/// A task with one stage, whose agent in the pilot is told by these lines.
fn served_by(project: &Project, stage: usize, lines: &str) {
    let (text, name) = (settings(PILOT, 1), format!("name = \"{}\"", STAGES[stage]));
    let (before, rest) = text.split_once(&name).expect("it has an agent");
    let rest = rest.replacen(COMMAND, lines, 1);
    project.write("pipeline.toml", &format!("{before}{name}{rest}"));
    project.commit("Another agent");
    add(project, "A", STAGES[stage]);
}

pub(super) fn in_window(project: &Project) {
    pilot(project);
    served_by(project, 2, &format!("launcher = \"tmux\"\n{COMMAND}"));
}

pub(super) fn was_typed(project: &Project) {
    let file = project.git(&["show", "pipeline/landed:implementation-A.txt"]);
    assert_eq!(file, "A", "{}", project.story());
}

/// What the person does at the shell; it stays open.
const PERSON: &str = "#!/bin/sh\necho mine >by-person.txt\npipeline done\nexec sleep 1000\n";

/// A person's pane; the person is the shell.
pub(super) fn person(project: &Project) {
    pilot(project);
    project.write("tools/person.sh", PERSON);
    let mode = std::os::unix::fs::PermissionsExt::from_mode(0o755);
    fs::set_permissions(project.path("tools/person.sh"), mode).expect("its mode");
    served_by(project, 2, "command = \"person\"\nenv = { SHELL = \"tools/person.sh\" }");
}

pub(super) fn by_person(project: &Project) {
    let file = project.git(&["show", "pipeline/landed:by-person.txt"]);
    assert_eq!(file, "mine", "{}", project.story());
}

const PRESET: &str = "about = \"a program that comes and goes\"\nheadless = [\"comes-and-goes\"]\n";

/// An agent whose program is there.
pub(super) fn installed(project: &Project) {
    pilot(project);
    project.write("agents/presets/mine.toml", PRESET);
    served_by(project, 0, "preset = \"mine\"\nenv_allow = [\"*\"]\ncompletion = \"exit\"");
    // Written by another process: one that is being written cannot be executed.
    let mut shell = pipeline::sys::child::command("sh", &project.dir());
    let text =
        "mkdir programs && cd programs && cp \"$1\" comes-and-goes && chmod +x comes-and-goes";
    let args = ["-c", text, "sh", "../project/tools/agent.sh"];
    assert!(shell.args(args).status().expect("a shell").success());
}

pub(super) fn uninstall(project: &Project) {
    let file = project.dir().join("programs/comes-and-goes");
    fs::rename(&file, file.with_extension("gone")).expect("it is there");
}

/// Puts the program back; it may not have been taken away.
pub(super) fn install(project: &Project) {
    let file = project.dir().join("programs/comes-and-goes");
    if !file.exists() {
        fs::rename(file.with_extension("gone"), &file).expect("it was put aside");
    }
}

/// One whose program was missing, as the journal says, and is there again.
pub(super) fn came_back(project: &Project) {
    installed(project);
    uninstall(project);
    let said = project.fails(1, MONITOR);
    assert!(said.contains("cannot start"), "{said}");
    install(project);
}
