//! The command line as a person meets it, through the real program: what is asked, the exit code,
//! what stands on standard output and what on standard error.

use std::fs;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::sync::mpsc::channel;
use std::time::Duration;

use pipeline::sys::child;
use pipeline::sys::clock::monotonic;
use serde_json::Value;
use tempfile::TempDir;

/// Longest wait for a process to go.
const LIMIT: Duration = Duration::from_secs(60);

/// What standard output must be.
enum Out {
    Nothing,
    /// Exactly this, with the line's end.
    Is(&'static str),
    Has(&'static str),
}

use Out::{Has, Is, Nothing};

/// A command line without the program's name, its exit code, its output, what its errors contain.
type Case = (&'static str, i32, Out, &'static str);

/// A folder of its own, with home and runtime folder beside it.
struct Scratch {
    dir: TempDir,
}

impl Scratch {
    fn new() -> Self {
        let dir = tempfile::tempdir().expect("temporary folder");
        for name in ["home", "run", "work"] {
            fs::create_dir(dir.path().join(name)).expect("a folder");
        }
        Self { dir }
    }

    /// A repository with one commit on `main`.
    fn repository() -> Self {
        let scratch = Self::new();
        scratch.git("init -q -b main");
        fs::write(scratch.work().join("README"), "hi\n").expect("a file");
        scratch.git("add README");
        scratch.git("commit -q -m first");
        scratch
    }

    /// A repository with a pipeline of shell agents.
    fn project() -> Self {
        let scratch = Self::repository();
        scratch.check(&[("-q init --agents shell", 0, Nothing, "")]);
        scratch
    }

    fn work(&self) -> PathBuf {
        self.dir.path().join("work")
    }

    fn command(&self, program: &str) -> Command {
        let mut command = child::command(program, &self.work());
        command.env_clear();
        command.env("PATH", std::env::var_os("PATH").expect("a PATH"));
        command.env("HOME", self.dir.path().join("home"));
        command.env("XDG_RUNTIME_DIR", self.dir.path().join("run"));
        command.env("TMPDIR", self.dir.path());
        command.env("GIT_CONFIG_NOSYSTEM", "1").env("GIT_CONFIG_GLOBAL", "/dev/null");
        for who in ["AUTHOR", "COMMITTER"] {
            command.env(format!("GIT_{who}_NAME"), "u").env(format!("GIT_{who}_EMAIL"), "u@x");
        }
        command
    }

    fn git(&self, line: &str) {
        let done = self.command("git").args(line.split(' ')).output().expect("git runs");
        assert!(done.status.success(), "git {line}: {}", text(&done.stderr));
    }

    fn run(&self, line: &str) -> Output {
        let words = line.split(' ').filter(|word| !word.is_empty());
        // `''` stands for an empty word.
        let words = words.map(|word| if word == "''" { "" } else { word });
        let mut command = self.command(env!("CARGO_BIN_EXE_pipeline"));
        command.args(words).output().expect("the program runs")
    }

    fn check(&self, cases: &[Case]) {
        for (line, code, out, err) in cases {
            let done = self.run(line);
            let (stdout, stderr) = (text(&done.stdout), text(&done.stderr));
            let all = format!("pipeline {line}\n-- stdout\n{stdout}-- stderr\n{stderr}");
            assert_eq!(done.status.code(), Some(*code), "{all}");
            let fits = match out {
                Nothing => stdout.is_empty(),
                Is(expected) => stdout == *expected,
                Has(part) => stdout.contains(part),
            };
            assert!(fits, "{all}");
            assert!(stderr.contains(err), "`{err}` is missing: {all}");
            assert!(!err.is_empty() || stderr.is_empty(), "{all}");
            assert!(!stderr.contains("panicked"), "{all}");
        }
    }

    fn json(&self, line: &str) -> Value {
        let done = self.run(line);
        serde_json::from_slice(&done.stdout).unwrap_or_else(|error| {
            panic!("pipeline {line}: {error}: {}{}", text(&done.stdout), text(&done.stderr))
        })
    }

    /// Waits until the keepers that a monitor left behind have gone: they hold their locks so long.
    fn wait_for_keepers(&self, state: &str) {
        let keepers = fs::read_dir(self.work().join(state).join("keepers")).expect("keepers");
        for keeper in keepers {
            let path = keeper.expect("an entry").path().join("lock");
            let lock = fs::File::open(&path).expect("a lock file");
            let (sender, receiver) = channel();
            std::thread::spawn(move || sender.send(fs2::FileExt::lock_shared(&lock)));
            let free = receiver.recv_timeout(LIMIT);
            assert!(matches!(free, Ok(Ok(()))), "{} is still held", path.display());
        }
    }

    fn journal(&self) -> PathBuf {
        self.work().join(".git/pipeline/journal/00000000000000000000.ndjson")
    }
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

fn write(path: &Path, text: &str) {
    fs::write(path, text).expect("a file is written");
}

#[test]
fn init_writes_nothing_into_a_git_folder_that_lies_apart() {
    let scratch = Scratch::new();
    scratch.git("init -q -b main --separate-git-dir=apart main");
    scratch.git("-C main commit -q --allow-empty -m first");
    scratch.git("-C main worktree add -q ../linked");
    scratch.check(&[("-C linked init", 2, Nothing, "hint: run it in the main checkout")]);
    for name in ["pipeline.toml", ".pipeline", "pipeline"] {
        assert!(!scratch.work().join("apart").join(name).exists(), "{name}");
    }
    scratch.check(&[
        ("-C main init --agents shell", 0, Nothing, "set up on branch `main`"),
        ("-C linked status", 2, Nothing, "hint: run it in the main checkout"),
    ]);
    assert!(scratch.work().join("main/pipeline.toml").exists());
}

#[test]
fn init_refuses_what_will_not_do_and_says_what_to_run() {
    let bare = Scratch::new();
    bare.check(&[
        ("init", 2, Nothing, "or go without git: pipeline init --isolation none"),
        ("status", 2, Nothing, "set it up with `pipeline init`"),
        ("task add x", 2, Nothing, "there is no pipeline in"),
        ("--json status", 2, Nothing, "{\"error\":{\"kind\":\"usage\""),
    ]);
    bare.git("init -q -b main");
    bare.check(&[("init", 2, Nothing, "git commit --allow-empty")]);
    bare.git("init -q --bare bare.git");
    bare.check(&[("-C bare.git init", 2, Nothing, "it is bare")]);

    let repository = Scratch::repository();
    repository.check(&[
        ("status", 2, Nothing, "set it up with `pipeline init`"),
        ("init --base nix", 2, Nothing, "there is no branch `nix`"),
        ("init --isolation container", 2, Nothing, "[possible values: none]"),
    ]);
    repository.git("branch pipeline");
    repository.check(&[("init", 4, Nothing, "git branch -m pipeline")]);
    repository.git("branch -m pipeline pipeline/landed");
    repository.check(&[("init", 3, Nothing, "`pipeline init --force` to move them to salvage")]);
    repository.git("checkout -q --detach");
    repository.check(&[("init --force", 4, Nothing, "--base BRANCH")]);
    write(&repository.work().join("pipeline.toml"), "foo = 1\n");
    repository.check(&[("init --force", 2, Nothing, "unknown key `foo`")]);
    write(&repository.work().join("pipeline.toml"), "[landing]\nstyle = \"squash\"\n");
    repository.check(&[("init --force", 2, Nothing, "not yet")]);
    assert!(!repository.work().join(".git/pipeline").exists(), "a refusal leaves nothing");
    fs::remove_file(repository.work().join("pipeline.toml")).expect("it is there");
    repository.check(&[("init --force --base main", 0, Nothing, "set up on branch `main`")]);
}

#[test]
fn a_refused_init_leaves_no_pipeline_behind() {
    let scratch = Scratch::repository();
    let dot = scratch.work().join(".pipeline");
    let state = scratch.work().join(".git/pipeline");
    let refused = |code: i32, said: &'static str| {
        scratch.check(&[("init --agents shell", code, Nothing, said)]);
        assert!(!state.exists(), "{said}");
    };
    write(&dot, "x\n");
    refused(4, "/.pipeline` is in the way");
    scratch.check(&[("init --isolation none", 4, Nothing, "/.pipeline` is in the way")]);
    fs::remove_file(&dot).expect("it is there");
    std::os::unix::fs::symlink("nowhere", &dot).expect("a link");
    refused(4, "/.pipeline` is in the way");
    fs::remove_file(&dot).expect("it is there");
    fs::create_dir_all(dot.join("state")).expect("a folder");
    refused(4, "/.pipeline/state` is in the way");
    fs::remove_dir_all(&dot).expect("it is there");
    let exclude = scratch.work().join(".git/info/exclude");
    let text = fs::read(&exclude).unwrap_or_default();
    fs::create_dir_all(exclude.parent().expect("a folder")).expect("a folder");
    fs::write(&exclude, b"\xff\n").expect("a file");
    refused(1, "cannot read `");
    fs::write(&exclude, text).expect("a file");
    let config = scratch.work().join("pipeline.toml");
    assert!(!config.exists());
    fs::create_dir(&config).expect("a folder");
    refused(2, "/pipeline.toml`\n");
    refused(2, "hint: move it away to have new settings written");
    fs::remove_dir(&config).expect("it is there");
    scratch.check(&[("init --agents shell", 0, Nothing, "set up on branch `main`")]);
    for name in ["attempts", "logs", "tasks"] {
        assert!(state.join(name).is_dir(), "{name}");
    }
}

#[test]
fn init_over_a_journal_that_cannot_be_read_says_so() {
    let scratch = Scratch::project();
    let whole = fs::read_to_string(scratch.journal()).expect("a journal");
    assert!(whole.starts_with("{\"v\":1"), "{whole}");
    write(&scratch.journal(), &whole.replacen("{\"v\":1", "{\"v\":2", 1));
    scratch.check(&[
        ("status", 4, Nothing, "newer"),
        ("init", 4, Nothing, "newer"),
        ("init --force", 4, Nothing, "newer"),
    ]);
    write(&scratch.journal(), &whole.replacen("checkpoint", "checkpaint", 1));
    scratch.check(&[
        ("status", 3, Nothing, "pipeline doctor"),
        ("init", 3, Nothing, "pipeline doctor"),
        ("init --force", 3, Nothing, "pipeline doctor"),
    ]);
    write(&scratch.journal(), &whole);
    scratch.check(&[("init", 0, Nothing, "already set up; nothing was changed")]);
}

#[test]
fn a_help_that_cannot_be_written_is_an_error() {
    let scratch = Scratch::new();
    for line in ["--help", "--version", "task add --help"] {
        let full = fs::File::options().write(true).open("/dev/full").expect("a device");
        let mut command = scratch.command(env!("CARGO_BIN_EXE_pipeline"));
        let done = command.args(line.split(' ')).stdout(full).output().expect("it runs");
        assert_eq!(done.status.code(), Some(1), "{line}");
        let said = text(&done.stderr);
        assert!(said.starts_with("error: cannot write to standard output\n"), "{line}: {said}");
    }
}

#[test]
fn init_keeps_what_is_there() {
    let scratch = Scratch::repository();
    write(&scratch.work().join("pipeline.toml"), "[project]\nbase = \"main\"\n");
    scratch.check(&[
        ("init --agents shell", 0, Nothing, "`--agents` was not used"),
        ("init", 0, Nothing, "already set up; nothing was changed"),
        ("monitor --until-idle", 2, Nothing, "there are no agents"),
    ]);
    fs::remove_file(scratch.work().join("pipeline.toml")).expect("it is there");
    scratch.check(&[
        ("init --agents shell", 0, Nothing, "the state stays as it is"),
        ("task add x", 0, Is("TASK-001\n"), ""),
        ("-q monitor --until-idle", 0, Nothing, "`landing.checks` is empty"),
        ("status", 0, Has("1 of 1 landed ("), ""),
    ]);
    scratch.wait_for_keepers(".git/pipeline");
    fs::create_dir(scratch.work().join("below")).expect("a folder");
    scratch.git("worktree add -q ../linked");
    scratch.check(&[
        ("-C below task list", 0, Has("TASK-001  completed"), ""),
        ("-C ../linked task list", 0, Has("TASK-001  completed"), ""),
        ("-C ../linked init", 0, Nothing, "already set up"),
        ("-C nowhere status", 2, Nothing, "is no folder"),
    ]);
    fs::remove_dir_all(scratch.work().join(".git/pipeline/journal")).expect("it is there");
    scratch.check(&[
        ("status", 3, Nothing, "start anew with `pipeline init --force`"),
        ("init", 3, Nothing, "to move it aside"),
        ("init --force", 0, Nothing, "pipeline-lost-1"),
        ("status", 0, Has("no tasks yet"), ""),
    ]);
    assert!(scratch.work().join(".git/pipeline-lost-1/state.json").is_file());
}

#[test]
fn without_git_a_folder_will_do() {
    let scratch = Scratch::new();
    scratch.check(&[
        ("init --isolation none --agents shell", 0, Nothing, "without git"),
        ("task add x", 0, Is("TASK-001\n"), ""),
        ("monitor --until-idle", 0, Has("at most 12 attempts"), ""),
        ("status", 0, Has("1 of 1 completed"), ""),
        ("task diff TASK-001", 2, Nothing, "without git there is no diff"),
    ]);
    scratch.wait_for_keepers(".pipeline/state");
}

#[test]
fn adding_tasks_prints_the_id_alone() {
    let scratch = Scratch::project();
    let long = ["a"; 65].concat();
    let too_long = scratch.run(&format!("task add x --id {long}"));
    assert_eq!(too_long.status.code(), Some(2));
    scratch.check(&[
        ("task list", 0, Nothing, "no tasks yet"),
        ("task add one", 0, Is("TASK-001\n"), ""),
        ("--json task add two --depends-on TASK-001", 0, Is("{\"id\":\"TASK-002\"}\n"), ""),
        ("task add", 2, Nothing, "<TITLE>"),
        ("task add ''", 2, Nothing, "has no title"),
        ("task add x --id TASK-001", 2, Nothing, "task `TASK-001` exists"),
        ("task add x --id task-001", 2, Nothing, "in case only"),
        ("task add x --id a..b", 2, Nothing, "must not hold `..`"),
        ("task add x --id ../x", 2, Nothing, "must begin with a letter or a digit"),
        ("task add x --depends-on NOPE", 2, Nothing, "unknown `NOPE`"),
        ("task add x --priority urgent", 2, Nothing, "`critical`"),
        ("task add x --stages nope", 2, Nothing, "the stages are architect"),
        ("task add x --parent TASK-001", 2, Nothing, "is not an epic"),
        ("task add x --parent E", 2, Nothing, "--kind epic --id E"),
        ("task add x --complexity hard", 2, Nothing, "`complex`"),
        ("task add x --estimate soon", 2, Nothing, "expected a duration"),
        ("task add x --resource cpu", 2, Nothing, "NAME=AMOUNT"),
        ("task add x --resource a=1 --resource a=2", 2, Nothing, "given twice"),
        ("task add x --touches ../y", 2, Nothing, "leaves the project"),
        ("task add x --body-file none", 2, Nothing, "cannot read body file"),
        ("task add x --body a --body-file b", 2, Nothing, "cannot be used with"),
        ("task add x --needs gpu", 0, Is("TASK-003\n"), "has `gpu`"),
        ("task add x --id E --kind epic", 0, Is("E\n"), ""),
        ("task add x --parent E --hold --stages impl", 0, Is("TASK-004\n"), ""),
        ("task list --status foo", 2, Nothing, "`foo` is no status"),
        ("task list --stage foo", 2, Nothing, "`foo` is no stage"),
        ("task list --status blocked", 0, Nothing, "no task fits"),
        ("task show NO", 2, Nothing, "see `pipeline task list`"),
        ("--json task show NO", 2, Nothing, "\"kind\":\"invalid\""),
    ]);
    let list = scratch.json("task list --json");
    assert_eq!(list["tasks"].as_array().map(Vec::len), Some(5));
    assert_eq!(list["tasks"][1]["depends_on"][0], "TASK-001");
    assert_eq!(scratch.json("status --json")["counts"]["total"], 4, "epics are not counted");
}

#[test]
fn tasks_are_steered_and_mistakes_refused() {
    let scratch = Scratch::project();
    for id in ["A", "B", "C"] {
        scratch.run(&format!("task add {id} --id {id}"));
    }
    scratch.check(&[
        ("task edit A --title new --depends-on B", 0, Nothing, ""),
        ("task edit B --depends-on A", 2, Nothing, "B -> A -> B"),
        ("task edit A", 2, Nothing, "set EDITOR"),
        ("task edit A --add-depends-on Z", 2, Nothing, "unknown `Z`"),
        ("task edit A --remove-depends-on C", 2, Nothing, "does not depend on `C`"),
        ("task edit A --estimate 5m --resource cpu=2 --command x --hold", 0, Nothing, ""),
        ("task show A", 0, Has("estimate    5 min 0 s\nresources   cpu=2\ncommand     x\n"), ""),
        ("task edit A --estimate '' --resource '' --command '' --hold=false", 0, Nothing, ""),
        ("task hold A C", 0, Nothing, "changed: A, C"),
        ("task hold A", 0, Nothing, "nothing changed"),
        ("task hold A NO", 2, Nothing, "there is no task `NO`"),
        ("task release A C", 0, Nothing, "changed: A, C"),
        ("task retry", 2, Nothing, "<ID>"),
        ("task retry --blocked", 0, Nothing, "no task is blocked"),
        ("task approve A", 2, Nothing, "does not wait for approval"),
        ("task cancel B", 4, Nothing, "--dependents cancel|release"),
        ("task cancel B --dependents release", 0, Nothing, "changed: A, B"),
        ("task retry B", 2, Nothing, "is cancelled"),
        ("task log A", 0, Nothing, "has had no attempt yet"),
        ("task log A --attempt 3", 2, Nothing, "has no such attempt"),
        ("task diff A", 0, Nothing, "has no work yet"),
        ("--json task diff A", 0, Is("{\"diff\":\"\",\"id\":\"A\"}\n"), "has no work yet"),
    ]);
    let shown = scratch.json("task show A --json");
    assert_eq!(shown["estimate_s"], Value::Null);
    assert_eq!(shown["command"], Value::Null);
    assert_eq!(shown["resources"], serde_json::json!({}));
}

#[test]
fn retry_of_all_blocked_says_what_frees_those_that_it_does_not() {
    let scratch = Scratch::project();
    let file = r#"[{"id":"A","title":"A","depends_on":["GONE"]},
                   {"id":"B","title":"B","depends_on":["A"]}]"#;
    write(&scratch.work().join("b.json"), file);
    scratch.check(&[
        ("-q task import b.json --on-missing block", 0, Has("imported 2 tasks"), ""),
        ("-q monitor --once", 0, Nothing, "`landing.checks` is empty"),
        ("task list --status blocked", 0, Has("A  blocked"), ""),
    ]);
    let done = scratch.run("task retry --blocked");
    assert_eq!(done.status.code(), Some(0));
    let said = text(&done.stderr);
    let lines: Vec<&str> = said.lines().collect();
    let [other, freed] = *lines else { panic!("{said}") };
    assert_eq!(other, "note: no blocked task can be retried: something else frees them");
    assert!(freed.starts_with("note: task `A` stays blocked: "), "{said}");
    assert!(freed.ends_with("; type: pipeline task edit A --remove-depends-on GONE"), "{said}");
}

#[test]
fn no_gate_stands_behind_the_last_rollout() {
    let scratch = Scratch::project();
    scratch.check(&[
        ("rollout show", 0, Is("production\n"), ""),
        ("rollout check", 0, Has("the last rollout: no gate stands before another\n"), ""),
        ("rollout demote", 0, Is("pilot\n"), ""),
        ("rollout check", 1, Has("not yet for production\n"), ""),
    ]);
}

#[test]
fn the_whole_is_steered_and_words_in_the_wrong_place_are_answered() {
    let scratch = Scratch::project();
    scratch.check(&[
        ("pause", 0, Nothing, ""),
        ("pause", 0, Nothing, "already paused"),
        ("status", 0, Has("paused: pipeline resume"), ""),
        ("resume", 0, Nothing, ""),
        ("stop", 0, Nothing, "no monitor runs"),
        ("stop --now", 0, Nothing, "no monitor runs"),
        ("stop --now --drain", 2, Nothing, "cannot be used with"),
        ("mode show", 0, Is("parallel\n"), ""),
        ("mode switch sequential", 0, Nothing, ""),
        ("mode show --json", 0, Has("\"orchestration_mode\":\"sequential\""), ""),
        ("mode switch hybrid", 0, Nothing, ""),
        ("mode switch fast", 2, Nothing, "the modes are sequential, parallel and hybrid"),
        ("mode switch pilot", 2, Nothing, "pipeline rollout set pilot"),
        ("mode shadow", 2, Nothing, "pipeline rollout set shadow"),
        ("mode switch parallel --wait x", 2, Nothing, "expected a duration"),
        ("rollout show", 0, Is("production\n"), ""),
        ("rollout set shadow", 0, Nothing, ""),
        ("rollout show --json", 0, Is("{\"mode\":\"shadow\"}\n"), ""),
        ("rollout set parallel", 2, Nothing, "pipeline mode switch parallel"),
        ("rollout promote", 1, Nothing, "completed is 0, at least 10 is needed"),
        ("rollout promote --drop-pilot --force", 2, Nothing, "no pilot to land or to drop"),
        ("rollout promote --land-pilot --drop-pilot", 2, Nothing, "cannot be used with"),
        ("rollout promote pilot", 2, Nothing, "unexpected argument"),
        ("rollout demote", 2, Nothing, "the rollout is shadow, the first one"),
        ("rollout check", 1, Has("completed          0  >= 10      does not hold"), ""),
        ("rollout check --json", 1, Has("\"passed\":false"), ""),
        ("rollout promote --force", 0, Is("pilot\n"), ""),
        ("rollout promote --force --json", 0, Is("{\"mode\":\"production\"}\n"), ""),
        ("rollout promote", 2, Nothing, "the rollout is production, the last one"),
        ("rollout demote", 0, Is("pilot\n"), ""),
        ("rollout set production", 0, Nothing, "gates that do not hold: completed is 0"),
        ("agent pause nobody", 2, Nothing, "see `pipeline agent list`"),
        ("agent pause test", 0, Nothing, ""),
        ("agent pause test", 0, Nothing, "is paused already"),
        ("agent list", 0, Has("test            paused"), ""),
        ("agent resume test", 0, Nothing, ""),
        ("agent logs test", 0, Nothing, "has not done anything yet"),
        ("agent logs nobody", 2, Nothing, "there is no agent"),
        ("status --fail-on blocked --fail-on unhealthy", 0, Has("no tasks yet"), ""),
        ("status --fail-on weather", 2, Nothing, "[possible values: blocked"),
        ("status --watch --watch", 2, Nothing, "cannot be used multiple times"),
        ("report", 0, Has("# Pipeline report\n\nFrom "), ""),
        ("report --json", 0, Has("\"landed\":[],\"range\":null"), ""),
        ("report --format pdf", 2, Nothing, "[possible values: md, html, json]"),
        ("report --since soon", 2, Nothing, "`yesterday`"),
        ("report -o no/folder/x.md", 1, Nothing, "give a file in a folder that exists"),
        ("log --task NO", 2, Nothing, "there is no task `NO`"),
        ("log --since 99", 2, Nothing, "`yesterday`"),
        ("done", 2, Nothing, "there is no task file in"),
        ("block why", 2, Nothing, "there is no task file in"),
        ("request-changes", 2, Nothing, "<WHAT>"),
        ("plan", 0, Is("there are no tasks yet: pipeline task add\n"), ""),
        ("plan --workers 0", 2, Nothing, "not in 1..=1000"),
        ("graph README", 2, Nothing, "README`: it is no JSON"),
        ("graph none", 2, Nothing, "cannot read"),
        ("doctor", 0, Has("ok       journal: whole"), ""),
        ("completions bash", 0, Has("_pipeline()"), ""),
        ("completions dos", 2, Nothing, "[possible values: bash"),
        ("stauts", 2, Nothing, "'status'"),
        ("--json stauts", 2, Nothing, "{\"error\":{\"kind\":\"usage\""),
        ("--json", 2, Nothing, "no command given"),
        ("-q -v status", 2, Nothing, "cannot be used with"),
        ("--color pink status", 2, Nothing, "[possible values: auto"),
        ("--lock-timeout x status", 2, Nothing, "expected a duration"),
        ("--version", 0, Is(concat!("pipeline ", env!("CARGO_PKG_VERSION"), "\n")), ""),
    ]);
}

#[test]
fn help_fits_a_terminal_and_lists_what_is_built() {
    let scratch = Scratch::new();
    let mut todo = vec![String::new()];
    let mut seen = 0;
    while let Some(path) = todo.pop() {
        let help = text(&scratch.run(&format!("{path} -h")).stdout);
        assert!(help.lines().all(|line| line.chars().count() <= 80), "{help}");
        assert!(!help.contains("__keeper") && !help.contains("ot built"), "{help}");
        for (command, words) in [
            (" init", "[possible values: process, tmux]"),
            (" mode", "sequential, parallel and hybrid"),
            (" mode switch", "sequential, parallel or hybrid"),
        ] {
            let told = help.split_whitespace().collect::<Vec<_>>().join(" ");
            assert!(path != command || told.contains(words), "{help}");
        }
        let (_, commands) = help.split_once("Commands:\n").unwrap_or_default();
        let names = commands.lines().take_while(|line| !line.is_empty());
        // Further lines of a description are indented deeper.
        let names = names.filter(|line| line.starts_with("  ") && !line.starts_with("   "));
        let names = names.filter_map(|line| line.split_whitespace().next());
        todo.extend(names.filter(|name| *name != "help").map(|name| format!("{path} {name}")));
        seen += 1;
    }
    assert!(seen > 30, "{seen} commands");
}

#[test]
fn backlogs_are_imported_whole_or_not_at_all() {
    let scratch = Scratch::project();
    let file = scratch.work().join("b.json");
    let dangling = r#"{"tasks":[{"id":"A","title":"a","depends_on":["X"]},
        {"id":"B","title":"b","dependencies":["Y","A"],"status":"done","zzz":1}]}"#;
    write(&file, dangling);
    scratch.check(&[
        ("task import b.json --all", 2, Nothing, "`A` depends on unknown `X`; `B` depends on"),
        ("task list", 0, Nothing, "no tasks yet"),
        ("graph b.json", 1, Has("unknown: `A` depends on `X`"), ""),
        ("graph b.json --dot", 1, Has("  \"A\" -> \"B\";\n  \"unknown: X\" -> \"A\""), ""),
        ("graph b.json --mermaid", 1, Has("  t0 --> t1\n  u0 -.-> t0\n"), ""),
        ("graph b.json --mermaid --dot", 2, Nothing, "cannot be used with"),
        ("graph b.json --json --dot", 2, Nothing, "cannot be used with"),
        ("task import b.json --format beads", 2, Nothing, "not yet"),
        ("task import none.json", 2, Nothing, "cannot read"),
        ("task import README", 2, Nothing, "README`: it is no JSON"),
        ("task import b.json -n --on-missing ignore", 0, Has("would import 1 task"), "ignored"),
        ("task import b.json --all --on-missing ignore", 0, Has("imported 2 tasks"), "ignored"),
        ("plan", 0, Has("2 tasks in 8 attempts by 4 agents: 1 h 20 min, until "), ""),
        ("plan", 0, Has("critical path, 1 h 20 min\n  A > B\n"), ""),
        ("plan --workers 2", 0, Has("worker-1  4         40 min 0 s  50 %"), ""),
        ("plan --json", 0, Has("\"makespan_s\":4800.0,\"lower_bound_s\":4800.0"), ""),
        ("-q task import b.json --on-missing ignore", 2, Nothing, "exists"),
    ]);
    write(
        &file,
        r#"[{"id":"C","title":"c","depends_on":["D"]},
        {"id":"D","title":"d","depends_on":["C"]}]"#,
    );
    scratch.check(&[
        ("task import b.json", 2, Nothing, "C -> D -> C"),
        ("graph b.json --json", 1, Has("\"cycles\":[[\"C\",\"D\",\"C\"]]"), ""),
    ]);
}

#[test]
fn a_run_that_needs_a_person_names_what_is_left() {
    let scratch = Scratch::project();
    scratch.run("task add A --id A");
    scratch.run("task add B --id B --hold --depends-on A");
    scratch.run("task add C --id C --needs gpu");
    scratch.check(&[
        ("monitor --until-idle", 1, Has("A landed as"), "`B` waits for hold: held by a person"),
        ("monitor --until-idle", 1, Has("2 open tasks, parallel"), "has `gpu`"),
        ("monitor --until-idle --log-format json", 1, Has("{\"seq\":"), "{\"error\":{"),
        ("status", 0, Has("1 of 3 landed, 2 wait\n"), ""),
        ("task log A --stage arch --attempt 1", 0, Nothing, "attempt A.arch.1"),
        ("log --task A", 0, Has("A landed as"), ""),
        ("monitor --timeout 1s", 2, Nothing, "--until-idle"),
    ]);
    let status = scratch.json("status --json");
    assert_eq!(status["waiting"][0]["id"], "B");
    assert_eq!(status["waiting"][0]["on"], "hold");
    assert_eq!(status["landing"]["behind"], 0);
    let done = scratch.run("--json log");
    for line in text(&done.stdout).lines() {
        let entry: Value = serde_json::from_str(line).expect("an object a line");
        assert!(entry["seq"].is_u64() && entry["kind"].is_string(), "{line}");
    }
    scratch.wait_for_keepers(".git/pipeline");
}

#[test]
fn a_reader_that_goes_away_is_no_error() {
    let scratch = Scratch::project();
    scratch.run("task add A");
    for line in ["log", "--json log", "task list", "status", "completions zsh", "doctor"] {
        let mut command = scratch.command(env!("CARGO_BIN_EXE_pipeline"));
        command.args(line.split(' ')).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().expect("the program runs");
        drop(child.stdout.take());
        let mut told = String::new();
        let mut stderr = child.stderr.take().expect("it is piped");
        stderr.read_to_string(&mut told).expect("text");
        assert_eq!(child.wait().expect("it ends").code(), Some(0), "{line}: {told}");
        assert_eq!(told, "", "{line}");
    }
}

#[test]
fn a_damaged_or_newer_journal_is_refused_and_left_alone() {
    const LINES: [&str; 9] = [
        "status",
        "task list",
        "task add x",
        "pause",
        "log",
        "graph",
        "agent list",
        "mode show",
        "monitor --once",
    ];
    let check = |spoil: &dyn Fn(Vec<u8>) -> Vec<u8>, code: i32, word: &str| {
        let scratch = Scratch::project();
        scratch.run("task add A");
        let bytes = spoil(fs::read(scratch.journal()).expect("a journal"));
        fs::write(scratch.journal(), &bytes).expect("a journal");
        for line in LINES.iter().chain(&["doctor"]) {
            let done = scratch.run(line);
            let told = text(&done.stderr) + &text(&done.stdout);
            assert_eq!(done.status.code(), Some(code), "{line}: {told}");
            assert!(told.contains(word) && told.contains("ndjson"), "{line}: {told}");
        }
        let error = text(&scratch.run("--json status").stderr);
        let error: Value = serde_json::from_str(&error).expect("an error object");
        let path = error["error"]["path"].as_str().unwrap_or_default();
        assert!(path.ends_with(".ndjson"), "{error}");
        assert_eq!(fs::read(scratch.journal()).expect("a journal"), bytes, "{word}");
    };
    let flip = |mut bytes: Vec<u8>| {
        let half = bytes.len() / 2;
        bytes[half] ^= 1;
        bytes
    };
    check(&flip, 3, "damaged");
    let cut = |mut bytes: Vec<u8>| {
        bytes.truncate(bytes.len() - 10);
        bytes
    };
    check(&cut, 3, "was acknowledged");
    let newer = |bytes: Vec<u8>| text(&bytes).replace("\"v\":1", "\"v\":99").into_bytes();
    check(&newer, 4, "newer build");
}

#[test]
fn nothing_of_the_environment_is_needed_but_git() {
    let scratch = Scratch::project();
    for line in ["status", "task add x", "monitor --once --poll-only", "stop --now"] {
        let mut command = scratch.command(env!("CARGO_BIN_EXE_pipeline"));
        command.env_remove("HOME").args(line.split(' '));
        let done = command.output().expect("the program runs");
        assert_eq!(done.status.code(), Some(0), "{line}: {}", text(&done.stderr));
    }
    scratch.wait_for_keepers(".git/pipeline");
}

#[test]
fn settings_that_nobody_has_taken_up_are_told_where_things_are_shown_by_the_old_ones() {
    let scratch = Scratch::project();
    let config = scratch.work().join("pipeline.toml");
    let told = |why: &str| {
        for line in ["plan", "agent list", "status"] {
            let done = scratch.run(line);
            assert_eq!(done.status.code(), Some(0), "{line}");
            let said = text(&done.stderr);
            assert_eq!(said.is_empty(), why.is_empty(), "{line}: {said}");
            assert!(said.contains(why), "{line}: {said}");
        }
    };
    told("");
    let agent = "[[agent]]\nname = \"w\"\nstages = [\"architect\"]\ncommand = \"task\"\n";
    write(&config, &format!("[project]\nbase = \"main\"\n{agent}"));
    told("has changed");
    write(&config, "[[[");
    told("is broken, the old settings count");
}

#[test]
fn another_writer_is_waited_for_no_longer_than_said() {
    let scratch = Scratch::project();
    let lock = fs::File::open(scratch.work().join(".git/pipeline/lock")).expect("a lock file");
    fs2::FileExt::lock_exclusive(&lock).expect("the lock is free");
    scratch.check(&[
        ("task add x --lock-timeout 50ms", 4, Nothing, "within 50 ms"),
        ("status", 0, Has("no tasks yet"), ""),
    ]);
}

#[test]
fn what_is_stopped_is_not_started_again() {
    let scratch = Scratch::repository();
    let agents = "[[agent]]\nname = \"w\"\nstages = [\"architect\"]\ncommand = \"task\"\n";
    write(&scratch.work().join("pipeline.toml"), &format!("[project]\nbase = \"main\"\n{agents}"));
    scratch.check(&[("-q init", 0, Nothing, "")]);
    let mut add = scratch.command(env!("CARGO_BIN_EXE_pipeline"));
    // It reads a pipe that nobody writes to: it ends only when it is ended.
    add.args(["task", "add", "x", "--command", "mkfifo never && cat never"]);
    assert!(add.output().expect("the program runs").status.success());
    scratch.check(&[("monitor --detach", 0, Nothing, "the monitor runs as process")]);
    let begun = monotonic();
    while scratch.json("status --json")["counts"]["wip"] != 1 {
        assert!(begun.elapsed() < LIMIT, "{}", text(&scratch.run("log").stdout));
    }
    scratch.check(&[
        ("mode switch sequential", 4, Nothing, "agent `w` is working on `TASK-001`"),
        ("mode switch sequential --wait 50ms", 4, Nothing, "in the time given"),
        ("monitor --once", 4, Nothing, "`pipeline stop` ends it"),
        ("stop --now", 0, Nothing, ""),
    ]);
    let status = scratch.json("status --json");
    assert_eq!((&status["counts"]["wip"], &status["counts"]["ready"]), (&0.into(), &1.into()));
    assert_eq!(status["monitor"]["running"], false);
    scratch.wait_for_keepers(".git/pipeline");
}

#[test]
fn a_lock_that_a_killed_git_left_on_all_refs_is_told() {
    let scratch = Scratch::project();
    let lock = fs::File::create(scratch.work().join(".git/packed-refs.lock")).expect("a file");
    let made = lock.metadata().and_then(|meta| meta.modified()).expect("it has a time");
    lock.set_modified(made + std::time::Duration::from_secs(3600)).expect("a file of ours");
    let is_told =
        || text(&scratch.run("doctor").stdout).contains("when no git runs here, type: rm -f /");
    assert!(!is_told(), "a git may be at work");
    lock.set_modified(made - std::time::Duration::from_secs(60)).expect("a file of ours");
    assert!(is_told());
}
