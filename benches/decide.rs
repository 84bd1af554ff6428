//! What a decision costs beside a backlog of any size: an attempt ends, its agent gets the next task.
//!
//! `cargo bench --bench decide [-- TASKS…]`; without sizes 1,000, 10,000 and 100,000 tasks, each with
//! 1,000 agents; then 300, 1,000 and 3,000 tasks that share a path, have a wildcard each, and are
//! worked on one at a time while three of four agents find nothing. A decision is the event of the end
//! and all turns until nothing more is decided, stepped and applied; journal and world are not in it.

use std::collections::BTreeMap;
use std::time::Duration;

use pipeline::config;
use pipeline::machine::attempt::{EndedBy, Exit};
use pipeline::machine::event::NewTask;
use pipeline::machine::id::{AttemptId, TaskId};
use pipeline::machine::task::{Priority, Spec};
use pipeline::machine::time::Time;
use pipeline::machine::{Command, Event, EventBody, Observation, State, apply, step};
use pipeline::sys::clock;

const AGENTS: usize = 1000;
const DECISIONS: usize = 2000;
/// Of those tasks that share a path.
const SHARING_AGENTS: usize = 4;
const SHARING_DECISIONS: usize = 200;

struct Machine {
    state: State,
    now: Time,
    random: u128,
}

impl Machine {
    fn send(&mut self, body: EventBody) -> usize {
        self.random += 1;
        let step = step(&self.state, &Event { at: self.now, random: self.random, body });
        for change in &step.changes {
            apply(&mut self.state, change);
        }
        step.changes.len()
    }

    fn turns(&mut self) {
        loop {
            let nonces = (0..1024).map(|n| self.random + n).collect();
            self.random += 1024;
            if self.send(EventBody::Turn { nonces }) == 0 {
                return;
            }
        }
    }

    fn end(&mut self, attempt: &AttemptId) {
        let exit = Exit {
            started_at: self.now,
            ended_at: self.now,
            code: Some(0),
            signal: None,
            ended_by: EndedBy::Exit,
            command_index: 0,
            leaked: 0,
            cpu_ms: 0,
            rss_kib_max: 0,
            usage: pipeline::machine::usage::Usage::default(),
            fault: None,
            marker: None,
            notes: String::new(),
            tail: String::new(),
        };
        let (attempt, exit) = (attempt.clone(), Box::new(exit));
        self.send(EventBody::Observation(Observation::Exited { attempt, exit }));
        self.turns();
    }
}

/// Tasks with up to three earlier ones to depend on, priorities, and paths of their own.
fn backlog(count: usize) -> Vec<NewTask> {
    let mut bits = 1_u64;
    let mut below = |end: usize| {
        bits = bits.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        ((bits >> 33) as usize) % end.max(1)
    };
    let task = |number: usize| {
        let deps = (0..below(4)).filter(|_| number > 2 * AGENTS).map(|_| below(number));
        let deps: std::collections::BTreeSet<usize> = deps.collect();
        let priorities = [Priority::Low, Priority::Medium, Priority::High, Priority::Critical];
        let spec = Spec {
            title: format!("task {number}"),
            priority: priorities[below(4)],
            depends_on: deps.iter().map(|dep| TaskId::new(format!("T{dep:07}"))).collect(),
            touches: vec![format!("src/part{}/file{number}.rs", below(50))],
            resources: BTreeMap::from([("cpu".into(), "0.01".into())]),
            ..Spec::default()
        };
        let id = Some(TaskId::new(format!("T{number:07}")));
        NewTask { id, spec, is_front: false, is_held: false, may_lack_dependencies: false }
    };
    (0..count).map(task).collect()
}

/// Tasks with a folder of their own each, and one path that all of them change.
fn sharing(count: usize) -> Vec<NewTask> {
    let task = |number: usize| {
        let spec = Spec {
            title: format!("task {number}"),
            touches: vec![format!("src/part{number}/**"), "Cargo.lock".into()],
            ..Spec::default()
        };
        let id = Some(TaskId::new(format!("T{number:07}")));
        NewTask { id, spec, is_front: false, is_held: false, may_lack_dependencies: false }
    };
    (0..count).map(task).collect()
}

fn machine(tasks: Vec<NewTask>, agents: usize) -> Machine {
    let text = format!(
        "[project]\nisolation = \"none\"\n[scheduler]\nresources = {{ cpu = 1000 }}\n\
         [[stage]]\nname = \"build\"\n[[stage]]\nname = \"review\"\n\
         [[agent]]\nname = \"a\"\nstages = [\"build\", \"review\"]\ncount = {agents}\ncommand = \"x\"\n"
    );
    let settings = config::load(&text).expect("settings of a benchmark").settings;
    let now = Time::from_ms(1_700_000_000_000);
    let mut machine = Machine { state: State::new(settings, now), now, random: 1 };
    let started = Observation::MonitorStarted { pid: 1, allows_red_base: false };
    machine.send(EventBody::Observation(started));
    machine.send(EventBody::Command(Command::AddTasks { tasks }));
    machine.turns();
    machine
}

/// Ends attempts, the first by id each time, and prints what the decisions took.
fn measure(tasks: usize, agents: usize, mut machine: Machine, decisions: usize) {
    let mut took: Vec<Duration> = Vec::new();
    let at_work = machine.state.attempts.len();
    let ready = machine.state.index.counts.ready;
    while took.len() < decisions {
        let Some(attempt) = machine.state.attempts.keys().next().cloned() else { break };
        machine.now = machine.now.plus_ms(20);
        let begun = clock::monotonic();
        machine.end(&attempt);
        took.push(begun.elapsed());
    }
    took.sort_unstable();
    let us = |at: Duration| format!("{:.0} µs", at.as_secs_f64() * 1e6);
    let mean = took.iter().sum::<Duration>() / took.len().max(1) as u32;
    let at = |share: f64| us(took[((took.len() - 1) as f64 * share) as usize]);
    let (mean, p50, p99, most) = (us(mean), at(0.5), at(0.99), at(1.0));
    println!("| {tasks} | {agents} | {ready} | {at_work} | {mean} | {p50} | {p99} | {most} |");
}

fn main() {
    let given = std::env::args().skip(1).filter_map(|text| text.parse().ok());
    let given: Vec<usize> = given.collect();
    let or = |sizes: [usize; 3]| if given.is_empty() { sizes.to_vec() } else { given.clone() };
    println!("| tasks | agents | ready | at work | mean | p50 | p99 | most |");
    println!("|---|---|---|---|---|---|---|---|");
    for tasks in or([1_000, 10_000, 100_000]) {
        measure(tasks, AGENTS, machine(backlog(tasks), AGENTS), DECISIONS);
    }
    println!("\nwith a wildcard each and one path in common:\n");
    for tasks in or([300, 1_000, 3_000]) {
        let machine = machine(sharing(tasks), SHARING_AGENTS);
        measure(tasks, SHARING_AGENTS, machine, SHARING_DECISIONS);
    }
}
