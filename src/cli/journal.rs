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
use crate::machine::{Change, State, apply};
use crate::observe::flow::{Flow, flow_line};
use crate::store::format::decode_state_text;
use crate::store::history::{History, history};
use crate::store::ledger::{LedgerError, decode};
use crate::store::{Checkpoint, Record};

/// A followed journal is looked at this often, should an event be missed.
const LOOK: Duration = Duration::from_secs(1);

/// Prints the records kept, and with `--follow` those that come.
pub fn run(mut open: Open, console: &mut Console<'_>, args: &LogArgs) -> Result<Exit, Error> {
    if let Some(id) = &args.task {
        find(open.now().0, id)?;
    }
    let since = args.since.map(|when| when.past(open.clock(), &TimeZone::system()));
    let mut seen = None;
    let mut replay = None;
    loop {
        let History { start, records, older: _ } = read(&open)?;
        if replay.is_none() && console.format == Format::Json && args.task.is_none() {
            replay = Some(Replay::from(&start)?);
        }
        let is_new = |record: &&Record| seen.is_none_or(|seq| record.seq > seq);
        for record in records.iter().filter(is_new) {
            let changes = decode(record)?;
            let flow = replay.as_mut().and_then(|replay| replay.go(record.seq, &changes));
            if since.is_none_or(|since| record.time >= since) {
                tell(&open, console, args, record, &changes)?;
                if let Some(flow) = flow {
                    let line = flow_line(record.seq, record.time, &record.actor, &flow);
                    console.write(format!("{line}\n").as_bytes())?;
                }
            }
        }
        seen = records.last().map(|record| record.seq).or(seen);
        if !args.follow || console.is_closed() {
            return Ok(Exit::Done);
        }
        // What came since the records were read is told too, before anything else happens.
        let known = seen.unwrap_or(start.seq);
        loop {
            open.wait_change(LOOK)?;
            if open.state()?.1 > known {
                break;
            }
        }
    }
}

fn read(open: &Open) -> Result<History, Error> {
    Ok(history(&open.project.layout.state).map_err(LedgerError::Store)?)
}

/// The state as it was, to tell what each record did to the queues.
struct Replay {
    state: State,
    seq: u64,
    flow: Flow,
}

impl Replay {
    fn from(start: &Checkpoint) -> Result<Self, Error> {
        let seq = start.seq;
        let state = decode_state_text(start.state.get())
            .map_err(|source| LedgerError::Format { seq, source })?;
        let flow = Flow::of(&state);
        Ok(Self { state, seq, flow })
    }

    /// Takes a record in, and returns the queues when it changed them. Nothing is said after a gap,
    /// which a reader that follows may meet when old segments go.
    fn go(&mut self, seq: u64, changes: &[Change]) -> Option<Flow> {
        if seq != self.seq + 1 {
            return None;
        }
        self.seq = seq;
        for change in changes {
            apply(&mut self.state, change);
        }
        let flow = Flow::of(&self.state);
        if flow == self.flow {
            return None;
        }
        self.flow.clone_from(&flow);
        Some(flow)
    }
}

fn tell(
    open: &Open,
    console: &mut Console<'_>,
    args: &LogArgs,
    record: &Record,
    changes: &[Change],
) -> Result<(), Error> {
    let time: Time = record.time;
    let shown = LogRecord { seq: record.seq, time, actor: &record.actor, changes };
    let task = args.task.as_ref();
    let text = match console.format {
        Format::Text => render_log_record(&shown, open.now().0, task, page(console)),
        Format::Json => render_log_record_json(&shown, task),
    };
    console.write(text.as_bytes())
}
