//! What the program puts right, takes over or saves besides its way from stage to stage: a journal
//! that was cut off, is damaged or of an older format, and what agents leave in submodules.

use std::fs;

use super::scenario::{add, pilot, settings, staged, with};
use crate::support::journal::reform;
use crate::support::project::Project;

pub(super) const LONG: &[&str] =
    &["task", "add", "Last", "--id", "LAST", "--hold", "--body-file", "../body"];
/// Bytes of a body that brings the journal near its next checkpoint: four of them, and a fifth.
const BODY_BYTES: usize = 240 * 1024;
/// Tasks with such a body when the second segment is not needed any more.
const LONGER: u64 = 11;

pub(super) const REPAIR: &[&str] = &["doctor", "--repair"];

/// A temporary file that somebody left who was killed.
const LEFT: &str = ".git/pipeline/.left.tmp";

/// The last record was cut off, as a power cut may leave it; a killed git its lock, and a
/// person has edited the view.
pub(super) fn torn(project: &Project) {
    staged(project, 0);
    let mut bytes = fs::read(project.segment()).expect("the journal");
    let last = bytes.len() / 4;
    bytes.extend_from_within(..last);
    fs::write(project.segment(), bytes).expect("the journal");
    project.write(".git/pipeline/state.json", "{}\n");
    project.write(LEFT, "");
    super::check::make_old(&project.path(LEFT));
    project.write(".git/refs/heads/pipeline/left.lock", "");
}

/// What was cut off lies beside the journal, once or, where a copy was cut off too, more often.
pub(super) fn is_kept_aside(project: &Project) {
    let journal = fs::read_dir(project.path(".git/pipeline/journal")).expect("the journal");
    let names = journal.flatten().map(|entry| entry.file_name().to_string_lossy().into_owned());
    let names: Vec<String> = names.collect();
    assert!(names.iter().any(|name| name.contains("torn")), "{names:?}");
    let state = fs::read_dir(project.path(".git/pipeline")).expect("the state").flatten();
    let mut names = state.map(|entry| entry.file_name().to_string_lossy().into_owned());
    assert!(names.any(|name| name.starts_with("state.json.edited-")), "{}", project.story());
    assert!(!project.path(LEFT).exists(), "{}", project.story());
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

/// The folder of an attempt that nobody knows.
const GHOST: &str = ".git/pipeline/attempts/GHOST.arch.1";

/// A task, and a last record that can be spared.
pub(super) fn with_a_last_word(project: &Project) {
    staged(project, 0);
    project.ok(&["task", "add", "To be lost", "--id", "LOST", "--hold"]);
    project.write(&format!("{GHOST}/prompt.md"), "");
    for path in [format!("{GHOST}/prompt.md"), GHOST.to_owned()] {
        let file = fs::File::open(project.path(&path)).expect("it was just made");
        file.set_modified(std::time::UNIX_EPOCH).expect("it is set back");
    }
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
    // Its folder may stay for a while where the first try to remove it was killed.
    let left = project.path(GHOST).join("prompt.md");
    assert!(!left.exists(), "{}", project.story());
}

/// Said again it mends, or there is nothing to mend.
pub(super) fn repair_again(project: &Project) {
    project.ok(REPAIR);
}

/// Agents of a submodule leave a change there that no commit has, and one attempt commits it.
const AGENT: &str = r#"#!/bin/sh
set -eu
echo "$PIPELINE_ATTEMPT" >>"$E2E_DIR/runs"
git -c protocol.file.allow=always submodule update -q --init
echo dirty >>sub/v
echo new >sub/w
[ "$PIPELINE_ATTEMPT" != B.impl.1 ] || {
    git -C sub add -A
    git -C sub -c user.name=Agent -c user.email=agent@example.org commit -q -m Lone
}
echo "$PIPELINE_TASK_ID" >"$PIPELINE_STAGE-$PIPELINE_TASK_ID.txt"
while [ -e "$E2E_DIR/hold" ]; do sleep 0.02; done
"#;

pub(super) fn with_submodule(project: &Project) {
    with(project, "[project]\nrollout = \"pilot\"\n[scheduler]\nprefetch = 0\n", 1);
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
    two(project);
}

/// Two tasks, one after the other.
fn two(project: &Project) {
    add(project, "A", "implementation");
    let add = ["task", "add", "Task B", "--id", "B", "--stages", "implementation"];
    project.ok(&[&add[..], &["--depends-on", "A"]].concat());
}

/// What the agent left in the submodule is kept, and the submodule stays as it was.
pub(super) fn is_saved(project: &Project) {
    let [before, landed] = ["main:sub", "pipeline/landed:sub"];
    assert_eq!(project.git(&["rev-parse", landed]), project.git(&["rev-parse", before]));
    let left = walkdir::WalkDir::new(project.path(".pipeline/worktrees")).sort_by_file_name();
    let left = left.into_iter().flatten().map(walkdir::DirEntry::into_path);
    let bundles: Vec<_> = left.filter(|path| path.ends_with("sub.bundle")).collect();
    let lib = project.dir().join("lib");
    let lib = lib.to_str().expect("it is UTF-8");
    for id in ["A", "B"] {
        let is_its =
            |path: &&std::path::PathBuf| path.to_string_lossy().contains(&format!("/{id}.impl."));
        let bundle = bundles.iter().find(is_its);
        let bundle = bundle.unwrap_or_else(|| panic!("no bundle of {id}\n{}", project.story()));
        let refs = format!("refs/pipeline/saved/*:refs/{id}/*");
        project.git(&["-C", lib, "fetch", "-q", bundle.to_str().expect("it is UTF-8"), &refs]);
        let refs = format!("refs/{id}/");
        let kept = project.git(&["-C", lib, "for-each-ref", "--format=%(refname)", &refs]);
        let kept = kept.lines().next().expect("what was saved");
        let files = ["v", "w"].map(|file| format!("{kept}:{file}"));
        let files = files.map(|file| project.git(&["-C", lib, "show", &file]));
        assert_eq!(files, ["one\ndirty", "new"]);
    }
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
    two(project);
}

/// What was hidden has landed, and what was left out is still there.
pub(super) fn is_whole(project: &Project) {
    let file = |name: &str| project.git(&["show", &format!("pipeline/landed:{name}")]);
    assert_eq!(file("a.txt"), "one\ntwo\nthree\nB", "{}", project.story());
    assert_eq!(file("b.txt"), "b", "{}", project.story());
}

/// Agents say much, leave repositories, a worktree of their own and a rebase behind, commit what is in no commit,
/// and lose their index; the first one does only what git ignores.
const WILD: &str = r#"#!/bin/sh
set -eu
echo "$PIPELINE_ATTEMPT" >>"$E2E_DIR/runs"
echo "$PIPELINE_TASK_ID" >only.log
seq 2000
[ "$PIPELINE_ATTEMPT" != A.impl.1 ] || exit 0
echo "$PIPELINE_TASK_ID" >"$PIPELINE_STAGE-$PIPELINE_TASK_ID.txt"
git="git -c user.name=Agent -c user.email=agent@example.org"
git init -q inner
$git -C inner commit -q --allow-empty -m Inner
git worktree add -q --detach linked
git add -f "$PIPELINE_TASK_FILE"
$git commit -q -m "With the task file"
$git rebase -q -x false HEAD~1 || true
rm "$(git rev-parse --git-dir)/index"
"#;

/// Two tasks for one worktree, of a checkout in which not all files are.
pub(super) fn wild(project: &Project) {
    let text = "[project]\nrollout = \"pilot\"\n[scheduler]\nprefetch = 0\n\
                [worktree]\nkeep = [\"kept.log\"]\nsetup = [\"true\"]\n[limits]\nlog_bytes = \"4KiB\"\n";
    with(project, text, 1);
    project.write("tools/agent.sh", WILD);
    project.write("b.txt", "b\n");
    project.write(".gitignore", "*.log\n");
    project.commit("Wild agents");
    project.git(&["sparse-checkout", "set", "--no-cone", "/*", "!/b.txt"]);
    project.ok(&["init"]);
    two(project);
}

/// What they left is beside their worktree, where git knows of it, and has not landed.
pub(super) fn is_apart(project: &Project) {
    let left = project.path(".pipeline/worktrees/implementation/left");
    let found = walkdir::WalkDir::new(left).min_depth(2).max_depth(2).sort_by_file_name();
    let found: Vec<_> = found.into_iter().flatten().map(walkdir::DirEntry::into_path).collect();
    for (id, name) in [("A", "inner"), ("A", "linked"), ("B", "inner"), ("B", "linked")] {
        let is_its = |path: &&std::path::PathBuf| {
            path.ends_with(name) && path.to_string_lossy().contains(&format!("/{id}.impl."))
        };
        let dir = found.iter().find(is_its).unwrap_or_else(|| panic!("{id}\n{}", project.story()));
        let dir = dir.to_str().expect("it is UTF-8");
        let top = project.try_git(&["-C", dir, "rev-parse", "--show-toplevel"]);
        assert_eq!(top.out.trim(), dir, "{}{}", top.err, project.story());
    }
    let worktrees = project.git(&["worktree", "list", "--porcelain"]);
    assert!(!worktrees.contains("prunable"), "{worktrees}\n{}", project.story());
    let names = project.git(&["ls-tree", "--name-only", "pipeline/landed"]);
    let new = ["implementation-A.txt", "implementation-B.txt"];
    let expected = [".gitignore", "a.txt", "b.txt", new[0], new[1], "pipeline.toml", "tools"];
    assert_eq!(names.lines().collect::<Vec<_>>(), expected, "{}", project.story());
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

pub(super) fn long_journal(project: &Project) {
    pilot(project);
    fs::write(project.dir().join("body"), "x".repeat(BODY_BYTES)).expect("a body");
    for id in ["L1", "L2", "L3", "L4"] {
        project.ok(&["task", "add", "Long", "--id", id, "--hold", "--body-file", "../body"]);
    }
}

/// One that has had its second checkpoint, and is near the third.
pub(super) fn longer_journal(project: &Project) {
    long_journal(project);
    for number in 5..LONGER {
        let id = format!("L{number}");
        project.ok(&["task", "add", "Long", "--id", &id, "--hold", "--body-file", "../body"]);
    }
    let journal = project.path(".git/pipeline/journal");
    let segments = fs::read_dir(journal).expect("the journal is there").count();
    assert_eq!(segments, 2);
}

/// The first segment is gone, as two are enough; or goes with the next checkpoint.
pub(super) fn is_removed(project: &Project) {
    assert_eq!(project.count("total"), LONGER);
    let journal = project.path(".git/pipeline/journal");
    let is_segment =
        |entry: &fs::DirEntry| entry.path().extension().is_some_and(|it| it == "ndjson");
    let segments = fs::read_dir(journal).expect("the journal is there").flatten();
    assert!((2..=3).contains(&segments.filter(is_segment).count()), "{}", project.story());
}

pub(super) fn long_again(project: &Project) {
    let is_there = project.run(&["task", "show", "LAST"]).code == Some(0);
    let code = if is_there { 2 } else { 0 };
    assert_eq!(project.run(LONG).code, Some(code), "it is there: {is_there}");
}

pub(super) fn is_rotated(project: &Project) {
    assert_eq!(project.count("total"), 5);
    let journal = project.path(".git/pipeline/journal");
    let segments = fs::read_dir(journal).expect("the journal is there").count();
    assert!(segments >= 2, "{segments} segments: no checkpoint was made");
}
