//! The table of what the layers counted, written into `docs/reliability.md`.

use std::fs;
use std::path::Path;
use std::process::ExitCode;

use crate::figures::{self, Figures};

const BEGIN: &str = "<!-- figures -->\n";
const END: &str = "<!-- /figures -->";
const BEGIN_BUGS: &str = "<!-- bugs -->\n";
const END_BUGS: &str = "<!-- /bugs -->";

/// Layers in the order of the table, with what each is.
const LAYERS: [(&str, &str); 9] = [
    ("sim", "Simulation: the real loop, a modelled world, faults drawn by a seed"),
    ("scope", "Small scope: every interleaving of two tasks"),
    ("crash", "SIGKILL at every mutating system call of monitor, keeper and git"),
    ("fail-points", "SIGKILL at every pass of every fail point"),
    ("twice", "SIGKILL there, and once more in the monitor that goes on"),
    ("errors", "The same calls fail"),
    ("damage", "Damaged files"),
    ("writers", "Many writers, killed and stopped"),
    ("mutants", "Seeded bugs"),
];

/// Prints the table of the figures kept by earlier runs, and puts it into the document. The row of a
/// layer that was not run on this machine stays as it is there: it names its commit.
pub fn run() -> ExitCode {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/reliability.md");
    let text = fs::read_to_string(&path).expect("the document is there");
    let mut table = String::from("| Layer | Counted | Went wrong | Seconds | Commit |\n");
    table += "|---|---|---|---|---|\n";
    let mut is_clean = true;
    for (name, what) in LAYERS {
        let Some(found) = Figures::kept(name) else {
            let stands = text.lines().find(|line| line.starts_with(&format!("| `{name}`: ")));
            let not_run = || format!("| `{name}`: {what} | not run | - | - | - |");
            table += &(stands.map_or_else(not_run, str::to_owned) + "\n");
            is_clean &= stands.is_some();
            continue;
        };
        let counts =
            found.counts.iter().map(|(what, n)| format!("{what} {}", figures::grouped(*n)));
        let counts = counts.collect::<Vec<_>>().join("; ");
        let (failures, seconds, commit) = (found.failures.len(), found.seconds, &found.commit);
        is_clean &= failures == 0;
        table += &format!("| `{name}`: {what} | {counts} | {failures} | {seconds} | {commit} |\n");
    }
    print!("{table}");
    let mut text = put(&text, BEGIN, END, &table);
    if let Some(found) = Figures::kept("mutants") {
        let mut bugs = String::from("| Seeded bug | What it does | Caught by | Tests | After |\n");
        bugs += "|---|---|---|---|---|\n";
        for row in &found.rows {
            bugs += &format!("| {} |\n", row.join(" | "));
        }
        text = put(&text, BEGIN_BUGS, END_BUGS, &bugs);
    }
    fs::write(&path, text).expect("writable");
    if is_clean { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

/// The document with a table between two marks.
fn put(text: &str, begin: &str, end: &str, table: &str) -> String {
    let (before, rest) = text.split_once(begin).expect("the document marks the table's place");
    let (_, after) = rest.split_once(end).expect("the document marks the table's end");
    format!("{before}{begin}\n{table}\n{end}{after}")
}
