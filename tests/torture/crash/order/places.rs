//! Where anything is changed at all: in our folders, and in what of git's is ours. The step that
//! brings the base to what has landed changes the checkout, and there those files alone.

use crate::tracer::Point;

/// Our folders, and what begins like them: what is on its way out of `.git`, the bundle of the rest.
const OURS: [&str; 5] = [
    "project/.git/pipeline",
    "project/.git/worktrees",
    "project/.pipeline",
    "run/pipeline",
    "tmp/",
];
/// What git may change for us besides.
const OF_GIT: [&str; 6] = [
    "project/.git/objects/",
    "project/.git/packed-refs",
    "project/.git/refs/heads/pipeline",
    "project/.git/refs/pipeline",
    "project/.git/logs/refs/heads/pipeline",
    "project/.git/logs/refs/pipeline",
];
/// Where a person's command says that our folders are no files of the project, and takes them out.
const OF_COMMANDS: [&str; 4] = [
    "project/.git",
    "project/.git/info",
    "project/.git/info/exclude",
    "project/.git/refs/pipeline",
];
/// What the step of the base changes, in git's folder.
const STEP: [&str; 7] = [
    "refs/heads/main",
    "logs/refs/heads/main",
    "index",
    "HEAD",
    "ORIG_HEAD",
    "logs/HEAD",
    "logs/ORIG_HEAD",
];
/// Who makes that step.
const STEPPERS: [&str; 6] = ["monitor", "shell", "mv", "rm", "git merge", "git update-ref"];
/// Who ends one that was cut short, and in which scenarios.
const ENDERS: [&str; 2] = ["git checkout-index", "git read-tree"];
const CUT_SHORT: [&str; 2] = ["half-way", "unlocked"];
/// Scenarios in which the base is brought forward, and the files that have landed.
const FOLLOWED: [(&str, &[&str]); 12] = [
    ("landing", &[]),
    ("following", &["project/architect-A.txt"]),
    ("edited", &["project/architect-A.txt"]),
    ("pilot-dropped", &["project/architect-A.txt"]),
    ("base-moved", &["project/architect-A.txt"]),
    ("conflict", &["project/a.txt"]),
    ("finished", &["project/architect-A.txt"]),
    ("promoted", &["project/architect-A.txt"]),
    ("half-way", &["project/a.txt", "project/architect-A.txt"]),
    ("at-the-end", &[]),
    ("unlocked", &[]),
    ("in-the-way", &[]),
];
/// Where a person gets the work on a branch of its own.
const RESTORED: [&str; 2] =
    ["project/.git/refs/heads/salvage", "project/.git/logs/refs/heads/salvage"];
/// What stands there is no file, or nobody's.
const NOBODYS: [&str; 6] = ["socket:", "pipe:", "anon_inode:", "/memfd:", "/dev/", "/proc/"];

/// Says what of these calls changes something that is not ours.
pub(super) fn astray(scenario: &str, points: &[Point]) -> Vec<String> {
    let mut found: Vec<String> = Vec::new();
    for point in points {
        let role = point.role.split('#').next().unwrap_or_default();
        let role = role.trim_start_matches("child of ");
        for path in point.places.iter().filter(|path| !is_allowed(scenario, role, path)) {
            found.push(format!("`{path}` is changed by {}: {}", point.role, point.call));
        }
    }
    found
}

fn is_allowed(scenario: &str, role: &str, path: &str) -> bool {
    let begins = |with: &[&str]| with.iter().any(|it| path.starts_with(it));
    let is_ours = begins(&OURS) || path == crate::tracer::OUTPUT;
    let is_no_file = begins(&NOBODYS) && !path.starts_with("/dev/shm/");
    let is_git = role.starts_with("git ");
    let is_ender = ENDERS.contains(&role) && CUT_SHORT.contains(&scenario);
    let is_stepper = STEPPERS.contains(&role) || is_ender;
    is_ours
        || is_no_file
        || (is_git && begins(&OF_GIT))
        || (role == "command" && OF_COMMANDS.contains(&path))
        || (role == "git branch" && scenario == "salvage-restored" && begins(&RESTORED))
        || (is_stepper && is_of_step(scenario, path))
        // What a git left that was killed.
        || (role == "monitor" && begins(&OF_GIT) && path.ends_with(".lock"))
}

fn is_of_step(scenario: &str, path: &str) -> bool {
    let Some((_, files)) = FOLLOWED.iter().find(|(name, _)| *name == scenario) else {
        return false;
    };
    let Some(inner) = path.strip_prefix("project/.git/") else { return files.contains(&path) };
    let inner = inner.strip_suffix(".lock").unwrap_or(inner);
    // What git takes away of an unfinished merge.
    let is_merge =
        ["MERGE_", "AUTO_MERGE", "logs/AUTO_MERGE"].iter().any(|it| inner.starts_with(it));
    STEP.contains(&inner) || is_merge
}
