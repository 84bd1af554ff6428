//! A fast-forward of a person's checkout that ended half-way: the note that tells of it, and how what
//! it wrote is taken back. Git writes the files first and its index last, and where it finds no room it
//! leaves what it has written.

use std::collections::BTreeSet;
use std::ffi::OsStr;
use std::fs;
use std::io;
use std::os::unix::ffi::OsStrExt as _;
use std::path::Path;
use std::time::SystemTime;

use super::call::Call;
use super::error::GitError;
use super::oid::Oid;
use super::repo::Repo;
use super::slot::remove_file;
use crate::sys::file::{Durability, read_bounded, write_atomic};

/// What is larger is not compared, and left to the person.
const FILE_BYTES_MAX: u64 = 64 << 20;

/// One file that the fast-forward changes, and how: as `git diff-tree --name-status` says.
struct Change {
    is_added: bool,
    path: Vec<u8>,
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
        let path = self.gates_dir().join(note);
        for entry in fs::read_dir(self.gates_dir()).into_iter().flatten().flatten() {
            let left = entry.path();
            if left.extension().is_some_and(|ending| ending == "tmp") {
                remove_file(&left)?;
            }
        }
        let text = format!("{to}\n{}", dir.unwrap_or(Path::new("")).display());
        write_atomic(&path, text.as_bytes(), Durability::Process).map_err(|source| GitError::File {
            doing: "write",
            path,
            source,
        })
    }

    /// Returns when what a note is of began.
    pub(super) fn noted_at(&self, note: &str) -> Result<SystemTime, GitError> {
        let path = self.gates_dir().join(note);
        let found = fs::metadata(&path).and_then(|found| found.modified());
        found.map_err(|source| GitError::File { doing: "read", path, source })
    }

    pub(super) fn forget_merge(&self, note: &str) -> Result<(), GitError> {
        remove_file(&self.gates_dir().join(note))
    }

    /// Takes back what a fast-forward from `found` to `to`, begun at `since`, has written in the
    /// checkout `dir`: a file that was written since, and holds nothing but what one of the two commits
    /// has there, or the beginning of it, and a file that is gone. They stand as in `found` again.
    /// What holds anything else, or stands otherwise in the index, is a person's and stays as it is.
    /// Returns whether there was anything to take back.
    ///
    /// # Errors
    /// When git fails, as where there still is no room: repeat it.
    pub(super) fn take_back(
        &self,
        dir: &Path,
        (found, to): (&Oid, &Oid),
        since: SystemTime,
    ) -> Result<bool, GitError> {
        let call = Call::read("git.base_staged", dir).args([
            "diff-index",
            "--cached",
            "-z",
            "--no-renames",
            "--name-only",
            found.as_str(),
        ]);
        let reply = self.git.ok(call)?;
        let staged: BTreeSet<&[u8]> = reply.fields().collect();
        let mut changes = self.changes(dir, found, to)?;
        changes.retain(|change| !staged.contains(change.path.as_slice()));
        let is_ours = |path: &[u8]| -> Result<bool, GitError> {
            let place = dir.join(OsStr::from_bytes(path));
            let Some(half) = written(&place, since) else { return Ok(false) };
            for commit in [to, found] {
                let whole = self.content(dir, commit, path)?;
                if whole.is_some_and(|whole| whole.starts_with(&half)) {
                    return Ok(true);
                }
            }
            Ok(false)
        };
        let mut had_begun = false;
        for change in changes.iter().filter(|change| change.is_added) {
            let place = dir.join(OsStr::from_bytes(&change.path));
            if is_ours(&change.path)? {
                remove_file(&place)?;
                had_begun = true;
                // Folders that hold nothing else came with it.
                let above = place.ancestors().skip(1).take_while(|above| *above != dir);
                let _ = above.map(fs::remove_dir).take_while(Result::is_ok).count();
            }
        }
        let mut again = Vec::new();
        for change in changes.iter().filter(|change| !change.is_added) {
            let place = dir.join(OsStr::from_bytes(&change.path));
            if is_gone(&place, since) || is_ours(&change.path)? {
                again.extend_from_slice(&change.path);
                again.push(0);
            }
        }
        if !again.is_empty() {
            let call = Call::write("git.base_take_back", dir)
                .args(["checkout-index", "-f", "-u", "-q", "-z", "--stdin"])
                .bytes(&again);
            self.git.ok(call)?;
        }
        Ok(had_begun || !again.is_empty())
    }

    fn changes(&self, dir: &Path, found: &Oid, to: &Oid) -> Result<Vec<Change>, GitError> {
        let call = Call::read("git.base_changes", dir)
            .args(["diff-tree", "-r", "-z", "--no-renames", "--name-status"])
            .args([found.as_str(), to.as_str()]);
        let reply = self.git.ok(call)?;
        let fields: Vec<&[u8]> = reply.fields().collect();
        let pairs = fields.chunks_exact(2);
        Ok(pairs.map(|it| Change { is_added: it[0] == b"A", path: it[1].to_vec() }).collect())
    }

    /// Returns what git writes for a path of a commit; `None` when the commit has no file there.
    fn content(&self, dir: &Path, commit: &Oid, path: &[u8]) -> Result<Option<Vec<u8>>, GitError> {
        let mut object = format!("{commit}:").into_bytes();
        object.extend_from_slice(path);
        let call = Call::read("git.base_content", dir)
            .args(["cat-file", "--filters"])
            .args([OsStr::from_bytes(&object)]);
        let reply = self.git.run(call)?;
        Ok((reply.code == 0).then_some(reply.stdout))
    }
}

/// Returns whether a file is gone since then, by the folder it was in.
fn is_gone(place: &Path, since: SystemTime) -> bool {
    let found = fs::symlink_metadata(place);
    let mut above = place.ancestors().skip(1).filter_map(|above| fs::symlink_metadata(above).ok());
    let changed = above.next().and_then(|above| above.modified().ok());
    found.is_err_and(|error| error.kind() == io::ErrorKind::NotFound) && changed >= Some(since)
}

/// Returns what a file or link holds that was written since; `None`: there is none, it is older, or it
/// is not to be compared.
fn written(place: &Path, since: SystemTime) -> Option<Vec<u8>> {
    let found = fs::symlink_metadata(place).ok()?;
    if found.modified().ok()? < since {
        return None;
    }
    if found.is_symlink() {
        return Some(fs::read_link(place).ok()?.as_os_str().as_bytes().to_vec());
    }
    read_bounded(place, FILE_BYTES_MAX).ok()?
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::{PermissionsExt as _, symlink};

    use super::*;
    use crate::git::Follow;
    use crate::git::scratch::Scratch;

    const MAIN: &str = "refs/heads/main";

    /// `main` is checked out at `old`; `to` changes, adds and removes files, links and modes.
    struct Case {
        scratch: Scratch,
        old: Oid,
        to: Oid,
    }

    impl Case {
        fn new() -> Self {
            let scratch = Scratch::new();
            let case = |name: &str| scratch.root.join(name);
            for name in ["changed.txt", "gone.txt", "mode.txt", "line.txt"] {
                fs::write(case(name), "old and long\n").unwrap();
            }
            symlink("old", case("link")).unwrap();
            fs::write(case(".git/info/attributes"), "line.txt text eol=crlf\n").unwrap();
            scratch.git(["add", "-A"]);
            scratch.git(["commit", "-q", "-m", "old"]);
            let old = scratch.rev("HEAD");
            for name in ["changed.txt", "line.txt"] {
                fs::write(case(name), "new\nand longer still\n").unwrap();
            }
            fs::remove_file(case("gone.txt")).unwrap();
            fs::set_permissions(case("mode.txt"), fs::Permissions::from_mode(0o755)).unwrap();
            fs::remove_file(case("link")).unwrap();
            symlink("new", case("link")).unwrap();
            fs::create_dir_all(case("a/b")).unwrap();
            fs::write(case("a/b/it's\nnew.txt"), "brand new\n").unwrap();
            scratch.git(["add", "-A"]);
            scratch.git(["commit", "-q", "-m", "new"]);
            let to = scratch.rev("HEAD");
            scratch.git(["reset", "-q", "--hard", old.as_str()]);
            Self { scratch, old, to }
        }

        /// As a fast-forward that has no room leaves it: its note, files, and no index.
        fn half(&self, write: impl FnOnce(&Path)) {
            let root = &self.scratch.root;
            let gates = self.scratch.repo.gates_dir();
            fs::create_dir_all(&gates).unwrap();
            let note = gates.join("base-follow");
            fs::write(note, format!("{}\n{}", self.to, root.display())).unwrap();
            write(root);
        }

        fn follow(&self) -> Follow {
            let repo = &self.scratch.repo;
            repo.base_follow(&repo.base_gate().unwrap(), MAIN, &self.to, &self.old).unwrap()
        }
    }

    #[test]
    fn what_was_written_whole_or_in_part_is_taken_back_and_comes_again() {
        for cut in [0, 5, 10] {
            let case = Case::new();
            case.half(|root| {
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
            assert_eq!(case.follow(), Follow::Followed);
            assert_eq!(case.scratch.git(["status", "--porcelain"]), "?? mine.txt");
            assert_eq!(case.scratch.rev(MAIN), case.to);
        }
    }

    #[test]
    fn what_a_person_wrote_since_stays_and_the_rest_stands_as_before() {
        let case = Case::new();
        case.half(|root| {
            fs::remove_file(root.join("gone.txt")).unwrap();
            fs::write(root.join("changed.txt"), "new\nand mine").unwrap();
            fs::create_dir_all(root.join("a/b")).unwrap();
            fs::write(root.join("a/b/it's\nnew.txt"), "brand").unwrap();
            fs::write(root.join("line.txt"), "staged").unwrap();
            case.scratch.git(["add", "line.txt"]);
        });
        assert!(matches!(case.follow(), Follow::Refused { .. }));
        assert_eq!(case.scratch.git(["status", "--porcelain"]), " M changed.txt\nM  line.txt");
        let text = fs::read_to_string(case.scratch.root.join("changed.txt")).unwrap();
        assert_eq!(text, "new\nand mine");
        assert!(!case.scratch.root.join("a").exists());
        assert_eq!(case.scratch.rev(MAIN), case.old);
    }

    #[test]
    fn what_is_older_than_the_fast_forward_is_a_persons() {
        let case = Case::new();
        fs::create_dir_all(case.scratch.root.join("a/b")).unwrap();
        let place = case.scratch.root.join("a/b/it's\nnew.txt");
        fs::write(&place, "").unwrap();
        let file = fs::File::options().append(true).open(&place).unwrap();
        let hour = std::time::Duration::from_secs(3_600);
        file.set_modified(file.metadata().unwrap().modified().unwrap() - hour).unwrap();
        case.half(|_| {});
        assert!(matches!(case.follow(), Follow::Refused { .. }));
        assert!(place.exists());
    }
}
