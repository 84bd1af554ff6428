//! What there is to take out, found anew each time.

use std::collections::BTreeSet;
use std::fmt;
use std::fs;
use std::path::{Path, PathBuf};

use walkdir::WalkDir;
use xxhash_rust::xxh3::xxh3_64;

use super::{NAMED_MAX, git};
use crate::agent::rendezvous::KeeperInfo;
use crate::agent::terminal::tmux;
use crate::cli::args::DeinitArgs;
use crate::cli::error::Error;
use crate::cli::init::{EXCLUDE, Excluded, exclude_file, excluded};
use crate::cli::init_record::{Exclude, InitRecord, exclude_text};
use crate::cli::project::{CONFIG_BYTES_MAX, Project};
use crate::config::layout::Layout;
use crate::git::{Checkout, CutOff, Oid, Repo};
use crate::machine::State;
use crate::machine::task::TaskPhase;
use crate::machine::time::Time;
use crate::monitor::finished::{self, Due};
use crate::sys::file::{read_bounded, shell_path};

/// Where our branches are.
const BRANCHES: &str = "refs/heads/pipeline/";
/// Where our hidden refs are.
const HIDDEN: &str = "refs/pipeline/";
/// Folders and files that the program makes below `.pipeline`, but for worktrees.
const OWN: [&str; 2] = ["state", "tests"];

/// One thing to do; done twice it is done once.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Step {
    /// Puts unlanded work into a file.
    Bundle {
        path: PathBuf,
        names: Vec<(String, Oid)>,
    },
    RemoveSlot(PathBuf),
    /// A person's worktree that is clean.
    RemoveCheckout(PathBuf),
    RemoveRef {
        name: String,
        oid: Oid,
    },
    /// A socket of a keeper or of tmux at which nobody listens.
    RemoveSocket(PathBuf),
    /// Our line in the exclude file.
    RestoreExclude {
        path: PathBuf,
        line: String,
        before: Exclude,
    },
    RemoveFile(PathBuf),
    /// A folder and all that is in it.
    RemoveTree(PathBuf),
    /// The folders below that are empty, and itself.
    RemoveEmpty(PathBuf),
    /// The folder of the state.
    RemoveState(PathBuf),
}

impl fmt::Display for Step {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Bundle { path, names } => {
                let count = counted(names.len(), "ref");
                write!(f, "put the work of {count} into `{}`", path.display())
            }
            Self::RemoveSlot(path) | Self::RemoveCheckout(path) => {
                write!(f, "remove the worktree `{}`", path.display())
            }
            Self::RemoveRef { name, oid } => write!(f, "remove `{name}`, which was {oid}"),
            Self::RemoveSocket(path) => write!(f, "remove the socket `{}`", path.display()),
            Self::RestoreExclude { path, line, .. } => {
                write!(f, "take the line `{line}` out of `{}`", path.display())
            }
            Self::RemoveFile(path) => write!(f, "remove `{}`", path.display()),
            Self::RemoveTree(path) | Self::RemoveEmpty(path) | Self::RemoveState(path) => {
                write!(f, "remove the folder `{}`", path.display())
            }
        }
    }
}

impl Step {
    /// Returns the path that is gone afterwards, with all below it.
    fn removed(&self) -> Option<&Path> {
        match self {
            Self::RemoveSlot(path)
            | Self::RemoveCheckout(path)
            | Self::RemoveSocket(path)
            | Self::RemoveFile(path)
            | Self::RemoveTree(path)
            | Self::RemoveState(path) => Some(path),
            Self::Bundle { .. }
            | Self::RemoveRef { .. }
            | Self::RestoreExclude { .. }
            | Self::RemoveEmpty(_) => None,
        }
    }

    /// Says why its folder stays: somebody else's things are in it; `None`: it does not.
    pub fn kept_by(&self, ahead: &[Self]) -> Option<String> {
        let Self::RemoveEmpty(folder) = self else { return None };
        // Git names its worktrees so.
        let root = fs::canonicalize(folder).ok()?;
        let goes = |path: &Path| {
            ahead.iter().filter_map(Self::removed).any(|gone| {
                gone == path || {
                    let below = gone.strip_prefix(folder);
                    below.is_ok_and(|below| path == root.join(below))
                }
            })
        };
        let entries = WalkDir::new(&root).sort_by_file_name().into_iter();
        let left = entries.filter_entry(|entry| !goes(entry.path())).flatten();
        let mut left = left.filter(|entry| !entry.file_type().is_dir());
        let first = left.next()?;
        let name = first.path().strip_prefix(&root).unwrap_or(first.path()).display().to_string();
        let more = match left.count() {
            0 => String::new(),
            count => format!(" and {count} more"),
        };
        Some(format!("`{}` stays: it holds `{name}`{more}", folder.display()))
    }
}

/// All there is to do, in that order.
#[derive(Debug, Default)]
pub struct Plan {
    pub steps: Vec<Step>,
    /// What stays, and why.
    pub kept: Vec<String>,
    /// What a person has in the way, each with what to type.
    in_way: Vec<(String, String)>,
    /// Work that would be lost, in words.
    unlanded: Vec<String>,
}

impl Plan {
    /// Looks at what there is; `state` is `None` where its folder is gone already.
    ///
    /// # Errors
    /// When git fails.
    pub fn of(project: &Project, state: Option<&State>, args: &DeinitArgs) -> Result<Self, Error> {
        let Project { layout, repo } = project;
        let mut plan = Self::default();
        if let Some(repo) = repo {
            plan.repository(layout, repo, state, args)?;
        }
        plan.sockets(layout);
        let record = InitRecord::read(&layout.state);
        if state.is_some() {
            plan.steps.extend(exclude(layout, repo.as_ref(), record.as_ref()));
        }
        plan.config(layout, repo.as_ref(), record.as_ref())?;
        plan.folders(layout, repo.as_ref(), state)?;
        for aside in asides(layout) {
            plan.kept.push(format!("`{}` stays: a state without a journal", aside.display()));
        }
        let gone = removed(&layout.state);
        // Calls that move refs make a folder for their gates there.
        let has_gates = plan.steps.iter().any(|step| matches!(step, Step::RemoveRef { .. }));
        let is_there = layout.state.is_dir() || has_gates;
        plan.steps.extend(is_there.then(|| Step::RemoveState(layout.state.clone())));
        plan.steps.extend(gone.is_dir().then_some(Step::RemoveState(gone)));
        if repo.is_none() && layout.dot().exists() {
            plan.steps.push(Step::RemoveEmpty(layout.dot()));
        }
        Ok(plan)
    }

    /// Returns the file that unlanded work goes to.
    pub fn bundle(&self) -> Option<&Path> {
        self.steps.iter().find_map(|step| match step {
            Step::Bundle { path, .. } => Some(path.as_path()),
            _ => None,
        })
    }

    /// Returns what stays, each with its reason; also the folders that hold something which neither a
    /// step has removed nor one that is still `ahead` will.
    pub fn stays(&self, ahead: &[Step]) -> Vec<String> {
        let folders = self.steps.iter().filter_map(|step| step.kept_by(ahead));
        self.kept.iter().cloned().chain(folders).collect()
    }

    /// Refuses where something would be lost.
    ///
    /// # Errors
    /// [`Kind::Busy`](crate::cli::exit_code::Kind::Busy).
    pub fn refusal(&self) -> Result<(), Error> {
        if let Some((first, _)) = self.in_way.first() {
            let told = Error::busy(format!("cannot take the pipeline out: {first}"));
            let rest = self.in_way[1..].iter().take(NAMED_MAX);
            let told = rest.fold(told, |told, (what, _)| told.because_of(what.as_str()));
            let hints = self.in_way.iter().take(NAMED_MAX);
            return Err(hints.fold(told, |told, (_, hint)| told.hint(hint.as_str())));
        }
        if self.unlanded.is_empty() {
            return Ok(());
        }
        let count = self.unlanded.len();
        let noun = if count == 1 { "ref holds" } else { "refs hold" };
        let told = Error::busy(format!(
            "cannot take the pipeline out: {count} {noun} work that has not landed"
        ));
        let named = self.unlanded.iter().take(NAMED_MAX);
        let mut told = named.fold(told, |told, name| told.because_of(name.as_str()));
        if count > NAMED_MAX {
            told = told.because_of(format!("and {} more", count - NAMED_MAX));
        }
        Err(told
            .hint("merge what you want: `git merge BRANCH`; `pipeline salvage drop` drops what not")
            .hint("--keep-branches leaves the branches; --force puts all into a file first"))
    }

    fn repository(
        &mut self,
        layout: &Layout,
        repo: &Repo,
        state: Option<&State>,
        args: &DeinitArgs,
    ) -> Result<(), Error> {
        let mut names = repo.list_refs(HIDDEN).map_err(git)?;
        let branches = repo.list_refs(BRANCHES).map_err(git)?;
        if args.keep_branches && !branches.is_empty() {
            let count = branches.len();
            self.kept.push(format!("{count} branches below `pipeline/` stay"));
        } else {
            names.extend(branches.iter().cloned());
        }
        let unlanded = repo.unlanded(&names, args.keep_branches).map_err(git)?;
        let slots_dir = state.map_or(layout.dot().join("worktrees"), |state| {
            layout.root.join(&state.settings.worktree.dir)
        });
        let slots = repo.own_slots(&slots_dir).map_err(git)?;
        let keep = state.map_or(&[][..], |state| &state.settings.worktree.keep);
        self.slots(&slots, layout, repo, state);
        self.checkouts(layout, repo, &slots, (args, keep))?;
        if args.force && !unlanded.is_empty() {
            let text: String =
                unlanded.iter().map(|(name, oid)| format!("{oid} {name}\n")).collect();
            let name = format!("pipeline-unlanded-{:016x}.bundle", xxh3_64(text.as_bytes()));
            let path = repo.common_dir().join(name);
            self.steps.insert(0, Step::Bundle { path, names: unlanded });
        } else {
            self.unlanded = unlanded.into_iter().map(|(name, _)| name).collect();
        }
        self.steps.extend(slots.into_iter().map(Step::RemoveSlot));
        if slots_dir.exists() {
            self.steps.push(Step::RemoveEmpty(slots_dir));
        }
        // With a ref whose commit is gone git finds no bundle whole: it goes first.
        let kept = repo.kept().map_err(git)?;
        let is_gone = |name: &str| kept.iter().any(|kept| kept.is_gone && kept.name == name);
        for (name, oid) in names {
            let at = if is_gone(&name) { 0 } else { self.steps.len() };
            self.steps.insert(at, Step::RemoveRef { name, oid });
        }
        if let Some(state) = state {
            let branch = &state.settings.landing.branch;
            let is_outside = !branch.starts_with("pipeline/");
            if is_outside && repo.read_ref(&format!("refs/heads/{branch}")).map_err(git)?.is_some()
            {
                self.kept
                    .push(format!("the landing branch `{branch}` stays: it has your own name"));
            }
        }
        Ok(())
    }

    /// Looks at the worktrees of agents: what could not be saved, and what a person did there, is in no
    /// ref, and never forced away.
    fn slots(&mut self, slots: &[PathBuf], layout: &Layout, repo: &Repo, state: Option<&State>) {
        let due = state.map(|state| Due::of(state, layout, Time::default(), &BTreeSet::new()));
        for slot in due.map_or(Vec::new(), |due| due.touched(layout, repo, slots)) {
            let (path, word) = (slot.display(), shell_path(&slot));
            self.in_way.push((
                format!("the worktree `{path}` holds what came after its last attempt"),
                format!(
                    "keep what you want of it (commits: git -C {word} branch NAME), then: \
                     git worktree remove --force {word}"
                ),
            ));
        }
        for (end, attempt) in state.into_iter().flat_map(finished::unsaved) {
            let of_attempt = slots.iter().filter(|slot| slot.ends_with(&end) && slot.exists());
            self.in_way.extend(of_attempt.map(|slot| {
                let (path, word) = (slot.display(), shell_path(slot));
                (
                    format!("the worktree `{path}` alone holds what `{attempt}` left"),
                    format!(
                        "take what you want out of it, then: git worktree remove --force {word}"
                    ),
                )
            }));
        }
    }

    /// Looks at the worktrees of people, which are never forced away.
    fn checkouts(
        &mut self,
        layout: &Layout,
        repo: &Repo,
        slots: &[PathBuf],
        (args, keep): (&DeinitArgs, &[String]),
    ) -> Result<(), Error> {
        for checkout in repo.checkouts().map_err(git)? {
            if slots.contains(&checkout.path) {
                continue;
            }
            let (path, word) = (checkout.path.display(), shell_path(&checkout.path));
            let branch = checkout.branch.as_deref().unwrap_or_default();
            let is_removed = checkout.path.starts_with(layout.dot());
            let is_free = checkout.is_gone || args.keep_branches || is_removed;
            if branch.starts_with(BRANCHES) && !is_free {
                let branch = branch.trim_start_matches("refs/heads/");
                self.in_way.push((
                    format!("`{branch}` is checked out at `{path}`"),
                    format!("go to another branch there: git -C {word} switch BRANCH"),
                ));
            } else if is_removed && let Some(what) = unsaved(repo, &checkout, keep)? {
                self.in_way.push((
                    format!("the worktree `{path}` holds {what}"),
                    format!("keep it elsewhere, or take all away: git worktree move {word} DIR"),
                ));
            } else if is_removed && repo.has_modules(&checkout).map_err(git)? {
                self.in_way.push((
                    format!("the worktree `{path}` holds submodules with commits of their own"),
                    format!("when you need none of them: git worktree remove --force {word}"),
                ));
            } else if is_removed && let Some(head) = loose(repo, &checkout, args)? {
                self.in_way.push((
                    format!("the worktree `{path}` holds commits that no branch of yours has"),
                    if checkout.is_gone {
                        format!("it is gone; give them one: git branch NAME {head}")
                    } else {
                        format!("give them one: git -C {word} switch -c NAME")
                    },
                ));
            } else if is_removed && checkout.is_gone && CutOff::of(&checkout.path).is_none() {
                // Where somebody moved it, it is needed.
                self.kept.push(format!(
                    "git's entry for the worktree `{path}`, which is gone, stays: where you moved it, \
                     type: git worktree repair; else: git worktree prune"
                ));
            } else if is_removed {
                self.steps.push(Step::RemoveCheckout(checkout.path));
            }
        }
        Ok(())
    }

    /// Sockets that killed keepers, and tmux, left.
    fn sockets(&mut self, layout: &Layout) {
        let keepers = layout.keepers();
        let dirs = fs::read_dir(&keepers).into_iter().flatten().flatten();
        let infos = dirs.filter_map(|dir| KeeperInfo::read(&dir.path()));
        let mut sockets: Vec<PathBuf> = Vec::new();
        for info in infos {
            let runtime = info.socket.parent().map(Path::to_owned);
            sockets.extend(runtime.map(|dir| tmux::server_socket(&dir, &keepers)));
            sockets.push(info.socket);
        }
        sockets.sort();
        sockets.dedup();
        sockets.retain(|path| fs::symlink_metadata(path).is_ok());
        self.steps.extend(sockets.into_iter().map(Step::RemoveSocket));
    }

    /// `pipeline.toml` goes when it is as `init` wrote it and in nobody's commit.
    fn config(
        &mut self,
        layout: &Layout,
        repo: Option<&Repo>,
        record: Option<&InitRecord>,
    ) -> Result<(), Error> {
        let path = layout.config();
        let bytes = read_bounded(&path, CONFIG_BYTES_MAX).ok().flatten();
        let Some(bytes) = bytes else { return Ok(()) };
        let is_tracked = match repo {
            Some(repo) => repo.is_tracked(Path::new("pipeline.toml")).map_err(git)?,
            None => false,
        };
        if is_tracked {
            self.kept.push("pipeline.toml stays: it is in your git".into());
        } else if record.is_some_and(|record| record.has_written(&bytes)) {
            self.steps.push(Step::RemoveFile(path));
        } else {
            self.kept.push("pipeline.toml stays: it is not as `init` wrote it".into());
        }
        Ok(())
    }

    /// What lies in `.pipeline`, and the current-task file wherever it is.
    fn folders(
        &mut self,
        layout: &Layout,
        repo: Option<&Repo>,
        state: Option<&State>,
    ) -> Result<(), Error> {
        if let Some(state) = state {
            let open = state.tasks.values().filter(|task| !task.is_final());
            let waits = |phase: &TaskPhase| !matches!(phase, TaskPhase::Landing { .. });
            let count = open.filter(|task| waits(&task.phase)).count();
            if count > 0 {
                let count = counted(count, "open task");
                self.kept.push(format!("known to the journal alone, and gone with it: {count}"));
            }
            let current = layout.root.join(&state.settings.project.current_task_file);
            if fs::symlink_metadata(&current).is_ok_and(|meta| meta.is_file()) {
                self.steps.push(Step::RemoveFile(current));
            }
        }
        let cut_off = CutOff::all(&layout.hands()).into_iter();
        self.steps.extend(cut_off.map(|it| Step::RemoveTree(it.rest)));
        let dot = layout.dot();
        for entry in fs::read_dir(&dot).into_iter().flatten().flatten() {
            let (path, name) = (entry.path(), entry.file_name());
            let is_folder = entry.file_type().is_ok_and(|kind| kind.is_dir());
            let is_temp = path.extension().is_some_and(|it| it == "tmp");
            let is_own = OWN.iter().any(|own| name == *own);
            if path == layout.state || path == removed(&layout.state) {
                continue;
            }
            let is_link = entry.file_type().is_ok_and(|kind| kind.is_symlink());
            // With git the state lies elsewhere, and what is no link to it is a person's.
            let is_foreign = repo.is_some() && name == "state" && !is_link;
            let below = path.strip_prefix(&layout.root).unwrap_or(&path);
            let is_tracked = match repo {
                Some(repo) if is_own || is_temp => repo.is_tracked(below).map_err(git)?,
                Some(_) | None => false,
            };
            if is_foreign || is_tracked {
                continue;
            }
            match (is_own, is_folder) {
                (true, true) => self.steps.push(Step::RemoveTree(path)),
                (true, false) => self.steps.push(Step::RemoveFile(path)),
                (false, false) if is_temp => self.steps.push(Step::RemoveFile(path)),
                (false, _) => {}
            }
        }
        // Without git the state lies there until the end.
        if dot.exists() && !layout.state.starts_with(&dot) {
            self.steps.push(Step::RemoveEmpty(dot));
        }
        Ok(())
    }
}

/// Returns the step that takes our line out of the exclude file, where it is there.
fn exclude(layout: &Layout, repo: Option<&Repo>, record: Option<&InitRecord>) -> Option<Step> {
    let noted = record.and_then(|record| record.exclude);
    let (Excluded { path, line }, before) = match repo {
        Some(repo) => {
            let usual =
                Exclude { had_folder: true, was_there: true, had_line: false, was_open: false };
            let place = Excluded { path: exclude_file(repo), line: EXCLUDE.to_owned() };
            (place, noted.unwrap_or(usual))
        }
        // The repository may have come, gone or moved since.
        None => (excluded(&layout.root).ok()??, noted?),
    };
    let text = exclude_text(&path).ok().flatten().unwrap_or_default();
    before.without(&text, &line)?;
    Some(Step::RestoreExclude { path, line, before })
}

/// Returns what in a worktree is in no commit, in words; `keep`: what a setup leaves there.
fn unsaved(repo: &Repo, checkout: &Checkout, keep: &[String]) -> Result<Option<String>, Error> {
    if checkout.is_gone {
        return Ok(None);
    }
    let Some(hand) = repo.hand_at(&checkout.path).map_err(git)? else {
        return Ok(Some("what git cannot look at".to_owned()));
    };
    if let Some(what) = hand.under_way {
        return Ok(Some(format!("a {what} under way")));
    }
    let ignored = hand.ignored_but(keep);
    Ok(match (hand.unsaved.first(), ignored.as_slice()) {
        (Some(_), _) => Some("what is not committed".to_owned()),
        (None, []) => None,
        (None, [one]) => Some(format!("`{one}`, which git ignores")),
        (None, [one, more @ ..]) => {
            Some(format!("`{one}` and {} more, which git ignores", more.len()))
        }
    })
}

/// Returns the commit at which a detached worktree stands, where no ref that stays holds it.
fn loose(repo: &Repo, checkout: &Checkout, args: &DeinitArgs) -> Result<Option<Oid>, Error> {
    let head = checkout.head.as_ref().filter(|_| checkout.branch.is_none());
    let Some(head) = head else { return Ok(None) };
    let head = [(String::new(), head.clone())];
    let loose = repo.unlanded(&head, args.keep_branches).map_err(git)?;
    Ok(loose.into_iter().next().map(|(_, head)| head))
}

/// Returns a count with its noun.
fn counted(count: usize, noun: &str) -> String {
    let ending = match (count, noun.ends_with('h')) {
        (1, _) => "",
        (_, true) => "es",
        (_, false) => "s",
    };
    format!("{count} {noun}{ending}")
}

/// Returns where the state lies while it is being removed.
pub fn removed(state: &Path) -> PathBuf {
    let name = state.file_name().unwrap_or_default().to_string_lossy().into_owned();
    state.with_file_name(format!("{name}-removed"))
}

/// Returns states that `init --force` moved aside.
fn asides(layout: &Layout) -> Vec<PathBuf> {
    let name = layout.state.file_name().unwrap_or_default().to_string_lossy();
    let begin = format!("{name}-lost-");
    let entries = layout.state.parent().and_then(|dir| fs::read_dir(dir).ok());
    let names = entries.into_iter().flatten().flatten();
    let found = names.filter(|it| it.file_name().to_string_lossy().starts_with(&begin));
    found.map(|entry| entry.path()).collect()
}

/// Finds a place that has no journal (any more): what a killed run left, or a repository.
pub fn remains(dir: &Path) -> Option<(Layout, Option<Repo>)> {
    for above in dir.ancestors() {
        let layout = Layout::of_folder(above);
        if removed(&layout.state).is_dir() {
            return Some((layout, None));
        }
        if above.join(".git").exists() {
            break;
        }
    }
    let repo = Repo::discover(dir).ok()?;
    Some((Layout::of_repository(repo.root(), repo.common_dir()), Some(repo)))
}
