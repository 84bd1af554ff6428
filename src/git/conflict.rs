//! Conflicts that an agent left in its slot, by the slot's own index: markers in text, and what has none
//! (a link, a binary file, one that a side removed) and is still as the merge left it.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use super::call::Call;
use super::error::GitError;
use super::oid::Oid;
use super::repo::Repo;
use super::snapshot::SnapshotRequest;

/// Most paths given to one `git grep`, so that the command line stays short.
const GREP_PATHS_MAX: usize = 200;
/// Lines that git puts around a conflict.
const MARKERS: &str = r"^(<{7,}|>{7,}|\|{7,}) ";

/// How often each marker line stands in a version of a file.
type Lines = BTreeMap<String, usize>;

impl Repo {
    /// Returns the files of `tree`, taken from the slot, in which a conflict is left: of the merge that
    /// the slot was prepared with, and of the agent's own. Sorted.
    ///
    /// A text without its markers is resolved, staged or not. What has none must be staged, unless
    /// something else stands there now than what git put there.
    pub(super) fn conflicts_left(
        &self,
        slot: &Path,
        admin: &Path,
        tree: &Oid,
        request: &SnapshotRequest<'_>,
    ) -> Result<Vec<String>, GitError> {
        let unmerged = self.unmerged(slot, admin)?;
        let mut paths: BTreeSet<String> = unmerged.keys().cloned().collect();
        if let Some(merge) = request.merge {
            let ours = self.changed_paths(request.tip, tree)?;
            let theirs: BTreeSet<String> = self.changed_paths(merge, tree)?.into_iter().collect();
            paths.extend(ours.into_iter().filter(|path| theirs.contains(path)));
        }
        let paths: Vec<String> = paths.into_iter().collect();
        let mut left = BTreeSet::new();
        for paths in paths.chunks(GREP_PATHS_MAX) {
            left.extend(self.marked(tree, paths, &unmerged, request)?);
        }
        // What a merge puts into the files stands in this tree; without one only markers tell.
        if !unmerged.is_empty()
            && let Some(merged) = self.auto_merge(slot, admin)?
        {
            let changed: BTreeSet<String> =
                self.changed_paths(&merged, tree)?.into_iter().collect();
            left.extend(unmerged.into_keys().filter(|path| !changed.contains(path)));
        }
        Ok(left.into_iter().collect())
    }

    /// Returns the unmerged paths of the slot's index with the texts on their sides; none where the
    /// index cannot be read.
    fn unmerged(
        &self,
        slot: &Path,
        admin: &Path,
    ) -> Result<BTreeMap<String, Vec<String>>, GitError> {
        let mut found: BTreeMap<String, Vec<String>> = BTreeMap::new();
        if admin == self.common || !slot.is_dir() {
            return Ok(found);
        }
        let call = self.in_slot(Call::read("git.unmerged", slot), slot, admin);
        let reply = self.git.run(call.args(["ls-files", "-u", "-z"]))?;
        for field in reply.texts().iter().filter(|_| reply.code == 0) {
            let Some((entry, path)) = field.split_once('\t') else { continue };
            let mut parts = entry.split(' ');
            let (mode, oid) = (parts.next().unwrap_or_default(), parts.next().unwrap_or_default());
            let sides = found.entry(path.to_owned()).or_default();
            sides.extend(mode.starts_with("100").then(|| oid.to_owned()));
        }
        Ok(found)
    }

    /// Returns the tree of what git's last merge in the slot put into the files, markers included.
    fn auto_merge(&self, slot: &Path, admin: &Path) -> Result<Option<Oid>, GitError> {
        let call = self.in_slot(Call::read("git.auto_merge", slot), slot, admin);
        let args = ["rev-parse", "-q", "--verify", "AUTO_MERGE^{tree}"];
        let reply = self.git.run(call.args(args))?;
        Ok(if reply.code == 0 { reply.line().parse().ok() } else { None })
    }

    /// Returns those of `paths` that hold a marker in `tree` which none of the merged versions holds.
    fn marked(
        &self,
        tree: &Oid,
        paths: &[String],
        unmerged: &BTreeMap<String, Vec<String>>,
        request: &SnapshotRequest<'_>,
    ) -> Result<Vec<String>, GitError> {
        let trees = [Some(tree), Some(request.tip), request.merge];
        let sides = paths.iter().filter_map(|path| unmerged.get(path)).flatten();
        let call = Call::read("git.markers", &self.root)
            .args(["grep", "-z", "-I", "-E", "-e", MARKERS])
            .args(trees.into_iter().flatten().map(Oid::as_str))
            .args(sides.collect::<BTreeSet<_>>())
            .args(["--"])
            .args(paths.iter().map(|path| format!(":(top,literal){path}")));
        let reply = self.git.run(call)?;
        if reply.code > 1 {
            return Err(reply.failure(&self.root));
        }
        let found = marker_lines(&String::from_utf8_lossy(&reply.stdout));
        let is_marked = |path: &&String| {
            let Some(own) = found.get(&format!("{tree}:{path}")) else { return false };
            let trees = trees.into_iter().skip(1).flatten().map(|side| format!("{side}:{path}"));
            let sides = unmerged.get(*path).into_iter().flatten().cloned();
            let known: Vec<&Lines> = trees.chain(sides).filter_map(|it| found.get(&it)).collect();
            own.iter().any(|(line, count)| {
                known.iter().all(|lines| lines.get(line).is_none_or(|known| known < count))
            })
        };
        Ok(paths.iter().filter(is_marked).cloned().collect())
    }
}

/// Reads what `git grep -z` says: name, NUL, line.
fn marker_lines(mut text: &str) -> BTreeMap<String, Lines> {
    let mut found: BTreeMap<String, Lines> = BTreeMap::new();
    while let Some((name, rest)) = text.split_once('\0') {
        let (line, rest) = rest.split_once('\n').unwrap_or((rest, ""));
        *found.entry(name.to_owned()).or_default().entry(line.to_owned()).or_default() += 1;
        text = rest;
    }
    found
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::symlink;
    use std::path::PathBuf;

    use crate::git::call::Call;
    use crate::git::scratch::Scratch;
    use crate::git::{Oid, SlotRequest, SnapshotRequest};

    const MARKED: &str = "<<<<<<< HEAD\n=======\n>>>>>>> an example\n";

    struct Case {
        scratch: Scratch,
        slot: PathBuf,
        tip: Oid,
        merge: Oid,
    }

    impl Case {
        /// Two commits that conflict over a text, a link, a binary file, and a file that one removed.
        fn new() -> Self {
            let scratch = Scratch::new();
            let side = |from: &Oid, name: &str| {
                let dir = scratch.dir.path().join(name);
                let path = dir.to_str().unwrap();
                scratch.git(["worktree", "add", "-q", "--detach", path, from.as_str()]);
                fs::write(dir.join("text"), format!("{MARKED}{name}\n")).unwrap();
                let _ = fs::remove_file(dir.join("link"));
                symlink(name, dir.join("link")).unwrap();
                fs::write(dir.join("binary"), format!("\0{name}")).unwrap();
                if name == "theirs" {
                    fs::remove_file(dir.join("gone")).unwrap();
                } else {
                    fs::write(dir.join("gone"), name).unwrap();
                }
                scratch.git_in(&dir, ["add", "-A"]);
                scratch.git_in(&dir, ["commit", "-q", "-m", name]);
                scratch.git_in(&dir, ["rev-parse", "HEAD"]).parse::<Oid>().unwrap()
            };
            let start = side(&scratch.rev("HEAD"), "start");
            let (tip, merge) = (side(&start, "ours"), side(&start, "theirs"));
            let slot = scratch.root.join(".pipeline/worktrees/impl/1");
            Self { scratch, slot, tip, merge }
        }

        fn prepare(&self, merge: Option<&Oid>) {
            let (path, at) = (&self.slot, &self.tip);
            let request = SlotRequest { path, at, keep: &[], merge, is_ready: false };
            self.scratch.repo.prepare_slot(&request).unwrap();
        }

        fn git<'a>(&self, args: impl IntoIterator<Item = &'a str>) {
            self.scratch.git_in(&self.slot, args);
        }

        fn left(&self, merge: Option<&Oid>) -> Vec<String> {
            let request = SnapshotRequest {
                slot: &self.slot,
                tip: &self.tip,
                merge,
                exclude: &[],
                message: "x",
                date_s: 1,
                begun: None,
                pin: "refs/pipeline/salvage/x",
            };
            let found = self.scratch.repo.snapshot(&request).unwrap();
            assert_eq!(self.scratch.repo.snapshot(&request).unwrap(), found);
            found.conflicts
        }
    }

    #[test]
    fn what_a_merge_left_without_markers_is_not_resolved_until_it_is_staged_or_changed() {
        let case = Case::new();
        let merge = Some(&case.merge);
        case.prepare(merge);
        assert_eq!(case.left(merge), ["binary", "gone", "link", "text"]);
        // A text is as good as it reads, and what merely looks like markers was there before.
        fs::write(case.slot.join("text"), format!("{MARKED}both\n")).unwrap();
        assert_eq!(case.left(merge), ["binary", "gone", "link"]);
        // Our side, and said so; removed; something else.
        case.git(["add", "link"]);
        fs::remove_file(case.slot.join("gone")).unwrap();
        fs::write(case.slot.join("binary"), "\0both").unwrap();
        assert!(case.left(merge).is_empty());
        // A marker in a file that is staged is still one.
        let text = format!("{MARKED}<<<<<<< HEAD\n");
        fs::write(case.slot.join("text"), text).unwrap();
        case.git(["add", "text"]);
        assert_eq!(case.left(merge), ["text"]);
    }

    #[test]
    fn a_merge_of_the_agents_own_counts_too() {
        let case = Case::new();
        case.prepare(None);
        fs::write(case.slot.join("text"), MARKED).unwrap();
        assert!(case.left(None).is_empty());
        fs::remove_file(case.slot.join("link")).unwrap();
        symlink("stashed", case.slot.join("link")).unwrap();
        case.git(["stash", "-q"]);
        fs::write(case.slot.join("text"), "other\n").unwrap();
        fs::remove_file(case.slot.join("link")).unwrap();
        case.git(["commit", "-q", "-a", "-m", "mine"]);
        let call = Call::write("git.x", &case.slot).args(["stash", "pop", "-q"]);
        assert_ne!(case.scratch.repo.git.run(call).unwrap().code, 0, "it conflicts");
        assert_eq!(case.left(None), ["link", "text"]);
    }
}
