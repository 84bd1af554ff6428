//! How much waits for each stage, and who is there for it.

use serde::{Serialize, Serializer};

use super::words::Stamp;
use crate::machine::State;
use crate::machine::time::Time;

/// What waits for one stage.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct Level {
    /// Ready tasks.
    pub waiting: usize,
    /// Attempts under way.
    pub busy: usize,
    /// Agents that serve it and are free.
    pub available: usize,
}

/// Every stage's level by long name, in pipeline order.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Flow(Vec<(String, Level)>);

impl Serialize for Flow {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_map(self.0.iter().map(|(stage, level)| (stage, level)))
    }
}

impl Flow {
    /// Counts. Cost: stages by agents and live attempts.
    #[must_use]
    pub fn of(state: &State) -> Self {
        let levels = state.settings.stages.iter().map(|config| {
            let stage = config.id();
            let works = state.attempts.values().filter(|attempt| attempt.is_work());
            let free = state.agents.values().filter(|agent| state.is_free(agent));
            let level = Level {
                waiting: state.index.ready.get(&stage).map_or(0, |queues| queues.len()),
                busy: works.filter(|attempt| attempt.stage() == Some(&stage)).count(),
                available: free.filter(|agent| agent.stages.contains(&stage)).count(),
            };
            (config.name.clone(), level)
        });
        Self(levels.collect())
    }
}

/// `{"seq":N,"time":T,"actor":A,"kind":"queues_changed","queues":{STAGE:{…}}}`
#[derive(Debug, Serialize)]
struct Entry<'a> {
    seq: u64,
    time: Stamp,
    actor: &'a str,
    kind: &'static str,
    queues: &'a Flow,
}

/// Returns what a transaction did to the queues as a JSON object, without a line feed.
#[must_use]
pub fn flow_line(seq: u64, time: Time, actor: &str, flow: &Flow) -> String {
    let entry = Entry { seq, time: Stamp(time), actor, kind: "queues_changed", queues: flow };
    serde_json::to_string(&entry).expect("every key is a string")
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::{Flow, flow_line};
    use crate::observe::support::{End, Pipeline, settings, task};

    fn levels(pipeline: &Pipeline) -> Value {
        serde_json::to_value(Flow::of(&pipeline.state)).expect("an object")
    }

    #[test]
    fn each_stage_counts_what_waits_who_works_and_who_is_free() {
        let tasks = vec![task("A", &[]), task("B", &[]), task("C", &["A"])];
        let mut pipeline = Pipeline::started(settings(), tasks);
        let level = |waiting: usize, busy: usize, available: usize| json!({"waiting": waiting, "busy": busy, "available": available});
        let before = levels(&pipeline);
        assert_eq!(before["architect"], level(1, 1, 0));
        assert_eq!(before["implementation"], level(0, 0, 2));
        pipeline.run("A.arch.1", End::Done);
        pipeline.turn();
        assert_eq!(levels(&pipeline)["architect"], level(0, 1, 0));
        assert_eq!(levels(&pipeline)["test"], level(0, 1, 0));
        pipeline.pause_agent("implementation-1");
        assert_eq!(levels(&pipeline)["implementation"], level(0, 0, 1));
    }

    #[test]
    fn a_line_names_the_stages_in_pipeline_order() {
        let pipeline = Pipeline::started(settings(), Vec::new());
        let line = flow_line(7, pipeline.now, "monitor", &Flow::of(&pipeline.state));
        let expected = concat!(
            r#"{"seq":7,"time":"2026-11-20T23:00:00.000Z","actor":"monitor","#,
            r#""kind":"queues_changed","queues":{"#,
            r#""architect":{"waiting":0,"busy":0,"available":1},"#
        );
        assert!(line.starts_with(expected), "{line}");
    }
}
