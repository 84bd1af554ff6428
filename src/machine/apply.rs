//! The only writer of [`State`].

use std::sync::Arc;

use super::attempt::{Attempt, AttemptKind, AttemptPhase, Class, Outcome, Tries};
use super::change::{AttemptChange, Change, LaneChange, ProjectChange, Steer, TaskChange};
use super::complexity;
use super::crew;
use super::effect;
use super::estimate::{self, Subject};
use super::forecast;
use super::id::{AttemptId, Oid, StageName, TaskId};
use super::index;
use super::lane::{Base, GREEN_MAX, Landing, LandingPhase};
use super::outside::{self, Outside};
use super::proposal;
use super::provider;
use super::purse;
use super::rollout;
use super::schedule::demand::Demand;
use super::settings::Settings;
use super::state::{MonitorFacts, SAMPLES_MAX, State};
use super::task::{Clash, EVIDENCE_COUNT_MAX, Landed, Task, TaskPhase, Weight};
use super::time::Time;
use super::usage;
use super::weigh::Weighing;

/// Length of the window in which `launch_rate` counts, in milliseconds.
pub const LAUNCH_WINDOW_MS: u64 = 1000;

/// Carries out a decision. Never fails: what names something unknown changes nothing.
pub fn apply(state: &mut State, change: &Change) {
    rollout::count(state, change);
    match change {
        Change::Project(change) => apply_to_project(state, change),
        Change::Task(id, change) => apply_to_task(state, id, change),
        Change::Attempt(id, change) => apply_to_attempt(state, id, change),
        Change::Lane(change) => apply_to_lane(state, change),
    }
    proposal::heed(state, change);
}

fn apply_to_project(state: &mut State, change: &ProjectChange) {
    match change {
        ProjectChange::SettingsAdopted { settings, at } => adopt(state, settings, *at),
        ProjectChange::MonitorStarted { pid, allows_red_base, at } => {
            begin(state, *pid, *allows_red_base, *at);
        }
        ProjectChange::MonitorEnded { .. } => {
            state.stopping = None;
            state.run.is_open = false;
        }
        ProjectChange::StopRequested { kind } => state.stopping = Some(*kind),
        ProjectChange::PauseSet { is_paused } => state.is_paused = *is_paused,
        ProjectChange::AgentPauseSet { name, is_paused } => {
            let agent = match state.agents.get_mut(name) {
                None => state.dismissed.get_mut(name),
                there => there,
            };
            if let Some(agent) = agent {
                agent.is_paused = *is_paused;
            }
        }
        ProjectChange::AgentUnusable { name, why } => {
            if let Some(agent) = state.agents.get_mut(name) {
                agent.unusable.clone_from(why);
            }
        }
        ProjectChange::AgentsScaled { group, target, at, .. } => {
            crew::scale(state, group, *target, *at);
        }
        ProjectChange::BreakerSet { name, breaker } => index::set_breaker(state, name, breaker),
        ProjectChange::ProviderSet { name, pause: Some(pause) } => {
            state.pauses.insert(name.clone(), (**pause).clone());
        }
        ProjectChange::ProviderSet { name, pause: None } => {
            state.pauses.remove(name);
        }
        ProjectChange::ProvidersSet { of } => {
            state.providers.clone_from(of);
            provider::prune(state);
        }
        ProjectChange::ModeSwitched { to } => {
            state.orchestration = *to;
            state.drain = None;
            (state.current, state.collecting) = (None, None);
        }
        ProjectChange::DrainSet { drain } => state.drain = *drain,
        ProjectChange::RolloutSet { to } => rollout::apply(state, *to),
        ProjectChange::CurrentTaskSet { id } => state.current.clone_from(id),
        ProjectChange::CollectingSet { id } => state.collecting.clone_from(id),
        ProjectChange::ShortageSet { what } => state.shortage.clone_from(what),
        ProjectChange::OverloadSet { what } => state.overload.clone_from(what),
        ProjectChange::FoundOutside { found } => outside::apply_to_nobody(state, found),
        ProjectChange::BranchesHeld { held } => state.held.clone_from(held),
        ProjectChange::ProposalSet { proposal } => proposal::apply(state, proposal),
        ProjectChange::BudgetTold { bound, level, limit, .. } => {
            purse::remember(state, *bound, *level, *limit);
        }
        // Said for those who read the journal; what is of the rollout was counted before.
        ProjectChange::RolloutReasoned { .. }
        | ProjectChange::Compared { .. }
        | ProjectChange::ProposalFaulted { .. }
        | ProjectChange::ProposalRefused { .. } => {}
        ProjectChange::Weighed { at } => weigh(state, *at),
        ProjectChange::WouldStart { id, .. } => {
            index::update(state, id, false, |task| task.is_announced = true);
        }
    }
}

/// A monitor begins.
fn begin(state: &mut State, pid: u32, allows_red_base: bool, at: Time) {
    state.monitor =
        MonitorFacts { pid, started_at: at, allows_red_base, ..MonitorFacts::default() };
    purse::begin(state, at);
    state.outside = Outside::default();
    state.stopping = None;
    // What made the base red may be mended outside of it: it is judged anew.
    if state.base.red.take().is_some() {
        state.base.green.clear();
    }
}

fn weigh(state: &mut State, at: Time) {
    let weights = super::weigh::weights(state);
    for (id, weight) in weights {
        let Some(task) = state.tasks.get_mut(&id).filter(|task| task.weight != weight) else {
            continue;
        };
        if matches!(task.phase, TaskPhase::Ready { .. }) {
            index::update(state, &id, false, |task| task.weight = weight);
        } else {
            // It has no place among the ready ones.
            task.weight = weight;
        }
    }
    state.weighing = Weighing { at, ..Weighing::default() };
}

fn apply_to_task(state: &mut State, id: &TaskId, change: &TaskChange) {
    if let TaskChange::Added { task } = change {
        state.entries = state.entries.max(task.entry);
        let mut task = (**task).clone();
        let own_ms = estimate::left_ms(state, &task);
        task.weight = Weight { own_ms, tail_ms: own_ms };
        state.weighing.altered += 1;
        index::add(state, task);
        return;
    }
    if let TaskChange::Moved { .. } = change
        && state.collecting.as_ref() == Some(id)
    {
        state.collecting = None;
    }
    if let TaskChange::Moved { to: TaskPhase::Landing { entry }, .. } = change {
        state.entries = state.entries.max(*entry);
    }
    if let TaskChange::Moved { to: TaskPhase::Completed { .. }, .. } = change {
        forecast::hand_on(state, id);
    }
    if let TaskChange::Forecast { tried, .. } = change {
        for other in tried {
            let is_its = |clash: &Clash| clash.with.as_ref() == Some(id);
            index::update(state, other, false, |other| other.forecast.retain(|it| !is_its(it)));
        }
    }
    let is_relinking = matches!(change, TaskChange::Edited { .. });
    state.weighing.altered += u64::from(is_relinking);
    index::update(state, id, is_relinking, |task| alter_task(task, change));
}

fn alter_task(task: &mut Task, change: &TaskChange) {
    match change {
        TaskChange::Added { .. } => {}
        TaskChange::Edited { spec, is_front, at } => {
            task.spec = (**spec).clone();
            task.is_front = *is_front;
            task.updated_at = *at;
        }
        TaskChange::HeldSet { is_held } => task.is_held = *is_held,
        TaskChange::Moved { to, at } => move_task(task, to, *at),
        TaskChange::BackedOff { until } => task.backoff_until = *until,
        TaskChange::Tallied { tally } => task.tally = *tally,
        TaskChange::Noted { stage, text } => {
            task.notes.retain(|(of, _)| of != stage);
            task.notes.push((stage.clone(), text.clone()));
        }
        TaskChange::Evidenced { evidence } => {
            task.evidence.push(evidence.clone());
            let surplus = task.evidence.len().saturating_sub(EVIDENCE_COUNT_MAX);
            task.evidence.drain(..surplus);
        }
        TaskChange::Steered { steer } => steer_task(task, steer),
        TaskChange::ApprovalAsked { what } => task.approval = Some(what.clone()),
        TaskChange::Approved { tip } => {
            task.approval = None;
            task.approved.clone_from(tip);
        }
        TaskChange::Taken { taken } => {
            task.taken = Some(taken.clone());
            task.is_held = true;
        }
        TaskChange::Given { commit } => {
            task.taken = None;
            task.is_held = false;
            task.tip = Some(commit.clone());
        }
        TaskChange::DoneByHand { .. } => task.is_by_hand = true,
        TaskChange::Unserved { what } => task.unserved.clone_from(what),
        TaskChange::TipMoved { tip } => task.tip = Some(tip.clone()),
        TaskChange::BranchChanged { paths } => task.changed.clone_from(paths),
        TaskChange::Forecast { clashes, .. } => task.forecast.clone_from(clashes),
    }
}

fn move_task(task: &mut Task, to: &TaskPhase, at: Time) {
    super::phase::assert_task_move(&task.phase, to);
    if !matches!(to, TaskPhase::Landing { .. }) {
        // What was asked was of one landing: the next one may bring more along, and asks anew.
        task.approval = None;
    }
    task.phase = to.clone();
    task.updated_at = at;
    task.backoff_until = None;
    if task.is_final() {
        // Kept in the journal and in the refs; a finished task has no use for them.
        task.evidence.clear();
        task.notes.clear();
        task.hint = None;
        task.changed.clear();
        task.forecast.clear();
        if task.taken.take().is_some() {
            task.is_held = false;
        }
    } else {
        task.is_by_hand = false;
        task.landed = Landed::Elsewhere;
    }
}

fn steer_task(task: &mut Task, steer: &Steer) {
    task.merge_owed.clone_from(&steer.merge_owed);
    task.resume_from.clone_from(&steer.resume_from);
    task.continues.clone_from(&steer.continues);
    task.avoid.clone_from(&steer.avoid);
    task.hint.clone_from(&steer.hint);
    if steer.is_fresh {
        task.tip = None;
        task.notes.clear();
        task.evidence.clear();
        task.approval = None;
        task.approved = None;
        task.changed.clear();
        task.forecast.clear();
    }
}

fn apply_to_attempt(state: &mut State, id: &AttemptId, change: &AttemptChange) {
    match change {
        AttemptChange::Added { attempt } => return add_attempt(state, attempt),
        AttemptChange::Ended { outcome, has_fresh_slot } => {
            return end_attempt(state, id, outcome, *has_fresh_slot);
        }
        AttemptChange::Prepared { tip: Some(tip), .. } => {
            let task = state.attempts.get(id).and_then(|attempt| attempt.task.clone());
            if let Some(task) = task {
                index::update(state, &task, false, |task| task.tip = Some(tip.clone()));
            }
        }
        AttemptChange::Started { at } => note_handoff(state, id, *at),
        AttemptChange::Exited { exit: Some(exit), .. } => {
            purse::note(state, id, Some(exit));
            let metrics = &mut state.metrics;
            metrics.tokens = usage::sum(metrics.tokens, exit.usage.tokens());
            let cost = exit.usage.cost_usd_micros;
            metrics.cost_usd_micros = usage::sum(metrics.cost_usd_micros, cost);
        }
        AttemptChange::Exited { exit: None, verdict } => {
            // One that could not be ordered has most likely not run.
            if verdict.class == Class::Lost {
                purse::note(state, id, None);
            }
        }
        AttemptChange::FoundOutside { task, found } => {
            return outside::apply(state, id, task.as_ref(), found);
        }
        AttemptChange::Prepared { tip: None, .. }
        | AttemptChange::Briefed { .. }
        | AttemptChange::Ordered { .. }
        | AttemptChange::StopRequested
        | AttemptChange::Saved { .. }
        | AttemptChange::Judged { .. }
        | AttemptChange::Checking
        | AttemptChange::Advancing
        | AttemptChange::Stalled { .. } => {}
    }
    with_attempt(state, id, |attempt| alter_attempt(attempt, change));
}

fn alter_attempt(attempt: &mut Attempt, change: &AttemptChange) {
    match change {
        AttemptChange::Added { .. }
        | AttemptChange::Ended { .. }
        | AttemptChange::FoundOutside { .. } => {}
        AttemptChange::Prepared { base, .. } => {
            attempt.phase = AttemptPhase::Starting;
            attempt.base.clone_from(base);
            attempt.tries = Tries::default();
        }
        AttemptChange::Started { at } => {
            attempt.phase = AttemptPhase::Running;
            attempt.started_at = Some(*at);
            attempt.tries = Tries::default();
        }
        AttemptChange::Briefed { prompt } => attempt.prompt = Some(prompt.clone()),
        AttemptChange::Ordered { preset, session } => {
            attempt.preset = Some(preset.clone());
            attempt.session.clone_from(session);
        }
        AttemptChange::StopRequested => attempt.is_stopping = true,
        AttemptChange::Exited { exit, verdict } => {
            attempt.exit = exit.as_deref().cloned();
            if attempt.started_at.is_none() {
                attempt.started_at = exit.as_ref().map(|exit| exit.started_at);
            }
            attempt.verdict = Some(verdict.clone());
            attempt.phase = AttemptPhase::Saving;
            attempt.tries = Tries::default();
        }
        AttemptChange::Saved { commit } => {
            attempt.saved.clone_from(commit);
            attempt.tries = Tries::default();
        }
        AttemptChange::Judged { verdict } => attempt.verdict = Some(verdict.clone()),
        AttemptChange::Checking => attempt.phase = AttemptPhase::Checking,
        AttemptChange::Advancing => attempt.phase = AttemptPhase::Advancing,
        AttemptChange::Stalled { tries } => attempt.tries = tries.clone(),
    }
}

/// Changes a live attempt and keeps its effect true.
fn with_attempt(state: &mut State, id: &AttemptId, change: impl FnOnce(&mut Attempt)) {
    let Some(attempt) = state.attempts.get_mut(id) else { return };
    if let Some(old) = effect::of_attempt(attempt) {
        state.index.effects.remove(&old);
    }
    let before = attempt.phase;
    change(attempt);
    super::phase::assert_attempt_move(before, attempt.phase);
    if let Some(new) = effect::of_attempt(attempt) {
        state.index.effects.insert(new);
    }
}

fn add_attempt(state: &mut State, attempt: &Attempt) {
    let key = number_key(state, attempt);
    if let Some(task) = &attempt.task {
        index::update(state, task, false, |task| *task.numbers.entry(key).or_default() += 1);
    }
    if attempt.is_work() {
        if let Some(agent) = state.agents.get_mut(&attempt.agent) {
            agent.attempt = Some(attempt.id.clone());
            agent.last_task.clone_from(&attempt.task);
            agent.take_slot(attempt.slot);
        }
        provider::begin(state, attempt);
        state.metrics.attempts += 1;
        state.run.attempts += 1;
        let monitor = &mut state.monitor;
        monitor.attempts += 1;
        if attempt.assigned_at.ms_since(monitor.launch_window) >= LAUNCH_WINDOW_MS {
            monitor.launch_window = attempt.assigned_at;
            monitor.launches = 0;
        }
        monitor.launches += 1;
        state.metrics.retries += u64::from(is_retry(state, attempt));
    }
    state.attempts.insert(attempt.id.clone(), attempt.clone());
    if let Some(due) = effect::of_attempt(attempt) {
        state.index.effects.insert(due);
    }
}

/// Returns true when the task's stage was tried before; where its provider gave nothing then, the same
/// try is made again.
fn is_retry(state: &State, attempt: &Attempt) -> bool {
    let Some(task) = attempt.task.as_ref().map(|id| &state.tasks[id]) else { return false };
    let is_of_stage = |old: &&Attempt| old.is_work() && old.stage() == attempt.stage();
    let last = task.history.iter().rev().find(is_of_stage);
    let ended = last.and_then(|last| last.outcome.as_ref());
    ended.is_some_and(|ended| !ended.class.is_of_provider())
}

/// Returns the name under which a task counts this kind of attempt.
fn number_key(state: &State, attempt: &Attempt) -> String {
    match &attempt.kind {
        AttemptKind::Work { stage } => short_of(&state.settings, stage),
        AttemptKind::StageCheck { stage, .. } => {
            format!("{}-check", short_of(&state.settings, stage))
        }
        AttemptKind::LandingCheck { .. } | AttemptKind::BaseCheck { .. } => "land".into(),
    }
}

/// Returns a stage's short name; the long one when the settings no longer have it.
pub(super) fn short_of(settings: &Settings, stage: &StageName) -> String {
    let found = settings.stage(stage.as_str());
    found.map_or_else(|| stage.as_str().to_owned(), |(_, stage)| stage.short.clone())
}

fn note_handoff(state: &mut State, id: &AttemptId, at: Time) {
    let Some(attempt) = state.attempts.get(id).filter(|attempt| attempt.is_work()) else { return };
    let assigned = attempt.assigned_at;
    let samples = &mut state.metrics.handoff_ms;
    if samples.len() >= SAMPLES_MAX {
        samples.remove(0);
    }
    samples.push(at.ms_since(assigned));
}

fn end_attempt(state: &mut State, id: &AttemptId, outcome: &Outcome, has_fresh_slot: bool) {
    let Some(mut attempt) = state.attempts.remove(id) else { return };
    if let Some(old) = effect::of_attempt(&attempt) {
        state.index.effects.remove(&old);
    }
    attempt.outcome = Some(outcome.clone());
    attempt.demand = Demand::default();
    unpin(state);
    provider::end(state, id);
    if outcome.class.is_of_provider() && attempt.is_work() {
        state.run.attempts = state.run.attempts.saturating_sub(1);
    }
    if outcome.class == Class::Completed && attempt.is_work() {
        note_duration(state, &attempt, outcome.at);
        state.weighing.completed += 1;
    }
    let settings = Arc::clone(&state.settings);
    if let Some(agent) = state.agents.get_mut(&attempt.agent).filter(|_| attempt.is_work()) {
        agent.attempt = None;
        agent.idle_since = outcome.at;
        if has_fresh_slot {
            agent.give_up_slot(attempt.slot);
        } else if attempt.started_at.is_some() && settings.prefetch() > 0.0 {
            agent.turn_slots(attempt.slot);
        }
        agent.busy_ms += outcome.at.ms_since(attempt.assigned_at);
        if outcome.class == Class::Completed {
            agent.completed += 1;
        } else if !outcome.class.is_of_provider() {
            agent.failed += 1;
        }
        if agent.is_retired {
            crew::dismiss(state, std::slice::from_ref(&attempt.agent));
        }
    }
    if let Some(checking) = &state.base.checking
        && checking == id
    {
        state.base.checking = None;
    }
    if let Some(task) = attempt.task.clone() {
        index::update(state, &task, false, |task| task.history.push(attempt));
    }
}

fn note_duration(state: &mut State, attempt: &Attempt, at: Time) {
    let Some(stage) = attempt.stage() else { return };
    let took = at.ms_since(attempt.started_at.unwrap_or(attempt.assigned_at));
    let sum = state.metrics.stage_ms.entry(stage.as_str().to_owned()).or_default();
    sum.count += 1;
    sum.total_ms += took;
    if sum.samples_ms.len() >= SAMPLES_MAX {
        sum.samples_ms.remove(0);
    }
    sum.samples_ms.push(took);
    let task = attempt.task.as_ref().and_then(|id| state.tasks.get(id));
    let agent = state.agents.get(&attempt.agent);
    let subject = Subject {
        stage: stage.as_str(),
        group: agent.and_then(|agent| estimate::group_of(&state.settings, agent)),
        complexity: task.map(|task| complexity::of(&task.spec).word()),
    };
    estimate::learn(&mut state.metrics.learned, subject, took);
}

fn apply_to_lane(state: &mut State, change: &LaneChange) {
    let base = &mut state.base;
    match change {
        LaneChange::BaseSeen { tip, landed, at } => {
            if base.tip.as_ref() != Some(tip) {
                // Before the first launch the base itself is judged, not what it was when the last
                // monitor ran; once only, so that a base that moves all the time holds up nothing.
                if state.monitor.attempts == 0 && base.is_known_green() {
                    base.green.clear();
                }
                base.conflict = None;
                base.take_tries = Tries::default();
            }
            base.tip = Some(tip.clone());
            match landed {
                Some(_) => base.landed.clone_from(landed),
                // The branch is gone: taking the base in anew puts it back where it stood.
                None => base.taken = None,
            }
            base.seen_at = *at;
            base.note_caught_up();
        }
        LaneChange::BaseTaken { base: taken, landed } => base.take(taken, landed),
        LaneChange::BaseConflicted { paths } => base.conflict = Some(paths.clone()),
        LaneChange::TakeStalled { tries } => base.take_tries = tries.clone(),
        LaneChange::BaseCheckBegun { id } => {
            base.checking = Some(id.clone());
            base.checks += 1;
        }
        LaneChange::BaseCheckStalled { tries } => base.check_tries = tries.clone(),
        LaneChange::BaseFoundGreen { commit } => {
            note_green(base, commit);
            base.red = None;
            base.check_tries = Tries::default();
        }
        LaneChange::BaseFoundRed { commit, tail } => {
            base.red = Some((commit.clone(), tail.clone()));
            base.check_tries = Tries::default();
        }
        LaneChange::LandingSet { landing } => set_landing(state, landing.as_ref()),
        LaneChange::Landed { id, commit, is_verified } => {
            let is_merge = base.landed.as_ref() != Some(commit);
            base.landed = Some(commit.clone());
            base.behind += u64::from(is_merge);
            if *is_verified {
                note_green(base, commit);
            }
            state.landing = None;
            let landed = if is_merge { Landed::Merged } else { Landed::Within };
            index::update(state, id, false, |task| task.landed = landed);
        }
        LaneChange::FollowSet { follow, why, behind } => {
            base.follow.clone_from(follow);
            base.why.clone_from(why);
            base.behind = *behind;
            base.note_caught_up();
        }
        LaneChange::BaseFollowed { to } => {
            base.tip = Some(to.clone());
            base.meet_at(to);
        }
        LaneChange::DropSet { dropping } => base.dropping.clone_from(dropping),
        LaneChange::PilotDropped { to } => base.reset_to(to),
    }
    forget_mended(&mut state.base);
    index::refresh_lane(state);
}

/// A red commit is of no interest once it is known to pass, or once the base has moved on to what
/// passes, unless the landing branch still stands at it.
fn forget_mended(base: &mut Base) {
    let Some((red, _)) = &base.red else { return };
    let is_landed = base.landed.as_ref() == Some(red);
    if base.green.contains(red) || (base.is_known_green() && !is_landed) {
        base.red = None;
    }
}

fn set_landing(state: &mut State, landing: Option<&Landing>) {
    state.landing = landing.cloned();
    if let Some(landing) = landing.filter(|landing| landing.phase == LandingPhase::Merging) {
        index::update(state, &landing.task, false, |task| {
            task.numbers.insert("landing".into(), landing.number);
        });
    }
}

fn adopt(state: &mut State, settings: &Settings, at: Time) {
    let judges =
        |settings: &Settings| (settings.landing.checks.clone(), settings.worktree.setup.clone());
    if judges(settings) != judges(&state.settings) {
        state.base.green.clear();
        state.base.red = None;
        state.base.check_tries = Tries::default();
    }
    let old = std::mem::replace(&mut state.settings, Arc::new(settings.clone()));
    state.pinned.push(Arc::clone(&old));
    state.trial.fit(&settings.rollout.fallback);
    crew::adopt(state, &old, at);
    unpin(state);
    index::rebuild(state);
    state.weighing.altered += 1;
}

/// Lets go of settings that no live attempt pins, and of the present ones among the old.
fn unpin(state: &mut State) {
    let (attempts, present) = (&state.attempts, &state.settings.hash);
    state.pinned.retain(|old| {
        old.hash != *present && attempts.values().any(|attempt| attempt.settings == old.hash)
    });
}

fn note_green(base: &mut Base, commit: &Oid) {
    base.green.retain(|known| known != commit);
    base.green.push(commit.clone());
    let surplus = base.green.len().saturating_sub(GREEN_MAX);
    base.green.drain(..surplus);
}
