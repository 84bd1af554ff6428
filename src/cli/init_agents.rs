//! Which agents `init` writes, and what it says of them.

use std::path::Path;

use super::error::Error;
use crate::agent::terminal::tmux;
use crate::config::preset;
use crate::config::template::{LINE_CHARS_MAX, Post, wrapped};
use crate::machine::preset::Preset;
use crate::machine::settings::{LauncherKind, Settings};
use crate::monitor::preset::{
    absent, assistants, billed_words, billing_keys_of, broken, found, missing_words,
};

/// What is to be written.
#[derive(Debug)]
pub struct Choice {
    /// In order of preference; empty: no presets are written.
    pub presets: Vec<Preset>,
    /// Nobody was named, and none was found.
    is_none_found: bool,
    /// Why presets of the project's own cannot be used, where nobody was named.
    broken: Vec<String>,
    /// Programs of presets that are not on the PATH, with the command that installs each.
    missing: Vec<(String, String)>,
}

/// Chooses the presets named, or where nobody is named those whose programs are there.
///
/// # Errors
/// When presets and other names are named together, or a preset's file is wrong.
pub fn choose(names: &[String], root: &Path) -> Result<Choice, Error> {
    if names.is_empty() {
        let (presets, broken) = (found(root), broken(root));
        let is_none_found = presets.is_empty();
        return Ok(Choice { presets, is_none_found, broken, missing: Vec::new() });
    }
    let is_preset = |name: &&String| is_preset(name, root);
    let named: Vec<&String> = names.iter().filter(is_preset).collect();
    if !named.is_empty() && named.len() < names.len() {
        let known = assistants().collect::<Vec<_>>().join(", ");
        return Err(Error::usage("`--agents` names presets and others together")
            .hint(format!("name presets alone ({known}), and add the others to pipeline.toml")));
    }
    let (broken, missing) = (Vec::new(), Vec::new());
    let mut choice = Choice { presets: Vec::new(), is_none_found: false, broken, missing };
    for name in named {
        let preset = preset::load(root, name)
            .map_err(|error| Error::invalid(error.to_string()).hint("mend or remove that file"))?
            .preset;
        if let Some(program) = absent(root, &preset) {
            choice.missing.push((program.to_owned(), preset.install.clone()));
        }
        choice.presets.push(preset);
    }
    Ok(choice)
}

/// Returns whether agents of that name are of a preset; `shell` stands for small scripts that work.
fn is_preset(name: &str, root: &Path) -> bool {
    let is_built_in = name == "person" || assistants().any(|known| known == name);
    is_built_in || (name != "shell" && preset::has_own(root, name))
}

/// Columns of a line, without the word that stands before it.
const NOTE_CHARS_MAX: usize = LINE_CHARS_MAX - "note: ".len();

/// Returns the lines to say.
#[must_use]
pub fn told(choice: &Choice, posts: &[Post<'_>], root: &Path) -> Vec<String> {
    let mut lines = Vec::new();
    if choice.is_none_found {
        let known = assistants().collect::<Vec<_>>().join(", ");
        let none = match choice.broken.is_empty() {
            true => format!("no coding assistant is on the PATH ({known})"),
            false => "there is no other coding assistant on the PATH".to_owned(),
        };
        let text = format!("{none}: pipeline.toml holds an example of a script of yours instead");
        lines.extend(wrapped(&text, NOTE_CHARS_MAX));
    }
    let mut names: Vec<&str> = posts.iter().map(|post| post.preset.name.as_str()).collect();
    names.dedup();
    for name in names {
        let own = posts.iter().filter(|post| post.preset.name == name);
        let stages: Vec<&str> = own.clone().map(|post| post.stage).collect();
        let allows = own.clone().next().map_or("", |post| post.preset.allows.as_str());
        let allows = if allows.is_empty() { String::new() } else { format!("; it {allows}") };
        let text = format!("{name} does {}{allows}", stages.join(", "));
        lines.extend(wrapped(&text, NOTE_CHARS_MAX));
        for post in own.take(1) {
            let billed = billed(post.preset, root);
            lines.extend(billed.iter().flat_map(|text| wrapped(text, NOTE_CHARS_MAX)));
        }
    }
    lines
}

/// Says that a program may be billed where its person believes in a subscription, and what helps.
fn billed(preset: &Preset, root: &Path) -> Vec<String> {
    let told = billed_words(&billing_keys_of(root, preset), &preset.name);
    told.map_or_else(Vec::new, |(found, remedy)| vec![found, remedy])
}

/// Returns what to warn of.
#[must_use]
pub fn warnings(choice: &Choice, settings: &Settings) -> Vec<String> {
    let missing = choice.missing.iter();
    let missing = missing.map(|(program, install)| missing_words(program, install));
    let broken = choice.broken.iter().map(|why| {
        format!("{why}\nmend it, move pipeline.toml away and type `pipeline init` again")
    });
    let has_windows = settings.agents.iter().any(|group| group.launcher == LauncherKind::Tmux);
    let no_windows = tmux::lacking().filter(|_| has_windows);
    let no_windows = no_windows.map(|lacking| {
        let (major, minor) = tmux::VERSION_MIN;
        format!(
            "{lacking}: agents in windows wait until tmux {major}.{minor} or newer is installed"
        )
    });
    missing.chain(broken).chain(no_windows).collect()
}
