//! The same at the program's own fail points: between what it has done and what it does next.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;
use std::sync::LazyLock;

use libtest_mimic::Trial;
use regex::Regex;

use super::Options;
use super::case::{Case, Ending, STRUCK, caught};
use super::points::{Struck, chosen_scenarios, spread, strike_all};
use super::scenario::{SCENARIOS, Scenario};
use crate::figures::Figures;

/// Points that no scenario passes, by where the program passes them.
const NOT_PASSED: &[(&str, &[&str])] = &[
    ("of `init --isolation none` in a repository", &["git.exclude"]),
    ("where a terminal is needed", &["tmux.attach"]),
    (
        "behind a call that has failed",
        &["journal.again", "journal.uncut", "reserve.remove", "task_file.append"],
    ),
    (
        "where somebody did what nobody does here",
        &["git.hand_switch", "git.kept_there", "git.settings"],
    ),
];

/// A fail point, and at which of its passes in one process.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
struct Pass {
    name: String,
    number: u32,
}

/// Kills at each pass of each fail point of a whole run; prints what came of it by scenario.
pub(super) fn run(options: &Options) -> Figures {
    let mut figures = Figures::new("fail-points");
    figures.is_part =
        options.role.is_some() || options.ordinal.is_some() || !options.scenario.is_empty();
    // A panic is the text of a failure, told with how to have it again.
    std::panic::set_hook(Box::new(|_| {}));
    let mut names = BTreeSet::new();
    let mut scenarios = chosen_scenarios(options, &mut figures);
    // In these the terminal is struck, and all else is as in the one before.
    scenarios.retain(|scenario| !scenario.strikes_terminal);
    for scenario in scenarios {
        figures.count("scenarios", 1);
        match run_scenario(scenario, options, &mut figures) {
            Ok(passed) => names.extend(passed),
            Err(text) => figures.failures.push(format!("{}: {text}", scenario.name)),
        }
    }
    figures.count("fail points", names.len() as u64);
    if !figures.is_part {
        figures.count("fail points of the program", declared().len() as u64);
        figures.failures.extend(declared().iter().filter_map(|name| told(name, &names)));
    }
    figures
}

/// Says of a point of the program what is wrong with it: passed in no scenario, and nothing says why.
fn told(name: &String, passed: &BTreeSet<String>) -> Option<String> {
    let why = NOT_PASSED.iter().find(|(_, names)| names.contains(&name.as_str()));
    match (why, passed.contains(name)) {
        (None, false) => Some(format!("`{name}` is passed in no scenario")),
        (Some((why, _)), true) => Some(format!("`{name}` is passed: not one {why}")),
        (None, true) | (Some(_), false) => None,
    }
}

/// Names of all fail points of the program, as its sources have them.
fn declared() -> &'static BTreeSet<String> {
    static DECLARED: LazyLock<BTreeSet<String>> = LazyLock::new(|| {
        let name =
            r#"(?:fail::point|Call::\w+|remove_tree|\b(?:call|read|write))\(\s*"([a-z0-9_.-]+)""#;
        let name = Regex::new(name).expect("it is one");
        let sources = concat!(env!("CARGO_MANIFEST_DIR"), "/src");
        let files = walkdir::WalkDir::new(sources).into_iter().flatten();
        let files = files.filter(|file| file.path().extension().is_some_and(|end| end == "rs"));
        let mut names = BTreeSet::new();
        for file in files.filter(|file| file.file_name() != "scratch.rs") {
            let text = fs::read_to_string(file.path()).expect("a source");
            let text = text.split("#[cfg(test)]\nmod tests").next().unwrap_or_default();
            names.extend(name.captures_iter(text).map(|found| found[1].to_owned()));
        }
        names
    });
    &DECLARED
}

/// Splits a log into names: of threads that write at once two may stand on one line.
fn names(log: &str) -> Vec<&'static str> {
    let mut names = Vec::new();
    for mut line in log.lines() {
        while !line.is_empty() {
            let begins = declared().iter().filter(|name| line.starts_with(name.as_str()));
            let name = begins.max_by_key(|name| name.len());
            let name = name.unwrap_or_else(|| panic!("`{line}` is in no source"));
            names.push(name.as_str());
            line = &line[name.len()..];
        }
    }
    names
}

/// Returns the names of the fail points that a whole run passes.
fn run_scenario(
    scenario: &'static Scenario,
    options: &Options,
    figures: &mut Figures,
) -> Result<BTreeSet<String>, String> {
    let case = caught(|| Case::new(scenario))?;
    let passes = passes(&case)?;
    let is_wanted = |pass: &&Pass| {
        options.role.as_ref().is_none_or(|name| pass.name.starts_with(name.as_str()))
            && options.ordinal.is_none_or(|number| pass.number == number)
    };
    let wanted = spread(passes.iter().filter(is_wanted).cloned().collect(), options.sample);
    let Struck { survived, unreached, failures } = strike_all(case, &wanted, options.jobs, strike);
    println!(
        "{}: {} passes of fail points; killed at {}, survived {survived}, not reached {unreached}",
        scenario.name,
        passes.len(),
        wanted.len() - unreached,
    );
    figures.count("passes enumerated", passes.len() as u64);
    figures.count("crashes", (wanted.len() - unreached) as u64);
    figures.count("crashes survived", survived as u64);
    figures.count("not reached", unreached as u64);
    figures.failures.extend(failures);
    Ok(passes.into_iter().map(|pass| pass.name).collect())
}

/// Every pass of a whole run: of each name as many as the process makes that makes the most.
fn passes(case: &Case) -> Result<Vec<Pass>, String> {
    let mut most: BTreeMap<String, u32> = BTreeMap::new();
    caught(|| {
        case.run_with("none", |logs| {
            for log in read(logs) {
                let mut count: BTreeMap<&str, u32> = BTreeMap::new();
                for name in names(&log) {
                    *count.entry(name).or_default() += 1;
                }
                for (name, passes) in count {
                    let most = most.entry(name.to_owned()).or_default();
                    *most = passes.max(*most);
                }
            }
        });
    })?;
    let each = most.iter().flat_map(|(name, count)| (1..=*count).map(move |number| (name, number)));
    Ok(each.map(|(name, number)| Pass { name: name.clone(), number }).collect())
}

/// One run, killed there.
fn strike(case: &Case, Pass { name, number }: &Pass) -> (Ending, String) {
    let mut is_struck = false;
    let done = caught(|| {
        case.run_with(&format!("{name}:{number}"), |logs| {
            is_struck = logs.join(STRUCK).exists();
        });
    });
    let ending = match done {
        Ok(()) if is_struck => Ending::Survived,
        Ok(()) => Ending::Unreached,
        Err(text) => Ending::Failed(text),
    };
    let scenario = case.scenario.name;
    let words =
        format!("crash --fail-points --scenario {scenario} --role {name} --ordinal {number}");
    (ending, words)
}

/// What each process has passed.
fn read(logs: &Path) -> Vec<String> {
    let files = fs::read_dir(logs).expect("a folder of our own").flatten();
    let files = files.filter(|file| file.file_name() != STRUCK);
    files.map(|file| fs::read_to_string(file.path()).expect("a log")).collect()
}

/// A few passes of one scenario.
pub(super) fn trials() -> Vec<Trial> {
    let trial = Trial::test("crash::killed_at_fail_points_loses_nothing", || {
        let found = SCENARIOS.iter().find(|scenario| scenario.name == "implementation");
        let case = Case::new(found.expect("it is listed"));
        for pass in spread(passes(&case)?, 5) {
            if let (Ending::Failed(text), words) = strike(&case, &pass) {
                return Err(format!("{words}: {text}").into());
            }
        }
        Ok(())
    });
    vec![trial]
}
