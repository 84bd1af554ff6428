//! What a program of the user's is told of a run: one JSON document for each event worth waking
//! somebody for.

use serde::Serialize;

use super::blocked::{blocked, needs_approval};
use super::page::first_line;
use super::persons;
use super::purse;
use super::status::{Counts, counts};
use super::words::{Stamp, approval, attempt_words};
use crate::machine::State;
use crate::machine::attempt::{Attempt, Class, Outcome};
use crate::machine::change::{AttemptChange, Change, ProjectChange, TaskChange};
use crate::machine::id::{AttemptId, TaskId};
use crate::machine::task::{Block, Evidence, Task, TaskKind, TaskPhase};
use crate::machine::time::Time;

/// Of the document; greater when a field changes its meaning.
const FORMAT: u32 = 1;

/// What happened.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Event {
    /// A task needs a person.
    Blocked,
    /// An attempt failed; the task is tried again.
    Failed,
    /// A task landed; without git: is completed.
    Landed,
    /// The rollout fell back to the pilot.
    FellBack,
    /// A bound of `[limits]` is near or reached.
    Budget,
    /// Nothing more can be moved without a person; or the monitor ended, and nothing is at work.
    Finished,
}

impl Event {
    /// Returns the word in JSON and in the environment.
    #[must_use]
    pub const fn word(self) -> &'static str {
        match self {
            Self::Blocked => "blocked",
            Self::Failed => "failed",
            Self::Landed => "landed",
            Self::FellBack => "fallen_back",
            Self::Budget => "budget",
            Self::Finished => "finished",
        }
    }
}

/// Where and when it was decided.
#[derive(Debug, Clone, Copy)]
pub struct Moment<'a> {
    pub seq: u64,
    pub at: Time,
    /// The project's root.
    pub project: &'a str,
}

/// One event, ready to be told.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Notice {
    pub event: Event,
    pub task: Option<TaskId>,
    /// The JSON document, a line feed at its end.
    pub text: String,
}

#[derive(Debug, Serialize)]
struct Document<'a> {
    format: u32,
    event: &'static str,
    at: Stamp,
    seq: u64,
    project: &'a str,
    /// One line.
    message: String,
    task: Option<&'a str>,
    title: Option<&'a str>,
    /// Long name.
    stage: Option<&'a str>,
    agent: Option<&'a str>,
    attempt: Option<&'a str>,
    class: Option<&'static str>,
    /// May have several lines.
    reason: Option<&'a str>,
    commit: Option<&'a str>,
    /// The command to type.
    next: Option<String>,
    counts: Counts,
}

impl<'a> Document<'a> {
    fn new(state: &'a State, moment: Moment<'a>, event: Event, message: String) -> Self {
        Self {
            format: FORMAT,
            event: event.word(),
            at: Stamp(moment.at),
            seq: moment.seq,
            project: moment.project,
            message: first_line(&message).into_owned(),
            task: None,
            title: None,
            stage: None,
            agent: None,
            attempt: None,
            class: None,
            reason: None,
            commit: None,
            next: None,
            counts: counts(state),
        }
    }

    fn of(self, task: &'a Task) -> Self {
        Self { task: Some(task.id.as_str()), title: Some(&task.spec.title), ..self }
    }

    fn notice(&self, event: Event) -> Notice {
        let text = serde_json::to_string(self).expect("texts and numbers have a form in JSON");
        Notice { event, task: self.task.map(TaskId::new), text: text + "\n" }
    }
}

/// Returns what is to be told of a transaction, in its order. `state` is the one after it.
#[must_use]
pub fn notices(changes: &[Change], state: &State, moment: Moment<'_>) -> Vec<Notice> {
    let told = changes.iter().filter_map(|change| match change {
        Change::Task(id, TaskChange::Moved { to, .. }) => {
            moved(state, state.tasks.get(id)?, to, moment)
        }
        Change::Attempt(id, AttemptChange::Started { .. }) => given(state, id, moment),
        Change::Task(id, TaskChange::ApprovalAsked { what }) => {
            Some(asked(state, state.tasks.get(id)?, what, moment))
        }
        Change::Task(id, TaskChange::Evidenced { evidence })
            if evidence.class == Class::LandingChecksFailed && !is_blocked(changes, id) =>
        {
            Some(sent_back(state, state.tasks.get(id)?, evidence, moment))
        }
        Change::Attempt(id, AttemptChange::Ended { outcome, .. }) => {
            failed(changes, state, id, outcome, moment)
        }
        Change::Project(ProjectChange::RolloutReasoned { why, is_fallback: true, .. }) => {
            let document = Document::new(state, moment, Event::FellBack, why.clone());
            Some(Document { reason: Some(why), ..document }.notice(Event::FellBack))
        }
        Change::Project(ProjectChange::BudgetTold { bound, level, task, used, limit }) => {
            let message = purse::told(*bound, *level, task.as_ref(), *used, *limit);
            let mut document = Document::new(state, moment, Event::Budget, message);
            if let Some(task) = task.as_ref().and_then(|id| state.tasks.get(id)) {
                document = document.of(task);
            }
            Some(document.notice(Event::Budget))
        }
        Change::Project(_) | Change::Task(..) | Change::Attempt(..) | Change::Lane(_) => None,
    });
    told.collect()
}

/// Returns what is told when nothing more moves by itself; `ended`: why the monitor ended.
#[must_use]
pub fn finished(state: &State, ended: Option<&str>, moment: Moment<'_>) -> Notice {
    let counts = counts(state);
    let left = counts.total - counts.completed - counts.cancelled;
    let message = match (left, ended) {
        (0, _) => format!("all is done: {} completed", counts.completed),
        (left, None) => format!(
            "only a person can go on: {} completed, {left} left, {} of them blocked{}",
            counts.completed,
            counts.blocked,
            awaiting(state)
        ),
        (left, Some(why)) => {
            format!("the monitor ended ({why}): {} completed, {left} left", counts.completed)
        }
    };
    Document::new(state, moment, Event::Finished, message).notice(Event::Finished)
}

/// Says how many landings wait for approval, if any does.
fn awaiting(state: &State) -> String {
    match state.tasks.values().filter(|task| needs_approval(task)).count() {
        0 => String::new(),
        1 => ", 1 waits for approval".to_owned(),
        count => format!(", {count} wait for approval"),
    }
}

fn moved(state: &State, task: &Task, to: &TaskPhase, moment: Moment<'_>) -> Option<Notice> {
    if task.spec.kind == TaskKind::Epic {
        return None;
    }
    match to {
        TaskPhase::Blocked(block) => needs_person(state, task, block, moment),
        TaskPhase::Completed { commit, .. } => {
            let word = if commit.is_some() { "landed" } else { "is completed" };
            let message = format!("{} {word}: {}", task.id, task.spec.title);
            let document = Document::new(state, moment, Event::Landed, message).of(task);
            let commit = commit.as_ref().map(|commit| commit.as_str());
            Some(Document { commit, ..document }.notice(Event::Landed))
        }
        TaskPhase::Waiting
        | TaskPhase::Ready { .. }
        | TaskPhase::Working { .. }
        | TaskPhase::Landing { .. }
        | TaskPhase::Cancelled { .. } => None,
    }
}

/// A task that another blocked one holds up is not told: that one is.
fn needs_person(state: &State, task: &Task, block: &Block, moment: Moment<'_>) -> Option<Notice> {
    let entry = blocked(state, task);
    if entry.as_ref().is_some_and(|entry| !entry.is_root) {
        return None;
    }
    let class = block.class.word();
    let message = format!("{} needs a person ({class}): {}", task.id, first_line(&block.reason));
    let document = Document {
        stage: block.stage.as_ref().map(|stage| stage.as_str()),
        class: Some(class),
        reason: Some(&block.reason),
        next: entry.map(|entry| entry.next),
        ..Document::new(state, moment, Event::Blocked, message).of(task)
    };
    Some(document.notice(Event::Blocked))
}

/// An attempt that a person does in a window waits for them until they say that it is done.
fn given(state: &State, id: &AttemptId, moment: Moment<'_>) -> Option<Notice> {
    let asked = persons::asked(state, state.attempts.get(id)?)?;
    let task = state.tasks.get(&TaskId::new(asked.id))?;
    let (id_of, agent, stage) = (asked.id, asked.agent, asked.stage);
    let message = format!("{id_of} needs a person ({stage}): it is in the window of `{agent}`");
    let document = Document {
        stage: Some(asked.stage),
        agent: Some(asked.agent),
        attempt: Some(id.as_str()),
        next: Some(asked.next),
        ..Document::new(state, moment, Event::Blocked, message).of(task)
    };
    Some(document.notice(Event::Blocked))
}

/// A landing that waits for a person's approval.
fn asked(state: &State, task: &Task, what: &str, moment: Moment<'_>) -> Notice {
    let (id, why) = (&task.id, approval(what));
    let message = format!("{id} needs a person (approval): {why}");
    let document = Document {
        reason: Some(&why),
        next: Some(format!("pipeline task approve {id}")),
        ..Document::new(state, moment, Event::Blocked, message).of(task)
    };
    document.notice(Event::Blocked)
}

/// Work that the landing's checks sent back.
fn sent_back(state: &State, task: &Task, evidence: &Evidence, moment: Moment<'_>) -> Notice {
    let class = evidence.class.word();
    let why = first_line(&evidence.text);
    let message = format!("{} failed at landing ({class}): {why}", task.id);
    let document = Document {
        attempt: Some(evidence.from.as_str()),
        class: Some(class),
        reason: Some(&evidence.text),
        ..Document::new(state, moment, Event::Failed, message).of(task)
    };
    document.notice(Event::Failed)
}

fn is_blocked(changes: &[Change], id: &TaskId) -> bool {
    changes.iter().any(|change| match change {
        Change::Task(of, TaskChange::Moved { to: TaskPhase::Blocked(_), .. }) => of == id,
        Change::Project(_) | Change::Task(..) | Change::Attempt(..) | Change::Lane(_) => false,
    })
}

/// An attempt whose end blocks its task is told as that.
fn failed(
    changes: &[Change],
    state: &State,
    id: &AttemptId,
    outcome: &Outcome,
    moment: Moment<'_>,
) -> Option<Notice> {
    let words = attempt_words(&state.settings, id);
    if words.is_check || !is_failure(outcome.class) {
        return None;
    }
    let task = words.task.and_then(|task| state.tasks.get(&TaskId::new(task)))?;
    if is_blocked(changes, &task.id) {
        return None;
    }
    let class = outcome.class.word();
    let reason = Some(outcome.reason.as_str()).filter(|reason| !reason.is_empty());
    let why = reason.map(|reason| format!(": {}", first_line(reason))).unwrap_or_default();
    let message = format!("{} failed at {} ({class}){why}", task.id, words.what);
    let attempt: Option<&Attempt> = task.history.iter().rev().find(|attempt| attempt.id == *id);
    let document = Document {
        stage: Some(words.what),
        agent: attempt.map(|attempt| attempt.agent.as_str()),
        attempt: Some(id.as_str()),
        class: Some(class),
        reason,
        ..Document::new(state, moment, Event::Failed, message).of(task)
    };
    Some(document.notice(Event::Failed))
}

/// Returns whether something went wrong, rather than was said, refused for now or asked for.
const fn is_failure(class: Class) -> bool {
    match class {
        Class::Empty
        | Class::Incomplete
        | Class::Failed
        | Class::ChecksFailed
        | Class::ConflictLeft
        | Class::Unauthorized
        | Class::ContextExceeded
        | Class::TimedOut
        | Class::Silent
        | Class::Crashed
        | Class::Unstartable
        | Class::Lost
        | Class::Infrastructure => true,
        Class::Completed
        | Class::Blocked
        | Class::ChangesRequested
        | Class::RateLimited
        | Class::Stopped
        | Class::Conflict
        | Class::LandingChecksFailed
        | Class::Dependency
        | Class::Budget => false,
    }
}

#[cfg(test)]
mod tests {
    use serde_json::Value;

    use super::{Event, Moment, finished, notices, persons};
    use crate::machine::State;
    use crate::machine::attempt::Class;
    use crate::machine::change::{Change, ProjectChange, TaskChange};
    use crate::machine::id::{AttemptId, StageName, TaskId};
    use crate::machine::purse::{Bound, Level};
    use crate::machine::settings::{AgentCommand, LauncherKind};
    use crate::machine::task::{Block, Evidence, TaskKind, TaskPhase};
    use crate::machine::time::Time;
    use crate::observe::support::{End, Pipeline, settings, task};
    use crate::store::format::golden::fault;

    const MOMENT: Moment<'_> = Moment { seq: 7, at: Time::from_ms(1_000), project: "/p" };

    /// Tells one change; the document, which is of its schema.
    fn told(state: &State, change: Change) -> Option<Value> {
        let told = notices(&[change], state, MOMENT);
        assert!(told.len() <= 1, "{told:?}");
        let one = told.into_iter().next()?;
        let value: Value = serde_json::from_str(&one.text).expect("JSON");
        let schema = include_str!("../../state/schema/notify.schema.json");
        let schema: Value = serde_json::from_str(schema).expect("JSON");
        assert_eq!(fault(&schema, &schema, &value), None);
        assert_eq!(value["event"], one.event.word());
        Some(value)
    }

    fn state() -> State {
        let mut epic = task("E", &[]);
        epic.spec.kind = TaskKind::Epic;
        Pipeline::started(settings(), vec![task("A", &[]), epic]).state
    }

    #[test]
    fn a_fallback_and_a_bound_are_told_and_what_a_person_set_is_not() {
        let state = state();
        let reasoned = |is_fallback| {
            let why = "fell back from production: 5 of the last 10\nsee the log".to_owned();
            let at = Time::from_ms(1);
            Change::Project(ProjectChange::RolloutReasoned { why, is_fallback, at })
        };
        let value = told(&state, reasoned(true)).expect("it is told");
        assert_eq!(value["message"], "fell back from production: 5 of the last 10");
        assert_eq!(value["reason"], "fell back from production: 5 of the last 10\nsee the log");
        assert_eq!(told(&state, reasoned(false)), None);
        let bound = ProjectChange::BudgetTold {
            bound: Bound::TaskCost,
            level: Level::Reached,
            task: Some(TaskId::new("A")),
            used: 2_000_000,
            limit: 1_000_000,
        };
        let value = told(&state, Change::Project(bound)).expect("it is told");
        assert_eq!((&value["event"], &value["task"]), (&"budget".into(), &"A".into()));
    }

    #[test]
    fn a_landing_that_waits_for_approval_needs_a_person() {
        let mut state = state();
        let id = TaskId::new("A");
        let asked = TaskChange::ApprovalAsked { what: "pipeline.toml".to_owned() };
        let value = told(&state, Change::Task(id.clone(), asked)).expect("it is told");
        assert_eq!((&value["event"], &value["task"]), (&"blocked".into(), &"A".into()));
        assert_eq!(value["message"], "A needs a person (approval): touches pipeline.toml");
        assert_eq!(value["next"], "pipeline task approve A");
        state.tasks.get_mut(&id).expect("it is there").approval = Some("pipeline.toml".into());
        let end = finished(&state, None, MOMENT).text;
        assert!(end.contains("1 left, 0 of them blocked, 1 waits for approval"), "{end}");
    }

    #[test]
    fn what_the_landings_checks_send_back_has_failed() {
        let state = state();
        let (id, from) = (TaskId::new("A"), AttemptId::new("A.land.1"));
        let (stage, class) = (StageName::new("architect"), Class::LandingChecksFailed);
        let text = "`make` exited with status 2\nsee".to_owned();
        let back = TaskChange::Evidenced { evidence: Evidence { from, stage, class, text } };
        let back = Change::Task(id.clone(), back);
        let value = told(&state, back.clone()).expect("it is told");
        assert_eq!((&value["event"], &value["attempt"]), (&"failed".into(), &"A.land.1".into()));
        let message = "A failed at landing (landing_checks_failed): `make` exited with status 2";
        assert_eq!(value["message"], message);
        let block = Block {
            stage: None,
            is_landing: false,
            class,
            reason: "see".into(),
            since: Time::from_ms(1),
        };
        let to = TaskPhase::Blocked(block);
        let moved = Change::Task(id, TaskChange::Moved { to, at: Time::from_ms(1) });
        let events: Vec<Event> =
            notices(&[back, moved], &state, MOMENT).iter().map(|notice| notice.event).collect();
        assert_eq!(events, [Event::Blocked], "told once");
    }

    #[test]
    fn a_task_that_is_completed_is_told_and_an_epic_is_not() {
        let state = state();
        let moved = |id: &str| {
            let at = Time::from_ms(1);
            let to = TaskPhase::Completed { commit: None, at };
            Change::Task(TaskId::new(id), TaskChange::Moved { to, at })
        };
        let value = told(&state, moved("A")).expect("it is told");
        assert_eq!(value["message"], "A is completed: Title of A");
        assert_eq!(told(&state, moved("E")), None);
        assert_eq!(told(&state, moved("GONE")), None);
    }

    #[test]
    fn a_person_who_is_given_a_task_is_told_once_the_window_is_there() {
        let started = |person: bool| {
            let mut settings = settings();
            if person {
                settings.agents[0].command = AgentCommand::Person;
                settings.agents[0].launcher = LauncherKind::Tmux;
            }
            let mut pipeline = Pipeline::started(settings, vec![task("A", &[])]);
            assert!(persons::all(&pipeline.state).is_empty(), "there is no window yet");
            pipeline.start("A.arch.1");
            let change = pipeline.last.first().cloned().expect("it was started");
            (told(&pipeline.state, change), pipeline)
        };
        let (value, mut pipeline) = started(true);
        let value = value.expect("it is told");
        assert_eq!((&value["event"], &value["task"]), (&"blocked".into(), &"A".into()));
        assert_eq!(
            value["message"],
            "A needs a person (architect): it is in the window of `architect`"
        );
        assert_eq!(value["next"], "pipeline agent attach architect");
        assert_eq!(value["attempt"], "A.arch.1");
        pipeline.run("A.arch.1", End::Done);
        assert!(persons::all(&pipeline.state).is_empty(), "it is done");
        assert_eq!(started(false).0, None, "a program needs nobody");
    }

    #[test]
    fn the_end_says_what_is_left() {
        let state = state();
        let end = finished(&state, Some("interrupted"), MOMENT);
        assert_eq!(end.event, Event::Finished);
        assert!(end.text.contains("the monitor ended (interrupted): 0 completed, 1 left"));
    }
}
