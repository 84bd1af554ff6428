//! What the state says of the world, and how the world is: attempts, keepers, worktrees, refs, base.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use walkdir::WalkDir;

use super::finding::Finding;
use crate::agent::protocol::PROTOCOL_VERSION;
use crate::agent::rendezvous::{self, KeeperInfo};
use crate::cli::orphans::{self, Orphan, left_socket};
use crate::cli::project::{Open, Project};
use crate::cli::repair;
use crate::git::{CutOff, GitError, Kept};
use crate::machine::State;
use crate::machine::attempt::AttemptPhase;
use crate::machine::settings::Settings;
use crate::machine::shell::shell_word;
use crate::monitor::mend::Mend;
use crate::observe::lane::{self, Lane};
use crate::observe::words::differing_mode;
use crate::store::lock::is_held;
use crate::sys::file::shell_path;

/// Worktrees that no agent of ours has, below `worktree.dir`: of an agent, its slots.
const SLOT_DEPTH: usize = 2;

/// Finds folders of attempts that the journal does not know.
pub fn attempts_of_nobody(project: &Project, state: &State) -> Vec<Finding> {
    // The state may be older than the folder of an attempt that begins right now.
    if is_held(&project.layout.monitor_lock()).unwrap_or(true) {
        return Vec::new();
    }
    let found = orphans::all(project, state).into_iter();
    // A repair removes those that are old, and says so itself.
    let young = found.filter(|orphan| matches!(orphan, Orphan::Attempt { is_due: false, .. }));
    young
        .map(|orphan| {
            let path = orphan.path();
            Finding::warning(
                "attempts",
                format!("`{}` belongs to no attempt that the journal knows", path.display()),
                format!("look at what is in it, then type: rm -r {}", shell_path(path)),
            )
        })
        .collect()
}

/// Finds what a repair would do to a project whose journal is sound.
pub fn leftovers(project: &Project) -> Option<Finding> {
    let has_monitor = is_held(&project.layout.monitor_lock()).unwrap_or(true);
    let steps = if has_monitor { Vec::new() } else { repair::plan(project).unwrap_or_default() };
    let found = match steps.as_slice() {
        [] => return None,
        [one] => format!("a repair would {one}"),
        [first, rest @ ..] => format!("a repair would {first}, and {} things more", rest.len()),
    };
    Some(Finding::warning("leftovers", found, "`pipeline doctor --repair` does it; -n lists all"))
}

pub fn monitor(open: &Open) -> Finding {
    let found = if open.has_monitor() { "runs" } else { "does not run" };
    Finding::good("monitor", found)
}

/// Finds attempts that ended while nobody looked.
pub fn attempts(project: &Project, state: &State) -> Vec<Finding> {
    let has_monitor = is_held(&project.layout.monitor_lock()).unwrap_or(false);
    let running = state.attempts.values().filter(|a| a.phase == AttemptPhase::Running);
    let mut findings = Vec::new();
    for attempt in running {
        let dir = project.layout.keepers().join(attempt.agent.as_str());
        let is_alive = is_held(&rendezvous::lock_path(&dir)).unwrap_or(true);
        if !is_alive && !has_monitor {
            findings.push(Finding::warning(
                "attempts",
                format!("{} ended while no monitor ran", attempt.id),
                "start `pipeline monitor`: it takes the outcome up",
            ));
        }
    }
    findings
}

/// Looks at every keeper: alive or dead, and of which version.
pub fn keepers(project: &Project) -> Vec<Finding> {
    let entries = fs::read_dir(project.layout.keepers()).into_iter().flatten().flatten();
    let mut dirs: Vec<PathBuf> = entries.map(|entry| entry.path()).collect();
    dirs.sort();
    let mut alive = 0_usize;
    let mut findings = Vec::new();
    for dir in &dirs {
        let is_alive = is_held(&rendezvous::lock_path(dir)).unwrap_or(true);
        alive += usize::from(is_alive);
        findings.extend(keeper(dir, is_alive));
    }
    if alive > 0 {
        let noun = if alive == 1 { "agent is" } else { "agents are" };
        findings.insert(0, Finding::good("keepers", format!("{alive} {noun} held")));
    }
    findings
}

fn keeper(dir: &Path, is_alive: bool) -> Option<Finding> {
    let agent = dir.file_name().unwrap_or_default().to_string_lossy();
    let warn = |found: String, remedy: String| Some(Finding::warning("keepers", found, remedy));
    let info = KeeperInfo::read(dir);
    let process = info.as_ref().and_then(|info| info.process().ok().flatten());
    // One that nobody has waited for yet is dead all the same.
    let process = process.filter(|process| !process.has_ended());
    match (&info, process.is_some()) {
        (Some(info), true) if is_alive => {
            let older = older(info)?;
            warn(
                format!("that of agent `{agent}`, process {}, is {older}", info.pid),
                "it is spoken to as it understands; `pipeline stop --drain` and `pipeline \
                 monitor` replace it"
                    .into(),
            )
        }
        // One that leaves gives its lock back and removes its socket before it ends.
        (Some(info), true) if !rendezvous::lock_path(dir).exists() => warn(
            format!("that of agent `{agent}`, process {}, lost its lock file", info.pid),
            format!("kill {}: its attempt is then run again", info.pid),
        ),
        (Some(_), false) if left_socket(dir).is_some() => warn(
            format!("that of agent `{agent}` was killed"),
            "`pipeline monitor` starts another one; its socket: `pipeline doctor --repair`".into(),
        ),
        (None, _) | (Some(_), false) if is_alive => warn(
            format!("that of agent `{agent}` has its lock and does not say where it listens"),
            "look again; if it stays so: pipeline stop --now".into(),
        ),
        (Some(_) | None, _) => None,
    }
}

/// Says what is older about a keeper, or other; `None`: it is of this very program.
fn older(info: &KeeperInfo) -> Option<String> {
    let ours = env!("CARGO_PKG_VERSION");
    let program = info.program.as_deref();
    if info.protocol < PROTOCOL_VERSION || program != Some(ours) {
        let program = program.unwrap_or("unknown");
        let protocol = info.protocol;
        return Some(format!(
            "of version {program} (protocol {protocol}), this is {ours} (protocol \
             {PROTOCOL_VERSION})"
        ));
    }
    let exe = fs::read_link(format!("/proc/{}/exe", info.pid)).ok()?;
    let is_replaced = exe.as_os_str().as_encoded_bytes().ends_with(b" (deleted)");
    is_replaced.then(|| "of a program file that was replaced since".into())
}

/// Compares the worktrees that git knows of with the folders that are there.
pub fn worktrees(project: &Project, state: &State) -> Vec<Finding> {
    let Some(repo) = &project.repo else { return Vec::new() };
    let found = repo.own_slots(&project.layout.root.join(&state.settings.worktree.dir));
    let dir = project.layout.root.join(&state.settings.worktree.dir);
    let known = found.and_then(|own| Ok((own, repo.checkouts()?)));
    let (own, all) = match known {
        Ok(known) => known,
        Err(error) => return vec![of_git("worktrees", &error)],
    };
    let mut findings = Vec::new();
    // One that is being made is known to git before it is there.
    let has_monitor = is_held(&project.layout.monitor_lock()).unwrap_or(true);
    for slot in own.iter().filter(|slot| !slot.is_dir() && !has_monitor) {
        findings.push(Finding::warning(
            "worktrees",
            format!("`{}` is gone, and git still has an entry for it", slot.display()),
            "`pipeline monitor` makes it again where it is needed; `pipeline doctor --repair` \
             removes the entry",
        ));
    }
    let known: BTreeSet<&Path> =
        own.iter().chain(all.iter().map(|it| &it.path)).map(PathBuf::as_path).collect();
    for path in unknown(&dir, &known) {
        findings.push(Finding::warning(
            "worktrees",
            format!("git knows nothing of the folder `{}`", path.display()),
            format!("look at what is in it, then type: rm -r {}", shell_path(&path)),
        ));
    }
    findings.extend(hands(state));
    findings.extend(CutOff::all(&project.layout.hands()).iter().map(cut_off));
    if findings.is_empty() {
        let noun = if own.len() == 1 { "worktree" } else { "worktrees" };
        findings.push(Finding::good("worktrees", format!("{} {noun} of agents", own.len())));
    }
    findings
}

/// Returns the folders at the places of slots that are none, sorted.
fn unknown(dir: &Path, known: &BTreeSet<&Path>) -> Vec<PathBuf> {
    let Ok(dir) = fs::canonicalize(dir) else { return Vec::new() };
    let known: Vec<&&Path> = known.iter().filter(|it| it.starts_with(&dir)).collect();
    let entries =
        WalkDir::new(&dir).min_depth(SLOT_DEPTH).max_depth(SLOT_DEPTH).sort_by_file_name();
    let dirs = entries.into_iter().flatten().filter(|entry| entry.file_type().is_dir());
    let paths = dirs.map(walkdir::DirEntry::into_path);
    paths
        .filter(|path| !known.iter().any(|it| it.starts_with(path) || path.starts_with(it)))
        .collect()
}

/// Finds worktrees of persons that are gone.
fn hands(state: &State) -> Vec<Finding> {
    let taken = state.tasks.values().filter_map(|task| Some((&task.id, task.taken.as_ref()?)));
    let gone = taken.filter(|(_, taken)| !Path::new(&taken.dir).is_dir());
    gone.map(|(id, taken)| {
        Finding::warning(
            "worktrees",
            format!("task `{id}` was taken, and its worktree `{}` is gone", taken.dir),
            format!(
                "where you moved it: `git worktree repair`; else: `pipeline task give {id}`: what was \
                 committed on its branch counts"
            ),
        )
    })
    .collect()
}

/// Tells of a removal that was cut off.
fn cut_off(it: &CutOff) -> Finding {
    let (rest, place) = (it.rest.display(), it.place.display());
    Finding::warning(
        "worktrees",
        format!("`{rest}` is left of the worktree `{place}`, whose removal was cut off"),
        "`pipeline doctor --repair` removes it",
    )
}

/// Finds branches of ours that do not stand where the journal has them. A monitor sees to them by
/// itself.
pub fn refs(project: &Project, state: &State) -> Vec<Finding> {
    let Some(repo) = &project.repo else { return Vec::new() };
    if is_held(&project.layout.monitor_lock()).unwrap_or(true) {
        return Vec::new();
    }
    let mends = match repair::moved(repo, state) {
        Ok(mends) => mends,
        Err(error) => return vec![of_git("refs", &error)],
    };
    let remedy = "`pipeline doctor --repair` puts that right, and so does `pipeline monitor`; \
                  what was found is kept: `pipeline salvage list`";
    let tell = |mend: &Mend| Finding::warning("refs", mend.to_string(), remedy);
    let mut findings: Vec<Finding> = mends.iter().map(tell).collect();
    match repo.kept() {
        Ok(kept) => findings.extend(kept.iter().filter(|it| it.is_gone).map(gone)),
        Err(error) => findings.push(of_git("refs", &error)),
    }
    if findings.is_empty() {
        return vec![Finding::good("refs", "all branches stand where the journal has them")];
    }
    findings
}

/// Finds that the base branch is not there, without which nothing can start.
pub fn base_branch(project: &Project, settings: &Settings) -> Option<Finding> {
    let (repo, name) = (project.repo.as_ref()?, &settings.project.base);
    match repo.read_ref(&format!("refs/heads/{name}")) {
        Ok(Some(_)) => None,
        Ok(None) => {
            let remedy = format!("git branch {}, or change `project.base`", shell_word(name));
            Some(Finding::bad("base", format!("the base branch `{name}` is gone"), remedy))
        }
        Err(error) => Some(of_git("base", &error)),
    }
}

/// Finds a mode that the settings name and that is not at work.
pub fn mode(state: &State, settings: &Settings) -> Option<Finding> {
    let what = differing_mode(settings.project.orchestration, state.orchestration)?;
    Some(Finding::warning("settings", what, "say the same in pipeline.toml"))
}

/// Tells of salvage whose commit the repository does not have: git cannot even collect garbage then.
fn gone(kept: &Kept) -> Finding {
    let short = kept.name.trim_start_matches("refs/pipeline/salvage/");
    let what = format!("the commit of `{}`, {}, is gone", kept.name, kept.commit);
    Finding::warning("refs", what, format!("pipeline salvage drop {}", shell_word(short)))
}

fn of_git(what: &'static str, error: &GitError) -> Finding {
    Finding::bad(what, error.to_string(), error.hint().unwrap_or_default())
}

/// Finds what is amiss with lane and base, seen as [`Project::lane_now`] does.
pub fn lane(state: &State, lane: &Lane<'_>) -> Vec<Finding> {
    let (name, base) = (&state.settings.project.base, &lane.base);
    let mut findings = Vec::new();
    if let Some(tries) = lane.stuck {
        let (why, command) = lane::stuck(&state.settings.landing.branch, tries);
        findings.push(Finding::bad("landing", why, format!("type: {command}")));
    }
    if lane.is_freed {
        let why = "what was in the way of a landing is gone: the next monitor lands it";
        findings.push(Finding::warning("landing", why, "type: pipeline monitor"));
    }
    if let Some((commit, _)) = &base.red {
        let name = crate::observe::words::branch_at(state, commit);
        findings.push(Finding::bad(
            "base",
            format!("checks are red on `{name}` at {commit}"),
            "mend it, or run `pipeline monitor --allow-red-base`",
        ));
    }
    if state.is_base_check_stuck() {
        let why = &base.check_tries.why;
        let what = format!("the checks on `{name}` itself could not run: {why}");
        findings.push(Finding::bad("base", what, "type: pipeline doctor --checks"));
    }
    if let Some(paths) = &base.conflict {
        findings.push(Finding::bad(
            "base",
            format!("`{name}` conflicts with what has landed in {paths}"),
            format!("git merge {}", shell_word(&state.settings.landing.branch)),
        ));
    }
    if let Some((why, command)) = lane::refused(base) {
        let what = format!("`{name}` does not follow: {why}");
        findings.push(Finding::warning("base", what, format!("type: {command}")));
    }
    findings
}

#[cfg(test)]
mod tests {
    use super::lane;
    use crate::observe::lane::Lane;
    use crate::observe::support::{Pipeline, settings};

    #[test]
    fn a_base_that_does_not_follow_is_told_with_what_to_type() {
        let mut state = Pipeline::new(settings()).state;
        let mut remedy = |why: &str| {
            state.base.why = Some(why.to_owned());
            lane(&state, &Lane::on_record(&state)).remove(0).remedy
        };
        assert_eq!(remedy("another git holds `/p/.git/index.lock`"), "type: git status");
        assert_eq!(remedy("killed half-way; type: git reset"), "type: git reset");
    }
}
