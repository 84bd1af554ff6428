//! What is typed for an agent in a terminal: one line, once its program listens, and the keys that
//! send it off.
//!
//! A starting program shows nothing for seconds, and what is sent then is lost. So its ready pattern
//! is waited for; it is looked whether the line has arrived, and it is sent again where it has not.
//! No outcome depends on any of this.

use std::io;
use std::time::{Duration, Instant};

use regex::{Regex, RegexBuilder};
use serde::{Deserialize, Serialize};

use crate::machine::preset::KEYS;

/// How text is put into a pane.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Paste {
    /// As a paste, where the program has asked to be told of pastes.
    Bracketed,
    /// As if typed.
    Raw,
}

/// How often the pane is looked at.
const LOOK: Duration = Duration::from_millis(200);
/// The same when the program has not been ready for [`LONG`]: a person may have to answer it first.
const LOOK_LATER: Duration = Duration::from_secs(1);
const LONG: Duration = Duration::from_secs(60);
/// How long a program without a ready pattern may show nothing.
const BLANK_MAX: Duration = Duration::from_secs(5);
/// How long the line may take to show.
const SHOW_MAX: Duration = Duration::from_secs(3);
/// From the line to the keys, which some programs take for a part of the paste.
const PAUSE: Duration = Duration::from_secs(1);
/// How often line and keys are sent.
const TRIES_MAX: u32 = 3;
/// Letters of the line that must show; it may be cut or framed.
const HEAD_CHARS: usize = 24;
const PATTERN_BYTES_MAX: usize = 1 << 20;

/// What is typed, and when.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Typing {
    /// The line, without an end.
    pub line: String,
    /// Fits a line of the pane when the program listens; `None`: it does when it shows anything.
    pub ready: Option<String>,
    /// Fits a line of the pane while the program works.
    pub busy: Option<String>,
    /// Names of the keys that send the line off, such as `Enter`; other text stands for itself.
    pub submit: Vec<String>,
}

impl Typing {
    /// Returns what is typed where nothing is known of the program: the one line, and Enter.
    ///
    /// `task` and `prompt` are files as the agent would open them.
    #[must_use]
    pub fn line(task: &str, prompt: Option<&str>) -> Self {
        let line = match prompt {
            Some(prompt) => format!("Read {task}, then {prompt}, and do what they say."),
            None => format!("Read {task} and do what it says."),
        };
        Self {
            line: line.replace(char::is_control, " "),
            ready: None,
            busy: None,
            submit: vec!["Enter".into()],
        }
    }
}

/// The pane, as far as typing needs it.
pub trait Screen {
    /// Returns the text shown.
    ///
    /// # Errors
    /// When it cannot be had now.
    fn text(&self) -> io::Result<String>;

    /// Puts text in.
    ///
    /// # Errors
    /// When it cannot be done now.
    fn paste(&self, text: &str, how: Paste) -> io::Result<()>;

    /// Returns true when the program has written anything.
    fn has_output(&self) -> bool;
}

/// How far the typing is.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Step {
    /// Waits for the program; true: it was ready at the last look.
    Ready(bool),
    /// The line was sent; what the pane showed before, and until when to look.
    Sent {
        before: String,
        until: Instant,
    },
    /// The line stands there.
    Arrived,
    /// The keys were sent.
    Submitted {
        before: String,
        until: Instant,
    },
    Done,
}

/// Types for one attempt.
#[derive(Debug)]
pub struct Typist {
    typing: Typing,
    ready: Option<Regex>,
    busy: Option<Regex>,
    begun: Instant,
    step: Step,
    tries: u32,
    at: Instant,
}

impl Typist {
    /// Begins to wait for the program. A pattern that is none counts as not given.
    #[must_use]
    pub fn new(typing: Typing, now: Instant) -> Self {
        let pattern = |text: &Option<String>| {
            let mut builder = RegexBuilder::new(text.as_ref()?);
            builder.multi_line(true).size_limit(PATTERN_BYTES_MAX).build().ok()
        };
        let (ready, busy) = (pattern(&typing.ready), pattern(&typing.busy));
        Self { typing, ready, busy, begun: now, step: Step::Ready(false), tries: 0, at: now }
    }

    /// Returns when to look next; `None`: all is typed.
    #[must_use]
    pub fn due(&self) -> Option<Instant> {
        (self.step != Step::Done).then_some(self.at)
    }

    /// Does what is due; a pane that cannot be had is asked again.
    pub fn advance(&mut self, now: Instant, screen: &dyn Screen) {
        if self.step == Step::Done || self.at > now {
            return;
        }
        self.at = now + LOOK;
        let Ok(text) = screen.text() else { return };
        match self.step.clone() {
            Step::Ready(was_ready) => {
                let is_ready = self.is_ready(&text, now, screen);
                // Twice: the pane may still show the end of the attempt before.
                if is_ready && was_ready {
                    self.send_line(text, now, screen);
                } else {
                    self.step = Step::Ready(is_ready);
                    if now - self.begun > LONG {
                        self.at = now + LOOK_LATER;
                    }
                }
            }
            Step::Sent { before, until } => {
                let is_late = until <= now;
                if shows(&text, &self.typing.line) || (is_late && text != before) {
                    (self.step, self.tries, self.at) = (Step::Arrived, 0, now + PAUSE);
                } else if is_late {
                    self.again(now, |typist| typist.send_line(text, now, screen));
                }
            }
            Step::Arrived => self.send_keys(text, now, screen),
            Step::Submitted { before, until } => {
                if text != before || self.is_busy(&text) {
                    self.step = Step::Done;
                } else if until <= now {
                    self.again(now, |typist| typist.send_keys(text, now, screen));
                }
            }
            Step::Done => {}
        }
    }

    fn is_ready(&self, text: &str, now: Instant, screen: &dyn Screen) -> bool {
        match &self.ready {
            Some(ready) => screen.has_output() && ready.is_match(text) && !self.is_busy(text),
            None => screen.has_output() || now - self.begun > BLANK_MAX,
        }
    }

    fn is_busy(&self, text: &str) -> bool {
        self.busy.as_ref().is_some_and(|busy| busy.is_match(text))
    }

    fn send_line(&mut self, before: String, now: Instant, screen: &dyn Screen) {
        self.tries += 1;
        // A paste that fails is one that does not arrive.
        let _ = screen.paste(&self.typing.line, Paste::Bracketed);
        self.step = Step::Sent { before, until: now + SHOW_MAX };
    }

    fn send_keys(&mut self, before: String, now: Instant, screen: &dyn Screen) {
        self.tries += 1;
        let keys: String = self.typing.submit.iter().map(|key| bytes_of(key)).collect();
        if keys.is_empty() {
            self.step = Step::Done;
            return;
        }
        let _ = screen.paste(&keys, Paste::Raw);
        self.step = Step::Submitted { before, until: now + SHOW_MAX };
    }

    fn again(&mut self, now: Instant, send: impl FnOnce(&mut Self)) {
        if self.tries < TRIES_MAX {
            send(self);
        } else if matches!(self.step, Step::Sent { .. }) {
            // A program without echo may have it all the same.
            (self.step, self.tries, self.at) = (Step::Arrived, 0, now + PAUSE);
        } else {
            self.step = Step::Done;
        }
    }
}

/// Returns what a terminal sends for a key.
fn bytes_of(key: &str) -> &str {
    KEYS.iter().find(|(name, _)| *name == key).map_or(key, |(_, bytes)| bytes)
}

/// Returns true when the beginning of `line` stands in `text`, however it is broken into lines.
fn shows(text: &str, line: &str) -> bool {
    let letters = |text: &str| -> String { text.chars().filter(|c| !c.is_whitespace()).collect() };
    let head: String = letters(line).chars().take(HEAD_CHARS).collect();
    letters(text).contains(&head)
}

#[cfg(test)]
mod tests {
    use std::cell::RefCell;
    use std::io;
    use std::time::Duration;

    use super::{Paste, Screen, Typing, Typist, shows};
    use crate::sys::clock;

    /// A program with an input line, of a kind.
    #[derive(Default)]
    struct Program {
        /// Before these looks it shows nothing.
        blank_looks: u32,
        /// Pastes that get lost.
        deaf_pastes: u32,
        shown: RefCell<String>,
        looks: RefCell<u32>,
        got: RefCell<Vec<String>>,
    }

    impl Screen for Program {
        fn text(&self) -> io::Result<String> {
            *self.looks.borrow_mut() += 1;
            if *self.looks.borrow() == self.blank_looks + 1 {
                self.shown.borrow_mut().push_str("welcome\n> ");
            }
            Ok(self.shown.borrow().clone())
        }

        fn paste(&self, text: &str, how: Paste) -> io::Result<()> {
            self.got.borrow_mut().push(format!("{how:?} {text:?}"));
            if self.got.borrow().len() as u32 > self.deaf_pastes {
                self.shown.borrow_mut().push_str(text);
            }
            Ok(())
        }

        fn has_output(&self) -> bool {
            !self.shown.borrow().is_empty()
        }
    }

    fn run(program: &Program, ready: Option<&str>, seconds: u64) -> Vec<String> {
        let begun = clock::monotonic();
        let typing = Typing {
            line: "Read TASK-001.md and do it".into(),
            ready: ready.map(str::to_owned),
            busy: None,
            submit: vec!["Escape".into(), "Enter".into()],
        };
        let mut typist = Typist::new(typing, begun);
        for tick in 0..seconds * 20 {
            typist.advance(begun + Duration::from_millis(tick * 50), program);
        }
        assert_eq!(typist.due().is_none(), program.got.borrow().len() > 1);
        program.got.take()
    }

    const LINE: &str = "Bracketed \"Read TASK-001.md and do it\"";
    const KEYS: &str = "Raw \"\\u{1b}\\r\"";

    #[test]
    fn line_is_sent_when_the_pattern_shows_and_keys_follow() {
        let program = Program { blank_looks: 20, ..Program::default() };
        assert_eq!(run(&program, Some("^> $"), 60), [LINE, KEYS]);
        assert!(*program.looks.borrow() > 20);
    }

    #[test]
    fn nothing_is_sent_to_a_program_that_is_not_ready() {
        assert_eq!(run(&Program::default(), Some("^never$"), 300), [""; 0]);
    }

    #[test]
    fn without_a_pattern_any_output_or_a_bound_will_do() {
        assert_eq!(run(&Program::default(), None, 60), [LINE, KEYS]);
        let blank = Program { blank_looks: u32::MAX - 1, ..Program::default() };
        assert_eq!(run(&blank, None, 60), [LINE, KEYS]);
    }

    #[test]
    fn line_that_got_lost_is_sent_again_a_bounded_number_of_times() {
        let program = Program { deaf_pastes: 1, ..Program::default() };
        assert_eq!(run(&program, Some("^> "), 60), [LINE, LINE, KEYS]);
        let deaf = Program { deaf_pastes: 100, ..Program::default() };
        assert_eq!(run(&deaf, Some("^> "), 60), [LINE, LINE, LINE, KEYS, KEYS, KEYS]);
    }

    #[test]
    fn line_shows_though_it_is_broken_and_framed() {
        assert!(shows("| > Read TASK-0\n01.md and do it |", "Read TASK-001.md and"));
        assert!(!shows("Read TASK-002.md", "Read TASK-001.md"));
    }
}
