//! `pipeline graph`: of the project, or of tasks that are not imported yet.

use serde::Serialize;

use super::json::document;
use crate::machine::State;
use crate::machine::graph::{CYCLES_LISTED_MAX, Report, report};
use crate::machine::id::TaskId;
use crate::observe::page::{Ink, Page, clean, columns};

/// Unknown names listed in text; the rest is counted.
const UNKNOWN_SHOWN_MAX: usize = 50;
/// Levels listed in text; the rest is counted.
const LEVELS_SHOWN_MAX: usize = 50;

/// Looks at the graph of the project's tasks, epics among them.
#[must_use]
pub fn graph_of(state: &State) -> Report {
    let tasks = state.tasks.values().map(|task| {
        let deps = task.spec.depends_on.iter().map(TaskId::as_str).collect();
        (task.id.as_str(), deps)
    });
    report(&tasks.collect::<Vec<_>>())
}

/// Returns what is wrong with the graph, its levels and its figures, as text.
#[must_use]
pub fn render_graph(report: &Report, page: Page) -> String {
    let mut out = String::new();
    for (task, unknown) in report.unknown.iter().take(UNKNOWN_SHOWN_MAX) {
        let line = format!("unknown: `{task}` depends on `{unknown}`, which is not there");
        out.push_str(&format!("{}\n", page.paint(Ink::Bad, &clean(&line))));
    }
    out.push_str(&more(report.unknown.len(), UNKNOWN_SHOWN_MAX, "unknown dependencies"));
    for cycle in &report.cycles {
        let line = format!("cycle: {}", cycle.join(" -> "));
        out.push_str(&format!("{}\n", page.paint(Ink::Bad, &clean(&line))));
    }
    out.push_str(&more(report.cycle_count, CYCLES_LISTED_MAX, "cycles"));
    for (place, level) in report.levels.iter().take(LEVELS_SHOWN_MAX).enumerate() {
        out.push_str(&level_line(place, level, page));
    }
    out.push_str(&more(report.levels.len(), LEVELS_SHOWN_MAX, "levels"));
    if report.longest_chain.len() > 1 {
        let chain = clean(&report.longest_chain.join(" -> ")).into_owned();
        let length = report.longest_chain.len();
        out.push_str(&folded(&format!("longest chain ({length}): "), &chain, page));
    }
    let statistics = statistics(report);
    out.push_str(&format!(
        "{} tasks, {} dependencies, {} unknown, {} cycles, {} levels\n",
        statistics.tasks,
        statistics.dependencies,
        statistics.unknown,
        statistics.cycles,
        statistics.levels
    ));
    out
}

fn more(count: usize, shown_max: usize, what: &str) -> String {
    let more = count.saturating_sub(shown_max);
    if more > 0 { format!("and {more} more {what}\n") } else { String::new() }
}

fn level_line(place: usize, level: &[String], page: Page) -> String {
    let head = format!("level {place} ({}): ", level.len());
    folded(&head, &clean(&level.join(", ")), page)
}

/// Returns one line: what does not fit is cut at a blank and shown as `…`.
fn folded(head: &str, text: &str, page: Page) -> String {
    let room = page.columns().saturating_sub(columns(head));
    if columns(text) <= room {
        return format!("{head}{text}\n");
    }
    let cut: String = text.chars().take(room.saturating_sub(2)).collect();
    let kept = cut.rsplit_once(' ').map_or(cut.as_str(), |(kept, _)| kept);
    format!("{head}{kept} …\n")
}

/// `graph --json`.
#[derive(Debug, Serialize)]
struct GraphDocument<'a> {
    unknown: Vec<Unknown<'a>>,
    /// Each a closed path.
    cycles: &'a [Vec<String>],
    /// Level 0 depends on nothing; empty when there is a cycle.
    levels: &'a [Vec<String>],
    longest_chain: &'a [String],
    statistics: Statistics,
}

#[derive(Debug, Serialize)]
struct Unknown<'a> {
    task: &'a str,
    depends_on: &'a str,
}

#[derive(Debug, Serialize)]
struct Statistics {
    tasks: usize,
    dependencies: usize,
    unknown: usize,
    /// All; the list may hold fewer.
    cycles: usize,
    levels: usize,
    /// Tasks in the largest level.
    widest_level: usize,
    /// Tasks in the longest chain.
    longest_chain: usize,
}

fn statistics(report: &Report) -> Statistics {
    Statistics {
        tasks: report.task_count,
        dependencies: report.dependency_count,
        unknown: report.unknown.len(),
        cycles: report.cycle_count,
        levels: report.levels.len(),
        widest_level: report.levels.iter().map(Vec::len).max().unwrap_or(0),
        longest_chain: report.longest_chain.len(),
    }
}

/// Returns `{unknown, cycles, levels, longest_chain, statistics}`.
#[must_use]
pub fn render_graph_json(report: &Report) -> String {
    let unknown = report.unknown.iter().map(|(task, depends_on)| Unknown { task, depends_on });
    document(&GraphDocument {
        unknown: unknown.collect(),
        cycles: &report.cycles,
        levels: &report.levels,
        longest_chain: &report.longest_chain,
        statistics: statistics(report),
    })
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::{graph_of, render_graph, render_graph_json};
    use crate::machine::graph::report;
    use crate::observe::page::Page;
    use crate::observe::support::{Pipeline, settings, task};

    #[test]
    fn unknown_names_and_cycles_are_named() {
        let found = report(&[("a", vec!["b", "x"]), ("b", vec!["a"]), ("c", vec![])]);
        let expected = "\
unknown: `a` depends on `x`, which is not there
cycle: a -> b -> a
3 tasks, 3 dependencies, 1 unknown, 1 cycles, 0 levels
";
        assert_eq!(render_graph(&found, Page::plain(80)), expected);
        let json: Value = serde_json::from_str(&render_graph_json(&found)).expect("a document");
        assert_eq!(json["unknown"], json!([{"task": "a", "depends_on": "x"}]));
        assert_eq!(json["cycles"], json!([["a", "b", "a"]]));
        assert_eq!(json["statistics"]["cycles"], 1);
    }

    #[test]
    fn levels_of_the_project_fit_the_page() {
        let tasks = (0..30).map(|n| task(&format!("TASK-{n:03}"), &[])).collect();
        let mut pipeline = Pipeline::started(settings(), tasks);
        let tasks = vec![task("Z", &["TASK-000"])];
        pipeline.send(crate::machine::Command::AddTasks { tasks });
        let text = render_graph(&graph_of(&pipeline.state), Page::plain(60));
        let expected = "\
level 0 (30): TASK-000, TASK-001, TASK-002, TASK-003, …
level 1 (1): Z
longest chain (2): TASK-000 -> Z
31 tasks, 1 dependencies, 0 unknown, 0 cycles, 2 levels
";
        assert_eq!(text, expected);
    }
}
