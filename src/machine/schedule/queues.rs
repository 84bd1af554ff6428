//! The ready tasks of one stage.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use super::demand::Demand;
use super::rank::Rank;
use crate::machine::id::TaskId;

/// A place and who has it.
pub type Place = (Rank, TaskId);

/// Ready tasks by demand, the first of each demand by rank, and all by age. Every operation is
/// O(log n).
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Queues {
    by_demand: BTreeMap<Arc<Demand>, BTreeSet<Place>>,
    heads: BTreeMap<Place, Arc<Demand>>,
    by_age: BTreeMap<(u64, TaskId), Arc<Demand>>,
}

impl Queues {
    /// Puts a task in.
    pub fn insert(&mut self, demand: Demand, place: Place) {
        let key = match self.by_demand.get_key_value(&demand) {
            Some((key, _)) => Arc::clone(key),
            None => Arc::new(demand),
        };
        self.by_age.insert((place.0.entry(), place.1.clone()), Arc::clone(&key));
        self.change(key, |queue| {
            queue.insert(place);
        });
    }

    /// Takes a task out.
    pub fn remove(&mut self, demand: Demand, place: &Place) {
        self.by_age.remove(&(place.0.entry(), place.1.clone()));
        self.change(Arc::new(demand), |queue| {
            queue.remove(place);
        });
    }

    fn change(&mut self, key: Arc<Demand>, change: impl FnOnce(&mut BTreeSet<Place>)) {
        let queue = self.by_demand.entry(Arc::clone(&key)).or_default();
        let before = queue.first().cloned();
        change(queue);
        let after = queue.first().cloned();
        if after.is_none() {
            self.by_demand.remove(&key);
        }
        if before != after {
            if let Some(before) = before {
                self.heads.remove(&before);
            }
            if let Some(after) = after {
                self.heads.insert(after, key);
            }
        }
    }

    /// Returns true when no task is in it.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.by_demand.is_empty()
    }

    /// Returns how many tasks are in it.
    #[must_use]
    pub fn len(&self) -> usize {
        self.by_age.len()
    }

    /// Returns the demands.
    pub fn demands(&self) -> impl ExactSizeIterator<Item = (&Demand, &BTreeSet<Place>)> {
        self.by_demand.iter().map(|(demand, queue)| (&**demand, queue))
    }

    /// Returns the first of each demand, by rank.
    pub fn heads(&self) -> impl Iterator<Item = (&Place, &Arc<Demand>)> {
        self.heads.iter()
    }

    /// Returns who comes after `place` among those of its demand.
    #[must_use]
    pub fn after(&self, demand: &Arc<Demand>, place: &Place) -> Option<&Place> {
        use std::ops::Bound::{Excluded, Unbounded};
        self.by_demand.get(demand)?.range((Excluded(place), Unbounded)).next()
    }

    /// Returns the demand of the task of that order of creation; `None`: it is not in here.
    #[must_use]
    pub fn demand_of(&self, entry: u64, id: &TaskId) -> Option<&Arc<Demand>> {
        self.by_age.get(&(entry, id.clone()))
    }

    /// Returns all, by rank. Cost: the demands, and O(log n) for each that is taken.
    pub fn by_rank(&self) -> impl Iterator<Item = (&Place, &Arc<Demand>)> {
        let mut next: BTreeMap<&Place, &Arc<Demand>> = self.heads.iter().collect();
        std::iter::from_fn(move || {
            let (place, demand) = next.pop_first()?;
            if let Some(behind) = self.after(demand, place) {
                next.insert(behind, demand);
            }
            Some((place, demand))
        })
    }

    /// Returns all, oldest first.
    pub fn by_age(&self) -> impl Iterator<Item = (u64, &TaskId, &Arc<Demand>)> {
        self.by_age.iter().map(|((entry, id), demand)| (*entry, id, demand))
    }
}
