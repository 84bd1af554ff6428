//! The git work that monitors begin: each piece goes step by step, so that a crash falls between
//! any two of its steps.
//!
//! The steps are those of `monitor::prepare`, `monitor::work` and `monitor::lane`.

use std::collections::BTreeMap;

use pipeline::machine::attempt::{Attempt, AttemptKind};
use pipeline::machine::forecast::Trial;
use pipeline::machine::id::{AttemptId, Oid, TaskId};
use pipeline::machine::lane::LandingPhase;
use pipeline::machine::proposal::ProposalFault;
use pipeline::machine::task::{Clash, Task, TaskPhase};
use pipeline::machine::{Effect, Observation, State};

use super::agent::Plan;
use super::dice::Dice;
use super::mend::{Mending, Refs};
use super::propose;
use super::repo::{BASE, Commit, LANDED, commit_of, oid, pending_ref, salvage_ref};
use super::seed::Canary;
use super::world::{Place, Probe, ProcessStage, Report, World};

/// What is to be done, with all it needs copied from the state when it began.
#[derive(Debug, Clone, PartialEq)]
pub enum What {
    Prepare {
        attempt: AttemptId,
        place: Place,
        /// `None` for checks.
        task: Option<TaskId>,
        tip: Option<Commit>,
        /// Where a new task branch starts; or the commit to check.
        start: Option<Commit>,
        resume: Option<Commit>,
        /// It is to have a second parent.
        is_merge: bool,
        /// Landing commits that a new task branch must hold.
        owed: Vec<Commit>,
        has_setup: bool,
    },
    /// Makes a worktree ready ahead; nothing is told of it.
    Ahead {
        place: Place,
        at: Commit,
    },
    Save {
        attempt: AttemptId,
        place: Place,
        tip: Option<Commit>,
        merge: Option<Commit>,
    },
    Advance {
        attempt: AttemptId,
        task: TaskId,
        from: Option<Commit>,
        to: Option<Commit>,
    },
    TakeBase {
        base: Commit,
        landed: Option<Commit>,
    },
    Merge {
        task: TaskId,
        number: u32,
        tip: Commit,
        onto: Commit,
        date: u64,
    },
    Land {
        task: TaskId,
        number: u32,
        commit: Commit,
        onto: Commit,
    },
    Follow {
        to: Commit,
        from: Commit,
        behind: u64,
    },
    /// Resets the landing branch; `done`: what each finished task landed as.
    Drop {
        to: Commit,
        landed: Option<Commit>,
        done: Vec<(TaskId, Commit)>,
    },
    Look,
    /// Looks where our branches stand; then tells it.
    LookAtRefs(Option<Refs>),
    /// Puts branches of ours back.
    Mend(Mending),
    /// Tries a branch against others.
    Try(Box<Trial>),
    /// The external scheduler; what it will say.
    Propose(Box<Observation>),
    /// Ends what a dead keeper left.
    EndStrays {
        attempt: AttemptId,
    },
    /// Says that an attempt is lost.
    SayLost {
        attempt: AttemptId,
        why: String,
    },
}

/// How a piece of work goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Fate {
    Done,
    /// It fails before its last write.
    Refused,
    /// It is done, and reported as failed.
    Misreported,
    /// It never comes to an end in this monitor's life.
    Hangs,
}

/// A piece of work under way.
#[derive(Debug, Clone, PartialEq)]
pub struct Job {
    pub monitor: u32,
    pub what: What,
    pub step: u32,
    fate: Fate,
    /// What a step found out for the next one.
    found: Option<Commit>,
}

/// What an effect asks of git, or `None` where it is for a keeper or no longer known.
pub fn of_effect(effect: &Effect, state: &State) -> Option<What> {
    let commit = |oid: &Option<Oid>| oid.as_ref().map(commit_of);
    match effect {
        Effect::Prepare { attempt, .. } => Some(prepare(state, state.attempts.get(attempt)?)),
        Effect::Save { attempt, .. } => {
            let found = state.attempts.get(attempt)?;
            let task = &state.tasks[found.task.as_ref()?];
            Some(What::Save {
                attempt: attempt.clone(),
                place: (found.agent.clone(), found.slot),
                tip: commit(&task.tip).or(commit(&found.base)),
                merge: commit(&found.merge),
            })
        }
        Effect::Advance { attempt, .. } => {
            let found = state.attempts.get(attempt)?;
            let task = found.task.clone()?;
            let from = commit(&state.tasks[&task].tip);
            let to = commit(&found.saved);
            Some(What::Advance { attempt: attempt.clone(), task, from, to })
        }
        Effect::TakeBase { base, landed, .. } => {
            Some(What::TakeBase { base: commit_of(base), landed: commit(landed) })
        }
        Effect::Merge { task, number, .. } => Some(What::Merge {
            task: task.clone(),
            number: *number,
            tip: commit(&state.tasks[task].tip)?,
            onto: commit(&state.base.landed)?,
            date: state.landing.as_ref().map_or(0, |landing| landing.begun_at.as_ms() / 1000),
        }),
        Effect::Land { task, number, .. } => match &state.landing.as_ref()?.phase {
            LandingPhase::Moving { commit, onto } => Some(What::Land {
                task: task.clone(),
                number: *number,
                commit: commit_of(commit),
                onto: commit_of(onto),
            }),
            LandingPhase::Merging | LandingPhase::Checking { .. } => None,
        },
        Effect::Follow { to, .. } => Some(What::Follow {
            to: commit_of(to),
            from: commit(&state.base.tip)?,
            behind: state.base.behind,
        }),
        Effect::Drop { to, .. } => {
            let landed_as = |task: &Task| match &task.phase {
                TaskPhase::Completed { commit, .. } => {
                    commit.as_ref().map(|commit| (task.id.clone(), commit_of(commit)))
                }
                TaskPhase::Waiting
                | TaskPhase::Ready { .. }
                | TaskPhase::Working { .. }
                | TaskPhase::Landing { .. }
                | TaskPhase::Blocked(_)
                | TaskPhase::Cancelled { .. } => None,
            };
            let done = state.tasks.values().filter_map(landed_as).collect();
            Some(What::Drop { to: commit_of(to), landed: commit(&state.base.landed), done })
        }
        Effect::Start { .. } | Effect::Stop { .. } | Effect::Propose { .. } => None,
    }
}

fn prepare(state: &State, attempt: &Attempt) -> What {
    let commit = |oid: &Option<Oid>| oid.as_ref().map(commit_of);
    let task = attempt.task.as_ref().and_then(|id| state.tasks.get(id));
    let of_work = task.filter(|_| attempt.is_work());
    let start = match &attempt.kind {
        AttemptKind::LandingCheck { commit } | AttemptKind::BaseCheck { commit } => {
            Some(commit_of(commit))
        }
        AttemptKind::Work { .. } | AttemptKind::StageCheck { .. } => commit(&state.base.landed),
    };
    let deps = of_work.into_iter().flat_map(|task| &task.spec.depends_on);
    let owed = deps.filter_map(|dep| match &state.tasks.get(dep)?.phase {
        TaskPhase::Completed { commit, .. } => commit.as_ref().map(commit_of),
        TaskPhase::Waiting
        | TaskPhase::Ready { .. }
        | TaskPhase::Working { .. }
        | TaskPhase::Landing { .. }
        | TaskPhase::Blocked(_)
        | TaskPhase::Cancelled { .. } => None,
    });
    What::Prepare {
        attempt: attempt.id.clone(),
        place: (attempt.agent.clone(), attempt.slot),
        task: of_work.map(|task| task.id.clone()),
        tip: of_work.and_then(|task| commit(&task.tip)),
        start,
        resume: of_work
            .filter(|task| task.continues == attempt.continues)
            .and_then(|task| commit(&task.resume_from)),
        is_merge: attempt.merge.is_some(),
        owed: owed.collect(),
        has_setup: !state.rules_of(attempt).worktree.setup.is_empty(),
    }
}

impl Job {
    /// Returns true when its next step writes.
    pub fn is_writing(&self) -> bool {
        self.fate != Fate::Hangs
            && !self.is_for_show()
            && !matches!(
                self.what,
                What::EndStrays { .. } | What::SayLost { .. } | What::Propose(_)
            )
    }

    /// Returns true for a look or a trial: of one that fails nothing is told.
    fn is_for_show(&self) -> bool {
        matches!(self.what, What::Look | What::LookAtRefs(_) | What::Mend(_) | What::Try(_))
    }

    fn is_ahead(&self) -> bool {
        matches!(self.what, What::Ahead { .. })
    }

    /// Returns the worktree or the refs it works on: one git at a time may write there.
    fn place(&self) -> Option<&Place> {
        match &self.what {
            What::Prepare { place, .. } | What::Save { place, .. } | What::Ahead { place, .. } => {
                Some(place)
            }
            What::Advance { .. }
            | What::TakeBase { .. }
            | What::Merge { .. }
            | What::Land { .. }
            | What::Follow { .. }
            | What::Drop { .. }
            | What::Look
            | What::LookAtRefs(_)
            | What::Mend(_)
            | What::Try(_)
            | What::Propose(_)
            | What::EndStrays { .. }
            | What::SayLost { .. } => None,
        }
    }

    /// As `RealWorld::spawn_or`.
    fn fault(&self) -> Report {
        let why = String::from("disk full");
        Report::Seen(match &self.what {
            What::EndStrays { attempt } | What::SayLost { attempt, .. } => {
                return Report::Doubtful(attempt.clone());
            }
            What::Prepare { attempt, .. }
            | What::Save { attempt, .. }
            | What::Advance { attempt, .. } => {
                Observation::AttemptFaulted { attempt: attempt.clone(), why }
            }
            What::TakeBase { .. } | What::Merge { .. } | What::Land { .. } | What::Drop { .. } => {
                lane_fault()
            }
            What::Propose(answer) => match &**answer {
                Observation::Proposed { number, .. } | Observation::NotProposed { number, .. } => {
                    let fault = ProposalFault::Failed;
                    Observation::NotProposed { number: *number, fault, why }
                }
                other => unreachable!("{other:?} is no answer of it"),
            },
            What::Look
            | What::LookAtRefs(_)
            | What::Mend(_)
            | What::Try(_)
            | What::Ahead { .. } => {
                unreachable!("nothing is told of it")
            }
            What::Follow { to, behind, .. } => {
                let (to, behind) = (oid(*to), *behind);
                Observation::FollowRefused { to, why, behind, is_passing: true }
            }
        })
    }
}

/// Returns what a trial tells: some branches conflict.
fn tried(trial: &Trial) -> Observation {
    let tip = commit_of(&trial.tip);
    let is_clash = |other: &Oid| (commit_of(other) + tip).is_multiple_of(3);
    let paths = vec!["src/0".to_owned()];
    let landed = trial.onto.iter().filter(|onto| is_clash(onto)).map(|_| None);
    let others = trial.others.iter().filter(|(_, other)| is_clash(other));
    let with = landed.chain(others.map(|(id, _)| Some(id.clone())));
    Observation::Forecast {
        task: trial.task.clone(),
        tip: trial.tip.clone(),
        tried: trial.others.iter().map(|(id, _)| id.clone()).collect(),
        clashes: with.map(|with| Clash { with, paths: paths.clone() }).collect(),
    }
}

fn lane_fault() -> Observation {
    Observation::LaneFaulted { why: "disk full".into() }
}

impl World {
    /// Begins a piece of work for a monitor.
    pub fn begin(&mut self, monitor: u32, what: What, dice: &mut Dice) {
        if let What::Prepare { place, .. } = &what {
            self.withdraw(place, dice);
        }
        let (fault, hang) = (self.mix.fault, self.mix.hang);
        if let What::Propose(answer) = &what {
            self.marks.hit(propose::mark(answer));
        }
        // There is nothing in it to wait for; or it is ended when it takes too long.
        let is_said = matches!(what, What::SayLost { .. } | What::Propose(_));
        let fate = if !is_said && self.fails(dice, hang, "an effect is never answered") {
            Fate::Hangs
        } else if self.fails(dice, fault, "an effect fails") {
            let is_done = dice.permille(500);
            if is_done {
                self.marks.hit("an effect is done and reported as failed");
            }
            if is_done { Fate::Misreported } else { Fate::Refused }
        } else {
            Fate::Done
        };
        self.jobs.push(Job { monitor, what, step: 0, fate, found: None });
    }

    /// Has worktrees made ready ahead, one after another, as `monitor::ahead`; what is not wanted any
    /// more is not begun.
    pub fn want(&mut self, monitor: u32, wanted: BTreeMap<Place, Commit>, dice: &mut Dice) {
        self.jobs.retain(|job| !(job.is_ahead() && job.step == 0));
        let is_busy = self.jobs.iter().any(Job::is_ahead);
        let wanted: Vec<(Place, Commit)> = wanted.into_iter().collect();
        let Some((place, at)) = dice.pick(&wanted).filter(|_| !is_busy && dice.permille(500))
        else {
            return;
        };
        if self.ready.get(&place) != Some(&at) {
            self.ready.remove(&place);
            self.begin(monitor, What::Ahead { place, at }, dice);
        }
    }

    /// One step of making a worktree ready ahead.
    fn make_ahead(&mut self, mut job: Job, place: Place, at: Commit) {
        job.step += 1;
        if job.step == 1 {
            self.assert_quiet(&place, "made ready ahead");
            return self.jobs.push(job);
        }
        self.make_slot(&place, Some(at));
        if job.fate == Fate::Done {
            self.ready.insert(place, at);
        }
    }

    /// An attempt gets a place: what is made ready there is not begun, or ended half-way.
    fn withdraw(&mut self, place: &Place, dice: &mut Dice) {
        let is_there = |job: &mut Job| job.is_ahead() && job.place() == Some(place);
        let ended: Vec<Job> = self.jobs.extract_if(.., is_there).collect();
        for job in ended.iter().filter(|job| job.step == 1) {
            self.marks.hit("a worktree that is made ready ahead is wanted now");
            if dice.permille(500) {
                self.kill_half(job);
            }
        }
    }

    /// One step of one piece of work; returns false when none can go on.
    pub fn job_step(&mut self, dice: &mut Dice) -> bool {
        if !self.orphans.is_empty() && dice.permille(500) {
            let place = dice.below(self.orphans.len());
            let mut orphan = self.orphans.swap_remove(place);
            if let What::Ahead { place, at } = orphan.what {
                self.make_slot(&place, Some(at));
            } else {
                let _ = self.advance(&mut orphan, dice);
            }
            return true;
        }
        let is_shut = |job: &Job| {
            // A gate that an orphan keeps closed.
            let mut orphans = self.orphans.iter();
            job.is_writing() && orphans.any(|orphan| orphan.place() == job.place())
        };
        let hangs = |job: &Job| job.fate == Fate::Hangs && !self.is_kind;
        let able: Vec<usize> = (0..self.jobs.len())
            .filter(|at| !hangs(&self.jobs[*at]) && !is_shut(&self.jobs[*at]))
            .collect();
        let Some(at) = dice.pick(&able) else { return !self.orphans.is_empty() };
        let mut job = self.jobs.swap_remove(at);
        if job.fate == Fate::Refused && (job.step == 1 || dice.permille(500)) {
            if !job.is_for_show() && !job.is_ahead() {
                self.mail.push((job.monitor, job.fault()));
            }
            return true;
        }
        if let What::Ahead { place, at } = job.what.clone() {
            self.make_ahead(job, place, at);
            return true;
        }
        if matches!(job.what, What::LookAtRefs(_) | What::Mend(_)) {
            self.mend_step(job);
            return true;
        }
        match self.advance(&mut job, dice) {
            None => self.jobs.push(job),
            Some(_) if self.canary == Canary::Idles && dice.permille(50) => {}
            Some(seen) => {
                let is_wrong = job.fate == Fate::Misreported;
                let is_blind = job.what == What::Look && job.found.is_none();
                if is_blind || is_wrong && job.is_for_show() {
                    return true;
                }
                let told = if is_wrong { job.fault() } else { Report::Seen(seen) };
                let repeat = self.mix.repeat;
                if self.fails(dice, repeat, "an answer comes twice") {
                    self.mail.push((job.monitor, told.clone()));
                }
                self.mail.push((job.monitor, told));
            }
        }
        true
    }

    /// A git was killed in the middle of what it wrote.
    pub fn kill_half(&mut self, job: &Job) {
        if let (What::Prepare { place, .. } | What::Ahead { place, .. }, 1) = (&job.what, job.step)
        {
            let slot = self.slots.entry(place.clone()).or_default();
            if slot.unsaved.is_none() {
                self.marks.hit("git killed while it made a worktree");
                slot.is_half = true;
            }
        }
    }

    fn advance(&mut self, job: &mut Job, dice: &mut Dice) -> Option<Observation> {
        let step = job.step;
        job.step += 1;
        match job.what.clone() {
            What::Prepare {
                attempt,
                place,
                task,
                tip,
                start,
                resume,
                is_merge,
                owed,
                has_setup,
            } => {
                if step == 0 {
                    let is_plain = resume.is_none() && !is_merge;
                    job.found = self.branch(task.as_ref(), tip, start, is_plain, &owed);
                    return None;
                }
                if resume.is_some() {
                    self.marks.hit("work that was cut short is gone on from");
                }
                let at = resume.or(job.found).or(start);
                let is_ready = self.ready.remove(&place).is_some_and(|ready| Some(ready) == at);
                let slot = self.slots.entry(place.clone()).or_default();
                if is_ready && !slot.is_gone {
                    assert_eq!((slot.head, slot.is_half || slot.is_used), (at, false), "{place:?}");
                    self.marks.hit("a worktree was made ready ahead");
                } else {
                    self.make_slot(&place, at);
                }
                if has_setup && self.fails(dice, self.mix.setup, "a worktree's setup fails") {
                    self.slots.entry(place).or_default().is_half = true;
                    return Some(Observation::SetupFailed { attempt, why: "setup".into() });
                }
                let tip = task.and(job.found).map(oid);
                Some(Observation::Prepared { attempt, base: at.map(oid), tip })
            }
            What::Save { attempt, place, tip, merge } => {
                self.save(&attempt, &place, tip, merge, dice)
            }
            What::Advance { attempt, task, from, to } => {
                self.advance_branch(step, attempt, &task, from, to)
            }
            What::TakeBase { base, landed } => self.take_base(job, step, base, landed, dice),
            What::Merge { task, number, tip, onto, date } => {
                Some(self.merge(&task, number, (tip, onto), date, dice))
            }
            What::Land { task, number, commit, onto } => {
                self.land(job, step, &task, (number, commit, onto))
            }
            What::Follow { to, from, behind } => Some(self.follow(to, from, behind, dice)),
            What::Drop { to, landed, done } => self.drop_pilot(step, to, landed, &done),
            What::Ahead { .. } | What::LookAtRefs(_) | What::Mend(_) => {
                unreachable!("`World::make_ahead` or `World::mend_step` does it")
            }
            What::Look => self.look(job, step),
            What::Try(trial) => Some(tried(&trial)),
            What::Propose(answer) => Some(*answer),
            What::EndStrays { attempt } => {
                if step == 0 {
                    self.strays.retain(|stray| stray.order.attempt != attempt);
                    return None;
                }
                Some(Observation::Lost { attempt, why: "its keeper died".into() })
            }
            What::SayLost { attempt, why } => Some(Observation::Lost { attempt, why }),
        }
    }

    fn make_slot(&mut self, place: &Place, at: Option<Commit>) {
        let slot = self.slots.entry(place.clone()).or_default();
        assert!(slot.unsaved.is_none(), "I7: the work of {:?} is cleaned away", slot.unsaved);
        if slot.is_half {
            self.marks.hit("a half worktree is made again");
        }
        let slot = self.slots.entry(place.clone()).or_default();
        slot.is_half = false;
        slot.is_gone = false;
        slot.is_used = false;
        slot.head = at;
        self.assert_quiet(place, "cleaned");
    }

    /// Nothing runs in a worktree while we work there.
    fn assert_quiet(&self, place: &Place, what: &str) {
        let living = self.keepers.values().filter_map(|keeper| keeper.process.as_ref());
        for process in living.chain(&self.strays) {
            let runs = process.stage == ProcessStage::Running && process.plan != Plan::Unstartable;
            let (is_here, of) = (process.order.place == *place, &process.order.attempt);
            assert!(!(runs && is_here), "I9: {place:?} is {what} while `{of}` runs there");
        }
    }

    fn save(
        &mut self,
        attempt: &AttemptId,
        place: &Place,
        tip: Option<Commit>,
        merge: Option<Commit>,
        dice: &mut Dice,
    ) -> Option<Observation> {
        let attempt = attempt.clone();
        self.assert_quiet(place, "saved");
        let slot = self.slots.entry(place.clone()).or_default();
        if slot.is_gone {
            self.marks.hit("a worktree goes away under an attempt");
            return Some(Observation::WorktreeGone { attempt, commit: None });
        }
        let name = salvage_ref(attempt.as_str());
        // What it left goes on top of where it began.
        let holds = |head: &Commit| tip.is_none_or(|tip| self.repo.holds(*head, tip));
        let below = slot.head.filter(holds).or(tip);
        let is_resumed = below != tip;
        let is_own = slot.unsaved.as_ref() == Some(&attempt) || self.repo.read(&name).is_some();
        slot.unsaved = slot.unsaved.take().filter(|of| *of != attempt);
        let has_changed = is_own || is_resumed;
        let commit = (has_changed || merge.is_some()).then(|| {
            let parents: Vec<Commit> = below.into_iter().chain(merge).collect();
            let recipe = format!("work {attempt} {tip:?} {merge:?}");
            let commit = match below.filter(|_| !is_own && is_resumed && merge.is_none()) {
                Some(below) => below,
                None => self.repo.make(&recipe, &parents),
            };
            if self.canary == Canary::DropsWork {
                self.repo.keep(commit);
            } else {
                self.repo.pin(&name, commit);
            }
            commit
        });
        let leaves = merge.is_some() && self.mix.conflict > 0;
        let markers = if leaves && self.fails(dice, 500, "conflict markers are left") {
            vec!["src/a.rs".to_owned()]
        } else {
            Vec::new()
        };
        Some(Observation::Saved {
            attempt,
            commit: commit.map(oid),
            has_changed,
            markers,
            notes: Vec::new(),
            lacks: None,
        })
    }

    /// Where the landing branch stands: at `recorded`, or at what descends from it.
    fn standing(&mut self, recorded: Commit) -> Commit {
        let found = self.repo.read(LANDED);
        match found {
            Some(found) if self.repo.holds(found, recorded) => found,
            Some(_) | None => {
                self.marks.hit("the landing branch is put back");
                self.repo.put_back(LANDED, recorded, found);
                recorded
            }
        }
    }

    fn look(&mut self, job: &mut Job, step: u32) -> Option<Observation> {
        if step == 0 {
            job.found = self.repo.read(BASE);
            return None;
        }
        let tip = job.found.map_or_else(|| oid(0), oid);
        Some(Observation::BaseSeen { tip, landed: self.repo.read(LANDED).map(oid) })
    }

    /// Where base and landing branch stand.
    fn base_seen(&self) -> Observation {
        let Some(tip) = self.repo.read(BASE) else { return lane_fault() };
        Observation::BaseSeen { tip: oid(tip), landed: self.repo.read(LANDED).map(oid) }
    }

    fn take_base(
        &mut self,
        job: &mut Job,
        step: u32,
        base: Commit,
        landed: Option<Commit>,
        dice: &mut Dice,
    ) -> Option<Observation> {
        let taken =
            |at, has_all| Observation::BaseTaken { base: oid(base), landed: oid(at), has_all };
        let Some(landed) = landed else {
            let made = self.repo.swap(LANDED, Some(base), None);
            return Some(made.map_or_else(|_| self.base_seen(), |()| taken(base, true)));
        };
        if step == 0 {
            job.found = Some(self.standing(landed));
            return None;
        }
        let landed = job.found?;
        let has_all = self.repo.holds(base, landed);
        if self.repo.holds(landed, base) {
            return Some(taken(landed, has_all));
        }
        let conflict = self.mix.conflict / 4;
        if self.fails(dice, conflict, "the base conflicts with what has landed") {
            return Some(Observation::BaseConflicts { base: oid(base), paths: vec!["x".into()] });
        }
        let next = if has_all {
            base
        } else {
            self.repo.make(&format!("take {base} {landed}"), &[landed, base])
        };
        Some(match self.repo.swap(LANDED, Some(next), Some(landed)) {
            Ok(()) => taken(next, has_all),
            Err(_) => lane_fault(),
        })
    }

    fn merge(
        &mut self,
        task: &TaskId,
        number: u32,
        (tip, onto): (Commit, Commit),
        date: u64,
        dice: &mut Dice,
    ) -> Observation {
        let id = task.clone();
        if self.repo.holds(onto, tip) {
            return Observation::AlreadyLanded { task: id, number, commit: oid(onto) };
        }
        let (conflict, protected) = (self.mix.conflict, self.mix.protected);
        if self.fails(dice, conflict, "a landing conflicts") {
            let (onto, paths) = (oid(onto), vec!["src/a.rs".into()]);
            return Observation::MergeConflicts { task: id, number, onto, paths, with: Vec::new() };
        }
        let commit = self.repo.make_landing(task, onto, tip, date);
        self.repo.note(&pending_ref(task), commit);
        let is_protected = self.fails(dice, protected, "a landing touches protected paths");
        let protected = if is_protected { vec!["pipeline.toml".into()] } else { Vec::new() };
        Observation::Merged { task: id, number, commit: oid(commit), onto: oid(onto), protected }
    }

    fn land(
        &mut self,
        job: &mut Job,
        step: u32,
        task: &TaskId,
        (number, commit, onto): (u32, Commit, Commit),
    ) -> Option<Observation> {
        let id = task.clone();
        if step == 0 {
            job.found = None;
            if self.repo.swap(LANDED, Some(commit), Some(onto)).is_err() {
                let found = self.standing(onto);
                let is_moved =
                    found == onto && self.repo.swap(LANDED, Some(commit), Some(onto)).is_ok();
                if !is_moved && !self.repo.holds(found, commit) {
                    self.marks.hit("a landing is raced");
                    let found = Some(oid(found));
                    return Some(Observation::LandingRaced { task: id, number, found });
                }
            }
            let landings = self.repo.landings(task, self.repo.read(LANDED).unwrap_or(commit));
            let is_right = landings <= self.repo.landings_max(task);
            assert!(is_right, "I5: `{task}` has landed {landings} times");
            return None;
        }
        let _ = self.repo.swap(&pending_ref(task), None, Some(commit));
        Some(Observation::Landed { task: id, number, commit: oid(commit) })
    }

    fn drop_pilot(
        &mut self,
        step: u32,
        to: Commit,
        landed: Option<Commit>,
        done: &[(TaskId, Commit)],
    ) -> Option<Observation> {
        let found = self.repo.read(LANDED);
        if self.repo.read(BASE) != Some(to) {
            self.marks.hit("the base moves while a pilot is dropped");
            return Some(self.base_seen());
        }
        if step == 0 {
            for at in [landed, found].into_iter().flatten() {
                self.repo.note(&salvage_ref(&format!("pilot-{at}")), at);
            }
            return None;
        }
        if found != Some(to) && self.repo.swap(LANDED, Some(to), found).is_err() {
            return Some(lane_fault());
        }
        self.marks.hit("a pilot is dropped");
        let has = |from: Option<Commit>, at| from.is_some_and(|from| self.repo.holds(from, at));
        let is_lost = |at: Commit| has(landed, at) && !has(Some(to), at);
        let lost = done.iter().filter(|(_, at)| is_lost(*at)).map(|(id, _)| id.clone());
        Some(Observation::PilotDropped { to: oid(to), lost: lost.collect() })
    }

    fn follow(&mut self, to: Commit, from: Commit, behind: u64, dice: &mut Dice) -> Observation {
        let refused = |why: &str, is_passing| {
            let (to, why) = (oid(to), why.into());
            Observation::FollowRefused { to, why, behind, is_passing }
        };
        if self.repo.read(LANDED).is_none_or(|landed| !self.repo.holds(landed, to)) {
            return refused("it has not landed", true);
        }
        let Some(found) = self.repo.read(BASE) else {
            return refused("the base branch is gone", false);
        };
        if self.repo.holds(found, to) {
            return Observation::Followed { to: oid(to) };
        }
        if found != from || !self.repo.holds(to, found) {
            return self.base_seen();
        }
        let refusal = self.mix.refusal;
        if self.fails(dice, refusal, "the checkout refuses") {
            return refused("edits overlap", dice.permille(500));
        }
        self.repo.swap(BASE, Some(to), Some(found)).expect("I8: the base moves from where it was");
        Observation::Followed { to: oid(to) }
    }

    /// What a monitor does about an attempt whose keeper is gone, but for starting it.
    pub fn begin_lost(&mut self, monitor: u32, attempt: AttemptId, found: Probe, dice: &mut Dice) {
        let what = match found {
            Probe::Strays => What::EndStrays { attempt },
            Probe::Nothing => {
                What::SayLost { attempt, why: "its keeper died before it began".into() }
            }
            Probe::Started | Probe::KeeperAlive | Probe::Ended(_) => {
                What::SayLost { attempt, why: "its keeper died".into() }
            }
        };
        self.begin(monitor, what, dice);
    }
}
