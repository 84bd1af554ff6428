//! What attempts cost, and where the bounds on it stop the work.

use pipeline::machine::attempt::{Class, Exit};
use pipeline::machine::change::ProjectChange;
use pipeline::machine::event::RetryTarget;
use pipeline::machine::id::AttemptId;
use pipeline::machine::purse::{Bound, Level};
use pipeline::machine::settings::{AgentCommand, Limits, Settings};
use pipeline::machine::usage::Usage;
use pipeline::machine::{Change, Command, Observation};

use crate::machine_support::{End, Machine, exit, id, new_task, settings};

const CENT: u64 = 10_000;

/// Agents of one preset at every stage.
fn machine(change: impl FnOnce(&mut Settings)) -> Machine {
    let mut settings = settings();
    for group in &mut settings.agents {
        let (name, model) = ("mine".to_owned(), String::new());
        group.command = AgentCommand::Preset { name, model, is_env_own: false };
    }
    change(&mut settings);
    let mut m = Machine::new(settings);
    m.begin();
    m
}

/// One stage with so many agents.
fn wide(count: u32, change: impl FnOnce(&mut Limits)) -> Machine {
    machine(|settings| {
        settings.stages.drain(..2);
        settings.stages.truncate(1);
        settings.agents.drain(..2);
        settings.agents.truncate(1);
        settings.agents[0].count = count;
        change(&mut settings.limits);
    })
}

fn usage(micros: Option<u64>) -> Usage {
    Usage { cost_usd_micros: micros, ..Usage::default() }
}

/// Ends the attempt; what it said of its use is given.
fn end(m: &mut Machine, attempt: &AttemptId, how: End, usage: Usage) {
    let exit = Box::new(Exit { usage, ..exit(how, m.now) });
    m.see(Observation::Exited { attempt: attempt.clone(), exit });
    m.save(attempt, true, &[]);
    m.see(Observation::Advanced { attempt: attempt.clone(), changed: None });
    m.turns();
    m.state.check();
}

/// Runs the task's attempt, which costs so many cents.
fn run(m: &mut Machine, task: &str, how: End, cents: u64) {
    let attempt = m.start(task);
    end(m, &attempt, how, usage(Some(cents * CENT)));
}

/// What was told of bounds, oldest first.
fn told(m: &Machine) -> Vec<(Bound, Level, u64)> {
    let told = m.log.iter().filter_map(|change| match change {
        Change::Project(ProjectChange::BudgetTold { bound, level, used, .. }) => {
            Some((*bound, *level, *used))
        }
        _ => None,
    });
    told.collect()
}

fn adopt(m: &mut Machine, change: impl FnOnce(&mut Limits)) {
    let mut settings = (*m.state.settings).clone();
    settings.hash.push('1');
    change(&mut settings.limits);
    m.must(Command::AdoptSettings { settings: Box::new(settings) });
    m.state.check();
}

#[test]
fn a_run_stops_at_its_cost_and_goes_on_when_the_limit_is_raised() {
    let mut m = machine(|s| s.limits.cost_usd_micros = 100 * CENT);
    m.add(&[new_task("A", &[])]);
    run(&mut m, "A", End::Done, 79);
    assert_eq!(told(&m), []);
    run(&mut m, "A", End::Done, 1);
    let near = (Bound::Cost, Level::Near, 80 * CENT);
    assert_eq!(told(&m), [near]);
    run(&mut m, "A", End::Done, 15);
    assert_eq!(told(&m), [near], "it is told once");
    assert_eq!(m.stand("A"), "working A.super.1");
    run(&mut m, "A", End::Changes, 10);
    let reached = (Bound::Cost, Level::Reached, 105 * CENT);
    assert_eq!(told(&m), [near, reached]);
    assert_eq!(m.stand("A"), "ready impl");
    assert!(m.state.is_idle());
    adopt(&mut m, |limits| limits.cost_usd_micros = 110 * CENT);
    assert_eq!(m.stand("A"), "working A.impl.2");
    assert_eq!(told(&m).last(), Some(&(Bound::Cost, Level::Near, 105 * CENT)), "of the new limit");
}

#[test]
fn a_killed_monitor_forgets_nothing_and_one_that_ended_begins_a_new_run() {
    let mut m = machine(|s| {
        s.limits.cost_usd_micros = 100 * CENT;
        s.limits.attempts_per_run = 3;
    });
    let started = || Observation::MonitorStarted { pid: 2, allows_red_base: false };
    let ended = || Observation::MonitorEnded { why: "done".into() };
    m.add(&[new_task("A", &[])]);
    run(&mut m, "A", End::Done, 60);
    m.see(started());
    m.turns();
    assert_eq!((m.state.run.attempts, m.state.run.spent.cost()), (2, Some(60 * CENT)));
    // One that leaves an agent at work leaves its run as well.
    let attempt = m.start("A");
    m.see(ended());
    m.see(started());
    end(&mut m, &attempt, End::Done, usage(Some(50 * CENT)));
    assert_eq!(m.stand("A"), "ready impl");
    // Killed with nothing at work: still the same.
    m.see(started());
    m.turns();
    assert_eq!(m.stand("A"), "ready impl");
    assert_eq!(m.state.run.spent.cost(), Some(110 * CENT));
    m.see(ended());
    m.see(started());
    m.turns();
    assert_eq!(m.stand("A"), "working A.impl.1");
    assert_eq!((m.state.run.attempts, m.state.run.spent.cost()), (1, None));
    assert_eq!(m.state.tasks[&id("A")].spent.cost(), Some(110 * CENT), "a task's are its own");
}

#[test]
fn what_runs_counts_with_what_its_group_costs_on_average() {
    let mut m = wide(4, |limits| limits.cost_usd_micros = 1000 * CENT);
    let names = ["A", "B", "C", "D", "E", "F", "G", "H"];
    m.add(&names.map(|name| new_task(name, &[])));
    let live = |m: &Machine| m.state.attempts.values().filter(|a| a.is_work()).count();
    assert_eq!(live(&m), 4, "nothing is known yet");
    run(&mut m, "A", End::Done, 300);
    // 300 are spent and 3 × 300 may be.
    assert_eq!(live(&m), 3);
    assert!(!m.state.is_idle());
    run(&mut m, "B", End::Done, 100);
    // 400 are spent and 2 × 200 may be: there is room for one.
    assert_eq!(live(&m), 3);
    run(&mut m, "C", End::Done, 20);
    // 420, and two of 140 each are at work: all agents may.
    assert_eq!(live(&m), 4);
    for name in ["D", "E", "F", "G", "H"] {
        if m.stand(name).starts_with("working") {
            run(&mut m, name, End::Done, 140);
        }
    }
    // What began within the bound went beyond it by less than one attempt for each agent.
    let spent = m.state.run.spent.cost().expect("it is known");
    assert!((1000 * CENT..1000 * CENT + 140 * CENT).contains(&spent), "{spent}");
    assert_eq!(live(&m), 0);
}

#[test]
fn a_group_of_which_nothing_is_known_yet_counts_as_the_others_do() {
    let mut m = machine(|s| s.limits.cost_usd_micros = 100 * CENT);
    m.add(&[new_task("A", &[]), new_task("B", &[]), new_task("C", &[])]);
    run(&mut m, "A", End::Done, 40);
    // 40 are spent; B's architect and A's tester may cost as much each.
    assert_eq!([m.stand("A"), m.stand("B")], ["working A.test.1", "working B.arch.1"]);
    run(&mut m, "A", End::Done, 10);
    // 50 are spent, B's may cost 40 more: one may begin, and then none.
    assert_eq!([m.stand("A"), m.stand("B")], ["working A.impl.1", "working B.arch.1"]);
    let attempt = m.start("B");
    end(&mut m, &attempt, End::Done, usage(None));
    // What never says what it costs is expected to cost what the rest of its group does.
    assert_eq!([m.stand("B"), m.stand("C")], ["working B.test.1", "working C.arch.1"]);
}

#[test]
fn what_is_not_known_uses_nothing_up_and_is_counted() {
    let mut m = wide(1, |limits| limits.cost_usd_micros = 100 * CENT);
    m.add(&[new_task("A", &[])]);
    let attempt = m.start("A");
    let tokens = Usage { input_tokens: Some(9), ..usage(None) };
    end(&mut m, &attempt, End::Fail, tokens);
    let spent = |m: &Machine| {
        let spent = &m.state.tasks[&id("A")].spent;
        assert_eq!(*spent, m.state.run.spent);
        assert_eq!(*spent, m.state.metrics.groups["implementation"]);
        (spent.cost(), spent.unpriced, spent.tokens)
    };
    assert_eq!(spent(&m), (None, 1, Some(9)));
    m.pass_to_deadline();
    let attempt = m.start("A");
    m.see(Observation::Lost { attempt: attempt.clone(), why: "gone".into() });
    m.save(&attempt, false, &[]);
    assert_eq!(spent(&m), (None, 2, Some(9)), "it ran, and nobody knows how long");
    m.pass_to_deadline();
    let attempt = m.start("A");
    end(&mut m, &attempt, End::Unstartable, usage(None));
    assert_eq!(spent(&m), (None, 2, Some(9)), "what never ran cost nothing");
    assert_eq!(told(&m), []);
}

#[test]
fn scripts_without_a_provider_have_no_cost_that_could_be_unknown() {
    let mut m = machine(|s| {
        for group in &mut s.agents {
            group.command = AgentCommand::Shell("true".into());
        }
    });
    m.add(&[new_task("A", &[])]);
    m.run("A", End::Done);
    assert_eq!(m.state.run.spent, pipeline::machine::purse::Spent::default());
}

#[test]
fn a_task_that_cost_too_much_waits_for_a_person_alone_and_retry_grants_as_much_again() {
    let mut m = machine(|s| s.limits.cost_usd_per_task_micros = 100 * CENT);
    m.add(&[new_task("A", &[]), new_task("B", &[]), new_task("C", &["A"])]);
    run(&mut m, "A", End::Done, 79);
    run(&mut m, "A", End::Fail, 5);
    assert_eq!(told(&m), [(Bound::TaskCost, Level::Near, 84 * CENT)]);
    m.pass_to_deadline();
    run(&mut m, "A", End::Fail, 16);
    assert_eq!(m.stand("A"), "blocked budget test");
    let task = &m.state.tasks[&id("A")];
    assert_eq!(task.evidence.len(), 2, "{:?}", task.evidence);
    let reason = format!("{:?}", task.phase);
    assert!(reason.contains("spent $1.00 of its $1.00 (`limits.cost_usd_per_task`)"), "{reason}");
    assert_eq!(m.stand("C"), "blocked dependency -");
    run(&mut m, "B", End::Done, 10);
    assert_eq!(m.stand("B"), "working B.test.1");
    // A limit that is raised frees nobody by itself: a person has been asked.
    adopt(&mut m, |limits| limits.cost_usd_per_task_micros = 150 * CENT);
    assert_eq!(m.stand("A"), "blocked budget test");
    let (stage, note, is_fresh) = (None, None, false);
    let target = RetryTarget::Tasks(vec![id("A")]);
    run(&mut m, "B", End::Done, 10);
    m.must(Command::RetryTasks { target, stage, note, is_fresh });
    assert_eq!(m.stand("A"), "working A.test.3");
    run(&mut m, "A", End::Done, 60);
    assert_eq!(m.state.tasks[&id("A")].spent.cost(), Some(160 * CENT));
    assert_ne!(m.stand("A"), "blocked budget impl", "60 cents count of it");
}

#[test]
fn a_limit_that_is_lowered_holds_before_the_next_attempt() {
    let mut m = machine(|s| s.retry.first_ms = 60_000);
    m.add(&[new_task("A", &[])]);
    run(&mut m, "A", End::Fail, 50);
    assert_eq!(m.stand("A"), "ready arch");
    adopt(&mut m, |limits| limits.cost_usd_per_task_micros = 40 * CENT);
    assert_eq!(m.stand("A"), "blocked budget arch");
}

#[test]
fn work_that_is_finished_is_checked_and_lands_when_the_budget_is_used_up() {
    let mut m = wide(1, |limits| {
        limits.cost_usd_micros = 10 * CENT;
        limits.cost_usd_per_task_micros = 10 * CENT;
        limits.attempts_per_run = 1;
    });
    let mut settings = (*m.state.settings).clone();
    settings.hash.push('1');
    settings.stages[0].checks = vec!["check".into()];
    m.must(Command::AdoptSettings { settings: Box::new(settings) });
    m.add(&[new_task("A", &[]), new_task("B", &[])]);
    run(&mut m, "A", End::Done, 20);
    let check = AttemptId::new("A.impl-check.1");
    m.see(Observation::Started { attempt: check.clone(), at: m.now });
    m.exit(&check, End::Done);
    m.see(Observation::Advanced { attempt: AttemptId::new("A.impl.1"), changed: None });
    m.turns();
    m.land("A");
    assert_eq!(m.stand("A"), "completed");
    assert_eq!(m.stand("B"), "ready impl");
}

#[test]
fn a_session_that_is_taken_up_again_is_paid_once() {
    let mut m = wide(1, |_| {});
    m.add(&[new_task("A", &[])]);
    let total = |cents: u64| Usage {
        session: Some("s".into()),
        is_session_total: true,
        input_tokens: Some(cents),
        ..usage(Some(cents * CENT))
    };
    let attempt = m.start("A");
    end(&mut m, &attempt, End::Fail, total(10));
    m.see(Observation::MonitorStarted { pid: 3, allows_red_base: false });
    m.pass_to_deadline();
    let attempt = m.start("A");
    end(&mut m, &attempt, End::Done, total(25));
    let task = &m.state.tasks[&id("A")];
    assert_eq!((task.spent.cost(), task.spent.tokens), (Some(25 * CENT), Some(25)));
    assert_eq!(
        task.history[1].exit.as_ref().map(|exit| exit.usage.cost_usd_micros),
        Some(Some(15 * CENT))
    );
    assert_eq!(m.state.metrics.cost_usd_micros, Some(25 * CENT));
    assert!(
        task.history.iter().any(|old| old.outcome.as_ref().map(|o| o.class) == Some(Class::Failed))
    );
}
