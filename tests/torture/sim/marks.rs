//! Coverage marks: what a run has met, and how often. What is never met is not tested.

use std::collections::BTreeMap;

/// Counters by name.
#[derive(Debug, Default, Clone)]
pub struct Marks(pub BTreeMap<&'static str, u64>);

impl Marks {
    /// Counts one.
    pub fn hit(&mut self, name: &'static str) {
        self.add(name, 1);
    }

    /// Counts some.
    pub fn add(&mut self, name: &'static str, count: u64) {
        *self.0.entry(name).or_default() += count;
    }

    /// Takes in another run's.
    pub fn join(&mut self, other: &Self) {
        for (name, count) in &other.0 {
            *self.0.entry(name).or_default() += count;
        }
    }
}
