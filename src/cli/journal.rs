//! `pipeline log`: the journal, readable.

use std::time::Duration;

use jiff::tz::TimeZone;

use super::args::LogArgs;
use super::console::{Console, Format};
use super::error::Error;
use super::exit_code::Exit;
use super::gate::Gate;
use super::project::Open;
use super::show::{LogRecord, render_log_record, render_log_record_json};
use super::views::{find, page};
use crate::machine::time::Time;
use crate::store::Record;
use crate::store::history::history;
use crate::store::ledger::{LedgerError, decode};

/// A followed journal is looked at this often, should an event be missed.
const LOOK: Duration = Duration::from_secs(1);

/// Prints the records kept, and with `--follow` those that come.
pub fn run(mut open: Open, console: &mut Console<'_>, args: &LogArgs) -> Result<Exit, Error> {
    if let Some(id) = &args.task {
        find(open.now().0, id)?;
    }
    let since = args.since.map(|when| when.past(open.clock(), &TimeZone::system()));
    let mut seen = None;
    loop {
        let records = read(&open)?;
        let is_new = |record: &&Record| seen.is_none_or(|seq| record.seq > seq);
        for record in records.iter().filter(is_new) {
            if since.is_none_or(|since| record.time >= since) {
                tell(&open, console, args, record)?;
            }
        }
        seen = records.last().map(|record| record.seq).or(seen);
        if !args.follow || console.is_closed() {
            return Ok(Exit::Done);
        }
        let before = open.state()?.1;
        while open.state()?.1 == before {
            open.wait_change(LOOK)?;
        }
    }
}

fn read(open: &Open) -> Result<Vec<Record>, Error> {
    let history = history(&open.project.layout.state).map_err(LedgerError::Store)?;
    Ok(history.records)
}

fn tell(
    open: &Open,
    console: &mut Console<'_>,
    args: &LogArgs,
    record: &Record,
) -> Result<(), Error> {
    let changes = decode(record)?;
    let time: Time = record.time;
    let shown = LogRecord { seq: record.seq, time, actor: &record.actor, changes: &changes };
    let task = args.task.as_ref();
    let text = match console.format {
        Format::Text => render_log_record(&shown, open.now().0, task, page(console)),
        Format::Json => render_log_record_json(&shown, task),
    };
    console.write(text.as_bytes())
}
