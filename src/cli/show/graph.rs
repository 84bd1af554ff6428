//! `pipeline graph` as text and JSON.

use std::borrow::Cow;
use std::io::{self, Write};

use serde::{Serialize, Serializer};

use crate::machine::State;
use crate::machine::graph::{CYCLES_LISTED_MAX, Graph, Report, Sketch};
use crate::machine::id::TaskId;
use crate::machine::task::TaskKind;
use crate::observe::page::{Ink, Page, clean, columns, filled};

/// Unknown names listed in text; the rest is counted.
const UNKNOWN_SHOWN_MAX: usize = 50;
/// Levels listed in text; the rest is counted.
const LEVELS_SHOWN_MAX: usize = 50;

/// Returns the project's tasks with what they depend on, to be drawn: epics among them.
#[must_use]
pub fn sketch_of(state: &State) -> Sketch<'_> {
    sketch(state, |_| true)
}

/// Returns the same to be measured: without epics, which are no work and hold nothing up.
#[must_use]
pub fn work_of(state: &State) -> Sketch<'_> {
    let is_epic =
        |id: &TaskId| state.tasks.get(id).is_some_and(|task| task.spec.kind == TaskKind::Epic);
    sketch(state, |id| !is_epic(id))
}

fn sketch(state: &State, is_in: impl Fn(&TaskId) -> bool) -> Sketch<'_> {
    let mut sketch = Sketch::default();
    for task in state.tasks.values().filter(|task| is_in(&task.id)) {
        let deps = task.spec.depends_on.iter().filter(|dep| is_in(dep));
        deps.for_each(|dep| sketch.dependency(Cow::Borrowed(dep.as_str())));
        sketch.task(Cow::Borrowed(task.id.as_str()));
    }
    sketch
}

/// Writes what is wrong with the graph, its levels and its figures.
///
/// # Errors
/// What `out` reports.
pub fn write_text(
    graph: &Graph<'_>,
    report: &Report,
    page: Page,
    out: &mut impl Write,
) -> io::Result<()> {
    for (task, unknown) in graph.unknown().take(UNKNOWN_SHOWN_MAX) {
        let task = graph.name(task);
        let line = format!("unknown: `{task}` depends on `{unknown}`, which is not there");
        bad(&line, page, out)?;
    }
    more(graph.unknown().len(), UNKNOWN_SHOWN_MAX, "unknown dependencies", out)?;
    for cycle in &report.cycles {
        let line = format!("cycle: {}", graph.path(cycle));
        bad(&line, page, out)?;
    }
    more(report.cycle_count, CYCLES_LISTED_MAX, "cycles", out)?;
    for (place, level) in report.levels().take(LEVELS_SHOWN_MAX).enumerate() {
        let head = format!("level {place} ({}): ", level.len());
        folded(&head, ", ", graph, level, page, out)?;
    }
    more(report.level_count(), LEVELS_SHOWN_MAX, "levels", out)?;
    let chain = &report.longest_chain;
    if chain.len() > 1 {
        folded(&format!("longest chain ({}): ", chain.len()), " -> ", graph, chain, page, out)?;
    }
    let figures = statistics(graph, report);
    let words = [
        counted(figures.tasks, "task", "tasks"),
        counted(figures.dependencies, "dependency", "dependencies"),
        format!("{} unknown", figures.unknown),
        counted(figures.cycles, "cycle", "cycles"),
        counted(figures.levels, "level", "levels"),
    ];
    writeln!(out, "{}", words.join(", "))?;
    if let Some(mean) = figures.mean_level {
        let roots = counted(figures.roots, "root", "roots");
        let leaves = counted(figures.leaves, "leaf", "leaves");
        let mean_dependencies = figures.mean_dependencies;
        writeln!(out, "{roots}, {leaves}, {mean_dependencies:.2} dependencies a task on average")?;
        let most = counted(figures.widest_level, "task", "tasks");
        writeln!(out, "at most {most} at once, {mean:.2} on average")?;
    }
    Ok(())
}

/// Writes what is wrong, on as many lines as it takes.
fn bad(text: &str, page: Page, out: &mut impl Write) -> io::Result<()> {
    let words: Vec<String> = text.split(' ').map(|word| clean(word).into_owned()).collect();
    for (place, line) in filled(&words, " ", page.columns() - 2).iter().enumerate() {
        let indent = if place == 0 { "" } else { "  " };
        writeln!(out, "{indent}{}", page.paint(Ink::Bad, line))?;
    }
    Ok(())
}

fn counted(count: usize, one: &str, many: &str) -> String {
    format!("{count} {}", if count == 1 { one } else { many })
}

fn more(count: usize, shown_max: usize, what: &str, out: &mut impl Write) -> io::Result<()> {
    let more = count.saturating_sub(shown_max);
    if more > 0 { writeln!(out, "and {more} more {what}") } else { Ok(()) }
}

/// Writes one line: names that do not fit are shown as `…`.
fn folded(
    head: &str,
    between: &str,
    graph: &Graph<'_>,
    tasks: &[u32],
    page: Page,
    out: &mut impl Write,
) -> io::Result<()> {
    let room = page.columns().saturating_sub(columns(head));
    // Each name takes a column at least: no more can fit.
    let names: Vec<&str> = graph.names(tasks).take(room + 1).collect();
    let text = clean(&names.join(between)).into_owned();
    if columns(&text) <= room {
        return writeln!(out, "{head}{text}");
    }
    let cut: String = text.chars().take(room.saturating_sub(2)).collect();
    let kept = cut.rsplit_once(' ').map_or(cut.as_str(), |(kept, _)| kept);
    writeln!(out, "{head}{kept} …")
}

/// `graph --json`.
#[derive(Serialize)]
struct GraphDocument<'a> {
    unknown: Vec<Unknown<'a>>,
    /// Each a closed path.
    cycles: Vec<Names<'a>>,
    /// Level 0 depends on nothing; empty when there is a cycle.
    levels: Vec<Names<'a>>,
    /// Every task behind what it depends on; empty when there is a cycle.
    order: Names<'a>,
    roots: Names<'a>,
    leaves: Names<'a>,
    longest_chain: Names<'a>,
    statistics: Statistics,
}

#[derive(Serialize)]
struct Unknown<'a> {
    task: &'a str,
    depends_on: &'a str,
}

/// Tasks, written as a list of their names.
struct Names<'a>(&'a Graph<'a>, &'a [u32]);

impl Serialize for Names<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_seq(self.0.names(self.1))
    }
}

#[derive(Serialize)]
struct Statistics {
    tasks: usize,
    dependencies: usize,
    unknown: usize,
    /// All; the list may hold fewer.
    cycles: usize,
    levels: usize,
    roots: usize,
    leaves: usize,
    /// Tasks in the largest level: so many can be worked on at once.
    widest_level: usize,
    /// Tasks by level; none when there is a cycle, or no task.
    mean_level: Option<f64>,
    /// Dependencies by task; 0 when there is no task.
    mean_dependencies: f64,
    /// Tasks in the longest chain.
    longest_chain: usize,
}

fn statistics(graph: &Graph<'_>, report: &Report) -> Statistics {
    let (tasks, levels) = (graph.task_count(), report.level_count());
    let dependencies = graph.dependency_count();
    Statistics {
        tasks,
        dependencies,
        unknown: graph.unknown().len(),
        cycles: report.cycle_count,
        levels,
        roots: report.roots.len(),
        leaves: report.leaves.len(),
        widest_level: report.levels().map(<[u32]>::len).max().unwrap_or(0),
        mean_level: (levels > 0).then(|| tasks as f64 / levels as f64),
        mean_dependencies: dependencies as f64 / tasks.max(1) as f64,
        longest_chain: report.longest_chain.len(),
    }
}

/// Writes `{unknown, cycles, levels, order, roots, leaves, longest_chain, statistics}`.
///
/// # Errors
/// What `out` reports.
pub fn write_json(graph: &Graph<'_>, report: &Report, out: &mut impl Write) -> io::Result<()> {
    let names = |tasks| Names(graph, tasks);
    let unknown = graph.unknown();
    let unknown = unknown.map(|(task, name)| Unknown { task: graph.name(task), depends_on: name });
    let document = GraphDocument {
        unknown: unknown.collect(),
        cycles: report.cycles.iter().map(|cycle| names(cycle)).collect(),
        levels: report.levels().map(names).collect(),
        order: names(&report.order),
        roots: names(&report.roots),
        leaves: names(&report.leaves),
        longest_chain: names(&report.longest_chain),
        statistics: statistics(graph, report),
    };
    serde_json::to_writer(&mut *out, &document)?;
    out.write_all(b"\n")
}

#[cfg(test)]
mod tests {
    use std::borrow::Cow;

    use serde_json::{Value, json};

    use super::{sketch_of, work_of, write_json, write_text};
    use crate::machine::graph::Sketch;
    use crate::machine::task::TaskKind;
    use crate::observe::page::Page;
    use crate::observe::support::{Pipeline, settings, task};

    fn text(sketch: Sketch<'_>, width: usize) -> String {
        let (graph, mut out) = (sketch.graph(), Vec::new());
        write_text(&graph, &graph.report(), Page::plain(width), &mut out).expect("a vector");
        String::from_utf8(out).expect("text")
    }

    fn json(sketch: Sketch<'_>) -> Value {
        let (graph, mut out) = (sketch.graph(), Vec::new());
        write_json(&graph, &graph.report(), &mut out).expect("a vector");
        serde_json::from_slice(&out).expect("a document")
    }

    #[test]
    fn unknown_names_and_cycles_are_named() {
        let sketch = || {
            let mut sketch = Sketch::default();
            for (name, deps) in [("a", &["b", "x"][..]), ("b", &["a"]), ("c", &[])] {
                deps.iter().for_each(|dep| sketch.dependency(Cow::Borrowed(dep)));
                sketch.task(Cow::Borrowed(name));
            }
            sketch
        };
        let expected = "\
unknown: `a` depends on `x`, which is not there
cycle: a -> b -> a
3 tasks, 3 dependencies, 1 unknown, 1 cycle, 0 levels
";
        assert_eq!(text(sketch(), 80), expected);
        let json = json(sketch());
        assert_eq!(json["unknown"], json!([{"task": "a", "depends_on": "x"}]));
        assert_eq!(json["cycles"], json!([["a", "b", "a"]]));
        assert_eq!(json["order"], json!([]));
        assert_eq!(json["statistics"]["cycles"], 1);
        assert_eq!(json["statistics"]["mean_level"], Value::Null);
    }

    #[test]
    fn what_is_wrong_fits_the_page() {
        let names: Vec<String> = (0..12).map(|n| format!("TASK-{n:08}")).collect();
        let mut sketch = Sketch::default();
        for (place, name) in names.iter().enumerate() {
            sketch.dependency(Cow::Borrowed(&names[(place + 1) % names.len()]));
            sketch.dependency(Cow::Owned(format!("no-{}-{place}", "x".repeat(40))));
            sketch.task(Cow::Borrowed(name));
        }
        let text = text(sketch, 80);
        assert!(text.lines().all(|line| line.chars().count() <= 80), "{text}");
        let cycle = text.split("cycle: ").nth(1).expect("there is one");
        let cycle = cycle.lines().take_while(|line| line.contains("TASK")).collect::<String>();
        assert_eq!(cycle.matches("TASK").count(), 13, "the whole of it: {text}");
        let unknown = text.lines().position(|line| line.starts_with("unknown: "));
        let next = unknown.and_then(|place| text.lines().nth(place + 1));
        assert!(next.is_some_and(|line| line.starts_with("  ")), "{text}");
    }

    #[test]
    fn levels_of_the_project_fit_the_page() {
        let tasks = (0..30).map(|n| task(&format!("TASK-{n:03}"), &[])).collect();
        let mut pipeline = Pipeline::started(settings(), tasks);
        let tasks = vec![task("Z", &["TASK-000"])];
        pipeline.send(crate::machine::Command::AddTasks { tasks });
        let expected = "\
level 0 (30): TASK-000, TASK-001, TASK-002, TASK-003, …
level 1 (1): Z
longest chain (2): TASK-000 -> Z
31 tasks, 1 dependency, 0 unknown, 0 cycles, 2 levels
30 roots, 30 leaves, 0.03 dependencies a task on average
at most 30 tasks at once, 15.50 on average
";
        assert_eq!(text(work_of(&pipeline.state), 60), expected);
        let json = json(work_of(&pipeline.state));
        assert_eq!(json["order"].as_array().map(Vec::len), Some(31));
        assert_eq!(json["levels"][1], json!(["Z"]));
        assert_eq!(json["roots"].as_array().map(Vec::len), Some(30));
        assert_eq!(json["longest_chain"], json!(["TASK-000", "Z"]));
        assert_eq!(json["statistics"]["mean_level"], 15.5);
    }

    #[test]
    fn epics_are_drawn_and_not_measured() {
        let mut epic = task("EP", &["A"]);
        epic.spec.kind = TaskKind::Epic;
        let tasks = vec![task("A", &[]), epic, task("B", &["EP", "A"]), task("C", &["EP"])];
        let pipeline = Pipeline::started(settings(), tasks);
        let expected = "\
level 0 (2): A, C
level 1 (1): B
longest chain (2): A -> B
3 tasks, 1 dependency, 0 unknown, 0 cycles, 2 levels
2 roots, 2 leaves, 0.33 dependencies a task on average
at most 2 tasks at once, 1.50 on average
";
        assert_eq!(text(work_of(&pipeline.state), 80), expected);
        assert_eq!(sketch_of(&pipeline.state).graph().dependency_count(), 4);
    }
}
