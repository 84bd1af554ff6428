//! What is hard about a terminal: programs that are not ready, and things that go away.

use std::fs;

use pipeline::sys::proc;
use rustix::process::Signal;

use super::desk::{
    COMMAND, Client, ONE, STAGE, Scene, agent, assert_done, kill_server, listening, log, lost,
    run_to_the_end, those_with, with_settings,
};
use crate::support::project::{Backlog, Project};
use crate::support::signal;

fn text(project: &Project, name: &str) -> String {
    fs::read_to_string(project.dir().join(name)).unwrap_or_default()
}

/// Blank and still for a second; what comes in that time is lost to it.
const SLOW: &str = r#"stty -icanon -echo min 0 time 10
cat >"$E2E_DIR/early"
stty icanon echo
printf '\033[?2004h> '
read -r line
echo "got [$line]"
mkdir out && echo x >out/A && pipeline done
"#;

#[test]
fn nothing_is_typed_into_a_program_that_is_still_starting() {
    let project = listening(SLOW);
    project.import(ONE);
    run_to_the_end(&project, ONE);
    assert!(project.dir().join("early").exists());
    assert_eq!(text(&project, "early"), "");
    let log = log(&project, "A.work.1");
    assert_eq!(log.matches("got [\x1b[200~Read TASK-A.md, ").count(), 1, "{log}");
}

/// Says that it listens, and throws away what comes first.
const DEAF: &str = r#"stty -icanon -echo min 1 time 0
printf '> '
dd bs=4096 count=1 2>/dev/null >"$E2E_DIR/thrown-away"
stty icanon echo
read -r line
echo "got [$line]"
mkdir out && echo x >out/A && pipeline done
"#;

#[test]
fn line_that_got_lost_is_typed_again() {
    let project = listening(DEAF);
    project.import(ONE);
    run_to_the_end(&project, ONE);
    assert!(text(&project, "thrown-away").starts_with("Read TASK-A.md, then "));
    let log = log(&project, "A.work.1");
    assert_eq!(log.matches("got [Read TASK-A.md, then ").count(), 1, "{log}");
    assert_eq!(lost(&project), 0, "{}", project.story());
}

#[test]
fn line_arrives_in_one_piece_while_a_person_types() {
    let mut scene = Scene::starting();
    let mut client = Client::attach(&scene.project, "worker");
    client.types(b"before ");
    scene.go_on();
    let project = &scene.project;
    project.until("the line", || {
        client.types(b"x");
        log(project, "A.work.1").contains("got [")
    });
    scene.end();
    let log = log(&scene.project, "A.work.1");
    let (_, got) = log.split_once("got [before ").expect("what the person typed came first");
    let (_, line) = got.split_once("\x1b[200~").expect("the paste is marked");
    let (line, _) = line.split_once("\x1b[201~").expect("the paste is marked");
    assert!(line.starts_with("Read TASK-A.md, then "), "{log}");
    assert!(line.ends_with(", and do what they say."), "{log}");
    client.end();
}

/// Writes down its size, and each new one.
const SIZED: &str = r#"stty size >>"$E2E_DIR/sizes"
trap 'stty size >>"$E2E_DIR/sizes"' WINCH
echo "$PIPELINE_ATTEMPT" >>"$E2E_DIR/runs"
while [ -e "$E2E_DIR/hold" ]; do sleep 0.02; done
mkdir out && echo x >out/A && pipeline done
"#;

#[test]
fn program_is_told_the_size_of_its_window_and_each_new_one() {
    let mut scene = Scene::of(listening(SIZED), "hold");
    scene.tmux(&["resize-window", "-t", &scene.pane, "-x", "31", "-y", "9"]);
    let project = &scene.project;
    project.until("the new size", || text(project, "sizes").lines().last() == Some("9 31"));
    assert!(text(project, "sizes").starts_with("40 120\n"), "{}", text(project, "sizes"));
    scene.finish();
}

#[test]
fn server_that_goes_away_between_two_tasks_costs_nothing() {
    let stage = "[landing]\nchecks = [\"while [ -e out/A -a -e \\\"$E2E_DIR/hold.check\\\" ]; do \
                 sleep 0.02; done\"]\n\n[[stage]]\nname = \"work\"\n\n";
    let program = "echo \"$PIPELINE_ATTEMPT\" >>\"$E2E_DIR/runs\"\nmkdir -p out\n\
                   echo x >\"out/$PIPELINE_TASK_ID\"; pipeline done\n";
    let project = with_settings(stage, &agent("worker", COMMAND), program);
    let backlog: &Backlog = &[("A", &[]), ("B", &["A"])];
    project.import(backlog);
    project.hold("hold.check");
    let mut monitor = project.monitor(&["--until-idle"]);
    project.until("the first to be done", || project.task("A") == "landing");
    kill_server(&project);
    project.until("the shim's end", || those_with(&project, "__pane").is_empty());
    project.release("hold.check");
    assert_eq!(monitor.end(&project), Some(0), "{}", project.story());
    assert_done(&project, backlog);
    assert_eq!((project.runs(), lost(&project)), (vec!["A.work.1".into(), "B.work.1".into()], 0));
}

/// A launcher and its child in a session of its own: both ignore what can be ignored.
const STUBBORN: &str = r#"trap '' HUP INT QUIT TERM
setsid sh -c 'trap "" HUP INT QUIT TERM; echo $$ >"$E2E_DIR/child"
    while :; do sleep 1000; done' &
while ! [ -e "$E2E_DIR/child" ]; do sleep 0.02; done
echo "$PIPELINE_ATTEMPT" >>"$E2E_DIR/runs"
while [ -e "$E2E_DIR/hold" ]; do sleep 0.02; done
mkdir out && echo x >out/A && pipeline done
"#;

/// All that could end the agent is killed at once, and `more`; it is ended all the same, before it
/// is tried again.
fn stubborn(more: impl Fn(&Scene)) {
    let mut scene = Scene::of(project_of(STUBBORN), "hold");
    let project = &scene.project;
    let child: i32 = text(project, "child").trim().parse().expect("a process id");
    fs::remove_file(project.dir().join("child")).expect("it was there");
    kill_server(project);
    signal(scene.shim, Signal::KILL);
    more(&scene);
    project.until("another try", || project.runs().len() == 2);
    let stat = proc::read_stat(child).expect("/proc is readable");
    assert!(stat.is_none_or(|stat| stat.state == b'Z'), "{}", project.story());
    assert_eq!(lost(project), 1, "{}", project.story());
    scene.finish();
}

fn project_of(program: &str) -> Project {
    with_settings(STAGE, &agent("worker", COMMAND), program)
}

#[test]
fn group_that_ignores_signals_is_ended_though_window_and_server_are_gone() {
    stubborn(|_| {});
}

#[test]
fn group_that_ignores_signals_is_ended_though_its_keeper_is_gone_as_well() {
    stubborn(|scene| {
        let keepers = those_with(&scene.project, "__keeper");
        keepers.into_iter().for_each(|pid| signal(pid, Signal::KILL));
    });
}
