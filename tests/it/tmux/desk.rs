//! What tests of agents in windows share: the project, one agent at work, and a person beside it.

use std::fs;
use std::io::Write;
use std::path::PathBuf;
use std::process::{Child, Stdio};

use rustix::process::Signal;

use crate::support::project::{Backlog, Project, Running};
use crate::support::{processes_of, signal};

pub(super) const ONE: &Backlog = &[("A", &[])];

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

pub(super) const STAGE: &str = "[landing]\nchecks = [\"true\"]\n\n[[stage]]\nname = \"work\"\n\n";
const RETRY: &str = "[retry]\nbackoff = { first = \"250ms\", max = \"2s\" }\n\n";

/// A project whose one stage is served by `agents`, with an unwieldy name.
pub(super) fn project(agents: &str) -> Project {
    with_settings(STAGE, agents, LISTENER)
}

/// The same with stages of its own and another program, `tools/agent.sh`.
pub(super) fn with_settings(stages: &str, agents: &str, program: &str) -> Project {
    let mut project = Project::bare();
    project.root = project.dir().join("it's \"my\" project;");
    fs::create_dir(&project.root).expect("the project's folder");
    project.git(&["init", "-q", "-b", "main"]);
    project.write("tools/agent.sh", program);
    project.write("agents/presets/mine.toml", MINE);
    project.write("README", "a project\n");
    project.write("pipeline.toml", &format!("{stages}{RETRY}{agents}"));
    project.commit("A beginning");
    project.ok(&["init"]);
    project
}

/// The settings of an agent in a window.
pub(super) fn agent(name: &str, command: &str) -> String {
    let stage = "stages = [\"work\"]\nlauncher = \"tmux\"";
    format!("[[agent]]\nname = \"{name}\"\n{stage}\ncommand = {command}\n\n")
}

/// What starts `tools/agent.sh`.
pub(super) const COMMAND: &str = "[\"sh\", \"{project}/tools/agent.sh\"]";

pub(super) fn listener() -> Project {
    project(&agent("worker", COMMAND))
}

/// A project with one agent, `program`, that listens where a line fits `^> $`.
pub(super) fn listening(program: &str) -> Project {
    let agent = "[[agent]]\nname = \"worker\"\nstages = [\"work\"]\nlauncher = \"tmux\"\n\
                 preset = \"mine\"\nenv_allow = [\"*\"]\n";
    with_settings(STAGE, agent, program)
}

/// A preset of the project's own.
const MINE: &str = r#"about = "a listener"
headless = ["sh", "-c", "exit 9"]
[interactive]
line = ["sh", "{project}/tools/agent.sh"]
ready = '^> $'
submit = ["Enter"]
"#;

/// Where the project's server listens, running or not.
pub(super) fn socket(project: &Project) -> Option<PathBuf> {
    let run = project.dir().join("run/pipeline");
    let mut found = fs::read_dir(run).into_iter().flatten().flatten().map(|entry| entry.path());
    found.find(|path| path.extension().is_some_and(|ext| ext == "tmux"))
}

/// What tmux says; empty when it fails.
pub(super) fn tmux(project: &Project, args: &[&str]) -> String {
    let Some(socket) = socket(project) else { return String::new() };
    let mut command = pipeline::sys::child::command("tmux", &project.dir());
    command.env_clear().env("PATH", std::env::var_os("PATH").expect("a path"));
    command.arg("-u").arg("-S").arg(socket).args(args);
    let output = command.output().expect("tmux runs");
    String::from_utf8_lossy(&output.stdout).trim_end().to_owned()
}

/// The pane of an agent's window, while it has one.
pub(super) fn pane_of(project: &Project, agent: &str) -> Option<String> {
    let said = tmux(project, &["list-panes", "-a", "-F", "#{pane_id} #{@agent}"]);
    let found = said.lines().find_map(|line| line.strip_suffix(&format!(" {agent}")));
    found.map(str::to_owned)
}

/// What a pane shows, lines that were wrapped put together.
pub(super) fn shown(project: &Project, pane: &str) -> String {
    tmux(project, &["capture-pane", "-p", "-J", "-t", pane])
}

/// Ends the server by force.
pub(super) fn kill_server(project: &Project) {
    let pid = tmux(project, &["display-message", "-p", "#{pid}"]);
    signal(pid.parse().expect("the server's id"), Signal::KILL);
}

/// Processes whose command line names `word`.
pub(super) fn those_with(project: &Project, word: &str) -> Vec<i32> {
    let found = processes_of(&project.dir()).into_iter();
    found.filter(|(_, line)| line.contains(word)).map(|(pid, _)| pid).collect()
}

pub(super) fn log(project: &Project, attempt: &str) -> String {
    let path = project.path(&format!(".git/pipeline/logs/{attempt}.log"));
    String::from_utf8_lossy(&fs::read(path).unwrap_or_default()).into_owned()
}

/// Attempts that were lost.
pub(super) fn lost(project: &Project) -> usize {
    let is_lost =
        |entry: &&serde_json::Value| entry["kind"] == "attempt_ended" && entry["class"] == "lost";
    project.log().iter().filter(is_lost).count()
}

/// Everything has landed, and neither process nor server nor its socket is left.
pub(super) fn assert_done(project: &Project, backlog: &Backlog) {
    project.until("the server's end", || those_with(project, "tmux").is_empty());
    let mut landed = project.landings("main");
    landed.sort();
    let ids: Vec<&str> = backlog.iter().map(|(id, _)| *id).collect();
    assert_eq!(landed, ids, "{}", project.story());
    project.assert_nothing_left();
    assert_eq!(socket(project), None, "{}", project.story());
}

pub(super) fn run_to_the_end(project: &Project, backlog: &Backlog) {
    project.ok(&["monitor", "--until-idle", "--timeout", "240s"]);
    assert_done(project, backlog);
}

/// A monitor, and the agent of its that runs in a window, for the task `A`.
pub(super) struct Scene {
    pub(super) monitor: Running,
    pub(super) project: Project,
    pub(super) pane: String,
    /// The process that tmux has started there.
    pub(super) shim: i32,
    held: &'static str,
}

impl Scene {
    /// Waits until the agent runs; it stops where `held` says, until it is let go on.
    pub(super) fn of(project: Project, held: &'static str) -> Self {
        project.import(ONE);
        project.hold(held);
        let monitor = project.monitor(&["--until-idle"]);
        project.until("an agent in a window", || !project.runs().is_empty());
        let said = tmux(&project, &["list-panes", "-a", "-F", "#{pane_id} #{pane_pid}"]);
        let (pane, shim) = said.split_once(' ').expect("there is one window");
        let (pane, shim) = (pane.to_owned(), shim.parse().expect("a process id"));
        Self { monitor, project, pane, shim, held }
    }

    /// A listener that is starting: nothing is shown yet.
    pub(super) fn starting() -> Self {
        Self::of(listener(), "hold")
    }

    /// A listener that has its line, and works.
    pub(super) fn working() -> Self {
        let scene = Self::of(listener(), "hold.work");
        scene.project.until("the line", || log(&scene.project, "A.work.1").contains("got ["));
        scene
    }

    pub(super) fn tmux(&self, args: &[&str]) -> String {
        tmux(&self.project, args)
    }

    /// Lets the agent go on.
    pub(super) fn go_on(&self) {
        self.project.release(self.held);
    }

    /// Lets the agent go on, and waits until all is done.
    pub(super) fn finish(&mut self) {
        self.go_on();
        self.end();
    }

    /// Waits until all is done.
    pub(super) fn end(&mut self) {
        assert_eq!(self.monitor.end(&self.project), Some(0), "{}", self.project.story());
        assert_done(&self.project, ONE);
    }
}

/// A person's terminal with the agent's window in it.
pub(super) struct Client {
    child: Child,
    output: PathBuf,
}

impl Client {
    pub(super) fn attach(project: &Project, name: &str) -> Self {
        let line = format!("{} agent attach {name}", env!("CARGO_BIN_EXE_pipeline"));
        let command = project.command(&project.root, &[]);
        let output = project.dir().join("shown");
        let mut shown = pipeline::sys::child::command("script", &project.root);
        shown.args(["-q", "-f", "-c", &line]).arg(&output);
        shown.env_clear().envs(command.get_envs().filter_map(|(name, value)| Some((name, value?))));
        shown.env("TERM", "xterm").stdin(Stdio::piped());
        shown.stdout(Stdio::null()).stderr(Stdio::null());
        let child = shown.spawn().expect("script runs");
        project.until("a client", || !tmux(project, &["list-clients"]).is_empty());
        Self { child, output }
    }

    pub(super) fn types(&mut self, keys: &[u8]) {
        let input = self.child.stdin.as_mut().expect("a pipe");
        // Whoever has left reads nothing.
        let _ = input.write_all(keys).and_then(|()| input.flush());
    }

    /// Waits until the terminal is left; whether well, and all that was shown there.
    pub(super) fn end(mut self) -> (bool, String) {
        let status = self.child.wait().expect("it is ours");
        let shown = fs::read(&self.output).expect("what was shown");
        (status.success(), String::from_utf8_lossy(&shown).into_owned())
    }
}
