//! Reads TOML tables key by key: remembers which keys exist, collects every problem with its place.
//!
//! A reader never stops at a problem: it notes it, returns the default and goes on, so that all
//! problems of a file are reported together. Knows nothing of the settings themselves.

use std::cell::RefCell;
use std::ops::{Range, RangeInclusive};

use toml::Spanned;
use toml::de::{DeTable, DeValue};

use crate::machine::amount::{self, Amounts};
use crate::machine::preset::Part;

use super::problem::{Problem, Wrong};
use super::value;

/// Every problem found so far in one text.
#[derive(Debug)]
pub struct Report<'t> {
    text: &'t str,
    problems: RefCell<Vec<(usize, Wrong)>>,
}

impl<'t> Report<'t> {
    /// Starts a report on `text` with nothing wrong.
    #[must_use]
    pub fn new(text: &'t str) -> Self {
        Self { text, problems: RefCell::default() }
    }

    /// Notes a problem at a byte offset.
    pub fn add(&self, at: usize, what: Wrong) {
        self.problems.borrow_mut().push((at, what));
    }

    /// Returns every problem in the order of the text; may be empty.
    #[must_use]
    pub fn problems(&self) -> Vec<Problem> {
        let mut found = self.problems.borrow().clone();
        found.sort_by_key(|(at, _)| *at);
        found.dedup();
        found.into_iter().map(|(at, what)| self.place(at, what)).collect()
    }

    fn place(&self, at: usize, what: Wrong) -> Problem {
        let at = (0..=at).rev().find(|at| self.text.is_char_boundary(*at)).unwrap_or(0);
        let before = &self.text[..at];
        let line_start = before.rfind('\n').map_or(0, |end| end + 1);
        let line = before.bytes().filter(|byte| *byte == b'\n').count() + 1;
        Problem { line, column: before[line_start..].chars().count() + 1, what }
    }

    fn source(&self, span: Range<usize>) -> String {
        self.text.get(span).unwrap_or_default().to_owned()
    }
}

/// One table of the file, or one that is absent and all at defaults.
///
/// Every key asked for becomes a known key; [`Section::finish`] refuses the others.
#[derive(Debug)]
pub struct Section<'a> {
    report: &'a Report<'a>,
    name: String,
    table: Option<&'a DeTable<'a>>,
    at: usize,
    known: Vec<&'static str>,
}

type Value<'a> = &'a Spanned<DeValue<'a>>;

impl<'a> Section<'a> {
    /// Opens the whole file.
    #[must_use]
    pub fn root(report: &'a Report<'a>, table: &'a DeTable<'a>) -> Self {
        Self { report, name: String::new(), table: Some(table), at: 0, known: Vec::new() }
    }

    /// Returns the byte offset of the value of `key`, or of the section where it is not given.
    #[must_use]
    pub fn at(&self, key: &str) -> usize {
        self.find(key).map_or(self.at, |value| value.span().start)
    }

    /// Returns `key` with the section's name before it.
    #[must_use]
    pub fn path(&self, key: &str) -> String {
        if self.name.is_empty() { key.to_owned() } else { format!("{}.{key}", self.name) }
    }

    fn find(&self, key: &str) -> Option<Value<'a>> {
        self.table?.iter().find(|(name, _)| name.get_ref() == key).map(|(_, value)| value)
    }

    fn take(&mut self, key: &'static str) -> Option<Value<'a>> {
        if !self.known.contains(&key) {
            self.known.push(key);
        }
        self.find(key)
    }

    fn wrong_type(&self, key: &str, value: Value<'a>, expected: &'static str) {
        let found = value.get_ref().type_str();
        self.report.add(value.span().start, Wrong::Type { key: self.path(key), expected, found });
    }

    /// Notes that the value of `key`, or the part `value` of it, must be `expected`.
    pub fn wrong_value(&self, key: &str, value: &str, expected: &str) {
        let what =
            Wrong::Value { key: self.path(key), value: value.into(), expected: expected.into() };
        self.report.add(self.at(key), what);
    }

    /// Notes that the file named by `key` is of no use.
    pub fn wrong_file(&self, key: &str, value: &str, why: &str) {
        let what = Wrong::File { key: self.path(key), value: value.into(), why: why.into() };
        self.report.add(self.at(key), what);
    }

    /// Notes that `key` must be given.
    pub fn missing(&self, key: &str, expected: &'static str) {
        self.report.add(self.at, Wrong::Missing { key: self.path(key), expected });
    }

    /// Notes that the value of `key` is for a later version.
    pub fn not_yet(&self, key: &str, instead: &'static str) {
        let Some(value) = self.find(key) else { return };
        let value = self.report.source(value.span());
        self.report.add(self.at(key), Wrong::NotYet { key: self.path(key), value, instead });
    }

    /// Returns whether `key` is given, and makes it known.
    pub fn has(&mut self, key: &'static str) -> bool {
        self.take(key).is_some()
    }

    /// Returns a string; `None` when not given.
    pub fn string(&mut self, key: &'static str) -> Option<String> {
        let value = self.take(key)?;
        match value.get_ref().as_str() {
            Some(text) if text.contains('\0') => {
                self.wrong_value(key, &text.escape_debug().to_string(), "text without NUL");
                None
            }
            Some(text) => Some(text.to_owned()),
            None => {
                self.wrong_type(key, value, "a string");
                None
            }
        }
    }

    /// Returns an integer within `range`.
    pub fn integer(&mut self, key: &'static str, default: u32, range: RangeInclusive<u32>) -> u32 {
        let Some(value) = self.take(key) else { return default };
        let Some(number) = integer_of(value.get_ref()) else {
            self.wrong_type(key, value, "an integer");
            return default;
        };
        if let Some(number) = u32::try_from(number).ok().filter(|number| range.contains(number)) {
            return number;
        }
        let expected = format!("an integer from {} to {}", range.start(), range.end());
        self.wrong_value(key, &number.to_string(), &expected);
        default
    }

    /// Returns a number within `range`.
    pub fn float(&mut self, key: &'static str, default: f64, range: RangeInclusive<f64>) -> f64 {
        let Some(value) = self.take(key) else { return default };
        let Some(number) = float_of(value.get_ref()) else {
            self.wrong_type(key, value, "a number");
            return default;
        };
        if range.contains(&number) {
            return number;
        }
        let expected = format!("a number from {} to {}", range.start(), range.end());
        self.wrong_value(key, &number.to_string(), &expected);
        default
    }

    /// Returns a boolean.
    pub fn boolean(&mut self, key: &'static str, default: bool) -> bool {
        let Some(value) = self.take(key) else { return default };
        value.get_ref().as_bool().unwrap_or_else(|| {
            self.wrong_type(key, value, "true or false");
            default
        })
    }

    /// Returns a duration in milliseconds, at least `min_ms`.
    pub fn duration_ms(&mut self, key: &'static str, default: &str, min_ms: u64) -> u64 {
        let default = value::duration_ms(default).expect("the default of a key is a duration");
        let Some(text) = self.string(key) else { return default };
        match value::duration_ms(&text) {
            Some(ms) if ms >= min_ms => ms,
            Some(_) => {
                self.wrong_value(key, &text, &format!("at least {min_ms}ms"));
                default
            }
            None => {
                let expected = "a duration such as `250ms`, `30s`, `5m`, `2h` or `7d`";
                self.wrong_value(key, &text, expected);
                default
            }
        }
    }

    /// Returns a size in bytes: an integer, or a string with a unit.
    pub fn bytes(&mut self, key: &'static str, default: u64, bytes_min: u64) -> u64 {
        let Some(value) = self.take(key) else { return default };
        let found = match value.get_ref() {
            DeValue::String(text) => value::bytes(text),
            other => integer_of(other).and_then(|number| u64::try_from(number).ok()),
        };
        if let Some(bytes) = found.filter(|bytes| *bytes >= bytes_min) {
            return bytes;
        }
        let source = self.report.source(value.span());
        let expected = format!("at least {bytes_min} bytes, such as `64KiB`, `16MiB` or `4GiB`");
        self.wrong_value(key, &source, &expected);
        default
    }

    /// Returns a list of strings, none of them blank; `None` when not given.
    pub fn strings(&mut self, key: &'static str) -> Option<Vec<String>> {
        let value = self.take(key)?;
        let Some(array) = value.get_ref().as_array() else {
            self.wrong_type(key, value, "a list of strings");
            return None;
        };
        let mut strings = Vec::new();
        for item in array.iter() {
            match item.get_ref().as_str() {
                Some(text) if text.trim().is_empty() || text.contains('\0') => {
                    let found = text.escape_debug().to_string();
                    self.wrong_value(key, &found, "a list without blank strings");
                }
                Some(text) => strings.push(text.to_owned()),
                None => self.wrong_type(key, item, "a list of strings"),
            }
        }
        Some(strings)
    }

    /// Returns whether `key` is given as text.
    #[must_use]
    pub fn is_given(&self, key: &str) -> bool {
        self.find(key).is_some_and(|value| value.get_ref().as_str().is_some())
    }

    /// Returns whether `key` is given as a list.
    #[must_use]
    pub fn is_list(&self, key: &str) -> bool {
        self.find(key).is_some_and(|value| value.get_ref().is_array())
    }

    /// Returns the strings of a list as they stand, blank ones too.
    pub fn raw_strings(&mut self, key: &'static str) -> Vec<String> {
        let items = self.take(key).and_then(|value| value.get_ref().as_array());
        let mut strings = Vec::new();
        for item in items.into_iter().flatten() {
            match item.get_ref().as_str() {
                Some(text) if !text.contains('\0') => strings.push(text.to_owned()),
                Some(text) => {
                    self.wrong_value(key, &text.escape_debug().to_string(), "text without NUL");
                }
                None => self.wrong_type(key, item, "a list of strings"),
            }
        }
        strings
    }

    /// Returns the parts of a command line: words, and lists of words.
    pub fn parts(&mut self, key: &'static str) -> Vec<Part> {
        const EXPECTED: &str = "a list of words and lists of words";
        let Some(value) = self.take(key) else { return Vec::new() };
        let Some(array) = value.get_ref().as_array() else {
            self.wrong_type(key, value, EXPECTED);
            return Vec::new();
        };
        let word = |item: Value<'a>| match item.get_ref().as_str() {
            Some(text) if !text.contains('\0') => Some(text.to_owned()),
            Some(_) | None => {
                self.wrong_type(key, item, EXPECTED);
                None
            }
        };
        let part = |item: Value<'a>| match item.get_ref().as_array() {
            Some(words) => Some(Part::Group(words.iter().filter_map(word).collect())),
            None => word(item).map(Part::Word),
        };
        array.iter().filter_map(part).collect()
    }

    /// Returns what a word stands for; a word that stands for `None` is "not yet".
    pub fn word<T: Copy>(
        &mut self,
        key: &'static str,
        default: T,
        words: &[(&str, Option<T>)],
    ) -> T {
        let Some(text) = self.string(key) else { return default };
        match words.iter().find(|(word, _)| *word == text) {
            Some((_, Some(meaning))) => *meaning,
            Some((_, None)) => {
                self.not_yet(key, "");
                default
            }
            None => {
                let known: Vec<&str> = words.iter().map(|(word, _)| *word).collect();
                self.unknown_value(key, &text, &known);
                default
            }
        }
    }

    /// Notes that `value` is none of the `known` words of `key`.
    pub fn unknown_value(&self, key: &str, value: &str, known: &[&str]) {
        let nearest = value::nearest(value, known.iter().copied()).map(str::to_owned);
        let known = known.iter().map(|known| (*known).to_owned()).collect();
        let what = Wrong::UnknownValue { key: self.path(key), value: value.into(), nearest, known };
        self.report.add(self.at(key), what);
    }

    /// Returns whether the value at `key` is a table.
    #[must_use]
    pub fn is_table(&self, key: &str) -> bool {
        self.find(key).is_some_and(|value| value.get_ref().is_table())
    }

    /// Returns named amounts; none when not given.
    pub fn amounts(&mut self, key: &'static str) -> Amounts {
        let Some(value) = self.take(key) else { return Amounts::new() };
        let Some(table) = value.get_ref().as_table() else {
            self.wrong_type(
                key,
                value,
                "a table of amounts, e.g. `{ cpu = 2, memory = \"4GiB\" }`",
            );
            return Amounts::new();
        };
        let mut amounts = Amounts::new();
        for (name, value) in table {
            let name = name.get_ref().to_string();
            let text = match value.get_ref() {
                DeValue::String(text) => text.to_string(),
                _ => self.report.source(value.span()),
            };
            match amount::parse(&name, &text) {
                Some(amount) => {
                    amounts.insert(name, amount);
                }
                None => {
                    let expected =
                        format!("an amount of `{name}`, e.g. {}", amount::example(&name));
                    self.wrong_value(key, &text, &expected);
                }
            }
        }
        amounts
    }

    /// Opens the table at `key`; one that is absent reads as all defaults.
    pub fn section(&mut self, key: &'static str) -> Section<'a> {
        let value = self.take(key);
        let table = value.and_then(|value| value.get_ref().as_table());
        if let (Some(value), None) = (value, table) {
            self.wrong_type(key, value, "a table");
        }
        self.opened(key, table, self.at(key))
    }

    /// Opens every table of the array of tables at `key`, in file order.
    pub fn sections(&mut self, key: &'static str) -> Vec<Section<'a>> {
        let Some(value) = self.take(key) else { return Vec::new() };
        let Some(array) = value.get_ref().as_array() else {
            self.wrong_type(key, value, "a list of tables: each opens with its name in `[[ ]]`");
            return Vec::new();
        };
        let mut sections = Vec::new();
        for item in array.iter() {
            match item.get_ref().as_table() {
                Some(table) => sections.push(self.opened(key, Some(table), item.span().start)),
                None => self.wrong_type(key, item, "a table"),
            }
        }
        sections
    }

    fn opened(&self, key: &str, table: Option<&'a DeTable<'a>>, at: usize) -> Section<'a> {
        Section { report: self.report, name: self.path(key), table, at, known: Vec::new() }
    }

    /// Returns every key with a string value, whatever its name.
    pub fn all_strings(&self) -> Vec<(String, String)> {
        let mut found = Vec::new();
        for (key, value) in self.table.into_iter().flat_map(|table| table.iter()) {
            match value.get_ref().as_str() {
                Some(text) => found.push((key.get_ref().to_string(), text.to_owned())),
                None => self.wrong_type(key.get_ref(), value, "a string"),
            }
        }
        found
    }

    /// Refuses every key that was not asked for.
    pub fn finish(&self) {
        for (key, _) in self.table.into_iter().flat_map(|table| table.iter()) {
            let name = key.get_ref().as_ref();
            if self.known.contains(&name) {
                continue;
            }
            let nearest = value::nearest(name, self.known.iter().copied()).map(str::to_owned);
            let known = self.known.iter().map(|known| (*known).to_owned()).collect();
            let what = Wrong::UnknownKey { key: self.path(name), nearest, known };
            self.report.add(key.span().start, what);
        }
    }
}

/// The integer in a value; one beyond 64 bits reads as the largest, which no range contains.
fn integer_of(value: &DeValue<'_>) -> Option<i64> {
    let integer = value.as_integer()?;
    Some(i64::from_str_radix(integer.as_str(), integer.radix()).unwrap_or(i64::MAX))
}

fn float_of(value: &DeValue<'_>) -> Option<f64> {
    match value.as_float() {
        Some(float) => float.as_str().parse().ok(),
        None => integer_of(value).map(|number| number as f64),
    }
}
