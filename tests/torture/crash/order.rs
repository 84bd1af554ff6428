//! What must be on disk before what follows it, and where anything is changed at all: read off the
//! calls of whole runs; the long run looks so at every scenario.
//!
//! A kill loses nothing that was written, so it cannot show that a sync is missing; a power cut would.

mod places;
mod records;

use std::collections::{BTreeMap, BTreeSet};

use libtest_mimic::{Failed, Trial};

use super::case::Case;
use super::scenario::{SCENARIOS, Scenario};
use crate::tracer::{Point, obstacle};
use records::Move;

/// Commands that write a record; one of them also a checkpoint.
const COMMANDS: [&str; 3] = ["add", "checkpoint", "mode"];

/// Runs in which the monitor acts, and what must be on record before a ref is moved there.
const ACTING: [(&str, &[Move]); 2] = [
    ("implementation", &[("/refs/heads/pipeline/landed", 0, &["base_seen"])]),
    (
        "landing",
        &[
            ("/refs/heads/pipeline/landed", 0, &["base_seen"]),
            ("/refs/heads/pipeline/landed", 1, &["landing_set", "moving"]),
            ("/refs/heads/main", 0, &["\"kind\":\"landed\""]),
        ],
    ),
];

/// Runs of one kind each in which it is looked where anything is changed; the long run looks at all.
const PLACES: [&str; 4] = ["init", "following", "deinit-forced", "salvage-restored"];

/// What one process has written and not synced.
#[derive(Default)]
struct Unsynced<'a> {
    files: BTreeSet<&'a str>,
    /// A record, or the name of a segment, by the thread that wrote it: what this must sync next.
    owed: BTreeMap<i32, &'a str>,
    /// Segments that the process knows to be on disk.
    durable: BTreeSet<&'a str>,
}

impl<'a> Unsynced<'a> {
    /// Takes one call; says what is wrong with it.
    fn take(&mut self, Point { call, thread, .. }: &'a Point) -> Result<(), String> {
        let (name, path) = call.split_once(' ').unwrap_or((call, ""));
        let is_sync = matches!(name, "fsync" | "fdatasync");
        if let Some(owed) = self.owed.remove(thread)
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
                self.owed.insert(*thread, path);
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
                    let folder = path.rsplit_once('/').map(|(folder, _)| folder);
                    self.owed.extend(folder.map(|folder| (*thread, folder)));
                    // What it was made of is synced, or it was said above.
                    self.durable.insert(path);
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

/// Looks at the processes whose role is `wanted`; returns how many there are.
fn check(points: &[Point], wanted: impl Fn(&str) -> bool) -> Result<usize, String> {
    let mut processes: BTreeMap<&str, Unsynced<'_>> = BTreeMap::new();
    for point in points.iter().filter(|point| wanted(&point.role)) {
        let process = processes.entry(&point.role).or_default();
        process.take(point).map_err(|why| format!("{}: {why}", point.role))?;
    }
    Ok(processes.len())
}

/// Says what a whole run has done before it was allowed to, or where it was not.
pub(super) fn judge(scenario: &Scenario, points: &[Point]) -> Vec<String> {
    let mut wrong = places::astray(scenario.name, points);
    let is_ours =
        |role: &str| ["monitor#", "command#", "git "].iter().any(|it| role.starts_with(it));
    wrong.extend(check(points, is_ours).err());
    wrong.extend(records::come_first(points).err());
    let is_tmux =
        |point: &Point| point.call.starts_with("execve ") && point.call.ends_with("/tmux");
    let has_windows = points.iter().any(is_tmux);
    for points in by_process(points, "keeper ").values() {
        wrong.extend(records::of_keeper(points, has_windows).err());
    }
    wrong.iter().map(|why| format!("{}: {why}", scenario.name)).collect()
}

/// Returns the calls of each process whose role begins so.
fn by_process<'a>(points: &'a [Point], role: &str) -> BTreeMap<&'a str, Vec<&'a Point>> {
    let mut found: BTreeMap<&str, Vec<&Point>> = BTreeMap::new();
    for point in points.iter().filter(|point| point.role.starts_with(role)) {
        found.entry(&point.role).or_default().push(point);
    }
    found
}

fn observe(name: &str) -> Result<(&'static Scenario, Vec<Point>), String> {
    let found = SCENARIOS.iter().find(|scenario| scenario.name == name).expect("it is listed");
    Ok((found, Case::new(found).observe()?))
}

fn none(wrong: &[String]) -> Result<(), Failed> {
    if wrong.is_empty() { Ok(()) } else { Err(wrong.join("\n").into()) }
}

/// The fixed part; ignored, with the reason, where nothing can be traced.
pub(super) fn trials() -> Vec<Trial> {
    let records = Trial::test("crash::a_record_is_synced_before_anything_else_is_done", || {
        for name in COMMANDS {
            let (_, points) = observe(name)?;
            let count = check(&points, |role| role.starts_with("command#"))?;
            assert!(count > 0, "no command is seen in {name}");
        }
        Ok(())
    });
    let acts =
        Trial::test("crash::what_is_on_record_is_synced_before_anybody_acts_upon_it", || {
            for (name, moves) in ACTING {
                let (scenario, points) = observe(name)?;
                none(&judge(scenario, &points))?;
                let count = records::come_first(&points)?;
                assert!(count > 10, "only {count} calls are of an attempt in {name}");
                records::moves(&points, moves)?;
                let keepers = by_process(&points, "keeper ");
                let told = keepers
                    .values()
                    .map(|points| records::of_keeper(points, false))
                    .sum::<Result<usize, _>>()?;
                assert!(told > 0, "no keeper tells of an end in {name}");
            }
            Ok(())
        });
    let git = Trial::test(
        "crash::what_git_writes_is_synced_before_it_has_its_name_and_the_rest_lies_in_our_folders",
        || {
            for name in PLACES {
                let (scenario, points) = observe(name)?;
                none(&judge(scenario, &points))?;
                assert!(points.iter().any(|point| point.role.starts_with("git ")), "{name}");
            }
            Ok(())
        },
    );
    let obstacle = obstacle();
    let ignored = |trial: Trial| {
        let kind = obstacle.clone().unwrap_or_default();
        trial.with_kind(kind).with_ignored_flag(obstacle.is_some())
    };
    [records, acts, git].into_iter().map(ignored).collect()
}
