//! What an attempt goes on from when one before it was cut short.

use pipeline::machine::attempt::Attempt;
use pipeline::machine::event::RetryTarget;
use pipeline::machine::id::{AttemptId, Oid, StageName};
use pipeline::machine::settings::Settings;
use pipeline::machine::task::Task;
use pipeline::machine::usage::Usage;
use pipeline::machine::{Answer, Command, Observation, resume};

use crate::machine_support::{End, Machine, exit, id, new_task, settings};

/// A machine with a task that passes two stages, one of them by several agents.
fn machine(change: impl FnOnce(&mut Settings)) -> Machine {
    let mut settings = settings();
    settings.stages.drain(..2);
    settings.agents.drain(..2);
    settings.limits.attempts_per_stage = 9;
    change(&mut settings);
    let mut m = Machine::new(settings);
    m.begin();
    m.add(&[new_task("A", &[])]);
    m
}

fn task(m: &Machine) -> &Task {
    &m.state.tasks[&id("A")]
}

fn old<'a>(m: &'a Machine, attempt: &AttemptId) -> &'a Attempt {
    task(m).history.iter().find(|old| old.id == *attempt).expect("it has ended")
}

/// What an attempt tells and leaves.
#[derive(Clone, Copy)]
struct Run<'a> {
    end: End,
    session: Option<&'a str>,
    /// All tokens of the session so far; `None`: none are told.
    total: Option<u64>,
    /// `None`: nothing differs from the branch.
    left: Option<&'a str>,
    ran_ms: u64,
}

const CUT: Run<'static> =
    Run { end: End::Timeout, session: Some("s"), total: None, left: Some("w"), ran_ms: 600_000 };

/// The task's attempt, once it has one.
fn live(m: &mut Machine) -> Attempt {
    if m.stand("A").starts_with("ready") {
        m.pass_to_deadline();
    }
    m.work("A")
}

/// Lets the task's attempt run so, as the rim would; returns it as it is then on record.
fn run(m: &mut Machine, run: Run<'_>) -> Attempt {
    let live = live(m);
    let attempt = live.id.clone();
    let start = task(m).resume_from.clone().unwrap_or_else(|| Oid::new("tip"));
    let tip = Some(Oid::new("tip"));
    m.see(Observation::Prepared { attempt: attempt.clone(), base: Some(start), tip });
    let session = resume::session(&m.state, &live).map(|session| session.name.to_owned());
    m.see(Observation::Ordered { attempt: attempt.clone(), preset: "p".into(), session });
    m.see(Observation::Started { attempt: attempt.clone(), at: m.now });
    m.turns();
    let usage = Usage {
        session: run.session.map(str::to_owned),
        input_tokens: run.total,
        is_session_total: true,
        ..Usage::default()
    };
    let began = m.now;
    m.now = m.now.plus_ms(run.ran_ms);
    let exit =
        pipeline::machine::attempt::Exit { started_at: began, usage, ..exit(run.end, m.now) };
    m.see(Observation::Exited { attempt: attempt.clone(), exit: Box::new(exit) });
    let commit = run.left.map(Oid::new);
    let has_changed = commit.is_some();
    let markers = Vec::new();
    m.see(Observation::Saved {
        attempt: attempt.clone(),
        commit,
        has_changed,
        markers,
        notes: Vec::new(),
        lacks: None,
    });
    m.see(Observation::Advanced { attempt: attempt.clone(), changed: None });
    m.turns();
    old(m, &attempt).clone()
}

/// What the task's next attempt begins with: whose work, at which commit, in which session.
fn next(m: &mut Machine) -> (String, String, String) {
    let live = live(m);
    let session = resume::session(&m.state, &live).map_or("", |session| session.name);
    let continues = live.continues.as_ref().map_or("", |id| id.as_str());
    let from = task(m).resume_from.as_ref().map_or("", |oid| oid.as_str());
    (continues.into(), from.into(), session.into())
}

fn is_next(m: &mut Machine, expected: [&str; 3]) {
    let (continues, from, session) = next(m);
    assert_eq!([&*continues, &*from, &*session], expected, "{}", m.stand("A"));
}

#[test]
fn what_was_cut_short_is_gone_on_from_and_what_failed_is_not() {
    for (end, goes_on) in [
        (End::Timeout, true),
        (End::Silent, true),
        (End::Crash, true),
        (End::Stopped, true),
        (End::Fail, false),
        (End::NoMarker, false),
    ] {
        let mut m = machine(|_| {});
        run(&mut m, Run { end, ..CUT });
        is_next(&mut m, if goes_on { ["A.impl.1", "w", "s"] } else { ["", "", ""] });
    }
    // What has completed goes on by its branch.
    let mut m = machine(|_| {});
    run(&mut m, Run { end: End::Done, ..CUT });
    is_next(&mut m, ["", "", ""]);
    assert_eq!(m.stand("A"), "working A.super.1");
}

#[test]
fn nothing_is_named_where_nothing_can_be_taken_over() {
    let mut m = machine(|_| {});
    run(&mut m, Run { session: None, left: None, ..CUT });
    is_next(&mut m, ["", "", ""]);
    let mut m = machine(|_| {});
    run(&mut m, Run { left: None, ..CUT });
    is_next(&mut m, ["A.impl.1", "", "s"]);
}

#[test]
fn who_gets_no_further_than_the_one_before_is_followed_by_a_fresh_one() {
    let mut m = machine(|_| {});
    run(&mut m, CUT);
    run(&mut m, Run { left: Some("w2"), ..CUT });
    is_next(&mut m, ["A.impl.2", "w2", "s"]);
    run(&mut m, Run { left: Some("w2"), ..CUT });
    is_next(&mut m, ["", "", ""]);
    let evidence = &task(&m).evidence.last().expect("evidence").text;
    assert!(evidence.contains("kept at refs/pipeline/salvage/A.impl.2"), "{evidence}");
    // That one is cut short as well: it is gone on from again.
    run(&mut m, Run { left: Some("w4"), ..CUT });
    is_next(&mut m, ["A.impl.4", "w4", "s"]);
    // Ended on request it says nothing of what it began with.
    run(&mut m, Run { left: Some("w4"), end: End::Stopped, ..CUT });
    is_next(&mut m, ["A.impl.5", "w4", "s"]);
}

#[test]
fn an_attempt_that_never_began_changes_nothing_of_what_is_gone_on_from() {
    let mut m = machine(|_| {});
    run(&mut m, CUT);
    is_next(&mut m, ["A.impl.1", "w", "s"]);
    let attempt = m.work("A").id;
    m.see(Observation::AttemptFaulted { attempt, why: "disk full".into() });
    m.turns();
    is_next(&mut m, ["A.impl.1", "w", "s"]);
    // Its keeper dies before it has begun: the worktree stands where it was made.
    let attempt = m.work("A").id;
    let (base, tip) = (Some(Oid::new("w")), Some(Oid::new("tip")));
    m.see(Observation::Prepared { attempt: attempt.clone(), base, tip });
    m.see(Observation::Lost { attempt: attempt.clone(), why: "keeper gone".into() });
    let (commit, markers) = (Some(Oid::new("w")), Vec::new());
    m.see(Observation::Saved {
        attempt,
        commit,
        has_changed: true,
        markers,
        notes: Vec::new(),
        lacks: None,
    });
    m.turns();
    let (continues, from, _) = next(&mut m);
    assert_eq!((&*continues, &*from), ("A.impl.1", "w"));
}

#[test]
fn a_session_that_cannot_be_taken_up_costs_the_session_and_not_the_work() {
    let mut m = machine(|_| {});
    run(&mut m, CUT);
    let refused = Run { end: End::NoMarker, session: None, ran_ms: 900, ..CUT };
    let ended = run(&mut m, refused);
    assert_eq!(ended.session.as_deref(), Some("s"));
    is_next(&mut m, ["A.impl.1", "w", ""]);
    // Without a session it is an attempt like any other.
    run(&mut m, refused);
    is_next(&mut m, ["", "", ""]);

    // One that worked for a while, or did something, failed by itself.
    for run_so in [Run { ran_ms: 60_000, ..refused }, Run { left: Some("w2"), ..refused }] {
        let mut m = machine(|_| {});
        run(&mut m, CUT);
        run(&mut m, run_so);
        is_next(&mut m, ["", "", ""]);
    }
}

#[test]
fn a_session_is_taken_up_by_the_same_agent_in_the_same_folder() {
    let mut m = machine(|s| s.agents[0].count = 3);
    let first = m.work("A");
    run(&mut m, CUT);
    let second = live(&mut m);
    assert_eq!((&second.agent, second.slot), (&first.agent, first.slot), "its agent was free");

    // Its agent is away: another one goes on from the work at once, in a session of its own.
    let mut m = machine(|s| s.agents[0].count = 3);
    run(&mut m, CUT);
    m.must(Command::PauseAgent { name: first.agent.clone() });
    is_next(&mut m, ["A.impl.1", "w", ""]);
    assert_ne!(m.work("A").agent, first.agent);

    // What it left running may still be in its folder: that is not used again.
    let mut m = machine(|_| {});
    let first = m.work("A");
    let attempt = m.start("A");
    let mut leaky = exit(End::Timeout, m.now);
    leaky.leaked = 1;
    leaky.usage.session = Some("s".into());
    m.see(Observation::Exited { attempt: attempt.clone(), exit: Box::new(leaky) });
    m.save(&attempt, true, &[]);
    is_next(&mut m, ["A.impl.1", "saved-A.impl.1", ""]);
    assert_ne!(m.work("A").slot, first.slot);
}

/// With two slots that take turns, the one that is made ready meanwhile is not the one in use.
#[test]
fn the_slot_of_a_session_is_taken_out_of_turn() {
    let mut m = machine(|s| s.scheduler.prefetch = Some(2.0));
    m.add(&[new_task("B", &[])]);
    let first = run(&mut m, CUT);
    let between = m.start("B");
    assert_ne!(m.state.attempts[&between].slot, first.slot, "they take turns");
    m.exit(&between, End::Timeout);
    let second = live(&mut m);
    assert_eq!((second.slot, &*second.id.to_string()), (first.slot, "A.impl.2"));
    let agent = &m.state.agents[&second.agent];
    assert_eq!((agent.slot, agent.spare), (second.slot, Some(1 - second.slot)));
    assert_ne!(agent.slot_after(), second.slot);
}

fn retry(m: &mut Machine, stage: Option<&str>, is_fresh: bool) {
    let target = RetryTarget::Tasks(vec![id("A")]);
    let stage = stage.map(StageName::new);
    m.must(Command::RetryTasks { target, stage, note: None, is_fresh });
}

#[test]
fn a_retry_goes_on_from_the_work_at_the_same_stage_alone() {
    let cut = |m: &mut Machine| {
        run(m, Run { end: End::Done, left: Some("done"), ..CUT });
        m.turns();
        assert_eq!(m.stand("A"), "working A.super.1");
        run(m, CUT);
    };
    for (stage, is_fresh, expected) in [
        (None, false, ["A.super.1", "w", "s"]),
        (Some("supervisor"), false, ["A.super.1", "w", "s"]),
        (Some("implementation"), false, ["", "", ""]),
        (None, true, ["", "", ""]),
        (Some("supervisor"), true, ["", "", ""]),
    ] {
        let mut m = machine(|_| {});
        cut(&mut m);
        retry(&mut m, stage, is_fresh);
        is_next(&mut m, expected);
    }
}

#[test]
fn of_a_session_over_three_runs_each_is_told_what_it_used_itself() {
    let mut m = machine(|_| {});
    let first = run(&mut m, Run { total: Some(100), ..CUT });
    let second = run(&mut m, Run { total: Some(250), left: Some("w2"), ..CUT });
    // The last one does not say which session it is in.
    let third = Run { end: End::Done, session: None, total: Some(260), ..CUT };
    let third = run(&mut m, third);
    let used = [&first, &second, &third]
        .map(|run| run.exit.as_ref().expect("it ended").usage.input_tokens.expect("known"));
    assert_eq!(used, [100, 150, 10]);
    assert_eq!(m.state.metrics.tokens, Some(260));
    assert_eq!(third.session.as_deref(), Some("s"));
}

#[test]
fn a_late_word_of_what_it_was_started_by_is_noted() {
    let mut m = machine(|_| {});
    let attempt = run(&mut m, CUT).id;
    let late = Observation::Ordered { attempt, preset: "q".into(), session: None };
    assert!(matches!(m.see(late), Answer::Note(_)));
}
