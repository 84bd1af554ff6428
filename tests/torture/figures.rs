//! What a layer counted, kept for the report.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Instant;

use pipeline::sys::child::command;
use pipeline::sys::clock::monotonic;
use serde::{Deserialize, Serialize};

/// The result of one layer: a row of the table.
#[derive(Debug, Serialize, Deserialize)]
pub struct Figures {
    /// Name of the layer, as on the command line.
    pub layer: String,
    /// What was counted, in order: (what, how many).
    pub counts: Vec<(String, u64)>,
    /// Rows of a table of their own, where the layer has one.
    #[serde(default)]
    pub rows: Vec<Vec<String>>,
    /// One text for every case that went wrong: how to have it again, and what was seen.
    pub failures: Vec<String>,
    /// How long it took.
    pub seconds: u64,
    /// The commit that was tested; with `+` when something was not committed.
    pub commit: String,
    /// A hash of the program that was tested.
    #[serde(default)]
    pub program: String,
    /// Only some of the layer's cases were asked for: not kept for the report.
    #[serde(skip)]
    pub is_part: bool,
    #[serde(skip)]
    began: Option<Instant>,
}

impl Figures {
    /// Begins to count for `layer`.
    pub fn new(layer: &str) -> Self {
        Self {
            layer: layer.into(),
            counts: Vec::new(),
            rows: Vec::new(),
            is_part: false,
            failures: Vec::new(),
            seconds: 0,
            commit: commit(),
            program: program(),
            began: Some(monotonic()),
        }
    }

    /// Reads what an earlier run of `layer` kept.
    pub fn kept(layer: &str) -> Option<Self> {
        let text = fs::read_to_string(path(layer)).ok()?;
        Some(serde_json::from_str(&text).expect("figures are read as they were written"))
    }

    /// Adds `more` to what is called `what`.
    pub fn count(&mut self, what: &str, more: u64) {
        match self.counts.iter_mut().find(|(name, _)| name == what) {
            Some((_, number)) => *number += more,
            None => self.counts.push((what.into(), more)),
        }
    }

    /// Adds what `part` counted and what went wrong in it.
    pub fn add(&mut self, part: Self) {
        for (what, more) in &part.counts {
            self.count(what, *more);
        }
        self.failures.extend(part.failures);
    }

    /// Keeps what was counted up to now, with the time it took.
    pub fn keep(&mut self) {
        self.seconds += self.began.take().map_or(0, |began| began.elapsed().as_secs());
        let text = serde_json::to_string_pretty(self).expect("figures are plain data");
        let path = path(&self.layer);
        fs::create_dir_all(path.parent().expect("it is in a folder")).expect("writable");
        fs::write(path, text + "\n").expect("the target folder is writable");
    }

    /// Prints the figures, keeps them for the report if they are whole, and makes them an exit code.
    pub fn finish(mut self) -> ExitCode {
        self.seconds += self.began.take().map_or(0, |began| began.elapsed().as_secs());
        for failure in &self.failures {
            println!("FAILED {failure}");
        }
        for (what, number) in &self.counts {
            println!("{what}: {number}");
        }
        println!("{}: {} failures in {} s", self.layer, self.failures.len(), self.seconds);
        if !self.is_part {
            self.keep();
        }
        if self.failures.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
    }
}

fn path(layer: &str) -> PathBuf {
    Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("torture/{layer}.json"))
}

fn commit() -> String {
    let args = ["describe", "--always", "--exclude=*", "--dirty=+"];
    let output = command("git", Path::new(env!("CARGO_MANIFEST_DIR"))).args(args).output();
    let text = output.map(|output| String::from_utf8_lossy(&output.stdout).trim().to_owned());
    text.unwrap_or_default()
}

/// Returns a hash of the program, which tells it from others that were built at other commits.
fn program() -> String {
    let bytes = fs::read(env!("CARGO_BIN_EXE_pipeline")).expect("the program was built");
    format!("{:032x}", xxhash_rust::xxh3::xxh3_128(&bytes))
}

/// Writes a number with commas between its thousands.
pub fn grouped(number: u64) -> String {
    let digits = number.to_string();
    let mut text = String::new();
    for (at, digit) in digits.char_indices() {
        if at > 0 && (digits.len() - at).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}
