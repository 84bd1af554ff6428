//! The bytes of one journal line.
//!
//! ```text
//! {"v":1,"seq":7,"time":"2026-11-20T23:00:00.000Z","actor":"cli","changes":[…],"prev":"…","sum":"…"}
//! {"v":1,"kind":"checkpoint","seq":7,"time":"…","state":{…},"prev":"…","sum":"…"}
//! ```
//!
//! * Fields stand in this order without blanks, so that a value is found by its place and a large
//!   state is never scanned.
//! * `sum` is XXH3-64 over the line up to `,"sum"`, in 16 lower-case hexadecimal digits.
//! * `prev` is the `sum` of the line before, in a segment's first line that of the last record of
//!   the segment before: a chain. It is 0 in the very first line, and in the one that a repair wrote.

use jiff::Timestamp;
use xxhash_rust::xxh3::{Xxh3, xxh3_64};

use crate::machine::time::Time;

use super::{Json, Record};

/// The newest format this program reads, and the one that it writes.
pub(super) const FORMAT: u64 = 1;
/// The oldest format this program reads: as 1, but a state there has none of the later fields
/// (`state/samples/checkpoint-v1-first.json`).
pub(super) const OLDEST: u64 = 0;

/// Length of `,"sum":"<16>"}`.
const SUM_BYTES: usize = 26;
/// Length of `,"prev":"<16>"`.
const PREV_BYTES: usize = 26;

/// A line whose checksum is right, not yet compared with its neighbours.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Line {
    /// From [`OLDEST`] to [`FORMAT`].
    pub(super) format: u64,
    pub(super) seq: u64,
    pub(super) time: Time,
    /// Who wrote it; `None` in a checkpoint.
    pub(super) actor: Option<String>,
    /// Where in the line the state or the changes stand, in bytes.
    pub(super) value: std::ops::Range<usize>,
    pub(super) prev: u64,
    pub(super) sum: u64,
}

/// Why bytes are not a line of this format.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum BadLine {
    /// It is not what was written; the text says what was found.
    Damaged(String),
    /// It says that it is of this newer format.
    Newer(u64),
}

/// Appends the line of `record` with its line feed to `out`; returns its checksum.
pub(super) fn write_record(out: &mut Vec<u8>, record: &Record, prev: u64) -> u64 {
    let start = out.len();
    let Record { seq, time, actor, changes } = record;
    let (time, actor) = (format_time(*time), serde_json::Value::from(actor.as_str()));
    let head = format!(r#"{{"v":{FORMAT},"seq":{seq},"time":"{time}","actor":{actor},"changes":"#);
    out.extend_from_slice(head.as_bytes());
    out.extend_from_slice(changes.get().as_bytes());
    out.extend_from_slice(format!(r#","prev":"{prev:016x}""#).as_bytes());
    let sum = xxh3_64(&out[start..]);
    out.extend_from_slice(&end_of_line(sum));
    sum
}

/// Returns what stands before and after the state in the line of a checkpoint, and its checksum.
pub(super) fn around_state(
    seq: u64,
    time: Time,
    state: &Json,
    prev: u64,
) -> (String, Vec<u8>, u64) {
    let time = format_time(time);
    let head =
        format!(r#"{{"v":{FORMAT},"kind":"checkpoint","seq":{seq},"time":"{time}","state":"#);
    let mut end = format!(r#","prev":"{prev:016x}""#).into_bytes();
    let mut hasher = Xxh3::new();
    hasher.update(head.as_bytes());
    hasher.update(state.get().as_bytes());
    hasher.update(&end);
    let sum = hasher.digest();
    end.extend_from_slice(&end_of_line(sum));
    (head, end, sum)
}

/// Returns the last bytes of a line with this checksum, with the line feed.
pub(super) fn end_of_line(sum: u64) -> Vec<u8> {
    format!(",\"sum\":\"{sum:016x}\"}}\n").into_bytes()
}

/// Reads a line without its line feed, verifying its checksum.
pub(super) fn read(line: &[u8]) -> Result<Line, BadLine> {
    let (version, _) = after(line, br#"{"v":"#)
        .and_then(number)
        .filter(|(_, rest)| rest.starts_with(b","))
        .ok_or_else(|| damaged("no format number"))?;
    if version > FORMAT {
        return Err(BadLine::Newer(version));
    }
    let sum_at = line.len().checked_sub(SUM_BYTES).ok_or_else(|| damaged("too short"))?;
    let (body, end) = line.split_at(sum_at);
    let sum = after(end, br#","sum":""#)
        .and_then(|end| hex(end, br#""}"#))
        .ok_or_else(|| damaged("no checksum at its end"))?;
    let actual = xxh3_64(body);
    if actual != sum {
        let found = format!("its checksum is {actual:016x}, written was {sum:016x}");
        return Err(BadLine::Damaged(found));
    }
    read_body(body, sum).ok_or_else(|| damaged("not a record of this format"))
}

/// How many places that look like the end of a line are tried for one start.
const ENDS_MAX: usize = 16;

/// Returns the checksum that a line follows, by its end alone; `None` when that is not whole.
pub(super) fn prev_of_end(line: &[u8]) -> Option<u64> {
    let (body, end) = line.split_at(line.len().checked_sub(SUM_BYTES)?);
    hex(after(end, br#","sum":""#)?, br#""}"#)?;
    let end = &body[body.len().checked_sub(PREV_BYTES)?..];
    hex(after(end, br#","prev":""#)?, b"\"")
}

/// Finds a whole line at the start of `bytes`, whatever stands behind it; returns its length too.
pub(super) fn whole_prefix(bytes: &[u8]) -> Option<(usize, Line)> {
    let mark: &[u8] = br#","sum":""#;
    let ends = bytes.windows(mark.len()).enumerate().filter(|(_, part)| *part == mark);
    let mut lengths = ends.map(|(at, _)| at + SUM_BYTES).take(ENDS_MAX);
    lengths.find_map(|length| Some((length, read(bytes.get(..length)?).ok()?)))
}

/// Reads what stands before the checksum.
fn read_body(body: &[u8], sum: u64) -> Option<Line> {
    let value_end = body.len().checked_sub(PREV_BYTES)?;
    let prev = hex(after(&body[value_end..], br#","prev":""#)?, b"\"")?;
    let (format, rest) = number(after(&body[..value_end], br#"{"v":"#)?)?;
    if !(OLDEST..=FORMAT).contains(&format) {
        return None;
    }
    let rest = after(rest, b",")?;
    let checkpoint = after(rest, br#""kind":"checkpoint","#);
    let (seq, rest) = number(after(checkpoint.unwrap_or(rest), br#""seq":"#)?)?;
    let rest = after(rest, br#","time":""#)?;
    let time_bytes = rest.iter().position(|byte| *byte == b'"')?;
    let time = parse_time(&rest[..time_bytes])?;
    let rest = after(&rest[time_bytes..], br#"","#)?;
    let (actor, value) = if checkpoint.is_some() {
        (None, after(rest, br#""state":"#)?)
    } else {
        let (actor, rest) = string(after(rest, br#""actor":"#)?)?;
        (Some(actor), after(rest, br#","changes":"#)?)
    };
    let value = value_end - value.len()..value_end;
    Some(Line { format, seq, time, actor, value, prev, sum })
}

fn damaged(found: &str) -> BadLine {
    BadLine::Damaged(found.into())
}

/// Returns what follows `prefix`.
fn after<'a>(bytes: &'a [u8], prefix: &[u8]) -> Option<&'a [u8]> {
    bytes.strip_prefix(prefix)
}

/// Reads a decimal number, and returns what follows it.
fn number(bytes: &[u8]) -> Option<(u64, &[u8])> {
    let length = bytes.iter().position(|byte| !byte.is_ascii_digit())?;
    let (digits, rest) = bytes.split_at(length);
    Some((std::str::from_utf8(digits).ok()?.parse().ok()?, rest))
}

/// Reads a JSON string, and returns what follows it.
fn string(bytes: &[u8]) -> Option<(String, &[u8])> {
    let mut values = serde_json::Deserializer::from_slice(bytes).into_iter::<String>();
    let text = values.next()?.ok()?;
    Some((text, &bytes[values.byte_offset()..]))
}

/// Reads exactly 16 lower-case hexadecimal digits and `end`: one spelling for one number.
fn hex(bytes: &[u8], end: &[u8]) -> Option<u64> {
    parse_hex(bytes.strip_suffix(end)?)
}

/// Reads exactly 16 lower-case hexadecimal digits.
pub(super) fn parse_hex(digits: &[u8]) -> Option<u64> {
    if digits.len() != 16 || !digits.iter().all(|digit| b"0123456789abcdef".contains(digit)) {
        return None;
    }
    u64::from_str_radix(std::str::from_utf8(digits).ok()?, 16).ok()
}

/// Writes a moment in RFC 3339 with milliseconds, UTC; one after the year 9999 as the last of it.
pub(super) fn format_time(time: Time) -> String {
    let ms = i64::try_from(time.as_ms()).unwrap_or(i64::MAX);
    let timestamp = Timestamp::from_millisecond(ms).unwrap_or(Timestamp::MAX);
    format!("{timestamp:.3}")
}

fn parse_time(text: &[u8]) -> Option<Time> {
    let timestamp: Timestamp = std::str::from_utf8(text).ok()?.parse().ok()?;
    u64::try_from(timestamp.as_millisecond()).ok().map(Time::from_ms)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record(actor: &str) -> Record {
        let changes = Json::of(&serde_json::json!([{"kind": "noted", "text": "\",\"prev\":"}]));
        let time = Time::from_ms(1_795_215_600_123);
        Record { seq: 7, time, actor: actor.into(), changes: changes.unwrap() }
    }

    #[test]
    fn record_line_has_the_written_form() {
        let mut out = Vec::new();
        let sum = write_record(&mut out, &record("cli"), 0x2a);
        let text = String::from_utf8(out).unwrap();
        let expected = concat!(
            r#"{"v":1,"seq":7,"time":"2026-11-20T23:00:00.123Z","actor":"cli","#,
            r#""changes":[{"kind":"noted","text":"\",\"prev\":"}],"prev":"000000000000002a","#
        );
        assert_eq!(text, format!("{expected}\"sum\":\"{sum:016x}\"}}\n"));
        assert!(serde_json::from_str::<serde_json::Value>(&text).is_ok());
    }

    #[test]
    fn record_is_read_back_whatever_its_actor() {
        for actor in ["", "cli", "a \"b\" \\ ,\"changes\":[", "naïve 🦀\n\u{0}"] {
            let (mut out, record) = (Vec::new(), record(actor));
            let sum = write_record(&mut out, &record, 3);
            let line = read(&out[..out.len() - 1]).unwrap();
            assert_eq!(&out[line.value.clone()], record.changes.get().as_bytes());
            let found = (line.seq, line.time, line.actor.as_deref(), line.prev, line.sum);
            assert_eq!(found, (record.seq, record.time, Some(actor), 3, sum));
        }
    }

    #[test]
    fn checkpoint_is_read_back() {
        let state = Json::of(&serde_json::json!({"tasks": {}})).unwrap();
        let (head, end, sum) = around_state(9, Time::from_ms(5), &state, 4);
        let text = [head.as_bytes(), state.get().as_bytes(), &end].concat();
        let line = read(&text[..text.len() - 1]).unwrap();
        assert_eq!(&text[line.value.clone()], state.get().as_bytes());
        let found = (line.seq, line.time, line.actor, line.prev, line.sum);
        assert_eq!(found, (9, Time::from_ms(5), None, 4, sum));
        assert!(text.ends_with(&end_of_line(sum)));
    }

    #[test]
    fn no_flipped_bit_goes_unnoticed() {
        let mut out = Vec::new();
        write_record(&mut out, &record("cli"), 0x2a);
        out.pop();
        for bit in 0..out.len() * 8 {
            out[bit / 8] ^= 1 << (bit % 8);
            assert!(read(&out).is_err(), "bit {bit}");
            out[bit / 8] ^= 1 << (bit % 8);
        }
    }

    #[test]
    fn newer_format_is_named() {
        assert_eq!(read(br#"{"v":12,"whatever"#), Err(BadLine::Newer(12)));
        assert!(matches!(read(br#"{"v":0,"seq":1}"#), Err(BadLine::Damaged(_))));
        assert!(matches!(read(b""), Err(BadLine::Damaged(_))));
    }

    #[test]
    fn time_after_the_last_year_is_the_last() {
        assert!(format_time(Time::from_ms(u64::MAX)).starts_with("9999-12-30T"));
        assert_eq!(format_time(Time::from_ms(0)), "1970-01-01T00:00:00.000Z");
    }
}
