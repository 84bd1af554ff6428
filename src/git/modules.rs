//! What agents did in submodules of their slots and nobody else has: it is kept in bundles, since it
//! goes away with the slot, and no commit of ours names it.
//!
//! What was made here is told by the submodule's own log: what was fetched, by whatever name, and what
//! the slot began with are somebody else's as well.

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::OsString;
use std::fs::{self, File};
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Path, PathBuf};

use super::call::Call;
use super::error::GitError;
use super::gate::Gate;
use super::left::{aside, named_modules};
use super::oid::Oid;
use super::refs::one_oid;
use super::repo::{Repo, canonical};
use super::slot::{Found, remove_file, settle};
use super::snapshot::{SnapshotRequest, is_behind_link};
use super::whole::Entries;
use crate::sys::{fail, file};

/// In a submodule: the folder of what was put into bundles.
const SAVED: &str = "refs/pipeline/saved";
/// Most bytes of files that git does not track which are kept: more is what a build made.
const UNTRACKED_MAX: u64 = 4 << 20;
/// Most commits beside HEAD that are kept.
const TIPS_MAX: usize = 8;
/// How the log of a repository says that a commit was made there.
const MADE: [&str; 7] = ["commit", "cherry-pick", "revert", "am", "rebase", "merge", "pull"];

/// What a submodule of a slot held that none of its remotes has.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ModuleWork {
    /// Where it is, below the slot.
    pub path: String,
    /// The bundle of its commits and uncommitted files, or why there is none.
    pub bundle: Result<PathBuf, String>,
}

/// A gitlink that names a commit which nobody else could get.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Lone {
    path: PathBuf,
    /// What stood there before; `None`: nothing.
    before: Option<String>,
}

impl Lone {
    pub(super) fn name(&self) -> String {
        self.path.display().to_string()
    }
}

/// Where bundles go.
struct Keeping<'a> {
    gate: &'a Gate<'a>,
    /// Folders in which repositories are the slot's own.
    own: [PathBuf; 2],
    /// Of the attempt.
    name: &'a str,
    found: Vec<(PathBuf, Result<PathBuf, String>)>,
}

impl Repo {
    /// Bundles what a slot's submodules, and theirs, hold that was made there and none of their remotes
    /// has, in a folder beside the slot that is named `name`: commits, and files that are not committed.
    /// What git ignores is left out, and untracked files of more than 4 MiB in all. Done twice it is
    /// done once. Cost: nothing without submodules, three calls for each that is filled.
    ///
    /// # Errors
    /// When git cannot be run, or a file not written.
    pub fn keep_modules(
        &self,
        slot: &Path,
        tip: &Oid,
        name: &str,
    ) -> Result<Vec<ModuleWork>, GitError> {
        let slot = settle(slot)?;
        let Found::Ready(admin) = self.find_slot(&slot)? else { return Ok(Vec::new()) };
        if !has_modules(&slot, &admin) {
            return Ok(Vec::new());
        }
        let own = [slot.clone(), canonical(&admin)?];
        let gate = self.slot_gate(&slot)?;
        let mut keeping = Keeping { gate: &gate, own, name, found: Vec::new() };
        self.keep_below(&mut keeping, &slot, tip.as_str(), &aside(&slot, name))?;
        let path = |path: &Path| path.strip_prefix(&slot).unwrap_or(path).display().to_string();
        let found = keeping.found.into_iter();
        Ok(found.map(|(dir, bundle)| ModuleWork { path: path(&dir), bundle }).collect())
    }

    /// Does it for the submodules of `dir`, which `commit` has or `.gitmodules` names; bundles go to
    /// `to`.
    fn keep_below(
        &self,
        keeping: &mut Keeping<'_>,
        dir: &Path,
        commit: &str,
        to: &Path,
    ) -> Result<(), GitError> {
        let modules = match self.modules(dir) {
            // An index that is broken.
            Err(GitError::Failed { .. }) => return Ok(()),
            modules => modules?,
        };
        let named = named_modules(dir);
        for path in modules {
            let below = path.strip_prefix(dir).unwrap_or(&path).to_owned();
            let is_there = fs::symlink_metadata(path.join(".git")).is_ok();
            if !is_there || path.is_symlink() || is_behind_link(dir, &below) {
                continue;
            }
            let was_at = self.module_in(dir, commit, &below)?;
            let is_named = named.iter().any(|name| Path::new(name) == below);
            let Some((git_dir, head)) = self.module_at(&path)? else { continue };
            let is_own = keeping.own.iter().any(|own| git_dir.starts_with(own));
            if !is_own || (was_at.is_empty() && !is_named) {
                continue;
            }
            self.keep_below(keeping, &path, &was_at, &to.join(&below))?;
            let mut bundle = to.join(&below).into_os_string();
            bundle.push(".bundle");
            let bundle = PathBuf::from(bundle);
            let keep = || self.keep_module(keeping, &path, (&git_dir, &head), &bundle);
            // A git fails as well where one that it has started was killed.
            let kept = keep().or_else(|error| match error {
                GitError::Failed { .. } => keep(),
                other => Err(other),
            });
            match kept {
                Ok(false) => {}
                Ok(true) => keeping.found.push((path, Ok(bundle))),
                Err(error @ (GitError::Failed { .. } | GitError::Late { .. })) => {
                    keeping.found.push((path, Err(error.to_string())));
                }
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    /// Returns the commit at which `commit` has a submodule; empty: it has none.
    fn module_in(&self, dir: &Path, commit: &str, below: &Path) -> Result<String, GitError> {
        if commit.is_empty() {
            return Ok(String::new());
        }
        let mut name = OsString::from(format!("{commit}:"));
        name.push(below);
        let args = ["rev-parse", "--verify", "--quiet", "--end-of-options"];
        let call = Call::read("git.module_in", dir).args(args).args([name]);
        Ok(self.git.run(call)?.line())
    }

    /// Returns a submodule's git folder and where it stands; `None`: it has no commit, or is no whole
    /// repository.
    fn module_at(&self, dir: &Path) -> Result<Option<(PathBuf, Oid)>, GitError> {
        let args = ["rev-parse", "--path-format=absolute", "--git-common-dir", "HEAD^{commit}"];
        // Git must not take the slot for it where it is broken.
        let ceiling = dir.parent().unwrap_or(dir);
        let call = Call::read("git.module_at", dir).args(args);
        let reply = self.git.run(call.env("GIT_CEILING_DIRECTORIES", ceiling))?;
        let text = reply.line();
        let Some((git_dir, head)) = text.rsplit_once('\n').filter(|_| reply.code == 0) else {
            return Ok(None);
        };
        Ok(head.parse().ok().map(|head| (PathBuf::from(git_dir), head)))
    }

    /// Bundles what a submodule holds that nobody else has; returns whether there was something.
    fn keep_module(
        &self,
        keeping: &Keeping<'_>,
        dir: &Path,
        (git_dir, head): (&Path, &Oid),
        bundle: &Path,
    ) -> Result<bool, GitError> {
        let saved = format!("{SAVED}/{}", keeping.name);
        let made = made_in(git_dir).unwrap_or_else(|| vec![head.to_string()]);
        let earlier = [format!("--exclude={saved}"), format!("--glob={SAVED}/*")];
        let alone = self.alone(dir, None, &made, &earlier)?;
        let mut tips: Vec<&str> = Vec::new();
        for tip in made.iter().filter(|oid| alone.contains(*oid)).map(String::as_str) {
            if tip != head.as_str() && !tips.contains(&tip) && tips.len() < TIPS_MAX {
                tips.push(tip);
            }
        }
        let dirt = self.dirt(dir)?;
        if alone.is_empty() && dirt.is_none() {
            return Ok(false);
        }
        let failed = |source| GitError::File { doing: "write", path: bundle.into(), source };
        let folder = bundle.parent().unwrap_or(Path::new("/"));
        fs::create_dir_all(folder).map_err(failed)?;
        let temp = bundle.with_extension("bundle.tmp");
        let is_head = tips.is_empty() && dirt.is_none();
        let commit = match is_head {
            true => head.clone(),
            false => self.module_files(keeping.gate, dir, (head, &tips), dirt, &temp)?,
        };
        let write = |point| Call::write(point, dir).gate(keeping.gate);
        // What was left by a git that was killed here.
        remove_file(&git_dir.join(format!("{saved}.lock")))?;
        self.git.ok(write("git.module_ref").args(["update-ref", &saved, commit.as_str()]))?;
        remove_file(&temp.with_extension("tmp.lock"))?;
        let made = write("git.module_bundle").args(["bundle", "create", "-q"]).args([&temp]);
        let made = made.args([&saved, "--not", "--remotes"]).setting("pack.window=0");
        self.git.ok(made)?;
        fail::point("git.module_put")
            .and_then(|()| File::open(&temp)?.sync_all())
            .and_then(|()| fs::rename(&temp, bundle))
            .and_then(|()| file::sync_dir(folder))
            .map_err(failed)?;
        Ok(true)
    }

    /// Returns those of `oids`, and of what they hold, that no remote-tracking ref has nor one of `but`.
    fn alone(
        &self,
        dir: &Path,
        git_dir: Option<&Path>,
        oids: &[String],
        but: &[String],
    ) -> Result<BTreeSet<String>, GitError> {
        let input: String = oids.iter().map(|oid| format!("{oid}\n")).collect();
        let call = Call::read("git.module_alone", dir)
            .args(["rev-list", "--ignore-missing", "--stdin", "--not", "--remotes"])
            .args(but)
            .bytes(input.as_bytes());
        let call = match git_dir {
            Some(git_dir) => call.env("GIT_DIR", git_dir),
            None => call,
        };
        Ok(self.git.ok(call)?.line().lines().map(str::to_owned).collect())
    }

    /// Returns which files of a submodule a commit is to take that are in none: `-A`, or `-u` where the
    /// untracked ones are too large; `None`: there are none.
    fn dirt(&self, dir: &Path) -> Result<Option<&'static str>, GitError> {
        let args = ["status", "--porcelain", "-z", "--no-renames", "--untracked-files=all"];
        let status = Call::read("git.module_status", dir).args(args);
        let reply = self.git.run(status.args(["--ignore-submodules=none"]))?;
        let (mut is_changed, mut has_new, mut bytes) = (reply.code != 0, false, 0);
        for field in reply.fields() {
            match field.strip_prefix(b"?? ") {
                Some(name) => {
                    let path = dir.join(std::ffi::OsStr::from_bytes(name));
                    bytes += fs::symlink_metadata(path).map_or(0, |meta| meta.len());
                    has_new = true;
                }
                None => is_changed = true,
            }
        }
        Ok(match (is_changed, has_new && bytes <= UNTRACKED_MAX) {
            (_, true) => Some("-A"),
            (true, false) => Some("-u"),
            (false, false) => None,
        })
    }

    /// Makes a commit on top of a submodule's HEAD and of `tips`, of its files where `dirt` says which,
    /// through an index beside `temp`.
    fn module_files(
        &self,
        gate: &Gate<'_>,
        dir: &Path,
        (head, tips): (&Oid, &[&str]),
        dirt: Option<&str>,
        temp: &Path,
    ) -> Result<Oid, GitError> {
        let index = temp.with_extension("index");
        let call = |args: &[&str]| {
            let call = Call::write("git.module_files", dir).args(args).gate(gate);
            self.git.run(call.env("GIT_INDEX_FILE", &index))
        };
        let ok = |args: &[&str]| {
            let reply = call(args)?;
            if reply.code == 0 { Ok(reply) } else { Err(reply.failure(dir)) }
        };
        remove_file(&index)?;
        remove_file(&index.with_extension("index.lock"))?;
        ok(&["read-tree", head.as_str()])?;
        if let Some(which) = dirt {
            // What cannot be taken is left out; of all untracked files, where one is an empty repository.
            let added = call(&["add", which, "--ignore-errors", "--", ":(top)"])?;
            if added.code > 1 {
                call(&["add", "-u", "--ignore-errors", "--", ":(top)"])?;
            }
        }
        let tree = one_oid(&ok(&["write-tree"])?)?;
        remove_file(&index)?;
        let args = ["commit-tree", "-m", "What an attempt left", "-p", head.as_str()];
        let commit = Call::write("git.module_commit", dir).args(args);
        let commit = commit.args(tips.iter().flat_map(|tip| ["-p", *tip])).args([tree.as_str()]);
        one_oid(&self.git.ok(self.signed(commit.gate(gate), None)?)?)
    }

    /// Returns the gitlinks in the index at `index` that name a commit which was made in the slot and no
    /// remote has; only those that differ from what the attempt began with.
    pub(super) fn lone_modules(
        &self,
        (slot, admin, index): (&Path, &Path, &Path),
        request: &SnapshotRequest<'_>,
    ) -> Result<Vec<Lone>, GitError> {
        if !has_modules(slot, admin) {
            return Ok(Vec::new());
        }
        let now = Entries::read(index, request.tip.as_str().len())?.modules;
        let ours = self.gitlinks(request.begun.unwrap_or(request.tip), &now)?;
        let theirs = request.merge.map(|merge| self.gitlinks(merge, &now)).transpose()?;
        let mut lone = Vec::new();
        for (path, commit) in &now {
            let was = ours.get(path);
            let merged = theirs.as_ref().and_then(|theirs| theirs.get(path));
            if was == Some(commit)
                || merged == Some(commit)
                || !self.is_lone(slot, admin, path, commit)?
            {
                continue;
            }
            let mut before = was;
            if let (Some(merge), true) = (request.merge, was != merged) {
                let base = self.merge_base(request.tip, merge)?;
                let base = base.map(|base| self.gitlinks(&base, &now)).transpose()?;
                let is_theirs = base.as_ref().and_then(|base| base.get(path)) == was;
                before = if is_theirs { merged } else { was };
            }
            lone.push(Lone { path: path.clone(), before: before.cloned() });
        }
        Ok(lone)
    }

    /// Returns where `commit` has submodules, of those named.
    fn gitlinks(
        &self,
        commit: &Oid,
        of: &[(PathBuf, String)],
    ) -> Result<BTreeMap<PathBuf, String>, GitError> {
        if of.is_empty() {
            return Ok(BTreeMap::new());
        }
        let call = Call::read("git.gitlinks", &self.root).args(["ls-tree", "-z", "--full-tree"]);
        let call = call.args([commit.as_str(), "--"]).args(of.iter().map(|(path, _)| path));
        let reply = self.git.ok(call)?;
        let link = |field: &[u8]| {
            let field = field.strip_prefix(b"160000 commit ")?;
            let tab = field.iter().position(|byte| *byte == b'\t')?;
            let path = PathBuf::from(std::ffi::OsStr::from_bytes(&field[tab + 1..]));
            Some((path, String::from_utf8_lossy(&field[..tab]).into_owned()))
        };
        Ok(reply.fields().filter_map(link).collect())
    }

    /// Returns whether a commit of a submodule was made in the slot and no remote has it. Where its
    /// repository is not there (any more), nothing is known, and it counts as somebody else's.
    fn is_lone(
        &self,
        slot: &Path,
        admin: &Path,
        path: &Path,
        commit: &str,
    ) -> Result<bool, GitError> {
        let dir = slot.join(path);
        let is_filled =
            fs::symlink_metadata(dir.join(".git")).is_ok() && !is_behind_link(slot, path);
        let found = if is_filled { self.module_at(&dir)? } else { None };
        // Of one that was taken out of the worktree git keeps the repository.
        let git_dir = found.map_or_else(|| admin.join("modules").join(path), |found| found.0);
        if !git_dir.join("HEAD").exists() {
            return Ok(false);
        }
        let alone = self.alone(slot, Some(&git_dir), &[commit.to_owned()], &[])?;
        let made = made_in(&git_dir);
        Ok(made.map_or(!alone.is_empty(), |made| made.iter().any(|oid| alone.contains(oid))))
    }

    /// Puts gitlinks in the index at `index` back to what stood there before.
    pub(super) fn put_modules_back(
        &self,
        gate: &Gate<'_>,
        (slot, admin, index): (&Path, &Path, &Path),
        lone: &[Lone],
    ) -> Result<(), GitError> {
        for Lone { path, before } in lone {
            let call = self.in_slot(Call::write("git.module_back", slot), slot, admin);
            let call = call.env("GIT_INDEX_FILE", index).args(["update-index"]);
            let call = match before {
                Some(before) => {
                    let mut entry = OsString::from(format!("160000,{before},"));
                    entry.push(path);
                    call.args(["--cacheinfo".into(), entry])
                }
                None => call.args(["--force-remove", "--"]).args([path]),
            };
            self.git.ok(call.gate(gate))?;
        }
        Ok(())
    }
}

/// Returns whether a slot can have submodules.
fn has_modules(slot: &Path, admin: &Path) -> bool {
    slot.join(".gitmodules").exists() || admin.join("modules").exists()
}

/// Returns the commits that were made in a repository, the newest first, but for what was amended;
/// `None`: it keeps no log.
fn made_in(git_dir: &Path) -> Option<Vec<String>> {
    let log = fs::read(git_dir.join("logs/HEAD")).ok()?;
    let stashed = fs::read(git_dir.join("logs/refs/stash")).unwrap_or_default();
    let (log, stashed) = (String::from_utf8_lossy(&log), String::from_utf8_lossy(&stashed));
    let (mut made, mut amended) = (Vec::new(), BTreeSet::new());
    for line in log.lines().rev() {
        let mut oids = line.splitn(3, ' ');
        let (Some(old), Some(new)) = (oids.next(), oids.next()) else { continue };
        let message = line.split_once('\t').map_or("", |(_, message)| message);
        if message.split(": ").next().is_some_and(|what| what.ends_with("(amend)")) {
            amended.insert(old);
        }
        let is_made = MADE.iter().any(|word| message.starts_with(word));
        if is_made && !message.ends_with("Fast-forward") && !amended.contains(new) {
            made.push(new.to_owned());
        }
    }
    made.extend(stashed.lines().rev().filter_map(|line| line.split(' ').nth(1)).map(str::to_owned));
    Some(made)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::git::SlotRequest;
    use crate::git::scratch::Scratch;

    const LOCAL: &str = "protocol.file.allow=always";

    /// A slot with the submodule `sub`, which has `deep`, both filled; the origin of `sub` is returned.
    fn filled(scratch: &Scratch) -> (PathBuf, PathBuf) {
        let at = |name: &str| scratch.root.with_file_name(name);
        let (lib, deep, slot) = (at("lib"), at("deep"), at("slots").join("1"));
        for dir in [&deep, &lib] {
            scratch.git(["init", "-q", dir.to_str().unwrap()]);
            commit(scratch, dir, "v", "one");
        }
        let add = |dir: &Path, from: &Path, name: &str| {
            let from = from.to_str().unwrap();
            scratch.git_in(dir, ["-c", LOCAL, "submodule", "--quiet", "add", "--", from, name]);
            scratch.git_in(dir, ["commit", "-qam", name]);
        };
        add(&lib, &deep, "deep");
        add(&scratch.root, &lib, "sub");
        let at = scratch.rev("HEAD");
        let (path, at) = (&slot, &at);
        let request = SlotRequest { path, at, keep: &[], merge: None, is_ready: false };
        scratch.repo.prepare_slot(&request).unwrap();
        let fill = ["-c", LOCAL, "submodule", "--quiet", "update", "--init", "--recursive"];
        scratch.git_in(&slot, fill);
        (slot, lib)
    }

    fn commit(scratch: &Scratch, dir: &Path, name: &str, text: &str) -> String {
        fs::write(dir.join(name), text).unwrap();
        scratch.git_in(dir, ["add", "-A"]);
        let call = Call::write("git.x", dir).args(["commit", "-q", "-m", text]);
        // Else its log says that it was the pipeline.
        scratch.repo.git.ok(call.env("GIT_REFLOG_ACTION", "commit")).unwrap();
        scratch.git_in(dir, ["rev-parse", "HEAD"])
    }

    fn kept(scratch: &Scratch, slot: &Path, name: &str) -> Vec<String> {
        let found = scratch.repo.keep_modules(slot, &scratch.rev("HEAD"), name).unwrap();
        let to = slot.with_file_name("left").join(name);
        for work in &found {
            assert_eq!(work.bundle, Ok(to.join(format!("{}.bundle", work.path))));
        }
        found.into_iter().map(|it| it.path).collect()
    }

    /// Fetches what was kept of a submodule into its origin, as FETCH_HEAD.
    fn fetch(scratch: &Scratch, slot: &Path, origin: &Path, name: &str, path: &str) {
        let bundle = slot.with_file_name("left").join(name).join(format!("{path}.bundle"));
        let saved = format!("{SAVED}/{name}");
        scratch.git_in(origin, ["fetch", "-q", bundle.to_str().unwrap(), &saved]);
    }

    #[test]
    fn what_only_a_submodule_has_is_bundled_however_deep_it_lies() {
        let scratch = Scratch::new();
        let (slot, lib) = filled(&scratch);
        assert!(kept(&scratch, &slot, "A").is_empty(), "nothing was done there");
        assert!(!slot.with_file_name("left").exists());
        let made = commit(&scratch, &slot.join("sub/deep"), "v", "two");
        fs::write(slot.join("sub/deep/new"), "not committed").unwrap();
        let bundles = slot.with_file_name("left/A");
        fs::create_dir_all(bundles.join("sub")).unwrap();
        for name in ["deep.bundle.tmp", "deep.bundle.tmp.lock", "deep.bundle.index.lock"] {
            fs::write(bundles.join("sub").join(name), "of one that was killed").unwrap();
        }
        let lock =
            ["rev-parse", "--path-format=absolute", "--git-path", "refs/pipeline/saved/A.lock"];
        let lock = PathBuf::from(scratch.git_in(&slot.join("sub"), lock));
        fs::create_dir_all(lock.parent().unwrap()).unwrap();
        fs::write(&lock, "").unwrap();
        for _ in 0..2 {
            assert_eq!(kept(&scratch, &slot, "A"), ["sub/deep", "sub"]);
        }
        assert_eq!(fs::read_dir(bundles.join("sub")).unwrap().count(), 1, "nothing else is left");
        let deep = scratch.root.with_file_name("deep");
        fetch(&scratch, &slot, &deep, "A", "sub/deep");
        assert_eq!(scratch.git_in(&deep, ["rev-parse", "FETCH_HEAD~1"]), made);
        assert_eq!(scratch.git_in(&deep, ["show", "FETCH_HEAD:new"]), "not committed");
        fetch(&scratch, &slot, &lib, "A", "sub");
        assert_eq!(scratch.git_in(&lib, ["rev-parse", "FETCH_HEAD:deep"]), made);
    }

    #[test]
    fn what_was_fetched_and_what_was_kept_before_is_not_kept_and_what_was_left_is() {
        let scratch = Scratch::new();
        let (slot, lib) = filled(&scratch);
        let sub = slot.join("sub");
        // On no branch of its origin.
        scratch.git_in(&lib, ["switch", "-q", "--detach"]);
        let fetched = commit(&scratch, &lib, "v", "two");
        scratch.git_in(&sub, ["fetch", "-q", "origin", &fetched]);
        scratch.git_in(&sub, ["checkout", "-q", &fetched]);
        assert!(kept(&scratch, &slot, "A").is_empty());
        let own = commit(&scratch, &sub, "v", "three");
        scratch.git_in(&sub, ["tag", "mine"]);
        assert_eq!(kept(&scratch, &slot, "A"), ["sub"]);
        assert!(kept(&scratch, &slot, "B").is_empty(), "the next attempt did nothing there");
        // Commits and a stash that HEAD has left, and an empty repository, which git does not take.
        let left = commit(&scratch, &sub, "v", "four");
        scratch.git_in(&sub, ["checkout", "-q", &fetched]);
        fs::write(sub.join("v"), "stashed").unwrap();
        scratch.git_in(&sub, ["stash", "-q"]);
        let stashed = scratch.git_in(&sub, ["rev-parse", "stash"]);
        fs::write(sub.join("v"), "five").unwrap();
        scratch.git_in(&sub, ["init", "-q", "empty"]);
        fs::write(sub.join("empty/x"), "").unwrap();
        assert_eq!(kept(&scratch, &slot, "C"), ["sub"]);
        fetch(&scratch, &slot, &lib, "C", "sub");
        let parents = scratch.git_in(&lib, ["rev-parse", "FETCH_HEAD^@"]);
        assert_eq!(parents.lines().collect::<Vec<_>>(), [&*fetched, &*left, &*stashed]);
        assert_eq!(scratch.git_in(&lib, ["show", "FETCH_HEAD:v"]), "five");
        assert_eq!(scratch.git_in(&lib, ["rev-parse", "FETCH_HEAD^2~1"]), own);
    }

    #[test]
    fn a_submodule_that_is_somebody_elses_or_broken_is_let_be() {
        let scratch = Scratch::new();
        let (slot, lib) = filled(&scratch);
        let sub = slot.join("sub");
        fs::write(sub.join(".git"), "gitdir: nowhere").unwrap();
        assert!(kept(&scratch, &slot, "A").is_empty());
        fs::remove_dir_all(&sub).unwrap();
        commit(&scratch, &lib, "mine", "not committed");
        std::os::unix::fs::symlink(&lib, &sub).unwrap();
        assert!(kept(&scratch, &slot, "A").is_empty());
        fs::remove_file(&sub).unwrap();
        scratch.git_in(&lib, ["worktree", "add", "-q", sub.to_str().unwrap()]);
        commit(&scratch, &sub, "mine", "not committed either");
        assert!(kept(&scratch, &slot, "A").is_empty());
        assert_eq!(scratch.git_in(&lib, ["for-each-ref", "refs/pipeline"]), "");
    }

    /// Returns what a snapshot says is lone, and where its result has `sub`.
    fn taken(scratch: &Scratch, slot: &Path, merge: Option<&Oid>) -> (Vec<String>, String) {
        let tip = scratch.rev("HEAD");
        let request = SnapshotRequest {
            slot,
            tip: &tip,
            merge,
            exclude: &[],
            message: "A",
            date_s: 0,
            begun: None,
            pin: "refs/pipeline/salvage/A",
        };
        let left = scratch.repo.snapshot(&request).unwrap();
        let commit = left.commit.unwrap_or(tip);
        (left.modules, scratch.git(["rev-parse", &format!("{commit}:sub")]))
    }

    #[test]
    fn no_result_names_a_commit_that_nobody_else_could_get() {
        let scratch = Scratch::new();
        let (slot, lib) = filled(&scratch);
        let sub = slot.join("sub");
        let before = scratch.git(["rev-parse", "HEAD:sub"]);
        assert_eq!(taken(&scratch, &slot, None), (vec![], before.clone()));
        // In its own commit, and taken out of the worktree behind that.
        let own = commit(&scratch, &sub, "v", "two");
        scratch.git_in(&slot, ["commit", "-qam", "names it"]);
        assert_eq!(taken(&scratch, &slot, None), (vec!["sub".into()], before.clone()));
        assert_eq!(scratch.git(["rev-parse", "refs/pipeline/salvage/A.head:sub"]), own);
        scratch.git_in(&slot, ["submodule", "--quiet", "deinit", "-f", "sub"]);
        assert_eq!(taken(&scratch, &slot, None), (vec!["sub".into()], before));
        // Where the base has moved it, that counts.
        let moved = commit(&scratch, &lib, "w", "of the base");
        scratch.git(["update-index", "--cacheinfo", &format!("160000,{moved},sub")]);
        let tree = scratch.git(["write-tree"]);
        let base = scratch.git(["commit-tree", "-p", "HEAD", "-m", "moves it", &tree]);
        scratch.git(["reset", "-q"]);
        let base = base.parse().unwrap();
        assert_eq!(taken(&scratch, &slot, Some(&base)), (vec!["sub".into()], moved));
        // Pushed, it is as good as any other.
        scratch.git_in(&slot, ["submodule", "--quiet", "update", "--init", "--checkout"]);
        scratch.git_in(&sub, ["push", "-q", "origin", "HEAD:refs/heads/pushed"]);
        assert_eq!(taken(&scratch, &slot, None), (vec![], own));
    }
}
