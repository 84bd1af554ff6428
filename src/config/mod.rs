//! `pipeline.toml`: read, checked, every default filled in; and the file that `init` writes.
//!
//! Turns text into [`Settings`] and knows nothing of who uses them. Nothing of the file is trusted:
//! unknown keys and values are refused, each with its place and the nearest known word, all of them
//! together.

pub mod detect;
pub mod file;
pub mod layout;
pub mod preset;
pub mod problem;
pub mod prompt_file;
pub mod reader;
pub mod template;
pub mod validate;
pub mod value;

use std::path::Path;

use toml::de::{DeTable, DeValue};
use xxhash_rust::xxh3::xxh3_64;

use crate::machine::settings::Settings;

pub use problem::{ConfigError, Problem, Wrong};

use reader::{Report, Section};
use value::Fit;

/// Settings that may be adopted.
#[derive(Debug, Clone, PartialEq)]
pub struct Loaded {
    /// Every default filled in, stage names long.
    pub settings: Settings,
    /// What is allowed but probably not meant, one sentence each; may be empty.
    pub warnings: Vec<String>,
}

/// Reads the text of a `pipeline.toml`.
///
/// # Errors
/// [`ConfigError::Newer`] or [`ConfigError::Older`] when `requires` does not fit this program, in
/// which case nothing else is looked at; else [`ConfigError::Invalid`] with every problem found.
pub fn load(text: &str) -> Result<Loaded, ConfigError> {
    load_as(text, VERSION, None)
}

/// Reads the text of the `pipeline.toml` of the project at `root`, and looks at the files it names.
///
/// # Errors
/// As [`load`]; and when a file that is named is of no use.
pub fn load_in(root: &Path, text: &str) -> Result<Loaded, ConfigError> {
    load_as(text, VERSION, Some(root))
}

const VERSION: &str = env!("CARGO_PKG_VERSION");

/// Looks at nothing but `requires`; what else may be wrong with the text is not told.
///
/// # Errors
/// [`ConfigError::Newer`] or [`ConfigError::Older`].
pub fn check_version(text: &str) -> Result<(), ConfigError> {
    let (document, _) = DeTable::parse_recoverable(text);
    check_requires(document.get_ref(), VERSION, &Report::new(text))
}

fn load_as(text: &str, running: &'static str, root: Option<&Path>) -> Result<Loaded, ConfigError> {
    let report = Report::new(text);
    let (document, errors) = DeTable::parse_recoverable(text);
    let table = document.get_ref();
    check_requires(table, running, &report)?;
    for error in &errors {
        let at = error.span().map_or(0, |span| span.start);
        report.add(at, Wrong::Syntax { message: error.message().trim_end().to_owned() });
    }
    let mut warnings = Vec::new();
    let mut settings = None;
    if errors.is_empty() {
        let hash = format!("{:016x}", xxh3_64(text.as_bytes()));
        let mut read = file::read(&mut Section::root(&report, table), hash);
        warnings = validate::check(&mut read, root);
        if let Some(root) = root.filter(|_| report.problems().is_empty()) {
            validate::check_files(&read, root);
        }
        settings = Some(read.settings);
    }
    match settings.filter(|_| report.problems().is_empty()) {
        Some(settings) => Ok(Loaded { settings, warnings }),
        None => Err(ConfigError::Invalid { problems: report.problems() }),
    }
}

/// Compares `requires` with the version `running`.
fn check_requires(
    table: &DeTable<'_>,
    running: &'static str,
    report: &Report<'_>,
) -> Result<(), ConfigError> {
    let Some((_, value)) = table.iter().find(|(key, _)| key.get_ref() == "requires") else {
        return Ok(());
    };
    let key = "requires".to_owned();
    let DeValue::String(required) = value.get_ref() else {
        let found = value.get_ref().type_str();
        report.add(value.span().start, Wrong::Type { key, expected: "a string", found });
        return Ok(());
    };
    let version = value::version(running).expect("the crate's version has three numbers");
    let required = required.to_string();
    match value::fit(&required, version) {
        Some(Fit::Fits) => Ok(()),
        Some(Fit::TooOld) => Err(ConfigError::Newer { required, running }),
        Some(Fit::TooNew) => Err(ConfigError::Older { required, running }),
        None => {
            let expected = "conditions on a version such as `>=0.1`".to_owned();
            report.add(value.span().start, Wrong::Value { key, value: required, expected });
            Ok(())
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{ConfigError, load, load_as, load_in};
    use crate::machine::mode::{Isolation, Orchestration, Rollout};
    use crate::machine::settings::{
        AgentCommand, Completion, LauncherKind, OnExit, Settings, Slice,
    };

    /// Every key that is documented, at its default.
    const DEFAULTS: &str = r#"
requires = ">=0.1"

[project]
base = "main"
orchestration_mode = "parallel"
rollout = "production"
isolation = "worktree"
current_task_file = ".pipeline/current-task.txt"

[monitor]
poll = { busy = "15s", normal = "30s", idle = "60s" }

[worktree]
dir = ".pipeline/worktrees"
setup = []
copy = []
keep = []
keep_finished = "7d"

[limits]
attempts_per_stage = 3
infrastructure_retries = 5
attempts_per_task = 12
send_backs = 2
attempts_per_run = 0
log_bytes = "16MiB"
cost_usd = 0
cost_usd_per_task = 0

[retry]
backoff = { first = "5s", factor = 2.0, max = "5m", jitter = 0.1 }

[[stage]]
name = "architect"
[[stage]]
name = "test"
[[stage]]
name = "implementation"
short = "impl"
must_change = true
checks = []
timeout = "auto"
timeout_min = "30m"
timeout_max = "2h"
silence = "10m"
labels = []
returns_to = ""
resources = {}
estimate = "10m"
[[stage]]
name = "supervisor"

[scheduler]
policy = "critical-path"
prefetch = 2.0
affinity = true
resources = {}
load_limit = 0
escalate_after = 2
command = []

[landing]
branch = "pipeline/landed"
strategy = "verified"
checks = []
checks_timeout = "30m"
protect = ["pipeline.toml", ".github/**"]
style = "merge"

[rollout]
pilot = { percent = 100 }
gate = { completed = 10, success_rate = 0.9, reverts = 0, agreement = 0.8 }
fallback = { window = 20, failure_rate = 0.5, revert_rate = 0.2, cooldown = "1h" }

[notify]
command = []
"#;

    const AGENT: &str = r#"
[[agent]]
name = "worker"
stages = ["arch", "test", "implementation", "super"]
command = "true"
"#;

    fn settings(text: &str) -> Settings {
        load(text).unwrap_or_else(|error| panic!("{error}\n{text}")).settings
    }

    /// The text is refused with messages that hold each of `parts`, one problem for each.
    fn refused(text: &str, parts: &[&str]) {
        let Err(ConfigError::Invalid { problems }) = load(text) else {
            panic!("not refused: {text}")
        };
        let messages: Vec<String> = problems.iter().map(ToString::to_string).collect();
        assert_eq!(messages.len(), parts.len(), "{text}\n{messages:#?}");
        for (message, part) in messages.iter().zip(parts) {
            assert!(message.contains(part), "`{part}` is not in `{message}`");
        }
    }

    #[test]
    fn every_documented_default_is_the_default() {
        let mut empty = settings("");
        let defaults = settings(DEFAULTS);
        assert_ne!(empty.hash, defaults.hash);
        empty.hash.clone_from(&defaults.hash);
        assert_eq!(empty, defaults);
        let must_change: Vec<bool> = empty.stages.iter().map(|stage| stage.must_change).collect();
        assert_eq!(must_change, [false, true, true, false]);
        let shorts: Vec<&str> = empty.stages.iter().map(|stage| &*stage.short).collect();
        assert_eq!(shorts, ["arch", "test", "impl", "super"]);
        assert_eq!(empty.monitor.launch_rate, None);
        assert_eq!(empty.monitor.on_exit, None);
    }

    #[test]
    fn a_notified_program_is_a_list_of_words() {
        let told = settings("[notify]\ncommand = [\"tools/tell\", \"\"]");
        assert_eq!(told.notify, ["tools/tell", ""]);
        refused("[notify]\ncommand = [\" \"]", &["a program with arguments"]);
        refused("[notify]\ncommand = \"mail me\"", &["a list of strings"]);
    }

    #[test]
    fn an_agent_has_the_defaults_of_a_command() {
        let bare = settings(AGENT);
        let full = r#"
count = 1
launcher = "process"
completion = "exit"
env = {}
env_allow = ["*"]
capabilities = []
tier = 1
complexity = []
sandbox = "none"
"#;
        assert_eq!(bare.agents, settings(&format!("{AGENT}{full}")).agents);
        let agent = &bare.agents[0];
        assert_eq!(agent.stages, ["architect", "test", "implementation", "supervisor"]);
        assert_eq!(agent.completion, Completion::Exit);
        assert_eq!(agent.env_allow, ["*"]);
        assert_eq!(agent.command, AgentCommand::Shell("true".into()));
    }

    #[test]
    fn an_agent_of_a_preset_has_the_defaults_of_a_preset() {
        let agent = |rest: &str| format!("[[agent]]\nname = \"a\"\nstages = [\"arch\"]\n{rest}\n");
        let bare = settings(&agent("preset = \"claude\"\nmodel = \"large\""));
        let group = &bare.agents[0];
        let preset = |is_env_own| AgentCommand::Preset {
            name: "claude".into(),
            model: "large".into(),
            is_env_own,
        };
        assert_eq!((&group.command, group.completion), (&preset(false), Completion::Marker));
        assert!(group.env_allow.contains(&"HOME".to_owned()) && group.env_allow.len() == 8);
        assert_eq!(bare.landing.protect.last().expect("added"), "agents/presets/**");
        let own = agent("preset = \"claude\"\nmodel = \"large\"\nenv_allow = [\"PATH\"]");
        assert_eq!(settings(&own).agents[0].command, preset(true));
        for (rest, part) in [
            ("", "`agent.preset` is missing"),
            ("model = \"x\"\ncommand = \"true\"", "left out without a `preset`"),
            ("preset = \"claude\"\ncommand = \"true\"", "left out beside `preset`"),
            (
                "preset = \"cluade\"",
                "unknown value `cluade` of `agent.preset`, did you mean `claude`",
            ),
            ("preset = \"../x\"", "unknown value `../x`"),
            ("preset = \"person\"\nlauncher = \"process\"", "for a person, who works in a window"),
        ] {
            refused(&agent(rest), &[part]);
        }
    }

    #[test]
    fn a_preset_of_the_project_is_known_there_alone() {
        let text = "[[agent]]\nname = \"a\"\nstages = [\"arch\"]\npreset = \"mine\"\n";
        let dir = tempfile::tempdir().expect("a folder");
        let presets = dir.path().join(super::preset::DIR);
        std::fs::create_dir_all(&presets).expect("made");
        std::fs::write(presets.join("mine.toml"), "about = \"x\"").expect("written");
        assert!(super::load_in(dir.path(), text).is_ok());
        refused(text, &["unknown value `mine`"]);
    }

    #[test]
    fn every_built_key_takes_another_value() {
        let text = r#"
[project]
base = "trunk"
orchestration_mode = "sequential"
rollout = "shadow"
isolation = "none"
current_task_file = "./current//task.txt"
[monitor]
poll = { busy = "1s" }
on_exit = "kill"
launch_rate = 0
[limits]
log_bytes = 1_048_576
[[stage]]
name = "build"
short = "b"
timeout = "90s"
prompt = "prompts/[b].md"
[[stage]]
name = "review"
returns_to = "b"
[[agent]]
name = "all"
stages = ["b", "build", "review"]
count = 3
command = ["sh", "-c", ""]
completion = "marker"
env = { A = "1" }
[[agent]]
name = "own"
stages = ["review"]
command = "task"
tier = 2
complexity = ["simple", "complex"]
[rollout]
pilot = { labels = ["pilot"] }
"#;
        let settings = settings(text);
        assert_eq!(settings.project.orchestration, Orchestration::Sequential);
        assert_eq!(settings.project.rollout, Rollout::Shadow);
        assert_eq!(settings.project.isolation, Isolation::None);
        assert_eq!(settings.project.current_task_file, "current/task.txt");
        assert_eq!(settings.monitor.poll_busy_ms, 1000);
        assert_eq!(settings.monitor.poll_idle_ms, 60_000);
        assert_eq!(settings.monitor.on_exit, Some(OnExit::Kill));
        assert_eq!(settings.monitor.launch_rate, Some(0));
        assert_eq!(settings.limits.log_bytes, 1 << 20);
        assert_eq!(settings.stages[0].timeout_ms, Some(90_000));
        assert_eq!(settings.stages[1].returns_to.as_deref(), Some("build"));
        assert_eq!(settings.agents[0].stages, ["build", "review"]);
        let argv = ["sh", "-c", ""].map(str::to_owned).to_vec();
        assert_eq!(settings.agents[0].command, AgentCommand::Argv(argv));
        assert_eq!(settings.agents[0].env["A"], "1");
        assert_eq!(settings.agents[1].command, AgentCommand::Task);
        assert_eq!(settings.agents[1].tier, 2);
        assert_eq!(settings.agents[1].complexity, ["simple", "complex"]);
        assert_eq!(settings.rollout.pilot, Slice::Labels(vec!["pilot".into()]));
        assert_eq!(settings.landing.protect.last().expect("added"), "prompts/[[]b[]].md");
    }

    #[test]
    fn money_is_read_in_millionths_and_never_rounded_to_no_limit() {
        let read = |text: &str| {
            let limits = settings(&format!("[limits]\ncost_usd = {text}")).limits;
            limits.cost_usd_micros
        };
        assert_eq!([read("0"), read("5"), read("0.05"), read("1e-9")], [0, 5_000_000, 50_000, 1]);
        let limits = settings("[limits]\ncost_usd_per_task = 1.25").limits;
        assert_eq!(limits.cost_usd_per_task_micros, 1_250_000);
        refused("[limits]\ncost_usd = -1", &["`limits.cost_usd` must be a number from 0 to"]);
        refused("[limits]\ncost_usd = \"5\"", &["`limits.cost_usd`"]);
    }

    #[test]
    fn what_is_not_built_is_refused_as_not_yet() {
        let table = [
            ("[landing]\nstrategy = \"optimistic\"", "optimistic"),
            ("[landing]\nstyle = \"squash\"", "squash"),
        ];
        for (text, part) in table {
            refused(text, &[part]);
            refused(text, &["is not yet built"]);
        }
        let agent = "[[agent]]\nname = \"a\"\nstages = [\"arch\"]\n";
        let sandbox = format!("{agent}command = \"x\"\nsandbox = \"bwrap\"");
        refused(&sandbox, &["is not yet built"]);
        let person = format!("{agent}command = \"person\"\nlauncher = \"process\"");
        refused(&person, &["for a person, who works in a window"]);
        for key in ["command", "preset"] {
            let person = settings(&format!("{agent}{key} = \"person\""));
            assert_eq!(person.agents[0].command, AgentCommand::Person);
            assert_eq!(person.agents[0].launcher, LauncherKind::Tmux);
            assert_eq!(person.agents[0].completion, Completion::Marker);
        }
    }

    #[test]
    fn all_problems_are_reported_with_their_places_in_order() {
        let text = "[projct]\n[project]\n  bsae = \"main\"\nrollout = \"pilto\"\n\
                    [limits]\nsend_backs = \"two\"\nlog_bytes = \"16MB\"\n";
        refused(
            text,
            &[
                "line 1, column 2: unknown key `projct`, did you mean `project`?",
                "line 3, column 3: unknown key `project.bsae`, did you mean `base`?",
                "line 4, column 11: unknown value `pilto` of `project.rollout`, did you mean `pilot`?",
                "line 6, column 14: `limits.send_backs` must be an integer, found string",
                "line 7, column 13: `limits.log_bytes` must be at least 4096 bytes",
            ],
        );
        refused("[notify]\nzzz = 1", &["unknown key `notify.zzz`, known are `command`"]);
        refused("[project\nbase = ", &["line 1, column 9: not TOML"]);
        refused(
            "[project]\nbase = \"a\"\nbase = \"b\"",
            &["line 3, column 1: not TOML: duplicate"],
        );
    }

    #[test]
    fn values_that_make_no_sense_are_refused() {
        let stages = "[[stage]]\nname = \"a\"\n[[stage]]\nname = \"b\"\n";
        let table = [
            ("[project]\nbase = \"a..b\"", "a branch name"),
            ("[project]\ncurrent_task_file = \"../x\"", "inside the project"),
            ("[worktree]\ndir = \"/tmp/x\"", "inside the project"),
            ("[worktree]\ndir = \".\"", "inside the project"),
            ("[worktree]\ndir = \".pipeline\"", "a folder of its own"),
            ("[worktree]\ndir = \".pipeline/state/x\"", "a folder of its own"),
            ("[worktree]\ncopy = [\"a/../../b\"]", "inside the project"),
            ("[worktree]\nkeep = [\".git/x\"]", "inside the project"),
            ("[worktree]\nsetup = [\" \"]", "blank"),
            ("[worktree]\nsetup = \"npm ci\"", "a list of strings, found string"),
            ("[monitor]\npoll = { busy = \"0s\" }", "at least 10ms"),
            ("[monitor]\npoll = \"1s\"", "must be a table"),
            ("[retry]\nbackoff = { factor = 0.5 }", "from 1 to 1000"),
            ("[retry]\nbackoff = { jitter = nan }", "from 0 to 1"),
            ("[limits]\nattempts_per_stage = 0", "from 1 to"),
            ("[limits]\nsend_backs = -99999999999999999999", "from 0 to"),
            ("[landing]\nbranch = \"main\"", "another branch"),
            ("[landing]\nbranch = \"pipeline/task/x\"", "a branch name"),
            ("[landing]\nprotect = [\"a[\"]", "path patterns"),
            ("[rollout]\npilot = { percent = 101 }", "from 0 to 100"),
            ("[rollout]\ngate = { success_rate = 90 }", "from 0 to 1"),
            ("[rollout]\ngate = { completed = -1 }", "from 0 to"),
            ("[rollout]\nfallback = { window = 0 }", "from 1 to 1000"),
            ("[rollout]\nfallback = { failure_rate = \"half\" }", "a number"),
            ("[rollout]\npilot = { percent = 1, tasks = [\"T\"] }", "one of"),
            ("[rollout]\npilot = { tasks = [\"a..b\"] }", "task ids"),
            ("[[stage]]\nname = \"landing\"\nshort = \"l\"", "none of"),
            ("[[stage]]\nname = \"a\"\nshort = \"check\"", "none of"),
            ("[[stage]]\nname = \"a\"\nshort = \"x.y\"", "without `.`"),
            ("[[stage]]\nname = \"-a\"\nshort = \"a\"", "letters, digits"),
            ("[[stage]]\nname = \"\"\nshort = \"a\"", "letters, digits"),
            ("[[stage]]\nshort = \"a\"", "`stage.name` is missing"),
            ("[[stage]]\nname = \"a\"\n[[stage]]\nname = \"b\"\nshort = \"A\"", "no other stage"),
            ("[[stage]]\nname = \"a\"\nreturns_to = \"a\"", "an earlier stage"),
            ("[[stage]]\nname = \"a\"\ntimeout_min = \"3h\"", "at most `timeout_max`"),
            ("[[stage]]\nname = \"a\"\ntimeout = \"soon\"", "a duration"),
            ("[[stage]]\nname = \"a\"\nprompt = \"/etc/x\"", "inside the project"),
            ("[stage]\nname = \"a\"", "must be a list of tables"),
            ("requires = 1", "`requires` must be a string"),
            ("requires = \"soon\"", "conditions on a version"),
        ];
        for (text, part) in table {
            refused(text, &[part]);
        }
        refused(&format!("{stages}returns_to = \"c\""), &["unknown value `c`"]);
    }

    #[test]
    fn agents_fit_the_stages_and_each_other() {
        let agent = |name: &str, rest: &str| {
            format!("[[agent]]\nname = \"{name}\"\nstages = [\"test\"]\ncommand = \"x\"\n{rest}\n")
        };
        let two = agent("w", "count = 2");
        refused(&format!("{two}{}", agent("w-2", "")), &["no other agent has, found `w-2`"]);
        assert_eq!(settings(&format!("{two}{}", agent("w", ""))).agents.len(), 2);
        refused(&agent("base", ""), &["neither `landing` nor `base`"]);
        refused(&agent("a b", ""), &["letters, digits"]);
        refused(&agent("", ""), &["letters, digits"]);
        refused(&agent("w", "count = 0"), &["from 1 to"]);
        let scale = |scale: &str| agent("w", &format!("scale = {scale}"));
        let scaled = |scale_of: &str| {
            let group = settings(&scale(scale_of)).agents.remove(0);
            (group.scale_min, group.count)
        };
        assert_eq!(scaled("{ min = 0, max = 6 }"), (Some(0), 6));
        assert_eq!(scaled("{ max = 2 }"), (Some(1), 2));
        refused(&scale("{ min = 3, max = 2 }"), &["`agent.scale.min` must be at most `max`"]);
        refused(&scale("{ min = 1 }"), &["`agent.scale.max` is missing"]);
        refused(&scale("{ min = 0, max = 0 }"), &["`agent.scale.max` must be an integer from 1"]);
        refused(&scale("{ max = 2, step = 2 }"), &["unknown key `agent.scale.step`"]);
        refused(&scale("3"), &["must be a table"]);
        let both = |count: u32| format!("{}count = {count}\n", scale("{ max = 2 }"));
        let beside = "`agent.count` must be left out beside `scale`, whose `max` says how many \
                      there may be, found `2`";
        refused(&both(2), &[beside]);
        assert_eq!(settings(&both(1)).agents[0].count, 2, "a key at its default is accepted");
        let other = agent("w-2", "");
        refused(&format!("{}{other}", scale("{ max = 2 }")), &["no other agent has"]);
        let like = agent("w", "");
        refused(&format!("{}{like}", scale("{ max = 2 }")), &["no other group has"]);
        refused(&agent("w", "complexity = [\"simpel\"]"), &["did you mean `simple`?"]);
        refused(&agent("w", "env = { PIPELINE_NONCE = \"x\" }"), &["sets itself"]);
        refused(&agent("w", "env = { A = 1 }"), &["`agent.env.A` must be a string"]);
        refused("[[agent]]\nname = \"w\"\n", &["`agent.stages` is missing", "`agent.preset` is"]);
        let wrong = "[[agent]]\nname = \"w\"\nstages = [\"suervisor\"]\ncommand = []\n";
        refused(wrong, &["did you mean `supervisor`?", "a program with arguments"]);
    }

    #[test]
    fn a_newer_requirement_is_said_before_anything_else() {
        let text = "requires = \">=0.3\"\n[what]\nis = \"this\"\n[broken";
        let error = load_as(text, "0.2.9", None).expect_err("too old");
        assert_eq!(error, ConfigError::Newer { required: ">=0.3".into(), running: "0.2.9" });
        assert!(error.to_string().contains("a newer program is needed"));
        let error = load_as("requires = \"<0.2\"", "0.2.0", None).expect_err("too new");
        assert_eq!(error, ConfigError::Older { required: "<0.2".into(), running: "0.2.0" });
    }

    #[test]
    fn a_prompt_file_that_is_of_no_use_is_refused_with_its_place() {
        let dir = tempfile::tempdir().expect("a folder");
        std::fs::write(dir.path().join("own.md"), "Do it well.\n").expect("written");
        let text = "[[stage]]\nname = \"a\"\nprompt = \"own.md\"\n";
        assert!(load_in(dir.path(), text).is_ok());
        let text = format!("{text}[[stage]]\nname = \"b\"\nprompt = \"agents/b.md\"\n");
        let error = load_in(dir.path(), &text).expect_err("it is not there").to_string();
        let place = "line 6, column 10: cannot use `stage.prompt`, `agents/b.md`: there is no";
        assert!(error.contains(place), "{error}");
    }

    #[test]
    fn a_place_of_ours_in_which_something_else_stands_is_refused() {
        let dir = tempfile::tempdir().expect("a folder");
        let write = |text: &str| std::fs::write(dir.path().join("NOW"), text).expect("written");
        let text = "[project]\ncurrent_task_file = \"NOW\"\n";
        assert!(load_in(dir.path(), text).is_ok(), "it is not there");
        for ours in ["", "TASK-001\n"] {
            write(ours);
            assert!(load_in(dir.path(), text).is_ok(), "{ours:?}");
        }
        write("# A project\n\nIts words.\n");
        let error = load_in(dir.path(), text).expect_err("it is a person's").to_string();
        assert!(error.contains("`project.current_task_file`, `NOW`: it holds"), "{error}");
        let error = load_in(dir.path(), "[worktree]\ndir = \"NOW\"\n").expect_err("it is a file");
        assert!(error.to_string().contains("`worktree.dir`, `NOW`: it is no folder"), "{error}");
    }

    #[test]
    fn what_is_probably_not_meant_is_warned_of() {
        let warnings = |text: &str| load(text).expect("valid").warnings.join("\n");
        assert!(warnings("").contains("no `[[agent]]`"));
        assert!(warnings("").contains("without any check"));
        let some = warnings(&AGENT.replace("\"test\", ", ""));
        assert!(some.contains("no agent serves the stage `test`"), "{some}");
        assert_eq!(warnings(&format!("{AGENT}[landing]\nchecks = [\"true\"]")), "");
    }

    #[test]
    fn no_cut_of_a_file_panics() {
        let text = format!("{DEFAULTS}{AGENT}");
        for end in 0..text.len() {
            let _ = load(&text[..end]);
            let _ = load(&text[end..]);
            let _ = load(&format!("{}é\"{}", &text[..end], &text[end..]));
        }
    }
}
