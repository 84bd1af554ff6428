//! The ways in which files are damaged.

use super::forge;
use super::oracle::{Case, Put};
use super::sample::{Files, OLDER, Sample, VIEW};

/// Makes cases of a sample, of the bits only every n-th, and hands each on.
type Cases = fn(&Sample, usize, &mut dyn FnMut(Case));
/// A group of cases; its name is the claim.
pub(super) type Part = (&'static str, Cases);

const CUTS: &str = "a_journal_cut_at_any_byte_is_a_prefix_or_refused";
const BITS: &str = "no_flipped_bit_is_believed";
const BLOCKS: &str = "zeroed_blocks_are_refused";
const VIEWS: &str = "a_damaged_view_does_not_matter";

/// Groups of so many cases that not each is repaired too.
pub(super) const MANY: [&str; 4] = [CUTS, BITS, BLOCKS, VIEWS];

pub(super) const PARTS: &[Part] = &[
    (CUTS, cuts),
    (BITS, bits),
    (BLOCKS, blocks),
    ("lines_moved_doubled_or_gone_are_refused", lines),
    ("tails_of_all_kinds_are_cut_or_refused", tails),
    ("segments_gone_doubled_or_emptied_are_never_an_empty_start", segments),
    ("what_is_no_file_is_refused_and_never_waited_for", places),
    (VIEWS, views),
    ("a_newer_format_is_refused_and_no_byte_changes", newer),
];

/// Hands on a case with one segment replaced, with the view and without it.
fn replaced(
    sample: &Sample,
    kind: &'static str,
    name: &str,
    (segment, bytes): (&str, Vec<u8>),
    then: &mut dyn FnMut(Case),
) {
    let mut files = sample.files.clone();
    files.insert(segment.into(), bytes);
    both(kind, &format!("{name} of {segment}"), files, then);
}

fn both(kind: &'static str, name: &str, mut files: Files, then: &mut dyn FnMut(Case)) {
    then(Case::new(kind, format!("{name}, shown"), files.clone()));
    if files.remove(VIEW).is_some() {
        then(Case::new(kind, format!("{name}, not shown"), files));
    }
}

fn cuts(sample: &Sample, every: usize, then: &mut dyn FnMut(Case)) {
    for (segment, whole) in sample.segments() {
        let base = whole.iter().position(|byte| *byte == b'\n').expect("a checkpoint");
        // A checkpoint is large, and one cut in it is like another.
        for cut in (0..base).step_by(every).chain(base..whole.len()) {
            let name = format!("cut at byte {cut}");
            replaced(sample, "bytes cut", &name, (segment, whole[..cut].to_vec()), then);
        }
    }
}

fn bits(sample: &Sample, every: usize, then: &mut dyn FnMut(Case)) {
    for (segment, whole) in sample.segments() {
        for bit in (0..whole.len() * 8).step_by(every) {
            let mut files = sample.files.clone();
            files.get_mut(segment).expect("it is there")[bit / 8] ^= 1 << (bit % 8);
            // In turn, so that no bit costs twice.
            if (bit / every).is_multiple_of(2) {
                files.remove(VIEW);
            }
            then(Case::new("bits flipped", format!("bit {bit} of {segment}"), files));
        }
    }
}

fn blocks(sample: &Sample, _: usize, then: &mut dyn FnMut(Case)) {
    for (segment, whole) in sample.segments() {
        for size in [64, 512, 4096] {
            for start in (0..whole.len()).step_by(size) {
                let mut bytes = whole.clone();
                let end = bytes.len().min(start + size);
                bytes[start..end].fill(0);
                let name = format!("zeros from {start} to {end}");
                replaced(sample, "blocks zeroed", &name, (segment, bytes), then);
            }
        }
        replaced(sample, "blocks zeroed", "zeros", (segment, vec![0; whole.len()]), then);
    }
}

fn lines(sample: &Sample, _: usize, then: &mut dyn FnMut(Case)) {
    const KIND: &str = "lines moved";
    for (segment, whole) in sample.segments() {
        let lines: Vec<&[u8]> = whole.split_inclusive(|byte| *byte == b'\n').collect();
        for at in 0..lines.len() {
            let mut gone = lines.clone();
            gone.remove(at);
            replaced(sample, KIND, &format!("line {at} gone"), (segment, gone.concat()), then);
            let mut twice = lines.clone();
            twice.insert(at, lines[at]);
            replaced(sample, KIND, &format!("line {at} twice"), (segment, twice.concat()), then);
            let mut last = lines.clone();
            last.push(lines[at]);
            let name = format!("line {at} once more at the end");
            replaced(sample, KIND, &name, (segment, last.concat()), then);
            if at + 1 < lines.len() {
                let mut swapped = lines.clone();
                swapped.swap(at, at + 1);
                let name = format!("lines {at} and {} swapped", at + 1);
                replaced(sample, KIND, &name, (segment, swapped.concat()), then);
                // The middle of the file is gone, from the middle of one line to that of another.
                let far = &lines[lines.len() - 1];
                let half = [&lines[at][..lines[at].len() / 2], &far[far.len() / 2..]].concat();
                let joined = [&lines[..at].concat()[..], &half].concat();
                let name = format!("the middle gone from line {at} on");
                replaced(sample, KIND, &name, (segment, joined), then);
            }
        }
        let reversed: Vec<&[u8]> = lines.iter().rev().copied().collect();
        replaced(sample, KIND, "all lines reversed", (segment, reversed.concat()), then);
    }
}

fn tails(sample: &Sample, _: usize, then: &mut dyn FnMut(Case)) {
    const KIND: &str = "tails";
    for (segment, whole) in sample.segments() {
        let text = String::from_utf8(whole.clone()).expect("a journal is text");
        let crlf = text.replace('\n', "\r\n").into_bytes();
        let (mac, mut blank) = (text.replace('\n', "\r").into_bytes(), whole.clone());
        blank.splice(0..0, *b"\n");
        let last = text.trim_end().rfind('\n').expect("two lines") + 1;
        let mut cases: Vec<(String, Vec<u8>)> = vec![
            ("CRLF".into(), crlf),
            ("CR".into(), mac),
            ("a blank line before".into(), blank),
            ("a byte order mark before".into(), [b"\xef\xbb\xbf", &whole[..]].concat()),
            ("all twice".into(), [&whole[..], whole].concat()),
            ("the tail doubled".into(), [&whole[..], &whole[whole.len() / 2..]].concat()),
            ("a CR in the last line end".into(), [text.trim_end().as_bytes(), b"\r\n"].concat()),
            ("zeros for the last line end".into(), [text.trim_end().as_bytes(), &[0; 9]].concat()),
            ("zeros in the last record".into(), {
                let mut bytes = whole.clone();
                bytes[last + 9..].fill(0);
                bytes
            }),
        ];
        for (name, end) in [
            ("NUL", &[0][..]),
            ("NULs", &[0; 4096]),
            ("a line feed", b"\n"),
            ("a brace", b"{"),
            ("a word", b"garbage"),
            ("a line", b"garbage\n"),
            ("two lines", b"garbage\nmore\n"),
            ("bytes", b"\xff\xfe\x00\x80"),
            ("JSON", b"{\"v\":1,\"seq\":1}\n"),
            ("a start", b"{\"v\":1,\"se"),
        ] {
            cases.push((format!("{name} behind"), [&whole[..], end].concat()));
        }
        for (name, bytes) in cases {
            replaced(sample, KIND, &name, (segment, bytes), then);
        }
    }
}

fn segments(sample: &Sample, _: usize, then: &mut dyn FnMut(Case)) {
    const KIND: &str = "segments";
    let (newest, all) = (sample.newest.as_str(), &sample.files);
    let name = |seq: u64| format!("journal/{seq:020}.ndjson");
    let mut put = |what: &str, change: &dyn Fn(&mut Files)| {
        let mut files = all.clone();
        change(&mut files);
        both(KIND, what, files, then);
    };
    put("the newest gone", &|files| drop(files.remove(newest)));
    put("the older gone", &|files| drop(files.remove(OLDER)));
    put("all gone", &|files| files.retain(|name, _| name == VIEW));
    put("the newest twice", &|files| drop(files.insert(name(sample.last), all[newest].clone())));
    put("the older twice", &|files| drop(files.insert(name(sample.last), all[OLDER].clone())));
    put("the older between", &|files| drop(files.insert(name(1), all[OLDER].clone())));
    put("each in place of the other", &|files| {
        files.insert(newest.into(), all[OLDER].clone());
        files.insert(OLDER.into(), all[newest].clone());
    });
    put("both emptied", &|files| {
        files.insert(newest.into(), Vec::new());
        files.insert(OLDER.into(), Vec::new());
    });
    let strange = ("Säge", "Feile");
    let (above, high) = (sample.base + 1000, forge::segment(&all[newest], strange, 1000));
    put("one of another journal above", &|files| drop(files.insert(name(above), high.clone())));
    put("one of another journal above the only one", &|files| {
        files.remove(OLDER);
        files.insert(name(above), high.clone());
    });
    let other = forge::segment(&all[OLDER], strange, 0);
    put("one of another journal for the older", &|files| {
        drop(files.insert(OLDER.into(), other.clone()));
    });
    for foreign in ["notes.txt", "0.ndjson", "+0000000000000000099.ndjson", ".x.tmp", "x~"] {
        let path = format!("journal/{foreign}");
        put(foreign, &move |files| drop(files.insert(path.clone(), b"something else".to_vec())));
    }
    put("a foreign one above", &|files| drop(files.insert(name(9999), b"garbage\n".to_vec())));
    put("a foreign one between", &|files| drop(files.insert(name(2), b"garbage\n".to_vec())));
}

fn places(sample: &Sample, _: usize, then: &mut dyn FnMut(Case)) {
    const KIND: &str = "places";
    for place in [sample.newest.as_str(), OLDER, "journal", VIEW] {
        for put in [Put::Folder, Put::Dangling, Put::Link, Put::Pipe, Put::Unreadable] {
            for is_shown in [true, false] {
                let mut files = sample.files.clone();
                if !is_shown && files.remove(VIEW).is_none() {
                    continue;
                }
                let name = format!("{put:?} at {place}, shown: {is_shown}");
                let case = Case { put: Some((place.into(), put)), ..Case::new(KIND, name, files) };
                if place != VIEW || is_shown {
                    then(case);
                }
            }
        }
    }
}

fn views(sample: &Sample, every: usize, then: &mut dyn FnMut(Case)) {
    const KIND: &str = "views";
    let whole = &sample.files[VIEW];
    let mut put = |name: String, bytes: Vec<u8>| {
        let mut files = sample.files.clone();
        files.insert(VIEW.into(), bytes);
        then(Case::new(KIND, name.clone(), files.clone()));
        // Together with an unfinished record: what is no longer as written shows nothing.
        let newest = files.get_mut(&sample.newest).expect("it is there");
        newest.truncate(newest.len() - 3);
        then(Case::new(KIND, format!("{name}, and an unfinished record"), files));
    };
    put("as it was".into(), whole.clone());
    for cut in 0..whole.len() {
        put(format!("view cut at byte {cut}"), whole[..cut].to_vec());
    }
    for bit in (0..whole.len() * 8).step_by(every) {
        let mut bytes = whole.clone();
        bytes[bit / 8] ^= 1 << (bit % 8);
        put(format!("view bit {bit}"), bytes);
    }
    put("view zeroed".into(), vec![0; whole.len()]);
    put("view twice".into(), [&whole[..], whole].concat());
    put("view edited".into(), String::from_utf8_lossy(whole).replace("tasks", "tusks").into());
    put("view of another kind".into(), b"[1, 2]\n".to_vec());
}

fn newer(sample: &Sample, _: usize, then: &mut dyn FnMut(Case)) {
    for (segment, whole) in sample.segments() {
        let starts = whole.iter().enumerate().filter(|(_, byte)| **byte == b'\n');
        let starts = [0].into_iter().chain(starts.map(|(at, _)| at + 1));
        for start in starts.filter(|start| *start < whole.len()) {
            for version in [&b"2"[..], b"10"] {
                let mut bytes = whole.clone();
                bytes.splice(start + 5..start + 6, version.iter().copied());
                let name = format!("newer at byte {start}");
                let torn = bytes[..bytes.len() - 2].to_vec();
                replaced(sample, "newer formats", &name, (segment, bytes), then);
                if version == b"2" {
                    let name = format!("newer at byte {start}, unfinished");
                    replaced(sample, "newer formats", &name, (segment, torn), then);
                }
            }
        }
    }
}
