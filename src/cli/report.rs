//! `pipeline report`: what a run did.

use std::path::Path;

use jiff::tz::TimeZone;

use super::args::{ReportArgs, ReportFormat};
use super::console::{Console, Format};
use super::error::Error;
use super::exit_code::Exit;
use super::project::Open;
use super::show;
use crate::machine::State;
use crate::machine::time::Time;
use crate::observe::paper::{Html, Markdown};
use crate::observe::report::{Report, last_activity, report};
use crate::observe::report_page::write;
use crate::sys::file::{Durability, write_atomic};

/// Prints the report, or writes it to a file below `dir`.
pub fn run(
    open: &Open,
    console: &mut Console<'_>,
    dir: &Path,
    args: &ReportArgs,
) -> Result<Exit, Error> {
    let format = match (console.format, args.format) {
        (Format::Text, format) => format.unwrap_or(ReportFormat::Md),
        (Format::Json, None | Some(ReportFormat::Json)) => ReportFormat::Json,
        (Format::Json, Some(ReportFormat::Md | ReportFormat::Html)) => {
            return Err(Error::usage("--json asks for another format than --format")
                .hint("give one of the two"));
        }
    };
    let (state, ..) = open.now();
    let now = open.clock();
    let zone = TimeZone::system();
    let since = match args.since {
        Some(when) => when.past(now, &zone),
        None => state.run.began_at.unwrap_or_else(|| beginning(state, now)),
    };
    if since > now {
        return Err(Error::usage("--since lies ahead").hint("give a moment that has passed"));
    }
    let is_over = !open.has_monitor() && state.attempts.is_empty();
    let last = last_activity(state).filter(|_| is_over);
    // What lies after the last activity is nobody's idle time: the run was over.
    let until = last.filter(|last| *last >= since).map_or(now, |last| last.min(now));
    let lane = open.project.lane_now(state);
    let report = report(state, since, until).with_lane(state, &lane);
    let text = rendered(&report, format, &zone);
    match &args.output {
        None => console.write(text.as_bytes())?,
        Some(file) => {
            let path = dir.join(file);
            write_atomic(&path, text.as_bytes(), Durability::Process).map_err(|error| {
                Error::failed(format!("cannot write the report to `{}`", path.display()))
                    .because(&error)
                    .hint("give a file in a folder that exists and that you may write to")
                    .at(&path)
            })?;
            console.note(&format!("report written to {}", path.display()));
        }
    }
    Ok(Exit::Done)
}

/// When there was no run yet: since there are tasks.
fn beginning(state: &State, now: Time) -> Time {
    state.tasks.values().map(|task| task.created_at).min().unwrap_or(now).min(now)
}

fn rendered(report: &Report<'_>, format: ReportFormat, zone: &TimeZone) -> String {
    match format {
        ReportFormat::Md => write(report, Box::<Markdown>::default(), zone),
        ReportFormat::Html => write(report, Box::<Html>::default(), zone),
        ReportFormat::Json => show::document(report),
    }
}
