//! Lines that were never written, whole and with the right checksums.

use xxhash_rust::xxh3::xxh3_64;

/// Bytes of a line's last two fields, and of the last one.
const ENDS_BYTES: usize = 52;
const SUM_BYTES: usize = 26;

/// Returns `line` (without its line feed) with the words `change`, numbered `shift` higher and
/// following the checksum `prev`, or the one that it followed.
pub(super) fn line(line: &str, change: (&str, &str), shift: u64, prev: Option<&str>) -> String {
    let (body, ends) = line.split_at(line.len() - ENDS_BYTES);
    let prev = prev.map_or(ends[..SUM_BYTES].to_owned(), |prev| format!(",\"prev\":\"{prev}\""));
    let body = format!("{}{prev}", numbered(body, shift).replace(change.0, change.1));
    format!("{body},\"sum\":\"{:016x}\"}}", xxh3_64(body.as_bytes()))
}

/// Returns a segment as another project might have it: its own chain, whole in itself. What its first
/// line follows is what the one of `segment` follows.
pub(super) fn segment(segment: &[u8], change: (&str, &str), shift: u64) -> Vec<u8> {
    let text = std::str::from_utf8(segment).expect("a journal is text");
    let (mut made, mut prev) = (String::new(), None);
    for old in text.lines() {
        let new = line(old, change, shift, prev.as_deref());
        prev = Some(new[new.len() - 18..new.len() - 2].to_owned());
        made.push_str(&new);
        made.push('\n');
    }
    made.into_bytes()
}

/// Returns the beginning of a line with its number `shift` higher.
fn numbered(body: &str, shift: u64) -> String {
    let (head, rest) = body.split_once("\"seq\":").expect("a line has a number");
    let digits = rest.bytes().take_while(u8::is_ascii_digit).count();
    let seq: u64 = rest[..digits].parse().expect("a number");
    format!("{head}\"seq\":{}{}", seq + shift, &rest[digits..])
}
