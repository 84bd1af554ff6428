//! Jobs in windows: what is typed there, and what the keeper makes of every failure on the way.

use std::fs;
use std::path::Path;

use pipeline::agent::Launcher;
use pipeline::agent::client::Report;
use pipeline::agent::job::{EndedBy, ExitRecord, Job, JobCommand};
use pipeline::agent::rendezvous::SOCKET_PATH_BYTES_MAX;
use pipeline::agent::terminal::Terminal;
use pipeline::agent::terminal::typing::Typing;
use pipeline::sys::proc;
#[cfg(feature = "failpoints")]
use {pipeline::agent::probe::Probe, pipeline::agent::tree::end_orphans, std::time::Duration};

use super::{AGENT, World, is_alive, wait_until};

/// The job in a window, with what is typed there once `ready` shows.
fn in_window(job: Job, ready: Option<&str>) -> Job {
    let typing = ready
        .map(|ready| Typing { ready: Some(ready.into()), ..Typing::line("TASK-001.md", None) });
    let terminal = Terminal { session: "s".into(), typing, notice: None };
    Job { terminal: Some(terminal), ..job }
}

/// Runs one job in a window, and checks that neither that nor its server is left.
fn run_in_window(world: &World, job: Job) -> ExitRecord {
    let monitor = world.monitor();
    monitor.keepers.start(AGENT, job);
    let record = monitor.exited();
    drop(monitor);
    leave(world);
    record
}

/// Waits until keeper, server and shim have gone; nothing is left then, and no socket.
fn leave(world: &World) {
    world.wait_for_keepers_end();
    let dir = world.dir.path().to_string_lossy().into_owned();
    wait_until("the server is gone", || {
        let line = |pid: i32| fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
        let all = proc::all().expect("/proc is readable");
        !all.iter().any(|stat| String::from_utf8_lossy(&line(stat.pid)).contains(&dir))
    });
    world.check_nothing_is_left();
}

fn sockets(run: &Path) -> Vec<String> {
    let found = fs::read_dir(run).expect("the runtime folder").flatten();
    found.map(|entry| entry.file_name().to_string_lossy().into_owned()).collect()
}

#[test]
fn job_in_a_window_is_recorded_as_any_other() {
    let world = World::new("window");
    let job = in_window(world.job("a1", &["test -t 0 && echo out; echo err >&2; exit 7"]), None);
    let record = run_in_window(&world, job);
    assert_eq!(
        (record.code, record.signal, record.ended_by),
        (Some(7), None, EndedBy::Exit),
        "{record:?}"
    );
    assert_eq!((record.leaked, record.left, record.log_bytes), (0, 0, 10));
    assert!(record.max_rss_kib > 0, "{record:?}");
    assert_eq!(world.log("a1"), "out\r\nerr\r\n");
    let mut job = in_window(world.job("a2", &["true"]), None);
    job.commands = vec![JobCommand::Argv(vec!["no-such-agent".into()])];
    let record = run_in_window(&world, job);
    assert_eq!((record.code, record.ended_by), (None, EndedBy::SpawnFailed));
    assert_eq!(sockets(&world.run), [""; 0]);
}

#[test]
fn time_limit_in_a_window_ends_the_tree_with_a_daemon_that_nothing_names() {
    let world = World::new("window-limit");
    let daemon =
        "env -i setsid sh -c 'trap \"\" TERM HUP; echo $$ >daemon; while :; do sleep 60; done'";
    let line = format!("trap '' TERM HUP; {daemon} & while :; do sleep 60; done");
    let mut job = in_window(world.job("a1", &[&line]), None);
    job.timeout_ms = Some(5_000);
    let record = run_in_window(&world, job);
    assert_eq!((record.ended_by, record.signal, record.left), (EndedBy::Timeout, Some(9), 0));
    assert!(!is_alive(world.pid_in("daemon")));
}

#[test]
fn line_is_typed_when_the_ready_pattern_shows() {
    let world = World::new("typed");
    let line = "echo starting; sleep 1; printf 'ready> '; read -r line; echo \"got $line\"";
    let record = run_in_window(&world, in_window(world.job("a1", &[line]), Some("^ready> ")));
    assert_eq!(record.code, Some(0));
    let typed = "Read TASK-001.md and do what it says.";
    let log = format!("starting\r\nready> {typed}\r\ngot {typed}\r\n");
    assert_eq!(world.log("a1"), log);
}

#[test]
fn job_refused_by_a_keeper_that_leaves_is_not_told_as_lost_too() {
    // Its monitor would start it again, beside the attempt that follows in the same worktree.
    let world = World::new("cut-off");
    let monitor = world.monitor();
    monitor.keepers.start(AGENT, world.job("a1", &["true"]));
    assert_eq!(monitor.exited().attempt, "a1");
    fs::remove_dir_all(&world.run).expect("goes");
    monitor.keepers.start(AGENT, in_window(world.job("a2", &["true"]), None));
    match monitor.next() {
        Report::Refused { attempt, .. } => assert_eq!(attempt.as_deref(), Some("a2")),
        other => panic!("{other:?}"),
    }
    match monitor.next() {
        Report::KeeperLost { attempt: None, .. } => {}
        other => panic!("{other:?}"),
    }
    monitor.keepers.start(AGENT, in_window(world.job("a3", &["true"]), None));
    assert_eq!(monitor.exited().attempt, "a3");
    drop(monitor);
    leave(&world);
}

/// Reads one line and keeps it.
const KEEPS: &str = "printf 'ready> '; IFS= read -r line; printf '%s' \"$line\" >line";

#[test]
fn any_line_arrives_as_it_is() {
    let lines = [
        "-p; it's \"my\" $HOME `task` \\",
        "ends with ;",
        "ends with \\;",
        "#{pane_id} #(date) %1 ~ !!",
        "\u{fc}n\u{ef}c\u{f6}de \u{6f22}\u{5b57} \u{1f980}",
    ];
    for line in lines {
        let world = World::new("line");
        let typing = Typing { line: line.into(), ..Typing::line("", None) };
        let typing = Typing { ready: Some("^ready> ".into()), ..typing };
        let mut job = in_window(world.job("a1", &[KEEPS]), None);
        job.terminal = job.terminal.map(|it| Terminal { typing: Some(typing), ..it });
        let record = run_in_window(&world, job);
        let kept = fs::read_to_string(world.path("line")).unwrap_or_default();
        assert_eq!((kept.as_str(), record.code), (line, Some(0)));
    }
}

/// The longest path that a socket may have, and all that shells and tmux have a meaning for.
#[test]
fn window_opens_however_long_and_odd_the_path_of_the_sockets() {
    let base = tempfile::tempdir().expect("temporary folder").path().as_os_str().len();
    let odd = "r un's \"#{x}\" $HOME;";
    // A slash, and a name of 16 digits with its ending.
    let room = SOCKET_PATH_BYTES_MAX - base - 1 - odd.len() - 1 - 21;
    let run = format!("{}{odd}", "r".repeat(room));
    let world = World::in_run("long", &run);
    let job = in_window(world.job("a1", &["true"]), None);
    let monitor = world.monitor();
    monitor.keepers.start(AGENT, job);
    let record = monitor.exited();
    let names = sockets(&world.run);
    let lengths: Vec<usize> = names.iter().map(|it| world.run.join(it).as_os_str().len()).collect();
    assert!(lengths.contains(&SOCKET_PATH_BYTES_MAX), "{names:?} {lengths:?}");
    assert_eq!(record.code, Some(0), "{record:?}");
    drop(monitor);
    leave(&world);
}

/// How a job in a window went, with the keeper and all below it under `plan`; the points passed.
#[cfg(feature = "failpoints")]
fn struck(plan: &str, job: impl Fn(&World) -> Job) -> Vec<String> {
    let world = World::new(&format!("pane-{}", plan.replace([':', '.', '='], "-")));
    let plan_text = format!("PIPELINE_FAILPOINT={plan}");
    let log_text = format!("PIPELINE_FAILPOINT_LOG={}", world.path("points").display());
    let args = [&plan_text, &log_text, env!("CARGO_BIN_EXE_pipeline"), "__keeper"];
    let monitor = world.monitor_with("/usr/bin/env", &args);
    monitor.keepers.start(AGENT, job(&world));
    let found = loop {
        match monitor.next() {
            Report::Exited { record, .. } => break Probe::Exited(record),
            Report::KeeperLost { found, .. } => break found.expect("readable"),
            Report::StartFailed { .. } => break Probe::Nothing,
            Report::Connected { .. } | Report::Started { .. } => {}
            other => panic!("at `{plan}`: {other:?}"),
        }
    };
    drop(monitor);
    if let Probe::Strays(started) = &found {
        end_orphans(started, Duration::ZERO).expect("ends");
    }
    leave(&world);
    let runs = fs::read_to_string(world.path("count")).unwrap_or_default().lines().count();
    match &found {
        Probe::Exited(record) => match record.ended_by {
            EndedBy::Exit => assert_eq!((record.code, runs), (Some(0), 1), "at `{plan}`"),
            EndedBy::Lost => assert!(!record.reason.is_empty(), "at `{plan}`: {record:?}"),
            other => panic!("at `{plan}`: {other:?}"),
        },
        Probe::Nothing => assert_eq!(runs, 0, "at `{plan}`"),
        Probe::Strays(_) | Probe::Started(_) => assert!(runs <= 1, "at `{plan}`"),
        Probe::KeeperAlive | Probe::Elsewhere => panic!("at `{plan}`: {found:?}"),
    }
    let points = fs::read_to_string(world.path("points")).unwrap_or_default();
    points.lines().map(str::to_owned).collect()
}

/// Killed or refused at any point of theirs, keeper and shim leave nothing behind that hides a run.
#[cfg(feature = "failpoints")]
#[test]
fn struck_at_any_point_a_window_never_hides_a_run() {
    let plain = |world: &World| in_window(world.job("a1", &["echo x >>count"]), None);
    let typed = |world: &World| {
        let text = "printf 'ready> '; read -r line; echo x >>count";
        in_window(world.job("a1", &[text]), Some("^ready> "))
    };
    let mut passes = std::collections::BTreeMap::new();
    let points = struck("none", plain).into_iter();
    let pastes = struck("none", typed).into_iter().filter(|name| name == "tmux.paste");
    for name in points.chain(pastes) {
        let pass = passes.entry(name.clone()).and_modify(|pass| *pass += 1).or_insert(1);
        let is_ours = name.starts_with("pane.") || name.starts_with("tmux.");
        for action in ["kill", "error"].into_iter().take(1 + usize::from(is_ours)) {
            let plan = format!("{name}:{pass}={action}");
            match name.as_str() {
                "tmux.paste" => drop(struck(&plan, typed)),
                _ => drop(struck(&plan, plain)),
            }
        }
    }
    let ours = ["listen", "connect", "face", "pty"].map(|name| format!("pane.{name}"));
    let theirs = ["open", "paste", "clear"].map(|name| format!("tmux.{name}"));
    let missed: Vec<&String> =
        ours.iter().chain(&theirs).filter(|name| !passes.contains_key(*name)).collect();
    assert!(missed.is_empty(), "never passed: {missed:?} of {passes:?}");
}
