//! Landings that wait for a person: what was asked is of one landing only.

use pipeline::machine::event::{Dependents, GiveTo};
use pipeline::machine::id::{Oid, StageName};
use pipeline::machine::{Command, Effect, Observation};

use crate::machine_cases::short_machine;
use crate::machine_support::{End, Machine, id, new_task};

/// The landing of `A` is merged, and touches these protected paths.
fn merged(m: &mut Machine, protected: &[&str]) {
    let landing = m.state.landing.clone().expect("a landing is under way");
    let onto = m.state.base.landed.clone().expect("the base is taken in");
    let protected = protected.iter().map(|path| (*path).to_owned()).collect();
    let (task, number, commit) = (landing.task, landing.number, Oid::new("m"));
    m.see(Observation::Merged { task, number, commit, onto, protected });
    m.turns();
}

fn asked(m: &Machine) -> Option<&str> {
    m.state.tasks[&id("A")].approval.as_deref()
}

/// `A` waits in the lane for the approval of a workflow.
fn waiting() -> Machine {
    let mut m = short_machine(|_| {});
    m.add(&[new_task("A", &[])]);
    m.complete_stages("A");
    merged(&mut m, &[".github/a.yml"]);
    assert_eq!(asked(&m), Some(".github/a.yml"));
    m
}

/// `A` is worked on once more; now it changes the settings too, and that is asked.
fn asks_anew(m: &mut Machine) {
    assert_eq!(asked(m), None);
    m.run("A", End::Done);
    merged(m, &[".github/a.yml", "pipeline.toml"]);
    assert_eq!(asked(m), Some(".github/a.yml, pipeline.toml"));
    assert!(!m.effects().iter().any(|effect| matches!(effect, Effect::Land { .. })));
    m.state.check();
}

#[test]
fn what_is_given_back_to_a_stage_is_asked_about_anew() {
    let mut m = waiting();
    let from = m.state.tasks[&id("A")].tip.clone().expect("its branch is there");
    m.must(Command::TakeTask { id: id("A"), dir: "/hand".into(), from: from.clone() });
    assert_eq!(asked(&m), Some(".github/a.yml"), "it waits in the lane still");
    let to = GiveTo::Stage(StageName::new("implementation"));
    m.must(Command::GiveTask { id: id("A"), to, commit: from, changed: None });
    asks_anew(&mut m);
}

#[test]
fn what_is_reopened_is_asked_about_anew() {
    let mut m = waiting();
    m.must(Command::CancelTasks { ids: vec![id("A")], dependents: Dependents::Refuse });
    m.must(Command::ReopenTask { id: id("A"), is_fresh: false });
    asks_anew(&mut m);
}
