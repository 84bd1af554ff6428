//! Agents in terminals that stand still since their provider refused them.
//!
//! Such a program tells people so and waits at its prompt, where nothing would end it but the time limit:
//! in a terminal there is none of silence. Its transcript says it too: it is ended, and then judged by
//! what stands there.

use std::sync::Arc;
use std::thread;
use std::time::Duration;

use super::report::OutputRules;
use crate::agent::Launcher;
use crate::agent::client::Keepers;
use crate::agent::job::GRACE_MS;
use crate::agent::usage::{self, Output};
use crate::machine::time::Time;

/// Between two looks, in milliseconds.
const PAUSE_MS: u64 = 10_000;

/// An attempt in a terminal.
#[derive(Debug)]
pub struct Pane {
    pub agent: String,
    pub attempt: String,
    pub started: Time,
    pub rules: OutputRules,
}

/// Looks at them now and then, on a thread of its own.
#[derive(Debug, Default)]
pub struct Standstill {
    next: Time,
    /// Shared with the thread that looks.
    share: Arc<()>,
}

impl Standstill {
    /// Returns true when a look is due.
    pub fn is_due(&self, now: Time) -> bool {
        now >= self.next && Arc::strong_count(&self.share) == 1
    }

    /// Looks at the panes, and ends those that stand still.
    pub fn look(&mut self, panes: Vec<Pane>, keepers: &Arc<Keepers>, now: Time) {
        self.next = now.plus_ms(PAUSE_MS);
        let (share, keepers) = (Arc::clone(&self.share), Arc::clone(keepers));
        let run = move || {
            crate::sys::machine::yield_to_others();
            for pane in panes.iter().filter(|pane| pane.stands_still()) {
                keepers.stop(&pane.agent, &pane.attempt, Duration::from_millis(GRACE_MS));
            }
            drop(share);
        };
        // Without a thread the next look does it.
        let _ = thread::Builder::new().name("panes".into()).spawn(run);
    }
}

impl Pane {
    fn stands_still(&self) -> bool {
        let OutputRules { preset, transcripts: Some(transcripts), .. } = &self.rules else {
            return false;
        };
        let Some((changed, log)) = transcripts.find(self.started.as_ms()) else { return false };
        let limit = preset.interactive.as_ref().map_or(0, |interactive| interactive.still_ms);
        let age = changed.elapsed().unwrap_or_default();
        let output = Output { log: &log, document: None, is_whole: true };
        age >= Duration::from_millis(limit) && usage::read(output, preset).fault.is_some()
    }
}
