//! An attempt's log: the beginning and the end of what its commands wrote, never more than a limit.
//!
//! The first half of the limit goes straight into the log, where it can be followed. What comes
//! after goes into two part files of a quarter each, the older given up for a newer; at the end they
//! are put behind the beginning, with one line that tells how much is missing.

use std::fs::{self, File};
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};

use crate::sys::fail;
use crate::sys::file::open_regular;

/// A log being written.
#[derive(Debug)]
pub struct CappedLog {
    path: PathBuf,
    /// Made with the first byte: a command that says nothing leaves no file.
    head: Option<File>,
    head_left: u64,
    part_max: u64,
    part: Option<(File, u64)>,
    older_bytes: Option<u64>,
    bytes: u64,
    dropped: u64,
    error: Option<io::Error>,
}

/// How much went through a log.
#[derive(Debug)]
pub struct LogTotal {
    /// Bytes written to it.
    pub bytes: u64,
    /// Of these, the bytes it does not hold.
    pub dropped: u64,
    /// The first write that failed; what came after it is dropped.
    pub error: Option<io::Error>,
}

impl CappedLog {
    /// Makes an empty log at `path`, to hold `bytes_max` bytes and one line more.
    ///
    /// # Errors
    /// When an older file there cannot be removed.
    pub fn create(path: &Path, bytes_max: u64) -> io::Result<Self> {
        fail::point("agent.log_create")?;
        match fs::remove_file(path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            Ok(()) | Err(_) => {}
        }
        let part_max = bytes_max / 4;
        Ok(Self {
            path: path.to_owned(),
            head: None,
            head_left: bytes_max - part_max * 2,
            part_max,
            part: None,
            older_bytes: None,
            bytes: 0,
            dropped: 0,
            error: None,
        })
    }

    /// Takes `bytes` in; a failing disk makes it drop them, which [`Self::finish`] reports.
    pub fn write(&mut self, bytes: &[u8]) {
        self.bytes += bytes.len() as u64;
        if self.error.is_some() {
            self.dropped += bytes.len() as u64;
        } else if let Err((error, lost)) = self.try_write(bytes) {
            self.dropped += lost;
            self.error = Some(error);
        }
    }

    fn try_write(&mut self, mut bytes: &[u8]) -> Result<(), (io::Error, u64)> {
        let lost = |bytes: &[u8]| bytes.len() as u64;
        if self.head_left > 0 && !bytes.is_empty() {
            let count = bytes.len().min(usize::try_from(self.head_left).unwrap_or(usize::MAX));
            let written = self.head().and_then(|head| head.write_all(&bytes[..count]));
            written.map_err(|error| (error, lost(bytes)))?;
            self.head_left -= count as u64;
            bytes = &bytes[count..];
        }
        while !bytes.is_empty() {
            if self.part_max == 0 {
                self.dropped += lost(bytes);
                return Ok(());
            }
            if self.part.as_ref().is_none_or(|(_, written)| *written == self.part_max) {
                self.turn_part().map_err(|error| (error, lost(bytes)))?;
            }
            let Some((file, written)) = self.part.as_mut() else { return Ok(()) };
            let room = usize::try_from(self.part_max - *written).unwrap_or(usize::MAX);
            let count = bytes.len().min(room);
            file.write_all(&bytes[..count]).map_err(|error| (error, lost(bytes)))?;
            *written += count as u64;
            bytes = &bytes[count..];
        }
        Ok(())
    }

    fn head(&mut self) -> io::Result<&mut File> {
        if self.head.is_none() {
            self.head = Some(File::create(&self.path)?);
        }
        self.head.as_mut().ok_or_else(|| io::Error::other("made above"))
    }

    /// Makes the present part the older one, whose bytes are given up, and opens a new one.
    fn turn_part(&mut self) -> io::Result<()> {
        if let Some((_, written)) = self.part.take() {
            fs::rename(self.part_path("part"), self.part_path("older"))?;
            self.dropped += self.older_bytes.replace(written).unwrap_or(0);
        }
        self.part = Some((File::create(self.part_path("part"))?, 0));
        Ok(())
    }

    fn part_path(&self, suffix: &str) -> PathBuf {
        let mut name = self.path.clone().into_os_string();
        name.push(".");
        name.push(suffix);
        name.into()
    }

    /// Joins beginning and end, and returns what went through.
    pub fn finish(mut self) -> LogTotal {
        if self.part.is_some()
            && let Err(error) = self.join()
        {
            self.error.get_or_insert(error);
        }
        LogTotal { bytes: self.bytes, dropped: self.dropped, error: self.error }
    }

    fn join(&mut self) -> io::Result<()> {
        fail::point("agent.log_join")?;
        let dropped = self.dropped;
        if dropped > 0 {
            writeln!(self.head()?, "\n[pipeline: {dropped} bytes left out here]")?;
        }
        for (suffix, is_there) in [("older", self.older_bytes.is_some()), ("part", true)] {
            if is_there {
                let path = self.part_path(suffix);
                io::copy(&mut open_regular(&path)?.take(self.part_max), self.head()?)?;
                fs::remove_file(&path)?;
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::CappedLog;

    fn check(bytes_max: u64, writes: &[&[u8]]) -> (String, u64, u64) {
        let dir = tempfile::tempdir().expect("temporary folder");
        let path = dir.path().join("log");
        let mut log = CappedLog::create(&path, bytes_max).expect("creates");
        for bytes in writes {
            log.write(bytes);
        }
        let total = log.finish();
        assert!(total.error.is_none(), "{total:?}");
        let names = fs::read_dir(dir.path()).expect("reads").count();
        let kept = fs::read_to_string(&path).unwrap_or_default();
        assert_eq!(names, usize::from(!kept.is_empty()), "part files are left");
        (kept, total.bytes, total.dropped)
    }

    #[test]
    fn short_output_is_kept_whole() {
        assert_eq!(check(100, &[b"one\n", b"two\n"]), ("one\ntwo\n".into(), 8, 0));
    }

    #[test]
    fn output_at_the_limit_is_kept_whole() {
        let text = "0123456789abcdefghij";
        assert_eq!(check(20, &[text.as_bytes()]), (text.into(), 20, 0));
    }

    #[test]
    fn middle_is_dropped_and_counted() {
        let text: String = ('a'..='z').chain('A'..='Z').collect();
        let (kept, bytes, dropped) = check(20, &[&text.as_bytes()[..7], &text.as_bytes()[7..]]);
        assert_eq!((bytes, dropped), (52, 35));
        assert_eq!(kept, "abcdefghij\n[pipeline: 35 bytes left out here]\nTUVWXYZ");
    }

    #[test]
    fn kept_and_dropped_add_up_at_every_length() {
        for length in 0..120_usize {
            let (kept, bytes, dropped) = check(40, &[vec![b'x'; length].as_slice()]);
            let kept = kept.matches('x').count() as u64;
            assert_eq!((bytes, kept + dropped), (length as u64, length as u64), "at {length}");
            assert!(kept <= 40 && kept >= (length as u64).min(30), "{kept} of {length}");
        }
    }

    #[test]
    fn limit_of_zero_keeps_nothing() {
        assert_eq!(check(0, &[b"abc"]), (String::new(), 3, 3));
    }
}
