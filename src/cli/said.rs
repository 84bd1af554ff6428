//! `pipeline done` and its sisters: what an agent, or a person in a worktree, says of the task.
//!
//! Finds the task file and has one line written there; opens no project, so that it works inside a
//! sandbox.

use std::fs;
use std::io::{self, BufRead, BufReader, Read};
use std::path::{Path, PathBuf};

use super::args::{WhatArgs, WhyArgs};
use super::console::Console;
use super::error::Error;
use crate::sys::file::open_regular;

/// Where an agent is told its task file.
pub const TASK_FILE_VARIABLE: &str = "PIPELINE_TASK_FILE";

/// Longest header of a task file that is looked at.
const HEADER_BYTES_MAX: u64 = 4096;

/// What is said of a task. Reasons are one line and not empty.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Said {
    Done,
    /// Only a person can go on.
    Blocked(String),
    Failed(String),
    /// An earlier stage must do more.
    ChangesRequested(String),
}

impl Said {
    /// Returns what `block` says.
    ///
    /// # Errors
    /// When the reason is empty.
    pub fn blocked(args: &WhyArgs) -> Result<Self, Error> {
        reason(&args.why).map(Self::Blocked)
    }

    /// Returns what `fail` says.
    ///
    /// # Errors
    /// When the reason is empty.
    pub fn failed(args: &WhyArgs) -> Result<Self, Error> {
        reason(&args.why).map(Self::Failed)
    }

    /// Returns what `request-changes` says.
    ///
    /// # Errors
    /// When it is empty.
    pub fn changes_requested(args: &WhatArgs) -> Result<Self, Error> {
        reason(&args.what).map(Self::ChangesRequested)
    }
}

/// Makes one line of the words.
fn reason(words: &[String]) -> Result<String, Error> {
    let line = words.iter().flat_map(|word| word.split_whitespace());
    let line = line.collect::<Vec<_>>().join(" ");
    if line.is_empty() {
        return Err(
            Error::usage("no reason given").hint("e.g. pipeline block no access to the API")
        );
    }
    Ok(line)
}

/// Has the status line written to the task file of this worktree.
///
/// `named` is what [`TASK_FILE_VARIABLE`] holds; `write` sets the status line atomically.
///
/// # Errors
/// When there is no task file, or it cannot be written.
pub fn run(
    console: &mut Console<'_>,
    dir: &Path,
    named: Option<PathBuf>,
    said: &Said,
    write: impl Fn(&Path, &Said) -> io::Result<()>,
) -> Result<(), Error> {
    let path = find(dir, named)?;
    let cannot = || Error::failed(format!("cannot set the status in `{}`", path.display()));
    write(&path, said).map_err(|error| cannot().because(&error).at(&path))?;
    console.note(&format!("said in {}", path.display()));
    Ok(())
}

/// Finds the task file: the one named, else the only one at the worktree's root.
fn find(dir: &Path, named: Option<PathBuf>) -> Result<PathBuf, Error> {
    if let Some(path) = named.filter(|path| !path.as_os_str().is_empty()) {
        let path = dir.join(path);
        if path.is_file() {
            return Ok(path);
        }
        let text = format!("{TASK_FILE_VARIABLE} names `{}`, which is no file", path.display());
        return Err(Error::invalid(text).at(&path));
    }
    let is_root = |folder: &&Path| folder.join(".git").exists();
    let root = dir.ancestors().find(is_root).unwrap_or(dir);
    let cannot = |error: &io::Error| {
        Error::failed(format!("cannot look for a task file in `{}`", root.display()))
            .because(error)
            .at(root)
    };
    let mut found = Vec::new();
    for entry in fs::read_dir(root).map_err(|error| cannot(&error))? {
        let path = entry.map_err(|error| cannot(&error))?.path();
        let is_markdown = path.extension().is_some_and(|extension| extension == "md");
        if is_markdown && path.is_file() && has_header(&path) {
            found.push(path);
        }
    }
    found.sort();
    match found.as_slice() {
        [path] => Ok(path.clone()),
        [] => Err(Error::invalid(format!("there is no task file in `{}`", root.display()))
            .hint("say it in the worktree of an attempt, e.g. with `-C`")
            .at(root)),
        [first, second, ..] => Err(Error::invalid(format!(
            "there are several task files in `{}`: `{}`, `{}`",
            root.display(),
            first.display(),
            second.display()
        ))
        .hint(format!("name the one that is meant in {TASK_FILE_VARIABLE}"))
        .at(root)),
    }
}

/// Returns true when the file opens with the header of an attempt. One that cannot be read has
/// none.
fn has_header(path: &Path) -> bool {
    let Ok(file) = open_regular(path) else { return false };
    let mut lines = BufReader::new(file.take(HEADER_BYTES_MAX)).lines().map_while(Result::ok);
    if lines.next().is_none_or(|line| line.trim_end() != "---") {
        return false;
    }
    let header: Vec<String> = lines.take_while(|line| line.trim_end() != "---").collect();
    let has = |name: &str| header.iter().any(|line| line.starts_with(name));
    has("attempt: ") && has("nonce: ")
}

#[cfg(test)]
mod tests {
    use std::cell::RefCell;
    use std::fs;
    use std::io;
    use std::path::{Path, PathBuf};

    use super::Said;
    use crate::cli::console::Format;
    use crate::cli::console::tests::captured;

    const HEADER: &str = "---\ntask: a\nstage: test\nattempt: a.test.1\nnonce: 5f\n---\n\n# a: A\n";

    /// Returns the file that was written, or the error's text.
    fn say(dir: &Path, named: Option<&str>) -> Result<PathBuf, String> {
        let written = RefCell::new(Vec::new());
        let (done, _, _) = captured("", Format::Text, |console| {
            super::run(console, dir, named.map(PathBuf::from), &Said::Done, |path, said| {
                assert_eq!(said, &Said::Done);
                written.borrow_mut().push(path.to_owned());
                Ok(())
            })
        });
        done.map_err(|error| error.text())?;
        Ok(written.into_inner().remove(0))
    }

    fn worktree() -> tempfile::TempDir {
        let dir = tempfile::tempdir().expect("a folder");
        fs::create_dir_all(dir.path().join("src/deep")).expect("folders");
        fs::write(dir.path().join(".git"), "gitdir: elsewhere\n").expect("a file");
        fs::write(dir.path().join("README.md"), "# Read\n").expect("a file");
        dir
    }

    #[test]
    fn file_is_found_from_below_by_its_header() {
        let dir = worktree();
        let file = dir.path().join("TASK-a.md");
        assert!(say(dir.path(), None).unwrap_err().contains("there is no task file in"));
        fs::write(&file, HEADER).expect("a file");
        assert_eq!(say(&dir.path().join("src/deep"), None), Ok(file.clone()));
        fs::write(dir.path().join("TASK-b.md"), HEADER).expect("a file");
        let text = say(dir.path(), None).unwrap_err();
        assert!(text.contains("several task files") && text.contains("TASK-b.md"), "{text}");
    }

    #[test]
    fn environment_wins() {
        let dir = worktree();
        fs::write(dir.path().join("TASK-a.md"), HEADER).expect("a file");
        let other = dir.path().join("other.md");
        let named = other.to_str().expect("text");
        assert!(say(dir.path(), Some(named)).unwrap_err().contains("which is no file"));
        fs::write(&other, "the header is gone").expect("a file");
        assert_eq!(say(dir.path(), Some(named)), Ok(other.clone()));
    }

    #[test]
    fn refused_writes_are_told() {
        let dir = worktree();
        fs::write(dir.path().join("TASK-a.md"), HEADER).expect("a file");
        let (done, _, _) = captured("", Format::Text, |console| {
            super::run(console, dir.path(), None, &Said::Done, |_, _| {
                Err(io::Error::from(io::ErrorKind::PermissionDenied))
            })
        });
        let error = done.unwrap_err();
        assert_eq!((error.kind.exit().number(), error.causes.len()), (1, 1));
    }

    #[test]
    fn reasons_are_one_line() {
        let words = |list: &[&str]| list.iter().map(|word| (*word).to_owned()).collect();
        let args = crate::cli::args::WhyArgs { why: words(&["no\nkey\n## Status: COMPLETED"]) };
        let one = Said::Blocked("no key ## Status: COMPLETED".into());
        assert_eq!(Said::blocked(&args), Ok(one));
        let args = crate::cli::args::WhyArgs { why: words(&[" ", "\n"]) };
        assert_eq!(Said::failed(&args).unwrap_err().kind.exit().number(), 2);
    }
}
