//! What follows when a provider reaches a limit or refuses a key.

use std::collections::BTreeMap;

use pipeline::machine::attempt::{Class, Exit, Fault, FaultKind, Marker};
use pipeline::machine::id::AgentName;
use pipeline::machine::provider::{self, Pause};
use pipeline::machine::settings::{AgentGroup, Settings};
use pipeline::machine::time::Time;
use pipeline::machine::{Answer, Command, Observation, next_deadline};

use crate::machine_support::{End, Machine, exit, group, id, new_task, settings};

/// One stage; `a` and `b` are of one provider, `c` is of another.
fn machine(groups: &[(&str, &str)], change: impl FnOnce(&mut Settings)) -> Machine {
    let mut settings = settings();
    settings.stages = settings.stages[2..3].to_vec();
    settings.agents = groups
        .iter()
        .map(|(name, provider)| AgentGroup {
            provider: (*provider).into(),
            ..group(name, &["implementation"], 1)
        })
        .collect();
    change(&mut settings);
    let mut machine = Machine::new(settings);
    machine.begin();
    machine
}

const THREE: &[(&str, &str)] = &[("a", "one"), ("b", "one"), ("c", "two")];

fn fault(kind: FaultKind, until: Option<Time>) -> Option<Fault> {
    Some(Fault { kind, text: "429: slow down".into(), until })
}

/// Ends the task's attempt with what the provider said.
fn end_with(m: &mut Machine, task: &str, end: End, fault: Option<Fault>) {
    let attempt = m.start(task);
    let exit = Exit { fault, ..exit(end, m.now) };
    m.see(Observation::Exited { attempt: attempt.clone(), exit: Box::new(exit) });
    let commit = Some(pipeline::machine::id::Oid::new("5a7ed"));
    m.see(Observation::Saved {
        attempt,
        commit,
        has_changed: end == End::Done,
        markers: vec![],
        notes: vec![],
        lacks: None,
    });
    m.turns();
    m.state.check();
}

fn limit(m: &mut Machine, task: &str, until: Option<Time>) {
    end_with(m, task, End::NoMarker, fault(FaultKind::RateLimited, until));
}

fn limit_for(m: &mut Machine, task: &str, ms: u64) {
    let until = m.now.plus_ms(ms);
    limit(m, task, Some(until));
}

fn agent_of(m: &Machine, task: &str) -> String {
    m.work(task).agent.to_string()
}

fn pause_of<'a>(m: &'a Machine, provider: &str) -> Option<&'a Pause> {
    m.state.pauses.get(provider)
}

fn is_shut(m: &Machine, provider: &str) -> bool {
    pause_of(m, provider).is_some_and(Pause::is_on)
}

fn left_s(m: &Machine, provider: &str) -> Option<u64> {
    pause_of(m, provider)?.until.map(|until| until.ms_since(m.now) / 1000)
}

fn last_class(m: &Machine, task: &str) -> Class {
    let history = &m.state.tasks[&id(task)].history;
    history.last().and_then(|attempt| attempt.outcome.as_ref()).expect("one has ended").class
}

#[test]
fn a_limit_pauses_its_provider_and_the_task_goes_to_another() {
    let mut m = machine(THREE, |_| {});
    m.add(&[new_task("A", &[])]);
    m.turns();
    assert_eq!(agent_of(&m, "A"), "a");
    limit_for(&mut m, "A", 90_000);
    assert_eq!(last_class(&m, "A"), Class::RateLimited);
    assert_eq!((agent_of(&m, "A").as_str(), m.stand("A")), ("c", "working A.impl.2".into()));
    assert_eq!(m.state.tasks[&id("A")].tally.attempts, 0, "no attempt is used up");
    // Nobody of the provider gets anything, and the other one is busy.
    m.add(&[new_task("B", &[])]);
    m.turns();
    assert_eq!(m.stand("B"), "ready impl");
    // Clocks differ: it is asked again a little after what was named.
    assert_eq!(next_deadline(&m.state), Some(m.now.plus_ms(95_000)));
    m.pass_ms(94_000);
    assert_eq!(m.stand("B"), "ready impl");
    m.pass_ms(1_000);
    assert_eq!(agent_of(&m, "B"), "a");
    assert_eq!(pause_of(&m, "one").map(|pause| pause.limits), Some(1));
    m.run("B", End::Done);
    assert_eq!(pause_of(&m, "one"), None, "a success ends it all");
    m.state.check();
}

#[test]
fn limits_in_a_row_pause_for_longer_and_without_end_use_nothing_up() {
    let mut m = machine(&THREE[..1], |_| {});
    m.add(&[new_task("A", &[])]);
    for pause_s in [5, 10, 20, 40, 80, 160, 320, 640, 1280, 1800, 1800, 1800, 1800, 1800] {
        m.turns();
        limit(&mut m, "A", None);
        assert_eq!((left_s(&m, "one"), m.stand("A")), (Some(pause_s), "ready impl".into()));
        assert!(!m.state.is_idle(), "it goes on by itself");
        m.pass_ms(pause_s * 1000);
    }
    assert_eq!(m.state.tasks[&id("A")].tally, Default::default());
    m.run("A", End::Done);
    assert_eq!(pause_of(&m, "one"), None);
}

#[test]
fn a_moment_that_makes_no_sense_is_not_believed() {
    for (named_ms, pause_s) in
        [(Some(1_000_000 - 5), 5), (Some(1_000_000), 5), (Some(u64::MAX), 5), (Some(1_002_000), 7)]
    {
        let mut m = machine(&THREE[..1], |_| {});
        m.add(&[new_task("A", &[])]);
        m.turns();
        assert_eq!(m.now, Time::from_ms(1_000_000));
        limit(&mut m, "A", named_ms.map(Time::from_ms));
        assert_eq!(left_s(&m, "one"), Some(pause_s), "{named_ms:?}");
    }
    // Who names a second again and again waits as long as who names none.
    let mut m = machine(&THREE[..1], |_| {});
    m.add(&[new_task("A", &[])]);
    m.turns();
    for pause_s in [6, 10, 20] {
        limit_for(&mut m, "A", 1_000);
        assert_eq!(left_s(&m, "one"), Some(pause_s));
        m.pass_ms(pause_s * 1000);
    }
}

#[test]
fn those_who_ran_beside_each_other_meet_one_limit() {
    let mut m = machine(THREE, |_| {});
    m.add(&[new_task("A", &[]), new_task("B", &[])]);
    m.turns();
    assert_eq!([agent_of(&m, "A"), agent_of(&m, "B")], ["a", "b"]);
    m.pass_ms(10);
    limit(&mut m, "A", None);
    limit(&mut m, "B", None);
    assert_eq!(pause_of(&m, "one").map(|pause| pause.limits), Some(1));
    // The later one names the end, and an earlier end does not shorten it.
    let mut m = machine(&[("a", "one"), ("b", "one")], |_| {});
    m.add(&[new_task("A", &[]), new_task("B", &[])]);
    m.turns();
    m.pass_ms(10);
    limit_for(&mut m, "A", 60_000);
    limit_for(&mut m, "B", 30_000);
    assert_eq!(left_s(&m, "one"), Some(65));
}

#[test]
fn a_refused_key_waits_for_a_person() {
    let mut m = machine(&THREE[..2], |_| {});
    m.add(&[new_task("A", &[])]);
    m.turns();
    end_with(&mut m, "A", End::NoMarker, fault(FaultKind::Unauthorized, None));
    assert_eq!((last_class(&m, "A"), m.stand("A")), (Class::Unauthorized, "ready impl".into()));
    assert!(m.state.is_idle(), "only a person can go on");
    let why = m.state.tasks[&id("A")].unserved.clone().expect("told at once");
    assert_eq!(why, "`one` refuses its agents (429: slow down): pipeline agent resume a");
    m.pass_ms(3_600_000_000);
    assert_eq!(m.stand("A"), "ready impl");
    // Anybody of the provider may be named.
    m.must(Command::ResumeAgent { name: AgentName::new("b") });
    m.turns();
    assert_eq!((is_shut(&m, "one"), m.stand("A")), (false, "working A.impl.2".into()));
    assert_eq!(m.state.tasks[&id("A")].unserved, None);
    m.run("A", End::Done);
    assert!(matches!(m.ask(Command::ResumeAgent { name: AgentName::new("b") }), Answer::Note(_)));
}

#[test]
fn the_command_that_is_told_works_whoever_has_gone() {
    let mut m = machine(&THREE[..2], |_| {});
    m.add(&[new_task("A", &[])]);
    m.turns();
    end_with(&mut m, "A", End::NoMarker, fault(FaultKind::Unauthorized, None));
    let mut settings = Settings::clone(&m.state.settings);
    settings.hash = "1".repeat(16);
    settings.agents.remove(0);
    m.must(Command::AdoptSettings { settings: Box::new(settings) });
    let command = pause_of(&m, "one").map(Pause::command);
    assert_eq!(command.as_deref(), Some("pipeline agent resume b"));
    m.must(Command::ResumeAgent { name: AgentName::new("one") });
    assert_eq!((is_shut(&m, "one"), agent_of(&m, "A").as_str()), (false, "b"));
    m.refused(Command::PauseAgent { name: AgentName::new("one") });
}

#[test]
fn a_limit_beside_a_refusal_does_not_end_it() {
    let mut m = machine(THREE, |_| {});
    m.add(&[new_task("A", &[]), new_task("B", &[])]);
    m.turns();
    end_with(&mut m, "A", End::NoMarker, fault(FaultKind::Unauthorized, None));
    limit_for(&mut m, "B", 1_000);
    m.pass_ms(5_000);
    assert!(pause_of(&m, "one").is_some_and(|pause| pause.is_refused));
}

#[test]
fn an_agent_without_a_provider_stands_for_its_group() {
    let mut m = machine(&[("a", ""), ("b", "")], |_| {});
    m.add(&[new_task("A", &[])]);
    m.turns();
    limit(&mut m, "A", None);
    assert_eq!((left_s(&m, "a"), agent_of(&m, "A").as_str()), (Some(5), "b"));
    // A preset says whose models they use.
    let of = |name: &str| BTreeMap::from([("a".to_owned(), name.to_owned())]);
    m.see(Observation::ProvidersSeen { of: of("one") });
    assert_eq!(m.state.pauses.len(), 0, "nobody is of that provider any more");
    m.state.check();
}

#[test]
fn what_the_agent_did_counts_more_than_what_its_program_quotes() {
    let limited = || fault(FaultKind::RateLimited, None);
    let mut m = machine(&THREE[..1], |_| {});
    m.add(&[new_task("A", &[]), new_task("B", &[])]);
    m.turns();
    let attempt = m.start("A");
    let exit = Exit { fault: limited(), ..exit(End::Done, m.now) };
    m.see(Observation::Exited { attempt, exit: Box::new(exit) });
    let verdict = m.work("A").verdict.clone().expect("judged");
    assert_eq!(verdict.class, Class::Completed);

    // Done, it says, but nothing is there: its program's word counts.
    let mut m = machine(&THREE[..1], |_| {});
    m.add(&[new_task("A", &[])]);
    m.turns();
    let attempt = m.start("A");
    let done = Exit {
        fault: limited(),
        marker: Some(Marker::Completed),
        ..crate::machine_support::exit(End::Done, m.now)
    };
    m.see(Observation::Exited { attempt: attempt.clone(), exit: Box::new(done) });
    m.see(Observation::Saved {
        attempt,
        commit: None,
        has_changed: false,
        markers: vec![],
        notes: vec![],
        lacks: None,
    });
    assert_eq!(last_class(&m, "A"), Class::RateLimited);
}

#[test]
fn an_end_by_time_or_silence_is_the_limits_where_that_was_the_last_word() {
    for (end, kind, class) in [
        (End::Timeout, FaultKind::RateLimited, Class::RateLimited),
        (End::Silent, FaultKind::Unauthorized, Class::Unauthorized),
        (End::Fail, FaultKind::RateLimited, Class::Failed),
        (End::Blocked, FaultKind::RateLimited, Class::Blocked),
        // Nobody asked for its end: it stood still in its terminal.
        (End::Stopped, FaultKind::RateLimited, Class::RateLimited),
        (End::Crash, FaultKind::RateLimited, Class::Crashed),
    ] {
        let mut m = machine(THREE, |_| {});
        m.add(&[new_task("A", &[])]);
        m.turns();
        end_with(&mut m, "A", end, fault(kind, None));
        assert_eq!(last_class(&m, "A"), class, "{end:?}");
    }
}

#[test]
fn a_task_too_large_for_a_context_fails_and_is_told_how_to_go_on() {
    let mut m = machine(&THREE[..1], |_| {});
    m.add(&[new_task("A", &[])]);
    m.turns();
    end_with(&mut m, "A", End::NoMarker, fault(FaultKind::ContextExceeded, None));
    assert_eq!(last_class(&m, "A"), Class::ContextExceeded);
    let task = &m.state.tasks[&id("A")];
    assert_eq!((task.tally.attempts, task.tally.stage_failures), (1, 1));
    assert_eq!(task.resume_from, None, "it begins anew");
    let told = &task.evidence.last().expect("told").text;
    assert!(told.contains("work in smaller steps") && told.contains("slow down"), "{told}");
    assert_eq!(m.state.pauses.len(), 0);
}

#[test]
fn a_group_that_grows_does_not_grow_for_a_provider_that_gives_nothing() {
    let mut m = machine(&THREE[..1], |settings| {
        settings.agents[0].count = 4;
        settings.agents[0].scale_min = Some(1);
    });
    m.add(&[new_task("A", &[])]);
    m.turns();
    limit_for(&mut m, "A", 60_000);
    m.add(&[new_task("B", &[]), new_task("C", &[])]);
    m.turns();
    assert_eq!(m.state.agents.len(), 1);
    assert!(!m.state.is_idle());
    m.pass_ms(65_000);
    assert_eq!(m.state.agents.len(), 3);
    m.state.check();
}

#[test]
fn new_settings_and_a_new_monitor_leave_a_refusal() {
    let mut m = machine(&THREE[..2], |_| {});
    m.add(&[new_task("A", &[])]);
    m.turns();
    end_with(&mut m, "A", End::NoMarker, fault(FaultKind::Unauthorized, None));
    let mut settings = Settings::clone(&m.state.settings);
    settings.hash = "1".repeat(16);
    settings.limits.send_backs = 7;
    m.must(Command::AdoptSettings { settings: Box::new(settings.clone()) });
    m.see(Observation::MonitorStarted { pid: 2, allows_red_base: false });
    m.turns();
    assert!(pause_of(&m, "one").is_some_and(|pause| pause.is_refused));
    // Whose models they use is another thing.
    settings.hash = "2".repeat(16);
    settings.agents.iter_mut().for_each(|group| group.provider = "three".into());
    m.must(Command::AdoptSettings { settings: Box::new(settings) });
    m.turns();
    assert_eq!((m.state.pauses.len(), m.stand("A")), (0, "working A.impl.2".into()));
}

/// Three agents of one provider with three tasks, of which none was told when the limit ends.
fn limited() -> Machine {
    let mut m = machine(&THREE[..1], |settings| settings.agents[0].count = 3);
    m.add(&[new_task("A", &[]), new_task("B", &[]), new_task("C", &[])]);
    m.turns();
    m.pass_ms(10);
    for task in ["A", "B", "C"] {
        limit(&mut m, task, None);
    }
    assert_eq!((left_s(&m, "one"), working(&m)), (Some(5), vec![]));
    m.pass_ms(5_000);
    m
}

fn working(m: &Machine) -> Vec<String> {
    let live = m.state.attempts.values().filter(|attempt| attempt.is_work());
    live.map(|attempt| attempt.id.to_string()).collect()
}

#[test]
fn one_tries_first_after_a_limit_whose_end_nobody_named() {
    let mut m = limited();
    assert_eq!(working(&m), ["A.impl.2"]);
    // It is met once more: one limit, and not three.
    limit(&mut m, "A", None);
    assert_eq!((left_s(&m, "one"), working(&m)), (Some(10), vec![]));
    m.pass_ms(10_000);
    assert_eq!(working(&m), ["A.impl.3"]);
    // What ends without a word of the provider lets another one try.
    m.run("A", End::Crash);
    assert_eq!(working(&m), ["B.impl.2"]);
    m.run("B", End::Done);
    m.add(&[new_task("D", &[])]);
    assert_eq!((pause_of(&m, "one"), working(&m).len()), (None, 2), "it is through");
    m.state.check();
}

#[test]
fn who_tries_first_and_runs_for_long_lets_the_others_in() {
    let mut m = limited();
    let first = m.work("A").id;
    // Its worktree takes as long as it takes.
    m.pass_ms(3_600_000);
    assert_eq!(working(&m).len(), 1);
    m.start_attempt(&first);
    assert_eq!(next_deadline(&m.state), Some(m.now.plus_ms(provider::PROBE_MS)));
    m.pass_ms(provider::PROBE_MS - 1);
    assert_eq!(working(&m).len(), 1);
    m.pass_ms(1);
    assert_eq!(working(&m).len(), 3);
    assert_eq!(pause_of(&m, "one").map(|pause| pause.limits), Some(1), "nobody has done well yet");
    m.state.check();
    // So does a person.
    let mut m = limited();
    m.must(Command::ResumeAgent { name: AgentName::new("a-3") });
    assert_eq!(working(&m).len(), 3);
    m.state.check();
}

#[test]
fn a_limit_whose_end_was_named_needs_nobody_to_try() {
    let mut m = machine(&THREE[..2], |_| {});
    m.add(&[new_task("A", &[]), new_task("B", &[])]);
    m.turns();
    m.pass_ms(10);
    limit_for(&mut m, "A", 60_000);
    limit_for(&mut m, "B", 60_000);
    m.pass_ms(65_000);
    assert_eq!(working(&m), ["A.impl.2", "B.impl.2"]);
    // From the second in a row on it does: the end was not the right one.
    limit_for(&mut m, "A", 60_000);
    limit_for(&mut m, "B", 60_000);
    m.pass_ms(65_000);
    assert_eq!(working(&m), ["A.impl.3"]);
}

#[test]
fn a_group_that_grows_waits_for_who_tries_first() {
    let mut m = machine(&THREE[..1], |settings| {
        settings.agents[0].count = 4;
        settings.agents[0].scale_min = Some(1);
    });
    m.add(&[new_task("A", &[])]);
    m.turns();
    limit(&mut m, "A", None);
    m.add(&[new_task("B", &[]), new_task("C", &[])]);
    m.pass_ms(5_000);
    assert_eq!((working(&m), m.state.targets.len()), (vec!["A.impl.2".to_owned()], 0));
    m.run("A", End::Done);
    assert_eq!(working(&m).len(), 2);
    m.state.check();
}

#[test]
fn who_comes_when_a_limit_has_ended_keeps_nothing_until_then() {
    let mut m = machine(&[("gpu", "one"), ("a", "two"), ("b", "two")], |settings| {
        settings.agents[0].scale_min = Some(0);
        settings.scheduler.resources.insert("db".into(), 2_000);
    });
    let asking = |name: &str, needs: &[&str], db: &str| {
        let mut task = new_task(name, &[]);
        task.spec.needs = needs.iter().map(|need| (*need).to_owned()).collect();
        task.spec.resources.insert("db".into(), db.into());
        task
    };
    m.add(&[asking("A", &["gpu"], "2")]);
    m.turns();
    limit_for(&mut m, "A", 600_000);
    m.pass_ms(60_000);
    assert!(!m.state.agents.contains_key(&AgentName::new("gpu")), "it had nothing to do");
    m.add(&[asking("B", &[], "1")]);
    m.turns();
    m.add(&[asking("C", &[], "1")]);
    m.turns();
    let stands = ["A", "B", "C"].map(|task| m.stand(task));
    assert_eq!(stands, ["ready impl", "working B.impl.1", "working C.impl.1"]);
    m.run("B", End::Done);
    m.run("C", End::Done);
    m.pass_ms(600_000);
    assert_eq!(agent_of(&m, "A"), "gpu");
    m.state.check();
}

#[test]
fn attempts_to_which_their_provider_gave_nothing_are_counted_nowhere() {
    let mut m = machine(&THREE[..1], |settings| settings.limits.attempts_per_run = 2);
    m.add(&[new_task("A", &[])]);
    m.turns();
    for _ in 0..5 {
        limit(&mut m, "A", None);
        let until = pause_of(&m, "one").and_then(|pause| pause.until).expect("it pauses");
        m.pass_ms(until.ms_since(m.now));
    }
    end_with(&mut m, "A", End::NoMarker, fault(FaultKind::Unauthorized, None));
    m.must(Command::ResumeAgent { name: AgentName::new("a") });
    let counted = |m: &Machine| {
        let agent = &m.state.agents[&AgentName::new("a")];
        (m.state.run.attempts, m.state.metrics.retries, agent.completed, agent.failed)
    };
    assert_eq!(counted(&m), (1, 0, 0, 0), "the one at work alone");
    m.run("A", End::NoMarker);
    m.pass_to_deadline();
    // One that goes on for one that failed is the same retry.
    limit(&mut m, "A", None);
    assert_eq!(counted(&m), (1, 1, 0, 1));
    m.pass_to_deadline();
    assert_eq!((counted(&m), m.state.metrics.attempts), ((2, 1, 0, 1), 9));
    m.run("A", End::Done);
    assert_eq!(counted(&m), (2, 1, 1, 1));
}

#[test]
fn another_group_that_does_well_forgets_no_limits() {
    // `a` meets its model's limit again and again, `b` never does.
    let mut m = machine(&THREE[..2], |_| {});
    for pause_s in [5, 10, 20, 40] {
        let [mine, other] = [format!("A{pause_s}"), format!("B{pause_s}")];
        let needs = |name: &str, agent: &str| {
            let mut task = new_task(name, &[]);
            task.spec.needs = vec![agent.to_owned()];
            task
        };
        m.add(&[needs(&mine, "a")]);
        m.turns();
        limit(&mut m, &mine, None);
        assert_eq!(left_s(&m, "one"), Some(pause_s));
        m.must(Command::HoldTasks { ids: vec![id(&mine)] });
        m.pass_ms(pause_s * 1000);
        m.add(&[needs(&other, "b")]);
        m.turns();
        m.run(&other, End::Done);
        let pause = pause_of(&m, "one").expect("it is remembered");
        assert!(!pause.is_on() && !pause.is_guessed, "all may go on: {pause:?}");
    }
    m.must(Command::ReleaseTasks { ids: vec![id("A5")] });
    m.run("A5", End::Done);
    assert_eq!(pause_of(&m, "one"), None, "it has done well itself");
}

/// After a sleep of the machine, or a step of its clock.
#[test]
fn a_resume_by_a_clock_that_is_ahead_hides_no_later_limit() {
    let mut m = machine(&THREE[..1], |_| {});
    m.add(&[new_task("A", &[])]);
    m.turns();
    limit_for(&mut m, "A", 90_000);
    let now = m.now;
    m.now = now.plus_ms(3_600_000);
    m.ask(Command::ResumeAgent { name: AgentName::new("a") });
    m.now = now.plus_ms(100);
    m.turns();
    assert_eq!(m.stand("A"), "working A.impl.2");
    limit_for(&mut m, "A", 90_000);
    assert!(is_shut(&m, "one"), "{:?}", pause_of(&m, "one"));
    m.state.check();
}

#[test]
fn what_was_begun_before_a_person_resumed_does_not_shut_it_again() {
    for kind in [FaultKind::Unauthorized, FaultKind::RateLimited] {
        let mut m = machine(&THREE[..2], |_| {});
        m.add(&[new_task("A", &[]), new_task("B", &[])]);
        m.turns();
        let told = || fault(kind, None);
        end_with(&mut m, "A", End::NoMarker, told());
        m.pass_ms(100);
        m.must(Command::ResumeAgent { name: AgentName::new("a") });
        assert_eq!(m.stand("A"), "working A.impl.2");
        // `b` still had the old key.
        end_with(&mut m, "B", End::NoMarker, told());
        assert_eq!((is_shut(&m, "one"), m.stand("B")), (false, "working B.impl.2".into()));
        let note = m.ask(Command::ResumeAgent { name: AgentName::new("b") });
        assert!(matches!(note, Answer::Note(_)), "there is nothing to resume: {note:?}");
        // The new one is refused, too.
        end_with(&mut m, "B", End::NoMarker, told());
        assert!(is_shut(&m, "one"));
        m.state.check();
    }
}
