//! What monitor and keeper say to each other: one JSON object a line, over a Unix socket.
//!
//! Both sides name the version in each message. A side that reads an older one answers in it, so that
//! a keeper which outlived an upgrade is spoken to as it understands; a newer one is refused by name.

use std::io::{self, Read, Write};
use std::os::unix::net::UnixStream;

use rustix::event::{PollFd, PollFlags, Timespec};
use serde::{Deserialize, Serialize};

use super::job::{ExitRecord, Job};
use crate::sys::fail;

/// The version of the messages.
pub const PROTOCOL_VERSION: u32 = 1;
/// The oldest version that is understood: there `started` names no leader.
pub const PROTOCOL_OLDEST: u32 = 0;
/// Longest line read; a job's environment is its largest part.
pub const LINE_BYTES_MAX: usize = 16 * 1024 * 1024;

/// How long a sender waits for a reader whose buffer is full.
pub const SEND_WAIT: Timespec = Timespec { tv_sec: 2, tv_nsec: 0 };

const READ_BYTES: usize = 64 * 1024;

/// What the monitor says.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "order", rename_all = "snake_case")]
pub enum Order {
    /// Run this job; answered by `started` and `exited`, or by `refused`.
    Run {
        /// The job.
        job: Box<Job>,
    },
    /// End the attempt; answered by its `exited`, or by `refused`.
    Stop {
        /// Attempt id.
        attempt: String,
        /// From the polite signal to the forced end.
        grace_ms: u64,
    },
    /// Take no more jobs, and leave when the present one has ended.
    Quit,
}

/// What a keeper says.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "report", rename_all = "snake_case")]
pub enum KeeperReport {
    /// The first message on a connection.
    Hello {
        /// The agent served.
        agent: String,
        /// The keeper's process id.
        pid: i32,
        /// The attempt under way.
        running: Option<String>,
    },
    /// The first command of the attempt runs.
    Started {
        /// Attempt id.
        attempt: String,
        /// The process that leads its session, where it has one of its own.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        leader: Option<i32>,
    },
    /// The attempt is over and its `exit.json` stands.
    Exited {
        /// What `exit.json` holds.
        record: Box<ExitRecord>,
    },
    /// An order was not carried out.
    Refused {
        /// The attempt ordered, when the order named one.
        attempt: Option<String>,
        /// Why, for people.
        why: String,
    },
}

#[derive(Serialize, Deserialize)]
struct Versioned<T> {
    v: u32,
    #[serde(flatten)]
    message: T,
}

#[derive(Deserialize)]
struct VersionOnly {
    v: u32,
}

/// Returns `message` as one line with its line end, for a side that speaks `version`.
///
/// # Errors
/// When it holds a path that is not Unicode.
pub fn encode<T: Serialize>(message: &T, version: u32) -> io::Result<Vec<u8>> {
    let mut line = serde_json::to_vec(&Versioned { v: version, message })?;
    line.push(b'\n');
    Ok(line)
}

/// Reads one line.
///
/// # Errors
/// A version that is not understood, by number; or what is wrong with the text.
pub fn decode<T: for<'de> Deserialize<'de>>(line: &[u8]) -> io::Result<T> {
    let invalid = |text: String| io::Error::new(io::ErrorKind::InvalidData, text);
    let VersionOnly { v } =
        serde_json::from_slice(line).map_err(|error| invalid(error.to_string()))?;
    if !(PROTOCOL_OLDEST..=PROTOCOL_VERSION).contains(&v) {
        return Err(invalid(format!(
            "message of version {v}, this build speaks {PROTOCOL_OLDEST} to {PROTOCOL_VERSION}"
        )));
    }
    let message: Versioned<T> =
        serde_json::from_slice(line).map_err(|error| invalid(error.to_string()))?;
    Ok(message.message)
}

/// Whether more may come on a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Flow {
    /// The other side is there.
    Open,
    /// It has gone.
    Ended,
}

/// A connection that never blocks on reading, with the part of a line that has arrived.
#[derive(Debug)]
pub struct Connection {
    stream: UnixStream,
    pending: Vec<u8>,
    /// What the other side speaks, as far as this one does; ours until it has said something.
    version: u32,
}

impl Connection {
    /// Takes over `stream`, which is made non-blocking.
    ///
    /// # Errors
    /// When the kernel refuses the mode.
    pub fn new(stream: UnixStream) -> io::Result<Self> {
        stream.set_nonblocking(true)?;
        Ok(Self { stream, pending: Vec::new(), version: PROTOCOL_VERSION })
    }

    /// Returns the version in which the other side is spoken to.
    #[must_use]
    pub fn version(&self) -> u32 {
        self.version
    }

    /// Returns the stream, to be polled or cloned.
    #[must_use]
    pub fn stream(&self) -> &UnixStream {
        &self.stream
    }

    /// Sends one message whole or fails; a side that does not read is as good as gone.
    ///
    /// # Errors
    /// When the other side is gone, or has not read for [`SEND_WAIT`].
    pub fn send<T: Serialize>(&mut self, message: &T) -> io::Result<()> {
        send_line(&self.stream, &encode(message, self.version)?)
    }

    /// Appends the whole lines that have arrived to `lines`.
    ///
    /// # Errors
    /// Any read error but would-block; a line over [`LINE_BYTES_MAX`].
    pub fn receive(&mut self, lines: &mut Vec<Vec<u8>>) -> io::Result<Flow> {
        let mut buffer = [0_u8; READ_BYTES];
        let flow = loop {
            match self.stream.read(&mut buffer) {
                Ok(0) => break Flow::Ended,
                Ok(count) => self.pending.extend_from_slice(&buffer[..count]),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => break Flow::Open,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) if error.kind() == io::ErrorKind::ConnectionReset => break Flow::Ended,
                Err(error) => return Err(error),
            }
            if self.pending.len() > LINE_BYTES_MAX {
                return Err(io::Error::other("a message beyond the size limit"));
            }
        };
        let Some(end) = self.pending.iter().rposition(|byte| *byte == b'\n') else {
            return Ok(flow);
        };
        let rest = self.pending.split_off(end + 1);
        let whole = std::mem::replace(&mut self.pending, rest);
        let first = lines.len();
        lines.extend(whole[..end].split(|byte| *byte == b'\n').map(<[u8]>::to_vec));
        // One that cannot be read says so when it is decoded.
        let said = lines.get(first).and_then(|line| serde_json::from_slice(line).ok());
        if let Some(VersionOnly { v }) = said {
            self.version = v.clamp(PROTOCOL_OLDEST, PROTOCOL_VERSION);
        }
        Ok(flow)
    }
}

/// Writes `line` to a non-blocking stream.
///
/// # Errors
/// When the other side is gone, or has not read for [`SEND_WAIT`].
pub fn send_line(mut stream: &UnixStream, mut line: &[u8]) -> io::Result<()> {
    fail::point("keeper.send")?;
    while !line.is_empty() {
        match stream.write(line) {
            Ok(count) => line = &line[count..],
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                let mut polled = [PollFd::new(stream, PollFlags::OUT)];
                if rustix::event::poll(&mut polled, Some(&SEND_WAIT))? == 0 {
                    return Err(io::ErrorKind::TimedOut.into());
                }
            }
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::io::Write;
    use std::os::unix::net::UnixStream;

    use super::{
        Connection, Flow, KeeperReport, Order, PROTOCOL_OLDEST, PROTOCOL_VERSION, decode, encode,
    };

    #[test]
    fn messages_survive_the_wire_in_pieces() {
        let (mut here, there) = UnixStream::pair().expect("socket pair");
        let mut connection = Connection::new(there).expect("non-blocking");
        let line = encode(&Order::Quit, PROTOCOL_VERSION).expect("encodes");
        let mut lines = Vec::new();
        here.write_all(&line[..4]).expect("writes");
        assert_eq!(connection.receive(&mut lines).expect("reads"), Flow::Open);
        assert!(lines.is_empty());
        here.write_all(&line[4..]).expect("writes");
        here.write_all(&line).expect("writes");
        drop(here);
        assert_eq!(connection.receive(&mut lines).expect("reads"), Flow::Ended);
        assert_eq!(lines.len(), 2);
        assert_eq!(decode::<Order>(&lines[1]).expect("decodes"), Order::Quit);
    }

    #[test]
    fn other_version_is_named() {
        let error = decode::<Order>(br#"{"v":7,"order":"dance"}"#).expect_err("refused");
        assert!(error.to_string().contains("version 7"), "{error}");
    }

    #[test]
    fn an_older_side_is_answered_in_its_version() {
        let (mut here, there) = UnixStream::pair().expect("socket pair");
        let mut connection = Connection::new(there).expect("non-blocking");
        assert_eq!(connection.version(), PROTOCOL_VERSION);
        for (version, answer) in [(0, PROTOCOL_OLDEST), (1, 1), (9, PROTOCOL_VERSION)] {
            let line = encode(&Order::Quit, version).expect("encodes");
            here.write_all(&line).expect("writes");
            connection.receive(&mut Vec::new()).expect("reads");
            connection.send(&Order::Quit).expect("sends");
            let mut said = [0; 64];
            let length = std::io::Read::read(&mut here, &mut said).expect("reads");
            assert_eq!(said[..length], encode(&Order::Quit, answer).expect("encodes"));
        }
        let old = br#"{"v":0,"report":"started","attempt":"a"}"#;
        let report = KeeperReport::Started { attempt: "a".into(), leader: None };
        assert_eq!(decode::<KeeperReport>(old).expect("decodes"), report);
    }

    #[test]
    fn unknown_fields_are_ignored() {
        let text = br#"{"v":1,"report":"started","attempt":"a","colour":"red"}"#;
        let report: KeeperReport = decode(text).expect("decodes");
        assert_eq!(report, KeeperReport::Started { attempt: "a".into(), leader: None });
    }
}
