//! `pipeline task show`.

use super::json::{Assessment, AttemptEntry, Extra, SpentEntry, TaskDetail, document, left_behind};
use super::tasks::ink;
use crate::machine::State;
use crate::machine::attempt::Attempt;
use crate::machine::complexity;
use crate::machine::resume;
use crate::machine::schedule::demand::Demand;
use crate::machine::task::{Task, TaskKind, TaskPhase};
use crate::machine::time::Time;
use crate::observe::blocked::blocked;
use crate::observe::document::TaskEntry;
use crate::observe::forecast;
use crate::observe::outside;
use crate::observe::page::{Cell, Ink, Page, clean, clean_lines, filled, first_line, table};
use crate::observe::purse::spent_words;
use crate::observe::waiting::{On, Reason, Waits};
use crate::observe::words::{StatusWords, listed, span, used_briefly};

/// Dependencies and dependents listed; the rest is counted.
const NAMES_MAX: usize = 10;

/// Returns the live attempts of the task, its checks among them.
fn live<'a>(state: &'a State, task: &'a Task) -> impl Iterator<Item = &'a Attempt> {
    state.attempts.values().filter(|attempt| attempt.task.as_ref() == Some(&task.id))
}

/// Returns what the task waits for, and the command to type when it needs a person.
fn outlook<'a>(state: &'a State, task: &'a Task) -> (Option<Reason>, Option<String>) {
    let waiting = Waits::new(state).reason(task);
    let is_asked = waiting.as_ref().is_some_and(|reason| reason.on == On::Approval);
    let approve = is_asked.then(|| format!("pipeline task approve {}", task.id));
    (waiting, blocked(state, task).map(|entry| entry.next).or(approve))
}

/// Returns all that is known of a task as text, at the moment given.
#[must_use]
pub fn render_task(state: &State, task: &Task, at: Time, page: Page) -> String {
    let words = StatusWords::new(&state.settings);
    let entry = TaskEntry::new(state, &words, task);
    let mut out =
        format!("{}\n", page.paint(Ink::Strong, &format!("{}  {}", entry.id, clean(entry.title))));
    out.push_str(&table(page, 0, &facts(state, task, &entry, at)));
    let body = clean_lines(task.spec.body.trim());
    if !body.is_empty() {
        out.push_str(&format!("\n{body}\n"));
    }
    for (stage, text) in &task.notes {
        out.push_str(&heading(page, &format!("notes of {stage}")));
        out.push_str(&format!("{}\n", clean_lines(text.trim())));
    }
    for evidence in &task.evidence {
        let title = format!("evidence from {} ({})", evidence.from, evidence.class.word());
        out.push_str(&heading(page, &title));
        out.push_str(&format!("{}\n", clean_lines(evidence.text.trim())));
    }
    if let Some(hint) = &task.hint {
        out.push_str(&heading(page, "hint"));
        out.push_str(&format!("{}\n", clean_lines(hint.trim())));
    }
    let rows: Vec<Vec<Cell>> =
        task.history.iter().chain(live(state, task)).map(|attempt| row(attempt, at)).collect();
    if !rows.is_empty() {
        out.push_str(&heading(page, "attempts"));
        out.push_str(&table(page, 2, &rows));
    }
    for attempt in task.history.iter().chain(live(state, task)) {
        if !attempt.outside.is_empty() {
            let ran = outside::ran(attempt.id.as_str(), &attempt.outside);
            out.push_str(&heading(page, &format!("changed outside while {ran} ran")));
            for line in outside::lines(&attempt.outside) {
                let line = clean(&line);
                let words: Vec<&str> = line.split(' ').collect();
                for (place, part) in filled(&words, " ", page.columns() - 4).iter().enumerate() {
                    out.push_str(&format!("{}{part}\n", if place == 0 { "  " } else { "    " }));
                }
            }
        }
    }
    out
}

fn heading(page: Page, title: &str) -> String {
    format!("\n{}\n", page.paint(Ink::Strong, title))
}

/// Returns the facts that there are, a name and a value each.
fn facts(state: &State, task: &Task, entry: &TaskEntry<'_>, at: Time) -> Vec<Vec<Cell>> {
    let mut rows = Vec::new();
    let mut fact = |name: &str, value: &str, ink: Ink| {
        if !value.is_empty() {
            rows.push(vec![Cell::new(name).inked(Ink::Faint), Cell::new(value).inked(ink)]);
        }
    };
    let plain = Ink::Plain;
    fact("status", entry.status, ink(entry.status));
    let (waiting, next) = outlook(state, task);
    if let Some(class) = entry.class {
        let reason = first_line(entry.reason.unwrap_or_default());
        fact("why", &format!("{class}: {reason}"), plain);
    }
    if let Some(reason) = waiting {
        let until = reason.until.map(|until| until.0.ms_since(at));
        let until = until.map(|ms| format!(" (in {})", span(ms))).unwrap_or_default();
        fact("waits for", &format!("{}: {}{until}", reason.on.word(), reason.what), plain);
    }
    fact("next", next.as_deref().unwrap_or_default(), Ink::Strong);
    fact("agent", entry.assigned_to.unwrap_or_default(), plain);
    fact("stage", entry.stage.unwrap_or_default(), plain);
    fact("escalated", &escalated(state, task).unwrap_or_default(), plain);
    fact("kind", if task.spec.kind == TaskKind::Epic { "epic" } else { "" }, plain);
    fact("progress", &entry.progress.map(|progress| progress.words()).unwrap_or_default(), plain);
    fact("epic", entry.parent.unwrap_or_default(), plain);
    fact("priority", entry.priority, plain);
    fact("front", if task.is_front { "yes" } else { "" }, plain);
    fact("depends on", &listed(task.spec.depends_on.iter(), NAMES_MAX), plain);
    let links = state.index.links(&task.id);
    let dependents = links.into_iter().flat_map(|links| &links.dependents);
    fact("needed by", &listed(dependents, NAMES_MAX), plain);
    fact("touches", &entry.touches.join(", "), plain);
    fact("labels", &entry.labels.join(", "), plain);
    fact("needs", &entry.needs.join(", "), plain);
    let spec = &task.spec;
    fact("stages", &spec.stages.iter().map(|s| s.as_str()).collect::<Vec<_>>().join(", "), plain);
    fact("complexity", &complexity_of(task), plain);
    fact("estimate", &spec.estimate_ms.map(span).unwrap_or_default(), plain);
    let uses: Vec<String> = spec.resources.iter().map(|(k, v)| format!("{k}={v}")).collect();
    fact("resources", &uses.join(", "), plain);
    fact("exclusive", if spec.is_exclusive { "yes" } else { "" }, plain);
    fact("command", task.spec.command.as_deref().unwrap_or_default(), plain);
    fact("branch", &branch(task).unwrap_or_default(), plain);
    fact("continues", &going_on(task), plain);
    let mut label = "forecast";
    for entry in forecast::of_task(state, task) {
        let words = format!("would conflict with {}", forecast::words(&entry));
        fact(std::mem::take(&mut label), &words, Ink::Plain);
    }
    fact("used", &spent_words(&task.spent).unwrap_or_default(), plain);
    fact("landed as", entry.commit.unwrap_or_default(), Ink::Good);
    fact("created", &entry.created_at.to_string(), plain);
    fact("changed", &entry.updated_at.to_string(), plain);
    rows
}

/// Returns the tier that failures at its stage have led to; `None`: to none.
fn escalated(state: &State, task: &Task) -> Option<String> {
    let tier = Demand::of(&state.settings, task, task.stage()?).tier_min;
    let failures = task.tally.stage_failures;
    (tier > 0).then(|| format!("to tier {tier}, after {failures} failures"))
}

/// Returns how complex the task is and why; nothing for an epic.
fn complexity_of(task: &Task) -> String {
    match task.spec.kind {
        TaskKind::Epic => String::new(),
        TaskKind::Task => {
            let spec = &task.spec;
            format!("{} ({})", complexity::of(spec).word(), complexity::reason(spec))
        }
    }
}

/// Returns the branch with what was done; `None` while there is none and once it has landed.
fn branch(task: &Task) -> Option<String> {
    task.tip.as_ref().filter(|_| !task.is_final()).map(|_| format!("pipeline/task/{}", task.id))
}

/// Returns what the next attempt goes on from; nothing where that is the branch, or it has begun.
fn going_on(task: &Task) -> String {
    let is_begun = matches!(task.phase, TaskPhase::Working { .. });
    let found = task.stage().and_then(|stage| resume::continued(task, stage));
    let Some(found) = found.filter(|_| !is_begun) else { return String::new() };
    let class = found.outcome.as_ref().map_or("", |outcome| outcome.class.word());
    let session = found.exit.as_ref().and_then(|exit| exit.usage.session.as_deref());
    let session = session.map(|session| format!(", session {}", first_line(session)));
    format!("{} ({class}){}", found.id, session.unwrap_or_default())
}

/// Returns an attempt's line: id, agent, how long, how it ended or where it stands.
fn row(attempt: &Attempt, at: Time) -> Vec<Cell> {
    let outcome = attempt.outcome.as_ref();
    let begin = attempt.started_at.unwrap_or(attempt.assigned_at);
    let took = span(outcome.map_or(at, |outcome| outcome.at).ms_since(begin));
    let stand = match outcome {
        None => crate::observe::words::attempt_phase(attempt.phase).to_owned(),
        Some(outcome) if outcome.reason.is_empty() => outcome.class.word().to_owned(),
        Some(outcome) => format!("{}: {}", outcome.class.word(), first_line(&outcome.reason)),
    };
    let used = attempt.exit.as_ref().and_then(|exit| used_briefly(&exit.usage));
    let stand = used.iter().fold(stand, |stand, used| format!("{stand} ({used})"));
    let stand = match &attempt.continues {
        Some(id) => format!("{stand}; continues {id}"),
        None => stand,
    };
    let names = [attempt.id.as_str(), attempt.agent.as_str(), took.as_str(), stand.as_str()];
    names.into_iter().map(Cell::new).collect()
}

/// Returns all that is known of a task as JSON.
#[must_use]
pub fn render_task_json(state: &State, task: &Task) -> String {
    let words = StatusWords::new(&state.settings);
    let (waiting, next) = outlook(state, task);
    let (notes, evidence) = left_behind(task);
    let links = state.index.links(&task.id);
    let dependents = links.into_iter().flat_map(|links| &links.dependents);
    let spec = &task.spec;
    document(&TaskDetail {
        entry: TaskEntry::new(state, &words, task),
        body: &spec.body,
        stages: spec.stages.iter().map(|stage| stage.as_str()).collect(),
        complexity: spec.complexity.as_deref(),
        assessment: Assessment::of(spec),
        estimate_s: spec.estimate_ms.map(|ms| ms as f64 / 1000.0),
        resources: &spec.resources,
        exclusive: spec.is_exclusive,
        command: spec.command.as_deref(),
        front: task.is_front,
        dependents: dependents.map(|id| id.as_str()).collect(),
        branch: branch(task),
        branch_changed: &task.changed,
        forecast: forecast::of_task(state, task),
        waiting,
        next,
        notes,
        evidence,
        hint: task.hint.as_deref(),
        attempts: task.history.iter().chain(live(state, task)).map(AttemptEntry::new).collect(),
        spent: SpentEntry::new(&task.spent),
        extra: Extra(&spec.extra),
    })
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::{render_task, render_task_json};
    use crate::machine::attempt::Marker;
    use crate::machine::id::TaskId;
    use crate::machine::settings::AgentGroup;
    use crate::observe::page::Page;
    use crate::observe::support::{End, Pipeline, settings, task};

    fn pipeline() -> Pipeline {
        let mut new = task("A", &[]);
        new.spec.body = "Do it.\n\x1b]0;evil\x07Well.".into();
        new.spec.extra.insert("points".into(), "[1, 2]".into());
        new.spec.extra.insert("odd".into(), "not json".into());
        new.is_front = true;
        let mut pipeline = Pipeline::started(settings(), vec![new, task("B", &["A"])]);
        pipeline.run("A.arch.1", End::Done);
        pipeline.turn();
        pipeline.run("A.test.1", End::Tail(1, "assertion failed"));
        pipeline
    }

    #[test]
    fn a_task_shows_its_way_so_far() {
        let pipeline = pipeline();
        let state = &pipeline.state;
        let text =
            render_task(state, &state.tasks[&TaskId::new("A")], pipeline.now, Page::plain(80));
        let expected = "\
A  Title of A
status      test_ready
waits for   backoff: after: exited with status 1 (in 5 s)
stage       test
priority    medium
front       yes
needed by   B
complexity  simple (assessed: a body of 21 bytes, 0 paths, 0 dependencies)
branch      pipeline/task/A
created     2026-11-20T23:00:00.000Z
changed     2026-11-20T23:02:00.000Z

Do it.
 ]0;evil Well.

evidence from A.test.1 (failed)
exited with status 1
assertion failed

attempts
  A.arch.1  architect  1 min 0 s  completed
  A.test.1  test       1 min 0 s  failed: exited with status 1
";
        assert_eq!(text, expected);
    }

    #[test]
    fn a_task_that_escalated_says_to_which_tier() {
        let mut tiered = settings();
        let higher = AgentGroup { name: "high".into(), tier: 7, ..tiered.agents[0].clone() };
        tiered.agents.push(higher);
        let mut pipeline = Pipeline::started(tiered, vec![task("A", &[])]);
        for (attempt, shown) in [("A.arch.1", false), ("A.arch.2", true)] {
            pipeline.run(attempt, End::Status(1));
            pipeline.pass(60_000);
            pipeline.turn();
            let state = &pipeline.state;
            let page = Page::plain(80);
            let text = render_task(state, &state.tasks[&TaskId::new("A")], pipeline.now, page);
            let line = "\nescalated   to tier 7, after 2 failures\n";
            assert_eq!(text.contains(line), shown, "{text}");
        }
    }

    #[test]
    fn json_holds_the_list_entry_and_the_rest() {
        let mut pipeline = pipeline();
        pipeline.pass(5_000);
        pipeline.turn();
        let state = &pipeline.state;
        let text = render_task_json(state, &state.tasks[&TaskId::new("A")]);
        let json: Value = serde_json::from_str(&text).expect("a document");
        assert_eq!(json["status"], "test_wip");
        assert_eq!(json["extra"], json!({"points": [1, 2], "odd": "not json"}));
        let attempts = json["attempts"].as_array().expect("an array");
        assert_eq!(attempts.len(), 3);
        assert_eq!(
            (&attempts[1]["class"], &attempts[1]["exit_code"]),
            (&json!("failed"), &json!(1))
        );
        assert_eq!(
            (&attempts[2]["phase"], &attempts[2]["class"]),
            (&json!("preparing"), &json!(null))
        );
        assert_eq!(json["dependents"], json!(["B"]));
        assert_eq!(json["waiting"], Value::Null);
        assert_eq!(json["complexity"], Value::Null);
        assert_eq!(json["assessment"]["complexity"], "simple");
    }

    #[test]
    fn a_blocked_task_comes_with_its_command() {
        let mut pipeline = Pipeline::started(settings(), vec![task("A", &[])]);
        pipeline.run("A.arch.1", End::Says(Marker::Blocked("who?".into())));
        let state = &pipeline.state;
        let text =
            render_task(state, &state.tasks[&TaskId::new("A")], pipeline.now, Page::plain(80));
        assert!(text.contains("\nwhy         blocked: who?\n"), "{text}");
        assert!(text.contains("\nnext        pipeline task retry A --note 'ANSWER'\n"), "{text}");
    }
}
