//! `pipeline init`: looks at the repository, writes the settings, opens the journal.

use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::args::{InitArgs, IsolationArg, LauncherArg};
use super::console::Console;
use super::error::Error;
use super::exit_code::Kind;
use super::init_agents as agents;
use super::init_record::{Exclude, InitRecord, exclude_text};
use super::project::{CONFIG_BYTES_MAX, OTHER_VERSION, check_path, has_refs};
use crate::agent::rendezvous;
use crate::config;
use crate::config::detect::{self, Found};
use crate::config::layout::Layout;
use crate::config::template::{self, Agents, Template};
use crate::git::{GitError, Repo, leave_command};
use crate::machine::State;
use crate::machine::mode::Isolation;
use crate::machine::settings::{AgentCommand, AgentGroup, LauncherKind, Settings};
use crate::observe::document::state_document;
use crate::store::format::state_value;
use crate::store::journal::FileStore;
use crate::store::ledger::{Ledger, LedgerError};
use crate::store::lock::is_held;
use crate::store::view::write_view;
use crate::store::{Checkpoint, Json, StoreError};
use crate::sys::clock::{Clock, SystemClock};
use crate::sys::file::{Durability, read_bounded, shell_path, write_atomic};

/// Lost states kept beside the state, at most.
const LOST_MAX: usize = 100;
/// Where our branches are.
const BRANCHES: &str = "refs/heads/pipeline/";
/// The line that keeps our folder out of the user's git.
pub const EXCLUDE: &str = "/.pipeline/";

/// What init found and did, for the one who called it.
#[derive(Debug)]
pub struct Inited {
    /// Where the project is.
    pub root: PathBuf,
    pub settings: Settings,
    /// False: there was one, and it stays.
    pub has_written_config: bool,
    /// False: the pipeline was set up before.
    pub is_new: bool,
    pub notes: Vec<String>,
    /// What is to be said of the agents that were written.
    pub agents: Written,
}

/// Sets the pipeline up in `dir`.
///
/// # Errors
/// When the place will not do, or something there would be overwritten; nothing has changed then.
pub fn run(
    args: &InitArgs,
    dir: &Path,
    wait: Duration,
    console: &mut Console<'_>,
) -> Result<(), Error> {
    let inited = init(args, dir, wait)?;
    for note in &inited.notes {
        console.warn(note);
    }
    let settings = &inited.settings;
    let is_bare = settings.project.isolation == Isolation::None;
    console.note(&match (inited.is_new, inited.has_written_config) {
        (true, _) if is_bare => format!("set up in `{}`, without git", inited.root.display()),
        (true, _) => format!("set up on branch `{}`", settings.project.base),
        (false, true) => "already set up; the state stays as it is".to_owned(),
        (false, false) => "already set up; nothing was changed".to_owned(),
    });
    if inited.has_written_config && is_bare {
        console.note("wrote pipeline.toml");
    } else if inited.has_written_config {
        let checks = &settings.landing.checks;
        let checks = if checks.is_empty() { "none found".to_owned() } else { checks.join(", ") };
        console
            .note(&format!("wrote pipeline.toml (commit it yourself); landing checks: {checks}"));
    } else {
        console.note("pipeline.toml was there and stays as it is");
        if !args.agents.is_empty() {
            console
                .warn("`--agents` was not used: move pipeline.toml away to have it written anew");
        }
    }
    inited.agents.told.iter().for_each(|line| console.note(line));
    inited.agents.warnings.iter().for_each(|line| console.warn(line));
    console.note(&next(args, &inited));
    Ok(())
}

/// Returns what to do next.
fn next(args: &InitArgs, inited: &Inited) -> String {
    let agents = &inited.settings.agents;
    let is_preset = |group: &&AgentGroup| matches!(group.command, AgentCommand::Preset { .. });
    let has_person = agents.iter().any(|group| group.command == AgentCommand::Person);
    let mut presets = agents.iter().filter(is_preset).rev();
    let worker = presets.clone().find(|group| group.name == "implementation");
    let tried = worker.or_else(|| presets.next()).filter(|_| inited.has_written_config);
    let is_placeholder =
        inited.has_written_config && !has_person && args.agents.iter().any(|name| name != "shell");
    match tried {
        _ if agents.is_empty() => {
            "next: name your agents in pipeline.toml, then `pipeline task add TITLE`".to_owned()
        }
        Some(group) => {
            let name = &group.name;
            format!("next: `pipeline agent test {name}`, then `pipeline task add TITLE`")
        }
        None if is_placeholder => {
            "next: fill in the agents' commands in pipeline.toml, then `pipeline task add TITLE`"
                .to_owned()
        }
        None => "next: `pipeline task add TITLE`, then `pipeline monitor`".to_owned(),
    }
}

/// Does the work of `run`, saying nothing.
///
/// # Errors
/// As `run`.
pub fn init(args: &InitArgs, dir: &Path, wait: Duration) -> Result<Inited, Error> {
    let given = existing_config(dir)?;
    let is_bare = match (&given, args.isolation) {
        (_, Some(IsolationArg::None)) => true,
        (Some((settings, _)), None) => settings.project.isolation == Isolation::None,
        (None, None) => false,
    };
    if is_bare { init_folder(args, dir, wait, given) } else { init_repository(args, dir, wait) }
}

/// Reads `pipeline.toml` of `dir`, if there is one; it must be valid.
fn existing_config(dir: &Path) -> Result<Option<(Settings, String)>, Error> {
    let path = dir.join("pipeline.toml");
    let bytes = read_bounded(&path, CONFIG_BYTES_MAX).map_err(|error| {
        Error::invalid(format!("cannot read the settings `{}`", path.display()))
            .because(&error)
            .hint("move it away to have new settings written, or put yours there as a file")
            .at(&path)
    })?;
    let Some(bytes) = bytes else { return Ok(None) };
    let text = String::from_utf8_lossy(&bytes).into_owned();
    let loaded = config::load_in(dir, &text).map_err(|error| config_error(&error).at(&path))?;
    Ok(Some((loaded.settings, text)))
}

/// Turns what is wrong with the settings into an error.
pub fn config_error(error: &config::ConfigError) -> Error {
    match error {
        config::ConfigError::Newer { .. } | config::ConfigError::Older { .. } => {
            Error::busy(error.to_string()).hint(OTHER_VERSION)
        }
        config::ConfigError::Invalid { .. } => Error::invalid(error.to_string()),
    }
}

fn init_folder(
    args: &InitArgs,
    dir: &Path,
    wait: Duration,
    given: Option<(Settings, String)>,
) -> Result<Inited, Error> {
    let layout = Layout::of_folder(dir);
    check_path(&layout)?;
    check_place(&layout)?;
    // Git is not needed here; where it is, what we keep must not be committed with the folder.
    let excluded = excluded(dir)?;
    let mut notes: Vec<String> = clear_remains(&layout, args.force)?.into_iter().collect();
    notes.extend(check_journal(&layout)?);
    let found = Found::default();
    let (settings, text, agents) = match given {
        Some((settings, _)) => {
            if settings.project.isolation != Isolation::None {
                return Err(Error::invalid(
                    "`--isolation none` was asked for, but pipeline.toml says otherwise",
                )
                .at(&layout.config()));
            }
            (settings, None, Written::default())
        }
        None => {
            let (settings, text, agents) =
                write_template(args, dir, "main", &found, Isolation::None)?;
            (settings, Some(text), agents)
        }
    };
    let is_ours = fs::symlink_metadata(layout.dot()).is_ok();
    make_folder(&layout.state)?;
    let is_new = open_journal(&layout, &settings, wait)?;
    layout.folders().iter().try_for_each(|dir| make_folder(dir))?;
    note(&layout, text.as_deref(), excluded.as_ref(), is_ours || !is_new)?;
    excluded.as_ref().map_or(Ok(()), exclude)?;
    let inited = finish(&layout, settings, text.as_deref(), is_new, notes)?;
    Ok(Inited { agents, ..inited })
}

fn init_repository(args: &InitArgs, dir: &Path, wait: Duration) -> Result<Inited, Error> {
    let repo = Repo::discover(dir).map_err(|error| {
        let is_none = matches!(
            error,
            GitError::NotARepository { .. }
                | GitError::NoCommits { .. }
                | GitError::Bare { .. }
                | GitError::NoCheckout { .. }
        );
        if !is_none {
            let told =
                Error::failed(format!("cannot look at the repository of `{}`", dir.display()));
            return told.because_git(&error);
        }
        let told = Error::usage(error.to_string());
        told.hint(error.hint().unwrap_or_default())
            .hint("or go without git: pipeline init --isolation none")
    })?;
    let layout = Layout::of_repository(repo.root(), repo.common_dir());
    check_path(&layout)?;
    let given = existing_config(repo.root())?;
    let git = |error: crate::git::GitError| {
        Error::failed("cannot look at the repository").because(&error)
    };
    let shape = repo.shape().map_err(git)?;
    let wanted = args.base.clone().or_else(|| given.as_ref().map(|(s, _)| s.project.base.clone()));
    let refusals = shape.refusals(wanted.as_deref());
    if let Some((first, rest)) = refusals.split_first() {
        let told = rest.iter().fold(Error::busy(first), |told, next| told.because_of(next));
        return Err(told);
    }
    let base = wanted.or_else(|| shape.branch.clone());
    let base = base.ok_or_else(|| Error::usage("HEAD is detached").hint("say --base BRANCH"))?;
    let full = format!("refs/heads/{base}");
    if repo.read_ref(&full).map_err(git)?.is_none() {
        return Err(Error::usage(format!("there is no branch `{base}`"))
            .hint("say --base with a branch of this repository"));
    }
    check_place(&layout)?;
    let excluded = Excluded { path: exclude_file(&repo), line: EXCLUDE.to_owned() };
    excluded.text()?;
    let mut notes = shape.notes();
    let found = detect::look(repo.root(), |path| is_tracked(&repo, path));
    let worktree = given.as_ref().map(|(settings, _)| &settings.worktree);
    let copied = worktree.map_or(&found.copy, |worktree| &worktree.copy);
    notes.extend(clear_earlier(&repo, &layout, args.force, copied)?);
    let (settings, text, agents) = match given {
        Some((settings, _)) => (settings, None, Written::default()),
        None => {
            let (settings, text, agents) =
                write_template(args, repo.root(), &base, &found, Isolation::Worktree)?;
            (settings, Some(text), agents)
        }
    };
    make_folder(&layout.state)?;
    let is_new = open_journal(&layout, &settings, wait)?;
    layout.folders().iter().try_for_each(|dir| make_folder(dir))?;
    let is_ours = !is_new || fs::symlink_metadata(layout.dot()).is_ok();
    note(&layout, text.as_deref(), Some(&excluded), is_ours)?;
    exclude(&excluded)?;
    link(&layout)?;
    let inited = finish(&layout, settings, text.as_deref(), is_new, notes)?;
    Ok(Inited { agents, ..inited })
}

fn is_tracked(repo: &Repo, path: &Path) -> bool {
    let relative = path.strip_prefix(repo.root()).unwrap_or(path);
    repo.is_tracked(relative).unwrap_or(true)
}

/// Refuses over what an earlier pipeline left without a journal, or keeps it; returns what to tell.
/// `copied`: files of its worktrees that are copies.
fn clear_earlier(
    repo: &Repo,
    layout: &Layout,
    is_forced: bool,
    copied: &[String],
) -> Result<Vec<String>, Error> {
    if is_forced && !has_journal(layout)? {
        check_branches(repo)?;
    }
    let mut notes: Vec<String> = clear_remains(layout, is_forced)?.into_iter().collect();
    notes.extend(check_journal(layout)?);
    if FileStore::is_fresh(&layout.state).map_err(LedgerError::Store)? {
        let has_refs = has_refs(repo)?;
        if has_refs && !is_forced {
            return Err(refs_left(repo)?);
        }
        notes.extend(keep_slots(repo, layout, copied)?);
        if has_refs {
            clear_refs(repo)?;
        }
    }
    Ok(notes)
}

/// Refuses over a state whose journal is gone, or moves its folder aside; returns what to tell.
fn clear_remains(layout: &Layout, is_forced: bool) -> Result<Option<String>, Error> {
    let state = &layout.state;
    if !state.is_dir() || !FileStore::is_lost(state).map_err(LedgerError::Store)? {
        return Ok(None);
    }
    let journal = state.join("journal");
    if !is_forced {
        let text = format!("the journal `{}` is gone, but other state is here", journal.display());
        return Err(Error::new(Kind::Damaged, text).at(&journal).hint(format!(
            "restore `{}` from a backup, or `pipeline init --force` to move it aside",
            state.display()
        )));
    }
    let keepers = fs::read_dir(layout.keepers()).into_iter().flatten().flatten();
    let locks = keepers.map(|entry| rendezvous::lock_path(&entry.path()));
    if locks.chain([layout.monitor_lock()]).any(|lock| is_held(&lock).unwrap_or(true)) {
        return Err(Error::busy(format!("a monitor or agents still run on `{}`", state.display()))
            .hint("wait until they have ended")
            .at(state));
    }
    let name = |n: usize| state.with_file_name(format!("{}-lost-{n}", file_name(state)));
    let aside = (1..=LOST_MAX).map(name).find(|path| fs::symlink_metadata(path).is_err());
    let Some(aside) = aside else {
        return Err(Error::busy(format!(
            "{LOST_MAX} lost states lie beside `{}`",
            state.display()
        ))
        .hint("move them away"));
    };
    fs::rename(state, &aside).map_err(|error| file_error("move aside", state, &error))?;
    Ok(Some(format!("the state without a journal lies in `{}` now", aside.display())))
}

/// Refuses a journal that is damaged, or that another version wrote; returns what reading it says.
fn check_journal(layout: &Layout) -> Result<Vec<String>, Error> {
    if FileStore::is_fresh(&layout.state).map_err(LedgerError::Store)? {
        return Ok(Vec::new());
    }
    let (_, warnings) = Ledger::open(FileStore::open(&layout.state, 0), "init")?;
    Ok(warnings)
}

fn file_name(path: &Path) -> String {
    path.file_name().unwrap_or_default().to_string_lossy().into_owned()
}

/// Returns true when there is a journal that goes on.
fn has_journal(layout: &Layout) -> Result<bool, Error> {
    let is_fresh = FileStore::is_fresh(&layout.state).map_err(LedgerError::Store)?;
    Ok(!is_fresh && !FileStore::is_lost(&layout.state).map_err(LedgerError::Store)?)
}

/// Refuses to take a branch of ours away under somebody who has it checked out.
fn check_branches(repo: &Repo) -> Result<(), Error> {
    let git = |error: GitError| Error::failed("cannot look at the worktrees").because_git(&error);
    for checkout in repo.checkouts().map_err(git)? {
        let branch = checkout.branch.as_deref().filter(|_| !checkout.is_gone).unwrap_or_default();
        let is_ours = branch.starts_with(BRANCHES);
        if is_ours && !repo.is_slot(&checkout.path).map_err(git)? {
            let (path, name) = (checkout.path.display(), branch.trim_start_matches("refs/heads/"));
            let told = Error::busy(format!(
                "cannot start anew: `{name}` is checked out at `{path}`, and would go to salvage"
            ));
            let leave = leave_command(&checkout.path);
            return Err(told.hint(format!("leave it first: {leave}")).at(&checkout.path));
        }
    }
    Ok(())
}

/// Keeps in salvage what lies in worktrees of an earlier pipeline and nowhere else: the first attempt
/// there wipes it. Returns what to tell.
fn keep_slots(repo: &Repo, layout: &Layout, copied: &[String]) -> Result<Vec<String>, Error> {
    let git = |error: GitError| {
        Error::failed("cannot look at worktrees of an earlier pipeline").because_git(&error)
    };
    let mut notes = Vec::new();
    for slot in repo.own_slots(&layout.dot().join("worktrees")).map_err(git)? {
        let names: Vec<_> = slot.iter().rev().take(2).map(|it| it.to_string_lossy()).collect();
        let name = names.iter().rev().map(|it| it.replace(|c| !is_plain(c), "-"));
        let name = format!("init-{}", name.collect::<Vec<_>>().join("-"));
        let mut exclude = copied.to_vec();
        let entries = fs::read_dir(&slot).into_iter().flatten().flatten();
        let entries = entries.map(|entry| entry.file_name().to_string_lossy().into_owned());
        exclude.extend(entries.filter(|it| it.starts_with("TASK-") && it.ends_with(".md")));
        let date_s = SystemClock::start().now().as_ms() / 1000;
        let pin = format!("refs/pipeline/salvage/{name}");
        let kept = repo.keep_slot(&slot, &pin, &exclude, date_s).map_err(|error| {
            let path = shell_path(&slot);
            Error::failed(format!("cannot keep what is in the worktree `{}`", slot.display()))
                .because_git(&error)
                .at(&slot)
                .hint(format!(
                    "take what you want out of it, then: git worktree remove --force {path}"
                ))
        })?;
        if kept {
            notes.push(format!(
                "what the worktree `{}` held is in salvage now: pipeline salvage show {name}",
                slot.display()
            ));
        }
    }
    Ok(notes)
}

fn is_plain(letter: char) -> bool {
    letter.is_ascii_alphanumeric() || letter == '_'
}

/// Returns the refusal over refs that an earlier pipeline left.
fn refs_left(repo: &Repo) -> Result<Error, Error> {
    let refs = repo.list_refs(BRANCHES).map_err(move_error)?;
    let names: Vec<&str> = refs.iter().take(3).map(|(name, _)| name.as_str()).collect();
    let names = names.join(", ");
    let what = format!("refs of an earlier pipeline are here ({names}…), but no journal");
    Ok(Error::new(Kind::Damaged, what)
        .hint("restore `.git/pipeline`, or `pipeline init --force` to move them to salvage"))
}

fn move_error(error: GitError) -> Error {
    Error::failed("cannot move refs").because(&error)
}

/// Moves refs that an earlier pipeline left to salvage.
fn clear_refs(repo: &Repo) -> Result<(), Error> {
    let refs = repo.list_refs(BRANCHES).map_err(move_error)?;
    for (name, _) in refs {
        let short = name.trim_start_matches("refs/heads/pipeline/").replace('/', "-");
        repo.move_to_salvage(&name, &format!("init-{short}")).map_err(move_error)?;
    }
    Ok(())
}

/// What is to be said of the agents that were written.
#[derive(Debug, Default)]
pub struct Written {
    told: Vec<String>,
    warnings: Vec<String>,
}

/// Returns the settings, their text, and what is to be said of the agents in them.
fn write_template(
    args: &InitArgs,
    root: &Path,
    base: &str,
    found: &Found,
    isolation: Isolation,
) -> Result<(Settings, String, Written), Error> {
    let choice = agents::choose(&args.agents, root)?;
    let posts = template::posts(&choice.presets);
    let agents = match args.agents.as_slice() {
        _ if !posts.is_empty() => Agents::Presets(&posts),
        [] => Agents::Example,
        [one] if one == "shell" => Agents::Shell,
        names => Agents::Named(names),
    };
    let launcher = match args.launcher {
        Some(LauncherArg::Tmux) => LauncherKind::Tmux,
        Some(LauncherArg::Process) | None => LauncherKind::Process,
    };
    let text = template::render(&Template { base, found, agents, isolation, launcher });
    let loaded = config::load_in(root, &text).map_err(|error| {
        Error::usage("these agents would not make a valid pipeline.toml").because(&error)
    })?;
    let agents = Written {
        told: agents::told(&choice, &posts, root),
        warnings: agents::warnings(&choice, &loaded.settings),
    };
    Ok((loaded.settings, text, agents))
}

/// Makes the journal with its first checkpoint; false: there is one already.
fn open_journal(layout: &Layout, settings: &Settings, wait: Duration) -> Result<bool, Error> {
    let at = SystemClock::start().now();
    let state = State::new(settings.clone(), at);
    let json = Json::of(&state_value(&state))
        .map_err(|error| Error::failed("cannot write the first checkpoint").because(&error))?;
    let first = Checkpoint { seq: 0, time: at, state: json };
    match FileStore::create(&layout.state, &first, wait) {
        Ok(_) => {
            let document = state_document(&state, 0, at);
            write_view(&layout.state, &document, at)
                .map_err(|error| file_error("write state.json in", &layout.state, &error))?;
            Ok(true)
        }
        Err(StoreError::Exists { .. }) => Ok(false),
        Err(error) => Err(LedgerError::Store(error).into()),
    }
}

fn finish(
    layout: &Layout,
    settings: Settings,
    text: Option<&str>,
    is_new: bool,
    notes: Vec<String>,
) -> Result<Inited, Error> {
    if let Some(text) = text {
        let path = layout.config();
        write_atomic(&path, text.as_bytes(), Durability::Power)
            .and_then(|()| fs::set_permissions(&path, mode(0o644)))
            .map_err(|error| file_error("write", &path, &error))?;
    }
    Ok(Inited {
        root: layout.root.clone(),
        settings,
        has_written_config: text.is_some(),
        is_new,
        notes,
        agents: Written::default(),
    })
}

fn mode(bits: u32) -> fs::Permissions {
    std::os::unix::fs::PermissionsExt::from_mode(bits)
}

/// Returns the repository's own exclude file.
pub fn exclude_file(repo: &Repo) -> PathBuf {
    repo.common_dir().join("info/exclude")
}

/// Where the line goes that keeps our folder out of the user's git.
pub struct Excluded {
    /// The repository's own exclude file.
    pub path: PathBuf,
    pub line: String,
}

impl Excluded {
    fn text(&self) -> Result<Option<String>, Error> {
        exclude_text(&self.path).map_err(|error| file_error("read", &self.path, &error))
    }
}

/// Returns the line that keeps the folder `dir/.pipeline` out of the repository around it, and its
/// place; `None` where there is no repository, or no git.
pub fn excluded(dir: &Path) -> Result<Option<Excluded>, Error> {
    let Some((path, below)) = crate::git::exclude_of(dir) else { return Ok(None) };
    let mut line = String::from("/");
    for c in below.chars() {
        // They would be a pattern's.
        line.extend(r"\*?[".contains(c).then_some('\\'));
        line.push(c);
    }
    let found = Excluded { path, line: line + ".pipeline/" };
    found.text()?;
    Ok(Some(found))
}

/// Notes what is about to be written, for `deinit`; `is_ours`: where an earlier pipeline was, the line
/// in the exclude file is ours.
fn note(
    layout: &Layout,
    config: Option<&str>,
    excluded: Option<&Excluded>,
    is_ours: bool,
) -> Result<(), Error> {
    let before = excluded.map(|excluded| {
        let before = Exclude::before(&excluded.path, &excluded.line);
        Exclude { had_line: before.had_line && !is_ours, ..before }
    });
    InitRecord::note(&layout.state, config, before)
        .map_err(|error| file_error("write a note in", &layout.state, &error))
}

/// Adds our line to the repository's own exclude file, once.
fn exclude(excluded: &Excluded) -> Result<(), Error> {
    let Excluded { path, line } = excluded;
    let text = excluded.text()?.unwrap_or_default();
    if text.lines().any(|found| found.trim() == line) {
        return Ok(());
    }
    let gap = if text.is_empty() || text.ends_with('\n') { "" } else { "\n" };
    fs::create_dir_all(path.parent().unwrap_or(path))
        .and_then(|()| fs::OpenOptions::new().create(true).append(true).open(path))
        .and_then(|mut file| file.write_all(format!("{gap}{line}\n").as_bytes()))
        .map_err(|error| file_error("write", path, &error))
}

fn link(layout: &Layout) -> Result<(), Error> {
    let link = layout.dot().join("state");
    layout.link().map_err(|error| match error.kind() {
        std::io::ErrorKind::AlreadyExists => in_the_way(&link),
        _ => file_error("make", &link, &error),
    })
}

fn in_the_way(path: &Path) -> Error {
    Error::busy(format!("`{}` is in the way", path.display()))
        .hint("move it away: it is where the state goes, or the link to it")
        .at(path)
}

/// Refuses where something else stands in the state's place, before anything is made.
fn check_place(layout: &Layout) -> Result<(), Error> {
    layout.in_the_way().map_or(Ok(()), |path| Err(in_the_way(&path)))
}

fn make_folder(path: &Path) -> Result<(), Error> {
    fs::create_dir_all(path).map_err(|error| file_error("make", path, &error))
}

fn file_error(what: &str, path: &Path, error: &std::io::Error) -> Error {
    Error::failed(format!("cannot {what} `{}`", path.display())).because(error).at(path)
}
