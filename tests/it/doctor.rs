//! `pipeline doctor`: every finding, provoked for real, with its remedy and the exit code.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::time::Duration;

use rustix::process::Signal;
use serde_json::Value;

use crate::support::project::Project;
use crate::support::{install_copy, processes_of, signal};

/// The lines of `said` about `what`, with their remedies.
fn about(said: &str, what: &str) -> String {
    let lines: Vec<&str> = said.lines().collect();
    let is_about =
        |line: &str| line.get(9..).is_some_and(|it| it.starts_with(&format!("{what}: ")));
    let starts = lines.iter().enumerate().filter(|(_, line)| is_about(line));
    let of = |(at, line): (usize, &&str)| {
        let more = lines[at + 1..].iter().take_while(|line| line.starts_with("         "));
        more.fold((*line).to_owned(), |text, line| format!("{text}\n{line}"))
    };
    starts.map(of).collect::<Vec<_>>().join("\n")
}

/// Runs the program, which must end with `code`, and returns what it found about `what`.
#[track_caller]
fn finds(project: &Project, code: i32, what: &str) -> String {
    let said = project.fails(code, &["doctor"]);
    let found = about(&said, what);
    assert!(!found.is_empty(), "nothing about {what}: {said}");
    found
}

#[track_caller]
fn has(text: &str, parts: &[&str]) {
    for part in parts {
        assert!(text.contains(part), "no `{part}` in:\n{text}");
    }
}

/// Types a line in namespaces of its own, where it may mount and set limits; `None`, which is said,
/// where the machine lends none.
pub(crate) fn apart(project: &Project, line: &str) -> Option<(Option<i32>, String)> {
    let lends = project.shell("unshare -rm true").code == Some(0);
    if !lends {
        eprintln!("NOT RUN: this machine lends no namespaces");
        return None;
    }
    let script = project.dir().join("apart.sh");
    fs::write(&script, format!("set -e\n{line}\n")).expect("a script");
    let done = project.shell(&format!("unshare -rm sh '{}'", script.display()));
    Some((done.code, format!("{}{}", done.out, done.err)))
}

fn make_old(path: &Path) {
    for entry in walkdir::WalkDir::new(path).contents_first(true).into_iter().flatten() {
        let file = fs::File::open(entry.path()).expect("it is there");
        let now = file.metadata().and_then(|meta| meta.modified()).expect("its time");
        file.set_modified(now - Duration::from_secs(30 * 24 * 3600)).expect("its time");
    }
}

#[test]
fn a_project_in_order_is_all_good_and_nothing_is_changed() {
    let project = Project::new(1);
    project.ok(&["task", "add", "one", "--id", "ONE"]);
    project.ok(&["monitor", "--until-idle", "--timeout", "240s"]);
    project.until("its keepers to leave", || processes_of(&project.dir()).is_empty());
    let list = || {
        let files = walkdir::WalkDir::new(&project.root).sort_by_file_name().into_iter().flatten();
        files.map(walkdir::DirEntry::into_path).collect::<Vec<_>>()
    };
    let before = list();
    let said = project.ok(&["doctor"]);
    assert_eq!(list(), before);
    for line in said.lines() {
        assert!(line.starts_with("ok       "), "{said}");
    }
    has(&said, &["journal: whole up to record", "git: 2.", "pipeline.toml is valid"]);
    has(&said, &["file locks work here, between processes too", "inodes free", "watchers, "]);
    has(&said, &["worktrees: ", "all branches stand where the journal has them"]);
    let json: Value = serde_json::from_str(&project.ok(&["doctor", "--json"])).expect("JSON");
    let findings = json["findings"].as_array().expect("findings");
    assert_eq!(findings.len(), said.lines().count());
    assert_eq!((&json["repairs"], &findings[0]["level"]), (&Value::Null, &Value::from("good")));
    for (args, code, part) in [
        (&["doctor", "-n"][..], 2, "--repair"),
        (&["doctor", "now"], 2, "unexpected argument"),
        (&["-C", "/", "doctor"], 2, "there is no pipeline in `/`"),
    ] {
        has(&project.fails(code, args), &[part]);
    }
}

#[test]
fn an_old_git_is_named_with_the_version_that_is_needed() {
    let project = Project::new(1);
    project.before_git(
        "[ \"$1\" = --version ] && { echo 'git version 2.30.1'; exit; }\n\
         for arg; do [ \"$arg\" = version ] && { echo 'git version 2.30.1'; exit; }; done",
    );
    has(&finds(&project, 1, "git"), &["bad      git: 2.30.1", "install git 2.38 or newer"]);
}

#[test]
fn every_problem_of_the_settings_is_a_finding_of_its_own() {
    let project = Project::new(1);
    let text = fs::read_to_string(project.path("pipeline.toml")).expect("settings");
    let broken = text.replace("[landing]", "[landing]\nchekcs = []\nstrategy = \"verfied\"");
    project.write("pipeline.toml", &broken);
    let found = finds(&project, 1, "settings");
    assert_eq!(found.matches("bad      settings: pipeline.toml, line ").count(), 2, "{found}");
    has(&found, &["did you mean `checks`?", "did you mean `verified`?", "mend it there"]);
    fs::remove_file(project.path("pipeline.toml")).expect("it is there");
    has(&finds(&project, 0, "settings"), &["warning  settings: pipeline.toml is gone"]);
    fs::create_dir(project.path("pipeline.toml")).expect("a folder");
    has(&finds(&project, 1, "settings"), &["cannot read `", "make it a readable file"]);
    fs::remove_dir(project.path("pipeline.toml")).expect("it is there");
    project.write("pipeline.toml", "[landing]\nchecks = [\"true\"]\n");
    has(&finds(&project, 1, "settings"), &["no agents", "add an `[[agent]]`"]);
}

#[test]
fn a_program_of_an_agent_that_is_missing_is_found() {
    let project = Project::new(1);
    let text = fs::read_to_string(project.path("pipeline.toml")).expect("settings");
    let ours = "command = [\"sh\", \"{project}/tools/agent.sh\"]";
    let finds = |code, command: &str| {
        project.write("pipeline.toml", &text.replacen(ours, command, 1));
        finds(&project, code, "agents")
    };
    for (command, missing) in [
        ("command = [\"/nonexistent/prog\"]", "`/nonexistent/prog` is not there"),
        ("command = [\"{project}/tools/no.sh\"]", "`./tools/no.sh` is not there"),
        ("command = [\"no-such-program\", \"-x\"]", "`no-such-program` is not on the PATH"),
    ] {
        let found = finds(1, command);
        has(&found, &["bad      agents: agent `architect` cannot start: ", missing]);
        assert_eq!(found.matches("cannot start").count(), 1, "{found}");
    }
    for command in [ours, "command = \"no-such-program\"", "command = \"task\""] {
        project.write("pipeline.toml", &text.replacen(ours, command, 1));
        let found = project.ok(&["doctor"]);
        assert!(!found.contains("cannot start"), "{command}: {found}");
    }
}

#[test]
fn a_version_that_the_project_does_not_take_does_nothing_to_it() {
    let project = Project::new(1);
    project.ok(&["task", "add", "one", "--id", "ONE"]);
    let text = fs::read_to_string(project.path("pipeline.toml")).expect("settings");
    let journal = fs::read(project.state_dir().join("journal/00000000000000000000.ndjson"));
    for (required, wanted) in [(">=99.1", "a newer program"), ("<0.0.1", "an older program")] {
        // What else is wrong with the file is for that program to tell.
        let broken = format!("requires = \"{required}\"\nwhat = [\n{text}");
        project.write("pipeline.toml", &broken);
        for args in [
            &["status"][..],
            &["log"],
            &["task", "add", "two"],
            &["task", "list"],
            &["monitor", "--once"],
            &["stop"],
            &["plan"],
            &["doctor"],
        ] {
            let said = project.fails(4, args);
            has(&said, &[required, env!("CARGO_PKG_VERSION"), wanted, "`requires`"]);
        }
        let after = fs::read(project.state_dir().join("journal/00000000000000000000.ndjson"));
        assert_eq!(after.expect("it"), *journal.as_ref().expect("it"));
    }
    project.write("pipeline.toml", &format!("requires = \">=0.1\"\n{text}"));
    project.ok(&["task", "add", "two"]);
    project.ok(&["doctor"]);
}

#[test]
fn worktrees_without_folder_and_folders_without_worktree_are_told_apart() {
    let project = Project::new(1);
    project.ok(&["task", "add", "one", "--id", "ONE"]);
    project.idle();
    project.ok(&["task", "add", "two", "--id", "TWO"]);
    let taken = project.ok(&["task", "take", "TWO"]);
    has(&finds(&project, 0, "worktrees"), &["ok       worktrees: "]);
    let slot = project.path(".pipeline/worktrees/architect/0");
    let slot = if slot.exists() { slot } else { slot.with_file_name("1") };
    fs::remove_dir_all(&slot).expect("a worktree");
    fs::remove_dir_all(taken.trim()).expect("a worktree");
    project.write(".pipeline/worktrees/architect/77/mine.txt", "mine\n");
    let found = finds(&project, 0, "worktrees");
    let (slot, mine) = (slot.display(), project.path(".pipeline/worktrees/architect/77"));
    has(&found, &[&format!("`{slot}` is gone, and git still has an entry"), "`TWO` was taken"]);
    has(&found, &[&format!("git knows nothing of the folder `{}`", mine.display())]);
    has(&found, &[&format!("rm -r {}", mine.display()), "pipeline task give TWO"]);
    let plan = project.ok(&["doctor", "--repair", "-n"]);
    has(&plan, &[&format!("would    remove git's entry for the worktree `{slot}`")]);
    has(&finds(&project, 0, "worktrees"), &["is gone, and git still has an entry"]);
    has(&project.ok(&["doctor", "--repair"]), &["done     remove git's entry"]);
    assert!(!finds(&project, 0, "worktrees").contains("still has an entry"));
    assert!(mine.join("mine.txt").exists(), "a person's files stay");
}

#[test]
fn branches_that_nobody_owns_or_that_are_gone_are_put_right() {
    let project = Project::new(1);
    project.ok(&["task", "add", "one", "--id", "ONE"]);
    project.idle();
    has(&finds(&project, 0, "refs"), &["ok       refs: all branches stand"]);
    let landed = project.git(&["rev-parse", "pipeline/landed"]);
    project.git(&["update-ref", "refs/heads/pipeline/task/STRAY", "HEAD~1"]);
    project.git(&["update-ref", "-d", "refs/heads/pipeline/landed"]);
    let found = finds(&project, 0, "refs");
    has(&found, &["`refs/heads/pipeline/landed`, which is gone", "it belongs to no task"]);
    has(&found, &["refs/heads/pipeline/task/STRAY", "`pipeline doctor --repair` puts that right"]);
    has(&project.ok(&["doctor", "--repair", "-n"]), &["would    put back `refs/heads/pipeline/l"]);
    assert_eq!(project.try_git(&["rev-parse", "-q", "--verify", "pipeline/landed"]).code, Some(1));
    has(&project.ok(&["doctor", "--repair"]), &["STRAY", "moved to refs/pipeline/salvage/"]);
    assert_eq!(project.git(&["rev-parse", "pipeline/landed"]), landed);
    has(&project.ok(&["salvage", "list"]), &["STRAY"]);
    assert!(project.ok(&["doctor", "--repair"]).contains("nothing to repair"));
}

#[test]
fn keepers_are_told_alive_killed_and_of_another_program() {
    let project = Project::not_ahead(1);
    project.ok(&["task", "add", "one", "--id", "ONE"]);
    project.hold("hold");
    // The program is replaced while it runs, as by an upgrade.
    let copy = project.dir().join("pipeline-copy");
    install_copy(Path::new(env!("CARGO_BIN_EXE_pipeline")), &copy);
    let mut monitor = project.start_other(&copy, &["monitor"]);
    project.until("an agent at work", || !project.runs().is_empty());
    has(&finds(&project, 0, "keepers"), &["ok       keepers: ", " held"]);
    fs::remove_file(&copy).expect("it is there");
    let found = finds(&project, 0, "keepers");
    has(&found, &["agent `architect`", "a program file that was replaced", "stop --drain"]);
    monitor.kill();
    let info = fs::read(project.state_dir().join("keepers/architect/keeper.json")).expect("it");
    let info: Value = serde_json::from_slice(&info).expect("JSON");
    let pid = i32::try_from(info["pid"].as_i64().expect("a number")).expect("a process");
    // Whoever cleans up with a broad hand.
    let lock = project.state_dir().join("keepers/architect/lock");
    fs::rename(&lock, lock.with_file_name("aside")).expect("it is there");
    let found = finds(&project, 0, "keepers");
    has(&found, &[&format!("process {pid}, lost its lock file"), &format!("kill {pid}")]);
    fs::rename(lock.with_file_name("aside"), &lock).expect("it is there");
    signal(pid, Signal::KILL);
    project.until("its end", || processes_of(&project.dir()).iter().all(|it| it.0 != pid));
    let found = finds(&project, 0, "keepers");
    has(&found, &["that of agent `architect` was killed", "pipeline doctor --repair"]);
    let said = project.ok(&["doctor"]);
    has(&about(&said, "attempts"), &["ONE.arch.1 ended while no monitor ran"]);
    let socket = PathBuf::from(info["socket"].as_str().expect("a path"));
    assert!(socket.exists());
    has(&project.ok(&["doctor", "--repair"]), &[socket.to_str().expect("UTF-8")]);
    assert!(!socket.exists() && about(&project.ok(&["doctor"]), "keepers").is_empty());
    // Where another one's is named, it is not touched.
    let other = project.dir().join("run/other");
    fs::write(&other, "").expect("a file");
    let text = info.to_string().replace(info["socket"].as_str().expect("it"), "{}");
    let text = text.replace("{}", other.to_str().expect("UTF-8"));
    fs::write(project.state_dir().join("keepers/architect/keeper.json"), text).expect("it");
    project.ok(&["doctor", "--repair"]);
    assert!(other.exists());
    project.release("hold");
    project.ok(&["stop", "--now"]);
}

#[test]
fn a_disk_that_is_full_or_read_only_and_limits_of_file_events_are_named() {
    let project = Project::new(1);
    let state = project.state_dir().display().to_string();
    let worktrees = project.path(".pipeline/worktrees").display().to_string();
    let doctor = "set +e; pipeline doctor; exit $?";
    let full = format!(
        "mkdir -p '{worktrees}'; mount -t tmpfs -o size=64k none '{worktrees}'\n\
         dd if=/dev/zero of='{worktrees}/x' bs=1k count=100 2>/dev/null || true\n{doctor}"
    );
    let inodes = format!(
        "mkdir -p '{worktrees}'; mount -t tmpfs -o size=1m,nr_inodes=200 none '{worktrees}'\n\
         i=0; while touch '{worktrees}/'$i 2>/dev/null; do i=$((i+1)); done\n\
         {doctor}"
    );
    let read_only =
        format!("mount --bind '{state}' '{state}'; mount -o remount,ro,bind '{state}'\n{doctor}");
    let limit = |name: &str, value: u32| {
        format!("echo {value} >/proc/sys/user/max_inotify_{name}\n{doctor}")
    };
    let cases: [(String, i32, &str, &[&str]); 6] = [
        (full, 1, "disk", &["KiB free, ", "KiB are wanted", "df -h ."]),
        (inodes, 1, "disk", &["inodes free, 2 are wanted", "df -i ."]),
        (read_only, 1, "locks", &["Read-only file system", "make the state folder writable"]),
        (limit("instances", 0), 0, "file events", &["gives no file events", "max_user_instances="]),
        (limit("watches", 0), 0, "file events", &["no watch left", "max_user_watches=524288"]),
        (limit("watches", 20), 0, "file events", &["only 20 folders can be watched", "sysctl"]),
    ];
    for (line, code, what, parts) in cases {
        let Some((found, said)) = apart(&project, &line) else { return };
        assert_eq!(found, Some(code), "{line}: {said}");
        has(&about(&said, what), parts);
    }
    assert!(!Path::new(&state).join(".doctor-1.tmp").exists());
}

#[test]
fn folders_of_attempts_that_nobody_knows_go_when_they_are_old() {
    let project = Project::new(1);
    project.ok(&["task", "add", "one", "--id", "ONE"]);
    project.idle();
    let attempts = project.state_dir().join("attempts");
    let (young, old) = (attempts.join("GONE.impl.1"), attempts.join("GONE.impl.2"));
    for path in [&young, &old] {
        fs::create_dir(path).expect("a folder");
        fs::write(path.join("prompt.md"), "do\n").expect("a file");
    }
    let inside = project.dir().join("outside");
    fs::create_dir(&inside).expect("a folder");
    symlink(&inside, old.join("link")).expect("a link");
    fs::write(inside.join("kept"), "").expect("a file");
    make_old(&old);
    project.shell(&format!("touch -h -d '30 days ago' '{}'", old.join("link").display()));
    make_old(&old);
    let count = || fs::read_dir(&attempts).expect("folders").count();
    let before = count();
    let found = finds(&project, 0, "attempts");
    has(&found, &[&format!("`{}` belongs to no attempt", young.display()), "rm -r /"]);
    assert!(!found.contains("GONE.impl.2"), "{found}");
    has(&finds(&project, 0, "leftovers"), &["GONE.impl.2`, of an attempt that the journal"]);
    assert_eq!(count(), before);
    project.ok(&["doctor", "--repair"]);
    assert!(young.exists() && !old.exists() && inside.join("kept").exists());
    assert_eq!(count(), before - 1);
}

#[test]
fn base_checks_run_on_the_base_alone_and_leave_nothing() {
    let settings = "[worktree]\nsetup = [\"test -e secret && echo set up\"]\ncopy = [\"secret\"]\n";
    let project = Project::with(1, settings);
    project.write(".git/info/exclude", "/.pipeline/\n/secret\n");
    let said = project.fails(1, &["doctor", "--checks"]);
    let what = "base checks";
    has(&about(&said, what), &["`test -e secret && echo set up` fails on `main`", "exit status 1"]);
    project.write("secret", "it\n");
    let said = project.ok(&["doctor", "--checks"]);
    has(&about(&said, what), &["ok       base checks: `sh tools/check.sh` passes on `main` ("]);
    // What is not committed is not looked at.
    project.write("broken", "");
    project.ok(&["doctor", "--checks"]);
    project.commit("Break it");
    let said = project.fails(1, &["doctor", "--checks"]);
    has(&about(&said, what), &["exit status 1\n         | it is broken", "--allow-red-base"]);
    assert_eq!(about(&project.ok(&["doctor"]), what), "", "only where it is asked for");
    let list = project.git(&["worktree", "list"]);
    assert_eq!(list.lines().count(), 1, "{list}");
    assert!(!project.path(".pipeline/worktrees/.doctor").exists());
    let text = fs::read_to_string(project.path("pipeline.toml")).expect("settings");
    project.write("pipeline.toml", &text.replace("sh tools/check.sh", "touch begun; sleep 600"));
    let mut running = project.start(&["doctor", "--checks"]);
    let begun = project.path(".pipeline/worktrees/.doctor/1/begun");
    project.until("the check", || begun.exists());
    running.signal(Signal::INT);
    assert_eq!(running.end(&project), Some(130));
    assert_eq!(processes_of(&project.dir()), []);
    assert!(!begun.exists());
    project.write("pipeline.toml", &text.replace("[\"sh tools/check.sh\"]", "[]"));
    let done = project.ok(&["doctor", "--checks"]);
    has(&about(&done, what), &["passes on `main`"]);
}

#[test]
fn base_checks_without_a_file_are_those_that_were_adopted() {
    let project = Project::new(1);
    project.ok(&["task", "add", "one", "--id", "ONE"]);
    let text = fs::read_to_string(project.path("pipeline.toml")).expect("settings");
    fs::remove_file(project.path("pipeline.toml")).expect("it is there");
    let what = "base checks";
    let said = project.ok(&["doctor", "--checks"]);
    has(&about(&said, what), &["ok       base checks: `sh tools/check.sh` passes on `main`"]);
    project.write("broken", "");
    project.commit("Break it");
    for broken in [None, Some("[landing]\nchekcs = []\n")] {
        broken.iter().for_each(|text| project.write("pipeline.toml", text));
        let said = project.fails(1, &["doctor", "--checks"]);
        has(&about(&said, what), &["bad      base checks: `sh tools/check.sh` fails on `main`"]);
    }
    // Another version's project is left alone.
    project.write("pipeline.toml", &format!("requires = \">=99.1\"\n{text}"));
    let said = project.fails(4, &["doctor", "--checks"]);
    has(&about(&said, what), &["bad      base checks: not run: the settings cannot be had"]);
}

#[test]
fn a_second_run_of_base_checks_leaves_the_first_alone() {
    let project = Project::new(1);
    let text = fs::read_to_string(project.path("pipeline.toml")).expect("settings");
    project.write("pipeline.toml", &text.replace("sh tools/check.sh", "touch begun; sleep 600"));
    let mut running = project.start(&["doctor", "--checks"]);
    let begun = project.path(".pipeline/worktrees/.doctor/1/begun");
    project.until("the check", || begun.exists());
    let said = project.fails(4, &["doctor", "--checks"]);
    let owner = format!("another process runs them: process {} (doctor --checks)", running.pid());
    has(&about(&said, "base checks"), &["refused  base checks: not run", &owner, "wait until"]);
    has(&said, &["journal: whole up to record"]);
    assert!(begun.exists() && running.has_ended().is_none(), "{}", running.said());
    running.signal(Signal::TERM);
    assert_eq!(running.end(&project), Some(0));
    has(&about(&running.said(), "base checks"), &["warning  base checks: ended by SIGTERM"]);
    assert_eq!(processes_of(&project.dir()), []);
    assert!(!begun.exists());
    project.write("pipeline.toml", &text);
    project.ok(&["doctor", "--checks"]);
}

#[cfg(feature = "failpoints")]
#[test]
fn what_cannot_be_looked_at_is_said_and_no_reason_to_give_up() {
    let project = Project::new(1);
    let run = |point: &str, code: i32, what: &str, part: &str| {
        let mut command = project.command(&project.root, &["doctor"]);
        let output = command.env("PIPELINE_FAILPOINT", point).output().expect("it starts");
        let said = String::from_utf8_lossy(&output.stdout).into_owned();
        assert_eq!(output.status.code(), Some(code), "{point}: {said}");
        has(&about(&said, what), &[part]);
    };
    run("doctor.child:1=error", 1, "locks", "cannot try a lock at `");
    run("doctor.watch:1=error", 0, "file events", "--poll-only");
    run("room.look:1=error", 0, "journal", "whole up to record");
}
