//! Cases of what goes on around the tasks: a base in doubt, answers that come late, a full disk.

use pipeline::machine::attempt::Class;
use pipeline::machine::event::StopKind;
use pipeline::machine::id::{AgentName, AttemptId, Oid};
use pipeline::machine::mode::Rollout;
use pipeline::machine::settings::Settings;
use pipeline::machine::task::TaskPhase;
use pipeline::machine::{Command, Effect, Observation};

use crate::machine_cases::{short_machine, stands};
use crate::machine_support::{End, Machine, exit, id, new_task};

#[test]
fn a_late_answer_about_an_older_base_does_not_undo_what_has_landed() {
    let mut m = short_machine(|_| {});
    let (old, landed) = (m.state.base.tip.clone().unwrap(), m.state.base.landed.clone());
    m.see(Observation::BaseSeen { tip: Oid::new("base-2"), landed: landed.clone() });
    m.see(Observation::BaseTaken {
        base: Oid::new("base-2"),
        landed: Oid::new("base-2"),
        has_all: true,
    });
    m.see(Observation::BaseSeen { tip: Oid::new("base-3"), landed: m.state.base.landed.clone() });
    m.see(Observation::BaseTaken { base: old.clone(), landed: old, has_all: true });
    assert_eq!(m.state.base.landed, Some(Oid::new("base-2")), "{:?}", m.state.base);
}

#[test]
fn what_failed_is_not_tried_again_at_once_where_retries_wait_for_nothing() {
    let mut m = short_machine(|settings| settings.retry.first_ms = 0);
    m.see(Observation::BaseSeen { tip: Oid::new("base-2"), landed: m.state.base.landed.clone() });
    let is_owed = |m: &Machine| m.effects().iter().any(|it| matches!(it, Effect::TakeBase { .. }));
    for _ in 0..3 {
        assert!(is_owed(&m), "{:?}", m.effects());
        m.see(Observation::LaneFaulted { why: "no room".into() });
        m.turns();
        assert!(!is_owed(&m), "{:?}", m.effects());
        m.pass_to_deadline();
    }
}

#[test]
fn shadow_waits_for_a_landing_that_is_being_moved() {
    let mut m = short_machine(|_| {});
    m.add(&[new_task("A", &[])]);
    m.run("A", End::Done);
    let merge = m.merge();
    let shadow = || Command::SetRollout { to: Rollout::Shadow, is_forced: true };
    assert!(m.refused(shadow()).contains("is being landed"));
    m.see(merge.landed());
    m.must(shadow());
    stands(&m, &[("A", "completed")]);
}

#[test]
fn a_conflict_told_late_does_not_give_up_a_landing_that_is_being_moved() {
    let mut m = short_machine(|_| {});
    m.add(&[new_task("A", &[])]);
    m.run("A", End::Done);
    let merge = m.merge();
    let (paths, with) = (vec!["f".to_owned()], Vec::new());
    let (task, number, onto) = (merge.task.clone(), merge.number, merge.onto.clone());
    m.see(Observation::MergeConflicts { task, number, onto, paths, with });
    stands(&m, &[("A", "landing")]);
    m.see(merge.landed());
    stands(&m, &[("A", "completed")]);
    assert_eq!(m.state.tasks[&id("A")].tally.send_backs, 0);
}

#[test]
fn a_landing_whose_branch_was_put_back_is_moved_again_and_not_given_up() {
    let mut m = short_machine(|_| {});
    m.add(&[new_task("A", &[])]);
    m.run("A", End::Done);
    let merge = m.merge();
    let (task, number, found) = (merge.task.clone(), merge.number, Some(merge.onto.clone()));
    m.see(Observation::LandingRaced { task, number, found });
    m.turns();
    assert_eq!(m.state.landing.as_ref().map(|landing| landing.number), Some(1));
    m.see(merge.landed());
    stands(&m, &[("A", "completed")]);
}

#[test]
fn a_landing_waits_for_the_check_of_one_that_was_given_up() {
    let mut m = short_machine(|s| s.landing.checks = vec!["check".into()]);
    m.add(&[new_task("A", &[])]);
    judge(&mut m, "base.check.1", End::Done);
    m.complete_stages("A");
    m.merge();
    let check = AttemptId::new("A.land.1");
    assert!(m.state.attempts.contains_key(&check));
    let rollout = |to| Command::SetRollout { to, is_forced: true };
    m.must(rollout(Rollout::Shadow));
    m.must(rollout(Rollout::Production));
    m.turns();
    assert!(m.state.landing.is_none() && m.state.attempts.contains_key(&check));
    m.start_attempt(&check);
    judge(&mut m, check.as_str(), End::Done);
    m.turns();
    assert_eq!(m.state.landing.as_ref().map(|landing| landing.number), Some(2));
}

#[test]
fn a_failure_told_late_does_not_end_an_attempt_whose_checks_run() {
    let mut m = short_machine(|settings| {
        settings.limits.infrastructure_retries = 0;
        settings.stages[0].checks = vec!["check".into()];
    });
    m.add(&[new_task("A", &[])]);
    let attempt = m.start("A");
    let exit = Box::new(exit(End::Done, m.now));
    m.see(Observation::Exited { attempt: attempt.clone(), exit });
    m.save(&attempt, true, &[]);
    m.see(Observation::AttemptFaulted { attempt: attempt.clone(), why: "not stopped".into() });
    assert!(m.state.attempts.contains_key(&attempt), "its check goes on");
    m.state.check();
}

#[test]
fn an_agent_that_comes_back_gets_a_slot_that_it_has_not_had() {
    let mut m = short_machine(|settings| settings.limits.infrastructure_retries = 0);
    m.add(&[new_task("A", &[])]);
    let attempt = m.start("A");
    m.see(Observation::Lost { attempt: attempt.clone(), why: "gone".into() });
    m.see(Observation::AttemptFaulted { attempt, why: "disk full".into() });
    let name = AgentName::new("implementation");
    let adopt = |m: &mut Machine, hash: &str, agent: &str| {
        let mut settings = (*m.state.settings).clone();
        settings.hash = hash.into();
        settings.agents[0].name = agent.into();
        m.must(Command::AdoptSettings { settings: Box::new(settings) });
    };
    adopt(&mut m, "1", "another");
    assert!(!m.state.agents.contains_key(&name));
    adopt(&mut m, "2", "implementation");
    assert_eq!(m.state.agents[&name].slot, 1, "unsaved work is in slot 0");
}

fn shortage(what: Option<&str>) -> Observation {
    Observation::ShortageSeen { what: what.map(str::to_owned) }
}

#[test]
fn a_shortage_starts_nothing_and_counts_no_failure_until_it_is_over() {
    let mut m = short_machine(|_| {});
    m.add(&[new_task("A", &[]), new_task("B", &[])]);
    stands(&m, &[("A", "working A.impl.1"), ("B", "ready impl")]);
    m.see(shortage(Some("the disk is full")));
    let before = m.state.clone();
    m.see(shortage(Some("the disk is fuller")));
    assert_eq!(m.state.shortage, before.shortage);
    let attempt = AttemptId::new("A.impl.1");
    m.see(Observation::AttemptFaulted { attempt, why: "no space".into() });
    let tally = m.state.tasks[&id("A")].tally;
    assert_eq!((tally.infrastructure, tally.attempts), (0, 0));
    let agent = &m.state.agents[&AgentName::new("implementation")];
    assert_eq!(agent.slot, 0, "what was half made there is made again there");
    m.pass_ms(600_000);
    stands(&m, &[("A", "ready impl"), ("B", "ready impl")]);
    assert!(!m.state.is_idle(), "it goes on by itself");
    m.see(shortage(None));
    m.turns();
    assert_eq!(m.state.attempts.len(), 1);
    m.state.check();
}

fn overload(what: Option<&str>) -> Observation {
    Observation::OverloadSeen { what: what.map(str::to_owned) }
}

#[test]
fn an_overload_starts_no_attempt_but_failures_count_and_landings_go_on() {
    let mut m = short_machine(|_| {});
    m.add(&[new_task("A", &[]), new_task("B", &[]), new_task("C", &[])]);
    m.run("A", End::Done);
    stands(&m, &[("A", "landing"), ("B", "working B.impl.1"), ("C", "ready impl")]);
    m.see(overload(Some("the load is 9.1")));
    m.see(overload(Some("the load is 9.2")));
    assert_eq!(m.state.overload.as_deref(), Some("the load is 9.1"));
    m.land("A");
    let attempt = AttemptId::new("B.impl.1");
    m.see(Observation::AttemptFaulted { attempt, why: "no keeper".into() });
    assert_eq!(m.state.tasks[&id("B")].tally.infrastructure, 1);
    m.pass_ms(600_000);
    stands(&m, &[("A", "completed"), ("B", "ready impl"), ("C", "ready impl")]);
    assert!(!m.state.is_idle(), "it goes on by itself");
    m.see(overload(None));
    m.turns();
    assert_eq!(m.state.attempts.len(), 1);
    m.state.check();
}

/// Why the agents of a group cannot start; `None`: they can.
fn unusable(group: &str, why: Option<&str>) -> Observation {
    let why = why.map(|why| (group.to_owned(), why.to_owned()));
    Observation::AgentsSeen { unusable: why.into_iter().collect() }
}

#[test]
fn an_agent_that_cannot_start_gets_nothing_and_its_tasks_wait_with_the_reason() {
    let mut m = short_machine(|_| {});
    m.add(&[new_task("A", &[])]);
    let attempt = AttemptId::new("A.impl.1");
    m.see(unusable("implementation", Some("`claude` is not on the PATH")));
    m.see(Observation::AttemptFaulted { attempt, why: "`claude` is not on the PATH".into() });
    m.pass_ms(600_000);
    stands(&m, &[("A", "ready impl")]);
    let why = "agent `implementation` cannot start: `claude` is not on the PATH";
    assert_eq!(m.state.tasks[&id("A")].unserved.as_deref(), Some(why));
    assert!(m.state.is_idle(), "only a person can mend that");
    // One that was ready before, and one that came later.
    m.add(&[new_task("B", &[])]);
    m.turns();
    assert_eq!(m.state.tasks[&id("B")].unserved.as_deref(), Some(why));
    assert!(m.state.attempts.is_empty());
    let before = m.state.clone();
    m.see(unusable("implementation", Some("`claude` is not on the PATH")));
    assert_eq!(m.state, before, "what is known changes nothing");

    m.see(unusable("implementation", None));
    m.turns();
    assert_eq!(m.state.attempts.len(), 1);
    assert_eq!(m.state.tasks[&id("A")].unserved, None);
    m.state.check();
}

#[test]
fn a_landing_that_fails_for_want_of_room_is_never_given_up() {
    let mut m = short_machine(|settings| settings.limits.infrastructure_retries = 1);
    m.add(&[new_task("A", &[])]);
    m.run("A", End::Done);
    m.see(shortage(Some("the disk is full")));
    for _ in 0..5 {
        m.see(Observation::LaneFaulted { why: "no space".into() });
        m.pass_ms(600_000);
    }
    assert_eq!(m.stand("A"), "landing");
    m.see(shortage(None));
    m.land("A");
    assert_eq!(m.stand("A"), "completed");
}

#[test]
fn a_setup_that_fails_keeps_its_slot_and_counts_during_a_shortage_too() {
    let mut m = short_machine(|s| {
        s.agents[0].count = 1;
        s.worktree.setup = vec!["make".into()];
    });
    m.add(&[new_task("A", &[])]);
    judge(&mut m, "base.check.1", End::Done);
    for n in 1..=3 {
        let attempt = m.work("A").clone();
        assert_eq!(attempt.slot, 0);
        m.see(shortage(Some("the disk is full")));
        m.see(Observation::SetupFailed { attempt: attempt.id, why: "status 1".into() });
        assert_eq!(m.state.tasks[&id("A")].tally.infrastructure, n);
        m.see(shortage(None));
        m.pass_ms(600_000);
    }
}

/// Up to the failed check of A's landing, on a base that people moved and nobody has judged.
fn doubtful_landing() -> Machine {
    let mut m = short_machine(|s| s.landing.checks = vec!["check".into()]);
    m.add(&[new_task("A", &[])]);
    judge(&mut m, "base.check.1", End::Done);
    m.base_moves("base-2");
    m.complete_stages("A");
    fail_landing(&mut m);
    m
}

fn judge(m: &mut Machine, check: &str, end: End) {
    let check = AttemptId::new(check);
    m.start_attempt(&check);
    m.exit(&check, end);
}

/// The landing under way is merged, and its check fails.
fn fail_landing(m: &mut Machine) {
    let task = m.merge().task;
    let checks = m.state.tasks[&task].numbers["land"];
    judge(m, &format!("{task}.land.{checks}"), End::Fail);
}

#[test]
fn a_check_that_fails_on_a_red_base_is_not_held_against_the_task() {
    let mut m = doubtful_landing();
    let before = m.state.tasks[&id("A")].tally;
    judge(&mut m, "base.check.2", End::Fail);
    stands(&m, &[("A", "landing")]);
    assert!(m.state.landing.is_none(), "the lane is closed on what is red");
    assert!(m.state.is_idle());
    assert_eq!(m.state.tasks[&id("A")].tally, before);

    m.base_moves("base-3");
    let number = m.state.landing.as_ref().map(|landing| landing.number);
    assert_eq!(number, Some(2), "the lane opens when the base moves");
    let merge = m.merge();
    assert_eq!(merge.onto, Oid::new("base-3"));
    judge(&mut m, "A.land.2", End::Done);
    m.see(merge.landed());
    stands(&m, &[("A", "completed")]);
}

#[test]
fn a_check_that_fails_on_a_green_base_sends_the_task_back_with_its_output() {
    let mut m = doubtful_landing();
    judge(&mut m, "base.check.2", End::Done);
    let task = &m.state.tasks[&id("A")];
    assert_eq!(task.tally.send_backs, 1);
    let evidence = task.evidence.last().expect("what failed is told");
    assert_eq!(evidence.class, Class::LandingChecksFailed);
    assert!(evidence.text.ends_with("tail"), "{}", evidence.text);

    // Known green from here on: the next failure needs no judgment of the base.
    m.complete_stages("A");
    fail_landing(&mut m);
    assert_eq!(m.state.tasks[&id("A")].tally.send_backs, 2);
}

#[test]
fn a_base_that_moves_while_a_landing_is_in_doubt_is_taken_in_first() {
    let mut m = doubtful_landing();
    let landed = m.state.base.landed.clone();
    m.see(Observation::BaseSeen { tip: Oid::new("base-3"), landed });
    m.turns();
    judge(&mut m, "base.check.2", End::Fail);
    stands(&m, &[("A", "landing")]);
    let effects = m.effects();
    assert!(matches!(effects.as_slice(), [Effect::TakeBase { .. }]), "{effects:?}");
}

#[test]
fn a_landing_in_doubt_does_not_hold_up_the_end_and_is_begun_anew() {
    let mut m = doubtful_landing();
    m.must(Command::Stop { kind: StopKind::Now });
    judge(&mut m, "base.check.2", End::Stopped);
    assert!(m.state.landing.is_none() && m.state.attempts.is_empty());
    stands(&m, &[("A", "landing")]);
}

/// The base's tip and the landing branch differ, and both are red.
#[test]
fn a_base_and_a_landing_branch_that_are_both_red_are_judged_once_each() {
    let mut m = short_machine(|s| s.landing.checks = vec!["check".into()]);
    m.add(&[new_task("A", &[])]);
    judge(&mut m, "base.check.1", End::Done);
    m.add(&[new_task("B", &[])]);
    let moves = |m: &mut Machine, to: &str| {
        m.see(Observation::BaseSeen { tip: Oid::new(to), landed: m.state.base.landed.clone() });
        m.turns();
        let (base, landed) = (Oid::new(to), Oid::new(format!("{to}-taken")));
        m.see(Observation::BaseTaken { base, landed: landed.clone(), has_all: true });
        m.turns();
        let (why, is_passing) = ("edits overlap".to_owned(), false);
        m.see(Observation::FollowRefused { to: landed, why, behind: 0, is_passing });
        m.turns();
    };
    moves(&mut m, "base-2");
    judge(&mut m, "base.check.2", End::Fail);
    m.complete_stages("A");
    fail_landing(&mut m);
    judge(&mut m, "base.check.3", End::Fail);
    assert!(m.state.attempts.is_empty() && m.state.landing.is_none(), "{:?}", m.effects());
    assert!(m.state.is_idle());
    stands(&m, &[("A", "landing"), ("B", "ready impl")]);

    moves(&mut m, "base-3");
    judge(&mut m, "base.check.4", End::Done);
    stands(&m, &[("B", "working B.impl.1")]);
    let merge = m.merge();
    judge(&mut m, "A.land.2", End::Done);
    m.see(merge.landed());
    stands(&m, &[("A", "completed")]);
}

#[test]
fn a_landing_in_doubt_waits_for_the_end_of_a_shortage_and_is_not_begun_again() {
    for is_stopped in [false, true] {
        let mut m = short_machine(|s| s.landing.checks = vec!["check".into()]);
        m.add(&[new_task("A", &[])]);
        judge(&mut m, "base.check.1", End::Done);
        m.base_moves("base-2");
        m.complete_stages("A");
        m.see(shortage(Some("the disk is full")));
        fail_landing(&mut m);
        let number = m.state.landing.as_ref().map(|landing| landing.number);
        assert_eq!(number, Some(1), "it waits to be judged");
        assert!(!m.state.is_idle(), "it goes on by itself");
        if is_stopped {
            m.must(Command::Stop { kind: StopKind::Drain });
            assert!(m.state.landing.is_none(), "the end is not held up");
            continue;
        }
        m.see(shortage(None));
        m.turns();
        judge(&mut m, "base.check.2", End::Done);
        assert_eq!(m.state.tasks[&id("A")].tally.send_backs, 1);
    }
}

/// The check of the base cannot run.
fn fault(m: &mut Machine, check: &str) {
    let attempt = AttemptId::new(check);
    assert!(m.state.attempts.contains_key(&attempt), "{:?}", m.state.attempts.keys());
    m.see(Observation::AttemptFaulted { attempt, why: "`setup` failed: no net".into() });
    m.turns();
    assert_eq!(m.state.base.red, None, "nothing is known of the base");
}

#[test]
fn a_base_whose_check_could_not_run_is_not_red_and_is_judged_when_it_can() {
    let mut m = short_machine(|s| {
        s.landing.checks = vec!["check".into()];
        s.limits.infrastructure_retries = 2;
    });
    m.add(&[new_task("A", &[])]);
    for n in 1..=12 {
        fault(&mut m, &format!("base.check.{n}"));
        assert_eq!(m.state.is_idle(), n > 2, "past its bound it needs a person: {n}");
        if n < 12 {
            m.pass_to_deadline();
        }
    }
    let until = m.state.base.check_tries.until.expect("it is tried on");
    assert_eq!(until.ms_since(m.now), m.state.settings.retry.max_ms);
    // Who starts a monitor may have put it right.
    m.see(Observation::MonitorStarted { pid: 2, allows_red_base: false });
    m.turns();
    judge(&mut m, "base.check.13", End::Done);
    stands(&m, &[("A", "working A.impl.1")]);
    assert_eq!(m.state.base.check_tries.failed, 0);
}

#[test]
fn a_landing_whose_doubt_cannot_be_settled_holds_up_no_end_and_goes_on_when_it_can() {
    let mut m = short_machine(|s| {
        s.landing.checks = vec!["check".into()];
        s.limits.infrastructure_retries = 0;
    });
    m.add(&[new_task("A", &[])]);
    judge(&mut m, "base.check.1", End::Done);
    m.base_moves("base-2");
    m.complete_stages("A");
    fail_landing(&mut m);
    fault(&mut m, "base.check.2");
    assert!(m.state.landing.is_some() && m.state.is_idle());
    m.pass_to_deadline();
    judge(&mut m, "base.check.3", End::Done);
    assert_eq!(m.state.tasks[&id("A")].tally.send_backs, 1);
}

/// Up to an order that could not be given, which may have been given before a power cut.
fn unordered(change: impl FnOnce(&mut Settings), why: &str) -> (Machine, AttemptId) {
    let mut m = short_machine(change);
    m.add(&[new_task("A", &[])]);
    let attempt = m.work("A").id;
    m.see(Observation::Prepared { attempt: attempt.clone(), base: None, tip: None });
    m.see(Observation::AttemptFaulted { attempt: attempt.clone(), why: why.into() });
    (m, attempt)
}

#[test]
fn what_could_not_be_ordered_is_saved_and_tried_again() {
    let (mut m, attempt) = unordered(|_| {}, "its program is missing");
    assert_eq!(m.effects(), [Effect::Save { attempt: attempt.clone(), failed: 0 }]);
    m.save(&attempt, true, &[]);
    let task = &m.state.tasks[&id("A")];
    assert_eq!((task.tally.infrastructure, task.tally.attempts), (1, 0));
    let old = task.history.last().expect("it has ended");
    assert_eq!(old.saved, Some(Oid::new("saved-A.impl.1")));
    let outcome = old.outcome.as_ref().expect("it has ended");
    assert_eq!(
        (outcome.class, &*outcome.reason),
        (Class::Infrastructure, "its program is missing")
    );
    stands(&m, &[("A", "ready impl")]);
    m.pass_to_deadline();
    assert_eq!(m.work("A").id, AttemptId::new("A.impl.2"));
    m.state.check();
}

#[test]
fn what_could_not_be_ordered_counts_as_infrastructure_up_to_its_bound() {
    let (mut m, mut attempt) = unordered(|s| s.limits.infrastructure_retries = 2, "no keeper");
    for n in 1..=3 {
        let saved = Observation::Saved {
            attempt: attempt.clone(),
            commit: None,
            has_changed: false,
            markers: vec![],
            notes: vec![],
            lacks: None,
        };
        m.see(saved);
        m.turns();
        if n < 3 {
            m.pass_to_deadline();
            attempt = m.work("A").id;
            m.see(Observation::Prepared { attempt: attempt.clone(), base: None, tip: None });
            m.see(Observation::AttemptFaulted {
                attempt: attempt.clone(),
                why: "no keeper".into(),
            });
        }
    }
    stands(&m, &[("A", "blocked infrastructure impl")]);
    assert_eq!(m.state.tasks[&id("A")].tally.attempts, 0);
    m.state.check();
}

#[test]
fn what_could_neither_be_ordered_nor_saved_is_told_with_its_place() {
    let (mut m, attempt) = unordered(|s| s.limits.infrastructure_retries = 0, "no keeper");
    m.see(Observation::AttemptFaulted { attempt, why: "no git".into() });
    m.turns();
    stands(&m, &[("A", "blocked infrastructure impl")]);
    let TaskPhase::Blocked(block) = &m.state.tasks[&id("A")].phase else { panic!("it is blocked") };
    assert_eq!(block.reason, "no git; what it left is in its worktree slot 0");
    assert_eq!(m.state.agents[&AgentName::new("implementation")].slot, 1, "it is not used again");
}

#[test]
fn a_worktree_gone_under_what_could_not_be_ordered_says_nothing_else_of_it() {
    let (mut m, attempt) = unordered(|_| {}, "no keeper");
    m.see(Observation::WorktreeGone { attempt, commit: None });
    m.turns();
    let task = &m.state.tasks[&id("A")];
    let outcome = task.history.last().and_then(|old| old.outcome.as_ref()).expect("it has ended");
    assert_eq!((outcome.class, &*outcome.reason), (Class::Infrastructure, "no keeper"));
    assert_eq!(task.tally.infrastructure, 1);
}

#[test]
fn what_can_never_start_is_saved_too_where_it_may_have_run() {
    let mut m = short_machine(|_| {});
    m.add(&[new_task("A", &[])]);
    let attempt = m.work("A").id;
    m.see(Observation::Prepared { attempt: attempt.clone(), base: None, tip: None });
    m.see(Observation::CannotStart { attempt: attempt.clone(), why: "no command".into() });
    m.save(&attempt, true, &[]);
    stands(&m, &[("A", "blocked unstartable impl")]);
    let old = m.state.tasks[&id("A")].history.last().expect("it has ended");
    assert_eq!(old.saved, Some(Oid::new("saved-A.impl.1")));
}
