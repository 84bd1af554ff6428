//! Journals as another program would have written them.

use std::fs;
use std::path::Path;

use xxhash_rust::xxh3::xxh3_64;

/// Writes the journal as another program might have: each line changed, with its checksum, all in
/// their chain.
pub(crate) fn rewrite(path: &Path, change: impl Fn(&str) -> String) {
    let text = fs::read_to_string(path).expect("the journal");
    let mut prev = 0;
    let mut out = String::new();
    for line in text.lines() {
        let at = line.rfind(",\"prev\":\"").expect("its chain");
        let body = format!("{},\"prev\":\"{prev:016x}\"", change(&line[..at]));
        prev = xxh3_64(body.as_bytes());
        out.push_str(&format!("{body},\"sum\":\"{prev:016x}\"}}\n"));
    }
    fs::write(path, out).expect("the journal");
}

/// Writes the journal as one of format `format`.
pub(crate) fn reform(path: &Path, format: u64) {
    rewrite(path, |body| {
        let rest = body.strip_prefix("{\"v\":1,").expect("format 1");
        format!("{{\"v\":{format},{rest}")
    });
}
