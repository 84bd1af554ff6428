//! A user whose file events are used up: commands and the monitor look now and then instead.

use crate::doctor::apart;
use crate::monitor_run::ticks_in;
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

/// Writes the settings as fast as it can while it is told to, each time with another comment, and last
/// as they were; they are whole at any time.
const STORM: &str = r#"set -eu
echo "$PIPELINE_ATTEMPT" >>"$E2E_DIR/runs"
settings=$PIPELINE_PROJECT/pipeline.toml
text=$(cat "$settings")
n=0
while [ "$PIPELINE_TASK_ID" = STORM ] && [ -e "$E2E_DIR/hold.storm" ]; do
    n=$((n + 1))
    printf '%s\n# %06d\n' "$text" $n 1<>"$settings"
    [ $((n % 100)) != 0 ] || echo $n >"$E2E_DIR/written"
done
if [ $n -gt 0 ]; then printf '%s\n' "$text" >"$settings.new" && mv "$settings.new" "$settings"; fi
echo "$PIPELINE_TASK_ID" >"$PIPELINE_TASK_ID.txt"
"#;
/// How long the storm is watched at least, and the most that the monitor may work meanwhile: its loop a
/// quarter of the time, and not more than one processor with who reads the events.
const STORM_MS: u64 = 4_000;
const LOOP_PERCENT_MAX: u64 = 25;
const PERCENT_MAX: u64 = 100;

#[test]
fn a_storm_of_file_events_costs_little_and_holds_nothing_up() {
    let project = Project::new(1);
    project.write("tools/agent.sh", STORM);
    project.commit("A storm");
    project.hold("hold.storm");
    project.ok(&["task", "add", "storm", "--id", "STORM", "--stages", "architect"]);
    let written = || {
        let text = std::fs::read_to_string(project.dir().join("written")).unwrap_or_default();
        text.trim().parse::<u64>().unwrap_or_default()
    };
    let mut monitor = project.monitor(&["--until-idle"]);
    project.until("the storm", || written() > 0);
    let pid = monitor.pid();
    let all = || ticks_in(&format!("/proc/{pid}/stat"));
    let in_loop = || ticks_in(&format!("/proc/{pid}/task/{pid}/stat"));
    let (begun, at) = (pipeline::sys::clock::monotonic(), written());
    let before = (all(), in_loop());
    // Whoever is told of something meanwhile hears it.
    project.ok(&["task", "add", "other", "--id", "OTHER", "--stages", "test"]);
    project.until("the other task to land", || project.task("OTHER") == "completed");
    let watched_ms = || u64::try_from(begun.elapsed().as_millis()).expect("a few seconds");
    project.until("the watch to end", || watched_ms() > STORM_MS);
    let (count, used) = (written() - at, (all() - before.0, in_loop() - before.1));
    assert!(count > 1_000, "only {count} events: that is no storm");
    // A tick is 10 ms.
    let percent = [used.0, used.1].map(|ticks| ticks * 1_000 / watched_ms());
    let is_little = percent[0] < PERCENT_MAX && percent[1] < LOOP_PERCENT_MAX;
    assert!(is_little, "{percent:?} % for {count} events in {:?}", begun.elapsed());
    project.release("hold.storm");
    assert_eq!(monitor.end(&project), Some(0), "{}{}", monitor.said(), project.story());
    let mut landed = project.landings("pipeline/landed");
    landed.sort();
    assert_eq!(landed, ["OTHER", "STORM"], "{}", project.story());
    assert_eq!(project.runs().len(), 2, "{}", project.story());
    project.assert_nothing_left();
}
