//! The files in which programs keep what was said in a terminal.
//!
//! A pane's output is what people see, not events; several programs write the events of each session
//! to a file of their own beside. The one of an attempt is found by what was typed for it, which
//! names the attempt's prompt.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use regex::Regex;
use walkdir::WalkDir;

use crate::sys::file::read_bounded;

/// Largest one read, in bytes.
const BYTES_MAX: u64 = 64 << 20;
/// Files looked at, the newest ones: a program's sessions of years may lie there.
const FILES_MAX: usize = 64;
/// File systems keep times less exactly than clocks, in milliseconds.
const SLACK_MS: u64 = 2_000;

/// Where transcripts lie, and what the one of an attempt holds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Transcripts {
    /// Absolute paths; `*` stands for any characters of one name.
    pub patterns: Vec<String>,
    /// What was typed names this file.
    pub prompt: PathBuf,
}

impl Transcripts {
    /// Reads the attempt's transcript: of those changed since `started_ms` (since 1970) the newest one
    /// that names its prompt, with when it was changed. `None`: there is none.
    #[must_use]
    pub fn find(&self, started_ms: u64) -> Option<(SystemTime, Vec<u8>)> {
        let since = UNIX_EPOCH + Duration::from_millis(started_ms.saturating_sub(SLACK_MS));
        let mut found: Vec<(SystemTime, PathBuf)> =
            self.patterns.iter().flat_map(|pattern| matching(pattern)).collect();
        found.retain(|(changed, _)| *changed >= since);
        found.sort_unstable_by(|left, right| right.cmp(left));
        let name = self.prompt.to_str()?;
        // As it stands in a string of JSON.
        let quoted = serde_json::Value::from(name).to_string();
        let names = [name, &quoted[1..quoted.len() - 1]].map(regex::escape);
        let its = regex::bytes::Regex::new(&names.join("|")).ok()?;
        let read = |(changed, path): &(SystemTime, PathBuf)| {
            let text = read_bounded(path, BYTES_MAX).ok().flatten()?;
            its.is_match(&text).then_some((*changed, text))
        };
        found.iter().take(FILES_MAX).find_map(read)
    }
}

/// Returns the files that a pattern fits, with when they were changed.
fn matching(pattern: &str) -> Vec<(SystemTime, PathBuf)> {
    let Some(star) = pattern.find('*') else {
        return changed(Path::new(pattern)).into_iter().collect();
    };
    let Some(slash) = pattern[..star].rfind('/') else { return Vec::new() };
    let (root, rest) = (&pattern[..slash], &pattern[slash + 1..]);
    let part = |name: &str| {
        let parts: Vec<String> = name.split('*').map(regex::escape).collect();
        Regex::new(&format!("^{}$", parts.join(".*"))).ok()
    };
    let Some(parts) = rest.split('/').map(part).collect::<Option<Vec<Regex>>>() else {
        return Vec::new();
    };
    let depth = parts.len();
    let fits = |entry: &walkdir::DirEntry| {
        entry.depth() == 0
            || entry
                .file_name()
                .to_str()
                .is_some_and(|name| parts[entry.depth() - 1].is_match(name))
    };
    let entries = WalkDir::new(root).max_depth(depth).into_iter().filter_entry(fits).flatten();
    entries
        .filter(|entry| entry.depth() == depth && entry.file_type().is_file())
        .filter_map(|entry| changed(entry.path()))
        .collect()
}

fn changed(path: &Path) -> Option<(SystemTime, PathBuf)> {
    let meta = fs::metadata(path).ok().filter(fs::Metadata::is_file)?;
    Some((meta.modified().ok()?, path.to_owned()))
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::time::{Duration, SystemTime, UNIX_EPOCH};

    use super::Transcripts;

    #[test]
    fn the_newest_one_that_names_the_prompt_is_read() {
        let dir = tempfile::tempdir().expect("a folder");
        let now = fs::metadata(dir.path()).and_then(|meta| meta.modified()).expect("its time");
        let write = |name: &str, text: &str, age_s: u64| {
            let path = dir.path().join(name);
            fs::create_dir_all(path.parent().expect("a folder")).expect("its folder");
            let file = fs::File::create(&path).expect("a file");
            fs::write(&path, text).expect("its text");
            file.set_modified(now - Duration::from_secs(age_s)).expect("its time");
        };
        let its = "{\"content\":\"Read T.md, then /p/attempts/T.impl.1/prompt.md\"}";
        write("sessions/a/old-1.jsonl", &format!("{its} long ago"), 900);
        write("sessions/a/old-2.jsonl", &format!("{its} first"), 30);
        write("sessions/b/old-3.jsonl", &format!("{its} then"), 20);
        write("sessions/b/old-4.jsonl", "another's: /p/attempts/T.impl.2/prompt.md", 10);
        write("sessions/b/old-5.txt", its, 5);
        write("sessions/b/c/old-6.jsonl", its, 5);
        let transcripts = Transcripts {
            patterns: vec![format!("{}/sessions/*/old-*.jsonl", dir.path().display())],
            prompt: "/p/attempts/T.impl.1/prompt.md".into(),
        };
        let ms = |at: SystemTime| at.duration_since(UNIX_EPOCH).expect("a time").as_millis() as u64;
        let started = ms(now - Duration::from_secs(60));
        let found = |since| transcripts.find(since).map(|(_, text)| text);
        assert_eq!(found(started), Some(format!("{its} then").into_bytes()));
        assert_eq!(found(ms(now)), None, "none was changed since");
    }
}
