//! Which agent gets a task: fitness, affinity, turns, escalation, and agents that fail.

use pipeline::machine::agent::Agent;
use pipeline::machine::breaker::Breaker;
use pipeline::machine::change::TaskChange;
use pipeline::machine::event::{NewTask, RetryTarget};
use pipeline::machine::id::AgentName;
use pipeline::machine::mode::Orchestration;
use pipeline::machine::settings::{AgentCommand, AgentGroup, Settings};
use pipeline::machine::task::TaskKind;
use pipeline::machine::{Answer, Change, Command, Observation, next_deadline};

use crate::machine_support::{End, Machine, exit, group, id, new_task, settings};

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

fn serving(name: &str, count: u32) -> AgentGroup {
    group(name, &["implementation"], count)
}

fn of_tier(name: &str, tier: u32) -> AgentGroup {
    AgentGroup { tier, ..serving(name, 1) }
}

fn task(name: &str, change: impl FnOnce(&mut NewTask)) -> NewTask {
    let mut task = new_task(name, &[]);
    change(&mut task);
    task
}

fn as_complex_as(name: &str, word: &str) -> NewTask {
    task(name, |task| task.spec.complexity = Some(word.into()))
}

/// Adds the task and returns who gets it.
fn goes_to(m: &mut Machine, task: NewTask) -> String {
    let name = task.id.clone().expect("it has a name");
    m.add(&[task]);
    m.turns();
    m.work(name.as_str()).agent.to_string()
}

fn pause(m: &mut Machine, name: &str) {
    m.must(Command::PauseAgent { name: AgentName::new(name) });
}

fn resume(m: &mut Machine, name: &str) {
    m.must(Command::ResumeAgent { name: AgentName::new(name) });
}

#[test]
fn simple_tasks_go_to_the_lowest_free_tier_and_complex_ones_to_the_highest() {
    let groups = vec![of_tier("middle", 2), of_tier("high", 3), of_tier("low", 1)];
    let mut m = machine(groups, |_| {});
    assert_eq!(goes_to(&mut m, as_complex_as("A", "simple")), "low");
    assert_eq!(goes_to(&mut m, as_complex_as("B", "simple")), "middle");
    assert_eq!(goes_to(&mut m, as_complex_as("C", "simple")), "high");
    for task in ["A", "B", "C"] {
        m.run(task, End::Done);
    }
    assert_eq!(goes_to(&mut m, as_complex_as("D", "complex")), "high");
    assert_eq!(goes_to(&mut m, as_complex_as("E", "complex")), "middle");
    m.state.check();
}

#[test]
fn how_complex_a_task_is_is_assessed_where_nobody_says_it() {
    let mut m = machine(vec![of_tier("low", 1), of_tier("high", 2)], |_| {});
    let big = task("A", |task| {
        task.spec.body = "b".repeat(3000);
        task.spec.touches = (0..9).map(|n| format!("src/{n}")).collect();
    });
    assert_eq!(goes_to(&mut m, big), "high");
    m.run("A", End::Done);
    let small = task("B", |task| task.spec.body = "one word".into());
    assert_eq!(goes_to(&mut m, small), "low");
}

#[test]
fn a_group_is_preferred_for_the_complexity_it_names_and_takes_others_rather_than_idle() {
    let mut named = of_tier("named", 1);
    named.complexity = vec!["complex".into()];
    let mut m = machine(vec![named, of_tier("plain", 9)], |_| {});
    // The tier alone would say `plain`.
    assert_eq!(goes_to(&mut m, as_complex_as("A", "complex")), "named");
    m.run("A", End::Done);
    assert_eq!(goes_to(&mut m, as_complex_as("B", "simple")), "plain");
    assert_eq!(goes_to(&mut m, as_complex_as("C", "simple")), "named");
}

#[test]
fn an_agent_that_knows_the_epic_or_the_files_is_preferred() {
    let below = |name: &str| task(name, |task| task.spec.parent = Some(id("E")));
    let at = |name: &str, glob: &str| task(name, |task| task.spec.touches = vec![glob.into()]);
    let epics = [below("B"), below("C")];
    let files = [at("B", "src/b/**"), at("C", "src/b/x.rs")];
    for ([first, second], is_on) in
        [(&epics, true), (&epics, false), (&files, true), (&files, false)]
    {
        let groups = vec![serving("a", 1), serving("b", 1)];
        let mut m = machine(groups, |settings| settings.scheduler.affinity = is_on);
        m.add(&[task("E", |task| task.spec.kind = TaskKind::Epic)]);
        assert_eq!(goes_to(&mut m, at("A", "src/a/**")), "a");
        assert_eq!(goes_to(&mut m, first.clone()), "b");
        m.run("A", End::Done);
        m.run("B", End::Done);
        // Both are as busy and idle as long; `a` comes first by name.
        assert_eq!(goes_to(&mut m, second.clone()), if is_on { "b" } else { "a" });
    }
}

#[test]
fn affinity_lets_no_task_wait() {
    let mut m = machine(vec![serving("a", 1), serving("b", 1)], |_| {});
    let at = |name: &str| task(name, |task| task.spec.touches = vec!["src/b/**".into()]);
    assert_eq!(goes_to(&mut m, at("A")), "a");
    m.run("A", End::Done);
    pause(&mut m, "a");
    assert_eq!(goes_to(&mut m, at("B")), "b");
}

#[test]
fn a_task_goes_on_with_the_agent_that_did_its_earlier_stage() {
    let mut settings = settings();
    settings.stages = settings.stages[1..3].to_vec();
    settings.agents = vec![group("all", &["test", "implementation"], 2)];
    let mut m = Machine::new(settings);
    m.begin();
    pause(&mut m, "all-1");
    m.add(&[new_task("A", &[])]);
    m.turns();
    let attempt = m.start("A");
    resume(&mut m, "all-1");
    m.exit(&attempt, End::Done);
    // `all-1` has completed nothing yet and has been idle longer.
    assert_eq!(m.work("A").agent.as_str(), "all-2");
}

#[test]
fn among_equals_the_least_busy_goes_first_then_the_longest_idle() {
    let mut m = machine(vec![serving("w", 3)], |settings| settings.scheduler.affinity = false);
    let mut order = Vec::new();
    for number in 0..6 {
        let name = format!("T{number}");
        order.push(goes_to(&mut m, new_task(&name, &[])));
        m.now = m.now.plus_ms(1000);
        m.run(&name, End::Done);
    }
    assert_eq!(order, ["w-1", "w-2", "w-3", "w-1", "w-2", "w-3"]);
    // As busy as the others, and idle the shortest.
    pause(&mut m, "w-1");
    assert_eq!(goes_to(&mut m, new_task("U", &[])), "w-2");
    m.run("U", End::Done);
    resume(&mut m, "w-1");
    assert_eq!(goes_to(&mut m, new_task("V", &[])), "w-1");
}

#[test]
fn after_a_lost_attempt_another_agent_is_preferred_to_the_one_that_knows_the_task() {
    let mut m = machine(vec![serving("w", 2)], |_| {});
    assert_eq!(goes_to(&mut m, new_task("A", &[])), "w-1");
    let attempt = m.start("A");
    let why = "its keeper is gone".to_owned();
    m.see(Observation::Lost { attempt: attempt.clone(), why });
    m.save(&attempt, true, &[]);
    m.pass_to_deadline();
    assert_eq!(m.work("A").agent.as_str(), "w-2");
}

fn fail(m: &mut Machine, name: &str, end: End) {
    m.run(name, end);
    m.pass_to_deadline();
}

#[test]
fn after_failed_or_empty_attempts_only_a_higher_tier_gets_the_task() {
    let mut m = machine(vec![of_tier("low", 1), of_tier("high", 2)], |_| {});
    assert_eq!(goes_to(&mut m, as_complex_as("A", "simple")), "low");
    fail(&mut m, "A", End::Fail);
    assert_eq!(m.work("A").agent.as_str(), "low");
    assert_eq!(goes_to(&mut m, as_complex_as("B", "complex")), "high");
    let attempt = m.start("A");
    let exit = exit(End::Done, m.now);
    m.see(Observation::Exited { attempt: attempt.clone(), exit: Box::new(exit) });
    // Said completed and changed nothing.
    m.save(&attempt, false, &[]);
    m.pass_to_deadline();
    assert_eq!(m.stand("A"), "ready impl", "the low one is free and may not take it");
    m.run("B", End::Done);
    assert_eq!(m.work("A").agent.as_str(), "high");
    m.state.check();
}

#[test]
fn each_so_many_failures_ask_for_one_tier_more_up_to_the_highest() {
    let groups = vec![of_tier("one", 1), of_tier("five", 5), of_tier("nine", 9)];
    let mut m = machine(groups, |settings| {
        settings.scheduler.escalate_after = 1;
        settings.limits.attempts_per_stage = 5;
    });
    m.add(&[as_complex_as("A", "simple")]);
    m.turns();
    let mut order = Vec::new();
    for _ in 0..4 {
        order.push(m.work("A").agent.to_string());
        fail(&mut m, "A", End::Fail);
    }
    assert_eq!(order, ["one", "five", "nine", "nine"]);
}

#[test]
fn escalation_goes_to_the_tier_above_the_one_that_failed() {
    let groups = vec![of_tier("low", 1), of_tier("mid", 2), of_tier("high", 3)];
    let mut m = machine(groups, |settings| settings.limits.attempts_per_stage = 9);
    pause(&mut m, "low");
    m.add(&[as_complex_as("A", "simple")]);
    m.turns();
    let mut order = Vec::new();
    for _ in 0..5 {
        order.push(m.work("A").agent.to_string());
        fail(&mut m, "A", End::Fail);
    }
    assert_eq!(order, ["mid", "mid", "high", "high", "high"]);
    // What was not the task's fault counts for nothing, and no more does the one who tried since.
    let groups = vec![of_tier("low", 1), of_tier("mid", 2), of_tier("high", 3)];
    let mut m = machine(groups, |settings| settings.limits.attempts_per_stage = 9);
    m.add(&[as_complex_as("A", "simple")]);
    m.turns();
    fail(&mut m, "A", End::Fail);
    m.run("A", End::Stopped);
    fail(&mut m, "A", End::Fail);
    pause(&mut m, "mid");
    assert_eq!((m.work("A").agent.as_str(), m.work("A").demand.tier_min), ("mid", 2));
    fail(&mut m, "A", End::Fail);
    assert_eq!((m.work("A").agent.as_str(), m.work("A").demand.tier_min), ("high", 2));
    m.state.check();
}

#[test]
fn a_task_is_counted_from_the_lowest_tier_again_at_its_next_stage_and_after_a_retry() {
    let mut settings = settings();
    settings.stages = settings.stages[1..3].to_vec();
    settings.agents = vec![
        AgentGroup { tier: 1, ..group("low", &["test", "implementation"], 1) },
        AgentGroup { tier: 2, ..group("high", &["test", "implementation"], 1) },
    ];
    settings.scheduler.escalate_after = 1;
    settings.scheduler.affinity = false;
    let mut m = Machine::new(settings);
    m.begin();
    m.add(&[new_task("A", &[])]);
    m.turns();
    fail(&mut m, "A", End::Fail);
    assert_eq!(m.work("A").agent.as_str(), "high");
    m.run("A", End::Done);
    assert_eq!((m.stand("A").as_str(), m.work("A").agent.as_str()), ("working A.impl.1", "low"));
    fail(&mut m, "A", End::Fail);
    m.run("A", End::Blocked);
    let target = RetryTarget::Tasks(vec![id("A")]);
    m.must(Command::RetryTasks { target, stage: None, note: None, is_fresh: false });
    assert_eq!(m.work("A").agent.as_str(), "low");
}

#[test]
fn where_no_higher_tier_can_take_it_failures_change_nothing() {
    let mut needy = of_tier("low", 1);
    needy.capabilities = vec!["gpu".into()];
    let mut m = machine(vec![needy, of_tier("high", 2)], |_| {});
    let task = task("A", |task| task.spec.needs = vec!["gpu".into()]);
    assert_eq!(goes_to(&mut m, task), "low");
    fail(&mut m, "A", End::Fail);
    fail(&mut m, "A", End::Fail);
    assert_eq!(m.work("A").agent.as_str(), "low");
}

/// A has failed twice with `low`, and `high` is asked, which works on B.
fn escalated(groups: Vec<AgentGroup>) -> Machine {
    let mut m = machine(groups, |settings| settings.limits.attempts_per_stage = 9);
    assert_eq!(goes_to(&mut m, as_complex_as("A", "simple")), "low");
    assert_eq!(goes_to(&mut m, as_complex_as("B", "complex")), "high");
    fail(&mut m, "A", End::Fail);
    fail(&mut m, "A", End::Fail);
    assert_eq!(m.stand("A"), "ready impl", "the low one is free and may not take it");
    m
}

fn low_and_high() -> Vec<AgentGroup> {
    vec![of_tier("low", 1), of_tier("high", 2)]
}

#[test]
fn a_tier_in_which_nobody_works_is_not_waited_for() {
    // One that is paused, one that leaves, one that cannot start, and one that comes back.
    let mut m = escalated(low_and_high());
    pause(&mut m, "high");
    assert_eq!(m.work("A").agent.as_str(), "low");
    resume(&mut m, "high");
    fail(&mut m, "A", End::Fail);
    assert_eq!(m.stand("A"), "ready impl", "the high one may work again");
    m.run("B", End::Done);
    assert_eq!(m.work("A").agent.as_str(), "high");
    let away = Command::ScaleAgents { group: "high".into(), to: Some(0) };
    let unusable = vec![("high".to_owned(), "`x` is not on the PATH".to_owned())];
    let unusable = Observation::AgentsSeen { unusable: unusable.into_iter().collect() };
    let mut m = escalated(low_and_high());
    m.must(away);
    assert_eq!(m.work("A").agent.as_str(), "low");
    assert_eq!(m.state.tasks[&id("A")].unserved, None);
    let mut m = escalated(low_and_high());
    m.see(unusable);
    m.turns();
    assert_eq!(m.work("A").agent.as_str(), "low");
    m.state.check();
}

#[test]
fn a_tier_is_waited_for_that_is_busy_cools_down_or_comes() {
    let mut m = escalated(low_and_high());
    m.pass_ms(3_600_000);
    assert_eq!(m.stand("A"), "ready impl", "the high one is busy");
    let scaling = AgentGroup { scale_min: Some(0), ..of_tier("high", 2) };
    let mut m = escalated(vec![of_tier("low", 1), scaling]);
    m.run("B", End::Done);
    assert_eq!(m.work("A").agent.as_str(), "high");
    // Where more than one tier is left, the one that is asked for stays.
    let groups = vec![of_tier("low", 1), of_tier("high", 3), of_tier("middle", 2)];
    let mut m = machine(groups, |_| {});
    assert_eq!(goes_to(&mut m, as_complex_as("A", "simple")), "low");
    pause(&mut m, "high");
    fail(&mut m, "A", End::Fail);
    fail(&mut m, "A", End::Fail);
    assert_eq!(m.work("A").agent.as_str(), "middle");
}

#[test]
fn sent_back_too_often_is_blocked_with_all_the_evidence() {
    let mut settings = settings();
    settings.limits.send_backs = 2;
    let mut m = Machine::new(settings);
    m.begin();
    m.add(&[new_task("A", &[])]);
    m.turns();
    m.run("A", End::Done);
    m.run("A", End::Done);
    for _ in 0..3 {
        m.run("A", End::Done);
        m.run("A", End::Changes);
    }
    assert_eq!(m.stand("A"), "blocked changes_requested impl");
    let evidence = &m.state.tasks[&id("A")].evidence;
    let from: Vec<&str> = evidence.iter().map(|evidence| evidence.from.as_str()).collect();
    assert_eq!(from, ["A.super.1", "A.super.2", "A.super.3"]);
    assert!(evidence.iter().all(|evidence| evidence.text == "more"), "{evidence:?}");
}

fn agent<'a>(m: &'a Machine, name: &str) -> &'a Agent {
    &m.state.agents[&AgentName::new(name)]
}

/// Returns how long the agent gets nothing, in seconds.
fn cools_s(m: &Machine, name: &str) -> Option<u64> {
    agent(m, name).breaker.until.map(|until| until.ms_since(m.now) / 1000)
}

/// One stage with `w` and with `busy`, which works on `Z` meanwhile.
fn with_another(change: impl FnOnce(&mut Settings)) -> Machine {
    let mut m = machine(vec![serving("w", 1), serving("busy", 1)], change);
    m.add(&[task("Z", |task| task.spec.needs = vec!["busy".into()])]);
    m.turns();
    assert_eq!(m.work("Z").agent.as_str(), "busy");
    m
}

/// Returns whom `w` works for.
fn task_of_w(m: &Machine) -> String {
    let attempt = agent(m, "w").attempt.clone().expect("it works");
    m.state.attempts[&attempt].task.clone().expect("a task").to_string()
}

/// Lets new tasks fail, one after the other, all with the same agent.
fn fail_all(m: &mut Machine, names: &[&str], end: End) {
    for name in names {
        m.add(&[new_task(name, &[])]);
        m.run(name, end);
    }
}

#[test]
fn an_agent_that_fails_task_after_task_gets_nothing_for_a_minute() {
    let mut m = with_another(|_| {});
    fail_all(&mut m, &["A", "B"], End::Fail);
    assert_eq!(cools_s(&m, "w"), None);
    fail_all(&mut m, &["C"], End::Fail);
    assert_eq!(cools_s(&m, "w"), Some(60));
    m.pass_ms(59_000);
    assert_eq!([m.stand("A"), m.stand("B")], ["ready impl", "ready impl"]);
    m.pass_ms(1_000);
    assert_eq!(m.stand("A"), "working A.impl.2");
    m.state.check();
}

#[test]
fn an_agent_that_nobody_stands_in_for_goes_on() {
    let mut m = machine(vec![serving("w", 1)], |_| {});
    fail_all(&mut m, &["A", "B", "C", "D"], End::Fail);
    assert_eq!(cools_s(&m, "w"), None);
}

#[test]
fn an_agent_whose_tasks_nobody_else_may_take_goes_on() {
    // `plain` serves the stage and is free, and has not what the tasks need.
    let gpu = AgentGroup { capabilities: vec!["gpu".into()], ..serving("w", 1) };
    let mut m = machine(vec![gpu.clone(), serving("plain", 1)], |_| {});
    let needy = |name: &str| task(name, |task| task.spec.needs = vec!["gpu".into()]);
    for name in ["A", "B", "C"] {
        m.add(&[needy(name)]);
        m.run(name, End::Fail);
    }
    assert_eq!((cools_s(&m, "w"), agent(&m, "w").breaker.failures), (None, 3));
    assert_eq!(goes_to(&mut m, needy("D")), "w");
    // With another that has it, it cools down.
    let mut m = machine(vec![gpu.clone(), AgentGroup { name: "v".into(), ..gpu }], |_| {});
    pause(&mut m, "v");
    for name in ["A", "B", "C"] {
        m.add(&[needy(name)]);
        if name == "C" {
            m.turns();
            resume(&mut m, "v");
        }
        m.run(name, End::Fail);
    }
    assert_eq!(cools_s(&m, "w"), Some(60));
}

#[test]
fn the_only_agent_of_a_tier_that_is_asked_for_goes_on() {
    let mut m = machine(vec![of_tier("low", 1), of_tier("high", 2)], |settings| {
        settings.scheduler.escalate_after = 1;
    });
    for name in ["A", "B", "C"] {
        assert_eq!(goes_to(&mut m, as_complex_as(name, "simple")), "low");
        fail(&mut m, name, End::Fail);
        assert_eq!(m.work(name).agent.as_str(), "high");
        m.run(name, End::Fail);
        m.must(Command::HoldTasks { ids: vec![id(name)] });
        // Else the low one cools down, which is another case.
        assert_eq!(goes_to(&mut m, as_complex_as(&format!("{name}2"), "simple")), "low");
        m.run(&format!("{name}2"), End::Done);
    }
    assert_eq!((cools_s(&m, "high"), agent(&m, "high").breaker.failures), (None, 3));
}

#[test]
fn failures_of_one_task_are_held_against_the_task() {
    let mut m = with_another(|settings| {
        settings.limits.attempts_per_stage = 9;
    });
    m.add(&[new_task("A", &[])]);
    for end in [End::Fail, End::NoMarker, End::Timeout, End::Silent, End::Fail] {
        fail(&mut m, "A", end);
    }
    assert_eq!(agent(&m, "w").breaker.failures, 1);
    assert_eq!(m.stand("A"), "working A.impl.6");
}

#[test]
fn what_is_no_tasks_fault_counts_whatever_the_task() {
    let mut m = with_another(|_| {});
    m.add(&[new_task("A", &[])]);
    fail(&mut m, "A", End::Crash);
    let attempt = m.work("A").id;
    m.see(Observation::AttemptFaulted { attempt, why: "no worktree".into() });
    m.pass_to_deadline();
    assert_eq!(cools_s(&m, "w"), None);
    m.run("A", End::Unstartable);
    assert_eq!(cools_s(&m, "w"), Some(60));
}

#[test]
fn an_agent_whose_program_cannot_be_started_blocks_one_task_and_cools_down() {
    // Nobody stands in for it.
    let mut m = machine(vec![serving("w", 1)], |_| {});
    m.add(&[new_task("A", &[]), new_task("B", &[])]);
    m.run("A", End::Unstartable);
    assert_eq!([m.stand("A"), m.stand("B")], ["blocked unstartable impl", "ready impl"]);
    assert_eq!(cools_s(&m, "w"), Some(60));
    assert!(!m.state.is_idle(), "it comes to an end by itself");
    m.pass_ms(60_000);
    m.run("B", End::Done);
    assert_eq!(agent(&m, "w").breaker, Breaker::default());
    // What a task brings along is no matter of the agent.
    let own = AgentGroup { command: AgentCommand::Task, ..serving("w", 1) };
    let mut m = machine(vec![own], |_| {});
    m.add(&[new_task("A", &[]), new_task("B", &[])]);
    m.run("A", End::Unstartable);
    assert_eq!(m.stand("B"), "working B.impl.1");
    m.state.check();
}

#[test]
fn a_success_between_failures_starts_the_count_anew() {
    let mut m = with_another(|_| {});
    fail_all(&mut m, &["A", "B"], End::Fail);
    fail_all(&mut m, &["C"], End::Done);
    fail_all(&mut m, &["D", "E"], End::Fail);
    assert_eq!(cools_s(&m, "w"), None);
    assert_eq!(agent(&m, "w").breaker.failures, 2);
}

#[test]
fn after_its_pause_one_attempt_decides_and_pauses_double_up_to_half_an_hour() {
    let mut m = with_another(|settings| {
        settings.limits.attempts_per_stage = 99;
        settings.limits.attempts_per_task = 99;
    });
    fail_all(&mut m, &["A", "B", "C"], End::Fail);
    let mut pauses = Vec::new();
    while pauses.last() != Some(&1800) || pauses.len() < 7 {
        pauses.push(cools_s(&m, "w").expect("one failure is enough"));
        m.pass_ms(pauses.last().expect("there is one") * 1000);
        let task = task_of_w(&m);
        m.run(&task, End::Fail);
    }
    assert_eq!(pauses, [60, 120, 240, 480, 960, 1800, 1800]);
    m.pass_ms(1_800_000);
    let task = task_of_w(&m);
    m.run(&task, End::Done);
    assert_eq!(agent(&m, "w").breaker, Breaker::default());
    assert_eq!(m.state.attempts.len(), 2, "it goes on");
}

#[test]
fn while_an_agent_cools_down_others_get_its_work() {
    let mut m = machine(vec![serving("a", 1), serving("b", 1)], |_| {});
    m.add(&[task("Z", |task| task.spec.needs = vec!["b".into()])]);
    m.turns();
    fail_all(&mut m, &["A", "B", "C"], End::Fail);
    m.run("Z", End::Done);
    assert_eq!(goes_to(&mut m, new_task("D", &[])), "b");
    m.run("D", End::Done);
    m.pass_ms(60_000);
    for task in ["A", "B"] {
        m.run(task, End::Done);
    }
    // Its trial over, it is one of them again.
    assert_eq!(agent(&m, "a").breaker, Breaker::default());
}

#[test]
fn an_agent_on_trial_comes_after_those_that_do_well() {
    let mut m = machine(vec![serving("a", 1), serving("b", 1)], |settings| {
        settings.scheduler.affinity = false;
        settings.retry.first_ms = 600_000;
        settings.retry.max_ms = 600_000;
    });
    m.add(&[task("Z", |task| task.spec.needs = vec!["b".into()])]);
    m.turns();
    fail_all(&mut m, &["A", "B", "C"], End::Fail);
    m.run("Z", End::Done);
    for name in ["D", "E"] {
        m.add(&[new_task(name, &[])]);
        m.run(name, End::Done);
    }
    m.pass_ms(60_000);
    // `b` completed more, and still comes first.
    assert_eq!(goes_to(&mut m, new_task("F", &[])), "b");
    assert_eq!(goes_to(&mut m, new_task("G", &[])), "a");
}

#[test]
fn where_all_agents_cool_down_the_run_waits_and_is_not_idle() {
    for mode in [Orchestration::Parallel, Orchestration::Sequential] {
        let mut m = machine(vec![serving("w", 1), serving("x", 1)], |settings| {
            settings.project.orchestration = mode;
            settings.limits.attempts_per_stage = 1;
            settings.limits.attempts_per_task = 1;
        });
        pause(&mut m, "x");
        for name in ["A", "B", "C"] {
            m.add(&[new_task(name, &[])]);
            m.turns();
            // It stands in, as far as anybody knows then.
            resume(&mut m, "x");
            m.run(name, End::Fail);
            pause(&mut m, "x");
        }
        assert!(m.state.is_idle(), "nothing is left for it to do");
        m.add(&[new_task("D", &[])]);
        m.turns();
        assert_eq!(m.stand("D"), "ready impl");
        assert!(!m.state.is_idle());
        assert_eq!(next_deadline(&m.state), Some(m.now.plus_ms(60_000)));
        m.must(Command::Pause);
        assert!(m.state.is_idle(), "only a person can move it");
        m.must(Command::Resume);
        m.pass_to_deadline();
        assert_eq!(m.stand("D"), "working D.impl.1");
        m.state.check();
    }
}

#[test]
fn a_person_ends_the_cooling() {
    let mut m = with_another(|_| {});
    fail_all(&mut m, &["A", "B", "C"], End::Fail);
    m.pass_ms(30_000);
    assert_eq!(m.stand("A"), "ready impl");
    resume(&mut m, "w");
    assert_eq!(agent(&m, "w").breaker, Breaker::default());
    assert_eq!(m.stand("A"), "working A.impl.2");
    let name = AgentName::new("w");
    let answer = m.ask(Command::ResumeAgent { name });
    assert_eq!(answer, Answer::Note("agent `w` is not paused".into()));
}

#[test]
fn what_a_task_brings_along_and_what_is_refused_says_nothing_of_the_agent() {
    let mut own = serving("w", 1);
    own.command = AgentCommand::Task;
    let mut m = machine(vec![own], |_| {});
    fail_all(&mut m, &["A", "B", "C"], End::Fail);
    fail_all(&mut m, &["D"], End::Crash);
    for name in ["E", "F", "G"] {
        m.add(&[new_task(name, &[])]);
        let attempt = m.work(name).id;
        m.see(Observation::CannotStart { attempt, why: "its file is tracked".into() });
        m.turns();
    }
    assert_eq!(agent(&m, "w").breaker, Breaker::default());
}

#[test]
fn want_of_room_is_not_held_against_agents() {
    let mut m = machine(vec![serving("w", 1)], |_| {});
    m.add(&[new_task("A", &[])]);
    let attempt = m.work("A").id;
    m.see(Observation::ShortageSeen { what: Some("the disk is full".into()) });
    m.see(Observation::AttemptFaulted { attempt, why: "no space".into() });
    m.turns();
    assert_eq!(agent(&m, "w").breaker, Breaker::default());
}

/// What was told to be missing, in order.
fn told(m: &Machine) -> Vec<(String, Option<String>)> {
    let found = m.log.iter().filter_map(|change| match change {
        Change::Task(id, TaskChange::Unserved { what }) => Some((id.to_string(), what.clone())),
        Change::Project(_) | Change::Task(..) | Change::Attempt(..) | Change::Lane(_) => None,
    });
    found.collect()
}

fn some(id: &str, what: &str) -> (String, Option<String>) {
    (id.into(), Some(what.into()))
}

#[test]
fn what_no_agent_can_take_is_told_once_when_it_becomes_ready() {
    let mut able = serving("w", 1);
    able.capabilities = vec!["rust".into()];
    let mut m = machine(vec![able], |settings| {
        settings.scheduler.resources.insert("db".into(), 2000);
    });
    let needy = |name: &str, needs: &[&str], deps: &[&str]| {
        let mut task = new_task(name, deps);
        task.spec.needs = needs.iter().map(|need| (*need).to_owned()).collect();
        task
    };
    let wide = task("W", |task| {
        task.spec.resources.insert("db".into(), "3".into());
    });
    m.add(&[new_task("A", &[]), needy("B", &["gpu", "rust"], &[]), needy("C", &["tpu"], &["A"])]);
    m.add(&[wide]);
    let (b, w) = (
        some("B", "no agent of stage `implementation` has `gpu`"),
        some("W", "`db`: needs 3, there is 2 in all (`scheduler.resources`)"),
    );
    assert_eq!(told(&m), [b.clone(), w.clone()]);
    m.run("A", End::Done);
    m.land("A");
    m.must(Command::HoldTasks { ids: vec![id("B")] });
    m.must(Command::ReleaseTasks { ids: vec![id("B")] });
    let c = some("C", "no agent of stage `implementation` has `tpu`");
    assert_eq!(told(&m), [b, w, c]);
    m.state.check();
}

#[test]
fn agents_that_are_busy_paused_or_cool_down_are_there() {
    let mut m = with_another(|_| {});
    m.add(&[new_task("A", &[]), new_task("B", &[])]);
    assert_eq!(m.stand("B"), "ready impl");
    pause(&mut m, "w");
    m.add(&[new_task("C", &[])]);
    resume(&mut m, "w");
    m.run("A", End::Fail);
    m.run("B", End::Fail);
    m.run("C", End::Fail);
    assert!(cools_s(&m, "w").is_some());
    m.add(&[new_task("D", &[])]);
    assert_eq!(m.stand("D"), "ready impl");
    assert_eq!(told(&m), []);
}

#[test]
fn settings_that_take_the_last_agent_away_or_bring_it_back_are_told() {
    let mut m = machine(vec![serving("w", 1)], |_| {});
    pause(&mut m, "w");
    m.add(&[new_task("A", &[])]);
    let adopt = |m: &mut Machine, hash: &str, agents: Vec<AgentGroup>| {
        let mut settings = (*m.state.settings).clone();
        (settings.hash, settings.agents) = (hash.repeat(16), agents);
        m.must(Command::AdoptSettings { settings: Box::new(settings) });
    };
    adopt(&mut m, "1", Vec::new());
    assert_eq!(told(&m), [some("A", "no agent serves stage `implementation`")]);
    adopt(&mut m, "2", vec![serving("new", 1)]);
    assert_eq!(told(&m)[1..], [("A".to_owned(), None)]);
    assert_eq!(m.stand("A"), "working A.impl.1");
}

#[test]
fn new_settings_of_an_agent_end_its_cooling_and_other_changes_do_not() {
    let mut m = with_another(|_| {});
    fail_all(&mut m, &["A", "B", "C"], End::Fail);
    let mut settings = (*m.state.settings).clone();
    settings.hash = "1".repeat(16);
    settings.limits.send_backs = 7;
    m.must(Command::AdoptSettings { settings: Box::new(settings.clone()) });
    assert_eq!(cools_s(&m, "w"), Some(60));
    settings.hash = "2".repeat(16);
    settings.agents[0].command = AgentCommand::Shell("mended".into());
    m.must(Command::AdoptSettings { settings: Box::new(settings) });
    assert_eq!(agent(&m, "w").breaker, Breaker::default());
    m.state.check();
}
