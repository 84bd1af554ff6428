//! Who goes first: what is in front, regressions, priority, policy, and that nobody waits for ever.

use pipeline::machine::Command;
use pipeline::machine::event::{Edit, NewTask};
use pipeline::machine::mode::Orchestration;
use pipeline::machine::schedule::AGEING;
use pipeline::machine::settings::Policy;
use pipeline::machine::task::Priority;

use crate::machine_cases::short_machine;
use crate::machine_support::{End, Machine, group, id, new_task, settings};

/// One stage with one agent, which is busy with `X`.
fn busy_machine(policy: Policy) -> Machine {
    let mut m = short_machine(|settings| settings.scheduler.policy = policy);
    m.add(&[new_task("X", &[])]);
    assert_eq!(m.stand("X"), "working X.impl.1");
    m
}

fn ranked(name: &str, priority: Priority) -> NewTask {
    let mut new = new_task(name, &[]);
    new.spec.priority = priority;
    new
}

fn lasting(name: &str, priority: Priority, estimate_ms: u64) -> NewTask {
    let mut new = ranked(name, priority);
    new.spec.estimate_ms = Some(estimate_ms);
    new
}

/// Who is worked on; one agent has one task.
fn at_work(m: &Machine) -> Option<String> {
    let mut tasks = m.state.attempts.values().filter(|attempt| attempt.is_work());
    tasks.next().and_then(|attempt| attempt.task.as_ref()).map(ToString::to_string)
}

/// Ends what is worked on, one after the other; returns who followed, in order.
fn order(m: &mut Machine) -> String {
    let mut order = Vec::new();
    while let Some(task) = at_work(m) {
        m.run(&task, End::Done);
        // Only a landing lets dependents start.
        while let Some(landing) = m.state.landing.clone() {
            m.land(landing.task.as_str());
        }
        order.extend(at_work(m));
    }
    m.state.check();
    order.join(" ")
}

#[test]
fn front_goes_before_regression_before_priority_before_policy() {
    let mut m = busy_machine(Policy::Shortest);
    let mut mending = lasting("mending", Priority::Low, 5_000);
    mending.spec.labels = vec!["other".into(), "regression".into()];
    let mut front = lasting("front", Priority::Low, 5_000);
    front.is_front = true;
    m.add(&[
        lasting("long", Priority::Medium, 500),
        lasting("short", Priority::Medium, 100),
        lasting("urgent", Priority::Critical, 5_000),
        mending,
        front,
    ]);
    assert_eq!(order(&mut m), "front mending urgent short long");
}

#[test]
fn fifo_knows_no_priority_and_policy_priority_no_length() {
    let tasks = [
        lasting("a", Priority::Low, 900),
        lasting("b", Priority::Critical, 800),
        lasting("c", Priority::High, 100),
        lasting("d", Priority::Critical, 1),
    ];
    for (policy, expected) in [(Policy::Fifo, "a b c d"), (Policy::Priority, "b d c a")] {
        let mut m = busy_machine(policy);
        m.add(&tasks);
        assert_eq!(order(&mut m), expected, "{policy:?}");
    }
}

#[test]
fn fifo_still_lets_front_and_regressions_pass() {
    let mut m = busy_machine(Policy::Fifo);
    let mut mending = new_task("mending", &[]);
    mending.spec.labels = vec!["regression".into()];
    let mut front = new_task("front", &[]);
    front.is_front = true;
    m.add(&[new_task("a", &[]), mending, front]);
    assert_eq!(order(&mut m), "front mending a");
}

#[test]
fn critical_path_takes_the_head_of_the_longest_chain_first() {
    let mut m = busy_machine(Policy::CriticalPath);
    let after = |name: &str, dep: &str, estimate_ms: u64| {
        let mut new = new_task(name, &[dep]);
        new.spec.estimate_ms = Some(estimate_ms);
        new
    };
    m.add(&[
        lasting("alone", Priority::Medium, 250),
        lasting("a1", Priority::Medium, 100),
        after("a2", "a1", 100),
        lasting("b1", Priority::Medium, 50),
        after("b2", "b1", 50),
        after("b3", "b2", 200),
    ]);
    // Left of b: 300, then alone with 250, b2 with as much, and a with 200.
    assert_eq!(order(&mut m), "b1 alone b2 a1 b3 a2");
}

#[test]
fn what_is_edited_while_it_waits_counts_at_the_next_assignment() {
    let edit = |m: &mut Machine, task: &str, edit: Edit| {
        m.must(Command::EditTask { id: id(task), edit: Box::new(edit) });
        m.state.check();
    };
    let mut m = busy_machine(Policy::CriticalPath);
    m.add(&["a", "b", "c", "d", "e"].map(|name| new_task(name, &[])));
    edit(&mut m, "e", Edit { priority: Some(Priority::Critical), ..Edit::default() });
    edit(&mut m, "a", Edit { priority: Some(Priority::Low), ..Edit::default() });
    edit(&mut m, "d", Edit { labels: Some(vec!["regression".into()]), ..Edit::default() });
    edit(&mut m, "c", Edit { is_front: Some(true), ..Edit::default() });
    assert_eq!(order(&mut m), "c d e b a");
}

/// Adds an urgent task each time that one is taken, until `low` is; returns how many assignments of
/// its agent that took.
fn stream(m: &mut Machine, low: &str, agent_ends: impl Fn(&mut Machine, u64)) -> u64 {
    for number in 1..1_000 {
        m.add(&[ranked(&format!("new{number}"), Priority::Critical)]);
        agent_ends(m, number);
        m.state.check();
        if m.stand(low).starts_with("working") {
            return number;
        }
    }
    panic!("{low} starves");
}

#[test]
fn the_least_task_gets_an_agent_though_urgent_ones_come_without_end() {
    for older in 0..4 {
        for begun in 0..AGEING {
            let mut m = busy_machine(Policy::CriticalPath);
            for number in 0..begun {
                let task = at_work(&m).expect("the agent has work");
                m.add(&[new_task(&format!("before{number}"), &[])]);
                m.run(&task, End::Done);
            }
            let names: Vec<String> = (0..older).map(|number| format!("older{number}")).collect();
            let old = names.iter().map(|name| ranked(name, Priority::Low));
            m.add(&old.chain([ranked("low", Priority::Low)]).collect::<Vec<_>>());
            let took = stream(&mut m, "low", |m, _| {
                let task = at_work(m).expect("the agent has work");
                m.run(&task, End::Done);
            });
            let bound = AGEING * (older + 1);
            assert!(took <= bound, "{took} assignments, {older} older, {begun} before");
        }
    }
}

#[test]
fn an_agent_ages_by_its_own_attempts_whatever_others_do_meanwhile() {
    for begun in 0..4 {
        let mut settings = settings();
        settings.stages = settings.stages[1..3].to_vec();
        settings.agents = vec![group("t", &["test"], 1), group("i", &["implementation"], 1)];
        let mut m = Machine::new(settings);
        m.begin();
        let first = ["first0", "first1", "first2", "first3", "first4"];
        m.add(&first.map(|name| ranked(name, Priority::Critical)));
        let of = |m: &Machine, short: &str| {
            let works = |id: &&str| m.stand(id).contains(short);
            let all = m.state.tasks.keys().map(|id| id.as_str().to_owned()).collect::<Vec<_>>();
            all.iter().map(String::as_str).find(works).map(str::to_owned)
        };
        // The other agent's attempts fall on the same numbers each time.
        m.run(first[0], End::Done);
        for _ in 0..begun {
            m.run(&of(&m, ".test.").expect("at work"), End::Done);
        }
        m.add(&[ranked("low", Priority::Low)]);
        let took = stream(&mut m, "low", |m, _| {
            if let Some(task) = of(m, ".impl.") {
                m.run(&task, End::Done);
            }
            let task = of(m, ".test.").expect("there is always work");
            m.run(&task, End::Done);
        });
        // Of those that were there before `low` up to four stood in front of it.
        assert!(took <= AGEING * 5, "{took} assignments, {begun} before");
    }
}

#[test]
fn in_sequential_mode_too_the_least_task_gets_its_turn() {
    for older in 0..3 {
        let mut m = busy_machine(Policy::Priority);
        m.must(Command::SwitchMode {
            to: Orchestration::Sequential,
            wait_ms: None,
            is_forced: true,
        });
        let names: Vec<String> = (0..older).map(|number| format!("older{number}")).collect();
        let old = names.iter().map(|name| ranked(name, Priority::Low));
        m.add(&old.chain([ranked("low", Priority::Low)]).collect::<Vec<_>>());
        let took = stream(&mut m, "low", |m, _| {
            let task = at_work(m).expect("the agent has work");
            m.run(&task, End::Done);
            m.land(&task);
        });
        assert!(took <= AGEING * (older + 1), "{took} tasks, {older} older");
    }
}

/// Who must be alone, or needs all of a resource that others take in shares, is never found free to
/// start by an agent that has its turn: it has to collect.
#[test]
fn who_needs_all_or_nobody_beside_it_gets_its_turn_too() {
    let agents = 3;
    let mut m = short_machine(|settings| {
        settings.agents[0].count = agents;
        settings.scheduler.policy = Policy::Priority;
        settings.scheduler.resources.insert("db".into(), 3000);
    });
    let sharing = |name: &str| {
        let mut new = ranked(name, Priority::Critical);
        new.spec.resources.insert("db".into(), "1".into());
        new.spec.touches = vec![format!("src/{name}"), "shared/x".into()];
        new.spec.touches.truncate(1 + usize::from(name.ends_with('7')));
        new
    };
    m.add(&["a", "b", "c"].map(sharing));
    let mut old = ["alone", "all", "paths", "plain"].map(|name| ranked(name, Priority::Low));
    old[0].spec.is_exclusive = true;
    old[1].spec.resources.insert("db".into(), "3".into());
    old[2].spec.touches = vec!["src/**".into()];
    m.add(&old);
    let mut begun = [None; 4];
    let mut most_at_once = 0;
    for number in 1..200 {
        m.add(&[sharing(&format!("new{number}"))]);
        let working = m.state.attempts.values().filter(|attempt| attempt.is_work());
        let mut working: Vec<_> = working.map(|it| (it.assigned_at, it.task.clone())).collect();
        working.sort();
        most_at_once = most_at_once.max(working.len());
        let first = working[0].1.clone().expect("work has a task");
        m.run(first.as_str(), End::Done);
        m.land_all();
        m.state.check();
        for (begun, name) in begun.iter_mut().zip(["alone", "all", "paths", "plain"]) {
            if begun.is_none() && !m.stand(name).starts_with("ready") {
                *begun = Some(number);
            }
        }
    }
    assert_eq!(most_at_once, agents as usize);
    // Eight attempts of one agent are up to 24 of three, and what runs then ends.
    let per_turn = u64::from(agents) * AGEING + u64::from(agents);
    for (place, begun) in begun.into_iter().enumerate() {
        let begun = begun.unwrap_or_else(|| panic!("{place} of {begun:?} starves"));
        assert!(begun <= per_turn * (place as u64 + 1), "{place} of {begun:?}");
    }
    assert_eq!(m.state.collecting, None);
}

#[test]
fn who_needs_two_things_that_others_use_in_turns_gets_both() {
    let mut m = short_machine(|settings| {
        settings.agents[0].count = 3;
        settings.scheduler.resources.extend([("x".into(), 1000), ("y".into(), 1000)]);
    });
    let wanting = |name: &str, priority, things: &[&str]| {
        let mut new = ranked(name, priority);
        new.spec.resources.extend(things.iter().map(|thing| ((*thing).into(), "1".into())));
        new
    };
    let urgent = |name: &str, thing: &str| wanting(name, Priority::Critical, &[thing]);
    m.add(&[urgent("x0", "x"), urgent("y0", "y")]);
    m.add(&[wanting("both", Priority::Low, &["x", "y"])]);
    // One of the two is always in use when the other gets free.
    let mut turns = 0;
    while m.stand("both").starts_with("ready") {
        for thing in ["x", "y"] {
            m.add(&[urgent(&format!("{thing}{}", turns + 1), thing)]);
            if m.stand(&format!("{thing}{turns}")).starts_with("working") {
                m.run(&format!("{thing}{turns}"), End::Done);
                m.land_all();
            }
        }
        turns += 1;
        assert!(turns <= 3 * AGEING, "it starves");
    }
    m.state.check();
}

#[test]
fn who_asks_for_one_agent_by_name_gets_its_turn_though_another_of_the_group_idles() {
    let mut m = short_machine(|settings| settings.agents[0].count = 2);
    let first = m.state.agents.keys().next().expect("two agents").to_string();
    let asks = |mut new: NewTask| {
        new.spec.needs = vec![first.clone()];
        new
    };
    // The other one's turn comes, and with nothing for it, stays.
    m.add(&[asks(ranked("busy", Priority::Low))]);
    for number in 0..AGEING - 1 {
        let name = format!("other{number}");
        m.add(&[new_task(&name, &[])]);
        m.run(&name, End::Done);
    }
    m.add(&[asks(ranked("low", Priority::Low))]);
    let mut took = 0;
    while m.stand("low").starts_with("ready") {
        took += 1;
        m.add(&[asks(ranked(&format!("new{took}"), Priority::Critical))]);
        let task = at_work(&m).expect("the agent has work");
        m.run(&task, End::Done);
        assert!(took <= AGEING, "low starves");
    }
    m.state.check();
    m.state.check();
}
