//! `state.json`: what people and their tools read; never read back as state.
//!
//! Its last field `checksum` is XXH3-64 over the bytes before it, in 16 hexadecimal digits, so that
//! an edit by hand is noticed at the next write. The file is always a whole document, but not
//! synced: the journal can make it again.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde::de::{Deserializer, Error, IgnoredAny, MapAccess, Visitor};
use xxhash_rust::xxh3::xxh3_64;

use crate::machine::time::Time;
use crate::sys::{fail, file};

use super::line;

/// The largest view that is read, in bytes.
const VIEW_BYTES_MAX: u64 = 1 << 30;

/// How much of a view is searched for its `seq` without verifying it, in bytes.
const HEAD_BYTES: u64 = 4096;

/// How much older than the view a temporary file must be to count as left by a crash: far longer than
/// a writer takes from its last byte to the rename.
const TEMP_AGE_MIN: Duration = Duration::from_secs(2);

/// Returns the path of the view in the state folder `dir`.
pub(super) fn path(dir: &Path) -> PathBuf {
    dir.join("state.json")
}

/// Writes `object`, a JSON object's bytes, with its checksum as the view in `dir`.
///
/// When somebody edited the old one, that is kept aside as `state.json.edited-<now>` and a warning
/// is returned; `None` otherwise. Costs as much as the old and the new view are large.
///
/// # Errors
/// The file system's own, and when `object` is not an object; the old view then still stands.
pub fn write_view(dir: &Path, object: &[u8], now: Time) -> io::Result<Option<String>> {
    let body = object.trim_ascii_end().strip_suffix(b"}").map(<[u8]>::trim_ascii_end);
    let body = body.filter(|body| body.starts_with(b"{"));
    let body = body.ok_or_else(|| io::Error::other("the view is not a JSON object"))?;
    let comma = if body == b"{" { "" } else { "," };
    let end = format!("{comma}\"checksum\":\"{:016x}\"}}\n", xxh3_64(body));
    let path = path(dir);
    let warning = keep_edited(&path, now)?;
    fail::point("view.write")?;
    file::write_atomic(&path, &[body, end.as_bytes()].concat(), file::Durability::Process)?;
    sweep(dir, &path);
    Ok(warning)
}

/// Returns the `seq` of the view in `dir`; `None` when there is none, or it is not as it was written.
///
/// Costs one pass over the file.
#[must_use]
pub fn read_seq(dir: &Path) -> Option<u64> {
    let bytes = file::read_bounded(&path(dir), VIEW_BYTES_MAX).ok()??;
    if !is_intact(&bytes) {
        return None;
    }
    find_seq(&bytes)
}

/// Returns the `seq` that the first bytes of the view claim, without verifying it.
pub(super) fn peek_seq(dir: &Path) -> Option<u64> {
    use io::Read;
    let path = path(dir);
    if !fs::symlink_metadata(&path).ok()?.is_file() {
        return None;
    }
    let mut head = Vec::new();
    fs::File::open(path).ok()?.take(HEAD_BYTES).read_to_end(&mut head).ok()?;
    find_seq(&head)
}

/// Returns whether the bytes end in their own checksum.
fn is_intact(bytes: &[u8]) -> bool {
    let Some(rest) = bytes.strip_suffix(b"\"}\n") else { return false };
    let Some((rest, digits)) = rest.split_last_chunk::<16>() else { return false };
    let Some(body) = rest.strip_suffix(b"\"checksum\":\"") else { return false };
    let body = body.strip_suffix(b",").unwrap_or(body);
    line::parse_hex(digits) == Some(xxh3_64(body))
}

/// Keeps the view at `path` aside when it is not as it was written.
fn keep_edited(path: &Path, now: Time) -> io::Result<Option<String>> {
    let is_edited = match file::read_bounded(path, VIEW_BYTES_MAX) {
        Ok(None) => false,
        // A power cut may leave it empty or zeroed, since it is not synced: nothing to keep.
        Ok(Some(bytes)) => !is_intact(&bytes) && bytes.iter().any(|byte| *byte != 0),
        Err(_) => true,
    };
    if !is_edited {
        return Ok(None);
    }
    let time = line::format_time(now).replace(':', "-");
    let mut name = path.as_os_str().to_owned();
    name.push(format!(".edited-{time}"));
    let aside = PathBuf::from(name);
    fail::point("view.aside")?;
    // A second name first, so that the view is never missing; a folder cannot have one.
    fs::hard_link(path, &aside).or_else(|_| fs::rename(path, &aside))?;
    Ok(Some(format!(
        "`{}` was edited by hand; it is only a view, so the edit has no effect and is kept in `{}`",
        path.display(),
        aside.display()
    )))
}

/// Deletes temporary files that a killed writer left long before `view` was written.
fn sweep(dir: &Path, view: &Path) {
    let modified = |path: &Path| fs::symlink_metadata(path).and_then(|meta| meta.modified());
    // What cannot be listed or deleted costs space only, and the next write tries again.
    let (Ok(entries), Ok(written)) = (fs::read_dir(dir), modified(view)) else { return };
    for entry in entries.flatten() {
        let name = entry.file_name();
        let is_temp =
            name.to_str().is_some_and(|name| name.starts_with('.') && name.ends_with(".tmp"));
        let age = || written.duration_since(modified(&entry.path()).ok()?).ok();
        if is_temp && age().is_some_and(|age| age > TEMP_AGE_MIN) {
            let _ = fs::remove_file(entry.path());
        }
    }
}

/// Returns the number in the field `seq` of the outermost object, reading no further than that.
fn find_seq(bytes: &[u8]) -> Option<u64> {
    let mut found = None;
    // The search ends in an error on purpose; what counts is whether it found something.
    let _ = serde_json::Deserializer::from_slice(bytes).deserialize_map(FindSeq(&mut found));
    found
}

struct FindSeq<'a>(&'a mut Option<u64>);

impl<'de> Visitor<'de> for FindSeq<'_> {
    type Value = ();

    fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("an object")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<(), A::Error> {
        while let Some(key) = map.next_key::<String>()? {
            if key == "seq" {
                let seq = map.next_value()?;
                // A number at the end of the bytes may be cut; one before another key is whole.
                if map.next_key::<IgnoredAny>()?.is_some() {
                    *self.0 = Some(seq);
                }
                return Err(A::Error::custom("found"));
            }
            map.next_value::<IgnoredAny>()?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: Time = Time::from_ms(1_795_215_600_123);

    fn names(dir: &Path) -> Vec<String> {
        let name =
            |entry: io::Result<fs::DirEntry>| entry.unwrap().file_name().into_string().unwrap();
        let mut names: Vec<_> = fs::read_dir(dir).unwrap().map(name).collect();
        names.sort();
        names
    }

    #[test]
    fn view_is_valid_and_its_seq_is_read_back() {
        let dir = tempfile::tempdir().unwrap();
        assert_eq!(read_seq(dir.path()), None);
        for (object, seq) in [
            ("{}", None),
            (r#"{"version":"1","seq":12,"tasks":{"seq":{"seq":3}}}"#, Some(12)),
            ("{\n  \"tasks\": {\"seq\": 3},\n  \"seq\": 13\n}\n", Some(13)),
        ] {
            assert_eq!(write_view(dir.path(), object.as_bytes(), NOW).unwrap(), None);
            let text = fs::read(path(dir.path())).unwrap();
            let value: serde_json::Value = serde_json::from_slice(&text).unwrap();
            assert_eq!(value["checksum"].as_str().unwrap().len(), 16);
            assert_eq!((read_seq(dir.path()), peek_seq(dir.path())), (seq, seq));
        }
        assert_eq!(names(dir.path()), ["state.json"]);
    }

    #[test]
    fn edited_view_is_kept_aside_and_not_believed() {
        let dir = tempfile::tempdir().unwrap();
        write_view(dir.path(), br#"{"seq":12,"a":1}"#, NOW).unwrap();
        let edited = fs::read_to_string(path(dir.path())).unwrap().replace("12", "99");
        fs::write(path(dir.path()), &edited).unwrap();
        assert_eq!((read_seq(dir.path()), peek_seq(dir.path())), (None, Some(99)));
        let warning = write_view(dir.path(), br#"{"seq":13}"#, NOW).unwrap().unwrap();
        let aside = "state.json.edited-2026-11-20T23-00-00.123Z";
        assert!(warning.contains(aside), "{warning}");
        assert_eq!(fs::read_to_string(dir.path().join(aside)).unwrap(), edited);
        assert_eq!(read_seq(dir.path()), Some(13));
        assert_eq!(names(dir.path()), ["state.json", aside]);
    }

    #[test]
    fn emptied_view_is_replaced_without_a_word() {
        let dir = tempfile::tempdir().unwrap();
        for left in ["", "\0\0\0"] {
            fs::write(path(dir.path()), left).unwrap();
            assert_eq!(write_view(dir.path(), br#"{"seq":1}"#, NOW).unwrap(), None);
        }
        assert_eq!(names(dir.path()), ["state.json"]);
    }

    #[test]
    fn folder_in_its_place_is_moved_aside() {
        let dir = tempfile::tempdir().unwrap();
        fs::create_dir(path(dir.path())).unwrap();
        assert!(write_view(dir.path(), br#"{"seq":1}"#, NOW).unwrap().is_some());
        assert_eq!(read_seq(dir.path()), Some(1));
    }

    #[test]
    fn what_is_no_object_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        assert!(write_view(dir.path(), b"[]", NOW).is_err());
        assert!(write_view(dir.path(), b"", NOW).is_err());
        assert!(names(dir.path()).is_empty());
    }

    #[test]
    fn number_cut_by_the_head_is_not_believed() {
        assert_eq!(find_seq(br#"{"seq":12"#), None);
        assert_eq!(find_seq(br#"{"seq":12,"a"#), None);
        assert_eq!(find_seq(br#"{"seq":123,"a":"#), Some(123));
        assert_eq!(find_seq(b"\xff"), None);
    }

    #[test]
    fn old_temporary_files_are_swept_and_new_ones_stay() {
        let dir = tempfile::tempdir().unwrap();
        let (old, new) = (dir.path().join(".old.tmp"), dir.path().join(".new.tmp"));
        let file = fs::File::create(&new).unwrap();
        let now = file.metadata().unwrap().modified().unwrap();
        // Younger than the view, however long that takes.
        file.set_modified(now + 1_000 * TEMP_AGE_MIN).unwrap();
        fs::File::create(&old).unwrap().set_modified(now - 2 * TEMP_AGE_MIN).unwrap();
        write_view(dir.path(), b"{}", NOW).unwrap();
        assert_eq!(names(dir.path()), [".new.tmp", "state.json"]);
    }
}
