//! The dependency graph: cycles, levels, figures. Linear in tasks and dependencies, no recursion.

use std::collections::BTreeMap;

use petgraph::algo::kosaraju_scc;
use petgraph::graph::{DiGraph, NodeIndex};

/// Cycles named in a message; the rest is counted.
pub const CYCLES_LISTED_MAX: usize = 20;

/// What is known of a graph of names.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Report {
    /// (task, unknown dependency), in order of the input.
    pub unknown: Vec<(String, String)>,
    /// Each as a closed path `a, b, a`; at most [`CYCLES_LISTED_MAX`].
    pub cycles: Vec<Vec<String>>,
    pub cycle_count: usize,
    /// Tasks by level: level 0 has no dependency; empty when there is a cycle.
    pub levels: Vec<Vec<String>>,
    /// A longest chain, first task first.
    pub longest_chain: Vec<String>,
    pub task_count: usize,
    pub dependency_count: usize,
}

/// Looks at a graph given as tasks with their dependencies, in any order.
#[must_use]
pub fn report<'a>(tasks: &[(&'a str, Vec<&'a str>)]) -> Report {
    let places: BTreeMap<&str, usize> =
        tasks.iter().enumerate().map(|(place, (id, _))| (*id, place)).collect();
    let mut out = Report { task_count: tasks.len(), ..Report::default() };
    let mut graph = DiGraph::<(), ()>::with_capacity(tasks.len(), tasks.len());
    for _ in tasks {
        graph.add_node(());
    }
    let mut deps: Vec<Vec<usize>> = vec![Vec::new(); tasks.len()];
    for (place, (id, names)) in tasks.iter().enumerate() {
        for name in names {
            out.dependency_count += 1;
            match places.get(name) {
                Some(dep) => {
                    deps[place].push(*dep);
                    graph.add_edge(NodeIndex::new(place), NodeIndex::new(*dep), ());
                }
                None => out.unknown.push(((*id).to_owned(), (*name).to_owned())),
            }
        }
    }
    for component in kosaraju_scc(&graph) {
        let members: Vec<usize> = component.iter().map(|node| node.index()).collect();
        let is_cycle = members.len() > 1 || deps[members[0]].contains(&members[0]);
        if !is_cycle {
            continue;
        }
        out.cycle_count += 1;
        if out.cycles.len() < CYCLES_LISTED_MAX {
            let path = cycle_in(&members, &deps);
            out.cycles.push(path.iter().map(|place| tasks[*place].0.to_owned()).collect());
        }
    }
    out.cycles.sort();
    if out.cycle_count == 0 {
        fill_levels(tasks, &deps, &mut out);
    }
    out
}

/// Walks dependencies inside a strongly connected component until a place repeats.
fn cycle_in(members: &[usize], deps: &[Vec<usize>]) -> Vec<usize> {
    let inside: std::collections::BTreeSet<usize> = members.iter().copied().collect();
    let mut seen: BTreeMap<usize, usize> = BTreeMap::new();
    let mut path = Vec::new();
    let mut at = *inside.first().expect("a component has a member");
    while !seen.contains_key(&at) {
        seen.insert(at, path.len());
        path.push(at);
        let next = deps[at].iter().find(|dep| inside.contains(dep));
        at = *next.expect("a member of a cycle has a dependency in it");
    }
    let mut cycle = path.split_off(seen[&at]);
    cycle.push(at);
    cycle
}

fn fill_levels(tasks: &[(&str, Vec<&str>)], deps: &[Vec<usize>], out: &mut Report) {
    let mut left: Vec<usize> = deps.iter().map(Vec::len).collect();
    let mut dependents: Vec<Vec<usize>> = vec![Vec::new(); tasks.len()];
    for (place, list) in deps.iter().enumerate() {
        for dep in list {
            dependents[*dep].push(place);
        }
    }
    let mut before: Vec<Option<usize>> = vec![None; tasks.len()];
    let mut wave: Vec<usize> = (0..tasks.len()).filter(|place| left[*place] == 0).collect();
    let mut last = None;
    while !wave.is_empty() {
        last = wave.first().copied();
        out.levels.push(wave.iter().map(|place| tasks[*place].0.to_owned()).collect());
        let mut next = Vec::new();
        for place in wave {
            for dependent in &dependents[place] {
                left[*dependent] -= 1;
                if left[*dependent] == 0 {
                    before[*dependent] = Some(place);
                    next.push(*dependent);
                }
            }
        }
        next.sort_unstable();
        wave = next;
    }
    while let Some(place) = last {
        out.longest_chain.push(tasks[place].0.to_owned());
        last = before[place];
    }
    out.longest_chain.reverse();
}

#[cfg(test)]
mod tests {
    use super::report;

    #[test]
    fn dependents_before_dependencies_are_no_cycle() {
        let report = report(&[("c", vec!["b"]), ("b", vec!["a"]), ("a", vec![])]);
        assert_eq!(report.cycle_count, 0);
        assert_eq!(report.longest_chain, ["a", "b", "c"]);
        assert_eq!(report.levels.len(), 3);
    }

    #[test]
    fn every_cycle_is_a_closed_path() {
        let tasks = [("a", vec!["b"]), ("b", vec!["a", "x"]), ("c", vec!["c"]), ("d", vec!["a"])];
        let report = report(&tasks);
        assert_eq!(report.cycles, [vec!["a", "b", "a"], vec!["c", "c"]]);
        assert_eq!(report.unknown, [("b".to_owned(), "x".to_owned())]);
        assert!(report.levels.is_empty());
    }

    #[test]
    fn long_chains_need_no_stack() {
        let names: Vec<String> = (0..200_000).map(|n| format!("t{n}")).collect();
        let tasks: Vec<(&str, Vec<&str>)> = (0..names.len())
            .map(|n| (names[n].as_str(), if n == 0 { vec![] } else { vec![names[n - 1].as_str()] }))
            .collect();
        assert_eq!(report(&tasks).levels.len(), names.len());
    }
}
