//! Asks the external scheduler: a command that is told what could start, and who is free, and says
//! who is to get what. What it says is for the machine to examine.
//!
//! Both documents are those of `docs/scheduler.md`.

use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::path::Path;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::program::{Program, ended};
use crate::machine::agent::Agent;
use crate::machine::id::{AgentName, StageName, TaskId};
use crate::machine::proposal::{PAIRS_MAX, Pair, ProposalFault};
use crate::machine::schedule::demand::Demand;
use crate::machine::schedule::load::Load;
use crate::machine::schedule::pool::Takers;
use crate::machine::settings::Stage;
use crate::machine::task::Task;
use crate::machine::{Observation, State, amount, complexity, schedule};
use crate::observe::page::cut;
use crate::observe::words::{Stamp, orchestration, priority};
use crate::sys::child::Heard;

/// Of question and answer.
const FORMAT: u32 = 1;
/// How long an answer may take. Nothing starts meanwhile, so it is short; an interpreter that has to
/// be started on a busy machine comes to its word.
const LIMIT: Duration = Duration::from_secs(5);
/// Longest answer.
const ANSWER_BYTES_MAX: usize = 1 << 20;
/// Most tasks offered in one question.
const TASKS_MAX: usize = 1000;
/// Most ready tasks looked at for one question.
const LOOKED_MAX: usize = 10_000;
/// Most tasks of the built-in choice that are offered whatever else is.
const PICKED_MAX: usize = 64;
/// Columns shown of a name that nothing can have.
const NAME_COLUMNS_MAX: usize = 40;

/// A question that has not been asked yet.
#[derive(Debug)]
pub struct Question {
    number: u64,
    program: Program,
    /// One JSON document; each task and agent has a line of its own.
    text: String,
}

#[derive(Debug, Serialize)]
struct OfferedTask<'a> {
    id: &'a str,
    stage: &'a str,
    title: &'a str,
    priority: &'static str,
    is_front: bool,
    parent: Option<&'a str>,
    labels: &'a [String],
    complexity: &'static str,
    touches: &'a [String],
    needs: &'a [String],
    tier_min: u32,
    resources: BTreeMap<&'a str, String>,
    is_exclusive: bool,
    /// Ended so far, of any stage.
    attempts: u32,
    /// Failed in a row at this stage.
    failures: u32,
    /// It had the task, and lost it.
    avoid: Option<&'a str>,
    /// Expected of all its stages that are left.
    left_ms: u64,
    /// With the longest chain of tasks that wait for it.
    chain_ms: u64,
}

#[derive(Debug, Serialize)]
struct FreeAgent<'a> {
    name: &'a str,
    group: Option<&'a str>,
    stages: Vec<&'a str>,
    capabilities: &'a [String],
    tier: u32,
    complexity: &'a [String],
    completed: u64,
    failed: u64,
    idle_since: Stamp,
    last_task: Option<&'a str>,
}

#[derive(Debug, Serialize)]
struct Running<'a> {
    task: &'a str,
    stage: &'a str,
    agent: &'a str,
    since: Stamp,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Answer {
    format: u32,
    assignments: Vec<AnswerPair>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct AnswerPair {
    task: String,
    agent: String,
}

impl Question {
    /// Puts the question together. Cost: bounded by the constants above, and free agents.
    pub fn of(state: &State, number: u64, root: &Path, program_dir: &Path) -> Self {
        let command = &state.settings.scheduler.command;
        let program = Program::of(command, root, program_dir, &[]);
        Self { number, program, text: text(state, number) }
    }

    /// Asks, and returns what the machine is to be told.
    pub fn ask(&self) -> Observation {
        let number = self.number;
        match self.answer() {
            Ok(pairs) => Observation::Proposed { number, pairs },
            Err((fault, why)) => Observation::NotProposed { number, fault, why },
        }
    }

    fn answer(&self) -> Result<Vec<Pair>, (ProposalFault, String)> {
        let shown = self.program.shown();
        let heard = crate::sys::fail::point("scheduler.run")
            .and_then(|()| self.program.run(&self.text, LIMIT, ANSWER_BYTES_MAX, None));
        let heard = heard.map_err(|error| {
            (ProposalFault::Failed, format!("`{shown}` cannot be started: {error}"))
        })?;
        match heard {
            Heard::Late(_) => {
                let limit = LIMIT.as_secs();
                let why = format!("`{shown}` gave no answer within {limit} s and was ended");
                Err((ProposalFault::Late, why))
            }
            Heard::Ended(output) if !output.status.success() => {
                Err((ProposalFault::Failed, format!("`{shown}` {}", ended(&output))))
            }
            Heard::Ended(output) => parse(&output.stdout).map_err(|why| {
                (ProposalFault::Unreadable, format!("the answer of `{shown}`: {why}"))
            }),
        }
    }
}

/// Reads an answer.
///
/// # Errors
/// What is wrong with it, in words.
fn parse(answer: &[u8]) -> Result<Vec<Pair>, String> {
    if answer.len() >= ANSWER_BYTES_MAX {
        return Err(format!("it is longer than {} KiB", ANSWER_BYTES_MAX >> 10));
    }
    let read: Answer = serde_json::from_slice(answer)
        .map_err(|error| format!("not JSON of the form that is documented: {error}"))?;
    if read.format != FORMAT {
        return Err(format!("its `format` is {}, expected {FORMAT}", read.format));
    }
    if read.assignments.len() > PAIRS_MAX {
        let count = read.assignments.len();
        return Err(format!("{count} assignments, at most {PAIRS_MAX} are taken"));
    }
    let pair = |pair: &AnswerPair| Pair {
        task: TaskId::new(named(&pair.task)),
        agent: AgentName::new(named(&pair.agent)),
    };
    Ok(read.assignments.iter().map(pair).collect())
}

/// Returns a name as it is to be looked up and shown: what nothing can be called is cut, safe to
/// print, and still no name, so that its pair is refused.
fn named(text: &str) -> Cow<'_, str> {
    match TaskId::check(text) {
        Ok(()) => Cow::Borrowed(text),
        Err(_) if text.is_empty() => Cow::Borrowed("``"),
        Err(_) => Cow::Owned(cut(&text.escape_debug().to_string(), NAME_COLUMNS_MAX).into_owned()),
    }
}

fn text(state: &State, number: u64) -> String {
    let offered = offered(state);
    let tasks = offered.iter().map(|(task, stage, demand)| offer(state, task, stage, demand));
    let free = state.agents.values().filter(|agent| state.is_free(agent));
    let work = state.attempts.values().filter(|attempt| attempt.is_work());
    let running = work.filter_map(|attempt| {
        Some(Running {
            task: attempt.task.as_ref()?.as_str(),
            stage: attempt.stage()?.as_str(),
            agent: attempt.agent.as_str(),
            since: Stamp(attempt.started_at.unwrap_or(attempt.assigned_at)),
        })
    });
    let (mode, ready) = (orchestration(state.orchestration), state.index.counts.ready);
    let mut text =
        format!("{{\"format\":{FORMAT},\"number\":{number},\"mode\":\"{mode}\",\"ready\":{ready}");
    list(&mut text, "tasks", tasks);
    list(&mut text, "agents", free.map(|agent| free_agent(state, agent)));
    list(&mut text, "running", running);
    text.push_str("}\n");
    text
}

/// Adds a list, each item on a line of its own.
fn list<T: Serialize>(text: &mut String, name: &str, items: impl Iterator<Item = T>) {
    let _ = write!(text, ",\n\"{name}\":[");
    for (place, item) in items.enumerate() {
        let item = serde_json::to_string(&item).expect("texts and numbers have a form in JSON");
        let _ = write!(text, "{}\n{item}", if place == 0 { "" } else { "," });
    }
    text.push_str("\n]");
}

/// Returns the tasks that could start by themselves now, in the order of the built-in scheduler:
/// latest stage first, then by rank.
fn offered(state: &State) -> Vec<(&Task, StageName, Demand)> {
    let load = Load::of(state);
    let mut offered = Vec::new();
    let mut ids = BTreeSet::new();
    let mut looked = 0;
    for stage in state.settings.stages.iter().rev().map(Stage::id) {
        let Some(queues) = state.index.ready.get(&stage) else { continue };
        // Where one of a demand cannot start, none can.
        let mut can_start: BTreeMap<&Demand, bool> = BTreeMap::new();
        for ((_, id), demand) in queues.by_rank() {
            looked += 1;
            if offered.len() >= TASKS_MAX || looked > LOOKED_MAX {
                break;
            }
            let demand = &**demand;
            let can = can_start.entry(demand).or_insert_with(|| {
                let takers = Takers::of(state, &stage, demand);
                let mut free = state.agents.values().filter(|agent| state.is_free(agent));
                free.any(|agent| takers.has(agent)) && load.obstacle(id, &stage, demand).is_none()
            });
            if *can {
                ids.insert(id.clone());
                offered.push((&state.tasks[id], stage.clone(), demand.clone()));
            }
        }
    }
    // Among very many that cannot start, these would not be found.
    for picked in schedule::pick(state, PICKED_MAX).assignments {
        if ids.insert(picked.task.clone()) {
            let task = &state.tasks[&picked.task];
            let demand = Demand::of(&state.settings, task, &picked.stage);
            offered.push((task, picked.stage, demand));
        }
    }
    offered
}

fn offer<'a>(
    state: &'a State,
    task: &'a Task,
    stage: &'a StageName,
    demand: &'a Demand,
) -> OfferedTask<'a> {
    let spec = &task.spec;
    let resources = demand.resources.iter();
    OfferedTask {
        id: task.id.as_str(),
        stage: stage.as_str(),
        title: &spec.title,
        priority: priority(spec.priority),
        is_front: task.is_front,
        parent: spec.parent.as_ref().map(TaskId::as_str),
        labels: &spec.labels,
        complexity: complexity::of(spec).word(),
        touches: &demand.touches,
        needs: &demand.needs,
        tier_min: Takers::of(state, stage, demand).tier_min,
        resources: resources.map(|(name, n)| (name.as_str(), amount::words(name, *n))).collect(),
        is_exclusive: demand.is_exclusive,
        attempts: task.tally.attempts,
        failures: task.tally.stage_failures,
        avoid: task.avoid.as_ref().map(AgentName::as_str),
        left_ms: task.weight.own_ms,
        chain_ms: task.weight.tail_ms,
    }
}

fn free_agent<'a>(state: &'a State, agent: &'a Agent) -> FreeAgent<'a> {
    let group = state.group_of(agent);
    FreeAgent {
        name: agent.name.as_str(),
        group: group.map(|group| group.name.as_str()),
        stages: agent.stages.iter().map(StageName::as_str).collect(),
        capabilities: &agent.capabilities,
        tier: group.map_or(0, |group| group.tier),
        complexity: group.map_or(&[], |group| group.complexity.as_slice()),
        completed: agent.completed,
        failed: agent.failed,
        idle_since: Stamp(agent.idle_since),
        last_task: agent.last_task.as_ref().map(TaskId::as_str),
    }
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::path::Path;

    use serde_json::Value;

    use super::*;
    use crate::machine::Command;
    use crate::observe::support::{Pipeline, settings, task};
    use crate::store::format::golden::fault;

    fn schema() -> Value {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("state/schema/scheduler.schema.json");
        serde_json::from_str(&fs::read_to_string(path).expect("the schema")).expect("JSON")
    }

    fn misfit(part: &str, text: &str) -> Option<String> {
        let (schema, text) = (schema(), serde_json::from_str(text).expect("JSON"));
        fault(&schema, &schema["$defs"][part], &text)
    }

    /// A pipeline that works on A, with B, C and D ready, of which C waits for what A changes.
    fn pipeline() -> Pipeline {
        let mut settings = settings();
        settings.scheduler.resources.insert("db".into(), 1500);
        settings.stages = settings.stages[2..].to_vec();
        settings.agents = settings.agents[2..].to_vec();
        let mut tasks = ["A", "B", "C", "D"].map(|id| task(id, &[])).to_vec();
        for (at, path) in [(0, "src/**"), (1, "b"), (2, "src/c"), (3, "d")] {
            tasks[at].spec.touches = vec![path.into()];
        }
        tasks[3].spec.title = "Line\n{\"id\":\"X\"".into();
        tasks[3].spec.resources.insert("db".into(), "0.5".into());
        tasks[3].is_front = true;
        let rest = tasks.split_off(1);
        let mut pipeline = Pipeline::started(settings, tasks);
        pipeline.send(Command::Pause);
        pipeline.send(Command::AddTasks { tasks: rest });
        pipeline.turn();
        pipeline
    }

    #[test]
    fn the_question_is_of_its_schema_and_offers_what_can_start() {
        let pipeline = pipeline();
        let text = text(&pipeline.state, 7);
        assert_eq!(misfit("question", &text), None, "{text}");
        let question: Value = serde_json::from_str(&text).expect("JSON");
        let names = |list: &str, name: &str| -> Vec<String> {
            let items = question[list].as_array().expect("a list").iter();
            items.map(|item| item[name].as_str().expect("text").to_owned()).collect()
        };
        assert_eq!(names("tasks", "id"), ["D", "B"], "in order, and not what cannot start");
        assert_eq!(names("running", "task"), ["A"]);
        assert_eq!(names("agents", "name"), ["implementation-2", "supervisor"]);
        assert_eq!((&question["ready"], &question["number"]), (&3.into(), &7.into()));
        assert_eq!(question["tasks"][0]["resources"]["db"], "0.5");
        let lines = text.lines().filter(|line| line.starts_with("{\"id\":"));
        assert_eq!(lines.count(), 2, "a line for each task, whatever its title: {text}");
    }

    #[test]
    fn answers_are_read_as_their_schema_says() {
        let pair = r#"{"task":"A","agent":"impl-1"}"#;
        let whole = format!(r#"{{"format":1,"assignments":[{pair}]}}"#);
        let read = parse(format!(" {whole}\n").as_bytes()).expect("an answer");
        assert_eq!((read[0].task.as_str(), read[0].agent.as_str()), ("A", "impl-1"));
        assert_eq!(misfit("answer", &whole), None);
        assert_eq!(parse(br#"{"assignments":[],"format":1}"#), Ok(Vec::new()));
        let wrong = [
            ("{}".to_owned(), "missing field `format`"),
            (whole.replace('1', "2"), "its `format` is 2, expected 1"),
            (whole.replace("\"format\"", "\"more\":1,\"format\""), "unknown field `more`"),
            (whole.replace("\"task\"", "\"id\""), "unknown field `id`"),
            (format!("{whole}{whole}"), "trailing characters"),
            (whole.replace("\"A\"", "7"), "invalid type"),
        ];
        for (text, expected) in wrong {
            let why = parse(text.as_bytes()).expect_err(&text);
            assert!(why.contains(expected), "{text}: {why}");
            let fits = serde_json::from_str::<Value>(&text)
                .is_ok_and(|_| misfit("answer", &text).is_none());
            assert!(!fits, "{text}");
        }
        let many = vec![pair; PAIRS_MAX + 1].join(",");
        let why = parse(format!(r#"{{"format":1,"assignments":[{many}]}}"#).as_bytes());
        assert_eq!(why, Err("4097 assignments, at most 4096 are taken".into()));
        assert!(parse(&vec![b' '; ANSWER_BYTES_MAX]).is_err_and(|why| why.contains("longer")));
    }

    #[test]
    fn what_cannot_be_a_name_spoils_its_own_pair_alone() {
        let long = "x".repeat(65);
        let odd =
            ["a b", "../x", "", " A", "A ", "A\n", "im\u{1b}[0mpl", "A\u{202e}", long.as_str()];
        for name in odd {
            let name = serde_json::to_string(name).expect("a text");
            let pairs = format!(r#"{{"task":"A","agent":{name}}},{{"task":{name},"agent":"b"}}"#);
            let good = r#"{"task":"A","agent":"b"}"#;
            let answer = format!(r#"{{"format":1,"assignments":[{pairs},{good}]}}"#);
            let read = parse(answer.as_bytes()).expect("an answer");
            for (read, other) in [(read[0].agent.as_str(), "A"), (read[1].task.as_str(), "b")] {
                assert!(TaskId::check(read).is_err(), "{name} is read as {read:?}");
                assert!(read.chars().count() <= NAME_COLUMNS_MAX, "{read}");
                assert!(!read.chars().any(|c| c.is_control() || c == '\u{202e}'), "{read:?}");
                assert_ne!(read, other);
            }
            assert_eq!((read[2].task.as_str(), read[2].agent.as_str()), ("A", "b"));
        }
    }
}
