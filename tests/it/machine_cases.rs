//! The core by cases: events in, where the tasks stand out.

use pipeline::machine::event::{Dependents, Edit, NewTask, RetryTarget};
use pipeline::machine::id::{AgentName, AttemptId, Oid, StageName};
use pipeline::machine::mode::{Isolation, Orchestration, Rollout};
use pipeline::machine::progress::Progress;
use pipeline::machine::settings::{Settings, Slice};
use pipeline::machine::task::{Priority, TaskKind};
use pipeline::machine::{Command, Effect, Observation, next_deadline, pending_effects};

use crate::machine_support::{End, Machine, group, id, new_task, settings};

fn machine_with(change: impl FnOnce(&mut Settings)) -> Machine {
    let mut settings = settings();
    change(&mut settings);
    let mut machine = Machine::new(settings);
    machine.begin();
    machine
}

/// One stage `implementation` with an agent.
pub(crate) fn short_machine(change: impl FnOnce(&mut Settings)) -> Machine {
    machine_with(|settings| {
        settings.stages = settings.stages[2..3].to_vec();
        settings.agents = vec![group("implementation", &["implementation"], 1)];
        change(settings);
    })
}

pub(crate) fn stands(machine: &Machine, expected: &[(&str, &str)]) {
    for (task, stand) in expected {
        assert_eq!(machine.stand(task), *stand, "{task}");
    }
    machine.state.check();
}

fn retry(ids: &[&str]) -> Command {
    let target = RetryTarget::Tasks(ids.iter().map(|name| id(name)).collect());
    Command::RetryTasks { target, stage: None, note: None, is_fresh: false }
}

fn cancel(name: &str, dependents: Dependents) -> Command {
    Command::CancelTasks { ids: vec![id(name)], dependents }
}

fn edit(name: &str, change: impl FnOnce(&mut Edit)) -> Command {
    let mut edit = Edit::default();
    change(&mut edit);
    Command::EditTask { id: id(name), edit: Box::new(edit) }
}

fn switch(to: Orchestration, wait_ms: Option<u64>, is_forced: bool) -> Command {
    Command::SwitchMode { to, wait_ms, is_forced }
}

#[test]
fn a_task_passes_all_stages_and_lands() {
    let mut m = machine_with(|_| {});
    m.add(&[new_task("A", &[]), new_task("B", &["A"])]);
    stands(&m, &[("A", "working A.arch.1"), ("B", "waiting")]);
    for next in ["working A.test.1", "working A.impl.1", "working A.super.1", "landing"] {
        m.run("A", End::Done);
        assert_eq!(m.stand("A"), next);
    }
    m.land("A");
    stands(&m, &[("A", "completed"), ("B", "working B.arch.1")]);
    assert!(m.effects().iter().any(|effect| matches!(effect, Effect::Follow { .. })));
}

#[test]
fn two_failures_then_success_go_on() {
    let mut m = machine_with(|_| {});
    m.add(&[new_task("A", &[])]);
    for n in 1..=2 {
        m.run("A", End::Fail);
        assert_eq!(m.stand("A"), "ready arch");
        let due = next_deadline(&m.state).expect("a backoff is a deadline");
        assert_eq!(due.ms_since(m.now), 5_000 * n);
        assert!(!m.state.is_idle(), "a backoff is not idle");
        m.pass_to_deadline();
        assert_eq!(m.stand("A"), format!("working A.arch.{}", n + 1));
    }
    m.run("A", End::Done);
    assert_eq!(m.stand("A"), "working A.test.1");
    assert_eq!(m.state.tasks[&id("A")].tally.stage_failures, 0);
}

#[test]
fn each_ending_has_its_rule() {
    let cases = [
        (End::Fail, "ready arch", 1),
        (End::NoMarker, "ready arch", 1),
        (End::Silent, "ready arch", 1),
        (End::Timeout, "ready arch", 1),
        (End::Crash, "ready arch", 1),
        (End::Blocked, "blocked blocked arch", 0),
        (End::Unstartable, "blocked unstartable arch", 0),
        (End::Changes, "blocked changes_requested arch", 1),
    ];
    for (end, stand, attempts) in cases {
        let mut m = machine_with(|_| {});
        m.add(&[new_task("A", &[])]);
        m.run("A", end);
        assert_eq!(m.stand("A"), stand, "{end:?}");
        assert_eq!(m.state.tasks[&id("A")].tally.attempts, attempts, "{end:?}");
    }
}

#[test]
fn used_up_bounds_block_with_the_class() {
    let mut m = short_machine(|s| s.limits.attempts_per_stage = 2);
    m.add(&[new_task("A", &[])]);
    m.run("A", End::Fail);
    m.pass_to_deadline();
    m.run("A", End::Timeout);
    stands(&m, &[("A", "blocked timed_out impl")]);
    assert!(m.state.is_idle());

    let mut m = machine_with(|s| s.limits.attempts_per_task = 2);
    m.add(&[new_task("A", &[])]);
    m.run("A", End::Done);
    m.run("A", End::Done);
    stands(&m, &[("A", "blocked failed impl")]);
    m.must(retry(&["A"]));
    stands(&m, &[("A", "working A.impl.1")]);
}

#[test]
fn work_without_a_change_is_empty_only_where_one_is_due() {
    let mut m = machine_with(|_| {});
    m.add(&[new_task("A", &[])]);
    for (stage, stand) in [("arch", "working A.test.1"), ("test", "ready test")] {
        let attempt = m.start("A");
        let exit = Box::new(crate::machine_support::exit(End::Done, m.now));
        m.see(Observation::Exited { attempt: attempt.clone(), exit });
        m.see(Observation::Saved {
            attempt,
            commit: None,
            has_changed: false,
            markers: Vec::new(),
            notes: Vec::new(),
            lacks: None,
        });
        m.turns();
        assert_eq!(m.stand("A"), stand, "{stage}");
    }
    let evidence = &m.state.tasks[&id("A")].evidence;
    assert_eq!(evidence.last().map(|evidence| evidence.class.word()), Some("empty"));
}

#[test]
fn changes_requested_send_back_once_then_block() {
    let mut m = machine_with(|s| s.limits.send_backs = 1);
    m.add(&[new_task("A", &[])]);
    for _ in 0..3 {
        m.run("A", End::Done);
    }
    m.run("A", End::Changes);
    assert_eq!(m.stand("A"), "working A.impl.2");
    m.run("A", End::Done);
    m.run("A", End::Changes);
    stands(&m, &[("A", "blocked changes_requested impl")]);
}

#[test]
fn a_conflict_sends_back_and_owes_the_merge() {
    let mut m = machine_with(|_| {});
    m.add(&[new_task("A", &[])]);
    m.complete_stages("A");
    let onto = Oid::new("theirs");
    m.see(Observation::MergeConflicts {
        task: id("A"),
        number: 1,
        onto: onto.clone(),
        paths: vec!["src/a.rs".into()],
        with: vec![id("B")],
    });
    m.turns();
    assert_eq!(m.stand("A"), "working A.impl.2");
    assert_eq!(m.work("A").merge, Some(onto.clone()));

    let attempt = m.start("A");
    let exit = Box::new(crate::machine_support::exit(End::Done, m.now));
    m.see(Observation::Exited { attempt: attempt.clone(), exit });
    m.save(&attempt, true, &["src/a.rs"]);
    assert_eq!(m.stand("A"), "ready impl");
    let task = &m.state.tasks[&id("A")];
    assert_eq!(task.evidence.last().map(|e| e.class.word()), Some("conflict_left"));
    assert_eq!(task.merge_owed, Some(onto));
    m.pass_to_deadline();
    m.run("A", End::Done);
    assert_eq!(m.state.tasks[&id("A")].merge_owed, None);
}

#[test]
fn after_a_loss_another_agent_is_preferred() {
    let mut m = short_machine(|s| s.agents[0].count = 2);
    m.add(&[new_task("A", &[])]);
    let first = m.work("A");
    m.start("A");
    m.see(Observation::Lost { attempt: first.id.clone(), why: "keeper gone".into() });
    m.save(&first.id, true, &[]);
    let task = &m.state.tasks[&id("A")];
    assert_eq!((task.tally.attempts, task.tally.infrastructure), (0, 1));
    assert_eq!(task.resume_from, Some(Oid::new("saved-A.impl.1")));
    m.pass_to_deadline();
    assert_ne!(m.work("A").agent, first.agent);
}

#[test]
fn infrastructure_costs_no_attempt_up_to_its_own_bound() {
    let mut m = short_machine(|s| s.limits.infrastructure_retries = 2);
    m.add(&[new_task("A", &[])]);
    for n in 1..=3 {
        let attempt = m.work("A").id;
        m.see(Observation::AttemptFaulted { attempt, why: "disk full".into() });
        m.turns();
        assert_eq!(m.state.tasks[&id("A")].tally.attempts, 0);
        if n < 3 {
            m.pass_to_deadline();
        }
    }
    stands(&m, &[("A", "blocked infrastructure impl")]);
}

#[test]
fn a_slot_that_was_not_made_is_made_again_before_another_is() {
    let mut m = short_machine(|s| s.agents[0].count = 1);
    m.add(&[new_task("A", &[])]);
    let mut slots = Vec::new();
    for _ in 0..3 {
        let attempt = m.work("A").clone();
        slots.push(attempt.slot);
        m.see(Observation::AttemptFaulted { attempt: attempt.id, why: "git was killed".into() });
        m.turns();
        m.pass_to_deadline();
    }
    assert_eq!(slots, [0, 0, 1]);
}

#[test]
fn a_fault_never_ends_what_runs() {
    let mut m = short_machine(|_| {});
    m.add(&[new_task("A", &[])]);
    let attempt = m.start("A");
    m.ask(cancel("A", Dependents::Refuse));
    assert_eq!(m.effects().len(), 1);
    m.see(Observation::AttemptFaulted { attempt: attempt.clone(), why: "no keeper".into() });
    m.turns();
    assert!(m.state.attempts.contains_key(&attempt));
    m.pass_to_deadline();
    assert_eq!(m.effects(), [Effect::Stop { attempt }]);
}

#[test]
fn failed_checks_fail_the_stage_with_their_output() {
    let mut m = short_machine(|s| s.stages[0].checks = vec!["cargo test".into()]);
    m.add(&[new_task("A", &[])]);
    m.run("A", End::Done);
    let check = AttemptId::new("A.impl-check.1");
    assert!(m.state.attempts.contains_key(&check));
    m.see(Observation::Started { attempt: check.clone(), at: m.now });
    m.exit(&check, End::Fail);
    stands(&m, &[("A", "ready impl")]);
    let evidence = m.state.tasks[&id("A")].evidence[0].clone();
    assert_eq!(evidence.class.word(), "checks_failed");
    assert!(evidence.text.contains("cargo test") && evidence.text.contains("tail"));
}

#[test]
fn a_landing_check_that_is_stopped_frees_the_lane() {
    let mut m = short_machine(|s| s.landing.checks = vec!["check".into()]);
    let check = AttemptId::new("base.check.1");
    m.add(&[new_task("A", &[])]);
    m.start_attempt(&check);
    m.exit(&check, End::Done);
    m.complete_stages("A");
    let (commit, onto) = (Oid::new("m"), Oid::new("o"));
    let protected = Vec::new();
    m.see(Observation::Merged { task: id("A"), number: 1, commit, onto, protected });
    let check = AttemptId::new("A.land.1");
    m.must(Command::Stop { kind: pipeline::machine::event::StopKind::Now });
    m.see(Observation::Prepared { attempt: check, base: None, tip: None });
    m.turns();
    assert!(m.state.landing.is_none() && m.state.attempts.is_empty());
    m.see(Observation::MonitorStarted { pid: 2, allows_red_base: false });
    m.turns();
    assert_eq!(m.state.landing.as_ref().map(|landing| landing.number), Some(2));
}

#[test]
fn a_landing_branch_that_is_gone_is_made_again_where_it_stood() {
    let mut m = short_machine(|_| {});
    let landed = m.state.base.landed.clone();
    assert!(landed.is_some());
    m.see(Observation::BaseSeen { tip: Oid::new("base-1"), landed: None });
    m.turns();
    let effects = m.effects();
    let [Effect::TakeBase { landed: Some(found), .. }] = effects.as_slice() else {
        panic!("{effects:?}")
    };
    assert_eq!(Some(found), landed.as_ref());
}

#[test]
fn an_old_look_at_the_landing_branch_does_not_undo_what_has_landed() {
    let mut m = short_machine(|_| {});
    let landed = m.state.base.landed.clone();
    m.see(Observation::BaseSeen { tip: Oid::new("base-2"), landed: Some(Oid::new("older")) });
    assert_eq!(m.state.base.landed, landed);
}

#[test]
fn bad_additions_are_refused() {
    let mut m = machine_with(|_| {});
    m.add(&[new_task("A", &[]), new_task("B", &["A"])]);
    let with = |change: fn(&mut NewTask)| {
        let mut new = new_task("X", &[]);
        change(&mut new);
        vec![new]
    };
    let cases = [
        (vec![new_task("X", &["nope"])], "`X` depends on unknown `nope`"),
        (vec![new_task("a", &[])], "differs from another id in case only"),
        (vec![new_task("A", &[])], "task `A` exists"),
        (vec![new_task("X", &[]), new_task("x", &[])], "stands twice"),
        (vec![new_task("X", &["X"])], "depends on itself"),
        (vec![new_task("X", &["Y"]), new_task("Y", &["X"])], "X -> Y -> X"),
        (with(|new| new.spec.title = " ".into()), "has no title"),
        (with(|new| new.spec.stages = vec![StageName::new("dance")]), "unknown stage `dance`"),
        (
            with(|new| new.spec.touches = vec!["a[".into()]),
            "touches glob `a[`, which does not close",
        ),
        (with(|new| new.spec.parent = Some(id("A"))), "is not an epic"),
        (with(|new| new.spec.parent = Some(id("Z"))), "unknown epic `Z`"),
    ];
    for (tasks, expected) in cases {
        let reason = m.refused(Command::AddTasks { tasks });
        assert!(reason.contains(expected), "{reason} lacks {expected}");
    }
}

#[test]
fn an_edit_that_closes_a_cycle_is_refused_with_the_path() {
    let mut m = machine_with(|_| {});
    m.add(&[new_task("A", &[]), new_task("B", &["A"]), new_task("C", &["B"])]);
    let reason = m.refused(edit("A", |edit| edit.add_depends_on = vec![id("C")]));
    assert!(reason.contains("A -> C -> B -> A"), "{reason}");
}

#[test]
fn a_cycle_through_a_task_that_was_missing_is_refused() {
    let mut m = machine_with(|_| {});
    let mut new = new_task("A", &["X"]);
    new.may_lack_dependencies = true;
    m.add(&[new]);
    stands(&m, &[("A", "blocked dependency -")]);
    let reason = m.refused(Command::AddTasks { tasks: vec![new_task("X", &["A"])] });
    assert!(reason.contains("cycle"), "{reason}");
    m.add(&[new_task("X", &[])]);
    stands(&m, &[("A", "waiting"), ("X", "working X.arch.1")]);
}

#[test]
fn made_ids_pass_over_what_is_there() {
    let mut m = machine_with(|_| {});
    let add = |m: &mut Machine, ids: &[Option<&str>]| {
        let make = |name: &Option<&str>| NewTask { id: name.map(id), ..new_task("t", &[]) };
        m.add(&ids.iter().map(make).collect::<Vec<_>>());
    };
    add(&mut m, &[None, Some("task-002"), None]);
    add(&mut m, &[Some("TASK-18446744073709551615"), Some("TASK-007")]);
    add(&mut m, &[None]);
    let ids: Vec<&str> = m.state.tasks.keys().map(|id| id.as_str()).collect();
    let expected =
        ["TASK-001", "TASK-003", "TASK-007", "TASK-008", "TASK-18446744073709551615", "task-002"];
    assert_eq!(ids, expected);
}

#[test]
fn cancelling_asks_what_becomes_of_dependents() {
    let fresh = || {
        let mut m = machine_with(|_| {});
        m.add(&[new_task("A", &[]), new_task("B", &["A"]), new_task("C", &["B"])]);
        m
    };
    let mut m = fresh();
    let reason = m.refused(cancel("A", Dependents::Refuse));
    assert!(reason.contains("open tasks depend on `A`: B"), "{reason}");
    m.must(cancel("A", Dependents::Cancel));
    stands(&m, &[("A", "cancelled"), ("B", "cancelled"), ("C", "cancelled")]);
    let mut m = fresh();
    m.must(cancel("A", Dependents::Release));
    stands(&m, &[("A", "cancelled"), ("B", "ready arch"), ("C", "waiting")]);
    m.must(cancel("A", Dependents::Cancel));
    let reason = m.refused(retry(&["A"]));
    assert!(reason.contains("is cancelled"), "{reason}");
}

#[test]
fn epics_are_no_work_and_hold_nothing_up() {
    let mut m = machine_with(|_| {});
    let mut epic = new_task("E", &[]);
    epic.spec.kind = TaskKind::Epic;
    let mut child = new_task("A", &["E"]);
    child.spec.parent = Some(id("E"));
    m.add(&[epic, child]);
    stands(&m, &[("A", "working A.arch.1"), ("E", "waiting")]);
    assert_eq!((m.state.index.counts.wip, m.state.index.counts.unassigned), (1, 0));
    assert_eq!(m.state.index.links(&id("E")).map(|links| links.below.open), Some(1));
    let reason = m.refused(retry(&["E"]));
    assert!(reason.contains("epic"), "{reason}");
    m.must(cancel("A", Dependents::Refuse));
    assert_eq!(m.state.index.links(&id("E")).map(|links| links.below.open), Some(0));
}

#[test]
fn epics_count_what_is_below_them_however_it_is_moved_about() {
    let mut m = machine_with(|_| {});
    let below = |name: &str, kind: TaskKind, epic: Option<&str>| {
        let mut new = new_task(name, &[]);
        (new.spec.kind, new.spec.parent) = (kind, epic.map(id));
        new
    };
    let is_at = |m: &Machine, epic: &str, open: u32, completed: u32, cancelled: u32| {
        let progress = Progress { open, completed, cancelled };
        assert_eq!(m.state.index.links(&id(epic)).map(|links| links.below), Some(progress));
        m.state.check();
    };
    let put = |m: &mut Machine, task: &str, epic: Option<&str>| {
        let edit = Edit { parent: Some(epic.map(id)), ..Edit::default() };
        m.must(Command::EditTask { id: id(task), edit: Box::new(edit) });
    };
    // Children come before their epics here, and theirs before them.
    m.add(&[
        below("A", TaskKind::Task, Some("F")),
        below("B", TaskKind::Task, Some("F")),
        below("F", TaskKind::Epic, Some("E")),
        below("C", TaskKind::Task, Some("E")),
        below("E", TaskKind::Epic, None),
        below("G", TaskKind::Epic, None),
    ]);
    is_at(&m, "E", 3, 0, 0);
    is_at(&m, "F", 2, 0, 0);
    m.complete_stages("A");
    is_at(&m, "F", 2, 0, 0);
    m.land("A");
    m.must(cancel("B", Dependents::Refuse));
    is_at(&m, "F", 0, 1, 1);
    is_at(&m, "E", 1, 1, 1);
    put(&mut m, "F", Some("G"));
    is_at(&m, "E", 1, 0, 0);
    is_at(&m, "G", 0, 1, 1);
    put(&mut m, "C", Some("F"));
    is_at(&m, "E", 0, 0, 0);
    is_at(&m, "G", 1, 1, 1);
    put(&mut m, "F", None);
    is_at(&m, "G", 0, 0, 0);
    is_at(&m, "F", 1, 1, 1);
}

#[test]
fn an_epic_below_itself_is_refused() {
    let mut m = machine_with(|_| {});
    let epic = |name: &str, parent: Option<&str>| {
        let mut new = new_task(name, &[]);
        new.spec.kind = TaskKind::Epic;
        new.spec.parent = parent.map(id);
        new
    };
    let tasks = vec![epic("E", Some("F")), epic("F", Some("E"))];
    assert!(m.refused(Command::AddTasks { tasks }).contains("below itself"));
    m.add(&[epic("E", None), epic("F", Some("E"))]);
    let reason = m.refused(edit("E", |edit| edit.parent = Some(Some(id("F")))));
    assert!(reason.contains("task `E` would be below itself"), "{reason}");
}

#[test]
fn a_blocked_dependency_blocks_and_its_retry_frees() {
    let mut m = machine_with(|_| {});
    m.add(&[new_task("A", &[]), new_task("B", &["A"])]);
    m.run("A", End::Blocked);
    stands(&m, &[("A", "blocked blocked arch"), ("B", "blocked dependency -")]);
    let reason = m.refused(retry(&["B"]));
    assert!(reason.contains("waits for a dependency"), "{reason}");
    m.must(retry(&["A"]));
    stands(&m, &[("A", "working A.arch.2"), ("B", "waiting")]);
}

#[test]
fn a_dependency_added_under_way_holds_the_task_at_its_stage() {
    let mut m = machine_with(|_| {});
    m.add(&[new_task("A", &[]), new_task("B", &[])]);
    stands(&m, &[("A", "working A.arch.1"), ("B", "ready arch")]);
    m.must(edit("A", |edit| edit.add_depends_on = vec![id("B")]));
    m.run("A", End::Done);
    stands(&m, &[("A", "ready test"), ("B", "working B.arch.1")]);
    m.run("B", End::Blocked);
    stands(&m, &[("A", "blocked dependency test")]);
    m.must(edit("A", |edit| edit.depends_on = Some(Vec::new())));
    stands(&m, &[("A", "working A.test.1")]);
}

#[test]
fn held_tasks_wait_and_released_ones_start() {
    let mut m = machine_with(|_| {});
    let mut held = new_task("A", &[]);
    held.is_held = true;
    m.add(&[held]);
    stands(&m, &[("A", "waiting")]);
    assert!(m.state.is_idle());
    m.must(Command::ReleaseTasks { ids: vec![id("A")] });
    stands(&m, &[("A", "working A.arch.1")]);
}

#[test]
fn the_pilot_slice_is_closed_over_dependencies() {
    let mut m = machine_with(|s| {
        s.project.rollout = Rollout::Pilot;
        s.rollout.pilot = Slice::Labels(vec!["pilot".into()]);
    });
    m.add(&[new_task("A", &[]), new_task("B", &["A"]), new_task("C", &[])]);
    stands(&m, &[("A", "waiting"), ("B", "waiting"), ("C", "waiting")]);
    m.must(edit("B", |edit| edit.labels = Some(vec!["pilot".into()])));
    stands(&m, &[("A", "working A.arch.1"), ("B", "waiting"), ("C", "waiting")]);
    m.must(edit("C", |edit| edit.add_depends_on = vec![id("B")]));
    m.must(edit("B", |edit| edit.labels = Some(Vec::new())));
    stands(&m, &[("A", "working A.arch.1"), ("C", "waiting")]);
    assert!(!m.state.index.is_in_slice(&id("A")));
}

#[test]
fn shadow_says_what_it_would_start_and_does_nothing() {
    let mut m = machine_with(|s| s.project.rollout = Rollout::Shadow);
    m.add(&[new_task("A", &[]), new_task("B", &["A"])]);
    stands(&m, &[("A", "waiting"), ("B", "waiting")]);
    assert!(m.effects().is_empty() && m.seen.is_empty());
    assert!(m.state.tasks[&id("A")].is_announced && !m.state.tasks[&id("B")].is_announced);
}

#[test]
fn sequential_takes_the_task_furthest_along_one_at_a_time() {
    let mut m = machine_with(|_| {});
    m.add(&[new_task("A", &[]), new_task("B", &[]), new_task("C", &[])]);
    m.run("A", End::Done);
    m.must(switch(Orchestration::Sequential, None, true));
    assert_eq!(m.state.current, Some(id("A")));
    m.run("A", End::Fail);
    m.run("B", End::Done);
    stands(&m, &[("A", "ready test"), ("B", "ready test"), ("C", "ready arch")]);
    m.pass_to_deadline();
    stands(&m, &[("A", "working A.test.2"), ("B", "ready test")]);
    m.complete_stages("A");
    stands(&m, &[("A", "landing"), ("B", "ready test"), ("C", "ready arch")]);
    assert_eq!(m.state.current, Some(id("A")), "the next one waits for the landing");
    m.land("A");
    stands(&m, &[("A", "completed"), ("B", "working B.test.1"), ("C", "ready arch")]);
    m.must(Command::PickTask { text: "C".into() });
    m.run("B", End::Done);
    stands(&m, &[("B", "ready impl"), ("C", "working C.arch.1")]);
    m.run("C", End::Blocked);
    stands(&m, &[("B", "working B.impl.1")]);
}

#[test]
fn sequential_goes_past_a_task_without_an_agent() {
    let mut m = machine_with(|s| s.project.orchestration = Orchestration::Sequential);
    let mut lonely = new_task("A", &[]);
    lonely.spec.needs = vec!["gpu".into()];
    lonely.spec.priority = Priority::Critical;
    m.add(&[lonely, new_task("B", &[])]);
    stands(&m, &[("A", "ready arch"), ("B", "working B.arch.1")]);
    m.must(Command::PauseAgent { name: AgentName::new("test") });
    m.run("B", End::Done);
    stands(&m, &[("B", "ready test")]);
    assert_eq!(m.state.current, None);
}

#[test]
fn a_pick_of_anything_but_a_startable_task_is_put_back() {
    let mut m = machine_with(|s| s.project.orchestration = Orchestration::Sequential);
    m.add(&[new_task("A", &[]), new_task("B", &["A"])]);
    for text in ["nope", "B", "", "\u{1b}[2J"] {
        let answer = format!("{:?}", m.ask(Command::PickTask { text: text.into() }));
        assert!(answer.contains("put back"), "{text}: {answer}");
        assert_eq!(m.state.current, Some(id("A")));
    }
}

#[test]
fn a_switch_of_mode_waits_expires_or_is_forced() {
    let busy = || {
        let mut m = machine_with(|_| {});
        m.add(&[new_task("A", &[])]);
        m
    };
    let mut m = busy();
    let reason = m.refused(switch(Orchestration::Sequential, None, false));
    assert_eq!(reason, "agent `architect` is working on `A`");
    m.must(switch(Orchestration::Sequential, Some(60_000), false));
    m.run("A", End::Done);
    assert_eq!((m.state.orchestration, m.state.drain), (Orchestration::Sequential, None));
    stands(&m, &[("A", "working A.test.1")]);

    let mut m = busy();
    m.must(switch(Orchestration::Sequential, Some(60_000), false));
    assert_eq!(next_deadline(&m.state), Some(m.now.plus_ms(60_000)));
    m.pass_ms(60_000);
    assert_eq!((m.state.orchestration, m.state.drain), (Orchestration::Parallel, None));

    let mut m = busy();
    m.must(switch(Orchestration::Sequential, None, true));
    assert_eq!(m.state.orchestration, Orchestration::Sequential);
    m.must(switch(Orchestration::Sequential, None, false));
}

#[test]
fn a_landing_of_protected_paths_waits_for_a_person() {
    let mut m = short_machine(|_| {});
    m.add(&[new_task("A", &[]), new_task("B", &[])]);
    m.complete_stages("A");
    let merged = |number| Observation::Merged {
        task: id("A"),
        number,
        commit: Oid::new("m"),
        onto: Oid::new("base-1"),
        protected: vec!["pipeline.toml".into()],
    };
    m.see(merged(1));
    m.turns();
    assert_eq!(m.state.tasks[&id("A")].approval.as_deref(), Some("pipeline.toml"));
    m.complete_stages("B");
    m.land("B");
    assert!(m.state.landing.is_none());
    let reason = m.refused(Command::ApproveTasks { ids: vec![id("B")] });
    assert!(reason.contains("does not wait for approval"), "{reason}");
    assert_eq!(m.refused(retry(&["A"])), "task `A` waits for approval");
    m.must(Command::ApproveTasks { ids: vec![id("A")] });
    m.see(merged(2));
    m.turns();
    assert!(m.effects().iter().any(|effect| matches!(effect, Effect::Land { .. })));
}

#[test]
fn a_run_starts_no_more_than_its_attempts() {
    let mut m = machine_with(|s| s.limits.attempts_per_run = 1);
    m.add(&[new_task("A", &[])]);
    m.run("A", End::Done);
    stands(&m, &[("A", "ready test")]);
    assert!(m.state.is_idle());
    m.see(Observation::MonitorEnded { why: "only a person can go on".into() });
    m.see(Observation::MonitorStarted { pid: 2, allows_red_base: false });
    m.turns();
    stands(&m, &[("A", "working A.test.1")]);
}

#[test]
fn the_launch_rate_is_a_deadline_and_not_idle() {
    let mut m = short_machine(|s| {
        s.monitor.launch_rate = Some(1);
        s.project.isolation = Isolation::None;
    });
    m.add(&[new_task("A", &[]), new_task("B", &[])]);
    let first = AttemptId::new("A.impl.1");
    m.see(Observation::Started { attempt: first.clone(), at: m.now });
    m.exit(&first, End::Done);
    stands(&m, &[("A", "completed"), ("B", "ready impl")]);
    assert!(!m.state.is_idle());
    m.pass_to_deadline();
    stands(&m, &[("B", "working B.impl.1")]);
    m.pass_ms(5_000);
    assert_eq!(next_deadline(&m.state), None, "nothing waits for the rate");
}

#[test]
fn a_red_base_stops_launches_until_it_moves() {
    let mut m = short_machine(|s| s.landing.checks = vec!["check".into()]);
    m.add(&[new_task("A", &[])]);
    let check = AttemptId::new("base.check.1");
    m.start_attempt(&check);
    m.exit(&check, End::Fail);
    stands(&m, &[("A", "ready impl")]);
    assert!(m.state.is_idle() && m.state.base.red.is_some());
    m.base_moves("base-2");
    let check = AttemptId::new("base.check.2");
    m.start_attempt(&check);
    m.exit(&check, End::Done);
    stands(&m, &[("A", "working A.impl.1")]);
    m.complete_stages("A");
    m.add(&[new_task("B", &[])]);
    m.run("B", End::Fail);

    // Red once more while A is on its way; what lands verified is green when the base follows.
    let landed = m.state.base.landed.clone().unwrap();
    m.base_moves("base-3");
    m.pass_to_deadline();
    let check = AttemptId::new("base.check.3");
    m.start_attempt(&check);
    m.exit(&check, End::Fail);
    let commit = Oid::new("m");
    let (number, onto, protected) = (1, landed, Vec::new());
    m.see(Observation::Merged { task: id("A"), number, commit: commit.clone(), onto, protected });
    let check = AttemptId::new("A.land.1");
    m.start_attempt(&check);
    m.exit(&check, End::Done);
    m.see(Observation::Landed { task: id("A"), number, commit: commit.clone() });
    m.turns();
    m.see(Observation::Followed { to: commit });
    m.turns();
    assert!(!m.state.is_idle(), "{}", m.stand("B"));
}

#[test]
fn a_base_that_is_there_though_its_git_was_killed_is_asked_again() {
    let mut m = short_machine(|_| {});
    m.add(&[new_task("A", &[])]);
    m.complete_stages("A");
    let onto = m.state.base.landed.clone().unwrap();
    let (number, commit, protected) = (1, Oid::new("m"), Vec::new());
    m.see(Observation::Merged { task: id("A"), number, commit: commit.clone(), onto, protected });
    m.see(Observation::Landed { task: id("A"), number, commit: commit.clone() });
    m.turns();
    let is_owed = |m: &Machine| {
        pending_effects(&m.state).any(|effect| matches!(effect, Effect::Follow { .. }))
    };
    let seen = || Observation::BaseSeen { tip: Oid::new("m"), landed: Some(Oid::new("m")) };
    let refused = || {
        let why = "killed half-way".to_owned();
        Observation::FollowRefused { to: Oid::new("m"), why, behind: 0, is_passing: false }
    };
    // Its git moved the branch and was killed before it was done; a look comes first.
    m.see(seen());
    m.turns();
    assert!(is_owed(&m), "the outcome of its git is waited for");
    m.see(Observation::BaseTaken { base: Oid::new("m"), landed: Oid::new("m"), has_all: true });
    m.see(refused());
    m.turns();
    assert_eq!(m.state.base.why.as_deref(), Some("killed half-way"));
    assert!(m.state.is_idle() && !is_owed(&m));
    // Whoever starts it again may have put it right.
    m.see(Observation::MonitorStarted { pid: 2, allows_red_base: false });
    m.turns();
    assert!(is_owed(&m));
    m.see(seen());
    m.turns();
    assert!(is_owed(&m));
    m.see(Observation::Followed { to: commit });
    m.turns();
    assert!(m.state.base.why.is_none() && m.state.is_idle());
}

#[test]
fn what_lands_while_a_step_of_the_base_is_refused_counts_too() {
    let mut m = short_machine(|_| {});
    m.add(&[new_task("A", &[]), new_task("B", &[])]);
    for (name, commit) in [("A", "m"), ("B", "n")] {
        m.complete_stages(name);
        m.turns();
        let onto = m.state.base.landed.clone().unwrap();
        let number = m.state.landing.as_ref().expect("it lands").number;
        let (commit, protected) = (Oid::new(commit), Vec::new());
        let merged = commit.clone();
        m.see(Observation::Merged { task: id(name), number, commit: merged, onto, protected });
        m.see(Observation::Landed { task: id(name), number, commit });
        m.turns();
    }
    let (to, why) = (Oid::new("m"), "edits overlap".to_owned());
    m.see(Observation::FollowRefused { to, why, behind: 1, is_passing: false });
    assert_eq!(m.state.base.behind, 2);
    m.state.check();
}

#[test]
fn a_long_chain_is_blocked_and_freed_in_few_turns() {
    let mut m = short_machine(|_| {});
    let name = |n: usize| format!("T{n:04}");
    let chain: Vec<NewTask> = (0..2_000)
        .map(|n| match n {
            0 => new_task(&name(0), &[]),
            _ => new_task(&name(n), &[&name(n - 1)]),
        })
        .collect();
    m.add(&chain);
    // Turns without end would fail here: there are more tasks than turns allowed.
    m.run("T0000", End::Blocked);
    stands(&m, &[("T0001", "blocked dependency -"), ("T1999", "blocked dependency -")]);
    m.must(retry(&["T0000"]));
    stands(&m, &[("T0001", "waiting"), ("T1999", "waiting")]);
}
