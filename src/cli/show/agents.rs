//! `pipeline agent list`.

use super::json::{AgentList, GroupEntry, NamedAgent, SpentEntry, document};
use crate::machine::State;
use crate::machine::purse::Spent;
use crate::machine::settings::AgentGroup;
use crate::machine::time::Time;
use crate::observe::agents::entry;
use crate::observe::page::{Cell, Ink, Page, columns, cut, table};
use crate::observe::purse::spent_words;
use crate::observe::text::row;

/// Places of columns in the table.
const AT: usize = 2;
const STAGES: usize = 3;
const FAILED: usize = 5;
/// Columns left to one that is cut.
const COLUMNS_MIN: usize = 6;

/// Returns a table: name, status, what it is at, its stages, attempts completed and failed.
#[must_use]
pub fn render_agents(state: &State, at: Time, page: Page) -> String {
    if state.settings.agents.is_empty() && state.agents.is_empty() {
        return "no agents: see `[[agent]]` in pipeline.toml\n".into();
    }
    let headings = ["agent", "status", "at", "stages", "done", "failed"];
    let mut rows: Vec<Vec<Cell>> =
        vec![headings.iter().map(|word| Cell::new(word).inked(Ink::Faint)).collect()];
    rows.extend(state.agents.values().map(|agent| {
        let entry = entry(state, agent, at);
        let mut cells = row(agent.name.as_str(), &entry);
        cells.push(Cell::new(&entry.stages.join(", ")));
        cells.push(Cell::new(&entry.completed.to_string()));
        cells.push(Cell::new(&entry.failed.to_string()));
        cells
    }));
    fit(page, &mut rows);
    table(page, 0, &rows) + &group_lines(state)
}

/// Cuts the stages, then what an agent is at, until the figures behind them have room.
fn fit(page: Page, rows: &mut [Vec<Cell>]) {
    let wide = |rows: &[Vec<Cell>], place: usize| {
        let cells = rows.iter().filter_map(|row| row.get(place));
        cells.map(|cell| columns(&cell.text)).max().unwrap_or(0).min(page.columns() / 3)
    };
    for place in [STAGES, AT] {
        let all: usize = (0..=FAILED).map(|place| wide(rows, place)).sum::<usize>() + 2 * FAILED;
        let excess = all.saturating_sub(page.columns());
        let room = wide(rows, place).saturating_sub(excess).max(COLUMNS_MIN);
        let cells = rows.iter_mut().filter_map(|row| row.get_mut(place));
        cells
            .filter(|_| excess > 0)
            .for_each(|cell| cell.text = cut(&cell.text, room).into_owned());
    }
}

/// Returns a line for each group whose number of agents is not simply its `count`.
fn group_lines(state: &State) -> String {
    let lines = groups(state).filter_map(|(group, entry)| {
        let GroupEntry { name, target, min, max, .. } = entry;
        let auto = format!("pipeline agent scale {name} auto");
        match (entry.by_hand, group.scale_min) {
            (false, None) => None,
            (false, Some(_)) => {
                Some(format!("{name}: {target} of {min} to {max}, by queue length\n"))
            }
            (true, None) => Some(format!("{name}: {target} by hand, not {max} ({auto})\n")),
            (true, Some(_)) => {
                Some(format!("{name}: {target} by hand, of {min} to {max} ({auto})\n"))
            }
        }
    });
    let lines: String = lines.collect();
    let lines = routes(state) + &lines + &spent_lines(state);
    if lines.is_empty() { lines } else { format!("\n{lines}") }
}

/// Returns a line for each group that gets other tasks than the rest: its tier, and how complex they
/// are. None where all are of one tier and nothing is said of complexity.
fn routes(state: &State) -> String {
    let groups = &state.settings.agents;
    let is_tiered = groups.iter().any(|group| group.tier != groups[0].tier);
    let lines = groups.iter().filter_map(|group| {
        let tier = is_tiered.then(|| format!("tier {}", group.tier));
        let words = (!group.complexity.is_empty())
            .then(|| format!("preferred for {} tasks", group.complexity.join(" and ")));
        let what: Vec<String> = tier.into_iter().chain(words).collect();
        (!what.is_empty()).then(|| format!("{}: {}\n", group.name, what.join(", ")))
    });
    lines.collect()
}

/// Returns a line for each group whose agents' programs have a provider.
fn spent_lines(state: &State) -> String {
    let groups = state.settings.agents.iter();
    let lines = groups.filter_map(|group| {
        let words = spent_words(state.metrics.groups.get(&group.name)?)?;
        Some(format!("{}: {words}\n", group.name))
    });
    lines.collect()
}

fn groups(state: &State) -> impl Iterator<Item = (&AgentGroup, GroupEntry<'_>)> {
    state.settings.agents.iter().map(|group| {
        let target = state.target(group);
        let agents = state.agents.values().filter(|agent| agent.is_retired);
        let is_its = |name| state.settings.group_of(name).is_some_and(|its| its.name == group.name);
        let entry = GroupEntry {
            name: &group.name,
            target: target.count,
            min: group.least(),
            max: group.count,
            by_hand: target.is_by_hand,
            tier: group.tier,
            complexity: &group.complexity,
            retiring: agents.filter(|agent| is_its(&agent.name)).count(),
            spent: SpentEntry::new(
                state.metrics.groups.get(&group.name).unwrap_or(&Spent::default()),
            ),
        };
        (group, entry)
    })
}

/// Returns `{"agents":[…],"groups":[…]}`, agents by name.
#[must_use]
pub fn render_agents_json(state: &State, at: Time) -> String {
    let agents = state.agents.values().map(|agent| NamedAgent {
        name: agent.name.as_str(),
        entry: entry(state, agent, at),
        capabilities: &agent.capabilities,
        retiring: agent.is_retired,
    });
    let groups = groups(state).map(|(_, entry)| entry).collect();
    document(&AgentList { agents: agents.collect(), groups })
}

#[cfg(test)]
mod tests {
    use serde_json::Value;

    use super::{render_agents, render_agents_json};
    use crate::machine::Command;
    use crate::observe::page::Page;
    use crate::observe::support::{Pipeline, settings, task};

    #[test]
    fn groups_say_how_many_there_are_where_that_is_not_plain() {
        let mut settings = settings();
        settings.agents[0].scale_min = Some(0);
        let mut pipeline = Pipeline::started(settings, vec![task("A", &[])]);
        let scale = |pipeline: &mut Pipeline, group: &str, to| {
            pipeline.send(Command::ScaleAgents { group: group.into(), to: Some(to) });
        };
        scale(&mut pipeline, "test", 2);
        scale(&mut pipeline, "architect", 0);
        let text = render_agents(&pipeline.state, pipeline.now, Page::plain(100));
        let groups = "\n\narchitect: 0 by hand, of 0 to 1 (pipeline agent scale architect auto)\n\
                      test: 2 by hand, not 1 (pipeline agent scale test auto)\n";
        assert!(text.ends_with(groups), "{text}");
        assert!(text.contains("\narchitect         working (last)  A architect"), "{text}");
        let json = render_agents_json(&pipeline.state, pipeline.now);
        let json: Value = serde_json::from_str(&json).expect("a document");
        assert_eq!(json["agents"][0]["retiring"], true);
        let group = serde_json::json!({
            "name": "architect", "target": 0, "min": 0, "max": 1, "by_hand": true, "retiring": 1,
            "tier": 1, "complexity": [],
            "spent": {"tokens": null, "cost_usd": null, "cost_unknown": 0}
        });
        assert_eq!(json["groups"][0], group);
    }

    #[test]
    fn groups_say_of_which_tier_they_are_and_for_what() {
        let mut tiered = settings();
        tiered.agents.truncate(2);
        tiered.agents[1].tier = 3;
        tiered.agents[1].complexity = vec!["complex".into()];
        let pipeline = Pipeline::started(tiered, vec![task("A", &[])]);
        let text = render_agents(&pipeline.state, pipeline.now, Page::plain(80));
        let groups = "\n\narchitect: tier 1\ntest: tier 3, preferred for complex tasks\n";
        assert!(text.ends_with(groups), "{text}");
        let json = render_agents_json(&pipeline.state, pipeline.now);
        let json: Value = serde_json::from_str(&json).expect("a document");
        assert_eq!(json["groups"][1]["tier"], 3);
        assert_eq!(json["groups"][1]["complexity"], serde_json::json!(["complex"]));
    }

    #[test]
    fn stages_are_cut_before_the_figures() {
        let mut settings = settings();
        settings.agents[0].stages =
            settings.stages.iter().map(|stage| stage.name.clone()).collect();
        let mut pipeline = Pipeline::started(settings, vec![task("TASK-001", &[])]);
        pipeline.pass(61_000);
        let text = render_agents(&pipeline.state, pipeline.now, Page::plain(80));
        assert!(text.lines().all(|line| line.chars().count() <= 80), "{text}");
        assert!(text.lines().next().is_some_and(|line| line.ends_with("  done  failed")), "{text}");
        assert!(text.contains("TASK-001 architect for 1…"), "{text}");
    }

    #[test]
    fn each_agent_shows_what_it_is_at() {
        let mut pipeline = Pipeline::started(settings(), vec![task("A", &[])]);
        pipeline.pause_agent("test");
        pipeline.pass(61_000);
        let text = render_agents(&pipeline.state, pipeline.now, Page::plain(100));
        let architect = "architect         working  A architect for 1 min 1 s  architect       0";
        assert!(text.contains(architect), "{text}");
        assert!(text.contains("\ntest              paused "), "{text}");
        let json = render_agents_json(&pipeline.state, pipeline.now);
        let json: Value = serde_json::from_str(&json).expect("a document");
        assert_eq!(json["agents"][0]["name"], "architect");
        assert_eq!(json["agents"][0]["attempt"], "A.arch.1");
        assert_eq!(json["agents"][0]["busy_s"], 61.0);
    }
}
