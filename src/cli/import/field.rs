//! The fields of one entry of a backlog, taken one by one; what is left over is kept as it is.

use std::collections::BTreeMap;

use serde_json::Value;

/// Fields by name, not yet taken.
pub(super) struct Fields {
    left: BTreeMap<String, Value>,
    /// What is wrong with them, one sentence each.
    pub(super) problems: Vec<String>,
}

impl Fields {
    pub(super) fn new(object: serde_json::Map<String, Value>) -> Self {
        let left = object.into_iter().filter(|(_, value)| !value.is_null()).collect();
        Self { left, problems: Vec::new() }
    }

    /// Returns the value of the first of the names that is there; of others nothing is taken.
    pub(super) fn take(&mut self, names: &[&'static str]) -> Option<(&'static str, Value)> {
        names.iter().find_map(|name| self.left.remove(*name).map(|value| (*name, value)))
    }

    /// Puts a value back, to be kept as it is.
    pub(super) fn keep(&mut self, name: &str, value: Value) {
        self.left.insert(name.to_owned(), value);
    }

    /// Notes what is wrong with a field.
    pub(super) fn problem(&mut self, name: &str, why: &str) {
        self.problems.push(format!("field `{name}`: {why}"));
    }

    /// Takes a text.
    pub(super) fn text(&mut self, names: &[&'static str]) -> Option<String> {
        let (name, value) = self.take(names)?;
        match value {
            Value::String(text) => Some(text),
            other => {
                self.problem(name, &format!("expected a text, found {}", kind(&other)));
                None
            }
        }
    }

    /// Takes a text or a whole number, as text.
    pub(super) fn word(&mut self, names: &[&'static str]) -> Option<(&'static str, String)> {
        let (name, value) = self.take(names)?;
        match word(&value) {
            Some(text) => Some((name, text)),
            None => {
                self.problem(name, &format!("expected a text, found {}", kind(&value)));
                None
            }
        }
    }

    /// Takes yes or no.
    pub(super) fn flag(&mut self, name: &'static str) -> bool {
        match self.take(&[name]) {
            None => false,
            Some((_, Value::Bool(value))) => value,
            Some((_, other)) => {
                self.problem(name, &format!("expected true or false, found {}", kind(&other)));
                false
            }
        }
    }

    /// Takes a list of texts, or one text, each read by `read`.
    pub(super) fn list<T>(
        &mut self,
        name: &'static str,
        read: impl Fn(&str) -> Result<T, String>,
    ) -> Vec<T> {
        let values = match self.take(&[name]) {
            None => return Vec::new(),
            Some((_, Value::Array(values))) => values,
            Some((_, value)) => vec![value],
        };
        let mut list = Vec::with_capacity(values.len());
        for value in values {
            let text = word(&value)
                .ok_or_else(|| format!("expected a list of texts, found {}", kind(&value)));
            match text.and_then(|text| read(&text)) {
                Ok(item) => list.push(item),
                Err(why) => self.problem(name, &why),
            }
        }
        list
    }

    /// Takes an object of amounts.
    pub(super) fn amounts(&mut self, name: &'static str) -> BTreeMap<String, String> {
        let mut amounts = BTreeMap::new();
        match self.take(&[name]) {
            None => {}
            Some((_, Value::Object(object))) => {
                for (key, value) in object {
                    let amount = match &value {
                        Value::Number(number) => Some(number.to_string()),
                        other => word(other),
                    };
                    match amount {
                        Some(amount) => drop(amounts.insert(key, amount)),
                        None => self.problem(
                            name,
                            &format!("expected an amount of `{key}`, found {}", kind(&value)),
                        ),
                    }
                }
            }
            Some((_, other)) => {
                self.problem(name, &format!("expected an object, found {}", kind(&other)));
            }
        }
        amounts
    }

    /// Returns what was not taken, as JSON text.
    pub(super) fn rest(self) -> BTreeMap<String, String> {
        self.left.into_iter().map(|(name, value)| (name, value.to_string())).collect()
    }
}

/// Returns a text or a whole number as text.
pub(super) fn word(value: &Value) -> Option<String> {
    match value {
        Value::String(text) => Some(text.trim().to_owned()),
        Value::Number(number) if number.is_u64() => Some(number.to_string()),
        _ => None,
    }
}

/// Returns what kind of value it is, with an article.
pub(super) fn kind(value: &Value) -> &'static str {
    match value {
        Value::Null => "nothing",
        Value::Bool(_) => "true or false",
        Value::Number(_) => "a number",
        Value::String(_) => "a text",
        Value::Array(_) => "a list",
        Value::Object(_) => "an object",
    }
}
