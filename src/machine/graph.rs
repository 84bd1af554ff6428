//! The dependency graph: unknown names, cycles, levels, figures. Linear in tasks and dependencies, no
//! recursion; names are looked up once, the rest is numbers. Cycles are sought only among what is
//! left when all that waits for nothing has been taken away, again and again.

use std::borrow::Cow;
use std::collections::VecDeque;
use std::ops::Range;

use petgraph::algo::kosaraju_scc;
use petgraph::graph::{DiGraph, NodeIndex};

use super::names::{Places, UNKNOWN};

/// Cycles named in a message; the rest is counted.
pub const CYCLES_LISTED_MAX: usize = 20;

/// Tasks of a cycle named in a message; those between the first ones and the last are counted.
const CYCLE_NAMES_MAX: usize = 20;

/// The knot of a task that is on no cycle.
const UNTIED: u32 = u32::MAX;

/// Tasks and what they depend on, as they are read.
#[derive(Debug, Default)]
pub struct Sketch<'a> {
    names: Vec<Cow<'a, str>>,
    /// How many of `depends_on` belong to the tasks up to each one.
    ends: Vec<usize>,
    depends_on: Vec<Cow<'a, str>>,
}

impl<'a> Sketch<'a> {
    /// Takes what the next task depends on; [`task`](Self::task) ends the list.
    pub fn dependency(&mut self, name: Cow<'a, str>) {
        self.depends_on.push(name);
    }

    /// Takes a task, with the dependencies taken since the one before.
    pub fn task(&mut self, name: Cow<'a, str>) {
        self.names.push(name);
        self.ends.push(self.depends_on.len());
    }

    /// Returns how many tasks were taken.
    #[must_use]
    pub fn task_count(&self) -> usize {
        self.names.len()
    }

    /// Gives dependencies the name that `other` has for them.
    pub fn rename(&mut self, other: impl Fn(&str) -> Option<String>) {
        for name in &mut self.depends_on {
            if let Some(other) = other(name) {
                *name = Cow::Owned(other);
            }
        }
    }

    /// Finds what every name stands for. Of tasks whose names differ in letter case at most, the
    /// first is meant.
    ///
    /// # Panics
    /// When there are 2³² tasks or dependencies.
    #[must_use]
    pub fn graph(self) -> Graph<'a> {
        let (places, twice) = Places::of(&self.names);
        let found = places.find(&self.depends_on, &self.names);
        let mut starts = Vec::with_capacity(self.names.len() + 1);
        starts.push(0);
        let mut deps = Vec::with_capacity(self.depends_on.len());
        let (mut unknown, mut begin) = (Vec::new(), 0);
        for (task, end) in (0..).zip(&self.ends) {
            let (known, unknown_here) = (deps.len(), unknown.len());
            for (index, place) in (begin..).zip(&found[begin..*end]) {
                match *place {
                    UNKNOWN => unknown.push((task, index)),
                    place => deps.push(place),
                }
            }
            sort_from(&mut deps, known, |place| *place);
            sort_from(&mut unknown, unknown_here, |(_, index)| &self.depends_on[*index]);
            starts.push(u32::try_from(deps.len()).expect("fewer than 2^32 dependencies"));
            begin = *end;
        }
        Graph { sketch: self, starts, deps, unknown, twice }
    }
}

/// Sorts what stands from `first` on, and leaves out what stands there twice.
fn sort_from<T: Copy, K: Ord>(list: &mut Vec<T>, first: usize, key: impl Fn(&T) -> K) {
    list[first..].sort_unstable_by_key(&key);
    let mut kept = first;
    for place in first..list.len() {
        if place == first || key(&list[place]) != key(&list[kept - 1]) {
            list[kept] = list[place];
            kept += 1;
        }
    }
    list.truncate(kept);
}

/// Tasks by place, in order of the input, and the places of what each depends on.
#[derive(Debug, Default)]
pub struct Graph<'a> {
    sketch: Sketch<'a>,
    /// Where the dependencies of each task begin in `deps`, and the end of all.
    starts: Vec<u32>,
    /// By task, each sorted.
    deps: Vec<u32>,
    /// (task, place of the unknown name in the sketch), in order of the tasks.
    unknown: Vec<(u32, usize)>,
    /// Tasks of a name that another one before has, letter case aside.
    twice: Vec<u32>,
}

/// What is known of a graph; tasks are places in it.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Report {
    /// One of each strongly connected component, and every task that depends on itself; each as a
    /// closed path `a, b, a` that is the shortest through its first task. In order of their first
    /// tasks; at most [`CYCLES_LISTED_MAX`].
    pub cycles: Vec<Vec<u32>>,
    pub cycle_count: usize,
    /// Tasks in order of their levels, in order of the input within one; so every task stands behind
    /// what it depends on. Empty when there is a cycle.
    pub order: Vec<u32>,
    /// Where each level begins in `order`; level 0 depends on nothing known, each other one on the
    /// level before.
    pub level_starts: Vec<u32>,
    /// A longest chain, first task first; empty when there is a cycle.
    pub longest_chain: Vec<u32>,
    /// Tasks without dependencies that are known.
    pub roots: Vec<u32>,
    /// Tasks that no other depends on.
    pub leaves: Vec<u32>,
    /// The strongly connected component of each task; empty when there is no cycle.
    knots: Vec<u32>,
}

impl<'a> Graph<'a> {
    /// Returns what it was made of, to be changed.
    #[must_use]
    pub fn into_sketch(self) -> Sketch<'a> {
        self.sketch
    }

    /// Returns how many tasks there are.
    #[must_use]
    pub fn task_count(&self) -> usize {
        self.sketch.names.len()
    }

    /// Returns how many dependencies there are, unknown ones among them.
    #[must_use]
    pub fn dependency_count(&self) -> usize {
        self.deps.len() + self.unknown.len()
    }

    /// Returns the name of a task.
    #[must_use]
    pub fn name(&self, task: u32) -> &str {
        &self.sketch.names[task as usize]
    }

    /// Returns the names of tasks.
    pub fn names<'b>(&'b self, tasks: &'b [u32]) -> impl Iterator<Item = &'b str> {
        tasks.iter().map(|task| self.name(*task))
    }

    /// Returns all tasks.
    pub fn tasks(&self) -> Range<u32> {
        0..u32::try_from(self.task_count()).expect("fewer than 2^32 tasks")
    }

    /// Returns what a task depends on and is known, in order of the input.
    #[must_use]
    pub fn dependencies(&self, task: u32) -> &[u32] {
        let task = task as usize;
        &self.deps[self.starts[task] as usize..self.starts[task + 1] as usize]
    }

    /// Returns (task, unknown name of a dependency), in order of the tasks.
    pub fn unknown(&self) -> impl ExactSizeIterator<Item = (u32, &str)> {
        self.unknown.iter().map(|(task, index)| (*task, &*self.sketch.depends_on[*index]))
    }

    /// Returns the tasks whose name an earlier one has, letter case aside.
    #[must_use]
    pub fn twice(&self) -> &[u32] {
        &self.twice
    }

    /// Returns a cycle as a text, a long one cut in its middle.
    #[must_use]
    pub fn path(&self, cycle: &[u32]) -> String {
        let names: Vec<&str> = self.names(cycle).collect();
        let more = names.len().saturating_sub(CYCLE_NAMES_MAX);
        if more == 0 {
            return names.join(" -> ");
        }
        let (first, last) = (&names[..CYCLE_NAMES_MAX / 2], &names[CYCLE_NAMES_MAX / 2 + more..]);
        format!("{} -> ({more} more) -> {}", first.join(" -> "), last.join(" -> "))
    }

    /// Looks at all of it.
    #[must_use]
    pub fn report(&self) -> Report {
        let dependents = self.dependents();
        let is_leaf = |task: &u32| dependents.of(*task).iter().all(|other| other == task);
        let mut report = Report {
            roots: self.tasks().filter(|task| self.dependencies(*task).is_empty()).collect(),
            leaves: self.tasks().filter(is_leaf).collect(),
            ..Report::default()
        };
        let (levels, taken) = self.levels(&report.roots, &dependents);
        if taken == self.task_count() {
            self.order(&levels, &mut report);
        } else {
            self.knots(&levels, &mut report);
        }
        report
    }

    /// Turns the dependencies around.
    fn dependents(&self) -> Dependents {
        let mut starts = vec![0; self.task_count() + 2];
        for dep in &self.deps {
            starts[*dep as usize + 2] += 1;
        }
        for place in 2..starts.len() {
            starts[place] += starts[place - 1];
        }
        let mut tasks = vec![0; self.deps.len()];
        for task in self.tasks() {
            for dep in self.dependencies(task) {
                let next: &mut u32 = &mut starts[*dep as usize + 1];
                tasks[*next as usize] = task;
                *next += 1;
            }
        }
        Dependents { starts, tasks }
    }

    /// Returns the level of each task ([`UNTIED`] where a cycle is in the way), and how many have one.
    fn levels(&self, roots: &[u32], dependents: &Dependents) -> (Vec<u32>, usize) {
        let mut left: Vec<u32> = self.starts.windows(2).map(|pair| pair[1] - pair[0]).collect();
        let mut levels = vec![UNTIED; self.task_count()];
        let mut ready = Vec::with_capacity(self.task_count());
        ready.extend_from_slice(roots);
        for root in roots {
            levels[*root as usize] = 0;
        }
        let mut taken = 0;
        while let Some(task) = ready.get(taken).copied() {
            taken += 1;
            for dependent in dependents.of(task) {
                let dependent = *dependent as usize;
                left[dependent] -= 1;
                if left[dependent] == 0 {
                    // The queue is in order of levels: this one was the last and so is the deepest.
                    levels[dependent] = levels[task as usize] + 1;
                    ready.push(dependent as u32);
                }
            }
        }
        (levels, taken)
    }

    /// Fills in the order, the levels and the longest chain; every task has a level.
    fn order(&self, levels: &[u32], report: &mut Report) {
        let deepest = levels.iter().max().map_or(0, |deepest| *deepest as usize + 1);
        let mut starts = vec![0; deepest + 1];
        for level in levels {
            starts[*level as usize + 1] += 1;
        }
        for level in 1..starts.len() {
            starts[level] += starts[level - 1];
        }
        starts.truncate(deepest);
        report.level_starts.clone_from(&starts);
        report.order = vec![0; levels.len()];
        for (task, level) in (0..).zip(levels) {
            let next: &mut u32 = &mut starts[*level as usize];
            report.order[*next as usize] = task;
            *next += 1;
        }
        let mut at = report.level_starts.last().map(|start| report.order[*start as usize]);
        while let Some(task) = at {
            report.longest_chain.push(task);
            let above = |dep: &&u32| levels[**dep as usize] + 1 == levels[task as usize];
            at = self.dependencies(task).iter().find(above).copied();
        }
        report.longest_chain.reverse();
    }

    /// Fills in the cycles, which are all among the tasks that have no level.
    fn knots(&self, levels: &[u32], report: &mut Report) {
        let rest: Vec<u32> = self.tasks().filter(|task| levels[*task as usize] == UNTIED).collect();
        let mut places = vec![UNTIED; levels.len()];
        let mut graph = DiGraph::<(), ()>::with_capacity(rest.len(), 0);
        for task in &rest {
            places[*task as usize] = graph.add_node(()).index() as u32;
        }
        for task in &rest {
            for dep in self.dependencies(*task).iter().filter(|d| levels[**d as usize] == UNTIED) {
                let (from, to) = (places[*task as usize], places[*dep as usize]);
                graph.add_edge(NodeIndex::new(from as usize), NodeIndex::new(to as usize), ());
            }
        }
        let mut knots = vec![UNTIED; levels.len()];
        // First task, and whether all of its component is meant or it alone.
        let mut found = Vec::new();
        for (knot, component) in (0..).zip(kosaraju_scc(&graph)) {
            let members = component.iter().map(|node| rest[node.index()]);
            for task in members.clone().filter(|task| self.dependencies(*task).contains(task)) {
                knots[task as usize] = knot;
                found.push((task, false));
            }
            if component.len() > 1 {
                members.clone().for_each(|task| knots[task as usize] = knot);
                found.extend(members.min().map(|task| (task, true)));
            }
        }
        found.sort_unstable();
        report.cycle_count = found.len();
        report.knots = knots;
        let mut before = vec![UNTIED; levels.len()];
        for (task, is_whole) in found.into_iter().take(CYCLES_LISTED_MAX) {
            let cycle =
                if is_whole { self.cycle(task, report, &mut before) } else { vec![task, task] };
            report.cycles.push(cycle);
        }
    }

    /// Returns a shortest closed path of several tasks through `first`, inside its component.
    fn cycle(&self, first: u32, report: &Report, before: &mut [u32]) -> Vec<u32> {
        let mut todo = VecDeque::from([first]);
        while let Some(task) = todo.pop_front() {
            for dep in self.dependencies(task) {
                if *dep == first && task != first {
                    let step = |at: &u32| (*at != first).then(|| before[*at as usize]);
                    let mut path: Vec<u32> = std::iter::successors(Some(task), step).collect();
                    path.reverse();
                    path.push(first);
                    return path;
                }
                let is_new = *dep != first && before[*dep as usize] == UNTIED;
                if is_new && report.is_tied(task, *dep) {
                    before[*dep as usize] = task;
                    todo.push_back(*dep);
                }
            }
        }
        unreachable!("each task of a component is reached from each other one")
    }
}

impl Report {
    /// Returns how many levels there are.
    #[must_use]
    pub fn level_count(&self) -> usize {
        self.level_starts.len()
    }

    /// Returns the tasks by level.
    pub fn levels(&self) -> impl ExactSizeIterator<Item = &[u32]> {
        (0..self.level_starts.len()).map(|level| {
            let next = self.level_starts.get(level + 1);
            let end = next.map_or(self.order.len(), |end| *end as usize);
            &self.order[self.level_starts[level] as usize..end]
        })
    }

    /// Says whether a dependency of `task` on `dep` is part of a cycle.
    #[must_use]
    pub fn is_tied(&self, task: u32, dep: u32) -> bool {
        let knot = |task: u32| self.knots.get(task as usize).filter(|knot| **knot != UNTIED);
        knot(task).is_some() && knot(task) == knot(dep)
    }
}

/// The tasks that depend on each one.
struct Dependents {
    /// Where those of each task begin, and the end of all; one more than needed.
    starts: Vec<u32>,
    tasks: Vec<u32>,
}

impl Dependents {
    fn of(&self, task: u32) -> &[u32] {
        let task = task as usize;
        &self.tasks[self.starts[task] as usize..self.starts[task + 1] as usize]
    }
}

#[cfg(test)]
mod tests {
    use std::borrow::Cow;

    use super::{Graph, Report, Sketch};

    fn graph(tasks: &[(String, Vec<String>)]) -> Graph<'_> {
        let mut sketch = Sketch::default();
        for (name, deps) in tasks {
            deps.iter().for_each(|dep| sketch.dependency(Cow::Borrowed(dep)));
            sketch.task(Cow::Borrowed(name));
        }
        sketch.graph()
    }

    fn tasks(tasks: &[(&str, &[&str])]) -> Vec<(String, Vec<String>)> {
        let own = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect();
        tasks.iter().map(|(name, deps)| ((*name).to_owned(), own(deps))).collect()
    }

    fn paths(graph: &Graph<'_>, report: &Report) -> Vec<String> {
        report.cycles.iter().map(|cycle| graph.path(cycle)).collect()
    }

    #[test]
    fn dependents_before_dependencies_are_no_cycle() {
        let tasks = tasks(&[("c", &["b", "b"]), ("b", &["a"]), ("a", &[]), ("d", &[])]);
        let graph = graph(&tasks);
        let report = graph.report();
        assert_eq!(report.cycle_count, 0);
        assert_eq!(graph.names(&report.longest_chain).collect::<Vec<_>>(), ["a", "b", "c"]);
        assert_eq!(graph.names(&report.order).collect::<Vec<_>>(), ["a", "d", "b", "c"]);
        assert_eq!(graph.names(&report.leaves).collect::<Vec<_>>(), ["c", "d"]);
        assert_eq!(graph.dependency_count(), 2);
    }

    #[test]
    fn every_cycle_is_a_closed_path_and_short() {
        let tasks = tasks(&[
            ("a", &["b", "c"]),
            ("b", &["c", "x"]),
            ("c", &["a"]),
            ("d", &["d", "a"]),
            ("e", &["d"]),
        ]);
        let graph = graph(&tasks);
        let report = graph.report();
        assert_eq!(paths(&graph, &report), ["a -> c -> a", "d -> d"]);
        assert_eq!(graph.unknown().collect::<Vec<_>>(), [(1, "x")]);
        assert!(report.order.is_empty() && report.levels().len() == 0);
    }

    #[test]
    fn twenty_cycles_are_listed_and_all_counted() {
        let pair = |n: usize| {
            [(format!("a{n}"), vec![format!("b{n}")]), (format!("b{n}"), vec![format!("a{n}")])]
        };
        let tasks: Vec<_> = (0..30).flat_map(pair).collect();
        let graph = graph(&tasks);
        let report = graph.report();
        assert_eq!((report.cycle_count, report.cycles.len()), (30, 20));
        assert_eq!(paths(&graph, &report)[19], "a19 -> b19 -> a19");
    }

    #[test]
    fn long_chains_and_rings_need_no_stack() {
        let name = |n: usize| format!("t{n}");
        let count = 200_000;
        let mut tasks: Vec<_> = (1..count).rev().map(|n| (name(n), vec![name(n - 1)])).collect();
        tasks.push((name(0), Vec::new()));
        let report = graph(&tasks).report();
        assert_eq!((report.level_count(), report.longest_chain.len()), (count, count));
        tasks[count - 1].1.push(name(count - 1));
        let graph = graph(&tasks);
        let report = graph.report();
        assert_eq!(report.cycles[0].len(), count + 1);
        let path = graph.path(&report.cycles[0]);
        assert!(path.contains("t199990 -> (199981 more) -> t8 ->"), "{path}");
        assert!(path.ends_with("-> t0 -> t199999"), "{path}");
    }

    /// Numbers that look random and are the same each time (xorshift, Marsaglia 2003).
    struct Numbers(u64);

    impl Numbers {
        fn below(&mut self, bound: usize) -> usize {
            self.0 ^= self.0 << 13;
            self.0 ^= self.0 >> 7;
            self.0 ^= self.0 << 17;
            (self.0 % bound as u64) as usize
        }
    }

    /// A small graph as names and as a matrix: who depends on whom; and the unknown ones.
    struct Case {
        tasks: Vec<(String, Vec<String>)>,
        deps: Vec<Vec<bool>>,
        unknown: Vec<(u32, String)>,
    }

    fn case(numbers: &mut Numbers) -> Case {
        let count = numbers.below(8);
        // Without a dependency on what comes later half of them have no cycle; the order is mixed.
        let is_tame = numbers.below(2) == 0;
        let mut mixed: Vec<usize> = (0..count).collect();
        (1..count).for_each(|n| mixed.swap(n, numbers.below(n + 1)));
        let density = 1 + numbers.below(4);
        let mut case = Case {
            tasks: (0..count).map(|n| (format!("t{n}"), Vec::new())).collect(),
            deps: vec![vec![false; count]; count],
            unknown: Vec::new(),
        };
        for task in 0..count {
            for dep in 0..count {
                let is_dep = numbers.below(8) < density && (!is_tame || mixed[dep] < mixed[task]);
                if is_dep && (task != dep || numbers.below(4) == 0) {
                    case.deps[task][dep] = true;
                    let times = 1 + numbers.below(5) / 4;
                    case.tasks[task].1.extend(vec![format!("t{dep}"); times]);
                }
            }
            if numbers.below(10) == 0 {
                let name = ["gone", "T0"][numbers.below(2)].to_owned();
                case.tasks[task].1.insert(0, name.clone());
                case.unknown.push((task as u32, name));
            }
        }
        case
    }

    /// Steps from each to each, at least one; by trying every task between.
    fn distances(deps: &[Vec<bool>]) -> Vec<Vec<Option<usize>>> {
        let count = deps.len();
        let one = |is_dep: &bool| is_dep.then_some(1);
        let mut steps: Vec<Vec<_>> = deps.iter().map(|d| d.iter().map(one).collect()).collect();
        for between in 0..count {
            for from in 0..count {
                for to in 0..count {
                    let other: Option<usize> =
                        steps[from][between].zip(steps[between][to]).map(|(a, b)| a + b);
                    steps[from][to] = steps[from][to].into_iter().chain(other).min();
                }
            }
        }
        steps
    }

    /// Tasks below a task in its longest chain, by trying all; there is no cycle.
    fn depth(deps: &[Vec<bool>], task: usize) -> usize {
        let below = (0..deps.len()).filter(|dep| deps[task][*dep]);
        below.map(|dep| depth(deps, dep) + 1).max().unwrap_or(0)
    }

    fn check_order(case: &Case, report: &Report) {
        let levels: Vec<usize> = (0..case.deps.len()).map(|task| depth(&case.deps, task)).collect();
        for (level, tasks) in report.levels().enumerate() {
            let expected = (0..).zip(&levels).filter(|(_, other)| **other == level);
            assert!(expected.map(|(task, _)| task).eq(tasks.iter().copied()), "{:?}", case.tasks);
        }
        let mut sorted = report.order.clone();
        sorted.sort_unstable();
        assert!(sorted.into_iter().eq(0..case.deps.len() as u32), "{:?}", case.tasks);
        let place = |task: usize| report.order.iter().position(|other| *other as usize == task);
        for task in 0..case.deps.len() {
            let deps = (0..case.deps.len()).filter(|dep| case.deps[task][*dep]);
            deps.for_each(|dep| assert!(place(dep) < place(task), "{:?}", case.tasks));
        }
        let deepest = levels.iter().max().map_or(0, |deepest| deepest + 1);
        assert_eq!(report.longest_chain.len(), deepest, "{:?}", case.tasks);
        for pair in report.longest_chain.windows(2) {
            assert!(case.deps[pair[1] as usize][pair[0] as usize], "{:?}", case.tasks);
        }
    }

    fn check_cycles(case: &Case, report: &Report) {
        let (count, steps) = (case.deps.len(), distances(&case.deps));
        let is_tied = |a: usize, b: usize| steps[a][b].is_some() && steps[b][a].is_some();
        let is_own = |task: usize| case.deps[task][task];
        // The first of each component stands for it.
        let is_first = |task: usize| (0..task).all(|other| !is_tied(task, other));
        let has_others =
            |task: usize| (0..count).any(|other| other != task && is_tied(task, other));
        let own = (0..count).filter(|task| is_own(*task));
        let wholes = (0..count).filter(|task| is_first(*task) && has_others(*task));
        let mut expected: Vec<usize> = own.chain(wholes).collect();
        expected.sort_unstable();
        let firsts: Vec<usize> = report.cycles.iter().map(|cycle| cycle[0] as usize).collect();
        assert_eq!(firsts, expected, "{:?}", case.tasks);
        assert_eq!(report.cycle_count, expected.len());
        for cycle in &report.cycles {
            let first = cycle[0] as usize;
            assert_eq!(cycle.last(), cycle.first());
            for pair in cycle.windows(2) {
                assert!(case.deps[pair[0] as usize][pair[1] as usize], "{:?}", case.tasks);
            }
            // The shortest way round by way of another task.
            let others = (0..count).filter(|other| *other != first);
            let round = others.filter_map(|other| steps[first][other].zip(steps[other][first]));
            let shortest = round.map(|(there, back)| there + back).min();
            let is_right = cycle.len() == 2 && is_own(first) || Some(cycle.len() - 1) == shortest;
            assert!(is_right, "{:?} {cycle:?}", case.tasks);
        }
        for a in 0..count {
            for b in 0..count {
                assert_eq!(report.is_tied(a as u32, b as u32), is_tied(a, b), "{:?}", case.tasks);
            }
        }
    }

    #[test]
    fn thousands_of_small_graphs_are_as_trying_all_says() {
        let mut numbers = Numbers(0x9e37_79b9_7f4a_7c15);
        let mut cyclic = 0;
        for _ in 0..6000 {
            let case = case(&mut numbers);
            let graph = graph(&case.tasks);
            let report = graph.report();
            let unknown = graph.unknown().map(|(task, name)| (task, name.to_owned()));
            assert_eq!(unknown.collect::<Vec<_>>(), case.unknown, "{:?}", case.tasks);
            let is_root = |task: &u32| !case.deps[*task as usize].contains(&true);
            let is_leaf = |task: &u32| {
                let task = *task as usize;
                (0..case.deps.len()).all(|other| other == task || !case.deps[other][task])
            };
            assert!(report.roots.iter().copied().eq(graph.tasks().filter(is_root)));
            assert!(report.leaves.iter().copied().eq(graph.tasks().filter(is_leaf)));
            check_cycles(&case, &report);
            if report.cycle_count == 0 {
                check_order(&case, &report);
            } else {
                cyclic += 1;
                assert!(report.order.is_empty() && report.longest_chain.is_empty());
            }
        }
        assert!((1200..4500).contains(&cyclic), "{cyclic}");
    }
}
