//! What a preset's agents are started with, and why they cannot be.
//!
//! The preset's file is read anew for each attempt, so an edit counts from the next one on.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::path::Path;

use super::job::Places;
use crate::agent::environment::agent_env;
use crate::agent::job::JobCommand;
use crate::agent::spawn::find_program;
use crate::agent::transcript::Transcripts;
use crate::config::preset::{self, Loaded};
use crate::machine::preset::{ENV_ALLOW, Fact, Interactive, Part, Preset, PromptBy};
use crate::machine::resume::Session;
use crate::machine::settings::{AgentCommand, AgentGroup, LauncherKind, Settings};
use crate::sys::file::read_bounded;

/// More than any prompt that we write, in bytes.
const PROMPT_FILE_BYTES_MAX: u64 = 1 << 20;

/// What an agent must be free to run to say how its stage ended.
const SAID: [&str; 4] =
    ["pipeline done", "pipeline block", "pipeline fail", "pipeline request-changes"];

/// What a job is made of.
#[derive(Debug, PartialEq, Eq)]
pub struct Launch {
    pub command: JobCommand,
    pub env: BTreeMap<String, String>,
    pub env_allow: Vec<String>,
    /// The prompt comes on standard input.
    pub has_stdin: bool,
    /// How it takes its line in a terminal, where it is known.
    pub interactive: Option<Interactive>,
    /// Hash of the preset file; `None` without a preset.
    pub preset: Option<String>,
    /// The session that it takes up again.
    pub session: Option<String>,
}

/// What an agent of a preset is started for.
#[derive(Debug, Clone, Copy)]
pub struct Purpose<'a> {
    /// Long name of the stage.
    pub stage: &'a str,
    pub settings: &'a Settings,
    pub places: &'a Places,
    /// A session that it could take up again.
    pub session: Option<Session<'a>>,
}

/// Returns what an agent of `group` is started with.
///
/// # Errors
/// In words, when the preset or the prompt cannot be read, or a placeholder has no value.
pub fn launch(root: &Path, group: &AgentGroup, purpose: Purpose<'_>) -> Result<Launch, String> {
    let Purpose { stage, settings, places, session } = purpose;
    let AgentCommand::Preset { name, model, .. } = &group.command else {
        return Err(format!("agent `{}` has no preset", group.name));
    };
    let Loaded { preset, hash } = preset::load(root, name).map_err(|error| error.to_string())?;
    let commands = commands(settings, stage);
    let interactive = match group.launcher {
        LauncherKind::Process => None,
        LauncherKind::Tmux => {
            Some(preset.interactive.clone().ok_or_else(|| no_line(name, group.launcher))?)
        }
    };
    let session = session.filter(|session| session.preset == hash && can_resume(&preset, group));
    let line = match &interactive {
        Some(interactive) => &interactive.line,
        None if session.is_some() => &preset.resume,
        None => &preset.headless,
    };
    let prompt = match uses(line, "{prompt}") {
        true => Some(read_prompt(&places.prompt_file).map_err(|error| {
            format!("cannot read the prompt `{}`: {error}", places.prompt_file.display())
        })?),
        false => None,
    };
    let session = session.map(|session| session.name);
    let values =
        Values { root, model, places, commands: &commands, prompt: prompt.as_deref(), session };
    let words = values.line(line).map_err(|placeholder| missing(name, placeholder))?;
    let (env, env_allow) = environment(group, &preset);
    let has_stdin = preset.prompt == PromptBy::Stdin;
    Ok(Launch {
        command: JobCommand::Argv(words),
        env,
        env_allow,
        has_stdin,
        preset: Some(hash),
        session: session.map(str::to_owned),
        interactive,
    })
}

/// Returns true when an agent of the group is started by a line that takes up a session.
fn can_resume(preset: &Preset, group: &AgentGroup) -> bool {
    group.launcher == LauncherKind::Process && uses(&preset.resume, "{session}")
}

fn read_prompt(path: &Path) -> std::io::Result<String> {
    let bytes = read_bounded(path, PROMPT_FILE_BYTES_MAX)?.ok_or(std::io::ErrorKind::NotFound)?;
    String::from_utf8(bytes).map_err(std::io::Error::other)
}

/// Returns that the preset has no line for what its agents are to run in, with what to do.
fn no_line(name: &str, launcher: LauncherKind) -> String {
    let dir = preset::DIR;
    match launcher {
        LauncherKind::Process => format!(
            "the preset `{name}` has no `headless` line: add one to `{dir}/{name}.toml`, or \
             `launcher = \"tmux\"` to its `[[agent]]`"
        ),
        LauncherKind::Tmux => format!(
            "the preset `{name}` has no line for a terminal: take `launcher = \"tmux\"` out of its \
             `[[agent]]`, or add `[interactive]` to `{dir}/{name}.toml`"
        ),
    }
}

fn missing(name: &str, placeholder: &str) -> String {
    let key = placeholder.trim_matches(['{', '}']);
    format!("the preset `{name}` needs a `{key}`: add it to its `[[agent]]`")
}

fn environment(group: &AgentGroup, preset: &Preset) -> (BTreeMap<String, String>, Vec<String>) {
    let mut env = preset.env.clone();
    env.extend(group.env.clone());
    let mut allow = group.env_allow.clone();
    if matches!(group.command, AgentCommand::Preset { is_env_own: false, .. }) {
        allow.extend(preset.env_allow.iter().cloned());
    }
    (env, allow)
}

/// Returns the variables that an agent of `group` would be given from this environment, and by whose
/// key its program may be billed by the token rather than by a subscription.
pub fn billing_keys(root: &Path, group: &AgentGroup) -> Vec<String> {
    let AgentCommand::Preset { name, .. } = &group.command else { return Vec::new() };
    let Ok(Loaded { preset, .. }) = preset::load(root, name) else { return Vec::new() };
    let (env, allow) = environment(group, &preset);
    keys_given(&preset, &env, &allow, root)
}

/// The same of an agent whose settings are those of its preset.
pub fn billing_keys_of(root: &Path, preset: &Preset) -> Vec<String> {
    let own = ENV_ALLOW.map(str::to_owned).into_iter();
    let allow: Vec<String> = own.chain(preset.env_allow.iter().cloned()).collect();
    keys_given(preset, &preset.env, &allow, root)
}

/// Returns that `who` may be billed by these keys, and what helps; `None`: there are none.
#[must_use]
pub fn billed_words(keys: &[String], who: &str) -> Option<(String, String)> {
    let (verb, them) = match keys {
        [] => return None,
        [_] => ("is", "it"),
        [..] => ("are", "them"),
    };
    let names = keys.join(", ");
    let found =
        format!("{names} {verb} set: {who} may be billed by the token, not by a subscription");
    let cleared: Vec<String> = keys.iter().map(|key| format!("{key} = \"\"")).collect();
    let cleared = cleared.join(", ");
    Some((found, format!("`env = {{ {cleared} }}` in its `[[agent]]` keeps {them} from it")))
}

fn keys_given(
    preset: &Preset,
    env: &BTreeMap<String, String>,
    allow: &[String],
    root: &Path,
) -> Vec<String> {
    let env: Vec<(String, String)> = env.clone().into_iter().collect();
    let given = agent_env(std::env::vars_os(), allow, root, &env).into_iter();
    let is_key = |(name, value): &(String, String)| {
        !value.is_empty() && preset.billed_by.iter().any(|key| key == name)
    };
    given.filter(is_key).map(|(name, _)| name).collect()
}

/// Returns where the events of an attempt stand that runs in a terminal; `None`: it does not, or its
/// program keeps none that is known of.
pub fn transcripts(
    root: &Path,
    group: &AgentGroup,
    preset: &Preset,
    prompt_file: &Path,
) -> Option<Transcripts> {
    let interactive = preset.interactive.as_ref();
    let is_kept = |it: &&Interactive| !it.transcript.is_empty();
    let interactive =
        interactive.filter(is_kept).filter(|_| group.launcher == LauncherKind::Tmux)?;
    let (env, allow) = environment(group, preset);
    let env: Vec<(String, String)> = env.into_iter().collect();
    let env = agent_env(std::env::vars_os(), &allow, root, &env);
    let value = |wanted: &str| {
        let found = env.iter().find(|(name, value)| name == wanted && value.starts_with('/'));
        found.map(|(_, value)| value.trim_end_matches('/'))
    };
    let absolute = |path: &String| {
        let (first, rest) = path.split_once('/')?;
        let home = first.strip_prefix('$').unwrap_or("HOME");
        Some(format!("{}/{rest}", value(home)?))
    };
    let patterns = interactive.transcript.iter().filter_map(absolute).collect();
    Some(Transcripts { patterns, prompt: prompt_file.to_owned() })
}

/// Returns true when the output of the group's program says what it cost; true for one that is no
/// preset's.
pub fn tells_cost(root: &Path, group: &AgentGroup) -> bool {
    let AgentCommand::Preset { name, .. } = &group.command else { return true };
    let is_said = group.launcher == LauncherKind::Process;
    is_said
        && preset::load(root, name)
            .is_ok_and(|loaded| loaded.preset.output.iter().any(|rule| rule.fact == Fact::CostUsd))
}

/// Returns the commands that an agent at the stage must be free to run: how it says that it is done,
/// and the checks that judge it. One that no rule of permission can hold is left out.
fn commands(settings: &Settings, stage: &str) -> Vec<String> {
    let own = settings.stage(stage).map_or(&[][..], |(_, stage)| stage.checks.as_slice());
    let checks = own.iter().chain(&settings.landing.checks).map(|check| check.trim());
    let mut commands: Vec<String> = Vec::new();
    for command in SAID.into_iter().chain(checks) {
        if !command.contains(['\n', '(', ')']) && !commands.iter().any(|known| known == command) {
            commands.push(command.to_owned());
        }
    }
    commands
}

fn uses(line: &[Part], placeholder: &str) -> bool {
    line.iter().any(|part| match part {
        Part::Word(word) => word.contains(placeholder),
        Part::Group(words) => words.iter().any(|word| word.contains(placeholder)),
    })
}

/// What placeholders stand for.
struct Values<'a> {
    root: &'a Path,
    /// Empty: none.
    model: &'a str,
    places: &'a Places,
    commands: &'a [String],
    prompt: Option<&'a str>,
    session: Option<&'a str>,
}

impl Values<'_> {
    /// Returns the arguments; fails with a placeholder that has no value.
    fn line(&self, parts: &[Part]) -> Result<Vec<String>, &'static str> {
        let mut line = Vec::new();
        for part in parts {
            match part {
                Part::Word(word) => line.push(self.fill(word, None)?),
                Part::Group(words) if words.iter().any(|word| word.contains("{command}")) => {
                    for command in self.commands {
                        for word in words {
                            line.push(self.fill(word, Some(command))?);
                        }
                    }
                }
                Part::Group(words) => {
                    let filled: Result<Vec<String>, _> =
                        words.iter().map(|word| self.fill(word, None)).collect();
                    line.extend(filled.unwrap_or_default());
                }
            }
        }
        if let Some(program) = line.first_mut().filter(|program| program.contains('/')) {
            *program = self.root.join(&*program).to_string_lossy().into_owned();
        }
        Ok(line)
    }

    /// Puts values in place of placeholders, in one pass: what a value holds is left as it is.
    fn fill(&self, word: &str, command: Option<&str>) -> Result<String, &'static str> {
        let path = |path: &Path| Some(Cow::Owned(path.to_string_lossy().into_owned()));
        let mut filled = String::new();
        let mut rest = word;
        while let Some(open) = rest.find('{') {
            filled.push_str(&rest[..open]);
            rest = &rest[open..];
            let known = preset::PLACEHOLDERS.into_iter().find(|known| rest.starts_with(known));
            let Some(placeholder) = known else {
                filled.push('{');
                rest = &rest[1..];
                continue;
            };
            let value: Option<Cow<'_, str>> = match placeholder {
                "{model}" => (!self.model.is_empty()).then_some(self.model.into()),
                "{prompt}" => self.prompt.map(Into::into),
                "{prompt_file}" => path(&self.places.prompt_file),
                "{task_file}" => path(&self.places.task_file),
                "{log_dir}" => path(&self.places.attempt_dir),
                "{project}" => path(self.root),
                "{command}" => command.map(Into::into),
                "{session}" => self.session.map(Into::into),
                _ => None,
            };
            filled.push_str(&value.ok_or(placeholder)?);
            rest = &rest[placeholder.len()..];
        }
        filled.push_str(rest);
        Ok(filled)
    }
}

/// Returns why no agent of the group can start now, with what to do; `None`: nothing is known that
/// keeps them from it. Looks at presets alone.
#[must_use]
pub fn trouble(root: &Path, program_dir: &Path, group: &AgentGroup) -> Option<String> {
    let AgentCommand::Preset { name, model, .. } = &group.command else { return None };
    let preset = match preset::load(root, name) {
        Ok(loaded) => loaded.preset,
        Err(error) => return Some(error.to_string()),
    };
    let line = match group.launcher {
        LauncherKind::Process => Some(&preset.headless),
        LauncherKind::Tmux => preset.interactive.as_ref().map(|interactive| &interactive.line),
    };
    let Some((line, program)) = line.and_then(|line| Some((line, line.first()?.first_word()?)))
    else {
        return Some(no_line(name, group.launcher));
    };
    let needs_model = |part: &Part| matches!(part, Part::Word(word) if word.contains("{model}"));
    if model.is_empty() && line.iter().any(needs_model) {
        return Some(missing(name, "{model}"));
    }
    let (env, allow) = environment(group, &preset);
    let extra: Vec<(String, String)> = env.into_iter().collect();
    let env = agent_env(std::env::vars_os(), &allow, program_dir, &extra);
    if !is_there(program, root, &env) {
        return Some(missing_words(program, &preset.install));
    }
    lacking(root, line)
        .map(|file| format!("`{file}`, which the preset `{name}` names, is not there"))
}

/// Returns that the program of a group's `command` is not there, where it is named as one: what a
/// shell or a task says is not looked into.
#[must_use]
pub fn lacking_program(root: &Path, program_dir: &Path, group: &AgentGroup) -> Option<String> {
    let AgentCommand::Argv(words) = &group.command else { return None };
    let program = words.first()?;
    // Other placeholders stand for what there is in an attempt alone.
    if program.strip_prefix(IN_PROJECT).unwrap_or(program).contains('{') {
        return None;
    }
    let extra: Vec<(String, String)> = group.env.clone().into_iter().collect();
    let env = agent_env(std::env::vars_os(), &group.env_allow, program_dir, &extra);
    (!is_there(program, root, &env)).then(|| missing_words(program, ""))
}

fn is_there(program: &str, root: &Path, env: &[(String, String)]) -> bool {
    match program.strip_prefix(IN_PROJECT) {
        Some(path) => root.join(path).is_file(),
        None => find_program(program, root, env).is_ok_and(|found| found.is_file()),
    }
}

/// How a word begins that names a file of the project.
const IN_PROJECT: &str = "{project}/";

/// Returns the first file of the project that the line names and that is not there.
fn lacking<'a>(root: &Path, line: &'a [Part]) -> Option<&'a str> {
    let words = line.iter().filter_map(|part| match part {
        Part::Word(word) => word.strip_prefix(IN_PROJECT),
        Part::Group(_) => None,
    });
    let mut named = words.filter(|path| !path.contains('{'));
    named.find(|path| !root.join(path).exists())
}

/// Returns that a program is not there, with what to do.
#[must_use]
pub fn missing_words(program: &str, install: &str) -> String {
    let program =
        program.strip_prefix(IN_PROJECT).map_or(program.into(), |path| format!("./{path}"));
    let place = if program.contains('/') { "there" } else { "on the PATH" };
    let install = match install.is_empty() {
        true => String::new(),
        false => format!(": install it with `{install}`"),
    };
    format!("`{program}` is not {place}{install}")
}

/// Returns why the agents of each group cannot start, by its name; those that can are left out. It asks
/// once at most, and where an agent needs one, why there are no windows.
#[must_use]
pub fn troubles(
    root: &Path,
    program_dir: &Path,
    settings: &Settings,
    no_windows: impl FnOnce() -> Option<String>,
) -> BTreeMap<String, String> {
    let has_windows = |group: &AgentGroup| group.launcher == LauncherKind::Tmux;
    let lacking = settings.agents.iter().any(has_windows).then(no_windows).flatten();
    let found = settings.agents.iter().filter_map(|group| {
        let window = lacking.clone().filter(|_| has_windows(group));
        Some((group.name.clone(), window.or_else(|| trouble(root, program_dir, group))?))
    });
    found.collect()
}

/// Returns whose models each group's preset uses, by the group's name; groups whose preset says nothing
/// are left out. Of one that cannot be read it is still what `known` says: nothing of the provider has
/// changed, and a refused key is none the better for it.
#[must_use]
pub fn providers(
    root: &Path,
    settings: &Settings,
    known: &BTreeMap<String, String>,
) -> BTreeMap<String, String> {
    let found = settings.agents.iter().filter_map(|group| {
        let AgentCommand::Preset { name, .. } = &group.command else { return None };
        let provider = match preset::load(root, name) {
            Ok(loaded) => loaded.preset.provider,
            // It is told of as such.
            Err(_) => known.get(&group.name)?.clone(),
        };
        (!provider.is_empty()).then(|| (group.name.clone(), provider))
    });
    found.collect()
}

/// Returns the presets of coding assistants whose programs are on the PATH, in the order of the list.
#[must_use]
pub fn found(root: &Path) -> Vec<Preset> {
    let presets = assistants().filter_map(|name| Some(preset::load(root, name).ok()?.preset));
    let is_on_path = |preset: &Preset| {
        preset.program().is_some_and(|program| !program.contains('/'))
            && absent(root, preset).is_none()
    };
    presets.filter(is_on_path).collect()
}

/// Returns the preset's program where it is not there; `None`: it is, or none is needed.
#[must_use]
pub fn absent<'a>(root: &Path, preset: &'a Preset) -> Option<&'a str> {
    let path = std::env::var("PATH").unwrap_or_default();
    let env = [("PATH".to_owned(), path)];
    preset.program().filter(|program| !is_there(program, root, &env))
}

/// Returns why presets of coding assistants that the project has itself cannot be used.
#[must_use]
pub fn broken(root: &Path) -> Vec<String> {
    let own = assistants().filter(|name| preset::has_own(root, name));
    own.filter_map(|name| Some(preset::load(root, name).err()?.to_string())).collect()
}

/// Returns the names of the presets built in that are of coding assistants.
pub fn assistants() -> impl Iterator<Item = &'static str> {
    let names = preset::BUILT_IN.iter().map(|(name, _)| *name);
    names.filter(|name| !["shell", "person"].contains(name))
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;
    use std::fs;
    use std::path::{Path, PathBuf};

    use super::{Launch, Purpose, launch, providers, trouble};
    use crate::agent::job::JobCommand;
    use crate::config;
    use crate::machine::settings::Settings;
    use crate::monitor::job::Places;

    fn places(dir: &Path) -> Places {
        Places {
            dir: dir.join("tree"),
            attempt_dir: dir.join("attempt"),
            prompt_file: dir.join("prompt.md"),
            task_file: dir.join("tree/T.md"),
            excludes: PathBuf::new(),
            log: PathBuf::new(),
        }
    }

    fn settings(rest: &str) -> Settings {
        let text = format!(
            "[landing]\nchecks = [\"cargo test\", \"(cd x && make)\"]\n\
             [[agent]]\nname = \"a\"\nstages = [\"impl\"]\n{rest}\n"
        );
        config::load(&text).unwrap_or_else(|error| panic!("{error}")).settings
    }

    fn launched(dir: &Path, rest: &str) -> Result<Launch, String> {
        let settings = settings(rest);
        let (places, stage) = (places(dir), "implementation");
        let purpose = Purpose { stage, settings: &settings, places: &places, session: None };
        launch(dir, &settings.agents[0], purpose)
    }

    fn line(launch: &Launch) -> String {
        let JobCommand::Argv(words) = &launch.command else { panic!("no words") };
        words.join(" ")
    }

    #[test]
    fn a_stage_can_be_finished_and_the_model_is_named_where_there_is_one() {
        let dir = tempfile::tempdir().expect("a folder");
        let bare = launched(dir.path(), "preset = \"claude\"").expect("a line");
        let text = line(&bare);
        assert!(text.starts_with("claude -p --output-format stream-json --verbose"), "{text}");
        for rule in ["(pipeline done)", "(pipeline request-changes *)", "(cargo test *)"] {
            assert!(text.contains(&format!("Bash{rule}")), "{rule}: {text}");
        }
        assert!(!text.contains("make") && !text.contains("--model"), "{text}");
        assert!(bare.has_stdin);
        let model = launched(dir.path(), "preset = \"claude\"\nmodel = \"{prompt}\"");
        let text = line(&model.expect("a line"));
        assert!(text.contains(" --model {prompt}"), "a value is no placeholder: {text}");
    }

    #[test]
    fn what_passes_is_the_default_with_what_the_preset_names_or_what_is_written() {
        let dir = tempfile::tempdir().expect("a folder");
        let text = "preset = \"claude\"\nenv = { DISABLE_TELEMETRY = \"0\", A = \"b\" }";
        let found = launched(dir.path(), text).expect("a line");
        assert!(found.env_allow.contains(&"HOME".to_owned()));
        assert!(found.env_allow.contains(&"ANTHROPIC_*".to_owned()));
        assert_eq!((&*found.env["DISABLE_TELEMETRY"], &*found.env["A"]), ("0", "b"));
        assert_eq!(found.env["DISABLE_AUTOUPDATER"], "1");
        let own = launched(dir.path(), "preset = \"claude\"\nenv_allow = [\"PATH\"]");
        assert_eq!(own.expect("a line").env_allow, ["PATH"]);
    }

    #[test]
    fn the_prompt_comes_as_the_preset_says() {
        let dir = tempfile::tempdir().expect("a folder");
        fs::write(dir.path().join("prompt.md"), "do {model}\n").expect("written");
        let aider = launched(dir.path(), "preset = \"aider\"").expect("a line");
        let file = dir.path().join("prompt.md");
        assert!(line(&aider).contains(&format!("--message-file {}", file.display())));
        assert!(!aider.has_stdin);
        let mini = launched(dir.path(), "preset = \"mini-swe-agent\"").expect("a line");
        assert!(line(&mini).ends_with(" -t do {model}\n"), "{}", line(&mini));
        fs::remove_file(&file).expect("removed");
        let error = launched(dir.path(), "preset = \"mini-swe-agent\"").expect_err("no prompt");
        assert!(error.contains("prompt.md"), "{error}");
    }

    #[test]
    fn a_preset_that_cannot_be_read_is_of_the_provider_that_it_was() {
        let dir = tempfile::tempdir().expect("a folder");
        let presets = dir.path().join(config::preset::DIR);
        fs::create_dir_all(&presets).expect("made");
        let settings = settings("preset = \"claude\"");
        let mut known = BTreeMap::new();
        let own = "about = \"x\"\nheadless = [\"sh\"]\n";
        for (text, expected) in [
            (format!("{own}provider = \"mine\"\n"), Some("mine")),
            ("x = [".to_owned(), Some("mine")),
            (format!("{own}provider = \"other\"\n"), Some("other")),
            (own.to_owned(), None),
            ("x = [".to_owned(), None),
        ] {
            fs::write(presets.join("claude.toml"), &text).expect("written");
            known = providers(dir.path(), &settings, &known);
            assert_eq!(known.get("a").map(String::as_str), expected, "{text}");
        }
    }

    #[test]
    fn what_keeps_an_agent_from_starting_is_known_before() {
        let dir = tempfile::tempdir().expect("a folder");
        let presets = dir.path().join(config::preset::DIR);
        fs::create_dir_all(&presets).expect("made");
        let check = |text: &str, rest: &str| {
            fs::write(presets.join("claude.toml"), format!("about = \"x\"\n{text}\n"))
                .expect("written");
            let settings = settings(&format!("preset = \"claude\"\n{rest}"));
            trouble(dir.path(), Path::new("/none"), &settings.agents[0]).unwrap_or_default()
        };
        assert_eq!(check("headless = [\"sh\"]", ""), "");
        let env = "env = { PATH = \"/nowhere\" }";
        assert_eq!(check("headless = [\"sh\"]", env), "`sh` is not on the PATH");
        let gone = check("headless = [\"no-such-program\"]\ninstall = \"get it\"", "");
        assert_eq!(gone, "`no-such-program` is not on the PATH: install it with `get it`");
        assert_eq!(check("headless = [\"./tool\"]", ""), "`./tool` is not there");
        // What the project has to hold itself.
        assert_eq!(check("headless = [\"{project}/tool\"]", ""), "`./tool` is not there");
        let script = "headless = [\"sh\", \"{project}/own.sh\", \"{project}/{session}\"]";
        let lacking = "`own.sh`, which the preset `claude` names, is not there";
        assert_eq!(check(script, ""), lacking);
        for file in ["tool", "own.sh"] {
            fs::write(dir.path().join(file), "").expect("written");
        }
        assert_eq!(check(script, ""), "");
        assert_eq!(check("headless = [\"{project}/tool\"]", ""), "");
        // In a window it is the other line that counts.
        let window = "launcher = \"tmux\"";
        let line = "[interactive]\nline = [\"sh\"]\nready = \"x\"";
        assert_eq!(check(line, window), "");
        assert!(check(line, "").contains("no `headless` line"));
        let headless = check("headless = [\"sh\"]", window);
        assert!(headless.contains("no line for a terminal: take `launcher"), "{headless}");
        let model = check("headless = [\"sh\", \"{model}\"]", "");
        assert!(model.contains("needs a `model`"), "{model}");
        assert_eq!(check("headless = [\"sh\", \"{model}\"]", "model = \"m\""), "");
        assert!(check("", "").contains("no `headless` line"));
        assert!(check("x = 1", "").contains("unknown key `x`"));
    }
}
