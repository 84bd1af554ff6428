//! What an external scheduler proposes, and what is made of it.

use std::collections::BTreeMap;

use pipeline::machine::attempt::{Exit, Fault, FaultKind};
use pipeline::machine::change::ProjectChange;
use pipeline::machine::event::NewTask;
use pipeline::machine::id::AgentName;
use pipeline::machine::mode::Orchestration;
use pipeline::machine::proposal::{Pair, ProposalFault, ProposalPhase};
use pipeline::machine::settings::Settings;
use pipeline::machine::{Answer, Change, Command, Effect, Observation};

use crate::machine_cases::stands;
use crate::machine_support::{End, Machine, exit, group, id, new_task, settings};

/// One stage with the agents `w-1` to `w-3`, and `odd`, which has nothing that is needed.
fn machine(change: impl FnOnce(&mut Settings)) -> Machine {
    let mut settings = settings();
    settings.stages = settings.stages[2..3].to_vec();
    let mut workers = group("w", &["implementation"], 3);
    workers.capabilities = vec!["gpu".into()];
    settings.agents = vec![workers, group("odd", &["implementation"], 1)];
    settings.scheduler.command = vec!["external".into()];
    settings.scheduler.resources = BTreeMap::from([("db".into(), 1000)]);
    change(&mut settings);
    let mut machine = Machine::new(settings);
    machine.begin();
    machine
}

fn pairs(pairs: &[(&str, &str)]) -> Vec<Pair> {
    let pair = |(task, agent): &(&str, &str)| Pair { task: id(task), agent: AgentName::new(agent) };
    pairs.iter().map(pair).collect()
}

/// Returns the question that is owed.
fn asked(m: &Machine) -> Option<u64> {
    m.effects().into_iter().find_map(|effect| match effect {
        Effect::Propose { number } => Some(number),
        _ => None,
    })
}

/// Answers the question that is owed.
fn answer(m: &mut Machine, proposed: &[(&str, &str)]) {
    let number = asked(m).expect("it is asked");
    m.see(Observation::Proposed { number, pairs: pairs(proposed) });
    m.turns();
    m.state.check();
}

fn fail(m: &mut Machine, fault: ProposalFault) {
    let number = asked(m).expect("it is asked");
    m.see(Observation::NotProposed { number, fault, why: "no".into() });
    m.turns();
    m.state.check();
}

/// Returns who is worked on by whom.
fn working(m: &Machine) -> Vec<(String, String)> {
    let works = m.state.attempts.values().filter(|attempt| attempt.is_work());
    let pair = |task: &pipeline::machine::id::TaskId, agent: &AgentName| {
        (task.as_str().to_owned(), agent.as_str().to_owned())
    };
    works.filter_map(|attempt| Some(pair(attempt.task.as_ref()?, &attempt.agent))).collect()
}

fn works(expected: &[(&str, &str)]) -> Vec<(String, String)> {
    expected.iter().map(|(task, agent)| ((*task).to_owned(), (*agent).to_owned())).collect()
}

/// Returns what was told of faults, and of pairs that were refused.
fn told(m: &Machine) -> Vec<String> {
    let told = m.log.iter().filter_map(|change| match change {
        Change::Project(ProjectChange::ProposalFaulted { why, .. }) => Some(why.clone()),
        Change::Project(ProjectChange::ProposalRefused { task, agent, why }) => {
            Some(format!("{task} {agent}: {why}"))
        }
        _ => None,
    });
    told.collect()
}

fn tasks(names: &[&str]) -> Vec<NewTask> {
    names.iter().map(|name| new_task(name, &[])).collect()
}

#[test]
fn what_is_proposed_is_started_in_its_order_and_nothing_before() {
    let mut m = machine(|_| {});
    m.turns();
    assert_eq!(asked(&m), None, "there is nothing to start");
    m.add(&tasks(&["A", "B", "C"]));
    m.turns();
    assert_eq!((asked(&m), working(&m)), (Some(1), Vec::new()));
    m.pass_ms(1_999);
    assert_eq!((asked(&m), working(&m)), (Some(1), Vec::new()));
    answer(&mut m, &[("C", "w-2"), ("A", "odd")]);
    assert_eq!(working(&m), works(&[("A", "odd"), ("C", "w-2")]));
    // The rest is worth another question.
    assert_eq!(asked(&m), Some(2));
    answer(&mut m, &[("B", "w-3")]);
    assert_eq!((asked(&m), told(&m)), (None, Vec::new()));
    m.run("C", End::Done);
    assert_eq!(asked(&m), None, "nothing is ready");
}

#[test]
fn what_cannot_be_carried_out_is_refused_with_the_reason_and_the_rest_is_started() {
    let mut m = machine(|_| {});
    let mut all = tasks(&["A", "B", "C", "D", "E", "F", "G", "H"]);
    all[1].spec.needs = vec!["gpu".into()];
    for sharing in &mut all[2..4] {
        sharing.spec.resources.insert("db".into(), "1".into());
    }
    all[4].spec.touches = vec!["src/**".into()];
    all[5].spec.touches = vec!["src/a".into()];
    all[6].spec.depends_on = vec![id("A")];
    all[7].spec.is_exclusive = true;
    m.add(&all);
    m.must(Command::PauseAgent { name: AgentName::new("w-3") });
    m.turns();
    let proposed = [
        ("X", "w-1"),
        ("A", "X"),
        ("A", "w-3"),
        ("B", "odd"),
        ("G", "w-1"),
        ("C", "w-1"),
        ("C", "w-2"),
        ("A", "w-1"),
        ("D", "w-2"),
        ("H", "w-2"),
        ("E", "w-2"),
        ("F", "odd"),
    ];
    answer(&mut m, &proposed);
    assert_eq!(working(&m), works(&[("C", "w-1"), ("E", "w-2")]));
    let expected = [
        "X w-1: there is no such task",
        "A X: there is no such agent",
        "A w-3: the agent is paused",
        "B odd: the agent has not all of `gpu`",
        "G w-1: the task may not start yet",
        "C w-2: the task is given to w-1 already",
        "A w-1: the agent is given C already",
        "D w-2: `db`: needs 1, 0 free",
    ];
    assert_eq!(told(&m), expected, "the first eight are named");
    answer(&mut m, &[("H", "odd"), ("F", "odd"), ("C", "odd"), ("A", "w-1")]);
    let more = [
        "H odd: runs alone, and C is not done",
        "F odd: E changes the same paths",
        "C odd: the task is worked on already",
        "A w-1: the agent works on C.impl.1",
    ];
    assert_eq!(told(&m)[8..12], more);
    // Nothing of the second answer could be carried out.
    assert_eq!(told(&m)[12..], ["nothing of the 4 it proposed can be carried out"]);
    assert_eq!(working(&m), works(&[("A", "odd"), ("C", "w-1"), ("E", "w-2")]));
}

#[test]
fn what_must_be_alone_is_started_alone() {
    let mut m = machine(|settings| settings.project.orchestration = Orchestration::Hybrid);
    let mut all = tasks(&["A", "B", "C"]);
    all[0].spec.touches = vec!["a".into()];
    all[2].spec.touches = vec!["c".into()];
    m.add(&all);
    m.turns();
    // Of B it is not known what it changes.
    answer(&mut m, &[("A", "w-1"), ("B", "w-2"), ("C", "w-3")]);
    assert_eq!(working(&m), works(&[("A", "w-1"), ("C", "w-3")]));
    assert_eq!(told(&m), ["B w-2: runs alone, and A is not done"]);
    assert_eq!(asked(&m), None, "nothing could start");
}

#[test]
fn without_an_answer_the_built_in_scheduler_decides_and_asks_ever_more_seldom() {
    let mut m = machine(|_| {});
    let faults = [ProposalFault::Late, ProposalFault::Failed, ProposalFault::Late];
    let mut pauses = Vec::new();
    for (round, fault) in faults.into_iter().enumerate() {
        let name = format!("T{round}");
        m.add(&tasks(&[&name]));
        m.turns();
        fail(&mut m, fault);
        assert_eq!(working(&m).len(), 1, "{fault:?}");
        m.run(&name, End::Done);
        m.land(&name);
        let until = m.state.proposal.until.expect("a pause");
        pauses.push(until.ms_since(m.now));
        m.add(&tasks(&[&format!("P{round}")]));
        m.turns();
        assert_eq!((asked(&m), working(&m).len()), (None, 1));
        m.run(&format!("P{round}"), End::Done);
        m.land(&format!("P{round}"));
        m.pass_ms(until.ms_since(m.now));
    }
    assert_eq!(pauses, [1_000, 2_000, 4_000]);
    assert_eq!(told(&m), ["no", "no"], "each kind once");
    for _ in 0..20 {
        m.add(&tasks(&[&format!("Q{}", m.random)]));
        m.turns();
        fail(&mut m, ProposalFault::Failed);
        let until = m.state.proposal.until.expect("a pause");
        assert!(until.ms_since(m.now) <= 60_000);
        m.pass_ms(until.ms_since(m.now));
        let busy: Vec<_> = working(&m);
        m.run(&busy[0].0, End::Done);
        m.land(&busy[0].0);
    }
    // It does well again: what fails later is told again.
    m.add(&tasks(&["Y"]));
    m.turns();
    answer(&mut m, &[("Y", "w-1")]);
    assert_eq!(m.state.proposal.until, None);
    m.add(&tasks(&["Z"]));
    m.turns();
    fail(&mut m, ProposalFault::Late);
    assert_eq!(told(&m).len(), 3);
}

#[test]
fn who_proposes_nothing_is_asked_again_at_a_change_and_passed_over_in_the_end() {
    let mut m = machine(|_| {});
    m.add(&tasks(&["A", "B"]));
    m.turns();
    answer(&mut m, &[]);
    assert_eq!((asked(&m), working(&m)), (None, Vec::new()));
    assert!(!m.state.is_idle());
    m.pass_ms(10_000);
    assert_eq!((asked(&m), working(&m)), (None, Vec::new()), "nothing has changed");
    m.add(&tasks(&["C"]));
    m.turns();
    answer(&mut m, &[]);
    m.pass_to_deadline();
    assert_eq!(working(&m).len(), 3, "30 s after its first refusal");
    assert_eq!(m.now.ms_since(m.state.attempts.values().next().unwrap().assigned_at), 0);
    let why = "it has proposed nothing for 30 s, though something could start";
    assert_eq!(told(&m), [why]);
    // The time begins anew with what can start.
    m.add(&tasks(&["D"]));
    m.turns();
    answer(&mut m, &[]);
    let begun = m.now;
    m.must(Command::HoldTasks { ids: vec![id("D")] });
    m.turns();
    assert_eq!(m.state.proposal.phase, ProposalPhase::Rest);
    m.pass_ms(29_000);
    m.must(Command::ReleaseTasks { ids: vec![id("D")] });
    m.turns();
    answer(&mut m, &[]);
    m.pass_to_deadline();
    assert_eq!(m.now.ms_since(begun), 29_000 + 30_000);
    stands(&m, &[("D", "working D.impl.1")]);
    assert_eq!(told(&m).len(), 1, "it was told before");
}

#[test]
fn what_is_out_of_date_counts_for_nothing() {
    let mut m = machine(|_| {});
    m.add(&tasks(&["A"]));
    m.turns();
    let late = |m: &mut Machine, number, expected: bool| {
        let pairs = pairs(&[("A", "w-1")]);
        let noted = matches!(m.see(Observation::Proposed { number, pairs }), Answer::Note(_));
        assert_eq!(noted, expected);
        m.turns();
        m.state.check();
    };
    late(&mut m, 7, true);
    // Between question and answer a person pauses everything: it is asked anew.
    m.must(Command::Pause);
    late(&mut m, 1, false);
    late(&mut m, 1, true);
    m.pass_ms(5_000);
    assert_eq!(working(&m), Vec::new());
    m.must(Command::Resume);
    m.turns();
    assert_eq!((asked(&m), working(&m)), (Some(2), Vec::new()));
    // Or takes the command away.
    let mut settings = (*m.state.settings).clone();
    settings.hash = "1".repeat(16);
    settings.scheduler.command.clear();
    m.must(Command::AdoptSettings { settings: Box::new(settings) });
    m.turns();
    assert_eq!(working(&m).len(), 1);
    late(&mut m, 2, false);
    assert_eq!(m.state.proposal.phase, ProposalPhase::Rest);
    assert_eq!(told(&m), Vec::<String>::new());
}

#[test]
fn in_sequential_mode_it_is_not_asked() {
    let mut m = machine(|settings| settings.project.orchestration = Orchestration::Sequential);
    m.add(&tasks(&["A", "B"]));
    m.turns();
    assert_eq!((asked(&m), working(&m).len()), (None, 1));
}

#[test]
fn an_answer_with_more_than_a_turn_can_take_is_taken_in_several() {
    let mut m = machine(|_| {});
    m.nonces = 1;
    m.add(&tasks(&["A", "B", "C"]));
    m.turns();
    answer(&mut m, &[("A", "w-1"), ("B", "w-2"), ("C", "w-3")]);
    assert_eq!(working(&m).len(), 3);
    assert_eq!((m.state.proposal.number, told(&m).len()), (1, 0));
}

#[test]
fn the_launch_rate_holds_for_what_is_proposed() {
    let mut m = machine(|settings| settings.monitor.launch_rate = Some(2));
    m.add(&tasks(&["A", "B", "C"]));
    m.turns();
    answer(&mut m, &[("A", "w-1"), ("B", "w-2"), ("C", "w-3")]);
    assert_eq!((working(&m).len(), asked(&m)), (2, None));
    m.pass_to_deadline();
    assert_eq!(asked(&m), Some(2));
    // Awaiting the answer nothing else that is timed is hidden.
    m.turns();
    answer(&mut m, &[("C", "w-3")]);
    assert_eq!((working(&m).len(), told(&m).len()), (3, 0));
}

#[test]
fn a_new_monitor_asks_by_itself() {
    let mut m = machine(|_| {});
    m.add(&tasks(&["A"]));
    m.turns();
    fail(&mut m, ProposalFault::Failed);
    m.run("A", End::Done);
    m.land("A");
    let started = || Observation::MonitorStarted { pid: 2, allows_red_base: false };
    m.see(started());
    m.add(&tasks(&["B"]));
    m.turns();
    assert_eq!(asked(&m), Some(2), "the pause is over");
    // The one that asked is gone, and nothing may start.
    m.must(Command::Pause);
    m.see(started());
    m.turns();
    assert_eq!(asked(&m), None);
    m.must(Command::Resume);
    m.turns();
    answer(&mut m, &[("B", "w-1")]);
    assert_eq!(working(&m), works(&[("B", "w-1")]));
    assert_eq!(m.state.proposal.number, 3);
}

#[test]
fn one_of_those_whose_provider_is_tried_again_is_enough() {
    let mut m = machine(|settings| settings.agents[0].provider = "one".into());
    m.add(&tasks(&["A", "B"]));
    m.turns();
    answer(&mut m, &[("A", "w-1")]);
    m.must(Command::HoldTasks { ids: vec![id("B")] });
    let attempt = m.start("A");
    let fault = Fault { kind: FaultKind::RateLimited, text: "429".into(), until: None };
    let exit = Exit { fault: Some(fault), ..exit(End::NoMarker, m.now) };
    m.see(Observation::Exited { attempt: attempt.clone(), exit: Box::new(exit) });
    m.save(&attempt, false, &[]);
    m.pass_ms(5_000);
    m.must(Command::ReleaseTasks { ids: vec![id("B")] });
    while asked(&m).is_some() && working(&m).is_empty() {
        answer(&mut m, &[("A", "w-1"), ("B", "w-2")]);
    }
    stands(&m, &[("A", "working A.impl.2"), ("B", "ready impl")]);
}
