//! A machine that is fed by hand, for tests of a state that was worked on.

use crate::machine::attempt::{AttemptPhase, Exit, Marker};
use crate::machine::change::{LaneChange, ProjectChange, TaskChange};
use crate::machine::event::{Event, EventBody, NewTask, Observation, StopKind};
use crate::machine::id::{AttemptId, Oid, TaskId};
use crate::machine::mode::Orchestration;
use crate::machine::purse::{Bound, Level};
use crate::machine::settings::Slice;
use crate::machine::state::Drain;
use crate::machine::task::{Priority, Spec, TaskKind};
use crate::machine::{Answer, Change, Command, State, apply, step};

use super::sample::{
    at, breaker_set, budget_told, clean_exit, follow_set, full_task, held, oid, outside,
    plain_spec, proposals, provider_set, providers_set, scaled, settings, strings, tries,
};

/// A machine that is fed by hand.
pub(super) struct Drive {
    pub(super) state: State,
    now_ms: u64,
    /// Every change it decided, in order.
    pub(super) decided: Vec<Change>,
}

impl Drive {
    pub(super) fn new() -> Self {
        let mut settings = settings(Slice::Percent(50));
        // Nobody is there to approve what lands.
        settings.landing.is_manual = false;
        let state = State::new(settings, at(0));
        Self { state, now_ms: 0, decided: Vec::new() }
    }

    /// Feeds one event a second after the last; returns how many changes that made.
    fn feed(&mut self, body: EventBody) -> usize {
        self.now_ms += 1_000;
        let event = Event { at: at(self.now_ms), random: u128::from(self.now_ms), body };
        let step = step(&self.state, &event);
        assert_eq!(step.answer, Answer::Accept, "{event:?}");
        for change in &step.changes {
            apply(&mut self.state, change);
        }
        let count = step.changes.len();
        self.decided.extend(step.changes);
        count
    }

    fn see(&mut self, seen: Observation) {
        self.feed(EventBody::Observation(seen));
    }

    pub(super) fn ask(&mut self, command: Command) {
        self.feed(EventBody::Command(command));
    }

    /// Feeds turns until nothing more is decided.
    fn settle(&mut self) {
        for _ in 0..100 {
            let nonces = (1..=8).map(|n| u128::from(self.now_ms) << 64 | n).collect();
            if self.feed(EventBody::Turn { nonces }) == 0 {
                return;
            }
        }
        panic!("the machine does not settle");
    }

    /// Lets an attempt be prepared where it must be, start and exit.
    fn run(&mut self, id: &str, exit: Exit) {
        let attempt = AttemptId::new(id);
        let phase = self.state.attempts.get(&attempt).map(|found| found.phase);
        if phase == Some(AttemptPhase::Preparing) {
            let base = Some(oid('a'));
            self.see(Observation::Prepared { attempt: attempt.clone(), base, tip: None });
        }
        self.see(Observation::Started { attempt: attempt.clone(), at: at(self.now_ms) });
        self.see(Observation::Exited { attempt, exit: Box::new(exit) });
    }

    fn save(&mut self, id: &str, commit: Option<Oid>) {
        let (attempt, has_changed) = (AttemptId::new(id), commit.is_some());
        self.see(Observation::Saved {
            attempt,
            commit,
            has_changed,
            markers: Vec::new(),
            notes: Vec::new(),
            lacks: None,
        });
        self.settle();
    }

    pub(super) fn add(&mut self, spec: Spec, is_held: bool) {
        let task =
            NewTask { id: None, spec, is_front: false, is_held, may_lack_dependencies: true };
        self.ask(Command::AddTasks { tasks: vec![task] });
    }
}

fn finished() -> Exit {
    let notes = "see src/a.rs".to_owned();
    Exit { marker: Some(Marker::Completed), cpu_ms: 777, notes, ..clean_exit() }
}

/// A project in the middle of the night: one task lands, others wait, work, failed or are over.
pub(super) fn worked_on() -> Drive {
    let mut drive = Drive::new();
    drive.see(Observation::MonitorStarted { pid: 4242, allows_red_base: false });
    drive.see(Observation::BaseSeen { tip: oid('a'), landed: None });
    drive.see(Observation::BaseTaken { base: oid('a'), landed: oid('a'), has_all: true });
    let after = |ids: &[&str]| Spec {
        depends_on: ids.iter().map(TaskId::new).collect(),
        needs: strings(&["rust"]),
        ..plain_spec("after others")
    };
    drive.add(plain_spec("first"), false);
    drive.add(plain_spec("second"), false);
    drive.add(after(&["TASK-001", "TASK-002"]), false);
    drive.add(after(&["TASK-999"]), false);
    drive.add(plain_spec("held"), true);
    drive.add(Spec { kind: TaskKind::Epic, ..plain_spec("heading") }, false);
    let parent = Some(TaskId::new("TASK-006"));
    drive.add(Spec { parent, priority: Priority::High, ..plain_spec("child") }, false);
    drive.settle();
    drive.run("base.check.1", clean_exit());
    drive.settle();

    drive.run("TASK-007.impl.1", finished());
    drive.save("TASK-007.impl.1", Some(oid('7')));
    drive.run("TASK-007.impl-check.1", clean_exit());
    drive.settle();
    drive.see(Observation::Advanced {
        attempt: AttemptId::new("TASK-007.impl.1"),
        changed: Some(vec!["src/a.rs".into()]),
    });
    drive.settle();
    drive.run("TASK-007.super.1", finished());
    drive.save("TASK-007.super.1", None);

    let failed = Exit { marker: Some(Marker::Failed("no idea".into())), ..clean_exit() };
    drive.run("TASK-001.impl.1", failed);
    drive.save("TASK-001.impl.1", Some(oid('6')));

    drive.see(Observation::Merged {
        task: TaskId::new("TASK-007"),
        number: 1,
        commit: oid('8'),
        onto: oid('a'),
        protected: Vec::new(),
    });
    drive.settle();
    drive
}

/// [`worked_on`], and beside it whatever else a state may hold.
pub(super) fn full() -> State {
    let mut state = worked_on().state;
    let drain = Drain { to: Orchestration::Sequential, until: at(99_000) };
    let task = Box::new(full_task());
    let proposal = proposals().last().expect("there are some");
    let changes = [
        Change::Project(ProjectChange::StopRequested { kind: StopKind::Drain }),
        Change::Project(ProjectChange::PauseSet { is_paused: true }),
        Change::Project(breaker_set()),
        Change::Project(providers_set()),
        Change::Project(provider_set()),
        Change::Project(scaled()),
        Change::Project(budget_told(Bound::Cost, Level::Near, None)),
        Change::Project(ProjectChange::ShortageSet { what: Some("the disk is full".into()) }),
        Change::Project(ProjectChange::OverloadSet { what: Some("the load is 9.1".into()) }),
        Change::Project(ProjectChange::FoundOutside { found: outside() }),
        Change::Project(ProjectChange::BranchesHeld { held: held() }),
        Change::Project(ProjectChange::ProposalSet { proposal: Box::new(proposal) }),
        Change::Project(ProjectChange::DrainSet { drain: Some(drain) }),
        Change::Project(ProjectChange::CurrentTaskSet { id: Some(task.id.clone()) }),
        Change::Project(ProjectChange::CollectingSet { id: Some(task.id.clone()) }),
        Change::Task(task.id.clone(), TaskChange::Added { task }),
        // Another tip: one that is known to be green is never red.
        Change::Lane(LaneChange::BaseSeen { tip: oid('9'), landed: Some(oid('a')), at: at(12) }),
        Change::Lane(LaneChange::BaseConflicted { paths: "src/a.rs".into() }),
        Change::Lane(LaneChange::BaseFoundRed { commit: oid('9'), tail: "no\n".into() }),
        Change::Lane(LaneChange::TakeStalled { tries: tries() }),
        Change::Lane(LaneChange::BaseCheckStalled { tries: tries() }),
        Change::Lane(LaneChange::BaseCheckBegun { id: AttemptId::new("base.check.2") }),
        Change::Lane(follow_set()),
    ];
    for change in &changes {
        apply(&mut state, change);
    }
    state
}
