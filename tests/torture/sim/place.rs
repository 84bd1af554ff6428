//! The modelled world outside the program: a repository, keepers, agents, and the work that a
//! monitor has begun, which goes on step by step so that a crash falls between any two of them.

use std::collections::{BTreeMap, BTreeSet};

use pipeline::machine::attempt::Exit;
use pipeline::machine::id::{AttemptId, Oid, TaskId};
use pipeline::machine::time::Time;
use pipeline::machine::{Effect, Observation};

use super::dice::Dice;
use super::git::{BASE, Git, LANDED, task_ref};
use super::mix::Mix;
use crate::fixture::{End, exit};

/// What reaches a monitor from outside.
#[derive(Debug, Clone)]
pub enum Mail {
    Seen(Observation),
    /// The keeper that ran this attempt is gone.
    KeeperGone(AttemptId),
}

/// A keeper that lives.
#[derive(Debug)]
pub struct Keeper {
    pub attempt: Option<AttemptId>,
    /// The monitor it reports to.
    pub monitor: Option<u32>,
}

/// A process tree.
#[derive(Debug, Clone)]
pub struct Run {
    pub agent: String,
    pub slot: u32,
    pub task: Option<TaskId>,
    pub is_work: bool,
}

/// What an agent left in its slot.
#[derive(Debug, Clone, Copy)]
struct Left {
    has_changed: bool,
    has_markers: bool,
    is_gone: bool,
}

/// One thing that a monitor does on a thread.
#[derive(Debug, Clone)]
pub enum Work {
    Prepare {
        attempt: AttemptId,
        /// `None` for a check.
        task: Option<TaskId>,
        tip: Option<Oid>,
        start: Option<Oid>,
        resume: Option<Oid>,
    },
    Order {
        attempt: AttemptId,
        run: Run,
    },
    Stop {
        attempt: AttemptId,
        agent: String,
    },
    Save {
        attempt: AttemptId,
        tip: Oid,
        merge: Option<Oid>,
    },
    Advance {
        attempt: AttemptId,
        task: TaskId,
        from: Oid,
        to: Oid,
    },
    TakeBase {
        base: Oid,
        landed: Option<Oid>,
    },
    Merge {
        task: TaskId,
        number: u32,
        tip: Oid,
        onto: Oid,
    },
    Land {
        task: TaskId,
        number: u32,
        onto: Oid,
        commit: Oid,
    },
    Follow {
        to: Oid,
        from: Oid,
    },
    EndOrphans {
        attempt: AttemptId,
        why: String,
    },
}

/// Work under way.
#[derive(Debug, Clone)]
pub struct Job {
    pub owner: u32,
    pub work: Work,
    step: u32,
}

/// How far a job came.
enum Went {
    On,
    Done(Observation),
    /// Done, with nothing to say.
    Quiet,
}

/// The world.
#[derive(Debug, Default)]
pub struct Place {
    pub git: Git,
    /// Every commit of an agent's work.
    pub works: Vec<Oid>,
    pub keepers: BTreeMap<String, Keeper>,
    /// What runs below a living keeper.
    pub runs: BTreeMap<AttemptId, Run>,
    /// What a dead keeper left running.
    pub orphans: BTreeMap<AttemptId, Run>,
    /// Records on disk.
    pub started: BTreeSet<AttemptId>,
    pub exits: BTreeMap<AttemptId, Exit>,
    left: BTreeMap<AttemptId, Left>,
    pub jobs: Vec<Job>,
    /// What is on its way to the monitor that lives.
    pub mail: Vec<Mail>,
    /// The monitor that lives.
    pub monitor: Option<u32>,
    pub mix: Mix,
}

impl Place {
    /// A repository with a base of one commit.
    pub fn new(mix: Mix) -> Self {
        let mut place = Self { mix, ..Self::default() };
        let first = place.git.commit(&[], None, "first");
        place.git.set(BASE, Some(&first));
        place
    }

    pub fn begin(&mut self, owner: u32, work: Work) {
        self.jobs.push(Job { owner, work, step: 0 });
    }

    /// Tells the monitor that lives, if it is the one meant.
    fn tell(&mut self, owner: Option<u32>, mail: Mail) {
        if owner.is_some() && owner == self.monitor {
            self.mail.push(mail);
        }
    }

    /// Lets one job take its next step; returns false when there is none.
    pub fn advance_one(&mut self, dice: &mut Dice, now: Time) -> bool {
        if self.jobs.is_empty() {
            return false;
        }
        let mut job = self.jobs.swap_remove(dice.below(self.jobs.len()));
        // A keeper that has taken an order never says that it has not.
        let is_order = matches!(job.work, Work::Order { .. });
        if (!is_order || job.step == 0) && dice.percent(self.mix.fail) {
            let why = "disk full".to_owned();
            self.tell(Some(job.owner), Mail::Seen(fault(&job.work, why)));
            return true;
        }
        match self.step(&mut job, dice, now) {
            Went::On => {
                job.step += 1;
                self.jobs.push(job);
            }
            Went::Quiet => {}
            Went::Done(_) if !is_order && dice.percent(self.mix.lie) => {
                let why = "outcome unknown".to_owned();
                self.tell(Some(job.owner), Mail::Seen(fault(&job.work, why)));
            }
            Went::Done(seen) => {
                if dice.percent(self.mix.double) {
                    self.tell(Some(job.owner), Mail::Seen(seen.clone()));
                }
                self.tell(Some(job.owner), Mail::Seen(seen));
            }
        }
        true
    }

    fn step(&mut self, job: &mut Job, dice: &mut Dice, now: Time) -> Went {
        let (owner, step) = (job.owner, job.step);
        match &job.work {
            Work::Prepare { attempt, task, tip, start, resume } => {
                self.prepare(step, attempt, task.as_ref(), [tip, start, resume])
            }
            Work::Order { attempt, run } => self.order(owner, step, attempt, run, now),
            Work::Stop { attempt, agent } => self.stop(owner, attempt, agent, now),
            Work::Save { attempt, tip, merge } => self.save(step, attempt, tip, merge.as_ref()),
            Work::Advance { attempt, task, from, to } => {
                let name = task_ref(task);
                if step == 0 {
                    if self.git.swap(&name, Some(to), Some(from)).is_err() {
                        self.git.put_back(&name, to);
                    }
                    return Went::On;
                }
                let _ = self.git.swap(&format!("salvage/{attempt}"), None, Some(to));
                Went::Done(Observation::Advanced { attempt: attempt.clone() })
            }
            Work::TakeBase { base, landed } => self.take_base(step, base, landed.as_ref(), dice),
            Work::Merge { task, number, tip, onto } => self.merge(task, *number, (tip, onto), dice),
            Work::Land { task, number, onto, commit } => self.land(task, *number, (onto, commit)),
            Work::Follow { to, from } => self.follow(to, from, dice),
            Work::EndOrphans { attempt, why } => {
                self.orphans.remove(attempt);
                Went::Done(Observation::Lost { attempt: attempt.clone(), why: why.clone() })
            }
        }
    }

    fn prepare(
        &mut self,
        step: u32,
        attempt: &AttemptId,
        task: Option<&TaskId>,
        [tip, start, resume]: [&Option<Oid>; 3],
    ) -> Went {
        let wanted = tip.as_ref().or(start.as_ref()).expect("there is a landing branch");
        if let (0, Some(task)) = (step, task) {
            let name = task_ref(task);
            if self.git.read(&name).as_ref() != Some(wanted) {
                self.git.put_back(&name, wanted);
            }
            return Went::On;
        }
        let at = resume.as_ref().unwrap_or(wanted);
        Went::Done(Observation::Prepared {
            attempt: attempt.clone(),
            base: Some(at.clone()),
            tip: task.map(|_| wanted.clone()),
        })
    }

    fn order(&mut self, owner: u32, step: u32, attempt: &AttemptId, run: &Run, now: Time) -> Went {
        let id = attempt.clone();
        let keeper = self
            .keepers
            .entry(run.agent.clone())
            .or_insert(Keeper { attempt: None, monitor: Some(owner) });
        if step == 0 {
            keeper.monitor = Some(owner);
            return Went::On;
        }
        if step == 2 {
            return Went::Done(Observation::Started { attempt: id, at: now });
        }
        if let Some(exit) = self.exits.get(attempt) {
            return Went::Done(Observation::Exited { attempt: id, exit: Box::new(exit.clone()) });
        }
        if keeper.attempt.is_some() || !self.started.insert(id.clone()) {
            let why = "the keeper refuses it".to_owned();
            return Went::Done(Observation::AttemptFaulted { attempt: id, why });
        }
        keeper.attempt = Some(id.clone());
        for (other, beside) in self.runs.iter().chain(&self.orphans) {
            let is_same_task = run.is_work && beside.is_work && beside.task == run.task;
            assert!(!is_same_task || self.orphans.contains_key(other), "{id} beside {other}");
            let is_same_slot = beside.agent == run.agent && beside.slot == run.slot;
            assert!(!is_same_slot, "{id} starts in the slot of {other}, which lives");
        }
        self.runs.insert(id, run.clone());
        Went::On
    }

    fn stop(&mut self, owner: u32, attempt: &AttemptId, agent: &str, now: Time) -> Went {
        let is_ordered =
            |job: &Job| matches!(&job.work, Work::Order { attempt: other, .. } if other == attempt);
        if self.jobs.iter().any(is_ordered) {
            return Went::On;
        }
        let is_running =
            self.keepers.get(agent).is_some_and(|k| k.attempt.as_ref() == Some(attempt));
        if is_running {
            self.end_run(attempt, exit(End::Stopped, now), true);
        } else {
            self.tell(Some(owner), Mail::KeeperGone(attempt.clone()));
        }
        Went::Quiet
    }

    fn save(&mut self, step: u32, attempt: &AttemptId, tip: &Oid, merge: Option<&Oid>) -> Went {
        assert!(!self.runs.contains_key(attempt), "`{attempt}` is saved while it runs");
        let left = self.left.get(attempt).copied().unwrap_or(Left {
            has_changed: false,
            has_markers: false,
            is_gone: false,
        });
        let mut parents = vec![tip];
        parents.extend(merge);
        let commit = (left.has_changed || merge.is_some())
            .then(|| self.git.commit(&parents, None, &format!("work {attempt}")));
        if step == 0 {
            if let Some(commit) = &commit {
                self.git.set(&format!("salvage/{attempt}"), Some(commit));
                self.works.push(commit.clone());
            }
            return Went::On;
        }
        let attempt = attempt.clone();
        if left.is_gone {
            return Went::Done(Observation::WorktreeGone { attempt, commit });
        }
        let markers = if left.has_markers { vec!["src/a.rs".into()] } else { Vec::new() };
        Went::Done(Observation::Saved { attempt, commit, has_changed: left.has_changed, markers })
    }

    /// Where the landing branch stands, put back if somebody took it away.
    fn standing(&mut self, recorded: &Oid) -> Oid {
        let found = self.git.read(LANDED);
        let is_fine = |found: &Oid| self.git.is_ancestor(recorded, found);
        if let Some(found) = found.filter(is_fine) {
            return found;
        }
        self.git.put_back(LANDED, recorded);
        recorded.clone()
    }

    fn take_base(&mut self, step: u32, base: &Oid, landed: Option<&Oid>, dice: &mut Dice) -> Went {
        let taken = |landed: Oid| Went::Done(Observation::BaseTaken { base: base.clone(), landed });
        let Some(recorded) = landed else {
            return match self.git.swap(LANDED, Some(base), None) {
                Ok(()) => taken(base.clone()),
                Err(_) => Went::Done(self.look().expect("the base is there")),
            };
        };
        let landed = self.standing(recorded);
        if self.git.is_ancestor(base, &landed) {
            return taken(landed);
        }
        if step == 0 && dice.percent(self.mix.conflict) {
            let paths = vec!["x".into()];
            return Went::Done(Observation::BaseConflicts { base: base.clone(), paths });
        }
        if step == 0 {
            return Went::On;
        }
        let next = if self.git.is_ancestor(&landed, base) {
            base.clone()
        } else {
            self.git.commit(&[&landed, base], None, "take in")
        };
        match self.git.swap(LANDED, Some(&next), Some(&landed)) {
            Ok(()) => taken(next),
            Err(_) => Went::Done(Observation::LaneFaulted { why: "it is being moved".into() }),
        }
    }

    fn merge(
        &mut self,
        task: &TaskId,
        number: u32,
        (tip, onto): (&Oid, &Oid),
        dice: &mut Dice,
    ) -> Went {
        let id = task.clone();
        if self.git.landings(onto).contains_key(task) {
            let commit = onto.clone();
            return Went::Done(Observation::AlreadyLanded { task: id, number, commit });
        }
        if dice.percent(self.mix.conflict) && !self.git.is_ancestor(onto, tip) {
            let (onto, paths) = (onto.clone(), vec!["src/a.rs".into()]);
            let with = Vec::new();
            return Went::Done(Observation::MergeConflicts { task: id, number, onto, paths, with });
        }
        let commit = self.git.commit(&[onto, tip], Some(task), &format!("land {task} {number}"));
        self.git.set(&format!("pending/{task}"), Some(&commit));
        let protected =
            if dice.percent(self.mix.protect) { vec!["p.toml".into()] } else { Vec::new() };
        let onto = onto.clone();
        Went::Done(Observation::Merged { task: id, number, commit, onto, protected })
    }

    fn land(&mut self, task: &TaskId, number: u32, (onto, commit): (&Oid, &Oid)) -> Went {
        if self.git.swap(LANDED, Some(commit), Some(onto)).is_err() {
            let found = self.standing(onto);
            if !self.git.is_ancestor(commit, &found) {
                let (task, found) = (task.clone(), Some(found));
                return Went::Done(Observation::LandingRaced { task, number, found });
            }
        }
        self.git.set(&format!("pending/{task}"), None);
        Went::Done(Observation::Landed { task: task.clone(), number, commit: commit.clone() })
    }

    fn follow(&mut self, to: &Oid, from: &Oid, dice: &mut Dice) -> Went {
        let refused = |is_passing| {
            let (to, why) = (to.clone(), "no".into());
            Went::Done(Observation::FollowRefused { to, why, behind: 1, is_passing })
        };
        let Some(base) = self.git.read(BASE) else { return refused(false) };
        if self.git.is_ancestor(to, &base) {
            return Went::Done(Observation::Followed { to: to.clone() });
        }
        if base != *from || !self.git.is_ancestor(&base, to) {
            return Went::Done(self.look().expect("the base is there"));
        }
        if dice.percent(self.mix.refuse) {
            return refused(dice.percent(50));
        }
        self.git.set(BASE, Some(to));
        Went::Done(Observation::Followed { to: to.clone() })
    }

    /// What a look at base and landing branch shows.
    pub fn look(&self) -> Option<Observation> {
        let landed = self.git.read(LANDED);
        self.git.read(BASE).map(|tip| Observation::BaseSeen { tip, landed })
    }

    /// An agent ends by itself; returns false when none runs.
    pub fn finish_one(&mut self, dice: &mut Dice, now: Time) -> bool {
        let ids: Vec<AttemptId> = self.runs.keys().cloned().collect();
        let Some(id) = dice.pick(&ids) else { return false };
        let is_work = self.runs[&id].is_work;
        let end = self.mix.end(is_work, dice);
        let mut exit = exit(end, now);
        exit.leaked = u32::from(dice.percent(self.mix.leak));
        let left = Left {
            has_changed: is_work && !dice.percent(self.mix.empty),
            has_markers: dice.percent(self.mix.empty),
            is_gone: dice.percent(self.mix.gone),
        };
        self.left.insert(id.clone(), left);
        let is_told = !dice.percent(self.mix.lie);
        self.end_run(&id, exit, is_told);
        true
    }

    fn end_run(&mut self, id: &AttemptId, exit: Exit, is_told: bool) {
        let run = self.runs.remove(id).expect("it runs");
        self.exits.insert(id.clone(), exit.clone());
        let keeper = self.keepers.get_mut(&run.agent).expect("what runs has a keeper");
        keeper.attempt = None;
        let monitor = keeper.monitor;
        if monitor.is_none() || monitor != self.monitor {
            self.keepers.remove(&run.agent);
        } else if is_told {
            let exit = Box::new(exit);
            self.tell(monitor, Mail::Seen(Observation::Exited { attempt: id.clone(), exit }));
        }
    }

    /// A keeper is killed; what it ran is left behind, or ends with it.
    pub fn kill_keeper(&mut self, dice: &mut Dice) {
        let names: Vec<String> = self.keepers.keys().cloned().collect();
        let Some(name) = dice.pick(&names) else { return };
        let keeper = self.keepers.remove(&name).expect("listed");
        let Some(id) = keeper.attempt else { return };
        let run = self.runs.remove(&id).expect("a keeper's attempt runs");
        if dice.percent(50) {
            self.orphans.insert(id.clone(), run);
        }
        self.tell(keeper.monitor, Mail::KeeperGone(id));
    }

    /// The monitor is gone: its mail is lost; a git of its own may still take a step, keepers finish.
    pub fn lose_monitor(&mut self, dice: &mut Dice, now: Time) {
        let Some(owner) = self.monitor.take() else { return };
        self.mail.clear();
        for mut job in std::mem::take(&mut self.jobs) {
            if job.owner == owner && dice.percent(50) {
                let _ = self.step(&mut job, dice, now);
            }
        }
        self.keepers.retain(|_, keeper| keeper.attempt.is_some());
        self.keepers.values_mut().for_each(|keeper| keeper.monitor = None);
    }

    /// The power is cut: every process is gone, and records that were not synced may be.
    pub fn lose_power(&mut self, dice: &mut Dice, now: Time) {
        self.lose_monitor(dice, now);
        self.keepers.clear();
        self.runs.clear();
        self.orphans.clear();
        let ids: Vec<AttemptId> = self.started.iter().cloned().collect();
        for id in ids.into_iter().rev().take(2) {
            if dice.percent(30) {
                self.exits.remove(&id);
                if dice.percent(50) {
                    self.started.remove(&id);
                }
            }
        }
    }
}

/// What an effect that failed says.
pub fn fault(work: &Work, why: String) -> Observation {
    match work {
        Work::Prepare { attempt, .. }
        | Work::Order { attempt, .. }
        | Work::Stop { attempt, .. }
        | Work::Save { attempt, .. }
        | Work::Advance { attempt, .. }
        | Work::EndOrphans { attempt, .. } => {
            Observation::AttemptFaulted { attempt: attempt.clone(), why }
        }
        Work::TakeBase { .. } | Work::Merge { .. } | Work::Land { .. } => {
            Observation::LaneFaulted { why }
        }
        Work::Follow { to, .. } => {
            Observation::FollowRefused { to: to.clone(), why, behind: 1, is_passing: true }
        }
    }
}

/// Returns whether an effect is one that shadow mode may not have.
pub fn touches_refs(effect: &Effect) -> bool {
    match effect {
        Effect::TakeBase { .. }
        | Effect::Merge { .. }
        | Effect::Land { .. }
        | Effect::Follow { .. } => true,
        Effect::Prepare { .. }
        | Effect::Start { .. }
        | Effect::Stop { .. }
        | Effect::Save { .. }
        | Effect::Advance { .. } => false,
    }
}
