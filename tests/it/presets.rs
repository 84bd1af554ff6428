//! Agents of presets, with scripts in the place of the real programs: what they are given, what is
//! said where one is missing.

use std::fs;
use std::path::PathBuf;

use pipeline::store::lock::FileLock;
use serde_json::Value;

use crate::support::install;
use crate::support::project::{Done, Project};

/// Does its stage as a coding assistant would: reads the prompt to its end, changes a file, says that
/// it is done, prints what a real one printed. What it was given is kept beside the project.
pub(super) const STAND_IN: &str = r##"#!/bin/sh
set -eu
name=$(basename "$0")
printf '%s\n' "$@" >"$HOME/$name.$PIPELINE_STAGE.args"
env >"$HOME/$name.$PIPELINE_STAGE.env"
cat >"$HOME/$name.$PIPELINE_STAGE.prompt"
mkdir -p "$PIPELINE_STAGE"
echo "$PIPELINE_TASK_ID" >"$PIPELINE_STAGE/$PIPELINE_TASK_ID.txt"
if [ -e "$HOME/$name.out" ]; then cat "$HOME/$name.out"; fi
pipeline done
"##;

impl Project {
    /// A repository with a pipeline of two stages and these agents.
    pub(super) fn with_agents(agents: &str) -> Self {
        let project = Self::bare();
        fs::create_dir(&project.root).expect("the project's folder");
        project.git(&["init", "-q", "-b", "main"]);
        project.write("README", "a project\n");
        let text = format!(
            "[retry]\nbackoff = {{ first = \"10ms\" }}\n[monitor]\npoll = {{ busy = \"100ms\", normal = \"100ms\", idle = \"100ms\" }}\n\
             [landing]\nchecks = [\"test -e README\"]\n\
             [[stage]]\nname = \"implementation\"\n[[stage]]\nname = \"supervisor\"\n{agents}"
        );
        project.write("pipeline.toml", &text);
        project.commit("A beginning");
        project.ok(&["init"]);
        project
    }

    /// Puts a program on the path.
    pub(crate) fn install(&self, name: &str, text: &str) {
        let dir = self.dir().join("programs");
        fs::create_dir_all(&dir).expect("a folder for programs");
        let (draft, path) = (dir.join(format!(".{name}")), dir.join(name));
        install(&draft, text);
        fs::rename(&draft, &path).expect("in its place");
    }

    /// What a stand-in was given, or put there for it.
    fn kept(&self, name: &str) -> String {
        let path = self.dir().join("home").join(name);
        fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
    }
}

/// The place of a program of the system.
fn program(name: &str) -> PathBuf {
    let path = std::env::var_os("PATH").expect("a path");
    let mut found = std::env::split_paths(&path).map(|dir| dir.join(name));
    found.find(|file| file.is_file()).unwrap_or_else(|| panic!("no {name}"))
}

/// Runs `init` in a repository with a commit, on a path of git, a shell and stand-ins for `names`.
fn init(names: &[&str], args: &[&str]) -> (Project, Done) {
    init_beside(names, args, &[])
}

/// The same beside these files of the project.
fn init_beside(names: &[&str], args: &[&str], files: &[(&str, &str)]) -> (Project, Done) {
    let project = Project::bare();
    fs::create_dir(&project.root).expect("the project's folder");
    project.git(&["init", "-q", "-b", "main"]);
    project.write("README", "a project\n");
    files.iter().for_each(|(name, text)| project.write(name, text));
    project.commit("A beginning");
    names.iter().for_each(|name| project.install(name, STAND_IN));
    let bin = project.dir().join("programs");
    fs::create_dir_all(&bin).expect("a folder for programs");
    for name in ["git", "sh"] {
        std::os::unix::fs::symlink(program(name), bin.join(name)).expect("a link");
    }
    let mut command = project.command(&project.root, &[&["init"], args].concat());
    let output = command.env("PATH", &bin).output().expect("the program starts");
    let text = |bytes| String::from_utf8(bytes).expect("UTF-8");
    let (out, err) = (text(output.stdout), text(output.stderr));
    (project, Done { code: output.status.code(), out, err })
}

#[test]
fn init_writes_the_programs_that_it_finds_and_says_what_they_may_do() {
    let (project, done) = init(&["codex", "claude"], &[]);
    assert_eq!(done.code, Some(0), "{}", done.err);
    assert!(
        done.err.contains("claude does architect, test, implementation; it edits"),
        "{}",
        done.err
    );
    assert!(done.err.contains("codex does supervisor; it runs any command"), "{}", done.err);
    assert!(done.err.contains("next: `pipeline agent test implementation`"), "{}", done.err);
    assert!(done.err.lines().all(|line| line.len() <= 80), "{}", done.err);
    let text = fs::read_to_string(project.path("pipeline.toml")).expect("written");
    assert!(text.contains("rollout = \"pilot\""), "{text}");
    assert!(text.contains("name = \"supervisor\"\nstages = [\"supervisor\"]\npreset = \"codex\""));
    assert!(text.contains("# Claude Code edits files of its worktree;"), "{text}");
    project.commit("Settings");
    project.ok(&["task", "add", "First", "--id", "A"]);
    project.ok(&["monitor", "--until-idle", "--timeout", "240s"]);
    assert_eq!(project.count("completed"), 1);
    let subjects = project.git(&["log", "--format=%s", "main"]);
    assert_eq!(subjects, "Settings\nA beginning", "in pilot the base stays");
    project.assert_nothing_left();
}

#[test]
fn init_puts_agents_into_windows_where_that_is_asked_for() {
    let (project, done) = init(&["claude"], &["--launcher", "tmux"]);
    assert_eq!(done.code, Some(0), "{}", done.err);
    let text = fs::read_to_string(project.path("pipeline.toml")).expect("written");
    assert_eq!(text.matches("\nlauncher = \"tmux\"").count(), 4, "{text}");
    assert!(text.contains("# preset = \"person\""), "{text}");
    let no_tmux = "warning: tmux is not there: agents in windows wait until tmux";
    assert!(done.err.contains(no_tmux), "{}", done.err);
    for agents in ["shell", "architect,test,implementation,supervisor"] {
        let (project, done) = init(&[], &["--launcher", "tmux", "--agents", agents]);
        assert_eq!(done.code, Some(0), "{}", done.err);
        let text = fs::read_to_string(project.path("pipeline.toml")).expect("written");
        assert_eq!(text.matches("\nlauncher = \"tmux\"").count(), 4, "{text}");
    }
    let (project, done) = init(&[], &["--launcher", "tmux"]);
    assert_eq!(done.code, Some(0), "{}", done.err);
    let text = fs::read_to_string(project.path("pipeline.toml")).expect("written");
    assert!(text.contains("\n# launcher = \"tmux\""), "{text}");
}

#[test]
fn init_says_what_keeps_a_program_that_is_there_from_being_written() {
    let broken = |names: &[&str], args: &[&str]| {
        init_beside(names, args, &[("agents/presets/claude.toml", "about = \"x\"\nheadles = []\n")])
    };
    let (project, done) = broken(&["claude"], &[]);
    assert_eq!(done.code, Some(0), "{}", done.err);
    let why = "warning: cannot use the preset `agents/presets/claude.toml`: line 2, column 1";
    assert!(
        done.err.contains(why) && done.err.contains("type `pipeline init` again"),
        "{}",
        done.err
    );
    assert!(done.err.contains("there is no other coding assistant on the PATH"), "{}", done.err);
    assert!(!done.err.contains("note: no coding assistant"), "{}", done.err);
    assert!(
        !fs::read_to_string(project.path("pipeline.toml")).expect("written").contains("preset =")
    );
    let (_, done) = broken(&["claude", "codex"], &[]);
    assert!(done.err.contains(why) && done.err.contains("codex does architect"), "{}", done.err);
    let (_, done) = broken(&["claude"], &["--agents", "claude"]);
    assert_eq!(done.code, Some(2), "{}", done.err);
}

#[test]
fn init_writes_a_person_and_a_preset_of_the_projects_own_as_presets() {
    let own = "about = \"Mine\"\nheadless = [\"mine\"]\n";
    let files = [("agents/presets/mine.toml", own)];
    let (project, done) = init_beside(&["claude"], &["--agents", "mine,person"], &files);
    assert_eq!(done.code, Some(0), "{}", done.err);
    let text = fs::read_to_string(project.path("pipeline.toml")).expect("written");
    let own = text.matches("\npreset = \"mine\"\n").count();
    assert_eq!((own, text.contains("command =")), (3, false), "{text}");
    assert!(text.contains("stages = [\"supervisor\"]\npreset = \"person\"\n"), "{text}");
    assert!(done.err.contains("warning: `mine` is not on the PATH"), "{}", done.err);
    assert!(done.err.contains("next: `pipeline agent test implementation`"), "{}", done.err);

    let (project, done) = init_beside(&[], &["--agents", "person"], &[]);
    assert_eq!(done.code, Some(0), "{}", done.err);
    let text = fs::read_to_string(project.path("pipeline.toml")).expect("written");
    assert_eq!(text.matches("\npreset = \"person\"\n").count(), 4, "{text}");
    assert!(
        done.err.contains("warning: tmux is not there: agents in windows wait"),
        "{}",
        done.err
    );
    assert!(done.err.contains("next: `pipeline task add TITLE`, then"), "{}", done.err);
    assert!(!done.err.contains("fill in"), "{}", done.err);
}

#[test]
fn init_without_any_program_says_so_and_writes_an_example() {
    let (project, done) = init(&[], &[]);
    assert_eq!(done.code, Some(0), "{}", done.err);
    assert!(
        done.err.contains("no coding assistant is on the PATH (claude, codex,"),
        "{}",
        done.err
    );
    let text = fs::read_to_string(project.path("pipeline.toml")).expect("written");
    assert!(text.contains("# command = [\"sh\"") && !text.contains("pilot"), "{text}");
    assert!(project.fails(2, &["monitor", "--once"]).contains("there are no agents"));

    let (_, done) = init(&["claude"], &["--agents", "aider,claude"]);
    assert_eq!(done.code, Some(0), "{}", done.err);
    assert!(done.err.contains("aider does architect, test, implementation"), "{}", done.err);
    assert!(done.err.contains("claude does supervisor"), "{}", done.err);
    let warning = "warning: `aider` is not on the PATH: install it with";
    assert!(done.err.contains(warning), "{}", done.err);
    let (_, done) = init(&[], &["--agents", "claude,mine"]);
    assert_eq!(done.code, Some(2), "{}", done.err);
    assert!(done.err.contains("presets and others together"), "{}", done.err);
}

/// The paths in a preset are those of the project, not of the place in which it is tried.
#[test]
fn agent_test_finds_what_a_preset_names_in_the_project() {
    let project = Project::with_agents(
        "[[agent]]\nname = \"script\"\nstages = [\"impl\"]\npreset = \"shell\"\n\
         [[agent]]\nname = \"own\"\nstages = [\"super\"]\npreset = \"claude\"\n",
    );
    let said = project.fails(1, &["agent", "test", "script"]);
    let gone = "it cannot start: `agents/presets/shell.sh`, which the preset `shell` names, is not";
    assert!(said.contains(gone), "{said}");
    let script = "cat >/dev/null\necho hello >hello.txt\npipeline done\n";
    project.write("agents/presets/shell.sh", script);
    project.write("agents/presets/claude.toml", "about = \"x\"\nheadless = [\"tools/own\"]\n");
    install(&project.path("tools/own"), &format!("#!/bin/sh\n{script}"));
    for name in ["script", "own"] {
        let said = project.ok(&["agent", "test", name]);
        assert!(said.contains(&format!("agent `{name}` works (")), "{said}");
    }
    project.write("pipeline.toml", "[[agent]]\nname = 7\n");
    let done = project.run(&["agent", "test", "script"]);
    assert_eq!(done.code, Some(0), "{}", done.err);
    assert!(done.err.contains("pipeline.toml` is broken, the old settings count"), "{}", done.err);
    project.write("pipeline.toml", "");
    let said = project.fails(2, &["agent", "test", "script"]);
    assert!(said.contains("pipeline.toml has none yet: add an `[[agent]]` there"), "{said}");
}

/// Does the small task of `agent test`, or what comes first of it.
const HELLO: &str = "#!/bin/sh\nset -eu\ncat >\"$HOME/prompt\"\necho hello >hello.txt\n\
                     echo '{\"type\":\"result\",\"usage\":{\"input_tokens\":7}}'\n";

#[test]
fn agent_test_tells_plainly_whether_an_agent_works() {
    let project = Project::with_agents(&format!(
        "{TWO}[[agent]]\nname = \"script\"\nstages = [\"super\"]\ncount = 2\n\
         command = [\"./tools/own.sh\", \"{{project}}\"]\n"
    ));
    let said = project.fails(1, &["agent", "test", "coder"]);
    assert!(
        said.contains("agent `coder` does not work:\nit cannot start: `claude` is not"),
        "{said}"
    );

    project.install("claude", &format!("{HELLO}pipeline done\n"));
    let before = project.git(&["status", "--porcelain"]);
    let said = project.ok(&["agent", "test", "coder"]);
    assert!(said.starts_with("agent `coder` works (") && said.contains("passed a check"), "{said}");
    assert!(said.contains("7 tokens read):\nit read its prompt"), "{said}");
    assert!(project.kept("prompt").contains("Make a file `hello.txt`"));

    project.install("claude", HELLO);
    let done = project.run(&["agent", "test", "coder", "--json"]);
    assert_eq!(done.code, Some(1), "{}", done.err);
    let verdict: Value = serde_json::from_str(&done.out).expect("a document");
    assert_eq!((&verdict["works"], &verdict["class"]), (&false.into(), &"incomplete".into()));
    let log = fs::read_to_string(verdict["log"].as_str().expect("a path")).expect("kept");
    assert!(log.contains("input_tokens"), "{log}");

    let wrong = HELLO.replace("echo hello", "echo other");
    project.install("claude", &format!("{wrong}pipeline done\n"));
    let said = project.fails(1, &["agent", "test", "coder"]);
    assert!(
        said.contains("it said that it was done, but `grep -qx hello hello.txt` fails"),
        "{said}"
    );

    project.install("claude", "#!/bin/sh\nexec sleep 60\n");
    let said = project.fails(1, &["agent", "test", "coder", "--timeout", "200ms"]);
    assert!(said.contains("timed_out: ran longer than its time limit"), "{said}");

    // Both are the project, as in a run.
    let text = "#!/bin/sh\n[ \"$1\" = \"$PIPELINE_PROJECT\" ] && [ -x \"$1/tools/own.sh\" ] \
                && [ \"$PWD\" != \"$1\" ] && echo hello >hello.txt\n";
    install(&project.path("tools/own.sh"), text);
    project.ok(&["agent", "test", "script-2"]);
    assert!(
        project.fails(2, &["agent", "test", "nobody"]).contains("pipeline.toml has coder, judge")
    );

    // What a killed one left is gone by now; that of one which lives would stay.
    let own = project.path(".pipeline/tests/coder-1");
    let lock = FileLock::try_exclusive(&own.with_extension("lock"), "test").expect("a lock");
    // Its number is another process's by now.
    let gone = project.path(&format!(".pipeline/tests/coder-{}", std::process::id()));
    fs::write(gone.with_extension("lock"), "").expect("a lock");
    for dir in [&own, &gone] {
        fs::create_dir_all(dir.join(".git/pipeline/keepers")).expect("a place");
    }
    project.ok(&["agent", "test", "script-1"]);
    assert!(own.exists() && !gone.exists());
    drop(lock.expect("it is free"));
    project.ok(&["agent", "test", "script-1"]);

    // Nothing of it is left in the project.
    assert_eq!(project.status()["metrics"]["attempts"], 0);
    let left = fs::read_dir(project.path(".pipeline/tests")).expect("the folder").count();
    assert_eq!(left, 0);
    fs::remove_dir_all(project.path("tools")).expect("removed");
    assert_eq!(project.git(&["status", "--porcelain"]), before);
    project.assert_nothing_left();
}

const TWO: &str = "[[agent]]\nname = \"coder\"\nstages = [\"impl\"]\npreset = \"claude\"\n\
                   model = \"large\"\n\
                   [[agent]]\nname = \"judge\"\nstages = [\"super\"]\npreset = \"codex\"\n";

#[test]
fn agents_of_two_presets_take_a_task_to_its_landing() {
    let project = Project::with_agents(TWO);
    project.install("claude", STAND_IN);
    project.install("codex", STAND_IN);
    project.ok(&["task", "add", "First", "--id", "A", "--body", "Do the first thing."]);
    let env = [("SECRET", "x"), ("ANTHROPIC_API_KEY", "k"), ("OPENAI_API_KEY", "o")];
    let result = r#"{"type":"result","session_id":"s-1","total_cost_usd":0.25,"usage":
        {"input_tokens":10,"cache_read_input_tokens":1190,"output_tokens":42}}"#;
    fs::write(project.dir().join("home/claude.out"), result.replace('\n', "") + "\n")
        .expect("written");
    let mut monitor = project.start_with(&["monitor", "--until-idle", "--timeout", "240s"], &env);
    assert_eq!(monitor.end(&project), Some(0), "{}", monitor.said());
    assert_eq!(project.count("completed"), 1);
    assert_eq!(project.git(&["show", "main:implementation/A.txt"]), "A");

    let args = project.kept("claude.implementation.args");
    assert!(args.starts_with("-p\n--output-format\nstream-json\n--verbose\n"), "{args}");
    for rule in ["Bash(pipeline done)", "Bash(test -e README)", "--model\nlarge"] {
        assert!(args.contains(rule), "{rule}: {args}");
    }
    let prompt = project.kept("claude.implementation.prompt");
    assert!(prompt.contains("Do the first thing.") && prompt.contains("pipeline done"), "{prompt}");
    let env = project.kept("claude.implementation.env");
    let has = |name: &str| env.lines().any(|line| line.starts_with(name));
    assert!(has("ANTHROPIC_API_KEY=k") && has("DISABLE_AUTOUPDATER=1"), "{env}");
    assert!(has("HOME=") && has("PIPELINE_TASK_ID=A"), "{env}");
    assert!(!has("SECRET") && !has("OPENAI_API_KEY"), "{env}");
    let args = project.kept("codex.supervisor.args");
    assert!(args.ends_with("\n-\n") && !args.contains("{model}"), "{args}");

    let metrics = &project.status()["metrics"];
    assert_eq!((&metrics["tokens"], &metrics["cost_usd"]), (&1242.into(), &0.25.into()));
    let words = "1 of 1 landed, cost at least $0.25 (1 attempt unknown)";
    assert_eq!(project.headline(), words, "there is no room for the tokens");
    let task: Value = serde_json::from_str(&project.ok(&["task", "show", "A", "--json"]))
        .expect("a task is JSON");
    let [coder, judge] = [0, 1].map(|n| &task["attempts"][n]["usage"]);
    assert_eq!((&coder["session"], &coder["cached_tokens"]), (&"s-1".into(), &1190.into()));
    assert_eq!((&judge["input_tokens"], &judge["cost_usd"]), (&Value::Null, &Value::Null));
    let said = project.ok(&["task", "show", "A"]);
    assert!(said.contains("completed (1242 tokens, $0.25)"), "{said}");
    let said = project.run(&["task", "log", "A", "--stage", "impl"]).err;
    assert!(said.contains("1200 tokens read, 42 written, $0.25"), "{said}");
    project.assert_nothing_left();
}

#[test]
fn a_failure_is_told_in_words_and_not_in_events() {
    let project = Project::with_agents(TWO);
    let said = r#"echo '{"type":"system","session_id":"s"}'
echo '{"type":"result","is_error":true,"result":"API Error: 500 Internal server error"}'
echo 'a warning on standard error' >&2
exit 1
"#;
    project.install("claude", &format!("#!/bin/sh\n{said}"));
    project.install("codex", STAND_IN);
    project.ok(&["task", "add", "First", "--id", "A"]);
    project.fails(1, &["monitor", "--until-idle", "--timeout", "240s"]);
    let task: Value = serde_json::from_str(&project.ok(&["task", "show", "A", "--json"]))
        .expect("a task is JSON");
    let text = task["evidence"][0]["text"].as_str().expect("a text");
    assert_eq!(
        text,
        "exited with status 1\nAPI Error: 500 Internal server error\na warning on standard error"
    );
    project.assert_nothing_left();
}

#[test]
fn a_program_that_is_missing_is_said_and_its_tasks_wait_for_it() {
    let project = Project::with_agents(TWO);
    project.install("codex", STAND_IN);
    project.ok(&["task", "add", "First", "--id", "A"]);
    let why =
        "agent `coder` cannot start: `claude` is not on the PATH: install it with `npm install";
    let said = project.fails(1, &["doctor"]);
    assert!(said.contains(why) && said.contains("agent `judge` can start"), "{said}");
    let said = project.fails(1, &["monitor", "--until-idle", "--timeout", "240s"]);
    assert!(said.contains("agent coder cannot start: `claude` is not on the PATH"), "{said}");
    assert!(said.contains(why), "what the task waits for: {said}");
    let status = project.status();
    assert_eq!(status["waiting"][0]["on"], "agent", "{status}");
    assert_eq!(status["agents"]["coder"]["status"], "failed", "{status}");
    assert_eq!(status["metrics"]["attempts"], 0, "{status}");

    // A later monitor says it too, and goes on as soon as the program is there.
    let mut monitor = project.start(&["monitor"]);
    monitor.until_said("warning: agent coder cannot start");
    project.install("claude", STAND_IN);
    project.until("the task to land", || project.count("completed") == 1);
    project.ok(&["stop"]);
    assert_eq!(monitor.end(&project), Some(0));
    project.ok(&["doctor"]);
    project.assert_nothing_left();
}

#[test]
fn a_preset_of_the_project_counts_from_the_next_attempt_on() {
    let project = Project::with_agents(TWO);
    for name in ["claude", "codex", "mine"] {
        project.install(name, STAND_IN);
    }
    let run = |id: &str| -> Done {
        project.ok(&["task", "add", "A task", "--id", id]);
        project.run(&["monitor", "--until-idle", "--timeout", "240s"])
    };
    let text =
        "about = \"mine\"\nheadless = [\"mine\", \"{task_file}\"]\nenv_allow = [\"E2E_DIR\"]\n";
    project.write("agents/presets/claude.toml", text);
    let done = run("A");
    assert_eq!(done.code, Some(0), "{}", done.err);
    assert!(project.kept("mine.implementation.args").contains("TASK-A.md"));
    assert!(project.kept("mine.implementation.env").contains("E2E_DIR="));

    project.write("agents/presets/claude.toml", "about = \"mine\"\nheadles = [\"mine\"]\n");
    let done = run("B");
    assert_eq!(done.code, Some(1), "{}", done.err);
    let why = "cannot use the preset `agents/presets/claude.toml`: line 2, column 1: unknown key";
    assert!(done.err.contains(why), "{}", done.err);
    fs::remove_file(project.path("agents/presets/claude.toml")).expect("removed");
    project.ok(&["monitor", "--until-idle", "--timeout", "240s"]);
    assert!(project.kept("claude.implementation.args").contains("--model"));
    assert_eq!(project.count("completed"), 2);
    project.assert_nothing_left();
}
