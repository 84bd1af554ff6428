//! A fast-forward of a person's checkout that ended half-way: the note that tells of it, and how what
//! it wrote is taken back. Git writes the files first, then its index, then the branch, and where it is
//! killed or finds no room it leaves what it has written.

use std::ffi::OsStr;
use std::fs;
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use super::base::Follow;
use super::call::Call;
use super::error::GitError;
use super::gate::Gate;
use super::index_lock::IndexLock;
use super::obstacle::{FORWARD, left_branch};
use super::oid::Oid;
use super::repo::Repo;
use super::slot::{linked, registered, remove_file};
use crate::sys::fail;
use crate::sys::file::{Durability, read_bounded, shell_path, write_atomic};
use crate::sys::room::is_shortage;

/// Note that a fast-forward has begun, and of which checkout if any; left over when it was killed.
pub(super) const NOTE: &str = "base-follow";
/// The same of the landing branch.
pub(super) const LANDING_NOTE: &str = "landing-follow";
/// Bound of that note: two paths' worth.
const NOTE_BYTES_MAX: u64 = 16 * 1024;
/// What is larger is not compared, and left to the person.
const FILE_BYTES_MAX: u64 = 64 << 20;
/// As many files are restored at a time.
const PATHS_MAX: usize = 200;

/// What git says where it refuses, and has written nothing.
const REFUSED: [&str; 6] = [
    "would be overwritten by merge",
    "would be removed by merge",
    "would lose untracked files",
    "Merging is not possible",
    "Not possible to fast-forward",
    "not something we can merge",
];
/// How much later than a whole file of its own git may have ended that left a part of one.
const PART_AGE_MAX: Duration = Duration::from_secs(60);

/// What git says where it could not write.
const UNWRITTEN: [&str; 4] =
    ["unable to write", "unable to create file", "write error", "failed to write"];

/// One file that a fast-forward changes.
pub(super) struct Change {
    is_added: bool,
    path: PathBuf,
    place: PathBuf,
}

/// When a file was last changed in any way, and its number.
type Stamp = (i64, i64, u64);

/// What a file holds, since when, and its stamp.
struct Written {
    held: Vec<u8>,
    at: SystemTime,
    seen: Stamp,
}

/// What a note says.
pub(super) struct Noted {
    pub(super) from: Oid,
    pub(super) to: Oid,
    /// By full name.
    pub(super) branch: String,
    /// The administrative folder of the checkout; `None`: only the branch is moved.
    pub(super) admin: Option<PathBuf>,
}

/// Returns whether git failed where it writes, by what it said.
pub(super) fn is_unwritten(stderr: &str) -> bool {
    is_shortage(stderr) || UNWRITTEN.iter().any(|words| stderr.contains(words))
}

/// Returns whether git refused before it wrote, by what it said.
pub(super) fn is_refused(stderr: &str) -> bool {
    REFUSED.iter().any(|words| stderr.contains(words))
}

/// A branch that is moved by the holder of the gate.
pub(super) struct Step<'a> {
    pub(super) gate: &'a Gate<'a>,
    /// By full name.
    pub(super) branch: &'a str,
    pub(super) note: &'static str,
}

impl Step<'_> {
    pub(super) fn noted(&self, from: &Oid, to: &Oid, admin: Option<PathBuf>) -> Noted {
        Noted { from: from.clone(), to: to.clone(), branch: self.branch.to_owned(), admin }
    }

    pub(super) fn is_landing(&self) -> bool {
        self.note == LANDING_NOTE
    }
}

impl Repo {
    /// Ends what a killed step has left, as far as that is ours. Returns the refusal where a git of
    /// ours left locks: they are the person's to remove, since another git may hold them by now.
    pub(super) fn left_by_killed_merge(&self, step: &Step<'_>) -> Result<Option<Follow>, GitError> {
        let Some(noted) = self.noted(step.note)? else { return Ok(None) };
        if let Some(admin) = &noted.admin {
            self.settle(step.gate, step.note, &noted, true)?;
            let mut locks = self.locks_in_checkout(admin, step.branch);
            // Git had none on the index itself. The others it takes on its way out, when the branch
            // has moved; they stop no other fast-forward.
            locks.retain(|path| !path.ends_with("index.lock"));
            let last = [admin.join("AUTO_MERGE.lock"), self.common.join("packed-refs.lock")];
            locks.extend(last.into_iter().filter(|path| path.exists()));
            if let (Some(lock), Some(dir)) = (locks.first(), self.place_of(admin)) {
                let why = format!(
                    "a fast-forward of `{}` was killed half-way and left `{}`; when no git runs there",
                    dir.display(),
                    lock.display()
                );
                let command = repair_command(&dir, &locks, &noted.to);
                return Ok(Some(Follow::refused(why, Some(command))));
            }
        } else {
            let lock = self.ref_lock(step.branch);
            if lock.exists() {
                let path = lock.display();
                let why = format!("a git that moved it was killed half-way and left `{path}`");
                let command = format!("rm -f {}", shell_path(&lock));
                return Ok(Some(Follow::refused(why, Some(command))));
            }
        }
        self.forget_merge(step.note)?;
        Ok(None)
    }

    /// Returns what steps left of the indexes of checkouts, our lock or, where somebody removed that, our
    /// copy; what was cut short, [`Repo::end_left_steps`] ends.
    ///
    /// # Errors
    /// When a note or a lock cannot be read.
    pub fn cut_short(&self) -> Result<Vec<PathBuf>, GitError> {
        let mut found = Vec::new();
        for note in [NOTE, LANDING_NOTE] {
            let admin = self.noted(note)?.and_then(|noted| noted.admin);
            let Some(lock) = admin.map(|admin| self.index_lock(&admin, note)) else { continue };
            if lock.is_ours()? {
                found.push(lock.lock);
            } else if lock.has_copy() {
                found.push(lock.copy);
            }
        }
        Ok(found)
    }

    pub(super) fn index_lock(&self, admin: &Path, note: &str) -> IndexLock {
        IndexLock::new(admin, &self.gates_dir(), note)
    }

    /// Ends what a step left that still has the index of a checkout locked: git's index comes in its
    /// place where the branch is at the goal; else the person's stays, and what git wrote is taken back.
    /// The holder of the gate knows that no git of ours is at work there.
    pub(super) fn settle(
        &self,
        gate: &Gate<'_>,
        note: &str,
        noted: &Noted,
        has_begun: bool,
    ) -> Result<(), GitError> {
        let Some(admin) = &noted.admin else { return Ok(()) };
        self.clear_temps()?;
        let (lock, to) = (self.index_lock(admin, note), &noted.to);
        let found = self.read_ref(&noted.branch)?;
        // Without the copy it had not begun, or has come to the end.
        let (Some(found), true) = (found, lock.has_copy()) else { return lock.release() };
        let is_there = match self.is_ancestor(to, &found) {
            // What is in no repository any more has not come there.
            Err(GitError::Failed { .. }) => false,
            looked => looked?,
        };
        let is_ours = lock.is_ours()?;
        let dir = self.place_of(admin).filter(|dir| dir.is_dir());
        let mut ended = Ok(());
        match dir {
            Some(dir) if is_ours && is_there && found == *to && !lock.is_written() => {
                return self.catch_up(gate, &dir, &lock, noted);
            }
            _ if is_ours && is_there => return lock.install(),
            Some(dir) if is_ours && has_begun => {
                ended = self
                    .changes(&dir, &noted.from, to)
                    .and_then(|changes| self.take_back(gate, note, &dir, &changes, (&found, to)));
                // It is tried again while the lock still says that the rest is ours.
                if matches!(ended, Err(GitError::Killed { .. })) {
                    return ended;
                }
            }
            // Somebody removed our lock, and may have written the index since.
            Some(dir)
                if !is_ours && found == *to && left_branch(admin, &noted.branch).is_none() =>
            {
                lock.retake()?;
                return self.catch_up(gate, &dir, &lock, noted);
            }
            Some(_) | None => {}
        }
        lock.release().and(ended)
    }

    /// Brings an index that is locked forward where only the files and the branch have come so far.
    fn catch_up(
        &self,
        gate: &Gate<'_>,
        dir: &Path,
        lock: &IndexLock,
        noted: &Noted,
    ) -> Result<(), GitError> {
        lock.copy_again()?;
        let args = ["read-tree", "-i", "-m", noted.from.as_str(), noted.to.as_str()];
        let call = Call::write("git.base_catch_up", dir).args(args);
        let reply = self.git.run_outliving(call.gate(gate).index(lock))?;
        if reply.code == 0 {
            lock.install()
        } else if is_unwritten(&reply.stderr) {
            Err(reply.failure(dir))
        } else {
            lock.release()
        }
    }

    /// Returns the checkout of an administrative folder of this repository; `None`: another's, which
    /// this one was copied from, or none.
    fn place_of(&self, admin: &Path) -> Option<PathBuf> {
        if admin == self.common {
            return Some(self.root.clone());
        }
        let real = |path: &Path| fs::canonicalize(path).ok();
        registered(admin).filter(|dir| linked(dir).and_then(|it| real(&it)) == real(admin))
    }

    /// Removes the temporary files of whoever was killed here; the holder of the gate has none.
    fn clear_temps(&self) -> Result<(), GitError> {
        for entry in fs::read_dir(self.gates_dir()).into_iter().flatten().flatten() {
            let left = entry.path();
            if left.extension().is_some_and(|ending| ending == "tmp") {
                remove_file(&left)?;
            }
        }
        Ok(())
    }

    /// Notes that a step begins; whoever does so holds the gate.
    pub(super) fn note_merge(&self, note: &str, noted: &Noted) -> Result<(), GitError> {
        self.clear_temps()?;
        let Noted { from, to, branch, admin } = noted;
        // A repository that is copied has its own.
        let below = |admin: &PathBuf| match admin.strip_prefix(&self.common) {
            Ok(below) if below.as_os_str().is_empty() => ".".to_owned(),
            below => below.unwrap_or(admin).display().to_string(),
        };
        let below = admin.as_ref().map(below).unwrap_or_default();
        let text = format!("{from}\n{to}\n{branch}\n{below}\n");
        // The lock on an index outlasts a power cut.
        let durability = if admin.is_some() { Durability::Power } else { Durability::Process };
        let path = self.gates_dir().join(note);
        write_atomic(&path, text.as_bytes(), durability).map_err(|source| GitError::File {
            doing: "write",
            path,
            source,
        })
    }

    /// Reads a note; what cannot be understood is of another program's, or has lost its end: another
    /// checkout, or none, might be meant.
    pub(super) fn noted(&self, note: &str) -> Result<Option<Noted>, GitError> {
        let path = self.gates_dir().join(note);
        let read = fail::point("git.read_note").and_then(|()| read_bounded(&path, NOTE_BYTES_MAX));
        let bytes = read.map_err(|source| GitError::File { doing: "read", path, source })?;
        let text = String::from_utf8(bytes.unwrap_or_default()).unwrap_or_default();
        let [from, to, branch, below, ""] = *text.split('\n').collect::<Vec<_>>() else {
            return Ok(None);
        };
        let (Ok(from), Ok(to)) = (from.parse(), to.parse()) else { return Ok(None) };
        let admin = match below {
            "" => None,
            "." => Some(self.common.clone()),
            below => Some(self.common.join(below)),
        };
        Ok(Some(Noted { from, to, branch: branch.to_owned(), admin }))
    }

    /// Returns when what a note is of began.
    fn noted_at(&self, note: &str) -> Result<SystemTime, GitError> {
        let path = self.gates_dir().join(note);
        let found = fs::metadata(&path).and_then(|found| found.modified());
        found.map_err(|source| GitError::File { doing: "read", path, source })
    }

    pub(super) fn forget_merge(&self, note: &str) -> Result<(), GitError> {
        remove_file(&self.back_note(note))?;
        remove_file(&self.gates_dir().join(note))
    }

    /// Returns where it is noted that files come again as they were.
    fn back_note(&self, note: &str) -> PathBuf {
        self.gates_dir().join(format!("{note}.back"))
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

    /// Takes back what the fast-forward that is noted wrote of its `changes` in the checkout `dir`, from
    /// `found` to `to`, before it found no room. Git had begun only because nothing of a person's was in
    /// its way. What was written since and holds just what `to` has there, or the beginning of it, goes;
    /// then what is missing comes again as the index has it, over nothing, as far as there is room: git
    /// takes a file that is missing for one that it may write. What holds anything else is a person's by
    /// now, and stays; but for what a git that was killed as it brought files again left of one.
    ///
    /// # Errors
    /// When git cannot be asked, or a file cannot be removed. [`GitError::Killed`]: repeat.
    pub(super) fn take_back(
        &self,
        gate: &Gate<'_>,
        note: &str,
        dir: &Path,
        changes: &[Change],
        (found, to): (&Oid, &Oid),
    ) -> Result<(), GitError> {
        let since = self.noted_at(note)?;
        let back = fs::metadata(self.back_note(note)).and_then(|found| found.modified()).ok();
        let is_back = |at| back.is_some_and(|back| at >= back && at <= back + PART_AGE_MAX);
        let (mut ours, mut parts, mut last) = (Vec::new(), Vec::new(), since);
        // All are judged first: what git writes depends on other files, which may be among them.
        let within = |change: &&Change| !is_beyond_link(dir, &change.path);
        for change in changes.iter().filter(within) {
            let Some(Written { held, at, seen }) = written(&change.place, since) else { continue };
            match self.content(dir, to, &change.path)? {
                Some(whole) if whole == held => {
                    last = last.max(at);
                    ours.push((change, seen));
                }
                Some(whole) if whole.starts_with(&held) => parts.push((change, seen, at)),
                Some(_) | None if is_back(at) => {
                    let whole = self.content(dir, found, &change.path)?;
                    if whole.is_some_and(|whole| whole.starts_with(&held) && whole != held) {
                        ours.push((change, seen));
                    }
                }
                Some(_) | None => {}
            }
        }
        // What a person shortens later is an edit.
        parts.retain(|(.., at)| *at <= last + PART_AGE_MAX || is_back(*at));
        ours.extend(parts.into_iter().map(|(change, seen, _)| (change, seen)));
        for (change, seen) in ours {
            if stamp(&change.place) == Some(seen) {
                remove_file(&change.place)?;
                // Folders that hold nothing else came with what is new.
                let above = change.place.ancestors().skip(1).take_while(|above| *above != dir);
                let above = above.filter(|_| change.is_added);
                let _ = above.map(fs::remove_dir).take_while(Result::is_ok).count();
            }
        }
        let is_missing = |it: &&Change| !it.is_added && fs::symlink_metadata(&it.place).is_err();
        // A file that went may have stood in a folder's place.
        let missing = changes.iter().filter(within).filter(is_missing);
        let missing: Vec<&Path> = missing.map(|change| change.path.as_path()).collect();
        for paths in missing.chunks(PATHS_MAX) {
            // Without room for it they come again as well.
            let _ = write_atomic(&self.back_note(note), b"", Durability::Power);
            let call = Call::write("git.base_take_back", dir)
                .env("GIT_WORK_TREE", dir)
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
            if let Some(Written { held: part, .. }) = written(&dir.join(path), since) {
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
            .env("GIT_WORK_TREE", dir)
            .args(["cat-file", "--filters"])
            .args([OsStr::from_bytes(&object)]);
        let reply = self.git.run(call)?;
        Ok((reply.code == 0).then_some(reply.stdout))
    }
}

/// Returns the command that removes the locks of a killed git, and fast-forwards.
fn repair_command(dir: &Path, locks: &[PathBuf], to: &Oid) -> String {
    let names: Vec<String> = locks.iter().map(|lock| shell_path(lock)).collect();
    let (names, dir) = (names.join(" "), shell_path(dir));
    format!("rm -f {names} && cd {dir} && git {FORWARD} -q {to}")
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
fn written(place: &Path, since: SystemTime) -> Option<Written> {
    let (found, seen) = (fs::symlink_metadata(place).ok()?, stamp(place)?);
    let at = found.modified().ok().filter(|at| *at >= since)?;
    let held = if found.is_symlink() {
        fs::read_link(place).ok()?.as_os_str().as_bytes().to_vec()
    } else {
        read_bounded(place, FILE_BYTES_MAX).ok()??
    };
    Some(Written { held, at, seen })
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::{PermissionsExt as _, symlink};

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

        fn note(&self) {
            let repo = &self.scratch.repo;
            fs::create_dir_all(repo.gates_dir()).unwrap();
            let (from, to, branch) =
                (self.old.clone(), self.to.clone(), "refs/heads/main".to_owned());
            let noted = Noted { from, to, branch, admin: Some(repo.common.clone()) };
            repo.note_merge(NOTE, &noted).unwrap();
        }

        /// A fast-forward that was killed with its monitor when git had done so much.
        fn killed(&self, git: &[&[&str]]) -> IndexLock {
            self.note();
            let repo = &self.scratch.repo;
            let lock = repo.index_lock(&repo.common, NOTE);
            assert!(lock.take().unwrap());
            for args in git {
                let call = Call::write("git.x", &self.scratch.root).args(*args);
                repo.git.ok(call.env("GIT_INDEX_FILE", &lock.copy)).unwrap();
            }
            lock
        }

        /// Takes back what `write` does, as a fast-forward that finds no room.
        fn take_back(&self, write: impl FnOnce(&Path)) -> String {
            let (repo, root) = (&self.scratch.repo, &self.scratch.root);
            self.note();
            write(root);
            let gate = Gate::close(&repo.gates_dir(), "base.lock", None, WAIT_MAX).unwrap();
            let changes = repo.changes(root, &self.old, &self.to).unwrap();
            repo.take_back(&gate, NOTE, root, &changes, (&self.old, &self.to)).unwrap();
            self.scratch.git(["status", "--porcelain"])
        }
    }

    #[test]
    fn a_damaged_note_is_none_and_in_nobodys_way() {
        let scratch = Scratch::new();
        let repo = &scratch.repo;
        let old = scratch.rev("HEAD");
        let to = scratch.commit_on(&old, "new.txt", "new");
        fs::create_dir_all(repo.gates_dir()).unwrap();
        for admin in [None, Some(repo.common.clone()), Some(repo.common.join("worktrees/10"))] {
            let branch = "refs/heads/main".to_owned();
            let noted = Noted { from: old.clone(), to: to.clone(), branch, admin: admin.clone() };
            repo.note_merge(NOTE, &noted).unwrap();
            assert_eq!(repo.noted(NOTE).unwrap().unwrap().admin, admin);
            let path = repo.gates_dir().join(NOTE);
            let whole = fs::read(&path).unwrap();
            for cut in 0..whole.len() {
                fs::write(&path, &whole[..cut]).unwrap();
                assert!(repo.noted(NOTE).unwrap().is_none(), "cut at byte {cut}");
            }
            fs::write(&path, vec![0; whole.len()]).unwrap();
            assert!(repo.noted(NOTE).unwrap().is_none());
        }
        assert_eq!(repo.cut_short().unwrap(), Vec::<PathBuf>::new());
        let followed = repo.base_follow(&repo.base_gate().unwrap(), "refs/heads/main", &to, &old);
        assert_eq!(followed.unwrap(), Follow::Followed);
        assert!(!repo.gates_dir().join(NOTE).exists());
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
    fn what_only_lacks_the_branch_is_taken_back_too() {
        let case = Case::new();
        let root = &case.scratch.root;
        // Git moves no branch whose log it cannot write, and finds that out last.
        let log = root.join(".git/logs/refs/heads/main");
        let aside = root.join(".git/log");
        fs::rename(&log, &aside).and_then(|()| fs::create_dir_all(log.join("x"))).unwrap();
        fs::write(log.join("x/y"), "").unwrap();
        let next = case.scratch.commit_on(&case.to, "changed.txt", "newer");
        for to in [&case.to, &next] {
            let Follow::Refused { stderr, .. } = case.follow(to).unwrap() else { panic!() };
            assert!(stderr.0.contains("update_ref failed"), "{stderr}");
            assert_eq!(case.scratch.rev("HEAD"), case.old);
            assert_eq!(case.scratch.git(["status", "--porcelain"]), "");
        }
        fs::remove_dir_all(&log).and_then(|()| fs::rename(&aside, &log)).unwrap();
        assert_eq!(case.follow(&next).unwrap(), Follow::Followed);
        assert_eq!(case.scratch.rev("HEAD"), next);
        assert_eq!(case.scratch.git(["status", "--porcelain"]), "");
        assert!(root.join("a/b/it's\nnew.txt").exists());
    }

    /// A fast-forward killed half-way, and then the git that took it back.
    #[test]
    fn what_is_taken_back_once_more_after_a_kill_is_known_as_ours_still() {
        let case = Case::new();
        let (repo, root) = (&case.scratch.repo, &case.scratch.root);
        let update = ["read-tree", "-m", "-u", case.old.as_str(), case.to.as_str()];
        let lock = case.killed(&[&update]);
        let attributes = "line.txt text eol=crlf\ngone.txt filter=dies\n";
        fs::write(root.join(".git/info/attributes"), attributes).unwrap();
        case.scratch.git(["config", "filter.dies.smudge", "kill -9 $PPID"]);
        let killed = repo.end_left_steps(Duration::ZERO).unwrap_err();
        assert!(matches!(killed, GitError::Killed { .. }), "{killed}");
        assert!(lock.is_ours().unwrap() && lock.has_copy() && repo.has_base_step());
        case.scratch.git(["config", "filter.dies.smudge", "cat"]);
        // As git leaves what it was writing; and what a person shortens later.
        fs::write(root.join("gone.txt"), "old").unwrap();
        fs::write(root.join("line.txt"), "").unwrap();
        let shortened = fs::File::create(root.join("mode.txt")).unwrap();
        let later = shortened.metadata().unwrap().modified().unwrap() + PART_AGE_MAX * 2;
        shortened.set_modified(later).unwrap();
        repo.end_left_steps(Duration::ZERO).unwrap();
        assert!(!lock.lock.exists());
        assert_eq!(case.scratch.git(["status", "--porcelain"]), " M mode.txt");
        let Follow::Refused { .. } = case.follow(&case.to).unwrap() else { panic!() };
        fs::write(root.join("mode.txt"), "old and long\n").unwrap();
        assert_eq!(case.follow(&case.to).unwrap(), Follow::Followed);
        assert!(
            fs::read_dir(repo.gates_dir())
                .unwrap()
                .all(|left| { !left.unwrap().file_name().to_string_lossy().contains(NOTE) })
        );
    }

    #[test]
    fn an_index_that_somebody_unlocked_is_brought_forward_whatever_was_killed_meanwhile() {
        for done in 0..3 {
            let case = Case::new();
            let update = ["read-tree", "-m", "-u", case.old.as_str(), case.to.as_str()];
            let moved = ["update-ref", "HEAD", case.to.as_str()];
            let lock = case.killed(&[&update, &moved]);
            fs::write(&lock.lock, "another\n").unwrap();
            case.scratch.repo.end_left_steps(Duration::ZERO).unwrap_err();
            fs::remove_file(&lock.lock).unwrap();
            fs::write(case.scratch.root.join("staged.txt"), "mine").unwrap();
            case.scratch.git(["add", "staged.txt"]);
            if done > 0 {
                lock.retake().unwrap();
            }
            if done > 1 {
                lock.copy_again().unwrap();
                fs::write(lock.copy.with_extension("index.lock"), "").unwrap();
            }
            case.scratch.repo.end_left_steps(Duration::ZERO).unwrap();
            assert_eq!(case.scratch.git(["status", "--porcelain"]), "A  staged.txt", "{done}");
            assert!(!lock.lock.exists() && !lock.copy.exists());
        }
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
