//! Disk, descriptors or the journal itself give out under a running monitor (F-23 to F-28), or the
//! load grows too high: launches pause, agents live on, it says so, and goes on by itself when there
//! is room.

use std::fs::{self, Permissions};
use std::io::Write;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::process::Stdio;

use pipeline::sys::child::command;
use rustix::process::{Pid, getpgid};

use crate::support::processes_of;
use crate::support::project::{Backlog, Project, TWELVE};

/// Set in the process that has mounts of its own.
const INSIDE: &str = "PIPELINE_TEST_HAS_MOUNTS";
const FOUR: &Backlog = &[("A", &[]), ("B", &["A"]), ("C", &[]), ("D", &["C"])];

/// Runs `test`, which is named `name` here, in a process with a mount namespace of its own; where the
/// machine lends none, says so.
fn with_mounts(name: &str, test: impl FnOnce()) {
    if std::env::var_os(INSIDE).is_some() {
        return test();
    }
    let root = Path::new("/");
    let lends = |flags: &str| {
        let mut probe = command("unshare", root);
        probe.args([flags, "mount", "-t", "tmpfs", "-o", "size=1m", "none", "/mnt"]);
        let probe = probe.stdout(Stdio::null()).stderr(Stdio::null());
        probe.status().is_ok_and(|status| status.success())
    };
    let Some(flags) = ["-rm", "-m"].into_iter().find(|flags| lends(flags)) else {
        eprintln!("NOT RUN: this machine lends no mount namespace");
        return;
    };
    let exe = std::env::current_exe().expect("this test's own program");
    let mut inner = command("unshare", root);
    inner.arg(flags).arg(exe).args(["--exact", &format!("disk_full::{name}"), "--nocapture"]);
    let output = inner.env(INSIDE, "1").output().expect("unshare starts");
    let said = String::from_utf8_lossy(&output.stdout) + String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success() && said.contains("1 passed"), "{said}");
}

/// A small disk; gone with its project.
struct Disk(PathBuf);

impl Disk {
    fn mount(at: &Path, options: &str) -> Self {
        let mut mount = command("mount", Path::new("/"));
        let done = mount.args(["-t", "tmpfs", "-o", options, "none"]).arg(at).status();
        assert!(done.is_ok_and(|status| status.success()), "mounts at {}", at.display());
        Self(at.into())
    }

    fn remount(&self, options: &str) {
        let mut mount = command("mount", Path::new("/"));
        let done = mount.args(["-o", &format!("remount,{options}")]).arg(&self.0).status();
        assert!(done.is_ok_and(|status| status.success()), "remounts as {options}");
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        // A failure shows as a folder that is left.
        let _ = command("umount", Path::new("/")).arg("-l").arg(&self.0).status();
    }
}

fn project_on_disk(count: usize, options: &str) -> (Project, Disk) {
    let mut disk = None;
    let project = Project::on(count, "[scheduler]\nprefetch = 0\n", |root| {
        disk = Some(Disk::mount(root, options))
    });
    // In this order, so that the disk goes before the folder it is in.
    (project, disk.expect("it is mounted"))
}

/// Writes until nothing more can be written.
fn fill(path: &Path) {
    let mut file = fs::File::create(path).expect("an empty file has room");
    for size in [1 << 20, 4096, 1] {
        let bytes = vec![b'x'; size];
        while file.write_all(&bytes).is_ok() {}
    }
}

/// Counts the agents at work: each leads its group. What their shell has just forked looks like it.
fn agents(project: &Project) -> usize {
    let leads = |pid: i32| {
        let pid = Pid::from_raw(pid);
        pid.is_some() && getpgid(pid).ok() == pid
    };
    let is_agent = |(pid, line): &&(i32, String)| line.contains("agent.sh") && leads(*pid);
    processes_of(&project.dir()).iter().filter(is_agent).count()
}

fn assert_nobody_gave_up(project: &Project) {
    let log = project.log();
    let is_bad = |kind: &str| log.iter().any(|entry| entry["to"] == kind);
    assert!(!is_bad("blocked"), "{}", project.story());
}

#[test]
fn full_disk_pauses_launches_and_all_lands_when_there_is_room() {
    with_mounts("full_disk_pauses_launches_and_all_lands_when_there_is_room", || {
        let (project, _disk) = project_on_disk(1, "size=128m");
        project.import(FOUR);
        project.hold("hold");
        let mut monitor = project.monitor(&["--until-idle"]);
        project.until("an agent to run", || project.runs().len() == 1);
        // A view that is replaced later would make room again.
        project.until("the view to be renewed", || {
            let view = fs::read_to_string(project.path(".git/pipeline/state.json"));
            let view: serde_json::Value =
                serde_json::from_str(&view.unwrap_or_default()).unwrap_or_default();
            view["seq"] == project.status()["seq"]
        });
        let ballast = project.path(".git/ballast");
        fill(&ballast);
        // Nothing is acknowledged that could not be written.
        // More than the last page of the journal has room for.
        let body = "x".repeat(16 * 1024);
        let said = project.fails(1, &["task", "add", "--id", "E", "--body", &body, "One more"]);
        assert!(said.contains("cannot") && said.contains("No space left"), "{said}");
        assert!(said.contains("hint"), "{said}");
        project.fails(2, &["task", "show", "E"]);
        assert_eq!(agents(&project), 1, "{}", project.story());
        // The end of the agent is recorded on the reserve, and why nothing follows it.
        project.release("hold");
        project.until("the shortage to be told", || {
            project.run(&["status"]).out.contains("nothing new starts: the disk of")
        });
        let status = project.status();
        let waiting = status["waiting"].as_array().expect("a list");
        let is_told = |wait: &serde_json::Value| {
            wait["on"] == "backoff" && wait["what"].to_string().contains("goes on by itself")
        };
        assert!(waiting.iter().any(is_told), "{waiting:#?}");
        let runs = project.runs().len();
        assert!(monitor.has_ended().is_none());
        assert!(runs <= 2, "{:?}", project.runs());
        fs::remove_file(&ballast).expect("frees the disk");
        assert_eq!(monitor.end(&project), Some(0), "{}", project.story());
        assert_eq!(monitor.said().matches("nothing new starts").count(), 1, "{}", monitor.said());
        project.assert_landed(FOUR);
        assert_nobody_gave_up(&project);
        project.assert_nothing_left();
    });
}

#[test]
fn load_above_the_limit_starts_nothing_until_it_has_fallen() {
    with_mounts("load_above_the_limit_starts_nothing_until_it_has_fallen", || {
        let project = Project::with(1, "[scheduler]\nload_limit = 4\n");
        let load = project.dir().join("load");
        let set = |text: &str| fs::write(&load, format!("{text} 3.00 2.00 3/512 42\n"));
        set("9.10").expect("a file beside the project");
        let mut mount = command("mount", Path::new("/"));
        let done = mount.arg("--bind").arg(&load).arg("/proc/loadavg").status();
        assert!(done.is_ok_and(|status| status.success()), "mounts over the load");
        project.import(FOUR);
        let mut monitor = project.monitor(&["--until-idle"]);
        let what = "the machine's load is 9.1, above `scheduler.load_limit` = 4";
        project.until("the load to be told", || {
            let status = project.status();
            let waiting = status["waiting"].as_array().expect("a list");
            waiting.iter().any(|wait| wait["on"] == "backoff" && wait["what"] == what)
        });
        let said = project.run(&["status"]).out;
        assert!(said.contains(&format!("nothing new starts: {what}")), "{said}");
        project.ok(&["status", "--fail-on", "stalled"]);
        assert!(project.runs().is_empty() && monitor.has_ended().is_none());
        set("3.59").expect("a file beside the project");
        assert_eq!(monitor.end(&project), Some(0), "{}", project.story());
        let kinds = ["overload_began", "overload_ended"];
        let log = project.log();
        for kind in kinds {
            assert_eq!(log.iter().filter(|entry| entry["kind"] == kind).count(), 1, "{kind}");
        }
        let over = "the load is no longer above the limit: going on";
        assert!(monitor.said().contains(over), "{}", monitor.said());
        project.assert_landed(FOUR);
        assert_nobody_gave_up(&project);
        project.assert_nothing_left();
    });
}

#[test]
fn disk_that_fills_and_empties_again_and_again_loses_nothing() {
    with_mounts("disk_that_fills_and_empties_again_and_again_loses_nothing", || {
        let (project, _disk) = project_on_disk(2, "size=24m");
        project.import(&TWELVE[..6]);
        let mut monitor = project.monitor(&["--until-idle", "--poll-only"]);
        let ballast = project.path(".git/ballast");
        for round in 1..=3 {
            let begun = project.journal_bytes();
            let wanted = begun + 2_000;
            project.until("the journal to grow", || {
                project.journal_bytes() >= wanted || monitor.has_ended().is_some()
            });
            fill(&ballast);
            project.until(&format!("shortage {round}"), || {
                monitor.said().matches("nothing new starts").count() >= round
                    || monitor.has_ended().is_some()
            });
            fs::remove_file(&ballast).expect("frees the disk");
            project.until(&format!("room {round}"), || {
                monitor.said().matches("there is room again").count() >= round
                    || monitor.has_ended().is_some()
            });
        }
        let end = monitor.end(&project);
        if end != Some(0) {
            // An agent that found no room thrice is blocked, which is its own failure.
            project.ok(&["task", "retry", "--blocked"]);
            project.ok(&["monitor", "--until-idle", "--timeout", "240s"]);
        }
        project.assert_landed(&TWELVE[..6]);
        project.assert_nothing_left();
    });
}

/// Git writes the files of the checkout first: what it had written when the room ended is not taken
/// for a person's.
#[test]
fn checkout_that_found_no_room_follows_when_there_is() {
    with_mounts("checkout_that_found_no_room_follows_when_there_is", || {
        let (project, _disk) = project_on_disk(1, "size=64m");
        let agent = fs::read_to_string(project.path("tools/agent.sh")).expect("the agent");
        let big = "[ $PIPELINE_STAGE = test ] && head -c 8000000 /dev/urandom >big.bin\n";
        project.write("tools/agent.sh", &(agent + big + "exit 0\n"));
        project.commit("An agent that makes much");
        let lock = project.path(".git/index.lock");
        fs::write(&lock, "").expect("a lock");
        project.import(&[("A", &[])]);
        let mut monitor = project.start(&["monitor"]);
        project.until("the task to land", || project.status()["counts"]["completed"] == 1);
        let ballast = project.path(".git/ballast");
        fill(&ballast);
        let file = fs::File::options().write(true).open(&ballast).expect("the ballast");
        let length = file.metadata().expect("the ballast").len();
        file.set_len(length - 4_000_000).expect("room for a half");
        drop(file);
        fs::remove_file(&lock).expect("the lock goes");
        let behind = || project.status()["landing"].clone();
        project.until("the failure to be told", || {
            behind()["why"].to_string().contains("unable to write file big.bin")
        });
        fs::remove_file(&ballast).expect("frees the disk");
        project.until("the base to follow", || behind()["behind"] == 0);
        project.ok(&["stop"]);
        assert_eq!(monitor.end(&project), Some(0), "{}", project.story());
        project.assert_landed(&[("A", &[])]);
        assert_eq!(project.git(&["status", "--porcelain"]), "", "{}", project.story());
        project.assert_nothing_left();
    });
}

#[test]
fn read_only_disk_is_named_at_the_start_and_nothing_changes() {
    with_mounts("read_only_disk_is_named_at_the_start_and_nothing_changes", || {
        let (project, disk) = project_on_disk(1, "size=24m");
        project.import(FOUR);
        disk.remount("ro");
        for args in [&["monitor", "--until-idle"][..], &["task", "add", "--id", "E", "One more"]] {
            let said = project.fails(1, args);
            assert!(said.contains("Read-only file system"), "{said}");
            assert!(said.contains(".git/pipeline"), "{said}");
        }
        assert_eq!(project.runs(), Vec::<String>::new());
        disk.remount("rw");
        project.ok(&["monitor", "--until-idle", "--timeout", "240s"]);
        project.assert_landed(FOUR);
        project.assert_nothing_left();
    });
}

/// A state that one may not read is there: to call it gone would end in an `init --force`.
#[test]
fn state_without_the_rights_to_it_is_named_at_the_start_and_nothing_changes() {
    let project = Project::new(1);
    project.import(FOUR);
    // Rights do not bind the user `root`, but for one who has laid that down.
    let bound = match rustix::process::getuid().is_root() {
        true => "setpriv --bounding-set=-dac_override,-dac_read_search pipeline",
        false => "pipeline",
    };
    let reads = ["status", "task list", "doctor"];
    let writes =
        ["task add more", "monitor --until-idle", "init", "init --force", "deinit --force"];
    for (place, mode, commands) in [
        (".git/pipeline", 0o000, [&reads[..], &writes].concat()),
        (".git/pipeline/journal", 0o000, [&reads[..], &writes].concat()),
        (".git/pipeline/lock", 0o400, vec!["task add more"]),
        (".git/pipeline", 0o500, vec!["monitor --until-idle"]),
    ] {
        let path = project.path(place);
        let before = (project.log(), project.git(&["for-each-ref"]));
        let old = fs::metadata(&path).expect("it is there").permissions();
        let set = |rights| fs::set_permissions(&path, rights).expect("it is ours");
        set(Permissions::from_mode(mode));
        for args in commands {
            let done = project.shell(&format!("{bound} {args}"));
            let said = done.out + &done.err;
            assert_eq!(done.code, Some(1), "{place}: {args}: {said}");
            let is_told = said.contains("Permission denied") && said.contains(place);
            assert!(is_told, "{place}: {args}: {said}");
        }
        set(old);
        assert_eq!((project.log(), project.git(&["for-each-ref"])), before, "{place}");
    }
    project.ok(&["monitor", "--until-idle", "--timeout", "240s"]);
    project.assert_landed(FOUR);
    project.assert_nothing_left();
}

/// The monitor has no descriptor left while an agent ends; then it has.
#[test]
fn descriptors_that_run_out_pause_and_cost_no_try() {
    use rustix::process::{Pid, Resource, Rlimit, getrlimit, prlimit};
    let project = Project::new(2);
    project.import(FOUR);
    project.hold("hold");
    let mut monitor = project.monitor(&["--until-idle"]);
    project.until("agents to run", || project.runs().len() == 2);
    let pid = Pid::from_raw(monitor.pid());
    let maximum = getrlimit(Resource::Nofile).maximum;
    let limit = |current| {
        let old = prlimit(pid, Resource::Nofile, Rlimit { current, maximum });
        old.expect("the limit is set")
    };
    let old = limit(Some(8));
    project.release("hold");
    monitor.until_said("Too many open files");
    project.until("the agents to end", || agents(&project) == 0);
    assert!(monitor.has_ended().is_none());
    limit(old.current);
    assert_eq!(monitor.end(&project), Some(0), "{}", project.story());
    project.assert_landed(FOUR);
    assert_nobody_gave_up(&project);
    project.assert_nothing_left();
}

#[cfg(feature = "failpoints")]
mod injected {
    use super::*;

    /// The journal refuses at `point` by `action` for a while under a running agent.
    fn refused_for_a_while(plan: &str) {
        let project = Project::new(1);
        project.import(FOUR);
        project.hold("hold");
        let while_file = project.dir().join("refuse");
        let env = [
            ("PIPELINE_FAILPOINT", plan),
            ("PIPELINE_FAILPOINT_WHILE", while_file.to_str().expect("UTF-8")),
        ];
        let mut monitor = project.start_with(&["monitor", "--until-idle"], &env);
        project.until("an agent to run", || project.runs().len() == 1);
        fs::write(&while_file, "").expect("a file beside the project");
        project.release("hold");
        monitor.until_said("it is tried again until that works");
        project.until("the agent to end", || agents(&project) == 0);
        // What others may still write is written.
        project.ok(&["task", "add", "--id", "E", "One more"]);
        assert_eq!(project.runs().len(), 1, "at {plan}: {:?}", project.runs());
        assert!(monitor.has_ended().is_none());
        fs::remove_file(&while_file).expect("it was there");
        assert_eq!(monitor.end(&project), Some(0), "at {plan}: {}", project.story());
        let said = monitor.said();
        assert_eq!(said.matches("it is tried again until").count(), 1, "at {plan}: {said}");
        assert!(said.contains("can be written again"), "at {plan}: {said}");
        let all = [FOUR, &[("E", &[])]].concat();
        project.assert_landed(&all);
        assert_nobody_gave_up(&project);
        project.assert_nothing_left();
    }

    #[test]
    fn journal_that_is_refused_for_a_while_killed_nobody() {
        for plan in
            ["journal.write=full", "journal.sync=error", "lock.open=error", "lock.look=error"]
        {
            refused_for_a_while(plan);
        }
    }

    #[test]
    fn journal_that_fails_once_anywhere_killed_nobody() {
        for point in ["journal.write", "journal.sync"] {
            for pass in [5, 11] {
                let plan = format!("{point}:{pass}=error");
                let project = Project::new(1);
                project.import(&FOUR[..1]);
                let env = [("PIPELINE_FAILPOINT", plan.as_str())];
                let mut monitor = project.start_with(&["monitor", "--until-idle"], &env);
                assert_eq!(monitor.end(&project), Some(0), "at {plan}: {}", project.story());
                assert!(monitor.said().contains("injected at"), "at {plan}: {}", monitor.said());
                project.assert_landed(&FOUR[..1]);
                project.assert_nothing_left();
            }
        }
    }

    #[test]
    fn end_of_an_agent_that_can_be_written_nowhere_is_reported_all_the_same() {
        let project = Project::new(1);
        project.import(&FOUR[..1]);
        let keeper = project.state_dir().join("keepers/architect");
        fs::create_dir_all(&keeper).expect("a keeper's folder");
        symlink("/dev/full", keeper.join("keeper.log")).expect("a log without room");
        let while_file = project.dir().join("refuse");
        fs::write(&while_file, "").expect("a file beside the project");
        let env = [
            ("PIPELINE_FAILPOINT", "keeper.exit=full"),
            ("PIPELINE_FAILPOINT_WHILE", while_file.to_str().expect("UTF-8")),
        ];
        let mut monitor = project.start_with(&["monitor", "--until-idle"], &env);
        assert_eq!(monitor.end(&project), Some(0), "{}", project.story());
        let runs = project.runs();
        assert!(runs.iter().all(|run| run.ends_with(".1")), "{runs:?}");
        project.assert_landed(&FOUR[..1]);
        project.assert_nothing_left();
    }

    /// A record that cannot be read says nothing of the agent, which may be running.
    #[test]
    fn agent_that_cannot_be_looked_for_is_not_lost() {
        let project = Project::new(1);
        project.import(&FOUR[..1]);
        project.hold("hold");
        let mut first = project.monitor(&["--until-idle"]);
        project.until("an agent to run", || project.runs().len() == 1);
        first.kill();
        let while_file = project.dir().join("refuse");
        fs::write(&while_file, "").expect("a file beside the project");
        let env = [
            ("PIPELINE_FAILPOINT", "probe.read=full"),
            ("PIPELINE_FAILPOINT_WHILE", while_file.to_str().expect("UTF-8")),
        ];
        let mut second = project.start_with(&["monitor", "--until-idle"], &env);
        second.until_said("open task");
        fs::remove_file(&while_file).expect("it was there");
        project.release("hold");
        assert_eq!(second.end(&project), Some(0), "{}", project.story());
        assert_eq!(project.runs().iter().filter(|id| id.contains(".arch.")).count(), 1);
        project.assert_landed(&FOUR[..1]);
        project.assert_nothing_left();
    }
}
