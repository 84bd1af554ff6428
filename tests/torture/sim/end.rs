//! The fault-free phase: everything comes to an end, or says truly what it waits for.

use pipeline::machine::agent::Agent;
use pipeline::machine::attempt::Class;
use pipeline::machine::event::{Dependents, GiveTo, RetryTarget};
use pipeline::machine::id::{AgentName, TaskId};
use pipeline::machine::mode::{Isolation, Orchestration, Rollout};
use pipeline::machine::proposal::ProposalPhase;
use pipeline::machine::settings::Stage;
use pipeline::machine::task::{Landed, Task, TaskKind, TaskPhase};
use pipeline::machine::time::Time;
use pipeline::machine::{Command, State, gate, proposal, turn};
use pipeline::monitor::mend;

use super::able::{may_come, may_take};
use super::dice::Dice;
use super::people;
use super::purse::Purse;
use super::seed::Run;
use super::together;

/// Steps within which a kind world must come to rest.
const STEPS_MAX: u64 = 20_000;
/// How often people help in the end.
const ROUNDS_MAX: usize = 60;
/// How long the external scheduler may hold up what could start.
const DECLINED_MS_MAX: u64 = 30_000;

fn may_launch(state: &State, purse: &Purse, now: Option<Time>) -> bool {
    state.stopping.is_none()
        && !state.is_paused
        && state.drain.is_none()
        && state.overload.is_none()
        // What begins then would stand on what is dropped.
        && state.base.dropping.is_none()
        && turn::is_base_good(state)
        && now.is_none_or(|now| turn::launch_room(state, now) != Some(0))
        && !purse.is_used_up(state)
}

fn is_met(state: &State, task: &Task) -> bool {
    let deps = &mut task.spec.depends_on.iter();
    deps.all(|dep| state.tasks.get(dep).is_some_and(|dep| dep.is_met()))
}

/// An agent never waits while a task it could take is ready (DESIGN section 9).
pub fn nobody_waits(state: &State, purse: &Purse, now: Time) {
    if !may_launch(state, purse, Some(now)) {
        return;
    }
    if proposal::is_awaited(state) {
        // It proposed nothing: that must pass; what is awaited is waited for by `Run::rest`.
        let is_declined = state.proposal.phase == ProposalPhase::Declined;
        let since = state.proposal.declined_since.filter(|_| is_declined);
        let ms = since.map_or(0, |since| now.ms_since(since));
        assert!(ms < DECLINED_MS_MAX, "I21: the external scheduler holds all up for {ms} ms");
        return;
    }
    let is_sequential = state.orchestration == Orchestration::Sequential;
    let is_busy = state.has_work() || state.landing.is_some();
    let kept = together::kept(state);
    // One that comes when it is needed is as good as one that is free.
    let there = state.agents.values().filter(|agent| state.is_free(agent)).cloned();
    let free: Vec<Agent> = there.chain(may_come(state)).collect();
    for task in state.tasks.values() {
        let TaskPhase::Ready { stage } = &task.phase else { continue };
        let may_start = !task.is_held
            && task.backoff_until.is_none()
            && gate::may_act(state, &task.id)
            && is_met(state, task);
        if kept.contains(&task.id) {
            continue;
        }
        let able = free.iter().find(|agent| may_take(state, agent, task, stage));
        let (true, Some(agent)) = (may_start, able) else { continue };
        // In sequential mode the current task has the word, while it can go on by itself.
        let current = state.current.as_ref().filter(|_| is_sequential);
        let is_patient = is_busy
            || current.is_some_and(|id| {
                let is_in_lane = state.index.lane.values().any(|other| other == id);
                let current = &state.tasks[id];
                // All who could take it cool down.
                let is_cooling = matches!(&current.phase, TaskPhase::Ready { stage } if {
                    !free.iter().any(|agent| may_take(state, agent, current, stage))
                });
                current.backoff_until.is_some() || is_in_lane || is_cooling
            });
        assert!(
            is_sequential && is_patient,
            "I21: `{}` waits for {stage} while `{}` is free; current is {:?}",
            task.id,
            agent.name,
            state.current
        );
    }
}

impl Run {
    /// Nothing fails any more: comes to rest, then people help until nothing more can be done.
    pub fn end(&mut self, setup: u64) {
        let mut dice = Dice(setup ^ 0x5eed);
        self.calm();
        self.rest(&mut dice);
        self.explain(false);
        self.free(&mut dice);
        for _ in 0..ROUNDS_MAX {
            self.rest(&mut dice);
            if !self.help(&mut dice) {
                self.explain(true);
                return self.nothing_is_left();
            }
        }
        panic!("I21: people help for ever: {}", self.stands());
    }

    /// Steps until nothing moves and nothing is timed.
    fn rest(&mut self, dice: &mut Dice) {
        // Which monitor was found idle, how often it had looked by itself then, and the last record.
        let mut idle_since = None;
        for _ in 0..STEPS_MAX {
            self.steps += 1;
            let is_moving =
                self.world.job_step(dice) | self.world.keeper_step(dice) | self.outside_step();
            let has_mail = !self.world.mail.is_empty();
            let has_news = self.has_news();
            if has_mail || has_news {
                self.monitor_step(dice);
            }
            self.judge.look(&self.world, false);
            if is_moving || has_mail || has_news {
                continue;
            }
            let Some(monitor) = &self.monitor else { continue };
            let state = monitor.cycle.ledger.state();
            // Past their bound a landing in doubt, and a base that could not be taken in or checked,
            // are told to people and tried on (`observe::waiting`): idle between two tries, and at an
            // end in a kind world.
            let tries = [&state.base.take_tries, &state.base.check_tries];
            let is_tried = tries.iter().any(|tries| tries.until.is_some());
            // The load has fallen, which is looked for even where there is nothing to do.
            let is_strained = state.overload.is_some();
            if !state.is_idle() || state.landing.is_some() || is_tried || is_strained {
                idle_since = None;
            } else if let Some((number, seq, polls)) = idle_since
                && (number, seq) == (monitor.number, self.judge.seq)
            {
                if monitor.polls > polls {
                    return self.judge.look(&self.world, true);
                }
            } else {
                idle_since = Some((monitor.number, self.judge.seq, monitor.polls));
            }
            let ms = monitor.wakes_at().ms_since(monitor.now()).max(1);
            self.mono.set(self.mono.get() + ms);
        }
        panic!("I21: a kind world does not come to rest: {}", self.stands());
    }

    /// People take back what they held up.
    fn free(&mut self, dice: &mut Dice) {
        self.ask(Command::Resume, 0, dice);
        let state = &self.judge.state;
        let agents = state.agents.keys().chain(state.dismissed.keys()).cloned();
        let groups = state.settings.agents.iter().map(|group| group.name.clone());
        let (agents, groups): (Vec<AgentName>, Vec<String>) = (agents.collect(), groups.collect());
        for group in groups {
            self.ask(Command::ScaleAgents { group, to: None }, 0, dice);
        }
        for name in agents {
            self.ask(Command::ResumeAgent { name }, 0, dice);
        }
        self.ask(Command::SetRollout { to: Rollout::Production, is_forced: true }, 0, dice);
        let mut settings = (*self.judge.state.settings).clone();
        settings.hash = "healed".into();
        settings.limits.attempts_per_run = 0;
        settings.limits.cost_usd_micros = 0;
        settings.limits.cost_usd_per_task_micros = 0;
        self.ask(Command::AdoptSettings { settings: Box::new(settings) }, 0, dice);
        self.give_all_back(dice);
        let ids = self.judge.state.tasks.keys().cloned().collect();
        self.ask(Command::ReleaseTasks { ids }, 0, dice);
        // The base is made to pass, and what was in its way is gone.
        people::commit(&mut self.world);
    }

    /// What people have taken goes on, or is given up where it passes through no stage any more.
    fn give_all_back(&mut self, dice: &mut Dice) {
        let taken = |task: &&Task| task.taken.is_some();
        let ids: Vec<TaskId> =
            self.judge.state.tasks.values().filter(taken).map(|task| task.id.clone()).collect();
        for id in ids {
            let stages: Vec<_> = self.judge.state.settings.stages.iter().map(Stage::id).collect();
            let ways = std::iter::once(GiveTo::Onward).chain(stages.into_iter().map(GiveTo::Stage));
            let is_given = ways.into_iter().any(|to| {
                let given = people::given(&self.judge.state, &self.world, &id, to);
                given.is_some_and(|given| self.ask(given, 0, dice))
            });
            if !is_given {
                let (ids, dependents) = (vec![id], Dependents::Release);
                assert!(self.ask(Command::CancelTasks { ids, dependents }, 0, dice));
            }
        }
    }

    /// What a person does about what needs one; returns whether anything was to do.
    fn help(&mut self, dice: &mut Dice) -> bool {
        let ids = people::unapproved(&self.judge.state);
        let is_approving = !ids.is_empty() && self.ask(Command::ApproveTasks { ids }, 0, dice);
        let seq = self.judge.seq;
        let pauses = self.judge.state.pauses.values().filter(|pause| pause.is_refused);
        // The command that people are told to type.
        let names: Vec<AgentName> = pauses.map(|pause| pause.agent.clone()).collect();
        for name in names {
            assert!(self.ask(Command::ResumeAgent { name }, 0, dice), "what was told is refused");
        }
        let (target, stage, note) = (RetryTarget::Blocked, None, None);
        let helpless = self.judge.state.tasks.values().all(|task| match &task.phase {
            TaskPhase::Blocked(block) => {
                block.class == Class::Dependency || block.reason.contains("through no stage")
            }
            TaskPhase::Waiting
            | TaskPhase::Ready { .. }
            | TaskPhase::Working { .. }
            | TaskPhase::Landing { .. }
            | TaskPhase::Completed { .. }
            | TaskPhase::Cancelled { .. } => true,
        });
        if !helpless {
            self.ask(Command::RetryTasks { target, stage, note, is_fresh: false }, 0, dice);
        }
        is_approving || self.judge.seq != seq
    }

    /// Every task is final, or what it waits for is true. `is_freed`: people hold nothing up.
    fn explain(&self, is_freed: bool) {
        let state = &self.judge.state;
        assert_eq!(state.overload, None, "I21: the load has fallen, and nobody looks");
        let mut unusable = state.agents.values().filter(|agent| agent.unusable.is_some());
        assert_eq!(unusable.next(), None, "I21: its program is there, and nobody looks");
        for task in state.tasks.values().filter(|task| task.spec.kind == TaskKind::Task) {
            let is_held = !is_freed && (task.is_held || !gate::may_act(state, &task.id));
            let is_explained = match &task.phase {
                TaskPhase::Completed { .. } | TaskPhase::Cancelled { .. } => true,
                TaskPhase::Blocked(block) if block.class == Class::Dependency => {
                    has_dead_end(state, task)
                }
                TaskPhase::Blocked(block) => !is_freed || block.reason.contains("no stage"),
                TaskPhase::Waiting => is_held || !is_met(state, task),
                TaskPhase::Ready { stage } => {
                    let may_serve = |agent: &Agent| {
                        let is_shut = agent.is_paused || state.refusal_of(agent).is_some();
                        !is_shut && may_take(state, agent, task, stage)
                    };
                    let has_agent = state.agents.values().any(may_serve)
                        || may_come(state).iter().any(may_serve);
                    let is_stopped = !is_freed && !may_launch(state, &self.judge.purse, None);
                    let is_served = has_agent && !together::is_beyond(state, task, stage);
                    is_held || !is_met(state, task) || !is_served || is_stopped
                }
                TaskPhase::Landing { .. } => {
                    let base = &state.base;
                    let is_shut = base.conflict.is_some() || base.red.is_some();
                    is_held || !is_met(state, task) || task.approval.is_some() || is_shut
                }
                TaskPhase::Working { .. } => false,
            };
            assert!(
                is_explained,
                "I21: `{}` stands at {:?} for no reason: {}",
                task.id,
                task.phase,
                self.stands()
            );
        }
    }

    fn nothing_is_left(&self) {
        self.outside_is_told();
        let state = &self.judge.state;
        assert!(state.landing.is_none() && state.attempts.is_empty(), "{}", self.stands());
        let running = self.world.keepers.values().filter(|keeper| keeper.process.is_some());
        assert_eq!(running.count(), 0, "I10: something runs though nothing is to");
        assert!(self.world.strays.is_empty(), "I10: strays are left: {:?}", self.world.strays);
        if state.settings.project.isolation == Isolation::Worktree {
            assert_eq!(state.base.tip, state.base.taken, "the base was not taken in");
            let astray = mend::all(state, &self.world.our_refs());
            assert!(astray.is_empty(), "branches of ours are not put back: {astray:?}");
            let is_behind = state.base.landed != state.base.tip;
            assert!(!is_behind, "the base did not follow: {:?}", state.base);
            assert_eq!(state.base.behind, 0, "nothing is missing there: {:?}", state.base);
        }
        for task in state.tasks.values() {
            let landings = self.world.landings(&task.id);
            let landings_max = self.world.repo.landings_max(&task.id);
            assert!(landings <= landings_max, "I5: `{}` is there {landings} times", task.id);
            let is_merged = task.landed == Landed::Merged;
            assert!(!is_merged || landings > 0, "I5: `{}` has no merge of its own", task.id);
            let is_landed = matches!(&task.phase, TaskPhase::Completed { commit: Some(_), .. });
            let is_withdrawn = task.is_by_hand || landings_max > 1;
            let may_be_there =
                is_landed || is_withdrawn || matches!(task.phase, TaskPhase::Cancelled { .. });
            assert!(landings == 0 || may_be_there, "I5: `{}` has landed unnoticed", task.id);
        }
    }

    /// What is known, in few words.
    fn stands(&self) -> String {
        let state = &self.judge.state;
        let tasks: Vec<(&TaskId, &TaskPhase)> =
            state.tasks.values().map(|task| (&task.id, &task.phase)).collect();
        format!(
            "tasks {tasks:?} attempts {:?} landing {:?} base {:?} effects {:?} jobs {:?} stopping {:?}",
            state.attempts.values().map(|a| (&a.id, a.phase, &a.tries)).collect::<Vec<_>>(),
            state.landing,
            state.base,
            state.index.effects,
            self.world.jobs,
            state.stopping,
        )
    }
}

fn has_dead_end(state: &State, task: &Task) -> bool {
    let mut deps = task.spec.depends_on.iter();
    deps.any(|dep| state.tasks.get(dep).is_none_or(Task::is_dead_end))
}
