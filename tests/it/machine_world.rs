//! A modelled world for the simulator: branches, processes, and answers that come late, twice, or
//! never.

use std::collections::{BTreeMap, BTreeSet};

use pipeline::machine::attempt::{AttemptKind, AttemptPhase, Exit};
use pipeline::machine::id::{AttemptId, Oid, TaskId};
use pipeline::machine::{Effect, Observation, State, pending_effects};

use crate::machine_support::{End, Machine, exit};

/// Random numbers from a seed (splitmix64).
pub struct Dice(pub u64);

impl Dice {
    pub fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    pub fn below(&mut self, end: usize) -> usize {
        (self.next() % end.max(1) as u64) as usize
    }

    pub fn percent(&mut self, chance: u64) -> bool {
        self.next() % 100 < chance
    }

    pub fn pick<T: Clone>(&mut self, from: &[T]) -> Option<T> {
        (!from.is_empty()).then(|| from[self.below(from.len())].clone())
    }
}

/// What is true outside the machine.
#[derive(Default)]
pub struct World {
    /// Nothing fails any more.
    pub is_kind: bool,
    commits: u64,
    base: Option<Oid>,
    landed: Option<Oid>,
    /// What the base may stand at so that a landing commit is a fast-forward.
    ancestors: BTreeMap<Oid, BTreeSet<Oid>>,
    /// The merge that brought each task in.
    merged: BTreeMap<TaskId, Oid>,
    merges: BTreeMap<(TaskId, u32), (Oid, Oid)>,
    /// Processes that run, with the task they work on.
    running: BTreeMap<AttemptId, Option<TaskId>>,
    exits: BTreeMap<AttemptId, Exit>,
    saves: BTreeMap<AttemptId, Observation>,
    /// Effects under way in this monitor's life.
    taken: BTreeSet<Effect>,
    answers: Vec<Observation>,
    /// What arrived long ago; it may arrive once more.
    old: Vec<Observation>,
}

impl World {
    pub fn new() -> Self {
        let mut world = Self::default();
        world.base = Some(world.commit());
        world
    }

    fn commit(&mut self) -> Oid {
        self.commits += 1;
        Oid::new(format!("c{}", self.commits))
    }

    fn fails(&self, dice: &mut Dice, chance: u64) -> bool {
        !self.is_kind && dice.percent(chance)
    }

    pub fn base_seen(&self) -> Observation {
        Observation::BaseSeen { tip: self.base.clone().unwrap(), landed: self.landed.clone() }
    }

    /// A person commits to the base.
    pub fn move_base(&mut self) {
        self.base = Some(self.commit());
    }

    /// Somebody deletes the landing branch; what was on it is gone.
    pub fn delete_landed(&mut self) {
        self.landed = None;
    }

    pub fn has_answers(&self) -> bool {
        !self.answers.is_empty()
    }

    /// Begins one effect that is due; returns false when there is none.
    pub fn act(&mut self, machine: &Machine, dice: &mut Dice) -> bool {
        self.taken.retain(|effect| pending_effects(&machine.state).any(|due| due == effect));
        let due: Vec<Effect> = pending_effects(&machine.state)
            .filter(|effect| !self.taken.contains(effect))
            .cloned()
            .collect();
        let Some(effect) = dice.pick(&due) else { return false };
        self.taken.insert(effect.clone());
        let answer = if self.fails(dice, 12) {
            fault(&effect)
        } else {
            self.perform(machine, &effect, dice)
        };
        if !self.fails(dice, 3) {
            self.answers.push(answer.clone());
        }
        if self.fails(dice, 10) {
            self.answers.push(answer);
        }
        true
    }

    fn perform(&mut self, machine: &Machine, effect: &Effect, dice: &mut Dice) -> Observation {
        match effect {
            Effect::Prepare { attempt, .. } => Observation::Prepared {
                attempt: attempt.clone(),
                base: self.landed.clone(),
                tip: dice.percent(50).then(|| Oid::new("tip")),
            },
            Effect::Start { attempt, .. } => self.start(machine, attempt),
            Effect::Stop { attempt } => {
                if self.running.remove(attempt).is_some() {
                    self.exits.insert(attempt.clone(), exit(End::Stopped, machine.now));
                }
                self.ended(attempt)
            }
            Effect::Save { attempt, .. } => self.save(machine, attempt, dice),
            Effect::Advance { attempt, .. } => Observation::Advanced { attempt: attempt.clone() },
            Effect::TakeBase { base, .. } => self.take_base(base, dice),
            Effect::Merge { task, number, .. } => self.merge(task, *number, dice),
            Effect::Land { task, number, .. } => self.land(task, *number),
            Effect::Follow { to, .. } => self.follow(to, dice),
        }
    }

    fn start(&mut self, machine: &Machine, id: &AttemptId) -> Observation {
        let attempt = &machine.state.attempts[id];
        if !self.exits.contains_key(id) && !self.running.contains_key(id) {
            if attempt.is_work() {
                let other = self.running.iter().find(|(_, task)| **task == attempt.task);
                assert!(other.is_none(), "`{id}` starts beside {other:?}");
            }
            let task = attempt.task.clone().filter(|_| attempt.is_work());
            self.running.insert(id.clone(), task);
        }
        Observation::Started { attempt: id.clone(), at: machine.now }
    }

    fn ended(&self, id: &AttemptId) -> Observation {
        match self.exits.get(id) {
            Some(exit) => Observation::Exited { attempt: id.clone(), exit: Box::new(exit.clone()) },
            None => Observation::Lost { attempt: id.clone(), why: "no trace of it".into() },
        }
    }

    fn save(&mut self, machine: &Machine, id: &AttemptId, dice: &mut Dice) -> Observation {
        assert!(!self.running.contains_key(id), "`{id}` is saved while it runs");
        let has_changed = !self.fails(dice, 15);
        let is_merging = machine.state.attempts[id].merge.is_some();
        let has_markers = is_merging && self.fails(dice, 30);
        let commit = has_changed.then(|| self.commit());
        let saved = Observation::Saved {
            attempt: id.clone(),
            commit,
            has_changed,
            markers: if has_markers { vec!["src/a.rs".into()] } else { Vec::new() },
        };
        self.saves.entry(id.clone()).or_insert(saved).clone()
    }

    fn take_base(&mut self, base: &Oid, dice: &mut Dice) -> Observation {
        if self.landed.is_some() && self.fails(dice, 10) {
            return Observation::BaseConflicts { base: base.clone(), paths: vec!["x".into()] };
        }
        let landed = match self.landed.clone() {
            None => {
                self.ancestors.insert(base.clone(), BTreeSet::from([base.clone()]));
                self.merged.clear();
                base.clone()
            }
            Some(old) if self.ancestors[&old].contains(base) => old,
            Some(old) => self.grow(&old, base),
        };
        self.landed = Some(landed.clone());
        Observation::BaseTaken { base: base.clone(), landed }
    }

    /// Makes a commit on top of `old` that also holds `other`.
    fn grow(&mut self, old: &Oid, other: &Oid) -> Oid {
        let new = self.commit();
        let mut ancestors = self.ancestors.get(old).cloned().unwrap_or_default();
        ancestors.extend([other.clone(), new.clone()]);
        self.ancestors.insert(new.clone(), ancestors);
        new
    }

    fn merge(&mut self, task: &TaskId, number: u32, dice: &mut Dice) -> Observation {
        let id = task.clone();
        if self.merged.contains_key(task)
            && let Some(commit) = self.landed.clone()
        {
            return Observation::AlreadyLanded { task: id, number, commit };
        }
        let Some(onto) = self.landed.clone() else {
            return Observation::LaneFaulted { why: "there is no landing branch".into() };
        };
        if self.fails(dice, 15) {
            let paths = vec!["src/a.rs".into()];
            return Observation::MergeConflicts { task: id, number, onto, paths, with: Vec::new() };
        }
        let commit = self.grow(&onto, &onto);
        self.merges.insert((id.clone(), number), (commit.clone(), onto.clone()));
        let protected = if self.fails(dice, 8) { vec!["p.toml".into()] } else { Vec::new() };
        Observation::Merged { task: id, number, commit, onto, protected }
    }

    fn land(&mut self, task: &TaskId, number: u32) -> Observation {
        let (commit, onto) = self.merges[&(task.clone(), number)].clone();
        let id = task.clone();
        if self.merged.get(task) == Some(&commit) {
            return Observation::Landed { task: id, number, commit };
        }
        if self.landed.as_ref() != Some(&onto) {
            return Observation::LandingRaced { task: id, number, found: self.landed.clone() };
        }
        let before = self.merged.insert(id.clone(), commit.clone());
        assert!(before.is_none(), "`{task}` lands twice");
        self.landed = Some(commit.clone());
        Observation::Landed { task: id, number, commit }
    }

    fn follow(&mut self, to: &Oid, dice: &mut Dice) -> Observation {
        let base = self.base.clone().unwrap();
        let can = self.ancestors.get(to).is_some_and(|known| known.contains(&base));
        let is_refused = self.fails(dice, 25);
        if !can || is_refused {
            let (to, why, is_passing) = (to.clone(), "no".into(), dice.percent(50));
            return Observation::FollowRefused { to, why, behind: 1, is_passing };
        }
        self.base = Some(to.clone());
        Observation::Followed { to: to.clone() }
    }

    /// One process ends; returns false when none runs.
    pub fn finish_one(&mut self, machine: &Machine, dice: &mut Dice) -> bool {
        let ids: Vec<AttemptId> = self.running.keys().cloned().collect();
        let Some(id) = dice.pick(&ids) else { return false };
        self.running.remove(&id);
        if self.fails(dice, 8) {
            self.answers.push(Observation::Lost { attempt: id, why: "killed".into() });
            return true;
        }
        let is_work = machine.state.attempts.get(&id).is_none_or(|attempt| attempt.is_work());
        let end = self.end(is_work, dice);
        let mut exit = exit(end, machine.now);
        exit.leaked = u32::from(self.fails(dice, 5));
        self.exits.insert(id.clone(), exit);
        self.answers.push(self.ended(&id));
        true
    }

    fn end(&self, is_work: bool, dice: &mut Dice) -> End {
        if self.is_kind || dice.percent(60) {
            return End::Done;
        }
        let ends: &[End] = if is_work {
            &[
                End::Silent,
                End::Fail,
                End::NoMarker,
                End::Blocked,
                End::Changes,
                End::Changes,
                End::Timeout,
                End::Crash,
                End::Unstartable,
            ]
        } else {
            &[End::Fail, End::Timeout, End::Crash, End::Unstartable]
        };
        dice.pick(ends).unwrap()
    }

    /// One answer arrives, in any order; returns false when none is under way.
    pub fn answer_one(&mut self, machine: &mut Machine, dice: &mut Dice) -> bool {
        if self.answers.is_empty() {
            return false;
        }
        let place = dice.below(self.answers.len());
        let seen = self.answers.swap_remove(place);
        self.old.push(seen.clone());
        machine.see(seen);
        true
    }

    /// Something arrives long after it was true.
    pub fn repeat_one(&mut self, machine: &mut Machine, dice: &mut Dice) {
        if let Some(seen) = dice.pick(&self.old) {
            machine.see(seen);
        }
    }

    /// The monitor is killed and another starts: answers are gone, the world is looked at.
    pub fn restart(&mut self, machine: &mut Machine) {
        self.taken.clear();
        self.answers.clear();
        for seen in self.found(&machine.state) {
            machine.see(seen);
        }
        machine.see(Observation::MonitorStarted { pid: 2, allows_red_base: false });
        machine.see(self.base_seen());
    }

    fn found(&self, state: &State) -> Vec<Observation> {
        let mut found = Vec::new();
        for attempt in state.attempts.values() {
            let id = attempt.id.clone();
            let is_alive = matches!(attempt.phase, AttemptPhase::Starting | AttemptPhase::Running);
            if !is_alive {
                continue;
            }
            if self.exits.contains_key(&id) {
                found.push(self.ended(&id));
            } else if self.running.contains_key(&id) {
                found.push(Observation::Started { attempt: id, at: attempt.assigned_at });
            } else if attempt.phase == AttemptPhase::Running {
                found.push(Observation::Lost { attempt: id, why: "keeper gone".into() });
            }
        }
        found
    }

    /// Every process belongs to a live attempt.
    pub fn check(&self, state: &State) {
        for id in self.running.keys() {
            assert!(state.attempts.contains_key(id), "`{id}` runs, but its attempt is over");
        }
        for attempt in state.attempts.values() {
            if let AttemptKind::StageCheck { of, .. } = &attempt.kind {
                assert!(state.attempts.contains_key(of), "`{}` has no parent", attempt.id);
            }
        }
    }
}

fn fault(effect: &Effect) -> Observation {
    let why = String::from("disk full");
    match effect {
        Effect::Prepare { attempt, .. }
        | Effect::Start { attempt, .. }
        | Effect::Stop { attempt }
        | Effect::Save { attempt, .. }
        | Effect::Advance { attempt, .. } => {
            Observation::AttemptFaulted { attempt: attempt.clone(), why }
        }
        Effect::TakeBase { .. } | Effect::Merge { .. } | Effect::Land { .. } => {
            Observation::LaneFaulted { why }
        }
        Effect::Follow { to, .. } => {
            Observation::FollowRefused { to: to.clone(), why, behind: 1, is_passing: true }
        }
    }
}
