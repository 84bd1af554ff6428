//! A schedule as a picture of letters: agents as rows, time as columns.

use std::collections::BTreeMap;

use crate::machine::id::AgentName;
use crate::machine::plan::{Entry, Plan};
use crate::observe::page::{Page, cut};

/// Rows drawn.
const ROWS_MAX: usize = 40;
/// Columns of an agent's name.
const NAME_COLUMNS_MAX: usize = 24;
/// Columns between two marks of the scale.
const MARK_COLUMNS: usize = 12;
/// Lengths of a column that read well, in seconds.
const STEPS_S: [u64; 20] = [
    1, 2, 5, 10, 15, 30, 60, 120, 300, 600, 900, 1800, 3600, 7200, 10_800, 21_600, 43_200, 86_400,
    172_800, 604_800,
];

/// Returns the picture: each attempt is drawn with the first letter of its stage, in upper and lower
/// case by turns, a column by the attempt that fills most of it; `.` where the agent has nothing.
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
    let mut out = format!("a column is {}\n", brief(column_ms));
    out.push_str(&" ".repeat(name_columns + 2));
    out.push_str(scale(columns, column_ms).trim_end());
    out.push('\n');
    for (name, entries) in rows.iter().take(ROWS_MAX) {
        let name = cut(name.as_str(), name_columns);
        let line = row(entries, columns, column_ms);
        out.push_str(&format!("{name:name_columns$}  |{line}|\n"));
    }
    if rows.len() > ROWS_MAX {
        out.push_str(&format!("and {} agents more\n", rows.len() - ROWS_MAX));
    }
    out
}

/// Returns how much time a column stands for, so that all of it fits.
fn column_ms(makespan_ms: u64, columns: usize) -> u64 {
    let fits = |ms: u64| makespan_ms.div_ceil(ms) <= columns as u64;
    let step = STEPS_S.iter().map(|s| s * 1000).find(|ms| fits(*ms));
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

fn row(entries: &[&Entry], columns: usize, column_ms: u64) -> String {
    // What fills most of each column, with how much of it.
    let mut cells = vec![('.', 0_u64); columns];
    for (number, entry) in entries.iter().enumerate() {
        let letter = entry.stage.as_str().chars().next().unwrap_or('?');
        let letter =
            if number % 2 == 0 { letter.to_ascii_uppercase() } else { letter.to_ascii_lowercase() };
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

/// Returns a span without blanks: `90s` is `1m30s`, two units at most.
#[must_use]
pub fn brief(ms: u64) -> String {
    let s = ms / 1000;
    let units = [(86_400, "d"), (3600, "h"), (60, "m"), (1, "s")];
    let Some(first) = units.iter().position(|(unit, _)| s >= *unit) else {
        return if ms == 0 { "0".to_owned() } else { format!("{ms}ms") };
    };
    let (unit, name) = units[first];
    let rest = units.get(first + 1).map(|(small, name)| (s % unit / small, name));
    match rest.filter(|(count, _)| *count > 0) {
        Some((count, small)) => format!("{}{name}{count}{small}", s / unit),
        None => format!("{}{name}", s / unit),
    }
}

#[cfg(test)]
mod tests {
    use super::{brief, column_ms, row, scale};
    use crate::machine::id::{AgentName, StageName, TaskId};
    use crate::machine::plan::Entry;

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

    fn check(entries: &[Entry], drawn: &str) {
        let entries: Vec<&Entry> = entries.iter().collect();
        assert_eq!(row(&entries, drawn.len(), 1000), drawn);
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
        assert_eq!(column_ms(0, 60), 1000);
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
            (1000, "1s"),
            (90_000, "1m30s"),
            (3_600_000, "1h"),
            (5_405_000, "1h30m"),
            (90_000_000, "1d1h"),
        ];
        table.iter().for_each(|(ms, text)| assert_eq!(brief(*ms), *text));
    }
}
