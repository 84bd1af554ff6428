//! One monitor from start to end.

mod ending;

use std::cell::Cell;
use std::collections::{BTreeSet, VecDeque};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::time::Duration;

use signal_hook::consts::SIGINT;

use super::ahead::Prefetch;
use super::current::CurrentFile;
use super::cycle::{Cycle, Cycled};
use super::error::{RunError, io_error};
use super::forecast::Forecasts;
use super::hand;
use super::hints::{Hints, Sent};
use super::lookout::Files;
use super::outage::Outage;
use super::outside::Outside;
use super::progress::Progress;
use super::report::{Watch, date_limit, pass_on};
use super::room::{Guard, fault_of};
use super::settings_file::SettingsFile;
use super::sources::{Input, open_watcher, watch_signals};
use super::takeover::open_ledger;
use super::view::{View, write_newest};
use super::world::{RealWorld, branches};
use crate::agent::client::{KeeperDirs, Keepers};
use crate::agent::connect::KeeperExe;
use crate::agent::rendezvous::runtime_dir;
use crate::config::layout::Layout;
use crate::git::{GitError, Repo};
use crate::machine::attempt::{Attempt, AttemptPhase};
use crate::machine::event::StopKind;
use crate::machine::id::AttemptId;
use crate::machine::time::Time;
use crate::machine::{Answer, Command, Effect, EventBody, Observation, State};
use crate::store::StoreError;
use crate::store::journal::FileStore;
use crate::store::ledger::{LedgerError, Turns};
use crate::store::lock::{FileLock, is_held, read_owner};
use crate::sys::clock::{Clock, SystemClock};

/// More attempts than this make polling brisk.
const BUSY_ATTEMPTS: usize = 3;
/// How often a single turn looks whether all it began has answered.
const ONCE_LOOK_MS: u64 = 20;
/// How soon to look again for attempts that could not be looked for.
const LOOK_AGAIN_MS: u64 = 1_000;
/// Events handled in one transaction.
const EVENTS_MAX: usize = 4096;

/// How long the record of a start may wait for company.
const LINGER: Duration = Duration::from_millis(20);

/// When the monitor ends by itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Until {
    /// When it is told to.
    Told,
    /// When only a person can move anything further; `within_ms`: at the latest then.
    Idle { within_ms: Option<u64> },
    /// At a moment: nothing new starts then, and what runs keeps running.
    Moment(Time),
    /// After one look at the world and what follows from it; waits for no agent.
    Once,
}

/// How to run.
#[derive(Debug)]
pub struct Options {
    pub layout: Layout,
    /// `None` with `isolation = "none"`.
    pub repo: Option<Repo>,
    pub until: Until,
    pub is_poll_only: bool,
    pub allows_red_base: bool,
    /// Acts for `stop --now` or `--drain` where no monitor runs.
    pub stop: Option<StopKind>,
    pub lock_wait: Duration,
    pub progress: Progress,
    /// The program file that keepers are started from, with what comes before their arguments.
    pub keeper: KeeperExe,
}

/// How it ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum End {
    /// As it was asked to; for `Until::Idle`: every task is completed or cancelled.
    Done,
    /// Idle, and tasks are left that only a person can move.
    PersonNeeded,
    /// `within_ms` passed.
    TimedOut,
    /// The base does not pass its checks: no agent was started. The end of their output.
    RedBase { output: String },
    /// Ctrl-C.
    Interrupted,
}

/// Runs a monitor until it ends.
///
/// # Errors
/// Another monitor runs, the journal fails, or the world refuses something at the start. What was
/// decided until then is durable, and agents live on.
pub fn run(options: Options) -> Result<End, RunError> {
    let lock_path = options.layout.monitor_lock();
    let lock = FileLock::try_exclusive(&lock_path, "monitor")
        .map_err(io_error(format!("cannot lock `{}`", lock_path.display())))?;
    let Some(lock) = lock else {
        let pid = read_owner(&lock_path).map(|owner| owner.pid);
        return Err(RunError::Taken { path: lock_path, pid });
    };
    super::sweep::at_start(&options.layout);
    let (sender, receiver) = channel();
    let mut monitor = Monitor::start(options, lock, sender, receiver)?;
    let end = monitor.go();
    monitor.finish(&end);
    end
}

struct Monitor {
    cycle: Cycle<FileStore, RealWorld, SystemClock>,
    receiver: Receiver<Input>,
    view: View,
    until: Until,
    has_stop_order: bool,
    allows_red_base: bool,
    started_at: Time,
    next_poll: Time,
    /// Set by a signal: when to leave, whatever runs.
    leave_at: Option<Time>,
    is_interrupted: bool,
    /// Its last moment has come, and what ran then is ended or waited for.
    is_time_up: bool,
    /// When it was last looked at whether to end.
    looked_at: Time,
    /// With [`Until::Once`]: nothing is being done, and nothing has arrived since the last look.
    has_looked: bool,
    settings_file: SettingsFile,
    guard: Guard,
    outage: Outage,
    /// Held until the end.
    lock: Option<FileLock>,
    watcher: Option<notify::RecommendedWatcher>,
    hints: Hints,
    _signals: signal_hook::iterator::Handle,
}

impl Monitor {
    fn start(
        options: Options,
        lock: FileLock,
        sender: Sender<Input>,
        receiver: Receiver<Input>,
    ) -> Result<Self, RunError> {
        let layout = options.layout;
        let (store, mut progress) = (FileStore::open(&layout.state, 0), options.progress);
        let ledger = open_ledger(store, options.lock_wait, &mut progress)?;
        if let Some(repo) = &options.repo {
            put_in_order(repo).map_err(|error| RunError::Git(error.to_string()))?;
        }
        let (hints, watch) = (Sent::default(), Arc::new(Watch::default()));
        let keepers = open_keepers(&layout, options.keeper.clone(), &watch, &sender)?;
        let clock = SystemClock::start_after(ledger.time());
        let signals = watch_signals(&sender).map_err(io_error("cannot set the signal handlers"))?;
        let watcher = (!options.is_poll_only).then(|| {
            let to = (&sender, &hints);
            open_watcher(&layout, options.repo.as_ref(), ledger.state(), to, &mut progress)
        });
        let program_dir = options.keeper.program.parent().map(PathBuf::from).unwrap_or_default();
        let worktrees = layout.root.join(&ledger.state().settings.worktree.dir);
        let guard = Guard::new(layout.state.clone(), worktrees);
        let world = RealWorld {
            layout,
            outside: Outside::new(sender.clone(), clock),
            repo: options.repo.map(Arc::new),
            keepers,
            watch,
            input: sender,
            progress,
            program_dir,
            inherited: ledger.state().attempts.keys().cloned().collect(),
            checking: Default::default(),
            unprobed: BTreeSet::new(),
            doubtful: BTreeSet::new(),
            current: CurrentFile::of(ledger.state()),
            forecasts: Forecasts::default(),
            prefetch: Prefetch::default(),
            cleaning: Default::default(),
            standstill: Default::default(),
            threads: Arc::new(()),
            has_tmux: Cell::default(),
        };
        let (started_at, cycle) =
            (clock.now(), Cycle::new(ledger, world, clock, options.lock_wait));
        let mut monitor = Self {
            cycle,
            receiver,
            view: View::default(),
            until: options.until,
            has_stop_order: options.stop.is_some(),
            allows_red_base: options.allows_red_base,
            started_at,
            next_poll: started_at,
            leave_at: None,
            is_interrupted: false,
            is_time_up: false,
            looked_at: started_at,
            has_looked: false,
            settings_file: SettingsFile::default(),
            guard,
            outage: Outage::default(),
            lock: Some(lock),
            watcher: watcher.flatten(),
            hints: Hints::of(hints),
            _signals: signals,
        };
        monitor.take_over(options.stop).map(|()| monitor)
    }

    fn read_settings(&mut self) -> Option<EventBody> {
        let (world, state) = (&mut self.cycle.world, self.cycle.ledger.state());
        self.settings_file.read(&world.layout, state, &mut world.progress)
    }

    /// The first transaction: settings, base, and that we are here; then looks for what runs.
    fn take_over(&mut self, stop: Option<StopKind>) -> Result<(), RunError> {
        if self.until == Until::Once {
            self.cycle.world.prefetch.close();
        }
        let mut bodies: VecDeque<EventBody> = VecDeque::new();
        bodies.extend(self.read_settings());
        let pid = std::process::id();
        let seen = Observation::MonitorStarted { pid, allows_red_base: self.allows_red_base };
        bodies.push_back(EventBody::Observation(seen));
        // What will be done is said before any of it is done.
        let begun = self.cycle.record(std::mem::take(&mut bodies).into())?;
        self.look_outside();
        self.tell_answers(&begun, &vec![false; begun.answers.len()]);
        bodies.extend(self.cycle.world.open(self.cycle.ledger.state()));
        if let Some(repo) = &self.cycle.world.repo {
            let state = self.cycle.ledger.state();
            let seen = hand::look(&branches(state), hand::Wanted::of(state).as_ref(), repo)
                .map_err(|fault| RunError::Git(fault.0))?;
            bodies.push_back(EventBody::Observation(seen));
        }
        if let Some(kind) = stop {
            bodies.push_back(EventBody::Command(Command::Stop { kind }));
        }
        let running: Vec<_> = {
            let attempts = self.cycle.ledger.state().attempts.values();
            let running = attempts.filter(|attempt| attempt.phase == AttemptPhase::Running);
            running.map(|attempt| attempt.id.clone()).collect()
        };
        self.handle(bodies.into())?;
        self.find_again(running);
        Ok(())
    }

    /// Begins to look at what is outside of the worktrees.
    fn look_outside(&mut self) {
        let Cycle { ledger, world, .. } = &mut self.cycle;
        let files = Files::of(&world.layout.state);
        let repo = world.repo.clone();
        if let Some(warning) = world.outside.open(repo, ledger.state(), files) {
            world.progress.warn(&warning);
        }
    }

    /// Looks for attempts that were ordered before; those that cannot be looked for now are looked
    /// for at the next poll, which is then soon.
    fn find_again(&mut self, ids: impl IntoIterator<Item = AttemptId>) {
        let (world, state) = (&mut self.cycle.world, self.cycle.ledger.state());
        for id in ids {
            let is_open =
                |a: &&Attempt| matches!(a.phase, AttemptPhase::Starting | AttemptPhase::Running);
            if let Some(attempt) = state.attempts.get(&id).filter(is_open) {
                world.find_again(state, attempt);
            }
        }
    }

    fn go(&mut self) -> Result<End, RunError> {
        loop {
            let turned = if self.outage.is_on() { self.try_again() } else { self.turn() };
            match turned {
                Ok(Some(end)) => return Ok(end),
                Ok(None) => {}
                Err(RunError::Ledger(error)) if self.may_sit_out(&error) => {
                    if let Some(end) = self.sit_out(&error) {
                        return Ok(end);
                    }
                }
                Err(error) => return Err(error),
            }
        }
    }

    fn turn(&mut self) -> Result<Option<End>, RunError> {
        let mut bodies: Vec<EventBody> = self.stop_in_time().into_iter().collect();
        if bodies.is_empty() {
            if let Some(end) = self.end()? {
                return Ok(Some(end));
            }
            bodies = self.wait()?;
        }
        let now = self.cycle.clock.now();
        let is_due = self.cycle.deadline().is_some_and(|deadline| deadline <= now);
        // A transaction reads what others wrote by itself.
        let is_acting = !bodies.is_empty() || is_due;
        let has_news = !is_acting && self.cycle.notice()?;
        if has_news {
            self.view.mark(now);
        }
        if is_acting || has_news {
            self.handle(bodies)?;
        }
        self.cycle.world.outside.settle();
        self.view.renew(&self.cycle, Some(now));
        self.cycle.world.progress.tick(self.cycle.ledger.state(), now);
        Ok(None)
    }

    /// Returns whether trying again later may help; a single turn waits for nobody.
    fn may_sit_out(&self, error: &LedgerError) -> bool {
        let is_held = matches!(error, LedgerError::Store(StoreError::LockTimeout { .. }));
        error.is_passing() && !(is_held && self.until == Until::Once)
    }

    /// Waits while the journal cannot be written: agents go on, what they report is kept, and so is
    /// what could not be recorded.
    fn sit_out(&mut self, error: &LedgerError) -> Option<End> {
        if error.is_full() && self.guard.release() {
            self.outage.begin();
            let text = "the disk is full: the reserve beside the journal is given up";
            self.cycle.world.progress.warn(text);
            return None;
        }
        if self.outage.is_untold() {
            let causes = std::iter::successors(std::error::Error::source(error), |e| e.source());
            let told: Vec<String> = causes.map(ToString::to_string).collect();
            self.cycle.world.progress.warn(&format!(
                "{error}: {}; nothing new starts, running agents go on, and it is tried again until \
                 that works",
                told.join(": ")
            ));
        }
        let rest = |at: Time| Duration::from_millis(at.ms_since(self.cycle.clock.now()));
        let signal = self.outage.wait(&self.receiver, self.last_moment().map(rest));
        let end = match signal {
            Some(SIGINT) => End::Interrupted,
            Some(_) => End::Done,
            None => self.time_up(self.cycle.clock.now())?,
        };
        self.cycle.world.progress.warn("ending; agents keep running");
        Some(end)
    }

    /// Tries to record what could not be recorded, from the journal as it stands now.
    fn try_again(&mut self) -> Result<Option<End>, RunError> {
        self.handle(Vec::new())?;
        self.outage.end();
        self.cycle.world.progress.warn("the journal can be written again: going on");
        Ok(None)
    }

    fn handle(&mut self, mut bodies: Vec<EventBody>) -> Result<(), RunError> {
        if let Err(error) = self.keep_lock() {
            self.cycle.keep(bodies);
            return Err(error);
        }
        loop {
            let now = self.cycle.clock.now();
            let seen = self.guard.look(self.cycle.ledger.state(), now);
            let cycled = self.cycle.run(seen.into_iter().chain(bodies).collect())?;
            bodies = Vec::new();
            let asked = cycled.are_asked.clone();
            self.tell_answers(&cycled, &asked);
            if !cycled.has_more {
                if self.cycle.world.outside.is_to_open(self.cycle.ledger.state()) {
                    self.look_outside();
                }
                return Ok(());
            }
        }
    }

    fn tell_answers(&mut self, cycled: &Cycled, asked: &[bool]) {
        debug_assert_eq!(cycled.answers.len(), asked.len());
        for (answer, is_asked) in cycled.answers.iter().zip(asked) {
            match answer {
                // Of what the monitor itself asks for, only settings can be refused.
                Answer::Refuse(refusal) => {
                    let world = &self.cycle.world;
                    self.settings_file.refused(refusal, &world.layout, &world.progress);
                }
                Answer::Note(text) if *is_asked => self.put_back(text),
                Answer::Note(text) => self.cycle.world.progress.note(text),
                Answer::Accept => {}
            }
        }
        if cycled.has_changed {
            self.view.mark(self.cycle.clock.now());
        }
    }

    /// Of what the monitor itself asks for, only a choice in the current-task file is noted: it could
    /// not be taken up, and what holds is written there again.
    fn put_back(&mut self, why: &str) {
        let world = &mut self.cycle.world;
        world.progress.warn(why);
        world.current.put_back(&world.layout, self.cycle.ledger.state());
    }

    /// Waits for something to happen, or for the next moment at which something is due.
    fn wait(&mut self) -> Result<Vec<EventBody>, RunError> {
        let mut bodies = Vec::new();
        // Agents that have begun since the last look are looked at as often as agents are.
        let usual_ms = poll_interval_ms(self.cycle.ledger.state());
        let pause_ms = if self.cycle.world.unprobed.is_empty() { usual_ms } else { LOOK_AGAIN_MS };
        self.next_poll = self.next_poll.min(self.cycle.clock.now().plus_ms(pause_ms));
        let room = self.guard.due_at(self.cycle.ledger.state());
        let hints = self.hints.due_at();
        let moments = [self.cycle.deadline(), Some(self.next_poll), self.end_due_at(), room, hints];
        let view = self.view.due_at();
        let tick = self.cycle.world.progress.due_at();
        // Without file events only a look tells of orders.
        let orders = self.watcher.is_none().then(|| self.cycle.clock.now().plus_ms(LOOK_AGAIN_MS));
        let until = moments.into_iter().chain([view, tick, orders]).flatten().min();
        let wait = until.unwrap_or(self.next_poll).ms_since(self.cycle.clock.now());
        let is_once = self.until == Until::Once;
        let is_last = is_once && !self.cycle.is_performing() && self.cycle.world.is_quiet();
        let wait = match (is_once, is_last) {
            (_, true) => 0,
            (true, false) => wait.min(ONCE_LOOK_MS),
            (false, false) => wait,
        };
        self.has_looked = false;
        match self.outage.next(&self.receiver, Duration::from_millis(wait)) {
            Ok(first) => {
                self.take(first, &mut bodies)?;
                self.take_waiting(&mut bodies)?;
                let are_starts = !bodies.is_empty() && bodies.iter().all(is_start);
                if are_starts && self.linger(&mut bodies)? {
                    self.take_waiting(&mut bodies)?;
                }
            }
            Err(RecvTimeoutError::Timeout | RecvTimeoutError::Disconnected) => {
                self.has_looked = is_last;
            }
        }
        self.follow_hints(&mut bodies);
        if self.cycle.clock.now() >= self.next_poll {
            self.poll(&mut bodies);
        }
        if room.is_some_and(|at| at <= self.cycle.clock.now()) {
            let now = self.cycle.clock.now();
            bodies.extend(self.guard.look(self.cycle.ledger.state(), now));
        }
        Ok(bodies)
    }

    fn take_waiting(&mut self, bodies: &mut Vec<EventBody>) -> Result<(), RunError> {
        while bodies.len() < EVENTS_MAX {
            let Ok(next) = self.outage.next(&self.receiver, Duration::ZERO) else { break };
            self.take(next, bodies)?;
        }
        Ok(())
    }

    /// Waits a little for something to share the transaction of starts with: nothing depends on
    /// them, and what is quick has ended by then.
    fn linger(&mut self, bodies: &mut Vec<EventBody>) -> Result<bool, RunError> {
        match self.outage.next(&self.receiver, LINGER) {
            Ok(next) => self.take(next, bodies).map(|()| true),
            Err(RecvTimeoutError::Timeout | RecvTimeoutError::Disconnected) => Ok(false),
        }
    }

    fn take(&mut self, input: Input, bodies: &mut Vec<EventBody>) -> Result<(), RunError> {
        match input {
            Input::Event(mut body) => {
                date_limit(&mut body, SystemClock::start().now(), self.cycle.clock.now());
                // The machine is to know of a shortage before what came of it.
                if let Some(why) = fault_of(&body) {
                    bodies.extend(self.guard.failed(
                        why,
                        self.cycle.ledger.state(),
                        self.cycle.clock.now(),
                    ));
                }
                bodies.push(body);
            }
            Input::Started(attempt) => {
                // One that is adopted is told as started, which the record mostly knows.
                let known = self.cycle.ledger.state().attempts.get(&attempt);
                if known.is_some_and(|known| known.phase == AttemptPhase::Starting) {
                    let at = self.cycle.clock.now();
                    bodies.push(EventBody::Observation(Observation::Started { attempt, at }));
                }
            }
            // What could not be read is not lost: it is read again.
            Input::KeeperLost { attempt, found: None, .. } => {
                self.find_again([AttemptId::new(attempt)]);
            }
            Input::KeeperLost { attempt, found, .. } => {
                let (world, state) = (&self.cycle.world, self.cycle.ledger.state());
                if let Some(attempt) = state.attempts.get(&AttemptId::new(attempt)) {
                    world.keeper_lost(state, attempt, found);
                }
            }
            Input::Looked(answer) => {
                let (world, state) = (&mut self.cycle.world, self.cycle.ledger.state());
                let news = world.outside.looked(*answer, state);
                bodies.extend(world.see_outside(news));
            }
            Input::Mended(done) => {
                let (world, state) = (&mut self.cycle.world, self.cycle.ledger.state());
                let news = world.outside.mended(done, state);
                bodies.extend(world.see_outside(news));
            }
            Input::Superseded { attempt } => {
                self.find_again([attempt.clone()]);
                // The order to end it may have been lost with the connection, unread.
                self.cycle.begin_again(&Effect::Stop { attempt });
            }
            Input::Doubtful { attempt, warning } => {
                let (state, now) = (self.cycle.ledger.state(), self.cycle.clock.now());
                bodies.extend(self.guard.failed(&warning, state, now));
                let world = &mut self.cycle.world;
                if world.doubtful.insert(attempt.clone()) {
                    world.progress.warn(&warning);
                }
                world.unprobed.insert(attempt);
            }
            // What is new is read before each transaction.
            Input::Journal => {}
            Input::Refs => self.hints.put_refs(self.cycle.clock.now()),
            Input::Files => self.hints.put_files(self.cycle.clock.now()),
            Input::Signal(signal) => self.on_signal(signal, bodies),
        }
        Ok(())
    }

    /// Looks at what files events were of, when it is time.
    fn follow_hints(&mut self, bodies: &mut Vec<EventBody>) {
        let now = self.cycle.clock.now();
        if self.hints.take_refs(now) {
            self.cycle.world.look_at_base(self.cycle.ledger.state());
        }
        if self.hints.take_files(now) {
            self.look_at_files(bodies);
        }
    }

    fn look_at_files(&mut self, bodies: &mut Vec<EventBody>) {
        bodies.extend(self.read_settings());
        let (world, state) = (&mut self.cycle.world, self.cycle.ledger.state());
        let edit = world.current.read_edit(&world.layout, state, &world.progress);
        let picked = edit.map(|text| EventBody::Command(Command::PickTask { text }));
        // One write can come as several events.
        let picked = picked.filter(|body| !bodies.contains(body));
        bodies.extend(picked);
    }

    /// The safety net: looks at all that events should have told.
    fn poll(&mut self, bodies: &mut Vec<EventBody>) {
        self.link();
        self.look_at_files(bodies);
        let (world, state) = (&mut self.cycle.world, self.cycle.ledger.state());
        // One that is gone, or was emptied for good.
        world.current.write(&world.layout, state);
        world.look_around(state, self.cycle.clock.now());
        for attempt in state.attempts.values() {
            if attempt.phase == AttemptPhase::Running {
                world.look_for_end(state, attempt);
            }
        }
        self.next_poll = self.cycle.clock.now().plus_ms(poll_interval_ms(state));
        let unprobed = std::mem::take(&mut self.cycle.world.unprobed);
        self.find_again(unprobed);
    }

    /// Makes `.pipeline/state` again where a person, or `git clean`, took it away.
    fn link(&self) {
        let world = &self.cycle.world;
        if world.repo.is_some()
            && let Err(error) = world.layout.link()
        {
            world.progress.warn(&format!("cannot make `.pipeline/state`: {error}"));
        }
    }

    /// Makes sure that the lock is still the one that other monitors see.
    fn keep_lock(&self) -> Result<(), RunError> {
        let path = self.cycle.world.layout.monitor_lock();
        match self.lock.as_ref().map_or(Ok(true), FileLock::is_still_ours) {
            Ok(true) => Ok(()),
            Ok(false) => Err(RunError::Fenced { path }),
            Err(source) => {
                let error = StoreError::Io { attempt: "look at lock", path, source };
                Err(LedgerError::Store(error).into())
            }
        }
    }

    /// Says goodbye: to the journal, to keepers, to `state.json`.
    fn finish(&mut self, end: &Result<End, RunError>) {
        self.cycle.world.prefetch.close();
        self.cycle.world.cleaning.close();
        if matches!(end, Err(RunError::Fenced { .. })) {
            // Journal and view may be another monitor's by now.
            self.cycle.world.keepers.leave();
            self.lock = None;
            self.cycle.world.progress.close();
            return;
        }
        let why = match end {
            Ok(End::Done) => "done".to_owned(),
            Ok(End::PersonNeeded) => "only a person can go on".to_owned(),
            Ok(End::TimedOut) => "time is up".to_owned(),
            Ok(End::RedBase { .. }) => "checks are red on the base branch".to_owned(),
            Ok(End::Interrupted) => "interrupted".to_owned(),
            Err(error) => error.to_string(),
        };
        // Nothing new is assigned any more. After a failed journal this fails too, and the error is
        // told already.
        let ended = EventBody::Observation(Observation::MonitorEnded { why });
        let recorded = self.cycle.record(vec![ended]);
        self.cycle.world.keepers.leave();
        self.link();
        // A journal that failed may have left the state in memory ahead of it: no view of that.
        if recorded.is_ok() {
            self.view.mark(self.cycle.clock.now());
            self.view.renew(&self.cycle, None);
            // A command that saw us alive left the view of what it changed to us.
            self.lock = None;
            self.renew_moved_view();
        }
        // Nobody waits for whoever reads what was said.
        self.lock = None;
        self.cycle.world.progress.close();
    }
}

impl Monitor {
    /// Writes the view once more where others added to the journal since.
    fn renew_moved_view(&mut self) {
        let Cycle { ledger, world, clock, lock_wait, .. } = &mut self.cycle;
        let shown = ledger.seq();
        // What cannot be read now is told by the next command that reads it.
        if ledger.transact(*lock_wait, clock.now(), &[], Turns::None).is_ok()
            && ledger.seq() != shown
        {
            let dir = &world.layout.state;
            for warning in write_newest(dir, ledger, *lock_wait, clock.now()) {
                world.progress.warn(&warning);
            }
        }
    }
}

fn is_start(body: &EventBody) -> bool {
    use Observation::{Ordered, Started};
    matches!(body, EventBody::Observation(Started { .. } | Ordered { .. }))
}

/// Returns how long to wait between looks that nothing asked for.
pub fn poll_interval_ms(state: &State) -> u64 {
    let monitor = &state.settings.monitor;
    match state.attempts.len() {
        0 => monitor.poll_idle_ms,
        count if count > BUSY_ATTEMPTS => monitor.poll_busy_ms,
        _ => monitor.poll_normal_ms,
    }
}

/// Readies the repository for a monitor.
fn put_in_order(repo: &Repo) -> Result<(), GitError> {
    // What cannot be ended now is when the branch moves next.
    let _ = repo.end_left_steps(Duration::ZERO);
    repo.clear_stale_ref_locks()?;
    repo.forget_copied()?;
    // Asked once, here, so that the loop's thread starts no process for it.
    repo.identity().map(drop)
}

fn open_keepers(
    layout: &Layout,
    exe: KeeperExe,
    watch: &Arc<Watch>,
    sender: &Sender<Input>,
) -> Result<Arc<Keepers>, RunError> {
    for dir in layout.folders().into_iter().chain([layout.keepers()]) {
        std::fs::create_dir_all(&dir)
            .map_err(io_error(format!("cannot make `{}`", dir.display())))?;
    }
    let runtime_dir = runtime_dir().map_err(io_error("cannot make the folder for sockets"))?;
    let dirs = KeeperDirs { keepers_dir: layout.keepers(), exe, runtime_dir };
    let (watch, input) = (Arc::clone(watch), sender.clone());
    // A lock that cannot be probed counts as held: better to ask its holder than to start beside it.
    let is_lock_held = |path: &std::path::Path| is_held(path).unwrap_or(true);
    let report = move |report| pass_on(&watch, &input, report);
    Ok(Arc::new(Keepers::new(dirs, report, is_lock_held)))
}
