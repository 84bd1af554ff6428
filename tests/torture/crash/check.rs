//! What holds after a crash and the run that followed.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use fs2::FileExt;

use super::scenario::{MONITOR, Scenario};
use crate::support::processes_of;
use crate::support::project::Project;

const LANDED: &str = "refs/heads/pipeline/landed";

/// Monitors that may be needed until no temporary file is left: one that ends does not wait for its
/// look at what lies outside, and may leave the one that this writes.
const SWEEPS_MAX: usize = 3;

/// All that must hold; panics with what does not.
pub(super) fn assert_whole(project: &Project, scenario: &Scenario) {
    let has_git = project.path(".git").is_dir();
    if has_git {
        assert_landed_once(project, scenario);
        assert_repository_whole(project, scenario);
    }
    assert_stages_once(project, scenario);
    assert_runs_once(project, scenario);
    let state = project.path(if has_git { ".git/pipeline" } else { ".pipeline/state" });
    assert_nothing_left(project, &state);
    project.ok(&["doctor"]);
    (scenario.check)(project);
}

fn assert_landed_once(project: &Project, scenario: &Scenario) {
    let mut landed = Vec::new();
    if project.try_git(&["rev-parse", "-q", "--verify", LANDED]).code == Some(0) {
        landed = project.landings(LANDED);
    }
    // What had landed before the scenario began.
    landed.retain(|id| id != "OLD");
    landed.sort();
    assert_eq!(landed, scenario.landed, "landed\n{}", project.story());
}

/// Each stage of each task was completed no more often than it was to be; and once where the task has landed.
fn assert_stages_once(project: &Project, scenario: &Scenario) {
    let mut works: Vec<(String, String)> = Vec::new();
    let mut completed: BTreeMap<String, usize> = BTreeMap::new();
    for entry in project.log() {
        let text = |name: &str| entry[name].as_str().unwrap_or_default().to_owned();
        if entry["kind"] == "attempt_added" && entry["purpose"] == "work" {
            works.push((text("attempt"), format!("{} {}", text("task"), text("stage"))));
        }
        if entry["kind"] == "attempt_ended" && entry["class"] == "completed" {
            let Some((_, stage)) = works.iter().find(|(id, _)| *id == text("attempt")) else {
                continue;
            };
            let times = completed.entry(stage.clone()).or_default();
            *times += 1;
            assert!(*times <= scenario.most, "{stage} {times} times\n{}", project.story());
        }
    }
    for id in scenario.landed {
        let is_done =
            completed.keys().any(|stage| stage.split_once(' ').is_some_and(|s| s.0 == *id));
        assert!(is_done, "{id} landed without a completed stage\n{}", project.story());
    }
}

/// No attempt was run twice.
fn assert_runs_once(project: &Project, scenario: &Scenario) {
    // Set up anew it counts its attempts anew.
    if scenario.name.starts_with("deinit") {
        return;
    }
    let runs = project.runs();
    let once: BTreeSet<&String> = runs.iter().collect();
    assert_eq!(once.len(), runs.len(), "{runs:?}\n{}", project.story());
}

/// A monitor that was killed has found the agents again that it had started: none counts as lost.
pub(super) fn assert_found_again(project: &Project) {
    let runs = project.runs();
    for entry in project.log().iter().filter(|entry| entry["kind"] == "attempt_ended") {
        let attempt = entry["attempt"].as_str().unwrap_or_default();
        let has_run = runs.iter().any(|run| run == attempt);
        assert!(!has_run || entry["class"] != "lost", "{attempt} was lost\n{}", project.story());
    }
}

/// Git finds no fault, no lock of git is left, the checkout is clean.
fn assert_repository_whole(project: &Project, scenario: &Scenario) {
    let fsck = project.try_git(&["fsck", "--strict", "--no-dangling", "--no-progress"]);
    let found = (fsck.code, fsck.out.as_str(), fsck.err.as_str());
    assert_eq!(found, (Some(0), "", ""), "{}", project.story());
    assert_eq!(checkout_dirt(project, scenario), Vec::<String>::new());
    let state = project.path(".git/pipeline");
    let locks: Vec<PathBuf> = files(&project.path(".git"))
        .into_iter()
        .filter(|path| path.extension().is_some_and(|ending| ending == "lock"))
        .filter(|path| !path.starts_with(&state))
        .collect();
    assert_eq!(locks, Vec::<PathBuf>::new(), "locks of git\n{}", project.story());
}

/// What is not as it should be in the user's checkout: locks, and changed files.
pub(super) fn checkout_dirt(project: &Project, scenario: &Scenario) -> Vec<String> {
    let names =
        ["index.lock", "HEAD.lock", "ORIG_HEAD.lock", "AUTO_MERGE.lock", "refs/heads/main.lock"];
    let locks = names.iter().filter(|name| project.path(".git").join(name).exists());
    let mut dirt: Vec<String> = locks.map(|name| (*name).to_owned()).collect();
    let status = project.git(&["status", "--porcelain"]);
    // What a person left there is looked at by the scenario.
    let others = status.lines().filter(|line| !scenario.dirt.contains(line));
    dirt.extend(others.map(str::to_owned));
    dirt
}

/// No process, no held lock, no temporary file.
fn assert_nothing_left(project: &Project, state: &Path) {
    project.until("its processes to leave", || processes_of(&project.dir()).is_empty());
    for path in files(state) {
        let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        if name == "lock" || name.ends_with(".lock") {
            let file = fs::File::open(&path).expect("a lock's file");
            assert!(FileExt::try_lock_exclusive(&file).is_ok(), "{} is held", path.display());
        }
    }
    for _ in 0..SWEEPS_MAX {
        let left = temporary(state);
        if left.is_empty() {
            break;
        }
        // What a killed writer left goes with a later one, once it is old.
        left.iter().for_each(|path| make_old(path));
        project.run(MONITOR);
    }
    assert_eq!(temporary(state), Vec::<PathBuf>::new(), "temporary files");
    assert_eq!(files(&project.dir().join("tmp")), Vec::<PathBuf>::new(), "temporary files");
}

pub(super) fn make_old(path: &Path) {
    let file = fs::File::options().write(true).open(path).expect("a file of ours");
    let modified = file.metadata().and_then(|meta| meta.modified()).expect("it has a time");
    file.set_modified(modified - Duration::from_secs(60)).expect("a file of ours");
}

/// Temporary files in the state folder, but for those that go with the folder of their attempt, and
/// with the next checkpoint of the journal.
fn temporary(state: &Path) -> Vec<PathBuf> {
    let mut found = files(state);
    let stays = [state.join("attempts"), state.join("journal")];
    found.retain(|path| {
        if stays.iter().any(|folder| path.starts_with(folder)) {
            return false;
        }
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        name.contains(".tmp") || name.starts_with('.')
    });
    found
}

/// All files below a folder; sorted.
fn files(dir: &Path) -> Vec<PathBuf> {
    let entries = walkdir::WalkDir::new(dir).sort_by_file_name().into_iter().flatten();
    let files = entries.filter(|entry| !entry.file_type().is_dir());
    files.map(walkdir::DirEntry::into_path).collect()
}
