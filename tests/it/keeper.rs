//! Keepers, with real processes: what they run, what they end, and how they are found again.

mod windows;

use std::fs;
use std::os::unix::ffi::OsStringExt;
use std::path::{Path, PathBuf};
use std::sync::mpsc::{Receiver, channel};
use std::time::Duration;

use fs2::FileExt;
use pipeline::agent::Launcher;
use pipeline::agent::client::{KeeperDirs, Keepers, Report};
use pipeline::agent::connect::KeeperExe;
use pipeline::agent::job::{AttemptRef, EndedBy, ExitRecord, JOB_VERSION, Job, JobCommand};
use pipeline::agent::probe::Probe;
use pipeline::agent::rendezvous::{KeeperInfo, lock_path, private_dir};
use pipeline::agent::tree::end_orphans;
use pipeline::sys::clock::monotonic;
use pipeline::sys::proc;
use tempfile::TempDir;

use crate::support::install;

const LIMIT: Duration = Duration::from_secs(60);
const AGENT: &str = "impl-1";
/// Waits for the file `go`.
const UNTIL_GO: &str = "while ! test -e go; do sleep 0.01; done";

fn is_held(path: &Path) -> bool {
    fs::File::open(path).is_ok_and(|file| FileExt::try_lock_shared(&file).is_err())
}

/// A project's folder with one agent, and a nonce that no other test has.
struct World {
    dir: TempDir,
    nonce: String,
    /// The folder of the sockets.
    run: PathBuf,
}

impl World {
    fn new(name: &str) -> Self {
        Self::in_run(name, "run")
    }

    /// The same with a runtime folder of this name.
    fn in_run(name: &str, run: &str) -> Self {
        let dir = tempfile::tempdir().expect("temporary folder");
        let run = dir.path().join(run);
        private_dir(&run).expect("runtime folder");
        Self { dir, nonce: format!("{name}-{}", std::process::id()), run }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    fn keeper_dir(&self) -> PathBuf {
        self.path("keepers").join(AGENT)
    }

    fn monitor(&self) -> Monitor {
        self.monitor_with(env!("CARGO_BIN_EXE_pipeline"), &["__keeper"])
    }

    fn monitor_with(&self, program: &str, args: &[&str]) -> Monitor {
        let (sender, reports) = channel();
        let args = args.iter().map(Into::into).collect();
        let dirs = KeeperDirs {
            keepers_dir: self.path("keepers"),
            exe: KeeperExe { program: program.into(), args },
            runtime_dir: self.run.clone(),
        };
        let report = move |report| sender.send(report).unwrap_or_default();
        Monitor { keepers: Keepers::new(dirs, report, is_held), reports }
    }

    fn attempt(&self, name: &str) -> AttemptRef {
        let attempt_dir = self.path(name);
        fs::create_dir_all(&attempt_dir).expect("attempt folder");
        AttemptRef { attempt: name.into(), nonce: format!("{}-{name}", self.nonce), attempt_dir }
    }

    fn job(&self, name: &str, commands: &[&str]) -> Job {
        let attempt = self.attempt(name);
        Job {
            v: JOB_VERSION,
            attempt: attempt.attempt,
            dir: self.dir.path().into(),
            commands: commands.iter().map(|text| JobCommand::Shell((*text).into())).collect(),
            stdin: None,
            log: attempt.attempt_dir.join("log"),
            log_bytes: 1024 * 1024,
            env: vec![
                ("PATH".into(), std::env::var("PATH").expect("a path")),
                ("PIPELINE_NONCE".into(), attempt.nonce.clone()),
            ],
            nonce: attempt.nonce,
            timeout_ms: None,
            silence_ms: None,
            attempt_dir: attempt.attempt_dir,
            marker_file: None,
            marker_grace_ms: 300,
            grace_ms: 300,
            terminal: None,
        }
    }

    fn log(&self, name: &str) -> String {
        fs::read_to_string(self.path(name).join("log")).expect("a log")
    }

    /// Runs one job to its end, and checks that nothing of it is left.
    fn run(&self, job: Job) -> ExitRecord {
        let monitor = self.monitor();
        monitor.keepers.start(AGENT, job);
        let record = monitor.exited();
        self.finish(monitor);
        record
    }

    /// Lets the keeper go and checks that neither it nor anything else is left.
    fn finish(&self, monitor: Monitor) {
        drop(monitor);
        self.wait_for_keepers_end();
        self.check_nothing_is_left();
    }

    fn wait_for_keepers_end(&self) {
        wait_until("the lock is free", || !is_held(&lock_path(&self.keeper_dir())));
        wait_until("the keeper is gone", || self.keeper_process().is_none());
    }

    fn keeper_process(&self) -> Option<proc::Process> {
        KeeperInfo::read(&self.keeper_dir())?.process().expect("/proc is readable")
    }

    fn check_nothing_is_left(&self) {
        let dir = self.dir.path().to_string_lossy().into_owned();
        for stat in proc::all().expect("/proc is readable") {
            let read = |file| fs::read(format!("/proc/{}/{file}", stat.pid)).unwrap_or_default();
            let text = [read("environ"), read("cmdline")].concat();
            let text = String::from_utf8_lossy(&text);
            let is_ours = text.contains(&self.nonce) || text.contains(&dir);
            assert!(!is_ours || stat.state == b'Z', "process {} is left: {text}", stat.pid);
        }
    }

    fn pid_in(&self, name: &str) -> i32 {
        let path = self.path(name);
        let mut pid = None;
        wait_until("a pid is written", || {
            let text = fs::read_to_string(&path).unwrap_or_default();
            pid = text.trim_end().parse().ok().filter(|_| text.ends_with('\n'));
            pid.is_some()
        });
        pid.expect("just read")
    }

    fn go(&self) {
        fs::write(self.path("go"), "").expect("writes");
    }
}

struct Monitor {
    keepers: Keepers,
    reports: Receiver<Report>,
}

impl Monitor {
    fn next(&self) -> Report {
        self.reports.recv_timeout(LIMIT).expect("a report in time")
    }

    fn exited(&self) -> ExitRecord {
        loop {
            match self.next() {
                Report::Exited { record, .. } => return *record,
                Report::Connected { .. } | Report::Started { .. } => {}
                other => panic!("{other:?}"),
            }
        }
    }

    fn started(&self) {
        loop {
            match self.next() {
                Report::Started { .. } => return,
                Report::Connected { .. } => {}
                other => panic!("{other:?}"),
            }
        }
    }
}

fn wait_until(what: &str, mut is_so: impl FnMut() -> bool) {
    let until = monotonic() + LIMIT;
    while !is_so() {
        assert!(monotonic() < until, "not in time: {what}");
        proc::wait_readable(&[], Some(Duration::from_millis(2))).expect("waits");
    }
}

fn is_alive(pid: i32) -> bool {
    proc::read_stat(pid).expect("/proc is readable").is_some_and(|stat| stat.state != b'Z')
}

#[test]
fn exit_code_output_and_usage_are_recorded() {
    let world = World::new("exit");
    let record = world.run(world.job("a1", &["echo out; echo err >&2; exit 7"]));
    assert_eq!((record.code, record.signal, record.ended_by), (Some(7), None, EndedBy::Exit));
    assert_eq!((record.command_index, record.leaked, record.left), (0, 0, 0));
    assert_eq!((record.log_bytes, record.log_dropped_bytes), (8, 0));
    assert!(record.max_rss_kib > 0 && record.ended_ms >= record.started_ms, "{record:?}");
    assert_eq!(world.log("a1"), "out\nerr\n");
    assert_eq!(ExitRecord::read(&world.attempt("a1")).expect("reads"), Some(record));
}

#[test]
fn first_failing_command_ends_the_job() {
    let world = World::new("two");
    let record = world.run(world.job("a1", &["echo one", "echo two; exit 3", "echo three"]));
    assert_eq!((record.code, record.command_index), (Some(3), 1));
    assert_eq!(world.log("a1"), "one\ntwo\n");
}

#[test]
fn line_that_needs_no_shell_does_as_it_would_in_one() {
    let world = World::new("plain");
    install(&world.path("tool"), "#!/bin/sh\necho $0 $* $PPID\n");
    install(&world.path("bare"), "echo by a shell $1\n");
    fs::write(world.path("closed"), "#!/bin/sh\n").expect("writes");
    let lines = ["./tool 1,2  --x", "./bare 3", "./closed"];
    let record = world.run(world.job("a1", &lines));
    let log = world.log("a1");
    assert_eq!((record.code, record.command_index), (Some(126), 2), "{log}");
    let keeper = KeeperInfo::read(&world.keeper_dir()).expect("its note").pid;
    assert!(log.starts_with(&format!("./tool 1,2 --x {keeper}\nby a shell 3\n")), "{log}");
    let record = world.run(world.job("a2", &["./none"]));
    assert_eq!((record.code, record.ended_by), (Some(127), EndedBy::Exit));
}

#[test]
fn missing_program_is_reported_with_its_name() {
    let world = World::new("missing");
    let mut job = world.job("a1", &["true"]);
    job.commands.push(JobCommand::Argv(vec!["no-such-agent".into()]));
    let record = world.run(job);
    assert_eq!((record.code, record.ended_by), (None, EndedBy::SpawnFailed));
    assert_eq!(record.command_index, 1);
    assert!(record.reason.contains("`no-such-agent`"), "{}", record.reason);
}

#[test]
fn missing_folder_is_reported_and_the_keeper_goes_on() {
    let world = World::new("folder");
    let monitor = world.monitor();
    let mut job = world.job("a1", &["true"]);
    job.dir = world.path("gone");
    monitor.keepers.start(AGENT, job);
    let record = monitor.exited();
    assert_eq!(record.ended_by, EndedBy::SpawnFailed);
    assert!(record.reason.contains("gone"), "{}", record.reason);
    monitor.keepers.start(AGENT, world.job("a2", &["true"]));
    assert_eq!(monitor.exited().code, Some(0));
    world.finish(monitor);
}

#[test]
fn prompt_arrives_on_standard_input_and_ends() {
    let world = World::new("stdin");
    fs::write(world.path("prompt"), "do it\n").expect("writes");
    let mut job = world.job("a1", &["cat; echo end"]);
    job.stdin = Some(world.path("prompt"));
    assert_eq!(world.run(job).code, Some(0));
    assert_eq!(world.log("a1"), "do it\nend\n");
}

#[test]
fn child_has_a_group_of_its_own_no_terminal_and_no_signal_ignored() {
    let world = World::new("group");
    let text = "read -r line < /proc/$$/stat; set -- ${line##*) }; \
                test $3 = $$ && test $5 = 0 && test $4 != $$ && kill -INT 0; echo $line; exit 9";
    // As a script's `&` and nohup(1) start a monitor.
    let keeper = "trap '' INT QUIT HUP CHLD; exec \"$0\" __keeper \"$@\"";
    let monitor = world.monitor_with("sh", &["-c", keeper, env!("CARGO_BIN_EXE_pipeline")]);
    monitor.keepers.start(AGENT, world.job("a1", &[text]));
    let record = monitor.exited();
    assert_eq!((record.code, record.signal), (None, Some(2)), "{}", world.log("a1"));
    world.finish(monitor);
}

#[test]
fn environment_is_exactly_what_was_given() {
    let world = World::new("env");
    let mut job = world.job("a1", &[]);
    job.commands = vec![JobCommand::Argv(vec!["env".into()])];
    let mut expected: Vec<String> =
        job.env.iter().map(|(name, value)| format!("{name}={value}")).collect();
    assert_eq!(world.run(job).code, Some(0));
    let log = world.log("a1");
    let mut found: Vec<&str> = log.lines().collect();
    expected.sort();
    found.sort_unstable();
    assert_eq!(found, expected);
}

#[test]
fn timeout_ends_the_tree_with_a_daemon_in_its_own_session() {
    let world = World::new("timeout");
    let text = "setsid sh -c 'echo $$ > daemon; sleep 600; true' & sleep 600; true";
    let mut job = world.job("a1", &[text]);
    job.timeout_ms = Some(3_000);
    let begun = monotonic();
    let record = world.run(job);
    assert_eq!((record.ended_by, record.left), (EndedBy::Timeout, 0));
    assert!(record.reason.contains("3s"), "{}", record.reason);
    let limit = Duration::from_secs(3);
    assert!((limit..20 * limit).contains(&(monotonic() - begun)));
    assert!(!is_alive(world.pid_in("daemon")));
}

#[test]
fn deaf_process_is_ended_by_force_after_the_grace() {
    let world = World::new("deaf");
    let mut job = world.job("a1", &["trap '' TERM; while :; do sleep 600; done"]);
    job.timeout_ms = Some(3_000);
    let record = world.run(job);
    assert_eq!((record.ended_by, record.signal), (EndedBy::Timeout, Some(9)));
    assert_eq!(record.left, 0);
}

#[test]
fn stopped_process_does_not_hang_the_job() {
    let world = World::new("stopped");
    let mut job = world.job("a1", &["kill -STOP $$; sleep 600; true"]);
    job.timeout_ms = Some(300);
    let record = world.run(job);
    assert_eq!((record.ended_by, record.signal), (EndedBy::Timeout, Some(15)));
}

#[test]
fn stray_in_the_background_is_ended_and_counted() {
    let world = World::new("stray");
    let record = world.run(world.job("a1", &["sleep 600 & echo $! > stray; exit 0"]));
    assert_eq!((record.code, record.ended_by, record.leaked), (Some(0), EndedBy::Exit, 1));
    assert!(!is_alive(world.pid_in("stray")));
}

#[test]
fn helper_that_ends_by_itself_is_no_stray() {
    let world = World::new("helper");
    // On a busy machine it may be given too little time to end: not each time.
    let is_no_stray = |attempt: &&str| {
        let record = world.run(world.job(attempt, &["(sleep 0.02; echo late) & exit 0"]));
        assert_eq!(record.code, Some(0));
        record.leaked == 0
    };
    let ended = ["a1", "a2", "a3", "a4"].into_iter().find(is_no_stray).expect("one that has ended");
    assert_eq!(world.log(ended), "late\n");
}

#[test]
fn deaf_daemon_with_an_empty_environment_is_still_ended() {
    let world = World::new("daemon");
    let daemon = "echo $$ > daemon; trap '' TERM; while :; do /bin/sleep 600; done";
    fs::write(world.path("daemon.sh"), daemon).expect("writes");
    let text = "setsid env -i /bin/sh -c '/bin/sh daemon.sh & exit 0' < /dev/null; \
                while ! test -s daemon; do sleep 0.01; done";
    let record = world.run(world.job("a1", &[text]));
    assert_eq!((record.code, record.left), (Some(0), 0));
    assert!(record.leaked >= 1, "{record:?}");
    assert!(!is_alive(world.pid_in("daemon")));
}

#[test]
fn output_held_open_by_a_stray_does_not_delay() {
    let world = World::new("held");
    let begun = monotonic();
    let record = world.run(world.job("a1", &["setsid sleep 600 & echo done"]));
    assert_eq!((record.code, record.leaked), (Some(0), 1));
    assert!(monotonic() - begun < Duration::from_secs(60));
    assert_eq!(world.log("a1"), "done\n");
}

#[test]
fn silence_ends_and_output_prolongs() {
    let world = World::new("silence");
    let mut job = world.job("a1", &["for i in 1 2 3 4 5; do echo $i; sleep 0.3; done; sleep 600"]);
    job.silence_ms = Some(1_000);
    let record = world.run(job);
    assert_eq!(record.ended_by, EndedBy::Silence);
    assert_eq!(world.log("a1"), "1\n2\n3\n4\n5\n");
}

#[test]
fn agent_that_said_it_is_done_is_given_time_and_then_ended() {
    let world = World::new("marker");
    let mut job = world.job(
        "a1",
        &[r#"printf -- '---\nnonce: %s\n---\n\n## Status: COMPLETED\n' $PIPELINE_NONCE > marker
           sleep 600; true"#],
    );
    job.marker_file = Some(world.path("marker"));
    let record = world.run(job);
    assert_eq!((record.ended_by, record.signal), (EndedBy::MarkerGrace, Some(15)));
}

#[test]
fn stop_ends_the_attempt_and_the_keeper_takes_the_next() {
    let world = World::new("stop");
    let monitor = world.monitor();
    let text = "trap '' TERM; echo deaf > ready; while :; do sleep 600; done";
    monitor.keepers.start(AGENT, world.job("a1", &[text]));
    monitor.started();
    wait_until("it is deaf", || world.path("ready").exists());
    monitor.keepers.stop(AGENT, "a1", Duration::ZERO);
    let record = monitor.exited();
    assert_eq!((record.ended_by, record.signal), (EndedBy::Stop, Some(9)));
    monitor.keepers.start(AGENT, world.job("a2", &["true"]));
    assert_eq!(monitor.exited().attempt, "a2");
    world.finish(monitor);
}

#[test]
fn stop_right_behind_the_start_is_not_lost() {
    let world = World::new("overtake");
    let monitor = world.monitor();
    monitor.keepers.start(AGENT, world.job("a1", &["sleep 600; true"]));
    monitor.keepers.stop(AGENT, "a1", Duration::from_secs(5));
    assert_eq!(monitor.exited().ended_by, EndedBy::Stop);
    world.finish(monitor);
}

#[test]
fn second_job_at_once_and_unknown_stop_are_refused() {
    let world = World::new("second");
    let monitor = world.monitor();
    monitor.keepers.start(AGENT, world.job("a1", &[UNTIL_GO]));
    monitor.started();
    monitor.keepers.start(AGENT, world.job("a2", &["true"]));
    monitor.keepers.stop(AGENT, "a9", Duration::ZERO);
    for expected in ["a2", "a9"] {
        match monitor.next() {
            Report::Refused { attempt, .. } => assert_eq!(attempt.as_deref(), Some(expected)),
            other => panic!("{other:?}"),
        }
    }
    world.go();
    assert_eq!(monitor.exited().attempt, "a1");
    assert!(!world.path("a2").join("started.json").exists());
    world.finish(monitor);
}

#[test]
fn job_that_has_run_is_not_run_again() {
    let world = World::new("again");
    let monitor = world.monitor();
    monitor.keepers.start(AGENT, world.job("a1", &["echo x >> count"]));
    let first = monitor.exited();
    monitor.keepers.start(AGENT, world.job("a1", &["echo x >> count"]));
    assert_eq!(monitor.exited(), first);
    assert_eq!(fs::read_to_string(world.path("count")).expect("reads"), "x\n");
    world.finish(monitor);
}

#[test]
fn job_that_was_started_and_left_no_outcome_is_not_run_again() {
    let world = World::new("begun");
    let job = world.job("a1", &["echo x >> count"]);
    assert_eq!(world.run(job.clone()).code, Some(0));
    // As a keeper leaves it that dies while the job runs.
    fs::remove_file(world.path("a1").join("exit.json")).expect("the outcome");
    assert!(world.path("a1").join("started.json").exists());
    let monitor = world.monitor();
    monitor.keepers.start(AGENT, job);
    assert!(matches!(monitor.next(), Report::Connected { .. }));
    match monitor.next() {
        Report::Refused { attempt, why, .. } => {
            assert_eq!(attempt.as_deref(), Some("a1"));
            assert!(why.contains("started before"), "{why}");
        }
        other => panic!("{other:?}"),
    }
    world.finish(monitor);
    assert_eq!(fs::read_to_string(world.path("count")).expect("reads"), "x\n");
    assert!(!world.path("a1").join("exit.json").exists());
}

#[test]
fn job_ordered_again_while_it_runs_is_told_as_started() {
    let world = World::new("again");
    let monitor = world.monitor();
    let job = world.job("a1", &["echo >> begun", UNTIL_GO]);
    monitor.keepers.start(AGENT, job.clone());
    monitor.started();
    monitor.keepers.start(AGENT, job);
    monitor.started();
    world.go();
    assert_eq!(monitor.exited().code, Some(0));
    let begun = fs::read_to_string(world.path("begun")).expect("it has begun");
    assert_eq!(begun, "\n");
    world.finish(monitor);
}

#[test]
fn job_with_a_large_environment_arrives_whole() {
    let world = World::new("large");
    let mut job = world.job("a1", &["test ${#BIG} = 100000 && test ${#BIG9} = 100000"]);
    job.env.push(("BIG".into(), "x".repeat(100_000)));
    job.env.extend((0..10).map(|index| (format!("BIG{index}"), "y".repeat(100_000))));
    assert_eq!(world.run(job).code, Some(0));
}

#[test]
fn log_keeps_beginning_and_end() {
    let world = World::new("log");
    let mut job = world.job("a1", &["echo BEGIN; seq 1 400000; echo END"]);
    job.log_bytes = 64 * 1024;
    let record = world.run(job);
    let log = world.log("a1");
    assert!(log.starts_with("BEGIN\n1\n2\n") && log.ends_with("\n400000\nEND\n"));
    let line = format!("\n[pipeline: {} bytes left out here]\n", record.log_dropped_bytes);
    assert!(log.contains(&line) && log.len() <= 64 * 1024 + line.len(), "{} bytes", log.len());
    let kept = record.log_bytes - record.log_dropped_bytes;
    assert_eq!(log.len() as u64, kept + line.len() as u64);
}

#[test]
fn keeper_outlives_its_monitor_and_leaves_the_outcome() {
    let world = World::new("outlive");
    let monitor = world.monitor();
    monitor.keepers.start(AGENT, world.job("a1", &[UNTIL_GO, "exit 5"]));
    monitor.started();
    let attempt = world.attempt("a1");
    assert_eq!(monitor.keepers.probe(AGENT, &attempt).expect("probes"), Probe::KeeperAlive);
    drop(monitor);
    assert!(is_held(&lock_path(&world.keeper_dir())));
    world.go();
    world.wait_for_keepers_end();
    let monitor = world.monitor();
    match monitor.keepers.probe(AGENT, &attempt).expect("probes") {
        Probe::Exited(record) => assert_eq!(record.code, Some(5)),
        other => panic!("{other:?}"),
    }
    monitor.keepers.adopt(AGENT, &attempt);
    assert_eq!(monitor.exited().code, Some(5));
    world.finish(monitor);
}

#[test]
fn second_monitor_adopts_and_is_told_of_the_end() {
    let world = World::new("adopt");
    let first = world.monitor();
    first.keepers.start(AGENT, world.job("a1", &[UNTIL_GO, "exit 6"]));
    first.started();
    drop(first);
    let second = world.monitor();
    second.keepers.adopt(AGENT, &world.attempt("a1"));
    match second.next() {
        Report::Connected { running, .. } => assert_eq!(running.as_deref(), Some("a1")),
        other => panic!("{other:?}"),
    }
    world.go();
    assert_eq!(second.exited().code, Some(6));
    second.keepers.start(AGENT, world.job("a2", &["true"]));
    assert_eq!(second.exited().attempt, "a2");
    world.finish(second);
}

#[test]
fn newer_monitor_replaces_the_older() {
    let world = World::new("newer");
    let older = world.monitor();
    older.keepers.start(AGENT, world.job("a1", &[UNTIL_GO]));
    older.started();
    let newer = world.monitor();
    newer.keepers.adopt(AGENT, &world.attempt("a1"));
    assert!(matches!(newer.next(), Report::Connected { .. }));
    assert_eq!(
        older.next(),
        Report::Superseded { agent: AGENT.into(), attempt: Some("a1".into()) }
    );
    world.go();
    assert_eq!(newer.exited().code, Some(0));
    drop(older);
    world.finish(newer);
}

#[test]
fn killed_keeper_leaves_strays_that_are_ended() {
    let world = World::new("killed");
    let monitor = world.monitor();
    let text = "setsid sh -c 'echo $$ > daemon; sleep 600; true' & \
                env -i /bin/sh -c 'echo $$ > bare; /bin/sleep 600; true' & sleep 600; true";
    monitor.keepers.start(AGENT, world.job("a1", &[text]));
    monitor.started();
    let pids = [world.pid_in("daemon"), world.pid_in("bare")];
    world.keeper_process().expect("alive").signal(rustix::process::Signal::KILL);
    let started = match monitor.next() {
        Report::KeeperLost {
            attempt: Some(attempt), found: Some(Probe::Strays(started)), ..
        } => {
            assert_eq!(attempt, "a1");
            started
        }
        other => panic!("{other:?}"),
    };
    let attempt = world.attempt("a1");
    assert!(matches!(monitor.keepers.probe(AGENT, &attempt), Ok(Probe::Strays(_))));
    let ended = end_orphans(&started, Duration::from_secs(2)).expect("ends");
    assert!(ended.found >= 3 && ended.left == 0, "{ended:?}");
    assert!(pids.into_iter().all(|pid| !is_alive(pid)));
    assert!(matches!(monitor.keepers.probe(AGENT, &attempt), Ok(Probe::Started(_))));
    monitor.keepers.start(AGENT, world.job("a2", &["true"]));
    assert_eq!(monitor.exited().attempt, "a2");
    world.finish(monitor);
}

#[test]
fn orphans_of_an_older_attempt_do_not_include_the_keepers_present_one() {
    let world = World::new("older");
    let monitor = world.monitor();
    monitor.keepers.start(AGENT, world.job("a1", &["true"]));
    monitor.exited();
    let started = pipeline::agent::job::StartedRecord::read(&world.attempt("a1"));
    let started = started.expect("reads").expect("there");
    monitor.keepers.start(AGENT, world.job("a2", &[UNTIL_GO]));
    monitor.started();
    assert_eq!(end_orphans(&started, Duration::ZERO).expect("ends").found, 0);
    world.go();
    assert_eq!(monitor.exited().code, Some(0));
    world.finish(monitor);
}

#[test]
fn job_that_cannot_be_written_is_not_started_and_the_next_one_is() {
    let world = World::new("unspeakable");
    let monitor = world.monitor();
    let dir = PathBuf::from(std::ffi::OsString::from_vec(b"/m\xffy".to_vec()));
    // By a keeper that is started for it, then over the connection that stands.
    for name in ["a1", "a3"] {
        monitor.keepers.start(AGENT, Job { dir: dir.clone(), ..world.job(name, &["true"]) });
        let report = loop {
            match monitor.next() {
                Report::Connected { .. } => {}
                other => break other,
            }
        };
        match report {
            Report::StartFailed { attempt, why, .. } => {
                assert_eq!(attempt, name);
                assert!(why.contains("cannot write the order"), "{why}");
            }
            other => panic!("{other:?}"),
        }
        if name == "a1" {
            monitor.keepers.start(AGENT, world.job("a2", &["true"]));
            assert_eq!(monitor.exited().attempt, "a2");
        }
    }
    world.finish(monitor);
}

#[test]
fn attempt_that_no_keeper_has_is_reported_at_adoption() {
    let world = World::new("nobody");
    let monitor = world.monitor();
    monitor.keepers.adopt(AGENT, &world.attempt("a1"));
    let expected = Report::KeeperLost {
        agent: AGENT.into(),
        attempt: Some("a1".into()),
        found: Some(Probe::Nothing),
    };
    assert_eq!(monitor.next(), expected);
    drop(monitor);
    world.check_nothing_is_left();
}

#[test]
fn keeper_that_cannot_start_is_reported_with_its_words() {
    let world = World::new("broken");
    let monitor = world.monitor_with("/bin/sh", &["-c", "echo out of luck >&2; exit 1"]);
    monitor.keepers.start(AGENT, world.job("a1", &["true"]));
    match monitor.next() {
        Report::StartFailed { attempt, why, .. } => {
            assert_eq!(attempt, "a1");
            assert!(why.contains("out of luck"), "{why}");
        }
        other => panic!("{other:?}"),
    }
}

#[test]
fn keeper_out_of_reach_is_waited_for_and_its_outcome_read() {
    let world = World::new("reach");
    let first = world.monitor();
    first.keepers.start(AGENT, world.job("a1", &[UNTIL_GO, "exit 4"]));
    first.started();
    drop(first);
    let socket = KeeperInfo::read(&world.keeper_dir()).expect("reads").socket;
    fs::remove_file(socket).expect("removes");
    let second = world.monitor();
    second.keepers.adopt(AGENT, &world.attempt("a1"));
    assert!(matches!(second.next(), Report::Unreachable { attempt, .. } if attempt == "a1"));
    world.go();
    assert_eq!(second.exited().code, Some(4));
    world.finish(second);
}

#[test]
fn keeper_that_is_asked_to_quit_leaves_when_idle() {
    let world = World::new("quit");
    let monitor = world.monitor();
    monitor.keepers.start(AGENT, world.job("a1", &[UNTIL_GO]));
    monitor.started();
    monitor.keepers.quit(AGENT);
    assert!(is_held(&lock_path(&world.keeper_dir())));
    world.go();
    assert_eq!(monitor.exited().code, Some(0));
    world.wait_for_keepers_end();
    world.finish(monitor);
}

/// Killed at any of its points, a keeper leaves a world that says what happened.
#[cfg(feature = "failpoints")]
#[test]
fn keeper_killed_at_any_point_never_hides_a_run() {
    let log = |world: &World| fs::read_to_string(world.path("points")).unwrap_or_default();
    let run = |plan: &str| {
        let world = World::new(&format!("point-{}", plan.replace([':', '.'], "-")));
        let plan_text = format!("PIPELINE_FAILPOINT={plan}");
        let log_text = format!("PIPELINE_FAILPOINT_LOG={}", world.path("points").display());
        let args = [&plan_text, &log_text, env!("CARGO_BIN_EXE_pipeline"), "__keeper"];
        let monitor = world.monitor_with("/usr/bin/env", &args);
        monitor.keepers.start(AGENT, world.job("a1", &["echo x >> count"]));
        let found = loop {
            match monitor.next() {
                Report::Exited { record, .. } => break Probe::Exited(record),
                Report::KeeperLost { found, .. } => break found.expect("readable"),
                Report::StartFailed { .. } => break Probe::Nothing,
                Report::Connected { .. } | Report::Started { .. } => {}
                other => panic!("at `{plan}`: {other:?}"),
            }
        };
        let has_run = || world.path("count").exists();
        match &found {
            Probe::Exited(record) => assert_eq!(record.code, Some(0), "at `{plan}`"),
            Probe::Strays(started) => {
                end_orphans(started, Duration::ZERO).expect("ends");
            }
            Probe::Started(_) => {}
            Probe::Nothing => assert!(!has_run(), "at `{plan}`"),
            Probe::KeeperAlive | Probe::Elsewhere => panic!("at `{plan}`: {found:?}"),
        }
        let points = log(&world);
        world.finish(monitor);
        (points, found)
    };
    let (points, found) = run("none");
    assert!(matches!(found, Probe::Exited(_)));
    let mut passes = std::collections::HashMap::new();
    for name in points.lines() {
        let pass = passes.entry(name).and_modify(|pass| *pass += 1).or_insert(1);
        run(&format!("{name}:{pass}"));
    }
    assert!(passes.len() >= 8, "{passes:?}");
}
