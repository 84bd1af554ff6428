//! The real world: git, keepers and files. Effects run on threads of their own; the loop's thread
//! starts no process and waits for none.

mod keepers;

use std::cell::Cell;
use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::mpsc::Sender;
use std::thread;
use std::time::Duration;

use super::ahead::{Prefetch, Wanted};
use super::brief;
use super::current::CurrentFile;
use super::cycle::World;
use super::finished::Cleaning;
use super::forecast::Forecasts;
use super::hand;
use super::job::{self, Surroundings, places};
use super::lane::{self, Branches};
use super::outside::{News, Outside};
use super::prepare::{self, Prepare};
use super::preset;
use super::progress::{OWN, Progress};
use super::propose::Question;
use super::report::Watch;
use super::sources::Input;
use super::standstill::Standstill;
use super::work::{self, Fault};
use crate::agent::Launcher;
use crate::agent::client::Keepers;
use crate::agent::job::GRACE_MS;
use crate::agent::task_file;
use crate::agent::terminal::tmux;
use crate::config::layout::Layout;
use crate::git::Repo;
use crate::machine::agent::{Agent, BASE_AGENT, LANDING_AGENT};
use crate::machine::attempt::{Attempt, AttemptKind, AttemptPhase, Class, Outcome};
use crate::machine::change::{AttemptChange, TaskChange};
use crate::machine::forecast;
use crate::machine::id::{AgentName, AttemptId, Oid, TaskId};
use crate::machine::lane::LandingPhase;
use crate::machine::proposal::ProposalFault;
use crate::machine::resume;
use crate::machine::schedule;
use crate::machine::task::{Task, TaskPhase};
use crate::machine::time::Time;
use crate::machine::{Change, Effect, EventBody, Observation, State};
use crate::store::ledger::Foreign;

/// The world of one monitor.
pub struct RealWorld {
    pub layout: Layout,
    /// `None` with `isolation = "none"`.
    pub repo: Option<Arc<Repo>>,
    pub keepers: Arc<Keepers>,
    pub watch: Arc<Watch>,
    pub input: Sender<Input>,
    pub progress: Progress,
    pub program_dir: PathBuf,
    /// Attempts that were live when this monitor started, until it has looked at them.
    pub inherited: BTreeSet<AttemptId>,
    /// Worktrees in which a stage is checked.
    pub checking: BTreeMap<AttemptId, PathBuf>,
    /// Attempts whose keeper could not be looked for, for want of descriptors or the like, or did not
    /// answer, or left processes that could not be ended; the loop looks again.
    pub unprobed: BTreeSet<AttemptId>,
    /// Attempts of which people were told that it is not known how they stand.
    pub doubtful: BTreeSet<AttemptId>,
    pub current: CurrentFile,
    pub forecasts: Forecasts,
    pub prefetch: Prefetch,
    pub cleaning: Cleaning,
    pub standstill: Standstill,
    pub outside: Outside,
    /// Each thread that will answer holds a share.
    pub threads: Arc<()>,
    /// A tmux that will do was seen.
    pub has_tmux: Cell<bool>,
}

impl World for RealWorld {
    fn begin(&mut self, effect: &Effect, state: &State) {
        self.outside.begin(effect, state);
        match effect {
            Effect::Prepare { attempt, .. } => self.begin_prepare(state, attempt),
            Effect::Start { attempt, .. } => self.begin_start(state, attempt),
            Effect::Stop { attempt } => {
                if let Some(attempt) = state.attempts.get(attempt) {
                    let grace = Duration::from_millis(GRACE_MS);
                    self.keepers.stop(attempt.agent.as_str(), attempt.id.as_str(), grace);
                }
            }
            Effect::Save { attempt, .. } => self.begin_save(state, attempt),
            Effect::Advance { attempt, .. } => self.begin_advance(state, attempt),
            Effect::TakeBase { .. }
            | Effect::Merge { .. }
            | Effect::Land { .. }
            | Effect::Follow { .. } => self.begin_lane(state, effect),
            Effect::Drop { to, .. } => self.begin_drop(state, to),
            Effect::Propose { number } => self.begin_propose(state, *number),
        }
    }

    fn tell(&mut self, changes: &[Change], state: &State, seq: u64, at: Time) {
        self.progress.tell(changes, state, seq, at, OWN);
        for change in changes {
            if let Change::Task(id, TaskChange::TipMoved { .. }) = change {
                self.ask_forecast(state, id);
            }
            if let Change::Attempt(id, AttemptChange::Exited { .. }) = change
                && let (Some(slot), Some(repo)) = (self.checking.remove(id), &self.repo)
            {
                // What checks leave in a worktree is not a person's. Where that cannot be said it is
                // kept and told as if it were.
                let _ = repo.renew_rest(&slot);
            }
        }
    }

    fn tell_foreign(&mut self, foreign: &Foreign, state: &State) {
        let Foreign { seq, time, actor, changes } = foreign;
        self.progress.tell(changes, state, *seq, *time, actor);
    }

    fn heed(&mut self, state: &State) {
        self.outside.heed(state);
        for attempt in state.attempts.values().filter(|attempt| attempt.is_stopping) {
            self.stop_setup(attempt);
        }
        // Those of agents that have left leave too.
        self.keepers.retain(|agent| {
            [LANDING_AGENT, BASE_AGENT].contains(&agent)
                || state.agents.contains_key(&AgentName::new(agent))
        });
        self.current.write(&self.layout, state);
    }

    fn look_ahead(&mut self, state: &State) {
        let Some(repo) = &self.repo else { return };
        let worktree = &state.settings.worktree;
        let wanted = schedule::ahead(state).into_iter().map(|ahead| Wanted {
            place: self.layout.slot(&worktree.dir, ahead.agent.as_str(), ahead.slot),
            agent: ahead.agent,
            at: ahead.at.as_str().into(),
            is_moving: ahead.is_moving,
        });
        self.prefetch.want(wanted.collect(), repo, &self.threads);
    }

    fn warn(&mut self, text: &str) {
        self.progress.warn(text);
    }

    fn random(&mut self, count: usize) -> std::io::Result<Vec<u128>> {
        crate::sys::env::random_values(count)
    }
}

impl RealWorld {
    /// Returns true when no thread of ours has still to answer.
    pub fn is_quiet(&self) -> bool {
        Arc::strong_count(&self.threads) == 1 && !self.outside.is_owed()
    }

    /// Takes in what was seen or done outside of the worktrees; returns what is to be recorded.
    pub fn see_outside(&mut self, news: News) -> impl Iterator<Item = EventBody> {
        if let Some(warning) = news.warning {
            self.progress.warn(&warning);
        }
        news.observations.into_iter().map(EventBody::Observation)
    }

    /// Runs `work` on a thread; a fault becomes what `failed` makes of it.
    fn spawn(
        &self,
        name: &str,
        work: impl FnOnce() -> Result<Observation, Fault> + Send + 'static,
        failed: impl Fn(String) -> Observation + Send + Clone + 'static,
    ) {
        self.spawn_or(name, work, move |why| Input::Event(EventBody::Observation(failed(why))));
    }

    /// As `spawn`, for what is not told as an observation when it fails.
    fn spawn_or(
        &self,
        name: &str,
        work: impl FnOnce() -> Result<Observation, Fault> + Send + 'static,
        failed: impl Fn(String) -> Input + Send + Clone + 'static,
    ) {
        let input = self.input.clone();
        let send = move |told| {
            // The loop has ended: the effect is still owed, and done is done.
            let _ = input.send(told);
        };
        let (sender, on_failure) = (send.clone(), failed.clone());
        let (share, prefetch) = (Arc::clone(&self.threads), self.prefetch.clone());
        let run = move || {
            let observation = crate::sys::fail::point("effect.run")
                .map_err(|error| Fault(error.to_string()))
                .and_then(|()| work());
            let told = observation.map(|seen| Input::Event(EventBody::Observation(seen)));
            sender(told.unwrap_or_else(|fault| on_failure(fault.0)));
            drop(share);
            prefetch.nudge();
        };
        if let Err(error) = thread::Builder::new().name(name.into()).spawn(run) {
            send(failed(format!("cannot start a thread: {error}")));
        }
    }

    /// Tells that an attempt is lost, after `work`. Where that fails nothing is told: the attempt has
    /// run, or may run still, and a fault would end one that was never seen started without saving
    /// what it left.
    fn spawn_lost(
        &self,
        attempt: &AttemptId,
        work: impl FnOnce() -> Result<Observation, Fault> + Send + 'static,
    ) {
        let id = attempt.clone();
        self.spawn_or("lost", work, move |why| Input::Doubtful {
            attempt: id.clone(),
            warning: format!(
                "the keeper of `{id}` died, and what it left cannot be ended ({why}); nothing takes \
                 its place, and that is tried again"
            ),
        });
    }

    fn spawn_for(
        &self,
        attempt: &AttemptId,
        work: impl FnOnce() -> Result<Observation, Fault> + Send + 'static,
    ) {
        let id = attempt.clone();
        self.spawn("attempt", work, move |why| Observation::AttemptFaulted {
            attempt: id.clone(),
            why,
        });
    }

    fn around(&self) -> Surroundings<'_> {
        Surroundings {
            layout: &self.layout,
            repo: self.repo.as_deref(),
            program_dir: &self.program_dir,
        }
    }

    fn begin_prepare(&mut self, state: &State, id: &AttemptId) {
        let (Some(attempt), Some(repo)) = (state.attempts.get(id), self.repo.clone()) else {
            return;
        };
        let settings = state.rules_of(attempt);
        let places = places(&self.layout, settings, attempt);
        let task = attempt.task.as_ref().and_then(|id| state.tasks.get(id));
        let landed = state.base.landed.as_ref().map_or(String::new(), |oid| oid.as_str().into());
        let start = match &attempt.kind {
            AttemptKind::LandingCheck { commit } | AttemptKind::BaseCheck { commit } => {
                commit.as_str().to_owned()
            }
            AttemptKind::Work { .. } | AttemptKind::StageCheck { .. } => landed,
        };
        let text = |oid: &crate::machine::id::Oid| oid.as_str().to_owned();
        let setup = (!settings.worktree.setup.is_empty()).then(|| {
            let commands = &settings.worktree.setup;
            let mut job = job::checks_job(&self.around(), settings, attempt, &places, commands);
            job.attempt = job::setup_id(id);
            job.attempt_dir = self.layout.attempt(&job.attempt);
            job.log = self.layout.log(&job.attempt);
            job
        });
        let prepare = Prepare {
            attempt: id.clone(),
            agent: attempt.agent.as_str().into(),
            task: attempt.task.clone(),
            tip: task.and_then(|task| task.tip.as_ref()).map(text),
            start,
            resume: task.and_then(|task| resume_from(task, attempt)).map(text),
            merge: attempt.merge.as_ref().map(text),
            worktree: settings.worktree.clone(),
            places,
            root: self.layout.root.clone(),
            brief: brief::of(state, attempt),
            setup,
            is_inherited: self.inherited.remove(id),
        };
        let (keepers, watch) = (Arc::clone(&self.keepers), Arc::clone(&self.watch));
        let input = self.input.clone();
        let tell = move |seen| {
            // The loop has ended: the attempt is prepared again.
            let _ = input.send(Input::Event(EventBody::Observation(seen)));
        };
        self.prefetch.withdraw(&prepare.places.dir);
        self.cleaning.reserve(&prepare.places.dir);
        let (prefetch, cleaning) = (self.prefetch.clone(), self.cleaning.clone());
        self.spawn_for(id, move || {
            cleaning.wait_for(&prepare.places.dir);
            prepare::run(&prepare, &repo, &keepers, &watch, &prefetch, &tell)
        });
    }

    fn begin_start(&mut self, state: &State, id: &AttemptId) {
        let Some(attempt) = state.attempts.get(id) else { return };
        if let AttemptKind::StageCheck { .. } = &attempt.kind {
            let slot = places(&self.layout, state.rules_of(attempt), attempt).dir;
            self.checking.insert(id.clone(), slot);
        }
        if self.inherited.remove(id) {
            self.find_again(state, attempt);
        } else {
            self.start(state, attempt);
        }
    }

    /// Ends the setup of an attempt that is to be stopped, which may take long otherwise; asked again
    /// that changes nothing.
    fn stop_setup(&self, attempt: &Attempt) {
        let job = job::setup_id(&attempt.id);
        if attempt.phase == AttemptPhase::Preparing && self.watch.has_setup(&job) {
            self.keepers.stop(attempt.agent.as_str(), &job, Duration::from_millis(GRACE_MS));
        }
    }

    /// Tells the loop; where it has ended, the effect is still owed.
    fn see(&self, observation: Observation) {
        let _ = self.input.send(Input::Event(EventBody::Observation(observation)));
    }

    /// Says what will be done; returns what is new about agents, having warned of those that could not
    /// start before and still cannot.
    pub fn open(&mut self, state: &State) -> Option<EventBody> {
        self.progress.open(state);
        self.look_at_providers(state);
        let unusable = self.unusable(state);
        for agent in state.agents.values().filter(|agent| agent.unusable.is_some()) {
            let why = state.group_of(agent).and_then(|group| unusable.get(&group.name));
            if let Some(why) = why.filter(|why| agent.unusable.as_ref() == Some(why)) {
                self.progress.warn(&format!("agent {} cannot start: {why}", agent.name));
            }
        }
        agents_seen(state, unusable)
    }

    /// Looks at what can change without an event: the base, and the programs of agents.
    pub fn look_around(&mut self, state: &State, now: Time) {
        self.look_at_base(state);
        self.look_at_agents(state);
        self.look_at_providers(state);
        self.look_at_panes(state, now);
        self.outside.poll(state);
        let (repo, share) = (self.repo.clone(), Arc::clone(&self.threads));
        self.cleaning.heed(state, &self.layout, repo, now, share);
    }

    /// Looks whose models the agents use, and tells the loop what is new.
    fn look_at_providers(&self, state: &State) {
        let of = preset::providers(&self.layout.root, &state.settings, &state.providers);
        if of != state.providers {
            let seen = EventBody::Observation(Observation::ProvidersSeen { of });
            // The loop has ended: the next monitor looks.
            let _ = self.input.send(Input::Event(seen));
        }
    }

    /// Looks which agents' programs and presets are there, and tells the loop what is new.
    fn look_at_agents(&self, state: &State) {
        if let Some(news) = agents_seen(state, self.unusable(state)) {
            // The loop has ended: the next monitor looks.
            let _ = self.input.send(Input::Event(news));
        }
    }

    fn unusable(&self, state: &State) -> BTreeMap<String, String> {
        let (root, program_dir) = (&self.layout.root, &self.program_dir);
        let mut found = preset::troubles(root, program_dir, &state.settings, || self.no_windows());
        // A command of one's own is looked for only where it could not be started: else each would be,
        // at every look.
        for agent in state.agents.values().filter(|agent| agent.breaker.is_on_trial()) {
            let Some(group) = state.group_of(agent) else { continue };
            if let Some(why) = preset::lacking_program(root, program_dir, group) {
                found.entry(group.name.clone()).or_insert(why);
            }
        }
        found
    }

    /// Returns why there are no windows for agents. Once tmux was seen it is not asked again, since that
    /// takes a process and the loop waits for it.
    fn no_windows(&self) -> Option<String> {
        let found = if self.has_tmux.get() { None } else { tmux::lacking() };
        self.has_tmux.set(found.is_none());
        found
    }

    fn begin_save(&mut self, state: &State, id: &AttemptId) {
        let (Some(attempt), Some(repo)) = (state.attempts.get(id), self.repo.clone()) else {
            return;
        };
        let Some(task) = attempt.task.as_ref().and_then(|id| state.tasks.get(id)) else { return };
        let Some(tip) = task.tip.as_ref().or(attempt.base.as_ref()) else {
            return self.spawn_for(id, || Err(Fault("the task's branch is not on record".into())));
        };
        let places = places(&self.layout, state.rules_of(attempt), attempt);
        let ended = attempt.verdict.as_ref().map_or(attempt.assigned_at, |verdict| verdict.at);
        let stage = attempt.stage().map_or("", |stage| stage.as_str());
        // One that completed says so in a commit of its own.
        let is_good = |verdict: &Outcome| verdict.class == Class::Completed;
        let has_completed = attempt.verdict.as_ref().is_some_and(is_good);
        let begun = attempt.base.as_ref().filter(|_| !has_completed);
        let rules = state.rules_of(attempt).stage(stage);
        // In the main checkout that folder is ours: a file of it that landed could not be followed to.
        let mut exclude = vec![task_file::file_name(task.id.as_str()), ".pipeline".to_owned()];
        exclude.extend(state.rules_of(attempt).worktree.copy.iter().cloned());
        let save = work::Save {
            attempt: id.clone(),
            slot: places.dir,
            tip: tip.as_str().into(),
            merge: attempt.merge.as_ref().map(|oid| oid.as_str().into()),
            exclude,
            message: format!(
                "{}: {stage} by {}\n\n{}\n\nPipeline-Task: {}\nPipeline-Stage: {stage}\nPipeline-Attempt: {id}\n",
                task.id,
                attempt.agent,
                one_line(&task.spec.title),
                task.id
            ),
            date_s: ended.as_ms() / 1000,
            keep: state.rules_of(attempt).worktree.keep.clone(),
            begun: begun.map(|oid| oid.as_str().into()),
            needs_change: has_completed && rules.is_some_and(|(_, stage)| stage.must_change),
        };
        self.spawn_for(id, move || work::save(&save, &repo));
    }

    fn begin_advance(&mut self, state: &State, id: &AttemptId) {
        let (Some(attempt), Some(repo)) = (state.attempts.get(id), self.repo.clone()) else {
            return;
        };
        let Some(task) = attempt.task.as_ref().and_then(|id| state.tasks.get(id)) else { return };
        let (Some(from), Some(to)) = (&task.tip, &attempt.saved) else {
            return self.spawn_for(id, || Err(Fault("the task's branch is not on record".into())));
        };
        let (from, to) = (from.as_str().to_owned(), to.as_str().to_owned());
        let landed = state.base.landed.as_ref().map(|landed| landed.as_str().to_owned());
        let continued = resume::chain(task, attempt);
        let (attempt, task) = (id.clone(), task.id.clone());
        let advance = work::Advance { attempt, task, from, to, continued, landed };
        self.spawn_for(id, move || work::advance(&advance, &repo));
    }

    /// Has the task's branch tried against others; the answer comes as an event, if it comes.
    fn ask_forecast(&self, state: &State, id: &TaskId) {
        let (Some(repo), Some(trial)) = (self.repo.clone(), forecast::trial(state, id)) else {
            return;
        };
        let input = self.input.clone();
        let told = move |seen| {
            let _ = input.send(Input::Event(EventBody::Observation(seen)));
        };
        self.forecasts.ask(trial, repo, Arc::clone(&self.threads), told);
    }

    fn begin_lane(&mut self, state: &State, effect: &Effect) {
        let Some(repo) = self.repo.clone() else { return };
        let branches = branches(state);
        let base = state.base.clone();
        let failed = |why| Observation::LaneFaulted { why };
        match effect.clone() {
            Effect::TakeBase { base: tip, landed, .. } => {
                let date_s = base.seen_at.as_ms() / 1000;
                let work = move || {
                    let landed = landed.as_ref().map(|oid| oid.as_str());
                    lane::take_base(&branches, tip.as_str(), landed, date_s, &repo)
                };
                self.spawn("lane", work, failed);
            }
            Effect::Merge { task, number, .. } => {
                let found = &state.tasks[&task];
                let begun = state.landing.as_ref().map_or(Time::default(), |l| l.begun_at);
                let (Some(tip), Some(onto)) = (&found.tip, &base.landed) else {
                    return self.see(failed("its branch is not on record".into()));
                };
                let merge = lane::Merge {
                    task,
                    number,
                    tip: tip.as_str().into(),
                    onto: onto.as_str().into(),
                    title: one_line(&found.spec.title),
                    date_s: begun.as_ms() / 1000,
                    protect: state.settings.landing.protect.clone(),
                };
                self.spawn("lane", move || lane::merge(&merge, &repo), failed);
            }
            Effect::Land { task, number, .. } => {
                let phase = state.landing.as_ref().map(|landing| landing.phase.clone());
                let Some(LandingPhase::Moving { commit, onto }) = phase else { return };
                let work = move || {
                    let step = (onto.as_str(), commit.as_str());
                    lane::land(&branches, &task, number, step, &repo)
                };
                self.spawn("lane", work, failed);
            }
            Effect::Follow { to, .. } => {
                let Some(from) = base.tip else { return };
                let refused = to.clone();
                let failed = move |why| Observation::FollowRefused {
                    to: refused.clone(),
                    why,
                    behind: base.behind,
                    is_passing: true,
                };
                let work = move || lane::follow(&branches, to.as_str(), from.as_str(), &repo);
                self.spawn("follow", work, failed);
            }
            Effect::Prepare { .. }
            | Effect::Start { .. }
            | Effect::Stop { .. }
            | Effect::Save { .. }
            | Effect::Advance { .. }
            | Effect::Drop { .. }
            | Effect::Propose { .. } => {}
        }
    }

    fn begin_drop(&self, state: &State, to: &Oid) {
        let Some(repo) = self.repo.clone() else { return };
        let commit_of = |task: &Task| match &task.phase {
            TaskPhase::Completed { commit: Some(commit), .. } => {
                Some((task.id.clone(), commit.clone()))
            }
            TaskPhase::Completed { commit: None, .. }
            | TaskPhase::Waiting
            | TaskPhase::Ready { .. }
            | TaskPhase::Working { .. }
            | TaskPhase::Landing { .. }
            | TaskPhase::Blocked(_)
            | TaskPhase::Cancelled { .. } => None,
        };
        let done = state.tasks.values().filter_map(commit_of).collect();
        let (branches, to, landed) = (branches(state), to.clone(), state.base.landed.clone());
        let work = move || lane::drop_pilot(&branches, &to, landed.as_ref(), &done, &repo);
        self.spawn("lane", work, |why| Observation::LaneFaulted { why });
    }

    /// Asks the external scheduler, on a thread.
    fn begin_propose(&self, state: &State, number: u64) {
        let question = Question::of(state, number, &self.layout.root, &self.program_dir);
        let failed = move |why| {
            let fault = ProposalFault::Failed;
            Observation::NotProposed { number, fault, why }
        };
        self.spawn("scheduler", move || Ok(question.ask()), failed);
    }

    /// Looks at the base on a thread; the answer comes as an event.
    pub fn look_at_base(&self, state: &State) {
        let Some(repo) = self.repo.clone() else { return };
        let (branches, wanted) = (branches(state), hand::Wanted::of(state));
        let input = self.input.clone();
        let work = move || {
            // A base that cannot be read now is looked at again; nothing depends on this look.
            if let Ok(seen) = hand::look(&branches, wanted.as_ref(), &repo) {
                let _ = input.send(Input::Event(EventBody::Observation(seen)));
            }
        };
        // Without a thread the next poll looks.
        let _ = thread::Builder::new().name("base".into()).spawn(work);
    }
}

/// Returns the salvaged commit that the attempt starts from; what was left at another stage is none.
fn resume_from<'a>(task: &'a Task, attempt: &Attempt) -> Option<&'a crate::machine::id::Oid> {
    let is_its = task.continues == attempt.continues;
    task.resume_from.as_ref().filter(|_| is_its)
}

/// Returns what is told of agents' programs and presets; `None`: the state knows it.
fn agents_seen(state: &State, unusable: BTreeMap<String, String>) -> Option<EventBody> {
    let is_known = |agent: &Agent| {
        let why = state.group_of(agent).and_then(|group| unusable.get(&group.name));
        agent.unusable.as_ref() == why
    };
    let is_news = !state.agents.values().all(is_known);
    is_news.then_some(EventBody::Observation(Observation::AgentsSeen { unusable }))
}

/// Returns the lane's branches by full name.
pub fn branches(state: &State) -> Branches {
    let settings = &state.settings;
    Branches {
        base: format!("refs/heads/{}", settings.project.base),
        landed: format!("refs/heads/{}", settings.landing.branch),
    }
}

fn one_line(text: &str) -> String {
    text.split_whitespace().collect::<Vec<_>>().join(" ")
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;
    use std::collections::BTreeSet;
    use std::sync::Arc;
    use std::sync::mpsc::{Receiver, channel};

    use super::{
        Cleaning, CurrentFile, Fault, Forecasts, Input, Outside, Prefetch, Progress, RealWorld,
        Watch,
    };
    use crate::agent::client::{KeeperDirs, Keepers};
    use crate::agent::connect::KeeperExe;
    use crate::config::layout::Layout;
    use crate::machine::id::AttemptId;
    use crate::machine::time::Time;
    use crate::machine::{EventBody, Observation, State};
    use crate::monitor::progress::LogFormat;
    use crate::observe::support::settings;
    use crate::sys::clock::SystemClock;

    /// A world in a folder in which nothing runs, and what it tells the loop.
    fn world(dir: &std::path::Path) -> (RealWorld, Receiver<Input>) {
        let (input, told) = channel();
        let layout = Layout::of_folder(dir);
        let exe = KeeperExe { program: dir.join("none"), args: Vec::new() };
        let dirs =
            KeeperDirs { keepers_dir: layout.keepers(), exe, runtime_dir: dir.to_path_buf() };
        let world = RealWorld {
            layout,
            repo: None,
            keepers: Arc::new(Keepers::new(dirs, |_| {}, |_| false)),
            watch: Arc::new(Watch::default()),
            outside: Outside::new(input.clone(), SystemClock::start()),
            input,
            progress: Progress::new(LogFormat::Text, false, true, false),
            program_dir: dir.to_path_buf(),
            inherited: BTreeSet::new(),
            checking: Default::default(),
            unprobed: BTreeSet::new(),
            doubtful: BTreeSet::new(),
            current: CurrentFile::of(&State::new(settings(), Time::default())),
            forecasts: Forecasts::default(),
            prefetch: Prefetch::default(),
            cleaning: Cleaning::default(),
            standstill: Default::default(),
            threads: Arc::new(()),
            has_tmux: Cell::default(),
        };
        (world, told)
    }

    #[test]
    fn strays_that_cannot_be_ended_do_not_end_their_attempt() {
        let dir = tempfile::tempdir().expect("temporary folder");
        let (world, told) = world(dir.path());
        let id = AttemptId::new("A.test.1");
        world.spawn_lost(&id, || Err(Fault("too many open files".into())));
        let Ok(Input::Doubtful { attempt, warning }) = told.recv() else { panic!("a fault") };
        assert_eq!(attempt, id);
        assert!(warning.contains("too many open files"), "{warning}");
        let lost = Observation::Lost { attempt: id.clone(), why: "its keeper died".into() };
        let seen = lost.clone();
        world.spawn_lost(&id, move || Ok(seen));
        assert!(
            matches!(told.recv(), Ok(Input::Event(EventBody::Observation(seen))) if seen == lost)
        );
    }
}
