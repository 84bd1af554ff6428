//! What end-to-end tests share: a project in a temporary folder, the real binary with a cleaned
//! environment, waiting on conditions, and the check that nothing is left behind.

pub(crate) mod checks;
pub(crate) mod journal;
pub(crate) mod project;
pub(crate) mod schema;

use std::fs;
use std::path::Path;
use std::time::Duration;

use pipeline::sys::clock::monotonic;

/// Longest that a test waits for one thing.
pub(crate) const LIMIT: Duration = Duration::from_secs(240);
/// Between two looks at a condition.
const LOOK: Duration = Duration::from_millis(5);

/// Waits until `condition` gives something; panics, with what `state` says, when it never does.
pub(crate) fn until<T>(
    what: &str,
    state: impl Fn() -> String,
    mut condition: impl FnMut() -> Option<T>,
) -> T {
    let begun = monotonic();
    loop {
        if let Some(found) = condition() {
            return found;
        }
        assert!(begun.elapsed() < LIMIT, "waited too long for {what}\n{}", state());
        std::thread::park_timeout(LOOK);
    }
}

/// Puts a program at `path`. Another process writes it: a program that is open for writing cannot be
/// executed, and what another test starts just now has a copy of each descriptor of ours.
pub(crate) fn install(path: &Path, text: &str) {
    let script = r#"mkdir -p "${1%/*}" && printf %s "$2" >"$1" && chmod 755 "$1""#;
    let mut sh = pipeline::sys::child::command("sh", Path::new("/"));
    sh.args(["-c", script, "sh"]).arg(path).arg(text);
    assert!(sh.status().expect("sh starts").success(), "writes {}", path.display());
}

/// Puts a copy of a program at `path`, as [`install`] does.
pub(crate) fn install_copy(from: &Path, path: &Path) {
    let mut cp = pipeline::sys::child::command("cp", Path::new("/"));
    assert!(cp.arg(from).arg(path).status().expect("cp starts").success());
}

/// Ids of living processes whose environment names `dir`, with their command lines; sorted.
pub(crate) fn processes_of(dir: &Path) -> Vec<(i32, String)> {
    let needle = dir.as_os_str().as_encoded_bytes();
    let mut found = Vec::new();
    for entry in fs::read_dir("/proc").expect("/proc is there").flatten() {
        let Some(pid) = entry.file_name().to_str().and_then(|name| name.parse().ok()) else {
            continue;
        };
        let Ok(environ) = fs::read(entry.path().join("environ")) else { continue };
        if pid == own_pid() || !environ.windows(needle.len()).any(|window| window == needle) {
            continue;
        }
        let line = fs::read(entry.path().join("cmdline")).unwrap_or_default();
        found.push((pid, String::from_utf8_lossy(&line).replace('\0', " ")));
    }
    found.sort();
    found
}

fn own_pid() -> i32 {
    std::process::id().cast_signed()
}

/// Sends a signal to one process by its id; one that is gone is left alone.
pub(crate) fn signal(pid: i32, signal: rustix::process::Signal) {
    if let Some(pid) = rustix::process::Pid::from_raw(pid) {
        // Gone is what it is to be.
        let _ = rustix::process::kill_process(pid, signal);
    }
}
