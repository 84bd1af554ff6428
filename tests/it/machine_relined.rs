//! What a person's retry does with work that is done and could not be landed.

use pipeline::machine::event::RetryTarget;
use pipeline::machine::id::StageName;
use pipeline::machine::{Command, Observation};

use crate::machine_support::{Machine, group, id, new_task, settings};

/// One stage with one agent, and a single retry of what is not the task's fault.
fn impatient_machine() -> Machine {
    let mut settings = settings();
    settings.stages = settings.stages[2..3].to_vec();
    settings.agents = vec![group("implementation", &["implementation"], 1)];
    settings.limits.infrastructure_retries = 1;
    let mut machine = Machine::new(settings);
    machine.begin();
    machine
}

fn retry(ids: &[&str], stage: Option<&str>, is_fresh: bool) -> Command {
    let target = RetryTarget::Tasks(ids.iter().map(|name| id(name)).collect());
    Command::RetryTasks { target, stage: stage.map(StageName::new), note: None, is_fresh }
}

/// Blocks the task whose landing is under way, for want of a disk that can be written.
fn fail_lane(m: &mut Machine) {
    while m.state.landing.is_some() {
        m.see(Observation::LaneFaulted { why: "no inode".into() });
        m.pass_ms(600_000);
    }
}

#[test]
fn a_retry_of_what_could_not_be_landed_lands_it_and_runs_no_stage_again() {
    let mut m = impatient_machine();
    m.add(&[new_task("A", &[]), new_task("B", &[])]);
    for name in ["A", "B"] {
        m.complete_stages(name);
        fail_lane(&mut m);
        assert_eq!(m.stand(name), "blocked infrastructure impl");
    }
    // Named twice is retried once.
    m.must(retry(&["B", "A", "B"], None, false));
    assert_eq!([m.stand("A"), m.stand("B")], ["landing", "landing"]);
    m.turns();
    m.land("A");
    m.land("B");
    assert_eq!([m.stand("A"), m.stand("B")], ["completed", "completed"]);
    for name in ["A", "B"] {
        let runs = m.state.tasks[&id(name)].history.iter().filter(|run| run.is_work()).count();
        assert_eq!(runs, 1, "its only stage ran once");
    }
    m.state.check();
}

#[test]
fn a_retry_from_a_stage_or_afresh_works_again_on_what_could_not_be_landed() {
    for (stage, is_fresh) in [(Some("implementation"), false), (None, true)] {
        let mut m = impatient_machine();
        m.add(&[new_task("A", &[])]);
        m.complete_stages("A");
        fail_lane(&mut m);
        m.must(retry(&["A"], stage, is_fresh));
        m.turns();
        assert_eq!(m.stand("A"), "working A.impl.2");
    }
}
