//! The text of `pipeline.toml` that `init` writes: short, with what was found filled in.

use std::fmt::Write;

use toml::Value;

use crate::machine::mode::Isolation;
use crate::machine::preset::Preset;
use crate::machine::settings::LauncherKind;

use super::detect::Found;
use super::file::DEFAULT_STAGES;

/// What goes into a new `pipeline.toml`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Template<'a> {
    /// The branch that work starts from.
    pub base: &'a str,
    /// What the repository looks like.
    pub found: &'a Found,
    /// Which agents are written.
    pub agents: Agents<'a>,
    /// Where agents run.
    pub isolation: Isolation,
    /// How agents are started.
    pub launcher: LauncherKind,
}

/// Which agents a new file has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Agents<'a> {
    /// An example, commented out.
    Example,
    /// One small shell script for each stage, so that a first run works.
    Shell,
    /// One block for each name, with a command to fill in; a name that is a stage's, long or short,
    /// serves that stage, any other serves all.
    Named(&'a [String]),
    /// One for each stage, by preset.
    Presets(&'a [Post<'a>]),
}

/// Who does a stage.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Post<'a> {
    /// Long name.
    pub stage: &'a str,
    pub preset: &'a Preset,
}

/// Gives each default stage a preset: the first of `presets` does the work, and one of another
/// provider, where there is one, judges it as supervisor; a person does before a program. Where it is
/// not known whose models a program uses, it counts as another's only beside one of which that is
/// known. Empty without presets.
#[must_use]
pub fn posts(presets: &[Preset]) -> Vec<Post<'_>> {
    let Some(first) = presets.first() else { return Vec::new() };
    let is_known = |preset: &&Preset| !preset.provider.is_empty();
    let mut others = presets.iter().filter(|preset| preset.provider != first.provider);
    let person = presets.iter().find(|preset| preset.name == "person");
    let judge = person.or_else(|| others.clone().find(is_known));
    let judge = judge.or_else(|| others.next()).unwrap_or(first);
    let post = |(stage, short): (&'static str, &str)| Post {
        stage,
        preset: if short == "super" { judge } else { first },
    };
    DEFAULT_STAGES.into_iter().map(post).collect()
}

/// Returns the text; `config::load` takes it as long as base and names are valid.
#[must_use]
pub fn render(template: &Template<'_>) -> String {
    let mut text = String::new();
    // Writing to a string cannot fail.
    let _ = write_head(&mut text, template);
    let place = match template.launcher {
        LauncherKind::Process => PROCESS,
        LauncherKind::Tmux => WINDOW,
    };
    match template.agents {
        Agents::Example => example_agent(&mut text, place),
        Agents::Shell => {
            DEFAULT_STAGES.iter().for_each(|(name, _)| shell_agent(&mut text, name, place));
        }
        Agents::Named(names) => names.iter().for_each(|name| named_agent(&mut text, name, place)),
        Agents::Presets(posts) => preset_agents(&mut text, posts, place),
    }
    text
}

fn write_head(text: &mut String, template: &Template<'_>) -> std::fmt::Result {
    let mut numbers = env!("CARGO_PKG_VERSION").split('.');
    let (major, minor) = (numbers.next().unwrap_or("0"), numbers.next().unwrap_or("0"));
    writeln!(text, "# What `pipeline` does here. Every key left out is at its default.")?;
    writeln!(text, "requires = \">={major}.{minor}\"\n")?;
    writeln!(text, "[project]")?;
    writeln!(text, "base = {}", quoted(template.base))?;
    if template.isolation == Isolation::None {
        writeln!(text, "isolation = \"none\"    # no git: agents run in this folder")?;
    }
    if matches!(template.agents, Agents::Named(_) | Agents::Presets(_)) {
        writeln!(
            text,
            "rollout = \"pilot\"     # your branch stays as it is until: pipeline rollout promote"
        )?;
    }
    if template.isolation == Isolation::None {
        return Ok(());
    }
    let found = template.found;
    writeln!(text, "\n[worktree]            # each agent works in a git worktree of its own")?;
    writeln!(text, "setup = {}    # after a checkout changed a lockfile", list(&found.setup))?;
    writeln!(text, "keep = {}    # survives cleaning", list(&found.keep))?;
    writeln!(text, "copy = {}    # from this checkout, never committed", list(&found.copy))?;
    writeln!(text, "\n[landing]")?;
    writeln!(text, "# Run on the merged result; nothing lands unless all of them pass.")?;
    writeln!(text, "checks = {}", list(&found.checks))
}

fn quoted(text: &str) -> String {
    Value::String(text.to_owned()).to_string()
}

fn list(items: &[String]) -> String {
    Value::Array(items.iter().map(|item| Value::String(item.clone())).collect()).to_string()
}

/// Where agents work.
#[derive(Debug, Clone, Copy)]
struct Place {
    /// A line of the agent's block, or nothing.
    launcher: &'static str,
    /// How a command is told its task.
    telling: &'static str,
}

const PROCESS: Place = Place { launcher: "", telling: "the prompt comes on standard input" };
const WINDOW: Place = Place {
    launcher: "launcher = \"tmux\"       # a window: `pipeline agent attach NAME`\n",
    telling: "a line with the task's file is typed",
};

fn example_agent(text: &mut String, place: Place) {
    let telling = place.telling;
    text.push_str(&format!(
        r#"
# Who does the work: {telling},
# exit status 0 says done. Stages: architect, test, implementation, supervisor.
#
# [[agent]]
# name = "implementation"
# stages = ["implementation"]
# count = 3                                # or `scale = {{ min = 1, max = 6 }}`
# command = ["sh", "{{project}}/tools/implementation.sh"]
"#
    ));
    if !place.launcher.is_empty() {
        text.push_str(&format!("# {}", place.launcher));
    }
}

/// Each task has a file of its own, so that tasks which run together do not conflict.
fn shell_agent(text: &mut String, stage: &str, place: Place) {
    let launcher = place.launcher;
    text.push_str(&format!(
        r#"
[[agent]]
name = "{stage}"
stages = ["{stage}"]
{launcher}command = '''
mkdir -p notes &&
echo "$PIPELINE_STAGE done by $PIPELINE_AGENT" >> "notes/$PIPELINE_TASK_ID.md"
'''
"#
    ));
}

fn preset_agents(text: &mut String, posts: &[Post<'_>], place: Place) {
    text.push_str(
        "\n# Who does the work. A preset is the command line of a program, with what it may do:\n\
         # `pipeline agent test NAME` tries one. More of a kind: `count = 3`.\n",
    );
    let mut told: Vec<&str> = Vec::new();
    for post in posts {
        let Preset { name, about, allows, .. } = post.preset;
        if !told.contains(&name.as_str()) && !allows.is_empty() {
            told.push(name);
            let says = wrapped(&format!("{about} {allows}."), LINE_CHARS_MAX - 2);
            text.push_str("#\n");
            says.iter().for_each(|line| text.push_str(&format!("# {line}\n")));
        }
    }
    for post in posts {
        let (stage, preset) = (quoted(post.stage), quoted(&post.preset.name));
        text.push_str(&format!(
            "\n[[agent]]\nname = {stage}\nstages = [{stage}]\npreset = {preset}\n"
        ));
        if post.preset.program().is_some() {
            text.push_str("# model = \"\"             # left out: the program's own choice\n");
        }
        if post.preset.interactive.is_some() {
            text.push_str(place.launcher);
        }
    }
    let has_person = posts.iter().any(|post| post.preset.name == "person");
    if !place.launcher.is_empty() && !has_person {
        text.push_str(PERSON);
    }
}

const PERSON: &str = "
# A person can do a stage as well, in a window: `pipeline done` ends it.
#
# [[agent]]
# name = \"me\"
# stages = [\"supervisor\"]
# preset = \"person\"
";

/// Columns of what is written for people.
pub const LINE_CHARS_MAX: usize = 80;

/// Returns the words in lines of at most `chars` characters, but for words that are longer.
#[must_use]
pub fn wrapped(words: &str, chars: usize) -> Vec<String> {
    let mut lines: Vec<String> = Vec::new();
    for word in words.split_whitespace() {
        match lines.last_mut() {
            Some(line) if line.chars().count() + 1 + word.chars().count() <= chars => {
                line.push(' ');
                line.push_str(word);
            }
            Some(_) | None => lines.push(word.to_owned()),
        }
    }
    lines
}

fn named_agent(text: &mut String, name: &str, place: Place) {
    let Place { launcher, telling } = place;
    let is_called = |(long, short): &&(&str, &str)| name == *long || name == *short;
    let stages: Vec<String> = match DEFAULT_STAGES.iter().find(is_called) {
        Some((long, _)) => vec![(*long).to_owned()],
        None => DEFAULT_STAGES.iter().map(|(long, _)| (*long).to_owned()).collect(),
    };
    let (name, stages) = (quoted(name), list(&stages));
    text.push_str(&format!(
        r#"
[[agent]]
name = {name}
stages = {stages}
count = 1
{launcher}# Fill in what to run: {telling}, exit status 0 says done.
command = "echo 'fill in this command in pipeline.toml' >&2; exit 1"
"#
    ));
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::{Agents, Template, posts, render, wrapped};
    use crate::config::detect::Found;
    use crate::config::load;
    use crate::machine::mode::{Isolation, Rollout};
    use crate::machine::preset::Preset;
    use crate::machine::settings::{AgentGroup, LauncherKind, Settings};

    fn check(agents: Agents<'_>, isolation: Isolation) -> Settings {
        let found = Found {
            checks: vec!["cargo test".into(), "sh -c 'echo \"a\\b\"'".into()],
            setup: vec!["npm ci".into()],
            keep: vec!["target".into(), "node_modules".into()],
            copy: vec![".env".into()],
        };
        for found in [&found, &Found::default()] {
            let launcher = LauncherKind::Process;
            let text = render(&Template { base: "trunk", found, agents, isolation, launcher });
            let loaded = load(&text).unwrap_or_else(|error| panic!("{error}\n{text}"));
            assert!(!text.contains("rollout set"), "promotion asks the gates: {text}");
            assert_eq!(loaded.settings.project.base, "trunk");
            assert_eq!(loaded.settings.project.isolation, isolation);
            if isolation == Isolation::Worktree {
                assert_eq!(loaded.settings.landing.checks, found.checks);
                assert_eq!(loaded.settings.worktree.setup, found.setup);
                assert_eq!(loaded.settings.worktree.keep, found.keep);
                assert_eq!(loaded.settings.worktree.copy, found.copy);
            }
        }
        let found = Found::default();
        let launcher = LauncherKind::Tmux;
        load(&render(&Template { base: "trunk", found: &found, agents, isolation, launcher }))
            .expect("read above")
            .settings
    }

    #[test]
    fn every_template_is_read_back() {
        for isolation in [Isolation::Worktree, Isolation::None] {
            assert!(check(Agents::Example, isolation).agents.is_empty());
            let shell = check(Agents::Shell, isolation);
            assert_eq!(shell.agents.len(), 4);
            assert_eq!(shell.project.rollout, Rollout::Production);
            let names = ["impl".to_owned(), "someone".to_owned()];
            let named = check(Agents::Named(&names), isolation);
            assert_eq!(named.agents[0].stages, ["implementation"]);
            assert_eq!(named.agents[1].stages.len(), 4);
            assert_eq!(named.project.rollout, Rollout::Pilot);
            let presets = [preset("claude"), preset("codex")];
            let real = check(Agents::Presets(&posts(&presets)), isolation);
            let stages: Vec<&str> = real.agents.iter().map(|group| &*group.stages[0]).collect();
            assert_eq!(stages, ["architect", "test", "implementation", "supervisor"]);
            assert_eq!(real.project.rollout, Rollout::Pilot);
            let has_window = |group: &AgentGroup| group.launcher == LauncherKind::Tmux;
            for settings in [shell, named, real] {
                assert!(settings.agents.iter().all(has_window));
            }
        }
    }

    fn preset(name: &str) -> Preset {
        crate::config::preset::load(Path::new("/nowhere"), name).expect("built in").preset
    }

    #[test]
    fn the_supervisor_is_of_another_provider_where_there_is_one() {
        let table: [(&[&str], &str, &str); 9] = [
            (&["claude", "codex"], "claude", "codex"),
            (&["codex", "claude"], "codex", "claude"),
            (&["claude"], "claude", "claude"),
            (&["claude", "opencode", "gemini"], "claude", "gemini"),
            (&["claude", "opencode"], "claude", "opencode"),
            (&["opencode", "aider", "codex"], "opencode", "codex"),
            (&["opencode", "person"], "opencode", "person"),
            (&["claude", "codex", "person"], "claude", "person"),
            (&["person"], "person", "person"),
        ];
        for (names, worker, judge) in table {
            let presets: Vec<Preset> = names.iter().map(|name| preset(name)).collect();
            let posts = posts(&presets);
            let names: Vec<&str> = posts.iter().map(|post| &*post.preset.name).collect();
            assert_eq!(names, [worker, worker, worker, judge], "{names:?}");
        }
        assert!(posts(&[]).is_empty());
    }

    #[test]
    fn words_are_wrapped() {
        assert_eq!(wrapped("aa bb  cc dddddd e", 5), ["aa bb", "cc", "dddddd", "e"]);
        assert!(wrapped(" ", 5).is_empty());
    }

    #[test]
    fn the_person_in_a_window_is_valid_too() {
        let (found, presets) = (Found::default(), [preset("claude")]);
        let text = render(&Template {
            base: "main",
            found: &found,
            agents: Agents::Presets(&posts(&presets)),
            isolation: Isolation::Worktree,
            launcher: LauncherKind::Tmux,
        });
        let (head, person) = text.split_once("# [[agent]]").expect("a person");
        let text = format!("{head}[[agent]]{}", person.replace("\n# ", "\n"));
        let settings = load(&text).unwrap_or_else(|error| panic!("{error}\n{text}")).settings;
        assert_eq!(settings.agents.last().map(|group| &*group.name), Some("me"));
        let agents = text.split_once("[[agent]]").expect("agents").1;
        assert!(agents.lines().all(|line| line.chars().count() <= 80), "{text}");
    }

    #[test]
    fn the_commented_example_is_valid_too() {
        let found = Found::default();
        for launcher in [LauncherKind::Process, LauncherKind::Tmux] {
            let text = render(&Template {
                base: "main",
                found: &found,
                agents: Agents::Example,
                isolation: Isolation::Worktree,
                launcher,
            });
            let (head, example) = text.split_once("# [[agent]]").expect("an example");
            let example = format!("{head}[[agent]]{}", example.replace("\n# ", "\n"));
            let loaded = load(&example).unwrap_or_else(|error| panic!("{error}\n{example}"));
            let [group] = loaded.settings.agents.as_slice() else { panic!("{example}") };
            assert_eq!((group.count, group.launcher), (3, launcher));
        }
    }
}
