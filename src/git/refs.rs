//! Refs: read, compare and swap, keep what is not landed, and ask about commits.

use std::ffi::OsStr;
use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::path::PathBuf;
use std::thread;
use std::time::Duration;

use walkdir::WalkDir;

use super::call::{Call, Reply};
use super::error::GitError;
use super::gate::Gate;
use super::oid::Oid;
use super::repo::Repo;
use crate::sys::fail;

/// Where work that did not land is kept.
pub(super) const SALVAGE: &str = "refs/pipeline/salvage/";

/// How often a list of worktrees is asked for again that one in the making keeps git from, and how
/// long is waited in between.
const HALF_MADE_TRIES: u32 = 120;
const HALF_MADE_PAUSE: Duration = Duration::from_millis(10);

/// How a compare-and-swap ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Cas {
    /// The ref stands at the new value, by this call or by an earlier one.
    Done,
    /// Somebody moved it: what was found; `None` when it does not exist.
    Moved(Option<Oid>),
}

/// One checkout of the repository: the main one, a linked worktree, or a slot of ours.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Checkout {
    /// Its folder.
    pub path: PathBuf,
    /// The branch it is on, by full name; `None` when detached.
    pub branch: Option<String>,
    /// The commit it stands at; `None`: none yet.
    pub head: Option<Oid>,
    /// Whether git says that the folder is gone.
    pub is_gone: bool,
}

impl Repo {
    /// Reads a ref by its full name; `None` when it does not exist.
    ///
    /// # Errors
    /// When git fails, or calls the ref broken.
    pub fn read_ref(&self, full: &str) -> Result<Option<Oid>, GitError> {
        let call = Call::read("git.read_ref", &self.root).args([
            "for-each-ref",
            "--format=%(objectname) %(refname)",
            "--",
            full,
        ]);
        let reply = self.git.ok(call)?;
        // A broken ref is left out with a warning; it must not read as one that may be created.
        if reply.stderr.lines().any(|line| line.ends_with(full)) {
            return Err(reply.failure(&self.root));
        }
        let refs = named_refs(&reply)?;
        Ok(refs.into_iter().find(|(name, _)| name == full).map(|(_, oid)| oid))
    }

    /// Returns every ref whose full name begins with `prefix` (which ends in `/`), sorted by name.
    ///
    /// # Errors
    /// When git fails.
    pub fn list_refs(&self, prefix: &str) -> Result<Vec<(String, Oid)>, GitError> {
        let call = Call::read("git.list_refs", &self.root).args([
            "for-each-ref",
            "--format=%(objectname) %(refname)",
            "--",
            prefix,
        ]);
        named_refs(&self.git.ok(call)?)
    }

    /// Moves a ref from `old` to `new`, or does nothing at all.
    ///
    /// `old` of `None`: it must not exist; `new` of `None`: it is removed. A stale lock is removed
    /// for refs of ours only.
    ///
    /// # Errors
    /// When git fails for another reason than a moved ref: a lock, a full disk, an unknown commit.
    pub fn cas_ref(
        &self,
        full: &str,
        new: Option<&Oid>,
        old: Option<&Oid>,
    ) -> Result<Cas, GitError> {
        let gate = self.refs_gate()?;
        self.cas_ref_by(&gate, full, new, old)
    }

    pub(super) fn cas_ref_by(
        &self,
        gate: &Gate<'_>,
        full: &str,
        new: Option<&Oid>,
        old: Option<&Oid>,
    ) -> Result<Cas, GitError> {
        if new.is_none() && old.is_none() {
            let found = self.read_ref(full)?;
            return Ok(if found.is_none() { Cas::Done } else { Cas::Moved(found) });
        }
        let zero = self.format.zero();
        let expected = old.unwrap_or(&zero);
        let mut is_unlocked = false;
        loop {
            let call = Call::write("git.update_ref", &self.root).args(["update-ref", "--no-deref"]);
            let call = match new {
                Some(new) => call.args(["--", full, new.as_str(), expected.as_str()]),
                None => call.args(["-d", "--", full, expected.as_str()]),
            };
            let failure = match self.git.ok(call.gate(gate)) {
                Ok(_) => return Ok(Cas::Done),
                Err(failure) => failure,
            };
            let found = self.read_ref(full)?;
            if found.as_ref() == new {
                return Ok(Cas::Done);
            }
            if found.as_ref() != old {
                return Ok(Cas::Moved(found));
            }
            // Git itself has waited 100 ms for the lock, and no git of ours is at work here.
            if is_unlocked || !self.remove_stale_ref_lock(full)? {
                return Err(failure);
            }
            is_unlocked = true;
        }
    }

    /// Sets a ref of ours to `new`, whatever it was.
    pub(super) fn set_own_ref(&self, full: &str, new: &Oid) -> Result<(), GitError> {
        own(full)?;
        let gate = self.refs_gate()?;
        let mut found = None;
        // Only the gate's holder moves our refs; one more round is for an agent that meddles.
        for _ in 0..3 {
            match self.cas_ref_by(&gate, full, Some(new), found.as_ref())? {
                Cas::Done => return Ok(()),
                Cas::Moved(other) => found = other,
            }
        }
        Err(GitError::answer("git update-ref", full.as_bytes()))
    }

    /// Keeps `oid` under the ref of ours `full`; an earlier, different value of it is kept too,
    /// under `<full>.<its first digits>`.
    pub(super) fn keep_at(&self, full: &str, oid: &Oid) -> Result<(), GitError> {
        own(full)?;
        match self.cas_ref(full, Some(oid), None)? {
            Cas::Done => Ok(()),
            Cas::Moved(None) => self.set_own_ref(full, oid),
            Cas::Moved(Some(earlier)) => {
                self.set_own_ref(&format!("{full}.{}", earlier.short()), &earlier)?;
                self.set_own_ref(full, oid)
            }
        }
    }

    /// Moves a ref of ours to `refs/pipeline/salvage/<name>` and returns that name; `None` when it
    /// does not exist (any more).
    ///
    /// # Errors
    /// [`GitError::ForeignRef`]; git's failures.
    pub fn move_to_salvage(&self, full: &str, name: &str) -> Result<Option<String>, GitError> {
        own(full)?;
        let salvage = format!("{SALVAGE}{name}");
        for _ in 0..3 {
            let Some(found) = self.read_ref(full)? else { break };
            self.keep_at(&salvage, &found)?;
            match self.cas_ref(full, None, Some(&found))? {
                Cas::Done => return Ok(Some(salvage)),
                Cas::Moved(_) => {}
            }
        }
        Ok(None)
    }

    /// Returns all that is kept in salvage, sorted by name.
    ///
    /// # Errors
    /// When git fails.
    pub fn list_salvage(&self) -> Result<Vec<(String, Oid)>, GitError> {
        self.list_refs(SALVAGE)
    }

    /// Removes locks that a dead git left on refs of ours; returns them. For the start of a monitor.
    ///
    /// # Errors
    /// [`GitError::Busy`] while a git of ours is at work; files that cannot be removed.
    pub fn clear_stale_ref_locks(&self) -> Result<Vec<PathBuf>, GitError> {
        if self.ref_locks().is_empty() {
            return Ok(Vec::new());
        }
        // A fast-forward in a checkout of the landing branch locks that ref too.
        let _step = self.base_gate()?;
        let _gate = self.refs_gate()?;
        let found = self.ref_locks();
        for path in &found {
            remove_lock(path.clone())?;
        }
        Ok(found)
    }

    /// Returns the lock files on refs of ours.
    pub(super) fn ref_locks(&self) -> Vec<PathBuf> {
        let roots = ["refs/heads/pipeline", "refs/pipeline"].map(|dir| self.common.join(dir));
        let entries = roots.iter().flat_map(|root| WalkDir::new(root).into_iter());
        let files = entries.filter_map(Result::ok).map(walkdir::DirEntry::into_path);
        files.filter(|path| path.extension() == Some(OsStr::new("lock"))).collect()
    }

    fn remove_stale_ref_lock(&self, full: &str) -> Result<bool, GitError> {
        let path = self.ref_lock(full);
        if own(full).is_err() || !path.exists() {
            return Ok(false);
        }
        remove_lock(path)?;
        Ok(true)
    }

    /// Returns the file by which git locks a ref.
    pub(super) fn ref_lock(&self, full: &str) -> PathBuf {
        self.common.join(format!("{full}.lock"))
    }

    /// Returns whether `ancestor` is reachable from `commit`; a commit is its own ancestor.
    ///
    /// # Errors
    /// When one of them does not exist.
    pub fn is_ancestor(&self, ancestor: &Oid, commit: &Oid) -> Result<bool, GitError> {
        if ancestor == commit {
            return Ok(true);
        }
        let args = ["merge-base", "--is-ancestor", ancestor.as_str(), commit.as_str()];
        let reply = self.git.run(Call::read("git.is_ancestor", &self.root).args(args))?;
        match reply.code {
            0 => Ok(true),
            1 => Ok(false),
            _ => Err(reply.failure(&self.root)),
        }
    }

    /// Returns the tree of a commit.
    ///
    /// # Errors
    /// When it does not exist.
    pub fn tree_of(&self, commit: &Oid) -> Result<Oid, GitError> {
        let name = format!("{commit}^{{tree}}");
        let args = ["rev-parse", "--verify", "--end-of-options", name.as_str()];
        one_oid(&self.git.ok(Call::read("git.tree_of", &self.root).args(args))?)
    }

    /// Returns the paths that differ between two commits or trees, in git's order; renames are two
    /// paths, and bytes that are not UTF-8 are replaced.
    ///
    /// # Errors
    /// When one of them does not exist.
    pub fn changed_paths(&self, from: &Oid, to: &Oid) -> Result<Vec<String>, GitError> {
        if from == to {
            return Ok(Vec::new());
        }
        let call = Call::read("git.changed_paths", &self.root)
            .args(["diff-tree", "-r", "-z", "--no-renames", "--name-only"])
            .args([from.as_str(), to.as_str()]);
        Ok(self.git.ok(call)?.texts())
    }

    /// Returns the paths that `branch` changed since it left `onto`, or last took it in; as in
    /// [`Repo::changed_paths`]. Cost: the commits that `onto` has had since, and what differs.
    ///
    /// # Errors
    /// When a commit does not exist, or there is not one such place but several, or none.
    pub fn branch_paths(&self, onto: &Oid, branch: &Oid) -> Result<Vec<String>, GitError> {
        let call = Call::read("git.branch_paths", &self.root)
            .args(["diff-tree", "-r", "-z", "--no-renames", "--name-only", "--merge-base"])
            .args([onto.as_str(), branch.as_str()]);
        Ok(self.git.ok(call)?.texts())
    }

    /// Returns those of `oids` that are not commits in this repository; nothing is fetched.
    ///
    /// # Errors
    /// When git fails.
    pub fn missing_commits(&self, oids: &[Oid]) -> Result<Vec<Oid>, GitError> {
        let input: String = oids.iter().map(|oid| format!("{oid}\n")).collect();
        let call = Call::read("git.missing_commits", &self.root)
            .args(["cat-file", "--batch-check=%(objecttype)"])
            .env("GIT_NO_LAZY_FETCH", "1")
            .bytes(input.as_bytes());
        let reply = self.git.ok(call)?;
        let lines: Vec<&[u8]> = reply.stdout.split(|byte| *byte == b'\n').collect();
        if lines.len() != oids.len() + 1 {
            return Err(GitError::answer(&reply.call, &reply.stdout));
        }
        let missing = oids.iter().zip(lines).filter(|(_, line)| *line != b"commit");
        Ok(missing.map(|(oid, _)| oid.clone()).collect())
    }

    /// Returns every checkout, the main one first.
    ///
    /// # Errors
    /// When git fails.
    pub fn checkouts(&self) -> Result<Vec<Checkout>, GitError> {
        self.checkouts_after(|| self.clear_cut_off(&self.registry_gate()?))
    }

    /// Returns them likewise; `clear` is called where one stays half made.
    pub(super) fn checkouts_after(
        &self,
        clear: impl Fn() -> Result<(), GitError>,
    ) -> Result<Vec<Checkout>, GitError> {
        let list = || {
            let args = ["worktree", "list", "--porcelain", "-z"];
            self.git.ok(Call::read("git.checkouts", &self.root).args(args))
        };
        let mut tries = HALF_MADE_TRIES;
        let reply = loop {
            match list() {
                // While somebody makes a worktree, git reads a file of it that is still empty.
                Err(GitError::Failed { stderr, .. })
                    if tries > 0 && stderr.0.contains("/commondir: Success") =>
                {
                    tries -= 1;
                    thread::sleep(HALF_MADE_PAUSE);
                    if tries == 0 {
                        clear()?;
                    }
                }
                reply => break reply?,
            }
        };
        let mut checkouts: Vec<Checkout> = Vec::new();
        for field in reply.fields() {
            if let Some(path) = field.strip_prefix(b"worktree ") {
                // Of a git folder that lies elsewhere git names that in place of the main checkout.
                let path = match checkouts.as_slice() {
                    [] => self.root.clone(),
                    [..] => PathBuf::from(OsStr::from_bytes(path)),
                };
                checkouts.push(Checkout { path, branch: None, head: None, is_gone: false });
                continue;
            }
            let Some(last) = checkouts.last_mut() else {
                return Err(GitError::answer(&reply.call, field));
            };
            if let Some(branch) = field.strip_prefix(b"branch ") {
                last.branch = Some(String::from_utf8_lossy(branch).into_owned());
            } else if let Some(head) = field.strip_prefix(b"HEAD ") {
                last.head = std::str::from_utf8(head).ok().and_then(|head| head.parse().ok());
            } else if field.starts_with(b"prunable") {
                last.is_gone = true;
            }
        }
        Ok(checkouts)
    }

    /// Returns the checkouts that are on `branch` (full name).
    ///
    /// # Errors
    /// When git fails.
    pub fn checkouts_of(&self, branch: &str) -> Result<Vec<Checkout>, GitError> {
        let is_on = |it: &Checkout| it.branch.as_deref() == Some(branch);
        Ok(self.checkouts()?.into_iter().filter(is_on).collect())
    }
}

/// Refuses names outside our part of the refs.
fn own(full: &str) -> Result<(), GitError> {
    let is_below = full.starts_with("refs/heads/pipeline/") || full.starts_with("refs/pipeline/");
    let is_plain = full.split('/').all(|part| !part.is_empty() && !part.starts_with('.'));
    if is_below && is_plain { Ok(()) } else { Err(GitError::ForeignRef { name: full.into() }) }
}

fn remove_lock(path: PathBuf) -> Result<(), GitError> {
    let removed = fail::point("git.remove_lock").and_then(|()| fs::remove_file(&path));
    match removed {
        Err(source) if source.kind() != std::io::ErrorKind::NotFound => {
            Err(GitError::File { doing: "remove", path, source })
        }
        Ok(()) | Err(_) => Ok(()),
    }
}

/// Reads an answer that is one object id.
pub(super) fn one_oid(reply: &Reply) -> Result<Oid, GitError> {
    reply.line().parse().map_err(|error| GitError::bad_oid(&reply.call, error))
}

pub(super) fn named_refs(reply: &Reply) -> Result<Vec<(String, Oid)>, GitError> {
    let text = String::from_utf8_lossy(&reply.stdout);
    let parse = |line: &str| {
        let (oid, name) = line.split_once(' ')?;
        Some((name.to_owned(), oid.parse().ok()?))
    };
    let read =
        |line| parse(line).ok_or_else(|| GitError::answer(&reply.call, reply.stdout.as_slice()));
    text.lines().map(read).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::git::scratch::Scratch;
    use crate::git::{MergeRequest, Merged, SlotRequest};

    const REF: &str = "refs/heads/pipeline/task/T-1";

    #[test]
    fn a_worktree_add_that_died_stops_no_other_git() {
        let scratch = Scratch::new();
        let repo = &scratch.repo;
        let admin = scratch.root.join(".git/worktrees/9");
        let half = |lock: &str| {
            std::fs::create_dir_all(&admin).unwrap();
            let gitdir = scratch.dir.path().join("9/.git");
            let files = [("gitdir", gitdir.to_str().unwrap()), ("commondir", ""), ("locked", lock)];
            files.iter().for_each(|(name, text)| std::fs::write(admin.join(name), text).unwrap());
        };
        // Of a git that lives it is open, and what a person locked is not being made.
        half("initializing");
        let open = std::fs::File::open(admin.join("commondir")).unwrap();
        let _ = repo.checkouts();
        assert!(admin.exists());
        drop(open);
        half("on a stick");
        let _ = repo.checkouts();
        assert!(admin.exists());

        half("initializing");
        assert_eq!(repo.checkouts().unwrap().len(), 1);
        assert!(!admin.exists());
        half("initializing");
        let file = std::fs::File::options().append(true).open(admin.join("commondir")).unwrap();
        let made = file.metadata().unwrap().modified().unwrap();
        file.set_modified(made - Duration::from_secs(60)).unwrap();
        drop(file);
        let (slot, at) = (scratch.dir.path().join("slots/1"), scratch.rev("HEAD"));
        let request = SlotRequest { path: &slot, at: &at, keep: &[], merge: None, is_ready: false };
        repo.prepare_slot(&request).unwrap();
        assert!(!admin.exists());
    }

    #[test]
    fn cas_creates_moves_and_removes_only_from_the_expected_value() {
        let scratch = Scratch::new();
        let repo = &scratch.repo;
        let one = scratch.rev("HEAD");
        let two = scratch.commit_on(&one, "b", "b");
        assert_eq!(repo.read_ref(REF).unwrap(), None);
        assert_eq!(repo.cas_ref(REF, Some(&one), Some(&two)).unwrap(), Cas::Moved(None));
        for _ in 0..2 {
            assert_eq!(repo.cas_ref(REF, Some(&one), None).unwrap(), Cas::Done);
        }
        assert_eq!(repo.cas_ref(REF, Some(&two), None).unwrap(), Cas::Moved(Some(one.clone())));
        for _ in 0..2 {
            assert_eq!(repo.cas_ref(REF, Some(&two), Some(&one)).unwrap(), Cas::Done);
        }
        assert_eq!(repo.cas_ref(REF, None, Some(&one)).unwrap(), Cas::Moved(Some(two.clone())));
        assert_eq!(repo.cas_ref(REF, None, None).unwrap(), Cas::Moved(Some(two.clone())));
        for _ in 0..2 {
            assert_eq!(repo.cas_ref(REF, None, Some(&two)).unwrap(), Cas::Done);
        }
        assert_eq!(repo.read_ref(REF).unwrap(), None);
    }

    #[test]
    fn a_ref_is_not_found_by_a_longer_name() {
        let scratch = Scratch::new();
        let one = scratch.rev("HEAD");
        scratch.repo.cas_ref("refs/heads/pipeline/task/T/x", Some(&one), None).unwrap();
        assert_eq!(scratch.repo.read_ref("refs/heads/pipeline/task/T").unwrap(), None);
        let listed = scratch.repo.list_refs("refs/heads/pipeline/").unwrap();
        assert_eq!(listed, [("refs/heads/pipeline/task/T/x".to_owned(), one)]);
    }

    #[test]
    fn a_stale_lock_is_removed_on_our_refs_only() {
        let scratch = Scratch::new();
        let repo = &scratch.repo;
        let one = scratch.rev("HEAD");
        let lock = |full: &str| {
            let path = repo.ref_lock(full);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(&path, "").unwrap();
            path
        };
        let ours = lock(REF);
        assert_eq!(repo.cas_ref(REF, Some(&one), None).unwrap(), Cas::Done);
        assert!(!ours.exists());
        let theirs = lock("refs/heads/other");
        let refused = repo.cas_ref("refs/heads/other", Some(&one), None);
        assert!(matches!(refused, Err(GitError::Failed { .. })));
        assert!(theirs.exists());
        let ours = lock("refs/pipeline/salvage/x");
        assert_eq!(repo.clear_stale_ref_locks().unwrap(), [ours]);
        assert!(theirs.exists());
    }

    #[test]
    fn a_broken_ref_is_an_error_not_an_absence() {
        let scratch = Scratch::new();
        let one = scratch.rev("HEAD");
        scratch.repo.cas_ref(REF, Some(&one), None).unwrap();
        fs::write(scratch.root.join(".git").join(REF), "").unwrap();
        assert!(matches!(scratch.repo.read_ref(REF), Err(GitError::Failed { .. })));
    }

    #[test]
    fn salvage_keeps_every_value_and_frees_the_ref() {
        let scratch = Scratch::new();
        let repo = &scratch.repo;
        let one = scratch.rev("HEAD");
        let two = scratch.commit_on(&one, "b", "b");
        for oid in [&one, &two] {
            repo.cas_ref(REF, Some(oid), None).unwrap();
            let name = repo.move_to_salvage(REF, "T-1").unwrap();
            assert_eq!(name.as_deref(), Some("refs/pipeline/salvage/T-1"));
            assert_eq!(repo.move_to_salvage(REF, "T-1").unwrap(), None);
        }
        let kept: Vec<Oid> = repo.list_salvage().unwrap().into_iter().map(|it| it.1).collect();
        assert_eq!(kept, [two, one]);
        let foreign = repo.move_to_salvage("refs/heads/main", "x");
        assert!(matches!(foreign, Err(GitError::ForeignRef { .. })));
    }

    #[test]
    fn commits_are_compared_and_checked() {
        let scratch = Scratch::new();
        let repo = &scratch.repo;
        let one = scratch.rev("HEAD");
        let two = scratch.commit_on(&one, "ü \n.txt", "b");
        assert!(repo.is_ancestor(&one, &two).unwrap());
        assert!(!repo.is_ancestor(&two, &one).unwrap());
        assert_eq!(repo.changed_paths(&one, &two).unwrap(), ["ü \n.txt"]);
        let tree = repo.tree_of(&two).unwrap();
        let none: Oid = "1".repeat(40).parse().unwrap();
        let missing = repo.missing_commits(&[one, none.clone(), two, tree.clone()]).unwrap();
        assert_eq!(missing, [none, tree]);
        assert!(repo.missing_commits(&[]).unwrap().is_empty());
    }

    #[test]
    fn a_branch_is_told_by_what_it_changed_itself() {
        let scratch = Scratch::new();
        let repo = &scratch.repo;
        let start = scratch.rev("HEAD");
        let branch = scratch.commit_on(&scratch.commit_on(&start, "a b", "1"), "dir/c", "1");
        let landed = scratch.commit_on(&start, "others", "1");
        assert_eq!(repo.branch_paths(&start, &branch).unwrap(), ["a b", "dir/c"]);
        assert_eq!(repo.branch_paths(&landed, &branch).unwrap(), ["a b", "dir/c"]);
        assert!(repo.branch_paths(&landed, &landed).unwrap().is_empty());
        // The branch took the landing branch in, as after a conflict; what that brought is not its own.
        let (message, pin) = ("x", None);
        let request = MergeRequest { ours: &branch, theirs: &landed, message, date_s: 1, pin };
        let Merged::Made { commit, .. } = repo.merge(&request).unwrap() else { panic!("a commit") };
        let later = scratch.commit_on(&landed, "others", "2");
        assert_eq!(repo.branch_paths(&later, &commit).unwrap(), ["a b", "dir/c"]);
    }

    #[test]
    fn many_threads_move_refs_at_once() {
        let scratch = Scratch::new();
        let one = scratch.rev("HEAD");
        std::thread::scope(|scope| {
            for index in 0..8 {
                let (repo, one) = (&scratch.repo, &one);
                scope.spawn(move || {
                    let name = format!("refs/heads/pipeline/task/T-{index}");
                    assert_eq!(repo.cas_ref(&name, Some(one), None).unwrap(), Cas::Done);
                });
            }
        });
        assert_eq!(scratch.repo.list_refs("refs/heads/pipeline/").unwrap().len(), 8);
    }

    #[test]
    fn one_of_many_threads_moves_a_ref() {
        let scratch = Scratch::new();
        let (repo, old) = (&scratch.repo, &scratch.rev("HEAD"));
        let commits = ["1", "2", "3", "4", "5", "6", "7", "8"];
        let commits = commits.map(|text| scratch.commit_on(old, "file", text));
        assert_eq!(repo.cas_ref(REF, Some(old), None).unwrap(), Cas::Done);
        let ends = std::thread::scope(|scope| {
            let swap = |new| scope.spawn(move || repo.cas_ref(REF, Some(new), Some(old)).unwrap());
            commits.each_ref().map(swap).map(|thread| thread.join().unwrap())
        });
        let done = ends.iter().position(|end| *end == Cas::Done).expect("one that moved it");
        for (at, end) in ends.iter().enumerate() {
            let moved = Cas::Moved(Some(commits[done].clone()));
            assert_eq!(*end, if at == done { Cas::Done } else { moved });
        }
        assert_eq!(repo.read_ref(REF).unwrap().as_ref(), Some(&commits[done]));
    }
}
