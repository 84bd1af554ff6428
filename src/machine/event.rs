//! Everything that can happen to the machine.

use std::collections::BTreeMap;

use super::attempt::Exit;
use super::id::{AgentName, AttemptId, Oid, StageName, TaskId};
use super::mode::{Orchestration, Rollout};
use super::outside::{Found, Ran};
use super::proposal::{Pair, ProposalFault};
use super::settings::Settings;
use super::task::{Clash, Priority, Spec, TaskKind};
use super::time::Time;

/// Something that happened, with the moment and the chance it needs.
#[derive(Debug, Clone, PartialEq)]
pub struct Event {
    /// Steady within the process that made it.
    pub at: Time,
    /// Random bits, for a nonce or jitter.
    pub random: u128,
    pub body: EventBody,
}

/// What happened.
#[derive(Debug, Clone, PartialEq)]
pub enum EventBody {
    /// Somebody asks for something; answered by accept or refuse.
    Command(Command),
    /// Something was seen in the world.
    Observation(Observation),
    /// Tasks move to where their dependencies allow them to be; nothing starts. Fed after a command,
    /// so that statuses are exact while no monitor runs.
    Sort,
    /// The monitor decides what comes next; only it feeds this. One value of `nonces` is used up
    /// for each attempt added, so their number bounds the work of one turn.
    Turn { nonces: Vec<u128> },
}

/// A task to be added.
#[derive(Debug, Clone, PartialEq)]
pub struct NewTask {
    /// `None`: the next free `TASK-nnn`.
    pub id: Option<TaskId>,
    pub spec: Spec,
    pub is_front: bool,
    pub is_held: bool,
    /// Unknown dependencies block the task rather than refuse the command.
    pub may_lack_dependencies: bool,
}

/// What `task edit` changes; `None` leaves a field as it is.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Edit {
    pub title: Option<String>,
    pub body: Option<String>,
    pub priority: Option<Priority>,
    pub kind: Option<TaskKind>,
    pub parent: Option<Option<TaskId>>,
    pub depends_on: Option<Vec<TaskId>>,
    pub add_depends_on: Vec<TaskId>,
    pub remove_depends_on: Vec<TaskId>,
    pub touches: Option<Vec<String>>,
    pub stages: Option<Vec<StageName>>,
    pub labels: Option<Vec<String>>,
    pub needs: Option<Vec<String>>,
    pub complexity: Option<Option<String>>,
    pub estimate_ms: Option<Option<u64>>,
    /// All of them; replaces what was there.
    pub resources: Option<BTreeMap<String, String>>,
    /// An empty one takes the command away.
    pub command: Option<String>,
    pub is_exclusive: Option<bool>,
    pub is_front: Option<bool>,
    pub is_held: Option<bool>,
}

/// What becomes of the open tasks that depend on a cancelled one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Dependents {
    /// The command is refused while there are any.
    Refuse,
    /// They are cancelled with it.
    Cancel,
    /// They no longer depend on it.
    Release,
}

/// Which tasks `task retry` means.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum RetryTarget {
    Tasks(Vec<TaskId>),
    /// Every blocked task.
    Blocked,
}

/// From where a task goes on that a person gives back.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum GiveTo {
    /// From where it stood; with commits in a stage that must change something, behind that stage.
    Onward,
    Stage(StageName),
    Landing,
}

/// How the monitor ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum StopKind {
    /// Agents keep running.
    Leave,
    /// Running attempts are waited for.
    Drain,
    /// Running attempts are ended, their work saved.
    Now,
}

/// What becomes of what the pilot landed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PilotEnd {
    /// The base follows to it.
    Land,
    /// It goes to salvage, and its tasks are done anew.
    Drop,
}

/// What a person or a script asks for.
#[derive(Debug, Clone, PartialEq)]
pub enum Command {
    /// All or nothing.
    AddTasks {
        tasks: Vec<NewTask>,
    },
    EditTask {
        id: TaskId,
        edit: Box<Edit>,
    },
    HoldTasks {
        ids: Vec<TaskId>,
    },
    ReleaseTasks {
        ids: Vec<TaskId>,
    },
    RetryTasks {
        target: RetryTarget,
        stage: Option<StageName>,
        note: Option<String>,
        is_fresh: bool,
    },
    CancelTasks {
        ids: Vec<TaskId>,
        dependents: Dependents,
    },
    ApproveTasks {
        ids: Vec<TaskId>,
    },
    /// A person takes it, into a worktree at `dir` on its branch, which stands at `from`.
    TakeTask {
        id: TaskId,
        dir: String,
        from: Oid,
    },
    /// The person gives it back with the branch at `commit`; `changed`: what that has changed
    /// against the landing branch, `None` when git could not tell.
    GiveTask {
        id: TaskId,
        to: GiveTo,
        commit: Oid,
        changed: Option<Vec<String>>,
    },
    /// A person did it; by `commit`, which the base or the landing branch holds.
    CompleteTask {
        id: TaskId,
        commit: Option<Oid>,
    },
    /// A finished task is to be worked on again; `is_fresh`: nothing is left of its branch.
    ReopenTask {
        id: TaskId,
        is_fresh: bool,
    },
    Pause,
    Resume,
    PauseAgent {
        name: AgentName,
    },
    ResumeAgent {
        name: AgentName,
    },
    /// `to`: how many agents the group is to have from now on; `None`: what its settings say.
    ScaleAgents {
        group: String,
        to: Option<u32>,
    },
    /// `wait_ms`: drain for so long; `is_forced`: switch beside running attempts.
    SwitchMode {
        to: Orchestration,
        wait_ms: Option<u64>,
        is_forced: bool,
    },
    SetRollout {
        to: Rollout,
        is_forced: bool,
    },
    /// To the next rollout; `pilot`: what becomes of what the pilot landed.
    Promote {
        is_forced: bool,
        pilot: Option<PilotEnd>,
    },
    /// To the rollout before.
    Demote,
    AdoptSettings {
        settings: Box<Settings>,
    },
    Stop {
        kind: StopKind,
    },
    /// `current-task.txt` was edited: its text, trimmed.
    PickTask {
        text: String,
    },
}

/// What was seen in the world.
#[derive(Debug, Clone, PartialEq)]
pub enum Observation {
    /// A monitor took over, having looked at the world.
    MonitorStarted {
        pid: u32,
        allows_red_base: bool,
    },
    MonitorEnded {
        why: String,
    },
    /// Its worktree stands at `base`; the task branch at `tip`.
    Prepared {
        attempt: AttemptId,
        base: Option<Oid>,
        tip: Option<Oid>,
    },
    /// Its prompt is written, its role from a prompt file of the project with that hash.
    Briefed {
        attempt: AttemptId,
        prompt: String,
    },
    /// It is being started by the preset file with that hash; `session`: the one it takes up again.
    Ordered {
        attempt: AttemptId,
        preset: String,
        session: Option<String>,
    },
    Started {
        attempt: AttemptId,
        at: Time,
    },
    /// Its process tree is dead.
    Exited {
        attempt: AttemptId,
        exit: Box<Exit>,
    },
    /// Keeper or outcome are gone, the tree is dead.
    Lost {
        attempt: AttemptId,
        why: String,
    },
    /// What it left is pinned at `commit`; `None`: nothing differs from where it began. `markers`: files
    /// in which a conflict is left. `notes`: what is not part of it, and where that is. `lacks`: why it
    /// is not the whole of what was done.
    Saved {
        attempt: AttemptId,
        commit: Option<Oid>,
        has_changed: bool,
        markers: Vec<String>,
        notes: Vec<String>,
        lacks: Option<String>,
    },
    /// Its worktree went away under it; `commit`: what of it could still be pinned.
    WorktreeGone {
        attempt: AttemptId,
        commit: Option<Oid>,
    },
    /// The task branch stands at what it left; `changed`: the paths that the branch changed since it
    /// left the landing branch, `None` when git could not tell.
    Advanced {
        attempt: AttemptId,
        changed: Option<Vec<String>>,
    },
    /// As things are it can never start: another try would not help.
    CannotStart {
        attempt: AttemptId,
        why: String,
    },
    /// The task's branch was tried against others, where it stood at `tip`.
    Forecast {
        task: TaskId,
        tip: Oid,
        /// Tasks whose branches it was tried against.
        tried: Vec<TaskId>,
        clashes: Vec<Clash>,
    },
    /// An effect for an attempt failed for want of git, disk, memory or a keeper.
    AttemptFaulted {
        attempt: AttemptId,
        why: String,
    },
    /// Its `setup` has failed by itself, and nothing is left of it; `why` holds the end of its output.
    SetupFailed {
        attempt: AttemptId,
        why: String,
    },
    /// What changed outside of the worktrees while these ran, each of which may be over.
    OutsideSeen {
        ran: Vec<Ran>,
        found: Vec<Found>,
        /// Differences that are not named.
        more: u64,
        /// It may repeat what was told, since what a monitor before this one saw was not kept.
        is_first: bool,
    },
    /// Branches of ours that stand elsewhere and stay there, since somebody has them checked out: all
    /// of them, by name, with the folder.
    BranchesSeen {
        held: BTreeMap<String, String>,
    },
    /// Disk, descriptors or processes are short, in words; `None`: there is enough again.
    ShortageSeen {
        what: Option<String>,
    },
    /// By group: whose models it uses, as its preset says; all of them.
    ProvidersSeen {
        of: BTreeMap<String, String>,
    },
    /// Why agents cannot start anything, in words, by the name of their group; those of other groups
    /// can, as far as is known.
    AgentsSeen {
        unusable: BTreeMap<String, String>,
    },
    /// The machine's load is above the limit, in words; `None`: it no longer is.
    OverloadSeen {
        what: Option<String>,
    },
    /// The external scheduler's answer to a question; without pairs: nothing now.
    Proposed {
        number: u64,
        pairs: Vec<Pair>,
    },
    /// The external scheduler gave no answer to a question.
    NotProposed {
        number: u64,
        fault: ProposalFault,
        why: String,
    },
    BaseSeen {
        tip: Oid,
        landed: Option<Oid>,
    },
    /// The landing branch holds the base's `base` and stands at `landed`; `has_all`: `base` held all
    /// that had landed, as where a person merged it.
    BaseTaken {
        base: Oid,
        landed: Oid,
        has_all: bool,
    },
    BaseConflicts {
        base: Oid,
        paths: Vec<String>,
    },
    /// An effect of the lane failed for want of git or disk.
    LaneFaulted {
        why: String,
    },
    /// The merge of `tip` into `onto` is pinned; `protected`: paths that need a person's approval.
    Merged {
        task: TaskId,
        number: u32,
        commit: Oid,
        onto: Oid,
        protected: Vec<String>,
    },
    /// Nothing to merge: the landing branch, at `commit`, holds the task's work.
    AlreadyLanded {
        task: TaskId,
        number: u32,
        commit: Oid,
    },
    MergeConflicts {
        task: TaskId,
        number: u32,
        onto: Oid,
        paths: Vec<String>,
        with: Vec<TaskId>,
    },
    /// The landing branch stands at, or holds, `commit`.
    Landed {
        task: TaskId,
        number: u32,
        commit: Oid,
    },
    /// The landing branch stood elsewhere.
    LandingRaced {
        task: TaskId,
        number: u32,
        found: Option<Oid>,
    },
    Followed {
        to: Oid,
    },
    /// The landing branch was reset to `to`; `lost`: tasks that are no longer on it.
    PilotDropped {
        to: Oid,
        lost: Vec<TaskId>,
    },
    /// In shadow: others moved the base from `from` to `tip`, and landed these tasks with it, in this
    /// order.
    HandLanded {
        from: Oid,
        tip: Oid,
        tasks: Vec<(TaskId, Oid)>,
    },
    FollowRefused {
        to: Oid,
        why: String,
        behind: u64,
        is_passing: bool,
    },
}
