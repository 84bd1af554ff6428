//! What happens outside of the worktrees while attempts run: looks are asked for, what they tell is
//! told with the attempts that ran, and our own branches are put back where others moved them.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;
use std::sync::mpsc::{Sender, channel};
use std::thread;

use xxhash_rust::xxh3::xxh3_64;

use super::lookout::{Answer, FAILURES_MAX, Files, Looked, Lookout, Order};
use super::mend::{self, Mend, Mended};
use super::sources::Input;
use super::spans::{Since, Spans};
use super::work::refs;
use crate::git::{Difference, Repo};
use crate::machine::id::TaskId;
use crate::machine::mode::{Isolation, Rollout};
use crate::machine::outside::{FOUND_MAX, Found, Ran};
use crate::machine::{Effect, Observation, State};
use crate::observe::page::{clean, cut};
use crate::sys::clock::{Clock, SystemClock, monotonic};

/// Steps of the base that are remembered as ours.
const MOVES_MAX: usize = 64;
/// Refs that were put back, remembered as told.
const TOLD_MAX: usize = 256;
/// Most columns of one difference.
const COLUMNS_MAX: usize = 160;

/// What is asked of the thread that looks, and what is known of attempts until it has answered.
pub struct Outside {
    repo: Option<Arc<Repo>>,
    orders: Option<Sender<Order>>,
    asked: u64,
    answered: u64,
    failures: u32,
    spans: Spans,
    clock: SystemClock,
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
    /// What could not be put back: told too where an effect of ours does it first.
    failed: Vec<Mend>,
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
    pub fn new(input: Sender<Input>, clock: SystemClock) -> Self {
        Self {
            repo: None,
            orders: None,
            asked: 0,
            answered: 0,
            failures: 0,
            spans: Spans::default(),
            clock,
            moves: VecDeque::new(),
            told: BTreeSet::new(),
            unkept: None,
            mending: 0,
            unmended: Vec::new(),
            failed: Vec::new(),
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
    pub fn open(&mut self, repo: Option<Arc<Repo>>, state: &State, files: Files) -> Option<String> {
        let repo = repo.filter(|_| state.rollout != Rollout::Shadow)?;
        self.repo = Some(Arc::clone(&repo));
        let kept = files.read();
        let since = kept.as_ref().map(|kept| &kept.since);
        self.spans.open(state, since, monotonic());
        let at = self.clock.now();
        if let Some(since) = since.filter(|since| since.at > at) {
            // The clock was set back: what is assigned from now on is assigned since.
            files.set_back(&Since { at, ..since.clone() });
        }
        let base = &state.base;
        let goals = base.follow.as_ref().map(|follow| &follow.to).into_iter().chain(&base.landed);
        self.moves.extend(goals.map(|to| to.as_str().to_owned()));
        let unknown = (kept.is_none() && !self.spans.is_empty()).then(|| {
            let ran = self.spans.names();
            format!("what changed outside while {ran} ran until now is not known")
        });
        let lookout = Lookout::new(repo, files, self.input.clone(), kept);
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
        let is_shared = self.spans.is_shared();
        let (number, landing) = (self.asked, mend::landing_branch(state));
        let since = Since::new(state, self.clock.now());
        let order = Order::Look { number, ignored, landing, is_shared, since };
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
                self.spans.begin(attempt, task, monotonic());
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
        if self.spans.end(state, monotonic()) {
            self.ask_whole(state);
        }
    }

    /// Says that all that was told is on record.
    pub fn settle(&mut self) {
        // What is to be put back is not told yet, and a look that is kept is not told of again. What
        // never can be put back does not keep what else is seen from being kept.
        let is_failing = !self.failed.is_empty() && self.mend_failures < FAILURES_MAX;
        if self.mending > 0 || !self.unmended.is_empty() || is_failing {
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
        let ran = self.spans.meanwhile(looked.ended);
        let found = self.found(&looked, state);
        let unheld = self.mend(&looked, state, &ran);
        if looked.is_whole {
            self.spans.looked(looked.began);
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
        let ended = self.spans.forget_ended();
        let ran = if ended.is_empty() { "attempts" } else { &ended };
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
            | Difference::Path { .. }
            | Difference::Shared { .. } => false,
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
            // What failed and has not changed since is where it was.
            let has_changed = |name: &str| looked.ours.iter().any(|(changed, _)| changed == name);
            let failed = self.failed.iter().filter(|mend| !has_changed(&mend.name));
            let failed = failed.map(|mend| (&mend.name, &mend.found));
            let ours = looked.ours.iter().map(|(name, at)| (name, at)).chain(failed);
            ours.filter_map(|(name, at)| mend::of(state, name, at.as_deref())).collect()
        };
        let are_all = looked.are_all;
        if mends.is_empty() && self.failed.is_empty() {
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
        let failed = std::mem::take(&mut self.failed);
        let (input, landed) = (self.input.clone(), mend::landing_branch(state));
        let run = move || {
            let done = mend::run(&mends, &failed, &landed, &repo);
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
        let Mended { ran, words, warnings, failed, held, are_all } = done;
        self.failed.retain(|old| failed.iter().all(|new| new.name != old.name));
        self.failed.extend(failed);
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
    use std::sync::mpsc::{Receiver, channel};
    use std::time::Duration;

    use super::super::prepare::put_back;
    use super::*;
    use crate::git::Oid;
    use crate::git::scratch::Scratch;
    use crate::machine::id::AttemptId;
    use crate::observe::support::{Pipeline, settings};

    #[test]
    fn a_whole_look_tells_what_changed_with_who_ran_and_one_at_our_refs_tells_nothing() {
        let (state, begin) = (Pipeline::new(settings()).state, monotonic());
        let at = |ms: u64| begin + Duration::from_millis(ms);
        let look = |number: u64, is_whole: bool| {
            let found = Difference::Head { old: "main".into(), new: number.to_string() };
            Ok(Looked {
                number,
                began: at(number),
                ended: at(number + 1),
                is_whole,
                is_first: false,
                differences: if is_whole { vec![found] } else { Vec::new() },
                more: 0,
                ours: Vec::new(),
                are_all: false,
                salvaged: Vec::new(),
            })
        };
        let mut outside = Outside::new(channel().0, SystemClock::start());
        let id = AttemptId::new("A.impl.1");
        outside.spans.begin(&id, None, at(0));
        assert!(outside.looked(look(1, false), &state).observations.is_empty());
        match &outside.looked(look(3, true), &state).observations[..] {
            [Observation::OutsideSeen { ran, found, .. }] => {
                assert_eq!((ran, found.len()), (&vec![(id, None)], 1));
            }
            other => panic!("{other:?}"),
        }
        // It has ended, and is told of once more.
        outside.spans.end(&state, at(4));
        assert_eq!(outside.looked(look(5, true), &state).observations.len(), 1);
        assert!(outside.looked(look(7, true), &state).observations.is_empty(), "nobody ran");
    }

    /// A project in which a branch of ours stands where somebody put it, and could not be put back.
    struct Astray {
        scratch: Scratch,
        outside: Outside,
        answers: Receiver<Input>,
        state: State,
        ran: Vec<Ran>,
        tip: Oid,
        at: Oid,
    }

    impl Astray {
        fn new(name: &str, has_goal: bool) -> Self {
            let scratch = Scratch::new();
            let state = Pipeline::new(settings()).state;
            let (sender, answers) = channel();
            let mut outside = Outside::new(sender, SystemClock::start());
            outside.repo = Some(Arc::new(scratch.reopened()));
            let tip = scratch.rev("HEAD");
            let at = scratch.commit_on(&tip, "astray", "astray");
            scratch.git(["update-ref", name, at.as_str()]);
            let ran = vec![(AttemptId::new("A.impl.1"), None)];
            let failed = vec![Mend {
                name: name.into(),
                found: Some(at.to_string()),
                to: has_goal.then(|| tip.to_string()),
                landed: None,
                is_at_work: true,
                is_preparing: false,
                is_moving: false,
            }];
            let warnings = vec!["its git was killed".to_owned()];
            let mended = Mended { ran: ran.clone(), warnings, failed, ..Mended::default() };
            let news = outside.mended(mended, &state);
            assert!(news.observations.is_empty() && news.warning.is_some(), "{news:?}");
            Self { scratch, outside, answers, state, ran, tip, at }
        }

        /// Looks at what has changed, which is nothing, and returns what is told then.
        fn told(&mut self) -> String {
            let now = monotonic();
            let look = Looked {
                number: 1,
                began: now,
                ended: now,
                is_whole: false,
                is_first: false,
                differences: Vec::new(),
                more: 0,
                ours: Vec::new(),
                are_all: false,
                salvaged: Vec::new(),
            };
            assert!(self.outside.looked(Ok(look), &self.state).observations.is_empty());
            let Ok(Input::Mended(done)) = self.answers.recv() else { panic!("nothing was tried") };
            let news = self.outside.mended(done, &self.state);
            assert!(!self.outside.is_owed());
            match &news.observations[..] {
                [Observation::OutsideSeen { ran, found, .. }] => {
                    assert_eq!(*ran, self.ran);
                    found[0].words.clone()
                }
                other => panic!("{other:?}"),
            }
        }
    }

    #[test]
    fn what_could_not_be_put_back_is_told_with_who_ran_when_it_is_put_back_by_an_effect() {
        let name = "refs/heads/pipeline/landed";
        let mut astray = Astray::new(name, true);
        let to = astray.scratch.commit_on(&astray.tip, "next", "next");
        put_back(&astray.scratch.repo, name, &to, Some(&astray.at), None).unwrap();
        let told = astray.told();
        assert!(told.contains("landed.found-"), "{told}");
    }

    #[test]
    fn what_could_not_be_put_back_and_stays_where_it_is_is_tried_again() {
        let mut astray = Astray::new("refs/heads/pipeline/mine", false);
        let told = astray.told();
        assert!(told.contains("mine.found-"), "{told}");
        let branches = ["for-each-ref", "--format=%(refname)", "refs/heads/pipeline"];
        assert_eq!(astray.scratch.git(branches), "");
    }
}
