//! Presets: the files that say how coding assistants' command lines are called and understood.
//!
//! Those built in are data too; a file of the same name in the project's `agents/presets` stands in
//! for one, and one of another name is added. Read strictly, like `pipeline.toml`.

use std::collections::BTreeMap;
use std::fmt;
use std::path::{Path, PathBuf};

use regex::RegexBuilder;
use toml::de::DeTable;
use toml::{Table, Value};
use xxhash_rust::xxh3::xxh3_64;

use super::problem::{Problem, Wrong};
use super::reader::{Report, Section};
use crate::machine::attempt::FaultKind;
use crate::machine::preset::{Fact, Interactive, KEYS, OutputRule, Part, Preset, PromptBy, Take};
use crate::sys::file::read_bounded;

/// Where a project has its own.
pub const DIR: &str = "agents/presets";
/// Largest file read, in bytes.
const FILE_BYTES_MAX: u64 = 64 << 10;
/// Largest compiled regular expression, in bytes.
pub const REGEX_BYTES_MAX: usize = 256 << 10;

/// What a line may name; `{command}` is each command that an agent must be free to run.
pub const PLACEHOLDERS: [&str; 8] = [
    "{model}",
    "{prompt}",
    "{prompt_file}",
    "{task_file}",
    "{log_dir}",
    "{session}",
    "{project}",
    "{command}",
];

macro_rules! built_in {
    ($($name:literal),+ $(,)?) => {
        /// The presets built in, in the order in which `init` looks for them.
        pub const BUILT_IN: &[(&str, &str)] =
            &[$(($name, include_str!(concat!("../../agents/presets/", $name, ".toml")))),+];
    };
}

built_in!(
    "claude",
    "codex",
    "opencode",
    "gemini",
    "qwen",
    "aider",
    "mini-swe-agent",
    "shell",
    "person",
);

/// A preset with what identifies its text.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Loaded {
    pub preset: Preset,
    /// 16 hex digits.
    pub hash: String,
}

/// Why a preset cannot be used.
#[derive(Debug)]
pub enum PresetError {
    /// Neither built in nor a file of the project.
    Unknown { name: String },
    /// The file cannot be read.
    Unreadable { path: PathBuf, source: std::io::Error },
    /// Something in it is wrong.
    Invalid {
        /// As people find it: relative to the project.
        file: String,
        /// At least one, in the order of the file.
        problems: Vec<Problem>,
    },
}

impl fmt::Display for PresetError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unknown { name } => {
                write!(f, "there is no preset `{name}`, and no file `{DIR}/{name}.toml`")
            }
            Self::Unreadable { path, source } => {
                write!(f, "cannot read the preset `{}`: {source}", path.display())
            }
            Self::Invalid { file, problems } => {
                write!(f, "cannot use the preset `{file}`")?;
                match problems.as_slice() {
                    [problem] => write!(f, ": {problem}"),
                    several => several.iter().try_for_each(|problem| write!(f, "\n  {problem}")),
                }
            }
        }
    }
}

impl std::error::Error for PresetError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Self::Unreadable { source, .. } => Some(source),
            Self::Unknown { .. } | Self::Invalid { .. } => None,
        }
    }
}

/// Returns the preset of that name as it counts in the project at `root`.
///
/// # Errors
/// When there is none, or its file cannot be read or is wrong.
pub fn load(root: &Path, name: &str) -> Result<Loaded, PresetError> {
    let text = text(root, name)?;
    let file = format!("{DIR}/{name}.toml");
    let preset = parse(name, &text).map_err(|problems| PresetError::Invalid { file, problems })?;
    Ok(Loaded { preset, hash: format!("{:016x}", xxh3_64(text.as_bytes())) })
}

/// Returns the text of the preset as it counts in the project at `root`.
fn text(root: &Path, name: &str) -> Result<String, PresetError> {
    let path = root.join(format!("{DIR}/{name}.toml"));
    let own = read_bounded(&path, FILE_BYTES_MAX)
        .map_err(|source| PresetError::Unreadable { path, source })?;
    let built_in = BUILT_IN.iter().find(|(known, _)| *known == name);
    match (&own, built_in) {
        (Some(bytes), _) => Ok(String::from_utf8_lossy(bytes).into_owned()),
        (None, Some((_, text))) => Ok((*text).to_owned()),
        (None, None) => Err(PresetError::Unknown { name: name.to_owned() }),
    }
}

/// Returns the text of the preset with what its command lines name in the project at `root` named in
/// full, so that the file can stand in another project; `None`: it cannot be used where it is.
#[must_use]
pub fn abroad(root: &Path, name: &str) -> Option<String> {
    let mut document: Table = text(root, name).ok()?.parse().ok()?;
    for key in ["headless", "resume"] {
        if let Some(line) = document.get_mut(key) {
            name_in_full(root, line);
        }
    }
    if let Some(line) = document.get_mut("interactive").and_then(|table| table.get_mut("line")) {
        name_in_full(root, line);
    }
    Some(document.to_string())
}

/// A program with a slash in it is the project's, like `{project}`.
fn name_in_full(root: &Path, line: &mut Value) {
    fill_project(root, line);
    if let Some(Value::String(program)) = line.as_array_mut().and_then(|parts| parts.first_mut())
        && program.contains('/')
    {
        *program = root.join(&*program).to_string_lossy().into_owned();
    }
}

fn fill_project(root: &Path, part: &mut Value) {
    match part {
        Value::String(word) => *word = word.replace("{project}", &root.to_string_lossy()),
        Value::Array(parts) => parts.iter_mut().for_each(|part| fill_project(root, part)),
        _ => {}
    }
}

/// Returns true when the project at `root` has a preset file of that name.
#[must_use]
pub fn has_own(root: &Path, name: &str) -> bool {
    root.join(format!("{DIR}/{name}.toml")).is_file()
}

/// Reads the text of a preset file.
fn parse(name: &str, text: &str) -> Result<Preset, Vec<Problem>> {
    let report = Report::new(text);
    let (document, errors) = DeTable::parse_recoverable(text);
    for error in &errors {
        let at = error.span().map_or(0, |span| span.start);
        report.add(at, Wrong::Syntax { message: error.message().trim_end().to_owned() });
    }
    if !errors.is_empty() {
        return Err(report.problems());
    }
    let preset = read(name, &mut Section::root(&report, document.get_ref()));
    let problems = report.problems();
    if problems.is_empty() { Ok(preset) } else { Err(problems) }
}

fn read(name: &str, at: &mut Section<'_>) -> Preset {
    let prompts = [("stdin", Some(PromptBy::Stdin)), ("line", Some(PromptBy::Line))];
    let preset = Preset {
        name: name.to_owned(),
        about: at.string("about").unwrap_or_default(),
        provider: at.string("provider").unwrap_or_default(),
        install: at.string("install").unwrap_or_default(),
        allows: at.string("allows").unwrap_or_default(),
        headless: line(at, "headless"),
        resume: line(at, "resume"),
        prompt: at.word("prompt", PromptBy::Stdin, &prompts),
        env: variables(at),
        env_allow: at.strings("env_allow").unwrap_or_default(),
        billed_by: at.strings("billed_by").unwrap_or_default(),
        interactive: at.has("interactive").then(|| interactive(at.section("interactive"))),
        usage_file: at.string("usage_file"),
        is_session_total: at.boolean("session_total", false),
        output: at.sections("output").into_iter().map(output).collect(),
        exit: exits(at),
    };
    if !at.has("about") {
        at.missing("about", "what it is, in a few words");
    }
    let names = |part: &Part, what: &str| words(part).iter().any(|word| word.contains(what));
    let has = |parts: &[Part], what: &str| parts.iter().any(|part| names(part, what));
    if preset.prompt == PromptBy::Line
        && !preset.headless.is_empty()
        && !has(&preset.headless, "{prompt}")
        && !has(&preset.headless, "{prompt_file}")
    {
        let expected = "\"stdin\", where `headless` names no `{prompt}` and no `{prompt_file}`";
        at.wrong_value("prompt", "line", expected);
    }
    if !preset.resume.is_empty() && preset.headless.is_empty() {
        at.missing("headless", "the line of a first run, where there is a `resume`");
    }
    if let Some(file) = &preset.usage_file
        && (file.contains('/') || file.starts_with('.'))
    {
        at.wrong_value("usage_file", file, "the name of a file in `{log_dir}`");
    }
    at.finish();
    preset
}

fn words(part: &Part) -> &[String] {
    match part {
        Part::Word(word) => std::slice::from_ref(word),
        Part::Group(words) => words,
    }
}

/// Reads a command line: a program, then arguments; placeholders must be known.
fn line(at: &mut Section<'_>, key: &'static str) -> Vec<Part> {
    if !at.has(key) {
        return Vec::new();
    }
    let parts = at.parts(key);
    let is_program = |part: &Part| matches!(part, Part::Word(word) if !word.trim().is_empty());
    if !parts.first().is_some_and(is_program) {
        at.wrong_value(key, "[]", "a program with arguments");
    }
    for part in &parts {
        let words = words(part);
        if words.is_empty() {
            at.wrong_value(key, "[]", "a list whose inner lists are not empty");
        }
        for word in words {
            if let Some(unknown) = unknown_placeholder(word) {
                at.unknown_value(key, unknown, &PLACEHOLDERS);
            }
        }
        if matches!(part, Part::Word(word) if word.contains("{command}")) {
            at.wrong_value(key, "{command}", "in an inner list, which is there for each command");
        }
    }
    parts
}

/// Returns the first `{word}` that is no placeholder; other braces are text.
fn unknown_placeholder(word: &str) -> Option<&str> {
    let mut rest = word;
    while let Some(open) = rest.find('{') {
        rest = &rest[open..];
        let close = rest.find('}')?;
        let found = &rest[..=close];
        let is_word =
            found.len() > 2 && found[1..close].chars().all(|c| c.is_ascii_lowercase() || c == '_');
        if is_word && !PLACEHOLDERS.contains(&found) {
            return Some(found);
        }
        rest = &rest[1..];
    }
    None
}

fn variables(at: &mut Section<'_>) -> BTreeMap<String, String> {
    let pairs = at.section("env").all_strings();
    for (name, _) in &pairs {
        if name.is_empty() || name.contains(['=', '\0']) || name.starts_with("PIPELINE_") {
            at.wrong_value("env", name, "variables' names, none of them `PIPELINE_…`");
        }
    }
    pairs.into_iter().collect()
}

/// Reads the exit statuses that tell something, each with the fact that it tells.
fn exits(at: &mut Section<'_>) -> BTreeMap<i32, FaultKind> {
    let known = [Fact::Limit, Fact::Unauthorized, Fact::Context];
    let words = ["limit", "unauthorized", "context"];
    let mut exits = BTreeMap::new();
    for (status, word) in at.section("exit").all_strings() {
        let Some(status) = status.parse().ok().filter(|status| (1..=255).contains(status)) else {
            at.wrong_value("exit", &status, "exit statuses from 1 to 255");
            continue;
        };
        let place = words.iter().position(|known| *known == word);
        match place.and_then(|place| known[place].fault()) {
            Some(fault) => {
                exits.insert(status, fault);
            }
            None => at.unknown_value("exit", &word, &words),
        }
    }
    exits
}

fn interactive(mut at: Section<'_>) -> Interactive {
    let interactive = Interactive {
        line: line(&mut at, "line"),
        ready: pattern(&mut at, "ready").unwrap_or_default(),
        busy: pattern(&mut at, "busy").unwrap_or_default(),
        submit: at.strings("submit").unwrap_or_else(|| vec!["Enter".to_owned()]),
        transcript: at.strings("transcript").unwrap_or_default(),
        still_ms: at.duration_ms("still", "60s", 1000),
    };
    for path in interactive.transcript.iter().filter(|path| !has_home(path)) {
        let expected = "paths that begin with `~/` or a variable, such as `$CODEX_HOME/`";
        at.wrong_value("transcript", path, expected);
    }
    let keys = KEYS.map(|(name, _)| name);
    for key in interactive.submit.iter().filter(|key| !keys.contains(&key.as_str())) {
        at.unknown_value("submit", key, &keys);
    }
    if interactive.line.is_empty() {
        at.missing("line", "the command line in a terminal");
    }
    if interactive.ready.is_empty() {
        at.missing("ready", "a pattern that says that it takes input");
    }
    at.finish();
    interactive
}

/// Returns true for a path below the home folder, or below one that a variable names.
fn has_home(path: &str) -> bool {
    let is_plain = |c: char| c == '_' || c.is_ascii_alphanumeric();
    let Some((first, rest)) = path.split_once('/') else { return false };
    let is_variable = |name: &str| !name.is_empty() && name.chars().all(is_plain);
    let is_below = !rest.split('/').any(|part| matches!(part, "" | "." | ".."));
    (first == "~" || first.strip_prefix('$').is_some_and(is_variable)) && is_below
}

/// Reads a regular expression.
fn pattern(at: &mut Section<'_>, key: &'static str) -> Option<String> {
    let text = at.string(key)?;
    if let Err(error) = RegexBuilder::new(&text).size_limit(REGEX_BYTES_MAX).build() {
        let error = error.to_string();
        let error = error.lines().last().unwrap_or_default();
        at.wrong_value(key, &text, &format!("a regular expression ({error})"));
    }
    Some(text)
}

fn output(mut at: Section<'_>) -> OutputRule {
    let facts = [
        ("session", Some(Fact::Session)),
        ("input_tokens", Some(Fact::InputTokens)),
        ("output_tokens", Some(Fact::OutputTokens)),
        ("cached_tokens", Some(Fact::CachedTokens)),
        ("cost_usd", Some(Fact::CostUsd)),
        ("text", Some(Fact::Text)),
        ("error", Some(Fact::Error)),
        ("limit", Some(Fact::Limit)),
        ("unauthorized", Some(Fact::Unauthorized)),
        ("context", Some(Fact::Context)),
        ("until", Some(Fact::Until)),
        ("progress", Some(Fact::Progress)),
    ];
    if !at.has("fact") {
        at.missing("fact", "what is to be read");
    }
    let rule = OutputRule {
        fact: at.word("fact", Fact::Text, &facts),
        when: at.section("when").all_strings().into_iter().collect(),
        at: at.strings("at").unwrap_or_default(),
        pattern: pattern(&mut at, "pattern"),
        take: at.word("take", Take::Last, &[("last", Some(Take::Last)), ("all", Some(Take::All))]),
        each: at.string("each"),
    };
    if let Some(each) = rule.each.as_ref().filter(|_| rule.take == Take::Last || rule.at.is_empty())
    {
        at.wrong_value("each", each, "left out, where `take` is not \"all\" or there is no `at`");
    }
    if rule.at.is_empty() && rule.pattern.is_none() {
        at.missing("at", "JSON pointers, or a `pattern` for lines of text");
    }
    if rule.at.is_empty() && !rule.when.is_empty() {
        at.wrong_value("when", "…", "left out, where there is no `at`");
    }
    for pointer in rule
        .at
        .iter()
        .chain(rule.when.keys())
        .chain(&rule.each)
        .filter(|text| !text.starts_with('/'))
    {
        at.wrong_value("at", pointer, "JSON pointers, such as `/usage/input_tokens`");
    }
    at.finish();
    rule
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::{BUILT_IN, DIR, PresetError, load, parse};
    use crate::machine::preset::{Fact, Part, Preset, PromptBy, Take};

    fn built_in(name: &str) -> Preset {
        let (_, text) = BUILT_IN.iter().find(|(known, _)| *known == name).expect("built in");
        parse(name, text).unwrap_or_else(|problems| panic!("{name}: {problems:#?}"))
    }

    fn refused(text: &str, parts: &[&str]) {
        let problems = parse("x", text).expect_err("refused");
        let messages: Vec<String> = problems.iter().map(ToString::to_string).collect();
        assert_eq!(messages.len(), parts.len(), "{text}\n{messages:#?}");
        for (message, part) in messages.iter().zip(parts) {
            assert!(message.contains(part), "`{part}` is not in `{message}`");
        }
    }

    fn has(parts: &[Part], what: &str) -> bool {
        parts.iter().any(|part| super::words(part).iter().any(|word| word.contains(what)))
    }

    #[test]
    fn every_built_in_preset_is_valid_and_complete() {
        for (name, _) in BUILT_IN {
            let preset = built_in(name);
            assert!(!preset.about.is_empty(), "{name}");
            assert_eq!(preset.headless.is_empty(), *name == "person", "{name}");
            let has_window = !["shell", "person"].contains(name);
            assert_eq!(preset.interactive.is_some(), has_window, "{name}");
            if ["shell", "person"].contains(name) {
                continue;
            }
            assert!(has(&preset.headless, "{model}"), "{name} takes a model");
            assert!(!preset.install.is_empty() && !preset.allows.is_empty(), "{name}");
            assert!(!preset.env_allow.is_empty(), "{name} is given its key");
            let is_resumed = has(&preset.resume, "{session}") || *name == "aider";
            assert!(preset.resume.is_empty() || is_resumed, "{name}: which session");
            let facts: Vec<Fact> = preset.output.iter().map(|rule| rule.fact).collect();
            assert!(facts.contains(&Fact::Text) || facts.contains(&Fact::InputTokens), "{name}");
            let interactive = preset.interactive.expect("checked above");
            assert!(!interactive.submit.is_empty() && !interactive.ready.is_empty(), "{name}");
        }
    }

    #[test]
    fn a_preset_abroad_names_what_is_its_projects_in_full() {
        let root = tempfile::tempdir().expect("a folder");
        let dir = root.path().join(DIR);
        fs::create_dir_all(&dir).expect("made");
        let text = "about = \"x\"\nheadless = [\"./tool\", [\"-m\", \"{project}/{model}\"]]\n\
                    resume = [\"tool\", \"a/b\", \"{session}\"]\nenv = { A = \"{project}\" }\n\
                    [interactive]\nline = [\"{project}/tool\"]\nready = 'a\\b'\n\
                    [[output]]\nfact = \"text\"\npattern = '^x'\n";
        fs::write(dir.join("own.toml"), text).expect("written");
        let there = super::abroad(root.path(), "own").expect("it can be used");
        let project = root.path().display();
        let here = text
            .replace("./tool", &format!("{project}/./tool"))
            .replace("\"{project}/", &format!("\"{project}/"));
        assert_eq!(parse("own", &there).expect("valid"), parse("own", &here).expect("valid"));
        for (name, text) in BUILT_IN.iter().filter(|(_, text)| !text.contains("{project}")) {
            let there = super::abroad(root.path(), name).expect("built in");
            assert_eq!(parse(name, &there).expect("valid"), parse(name, text).expect("valid"));
        }
        assert_eq!(super::abroad(root.path(), "none"), None);
    }

    #[test]
    fn what_a_program_can_be_told_to_keep_to_itself_it_is_told() {
        for (name, switches) in [
            ("claude", &["CLAUDE_CODE_DISABLE_NONESSENTIAL_TRAFFIC=1", "DISABLE_TELEMETRY=1"][..]),
            ("opencode", &["OPENCODE_DISABLE_AUTOUPDATE=1", "OPENCODE_DISABLE_SHARE=1"]),
            ("gemini", &["GEMINI_TELEMETRY_ENABLED=false"]),
            ("qwen", &["QWEN_TELEMETRY_ENABLED=false", "QWEN_USAGE_STATISTICS_ENABLED=false"]),
        ] {
            let env = built_in(name).env;
            for (key, value) in switches.iter().filter_map(|switch| switch.split_once('=')) {
                assert_eq!(env.get(key).map(String::as_str), Some(value), "{name}: {key}");
            }
        }
        for (name, switch) in
            [("codex", "analytics.enabled=false"), ("aider", "--analytics-disable")]
        {
            assert!(has(&built_in(name).headless, switch), "{name}: {switch}");
        }
    }

    #[test]
    fn codex_gives_commands_the_path_that_it_was_given() {
        // Seen with codex 0.169: in a login shell `pipeline done` was not found.
        let codex = built_in("codex");
        let interactive = codex.interactive.expect("it has a line in a terminal").line;
        for line in [codex.headless, codex.resume, interactive] {
            assert!(has(&line, "allow_login_shell=false"), "{line:?}");
        }
    }

    #[test]
    fn what_keeps_to_its_folder_may_read_the_prompt_in_a_terminal() {
        // Seen with claude 2.1 and gemini 0.61: the prompt's file is outside of the worktree.
        for (name, what) in [("claude", "Read(/{prompt_file})"), ("gemini", "{log_dir}")] {
            let line = built_in(name).interactive.expect("it has a line in a terminal").line;
            assert!(has(&line, what), "{name}: {line:?}");
        }
    }

    #[test]
    fn a_file_of_the_project_stands_in_for_one_built_in() {
        let dir = tempfile::tempdir().expect("a folder");
        let built_in = load(dir.path(), "claude").expect("built in");
        fs::create_dir_all(dir.path().join(DIR)).expect("made");
        let text = "about = \"mine\"\nheadless = [\"mine\", [\"-m\", \"{model}\"]]\n";
        for name in ["claude", "own"] {
            fs::write(dir.path().join(format!("{DIR}/{name}.toml")), text).expect("written");
            let own = load(dir.path(), name).expect("read");
            assert_eq!((own.preset.name.as_str(), own.preset.program()), (name, Some("mine")));
            assert_ne!(own.hash, built_in.hash);
        }
        assert!(matches!(load(dir.path(), "none"), Err(PresetError::Unknown { .. })));
        fs::write(dir.path().join(format!("{DIR}/own.toml")), "about = 1\n").expect("written");
        let error = load(dir.path(), "own").expect_err("refused").to_string();
        assert!(error.contains("`agents/presets/own.toml`: line 1, column 9: `about`"), "{error}");
    }

    #[test]
    fn what_is_wrong_is_refused_with_its_place() {
        refused("about = \"x\"\nhedless = []\n", &["line 2, column 1: unknown key `hedless`, did"]);
        refused("headless = [\"x\"]\n", &["`about` is missing"]);
        let about = "about = \"x\"\n";
        let table = [
            ("headless = []", "a program with arguments"),
            ("headless = [[\"x\"]]", "a program with arguments"),
            (
                "[interactive]\nline = [\"x\"]\nready = \"y\"\nsubmit = [\"Enter\", \"C-x\"]",
                "unknown value `C-x`",
            ),
            ("headless = [\"x\", 1]", "a list of words and lists of words"),
            ("headless = [\"x\", []]", "inner lists are not empty"),
            ("headless = [\"x\", \"{modle}\"]", "`{modle}` of `headless`, did you mean `{model}`?"),
            ("headless = [\"x\", \"{command}\"]", "in an inner list"),
            ("headless = [\"x\"]\nprompt = \"line\"", "names no `{prompt}`"),
            ("resume = [\"x\", \"{session}\"]", "`headless` is missing"),
            ("usage_file = \"../x\"", "the name of a file"),
            ("env = { PIPELINE_X = \"\" }", "none of them `PIPELINE_"),
            ("[interactive]\nline = [\"x\"]\n", "`interactive.ready` is missing"),
            ("[interactive]\nline = [\"x\"]\nready = \"(\"", "a regular expression ("),
            (
                "[interactive]\nline = [\"x\"]\nready = \"x\"\ntranscript = [\"/x\"]",
                "begin with `~/`",
            ),
            ("exit = { 0 = \"limit\" }", "exit statuses from 1 to 255"),
            ("[[output]]\nfact = \"text\"\nat = [\"/x\"]\neach = \"/y\"", "`take` is not \"all\""),
            ("exit = { 7 = \"limt\" }", "did you mean `limit`?"),
            ("[[output]]\nat = [\"/x\"]", "`output.fact` is missing"),
            ("[[output]]\nfact = \"txt\"\nat = [\"/x\"]", "did you mean `text`?"),
            ("[[output]]\nfact = \"text\"", "`output.at` is missing"),
            ("[[output]]\nfact = \"text\"\nat = [\"x\"]", "JSON pointers, such as"),
            ("[[output]]\nfact = \"text\"\npattern = \"x\"\nwhen = { \"/a\" = \"b\" }", "left out"),
        ];
        for (text, part) in table {
            refused(&format!("{about}{text}\n"), &[part]);
        }
    }

    #[test]
    fn braces_that_are_no_placeholder_are_text() {
        let text =
            "about = \"x\"\nheadless = [\"x\", '{\"a\":{}}', \"{}\", \"{ model }\", \"{\"]\n";
        assert_eq!(parse("x", text).expect("valid").headless.len(), 5);
    }

    #[test]
    fn defaults_are_those_of_a_program_that_reads_its_prompt() {
        let preset = parse("x", "about = \"x\"\nheadless = [\"x\"]\n").expect("valid");
        assert_eq!(preset.prompt, PromptBy::Stdin);
        assert!(!preset.is_session_total && preset.interactive.is_none());
        let rule = "[[output]]\nfact = \"text\"\npattern = \"x\"\n";
        let preset = parse("x", &format!("about = \"x\"\n{rule}")).expect("valid");
        assert_eq!(preset.output[0].take, Take::Last);
    }
}
