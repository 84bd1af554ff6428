//! What must be on disk before what follows it, and where anything is changed at all: read off the
//! calls of whole runs.
//!
//! A kill loses nothing that was written, so it cannot show that a sync is missing; a power cut would.

use std::collections::{BTreeMap, BTreeSet};

use libtest_mimic::Trial;

use super::case::Case;
use super::scenario::SCENARIOS;
use crate::tracer::{Point, obstacle};

/// Commands that write a record; one of them also a checkpoint.
const COMMANDS: [&str; 3] = ["add", "checkpoint", "mode"];

/// What one process has written and not synced.
#[derive(Default)]
struct Unsynced<'a> {
    files: BTreeSet<&'a str>,
    /// A record, or the name of a segment: what must be synced next.
    owed: Option<&'a str>,
    /// Segments that the process knows to be on disk.
    durable: BTreeSet<&'a str>,
}

impl<'a> Unsynced<'a> {
    /// Takes one call; says what is wrong with it.
    fn take(&mut self, call: &'a str) -> Result<(), String> {
        let (name, path) = call.split_once(' ').unwrap_or((call, ""));
        let is_sync = matches!(name, "fsync" | "fdatasync");
        if let Some(owed) = self.owed.take()
            && !(is_sync && path == owed)
        {
            return Err(format!("`{call}` comes before the sync of `{owed}`"));
        }
        match name {
            "fsync" | "fdatasync" => {
                self.files.remove(path);
                self.durable.insert(path);
            }
            "write" | "pwrite" | "writev" if is_segment(path) => {
                if !self.durable.contains(path) {
                    return Err(format!("`{path}` is built upon before it is synced"));
                }
                self.owed = Some(path);
            }
            "write" | "pwrite" | "writev" => {
                self.files.insert(path);
            }
            "rename" | "link" => {
                let is_source = |file: &&&str| is_source(file, path);
                if let Some(file) = self.files.iter().find(is_source) {
                    return Err(format!("`{call}` comes before the sync of `{file}`"));
                }
                if is_segment(path) {
                    self.owed = path.rsplit_once('/').map(|(folder, _)| folder);
                }
            }
            _ => {}
        }
        Ok(())
    }
}

fn is_segment(path: &str) -> bool {
    path.contains("/journal/") && path.ends_with(".ndjson")
}

/// Whether `file` is what gets the name `path`, where that must last: refs, objects, segments.
fn is_source(file: &str, path: &str) -> bool {
    let is_ref = path.contains(".git/refs/")
        && file.strip_suffix(".lock").is_some_and(|of| {
            // Git names its files from where it stands.
            of.ends_with(path) || path.ends_with(of)
        });
    let is_object = path.contains(".git/objects/") && file.contains("/tmp_obj_");
    is_ref || is_object || (is_segment(path) && file.contains("/journal/."))
}

fn check(points: &[Point], wanted: impl Fn(&str) -> bool) -> Result<(), String> {
    let mut processes: BTreeMap<&str, Unsynced<'_>> = BTreeMap::new();
    for point in points.iter().filter(|point| wanted(&point.role)) {
        let process = processes.entry(&point.role).or_default();
        process.take(&point.call).map_err(|why| format!("{}: {why}", point.role))?;
    }
    if processes.is_empty() { Err("no process is of that kind".into()) } else { Ok(()) }
}

/// Where monitor and keepers may change something of a project; git works in its own folders.
const OURS: [&str; 3] = ["project/.git/pipeline", "project/.pipeline", "project/.git/worktrees/"];

/// Says what of these calls changes something of the project that is not ours.
fn astray(points: &[Point]) -> Result<(), String> {
    let is_ours =
        |point: &&Point| point.role.starts_with("monitor#") || point.role.starts_with("keeper ");
    let paths = points.iter().filter(is_ours).flat_map(|point| point.call.split_whitespace());
    let mut paths = paths.filter(|path| path.starts_with("project/")).peekable();
    if paths.peek().is_none() {
        return Err("nothing is changed".into());
    }
    match paths.find(|path| !OURS.iter().any(|ours| path.starts_with(ours))) {
        Some(path) => Err(format!("`{path}` is changed")),
        None => Ok(()),
    }
}

fn observe(name: &str) -> Result<Vec<Point>, String> {
    let found = SCENARIOS.iter().find(|scenario| scenario.name == name);
    Case::new(found.expect("it is listed")).observe()
}

/// The fixed part; ignored, with the reason, where nothing can be traced.
pub(super) fn trials() -> Vec<Trial> {
    let records = Trial::test("crash::a_record_is_synced_before_anything_else_is_done", || {
        for name in COMMANDS {
            check(&observe(name)?, |role| role.starts_with("command#"))?;
        }
        Ok(())
    });
    let git = Trial::test(
        "crash::what_git_writes_is_synced_before_it_has_its_name_and_the_rest_lies_in_our_folders",
        || {
            let points = observe("landing")?;
            astray(&points)?;
            Ok(check(&points, |role| role.starts_with("git "))?)
        },
    );
    let obstacle = obstacle();
    let ignored = |trial: Trial| {
        let kind = obstacle.clone().unwrap_or_default();
        trial.with_kind(kind).with_ignored_flag(obstacle.is_some())
    };
    [records, git].into_iter().map(ignored).collect()
}
