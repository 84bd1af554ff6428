//! Which faults a run draws, and how often: every seed has a mix of its own.

use super::dice::Dice;
use crate::fixture::End;

/// Chances in percent.
#[derive(Debug, Clone, Copy, Default)]
pub struct Mix {
    /// A step of an effect fails.
    pub fail: u64,
    /// It is done, but reported as failed; or not reported at all.
    pub lie: u64,
    /// It is reported twice.
    pub double: u64,
    /// A merge conflicts.
    pub conflict: u64,
    /// A merge touches protected paths.
    pub protect: u64,
    /// The person's checkout refuses the base's step.
    pub refuse: u64,
    /// An agent ends otherwise than well.
    pub bad_end: u64,
    /// It leaves processes behind.
    pub leak: u64,
    /// It leaves no change, or conflict markers.
    pub empty: u64,
    /// Its worktree goes away under it.
    pub gone: u64,
    /// The monitor is killed; also inside its start.
    pub crash: u64,
    /// The power is cut.
    pub power: u64,
    /// A keeper is killed.
    pub keeper: u64,
    /// A write to the journal is refused or torn.
    pub write: u64,
    /// The wall clock jumps.
    pub jump: u64,
    /// People move, rewrite or delete branches.
    pub people: u64,
    /// Commands of other processes.
    pub command: u64,
    /// Settings change.
    pub settings: u64,
}

impl Mix {
    /// Draws a mix: about half of the faults do not occur at all in a run.
    pub fn draw(dice: &mut Dice) -> Self {
        let mut some = |most: usize| if dice.percent(50) { dice.below(most + 1) as u64 } else { 0 };
        Self {
            fail: some(15),
            lie: some(8),
            double: some(15),
            conflict: some(30),
            protect: some(15),
            refuse: some(40),
            bad_end: some(60),
            leak: some(10),
            empty: some(25),
            gone: some(10),
            crash: some(6),
            power: some(2),
            keeper: some(6),
            write: some(6),
            jump: some(4),
            people: some(5),
            command: 4 + some(20),
            settings: some(4),
        }
    }

    /// Draws how an agent, or a check, ends.
    pub fn end(&self, is_work: bool, dice: &mut Dice) -> End {
        let chance = if is_work { self.bad_end } else { self.bad_end / 2 };
        if !dice.percent(chance) {
            return End::Done;
        }
        let ends: &[End] = if is_work {
            &[
                End::Silent,
                End::Fail,
                End::NoMarker,
                End::Blocked,
                End::Changes,
                End::Changes,
                End::Timeout,
                End::Crash,
                End::Unstartable,
            ]
        } else {
            &[End::Fail, End::Timeout, End::Crash, End::Unstartable]
        };
        dice.pick(ends).unwrap_or(End::Done)
    }
}
