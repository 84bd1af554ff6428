//! The worktree: setup, copies, names, hooks, strays.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::zoo::{Task, Zoo, agent, one_stage};

#[test]
fn setup_runs_once_for_each_state_of_the_lockfiles() {
    let more = "[worktree]\nsetup = [\"echo $PIPELINE_AGENT >> \\\"$ZOO/setups\\\"; \
                mkdir -p node_modules; echo dep > node_modules/dep\"]\nkeep = [\"node_modules\"]\n";
    let script = r#"
test -f node_modules/dep
if test "$PIPELINE_TASK_ID" = T-3; then echo '{}' > package.json; fi
echo x > by-$PIPELINE_TASK_ID; pipeline done"#;
    let zoo = Zoo::new(&one_stage(more, 1, script));
    fs::write(zoo.root().join(".git/info/exclude"), "node_modules\n/.pipeline/\n").expect("writes");
    let count = || zoo.read("setups").lines().filter(|line| *line == "imp").count();
    zoo.add("T-1", &[]);
    zoo.add("T-2", &["--depends-on", "T-1"]);
    assert_eq!(zoo.run().code, Some(0));
    assert_eq!(count(), 1);
    zoo.add("T-3", &[]);
    zoo.add("T-4", &["--depends-on", "T-3"]);
    zoo.add("T-5", &["--depends-on", "T-4"]);
    assert_eq!(zoo.run().code, Some(0));
    assert_eq!(count(), 2, "{}", zoo.read("setups"));
    assert!(!zoo.landed_files().iter().any(|name| name.contains("node_modules")));
}

/// Runs a task whose setup fails each time, to its third attempt.
fn ends_blocked(zoo: &Zoo) -> Task {
    zoo.add("T-1", &[]);
    assert_eq!(zoo.run().code, Some(1));
    let task = zoo.task("T-1");
    assert_eq!((task.status(), task.class()), ("blocked", "infrastructure"));
    assert_eq!(task.classes(), "infrastructure infrastructure infrastructure");
    task
}

#[test]
fn setup_that_fails_is_infrastructure_and_ends_blocked_with_its_output() {
    let more = "[limits]\ninfrastructure_retries = 2\n[worktree]\nsetup = [\"test $PIPELINE_AGENT \
                != imp || { echo run >> \\\"$ZOO/setups\\\"; echo no net today; exit 9; }\"]\n";
    let zoo = Zoo::new(&one_stage(more, 1, "echo x > x; pipeline done"));
    let task = ends_blocked(&zoo);
    assert_eq!(zoo.read("setups").lines().count(), 3);
    let reason = task.reason();
    assert!(reason.contains("no net today") && reason.contains("status 9"), "{reason}");
}

#[test]
fn setup_that_fails_costs_the_task_no_attempt() {
    let more = "[limits]\nattempts_per_stage = 1\nattempts_per_task = 1\n[worktree]\nsetup = \
                [\"test $PIPELINE_AGENT != imp || { echo run >> \\\"$ZOO/setups\\\"; \
                test $(wc -l < \\\"$ZOO/setups\\\") -ge 3; }\"]\n";
    let zoo = Zoo::new(&one_stage(more, 1, "echo x > x; pipeline done"));
    zoo.add("T-1", &[]);
    assert_eq!(zoo.run().code, Some(0), "{:?}", zoo.task("T-1"));
    assert_eq!(zoo.task("T-1").classes(), "infrastructure infrastructure completed");
}

#[test]
fn words_of_a_setup_are_no_shortage_and_half_a_setup_is_left_nowhere() {
    // What a dead registry, a full quota elsewhere or a compiler says is no word on our disk.
    let more = "[limits]\ninfrastructure_retries = 2\n[worktree]\nkeep = [\"cache\"]\nsetup = [\"\
                test $PIPELINE_AGENT != imp || { pwd >> \\\"$ZOO/places\\\"; test ! -e cache; \
                touch cache; echo 'write: No space left on device'; \
                echo 'Cannot allocate memory'; exit 9; }\"]\n";
    let zoo = Zoo::new(&one_stage(more, 1, "echo x > x; pipeline done"));
    let task = ends_blocked(&zoo);
    assert!(task.reason().contains("status 9"), "{}", task.reason());
    let places = zoo.read("places");
    let mut places: Vec<&str> = places.lines().collect();
    assert_eq!(places.len(), 3);
    places.dedup();
    assert_eq!(places.len(), 1, "one slot, used again: {places:?}");
    assert!(!fs::exists(places[0]).expect("readable"), "{places:?}");
    assert!(!zoo.ok(&["log", "--json"]).contains("shortage"));
}

#[test]
fn words_of_a_setup_do_not_hold_the_lane_for_ever() {
    let more = "[limits]\ninfrastructure_retries = 2\n[landing]\nchecks = [\"true\"]\n\
                [worktree]\nsetup = [\"test ! -e x || { echo run >> \\\"$ZOO/setups\\\"; \
                echo 'Resource temporarily unavailable'; exit 1; }\"]\n";
    let script = "echo x > x; echo '{}' > package.json; pipeline done";
    let zoo = Zoo::new(&one_stage(more, 1, script));
    zoo.add("T-1", &[]);
    assert_eq!(zoo.run().code, Some(1));
    let task = zoo.task("T-1");
    assert_eq!((task.status(), task.class()), ("blocked", "infrastructure"));
    assert_eq!(zoo.read("setups").lines().count(), 3);
}

#[test]
fn a_folder_for_sockets_that_goes_away_blocks_nothing() {
    // So systemd does with /run/user when the last session ends.
    let stages = "[[stage]]\nname = \"review\"\nshort = \"rev\"\nmust_change = false\n";
    // Somebody may put a socket there meanwhile.
    let script = "until rm -rf \"$ZOO/run/pipeline\"; do :; done\n\
                  echo x > by-$PIPELINE_TASK_ID; pipeline done";
    let settings = one_stage("", 1, script) + stages + &agent("rev", "review", 1, "pipeline done");
    let zoo = Zoo::new(&settings);
    zoo.add("T-1", &[]);
    zoo.add("T-2", &[]);
    let ran = zoo.run();
    assert_eq!(ran.code, Some(0), "{ran:?}");
    let why = || zoo.ok(&["task", "log", "T-1"]) + &zoo.ok(&["task", "log", "T-2"]);
    assert_eq!(zoo.task("T-1").classes(), "completed completed", "{}", why());
    assert_eq!(zoo.task("T-2").classes(), "completed completed", "{}", why());
}

/// Returns the note that nobody works in the one worktree of an agent.
fn rest_note(zoo: &Zoo) -> PathBuf {
    let admins = fs::read_dir(zoo.root().join(".git/worktrees")).expect("reads");
    let notes = admins.map(|admin| admin.expect("an entry").path().join("pipeline-rest"));
    let mut notes = notes.filter(|note| note.exists());
    let note = notes.next().expect("it is noted");
    assert_eq!(notes.next(), None);
    note
}

#[test]
fn what_the_checks_of_a_stage_leave_in_a_worktree_is_no_persons() {
    let more = "[scheduler]\nprefetch = 0\n";
    let script = "pwd > \"$ZOO/place\"; echo x > x; pipeline done";
    let checked = "must_change = true\nchecks = [\"sleep 0.1; echo 100 > coverage\"]\n";
    let zoo = Zoo::new(&one_stage(more, 1, script).replace("must_change = true\n", checked));
    zoo.add("T-1", &[]);
    assert_eq!(zoo.run().code, Some(0));
    let modified = |path: &Path| fs::metadata(path).and_then(|it| it.modified()).expect("a time");
    let coverage = Path::new(zoo.read("place").trim_end()).join("coverage");
    assert!(modified(&rest_note(&zoo)) >= modified(&coverage));
}

#[test]
fn what_a_person_did_in_a_worktree_between_two_attempts_is_kept_and_told() {
    let script = r#"
if mkdir "$ZOO/first"; then echo half > half; pwd > "$ZOO/place"; pipeline fail 'not now'; exit 1; fi
ls > "$ZOO/found"; echo x > x; pipeline done"#;
    // Worktrees that are made ready ahead take turns anyway.
    let settings = "[scheduler]\nprefetch = 0\n[limits]\nattempts_per_stage = 1\n";
    let zoo = Zoo::new(&one_stage(settings, 1, script));
    zoo.add("T-1", &[]);
    assert_eq!(zoo.run().code, Some(1));
    let place = zoo.read("place");
    fs::write(format!("{}/by-hand", place.trim_end()), "by hand\n").expect("writes");
    // A minute goes by.
    let note = fs::File::options().append(true).open(rest_note(&zoo)).expect("opens");
    let began = note.metadata().and_then(|meta| meta.modified()).expect("a time");
    note.set_modified(began - Duration::from_secs(60)).expect("is set back");
    zoo.ok(&["task", "retry", "T-1", "--fresh"]);
    assert_eq!(zoo.run().code, Some(0));
    assert_eq!(zoo.task("T-1").classes(), "failed completed");
    assert!(!zoo.read("found").contains("by-hand"), "the agent has a clean one");
    assert_eq!(zoo.landed_files().iter().find(|name| *name == "by-hand"), None);
    let kept = "refs/pipeline/salvage/T-1.impl.2.slot";
    assert_eq!(zoo.git(&["show", &format!("{kept}:by-hand")]), "by hand");
    let told = format!(
        "changed while no agent ran: worktree {}: what came there is kept in {kept}\n",
        place.trim_end()
    );
    assert!(zoo.ok(&["log"]).contains(&told), "{}", zoo.ok(&["log"]));
    assert!(zoo.ok(&["salvage", "list"]).contains("T-1.impl.2.slot"));
}

#[test]
fn copies_are_there_and_never_committed() {
    let more = "[worktree]\ncopy = [\".env\", \"local conf\", \"not there\"]\n";
    let script = "cp .env got; cat 'local conf/ä.ini' >> got; git status --porcelain > \"$ZOO/seen\"\n\
                  git add -A -f; git commit -qm all; pipeline done";
    let zoo = Zoo::new(&one_stage(more, 1, script));
    zoo.write(".env", "KEY=secret\n");
    zoo.write("local conf/ä.ini", "deep\n");
    fs::write(zoo.root().join(".git/info/exclude"), ".env\nlocal conf\n/.pipeline/\n").expect("ok");
    zoo.add("T-1", &[]);
    assert_eq!(zoo.run().code, Some(0));
    assert_eq!(zoo.git(&["show", "main:got"]), "KEY=secret\ndeep");
    let files = zoo.landed_files();
    let is_secret = |name: &String| name == ".env" || name.starts_with("local conf");
    assert!(!files.iter().any(is_secret), "{files:?}");
    let all = zoo.git(&["log", "--all", "--format=", "--name-only"]);
    assert!(all.contains(".env"), "the agent's own commit is kept apart");
    let landed = zoo.git(&["log", "main", "--format=", "--name-only"]);
    let is_secret = |name: &str| name == ".env" || name.contains("conf") || name.contains("TASK");
    assert!(!landed.lines().any(is_secret), "{landed}");
    assert_eq!(zoo.read("seen"), "?? got\n");
}

#[test]
fn copies_that_git_does_not_ignore_are_not_committed_either() {
    let zoo =
        Zoo::new(&one_stage("[worktree]\ncopy = [\".env\"]\n", 1, "cp .env got; pipeline done"));
    zoo.write(".env", "KEY=secret\n");
    zoo.add("T-1", &[]);
    assert_eq!(zoo.run().code, Some(0));
    let files = zoo.landed_files();
    assert!(files.contains(&"got".to_owned()) && !files.contains(&".env".to_owned()), "{files:?}");
}

#[test]
fn a_daemon_left_behind_is_ended_and_the_next_attempt_has_a_fresh_slot() {
    let script = r#"
pwd >> "$ZOO/places"
setsid sh -c 'echo $$ > "$ZOO/daemon"; exec sleep 300' > /dev/null 2>&1 &
until test -s "$ZOO/daemon"; do sleep 0.02; done
echo x > by-$PIPELINE_TASK_ID; pipeline done"#;
    // Worktrees that are made ready ahead take turns anyway.
    let zoo = Zoo::new(&one_stage("[scheduler]\nprefetch = 0\n", 1, script));
    zoo.add("T-1", &[]);
    zoo.add("T-2", &["--depends-on", "T-1"]);
    assert_eq!(zoo.run().code, Some(0));
    let task = zoo.task("T-1");
    assert_eq!(task.classes(), "completed");
    assert!(task.attempts("work")[0]["leaked"].as_u64() >= Some(1), "{task:?}");
    let places = zoo.read("places");
    let places: Vec<&str> = places.lines().collect();
    assert_ne!(places[0], places[1]);
    let daemon = zoo.read("daemon");
    assert!(!fs::exists(format!("/proc/{}", daemon.trim())).expect("readable"), "{daemon}");
}

#[test]
fn a_worktree_that_is_gone_is_infrastructure_and_is_made_again() {
    let script = r#"
echo run >> "$ZOO/runs"
echo x > x.txt
if test "$(wc -l < "$ZOO/runs")" -le 1; then pipeline done; cd /; rm -rf "$OLDPWD"; exit 0; fi
pipeline done"#;
    let zoo = Zoo::new(&one_stage("[limits]\nattempts_per_stage = 1", 1, script));
    zoo.add("T-1", &[]);
    assert_eq!(zoo.run().code, Some(0), "{:?}", zoo.task("T-1"));
    let task = zoo.task("T-1");
    assert!(task.classes().ends_with(" completed"), "{}", task.classes());
    let first = task.classes().split(' ').next().map(str::to_owned);
    assert!(matches!(first.as_deref(), Some("lost" | "infrastructure")), "{first:?}");
    assert!(zoo.landed_files().contains(&"x.txt".to_owned()));
    assert!(zoo.landed_files().contains(&"a.txt".to_owned()));
}

#[test]
fn a_flood_of_output_is_capped_at_head_and_tail() {
    let script = "echo first words; head -c 100000000 /dev/zero | tr '\\0' x; echo; \
                  echo last words; echo x > x; pipeline done";
    let zoo = Zoo::new(&one_stage("[limits]\nlog_bytes = \"64KiB\"", 1, script));
    zoo.add("T-1", &[]);
    assert_eq!(zoo.run().code, Some(0));
    let log = fs::read(zoo.root().join(".git/pipeline/logs/T-1.impl.1.log"))
        .unwrap_or_else(|_| zoo.ok(&["task", "log", "T-1", "--stage", "impl"]).into_bytes());
    assert!(log.len() <= 66 << 10, "{}", log.len());
    let text = String::from_utf8_lossy(&log);
    assert!(text.contains("first words") && text.contains("last words"));
}

#[test]
fn a_task_whose_file_is_tracked_is_refused_at_once() {
    let zoo = Zoo::new(&one_stage("", 1, "echo x > x; pipeline done"));
    zoo.write("TASK-007.md", "the project's own\n");
    zoo.git(&["add", "-A", "--", "TASK-007.md"]);
    zoo.git(&["commit", "-qm", "a file of that name"]);
    zoo.add("TASK-007", &[]);
    zoo.add("T-2", &[]);
    assert_eq!(zoo.run().code, Some(1));
    assert_eq!(zoo.task("T-2").status(), "completed");
    let task = zoo.task("TASK-007");
    assert_eq!((task.status(), task.classes().as_str()), ("blocked", "unstartable"));
    assert!(task.reason().contains("TASK-007.md"), "{}", task.reason());
    assert_eq!(zoo.git(&["show", "main:TASK-007.md"]), "the project's own");
}

#[test]
fn names_with_blanks_and_letters_of_any_script_work() {
    let script = r#"
mkdir -p 'ü ö/日本'
echo x > 'ü ö/日本/a b.txt'; printf 'y' > "it's \"quoted\".txt"; echo z > -dash; echo 1 > '[b].md'
pipeline done"#;
    let settings = one_stage("[landing]\nchecks = [\"test -f 'ü ö/日本/a b.txt'\"]", 1, script);
    // The base has no such file, and its check is not what this is about.
    let settings = settings.replace("test -f", "test ! -f x || test -f");
    let zoo = Zoo::named("ein Projekt – ß", &settings);
    zoo.ok(&["task", "add", "--id", "T-1", "Tü \"x\" 日本 -- `rm`"]);
    assert_eq!(zoo.run().code, Some(0));
    let files = zoo.git(&["ls-tree", "-r", "-z", "--name-only", "main"]);
    let files: Vec<&str> = files.split('\0').collect();
    for name in ["ü ö/日本/a b.txt", "it's \"quoted\".txt", "-dash", "[b].md"] {
        assert!(files.contains(&name), "{name} in {files:?}");
    }
    let subject = zoo.git(&["log", "-1", "--format=%s", "main"]);
    assert!(subject.contains("Tü \"x\" 日本"), "{subject}");
}

#[test]
fn hostile_settings_and_hooks_of_the_user_stop_nothing() {
    let script = "test -z \"${GIT_DIR:-}\"; echo x > x.txt; pipeline done";
    let mut zoo = Zoo::new(&one_stage("", 1, script));
    let hooks = zoo.path("hooks");
    fs::create_dir_all(&hooks).expect("makes the folder");
    let names = [
        "pre-commit",
        "commit-msg",
        "prepare-commit-msg",
        "post-commit",
        "post-checkout",
        "pre-merge-commit",
        "post-merge",
        "reference-transaction",
        "post-index-change",
    ];
    let own = zoo.root().join(".git/hooks");
    fs::create_dir_all(&own).expect("makes the folder");
    for name in names {
        for folder in [&hooks, &own] {
            let path = folder.join(name);
            fs::write(&path, format!("#!/bin/sh\necho {name} >> \"$ZOO/hooked\"\nexit 1\n"))
                .expect("writes");
            let mode = std::os::unix::fs::PermissionsExt::from_mode(0o755);
            fs::set_permissions(&path, mode).expect("sets the mode");
        }
    }
    zoo.set_global(&format!(
        "[core]\n\thooksPath = {}\n\teditor = false\n\tpager = false\n\tquotePath = true\n\
         \tautocrlf = true\n\tfsmonitor = false\n\
         [commit]\n\tgpgSign = true\n\ttemplate = /nowhere\n[tag]\n\tgpgSign = true\n\
         [gpg]\n\tprogram = false\n[merge]\n\tff = only\n\tconflictStyle = merge\n\
         \trenames = false\n[diff]\n\texternal = false\n\tnoprefix = true\n\
         [color]\n\tui = always\n[init]\n\tdefaultBranch = zzz\n[status]\n\tshort = true\n\
         [status]\n\tshowUntrackedFiles = no\n[core]\n\texcludesFile = {}\n",
        hooks.display(),
        zoo.path("excludes").display(),
    ));
    zoo.add("T-1", &[]);
    let ran = zoo.run();
    assert_eq!(ran.code, Some(0), "{ran:?}\n{}", zoo.task("T-1").reason());
    assert_eq!(zoo.read("hooked"), "", "no hook of the user is run by us");
    let files = zoo.git(&["-c", "color.ui=false", "ls-tree", "-r", "--name-only", "main"]);
    assert!(files.contains("x.txt"), "{files}");
}

#[test]
fn copies_follow_a_link_of_the_checkout_and_never_one_of_the_repository() {
    let more = "[limits]\ninfrastructure_retries = 1\n[worktree]\ncopy = [\".env\", \"conf/x\"]\n";
    let script = "cp .env got; rm -rf conf; ln -s \"$ZOO\" conf; pipeline done";
    let zoo = Zoo::new(&one_stage(more, 1, script));
    fs::write(zoo.path("real"), "KEY=1\n").expect("writes");
    std::os::unix::fs::symlink(zoo.path("real"), zoo.root().join(".env")).expect("links");
    zoo.add("T-1", &[]);
    assert_eq!(zoo.run().code, Some(0), "{}", zoo.task("T-1").evidence());
    assert_eq!(zoo.git(&["show", "main:got"]), "KEY=1");
    // Now `conf` is a link out of the worktree, committed; and there is something to copy.
    fs::remove_file(zoo.root().join("conf")).expect("removes");
    zoo.write("conf/x", "must stay inside");
    zoo.add("T-2", &[]);
    assert_eq!(zoo.run().code, Some(1));
    let task = zoo.task("T-2");
    assert_eq!(task.class(), "infrastructure");
    assert!(task.reason().contains("symbolic link"), "{}", task.reason());
    assert_eq!(zoo.read("x"), "");
}

#[test]
fn a_stop_does_not_wait_for_a_long_setup() {
    let more = "[worktree]\nsetup = [\"test $PIPELINE_AGENT != imp || { touch \\\"$ZOO/begun\\\"; \
                exec sleep 300; }\"]\n";
    let zoo = Zoo::new(&one_stage(more, 1, "echo x > x; pipeline done"));
    zoo.add("T-1", &[]);
    let mut monitor = zoo.start();
    zoo.wait_for("begun");
    zoo.ok(&["stop", "--now"]);
    assert!(monitor.wait().expect("ends").success());
    let task = zoo.task("T-1");
    assert_eq!((task.status(), task.classes().as_str()), ("impl_ready", "stopped"));
}

#[test]
fn a_stop_after_the_monitors_death_ends_the_agent_and_saves_its_work() {
    let script = "echo half > half; touch \"$ZOO/begun\"; exec sleep 300";
    let zoo = Zoo::new(&one_stage("", 1, script));
    zoo.add("T-1", &[]);
    let mut monitor = zoo.start();
    zoo.wait_for("begun");
    monitor.kill().expect("is ended");
    monitor.wait().expect("is reaped");
    assert_eq!(zoo.task("T-1").status(), "impl_wip");
    zoo.ok(&["stop", "--now"]);
    let task = zoo.task("T-1");
    assert_eq!((task.status(), task.classes().as_str()), ("impl_ready", "stopped"));
    assert_eq!(zoo.git(&["show", "refs/pipeline/salvage/T-1.impl.1:half"]), "half");
}

#[test]
fn a_repository_inside_the_worktree_is_moved_beside_it_and_named() {
    let script = r#"
echo x > by-$PIPELINE_TASK_ID
if test "$PIPELINE_TASK_ID" = T-1; then
  git clone -q "$PIPELINE_PROJECT" engine
  git -C engine -c user.name=x -c user.email=x@y commit -q --allow-empty -m fix
  echo more > engine/unc.txt
  git add -A; git commit -qm all
fi
pipeline done"#;
    let zoo = Zoo::new(&one_stage("", 1, script));
    zoo.add("T-1", &[]);
    zoo.add("T-2", &["--depends-on", "T-1"]);
    let ran = zoo.run();
    assert_eq!(ran.code, Some(0), "{ran:?}");
    let place = zoo.root().join(".pipeline/worktrees/imp/left/T-1.impl.1");
    assert_eq!(fs::read_to_string(place.join("engine/unc.txt")).expect("it stays"), "more\n");
    let told = format!(
        "completed: not committed, since it is a repository of its own: `engine`; kept in `{}`",
        place.display()
    );
    let said = ran.out + &ran.err;
    assert!(said.contains(&told), "{said}");
    let task = zoo.task("T-1");
    let reason = task.attempts("work")[0]["reason"].as_str().unwrap_or_default();
    assert!(told.ends_with(reason) && !reason.is_empty(), "{reason}");
    let files = zoo.landed_files();
    let has = |name: &str| files.iter().any(|file| file == name);
    assert!(has("by-T-1") && has("by-T-2") && !has("engine"), "{files:?}");
    let left = zoo.ok(&["deinit", "--force"]);
    assert!(place.join("engine/unc.txt").exists(), "{left}");
}

#[test]
fn nothing_of_the_checkout_is_taken_where_a_worktree_became_a_link_to_it() {
    let script = r#"
W=$PWD
cd /
rm -rf "$W"
ln -s "$PIPELINE_PROJECT" "$W""#;
    let zoo = Zoo::new(&one_stage("[limits]\ninfrastructure_retries = 1", 1, script));
    zoo.write("own.txt", "a person's\n");
    zoo.add("T-1", &[]);
    assert_eq!(zoo.run().code, Some(1));
    let task = zoo.task("T-1");
    assert!(task.classes().starts_with("lost"), "{}", task.classes());
    assert!(!zoo.landed_files().contains(&"own.txt".to_owned()));
    let all = zoo.git(&["log", "--all", "--format=", "--name-only"]);
    assert!(!all.contains("own.txt"), "{all}");
    assert_eq!(fs::read_to_string(zoo.root().join("own.txt")).expect("it stays"), "a person's\n");
}
