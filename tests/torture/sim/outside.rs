//! What changes outside of the worktrees while attempts run, and the looks at it, as
//! `monitor::outside` and `monitor::lookout` have them, over the program's own `monitor::spans`:
//! whatever changed is told with all who ran then, however often monitors die between look, record
//! and keeping the look.
//!
//! In every fourth project, and drawn apart from all else, so that the others go as ever.

use std::time::{Duration, Instant};

use pipeline::machine::attempt::{Attempt, AttemptPhase};
use pipeline::machine::id::AttemptId;
use pipeline::machine::mode::{Isolation, Rollout};
use pipeline::machine::outside::{FOUND_MAX, Found, Ran};
use pipeline::machine::time::Time;
use pipeline::machine::{Observation, State};
use pipeline::monitor::spans::{Since, Spans, is_running};
use pipeline::sys::clock::monotonic;

use super::dice::Dice;
use super::monitor::Monitor;
use super::seed::Run;
use super::world::{ProcessStage, Report, World};

/// Fewer than are named of one attempt, so that none is only counted.
const CHANGES_MAX: usize = FOUND_MAX - 2;

/// One project's surroundings.
#[derive(Debug)]
pub struct Outside {
    dice: Dice,
    /// A moment later with each step.
    now: Instant,
    /// What changed, in order, and whose processes were there.
    changes: Vec<Vec<Ran>>,
    /// The look that was kept last: how many changes it saw, and what is kept with it.
    kept: Option<(usize, Since)>,
    life: Option<Life>,
}

/// What one monitor knows.
#[derive(Debug)]
struct Life {
    monitor: u32,
    spans: Spans,
    /// How many changes its last look saw; before the first, the kept one.
    seen: Option<usize>,
    has_looked: bool,
    /// A look that was asked for.
    owed: Option<Since>,
    look: Option<Look>,
    /// Told, and to be kept once it is on record.
    unkept: Option<(usize, Since)>,
    /// Attempts being prepared: each has it look.
    preparing: usize,
}

/// A look under way.
#[derive(Debug)]
struct Look {
    began: Instant,
    since: Since,
    saw: usize,
}

fn words(change: usize) -> String {
    format!("file {change} changed")
}

fn over(state: &State) -> impl Iterator<Item = &Attempt> {
    state.tasks.values().flat_map(|task| &task.history)
}

impl Outside {
    /// Returns what is outside of a project that is looked at.
    pub fn of(setup: u64) -> Option<Self> {
        let mut dice = Dice(setup ^ 0x007_51de);
        let is_looked_at = dice.permille(250);
        let (changes, kept, life) = (Vec::new(), None, None);
        is_looked_at.then_some(Self { dice, now: monotonic(), changes, kept, life })
    }

    /// Draws whether something changes, by whomever: more often while somebody is at work.
    fn change(&mut self, state: &State, world: &mut World) -> bool {
        let processes = world.keepers.values().filter_map(|keeper| keeper.process.as_ref());
        let running = processes.filter(|process| process.stage == ProcessStage::Running);
        let running: Vec<&AttemptId> = running.map(|process| &process.order.attempt).collect();
        let is_at_work = |it: &Attempt| running.contains(&&it.id);
        let ran = state.attempts.values().filter(|it| is_at_work(it) && it.task.is_some());
        let ran: Vec<Ran> = ran.map(|it| (it.id.clone(), it.task.clone())).collect();
        if !self.dice.permille(if ran.is_empty() { 3 } else { 80 }) {
            return false;
        }
        if !ran.is_empty() {
            world.marks.hit("something changes outside while an attempt runs");
        }
        self.changes.push(ran);
        true
    }

    /// One step of what a monitor does about it; returns what it is to be told.
    fn go(&mut self, monitor: &Monitor, mail: &[(u32, Report)]) -> Option<Observation> {
        let (state, at) = (monitor.cycle.ledger.state(), monitor.now());
        if self.life.as_ref().is_none_or(|life| life.monitor != monitor.number) {
            let has_git = state.settings.project.isolation == Isolation::Worktree;
            if !monitor.is_up() || !has_git || state.rollout == Rollout::Shadow {
                self.life = None;
                return None;
            }
            if let Some((_, since)) = &mut self.kept {
                since.at = since.at.min(at);
            }
            let owed = Since::new(state, at);
            self.life = Some(Life::open(monitor.number, self.kept.as_ref(), state, self.now, owed));
        }
        let life = self.life.as_mut()?;
        life.heed(state, self.now, at);
        let is_told =
            |report: &Report| matches!(report, Report::Seen(Observation::OutsideSeen { .. }));
        let mut told = mail.iter().map(|(_, report)| report).chain(&monitor.inbox);
        if !monitor.is_stale && !monitor.has_more() && !told.any(is_told) {
            self.kept = life.unkept.take().or(self.kept.take());
        }
        if life.look.is_none()
            && let Some(since) = life.owed.take()
        {
            life.look = Some(Look { began: self.now, since, saw: self.changes.len() });
            return None;
        }
        if !self.dice.permille(200) {
            return None;
        }
        let mut look = life.look.take()?;
        // What changes meanwhile is seen or not.
        if self.dice.permille(500) {
            look.saw = self.changes.len();
        }
        life.looked(look, self.now, &mut self.changes)
    }

    /// Returns true while something is to be looked at.
    fn is_owed(&self) -> bool {
        self.life
            .as_ref()
            .is_some_and(|life| life.owed.is_some() || life.look.is_some() || life.unkept.is_some())
    }

    /// Everyone who ran when something changed was told of it.
    fn is_told(&self, state: &State) {
        for (change, ran) in self.changes.iter().enumerate() {
            for (id, task) in ran {
                let mut known = over(state).chain(state.attempts.values());
                let Some(known) = known.find(|known| known.id == *id) else { continue };
                let is_told = known.outside.found.contains(&words(change));
                assert!(is_told, "{id} of {task:?} ran, and is not told: {}", words(change));
            }
        }
    }
}

impl Life {
    /// As `Outside::open`.
    fn open(
        monitor: u32,
        kept: Option<&(usize, Since)>,
        state: &State,
        now: Instant,
        owed: Since,
    ) -> Self {
        let mut spans = Spans::default();
        spans.open(state, kept.map(|(_, since)| since), now);
        let seen = kept.map(|(saw, _)| *saw);
        let (has_looked, owed, look, unkept, preparing) = (false, Some(owed), None, None, 0);
        Self { monitor, spans, seen, has_looked, owed, look, unkept, preparing }
    }

    /// As `Outside::begin` and `Outside::heed`.
    fn heed(&mut self, state: &State, now: Instant, at: Time) {
        for (id, attempt) in state.attempts.iter().filter(|(_, attempt)| is_running(attempt)) {
            self.spans.begin(id, attempt.task.clone(), now);
        }
        let has_ended = self.spans.end(state, now);
        let is_new = |attempt: &&Attempt| attempt.phase == AttemptPhase::Preparing;
        let preparing = state.attempts.values().filter(is_new).count();
        if has_ended || preparing > self.preparing {
            self.owed = Some(Since::new(state, at));
        }
        self.preparing = preparing;
    }

    /// As `Outside::looked`.
    fn looked(
        &mut self,
        look: Look,
        now: Instant,
        changes: &mut [Vec<Ran>],
    ) -> Option<Observation> {
        let (ran, is_first) = (self.spans.meanwhile(now), !self.has_looked);
        let (seen, saw) = (self.seen, look.saw);
        self.keep(look);
        let Some(seen) = seen else {
            // There was nothing to compare with: it is said that it is not known.
            changes[..saw].iter_mut().for_each(Vec::clear);
            return None;
        };
        let found = (seen..saw)
            .map(|change| Found { words: words(change), mark: format!("{change:016x}") });
        let found: Vec<Found> = found.collect();
        let is_news = !found.is_empty() && !ran.is_empty();
        is_news.then_some(Observation::OutsideSeen { ran, found, more: 0, is_first })
    }

    fn keep(&mut self, look: Look) {
        self.spans.looked(look.began);
        self.has_looked = true;
        self.seen = Some(look.saw);
        self.unkept = Some((look.saw, look.since));
    }
}

impl Run {
    /// Lets things change outside, and looks go on; returns true while a look is owed.
    pub fn outside_step(&mut self) -> bool {
        let Some(outside) = &mut self.outside else { return false };
        outside.now += Duration::from_millis(1);
        let monitor = self.monitor.as_ref().filter(|monitor| !monitor.is_paused);
        let told = monitor
            .and_then(|monitor| Some((monitor.number, outside.go(monitor, &self.world.mail)?)));
        let has_git = self.judge.state.settings.project.isolation == Isolation::Worktree;
        let is_full = outside.changes.len() >= CHANGES_MAX;
        let may_change = !self.world.is_kind && has_git && !is_full;
        let has_changed = may_change && outside.change(&self.judge.state, &mut self.world);
        let is_owed = outside.is_owed() && self.monitor.is_some();
        if has_changed {
            self.note(|| "something changes outside".into());
        }
        if let Some((number, seen)) = told {
            self.note(|| format!("a look tells {seen:?}"));
            self.world.marks.hit("what changed outside is told with those who ran");
            self.world.mail.push((number, Report::Seen(seen)));
        }
        is_owed
    }

    /// All that changed outside was told.
    pub fn outside_is_told(&self) {
        if let Some(outside) = &self.outside {
            outside.is_told(&self.judge.state);
        }
    }
}
