//! The proof of the proof: bugs seeded on purpose, each of which some layer must catch.
//!
//! A seeded bug is a patch in this folder. The lines above its diff say what it breaks and what
//! catches it, as arguments of `cargo test`:
//!
//! ```text
//! Bug: the journal is written but not synced
//! Caught-by: --lib store::
//! ```
//!
//! Each patch is put on a copy of the tree, built, and its tests must then fail; without any patch
//! all of them must pass. That each still fits is a test like the others.

use std::collections::BTreeSet;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::process::Output;

use clap::Args;
use libtest_mimic::Trial;
use pipeline::sys::child::command;
use pipeline::sys::clock::monotonic;

use crate::figures::Figures;

/// How long one build or run may take, in seconds.
const LIMIT_S: &str = "600";

/// How much to do.
#[derive(Debug, Args)]
pub struct Options {
    /// Only bugs whose name contains this.
    #[arg(long)]
    bug: Option<String>,
    /// Leaves out the run without a patch.
    #[arg(long)]
    no_control: bool,
}

/// One seeded bug.
struct Bug {
    name: String,
    what: String,
    caught_by: Vec<String>,
    patch: PathBuf,
}

impl Bug {
    fn read(patch: &Path) -> Self {
        let text = fs::read_to_string(patch).expect("a patch is readable");
        let field = |name: &str| {
            let line = text.lines().find_map(|line| line.strip_prefix(name));
            line.unwrap_or_else(|| panic!("`{}` has no line `{name}`", patch.display())).trim()
        };
        Self {
            name: patch.file_stem().expect("listed by its name").to_string_lossy().into_owned(),
            what: field("Bug:").into(),
            caught_by: field("Caught-by:").split_whitespace().map(Into::into).collect(),
            patch: patch.into(),
        }
    }

    /// The layer of the tests that are to catch it, in words.
    fn layer(&self) -> &str {
        let behind = |word: &str| {
            let place = self.caught_by.iter().position(|arg| arg == word)?;
            self.caught_by.get(place + 1).map(String::as_str)
        };
        match behind("--test") {
            Some("torture") => behind("torture").and_then(|it| it.split("::").next()).unwrap_or(""),
            Some(_) => "tests of the program",
            None => "unit tests",
        }
    }
}

fn bugs() -> Vec<Bug> {
    let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/torture/mutants");
    let entries = fs::read_dir(dir).expect("the folder of this file");
    let mut patches: Vec<PathBuf> =
        entries.map(|entry| entry.expect("a readable folder").path()).collect();
    patches.retain(|path| path.extension().is_some_and(|extension| extension == "patch"));
    patches.sort();
    patches.iter().map(|patch| Bug::read(patch)).collect()
}

/// A copy of the committed tree, with a target folder of its own that stays between runs.
struct Tree {
    dir: PathBuf,
    target: PathBuf,
}

impl Tree {
    fn new() -> io::Result<Self> {
        let source = Path::new(env!("CARGO_MANIFEST_DIR"));
        let base = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join("mutants");
        let tree = Self { dir: base.join("tree"), target: base.join("target") };
        if tree.dir.exists() {
            fs::remove_dir_all(&tree.dir)?;
        }
        fs::create_dir_all(&base)?;
        let clone = command("git", &base)
            .args(["clone", "--quiet", "--shared", "--"])
            .args([source, &tree.dir])
            .status()?;
        assert!(clone.success(), "the committed tree can be cloned");
        Ok(tree)
    }

    fn git(&self, args: &[&str]) -> io::Result<Output> {
        command("git", &self.dir).args(args).output()
    }

    /// Builds and runs `cargo test` with `args`; returns whether it built, and the tests' output
    /// when they failed.
    fn test(&self, args: &[String]) -> io::Result<Tested> {
        let cargo = |more: &[&str]| {
            // Some of these bugs never end. No backtraces: what fails here is meant to.
            command("timeout", &self.dir)
                .args(["--kill-after=5", LIMIT_S, env!("CARGO"), "test", "--locked", "--quiet"])
                .args(more)
                .args(args)
                .env("CARGO_TARGET_DIR", &self.target)
                .env("RUST_BACKTRACE", "0")
                .env_remove("RUSTFLAGS")
                .output()
        };
        let built = cargo(&["--no-run"])?;
        if !built.status.success() {
            return Ok(Tested::NotBuilt(String::from_utf8_lossy(&built.stderr).into_owned()));
        }
        let began = monotonic();
        let ran = cargo(&[])?;
        let seconds = began.elapsed().as_secs();
        let text = String::from_utf8_lossy(&ran.stdout).into_owned();
        if ran.status.success() {
            assert!(!text.contains("running 0 tests") || text.contains("1 passed"), "{text}");
            return Ok(Tested::Passed);
        }
        Ok(Tested::Failed(text, seconds))
    }
}

enum Tested {
    NotBuilt(String),
    Passed,
    /// What they said, and for how many seconds they ran.
    Failed(String, u64),
}

/// Seeds each bug in turn.
pub fn run(options: &Options) -> Figures {
    let mut figures = Figures::new("mutants");
    figures.is_part = options.bug.is_some() || options.no_control;
    let bugs = bugs();
    let wanted = |bug: &&Bug| options.bug.as_ref().is_none_or(|part| bug.name.contains(part));
    let bugs: Vec<&Bug> = bugs.iter().filter(wanted).collect();
    let tree = Tree::new().expect("there is room for a copy of the tree");
    if !options.no_control {
        let commands: BTreeSet<&Vec<String>> = bugs.iter().map(|bug| &bug.caught_by).collect();
        for args in commands {
            match tree.test(args).expect("cargo can be run") {
                Tested::Passed => {}
                Tested::NotBuilt(text) | Tested::Failed(text, _) => {
                    figures.failures.push(format!("without a bug {args:?} fails: {text}"));
                    return figures;
                }
            }
        }
    }
    for bug in bugs {
        figures.count("seeded bugs", 1);
        match seed(&tree, bug).expect("git and cargo can be run") {
            Ok((by, after)) => {
                println!("{}: {}: caught by {by} after {after}", bug.name, bug.what);
                figures.count("caught", 1);
                figures.count(&format!("by {}", bug.layer()), 1);
                let row = [&bug.name, &bug.what, bug.layer(), &by, &after];
                figures.rows.push(row.map(str::to_owned).to_vec());
            }
            Err(why) => figures.failures.push(format!("{}: {}: {why}", bug.name, bug.what)),
        }
    }
    figures
}

/// Seeds one bug; returns the tests that caught it and after how much, or why nothing did.
fn seed(tree: &Tree, bug: &Bug) -> io::Result<Result<(String, String), String>> {
    let patch = bug.patch.to_string_lossy();
    let applied = tree.git(&["apply", "--whitespace=nowarn", "--", &patch])?;
    if !applied.status.success() {
        let text = String::from_utf8_lossy(&applied.stderr).into_owned();
        return Ok(Err(format!("the patch does not fit: {text}")));
    }
    let tested = tree.test(&bug.caught_by);
    let reset = tree.git(&["checkout", "--quiet", "--", "."])?;
    assert!(reset.status.success(), "the copy can be reset");
    Ok(match tested? {
        Tested::NotBuilt(text) => Err(format!("does not build: {text}")),
        Tested::Passed => Err(format!("`cargo test {}` passes", bug.caught_by.join(" "))),
        Tested::Failed(text, seconds) => {
            let after = simulated_steps(&text).unwrap_or_else(|| format!("{seconds} s"));
            Ok((failed_tests(&text), after))
        }
    })
}

/// After how many steps the simulator, of whom this is the output, first saw something.
fn simulated_steps(output: &str) -> Option<String> {
    let rest = &output[output.find("after ")? + "after ".len()..];
    let steps = rest.split_once(" steps").map(|(number, _)| number)?;
    steps.bytes().all(|byte| byte.is_ascii_digit()).then(|| format!("{steps} steps"))
}

/// Names the tests that failed; what ended the whole run has no name.
fn failed_tests(output: &str) -> String {
    let names = output.split("failures:\n").last().unwrap_or_default().lines();
    let names = names.map(str::trim).take_while(|line| !line.starts_with("test result"));
    let names: Vec<&str> = names.filter(|line| line.contains("::")).take(3).collect();
    if names.is_empty() { "the run's end".into() } else { names.join(", ") }
}

/// That every patch fits the source, for `cargo test`.
pub fn trials() -> Vec<Trial> {
    let fit = || {
        let source = Path::new(env!("CARGO_MANIFEST_DIR"));
        let mut unfit = Vec::new();
        for bug in bugs() {
            let patch = bug.patch.to_string_lossy();
            let checked =
                command("git", source).args(["apply", "--check", "--", &patch]).output()?;
            if !checked.status.success() {
                unfit.push(format!("{}: {}", bug.name, String::from_utf8_lossy(&checked.stderr)));
            }
        }
        if unfit.is_empty() { Ok(()) } else { Err(unfit.join("\n").into()) }
    };
    vec![Trial::test("mutants::every_seeded_bug_fits_the_source", fit)]
}
