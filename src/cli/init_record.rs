//! What `init` wrote outside of the state's folder, noted for `deinit`, which takes it back and no
//! more than that.

use std::io;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use xxhash_rust::xxh3::xxh3_64;

use crate::sys::file::{Durability, read_bounded, read_linked, write_atomic};

const VERSION: u32 = 1;
const FILE: &str = "init.json";
const BYTES_MAX: u64 = 64 * 1024;
/// Largest exclude file that is read, in bytes.
const EXCLUDE_BYTES_MAX: u64 = 16 << 20;

/// The note, in the state's folder.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct InitRecord {
    /// Version of this struct.
    pub v: u32,
    /// Hash of the `pipeline.toml` that was written; `None`: there was one.
    pub config: Option<String>,
    /// How `.git/info/exclude` was before; `None` without git.
    pub exclude: Option<Exclude>,
}

/// How the repository's exclude file was before our line went in.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Exclude {
    /// Its folder was there.
    pub had_folder: bool,
    /// It was there itself.
    pub was_there: bool,
    /// It held our line, put there by somebody else.
    pub had_line: bool,
    /// Its last line was not ended.
    pub was_open: bool,
}

impl InitRecord {
    /// Reads the note of the state folder; `None` where there is none that can be read: an older
    /// program made none.
    #[must_use]
    pub fn read(state_dir: &Path) -> Option<Self> {
        let bytes = read_bounded(&place(state_dir), BYTES_MAX).ok()??;
        serde_json::from_slice(&bytes).ok()
    }

    /// Notes what this `init` wrote beside what an earlier one did.
    ///
    /// # Errors
    /// Any of create, write and rename.
    pub fn note(
        state_dir: &Path,
        config: Option<&str>,
        exclude: Option<Exclude>,
    ) -> io::Result<()> {
        let before = Self::read(state_dir);
        let record = Self {
            v: VERSION,
            config: config
                .map(|text| hash(text.as_bytes()))
                .or_else(|| before.as_ref()?.config.clone()),
            // The first one saw the file without us.
            exclude: before.as_ref().and_then(|before| before.exclude).or(exclude),
        };
        if before.as_ref() == Some(&record) {
            return Ok(());
        }
        let bytes = serde_json::to_vec(&record)?;
        write_atomic(&place(state_dir), &bytes, Durability::Power)
    }

    /// Returns whether `pipeline.toml` is as `init` wrote it.
    #[must_use]
    pub fn has_written(&self, bytes: &[u8]) -> bool {
        self.config.as_deref() == Some(hash(bytes).as_str())
    }
}

/// Returns the text of an exclude file, which may be a link; `None` when there is none.
///
/// # Errors
/// Any read error; a file that is too large, or no text.
pub fn exclude_text(path: &Path) -> io::Result<Option<String>> {
    let Some(bytes) = read_linked(path, EXCLUDE_BYTES_MAX)? else { return Ok(None) };
    let text = String::from_utf8(bytes);
    text.map(Some).map_err(|error| io::Error::new(io::ErrorKind::InvalidData, error))
}

impl Exclude {
    /// Looks at the file before our line goes in.
    #[must_use]
    pub fn before(path: &Path, line: &str) -> Self {
        let text = exclude_text(path).ok().flatten();
        let lines = text.as_deref().unwrap_or_default();
        Self {
            had_folder: path.parent().is_some_and(Path::is_dir),
            was_there: text.is_some(),
            had_line: lines.lines().any(|found| found.trim() == line),
            was_open: !lines.is_empty() && !lines.ends_with('\n'),
        }
    }

    /// Returns the text without our line, as it was before; `None`: there is nothing to take out.
    #[must_use]
    pub fn without(self, text: &str, line: &str) -> Option<String> {
        if self.had_line {
            return None;
        }
        let lines = text.split_inclusive('\n');
        let (mut kept, mut has_found, mut is_last) = (String::new(), false, false);
        for found in lines {
            is_last = !has_found && found.trim() == line;
            if is_last {
                has_found = true;
            } else {
                kept.push_str(found);
            }
        }
        if is_last && self.was_open && kept.ends_with('\n') {
            kept.pop();
        }
        has_found.then_some(kept)
    }
}

fn place(state_dir: &Path) -> PathBuf {
    state_dir.join(FILE)
}

fn hash(bytes: &[u8]) -> String {
    format!("{:016x}", xxh3_64(bytes))
}

#[cfg(test)]
mod tests {
    use super::{Exclude, InitRecord};

    const LINE: &str = "/.pipeline/";

    #[test]
    fn the_exclude_file_becomes_what_it_was() {
        let dir = tempfile::tempdir().expect("temporary folder");
        let path = dir.path().join("exclude");
        for before in ["", "a\n", "a\nb", "# git\n\n", "a\n/.pipeline/\n"] {
            std::fs::write(&path, before).expect("writes");
            let noted = Exclude::before(&path, LINE);
            let gap = if before.is_empty() || before.ends_with('\n') { "" } else { "\n" };
            let after = format!("{before}{gap}{LINE}\n");
            if before.contains(LINE) {
                assert_eq!(noted.without(before, LINE), None, "it is not ours");
            } else {
                assert_eq!(noted.without(&after, LINE).as_deref(), Some(before));
                assert_eq!(noted.without(before, LINE), None, "it is gone already");
            }
            // What was added since stays.
            let more = noted.without(&format!("{after}c\n"), LINE);
            assert!(more.is_none_or(|text| text == format!("{before}{gap}c\n")));
        }
    }

    #[test]
    fn a_later_init_forgets_nothing_of_the_first() {
        let dir = tempfile::tempdir().expect("temporary folder");
        let exclude =
            Exclude { had_folder: true, was_there: true, had_line: false, was_open: true };
        InitRecord::note(dir.path(), Some("a = 1\n"), Some(exclude)).expect("writes");
        let other = Exclude { had_line: true, ..exclude };
        InitRecord::note(dir.path(), None, Some(other)).expect("writes");
        let record = InitRecord::read(dir.path()).expect("it is there");
        assert_eq!(record.exclude, Some(exclude));
        assert!(record.has_written(b"a = 1\n") && !record.has_written(b"a = 2\n"));
        InitRecord::note(dir.path(), Some("a = 2\n"), None).expect("writes");
        let record = InitRecord::read(dir.path()).expect("it is there");
        assert!(record.has_written(b"a = 2\n") && record.exclude == Some(exclude));
    }
}
