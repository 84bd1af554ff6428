//! How many agents a group has: as many as have something to do, or as a person says.

use pipeline::machine::agent::Agent;
use pipeline::machine::breaker::Breaker;
use pipeline::machine::change::{ProjectChange, TaskChange};
use pipeline::machine::event::{Edit, NewTask};
use pipeline::machine::id::AgentName;
use pipeline::machine::mode::Orchestration;
use pipeline::machine::plan::{self, Workers};
use pipeline::machine::settings::{AgentGroup, Settings};
use pipeline::machine::{Answer, Change, Command, Observation, next_deadline};

use crate::machine_support::{End, Machine, group, id, new_task, settings};

const MINUTE_MS: u64 = 60_000;

/// One stage, which the groups serve.
fn machine(groups: Vec<AgentGroup>, change: impl FnOnce(&mut Settings)) -> Machine {
    let mut settings = settings();
    settings.stages = settings.stages[2..3].to_vec();
    settings.agents = groups;
    change(&mut settings);
    let mut machine = Machine::new(settings);
    machine.begin();
    machine
}

fn fixed(name: &str, count: u32) -> AgentGroup {
    group(name, &["implementation"], count)
}

fn scaling(name: &str, min: u32, max: u32) -> AgentGroup {
    AgentGroup { scale_min: Some(min), ..fixed(name, max) }
}

/// Names, those that leave after their task in brackets.
fn there(m: &Machine) -> String {
    let name = |agent: &Agent| match agent.is_retired {
        true => format!("({})", agent.name),
        false => agent.name.to_string(),
    };
    m.state.check();
    m.state.agents.values().map(name).collect::<Vec<_>>().join(" ")
}

fn busy(m: &Machine) -> usize {
    m.state.agents.values().filter(|agent| agent.attempt.is_some()).count()
}

fn tasks(names: &[&str]) -> Vec<NewTask> {
    names.iter().map(|name| new_task(name, &[])).collect()
}

fn scale(group: &str, to: u32) -> Command {
    Command::ScaleAgents { group: group.into(), to: Some(to) }
}

fn auto(group: &str) -> Command {
    Command::ScaleAgents { group: group.into(), to: None }
}

fn agent<'a>(m: &'a Machine, name: &str) -> &'a Agent {
    &m.state.agents[&AgentName::new(name)]
}

/// What was said about groups, as `2: why`.
fn said(m: &Machine) -> Vec<String> {
    let said = m.log.iter().filter_map(|change| match change {
        Change::Project(ProjectChange::AgentsScaled { target, why, .. }) => {
            Some(format!("{}: {why}", target.count))
        }
        _ => None,
    });
    said.collect()
}

fn adopt(m: &mut Machine, hash: &str, agents: Vec<AgentGroup>) {
    let mut settings = (*m.state.settings).clone();
    (settings.hash, settings.agents) = (hash.repeat(16), agents);
    m.must(Command::AdoptSettings { settings: Box::new(settings) });
}

#[test]
fn a_group_grows_at_once_by_as_many_as_have_something_to_do() {
    let mut m = machine(vec![scaling("w", 1, 4)], |_| {});
    assert_eq!(there(&m), "w-1");
    m.add(&tasks(&["A", "B"]));
    assert_eq!((there(&m).as_str(), busy(&m)), ("w-1 w-2", 2));
    m.add(&tasks(&["C", "D", "E", "F", "G", "H"]));
    assert_eq!((there(&m).as_str(), busy(&m)), ("w-1 w-2 w-3 w-4", 4));
    assert_eq!(said(&m), ["2: for 1 task that waits", "4: for 2 tasks that wait"]);
}

#[test]
fn what_something_else_holds_back_brings_nobody() {
    let mut m = machine(vec![scaling("w", 1, 9)], |settings| {
        settings.scheduler.resources.insert("db".into(), 1000);
    });
    let mut all = tasks(&["A", "CLASH-1", "CLASH-2", "DB-1", "DB-2", "HELD", "ALONE"]);
    all.push(new_task("AFTER", &["A"]));
    for task in &mut all {
        let name = task.id.clone().expect("it has a name");
        task.is_held = name.as_str() == "HELD";
        task.spec.is_exclusive = name.as_str() == "ALONE";
        if name.as_str().starts_with("CLASH") {
            task.spec.touches = vec!["a/**".into()];
        }
        if name.as_str().starts_with("DB") {
            task.spec.resources.insert("db".into(), "1".into());
        }
    }
    all.retain(|task| task.id != Some(id("ALONE")));
    m.add(&all);
    // A, one of the two that clash, one of the two that need the database.
    assert_eq!((there(&m).as_str(), busy(&m)), ("w-1 w-2 w-3", 3));
    m.must(Command::Pause);
    m.must(Command::ReleaseTasks { ids: vec![id("HELD")] });
    assert_eq!(there(&m), "w-1 w-2 w-3");
    m.must(Command::Resume);
    assert_eq!((there(&m).as_str(), busy(&m)), ("w-1 w-2 w-3 w-4", 4));
}

#[test]
fn a_group_shrinks_after_a_minute_without_work_from_the_highest_number() {
    let mut m = machine(vec![scaling("w", 1, 4)], |_| {});
    m.add(&tasks(&["A", "B", "C"]));
    let begun = m.now;
    for task in ["A", "B", "C"] {
        m.run(task, End::Done);
        m.land(task);
    }
    assert_eq!(there(&m), "w-1 w-2 w-3");
    assert_eq!(next_deadline(&m.state), Some(begun.plus_ms(MINUTE_MS)));
    m.pass_ms(MINUTE_MS - 1);
    assert_eq!(there(&m), "w-1 w-2 w-3");
    m.pass_ms(1);
    assert_eq!(there(&m), "w-1");
    assert_eq!(said(&m)[1..], ["1: 3 had nothing to do for a minute"]);
    assert_eq!(next_deadline(&m.state), None);
}

#[test]
fn one_idle_agent_costs_the_group_one() {
    let mut m = machine(vec![scaling("w", 1, 4)], |_| {});
    m.add(&tasks(&["A", "B", "C", "D"]));
    for task in ["A", "B", "C", "D"] {
        m.run(task, End::Done);
        m.land(task);
        m.pass_ms(10_000);
    }
    // The first has been idle for 40 s, the last for 10 s: they go at intervals of 10 s.
    let mut left = Vec::new();
    for _ in 0..8 {
        m.pass_ms(10_000);
        left.push(m.state.agents.len());
    }
    assert_eq!(left, [4, 3, 2, 1, 1, 1, 1, 1]);
    assert_eq!(there(&m), "w-1");
}

#[test]
fn short_pauses_between_tasks_let_nobody_go() {
    let mut m = machine(vec![scaling("w", 0, 3)], |_| {});
    for round in 0..20 {
        let names = [format!("A{round}"), format!("B{round}")];
        m.add(&tasks(&[&names[0], &names[1]]));
        for name in &names {
            m.run(name, End::Done);
            m.land(name);
        }
        m.pass_ms(MINUTE_MS - 1);
    }
    assert_eq!(said(&m), ["2: for 2 tasks that wait"]);
    m.pass_ms(1);
    assert_eq!(there(&m), "");
}

#[test]
fn a_busy_one_leaves_after_its_task_and_comes_back_as_it_went() {
    let mut m = machine(vec![scaling("w", 1, 3)], |_| {});
    m.add(&tasks(&["A", "B", "C"]));
    let (first, last) = (m.work("A").agent, m.work("C").agent);
    assert_eq!((first.as_str(), last.as_str()), ("w-1", "w-3"));
    m.run("A", End::Done);
    m.land("A");
    m.pass_ms(MINUTE_MS);
    assert_eq!(there(&m), "w-1 w-2 (w-3)");
    // Nobody else goes because of the same idle one.
    m.pass_ms(10 * MINUTE_MS);
    assert_eq!(there(&m), "w-1 w-2 (w-3)");
    let attempt = m.run("C", End::Fail);
    assert_eq!(there(&m), "w-1 w-2");
    m.must(Command::HoldTasks { ids: vec![id("C")] });
    m.pass_ms(MINUTE_MS);
    assert_eq!(there(&m), "w-1 (w-2)");
    assert!(m.state.tasks[&id("C")].history.iter().any(|old| old.id == attempt));
    m.add(&tasks(&["D", "E", "F"]));
    assert_eq!(there(&m), "w-1 w-2 w-3");
    assert_eq!((agent(&m, "w-3").failed, agent(&m, "w-3").breaker.failures), (1, 1));
    assert!(agent(&m, "w-3").attempt.is_some());
}

#[test]
fn what_keeps_those_who_are_there_from_starting_keeps_those_who_come_and_nothing_else_does() {
    let mut m = machine(vec![scaling("w", 1, 3)], |_| {});
    let seen = |why: Option<&str>| {
        let unusable = why.into_iter().map(|why| ("w".to_owned(), why.to_owned()));
        Observation::AgentsSeen { unusable: unusable.collect() }
    };
    m.must(scale("w", 2));
    m.see(seen(Some("`x` is not on the PATH")));
    m.must(scale("w", 1));
    assert_eq!(there(&m), "w-1");
    m.see(seen(None));
    m.must(scale("w", 2));
    assert_eq!(agent(&m, "w-2").unusable, None, "it is as w-1 is, not as it went");
    m.add(&tasks(&["A", "B"]));
    assert_eq!(busy(&m), 2);
    m.see(seen(Some("gone")));
    m.must(scale("w", 3));
    assert_eq!(agent(&m, "w-3").unusable.as_deref(), Some("gone"));
}

#[test]
fn one_that_was_to_go_stays_when_tasks_come() {
    let mut m = machine(vec![scaling("w", 1, 2)], |_| {});
    m.add(&tasks(&["A", "B"]));
    m.run("A", End::Done);
    m.land("A");
    m.pass_ms(MINUTE_MS);
    assert_eq!(there(&m), "w-1 (w-2)");
    m.add(&tasks(&["C", "D"]));
    assert_eq!(there(&m), "w-1 w-2");
    m.run("B", End::Done);
    assert_eq!(m.stand("D"), "working D.impl.1");
}

#[test]
fn paused_ones_neither_serve_nor_make_others_go() {
    let mut m = machine(vec![scaling("w", 0, 3)], |_| {});
    m.add(&tasks(&["A"]));
    m.must(Command::PauseAgent { name: AgentName::new("w-1") });
    m.run("A", End::Done);
    m.land("A");
    m.add(&tasks(&["B"]));
    assert_eq!((there(&m).as_str(), m.work("B").agent.as_str()), ("w-1 w-2", "w-2"));
    m.pass_ms(5 * MINUTE_MS);
    assert_eq!(there(&m), "w-1 w-2");
    m.run("B", End::Done);
    m.land("B");
    m.pass_ms(MINUTE_MS);
    assert_eq!(there(&m), "w-1");
    // It is paused still, and where it left a person can have it go on.
    assert!(matches!(m.ask(scale("w", 0)), Answer::Note(_)));
    assert_eq!(there(&m), "");
    m.must(Command::ResumeAgent { name: AgentName::new("w-1") });
    m.must(auto("w"));
    m.add(&tasks(&["C"]));
    assert_eq!((there(&m).as_str(), m.work("C").agent.as_str()), ("w-1", "w-1"));
}

#[test]
fn a_group_of_none_serves_as_soon_as_something_is_to_be_done() {
    let none = || vec![scaling("w", 0, 2)];
    let mut m = machine(none(), |_| {});
    m.add(&tasks(&["A", "B", "C"]));
    assert_eq!((there(&m).as_str(), busy(&m)), ("w-1 w-2", 2));
    assert!(m.state.tasks.values().all(|task| task.unserved.is_none()));
    let mut m = machine(none(), |s| s.project.orchestration = Orchestration::Sequential);
    m.add(&tasks(&["A", "B", "C"]));
    assert_eq!((there(&m).as_str(), busy(&m)), ("w-1", 1));
    let mut m = machine(none(), |settings| settings.monitor.launch_rate = Some(1));
    m.add(&tasks(&["A", "B"]));
    assert_eq!((there(&m).as_str(), busy(&m)), ("w-1", 1));
    m.pass_to_deadline();
    assert_eq!((there(&m).as_str(), busy(&m)), ("w-1 w-2", 2));
}

#[test]
fn a_task_that_asks_for_one_by_name_gets_it() {
    let mut m = machine(vec![scaling("w", 0, 12)], |_| {});
    let mut named = new_task("A", &[]);
    named.spec.needs = vec!["w-11".into()];
    m.add(&[named]);
    assert_eq!(m.work("A").agent.as_str(), "w-11");
    assert_eq!(m.state.agents.len(), 11);
    let mut beyond = new_task("B", &[]);
    beyond.spec.needs = vec!["w-13".into()];
    m.add(&[beyond]);
    let what = m.state.tasks[&id("B")].unserved.clone();
    assert_eq!(what.as_deref(), Some("no agent of stage `implementation` has `w-13`"));
}

#[test]
fn the_group_that_suits_the_task_grows() {
    let cheap = scaling("cheap", 0, 1);
    let strong = AgentGroup { tier: 2, ..scaling("strong", 0, 1) };
    let mut m = machine(vec![strong, cheap], |_| {});
    m.add(&tasks(&["A"]));
    assert_eq!(there(&m), "cheap");
    m.run("A", End::Fail);
    m.pass_ms(5_000);
    assert_eq!(m.work("A").agent.as_str(), "cheap");
    m.run("A", End::Fail);
    m.pass_ms(10_000);
    // Twice failed: the next tier is asked.
    assert_eq!(m.work("A").agent.as_str(), "strong");
}

#[test]
fn one_that_cools_down_is_no_help_and_others_come() {
    let mut m = machine(vec![scaling("w", 2, 3)], |_| {});
    for task in ["A", "B", "C"] {
        m.add(&tasks(&[task]));
        m.must(Command::PauseAgent { name: AgentName::new("w-2") });
        assert_eq!(m.work(task).agent.as_str(), "w-1");
        m.must(Command::ResumeAgent { name: AgentName::new("w-2") });
        m.run(task, End::Fail);
        m.must(Command::HoldTasks { ids: vec![id(task)] });
    }
    assert_ne!(agent(&m, "w-1").breaker, Breaker::default());
    m.add(&tasks(&["D", "E"]));
    assert_eq!(there(&m), "w-1 w-2 w-3");
    assert_eq!(busy(&m), 2);
}

#[test]
fn a_plan_counts_those_that_come() {
    let mut m = machine(vec![scaling("w", 1, 4)], |_| {});
    m.must(Command::PauseAgent { name: AgentName::new("w-1") });
    m.must(Command::Pause);
    m.add(&tasks(&["A", "B", "C", "D", "E", "F", "G", "H", "I"]));
    let plan = plan::plan(&m.state, m.now, Workers::Agents, 100);
    // One of the four is paused.
    assert_eq!((plan.schedule.len(), plan.workers), (9, 3));
    assert_eq!((plan.work_ms, plan.makespan_ms, plan.lower_bound_ms), (9, 3, 3));
    assert_eq!(plan.busy_ms.values().sum::<u64>(), 9);
    assert_eq!(plan.bottleneck.map(|(_, ms)| ms), Some(3));
}

#[test]
fn a_person_says_how_many_there_are() {
    let mut m = machine(vec![fixed("w", 3)], |_| {});
    m.add(&tasks(&["A", "B"]));
    m.must(scale("w", 1));
    assert_eq!(there(&m), "w-1 (w-2)");
    m.run("B", End::Done);
    assert_eq!(there(&m), "w-1");
    m.must(scale("w", 5));
    assert_eq!(there(&m), "w-1 w-2 w-3 w-4 w-5");
    assert_eq!(agent(&m, "w-2").completed, 1);
    m.pass_ms(10 * MINUTE_MS);
    assert_eq!(m.state.agents.len(), 5);
    m.must(auto("w"));
    assert_eq!(there(&m), "w-1 w-2 w-3");
    assert!(m.state.targets.is_empty());
    assert_eq!(m.ask(scale("w", 3)), Answer::Note("`w` has 3 agents already".into()));
}

#[test]
fn the_first_of_a_group_of_one_keeps_its_name() {
    let mut m = machine(vec![fixed("w", 1)], |_| {});
    m.add(&tasks(&["A", "B", "C"]));
    assert_eq!(m.work("A").agent.as_str(), "w");
    m.must(scale("w", 3));
    assert_eq!((there(&m).as_str(), busy(&m)), ("w w-2 w-3", 3));
    m.must(scale("w", 1));
    assert_eq!(there(&m), "w (w-2) (w-3)");
    let attempt = m.work("C");
    assert!(m.state.rules_of(&attempt).group_of(&attempt.agent).is_some());
    m.run("B", End::Done);
    m.run("C", End::Done);
    assert_eq!(there(&m), "w");
}

#[test]
fn a_number_that_cannot_be_is_refused() {
    let groups =
        vec![scaling("w", 1, 4), fixed("v", 1), fixed("V-2", 1), fixed("u", 2), fixed("u", 1)];
    let mut m = machine(groups, |_| {});
    let refused = |m: &mut Machine, asked| m.refused(asked);
    assert_eq!(refused(&mut m, scale("w", 5)), "`w` has from 1 to 4 agents, not 5");
    assert_eq!(refused(&mut m, scale("w", 0)), "`w` has from 1 to 4 agents, not 0");
    assert_eq!(refused(&mut m, scale("x", 1)), "there is no group of agents `x`");
    assert_eq!(refused(&mut m, scale("w-1", 1)), "there is no group of agents `w-1`");
    assert_eq!(refused(&mut m, scale("v", 2)), "`V-2` is an agent of another group");
    assert_eq!(refused(&mut m, scale("u", 2)), "more than one `[[agent]]` is called `u`");
    let most = "a group has at most 10000 agents, not 10001";
    assert_eq!(refused(&mut m, scale("v", 10_001)), most);
}

#[test]
fn letting_all_go_is_told_to_the_person_and_to_the_tasks() {
    let mut m = machine(vec![fixed("w", 1)], |_| {});
    m.add(&tasks(&["A", "B"]));
    let told = "no agent serves `implementation` now: tasks wait there until one does";
    assert_eq!(m.ask(scale("w", 0)), Answer::Note(told.into()));
    m.turns();
    let what = m.state.tasks[&id("B")].unserved.clone().expect("it waits for an agent");
    assert_eq!(what, "no agent serves stage `implementation`: pipeline agent scale w 1");
    m.run("A", End::Done);
    assert_eq!(there(&m), "");
    m.must(scale("w", 1));
    assert_eq!(m.stand("B"), "working B.impl.1");
    assert_eq!(m.state.tasks[&id("B")].unserved, None);
}

fn unserved(m: &Machine, name: &str) -> Option<String> {
    m.state.tasks[&id(name)].unserved.clone()
}

#[test]
fn who_has_what_is_needed_and_was_let_go_is_named_with_the_command() {
    let gpu = AgentGroup { capabilities: vec!["gpu".into()], ..fixed("gpu", 2) };
    let mut m = machine(vec![fixed("w", 1), gpu], |_| {});
    m.must(scale("gpu", 0));
    let needing = |name: &str, need: &str| {
        let mut new = new_task(name, &[]);
        new.spec.needs = vec![need.into()];
        new
    };
    m.add(&[needing("A", "gpu"), needing("B", "gpu-2")]);
    m.turns();
    let what = "no agent of stage `implementation` has `gpu`: pipeline agent scale gpu 1";
    assert_eq!(unserved(&m, "A").as_deref(), Some(what));
    let what = "no agent of stage `implementation` has `gpu-2`: pipeline agent scale gpu 2";
    assert_eq!(unserved(&m, "B").as_deref(), Some(what));
    m.must(scale("gpu", 2));
    assert_eq!((unserved(&m, "A"), unserved(&m, "B")), (None, None));
}

#[test]
fn what_nobody_can_take_after_an_edit_is_told_at_once_and_told_again() {
    let mut m = machine(vec![fixed("w", 1)], |settings| {
        settings.scheduler.resources.insert("gpu".into(), 2000);
    });
    m.must(Command::Pause);
    m.add(&tasks(&["A"]));
    m.turns();
    let edit = |m: &mut Machine, change: &dyn Fn(&mut Edit)| {
        let mut edit = Edit::default();
        change(&mut edit);
        m.must(Command::EditTask { id: id("A"), edit: Box::new(edit) });
    };
    for _ in 0..2 {
        edit(&mut m, &|edit| edit.needs = Some(vec!["zz".into()]));
        let what = "no agent of stage `implementation` has `zz`";
        assert_eq!(unserved(&m, "A").as_deref(), Some(what));
        edit(&mut m, &|edit| edit.title = Some("another".into()));
        assert_eq!(unserved(&m, "A").as_deref(), Some(what));
        edit(&mut m, &|edit| edit.needs = Some(Vec::new()));
        assert_eq!(unserved(&m, "A"), None);
    }
    edit(&mut m, &|edit| edit.resources = Some([("gpu".into(), "3".into())].into()));
    let what = unserved(&m, "A").expect("there are two");
    assert!(what.contains("`gpu`: needs 3, there is 2 in all"), "{what}");
    let told = m
        .log
        .iter()
        .filter(|change| matches!(change, Change::Task(_, TaskChange::Unserved { .. })));
    assert_eq!(told.count(), 5, "each change once");
    m.state.check();
}

#[test]
fn new_settings_that_leave_tasks_to_nobody_are_told_of_each_of_them() {
    let mut m = machine(vec![fixed("w", 1)], |_| {});
    m.must(Command::Pause);
    let many: Vec<NewTask> = (0..1500).map(|n| new_task(&format!("T{n}"), &[])).collect();
    m.add(&many);
    m.turns();
    adopt(&mut m, "1", vec![group("other", &["architect"], 1)]);
    assert!(m.state.tasks.values().all(|task| task.unserved.is_some()));
}

#[test]
fn a_number_by_hand_stays_until_the_settings_of_that_group_change() {
    let mut m = machine(vec![scaling("w", 1, 4), fixed("v", 1)], |_| {});
    m.must(scale("w", 2));
    m.must(scale("v", 2));
    assert_eq!(there(&m), "v v-2 w-1 w-2");
    m.add(&tasks(&["A", "B", "C", "D", "E"]));
    m.pass_ms(5 * MINUTE_MS);
    assert_eq!(there(&m), "v v-2 w-1 w-2");
    // Something else of it changed.
    adopt(&mut m, "1", vec![AgentGroup { tier: 2, ..scaling("w", 1, 4) }, fixed("v", 1)]);
    assert_eq!(there(&m), "v v-2 w-1 w-2");
    adopt(&mut m, "2", vec![scaling("w", 1, 3), fixed("v", 1)]);
    assert_eq!((there(&m).as_str(), busy(&m)), ("v v-2 w-1 w-2 w-3", 5));
    // The name is another one's now.
    adopt(&mut m, "3", vec![scaling("w", 1, 3), fixed("v", 1), fixed("v-2", 1)]);
    assert_eq!(there(&m), "v v-2 w-1 w-2 w-3");
    assert!(!m.state.targets.contains_key("v"));
    // Fewer than are there: they leave after their task.
    adopt(&mut m, "4", vec![scaling("w", 0, 1), fixed("v", 1)]);
    assert_eq!(there(&m), "v (v-2) w (w-1) (w-2) (w-3)");
}
