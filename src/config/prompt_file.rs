//! Prompt files of a project: `prompt = "agents/x.md"` of a stage.

use std::fmt;
use std::io;
use std::path::Path;

use xxhash_rust::xxh3::xxh3_64;

use crate::machine::settings::ROLE_BYTES_MAX;
use crate::sys::file::read_bounded;
use crate::sys::room::is_shortage;

/// A prompt file as it stands.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PromptFile {
    /// What the agent is told of its role.
    pub text: String,
    /// Identifies the text: 16 hex digits.
    pub hash: String,
}

/// Why a prompt file is of no use.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Unusable {
    /// As the settings name it, from the project's root.
    pub name: String,
    /// In words.
    pub why: String,
    /// It may be read when there is room again, of descriptors for example.
    pub is_passing: bool,
}

impl fmt::Display for Unusable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "cannot use prompt `{}`: {}", self.name, self.why)
    }
}

impl std::error::Error for Unusable {}

/// Reads the prompt file `name` of the project at `root`.
///
/// # Errors
/// When it is not there, cannot be read, is longer than [`ROLE_BYTES_MAX`], blank, no UTF-8, or no
/// regular file.
pub fn read(root: &Path, name: &str) -> Result<PromptFile, Unusable> {
    let unusable = |why: String, is_passing| Unusable { name: name.to_owned(), why, is_passing };
    let path = root.join(name);
    let bytes = match read_bounded(&path, ROLE_BYTES_MAX as u64) {
        Ok(Some(bytes)) => bytes,
        Ok(None) => return Err(unusable("there is no such file".into(), false)),
        Err(error) => return Err(unusable(why(&path, &error), is_shortage(&error.to_string()))),
    };
    let hash = format!("{:016x}", xxh3_64(&bytes));
    match String::from_utf8(bytes) {
        Ok(text) if text.trim().is_empty() => Err(unusable("it is empty".into(), false)),
        Ok(text) => Ok(PromptFile { text, hash }),
        Err(_) => Err(unusable("it is no UTF-8".into(), false)),
    }
}

fn why(path: &Path, error: &io::Error) -> String {
    if path.is_symlink() {
        return "it is a symbolic link; name the file itself".into();
    }
    error.to_string()
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::{ROLE_BYTES_MAX, read};

    #[test]
    fn a_prompt_file_is_read_whole_or_refused_in_words() {
        let dir = tempfile::tempdir().expect("a folder");
        let check = |name: &str, bytes: &[u8], why: &str| {
            fs::write(dir.path().join(name), bytes).expect("written");
            let error = read(dir.path(), name).expect_err(why).to_string();
            assert!(error.contains(why) && error.contains(&format!("`{name}`")), "{error}");
        };
        check("blank", b" \n", "it is empty");
        check("bytes", b"\xff", "no UTF-8");
        check("long", &vec![b'x'; ROLE_BYTES_MAX + 1], "at most 16384");
        std::os::unix::fs::symlink("blank", dir.path().join("link")).expect("a link");
        for (name, why) in [("gone", "no such file"), ("link", "symbolic link"), (".", "regular")] {
            let error = read(dir.path(), name).expect_err(why);
            assert!(error.why.contains(why) && !error.is_passing, "{error}");
        }
        fs::write(dir.path().join("own"), vec![b'x'; ROLE_BYTES_MAX]).expect("written");
        let one = read(dir.path(), "own").expect("read");
        assert_eq!((one.text.len(), one.hash.len()), (ROLE_BYTES_MAX, 16));
        fs::write(dir.path().join("own"), "y").expect("written");
        assert_ne!(read(dir.path(), "own").expect("read").hash, one.hash);
    }
}
