//! Where a command reads and writes: data on standard output, all else on standard error.
//!
//! A reader that goes away (`pipeline log | head`) is no error: what follows is dropped in silence.

use std::io::{self, IsTerminal, Read, Write};

use serde::Serialize;

use super::error::Error;

/// How data is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Format {
    /// For people.
    Text,
    /// One JSON value a line.
    Json,
}

/// When to use colours.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum Color {
    /// On a terminal, unless `NO_COLOR` is set; elsewhere with `CLICOLOR_FORCE`.
    Auto,
    Always,
    Never,
}

impl Color {
    /// Returns true when output may be coloured.
    #[must_use]
    pub fn is_wanted(self, is_terminal: bool, env: impl Fn(&str) -> Option<String>) -> bool {
        let is_set = |name: &str| env(name).is_some_and(|value| !value.is_empty());
        let is_forced = env("CLICOLOR_FORCE").is_some_and(|value| !matches!(&*value, "" | "0"));
        match self {
            Self::Always => true,
            Self::Never => false,
            Self::Auto => !is_set("NO_COLOR") && (is_forced || is_terminal),
        }
    }
}

/// The standard streams of a command.
pub struct Console<'a> {
    stdin: Box<dyn Read + 'a>,
    stdout: Box<dyn Write + 'a>,
    stderr: Box<dyn Write + 'a>,
    /// How data is written.
    pub format: Format,
    /// Notes are dropped.
    pub is_quiet: bool,
    /// Standard output may be coloured.
    pub is_colored: bool,
    is_closed: bool,
}

impl Console<'static> {
    /// Returns the streams of the process.
    #[must_use]
    pub fn process(format: Format, is_quiet: bool, color: Color) -> Self {
        let env = |name: &str| std::env::var(name).ok();
        let is_colored = color.is_wanted(io::stdout().is_terminal(), env);
        let (stdin, stdout, stderr) = (io::stdin(), io::stdout(), io::stderr());
        let mut console = Self::new(stdin, stdout, stderr, format);
        console.is_quiet = is_quiet;
        console.is_colored = is_colored;
        console
    }
}

impl<'a> Console<'a> {
    /// Makes a console of any three streams, neither quiet nor coloured.
    #[must_use]
    pub fn new(
        stdin: impl Read + 'a,
        stdout: impl Write + 'a,
        stderr: impl Write + 'a,
        format: Format,
    ) -> Self {
        Self {
            stdin: Box::new(stdin),
            stdout: Box::new(stdout),
            stderr: Box::new(stderr),
            format,
            is_quiet: false,
            is_colored: false,
            is_closed: false,
        }
    }

    /// Returns true when nobody reads the data any more: a stream may end.
    #[must_use]
    pub fn is_closed(&self) -> bool {
        self.is_closed
    }

    /// Writes data as it is.
    ///
    /// # Errors
    /// When the data cannot be written, but not because its reader went away.
    pub fn write(&mut self, data: &[u8]) -> Result<(), Error> {
        if self.is_closed {
            return Ok(());
        }
        let written = self.stdout.write_all(data).and_then(|()| self.stdout.flush());
        self.written(written)
    }

    /// Judges what became of data that was written.
    ///
    /// # Errors
    /// As [`Console::write`].
    pub fn written(&mut self, written: io::Result<()>) -> Result<(), Error> {
        match written {
            Ok(()) => Ok(()),
            Err(error) if error.kind() == io::ErrorKind::BrokenPipe => {
                self.is_closed = true;
                Ok(())
            }
            Err(error) => Err(Error::failed("cannot write to standard output").because(&error)),
        }
    }

    /// Writes a line of data.
    ///
    /// # Errors
    /// As [`Console::write`].
    pub fn line(&mut self, text: &str) -> Result<(), Error> {
        self.write(format!("{text}\n").as_bytes())
    }

    /// Writes a JSON value on a line.
    ///
    /// # Errors
    /// As [`Console::write`]; and when the value is no JSON, which is a fault of the program.
    pub fn json(&mut self, value: &impl Serialize) -> Result<(), Error> {
        let text = serde_json::to_string(value);
        let text = text.map_err(|error| Error::failed("cannot make JSON").because(&error))?;
        self.line(&text)
    }

    /// Writes the value as JSON or the text as a line, as asked for.
    ///
    /// # Errors
    /// As [`Console::json`].
    pub fn data(&mut self, value: &impl Serialize, text: &str) -> Result<(), Error> {
        match self.format {
            Format::Json => self.json(value),
            Format::Text => self.line(text),
        }
    }

    /// Says something worth knowing on standard error, unless quiet.
    pub fn note(&mut self, text: &str) {
        if !self.is_quiet {
            self.aside("note", text);
        }
    }

    /// Says on standard error that something is probably not meant.
    pub fn warn(&mut self, text: &str) {
        self.aside("warning", text);
    }

    fn aside(&mut self, word: &'static str, text: &str) {
        let line = match self.format {
            Format::Text => format!("{word}: {text}\n"),
            Format::Json => format!("{}\n", serde_json::json!({ word: { "message": text } })),
        };
        // Nobody is left to tell when standard error cannot be written.
        let _ = self.stderr.write_all(line.as_bytes());
    }

    /// Tells the error on standard error.
    pub fn error(&mut self, error: &Error) {
        let text = match self.format {
            Format::Text => error.text(),
            Format::Json => error.json(),
        };
        // Nobody is left to tell when standard error cannot be written.
        let _ = self.stderr.write_all(text.as_bytes());
    }

    /// Reads standard input to its end; `what` names it in errors.
    ///
    /// # Errors
    /// [`Error::invalid`] when it is longer than `bytes_max`; [`Error::failed`] when it cannot be
    /// read.
    pub fn input(&mut self, what: &str, bytes_max: u64) -> Result<Vec<u8>, Error> {
        let mut bytes = Vec::new();
        let read = self.stdin.by_ref().take(bytes_max + 1).read_to_end(&mut bytes);
        read.map_err(|error| Error::failed(format!("cannot read {what}")).because(&error))?;
        if bytes.len() as u64 > bytes_max {
            return Err(Error::invalid(format!("{what} is longer than {bytes_max} bytes")));
        }
        Ok(bytes)
    }
}

#[cfg(test)]
pub(super) mod tests {
    use std::io::{self, Write};

    use super::{Color, Console, Format};

    /// Runs `act` on a console with the input given; returns what it wrote (output, error).
    pub(in crate::cli) fn captured<T>(
        input: &str,
        format: Format,
        act: impl FnOnce(&mut Console<'_>) -> T,
    ) -> (T, String, String) {
        let (mut out, mut err) = (Vec::new(), Vec::new());
        let value = act(&mut Console::new(input.as_bytes(), &mut out, &mut err, format));
        let text = |bytes| String::from_utf8(bytes).expect("output is text");
        (value, text(out), text(err))
    }

    struct Gone(io::ErrorKind);

    impl Write for Gone {
        fn write(&mut self, _: &[u8]) -> io::Result<usize> {
            Err(io::Error::from(self.0))
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn closed_pipe_is_silent() {
        let mut console =
            Console::new(io::empty(), Gone(io::ErrorKind::BrokenPipe), io::sink(), Format::Text);
        assert_eq!(console.line("x"), Ok(()));
        assert!(console.is_closed());
        assert_eq!(console.line("y"), Ok(()));
    }

    #[test]
    fn full_disk_is_an_error() {
        let mut console =
            Console::new(io::empty(), Gone(io::ErrorKind::StorageFull), io::sink(), Format::Text);
        let error = console.line("x").unwrap_err();
        assert_eq!(error.kind.exit().number(), 1);
    }

    #[test]
    fn input_is_bounded() {
        let read = |max| captured("12345", Format::Text, |console| console.input("it", max)).0;
        assert_eq!(read(5), Ok(b"12345".to_vec()));
        assert_eq!(read(4).unwrap_err().message, "it is longer than 4 bytes");
    }

    #[test]
    fn asides_are_json_where_errors_are() {
        let (_, out, err) = captured("", Format::Json, |console| console.warn("odd"));
        assert_eq!((out.as_str(), err.as_str()), ("", "{\"warning\":{\"message\":\"odd\"}}\n"));
    }

    #[test]
    fn colours_follow_flag_then_environment_then_terminal() {
        let with = |pairs: &[(&str, &str)], color: Color, is_terminal| {
            color.is_wanted(is_terminal, |name| {
                pairs.iter().find(|(key, _)| *key == name).map(|(_, value)| (*value).to_owned())
            })
        };
        assert!(with(&[], Color::Auto, true));
        assert!(!with(&[], Color::Auto, false));
        assert!(!with(&[("NO_COLOR", "1")], Color::Auto, true));
        assert!(with(&[("NO_COLOR", "1")], Color::Always, false));
        assert!(with(&[("CLICOLOR_FORCE", "1")], Color::Auto, false));
        assert!(!with(&[("CLICOLOR_FORCE", "0")], Color::Auto, false));
        assert!(!with(&[("CLICOLOR_FORCE", "1")], Color::Never, true));
    }
}
