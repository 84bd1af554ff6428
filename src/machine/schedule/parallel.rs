//! As many tasks at once as there are agents; the stage furthest along is served first.
//!
//! List scheduling: whenever an agent is free and work that it can take may start, it gets the first
//! of it (R. L. Graham, "Bounds on multiprocessing timing anomalies", 1969: at most 2 - 1/m times the
//! shortest schedule). What cannot start because of what runs beside keeps just what it waits for from
//! those behind it in rank, and all else is used meanwhile. Behind one that must be alone starts what is
//! expected to end before all that runs does. That may let it be passed; so the oldest task that has
//! its turn and cannot start collects: all it asks for is kept for it, one task at a time.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use super::demand::{self, Demand};
use super::load::{Load, Obstacle};
use super::pool::{Pool, has_worker, may_take};
use super::queues::{Place, Queues};
use super::{Assignment, Picked};
use crate::machine::agent::Agent;
use crate::machine::estimate;
use crate::machine::id::{StageName, TaskId};
use crate::machine::mode::Orchestration;
use crate::machine::proposal;
use crate::machine::settings::Stage;
use crate::machine::state::State;
use crate::machine::task::{Task, TaskPhase};
use crate::machine::time::Time;

/// Every so many attempts of an agent the oldest task that it can start goes first, whatever its
/// rank: a ready task that nothing keeps from starting is assigned after at most so many attempts of
/// any one agent that can take it, and as many for each older task. Counted by agent, since the
/// attempts of others may fall on the same numbers for ever. One that paths, a resource, or having to
/// be alone keep from starting collects what it needs from then on, and starts when what runs then has
/// ended; as long for each older one that collects.
pub const AGEING: u64 = 8;
/// Tasks looked at in a round that take too long to pass one that must be alone.
const TOO_LONG_MAX: usize = 256;

pub(super) fn pick<'a>(state: &'a State, pool: Pool<'a>, room: usize) -> Picked {
    if pool.is_empty() || room == 0 {
        return Picked::default();
    }
    let mut round = Round::of(state, room, Load::of(state));
    round.run(pool);
    round.picked
}

/// What keeps ready tasks from starting: what runs, and what comes before them and waits.
#[derive(Debug)]
pub struct Standing<'a> {
    runs: Load<'a>,
    /// How the next round would go; `None`: nobody is free, or the order is another.
    round: Option<Round<'a>>,
}

impl<'a> Standing<'a> {
    /// Goes through one round. Cost: that of a decision.
    #[must_use]
    pub fn of(state: &'a State) -> Self {
        let pool = Pool::of(state, &[]);
        let is_ours =
            state.orchestration != Orchestration::Sequential && !proposal::is_in_use(state);
        let round = (is_ours && !pool.is_empty()).then(|| {
            let mut round = Round::of(state, usize::MAX, Load::of(state));
            round.run(pool);
            round
        });
        Self { runs: Load::of(state), round }
    }

    /// Returns what keeps the task from starting; `None`: nothing but the want of an agent.
    #[must_use]
    pub fn obstacle(
        &self,
        id: &TaskId,
        stage: &StageName,
        demand: &Demand,
    ) -> Option<Obstacle<'a>> {
        if let Some(found) = self.runs.obstacle(id, stage, demand) {
            return Some(found);
        }
        let round = self.round.as_ref()?;
        if round.assigned.contains(id) || !round.pool.has_for(stage, demand) {
            return None;
        }
        let alone = round.closed.or(round.alone.map(|(first, _)| first));
        let alone = alone.filter(|first| *first != id).map(Obstacle::BehindAlone);
        alone.or_else(|| round.load.obstacle(id, stage, demand))
    }
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
        round.closed = None;
        round.fruitless.clear();
        let before = round.picked.assignments.len();
        round.serve_collecting();
        if round.picked.assignments.len() == before {
            round.serve_from(place);
        }
        round.picked.assignments.get(before)
    }
}

#[derive(Debug)]
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
    /// This one runs alone, or comes next and must: nothing starts before it.
    closed: Option<&'a TaskId>,
    /// This one must be alone; what runs is expected to take so many milliseconds more.
    alone: Option<(&'a TaskId, u64)>,
    /// How many took too long to start before it.
    too_long: usize,
    /// This one collects what it asks for.
    collecting: Option<&'a TaskId>,
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
            closed: None,
            alone: None,
            too_long: 0,
            collecting: None,
            is_guess: false,
            picked: Picked::default(),
        }
    }

    fn run(&mut self, pool: Pool<'a>) {
        self.due = pool.due(AGEING);
        self.pool = pool;
        self.serve_collecting();
        self.serve_from(0);
        // Whoever starts no longer collects.
        let before = self.state.collecting.as_ref().filter(|id| !self.assigned.contains(*id));
        if self.collecting != before {
            self.picked.collecting = Some(self.collecting.cloned());
        }
    }

    /// Starts who collects, as soon as all is there; else keeps it together.
    fn serve_collecting(&mut self) {
        let state = self.state;
        let Some(task) = state.collecting.as_ref().and_then(|id| state.tasks.get(id)) else {
            return;
        };
        let TaskPhase::Ready { stage } = &task.phase else { return };
        let queues = state.index.ready.get(stage);
        let found = queues.and_then(|queues| queues.demand_of(task.entry, &task.id));
        let Some(demand) = found.filter(|_| !self.assigned.contains(&task.id)) else { return };
        let obstacle = self.load.obstacle(&task.id, stage, demand);
        if obstacle.is_none()
            && let Some(agent) = self.pool.best(task, stage, demand)
        {
            self.assign(&task.id, stage, agent, demand);
        } else if obstacle.is_none_or(|found| found.is_passing())
            && has_worker(state, stage, demand)
        {
            self.collect(&task.id, stage, demand);
        }
    }

    /// Keeps all that the task asks for; while it waits for a landing, that alone.
    fn collect(&mut self, id: &'a TaskId, stage: &StageName, demand: &'a Demand) {
        self.collecting = Some(id);
        if self.is_guess {
            return;
        }
        if self.load.waits_for_landing(id, demand) {
            self.load.keep(id, demand);
            return;
        }
        self.load.keep_all(id, demand);
        let (settings, mode) = (&self.state.settings, self.state.orchestration);
        if demand::is_alone(settings, mode, stage, demand) {
            self.closed = Some(id);
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
        self.closed.is_some() || self.picked.assignments.len() >= self.room
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
            let is_settled = self.assigned.contains(&place.1) || self.collecting == Some(&place.1);
            let is_done = is_settled || self.start(&place.1, stage, demand);
            if is_done && let Some(place) = queues.after(demand, place) {
                next.insert(place, demand);
            }
        }
    }

    /// Gives the task to the best free agent, or keeps what it waits for from those behind it. Returns
    /// whether the next one of its demand may start.
    fn start(&mut self, id: &'a TaskId, stage: &StageName, demand: &'a Demand) -> bool {
        let task = &self.state.tasks[id];
        let Some(obstacle) = self.load.obstacle(id, stage, demand) else {
            if !self.ends_in_time(task, stage) {
                self.too_long += 1;
                return self.too_long < TOO_LONG_MAX;
            }
            let Some(agent) = self.pool.best(task, stage, demand) else { return false };
            self.assign(id, stage, agent, demand);
            return true;
        };
        if self.is_guess {
            return false;
        }
        match obstacle {
            Obstacle::NotAlone(_) if self.alone.is_none() => {
                if has_worker(self.state, stage, demand) {
                    self.alone = Some((id, self.left_ms()));
                }
            }
            Obstacle::Clash(_) | Obstacle::Unlanded(_) | Obstacle::Short { .. } => {
                if !self.load.is_kept_for(id, demand) && has_worker(self.state, stage, demand) {
                    self.load.keep(id, demand);
                }
            }
            Obstacle::NotAlone(_)
            | Obstacle::Beside(_)
            | Obstacle::Behind(_)
            | Obstacle::BehindAlone(_)
            | Obstacle::Beyond(_) => {}
        }
        false
    }

    /// Returns true when nobody waits to be alone, or an attempt that begins now is expected to end
    /// before what runs does, and so does not delay it.
    fn ends_in_time(&self, task: &Task, stage: &StageName) -> bool {
        self.alone
            .is_none_or(|(_, left_ms)| estimate::of_stage(self.state, task, stage, None) < left_ms)
    }

    /// Returns how long what runs, and what was picked, is expected to take, in milliseconds.
    fn left_ms(&self) -> u64 {
        let state = self.state;
        let now = latest(state);
        let live = state.attempts.values().filter(|attempt| attempt.is_work());
        let live = live.map(|attempt| estimate::remaining_ms(state, attempt, now));
        let picked = self.picked.assignments.iter().map(|picked| {
            estimate::of_stage(state, &state.tasks[&picked.task], &picked.stage, None)
        });
        live.chain(picked).max().unwrap_or(0)
    }

    fn assign(&mut self, id: &'a TaskId, stage: &StageName, agent: &'a Agent, demand: &'a Demand) {
        self.load.start(id, stage, demand);
        self.pool.take(agent);
        self.assigned.insert(id);
        let (settings, mode) = (&self.state.settings, self.state.orchestration);
        if demand::is_alone(settings, mode, stage, demand) {
            self.closed = Some(id);
        }
        let (task, stage, agent) = (id.clone(), stage.clone(), agent.name.clone());
        self.picked.assignments.push(Assignment { task, stage, agent });
    }

    /// Looks at the agents whose turn it is; gives the oldest task that the first of them can start
    /// to the best agent. One that is older and cannot start now collects from here on.
    fn serve_oldest(&mut self) -> bool {
        while let Some(due) = self.due.pop() {
            let is_fruitless = self.fruitless.contains(&due.group) && !self.is_asked_for(due);
            if !self.pool.has(due) || is_fruitless {
                continue;
            }
            match self.oldest(due) {
                Some((id, stage, demand, Some(agent))) => {
                    self.assign(id, stage, agent, demand);
                    return true;
                }
                Some((id, stage, demand, None)) => {
                    self.collect(id, stage, demand);
                    self.due.push(due);
                    if self.is_over() {
                        return true;
                    }
                }
                None => {
                    self.fruitless.insert(due.group);
                }
            }
        }
        false
    }

    /// Returns true when a ready task asks for just this agent, not any of its group.
    fn is_asked_for(&self, agent: &Agent) -> bool {
        let queues = agent.stages.iter().filter_map(|stage| self.state.index.ready.get(stage));
        let mut demands = queues.flat_map(Queues::demands);
        demands.any(|(demand, _)| demand.needs.iter().any(|need| agent.name.as_str() == need))
    }

    /// Returns the oldest task that the agent may take, with the best agent for it; without one, it
    /// has to collect first, which one task may at a time.
    fn oldest(&self, due: &Agent) -> Option<Oldest<'a>> {
        let may_collect = !self.is_guess && self.collecting.is_none();
        let stages = self.state.index.ready.iter().filter(|(stage, _)| due.stages.contains(stage));
        let firsts = stages.filter_map(|(stage, queues)| {
            queues.by_age().find_map(|(entry, id, demand)| {
                let is_settled = self.assigned.contains(id) || self.collecting == Some(id);
                if is_settled || !may_take(self.state, due, stage, demand) {
                    return None;
                }
                let Some(obstacle) = self.load.obstacle(id, stage, demand) else {
                    let agent = self.pool.best(&self.state.tasks[id], stage, demand)?;
                    return Some((entry, (id, stage, demand, Some(agent))));
                };
                let may_collect = may_collect
                    && obstacle.is_passing()
                    && !self.load.waits_for_landing(id, demand);
                may_collect.then_some((entry, (id, stage, demand, None)))
            })
        });
        firsts.min_by_key(|(entry, _)| *entry).map(|(_, found)| found)
    }
}

/// A task with its stage and demand, and the agent that may start it now.
type Oldest<'a> = (&'a TaskId, &'a StageName, &'a Arc<Demand>, Option<&'a Agent>);

/// Returns the latest moment that the state knows of: an attempt began or ended then.
fn latest(state: &State) -> Time {
    let begun = state.attempts.values().map(|it| it.started_at.unwrap_or(it.assigned_at));
    let ended = state.agents.values().map(|agent| agent.idle_since);
    begun.chain(ended).max().unwrap_or_default()
}
