//! The gates of the rollout, its steps, the fallback, and what others do in shadow.

use pipeline::machine::change::{Change, ProjectChange};
use pipeline::machine::event::{Dependents, GiveTo, PilotEnd};
use pipeline::machine::id::{Oid, TaskId};
use pipeline::machine::mode::{Isolation, Rollout};
use pipeline::machine::rollout::gates;
use pipeline::machine::settings::{Settings, Slice};
use pipeline::machine::task::TaskPhase;
use pipeline::machine::{Answer, Command, Effect, Observation, pending_effects};

use crate::machine_support::{End, Machine, group, id, new_task, settings, stage};

const HOUR_MS: u64 = 3_600_000;

/// One stage that changes something, an agent for it, and a check of what lands.
fn machine(change: impl FnOnce(&mut Settings)) -> Machine {
    let mut settings = settings();
    settings.stages = vec![stage("implementation", "impl", true)];
    settings.agents = vec![group("implementation", &["implementation"], 1)];
    settings.rollout.gate.completed = 3;
    change(&mut settings);
    let mut m = Machine::new(settings);
    m.begin();
    m
}

fn checked(settings: &mut Settings) {
    settings.landing.checks = vec!["check".into()];
    settings.rollout.fallback.window = 6;
    settings.rollout.fallback.failure_rate = 0.3;
    settings.limits.send_backs = 100;
    settings.limits.attempts_per_task = 100;
}

/// Promotes against the gates.
fn insist(m: &mut Machine) {
    let answer = m.ask(promote(true, None));
    assert!(!matches!(answer, Answer::Refuse(_)), "{answer:?}");
    m.turns();
}

fn promote(is_forced: bool, pilot: Option<PilotEnd>) -> Command {
    Command::Promote { is_forced, pilot }
}

/// Each gate: name, figure and whether it holds.
fn standing(m: &Machine) -> Vec<(&'static str, Option<f64>, bool)> {
    let gates = gates(&m.state, m.now);
    gates.iter().map(|gate| (gate.name.word(), gate.figure, gate.holds)).collect()
}

/// The reasons told since the beginning, oldest first, and whether each was a fallback.
fn reasons(m: &Machine) -> Vec<(String, bool)> {
    let reasons = m.log.iter().filter_map(|change| match change {
        Change::Project(ProjectChange::RolloutReasoned { why, is_fallback, .. }) => {
            Some((why.clone(), *is_fallback))
        }
        Change::Project(_) | Change::Task(..) | Change::Attempt(..) | Change::Lane(_) => None,
    });
    reasons.collect()
}

fn complete(m: &mut Machine, name: &str) {
    m.complete_stages(name);
    m.land(name);
}

#[test]
fn promotion_is_refused_by_each_gate_that_does_not_hold_and_granted_when_all_do() {
    let mut m = machine(|s| s.project.rollout = Rollout::Pilot);
    m.add(&[new_task("A", &[]), new_task("B", &[]), new_task("C", &[]), new_task("D", &[])]);
    m.run("A", End::Blocked);
    complete(&mut m, "B");
    let expected = [
        ("completed", Some(1.0), false),
        ("success_rate", Some(0.5), false),
        ("reverts", Some(0.0), true),
        ("agreement", None, true),
    ];
    assert_eq!(standing(&m), expected);
    let refused = m.refused(promote(false, None));
    assert_eq!(
        refused,
        "cannot promote from pilot to production: completed is 1, at least 3 is needed, \
         success_rate is 0.5, at least 0.9 is needed"
    );
    for name in ["C", "D"] {
        complete(&mut m, name);
    }
    assert!(m.refused(promote(false, None)).contains("success_rate is 0.75"));
    insist(&mut m);
    assert_eq!(m.state.rollout, Rollout::Production);
    let why = reasons(&m).pop().expect("it is journalled").0;
    assert_eq!(why, "promoted, forced, though success_rate is 0.75, at least 0.9 is needed");
    assert!(m.refused(promote(true, None)).contains("production, the last one"));

    // Counted anew since it was set.
    m.must(Command::Demote);
    assert_eq!(m.state.trial.completed, 0);
    for name in ["E", "F", "G"] {
        m.add(&[new_task(name, &[])]);
        complete(&mut m, name);
    }
    let Answer::Note(note) = m.ask(promote(false, Some(PilotEnd::Land))) else { panic!("a note") };
    assert!(note.contains("`main` follow"), "{note}");
    assert_eq!(reasons(&m).pop().expect("a reason").0, "promoted, every gate holds");
    m.turns();
    assert!(pending_effects(&m.state).any(|effect| matches!(effect, Effect::Follow { .. })));
}

#[test]
fn steps_that_there_are_not_are_refused() {
    let mut m = machine(|s| s.project.rollout = Rollout::Shadow);
    for end in [PilotEnd::Land, PilotEnd::Drop] {
        assert!(m.refused(promote(true, Some(end))).contains("no pilot to land or to drop"));
    }
    assert!(m.refused(Command::Demote).contains("shadow, the first one"));
    assert!(m.refused(promote(false, None)).contains("completed is 0, at least 3 is needed"));
    let set = |is_forced| Command::SetRollout { to: Rollout::Production, is_forced };
    let Answer::Note(note) = m.ask(set(false)) else { panic!("a note") };
    assert!(note.starts_with("gates that do not hold: completed is 0"), "{note}");
    m.must(Command::Demote);
    assert_eq!(m.ask(set(true)), Answer::Accept);
}

/// Lands the task, or lets its check fail, which sends it back.
fn land_or_break(m: &mut Machine, name: &str, is_good: bool) {
    m.complete_stages(name);
    let merge = m.merge();
    m.turns();
    let landing = m.state.attempts.keys().find(|id| id.as_str().contains(".land.")).cloned();
    let check = landing.expect("the merge is checked");
    m.start_attempt(&check);
    m.exit(&check, if is_good { End::Done } else { End::Fail });
    if is_good {
        m.see(merge.landed());
        m.turns();
    }
}

/// Judges the base as often as it is asked for.
fn green(m: &mut Machine) {
    while let Some(check) = m.state.base.checking.clone() {
        m.start_attempt(&check);
        m.exit(&check, End::Done);
    }
}

#[test]
fn production_falls_back_when_a_third_of_the_landings_break_and_does_not_flap_for_an_hour() {
    let mut m = machine(checked);
    m.add(&[new_task("warm", &[])]);
    green(&mut m);
    let begun = m.now;
    let mut fallen = Vec::new();
    // A landing each minute for two hours, every third one broken; a script insists on production.
    for n in 0..120 {
        let name = format!("T{n}");
        m.add(&[new_task(&name, &[])]);
        green(&mut m);
        if n == 0 {
            land_or_break(&mut m, "warm", true);
        }
        let was = m.state.rollout;
        let is_good = n % 3 != 0;
        land_or_break(&mut m, &name, is_good);
        if !is_good {
            land_or_break(&mut m, &name, true);
        }
        m.pass_ms(60_000);
        if was == Rollout::Production && m.state.rollout == Rollout::Pilot {
            fallen.push(m.now.ms_since(begun));
        }
        if m.state.rollout == Rollout::Pilot {
            let refused = m.refused(promote(false, None));
            assert!(
                refused.contains("cooldown is") || refused.contains("completed is"),
                "{refused}"
            );
            insist(&mut m);
            assert_eq!(m.state.rollout, Rollout::Production, "a person's word counts");
        }
    }
    assert!((1..=2).contains(&fallen.len()), "{fallen:?}");
    assert!(fallen[0] < HOUR_MS / 4, "{fallen:?}");
    assert!(fallen.windows(2).all(|pair| pair[1] - pair[0] >= HOUR_MS), "{fallen:?}");
    let why = reasons(&m).into_iter().find(|(_, is_fallback)| *is_fallback).expect("a reason").0;
    assert!(why.contains("the checks of 2 of the last"), "{why}");
    m.state.check();
}

#[test]
fn few_landings_are_no_reason_to_fall_back() {
    let mut m = machine(checked);
    m.add(&[new_task("A", &[])]);
    green(&mut m);
    land_or_break(&mut m, "A", false);
    assert_eq!(m.state.rollout, Rollout::Production, "one of one");
    land_or_break(&mut m, "A", false);
    assert_eq!(m.state.rollout, Rollout::Pilot, "more than 0.3 of 6, whatever comes");
    assert!(m.state.base.follow.is_none());
}

#[test]
fn what_fell_back_is_not_set_again_within_the_cooldown_unless_a_person_insists() {
    let set = |is_forced| Command::SetRollout { to: Rollout::Production, is_forced };
    let fallen = || {
        let mut m = machine(checked);
        m.add(&[new_task("A", &[])]);
        green(&mut m);
        (0..2).for_each(|_| land_or_break(&mut m, "A", false));
        assert_eq!(m.state.rollout, Rollout::Pilot);
        m
    };
    let mut m = fallen();
    let refused = m.refused(set(false));
    let what = "cannot set production: cooldown is 0, at least 3600 is needed, seconds since";
    assert!(refused.starts_with(what), "{refused}");
    m.must(Command::SetRollout { to: Rollout::Shadow, is_forced: false });
    m.must(Command::Promote { is_forced: true, pilot: None });
    assert!(m.refused(set(false)).contains("cooldown"), "also by a detour");
    assert_eq!(m.ask(set(true)), Answer::Accept);
    assert_eq!(m.state.rollout, Rollout::Production);
    let mut m = fallen();
    m.pass_ms(HOUR_MS);
    let Answer::Note(note) = m.ask(set(false)) else { panic!("a note") };
    assert!(note.starts_with("gates that do not hold: completed is 0"), "{note}");
    assert_eq!(m.state.rollout, Rollout::Production);
}

#[test]
fn a_step_of_the_base_whose_pause_is_over_at_the_fallback_does_not_come_back() {
    let mut m = machine(checked);
    m.add(&[new_task("A", &[]), new_task("B", &[])]);
    green(&mut m);
    land_or_break(&mut m, "A", true);
    let to = m.state.base.follow.clone().expect("the base follows").to;
    let why = "edits overlap".to_owned();
    m.see(Observation::FollowRefused { to, why, behind: 1, is_passing: false });
    land_or_break(&mut m, "B", false);
    m.complete_stages("B");
    m.merge();
    m.turns();
    let landing = m.state.attempts.keys().find(|id| id.as_str().contains(".land.")).cloned();
    let check = landing.expect("the merge is checked");
    m.start_attempt(&check);
    let follow = m.state.base.follow.clone().expect("it waits");
    m.now = follow.tries.until.expect("for a while");
    m.exit(&check, End::Fail);
    assert_eq!(m.state.rollout, Rollout::Pilot);
    assert_eq!((m.state.base.follow.clone(), m.state.base.behind), (None, 1));
    m.state.check();
}

fn by_hand(m: &mut Machine, tip: &str, tasks: &[&str]) -> Answer {
    let from = m.state.base.tip.clone().expect("the base was seen");
    let tasks = tasks.iter().map(|name| (id(name), Oid::new(format!("{tip}-{name}")))).collect();
    let answer = m.see(Observation::HandLanded { from, tip: Oid::new(tip), tasks });
    m.turns();
    answer
}

#[test]
fn what_others_land_in_shadow_is_done_and_compared_with_what_would_have_been() {
    let mut m = machine(|s| {
        s.project.rollout = Rollout::Shadow;
        s.rollout.gate.completed = 6;
    });
    let tasks = [("A", &[][..]), ("B", &["A"]), ("C", &["X"]), ("X", &[]), ("D", &[]), ("E", &[])];
    m.add(&tasks.map(|(name, deps)| new_task(name, deps)));
    m.must(Command::HoldTasks { ids: vec![id("E")] });
    // B needs A, which came just before it; C needs X, which did not.
    by_hand(&mut m, "one", &["A", "B", "C", "nobody", "A"]);
    assert_eq!((m.state.trial.agreed, m.state.trial.differed), (2, 1));
    by_hand(&mut m, "two", &["D", "E", "X"]);
    let expected = [
        ("completed", Some(6.0), true),
        ("success_rate", None, true),
        ("reverts", None, true),
        ("agreement", Some(4.0 / 6.0), false),
    ];
    assert_eq!(standing(&m), expected);
    assert!(m.refused(promote(false, None)).contains("agreement is 0.66, at least 0.8"));
    assert!(m.state.tasks.values().all(|task| matches!(task.phase, TaskPhase::Completed { .. })));
    assert!(m.effects().is_empty() && m.seen.is_empty());
    // A look that was begun before the last one tells nothing new.
    let late =
        Observation::HandLanded { from: Oid::new("one"), tip: Oid::new("x"), tasks: Vec::new() };
    assert!(matches!(m.see(late), Answer::Note(_)));
    insist(&mut m);
    assert!(matches!(by_hand(&mut m, "three", &["A"]), Answer::Note(_)), "the pilot acts itself");
    m.state.check();
}

#[test]
fn shadow_set_midway_says_what_it_would_go_on_with() {
    let told = |m: &Machine| -> Vec<String> {
        let told = m.log.iter().filter_map(|change| match change {
            Change::Project(ProjectChange::WouldStart { id, stage, .. }) => {
                Some(format!("{id} {stage}"))
            }
            Change::Project(_) | Change::Task(..) | Change::Attempt(..) | Change::Lane(_) => None,
        });
        told.collect()
    };
    let set = |m: &mut Machine, to| {
        m.ask(Command::SetRollout { to, is_forced: true });
        m.turns();
    };
    let mut m = machine(|s| {
        s.stages = vec![stage("test", "test", true), stage("implementation", "impl", true)];
        s.agents = vec![group("worker", &["test", "implementation"], 1)];
    });
    m.add(&[new_task("A", &[]), new_task("B", &[])]);
    assert_eq!([m.stand("A"), m.stand("B")], ["working A.test.1", "ready test"]);
    set(&mut m, Rollout::Shadow);
    assert_eq!(told(&m), ["B test"], "A is under way");
    m.run("A", End::Done);
    assert_eq!(told(&m), ["B test", "A implementation"], "where it stands, not where it began");
    m.must(Command::HoldTasks { ids: vec![id("B")] });
    m.must(Command::Pause);
    set(&mut m, Rollout::Production);
    set(&mut m, Rollout::Shadow);
    assert_eq!(told(&m)[2..], ["A implementation"], "said anew in another shadow");
    m.must(Command::ReleaseTasks { ids: vec![id("B")] });
    assert_eq!(told(&m)[3..], ["B test"]);
    m.state.check();
}

fn drop_of(m: &Machine) -> Option<Effect> {
    pending_effects(&m.state).find(|effect| matches!(effect, Effect::Drop { .. })).cloned()
}

#[test]
fn a_dropped_pilot_gives_its_tasks_back() {
    let mut m = machine(|s| s.project.rollout = Rollout::Pilot);
    m.add(&[new_task("A", &[]), new_task("B", &["A"]), new_task("C", &["B"])]);
    complete(&mut m, "A");
    assert!(m.refused(promote(true, Some(PilotEnd::Drop))).contains("`B.impl.1` is under way"));
    m.must(Command::Pause);
    m.run("B", End::Fail);
    let Answer::Note(note) = m.ask(promote(true, Some(PilotEnd::Drop))) else { panic!("a note") };
    assert!(note.contains("in salvage"), "{note}");
    m.must(Command::Resume);
    assert!(m.state.attempts.is_empty(), "nothing begins on what is dropped");
    let to = m.state.base.tip.clone().expect("it was seen");
    assert_eq!(drop_of(&m), Some(Effect::Drop { to: to.clone(), failed: 0 }));
    assert!(m.refused(Command::Demote).contains("is being reset"));
    // It fails, and is tried again.
    m.see(Observation::LaneFaulted { why: "disk full".into() });
    m.turns();
    assert!(drop_of(&m).is_none() && !m.state.is_idle());
    m.pass_to_deadline();
    assert_eq!(drop_of(&m), Some(Effect::Drop { to: to.clone(), failed: 1 }));
    let dropped = || Observation::PilotDropped { to: to.clone(), lost: vec![id("A")] };
    m.see(dropped());
    assert!(matches!(m.see(dropped()), Answer::Note(_)), "told twice");
    assert_eq!(m.state.base.landed, m.state.base.tip);
    m.turns();
    assert_eq!([m.stand("A"), m.stand("B")], ["working A.impl.2", "waiting"]);
    for name in ["A", "B", "C"] {
        complete(&mut m, name);
    }
    m.state.check();
}

fn take(name: &str) -> Command {
    Command::TakeTask { id: id(name), dir: format!("/taken/{name}"), from: Oid::new("merge-A-1") }
}

#[test]
fn no_branch_that_stands_on_a_dropped_pilot_is_gone_on_from() {
    let mut m = machine(|s| s.project.rollout = Rollout::Pilot);
    m.add(&["A", "B", "C"].map(|name| new_task(name, &[])));
    complete(&mut m, "A");
    m.must(Command::Pause);
    // One that was worked on and is given up, one in a person's hands.
    m.run("B", End::Fail);
    let tip = Oid::new("tip-B");
    let to = GiveTo::Onward;
    m.must(take("B"));
    m.must(Command::GiveTask { id: id("B"), to, commit: tip, changed: None });
    m.must(Command::CancelTasks { ids: vec![id("B")], dependents: Dependents::Refuse });
    assert!(m.state.tasks[&id("B")].tip.is_some());
    m.must(take("C"));
    let refused = m.refused(promote(true, Some(PilotEnd::Drop)));
    assert_eq!(refused, "cannot drop the pilot: task `C` is taken by a person");
    let (to, commit) = (GiveTo::Onward, Oid::new("merge-A-1"));
    m.must(Command::GiveTask { id: id("C"), to, commit, changed: None });
    let Answer::Note(_) = m.ask(promote(true, Some(PilotEnd::Drop))) else { panic!("a note") };
    assert!(m.refused(take("C")).contains("is being reset right now"));
    let commit = Some(Oid::new("merge-A-1"));
    let complete = Command::CompleteTask { id: id("C"), commit };
    assert!(m.refused(complete).contains("is being reset right now"));
    let to = m.state.base.tip.clone().expect("it was seen");
    m.see(Observation::PilotDropped { to, lost: vec![id("A")] });
    m.must(Command::ReopenTask { id: id("B"), is_fresh: false });
    assert!(m.state.tasks.values().all(|task| task.tip.is_none()), "all begin anew");
    m.must(take("C"));
    m.state.check();
}

#[test]
fn what_a_person_completes_is_not_counted_for_the_pipeline() {
    let mut m = machine(|s| s.project.rollout = Rollout::Pilot);
    m.add(&[new_task("A", &[])]);
    assert_eq!(m.stand("A"), "working A.impl.1");
    m.must(Command::CompleteTask { id: id("A"), commit: None });
    assert_eq!(m.state.trial.completed, 0);
    let mut m = machine(|s| s.project.isolation = Isolation::None);
    m.add(&[new_task("A", &[]), new_task("B", &[])]);
    m.run("A", End::Done);
    assert_eq!((m.stand("A"), m.state.trial.completed), ("completed".into(), 1));
    m.must(Command::CompleteTask { id: id("B"), commit: None });
    assert_eq!(m.state.trial.completed, 1);
}

#[test]
fn what_others_land_while_an_attempt_still_runs_is_done_too() {
    let mut m = machine(|s| s.project.rollout = Rollout::Pilot);
    m.add(&[new_task("A", &[])]);
    let attempt = m.start("A");
    m.must(Command::Demote);
    by_hand(&mut m, "one", &["A"]);
    assert_eq!((m.stand("A"), m.state.trial.agreed), ("completed".into(), 1));
    assert!(m.state.attempts[&attempt].is_stopping, "what still works on it is ended");
    m.exit(&attempt, End::Stopped);
    insist(&mut m);
    assert!(m.state.attempts.is_empty() && m.state.landing.is_none(), "it lands once");
    m.state.check();
}

#[test]
fn a_pilot_is_dropped_onto_the_base_as_it_is_then() {
    let mut m = machine(|s| s.project.rollout = Rollout::Pilot);
    m.add(&[new_task("A", &[]), new_task("B", &["A"])]);
    complete(&mut m, "A");
    complete(&mut m, "B");
    m.ask(promote(true, Some(PilotEnd::Drop)));
    // A step of the base that was still under way has taken along what A landed.
    let TaskPhase::Completed { commit: Some(landed), .. } = m.state.tasks[&id("A")].phase.clone()
    else {
        panic!("it has landed")
    };
    let branch = m.state.base.landed.clone();
    m.see(Observation::BaseSeen { tip: landed.clone(), landed: branch });
    assert_eq!(drop_of(&m), Some(Effect::Drop { to: landed.clone(), failed: 0 }));
    m.see(Observation::PilotDropped { to: landed.clone(), lost: vec![id("B")] });
    m.turns();
    assert_eq!([m.stand("A"), m.stand("B")], ["completed", "working B.impl.2"]);
    assert_eq!(m.state.base.landed, Some(landed));
    m.state.check();
}

#[test]
fn a_pilot_is_not_dropped_under_what_a_person_has_taken() {
    let mut m = machine(|s| s.project.rollout = Rollout::Pilot);
    m.add(&[new_task("A", &[]), new_task("B", &["A"])]);
    m.must(Command::HoldTasks { ids: vec![id("B")] });
    complete(&mut m, "A");
    let from = m.state.base.landed.clone().expect("it is there");
    let take = Command::TakeTask { id: id("B"), dir: "/hand".into(), from: from.clone() };
    m.must(take.clone());
    let refused = m.refused(promote(true, Some(PilotEnd::Drop)));
    assert_eq!(refused, "cannot drop the pilot: task `B` is taken by a person");
    m.must(Command::Pause);
    let to = GiveTo::Onward;
    m.must(Command::GiveTask { id: id("B"), to, commit: from, changed: None });
    m.ask(promote(true, Some(PilotEnd::Drop)));
    assert!(m.refused(take).contains("is being reset right now"));
    assert!(drop_of(&m).is_some());
}

#[test]
fn back_in_the_pilot_nothing_beyond_the_slice_lands() {
    let mut m = machine(|s| s.rollout.pilot = Slice::Tasks(vec!["A".into()]));
    m.add(&[new_task("A", &[]), new_task("B", &[])]);
    complete(&mut m, "A");
    m.complete_stages("B");
    assert_eq!(m.state.landing.as_ref().map(|landing| &landing.task), Some(&TaskId::new("B")));
    m.must(Command::Demote);
    assert_eq!((m.state.landing.as_ref(), m.stand("B")), (None, "landing".into()));
    assert!(m.effects().is_empty(), "{:?}", m.effects());
    insist(&mut m);
    m.land("B");
    m.state.check();
}

#[test]
fn a_pilot_is_not_dropped_while_the_base_is_being_taken_in() {
    let mut m = machine(|s| s.project.rollout = Rollout::Pilot);
    m.add(&[new_task("A", &[])]);
    complete(&mut m, "A");
    let landed = m.state.base.landed.clone();
    m.see(Observation::BaseSeen { tip: Oid::new("base-2"), landed });
    m.turns();
    let reason = "cannot drop the pilot: `pipeline/landed` is taking `main` in";
    assert_eq!(m.refused(promote(true, Some(PilotEnd::Drop))), reason);
    let (base, landed) = (Oid::new("base-2"), Oid::new("taken-2"));
    m.see(Observation::BaseTaken { base: base.clone(), landed, has_all: false });
    m.ask(promote(true, Some(PilotEnd::Drop)));
    assert_eq!(drop_of(&m), Some(Effect::Drop { to: base, failed: 0 }));
    m.state.check();
}

#[test]
fn what_a_person_merged_of_the_pilot_is_not_counted_as_missing() {
    let piloted = || {
        let mut m = machine(|s| s.project.rollout = Rollout::Pilot);
        m.add(&[new_task("A", &[])]);
        complete(&mut m, "A");
        assert_eq!(m.state.base.behind, 1);
        m
    };
    // Beside a commit of their own: the landing branch takes that merge in.
    for (has_all, behind) in [(false, 1), (true, 0)] {
        let mut m = piloted();
        let landed = m.state.base.landed.clone();
        let base = Oid::new("by-hand");
        m.see(Observation::BaseSeen { tip: base.clone(), landed });
        m.see(Observation::BaseTaken { base, landed: Oid::new("taken"), has_all });
        m.turns();
        assert_eq!(m.state.base.behind, behind);
        m.state.check();
    }
    // In shadow, where nothing is taken in.
    let mut m = piloted();
    m.must(Command::Demote);
    let landed = m.state.base.landed.clone().expect("it is there");
    by_hand(&mut m, landed.as_str(), &[]);
    assert_eq!((m.state.base.tip.as_ref(), m.state.base.behind), (Some(&landed), 0));
}

#[test]
fn what_still_ran_without_git_when_the_rollout_went_to_shadow_is_not_done_by_others() {
    let mut m = machine(|s| {
        s.project.rollout = Rollout::Pilot;
        s.project.isolation = Isolation::None;
        s.agents[0].count = 2;
    });
    m.add(&[new_task("A", &[]), new_task("B", &[])]);
    let own = m.start("A");
    m.start("B");
    m.must(Command::Demote);
    m.exit(&own, End::Done);
    assert_eq!(m.stand("A"), "completed");
    assert_eq!((m.state.trial.agreed, m.state.trial.differed), (0, 0));
    m.must(Command::CompleteTask { id: id("B"), commit: None });
    assert_eq!((m.state.trial.agreed, m.state.trial.differed), (1, 0), "a person did that");
    m.state.check();
}

#[test]
fn what_only_a_monitor_can_end_is_refused_with_how_to_end_it() {
    let mut m = machine(|s| s.project.rollout = Rollout::Pilot);
    m.add(&[new_task("A", &[]), new_task("B", &[])]);
    m.complete_stages("A");
    let attempt = m.start("B");
    m.merge();
    m.turns();
    m.must(Command::CancelTasks { ids: vec![id("B")], dependents: Dependents::Refuse });
    let moving = "task `A` is being landed right now".to_owned();
    let stopping = format!("attempt `{attempt}` is still being ended");
    let complete = Command::CompleteTask { id: id("A"), commit: None };
    let reopen = Command::ReopenTask { id: id("B"), is_fresh: false };
    let asked = [(complete, &moving), (Command::Demote, &moving), (reopen, &stopping)];
    for (asked, expected) in asked {
        let Answer::Refuse(refusal) = m.ask(asked) else { panic!("{expected}: not refused") };
        assert_eq!(&refusal.reason, expected);
        assert!(refusal.hint.contains("`pipeline monitor --once` ends it"), "{}", refusal.hint);
    }
}
