//! What a branch has changed so far, and what the scheduler makes of it.

use pipeline::machine::change::TaskChange;
use pipeline::machine::event::{Dependents, Edit, NewTask, RetryTarget};
use pipeline::machine::forecast::{CLASH_PATHS_MAX, CLASHES_MAX, Trial, trial};
use pipeline::machine::id::AttemptId;
use pipeline::machine::mode::Orchestration;
use pipeline::machine::schedule::Standing;
use pipeline::machine::schedule::demand::Demand;
use pipeline::machine::settings::Settings;
use pipeline::machine::task::Clash;
use pipeline::machine::{Answer, Change, Command, Observation};

use crate::machine_support::{End, Machine, exit, group, id, new_task, settings};

/// Stages test and implementation, two agents for each.
fn machine_with(change: impl FnOnce(&mut Settings)) -> Machine {
    let mut settings = settings();
    settings.stages = settings.stages[1..3].to_vec();
    settings.agents = ["test", "implementation"].map(|name| group(name, &[name], 2)).to_vec();
    change(&mut settings);
    let mut machine = Machine::new(settings);
    machine.begin();
    machine
}

/// Lets the task's attempt complete, its branch having changed these paths; no turn comes after.
fn complete(m: &mut Machine, task: &str, changed: Option<&[&str]>) {
    let attempt = m.start(task);
    let exit = Box::new(exit(End::Done, m.now));
    m.see(Observation::Exited { attempt: attempt.clone(), exit });
    m.save(&attempt, true, &[]);
    let changed = changed.map(|paths| paths.iter().map(|path| (*path).to_owned()).collect());
    m.see(Observation::Advanced { attempt, changed });
}

fn stands(m: &Machine, expected: &[(&str, &str)]) {
    for (task, stand) in expected {
        assert_eq!(m.stand(task), *stand, "{task}");
    }
    m.state.check();
}

#[test]
fn without_touches_a_task_is_judged_by_what_its_branch_changed() {
    let mut m = machine_with(|_| {});
    m.add(&[new_task("A", &[]), new_task("B", &[])]);
    stands(&m, &[("A", "working A.test.1"), ("B", "working B.test.1")]);
    complete(&mut m, "A", Some(&["src/a[b", "README"]));
    complete(&mut m, "B", Some(&["src/a[b"]));
    m.turns();
    stands(&m, &[("A", "working A.impl.1"), ("B", "ready impl")]);
    // Git could not tell: what was known still counts.
    complete(&mut m, "A", None);
    m.turns();
    assert_eq!(m.state.tasks[&id("A")].changed, ["README", "src/a\\[b"]);
    stands(&m, &[("A", "landing"), ("B", "working B.impl.1")]);
}

fn touching(name: &str, globs: &[&str]) -> NewTask {
    let mut new = new_task(name, &[]);
    new.spec.touches = globs.iter().map(|glob| (*glob).to_owned()).collect();
    new
}

/// Returns in words what keeps a ready task from starting.
fn obstacle(m: &Machine, task: &str) -> String {
    let task = &m.state.tasks[&id(task)];
    let stage = task.stage().expect("it is ready");
    let demand = Demand::of(&m.state.settings, task, stage);
    let found = Standing::of(&m.state).obstacle(&task.id, stage, &demand);
    found.expect("it cannot start").words(&m.state, &demand)
}

fn depend(task: &str, on: &str) -> Command {
    let edit = Edit { add_depends_on: vec![id(on)], ..Edit::default() };
    Command::EditTask { id: id(task), edit: Box::new(edit) }
}

#[test]
fn what_is_to_land_waits_for_a_dependency_that_it_got_late_and_is_not_in_its_way() {
    // Its landing is under way, or its last stage.
    for is_landing in [true, false] {
        let mut m = machine_with(|settings| settings.landing.checks = vec!["check".into()]);
        let base = AttemptId::new("base.check.1");
        m.add(&[touching("A", &["src/*"])]);
        m.start_attempt(&base);
        m.exit(&base, End::Done);
        complete(&mut m, "A", Some(&["src/a"]));
        m.turns();
        let mut held = touching("B", &["src/b"]);
        held.is_held = true;
        m.add(&[held]);
        if is_landing {
            complete(&mut m, "A", Some(&["src/a"]));
            m.turns();
            m.merge();
            m.must(depend("A", "B"));
            let check = AttemptId::new("A.land.1");
            assert!(m.state.attempts[&check].is_stopping, "what it was for is over");
            m.start_attempt(&check);
            m.exit(&check, End::Stopped);
        } else {
            m.must(depend("A", "B"));
            complete(&mut m, "A", Some(&["src/a"]));
            m.turns();
        }
        assert!(m.state.landing.is_none() && m.state.is_idle(), "{:?}", m.effects());
        stands(&m, &[("A", "landing"), ("B", "waiting")]);
        // It has changed the same paths, which B would wait for.
        m.must(Command::ReleaseTasks { ids: vec![id("B")] });
        m.complete_stages("B");
        for name in ["B", "A"] {
            let (merge, land) = (m.merge(), m.state.tasks[&id(name)].numbers["land"]);
            assert_eq!(merge.task, id(name));
            let check = AttemptId::new(format!("{name}.land.{land}"));
            m.start_attempt(&check);
            m.exit(&check, End::Done);
            m.see(merge.landed());
            m.turns();
        }
        stands(&m, &[("A", "completed"), ("B", "completed")]);
    }
}

#[test]
fn what_is_being_landed_right_now_gets_no_further_dependency() {
    let mut m = machine_with(|_| {});
    let mut held = new_task("B", &[]);
    held.is_held = true;
    m.add(&[new_task("A", &[]), held]);
    m.complete_stages("A");
    m.turns();
    let merge = m.merge();
    assert_eq!(m.refused(depend("A", "B")), "task `A` is being landed right now");
    m.see(merge.landed());
    m.turns();
    stands(&m, &[("A", "completed"), ("B", "waiting")]);
}

#[test]
fn what_has_changed_nothing_yet_waits_until_the_same_paths_have_landed() {
    let mut m = machine_with(|_| {});
    m.add(&[touching("A", &["src/*"]), touching("B", &["src/b"]), touching("C", &["docs"])]);
    stands(&m, &[("A", "working A.test.1"), ("B", "ready test"), ("C", "working C.test.1")]);
    // What was not named counts as well.
    complete(&mut m, "C", Some(&["README"]));
    m.add(&[touching("D", &["README"])]);
    complete(&mut m, "A", Some(&["src/a"]));
    m.turns();
    stands(&m, &[("A", "working A.impl.1"), ("B", "ready test"), ("D", "ready test")]);
    complete(&mut m, "A", Some(&["src/a"]));
    m.turns();
    stands(&m, &[("A", "landing"), ("B", "ready test")]);
    // What is only named was not changed.
    assert_eq!(obstacle(&m, "B"), "A is to change the same paths and lands first");
    assert_eq!(obstacle(&m, "D"), "C has changed the same paths and lands first");
    m.land("A");
    stands(&m, &[("A", "completed"), ("B", "working B.test.1"), ("D", "ready test")]);
}

#[test]
fn who_waits_for_a_landing_is_not_in_its_way_when_it_is_sent_back() {
    let mut m = machine_with(|_| {});
    m.add(&[touching("A", &["src"])]);
    complete(&mut m, "A", Some(&["src/a"]));
    m.turns();
    // Urgent, and with a claim on the path: but A has begun.
    let mut urgent = touching("B", &["src/a"]);
    urgent.is_front = true;
    m.add(&[urgent, touching("C", &["src/a", "other"])]);
    m.run("A", End::Fail);
    m.pass_to_deadline();
    stands(&m, &[("A", "working A.impl.2"), ("B", "ready test"), ("C", "ready test")]);
    // Nor where it stands behind them in rank, back at the stage that they wait for.
    m.run("A", End::Changes);
    stands(&m, &[("A", "working A.test.2"), ("B", "ready test"), ("C", "ready test")]);
    complete(&mut m, "A", Some(&["src/a"]));
    m.turns();
    // One that needs a person holds up nobody.
    while m.stand("A").starts_with("working") {
        m.run("A", End::Fail);
        if m.stand("A").starts_with("ready") {
            m.pass_to_deadline();
        }
    }
    assert!(m.stand("A").starts_with("blocked"), "{}", m.stand("A"));
    stands(&m, &[("B", "working B.test.1"), ("C", "ready test")]);
}

#[test]
fn in_sequential_mode_nobody_waits_for_the_landing_of_another() {
    let mut m = machine_with(|_| {});
    m.add(&[touching("A", &["src"])]);
    complete(&mut m, "A", Some(&["src/a"]));
    m.turns();
    m.must(Command::HoldTasks { ids: vec![id("A")] });
    m.run("A", End::Fail);
    m.add(&[touching("B", &["src/a"])]);
    let to = Orchestration::Sequential;
    m.must(Command::SwitchMode { to, wait_ms: None, is_forced: true });
    m.turns();
    m.pass_to_deadline();
    stands(&m, &[("B", "working B.test.1")]);
}

#[test]
fn other_paths_and_given_touches_hold_up_nothing() {
    let mut m = machine_with(|_| {});
    let mut given = new_task("C", &[]);
    given.spec.touches = vec!["docs".into()];
    m.add(&[new_task("A", &[]), new_task("B", &[])]);
    complete(&mut m, "A", Some(&["src/a"]));
    complete(&mut m, "B", Some(&["src/ab"]));
    m.turns();
    stands(&m, &[("A", "working A.impl.1"), ("B", "working B.impl.1")]);
    m.add(&[given]);
    complete(&mut m, "B", Some(&["src/ab"]));
    m.turns();
    complete(&mut m, "C", Some(&["src/a"]));
    m.turns();
    stands(&m, &[("A", "working A.impl.1"), ("C", "working C.impl.1")]);
}

#[test]
fn a_fresh_start_and_an_end_forget_what_was_changed() {
    let mut m = machine_with(|_| {});
    m.add(&[new_task("A", &[]), new_task("B", &[])]);
    complete(&mut m, "A", Some(&["a"]));
    complete(&mut m, "B", Some(&["b"]));
    m.turns();
    let attempt = m.start("A");
    m.exit(&attempt, End::Blocked);
    assert_eq!(m.state.tasks[&id("A")].changed, ["a"]);
    let target = RetryTarget::Tasks(vec![id("A")]);
    m.must(Command::RetryTasks { target, stage: None, note: None, is_fresh: true });
    assert!(m.state.tasks[&id("A")].changed.is_empty());
    complete(&mut m, "B", Some(&["b", "c"]));
    assert_eq!(m.state.tasks[&id("B")].changed, ["b", "c"]);
    m.turns();
    m.land("B");
    assert!(m.state.tasks[&id("B")].changed.is_empty());
    m.state.check();
}

#[test]
fn in_hybrid_mode_what_was_changed_so_far_does_not_tell_all() {
    let mut m = machine_with(|settings| settings.project.orchestration = Orchestration::Hybrid);
    m.add(&[new_task("A", &[]), new_task("B", &[])]);
    stands(&m, &[("A", "working A.test.1"), ("B", "ready test")]);
    complete(&mut m, "A", Some(&["a"]));
    m.turns();
    stands(&m, &[("A", "working A.impl.1"), ("B", "ready test")]);
}

fn clash(with: &str, paths: &[&str]) -> Clash {
    let paths = paths.iter().map(|path| (*path).to_owned()).collect();
    Clash { with: Some(id(with)), paths }
}

/// Tells what the trial of a task's branch found, which must be one that is due.
fn tell(m: &mut Machine, task: &str, clashes: Vec<Clash>) -> Answer {
    let Trial { task, tip, others, .. } = trial(&m.state, &id(task)).expect("it is to be tried");
    let tried = others.into_iter().map(|(id, _)| id).collect();
    m.see(Observation::Forecast { task, tip, tried, clashes })
}

#[test]
fn a_branch_is_tried_against_those_with_most_paths_in_common() {
    let mut m = machine_with(|settings| settings.agents[0].count = 12);
    let names: Vec<String> = (0..12).map(|n| format!("T{n}")).collect();
    m.add(&names.iter().map(|name| new_task(name, &[])).collect::<Vec<_>>());
    let paths: Vec<String> = (0..12).map(|n| format!("src/{n:02}")).collect();
    for (n, name) in names.iter().enumerate() {
        let changed: Vec<&str> = paths[n..].iter().map(String::as_str).collect();
        complete(&mut m, name, Some(&changed));
    }
    let Trial { onto, others, .. } = trial(&m.state, &id("T3")).expect("others are open");
    // Its worktree was made where the landing branch stands on no record.
    assert_eq!(onto, m.state.base.landed);
    let others: Vec<&str> = others.iter().map(|(id, _)| id.as_str()).collect();
    assert_eq!(others, ["T0", "T1", "T2", "T4", "T5", "T6", "T7", "T8"]);
    m.must(Command::CancelTasks { ids: vec![id("T0")], dependents: Dependents::Refuse });
    let Trial { others, .. } = trial(&m.state, &id("T3")).expect("others are open");
    assert!(others.iter().all(|(other, _)| *other != id("T0")));
}

#[test]
fn each_conflict_foreseen_is_kept_once_and_until_it_is_over() {
    let mut m = machine_with(|_| {});
    m.add(&[new_task("A", &[]), new_task("B", &[])]);
    complete(&mut m, "A", Some(&["a"]));
    complete(&mut m, "B", Some(&["a", "b"]));
    m.turns();
    tell(&mut m, "A", vec![clash("B", &["a"])]);
    tell(&mut m, "A", vec![clash("B", &["a"])]);
    let told = |change: &&Change| matches!(change, Change::Task(_, TaskChange::Forecast { .. }));
    assert_eq!(m.log.iter().filter(told).count(), 1);
    // The other one finds the same.
    tell(&mut m, "B", vec![clash("A", &["a"])]);
    assert_eq!(m.log.iter().filter(told).count(), 1);
    tell(&mut m, "B", vec![clash("A", &["a", "b"])]);
    assert_eq!(m.state.tasks[&id("A")].forecast, []);
    assert_eq!(m.state.tasks[&id("B")].forecast, [clash("A", &["a", "b"])]);
    // It was tried where the branch no longer stands.
    let Trial { task, tip, .. } = trial(&m.state, &id("A")).expect("B is open");
    complete(&mut m, "A", Some(&["a"]));
    let late = Observation::Forecast { task, tip, tried: vec![id("B")], clashes: Vec::new() };
    assert!(matches!(m.see(late), Answer::Note(_)));
    assert_eq!(m.state.tasks[&id("B")].forecast.len(), 1);
    tell(&mut m, "A", Vec::new());
    assert_eq!(m.state.tasks[&id("B")].forecast, []);
    m.state.check();
}

#[test]
fn what_a_landed_task_conflicts_with_is_told_of_the_other() {
    let mut m = machine_with(|_| {});
    m.add(&[new_task("A", &[]), new_task("B", &[])]);
    complete(&mut m, "A", Some(&["a"]));
    complete(&mut m, "B", Some(&["a"]));
    m.turns();
    complete(&mut m, "A", Some(&["a"]));
    m.turns();
    tell(&mut m, "A", vec![clash("B", &["a"]), Clash { with: None, paths: vec!["a".into()] }]);
    m.land("A");
    assert_eq!(m.state.tasks[&id("A")].forecast, []);
    assert_eq!(m.state.tasks[&id("B")].forecast, [clash("A", &["a"])]);
    m.state.check();
}

#[test]
fn a_long_forecast_is_cut() {
    let mut m = machine_with(|_| {});
    m.add(&[new_task("A", &[])]);
    complete(&mut m, "A", Some(&["a"]));
    let paths: Vec<String> = (0..100).map(|n| format!("{n}")).collect();
    let many = (0..100).map(|_| Clash { with: None, paths: paths.clone() }).collect();
    tell(&mut m, "A", many);
    let forecast = &m.state.tasks[&id("A")].forecast;
    assert_eq!((forecast.len(), forecast[0].paths.len()), (CLASHES_MAX, CLASH_PATHS_MAX));
}
