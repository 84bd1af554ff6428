//! Merges that are only tried: what would conflict, before anything is to land.

use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use super::call::Call;
use super::error::GitError;
use super::oid::Oid;
use super::repo::Repo;
use super::slot::remove_tree;
use crate::sys::fail;

/// Where the objects of tried merges go, in the folder of the gates.
const SCRATCH: &str = "forecast";

impl Repo {
    /// Returns for each pair of commits the files in which their merge conflicts, in git's order; empty
    /// where it is clean. One git for all; nothing stays in the repository. One caller at a time.
    ///
    /// Needs git 2.40: `merge-tree --stdin`.
    ///
    /// # Errors
    /// When a commit does not exist, two have no history in common, or git is older.
    pub fn try_merges(&self, pairs: &[(Oid, Oid)]) -> Result<Vec<Vec<String>>, GitError> {
        let scratch = self.gates_dir().join(SCRATCH);
        let result = self.try_merges_in(&scratch, pairs);
        // What stays behind is removed by the next trial.
        let _ = remove_tree("git.forecast_clean", &scratch);
        result
    }

    fn try_merges_in(
        &self,
        scratch: &Path,
        pairs: &[(Oid, Oid)],
    ) -> Result<Vec<Vec<String>>, GitError> {
        remove_tree("git.forecast_clean", scratch)?;
        borrow_objects(scratch, &self.common.join("objects"))?;
        let input: String = pairs.iter().map(|(one, other)| format!("{one} {other}\n")).collect();
        let call = Call::read("git.forecast", &self.root)
            .args(["-c", "core.fsync=none", "merge-tree", "--write-tree", "--stdin"])
            .args(["--name-only", "--no-messages"])
            .env("GIT_OBJECT_DIRECTORY", scratch)
            .bytes(input.as_bytes());
        let reply = self.git.ok(call)?;
        // Of each merge: whether it is clean, its tree, the files in conflict, an empty field.
        let fields = reply.stdout.split(|byte| *byte == 0);
        let fields: Vec<String> =
            fields.map(|field| String::from_utf8_lossy(field).into_owned()).collect();
        let merges = fields.split(String::is_empty).filter(|merge| !merge.is_empty());
        let conflicts: Vec<Vec<String>> =
            merges.map(|merge| merge.get(2..).unwrap_or_default().to_vec()).collect();
        if conflicts.len() == pairs.len() {
            Ok(conflicts)
        } else {
            Err(GitError::answer(&reply.call, &reply.stdout))
        }
    }
}

/// Makes a folder for objects that reads those of the repository too.
fn borrow_objects(scratch: &Path, objects: &Path) -> Result<(), GitError> {
    let info = scratch.join("info");
    let alternates: PathBuf = info.join("alternates");
    let mut line = objects.as_os_str().as_bytes().to_vec();
    line.push(b'\n');
    let made = fail::point("git.forecast_scratch")
        .and_then(|()| fs::create_dir_all(&info))
        .and_then(|()| fs::write(&alternates, line));
    made.map_err(|source| GitError::File { doing: "write", path: alternates, source })
}

#[cfg(test)]
mod tests {
    use crate::git::scratch::Scratch;

    #[test]
    fn tried_merges_tell_their_conflicts_and_leave_nothing() {
        let scratch = Scratch::new();
        let start = scratch.rev("HEAD");
        let on = |path: &str, text: &str| scratch.commit_on(&start, path, text);
        let (one, two, other) = (on("a.txt", "1"), on("a.txt", "2"), on("ü\nb", "3"));
        let both = scratch.commit_on(&two, "ü\nb", "4");
        let count = || scratch.git(["count-objects", "-v"]);
        let before = count();
        let pairs = [(&one, &two), (&one, &other), (&both, &other), (&two, &both), (&one, &start)];
        let pairs = pairs.map(|(one, other)| (one.clone(), other.clone()));
        let conflicts = scratch.repo.try_merges(&pairs).unwrap();
        let none: [&str; 0] = [];
        assert_eq!(conflicts[0], ["a.txt"]);
        assert_eq!(conflicts[1], none);
        assert_eq!(conflicts[2], ["ü\nb"]);
        assert_eq!((conflicts[3].len(), conflicts[4].len(), conflicts.len()), (0, 0, 5));
        assert_eq!(count(), before);
        assert!(!scratch.repo.gates_dir().join(super::SCRATCH).exists());
        assert!(scratch.repo.try_merges(&[]).unwrap().is_empty());
        let none = "1".repeat(40).parse().unwrap();
        assert!(scratch.repo.try_merges(&[(one, none)]).is_err());
    }
}
