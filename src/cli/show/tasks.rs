//! `pipeline task list`.

use std::fmt;

use super::json::{TaskList, document};
use crate::machine::State;
use crate::machine::settings::Settings;
use crate::machine::task::Task;
use crate::observe::document::TaskEntry;
use crate::observe::page::{Cell, Ink, Page, table};
use crate::observe::words::StatusWords;

/// Statuses that are no stage's, and words for all stages at once.
const WORDS: [&str; 7] =
    ["unassigned", "ready", "wip", "landing", "blocked", "completed", "cancelled"];

/// Which tasks to list; all by default.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Filter {
    /// Any of these; empty: every status.
    statuses: Vec<String>,
    /// Long name.
    stage: Option<String>,
}

/// A word that is no status or stage.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UnknownFilter {
    /// `status` or `stage`.
    pub what: &'static str,
    pub word: String,
    /// What could have been said.
    pub known: Vec<String>,
}

impl fmt::Display for UnknownFilter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (word, known) = (self.word.escape_debug(), self.known.join(", "));
        write!(f, "`{word}` is no {}, expected one of {known}", self.what)
    }
}

impl std::error::Error for UnknownFilter {}

impl Filter {
    /// Makes a filter of `--status` words (a task's status, or `ready` and `wip` for any stage's)
    /// and a `--stage` name, long or short.
    ///
    /// # Errors
    /// When a word is neither.
    pub fn new(
        settings: &Settings,
        statuses: &[String],
        stage: Option<&str>,
    ) -> Result<Self, UnknownFilter> {
        let words = WORDS.iter().map(|word| (*word).to_owned());
        let of_stages = settings
            .stages
            .iter()
            .flat_map(|stage| [format!("{}_ready", stage.short), format!("{}_wip", stage.short)]);
        let known: Vec<String> = words.chain(of_stages).collect();
        if let Some(word) = statuses.iter().find(|word| !known.contains(word)) {
            return Err(UnknownFilter { what: "status", word: word.clone(), known });
        }
        let stage = match stage {
            None => None,
            Some(name) => Some(long_name(settings, name)?),
        };
        Ok(Self { statuses: statuses.to_vec(), stage })
    }

    fn fits(&self, task: &Task, status: &str) -> bool {
        let is_meant = |word: &String| {
            let of_any_stage = matches!(word.as_str(), "ready" | "wip")
                && status.strip_suffix(word.as_str()).is_some_and(|rest| rest.ends_with('_'));
            word == status || of_any_stage
        };
        let is_status = self.statuses.is_empty() || self.statuses.iter().any(is_meant);
        let stage = task.stage().map(|stage| stage.as_str());
        is_status && self.stage.as_deref().is_none_or(|name| stage == Some(name))
    }
}

fn long_name(settings: &Settings, name: &str) -> Result<String, UnknownFilter> {
    let known = || settings.stages.iter().map(|stage| stage.name.clone()).collect();
    match settings.stage_by_any_name(name) {
        Some(stage) => Ok(stage.name.clone()),
        None => Err(UnknownFilter { what: "stage", word: name.to_owned(), known: known() }),
    }
}

/// Returns the tasks that fit, by entry.
fn chosen<'a>(state: &'a State, words: &'a StatusWords, filter: &Filter) -> Vec<&'a Task> {
    let fits = |task: &&Task| filter.fits(task, words.of(state, task));
    let mut tasks: Vec<&Task> = state.tasks.values().filter(fits).collect();
    tasks.sort_by_key(|task| task.entry);
    tasks
}

/// Returns true when a task fits.
#[must_use]
pub fn has_any(state: &State, filter: &Filter) -> bool {
    let words = StatusWords::new(&state.settings);
    state.tasks.values().any(|task| filter.fits(task, words.of(state, task)))
}

/// Returns a table: id, status, priority where it is not medium, title; in order of creation.
#[must_use]
pub fn render_tasks(state: &State, filter: &Filter, page: Page) -> String {
    let words = StatusWords::new(&state.settings);
    let rows: Vec<Vec<Cell>> = chosen(state, &words, filter)
        .into_iter()
        .map(|task| {
            let entry = TaskEntry::new(state, &words, task);
            let mut title = String::new();
            match entry.progress {
                Some(progress) if progress.total > 0 => {
                    title.push_str(&format!("(epic, {}) ", progress.words()));
                }
                Some(_) => title.push_str("(epic) "),
                None => {}
            }
            if entry.held {
                title.push_str("(held) ");
            }
            title.push_str(entry.title);
            let priority = if entry.priority == "medium" { "" } else { entry.priority };
            vec![
                Cell::new(entry.id),
                Cell::new(entry.status).inked(ink(entry.status)),
                Cell::new(priority).inked(Ink::Faint),
                Cell::new(&title),
            ]
        })
        .collect();
    table(page, 0, &rows)
}

/// Returns the colour of a status.
pub(super) fn ink(status: &str) -> Ink {
    match status {
        "blocked" => Ink::Bad,
        "completed" => Ink::Good,
        "cancelled" | "unassigned" => Ink::Faint,
        "landing" => Ink::Busy,
        other if other.ends_with("_wip") => Ink::Busy,
        _ready => Ink::Plain,
    }
}

/// Returns `{"tasks":[…]}`, in order of creation.
#[must_use]
pub fn render_tasks_json(state: &State, filter: &Filter) -> String {
    let words = StatusWords::new(&state.settings);
    let tasks = chosen(state, &words, filter);
    let tasks = tasks.into_iter().map(|task| TaskEntry::new(state, &words, task)).collect();
    document(&TaskList { tasks })
}

#[cfg(test)]
mod tests {
    use serde_json::Value;

    use super::{Filter, render_tasks, render_tasks_json};
    use crate::machine::task::Priority;
    use crate::observe::page::Page;
    use crate::observe::support::{End, Pipeline, settings, task};

    fn pipeline() -> Pipeline {
        let mut urgent = task("Z", &[]);
        urgent.spec.priority = Priority::Critical;
        urgent.spec.title = "wipe \x1b[2Jthe\nscreen".into();
        let tasks = vec![urgent, task("A", &[]), task("B", &["A"])];
        let mut pipeline = Pipeline::started(settings(), tasks);
        pipeline.run("Z.arch.1", End::Done);
        pipeline
    }

    fn ids(filter: &Filter) -> Vec<String> {
        let json = render_tasks_json(&pipeline().state, filter);
        let json: Value = serde_json::from_str(&json).expect("a document");
        let tasks = json["tasks"].as_array().expect("an array").iter();
        tasks.map(|task| task["id"].as_str().expect("an id").to_owned()).collect()
    }

    fn filter(statuses: &[&str], stage: Option<&str>) -> Filter {
        let statuses: Vec<String> = statuses.iter().map(|word| (*word).to_owned()).collect();
        Filter::new(&settings(), &statuses, stage).expect("known words")
    }

    #[test]
    fn the_table_is_in_order_of_creation_and_clean() {
        let expected = "\
Z  test_ready  critical  wipe the screen
A  arch_ready            Title of A
B  unassigned            Title of B
";
        assert_eq!(render_tasks(&pipeline().state, &Filter::default(), Page::plain(80)), expected);
        let narrow = render_tasks(&pipeline().state, &Filter::default(), Page::plain(40));
        assert!(narrow.lines().all(|line| line.chars().count() <= 40), "{narrow}");
    }

    #[test]
    fn filters_take_statuses_and_stages_long_or_short() {
        assert_eq!(ids(&filter(&[], None)), ["Z", "A", "B"]);
        assert_eq!(ids(&filter(&["ready"], None)), ["Z", "A"]);
        assert_eq!(ids(&filter(&["arch_ready", "unassigned"], None)), ["A", "B"]);
        assert_eq!(ids(&filter(&[], Some("arch"))), ["A"]);
        assert_eq!(ids(&filter(&["ready"], Some("test"))), ["Z"]);
        assert!(ids(&filter(&["wip"], None)).is_empty());
    }

    #[test]
    fn unknown_words_are_refused_with_the_known_ones() {
        let error = Filter::new(&settings(), &["done".into()], None).expect_err("no status");
        assert!(error.to_string().starts_with("`done` is no status, expected one of unassigned"));
        let error = Filter::new(&settings(), &[], Some("deploy")).expect_err("no stage");
        assert!(error.to_string().ends_with("architect, test, implementation, supervisor"));
    }
}
