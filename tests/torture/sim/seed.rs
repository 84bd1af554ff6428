//! One seed's run: a project, its people, its monitors and its world, step by step.

use std::cell::Cell;
use std::rc::Rc;
use std::time::Duration;

use pipeline::machine::event::StopKind;
use pipeline::machine::time::Time;
use pipeline::machine::{Answer, Change, Command, Event, EventBody, State};
use pipeline::store::format::state_value;
use pipeline::store::ledger::{Ledger, Turns};
use pipeline::store::{Checkpoint, Json};

use super::dice::Dice;
use super::disk::Disk;
use super::draw::{self, Mix};
use super::end;
use super::judge::Judge;
use super::mend;
use super::monitor::{Lived, Monitor, SteadyClock};
use super::outside::Outside;
use super::people;
use super::world::World;

/// Wall time at the beginning, in milliseconds.
const BEGIN_MS: u64 = 1_700_000_000_000;

/// One seed in so many is judged closely.
const CLOSE_EVERY: u64 = 4;

/// Most characters of a line of the trace.
const LOG_CHARS_MAX: usize = 400;

/// How often in 1000 steps the coarse things happen.
#[derive(Debug, Clone)]
struct Rates {
    commands: u64,
    meddling: u64,
    monitor_kills: u64,
    monitor_pauses: u64,
    keeper_kills: u64,
    keeper_stops: u64,
    power_cuts: u64,
    clock_jumps: u64,
    bad_writes: u64,
    loads: u64,
}

impl Rates {
    fn draw(dice: &mut Dice) -> Self {
        let mut some = |most: usize| match dice.below(4) {
            0 => 0,
            1 | 2 => 1 + dice.below(most / 8 + 1) as u64,
            _ => 1 + dice.below(most) as u64,
        };
        Self {
            commands: 10 + some(60),
            meddling: some(15),
            monitor_kills: some(40),
            monitor_pauses: some(8),
            keeper_kills: some(15),
            keeper_stops: some(8),
            power_cuts: some(4),
            clock_jumps: some(10),
            bad_writes: some(20),
            loads: some(20),
        }
    }
}

/// A bug put in on purpose, to see that it is caught.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Canary {
    None,
    /// The keeper's lock is not looked at: what runs is launched again.
    ForgetsKeepers,
    /// Work is reported as saved and pinned nowhere.
    DropsWork,
    /// An answer is lost, and nobody asks again.
    Idles,
}

/// All of one seed.
pub struct Run {
    pub world: World,
    pub disk: Disk,
    pub monitor: Option<Monitor>,
    writers: Vec<Ledger<Disk>>,
    pub judge: Judge,
    /// `None`: nothing changes outside, and nobody looks.
    pub outside: Option<Outside>,
    rates: Rates,
    pub mono: Rc<Cell<u64>>,
    /// Wall time less the monotonic clock.
    shift: u64,
    monitors: u32,
    pub steps: u64,
    /// What was done, for people; kept for the trace of a failure alone.
    pub log: Option<Vec<String>>,
}

impl Run {
    /// Sets up a project by the numbers of `setup`.
    pub fn new(setup: u64, canary: Canary, has_fates: bool) -> Self {
        let mut dice = Dice(setup);
        let mut settings = draw::settings(&mut dice, None);
        if has_fates {
            draw::newest(&mut settings, None, Dice(setup ^ 0x0e3e_0057));
        }
        let mono = Rc::new(Cell::new(0));
        let mut world = World::new(Rc::clone(&mono), Mix::draw(&mut dice));
        (world.canary, world.has_fates) = (canary, has_fates);
        let at = Time::from_ms(BEGIN_MS);
        let state = State::new(settings, at);
        let json = Json::of(&state_value(&state)).expect("a state is written as JSON");
        let first = Checkpoint { seq: 0, time: at, state: json };
        let every = [2, 10, 40, 40][dice.below(4)];
        let disk = Disk::create(first, every);
        let writers = (0..1 + dice.below(3)).map(|_| writer(&disk)).collect();
        let rates = Rates::draw(&mut dice);
        let mut judge = Judge::new(state);
        judge.is_close = setup.is_multiple_of(CLOSE_EVERY);
        Self {
            world,
            disk,
            monitor: None,
            writers,
            judge,
            outside: Outside::of(setup),
            rates,
            mono,
            shift: BEGIN_MS,
            monitors: 0,
            steps: 0,
            log: None,
        }
    }

    fn wall(&self) -> u64 {
        self.mono.get() + self.shift
    }

    pub fn note(&mut self, text: impl FnOnce() -> String) {
        if let Some(log) = &mut self.log {
            log.push(text().chars().take(LOG_CHARS_MAX).collect());
        }
    }

    /// One step of the safety phase, drawn from a number of its own.
    pub fn step(&mut self, number: u64) {
        let mut dice = Dice(number);
        self.steps += 1;
        let rates = self.rates.clone();
        let mut left = (dice.draw() % 1000) as i64;
        // The rates lie side by side on a line of 1000; what is beyond them is ordinary work.
        let mut is = |rate: u64| {
            let hit = (0..rate as i64).contains(&left);
            left -= rate as i64;
            hit
        };
        // Drawn apart, so that old seeds draw the rest as ever.
        let mut apart = Dice(number ^ 0x0001_57a9);
        let may_end = self.world.has_fates && apart.permille(100);
        let ended = may_end.then(|| people::interrupt(&self.judge.state, &mut apart)).flatten();
        if let Some(asked) = ended {
            self.world.marks.hit("a person ends what runs");
            self.say(asked, &mut apart);
        } else if is(rates.commands) {
            self.command(&mut dice);
        } else if is(rates.meddling) {
            // Drawn apart, so that old seeds draw the rest as ever.
            let mut refs = Dice(number ^ 0x00b7_a9c4);
            let what = if refs.permille(400) {
                mend::meddle(&self.judge.state, &mut self.world, &mut refs)
            } else {
                people::meddle(&mut self.world, &mut dice)
            };
            self.note(|| what.to_owned());
        } else if is(rates.monitor_kills) {
            self.kill_monitor(&mut dice);
        } else if is(rates.monitor_pauses) {
            self.pause_monitor();
        } else if is(rates.keeper_kills) {
            self.note(|| "a keeper is killed".into());
            self.world.kill_keeper(&mut dice);
        } else if is(rates.keeper_stops) {
            self.note(|| "a keeper is stopped or goes on".into());
            self.world.stop_keeper(&mut dice);
        } else if is(rates.power_cuts) {
            self.cut_power(&mut dice);
        } else if is(rates.clock_jumps) {
            self.jump(&mut dice);
        } else if is(rates.bad_writes) {
            self.spoil_write(&mut dice);
        } else if is(rates.loads) {
            self.strain(&mut dice);
        } else {
            self.work(&mut dice);
        }
        self.outside_step();
        let is_full = self.steps.is_multiple_of(64);
        self.judge.look(&self.world, is_full);
    }

    /// The ordinary course of things: whoever has something to do takes a step.
    fn work(&mut self, dice: &mut Dice) {
        let turn = dice.below(20);
        for next in 0..3 {
            let has_gone_on = match (turn + next * 7) % 20 {
                0..=6 => self.world.job_step(dice),
                7..=13 => self.world.keeper_step(dice),
                _ => self.has_news() && self.monitor_step(dice),
            };
            if has_gone_on {
                let who = ["git goes on", "a keeper goes on"].get((turn + next * 7) % 20 / 7);
                self.note(|| who.map_or("", |who| who).to_owned());
                return;
            }
        }
        let ms = [10, 100, 1_000, 10_000, 40_000][dice.below(5)];
        self.note(|| format!("{ms} ms pass"));
        self.mono.set(self.mono.get() + ms);
    }

    /// Returns true when the monitor has something to do, or is to be started or woken.
    pub fn has_news(&self) -> bool {
        let is_known = |monitor: &Monitor| monitor.cycle.ledger.seq() == self.judge.seq;
        let is_quiet =
            |monitor: &Monitor| is_known(monitor) && !monitor.has_news() && !monitor.is_paused;
        !self.world.mail.is_empty() || self.monitor.as_ref().is_none_or(|m| !is_quiet(m))
    }

    /// One step of the monitor; where none runs, one is started.
    pub fn monitor_step(&mut self, dice: &mut Dice) -> bool {
        let Some(mut monitor) = self.monitor.take() else {
            self.start_monitor(None, dice);
            return true;
        };
        if monitor.is_paused {
            monitor.is_paused = !dice.permille(50);
            self.monitor = Some(monitor);
            return false;
        }
        let mail = std::mem::take(&mut self.world.mail);
        let mine = mail.into_iter().filter(|(to, _)| *to == monitor.number);
        monitor.inbox.extend(mine.map(|(_, report)| report));
        self.note(|| format!("monitor {} goes on", monitor.number));
        let lived = monitor.step(&mut self.world, dice);
        let told = monitor.take_told();
        let own = Some(told.as_slice()).filter(|told| !told.is_empty());
        let seq = monitor.cycle.ledger.seq();
        self.judge.sync(seq, own, &self.disk, &self.world);
        self.note(|| format!("  {told:?}"));
        match lived {
            Lived::On => {
                if monitor.is_up() && !monitor.is_stale && seq == self.judge.seq {
                    let is_full = self.judge.is_close || self.steps.is_multiple_of(16);
                    self.judge.agrees(monitor.cycle.ledger.state(), is_full);
                    if !monitor.has_news() {
                        end::nobody_waits(&self.judge.state, &self.judge.purse, monitor.now());
                        if !monitor.is_in_doubt() {
                            self.world.stops_arrive(monitor.number, &self.judge.state);
                        }
                    }
                }
                self.monitor = Some(monitor);
            }
            Lived::Ended => {
                self.note(|| "the monitor ends".into());
                self.world.lose_monitor(monitor.number, dice);
            }
        }
        true
    }

    /// Starts a monitor, where there is none.
    pub fn start_monitor(&mut self, stop: Option<StopKind>, dice: &mut Dice) {
        assert!(self.monitor.is_none(), "its lock is held");
        self.monitors += 1;
        self.world.marks.hit("a monitor starts");
        let clock = SteadyClock::start(self.wall(), &self.mono);
        let monitor = Monitor::start(&self.disk, clock, self.monitors, stop, dice);
        let ledger = &monitor.cycle.ledger;
        self.judge.peeked(ledger.seq(), ledger.state(), &self.disk);
        self.note(|| "a monitor starts".into());
        self.monitor = Some(monitor);
    }

    fn kill_monitor(&mut self, dice: &mut Dice) {
        let Some(monitor) = self.monitor.take() else { return };
        self.note(|| format!("monitor {} is killed", monitor.number));
        let is_up = monitor.is_up();
        self.world.marks.hit(if is_up { "monitor killed" } else { "monitor killed in recovery" });
        self.world.lose_monitor(monitor.number, dice);
    }

    fn pause_monitor(&mut self) {
        let Some(monitor) = &mut self.monitor else { return };
        monitor.is_paused = !monitor.is_paused;
        self.world.marks.hit("monitor paused or revived");
        self.note(|| "the monitor is paused or revived".into());
    }

    fn cut_power(&mut self, dice: &mut Dice) {
        self.note(|| "the power is cut".into());
        self.monitor = None;
        self.writers.clear();
        self.world.cut_power(dice);
        self.disk.cut_power(dice.below(2));
        self.writers.push(writer(&self.disk));
        let ledger = &self.writers[0];
        self.judge.opened(ledger.seq(), ledger.state(), &self.disk, &self.world);
    }

    fn jump(&mut self, dice: &mut Dice) {
        let ms = dice.draw() % 7_200_000;
        let is_back = dice.permille(500);
        self.shift = if is_back { self.shift - ms.min(self.shift / 2) } else { self.shift + ms };
        let mark = if is_back { "the clock is set back" } else { "suspend, or the clock set on" };
        self.world.marks.hit(mark);
        self.note(|| mark.to_owned());
    }

    /// What changes around it: the load, which programs there are, the server of the windows.
    fn strain(&mut self, dice: &mut Dice) {
        // Drawn apart, so that old seeds draw the rest as ever.
        let mut more = Dice(dice.0 ^ 0x9ee);
        let groups = &self.judge.state.settings.agents;
        let names: Vec<String> = groups.iter().map(|group| group.name.clone()).collect();
        match (more.below(3), more.pick(&names)) {
            (0, Some(name)) => {
                self.note(|| format!("the program of {name} goes away or is back"));
                self.world.meddle_with_program(name);
            }
            (1, _) => {
                self.note(|| "the server of the windows is killed".into());
                self.world.kill_server();
            }
            _ => {
                self.note(|| "the load rises or falls".into());
                self.world.is_overloaded = !self.world.is_overloaded;
            }
        }
    }

    fn spoil_write(&mut self, dice: &mut Dice) {
        let mark = match dice.below(3) {
            0 => {
                self.disk.refuse_next();
                "a write is refused"
            }
            1 => {
                self.disk.tear_next();
                "a write stands and is reported as failed"
            }
            _ => {
                self.disk.refuse_next_checkpoint();
                "a checkpoint is refused"
            }
        };
        self.world.marks.hit(mark);
        self.note(|| mark.to_owned());
    }

    fn command(&mut self, dice: &mut Dice) {
        // Drawn apart, so that old seeds draw the rest as ever.
        let mut more = Dice(dice.0 ^ 0x04a9_d500);
        if more.permille(80) {
            let Some(asked) = people::hands(&self.judge.state, &mut self.world, &mut more) else {
                return;
            };
            self.note(|| format!("{asked:?}"));
            self.ask(asked, 0, &mut more);
            return;
        }
        let mut asked = people::command(&self.judge.state, dice);
        if let Command::AdoptSettings { settings } = &mut asked
            && self.world.has_fates
        {
            draw::newest(settings, Some(&self.judge.state.settings), more);
        }
        self.say(asked, dice);
    }

    /// A person says something, to the monitor or to the journal.
    fn say(&mut self, asked: Command, dice: &mut Dice) {
        self.note(|| format!("{asked:?}"));
        match (&asked, &mut self.monitor) {
            (Command::AdoptSettings { .. } | Command::PickTask { .. }, Some(monitor)) => {
                monitor.asks.push(asked);
                self.world.marks.hit("settings change in a run");
                return;
            }
            (Command::Stop { kind: StopKind::Now | StopKind::Drain }, None) => {
                let Command::Stop { kind } = asked else { return };
                return self.start_monitor(Some(kind), dice);
            }
            _ => {}
        }
        let place = dice.below(self.writers.len());
        if dice.permille(100) {
            self.writers[place] = writer(&self.disk);
        }
        self.ask(asked, place, dice);
    }

    /// Carries out a command in a process of its own; returns whether it was accepted.
    pub fn ask(&mut self, asked: Command, place: usize, dice: &mut Dice) -> bool {
        let at = Time::from_ms(self.wall());
        let random = u128::from(dice.draw());
        let event = Event { at, random, body: EventBody::Command(asked) };
        let ledger = &mut self.writers[place];
        let done = ledger.transact(Duration::ZERO, at, &[event], Turns::None);
        let Ok(done) = done else {
            self.world.marks.hit("a command fails at the journal");
            return false;
        };
        let own: Option<&[Change]> =
            Some(&done.changes).filter(|own| !own.is_empty()).map(|x| &**x);
        let seq = ledger.seq();
        self.judge.sync(seq, own, &self.disk, &self.world);
        let is_accepted = matches!(done.answers.first(), Some(Answer::Accept));
        let is_refused = matches!(done.answers.first(), Some(Answer::Refuse(_)));
        assert!(!is_refused || done.changes.is_empty(), "a refusal changes something");
        let mark = if is_refused { "a command is refused" } else { "a command is accepted" };
        self.world.marks.hit(mark);
        is_accepted
    }

    /// From here on nothing fails.
    pub fn calm(&mut self) {
        self.world.is_kind = true;
        self.world.is_overloaded = false;
        self.world.calm();
        if let Some(monitor) = &mut self.monitor {
            monitor.is_paused = false;
        }
        // What was to go wrong next no longer does.
        self.disk.heal();
    }
}

fn writer(disk: &Disk) -> Ledger<Disk> {
    Ledger::open(disk.another(), "cli").expect("the journal is whole").0
}
