//! The modelled world: keepers with what they run, worktree slots, records on disk, and the git
//! work that monitors began (`work.rs`).

use std::cell::Cell;
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::rc::Rc;

use pipeline::machine::attempt::{AttemptKind, Exit};
use pipeline::machine::id::{AgentName, AttemptId, TaskId};
use pipeline::machine::resume as machine_resume;
use pipeline::machine::settings::{Completion, LauncherKind, Settings};
use pipeline::machine::{Observation, State};

use super::agent::{Plan, word};
use super::dice::Dice;
use super::draw::Mix;
use super::marks::Marks;
use super::mend::Refs;
use super::post::{Ask, Sent};
use super::repo::{BASE, Commit, LANDED, Repo, commit_of, oid};
use super::resume::Sessions;
use super::seed::Canary;
use super::work::Job;

/// Why an agent cannot be started.
const MISSING: &str = "its program is not on the PATH";

/// A worktree: agent and number.
pub type Place = (AgentName, u32);

/// What a keeper is told to run.
#[derive(Debug, Clone)]
pub struct Order {
    pub attempt: AttemptId,
    pub nonce: String,
    pub agent: AgentName,
    pub task: Option<TaskId>,
    pub is_work: bool,
    pub place: Place,
    /// The program that it starts, by its agent's group.
    pub program: String,
    pub is_in_window: bool,
    pub limit_ms: u64,
    pub completion: Completion,
    /// The commit that is checked, and by which commands.
    pub check: Option<(Commit, String)>,
    pub is_bare: bool,
    /// The session that it takes up again.
    pub session: Option<String>,
}

/// Returns what a commit is judged by: checks that passed after another setup prove nothing.
pub fn judges(settings: &Settings) -> String {
    [settings.landing.checks.join(";"), settings.worktree.setup.join(";")].join("|")
}

impl Order {
    /// Makes the order of a live attempt, by the settings that it was added under, as
    /// `monitor::job::order`: whatever was adopted since is for later attempts.
    pub fn of(state: &State, id: &AttemptId) -> Option<Self> {
        let attempt = state.attempts.get(id)?;
        let settings = state.rules_of(attempt);
        let group = settings.group_of(&attempt.agent);
        let check = match &attempt.kind {
            AttemptKind::LandingCheck { commit } | AttemptKind::BaseCheck { commit } => {
                Some((commit_of(commit), judges(settings)))
            }
            AttemptKind::Work { .. } | AttemptKind::StageCheck { .. } => None,
        };
        Some(Self {
            attempt: id.clone(),
            nonce: attempt.nonce.clone(),
            agent: attempt.agent.clone(),
            task: attempt.task.clone(),
            is_work: attempt.is_work(),
            place: (attempt.agent.clone(), attempt.slot),
            program: group.map(|group| group.name.clone()).unwrap_or_default(),
            is_in_window: group.is_some_and(|it| it.launcher == LauncherKind::Tmux),
            limit_ms: 30_000,
            completion: group.map_or(Completion::Marker, |group| group.completion),
            check,
            is_bare: settings.project.isolation == pipeline::machine::mode::Isolation::None,
            session: machine_resume::session(state, attempt).map(|found| found.name.to_owned()),
        })
    }
}

/// A process and its place in life.
#[derive(Debug, Clone)]
pub struct Process {
    pub order: Order,
    pub plan: Plan,
    pub stage: ProcessStage,
    since_mono: u64,
    pub is_stopping: bool,
    pub has_leaked: bool,
}

/// The steps a keeper takes with an order.
#[derive(Debug, Clone, PartialEq)]
pub enum ProcessStage {
    Accepted,
    /// `started.json` is there.
    Written,
    Running,
    /// Its tree is dead; the record is not written.
    Ended(Box<Exit>),
    /// `exit.json` is there; nobody was told.
    Recorded,
}

/// The process that runs one agent's jobs.
#[derive(Debug, Default)]
pub struct Keeper {
    /// Which monitor it is connected with.
    pub monitor: Option<u32>,
    /// SIGSTOP.
    pub is_stopped: bool,
    pub orders: VecDeque<Order>,
    pub process: Option<Process>,
}

/// What is on disk of an attempt.
#[derive(Debug, Default)]
pub struct OnDisk {
    pub is_started: bool,
    pub exit: Option<Exit>,
    /// The record says that it is lost.
    pub is_lost: bool,
    /// How often it was executed since the machine came up.
    runs: u32,
}

impl OnDisk {
    /// What its record tells; `None`: there is none.
    fn ended(&self, id: &AttemptId) -> Option<Observation> {
        let (attempt, exit) = (id.clone(), Box::new(self.exit.clone()?));
        Some(match self.is_lost {
            true => Observation::Lost { attempt, why: "its window went away".into() },
            false => Observation::Exited { attempt, exit },
        })
    }
}

/// What the disk and the keeper say of an attempt.
#[derive(Debug, Clone, PartialEq)]
pub enum Probe {
    Ended(Box<Observation>),
    KeeperAlive,
    Strays,
    Started,
    Nothing,
}

/// What monitors are told by keepers and jobs.
#[derive(Debug, Clone, PartialEq)]
pub enum Report {
    Seen(Observation),
    Started(AttemptId),
    KeeperLost(AttemptId, Probe),
    /// It could not be told that it is lost: it is looked for again.
    Doubtful(AttemptId),
    /// Its keeper has let go of us: it is looked for again.
    Superseded(AttemptId),
    /// Where our branches stood.
    Looked(Refs),
}

/// A worktree slot.
#[derive(Debug, Default, Clone)]
pub struct Slot {
    /// `git worktree add` was killed in it.
    pub is_half: bool,
    pub head: Option<Commit>,
    /// Whose work is in it and in no commit.
    pub unsaved: Option<AttemptId>,
    /// Somebody removed it.
    pub is_gone: bool,
    /// An agent was at work in it since it was last made ready.
    pub is_used: bool,
}

/// What really happened in an attempt, whatever was reported.
#[derive(Debug, Clone, Copy, Default)]
pub struct Truth {
    /// It said so itself, with its own nonce, and exited with 0 (or stayed, and was ended).
    pub is_proven: bool,
    pub has_changed: bool,
}

/// All that is true outside the program.
pub struct World {
    pub repo: Repo,
    pub mono: Rc<Cell<u64>>,
    pub mix: Mix,
    /// Nothing fails any more.
    pub is_kind: bool,
    pub marks: Marks,
    /// Programs that are not there.
    pub missing: BTreeSet<String>,
    /// The machine is busier than the limit allows.
    pub is_overloaded: bool,
    pub keepers: BTreeMap<AgentName, Keeper>,
    pub disk: BTreeMap<AttemptId, OnDisk>,
    /// Processes whose keeper died.
    pub strays: Vec<Process>,
    pub slots: BTreeMap<Place, Slot>,
    /// What the monitor made ready ahead, by what it remembers.
    pub ready: BTreeMap<Place, Commit>,
    pub jobs: Vec<Job>,
    /// Git processes of dead monitors: each has one step left.
    pub orphans: Vec<Job>,
    pub truth: BTreeMap<AttemptId, Truth>,
    /// Commits that passed which checks.
    pub passed: BTreeSet<(Commit, String)>,
    /// Monitors that wait for the end of a keeper that does not answer, and for which attempt.
    awaited: BTreeSet<(u32, AttemptId, AgentName)>,
    pub sessions: Sessions,
    /// The nonce of the attempt that ended last.
    pub last_nonce: String,
    /// A bug put in on purpose.
    pub canary: Canary,
    /// Branches of people, or that somebody has checked out, and where they left them.
    pub theirs: BTreeMap<String, Commit>,
    /// Orders on their way to keepers.
    pub post: Vec<Sent>,
    /// Orders have fates, and settings what `draw::newest` draws: the oldest seeds failed without.
    pub has_fates: bool,
    /// Told, not yet handed over: which monitor, and what.
    pub mail: Vec<(u32, Report)>,
}

impl World {
    /// Makes a world with one commit and nothing running.
    pub fn new(mono: Rc<Cell<u64>>, mix: Mix) -> Self {
        Self {
            repo: Repo::new(),
            mono,
            mix,
            is_kind: false,
            marks: Marks::default(),
            missing: BTreeSet::new(),
            is_overloaded: false,
            keepers: BTreeMap::new(),
            disk: BTreeMap::new(),
            strays: Vec::new(),
            slots: BTreeMap::new(),
            ready: BTreeMap::new(),
            jobs: Vec::new(),
            sessions: Sessions::default(),
            last_nonce: String::new(),
            orphans: Vec::new(),
            truth: BTreeMap::new(),
            passed: BTreeSet::new(),
            awaited: BTreeSet::new(),
            canary: Canary::None,
            theirs: BTreeMap::new(),
            post: Vec::new(),
            has_fates: true,
            mail: Vec::new(),
        }
    }

    /// From here on everything that waits or hangs goes on, and people put the base back.
    pub fn calm(&mut self) {
        for keeper in self.keepers.values_mut() {
            keeper.is_stopped = false;
        }
        self.missing.clear();
        self.leave_branches();
        if self.repo.read(BASE).is_none() {
            let new = self.repo.make_new(&[0]);
            self.repo.meddle(BASE, Some(new));
        }
    }

    /// Returns how many landings of a task the landing branch has.
    pub fn landings(&self, task: &TaskId) -> usize {
        self.repo.read(LANDED).map_or(0, |landed| self.repo.landings(task, landed))
    }

    /// Looks at base and landing branch at once; `None`: the base is gone.
    pub fn seen(&self) -> Option<Observation> {
        let tip = oid(self.repo.read(BASE)?);
        Some(Observation::BaseSeen { tip, landed: self.repo.read(LANDED).map(oid) })
    }

    /// Returns true in `chance` of 1000 cases, while things go wrong at all.
    pub fn fails(&mut self, dice: &mut Dice, chance: u64, mark: &'static str) -> bool {
        let fails = !self.is_kind && dice.permille(chance);
        if fails {
            self.marks.hit(mark);
        }
        fails
    }

    /// Reads what became of an attempt, as `agent::probe` does.
    pub fn probe(&self, id: &AttemptId, agent: &AgentName) -> Probe {
        let disk = self.disk.get(id);
        if let Some(ended) = disk.and_then(|disk| disk.ended(id)) {
            return Probe::Ended(Box::new(ended));
        }
        if self.keepers.contains_key(agent) && self.canary != Canary::ForgetsKeepers {
            return Probe::KeeperAlive;
        }
        if self.strays.iter().any(|stray| stray.order.attempt == *id) {
            return Probe::Strays;
        }
        if disk.is_some_and(|disk| disk.is_started) { Probe::Started } else { Probe::Nothing }
    }

    /// Orders an attempt from its agent's keeper, which is started when there is none.
    pub fn order(&mut self, monitor: u32, order: Order, dice: &mut Dice) {
        if order.is_work && self.missing.contains(&order.program) {
            let attempt = order.attempt;
            let fault = Observation::AttemptFaulted { attempt, why: MISSING.into() };
            let seen = [self.agents(), fault].map(|seen| (monitor, Report::Seen(seen)));
            return self.mail.extend(seen);
        }
        if order.is_work {
            let (attempt, session) = (order.attempt.clone(), order.session.clone());
            if session.is_some() {
                self.marks.hit("a session is taken up again");
            }
            let seen = Observation::Ordered { attempt, preset: "p".into(), session };
            self.mail.push((monitor, Report::Seen(seen)));
        }
        let agent = order.agent.clone();
        self.send(monitor, agent, Ask::Run(Box::new(order)), dice);
    }

    /// Takes over what a keeper runs, for a new monitor.
    pub fn adopt(&mut self, monitor: u32, id: &AttemptId, agent: &AgentName) {
        let report = match self.keepers.get(agent) {
            Some(keeper) if keeper.is_stopped && keeper.monitor != Some(monitor) => {
                // It awaits one outcome, however often it has looked.
                self.awaited.insert((monitor, id.clone(), agent.clone()));
                if !self.has_fates {
                    return;
                }
                Report::Doubtful(id.clone())
            }
            Some(_) => {
                self.meet(monitor, agent);
                let keeper = &self.keepers[agent];
                let running = keeper.process.as_ref().map(|process| &process.order.attempt);
                let is_known =
                    running == Some(id) || keeper.orders.iter().any(|order| order.attempt == *id);
                if is_known { Report::Started(id.clone()) } else { self.settled(id, agent) }
            }
            None => self.settled(id, agent),
        };
        self.mail.push((monitor, report));
    }

    pub fn settled(&self, id: &AttemptId, agent: &AgentName) -> Report {
        match self.probe(id, agent) {
            Probe::Ended(seen) => Report::Seen(*seen),
            Probe::KeeperAlive if self.strays.iter().any(|stray| stray.order.attempt == *id) => {
                Report::KeeperLost(id.clone(), Probe::Strays)
            }
            Probe::KeeperAlive if self.disk.get(id).is_some_and(|disk| disk.is_started) => {
                Report::KeeperLost(id.clone(), Probe::Started)
            }
            Probe::KeeperAlive => Report::KeeperLost(id.clone(), Probe::Nothing),
            found @ (Probe::Strays | Probe::Started | Probe::Nothing) => {
                Report::KeeperLost(id.clone(), found)
            }
        }
    }

    /// Asks a keeper to end an attempt.
    pub fn stop(&mut self, monitor: u32, id: &AttemptId, agent: &AgentName) {
        let answers = |keeper: &&mut Keeper| !keeper.is_stopped || keeper.monitor == Some(monitor);
        if let Some(keeper) = self.keepers.get_mut(agent).filter(answers) {
            keeper.monitor = Some(monitor);
            let running = keeper.process.as_mut();
            if let Some(process) = running.filter(|process| process.order.attempt == *id) {
                process.is_stopping = true;
                return;
            }
        }
        let why = "its keeper does not run".to_owned();
        let seen = Observation::AttemptFaulted { attempt: id.clone(), why };
        self.mail.push((monitor, Report::Seen(seen)));
    }

    /// One step of one keeper that has something to do; returns false when none has.
    pub fn keeper_step(&mut self, dice: &mut Dice) -> bool {
        // Drawn apart, so that old seeds draw the rest as ever.
        let mut more = Dice(dice.0 ^ 0x0000_9057);
        if (self.is_kind || more.permille(200)) && self.post_step(&mut more) {
            return true;
        }
        let stopped = self.keepers.values_mut().find(|keeper| keeper.is_stopped);
        if let Some(keeper) = stopped.filter(|_| dice.permille(30)) {
            keeper.is_stopped = false;
        }
        let mono = self.mono.get();
        let can = |keeper: &&Keeper| {
            let is_waiting = keeper.process.as_ref().is_some_and(|process| {
                process.stage == ProcessStage::Running
                    && matches!(process.plan, Plan::Hangs | Plan::Silent)
                    && !process.is_stopping
                    && mono < process.since_mono + process.order.limit_ms
            });
            let is_idle =
                keeper.process.is_none() && keeper.orders.is_empty() && keeper.monitor.is_some();
            !keeper.is_stopped && !is_waiting && !is_idle
        };
        let busy: Vec<&AgentName> =
            self.keepers.iter().filter(|(_, keeper)| can(keeper)).map(|(name, _)| name).collect();
        if busy.is_empty() {
            return false;
        }
        let name = busy[dice.below(busy.len())].clone();
        let mut keeper = self.keepers.remove(&name).unwrap_or_default();
        let stays = self.step_of(&mut keeper, dice);
        if stays {
            self.keepers.insert(name, keeper);
        } else {
            self.drop_copies(&name);
            self.tell_awaited(&name);
        }
        true
    }

    /// A keeper that did not answer has ended: whoever waited for that looks again.
    fn tell_awaited(&mut self, name: &AgentName) {
        let (told, left) =
            std::mem::take(&mut self.awaited).into_iter().partition(|(_, _, agent)| agent == name);
        self.awaited = left;
        let told: BTreeSet<(u32, AttemptId, AgentName)> = told;
        for (monitor, id, agent) in told {
            let report = self.settled(&id, &agent);
            self.mail.push((monitor, report));
        }
    }

    /// Returns false when the keeper leaves.
    fn step_of(&mut self, keeper: &mut Keeper, dice: &mut Dice) -> bool {
        let Some(mut process) = keeper.process.take() else {
            let Some(order) = keeper.orders.pop_front() else { return false };
            keeper.process = self.accept(keeper.monitor, order, dice);
            return true;
        };
        let attempt = process.order.attempt.clone();
        match process.stage.clone() {
            ProcessStage::Accepted => {
                self.disk.entry(attempt).or_default().is_started = true;
                process.stage = ProcessStage::Written;
            }
            ProcessStage::Written => {
                self.execute(&mut process);
                self.tell_start(keeper, attempt, dice);
            }
            ProcessStage::Running => {
                let exit = self.end_of(&process);
                process.stage = ProcessStage::Ended(Box::new(exit));
            }
            ProcessStage::Ended(exit) => {
                let disk = self.disk.entry(attempt).or_default();
                disk.exit = Some(*exit);
                disk.is_lost = process.plan == Plan::WindowGone;
                process.stage = ProcessStage::Recorded;
            }
            ProcessStage::Recorded => {
                let ended = self.disk.get(&attempt).and_then(|disk| disk.ended(&attempt));
                if let Some(seen) = ended {
                    self.tell(keeper.monitor, Report::Seen(seen), dice);
                }
                return true;
            }
        }
        keeper.process = Some(process);
        true
    }

    fn accept(&mut self, monitor: Option<u32>, order: Order, dice: &mut Dice) -> Option<Process> {
        let disk = self.disk.entry(order.attempt.clone()).or_default();
        if let Some(seen) = disk.ended(&order.attempt) {
            self.tell(monitor, Report::Seen(seen), dice);
            return None;
        }
        if disk.is_started {
            let why = "it was started before".to_owned();
            let seen = Observation::AttemptFaulted { attempt: order.attempt, why };
            self.tell(monitor, Report::Seen(seen), dice);
            return None;
        }
        let plan = self.plan(&order, dice);
        let leak = self.mix.leak;
        let has_leaked = self.fails(dice, leak, "agent leaves a process behind");
        let since_mono = self.mono.get();
        let stage = ProcessStage::Accepted;
        Some(Process { order, plan, stage, since_mono, is_stopping: false, has_leaked })
    }

    fn execute(&mut self, process: &mut Process) {
        let order = &process.order;
        process.since_mono = self.mono.get();
        process.stage = ProcessStage::Running;
        if process.plan == Plan::Unstartable {
            return;
        }
        let living = self.keepers.values().filter_map(|keeper| keeper.process.as_ref());
        let living = living
            .filter(|other| matches!(other.stage, ProcessStage::Running | ProcessStage::Written));
        for other in living.chain(&self.strays) {
            let is_same_task =
                order.is_work && other.order.is_work && order.task == other.order.task;
            assert!(!is_same_task, "I9: `{}` runs beside `{}`", order.attempt, other.order.attempt);
            let is_same_place = order.place == other.order.place && !order.is_bare;
            assert!(!is_same_place, "I9: `{}` shares {:?}", order.attempt, order.place);
        }
        let disk = self.disk.entry(order.attempt.clone()).or_default();
        disk.runs += 1;
        assert!(disk.runs == 1, "`{}` is executed again", order.attempt);
        let changes = !matches!(process.plan, Plan::Idle);
        if order.is_work && !order.is_bare && changes {
            let slot = self.slots.entry(order.place.clone()).or_default();
            if !slot.is_gone {
                assert!(!slot.is_half, "`{}` runs in a half worktree", order.attempt);
                slot.unsaved = Some(order.attempt.clone());
                slot.is_used = true;
                self.truth.entry(order.attempt.clone()).or_default().has_changed = true;
            }
        }
    }

    /// A start that goes missing is a broken connection, which shows.
    fn tell_start(&mut self, keeper: &mut Keeper, attempt: AttemptId, dice: &mut Dice) {
        // Drawn apart, so that old seeds draw the rest as ever.
        let mut more = Dice(dice.0 ^ 0x0057_a127);
        let (deaf, repeat) = (self.mix.deaf, self.mix.repeat);
        if self.has_fates && self.fails(&mut more, deaf, "the report of a start is lost") {
            let monitor = keeper.monitor.take();
            let lost = monitor.map(|monitor| (monitor, Report::Superseded(attempt)));
            return self.mail.extend(lost);
        }
        if self.has_fates && self.fails(&mut more, repeat, "a start is told twice") {
            self.tell(keeper.monitor, Report::Started(attempt.clone()), dice);
        }
        self.tell(keeper.monitor, Report::Started(attempt), dice);
    }

    fn tell(&mut self, monitor: Option<u32>, report: Report, dice: &mut Dice) {
        let Some(monitor) = monitor else { return };
        let (deaf, repeat) = (self.mix.deaf, self.mix.repeat);
        // The poll finds ends by itself.
        let is_end =
            matches!(report, Report::Seen(Observation::Exited { .. } | Observation::Lost { .. }));
        if is_end && self.fails(dice, repeat, "a report comes twice") {
            self.mail.push((monitor, report.clone()));
        }
        if is_end && self.fails(dice, deaf, "a report is lost") {
            return;
        }
        self.mail.push((monitor, report));
    }

    /// SIGKILL for one keeper; what it ran dies with it or stays on its own.
    pub fn kill_keeper(&mut self, dice: &mut Dice) {
        // Most keepers have nothing that runs at the moment; those that have are the ones of interest.
        let is_at_work = |name: &&AgentName| {
            let process = self.keepers[*name].process.as_ref();
            process.is_some_and(|process| process.stage == ProcessStage::Running)
        };
        let at_work: Vec<AgentName> = self.keepers.keys().filter(is_at_work).cloned().collect();
        let names: Vec<AgentName> = self.keepers.keys().cloned().collect();
        let is_chosen = !at_work.is_empty() && dice.permille(500);
        let Some(name) = dice.pick(if is_chosen { &at_work } else { &names }) else { return };
        let Some(keeper) = self.keepers.remove(&name) else { return };
        self.marks.hit("keeper killed");
        let orders = keeper.orders.iter().map(|order| order.attempt.clone());
        let mut expected: Vec<AttemptId> = orders.collect();
        if let Some(process) = keeper.process {
            expected.push(process.order.attempt.clone());
            let is_alive = process.stage == ProcessStage::Running;
            if is_alive && process.plan != Plan::Unstartable && dice.permille(500) {
                self.marks.hit("strays of a dead keeper");
                self.strays.push(process);
            }
        }
        self.drop_copies(&name);
        self.tell_awaited(&name);
        if let Some(monitor) = keeper.monitor {
            for id in expected {
                let report = self.settled(&id, &name);
                self.mail.push((monitor, report));
            }
        }
    }

    /// Which agents cannot be started, and why.
    pub fn agents(&self) -> Observation {
        let missing = self.missing.iter().map(|name| (name.clone(), MISSING.to_owned()));
        Observation::AgentsSeen { unusable: missing.collect() }
    }

    /// A program is removed, or put back.
    pub fn meddle_with_program(&mut self, name: String) {
        let is_back = self.missing.remove(&name);
        if !is_back {
            self.missing.insert(name);
        }
        self.marks.hit(if is_back { "a program is back" } else { "a program goes away" });
    }

    /// SIGKILL for the server of the windows: what runs in one is lost.
    pub fn kill_server(&mut self) {
        for process in self.keepers.values_mut().filter_map(|keeper| keeper.process.as_mut()) {
            let is_there = process.order.is_in_window && process.order.is_work;
            let runs = process.stage == ProcessStage::Running;
            if is_there && runs && process.plan != Plan::Unstartable {
                process.plan = Plan::WindowGone;
                self.marks.hit(word(process.plan));
            }
        }
    }

    /// SIGSTOP or SIGCONT for one keeper.
    pub fn stop_keeper(&mut self, dice: &mut Dice) {
        let names: Vec<AgentName> = self.keepers.keys().cloned().collect();
        let Some(name) = dice.pick(&names) else { return };
        if let Some(keeper) = self.keepers.get_mut(&name) {
            keeper.is_stopped = !keeper.is_stopped;
            self.marks.hit("keeper stopped or continued");
        }
    }

    /// The monitor is gone: connections close, answers are lost, its git dies or ends its step.
    pub fn lose_monitor(&mut self, monitor: u32, dice: &mut Dice) {
        self.lose_post(monitor, dice);
        for keeper in self.keepers.values_mut() {
            if keeper.monitor == Some(monitor) {
                keeper.monitor = None;
            }
        }
        self.mail.clear();
        self.awaited.clear();
        self.ready.clear();
        for job in std::mem::take(&mut self.jobs) {
            if job.is_writing() && dice.permille(400) {
                self.marks.hit("git outlives its monitor");
                self.orphans.push(job);
            } else if dice.permille(300) {
                self.kill_half(&job);
            }
        }
    }

    /// The machine loses power: every process is gone, and what was not synced may be.
    pub fn cut_power(&mut self, dice: &mut Dice) {
        self.marks.hit("power cut");
        self.keepers.clear();
        self.strays.clear();
        self.awaited.clear();
        self.ready.clear();
        self.mail.clear();
        self.post.clear();
        for job in
            std::mem::take(&mut self.jobs).into_iter().chain(std::mem::take(&mut self.orphans))
        {
            self.kill_half(&job);
        }
        for disk in self.disk.values_mut() {
            disk.runs = 0;
            if dice.permille(100) {
                disk.exit = None;
                disk.is_lost = false;
                disk.is_started &= dice.permille(500);
            }
        }
    }
}
