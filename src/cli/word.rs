//! Words that stand in the wrong place, answered with the command that takes them.

use clap::CommandFactory;
use clap::error::{ContextKind, ContextValue, ErrorKind};

use super::args::Args;
use super::value;

/// Returns the right command for the word that clap could not place; `None` where there is none.
#[must_use]
pub fn hint(error: &clap::Error) -> Option<String> {
    match error.kind() {
        ErrorKind::InvalidSubcommand => match error.get(ContextKind::InvalidSubcommand) {
            Some(ContextValue::String(word)) => right_command(word).or_else(|| elsewhere(word)),
            _ => None,
        },
        ErrorKind::UnknownArgument => match error.get(ContextKind::InvalidArg) {
            Some(ContextValue::String(word)) if is_about_modes(error) => right_command(word),
            _ => None,
        },
        _ => None,
    }
}

/// Returns whether it is about a command of `pipeline mode` or `pipeline rollout`.
fn is_about_modes(error: &clap::Error) -> bool {
    let usage = match error.get(ContextKind::Usage) {
        Some(ContextValue::StyledStr(usage)) => usage.to_string(),
        _ => return false,
    };
    ["mode", "rollout"].iter().any(|name| usage.split_whitespace().nth(2) == Some(*name))
}

/// Returns the command that takes this word for a mode or a rollout; `None` for other words.
#[must_use]
pub fn right_command(word: &str) -> Option<String> {
    if value::rollout(word).is_some() {
        return Some(format!("`{word}` is a rollout: pipeline rollout set {word}"));
    }
    value::orchestration(word)
        .is_some()
        .then(|| format!("`{word}` is a mode: pipeline mode switch {word}"))
}

/// Returns the commands so called that stand elsewhere.
fn elsewhere(word: &str) -> Option<String> {
    let command = Args::command();
    let mut found = Vec::new();
    for top in command.get_subcommands().filter(|top| !top.is_hide_set()) {
        if is_called(top, word) {
            found.push(format!("`pipeline {}`", top.get_name()));
        }
        let below = top.get_subcommands().filter(|below| is_called(below, word));
        let words =
            |below: &clap::Command| format!("`pipeline {} {}`", top.get_name(), below.get_name());
        found.extend(below.map(words));
    }
    let last = found.pop()?;
    let listed = if found.is_empty() { last } else { format!("{} or {last}", found.join(", ")) };
    Some(format!("did you mean {listed}?"))
}

fn is_called(command: &clap::Command, word: &str) -> bool {
    command.get_name() == word || command.get_visible_aliases().any(|alias| alias == word)
}
