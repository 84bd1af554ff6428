//! The agents that may get an attempt now, and which of them is best for a task.

use std::collections::BTreeMap;

use super::demand::Demand;
use crate::machine::agent::Agent;
use crate::machine::complexity::{self, Complexity};
use crate::machine::id::{AgentName, StageName};
use crate::machine::overlap;
use crate::machine::provider::{self, Pause};
use crate::machine::resume;
use crate::machine::scale;
use crate::machine::settings::AgentGroup;
use crate::machine::state::State;
use crate::machine::task::Task;

/// Free agents; each is taken at most once.
#[derive(Debug)]
pub struct Pool<'a> {
    state: &'a State,
    free: BTreeMap<&'a AgentName, &'a Agent>,
}

impl<'a> Pool<'a> {
    /// Looks at who is free; `added` are taken for it. Cost: agents.
    #[must_use]
    pub fn of(state: &'a State, added: &'a [Agent]) -> Self {
        let free = state.agents.values().filter(|agent| state.is_free(agent)).chain(added);
        Self { state, free: free.map(|agent| (&agent.name, agent)).collect() }
    }

    /// Knows of no agent.
    #[must_use]
    pub fn empty(state: &'a State) -> Self {
        Self { state, free: BTreeMap::new() }
    }

    /// Takes one agent for the only one there is, and for free.
    #[must_use]
    pub fn only(state: &'a State, agent: &'a Agent) -> Self {
        Self { state, free: [(&agent.name, agent)].into() }
    }

    /// Returns true when nobody is free.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.free.is_empty()
    }

    /// Returns true when somebody free serves the stage.
    #[must_use]
    pub fn serves(&self, stage: &StageName) -> bool {
        self.agents().any(|agent| agent.stages.contains(stage))
    }

    fn agents(&self) -> impl Iterator<Item = &'a Agent> {
        self.free.values().copied()
    }

    /// Returns the best free agent for a task's stage, among those that serve it and have what it
    /// asks for. In this order:
    ///
    /// 1. not the one that lost the task's last attempt;
    /// 2. not one that failed so often that this is its trial;
    /// 3. the one that can take up the session of an attempt that was cut short;
    /// 4. one of a group that is meant for tasks so complex, then of one that says nothing;
    /// 5. for a complex task of the highest tier, for others of the lowest;
    /// 6. with `scheduler.affinity`: one whose last task is this one, then one whose last task is of
    ///    the same epic or touches the same paths;
    /// 7. the one that completed least, then the one idle longest, then by name.
    ///
    /// It is chosen among those that are free, so none of this lets a task wait. Cost: free agents.
    #[must_use]
    pub fn best(&self, task: &Task, stage: &StageName, demand: &Demand) -> Option<&'a Agent> {
        let complexity = complexity::of(&task.spec);
        let takers = Takers::of(self.state, stage, demand);
        let able = self.agents().filter(|agent| takers.has(agent));
        let place = resume::place(task).filter(|_| resume::continued(task, stage).is_some());
        able.min_by_key(|agent| {
            let is_avoided = task.avoid.as_ref() == Some(&agent.name);
            let is_on_trial = agent.breaker.is_on_trial();
            let is_another = place.is_some_and(|(name, _)| *name != agent.name);
            let unfitness = unfitness(self.state.group_of(agent), complexity);
            let strangeness = strangeness(self.state, agent, task);
            (
                is_avoided,
                is_on_trial,
                is_another,
                unfitness,
                strangeness,
                agent.completed,
                agent.idle_since,
                &agent.name,
            )
        })
    }

    /// Returns the free agents that have ended one attempt less than a multiple of `every`.
    #[must_use]
    pub fn due(&self, every: u64) -> Vec<&'a Agent> {
        let is_due = |agent: &&Agent| (agent.completed + agent.failed) % every == every - 1;
        self.agents().filter(is_due).collect()
    }

    /// Returns true while the agent has not been taken.
    #[must_use]
    pub fn has(&self, agent: &Agent) -> bool {
        self.free.contains_key(&agent.name)
    }

    /// Returns true when one that may take it has not been taken.
    #[must_use]
    pub fn has_for(&self, stage: &StageName, demand: &Demand) -> bool {
        self.agents().any(|agent| may_take(self.state, agent, stage, demand))
    }

    /// Takes an agent out; with it all others of a provider where one is to try first.
    pub fn take(&mut self, agent: &Agent) {
        self.free.remove(&agent.name);
        if self.state.pause_of(agent).is_some_and(Pause::is_to_be_tried) {
            let (state, provider) = (self.state, self.state.provider_of_agent(agent));
            self.free.retain(|_, other| state.provider_of_agent(other) != provider);
        }
    }
}

/// Returns how ill a group suits tasks so complex; 0 and the lowest tier, or for complex tasks the
/// highest, are best.
fn unfitness(group: Option<&AgentGroup>, complexity: Complexity) -> (u8, u32) {
    let Some(group) = group else { return (u8::MAX, u32::MAX) };
    let is_meant = group.complexity.iter().any(|word| word == complexity.word());
    let by_word = match (is_meant, group.complexity.is_empty()) {
        (true, _) => 0,
        (false, true) => 1,
        (false, false) => 2,
    };
    let by_tier = match complexity {
        Complexity::Simple | Complexity::Moderate => group.tier,
        Complexity::Complex => u32::MAX - group.tier,
    };
    (by_word, by_tier)
}

/// Returns how little an agent knows of the task: 0, it had it last; 1, it had one of the same epic
/// or paths last; 2, nothing.
fn strangeness(state: &State, agent: &Agent, task: &Task) -> u8 {
    if !state.settings.scheduler.affinity {
        return 0;
    }
    let Some(last) = agent.last_task.as_ref().and_then(|id| state.tasks.get(id)) else { return 2 };
    if last.id == task.id {
        return 0;
    }
    let (last, spec) = (&last.spec, &task.spec);
    let is_of_epic = spec.parent.is_some() && spec.parent == last.parent;
    if is_of_epic || overlap::any_overlap(&spec.touches, &last.touches) { 1 } else { 2 }
}

/// Returns true when the agent serves the stage and has what is needed; its own name and its
/// group's count as capabilities.
#[must_use]
pub fn can_serve(state: &State, agent: &Agent, stage: &StageName, needs: &[String]) -> bool {
    let group = state.group_of(agent).map_or("", |group| group.name.as_str());
    let has = |need: &String| {
        agent.capabilities.contains(need) || agent.name.as_str() == need || group == need
    };
    agent.stages.contains(stage) && needs.iter().all(has)
}

/// Who may take what is asked for at a stage, busy or not.
#[derive(Debug, Clone, Copy)]
pub struct Takers<'a> {
    state: &'a State,
    stage: &'a StageName,
    needs: &'a [String],
    /// The least tier; 0: any.
    pub tier_min: u32,
}

impl<'a> Takers<'a> {
    /// Looks at who is there: where nobody of the tier that is asked for after failures may work or
    /// come, the highest that may takes it, so that no task waits for a tier where nobody is. Cost:
    /// agents, where a tier is asked for.
    #[must_use]
    pub fn of(state: &'a State, stage: &'a StageName, demand: &'a Demand) -> Self {
        let (needs, asked) = (demand.needs.as_slice(), demand.tier_min);
        let mut takers = Self { state, stage, needs, tier_min: 0 };
        if asked > 0 {
            let able = state.agents.values().filter(|it| !it.is_retired && takers.has(it));
            let may_work = able.clone().filter(|agent| state.may_work(agent));
            let at_work = may_work.map(|agent| tier_of(state, agent)).max();
            let to_come = scale::highest_to_come(state, stage, needs);
            let is_there = || able.map(|agent| tier_of(state, agent)).max();
            let highest = at_work.max(to_come).or_else(is_there);
            takers.tier_min = highest.map_or(asked, |highest| asked.min(highest));
        }
        takers
    }

    /// Returns true when the agent serves the stage, has what is needed and is of a tier high enough.
    #[must_use]
    pub fn has(&self, agent: &Agent) -> bool {
        (self.tier_min == 0 || tier_of(self.state, agent) >= self.tier_min)
            && can_serve(self.state, agent, self.stage, self.needs)
    }
}

fn tier_of(state: &State, agent: &Agent) -> u32 {
    state.group_of(agent).map_or(0, |group| group.tier)
}

/// Returns true when the agent may take it, as [`Takers`] says.
#[must_use]
pub fn may_take(state: &State, agent: &Agent, stage: &StageName, demand: &Demand) -> bool {
    can_serve(state, agent, stage, &demand.needs)
        && (tier_of(state, agent) >= demand.tier_min || Takers::of(state, stage, demand).has(agent))
}

/// Returns true when an agent is there for it that is neither paused nor about to leave, or comes
/// when it is needed. Of which tier is all the same: the highest there is takes it.
#[must_use]
pub fn has_agent(state: &State, stage: &StageName, demand: &Demand) -> bool {
    let mut there = state.agents.values().filter(|agent| state.may_work(agent));
    there.any(|agent| can_serve(state, agent, stage, &demand.needs))
        || scale::may_bring(state, stage, &demand.needs, 0)
}

/// Returns true when such an agent is there that does not cool down either.
#[must_use]
pub fn has_worker(state: &State, stage: &StageName, demand: &Demand) -> bool {
    let takers = Takers::of(state, stage, demand);
    let there = state.agents.values().filter(|agent| state.may_work(agent));
    let mut there = there.filter(|agent| state.cools_until(agent).is_none());
    there.any(|agent| takers.has(agent))
        || scale::may_bring_now(state, stage, &demand.needs, takers.tier_min)
}

/// Returns what an agent would have to have that none has, or why those that have it cannot start, in
/// words; `None`: one has it all, busy or not, or comes when it is needed.
#[must_use]
pub fn lacking(state: &State, stage: &StageName, needs: &[String]) -> Option<String> {
    let serving =
        state.agents.values().filter(|agent| !agent.is_retired && agent.stages.contains(stage));
    let has_all = |needs: &[String]| {
        serving.clone().any(|agent| can_serve(state, agent, stage, needs))
            || scale::may_bring(state, stage, needs, 0)
    };
    if has_all(needs) {
        let mut able = serving.clone().filter(|agent| can_serve(state, agent, stage, needs));
        let comes = scale::may_bring(state, stage, needs, 0);
        let can_start =
            |agent: &Agent| agent.unusable.is_none() && state.refusal_of(agent).is_none();
        if comes || able.clone().any(can_start) {
            return None;
        }
        if let Some(refused) = provider::refused(state, stage, needs) {
            return Some(refused);
        }
        let first = able.find_map(|agent| Some((agent, agent.unusable.as_ref()?)));
        return first.map(|(agent, why)| format!("agent `{}` cannot start: {why}", agent.name));
    }
    if let Some(refused) = provider::refused(state, stage, needs) {
        return Some(refused);
    }
    let mut what = if has_all(&[]) {
        let has = |need: &String| has_all(std::slice::from_ref(need));
        match needs.iter().find(|need| !has(need)) {
            Some(need) => format!("no agent of stage `{stage}` has `{need}`"),
            None => format!("no agent of stage `{stage}` has all of `{}`", needs.join("`, `")),
        }
    } else {
        format!("no agent serves stage `{stage}`")
    };
    if let Some((group, count)) = dismissed(state, stage, needs) {
        what.push_str(&format!(": pipeline agent scale {} {count}", group.name));
    }
    Some(what)
}

/// Returns a group of the settings whose agents could do it and are not there, and how many it would
/// have to have.
fn dismissed<'a>(
    state: &'a State,
    stage: &StageName,
    needs: &[String],
) -> Option<(&'a AgentGroup, u32)> {
    let able = state.settings.agents.iter().filter(|it| it.can_serve(stage.as_str(), needs));
    let mut asked = able.map(|group| {
        let named = needs.iter().filter_map(|need| group.number_of(need)).max();
        (group, named.unwrap_or(1))
    });
    asked.find(|(group, count)| state.target(group).count < *count)
}
