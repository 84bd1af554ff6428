//! What an external scheduler (`scheduler.command`) proposes, and when it is asked.
//!
//! It is asked whenever the built-in scheduler would start something, and nothing starts while its
//! answer is awaited. What it proposes is examined as the own choice is (`schedule::proposed`). Where
//! it gives no answer that can be carried out, the built-in scheduler decides. In sequential mode it
//! is not asked: there the task comes first, and its agent follows from that.

use super::change::{AttemptChange, Change, ProjectChange, TaskChange};
use super::effect::Effect;
use super::id::{AgentName, TaskId};
use super::mode::Orchestration;
use super::schedule::proposed::{self, Examined};
use super::schedule::{self, Assignment};
use super::state::State;
use super::step::{Step, project};
use super::time::Time;

/// Most pairs of an answer that are looked at.
pub const PAIRS_MAX: usize = 4096;
/// How long it may propose nothing though something could start: half of what counts as a stall.
const DECLINED_MS_MAX: u64 = 30_000;
/// The pause after a first fault. It doubles with each one in a row, so that a command which is
/// broken costs nothing to speak of.
const PAUSE_MS_FIRST: u64 = 1_000;
/// The longest pause: what was mended is found out within a minute.
const PAUSE_MS_MAX: u64 = 60_000;
/// Most refused pairs of an answer that are named one by one.
const NAMED_MAX: usize = 8;

/// A task for an agent.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pair {
    pub task: TaskId,
    pub agent: AgentName,
}

/// How the external scheduler stands. The default is that of one never asked.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Proposal {
    /// Of the last question, counted from 1.
    pub number: u64,
    pub phase: ProposalPhase,
    /// Since when it proposes nothing though something could start.
    pub declined_since: Option<Time>,
    /// Faults in a row.
    pub faults: u32,
    /// Faults that were told since it last did well.
    pub told: Vec<ProposalFault>,
    /// It is not asked before this moment.
    pub until: Option<Time>,
}

/// What it is about.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub enum ProposalPhase {
    /// Nothing: it may be asked.
    #[default]
    Rest,
    /// An answer is awaited.
    Asked,
    /// It answered at this moment; what of that is still to be examined.
    Answered { at: Time, pairs: Vec<Pair>, has_taken: bool },
    /// It proposed nothing, and nothing that counts has changed since.
    Declined,
}

/// What is wrong with an answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum ProposalFault {
    /// None within the time limit.
    Late,
    /// It did not start, or ended with a failure.
    Failed,
    /// It is not of the form that is documented.
    Unreadable,
    /// Nothing of it can be carried out.
    Invalid,
    /// It proposed nothing for too long.
    Declined,
}

/// What a turn does about assignments.
pub(super) enum Choice {
    /// These are made, beside the changes.
    Made(Vec<Assignment>, Vec<Change>),
    /// The built-in scheduler decides, beside the changes.
    BuiltIn(Vec<Change>),
}

/// Returns true when the external scheduler is to be asked at all.
#[must_use]
pub fn is_in_use(state: &State) -> bool {
    let is_asked_for = match state.orchestration {
        Orchestration::Parallel | Orchestration::Hybrid => true,
        Orchestration::Sequential => false,
    };
    is_asked_for && !state.settings.scheduler.command.is_empty()
}

/// Returns true when what is ready waits for the external scheduler.
#[must_use]
pub fn is_awaited(state: &State) -> bool {
    is_in_use(state)
        && match state.proposal.phase {
            ProposalPhase::Asked | ProposalPhase::Declined => true,
            ProposalPhase::Rest | ProposalPhase::Answered { .. } => false,
        }
}

/// Returns what is owed for it.
pub(super) fn effect(proposal: &Proposal) -> Option<Effect> {
    let number = proposal.number;
    (proposal.phase == ProposalPhase::Asked).then_some(Effect::Propose { number })
}

/// Returns when the built-in scheduler takes over from one that proposes nothing.
pub(super) fn deadline(state: &State) -> Option<Time> {
    let is_declined = state.proposal.phase == ProposalPhase::Declined && is_in_use(state);
    let since = state.proposal.declined_since.filter(|_| is_declined)?;
    Some(since.plus_ms(DECLINED_MS_MAX))
}

/// Decides what a turn does; at most `room` assignments, of which `now` in this turn.
pub(super) fn choose(state: &State, at: Time, room: usize, now: usize) -> Choice {
    let proposal = &state.proposal;
    if !is_in_use(state) || proposal.until.is_some_and(|until| at < until) {
        return Choice::BuiltIn(Vec::new());
    }
    if now == 0 {
        return Choice::Made(Vec::new(), Vec::new());
    }
    match &proposal.phase {
        ProposalPhase::Asked => Choice::Made(Vec::new(), Vec::new()),
        ProposalPhase::Answered { at: answered_at, pairs, has_taken } if *answered_at == at => {
            take(state, at, &Taking { pairs, has_taken: *has_taken, room, now })
        }
        // What it was about is past.
        ProposalPhase::Rest | ProposalPhase::Answered { .. } | ProposalPhase::Declined => {
            ask(state, at, room)
        }
    }
}

/// Asks, where something could start.
fn ask(state: &State, at: Time, room: usize) -> Choice {
    let proposal = &state.proposal;
    if schedule::pick(state, room.min(1)).assignments.is_empty() {
        // The time in which it could have proposed something begins anew.
        let is_over = proposal.declined_since.is_some();
        let rest =
            Proposal { phase: ProposalPhase::Rest, declined_since: None, ..proposal.clone() };
        let changes = if is_over { vec![set(rest)] } else { Vec::new() };
        return Choice::Made(Vec::new(), changes);
    }
    if proposal.phase != ProposalPhase::Declined {
        let number = proposal.number + 1;
        let asked = Proposal { number, phase: ProposalPhase::Asked, ..proposal.clone() };
        return Choice::Made(Vec::new(), vec![set(asked)]);
    }
    if deadline(state).is_some_and(|until| at < until) {
        return Choice::Made(Vec::new(), Vec::new());
    }
    let seconds = DECLINED_MS_MAX / 1000;
    let why = format!("it has proposed nothing for {seconds} s, though something could start");
    let mut rest =
        Proposal { phase: ProposalPhase::Rest, declined_since: None, ..proposal.clone() };
    let mut changes: Vec<Change> =
        tell(&mut rest, ProposalFault::Declined, why).into_iter().collect();
    changes.push(set(rest));
    Choice::BuiltIn(changes)
}

struct Taking<'a> {
    pairs: &'a [Pair],
    has_taken: bool,
    room: usize,
    now: usize,
}

/// Takes what can be carried out of an answer.
fn take(state: &State, at: Time, taking: &Taking<'_>) -> Choice {
    let Examined { picked, refused, examined } =
        proposed::examine(state, taking.pairs, taking.room.min(taking.now));
    let named = refused.iter().take(NAMED_MAX);
    let mut changes: Vec<Change> = named
        .map(|(pair, why)| {
            let Pair { task, agent } = pair.clone();
            project(ProjectChange::ProposalRefused { task, agent, why: why.clone() })
        })
        .collect();
    let has_taken = taking.has_taken || !picked.is_empty();
    let left = &taking.pairs[examined..];
    let mut proposal = state.proposal.clone();
    if !left.is_empty() && picked.len() < taking.room {
        let pairs = left.to_vec();
        proposal.phase = ProposalPhase::Answered { at, pairs, has_taken };
        changes.push(set(proposal));
    } else if has_taken {
        if refused.is_empty() {
            proposal.told.clear();
        }
        proposal = Proposal {
            phase: ProposalPhase::Rest,
            declined_since: None,
            faults: 0,
            until: None,
            ..proposal
        };
        changes.push(set(proposal));
    } else if refused.is_empty() {
        // Nothing may start any more, which is nobody's fault.
        changes.push(set(Proposal { phase: ProposalPhase::Rest, ..proposal }));
    } else {
        let why = match refused.len() {
            1 => "what it proposed cannot be carried out".to_owned(),
            count => format!("nothing of the {count} it proposed can be carried out"),
        };
        changes.extend(faulted(state, at, ProposalFault::Invalid, why));
    }
    Choice::Made(picked, changes)
}

/// Decides what an answer, or what kept it from coming, leads to; pairs are examined by the turn that
/// follows.
pub(super) fn answered(
    state: &State,
    at: Time,
    number: u64,
    answer: Result<&[Pair], (ProposalFault, &str)>,
) -> Step {
    if let Some(step) = past(state, number) {
        return step;
    }
    let old = &state.proposal;
    let pairs = match answer {
        Ok(pairs) => pairs,
        Err((fault, why)) => return Step::accept(faulted(state, at, fault, why.to_owned())),
    };
    let proposal = if pairs.is_empty() {
        let mut told = old.told.clone();
        told.retain(|fault| *fault == ProposalFault::Declined);
        let declined_since = Some(old.declined_since.unwrap_or(at));
        let phase = ProposalPhase::Declined;
        Proposal { phase, declined_since, faults: 0, told, until: None, ..old.clone() }
    } else {
        let pairs = pairs.iter().take(PAIRS_MAX).cloned().collect();
        let phase = ProposalPhase::Answered { at, pairs, has_taken: false };
        Proposal { phase, ..old.clone() }
    };
    Step::accept(vec![set(proposal)])
}

/// Returns what follows where nobody waits for an answer any more; `None`: somebody does.
fn past(state: &State, number: u64) -> Option<Step> {
    let proposal = &state.proposal;
    if proposal.phase != ProposalPhase::Asked || proposal.number != number {
        let why = format!("the external scheduler's answer {number} is to a question of before");
        return Some(Step::note(why));
    }
    let rest = || Proposal { phase: ProposalPhase::Rest, ..proposal.clone() };
    (!is_in_use(state)).then(|| Step::accept(vec![set(rest())]))
}

/// Lets the built-in scheduler decide for a while.
fn faulted(state: &State, at: Time, fault: ProposalFault, why: String) -> Vec<Change> {
    let old = &state.proposal;
    let pause_ms = (PAUSE_MS_FIRST << old.faults.min(16)).min(PAUSE_MS_MAX);
    let mut proposal = Proposal {
        phase: ProposalPhase::Rest,
        faults: old.faults.saturating_add(1),
        until: Some(at.plus_ms(pause_ms)),
        ..old.clone()
    };
    let told = tell(&mut proposal, fault, why);
    told.into_iter().chain([set(proposal)]).collect()
}

/// Returns what is to be told of a fault: nothing, when that was told since it last did well.
fn tell(proposal: &mut Proposal, fault: ProposalFault, why: String) -> Option<Change> {
    if proposal.told.contains(&fault) {
        return None;
    }
    proposal.told.push(fault);
    Some(project(ProjectChange::ProposalFaulted { fault, why }))
}

fn set(proposal: Proposal) -> Change {
    project(ProjectChange::ProposalSet { proposal: Box::new(proposal) })
}

/// Sets how it stands, and keeps its effect true.
pub(super) fn apply(state: &mut State, proposal: &Proposal) {
    if let Some(old) = effect(&state.proposal) {
        state.index.effects.remove(&old);
    }
    state.proposal = proposal.clone();
    state.index.effects.extend(effect(&state.proposal));
}

/// Heeds that something has changed. What counts for who starts what is worth another question, and
/// new settings are worth a new start; so is a new monitor: whoever was asked by the last one does
/// not answer this one, and something may have been mended.
pub(super) fn heed(state: &mut State, change: &Change) {
    if let Change::Project(ProjectChange::SettingsAdopted { .. }) = change {
        let proposal = &mut state.proposal;
        (proposal.faults, proposal.until) = (0, None);
        proposal.told.clear();
    }
    if let Change::Project(ProjectChange::MonitorStarted { .. }) = change {
        let number = state.proposal.number;
        apply(state, &Proposal { number, ..Proposal::default() });
    }
    if state.proposal.phase == ProposalPhase::Declined && counts(change) {
        state.proposal.phase = ProposalPhase::Rest;
    }
}

/// The same of a change of the project.
fn counts_in_project(change: &ProjectChange) -> bool {
    match change {
        ProjectChange::SettingsAdopted { .. }
        | ProjectChange::MonitorStarted { .. }
        | ProjectChange::PauseSet { .. }
        | ProjectChange::AgentPauseSet { .. }
        | ProjectChange::AgentUnusable { .. }
        | ProjectChange::AgentsScaled { .. }
        | ProjectChange::BreakerSet { .. }
        | ProjectChange::ProviderSet { .. }
        | ProjectChange::ProvidersSet { .. }
        | ProjectChange::ModeSwitched { .. }
        | ProjectChange::RolloutSet { .. }
        | ProjectChange::RolloutReasoned { .. }
        | ProjectChange::Compared { .. }
        | ProjectChange::ShortageSet { .. }
        | ProjectChange::OverloadSet { .. } => true,
        ProjectChange::MonitorEnded { .. }
        | ProjectChange::StopRequested { .. }
        | ProjectChange::DrainSet { .. }
        | ProjectChange::CurrentTaskSet { .. }
        | ProjectChange::CollectingSet { .. }
        | ProjectChange::FoundOutside { .. }
        | ProjectChange::BranchesHeld { .. }
        | ProjectChange::Weighed { .. }
        | ProjectChange::ProposalSet { .. }
        | ProjectChange::ProposalFaulted { .. }
        | ProjectChange::ProposalRefused { .. }
        | ProjectChange::BudgetTold { .. }
        | ProjectChange::WouldStart { .. } => false,
    }
}

/// Returns true when by the change something else may start than before.
fn counts(change: &Change) -> bool {
    match change {
        Change::Project(change) => counts_in_project(change),
        Change::Task(_, change) => match change {
            TaskChange::Added { .. }
            | TaskChange::Edited { .. }
            | TaskChange::HeldSet { .. }
            | TaskChange::Taken { .. }
            | TaskChange::Given { .. }
            | TaskChange::Moved { .. }
            | TaskChange::BackedOff { .. }
            | TaskChange::BranchChanged { .. } => true,
            TaskChange::Tallied { .. }
            | TaskChange::Noted { .. }
            | TaskChange::Evidenced { .. }
            | TaskChange::Steered { .. }
            | TaskChange::ApprovalAsked { .. }
            | TaskChange::Approved { .. }
            | TaskChange::Unserved { .. }
            | TaskChange::TipMoved { .. }
            | TaskChange::DoneByHand { .. }
            | TaskChange::Forecast { .. } => false,
        },
        Change::Attempt(_, change) => match change {
            AttemptChange::Ended { .. } => true,
            AttemptChange::Added { .. }
            | AttemptChange::Prepared { .. }
            | AttemptChange::Briefed { .. }
            | AttemptChange::Ordered { .. }
            | AttemptChange::Started { .. }
            | AttemptChange::StopRequested
            | AttemptChange::Exited { .. }
            | AttemptChange::Saved { .. }
            | AttemptChange::Judged { .. }
            | AttemptChange::Checking
            | AttemptChange::Advancing
            | AttemptChange::Stalled { .. }
            | AttemptChange::FoundOutside { .. } => false,
        },
        Change::Lane(_) => false,
    }
}
