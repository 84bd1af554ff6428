//! Plays a trace, and makes a failing one small: steps are left out while it still fails so.

use std::cell::RefCell;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Once;

use super::dice::Dice;
use super::marks::Marks;
use super::seed::{Canary, Run};

/// What the fixed seeds must meet at least once.
pub const MARKS: &[&str] = &[
    "agent leaves a process behind",
    "agent is blocked",
    "agent leaves another attempt's marker",
    "agent leaves its marker in a code fence",
    "agent leaves its task file without a header",
    "agent leaves no marker",
    "agent falls silent",
    "agent or check dies of a signal",
    "agent or check fails",
    "agent or check runs into its limit",
    "agent requests changes",
    "the mode changes while attempts run",
    "the rollout changes while something lands or follows",
    "agent says completed and changed nothing",
    "agent says completed and exits with 1",
    "agent says completed and stays",
    "a start comes late",
    "a start comes twice",
    "a start is lost with its connection",
    "a start is lost with its keeper",
    "a start is told twice",
    "a stop comes late",
    "a stop comes twice",
    "a stop is lost with its connection",
    "an order is dropped with a monitor's connection",
    "an order outlives its monitor",
    "keepers in a row die before they begin",
    "no keeper can be started",
    "the report of a start is lost",
    "a branch goes on from what has landed",
    "a branch of ours is put back beside the loop",
    "a branch that is not to be is moved away",
    "a checkpoint is refused",
    "a command fails at the journal",
    "a command is accepted",
    "a command is refused",
    "a group grows by its queues",
    "a group shrinks by its queues",
    "a half worktree is made again",
    "a landing conflicts",
    "a landing is raced",
    "a landing touches protected paths",
    "every landing waits for a person",
    "a monitor ends with a failed journal",
    "a monitor waits until its journal can be written",
    "a program goes away",
    "a program is back",
    "a person cleans the worktrees away",
    "a run comes near a bound",
    "a run uses up a bound",
    "a task comes near its bound",
    "a person commits to a task they have",
    "a person commits to the base",
    "a person completes a task",
    "a person ends what runs",
    "a person gives a task back",
    "a person removes the base",
    "a person reopens a task",
    "a person rewrites the base",
    "a person says how many agents there are",
    "a person takes a task",
    "a report comes twice",
    "a report is lost",
    "a session is taken up again",
    "a task branch is put back",
    "a window goes away",
    "a worktree goes away under an attempt",
    "a worktree's setup fails",
    "a write is refused",
    "a write stands and is reported as failed",
    "an agent comes back",
    "an agent leaves after its task",
    "an answer comes twice",
    "an attempt is launched again",
    "an attempt's record cannot be read",
    "an effect fails",
    "an effect is done and reported as failed",
    "an effect is never answered",
    "conflict markers are left",
    "git killed while it made a worktree",
    "git outlives its monitor",
    "keeper killed",
    "keeper stopped or continued",
    "monitor killed",
    "monitor killed in recovery",
    "monitor paused or revived",
    "power cut",
    "program cannot be started",
    "settings change in a run",
    "somebody has a branch of ours checked out",
    "somebody leaves the branches of ours",
    "somebody makes a branch in our part",
    "somebody moves a branch of a person's",
    "somebody moves or removes a task branch",
    "somebody moves the landing branch",
    "somebody removes the landing branch",
    "strays of a dead keeper",
    "suspend, or the clock set on",
    "the base conflicts with what has landed",
    "the checkout refuses",
    "the load has fallen",
    "the load is too high",
    "the scheduler fails",
    "the scheduler proposes nothing",
    "the scheduler proposes something",
    "the clock is set back",
    "the landing branch is put back",
    "something changes outside while an attempt runs",
    "what changed outside is told with those who ran",
    "limits change in a run",
    "work goes back where its stage says",
];

/// Plays that shrinking may take.
const TRIES_MAX: usize = 3_000;
/// A canary must be caught within so many seeds.
const CANARY_SEEDS: u64 = 300;
/// And shrink to so many steps.
const CANARY_STEPS: usize = 100;

/// A run by its numbers.
#[derive(Debug, Clone)]
pub struct Trace {
    setup: u64,
    has_fates: bool,
    /// One number a step.
    pub steps: Vec<u64>,
}

impl Trace {
    /// Returns the run of a seed.
    pub fn of_seed(seed: u64) -> Self {
        let mut dice = Dice(seed.wrapping_mul(0x2545_f491_4f6c_dd1d));
        let setup = dice.draw();
        let count = [150, 400, 800, 1_600][dice.below(4)];
        Self { setup, has_fates: true, steps: (0..count).map(|_| dice.draw()).collect() }
    }

    /// Returns the run of a seed that failed before orders had fates.
    pub fn of_old_seed(seed: u64) -> Self {
        Self { has_fates: false, ..Self::of_seed(seed) }
    }
}

/// What came of a run.
#[derive(Debug, Default)]
pub struct Outcome {
    pub failure: Option<String>,
    pub steps: u64,
    pub marks: Marks,
    pub log: Vec<String>,
}

thread_local! {
    static SAID: RefCell<Option<String>> = const { RefCell::new(None) };
    static IS_PLAYING: RefCell<bool> = const { RefCell::new(false) };
}

/// Keeps what a failing run says for its report, on the threads that play.
pub fn be_quiet() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        let before = std::panic::take_hook();
        std::panic::set_hook(Box::new(move |info| {
            if !IS_PLAYING.with_borrow(|is_playing| *is_playing) {
                return before(info);
            }
            let place = info.location().map_or(String::new(), |at| format!(" ({at})"));
            let payload = info.payload();
            let text = payload.downcast_ref::<String>().map(String::as_str);
            let said = text.or_else(|| payload.downcast_ref::<&str>().copied());
            let said = said.unwrap_or("a panic without words");
            SAID.set(Some(format!("{said}{place}")));
        }));
    });
}

/// Plays a trace to its end.
pub fn play(trace: &Trace, canary: Canary, has_log: bool) -> Outcome {
    IS_PLAYING.set(true);
    let run = RefCell::new(None);
    let played = catch_unwind(AssertUnwindSafe(|| {
        let mut place = run.borrow_mut();
        let run: &mut Run = place.insert(Run::new(trace.setup, canary, trace.has_fates));
        run.log = has_log.then(Vec::new);
        for number in &trace.steps {
            run.step(*number);
        }
        run.end(trace.setup);
    }));
    IS_PLAYING.set(false);
    let mut outcome = Outcome::default();
    if let Some(run) = run.into_inner() {
        outcome.steps = run.steps;
        outcome.marks = run.world.marks.clone();
        outcome.marks.add("attempts completed", run.judge.completed);
        outcome.marks.add("tasks landed", run.judge.landed);
        for class in &run.judge.classes {
            outcome.marks.hit(class);
        }
        outcome.log = run.log.clone().unwrap_or_default();
    }
    if played.is_err() {
        outcome.failure = Some(SAID.take().unwrap_or_default());
    }
    outcome
}

/// What two failures have in common: the words, without names and numbers.
fn kind(message: &str) -> String {
    let first = message.lines().next().unwrap_or_default();
    let mut parts = first.split('`');
    let words: String = parts.by_ref().step_by(2).collect();
    words.chars().filter(|c| !c.is_ascii_digit()).take(40).collect()
}

/// Leaves out all steps without which it fails all the same.
pub fn shrink(trace: &Trace, canary: Canary, message: &str) -> (Trace, Outcome) {
    let wanted = kind(message);
    let fails = |trace: &Trace| {
        play(trace, canary, false).failure.is_some_and(|found| kind(&found) == wanted)
    };
    let mut small = trace.clone();
    let mut chunk = small.steps.len().div_ceil(2);
    let mut tries = 0;
    while chunk > 0 && tries < TRIES_MAX {
        let mut at = small.steps.len();
        let mut has_shrunk = false;
        while at > 0 && tries < TRIES_MAX {
            let from = at.saturating_sub(chunk);
            let mut next = small.clone();
            next.steps.drain(from..at);
            tries += 1;
            if fails(&next) {
                small = next;
                has_shrunk = true;
            }
            at = from;
        }
        if chunk == 1 && !has_shrunk {
            break;
        }
        chunk = if chunk == 1 { 1 } else { chunk / 2 };
    }
    let outcome = play(&small, canary, true);
    (small, outcome)
}

/// Says whether a bug put in on purpose is caught, and shrinks to a few steps.
pub fn catches(canary: Canary) -> Result<(), String> {
    be_quiet();
    let mut found = Vec::new();
    for seed in 0..CANARY_SEEDS {
        let trace = Trace::of_seed(seed);
        let Some(message) = play(&trace, canary, false).failure else { continue };
        let (small, _) = shrink(&trace, canary, &message);
        if small.steps.len() <= CANARY_STEPS {
            return Ok(());
        }
        found.push(format!("{message}: {} steps", small.steps.len()));
    }
    Err(format!("{canary:?} in {CANARY_SEEDS} seeds: {}", found.join("; ")))
}
