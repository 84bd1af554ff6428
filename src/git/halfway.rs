//! A fast-forward of a person's checkout that ended half-way: the note that tells of it, and how what
//! it wrote is taken back. Git writes the files first and its index last, and where it finds no room it
//! leaves what it has written.

use std::collections::BTreeSet;
use std::ffi::OsStr;
use std::fs;
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use super::call::Call;
use super::error::GitError;
use super::gate::Gate;
use super::oid::Oid;
use super::repo::Repo;
use super::slot::remove_file;
use crate::sys::file::{Durability, read_bounded, write_atomic};
use crate::sys::room::is_shortage;

/// What is larger is not compared, and left to the person.
const FILE_BYTES_MAX: u64 = 64 << 20;
/// As many files are restored at a time.
const PATHS_MAX: usize = 200;

/// What git says where it could not write; what it refuses beforehand it words otherwise.
const UNWRITTEN: [&str; 4] =
    ["unable to write", "unable to create file", "write error", "failed to write"];

/// Stands in a note behind the goal where the files and the index are there.
pub(super) const STAGED: &str = " staged";

/// One file that a fast-forward changes.
pub(super) struct Change {
    is_added: bool,
    path: PathBuf,
    place: PathBuf,
}

/// When a file was last changed in any way, and its number.
type Stamp = (i64, i64, u64);

/// Returns whether git had begun to write, by what it said.
pub(super) fn has_begun(stderr: &str) -> bool {
    is_shortage(stderr) || UNWRITTEN.iter().any(|words| stderr.contains(words))
}

impl Repo {
    /// Notes that a fast-forward of a checkout begins, or of the branch alone; whoever does so holds
    /// the gate, so temporary files found there are of one that was killed.
    pub(super) fn note_merge(
        &self,
        note: &str,
        dir: Option<&Path>,
        to: &Oid,
    ) -> Result<(), GitError> {
        for entry in fs::read_dir(self.gates_dir()).into_iter().flatten().flatten() {
            let left = entry.path();
            if left.extension().is_some_and(|ending| ending == "tmp") {
                remove_file(&left)?;
            }
        }
        self.write_note(note, &format!("{to}\n{}", dir.unwrap_or(Path::new("")).display()))
    }

    /// Notes that the fast-forward of a checkout has ended, and only the branch has not followed.
    pub(super) fn note_staged(&self, note: &str, dir: &Path, to: &Oid) -> Result<(), GitError> {
        self.write_note(note, &format!("{to}{STAGED}\n{}", dir.display()))
    }

    fn write_note(&self, note: &str, text: &str) -> Result<(), GitError> {
        let path = self.gates_dir().join(note);
        write_atomic(&path, text.as_bytes(), Durability::Process).map_err(|source| GitError::File {
            doing: "write",
            path,
            source,
        })
    }

    /// Returns when what a note is of began.
    fn noted_at(&self, note: &str) -> Result<SystemTime, GitError> {
        let path = self.gates_dir().join(note);
        let found = fs::metadata(&path).and_then(|found| found.modified());
        found.map_err(|source| GitError::File { doing: "read", path, source })
    }

    pub(super) fn forget_merge(&self, note: &str) -> Result<(), GitError> {
        remove_file(&self.gates_dir().join(note))
    }

    /// Returns what the way from `found` to `to` changes in the checkout `dir`.
    ///
    /// # Errors
    /// When git cannot be asked.
    pub(super) fn changes(
        &self,
        dir: &Path,
        found: &Oid,
        to: &Oid,
    ) -> Result<Vec<Change>, GitError> {
        let call = Call::read("git.base_changes", dir)
            .args(["diff-tree", "-r", "-z", "--no-renames", "--name-status"])
            .args([found.as_str(), to.as_str()]);
        let reply = self.git.ok(call)?;
        let fields: Vec<&[u8]> = reply.fields().collect();
        let change = |pair: &[&[u8]]| {
            let path = PathBuf::from(OsStr::from_bytes(pair[1]));
            Change { is_added: pair[0] == b"A", place: dir.join(&path), path }
        };
        Ok(fields.chunks_exact(2).map(change).collect())
    }

    /// Returns whether the index of `dir` has all those changes, if any, as in `to`: git wrote it, and so
    /// the files before it.
    ///
    /// # Errors
    /// When git cannot be asked.
    pub(super) fn is_staged(
        &self,
        dir: &Path,
        changes: &[Change],
        to: &Oid,
    ) -> Result<bool, GitError> {
        let call = Call::read("git.base_staged", dir).args([
            "diff-index",
            "--cached",
            "-z",
            "--no-renames",
            "--name-only",
            to.as_str(),
        ]);
        let reply = self.git.ok(call)?;
        let behind: BTreeSet<&[u8]> = reply.fields().collect();
        let is_behind = |change: &Change| behind.contains(change.path.as_os_str().as_bytes());
        Ok(!changes.is_empty() && !changes.iter().any(is_behind))
    }

    /// Takes back what the fast-forward that is noted wrote of its `changes` in the checkout `dir`, from
    /// `found` to `to`, before it found no room. Git had begun only because nothing of a person's was in
    /// its way. What was written since and holds just what `to` has there, or the beginning of it, goes;
    /// then what is missing comes again as the index has it, over nothing, as far as there is room: git
    /// takes a file that is missing for one that it may write. What holds anything else is a person's by
    /// now, and stays.
    ///
    /// # Errors
    /// When git cannot be asked, or a file cannot be removed.
    pub(super) fn take_back(
        &self,
        gate: &Gate<'_>,
        note: &str,
        dir: &Path,
        changes: &[Change],
        (found, to): (&Oid, &Oid),
    ) -> Result<(), GitError> {
        let since = self.noted_at(note)?;
        let mut ours = Vec::new();
        // All are judged first: what git writes depends on other files, which may be among them.
        let within: Vec<&Change> =
            changes.iter().filter(|change| !is_beyond_link(dir, &change.path)).collect();
        for &change in &within {
            if let Some((half, seen)) = written(&change.place, since) {
                let whole = self.content(dir, to, &change.path)?;
                if whole.is_some_and(|whole| whole.starts_with(&half)) {
                    ours.push((change, seen));
                }
            }
        }
        for (change, seen) in ours {
            if stamp(&change.place) == Some(seen) {
                remove_file(&change.place)?;
                // Folders that hold nothing else came with what is new.
                let above = change.place.ancestors().skip(1).take_while(|above| *above != dir);
                let above = above.filter(|_| change.is_added);
                let _ = above.map(fs::remove_dir).take_while(Result::is_ok).count();
            }
        }
        let is_missing = |it: &&&Change| !it.is_added && fs::symlink_metadata(&it.place).is_err();
        let missing: Vec<&Path> =
            within.iter().filter(is_missing).map(|change| change.path.as_path()).collect();
        for paths in missing.chunks(PATHS_MAX) {
            let call = Call::write("git.base_take_back", dir)
                .args(["checkout-index", "-q", "--"])
                .args(paths);
            // It goes on undisturbed, as what it takes back did.
            if self.git.run_outliving(call.gate(gate))?.code != 0 {
                self.remove_parts(dir, found, paths, since)?;
            }
        }
        Ok(())
    }

    /// Removes those files, missing before, of which only a part could be written.
    fn remove_parts(
        &self,
        dir: &Path,
        found: &Oid,
        paths: &[&Path],
        since: SystemTime,
    ) -> Result<(), GitError> {
        for path in paths {
            if let Some((part, _)) = written(&dir.join(path), since) {
                let whole = self.content(dir, found, path)?;
                if whole.is_some_and(|whole| whole.starts_with(&part) && whole != part) {
                    remove_file(&dir.join(path))?;
                }
            }
        }
        Ok(())
    }

    /// Returns what git writes for a path of a commit; `None` when the commit has no file there.
    fn content(&self, dir: &Path, commit: &Oid, path: &Path) -> Result<Option<Vec<u8>>, GitError> {
        let mut object = format!("{commit}:").into_bytes();
        object.extend_from_slice(path.as_os_str().as_bytes());
        let call = Call::read("git.base_content", dir)
            .args(["cat-file", "--filters"])
            .args([OsStr::from_bytes(&object)]);
        let reply = self.git.run(call)?;
        Ok((reply.code == 0).then_some(reply.stdout))
    }
}

/// Returns whether a path leads over a link, and so perhaps out of the checkout, or over a file.
fn is_beyond_link(dir: &Path, path: &Path) -> bool {
    let folders = path.ancestors().skip(1).filter(|above| !above.as_os_str().is_empty());
    let mut folders = folders.map(|above| fs::symlink_metadata(dir.join(above)));
    folders.any(|found| found.is_ok_and(|found| !found.is_dir()))
}

fn stamp(place: &Path) -> Option<Stamp> {
    let found = fs::symlink_metadata(place).ok()?;
    Some((found.ctime(), found.ctime_nsec(), found.ino()))
}

/// Returns what a file or link holds that was written since; `None`: there is none, it is older, or it
/// is not to be compared.
fn written(place: &Path, since: SystemTime) -> Option<(Vec<u8>, Stamp)> {
    let (found, seen) = (fs::symlink_metadata(place).ok()?, stamp(place)?);
    if found.modified().ok()? < since {
        return None;
    }
    let held = if found.is_symlink() {
        fs::read_link(place).ok()?.as_os_str().as_bytes().to_vec()
    } else {
        read_bounded(place, FILE_BYTES_MAX).ok()??
    };
    Some((held, seen))
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::{PermissionsExt as _, symlink};
    use std::time::Duration;

    use super::*;
    use crate::git::Follow;
    use crate::git::gate::WAIT_MAX;
    use crate::git::scratch::Scratch;

    /// `main` is checked out at `old`; `to` changes, adds and removes files, links and modes.
    struct Case {
        scratch: Scratch,
        old: Oid,
        to: Oid,
    }

    impl Case {
        fn new() -> Self {
            let scratch = Scratch::new();
            let place = |name: &str| scratch.root.join(name);
            for name in ["changed.txt", "gone.txt", "mode.txt", "line.txt"] {
                fs::write(place(name), "old and long\n").unwrap();
            }
            symlink("old", place("link")).unwrap();
            fs::write(place(".git/info/attributes"), "line.txt text eol=crlf\n").unwrap();
            scratch.git(["add", "-A"]);
            scratch.git(["commit", "-q", "-m", "old"]);
            let old = scratch.rev("HEAD");
            for name in ["changed.txt", "line.txt"] {
                fs::write(place(name), "new\nand longer still\n").unwrap();
            }
            fs::remove_file(place("gone.txt")).unwrap();
            fs::set_permissions(place("mode.txt"), fs::Permissions::from_mode(0o755)).unwrap();
            fs::remove_file(place("link")).unwrap();
            symlink("new", place("link")).unwrap();
            fs::create_dir_all(place("a/b")).unwrap();
            fs::write(place("a/b/it's\nnew.txt"), "brand new\n").unwrap();
            scratch.git(["add", "-A"]);
            scratch.git(["commit", "-q", "-m", "new"]);
            let to = scratch.rev("HEAD");
            scratch.git(["reset", "-q", "--hard", old.as_str()]);
            Self { scratch, old, to }
        }

        fn follow(&self, to: &Oid) -> Result<Follow, GitError> {
            let repo = &self.scratch.repo;
            repo.base_follow(&repo.base_gate().unwrap(), "refs/heads/main", to, &self.old)
        }

        /// Takes back what `write` does, as a fast-forward that finds no room.
        fn take_back(&self, write: impl FnOnce(&Path)) -> String {
            let (repo, root) = (&self.scratch.repo, &self.scratch.root);
            fs::create_dir_all(repo.gates_dir()).unwrap();
            repo.note_merge("base-follow", Some(root), &self.to).unwrap();
            write(root);
            let gate = Gate::close(&repo.gates_dir(), "base.lock", None, WAIT_MAX).unwrap();
            let changes = repo.changes(root, &self.old, &self.to).unwrap();
            assert!(!repo.is_staged(root, &changes, &self.to).unwrap(), "the index is as it was");
            repo.take_back(&gate, "base-follow", root, &changes, (&self.old, &self.to)).unwrap();
            self.scratch.git(["status", "--porcelain"])
        }
    }

    #[test]
    fn what_was_written_whole_or_in_part_is_taken_back() {
        for cut in [0, 5, 100] {
            let case = Case::new();
            let status = case.take_back(|root| {
                let part = |text: &str| text.as_bytes()[..cut.min(text.len())].to_vec();
                fs::remove_file(root.join("gone.txt")).unwrap();
                fs::remove_file(root.join("mode.txt")).unwrap();
                fs::write(root.join("changed.txt"), part("new\nand longer still\n")).unwrap();
                fs::write(root.join("line.txt"), part("new\r\nand longer still\r\n")).unwrap();
                fs::remove_file(root.join("link")).unwrap();
                symlink("new", root.join("link")).unwrap();
                fs::create_dir_all(root.join("a/b")).unwrap();
                fs::write(root.join("a/b/it's\nnew.txt"), part("brand new\n")).unwrap();
                fs::write(root.join("mine.txt"), "mine").unwrap();
            });
            assert_eq!(status, "?? mine.txt");
            assert!(!case.scratch.root.join("a").exists());
        }
    }

    #[test]
    fn what_a_person_wrote_meanwhile_stays() {
        let case = Case::new();
        let status = case.take_back(|root| {
            fs::write(root.join("changed.txt"), "new\nand mine").unwrap();
            // A beginning of what was there is an edit: git writes that of what is to come.
            fs::write(root.join("line.txt"), "old").unwrap();
            fs::write(root.join("a"), "mine").unwrap();
        });
        assert_eq!(status, " M changed.txt\n M line.txt\n?? a");
    }

    #[test]
    fn nothing_is_touched_that_is_older_or_lies_behind_a_link() {
        let case = Case::new();
        let elsewhere = case.scratch.home().join("elsewhere");
        fs::create_dir_all(elsewhere.join("b")).unwrap();
        let file = elsewhere.join("b/it's\nnew.txt");
        let status = case.take_back(|root| {
            fs::write(&file, "brand new\n").unwrap();
            symlink(&elsewhere, root.join("a")).unwrap();
            let changed = root.join("changed.txt");
            fs::write(&changed, "new\n").unwrap();
            let changed = fs::File::options().append(true).open(&changed).unwrap();
            let before = changed.metadata().unwrap().modified().unwrap() - Duration::from_secs(60);
            changed.set_modified(before).unwrap();
        });
        assert_eq!(status, " M changed.txt\n?? a");
        assert!(file.exists());
    }

    #[test]
    fn what_only_lacks_the_branch_is_finished_before_anything_further() {
        let case = Case::new();
        let root = &case.scratch.root;
        // Git moves no branch whose log it cannot write, and finds that out last.
        let log = root.join(".git/logs/refs/heads/main");
        let aside = root.join(".git/log");
        fs::rename(&log, &aside).and_then(|()| fs::create_dir_all(log.join("x"))).unwrap();
        fs::write(log.join("x/y"), "").unwrap();
        case.follow(&case.to).unwrap_err();
        assert_eq!(case.scratch.rev("HEAD"), case.old);
        let next = case.scratch.commit_on(&case.to, "changed.txt", "newer");
        case.follow(&next).unwrap_err();
        let lock = root.join(".git/index.lock");
        fs::write(&lock, "").unwrap();
        assert_eq!(case.follow(&next).unwrap(), Follow::Locked { path: lock.clone() });
        fs::remove_file(&lock).unwrap();
        fs::remove_dir_all(&log).and_then(|()| fs::rename(&aside, &log)).unwrap();
        assert_eq!(case.follow(&next).unwrap(), Follow::Followed);
        assert_eq!(case.scratch.rev("HEAD"), next);
        assert_eq!(case.scratch.git(["status", "--porcelain"]), "");
        assert!(root.join("a/b/it's\nnew.txt").exists());
    }

    #[test]
    fn a_link_in_a_folders_place_keeps_nothing_else_from_coming_again() {
        let scratch = Scratch::new();
        for name in ["a/one.txt", "b/two.txt", "c/three.txt"] {
            let place = scratch.root.join(name);
            fs::create_dir_all(place.parent().unwrap()).unwrap();
            fs::write(place, "text").unwrap();
        }
        scratch.git(["add", "-A"]);
        scratch.git(["commit", "-q", "-m", "old"]);
        let old = scratch.rev("HEAD");
        scratch.git(["rm", "-rq", "a", "b", "c"]);
        scratch.git(["commit", "-q", "-m", "new"]);
        let to = scratch.rev("HEAD");
        scratch.git(["reset", "-q", "--hard", old.as_str()]);
        let case = Case { scratch, old, to };
        let elsewhere = case.scratch.home().join("elsewhere");
        fs::create_dir_all(&elsewhere).unwrap();
        let status = case.take_back(|root| {
            for name in ["a", "b", "c"] {
                fs::remove_dir_all(root.join(name)).unwrap();
            }
            symlink(&elsewhere, root.join("b")).unwrap();
        });
        assert_eq!(status, " D b/two.txt\n?? b");
        assert_eq!(fs::read_dir(&elsewhere).unwrap().count(), 0);
    }
}
