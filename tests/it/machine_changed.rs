//! What a branch has changed so far, and what the scheduler makes of it.

use pipeline::machine::event::RetryTarget;
use pipeline::machine::mode::Orchestration;
use pipeline::machine::settings::Settings;
use pipeline::machine::{Command, Observation};

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
