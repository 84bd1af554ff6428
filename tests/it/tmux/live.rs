//! The monitor's live lines, on a terminal as a person has it.

use rustix::process::{Pid, Signal, kill_process};

use super::desk::{STAGE, with_settings};
use crate::support::project::Project;
use crate::support::until;

const AGENTS: &str = "[[agent]]\nname = \"worker\"\ncount = 4\nstages = [\"work\"]\n\
                      command = [\"sh\", \"{project}/tools/agent.sh\"]\n";

const WORK: &str = "echo x >\"$PIPELINE_TASK_ID.txt\"\n";

/// What the terminal shows when the monitor's process is gone.
const OVER: &str = "it is over";

const PROGRAM: &str = env!("CARGO_BIN_EXE_pipeline");

/// A terminal of 80 columns in which a monitor runs.
struct Screen<'a>(&'a Project);

impl Screen<'_> {
    fn tmux(&self, args: &[&str]) -> String {
        let of_program = self.0.command(&self.0.root, &[]);
        let mut command = pipeline::sys::child::command("tmux", &self.0.root);
        let env = of_program.get_envs().filter_map(|(name, value)| Some((name, value?)));
        command.env_clear().envs(env).env("TERM", "xterm");
        command.args(["-u", "-f", "/dev/null", "-S"]).arg(self.0.dir().join("screen"));
        let done = command.args(args).output().expect("tmux runs");
        String::from_utf8_lossy(&done.stdout).trim_end().to_owned()
    }

    fn with<'a>(project: &'a Project, line: &str) -> Screen<'a> {
        let screen = Screen(project);
        screen.tmux(&["new-session", "-d", "-x", "80", "-y", "50", line]);
        screen
    }

    fn shown(&self) -> String {
        self.tmux(&["capture-pane", "-p"])
    }
}

#[test]
fn live_lines_show_how_it_is_and_are_gone_at_the_end() {
    let project = with_settings(STAGE, AGENTS, WORK);
    for number in 1..=12 {
        project.ok(&["task", "add", "a task", "--id", &format!("T{number}")]);
    }
    // What it said stays to be read, and that it has ended is seen.
    let screen = Screen::with(&project, &format!("{PROGRAM} monitor; echo {OVER}; read -r stay"));
    let idle = ["worker-1", "worker-2", "worker-3", "worker-4"];
    let all = "  12 landed, 0 working, 0 ready, 0 waiting, 0 landing, 0 need a person";
    project.until("the live lines to show the end", || {
        let shown = screen.shown();
        let lines: Vec<&str> = shown.lines().rev().take(5).map(str::trim_end).collect();
        let are_idle = idle.iter().all(|name| lines.contains(&&*format!("  {name:24} idle")));
        are_idle && lines[0] == all
    });
    project.until("the branch to follow", || {
        (1..=12).all(|number| project.path(&format!("T{number}.txt")).exists())
    });
    screen.tmux(&["send-keys", "C-c"]);
    project.until("its end", || screen.shown().contains(OVER));
    let shown = screen.shown();
    screen.tmux(&["kill-server"]);
    assert!(shown.contains("monitor ended: interrupted"), "{shown}");
    assert!(!shown.lines().any(|line| line.starts_with("  ")), "{shown}");
}

#[test]
fn a_terminal_that_goes_away_ends_no_run() {
    let project = Project::new(1);
    project.ok(&["task", "add", "a task", "--id", "ONE"]);
    project.hold("hold.implementation");
    // In a session of its own it is not told.
    let screen = Screen::with(&project, &format!("setsid --wait {PROGRAM} monitor --until-idle"));
    project.until("the live lines", || screen.shown().contains("ONE.impl.1  "));
    screen.tmux(&["kill-server"]);
    project.release("hold.implementation");
    project.until("the end", || project.log().iter().any(|told| told["kind"] == "monitor_ended"));
    assert_eq!(project.task("ONE"), "completed");
}

#[test]
fn a_terminal_that_takes_nothing_holds_up_no_task() {
    let project = Project::new(1);
    project.ok(&["task", "add", "a task", "--id", "ONE"]);
    project.hold("hold.implementation");
    let line = format!("stty ixon; {PROGRAM} monitor --until-idle; echo {OVER}; read -r stay");
    let screen = Screen::with(&project, &line);
    project.until("the live lines", || screen.shown().contains("ONE.impl.1  "));
    screen.tmux(&["send-keys", "C-s"]);
    project.release("hold.implementation");
    project.until("the end", || project.log().iter().any(|told| told["kind"] == "monitor_ended"));
    assert_eq!(project.task("ONE"), "completed");
    project.until("the next to begin", || project.run(&["monitor", "--once"]).code == Some(0));
    assert!(!screen.shown().contains("ONE landed"), "the terminal took it");
    screen.tmux(&["send-keys", "C-q"]);
    project.until("the rest of it", || screen.shown().contains(OVER));
    let shown = screen.shown();
    screen.tmux(&["kill-server"]);
    assert!(shown.contains("ONE landed") && shown.contains("monitor ended: done"), "{shown}");
    assert!(!shown.lines().any(|line| line.starts_with("  ")), "{shown}");
}

#[test]
fn who_waits_for_a_reader_leaves_when_told() {
    let project = with_settings(STAGE, AGENTS, WORK);
    for number in 1..=24 {
        project.ok(&["task", "add", "a task", "--id", &format!("T{number}")]);
    }
    let (unread, pipe) = rustix::pipe::pipe().expect("a pipe");
    // What is said about so many is more than it holds.
    rustix::pipe::fcntl_setpipe_size(&pipe, 4096).expect("a small one");
    let mut monitor = project.command(&project.root, &["monitor", "--until-idle"]);
    let mut monitor = monitor.stdout(pipe).spawn().expect("it starts");
    project.until("the end", || project.log().iter().any(|told| told["kind"] == "monitor_ended"));
    assert_eq!(project.count("completed"), 24);
    assert_eq!(monitor.try_wait().expect("it is ours"), None);
    let state = || project.story();
    let left = until("it to leave", state, || {
        kill_process(Pid::from_child(&monitor), Signal::TERM).expect("it is there");
        monitor.try_wait().expect("it is ours")
    });
    assert!(left.success());
    drop(unread);
}
