//! Processes that are killed and stopped at random while they work.

use std::os::fd::OwnedFd;
use std::process::Child;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use pipeline::sys::clock::monotonic;
use rustix::process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal};

/// A small generator, so that a run can be had again by its seed, as far as processes allow.
pub struct Dice(u64);

impl Dice {
    pub fn new(seed: u64) -> Self {
        let mut dice = Self(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1);
        for _ in 0..4 {
            dice.below(2);
        }
        dice
    }

    pub fn below(&mut self, limit: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 >> 11) % limit
    }

    pub fn chance(&mut self, one_in: u64) -> bool {
        self.below(one_in) == 0
    }
}

/// Nanoseconds since the beginning.
#[derive(Debug, Clone, Copy)]
pub struct Since(Instant);

impl Since {
    pub fn begin() -> Self {
        Self(monotonic())
    }

    pub fn now(self) -> u64 {
        u64::try_from(self.0.elapsed().as_nanos()).expect("no run takes 500 years")
    }
}

/// A process that may be hit. Held by its pidfd, so that no signal reaches another one.
#[derive(Debug)]
pub struct Victim {
    pidfd: OwnedFd,
    /// When it was last seen alive before its kill; 0: not killed.
    killed: AtomicU64,
}

impl Victim {
    /// Takes hold of a child that has not been waited for.
    pub fn of(child: &Child) -> Arc<Self> {
        let pidfd = pidfd_open(Pid::from_child(child), PidfdFlags::empty()).expect("it is ours");
        Arc::new(Self { pidfd, killed: AtomicU64::new(0) })
    }

    pub fn killed(&self) -> Option<u64> {
        Some(self.killed.load(Ordering::SeqCst)).filter(|at| *at > 0)
    }

    /// Sends a signal; one that has ended already is left alone.
    pub fn send(&self, signal: Signal) {
        let _ = pidfd_send_signal(&self.pidfd, signal);
    }
}

/// Where running processes are found by who hits them: one place for each thread that starts some.
#[derive(Debug)]
pub struct Places {
    places: Vec<Mutex<Option<Arc<Victim>>>>,
    is_over: AtomicBool,
    pub since: Since,
}

impl Places {
    pub fn new(count: usize, since: Since) -> Self {
        let places = (0..count).map(|_| Mutex::default()).collect();
        Self { places, is_over: AtomicBool::new(false), since }
    }

    pub fn set(&self, place: usize, victim: Option<Arc<Victim>>) {
        *self.places[place].lock().unwrap_or_else(PoisonError::into_inner) = victim;
    }

    pub fn get(&self, place: usize) -> Option<Arc<Victim>> {
        self.places[place].lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Nothing is to be hit or begun any more.
    pub fn end(&self) {
        self.is_over.store(true, Ordering::SeqCst);
    }

    pub fn is_over(&self) -> bool {
        self.is_over.load(Ordering::SeqCst)
    }
}

/// How often processes are hit.
#[derive(Debug, Clone, Copy)]
pub struct Pace {
    pub shortest_ms: u64,
    pub longest_ms: u64,
}

/// Hits processes in random places until all is over: kills, or stops for a while.
pub fn hit(places: &Places, pace: Pace, mut dice: Dice) {
    let mut stopped: Vec<(u64, Arc<Victim>)> = Vec::new();
    while !places.is_over() {
        let wait = pace.shortest_ms + dice.below(pace.longest_ms - pace.shortest_ms);
        std::thread::park_timeout(Duration::from_millis(wait));
        let now = places.since.now();
        stopped.retain(|(until, victim)| {
            let is_due = *until <= now;
            if is_due {
                victim.send(Signal::CONT);
            }
            !is_due
        });
        let place = dice.below(places.places.len() as u64) as usize;
        let Some(victim) = places.get(place) else { continue };
        if dice.below(5) < 2 {
            victim.send(Signal::STOP);
            stopped.push((now + dice.below(200_000_000), victim));
        } else {
            let _ = victim.killed.compare_exchange(0, now, Ordering::SeqCst, Ordering::SeqCst);
            victim.send(Signal::KILL);
        }
    }
    stopped.iter().for_each(|(_, victim)| victim.send(Signal::CONT));
}
