//! Which agents `init` writes, and what it says of them.

use std::path::Path;

use super::error::Error;
use crate::config::preset;
use crate::config::template::{LINE_CHARS_MAX, Post, wrapped};
use crate::machine::preset::Preset;
use crate::monitor::preset::{assistants, billing_keys_of, found, missing_words};

/// What is to be written.
#[derive(Debug)]
pub struct Choice {
    /// In order of preference; empty: no presets are written.
    pub presets: Vec<Preset>,
    /// Nobody was named, and none was found.
    is_none_found: bool,
    /// Programs of presets that are not on the PATH, with the command that installs each.
    missing: Vec<(String, String)>,
}

/// Chooses the presets named, or where nobody is named those whose programs are there.
///
/// # Errors
/// When presets and other names are named together, or a preset's file is wrong.
pub fn choose(names: &[String], root: &Path) -> Result<Choice, Error> {
    let there = found(root);
    if names.is_empty() {
        let is_none_found = there.is_empty();
        return Ok(Choice { presets: there, is_none_found, missing: Vec::new() });
    }
    let is_preset = |name: &&String| assistants().any(|known| known == name.as_str());
    let named: Vec<&String> = names.iter().filter(is_preset).collect();
    if !named.is_empty() && named.len() < names.len() {
        let known = assistants().collect::<Vec<_>>().join(", ");
        return Err(Error::usage("`--agents` names presets and others together")
            .hint(format!("name presets alone ({known}), and add the others to pipeline.toml")));
    }
    let mut choice = Choice { presets: Vec::new(), is_none_found: false, missing: Vec::new() };
    for name in named {
        let preset = preset::load(root, name)
            .map_err(|error| Error::invalid(error.to_string()).hint("mend or remove that file"))?
            .preset;
        let program = preset.program().unwrap_or_default().to_owned();
        if !there.contains(&preset) {
            choice.missing.push((program, preset.install.clone()));
        }
        choice.presets.push(preset);
    }
    Ok(choice)
}

/// Columns of a line, without the word that stands before it.
const NOTE_CHARS_MAX: usize = LINE_CHARS_MAX - "note: ".len();

/// Returns the lines to say.
#[must_use]
pub fn told(choice: &Choice, posts: &[Post<'_>], root: &Path) -> Vec<String> {
    let mut lines = Vec::new();
    if choice.is_none_found {
        let known = assistants().collect::<Vec<_>>().join(", ");
        let text = format!(
            "no coding assistant is on the PATH ({known}): pipeline.toml holds an example of a \
             script of yours instead"
        );
        lines.extend(wrapped(&text, NOTE_CHARS_MAX));
    }
    let mut names: Vec<&str> = posts.iter().map(|post| post.preset.name.as_str()).collect();
    names.dedup();
    for name in names {
        let own = posts.iter().filter(|post| post.preset.name == name);
        let stages: Vec<&str> = own.clone().map(|post| post.stage).collect();
        let allows = own.clone().next().map_or("", |post| post.preset.allows.as_str());
        let text = format!("{name} does {}; it {allows}", stages.join(", "));
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
    let keys = billing_keys_of(root, preset);
    let Some(first) = keys.first() else { return Vec::new() };
    let (verb, keys, name) =
        (if keys.len() == 1 { "is" } else { "are" }, keys.join(", "), &preset.name);
    let found =
        format!("{keys} {verb} set: {name} may be billed by the token, not by a subscription");
    vec![found, format!("`env = {{ {first} = \"\" }}` in its `[[agent]]` keeps it from it")]
}

/// Returns what to warn of.
#[must_use]
pub fn warnings(choice: &Choice) -> Vec<String> {
    let missing = choice.missing.iter();
    missing.map(|(program, install)| missing_words(program, install)).collect()
}
