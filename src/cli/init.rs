//! `pipeline init`: looks at the repository, writes the settings, opens the journal.

use std::fs;
use std::io::Write;
use std::path::Path;
use std::time::Duration;

use super::args::{InitArgs, IsolationArg, LauncherArg};
use super::console::Console;
use super::error::Error;
use super::exit_code::Kind;
use super::project::{CONFIG_BYTES_MAX, has_refs};
use crate::config;
use crate::config::detect::{self, Found};
use crate::config::layout::Layout;
use crate::config::template::{self, Agents, Template};
use crate::git::Repo;
use crate::machine::State;
use crate::machine::mode::Isolation;
use crate::machine::settings::Settings;
use crate::observe::document::state_document;
use crate::store::format::state_value;
use crate::store::journal::FileStore;
use crate::store::view::write_view;
use crate::store::{Checkpoint, Json, StoreError};
use crate::sys::clock::{Clock, SystemClock};
use crate::sys::file::{Durability, read_bounded, write_atomic};

/// The line that keeps our folder out of the user's git.
const EXCLUDE: &str = "/.pipeline/";

/// What init found and did, for the one who called it.
#[derive(Debug)]
pub struct Inited {
    pub settings: Settings,
    /// False: there was one, and it stays.
    pub has_written_config: bool,
    /// False: the pipeline was set up before.
    pub is_new: bool,
    pub notes: Vec<String>,
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
    let what = if inited.is_new { "set up" } else { "already set up; nothing was changed" };
    console.note(what);
    if inited.has_written_config {
        let checks = &settings.landing.checks;
        let checks = if checks.is_empty() { "none found".to_owned() } else { checks.join(", ") };
        console
            .note(&format!("wrote pipeline.toml (commit it yourself); landing checks: {checks}"));
    } else {
        console.note("pipeline.toml was there and stays as it is");
    }
    if settings.agents.is_empty() {
        console.note("next: name your agents in pipeline.toml, then `pipeline task add TITLE`");
    } else {
        console.note("next: `pipeline task add TITLE`, then `pipeline monitor`");
    }
    Ok(())
}

/// Does the work of `run`, saying nothing.
///
/// # Errors
/// As `run`.
pub fn init(args: &InitArgs, dir: &Path, wait: Duration) -> Result<Inited, Error> {
    if args.launcher == Some(LauncherArg::Tmux) {
        return Err(Error::usage("`--launcher tmux` is not built yet").hint("use `process`"));
    }
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
    let bytes = read_bounded(&path, CONFIG_BYTES_MAX)
        .map_err(|error| Error::invalid("cannot read the settings").because(&error).at(&path))?;
    let Some(bytes) = bytes else { return Ok(None) };
    let text = String::from_utf8_lossy(&bytes).into_owned();
    let loaded = config::load(&text).map_err(|error| config_error(&error).at(&path))?;
    Ok(Some((loaded.settings, text)))
}

/// Turns what is wrong with the settings into an error.
pub fn config_error(error: &config::ConfigError) -> Error {
    match error {
        config::ConfigError::Newer { .. } => Error::new(Kind::Busy, error.to_string()),
        config::ConfigError::Older { .. } | config::ConfigError::Invalid { .. } => {
            Error::invalid(error.to_string())
        }
    }
}

fn init_folder(
    args: &InitArgs,
    dir: &Path,
    wait: Duration,
    given: Option<(Settings, String)>,
) -> Result<Inited, Error> {
    let layout = Layout::of_folder(dir);
    let found = Found::default();
    let (settings, text) = match given {
        Some((settings, _)) => {
            if settings.project.isolation != Isolation::None {
                return Err(Error::invalid(
                    "`--isolation none` was asked for, but pipeline.toml says otherwise",
                )
                .at(&layout.config()));
            }
            (settings, None)
        }
        None => {
            let (settings, text) = write_template(args, "main", &found, Isolation::None)?;
            (settings, Some(text))
        }
    };
    fs::create_dir_all(&layout.state).map_err(|error| file_error("make", &layout.state, &error))?;
    let is_new = open_journal(&layout, &settings, wait)?;
    finish(&layout, settings, text.as_deref(), is_new, Vec::new())
}

fn init_repository(args: &InitArgs, dir: &Path, wait: Duration) -> Result<Inited, Error> {
    let repo = Repo::discover(dir).map_err(|error| {
        let told = Error::usage(error.to_string());
        match error.hint() {
            Some(hint) => told.hint(hint),
            None => told,
        }
        .hint("or go without git: pipeline init --isolation none")
    })?;
    let layout = Layout::of_repository(repo.root(), repo.common_dir());
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
    if FileStore::is_fresh(&layout.state).unwrap_or(false) && has_refs(&repo)? {
        clear_refs(&repo, args.force)?;
    }
    let found = detect::look(repo.root(), |path| is_tracked(&repo, path));
    let (settings, text) = match given {
        Some((settings, _)) => (settings, None),
        None => {
            let (settings, text) = write_template(args, &base, &found, Isolation::Worktree)?;
            (settings, Some(text))
        }
    };
    fs::create_dir_all(&layout.state).map_err(|error| file_error("make", &layout.state, &error))?;
    let is_new = open_journal(&layout, &settings, wait)?;
    exclude(&repo)?;
    link(&layout)?;
    finish(&layout, settings, text.as_deref(), is_new, shape.notes())
}

fn is_tracked(repo: &Repo, path: &Path) -> bool {
    let relative = path.strip_prefix(repo.root()).unwrap_or(path);
    repo.is_tracked(relative).unwrap_or(true)
}

/// Refuses over refs that an earlier pipeline left, or moves them to salvage.
fn clear_refs(repo: &Repo, is_forced: bool) -> Result<(), Error> {
    let git = |error: crate::git::GitError| Error::failed("cannot move refs").because(&error);
    let refs = repo.list_refs("refs/heads/pipeline/").map_err(git)?;
    if !is_forced {
        let names: Vec<&str> = refs.iter().take(3).map(|(name, _)| name.as_str()).collect();
        return Err(Error::new(
            Kind::Damaged,
            format!("refs of an earlier pipeline are here ({}…), but no journal", names.join(", ")),
        )
        .hint("restore `.git/pipeline`, or `pipeline init --force` to move them to salvage"));
    }
    for (name, _) in refs {
        let short = name.trim_start_matches("refs/heads/pipeline/").replace('/', "-");
        repo.move_to_salvage(&name, &format!("init-{short}")).map_err(git)?;
    }
    Ok(())
}

fn write_template(
    args: &InitArgs,
    base: &str,
    found: &Found,
    isolation: Isolation,
) -> Result<(Settings, String), Error> {
    let agents = match args.agents.as_slice() {
        [] => Agents::Example,
        [one] if one == "shell" => Agents::Shell,
        names => Agents::Named(names),
    };
    let text = template::render(&Template { base, found, agents, isolation });
    let loaded = config::load(&text).map_err(|error| {
        Error::usage("these agents would not make a valid pipeline.toml").because(&error)
    })?;
    Ok((loaded.settings, text))
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
        Err(error) => Err(crate::store::ledger::LedgerError::Store(error).into()),
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
    Ok(Inited { settings, has_written_config: text.is_some(), is_new, notes })
}

fn mode(bits: u32) -> fs::Permissions {
    std::os::unix::fs::PermissionsExt::from_mode(bits)
}

/// Adds our line to the repository's own exclude file, once.
fn exclude(repo: &Repo) -> Result<(), Error> {
    let dir = repo.common_dir().join("info");
    let path = dir.join("exclude");
    let text = match fs::read_to_string(&path) {
        Ok(text) => text,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => String::new(),
        Err(error) => return Err(file_error("read", &path, &error)),
    };
    if text.lines().any(|line| line.trim() == EXCLUDE) {
        return Ok(());
    }
    let gap = if text.is_empty() || text.ends_with('\n') { "" } else { "\n" };
    fs::create_dir_all(&dir)
        .and_then(|()| fs::OpenOptions::new().create(true).append(true).open(&path))
        .and_then(|mut file| file.write_all(format!("{gap}{EXCLUDE}\n").as_bytes()))
        .map_err(|error| file_error("write", &path, &error))
}

fn link(layout: &Layout) -> Result<(), Error> {
    let link = layout.dot().join("state");
    layout.link().map_err(|error| match error.kind() {
        std::io::ErrorKind::AlreadyExists => {
            Error::busy(format!("`{}` is in the way", link.display()))
                .hint("move it away: it is where the link to the state goes")
        }
        _ => file_error("make", &link, &error),
    })
}

fn file_error(what: &str, path: &Path, error: &std::io::Error) -> Error {
    Error::failed(format!("cannot {what} `{}`", path.display())).because(error).at(path)
}
