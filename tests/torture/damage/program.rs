//! The same by the real program: exit codes, messages, and files beside the journal.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use super::forge;
use crate::support::project::Project;

/// A check by its claim; returns the number of its cases.
pub(super) type Check = (&'static str, fn() -> u64);

pub(super) const CHECKS: &[Check] = &[
    ("the_program_refuses_damage_with_3_and_newer_with_4", refusals),
    ("a_segment_of_another_project_is_refused_with_3_and_set_aside", strangers),
    ("broken_settings_keep_the_adopted_ones", settings),
    ("garbled_records_of_keepers_cost_a_try_and_no_task", keepers),
];

fn journal(project: &Project) -> PathBuf {
    project.path(".git/pipeline/journal/00000000000000000000.ndjson")
}

/// All below the state folder but locks, which are made by taking them.
fn files(project: &Project) -> BTreeMap<PathBuf, Vec<u8>> {
    let entries = walkdir::WalkDir::new(project.path(".git/pipeline")).into_iter().flatten();
    let files = entries.map(walkdir::DirEntry::into_path).filter(|path| path.is_file());
    files
        .filter(|path| path.extension().is_none_or(|it| it != "lock") && !path.ends_with("lock"))
        .map(|path| (path.clone(), fs::read(path).expect("a file")))
        .collect()
}

/// The journal with another record on line 3: whole, numbered as the one that stood there, and
/// behind the same one; but what stands on line 4 does not follow it.
fn forged(whole: &str) -> String {
    let old = whole.lines().nth(2).expect("three lines");
    let new = forge::line(old, ("two", "owt"), 0, None);
    assert_ne!(old, new);
    whole.replacen(old, &new, 1)
}

fn refusals() -> u64 {
    let project = Project::new(1);
    for title in ["one", "two", "three"] {
        project.ok(&["task", "add", title]);
    }
    let path = journal(&project);
    let whole = fs::read_to_string(&path).expect("the journal");
    let middle = whole.replacen("one", "öne", 1);
    let newer = whole.replacen("\n{\"v\":1", "\n{\"v\":2", 1);
    let cases = [
        ("another record in the place of one", forged(&whole).into_bytes(), 3, "line 4 (byte "),
        ("the middle", middle.into_bytes(), 3, "line 2 (byte "),
        ("a newer record", newer.into_bytes(), 4, "of format 2"),
        ("emptied", Vec::new(), 3, "line 1 (byte 0)"),
        ("zeroed", vec![0; whole.len()], 3, "line 1 (byte 0)"),
        (
            "cut, and shown as acknowledged",
            whole.as_bytes()[..whole.len() - 9].to_vec(),
            3,
            "line 4 (byte ",
        ),
        ("CRLF", whole.replace('\n', "\r\n").into_bytes(), 3, "line 1 (byte 0)"),
    ];
    let mut count = 0;
    for (name, bytes, code, place) in cases {
        fs::write(&path, bytes).expect("the journal");
        let before = files(&project);
        for args in [
            &["status"][..],
            &["task", "add", "four"],
            &["task", "list", "--json"],
            &["log"],
            &["monitor", "--once"],
            &["stop"],
        ] {
            let said = project.fails(code, args);
            let names = path.to_str().expect("UTF-8");
            assert!(said.contains(names) && said.contains(place), "{name}: {said}");
            assert!(said.contains("hint"), "{name}: {said}");
            assert!(!said.contains("panicked"), "{name}: {said}");
            assert_eq!(before, files(&project), "{name}: {args:?} changed something");
            count += 1;
        }
        let said = project.fails(code, &["doctor"]);
        assert!(said.contains(place), "{name}: {said}");
        assert_eq!(before, files(&project), "{name}: doctor changed something");
    }
    // Without the view nothing shows that the last record was acknowledged: cut, kept and told.
    fs::write(&path, &whole[..whole.len() - 9]).expect("the journal");
    fs::remove_file(project.path(".git/pipeline/state.json")).expect("the view");
    let done = project.run(&["task", "add", "four"]);
    assert_eq!(done.code, Some(0), "{}", done.err);
    assert!(done.err.contains("torn-"), "it is told: {}", done.err);
    let torn = fs::read_dir(path.parent().expect("a folder")).expect("it").flatten();
    assert_eq!(torn.filter(|it| it.path().to_string_lossy().contains("torn-")).count(), 1);
    // Nothing left at all is never a new beginning.
    fs::remove_dir_all(path.parent().expect("a folder")).expect("the journal");
    for args in [&["status"][..], &["init"], &["task", "add", "five"], &["doctor"]] {
        project.fails(3, args);
        count += 1;
    }
    count + 1
}

fn titles(project: &Project) -> Vec<String> {
    let list = project.ok(&["task", "list", "--json"]);
    let list: serde_json::Value = serde_json::from_str(&list).expect("JSON");
    let tasks = list["tasks"].as_array().expect("tasks").iter();
    tasks.map(|task| task["title"].as_str().expect("a title").to_owned()).collect()
}

/// A file of another project's journal, under a higher number, beside the one of this project.
fn strangers() -> u64 {
    let project = Project::new(1);
    let titles_wanted = ["one", "two", "three"];
    for title in titles_wanted {
        project.ok(&["task", "add", title]);
    }
    let whole = fs::read(journal(&project)).expect("the journal");
    let follows = "0123456789abcdef";
    let text = String::from_utf8(whole.clone()).expect("a journal is text");
    let first = text.lines().next().expect("a checkpoint");
    let chained = text.replacen(first, &forge::line(first, ("", ""), 0, Some(follows)), 1);
    let other = forge::segment(chained.as_bytes(), ("two", "owt"), 70);
    let path = journal(&project).with_file_name("00000000000000000070.ndjson");
    fs::write(&path, &other).expect("a segment more");
    let before = files(&project);
    let mut count = 0;
    for args in [
        &["status"][..],
        &["task", "add", "four"],
        &["log"],
        &["monitor", "--once"],
        &["doctor"],
        &["doctor", "--repair", "-n"],
    ] {
        let said = project.fails(3, args);
        let names = path.to_str().expect("UTF-8");
        assert!(said.contains(names) && said.contains("it follows checksum"), "{args:?}: {said}");
        assert_eq!(before, files(&project), "{args:?} changed something");
        count += 1;
    }
    let said = project.fails(3, &["status"]);
    assert!(said.contains("line 1 (byte 0)") && said.contains("another folder"), "{said}");
    // The view shows a record that this project's own segment has.
    project.ok(&["doctor", "--repair"]);
    assert_eq!(titles(&project), titles_wanted);
    let aside = path.with_file_name("damaged-00000000000000000070-1");
    assert_eq!(fs::read(&aside).expect("it is kept"), other);
    // Nothing shows which of the two it is: a person must say so.
    fs::rename(&aside, &path).expect("a segment more");
    fs::remove_file(project.path(".git/pipeline/state.json")).expect("the view");
    let before = files(&project);
    let said = project.fails(3, &["doctor", "--repair"]);
    assert!(said.contains("move that one to another folder"), "{said}");
    assert_eq!(before, files(&project));
    fs::remove_file(&path).expect("as it says");
    assert_eq!(titles(&project), titles_wanted);
    count + 3
}

fn settings() -> u64 {
    let project = Project::new(1);
    let path = project.path("pipeline.toml");
    let whole = fs::read(&path).expect("the settings");
    let half = whole[..whole.len() / 2].to_vec();
    let cases: [(&str, Option<Vec<u8>>); 6] = [
        ("garbage", Some(b"\0\xff garbage".to_vec())),
        ("half of it", Some([&half[..], b"\n[["].concat())),
        ("an unknown key", Some([&whole[..], b"\n[limit]\nx = 1\n"].concat())),
        ("a cycle of words", Some(b"project = 1\n".to_vec())),
        ("zeros", Some(vec![0; whole.len()])),
        ("gone", None),
    ];
    let count = cases.len() as u64;
    for (name, bytes) in cases {
        match bytes {
            Some(bytes) => fs::write(&path, bytes).expect("the settings"),
            None => fs::remove_file(&path).expect("the settings"),
        }
        let done = project.run(&["task", "add", name]);
        assert_eq!(done.code, Some(0), "{name}: {}", done.err);
        assert_eq!(done.err.contains("the old settings count"), path.exists(), "{}", done.err);
        let agents = project.status()["agents"].as_object().expect("agents").len();
        assert_eq!(agents, 4, "{name}: the adopted agents stay");
    }
    assert_eq!(project.count("total"), count);
    count
}

fn damage(path: &Path, bytes: &[u8]) {
    fs::write(path, bytes).expect("a record");
}

/// Kills monitor and keeper in the middle of an attempt, damages what they left, and starts again.
fn keepers() -> u64 {
    let garbled: [&[u8]; 3] = [b"", b"\0\0\0\0", b"{\"v\":1,\"att"];
    for bytes in garbled {
        let project = Project::new(1);
        project.ok(&["task", "add", "one", "--id", "A"]);
        project.hold("hold");
        let mut monitor = project.monitor(&[]);
        project.until("an agent at work", || !project.runs().is_empty());
        monitor.kill();
        let dir = project.path(".git/pipeline");
        for entry in walkdir::WalkDir::new(dir.join("attempts")).into_iter().flatten() {
            if entry.file_name() == "started.json" {
                damage(entry.path(), bytes);
                damage(&entry.path().with_file_name("exit.json"), bytes);
            }
        }
        damage(&dir.join("keepers/architect/keeper.json"), bytes);
        let base = project.dir();
        crate::support::processes_of(&base)
            .iter()
            .filter(|(_, line)| line.contains("__keeper"))
            .for_each(|(pid, _)| crate::support::signal(*pid, rustix::process::Signal::KILL));
        project.release("hold");
        project.ok(&["monitor", "--until-idle", "--timeout", "240s"]);
        assert_eq!(project.task("A"), "completed", "{}", project.story());
        project.until("the keepers' end", || crate::support::processes_of(&base).is_empty());
    }
    garbled.len() as u64
}
