//! `state.json`: the state as one document for people and scripts; never read back.

use std::collections::BTreeMap;

use serde::{Serialize, Serializer};

use super::agents::AgentEntry;
use super::epics::{self, ProgressEntry};
use super::figures::{Figures, figures};
use super::status::{Queues, VERSION, agent_entries, queues};
use super::words::{self, Stamp, StatusWords};
use crate::machine::State;
use crate::machine::id::TaskId;
use crate::machine::task::{Task, TaskPhase};
use crate::machine::time::Time;

/// Format of the document; greater when a field changes its meaning.
pub const FORMAT: u32 = 1;
/// Room taken at once for a task, in bytes.
const TASK_BYTES: usize = 512;

#[derive(Debug, Serialize)]
struct Document<'a> {
    version: &'static str,
    format: u32,
    seq: u64,
    updated_at: Stamp,
    orchestration_mode: &'static str,
    mode: &'static str,
    paused: bool,
    current_task: Option<&'a str>,
    tasks: Tasks<'a>,
    agents: BTreeMap<&'a str, AgentEntry<'a>>,
    queues: Queues<'a>,
    metrics: Figures<'a>,
}

/// Every task by id, epics among them.
#[derive(Debug)]
struct Tasks<'a> {
    state: &'a State,
    words: &'a StatusWords,
}

impl Serialize for Tasks<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let tasks = self.state.tasks.values();
        serializer.collect_map(
            tasks.map(|task| (task.id.as_str(), TaskEntry::new(self.state, self.words, task))),
        )
    }
}

/// A task as `state.json` and `task list --json` show it; fields with nothing in them are left
/// out, but for the first eight.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct TaskEntry<'a> {
    pub id: &'a str,
    pub title: &'a str,
    pub status: &'a str,
    /// The agent that works on it.
    pub assigned_to: Option<&'a str>,
    pub priority: &'static str,
    pub depends_on: Ids<'a>,
    pub created_at: Stamp,
    pub updated_at: Stamp,
    pub kind: &'static str,
    /// Of an epic.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub progress: Option<ProgressEntry>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub parent: Option<&'a str>,
    /// Long name of the stage it stands in.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub stage: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub attempt: Option<&'a str>,
    #[serde(skip_serializing_if = "<[String]>::is_empty")]
    pub labels: &'a [String],
    #[serde(skip_serializing_if = "<[String]>::is_empty")]
    pub touches: &'a [String],
    #[serde(skip_serializing_if = "<[String]>::is_empty")]
    pub needs: &'a [String],
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub held: bool,
    /// The worktree of the person who has taken it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub taken: Option<&'a str>,
    /// A person said that it is done.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub by_hand: bool,
    /// Not before this moment, after a failure.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub backoff_until: Option<Stamp>,
    /// Why it is blocked.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub class: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reason: Option<&'a str>,
    /// The landing waits for a person's approval of these paths.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub approval: Option<&'a str>,
    /// Tip of its branch, before it has landed.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tip: Option<&'a str>,
    /// The commit it landed as.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub commit: Option<&'a str>,
    /// When it was completed or cancelled.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub finished_at: Option<Stamp>,
}

/// Task ids in the order of their task's own list.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Ids<'a>(pub &'a [TaskId]);

impl Serialize for Ids<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_seq(self.0.iter().map(|id| id.as_str()))
    }
}

impl<'a> TaskEntry<'a> {
    /// Makes the entry of a task.
    #[must_use]
    pub fn new(state: &'a State, words: &'a StatusWords, task: &'a Task) -> Self {
        let (mut attempt, mut block, mut commit, mut finished_at) = (None, None, None, None);
        match &task.phase {
            TaskPhase::Working { attempt: id, .. } => attempt = state.attempts.get(id),
            TaskPhase::Blocked(found) => block = Some(found),
            TaskPhase::Completed { commit: landed, at } => {
                commit = landed.as_ref();
                finished_at = Some(Stamp(*at));
            }
            TaskPhase::Cancelled { at } => finished_at = Some(Stamp(*at)),
            TaskPhase::Waiting | TaskPhase::Ready { .. } | TaskPhase::Landing { .. } => {}
        }
        Self {
            id: task.id.as_str(),
            title: &task.spec.title,
            status: words.of(state, task),
            assigned_to: attempt.map(|attempt| attempt.agent.as_str()),
            priority: words::priority(task.spec.priority),
            depends_on: Ids(&task.spec.depends_on),
            created_at: Stamp(task.created_at),
            updated_at: Stamp(task.updated_at),
            kind: words::kind(task.spec.kind),
            progress: epics::progress(state, task).map(ProgressEntry::of),
            parent: task.spec.parent.as_ref().map(|id| id.as_str()),
            stage: task.stage().map(|stage| stage.as_str()),
            attempt: attempt.map(|attempt| attempt.id.as_str()),
            labels: &task.spec.labels,
            touches: &task.spec.touches,
            needs: &task.spec.needs,
            held: task.is_held,
            taken: task.taken.as_ref().map(|taken| taken.dir.as_str()),
            by_hand: task.is_by_hand,
            backoff_until: task.backoff_until.map(Stamp),
            class: block.map(|block| block.class.word()),
            reason: block.map(|block| block.reason.as_str()),
            approval: task.approval.as_deref(),
            tip: task.tip.as_ref().filter(|_| finished_at.is_none()).map(|tip| tip.as_str()),
            commit: commit.map(|commit| commit.as_str()),
            finished_at,
        }
    }
}

/// Returns `state.json`: one JSON object that ends in `}`, without a line feed.
///
/// Cost: linear in tasks.
#[must_use]
pub fn state_document(state: &State, seq: u64, at: Time) -> Vec<u8> {
    let words = StatusWords::new(&state.settings);
    let document = Document {
        version: VERSION,
        format: FORMAT,
        seq,
        updated_at: Stamp(at),
        orchestration_mode: words::orchestration(state.orchestration),
        mode: words::rollout(state.rollout),
        paused: state.is_paused,
        current_task: state.current.as_ref().map(|id| id.as_str()),
        tasks: Tasks { state, words: &words },
        agents: agent_entries(state, at),
        queues: queues(state),
        metrics: figures(state, at),
    };
    let mut out = Vec::with_capacity((state.tasks.len() + 8) * TASK_BYTES);
    serde_json::to_writer(&mut out, &document)
        .expect("memory takes every byte and every key is a string");
    out
}

#[cfg(test)]
mod tests {
    use serde_json::Value;

    use super::state_document;
    use crate::machine::Command;
    use crate::machine::attempt::Marker;
    use crate::machine::event::Dependents;
    use crate::machine::id::TaskId;
    use crate::machine::task::TaskKind;
    use crate::observe::support::{End, Pipeline, settings, task};

    fn of(pipeline: &Pipeline) -> Value {
        let bytes = state_document(&pipeline.state, pipeline.seq, pipeline.now);
        assert_eq!((bytes.first(), bytes.last()), (Some(&b'{'), Some(&b'}')));
        serde_json::from_slice(&bytes).expect("a whole document")
    }

    #[test]
    fn statuses_are_the_seeds_words_at_every_step() {
        let mut pipeline = Pipeline::started(settings(), vec![task("A", &[]), task("B", &["A"])]);
        let status = |pipeline: &Pipeline, id: &str| of(pipeline)["tasks"][id]["status"].clone();
        assert_eq!(status(&pipeline, "B"), "unassigned");
        let mut seen = Vec::new();
        for short in ["arch", "test", "impl", "super"] {
            seen.push(status(&pipeline, "A"));
            pipeline.run(&format!("A.{short}.1"), End::Done);
            seen.push(status(&pipeline, "A"));
            pipeline.turn();
        }
        pipeline.land("A");
        seen.push(status(&pipeline, "A"));
        let words = "arch_wip test_ready test_wip impl_ready impl_wip super_ready super_wip \
                     landing completed";
        assert_eq!(seen, words.split_whitespace().collect::<Vec<_>>());
        pipeline.turn();
        pipeline.run("B.arch.1", End::Says(Marker::Blocked("?".into())));
        assert_eq!(status(&pipeline, "B"), "blocked");
        let ids = vec![TaskId::new("B")];
        pipeline.send(Command::CancelTasks { ids, dependents: Dependents::Refuse });
        assert_eq!(status(&pipeline, "B"), "cancelled");
    }

    #[test]
    fn fields_are_those_of_the_interface() {
        let pipeline = Pipeline::started(settings(), vec![task("A", &[]), task("B", &["A"])]);
        let json = of(&pipeline);
        for key in "version format seq updated_at orchestration_mode mode tasks agents queues \
                    metrics"
            .split_whitespace()
        {
            assert!(!json[key].is_null(), "{key}");
        }
        let expected = serde_json::json!({"id": "A", "title": "Title of A", "status": "arch_wip",
            "assigned_to": "architect", "priority": "medium", "depends_on": [],
            "created_at": "2026-11-20T23:00:00.000Z", "updated_at": "2026-11-20T23:00:00.000Z",
            "kind": "task", "stage": "architect", "attempt": "A.arch.1"});
        assert_eq!(json["tasks"]["A"], expected);
        assert_eq!(json["tasks"]["B"]["depends_on"][0], "A");
        assert_eq!(json["tasks"]["B"]["assigned_to"], Value::Null);
        assert_eq!(json["agents"]["architect"]["current_task"], "A");
    }

    #[test]
    fn an_epic_is_completed_when_its_last_child_is() {
        let mut epic = task("E", &[]);
        epic.spec.kind = TaskKind::Epic;
        let mut child = task("A", &[]);
        child.spec.parent = Some(TaskId::new("E"));
        let mut pipeline = Pipeline::started(settings(), vec![epic, child]);
        assert_eq!(of(&pipeline)["tasks"]["E"]["status"], "unassigned");
        pipeline.run_stages("A");
        pipeline.land("A");
        assert_eq!(of(&pipeline)["tasks"]["E"]["status"], "completed");
    }
}
