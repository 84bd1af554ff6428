//! Which project a command is about, and its state.

use std::borrow::Cow;
use std::fs;
use std::io;
use std::io::ErrorKind::{NotADirectory, NotFound, PermissionDenied, ReadOnlyFilesystem};
use std::mem::ManuallyDrop;
use std::path::Path;
use std::sync::mpsc::{Receiver, channel};
use std::time::Duration;

use notify::{RecursiveMode, Watcher};

use super::error::Error;
use super::exit_code::Kind;
use super::gate::{Gate, Sent};
use crate::config;
use crate::config::layout::Layout;
use crate::git::{GitError, Repo, UNEXPLAINED};
use crate::machine::lane::{Base, LandingPhase, TYPE};
use crate::machine::settings::Settings;
use crate::machine::time::Time;
use crate::machine::{self, Answer, Command, Event, EventBody, State, step};
use crate::monitor::view::{SMALL_BYTES_MAX, write_newest};
use crate::observe::lane::{GONE, Lane, MOVED};
use crate::observe::words::refused_settings;
use crate::store::StoreError;
use crate::store::journal::FileStore;
use crate::store::ledger::{Ledger, LedgerError, Turns};
use crate::store::lock::is_held;
use crate::sys::clock::{Clock, SystemClock};
use crate::sys::fail;
use crate::sys::file::read_bounded;

/// Largest `pipeline.toml` read, in bytes.
pub const CONFIG_BYTES_MAX: u64 = 1 << 20;

/// What to do where the project requires another version of the program.
pub const OTHER_VERSION: &str =
    "use that version of `pipeline` here, or change `requires` in pipeline.toml";

const FORBIDDEN: &str =
    "the state belongs to another user or is read-only: make it writable for you";

/// A project, found but not read.
#[derive(Debug)]
pub struct Project {
    pub layout: Layout,
    /// `None` with `isolation = "none"`.
    pub repo: Option<Repo>,
}

impl Project {
    /// Finds the project that `dir` belongs to: the nearest folder above with a state of its own,
    /// or the repository, by its common git folder, from any of its worktrees.
    ///
    /// # Errors
    /// When there is none; when there are refs of a pipeline whose journal is gone; when a place
    /// where its state may be cannot be looked at.
    pub fn find(dir: &Path) -> Result<Self, Error> {
        for above in dir.ancestors() {
            let state = above.join(".pipeline/state");
            let has_state = is_folder(&state, fs::symlink_metadata(&state))?;
            if has_state && has_journal(&state)? {
                return Ok(Self { layout: Layout::of_folder(above), repo: None });
            }
            if has_state && has_remains(&state) {
                return Err(journal_gone(&state));
            }
            if above.join(".git").exists() {
                break;
            }
        }
        let repo = Repo::discover(dir).map_err(|error| no_project(dir, &error))?;
        let layout = Layout::of_repository(repo.root(), repo.common_dir());
        if has_journal(&layout.state)? {
            return Ok(Self { layout, repo: Some(repo) });
        }
        if has_remains(&layout.state) || has_refs(&repo)? {
            return Err(journal_gone(&layout.state));
        }
        Err(Error::usage(format!("there is no pipeline in `{}`", repo.root().display()))
            .hint("set it up with `pipeline init`"))
    }

    /// Returns how lane and base stand: as on record, but that what a person has merged since needs
    /// no monitor to be seen, nor, while none runs, that what was in the way is gone. What git cannot
    /// tell stays as it is on record.
    #[must_use]
    pub fn lane_now<'a>(&self, state: &'a State) -> Lane<'a> {
        let mut lane = Lane::on_record(state);
        if self.has_caught_up(state) == Some(true) {
            let base = state.base.clone();
            lane.base = Cow::Owned(Base { behind: 0, why: None, conflict: None, ..base });
        }
        let has_trouble = lane.base.why.is_some() || lane.stuck.is_some();
        // A monitor looks by itself, and its record counts.
        if !has_trouble || is_held(&self.layout.monitor_lock()).unwrap_or(true) {
            return lane;
        }
        if let Some(why) = lane.base.why.as_ref().and_then(|_| self.base_is_free(state)) {
            lane.base.to_mut().why = Some(why.to_owned());
        }
        if lane.stuck.is_some() && self.landing_is_free(state) == Some(true) {
            (lane.stuck, lane.is_freed) = (None, true);
        }
        lane
    }

    /// Returns why the base will follow when a monitor runs, whatever kept it from that on record;
    /// `None`: that is still there, or not known.
    fn base_is_free(&self, state: &State) -> Option<&'static str> {
        let (repo, base, name) = (self.repo.as_ref()?, &state.base, base_ref(state));
        let is_unexplained = base.why.as_ref()?.starts_with(UNEXPLAINED);
        if repo.has_base_step() {
            return None;
        }
        let tip = repo.read_ref(&name).ok()??;
        if base.tip.as_ref().map(machine::id::Oid::as_str) != Some(tip.as_str()) {
            return Some(MOVED);
        }
        let to = base.landed.as_ref()?.as_str().parse().ok()?;
        let is_forward = !is_unexplained && repo.is_ancestor(&tip, &to).ok()?;
        (is_forward && !repo.is_obstructed(&name, &to, false).ok()?).then_some(GONE)
    }

    /// Returns whether what a person was to take out of a landing's way is gone; `None`: not known.
    fn landing_is_free(&self, state: &State) -> Option<bool> {
        let (repo, landing) = (self.repo.as_ref()?, state.landing.as_ref()?);
        let LandingPhase::Moving { commit, .. } = &landing.phase else { return None };
        let why = &landing.tries.why;
        // What failed without a word on what to type cannot be seen from here.
        if !why.contains(TYPE) || why.contains(UNEXPLAINED) {
            return None;
        }
        let branch = format!("refs/heads/{}", state.settings.landing.branch);
        Some(!repo.is_obstructed(&branch, &commit.as_str().parse().ok()?, true).ok()?)
    }

    /// Returns whether the base has all that it lacks on record; `None`: that is not known.
    fn has_caught_up(&self, state: &State) -> Option<bool> {
        let base = &state.base;
        let is_lacking = base.behind > 0 || base.why.is_some() || base.conflict.is_some();
        let landed = base.landed.as_ref().filter(|_| is_lacking)?.as_str().parse().ok()?;
        let repo = self.repo.as_ref()?;
        let tip = repo.read_ref(&base_ref(state)).ok()??;
        // One that was killed may have moved the branch, and left locks that must be told.
        Some(!repo.has_base_step() && repo.is_ancestor(&landed, &tip).ok()?)
    }

    /// Opens the state for reading and for commands, where this program is one that the project
    /// takes: before anything else is read, `requires` is.
    ///
    /// # Errors
    /// When another version is required; when the journal is damaged, newer, or cannot be read.
    pub fn open(self, lock_wait: Duration) -> Result<Open, Error> {
        self.check_version()?;
        self.open_anyway(lock_wait)
    }

    /// Compares this program with `requires`. A file that cannot be read requires nothing.
    fn check_version(&self) -> Result<(), Error> {
        let path = self.layout.config();
        let bytes = read_bounded(&path, CONFIG_BYTES_MAX).ok().flatten().unwrap_or_default();
        config::check_version(&String::from_utf8_lossy(&bytes))
            .map_err(|error| Error::busy(error.to_string()).hint(OTHER_VERSION).at(&path))
    }

    /// Opens the state whatever version `requires` demands, for looking at it.
    ///
    /// # Errors
    /// When the journal is damaged, newer, or cannot be read.
    pub fn open_anyway(self, lock_wait: Duration) -> Result<Open, Error> {
        let store = FileStore::open(&self.layout.state, 0);
        let (ledger, warnings) = Ledger::open(store, "cli").map_err(Error::from)?;
        let clock = SystemClock::start_after(ledger.time());
        let ledger = ManuallyDrop::new(ledger);
        Ok(Open { project: self, ledger, warnings, lock_wait, clock, events: None })
    }
}

/// Refuses a project whose path is not UTF-8: agents could not be started there.
///
/// # Errors
/// [`Kind::Usage`], with the path.
pub fn check_path(layout: &Layout) -> Result<(), Error> {
    let Some(path) = layout.unspeakable() else { return Ok(()) };
    Err(Error::usage(format!("cannot work in `{}`: its path is not UTF-8", path.display()))
        .hint("rename the folder, or go on in one with another path"))
}

fn base_ref(state: &State) -> String {
    format!("refs/heads/{}", state.settings.project.base)
}

fn has_journal(state: &Path) -> Result<bool, Error> {
    let journal = state.join("journal");
    is_folder(&journal, fs::metadata(&journal))
}

/// Returns whether `found` is a folder. What nobody may look at is not taken for absent: a state that
/// belongs to another user would be called gone.
fn is_folder(path: &Path, found: io::Result<fs::Metadata>) -> Result<bool, Error> {
    let error = match found {
        Ok(meta) => return Ok(meta.is_dir()),
        Err(error) if matches!(error.kind(), NotFound | NotADirectory) => return Ok(false),
        Err(error) => error,
    };
    let told = Error::failed(format!("cannot look at `{}`", path.display()));
    let told = told.because(&error).at(path);
    Err(if error.kind() == PermissionDenied { told.hint(FORBIDDEN) } else { told })
}

/// Returns true when the state folder `state` holds something of a journal that is not there.
pub fn has_remains(state: &Path) -> bool {
    let names = ["journal", "state.json"];
    names.iter().any(|name| fs::symlink_metadata(state.join(name)).is_ok())
}

fn journal_gone(state: &Path) -> Error {
    let path = state.join("journal");
    Error::new(
        Kind::Damaged,
        format!(
            "the journal `{}` is gone, but a pipeline's refs or state are here",
            path.display()
        ),
    )
    .hint(format!(
        "restore `{}` from a backup, or start anew with `pipeline init --force`",
        state.display()
    ))
    .at(&path)
}

fn no_project(dir: &Path, error: &GitError) -> Error {
    let is_none = matches!(
        error,
        GitError::NotARepository { .. }
            | GitError::NoCommits { .. }
            | GitError::Bare { .. }
            | GitError::NoCheckout { .. }
    );
    if !is_none {
        let what = format!("cannot see which project `{}` belongs to", dir.display());
        return Error::failed(what).because_git(error);
    }
    if matches!(error, GitError::NoCheckout { .. }) {
        return Error::usage(error.to_string()).hint(error.hint().unwrap_or_default());
    }
    let told = Error::usage(format!("there is no pipeline in `{}`", dir.display()));
    told.because_git(error).hint("set it up with `pipeline init`")
}

/// Returns true when refs of a pipeline are there.
///
/// # Errors
/// When git fails.
pub fn has_refs(repo: &Repo) -> Result<bool, Error> {
    let refs = repo.list_refs("refs/heads/pipeline/");
    let refs = refs.map_err(|error| Error::failed("cannot list refs").because(&error))?;
    Ok(!refs.is_empty())
}

/// A project with its state.
pub struct Open {
    pub project: Project,
    /// Never freed: the process ends with the command, and freeing many tasks one by one costs as
    /// much as reading them.
    ledger: ManuallyDrop<Ledger<FileStore>>,
    /// What reading put right; to be shown once.
    pub warnings: Vec<String>,
    lock_wait: Duration,
    clock: SystemClock,
    /// `None` until somebody waits, and where there are no file events.
    events: Option<Events>,
}

impl Open {
    /// Returns the state as read.
    pub fn now(&self) -> (&State, u64, Time) {
        (self.ledger.state(), self.ledger.seq(), self.ledger.time())
    }

    /// Returns the present moment.
    pub fn clock(&self) -> Time {
        self.clock.now()
    }

    /// Returns true when a monitor runs.
    #[must_use]
    pub fn has_monitor(&self) -> bool {
        is_held(&self.project.layout.monitor_lock()).unwrap_or(false)
    }

    /// Gives the parts to a monitor.
    #[must_use]
    pub fn into_project(self) -> Project {
        self.project
    }

    /// Returns the command that adopts a changed `pipeline.toml`, and what to warn of.
    fn adoption(&mut self) -> Option<Command> {
        let path = self.project.layout.config();
        let bytes = read_bounded(&path, CONFIG_BYTES_MAX).ok()??;
        match config::load_in(&self.project.layout.root, &String::from_utf8_lossy(&bytes)) {
            Ok(loaded) if loaded.settings.hash == self.ledger.state().settings.hash => None,
            Ok(loaded) => Some(Command::AdoptSettings { settings: Box::new(loaded.settings) }),
            Err(error) => {
                let path = path.display();
                self.warnings.push(format!("`{path}` is broken, the old settings count: {error}"));
                None
            }
        }
    }

    /// Adds a warning where `pipeline.toml` says something else than what is shown: nobody has taken it
    /// up yet, or nobody can.
    pub fn look_at_settings(&mut self) {
        let Some(command) = self.adoption() else { return };
        if let Some(refused) = self.refused(command) {
            self.warnings.push(refused);
        } else if !self.has_monitor() {
            let text = "`pipeline.toml` has changed, and the next monitor takes it up: this is by the \
                        old one";
            self.warnings.push(text.into());
        }
    }

    /// Says why new settings are refused; `None`: they are not.
    fn refused(&self, adoption: Command) -> Option<String> {
        let event = Event { at: self.clock.now(), random: 0, body: EventBody::Command(adoption) };
        match step(self.ledger.state(), &event).answer {
            Answer::Refuse(refusal) => {
                Some(refused_settings(&self.project.layout.config(), &refusal))
            }
            Answer::Accept | Answer::Note(_) => None,
        }
    }

    /// Says why settings that are valid are refused all the same; `None`: they are not.
    #[must_use]
    pub fn refused_settings(&self, settings: &Settings) -> Option<String> {
        self.refused(Command::AdoptSettings { settings: Box::new(settings.clone()) })
    }

    fn renew_view(&mut self, has_imported: bool) {
        // Its size is told by the one that stands, so that a large one is not made for nothing.
        let present = fs::metadata(self.project.layout.state.join("state.json"));
        let bytes = present.map_or(0, |meta| meta.len());
        if bytes > SMALL_BYTES_MAX as u64 && !has_imported {
            return;
        }
        let (dir, now) = (&self.project.layout.state, self.clock.now());
        self.warnings.extend(write_newest(dir, &mut self.ledger, self.lock_wait, now));
    }
}

/// Where file events cannot be had, the state is looked at this often.
const POLL: Duration = Duration::from_millis(200);

/// Imports of more tasks than this renew a large `state.json` too.
const IMPORT_TASKS: usize = 2;

impl Gate for Open {
    fn state(&mut self) -> Result<(&State, u64), Error> {
        self.ledger.refresh().map_err(Error::from)?;
        Ok((self.ledger.state(), self.ledger.seq()))
    }

    fn send(&mut self, command: Command) -> Result<Sent, Error> {
        let has_imported =
            matches!(&command, Command::AddTasks { tasks } if tasks.len() >= IMPORT_TASKS);
        let has_monitor = self.has_monitor();
        let adoption = if has_monitor { None } else { self.adoption() };
        let at = self.clock.now();
        let random = crate::sys::env::random_values(2)
            .map_err(|error| Error::failed("cannot get random bytes").because(&error))?;
        let events: Vec<Event> = adoption
            .into_iter()
            .chain([command])
            .zip(random)
            .map(|(command, random)| Event { at, random, body: EventBody::Command(command) })
            .collect();
        let done = self.ledger.transact(self.lock_wait, at, &events, Turns::None);
        self.warnings.extend(self.ledger.take_warnings());
        let mut done = done?;
        let mut answers = done.answers;
        let answer = answers.pop();
        for answer in answers {
            if let Answer::Refuse(refusal) = answer {
                let path = self.project.layout.config();
                self.warnings.push(refused_settings(&path, &refusal));
            }
        }
        let note = match answer {
            Some(Answer::Refuse(refusal)) => return Err(refusal.into()),
            Some(Answer::Note(text)) => Some(text),
            Some(Answer::Accept) | None => None,
        };
        // Asked again: a monitor that was about to end has not seen this.
        let is_monitors = has_monitor && self.has_monitor();
        if !is_monitors && !done.changes.is_empty() {
            self.renew_view(has_imported);
        }
        done.changes.truncate(done.direct);
        Ok(Sent { note, changes: done.changes })
    }

    fn wait_change(&mut self, wait_max: Duration) -> Result<(), Error> {
        let Some((_, receiver)) = &self.events else {
            // The kernel may have no watch left for this user: looking now and then does as well.
            match watch(&self.project.layout.state.join("journal")) {
                // What changed since the caller's look is in no event: it looks again at once.
                Ok(events) => self.events = Some(events),
                Err(_) => std::thread::sleep(wait_max.min(POLL)),
            }
            return Ok(());
        };
        // A time-out is an answer too: the caller looks at the state either way.
        let _ = receiver.recv_timeout(wait_max);
        while receiver.try_recv().is_ok() {}
        Ok(())
    }
}

/// Tells of changes in a folder; ends when dropped.
type Events = (notify::RecommendedWatcher, Receiver<()>);

fn watch(dir: &Path) -> notify::Result<Events> {
    fail::point("project.watch").map_err(notify::Error::io)?;
    let (sender, receiver) = channel();
    let mut watcher = notify::recommended_watcher(move |event: notify::Result<notify::Event>| {
        // Our own look opens the folder, and would be followed by another one for ever.
        if event.is_ok_and(|event| event.kind.is_access()) {
            return;
        }
        // The command has ended.
        let _ = sender.send(());
    })?;
    watcher.watch(dir, RecursiveMode::NonRecursive)?;
    Ok((watcher, receiver))
}

impl From<LedgerError> for Error {
    fn from(error: LedgerError) -> Self {
        let kind = match &error {
            LedgerError::Store(store) => kind_of(store),
            LedgerError::Format { source, .. } if source.is_foreign() => Kind::Busy,
            LedgerError::Format { .. } => Kind::Damaged,
            LedgerError::Encode { .. } | LedgerError::Random(_) => Kind::Failed,
        };
        let hint = match kind {
            Kind::Damaged => {
                Some("nothing was changed; `pipeline doctor` says more, and what --repair would do")
            }
            Kind::Busy => match &error {
                LedgerError::Store(StoreError::Newer { .. }) => {
                    Some("use the newer build for this repository")
                }
                LedgerError::Store(StoreError::Older { .. }) => Some(
                    "`pipeline monitor` takes it over and keeps a backup; until then it can be read",
                ),
                LedgerError::Format { .. } => Some(
                    "another version of `pipeline` wrote it, most likely a newer one: use that one \
                     for this repository; nothing was changed",
                ),
                LedgerError::Store(_) | LedgerError::Encode { .. } | LedgerError::Random(_) => {
                    Some("try again, or wait longer with --lock-timeout")
                }
            },
            Kind::Failed if is_forbidden(&error) => Some(FORBIDDEN),
            Kind::Failed if error.is_full() => {
                Some("nothing was changed; free some room on that disk, then try again")
            }
            Kind::Failed if error.is_passing() => {
                Some("nothing was changed; try again when the cause is gone")
            }
            Kind::Failed | Kind::Usage | Kind::Invalid | Kind::Interrupted => None,
        };
        let told = Self::new(kind, error.to_string());
        let told = match std::error::Error::source(&error) {
            Some(cause) => told.because(cause),
            None => told,
        };
        let told = match &error {
            LedgerError::Store(store) => path_of(store).map_or(told.clone(), |path| told.at(path)),
            LedgerError::Format { .. } | LedgerError::Encode { .. } | LedgerError::Random(_) => {
                told
            }
        };
        match hint {
            Some(hint) => told.hint(hint),
            None => told,
        }
    }
}

/// Returns true when the file system does not let this user write.
fn is_forbidden(error: &LedgerError) -> bool {
    let source = match error {
        LedgerError::Store(StoreError::Io { source, .. }) => source,
        LedgerError::Store(_)
        | LedgerError::Format { .. }
        | LedgerError::Encode { .. }
        | LedgerError::Random(_) => return false,
    };
    matches!(source.kind(), PermissionDenied | ReadOnlyFilesystem)
}

/// Returns the file or folder that the error is about.
fn path_of(error: &StoreError) -> Option<&Path> {
    match error {
        StoreError::LockTimeout { path, .. }
        | StoreError::LockLost { path }
        | StoreError::Gap { path }
        | StoreError::Missing { path }
        | StoreError::Exists { path }
        | StoreError::Damaged { path, .. }
        | StoreError::Newer { path, .. }
        | StoreError::Older { path, .. }
        | StoreError::Io { path, .. } => Some(path),
        StoreError::Conflict { .. } => None,
    }
}

fn kind_of(error: &StoreError) -> Kind {
    match error {
        StoreError::LockTimeout { .. }
        | StoreError::Newer { .. }
        | StoreError::Older { .. }
        | StoreError::LockLost { .. } => Kind::Busy,
        StoreError::Missing { .. } | StoreError::Damaged { .. } => Kind::Damaged,
        StoreError::Conflict { .. }
        | StoreError::Gap { .. }
        | StoreError::Exists { .. }
        | StoreError::Io { .. } => Kind::Failed,
    }
}

#[cfg(test)]
mod tests {
    use super::{Error, Kind, LedgerError};
    use crate::store::format::decode_changes_text;

    #[test]
    fn a_whole_record_of_another_shape_is_of_another_version_and_no_damage() {
        for (text, kind, hint) in [
            (r#"[{"kind":"task_melted","id":"a"}]"#, Kind::Busy, "another version"),
            (r#"[{"kind":"pause_set","is_paused":true,"by":1}]"#, Kind::Busy, "another version"),
            (r#"[{"kind":"pause_set","is_pau"#, Kind::Damaged, "doctor"),
            ("[}", Kind::Damaged, "doctor"),
        ] {
            let source = decode_changes_text(text).expect_err("it is of no known shape");
            let error = Error::from(LedgerError::Format { seq: 7, source });
            assert_eq!(error.kind, kind, "{text}");
            assert!(error.hints.iter().any(|it| it.contains(hint)), "{text}: {:?}", error.hints);
        }
    }
}
