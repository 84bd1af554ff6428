//! One file of the journal: its name, how it is made, and what its bytes say.
//!
//! * A segment is named by the `seq` of its first line, which is a checkpoint.
//! * The lines after it are records; each follows the one before in `seq` and in the chain.
//! * A segment appears under its name only when its checkpoint is whole and synced.

use std::fs::{self, File};
use std::io::{self, BufRead, Read, Write};
use std::path::{Path, PathBuf};

use tempfile::NamedTempFile;

use crate::sys::{fail, file};

use super::line::{self, BadLine, Line};
use super::{Checkpoint, Json, Record, StoreError};

/// A place after a whole line, and what the next line must follow.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Position {
    /// Lines before it in the file.
    pub(super) lines: u64,
    /// Bytes before it in the file.
    pub(super) offset: u64,
    /// The last line's number.
    pub(super) seq: u64,
    /// The last line's checksum.
    pub(super) sum: u64,
}

/// Where and how a segment stops being what was written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Flaw {
    /// The bad line, from 1.
    pub(super) line: u64,
    /// Where it starts, in bytes.
    pub(super) offset: u64,
    pub(super) kind: FlawKind,
}

/// What a flaw means.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum FlawKind {
    /// The last line is not whole, as after a crash in the middle of a write.
    Torn(String),
    /// No crash leaves this.
    Damaged(String),
    /// A newer program wrote this line.
    Newer(u64),
}

/// The records found from some place on.
#[derive(Debug)]
pub(super) struct Scan {
    pub(super) records: Vec<Record>,
    /// After the last good line.
    pub(super) end: Position,
    /// What follows `end`; `None` when that is nothing.
    pub(super) flaw: Option<Flaw>,
}

/// A segment from its first line on.
#[derive(Debug)]
pub(super) struct Whole {
    /// That of its first line.
    pub(super) format: u64,
    pub(super) checkpoint: Checkpoint,
    /// The checksum that the checkpoint follows.
    pub(super) prev: u64,
    /// After the checkpoint.
    pub(super) base: Position,
    /// The records after it.
    pub(super) scan: Scan,
}

/// What a journal's folder holds.
#[derive(Debug, Default)]
pub(super) struct Listing {
    /// The segments' numbers, ascending.
    pub(super) segments: Vec<u64>,
    /// Files that a crash left before their rename.
    pub(super) temps: Vec<PathBuf>,
    /// Whether cut-off records or damaged segments were kept aside.
    pub(super) has_remains: bool,
}

/// How the name of a damaged segment begins that was set aside.
pub(super) const ASIDE: &str = "damaged-";

/// Returns the path of the segment whose first line is `seq`.
pub(super) fn path(journal: &Path, seq: u64) -> PathBuf {
    journal.join(format!("{seq:020}.ndjson"))
}

/// Lists the folder `journal`; a missing one holds nothing.
pub(super) fn list(journal: &Path) -> Result<Listing, StoreError> {
    let mut listing = Listing::default();
    let entries = match fs::read_dir(journal) {
        Ok(entries) => entries,
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            return match fs::symlink_metadata(journal) {
                Ok(_) => Err(StoreError::damaged(journal, "it leads nowhere")),
                Err(_) => Ok(listing),
            };
        }
        Err(error) if error.kind() == io::ErrorKind::NotADirectory => {
            return Err(StoreError::damaged(journal, "it is not a folder"));
        }
        Err(error) => return Err(StoreError::io("list journal", journal)(error)),
    };
    for entry in entries {
        let entry = entry.map_err(StoreError::io("list journal", journal))?;
        let name = entry.file_name();
        let Some(name) = name.to_str() else { continue };
        let is_number =
            |digits: &&str| digits.len() == 20 && digits.bytes().all(|b| b.is_ascii_digit());
        let digits = name.strip_suffix(".ndjson").filter(is_number);
        if let Some(seq) = digits.and_then(|digits| digits.parse().ok()) {
            listing.segments.push(seq);
        } else if name.starts_with('.') && name.ends_with(".tmp") {
            listing.temps.push(entry.path());
        }
        listing.has_remains |= name.starts_with("torn-") || name.starts_with(ASIDE);
    }
    listing.segments.sort_unstable();
    Ok(listing)
}

/// A segment that is written and synced, but has no name yet.
pub(super) struct Prepared {
    temp: NamedTempFile,
    seq: u64,
    /// After the checkpoint.
    pub(super) end: Position,
}

/// Writes and syncs a segment with `checkpoint`, which follows the checksum `prev`.
///
/// On an error nothing has changed.
pub(super) fn prepare(
    journal: &Path,
    checkpoint: &Checkpoint,
    prev: u64,
) -> Result<Prepared, StoreError> {
    let Checkpoint { seq, time, state } = checkpoint;
    let (head, end, sum) = line::around_state(*seq, *time, state, prev);
    let write = || -> io::Result<NamedTempFile> {
        let mut temp = tempfile::Builder::new().prefix(".").suffix(".tmp").tempfile_in(journal)?;
        fail::point("checkpoint.write")?;
        temp.write_all(head.as_bytes())?;
        temp.write_all(state.get().as_bytes())?;
        temp.write_all(&end)?;
        fail::point("checkpoint.sync")?;
        temp.as_file().sync_all()?;
        Ok(temp)
    };
    let temp = write().map_err(StoreError::io("write a checkpoint to journal", journal))?;
    let offset = (head.len() + state.get().len() + end.len()) as u64;
    Ok(Prepared { temp, seq: *seq, end: Position { lines: 1, offset, seq: *seq, sum } })
}

/// Gives a prepared segment its name, durably; returns its path and where it ends.
///
/// After an error it is open whether the segment has its name.
pub(super) fn publish(
    journal: &Path,
    prepared: Prepared,
) -> Result<(PathBuf, Position), StoreError> {
    let Prepared { temp, seq, end } = prepared;
    let path = path(journal, seq);
    let rename = || -> io::Result<()> {
        fail::point("checkpoint.rename")?;
        temp.persist_noclobber(&path).map_err(|error| error.error)?;
        file::sync_dir(journal)
    };
    rename().map_err(StoreError::io("add a segment to journal", &path))?;
    Ok((path, end))
}

/// Opens the segment at `path` for reading.
pub(super) fn open(path: &Path) -> Result<File, StoreError> {
    // Looked at first: to open a pipe waits for somebody at its other end.
    let opened = fs::metadata(path)
        .and_then(|meta| if meta.is_file() { File::open(path).map(Some) } else { Ok(None) });
    match opened {
        Ok(Some(file)) => Ok(file),
        Ok(None) => Err(StoreError::damaged(path, "it is not a file")),
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            Err(StoreError::damaged(path, "it is gone"))
        }
        Err(error) => Err(StoreError::io("open journal", path)(error)),
    }
}

/// Returns the bytes of the segment at `path`.
pub(super) fn read(path: &Path) -> Result<Vec<u8>, StoreError> {
    let mut bytes = Vec::new();
    let read = open(path)?.read_to_end(&mut bytes);
    read.map_err(StoreError::io("read journal", path))?;
    Ok(bytes)
}

/// Reads a whole segment whose name says `seq`.
pub(super) fn scan(seq: u64, mut bytes: Vec<u8>) -> Result<Whole, Flaw> {
    let flaw = |kind| Flaw { line: 1, offset: 0, kind };
    let damaged = |found: &str| flaw(FlawKind::Damaged(found.into()));
    let (first, _) = first_line(&bytes).ok_or_else(|| damaged("no whole checkpoint"))?;
    let first_bytes = first.len();
    let Line { format, seq: found, time, actor, value, prev, sum } =
        line::read(first).map_err(|bad| match bad {
            BadLine::Damaged(found) => damaged(&found),
            BadLine::Newer(version) => flaw(FlawKind::Newer(version)),
        })?;
    if actor.is_some() {
        return Err(damaged("a record instead of a checkpoint"));
    }
    if found != seq {
        return Err(damaged(&format!("a checkpoint of record {found}, expected {seq}")));
    }
    let base = Position { lines: 1, offset: first_bytes as u64 + 1, seq, sum };
    let scan = scan_records(&bytes[first_bytes + 1..], base);
    // The state stays in the buffer it was read in: it may be many megabytes.
    bytes.truncate(value.end);
    let state = Json::from_verified(bytes, value.start)
        .ok_or_else(|| damaged("a checkpoint that is not text"))?;
    Ok(Whole { format, checkpoint: Checkpoint { seq, time, state }, prev, base, scan })
}

/// Reads the records in `bytes`, which stand after `start`, up to the first flaw.
pub(super) fn scan_records(bytes: &[u8], start: Position) -> Scan {
    let mut scan = Scan { records: Vec::new(), end: start, flaw: None };
    let mut rest = bytes;
    while !rest.is_empty() {
        let (line, record, next) = match next_record(rest, scan.end) {
            Ok(found) => found,
            Err(kind) => {
                let Position { lines, offset, .. } = scan.end;
                scan.flaw = Some(Flaw { line: lines + 1, offset, kind });
                break;
            }
        };
        let Position { lines, offset, .. } = scan.end;
        let length = (rest.len() - next.len()) as u64;
        let (lines, offset) = (lines + 1, offset + length);
        scan.end = Position { lines, offset, seq: line.seq, sum: line.sum };
        scan.records.push(record);
        rest = next;
    }
    scan
}

/// Reads the record at the start of `rest`, which must follow `end`; returns what is after it.
fn next_record(rest: &[u8], end: Position) -> Result<(Line, Record, &[u8]), FlawKind> {
    let Some((bytes, next)) = first_line(rest) else {
        // A newer program's unfinished line is not ours to cut.
        return Err(match line::read(rest) {
            Err(BadLine::Newer(version)) => FlawKind::Newer(version),
            Err(BadLine::Damaged(_)) if is_whole_with_more(rest) => joined(),
            Ok(_) | Err(BadLine::Damaged(_)) => FlawKind::Torn("it has no end".into()),
        });
    };
    let line = line::read(bytes).map_err(|bad| match bad {
        BadLine::Newer(version) => FlawKind::Newer(version),
        BadLine::Damaged(_) if next.is_empty() && is_whole_with_more(bytes) => joined(),
        BadLine::Damaged(_)
            if next.is_empty() && line::prev_of_end(bytes).is_some_and(|prev| prev != end.sum) =>
        {
            FlawKind::Damaged("the end of a record that follows another one".into())
        }
        BadLine::Damaged(found) if next.is_empty() => FlawKind::Torn(found),
        BadLine::Damaged(found) => FlawKind::Damaged(found),
    })?;
    let Some(actor) = line.actor.clone() else {
        return Err(FlawKind::Damaged("a checkpoint instead of a record".into()));
    };
    if Some(line.seq) != end.seq.checked_add(1) {
        let found = format!("record {}, expected the one after {}", line.seq, end.seq);
        return Err(FlawKind::Damaged(found));
    }
    if line.prev != end.sum {
        let (prev, sum) = (line.prev, end.sum);
        let found = format!("it follows checksum {prev:016x}, the line before has {sum:016x}");
        return Err(FlawKind::Damaged(found));
    }
    let changes = Json::from_verified(bytes[line.value.clone()].to_vec(), 0)
        .ok_or_else(|| FlawKind::Damaged("changes that are not text".into()))?;
    let record = Record { seq: line.seq, time: line.time, actor, changes };
    Ok((line, record, next))
}

/// Returns true when a whole line stands at the start of `bytes` and something follows it directly.
///
/// A write that was cut short leaves a part of a line, or zeros behind one: not this.
fn is_whole_with_more(bytes: &[u8]) -> bool {
    line::whole_prefix(bytes)
        .is_some_and(|(length, _)| bytes[length..].iter().any(|byte| *byte != 0))
}

fn joined() -> FlawKind {
    FlawKind::Damaged("a whole line without its end, and more behind it".into())
}

/// Splits the first line off, without its line feed; `None` when there is no line feed.
fn first_line(bytes: &[u8]) -> Option<(&[u8], &[u8])> {
    let mut rest = bytes;
    // From a slice this is one `memchr`, and cannot fail.
    let length = rest.skip_until(b'\n').ok()?;
    Some((bytes[..length].strip_suffix(b"\n")?, rest))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::machine::time::Time;

    const BASE: Position = Position { lines: 1, offset: 100, seq: 4, sum: 9 };

    fn lines(count: u64) -> Vec<Vec<u8>> {
        let mut sum = BASE.sum;
        let line = |step| {
            let changes = Json::of(&[step]).unwrap();
            let actor = "cli".to_owned();
            let record = Record { seq: BASE.seq + step, time: Time::from_ms(step), actor, changes };
            let mut out = Vec::new();
            sum = line::write_record(&mut out, &record, sum);
            out
        };
        (1..=count).map(line).collect()
    }

    fn kind(lines: &[&[u8]]) -> (usize, Option<FlawKind>) {
        let scan = scan_records(&lines.concat(), BASE);
        (scan.records.len(), scan.flaw.map(|flaw| flaw.kind))
    }

    fn is_damaged(kind: &Option<FlawKind>) -> bool {
        matches!(kind, Some(FlawKind::Damaged(_)))
    }

    #[test]
    fn whole_chain_has_no_flaw() {
        let lines = lines(3);
        let scan = scan_records(&lines.concat(), BASE);
        assert_eq!(scan.flaw, None);
        assert_eq!(scan.records.iter().map(|record| record.seq).collect::<Vec<_>>(), [5, 6, 7]);
        let bytes = lines.concat().len() as u64;
        assert_eq!((scan.end.lines, scan.end.offset, scan.end.seq), (4, 100 + bytes, 7));
    }

    #[test]
    fn missing_doubled_and_swapped_lines_are_damage() {
        let lines = lines(3);
        let [a, b, c] = [&lines[0][..], &lines[1], &lines[2]];
        for (order, good) in [
            (&[a, c][..], 1),
            (&[b, c], 0),
            (&[a, a], 1),
            (&[a, b, b], 2),
            (&[a, c, b], 1),
            (&[b, a, c], 0),
        ] {
            let (count, kind) = kind(order);
            assert_eq!((count, is_damaged(&kind)), (good, true), "{kind:?}");
        }
    }

    #[test]
    fn a_whole_record_in_the_place_of_another_is_damage() {
        let mut lines = lines(3);
        let changes = Json::of(&["something else"]).unwrap();
        let at = Time::from_ms(2);
        let other = Record { seq: BASE.seq + 2, time: at, actor: "cli".into(), changes };
        let sum = line::read(lines[0].strip_suffix(b"\n").unwrap()).unwrap().sum;
        lines[1].clear();
        line::write_record(&mut lines[1], &other, sum);
        // It follows the one before; the one behind it followed another.
        let flaw = scan_records(&lines.concat(), BASE).flaw.unwrap();
        let before = 100 + (lines[0].len() + lines[1].len()) as u64;
        assert_eq!((flaw.line, flaw.offset), (4, before));
        assert!(matches!(flaw.kind, FlawKind::Damaged(found) if found.contains("it follows")));
        // One that does not follow the one before is damage itself.
        lines[1].clear();
        line::write_record(&mut lines[1], &other, sum ^ 1);
        let flaw = scan_records(&lines.concat(), BASE).flaw.unwrap();
        assert_eq!((flaw.line, flaw.offset), (3, 100 + lines[0].len() as u64));
        assert!(matches!(flaw.kind, FlawKind::Damaged(found) if found.contains("it follows")));
    }

    #[test]
    fn flaw_names_line_and_offset() {
        let mut lines = lines(3);
        lines[1][20] ^= 1;
        let flaw = scan_records(&lines.concat(), BASE).flaw.unwrap();
        assert_eq!((flaw.line, flaw.offset), (3, 100 + lines[0].len() as u64));
        assert!(is_damaged(&Some(flaw.kind)));
    }

    #[test]
    fn bad_last_line_is_torn_and_newer_one_is_not() {
        let mut lines = lines(2);
        assert!(matches!(kind(&[&lines[0], b"\0\0\0"]), (1, Some(FlawKind::Torn(_)))));
        assert!(matches!(kind(&[&lines[0], br#"{"v":2,"#]), (1, Some(FlawKind::Newer(2)))));
        lines[1][20] ^= 1;
        assert!(matches!(kind(&[&lines[0], &lines[1]]), (1, Some(FlawKind::Torn(_)))));
    }

    #[test]
    fn lines_joined_into_a_bad_last_one_are_damage_and_zeros_are_torn() {
        let lines = lines(3);
        let [a, b, c] = [&lines[0][..], &lines[1], &lines[2]];
        let unfed = &b[..b.len() - 1];
        // A line feed became something else: two records would be cut.
        assert!(is_damaged(&kind(&[a, unfed, b"x", c]).1));
        assert!(is_damaged(&kind(&[a, unfed, b"\r\n"]).1));
        // The end of one record and the start of the next are gone: the last end tells.
        assert!(is_damaged(&kind(&[a, &b[..40], &c[40..]]).1));
        assert!(matches!(kind(&[a, unfed]), (1, Some(FlawKind::Torn(_)))));
        assert!(matches!(kind(&[a, unfed, &[0; 9]]), (1, Some(FlawKind::Torn(_)))));
    }

    #[test]
    fn what_is_no_file_is_damage_and_not_waited_for() {
        let dir = tempfile::tempdir().unwrap();
        let pipe = dir.path().join("pipe");
        let (mode, kind) = (rustix::fs::Mode::RUSR, rustix::fs::FileType::Fifo);
        rustix::fs::mknodat(rustix::fs::CWD, &pipe, kind, mode, 0).unwrap();
        for path in [dir.path(), &pipe, &dir.path().join("none")] {
            assert!(matches!(open(path), Err(StoreError::Damaged { line: 0, .. })));
        }
        assert!(matches!(list(&pipe), Err(StoreError::Damaged { line: 0, .. })));
    }

    #[test]
    fn name_sorts_as_its_number() {
        let dir = tempfile::tempdir().unwrap();
        for name in ["00000000000000000012.ndjson", "00000000000000000003.ndjson", "x", ".a.tmp"] {
            fs::write(dir.path().join(name), "").unwrap();
        }
        let listing = list(dir.path()).unwrap();
        assert_eq!(listing.segments, [3, 12]);
        assert_eq!((listing.temps.len(), listing.has_remains), (1, false));
        assert!(path(dir.path(), 12).exists());
        assert!(list(&dir.path().join("none")).unwrap().segments.is_empty());
    }
}
