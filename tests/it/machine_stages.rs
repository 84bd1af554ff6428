//! The way of a task through its stages, where a person changes it on the way.

use pipeline::machine::event::{Edit, RetryTarget};
use pipeline::machine::id::{Oid, StageName};
use pipeline::machine::mode::Isolation;
use pipeline::machine::settings::Settings;
use pipeline::machine::{Command, Observation};

use crate::machine_support::{End, Machine, id, new_task, settings};

/// A machine with the task `A`, which passes these stages.
fn machine(stages: &[&str], change: impl FnOnce(&mut Settings)) -> Machine {
    let mut settings = settings();
    change(&mut settings);
    let mut m = Machine::new(settings);
    m.begin();
    let mut task = new_task("A", &[]);
    task.spec.stages = stages.iter().copied().map(StageName::new).collect();
    m.add(&[task]);
    m
}

fn stages(names: &[&str]) -> Command {
    stages_of("A", names)
}

fn stages_of(task: &str, names: &[&str]) -> Command {
    let stages = Some(names.iter().copied().map(StageName::new).collect());
    Command::EditTask { id: id(task), edit: Box::new(Edit { stages, ..Edit::default() }) }
}

fn retry(m: &mut Machine, task: &str, stage: Option<&str>) {
    let target = RetryTarget::Tasks(vec![id(task)]);
    let stage = stage.map(StageName::new);
    m.must(Command::RetryTasks { target, stage, note: None, is_fresh: false });
}

/// Has the task's attempt made ready, so that its branch is there.
fn prepare(m: &mut Machine) {
    let (attempt, commit) = (m.work("A").id, Some(Oid::new("tip")));
    m.see(Observation::Prepared { attempt, base: commit.clone(), tip: commit });
}

/// Ends the task's attempt, and waits until it may go on.
fn end(m: &mut Machine, how: End) {
    m.run("A", how);
    if m.stand("A").starts_with("ready") {
        m.pass_to_deadline();
    }
}

const BOTH: &[&str] = &["implementation", "supervisor"];

#[test]
fn a_task_goes_on_behind_a_stage_that_it_no_longer_passes() {
    // While it waits to be tried once more, and while an agent works.
    for is_at_work in [false, true] {
        let mut m = machine(BOTH, |_| {});
        prepare(&mut m);
        if is_at_work {
            m.must(stages(&["supervisor"]));
            assert_eq!(m.stand("A"), "working A.impl.1");
            end(&mut m, End::Fail);
        } else {
            m.run("A", End::Fail);
            m.must(stages(&["supervisor"]));
        }
        assert_eq!(m.stand("A"), "working A.super.1");
        let tally = m.state.tasks[&id("A")].tally;
        assert_eq!((tally.attempts, tally.stage_failures), (1, 0), "used, and not counted here");
    }
    // A blocked one waits for a person all the same.
    let mut m = machine(BOTH, |settings| settings.limits.attempts_per_stage = 1);
    prepare(&mut m);
    m.run("A", End::Fail);
    m.must(stages(&["supervisor"]));
    assert_eq!(m.stand("A"), "blocked failed impl");
    retry(&mut m, "A", None);
    assert_eq!(m.stand("A"), "working A.super.1");
}

#[test]
fn an_attempt_at_a_stage_that_is_no_longer_passed_uses_up_the_tasks_attempts() {
    let mut m = machine(BOTH, |settings| settings.limits.attempts_per_task = 1);
    prepare(&mut m);
    m.must(stages(&["supervisor"]));
    m.run("A", End::Fail);
    assert_eq!(m.stand("A"), "blocked failed impl");
}

#[test]
fn a_task_of_which_nothing_is_done_begins_at_its_first_stage_however_it_is_edited() {
    // Kept back by a dependency that failed, when its stages were changed.
    let mut m = machine(&["implementation"], |settings| settings.limits.attempts_per_stage = 1);
    let mut task = new_task("B", &[]);
    task.spec.stages = vec![StageName::new("implementation")];
    m.add(&[task]);
    assert_eq!(m.stand("B"), "ready impl", "the only agent works for A");
    let depends = |names: &[&str]| {
        let depends_on = Some(names.iter().map(|name| id(name)).collect());
        Command::EditTask { id: id("B"), edit: Box::new(Edit { depends_on, ..Edit::default() }) }
    };
    m.must(depends(&["A"]));
    m.run("A", End::Fail);
    assert_eq!(m.stand("B"), "blocked dependency impl");
    m.must(stages_of("B", &["architect", "supervisor"]));
    m.must(Command::Pause);
    m.must(depends(&[]));
    assert_eq!(m.stand("B"), "ready arch");
    // Put at a later stage by a person.
    retry(&mut m, "B", Some("supervisor"));
    assert_eq!(m.stand("B"), "ready super");
    m.must(stages_of("B", &["implementation"]));
    assert_eq!(m.stand("B"), "ready impl");
}

#[test]
fn the_last_stage_is_not_taken_from_a_task_that_stands_there() {
    let refused = |m: &mut Machine, names: &[&str]| m.refused(stages(names));
    let at = |stage: &str| format!("`A` stands at stage `{stage}`, and none follows it");
    // Also while its first attempt is still being made ready, and in two steps.
    let mut m = machine(&["implementation"], |_| {});
    assert_eq!(m.stand("A"), "working A.impl.1");
    assert_eq!(refused(&mut m, &["architect"]), at("implementation"));
    m.must(stages(&["supervisor"]));
    assert_eq!(refused(&mut m, &["architect"]), at("implementation"));
    // Who waits at the last stage goes back by the command that is named.
    let mut m = machine(BOTH, |settings| settings.limits.attempts_per_stage = 1);
    prepare(&mut m);
    end(&mut m, End::Done);
    end(&mut m, End::Fail);
    assert_eq!(m.stand("A"), "blocked failed super");
    assert_eq!(refused(&mut m, &["implementation"]), at("supervisor"));
    retry(&mut m, "A", Some("implementation"));
    assert_eq!(refused(&mut m, &["architect"]), at("implementation"));
    m.must(stages(&["implementation"]));
    // One that has passed them all stands in the lane, not there.
    let mut m = machine(BOTH, |settings| settings.limits.infrastructure_retries = 0);
    m.complete_stages("A");
    m.see(Observation::LaneFaulted { why: "no inode".into() });
    m.turns();
    assert_eq!(m.stand("A"), "blocked infrastructure super");
    m.must(stages(&["implementation"]));
}

#[test]
fn without_git_what_has_worked_goes_on_behind_and_what_has_not_begins_at_the_first() {
    let mut m = machine(BOTH, |settings| settings.project.isolation = Isolation::None);
    end(&mut m, End::Done);
    m.must(stages(&["architect", "supervisor"]));
    assert_eq!(m.stand("A"), "working A.super.1");
}

#[test]
fn a_task_that_is_moved_by_an_edit_is_told_of_as_edited_at_the_stage_it_gets_to() {
    let mut m = machine(BOTH, |settings| settings.agents[3].capabilities = vec!["gpu".into()]);
    prepare(&mut m);
    m.must(Command::Pause);
    m.run("A", End::Fail);
    let edit = |names: &[&str], needs: &str| {
        let Command::EditTask { id, mut edit } = stages(names) else { unreachable!("an edit") };
        edit.needs = Some(vec![needs.into()]);
        Command::EditTask { id, edit }
    };
    m.must(edit(&["supervisor"], "gpu"));
    assert_eq!((&*m.stand("A"), &m.state.tasks[&id("A")].unserved), ("ready super", &None));
    retry(&mut m, "A", None);
    m.must(stages(BOTH));
    retry(&mut m, "A", Some("implementation"));
    m.must(edit(&["supervisor"], "tpu"));
    let why = m.state.tasks[&id("A")].unserved.as_deref().expect("nobody has that");
    assert!(why.contains("tpu") && why.contains("supervisor"), "{why}");
}
