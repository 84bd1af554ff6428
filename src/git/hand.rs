//! A person's worktree: on a branch of ours, made and removed by us, theirs in between.
//!
//! **Invariants.** Nothing in it is lost by us: it is filled once, before it is theirs, and removed
//! only when all of it is committed. What is there already and is not an empty folder stays. Git's
//! entry for one that somebody else moved or removed stays: where it was moved to, it is needed.

use std::ffi::{OsStr, OsString};
use std::fs;
use std::path::{Path, PathBuf};

use super::call::Call;
use super::error::GitError;
use super::gate::Gate;
use super::oid::Oid;
use super::refs::one_oid;
use super::repo::{Repo, canonical};
use super::slot::{Found, remove_file, remove_tree};
use super::whole::Entries;
use crate::sys::fail;

/// In a worktree's administrative folder, while a git command there waits to be gone on with.
const UNDER_WAY: [(&str, &str); 6] = [
    ("MERGE_HEAD", "merge"),
    ("CHERRY_PICK_HEAD", "cherry-pick"),
    ("REVERT_HEAD", "revert"),
    ("rebase-merge", "rebase"),
    ("rebase-apply", "rebase"),
    ("BISECT_LOG", "bisect"),
];

/// In a worktree's administrative folder, while its files are being written for the first time.
const FILLING: &str = "pipeline-filling";
/// How the name of what is being removed ends.
const GONE: &str = ".pipeline-gone";

/// How a person's worktree stands.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Hand {
    pub head: Oid,
    /// The branch it is on, by full name; `None`: detached.
    pub branch: Option<String>,
    /// Files that differ from there, and those that git does not track; as git names them.
    pub unsaved: Vec<String>,
    /// Files and folders that git ignores, and edits that it was told to pass over
    /// (`git update-index --skip-worktree`, `--assume-unchanged`).
    pub ignored: Vec<String>,
    /// The git command that is half done there, e.g. `rebase`.
    pub under_way: Option<&'static str>,
}

/// A removal that was cut off.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CutOff {
    /// Where the worktree was.
    pub place: PathBuf,
    /// What is left of its files.
    pub rest: PathBuf,
}

impl CutOff {
    /// Returns the removals that were cut off in some folders, sorted by place.
    #[must_use]
    pub fn all(dirs: &[PathBuf]) -> Vec<Self> {
        let place = |name: &OsStr| {
            let name = name.to_str()?.strip_prefix('.')?.strip_suffix(GONE)?;
            (!name.is_empty()).then(|| name.to_owned())
        };
        let mut found = Vec::new();
        for dir in dirs {
            let entries = fs::read_dir(dir).into_iter().flatten().flatten();
            let folders = entries.filter(|it| it.file_type().is_ok_and(|kind| kind.is_dir()));
            found.extend(folders.filter_map(|it| {
                Some(Self { place: dir.join(place(&it.file_name())?), rest: it.path() })
            }));
        }
        found.sort_by(|a, b| a.place.cmp(&b.place));
        found
    }

    /// Returns what would be left of a worktree at `place`, where something is.
    #[must_use]
    pub fn of(place: &Path) -> Option<Self> {
        let rest = gone(place);
        is_there(&rest).then(|| Self { place: place.into(), rest })
    }
}

impl Hand {
    /// Returns what git ignores there but for what is named in `keep`: it may be the person's.
    #[must_use]
    pub fn ignored_but(&self, keep: &[String]) -> Vec<&str> {
        let plain = |name: &str| name.trim_matches('/').to_owned();
        let is_made = |name: &&str| keep.iter().any(|kept| plain(kept) == plain(name));
        self.ignored.iter().map(String::as_str).filter(|name| !is_made(name)).collect()
    }
}

impl Repo {
    /// Returns the true path of a place for a worktree, which need not be there; the folder above
    /// it is made.
    ///
    /// # Errors
    /// When the folder above cannot be made or found.
    pub fn hand_path(&self, path: &Path) -> Result<PathBuf, GitError> {
        let (Some(parent), Some(name)) = (path.parent(), path.file_name()) else {
            return Err(GitError::ForeignSlot { path: path.into(), why: "it is the root" });
        };
        fs::create_dir_all(parent).map_err(|source| GitError::File {
            doing: "create",
            path: parent.into(),
            source,
        })?;
        Ok(canonical(parent)?.join(name))
    }

    /// Refuses a place where no worktree can be made without losing something.
    ///
    /// # Errors
    /// [`GitError::ForeignSlot`] with what is there.
    pub fn check_hand_place(&self, path: &Path) -> Result<(), GitError> {
        let taken = |why| Err(GitError::ForeignSlot { path: path.into(), why });
        match self.find_slot(path)? {
            Found::Absent => Ok(()),
            Found::Foreign(why) => taken(why),
            Found::Ready(_) => taken("it is another worktree of this repository"),
            Found::Broken if has_files(path) => taken("files of a broken worktree are there"),
            Found::Broken => Ok(()),
        }
    }

    /// Makes a worktree at `path`, a true path, on `branch` (short name), unless it is there.
    ///
    /// # Errors
    /// [`GitError::ForeignSlot`] when the place is taken; git's failures. To be repeated then.
    pub fn add_hand(&self, path: &Path, branch: &str) -> Result<(), GitError> {
        let gate = self.slot_gate(path)?;
        let admin = match self.find_slot(path)? {
            Found::Ready(admin) => admin,
            Found::Absent | Found::Broken | Found::Foreign(_) => {
                self.check_hand_place(path)?;
                let registry = self.registry_gate()?;
                if !is_there(path) && !is_there(&gone(path)) {
                    self.set_aside(path)?;
                }
                self.clear_slot(&gate, path)?;
                remove_tree("git.hand_gone", &gone(path))?;
                let call = Call::write("git.hand_add", &self.root)
                    .args(["worktree", "add", "--no-checkout", "-q"])
                    .args(self.is_left(&registry, branch)?.then_some("--force"))
                    .args(["--".as_ref(), path.as_os_str(), OsStr::new(branch)]);
                self.git.ok(call.gate(&registry))?;
                let admin = self.admin_of(path)?;
                admin.ok_or_else(|| {
                    GitError::answer("git worktree add", path.as_os_str().as_encoded_bytes())
                })?
            }
        };
        self.fill(&gate, path, &admin)
    }

    /// Fills a person's worktree where making it was interrupted before that.
    ///
    /// # Errors
    /// Git's failures. To be repeated then.
    pub fn finish_hand(&self, path: &Path) -> Result<(), GitError> {
        let gate = self.slot_gate(path)?;
        match self.find_slot(path)? {
            Found::Ready(admin) => self.fill(&gate, path, &admin),
            Found::Absent | Found::Broken | Found::Foreign(_) => Ok(()),
        }
    }

    fn fill(&self, gate: &Gate<'_>, path: &Path, admin: &Path) -> Result<(), GitError> {
        let mark = admin.join(FILLING);
        if admin.join("index").exists() {
            // It was filled, and is the person's since.
            return remove_file(&mark);
        }
        if !mark.exists() {
            if has_files(path) {
                // They lost their index, or removed it; the files are theirs.
                return self.index_anew(gate, path, &admin.join("index"));
            }
            let made = fail::point("git.hand_mark").and_then(|()| fs::write(&mark, ""));
            made.map_err(|source| GitError::File { doing: "write", path: mark.clone(), source })?;
        }
        // What git left that was killed on the way here.
        for name in ["index.lock", "locked"] {
            remove_file(&admin.join(name))?;
        }
        let args = ["read-tree", "--reset", "-u", "HEAD"];
        self.git.ok(Call::write("git.hand_fill", path).args(args).gate(gate))?;
        remove_file(&mark)
    }

    /// Makes the index of a worktree beside its place: a git that is killed leaves no lock on it.
    fn index_anew(&self, gate: &Gate<'_>, path: &Path, index: &Path) -> Result<(), GitError> {
        let new = index.with_file_name("pipeline-index");
        // What git left that was killed here.
        remove_file(&new.with_extension("lock"))?;
        let call = Call::write("git.hand_index", path).args(["read-tree", "HEAD"]);
        self.git.ok(call.env("GIT_INDEX_FILE", &new).gate(gate))?;
        fail::point("git.hand_install")
            .and_then(|()| fs::rename(&new, index))
            .map_err(|source| GitError::File { doing: "write", path: index.into(), source })
    }

    /// Returns whether only worktrees whose folders are gone are on a branch (short name).
    fn is_left(&self, registry: &Gate<'_>, branch: &str) -> Result<bool, GitError> {
        let branch = format!("refs/heads/{branch}");
        let mut found = self.checkouts_after(|| self.clear_cut_off(registry))?;
        found.retain(|checkout| checkout.branch.as_deref() == Some(&branch));
        Ok(!found.is_empty() && found.iter().all(|checkout| checkout.is_gone))
    }

    /// Lets git's entries for a worktree that is not at `path` any more name another place, at which
    /// nothing is, so that one can be made there. In a worktree that was moved git works as before, and
    /// `git worktree repair` there mends its entry; else git prunes it in time.
    fn set_aside(&self, path: &Path) -> Result<(), GitError> {
        for admin in self.admins_of(path)? {
            let mut text = beside(path, ".pipeline-moved").join(".git").into_os_string();
            text.push("\n");
            let (file, new) = (admin.join("gitdir"), admin.join("gitdir.new"));
            let written = fail::point("git.hand_aside")
                .and_then(|()| fs::write(&new, text.as_encoded_bytes()))
                .and_then(|()| fs::rename(&new, &file));
            written.map_err(|source| GitError::File { doing: "write", path: file, source })?;
        }
        Ok(())
    }

    /// Returns how the person's worktree at `path` stands; `None` when no whole one is there.
    ///
    /// # Errors
    /// When git fails there.
    pub fn hand_at(&self, path: &Path) -> Result<Option<Hand>, GitError> {
        let Found::Ready(admin) = self.find_slot(path)? else { return Ok(None) };
        let call = Call::read("git.hand_head", path).args(["rev-parse", "--verify", "HEAD"]);
        let head = one_oid(&self.git.ok(call)?)?;
        let call = Call::read("git.hand_branch", path).args(["symbolic-ref", "-q", "HEAD"]);
        let reply = self.git.run(call)?;
        let branch = (reply.code == 0).then(|| reply.line());
        let under_way = UNDER_WAY.iter().find(|(name, _)| admin.join(name).exists());
        let call = Call::read("git.hand_status", path).args([
            "status",
            "--porcelain=v1",
            "-z",
            "--no-renames",
            "--untracked-files=normal",
            "--ignored=traditional",
            "--ignore-submodules=none",
        ]);
        let (mut unsaved, mut ignored) = (Vec::new(), Vec::new());
        for field in self.git.ok(call)?.texts() {
            let (kind, name) = field.split_at_checked(3).unwrap_or((&field, ""));
            if kind == "!! " { &mut ignored } else { &mut unsaved }.push(name.to_owned());
        }
        let hidden = self.hidden_edits(path, &admin, head.as_str().len())?;
        ignored.extend(hidden.into_iter().filter(|name| !unsaved.contains(name)));
        let under_way = under_way.map(|(_, what)| *what);
        Ok(Some(Hand { head, branch, unsaved, ignored, under_way }))
    }

    /// Returns the edits of files that are flagged in the index, so that git does not look at them.
    fn hidden_edits(
        &self,
        path: &Path,
        admin: &Path,
        digits: usize,
    ) -> Result<Vec<String>, GitError> {
        if !Entries::read(&admin.join("index"), digits)?.has_flags {
            return Ok(Vec::new());
        }
        let gate = self.slot_gate(path)?;
        let index = admin.join("pipeline-look");
        // What git left that was killed here.
        remove_file(&index.with_extension("lock"))?;
        let copied =
            fail::point("git.hand_index").and_then(|()| fs::copy(admin.join("index"), &index));
        copied.map_err(|source| GitError::File { doing: "copy", path: index.clone(), source })?;
        self.unflag(&gate, path, admin, &index)?;
        let args = ["diff", "--name-only", "-z", "--no-renames", "--no-ext-diff"];
        let call = Call::read("git.hand_hidden", path).args(args).env("GIT_INDEX_FILE", &index);
        let names = self.git.ok(call)?.texts();
        remove_file(&index)?;
        Ok(names)
    }

    /// Takes slots of ours in which an agent went to `branch` (full name) off it, where they stand; no
    /// file changes.
    ///
    /// # Errors
    /// When git fails.
    pub fn free_of_slots(&self, branch: &str) -> Result<(), GitError> {
        for checkout in self.checkouts_of(branch)?.iter().filter(|it| !it.is_gone) {
            if let Some(head) = &checkout.head
                && self.is_slot(&checkout.path)?
            {
                let detached = self.detach_hand(&checkout.path, head);
                if matches!(detached, Err(GitError::Killed { .. }))
                    && let Some(admin) = self.admin_of(&checkout.path)?
                {
                    remove_file(&admin.join("HEAD.lock"))?;
                }
                detached?;
            }
        }
        Ok(())
    }

    /// Puts a person's worktree on `branch` (short name) again.
    ///
    /// # Errors
    /// When git refuses, as it does where that would overwrite something.
    pub fn switch_hand(&self, path: &Path, branch: &str) -> Result<(), GitError> {
        let args = ["switch", "-q", "--no-guess", "--no-overwrite-ignore", branch];
        self.git.ok(Call::write("git.hand_switch", path).args(args)).map(|_| ())
    }

    /// Takes a person's worktree off its branch, where it stands; no file changes.
    ///
    /// # Errors
    /// When git fails.
    pub fn detach_hand(&self, path: &Path, head: &Oid) -> Result<(), GitError> {
        let args = ["update-ref", "--no-deref", "HEAD", head.as_str()];
        self.git.ok(Call::write("git.hand_detach", path).args(args)).map(|_| ())
    }

    /// Removes a person's worktree in which nothing would be lost, as [`Repo::hand_at`] has told. It
    /// goes at once, by a rename; what is left when this is interrupted, [`Repo::clear_hand`] removes.
    ///
    /// # Errors
    /// [`GitError::ForeignSlot`] where it is locked or has submodules of its own; files that cannot be
    /// removed.
    pub fn remove_hand(&self, path: &Path) -> Result<(), GitError> {
        let gate = self.slot_gate(path)?;
        let Found::Ready(admin) = self.find_slot(path)? else { return Ok(()) };
        for (name, why) in [("locked", "it is locked"), ("modules", "it has submodules")] {
            if admin.join(name).exists() {
                return Err(GitError::ForeignSlot { path: path.into(), why });
            }
        }
        // One that was made or cloned there and committed as such keeps its commits in the folder.
        if self.modules(path)?.iter().any(|inner| inner.join(".git").exists()) {
            let why = "it holds a repository of its own";
            return Err(GitError::ForeignSlot { path: path.into(), why });
        }
        let gone = gone(path);
        remove_tree("git.hand_gone", &gone)?;
        {
            let _registry = self.registry_gate()?;
            let renamed = fail::point("git.hand_rename").and_then(|()| fs::rename(path, &gone));
            let failed = |source| GitError::File { doing: "rename", path: path.into(), source };
            renamed.map_err(failed)?;
            self.clear_slot(&gate, path)?;
        }
        // Last: as long as it is there, what else is left is known as ours.
        remove_tree("git.hand_gone", &gone)
    }

    /// Removes what is left of a worktree whose making or removal was interrupted; returns whether
    /// git still has an entry for one that somebody else moved or removed, which stays.
    ///
    /// # Errors
    /// Files that cannot be removed.
    pub fn clear_hand(&self, path: &Path) -> Result<bool, GitError> {
        let gate = self.slot_gate(path)?;
        let gone = gone(path);
        let is_ours = is_there(&gone) || is_there(path);
        let is_broken = match self.find_slot(path)? {
            Found::Broken => !has_files(path),
            Found::Absent | Found::Ready(_) | Found::Foreign(_) => false,
        };
        if is_broken && is_ours {
            let _registry = self.registry_gate()?;
            self.clear_slot(&gate, path)?;
        }
        remove_tree("git.hand_gone", &gone)?;
        Ok(is_broken && !is_ours)
    }

    /// Returns the commit that a person names, from where they stand; `None`: there is none.
    ///
    /// # Errors
    /// When git cannot be run.
    pub fn resolve(&self, dir: &Path, name: &str) -> Result<Option<Oid>, GitError> {
        let commit = format!("{name}^{{commit}}");
        let args = ["rev-parse", "--verify", "--quiet", "--end-of-options", &commit];
        let reply = self.git.run(Call::read("git.resolve", dir).args(args))?;
        if reply.code == 0 { one_oid(&reply).map(Some) } else { Ok(None) }
    }
}

/// Returns where a worktree goes that is being removed.
fn gone(path: &Path) -> PathBuf {
    beside(path, GONE)
}

fn beside(path: &Path, ending: &str) -> PathBuf {
    let mut name = OsString::from(".");
    name.push(path.file_name().unwrap_or_default());
    name.push(ending);
    path.with_file_name(name)
}

fn is_there(path: &Path) -> bool {
    fs::symlink_metadata(path).is_ok()
}

/// Returns true when a folder holds more than the link to its repository.
fn has_files(path: &Path) -> bool {
    let entries = fs::read_dir(path).into_iter().flatten().flatten();
    entries.into_iter().any(|entry| entry.file_name() != ".git")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::git::scratch::Scratch;

    struct Case {
        scratch: Scratch,
        path: PathBuf,
    }

    const BRANCH: &str = "pipeline/task/A";

    fn made() -> Case {
        let scratch = Scratch::new();
        scratch.git(["branch", BRANCH]);
        let path = scratch.repo.hand_path(&scratch.root.join(".hand/A")).unwrap();
        scratch.repo.add_hand(&path, BRANCH).unwrap();
        Case { scratch, path }
    }

    fn hand(case: &Case) -> Hand {
        case.scratch.repo.hand_at(&case.path).unwrap().expect("it is there")
    }

    #[test]
    fn a_worktree_is_made_on_its_branch_and_made_again_as_it_is() {
        let case = made();
        let found = hand(&case);
        assert_eq!(found.head, case.scratch.rev("main"));
        assert!(found.unsaved.is_empty() && found.ignored.is_empty());
        fs::write(case.path.join("a.txt"), "mine\n").unwrap();
        case.scratch.repo.add_hand(&case.path, BRANCH).unwrap();
        assert_eq!(hand(&case).unsaved, ["a.txt"]);
        let branch = case.scratch.git_in(&case.path, ["symbolic-ref", "HEAD"]);
        assert_eq!(branch, format!("refs/heads/{BRANCH}"));
    }

    #[test]
    fn one_that_was_not_filled_is_filled() {
        let case = made();
        let admin = case.scratch.repo.admin_of(&case.path).unwrap().expect("its folder");
        fs::remove_file(admin.join("index")).unwrap();
        fs::write(admin.join(FILLING), "").unwrap();
        fs::write(admin.join("index.lock"), "").unwrap();
        fs::write(admin.join("locked"), "initializing").unwrap();
        fs::remove_file(case.path.join("a.txt")).unwrap();
        case.scratch.repo.add_hand(&case.path, BRANCH).unwrap();
        assert!(hand(&case).unsaved.is_empty() && case.path.join("a.txt").exists());
        assert!(!admin.join("locked").exists() && !admin.join(FILLING).exists());
    }

    #[test]
    fn one_that_lost_its_index_keeps_its_files() {
        let case = made();
        let admin = case.scratch.repo.admin_of(&case.path).unwrap().expect("its folder");
        fs::write(case.path.join("a.txt"), "mine\n").unwrap();
        fs::remove_file(admin.join("index")).unwrap();
        case.scratch.repo.add_hand(&case.path, BRANCH).unwrap();
        assert_eq!(fs::read_to_string(case.path.join("a.txt")).unwrap(), "mine\n");
        assert_eq!(hand(&case).unsaved, ["a.txt"]);
    }

    #[test]
    fn edits_that_git_passes_over_are_seen() {
        for flag in ["--skip-worktree", "--assume-unchanged"] {
            let case = made();
            case.scratch.git_in(&case.path, ["update-index", flag, "a.txt"]);
            assert_eq!(hand(&case).ignored, Vec::<String>::new(), "{flag}");
            fs::write(case.path.join("a.txt"), "mine\n").unwrap();
            fs::write(case.path.join("b.txt"), "mine\n").unwrap();
            let admin = case.scratch.repo.admin_of(&case.path).unwrap().expect("its folder");
            fs::write(admin.join("pipeline-look.lock"), "of one that was killed").unwrap();
            let found = hand(&case);
            assert_eq!(
                (found.unsaved, found.ignored),
                (vec!["b.txt".into()], vec!["a.txt".into()]),
                "{flag}"
            );
            let listed = case.scratch.git_in(&case.path, ["ls-files", "-v", "a.txt"]);
            assert!(!listed.starts_with('H'), "the person's index stays as it is: {listed}");
        }
    }

    #[test]
    fn a_removal_that_was_cut_off_goes_on_and_none_is_of_what_is_not_committed() {
        let case = made();
        let (repo, root) = (&case.scratch.repo, &case.scratch.root);
        fs::write(case.path.join("a.txt"), "mine\n").unwrap();
        assert!(repo.remove_checkout(&case.path).is_err());
        assert_eq!(hand(&case).unsaved, ["a.txt"]);
        case.scratch.git_in(&case.path, ["checkout", "-q", "a.txt"]);
        fs::rename(&case.path, gone(&case.path)).unwrap();
        fs::remove_file(gone(&case.path).join("a.txt")).unwrap();
        for _ in 0..2 {
            repo.remove_checkout(&case.path).unwrap();
            assert_eq!(fs::read_dir(root.join(".hand")).unwrap().count(), 0);
            assert_eq!(repo.admins().unwrap(), Vec::<PathBuf>::new());
            repo.add_hand(&case.path, BRANCH).unwrap();
        }
    }

    #[test]
    fn a_repository_of_its_own_inside_is_not_removed() {
        let case = made();
        let inner = case.path.join("inner");
        fs::create_dir(&inner).unwrap();
        case.scratch.git_in(&inner, ["init", "-q"]);
        fs::write(inner.join("lib.c"), "lib").unwrap();
        case.scratch.git_in(&inner, ["add", "-A"]);
        case.scratch.git_in(&inner, ["commit", "-q", "-m", "only here"]);
        case.scratch.git_in(&case.path, ["add", "inner"]);
        case.scratch.git_in(&case.path, ["commit", "-q", "-m", "with it"]);
        assert!(hand(&case).unsaved.is_empty());
        let refused = case.scratch.repo.remove_hand(&case.path);
        assert!(matches!(refused, Err(GitError::ForeignSlot { .. })), "{refused:?}");
        assert!(inner.join("lib.c").exists());
    }

    #[test]
    fn ignored_files_stay_when_a_branch_would_overwrite_them() {
        let case = made();
        let scratch = &case.scratch;
        scratch.repo.detach_hand(&case.path, &hand(&case).head).unwrap();
        let tracked = scratch.commit_on(&scratch.rev("main"), "notes.log", "theirs\n");
        scratch.git(["update-ref", &format!("refs/heads/{BRANCH}"), tracked.as_str()]);
        fs::write(scratch.root.join(".git/info/exclude"), "*.log\n").unwrap();
        fs::write(case.path.join("notes.log"), "mine\n").unwrap();
        assert!(scratch.repo.switch_hand(&case.path, BRANCH).is_err());
        assert_eq!(fs::read_to_string(case.path.join("notes.log")).unwrap(), "mine\n");
    }

    #[test]
    fn places_with_something_in_them_are_refused_and_stay() {
        let case = made();
        let repo = &case.scratch.repo;
        let other = repo.hand_path(&case.scratch.root.join("full")).unwrap();
        fs::create_dir(&other).unwrap();
        repo.check_hand_place(&other).unwrap();
        fs::write(other.join("mine"), "mine").unwrap();
        assert!(matches!(repo.check_hand_place(&other), Err(GitError::ForeignSlot { .. })));
        // A worktree that git was told to forget is a person's all the same.
        let admin = repo.admin_of(&case.path).unwrap().expect("its folder");
        fs::remove_dir_all(admin).unwrap();
        assert!(repo.add_hand(&case.path, BRANCH).is_err());
        assert!(case.path.join("a.txt").exists());
    }

    #[test]
    fn what_is_not_committed_is_seen_and_never_removed() {
        let case = made();
        let repo = &case.scratch.repo;
        fs::write(case.path.join(".gitignore"), "*.log\n").unwrap();
        fs::write(case.path.join("x.log"), "ignored").unwrap();
        let found = hand(&case);
        assert_eq!(
            (found.unsaved, found.ignored),
            (vec![".gitignore".into()], vec!["x.log".into()])
        );
        case.scratch.git_in(&case.path, ["add", "-A"]);
        case.scratch.git_in(&case.path, ["commit", "-q", "-m", "mine"]);
        let head = hand(&case).head;
        assert_eq!(head, case.scratch.rev(BRANCH));
        repo.detach_hand(&case.path, &head).unwrap();
        assert!(repo.checkouts_of(&format!("refs/heads/{BRANCH}")).unwrap().is_empty());
        assert!(hand(&case).unsaved.is_empty() && hand(&case).branch.is_none());
        repo.switch_hand(&case.path, BRANCH).unwrap();
        assert_eq!(hand(&case).branch, Some(format!("refs/heads/{BRANCH}")));
        let name = case.path.to_str().expect("it is UTF-8");
        case.scratch.git(["worktree", "lock", name]);
        assert!(repo.remove_hand(&case.path).is_err() && case.path.exists());
        case.scratch.git(["worktree", "unlock", name]);
        repo.remove_hand(&case.path).unwrap();
        assert!(!case.path.exists() && repo.hand_at(&case.path).unwrap().is_none());
    }

    #[test]
    fn a_removal_that_was_interrupted_is_finished() {
        let case = made();
        let repo = &case.scratch.repo;
        fs::rename(&case.path, gone(&case.path)).unwrap();
        fs::remove_file(gone(&case.path).join(".git")).unwrap();
        repo.clear_hand(&case.path).unwrap();
        assert!(!gone(&case.path).exists() && repo.admin_of(&case.path).unwrap().is_none());
        // One that stands is left alone.
        repo.add_hand(&case.path, BRANCH).unwrap();
        repo.clear_hand(&case.path).unwrap();
        assert!(hand(&case).unsaved.is_empty());
    }

    #[test]
    fn a_merge_under_way_is_seen() {
        let case = made();
        let theirs = case.scratch.commit_on(&case.scratch.rev("main"), "b.txt", "b\n");
        let args = ["merge", "--no-ff", "--no-commit", "-q", theirs.as_str()];
        case.scratch.git_in(&case.path, args);
        assert_eq!(hand(&case).under_way, Some("merge"));
    }

    #[test]
    fn commits_are_found_by_name_and_options_are_none() {
        let scratch = Scratch::new();
        let resolve = |name: &str| scratch.repo.resolve(&scratch.root, name).unwrap();
        assert_eq!(resolve("HEAD"), Some(scratch.rev("main")));
        assert_eq!(
            (resolve("nothing"), resolve("--all"), resolve("HEAD:a.txt")),
            (None, None, None)
        );
    }
}
