//! The seam between the commands and the project: read the state, send a command, wait.

use std::time::Duration;

use crate::machine::change::TaskChange;
use crate::machine::id::TaskId;
use crate::machine::{Change, Command, State};

use super::console::Console;
use super::error::Error;

/// A project as a command sees it.
pub trait Gate {
    /// Returns the newest state and its sequence number.
    ///
    /// # Errors
    /// When it cannot be read, or is damaged.
    fn state(&mut self) -> Result<(&State, u64), Error>;

    /// Sends one command; when this returns, what it changed is durable.
    ///
    /// # Errors
    /// A refusal, with its kind; and when the command could not be stored.
    fn send(&mut self, command: Command) -> Result<Sent, Error>;

    /// Waits until the state has changed, at most so long; may return early.
    ///
    /// # Errors
    /// When the state can no longer be watched.
    fn wait_change(&mut self, wait_max: Duration) -> Result<(), Error>;
}

/// What became of a command.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Sent {
    /// Worth a line.
    pub note: Option<String>,
    /// As journalled, in order; may be empty.
    pub changes: Vec<Change>,
}

impl Sent {
    /// Returns the tasks that were added, in order.
    pub fn added(&self) -> impl Iterator<Item = &TaskId> {
        self.changes.iter().filter_map(|change| match change {
            Change::Task(id, TaskChange::Added { .. }) => Some(id),
            Change::Project(_) | Change::Task(..) | Change::Attempt(..) | Change::Lane(_) => None,
        })
    }

    /// Returns the tasks that were changed in any way, each once, in order.
    #[must_use]
    pub fn touched(&self) -> Vec<&TaskId> {
        let mut seen = std::collections::BTreeSet::new();
        let ids = self.changes.iter().filter_map(|change| match change {
            Change::Task(id, _) => Some(id),
            Change::Project(_) | Change::Attempt(..) | Change::Lane(_) => None,
        });
        ids.filter(|id| seen.insert(*id)).collect()
    }
}

/// Sends a command and says its note.
///
/// # Errors
/// As [`Gate::send`].
pub fn send(
    gate: &mut dyn Gate,
    console: &mut Console<'_>,
    command: Command,
) -> Result<Sent, Error> {
    let sent = gate.send(command)?;
    if let Some(note) = &sent.note {
        console.note(note);
    }
    Ok(sent)
}

#[cfg(test)]
pub(super) mod memory {
    //! A project in memory, for the tests of commands.

    use std::collections::{BTreeMap, VecDeque};
    use std::time::Duration;

    use crate::machine::mode::{Isolation, Orchestration, Rollout};
    use crate::machine::settings::{
        AgentCommand, AgentGroup, Completion, Landing, LauncherKind, Limits, Monitor, OnExit,
        Project, Retry, RolloutRules, Scheduler, Settings, Stage, Worktree,
    };
    use crate::machine::time::Time;
    use crate::machine::{Answer, Command, Event, EventBody, State, apply, step};

    use super::{Error, Gate, Sent};

    /// What happens while a command waits.
    pub(in crate::cli) type Happening = Box<dyn FnOnce(&mut Memory)>;

    pub(in crate::cli) struct Memory {
        pub(in crate::cli) state: State,
        pub(in crate::cli) happenings: VecDeque<Happening>,
        seq: u64,
    }

    impl Memory {
        pub(in crate::cli) fn new() -> Self {
            let state = State::new(settings(), Time::from_ms(1));
            Self { state, happenings: VecDeque::new(), seq: 0 }
        }

        /// Adds open tasks without body.
        pub(in crate::cli) fn with(ids: &[&str]) -> Self {
            let mut memory = Self::new();
            let new = |id: &&str| crate::machine::event::NewTask {
                id: Some(crate::machine::id::TaskId::new(id)),
                spec: crate::machine::task::Spec {
                    title: format!("Title of {id}"),
                    ..Default::default()
                },
                is_front: false,
                is_held: false,
                may_lack_dependencies: false,
            };
            let tasks = ids.iter().map(new).collect();
            memory.send(Command::AddTasks { tasks }).expect("the tasks are good");
            memory
        }

        /// Adds an open epic without anything below it.
        pub(in crate::cli) fn add_epic(&mut self, id: &str) {
            let spec = crate::machine::task::Spec {
                title: format!("Title of {id}"),
                kind: crate::machine::task::TaskKind::Epic,
                ..Default::default()
            };
            let epic = crate::machine::event::NewTask {
                id: Some(crate::machine::id::TaskId::new(id)),
                spec,
                is_front: false,
                is_held: false,
                may_lack_dependencies: false,
            };
            self.send(Command::AddTasks { tasks: vec![epic] }).expect("the epic is good");
        }

        pub(in crate::cli) fn happen(&mut self, body: EventBody) -> Result<Sent, Error> {
            self.seq += 1;
            let event = Event { at: Time::from_ms(self.seq + 1), random: 7, body };
            let done = step(&self.state, &event);
            for change in &done.changes {
                apply(&mut self.state, change);
            }
            let note = match done.answer {
                Answer::Accept => None,
                Answer::Refuse(refusal) => return Err(refusal.into()),
                Answer::Note(text) => Some(text),
            };
            Ok(Sent { note, changes: done.changes })
        }

        /// Starts whatever may start.
        pub(in crate::cli) fn turn(&mut self) {
            let nonces = vec![1, 2, 3, 4];
            self.happen(EventBody::Turn { nonces }).expect("a turn is never refused");
        }
    }

    impl Gate for Memory {
        fn state(&mut self) -> Result<(&State, u64), Error> {
            Ok((&self.state, self.seq))
        }

        fn send(&mut self, command: Command) -> Result<Sent, Error> {
            self.happen(EventBody::Command(command))
        }

        fn wait_change(&mut self, _: Duration) -> Result<(), Error> {
            let next = self.happenings.pop_front();
            let next = next.ok_or_else(|| Error::failed("nothing more happens"))?;
            next(self);
            Ok(())
        }
    }

    fn stage(name: &str, short: &str, must_change: bool) -> Stage {
        Stage {
            name: name.into(),
            short: short.into(),
            prompt: None,
            must_change,
            checks: Vec::new(),
            timeout_ms: None,
            timeout_min_ms: 1,
            timeout_max_ms: 2,
            silence_ms: 1,
            labels: Vec::new(),
            returns_to: None,
            resources: Default::default(),
            estimate_ms: 1,
        }
    }

    fn agent(name: &str, stages: &[&str], capabilities: &[&str]) -> AgentGroup {
        let owned = |list: &[&str]| list.iter().map(|text| (*text).to_owned()).collect();
        AgentGroup {
            name: name.into(),
            stages: owned(stages),
            count: 1,
            scale_min: None,
            command: AgentCommand::Task,
            launcher: LauncherKind::Process,
            completion: Completion::Exit,
            env: BTreeMap::new(),
            env_allow: Vec::new(),
            provider: String::new(),
            capabilities: owned(capabilities),
            tier: 1,
            complexity: Vec::new(),
        }
    }

    fn settings() -> Settings {
        Settings {
            hash: "0123456789abcdef".into(),
            project: Project {
                base: "main".into(),
                orchestration: Orchestration::Parallel,
                rollout: Rollout::Production,
                isolation: Isolation::None,
                current_task_file: "current".into(),
            },
            monitor: Monitor {
                poll_busy_ms: 1,
                poll_normal_ms: 1,
                poll_idle_ms: 1,
                on_exit: Some(OnExit::Leave),
                launch_rate: Some(0),
            },
            worktree: Worktree {
                dir: "w".into(),
                setup: Vec::new(),
                copy: Vec::new(),
                keep: Vec::new(),
                keep_finished_ms: 1,
            },
            limits: Limits {
                attempts_per_stage: 3,
                infrastructure_retries: 5,
                attempts_per_task: 12,
                send_backs: 2,
                attempts_per_run: 0,
                cost_usd_micros: 0,
                cost_usd_per_task_micros: 0,
                log_bytes: 1,
            },
            retry: Retry { first_ms: 1, factor: 1.0, max_ms: 1, jitter: 0.0 },
            stages: vec![stage("test", "test", true), stage("implementation", "impl", true)],
            agents: vec![
                agent("tester", &["test"], &["gpu"]),
                agent("coder", &["implementation"], &["gpu"]),
            ],
            landing: Landing {
                branch: "pipeline/landed".into(),
                checks: Vec::new(),
                checks_timeout_ms: 1,
                protect: Vec::new(),
                is_manual: false,
            },
            scheduler: Scheduler::default(),
            rollout: RolloutRules::default(),
            notify: Vec::new(),
        }
    }
}
