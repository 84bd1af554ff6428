//! What happens outside of the worktrees while attempts run: looks are asked for, what they tell is
//! told with the attempts that ran, and our own branches are put back where others moved them.
//!
//! What stood at one look and no longer at the next changed between the begin of the first and the
//! end of the second, so it is told with every attempt that ran meanwhile, and with no other.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;
use std::sync::mpsc::{Sender, channel};
use std::thread;
use std::time::Instant;

use xxhash_rust::xxh3::xxh3_64;

use super::lookout::{Answer, FAILURES_MAX, Files, Looked, Lookout, Order};
use super::mend::{self, Mend, Mended};
use super::sources::Input;
use super::work::refs;
use crate::git::{Difference, Repo};
use crate::machine::attempt::{Attempt, AttemptPhase};
use crate::machine::id::{AttemptId, TaskId};
use crate::machine::mode::{Isolation, Rollout};
use crate::machine::outside::{FOUND_MAX, Found, Ran};
use crate::machine::{Effect, Observation, State};
use crate::observe::page::{clean, cut};
use crate::sys::clock::{SystemClock, monotonic};

/// Steps of the base that are remembered as ours.
const MOVES_MAX: usize = 64;
/// Refs that were put back, remembered as told.
const TOLD_MAX: usize = 256;
/// Most columns of one difference.
const COLUMNS_MAX: usize = 160;

/// From when to when an attempt ran.
#[derive(Debug)]
struct Span {
    task: Option<TaskId>,
    begun: Instant,
    ended: Option<Instant>,
}

/// What is asked of the thread that looks, and what is known of attempts until it has answered.
pub struct Outside {
    repo: Option<Arc<Repo>>,
    orders: Option<Sender<Order>>,
    asked: u64,
    answered: u64,
    failures: u32,
    /// Attempts that ran, until a look that began after their end has told what changed.
    ran: BTreeMap<AttemptId, Span>,
    /// When the last whole look began; `None`: before this monitor.
    since: Option<Instant>,
    /// Where the base was to follow to, newest last: these steps are ours.
    moves: VecDeque<String>,
    /// Names in salvage of which people know.
    told: BTreeSet<String>,
    /// The look that can be kept once all that was told of it is on record.
    unkept: Option<u64>,
    /// Mends under way.
    mending: usize,
    /// Who ran when what could not be put back was moved: told with them once it is.
    unmended: Vec<Ran>,
    /// Mends that failed in a row.
    mend_failures: u32,
    input: Sender<Input>,
}

/// What comes of a look for the loop to do.
#[derive(Debug, Default)]
pub struct News {
    pub observations: Vec<Observation>,
    pub warning: Option<String>,
}

impl Outside {
    /// Makes it; nothing is looked at until it is opened.
    pub fn new(input: Sender<Input>) -> Self {
        Self {
            repo: None,
            orders: None,
            asked: 0,
            answered: 0,
            failures: 0,
            ran: BTreeMap::new(),
            since: None,
            moves: VecDeque::new(),
            told: BTreeSet::new(),
            unkept: None,
            mending: 0,
            unmended: Vec::new(),
            mend_failures: 0,
            input,
        }
    }

    /// Returns true when the rollout has left shadow, in which there was nothing to look at.
    pub fn is_to_open(&self, state: &State) -> bool {
        self.repo.is_none()
            && state.rollout != Rollout::Shadow
            && state.settings.project.isolation == Isolation::Worktree
    }

    /// Begins: compares with what the monitor before this one kept, and names what ran since.
    /// Without `repo`, or in shadow, there is nothing to look at. Returns a warning.
    pub fn open(
        &mut self,
        repo: Option<Arc<Repo>>,
        state: &State,
        files: Files,
        clock: SystemClock,
    ) -> Option<String> {
        let repo = repo.filter(|_| state.rollout != Rollout::Shadow)?;
        self.repo = Some(Arc::clone(&repo));
        let kept = files.read();
        let now = monotonic();
        let over = state.tasks.values().flat_map(|task| &task.history);
        for attempt in state.attempts.values().chain(over) {
            let is_running = is_running(attempt);
            let ended_at = attempt.exit.as_ref().map(|exit| exit.ended_at);
            let ended_at = ended_at.or(attempt.verdict.as_ref().map(|verdict| verdict.at));
            let is_since = kept.as_ref().is_some_and(|kept| ended_at > Some(kept.at));
            if is_running || is_since {
                let ended = (!is_running).then_some(now);
                let span = Span { task: attempt.task.clone(), begun: now, ended };
                self.ran.insert(attempt.id.clone(), span);
            }
        }
        let base = &state.base;
        let goals = base.follow.as_ref().map(|follow| &follow.to).into_iter().chain(&base.landed);
        self.moves.extend(goals.map(|to| to.as_str().to_owned()));
        let unknown = (kept.is_none() && !self.ran.is_empty()).then(|| {
            let ids: Vec<&str> = self.ran.keys().map(AttemptId::as_str).collect();
            format!("what changed outside while {} ran until now is not known", ids.join(", "))
        });
        let lookout = Lookout::new(repo, clock, files, self.input.clone(), kept);
        let (orders, receiver) = channel();
        let spawned = crate::sys::fail::point("outside.spawn").and_then(|()| {
            let serve = move || lookout.serve(&receiver);
            thread::Builder::new().name("outside".into()).spawn(serve)
        });
        match spawned {
            Ok(_) => self.orders = Some(orders),
            Err(error) => {
                return Some(format!(
                    "cannot start a thread ({error}): what agents change outside of their \
                     worktrees is not looked at until the next start"
                ));
            }
        }
        self.ask_whole(state);
        unknown
    }

    /// Returns true while a look, or what follows from it, is to come.
    pub fn is_owed(&self) -> bool {
        // Looks that always fail are not waited for.
        let is_looked_for = self.asked != self.answered && self.failures < FAILURES_MAX;
        self.orders.is_some() && (is_looked_for || self.mending > 0)
    }

    /// Asks for a look at our refs alone: the safety net.
    pub fn poll(&mut self, state: &State) {
        if state.rollout != Rollout::Shadow {
            self.ask(None, state);
        }
    }

    fn ask_whole(&mut self, state: &State) {
        let settings = &state.settings;
        let ignored = vec![
            ".pipeline/".to_owned(),
            format!("{}/", settings.worktree.dir.trim_end_matches('/')),
            settings.project.current_task_file.clone(),
        ];
        self.ask(Some(ignored), state);
    }

    fn ask(&mut self, ignored: Option<Vec<String>>, state: &State) {
        let Some(orders) = &self.orders else { return };
        self.asked += 1;
        let is_shared = self.ran.values().any(|span| span.ended.is_none());
        let (number, landing) = (self.asked, mend::landing_branch(state));
        let order = Order::Look { number, ignored, landing, is_shared };
        if orders.send(order).is_err() {
            self.orders = None;
        }
    }

    /// Is told what is about to be done.
    pub fn begin(&mut self, effect: &Effect, state: &State) {
        match effect {
            Effect::Prepare { .. } => self.ask_whole(state),
            Effect::Start { attempt, .. } if self.orders.is_some() => {
                let task = state.attempts.get(attempt).and_then(|it| it.task.clone());
                let span = Span { task, begun: monotonic(), ended: None };
                self.ran.entry(attempt.clone()).or_insert(span);
            }
            Effect::Follow { to, .. } => {
                self.moves.push_back(to.as_str().to_owned());
                let surplus = self.moves.len().saturating_sub(MOVES_MAX);
                self.moves.drain(..surplus);
            }
            Effect::Start { .. }
            | Effect::Stop { .. }
            | Effect::Save { .. }
            | Effect::Advance { .. }
            | Effect::TakeBase { .. }
            | Effect::Merge { .. }
            | Effect::Land { .. }
            | Effect::Drop { .. }
            | Effect::Propose { .. } => {}
        }
    }

    /// Finds out which attempts have ended: what they did is to be looked at.
    pub fn heed(&mut self, state: &State) {
        let now = monotonic();
        let mut has_ended = false;
        for (id, span) in self.ran.iter_mut().filter(|(_, span)| span.ended.is_none()) {
            if !state.attempts.get(id).is_some_and(is_running) {
                span.ended = Some(now);
                has_ended = true;
            }
        }
        if has_ended {
            self.ask_whole(state);
        }
    }

    /// Says that all that was told is on record.
    pub fn settle(&mut self) {
        // What is being put back is not told yet, and a look that is kept is not told of again.
        if self.mending > 0 || !self.unmended.is_empty() {
            return;
        }
        if let (Some(number), Some(orders)) = (self.unkept.take(), &self.orders) {
            // The thread is gone with the process only.
            let _ = orders.send(Order::Keep { number });
        }
    }

    /// Takes in what a look told.
    pub fn looked(&mut self, answer: Answer, state: &State) -> News {
        let looked = match answer {
            Ok(looked) => looked,
            Err((number, why)) => return self.failed(number, &why, state),
        };
        self.answered = self.answered.max(looked.number);
        if looked.is_whole {
            self.failures = 0;
        }
        let since = self.since;
        let overlaps = |span: &Span| {
            span.begun < looked.ended
                && span.ended.is_none_or(|ended| since.is_none_or(|since| ended > since))
        };
        let ran: Vec<Ran> = self
            .ran
            .iter()
            .filter(|(_, span)| overlaps(span))
            .map(|(id, span)| (id.clone(), span.task.clone()))
            .collect();
        let found = self.found(&looked, state);
        let unheld = self.mend(&looked, state, &ran);
        if looked.is_whole {
            self.since = Some(looked.began);
            self.ran.retain(|_, span| span.ended.is_none_or(|ended| ended > looked.began));
            self.unkept = Some(looked.number);
        }
        let mut observations: Vec<Observation> = unheld.into_iter().collect();
        if !found.is_empty() && !ran.is_empty() {
            let more = looked.more + found.len().saturating_sub(FOUND_MAX) as u64;
            let found = found.into_iter().take(FOUND_MAX).collect();
            let is_first = looked.is_first;
            observations.push(Observation::OutsideSeen { ran, found, more, is_first });
        }
        News { observations, warning: None }
    }

    /// Nothing is known of what changed: asked again, and told in the end.
    fn failed(&mut self, number: u64, why: &str, state: &State) -> News {
        self.answered = self.answered.max(number);
        self.failures += 1;
        if self.failures < FAILURES_MAX {
            self.ask_whole(state);
            return News::default();
        }
        let over = self.ran.iter().filter(|(_, span)| span.ended.is_some());
        let ids: Vec<String> = over.map(|(id, _)| id.to_string()).collect();
        self.ran.retain(|_, span| span.ended.is_none());
        let ran = if ids.is_empty() { "attempts".to_owned() } else { ids.join(", ") };
        let warning =
            Some(format!("it is not known what changed outside while {ran} ran: {}", why.trim()));
        News { observations: Vec::new(), warning }
    }

    /// Returns what is to be told of a look, but for what we did ourselves.
    fn found(&self, looked: &Looked, state: &State) -> Vec<Found> {
        let base = format!("refs/heads/{}", state.settings.project.base);
        let is_own = |found: &&Difference| match found {
            Difference::Ref { name, new: Some(new), .. } => {
                *name == base && self.moves.contains(new)
            }
            Difference::Ref { new: None, .. }
            | Difference::Head { .. }
            | Difference::Path { .. } => false,
        };
        let foreign = looked.differences.iter().filter(|found| !is_own(found));
        let mut found: Vec<Found> = foreign
            .map(|found| Found {
                words: cut(&clean(&found.words()), COLUMNS_MAX).into_owned(),
                mark: format!("{:016x}", xxh3_64(format!("{found:?}").as_bytes())),
            })
            .collect();
        let kept = looked.salvaged.iter().filter(|(name, at)| {
            let is_told = self.told.contains(name) || (looked.is_first && is_known(state, name));
            !is_told && !is_outdated(state, name, at)
        });
        found.extend(kept.map(|(name, _)| {
            let what = "a branch of ours was moved: put back, what was found is kept in";
            Found::plain(format!("{what} {name}"))
        }));
        found
    }

    /// Has branches of ours that do not stand where the journal has them put back; returns what is to
    /// be recorded where there is none any more that somebody has checked out.
    fn mend(&mut self, looked: &Looked, state: &State, ran: &[Ran]) -> Option<Observation> {
        let repo = self.repo.clone()?;
        if state.rollout == Rollout::Shadow {
            return None;
        }
        let mends: Vec<Mend> = if looked.are_all {
            mend::all(state, &looked.ours)
        } else {
            let ours = looked.ours.iter();
            ours.filter_map(|(name, at)| mend::of(state, name, at.as_deref())).collect()
        };
        let are_all = looked.are_all;
        if mends.is_empty() {
            if are_all {
                self.unmended.clear();
            }
            let is_news = are_all && !state.held.is_empty();
            return is_news.then(|| Observation::BranchesSeen { held: BTreeMap::new() });
        }
        self.told.extend(mends.iter().filter_map(Mend::salvage));
        while self.told.len() > TOLD_MAX {
            self.told.pop_first();
        }
        let mut ran = ran.to_vec();
        let earlier = std::mem::take(&mut self.unmended);
        ran.extend(earlier.into_iter().filter(|of| !ran.contains(of)).collect::<Vec<_>>());
        let (input, landed) = (self.input.clone(), mend::landing_branch(state));
        let run = move || {
            let done = mend::run(&mends, &landed, &repo);
            // The loop has ended: the next monitor looks.
            let _ = input.send(Input::Mended(Mended { ran, are_all, ..done }));
        };
        let spawned = crate::sys::fail::point("outside.mend_spawn")
            .and_then(|()| thread::Builder::new().name("mend".into()).spawn(run));
        // Without a thread the next poll looks.
        self.mending += usize::from(spawned.is_ok());
        None
    }

    /// Takes in what was put back.
    pub fn mended(&mut self, done: Mended, state: &State) -> News {
        self.mending = self.mending.saturating_sub(1);
        let Mended { ran, words, warnings, held, are_all } = done;
        let warning = (!warnings.is_empty()).then(|| warnings.join("; "));
        self.mend_failures = if warnings.is_empty() { 0 } else { self.mend_failures + 1 };
        if !warnings.is_empty() && self.mend_failures < FAILURES_MAX {
            // A git that was killed, or a lock: once more, not at the next poll.
            self.unmended.clone_from(&ran);
            self.ask(None, state);
        }
        let found: Vec<Found> = words.into_iter().take(FOUND_MAX).map(Found::plain).collect();
        let mut observations = Vec::new();
        if are_all && held != state.held {
            observations.push(Observation::BranchesSeen { held });
        }
        if !found.is_empty() {
            observations.push(Observation::OutsideSeen { ran, found, more: 0, is_first: false });
        }
        News { observations, warning }
    }
}

fn is_running(attempt: &Attempt) -> bool {
    matches!(attempt.phase, AttemptPhase::Starting | AttemptPhase::Running)
        && attempt.outcome.is_none()
}

/// Returns whether somebody was told of what is kept under a name in salvage.
fn is_known(state: &State, salvage: &str) -> bool {
    let over = state.tasks.values().flat_map(|task| &task.history);
    let told = state.attempts.values().chain(over).map(|attempt| &attempt.outside);
    let mut words = told.chain([&state.outside]).flat_map(|outside| &outside.found);
    words.any(|words| words.ends_with(salvage))
}

/// Returns whether what was found there is a task's own work of before: a branch begun afresh.
fn is_outdated(state: &State, salvage: &str, at: &str) -> bool {
    let name = salvage.strip_prefix(&refs::salvage("")).unwrap_or(salvage);
    let Some((task, _)) = name.rsplit_once(".found-") else { return false };
    let task = task.parse::<TaskId>().ok().and_then(|id| state.tasks.get(&id));
    let mut history = task.into_iter().flat_map(|task| &task.history);
    history.any(|old| {
        [&old.saved, &old.base].into_iter().flatten().any(|commit| commit.as_str() == at)
    })
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc::channel;
    use std::time::Duration;

    use super::*;
    use crate::observe::support::{Pipeline, settings};

    /// Numbers from a seed.
    struct Dice(u64);

    impl Dice {
        fn below(&mut self, end: u64) -> u64 {
            self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            (self.0 >> 33) % end
        }
    }

    fn look(number: u64, is_whole: bool, began: Instant, ended: Instant) -> Looked {
        let found = Difference::Head { old: "main".into(), new: number.to_string() };
        Looked {
            number,
            began,
            ended,
            is_whole,
            is_first: number == 0,
            differences: if is_whole { vec![found] } else { Vec::new() },
            more: 0,
            ours: Vec::new(),
            are_all: false,
            salvaged: Vec::new(),
        }
    }

    /// Plays some attempts and looks; each look must tell all who ran since the one before began.
    fn play(seed: u64, state: &State) -> usize {
        let (mut dice, begin) = (Dice(seed), monotonic());
        let at = |ms: u64| begin + Duration::from_millis(ms);
        let spans: Vec<(AttemptId, u64, u64)> = (0..8)
            .map(|n| {
                let begun = dice.below(100);
                (AttemptId::new(format!("A.impl.{n}")), begun, begun + 1 + dice.below(40))
            })
            .collect();
        let mut outside = Outside::new(channel().0);
        let (mut since, mut now, mut told) = (0, 0, 0);
        for number in 0..12 {
            let began = now + dice.below(12);
            now = began + 1 + dice.below(8);
            let is_whole = dice.below(4) > 0;
            for (id, begun, end) in spans.iter().filter(|(_, begun, _)| *begun < now) {
                let known = outside.ran.contains_key(id);
                // One that was told of is forgotten; it does not come back.
                if known || *end > since {
                    let ended = (*end <= now).then(|| at(*end));
                    let span = Span { task: None, begun: at(*begun), ended };
                    outside.ran.insert(id.clone(), span);
                }
            }
            let news = outside.looked(Ok(look(number, is_whole, at(began), at(now))), state);
            if !is_whole {
                assert!(news.observations.is_empty(), "seed {seed}");
                continue;
            }
            let ran_then = spans.iter().filter(|(_, begun, end)| *begun < now && *end > since);
            let expected: Vec<Ran> = ran_then.map(|(id, _, _)| (id.clone(), None)).collect();
            let ran: Vec<Ran> = news
                .observations
                .into_iter()
                .flat_map(|seen| match seen {
                    Observation::OutsideSeen { ran, .. } => ran,
                    other => panic!("{other:?}"),
                })
                .collect();
            assert_eq!(ran, expected, "seed {seed}, look {number}");
            told += ran.len();
            since = began;
        }
        told
    }

    #[test]
    fn each_change_is_told_with_all_who_ran_then_and_with_no_other() {
        let pipeline = Pipeline::new(settings());
        let told: usize = (0..2_000).map(|seed| play(seed, &pipeline.state)).sum();
        assert!(told > 10_000, "{told}");
    }
}
