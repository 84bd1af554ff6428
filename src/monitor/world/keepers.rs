//! Attempts and their keepers: ordered, found again after a monitor's death, known as ended or lost.

use std::time::Duration;

use super::super::brief;
use super::super::job::{self, NoOrder, Places, places, reference};
use super::super::preset;
use super::super::report::{OutputRules, Watched, ended, lost_because};
use super::super::sources::Input;
use super::super::standstill::Pane;
use super::super::work::Fault;
use super::RealWorld;
use crate::agent::Launcher;
use crate::agent::connect::KEEPER_LOG;
use crate::agent::probe::Probe;
use crate::agent::tree;
use crate::config;
use crate::machine::attempt::{Attempt, AttemptPhase};
use crate::machine::mode::Isolation;
use crate::machine::settings::AgentCommand;
use crate::machine::time::Time;
use crate::machine::{EventBody, Observation, State};

/// How long the strays of a dead keeper get to leave.
const STRAYS_GRACE: Duration = Duration::from_secs(2);
/// How often an attempt is ordered whose keepers die before they begin; then it has failed to start.
const STARTS_MAX: u32 = 3;

impl RealWorld {
    /// Orders an attempt that has never been ordered.
    pub fn start(&self, state: &State, attempt: &Attempt) {
        let id = attempt.id.clone();
        let order = match job::order(&self.around(), state, attempt) {
            Ok(order) => order,
            Err(NoOrder::AgentGone) => {
                let why = format!("agent `{}` is gone", attempt.agent);
                return self.see(Observation::AttemptFaulted { attempt: id, why });
            }
            Err(NoOrder::NoCommand) => {
                let agent = &attempt.agent;
                let why = format!(
                    "agent `{agent}` runs the task's own command, and the task has none: \
                     give it one with `pipeline task edit --command`"
                );
                return self.see(Observation::CannotStart { attempt: id, why });
            }
            Err(NoOrder::NoPreset(why)) => {
                self.look_at_agents(state);
                return self.see(Observation::AttemptFaulted { attempt: id, why });
            }
        };
        if let Err(seen) = self.make_files(state, attempt) {
            return self.see(seen);
        }
        self.attend(state, attempt);
        let job::Order { job, preset, session } = order;
        if let Some(preset) = preset {
            self.see(Observation::Ordered { attempt: id, preset, session });
        }
        self.keepers.start(attempt.agent.as_str(), job);
    }

    /// Makes the attempt's folder; without git also task file and prompt, which preparing the
    /// worktree does otherwise. Where that fails, returns what is to be told of the attempt.
    fn make_files(&self, state: &State, attempt: &Attempt) -> Result<(), Observation> {
        let id = || attempt.id.clone();
        let faulted = |error: std::io::Error| Observation::AttemptFaulted {
            attempt: id(),
            why: format!("cannot write the attempt's files: {error}"),
        };
        let places = places(&self.layout, state.rules_of(attempt), attempt);
        match std::fs::create_dir(&places.attempt_dir) {
            Err(error) if error.kind() != std::io::ErrorKind::AlreadyExists => {
                return Err(faulted(error));
            }
            Ok(()) | Err(_) => {}
        }
        let is_bare = state.settings.project.isolation == Isolation::None;
        let Some(brief) = brief::of(state, attempt).filter(|_| is_bare) else { return Ok(()) };
        brief.write_task_file(&places.task_file).map_err(faulted)?;
        if !job::has_prompt(state, attempt) {
            return Ok(());
        }
        let role = brief.role(&self.layout.root).map_err(|unusable| {
            let (attempt, why) = (id(), unusable.to_string());
            if unusable.is_passing {
                Observation::AttemptFaulted { attempt, why }
            } else {
                Observation::CannotStart { attempt, why }
            }
        })?;
        brief.write_prompt(&places.prompt_file, &role).map_err(faulted)?;
        if let Some(prompt) = role.hash {
            self.see(Observation::Briefed { attempt: id(), prompt });
        }
        Ok(())
    }

    /// Remembers what is to be read when the attempt ends.
    fn attend(&self, state: &State, attempt: &Attempt) {
        self.watch.add(attempt.id.as_str(), self.watched(state, attempt));
    }

    fn watched(&self, state: &State, attempt: &Attempt) -> Watched {
        let places = places(&self.layout, state.rules_of(attempt), attempt);
        Watched {
            nonce: attempt.nonce.clone(),
            output: self.output_rules(state, attempt, &places).map(Box::new),
            slot: self.repo.is_some().then_some(places.dir),
            task_file: attempt.is_work().then_some(places.task_file),
            needs_marker: attempt.is_work() && job::needs_marker(state, attempt),
            log: places.log,
        }
    }

    /// Returns how the attempt's output is read; `None` where it is of no preset, or that is gone.
    fn output_rules(
        &self,
        state: &State,
        attempt: &Attempt,
        places: &Places,
    ) -> Option<OutputRules> {
        let group = state.rules_of(attempt).group_of(&attempt.agent)?;
        let AgentCommand::Preset { name, .. } = &group.command else { return None };
        let preset = config::preset::load(&self.layout.root, name).ok()?.preset;
        let document = preset.usage_file.as_ref().map(|file| places.attempt_dir.join(file));
        let transcripts =
            preset::transcripts(&self.layout.root, group, &preset, &places.prompt_file);
        attempt.is_work().then_some(OutputRules { preset, document, transcripts })
    }

    /// Ends agents in terminals that stand still since their provider refused them.
    pub fn look_at_panes(&mut self, state: &State, now: Time) {
        if !self.standstill.is_due(now) {
            return;
        }
        let pane = |attempt: &Attempt| {
            let started = attempt.started_at.filter(|_| attempt.phase == AttemptPhase::Running)?;
            let places = places(&self.layout, state.rules_of(attempt), attempt);
            let rules = self.output_rules(state, attempt, &places)?;
            rules.transcripts.as_ref()?;
            let (agent, attempt) = (attempt.agent.to_string(), attempt.id.to_string());
            Some(Pane { agent, attempt, started, rules })
        };
        let panes: Vec<Pane> = state.attempts.values().filter_map(pane).collect();
        if !panes.is_empty() {
            self.standstill.look(panes, &self.keepers, now);
        }
    }

    /// Looks for an attempt that a monitor before this one ordered, or was about to.
    pub fn find_again(&mut self, state: &State, attempt: &Attempt) {
        let agent = attempt.agent.as_str();
        let reference = reference(&self.layout, attempt);
        self.attend(state, attempt);
        match self.keepers.probe(agent, &reference) {
            Ok(Probe::KeeperAlive) => self.keepers.adopt(agent, &reference),
            Ok(Probe::Exited(record)) => {
                let observation = ended(&record, Some(&self.watched(state, attempt)));
                let _ = self.input.send(Input::Event(EventBody::Observation(observation)));
            }
            Ok(
                found @ (Probe::Strays(_) | Probe::Elsewhere | Probe::Started(_) | Probe::Nothing),
            ) => {
                self.keeper_lost(state, attempt, Some(found));
            }
            // That says nothing of the attempt, which may be running.
            Err(error) if error.raw_os_error().is_some() => {
                self.unprobed.insert(attempt.id.clone());
            }
            Err(_) => self.keeper_lost(state, attempt, None),
        }
    }

    /// Looks whether a running attempt, or its keeper, has ended without a report reaching us.
    pub fn look_for_end(&self, state: &State, attempt: &Attempt) {
        let reference = reference(&self.layout, attempt);
        match self.keepers.probe(attempt.agent.as_str(), &reference) {
            Ok(Probe::Exited(record)) => {
                let observation = ended(&record, Some(&self.watched(state, attempt)));
                let _ = self.input.send(Input::Event(EventBody::Observation(observation)));
            }
            Ok(
                found @ (Probe::Strays(_) | Probe::Elsewhere | Probe::Started(_) | Probe::Nothing),
            ) => {
                self.keeper_lost(state, attempt, Some(found));
            }
            // What cannot be read now is looked at again.
            Ok(Probe::KeeperAlive) | Err(_) => {}
        }
    }

    /// A keeper died: ends what it left, and starts the attempt when it never had.
    pub fn keeper_lost(&self, state: &State, attempt: &Attempt, found: Option<Probe>) {
        let id = attempt.id.clone();
        match (lost_because(found.as_ref()), found) {
            (None, _) if attempt.phase == AttemptPhase::Starting => {
                let count = self.watch.count_false_start(id.as_str());
                if count < STARTS_MAX && !attempt.is_stopping {
                    return self.start(state, attempt);
                }
                let log = self.layout.keepers().join(attempt.agent.as_str()).join(KEEPER_LOG);
                let why = format!(
                    "{count} keepers in a row died before they began; see `{}`",
                    log.display()
                );
                self.see(Observation::AttemptFaulted { attempt: id, why });
            }
            (None, _) => {
                let why = "its keeper died before it began".to_owned();
                self.spawn_lost(&attempt.id, move || Ok(Observation::Lost { attempt: id, why }));
            }
            (Some(why), Some(Probe::Strays(started))) => {
                self.spawn_lost(&attempt.id, move || {
                    let ended = tree::end_orphans(&started, STRAYS_GRACE)
                        .map_err(|error| Fault(error.to_string()))?;
                    let why = match ended.left {
                        0 => why,
                        left => format!("{why}; {left} processes would not end"),
                    };
                    Ok(Observation::Lost { attempt: id, why })
                });
            }
            (Some(why), _) => {
                self.spawn_lost(&attempt.id, move || Ok(Observation::Lost { attempt: id, why }));
            }
        }
    }
}
