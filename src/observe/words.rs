//! The words in which JSON and text name what the machine holds as types.

use std::fmt;
use std::path::Path;

use jiff::Timestamp;
use jiff::tz::Offset;
use serde::{Serialize, Serializer};

use crate::machine::agent::BASE_AGENT;
use crate::machine::attempt::{AttemptKind, AttemptPhase};
use crate::machine::id::{AttemptId, Oid, StageName, TaskId};
use crate::machine::lane::MANUAL;
use crate::machine::mode::{Orchestration, Rollout};
use crate::machine::purse::money;
use crate::machine::settings::{Settings, Stage};
use crate::machine::task::{Landed, Priority, Task, TaskKind, TaskPhase};
use crate::machine::time::Time;
use crate::machine::usage::Usage;
use crate::machine::{Refusal, State};

/// Characters of a commit id shown to people.
const SHORT_OID_CHARS: usize = 7;

/// Returns the branch that a judged commit is on: the landing branch where the base is elsewhere.
#[must_use]
pub fn branch_at<'a>(state: &'a State, commit: &Oid) -> &'a str {
    let (base, settings) = (&state.base, &state.settings);
    let is_landed = base.landed.as_ref() == Some(commit) && base.tip.as_ref() != Some(commit);
    if is_landed { &settings.landing.branch } else { &settings.project.base }
}

/// A moment as RFC 3339 in UTC with milliseconds, e.g. `2026-11-20T23:00:00.000Z`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Stamp(pub Time);

impl Stamp {
    /// Writes the 24 bytes; years past 9999 read as the end of 9999.
    fn bytes(self) -> [u8; 24] {
        let ms = i64::try_from(self.0.as_ms()).unwrap_or(i64::MAX);
        let moment = Timestamp::from_millisecond(ms).unwrap_or(Timestamp::MAX);
        let civil = Offset::UTC.to_datetime(moment);
        let mut out = *b"0000-00-00T00:00:00.000Z";
        let mut put = |place: usize, digits: usize, value: i32| {
            let mut rest = value.unsigned_abs();
            for digit in out[place..place + digits].iter_mut().rev() {
                *digit = b'0' + (rest % 10) as u8;
                rest /= 10;
            }
        };
        put(0, 4, i32::from(civil.year()));
        put(5, 2, i32::from(civil.month()));
        put(8, 2, i32::from(civil.day()));
        put(11, 2, i32::from(civil.hour()));
        put(14, 2, i32::from(civil.minute()));
        put(17, 2, i32::from(civil.second()));
        put(20, 3, i32::from(civil.millisecond()));
        out
    }
}

impl fmt::Display for Stamp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(std::str::from_utf8(&self.bytes()).expect("digits and signs are ASCII"))
    }
}

impl Serialize for Stamp {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let bytes = self.bytes();
        serializer.serialize_str(std::str::from_utf8(&bytes).expect("digits and signs are ASCII"))
    }
}

/// Returns a span in words: the two greatest units of `d h min s`, below ten seconds with a tenth.
#[must_use]
pub fn span(ms: u64) -> String {
    let (s, tenth) = (ms / 1000, ms % 1000 / 100);
    let (min, h, d) = (s / 60, s / 3600, s / 86_400);
    match s {
        0..10 if tenth > 0 => format!("{s}.{tenth} s"),
        0..60 => format!("{s} s"),
        60..3600 => format!("{min} min {} s", s % 60),
        3600..86_400 => format!("{h} h {} min", min % 60),
        86_400.. => format!("{d} d {} h", h % 24),
    }
}

/// Returns what an attempt used, for people: `12.3k tokens read, 400 written, $0.01`; `None`: nothing
/// is known.
#[must_use]
pub fn used(usage: &Usage) -> Option<String> {
    let mut parts = Vec::new();
    if let Some(read) = usage.input_tokens {
        parts.push(format!("{} tokens read", amount(read)));
    }
    if let Some(written) = usage.output_tokens {
        let noun = if parts.is_empty() { "tokens " } else { "" };
        parts.push(format!("{} {noun}written", amount(written)));
    }
    if let Some(micros) = usage.cost_usd_micros {
        parts.push(money(micros));
    }
    (!parts.is_empty()).then(|| parts.join(", "))
}

/// Returns the same in fewer words: `12.7k tokens, $0.01`.
#[must_use]
pub fn used_briefly(usage: &Usage) -> Option<String> {
    let tokens = usage.tokens().map(|tokens| format!("{} tokens", amount(tokens)));
    let cost = usage.cost_usd_micros.map(money);
    let parts: Vec<String> = tokens.into_iter().chain(cost).collect();
    (!parts.is_empty()).then(|| parts.join(", "))
}

/// Returns a count, from ten thousand on in thousands or millions with one digit after the point.
#[must_use]
pub fn amount(count: u64) -> String {
    match count {
        0..10_000 => count.to_string(),
        10_000..1_000_000 => format!("{:.1}k", count as f64 / 1e3),
        1_000_000.. => format!("{:.1}M", count as f64 / 1e6),
    }
}

/// Returns the word for an orchestration mode.
#[must_use]
pub const fn orchestration(mode: Orchestration) -> &'static str {
    match mode {
        Orchestration::Sequential => "sequential",
        Orchestration::Parallel => "parallel",
        Orchestration::Hybrid => "hybrid",
    }
}

/// Returns that `pipeline.toml` names another mode than the one at work, if it does: it counts for a
/// new state only.
#[must_use]
pub fn differing_mode(named: Orchestration, at_work: Orchestration) -> Option<String> {
    let (named, now) = (orchestration(named), orchestration(at_work));
    (named != now).then(|| {
        format!(
            "`orchestration_mode` in pipeline.toml is `{named}`, which counts for a new state only: it \
             stays `{now}` until `pipeline mode switch {named}`"
        )
    })
}

/// Says that `pipeline.toml` is refused, why, and what to do about it.
#[must_use]
pub fn refused_settings(path: &Path, refusal: &Refusal) -> String {
    let Refusal { reason, hint, .. } = refusal;
    let next = if hint.is_empty() { String::new() } else { format!("; {hint}") };
    let path = path.display();
    format!("`{path}` is refused, the settings stay as they were: {reason}{next}")
}

/// Returns the word for a rollout.
#[must_use]
pub const fn rollout(rollout: Rollout) -> &'static str {
    match rollout {
        Rollout::Shadow => "shadow",
        Rollout::Pilot => "pilot",
        Rollout::Production => "production",
    }
}

/// Returns the word for a priority.
#[must_use]
pub const fn priority(priority: Priority) -> &'static str {
    match priority {
        Priority::Low => "low",
        Priority::Medium => "medium",
        Priority::High => "high",
        Priority::Critical => "critical",
    }
}

/// Returns the word for a kind of task.
#[must_use]
pub const fn kind(kind: TaskKind) -> &'static str {
    match kind {
        TaskKind::Task => "task",
        TaskKind::Epic => "epic",
    }
}

/// Returns the word for what an attempt is for: `work` or what it checks.
#[must_use]
pub const fn attempt_kind(kind: &AttemptKind) -> &'static str {
    match kind {
        AttemptKind::Work { .. } => "work",
        AttemptKind::StageCheck { .. } => "stage_check",
        AttemptKind::LandingCheck { .. } => "landing_check",
        AttemptKind::BaseCheck { .. } => "base_check",
    }
}

/// Returns the word for where a live attempt stands.
#[must_use]
pub const fn attempt_phase(phase: AttemptPhase) -> &'static str {
    match phase {
        AttemptPhase::Preparing => "preparing",
        AttemptPhase::Starting => "starting",
        AttemptPhase::Running => "running",
        AttemptPhase::Saving => "saving",
        AttemptPhase::Checking => "checking",
        AttemptPhase::Advancing => "advancing",
    }
}

/// The statuses of a project's stages, made once for many tasks.
#[derive(Debug)]
pub struct StatusWords {
    /// (long name, `<short>_ready`, `<short>_wip`).
    stages: Vec<(String, String, String)>,
}

impl StatusWords {
    /// Makes the words of the settings' stages.
    #[must_use]
    pub fn new(settings: &Settings) -> Self {
        let words = |stage: &Stage| {
            let short = &stage.short;
            (stage.name.clone(), format!("{short}_ready"), format!("{short}_wip"))
        };
        Self { stages: settings.stages.iter().map(words).collect() }
    }

    /// Returns the task's status, e.g. `impl_wip`; an epic is `unassigned`, `completed` once there
    /// are tasks below it and none is open, or `cancelled`.
    #[must_use]
    pub fn of<'a>(&'a self, state: &State, task: &Task) -> &'a str {
        if task.spec.kind == TaskKind::Epic {
            return of_epic(state, task);
        }
        match &task.phase {
            TaskPhase::Waiting => "unassigned",
            TaskPhase::Ready { .. } if !state.is_open(task) => "unassigned",
            TaskPhase::Ready { stage } => self.of_stage(stage).map_or("ready", |(_, word, _)| word),
            TaskPhase::Working { stage, .. } => {
                self.of_stage(stage).map_or("wip", |(_, _, word)| word)
            }
            TaskPhase::Landing { .. } => "landing",
            TaskPhase::Blocked(_) => "blocked",
            TaskPhase::Completed { .. } => "completed",
            TaskPhase::Cancelled { .. } => "cancelled",
        }
    }

    /// A stage that the settings no longer have has no words of its own.
    fn of_stage(&self, name: &StageName) -> Option<&(String, String, String)> {
        self.stages.iter().find(|(long, _, _)| long == name.as_str())
    }
}

/// Returns an epic's status.
pub(super) fn of_epic(state: &State, epic: &Task) -> &'static str {
    let links = state.index.links(&epic.id);
    let is_done = links.is_some_and(|links| links.below.is_done());
    match &epic.phase {
        TaskPhase::Cancelled { .. } => "cancelled",
        TaskPhase::Completed { .. } => "completed",
        TaskPhase::Waiting
        | TaskPhase::Ready { .. }
        | TaskPhase::Working { .. }
        | TaskPhase::Landing { .. }
        | TaskPhase::Blocked(_) => {
            if is_done {
                "completed"
            } else {
                "unassigned"
            }
        }
    }
}

/// Returns when the task was completed; `None`: it is not.
#[must_use]
pub fn completed_at(task: &Task) -> Option<Time> {
    match &task.phase {
        TaskPhase::Completed { at, .. } => Some(*at),
        TaskPhase::Waiting
        | TaskPhase::Ready { .. }
        | TaskPhase::Working { .. }
        | TaskPhase::Landing { .. }
        | TaskPhase::Blocked(_)
        | TaskPhase::Cancelled { .. } => None,
    }
}

/// Returns the commit that the task landed as; `None`: it did not, or without git.
#[must_use]
pub fn landed_as(task: &Task) -> Option<&Oid> {
    match &task.phase {
        TaskPhase::Completed { commit, .. } => commit.as_ref(),
        TaskPhase::Waiting
        | TaskPhase::Ready { .. }
        | TaskPhase::Working { .. }
        | TaskPhase::Landing { .. }
        | TaskPhase::Blocked(_)
        | TaskPhase::Cancelled { .. } => None,
    }
}

/// Returns the merge commit by which the task landed; `None`: it did not, or needed none, since the
/// landing branch held all of it already, or others landed it.
#[must_use]
pub fn own_merge(task: &Task) -> Option<&Oid> {
    landed_as(task).filter(|_| task.landed == Landed::Merged)
}

/// Returns true when a person said that the task is done, and named no commit: nothing landed.
#[must_use]
pub fn is_done_without_landing(task: &Task) -> bool {
    task.is_by_hand && completed_at(task).is_some() && landed_as(task).is_none()
}

/// Returns a count of landings with its noun.
#[must_use]
pub fn landings(count: u64) -> String {
    format!("{count} {}", if count == 1 { "landing" } else { "landings" })
}

/// Returns the landings of tasks, given in order of landing, as a range for git whose commits are
/// named by `name`: one commit alone, or the first to the last. `None`: there is none.
///
/// Tasks without a merge of their own are left out.
#[must_use]
pub fn landings_range<'a>(
    tasks: impl Iterator<Item = &'a Task>,
    name: impl Fn(&'a Oid) -> &'a str,
) -> Option<String> {
    let mut own = tasks.filter_map(own_merge);
    let first = own.next()?;
    let last = own.last().unwrap_or(first);
    Some(format!("{}~1..{}", name(first), name(last)))
}

/// Returns the first characters of a commit id.
#[must_use]
pub fn short_oid(oid: &Oid) -> &str {
    oid.as_str().get(..SHORT_OID_CHARS).unwrap_or(oid.as_str())
}

/// What an attempt's id tells of it, also when the attempt itself is long forgotten.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AttemptWords<'a> {
    /// `None` for a check of the base.
    pub task: Option<&'a str>,
    /// Long stage name, as far as the settings still have it; else the word in the id.
    pub what: &'a str,
    /// A check rather than work.
    pub is_check: bool,
}

/// Reads `<task>.<short>.<n>`, `<task>.<short>-check.<n>`, `<task>.land.<n>` and `base.check.<n>`.
#[must_use]
pub fn attempt_words<'a>(settings: &'a Settings, id: &'a AttemptId) -> AttemptWords<'a> {
    let word = id.as_str().rsplit('.').nth(1).unwrap_or("");
    let task = task_of_attempt(id);
    let long = |short: &'a str| {
        settings.stage_by_any_name(short).map_or(short, |stage| stage.name.as_str())
    };
    match (task, word.strip_suffix("-check")) {
        (None, _) => AttemptWords { task, what: "base", is_check: true },
        (Some(_), Some(short)) => AttemptWords { task, what: long(short), is_check: true },
        (Some(_), None) if word == "land" => AttemptWords { task, what: "landing", is_check: true },
        (Some(_), None) => AttemptWords { task, what: long(word), is_check: false },
    }
}

/// Returns the task in an attempt's id; `None` for a check of the base.
#[must_use]
pub fn task_of_attempt(id: &AttemptId) -> Option<&str> {
    let mut parts = id.as_str().rsplitn(3, '.');
    let (_number, word, task) = (parts.next(), parts.next(), parts.next());
    task.filter(|task| (*task, word) != (BASE_AGENT, Some("check")))
}

/// Returns why the last work attempt ended, `None` when it completed or there was none.
#[must_use]
pub fn last_failure(task: &Task) -> Option<&str> {
    let last = task.history.iter().rev().find(|attempt| attempt.is_work())?;
    last.outcome.as_ref().map(|outcome| outcome.reason.as_str()).filter(|why| !why.is_empty())
}

/// Returns up to `names_max` names with commas, then the count of the rest.
#[must_use]
pub fn listed<'a>(ids: impl Iterator<Item = &'a TaskId>, names_max: usize) -> String {
    let mut out = String::new();
    let mut more = 0_usize;
    for (place, id) in ids.enumerate() {
        if place >= names_max {
            more += 1;
            continue;
        }
        if place > 0 {
            out.push_str(", ");
        }
        out.push_str(id.as_str());
    }
    if more > 0 {
        out.push_str(&format!(" and {more} more"));
    }
    out
}

/// Says why a landing waits for a person, by the paths or the setting on record.
#[must_use]
pub fn approval(what: &str) -> String {
    if what == MANUAL {
        format!("may land when you say so ({what})")
    } else {
        format!("touches {what}")
    }
}

#[cfg(test)]
mod tests {
    use super::{Stamp, attempt_words, span, used, used_briefly};
    use crate::machine::id::AttemptId;
    use crate::machine::time::Time;
    use crate::machine::usage::Usage;
    use crate::observe::support;

    #[test]
    fn moments_are_rfc_3339_in_utc() {
        for (ms, text) in [
            (0, "1970-01-01T00:00:00.000Z"),
            (951_827_696_789, "2000-02-29T12:34:56.789Z"),
            (u64::MAX, "9999-12-30T22:00:00.999Z"),
        ] {
            assert_eq!(Stamp(Time::from_ms(ms)).to_string(), text);
        }
    }

    #[test]
    fn a_small_cost_is_not_told_as_nothing() {
        for (micros, told) in [(4_000, "$0.0040"), (7, "$0.000007"), (1_230_000, "$1.23")] {
            let usage = Usage {
                input_tokens: Some(12_300),
                output_tokens: Some(400),
                cost_usd_micros: Some(micros),
                ..Usage::default()
            };
            let text = format!("12.3k tokens read, 400 written, {told}");
            assert_eq!(used(&usage), Some(text));
            assert_eq!(used_briefly(&usage), Some(format!("12.7k tokens, {told}")));
        }
    }

    #[test]
    fn spans_show_two_units() {
        let cases = [
            (0, "0 s"),
            (1_500, "1.5 s"),
            (59_999, "59 s"),
            (61_000, "1 min 1 s"),
            (7_260_000, "2 h 1 min"),
            (90_000_000, "1 d 1 h"),
        ];
        for (ms, text) in cases {
            assert_eq!(span(ms), text);
        }
    }

    #[test]
    fn an_attempt_id_tells_task_stage_and_kind_even_with_dots_in_the_task() {
        let settings = support::settings();
        let read = |id: &str| {
            let id = AttemptId::new(id);
            let words = attempt_words(&settings, &id);
            (words.task.map(str::to_owned), words.what.to_owned(), words.is_check)
        };
        let task = |id: &str| Some(id.to_owned());
        assert_eq!(read("a.b.impl.12"), (task("a.b"), "implementation".into(), false));
        assert_eq!(read("T.impl-check.1"), (task("T"), "implementation".into(), true));
        assert_eq!(read("T.land.3"), (task("T"), "landing".into(), true));
        assert_eq!(read("base.check.3"), (None, "base".into(), true));
        assert_eq!(read("T.gone.1"), (task("T"), "gone".into(), false));
    }
}
