//! A modelled repository: commits with what they contain, refs, compare-and-swap, salvage.

use std::collections::BTreeMap;

use pipeline::machine::id::{Oid, TaskId};

/// A commit's place in the order in which all were made.
pub type Commit = usize;

/// The user's branch.
pub const BASE: &str = "refs/heads/main";
/// The landing branch.
pub const LANDED: &str = "refs/heads/pipeline/landed";

/// Names a task's branch.
pub fn task_ref(id: &TaskId) -> String {
    format!("refs/heads/pipeline/task/{id}")
}

/// Names a place in salvage.
pub fn salvage_ref(name: &str) -> String {
    format!("refs/pipeline/salvage/{name}")
}

/// Names where a landing's commit is pinned.
pub fn pending_ref(id: &TaskId) -> String {
    format!("refs/pipeline/pending/{id}")
}

/// Returns the id git would give.
pub fn oid(commit: Commit) -> Oid {
    Oid::new(format!("c{commit}"))
}

/// Returns which commit an id names.
pub fn commit_of(oid: &Oid) -> Commit {
    oid.as_str()[1..].parse().expect("all ids are the model's own")
}

/// A set of commits.
type Set = Vec<u64>;

fn has(set: &Set, commit: Commit) -> bool {
    set.get(commit / 64).is_some_and(|word| word & (1 << (commit % 64)) != 0)
}

fn put(set: &mut Set, commit: Commit) {
    if set.len() <= commit / 64 {
        set.resize(commit / 64 + 1, 0);
    }
    set[commit / 64] |= 1 << (commit % 64);
}

fn join(set: &mut Set, other: &Set) {
    if set.len() < other.len() {
        set.resize(other.len(), 0);
    }
    for (word, more) in set.iter_mut().zip(other) {
        *word |= more;
    }
}

/// One repository.
#[derive(Debug, Default)]
pub struct Repo {
    /// What each commit contains, itself among it.
    contents: Vec<Set>,
    /// Commits by what they were made of: a repetition gives the same one.
    made: BTreeMap<String, Commit>,
    /// The task that a landing commit brings in.
    landing_of: BTreeMap<Commit, TaskId>,
    refs: BTreeMap<String, Commit>,
    /// Work that no ref may lose.
    kept: Set,
    /// What people took away themselves.
    excused: Set,
    /// How often a task that may have landed was begun anew.
    reopened: BTreeMap<TaskId, usize>,
}

impl Repo {
    /// Makes a repository whose base has one commit.
    pub fn new() -> Self {
        let mut repo = Self::default();
        let first = repo.make("first", &[]);
        repo.refs.insert(BASE.into(), first);
        repo
    }

    /// Makes a commit; the same recipe gives the same one.
    pub fn make(&mut self, recipe: &str, parents: &[Commit]) -> Commit {
        if let Some(known) = self.made.get(recipe) {
            return *known;
        }
        let new = self.contents.len();
        let mut content = Set::new();
        for parent in parents {
            join(&mut content, &self.contents[*parent]);
        }
        put(&mut content, new);
        self.contents.push(content);
        self.made.insert(recipe.to_owned(), new);
        new
    }

    /// Makes the commit of a person, unlike any other.
    pub fn make_new(&mut self, parents: &[Commit]) -> Commit {
        let recipe = format!("person {}", self.contents.len());
        self.make(&recipe, parents)
    }

    /// Makes a landing's commit.
    pub fn make_landing(&mut self, task: &TaskId, onto: Commit, tip: Commit, date: u64) -> Commit {
        let new = self.make(&format!("land {task} {onto} {tip} {date}"), &[onto, tip]);
        self.landing_of.insert(new, task.clone());
        new
    }

    /// Returns true when `later` contains `earlier`.
    pub fn holds(&self, later: Commit, earlier: Commit) -> bool {
        has(&self.contents[later], earlier)
    }

    /// Returns how many landings of `task` a commit contains.
    pub fn landings(&self, task: &TaskId, within: Commit) -> usize {
        let of_task = self.landing_of.iter().filter(|(_, of)| *of == task);
        of_task.filter(|(landing, _)| self.holds(within, **landing)).count()
    }

    /// From now on the task may land once more.
    pub fn reopen(&mut self, task: &TaskId) {
        *self.reopened.entry(task.clone()).or_default() += 1;
    }

    /// Returns how often a task may have landed.
    pub fn landings_max(&self, task: &TaskId) -> usize {
        1 + self.reopened.get(task).copied().unwrap_or(0)
    }

    /// Reads a ref.
    pub fn read(&self, name: &str) -> Option<Commit> {
        self.refs.get(name).copied()
    }

    /// Moves a ref of ours from `old` to `new`; `Err`: where it stands instead.
    pub fn swap(
        &mut self,
        name: &str,
        new: Option<Commit>,
        old: Option<Commit>,
    ) -> Result<(), Option<Commit>> {
        let found = self.read(name);
        if found != old {
            return Err(found);
        }
        self.set(name, new);
        Ok(())
    }

    fn set(&mut self, name: &str, to: Option<Commit>) {
        match to {
            Some(to) => self.refs.insert(name.to_owned(), to),
            None => self.refs.remove(name),
        };
    }

    /// Moves a branch of ours back to `to`; what was found goes to salvage.
    pub fn put_back(&mut self, name: &str, to: Commit, found: Option<Commit>) {
        let short = name.rsplit('/').next().unwrap_or(name);
        if let Some(found) = found {
            let kept = salvage_ref(&format!("{short}.found-{found}"));
            self.set(&kept, Some(found));
        }
        self.set(name, Some(to));
    }

    /// A person moves or removes a ref; what it held is theirs to lose.
    pub fn meddle(&mut self, name: &str, to: Option<Commit>) {
        if let Some(old) = self.read(name) {
            let content = self.contents[old].clone();
            join(&mut self.excused, &content);
        }
        self.set(name, to);
    }

    /// From now on the commit must stay reachable.
    pub fn keep(&mut self, commit: Commit) {
        put(&mut self.kept, commit);
    }

    /// Pins work of ours: from now on it must stay reachable.
    pub fn pin(&mut self, name: &str, commit: Commit) {
        self.keep(commit);
        if let Some(old) = self.read(name).filter(|old| *old != commit) {
            // As git's own salvage does: what stood there is kept beside.
            self.set(&format!("{name}.{old}"), Some(old));
        }
        self.set(name, Some(commit));
    }

    /// Notes where a landing's commit is, which has no work of its own.
    pub fn note(&mut self, name: &str, commit: Commit) {
        self.set(name, Some(commit));
    }

    /// Returns a commit that had to be kept and that no ref reaches.
    pub fn lost(&self) -> Option<Commit> {
        let mut reached = self.excused.clone();
        for at in self.refs.values() {
            join(&mut reached, &self.contents[*at]);
        }
        (0..self.contents.len()).find(|commit| has(&self.kept, *commit) && !has(&reached, *commit))
    }

    /// Returns some commit that the base has had.
    pub fn any(&self, number: usize) -> Commit {
        let base = self.read(BASE).unwrap_or(0);
        let held: Vec<Commit> = (0..=base).filter(|commit| self.holds(base, *commit)).collect();
        held[number % held.len()]
    }

    /// Returns the names of our branches, for people who meddle.
    pub fn names(&self) -> Vec<String> {
        self.refs.keys().cloned().collect()
    }
}
