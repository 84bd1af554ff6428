//! What the monitor does next, when nothing new has happened: timers, gates, landings, checks,
//! assignments.
//!
//! The loop repeats the turn until it decides nothing more. Each kind of work is bounded by
//! [`TURN_ITEMS_MAX`] a turn.

use std::collections::{BTreeSet, VecDeque};

use super::agent::{BASE_AGENT, LANDING_AGENT};
use super::apply::{LAUNCH_WINDOW_MS, short_of};
use super::attempt::{Attempt, AttemptKind, AttemptPhase, Class, Tries};
use super::breaker::Breaker;
use super::change::{AttemptChange, Change, LaneChange, ProjectChange, TaskChange};
use super::event::StopKind;
use super::id::{AgentName, AttemptId, Oid, StageName, TaskId};
use super::landing;
use super::lane::{Dropping, Follow, Landing, LandingPhase};
use super::mode::{Isolation, Rollout};
use super::outside::Outside;
use super::proposal::{self, Choice};
use super::provider;
use super::purse::{self, attempts_left};
use super::resume;
use super::rollout;
use super::scale;
use super::schedule::demand::Demand;
use super::schedule::load::Obstacle;
use super::schedule::pool::may_take;
use super::schedule::{self, Assignment};
use super::settings::{AgentCommand, AgentGroup};
use super::stage;
use super::state::State;
use super::step::{attempt, lane, project, task};
use super::task::{Block, Task, TaskKind, TaskPhase};
use super::time::Time;
use super::weigh;

/// Attempts of presets started per second, unless configured.
const PRESET_LAUNCH_RATE: u32 = 10;

/// Most items of one kind handled in one turn.
pub const TURN_ITEMS_MAX: usize = 1024;

/// Decides what comes next; `nonces` bounds the attempts added.
pub(super) fn decide(state: &State, at: Time, nonces: &[u128]) -> Vec<Change> {
    let fallen = rollout::fall_back(state, at);
    if !fallen.is_empty() {
        // It ends a step of the base and a landing, which a pause that is over would bring back.
        return fallen;
    }
    let mut changes = Vec::new();
    drain(state, at, &mut changes);
    wake(state, at, &mut changes);
    changes.extend(sort(state, at));
    changes.extend(overdrawn(state, at));
    changes.extend(purse::tell(state));
    if state.stopping == Some(StopKind::Now) {
        let running = state.attempts.values().filter(|attempt| !attempt.is_stopping);
        changes.extend(running.map(|a| attempt(&a.id, AttemptChange::StopRequested)));
    }
    if !changes.is_empty() {
        // What follows reads the state, so it waits for these to be applied.
        return changes;
    }
    announce(state, &mut changes);
    follow(state, &mut changes);
    landing::settle(state, at, &mut changes);
    if state.stopping.is_none() {
        begin_landing(state, at, &mut changes);
    }
    let mut nonces = nonces.iter().copied();
    add_checks(state, at, &mut nonces, &mut changes);
    if changes.is_empty() && may_launch(state) {
        if has_open_work(state) && weigh::is_due(state, at) {
            return vec![project(ProjectChange::Weighed { at })];
        }
        assign(state, at, &mut nonces, &mut changes);
    }
    if changes.is_empty() {
        let room = if may_launch(state) { room(state, at) } else { 0 };
        changes = scale::decide(state, at, room);
    }
    changes
}

fn drain(state: &State, at: Time, changes: &mut Vec<Change>) {
    let Some(drain) = state.drain else { return };
    if !state.has_work() {
        changes.push(project(ProjectChange::ModeSwitched { to: drain.to }));
    } else if at >= drain.until {
        changes.push(project(ProjectChange::DrainSet { drain: None }));
    }
}

/// Ends the pauses that are over.
fn wake(state: &State, at: Time, changes: &mut Vec<Change>) {
    let due = state.index.backoff.iter().take_while(|(until, _)| *until <= at);
    for (_, id) in due.take(TURN_ITEMS_MAX) {
        changes.push(task(id, TaskChange::BackedOff { until: None }));
    }
    let cooled = state.index.cooling.iter().take_while(|(until, _)| *until <= at);
    for (_, name) in cooled.take(TURN_ITEMS_MAX) {
        let breaker = Breaker { until: None, ..state.agents[name].breaker.clone() };
        let (name, breaker) = (name.clone(), Box::new(breaker));
        changes.push(project(ProjectChange::BreakerSet { name, breaker }));
    }
    for (name, pause) in &state.pauses {
        if let Some(pause) = provider::by_time(state, pause, at) {
            let pause = Some(Box::new(pause));
            changes.push(project(ProjectChange::ProviderSet { name: name.clone(), pause }));
        }
    }
    let woken = |tries: &Tries| {
        let is_due = tries.until.is_some_and(|until| until <= at);
        is_due.then(|| Tries { until: None, ..tries.clone() })
    };
    for stalled in state.attempts.values() {
        if let Some(tries) = woken(&stalled.tries) {
            changes.push(attempt(&stalled.id, AttemptChange::Stalled { tries }));
        }
    }
    changes.extend(wake_lane(state, woken));
    if let Some(follow) = &state.base.follow
        && let Some(tries) = woken(&follow.tries)
    {
        let follow = Some(Follow { tries, ..follow.clone() });
        let (why, behind) = (state.base.why.clone(), state.base.behind);
        changes.push(lane(LaneChange::FollowSet { follow, why, behind }));
    }
}

/// Ends the pauses of the lane of which `woken` makes something.
fn wake_lane(state: &State, woken: impl Fn(&Tries) -> Option<Tries>) -> Vec<Change> {
    let mut changes = Vec::new();
    if let Some(landing) = &state.landing
        && let Some(tries) = woken(&landing.tries)
    {
        let landing = Some(Landing { tries, ..landing.clone() });
        changes.push(lane(LaneChange::LandingSet { landing }));
    }
    if let Some(tries) = woken(&state.base.take_tries) {
        changes.push(lane(LaneChange::TakeStalled { tries }));
    }
    if let Some(tries) = woken(&state.base.check_tries) {
        changes.push(lane(LaneChange::BaseCheckStalled { tries }));
    }
    if let Some(dropping) = &state.base.dropping
        && let Some(tries) = woken(&dropping.tries)
    {
        let dropping = Some(Dropping { tries, ..dropping.clone() });
        changes.push(lane(LaneChange::DropSet { dropping }));
    }
    changes
}

/// Has what is stuck in the lane tried at once: who starts a monitor may have made way for it. The
/// failures count on, so that it is stuck again when that fails too.
pub(super) fn retry_stuck_lane(state: &State) -> Vec<Change> {
    let bound = state.settings.limits.infrastructure_retries;
    wake_lane(state, |tries| tries.is_stuck(bound).then(|| Tries { until: None, ..tries.clone() }))
}

/// Moves tasks to where their dependencies now allow them to be.
pub(super) fn sort(state: &State, at: Time) -> Vec<Change> {
    let mut changes = Vec::new();
    let is_dead = |id: &TaskId| state.tasks.get(id).is_none_or(Task::is_dead_end);
    let is_held_up = |task: &Task| matches!(&task.phase, TaskPhase::Blocked(block) if block.class == Class::Dependency);
    let freed = spread(state, &state.index.freed, |task, freed| {
        is_held_up(task)
            && !task.spec.depends_on.iter().any(|dep| is_dead(dep) && !freed.contains(dep))
    });
    for id in &freed {
        let freed = &state.tasks[id];
        let over = |stage| stage::pass_over(&state.settings, freed, stage, 0, at);
        if let Some(moved) = freed.stage().and_then(over) {
            changes.extend(moved);
            continue;
        }
        let stage = freed.stage().cloned();
        let to = stage.map_or(TaskPhase::Waiting, |stage| TaskPhase::Ready { stage });
        changes.push(task(id, TaskChange::Moved { to, at }));
    }
    let doomed = spread(state, &state.index.doomed, |task, _| {
        matches!(task.phase, TaskPhase::Waiting | TaskPhase::Ready { .. })
    });
    for id in &doomed {
        let deps = state.tasks[id].spec.depends_on.iter();
        let dead = deps.filter(|dep| is_dead(dep) || doomed.contains(*dep));
        let names: Vec<&str> = dead.map(TaskId::as_str).collect();
        let reason = format!("depends on {}", names.join(", "));
        let stage = state.tasks[id].stage().cloned();
        let block = Block { stage, is_landing: false, class: Class::Dependency, reason, since: at };
        changes.push(task(id, TaskChange::Moved { to: TaskPhase::Blocked(block), at }));
    }
    for id in state.index.startable.iter().take(TURN_ITEMS_MAX) {
        let first = stage::first(&state.settings, &state.tasks[id]);
        let to = match first {
            Some(stage) => TaskPhase::Ready { stage },
            None => TaskPhase::Blocked(Block {
                stage: None,
                is_landing: false,
                class: Class::Blocked,
                reason: "passes through no stage of the present settings".into(),
                since: at,
            }),
        };
        changes.push(task(id, TaskChange::Moved { to, at }));
    }
    changes
}

/// Hands tasks that have used up what they may cost to a person.
fn overdrawn(state: &State, at: Time) -> impl Iterator<Item = Change> {
    state.index.overdrawn.iter().take(TURN_ITEMS_MAX).map(move |id| {
        let found = &state.tasks[id];
        let to = TaskPhase::Blocked(Block {
            stage: found.stage().cloned(),
            is_landing: false,
            class: Class::Budget,
            reason: purse::overdrawn_words(&state.settings.limits, found),
            since: at,
        });
        task(id, TaskChange::Moved { to, at })
    })
}

/// Returns `first` with the dependents that follow it, and theirs: a long chain takes one turn, not
/// one for each of its tasks. Bounded by [`TURN_ITEMS_MAX`].
fn spread(
    state: &State,
    first: &BTreeSet<TaskId>,
    follows: impl Fn(&Task, &BTreeSet<TaskId>) -> bool,
) -> BTreeSet<TaskId> {
    let mut found = BTreeSet::new();
    let mut todo: VecDeque<&TaskId> = first.iter().take(TURN_ITEMS_MAX).collect();
    while let Some(id) = todo.pop_front().filter(|_| found.len() < TURN_ITEMS_MAX) {
        if !found.insert(id.clone()) {
            continue;
        }
        let dependents = state.index.links(id).into_iter().flat_map(|links| &links.dependents);
        todo.extend(dependents.filter(|id| {
            let task = &state.tasks[*id];
            task.spec.kind == TaskKind::Task && follows(task, &found)
        }));
    }
    found
}

/// Says what shadow mode would start.
fn announce(state: &State, changes: &mut Vec<Change>) {
    for id in state.index.announceable.iter().take(TURN_ITEMS_MAX) {
        let task = &state.tasks[id];
        let spec = &task.spec;
        let begun = task.stage().filter(|_| matches!(task.phase, TaskPhase::Ready { .. }));
        let stage = begun.cloned().or_else(|| stage::first(&state.settings, task));
        let Some(stage) = stage else { continue };
        let agents = state.agents.values();
        let mut able = agents.filter(|a| schedule::can_serve(state, a, &stage, &spec.needs));
        let there = able.next().map(|agent| agent.name.clone());
        let comes = || scale::next_name(state, &stage, &spec.needs).map(AgentName::new);
        let agent = there.or_else(comes);
        changes.push(project(ProjectChange::WouldStart { id: id.clone(), stage, agent }));
    }
}

/// In production the base follows what has landed, once the landing branch holds the base. A pause
/// after a refusal ends when more has landed; a try under way is waited for.
fn follow(state: &State, changes: &mut Vec<Change>) {
    let base = &state.base;
    let is_outdated =
        |follow: &Follow| follow.tries.until.is_some() && Some(&follow.to) != base.landed.as_ref();
    let is_due = state.rollout == Rollout::Production
        && base.dropping.is_none()
        && base.follow.as_ref().is_none_or(is_outdated)
        && base.landed != base.tip
        && base.is_taken();
    if let (true, Some(to)) = (is_due, base.landed.clone()) {
        let follow = Some(Follow { to, tries: Tries::default(), is_passing: true });
        let (why, behind) = (None, base.behind);
        changes.push(lane(LaneChange::FollowSet { follow, why, behind }));
    }
}

fn begin_landing(state: &State, at: Time, changes: &mut Vec<Change>) {
    let is_free = state.landing.is_none() && state.base.dropping.is_none();
    let is_open = is_free && state.base.is_taken() && !landing::is_shut(state);
    let Some(id) = state.index.lane.values().next().filter(|_| is_open) else { return };
    // The check of a landing that was given up may still run, in the same worktree.
    let is_check = |attempt: &Attempt| matches!(attempt.kind, AttemptKind::LandingCheck { .. });
    if state.attempts.values().any(is_check) {
        return;
    }
    let number = state.tasks[id].numbers.get("landing").copied().unwrap_or(0) + 1;
    let landing = Landing {
        task: id.clone(),
        number,
        begun_at: at,
        phase: LandingPhase::Merging,
        tries: Tries::default(),
    };
    changes.push(lane(LaneChange::LandingSet { landing: Some(landing) }));
}

/// Adds the check attempts that are owed: of stages and of the base. The landing's is added when
/// its commit is made.
fn add_checks(
    state: &State,
    at: Time,
    nonces: &mut impl Iterator<Item = u128>,
    changes: &mut Vec<Change>,
) {
    for parent in state.attempts.values() {
        let is_owed = parent.phase == AttemptPhase::Checking && parent.tries.until.is_none();
        let of =
            |a: &Attempt| matches!(&a.kind, AttemptKind::StageCheck { of, .. } if *of == parent.id);
        if !is_owed || state.attempts.values().any(of) {
            continue;
        }
        let (Some(stage), Some(id)) = (parent.stage().cloned(), parent.task.clone()) else {
            continue;
        };
        let Some(nonce) = nonces.next() else { return };
        let short = format!("{}-check", short_of(&state.settings, &stage));
        let kind = AttemptKind::StageCheck { stage, of: parent.id.clone() };
        let mut check = new_attempt(state, at, &parent.agent, nonce, kind);
        check.id = numbered(state, &id, &short);
        check.task = Some(id);
        check.slot = parent.slot;
        check.settings.clone_from(&parent.settings);
        check.phase = AttemptPhase::Starting;
        changes.push(added(check));
    }
    let base = &state.base;
    let Some(commit) = base_check_due(state) else { return };
    let Some(nonce) = nonces.next() else { return };
    let kind = AttemptKind::BaseCheck { commit: commit.clone() };
    let mut check = new_attempt(state, at, &AgentName::new(BASE_AGENT), nonce, kind);
    check.id = AttemptId::new(format!("base.check.{}", base.checks + 1));
    let id = check.id.clone();
    changes.push(added(check));
    changes.push(lane(LaneChange::BaseCheckBegun { id }));
}

/// Returns true when landing checks or setup exist, so that the base can be judged.
#[must_use]
pub fn has_base_checks(state: &State) -> bool {
    let settings = &state.settings;
    settings.project.isolation == Isolation::Worktree
        && !(settings.landing.checks.is_empty() && settings.worktree.setup.is_empty())
}

/// Returns the commit to be judged now: what a disputed landing was merged onto, else the base's
/// newest, when there is work for it; not on what has landed red, where nothing starts anyway.
pub(super) fn base_check_due(state: &State) -> Option<&Oid> {
    let base = &state.base;
    let may_run = has_base_checks(state)
        && state.rollout != Rollout::Shadow
        && !state.monitor.allows_red_base
        && state.stopping.is_none()
        && state.shortage.is_none()
        && base.checking.is_none()
        && base.dropping.is_none()
        && base.check_tries.until.is_none()
        && base.is_taken();
    let is_unknown = |commit: &Oid| !base.green.contains(commit) && !base.is_red_at(commit);
    let disputed = landing::disputed(state).map(|disputed| disputed.onto);
    let is_quiet = state.is_paused || state.overload.is_some();
    // One red commit is remembered: the other would open the lane again, onto what is red.
    let is_landed_red = base.landed.as_ref().is_some_and(|landed| base.is_red_at(landed));
    let is_wanted = !is_quiet && !is_landed_red && has_open_work(state);
    let newest = base.tip.as_ref().filter(|_| is_wanted);
    disputed.or(newest).filter(|commit| may_run && is_unknown(commit))
}

/// Returns true when a task may start, or soon may.
pub(super) fn has_open_work(state: &State) -> bool {
    state.index.counts.ready > 0 || !state.index.startable.is_empty()
}

/// Returns true when the base lets new attempts start.
#[must_use]
pub fn is_base_good(state: &State) -> bool {
    if state.settings.project.isolation == Isolation::None {
        return true;
    }
    let base = &state.base;
    let is_ready = base.landed.is_some() && base.tip.is_some();
    // A base that followed a verified landing is green without a check of its own.
    let is_landed_red = base.landed.as_ref().is_some_and(|landed| base.is_red_at(landed));
    let is_red = is_landed_red || (base.red.is_some() && !base.is_known_green());
    // While the base conflicts it is not judged; the rest goes on from what has landed.
    let is_judged = (!base.green.is_empty() || base.conflict.is_some()) && !is_red;
    is_ready && (!has_base_checks(state) || state.monitor.allows_red_base || is_judged)
}

pub(super) fn may_launch(state: &State) -> bool {
    state.stopping.is_none()
        && !state.is_paused
        && state.drain.is_none()
        && state.base.dropping.is_none()
        && state.shortage.is_none()
        && is_base_good(state)
        && state.overload.is_none()
}

/// Returns how many attempts may start in the present second; `None`: as many as there are.
///
/// Without a configured rate there is no limit where every agent is a command; presets, whose
/// programs load much at their start and share an account, have one.
#[must_use]
pub fn launch_room(state: &State, at: Time) -> Option<u32> {
    let is_preset = |group: &AgentGroup| matches!(group.command, AgentCommand::Preset { .. });
    let has_presets = state.settings.agents.iter().any(is_preset);
    let default = if has_presets { PRESET_LAUNCH_RATE } else { 0 };
    let rate = state.settings.monitor.launch_rate.unwrap_or(default);
    if rate == 0 {
        return None;
    }
    let is_new_window = at.ms_since(state.monitor.launch_window) >= LAUNCH_WINDOW_MS;
    let used = if is_new_window { 0 } else { state.monitor.launches };
    Some(rate.saturating_sub(used))
}

/// Returns when the launch rate lets the next attempt start; `None` when it is not the rate that
/// holds one up.
pub(super) fn rate_deadline(state: &State) -> Option<Time> {
    let window = state.monitor.launch_window;
    let is_full = launch_room(state, window) == Some(0);
    // A second that is over would hide all other moments while somebody else has the word.
    let is_free = may_launch(state) && !proposal::is_awaited(state);
    if !is_full || !is_free || attempts_left(state) == 0 {
        return None;
    }
    let is_due =
        !schedule::pick(state, 1).assignments.is_empty() || !scale::growth(state, 1).is_empty();
    is_due.then(|| window.plus_ms(LAUNCH_WINDOW_MS))
}

/// Returns true when an agent that cools down, or waits for a limit to end, may take up work afterwards that waits for it.
pub(super) fn is_cooling_down(state: &State) -> bool {
    if !may_launch(state) || attempts_left(state) == 0 {
        return false;
    }
    if state.limit_deadline().is_some() && provider::is_awaited(state) {
        return true;
    }
    if state.index.cooling.is_empty() {
        return false;
    }
    let mut demands = state
        .index
        .ready
        .iter()
        .flat_map(|(stage, queues)| queues.demands().map(move |(demand, _)| (stage, demand)));
    demands.any(|(stage, demand)| {
        let agents = state.index.cooling.iter().map(|(_, name)| &state.agents[name]);
        let mut able = agents.filter(|agent| state.may_work(agent));
        able.any(|agent| may_take(state, agent, stage, demand))
            && Obstacle::beyond(&state.settings, demand).is_none()
    })
}

/// Returns true when the external scheduler holds back what may start: for a while only.
pub(super) fn is_declined(state: &State) -> bool {
    proposal::deadline(state).is_some()
        && may_launch(state)
        && attempts_left(state) > 0
        && !schedule::pick(state, 1).assignments.is_empty()
}

/// Returns how many attempts may start now, as far as numbers limit them.
fn room(state: &State, at: Time) -> usize {
    attempts_left(state).min(launch_room(state, at).unwrap_or(u32::MAX)) as usize
}

fn assign(
    state: &State,
    at: Time,
    nonces: &mut impl ExactSizeIterator<Item = u128>,
    changes: &mut Vec<Change>,
) {
    let room = room(state, at);
    let assignments = match proposal::choose(state, at, room, nonces.len()) {
        Choice::Made(assignments, beside) => {
            changes.extend(beside);
            assignments
        }
        Choice::BuiltIn(beside) => {
            let picked = schedule::pick(state, room.min(TURN_ITEMS_MAX));
            changes.extend(beside);
            if let Some(id) = picked.current {
                changes.push(project(ProjectChange::CurrentTaskSet { id }));
            }
            if let Some(id) = picked.collecting {
                changes.push(project(ProjectChange::CollectingSet { id }));
            }
            picked.assignments
        }
    };
    for assignment in assignments {
        let Some(nonce) = nonces.next() else { return };
        let Assignment { task: id, stage, agent } = assignment;
        let short = short_of(&state.settings, &stage);
        let kind = AttemptKind::Work { stage: stage.clone() };
        let mut new = new_attempt(state, at, &agent, nonce, kind);
        new.id = numbered(state, &id, &short);
        new.task = Some(id.clone());
        new.continues = resume::continued(&state.tasks[&id], &stage).map(|old| old.id.clone());
        if let Some(agent) = state.agents.get(&agent).filter(|_| new.continues.is_some()) {
            new.slot = resume::slot(&state.tasks[&id], agent);
        }
        new.demand = Demand::of(&state.settings, &state.tasks[&id], &stage).begun();
        new.merge.clone_from(&state.tasks[&id].merge_owed);
        let to = TaskPhase::Working { stage, attempt: new.id.clone() };
        changes.push(task(&id, TaskChange::Moved { to, at }));
        changes.push(added(new));
    }
}

fn added(new: Attempt) -> Change {
    Change::Attempt(new.id.clone(), AttemptChange::Added { attempt: Box::new(new) })
}

/// Returns the next id of the form `<task>.<short>.<n>`.
pub(super) fn numbered(state: &State, id: &TaskId, short: &str) -> AttemptId {
    let number = state.tasks[id].numbers.get(short).copied().unwrap_or(0) + 1;
    AttemptId::new(format!("{id}.{short}.{number}"))
}

/// Makes an attempt to be filled in: without id and task.
pub(super) fn new_attempt(
    state: &State,
    at: Time,
    agent: &AgentName,
    nonce: u128,
    kind: AttemptKind,
) -> Attempt {
    let is_bare = state.settings.project.isolation == Isolation::None;
    Attempt {
        id: AttemptId::new(""),
        kind,
        task: None,
        agent: agent.clone(),
        nonce: format!("{nonce:032x}"),
        slot: state.agents.get(agent).map_or(0, |agent| agent.slot),
        settings: state.settings.hash.clone(),
        prompt: None,
        preset: None,
        continues: None,
        session: None,
        outside: Outside::default(),
        demand: Demand::default(),
        phase: if is_bare { AttemptPhase::Starting } else { AttemptPhase::Preparing },
        assigned_at: at,
        started_at: None,
        base: None,
        merge: None,
        exit: None,
        saved: None,
        verdict: None,
        is_stopping: false,
        tries: Tries::default(),
        outcome: None,
    }
}

/// Makes the check of a landing's commit.
pub(super) fn landing_check(
    state: &State,
    at: Time,
    id: &TaskId,
    kind: AttemptKind,
    nonce: u128,
) -> Attempt {
    let mut check = new_attempt(state, at, &AgentName::new(LANDING_AGENT), nonce, kind);
    check.id = numbered(state, id, "land");
    check.task = Some(id.clone());
    check
}

/// Returns the stages that no agent serves or will serve, in pipeline order.
#[must_use]
pub fn unserved_stages(state: &State) -> Vec<StageName> {
    let served = |name: &StageName| {
        let mut there = state.agents.values().filter(|agent| !agent.is_retired);
        there.any(|agent| agent.stages.contains(name)) || scale::may_bring(state, name, &[], 0)
    };
    state.settings.stages.iter().map(|stage| stage.id()).filter(|name| !served(name)).collect()
}
