//! Completions: scripts for the shells, and the hidden command that they ask for words.
//!
//! What there is to choose from is read from `state.json`, a view that any process may read; nothing
//! is locked, written or waited for, and whatever fails leaves nothing to choose from.

mod known;
mod place;

use std::ffi::OsString;
use std::path::Path;

use clap_complete::Shell;

use super::args;
use super::console::Console;
use super::error::Error;
use known::Known;
use place::{Choice, Place};

/// Prints the completions for a shell.
///
/// # Errors
/// When standard output cannot be written.
pub fn script(console: &mut Console<'_>, shell: Shell) -> Result<(), Error> {
    let script = match shell {
        Shell::Bash => include_str!("pipeline.bash"),
        Shell::Zsh => include_str!("_pipeline"),
        Shell::Fish => include_str!("pipeline.fish"),
        // Commands and flags only.
        other => {
            let mut text = Vec::new();
            clap_complete::generate(other, &mut args::definition(), "pipeline", &mut text);
            return console.write(&text);
        }
    };
    console.write(script.as_bytes())
}

/// Prints what a command line could go on with: a word a line, with its meaning behind a tab; or
/// `:files`, `:folders` where the shell knows better.
///
/// `words` are those behind the program's name up to the one that is completed, which may be empty.
///
/// # Errors
/// When standard output cannot be written.
pub fn run(console: &mut Console<'_>, dir: &Path, words: &[OsString]) -> Result<(), Error> {
    let words: Vec<String> = words.iter().map(|word| word.to_string_lossy().into_owned()).collect();
    let command = args::definition();
    let place = Place::of(&command, &words);
    let mut text = String::new();
    let dir = place.dirs.iter().fold(dir.to_owned(), |dir, next| dir.join(next));
    let known = Known::new(dir);
    for choice in &place.choices {
        match choice {
            Choice::Word { word, about } => add(&mut text, &place, word, about),
            Choice::Files => text.push_str(":files\n"),
            Choice::Folders => text.push_str(":folders\n"),
            Choice::Named(kind) => {
                for (word, about) in known.words(*kind) {
                    add(&mut text, &place, &word, &about);
                }
            }
        }
    }
    console.write(text.as_bytes())
}

/// Adds a word, if it goes on from what is typed.
fn add(text: &mut String, place: &Place, word: &str, about: &str) {
    if !word.starts_with(&place.typed) || place.given.iter().any(|given| given == word) {
        return;
    }
    let about = about.lines().next().unwrap_or_default();
    text.push_str(&place.before);
    text.push_str(word);
    text.push('\t');
    text.extend(about.chars().filter(|c| !c.is_control()));
    text.push('\n');
}
