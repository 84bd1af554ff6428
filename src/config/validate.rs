//! What names, paths and patterns must look like, and what several keys must agree on.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use globset::GlobBuilder;

use crate::machine::id::TaskId;
use crate::machine::mode::Isolation;
use crate::machine::settings::{AgentCommand, AgentGroup, Settings, Slice, Stage};
use crate::sys::file::read_bounded;

use super::file::Read;
use super::preset;
use super::prompt_file;
use super::reader::Section;

/// Words that statuses, queues and worktree folders already use.
const STAGE_NAMES_TAKEN: [&str; 9] = [
    "unassigned",
    "landing",
    "completed",
    "blocked",
    "cancelled",
    "land",
    "base",
    "check",
    "setup",
];

/// The folder that is ours in any case.
const DOT: &str = ".pipeline";

/// More than a task's id and a line end.
const CURRENT_BYTES_MAX: u64 = 4096;

/// Names of worktrees that belong to the pipeline itself.
const AGENT_NAMES_TAKEN: [&str; 2] = ["landing", "base"];

const NAME_BYTES_MAX: usize = 64;
const NAME: &str = "letters, digits, `.`, `_` and `-`, a letter or digit first, at most 64";
const INSIDE: &str = "a path inside the project: relative, without `..`";

/// Checks what was read, fills in what follows from it, and returns warnings.
///
/// Problems go to the report of the sections; the settings then are of no use.
pub fn check(read: &mut Read<'_>, root: Option<&Path>) -> Vec<String> {
    check_paths(read);
    check_branches(read);
    check_stages(&mut read.settings.stages, &read.stages);
    let stages = &read.settings.stages;
    for (group, at) in read.settings.agents.iter_mut().zip(&read.agents) {
        check_agent(group, at, stages);
        check_preset(group, at, root);
    }
    check_agent_names(&read.settings.agents, &read.agents);
    check_protect(read);
    check_slice(read);
    warnings(&read.settings)
}

/// Checks the files that the settings name below `root`: prompts that can be read, and places of ours
/// where nothing else stands.
pub fn check_files(read: &Read<'_>, root: &Path) {
    for (stage, at) in read.settings.stages.iter().zip(&read.stages) {
        let Some(name) = &stage.prompt else { continue };
        if let Err(unusable) = prompt_file::read(root, name) {
            at.wrong_file("prompt", name, &unusable.why);
        }
    }
    let name = &read.settings.project.current_task_file;
    let is_ours = Path::new(name).starts_with(DOT);
    if !is_ours && let Some(why) = something_else(&root.join(name)) {
        read.project.wrong_file("current_task_file", name, why);
    }
    let dir = &read.settings.worktree.dir;
    if root.join(dir).exists() && !root.join(dir).is_dir() {
        read.worktree.wrong_file("dir", dir, "it is no folder");
    }
}

/// Returns what a file holds that could not be replaced by a task's id; `None`: nothing.
fn something_else(path: &Path) -> Option<&'static str> {
    match read_bounded(path, CURRENT_BYTES_MAX) {
        Ok(None) => None,
        Ok(Some(bytes)) => {
            let text = String::from_utf8_lossy(&bytes).trim().to_owned();
            let is_id = text.is_empty() || text.parse::<TaskId>().is_ok();
            (!is_id).then_some("it holds something else, which a task's id would replace")
        }
        Err(_) => Some("it is no small file that can be read"),
    }
}

fn is_name(text: &str) -> bool {
    let is_plain = |c: char| c.is_ascii_alphanumeric() || "._-".contains(c);
    text.len() <= NAME_BYTES_MAX
        && text.starts_with(|c: char| c.is_ascii_alphanumeric())
        && text.chars().all(is_plain)
}

/// Returns the path without `.` parts and double slashes; `None` when it leaves the project, is the
/// project itself, or lies in `.git`.
#[must_use]
pub fn path_inside(text: &str) -> Option<String> {
    if text.starts_with(['/', '~']) || text.contains(['\0', '\n', '\\']) {
        return None;
    }
    let parts: Vec<&str> =
        text.split('/').filter(|part| !part.is_empty() && *part != ".").collect();
    if parts.contains(&"..") || parts.first().is_none_or(|part| part.eq_ignore_ascii_case(".git")) {
        return None;
    }
    Some(parts.join("/"))
}

fn make_inside(path: &mut String, at: &Section<'_>, key: &str) {
    match path_inside(path) {
        Some(inside) => *path = inside,
        None => at.wrong_value(key, path, INSIDE),
    }
}

fn check_paths(read: &mut Read<'_>) {
    let project = &mut read.settings.project;
    make_inside(&mut project.current_task_file, &read.project, "current_task_file");
    let worktree = &mut read.settings.worktree;
    make_inside(&mut worktree.dir, &read.worktree, "dir");
    let taken = [DOT.to_owned(), format!("{DOT}/state")];
    if taken.iter().any(|dir| worktree.dir.eq_ignore_ascii_case(dir))
        || Path::new(&worktree.dir).starts_with(&taken[1])
    {
        let expected = "a folder of its own, such as `.pipeline/worktrees`";
        read.worktree.wrong_value("dir", &worktree.dir, expected);
    }
    worktree.copy.iter_mut().for_each(|path| make_inside(path, &read.worktree, "copy"));
    worktree.keep.iter_mut().for_each(|path| make_inside(path, &read.worktree, "keep"));
    for (stage, at) in read.settings.stages.iter_mut().zip(&read.stages) {
        if let Some(prompt) = &mut stage.prompt {
            make_inside(prompt, at, "prompt");
        }
    }
}

/// The rules of git-check-ref-format(1) for a branch.
fn is_branch(name: &str) -> bool {
    let is_part =
        |part: &str| !part.is_empty() && !part.starts_with('.') && !part.ends_with(".lock");
    let is_bad = |c: char| c.is_control() || c == ' ' || "~^:?*[\\".contains(c);
    name.split('/').all(is_part)
        && !name.starts_with('-')
        && !name.ends_with('.')
        && !name.contains("..")
        && !name.contains("@{")
        && !name.contains(is_bad)
        && name != "@"
        && name != "HEAD"
}

fn check_branches(read: &Read<'_>) {
    let base = &read.settings.project.base;
    let branch = &read.settings.landing.branch;
    if !is_branch(base) {
        read.project.wrong_value("base", base, "a branch name");
    }
    let in_the_way = ["pipeline", "pipeline/task"];
    if !is_branch(branch)
        || in_the_way.contains(&branch.as_str())
        || branch.starts_with("pipeline/task/")
    {
        let expected = "a branch name, other than the tasks' own `pipeline/task/…`";
        read.landing.wrong_value("branch", branch, expected);
    } else if branch == base {
        read.landing.wrong_value("branch", branch, "another branch than `project.base`");
    }
}

fn check_stages(stages: &mut [Stage], sections: &[Section<'_>]) {
    // Case-folded name or short name, to the stage that has it.
    let mut owners: BTreeMap<String, usize> = BTreeMap::new();
    for (index, at) in sections.iter().enumerate() {
        let stage = &stages[index];
        for (key, word) in [("name", &stage.name), ("short", &stage.short)] {
            if word.is_empty() && !at.is_given(key) {
                continue; // Reported as missing.
            }
            if !is_name(word) {
                at.wrong_value(key, word, NAME);
            } else if key == "short" && word.contains('.') {
                at.wrong_value(key, word, "without `.`, which parts the ids of attempts");
            } else if STAGE_NAMES_TAKEN.contains(&word.to_ascii_lowercase().as_str()) {
                let taken = STAGE_NAMES_TAKEN.join("`, `");
                at.wrong_value(key, word, &format!("none of `{taken}`"));
            } else if *owners.entry(word.to_ascii_lowercase()).or_insert(index) != index {
                at.wrong_value(key, word, "a word that no other stage has");
            }
        }
        if stage.timeout_min_ms > stage.timeout_max_ms {
            at.wrong_value("timeout_min", "more than `timeout_max`", "at most `timeout_max`");
        }
        let Some(target) = stage.returns_to.clone() else { continue };
        match stages[..index].iter().find(|stage| is_called(stage, &target)) {
            Some(earlier) => {
                let name = earlier.name.clone();
                stages[index].returns_to = Some(name);
            }
            None if stages.iter().any(|stage| is_called(stage, &target)) => {
                at.wrong_value("returns_to", &target, "an earlier stage");
            }
            None => {
                let earlier: Vec<&str> =
                    stages[..index].iter().map(|stage| stage.name.as_str()).collect();
                at.unknown_value("returns_to", &target, &earlier);
            }
        }
    }
}

fn is_called(stage: &Stage, word: &str) -> bool {
    stage.name == word || stage.short == word
}

fn check_agent(group: &mut AgentGroup, at: &Section<'_>, stages: &[Stage]) {
    if !is_name(&group.name) && at.is_given("name") {
        at.wrong_value("name", &group.name, NAME);
    }
    if group.stages.is_empty() && at.is_list("stages") {
        at.wrong_value("stages", "[]", "at least one stage");
    }
    let mut served: Vec<String> = Vec::new();
    for word in &group.stages {
        match stages.iter().find(|stage| is_called(stage, word)) {
            Some(stage) if served.contains(&stage.name) => {}
            Some(stage) => served.push(stage.name.clone()),
            None => {
                let mut known: Vec<&str> =
                    stages.iter().flat_map(|stage| [&*stage.name, &*stage.short]).collect();
                known.dedup();
                at.unknown_value("stages", word, &known);
            }
        }
    }
    group.stages = served;
    let known = ["simple", "moderate", "complex"];
    let mut unknown = group.complexity.iter().filter(|word| !known.contains(&word.as_str()));
    if let Some(word) = unknown.next() {
        at.unknown_value("complexity", word, &known);
    }
    for (name, value) in &group.env {
        if name.is_empty() || name.contains(['=', '\0']) || value.contains('\0') {
            at.wrong_value("env", name, "a variable's name and its value");
        } else if name.starts_with("PIPELINE_") {
            at.wrong_value("env", name, "without `PIPELINE_…`, which the pipeline sets itself");
        }
    }
}

/// Refuses a preset that is not there. One whose file is wrong is told when it is to be used: it is
/// read anew for each attempt.
fn check_preset(group: &AgentGroup, at: &Section<'_>, root: Option<&Path>) {
    let AgentCommand::Preset { name, .. } = &group.command else { return };
    let own = |name: &str| root.is_some_and(|root| preset::has_own(root, name));
    let known: Vec<&str> = preset::BUILT_IN.iter().map(|(name, _)| *name).collect();
    if !is_name(name) || !(known.contains(&name.as_str()) || own(name)) {
        at.unknown_value("preset", name, &known);
    }
}

fn check_agent_names(groups: &[AgentGroup], sections: &[Section<'_>]) {
    let mut seen: BTreeSet<String> = BTreeSet::new();
    for (group, at) in groups.iter().zip(sections) {
        let is_like = |other: &&AgentGroup| other.name == group.name;
        if group.scale_min.is_some() && groups.iter().filter(is_like).count() > 1 {
            at.wrong_value("name", &group.name, "with `scale`, a name that no other group has");
        }
        for name in group.names().filter(|_| !group.name.is_empty()) {
            let name = name.as_str();
            if AGENT_NAMES_TAKEN.contains(&name.to_ascii_lowercase().as_str()) {
                at.wrong_value("name", name, "neither `landing` nor `base`");
            } else if !seen.insert(name.to_ascii_lowercase()) {
                at.wrong_value("name", name, "a name that no other agent has");
                break;
            }
        }
    }
}

fn check_protect(read: &mut Read<'_>) {
    let landing = &mut read.settings.landing;
    for pattern in &landing.protect {
        if let Err(error) = GlobBuilder::new(pattern).literal_separator(true).build() {
            let expected = format!("a list of path patterns ({})", error.kind());
            read.landing.wrong_value("protect", pattern, &expected);
        } else if pattern.starts_with('/') {
            read.landing.wrong_value("protect", pattern, "a list of patterns without a first `/`");
        }
    }
    let prompts = read.settings.stages.iter().filter_map(|stage| stage.prompt.as_deref());
    let mut patterns: Vec<String> = prompts.map(globset::escape).collect();
    let is_preset = |group: &AgentGroup| matches!(group.command, AgentCommand::Preset { .. });
    if read.settings.agents.iter().any(is_preset) {
        // What is run as an agent, and what it may do.
        patterns.push(format!("{}/**", preset::DIR));
    }
    for pattern in patterns {
        if !landing.protect.contains(&pattern) {
            landing.protect.push(pattern);
        }
    }
}

fn check_slice(read: &Read<'_>) {
    let Slice::Tasks(tasks) = &read.settings.rollout.pilot else { return };
    for task in tasks {
        let is_id = is_name(task)
            && !task.contains("..")
            && !task.ends_with('.')
            && !task.ends_with(".lock");
        if !is_id {
            read.rollout.wrong_value("pilot", task, "a list of task ids");
        }
    }
}

/// Returns what is allowed, but probably not meant.
fn warnings(settings: &Settings) -> Vec<String> {
    let mut warnings = Vec::new();
    let is_served =
        |stage: &&Stage| settings.agents.iter().any(|group| group.stages.contains(&stage.name));
    if settings.agents.is_empty() {
        warnings.push("no `[[agent]]` is configured: nothing will be worked on".into());
    } else {
        for stage in settings.stages.iter().filter(|stage| !is_served(stage)) {
            let name = &stage.name;
            warnings.push(format!("no agent serves the stage `{name}`: tasks will wait there"));
        }
    }
    let has_landing = settings.project.isolation == Isolation::Worktree;
    if has_landing && settings.landing.checks.is_empty() {
        warnings.push("`landing.checks` is empty: work lands without any check".into());
    }
    if !has_landing && !settings.landing.checks.is_empty() {
        warnings.push("`landing.checks` has no meaning with `isolation = \"none\"`".into());
    }
    warnings
}
