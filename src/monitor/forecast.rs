//! Tries branches against others on a thread of its own, one after another: the loop and the agents
//! wait for none of it, and what is lost is tried again when the branch next moves.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread;

use super::work::{Fault, oid};
use crate::git::{self, Repo};
use crate::machine::Observation;
use crate::machine::forecast::Trial;
use crate::machine::task::Clash;

/// Most trials that wait; beyond, the oldest are given up.
const WAITING_MAX: usize = 64;

/// The trials of one monitor.
#[derive(Debug, Clone, Default)]
pub struct Forecasts(Arc<Mutex<Waiting>>);

#[derive(Debug, Default)]
struct Waiting {
    trials: VecDeque<Trial>,
    /// A thread takes from `trials` until there is none.
    is_served: bool,
}

impl Forecasts {
    /// Has a branch tried; a trial of the same task that still waits is out of date. Each answer goes
    /// to `told`; a trial that fails has none. `share` is held until all is tried.
    pub fn ask(
        &self,
        trial: Trial,
        repo: Arc<Repo>,
        share: Arc<()>,
        told: impl Fn(Observation) + Send + 'static,
    ) {
        let mut waiting = self.waiting();
        waiting.trials.retain(|other| other.task != trial.task);
        waiting.trials.push_back(trial);
        let surplus = waiting.trials.len().saturating_sub(WAITING_MAX);
        waiting.trials.drain(..surplus);
        if waiting.is_served {
            return;
        }
        let trials = self.clone();
        let serve = move || {
            while let Some(trial) = trials.next() {
                // A forecast is no promise: without git's answer there is none.
                if let Ok(seen) = run(&trial, &repo) {
                    told(seen);
                }
            }
            drop(share);
        };
        let spawned = thread::Builder::new().name("forecast".into()).spawn(serve);
        waiting.is_served = spawned.is_ok();
    }

    fn next(&self) -> Option<Trial> {
        let mut waiting = self.waiting();
        let next = waiting.trials.pop_front();
        waiting.is_served = next.is_some();
        next
    }

    fn waiting(&self) -> MutexGuard<'_, Waiting> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Tries a branch against the landing branch and the others, and names whose work it conflicts with.
fn run(trial: &Trial, repo: &Repo) -> Result<Observation, Fault> {
    crate::sys::fail::point("forecast.run").map_err(|error| Fault(error.to_string()))?;
    let tip = oid(trial.tip.as_str())?;
    let onto = trial.onto.as_ref().map(|onto| oid(onto.as_str())).transpose()?;
    let others = trial.others.iter().map(|(_, other)| oid(other.as_str()));
    let others = others.collect::<Result<Vec<git::Oid>, Fault>>()?;
    let pairs: Vec<(git::Oid, git::Oid)> =
        onto.iter().chain(&others).map(|other| (other.clone(), tip.clone())).collect();
    let mut found = repo.try_merges(&pairs)?.into_iter();
    let mut clashes = Vec::new();
    if let Some(onto) = &onto
        && let Some(paths) = found.next().filter(|paths| !paths.is_empty())
    {
        let with = repo.tasks_touching(&tip, onto, &paths)?;
        let with: Vec<_> = with.iter().filter_map(|id| id.parse().ok()).map(Some).collect();
        let with = if with.is_empty() { vec![None] } else { with };
        clashes.extend(with.into_iter().map(|with| Clash { with, paths: paths.clone() }));
    }
    let open = trial.others.iter().zip(found).filter(|(_, paths)| !paths.is_empty());
    clashes.extend(open.map(|((id, _), paths)| Clash { with: Some(id.clone()), paths }));
    let tried = trial.others.iter().map(|(id, _)| id.clone()).collect();
    let (task, tip) = (trial.task.clone(), trial.tip.clone());
    Ok(Observation::Forecast { task, tip, tried, clashes })
}
