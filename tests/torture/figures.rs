//! What a layer counted, kept for the report.

use std::fs;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Instant;

use serde::{Deserialize, Serialize};

/// The result of one layer: a row of the table.
#[derive(Debug, Serialize, Deserialize)]
pub struct Figures {
    /// Name of the layer, as on the command line.
    pub layer: String,
    /// What was counted, in order: (what, how many).
    pub counts: Vec<(String, u64)>,
    /// One text for every case that went wrong: how to have it again, and what was seen.
    pub failures: Vec<String>,
    /// How long it took.
    pub seconds: u64,
    #[serde(skip)]
    began: Option<Instant>,
}

impl Figures {
    /// Begins to count for `layer`.
    pub fn new(layer: &str) -> Self {
        let began = Some(Instant::now());
        Self { layer: layer.into(), counts: Vec::new(), failures: Vec::new(), seconds: 0, began }
    }

    /// Adds `more` to what is called `what`.
    pub fn count(&mut self, what: &str, more: u64) {
        match self.counts.iter_mut().find(|(name, _)| name == what) {
            Some((_, number)) => *number += more,
            None => self.counts.push((what.into(), more)),
        }
    }

    /// Prints the figures, keeps them for the report, and makes them an exit code.
    pub fn finish(mut self) -> ExitCode {
        self.seconds = self.began.map_or(0, |began| began.elapsed().as_secs());
        for failure in &self.failures {
            println!("FAILED {failure}");
        }
        for (what, number) in &self.counts {
            println!("{what}: {number}");
        }
        println!("{}: {} failures in {} s", self.layer, self.failures.len(), self.seconds);
        let dir = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join("torture");
        let text = serde_json::to_string_pretty(&self).expect("figures are plain data");
        fs::create_dir_all(&dir).expect("the target folder is writable");
        fs::write(dir.join(format!("{}.json", self.layer)), text + "\n").expect("writable");
        if self.failures.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
    }
}
