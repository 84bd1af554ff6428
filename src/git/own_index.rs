//! A copy of the main checkout's index that is git's to bring up to date when it looks there.
//!
//! A look takes no lock in the person's checkout, so it cannot keep what it finds out in his index:
//! where the times there are out of date (a checkout that was copied, restored or touched), every
//! look would read all files. In the copy it finds that out once.

use std::fs::{self, File};
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use crate::sys::fail;

/// The copy, and of what.
#[derive(Debug)]
pub struct OwnIndex {
    path: PathBuf,
    /// The index that it is a copy of; `None`: there is none that can be used.
    of: Option<Stamp>,
}

/// Tells an index from any other that stood in its place: git writes a new file each time.
#[derive(Debug, PartialEq, Eq)]
struct Stamp {
    inode: u64,
    size: u64,
    modified: (i64, i64),
    changed: (i64, i64),
}

impl OwnIndex {
    /// Makes none yet; `path`: where it will be, in a folder that is there.
    #[must_use]
    pub fn new(path: PathBuf) -> Self {
        Self { path, of: None }
    }

    /// Copies `index` where that is another than before; returns the copy's path.
    pub(super) fn renew(&mut self, index: &Path) -> io::Result<&Path> {
        fail::point("git.own_index")?;
        // That of a git that was ended: nobody else writes here.
        remove(&self.lock())?;
        let mut from = File::open(index)?;
        let meta = from.metadata()?;
        let stamp = Stamp {
            inode: meta.ino(),
            size: meta.size(),
            modified: (meta.mtime(), meta.mtime_nsec()),
            changed: (meta.ctime(), meta.ctime_nsec()),
        };
        if self.of.as_ref() != Some(&stamp) || !self.path.exists() {
            self.of = None;
            remove(&self.path)?;
            let mut to = File::create(&self.path)?;
            io::copy(&mut from, &mut to)?;
            // Files that are as old as their index are read, since they may have changed behind it.
            to.set_modified(meta.modified()?)?;
            self.of = Some(stamp);
        }
        Ok(&self.path)
    }

    /// Throws the copy away: the next look makes another.
    pub(super) fn forget(&mut self) {
        self.of = None;
        // What is left is copied over.
        let _ = fs::remove_file(&self.path);
    }

    fn lock(&self) -> PathBuf {
        let mut path = self.path.clone().into_os_string();
        path.push(".lock");
        path.into()
    }
}

fn remove(path: &Path) -> io::Result<()> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        Ok(()) | Err(_) => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::git::scratch::Scratch;

    #[test]
    fn times_that_are_out_of_date_cost_one_look() {
        let scratch = Scratch::new();
        let dir = tempfile::tempdir().unwrap();
        let mut own = OwnIndex::new(dir.path().join("own"));
        let theirs = scratch.root.join(".git/index");
        let before = fs::read(&theirs).unwrap();
        let file = File::options().write(true).open(scratch.root.join("a.txt")).unwrap();
        let earlier = file.metadata().unwrap().modified().unwrap() - Duration::from_secs(3_600);
        file.set_modified(earlier).unwrap();
        let mut look = || {
            let look = scratch.repo.look_outside(true, &[], Some(&mut own)).unwrap();
            assert!(look.paths.is_empty(), "{look:?}");
            fs::read(dir.path().join("own")).unwrap()
        };
        let first = look();
        assert_ne!(first, before, "what it found out is kept");
        assert_eq!(look(), first, "and not found out again");
        assert_eq!(fs::read(&theirs).unwrap(), before, "the person's is as it was");
    }

    #[test]
    fn what_a_person_stages_is_seen_and_a_broken_copy_made_again() {
        let scratch = Scratch::new();
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("own");
        let mut own = OwnIndex::new(path.clone());
        let look = |own: &mut OwnIndex| {
            let look = scratch.repo.look_outside(true, &[], Some(own)).unwrap();
            look.paths.into_iter().map(|(path, it)| (path, it.letters)).collect::<Vec<_>>()
        };
        assert_eq!(look(&mut own), []);
        fs::write(scratch.root.join("a.txt"), "mine").unwrap();
        scratch.git(["add", "a.txt"]);
        // Left by a git that was ended.
        fs::write(dir.path().join("own.lock"), "").unwrap();
        let staged = || vec![("a.txt".to_owned(), "M.".to_owned())];
        assert_eq!(look(&mut own), staged());
        fs::write(&path, "broken").unwrap();
        assert_eq!(look(&mut own), staged());
        assert_eq!(look(&mut own), staged());
        assert!(fs::read(&path).unwrap().starts_with(b"DIRC"), "it is made again");
        // A change that leaves size and index alone, within the index's own tick.
        fs::write(scratch.root.join("a.txt"), "moin").unwrap();
        assert_eq!(look(&mut own), [("a.txt".to_owned(), "MM".to_owned())]);
    }
}
