//! The JSON documents of the commands that only look.

use std::collections::BTreeMap;

use serde::{Serialize, Serializer};
use serde_json::value::RawValue;

use crate::machine::attempt::Attempt;
use crate::machine::complexity;
use crate::machine::outside::Outside;
use crate::machine::purse::Spent;
use crate::machine::task::{Spec, Task};
use crate::observe::agents::AgentEntry;
use crate::observe::document::TaskEntry;
use crate::observe::figures::dollars;
use crate::observe::forecast::ForecastEntry;
use crate::observe::waiting::Reason;
use crate::observe::words::{Stamp, attempt_kind, attempt_phase};

/// Returns the value as one JSON line.
///
/// # Panics
/// When a map has keys that are no strings: a fault of the program.
#[must_use]
pub fn document(value: &impl Serialize) -> String {
    let text = serde_json::to_string(value).expect("every key is a string");
    text + "\n"
}

/// `task list --json`.
#[derive(Debug, Serialize)]
pub(super) struct TaskList<'a> {
    pub(super) tasks: Vec<TaskEntry<'a>>,
}

/// `agent list --json`: what `status` tells of an agent, and its name.
#[derive(Debug, Serialize)]
pub(super) struct AgentList<'a> {
    pub(super) agents: Vec<NamedAgent<'a>>,
    /// In the settings' order.
    pub(super) groups: Vec<GroupEntry<'a>>,
}

/// How many agents a group has, and what it is for.
#[derive(Debug, Serialize)]
pub(super) struct GroupEntry<'a> {
    pub(super) name: &'a str,
    /// Agents it is to have now.
    pub(super) target: u32,
    /// What its settings allow without a person; `count` twice where that is fixed.
    pub(super) min: u32,
    pub(super) max: u32,
    /// A person said so.
    pub(super) by_hand: bool,
    pub(super) tier: u32,
    /// Words of the tasks it is preferred for; empty: nothing is said.
    pub(super) complexity: &'a [String],
    /// Agents that leave after their task.
    pub(super) retiring: usize,
    pub(super) spent: SpentEntry,
}

#[derive(Debug, Serialize)]
pub(super) struct NamedAgent<'a> {
    pub(super) name: &'a str,
    #[serde(flatten)]
    pub(super) entry: AgentEntry<'a>,
    pub(super) capabilities: &'a [String],
    /// Leaves after its task.
    pub(super) retiring: bool,
}

/// `task show --json`: what `task list` tells, and the rest.
#[derive(Debug, Serialize)]
pub(super) struct TaskDetail<'a> {
    #[serde(flatten)]
    pub(super) entry: TaskEntry<'a>,
    pub(super) body: &'a str,
    /// Long names; empty: all that its labels allow.
    pub(super) stages: Vec<&'a str>,
    /// As given.
    pub(super) complexity: Option<&'a str>,
    /// What counts when an agent is chosen.
    pub(super) assessment: Assessment,
    /// In seconds.
    pub(super) estimate_s: Option<f64>,
    pub(super) resources: &'a BTreeMap<String, String>,
    pub(super) exclusive: bool,
    pub(super) command: Option<&'a str>,
    pub(super) front: bool,
    /// Tasks that depend on it.
    pub(super) dependents: Vec<&'a str>,
    pub(super) branch: Option<String>,
    /// Path globs of what the branch has changed so far.
    pub(super) branch_changed: &'a [String],
    pub(super) forecast: Vec<ForecastEntry<'a>>,
    /// What it waits for; `null` when it waits for nothing.
    pub(super) waiting: Option<Reason>,
    /// The command to type, when it needs a person.
    pub(super) next: Option<String>,
    pub(super) notes: Vec<NoteEntry<'a>>,
    pub(super) evidence: Vec<EvidenceEntry<'a>>,
    /// What a person said with the last retry.
    pub(super) hint: Option<&'a str>,
    /// Ended attempts, oldest first, then the live ones.
    pub(super) attempts: Vec<AttemptEntry<'a>>,
    /// What all its attempts took.
    pub(super) spent: SpentEntry,
    /// Unknown fields of its source.
    pub(super) extra: Extra<'a>,
}

/// What attempts took together; `null` is unknown.
#[derive(Debug, Serialize)]
pub(super) struct SpentEntry {
    pub(super) tokens: Option<u64>,
    /// As far as it is known.
    pub(super) cost_usd: Option<f64>,
    /// Attempts whose cost is not known.
    pub(super) cost_unknown: u64,
}

impl SpentEntry {
    pub(super) fn new(spent: &Spent) -> Self {
        Self {
            tokens: spent.tokens,
            cost_usd: spent.cost().map(dollars),
            cost_unknown: spent.unpriced,
        }
    }
}

/// JSON texts by name; what is not JSON is written as a string.
#[derive(Debug)]
pub(super) struct Extra<'a>(pub(super) &'a BTreeMap<String, String>);

impl Serialize for Extra<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let raw = |text: &String| {
            let quoted = || serde_json::value::to_raw_value(text).ok();
            RawValue::from_string(text.clone()).ok().or_else(quoted)
        };
        serializer.collect_map(self.0.iter().map(|(name, text)| (name, raw(text))))
    }
}

/// How complex a task is, and why.
#[derive(Debug, Serialize)]
pub(super) struct Assessment {
    pub(super) complexity: &'static str,
    pub(super) reason: String,
}

impl Assessment {
    pub(super) fn of(spec: &Spec) -> Self {
        Self { complexity: complexity::of(spec).word(), reason: complexity::reason(spec) }
    }
}

#[derive(Debug, Serialize)]
pub(super) struct NoteEntry<'a> {
    pub(super) stage: &'a str,
    pub(super) text: &'a str,
}

#[derive(Debug, Serialize)]
pub(super) struct EvidenceEntry<'a> {
    pub(super) from: &'a str,
    pub(super) stage: &'a str,
    pub(super) class: &'static str,
    pub(super) text: &'a str,
}

#[derive(Debug, Serialize)]
pub(super) struct AttemptEntry<'a> {
    pub(super) id: &'a str,
    /// `work` or what is checked.
    pub(super) kind: &'static str,
    pub(super) stage: Option<&'a str>,
    pub(super) agent: &'a str,
    /// Where a live one stands; `null` when it is over.
    pub(super) phase: Option<&'static str>,
    pub(super) assigned_at: Stamp,
    pub(super) started_at: Option<Stamp>,
    pub(super) ended_at: Option<Stamp>,
    /// How it ended.
    pub(super) class: Option<&'static str>,
    pub(super) reason: Option<&'a str>,
    pub(super) exit_code: Option<i32>,
    pub(super) signal: Option<i32>,
    pub(super) cpu_ms: Option<u64>,
    pub(super) rss_kib_max: Option<u64>,
    /// Processes that outlived it and were ended.
    pub(super) leaked: u32,
    /// What it left.
    pub(super) commit: Option<&'a str>,
    /// Hash of the project's own prompt file that it was given; `null`: the built-in one, or none.
    pub(super) prompt: Option<&'a str>,
    /// Hash of the preset file that it was started by; `null`: none, or not started.
    pub(super) preset: Option<&'a str>,
    /// The attempt that was cut short and that it goes on from.
    pub(super) continues: Option<&'a str>,
    /// The session of that one which it takes up again; `null`: it begins one of its own.
    pub(super) resumed_session: Option<&'a str>,
    pub(super) usage: UsageEntry<'a>,
    /// What changed outside of the worktrees while it ran, by whomever; `null`: nothing was found.
    pub(super) outside: Option<OutsideEntry<'a>>,
}

/// What changed outside of the worktrees while an attempt ran.
#[derive(Debug, Serialize)]
pub(super) struct OutsideEntry<'a> {
    /// In words, one difference each.
    found: &'a [String],
    /// Differences that are not named.
    more: u64,
    /// Attempts that ran meanwhile too.
    beside: Vec<&'a str>,
}

impl<'a> OutsideEntry<'a> {
    fn new(outside: &'a Outside) -> Option<Self> {
        let beside = outside.beside.iter().map(|id| id.as_str()).collect();
        let entry = Self { found: &outside.found, more: outside.more, beside };
        (!outside.is_empty()).then_some(entry)
    }
}

/// What an attempt used; `null` is unknown.
#[derive(Debug, Serialize)]
pub(super) struct UsageEntry<'a> {
    pub(super) session: Option<&'a str>,
    /// Those from a cache included.
    pub(super) input_tokens: Option<u64>,
    pub(super) output_tokens: Option<u64>,
    /// Of the input, those from a cache.
    pub(super) cached_tokens: Option<u64>,
    pub(super) cost_usd: Option<f64>,
}

impl<'a> AttemptEntry<'a> {
    pub(super) fn new(attempt: &'a Attempt) -> Self {
        let (outcome, exit) = (attempt.outcome.as_ref(), attempt.exit.as_ref());
        let usage = exit.map(|exit| &exit.usage);
        Self {
            id: attempt.id.as_str(),
            kind: attempt_kind(&attempt.kind),
            stage: attempt.stage().map(|stage| stage.as_str()),
            agent: attempt.agent.as_str(),
            phase: outcome.is_none().then(|| attempt_phase(attempt.phase)),
            assigned_at: Stamp(attempt.assigned_at),
            started_at: attempt.started_at.map(Stamp),
            ended_at: outcome.map(|outcome| Stamp(outcome.at)),
            class: outcome.map(|outcome| outcome.class.word()),
            reason: outcome.map(|outcome| outcome.reason.as_str()).filter(|why| !why.is_empty()),
            exit_code: exit.and_then(|exit| exit.code),
            signal: exit.and_then(|exit| exit.signal),
            cpu_ms: exit.map(|exit| exit.cpu_ms),
            rss_kib_max: exit.map(|exit| exit.rss_kib_max),
            leaked: exit.map_or(0, |exit| exit.leaked),
            commit: attempt.saved.as_ref().map(|commit| commit.as_str()),
            outside: OutsideEntry::new(&attempt.outside),
            usage: UsageEntry {
                session: usage.and_then(|usage| usage.session.as_deref()),
                input_tokens: usage.and_then(|usage| usage.input_tokens),
                output_tokens: usage.and_then(|usage| usage.output_tokens),
                cached_tokens: usage.and_then(|usage| usage.cached_tokens),
                cost_usd: usage.and_then(|usage| usage.cost_usd_micros).map(dollars),
            },
            prompt: attempt.prompt.as_deref(),
            preset: attempt.preset.as_deref(),
            continues: attempt.continues.as_ref().map(|id| id.as_str()),
            resumed_session: attempt.session.as_deref(),
        }
    }
}

/// Returns what the finished stages and failed attempts left for the next one.
pub(super) fn left_behind(task: &Task) -> (Vec<NoteEntry<'_>>, Vec<EvidenceEntry<'_>>) {
    let notes = task.notes.iter().map(|(stage, text)| NoteEntry { stage: stage.as_str(), text });
    let evidence = task.evidence.iter().map(|evidence| EvidenceEntry {
        from: evidence.from.as_str(),
        stage: evidence.stage.as_str(),
        class: evidence.class.word(),
        text: &evidence.text,
    });
    (notes.collect(), evidence.collect())
}
