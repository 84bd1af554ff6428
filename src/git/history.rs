//! Questions about history.

use std::collections::BTreeSet;

use super::call::Call;
use super::error::GitError;
use super::oid::Oid;
use super::repo::Repo;

/// Most paths asked about at once, so that the command line stays short.
const PATHS_MAX: usize = 100;

/// Most commits looked at, the newest.
const COMMITS_MAX: &str = "--max-count=10000";

/// A commit by what it says of its task.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HandCommit {
    pub oid: Oid,
    pub subject: String,
    /// Values of the trailer `Pipeline-Task`.
    pub trailers: Vec<String>,
}

impl Repo {
    /// Returns the commits that `to` has and `from` lacks, parents first; of very many the newest.
    ///
    /// # Errors
    /// When git fails or a commit does not exist.
    pub fn commits_since(&self, from: &Oid, to: &Oid) -> Result<Vec<HandCommit>, GitError> {
        let range = format!("{from}..{to}");
        // A letter before each field: an empty one is not lost.
        let format =
            "--format=c%H%x00s%s%x00t%(trailers:key=Pipeline-Task,valueonly,separator=%x20)";
        let args = ["log", "-z", "--topo-order", "--reverse", COMMITS_MAX, format, &range, "--"];
        let reply = self.git.ok(Call::read("git.log", &self.root).args(args))?;
        let mut commits: Vec<HandCommit> = Vec::new();
        for field in reply.texts() {
            let field = field.trim();
            if let Some(oid) = field.strip_prefix('c').and_then(|text| text.parse().ok()) {
                let (subject, trailers) = (String::new(), Vec::new());
                commits.push(HandCommit { oid, subject, trailers });
            } else if let (Some(subject), Some(last)) =
                (field.strip_prefix('s'), commits.last_mut())
            {
                last.subject = subject.to_owned();
            } else if let (Some(names), Some(last)) = (field.strip_prefix('t'), commits.last_mut())
            {
                last.trailers = names.split_whitespace().map(str::to_owned).collect();
            }
        }
        Ok(commits)
    }

    /// Returns every commit that `to` has and `from` lacks.
    ///
    /// # Errors
    /// When git fails or a commit does not exist.
    pub fn all_since(&self, from: &Oid, to: &Oid) -> Result<BTreeSet<Oid>, GitError> {
        let range = format!("{from}..{to}");
        let call = Call::read("git.rev_list", &self.root).args(["rev-list", &range, "--"]);
        Ok(self.git.ok(call)?.line().lines().filter_map(|line| line.parse().ok()).collect())
    }

    /// Returns how many landings `to` has that `from` lacks.
    ///
    /// # Errors
    /// When git fails or a commit does not exist.
    pub fn landings_between(&self, from: &Oid, to: &Oid) -> Result<u64, GitError> {
        let range = format!("{from}..{to}");
        let ours = ["rev-list", "--count", "--first-parent", "--grep=^Pipeline-Task: "];
        let call = Call::read("git.count", &self.root).args(ours).args([range.as_str(), "--"]);
        let reply = self.git.ok(call)?;
        Ok(reply.line().trim().parse().unwrap_or(0))
    }

    /// Returns the tasks whose commits on `onto`, since it parted from `tip`, changed one of the
    /// paths: values of the trailer `Pipeline-Task`, newest first, without repetition.
    ///
    /// # Errors
    /// When git fails or a commit does not exist.
    pub fn tasks_touching(
        &self,
        tip: &Oid,
        onto: &Oid,
        paths: &[String],
    ) -> Result<Vec<String>, GitError> {
        let range = format!("{tip}..{onto}");
        let format = "--format=%(trailers:key=Pipeline-Task,valueonly)";
        let paths = paths.iter().take(PATHS_MAX).map(String::as_str);
        let call = Call::read("git.log", &self.root)
            .args(["--literal-pathspecs", "log", format, &range, "--"])
            .args(paths);
        let reply = self.git.ok(call)?;
        let mut tasks: Vec<String> = Vec::new();
        for line in reply.line().lines().map(str::trim).filter(|line| !line.is_empty()) {
            if !tasks.iter().any(|task| task == line) {
                tasks.push(line.to_owned());
            }
        }
        Ok(tasks)
    }

    /// Returns what `tip` changed since it parted from `base`, as git shows it.
    ///
    /// # Errors
    /// When git fails or a commit does not exist.
    pub fn diff_since(&self, base: &str, tip: &Oid, is_stat: bool) -> Result<Vec<u8>, GitError> {
        let range = format!("{base}...{tip}");
        let stat = is_stat.then_some("--stat");
        let call = Call::read("git.diff", &self.root)
            .args(["diff", "--no-color", "--no-ext-diff"])
            .args(stat)
            .args([range.as_str(), "--"]);
        Ok(self.git.ok(call)?.stdout)
    }

    /// Returns true when git tracks a file at `path`, relative to the root, in the main checkout.
    ///
    /// # Errors
    /// When git fails.
    pub fn is_tracked(&self, path: &std::path::Path) -> Result<bool, GitError> {
        let call = Call::read("git.ls_files", &self.root)
            .args(["--literal-pathspecs", "ls-files", "-z", "--"])
            .args([path]);
        Ok(self.git.ok(call)?.fields().next().is_some())
    }
}
