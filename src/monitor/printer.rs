//! What the monitor prints, on a thread of its own: a terminal or a reader that takes nothing for a
//! while (Ctrl-S, a connection that hangs, a pager) holds up no task.

use std::collections::{BTreeMap, VecDeque};
use std::io::{self, IsTerminal as _, Write as _};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, OnceLock, PoisonError};
use std::thread;
use std::time::Duration;

use indicatif::{MultiProgress, ProgressBar, ProgressDrawTarget, ProgressStyle};

use crate::machine::id::AgentName;
use crate::sys::signals;

/// What waits to be taken; what comes then is left out.
const BYTES_MAX: usize = 16 << 20;
/// As many lines are written at a time.
const BATCH: usize = 256;
/// Within this time a reader that reads takes what it is given.
const READER_WAIT: Duration = Duration::from_secs(2);

/// Where a line goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Stream {
    Out,
    Error,
}

/// What the live lines show: of each agent what it does, and of the whole.
#[derive(Debug)]
pub(super) struct Picture {
    pub(super) agents: Vec<(AgentName, String)>,
    pub(super) totals: String,
}

/// Prints beside whoever has something to say.
#[derive(Debug)]
pub(super) struct Printer {
    shared: Arc<Shared>,
    /// Whether there is a thread, once there is something to print.
    has_thread: OnceLock<bool>,
}

#[derive(Debug)]
struct Shared {
    waiting: Mutex<Waiting>,
    changed: Condvar,
    /// Whether there is a terminal for live lines.
    is_live: AtomicBool,
}

#[derive(Debug)]
struct Waiting {
    lines: VecDeque<(Stream, String)>,
    /// Of these lines.
    bytes: usize,
    /// Lines that found no room behind the last one.
    left_out: u64,
    /// Says how many they were.
    words: fn(u64) -> String,
    /// The newest alone counts.
    picture: Option<Picture>,
    is_closing: bool,
    has_ended: bool,
}

impl Printer {
    /// Prints nothing yet; `is_live`: standard error is a terminal to draw on; `words`: says that so many
    /// lines were left out.
    pub(super) fn new(is_live: bool, words: fn(u64) -> String) -> Self {
        let waiting = Waiting {
            lines: VecDeque::new(),
            bytes: 0,
            left_out: 0,
            words,
            picture: None,
            is_closing: false,
            has_ended: false,
        };
        let shared = Shared {
            waiting: Mutex::new(waiting),
            changed: Condvar::new(),
            is_live: is_live.into(),
        };
        Self { shared: shared.into(), has_thread: OnceLock::new() }
    }

    /// Prints a line, soon.
    pub(super) fn line(&self, stream: Stream, text: String) {
        if self.has_thread() {
            let mut waiting = self.shared.waiting();
            if !waiting.has_ended {
                waiting.push(stream, text, BYTES_MAX);
                self.shared.changed.notify_all();
                return;
            }
        }
        write(stream, &(text + "\n"));
    }

    /// Draws the live lines, when what is to be printed is printed.
    pub(super) fn show(&self, picture: Picture) {
        if self.is_live() && self.has_thread() {
            self.shared.waiting().picture = Some(picture);
            self.shared.changed.notify_all();
        }
    }

    /// Returns whether there are live lines.
    pub(super) fn is_live(&self) -> bool {
        self.shared.is_live.load(Ordering::Relaxed)
    }

    /// The terminal is gone: goes on without live lines.
    pub(super) fn lose_terminal(&self) {
        self.shared.is_live.store(false, Ordering::Relaxed);
    }

    /// Takes the live lines off the screen when all is printed, however long that takes; who is told to
    /// leave meanwhile leaves.
    pub(super) fn close(&self) {
        if !self.has_ended_soon() {
            let _ = signals::leave_when_told();
            let waiting = self.shared.waiting();
            drop(self.shared.changed.wait_while(waiting, Waiting::is_open));
        }
    }

    fn has_ended_soon(&self) -> bool {
        if self.has_thread.get() != Some(&true) {
            return true;
        }
        let mut waiting = self.shared.waiting();
        waiting.is_closing = true;
        self.shared.changed.notify_all();
        let ended = self.shared.changed.wait_timeout_while(waiting, READER_WAIT, Waiting::is_open);
        ended.unwrap_or_else(PoisonError::into_inner).0.has_ended
    }

    fn has_thread(&self) -> bool {
        *self.has_thread.get_or_init(|| {
            let shared = Arc::clone(&self.shared);
            let run = move || shared.serve();
            thread::Builder::new().name("printer".into()).spawn(run).is_ok()
        })
    }
}

impl Drop for Printer {
    fn drop(&mut self) {
        self.has_ended_soon();
    }
}

impl Waiting {
    fn is_open(&mut self) -> bool {
        !self.has_ended
    }

    fn push(&mut self, stream: Stream, text: String, bytes_max: usize) {
        if self.bytes >= bytes_max {
            self.left_out += 1;
            return;
        }
        self.tell_left_out();
        self.bytes += text.len();
        self.lines.push_back((stream, text));
    }

    fn tell_left_out(&mut self) {
        if self.left_out > 0 {
            let words = (self.words)(self.left_out);
            self.bytes += words.len();
            self.lines.push_back((Stream::Error, words));
            self.left_out = 0;
        }
    }

    fn take(&mut self) -> Vec<(Stream, String)> {
        let count = self.lines.len().min(BATCH);
        let lines: Vec<_> = self.lines.drain(..count).collect();
        self.bytes -= lines.iter().map(|(_, text)| text.len()).sum::<usize>();
        lines
    }
}

impl Shared {
    fn waiting(&self) -> MutexGuard<'_, Waiting> {
        // Whoever panics ends the whole.
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn serve(&self) {
        let mut live = self.is_live.load(Ordering::Relaxed).then(Live::new);
        let mut waiting = self.waiting();
        loop {
            if waiting.is_closing {
                waiting.tell_left_out();
            }
            let lines = waiting.take();
            let picture = waiting.picture.take();
            if lines.is_empty() && picture.is_none() {
                if waiting.is_closing {
                    break;
                }
                let next = self.changed.wait(waiting);
                waiting = next.unwrap_or_else(PoisonError::into_inner);
                continue;
            }
            drop(waiting);
            live = live.filter(|_| self.is_live.load(Ordering::Relaxed));
            match &live {
                Some(live) if !lines.is_empty() => live.apart(|| write_all(lines)),
                _ => write_all(lines),
            }
            if let Some((live, picture)) = live.as_mut().zip(picture) {
                live.show(picture);
                // What cannot be drawn is kept to be drawn later, more and more of it.
                self.is_live.fetch_and(io::stderr().is_terminal(), Ordering::Relaxed);
            }
            waiting = self.waiting();
        }
        drop(waiting);
        if let Some(live) = live {
            live.close();
        }
        self.waiting().has_ended = true;
        self.changed.notify_all();
    }
}

/// Writes those of one stream that follow each other at once.
fn write_all(lines: Vec<(Stream, String)>) {
    let mut text = String::new();
    let mut lines = lines.into_iter().peekable();
    while let Some((stream, line)) = lines.next() {
        text.push_str(&line);
        text.push('\n');
        if lines.peek().is_none_or(|(next, _)| *next != stream) {
            write(stream, &text);
            text.clear();
        }
    }
}

fn write(stream: Stream, text: &str) {
    // Nobody reads any more: the run goes on all the same.
    let _ = match stream {
        Stream::Out => io::stdout().lock().write_all(text.as_bytes()),
        Stream::Error => io::stderr().lock().write_all(text.as_bytes()),
    };
}

#[derive(Debug)]
struct Live {
    all: MultiProgress,
    /// A line without words above the others: where the terminal shows `^C` behind the last of them,
    /// that is all that is taken off one line too late.
    gap: ProgressBar,
    agents: BTreeMap<AgentName, ProgressBar>,
    totals: ProgressBar,
}

impl Live {
    fn new() -> Self {
        let all = MultiProgress::with_draw_target(ProgressDrawTarget::stderr());
        let whole = || ProgressBar::new_spinner().with_style(style("{wide_msg}"));
        let (gap, totals) = (all.add(whole()), all.add(whole()));
        Self { all, gap, agents: BTreeMap::new(), totals }
    }

    fn show(&mut self, picture: Picture) {
        for (name, what) in picture.agents {
            let bar = self.agents.entry(name).or_insert_with_key(|name| {
                let bar = ProgressBar::new_spinner().with_style(style("  {prefix:24} {wide_msg}"));
                let bar = self.all.insert_before(&self.totals, bar);
                bar.set_prefix(name.as_str().to_owned());
                bar
            });
            bar.set_message(what);
        }
        self.totals.set_message(picture.totals);
        self.draw();
    }

    /// Draws at once: else the library draws no more than so often, and what it left out it does not
    /// make up for.
    fn draw(&self) {
        // A line that is finished is always drawn, and no failure told: the terminal may be gone.
        self.gap.finish();
    }

    /// Writes where the live lines are, which come below. The library's own `suspend` panics when the
    /// terminal is gone.
    fn apart(&self, write: impl FnOnce()) {
        let _ = self.all.clear();
        write();
        self.draw();
    }

    fn close(self) {
        let _ = self.all.clear();
        self.all.set_draw_target(ProgressDrawTarget::hidden());
    }
}

fn style(template: &str) -> ProgressStyle {
    ProgressStyle::with_template(template).unwrap_or_else(|_| ProgressStyle::default_spinner())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_that_found_no_room_are_told_where_they_are_missing() {
        let printer = Printer::new(false, |count| format!("{count} left out"));
        let mut waiting = printer.shared.waiting();
        let texts =
            |lines: Vec<(Stream, String)>| lines.into_iter().map(|(_, text)| text).collect();
        for text in ["a", "b", "c", "d"] {
            waiting.push(Stream::Out, text.into(), 2);
        }
        let taken: Vec<String> = texts(waiting.take());
        assert_eq!(taken, ["a", "b"]);
        waiting.push(Stream::Out, "e".into(), 2);
        let taken: Vec<String> = texts(waiting.take());
        assert_eq!((taken, waiting.bytes), (vec!["2 left out".to_owned(), "e".to_owned()], 0));
    }
}
