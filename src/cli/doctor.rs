//! `pipeline doctor`: looks at everything a run depends on; changes nothing but with `--repair`.

use std::fs;
use std::path::Path;
use std::time::Duration;

use serde::Serialize;

use super::args::DoctorArgs;
use super::console::{Console, Format};
use super::error::Error;
use super::exit_code::{Exit, Kind};
use super::project::{CONFIG_BYTES_MAX, Project};
use super::repair;
use super::show;
use crate::agent::rendezvous;
use crate::agent::terminal::tmux;
use crate::config;
use crate::machine::State;
use crate::machine::attempt::AttemptPhase;
use crate::machine::settings::{AgentCommand, AgentGroup, LauncherKind};
use crate::monitor::preset;
use crate::store::history::history;
use crate::store::ledger::LedgerError;
use crate::store::lock::{FileLock, is_held};
use crate::sys::file::read_bounded;

/// The oldest git that has `merge-tree --write-tree`.
const GIT_MIN: (u32, u32) = (2, 38);
/// The oldest git that has `merge-tree --stdin`: with it conflicts are known before the landing.
const GIT_OF_FORECASTS: (u32, u32) = (2, 40);
/// Less free space than this is worth a warning, in bytes.
const FREE_BYTES_MIN: u64 = 1 << 30;

/// How bad a finding is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
enum Level {
    Good,
    /// Works, but should be looked at.
    Warning,
    /// A run would fail.
    Bad,
    /// The state was written by a newer program, or cannot be had now.
    Refused,
    /// The state on disk is damaged.
    Damaged,
}

/// What to do with a damaged journal.
const KEEP_A_COPY: &str = "keep a copy of the folder `.pipeline/state` and restore it from a backup; \
                           nothing is written while the journal is damaged";

/// Returns what to do with a damaged journal: what a repair would do, where it can.
fn remedy_of_damage(project: &Project) -> String {
    let steps = repair::plan(project).unwrap_or_default();
    if steps.is_empty() {
        return KEEP_A_COPY.into();
    }
    format!("`pipeline doctor --repair` would {}; or {KEEP_A_COPY}", steps.join(", "))
}

/// Finds what a repair would do to a project whose journal is sound.
fn leftovers(project: &Project) -> Option<Finding> {
    let has_monitor = is_held(&project.layout.monitor_lock()).unwrap_or(true);
    let steps = if has_monitor { Vec::new() } else { repair::plan(project).unwrap_or_default() };
    let found = match steps.as_slice() {
        [] => return None,
        [one] => format!("a repair would {one}"),
        [first, rest @ ..] => format!("a repair would {first}, and {} things more", rest.len()),
    };
    Some(Finding::warning("leftovers", found, "`pipeline doctor --repair` does it; -n lists all"))
}

fn level_of(kind: Kind) -> Level {
    match kind {
        Kind::Damaged => Level::Damaged,
        Kind::Busy => Level::Refused,
        Kind::Failed | Kind::Usage | Kind::Invalid | Kind::Interrupted => Level::Bad,
    }
}

/// One thing looked at.
#[derive(Debug, Clone, Serialize)]
struct Finding {
    level: Level,
    what: &'static str,
    found: String,
    /// What to do about it; empty when it is good.
    remedy: String,
}

impl Finding {
    fn good(what: &'static str, found: impl Into<String>) -> Self {
        Self { level: Level::Good, what, found: found.into(), remedy: String::new() }
    }

    fn warning(what: &'static str, found: impl Into<String>, remedy: impl Into<String>) -> Self {
        Self { level: Level::Warning, what, found: found.into(), remedy: remedy.into() }
    }

    fn bad(what: &'static str, found: impl Into<String>, remedy: impl Into<String>) -> Self {
        Self { level: Level::Bad, what, found: found.into(), remedy: remedy.into() }
    }
}

/// How old a lock of git is when its git is hardly still at work.
const GIT_LOCK_AGE_MIN: Duration = Duration::from_secs(10);

/// Looks and tells, after a repair where one is asked for; exit 0, 1, 3 or 4.
pub fn run(
    dir: &Path,
    wait: Duration,
    console: &mut Console<'_>,
    args: &DoctorArgs,
) -> Result<Exit, Error> {
    let project = Project::find(dir)?;
    let steps = match (args.repair, args.dry_run) {
        (true, true) => repair::plan(&project)?,
        (true, false) => repair::run(&project, wait)?,
        (false, _) => Vec::new(),
    };
    let findings = examine(&project, wait);
    match console.format {
        Format::Json => {
            #[derive(Serialize)]
            struct Document<'a> {
                /// What was done, or with `-n` would be.
                #[serde(skip_serializing_if = "Option::is_none")]
                repairs: Option<&'a [String]>,
                findings: &'a [Finding],
            }
            let repairs = args.repair.then_some(steps.as_slice());
            let document = Document { repairs, findings: &findings };
            console.write(show::document(&document).as_bytes())?;
        }
        Format::Text => {
            let mark = if args.dry_run { "would  " } else { "done   " };
            for step in &steps {
                console.line(&format!("{mark}  {step}"))?;
            }
            if args.repair && steps.is_empty() {
                console.line("there is nothing to repair")?;
            }
            tell(&findings, console)?;
        }
    }
    Ok(exit_of(&findings))
}

fn tell(findings: &[Finding], console: &mut Console<'_>) -> Result<(), Error> {
    for finding in findings {
        let mark = match finding.level {
            Level::Good => "ok     ",
            Level::Warning => "warning",
            Level::Bad => "bad    ",
            Level::Refused => "refused",
            Level::Damaged => "damaged",
        };
        console.line(&format!("{mark}  {}: {}", finding.what, finding.found))?;
        if !finding.remedy.is_empty() {
            console.line(&format!("         {}", finding.remedy))?;
        }
    }
    Ok(())
}

/// Returns true when `doctor` would not exit with 0.
pub fn is_unhealthy(project: &Project) -> bool {
    exit_of(&examine(project, Duration::ZERO)) != Exit::Done
}

fn exit_of(findings: &[Finding]) -> Exit {
    let has = |level| findings.iter().any(|finding| finding.level == level);
    if has(Level::Damaged) {
        Exit::Damaged
    } else if has(Level::Refused) {
        Exit::Busy
    } else if has(Level::Bad) {
        Exit::Failed
    } else {
        Exit::Done
    }
}

fn examine(project: &Project, wait: Duration) -> Vec<Finding> {
    let mut findings = vec![journal(project)];
    findings.extend(tools(project));
    findings.push(settings(project));
    findings.extend(windows(project));
    findings.extend(presets(project));
    findings.push(locks(project));
    findings.extend(left_by_git(project));
    findings.extend(space(project));
    findings.extend(limits());
    let again = Project { layout: project.layout.clone(), repo: None };
    match again.open(wait) {
        Ok(open) => {
            findings.push(monitor(&open));
            findings.extend(attempts(project, open.now().0));
            findings.extend(base(open.now().0));
            if findings.iter().all(|found| found.level != Level::Damaged) {
                findings.extend(leftovers(project));
            }
        }
        // Where the journal itself is at fault, that has been said.
        Err(error) if findings.iter().any(|found| found.level == level_of(error.kind)) => {}
        Err(error) => {
            let level = level_of(error.kind);
            let remedy = match level {
                Level::Damaged => remedy_of_damage(project),
                Level::Good | Level::Warning | Level::Bad | Level::Refused => {
                    error.hints.join("; ")
                }
            };
            // Each record is whole, but not all are there.
            findings.retain(|found| found.what != "journal" || level != Level::Damaged);
            findings.push(Finding { level, what: "journal", found: error.message, remedy });
        }
    }
    findings
}

fn journal(project: &Project) -> Finding {
    match history(&project.layout.state) {
        Ok(history) => {
            let last = history.records.last().map_or(history.start.seq, |record| record.seq);
            Finding::good("journal", format!("whole up to record {last}"))
        }
        Err(error) => {
            let error = Error::from(LedgerError::Store(error));
            let level = level_of(error.kind);
            let remedy = match level {
                Level::Damaged => remedy_of_damage(project),
                Level::Good | Level::Warning | Level::Bad | Level::Refused => {
                    error.hints.join("; ")
                }
            };
            let found = [error.message].into_iter().chain(error.causes).collect::<Vec<_>>();
            Finding { level, what: "journal", found: found.join(": "), remedy }
        }
    }
}

fn tools(project: &Project) -> Vec<Finding> {
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

fn settings(project: &Project) -> Finding {
    let path = project.layout.config();
    match read_bounded(&path, CONFIG_BYTES_MAX) {
        Err(error) => Finding::bad("settings", error.to_string(), "make pipeline.toml readable"),
        Ok(None) => Finding::warning(
            "settings",
            "pipeline.toml is gone; the adopted settings count",
            "write it anew or take it from git",
        ),
        Ok(Some(bytes)) => {
            match config::load_in(&project.layout.root, &String::from_utf8_lossy(&bytes)) {
                Ok(loaded) if loaded.settings.agents.is_empty() => {
                    Finding::bad("settings", "no agents", "add an `[[agent]]` to pipeline.toml")
                }
                Ok(_) => Finding::good("settings", "pipeline.toml is valid"),
                Err(error) => Finding::bad("settings", error.to_string(), "mend pipeline.toml"),
            }
        }
    }
}

/// Looks whether there is a tmux for the agents that are to run in it.
fn windows(project: &Project) -> Option<Finding> {
    let bytes = read_bounded(&project.layout.config(), CONFIG_BYTES_MAX).ok()??;
    let settings = config::load(&String::from_utf8_lossy(&bytes)).ok()?.settings;
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

/// Looks whether the programs of presets are there.
fn presets(project: &Project) -> Vec<Finding> {
    let root = &project.layout.root;
    let bytes = read_bounded(&project.layout.config(), CONFIG_BYTES_MAX).ok().flatten();
    let loaded = bytes.and_then(|b| config::load_in(root, &String::from_utf8_lossy(&b)).ok());
    let Some(settings) = loaded.map(|loaded| loaded.settings) else { return Vec::new() };
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
    for group in settings.agents.iter().filter(is_preset) {
        findings.extend(billing(root, group));
        if settings.limits.cost_usd_micros > 0 && !preset::tells_cost(root, group) {
            findings.push(Finding::warning(
                "agents",
                format!(
                    "agent `{}` does not say what it costs: `limits.cost_usd` cannot count it",
                    group.name
                ),
                "bound it by `limits.attempts_per_run`",
            ));
        }
    }
    findings
}

/// Says that an agent may be billed where its person believes in a subscription.
fn billing(root: &Path, group: &AgentGroup) -> Option<Finding> {
    let keys = preset::billing_keys(root, group);
    let (first, verb) = (keys.first()?, if keys.len() == 1 { "is" } else { "are" });
    let found = format!(
        "{} {verb} set: agent `{}` may be billed by the token, not by a subscription",
        keys.join(", "),
        group.name
    );
    let remedy = format!("`env = {{ {first} = \"\" }}` in its `[[agent]]` keeps it from it");
    Some(Finding::warning("agents", found, remedy))
}

/// Tries a lock of our own on this very file system.
fn locks(project: &Project) -> Finding {
    let path = project.layout.state.join("doctor.lock");
    let tried = FileLock::try_exclusive(&path, "doctor").and_then(|lock| {
        let held = is_held(&path)?;
        Ok(lock.is_some() && held)
    });
    // Only a trial; nobody else uses that name.
    let _ = fs::remove_file(&path);
    match tried {
        Ok(true) => Finding::good("locks", "file locks work here"),
        Ok(false) => Finding::bad(
            "locks",
            "a lock that is held does not look held",
            "use a local file system: this one cannot keep two monitors apart",
        ),
        Err(error) => Finding::bad("locks", error.to_string(), "make the state folder writable"),
    }
}

/// Returns a finding about a lock that a killed git left on all refs; `None` when there is none. It
/// may be a person's, so it is told and not removed; meanwhile no ref can be deleted.
fn left_by_git(project: &Project) -> Option<Finding> {
    let path = project.repo.as_ref()?.common_dir().join("packed-refs.lock");
    let age = fs::symlink_metadata(&path).ok()?.modified().ok()?.elapsed().ok()?;
    (age >= GIT_LOCK_AGE_MIN).then(|| {
        let (path, age_s) = (path.display(), age.as_secs());
        let found = format!("`{path}` has been there for {age_s} s: no ref can be deleted");
        Finding::warning("git", found, format!("when no git runs here, type: rm -f '{path}'"))
    })
}

fn space(project: &Project) -> Option<Finding> {
    let stat = rustix::fs::statvfs(&project.layout.state).ok()?;
    let free = stat.f_bavail * stat.f_frsize;
    let found = format!("{} MiB free", free >> 20);
    Some(if free >= FREE_BYTES_MIN {
        Finding::good("disk", found)
    } else {
        Finding::warning("disk", found, "make room: worktrees and logs need it")
    })
}

fn limits() -> Option<Finding> {
    let read = |name: &str| -> Option<u64> {
        let path = Path::new("/proc/sys/fs/inotify").join(name);
        fs::read_to_string(path).ok()?.trim().parse().ok()
    };
    let instances = read("max_user_instances")?;
    Some(if instances >= 16 {
        Finding::good("file events", format!("{instances} watchers possible"))
    } else {
        Finding::warning(
            "file events",
            format!("only {instances} watchers possible"),
            "raise fs.inotify.max_user_instances, or use `monitor --poll-only`",
        )
    })
}

fn monitor(open: &super::project::Open) -> Finding {
    let found = if open.has_monitor() { "runs" } else { "does not run" };
    Finding::good("monitor", found)
}

fn attempts(project: &Project, state: &State) -> Vec<Finding> {
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

fn base(state: &State) -> Vec<Finding> {
    let name = &state.settings.project.base;
    let mut findings = Vec::new();
    if let Some((commit, _)) = &state.base.red {
        let name = crate::observe::words::branch_at(state, commit);
        findings.push(Finding::bad(
            "base",
            format!("checks are red on `{name}` at {commit}"),
            "mend it, or run `pipeline monitor --allow-red-base`",
        ));
    }
    if let Some(paths) = &state.base.conflict {
        findings.push(Finding::bad(
            "base",
            format!("`{name}` conflicts with what has landed in {paths}"),
            format!("git merge {}", state.settings.landing.branch),
        ));
    }
    if let Some(why) = &state.base.why {
        findings.push(Finding::warning("base", format!("`{name}` does not follow: {why}"), ""));
    }
    findings
}

#[cfg(test)]
mod tests {
    use super::{Level, git};

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
