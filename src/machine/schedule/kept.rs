//! What waits keeps from those behind it in rank, so that they do not pass it for ever.

use std::collections::BTreeMap;

use super::demand::Demand;
use super::paths::Paths;
use crate::machine::id::TaskId;

/// Most tasks that keep something at once. Those behind them in rank keep nothing: with so many before
/// them it is not they that the next free agent goes to.
const KEEPERS_MAX: usize = 64;

/// Shares of resources and paths that are kept, and for whom.
#[derive(Debug, Default)]
pub struct Kept<'a> {
    amounts: BTreeMap<&'a str, Vec<(&'a TaskId, u64)>>,
    /// Of those that wait until others no longer change them.
    paths: Paths<'a>,
    /// Of those that wait for a landing: kept only from those that would wait for it too.
    to_land: Paths<'a>,
    keepers: usize,
}

impl<'a> Kept<'a> {
    /// Returns true when no more tasks may keep anything.
    #[must_use]
    pub const fn is_full(&self) -> bool {
        self.keepers >= KEEPERS_MAX
    }

    /// Notes that one more task keeps something.
    pub const fn count(&mut self) {
        self.keepers += 1;
    }

    /// Keeps so much of a resource.
    pub fn amount(&mut self, id: &'a TaskId, name: &'a str, amount: u64) {
        self.amounts.entry(name).or_default().push((id, amount));
    }

    /// Keeps paths.
    pub fn paths(&mut self, id: &'a TaskId, globs: impl IntoIterator<Item = &'a String>) {
        self.paths.add(id, globs);
    }

    /// Keeps paths from those alone that wait for landings.
    pub fn paths_to_land(&mut self, id: &'a TaskId, globs: impl IntoIterator<Item = &'a String>) {
        self.to_land.add(id, globs);
    }

    /// Returns another task for which something of the demand is kept. `free`: how much of a resource
    /// nobody uses.
    #[must_use]
    pub fn keeper(
        &self,
        id: &TaskId,
        demand: &Demand,
        free: impl Fn(&str) -> u64,
    ) -> Option<&'a TaskId> {
        let mut wanted = demand.resources.iter().filter(|(_, wanted)| **wanted > 0);
        let of_amounts = wanted.find_map(|(name, wanted)| {
            let others = self.amounts.get(name.as_str())?.iter().filter(|(other, _)| *other != id);
            let kept = others.clone().map(|(_, amount)| *amount).fold(0, u64::saturating_add);
            let first = others.map(|(other, _)| *other).next()?;
            (*wanted > free(name).saturating_sub(kept)).then_some(first)
        });
        let of_paths = || self.paths.holder(id, &demand.touches);
        let of_landings = || {
            let asked = demand.waits_for_branches().then_some(&demand.touches)?;
            self.to_land.holder(id, asked)
        };
        of_amounts.or_else(of_paths).or_else(of_landings)
    }
}
