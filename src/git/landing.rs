//! Merges without a checkout: into the landing branch, and of the base into it.
//!
//! A repetition gives the same commit: the same trees, parents and message, the intent's date.

use super::call::Call;
use super::error::GitError;
use super::oid::Oid;
use super::refs::one_oid;
use super::repo::Repo;

/// A merge to be made.
#[derive(Debug, Clone)]
pub struct MergeRequest<'a> {
    /// The first parent: what has landed so far.
    pub ours: &'a Oid,
    /// The second parent: what shall land.
    pub theirs: &'a Oid,
    /// The commit's message, with its trailers.
    pub message: &'a str,
    /// Date of author and committer, in seconds since 1970, from the intent.
    pub date_s: u64,
    /// The ref of ours that keeps the result from being collected until it has landed.
    pub pin: Option<&'a str>,
}

/// How a merge ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Merged {
    /// A commit with two parents; no branch points to it yet.
    Made {
        /// The commit.
        commit: Oid,
        /// Its tree.
        tree: Oid,
        /// What it changes against `ours`, in git's order; may be empty.
        changed_paths: Vec<String>,
    },
    /// `ours` contains `theirs` already.
    AlreadyIn,
    /// Nothing was made.
    Conflict {
        /// The files in conflict, in git's order.
        paths: Vec<String>,
    },
}

/// How taking the base into the landing branch ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum TakeBase {
    /// The landing branch contains the base already.
    UpToDate,
    /// Nothing has landed that the base does not have: the landing branch may move to the base.
    FastForward(Oid),
    /// A merge commit, the landing branch's own line first.
    Merged(Oid),
    /// The base conflicts with what has landed in these files.
    Conflict(Vec<String>),
}

/// Two sides merged in the object store.
pub(super) enum Trees {
    Clean(Oid),
    Conflict(Vec<String>),
}

impl Repo {
    /// Merges `theirs` into `ours` in the object store alone.
    ///
    /// # Errors
    /// When a commit does not exist, or the two have no history in common.
    pub fn merge(&self, request: &MergeRequest<'_>) -> Result<Merged, GitError> {
        let tree = match self.merge_trees(request.ours, request.theirs)? {
            Trees::Clean(tree) => tree,
            Trees::Conflict(paths) => return Ok(Merged::Conflict { paths }),
        };
        let changed_paths = self.changed_paths(request.ours, &tree)?;
        // Only a merge that changes nothing can be one that is in already.
        if changed_paths.is_empty() && self.is_ancestor(request.theirs, request.ours)? {
            return Ok(Merged::AlreadyIn);
        }
        let parents = [request.ours.clone(), request.theirs.clone()];
        let commit = self.commit_tree(&tree, &parents, request.message, request.date_s)?;
        if let Some(pin) = request.pin {
            self.set_own_ref(pin, &commit)?;
        }
        Ok(Merged::Made { commit, tree, changed_paths })
    }

    /// Takes the base into the landing branch; moves no ref. `message` and `date_s` are for a merge
    /// commit, as in [`MergeRequest`].
    ///
    /// # Errors
    /// As [`Repo::merge`].
    pub fn take_base(
        &self,
        landed: &Oid,
        base: &Oid,
        message: &str,
        date_s: u64,
    ) -> Result<TakeBase, GitError> {
        if self.is_ancestor(base, landed)? {
            return Ok(TakeBase::UpToDate);
        }
        if self.is_on_first_parent_line(landed, base)? {
            return Ok(TakeBase::FastForward(base.clone()));
        }
        match self.merge_trees(landed, base)? {
            Trees::Conflict(paths) => Ok(TakeBase::Conflict(paths)),
            Trees::Clean(tree) => {
                let parents = [landed.clone(), base.clone()];
                Ok(TakeBase::Merged(self.commit_tree(&tree, &parents, message, date_s)?))
            }
        }
    }

    /// Returns whether following first parents from `commit` meets `older`.
    fn is_on_first_parent_line(&self, older: &Oid, commit: &Oid) -> Result<bool, GitError> {
        let exclude = format!("^{older}");
        let call = Call::read("git.first_parents", &self.root).args([
            "rev-list",
            "--first-parent",
            "--parents",
            commit.as_str(),
            &exclude,
            "--",
        ]);
        let reply = self.git.ok(call)?;
        let text = reply.line();
        // The last line is the oldest commit that `older` does not contain: it, then its parents.
        let last = text.lines().last().unwrap_or_default();
        Ok(last.split(' ').nth(1) == Some(older.as_str()))
    }

    /// Returns the files in which the merge of two commits conflicts, in git's order; empty where it
    /// is clean.
    ///
    /// # Errors
    /// When a commit does not exist, or the two have no history in common.
    pub fn conflicts(&self, ours: &Oid, theirs: &Oid) -> Result<Vec<String>, GitError> {
        Ok(match self.merge_trees(ours, theirs)? {
            Trees::Clean(_) => Vec::new(),
            Trees::Conflict(paths) => paths,
        })
    }

    /// Merges two commits; makes no commit.
    pub(super) fn merge_trees(&self, ours: &Oid, theirs: &Oid) -> Result<Trees, GitError> {
        let call = Call::write("git.merge_tree", &self.root)
            .args(["merge-tree", "--write-tree", "-z", "--name-only", "--no-messages"])
            .args([ours.as_str(), theirs.as_str()]);
        let reply = self.git.run(call)?;
        let mut fields = reply.texts().into_iter();
        match reply.code {
            0 | 1 => {
                let first = fields.next().unwrap_or_default();
                let tree = first.parse().map_err(|error| GitError::bad_oid(&reply.call, error))?;
                let conflict = || Trees::Conflict(fields.collect());
                Ok(if reply.code == 0 { Trees::Clean(tree) } else { conflict() })
            }
            _ => Err(reply.failure(&self.root)),
        }
    }

    /// Writes a commit; the same arguments give the same id.
    pub(super) fn commit_tree(
        &self,
        tree: &Oid,
        parents: &[Oid],
        message: &str,
        date_s: u64,
    ) -> Result<Oid, GitError> {
        // A commit cannot hold a zero byte, and its message ends in a line end.
        let message = format!("{}\n", message.replace('\0', " ").trim_end());
        let parents = parents.iter().flat_map(|parent| ["-p", parent.as_str()]);
        let call = Call::write("git.commit_tree", &self.root)
            .args(["commit-tree", "-F", "-"])
            .args(parents)
            .args([tree.as_str()])
            .bytes(message.as_bytes());
        one_oid(&self.git.ok(self.signed(call, Some(date_s))?)?)
    }

    /// Gives a call author and committer, and their date in seconds since 1970; else it is now.
    pub(super) fn signed<'a>(
        &self,
        mut call: Call<'a>,
        date_s: Option<u64>,
    ) -> Result<Call<'a>, GitError> {
        let identity = self.identity()?;
        for role in ["AUTHOR", "COMMITTER"] {
            call = call.env(&format!("GIT_{role}_NAME"), &identity.name);
            call = call.env(&format!("GIT_{role}_EMAIL"), &identity.email);
            if let Some(date_s) = date_s {
                call = call.env(&format!("GIT_{role}_DATE"), format!("@{date_s} +0000"));
            }
        }
        Ok(call)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::git::scratch::Scratch;

    const LINES: &str = "1\n2\n3\n4\n5\n6\n7\n8\n9\n";

    fn made(merged: Merged) -> (Oid, Vec<String>) {
        match merged {
            Merged::Made { commit, changed_paths, .. } => (commit, changed_paths),
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn a_repeated_merge_is_the_same_commit() {
        let scratch = Scratch::new();
        let start = scratch.rev("HEAD");
        let ours = scratch.commit_on(&start, "b ü", "b");
        let theirs = scratch.commit_on(&start, "c\nc", "c");
        let pin = "refs/pipeline/pending/T-1/1";
        let message = "Land T-1\n\nPipeline-Task: T-1";
        let request = MergeRequest {
            ours: &ours,
            theirs: &theirs,
            message,
            date_s: 1_700_000_000,
            pin: Some(pin),
        };
        let (commit, changed) = made(scratch.repo.merge(&request).unwrap());
        assert_eq!(changed, ["c\nc"]);
        assert_eq!(scratch.parents(&commit), [ours.clone(), theirs.clone()]);
        let again = scratch.reopened();
        assert_eq!(made(again.merge(&request).unwrap()).0, commit);
        assert_eq!(scratch.repo.read_ref(pin).unwrap(), Some(commit.clone()));
        let format = "--format=%an <%ae> %at %ct %(trailers:key=Pipeline-Task,valueonly)";
        let shown = scratch.git(["log", "-1", format, commit.as_str()]);
        assert_eq!(shown.trim(), "Ann <ann@example.org> 1700000000 1700000000 T-1");
        let request = MergeRequest { ours: &commit, ..request };
        assert_eq!(scratch.repo.merge(&request).unwrap(), Merged::AlreadyIn);
        scratch.fsck();
    }

    #[test]
    fn a_conflict_names_its_files_and_makes_nothing() {
        let scratch = Scratch::new();
        let start = scratch.rev("HEAD");
        let ours = scratch.commit_on(&start, "a.txt", &format!("ours\n{LINES}"));
        let theirs = scratch.commit_on(&start, "a.txt", &format!("theirs\n{LINES}"));
        let pin = "refs/pipeline/pending/T-1/1";
        let request =
            MergeRequest { ours: &ours, theirs: &theirs, message: "x", date_s: 1, pin: Some(pin) };
        let merged = scratch.repo.merge(&request).unwrap();
        assert_eq!(merged, Merged::Conflict { paths: vec!["a.txt".into()] });
        assert_eq!(scratch.repo.read_ref(pin).unwrap(), None);
    }

    #[test]
    fn hooks_signing_and_editors_of_the_user_are_not_in_the_way() {
        use std::os::unix::fs::PermissionsExt;
        let scratch = Scratch::new();
        let start = scratch.rev("HEAD");
        for (key, value) in
            [("commit.gpgsign", "true"), ("gpg.program", "false"), ("core.editor", "false")]
        {
            scratch.git(["config", key, value]);
        }
        for hook in ["pre-commit", "reference-transaction", "post-checkout"] {
            let path = scratch.root.join(".git/hooks").join(hook);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(&path, "#!/bin/sh\nexit 1\n").unwrap();
            std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o755)).unwrap();
        }
        let ours = scratch.commit_on(&start, "b", "b");
        let theirs = scratch.commit_on(&start, "c", "c");
        let pin = Some("refs/pipeline/pending/x");
        let request = MergeRequest { ours: &ours, theirs: &theirs, message: "x", date_s: 1, pin };
        made(scratch.repo.merge(&request).unwrap());
    }

    #[test]
    fn the_landing_branch_keeps_its_own_line_first() {
        let scratch = Scratch::new();
        let repo = &scratch.repo;
        let start = scratch.rev("HEAD");
        let base = scratch.commit_on(&start, "base", "1");
        let take = |landed: &Oid, base: &Oid| repo.take_base(landed, base, "take", 5).unwrap();
        assert_eq!(take(&start, &start), TakeBase::UpToDate);
        assert_eq!(take(&base, &start), TakeBase::UpToDate);
        assert_eq!(take(&start, &base), TakeBase::FastForward(base.clone()));

        let landed = scratch.commit_on(&start, "landed", "1");
        let TakeBase::Merged(merged) = take(&landed, &base) else { panic!("not merged") };
        assert_eq!(scratch.parents(&merged), [landed.clone(), base.clone()]);
        assert_eq!(take(&landed, &base), TakeBase::Merged(merged.clone()));

        // A person merged the landing branch into the base: it is the second parent there.
        let request =
            MergeRequest { ours: &base, theirs: &landed, message: "person", date_s: 6, pin: None };
        let (person, _) = made(repo.merge(&request).unwrap());
        let TakeBase::Merged(merged) = take(&landed, &person) else { panic!("not merged") };
        assert_eq!(scratch.parents(&merged), [landed.clone(), person]);

        let other = scratch.commit_on(&start, "landed", "2");
        assert_eq!(take(&landed, &other), TakeBase::Conflict(vec!["landed".into()]));
    }

    #[test]
    fn histories_with_nothing_in_common_are_a_failure() {
        let scratch = Scratch::new();
        let start = scratch.rev("HEAD");
        let tree = scratch.repo.tree_of(&start).unwrap();
        let other = scratch.repo.commit_tree(&tree, &[], "root", 1).unwrap();
        let request =
            MergeRequest { ours: &start, theirs: &other, message: "x", date_s: 1, pin: None };
        assert!(matches!(scratch.repo.merge(&request), Err(GitError::Failed { .. })));
    }
}
