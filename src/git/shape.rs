//! What is particular about a repository, for `init` and `doctor`.

use super::call::Call;
use super::error::GitError;
use super::repo::Repo;

/// The oldest git with `merge-tree --write-tree`.
const GIT_MIN: (u32, u32) = (2, 38);

/// Facts about a repository that change how the pipeline works in it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Shape {
    /// What `git version` says, without the words.
    pub git_version: String,
    /// The branch of the main checkout, short; `None` when HEAD is detached.
    pub branch: Option<String>,
    /// Whether that branch has a commit.
    pub is_born: bool,
    /// Whether history is cut off.
    pub is_shallow: bool,
    /// Whether only part of the files is checked out.
    pub is_sparse: bool,
    /// Whether the tree has submodules.
    pub has_submodules: bool,
    /// Whether files go through Git LFS.
    pub has_lfs: bool,
    /// Whether the user has a branch `pipeline`, which leaves no room for `pipeline/…`.
    pub has_pipeline_branch: bool,
}

impl Repo {
    /// Looks at what is particular about the repository.
    ///
    /// # Errors
    /// When git fails.
    pub fn shape(&self) -> Result<Shape, GitError> {
        let read = |args: &[&str]| self.git.run(Call::read("git.shape", &self.root).args(args));
        let version = read(&["version"])?.line();
        let head = read(&["symbolic-ref", "--short", "-q", "HEAD"])?;
        let is_born = read(&["rev-parse", "--verify", "-q", "HEAD^{commit}"])?.code == 0;
        let has_submodules = read(&["cat-file", "-e", "HEAD:.gitmodules"])?.code == 0;
        let lfs = ["grep", "-q", "-e", "filter=lfs", "HEAD", "--", ":(top,glob)**/.gitattributes"];
        let sparse = read(&["config", "--type=bool", "core.sparseCheckout"])?;
        Ok(Shape {
            git_version: version.trim_start_matches("git version ").to_owned(),
            branch: (head.code == 0).then(|| head.line()),
            is_born,
            is_shallow: self.common.join("shallow").exists(),
            is_sparse: sparse.line() == "true",
            has_submodules,
            has_lfs: is_born && read(&lfs)?.code == 0,
            has_pipeline_branch: self.read_ref("refs/heads/pipeline")?.is_some(),
        })
    }
}

impl Shape {
    /// Returns why the pipeline cannot work here, each with what to do; empty when it can. `base`
    /// is the base branch the person named, if any.
    #[must_use]
    pub fn refusals(&self, base: Option<&str>) -> Vec<String> {
        let mut refusals = Vec::new();
        if self.version().is_some_and(|version| version < GIT_MIN) {
            let (major, minor) = GIT_MIN;
            refusals.push(format!(
                "git {} is too old: install git {major}.{minor} or newer",
                self.git_version
            ));
        }
        if self.has_pipeline_branch {
            refusals.push(
                "the branch `pipeline` leaves no room for branches `pipeline/…`: rename it with \
                 `git branch -m pipeline NEW-NAME`"
                    .into(),
            );
        }
        if self.branch.is_none() && base.is_none() {
            refusals.push(
                "HEAD is detached, so the branch to land on is unknown: name it with \
                 `--base BRANCH`, or `git switch BRANCH` first"
                    .into(),
            );
        }
        if let (Some(branch), None, false) = (&self.branch, base, self.is_born) {
            refusals.push(format!(
                "the branch `{branch}` has no commit: make one, or name another with `--base BRANCH`"
            ));
        }
        refusals
    }

    /// Returns what works differently here, each with what can be done; may be empty.
    #[must_use]
    pub fn notes(&self) -> Vec<String> {
        let mut notes = Vec::new();
        if self.is_shallow {
            notes.push(
                "the clone is shallow: it works, but merges cannot see history before the cut; \
                 `git fetch --unshallow` completes it",
            );
        }
        if self.is_sparse {
            notes.push("the checkout is sparse: agents' worktrees have all files");
        }
        if self.has_submodules {
            notes.push(
                "submodules are not filled in agents' worktrees: put `git submodule update --init` \
                 into `setup` of `[worktree]` if agents need them",
            );
        }
        if self.has_lfs {
            notes.push(
                "files go through Git LFS: `git lfs` must be installed; the first checkout of an \
                 agent's worktree may download them",
            );
        }
        notes.into_iter().map(str::to_owned).collect()
    }

    /// `None` when the version cannot be read, which is held against nobody.
    fn version(&self) -> Option<(u32, u32)> {
        let mut parts = self.git_version.split(['.', ' ']);
        Some((parts.next()?.parse().ok()?, parts.next()?.parse().ok()?))
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use crate::git::Repo;
    use crate::git::scratch::Scratch;

    #[test]
    fn a_plain_repository_has_nothing_to_say() {
        let scratch = Scratch::new();
        let shape = scratch.repo.shape().unwrap();
        assert_eq!(shape.branch.as_deref(), Some("main"));
        assert!(shape.refusals(None).is_empty(), "{:?}", shape.refusals(None));
        assert!(shape.notes().is_empty(), "{:?}", shape.notes());
    }

    #[test]
    fn a_detached_head_needs_a_base() {
        let scratch = Scratch::new();
        scratch.git(["checkout", "-q", "--detach"]);
        let shape = scratch.repo.shape().unwrap();
        assert!(shape.refusals(None)[0].contains("--base BRANCH"));
        assert!(shape.refusals(Some("main")).is_empty());
    }

    #[test]
    fn a_branch_named_pipeline_is_refused() {
        let scratch = Scratch::new();
        scratch.git(["branch", "pipeline"]);
        let refusals = scratch.repo.shape().unwrap().refusals(None);
        assert!(refusals[0].contains("git branch -m pipeline"));
    }

    #[test]
    fn submodules_lfs_and_sparse_are_noted() {
        let scratch = Scratch::new();
        fs::create_dir(scratch.root.join("big")).unwrap();
        fs::write(scratch.root.join("big/.gitattributes"), "*.bin filter=lfs\n").unwrap();
        fs::write(scratch.root.join(".gitmodules"), "").unwrap();
        scratch.git(["add", "-A"]);
        scratch.git(["commit", "-q", "-m", "x"]);
        scratch.git(["config", "core.sparseCheckout", "true"]);
        let shape = scratch.repo.shape().unwrap();
        assert!(shape.has_lfs && shape.has_submodules && shape.is_sparse);
        assert_eq!(shape.notes().len(), 3);
        assert!(shape.refusals(None).is_empty());
    }

    #[test]
    fn a_shallow_clone_is_noted() {
        let scratch = Scratch::new();
        let tip = scratch.rev("HEAD");
        let next = scratch.commit_on(&tip, "b", "b");
        scratch.git(["update-ref", "refs/heads/main", next.as_str()]);
        let clone = scratch.dir.path().join("clone");
        let url = format!("file://{}", scratch.root.display());
        scratch.git(["clone", "-q", "--depth=1", &url, clone.to_str().unwrap()]);
        let repo = Repo::discover_by(scratch.repo.git.clone(), &clone).unwrap();
        let shape = repo.shape().unwrap();
        assert!(shape.is_shallow && shape.refusals(None).is_empty());
        assert!(shape.notes()[0].contains("--unshallow"));
    }

    #[test]
    fn an_old_git_is_refused() {
        let scratch = Scratch::new();
        let mut shape = scratch.repo.shape().unwrap();
        for (version, is_refused) in
            [("2.37.9", true), ("2.38.0", false), ("2.47.3 (Apple Git-1)", false), ("odd", false)]
        {
            shape.git_version = version.into();
            assert_eq!(!shape.refusals(None).is_empty(), is_refused, "{version}");
        }
    }
}
