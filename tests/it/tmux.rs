//! Agents in windows of a real tmux: what people do there, and what may go away in the middle.

use std::fs;
use std::io::Write;
use std::process::{Child, Stdio};

use rustix::process::Signal;

use crate::support::project::{Backlog, Project};
use crate::support::{processes_of, signal};

const ONE: &Backlog = &[("A", &[])];

/// Asks to be told of pastes, says that it listens, and does the work when the line has come.
const LISTENER: &str = r#"echo "$PIPELINE_ATTEMPT" >>"$E2E_DIR/runs"
while [ -e "$E2E_DIR/hold" ]; do sleep 0.02; done
printf '\033[?2004h> '
while read -r line; do
  echo "got [$line]"
  case "$line" in *"Read TASK-"*) ;; *) continue ;; esac
  while [ -e "$E2E_DIR/hold.work" ]; do sleep 0.02; done
  mkdir -p out && echo x >"out/$PIPELINE_TASK_ID"
  pipeline done
done
"#;

/// A project whose one stage is served by `agents`, with an unwieldy name.
fn project(agents: &str) -> Project {
    let mut project = Project::bare();
    project.root = project.dir().join("it's \"my\" project;");
    fs::create_dir(&project.root).expect("the project's folder");
    project.git(&["init", "-q", "-b", "main"]);
    project.write("tools/agent.sh", LISTENER);
    project.write("README", "a project\n");
    project.write(
        "pipeline.toml",
        &format!(
            "[landing]\nchecks = [\"true\"]\n\n[[stage]]\nname = \"work\"\n\n\
             [retry]\nbackoff = {{ first = \"250ms\", max = \"2s\" }}\n\n{agents}"
        ),
    );
    project.commit("A beginning");
    project.ok(&["init"]);
    project
}

fn agent(name: &str, command: &str) -> String {
    format!(
        "[[agent]]\nname = \"{name}\"\nstages = [\"work\"]\nlauncher = \"tmux\"\n\
         command = {command}\n\n"
    )
}

fn listener() -> Project {
    project(&agent("worker", "[\"sh\", \"{project}/tools/agent.sh\"]"))
}

/// What tmux says; empty when it fails.
fn tmux(project: &Project, args: &[&str]) -> String {
    let run = project.dir().join("run/pipeline");
    let found = fs::read_dir(run).into_iter().flatten().flatten().map(|entry| entry.path());
    let socket = found.into_iter().find(|path| path.extension().is_some_and(|ext| ext == "tmux"));
    let Some(socket) = socket else { return String::new() };
    let mut command = pipeline::sys::child::command("tmux", &project.dir());
    command.env_clear().env("PATH", std::env::var_os("PATH").expect("a path"));
    command.arg("-S").arg(socket).args(args);
    let output = command.output().expect("tmux runs");
    String::from_utf8_lossy(&output.stdout).trim_end().to_owned()
}

/// Waits until an agent's program runs in its window; pane and process.
fn pane(project: &Project, runs: usize) -> (String, i32) {
    project.until("an agent in a window", || project.runs().len() >= runs);
    let said = tmux(project, &["list-panes", "-a", "-F", "#{pane_id} #{pane_pid}"]);
    let first = said.lines().next().unwrap_or_default();
    let (pane, pid) = first.split_once(' ').expect("there is a window");
    (pane.to_owned(), pid.parse().expect("a process id"))
}

/// Processes whose command line names `word`.
fn those_with(project: &Project, word: &str) -> Vec<i32> {
    let found = processes_of(&project.dir()).into_iter();
    found.filter(|(_, line)| line.contains(word)).map(|(pid, _)| pid).collect()
}

fn log(project: &Project, attempt: &str) -> String {
    let path = project.path(&format!(".git/pipeline/logs/{attempt}.log"));
    String::from_utf8_lossy(&fs::read(path).unwrap_or_default()).into_owned()
}

fn is_lost(project: &Project) -> bool {
    project.log().iter().any(|entry| entry["class"] == "lost")
}

/// Everything has landed, and neither process nor server is left.
fn assert_done(project: &Project, backlog: &Backlog) {
    project.until("the server's end", || those_with(project, "tmux").is_empty());
    let mut landed = project.landings("main");
    landed.sort();
    let ids: Vec<&str> = backlog.iter().map(|(id, _)| *id).collect();
    assert_eq!(landed, ids, "{}", project.story());
    project.assert_nothing_left();
}

fn run_to_the_end(project: &Project, backlog: &Backlog) {
    project.ok(&["monitor", "--until-idle", "--timeout", "60s"]);
    assert_done(project, backlog);
}

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
    let project = listener();
    project.write(
        "agents/presets/mine.toml",
        "about = \"a listener\"\nheadless = [\"sh\", \"-c\", \"exit 9\"]\n[interactive]\n\
         line = [\"sh\", \"{project}/tools/agent.sh\"]\nready = '^> $'\nsubmit = [\"Enter\"]\n",
    );
    let agent = "[[agent]]\nname = \"worker\"\nstages = [\"work\"]\nlauncher = \"tmux\"\n\
                 preset = \"mine\"\nenv_allow = [\"*\"]\n";
    project.write("pipeline.toml", &format!("[[stage]]\nname = \"work\"\n\n{agent}"));
    project.commit("Presets");
    project.import(ONE);
    run_to_the_end(&project, ONE);
    assert!(log(&project, "A.work.1").contains("got [\x1b[200~Read TASK-A.md, then "));
}

#[test]
fn one_window_serves_task_after_task_and_agents_have_one_each() {
    let command = "[\"sh\", \"{project}/tools/agent.sh\"]";
    let project = project(&(agent("one", command) + &agent("two", command)));
    let backlog: &Backlog = &[("A", &[]), ("B", &[]), ("C", &["A"]), ("D", &["B"])];
    project.import(backlog);
    project.hold("hold.work");
    let mut monitor = project.monitor(&["--until-idle"]);
    pane(&project, 2);
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

/// A person's terminal with the agent's window in it.
fn attached(project: &Project, name: &str) -> Child {
    let line = format!("{} agent attach {name}", env!("CARGO_BIN_EXE_pipeline"));
    let command = project.command(&project.root, &[]);
    let mut shown = pipeline::sys::child::command("script", &project.root);
    shown.args(["-q", "-f", "-c", &line]).arg(project.dir().join("shown"));
    shown.env_clear().envs(command.get_envs().filter_map(|(name, value)| Some((name, value?))));
    shown.env("TERM", "xterm").stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::null());
    let child = shown.spawn().expect("script runs");
    project.until("a client", || !tmux(project, &["list-clients"]).is_empty());
    child
}

#[test]
fn line_arrives_while_a_person_is_attached_scrolls_and_resizes() {
    let project = listener();
    project.import(ONE);
    project.hold("hold");
    let mut monitor = project.monitor(&["--until-idle"]);
    let (pane, _) = pane(&project, 1);
    let mut client = attached(&project, "worker");
    tmux(&project, &["copy-mode", "-t", &pane]);
    tmux(&project, &["resize-window", "-t", &pane, "-x", "31", "-y", "9"]);
    assert_eq!(tmux(&project, &["display-message", "-p", "-t", &pane, "#{pane_in_mode}"]), "1");
    project.release("hold");
    assert_eq!(monitor.end(&project), Some(0), "{}", project.story());
    assert_done(&project, ONE);
    assert!(log(&project, "A.work.1").contains("\x1b[200~Read TASK-A.md"));
    // The window is gone, so the client is.
    assert!(client.wait().expect("it is ours").success());
    let shown = fs::read_to_string(project.dir().join("shown")).expect("what was shown");
    assert!(shown.contains("worker"), "{shown}");
}

#[test]
fn leaving_the_window_disturbs_nobody() {
    let project = listener();
    project.import(ONE);
    project.hold("hold");
    let mut monitor = project.monitor(&["--until-idle"]);
    pane(&project, 1);
    let mut client = attached(&project, "worker");
    let keys = client.stdin.as_mut().expect("a pipe");
    keys.write_all(b"\x02d").expect("typed");
    project.until("the client's end", || tmux(&project, &["list-clients"]).is_empty());
    assert!(client.wait().expect("it is ours").success());
    project.until("the view's end", || tmux(&project, &["list-sessions"]).lines().count() == 1);
    project.release("hold");
    assert_eq!(monitor.end(&project), Some(0), "{}", project.story());
    assert_done(&project, ONE);
    let shown = fs::read_to_string(project.dir().join("shown")).unwrap_or_default();
    assert_eq!(project.runs(), ["A.work.1"], "{shown}\n{}", project.story());
}

/// Something is killed while the agent works: the attempt is lost, and done again.
fn lost_and_done_again(kill: impl Fn(&Project)) {
    let project = listener();
    project.import(ONE);
    project.hold("hold.work");
    let mut monitor = project.monitor(&["--until-idle"]);
    pane(&project, 1);
    project.until("the line", || log(&project, "A.work.1").contains("got ["));
    kill(&project);
    project.until("the loss to be seen", || is_lost(&project));
    project.until("another try", || project.runs().len() == 2);
    project.release("hold.work");
    assert_eq!(monitor.end(&project), Some(0), "{}", project.story());
    assert_done(&project, ONE);
    assert_eq!(project.runs(), ["A.work.1", "A.work.2"]);
}

#[test]
fn killed_server_loses_the_attempt_and_it_is_done_again() {
    lost_and_done_again(|project| {
        let pid = tmux(project, &["display-message", "-p", "#{pid}"]);
        signal(pid.parse().expect("the server's id"), Signal::KILL);
    });
}

#[test]
fn closed_window_loses_the_attempt_and_it_is_done_again() {
    lost_and_done_again(|project| drop(tmux(project, &["kill-server"])));
}

#[test]
fn killed_shim_loses_the_attempt_and_it_is_done_again() {
    lost_and_done_again(|project| signal(pane(project, 1).1, Signal::KILL));
}

#[test]
fn killed_keeper_loses_the_attempt_and_it_is_done_again() {
    lost_and_done_again(|project| {
        those_with(project, "__keeper").into_iter().for_each(|pid| signal(pid, Signal::KILL));
    });
}

#[test]
fn agent_in_a_window_outlives_a_killed_monitor_and_is_adopted() {
    let project = listener();
    project.import(ONE);
    project.hold("hold.work");
    let mut monitor = project.monitor(&["--until-idle"]);
    pane(&project, 1);
    monitor.kill();
    project.until("the line", || log(&project, "A.work.1").contains("got ["));
    let mut monitor = project.monitor(&["--until-idle"]);
    project.release("hold.work");
    assert_eq!(monitor.end(&project), Some(0), "{}", project.story());
    assert_done(&project, ONE);
    assert_eq!(project.runs(), ["A.work.1"]);
}

#[test]
fn keeper_alone_sees_an_attempt_in_a_window_to_its_end() {
    let project = listener();
    project.import(ONE);
    project.hold("hold.work");
    let mut monitor = project.monitor(&["--until-idle"]);
    pane(&project, 1);
    project.until("the line", || log(&project, "A.work.1").contains("got ["));
    monitor.kill();
    project.release("hold.work");
    project.until("the keeper's end", || processes_of(&project.dir()).is_empty());
    run_to_the_end(&project, ONE);
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
    let shown = || tmux(&project, &["capture-pane", "-p", "-t", &pane]);
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
    let said = project.fails(2, &["agent", "attach", "worker"]);
    assert!(said.contains("in a terminal only"), "{said}");
}
