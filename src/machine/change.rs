//! What was decided; this alone is journalled.

use std::collections::BTreeMap;

use super::attempt::{Attempt, Exit, Outcome, Tries};
use super::breaker::Breaker;
use super::crew::Target;
use super::event::StopKind;
use super::id::{AgentName, AttemptId, Oid, StageName, TaskId};
use super::lane::{Dropping, Follow, Landing};
use super::mode::{Orchestration, Rollout};
use super::outside::Outside;
use super::proposal::{Proposal, ProposalFault};
use super::provider::Pause;
use super::purse::{Bound, Level};
use super::settings::Settings;
use super::state::Drain;
use super::task::{Clash, Evidence, Spec, Taken, Tally, Task, TaskPhase};
use super::time::Time;

/// One decision; applying it never fails.
#[derive(Debug, Clone, PartialEq)]
pub enum Change {
    Project(ProjectChange),
    Task(TaskId, TaskChange),
    Attempt(AttemptId, AttemptChange),
    Lane(LaneChange),
}

/// A decision about the whole.
#[derive(Debug, Clone, PartialEq)]
pub enum ProjectChange {
    SettingsAdopted {
        settings: Box<Settings>,
        at: Time,
    },
    MonitorStarted {
        pid: u32,
        allows_red_base: bool,
        at: Time,
    },
    MonitorEnded {
        why: String,
        at: Time,
    },
    StopRequested {
        kind: StopKind,
    },
    PauseSet {
        is_paused: bool,
    },
    AgentPauseSet {
        name: AgentName,
        is_paused: bool,
    },
    /// How many agents a group is to have, and why, in words.
    AgentsScaled {
        group: String,
        target: Target,
        why: String,
        at: Time,
    },
    /// How an agent did of late.
    BreakerSet {
        name: AgentName,
        breaker: Box<Breaker>,
    },
    /// How a provider stands; `None`: well.
    ProviderSet {
        name: String,
        pause: Option<Box<Pause>>,
    },
    /// By group: whose models it uses, as its preset says.
    ProvidersSet {
        of: BTreeMap<String, String>,
    },
    /// Why an agent cannot start anything; `None`: it can.
    AgentUnusable {
        name: AgentName,
        why: Option<String>,
    },
    ModeSwitched {
        to: Orchestration,
    },
    DrainSet {
        drain: Option<Drain>,
    },
    RolloutSet {
        to: Rollout,
    },
    /// Why the rollout was set; counting begins anew.
    RolloutReasoned {
        why: String,
        is_fallback: bool,
        at: Time,
    },
    /// Others did a task in shadow; why the pipeline would not have, `None`: it would.
    Compared {
        id: TaskId,
        difference: Option<String>,
    },
    CurrentTaskSet {
        id: Option<TaskId>,
    },
    /// All that the task asks for is kept for it until it can start; `None`: nobody's.
    CollectingSet {
        id: Option<TaskId>,
    },
    /// While there is one nothing new starts, and what fails of infrastructure is not counted.
    ShortageSet {
        what: Option<String>,
    },
    /// While the load is above the limit no task's attempt starts; nothing else changes.
    OverloadSet {
        what: Option<String>,
    },
    /// What changed outside of the worktrees while nobody ran, that is to be told all the same.
    FoundOutside {
        found: Outside,
    },
    /// Branches of ours that stand elsewhere and stay there, since somebody has them checked out, by
    /// name, with the folder.
    BranchesHeld {
        held: BTreeMap<String, String>,
    },
    /// How the external scheduler stands.
    ProposalSet {
        proposal: Box<Proposal>,
    },
    /// The external scheduler failed, and the built-in one decides; changes nothing by itself.
    ProposalFaulted {
        fault: ProposalFault,
        why: String,
    },
    /// What it proposed cannot be carried out; changes nothing by itself.
    ProposalRefused {
        task: TaskId,
        agent: AgentName,
        why: String,
    },
    /// How much of a bound of `[limits]` is used up, of the run's or of a task's.
    BudgetTold {
        bound: Bound,
        level: Level,
        task: Option<TaskId>,
        /// In the bound's unit.
        used: u64,
        limit: u64,
    },
    /// The weights of all open tasks are made anew.
    Weighed {
        at: Time,
    },
    /// What shadow mode would do for a task.
    WouldStart {
        id: TaskId,
        stage: StageName,
        agent: Option<AgentName>,
    },
}

/// A decision about one task.
#[derive(Debug, Clone, PartialEq)]
pub enum TaskChange {
    Added {
        task: Box<Task>,
    },
    Edited {
        spec: Box<Spec>,
        is_front: bool,
        at: Time,
    },
    HeldSet {
        is_held: bool,
    },
    Moved {
        to: TaskPhase,
        at: Time,
    },
    BackedOff {
        until: Option<Time>,
    },
    Tallied {
        tally: Tally,
    },
    Noted {
        stage: StageName,
        text: String,
    },
    Evidenced {
        evidence: Evidence,
    },
    /// What the next attempt starts with.
    Steered {
        steer: Box<Steer>,
    },
    ApprovalAsked {
        what: String,
    },
    /// For the landing of this tip.
    Approved {
        tip: Option<Oid>,
    },
    /// A person has it, and it is held.
    Taken {
        taken: Taken,
    },
    /// The person gave it back: its branch stands at `commit`, and it is held no more.
    Given {
        commit: Oid,
    },
    /// A person says that it is done, by `commit` where they name one.
    DoneByHand {
        commit: Option<Oid>,
    },
    /// What no agent has that the task needs at its stage; `None`: one has it all.
    Unserved {
        what: Option<String>,
    },
    /// The task branch stands at `tip`.
    TipMoved {
        tip: Oid,
    },
    /// What its branch has changed so far, as path globs.
    BranchChanged {
        paths: Vec<String>,
    },
    /// What its branch would conflict with; those of `tried` were told of it before, and no longer
    /// are.
    Forecast {
        clashes: Vec<Clash>,
        tried: Vec<TaskId>,
    },
}

/// What `Steered` sets; all of it.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Steer {
    pub merge_owed: Option<Oid>,
    pub resume_from: Option<Oid>,
    pub continues: Option<AttemptId>,
    pub avoid: Option<AgentName>,
    pub hint: Option<String>,
    /// Forget branch tip, notes and evidence: the old tip stays in salvage.
    pub is_fresh: bool,
}

/// A decision about one live attempt.
#[derive(Debug, Clone, PartialEq)]
pub enum AttemptChange {
    Added {
        attempt: Box<Attempt>,
    },
    Prepared {
        base: Option<Oid>,
        tip: Option<Oid>,
    },
    /// Its prompt was made of a prompt file of the project with that hash.
    Briefed {
        prompt: String,
    },
    /// It is started by the preset file with that hash, and takes up that session again.
    Ordered {
        preset: String,
        session: Option<String>,
    },
    Started {
        at: Time,
    },
    StopRequested,
    Exited {
        exit: Option<Box<Exit>>,
        verdict: Outcome,
    },
    Saved {
        commit: Option<Oid>,
    },
    /// The verdict changed after a look at what it left.
    Judged {
        verdict: Outcome,
    },
    Checking,
    Advancing,
    Stalled {
        tries: Tries,
    },
    Ended {
        outcome: Outcome,
        has_fresh_slot: bool,
    },
    /// What changed outside of the worktrees while it ran; it may be over. `task`: its own.
    FoundOutside {
        task: Option<TaskId>,
        found: Outside,
    },
}

/// A decision about the landing lane and the base.
#[derive(Debug, Clone, PartialEq)]
pub enum LaneChange {
    /// `landed`: where the landing branch stands; `None`: nowhere, which is mended by taking the
    /// base in anew.
    BaseSeen {
        tip: Oid,
        landed: Option<Oid>,
        at: Time,
    },
    BaseTaken {
        base: Oid,
        landed: Oid,
    },
    BaseConflicted {
        paths: String,
    },
    TakeStalled {
        tries: Tries,
    },
    BaseCheckBegun {
        id: AttemptId,
    },
    BaseCheckStalled {
        tries: Tries,
    },
    BaseFoundGreen {
        commit: Oid,
    },
    BaseFoundRed {
        commit: Oid,
        tail: String,
    },
    LandingSet {
        landing: Option<Landing>,
    },
    /// The landing branch holds the task's work at `commit`.
    Landed {
        id: TaskId,
        commit: Oid,
        is_verified: bool,
    },
    FollowSet {
        follow: Option<Follow>,
        why: Option<String>,
        behind: u64,
    },
    BaseFollowed {
        to: Oid,
    },
    /// The landing branch is to be reset to the base.
    DropSet {
        dropping: Option<Dropping>,
    },
    /// The landing branch was reset to `to`.
    PilotDropped {
        to: Oid,
    },
}
