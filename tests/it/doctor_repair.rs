//! `pipeline doctor --repair`: what is whole counts again, and what was damaged is kept.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::process::Stdio;
use std::time::Duration;

#[cfg(feature = "failpoints")]
use crate::support::processes_of;
use crate::support::project::Project;

/// A project with three tasks, one record each.
fn three() -> Project {
    let project = Project::new(1);
    for id in ["ONE", "TWO", "THREE"] {
        project.ok(&["task", "add", "a task", "--id", id]);
    }
    project
}

/// Damages the record of the second task; returns the bytes.
fn damage_the_middle(project: &Project) -> Vec<u8> {
    let path = project.segment();
    let damaged = fs::read_to_string(&path).expect("the journal").replace("\"TWO\"", "\"TOO\"");
    fs::write(&path, &damaged).expect("the journal");
    damaged.into_bytes()
}

fn ids(project: &Project) -> Vec<String> {
    let list = project.ok(&["task", "list", "--json"]);
    let list: serde_json::Value = serde_json::from_str(&list).expect("JSON");
    let tasks = list["tasks"].as_array().expect("tasks").iter();
    tasks.map(|task| task["id"].as_str().expect("an id").to_owned()).collect()
}

/// Writes a file that looks as if left long ago.
fn leave(path: &Path) {
    fs::create_dir_all(path.parent().expect("it has a folder")).expect("its folder");
    fs::write(path, "").expect("a file");
    age(path);
}

/// Lets a file look as if left long ago.
fn age(path: &Path) {
    let file = fs::File::options().append(true).open(path).expect("a file");
    let now = file.metadata().and_then(|meta| meta.modified()).expect("its time");
    file.set_modified(now - Duration::from_secs(60)).expect("its time");
}

#[test]
fn a_damaged_middle_is_cut_on_request_only_and_the_original_kept() {
    let project = three();
    let damaged = damage_the_middle(&project);
    let before = project.state_files();
    for args in [&["doctor"][..], &["doctor", "--repair", "-n"]] {
        let said = project.fails(3, args);
        assert!(said.contains("begin a new segment at record 3"), "{said}");
        assert!(said.contains("2 later records cannot be read and are lost"), "{said}");
        assert!(said.contains("line 3 at byte "), "{said}");
        assert_eq!(project.state_files(), before, "nothing is done unasked");
    }
    let said = project.ok(&["doctor", "--repair"]);
    let aside = project.state_dir().join("journal/damaged-00000000000000000000-1");
    assert!(said.contains(aside.to_str().expect("UTF-8")), "{said}");
    assert_eq!(fs::read(aside).expect("the original"), damaged);
    assert_eq!(ids(&project), ["ONE"]);
    let after = project.state_files();
    assert!(project.ok(&["doctor", "--repair"]).contains("nothing to repair"));
    assert_eq!(project.state_files(), after);
    project.ok(&["task", "add", "a task", "--id", "TWO"]);
    assert_eq!(ids(&project), ["ONE", "TWO"]);
    project.ok(&["doctor"]);
}

#[test]
fn nothing_is_lost_where_all_records_are_whole() {
    let project = three();
    let path = project.segment();
    let text = fs::read_to_string(&path).expect("the journal");
    fs::write(&path, text.replace('\n', "\r\n")).expect("the journal");
    project.fails(3, &["status"]);
    let said = project.ok(&["doctor", "--repair"]);
    assert!(said.contains("nothing is lost"), "{said}");
    assert_eq!(ids(&project), ["ONE", "TWO", "THREE"]);
}

#[test]
fn what_cannot_be_mended_is_refused_and_stays() {
    let project = three();
    fs::write(project.segment(), "garbage\n").expect("the journal");
    let before = project.state_files();
    let said = project.fails(3, &["doctor", "--repair"]);
    assert!(said.contains("line 1 (byte 0)"), "{said}");
    assert_eq!(project.state_files(), before);
}

#[test]
fn a_newer_format_is_refused_and_stays() {
    let project = three();
    let text = fs::read_to_string(project.segment()).expect("the journal");
    fs::write(project.segment(), text.replacen("\n{\"v\":1", "\n{\"v\":2", 1)).expect("it");
    let before = project.state_files();
    for args in [&["doctor"][..], &["doctor", "--repair", "-n"], &["doctor", "--repair"]] {
        assert!(project.fails(4, args).contains("format 2"), "{args:?}");
        assert_eq!(project.state_files(), before);
    }
}

#[test]
fn what_was_done_is_told_where_a_later_step_fails() {
    for is_json in [false, true] {
        let project = three();
        damage_the_middle(&project);
        project.before_git(
            "case \"$*\" in *refs/pipeline/pending*) echo 'fatal: no' >&2; exit 128 ;; esac",
        );
        let args = ["doctor", "--repair", "--json"];
        let done = project.run(&args[..if is_json { 3 } else { 2 }]);
        assert_eq!(done.code, Some(1), "{}{}", done.out, done.err);
        assert!(done.err.contains("cannot look for what git left"), "{}", done.err);
        let told = if is_json {
            let document: serde_json::Value = serde_json::from_str(&done.out).expect("JSON");
            document["repairs"][0].as_str().expect("a step").to_owned()
        } else {
            done.out.lines().next().expect("a step").to_owned()
        };
        assert!(told.contains("begin a new segment at record 3"), "{told}");
        assert_eq!(told.starts_with("done     "), !is_json);
        assert!(!done.out.contains("nothing to repair"), "{}", done.out);
        assert_eq!(ids(&project), ["ONE"]);
    }
}

#[test]
fn the_view_is_written_anew_and_a_garbled_one_kept() {
    let project = three();
    let view = project.state_dir().join("state.json");
    fs::remove_file(&view).expect("the view");
    assert!(project.ok(&["doctor"]).contains("state.json` anew"));
    assert!(project.ok(&["doctor", "--repair"]).contains("state.json` anew"));
    let whole = fs::read(&view).expect("it is there");
    fs::write(&view, &whole[..whole.len() / 2]).expect("the view");
    let said = project.ok(&["doctor", "--repair"]);
    assert!(said.contains("state.json.edited-"), "{said}");
    assert_eq!(fs::read(&view).expect("it is there"), whole);
}

#[test]
fn a_repair_is_refused_while_a_monitor_or_an_agent_is_at_work() {
    let project = three();
    project.hold("hold");
    let mut monitor = project.monitor(&[]);
    project.until("an agent at work", || !project.runs().is_empty());
    assert!(project.fails(4, &["doctor", "--repair"]).contains("a monitor runs"));
    monitor.kill();
    assert!(project.fails(4, &["doctor", "--repair"]).contains("is at work"));
    project.release("hold");
    project.ok(&["stop", "--now"]);
}

#[test]
fn a_repair_waits_for_a_keeper_that_leaves() {
    let project = three();
    project.ok(&["monitor", "--until-idle", "--timeout", "240s"]);
    project.keepers_have_ended();
    let keeper = project.state_dir().join("keepers/architect/lock");
    let keeper = fs::File::options().append(true).open(keeper).expect("its lock");
    keeper.lock().expect("it is free");
    let mut repair = project.command(&project.root, &["doctor", "--repair"]);
    let mut repair = repair.stdout(Stdio::null()).spawn().expect("it starts");
    let place = project.state_dir().join("monitor.lock");
    project.until("the repair to look at the keepers", || {
        fs::read_to_string(&place).is_ok_and(|owner| owner.contains("doctor --repair"))
    });
    project.until("no monitor to be kept from beginning", || {
        fs::File::open(&place).is_ok_and(|place| place.try_lock().is_ok())
    });
    drop(keeper);
    assert!(repair.wait().expect("it ends").success());
}

#[test]
fn leftovers_of_the_dead_go_and_what_is_the_users_stays() {
    let project = three();
    project.ok(&["monitor", "--until-idle", "--timeout", "240s"]);
    let git = project.path(".git");
    let admin = git.join("worktrees");
    let slot = fs::read_dir(&admin).expect("slots").flatten().next().expect("a slot").path();
    let ours = [
        project.state_dir().join("attempts/ONE.arch.1/.a.tmp"),
        project.state_dir().join("keepers/architect/.b.tmp"),
        project.path(".pipeline/.c.tmp"),
        git.join("refs/heads/pipeline/task/X.lock"),
        slot.join("index.lock"),
    ];
    let theirs = [git.join("index.lock"), project.path(".d.tmp"), git.join("refs/heads/main.lock")];
    ours.iter().chain(&theirs).for_each(|path| leave(path));
    project.git(&["update-ref", "refs/pipeline/pending/ONE", "HEAD"]);
    let plan = project.ok(&["doctor", "--repair", "-n"]);
    assert!(ours.iter().all(|path| path.exists()), "nothing is done yet");
    let done = project.ok(&["doctor", "--repair"]);
    for path in &ours {
        let name = path.to_str().expect("UTF-8");
        assert!(plan.contains(name) && done.contains(name), "{name}: {plan}{done}");
        assert!(!path.exists(), "{name}");
    }
    assert!(theirs.iter().all(|path| path.exists()), "{done}");
    theirs.iter().for_each(|path| fs::remove_file(path).expect("it is there"));
    let refs = project.git(&["for-each-ref", "--format=%(refname)", "refs/pipeline"]);
    assert!(!refs.contains("pending/ONE") && refs.contains("salvage/ONE.pending-"), "{refs}");
    assert!(project.ok(&["doctor", "--repair"]).contains("nothing to repair"));
}

/// A project whose monitor was killed in a fast-forward.
#[cfg(feature = "failpoints")]
fn cut_short() -> Project {
    let project = Project::new(1);
    project.ok(&["task", "add", "a task", "--id", "ONE"]);
    let mut command = project.command(&project.root, &["monitor", "--until-idle"]);
    let killed = command.env("PIPELINE_FAILPOINT", "git.base_merge=kill").output();
    assert!(!killed.expect("it starts").status.success());
    project.until("its children to end", || processes_of(&project.dir()).is_empty());
    let found = project.ok(&["doctor"]);
    assert!(found.contains("fast-forward that was cut short"), "{found}");
    project
}

#[cfg(feature = "failpoints")]
#[test]
fn a_fast_forward_that_was_cut_short_is_told_and_ended() {
    let project = cut_short();
    let lock = project.path(".git/index.lock");
    assert!(lock.exists());
    let done = project.ok(&["doctor", "--repair"]);
    assert!(done.contains(lock.to_str().expect("UTF-8")), "{done}");
    assert!(!lock.exists());
    assert_eq!(project.git(&["status", "--porcelain", "--untracked-files=no"]), "");
    assert!(project.ok(&["doctor", "--repair"]).contains("nothing to repair"));
    project.ok(&["monitor", "--until-idle", "--timeout", "240s"]);
    assert!(project.ok(&["task", "list"]).contains("completed"));
    assert_eq!(project.git(&["status", "--porcelain", "--untracked-files=no"]), "");
}

#[cfg(feature = "failpoints")]
#[test]
fn what_cannot_be_ended_keeps_nothing_else_from_being_mended() {
    let project = cut_short();
    fs::remove_file(project.path(".git/index.lock")).expect("a person removes it");
    project.git(&["update-ref", "refs/pipeline/pending/GONE", "HEAD"]);
    let gate = fs::File::options().append(true).open(project.path(".git/pipeline/git/base.lock"));
    let gate = gate.expect("it was used");
    gate.lock().expect("nobody has it");
    let said = project.fails(4, &["doctor", "--repair", "--lock-timeout", "100ms"]);
    assert!(said.contains("another git of the pipeline holds it"), "{said}");
    drop(gate);
    let mut repair = project.command(&project.root, &["doctor", "--repair"]);
    // The second look at the lock is that of the end.
    let repair = repair.env("PIPELINE_FAILPOINT", "git.read_lock:2=error").output();
    let repair = repair.expect("it starts");
    assert_eq!(repair.status.code(), Some(1));
    let done = String::from_utf8_lossy(&repair.stdout);
    assert!(done.contains("pending/GONE") && !done.contains("done     end"), "{done}");
    let done = project.ok(&["doctor", "--repair"]);
    assert!(done.contains("done     end the fast-forward that was cut short"), "{done}");
    assert!(project.ok(&["doctor", "--repair"]).contains("nothing to repair"));
    assert_eq!(project.git(&["status", "--porcelain", "--untracked-files=no"]), "");
}

#[test]
fn a_monitor_sweeps_temporary_files_at_its_start() {
    let project = three();
    let old = project.state_dir().join("attempts/ONE.arch.9/.x.tmp");
    let mine = project.path(".x.tmp");
    leave(&old);
    leave(&mine);
    project.ok(&["monitor", "--once"]);
    assert!(!old.exists() && mine.exists());
    project.ok(&["stop", "--now"]);
}

#[cfg(feature = "failpoints")]
#[test]
fn a_repair_killed_at_any_point_is_done_by_the_next() {
    let project = three();
    let damaged = damage_the_middle(&project);
    leave(&project.state_dir().join("attempts/.left/.x.tmp"));
    leave(&project.path(".git/refs/heads/pipeline/task/X.lock"));
    let whole = project.state_files();
    let new = || project.state_files().into_keys().filter(|path| !whole.contains_key(path));
    let put_back = || {
        fs::remove_dir_all(project.state_dir().join("journal")).expect("it is ours");
        fs::create_dir(project.state_dir().join("journal")).expect("a folder");
        new().for_each(|path| fs::remove_file(path).expect("it is ours"));
        whole.iter().for_each(|(path, bytes)| {
            leave(path);
            fs::write(path, bytes).expect("a file");
        });
        leave(&project.state_dir().join("attempts/.left/.x.tmp"));
        leave(&project.path(".git/refs/heads/pipeline/task/X.lock"));
    };
    let log = project.dir().join("points");
    let run = |name: &str, value: &str| {
        let mut command = project.command(&project.root, &["doctor", "--repair"]);
        let is_done = command.env(name, value).output().expect("it starts").status.success();
        // A git that outlives the killed one writes and removes files of its own.
        project.until("its children to end", || processes_of(&project.dir()).is_empty());
        is_done
    };
    assert!(run("PIPELINE_FAILPOINT_LOG", log.to_str().expect("UTF-8")));
    let mut passes = BTreeMap::<String, u32>::new();
    for name in fs::read_to_string(log).expect("the points").lines() {
        *passes.entry(name.to_owned()).or_default() += 1;
    }
    for name in ["checkpoint.rename", "repair.aside", "view.write", "sweep.remove"] {
        assert!(passes.contains_key(name), "a repair passes `{name}`: {passes:?}");
    }
    let writes = |name: &str| !name.starts_with("git.") && name != "lock.open";
    let places = passes.iter().filter(|(name, _)| writes(name));
    for (name, pass) in places.flat_map(|(name, count)| (1..=*count).map(move |it| (name, it))) {
        for action in ["kill", "error"] {
            put_back();
            run("PIPELINE_FAILPOINT", &format!("{name}:{pass}={action}"));
            // A temporary file counts as left once it is old: now, not between the next two looks.
            new().for_each(|path| age(&path));
            project.ok(&["doctor", "--repair"]);
            assert_eq!(ids(&project), ["ONE"], "{name}:{pass}={action}");
            let kept = project.state_files().into_values().any(|bytes| bytes == damaged);
            assert!(kept, "{name}:{pass}={action}");
            let said = project.ok(&["doctor", "--repair"]);
            assert!(said.contains("nothing to repair"), "{name}:{pass}={action}: {said}");
        }
    }
}
