//! What a plan says of a project as it stands: running, paused, held, short of agents.

use pipeline::machine::estimate::{COUNT_MIN, Subject, learn};
use pipeline::machine::event::NewTask;
use pipeline::machine::id::AgentName;
use pipeline::machine::mode::Rollout;
use pipeline::machine::plan::{
    ATTEMPTS_MAX, Assumed, OUTLOOK_ATTEMPTS_MAX, Outlook, Plan, Workers, attempts_max, outlook,
    plan,
};
use pipeline::machine::settings::Settings;
use pipeline::machine::{Command, Observation};

use crate::machine_support::{End, Machine, group, id, new_task, settings, stage};

const MINUTE: u64 = 60_000;

/// One stage of ten minutes, two agents; the monitor runs.
fn machine(change: impl FnOnce(&mut Settings)) -> Machine {
    let mut settings = settings();
    settings.stages = vec![stage("implementation", "impl", true)];
    settings.stages[0].estimate_ms = 10 * MINUTE;
    settings.agents = vec![group("agent", &["implementation"], 2)];
    change(&mut settings);
    let mut machine = Machine::new(settings);
    machine.begin();
    machine
}

fn planned(machine: &Machine) -> Plan {
    let plan = plan(&machine.state, machine.now, Workers::Agents, ATTEMPTS_MAX);
    plan.end.check();
    plan
}

/// Returns who does what from when to when, in minutes.
fn schedule(plan: &Plan) -> Vec<String> {
    let row = |entry: &pipeline::machine::plan::Entry| {
        let (from, to) = (entry.start_ms / MINUTE, entry.end_ms / MINUTE);
        format!("{} {from}-{to} {}", entry.task, entry.agent)
    };
    plan.schedule.iter().map(row).collect()
}

fn left_out(plan: &Plan) -> Vec<&str> {
    plan.left_out.iter().map(|id| id.as_str()).collect()
}

fn tasks(names: &[&str]) -> Vec<NewTask> {
    names.iter().map(|name| new_task(name, &[])).collect()
}

#[test]
fn what_runs_is_planned_with_what_is_left_of_it() {
    let mut m = machine(|_| {});
    m.add(&tasks(&["A", "B", "C"]));
    m.start("A");
    m.pass_ms(4 * MINUTE);
    m.start("B");
    let before = m.state.clone();
    let plan = planned(&m);
    assert_eq!(schedule(&plan), ["A 0-6 agent-1", "B 0-10 agent-2", "C 6-16 agent-1"]);
    assert!(plan.schedule[0].is_running && !plan.schedule[2].is_running);
    assert_eq!(before, m.state);
    // What is overdue is given another tenth, again and again.
    m.pass_ms(20 * MINUTE);
    assert_eq!(schedule(&planned(&m)), ["A 0-1 agent-1", "B 0-1 agent-2", "C 1-11 agent-1"]);
}

#[test]
fn what_ends_early_is_followed_at_once_and_failures_wait_out_their_pause() {
    let mut m = machine(|settings| settings.agents[0].count = 1);
    m.add(&tasks(&["A", "B"]));
    m.run("A", End::Fail);
    m.start("B");
    let plan = planned(&m);
    assert_eq!(schedule(&plan), ["B 0-10 agent", "A 10-20 agent"]);
    let mut m = machine(|settings| settings.agents[0].count = 1);
    m.add(&tasks(&["A"]));
    m.run("A", End::Fail);
    assert_eq!(planned(&m).schedule[0].start_ms, 5_000);
}

#[test]
fn a_paused_or_shadow_project_is_planned_as_if_it_were_not() {
    let mut m = machine(|_| {});
    m.must(Command::Pause);
    m.add(&tasks(&["A"]));
    let plan = planned(&m);
    assert_eq!((plan.assumed, plan.schedule.len()), (vec![Assumed::Resumed], 1));
    assert!(m.state.is_paused);

    let mut m = machine(|settings| settings.project.rollout = Rollout::Shadow);
    m.add(&tasks(&["A"]));
    m.see(Observation::ShortageSeen { what: Some("no room".into()) });
    m.see(Observation::OverloadSeen { what: Some("busy".into()) });
    let plan = planned(&m);
    assert_eq!(plan.assumed, [Assumed::Production, Assumed::Room, Assumed::Calm]);
    assert_eq!(schedule(&plan), ["A 0-10 agent-1"]);

    // Nobody has looked at the base yet: that is how every project begins.
    let mut m = Machine::new(settings());
    m.add(&tasks(&["A"]));
    let plan = planned(&m);
    assert_eq!((plan.assumed.len(), plan.schedule.len()), (0, 4));

    let mut m = machine(|_| {});
    let base = pipeline::machine::id::Oid::new("base-2");
    let landed = m.state.base.landed.clone();
    m.see(Observation::BaseSeen { tip: base.clone(), landed });
    m.see(Observation::BaseConflicts { base, paths: vec!["a".into()] });
    m.add(&tasks(&["A"]));
    let plan = planned(&m);
    assert_eq!((plan.assumed, plan.schedule.len()), (vec![Assumed::GoodBase], 1));
    assert!(plan.left_out.is_empty());
}

#[test]
fn what_cannot_go_on_by_itself_is_left_out() {
    let mut m = machine(|_| {});
    let mut all = tasks(&["A", "B", "C", "D", "E"]);
    all[0].is_held = true;
    all[1].spec.depends_on = vec![id("A")];
    all[2].spec.needs = vec!["gpu".into()];
    m.add(&all);
    m.run("D", End::Blocked);
    let plan = planned(&m);
    assert_eq!(schedule(&plan), ["E 0-10 agent-2"]);
    assert_eq!(left_out(&plan), ["A", "B", "C", "D"]);
    assert_eq!(plan.waves, [[id("E")]]);
}

#[test]
fn interchangeable_agents_do_everything_and_what_runs_is_ended_by_who_runs_it() {
    let mut m = machine(|settings| {
        settings.agents = vec![group("agent", &["implementation"], 1)];
        settings.agents[0].capabilities = vec!["gpu".into()];
    });
    let mut all = tasks(&["A", "B", "C", "D"]);
    all[1].spec.needs = vec!["agent".into(), "gpu".into()];
    m.add(&all);
    m.start("A");
    let plan = plan(&m.state, m.now, Workers::Alike(3), ATTEMPTS_MAX);
    let rows = ["A 0-10 agent", "B 0-10 worker-1", "C 0-10 worker-2", "D 0-10 worker-3"];
    assert_eq!(schedule(&plan), rows);
    assert_eq!((plan.workers, plan.work_ms), (3, 30 * MINUTE));
    assert_eq!(plan.busy_ms[&AgentName::new("agent")], 10 * MINUTE);
}

#[test]
fn one_more_agent_saves_where_the_work_is() {
    let mut m = machine(|settings| {
        settings.stages.push(stage("supervisor", "super", false));
        settings.stages[1].estimate_ms = MINUTE;
        settings.agents[0].count = 1;
        settings.agents.push(group("super", &["supervisor"], 1));
    });
    m.add(&tasks(&["A", "B", "C", "D"]));
    let plan = planned(&m);
    assert_eq!(plan.makespan_ms, 41 * MINUTE);
    let gain = plan.gain_ms.expect("it was tried");
    assert_eq!((gain["agent"], gain["super"]), (19 * MINUTE, 0));
    let (stage, ms) = plan.bottleneck.expect("there is work");
    assert_eq!((stage.as_str(), ms), ("implementation", 40 * MINUTE));
    assert_eq!(plan.lower_bound_ms, 22 * MINUTE);
}

#[test]
fn each_group_takes_what_it_took_so_far() {
    let mut m = machine(|settings| {
        settings.agents =
            vec![group("fast", &["implementation"], 1), group("slow", &["implementation"], 1)];
    });
    m.add(&tasks(&["A", "B"]));
    for (name, ms) in [("fast", 2 * MINUTE), ("slow", 30 * MINUTE)] {
        let subject = Subject { stage: "implementation", group: Some(name), complexity: None };
        (0..COUNT_MIN).for_each(|_| learn(&mut m.state.metrics.learned, subject, ms));
    }
    let plan = planned(&m);
    assert_eq!(schedule(&plan), ["A 0-2 fast", "B 0-30 slow"]);
    // The fast one could do either.
    assert_eq!((plan.critical_ms, plan.lower_bound_ms), (2 * MINUTE, 2 * MINUTE));
}

#[test]
fn a_plan_that_would_be_too_long_is_cut_and_says_so() {
    let mut m = machine(|_| {});
    m.add(&tasks(&["A", "B", "C", "D", "E", "F"]));
    let cut = plan(&m.state, m.now, Workers::Agents, 4);
    assert!(cut.is_cut && cut.gain_ms.is_none());
    assert_eq!((cut.schedule.len(), left_out(&cut)), (4, vec!["E", "F"]));
    assert!(!cut.end.is_paused);
    assert_eq!(attempts_max(&m.state, Workers::Agents), ATTEMPTS_MAX);
    assert_eq!(attempts_max(&m.state, Workers::Alike(1000)), 4_000);
    let whole = plan(&m.state, m.now, Workers::Agents, 6);
    assert!(!whole.is_cut && whole.left_out.is_empty());
}

#[test]
fn a_drain_to_another_mode_is_carried_out_in_the_plan() {
    let mut m = machine(|_| {});
    m.add(&tasks(&["A", "B", "C"]));
    m.start("A");
    m.start("B");
    let to = pipeline::machine::mode::Orchestration::Sequential;
    m.must(Command::SwitchMode { to, wait_ms: Some(60 * MINUTE), is_forced: false });
    let plan = planned(&m);
    assert_eq!(plan.end.orchestration, to);
    assert_eq!(schedule(&plan), ["A 0-10 agent-1", "B 0-10 agent-2", "C 10-20 agent-1"]);
}

#[test]
fn a_quick_look_says_when_all_is_done_as_things_stand() {
    let mut m = machine(|_| {});
    let look = |m: &Machine| outlook(&m.state, m.now);
    assert_eq!(look(&m), Outlook::Unknown, "there is nothing to do");
    m.add(&tasks(&["A", "B", "C"]));
    let end = Outlook::Ends { in_ms: 20 * MINUTE };
    assert_eq!(look(&m), end);
    m.must(Command::Pause);
    assert_eq!(look(&m), Outlook::Unknown, "nothing moves before somebody resumes it");
    m.must(Command::Resume);
    m.see(Observation::OverloadSeen { what: Some("busy".into()) });
    assert_eq!(look(&m), Outlook::Unknown);
    m.see(Observation::OverloadSeen { what: None });
    assert_eq!(look(&m), end);
    m.must(Command::HoldTasks { ids: vec![id("A"), id("B"), id("C")] });
    let running = Outlook::Ends { in_ms: 10 * MINUTE };
    assert_eq!(look(&m), running, "what runs comes to its end, and a person holds the rest");
    m.add(&(0..OUTLOOK_ATTEMPTS_MAX).map(|n| new_task(&format!("N{n}"), &[])).collect::<Vec<_>>());
    assert_eq!(look(&m), Outlook::TooMuch);
}

/// What waits for one path is looked at again and again while agents are free.
#[test]
fn a_quick_look_is_bounded_where_much_waits_for_one_path() {
    let mut m = machine(|settings| settings.agents[0].count = 4);
    let sharing = |number: usize| {
        let mut task = new_task(&format!("S{number}"), &[]);
        task.spec.touches = vec![format!("src/m{number}/**"), "Cargo.lock".into()];
        task
    };
    m.add(&(0..20).map(sharing).collect::<Vec<_>>());
    assert!(matches!(outlook(&m.state, m.now), Outlook::Ends { .. }));
    m.add(&(20..900).map(sharing).collect::<Vec<_>>());
    assert_eq!(outlook(&m.state, m.now), Outlook::TooMuch);
}

#[test]
fn a_plan_is_the_built_in_schedulers_where_another_decides() {
    let mut m = machine(|settings| settings.scheduler.command = vec!["external".into()]);
    m.add(&tasks(&["A", "B", "C"]));
    m.turns();
    let before = m.state.clone();
    assert_eq!(before.proposal.number, 1, "it is asked");
    let plan = planned(&m);
    assert_eq!(plan.assumed, [Assumed::BuiltIn]);
    assert_eq!(schedule(&plan), ["A 0-10 agent-1", "B 0-10 agent-2", "C 10-20 agent-1"]);
    assert_eq!(outlook(&m.state, m.now), Outlook::Ends { in_ms: 20 * MINUTE });
    assert_eq!(m.state, before);
}
