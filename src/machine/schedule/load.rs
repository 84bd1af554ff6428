//! What runs, as far as it keeps other work from starting beside it.

use std::cell::OnceCell;
use std::collections::BTreeSet;

use super::demand::{self, Demand};
use super::kept::Kept;
use super::paths::Paths;
use super::pool::has_agent;
use crate::machine::amount::{self, Amounts};
use crate::machine::id::{AttemptId, StageName, TaskId};
use crate::machine::landing;
use crate::machine::mode::Orchestration;
use crate::machine::overlap::any_overlap;
use crate::machine::settings::Settings;
use crate::machine::state::State;
use crate::machine::task::{Task, TaskPhase};

/// Why work cannot start though an agent may be free.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Obstacle<'a> {
    /// This task works on the same paths.
    Clash(&'a TaskId),
    /// This task has changed the same paths, or is to, and will land before long.
    Unlanded(&'a TaskId),
    /// This task must be alone, and runs or is about to land.
    Beside(&'a TaskId),
    /// It must be alone itself, and this task still runs or is about to land.
    NotAlone(&'a TaskId),
    /// Too little of this is free; it passes when others end.
    Short { name: String, wanted: u64, free: u64 },
    /// There is never so much of these.
    Beyond(Vec<Beyond>),
    /// This task comes first, and waits for something that it asks for too.
    Behind(&'a TaskId),
    /// This task comes first, and must be alone.
    BehindAlone(&'a TaskId),
}

/// More of something than there is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Beyond {
    name: String,
    wanted: u64,
    all: u64,
}

impl Beyond {
    fn words(&self) -> String {
        let Self { name, wanted, all } = self;
        let (wanted, all) = (amount::words(name, *wanted), amount::words(name, *all));
        format!("`{name}`: needs {wanted}, there is {all} in all")
    }
}

impl Obstacle<'_> {
    /// Returns all that is asked for beyond what there is; `None`: nothing.
    #[must_use]
    pub fn beyond(settings: &Settings, demand: &Demand) -> Option<Self> {
        let all = |name: &String| settings.scheduler.resources.get(name).copied().unwrap_or(0);
        let beyond = demand.resources.iter().filter(|(name, wanted)| **wanted > all(name));
        let beyond: Vec<Beyond> = beyond
            .map(|(name, wanted)| Beyond { name: name.clone(), wanted: *wanted, all: all(name) })
            .collect();
        (!beyond.is_empty()).then_some(Self::Beyond(beyond))
    }

    /// Returns true when it passes as soon as other work ends.
    #[must_use]
    pub const fn is_passing(&self) -> bool {
        match self {
            Self::Clash(_)
            | Self::Unlanded(_)
            | Self::Beside(_)
            | Self::NotAlone(_)
            | Self::Short { .. }
            | Self::Behind(_)
            | Self::BehindAlone(_) => true,
            Self::Beyond(_) => false,
        }
    }

    /// Returns it in words; `demand` is what cannot start.
    #[must_use]
    pub fn words(&self, state: &State, demand: &Demand) -> String {
        match self {
            Self::Clash(other) => format!("{other} changes the same paths"),
            Self::Unlanded(other) => {
                let changed = state.tasks.get(other).map(|task| task.changed.as_slice());
                let has_changed = any_overlap(changed.unwrap_or_default(), &demand.touches);
                let how = if has_changed { "has changed" } else { "is to change" };
                format!("{other} {how} the same paths and lands first")
            }
            Self::Beside(other) => format!("{other} runs alone"),
            Self::NotAlone(other) => format!("runs alone, and {other} is not done"),
            Self::Short { name, wanted, free } => format!(
                "`{name}`: needs {}, {} free",
                amount::words(name, *wanted),
                amount::words(name, *free)
            ),
            Self::Beyond(beyond) => {
                let words: Vec<String> = beyond.iter().map(Beyond::words).collect();
                format!("{} (`scheduler.resources`)", words.join("; "))
            }
            Self::Behind(other) => format!("{other} comes first and waits for the same"),
            Self::BehindAlone(other) => format!("{other} comes first and runs alone"),
        }
    }
}

/// What is taken, and by whom, and what is kept for those that wait.
#[derive(Debug)]
pub struct Load<'a> {
    state: &'a State,
    taken: Amounts,
    /// Who changes paths, with the globs.
    changing: Paths<'a>,
    /// What branches that are to land have changed.
    unlanded: OnceCell<Paths<'a>>,
    lane: OnceCell<Lane<'a>>,
    /// Who must be alone and runs.
    alone: Option<&'a TaskId>,
    running: Vec<&'a TaskId>,
    kept: Kept<'a>,
}

impl<'a> Load<'a> {
    /// Looks at what runs. Cost: live attempts.
    #[must_use]
    pub fn of(state: &'a State) -> Self {
        Self::without(state, &BTreeSet::new())
    }

    /// Looks at what runs, as though these attempts had ended.
    #[must_use]
    pub fn without(state: &'a State, ended: &BTreeSet<&AttemptId>) -> Self {
        let mut load = Self {
            state,
            taken: Amounts::new(),
            changing: Paths::default(),
            unlanded: OnceCell::new(),
            lane: OnceCell::new(),
            alone: None,
            running: Vec::new(),
            kept: Kept::default(),
        };
        let live = state.attempts.values().filter(|attempt| attempt.is_work());
        for attempt in live.filter(|attempt| !ended.contains(&attempt.id)) {
            if let (Some(id), Some(stage)) = (&attempt.task, attempt.stage()) {
                load.start(id, stage, &attempt.demand);
            }
        }
        load
    }

    /// Takes what the task asks for: it runs.
    pub fn start(&mut self, id: &'a TaskId, stage: &StageName, demand: &'a Demand) {
        for (name, amount) in &demand.resources {
            if let Some(taken) = self.taken.get_mut(name) {
                *taken = taken.saturating_add(*amount);
            } else {
                self.taken.insert(name.clone(), *amount);
            }
        }
        if !demand.touches.is_empty() {
            self.changing.add(id, &demand.touches);
        }
        let (settings, mode) = (&self.state.settings, self.state.orchestration);
        if demand::is_alone(settings, mode, stage, demand) {
            self.alone = Some(id);
        }
        self.running.push(id);
    }

    /// Keeps just what the task waits for from those that come after it: all else may be used
    /// meanwhile. What waits for a landing keeps nothing from the tasks that are on their way to one.
    pub fn keep(&mut self, id: &'a TaskId, demand: &'a Demand) {
        self.kept.count();
        let short = demand.resources.iter().filter(|(name, wanted)| **wanted > self.free(name));
        for (name, wanted) in short.collect::<Vec<_>>() {
            self.kept.amount(id, name, *wanted);
        }
        let of = |paths: &Paths<'_>, glob: &&String| {
            paths.holder(id, std::slice::from_ref(*glob)).is_some()
        };
        let clashing = demand.touches.iter().filter(|glob| of(&self.changing, glob));
        self.kept.paths(id, clashing);
        if demand.waits_for_branches() {
            let unlanded = self.unlanded.get_or_init(|| unlanded(self.state));
            let to_land = demand.touches.iter().filter(|glob| of(unlanded, glob));
            self.kept.paths_to_land(id, to_land);
        }
    }

    /// Returns true when the task need keep nothing: another does that comes first, or so many do that
    /// one more makes no difference.
    #[must_use]
    pub fn is_kept_for(&self, id: &TaskId, demand: &Demand) -> bool {
        self.kept.is_full() || self.keeper(id, demand).is_some()
    }

    /// Keeps all that the task asks for, so that it comes together.
    pub fn keep_all(&mut self, id: &'a TaskId, demand: &'a Demand) {
        for (name, wanted) in &demand.resources {
            self.kept.amount(id, name, *wanted);
        }
        self.kept.paths(id, &demand.touches);
    }

    /// Returns true when the task waits for a landing. Who collects what it asks for then would be in
    /// the way of the very task that is to land.
    #[must_use]
    pub fn waits_for_landing(&self, id: &TaskId, demand: &Demand) -> bool {
        let unlanded = || self.unlanded.get_or_init(|| unlanded(self.state));
        demand.waits_for_branches() && unlanded().holder(id, &demand.touches).is_some()
    }

    fn free(&self, name: &str) -> u64 {
        let all = self.state.settings.scheduler.resources.get(name).copied().unwrap_or(0);
        all.saturating_sub(self.taken.get(name).copied().unwrap_or(0))
    }

    fn keeper(&self, id: &TaskId, demand: &Demand) -> Option<&'a TaskId> {
        self.kept.keeper(id, demand, |name| self.free(name))
    }

    /// Returns what keeps the task from starting; `None`: nothing.
    #[must_use]
    pub fn obstacle(
        &self,
        id: &TaskId,
        stage: &StageName,
        demand: &Demand,
    ) -> Option<Obstacle<'a>> {
        if let Some(beyond) = Obstacle::beyond(&self.state.settings, demand) {
            return Some(beyond);
        }
        let short = demand.resources.iter().find_map(|(name, wanted)| {
            let (free, wanted) = (self.free(name), *wanted);
            (wanted > free).then(|| Obstacle::Short { name: name.clone(), wanted, free })
        });
        if let Some(other) = self.alone.filter(|other| *other != id) {
            return Some(Obstacle::Beside(other));
        }
        let (settings, mode) = (&self.state.settings, self.state.orchestration);
        let is_alone = demand::is_alone(settings, mode, stage, demand);
        if is_alone && let Some(other) = self.running.iter().find(|other| **other != id) {
            return Some(Obstacle::NotAlone(other));
        }
        if let Some(obstacle) = self.in_lane(is_alone, demand) {
            return Some(obstacle);
        }
        let behind = || self.keeper(id, demand).map(Obstacle::Behind);
        short.or_else(|| self.clash(id, demand)).or_else(behind)
    }

    /// Returns who is about to land, where one of the two must be alone: what begins before that has
    /// landed does not see it, and conflicts with it as if it had run beside. Who names its paths is
    /// held against what the branch in the lane has changed, which becomes no more.
    fn in_lane(&self, is_alone: bool, demand: &Demand) -> Option<Obstacle<'a>> {
        if !demand.is_fresh || !(is_alone || demand.touches.is_empty()) {
            return None;
        }
        let lane = self.lane.get_or_init(|| Lane::of(self.state));
        if is_alone {
            lane.first.map(Obstacle::NotAlone)
        } else {
            lane.exclusive.map(Obstacle::Beside)
        }
    }

    fn clash(&self, id: &TaskId, demand: &Demand) -> Option<Obstacle<'a>> {
        let running = self.changing.holder(id, &demand.touches).map(Obstacle::Clash);
        running.or_else(|| {
            // Only who waits for branches pays for a look at them all.
            let unlanded = || self.unlanded.get_or_init(|| unlanded(self.state));
            let is_waiting = demand.waits_for_branches();
            let holder = is_waiting.then(|| unlanded().holder(id, &demand.touches)).flatten();
            holder.map(Obstacle::Unlanded)
        })
    }
}

/// Who is about to land, and no longer needs an agent: to wait for it is never in its way.
#[derive(Debug, Default)]
struct Lane<'a> {
    /// In order of entry.
    first: Option<&'a TaskId>,
    /// The first that must be alone.
    exclusive: Option<&'a TaskId>,
}

impl<'a> Lane<'a> {
    /// Looks for those that nothing but their turn keeps from landing; in sequential mode none, as
    /// with [`unlanded`]. Cost: the lane.
    fn of(state: &'a State) -> Self {
        if state.orchestration == Orchestration::Sequential {
            return Self::default();
        }
        let tasks = state.index.lane.values().map(|id| &state.tasks[id]);
        let mut tasks = tasks.filter(|task| is_on_its_way(state, task)).peekable();
        let first = tasks.peek().map(|task| &task.id);
        let exclusive = tasks.find(|task| task.spec.is_exclusive).map(|task| &task.id);
        Self { first, exclusive }
    }
}

/// Returns what the branches that are on their way have changed. In sequential mode none: there the
/// current task goes on whatever waits. Cost: open branches.
fn unlanded(state: &State) -> Paths<'_> {
    let mut paths = Paths::default();
    if state.orchestration != Orchestration::Sequential {
        let tasks = state.index.branches.iter().map(|id| &state.tasks[id]);
        for task in tasks.filter(|task| is_on_its_way(state, task)) {
            paths.add(&task.id, &task.changed);
            paths.add(&task.id, &task.spec.touches);
        }
    }
    paths
}

/// Returns true when the task goes on by itself until it has landed.
fn is_on_its_way(state: &State, task: &Task) -> bool {
    match &task.phase {
        TaskPhase::Ready { stage } => {
            let demand = Demand::of(&state.settings, task, stage);
            let is_possible = Obstacle::beyond(&state.settings, &demand).is_none();
            state.is_open(task) && is_possible && has_agent(state, stage, &demand)
        }
        TaskPhase::Working { .. } => true,
        TaskPhase::Landing { .. } => {
            state.is_open(task) && task.approval.is_none() && !landing::is_shut(state)
        }
        TaskPhase::Waiting
        | TaskPhase::Blocked(_)
        | TaskPhase::Completed { .. }
        | TaskPhase::Cancelled { .. } => false,
    }
}
