//! How the rollout does: what is counted since it was set, the gates before the next one, and the
//! fallback from production to the pilot.
//!
//! Nothing here is promoted by itself: a person promotes, and what has fallen back stays there.

use std::collections::BTreeSet;

use super::attempt::{Class, Tries};
use super::change::{Change, LaneChange, ProjectChange, Steer, TaskChange};
use super::command::ended;
use super::id::{Oid, StageName, TaskId};
use super::index;
use super::lane::{Dropping, Landing, LandingPhase};
use super::mode::{Isolation, Rollout};
use super::schedule;
use super::settings::FallbackRules;
use super::stage;
use super::state::State;
use super::step::{self, Step};
use super::task::{Tally, Task, TaskKind, TaskPhase};
use super::time::Time;

/// What was counted since the rollout was set.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Trial {
    pub since: Time,
    /// Why it was set, in words; empty: it is as the settings had it for a new project.
    pub why: String,
    /// Tasks that the pipeline landed, or without git completed.
    pub completed: u64,
    /// Times that a task came to need a person, but for those that wait for another task.
    pub failed: u64,
    /// In shadow: tasks done by others as the pipeline would have.
    pub agreed: u64,
    /// In shadow: tasks done by others that the pipeline would have left alone.
    pub differed: u64,
    /// The last landings, oldest first, at most as many as the fallback looks at; true: its checks
    /// failed on the merged result.
    pub landings: Vec<bool>,
    /// When production last fell back to the pilot.
    pub fell_back_at: Option<Time>,
}

impl Trial {
    /// Returns what is counted from a new rollout on.
    #[must_use]
    pub fn renewed(&self) -> Self {
        Self { fell_back_at: self.fell_back_at, ..Self::default() }
    }

    /// Returns how many of the last landings failed.
    #[must_use]
    pub fn failed_landings(&self) -> usize {
        self.landings.iter().filter(|has_failed| **has_failed).count()
    }

    fn note_landing(&mut self, has_failed: bool, rules: &FallbackRules) {
        self.landings.push(has_failed);
        self.fit(rules);
    }

    /// Forgets what is beyond the window.
    pub(super) fn fit(&mut self, rules: &FallbackRules) {
        let surplus = self.landings.len().saturating_sub(rules.window as usize);
        self.landings.drain(..surplus);
    }
}

/// Which gate stands before the next rollout.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum GateName {
    /// Tasks done since the rollout was set: by the pipeline, in shadow by others.
    Completed,
    /// Tasks landed, of those and the times that a task came to need a person.
    SuccessRate,
    /// Landed work that was taken back; none, as long as nothing lands unchecked.
    Reverts,
    /// Tasks that others did as the pipeline would have, of all that they did.
    Agreement,
    /// The time since a fallback.
    Cooldown,
}

/// How a gate stands.
#[derive(Debug, Clone, PartialEq)]
pub struct Gate {
    pub name: GateName,
    /// `None`: there is nothing to judge by yet, or the rollout does not ask for it.
    pub figure: Option<f64>,
    pub threshold: f64,
    /// The rollout asks for it.
    pub is_asked: bool,
    pub holds: bool,
    /// How the figure came about, in words; may be empty.
    pub what: String,
}

impl GateName {
    /// Returns the word in `[rollout] gate`, or of `[rollout] fallback`.
    #[must_use]
    pub const fn word(self) -> &'static str {
        match self {
            Self::Completed => "completed",
            Self::SuccessRate => "success_rate",
            Self::Reverts => "reverts",
            Self::Agreement => "agreement",
            Self::Cooldown => "cooldown",
        }
    }

    /// Returns whether the figure is to be at most the threshold; else at least.
    #[must_use]
    pub const fn is_upper(self) -> bool {
        matches!(self, Self::Reverts)
    }
}

impl Gate {
    /// Returns figure and threshold on one line.
    #[must_use]
    pub fn words(&self) -> String {
        let name = self.name.word();
        let bound = if self.name.is_upper() { "at most" } else { "at least" };
        match self.figure {
            Some(figure) => {
                format!("{name} is {}, {bound} {} is needed", short(figure), short(self.threshold))
            }
            None => format!("{name} is not known, {bound} {} is needed", short(self.threshold)),
        }
    }
}

/// Returns a figure with at most two decimals, rounded down: what is short of a threshold looks so.
#[must_use]
pub fn short(figure: f64) -> String {
    let cut = (figure * 100.0 + 1e-9).floor() / 100.0;
    format!("{cut}")
}

/// Returns the rollout behind this one; `None`: there is none.
#[must_use]
pub const fn next(rollout: Rollout) -> Option<Rollout> {
    match rollout {
        Rollout::Shadow => Some(Rollout::Pilot),
        Rollout::Pilot => Some(Rollout::Production),
        Rollout::Production => None,
    }
}

/// Returns the rollout before this one; `None`: there is none.
#[must_use]
pub const fn previous(rollout: Rollout) -> Option<Rollout> {
    match rollout {
        Rollout::Shadow => None,
        Rollout::Pilot => Some(Rollout::Shadow),
        Rollout::Production => Some(Rollout::Pilot),
    }
}

fn share(part: u64, whole: u64) -> Option<f64> {
    (whole > 0).then(|| part as f64 / whole as f64)
}

/// Returns the gates in a fixed order; the cooldown is among them after a fallback only. Where there
/// is nothing to take a share of, the share holds, and the number of tasks does not.
#[must_use]
pub fn gates(state: &State, at: Time) -> Vec<Gate> {
    let (trial, rules) = (&state.trial, &state.settings.rollout.gate);
    let is_shadow = state.rollout == Rollout::Shadow;
    let compared = trial.agreed + trial.differed;
    let done = if is_shadow { compared } else { trial.completed };
    let by = if is_shadow { "by others" } else { "by the pipeline" };
    let completed = Gate {
        name: GateName::Completed,
        figure: Some(done as f64),
        threshold: f64::from(rules.completed),
        is_asked: true,
        holds: done >= u64::from(rules.completed),
        what: by.to_owned(),
    };
    let at_least = |name, figure: Option<f64>, threshold: f64, is_asked: bool, what: String| Gate {
        name,
        figure: figure.filter(|_| is_asked),
        threshold,
        is_asked,
        holds: !is_asked || figure.is_none_or(|figure| figure >= threshold),
        what: if is_asked { what } else { String::new() },
    };
    let ended = trial.completed + trial.failed;
    let said = format!("{} landed, {} needed a person", trial.completed, trial.failed);
    let success = share(trial.completed, ended);
    let success = at_least(GateName::SuccessRate, success, rules.success_rate, !is_shadow, said);
    let reverts = Gate {
        name: GateName::Reverts,
        figure: (!is_shadow).then_some(0.0),
        threshold: f64::from(rules.reverts),
        is_asked: !is_shadow,
        holds: true,
        what: String::new(),
    };
    let said = if compared == 0 {
        "nothing was compared yet".to_owned()
    } else {
        format!("{} of {compared}", trial.agreed)
    };
    let agreement = share(trial.agreed, compared);
    let agreement = at_least(GateName::Agreement, agreement, rules.agreement, is_shadow, said);
    let mut gates = vec![completed, success, reverts, agreement];
    gates.extend(trial.fell_back_at.map(|fell_back_at| cooldown(state, fell_back_at, at)));
    gates
}

/// The time since the fallback, in seconds.
fn cooldown(state: &State, fell_back_at: Time, at: Time) -> Gate {
    let (passed_ms, cooldown_ms) =
        (at.ms_since(fell_back_at), state.settings.rollout.fallback.cooldown_ms);
    Gate {
        name: GateName::Cooldown,
        figure: Some((passed_ms / 1000) as f64),
        threshold: cooldown_ms as f64 / 1000.0,
        is_asked: state.rollout == Rollout::Pilot,
        holds: state.rollout != Rollout::Pilot || passed_ms >= cooldown_ms,
        what: "seconds since production fell back".to_owned(),
    }
}

/// Returns the changes that set a rollout, and the reason; another than the present one.
pub(super) fn set(state: &State, to: Rollout, why: String, at: Time) -> Vec<Change> {
    changes(state, to, why, false, at)
}

fn changes(state: &State, to: Rollout, why: String, is_fallback: bool, at: Time) -> Vec<Change> {
    let is_given_up = |landing: &Landing| match to {
        // Back into the lane, which is closed in shadow, and to what is beyond the slice.
        Rollout::Shadow => true,
        Rollout::Pilot => {
            !matches!(landing.phase, LandingPhase::Moving { .. })
                && !state.index.is_in_slice(&landing.task)
        }
        Rollout::Production => false,
    };
    let mut changes = vec![
        step::project(ProjectChange::RolloutSet { to }),
        step::project(ProjectChange::RolloutReasoned { why, is_fallback, at }),
    ];
    if state.landing.as_ref().is_some_and(is_given_up) {
        changes.push(step::lane(LaneChange::LandingSet { landing: None }));
    }
    if state.base.follow.is_some() && to != Rollout::Production {
        let behind = state.base.behind;
        changes.push(step::lane(LaneChange::FollowSet { follow: None, why: None, behind }));
    }
    changes
}

/// Returns the share of failed landings over the fallback's window, counted as if all that are still
/// missing in it were good: few landings are no reason.
fn failure_rate(state: &State) -> f64 {
    let window = state.settings.rollout.fallback.window;
    state.trial.failed_landings() as f64 / f64::from(window.max(1))
}

/// Returns when production falls back to the pilot: at once, or when the cooldown of the last
/// fallback is over; `None`: as things are it does not.
pub(super) fn fallback_due(state: &State) -> Option<Time> {
    let rules = &state.settings.rollout.fallback;
    let is_bad = state.rollout == Rollout::Production && failure_rate(state) > rules.failure_rate;
    let last = state.trial.fell_back_at;
    is_bad.then(|| last.map_or(Time::default(), |last| last.plus_ms(rules.cooldown_ms)))
}

/// Returns when to look at the fallback again, if that lies ahead.
pub(super) fn deadline(state: &State) -> Option<Time> {
    fallback_due(state).filter(|due| *due > Time::default())
}

/// Lets production fall back to the pilot when too many landings failed.
pub(super) fn fall_back(state: &State, at: Time) -> Vec<Change> {
    if fallback_due(state).is_none_or(|due| at < due) {
        return Vec::new();
    }
    let (failed, rules) = (state.trial.failed_landings(), &state.settings.rollout.fallback);
    let why = format!(
        "fell back from production: the checks of {failed} of the last {} landings failed, more \
         than {} of {}",
        state.trial.landings.len(),
        rules.failure_rate,
        rules.window,
    );
    changes(state, Rollout::Pilot, why, true, at)
}

/// Sets the rollout; what is counted begins anew.
pub(super) fn apply(state: &mut State, to: Rollout) {
    state.rollout = to;
    state.trial = state.trial.renewed();
    if to == Rollout::Shadow {
        // What was said in an earlier one is said again: it is another look.
        state.tasks.values_mut().for_each(|task| task.is_announced = false);
    }
    index::rebuild(state);
}

/// Returns true when it is an attempt of the pipeline that completes the task now: without git nothing
/// lands, and the last stage does it, also where the rollout was set back meanwhile.
fn is_own(state: &State, task: &Task) -> bool {
    state.settings.project.isolation == Isolation::None
        && matches!(task.phase, TaskPhase::Working { .. })
        && !task.is_by_hand
}

/// Compares what others did with what the pipeline would have: in shadow, for each task that these
/// changes complete.
pub(super) fn compare(state: &State, decided: &[Change]) -> Vec<Change> {
    if state.rollout != Rollout::Shadow {
        return Vec::new();
    }
    let mut done: BTreeSet<&TaskId> = BTreeSet::new();
    let mut compared = Vec::new();
    for change in decided {
        let Change::Task(id, TaskChange::Moved { to: TaskPhase::Completed { .. }, .. }) = change
        else {
            continue;
        };
        let is_by_hand = |change: &Change| matches!(change, Change::Task(of, TaskChange::DoneByHand { .. }) if of == id);
        let is_others = |task: &&Task| !is_own(state, task) || decided.iter().any(is_by_hand);
        if let Some(task) = state.tasks.get(id).filter(is_others) {
            let (id, difference) = (id.clone(), difference(state, task, &done));
            compared.push(step::project(ProjectChange::Compared { id, difference }));
        }
        done.insert(id);
    }
    compared
}

/// Returns why the pipeline would not have done a task by now, `done` being met; `None`: it would.
fn difference(state: &State, task: &Task, done: &BTreeSet<&TaskId>) -> Option<String> {
    if task.is_held {
        return Some("it is held".to_owned());
    }
    let is_met = |id: &TaskId| done.contains(id) || state.tasks.get(id).is_some_and(Task::is_met);
    let unmet: Vec<&str> =
        task.spec.depends_on.iter().filter(|id| !is_met(id)).map(TaskId::as_str).collect();
    if !unmet.is_empty() {
        return Some(format!("it depends on {}", unmet.join(", ")));
    }
    if let TaskPhase::Blocked(block) = &task.phase
        && block.class != Class::Dependency
    {
        return Some("it needs a person".to_owned());
    }
    let able = |stage: &StageName| {
        let mut agents = state.agents.values();
        agents.any(|agent| schedule::can_serve(state, agent, stage, &task.spec.needs))
    };
    match stage::first(&state.settings, task) {
        None => Some("it passes through no stage".to_owned()),
        Some(stage) if !able(&stage) => Some("no agent can take it".to_owned()),
        Some(_) => None,
    }
}

/// Counts what a change says of the rollout; called before it is applied.
pub(super) fn count(state: &mut State, change: &Change) {
    let (trial, rules) = (&mut state.trial, &state.settings.rollout.fallback);
    match change {
        Change::Task(_, TaskChange::Evidenced { evidence })
            if evidence.class == Class::LandingChecksFailed =>
        {
            trial.note_landing(true, rules);
        }
        Change::Task(_, TaskChange::Moved { to: TaskPhase::Blocked(block), .. })
            if block.class != Class::Dependency =>
        {
            trial.failed += 1;
        }
        Change::Task(
            id,
            TaskChange::Moved { to: TaskPhase::Completed { commit: None, .. }, .. },
        ) => {
            let is_counted = state.tasks.get(id).is_some_and(|task| is_own(state, task));
            state.trial.completed += u64::from(is_counted);
        }
        Change::Lane(LaneChange::Landed { .. }) => {
            trial.completed += 1;
            trial.note_landing(false, rules);
        }
        Change::Project(ProjectChange::RolloutReasoned { why, is_fallback, at }) => {
            trial.since = *at;
            trial.why.clone_from(why);
            if *is_fallback {
                trial.fell_back_at = Some(*at);
            }
        }
        Change::Project(ProjectChange::Compared { difference, .. }) => {
            trial.agreed += u64::from(difference.is_none());
            trial.differed += u64::from(difference.is_some());
        }
        Change::Project(_) | Change::Task(..) | Change::Attempt(..) | Change::Lane(_) => {}
    }
}

/// The pilot is dropped: what it landed is done anew, and so is what began on it.
pub(super) fn dropped(state: &State, at: Time, to: &Oid, lost: &[TaskId]) -> Step {
    if state.base.dropping.as_ref().is_none_or(|dropping| dropping.to != *to) {
        return Step::note("the pilot is dropped already");
    }
    let mut changes = vec![step::lane(LaneChange::PilotDropped { to: to.clone() })];
    for (id, task) in &state.tasks {
        let has_begun = !task.is_final() && task.has_begun();
        let is_lost = lost.contains(id) && matches!(task.phase, TaskPhase::Completed { .. });
        if !has_begun && !is_lost {
            if matches!(task.phase, TaskPhase::Cancelled { .. }) && task.tip.is_some() {
                // Reopened it would go on from what is dropped.
                let steer = Box::new(Steer { is_fresh: true, ..Steer::default() });
                changes.push(step::task(id, TaskChange::Steered { steer }));
            }
            continue;
        }
        let forgiven_micros = task.spent.cost_usd_micros;
        let tally = Tally { forgiven_micros, ..Tally::default() };
        let steer = Steer { is_fresh: true, hint: task.hint.clone(), ..Steer::default() };
        changes.push(step::task(id, TaskChange::Tallied { tally }));
        changes.push(step::task(id, TaskChange::Steered { steer: Box::new(steer) }));
        if task.phase != TaskPhase::Waiting {
            changes.push(step::task(id, TaskChange::Moved { to: TaskPhase::Waiting, at }));
        }
    }
    Step::accept(changes)
}

/// The landing branch could not be reset: that is tried again.
pub(super) fn not_dropped(dropping: &Dropping, tries: Tries) -> Change {
    let dropping = Some(Dropping { tries, ..dropping.clone() });
    step::lane(LaneChange::DropSet { dropping })
}

/// In shadow others landed tasks on the base: these are done, and what still works on them is ended.
/// One that was finished before stays.
pub(super) fn hand_landed(
    state: &State,
    at: Time,
    (from, tip): (&Oid, &Oid),
    tasks: &[(TaskId, Oid)],
) -> Step {
    if state.rollout != Rollout::Shadow || state.base.tip.as_ref() != Some(from) {
        return Step::note("the base was looked at before that");
    }
    let is_open = |id: &TaskId| {
        state.tasks.get(id).is_some_and(|task| task.spec.kind == TaskKind::Task && !task.is_final())
    };
    let mut seen = BTreeSet::new();
    let mut changes = Vec::new();
    for (id, commit) in tasks.iter().filter(|(id, _)| is_open(id)) {
        if seen.insert(id) {
            changes.extend(ended(state, id));
            let to = TaskPhase::Completed { commit: Some(commit.clone()), at };
            changes.push(step::task(id, TaskChange::Moved { to, at }));
        }
    }
    let (tip, landed) = (tip.clone(), state.base.landed.clone());
    changes.push(step::lane(LaneChange::BaseSeen { tip, landed, at }));
    Step::accept(changes)
}
