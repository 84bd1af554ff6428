//! What `pipeline graph FILE` wants of a backlog: ids and dependencies, for files of any size.
//!
//! The file is read once, front to back, and names are borrowed from it. What an entry says
//! otherwise must be JSON, but is not looked at; `task import --dry-run` judges all of it.

use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use serde::de::{DeserializeSeed, Deserializer, IgnoredAny, MapAccess, SeqAccess, Visitor};

use crate::cli::error::Error;
use crate::machine::graph::{Graph, Sketch};
use crate::machine::id::TaskId;

use super::epics::slug;
use super::json::listed;

/// Fields of one text.
const WORDS: [&str; 5] = ["id", "title", "kind", "epic", "parent"];
const ID: usize = 0;
const TITLE: usize = 1;
const KIND: usize = 2;
const EPIC: usize = 3;
const PARENT: usize = 4;

const EXPECTED: &str = "expected a list of tasks, or an object with `tasks`";

/// An epic: listed, or named by a task as its own.
#[derive(Debug, Default)]
struct Epic<'a> {
    id: String,
    depends_on: Vec<Cow<'a, str>>,
}

/// Reads the tasks of a backlog, and the epics that something depends on.
///
/// # Errors
/// Where it is no JSON; and what is wrong with its ids and dependencies, each by index (from 0), id
/// and field.
pub fn read(bytes: &[u8]) -> Result<Graph<'_>, Error> {
    let bytes = bytes.strip_prefix(b"\xef\xbb\xbf").unwrap_or(bytes);
    let text = std::str::from_utf8(bytes)
        .map_err(|error| Error::invalid("it is no JSON").because(&error))?;
    let mut reader = Reader::default();
    let mut json = serde_json::Deserializer::from_str(text);
    let done = Loose(Document(&mut reader)).deserialize(&mut json).and_then(|()| json.end());
    done.map_err(|error| Error::invalid("it is no JSON").because(&error))?;
    if let Some(why) = reader.refusal {
        return Err(Error::invalid(why));
    }
    let mut graph = reader.sketch.graph();
    let mut problems = reader.problems;
    let twice = graph.twice().iter().map(|task| (task, graph.name(*task)));
    problems.extend(twice.map(|(n, id)| format!("task {n} (`{id}`): field `id`: stands twice")));
    while problems.is_empty() {
        let key = |(_, name): (u32, &str)| name.to_ascii_lowercase();
        let mut wanted: BTreeSet<String> = graph.unknown().map(key).collect();
        wanted.retain(|key| reader.epics.contains_key(key));
        if !wanted.is_empty() {
            // A task of that name comes first.
            for task in graph.tasks() {
                wanted.remove(&graph.name(task).to_ascii_lowercase());
            }
        }
        if wanted.is_empty() {
            break;
        }
        let wanted = wanted.into_iter().filter_map(|key| reader.epics.remove_entry(&key));
        graph = with_epics(graph, wanted.collect());
    }
    for (task, name) in graph.unknown() {
        if let Err(why) = TaskId::check(name) {
            let id = graph.name(task);
            problems.push(format!("task {task} (`{id}`): field `depends_on`: {why}"));
        }
    }
    if problems.is_empty() { Ok(graph) } else { Err(Error::invalid(listed(problems))) }
}

/// Adds epics, by id in lower case: who depends on one may write it in any case.
fn with_epics<'a>(graph: Graph<'a>, epics: BTreeMap<String, Epic<'a>>) -> Graph<'a> {
    let mut sketch = graph.into_sketch();
    let id = |name: &str| epics.get(&name.to_ascii_lowercase()).map(|epic| epic.id.clone());
    sketch.rename(id);
    for epic in epics.into_values() {
        epic.depends_on.into_iter().for_each(|name| sketch.dependency(name));
        sketch.task(Cow::Owned(epic.id));
    }
    sketch.graph()
}

#[derive(Debug, Default)]
struct Reader<'a> {
    sketch: Sketch<'a>,
    /// By id in lower case.
    epics: BTreeMap<String, Epic<'a>>,
    /// The epic that was named last; mostly the next task names it too.
    last_epic: Option<Cow<'a, str>>,
    /// The entry that is read: list, and index in it.
    entry: (&'static str, usize),
    /// Its fields of one text, as in [`WORDS`].
    words: [Option<Cow<'a, str>>; WORDS.len()],
    depends_on: Vec<Cow<'a, str>>,
    problems: Vec<String>,
    /// Why the document as a whole is none.
    refusal: Option<String>,
}

impl<'a> Reader<'a> {
    fn problem(&mut self, why: &str) {
        let (list, index) = self.entry;
        let id = self.words[ID].as_ref().map_or_else(String::new, |id| format!(" (`{id}`)"));
        self.problems.push(format!("{list} {index}{id}: {why}"));
    }

    /// Makes a place for the epic of that name.
    fn epic(&mut self, name: &str) -> Result<&mut Epic<'a>, String> {
        let id =
            if TaskId::check(name).is_ok() { name.to_owned() } else { slug(name)?.to_string() };
        let epic = self.epics.entry(id.to_ascii_lowercase()).or_default();
        if epic.id.is_empty() {
            epic.id = id;
        }
        Ok(epic)
    }

    /// Takes what was read of a task.
    fn end_task(&mut self) {
        let (_, index) = self.entry;
        let is_epic = self.words[KIND].as_deref() == Some("epic");
        let id = match self.words[ID].take() {
            None => Cow::Owned(format!("task {index}")),
            Some(id) => match TaskId::check(&id) {
                Ok(()) => id,
                Err(why) => match slug(&id).ok().filter(|_| is_epic) {
                    Some(id) => Cow::Owned(id.to_string()),
                    None => return self.problem(&format!("field `id`: {why}")),
                },
            },
        };
        for name in self.depends_on.drain(..) {
            self.sketch.dependency(name);
        }
        self.sketch.task(id);
    }

    /// Takes what was read of an epic.
    fn end_epic(&mut self) {
        let depends_on = std::mem::take(&mut self.depends_on);
        let name = self.words[ID].take().or_else(|| self.words[TITLE].take()).unwrap_or_default();
        match self.epic(&name) {
            Ok(epic) => epic.depends_on = depends_on,
            Err(why) => self.problem(&format!("field `id`: {why}")),
        }
    }

    /// Takes the epic that was named.
    fn above(&mut self) {
        let name = self.words[EPIC].take().or_else(|| self.words[PARENT].take());
        let Some(name) = name else { return };
        if self.last_epic.as_ref() == Some(&name) || name.is_empty() {
            return;
        }
        if let Err(why) = self.epic(&name).map(|_| ()) {
            self.problem(&format!("field `epic`: {why}"));
        }
        self.last_epic = Some(name);
    }
}

/// What to do with a value of any kind; what is not said is of the wrong kind.
trait Take<'de>: Sized {
    /// A value of a kind that is not expected, with an article.
    fn other(self, found: &'static str);

    /// A text, trimmed, or a whole number.
    fn word(self, word: Cow<'de, str>, found: &'static str) {
        drop(word);
        self.other(found);
    }

    /// A list, all of which is to be read.
    fn list<A: SeqAccess<'de>>(self, mut list: A) -> Result<(), A::Error> {
        while list.next_element::<IgnoredAny>()?.is_some() {}
        self.other("a list");
        Ok(())
    }

    /// An object, all of which is to be read.
    fn object<A: MapAccess<'de>>(self, mut object: A) -> Result<(), A::Error> {
        while object.next_entry::<IgnoredAny, IgnoredAny>()?.is_some() {}
        self.other("an object");
        Ok(())
    }
}

/// Reads a value of any kind.
struct Loose<T>(T);

impl<'de, T: Take<'de>> DeserializeSeed<'de> for Loose<T> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, value: D) -> Result<(), D::Error> {
        value.deserialize_any(self)
    }
}

impl<'de, T: Take<'de>> Visitor<'de> for Loose<T> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("any value")
    }

    fn visit_bool<E>(self, _: bool) -> Result<(), E> {
        self.0.other("true or false");
        Ok(())
    }

    fn visit_u64<E>(self, number: u64) -> Result<(), E> {
        self.0.word(Cow::Owned(number.to_string()), "a number");
        Ok(())
    }

    fn visit_i64<E>(self, _: i64) -> Result<(), E> {
        self.0.other("a number");
        Ok(())
    }

    fn visit_f64<E>(self, _: f64) -> Result<(), E> {
        self.0.other("a number");
        Ok(())
    }

    fn visit_borrowed_str<E>(self, text: &'de str) -> Result<(), E> {
        self.0.word(Cow::Borrowed(text.trim()), "a text");
        Ok(())
    }

    fn visit_str<E>(self, text: &str) -> Result<(), E> {
        self.0.word(Cow::Owned(text.trim().to_owned()), "a text");
        Ok(())
    }

    fn visit_unit<E>(self) -> Result<(), E> {
        self.0.other("nothing");
        Ok(())
    }

    fn visit_seq<A: SeqAccess<'de>>(self, list: A) -> Result<(), A::Error> {
        self.0.list(list)
    }

    fn visit_map<A: MapAccess<'de>>(self, object: A) -> Result<(), A::Error> {
        self.0.object(object)
    }
}

/// The whole file.
struct Document<'r, 'a>(&'r mut Reader<'a>);

impl<'a> Take<'a> for Document<'_, 'a> {
    fn other(self, found: &'static str) {
        self.0.refusal = Some(format!("{EXPECTED}, found {found}"));
    }

    fn list<A: SeqAccess<'a>>(self, list: A) -> Result<(), A::Error> {
        Entries(self.0, "task").list(list)
    }

    fn object<A: MapAccess<'a>>(self, mut object: A) -> Result<(), A::Error> {
        let mut has_tasks = false;
        while let Some(key) = object.next_key::<Cow<'a, str>>()? {
            match &*key {
                "tasks" => {
                    has_tasks = true;
                    object.next_value_seed(Loose(Entries(self.0, "task")))?;
                }
                "epics" => object.next_value_seed(Loose(Entries(self.0, "epic")))?,
                _ => drop(object.next_value::<IgnoredAny>()?),
            }
        }
        if !has_tasks && self.0.refusal.is_none() {
            self.0.refusal = Some(EXPECTED.to_owned());
        }
        Ok(())
    }
}

/// A list of tasks or of epics.
struct Entries<'r, 'a>(&'r mut Reader<'a>, &'static str);

impl<'a> Take<'a> for Entries<'_, 'a> {
    fn other(self, found: &'static str) {
        let why = format!("field `{}s`: expected a list, found {found}", self.1);
        self.0.refusal = Some(why);
    }

    fn list<A: SeqAccess<'a>>(self, mut list: A) -> Result<(), A::Error> {
        self.0.entry = (self.1, 0);
        while list.next_element_seed(Loose(Entry(self.0)))?.is_some() {
            self.0.entry.1 += 1;
        }
        Ok(())
    }
}

/// One task or epic.
struct Entry<'r, 'a>(&'r mut Reader<'a>);

impl<'a> Take<'a> for Entry<'_, 'a> {
    fn other(self, found: &'static str) {
        self.0.problem(&format!("expected an object, found {found}"));
    }

    fn word(self, word: Cow<'a, str>, found: &'static str) {
        if self.0.entry.0 == "epic" && found == "a text" {
            self.0.words = Default::default();
            self.0.words[TITLE] = Some(word);
            self.0.end_epic();
        } else {
            self.other(found);
        }
    }

    fn object<A: MapAccess<'a>>(self, mut object: A) -> Result<(), A::Error> {
        let reader = self.0;
        reader.words = Default::default();
        reader.depends_on.clear();
        while let Some(key) = object.next_key_seed(Key)? {
            match key {
                Field::Word(word) => object.next_value_seed(Loose(Word(reader, word)))?,
                Field::Names(field) => object.next_value_seed(Loose(Names(reader, field)))?,
                Field::Other => drop(object.next_value::<IgnoredAny>()?),
            }
        }
        reader.above();
        if reader.entry.0 == "epic" {
            reader.end_epic()
        } else {
            reader.end_task()
        }
        Ok(())
    }
}

/// The fields that are looked at.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Field {
    /// One text, by its place in [`WORDS`].
    Word(usize),
    /// Names of tasks.
    Names(&'static str),
    Other,
}

/// Reads the name of a field.
struct Key;

impl<'de> DeserializeSeed<'de> for Key {
    type Value = Field;

    fn deserialize<D: Deserializer<'de>>(self, name: D) -> Result<Field, D::Error> {
        name.deserialize_identifier(self)
    }
}

impl Visitor<'_> for Key {
    type Value = Field;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the name of a field")
    }

    fn visit_str<E>(self, name: &str) -> Result<Field, E> {
        let word = || WORDS.iter().position(|word| *word == name).map(Field::Word);
        Ok(match name {
            "depends_on" => Field::Names("depends_on"),
            "dependencies" => Field::Names("dependencies"),
            _ => word().unwrap_or(Field::Other),
        })
    }
}

/// A field that is one text.
struct Word<'r, 'a>(&'r mut Reader<'a>, usize);

impl<'a> Take<'a> for Word<'_, 'a> {
    fn other(self, found: &'static str) {
        if found != "nothing" {
            let why = format!("field `{}`: expected a text, found {found}", WORDS[self.1]);
            self.0.problem(&why);
        }
    }

    fn word(self, word: Cow<'a, str>, _: &'static str) {
        self.0.words[self.1] = Some(word);
    }
}

/// A field that is a list of names, or one name.
struct Names<'r, 'a>(&'r mut Reader<'a>, &'static str);

impl<'a> Take<'a> for Names<'_, 'a> {
    fn other(self, found: &'static str) {
        if found != "nothing" {
            Name(self.0, self.1).other(found);
        }
    }

    fn word(self, word: Cow<'a, str>, _: &'static str) {
        self.0.depends_on.push(word);
    }

    fn list<A: SeqAccess<'a>>(self, mut list: A) -> Result<(), A::Error> {
        while list.next_element_seed(Loose(Name(self.0, self.1)))?.is_some() {}
        Ok(())
    }
}

/// A name in such a list.
struct Name<'r, 'a>(&'r mut Reader<'a>, &'static str);

impl<'a> Take<'a> for Name<'_, 'a> {
    fn other(self, found: &'static str) {
        let why = format!("field `{}`: expected a list of texts, found {found}", self.1);
        self.0.problem(&why);
    }

    fn word(self, word: Cow<'a, str>, _: &'static str) {
        self.0.depends_on.push(word);
    }
}

#[cfg(test)]
mod tests {
    use super::read;

    /// Each task with what it depends on and knows, then what it does not know.
    fn good(text: &str) -> String {
        let graph = read(text.as_bytes()).expect(text);
        let deps = |task| graph.names(graph.dependencies(task)).collect::<Vec<_>>().join(" ");
        let known = graph.tasks().map(|task| format!("{}: {}", graph.name(task), deps(task)));
        let unknown = graph.unknown().map(|(task, name)| format!("{}? {name}", graph.name(task)));
        known.chain(unknown).collect::<Vec<_>>().join(", ")
    }

    fn bad(text: &str) -> String {
        let error = read(text.as_bytes()).expect_err(text);
        assert_eq!(error.kind.exit().number(), 2);
        format!("{}; {}", error.message, error.causes.join("; "))
    }

    #[test]
    fn ids_and_dependencies_are_read_as_an_import_would() {
        for (text, expected) in [
            (r#"[{"id":"b","depends_on":["a"]},{"id":"a"}]"#, "b: a, a: "),
            (
                r#"{"x":[{}],"tasks":[{"id":7,"dependencies":3,"depends_on":[" 3 "]},{"id":"3"}]}"#,
                "7: 3, 3: ",
            ),
            (
                r#"[{"title":"T","depends_on":"\u0061"},{"id":"a","sub":{"id":"z"}}]"#,
                "task 0: a, a: ",
            ),
            (
                r#"[{"id":"a","depends_on":null,"dependencies":["X","x"]},{"id":"x"}]"#,
                "a: x, x: , a? X",
            ),
            (r#"[{"id":"a","status":"done"},{"id":"E 1","kind":"epic"}]"#, "a: , E-1: "),
            ("\u{feff}[]", ""),
        ] {
            assert_eq!(good(text), expected, "{text}");
        }
    }

    #[test]
    fn epics_are_there_when_something_depends_on_them() {
        let text = r#"{"tasks":[{"id":"a","epic":"Core","depends_on":["core","e1","E9"]},{"id":"b","parent":"B"}],
            "epics":[{"id":"E1","depends_on":["e2"]},{"title":"E2"},"E3",{"id":"A"}]}"#;
        assert_eq!(good(text), "a: Core E1, b: , Core: , E1: E2, E2: , a? E9");
    }

    #[test]
    fn problems_name_entry_and_field() {
        for (text, why) in [
            ("", "it is no JSON; EOF while parsing a value at line 1 column 0"),
            ("[{}]\u{0}", "line 1 column 5"),
            ("7", "expected a list of tasks, or an object with `tasks`, found a number"),
            ("{}", "expected a list of tasks, or an object with `tasks`"),
            (r#"{"tasks": {}}"#, "field `tasks`: expected a list, found an object"),
            (r#"{"tasks": [], "epics": 3}"#, "field `epics`: expected a list, found a number"),
            ("[3]", "task 0: expected an object, found a number"),
            (r#"[{"id":"../a"}]"#, "task 0: field `id`: task id `../a` must begin"),
            (r#"[{"id":{}}]"#, "task 0: field `id`: expected a text, found an object"),
            (
                r#"[{"id":"a","depends_on":[{}]}]"#,
                "task 0 (`a`): field `depends_on`: expected a list",
            ),
            (
                r#"[{"id":"a","depends_on":["x y"]}]"#,
                "(`a`): field `depends_on`: task id `x y` may",
            ),
            (r#"[{"id":"a"},{"id":"A"}]"#, "task 1 (`A`): field `id`: stands twice"),
            (r#"[{"id":"a","epic":"…"}]"#, "field `epic`: no id can be made of"),
            (r#"{"epics":[{}],"tasks":[]}"#, "epic 0: field `id`: no id can be made of"),
        ] {
            let found = bad(text);
            assert!(found.contains(why), "{text}: {found}");
        }
        let many = format!("[{}]", vec!["3"; 30].join(","));
        assert!(bad(&many).ends_with("found a number; and 10 more; "), "{}", bad(&many));
        assert!(read(b"[\"\xff\"]").is_err());
        assert!(bad(&"[".repeat(100_000)).contains("it is no JSON"));
    }
}
