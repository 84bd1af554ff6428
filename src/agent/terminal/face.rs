//! The two terminals of the shim: the window's, and the agent's own.

use std::collections::VecDeque;
use std::fs::File;
use std::io::{self, Read, Write};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::OpenOptionsExt;

use rustix::fs::OFlags;
use rustix::pty::OpenptFlags;
use rustix::termios::{OptionalActions, Winsize};

use crate::sys::fail;

/// More than this is not taken from the agent while the window does not take it.
const PENDING_BYTES_MAX: usize = 256 * 1024;

/// The terminal that the process was started in, written and read without ever waiting.
#[derive(Debug)]
pub struct Face {
    tty: File,
    pending: VecDeque<u8>,
}

impl Face {
    /// Opens the terminal and makes it raw: what is typed goes on as it is.
    ///
    /// # Errors
    /// When there is none.
    pub fn open() -> io::Result<Self> {
        fail::point("pane.face")?;
        let flags = OFlags::NONBLOCK | OFlags::NOCTTY;
        let flags = flags.bits().cast_signed();
        let tty = File::options().read(true).write(true).custom_flags(flags).open("/dev/tty")?;
        let mut modes = rustix::termios::tcgetattr(&tty)?;
        modes.make_raw();
        rustix::termios::tcsetattr(&tty, OptionalActions::Now, &modes)?;
        Ok(Self { tty, pending: VecDeque::new() })
    }

    /// Returns the size, or that of an old terminal.
    #[must_use]
    pub fn size(&self) -> Winsize {
        let default = Winsize { ws_row: 24, ws_col: 80, ws_xpixel: 0, ws_ypixel: 0 };
        rustix::termios::tcgetwinsize(&self.tty).unwrap_or(default)
    }

    /// Writes what can be written now; the rest follows with the next call.
    pub fn write(&mut self, bytes: &[u8]) {
        self.pending.extend(bytes);
        put(&mut self.pending, &self.tty);
    }

    /// Returns true while something is left to be written.
    #[must_use]
    pub fn is_behind(&self) -> bool {
        !self.pending.is_empty()
    }

    /// Returns true when no more should be taken from the agent.
    #[must_use]
    pub fn is_full(&self) -> bool {
        self.pending.len() > PENDING_BYTES_MAX
    }

    /// Takes what was typed; `None`: the terminal is gone.
    pub fn read(&mut self, buffer: &mut [u8]) -> Option<usize> {
        match self.tty.read(buffer) {
            Ok(0) => None,
            Ok(count) => Some(count),
            Err(error) if is_later(&error) => Some(0),
            Err(_) => None,
        }
    }
}

impl AsFd for Face {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.tty.as_fd()
    }
}

/// The agent's own terminal, and the window that shows it.
#[derive(Debug)]
pub struct Pty {
    /// Our end: what the agent writes is read here.
    pub master: File,
    /// The agent's end.
    pub slave: OwnedFd,
    /// Where it is shown.
    pub face: Face,
}

impl Pty {
    /// Makes a terminal as large as the window.
    ///
    /// # Errors
    /// When there are no terminals left.
    pub fn make() -> io::Result<Self> {
        fail::point("pane.pty")?;
        let face = Face::open()?;
        let flags = OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC;
        let master = rustix::pty::openpt(flags)?;
        rustix::pty::grantpt(&master)?;
        rustix::pty::unlockpt(&master)?;
        let slave = rustix::pty::ioctl_tiocgptpeer(&master, flags)?;
        rustix::termios::tcsetwinsize(&slave, face.size())?;
        rustix::io::ioctl_fionbio(&master, true)?;
        Ok(Self { master: master.into(), slave, face })
    }
}

/// What was typed and the agent has not read yet, on the way to its terminal.
#[derive(Debug)]
pub struct Keys {
    master: File,
    pending: VecDeque<u8>,
}

impl Keys {
    /// Writes to the terminal whose end is `master`.
    #[must_use]
    pub fn to(master: File) -> Self {
        Self { master, pending: VecDeque::new() }
    }

    /// Passes `bytes` on; an agent that reads nothing loses what exceeds a bound.
    pub fn write(&mut self, bytes: &[u8]) {
        if self.pending.len() <= PENDING_BYTES_MAX {
            self.pending.extend(bytes);
        }
        put(&mut self.pending, &self.master);
    }

    /// Returns true while something is left to be written.
    #[must_use]
    pub fn is_behind(&self) -> bool {
        !self.pending.is_empty()
    }

    /// Tells the agent's terminal its size.
    pub fn resize(&self, size: Winsize) {
        // A terminal that is gone has none.
        let _ = rustix::termios::tcsetwinsize(&self.master, size);
    }
}

fn put(pending: &mut VecDeque<u8>, mut to: &File) {
    while !pending.is_empty() {
        let (first, _) = pending.as_slices();
        match to.write(first) {
            Ok(count) if count > 0 => drop(pending.drain(..count)),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) if is_later(&error) => return,
            // Gone: nobody is left to read it.
            Ok(_) | Err(_) => pending.clear(),
        }
    }
}

fn is_later(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted)
}
