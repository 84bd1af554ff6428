//! What is kept in salvage, how much it is, and where a person gets at it.

use std::path::{Path, PathBuf};

use super::call::Call;
use super::error::GitError;
use super::oid::Oid;
use super::refs::{named_refs, one_oid};
use super::repo::Repo;

/// How much a commit changes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Size {
    pub files: u64,
    /// Lines added; binary files have none.
    pub added: u64,
    /// Lines taken away.
    pub removed: u64,
}

/// One ref in salvage.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Kept {
    /// Its full name.
    pub name: String,
    pub commit: Oid,
    /// When the commit was made, in seconds since 1970; `None`: git does not say.
    pub at_s: Option<u64>,
    /// The repository has no such commit (any more).
    pub is_gone: bool,
}

impl Repo {
    /// Returns what is kept in salvage with the time of each commit, sorted by name.
    ///
    /// # Errors
    /// When git fails.
    pub fn kept(&self) -> Result<Vec<Kept>, GitError> {
        let call = Call::read("git.list_kept", &self.root).args([
            "for-each-ref",
            "--format=%(objectname) %(refname) %(committerdate:unix)",
            "--",
            super::refs::SALVAGE,
        ]);
        let reply = self.git.run(call)?;
        if reply.code != 0 {
            // One whose commit is gone has no time, and git then tells of none.
            return self.kept_without_times();
        }
        let timed = named_refs(&reply)?;
        let split = |(text, commit): (String, Oid)| match text.split_once(' ') {
            Some((name, at)) => {
                Kept { name: name.into(), commit, at_s: at.trim().parse().ok(), is_gone: false }
            }
            None => Kept { name: text, commit, at_s: None, is_gone: false },
        };
        Ok(timed.into_iter().map(split).collect())
    }

    fn kept_without_times(&self) -> Result<Vec<Kept>, GitError> {
        let found = self.list_salvage()?;
        let input: String = found.iter().map(|(_, oid)| format!("{oid}\n")).collect();
        let call = Call::read("git.kept_there", &self.root).args(["cat-file", "--batch-check"]);
        let text = self.git.ok(call.bytes(input.as_bytes()))?.line();
        let there = text.lines().map(|line| !line.ends_with(" missing"));
        let all = found.into_iter().zip(there);
        let kept = |((name, commit), is_there): (_, bool)| Kept {
            name,
            commit,
            at_s: None,
            is_gone: !is_there,
        };
        Ok(all.map(kept).collect())
    }

    /// Returns the newest commit that both come from; `None`: they have nothing in common.
    ///
    /// # Errors
    /// When one of them does not exist.
    pub fn merge_base(&self, one: &Oid, other: &Oid) -> Result<Option<Oid>, GitError> {
        let args = ["merge-base", one.as_str(), other.as_str()];
        let reply = self.git.run(Call::read("git.merge_base", &self.root).args(args))?;
        match reply.code {
            0 => one_oid(&reply).map(Some),
            1 => Ok(None),
            _ => Err(reply.failure(&self.root)),
        }
    }

    /// Returns the tree without any file, as what there was before the first commit.
    ///
    /// # Errors
    /// When git fails.
    pub fn empty_tree(&self) -> Result<Oid, GitError> {
        let call =
            Call::write("git.empty_tree", &self.root).args(["hash-object", "-w", "-t", "tree"]);
        one_oid(&self.git.ok(call.args(["--stdin"]).bytes(b""))?)
    }

    /// Returns how much lies between a commit or tree and a commit.
    ///
    /// # Errors
    /// When one of them does not exist.
    pub fn size(&self, from: &Oid, to: &Oid) -> Result<Size, GitError> {
        let call = Call::read("git.size", &self.root).args([
            "diff",
            "--no-ext-diff",
            "--shortstat",
            from.as_str(),
            to.as_str(),
            "--",
        ]);
        Ok(size_of(&self.git.ok(call)?.line()))
    }

    /// Returns how much lies between the commits of each pair `(from, to)`, in their order.
    ///
    /// # Errors
    /// When a commit does not exist.
    pub fn sizes(&self, pairs: &[(Oid, Oid)]) -> Result<Vec<Size>, GitError> {
        if pairs.is_empty() {
            return Ok(Vec::new());
        }
        let input: String = pairs.iter().map(|(from, to)| format!("{to} {from}\n")).collect();
        let call = Call::read("git.sizes", &self.root)
            .args(["diff-tree", "--stdin", "--root", "-r", "--shortstat", "--always"])
            .bytes(input.as_bytes());
        let reply = self.git.ok(call)?;
        let mut sizes: Vec<Size> = Vec::new();
        for line in reply.line().lines() {
            match (line.strip_prefix(' '), sizes.last_mut()) {
                (Some(stat), Some(last)) => *last = size_of(stat),
                (Some(_), None) | (None, _) => sizes.push(Size::default()),
            }
        }
        if sizes.len() != pairs.len() {
            return Err(GitError::answer(&reply.call, &reply.stdout));
        }
        Ok(sizes)
    }

    /// Returns what lies between two commits: a line per file, then the patch.
    ///
    /// # Errors
    /// When one of them does not exist.
    pub fn patch(&self, from: &Oid, to: &Oid, is_colored: bool) -> Result<Vec<u8>, GitError> {
        let color = if is_colored { "--color=always" } else { "--no-color" };
        let call = Call::read("git.diff", &self.root)
            .args(["diff", color, "--no-ext-diff", "--patch-with-stat"])
            .args([from.as_str(), to.as_str(), "--"]);
        Ok(self.git.ok(call)?.stdout)
    }

    /// Makes a worktree for a person at `dir`, on the branch `branch` (short name), which is made at
    /// `at` when it is not there; returns its true path.
    ///
    /// # Errors
    /// When the place or the branch is taken; git's failures.
    pub fn add_worktree(&self, dir: &Path, branch: &str, at: &Oid) -> Result<PathBuf, GitError> {
        let path = self.hand_path(dir)?;
        self.check_hand_place(&path)?;
        if self.read_ref(&format!("refs/heads/{branch}"))?.is_none() {
            let args = ["branch", "-q", "--no-track", "--", branch, at.as_str()];
            self.git.ok(Call::write("git.restored_branch", &self.root).args(args))?;
        }
        self.add_hand(&path, branch)?;
        Ok(path)
    }
}

/// Reads ` 2 files changed, 12 insertions(+), 4 deletions(-)`.
fn size_of(stat: &str) -> Size {
    let mut size = Size::default();
    for part in stat.split(',') {
        let Some((count, what)) = part.trim().split_once(' ') else { continue };
        let count = count.parse().unwrap_or(0);
        if what.starts_with("file") {
            size.files = count;
        } else if what.starts_with("insertion") {
            size.added = count;
        } else if what.starts_with("deletion") {
            size.removed = count;
        }
    }
    size
}

#[cfg(test)]
mod tests {
    use super::{Size, size_of};
    use crate::git::scratch::Scratch;

    #[test]
    fn sizes_come_in_the_order_of_the_pairs_and_nothing_changed_is_nothing() {
        let scratch = Scratch::new();
        let one = scratch.rev("HEAD");
        let two = scratch.commit_on(&one, "b", "b\nc\n");
        let pairs = [(one.clone(), two.clone()), (two.clone(), two.clone()), (two, one.clone())];
        let sizes = scratch.repo.sizes(&pairs).unwrap();
        let size = |files, added, removed| Size { files, added, removed };
        assert_eq!(sizes, [size(1, 2, 0), size(0, 0, 0), size(1, 0, 2)]);
        let nothing = scratch.repo.empty_tree().unwrap();
        let all = scratch.repo.size(&nothing, &pairs[0].1).unwrap();
        assert_eq!(all.files, 2, "from nothing: {all:?}");
        let said = " 12 files changed, 1 insertion(+), 34 deletions(-)";
        assert_eq!(size_of(said), size(12, 1, 34));
    }

    #[test]
    fn a_persons_worktree_is_on_a_branch_that_stays() {
        let scratch = Scratch::new();
        let one = scratch.rev("HEAD");
        let two = scratch.commit_on(&one, "b", "b\n");
        let dir = scratch.dir.path().join("mine");
        let made = scratch.repo.add_worktree(&dir, "salvage/T-1.impl.1", &two).unwrap();
        let branch = scratch.git_in(&made, ["symbolic-ref", "HEAD"]);
        assert_eq!(branch, "refs/heads/salvage/T-1.impl.1");
        assert!(made.join("b").is_file());
        scratch.git(["worktree", "remove", dir.to_str().unwrap()]);
        let other = scratch.dir.path().join("other");
        let again = scratch.repo.add_worktree(&other, "salvage/T-1.impl.1", &one).unwrap();
        assert!(again.join("b").is_file(), "the branch as it stands");
    }
}
