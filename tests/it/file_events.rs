//! A user whose file events are used up: commands and the monitor look now and then instead.

use crate::doctor::apart;
use crate::support::processes_of;
use crate::support::project::Project;

/// A monitor begun and ended, a journal followed, a mode waited for, the pipeline taken out; exits with
/// the first status that is not 0.
const LIFE: &str = r#"
until_has() {
    i=0
    until grep -q "$1" "$2" 2>/dev/null; do i=$((i + 1)); [ $i -lt 20000 ]; done
}
touch "$E2E_DIR/hold"
pipeline task add one --id ONE
pipeline monitor --detach
until_has ONE "$E2E_DIR/runs"
pipeline log -f >"$E2E_DIR/followed" & log=$!
pipeline status --watch >"$E2E_DIR/watched" & status=$!
pipeline task add two --id LATER
until_has LATER "$E2E_DIR/followed"
until_has LATER "$E2E_DIR/watched"
kill $log $status
pipeline mode switch sequential --wait 60s & switch=$!
until_has drain "$E2E_DIR/project/.git/pipeline/journal/00000000000000000000.ndjson"
rm "$E2E_DIR/hold"
wait $switch
pipeline stop
pipeline monitor --detach
pipeline deinit --force
"#;

#[test]
fn commands_that_wait_do_without_file_events() {
    let project = Project::new(1);
    let limit = "echo 0 >/proc/sys/user/max_inotify_instances";
    let Some((code, said)) = apart(&project, &format!("{limit}\n{LIFE}")) else { return };
    assert_eq!(code, Some(0), "{said}");
    assert!(!said.contains("cannot watch"), "{said}");
    assert!(!project.state_dir().exists(), "{said}");
    project.until("their end", || processes_of(&project.dir()).is_empty());
}

#[test]
fn an_idle_monitor_that_polls_hears_of_orders_at_once() {
    let project = Project::new(1);
    let mut monitor = project.monitor(&["--poll-only"]);
    // Longer than it may take to end is a failure of `stop`, and shorter than the idle poll.
    project.ok(&["stop"]);
    assert_eq!(monitor.end(&project), Some(0));
    let mut monitor = project.monitor(&["--poll-only"]);
    project.ok(&["task", "add", "one", "--id", "ONE"]);
    project.until("the task to land", || project.count("completed") == 1);
    project.ok(&["stop"]);
    assert_eq!(monitor.end(&project), Some(0));
    project.assert_nothing_left();
}
