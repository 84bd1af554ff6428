//! A schedule as a picture of letters: agents as rows, time as columns.

use std::collections::BTreeMap;

use crate::machine::id::{AgentName, StageName};
use crate::machine::plan::{Entry, Plan};
use crate::observe::page::{Page, cut, filled};

/// Rows drawn.
const ROWS_MAX: usize = 40;
/// Columns of an agent's name.
const NAME_COLUMNS_MAX: usize = 24;
/// Columns between two marks of the scale.
const MARK_COLUMNS: usize = 12;
/// Columns of a stage's name.
const STAGE_COLUMNS_MAX: usize = 24;
/// Lengths of a column that read well, in milliseconds.
const STEPS_MS: [u64; 26] = [
    10,
    20,
    50,
    100,
    200,
    500,
    1000,
    2000,
    5000,
    10_000,
    15_000,
    30_000,
    60_000,
    120_000,
    300_000,
    600_000,
    900_000,
    1_800_000,
    3_600_000,
    7_200_000,
    10_800_000,
    21_600_000,
    43_200_000,
    86_400_000,
    172_800_000,
    604_800_000,
];

/// Returns the picture, with what its letters mean: each attempt is drawn with the letter of its
/// stage, in upper and lower case by turns, a column by the attempt that fills most of it; `.` where
/// the agent has nothing.
#[must_use]
pub fn gantt(plan: &Plan, page: Page) -> String {
    let mut rows: BTreeMap<&AgentName, Vec<&Entry>> =
        plan.busy_ms.keys().map(|name| (name, Vec::new())).collect();
    for entry in &plan.schedule {
        rows.entry(&entry.agent).or_default().push(entry);
    }
    let widest = rows.keys().map(|name| name.as_str().len()).max().unwrap_or(0);
    let name_columns = widest.min(NAME_COLUMNS_MAX);
    let columns = page.columns().saturating_sub(name_columns + 4).max(1);
    let column_ms = column_ms(plan.makespan_ms, columns);
    let columns = plan.makespan_ms.div_ceil(column_ms).max(1) as usize;
    let letters = letters(plan);
    let mut out = legend(&letters, column_ms, page);
    out.push_str(&" ".repeat(name_columns + 2));
    out.push_str(scale(columns, column_ms).trim_end());
    out.push('\n');
    for (name, entries) in rows.iter().take(ROWS_MAX) {
        let name = cut_in_the_middle(name.as_str(), name_columns);
        let line = row(entries, &letters, columns, column_ms);
        out.push_str(&format!("{name:name_columns$}  |{line}|\n"));
    }
    if rows.len() > ROWS_MAX {
        out.push_str(&format!("and {} agents more\n", rows.len() - ROWS_MAX));
    }
    out
}

/// Returns a letter for each stage of the plan, in pipeline order: one of its name where there is one
/// that no stage before it has, and no two the same; `?` where there are too many.
fn letters(plan: &Plan) -> Vec<(StageName, char)> {
    let mut letters: Vec<(StageName, char)> = Vec::new();
    for stage in plan.end.settings.stages.iter().map(|stage| stage.id()) {
        if !plan.schedule.iter().any(|entry| entry.stage == stage) {
            continue;
        }
        let own = stage.as_str().chars().map(|c| c.to_ascii_uppercase());
        let is_free = |c: &char| letters.iter().all(|(_, taken)| taken != c);
        let mut choice = own.chain('A'..='Z').filter(char::is_ascii_uppercase);
        let letter = choice.find(is_free).unwrap_or('?');
        letters.push((stage, letter));
    }
    letters
}

fn legend(letters: &[(StageName, char)], column_ms: u64, page: Page) -> String {
    let named = |(stage, letter): &(StageName, char)| {
        format!("{letter} {}", cut(stage.as_str(), STAGE_COLUMNS_MAX))
    };
    let names: Vec<String> = letters.iter().map(named).collect();
    let mut words: Vec<String> = names.iter().map(|name| format!("{name},")).collect();
    if let (Some(last), Some(name)) = (words.last_mut(), names.last()) {
        *last = format!("{name};");
    }
    words.push(format!("a column is {}", brief(column_ms)));
    filled(&words, " ", page.columns()).iter().map(|line| format!("{line}\n")).collect()
}

/// Returns at most `columns` columns of a name, with its end, where the number is.
fn cut_in_the_middle(name: &str, columns: usize) -> String {
    let (all, tail) = (name.chars().count(), columns / 3);
    if all <= columns {
        return name.to_owned();
    }
    let end: String = name.chars().skip(all - tail).collect();
    format!("{}{end}", cut(name, columns - tail))
}

/// Returns how much time a column stands for, so that all of it fits.
fn column_ms(makespan_ms: u64, columns: usize) -> u64 {
    let fits = |ms: u64| makespan_ms.div_ceil(ms) <= columns as u64;
    let step = STEPS_MS.into_iter().find(|ms| fits(*ms));
    step.unwrap_or_else(|| makespan_ms.div_ceil(columns as u64))
}

fn scale(columns: usize, column_ms: u64) -> String {
    let mut line = String::new();
    for column in (0..columns).step_by(MARK_COLUMNS) {
        let mark = format!("|{}", brief(column as u64 * column_ms));
        line.push_str(&format!("{mark:MARK_COLUMNS$}"));
    }
    line
}

fn row(
    entries: &[&Entry],
    letters: &[(StageName, char)],
    columns: usize,
    column_ms: u64,
) -> String {
    // What fills most of each column, with how much of it.
    let mut cells = vec![('.', 0_u64); columns];
    for (number, entry) in entries.iter().enumerate() {
        let letter = letters.iter().find(|(stage, _)| *stage == entry.stage);
        let letter = letter.map_or('?', |(_, letter)| *letter);
        let letter = if number % 2 == 0 { letter } else { letter.to_ascii_lowercase() };
        let first = (entry.start_ms / column_ms) as usize;
        let last = (entry.end_ms.saturating_sub(1).max(entry.start_ms) / column_ms) as usize;
        for column in first..=last.min(columns - 1) {
            let from = column as u64 * column_ms;
            let filled = entry.end_ms.min(from + column_ms) - entry.start_ms.max(from);
            if let Some(cell) = cells.get_mut(column).filter(|(_, most)| filled > *most) {
                *cell = (letter, filled);
            }
        }
    }
    cells.into_iter().map(|(letter, _)| letter).collect()
}

/// Returns a span without blanks: `90s` is `1m30s`, two units at most; below ten seconds with tenths.
#[must_use]
pub fn brief(ms: u64) -> String {
    let s = ms / 1000;
    let units = [(86_400, "d"), (3600, "h"), (60, "m"), (1, "s")];
    let Some(first) = units.iter().position(|(unit, _)| s >= *unit) else {
        return if ms == 0 { "0".to_owned() } else { format!("{ms}ms") };
    };
    let tenths = ms % 1000 / 100;
    if s < 10 && tenths > 0 {
        return format!("{s}.{tenths}s");
    }
    let (unit, name) = units[first];
    let rest = units.get(first + 1).map(|(small, name)| (s % unit / small, name));
    match rest.filter(|(count, _)| *count > 0) {
        Some((count, small)) => format!("{}{name}{count}{small}", s / unit),
        None => format!("{}{name}", s / unit),
    }
}

#[cfg(test)]
mod tests {
    use super::{brief, column_ms, cut_in_the_middle, gantt, legend, letters, row, scale};
    use crate::machine::id::{AgentName, StageName, TaskId};
    use crate::machine::plan::{ATTEMPTS_MAX, Entry, Plan, Workers, plan};
    use crate::machine::settings::Stage;
    use crate::observe::page::Page;
    use crate::observe::support::{Pipeline, settings};

    fn entry(stage: &str, start_ms: u64, end_ms: u64) -> Entry {
        Entry {
            task: TaskId::new("A"),
            stage: StageName::new(stage),
            agent: AgentName::new("a"),
            start_ms,
            end_ms,
            is_running: false,
            least_ms: 0,
        }
    }

    /// A plan of the entries, by a pipeline with these stages.
    fn planned(stages: &[&str], schedule: Vec<Entry>) -> Plan {
        let mut settings = settings();
        let one = settings.stages[0].clone();
        let of = |name: &&str| Stage { name: (*name).into(), short: (*name).into(), ..one.clone() };
        settings.stages = stages.iter().map(of).collect();
        let pipeline = Pipeline::started(settings, Vec::new());
        let plan = plan(&pipeline.state, pipeline.now, Workers::Agents, ATTEMPTS_MAX);
        let makespan_ms = schedule.iter().map(|entry| entry.end_ms).max().unwrap_or(0);
        Plan { schedule, makespan_ms, ..plan }
    }

    fn check(entries: &[Entry], drawn: &str) {
        let plan = planned(&["test", "impl", "super"], entries.to_vec());
        let entries: Vec<&Entry> = entries.iter().collect();
        assert_eq!(row(&entries, &letters(&plan), drawn.len(), 1000), drawn);
    }

    #[test]
    fn each_stage_has_a_letter_of_its_own_and_the_legend_says_which() {
        let stages = ["security", "supervisor", "s", "docs", "x"];
        let all = stages.iter().take(4).map(|name| entry(name, 0, 1000)).collect();
        let plan = planned(&stages, all);
        let letters = letters(&plan);
        let said = legend(&letters, 10, Page::plain(80));
        let expected = "S security, U supervisor, A s, D docs; a column is 10ms\n";
        assert_eq!(said, expected, "not of those that are not in it");
        let narrow = legend(&letters, 10, Page::plain(40));
        assert!(narrow.lines().all(|line| line.len() <= 40), "{narrow}");
        assert_eq!(narrow.replace('\n', " ").trim_end(), expected.trim_end());
        let many: Vec<String> = (0..30).map(|n| format!("stage-{n}")).collect();
        let many: Vec<&str> = many.iter().map(String::as_str).collect();
        let plan = planned(&many, many.iter().map(|name| entry(name, 0, 1)).collect());
        let mut taken: Vec<char> = super::letters(&plan).into_iter().map(|(_, c)| c).collect();
        taken.sort_unstable();
        taken.dedup();
        assert_eq!(taken.len(), 27, "all letters, and `?` for the rest");
    }

    #[test]
    fn what_takes_milliseconds_is_drawn_too() {
        let plan = planned(&["test"], vec![entry("test", 0, 120), entry("test", 120, 240)]);
        let drawn = gantt(&plan, Page::plain(80));
        assert!(drawn.contains("a column is 10ms"), "{drawn}");
        assert!(drawn.contains("|TTTTTTTTTTTTtttttttttttt|"), "{drawn}");
    }

    #[test]
    fn a_long_name_keeps_its_number() {
        let name = |number: u32| format!("implementation-of-everything-{number}");
        assert_eq!(cut_in_the_middle(&name(12), 24), "implementation-…thing-12");
        assert_ne!(cut_in_the_middle(&name(12), 24), cut_in_the_middle(&name(13), 24));
        assert_eq!(cut_in_the_middle("impl-1", 24), "impl-1");
    }

    #[test]
    fn attempts_are_drawn_where_they_fill_most_of_a_column() {
        check(&[], "...");
        check(&[entry("test", 0, 2000), entry("test", 2000, 3000)], "TTt");
        check(&[entry("impl", 1000, 2000), entry("super", 3000, 4000)], ".I.s");
        // The longer half of the second; what ends with a column is not in the next one.
        check(&[entry("impl", 0, 1400), entry("test", 1400, 3000)], "Itt.");
        check(&[entry("impl", 500, 500)], ".");
    }

    #[test]
    fn a_column_is_as_short_as_fits_and_reads_well() {
        assert_eq!(column_ms(0, 60), 10);
        assert_eq!(column_ms(601, 60), 20);
        assert_eq!(column_ms(30_000, 60), 500);
        assert_eq!(column_ms(60_000, 60), 1000);
        assert_eq!(column_ms(60_001, 60), 2000);
        assert_eq!(column_ms(13 * 3_600_000, 60), 900_000);
        assert_eq!(column_ms(u64::MAX / 2, 60), (u64::MAX / 2).div_ceil(60));
        assert_eq!(scale(13, 60_000), "|0          |12m        ");
    }

    #[test]
    fn spans_are_brief() {
        let table = [
            (0, "0"),
            (250, "250ms"),
            (2400, "2.4s"),
            (12_400, "12s"),
            (1000, "1s"),
            (90_000, "1m30s"),
            (3_600_000, "1h"),
            (5_405_000, "1h30m"),
            (90_000_000, "1d1h"),
        ];
        table.iter().for_each(|(ms, text)| assert_eq!(brief(*ms), *text));
    }
}
