//! `pipeline doctor`: looks at everything a run depends on; changes nothing but with `--repair`.

use std::path::Path;
use std::time::Duration;

use serde::Serialize;

use self::finding::{Finding, Level, exit_of, level_of, tell, tell_steps};
use super::args::DoctorArgs;
use super::console::{Console, Format};
use super::error::Error;
use super::exit_code::Exit;
use super::project::{CONFIG_BYTES_MAX, OTHER_VERSION, Project};
use super::repair;
use super::show;
use crate::config;
use crate::config::problem::{ConfigError, Problem};
use crate::machine::settings::Settings;
use crate::store::history::history;
use crate::store::ledger::LedgerError;
use crate::sys::file::read_bounded;

mod checks;
mod finding;
pub mod host;
mod tools;
mod world;

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

/// Looks and tells, after a repair where one is asked for; exit 0, 1, 3 or 4.
///
/// # Errors
/// There is no project; a repair cannot be made, or went wrong: what it did until then is told.
pub fn run(
    dir: &Path,
    wait: Duration,
    console: &mut Console<'_>,
    args: &DoctorArgs,
) -> Result<Exit, Error> {
    let project = Project::find(dir)?;
    let mut steps = Vec::new();
    match act(&project, wait, console, args, &mut steps) {
        Ok(findings) => {
            report(args, &steps, &findings, console)?;
            Ok(exit_of(&findings))
        }
        Err(error) => {
            if !steps.is_empty() {
                report(args, &steps, &[], console)?;
            }
            Err(error)
        }
    }
}

/// Repairs, looks and checks as asked for; `steps` holds what was done, or with `-n` would be, also
/// where it fails.
fn act(
    project: &Project,
    wait: Duration,
    console: &mut Console<'_>,
    args: &DoctorArgs,
    steps: &mut Vec<String>,
) -> Result<Vec<Finding>, Error> {
    match (args.repair, args.dry_run) {
        (true, true) => *steps = repair::plan(project)?,
        (true, false) => repair::run(project, wait, steps)?,
        (false, _) => {}
    }
    let mut findings = examine(project, wait);
    if args.checks {
        findings.extend(base_checks(project, wait, console)?);
    }
    Ok(findings)
}

/// Runs the checks of the base by `pipeline.toml`; where it is gone or broken, by the adopted
/// settings, as a monitor would.
fn base_checks(
    project: &Project,
    wait: Duration,
    console: &mut Console<'_>,
) -> Result<Vec<Finding>, Error> {
    let adopted = || {
        let again = Project { layout: project.layout.clone(), repo: None };
        again.open(wait).ok().map(|open| open.now().0.settings.as_ref().clone())
    };
    match settings(project).1.or_else(adopted) {
        Some(settings) => checks::run(project, &settings, console),
        None => {
            let found = "not run: the settings cannot be had, neither from pipeline.toml nor from \
                         the journal";
            Ok(vec![Finding::bad(checks::WHAT, found, "mend what is named above, then look again")])
        }
    }
}

fn report(
    args: &DoctorArgs,
    steps: &[String],
    findings: &[Finding],
    console: &mut Console<'_>,
) -> Result<(), Error> {
    match console.format {
        Format::Json => {
            #[derive(Serialize)]
            struct Document<'a> {
                /// What was done, or with `-n` would be.
                #[serde(skip_serializing_if = "Option::is_none")]
                repairs: Option<&'a [String]>,
                findings: &'a [Finding],
            }
            let document = Document { repairs: args.repair.then_some(steps), findings };
            console.write(show::document(&document).as_bytes())
        }
        Format::Text => {
            let mark = if args.dry_run { "would  " } else { "done   " };
            tell_steps(steps, mark, console)?;
            if args.repair && steps.is_empty() {
                console.line("there is nothing to repair")?;
            }
            tell(findings, console)
        }
    }
}

/// Returns true when `doctor` would not exit with 0.
pub fn is_unhealthy(project: &Project) -> bool {
    exit_of(&examine(project, Duration::ZERO)) != Exit::Done
}

fn examine(project: &Project, wait: Duration) -> Vec<Finding> {
    let mut findings = vec![journal(project)];
    findings.extend(tools::tools(project));
    let (of_settings, settings) = settings(project);
    findings.extend(of_settings);
    if let Some(settings) = &settings {
        findings.extend(tools::windows(settings));
        findings.extend(tools::programs(project, settings));
    }
    findings.push(host::locks(project));
    findings.extend(tools::left_by_git(project));
    findings.extend(host::space(project, settings.as_ref()));
    findings.push(host::file_events(project, settings.as_ref()));
    let again = Project { layout: project.layout.clone(), repo: None };
    match again.open_anyway(wait) {
        Ok(open) => {
            let state = open.now().0;
            findings.push(world::monitor(&open));
            findings.extend(world::keepers(project));
            findings.extend(world::attempts(project, state));
            findings.extend(world::attempts_of_nobody(project, state));
            findings.extend(world::worktrees(project, state));
            findings.extend(world::refs(project, state));
            let current = settings.as_ref().unwrap_or(&state.settings);
            findings.extend(world::base_branch(project, current));
            findings.extend(world::mode(state, current));
            findings.extend(world::lane(state, &project.lane_now(state)));
            if let Some(settings) = &settings {
                let refused = open.refused_settings(settings);
                let remedy = "until then the adopted settings count";
                findings.extend(refused.map(|what| Finding::warning("settings", what, remedy)));
                findings.extend(tools::costs(project, settings, state));
            }
            if findings.iter().all(|found| found.level != Level::Damaged) {
                findings.extend(world::leftovers(project));
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
            let found = format!("whole up to record {last}");
            let Some((older, current)) = history.older else {
                return Finding::good("journal", found);
            };
            Finding::warning(
                "journal",
                format!("{found}, of format {older}; this program writes format {current}"),
                "`pipeline monitor` takes it over and keeps a backup; until then it can be read",
            )
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

/// Reads pipeline.toml: every problem is a finding of its own.
fn settings(project: &Project) -> (Vec<Finding>, Option<Settings>) {
    const WHAT: &str = "settings";
    let path = project.layout.config();
    let text = match read_bounded(&path, CONFIG_BYTES_MAX) {
        Ok(Some(bytes)) => String::from_utf8_lossy(&bytes).into_owned(),
        Ok(None) => {
            let found = "pipeline.toml is gone; the adopted settings count";
            return (
                vec![Finding::warning(WHAT, found, "write it anew or take it from git")],
                None,
            );
        }
        Err(error) => {
            let found = format!("cannot read `{}`: {error}", path.display());
            return (vec![Finding::bad(WHAT, found, "make it a readable file")], None);
        }
    };
    match config::load_in(&project.layout.root, &text) {
        Ok(loaded) => {
            let mut findings = vec![if loaded.settings.agents.is_empty() {
                Finding::bad(WHAT, "no agents", "add an `[[agent]]` to pipeline.toml")
            } else {
                Finding::good(WHAT, "pipeline.toml is valid")
            }];
            let advice = "change pipeline.toml, if that is not what you want";
            let warn = |warning: String| Finding::warning(WHAT, warning, advice);
            findings.extend(loaded.warnings.into_iter().map(warn));
            (findings, Some(loaded.settings))
        }
        Err(ConfigError::Invalid { problems }) => {
            let one = |problem: &Problem| {
                let found = format!("pipeline.toml, {problem}");
                Finding::bad(WHAT, found, "mend it there; until then the adopted settings count")
            };
            (problems.iter().map(one).collect(), None)
        }
        Err(error @ (ConfigError::Newer { .. } | ConfigError::Older { .. })) => {
            let (found, remedy) = (error.to_string(), OTHER_VERSION.to_owned());
            (vec![Finding { level: Level::Refused, what: WHAT, found, remedy }], None)
        }
    }
}
