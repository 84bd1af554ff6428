//! A repository with shell agents, and a home of its own.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use pipeline::agent::rendezvous::private_dir;
use pipeline::sys::child;
use pipeline::sys::clock::monotonic;
use pipeline::sys::proc::{self, Process};
use rustix::process::Signal;
use serde_json::Value;
use tempfile::TempDir;

/// Nothing here takes longer, except on a machine that is far too busy.
const LIMIT: &str = "240s";
/// How long what a run started may take to leave.
const LEAVE: Duration = Duration::from_secs(60);

/// Quick retries, no waiting.
pub const QUICK: &str = r#"
[project]
base = "main"
rollout = "production"

[retry]
backoff = { first = "20ms", factor = 1.0, max = "20ms", jitter = 0.0 }
"#;

/// What a command printed, and how it ended.
#[derive(Debug)]
pub struct Ran {
    pub code: Option<i32>,
    pub out: String,
    pub err: String,
}

/// A project with agents; when it is dropped, no process of it may be left.
#[derive(Debug)]
pub struct Zoo {
    dir: TempDir,
    root: PathBuf,
    global: PathBuf,
}

/// Returns settings with one stage `implementation`, served by `count` agents that run `script`.
pub fn one_stage(more: &str, count: u32, script: &str) -> String {
    format!(
        "{QUICK}\n{more}\n[[stage]]\nname = \"implementation\"\nshort = \"impl\"\n\
         must_change = true\n{}",
        agent("imp", "implementation", count, script)
    )
}

/// Returns an `[[agent]]` that says with a status line how it ended.
pub fn agent(name: &str, stage: &str, count: u32, script: &str) -> String {
    format!(
        "\n[[agent]]\nname = \"{name}\"\nstages = [\"{stage}\"]\ncount = {count}\n\
         command = '''\nset -eu\n{script}\n'''\ncompletion = \"marker\"\n"
    )
}

impl Zoo {
    /// Makes a git repository with these settings committed, and sets the pipeline up in it.
    pub fn new(settings: &str) -> Self {
        Self::named("project", settings)
    }

    /// The same, in a folder of this name.
    pub fn named(name: &str, settings: &str) -> Self {
        let zoo = Self::empty(name);
        zoo.write("pipeline.toml", settings);
        zoo.write("a.txt", "one\ntwo\nthree\n");
        zoo.git(&["init", "-q", "-b", "main"]);
        zoo.git(&["config", "user.name", "Person"]);
        zoo.git(&["config", "user.email", "person@example.org"]);
        zoo.git(&["add", "-A"]);
        zoo.git(&["commit", "-q", "-m", "start"]);
        zoo.ok(&["init"]);
        zoo
    }

    /// A folder without git.
    pub fn bare(settings: &str) -> Self {
        let zoo = Self::empty("project");
        zoo.write("pipeline.toml", settings);
        zoo.ok(&["init", "--isolation", "none"]);
        zoo
    }

    fn empty(name: &str) -> Self {
        let dir = tempfile::tempdir().expect("temporary folder");
        let root = dir.path().join(name);
        fs::create_dir_all(&root).expect("makes the project");
        fs::create_dir_all(dir.path().join("home")).expect("makes the home");
        private_dir(&dir.path().join("run")).expect("makes the runtime folder");
        Self { dir, root, global: PathBuf::from("/dev/null") }
    }

    /// Lets git read this file as the user's settings from now on.
    pub fn set_global(&mut self, text: &str) {
        self.global = self.path("home/.gitconfig");
        fs::write(&self.global, text).expect("writes");
    }

    /// A place beside the project; agents find it as `$ZOO`.
    pub fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    pub fn root(&self) -> &Path {
        &self.root
    }

    /// Writes a file of the project.
    pub fn write(&self, name: &str, text: &str) {
        let path = self.root.join(name);
        fs::create_dir_all(path.parent().expect("inside the project")).expect("makes the folder");
        fs::write(path, text).expect("writes");
    }

    /// Reads a file beside the project; empty when there is none.
    pub fn read(&self, name: &str) -> String {
        fs::read_to_string(self.path(name)).unwrap_or_default()
    }

    fn command(&self, program: &str) -> Command {
        let mut command = child::command(program, &self.root);
        let path = std::env::var_os("PATH").expect("a PATH");
        command.env_clear().env("PATH", path).env("LANG", "C.UTF-8").env("COLUMNS", "100");
        command.env("HOME", self.path("home")).env("XDG_RUNTIME_DIR", self.path("run"));
        command.env("GIT_CONFIG_NOSYSTEM", "1").env("GIT_CONFIG_GLOBAL", &self.global);
        command.env("ZOO", self.dir.path()).stdin(Stdio::null());
        command
    }

    /// Runs the program in the project.
    pub fn pipeline(&self, args: &[&str]) -> Ran {
        let mut command = self.command(env!("CARGO_BIN_EXE_pipeline"));
        let output = command.args(args).output().expect("starts");
        let text = |bytes: Vec<u8>| String::from_utf8_lossy(&bytes).into_owned();
        Ran { code: output.status.code(), out: text(output.stdout), err: text(output.stderr) }
    }

    /// Starts a monitor that runs until it is told to end.
    pub fn start(&self) -> Child {
        let mut command = self.command(env!("CARGO_BIN_EXE_pipeline"));
        command.arg("monitor").stdout(Stdio::null()).stderr(Stdio::null());
        command.spawn().expect("starts")
    }

    /// Waits until a file beside the project is there.
    pub fn wait_for(&self, name: &str) {
        self.until(name, || self.path(name).exists());
    }

    /// Waits until something has come.
    pub fn until(&self, what: &str, has_come: impl Fn() -> bool) {
        let until = monotonic() + LEAVE;
        while !has_come() {
            assert!(monotonic() < until, "`{what}` did not come");
            proc::wait_readable(&[], Some(Duration::from_millis(20))).expect("waits");
        }
    }

    /// Runs the program, which must succeed; returns what it printed.
    pub fn ok(&self, args: &[&str]) -> String {
        let ran = self.pipeline(args);
        assert_eq!(ran.code, Some(0), "{args:?}: {ran:?}");
        ran.out
    }

    /// Adds a task with this id.
    pub fn add(&self, id: &str, more: &[&str]) {
        self.ok(&[&["task", "add", "--id", id, id], more].concat());
    }

    /// Runs the monitor until nothing moves without a person.
    pub fn run(&self) -> Ran {
        let ran = self.pipeline(&["monitor", "--until-idle", "--timeout", LIMIT]);
        let is_over = ran.code.is_some() && !ran.err.contains("panicked");
        assert!(is_over, "{ran:?}");
        ran
    }

    pub fn git(&self, args: &[&str]) -> String {
        let output = self.command("git").args(args).output().expect("git starts");
        assert!(output.status.success(), "git {args:?}: {output:?}");
        String::from_utf8_lossy(&output.stdout).trim_end().to_owned()
    }

    /// Returns the names of what is on the base, sorted.
    pub fn landed_files(&self) -> Vec<String> {
        let names =
            self.git(&["-c", "core.quotePath=false", "ls-tree", "-r", "--name-only", "main"]);
        names.lines().map(str::to_owned).collect()
    }

    pub fn task(&self, id: &str) -> Task {
        let text = self.ok(&["task", "show", id, "--json"]);
        Task(serde_json::from_str(&text).expect("a document"))
    }

    pub fn status(&self) -> Value {
        serde_json::from_str(&self.ok(&["status", "--json"])).expect("a document")
    }

    /// Returns what lives with this zoo's home in its environment.
    fn leftovers(&self) -> Vec<(String, Process)> {
        let entry = format!("ZOO={}", self.dir.path().display());
        let all = proc::all().expect("/proc is readable");
        let ours = all
            .into_iter()
            .filter(|stat| proc::environ_has(stat.pid, std::slice::from_ref(&entry)));
        ours.filter_map(|stat| {
            let line = fs::read(format!("/proc/{}/cmdline", stat.pid)).unwrap_or_default();
            let process = Process::open(stat).expect("can be looked at")?;
            let is_alive = !process.has_ended();
            is_alive.then(|| (String::from_utf8_lossy(&line).replace('\0', " "), process))
        })
        .collect()
    }

    /// Waits until nothing of it runs any more; what stays is ended, and returned.
    fn sweep(&self) -> Vec<String> {
        let until = monotonic() + LEAVE;
        loop {
            let left = self.leftovers();
            if left.is_empty() {
                return Vec::new();
            }
            if monotonic() > until {
                left.iter().for_each(|(_, process)| process.signal(Signal::KILL));
                return left.into_iter().map(|(line, _)| line).collect();
            }
            proc::wait_readable(&[], Some(Duration::from_millis(20))).expect("waits");
        }
    }
}

impl Drop for Zoo {
    fn drop(&mut self) {
        let left = self.sweep();
        assert!(left.is_empty() || std::thread::panicking(), "left running: {left:?}");
    }
}

/// What `task show --json` says.
#[derive(Debug)]
pub struct Task(pub Value);

impl Task {
    pub fn status(&self) -> &str {
        self.0["status"].as_str().expect("a status")
    }

    /// Why it is blocked; empty when it is not.
    pub fn class(&self) -> &str {
        self.0["class"].as_str().unwrap_or_default()
    }

    pub fn reason(&self) -> &str {
        self.0["reason"].as_str().unwrap_or_default()
    }

    /// Its attempts of this kind, oldest first.
    pub fn attempts(&self, kind: &str) -> Vec<&Value> {
        let all = self.0["attempts"].as_array().expect("a list").iter();
        all.filter(|attempt| attempt["kind"] == kind).collect()
    }

    /// How its work attempts ended, oldest first, joined by blanks.
    pub fn classes(&self) -> String {
        let classes = self.attempts("work");
        let classes = classes.iter().map(|attempt| attempt["class"].as_str().unwrap_or("live"));
        classes.collect::<Vec<_>>().join(" ")
    }

    /// All evidence of failures, with its class.
    pub fn evidence(&self) -> String {
        let all = self.0["evidence"].as_array().expect("a list").iter();
        let text = |name: &str, it: &Value| it[name].as_str().unwrap_or_default().to_owned();
        all.map(|it| format!("{}: {}\n", text("class", it), text("text", it))).collect()
    }
}
