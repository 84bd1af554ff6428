//! Where a run's chances come from: a seed, or the recorded draws of an earlier run.
//!
//! Draws are kept event by event, so that an event can be left out and the others stay as they were:
//! that is how a failure is shrunk.

/// The draws of a run, one list for each event.
pub type Script = Vec<Vec<u64>>;

/// Random numbers.
#[derive(Debug)]
pub struct Dice {
    seed: u64,
    /// `None`: the draws come from the seed.
    script: Option<Script>,
    drawn: Script,
}

impl Dice {
    /// Draws from a seed (splitmix64).
    pub fn of_seed(seed: u64) -> Self {
        Self { seed, script: None, drawn: vec![Vec::new()] }
    }

    /// Draws again what was drawn; where the script ends every draw is 0.
    pub fn of_script(script: Script) -> Self {
        Self { seed: 0, script: Some(script), drawn: vec![Vec::new()] }
    }

    /// Begins the next event; returns false when the script has no more.
    pub fn next_event(&mut self) -> bool {
        self.drawn.push(Vec::new());
        self.script.as_ref().is_none_or(|script| self.drawn.len() <= script.len())
    }

    /// Returns what was drawn so far.
    pub fn into_script(self) -> Script {
        self.drawn
    }

    /// Draws a number.
    pub fn next(&mut self) -> u64 {
        let event = self.drawn.len() - 1;
        let place = self.drawn[event].len();
        let value = match &self.script {
            Some(script) => script.get(event).and_then(|event| event.get(place)).copied(),
            None => Some(self.mix()),
        };
        let value = value.unwrap_or(0);
        self.drawn[event].push(value);
        value
    }

    fn mix(&mut self) -> u64 {
        self.seed = self.seed.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.seed;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// Draws a number below `end`; 0 when that is 0.
    pub fn below(&mut self, end: usize) -> usize {
        (self.next() % end.max(1) as u64) as usize
    }

    /// Draws whether something happens; the draw 0 means that it does not.
    pub fn percent(&mut self, chance: u64) -> bool {
        self.next() % 100 >= 100 - chance.min(100)
    }

    /// Draws one of several.
    pub fn pick<T: Clone>(&mut self, from: &[T]) -> Option<T> {
        (!from.is_empty()).then(|| from[self.below(from.len())].clone())
    }
}
