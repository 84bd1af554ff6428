//! What runs beside what: paths, shared resources, tasks that must be alone.

use std::collections::BTreeMap;

use pipeline::machine::amount;
use pipeline::machine::event::NewTask;
use pipeline::machine::mode::Orchestration;
use pipeline::machine::overlap::any_overlap;
use pipeline::machine::settings::{Policy, Settings};
use pipeline::machine::task::TaskPhase;
use pipeline::machine::{Command, Observation};

use crate::machine_support::{End, Machine, group, id, new_task, settings};

/// Test and implementation with `agents` each, no landing checks.
fn machine(agents: u32, change: impl FnOnce(&mut Settings)) -> Machine {
    let mut settings = settings();
    settings.stages = settings.stages[1..3].to_vec();
    settings.stages[0].must_change = false;
    settings.agents =
        vec![group("test", &["test"], agents), group("impl", &["implementation"], agents)];
    settings.scheduler.resources = BTreeMap::from([("db".into(), 2000), ("cpu".into(), 4000)]);
    change(&mut settings);
    let mut machine = Machine::new(settings);
    machine.begin();
    machine
}

fn touching(name: &str, globs: &[&str]) -> NewTask {
    let mut task = new_task(name, &[]);
    task.spec.touches = globs.iter().map(|glob| (*glob).to_owned()).collect();
    task
}

fn exclusive(name: &str) -> NewTask {
    let mut task = new_task(name, &[]);
    task.spec.is_exclusive = true;
    task
}

fn wanting(name: &str, amounts: &[(&str, &str)]) -> NewTask {
    let mut task = new_task(name, &[]);
    let pairs = amounts.iter().map(|(name, amount)| ((*name).to_owned(), (*amount).to_owned()));
    task.spec.resources = pairs.collect();
    task
}

/// Returns who is worked on, by name.
fn working(m: &Machine) -> Vec<&str> {
    let works = |phase: &TaskPhase| matches!(phase, TaskPhase::Working { .. });
    m.state.tasks.values().filter(|task| works(&task.phase)).map(|task| task.id.as_str()).collect()
}

fn stands(m: &Machine, expected: &[(&str, &str)]) {
    for (task, stand) in expected {
        assert_eq!(m.stand(task), *stand, "{task}");
    }
}

#[test]
fn tasks_of_the_same_paths_do_not_change_them_at_once() {
    let mut m = machine(3, |_| {});
    m.add(&[
        touching("A", &["src/a/**"]),
        touching("B", &["src/a/x.rs"]),
        touching("C", &["src/c"]),
    ]);
    m.turns();
    // Nothing is changed in the first stage.
    assert_eq!(working(&m), ["A", "B", "C"]);
    for task in ["A", "B", "C"] {
        m.run(task, End::Done);
    }
    stands(&m, &[("A", "working A.impl.1"), ("B", "ready impl"), ("C", "working C.impl.1")]);
    m.run("A", End::Done);
    assert_eq!(m.stand("B"), "working B.impl.1");
    m.state.check();
}

#[test]
fn what_waits_for_paths_is_not_passed_for_ever_by_what_comes_after_it() {
    let mut m = machine(3, |_| {});
    m.add(&[touching("A", &["src/a/**"]), touching("B", &["src/**"]), touching("C", &["src/c"])]);
    m.turns();
    for task in ["A", "B", "C"] {
        m.run(task, End::Done);
    }
    // C would not be in A's way, but in B's, which comes first.
    stands(&m, &[("A", "working A.impl.1"), ("B", "ready impl"), ("C", "ready impl")]);
    m.run("A", End::Done);
    stands(&m, &[("B", "working B.impl.1"), ("C", "ready impl")]);
}

/// One stage with as many agents.
fn one_stage(agents: u32) -> Machine {
    machine(agents, |settings| {
        settings.stages.remove(0);
        settings.agents.remove(0);
        settings.scheduler.policy = Policy::Fifo;
    })
}

fn lasting(mut task: NewTask, minutes: u64) -> NewTask {
    task.spec.estimate_ms = Some(minutes * 60_000);
    task
}

#[test]
fn who_waits_keeps_what_it_waits_for_and_nothing_else() {
    let mut m = one_stage(3);
    let mut second = touching("B", &["src/a", "src/b"]);
    second.spec.resources = wanting("", &[("db", "2")]).spec.resources;
    let mut third = touching("C", &["doc/c"]);
    third.spec.resources = wanting("", &[("db", "1")]).spec.resources;
    m.add(&[touching("A", &["src/a"]), second, third, touching("D", &["src/b"])]);
    m.turns();
    // B waits for src/a alone: the database and src/b are used meanwhile.
    assert_eq!(working(&m), ["A", "C", "D"]);
    m.add(&[touching("E", &["src/a/x"]), wanting("F", &[("db", "1")])]);
    m.run("A", End::Done);
    // Now it waits for the database, and src/b, and no longer for src/a.
    assert_eq!(working(&m), ["C", "D", "E"]);
    m.run("C", End::Done);
    assert_eq!(working(&m), ["D", "E", "F"]);
    m.state.check();
}

#[test]
fn what_is_short_enough_passes_who_waits_to_be_alone() {
    let mut m = one_stage(3);
    let mut alone = lasting(new_task("B", &[]), 10);
    alone.spec.is_exclusive = true;
    m.add(&[lasting(new_task("A", &[]), 120)]);
    m.add(&[alone, lasting(new_task("C", &[]), 120), lasting(new_task("D", &[]), 60)]);
    m.add(&[lasting(new_task("E", &[]), 30), lasting(new_task("F", &[]), 20)]);
    m.turns();
    // C would end after A, and B would have to wait for it.
    assert_eq!(working(&m), ["A", "D", "E"]);
    let (longest, long, short) = (m.start("A"), m.start("D"), m.start("E"));
    m.pass_ms(30 * 60_000);
    m.exit(&short, End::Done);
    assert_eq!(working(&m), ["A", "D", "F"]);
    let short = m.start("F");
    m.pass_ms(85 * 60_000);
    m.exit(&long, End::Done);
    m.add(&[lasting(new_task("G", &[]), 15)]);
    m.exit(&short, End::Done);
    // Five minutes are left, and for one that took longer a tenth would be.
    assert_eq!(working(&m), ["A"]);
    m.exit(&longest, End::Done);
    m.land_all();
    assert_eq!(working(&m), ["B"]);
    m.state.check();
}

#[test]
fn an_exclusive_task_runs_alone_and_is_not_passed() {
    // What takes as long as what runs would not end before it.
    let mut m = machine(3, |settings| {
        settings.stages.iter_mut().for_each(|stage| stage.estimate_ms = 600_000);
    });
    m.add(&[new_task("A", &[])]);
    m.turns();
    let first = m.start("A");
    let mut alone = new_task("B", &[]);
    alone.spec.is_exclusive = true;
    m.add(&[alone, new_task("C", &[])]);
    m.turns();
    assert_eq!(working(&m), ["A"]);
    m.pass_ms(600_000);
    m.exit(&first, End::Done);
    // What is furthest along goes first; then the exclusive one has the place to itself.
    assert_eq!(working(&m), ["A"]);
    m.run("A", End::Done);
    assert_eq!(working(&m), ["B"]);
    m.land("A");
    m.run("B", End::Done);
    assert_eq!(working(&m), ["B"]);
    m.run("B", End::Done);
    assert_eq!(working(&m), ["C"]);
}

#[test]
fn in_hybrid_mode_what_may_clash_with_anything_changes_alone() {
    let mut m = machine(3, |settings| settings.project.orchestration = Orchestration::Hybrid);
    m.add(&[touching("A", &["a"]), touching("B", &["b"]), new_task("C", &[])]);
    m.turns();
    assert_eq!(working(&m), ["A", "B", "C"]);
    for task in ["A", "B", "C"] {
        m.run(task, End::Done);
    }
    assert_eq!(working(&m), ["A", "B"]);
    m.run("A", End::Done);
    assert_eq!(working(&m), ["B"]);
    m.run("B", End::Done);
    m.land_all();
    assert_eq!(working(&m), ["C"]);
    m.must(Command::SwitchMode { to: Orchestration::Parallel, wait_ms: None, is_forced: true });
    m.state.check();
}

#[test]
fn who_must_be_alone_begins_where_what_is_about_to_land_has_landed() {
    let mut m = one_stage(3);
    m.add(&[new_task("A", &[]), exclusive("B"), new_task("C", &[])]);
    m.turns();
    assert_eq!(working(&m), ["A"]);
    m.run("A", End::Done);
    // Nobody runs, but B would not see what A changed; nor is it passed meanwhile.
    stands(&m, &[("A", "landing"), ("B", "ready impl"), ("C", "ready impl")]);
    m.land("A");
    stands(&m, &[("A", "completed"), ("B", "working B.impl.1"), ("C", "ready impl")]);
    // The other way round the same, but for what names other paths than B has changed.
    m.add(&[touching("D", &["docs/**"])]);
    m.run("B", End::Done);
    stands(&m, &[("B", "landing"), ("C", "ready impl"), ("D", "working D.impl.1")]);
    m.land("B");
    assert_eq!(working(&m), ["C", "D"]);
    m.state.check();
}

#[test]
fn in_hybrid_mode_what_is_not_known_begins_where_the_one_before_has_landed() {
    let mut m = machine(3, |settings| settings.project.orchestration = Orchestration::Hybrid);
    m.add(&[new_task("A", &[]), new_task("B", &[])]);
    m.turns();
    m.run("A", End::Done);
    m.run("B", End::Done);
    stands(&m, &[("A", "working A.impl.1"), ("B", "ready impl")]);
    m.run("A", End::Done);
    stands(&m, &[("A", "landing"), ("B", "ready impl")]);
    m.land("A");
    stands(&m, &[("A", "completed"), ("B", "working B.impl.1")]);
}

#[test]
fn a_landing_that_needs_a_person_keeps_nobody_waiting_who_must_be_alone() {
    let mut m = one_stage(2);
    m.add(&[new_task("A", &[]), exclusive("B")]);
    m.turns();
    m.must(Command::HoldTasks { ids: vec![id("A")] });
    m.run("A", End::Done);
    stands(&m, &[("A", "landing"), ("B", "working B.impl.1")]);
    // It is in the lane again, and B has changed nothing yet.
    m.run("B", End::Fail);
    m.must(Command::ReleaseTasks { ids: vec![id("A")] });
    m.pass_to_deadline();
    stands(&m, &[("A", "landing"), ("B", "ready impl")]);
    let base = m.state.base.tip.clone().expect("it was looked at");
    m.see(Observation::BaseConflicts { base, paths: vec!["x".into()] });
    m.turns();
    stands(&m, &[("A", "landing"), ("B", "working B.impl.2")]);
}

#[test]
fn no_more_of_a_resource_is_taken_than_there_is() {
    let mut m = machine(4, |settings| {
        settings.stages[1].resources.insert("db".into(), 1000);
    });
    let (one, two) = ([("cpu", "1")], [("cpu", "3.5")]);
    m.add(&[wanting("A", &two), wanting("B", &one), wanting("C", &[]), wanting("D", &[])]);
    m.turns();
    // A takes 3.5 of 4 cores, B waits, and who asks for none does not.
    assert_eq!(working(&m), ["A", "C", "D"]);
    m.run("A", End::Done);
    m.run("C", End::Done);
    m.run("D", End::Done);
    // Two of the second stage at a time; A still has its cores.
    stands(&m, &[("A", "working A.impl.1"), ("C", "working C.impl.1"), ("D", "ready impl")]);
    m.run("A", End::Done);
    stands(&m, &[("B", "working B.test.1"), ("D", "working D.impl.1")]);
}

#[test]
fn what_there_is_never_enough_for_waits_and_holds_nothing_up() {
    let mut m = machine(1, |_| {});
    m.add(&[wanting("A", &[("gpu", "1")]), wanting("B", &[("cpu", "5")]), new_task("C", &[])]);
    m.turns();
    assert_eq!(working(&m), ["C"]);
    m.run("C", End::Done);
    m.run("C", End::Done);
    m.land("C");
    assert!(working(&m).is_empty());
    stands(&m, &[("A", "ready test"), ("B", "ready test"), ("C", "completed")]);
}

/// A small generator of its own, so that a failure is had again.
struct Dice(u64);

impl Dice {
    /// Below `end`; from the high bits of a linear congruential generator.
    fn below(&mut self, end: usize) -> usize {
        self.0 =
            self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        ((self.0 >> 33) % end as u64) as usize
    }
}

fn drawn(dice: &mut Dice, number: usize) -> NewTask {
    let globs: [&[&str]; 6] = [&[], &[], &["a/*"], &["a/x", "c"], &["b/**"], &["**/x"]];
    let mut task = touching(&format!("T{number:02}"), globs[dice.below(6)]);
    let deps = (0..number).filter(|_| dice.below(6) == 0);
    task.spec.depends_on = deps.map(|dep| id(&format!("T{dep:02}"))).collect();
    let amounts = ["0.5", "1", "2", "4"];
    if dice.below(3) == 0 {
        task.spec.resources.insert("cpu".into(), amounts[dice.below(4)].into());
    }
    task.spec.is_exclusive = dice.below(12) == 0;
    task
}

/// Asserts of what runs now that it may run together.
fn run_together(m: &Machine, seed: u64) {
    let running: Vec<_> = m.state.attempts.values().filter(|attempt| attempt.is_work()).collect();
    let specs: Vec<_> = running
        .iter()
        .map(|a| (a.stage().unwrap().as_str(), &m.state.tasks[a.task.as_ref().unwrap()].spec))
        .collect();
    let cpu = specs.iter().filter_map(|(_, spec)| spec.resources.get("cpu"));
    let cpu: u64 = cpu.map(|text| amount::parse("cpu", text).unwrap()).sum();
    assert!(cpu <= 4000, "seed {seed}: {cpu} of 4000 cores are taken");
    for (place, (stage, spec)) in specs.iter().enumerate() {
        assert!(!spec.is_exclusive || specs.len() == 1, "seed {seed}: an exclusive task beside");
        for (other_stage, other) in &specs[place + 1..] {
            let is_changing = *stage == "implementation" && *other_stage == "implementation";
            let is_clash = is_changing && any_overlap(&spec.touches, &other.touches);
            assert!(!is_clash, "seed {seed}: {:?} beside {:?}", spec.touches, other.touches);
        }
    }
}

#[test]
fn hundreds_of_drawn_backlogs_run_to_their_end_and_never_too_much_at_once() {
    for seed in 0..600 {
        let mut dice = Dice(seed);
        let mut m = machine(1 + dice.below(3) as u32, |_| {});
        let count = 2 + dice.below(7);
        let tasks: Vec<NewTask> = (0..count).map(|number| drawn(&mut dice, number)).collect();
        m.add(&tasks);
        m.turns();
        loop {
            run_together(&m, seed);
            if let Some(landing) = m.state.landing.clone() {
                m.land(landing.task.as_str());
                continue;
            }
            let running = working(&m);
            if running.is_empty() {
                break;
            }
            let next = running[dice.below(running.len())].to_owned();
            m.run(&next, End::Done);
        }
        let counts = m.state.index.counts;
        assert_eq!(counts.completed, count, "seed {seed}: {counts:?}");
        m.state.check();
    }
}

#[test]
fn nothing_starts_while_a_switch_of_mode_is_waited_for() {
    let mut m = machine(2, |_| {});
    m.add(&[new_task("A", &[]), new_task("B", &[]), new_task("C", &[])]);
    m.turns();
    let (to, wait_ms) = (Orchestration::Sequential, Some(60_000));
    m.must(Command::SwitchMode { to, wait_ms, is_forced: false });
    m.run("A", End::Done);
    stands(&m, &[("A", "ready impl"), ("B", "working B.test.1"), ("C", "ready test")]);
    m.run("B", End::Done);
    assert_eq!(m.state.orchestration, to);
}
