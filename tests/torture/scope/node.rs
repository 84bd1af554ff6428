//! One state of everything: what is durable, the world, and the monitors with what they have begun.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use pipeline::machine::attempt::{Attempt, AttemptPhase, Class};
use pipeline::machine::change::{AttemptChange, Change, LaneChange, TaskChange};
use pipeline::machine::id::{AttemptId, StageName, TaskId};
use pipeline::machine::task::TaskPhase;
use pipeline::machine::time::Time;
use pipeline::machine::{
    Answer as Told, Begun, Command, Effect, Event, EventBody, Observation, State, apply_settling,
    step,
};

use super::config::{Budget, Config, NOW};
use super::world::{Acted, Answer, Ending, Op, Stand, World, holds, landings};

/// Turns after which a machine that still decides something is taken for a livelock.
const TURNS_MAX: usize = 50;
/// Attempts that one turn may add.
const NONCES: usize = 8;

/// A monitor's memory.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Default)]
pub struct Monitor {
    /// What it saw of the base when it started, until it has acted on that.
    pub look: Option<Answer>,
    pub begun: Begun,
    pub ops: BTreeSet<Op>,
    pub inbox: BTreeSet<Answer>,
    /// Attempts that were live when it started, until it has looked at them.
    pub inherited: BTreeSet<AttemptId>,
    /// Attempts of whose end it is told.
    pub attends: BTreeSet<AttemptId>,
    /// Somebody else appended to the journal.
    pub has_news: bool,
}

/// Everything at one moment.
#[derive(Debug, Clone)]
pub struct Node {
    pub state: Arc<State>,
    pub world: World,
    /// The monitor that runs.
    pub monitor: Option<Monitor>,
    /// What one that was killed had begun, and goes on beside the next one.
    pub fenced: Option<Monitor>,
    pub left: Budget,
    /// Commands already asked, a bit each.
    pub asked: u8,
    /// Stages that completed and were not sent back or retried since.
    pub done: BTreeMap<TaskId, BTreeSet<StageName>>,
}

/// Which of the monitors.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Who {
    Monitor,
    Fenced,
}

/// How an effect's step goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum How {
    Done,
    Failed,
    DoneButFailed,
    Conflict,
}

/// Something that can happen next.
#[derive(Debug, Clone, PartialEq)]
pub enum Move {
    /// A monitor starts: it says so, and looks at the base.
    Start,
    /// It acts on what it saw, and looks for what runs.
    TakeOver,
    /// A cycle of the loop with these answers, in this order.
    Cycle(Vec<Answer>),
    /// A cycle because the given moment has come.
    Wake(Time),
    Act(Who, Op, How),
    /// A process ends.
    End(AttemptId, Ending),
    /// A keeper and its agent are killed.
    Kill(AttemptId),
    /// The monitor looks at what it may not have been told.
    Poll(Vec<Answer>),
    Crash,
    /// The monitor is killed, and what it had begun goes on without it.
    Fence,
    /// Nothing more comes of what it had begun.
    Leave,
    /// A person asks for something; its place among the commands.
    Ask(usize),
    /// A person commits to the base.
    Commit,
}

impl Move {
    /// Returns true for what a kind world does not do.
    pub fn is_fault(&self) -> bool {
        match self {
            Self::Start
            | Self::TakeOver
            | Self::Cycle(_)
            | Self::Wake(_)
            | Self::Act(_, _, How::Done)
            | Self::End(_, Ending::Done | Ending::Stopped)
            | Self::Poll(_)
            | Self::Leave => false,
            Self::Act(_, _, How::Failed | How::DoneButFailed | How::Conflict)
            | Self::End(_, Ending::Failed)
            | Self::Kill(_)
            | Self::Crash
            | Self::Fence
            | Self::Ask(_)
            | Self::Commit => true,
        }
    }
}

impl Monitor {
    /// Returns what lives on when it is killed: git calls, and orders that a keeper has yet to read.
    ///
    /// Its lock goes with it, so nobody appends beside another monitor. Git keeps a slot's gate
    /// closed while it lives: what it does there is done before anybody else prepares that slot.
    fn outlived(self) -> Self {
        // Nobody hears what a merge comes to.
        let is_outliving =
            |op: &Op| !matches!(op, Op::Prepare { .. } | Op::FindAgain { .. } | Op::Merge { .. });
        Self { ops: self.ops.into_iter().filter(is_outliving).collect(), ..Self::default() }
    }
}

impl Node {
    pub fn first(config: &Config) -> Self {
        Self {
            state: Arc::new(config.initial()),
            world: World::new(),
            monitor: None,
            fenced: None,
            left: config.budget,
            asked: 0,
            done: BTreeMap::new(),
        }
    }

    /// Returns what it becomes by `what`.
    ///
    /// # Errors
    /// The promise that breaks.
    pub fn after(&self, what: &Move, config: &Config) -> Result<Self, String> {
        let mut next = self.clone();
        match what {
            Move::Start => next.start(config)?,
            Move::TakeOver => next.take_over()?,
            Move::Cycle(answers) => next.cycle(answers, NOW)?,
            Move::Wake(at) => next.cycle(&[], *at)?,
            Move::Act(who, op, how) => next.act(*who, op, *how, config)?,
            Move::End(id, ending) => {
                next.left.failures -= u8::from(*ending == Ending::Failed);
                next.end(id, *ending);
            }
            Move::Kill(id) => next.kill(id),
            Move::Poll(found) => next.front().inbox.extend(found.iter().cloned()),
            Move::Crash => {
                next.left.crashes -= 1;
                next.monitor = None;
            }
            Move::Fence => {
                next.left.fences -= 1;
                next.fenced = next.monitor.take().map(Monitor::outlived);
            }
            Move::Leave => next.fenced = None,
            Move::Ask(place) => {
                next.asked |= 1 << place;
                next.ask(&config.commands[*place])?;
                next.tell_news();
            }
            Move::Commit => {
                let name = format!("p{}({})", next.left.commits, next.world.base);
                next.left.commits -= 1;
                next.world.base = pipeline::machine::id::Oid::new(name);
            }
        }
        next.forget();
        Ok(next)
    }

    fn front(&mut self) -> &mut Monitor {
        self.monitor.as_mut().expect("a move of the monitor is offered while one runs")
    }

    fn tell_news(&mut self) {
        if let Some(monitor) = &mut self.monitor {
            monitor.has_news = true;
        }
    }

    fn start(&mut self, config: &Config) -> Result<(), String> {
        let inherited = self.state.attempts.keys().cloned().collect();
        let look = Some(self.world.seen(config.flaw));
        self.monitor = Some(Monitor { look, inherited, ..Monitor::default() });
        let seen = Observation::MonitorStarted { pid: 1, allows_red_base: false };
        self.send(EventBody::Observation(seen), NOW, false).map(|_| ())
    }

    fn take_over(&mut self) -> Result<(), String> {
        let is_running = |attempt: &&Attempt| attempt.phase == AttemptPhase::Running;
        let running: Vec<AttemptId> =
            self.state.attempts.values().filter(is_running).map(|found| found.id.clone()).collect();
        let look = self.front().look.take();
        self.cycle(look.as_slice(), NOW)?;
        for id in running {
            let Some(found) = self.state.attempts.get(&id) else { continue };
            let place = super::world::Place { agent: found.agent.to_string(), slot: found.slot };
            let task = found.task.clone().filter(|_| found.is_work());
            let op = Op::FindAgain { attempt: id, task, place, is_starting: false };
            self.front().ops.insert(op);
        }
        Ok(())
    }

    /// As the loop does it: take in, decide, begin what is newly owed.
    fn cycle(&mut self, answers: &[Answer], at: Time) -> Result<(), String> {
        for answer in answers {
            self.front().inbox.remove(answer);
        }
        self.see(answers)?;
        self.turns(at)?;
        let state = Arc::clone(&self.state);
        let monitor = self.front();
        monitor.has_news = false;
        for effect in monitor.begun.take_due(&state) {
            let attempt = match &effect {
                Effect::Prepare { attempt, .. } | Effect::Start { attempt, .. } => Some(attempt),
                Effect::Stop { .. }
                | Effect::Save { .. }
                | Effect::Advance { .. }
                | Effect::TakeBase { .. }
                | Effect::Merge { .. }
                | Effect::Land { .. }
                | Effect::Follow { .. }
                | Effect::Drop { .. }
                | Effect::Propose { .. } => None,
            };
            let is_inherited = attempt.is_some_and(|id| monitor.inherited.remove(id));
            let op = Op::of(&effect, &state, is_inherited);
            let op = op.ok_or_else(|| format!("{effect:?} is owed but cannot begin"))?;
            based_on_dependencies(&state, &op)?;
            monitor.ops.insert(op);
        }
        Ok(())
    }

    fn act(&mut self, who: Who, op: &Op, how: How, config: &Config) -> Result<(), String> {
        let mut acted = match how {
            How::Done | How::DoneButFailed => self.world.act(op, config.flaw)?,
            How::Failed | How::Conflict => Acted::default(),
        };
        match (how, op) {
            (How::Done, _) => {}
            (How::Conflict, Op::Merge { task, number, onto, .. }) => {
                self.left.conflicts -= 1;
                let (task, number, onto) = (task.clone(), *number, onto.clone());
                acted.answer = Some(Answer::Conflicts { task, number, onto });
            }
            (How::Failed | How::DoneButFailed | How::Conflict, _) => {
                self.left.faults -= 1;
                acted.answer = op.failed();
                acted.rest = None;
            }
        }
        let monitor = match who {
            Who::Monitor => &mut self.monitor,
            Who::Fenced => &mut self.fenced,
        };
        if let Some(monitor) = monitor {
            monitor.ops.remove(op);
            monitor.ops.extend(acted.rest);
            if who == Who::Monitor {
                monitor.inbox.extend(acted.answer);
                monitor.attends.extend(acted.attends);
            }
        }
        if let Some(id) = acted.ended {
            self.report(&id, &Answer::Exited { attempt: id.clone(), ending: Ending::Stopped });
        }
        Ok(())
    }

    fn end(&mut self, id: &AttemptId, ending: Ending) {
        if let Some(job) = self.world.jobs.get_mut(id) {
            job.stand = Stand::Exited(ending);
        }
        self.report(id, &Answer::Exited { attempt: id.clone(), ending });
    }

    fn kill(&mut self, id: &AttemptId) {
        self.left.deaths -= 1;
        if let Some(job) = self.world.jobs.get_mut(id) {
            job.stand = Stand::Died;
        }
        self.report(id, &Answer::Lost { attempt: id.clone() });
    }

    /// Whoever attends the attempt is told.
    fn report(&mut self, id: &AttemptId, answer: &Answer) {
        for monitor in [&mut self.monitor, &mut self.fenced].into_iter().flatten() {
            if monitor.attends.remove(id) {
                monitor.inbox.insert(answer.clone());
            }
        }
    }

    fn see(&mut self, answers: &[Answer]) -> Result<(), String> {
        for answer in answers {
            self.send(EventBody::Observation(answer.observation()), NOW, false)?;
        }
        Ok(())
    }

    fn ask(&mut self, asked: &Command) -> Result<(), String> {
        let is_retry = matches!(asked, Command::RetryTasks { .. });
        self.send(EventBody::Command(asked.clone()), NOW, is_retry).map(|_| ())
    }

    /// The machine decides until it has nothing more to decide. A deadline wakes in a turn of its
    /// own, so that the moments written into the state do not depend on it.
    fn turns(&mut self, at: Time) -> Result<(), String> {
        let turn = || EventBody::Turn { nonces: vec![0; NONCES] };
        if at != NOW {
            self.send(turn(), at, false)?;
        }
        for _ in 0..TURNS_MAX {
            if !self.send(turn(), NOW, false)? {
                return Ok(());
            }
        }
        Err(format!("the machine is not quiet after {TURNS_MAX} turns"))
    }

    /// Steps and applies; returns whether anything was decided.
    fn send(&mut self, body: EventBody, at: Time, is_retry: bool) -> Result<bool, String> {
        let decided = step(&self.state, &Event { at, random: 0, body });
        if let (Told::Refuse(_), false) = (&decided.answer, decided.changes.is_empty()) {
            return Err("a refused command changes something".into());
        }
        let mut settled = Vec::new();
        for change in &decided.changes {
            self.watch(change, is_retry)?;
            apply_settling(Arc::make_mut(&mut self.state), change, &mut settled);
        }
        if let Some(monitor) = &mut self.monitor {
            monitor.begun.settle(&settled);
        }
        Ok(!decided.changes.is_empty())
    }

    /// Looks at a decision before it is applied.
    fn watch(&mut self, change: &Change, is_retry: bool) -> Result<(), String> {
        match change {
            Change::Task(id, TaskChange::Evidenced { evidence }) => {
                let back = [Class::ChangesRequested, Class::Conflict, Class::LandingChecksFailed];
                if back.contains(&evidence.class) {
                    self.done.remove(id);
                }
            }
            Change::Task(id, TaskChange::Steered { .. }) if is_retry => {
                self.done.remove(id);
            }
            Change::Attempt(_, AttemptChange::Added { attempt }) if attempt.is_work() => {
                self.may_begin(attempt)?;
            }
            Change::Attempt(id, AttemptChange::Ended { outcome, .. }) => {
                let ended = &self.state.attempts[id];
                if let (true, Some(task), Some(stage), Class::Completed) =
                    (ended.is_work(), &ended.task, ended.stage(), outcome.class)
                {
                    let done = self.done.entry(task.clone()).or_default();
                    if !done.insert(stage.clone()) {
                        return Err(format!("{id}: {stage} completes twice"));
                    }
                }
            }
            Change::Lane(LaneChange::Landed { id, commit, .. }) => {
                let landed = self.world.landed.as_ref();
                let tip = self.state.tasks[id].tip.as_ref();
                let is_there = landed.is_some_and(|landed| holds(landed, commit));
                if !is_there || !tip.is_some_and(|tip| holds(commit, tip)) {
                    return Err(format!("{id} counts as landed at {commit}, but {landed:?}"));
                }
            }
            Change::Project(_) | Change::Task(..) | Change::Attempt(..) | Change::Lane(_) => {}
        }
        Ok(())
    }

    fn may_begin(&self, new: &Attempt) -> Result<(), String> {
        let state = &self.state;
        let (Some(id), Some(stage)) = (&new.task, new.stage()) else {
            return Err(format!("{} has no task", new.id));
        };
        let task = &state.tasks[id];
        let limits = &state.settings.limits;
        let tally = task.tally;
        let is_met = |dep: &TaskId| matches!(state.tasks[dep].phase, TaskPhase::Completed { .. });
        let mut others = state.attempts.values().filter(|other| other.is_work());
        let broken = [
            ("is paused", state.is_paused || state.drain.is_some() || state.stopping.is_some()),
            ("waits for a dependency", !task.spec.depends_on.iter().all(is_met)),
            ("is done", self.done.get(id).is_some_and(|done| done.contains(stage))),
            ("is under way", others.any(|other| other.task.as_ref() == Some(id))),
            ("has no attempts left", tally.attempts >= limits.attempts_per_task),
            ("has failed too often", tally.stage_failures >= limits.attempts_per_stage),
            ("was lost too often", tally.infrastructure > limits.infrastructure_retries),
            ("was sent back too often", tally.send_backs > limits.send_backs),
            ("has a busy agent", !state.agents[&new.agent].is_free()),
        ];
        match broken.into_iter().find(|(_, is_broken)| *is_broken) {
            Some((why, _)) => Err(format!("{} is assigned, but it {why}", new.id)),
            None => Ok(()),
        }
    }

    /// Checks what must hold in every state.
    ///
    /// # Errors
    /// What does not.
    pub fn check(&self) -> Result<(), String> {
        self.state.check();
        let world = &self.world;
        let mut at_work = BTreeSet::new();
        for (id, job) in &world.jobs {
            if job.runs > 1 {
                return Err(format!("{id} was executed {} times", job.runs));
            }
            if job.stand != Stand::Running {
                continue;
            }
            if !self.state.attempts.contains_key(id) {
                return Err(format!("{id} runs, but it is over"));
            }
            if job.task.is_some() && !at_work.insert(&job.task) {
                return Err(format!("{id} runs beside another of its task"));
            }
        }
        let is_kept = |commit| {
            let refs = world.branches.values().chain(&world.landed).chain(world.pins.values());
            refs.chain(&world.salvage).any(|found| holds(found, commit))
        };
        for task in self.state.tasks.values() {
            let landed = world.landed.as_ref();
            if landed.is_some_and(|landed| landings(landed, &task.id) > 1) {
                return Err(format!("{} has landed twice: {landed:?}", task.id));
            }
            let is_completed = matches!(task.phase, TaskPhase::Completed { .. });
            let has_landed = task.tip.as_ref().zip(landed).is_some_and(|(tip, at)| holds(at, tip));
            if is_completed && !has_landed {
                return Err(format!("{} is completed, but has not landed", task.id));
            }
            for commit in task.tip.iter().chain(&task.resume_from) {
                if !is_kept(commit) {
                    return Err(format!("work of {} is lost: {commit}", task.id));
                }
            }
        }
        for attempt in self.state.attempts.values() {
            if let Some(commit) = attempt.saved.as_ref().filter(|commit| !is_kept(commit)) {
                return Err(format!("what {} left is lost: {commit}", attempt.id));
            }
        }
        Ok(())
    }
}

/// A task's worktree begins with what it depends on.
fn based_on_dependencies(state: &State, op: &Op) -> Result<(), String> {
    let Op::Prepare { task: Some(id), at, .. } = op else { return Ok(()) };
    for dep in &state.tasks[id].spec.depends_on {
        let tip = state.tasks[dep].tip.as_ref();
        if !tip.is_some_and(|tip| holds(at, tip)) {
            return Err(format!("{id} begins at {at}, without {dep}, which stands at {tip:?}"));
        }
    }
    Ok(())
}
