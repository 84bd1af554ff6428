//! Programs of several versions on one project: what a newer one wrote, what an older one wrote, and
//! keepers of an older one.

use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::os::unix::net::UnixListener;
use std::path::Path;

use pipeline::agent::job::{AttemptRef, EndedBy, StartedRecord};
use pipeline::agent::rendezvous::{KeeperInfo, lock_path};
use pipeline::store::lock::FileLock;
use rustix::process::Signal;
use serde_json::Value;

use crate::support::journal::{reform, rewrite};
use crate::support::project::Project;
use crate::support::{processes_of, signal};

/// A project whose journal an older program wrote, with two tasks.
fn of_an_older_program() -> Project {
    let project = Project::new(1);
    for id in ["ONE", "TWO"] {
        project.ok(&["task", "add", "a task", "--id", id]);
    }
    reform(&project.segment(), 0);
    project
}

fn ids(project: &Project) -> Vec<String> {
    let list: Value = serde_json::from_str(&project.ok(&["task", "list", "--json"])).expect("JSON");
    let tasks = list["tasks"].as_array().expect("tasks").iter();
    tasks.map(|task| task["id"].as_str().expect("an id").to_owned()).collect()
}

#[test]
fn what_a_newer_program_wrote_is_refused_by_every_command_and_not_touched() {
    let project = Project::new(1);
    project.ok(&["task", "add", "a task", "--id", "ONE"]);
    reform(&project.segment(), 2);
    let before = project.state_files();
    for args in [
        &["status"][..],
        &["--json", "status"],
        &["log"],
        &["report"],
        &["task", "list"],
        &["task", "add", "another"],
        &["pause"],
        &["plan"],
        &["monitor", "--once"],
        &["stop", "--now"],
        &["doctor"],
        &["doctor", "--checks"],
        &["doctor", "--repair", "-n"],
        &["doctor", "--repair"],
    ] {
        let said = project.fails(4, args);
        for part in ["of format 2", "this program knows formats up to 1"] {
            assert!(said.contains(part), "{args:?}: {said}");
        }
        assert!(said.contains("use the newer build"), "{args:?}: {said}");
        assert_eq!(project.state_files(), before, "{args:?}");
    }
}

#[test]
fn a_record_of_a_kind_that_is_not_known_is_refused_as_another_versions_and_not_touched() {
    let project = Project::new(1);
    project.ok(&["task", "add", "a task", "--id", "ONE"]);
    let kinds = ["\"kind\":\"task_added\"", "\"kind\":\"task_melted\""];
    rewrite(&project.segment(), |body| body.replace(kinds[0], kinds[1]));
    let before = project.state_files();
    for args in [
        &["status"][..],
        &["log"],
        &["task", "add", "another"],
        &["monitor", "--once"],
        &["doctor"],
        &["doctor", "--repair"],
    ] {
        let said = project.fails(4, args);
        assert!(said.contains("another version of `pipeline` wrote it"), "{args:?}: {said}");
        assert!(!said.contains("damaged"), "{args:?}: {said}");
        assert_eq!(project.state_files(), before, "{args:?}");
    }
}

#[test]
fn what_an_older_program_wrote_is_read_at_once_and_taken_over_by_the_monitor_alone() {
    let project = of_an_older_program();
    let before = project.state_files();
    for args in [
        &["status"][..],
        &["log"],
        &["report"],
        &["task", "list"],
        &["task", "show", "ONE"],
        &["plan"],
        &["doctor", "--repair", "-n"],
        &["stop"],
    ] {
        project.ok(args);
        assert_eq!(project.state_files(), before, "{args:?}");
    }
    assert_eq!(ids(&project), ["ONE", "TWO"]);
    let said = project.ok(&["doctor"]);
    assert!(said.contains("warning  journal: whole up to record 2, of format 0; this "), "{said}");
    for args in [&["task", "add", "three"][..], &["pause"], &["task", "hold", "ONE"]] {
        let said = project.fails(4, args);
        assert!(said.contains("of format 0, this program writes format 1"), "{said}");
        assert!(said.contains("`pipeline monitor` takes it over and keeps a backup"), "{said}");
        assert_eq!(project.state_files(), before, "{args:?}");
    }
    let done = project.run(&["monitor", "--until-idle", "--timeout", "240s"]);
    assert_eq!(done.code, Some(0), "{}{}", done.out, done.err);
    let backup = project.state_dir().join("journal.format-0-2");
    let place = format!("as it was it is kept in `{}`", backup.display());
    assert!(done.err.contains(&place) || done.out.contains(&place), "{}{}", done.out, done.err);
    let kept = fs::read(backup.join("00000000000000000000.ndjson")).expect("the backup");
    assert_eq!(kept, before[&project.segment()]);
    let newest = fs::read_dir(project.state_dir().join("journal")).expect("segments").flatten();
    let newest = newest.map(|entry| entry.path()).max().expect("one");
    let text = fs::read_to_string(newest).expect("a segment");
    assert!(text.lines().all(|line| line.starts_with("{\"v\":1,")), "{text}");
    assert_eq!(project.count("completed"), 2);
    project.ok(&["task", "add", "three", "--id", "THREE"]);
    assert_eq!(ids(&project), ["ONE", "TWO", "THREE"]);
    let log = project.log();
    assert!(log.len() > 3, "what was before is told still");
    let said = project.ok(&["doctor"]);
    assert!(said.contains("ok       journal: whole"), "{said}");
    let done = project.run(&["monitor", "--once"]);
    assert!(!done.err.contains("format"), "once: {}", done.err);
    project.ok(&["stop", "--now"]);
}

#[cfg(feature = "failpoints")]
#[test]
fn a_takeover_killed_at_any_point_is_done_by_the_next() {
    let project = of_an_older_program();
    let old = fs::read(project.segment()).expect("the journal");
    let points = ["migrate.folder", "migrate.copy", "migrate.sync", "migrate.rename"];
    for point in points.iter().chain(&["checkpoint.write", "checkpoint.rename"]) {
        for action in ["kill", "error"] {
            fs::remove_dir_all(project.state_dir()).expect("it is ours");
            fs::create_dir_all(project.state_dir().join("journal")).expect("a folder");
            fs::write(project.segment(), &old).expect("the journal");
            let mut command = project.command(&project.root, &["monitor", "--once"]);
            command.env("PIPELINE_FAILPOINT", format!("{point}:1={action}"));
            assert!(!command.output().expect("it starts").status.success(), "{point}={action}");
            assert_eq!(ids(&project), ["ONE", "TWO"], "{point}={action}");
            project.ok(&["monitor", "--once"]);
            let kept = project.state_dir().join("journal.format-0-2/00000000000000000000.ndjson");
            assert_eq!(fs::read(kept).expect("the backup"), old, "{point}={action}");
            assert!(!project.state_dir().join("journal.tmp").exists(), "{point}={action}");
            assert_eq!(ids(&project), ["ONE", "TWO"], "{point}={action}");
            project.ok(&["stop", "--now"]);
        }
    }
}

/// A keeper of the program before this one, which speaks version 0 and serves no more than the end of
/// one attempt: it leaves a record and tells of it when it is ordered to stop, and returns the orders.
fn serve_as_older(
    listener: &UnixListener,
    hello: &str,
    (exit_file, record): (&Path, &str),
) -> Vec<String> {
    let (stream, _) = listener.accept().expect("a monitor");
    let mut writer = stream.try_clone().expect("a descriptor");
    writeln!(writer, "{hello}").expect("it listens");
    let mut orders = Vec::new();
    for line in BufReader::new(stream).lines() {
        let Ok(line) = line else { break };
        let is_stop = line.contains("\"stop\"");
        orders.push(line);
        if is_stop {
            fs::write(exit_file, record).expect("its record");
            let exited = format!(r#"{{"v":0,"report":"exited","record":{record}}}"#);
            writeln!(writer, "{exited}").expect("it listens");
        }
        if orders.last().is_some_and(|line| line.contains("\"quit\"")) {
            break;
        }
    }
    orders
}

#[test]
fn a_keeper_of_an_older_program_is_adopted_and_spoken_to_in_its_version() {
    let project = Project::new(1);
    project.ok(&["task", "add", "one", "--id", "ONE"]);
    project.hold("hold");
    let mut monitor = project.monitor(&[]);
    project.until("an agent at work", || !project.runs().is_empty());
    monitor.kill();
    let dir = project.state_dir().join("keepers/architect");
    let info = KeeperInfo::read(&dir).expect("the keeper says where it listens");
    project.until("the end of all", || {
        processes_of(&project.dir()).iter().for_each(|(pid, _)| signal(*pid, Signal::KILL));
        processes_of(&project.dir()).is_empty()
    });
    // The stand-in takes its place, with what an older one wrote.
    let _lock = FileLock::try_exclusive(&lock_path(&dir), "keeper").expect("it works");
    fs::remove_file(&info.socket).expect("what the killed one left");
    let listener = UnixListener::bind(&info.socket).expect("a socket");
    let own = KeeperInfo::of_self(&dir, &info.socket).expect("readable");
    let mut written = serde_json::to_value(&own).expect("JSON");
    let fields = written.as_object_mut().expect("an object");
    assert!(fields.remove("protocol").is_some() && fields.remove("program").is_some());
    assert!(fields.remove("folder").is_some());
    fs::write(dir.join("keeper.json"), written.to_string()).expect("it");
    let said = project.ok(&["doctor"]);
    let older =
        format!("agent `architect`, process {}, is of version unknown (protocol 0)", own.pid);
    assert!(said.contains(&older), "{said}");
    let attempt_dir = project.state_dir().join("attempts/ONE.arch.1");
    let started = fs::read_to_string(attempt_dir.join("started.json")).expect("it began");
    let started: Value = serde_json::from_str(&started).expect("JSON");
    let nonce = started["nonce"].as_str().expect("a nonce").to_owned();
    let attempt = AttemptRef { attempt: "ONE.arch.1".into(), nonce, attempt_dir };
    let record = StartedRecord::unknown(&attempt).expect("/proc");
    let record = record.ended_without_status(EndedBy::Stop, "it was told to".into());
    let hello = serde_json::json!({"v": 0, "report": "hello", "agent": "architect",
                                   "pid": own.pid, "running": "ONE.arch.1"});
    let exit_file = attempt.attempt_dir.join("exit.json");
    let written = serde_json::to_string(&record).expect("JSON");
    let stand_in = std::thread::spawn(move || {
        serve_as_older(&listener, &hello.to_string(), (&exit_file, &written))
    });
    project.ok(&["stop", "--now"]);
    let orders = stand_in.join().expect("it served");
    assert!(orders.iter().any(|line| line.contains("\"stop\"")), "{orders:?}");
    for order in &orders {
        assert!(order.starts_with("{\"v\":0,"), "{order}");
    }
    assert_eq!(project.count("wip"), 0);
}
