//! `pipeline agent list`.

use super::json::{AgentList, NamedAgent, document};
use crate::machine::State;
use crate::machine::time::Time;
use crate::observe::agents::entry;
use crate::observe::page::{Cell, Ink, Page, table};
use crate::observe::text::row;

/// Returns a table: name, status, what it is at, its stages, attempts completed and failed.
#[must_use]
pub fn render_agents(state: &State, at: Time, page: Page) -> String {
    if state.agents.is_empty() {
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
    table(page, 0, &rows)
}

/// Returns `{"agents":[…]}`, by name.
#[must_use]
pub fn render_agents_json(state: &State, at: Time) -> String {
    let agents = state.agents.values().map(|agent| NamedAgent {
        name: agent.name.as_str(),
        entry: entry(state, agent, at),
        capabilities: &agent.capabilities,
    });
    document(&AgentList { agents: agents.collect() })
}

#[cfg(test)]
mod tests {
    use serde_json::Value;

    use super::{render_agents, render_agents_json};
    use crate::observe::page::Page;
    use crate::observe::support::{Pipeline, settings, task};

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
