//! The judge: folds the journal by itself, in its order, and looks at every change at the moment at
//! which it counts.

use std::collections::{BTreeMap, BTreeSet};

use pipeline::machine::attempt::{Attempt, AttemptKind, Class};
use pipeline::machine::change::{AttemptChange, Change, LaneChange, ProjectChange, TaskChange};
use pipeline::machine::crew::Target;
use pipeline::machine::id::{AttemptId, StageName, TaskId};
use pipeline::machine::lane::LandingPhase;
use pipeline::machine::mode::{Isolation, Orchestration, Rollout};
use pipeline::machine::provider::Pause;
use pipeline::machine::purse::Level;
use pipeline::machine::task::TaskPhase;
use pipeline::machine::time::Time;
use pipeline::machine::{State, apply};
use pipeline::store::ledger::decode;

use super::able::{are_as_many_as_may_be, may_take};
use super::disk::Disk;
use super::provider;
use super::purse::Purse;
use super::repo::commit_of;
use super::resume;
use super::together;
use super::world::{World, judges};

static NONE: BTreeSet<AttemptId> = BTreeSet::new();

/// What the journal says so far, and what it must not say next.
pub struct Judge {
    pub state: State,
    pub seq: u64,
    /// The state is recounted after every record, and each monitor's compared whole after every step.
    pub is_close: bool,
    seen: BTreeSet<AttemptId>,
    /// Stages that completed and were neither sent back nor retried since.
    done: BTreeMap<TaskId, BTreeSet<StageName>>,
    work: u64,
    pub purse: Purse,
    /// Attempts that were at work when a provider's pause began, by its name.
    beside: BTreeMap<String, BTreeSet<AttemptId>>,
    /// A retry's tally was seen last: for which task.
    retried: Option<TaskId>,
    pub classes: BTreeSet<&'static str>,
    /// Work attempts that completed.
    pub completed: u64,
    /// Tasks that landed.
    pub landed: u64,
}

impl Judge {
    /// Begins with an empty project.
    pub fn new(state: State) -> Self {
        Self {
            state,
            seq: 0,
            is_close: false,
            seen: BTreeSet::new(),
            done: BTreeMap::new(),
            work: 0,
            purse: Purse::default(),
            beside: BTreeMap::new(),
            retried: None,
            classes: BTreeSet::new(),
            completed: 0,
            landed: 0,
        }
    }

    /// Takes in what is on the journal up to `seq`; `own`: what the last record says, where known.
    pub fn sync(&mut self, seq: u64, own: Option<&[Change]>, disk: &Disk, world: &World) {
        while self.seq < seq {
            let next = self.seq + 1;
            match (disk.limbo(next), own.filter(|_| next == seq)) {
                (Some(record), _) => {
                    let changes = decode(&record).expect("what we wrote is understood");
                    self.fold(&changes, world);
                }
                (None, Some(changes)) => self.fold(changes, world),
                (None, None) => panic!("I3: nobody wrote record {next}"),
            }
            self.seq = next;
        }
    }

    /// A process read the journal anew, after a power cut: all that was acknowledged is there, and
    /// nothing else.
    pub fn opened(&mut self, seq: u64, state: &State, disk: &Disk, world: &World) {
        self.peeked(seq, state, disk);
        self.sync(seq, None, disk, world);
    }

    /// As `opened`, without the lock. What a torn write left beyond the last acknowledged record may
    /// be read then and is not synced, so that a power cut may take it again: it counts only from
    /// the reader's first transaction on, before which nothing is acted upon (`Ledger::transact`
    /// syncs what it finds; `Cycle::run` begins effects behind it).
    pub fn peeked(&self, seq: u64, state: &State, disk: &Disk) {
        assert!(seq >= self.seq, "I2: record {} was acknowledged, {seq} is the last", self.seq);
        let mut expected = self.state.clone();
        for next in self.seq + 1..=seq {
            let record = disk.limbo(next);
            let record = record.unwrap_or_else(|| panic!("I3: nobody wrote record {next}"));
            for change in &decode(&record).expect("what we wrote is understood") {
                apply(&mut expected, change);
            }
        }
        assert!(expected == *state, "I1: the journal gives another state");
    }

    fn fold(&mut self, changes: &[Change], world: &World) {
        for change in changes {
            self.purse.before(&self.state, change);
            self.before(change, world);
            apply(&mut self.state, change);
        }
        assert_eq!(self.state.metrics.attempts, self.work, "I24: attempts are counted");
        self.purse.agrees(&self.state);
        are_as_many_as_may_be(&self.state);
        if self.is_close {
            self.state.check();
        }
    }

    fn before(&mut self, change: &Change, world: &World) {
        match change {
            Change::Task(id, change) => self.before_task(id, change),
            Change::Attempt(id, AttemptChange::Added { attempt }) => {
                assert!(self.seen.insert(id.clone()), "I13: attempt `{id}` was added before");
                if attempt.is_work() {
                    self.work += 1;
                    self.before_work(attempt);
                }
            }
            Change::Attempt(id, AttemptChange::Ended { outcome, .. }) => {
                self.classes.insert(outcome.class.word());
                self.before_end(id, outcome.class, &outcome.reason, world);
            }
            Change::Attempt(id, AttemptChange::Prepared { base, tip }) => {
                resume::begins(&self.state, id, base, tip, &world.repo);
            }
            Change::Attempt(id, AttemptChange::Ordered { session: Some(session), .. }) => {
                resume::takes_up(&self.state, id, session);
            }
            Change::Attempt(id, AttemptChange::Exited { exit: Some(exit), .. }) => {
                resume::used(id, exit);
            }
            Change::Lane(change) => {
                self.landed += u64::from(matches!(change, LaneChange::Landed { .. }));
                self.before_lane(change, world);
            }
            Change::Project(ProjectChange::AgentsScaled { group, target, .. }) => {
                self.before_scaling(group, *target);
            }
            Change::Project(ProjectChange::ProviderSet { name, pause: Some(pause) }) => {
                let old = self.state.pauses.get(name);
                if old.is_none_or(|old| (old.limits, old.since) != (pause.limits, pause.since)) {
                    let live = self.state.attempts.keys().cloned().collect();
                    self.beside.insert(name.clone(), live);
                }
            }
            Change::Project(ProjectChange::BudgetTold { task, level, .. }) => {
                self.classes.insert(match (task, level) {
                    (Some(_), _) => "a task comes near its bound",
                    (None, Level::Near) => "a run comes near a bound",
                    (None, Level::Reached) => "a run uses up a bound",
                });
            }
            Change::Project(ProjectChange::SettingsAdopted { settings, .. }) => {
                if settings.limits != self.state.settings.limits {
                    self.classes.insert("limits change in a run");
                }
            }
            Change::Project(ProjectChange::ModeSwitched { .. }) => {
                if !self.state.attempts.is_empty() {
                    self.classes.insert("the mode changes while attempts run");
                }
            }
            Change::Project(ProjectChange::RolloutSet { .. }) => {
                let base = &self.state.base;
                if self.state.landing.is_some() || base.follow.is_some() {
                    self.classes.insert("the rollout changes while something lands or follows");
                }
            }
            Change::Project(ProjectChange::RolloutReasoned { is_fallback: true, at, .. }) => {
                self.classes.insert("production falls back");
                self.before_fallback(*at);
            }
            Change::Project(_) | Change::Attempt(..) => {}
        }
    }

    /// It is told right after the rollout was set, which forgets what was counted, but for the last
    /// fallback: none follows another within the cooldown.
    fn before_fallback(&self, at: Time) {
        let state = &self.state;
        assert_eq!(state.rollout, Rollout::Pilot, "I27: falls back to the pilot");
        let cooldown_ms = state.settings.rollout.fallback.cooldown_ms;
        if let Some(last) = state.trial.fell_back_at {
            assert!(
                at >= last.plus_ms(cooldown_ms),
                "I27: falls back again within {cooldown_ms} ms"
            );
        }
    }

    fn before_scaling(&mut self, name: &str, target: Target) {
        let state = &self.state;
        let group = state.settings.group(name).expect("it is there");
        let old = state.target(group);
        let comes = (old.count + 1..=target.count).map(|number| group.member(number));
        let is_back = comes.into_iter().any(|name| state.dismissed.contains_key(&name));
        self.classes.insert(
            match (old.is_by_hand || target.is_by_hand, target.count > old.count) {
                (false, true) => "a group grows by its queues",
                (false, false) => "a group shrinks by its queues",
                (true, _) => "a person says how many agents there are",
            },
        );
        if is_back {
            self.classes.insert("an agent comes back");
        }
    }

    fn before_task(&mut self, id: &TaskId, change: &TaskChange) {
        match change {
            TaskChange::Tallied { tally } if tally.is_new() => {
                self.retried = Some(id.clone());
            }
            TaskChange::Steered { .. } if self.retried.as_ref() == Some(id) => {
                self.done.remove(id);
                self.retried = None;
            }
            TaskChange::Evidenced { evidence } => {
                self.classes.insert(evidence.class.word());
                let back = [Class::ChangesRequested, Class::Conflict, Class::LandingChecksFailed];
                if back.contains(&evidence.class) {
                    self.done.remove(id);
                }
            }
            TaskChange::ApprovalAsked { .. } if self.state.settings.landing.is_manual => {
                self.classes.insert("every landing waits for a person");
            }
            TaskChange::Moved { to: TaskPhase::Ready { stage }, .. } => {
                if let TaskPhase::Working { stage: from, .. } = &self.state.tasks[id].phase
                    && let Some((_, from)) = self.state.settings.stage(from.as_str())
                    && from.returns_to.as_deref() == Some(stage.as_str())
                {
                    self.classes.insert("work goes back where its stage says");
                }
            }
            TaskChange::Moved { to: TaskPhase::Blocked(block), .. } => {
                self.classes.insert(block.class.word());
                assert!(!block.reason.is_empty() || block.class != Class::Dependency);
            }
            _ => {}
        }
    }

    fn before_work(&mut self, new: &Attempt) {
        let state = &self.state;
        let (Some(id), Some(stage)) = (&new.task, new.stage()) else { panic!("{new:?}") };
        let task = &state.tasks[id];
        assert_ne!(state.rollout, Rollout::Shadow, "I27: `{id}` starts in shadow");
        if state.rollout == Rollout::Pilot {
            assert!(state.index.is_in_slice(id), "I27: `{id}` is not in the slice");
        }
        assert!(state.stopping.is_none() && !state.is_paused && state.drain.is_none());
        assert_eq!(state.overload, None, "`{id}` starts though the load is too high");
        assert!(!task.is_held, "`{id}` starts though it is held");
        for dep in &task.spec.depends_on {
            let is_met = state.tasks.get(dep).is_some_and(|dep| dep.is_met());
            assert!(is_met, "I11: `{id}` starts before `{dep}` is complete");
        }
        for other in state.attempts.values().filter(|other| other.is_work()) {
            assert_ne!(other.task.as_ref(), Some(id), "I9: two attempts of `{id}` live");
            assert_ne!(other.agent, new.agent, "I15: two attempts of `{}` live", new.agent);
            assert_ne!(state.orchestration, Orchestration::Sequential, "I15: two in sequential");
        }
        together::may_run(state, new, id, stage);
        let limits = &state.settings.limits;
        let tally = &task.tally;
        assert!(tally.attempts < limits.attempts_per_task, "I13: `{id}` {tally:?}");
        assert!(tally.stage_failures < limits.attempts_per_stage, "I13: `{id}` {tally:?}");
        assert!(tally.infrastructure <= limits.infrastructure_retries, "I13: `{id}` {tally:?}");
        assert!(tally.send_backs <= limits.send_backs, "I13: `{id}` {tally:?}");
        let is_done = self.done.get(id).is_some_and(|done| done.contains(stage));
        assert!(!is_done, "`{id}` runs {stage} again after it completed");
        let agent = &state.agents[&new.agent];
        assert_eq!(agent.unusable, None, "`{id}` is given to `{}`", new.agent);
        assert!(agent.is_free() && may_take(state, agent, task, stage), "I15: {agent:?} {tally:?}");
        let provider = state.provider_of(&state.settings.agents[agent.group]);
        let is_shut = |pause: &Pause| pause.is_refused || pause.until.is_some();
        let pause = state.pauses.get(provider);
        let shut = pause.filter(|pause| is_shut(pause));
        assert!(shut.is_none(), "I15: `{id}` starts though {provider} gives nothing: {shut:?}");
        if let Some(pause) = pause.filter(|pause| pause.is_guessed) {
            let beside = self.beside.get(provider).unwrap_or(&NONE);
            let first = provider::before(state, provider, pause, beside);
            assert_eq!(first, None, "I15: `{id}` starts before `{provider}` has been tried");
            self.classes.insert("one attempt tries a provider first");
        }
    }

    fn before_end(&mut self, id: &AttemptId, class: Class, reason: &str, world: &World) {
        let Some(attempt) = self.state.attempts.get(id) else { panic!("`{id}` ends, unknown") };
        if !attempt.is_work() {
            return;
        }
        let agent = self.state.agents.get(&attempt.agent);
        assert_eq!(agent.and_then(|agent| agent.attempt.as_ref()), Some(id), "its agent is gone");
        if agent.is_some_and(|agent| agent.is_retired) {
            self.classes.insert("an agent leaves after its task");
        }
        let place = (attempt.agent.clone(), attempt.slot);
        let slot = world.slots.get(&place);
        let is_unsaved = slot.is_some_and(|slot| slot.unsaved.as_ref() == Some(id));
        let is_told = class == Class::Infrastructure && reason.contains("worktree slot");
        assert!(
            !is_unsaved || is_told,
            "I7: `{id}` ends as {} and its work is saved nowhere",
            class.word()
        );
        if class != Class::Completed {
            return;
        }
        self.completed += 1;
        let truth = world.truth.get(id).copied().unwrap_or_default();
        assert!(truth.is_proven, "I17: `{id}` is completed without proof");
        let rules = self.state.rules_of(attempt);
        let stage = attempt.stage().and_then(|stage| rules.stage(stage.as_str()));
        let must_change = stage.is_some_and(|(_, stage)| stage.must_change);
        let has_git = self.state.settings.project.isolation == Isolation::Worktree;
        let is_merging = attempt.merge.is_some();
        // What it went on from is part of it.
        let is_resumed = attempt.continues.is_some();
        let is_enough = truth.has_changed || !must_change || !has_git || is_merging || is_resumed;
        assert!(is_enough, "I17: `{id}` is completed without a change");
        if let (Some(task), Some(stage)) = (&attempt.task, attempt.stage()) {
            self.done.entry(task.clone()).or_default().insert(stage.clone());
        }
    }

    fn before_lane(&self, change: &LaneChange, world: &World) {
        let state = &self.state;
        let checks = &state.settings.landing.checks;
        let key = judges(&state.settings);
        match change {
            LaneChange::LandingSet { landing: Some(next) } if state.landing.is_none() => {
                let mut deps = state.tasks[&next.task].spec.depends_on.iter();
                let is_met = |dep| state.tasks.get(dep).is_some_and(|dep| dep.is_met());
                assert!(deps.all(is_met), "I11: `{}` lands before what it needs", next.task);
            }
            LaneChange::LandingSet { landing: Some(next) } => {
                let LandingPhase::Moving { commit, .. } = &next.phase else { return };
                let is_checked = match state.landing.as_ref().map(|landing| &landing.phase) {
                    Some(LandingPhase::Checking { commit: checked, .. }) => {
                        let commit = commit_of(checked);
                        checked.as_str() == next_commit(next)
                            && world.passed.iter().any(|(passed, _)| *passed == commit)
                    }
                    Some(LandingPhase::Merging) | None => checks.is_empty(),
                    Some(LandingPhase::Moving { .. }) => true,
                };
                assert!(is_checked, "I6: {commit} is to land without its checks passed");
            }
            LaneChange::BaseFoundGreen { commit } => {
                let is_so = world.passed.contains(&(commit_of(commit), key));
                assert!(is_so, "I6: {commit} is taken for green");
            }
            LaneChange::PilotDropped { .. } => {
                let mut tasks = state.tasks.values();
                let taken = tasks.find(|task| task.taken.is_some());
                assert!(taken.is_none(), "I5: {taken:?} stands on what is dropped");
            }
            LaneChange::Landed { id, commit, is_verified } => {
                let is_so = !is_verified || world.passed.contains(&(commit_of(commit), key));
                assert!(is_so, "I6: {commit} landed and is taken for green");
                let has_landed = matches!(state.tasks[id].phase, TaskPhase::Completed { .. });
                assert!(!has_landed, "I5: `{id}` lands twice");
            }
            _ => {}
        }
    }

    /// Compares what a process believes with what the journal says: cheaply, or in full.
    pub fn agrees(&self, state: &State, is_full: bool) {
        let brief = |state: &State| (state.index.counts, state.attempts.len(), state.rollout);
        assert_eq!(brief(&self.state), brief(state), "I1: a monitor believes something else");
        assert!(!is_full || self.state == *state, "I1: a monitor believes something else");
    }

    /// What holds between any two records.
    pub fn look(&self, world: &World, is_full: bool) {
        let state = &self.state;
        if let Some(landed) = &state.base.landed {
            for task in state.tasks.values() {
                if let TaskPhase::Completed { commit: Some(commit), .. } = &task.phase {
                    let holds = world.repo.holds(commit_of(landed), commit_of(commit));
                    assert!(holds, "I8: `{}` has landed and {landed} lacks it", task.id);
                }
            }
        }
        if let Some(landing) = &state.landing {
            let phase = &state.tasks[&landing.task].phase;
            assert!(matches!(phase, TaskPhase::Landing { .. }), "{landing:?} at {phase:?}");
        }
        for attempt in state.attempts.values() {
            if let AttemptKind::StageCheck { of, .. } = &attempt.kind {
                assert!(state.attempts.contains_key(of), "`{}` has no parent", attempt.id);
            }
        }
        world.nothing_of_theirs_is_moved();
        if let Some(commit) = world.repo.lost() {
            panic!("I7: c{commit} is work, and no ref reaches it");
        }
        if is_full {
            state.check();
        }
    }
}

fn next_commit(landing: &pipeline::machine::lane::Landing) -> &str {
    match &landing.phase {
        LandingPhase::Moving { commit, .. } | LandingPhase::Checking { commit, .. } => {
            commit.as_str()
        }
        LandingPhase::Merging => "",
    }
}
