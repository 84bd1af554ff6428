//! Faults of docs/reliability.md that no other test holds: what goes wrong, and what must be true
//! afterwards.

use pipeline::machine::attempt::{AttemptPhase, Class};
use pipeline::machine::event::{Dependents, Edit};
use pipeline::machine::id::{AttemptId, Oid};
use pipeline::machine::settings::{Completion, Settings};
use pipeline::machine::{Answer, Command, Effect, EventBody, Observation};

use crate::machine_support::{End, Machine, exit, group, id, new_task, settings};
use crate::support::project::{Backlog, Project};
#[cfg(feature = "failpoints")]
use {crate::support::until, rustix::process::Signal, std::os::unix::process::ExitStatusExt};

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
fn another_base_is_refused_once_there_is_a_landing_branch() {
    let old = one_stage();
    let mut m = Machine::new(old.clone());
    let other = |hash: &str, base: &str| {
        let mut other = old.clone();
        (other.hash, other.project.base) = (hash.repeat(16), base.into());
        other
    };
    adopt(&mut m, &other("1", "trunk"));
    m.begin();
    let settings = Box::new(other("2", "release"));
    let (changes, answer) = m.send(EventBody::Command(Command::AdoptSettings { settings }));
    let Answer::Refuse(refusal) = answer else { panic!("{answer:?}") };
    assert!(refusal.reason.contains("cannot change from `trunk` to `release`"), "{refusal:?}");
    assert_eq!((changes, m.state.settings.project.base.as_str()), (0, "trunk"));
    adopt(&mut m, &other("3", "trunk"));
}

#[test]
fn another_base_does_not_get_what_has_landed_on_the_one_before() {
    let project = Project::new(1);
    project.import(&[("A", &[])]);
    project.ok(&["monitor", "--until-idle", "--timeout", "240s"]);
    let release = project.git(&["rev-list", "--max-parents=0", "main"]);
    project.git(&["branch", "release", &release]);
    let text = std::fs::read_to_string(project.path("pipeline.toml")).expect("the settings");
    project.write("pipeline.toml", &format!("[project]\nbase = \"release\"\n{text}"));
    let shown = project.run(&["status"]);
    assert!(shown.err.contains("cannot change from `main` to `release`"), "{}", shown.err);
    project.import(&[("B", &[])]);
    let mut monitor = project.monitor(&["--until-idle"]);
    assert_eq!(monitor.end(&project), Some(0), "{}{}", monitor.said(), project.story());
    assert!(
        monitor.said().contains("cannot change from `main` to `release`"),
        "{}",
        monitor.said()
    );
    assert_eq!(project.git(&["rev-parse", "release"]), release);
    project.assert_landed(&[("A", &[]), ("B", &[])]);
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

#[test]
fn a_landing_that_lost_the_race_is_made_and_checked_anew() {
    let mut settings = one_stage();
    settings.stages[0].checks.clear();
    settings.landing.checks = vec!["check".into()];
    let mut m = Machine::new(settings);
    m.begin();
    m.add(&[new_task("A", &[])]);
    let judge = |m: &mut Machine, check: &str| {
        let check = AttemptId::new(check);
        m.start_attempt(&check);
        m.exit(&check, End::Done);
    };
    judge(&mut m, "base.check.1");
    m.complete_stages("A");
    let merged = |m: &mut Machine, number, onto: &str| {
        let (task, commit, onto) = (id("A"), Oid::new(format!("m{number}")), Oid::new(onto));
        m.see(Observation::Merged { task, number, commit, onto, protected: Vec::new() });
    };
    merged(&mut m, 1, "base-1");
    judge(&mut m, "A.land.1");
    // Somebody moved the landing branch between the check and the swap.
    let found = Some(Oid::new("elsewhere"));
    m.see(Observation::LandingRaced { task: id("A"), number: 1, found });
    m.turns();
    assert_eq!(m.stand("A"), "landing");
    assert_eq!(m.state.landing.as_ref().map(|landing| landing.number), Some(2));
    // What passed before passed on another tree: late word of it lands nothing.
    m.see(Observation::Landed { task: id("A"), number: 1, commit: Oid::new("m1") });
    assert_eq!(m.stand("A"), "landing");
    merged(&mut m, 2, "elsewhere");
    assert!(m.state.attempts.contains_key(&AttemptId::new("A.land.2")), "it is checked again");
}

#[test]
fn what_is_told_twice_changes_the_state_once() {
    let mut settings = one_stage();
    settings.stages[0].checks.clear();
    let mut m = Machine::new(settings);
    m.begin();
    m.add(&[new_task("A", &[])]);
    let attempt = m.start("A");
    let end =
        Observation::Exited { attempt: attempt.clone(), exit: Box::new(exit(End::Done, m.now)) };
    m.see(end.clone());
    let again = |m: &mut Machine, seen: Observation| {
        let before = m.state.clone();
        assert!(matches!(m.see(seen), Answer::Note(_)));
        assert!(m.state == before);
    };
    again(&mut m, end);
    let lost = Observation::Lost { attempt: attempt.clone(), why: "late".into() };
    m.save(&attempt, true, &[]);
    again(&mut m, lost.clone());
    m.see(Observation::Advanced { attempt: attempt.clone(), changed: None });
    m.turns();
    again(&mut m, lost);
    again(&mut m, Observation::Advanced { attempt, changed: None });
    m.land("A");
    let commit = Oid::new("merge-A-1");
    again(&mut m, Observation::Landed { task: id("A"), number: 1, commit });
    assert_eq!(m.stand("A"), "completed");
}

#[test]
fn an_edit_under_way_leaves_the_attempt_and_a_cancel_ends_it() {
    let mut settings = one_stage();
    settings.stages[0].checks.clear();
    let mut m = Machine::new(settings);
    m.begin();
    m.add(&[new_task("A", &[]), new_task("B", &[])]);
    let attempt = m.start("A");
    let before = m.state.attempts[&attempt].clone();
    let mut edit = Edit { title: Some("another".into()), ..Edit::default() };
    edit.add_depends_on = vec![id("B")];
    m.must(Command::EditTask { id: id("A"), edit: Box::new(edit) });
    assert_eq!(m.state.attempts[&attempt], before, "it goes on as it began");
    assert_eq!(m.stand("A"), format!("working {attempt}"));
    m.must(Command::CancelTasks { ids: vec![id("A")], dependents: Dependents::Refuse });
    assert_eq!(m.stand("A"), "cancelled");
    let effects = m.effects();
    assert!(effects.contains(&Effect::Stop { attempt: attempt.clone() }), "{effects:?}");
    // What it says at its end does not bring the task back.
    m.exit(&attempt, End::Done);
    assert_eq!(m.stand("A"), "cancelled");
    m.state.check();
}

/// Half a monitor is worse than none: a panic in one thread ends the process, and the next start
/// recovers as from a kill.
#[cfg(feature = "failpoints")]
#[test]
fn a_panic_ends_the_whole_program() {
    let project = Project::new(1);
    let backlog: &Backlog = &[("A", &[])];
    project.import(backlog);
    // Each effect is performed by a thread beside the loop: first with nobody at work, then with an
    // agent that outlives it.
    for pass in [1, 8] {
        let fault = format!("effect.run:{pass}=panic");
        let fault = [("PIPELINE_FAILPOINT", fault.as_str())];
        let mut monitor = project.start_with(&["monitor", "--until-idle"], &fault);
        let ended = || monitor.has_ended();
        let status = until("the monitor's end", || project.story(), ended);
        let said = monitor.said();
        assert_eq!(status.signal(), Some(Signal::ABORT.as_raw()), "{status}: {said}");
        assert!(said.contains("panicked at") && said.contains("injected at fail point"), "{said}");
        assert_eq!(project.runs().is_empty(), pass == 1, "{said}");
        assert!(!said.contains("thread 'main'"), "it was to be another thread: {said}");
    }
    project.ok(&["monitor", "--until-idle", "--timeout", "240s"]);
    project.assert_landed(backlog);
    assert_eq!(project.runs(), ["A.arch.1", "A.test.1", "A.impl.1", "A.super.1"]);
    project.assert_nothing_left();
}

#[test]
fn a_base_broken_during_a_run_costs_a_task_nothing() {
    let project = Project::new(1);
    let one: &Backlog = &[("A", &[])];
    project.import(one);
    project.hold("hold.supervisor");
    let mut monitor = project.monitor(&["--until-idle"]);
    project.until("the supervisor", || project.runs().iter().any(|id| id == "A.super.1"));
    project.write("broken", "");
    project.commit("Break it");
    project.release("hold.supervisor");
    assert_eq!(monitor.end(&project), Some(1), "{}", project.story());
    let shown = project.ok(&["status"]);
    assert!(shown.contains("checks fail on `main` itself"), "{shown}");
    project.git(&["revert", "--no-edit", "HEAD"]);
    project.ok(&["monitor", "--until-idle", "--timeout", "240s"]);
    project.assert_landed(one);
    // Nothing was done again, and no send-back was counted.
    assert_eq!(project.runs(), ["A.arch.1", "A.test.1", "A.impl.1", "A.super.1"]);
    project.assert_nothing_left();
}

/// The poll and the keeper's line may both tell of a dead keeper.
#[test]
fn a_loss_told_twice_does_not_skip_the_saving() {
    let mut m = Machine::new(settings());
    m.begin();
    m.add(&[new_task("A", &[])]);
    let attempt = m.start("A");
    for _ in 0..2 {
        m.see(Observation::Lost { attempt: attempt.clone(), why: "keeper gone".into() });
        m.turns();
    }
    assert_eq!(m.state.attempts[&attempt].phase, AttemptPhase::Saving);
    m.save(&attempt, true, &[]);
    let task = &m.state.tasks[&id("A")];
    assert_eq!(task.resume_from, Some(Oid::new(format!("saved-{attempt}"))));
    assert_eq!(task.tally.infrastructure, 1);
}

/// Given up after the branch was moved, a task would be blocked though it has landed, and its retry
/// would land a second time.
#[test]
fn a_landing_whose_move_is_in_doubt_is_not_given_up() {
    let mut settings = settings();
    settings.limits.infrastructure_retries = 1;
    let mut m = Machine::new(settings);
    m.begin();
    m.add(&[new_task("A", &[])]);
    m.complete_stages("A");
    let merge = m.merge();
    m.turns();
    for _ in 0..4 {
        m.see(Observation::LaneFaulted { why: "no answer".into() });
        m.turns();
        assert!(!m.effects().iter().any(|due| matches!(due, Effect::Land { .. })));
        m.pass_to_deadline();
        assert!(m.effects().iter().any(|due| matches!(due, Effect::Land { .. })));
    }
    m.see(Observation::LaneFaulted { why: "no answer".into() });
    m.turns();
    assert_eq!(m.stand("A"), "landing");
    assert!(m.state.is_idle(), "a run until idle ends, and says what is in the way");
    // Whoever starts a monitor may have made way for it: it is tried before anything is said.
    m.see(Observation::MonitorStarted { pid: 2, allows_red_base: false });
    m.turns();
    assert!(!m.state.is_idle());
    assert!(m.effects().iter().any(|due| matches!(due, Effect::Land { .. })));
    m.see(Observation::LaneFaulted { why: "no answer".into() });
    m.turns();
    assert!(m.state.is_idle(), "in vain again, and not again and again");
    assert!(!m.effects().iter().any(|due| matches!(due, Effect::Land { .. })));
    m.pass_to_deadline();
    assert!(!m.state.is_idle());
    m.see(merge.landed());
    m.turns();
    assert_eq!(m.stand("A"), "completed");
}

#[test]
fn a_temporary_folder_that_goes_away_costs_nothing() {
    let project = Project::new(1);
    let backlog: &Backlog = &[("A", &[])];
    project.import(backlog);
    project.hold("hold.test");
    let mut monitor = project.monitor(&["--until-idle"]);
    project.until("the test stage", || project.runs().iter().any(|id| id == "A.test.1"));
    std::fs::remove_dir_all(project.dir().join("tmp")).expect("it was there");
    project.release("hold.test");
    assert_eq!(monitor.end(&project), Some(0), "{}", project.story());
    project.assert_landed(backlog);
}
