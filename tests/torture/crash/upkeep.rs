//! What the program puts right, takes over or saves besides its way from stage to stage: a journal
//! that was cut off, is damaged or of an older format, and what agents leave in submodules.

use std::fs;

use super::scenario::{add, settings, staged, with};
use crate::support::journal::reform;
use crate::support::project::Project;

pub(super) const REPAIR: &[&str] = &["doctor", "--repair"];

/// The last record was cut off, as a power cut may leave it.
pub(super) fn torn(project: &Project) {
    staged(project, 0);
    let mut bytes = fs::read(project.segment()).expect("the journal");
    let last = bytes.len() / 4;
    bytes.extend_from_within(..last);
    fs::write(project.segment(), bytes).expect("the journal");
}

/// What was cut off lies beside the journal, once or, where a copy was cut off too, more often.
pub(super) fn is_kept_aside(project: &Project) {
    let journal = fs::read_dir(project.path(".git/pipeline/journal")).expect("the journal");
    let names = journal.flatten().map(|entry| entry.file_name().to_string_lossy().into_owned());
    let names: Vec<String> = names.collect();
    assert!(names.iter().any(|name| name.contains("torn")), "{names:?}");
}

/// The journal is of the format before.
pub(super) fn of_older_format(project: &Project) {
    staged(project, 0);
    reform(&project.segment(), 0);
}

pub(super) fn is_taken_over(project: &Project) {
    let backup = fs::read_dir(project.path(".git/pipeline")).expect("the state").flatten();
    let names = backup.map(|entry| entry.file_name().to_string_lossy().into_owned());
    let kept: Vec<String> = names.filter(|name| name.starts_with("journal.format-0-")).collect();
    assert_eq!(kept.len(), 1, "{kept:?}");
}

/// A task, and a last record that can be spared.
pub(super) fn with_a_last_word(project: &Project) {
    staged(project, 0);
    project.ok(&["task", "add", "To be lost", "--id", "LOST", "--hold"]);
}

/// A byte of the last record has turned.
pub(super) fn damage(project: &Project) {
    let mut bytes = fs::read(project.segment()).expect("the journal");
    let at = bytes.len() - 100;
    bytes[at] ^= 1;
    fs::write(project.segment(), bytes).expect("the journal");
}

/// The last record is gone, and the journal that held it lies aside.
pub(super) fn is_mended(project: &Project) {
    assert_eq!(project.run(&["task", "show", "LOST"]).code, Some(2), "{}", project.story());
    let journal = fs::read_dir(project.path(".git/pipeline/journal")).expect("the journal");
    let mut texts = journal.flatten().filter_map(|entry| fs::read_to_string(entry.path()).ok());
    assert!(texts.any(|text| text.contains("\"LOST\"")), "the original is not kept");
}

/// Said again it mends, or there is nothing to mend.
pub(super) fn repair_again(project: &Project) {
    project.ok(REPAIR);
}

/// Agents of a submodule leave a change there that no commit has.
const AGENT: &str = r#"#!/bin/sh
set -eu
echo "$PIPELINE_ATTEMPT" >>"$E2E_DIR/runs"
git -c protocol.file.allow=always submodule update -q --init
echo dirty >>sub/v
echo new >sub/w
echo "$PIPELINE_TASK_ID" >"$PIPELINE_STAGE-$PIPELINE_TASK_ID.txt"
while [ -e "$E2E_DIR/hold" ]; do sleep 0.02; done
"#;

pub(super) fn with_submodule(project: &Project) {
    with(project, "[project]\nrollout = \"pilot\"\n", 1);
    let lib = project.dir().join("lib");
    fs::create_dir(&lib).expect("a folder beside the project");
    let lib = lib.to_str().expect("it is UTF-8");
    project.git(&["init", "-q", "-b", "main", lib]);
    fs::write(project.dir().join("lib/v"), "one\n").expect("a file beside the project");
    project.git(&["-C", lib, "add", "-A"]);
    project.git(&["-C", lib, "commit", "-q", "-m", "One"]);
    project.git(&["-c", "protocol.file.allow=always", "submodule", "add", "-q", "--", lib, "sub"]);
    project.write("tools/agent.sh", AGENT);
    project.commit("A submodule");
    project.ok(&["init"]);
    add(project, "A", "implementation");
}

/// What the agent left in the submodule is kept, and the submodule stays as it was.
pub(super) fn is_saved(project: &Project) {
    let [before, landed] = ["main:sub", "pipeline/landed:sub"];
    assert_eq!(project.git(&["rev-parse", landed]), project.git(&["rev-parse", before]));
    let left = walkdir::WalkDir::new(project.path(".pipeline/worktrees")).into_iter().flatten();
    let mut bundles = left.filter(|entry| entry.file_name() == "sub.bundle");
    let bundle = bundles.next().unwrap_or_else(|| panic!("no bundle\n{}", project.story()));
    let (lib, bundle) = (project.dir().join("lib"), bundle.into_path());
    let [lib, bundle] = [&lib, &bundle].map(|path| path.to_str().expect("it is UTF-8"));
    project.git(&["-C", lib, "fetch", "-q", bundle, "refs/pipeline/saved/*:refs/back/*"]);
    let kept = project.git(&["-C", lib, "for-each-ref", "--format=%(refname)", "refs/back/"]);
    let kept = kept.lines().next().expect("what was saved");
    let files = ["v", "w"].map(|file| format!("{kept}:{file}"));
    let files = files.map(|file| project.git(&["-C", lib, "show", &file]));
    assert_eq!(files, ["one\ndirty", "new"]);
}

/// Agents hide files from git, leave commits behind and a merge unfinished.
const UNTIDY: &str = r#"#!/bin/sh
set -eu
echo "$PIPELINE_ATTEMPT" >>"$E2E_DIR/runs"
commit="git -c user.name=Agent -c user.email=agent@example.org commit -q -m"
was=$(git rev-parse HEAD)
git checkout -q --detach
echo "$PIPELINE_TASK_ID" >left.txt
git add left.txt
$commit Left
left=$(git rev-parse HEAD)
git checkout -q --detach "$was"
git -c user.name=Agent -c user.email=agent@example.org merge -q --no-ff --no-commit "$left"
git rm -q --cached left.txt
mv left.txt "$PIPELINE_TASK_ID.log"
git update-index --assume-unchanged a.txt
printf 'one\ntwo\nthree\n%s\n' "$PIPELINE_TASK_ID" >a.txt
git sparse-checkout set --no-cone '/*' '!/b.txt'
echo "$PIPELINE_TASK_ID" >"$PIPELINE_STAGE-$PIPELINE_TASK_ID.txt"
"#;

/// Two tasks for one worktree.
pub(super) fn untidy(project: &Project) {
    with(project, "[project]\nrollout = \"pilot\"\n[scheduler]\nprefetch = 0\n", 1);
    project.write("tools/agent.sh", UNTIDY);
    project.write("b.txt", "b\n");
    project.write(".gitignore", "*.log\n");
    project.commit("Untidy agents");
    project.ok(&["init"]);
    add(project, "A", "implementation");
    let add = ["task", "add", "Task B", "--id", "B", "--stages", "implementation"];
    project.ok(&[&add[..], &["--depends-on", "A"]].concat());
}

/// What was hidden has landed, and what was left out is still there.
pub(super) fn is_whole(project: &Project) {
    let file = |name: &str| project.git(&["show", &format!("pipeline/landed:{name}")]);
    assert_eq!(file("a.txt"), "one\ntwo\nthree\nB", "{}", project.story());
    assert_eq!(file("b.txt"), "b", "{}", project.story());
}

/// Each event is told to a program.
pub(super) fn notified(project: &Project) {
    staged(project, 0);
    let text = "[notify]\ncommand = [\"sh\", \"-c\", \"cat >>$E2E_DIR/told\"]\n[project]\nrollout = \"pilot\"\n";
    project.write("pipeline.toml", &settings(text, 1));
    project.commit("Somebody is told");
}

/// The monitor that landed the task has told the end, also where another one had begun the work.
pub(super) fn is_told(project: &Project) {
    let kinds: Vec<String> = project
        .log()
        .iter()
        .map(|entry| entry["kind"].as_str().unwrap_or_default().to_owned())
        .collect();
    let start = kinds.iter().rposition(|kind| kind == "monitor_started").expect("a monitor");
    // What a monitor that was killed had not told, nobody tells.
    if kinds[start..].iter().any(|kind| kind == "landed") {
        let told = fs::read_to_string(project.dir().join("told")).expect("what was told");
        assert!(told.contains("\"event\":\"finished\""), "{told}\n{}", project.story());
    }
}
