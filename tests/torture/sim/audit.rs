//! A reader of the journal that applies every record as it appears, and holds it against the
//! promises at that very moment.

use std::collections::{BTreeMap, BTreeSet};

use pipeline::machine::attempt::{Attempt, Class};
use pipeline::machine::change::{AttemptChange, Change, LaneChange, TaskChange};
use pipeline::machine::id::{AttemptId, Oid, StageName, TaskId};
use pipeline::machine::mode::{Orchestration, Rollout};
use pipeline::machine::phase::{Move, TaskStand, TaskTrigger, task_move};
use pipeline::machine::task::TaskPhase;
use pipeline::machine::{State, apply};
use pipeline::store::ledger::decode;
use pipeline::store::memory::MemoryStore;
use pipeline::store::{Store, Tail, format};

/// What the journal says, and what must never be seen twice.
#[derive(Debug)]
pub struct Audit {
    store: MemoryStore,
    pub state: State,
    pub seq: u64,
    /// The last record that somebody was told of.
    pub acknowledged: u64,
    seen: BTreeSet<AttemptId>,
    /// Stages that completed and were not sent back or retried since.
    done: BTreeMap<TaskId, BTreeSet<StageName>>,
    landed: BTreeMap<TaskId, Oid>,
    /// Ways in which attempts ended and tasks came to stand still.
    pub ways: BTreeSet<&'static str>,
    /// A retry was asked for: stages may run again.
    pub is_retry: bool,
    /// Every change in words, if somebody wants to read them.
    pub story: Option<Vec<String>>,
}

fn load(store: &mut MemoryStore) -> (State, u64) {
    let loaded = store.load().expect("the store in memory can be read");
    let mut state = format::decode_state_text(loaded.checkpoint.state.get()).expect("own format");
    let mut seq = loaded.checkpoint.seq;
    for record in &loaded.records {
        for change in &decode(record).expect("own format") {
            apply(&mut state, change);
        }
        seq = record.seq;
    }
    (state, seq)
}

impl Audit {
    pub fn new(mut store: MemoryStore) -> Self {
        let (state, seq) = load(&mut store);
        Self {
            store,
            state,
            seq,
            acknowledged: 0,
            seen: BTreeSet::new(),
            done: BTreeMap::new(),
            landed: BTreeMap::new(),
            ways: BTreeSet::new(),
            is_retry: false,
            story: None,
        }
    }

    /// Takes in what is new.
    pub fn catch_up(&mut self) {
        let Tail::Records(records) = self.store.read_from(self.seq).expect("readable") else {
            // After a rotation single changes are not known.
            (self.state, self.seq) = load(&mut self.store);
            return;
        };
        for record in records {
            assert_eq!(record.seq, self.seq + 1, "records follow one another");
            for change in decode(&record).expect("own format") {
                if let Some(story) = &mut self.story {
                    story.push(format!("{} {}: {change:?}", record.seq, record.actor));
                }
                self.before(&change);
                apply(&mut self.state, &change);
            }
            self.seq = record.seq;
            self.is_retry = false;
        }
    }

    /// After a power cut: what was told must still be there.
    pub fn after_power_cut(&mut self) {
        let (state, seq) = load(&mut self.store);
        assert!(
            seq >= self.acknowledged,
            "record {} was told, {seq} is the last",
            self.acknowledged
        );
        if seq < self.seq {
            // What nobody was told of never was.
            let is_known = |id: &AttemptId| state.attempts.contains_key(id);
            self.seen.retain(|id| is_known(id) || !self.state.attempts.contains_key(id));
            self.done.clear();
            self.landed.retain(|id, _| state.tasks.contains_key(id));
        }
        (self.state, self.seq) = (state, seq);
    }

    /// The whole journal read anew gives the same state.
    pub fn refold(&mut self) {
        self.catch_up();
        let (state, seq) = load(&mut self.store.another());
        assert_eq!(seq, self.seq);
        assert!(state == self.state, "the journal folds into another state");
    }

    fn before(&mut self, change: &Change) {
        match change {
            Change::Task(id, TaskChange::Moved { to, .. }) => self.before_move(id, to),
            Change::Task(id, TaskChange::Evidenced { evidence }) => {
                self.ways.insert(evidence.class.word());
                let sent_back =
                    [Class::ChangesRequested, Class::Conflict, Class::LandingChecksFailed];
                if sent_back.contains(&evidence.class) {
                    self.done.remove(id);
                }
            }
            Change::Task(id, TaskChange::Steered { .. }) if self.is_retry => {
                self.done.remove(id);
            }
            Change::Attempt(id, AttemptChange::Added { attempt }) => {
                assert!(self.seen.insert(id.clone()), "attempt `{id}` was added before");
                if attempt.is_work() {
                    self.before_work(attempt);
                }
            }
            Change::Attempt(id, AttemptChange::Ended { outcome, .. }) => {
                self.ways.insert(outcome.class.word());
                let attempt = &self.state.attempts[id];
                if let (true, Some(task), Some(stage), Class::Completed) =
                    (attempt.is_work(), &attempt.task, attempt.stage(), outcome.class)
                {
                    let is_new = self.done.entry(task.clone()).or_default().insert(stage.clone());
                    assert!(is_new, "`{task}` completes {stage} twice");
                }
            }
            Change::Lane(LaneChange::Landed { id, commit, .. }) => {
                let before = self.landed.insert(id.clone(), commit.clone());
                let is_first = before.is_none_or(|before| before == *commit);
                assert!(is_first, "`{id}` lands twice");
            }
            Change::Project(_) | Change::Task(..) | Change::Attempt(..) | Change::Lane(_) => {}
        }
    }

    fn before_move(&mut self, id: &TaskId, to: &TaskPhase) {
        if let TaskPhase::Blocked(block) = to {
            self.ways.insert(block.class.word());
        }
        let from = TaskStand::from(&self.state.tasks[id].phase);
        let to = TaskStand::from(to);
        let mut triggers = TaskTrigger::ALL.iter();
        let is_known = triggers.any(|trigger| task_move(from, *trigger) == Move::To(to));
        assert!(is_known, "`{id}`: the table lacks {from:?} -> {to:?}");
    }

    fn before_work(&self, new: &Attempt) {
        let state = &self.state;
        let id = new.task.as_ref().expect("work is of a task");
        let stage = new.stage().expect("work is of a stage");
        let task = &state.tasks[id];
        assert_ne!(state.rollout, Rollout::Shadow, "`{id}` starts in shadow");
        if state.rollout == Rollout::Pilot {
            assert!(state.index.is_in_slice(id), "`{id}` is not in the slice");
        }
        assert!(!state.is_paused, "`{id}` starts while paused");
        assert!(state.stopping.is_none() && state.drain.is_none(), "`{id}` starts at the end");
        assert!(!task.is_held, "`{id}` starts while held");
        for dep in &task.spec.depends_on {
            let is_met = state.tasks.get(dep).is_some_and(|dep| {
                matches!(dep.phase, TaskPhase::Completed { .. })
                    || dep.is_met() && dep.spec.kind == pipeline::machine::task::TaskKind::Epic
            });
            assert!(is_met, "`{id}` starts before `{dep}` is complete");
        }
        for other in state.attempts.values().filter(|other| other.is_work()) {
            assert_ne!(other.task.as_ref(), Some(id), "two attempts of `{id}` live");
            assert_ne!(other.agent, new.agent, "two attempts of `{}` live", new.agent);
            assert_ne!(state.orchestration, Orchestration::Sequential, "two work in sequential");
        }
        let limits = &state.settings.limits;
        assert!(task.tally.attempts < limits.attempts_per_task, "`{id}` has no attempts left");
        assert!(task.tally.stage_failures < limits.attempts_per_stage, "`{id}`: {:?}", task.tally);
        assert!(task.tally.infrastructure <= limits.infrastructure_retries, "`{id}`: no end");
        assert!(task.tally.send_backs <= limits.send_backs, "`{id}` is sent back for ever");
        let is_done = self.done.get(id).is_some_and(|done| done.contains(stage));
        assert!(!is_done, "`{id}` runs {stage} again");
        let agent = &state.agents[&new.agent];
        assert!(agent.is_free() && agent.stages.contains(stage));
        assert!(state.settings.stage(stage.as_str()).is_some());
    }
}
