//! A new repository, for the demonstration.

use std::path::Path;

use super::call::{Call, Git};
use super::error::GitError;
use super::repo::Repo;

impl Repo {
    /// Makes a repository of all files in `dir`, on the branch `main`, with one commit.
    ///
    /// # Errors
    /// When git fails.
    pub fn create(dir: &Path, message: &str) -> Result<Self, GitError> {
        let git = Git::default();
        git.ok(Call::write("git.init", dir).args(["init", "-q", "-b", "main"]))?;
        git.ok(Call::write("git.add", dir).args(["add", "-A"]))?;
        // Whoever runs the demonstration need not have told git a name.
        let own = ["-c", "user.name=pipeline", "-c", "user.email=pipeline@localhost"];
        let commit = ["commit", "-q", "-m", message];
        git.ok(Call::write("git.commit", dir).args(own.iter().chain(&commit)))?;
        Self::discover(dir)
    }

    /// Returns the first-parent history of a commit, newest first: short id and subject.
    ///
    /// # Errors
    /// When git fails or the commit does not exist.
    pub fn first_parents(&self, commit: &str, count_max: usize) -> Result<Vec<String>, GitError> {
        let count = format!("-{count_max}");
        let call = Call::read("git.log", &self.root).args([
            "log",
            "--first-parent",
            "--format=%h %s",
            &count,
            commit,
            "--",
        ]);
        Ok(self.git.ok(call)?.line().lines().map(str::to_owned).collect())
    }
}
