//! What an agent left behind in its slot, as one commit with trailers.
//!
//! Everything happens in an index of its own, so the slot stays as the agent left it and a repetition
//! gives the same commit: the same tree, the same parents, the date of the intent.

use std::fs::{self, File, FileTimes};
use std::io::{self, ErrorKind};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use super::call::{Call, Reply};
use super::error::GitError;
use super::gate::Gate;
use super::landing::Trees;
use super::modules::Lone;
use super::oid::Oid;
use super::refs::one_oid;
use super::repo::Repo;
use super::slot::{Found, remove_file, settle};
use super::whole::Entries;
use crate::sys::fail;

/// What to make of a slot.
#[derive(Debug, Clone)]
pub struct SnapshotRequest<'a> {
    /// The slot's folder, absolute.
    pub slot: &'a Path,
    /// The task branch when the attempt began.
    pub tip: &'a Oid,
    /// The commit whose merge the slot was prepared with: it becomes a parent.
    pub merge: Option<&'a Oid>,
    /// Files at the worktree's root or below that are never committed, even if the agent did: in the
    /// result they are as at `tip`. Paths with `/`, taken literally.
    pub exclude: &'a [String],
    /// The commit's message, with its trailers.
    pub message: &'a str,
    /// Date of author and committer, in seconds since 1970, from the intent.
    pub date_s: u64,
    /// A commit that the slot was prepared at: where nothing differs from it, it is the result itself.
    pub begun: Option<&'a Oid>,
    /// The ref of ours that keeps the result; an earlier, different value is kept beside it.
    pub pin: &'a str,
}

/// What was found in a slot.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Snapshot {
    /// The commit, always a descendant of `tip`; `None`: no file differs, no commit was made and no
    /// merge is owed.
    pub commit: Option<Oid>,
    /// Whether its tree differs from that of `tip`.
    pub tree_changed: bool,
    /// Files in which a conflict is left. Sorted.
    pub conflicts: Vec<String>,
    /// The agent's HEAD is no descendant of `tip` (reset, rebase, another branch), or its commits
    /// hold an excluded file or one of `modules`: the tree was put on top of `tip`, and the agent's own
    /// commits are kept at `<pin>.head`.
    pub head_moved_away: bool,
    /// The slot is not there, or no longer a worktree of ours: only what the agent committed could be
    /// taken.
    pub is_gone: bool,
    /// Repositories inside the slot, which cannot be committed; sorted.
    pub repositories: Vec<String>,
    /// Submodules that stand at a commit which nobody else could get: the result has them as they were
    /// before.
    pub modules: Vec<String>,
    /// What else could not be committed, in git's words.
    pub left_out: Vec<String>,
    /// Refs of ours that keep commits which the agent made and its HEAD went away from.
    pub kept: Vec<String>,
}

/// A slot's files as a tree.
pub(super) struct Taken {
    pub(super) tree: Oid,
    pub(super) repositories: Vec<String>,
    pub(super) modules: Vec<String>,
    pub(super) left_out: Vec<String>,
}

impl Repo {
    /// Commits what an agent left in its slot, and pins it; the slot itself is not touched. Ignored
    /// files are left out.
    ///
    /// # Errors
    /// When git fails, for instance on a full disk; nothing is pinned then.
    pub fn snapshot(&self, request: &SnapshotRequest<'_>) -> Result<Snapshot, GitError> {
        let slot = settle(request.slot)?;
        let gate = self.slot_gate(&slot)?;
        let admin = self.admin_of(&slot)?.unwrap_or_else(|| self.common.clone());
        let (tip_tree, head) = self.tree_and_head(&slot, &admin, request.tip)?;
        let on_tip = match &head {
            Some(head)
                if self.is_ancestor(request.tip, head)?
                    && !self.has_committed(request.tip, head, request.exclude)? =>
            {
                Some(head.clone())
            }
            Some(_) | None => None,
        };
        let mut head_moved_away = on_tip.is_none();
        let mut below = on_tip.unwrap_or_else(|| request.tip.clone());
        let mut taken = self.take_files(&gate, &slot, &admin, &below, request)?;
        if self.has_committed(request.tip, &below, &taken.modules)? {
            (head_moved_away, below) = (true, request.tip.clone());
        }
        let conflicts = self.conflicts_left(&slot, &admin, &taken.tree, request)?;
        if let Some(head) = &head
            && !self.is_ancestor(request.tip, head)?
        {
            self.carry_over(&mut taken, head, &tip_tree, request)?;
        }

        let mut parents = vec![below.clone()];
        if let Some(merge) = request.merge
            && !self.is_ancestor(merge, &below)?
        {
            parents.push(merge.clone());
        }
        let tree_changed = taken.tree != tip_tree;
        let is_new = tree_changed || below != *request.tip || parents.len() > 1;
        let mut snapshot = Snapshot {
            commit: None,
            tree_changed,
            conflicts,
            head_moved_away,
            is_gone: false,
            repositories: taken.repositories,
            modules: taken.modules,
            left_out: taken.left_out,
            kept: Vec::new(),
        };
        if let (true, Some(head)) = (head_moved_away, &head)
            && !self.is_ancestor(head, request.tip)?
            && self.is_ancestor(request.tip, head)?
        {
            self.keep_at(&format!("{}.head", request.pin), head)?;
        }
        if is_new {
            let begun = request.begun.filter(|begun| **begun == below && parents.len() == 1);
            let commit = match begun {
                Some(begun) if self.tree_of(begun)? == taken.tree => begun.clone(),
                Some(_) | None => {
                    self.commit_tree(&taken.tree, &parents, request.message, request.date_s)?
                }
            };
            self.keep_at(request.pin, &commit)?;
            snapshot.commit = Some(commit);
        }
        // Looked at last: one that went away meanwhile must not count as files deleted.
        snapshot.is_gone = self.is_foreign(&slot)? || !slot.join(".git").exists();
        let result = snapshot.commit.as_ref().unwrap_or(request.tip);
        let known: Vec<&Oid> = [request.tip].into_iter().chain(&head).collect();
        snapshot.kept = self.keep_left(&admin, result, &known, request.pin)?;
        Ok(snapshot)
    }

    /// Carries what was done on a HEAD elsewhere over to the tip, as a merge would: what the agent
    /// did not touch stays as the tip has it, so that going back in history takes nothing back. Its
    /// commits are kept at `<pin>.head`.
    ///
    /// Where the two conflict the tree is the tip's, and the agent's is kept there as well. Without
    /// history in common nothing tells what it did not touch: its files count as they are.
    fn carry_over(
        &self,
        taken: &mut Taken,
        head: &Oid,
        tip_tree: &Oid,
        request: &SnapshotRequest<'_>,
    ) -> Result<(), GitError> {
        let parents = std::slice::from_ref(head);
        let work = self.commit_tree(&taken.tree, parents, request.message, request.date_s)?;
        let mut kept = head;
        match self.merge_trees(request.tip, &work) {
            Ok(Trees::Clean(tree)) => taken.tree = tree,
            Ok(Trees::Conflict(_)) => {
                taken.left_out.push(format!("what it did on {head}, kept at {}.head", request.pin));
                taken.tree = tip_tree.clone();
                kept = &work;
            }
            Err(GitError::Failed { .. }) => {}
            Err(error) => return Err(error),
        }
        if !self.is_ancestor(kept, request.tip)? {
            self.keep_at(&format!("{}.head", request.pin), kept)?;
        }
        Ok(())
    }

    /// Returns whether one of the commits from `tip` to `head` holds a file that is to be in none.
    fn has_committed(&self, tip: &Oid, head: &Oid, files: &[String]) -> Result<bool, GitError> {
        if tip == head || files.is_empty() {
            return Ok(false);
        }
        let call = Call::read("git.committed", &self.root)
            .args(["rev-list", "-n1", "--full-history", head.as_str()])
            .args([format!("^{tip}"), "--".to_owned()])
            .args(files.iter().map(|path| format!(":(top,literal){path}")));
        Ok(!self.git.ok(call)?.line().is_empty())
    }

    /// Returns the tree of `tip`, and where the agent's HEAD is: `None` when it has none, or the slot
    /// is no worktree any more.
    fn tree_and_head(
        &self,
        slot: &Path,
        admin: &Path,
        tip: &Oid,
    ) -> Result<(Oid, Option<Oid>), GitError> {
        if admin == self.common {
            return Ok((self.tree_of(tip)?, None));
        }
        let dir = if slot.is_dir() { slot } else { self.root.as_path() };
        let tree = format!("{tip}^{{tree}}");
        let args = ["rev-parse", tree.as_str(), "HEAD^{commit}"];
        let call = self.in_slot(Call::read("git.slot_head", dir), slot, admin).args(args);
        // Without a HEAD git prints the tree alone, and fails.
        let reply = self.git.run(call)?;
        let mut oids = reply.line().lines().map(str::parse).collect::<Vec<_>>().into_iter();
        match (oids.next(), oids.next()) {
            (Some(Ok(tree)), Some(Ok(head))) if reply.code == 0 => Ok((tree, Some(head))),
            _ => Ok((self.tree_of(tip)?, None)),
        }
    }

    /// Writes the slot's files as a tree, through an index of its own.
    pub(super) fn take_files(
        &self,
        gate: &Gate<'_>,
        slot: &Path,
        admin: &Path,
        below: &Oid,
        request: &SnapshotRequest<'_>,
    ) -> Result<Taken, GitError> {
        if !slot.is_dir() || self.is_foreign(slot)? {
            let tree = self.tree_of(below)?;
            let (repositories, modules, left_out) = (Vec::new(), Vec::new(), Vec::new());
            return Ok(Taken { tree, repositories, modules, left_out });
        }
        let (index, is_copied) = self.own_index(slot, admin)?;
        let call = |point| {
            self.in_slot(Call::write(point, slot), slot, admin).env("GIT_INDEX_FILE", &index)
        };
        // Git refuses paths behind a link, and nothing behind one can get into the tree.
        let exclude: Vec<&String> =
            request.exclude.iter().filter(|path| !is_behind_link(slot, Path::new(path))).collect();
        let except = exclude.iter().map(|path| format!(":(top,exclude,literal){path}"));
        let args = ["add", "-A", "--ignore-errors", "--", ":(top)"];
        let add = || {
            let except = except.clone();
            self.git.run(call("git.add").args(args).args(except).gate(gate))
        };
        // Without an index, tracked files that are ignored would read as removed.
        let read_anew = || {
            remove_file(&index)?;
            let args = ["read-tree", below.as_str()];
            self.git.ok(call("git.read_tree").args(args).gate(gate))
        };
        if !is_copied {
            read_anew()?;
        } else if Entries::read(&index, request.tip.as_str().len())?.has_flags {
            self.unflag(gate, slot, admin, &index)?;
        }
        let mut added = add()?;
        if added.code == 128 {
            // A broken index, which the next prepare repairs: read every file anew.
            read_anew()?;
            added = add()?;
        }
        if added.stderr.contains("Permission denied") && make_readable(slot) {
            added = add()?;
        }
        let Left { mut embedded, mut messages } = Left::of(added, slot)?;
        embedded.extend(self.embedded(gate, (slot, admin, &index), request.tip)?);
        embedded.sort();
        embedded.dedup();
        messages.retain(|text| !embedded.iter().any(|path| text.contains(&format!("'{path}/'"))));
        // Whatever the agent staged or committed of these, they are in the result as at the tip.
        let paths = exclude.into_iter().chain(&embedded);
        let paths: Vec<String> = paths.map(|path| format!(":(top,literal){path}")).collect();
        if !paths.is_empty() {
            let args = ["reset", "-q", "--no-refresh", request.tip.as_str(), "--"];
            self.git.ok(call("git.reset_paths").args(args).args(&paths).gate(gate))?;
        }
        let lone = self.lone_modules((slot, admin, &index), request)?;
        self.put_modules_back(gate, (slot, admin, &index), &lone)?;
        let tree = one_oid(&self.git.ok(call("git.write_tree").args(["write-tree"]).gate(gate))?)?;
        remove_file(&index)?;
        let modules = lone.iter().map(Lone::name).collect();
        Ok(Taken { tree, repositories: embedded, modules, left_out: messages })
    }

    /// Returns whether something else stands in the slot's place, or a link: that is not the agent's work.
    fn is_foreign(&self, slot: &Path) -> Result<bool, GitError> {
        Ok(matches!(self.find_slot(slot)?, Found::Foreign(_)))
    }

    /// Makes a copy of the slot's index, which knows the times of its files; a stale one is replaced.
    /// Returns its path, and whether there was something to copy.
    fn own_index(&self, slot: &Path, admin: &Path) -> Result<(PathBuf, bool), GitError> {
        let place = if admin == self.common { self.gates_dir() } else { admin.to_owned() };
        let index = place.join("pipeline-index");
        remove_file(&index)?;
        remove_file(&place.join("pipeline-index.lock"))?;
        let file =
            |source| GitError::File { doing: "copy the index of", path: slot.into(), source };
        let from = admin.join("index");
        let is_copied = admin != self.common && copy_with_time(&from, &index).map_err(file)?;
        Ok((index, is_copied))
    }
}

/// Returns whether one of the folders on the way from `slot` to `path` is a symbolic link.
pub(super) fn is_behind_link(slot: &Path, path: &Path) -> bool {
    let folders = path.ancestors().skip(1);
    folders
        .filter(|folder| !folder.as_os_str().is_empty())
        .any(|folder| fs::symlink_metadata(slot.join(folder)).is_ok_and(|meta| meta.is_symlink()))
}

/// What `git add` passed over.
struct Left {
    embedded: Vec<String>,
    messages: Vec<String>,
}

impl Left {
    /// Reads git's messages; an error of another kind than those passed over here is a failure, so
    /// that a full disk never looks like an agent that wrote nothing.
    fn of(added: Reply, slot: &Path) -> Result<Self, GitError> {
        let (mut embedded, mut messages) = (Vec::new(), Vec::new());
        let mut is_known = added.code <= 1;
        for line in added.stderr.lines() {
            if let Some(path) = line.strip_prefix("warning: adding embedded git repository: ") {
                embedded.push(path.trim_end_matches('/').to_owned());
            } else if let Some(path) = line
                .strip_prefix("error: '")
                .and_then(|rest| rest.strip_suffix("/' does not have a commit checked out"))
            {
                embedded.push(path.to_owned());
            } else if let Some(error) = line.strip_prefix("error: ") {
                let is_passed = error.ends_with("Permission denied")
                    || error.starts_with("unable to index file");
                is_known &= is_passed;
                messages.push(error.to_owned());
            } else if line.starts_with("fatal: ") {
                is_known = false;
            }
        }
        if is_known { Ok(Self { embedded, messages }) } else { Err(added.failure(slot)) }
    }
}

/// Lets the owner read all below `dir` but what is git's, as a commit knows nothing of that; returns
/// whether something was changed.
fn make_readable(dir: &Path) -> bool {
    let mut has_changed = false;
    for entry in fs::read_dir(dir).into_iter().flatten().flatten() {
        let Ok(meta) = entry.metadata() else { continue };
        let mode = meta.permissions().mode();
        let wanted = if meta.is_dir() { 0o700 } else { 0o400 };
        if meta.is_symlink() || entry.file_name() == ".git" {
            continue;
        }
        if mode & wanted != wanted {
            let opened = fs::Permissions::from_mode(mode | wanted);
            // One of another user stays as it is, and git says so.
            has_changed |= fs::set_permissions(entry.path(), opened).is_ok();
        }
        has_changed |= meta.is_dir() && make_readable(&entry.path());
    }
    has_changed
}

/// Copies an index with its modification time: git takes entries as old as the index itself for
/// possibly stale, and a younger copy would hide that. `false` when there is none.
fn copy_with_time(from: &Path, to: &Path) -> io::Result<bool> {
    fail::point("git.copy_index")?;
    let modified = match fs::metadata(from) {
        Ok(meta) => meta.modified()?,
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(false),
        Err(error) => return Err(error),
    };
    fs::copy(from, to)?;
    File::options().write(true).open(to)?.set_times(FileTimes::new().set_modified(modified))?;
    Ok(true)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::git::SlotRequest;
    use crate::git::scratch::Scratch;
    use crate::git::slot::registered;

    const PIN: &str = "refs/pipeline/salvage/T-1.impl.1";
    const MESSAGE: &str = "T-1: impl\n\nPipeline-Task: T-1\nPipeline-Attempt: T-1.impl.1";

    struct Case {
        scratch: Scratch,
        slot: PathBuf,
        tip: Oid,
        merge: Option<Oid>,
    }

    impl Case {
        fn new() -> Self {
            let scratch = Scratch::new();
            let tip = scratch.commit_on(&scratch.rev("HEAD"), ".gitignore", "ignored\n*.log\n");
            let tip = scratch.commit_on(&tip, "tracked.log", "tracked although ignored");
            Self::at(scratch, tip, None)
        }

        fn at(scratch: Scratch, tip: Oid, merge: Option<Oid>) -> Self {
            let slot = scratch.root.join(".pipeline/worktrees/impl/1");
            let (keep, theirs) = (&[][..], merge.as_ref());
            let (path, at) = (&slot, &tip);
            let request = SlotRequest { path, at, keep, merge: theirs, is_ready: false };
            scratch.repo.prepare_slot(&request).unwrap();
            fs::write(slot.join("TASK-1.md"), "task").unwrap();
            Self { scratch, slot, tip, merge }
        }

        fn request<'a>(&'a self, exclude: &'a [String]) -> SnapshotRequest<'a> {
            SnapshotRequest {
                slot: &self.slot,
                tip: &self.tip,
                merge: self.merge.as_ref(),
                exclude,
                message: MESSAGE,
                date_s: 1_700_000_000,
                begun: None,
                pin: PIN,
            }
        }

        /// Takes the snapshot twice: the second one must find the same.
        fn take(&self) -> Snapshot {
            let exclude = ["TASK-1.md".to_owned()];
            let request = self.request(&exclude);
            let repo = &self.scratch.repo;
            let status = || self.git(&["status", "--porcelain=v2", "--branch"]);
            let before = self.slot.join(".git").is_file().then(status);
            let snapshot = repo.snapshot(&request).unwrap();
            assert_eq!(repo.snapshot(&request).unwrap(), snapshot);
            assert_eq!(repo.read_ref(PIN).unwrap(), snapshot.commit);
            assert_eq!(self.slot.join(".git").is_file().then(status), before);
            if let Some(commit) = &snapshot.commit {
                assert!(repo.is_ancestor(&self.tip, commit).unwrap());
                assert_eq!(self.scratch.text_at(commit, "TASK-1.md"), None);
                let format = "--format=%(trailers:key=Pipeline-Attempt,valueonly)";
                let trailer = self.scratch.git(["log", "-1", format, commit.as_str()]);
                assert_eq!(trailer.trim(), "T-1.impl.1");
            }
            assert!(!self.scratch.root.join(".git/worktrees/1/pipeline-index").exists());
            snapshot
        }

        fn taken(&self) -> (Snapshot, Oid) {
            let snapshot = self.take();
            let commit = snapshot.commit.clone().unwrap();
            (snapshot, commit)
        }

        fn git(&self, args: &[&str]) -> String {
            self.scratch.git_in(&self.slot, args.iter().copied())
        }

        fn write(&self, path: &str, text: &str) {
            let path = self.slot.join(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, text).unwrap();
        }

        fn text(&self, commit: &Oid, path: &str) -> Option<String> {
            self.scratch.text_at(commit, path)
        }
    }

    #[test]
    fn nothing_done_is_no_commit() {
        let case = Case::new();
        case.write("ignored", "x");
        let snapshot = case.take();
        assert_eq!((snapshot.commit, snapshot.tree_changed), (None, false));
        assert!(!snapshot.head_moved_away);
    }

    #[test]
    fn uncommitted_untracked_and_removed_files_are_taken_and_ignored_ones_not() {
        let case = Case::new();
        let odd = "dir ü/with space\nand line \"end\".txt";
        case.write(odd, "odd");
        case.write("ignored", "x");
        case.write("-n", "dash");
        fs::remove_file(case.slot.join("a.txt")).unwrap();
        let (snapshot, commit) = case.taken();
        assert!(snapshot.tree_changed);
        let mut paths = case.scratch.repo.changed_paths(&case.tip, &commit).unwrap();
        paths.sort();
        assert_eq!(paths, ["-n", "a.txt", odd]);
        assert_eq!(case.scratch.parents(&commit), std::slice::from_ref(&case.tip));
    }

    #[test]
    fn staged_files_are_taken_as_they_stand() {
        let case = Case::new();
        case.write("s.txt", "staged");
        case.git(&["add", "s.txt", "TASK-1.md"]);
        case.write("s.txt", "later ");
        let (_, commit) = case.taken();
        assert_eq!(case.text(&commit, "s.txt").as_deref(), Some("later "));
    }

    #[test]
    fn commits_of_the_agent_stay_below_one_with_trailers() {
        let case = Case::new();
        case.write("b", "b");
        case.git(&["add", "b"]);
        case.git(&["commit", "-q", "-m", "mine"]);
        let own: Oid = case.git(&["rev-parse", "HEAD"]).parse().unwrap();
        let (snapshot, commit) = case.taken();
        assert!(snapshot.tree_changed);
        assert_eq!(case.scratch.parents(&commit), std::slice::from_ref(&own));
        let tree = |oid: &Oid| case.scratch.repo.tree_of(oid).unwrap();
        assert_eq!(tree(&commit), tree(&own));

        case.write("c", "c");
        let later = Case { merge: None, ..case };
        later.scratch.git(["update-ref", "-d", PIN]);
        let (_, commit) = later.taken();
        assert_eq!(later.scratch.parents(&commit), [own]);
        assert_eq!(later.text(&commit, "c").as_deref(), Some("c"));
    }

    #[test]
    fn a_committed_task_file_is_taken_out_again_with_its_history() {
        let case = Case::new();
        case.git(&["add", "-A"]);
        case.git(&["commit", "-q", "-m", "with the task file"]);
        assert_eq!(case.take().commit, None);
        case.write("new.txt", "new");
        let (snapshot, commit) = case.taken();
        assert!(snapshot.tree_changed && snapshot.head_moved_away);
        assert_eq!(case.text(&commit, "TASK-1.md"), None);
        assert_eq!(case.text(&commit, "new.txt").as_deref(), Some("new"));
        assert_eq!(case.scratch.parents(&commit), std::slice::from_ref(&case.tip));
        let kept = case.scratch.rev(&format!("{PIN}.head"));
        assert_eq!(kept.as_str(), case.git(&["rev-parse", "HEAD"]));
    }

    #[test]
    fn a_merge_owed_becomes_the_second_parent() {
        let scratch = Scratch::new();
        let start = scratch.rev("HEAD");
        let ours = scratch.commit_on(&start, "a.txt", "ours\n");
        let theirs = scratch.commit_on(&start, "a.txt", "theirs\n");
        let theirs = scratch.commit_on(&theirs, "docs", "<<<<<<< an example\n");
        let case = Case::at(scratch, ours.clone(), Some(theirs.clone()));
        let (snapshot, commit) = case.taken();
        assert_eq!(snapshot.conflicts, ["a.txt"]);
        assert_eq!(case.scratch.parents(&commit), [ours.clone(), theirs.clone()]);

        case.scratch.git(["update-ref", "-d", PIN]);
        case.write("a.txt", "both\n=======\n");
        let (snapshot, commit) = case.taken();
        assert!(snapshot.conflicts.is_empty());
        assert_eq!(case.scratch.parents(&commit), [ours.clone(), theirs.clone()]);

        // The agent committed the merge itself.
        case.scratch.git(["update-ref", "-d", PIN]);
        case.git(&["add", "a.txt"]);
        case.git(&["commit", "-q", "-m", "merged"]);
        let own: Oid = case.git(&["rev-parse", "HEAD"]).parse().unwrap();
        let (_, commit) = case.taken();
        assert_eq!(case.scratch.parents(&commit), [own]);
    }

    #[test]
    fn a_merge_owed_is_made_even_if_it_changes_nothing() {
        let scratch = Scratch::new();
        let start = scratch.rev("HEAD");
        let ours = scratch.commit_on(&start, "a.txt", "same\n");
        let theirs = scratch.commit_on(&start, "a.txt", "same\n");
        let theirs = scratch.commit_on(&theirs, "a.txt", "same\n");
        let case = Case::at(scratch, ours.clone(), Some(theirs.clone()));
        let (snapshot, commit) = case.taken();
        assert!(!snapshot.tree_changed);
        assert_eq!(case.scratch.parents(&commit), [ours, theirs]);
    }

    #[test]
    fn a_head_that_moved_away_is_put_on_the_tip_and_kept() {
        let case = Case::new();
        case.git(&["checkout", "-q", "--detach", "HEAD~2"]);
        case.write("b", "b");
        case.git(&["add", "b"]);
        case.git(&["commit", "-q", "-m", "elsewhere"]);
        let away: Oid = case.git(&["rev-parse", "HEAD"]).parse().unwrap();
        let (snapshot, commit) = case.taken();
        assert!(snapshot.head_moved_away);
        assert_eq!(case.scratch.parents(&commit), std::slice::from_ref(&case.tip));
        assert_eq!(case.text(&commit, "b").as_deref(), Some("b"));
        let kept = case.scratch.repo.read_ref(&format!("{PIN}.head")).unwrap();
        assert_eq!(kept, Some(away));
    }

    #[test]
    fn going_back_in_history_takes_nothing_back() {
        let case = Case::new();
        case.git(&["reset", "-q", "--hard", "HEAD~1"]);
        let snapshot = case.take();
        assert!(!snapshot.tree_changed && snapshot.commit.is_none(), "{snapshot:?}");
        case.write("b", "b");
        let (_, commit) = case.taken();
        let paths = case.scratch.repo.changed_paths(&case.tip, &commit).unwrap();
        assert_eq!(paths, ["b"]);
    }

    #[test]
    fn an_unborn_head_is_one_that_moved_away() {
        let case = Case::new();
        case.git(&["checkout", "-q", "--orphan", "new"]);
        case.write("b", "b");
        let (snapshot, commit) = case.taken();
        assert!(snapshot.head_moved_away);
        assert_eq!(case.text(&commit, "b").as_deref(), Some("b"));
    }

    #[test]
    fn a_broken_worktree_still_gives_its_files() {
        let breaks: [fn(&Case); 5] = [
            |case| fs::remove_file(case.scratch.root.join(".git/worktrees/1/index")).unwrap(),
            |case| fs::remove_file(case.slot.join(".git")).unwrap(),
            |case| fs::remove_dir_all(case.scratch.root.join(".git/worktrees")).unwrap(),
            |case| fs::write(case.scratch.root.join(".git/worktrees/1/index"), "junk").unwrap(),
            |case| fs::write(case.scratch.root.join(".git/worktrees/1/index.lock"), "").unwrap(),
        ];
        for damage in breaks {
            let case = Case::new();
            case.write("b", "b");
            let exclude = ["TASK-1.md".to_owned()];
            damage(&case);
            let request = case.request(&exclude);
            let commit = case.scratch.repo.snapshot(&request).unwrap().commit.unwrap();
            assert_eq!(case.scratch.repo.changed_paths(&case.tip, &commit).unwrap(), ["b"]);
        }
    }

    #[test]
    fn a_missing_folder_still_gives_the_agents_commits() {
        let case = Case::new();
        case.write("b", "b");
        case.git(&["add", "b"]);
        case.git(&["commit", "-q", "-m", "mine"]);
        fs::remove_dir_all(&case.slot).unwrap();
        let (snapshot, commit) = case.taken();
        assert!(snapshot.is_gone);
        assert_eq!(case.text(&commit, "b").as_deref(), Some("b"));
    }

    #[test]
    fn repositories_inside_are_left_out_and_named() {
        let case = Case::new();
        case.git(&["init", "-q", "empty one"]);
        case.git(&["init", "-q", "full"]);
        case.git(&["-C", "full", "commit", "-q", "--allow-empty", "-m", "x"]);
        case.write("full/f", "f");
        case.write("b", "b");
        let (snapshot, commit) = case.taken();
        let paths = case.scratch.repo.changed_paths(&case.tip, &commit).unwrap();
        assert_eq!(paths, ["b"]);
        assert_eq!(snapshot.repositories, ["empty one", "full"]);
        assert!(snapshot.left_out.is_empty(), "{:?}", snapshot.left_out);
    }

    #[test]
    fn repositories_that_cannot_land_are_moved_out_of_the_slot_and_their_links_taken_back() {
        let case = Case::new();
        case.git(&["init", "-q", "sub/own"]);
        case.git(&["-C", "sub/own", "commit", "-q", "--allow-empty", "-m", "x"]);
        case.write("sub/own/f", "not committed");
        case.git(&["worktree", "add", "-q", "-b", "mine", "inner"]);
        case.write("inner/f", "not committed");
        case.git(&["init", "-q", "cache"]);
        case.git(&["add", "sub"]);
        case.git(&["commit", "-q", "-m", "with a link to nowhere"]);
        let (snapshot, commit) = case.taken();
        assert_eq!(snapshot.repositories, ["cache", "inner", "sub/own"]);
        assert!(case.scratch.repo.changed_paths(&case.tip, &commit).unwrap().is_empty());
        let aside = || {
            let keep = ["cache".to_owned()];
            let paths = &snapshot.repositories;
            case.scratch.repo.set_apart(&case.slot, paths, &keep, "T-1.impl.1").unwrap()
        };
        let (to, found) = aside();
        assert_eq!(found, ["inner", "sub/own"]);
        let admin = case.scratch.git_in(&to.join("inner"), ["rev-parse", "--absolute-git-dir"]);
        let was = case.slot.join("inner/.git");
        fs::write(Path::new(&admin).join("gitdir"), format!("{}\n", was.display())).unwrap();
        assert_eq!(aside(), (to.clone(), found), "done twice is done once");
        // Whoever was killed after the move had not told git of it.
        assert_eq!(registered(Path::new(&admin)), Some(to.join("inner")));
        assert!(case.slot.join("cache").is_dir() && !case.slot.join("sub/own").exists());
        let exclude = ["TASK-1.md".to_owned()];
        let again = case.request(&exclude);
        assert_eq!(case.scratch.repo.snapshot(&again).unwrap().commit, Some(commit));
        case.scratch.repo.remove_slot(&case.slot).unwrap();
        for name in ["inner", "sub/own"] {
            let text = fs::read_to_string(to.join(name).join("f")).unwrap();
            assert_eq!(text, "not committed");
        }
        let branch = case.scratch.git_in(&to.join("inner"), ["symbolic-ref", "HEAD"]);
        assert_eq!(branch, "refs/heads/mine");
    }

    #[test]
    fn a_commit_that_head_went_away_from_is_kept() {
        let case = Case::new();
        case.write("fix.txt", "fix");
        case.git(&["add", "fix.txt"]);
        case.git(&["commit", "-q", "-m", "a first try"]);
        // As an agent's git says it, which knows nothing of our own word for the log.
        let call = Call::write("git.x", &case.slot).args(["commit", "-q", "--amend", "-m", "fix"]);
        let call = call.env("GIT_REFLOG_ACTION", "commit (amend)");
        case.scratch.repo.git.ok(call).unwrap();
        let fix: Oid = case.git(&["rev-parse", "HEAD"]).parse().unwrap();
        assert!(case.take().kept.is_empty(), "the result holds it");
        case.scratch.git(["update-ref", "-d", PIN]);
        case.git(&["checkout", "-q", "HEAD~1"]);
        let snapshot = case.take();
        assert_eq!(snapshot.commit, None);
        let [kept] = snapshot.kept.as_slice() else { panic!("{:?}", snapshot.kept) };
        assert_eq!(case.scratch.repo.read_ref(kept).unwrap(), Some(fix.clone()));
        // Picked anew it is there under another name.
        case.scratch.git(["update-ref", "-d", kept]);
        case.write("b", "b");
        case.git(&["add", "b"]);
        case.git(&["commit", "-q", "-m", "b"]);
        case.git(&["cherry-pick", fix.as_str()]);
        assert!(case.take().kept.is_empty());
        // What an earlier attempt left is not looked at again.
        case.scratch.git(["update-ref", "-d", PIN]);
        let (path, at) = (&case.slot, &case.tip);
        let request = SlotRequest { path, at, keep: &[], merge: None, is_ready: false };
        case.scratch.repo.prepare_slot(&request).unwrap();
        assert!(case.take().kept.is_empty());
    }

    #[test]
    fn nothing_is_taken_from_where_a_link_leads() {
        let case = Case::new();
        fs::remove_dir_all(&case.slot).unwrap();
        std::os::unix::fs::symlink(&case.scratch.root, &case.slot).unwrap();
        fs::write(case.scratch.root.join("a person's"), "own").unwrap();
        let snapshot = case.scratch.repo.snapshot(&case.request(&[])).unwrap();
        assert!(snapshot.is_gone && snapshot.commit.is_none(), "{snapshot:?}");
    }

    #[test]
    fn what_the_owner_may_not_read_is_made_readable() {
        let case = Case::new();
        case.write("closed/f", "f");
        for (path, mode) in [("closed/f", 0o000), ("closed", 0o000)] {
            fs::set_permissions(case.slot.join(path), fs::Permissions::from_mode(mode)).unwrap();
        }
        make_readable(&case.slot);
        assert!(!make_readable(&case.slot), "once");
        let mode = |path| fs::metadata(case.slot.join(path)).unwrap().permissions().mode() & 0o777;
        assert_eq!((mode("closed"), mode("closed/f")), (0o700, 0o400));
    }

    #[test]
    fn a_later_snapshot_keeps_the_earlier_one() {
        let case = Case::new();
        case.write("b", "b");
        let (_, first) = case.taken();
        case.write("b", "c");
        let (_, second) = case.taken();
        let kept = case.scratch.repo.list_salvage().unwrap();
        let kept: Vec<Oid> = kept.into_iter().map(|(_, oid)| oid).collect();
        assert_eq!(kept, [second, first]);
    }
}
