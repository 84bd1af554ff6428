//! Makes an attempt's worktree ready: branch, checkout, copies, setup, task file.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::mpsc::channel;
use std::time::Duration;

use super::ahead::Prefetch;
use super::brief::{self, Brief, Role};
use super::job::Places;
use super::mend;
use super::report::{SetupEnd, Watch};
use super::work::{Fault, oid, refs};
use crate::agent::Launcher;
use crate::agent::client::Keepers;
use crate::agent::job::{AttemptRef, EndedBy, Job, JobCommand};
use crate::agent::probe::Probe;
use crate::agent::tree;
use crate::git::{Cas, Changed, GitError, Oid, Repo, SlotReady, SlotRequest};
use crate::machine::Observation;
use crate::machine::id::{AttemptId, TaskId};
use crate::machine::outside::Found;
use crate::machine::settings::Worktree;
use crate::sys::file::write_anew;

/// Files whose change makes `setup` run again.
const LOCKFILES: [&str; 14] = [
    "package.json",
    "package-lock.json",
    "pnpm-lock.yaml",
    "yarn.lock",
    "pyproject.toml",
    "uv.lock",
    "poetry.lock",
    "requirements.txt",
    "Cargo.toml",
    "Cargo.lock",
    "go.mod",
    "go.sum",
    "Gemfile",
    "Gemfile.lock",
];
/// How long the strays of a dead keeper get to leave.
const STRAYS_GRACE: Duration = Duration::from_secs(2);

/// All that preparing needs, copied from the state.
#[derive(Debug)]
pub struct Prepare {
    pub attempt: AttemptId,
    pub agent: String,
    /// `None` for checks of a commit.
    pub task: Option<TaskId>,
    /// Tip of the task branch by the record.
    pub tip: Option<String>,
    /// Where a new task branch starts; or the commit to check.
    pub start: String,
    /// Salvaged work to go on from.
    pub resume: Option<String>,
    pub merge: Option<String>,
    pub worktree: Worktree,
    pub places: Places,
    pub root: PathBuf,
    pub brief: Option<Brief>,
    /// The setup job, ready to be ordered; `None`: there is no setup.
    pub setup: Option<Job>,
    /// A monitor before this one may have begun it.
    pub is_inherited: bool,
}

/// Carries it out.
///
/// # Errors
/// In words; the attempt then ends as infrastructure.
pub fn run(
    prepare: &Prepare,
    repo: &Repo,
    keepers: &Keepers,
    watch: &Arc<Watch>,
    prefetch: &Prefetch,
    tell: &dyn Fn(Observation),
) -> Result<Observation, Fault> {
    if prepare.is_inherited {
        end_leftovers(prepare, keepers, watch)?;
    }
    let attempt = || prepare.attempt.clone();
    let role = match prepare.brief.as_ref().map(|brief| brief.role(&prepare.root)) {
        Some(Err(unusable)) if unusable.is_passing => return Err(Fault(unusable.to_string())),
        Some(Err(unusable)) => {
            return Ok(Observation::CannotStart { attempt: attempt(), why: unusable.to_string() });
        }
        Some(Ok(role)) => Some(role),
        None => None,
    };
    fs::create_dir_all(&prepare.places.attempt_dir)
        .map_err(|error| Fault::file("make", &prepare.places.attempt_dir, &error))?;
    let tip = match &prepare.task {
        Some(task) if prepare.brief.is_some() => Some(task_tip(prepare, repo, task)?),
        Some(_) | None => None,
    };
    let Start { at, is_resumed } = start(prepare, repo, tip.as_deref())?;
    let merge = prepare.merge.as_deref().map(oid).transpose()?;
    let is_ready = prefetch.take(&prepare.places.dir, at.as_str());
    let request = SlotRequest {
        path: &prepare.places.dir,
        at: &at,
        keep: &prepare.worktree.keep,
        merge: merge.as_ref(),
        // Of what is kept nothing was when it was made ready.
        is_ready: is_ready && prepare.worktree.keep.is_empty(),
    };
    let ready = make_ready(prepare, repo, &request, tell)?;
    copy(&prepare.root, &prepare.worktree.copy, &prepare.places.dir)?;
    if is_setup_due(&ready.changed)
        && let Some(why) = set_up(prepare, repo, keepers, watch, &at)?
    {
        return Ok(Observation::SetupFailed { attempt: attempt(), why });
    }
    if let (Some(brief), Some(role)) = (&prepare.brief, &role) {
        if let Some(why) = taken_name(prepare) {
            return Ok(Observation::CannotStart { attempt: attempt(), why });
        }
        let mut brief = brief.clone();
        if prepare.resume.is_some() && !is_resumed {
            brief.set_apart();
        }
        if prepare.merge.is_some() {
            brief.set_merge(ready.conflicts);
        }
        write_brief(prepare, repo, &brief, role)?;
        if let Some(prompt) = &role.hash {
            tell(Observation::Briefed { attempt: attempt(), prompt: prompt.clone() });
        }
    }
    Ok(Observation::Prepared {
        attempt: attempt(),
        base: Some(crate::machine::id::Oid::new(at.as_str())),
        tip: tip.map(crate::machine::id::Oid::new),
    })
}

/// Makes the slot stand where it is to. What somebody put there while nobody worked in it is kept in
/// salvage first, and told.
fn make_ready(
    prepare: &Prepare,
    repo: &Repo,
    request: &SlotRequest<'_>,
    tell: &dyn Fn(Observation),
) -> Result<SlotReady, Fault> {
    let slot = match repo.prepare_slot(request) {
        Err(GitError::Disturbed { path }) => path,
        ready => return Ok(ready?),
    };
    let pin = refs::salvage(&format!("{}.slot", prepare.attempt));
    let places = repo.keep_disturbed(&slot, &pin, request.keep)?;
    if !places.is_empty() {
        let (slot, places) = (slot.display(), places.join(" and "));
        let words = format!("worktree {slot}: what came there is kept in {places}");
        let found = vec![Found::plain(words)];
        tell(Observation::OutsideSeen { ran: Vec::new(), found, more: 0, is_first: false });
    }
    repo.end_rest(&slot)?;
    Ok(repo.prepare_slot(request)?)
}

/// Where a worktree begins.
struct Start {
    at: Oid,
    /// At the work of an attempt that was cut short.
    is_resumed: bool,
}

/// Returns where the worktree begins; `tip` is that of the task branch.
fn start(prepare: &Prepare, repo: &Repo, tip: Option<&str>) -> Result<Start, Fault> {
    let at = oid(tip.unwrap_or(&prepare.start))?;
    if let (Some(resume), Some(_)) = (&prepare.resume, tip) {
        let resume = oid(resume)?;
        if brief::is_resumable(repo, &at, &resume)? {
            return Ok(Start { at: resume, is_resumed: true });
        }
    }
    Ok(Start { at, is_resumed: false })
}

/// Returns the tip of the task branch, which is made when the record knows none.
fn task_tip(prepare: &Prepare, repo: &Repo, task: &TaskId) -> Result<String, Fault> {
    let name = refs::task(task);
    let start = oid(&prepare.start)?;
    let Some(tip) = &prepare.tip else {
        make_branch(repo, &name, &start)?;
        return Ok(start.to_string());
    };
    let tip = oid(tip)?;
    if !is_behind(prepare, repo, &tip)? {
        if let Cas::Moved(found) = repo.cas_ref(&name, Some(&tip), None)? {
            bring_back(repo, &name, &tip, found.as_ref(), None)?;
        }
        return Ok(tip.to_string());
    }
    if mend::held_in(repo, &name)?.is_some() {
        return Ok(start.to_string());
    }
    let mut from = tip.clone();
    if let Some(found) = repo.read_ref(&name)?
        && repo.is_ancestor(&tip, &found)?
        && repo.is_ancestor(&found, &start)?
    {
        // An earlier try has moved it on, and could not say so.
        from = found;
    }
    match repo.cas_ref(&name, Some(&start), Some(&from))? {
        Cas::Done => Ok(start.to_string()),
        Cas::Moved(found) => {
            put_back(repo, &name, &tip, found.as_ref(), Some(&from))?;
            Ok(tip.to_string())
        }
    }
}

/// Makes a task's branch at `start`. What stands there is kept in salvage, unless it has nothing of its
/// own: then an earlier try made it, and could not say so.
fn make_branch(repo: &Repo, name: &str, start: &Oid) -> Result<(), Fault> {
    let Cas::Moved(found) = repo.cas_ref(name, Some(start), None)? else { return Ok(()) };
    let own = match &found {
        Some(found) if repo.is_ancestor(found, start)? => Some(found),
        Some(_) | None => None,
    };
    bring_back(repo, name, start, found.as_ref(), own)
}

/// Puts a task's branch back, but for one that somebody has checked out: the work goes on from where
/// it is to be all the same. `own`: as for [`put_back`].
fn bring_back(
    repo: &Repo,
    name: &str,
    to: &Oid,
    found: Option<&Oid>,
    own: Option<&Oid>,
) -> Result<(), Fault> {
    if found == Some(to) || mend::held_in(repo, name)?.is_some() {
        return Ok(());
    }
    put_back(repo, name, to, found, own)
}

/// Returns whether something has landed since and the branch has nothing of its own: it goes on from
/// there.
fn is_behind(prepare: &Prepare, repo: &Repo, tip: &Oid) -> Result<bool, Fault> {
    let start = oid(&prepare.start)?;
    let has_own = prepare.resume.is_some() || prepare.merge.is_some();
    Ok(!has_own && start != *tip && repo.is_ancestor(tip, &start)?)
}

/// Moves a branch of ours back to where the record has it; what was found goes to salvage. Where it
/// turns up at `own`, which it had by the record, it goes on from there.
pub fn put_back(
    repo: &Repo,
    name: &str,
    to: &Oid,
    found: Option<&Oid>,
    own: Option<&Oid>,
) -> Result<(), Fault> {
    let short = name.rsplit('/').next().unwrap_or(name);
    if let Some(found) = found.filter(|found| Some(*found) != own) {
        let kept = refs::salvage(&format!("{short}.found-{}", found.short()));
        repo.cas_ref(&kept, Some(found), None)?;
    }
    let mut cas = repo.cas_ref(name, Some(to), found)?;
    if own.is_some() && matches!(&cas, Cas::Moved(other) if other.as_ref() == own) {
        // Put back meanwhile, as by the record.
        cas = repo.cas_ref(name, Some(to), own)?;
    }
    match cas {
        Cas::Done => Ok(()),
        Cas::Moved(_) => Err(Fault(format!("`{name}` is being moved by somebody else"))),
    }
}

fn is_setup_due(changed: &Changed) -> bool {
    match changed {
        Changed::Everything => true,
        Changed::Paths(paths) => paths.iter().any(|path| {
            let name = Path::new(path).file_name().unwrap_or_default();
            LOCKFILES.iter().any(|lockfile| name == *lockfile)
        }),
    }
}

/// Copies files that git does not track from the main checkout; a missing one is left out, and a
/// link that is named itself counts as what it points to.
///
/// # Errors
/// A link of the repository is in the way; the file system's own.
pub fn copy(root: &Path, names: &[String], dir: &Path) -> Result<(), Fault> {
    for name in names {
        let (from, to) = (root.join(name), dir.join(name));
        for entry in walkdir::WalkDir::new(&from).follow_links(false) {
            let Ok(entry) = entry else { continue };
            let Ok(below) = entry.path().strip_prefix(&from) else { continue };
            let to = if below.as_os_str().is_empty() { to.clone() } else { to.join(below) };
            let kind = if entry.depth() == 0 {
                fs::metadata(entry.path()).map(|meta| meta.file_type()).ok()
            } else {
                Some(entry.file_type())
            };
            if let Some(link) = link_on_way(dir, &to) {
                let why = "it is a symbolic link in the repository";
                return Err(Fault(format!("cannot copy to `{}`: {why}", link.display())));
            }
            let copied = if kind.is_some_and(|kind| kind.is_dir()) {
                fs::create_dir_all(&to)
            } else if kind.is_some_and(|kind| kind.is_file()) {
                let parent = to.parent().map_or(Ok(()), fs::create_dir_all);
                parent.and_then(|()| fs::copy(entry.path(), &to).map(|_| ()))
            } else {
                Ok(())
            };
            copied.map_err(|error| Fault::file("copy to", &to, &error))?;
        }
    }
    Ok(())
}

/// Returns the first symbolic link below `dir` on the way to `path`: writing there could leave the
/// worktree.
fn link_on_way(dir: &Path, path: &Path) -> Option<PathBuf> {
    let mut way = dir.to_owned();
    path.strip_prefix(dir).ok()?.components().find_map(|part| {
        way.push(part);
        let is_link = fs::symlink_metadata(&way).is_ok_and(|meta| meta.is_symlink());
        is_link.then(|| way.clone())
    })
}

/// Runs `setup`; returns why it failed, where it did so by itself. What it says is its own: nobody may
/// take that for what git or the system says to us.
fn set_up(
    prepare: &Prepare,
    repo: &Repo,
    keepers: &Keepers,
    watch: &Arc<Watch>,
    at: &Oid,
) -> Result<Option<String>, Fault> {
    let Some(job) = &prepare.setup else { return Ok(None) };
    fs::create_dir_all(&job.attempt_dir)
        .map_err(|error| Fault::file("make", &job.attempt_dir, &error))?;
    let (sender, receiver) = channel();
    watch.add_setup(&job.attempt, sender);
    keepers.start(&prepare.agent, job.clone());
    match receiver.recv() {
        Ok(SetupEnd::Exited(record)) if record.code == Some(0) => {
            repo.mark_set_up(&prepare.places.dir, at)?;
            Ok(None)
        }
        Ok(SetupEnd::Exited(record)) if record.left > 0 => {
            Err(Fault("setup failed, and what it left running cannot be ended".into()))
        }
        Ok(SetupEnd::Exited(record)) => {
            // Nothing has worked here yet, and half a setup is no ground for the next one.
            repo.remove_slot(&prepare.places.dir)?;
            if record.ended_by == EndedBy::SpawnFailed {
                return Err(Fault(format!("setup could not be started: {}", record.reason)));
            }
            let name = match job.commands.get(record.command_index) {
                Some(JobCommand::Shell(text)) => text.clone(),
                Some(JobCommand::Argv(words)) => words.join(" "),
                None => "setup".into(),
            };
            let tail = super::report::tail_of(&job.log);
            Ok(Some(format!("setup `{name}` failed ({})\n{tail}", ending(&record))))
        }
        Ok(SetupEnd::Gone { why, found }) => {
            end_strays(found)?;
            Err(Fault(format!("setup did not end: {why}")))
        }
        Ok(SetupEnd::Unreachable) | Err(_) => Err(Fault("setup was given up".into())),
    }
}

fn ending(record: &crate::agent::job::ExitRecord) -> String {
    match (record.code, record.signal) {
        (Some(code), _) => format!("status {code}"),
        (None, Some(signal)) => format!("signal {signal}"),
        (None, None) => record.reason.clone(),
    }
}

/// Waits for, or ends, what a monitor before this one started for the attempt.
fn end_leftovers(prepare: &Prepare, keepers: &Keepers, watch: &Arc<Watch>) -> Result<(), Fault> {
    let Some(job) = &prepare.setup else { return Ok(()) };
    let reference = AttemptRef {
        attempt: job.attempt.clone(),
        nonce: job.nonce.clone(),
        attempt_dir: job.attempt_dir.clone(),
    };
    loop {
        let found = keepers
            .probe(&prepare.agent, &reference)
            .map_err(|error| Fault(format!("cannot look for a setup under way: {error}")))?;
        match found {
            Probe::KeeperAlive => {
                let (sender, receiver) = channel();
                watch.add_setup(&job.attempt, sender);
                keepers.adopt(&prepare.agent, &reference);
                // However it ended: the checkout and, where due, setup are done again.
                match receiver.recv() {
                    Ok(SetupEnd::Unreachable) => {}
                    Ok(SetupEnd::Gone { found, .. }) => break end_strays(found)?,
                    Ok(SetupEnd::Exited(_)) | Err(_) => break,
                }
            }
            Probe::Exited(_)
            | Probe::Strays(_)
            | Probe::Elsewhere
            | Probe::Started(_)
            | Probe::Nothing => {
                break end_strays(Some(found))?;
            }
        }
    }
    // Its records are of the same nonce: the next run of setup must not take them for its own.
    match fs::remove_dir_all(&job.attempt_dir) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            Err(Fault::file("remove", &job.attempt_dir, &error))
        }
        Ok(()) | Err(_) => Ok(()),
    }
}

/// Ends what a dead keeper left of a setup: it must not run on beside the next one, in the same
/// worktree.
fn end_strays(found: Option<Probe>) -> Result<(), Fault> {
    let Some(Probe::Strays(started)) = found else { return Ok(()) };
    tree::end_orphans(&started, STRAYS_GRACE)
        .map_err(|error| Fault(format!("cannot end a setup under way: {error}")))?;
    Ok(())
}

/// Returns why the task file cannot be put where it belongs: after a clean checkout only the
/// repository itself, or `[worktree] copy`, can have a file there.
fn taken_name(prepare: &Prepare) -> Option<String> {
    let path = &prepare.places.task_file;
    fs::symlink_metadata(path).ok()?;
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    Some(format!(
        "`{name}` is a file of the repository, so it cannot be the task file: add the task again \
         with another id, or rename the file"
    ))
}

/// Returns a line of an excludes file that fits this path alone, from the worktree's root.
fn exclude_line(path: &str) -> String {
    let mut line = String::from("/");
    for letter in path.trim_matches('/').chars() {
        if "\\*?[]!# ".contains(letter) {
            line.push('\\');
        }
        line.push(letter);
    }
    line
}

fn write_brief(prepare: &Prepare, repo: &Repo, brief: &Brief, role: &Role) -> Result<(), Fault> {
    let places = &prepare.places;
    brief
        .write_task_file(&places.task_file)
        .map_err(|error| Fault(format!("cannot write the task file: {error}")))?;
    brief
        .write_prompt(&places.prompt_file, role)
        .map_err(|error| Fault::file("write", &places.prompt_file, &error))?;
    let mut excludes = repo.user_excludes()?;
    let name = places.task_file.file_name().unwrap_or_default().to_string_lossy();
    excludes.push(b'\n');
    for path in prepare.worktree.copy.iter().map(String::as_str).chain([&*name]) {
        excludes.extend(exclude_line(path).bytes());
        excludes.push(b'\n');
    }
    write_anew(&places.excludes, &excludes)
        .map_err(|error| Fault::file("write", &places.excludes, &error))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::git::scratch::Scratch;

    #[test]
    fn a_branch_that_a_failed_try_made_is_moved_on_and_one_with_work_is_kept() {
        let scratch = Scratch::new();
        let (repo, name) = (&scratch.repo, refs::task(&TaskId::new("A")));
        let old = scratch.rev("HEAD");
        let (start, mine) = (scratch.commit_on(&old, "b", "b"), scratch.commit_on(&old, "c", "c"));
        for (found, kept) in [(None, 0), (Some(&old), 0), (Some(&start), 0), (Some(&mine), 1)] {
            if let Some(found) = found {
                scratch.git(["update-ref", &name, found.as_str()]);
            }
            make_branch(repo, &name, &start).unwrap();
            assert_eq!(repo.read_ref(&name).unwrap().as_ref(), Some(&start));
            assert_eq!(repo.list_salvage().unwrap().len(), kept, "{found:?}");
        }
    }
}
