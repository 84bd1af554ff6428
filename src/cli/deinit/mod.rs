//! `pipeline deinit`: takes the pipeline out of a repository, and leaves it as it was before `init`.
//!
//! Nothing is noted of how far it came: what is left is looked at anew, and the journal goes last, by
//! one rename. Killed anywhere it goes on when it is run again.

mod perform;
mod plan;

use std::path::Path;
use std::time::Duration;

use serde_json::json;

use super::alone;
use super::args::{DeinitArgs, StopArgs};
use super::console::{Console, Format};
use super::error::Error;
use super::exit_code::{Exit, Kind};
use super::gate::Gate;
use super::monitor::{self as runs, Manner};
use super::project::{Open, Project, has_remains};
use super::views::page;
use crate::config::layout::Layout;
use crate::git::{GitError, Repo};
use crate::observe::page::broken;
use crate::store::lock::{FileLock, read_owner};
use crate::sys::file::shell_path;
use plan::{Plan, Step};

/// How long a git may go on in a checkout whose monitor died.
const GIT_WAIT_MAX: Duration = Duration::from_secs(60);
/// Things that are named in a refusal, at most.
const NAMED_MAX: usize = 5;

/// `pipeline deinit`.
///
/// # Errors
/// A monitor or agents run, work would be lost, something of a person's is in the way; what cannot be
/// removed.
pub fn run(
    args: &DeinitArgs,
    dir: &Path,
    manner: Manner,
    console: &mut Console<'_>,
) -> Result<(), Error> {
    let project = match Project::find(dir) {
        Ok(project) => project,
        Err(error) => return without_journal(args, dir, error, console),
    };
    let layout = project.layout.clone();
    let mut open = project.open(manner.lock_wait)?;
    open.warnings.drain(..).for_each(|warning| console.warn(&warning));
    let busy = busy(&open);
    if args.dry_run {
        let plan = Plan::of(&open.project, Some(open.now().0), args)?;
        tell(console, "would  ", &plan, &plan.steps.iter().collect::<Vec<_>>(), &plan.steps)?;
        return match busy {
            Some(busy) if !args.force => Err(busy),
            Some(_) => {
                console.note("what runs would be ended first, and its work saved");
                plan.refusal()
            }
            None => plan.refusal(),
        };
    }
    if let Some(busy) = busy {
        if !args.force {
            return Err(busy);
        }
        open = end_all(open, manner, console)?;
    } else {
        Plan::of(&open.project, Some(open.now().0), args)?.refusal()?;
    }
    let _alone = alone::take(&layout, "deinit", "take the pipeline out")?;
    // A command may have been at work until now.
    open.state()?;
    check_saved(&open)?;
    let plan = Plan::of(&open.project, Some(open.now().0), args)?;
    plan.refusal()?;
    carry_out(&plan, &layout, open.project.repo.as_ref(), manner.lock_wait, console)
}

/// Goes on where a run of before was killed, or takes out the branches that it was to leave.
fn without_journal(
    args: &DeinitArgs,
    dir: &Path,
    error: Error,
    console: &mut Console<'_>,
) -> Result<(), Error> {
    let Some((layout, repo)) = plan::remains(dir) else { return Err(error) };
    let is_damaged = error.kind == Kind::Damaged;
    if !is_damaged && error.kind != Kind::Usage {
        return Err(error);
    }
    // What is left of a state is for `doctor` and `init --force`: nobody knows what it held.
    let slots = repo.as_ref().map(|repo| repo.own_slots(&layout.dot())).transpose();
    let has_slots = slots.map_err(git)?.is_some_and(|slots| !slots.is_empty());
    if is_damaged && (has_slots || has_remains(&layout.state)) {
        return Err(error);
    }
    let project = Project { layout: layout.clone(), repo };
    let plan = Plan::of(&project, None, args)?;
    if plan.steps.is_empty() {
        let root = layout.root.display();
        console.note(&format!("nothing of a pipeline is left in `{root}`"));
    }
    if args.dry_run {
        tell(console, "would  ", &plan, &plan.steps.iter().collect::<Vec<_>>(), &plan.steps)?;
        return plan.refusal();
    }
    plan.refusal()?;
    let wait = Duration::ZERO;
    carry_out(&plan, &layout, project.repo.as_ref(), wait, console)
}

fn carry_out(
    plan: &Plan,
    layout: &Layout,
    repo: Option<&Repo>,
    wait: Duration,
    console: &mut Console<'_>,
) -> Result<(), Error> {
    let _held = layout.state.is_dir().then(|| hold(layout, wait)).transpose()?;
    // What is needed to end one lies in the state.
    repo.map_or(Ok(()), |repo| repo.end_left_steps(GIT_WAIT_MAX)).map_err(git)?;
    let mut done: Vec<&Step> = Vec::new();
    for step in &plan.steps {
        if let Err(error) = perform::step(step, layout, repo) {
            tell(console, "done   ", plan, &done, &[])?;
            return Err(error.hint("what is done is done: run `pipeline deinit` again"));
        }
        done.push(step);
    }
    tell(console, "done   ", plan, &done, &[])
}

/// Keeps others from writing the state, before anything is removed.
fn hold(layout: &Layout, wait: Duration) -> Result<FileLock, Error> {
    let path = layout.state.join("lock");
    let held = FileLock::exclusive(&path, "deinit", wait).map_err(|error| {
        Error::failed(format!("cannot lock `{}`", path.display())).because(&error).at(&path)
    })?;
    let owner = || read_owner(&path).map_or(String::new(), |owner| format!(": {owner}"));
    held.ok_or_else(|| {
        Error::busy(format!("another process writes the state{}", owner()))
            .hint("nothing is removed; try again when it has ended")
            .at(&path)
    })
}

/// Prints the steps, and what stays once those `ahead` are done: a folder in which somebody has
/// something is no step.
fn tell(
    console: &mut Console<'_>,
    mark: &str,
    plan: &Plan,
    steps: &[&Step],
    ahead: &[Step],
) -> Result<(), Error> {
    let kept = plan.stays(ahead);
    let steps: Vec<&&Step> = steps.iter().filter(|step| step.kept_by(ahead).is_none()).collect();
    match console.format {
        Format::Json => {
            let steps: Vec<String> = steps.iter().map(ToString::to_string).collect();
            let bundle = plan.bundle().map(|path| path.to_string_lossy());
            console.json(&json!({ "steps": steps, "kept": kept, "bundle": bundle }))?;
        }
        Format::Text => {
            let (indent, columns) = (mark.len(), page(console).columns());
            for step in &steps {
                let lines = broken(&step.to_string(), columns.saturating_sub(indent + 2));
                let rest = format!("\n{:indent$}  ", "");
                console.line(&format!("{mark}{}", lines.join(&rest)))?;
            }
            kept.iter().for_each(|line| console.note(line));
            if let Some(path) = plan.bundle().filter(|_| !steps.is_empty()) {
                let path = shell_path(path);
                console.note(&format!(
                    "to take the work back: git fetch {path} 'refs/*:refs/heads/unlanded/*'"
                ));
            }
        }
    }
    Ok(())
}

fn git(error: GitError) -> Error {
    Error::failed("cannot look at what the pipeline left in the repository").because_git(&error)
}

/// Returns why the pipeline cannot be taken out while it works.
fn busy(open: &Open) -> Option<Error> {
    let root = open.project.layout.root.display();
    let what = format!("cannot take the pipeline out of `{root}`");
    let path = open.project.layout.monitor_lock();
    let told = if open.has_monitor() {
        let owner = read_owner(&path).map_or(String::new(), |owner| format!(": {owner}"));
        Error::busy(format!("{what} while a monitor runs{owner}")).at(&path)
    } else {
        let attempts = &open.now().0.attempts;
        if attempts.is_empty() {
            return None;
        }
        let named = attempts.values().take(NAMED_MAX);
        let told = Error::busy(format!("{what} while agents are at work"));
        named.fold(told, |told, it| told.because_of(format!("`{}` by `{}`", it.id, it.agent)))
    };
    Some(told.hint("`pipeline stop --now` ends them and saves their work, as --force does"))
}

/// Ends monitor and agents; their work is saved.
fn end_all(open: Open, manner: Manner, console: &mut Console<'_>) -> Result<Open, Error> {
    let project = Project::find(&open.project.layout.root)?;
    let stop = StopArgs { drain: false, now: true };
    if runs::stop(&stop, open, manner, console)? != Exit::Done {
        let what = "cannot take the pipeline out: interrupted before all agents had ended";
        return Err(Error::new(Kind::Interrupted, what)
            .hint("nothing is removed; `pipeline deinit --force` goes on"));
    }
    project.open(manner.lock_wait)
}

/// Refuses while there are attempts: an agent may have ended, and nobody has saved its work.
fn check_saved(open: &Open) -> Result<(), Error> {
    let attempts = &open.now().0.attempts;
    if attempts.is_empty() {
        return Ok(());
    }
    let told = Error::busy("cannot take the pipeline out: agents' work is not saved yet");
    let named = attempts.values().take(NAMED_MAX);
    let told =
        named.fold(told, |told, it| told.because_of(format!("`{}` by `{}`", it.id, it.agent)));
    Err(told
        .hint("`pipeline deinit --force` saves it, as `pipeline stop --now` does; say it again"))
}
