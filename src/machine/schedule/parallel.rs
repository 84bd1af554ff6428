//! As many tasks at once as there are agents; the stage furthest along is served first.
//!
//! List scheduling: whenever an agent is free and work that it can take may start, it gets the first
//! of it (R. L. Graham, "Bounds on multiprocessing timing anomalies", 1969: at most 2 - 1/m times the
//! shortest schedule). What cannot start because of what runs beside keeps its paths and its share of
//! what is scarce from those behind it in rank, so that they do not pass it for ever.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use super::demand::{self, Demand};
use super::load::{Load, Obstacle};
use super::pool::{Pool, has_worker, may_take};
use super::queues::{Place, Queues};
use super::{Assignment, Picked};
use crate::machine::agent::Agent;
use crate::machine::id::{StageName, TaskId};
use crate::machine::settings::Stage;
use crate::machine::state::State;

/// Every so many attempts of an agent the oldest task that it can start goes first, whatever its
/// rank: a ready task that nothing keeps from starting is assigned after at most so many attempts of
/// any one agent that can take it, and as many for each older task. Counted by agent, since the
/// attempts of others may fall on the same numbers for ever.
pub const AGEING: u64 = 8;

pub(super) fn pick<'a>(state: &'a State, pool: Pool<'a>, room: usize) -> Picked {
    if pool.is_empty() {
        return Picked::default();
    }
    let mut round = Round::of(state, room, Load::of(state));
    round.due = pool.due(AGEING);
    round.pool = pool;
    round.serve_from(0);
    round.picked
}

/// Picks for one agent after another as though it were free, beside `load` and what was picked before.
pub(super) struct Guesses<'a>(Round<'a>);

impl<'a> Guesses<'a> {
    pub(super) fn of(state: &'a State, load: Load<'a>) -> Self {
        let mut round = Round::of(state, usize::MAX, load);
        round.is_guess = true;
        Self(round)
    }

    /// Returns what the agent gets, when its attempt has ended, of the stages from the given place on.
    pub(super) fn pick(&mut self, agent: &'a Agent, place: usize) -> Option<&Assignment> {
        let round = &mut self.0;
        let is_due = (agent.completed + agent.failed + 1) % AGEING == AGEING - 1;
        round.due = if is_due { vec![agent] } else { Vec::new() };
        round.pool = Pool::only(round.state, agent);
        round.is_closed = false;
        round.fruitless.clear();
        let before = round.picked.assignments.len();
        round.serve_from(place);
        round.picked.assignments.get(before)
    }
}

struct Round<'a> {
    state: &'a State,
    room: usize,
    pool: Pool<'a>,
    load: Load<'a>,
    assigned: BTreeSet<&'a TaskId>,
    /// Whose turn it is to take the oldest.
    due: Vec<&'a Agent>,
    /// Groups for whose agents nothing was found.
    fruitless: BTreeSet<usize>,
    /// One that must be alone comes next: nothing starts before it.
    is_closed: bool,
    /// What cannot start keeps nothing from others: by then it may have started.
    is_guess: bool,
    picked: Picked,
}

impl<'a> Round<'a> {
    fn of(state: &'a State, room: usize, load: Load<'a>) -> Self {
        Self {
            state,
            room,
            pool: Pool::empty(state),
            load,
            assigned: BTreeSet::new(),
            due: Vec::new(),
            fruitless: BTreeSet::new(),
            is_closed: false,
            is_guess: false,
            picked: Picked::default(),
        }
    }

    /// Serves the stages from the given place on, the one furthest along first.
    fn serve_from(&mut self, place: usize) {
        let stages = self.state.settings.stages.get(place..).unwrap_or_default();
        for stage in stages.iter().rev().map(Stage::id) {
            if let Some(queues) = self.state.index.ready.get(&stage) {
                self.serve(&stage, queues);
            }
        }
    }

    fn is_over(&self) -> bool {
        self.is_closed || self.picked.assignments.len() >= self.room
    }

    /// Serves one stage in order of rank over all its demands. Where the first of a demand cannot
    /// start, the rest of it cannot either.
    fn serve(&mut self, stage: &StageName, queues: &'a Queues) {
        let mut heads = queues.heads().peekable();
        let mut next: BTreeMap<&'a Place, &'a Arc<Demand>> = BTreeMap::new();
        while !self.is_over() && self.pool.serves(stage) {
            if self.serve_oldest() {
                continue;
            }
            let is_head = match (heads.peek(), next.first_key_value()) {
                (Some((head, _)), Some((place, _))) => head < place,
                (Some(_), None) => true,
                (None, Some(_)) => false,
                (None, None) => return,
            };
            let (place, demand) = if is_head {
                heads.next().expect("it was peeked at")
            } else {
                next.pop_first().expect("it was looked at")
            };
            let is_done = self.assigned.contains(&place.1) || self.start(&place.1, stage, demand);
            if is_done && let Some(place) = queues.after(demand, place) {
                next.insert(place, demand);
            }
        }
    }

    /// Gives the task to the best free agent, or keeps what it waits for from those behind it.
    fn start(&mut self, id: &'a TaskId, stage: &StageName, demand: &'a Demand) -> bool {
        let task = &self.state.tasks[id];
        match self.load.obstacle(id, stage, demand) {
            None => {
                let Some(agent) = self.pool.best(task, stage, demand) else { return false };
                self.assign(id, stage, agent, demand);
                true
            }
            Some(obstacle) => {
                if !self.is_guess && obstacle.is_passing() && has_worker(self.state, stage, demand)
                {
                    self.load.keep(id, demand, &obstacle);
                    self.is_closed |= matches!(obstacle, Obstacle::NotAlone(_));
                }
                false
            }
        }
    }

    fn assign(&mut self, id: &'a TaskId, stage: &StageName, agent: &'a Agent, demand: &'a Demand) {
        self.load.start(id, stage, demand);
        self.pool.take(agent);
        self.assigned.insert(id);
        let (settings, mode) = (&self.state.settings, self.state.orchestration);
        self.is_closed |= demand::is_alone(settings, mode, stage, demand);
        let (task, stage, agent) = (id.clone(), stage.clone(), agent.name.clone());
        self.picked.assignments.push(Assignment { task, stage, agent });
    }

    /// Looks at the agents whose turn it is; gives the oldest task that the first of them can start
    /// to the best agent.
    fn serve_oldest(&mut self) -> bool {
        while let Some(due) = self.due.pop() {
            let is_fruitless = self.fruitless.contains(&due.group) && !self.is_asked_for(due);
            if !self.pool.has(due) || is_fruitless {
                continue;
            }
            let Some((id, stage, demand, agent)) = self.oldest(due) else {
                self.fruitless.insert(due.group);
                continue;
            };
            self.assign(id, stage, agent, demand);
            return true;
        }
        false
    }

    /// Returns true when a ready task asks for just this agent, not any of its group.
    fn is_asked_for(&self, agent: &Agent) -> bool {
        let queues = agent.stages.iter().filter_map(|stage| self.state.index.ready.get(stage));
        let mut demands = queues.flat_map(Queues::demands);
        demands.any(|(demand, _)| demand.needs.iter().any(|need| agent.name.as_str() == need))
    }

    fn oldest(
        &self,
        due: &Agent,
    ) -> Option<(&'a TaskId, &'a StageName, &'a Arc<Demand>, &'a Agent)> {
        let stages = self.state.index.ready.iter().filter(|(stage, _)| due.stages.contains(stage));
        let firsts = stages.filter_map(|(stage, queues)| {
            queues.by_age().find_map(|(entry, id, demand)| {
                let is_able = !self.assigned.contains(id)
                    && may_take(self.state, due, stage, demand)
                    && self.load.obstacle(id, stage, demand).is_none();
                let agent =
                    is_able.then(|| self.pool.best(&self.state.tasks[id], stage, demand))??;
                Some((entry, (id, stage, demand, agent)))
            })
        });
        firsts.min_by_key(|(entry, _)| *entry).map(|(_, found)| found)
    }
}
