//! A modelled repository: commits that know their parents, and refs that are swapped.

use std::collections::BTreeMap;

use pipeline::machine::id::{Oid, TaskId};

/// Name of the base branch.
pub const BASE: &str = "base";
/// Name of the landing branch.
pub const LANDED: &str = "landed";

#[derive(Debug, Clone)]
struct Commit {
    parents: Vec<usize>,
    /// The task that this commit lands.
    lands: Option<TaskId>,
}

/// The repository; commits are never lost, refs move by compare-and-swap.
#[derive(Debug, Default)]
pub struct Git {
    commits: Vec<Commit>,
    refs: BTreeMap<String, usize>,
    /// Commits by what they were made of: the same again gives the same id.
    made: BTreeMap<(Vec<usize>, String), usize>,
}

fn number(oid: &Oid) -> usize {
    oid.as_str()[1..].parse().expect("ids of the model are `c` and a number")
}

fn oid(number: usize) -> Oid {
    Oid::new(format!("c{number}"))
}

/// The name of a task's branch.
pub fn task_ref(task: &TaskId) -> String {
    format!("task/{task}")
}

impl Git {
    /// Makes a commit of `parents`; the same `key` and parents give the same commit.
    pub fn commit(&mut self, parents: &[&Oid], lands: Option<&TaskId>, key: &str) -> Oid {
        let parents: Vec<usize> = parents.iter().map(|parent| number(parent)).collect();
        let next = self.commits.len();
        let found = *self.made.entry((parents.clone(), key.to_owned())).or_insert(next);
        if found == next {
            self.commits.push(Commit { parents, lands: lands.cloned() });
        }
        oid(found)
    }

    /// Returns where a ref stands.
    pub fn read(&self, name: &str) -> Option<Oid> {
        self.refs.get(name).map(|number| oid(*number))
    }

    /// Returns all refs.
    pub fn refs(&self) -> impl Iterator<Item = (&str, Oid)> {
        self.refs.iter().map(|(name, number)| (name.as_str(), oid(*number)))
    }

    /// Moves a ref from `old` to `new`; else returns what was found.
    pub fn swap(
        &mut self,
        name: &str,
        new: Option<&Oid>,
        old: Option<&Oid>,
    ) -> Result<(), Option<Oid>> {
        let found = self.read(name);
        if found.as_ref() == new {
            return Ok(());
        }
        if found.as_ref() != old {
            return Err(found);
        }
        self.set(name, new);
        Ok(())
    }

    /// Sets a ref, whatever it was.
    pub fn set(&mut self, name: &str, to: Option<&Oid>) {
        match to {
            Some(to) => self.refs.insert(name.into(), number(to)),
            None => self.refs.remove(name),
        };
    }

    /// Puts a ref of ours back to `to`; what was found is kept.
    pub fn put_back(&mut self, name: &str, to: &Oid) {
        if let Some(found) = self.read(name).filter(|found| found != to) {
            self.set(&format!("salvage/{name}.found-{}", found.as_str()), Some(&found));
        }
        self.set(name, Some(to));
    }

    /// Returns whether `older` is `newer` or one of its ancestors.
    pub fn is_ancestor(&self, older: &Oid, newer: &Oid) -> bool {
        self.reach([newer.clone()])[number(older)]
    }

    /// Marks what can be reached from these commits.
    pub fn reach(&self, from: impl IntoIterator<Item = Oid>) -> Vec<bool> {
        let mut is_reached = vec![false; self.commits.len()];
        let mut todo: Vec<usize> = from.into_iter().map(|oid| number(&oid)).collect();
        while let Some(at) = todo.pop() {
            if !std::mem::replace(&mut is_reached[at], true) {
                todo.extend(&self.commits[at].parents);
            }
        }
        is_reached
    }

    /// Returns which of `commits` are not marked.
    pub fn missing<'a>(&self, reached: &[bool], commits: &'a [Oid]) -> Vec<&'a Oid> {
        commits.iter().filter(|oid| !reached[number(oid)]).collect()
    }

    /// Returns how often each task was landed in what `tip` holds.
    pub fn landings(&self, tip: &Oid) -> BTreeMap<TaskId, usize> {
        let mut landings = BTreeMap::new();
        for (at, is_reached) in self.reach([tip.clone()]).into_iter().enumerate() {
            if let Some(task) = self.commits[at].lands.as_ref().filter(|_| is_reached) {
                *landings.entry(task.clone()).or_default() += 1;
            }
        }
        landings
    }
}
