//! A backlog as JSON: a list of tasks, or an object of `tasks` and `epics`.

use std::collections::BTreeSet;

use serde_json::Value;

use crate::cli::error::Error;
use crate::cli::{value, when};
use crate::machine::event::NewTask;
use crate::machine::id::{StageName, TaskId};
use crate::machine::task::{Priority, Spec, TaskKind};

use super::epics::{Epics, slug};
use super::field::{Fields, kind};
use super::{Finished, Parsed};

/// Problems named in one error; the rest is counted.
const PROBLEMS_MAX: usize = 20;

/// Statuses of what is over.
const FINISHED: [&str; 6] = ["done", "completed", "closed", "resolved", "cancelled", "canceled"];
/// Statuses of what is not, in this program's words and other trackers'.
const OPEN: [&str; 32] = [
    "",
    "active",
    "assigned",
    "backlog",
    "blocked",
    "deferred",
    "doing",
    "draft",
    "failed",
    "in_progress",
    "in_review",
    "inprogress",
    "landing",
    "new",
    "not_started",
    "on_hold",
    "open",
    "paused",
    "pending",
    "planned",
    "queued",
    "ready",
    "reopened",
    "review",
    "scheduled",
    "started",
    "to_do",
    "todo",
    "triage",
    "unassigned",
    "waiting",
    "wip",
];

/// Reads a backlog.
///
/// # Errors
/// Where it is no JSON; and all that is wrong with its entries, each by index (from 0), id and
/// field.
pub fn parse(bytes: &[u8], finished: Finished) -> Result<Parsed, Error> {
    let bytes = bytes.strip_prefix(b"\xef\xbb\xbf").unwrap_or(bytes);
    let document: Value = serde_json::from_slice(bytes)
        .map_err(|error| Error::invalid("it is no JSON").because(&error))?;
    let (tasks, epics) = lists(document)?;
    let mut reader = Reader::default();
    for (index, value) in epics.into_iter().enumerate() {
        reader.epic(index, value);
    }
    for (index, value) in tasks.into_iter().enumerate() {
        reader.task(index, value, finished);
    }
    reader.finish()
}

fn lists(document: Value) -> Result<(Vec<Value>, Vec<Value>), Error> {
    let expected = "expected a list of tasks, or an object with `tasks`";
    match document {
        Value::Array(tasks) => Ok((tasks, Vec::new())),
        Value::Object(mut object) => {
            let mut list = |name: &str| match object.remove(name) {
                None => Ok(None),
                Some(Value::Array(list)) => Ok(Some(list)),
                Some(other) => {
                    let found = kind(&other);
                    Err(Error::invalid(format!("field `{name}`: expected a list, found {found}")))
                }
            };
            let epics = list("epics")?.unwrap_or_default();
            list("tasks")?.map(|tasks| (tasks, epics)).ok_or_else(|| Error::invalid(expected))
        }
        other => Err(Error::invalid(format!("{expected}, found {}", kind(&other)))),
    }
}

/// An entry as it stands in the file.
struct Entry {
    task: NewTask,
    /// Id or name of its epic.
    above: Option<String>,
    is_finished: bool,
}

#[derive(Default)]
struct Reader {
    tasks: Vec<(NewTask, Option<String>)>,
    epics: Epics,
    /// Ids of tasks, finished ones among them, in lower case.
    seen: BTreeSet<String>,
    /// Finished tasks that were left out.
    met: BTreeSet<TaskId>,
    skipped: usize,
    warnings: Vec<String>,
    problems: Vec<String>,
}

impl Reader {
    fn epic(&mut self, index: usize, value: Value) {
        let name = format!("epic {index}");
        let value = match value {
            Value::String(title) => serde_json::json!({ "title": title }),
            other => other,
        };
        let Some(mut entry) = self.entry(&name, value, TaskKind::Epic) else { return };
        if entry.task.id.is_none() {
            match slug(&entry.task.spec.title) {
                Ok(id) => entry.task.id = Some(id),
                Err(why) => return self.problems.push(format!("{name}: field `title`: {why}")),
            }
        }
        if !self.epics.list(entry.task, entry.above, false) {
            self.problems.push(format!("{name}: its id stands twice"));
        }
    }

    fn task(&mut self, index: usize, value: Value, finished: Finished) {
        let name = format!("task {index}");
        let Some(entry) = self.entry(&name, value, TaskKind::Task) else { return };
        let is_skipped = entry.is_finished && finished == Finished::Skip;
        if let Some(id) = &entry.task.id
            && !self.seen.insert(id.as_str().to_ascii_lowercase())
        {
            self.problems.push(format!("{name} (`{id}`): field `id`: stands twice"));
            return;
        }
        match entry.task.spec.kind {
            TaskKind::Epic if entry.task.id.is_some() => {
                self.epics.list(entry.task, entry.above, !is_skipped);
            }
            TaskKind::Epic | TaskKind::Task if is_skipped => {
                self.skipped += 1;
                self.met.extend(entry.task.id);
            }
            TaskKind::Epic | TaskKind::Task => self.tasks.push((entry.task, entry.above)),
        }
    }

    /// Reads what tasks and epics share; `None` when it is no object.
    fn entry(&mut self, name: &str, value: Value, kind_here: TaskKind) -> Option<Entry> {
        let Value::Object(object) = value else {
            self.problems.push(format!("{name}: expected an object, found {}", kind(&value)));
            return None;
        };
        let mut fields = Fields::new(object);
        let id = take_id(&mut fields, kind_here);
        let name = id.as_ref().map_or_else(|| name.to_owned(), |id| format!("{name} (`{id}`)"));
        let status = fields.word(&["status"]).map(|(_, word)| word).unwrap_or_default();
        let is_finished = is_listed(&FINISHED, &status);
        if !is_finished && !is_listed(&OPEN, &status) {
            let word = status.escape_debug();
            self.warnings.push(format!("{name}: `status` is `{word}`, which is taken as open"));
        }
        let above = fields.word(&["epic", "parent"]).map(|(_, word)| word);
        let above = above.filter(|word| !word.is_empty());
        let (spec, warnings) = spec(&mut fields, kind_here);
        if spec.title.trim().is_empty() && fields.problems.is_empty() {
            fields.problem("title", "is missing");
        }
        self.problems.extend(fields.problems.drain(..).map(|why| format!("{name}: {why}")));
        self.warnings.extend(warnings.into_iter().map(|text| format!("{name}: {text}")));
        let spec = Spec { extra: fields.rest(), ..spec };
        let task =
            NewTask { id, spec, is_front: false, is_held: false, may_lack_dependencies: false };
        Some(Entry { task, above, is_finished })
    }

    fn finish(mut self) -> Result<Parsed, Error> {
        for (index, (task, above)) in self.tasks.iter_mut().enumerate() {
            let own = task.id.clone();
            match above.as_deref().map(|name| self.epics.named(name)).transpose() {
                Ok(parent) => task.spec.parent = parent,
                Err(why) => {
                    let name = own.map_or_else(|| format!("task {index}"), |id| format!("`{id}`"));
                    self.problems.push(format!("{name}: field `epic`: {why}"));
                }
            }
            task.spec.depends_on.retain(|dep| !self.met.contains(dep));
            for dep in &mut task.spec.depends_on {
                if !self.seen.contains(&dep.as_str().to_ascii_lowercase())
                    && let Some(epic) = self.epics.depended(dep)
                {
                    *dep = epic;
                }
            }
        }
        let epics = self.epics.wanted().unwrap_or_else(|why| {
            self.problems.push(why);
            Vec::new()
        });
        if self.problems.is_empty() {
            let tasks = self.tasks.into_iter().map(|(task, _)| task).collect();
            return Ok(Parsed { tasks, epics, skipped: self.skipped, warnings: self.warnings });
        }
        Err(Error::invalid(listed(self.problems)))
    }
}

/// Returns whether a status is one of the words, however it is written.
fn is_listed(words: &[&str], status: &str) -> bool {
    let status = status.trim().to_lowercase().replace([' ', '-'], "_");
    words.contains(&status.as_str())
}

/// Returns the first problems as one sentence; the rest is counted.
pub(super) fn listed(mut problems: Vec<String>) -> String {
    let more = problems.len().saturating_sub(PROBLEMS_MAX);
    problems.truncate(PROBLEMS_MAX);
    if more > 0 {
        problems.push(format!("and {more} more"));
    }
    problems.join("; ")
}

/// Takes the id; for an epic one is made of any name.
fn take_id(fields: &mut Fields, kind: TaskKind) -> Option<TaskId> {
    let (name, text) = fields.word(&["id"])?;
    let id = value::id(&text);
    let id = if kind == TaskKind::Epic { id.or_else(|_| slug(&text)) } else { id };
    id.map_err(|why| fields.problem(name, &why)).ok()
}

/// Takes what is said of a task; also what means nothing here and is kept in `extra`.
fn spec(fields: &mut Fields, kind: TaskKind) -> (Spec, Vec<String>) {
    let mut warnings = Vec::new();
    let text = |text: &str| Ok(text.to_owned());
    let mut depends_on = fields.list("dependencies", value::id);
    depends_on.extend(fields.list("depends_on", value::id));
    depends_on.sort();
    depends_on.dedup();
    let mut needs = fields.list("needs", text);
    needs.extend(fields.list("agent", text));
    needs.retain(|need| !need.is_empty());
    let complexity = fields.word(&["complexity"]).and_then(|(name, word)| {
        let found = value::complexity(&word.to_ascii_lowercase());
        found.map_err(|_| keep(fields, &mut warnings, name, word)).ok()
    });
    let estimate_ms = fields.word(&["estimate"]).and_then(|(name, word)| {
        let found = when::duration(&word);
        let found = found.map_err(|_| keep(fields, &mut warnings, name, word)).ok();
        found.and_then(|span| u64::try_from(span.as_millis()).ok())
    });
    let spec = Spec {
        title: fields.text(&["title"]).map(|title| title.trim().to_owned()).unwrap_or_default(),
        body: fields.text(&["body", "description"]).unwrap_or_default(),
        priority: take_priority(fields),
        kind: take_kind(fields, kind),
        parent: None,
        depends_on,
        touches: fields.list("touches", value::glob),
        stages: fields.list("stages", |name| Ok(StageName::new(name))),
        labels: fields.list("labels", text),
        needs,
        complexity,
        estimate_ms,
        resources: fields.amounts("resources"),
        is_exclusive: fields.flag("exclusive"),
        command: fields.text(&["command"]).filter(|command| !command.is_empty()),
        extra: std::collections::BTreeMap::new(),
    };
    (spec, warnings)
}

/// Keeps a value that means nothing here, and says so.
fn keep(fields: &mut Fields, warnings: &mut Vec<String>, name: &str, word: String) {
    warnings.push(format!("`{name}` is `{}`, which means nothing here", word.escape_debug()));
    fields.keep(name, Value::String(word));
}

fn take_priority(fields: &mut Fields) -> Priority {
    let Some((name, word)) = fields.word(&["priority"]) else { return Priority::default() };
    match value::foreign_priority(&word) {
        Ok(priority) => priority,
        Err(why) => {
            fields.problem(name, &format!("`{}`: {why}", word.escape_debug()));
            Priority::default()
        }
    }
}

/// Takes the kind; other trackers' kinds (`bug`, `feature`) are kept and are tasks.
fn take_kind(fields: &mut Fields, default: TaskKind) -> TaskKind {
    let Some((name, word)) = fields.word(&["kind"]) else { return default };
    match word.as_str() {
        "epic" => TaskKind::Epic,
        "task" => default,
        _ => {
            fields.keep(name, Value::String(word));
            default
        }
    }
}

#[cfg(test)]
mod tests {
    use crate::cli::import::{Finished, Parsed};
    use crate::machine::id::TaskId;
    use crate::machine::task::{Priority, TaskKind};

    fn good(text: &str) -> Parsed {
        super::parse(text.as_bytes(), Finished::Skip).expect(text)
    }

    fn bad(text: &str) -> String {
        let error = super::parse(text.as_bytes(), Finished::Skip).expect_err(text);
        assert_eq!(error.kind.exit().number(), 2);
        format!("{}; {}", error.message, error.causes.join("; "))
    }

    #[test]
    fn every_field_finds_its_place() {
        let parsed = good(
            r#"[{"id": 7, "title": " T ", "description": "B", "dependencies": ["a", 3],
                 "depends_on": "b", "priority": "P1", "status": "doing", "parent": "Wave 1",
                 "labels": ["x"], "touches": "src/**", "stages": ["impl"], "command": "make",
                 "agent": "coder", "needs": ["gpu"], "kind": "bug", "complexity": "Simple",
                 "estimate": "5m", "resources": {"cpu": 2, "memory": "4GiB"}, "exclusive": true,
                 "metadata": {"k": [1, null]}, "sprint": 4, "gone": null}]"#,
        );
        let task = &parsed.tasks[0];
        assert_eq!(task.id, Some(TaskId::new("7")));
        let spec = &task.spec;
        assert_eq!((spec.title.as_str(), spec.body.as_str()), ("T", "B"));
        assert_eq!(spec.depends_on, ["3", "a", "b"].map(TaskId::new));
        assert_eq!(spec.priority, Priority::High);
        assert_eq!(spec.parent, Some(TaskId::new("Wave-1")));
        assert_eq!(spec.needs, ["gpu", "coder"]);
        assert_eq!(spec.touches, ["src/**"]);
        assert_eq!(spec.labels, ["x"]);
        assert_eq!((spec.complexity.as_deref(), spec.estimate_ms), (Some("simple"), Some(300_000)));
        assert_eq!(spec.resources["cpu"], "2");
        assert_eq!((spec.is_exclusive, spec.command.as_deref()), (true, Some("make")));
        let extra: Vec<(&str, &str)> =
            spec.extra.iter().map(|(name, text)| (name.as_str(), text.as_str())).collect();
        let kept = [("kind", "\"bug\""), ("metadata", "{\"k\":[1,null]}"), ("sprint", "4")];
        assert_eq!(extra, kept);
        assert_eq!(parsed.epics[0].spec.title, "Wave 1");
    }

    #[test]
    fn problems_name_entry_and_field() {
        for (text, why) in [
            ("", "it is no JSON; EOF while parsing a value at line 1 column 0"),
            ("[{]", "line 1 column 3"),
            ("[{}]\u{0}", "line 1 column 5"),
            ("7", "expected a list of tasks, or an object with `tasks`, found a number"),
            ("{}", "expected a list of tasks, or an object with `tasks`"),
            (r#"{"tasks": {}}"#, "field `tasks`: expected a list, found an object"),
            ("[3]", "task 0: expected an object, found a number"),
            (r#"[{"id":"a"}]"#, "task 0 (`a`): field `title`: is missing"),
            (r#"[{"id":"../a","title":"T"}]"#, "task 0: field `id`: task id `../a` must begin"),
            (r#"[{"id":{},"title":"T"}]"#, "task 0: field `id`: expected a text, found an object"),
            (r#"[{"id":"a","title":7}]"#, "field `title`: expected a text, found a number"),
            (r#"[{"id":"a","title":"T","priority":"soon"}]"#, "field `priority`: `soon`: expected"),
            (
                r#"[{"id":"a","title":"T","depends_on":[{}]}]"#,
                "field `depends_on`: expected a list",
            ),
            (r#"[{"id":"a","title":"T","depends_on":["x y"]}]"#, "task id `x y` may hold only"),
            (r#"[{"id":"a","title":"T","touches":["/etc"]}]"#, "glob `/etc` leaves the project"),
            (r#"[{"id":"a","title":"T","exclusive":"yes"}]"#, "expected true or false"),
            (r#"[{"id":"a","title":"T","resources":{"cpu":[]}}]"#, "expected an amount of `cpu`"),
            (r#"[{"id":"a","title":"T"},{"id":"A","title":"T"}]"#, "task 1 (`A`): field `id`"),
            (r#"[{"id":"a","title":"T","epic":"…"}]"#, "field `epic`: no id can be made of"),
        ] {
            let found = bad(text);
            assert!(found.contains(why), "{text}: {found}");
        }
    }

    #[test]
    fn deep_nesting_is_refused() {
        assert!(bad(&"[".repeat(100_000)).contains("recursion limit"));
    }

    #[test]
    fn many_problems_are_counted() {
        let tasks = vec!["{}"; 30].join(",");
        assert!(bad(&format!("[{tasks}]")).contains("; and 10 more"));
    }

    #[test]
    fn finished_words_are_known_and_an_unknown_word_is_told() {
        for (status, skipped, warnings) in [
            (r#""done""#, 1, 0),
            (r#""Completed""#, 1, 0),
            (r#""cancelled""#, 1, 0),
            (r#""closed""#, 1, 0),
            (r#""Resolved""#, 1, 0),
            (r#""pending""#, 0, 0),
            (r#""in_progress""#, 0, 0),
            (r#""In Progress""#, 0, 0),
            (r#""blocked""#, 0, 0),
            ("null", 0, 0),
            (r#""wibble""#, 0, 1),
            ("5", 0, 1),
        ] {
            let parsed = good(&format!(r#"[{{"id":"a","title":"T","status":{status}}}]"#));
            assert_eq!((parsed.skipped, parsed.warnings.len()), (skipped, warnings), "{status}");
        }
        let told = good(r#"[{"id":"a","title":"T","status":"wibble"}]"#).warnings;
        assert_eq!(told, ["task 0 (`a`): `status` is `wibble`, which is taken as open"]);
    }

    #[test]
    fn values_that_mean_nothing_are_kept_with_a_warning() {
        let parsed = good(r#"[{"id":"a","title":"T","estimate":3,"complexity":"XL"}]"#);
        assert_eq!(parsed.warnings.len(), 2);
        assert_eq!(parsed.tasks[0].spec.extra["complexity"], "\"XL\"");
        assert_eq!(parsed.tasks[0].spec.estimate_ms, None);
    }

    #[test]
    fn epics_are_found_by_id_and_title_and_bring_theirs() {
        let parsed = good(
            r#"{"epics": [{"id": "E 1", "title": "Top"}, {"id": "E2", "title": "Sub", "epic": "Top"},
                          {"id": "E3", "title": "Unused"}, "By name"],
                "tasks": [{"id": "a", "title": "A", "epic": "e2"},
                          {"id": "b", "title": "B", "epic": "By name", "depends_on": ["a"]},
                          {"id": "x", "title": "X", "kind": "epic"}]}"#,
        );
        let ids: Vec<&str> =
            parsed.epics.iter().filter_map(|epic| epic.id.as_ref()).map(TaskId::as_str).collect();
        assert_eq!(ids, ["By-name", "E-1", "E2", "x"]);
        assert_eq!(parsed.epics[2].spec.parent, Some(TaskId::new("E-1")));
        assert!(parsed.epics.iter().all(|epic| epic.spec.kind == TaskKind::Epic));
        assert_eq!(parsed.tasks[0].spec.parent, Some(TaskId::new("E2")));
    }

    #[test]
    fn byte_order_mark_is_no_part_of_the_text() {
        assert_eq!(good("\u{feff}[]").tasks.len(), 0);
    }
}
