//! What the code must look like: purity of the machine, sizes, and what stands nowhere.

use std::fs;
use std::path::{Path, PathBuf};

const FUNCTION_LINES_MAX: usize = 70;
const FILE_LINES_MAX: usize = 800;

/// What the pure core must not name.
const IMPURE: [&str; 13] = [
    "std::fs",
    "std::net",
    "std::process",
    "std::thread",
    "std::env",
    "std::time",
    "std::sync::Mutex",
    "::now(",
    "rand::",
    "getrandom",
    "tokio",
    "println",
    "std::io",
];

/// Files of `src/machine` in which `_ =>` stands, on integers or strings, and how often.
const WILDCARDS: [(&str, usize); 0] = [];

fn root() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
}

/// All Rust files below a folder of the project, as (path from the root, text); sorted.
fn sources(folder: &str) -> Vec<(String, String)> {
    let mut todo = vec![root().join(folder)];
    let mut found = Vec::new();
    while let Some(folder) = todo.pop() {
        for entry in fs::read_dir(&folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                todo.push(path);
            } else if path.extension().is_some_and(|ending| ending == "rs") {
                let name = path.strip_prefix(root()).unwrap().to_str().unwrap().to_owned();
                found.push((name, fs::read_to_string(&path).unwrap()));
            }
        }
    }
    assert!(!found.is_empty(), "{folder} holds no sources");
    found.sort();
    found
}

/// Lines of code with their numbers, without comments.
fn code(text: &str) -> impl Iterator<Item = (usize, &str)> {
    let lines = text.lines().enumerate().map(|(place, line)| (place + 1, line));
    lines.filter(|(_, line)| !line.trim_start().starts_with("//"))
}

/// Says where `needle` stands in code below `folder`, outside of what `is_allowed`.
fn places(folder: &str, needle: &str, is_allowed: impl Fn(&str) -> bool) -> Vec<String> {
    let mut found = Vec::new();
    for (path, text) in sources(folder) {
        if is_allowed(&path) {
            continue;
        }
        let hits = code(&text).filter(|(_, line)| line.contains(needle));
        found.extend(hits.map(|(number, line)| format!("{path}:{number}: {}", line.trim())));
    }
    found
}

fn is_this_file(path: &str) -> bool {
    Path::new(path).file_name() == Path::new(file!()).file_name()
}

#[test]
fn the_machine_is_pure() {
    for needle in IMPURE {
        assert_eq!(places("src/machine", needle, |_| false), [""; 0], "`{needle}`");
    }
    for (path, text) in sources("src/machine") {
        for (number, line) in code(&text).filter(|(_, line)| line.contains("use crate::")) {
            let is_own = line.trim().starts_with("use crate::machine");
            assert!(is_own, "{path}:{number}: {line}");
        }
    }
}

#[test]
fn the_machine_matches_its_enums_in_full() {
    for (path, text) in sources("src/machine") {
        let count = code(&text).filter(|(_, line)| line.trim_start().starts_with("_ =>")).count();
        let allowed = WILDCARDS.iter().find(|(allowed, _)| path.ends_with(allowed));
        assert_eq!(count, allowed.map_or(0, |(_, count)| *count), "`_ =>` in {path}");
    }
}

#[test]
fn imports_point_one_way() {
    let rules: [(&str, &[&str]); 5] = [
        ("sys", &["machine", "sys"]),
        ("store", &["machine", "sys", "store"]),
        ("agent", &["machine", "sys", "agent"]),
        ("git", &["machine", "sys", "git"]),
        ("config", &["machine", "sys", "config"]),
    ];
    for (module, allowed) in rules {
        let folder = format!("src/{module}");
        if !root().join(&folder).is_dir() {
            continue;
        }
        for (path, text) in sources(&folder) {
            for (number, line) in code(&text) {
                let Some((_, rest)) = line.split_once("crate::") else { continue };
                let is_allowed = allowed.iter().any(|name| {
                    let end = rest.strip_prefix(name);
                    end.is_some_and(|end| !end.starts_with(|c: char| c.is_alphanumeric()))
                });
                assert!(is_allowed, "{path}:{number}: {line}");
            }
        }
    }
}

#[test]
fn files_are_short() {
    for (path, text) in sources("src").into_iter().chain(sources("tests")) {
        let lines = text.lines().count();
        assert!(lines <= FILE_LINES_MAX, "{path} has {lines} lines: it is two nouns");
    }
}

#[test]
fn functions_are_short() {
    for (path, text) in sources("src").into_iter().chain(sources("tests")) {
        for (number, name, lines) in functions(&text) {
            assert!(lines <= FUNCTION_LINES_MAX, "{path}:{number}: `{name}` has {lines} lines");
        }
    }
}

/// First line, name and number of lines of every function, by indentation: rustfmt puts the closing
/// brace under the first letter of the item.
fn functions(text: &str) -> Vec<(usize, String, usize)> {
    let lines: Vec<&str> = text.lines().collect();
    let mut found = Vec::new();
    for (place, line) in lines.iter().enumerate() {
        let indent = line.len() - line.trim_start().len();
        let words = line.trim_start().trim_start_matches("pub ");
        let words = words.trim_start_matches("pub(crate) ").trim_start_matches("pub(super) ");
        let Some(rest) = words.trim_start_matches("const ").strip_prefix("fn ") else { continue };
        let name = rest.split(['(', '<']).next().unwrap_or_default().to_owned();
        let close = format!("{}}}", " ".repeat(indent));
        let is_whole = line.ends_with('}') || line.ends_with(';');
        let end = lines[place..].iter().position(|line| *line == close);
        found.push((place + 1, name, if is_whole { 1 } else { end.map_or(1, |end| end + 1) }));
    }
    found
}

#[test]
fn function_lengths_are_seen() {
    let text =
        "impl A {\n    pub(super) fn a(\n        x: u8,\n    ) -> u8 {\n        x\n    }\n}\n";
    assert_eq!(functions(text), [(2, "a".to_owned(), 5)]);
}

#[test]
fn nothing_unfinished_is_left() {
    for needle in ["dbg!(", "todo!(", "unimplemented!(", "#[ignore", "should_panic"] {
        for folder in ["src", "tests"] {
            assert_eq!(places(folder, needle, is_this_file), [""; 0], "`{needle}`");
        }
    }
}

#[test]
fn dangerous_calls_have_one_place() {
    let in_sys = |path: &str| path.starts_with("src/sys");
    assert_eq!(places("src", "Command::new(", in_sys), [""; 0]);
    assert_eq!(places("src", "fs2::", |path| path == "src/store/lock.rs"), [""; 0]);
    assert_eq!(places("tests", "thread::sleep", is_this_file), [""; 0]);
}

#[test]
fn every_file_of_the_binary_is_listed() {
    let main = fs::read_to_string(root().join("tests/it/main.rs")).unwrap();
    for entry in fs::read_dir(root().join("tests/it")).unwrap() {
        let path = entry.unwrap().path();
        let name = path.file_stem().unwrap().to_str().unwrap().to_owned();
        let is_listed = main.contains(&format!("mod {name};"));
        assert!(name == "main" || is_listed, "tests/it/main.rs does not list `{name}`");
    }
}

#[test]
fn every_invariant_names_tests_that_exist() {
    let (tests, trials) = (all_tests(), sources("tests/torture"));
    let text = fs::read_to_string(root().join("ARCHITECTURE.md")).unwrap();
    let invariants = invariants(&text);
    assert!(!invariants.is_empty(), "ARCHITECTURE.md states no invariant");
    for invariant in invariants {
        // A name with underscores alone is a test's; one with `.`, `/` or `::` is a file or symbol.
        let is_test = |word: &&str| {
            word.contains('_') && word.chars().all(|c| c == '_' || c.is_ascii_alphanumeric())
        };
        let named: Vec<&str> = invariant.split('`').skip(1).step_by(2).filter(is_test).collect();
        assert!(!named.is_empty(), "ARCHITECTURE.md names no test here: {invariant}");
        for name in named {
            let is_there = tests.iter().any(|(_, test)| test == name) || is_trial(&trials, name);
            assert!(is_there, "ARCHITECTURE.md names `{name}`, which is no test: {invariant}");
        }
    }
}

/// Every test as (module, name); the module is that of its file, e.g. `store::journal`.
fn all_tests() -> Vec<(String, String)> {
    let mut found = Vec::new();
    for (path, text) in sources("src").into_iter().chain(sources("tests/it")) {
        let path = path.trim_start_matches("src/").trim_start_matches("tests/it/");
        let path = path.trim_end_matches(".rs").trim_end_matches("/mod");
        let module = path.replace('/', "::");
        found.extend(tests_of(&text).map(|name| (module.clone(), name.to_owned())));
    }
    found
}

/// Returns whether one of the layers has a trial of this name.
fn is_trial(layers: &[(String, String)], name: &str) -> bool {
    let end = format!("{name}\"");
    layers.iter().any(|(_, text)| text.contains(&end))
}

/// What stands in backticks in a text without code blocks.
fn quoted(text: &str) -> impl Iterator<Item = &str> {
    text.lines().flat_map(|line| line.split('`').skip(1).step_by(2))
}

#[test]
fn the_document_on_reliability_names_tests_that_exist() {
    let (tests, trials) = (all_tests(), sources("tests/torture"));
    let text = fs::read_to_string(root().join("docs/reliability.md")).unwrap();
    let is_path = |word: &&str| {
        let has_parts = word.contains("::") && !word.ends_with("::");
        has_parts && word.chars().all(|c| matches!(c, 'a'..='z' | '0'..='9' | '_' | ':'))
    };
    let mut count = 0;
    for word in quoted(&text).filter(is_path) {
        let (module, name) = word.rsplit_once("::").unwrap();
        let is_there = if module.starts_with("torture::") {
            is_trial(&trials, name)
        } else {
            tests.iter().any(|(of, test)| of == module && test == name)
        };
        assert!(is_there, "docs/reliability.md names `{word}`, which is no test");
        count += 1;
    }
    assert!(count > 100, "only {count} tests are named");
    for rest in text.split("layer").skip(1) {
        let named = rest.split([';', '|', '\n']).next().unwrap_or_default();
        for layer in quoted(named).filter(|word| !word.contains([':', '/', ' '])) {
            let is_there = root().join("tests/torture").join(layer).is_dir();
            assert!(is_there, "docs/reliability.md names the layer `{layer}`, which is none");
        }
    }
}

#[test]
fn no_fault_or_invariant_is_missing() {
    let text = fs::read_to_string(root().join("docs/reliability.md")).unwrap();
    let faults = (1..=104).map(|n| (format!("F-{n:02}"), 4));
    for (name, columns) in faults.chain((1..=27).map(|n| (format!("I{n}"), 3))) {
        let begin = format!("| {name} | ");
        let rows: Vec<&str> = text.lines().filter(|line| line.starts_with(&begin)).collect();
        let [row] = rows.as_slice() else { panic!("{name} has {} rows", rows.len()) };
        let cells: Vec<&str> = row.split('|').map(str::trim).collect();
        // An empty one stands before the first and after the last bar.
        assert_eq!(cells.len(), columns + 2, "{row}");
        assert!(cells[1..=columns].iter().all(|cell| !cell.is_empty()), "{row}");
        let is_held = cells[columns].contains("layer") || cells[columns].contains("::");
        assert!(is_held, "nothing holds {name}: {row}");
    }
}

/// The items of a list that state an invariant, each on one line.
fn invariants(text: &str) -> Vec<String> {
    let mut found: Vec<String> = Vec::new();
    let mut is_within = false;
    for line in text.lines() {
        if line.starts_with("* **Invariant**") {
            found.push(line.to_owned());
            is_within = true;
        } else if let (true, Some(item)) = (is_within && line.starts_with("  "), found.last_mut()) {
            item.push(' ');
            item.push_str(line.trim());
        } else {
            is_within = false;
        }
    }
    found
}

/// Names of the functions that are marked as tests; other attributes may stand between.
fn tests_of(text: &str) -> impl Iterator<Item = &str> {
    text.split("#[test]\n").skip(1).filter_map(|rest| {
        let first = rest.lines().map(str::trim).find(|line| !line.starts_with("#["))?;
        first.strip_prefix("fn ")?.split('(').next()
    })
}

#[test]
fn invariants_and_tests_are_seen() {
    let text = "* **Invariant** A: `a_b`,\n  `c_d`.\n\n  no more\n* other: `e_f`\n";
    assert_eq!(invariants(text), ["* **Invariant** A: `a_b`, `c_d`."]);
    let text = "#[test]\nfn a_b() {}\nfn helper() {}\n#[test]\n#[cfg(unix)]\n    fn c_d() {}\n";
    assert_eq!(tests_of(text).collect::<Vec<_>>(), ["a_b", "c_d"]);
}
