//! `agent scale`: a person says how many agents a group has.

use crate::machine::apply::apply;
use crate::machine::change::{Change, ProjectChange};
use crate::machine::crew::Target;
use crate::machine::settings::{AgentGroup, GROUP_AGENTS_MAX};
use crate::machine::state::State;
use crate::machine::step::{Answer, Refusal, Step, project};
use crate::machine::time::Time;
use crate::machine::turn;

/// Gives the group so many agents, or lets its settings decide again.
pub(super) fn scale(state: &State, at: Time, name: &str, to: Option<u32>) -> Result<Step, Refusal> {
    let group = find(state, name)?;
    let old = state.target(group);
    let target = match (to, group.scale_min) {
        (Some(count), _) => Target { count, is_by_hand: true },
        (None, None) => Target { count: group.count, is_by_hand: false },
        (None, Some(_)) => Target { is_by_hand: false, ..old },
    };
    check(state, group, target)?;
    // What the settings say anyway is not held against a later change of them.
    let is_by_hand =
        target.is_by_hand && (group.scale_min.is_some() || target.count != group.count);
    let target = Target { is_by_hand, ..target };
    if target == old {
        let how = if old.is_by_hand { " by hand" } else { "" };
        return Ok(Step::note(format!("`{name}` has {}{how} already", agents(old.count))));
    }
    let why = match (is_by_hand, group.scale_min) {
        (true, _) => "by hand",
        (false, None) => "as the settings say",
        (false, Some(_)) => "by queue length",
    };
    let why = why.to_owned();
    let change = ProjectChange::AgentsScaled { group: name.to_owned(), target, why, at };
    let changes = vec![project(change)];
    let answer = left_alone(state, &changes).map_or(Answer::Accept, Answer::Note);
    Ok(Step { changes, answer })
}

fn find<'a>(state: &'a State, name: &str) -> Result<&'a AgentGroup, Refusal> {
    if let Some(group) = state.settings.group(name) {
        return Ok(group);
    }
    let mut names: Vec<&str> = state.settings.agents.iter().map(|group| &*group.name).collect();
    if names.contains(&name) {
        return Err(Refusal::invalid(format!("more than one `[[agent]]` is called `{name}`"))
            .with_hint("give each a name of its own in pipeline.toml"));
    }
    names.dedup();
    let numbered = names.iter().find(|group| {
        let group = state.settings.group(group);
        group.is_some_and(|group| group.number_of(name).is_some())
    });
    let hint = match numbered {
        Some(group) => format!("it is one agent; its group is `{group}`"),
        None => format!("the groups, each an `[[agent]]`, are `{}`", names.join("`, `")),
    };
    Err(Refusal::invalid(format!("there is no group of agents `{name}`")).with_hint(hint))
}

fn check(state: &State, group: &AgentGroup, target: Target) -> Result<(), Refusal> {
    let (name, count) = (&group.name, target.count);
    if let Some(least) = group.scale_min
        && !(least..=group.count).contains(&count)
    {
        let most = group.count;
        let reason = format!("`{name}` has from {least} to {}, not {count}", agents(most));
        return Err(Refusal::invalid(reason).with_hint(format!(
            "its `scale = {{ min = {least}, max = {most} }}` in pipeline.toml says so"
        )));
    }
    if count > GROUP_AGENTS_MAX {
        let reason = format!("a group has at most {GROUP_AGENTS_MAX} agents, not {count}");
        return Err(Refusal::invalid(reason));
    }
    if let Some(stranger) = state.settings.stranger(group, count) {
        let reason = format!("`{stranger}` is an agent of another group");
        return Err(Refusal::invalid(reason).with_hint(format!(
            "give one of them another name in pipeline.toml, or `{name}` fewer"
        )));
    }
    Ok(())
}

/// Says which stages nobody serves any more, where somebody did.
fn left_alone(state: &State, changes: &[Change]) -> Option<String> {
    let mut later = state.clone();
    changes.iter().for_each(|change| apply(&mut later, change));
    let before = turn::unserved_stages(state);
    let after = turn::unserved_stages(&later);
    let new: Vec<String> = after
        .iter()
        .filter(|stage| !before.contains(stage))
        .map(|stage| format!("`{stage}`"))
        .collect();
    if new.is_empty() {
        return None;
    }
    let names = new.join(", ");
    Some(format!("no agent serves {names} now: tasks wait there until one does"))
}

/// Returns `3 agents`.
fn agents(count: u32) -> String {
    if count == 1 { "1 agent".into() } else { format!("{count} agents") }
}
