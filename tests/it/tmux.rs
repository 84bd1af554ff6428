//! Agents in windows of a real tmux: what people do there, and what may go away in the middle.

mod desk;
mod hard;
mod live;
mod twelve;

use std::fs;

use rustix::process::Signal;

use self::desk::{
    COMMAND, Client, ONE, STAGE, Scene, agent, assert_done, kill_server, listener, listening, log,
    lost, project, run_to_the_end, shown, those_with, tmux, with_settings,
};
use crate::support::project::Backlog;
use crate::support::{processes_of, signal};

#[test]
fn line_is_pasted_and_the_marker_ends_the_attempt() {
    let project = listener();
    project.import(ONE);
    run_to_the_end(&project, ONE);
    let log = log(&project, "A.work.1");
    assert!(log.contains("got [\x1b[200~Read TASK-A.md, then "), "no bracketed paste: {log}");
    assert_eq!(log.matches("got [").count(), 1, "{log}");
    let said = project.ok(&["agent", "logs", "worker", "-f"]);
    assert!(said.contains("Read TASK-A.md"), "{said}");
}

#[test]
fn preset_in_a_window_is_started_by_its_line_for_a_terminal() {
    let program = "printf '\\033[?2004h> '; read -r line; echo \"got [$line]\"\n\
                   mkdir out && echo x >out/A; pipeline done\n";
    let project = listening(program);
    project.import(ONE);
    run_to_the_end(&project, ONE);
    assert!(log(&project, "A.work.1").contains("got [\x1b[200~Read TASK-A.md, then "));
}

#[test]
fn one_window_serves_task_after_task_and_agents_have_one_each() {
    let project = project(&(agent("one", COMMAND) + &agent("two", COMMAND)));
    let backlog: &Backlog = &[("A", &[]), ("B", &[]), ("C", &["A"]), ("D", &["B"])];
    project.import(backlog);
    project.hold("hold.work");
    let mut monitor = project.monitor(&["--until-idle"]);
    project.until("both agents", || project.runs().len() == 2);
    let windows = ["list-windows", "-a", "-F", "#{session_name} #{window_name}"];
    project.until("two windows", || tmux(&project, &windows).lines().count() == 2);
    let mut names: Vec<String> = tmux(&project, &windows).lines().map(str::to_owned).collect();
    names.sort();
    assert_eq!(names, ["it-s--my--project- one", "it-s--my--project- two"]);
    project.release("hold.work");
    assert_eq!(monitor.end(&project), Some(0), "{}", project.story());
    assert_done(&project, backlog);
    assert_eq!(project.runs().len(), 4);
}

#[test]
fn line_arrives_while_a_person_is_attached_scrolls_and_resizes() {
    let mut scene = Scene::starting();
    let client = Client::attach(&scene.project, "worker");
    scene.tmux(&["copy-mode", "-t", &scene.pane]);
    scene.tmux(&["resize-window", "-t", &scene.pane, "-x", "31", "-y", "9"]);
    assert_eq!(scene.tmux(&["display-message", "-p", "-t", &scene.pane, "#{pane_in_mode}"]), "1");
    scene.finish();
    assert!(log(&scene.project, "A.work.1").contains("\x1b[200~Read TASK-A.md"));
    // The window is gone, so the client is.
    let (is_well, shown) = client.end();
    assert!(is_well && shown.contains("worker"), "{shown}");
}

#[test]
fn leaving_the_window_disturbs_nobody() {
    let mut scene = Scene::starting();
    let mut client = Client::attach(&scene.project, "worker");
    client.types(b"\x02d");
    let project = &scene.project;
    project.until("the client's end", || tmux(project, &["list-clients"]).is_empty());
    let (is_well, shown) = client.end();
    assert!(is_well, "{shown}");
    project.until("the view's end", || tmux(project, &["list-sessions"]).lines().count() == 1);
    scene.finish();
    assert_eq!(scene.project.runs(), ["A.work.1"], "{shown}");
}

#[test]
fn a_folder_for_sockets_that_goes_away_costs_a_try_and_no_task() {
    let program = "echo \"$PIPELINE_ATTEMPT\" >>\"$E2E_DIR/runs\"; printf '\\033[?2004h> '; read -r line\n\
                   rm -rf \"$E2E_DIR/run/pipeline\"\n\
                   mkdir -p out && echo x >\"out/$PIPELINE_TASK_ID\"; pipeline done\n";
    let project = with_settings(STAGE, &agent("worker", COMMAND), program);
    let backlog: &Backlog = &[("A", &[]), ("B", &["A"])];
    project.import(backlog);
    run_to_the_end(&project, backlog);
    assert_eq!(project.runs().len(), 2, "{}", project.story());
}

/// Something is killed while the agent works: the attempt is lost, and done again.
fn lost_and_done_again(kill: impl Fn(&Scene)) {
    let mut scene = Scene::working();
    kill(&scene);
    let project = &scene.project;
    project.until("the loss to be seen", || lost(project) == 1);
    project.until("another try", || project.runs().len() == 2);
    scene.finish();
    assert_eq!(scene.project.runs(), ["A.work.1", "A.work.2"]);
}

#[test]
fn killed_server_loses_the_attempt_and_it_is_done_again() {
    lost_and_done_again(|scene| kill_server(&scene.project));
}

#[test]
fn closed_server_loses_the_attempt_and_it_is_done_again() {
    lost_and_done_again(|scene| drop(scene.tmux(&["kill-server"])));
}

#[test]
fn closed_pane_loses_the_attempt_and_it_is_done_again() {
    lost_and_done_again(|scene| drop(scene.tmux(&["kill-pane", "-t", &scene.pane])));
}

#[test]
fn killed_shim_loses_the_attempt_and_it_is_done_again() {
    lost_and_done_again(|scene| signal(scene.shim, Signal::KILL));
}

#[test]
fn killed_keeper_loses_the_attempt_and_it_is_done_again() {
    lost_and_done_again(|scene| {
        let keepers = those_with(&scene.project, "__keeper");
        keepers.into_iter().for_each(|pid| signal(pid, Signal::KILL));
    });
}

#[test]
fn agent_in_a_window_outlives_a_killed_monitor_and_is_adopted() {
    let mut scene = Scene::starting();
    scene.monitor.kill();
    scene.monitor = scene.project.monitor(&["--until-idle"]);
    scene.finish();
    assert_eq!(scene.project.runs(), ["A.work.1"]);
}

#[test]
fn keeper_alone_sees_an_attempt_in_a_window_to_its_end() {
    let mut scene = Scene::working();
    scene.monitor.kill();
    let project = &scene.project;
    project.release("hold.work");
    project.until("the keeper's end", || processes_of(&project.dir()).is_empty());
    run_to_the_end(project, ONE);
    assert_eq!(project.runs(), ["A.work.1"]);
}

#[test]
fn daemons_of_an_agent_in_a_window_are_ended() {
    let line = "mkdir out; echo x >out/x; trap '' HUP TERM; \
                env -i setsid sh -c \\\"trap '' HUP TERM; while :; do sleep 1000; done\\\" & \
                setsid sleep 1000 & pipeline done; while :; do sleep 1000; done";
    let project = project(&agent("worker", &format!("\"{line}\"")));
    project.import(ONE);
    run_to_the_end(&project, ONE);
    let leaked = project.log().iter().filter_map(|entry| entry["leaked"].as_u64()).max();
    assert!(leaked.is_none_or(|count| count > 0), "{leaked:?}");
}

#[test]
fn person_is_told_and_never_typed_for() {
    let project = project(&agent("me", "\"person\""));
    project.import(ONE);
    let mut monitor = project.monitor(&["--until-idle"]);
    let find = ["list-panes", "-a", "-F", "#{pane_id}"];
    project.until("the window", || tmux(&project, &find).starts_with('%'));
    let pane = tmux(&project, &find);
    let shown = || shown(&project, &pane);
    project.until("the notice", || shown().contains("This is yours: A: Task A"));
    // A shell that is left is not the end.
    tmux(&project, &["send-keys", "-t", &pane, "exit", "Enter"]);
    project.until("another shell", || shown().contains("Still yours"));
    tmux(&project, &["send-keys", "-t", &pane, "echo x >made; pipeline done", "Enter"]);
    assert_eq!(monitor.end(&project), Some(0), "{}", project.story());
    assert_done(&project, ONE);
    assert!(!log(&project, "A.work.1").contains("Read TASK"));
    assert_eq!(project.git(&["show", "main:made"]), "x");
}

/// Keeps a transcript, and waits for people while its provider refuses it.
const REFUSED: &str = r#"echo "$PIPELINE_ATTEMPT" >>"$E2E_DIR/runs"
printf '> '
while read -r line; do
  case "$line" in *"Read TASK-"*) ;; *) continue ;; esac
  to="$E2E_DIR/sessions/$PIPELINE_ATTEMPT.jsonl"
  echo "{\"session\":\"s-1\",\"typed\":\"$line\"}" >>"$to"
  [ -e "$E2E_DIR/refuse" ] && echo '{"error":"no credit"}' >>"$to" && continue
  echo '{"id":1,"tokens":10}' >>"$to"
  echo '{"id":1,"tokens":12}' >>"$to"
  echo '{"id":2,"tokens":30}' >>"$to"
  mkdir -p out && echo x >"out/$PIPELINE_TASK_ID"
  pipeline done
done
"#;

#[test]
fn transcript_tells_what_an_agent_in_a_window_took_and_that_it_was_refused() {
    let project = listening(REFUSED);
    let preset = "agents/presets/mine.toml";
    let text = fs::read_to_string(project.path(preset)).expect("the preset");
    project.write(
        preset,
        &format!(
            "{text}transcript = [\"$E2E_DIR/sessions/*.jsonl\"]\nstill = \"1s\"\n\
             [[output]]\nfact = \"session\"\nat = [\"/session\"]\n\
             [[output]]\nfact = \"input_tokens\"\nat = [\"/tokens\"]\ntake = \"all\"\neach = \"/id\"\n\
             [[output]]\nfact = \"unauthorized\"\nat = [\"/error\"]\n"
        ),
    );
    let settings = fs::read_to_string(project.path("pipeline.toml")).expect("the settings");
    project
        .write("pipeline.toml", &format!("{settings}\n[monitor]\npoll = {{ normal = \"1s\" }}\n"));
    project.commit("It keeps transcripts");
    fs::create_dir(project.dir().join("sessions")).expect("a folder");
    project.hold("refuse");
    project.import(ONE);
    let done = project.run(&["monitor", "--until-idle", "--timeout", "240s"]);
    assert_eq!(done.code, Some(1), "it waits for a person: {}{}", done.out, done.err);
    let attempts = || {
        let shown = project.ok(&["task", "show", "A", "--json"]);
        let shown: serde_json::Value = serde_json::from_str(&shown).expect("JSON");
        shown["attempts"].as_array().expect("a list").clone()
    };
    assert_eq!(attempts()[0]["class"], "unauthorized");
    assert_eq!(attempts().len(), 1);
    project.release("refuse");
    project.ok(&["agent", "resume", "worker"]);
    project.ok(&["monitor", "--until-idle", "--timeout", "240s"]);
    let second = &attempts()[1];
    assert_eq!(second["class"], "completed", "{second:#}");
    assert_eq!(second["usage"]["input_tokens"], 42, "{second:#}");
    assert_done(&project, ONE);
}

#[test]
fn without_tmux_its_agents_get_no_work_and_it_is_said_why() {
    let project = listener();
    project.import(ONE);
    let bin = project.dir().join("bin");
    fs::create_dir(&bin).expect("a folder of programs");
    for name in ["git", "sh"] {
        let paths = std::env::var_os("PATH").expect("a path");
        let file = std::env::split_paths(&paths).map(|dir| dir.join(name)).find(|it| it.exists());
        std::os::unix::fs::symlink(file.expect("it is there"), bin.join(name)).expect("a link");
    }
    let path = [("PATH", bin.to_str().expect("UTF-8"))];
    let mut monitor = project.start_with(&["monitor", "--until-idle"], &path);
    assert_eq!(monitor.end(&project), Some(1), "{}", project.story());
    assert!(
        monitor.said().contains("worker cannot start: tmux is not there"),
        "{}",
        monitor.said()
    );
    assert!(
        monitor.said().contains("`worker` cannot start: tmux is not there"),
        "{}",
        monitor.said()
    );
    assert_eq!(project.status()["agents"]["worker"]["status"], "failed");
    let mut doctor = project.start_with(&["doctor"], &path);
    assert_eq!(doctor.end(&project), Some(1));
    assert!(doctor.said().contains("install tmux"), "{}", doctor.said());
    run_to_the_end(&project, ONE);
    assert!(project.ok(&["doctor"]).contains("ok       tmux: 3."));
}

/// Is killed when it is asked for its version for the first time.
const KILLED_ONCE: &str = r#"#!/bin/sh
[ "$1" = -V ] && mkdir "$E2E_DIR/asked" 2>/dev/null && kill -9 $$
PATH=${PATH#*/programs:} exec tmux "$@"
"#;

#[test]
fn tmux_that_was_killed_while_it_was_asked_is_asked_again() {
    let project = listener();
    project.import(ONE);
    fs::write(project.dir().join("killed-once"), KILLED_ONCE).expect("a file beside the project");
    // Made by another process: one that is being written cannot be executed.
    let mut shell = pipeline::sys::child::command("sh", &project.dir());
    let text = "mkdir programs; cp killed-once programs/tmux; chmod +x programs/tmux";
    assert!(shell.args(["-c", text]).status().expect("a shell").success());
    run_to_the_end(&project, ONE);
    assert!(project.dir().join("asked").exists());
    let told = project.ok(&["log"]);
    assert!(!told.contains("cannot start"), "{told}");
}

#[test]
fn attach_says_what_to_do_where_there_is_no_window() {
    let project = project(
        &(agent("worker", "\"true\"")
            + "[[agent]]\nname = \"plain\"\n\
        stages = [\"work\"]\ncommand = \"true\"\n"),
    );
    project.import(ONE);
    let said = project.fails(2, &["agent", "attach", "nobody"]);
    assert!(said.contains("there is no agent `nobody`"), "{said}");
    let said = project.fails(2, &["agent", "attach", "plain"]);
    assert!(said.contains("agent logs plain -f"), "{said}");
    assert!(said.contains("`launcher = \"tmux\"` in pipeline.toml gives it one"), "{said}");
    let text = fs::read_to_string(project.path("pipeline.toml")).expect("settings");
    let named = "name = \"plain\"\n";
    project.write("pipeline.toml", &text.replace(named, &format!("{named}launcher = \"tmux\"\n")));
    let said = project.fails(2, &["agent", "attach", "plain"]);
    assert!(said.contains("pipeline.toml counts once a monitor has read it"), "{said}");
    let said = project.fails(2, &["agent", "attach", "worker"]);
    assert!(said.contains("in a terminal only"), "{said}");
}
