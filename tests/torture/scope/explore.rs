//! Breadth first over all states, then backwards from the ends.

use std::collections::HashMap;
use std::panic::{AssertUnwindSafe, catch_unwind};

use super::canon::digest;
use super::config::Config;
use super::node::{Move, Node};

/// What was found.
#[derive(Debug, Default)]
pub struct Found {
    pub states: u64,
    pub transitions: u64,
    /// Length of the longest shortest way.
    pub depth: u64,
    /// States in which nothing more happens by itself.
    pub ends: u64,
    /// Every state was looked at.
    pub is_complete: bool,
    /// A broken promise, with the shortest way to it.
    pub violation: Option<String>,
}

/// All states seen, by number.
#[derive(Default)]
struct Known {
    numbers: HashMap<u128, u32>,
    /// Where each was first reached from, and by which of the moves there.
    parents: Vec<(u32, u16)>,
    /// Moves of a kind world: from, to.
    edges: Vec<(u32, u32)>,
    ends: Vec<u32>,
}

/// Explores the whole space, or the first `limit` states of it.
pub fn explore(config: &Config, limit: u64) -> Found {
    let mut found = Found::default();
    let mut known = Known::default();
    let first = Node::first(config);
    known.numbers.insert(digest(&first), 0);
    known.parents.push((0, 0));
    let mut level = vec![(0, first)];
    while !level.is_empty() && (known.parents.len() as u64) < limit {
        let mut next = Vec::new();
        for (number, node) in level {
            let expanded = catch_unwind(AssertUnwindSafe(|| {
                expand(number, &node, config, &mut known, &mut next)
            }));
            let broken = match expanded {
                Ok(Ok(count)) => {
                    found.transitions += count;
                    continue;
                }
                Ok(Err(broken)) => broken,
                Err(_) => (None, "the machine panics".to_owned()),
            };
            found.violation = Some(told(&known, config, number, &broken));
            break;
        }
        level = if found.violation.is_some() { Vec::new() } else { next };
        found.depth += u64::from(!level.is_empty());
    }
    found.is_complete = level.is_empty() && found.violation.is_none();
    found.states = known.parents.len() as u64;
    found.ends = known.ends.len() as u64;
    if found.is_complete
        && let Some(stuck) = stuck(&known)
    {
        let why = (None, "from here a kind world does not come to an end".to_owned());
        found.violation = Some(told(&known, config, stuck, &why));
    }
    found
}

/// A broken promise: the move it broke at, and how.
type Broken = (Option<Box<Move>>, String);

/// Looks at all that can happen next; returns how much that is.
fn expand(
    number: u32,
    node: &Node,
    config: &Config,
    known: &mut Known,
    next: &mut Vec<(u32, Node)>,
) -> Result<u64, Broken> {
    node.check().map_err(|why| (None, why))?;
    let moves = node.moves(config);
    if moves.iter().all(Move::is_fault) {
        node.check_rest().map_err(|why| (None, why))?;
        known.ends.push(number);
    }
    for (place, what) in moves.iter().enumerate() {
        let after = node.after(what, config).map_err(|why| (Some(Box::new(what.clone())), why))?;
        let count = u32::try_from(known.parents.len()).expect("fewer states than 2^32");
        let to = *known.numbers.entry(digest(&after)).or_insert(count);
        if to == count {
            let place = u16::try_from(place).expect("fewer moves than 2^16");
            known.parents.push((number, place));
            next.push((count, after));
        }
        if !what.is_fault() {
            known.edges.push((number, to));
        }
    }
    Ok(moves.len() as u64)
}

/// Returns the first state from which no way of a kind world leads to an end.
fn stuck(known: &Known) -> Option<u32> {
    let count = known.parents.len();
    let mut starts = vec![0_u32; count + 1];
    for (_, to) in &known.edges {
        starts[*to as usize + 1] += 1;
    }
    for place in 0..count {
        starts[place + 1] += starts[place];
    }
    let mut filled = starts.clone();
    let mut sources = vec![0_u32; known.edges.len()];
    for (from, to) in &known.edges {
        let place = &mut filled[*to as usize];
        sources[*place as usize] = *from;
        *place += 1;
    }
    let mut is_good = vec![false; count];
    let mut todo = known.ends.clone();
    todo.iter().for_each(|end| is_good[*end as usize] = true);
    while let Some(at) = todo.pop() {
        let (from, to) = (starts[at as usize] as usize, starts[at as usize + 1] as usize);
        for source in &sources[from..to] {
            if !is_good[*source as usize] {
                is_good[*source as usize] = true;
                todo.push(*source);
            }
        }
    }
    is_good.iter().position(|is_good| !is_good).and_then(|place| u32::try_from(place).ok())
}

/// Tells the shortest way to a state, and what is wrong there.
fn told(known: &Known, config: &Config, number: u32, (last, why): &Broken) -> String {
    let mut places = Vec::new();
    let mut at = number;
    while at != 0 {
        let (parent, place) = known.parents[at as usize];
        places.push(place);
        at = parent;
    }
    let mut node = Node::first(config);
    let mut text = format!("{}: {why}\n", config.name);
    for place in places.into_iter().rev() {
        let what = node.moves(config).swap_remove(usize::from(place));
        text.push_str(&format!("  {what:?}\n"));
        node = node.after(&what, config).expect("a way that was gone before");
    }
    if let Some(last) = last {
        text.push_str(&format!("  {last:?}\n"));
    }
    text.push_str(&format!(
        "  there: {:?}\n  monitor: {:?}\n  fenced: {:?}\n  attempts: {:?}\n  landing: {:?} {:?}",
        node.world,
        node.monitor,
        node.fenced,
        node.state.attempts,
        node.state.landing,
        node.state.base
    ));
    text
}
