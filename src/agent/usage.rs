//! What a program's output says of its run, read by the rules of its preset.
//!
//! Bytes in, facts out. What cannot be found is unknown; nothing here fails.

use std::collections::HashMap;

use regex::{Regex, RegexBuilder};
use serde_json::Value;

use super::moment;
use crate::machine::attempt::FaultKind;
use crate::machine::preset::{Fact, OutputRule, Preset, Take};
use crate::machine::usage::Usage;

/// Texts are kept up to this many bytes, their ends.
const TEXT_BYTES_MAX: usize = 4 << 10;
/// As validation of presets has it.
const REGEX_BYTES_MAX: usize = 256 << 10;
/// More than any run uses; beyond it a number is not one of tokens.
const NUMBER_MAX: f64 = 1e15;

/// What was found.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Reading {
    pub usage: Usage,
    /// What it said last.
    pub text: Option<String>,
    /// What it says went wrong.
    pub error: Option<String>,
    /// What it says last of its provider, where nothing since shows that it is over.
    pub fault: Option<Trouble>,
}

/// A fault of its provider as a program tells of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Trouble {
    pub kind: FaultKind,
    pub text: String,
    /// When it ends, as it stands in the output.
    pub until: Option<String>,
}

/// Output to be read.
#[derive(Debug, Clone, Copy)]
pub struct Output<'a> {
    pub log: &'a [u8],
    /// The preset's `usage_file`, where there is one.
    pub document: Option<&'a [u8]>,
    /// Nothing of the log was left out for its length: else sums are not known.
    pub is_whole: bool,
}

/// Reads the output of one run.
#[must_use]
pub fn read(output: Output<'_>, preset: &Preset) -> Reading {
    let rules: Vec<Rule<'_>> = preset.output.iter().filter_map(Rule::new).collect();
    let mut found = Found::default();
    if rules.is_empty() {
        return Reading::default();
    }
    for line in output.log.split(|byte| *byte == b'\n') {
        match event(line) {
            Some(event) => found.event(&rules, &event),
            None => {
                found.line(&rules, String::from_utf8_lossy(line).trim_end());
            }
        }
    }
    if let Some(event) = output.document.and_then(event) {
        found.event(&rules, &event);
    }
    let count = |count: &Count, factor: f64| {
        let is_known = output.is_whole || !count.is_sum;
        let number = count.number.map(|number| number * factor).filter(|_| is_known);
        number.filter(|number| *number < NUMBER_MAX).map(|number| number.round() as u64)
    };
    let mut usage = Usage {
        session: found.session,
        input_tokens: count(&found.input, 1.0),
        output_tokens: count(&found.output, 1.0),
        cached_tokens: count(&found.cached, 1.0),
        cost_usd_micros: count(&found.cost, 1e6),
        is_session_total: preset.is_session_total,
    };
    // Programs say 0 of a model whose price they do not know; only where no token was used is it so.
    if found.cost.number == Some(0.0) && usage.tokens() != Some(0) {
        usage.cost_usd_micros = None;
    }
    Reading {
        usage,
        text: found.text,
        error: found.error,
        fault: found.fault.map(|(kind, text)| Trouble { kind, text, until: found.until }),
    }
}

/// Returns the JSON object in a line.
fn event(line: &[u8]) -> Option<Value> {
    let line = line.trim_ascii();
    line.starts_with(b"{").then(|| serde_json::from_slice(line).ok())?
}

#[derive(Debug, Default)]
struct Found {
    session: Option<String>,
    input: Count,
    output: Count,
    cached: Count,
    cost: Count,
    text: Option<String>,
    error: Option<String>,
    fault: Option<(FaultKind, String)>,
    until: Option<String>,
}

/// A number that several findings make.
#[derive(Debug, Default)]
struct Count {
    number: Option<f64>,
    is_sum: bool,
    /// What was added last, by what stood at the rule's `each`.
    each: HashMap<String, f64>,
}

impl Count {
    fn add(&mut self, take: Take, number: f64, each: Option<String>) {
        let before = each.and_then(|each| self.each.insert(each, number)).unwrap_or(0.0);
        self.is_sum = take == Take::All;
        self.number = Some(match take {
            Take::Last => number,
            Take::All => self.number.unwrap_or(0.0) - before + number,
        });
    }
}

/// What a rule found in a line.
enum Finding {
    /// With what stood at the rule's `each`.
    Number(f64, Option<String>),
    Text(String),
}

impl Found {
    /// Takes an event in.
    fn event(&mut self, rules: &[Rule<'_>], event: &Value) {
        self.heed(rules.iter().filter_map(|rule| Some((rule.rule, rule.in_event(event)?))));
    }

    /// Takes a line of text in.
    fn line(&mut self, rules: &[Rule<'_>], line: &str) {
        self.heed(rules.iter().filter_map(|rule| Some((rule.rule, rule.in_line(line)?))));
    }

    /// Takes in what one line says. Of several faults in it the one of the first rule counts.
    fn heed<'r>(&mut self, findings: impl Iterator<Item = (&'r OutputRule, Finding)>) {
        let (mut fault, mut until, mut is_progress) = (None, None, false);
        for (rule, finding) in findings {
            is_progress |= rule.fact == Fact::Progress;
            match finding {
                Finding::Number(number, each) => {
                    if let Some(count) = self.number(rule.fact) {
                        count.add(rule.take, number, each);
                    }
                }
                Finding::Text(text) if rule.fact == Fact::Until => until = Some(later(until, text)),
                Finding::Text(text) => match rule.fact.fault() {
                    Some(kind) if fault.is_none() => fault = Some((kind, text)),
                    Some(_) => {}
                    None => self.add_text(rule, &text),
                },
            }
        }
        match &fault {
            Some((kind, _)) => {
                // What another kind of fault named says nothing of this one.
                if self.fault.as_ref().is_some_and(|(old, _)| old != kind) {
                    self.until = None;
                }
                self.fault = fault;
            }
            None if is_progress => (self.fault, self.until) = (None, None),
            None => {}
        }
        self.until = match (self.until.take(), until) {
            // A span is over when the program goes on: what it says then is another end.
            (Some(old), Some(new)) if moment::is_stamp(&old) => Some(later(Some(old), new)),
            (_, Some(new)) => Some(new),
            (old, None) => old,
        };
    }

    fn number(&mut self, fact: Fact) -> Option<&mut Count> {
        match fact {
            Fact::InputTokens => Some(&mut self.input),
            Fact::OutputTokens => Some(&mut self.output),
            Fact::CachedTokens => Some(&mut self.cached),
            Fact::CostUsd => Some(&mut self.cost),
            Fact::Session
            | Fact::Text
            | Fact::Error
            | Fact::Limit
            | Fact::Unauthorized
            | Fact::Context
            | Fact::Until
            | Fact::Progress => None,
        }
    }

    fn text(&mut self, fact: Fact) -> Option<&mut Option<String>> {
        match fact {
            Fact::Session => Some(&mut self.session),
            Fact::Text => Some(&mut self.text),
            Fact::Error => Some(&mut self.error),
            Fact::InputTokens
            | Fact::OutputTokens
            | Fact::CachedTokens
            | Fact::CostUsd
            | Fact::Limit
            | Fact::Unauthorized
            | Fact::Context
            | Fact::Until
            | Fact::Progress => None,
        }
    }

    fn add_text(&mut self, rule: &OutputRule, text: &str) {
        let Some(place) = self.text(rule.fact) else { return };
        let mut whole = match rule.take {
            Take::Last => String::new(),
            Take::All => place.take().unwrap_or_default(),
        };
        whole.push_str(text);
        if whole.len() > TEXT_BYTES_MAX {
            let from = whole.len() - TEXT_BYTES_MAX;
            let from = (from..whole.len()).find(|at| whole.is_char_boundary(*at));
            whole.drain(..from.unwrap_or(0));
        }
        *place = Some(whole);
    }
}

/// Returns which of two ends counts: the later word, but for one that a program tells people only.
fn later(old: Option<String>, new: String) -> String {
    match old {
        Some(old) if moment::is_exact(&old) && !moment::is_exact(&new) => old,
        Some(_) | None => new,
    }
}

struct Rule<'a> {
    rule: &'a OutputRule,
    pattern: Option<Regex>,
}

impl<'a> Rule<'a> {
    /// Returns `None` for a pattern that validation would have refused.
    fn new(rule: &'a OutputRule) -> Option<Self> {
        let pattern = match &rule.pattern {
            Some(text) => Some(RegexBuilder::new(text).size_limit(REGEX_BYTES_MAX).build().ok()?),
            None => None,
        };
        Some(Self { rule, pattern })
    }

    fn in_event(&self, event: &Value) -> Option<Finding> {
        let is_there = |(pointer, text): (&String, &String)| {
            event.pointer(pointer).and_then(plain).is_some_and(|found| found == *text)
        };
        if self.rule.at.is_empty() || !self.rule.when.iter().all(is_there) {
            return None;
        }
        let values = self.rule.at.iter().filter_map(|pointer| event.pointer(pointer));
        if is_number(self.rule.fact) {
            let numbers: Vec<f64> = values
                .filter_map(|value| match value {
                    Value::Number(number) => number.as_f64().filter(|number| *number >= 0.0),
                    other => number(self.part(&plain(other)?)?),
                })
                .collect();
            let each = self.rule.each.as_ref().and_then(|each| plain(event.pointer(each)?));
            return (!numbers.is_empty()).then(|| Finding::Number(numbers.iter().sum(), each));
        }
        let text = values.filter_map(plain).find(|text| !text.is_empty())?;
        Some(Finding::Text(self.part(&text)?.to_owned()))
    }

    fn in_line(&self, line: &str) -> Option<Finding> {
        if !self.rule.at.is_empty() {
            return None;
        }
        let part = self.part(line)?;
        if is_number(self.rule.fact) {
            return number(part).map(|number| Finding::Number(number, None));
        }
        Some(Finding::Text(part.to_owned()))
    }

    /// Returns the part of the text that the pattern is about.
    fn part<'t>(&self, text: &'t str) -> Option<&'t str> {
        let Some(pattern) = &self.pattern else { return Some(text) };
        let groups = pattern.captures(text)?;
        groups.get(1).or_else(|| groups.get(0)).map(|part| part.as_str())
    }
}

fn is_number(fact: Fact) -> bool {
    Found::default().number(fact).is_some()
}

/// Returns a value as text; `None` for null, lists and objects.
fn plain(value: &Value) -> Option<String> {
    match value {
        Value::String(text) => Some(text.clone()),
        Value::Number(number) => Some(number.to_string()),
        Value::Bool(is_true) => Some(is_true.to_string()),
        Value::Null | Value::Array(_) | Value::Object(_) => None,
    }
}

/// Reads numbers as people are told them: `1,234`, `1.2k`, `3M`.
fn number(text: &str) -> Option<f64> {
    let text: String = text.trim().chars().filter(|c| *c != ',').collect();
    let (digits, factor) = match text.strip_suffix(['k', 'K']) {
        Some(digits) => (digits, 1e3),
        None => text.strip_suffix('M').map_or((text.as_str(), 1.0), |digits| (digits, 1e6)),
    };
    let number: f64 = digits.parse().ok()?;
    (number.is_finite() && number >= 0.0).then_some(number * factor)
}
