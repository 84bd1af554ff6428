//! A modelled world, only as large as the scope needs: branches, pins, and what keepers ran.
//!
//! A commit's name says all that it holds, so that ancestry is a question of the text:
//! `b` the first base, `p1(x)` a person's commit on `x`, `sA.bld.1(x)` what an attempt left on `x`,
//! `mA.1(x,y)` the landing of `A`, `t(x,y)` the base taken in.

use std::collections::{BTreeMap, BTreeSet};

use pipeline::machine::attempt::{EndedBy, Exit, Marker};
use pipeline::machine::id::{AttemptId, Oid, TaskId};
use pipeline::machine::{Effect, Observation, State};

use super::config::NOW;

/// What is broken on purpose, to see that it is found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Flaw {
    None,
    /// A new monitor does not see that an attempt's process runs.
    ForgetsStart,
    /// The exit of an attempt is never found by a monitor that did not hear of it.
    ForgetsExit,
    /// What an attempt left is committed, but not pinned.
    ForgetsPin,
    /// A landing is reported before the branch has moved.
    LandsLater,
    /// Looks at the base find it where it once was.
    LooksBack,
}

/// How a process ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Ending {
    Done,
    Failed,
    Stopped,
}

/// Where a job stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Stand {
    Running,
    Exited(Ending),
    /// Its keeper was killed, and nothing says how it ended.
    Died,
}

/// What a keeper knows of an attempt.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Job {
    pub stand: Stand,
    /// How often it was executed.
    pub runs: u8,
    pub agent: String,
    pub slot: u32,
    /// `None` for checks.
    pub task: Option<TaskId>,
}

/// All that outlives a monitor, but the journal.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct World {
    pub base: Oid,
    pub landed: Option<Oid>,
    pub branches: BTreeMap<TaskId, Oid>,
    /// `refs/pipeline/salvage/<attempt>`.
    pub pins: BTreeMap<AttemptId, Oid>,
    /// What was found on a branch of ours that had to be put back.
    pub salvage: BTreeSet<Oid>,
    pub jobs: BTreeMap<AttemptId, Job>,
}

/// An effect under way, with what its monitor knew when it began.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Op {
    Prepare {
        attempt: AttemptId,
        task: Option<TaskId>,
        tip: Option<Oid>,
        at: Oid,
        place: Place,
    },
    Start {
        attempt: AttemptId,
        task: Option<TaskId>,
        place: Place,
    },
    /// A new monitor looks for an attempt that one before it ordered, or was about to.
    FindAgain {
        attempt: AttemptId,
        task: Option<TaskId>,
        place: Place,
        is_starting: bool,
    },
    Stop {
        attempt: AttemptId,
    },
    Save {
        attempt: AttemptId,
        base: Option<Oid>,
        merge: Option<Oid>,
        must_change: bool,
    },
    Advance {
        attempt: AttemptId,
        task: TaskId,
        from: Oid,
        to: Oid,
        is_moved: bool,
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
    },
}

/// A worktree slot of an agent.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Place {
    pub agent: String,
    pub slot: u32,
}

/// An observation on its way to a monitor.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Answer {
    Seen { tip: Oid, landed: Option<Oid> },
    Prepared { attempt: AttemptId, base: Oid, tip: Option<Oid> },
    Started { attempt: AttemptId },
    Exited { attempt: AttemptId, ending: Ending },
    Lost { attempt: AttemptId },
    Saved { attempt: AttemptId, commit: Option<Oid> },
    Advanced { attempt: AttemptId },
    Taken { base: Oid, landed: Oid, has_all: bool },
    Merged { task: TaskId, number: u32, commit: Oid, onto: Oid },
    AlreadyLanded { task: TaskId, number: u32, commit: Oid },
    Conflicts { task: TaskId, number: u32, onto: Oid },
    Landed { task: TaskId, number: u32, commit: Oid },
    Raced { task: TaskId, number: u32, found: Option<Oid> },
    Followed { to: Oid },
    FollowRefused { to: Oid },
    Faulted { attempt: AttemptId },
    LaneFaulted,
}

/// What an act leads to.
#[derive(Debug, Default)]
pub struct Acted {
    pub answer: Option<Answer>,
    /// The rest of an effect that takes several steps.
    pub rest: Option<Op>,
    /// The monitor hears of this attempt's end from now on.
    pub attends: Option<AttemptId>,
    /// Its process ended by this.
    pub ended: Option<AttemptId>,
}

/// Returns true when the history of `newer` holds `older`.
pub fn holds(newer: &Oid, older: &Oid) -> bool {
    newer.as_str().contains(older.as_str())
}

/// Returns how many landings of a task a commit holds.
pub fn landings(commit: &Oid, task: &TaskId) -> usize {
    let mark = format!("m{task}.");
    let found = commit.as_str().match_indices(&mark).map(|(at, _)| &commit.as_str()[at..]);
    let numbers: BTreeSet<&str> = found.filter_map(|text| text.split('(').next()).collect();
    numbers.len()
}

impl World {
    pub fn new() -> Self {
        Self {
            base: Oid::new("b"),
            landed: None,
            branches: BTreeMap::new(),
            pins: BTreeMap::new(),
            salvage: BTreeSet::new(),
            jobs: BTreeMap::new(),
        }
    }

    /// Returns what a look at base and landing branch finds.
    pub fn seen(&self, flaw: Flaw) -> Answer {
        let tip = if flaw == Flaw::LooksBack { Oid::new("b") } else { self.base.clone() };
        Answer::Seen { tip, landed: self.landed.clone() }
    }

    /// Carries out an effect, or its next step.
    ///
    /// # Errors
    /// What it must not have met.
    pub fn act(&mut self, op: &Op, flaw: Flaw) -> Result<Acted, String> {
        let answer = match op {
            Op::Prepare { attempt, task, tip, at, place } => {
                self.prepare(attempt, task.as_ref(), tip.as_ref(), at, place)?
            }
            Op::Start { attempt, task, place } => return Ok(self.start(attempt, task, place)),
            Op::FindAgain { attempt, task, place, is_starting } => {
                return Ok(self.find_again(attempt, task, place, *is_starting, flaw));
            }
            Op::Stop { attempt } => {
                let job = self.jobs.get_mut(attempt).filter(|job| job.stand == Stand::Running);
                let ended = job.map(|job| {
                    job.stand = Stand::Exited(Ending::Stopped);
                    attempt.clone()
                });
                return Ok(Acted { ended, ..Acted::default() });
            }
            Op::Save { attempt, base, merge, must_change } => {
                self.save(attempt, base.as_ref(), merge.as_ref(), *must_change, flaw)?
            }
            Op::Advance { attempt, task, from, to, is_moved: false } => {
                return Ok(self.advance(attempt, task, from, to));
            }
            Op::Advance { attempt, is_moved: true, .. } => {
                self.pins.remove(attempt);
                Answer::Advanced { attempt: attempt.clone() }
            }
            Op::TakeBase { base, landed } => self.take_base(base, landed.as_ref(), flaw)?,
            Op::Merge { task, number, tip, onto } => merge(task, *number, tip, onto),
            Op::Land { task, number, onto, commit } => self.land(task, *number, onto, commit, flaw),
            Op::Follow { to } if holds(to, &self.base) => {
                self.base = to.clone();
                Answer::Followed { to: to.clone() }
            }
            Op::Follow { .. } => self.seen(flaw),
        };
        Ok(Acted { answer: Some(answer), ..Acted::default() })
    }

    fn prepare(
        &mut self,
        attempt: &AttemptId,
        task: Option<&TaskId>,
        tip: Option<&Oid>,
        at: &Oid,
        place: &Place,
    ) -> Result<Answer, String> {
        let is_there = |job: &Job| job.agent == place.agent && job.slot == place.slot;
        let mut running = self.jobs.iter().filter(|(_, job)| job.stand == Stand::Running);
        if let Some((other, _)) = running.find(|(id, job)| *id != attempt && is_there(job)) {
            return Err(format!("the slot of {attempt} is cleaned while {other} runs in it"));
        }
        let tip = task.map(|task| {
            let tip = tip.unwrap_or(at).clone();
            self.put_back(task, &tip);
            tip
        });
        Ok(Answer::Prepared { attempt: attempt.clone(), base: at.clone(), tip })
    }

    fn start(&mut self, attempt: &AttemptId, task: &Option<TaskId>, place: &Place) -> Acted {
        let id = attempt.clone();
        match self.jobs.get(attempt).map(|job| job.stand) {
            None => self.execute(attempt, task, place),
            Some(Stand::Running) => {
                let answer = Some(Answer::Started { attempt: id.clone() });
                Acted { answer, attends: Some(id), ..Acted::default() }
            }
            Some(Stand::Exited(ending)) => {
                Acted { answer: Some(Answer::Exited { attempt: id, ending }), ..Acted::default() }
            }
            Some(Stand::Died) => {
                Acted { answer: Some(Answer::Lost { attempt: id }), ..Acted::default() }
            }
        }
    }

    fn execute(&mut self, attempt: &AttemptId, task: &Option<TaskId>, place: &Place) -> Acted {
        let job = self.jobs.entry(attempt.clone()).or_insert_with(|| Job {
            stand: Stand::Running,
            runs: 0,
            agent: place.agent.clone(),
            slot: place.slot,
            task: task.clone(),
        });
        job.stand = Stand::Running;
        job.runs += 1;
        let answer = Some(Answer::Started { attempt: attempt.clone() });
        Acted { answer, attends: Some(attempt.clone()), ..Acted::default() }
    }

    fn find_again(
        &mut self,
        attempt: &AttemptId,
        task: &Option<TaskId>,
        place: &Place,
        is_starting: bool,
        flaw: Flaw,
    ) -> Acted {
        let stand = self.jobs.get(attempt).map(|job| job.stand);
        match stand {
            Some(Stand::Running) if flaw == Flaw::ForgetsStart && is_starting => {
                self.execute(attempt, task, place)
            }
            Some(Stand::Running) if !is_starting => {
                Acted { attends: Some(attempt.clone()), ..Acted::default() }
            }
            Some(Stand::Exited(_)) if flaw == Flaw::ForgetsExit => Acted::default(),
            None if !is_starting => {
                let answer = Some(Answer::Lost { attempt: attempt.clone() });
                Acted { answer, ..Acted::default() }
            }
            Some(_) | None => self.start(attempt, task, place),
        }
    }

    fn save(
        &mut self,
        attempt: &AttemptId,
        base: Option<&Oid>,
        merge: Option<&Oid>,
        must_change: bool,
        flaw: Flaw,
    ) -> Result<Answer, String> {
        if self.jobs.get(attempt).is_some_and(|job| job.stand == Stand::Running) {
            return Err(format!("{attempt} is saved while it runs"));
        }
        let base = base.ok_or_else(|| format!("{attempt} is saved but was never prepared"))?;
        let parents = merge.map_or_else(|| base.to_string(), |merge| format!("{base},{merge}"));
        let is_any = must_change || merge.is_some();
        let commit = is_any.then(|| Oid::new(format!("s{attempt}({parents})")));
        if let Some(commit) = commit.clone().filter(|_| flaw != Flaw::ForgetsPin) {
            self.pins.insert(attempt.clone(), commit);
        }
        Ok(Answer::Saved { attempt: attempt.clone(), commit })
    }

    fn advance(&mut self, attempt: &AttemptId, task: &TaskId, from: &Oid, to: &Oid) -> Acted {
        if self.branches.get(task) != Some(from) {
            self.put_back(task, to);
        }
        self.branches.insert(task.clone(), to.clone());
        let rest = Op::Advance {
            attempt: attempt.clone(),
            task: task.clone(),
            from: from.clone(),
            to: to.clone(),
            is_moved: true,
        };
        Acted { rest: Some(rest), ..Acted::default() }
    }

    /// Puts a task's branch where it is wanted; what was found there is kept.
    fn put_back(&mut self, task: &TaskId, to: &Oid) {
        let found = self.branches.insert(task.clone(), to.clone());
        self.salvage.extend(found.filter(|found| !holds(to, found)));
    }

    fn take_base(
        &mut self,
        base: &Oid,
        recorded: Option<&Oid>,
        flaw: Flaw,
    ) -> Result<Answer, String> {
        let (next, has_all) = match (recorded, self.landed.clone()) {
            (None, Some(_)) => return Ok(self.seen(flaw)),
            (None, None) => (base.clone(), true),
            (Some(recorded), found) => {
                // Nobody else moves it in this scope: the real one would put it back.
                let found = found.filter(|found| holds(found, recorded));
                let found = found.ok_or_else(|| format!("the landing branch lacks {recorded}"))?;
                let has_all = holds(base, &found);
                let next = match (holds(&found, base), has_all) {
                    (true, _) => found,
                    (false, true) => base.clone(),
                    (false, false) => Oid::new(format!("t({found},{base})")),
                };
                (next, has_all)
            }
        };
        self.landed = Some(next.clone());
        Ok(Answer::Taken { base: base.clone(), landed: next, has_all })
    }

    fn land(&mut self, task: &TaskId, number: u32, onto: &Oid, commit: &Oid, flaw: Flaw) -> Answer {
        let task = task.clone();
        if flaw == Flaw::LandsLater {
            return Answer::Landed { task, number, commit: commit.clone() };
        }
        if self.landed.as_ref() == Some(onto) {
            self.landed = Some(commit.clone());
        } else if !self.landed.as_ref().is_some_and(|found| holds(found, commit)) {
            return Answer::Raced { task, number, found: self.landed.clone() };
        }
        Answer::Landed { task, number, commit: commit.clone() }
    }
}

fn merge(task: &TaskId, number: u32, tip: &Oid, onto: &Oid) -> Answer {
    let (task, onto) = (task.clone(), onto.clone());
    if holds(&onto, tip) {
        return Answer::AlreadyLanded { task, number, commit: onto };
    }
    let commit = Oid::new(format!("m{task}.{number}({onto},{tip})"));
    Answer::Merged { task, number, commit, onto }
}

impl Op {
    /// Returns what is answered when it fails.
    pub fn failed(&self) -> Option<Answer> {
        match self {
            Self::Prepare { attempt, .. }
            | Self::Start { attempt, .. }
            | Self::Save { attempt, .. }
            | Self::Advance { attempt, .. } => Some(Answer::Faulted { attempt: attempt.clone() }),
            Self::FindAgain { .. } | Self::Stop { .. } => None,
            Self::TakeBase { .. } | Self::Merge { .. } | Self::Land { .. } => {
                Some(Answer::LaneFaulted)
            }
            Self::Follow { to } => Some(Answer::FollowRefused { to: to.clone() }),
        }
    }

    /// Returns the attempt it is for.
    pub fn attempt(&self) -> Option<&AttemptId> {
        match self {
            Self::Prepare { attempt, .. }
            | Self::Start { attempt, .. }
            | Self::FindAgain { attempt, .. }
            | Self::Stop { attempt }
            | Self::Save { attempt, .. }
            | Self::Advance { attempt, .. } => Some(attempt),
            Self::TakeBase { .. }
            | Self::Merge { .. }
            | Self::Land { .. }
            | Self::Follow { .. } => None,
        }
    }

    /// Makes of an effect what the monitor's world makes of it, as it begins; `None`: it begins
    /// nothing.
    pub fn of(effect: &Effect, state: &State, is_inherited: bool) -> Option<Self> {
        let attempt = match effect {
            Effect::Prepare { attempt, .. }
            | Effect::Start { attempt, .. }
            | Effect::Stop { attempt }
            | Effect::Save { attempt, .. }
            | Effect::Advance { attempt, .. } => attempt,
            Effect::TakeBase { .. }
            | Effect::Merge { .. }
            | Effect::Land { .. }
            | Effect::Follow { .. } => return Self::of_lane(effect, state),
            // No pilot is dropped and no scheduler of others asked here.
            Effect::Drop { .. } | Effect::Propose { .. } => return None,
        };
        let found = state.attempts.get(attempt)?;
        let id = attempt.clone();
        let work = found.task.clone().filter(|_| found.is_work());
        let task = found.task.as_ref().and_then(|id| state.tasks.get(id));
        let place = Place { agent: found.agent.to_string(), slot: found.slot };
        Some(match effect {
            Effect::Prepare { .. } => Self::prepare(state, found, work, place)?,
            Effect::Start { .. } if is_inherited => {
                Self::FindAgain { attempt: id, task: work, place, is_starting: true }
            }
            Effect::Start { .. } => Self::Start { attempt: id, task: work, place },
            Effect::Stop { .. } => Self::Stop { attempt: id },
            Effect::Save { .. } => Self::Save {
                attempt: id,
                base: found.base.clone(),
                merge: found.merge.clone(),
                must_change: found.stage().is_some_and(|stage| stage.as_str() == "build"),
            },
            Effect::Advance { .. } => Self::Advance {
                attempt: id,
                task: task?.id.clone(),
                from: task?.tip.clone()?,
                to: found.saved.clone()?,
                is_moved: false,
            },
            Effect::TakeBase { .. }
            | Effect::Merge { .. }
            | Effect::Land { .. }
            | Effect::Follow { .. }
            | Effect::Drop { .. }
            | Effect::Propose { .. } => return None,
        })
    }

    fn prepare(
        state: &State,
        found: &pipeline::machine::attempt::Attempt,
        work: Option<TaskId>,
        place: Place,
    ) -> Option<Self> {
        use pipeline::machine::attempt::AttemptKind as Kind;
        let task = found.task.as_ref().and_then(|id| state.tasks.get(id));
        let attempt = found.id.clone();
        let tip = task.and_then(|task| task.tip.clone());
        let at = match &found.kind {
            Kind::LandingCheck { commit } | Kind::BaseCheck { commit } => commit.clone(),
            Kind::Work { .. } | Kind::StageCheck { .. } => {
                let own = task.filter(|task| task.continues == found.continues);
                let resume = own.and_then(|task| task.resume_from.clone());
                resume.or_else(|| tip.clone()).or_else(|| state.base.landed.clone())?
            }
        };
        let tip = work.as_ref().and(tip.or_else(|| state.base.landed.clone()));
        Some(Self::Prepare { attempt, task: work, tip, at, place })
    }

    fn of_lane(effect: &Effect, state: &State) -> Option<Self> {
        use pipeline::machine::lane::LandingPhase;
        match effect {
            Effect::TakeBase { base, landed, .. } => {
                Some(Self::TakeBase { base: base.clone(), landed: landed.clone() })
            }
            Effect::Merge { task, number, .. } => {
                let tip = state.tasks[task].tip.clone()?;
                let (task, onto) = (task.clone(), state.base.landed.clone()?);
                Some(Self::Merge { task, number: *number, tip, onto })
            }
            Effect::Land { task, number, .. } => match &state.landing.as_ref()?.phase {
                LandingPhase::Moving { commit, onto } => {
                    let (commit, onto) = (commit.clone(), onto.clone());
                    Some(Self::Land { task: task.clone(), number: *number, onto, commit })
                }
                LandingPhase::Merging | LandingPhase::Checking { .. } => None,
            },
            Effect::Follow { to, .. } => Some(Self::Follow { to: to.clone() }),
            Effect::Prepare { .. }
            | Effect::Start { .. }
            | Effect::Stop { .. }
            | Effect::Save { .. }
            | Effect::Advance { .. }
            | Effect::Drop { .. }
            | Effect::Propose { .. } => None,
        }
    }
}

impl Answer {
    /// Returns it as the machine is told.
    pub fn observation(&self) -> Observation {
        match self.clone() {
            Self::Seen { tip, landed } => Observation::BaseSeen { tip, landed },
            Self::Prepared { attempt, base, tip } => {
                Observation::Prepared { attempt, base: Some(base), tip }
            }
            Self::Started { attempt } => Observation::Started { attempt, at: NOW },
            Self::Exited { attempt, ending } => {
                Observation::Exited { attempt, exit: Box::new(exit(ending)) }
            }
            Self::Lost { attempt } => Observation::Lost { attempt, why: "killed".into() },
            Self::Saved { attempt, commit } => {
                let has_changed = commit.is_some();
                Observation::Saved {
                    attempt,
                    commit,
                    has_changed,
                    markers: Vec::new(),
                    notes: Vec::new(),
                    lacks: None,
                }
            }
            Self::Advanced { attempt } => {
                let file = attempt.as_str().split('.').next().unwrap_or_default().to_owned();
                Observation::Advanced { attempt, changed: Some(vec![file]) }
            }
            Self::Taken { base, landed, has_all } => {
                Observation::BaseTaken { base, landed, has_all }
            }
            Self::Merged { task, number, commit, onto } => {
                Observation::Merged { task, number, commit, onto, protected: Vec::new() }
            }
            Self::AlreadyLanded { task, number, commit } => {
                Observation::AlreadyLanded { task, number, commit }
            }
            Self::Conflicts { task, number, onto } => {
                let paths = vec!["x".to_owned()];
                Observation::MergeConflicts { task, number, onto, paths, with: Vec::new() }
            }
            Self::Landed { task, number, commit } => Observation::Landed { task, number, commit },
            Self::Raced { task, number, found } => {
                Observation::LandingRaced { task, number, found }
            }
            Self::Followed { to } => Observation::Followed { to },
            Self::FollowRefused { to } => {
                Observation::FollowRefused { to, why: "no".into(), behind: 1, is_passing: true }
            }
            Self::Faulted { attempt } => {
                Observation::AttemptFaulted { attempt, why: "no room".into() }
            }
            Self::LaneFaulted => Observation::LaneFaulted { why: "no room".into() },
        }
    }
}

fn exit(ending: Ending) -> Exit {
    let (code, signal, ended_by, marker) = match ending {
        Ending::Done => (Some(0), None, EndedBy::Exit, Some(Marker::Completed)),
        Ending::Failed => (Some(1), None, EndedBy::Exit, None),
        Ending::Stopped => (None, Some(15), EndedBy::Stop, None),
    };
    Exit {
        started_at: NOW,
        ended_at: NOW,
        code,
        signal,
        ended_by,
        command_index: 0,
        leaked: 0,
        cpu_ms: 0,
        rss_kib_max: 0,
        usage: pipeline::machine::usage::Usage::default(),
        fault: None,
        marker,
        notes: String::new(),
        tail: String::new(),
    }
}
