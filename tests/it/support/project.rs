//! A project in a temporary folder, and the binary run on it.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus};

use rustix::process::Signal;
use serde_json::Value;
use tempfile::TempDir;

use super::{install, processes_of, signal, until};

/// What every agent runs: waits while it is told to, leaves a file for its stage, notes that it ran.
const AGENT: &str = r#"set -eu
echo "$PIPELINE_ATTEMPT" >>"$E2E_DIR/runs"
while [ -e "$E2E_DIR/hold" ] || [ -e "$E2E_DIR/hold.$PIPELINE_STAGE" ]; do sleep 0.02; done
[ "$PIPELINE_STAGE" = supervisor ] && exit 0
mkdir -p "$PIPELINE_STAGE"
echo "$PIPELINE_TASK_ID" >"$PIPELINE_STAGE/$PIPELINE_TASK_ID.txt"
"#;

/// Fails when `broken` is there.
const CHECK: &str = "if [ -e broken ]; then echo 'it is broken'; exit 1; fi\n";

pub(crate) const STAGES: [&str; 4] = ["architect", "test", "implementation", "supervisor"];

/// Tasks with what they depend on, as (id, ids).
pub(crate) type Backlog = [(&'static str, &'static [&'static str])];

/// Twelve tasks on five levels.
pub(crate) const TWELVE: &Backlog = &[
    ("A", &[]),
    ("B", &["A"]),
    ("C", &["A"]),
    ("D", &["B", "C"]),
    ("E", &[]),
    ("F", &["E"]),
    ("G", &["D", "F"]),
    ("H", &[]),
    ("I", &["H"]),
    ("J", &["G"]),
    ("K", &[]),
    ("L", &["I", "K"]),
];

/// How a command ended.
#[derive(Debug)]
pub(crate) struct Done {
    pub(crate) code: Option<i32>,
    pub(crate) out: String,
    pub(crate) err: String,
}

/// A repository with a pipeline.
pub(crate) struct Project {
    temp: TempDir,
    pub(crate) root: PathBuf,
}

impl Project {
    /// A folder with nothing set up.
    pub(crate) fn bare() -> Self {
        let temp = tempfile::Builder::new().prefix("e2e-").tempdir().expect("temporary folder");
        let path = fs::canonicalize(temp.path()).expect("it is there");
        for name in ["home", "tmp", "run"] {
            fs::create_dir(path.join(name)).expect("its folders");
        }
        let mode = std::os::unix::fs::PermissionsExt::from_mode(0o700);
        fs::set_permissions(path.join("run"), mode).expect("a private folder");
        Self { root: path.join("project"), temp }
    }

    /// A repository with one commit, and a pipeline with `count` agents for each stage.
    pub(crate) fn new(count: usize) -> Self {
        Self::with(count, "")
    }

    /// The same, with no worktree made ahead: what is deleted or moved is not being written.
    pub(crate) fn not_ahead(count: usize) -> Self {
        Self::with(count, "[scheduler]\nprefetch = 0\n")
    }

    /// The same with more settings before those of the agents.
    pub(crate) fn with(count: usize, settings: &str) -> Self {
        Self::on(count, settings, |_| {})
    }

    /// The same in a folder that `prepare` is given while it is empty.
    pub(crate) fn on(count: usize, settings: &str, prepare: impl FnOnce(&Path)) -> Self {
        let project = Self::bare();
        fs::create_dir(&project.root).expect("the project's folder");
        prepare(&project.root);
        project.git(&["init", "-q", "-b", "main"]);
        project.write("tools/agent.sh", AGENT);
        project.write("tools/check.sh", CHECK);
        project.write("README", "a project\n");
        project.write("pipeline.toml", &toml(count, settings));
        project.commit("A beginning");
        project.ok(&["init"]);
        project
    }

    /// Runs it until nothing is left to do, and nobody holds anything.
    pub(crate) fn idle(&self) {
        self.ok(&["monitor", "--until-idle", "--timeout", "240s"]);
        self.keepers_have_ended();
    }

    /// Keepers with nothing to do end after their monitor has, and take their files along.
    pub(crate) fn keepers_have_ended(&self) {
        self.until("the keepers' end", || processes_of(&self.dir()).is_empty());
    }

    pub(crate) fn dir(&self) -> PathBuf {
        fs::canonicalize(self.temp.path()).expect("it is there")
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.root.join(name)
    }

    /// Where the program keeps its journal, views and locks.
    pub(crate) fn state_dir(&self) -> PathBuf {
        self.path(".git/pipeline")
    }

    /// The first segment of the journal, the only one of a short run.
    pub(crate) fn segment(&self) -> PathBuf {
        self.state_dir().join("journal/00000000000000000000.ndjson")
    }

    /// All files below the state folder but locks, with what they hold.
    pub(crate) fn state_files(&self) -> BTreeMap<PathBuf, Vec<u8>> {
        let entries = walkdir::WalkDir::new(self.state_dir()).into_iter().flatten();
        let paths = entries.map(walkdir::DirEntry::into_path).filter(|path| path.is_file());
        paths
            .filter(|path| !path.to_string_lossy().ends_with("lock"))
            .map(|path| (path.clone(), fs::read(path).expect("a file")))
            .collect()
    }

    pub(crate) fn write(&self, name: &str, text: &str) {
        let path = self.path(name);
        fs::create_dir_all(path.parent().expect("it has a folder")).expect("its folder");
        fs::write(&path, text).expect("a file of the project");
    }

    /// Makes every agent (or those of a stage) wait.
    pub(crate) fn hold(&self, name: &str) {
        fs::write(self.dir().join(name), "").expect("a file beside the project");
    }

    /// Lets them go on.
    pub(crate) fn release(&self, name: &str) {
        fs::remove_file(self.dir().join(name)).expect("they were held");
    }

    /// Attempts in the order in which their agents began.
    pub(crate) fn runs(&self) -> Vec<String> {
        let text = fs::read_to_string(self.dir().join("runs")).unwrap_or_default();
        text.lines().map(str::to_owned).collect()
    }

    fn cleaned(&self, program: &str, dir: &Path) -> Command {
        let base = self.dir();
        let mut command = pipeline::sys::child::command(program, dir);
        command.env_clear();
        // Programs of a test's own come first; the folder need not be there.
        let path = std::env::var("PATH").expect("a path");
        command.env("PATH", format!("{}:{path}", base.join("programs").display()));
        for (name, folder) in [("HOME", "home"), ("TMPDIR", "tmp"), ("XDG_RUNTIME_DIR", "run")] {
            command.env(name, base.join(folder));
        }
        command.env("E2E_DIR", &base).env("LC_ALL", "C.UTF-8");
        let editor = base.join("programs/editor");
        if editor.exists() {
            command.env("EDITOR", editor);
        }
        command.env("GIT_CONFIG_NOSYSTEM", "1").env("GIT_CONFIG_GLOBAL", "/dev/null");
        for role in ["AUTHOR", "COMMITTER"] {
            command.env(format!("GIT_{role}_NAME"), "A Person");
            command.env(format!("GIT_{role}_EMAIL"), "person@example.org");
        }
        command
    }

    /// Runs git in the project; what it said on standard output, trimmed.
    ///
    /// While a worktree is being made, git reads a file of it that is still empty; a person types it
    /// again.
    pub(crate) fn git(&self, args: &[&str]) -> String {
        let is_half_made = |done: &Done| done.err.contains("/commondir: Success");
        let try_it = || Some(self.try_git(args)).filter(|done| !is_half_made(done));
        let done = until("worktrees to be made", String::new, try_it);
        assert_eq!(done.code, Some(0), "git {args:?}: {}{}", done.out, done.err);
        done.out.trim_end().to_owned()
    }

    /// Runs git where it may fail; its status.
    pub(crate) fn try_git(&self, args: &[&str]) -> Done {
        // What looks on takes no lock from a git of the program, and leaves none behind that tidies up.
        let mut git = self.cleaned("git", &self.root);
        run(git.env("GIT_OPTIONAL_LOCKS", "0").args(["-c", "maintenance.auto=false"]).args(args))
    }

    /// From now on has `script`, for sh, run before every git; `$git` is the real one.
    pub(crate) fn before_git(&self, script: &str) {
        let programs = self.dir().join("programs");
        let real = self.shell("command -v git").out;
        fs::create_dir(&programs).expect("a folder");
        let text = format!("#!/bin/sh\ngit={}\n{script}\nexec $git \"$@\"\n", real.trim());
        install(&programs.join("git"), &text);
    }

    pub(crate) fn commit(&self, message: &str) {
        self.git(&["add", "-A"]);
        self.git(&["commit", "-q", "-m", message]);
    }

    /// The program with arguments, to be run in `dir`.
    pub(crate) fn command(&self, dir: &Path, args: &[&str]) -> Command {
        let mut command = self.cleaned(env!("CARGO_BIN_EXE_pipeline"), dir);
        command.args(args);
        command
    }

    /// Runs the program.
    pub(crate) fn run(&self, args: &[&str]) -> Done {
        run(&mut self.command(&self.root, args))
    }

    /// Types a line in the project as a person would, with the program on the path.
    pub(crate) fn shell(&self, line: &str) -> Done {
        let mut command = self.cleaned("sh", &self.root);
        let dir = Path::new(env!("CARGO_BIN_EXE_pipeline")).parent().expect("it has a folder");
        let path = std::env::var("PATH").expect("a path");
        run(command.env("PATH", format!("{}:{path}", dir.display())).args(["-c", line]))
    }

    /// The first line of `status` without the commits that landed.
    pub(crate) fn headline(&self) -> String {
        let said = self.ok(&["status"]);
        let first = said.lines().next().unwrap_or_default();
        match (first.split_once(" ("), first.split_once(')')) {
            (Some((before, range)), Some((_, after))) if range.contains("~1..") => {
                format!("{before}{after}")
            }
            _ => first.to_owned(),
        }
    }

    /// Runs the program, which must end well; its output.
    pub(crate) fn ok(&self, args: &[&str]) -> String {
        let done = self.run(args);
        assert_eq!(done.code, Some(0), "pipeline {args:?}: {}{}", done.out, done.err);
        done.out
    }

    /// Runs the program, which must end with `code`; what it said.
    pub(crate) fn fails(&self, code: i32, args: &[&str]) -> String {
        let done = self.run(args);
        let said = format!("{}{}", done.out, done.err);
        assert_eq!(done.code, Some(code), "pipeline {args:?}: {said}");
        said
    }

    /// Adds tasks by import.
    pub(crate) fn import(&self, backlog: &Backlog) {
        let tasks: Vec<Value> = backlog
            .iter()
            .map(|(id, deps)| {
                serde_json::json!({ "id": id, "title": format!("Task {id}"), "depends_on": deps })
            })
            .collect();
        let file = self.dir().join("backlog.json");
        fs::write(&file, serde_json::json!({ "tasks": tasks }).to_string()).expect("the backlog");
        self.ok(&["task", "import", file.to_str().expect("it is UTF-8")]);
    }

    pub(crate) fn status(&self) -> Value {
        serde_json::from_str(&self.ok(&["status", "--json"])).expect("status is JSON")
    }

    /// One of `counts` in the status.
    pub(crate) fn count(&self, name: &str) -> u64 {
        self.status()["counts"][name].as_u64().expect("it is a number")
    }

    /// Status of a task, as in `state.json`.
    pub(crate) fn task(&self, id: &str) -> String {
        let task: Value = serde_json::from_str(&self.ok(&["task", "show", id, "--json"]))
            .expect("a task is JSON");
        task["status"].as_str().expect("it has a status").to_owned()
    }

    /// The journal, readable.
    pub(crate) fn log(&self) -> Vec<Value> {
        let text = self.ok(&["log", "--json"]);
        text.lines().map(|line| serde_json::from_str(line).expect("lines of JSON")).collect()
    }

    /// Bytes of the journal.
    pub(crate) fn journal_bytes(&self) -> u64 {
        let dir = self.path(".git/pipeline/journal");
        let files = fs::read_dir(dir).expect("the journal is there").flatten();
        files.map(|file| file.metadata().map_or(0, |meta| meta.len())).sum()
    }

    /// Starts the program in the background, in a process group of its own.
    pub(crate) fn start(&self, args: &[&str]) -> Running {
        self.start_with(args, &[])
    }

    /// The same with more in its environment.
    pub(crate) fn start_with(&self, args: &[&str], env: &[(&str, &str)]) -> Running {
        let mut command = self.command(&self.root, args);
        command.envs(env.iter().copied());
        self.start_command(command)
    }

    /// Starts another program in the background, in a process group of its own.
    pub(crate) fn start_other(&self, program: &Path, args: &[&str]) -> Running {
        let mut command = self.cleaned(program.to_str().expect("it is UTF-8"), &self.root);
        command.args(args);
        self.start_command(command)
    }

    fn start_command(&self, mut command: Command) -> Running {
        let name = format!("monitor-{}", COUNT.fetch_add(1, std::sync::atomic::Ordering::Relaxed));
        let log = self.dir().join(name);
        let file = fs::File::create(&log).expect("a file for its output");
        command.stdout(file.try_clone().expect("a descriptor")).stderr(file);
        std::os::unix::process::CommandExt::process_group(&mut command, 0);
        Running { child: command.spawn().expect("the program starts"), log }
    }

    /// Starts a monitor and waits until it has taken over.
    pub(crate) fn monitor(&self, args: &[&str]) -> Running {
        let mut running = self.start(&[&["monitor"], args].concat());
        running.until_said("open task");
        running
    }

    /// Waits for something of this project.
    pub(crate) fn until(&self, what: &str, mut condition: impl FnMut() -> bool) {
        until(what, || self.story(), || condition().then_some(()));
    }

    /// All there is to know when something goes wrong.
    pub(crate) fn story(&self) -> String {
        let mut story = self.run(&["status"]).out;
        story.push_str(&self.run(&["log"]).out);
        let mut logs: Vec<PathBuf> = fs::read_dir(self.dir())
            .into_iter()
            .flatten()
            .flatten()
            .map(|entry| entry.path())
            .filter(|path| path.to_string_lossy().contains("/monitor-"))
            .collect();
        logs.sort();
        for log in logs {
            let text = fs::read_to_string(&log).unwrap_or_default();
            let odd = text.lines().filter(|line| !line.starts_with(|c: char| c.is_ascii_digit()));
            story.push_str(&format!("--- {}\n", log.display()));
            odd.for_each(|line| story.push_str(&format!("{line}\n")));
        }
        let left = processes_of(&self.dir());
        story
            + &format!(
                "processes: {left:#?}\n{}",
                self.try_git(&["log", "--oneline", "--graph", "--all"]).out
            )
    }
}

impl Drop for Project {
    /// A test that failed leaves no process either.
    fn drop(&mut self) {
        for _ in 0..3 {
            processes_of(&self.dir()).iter().for_each(|(pid, _)| signal(*pid, Signal::KILL));
        }
    }
}

static COUNT: std::sync::atomic::AtomicUsize = std::sync::atomic::AtomicUsize::new(0);

fn toml(count: usize, settings: &str) -> String {
    let mut text = format!(
        "{settings}\n[landing]\nchecks = [\"sh tools/check.sh\"]\n\n\
         [retry]\nbackoff = {{ first = \"250ms\", factor = 2.0, max = \"2s\", jitter = 0.1 }}\n"
    );
    for stage in STAGES {
        text.push_str(&format!(
            "\n[[agent]]\nname = \"{stage}\"\nstages = [\"{stage}\"]\ncount = {count}\n\
             command = [\"sh\", \"{{project}}/tools/agent.sh\"]\n"
        ));
    }
    text
}

fn run(command: &mut Command) -> Done {
    let output = command.output().expect("the program starts");
    Done {
        code: output.status.code(),
        out: String::from_utf8(output.stdout).expect("output is UTF-8"),
        err: String::from_utf8_lossy(&output.stderr).into_owned(),
    }
}

/// A program in the background.
pub(crate) struct Running {
    child: Child,
    log: PathBuf,
}

impl Running {
    pub(crate) fn pid(&self) -> i32 {
        self.child.id().cast_signed()
    }

    /// What it has said so far.
    pub(crate) fn said(&self) -> String {
        fs::read_to_string(&self.log).expect("its output")
    }

    pub(crate) fn until_said(&mut self, text: &str) {
        let log = self.log.clone();
        let said = || fs::read_to_string(&log).unwrap_or_default();
        until(text, said, || {
            let has_ended = self.child.try_wait().expect("it is ours").is_some();
            let has_said = said().contains(text);
            assert!(has_said || !has_ended, "it ended without saying {text:?}:\n{}", said());
            has_said.then_some(())
        });
    }

    pub(crate) fn signal(&self, what: Signal) {
        signal(self.pid(), what);
    }

    pub(crate) fn has_ended(&mut self) -> Option<ExitStatus> {
        self.child.try_wait().expect("it is ours")
    }

    /// Waits for its end; its status.
    pub(crate) fn end(&mut self, project: &Project) -> Option<i32> {
        until("the monitor's end", || project.story(), || self.has_ended()).code()
    }

    pub(crate) fn kill(&mut self) {
        self.signal(Signal::KILL);
        self.child.wait().expect("it is ours");
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        // Ended already, as a rule.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
