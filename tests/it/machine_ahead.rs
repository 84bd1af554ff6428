//! What would come next for which agent, and in which worktree.

use pipeline::machine::event::{Dependents, NewTask, StopKind};
use pipeline::machine::id::AgentName;
use pipeline::machine::mode::{Isolation, Orchestration, Rollout};
use pipeline::machine::schedule::ahead;
use pipeline::machine::settings::Settings;
use pipeline::machine::task::Priority;
use pipeline::machine::{Command, Observation};

use crate::machine_support::{End, Machine, exit, group, id, new_task, settings};

fn machine(change: impl FnOnce(&mut Settings)) -> Machine {
    let mut settings = settings();
    change(&mut settings);
    let mut machine = Machine::new(settings);
    machine.begin();
    machine
}

/// Test and implementation, with one agent that serves both, and `count` for implementation alone.
fn of_two_stages(count: u32) -> impl FnOnce(&mut Settings) {
    move |settings| {
        settings.stages = settings.stages[1..3].to_vec();
        settings.agents = vec![group("both", &["test", "implementation"], 1)];
        if count > 0 {
            settings.agents.push(group("impl", &["implementation"], count));
        }
    }
}

fn ranked(name: &str, priority: Priority) -> NewTask {
    let mut task = new_task(name, &[]);
    task.spec.priority = priority;
    task
}

/// Returns what comes next, as `agent slot task`, with `~` where its branch will have moved.
fn next(m: &Machine) -> Vec<String> {
    let words = ahead(&m.state).into_iter().map(|ahead| {
        let mark = if ahead.is_moving { "~" } else { "" };
        format!("{} {} {mark}{}", ahead.agent, ahead.slot, ahead.task)
    });
    words.collect()
}

#[test]
fn a_busy_agent_gets_the_first_in_rank_in_its_other_worktree() {
    let mut m = machine(|_| {});
    m.add(&[new_task("A", &[])]);
    m.start("A");
    // Its next stage has nobody else to wait for.
    assert_eq!(next(&m), ["test 0 ~A"]);
    m.add(&[ranked("B", Priority::Low), ranked("C", Priority::High)]);
    assert_eq!(next(&m), ["test 0 ~A", "architect 1 C"]);
    let attempt = m.work("A").id;
    m.see(Observation::Exited { attempt: attempt.clone(), exit: Box::new(exit(End::Done, m.now)) });
    m.save(&attempt, true, &[]);
    // What it left is known before its branch has moved: what comes next starts from that.
    assert_eq!(next(&m), ["test 0 A", "architect 1 C"]);
    let at: Vec<String> = ahead(&m.state).iter().map(|ahead| ahead.at.to_string()).collect();
    assert_eq!(at, [format!("saved-{attempt}"), m.state.base.landed.clone().unwrap().to_string()]);
}

#[test]
fn an_agent_goes_on_with_its_own_task_where_that_is_furthest_along() {
    let mut m = machine(of_two_stages(0));
    m.add(&[new_task("A", &[]), new_task("B", &[])]);
    m.start("A");
    assert_eq!(next(&m), ["both 1 ~A"]);
    let mut m = machine(of_two_stages(1));
    m.add(&[new_task("A", &[]), new_task("B", &[])]);
    m.start("A");
    assert_eq!(next(&m), ["impl 0 ~A", "both 1 B"]);
}

#[test]
fn no_task_comes_twice_and_no_more_than_the_target() {
    let agents = |prefetch: f64| {
        move |settings: &mut Settings| {
            settings.agents = vec![group("arch", &["architect"], 4)];
            settings.scheduler.prefetch = Some(prefetch);
        }
    };
    let tasks: Vec<NewTask> = (1..8).map(|n| new_task(&format!("T{n}"), &[])).collect();
    for (prefetch, count) in [(2.0, 3), (0.5, 2), (0.2, 0), (0.0, 0)] {
        let mut m = machine(agents(prefetch));
        m.add(&tasks);
        for name in ["T1", "T2", "T3", "T4"] {
            m.start(name);
        }
        let expected = ["arch-1 1 T5", "arch-2 1 T6", "arch-3 1 T7"];
        assert_eq!(next(&m), expected[..count], "{prefetch}");
    }
}

#[test]
fn what_cannot_start_beside_what_goes_on_is_passed_over() {
    let mut m = machine(|settings| {
        settings.stages = settings.stages[2..3].to_vec();
        settings.agents = vec![group("impl", &["implementation"], 3)];
        // Only the one that ends first counts as ended.
        settings.scheduler.prefetch = Some(0.34);
    });
    let touching = |name: &str, glob: &str| {
        let mut task = new_task(name, &[]);
        task.spec.touches = vec![glob.to_owned()];
        task
    };
    m.add(&[touching("A", "a"), touching("B", "b"), touching("C", "c")]);
    for name in ["A", "B", "C"] {
        m.start(name);
        m.pass_ms(1);
    }
    m.add(&[touching("B2", "b"), touching("A2", "a"), touching("D", "d")]);
    assert_eq!(next(&m), ["impl-1 1 A2"]);
}

#[test]
fn nothing_is_prepared_where_nothing_may_start() {
    type Change = fn(&mut Machine);
    let halts: [(&str, Change); 5] = [
        ("paused", |m| m.must(Command::Pause)),
        ("stopping", |m| m.must(Command::Stop { kind: StopKind::Drain })),
        ("short", |m| {
            m.see(Observation::ShortageSeen { what: Some("the disk".into()) });
        }),
        ("shadow", |m| m.must(Command::SetRollout { to: Rollout::Shadow, is_forced: true })),
        ("agent paused", |m| {
            m.must(Command::PauseAgent { name: AgentName::new("architect") });
            m.must(Command::PauseAgent { name: AgentName::new("test") });
        }),
    ];
    for (name, halt) in halts {
        let mut m = machine(|_| {});
        m.add(&[new_task("A", &[]), new_task("B", &[])]);
        m.start("A");
        assert_eq!(next(&m).len(), 2, "{name}");
        halt(&mut m);
        assert_eq!(next(&m), Vec::<String>::new(), "{name}");
    }
    let settings: [fn(&mut Settings); 4] = [
        |settings| settings.project.isolation = Isolation::None,
        |settings| settings.project.orchestration = Orchestration::Sequential,
        |settings| settings.worktree.setup = vec!["true".into()],
        |settings| settings.worktree.keep = vec!["target".into()],
    ];
    for change in settings {
        let mut m = machine(change);
        m.add(&[new_task("A", &[]), new_task("B", &[])]);
        assert_eq!(m.state.attempts.len(), 1);
        assert_eq!(next(&m), Vec::<String>::new());
    }
}

#[test]
fn worktrees_of_an_agent_take_turns_and_one_that_was_given_up_never_comes_back() {
    let mut m = machine(|settings| {
        settings.stages.truncate(1);
        settings.agents.truncate(1);
    });
    let mut slots = Vec::new();
    for name in ["A", "B", "C", "D", "E", "F"] {
        m.add(&[new_task(name, &[])]);
        let attempt = m.start(name);
        slots.push(m.state.attempts[&attempt].slot);
        if name == "C" {
            let why = "its keeper died".into();
            m.see(Observation::Lost { attempt: attempt.clone(), why });
            m.save(&attempt, true, &[]);
            m.must(Command::CancelTasks { ids: vec![id(name)], dependents: Dependents::Refuse });
            m.turns();
        } else {
            m.exit(&attempt, End::Done);
        }
    }
    assert_eq!(slots, [0, 1, 0, 2, 1, 2]);
}
