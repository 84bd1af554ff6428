//! Where the main checkout of a repository is. Git answers with the git folder itself where that lies
//! apart, as a submodule's does, and with `--separate-git-dir`: nothing may be written there.

use std::ffi::OsStr;
use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use super::call::{Call, Git};
use super::error::GitError;
use super::slot::linked;

/// Returns the main checkout of the repository whose common folder is `common`, seen from `dir`: as
/// `git worktree list` tells it, which fails while any worktree is half made.
pub(super) fn find(git: &Git, common: &Path, dir: &Path) -> Result<PathBuf, GitError> {
    let args = ["config", "--type=bool", "core.bare"];
    let reply = git.run(Call::read("git.config", common).args(args))?;
    if reply.code == 0 && reply.line() == "true" {
        return Err(bare(common, dir));
    }
    if let Some(main) = common.parent().filter(|_| common.ends_with(".git")) {
        return Ok(main.into());
    }
    // Git itself notes it for a submodule. Our own worktrees lie in the main checkout, as a rule.
    let noted = noted(git, common)?;
    let near = noted.iter().map(PathBuf::as_path).chain(dir.ancestors());
    let found = near.filter_map(|it| fs::canonicalize(it).ok()).find(|it| is_main(it, common));
    found.ok_or_else(|| GitError::NoCheckout { dir: dir.into(), common: common.into() })
}

/// Returns the error for a bare repository. One with an index has had a checkout.
pub(super) fn bare(common: &Path, dir: &Path) -> GitError {
    GitError::Bare { dir: dir.into(), had_checkout: common.join("index").exists() }
}

/// Returns what the settings say.
fn noted(git: &Git, common: &Path) -> Result<Option<PathBuf>, GitError> {
    let args = ["config", "-z", "--type=path", "core.worktree"];
    let reply = git.run(Call::read("git.config", common).args(args))?;
    let path = reply.fields().next().map(|path| common.join(OsStr::from_bytes(path)));
    Ok(path.filter(|_| reply.code == 0))
}

/// Returns whether the `.git` file of `dir` names the common folder itself, which no other worktree's
/// does.
fn is_main(dir: &Path, common: &Path) -> bool {
    linked(dir).and_then(|link| fs::canonicalize(link).ok()).as_deref() == Some(common)
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::path::Path;

    use crate::git::scratch::Scratch;
    use crate::git::{GitError, Repo};

    fn found(scratch: &Scratch, dir: &Path) -> Result<Repo, GitError> {
        Repo::discover_by(scratch.repo.git.clone(), dir)
    }

    #[test]
    fn a_git_folder_that_lies_apart_is_not_taken_for_the_checkout() {
        let scratch = Scratch::new();
        let base = fs::canonicalize(scratch.dir.path()).unwrap();
        let (main, apart, other) = (base.join("main"), base.join("apart"), base.join("other"));
        let text = |path: &Path| path.to_str().unwrap().to_owned();
        let separate = format!("--separate-git-dir={}", text(&apart));
        scratch.git(["clone", "-q", &separate, &text(&scratch.root), &text(&main)]);
        scratch.git_in(&main, ["worktree", "add", "-q", "--detach", &text(&other)]);
        let below = main.join(".pipeline/worktrees/test/0");
        scratch.git_in(&main, ["worktree", "add", "-q", "--detach", &text(&below)]);
        for dir in [&main, &below] {
            assert_eq!(found(&scratch, dir).unwrap().root(), main, "{}", dir.display());
        }
        for dir in [&other, &apart] {
            let refused = found(&scratch, dir).unwrap_err();
            assert!(matches!(refused, GitError::NoCheckout { .. }), "{refused}");
        }
        scratch.git_in(&main, ["config", "core.worktree", "../main"]);
        for dir in [&main, &below, &other, &apart] {
            assert_eq!(found(&scratch, dir).unwrap().root(), main, "{}", dir.display());
        }
        scratch.git_in(&main, ["config", "core.worktree", "../other"]);
        let refused = found(&scratch, &apart).unwrap_err();
        assert!(matches!(refused, GitError::NoCheckout { .. }), "that is not it: {refused}");
    }

    #[test]
    fn a_submodule_is_found_from_its_linked_worktrees() {
        let scratch = Scratch::new();
        let base = fs::canonicalize(scratch.dir.path()).unwrap();
        let (main, other) = (scratch.root.join("mod"), base.join("other"));
        let (url, other) = (scratch.root.to_str().unwrap(), other.to_str().unwrap());
        let allow = "protocol.file.allow=always";
        scratch.git(["-c", allow, "submodule", "--quiet", "add", url, "mod"]);
        scratch.git_in(&main, ["worktree", "add", "-q", "--detach", other]);
        for dir in [main.as_path(), Path::new(other), &scratch.root.join(".git/modules/mod")] {
            assert_eq!(found(&scratch, dir).unwrap().root(), main, "{}", dir.display());
        }
    }

    #[test]
    fn a_bare_repository_and_one_that_was_only_set_so_get_their_own_advice() {
        let scratch = Scratch::new();
        let base = fs::canonicalize(scratch.dir.path()).unwrap();
        let (hub, other) = (base.join("hub.git"), base.join("other"));
        let text = |path: &Path| path.to_str().unwrap().to_owned();
        scratch.git(["clone", "-q", "--bare", &text(&scratch.root), &text(&hub)]);
        scratch.git_in(&hub, ["worktree", "add", "-q", "--detach", &text(&other)]);
        for dir in [&hub, &other] {
            let hint = found(&scratch, dir).unwrap_err().hint().unwrap();
            assert!(hint.contains("git clone") && !hint.contains("core.bare"), "{hint}");
        }
        scratch.git(["config", "core.bare", "true"]);
        let hint = found(&scratch, &scratch.root).unwrap_err().hint().unwrap();
        assert!(hint.ends_with("config core.bare false"), "{hint}");
    }
}
