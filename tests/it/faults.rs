//! Faults of docs/reliability.md that no other test holds: what goes wrong, and what must be true
//! afterwards.

use pipeline::machine::attempt::Class;
use pipeline::machine::id::AttemptId;
use pipeline::machine::settings::{Completion, Settings};
use pipeline::machine::{Command, Observation};

use crate::machine_support::{End, Machine, group, id, new_task, settings};

/// One stage with one agent, and a check of the stage.
fn one_stage() -> Settings {
    let mut settings = settings();
    settings.stages = settings.stages[2..3].to_vec();
    settings.stages[0].checks = vec!["first".into()];
    settings.agents = vec![group("implementation", &["implementation"], 1)];
    settings
}

fn adopt(machine: &mut Machine, settings: &Settings) {
    machine.must(Command::AdoptSettings { settings: Box::new(settings.clone()) });
    machine.state.check();
}

#[test]
fn an_attempt_is_judged_by_the_rules_it_was_launched_under() {
    let old = one_stage();
    let mut m = Machine::new(old.clone());
    m.begin();
    m.add(&[new_task("A", &[])]);
    let attempt = m.start("A");

    // Other agents, other ways to say done, no check: all for the next attempt.
    let mut new = old.clone();
    new.hash = "1".repeat(16);
    new.stages[0].checks.clear();
    new.agents = ["first", "second"].map(|name| group(name, &["implementation"], 1)).to_vec();
    for group in &mut new.agents {
        group.completion = Completion::Exit;
    }
    adopt(&mut m, &new);
    assert_eq!(m.state.rules_of(&m.state.attempts[&attempt]), &old);
    m.exit(&attempt, End::NoMarker);
    let ended = m.state.tasks[&id("A")].history.last().and_then(|old| old.outcome.clone());
    assert_eq!(ended.map(|outcome| outcome.class), Some(Class::Incomplete));
    assert!(m.state.pinned.is_empty(), "nobody runs by the old rules any more");

    m.pass_to_deadline();
    let next = m.start("A");
    assert_eq!(m.state.attempts[&next].settings, new.hash);
    m.exit(&next, End::NoMarker);
    assert_eq!(m.stand("A"), "landing");
    m.state.check();
}

#[test]
fn checks_of_a_stage_are_those_of_its_attempt() {
    let old = one_stage();
    let mut m = Machine::new(old.clone());
    m.begin();
    m.add(&[new_task("A", &[])]);
    let attempt = m.start("A");
    let mut new = old.clone();
    new.hash = "1".repeat(16);
    new.stages[0].checks.clear();
    adopt(&mut m, &new);
    m.exit(&attempt, End::Done);
    let check = AttemptId::new("A.impl-check.1");
    assert_eq!(m.state.attempts[&check].settings, old.hash);
    // Twice the same, and back: what is pinned is kept once.
    adopt(&mut m, &old);
    adopt(&mut m, &new);
    assert_eq!(m.state.pinned.len(), 1);
    let at = m.now;
    m.see(Observation::Started { attempt: check.clone(), at });
    m.exit(&check, End::Fail);
    let evidence = m.state.tasks[&id("A")].evidence.last().cloned().expect("what failed is told");
    assert!(evidence.text.contains("`first` exited with status 1"), "{}", evidence.text);
    assert!(m.state.pinned.is_empty());
    m.state.check();
}
