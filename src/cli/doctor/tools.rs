//! The programs that a run needs: git, tmux, those of presets; and what a killed git left.

use std::fs;
use std::path::Path;
use std::time::Duration;

use super::finding::Finding;
use crate::agent::terminal::tmux;
use crate::cli::project::Project;
use crate::machine::State;
use crate::machine::settings::{AgentCommand, AgentGroup, LauncherKind, Settings};
use crate::monitor::preset;
use crate::sys::file::shell_path;

/// The oldest git that has `merge-tree --write-tree`.
const GIT_MIN: (u32, u32) = (2, 38);

/// The oldest git that has `merge-tree --stdin`: with it conflicts are known before the landing.
const GIT_OF_FORECASTS: (u32, u32) = (2, 40);

/// What to do where a bound on money does not hold.
const BOUND_IT: &str = "bound it by `limits.attempts_per_run`";

/// How old a lock of git is when its git is hardly still at work.
const GIT_LOCK_AGE_MIN: Duration = Duration::from_secs(10);

/// Looks at git and at what is particular to this repository.
pub fn tools(project: &Project) -> Vec<Finding> {
    let Some(repo) = &project.repo else { return Vec::new() };
    let shape = match repo.shape() {
        Ok(shape) => shape,
        Err(error) => return vec![Finding::bad("git", error.to_string(), "install git")],
    };
    let mut findings = vec![git(&shape.git_version)];
    if shape.has_pipeline_branch {
        findings.push(Finding::bad(
            "branches",
            "a branch `pipeline` leaves no room for `pipeline/…`",
            "rename it: git branch -m pipeline NAME",
        ));
    }
    match repo.displaced() {
        Ok(None) => {}
        Ok(Some((why, command))) => {
            let found = format!("{why}: git has its checkout elsewhere, and nothing lands");
            findings.push(Finding::bad("repository", found, format!("type: {command}")));
        }
        Err(error) => findings.push(Finding::bad("repository", error.to_string(), "git status")),
    }
    for note in shape.notes() {
        findings.push(Finding::warning("repository", note, "see the README"));
    }
    findings
}

fn git(found: &str) -> Finding {
    let mut numbers = found.split('.').map(|part| part.parse::<u32>().unwrap_or(0));
    let version = (numbers.next().unwrap_or(0), numbers.next().unwrap_or(0));
    if version < GIT_MIN {
        return Finding::bad("git", found, "install git 2.38 or newer");
    }
    if version < GIT_OF_FORECASTS {
        let what = format!("{found}: conflicts between open branches are not foreseen");
        return Finding::warning("git", what, "install git 2.40 or newer for forecasts");
    }
    Finding::good("git", found)
}

/// Looks whether there is a tmux for the agents that are to run in it.
pub fn windows(settings: &Settings) -> Option<Finding> {
    let groups = settings.agents.iter().filter(|group| group.launcher == LauncherKind::Tmux);
    let names: Vec<&str> = groups.map(|group| group.name.as_str()).collect();
    if names.is_empty() {
        return None;
    }
    Some(match tmux::lacking() {
        None => Finding::good("tmux", tmux::version().map_or_else(|_| String::new(), |it| it.0)),
        Some(lacking) => {
            let (major, minor) = tmux::VERSION_MIN;
            let found = format!("{lacking}; no work for {}", names.join(", "));
            Finding::bad("tmux", found, format!("install tmux {major}.{minor} or newer"))
        }
    })
}

/// Looks whether the programs of agents are there.
pub fn programs(project: &Project, settings: &Settings) -> Vec<Finding> {
    let root = &project.layout.root;
    let program = std::env::current_exe().unwrap_or_default();
    let program_dir = program.parent().unwrap_or(root);
    let is_preset = |group: &&AgentGroup| matches!(group.command, AgentCommand::Preset { .. });
    let groups = settings.agents.iter().filter(is_preset);
    let found = groups.map(|group| match preset::trouble(root, program_dir, group) {
        None => Finding::good("agents", format!("agent `{}` can start", group.name)),
        Some(why) => Finding::bad(
            "agents",
            format!("agent `{}` cannot start: {why}", group.name),
            "its tasks wait until then; or name another `preset` in pipeline.toml",
        ),
    });
    let mut findings: Vec<Finding> = found.collect();
    findings.extend(settings.agents.iter().filter_map(|group| {
        let why = preset::lacking_program(root, program_dir, group)?;
        let found = format!("agent `{}` cannot start: {why}", group.name);
        let remedy =
            "what it is given is blocked; put it there, or mend `command` in pipeline.toml";
        Some(Finding::bad("agents", found, remedy))
    }));
    for group in settings.agents.iter().filter(is_preset) {
        findings.extend(billing(root, group));
        let bounds = cost_bounds(settings).filter(|_| !preset::tells_cost(root, group));
        findings.extend(bounds.map(|bounds| {
            let name = &group.name;
            let found =
                format!("agent `{name}` does not say what it costs: {bounds} cannot count it");
            Finding::warning("agents", found, BOUND_IT)
        }));
    }
    findings
}

/// Returns the bounds on money that are set; `None`: none is.
fn cost_bounds(settings: &Settings) -> Option<&'static str> {
    let limits = &settings.limits;
    match (limits.cost_usd_micros > 0, limits.cost_usd_per_task_micros > 0) {
        (true, true) => Some("`limits.cost_usd` and `cost_usd_per_task`"),
        (true, false) => Some("`limits.cost_usd`"),
        (false, true) => Some("`limits.cost_usd_per_task`"),
        (false, false) => None,
    }
}

/// Looks whose programs, which can say what they cost, did not: they know no price of their model.
pub fn costs(project: &Project, settings: &Settings, state: &State) -> Vec<Finding> {
    let Some(bounds) = cost_bounds(settings) else { return Vec::new() };
    let can_tell = |group: &&AgentGroup| preset::tells_cost(&project.layout.root, group);
    let silent = settings.agents.iter().filter(can_tell).filter_map(|group| {
        let spent = state.metrics.groups.get(&group.name).filter(|spent| spent.unpriced > 0)?;
        let (name, count) = (&group.name, spent.unpriced);
        let all = spent.priced + count;
        let found = format!(
            "agent `{name}` did not say what {count} of {all} attempts cost: {bounds} cannot count them"
        );
        Some(Finding::warning("agents", found, BOUND_IT))
    });
    silent.collect()
}

/// Says that an agent may be billed where its person believes in a subscription.
fn billing(root: &Path, group: &AgentGroup) -> Option<Finding> {
    let keys = preset::billing_keys(root, group);
    let (found, remedy) = preset::billed_words(&keys, &format!("agent `{}`", group.name))?;
    Some(Finding::warning("agents", found, remedy))
}

/// Returns a finding about a lock that a killed git left on all refs; `None` when there is none. It
/// may be a person's, so it is told and not removed; meanwhile no ref can be deleted.
pub fn left_by_git(project: &Project) -> Option<Finding> {
    let path = project.repo.as_ref()?.common_dir().join("packed-refs.lock");
    let age = fs::symlink_metadata(&path).ok()?.modified().ok()?.elapsed().ok()?;
    (age >= GIT_LOCK_AGE_MIN).then(|| {
        let (name, age_s) = (path.display(), age.as_secs());
        let found = format!("`{name}` has been there for {age_s} s: no ref can be deleted");
        let path = shell_path(&path);
        Finding::warning("git", found, format!("when no git runs here, type: rm -f {path}"))
    })
}

#[cfg(test)]
mod tests {
    use super::git;
    use crate::cli::doctor::finding::Level;

    #[test]
    fn an_old_git_is_bad_and_one_without_forecasts_a_warning() {
        let levels = ["2.37.9", "2.38.0", "2.39.5", "2.40.0", "2.47.3", "3.0"].map(|version| {
            let finding = git(version);
            assert!(finding.found.starts_with(version));
            assert_eq!(finding.remedy.is_empty(), finding.level == Level::Good);
            finding.level
        });
        let (bad, odd, good) = (Level::Bad, Level::Warning, Level::Good);
        assert_eq!(levels, [bad, odd, odd, good, good, good]);
    }
}
