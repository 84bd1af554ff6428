//! The base branch follows what has landed, and the landing branch moves on, without ever disturbing
//! the person who has it checked out: nothing is written there but a fast-forward that git itself
//! allows, and no lock is removed.

use std::path::{Path, PathBuf};
use std::time::Duration;

use super::call::Call;
use super::error::{GitError, Stderr};
use super::gate::{Gate, WAIT_MAX};
use super::halfway::{LANDING_NOTE, NOTE, Step, is_refused, is_unwritten};
use super::obstacle::left_branch;
use super::oid::Oid;
use super::refs::{Cas, Checkout};
use super::repo::Repo;
use crate::sys::file::shell_path;

const BASE_GATE: &str = "base.lock";

/// How the base's step towards what has landed ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Follow {
    /// The base contains the commit, by this call or otherwise.
    Followed,
    /// The base is not where it was expected, or has commits that the landing branch lacks: what was
    /// found; `None` when the branch does not exist.
    NotFastForward(Option<Oid>),
    /// The person's checkout does not allow it; nothing was changed there by this call.
    Refused {
        /// What is in the way, for `status`.
        why: String,
        /// What the person can type; `None`: nothing helps but to wait or to look.
        command: Option<String>,
        /// Git's own words; empty when it was not asked.
        stderr: Stderr,
    },
    /// Another git is at work: try again later.
    Locked {
        /// Its lock.
        path: PathBuf,
    },
}

/// While it is held, no step of ours by which the base follows is under way, of this monitor or of one
/// that was killed; nor one of the landing branch in a checkout.
pub struct BaseGate(Gate<'static>);

impl Follow {
    pub(super) fn refused(why: String, command: Option<String>) -> Self {
        Self::Refused { why, command, stderr: Stderr(String::new()) }
    }
}

impl Repo {
    /// Waits until the base can be moved by nobody else of ours.
    ///
    /// # Errors
    /// When another step of the base takes too long, or the gate cannot be opened.
    pub fn base_gate(&self) -> Result<BaseGate, GitError> {
        Ok(BaseGate(Gate::close(&self.gates_dir(), BASE_GATE, None, WAIT_MAX)?))
    }

    /// Returns whether a step of the base has begun, and is under way or was killed; the next one
    /// finds out.
    #[must_use]
    pub fn has_base_step(&self) -> bool {
        self.gates_dir().join(NOTE).exists()
    }

    /// Ends what steps have left that were killed, of the base and of the landing branch, but for locks
    /// of git's; waits up to `wait_max` for one that is under way.
    ///
    /// # Errors
    /// When a git of ours is at work for longer, or it cannot be ended.
    pub fn end_left_steps(&self, wait_max: Duration) -> Result<(), GitError> {
        if ![NOTE, LANDING_NOTE].iter().any(|note| self.gates_dir().join(note).exists()) {
            return Ok(());
        }
        let gate = Gate::close(&self.gates_dir(), BASE_GATE, None, wait_max)?;
        self.settle_left(&BaseGate(gate))
    }

    /// Ends them as the holder of the gate.
    ///
    /// # Errors
    /// As [`Repo::end_left_steps`].
    pub fn settle_left(&self, BaseGate(gate): &BaseGate) -> Result<(), GitError> {
        let settle = |note| match self.noted(note)? {
            Some(noted) => self.settle(gate, note, &noted, true),
            None => Ok(()),
        };
        // Trouble with one keeps nothing from the other.
        let [base, landing] = [NOTE, LANDING_NOTE].map(settle);
        base.and(landing)
    }

    /// Moves the base branch (full name) forward from `expect_old` to `to`: by compare-and-swap when
    /// nobody has it checked out, else by `git merge --ff-only` in that checkout, waited for.
    ///
    /// # Errors
    /// When git cannot be asked; what a person can put right is a [`Follow`].
    pub fn base_follow(
        &self,
        BaseGate(gate): &BaseGate,
        base_branch: &str,
        to: &Oid,
        expect_old: &Oid,
    ) -> Result<Follow, GitError> {
        self.step(&Step { gate, branch: base_branch, note: NOTE }, to, expect_old)
    }

    /// Moves the landing branch (full name) likewise; our own slots that are on it do not count.
    ///
    /// # Errors
    /// As [`Repo::base_follow`], and when the gate cannot be had.
    pub fn landing_follow(
        &self,
        branch: &str,
        to: &Oid,
        expect_old: &Oid,
    ) -> Result<Follow, GitError> {
        if let Some(refused) = self.away()? {
            return Ok(refused);
        }
        let is_under_way = self.gates_dir().join(LANDING_NOTE).exists();
        let is_free = || -> Result<bool, GitError> {
            Ok(self.rewriting(branch, true)?.is_none() && self.persons_on(branch)?.is_empty())
        };
        if !is_under_way && is_free()? {
            if let Some(path) = self.busy_checkout(true)? {
                return Ok(Follow::Locked { path });
            }
            return Ok(match self.cas_ref(branch, Some(to), Some(expect_old))? {
                Cas::Done => Follow::Followed,
                Cas::Moved(found) => Follow::NotFastForward(found),
            });
        }
        let BaseGate(gate) = &self.base_gate()?;
        self.step(&Step { gate, branch, note: LANDING_NOTE }, to, expect_old)
    }

    /// Returns the checkouts of a branch that are no slots of ours.
    pub(super) fn persons_on(&self, branch: &str) -> Result<Vec<Checkout>, GitError> {
        let mut persons = Vec::new();
        for checkout in self.checkouts_of(branch)? {
            if !self.is_slot(&checkout.path)? {
                persons.push(checkout);
            }
        }
        Ok(persons)
    }

    fn step(&self, step: &Step<'_>, to: &Oid, expect_old: &Oid) -> Result<Follow, GitError> {
        if let Some(refused) = self.left_by_killed_merge(step)? {
            return Ok(refused);
        }
        let Some(found) = self.read_ref(step.branch)? else {
            return Ok(Follow::NotFastForward(None));
        };
        if self.is_ancestor(to, &found)? {
            return Ok(Follow::Followed);
        }
        if found != *expect_old || !self.is_ancestor(&found, to)? {
            return Ok(Follow::NotFastForward(Some(found)));
        }
        if let Some(refused) = self.away()? {
            return Ok(refused);
        }
        if let Some(refused) = self.rewriting(step.branch, step.is_landing())? {
            return Ok(refused);
        }
        let checkouts = if step.is_landing() {
            self.persons_on(step.branch)?
        } else {
            self.checkouts_of(step.branch)?
        };
        match checkouts.as_slice() {
            [] => self.swap(step, to, &found),
            [checkout] if checkout.is_gone => {
                let path = checkout.path.display();
                let why = format!("it is checked out in `{path}`, which is gone");
                Ok(Follow::refused(why, Some("git worktree prune".into())))
            }
            [checkout] if self.is_slot(&checkout.path)? => {
                let path = checkout.path.display();
                Ok(Follow::refused(format!("an agent has it checked out in `{path}`"), None))
            }
            [checkout] => self.merge_in_checkout(step, &checkout.path, (&found, to)),
            [first, second, ..] => {
                let (first, second) = (first.path.display(), second.path.display());
                let why = format!("it is checked out twice, in `{first}` and `{second}`");
                Ok(Follow::refused(why, None))
            }
        }
    }

    fn swap(&self, step: &Step<'_>, to: &Oid, found: &Oid) -> Result<Follow, GitError> {
        let branch = step.branch;
        if let Some(path) = self.busy_checkout(step.is_landing())? {
            return Ok(Follow::Locked { path });
        }
        self.note_merge(step.note, &step.noted(found, to, None))?;
        let swapped = self.cas_ref(branch, Some(to), Some(found));
        if let Err(failure @ GitError::Killed { .. }) = swapped {
            return self.left_by_killed_merge(step)?.ok_or(failure);
        }
        self.forget_merge(step.note)?;
        match swapped {
            Ok(Cas::Done) => Ok(Follow::Followed),
            Ok(Cas::Moved(found)) => Ok(Follow::NotFastForward(found)),
            Err(failure) => {
                let path = self.ref_lock(branch);
                if path.exists() { Ok(Follow::Locked { path }) } else { Err(failure) }
            }
        }
    }

    /// Fast-forwards in a person's checkout. That git is in a process group of its own and writes to
    /// files, so it outlives this process; the gate stays closed until it ends.
    fn merge_in_checkout(
        &self,
        step: &Step<'_>,
        dir: &Path,
        (from, to): (&Oid, &Oid),
    ) -> Result<Follow, GitError> {
        let branch = step.branch;
        let admin = match self.admin_of(dir)? {
            Some(admin) => admin,
            None if dir == self.root => self.common.clone(),
            None => return Ok(Follow::refused(format!("git has lost `{}`", dir.display()), None)),
        };
        let locked = || self.locks_in_checkout(&admin, branch).into_iter().next();
        if let Some(path) = locked() {
            return Ok(Follow::Locked { path });
        }
        let lock = self.index_lock(&admin, step.note);
        if lock.is_link() {
            let index = lock.index.display();
            return Ok(Follow::refused(format!("`{index}` is a symbolic link"), None));
        }
        let call = Call::write("git.base_merge", dir)
            .args(["merge", "--ff-only", "--no-squash", "--no-overwrite-ignore", "--no-autostash"])
            .args(["--no-stat", "-q", "--", to.as_str()]);
        let call = self.signed(call, None)?.gate(step.gate).index(&lock);
        let noted = step.noted(from, to, Some(admin.clone()));
        self.note_merge(step.note, &noted)?;
        let taken = lock.take();
        if !matches!(taken, Ok(true)) {
            if !lock.is_ours()? {
                self.forget_merge(step.note)?;
            }
            return taken.map(|_| Follow::Locked { path: lock.lock });
        }
        // While it is taken nobody commits there, or goes where files differ.
        let left = || left_branch(&admin, branch).map(|path| Follow::Locked { path });
        if let Some(refused) = Self::under_way(&admin, dir).or_else(left) {
            lock.release()?;
            self.forget_merge(step.note)?;
            return Ok(refused);
        }
        // Where it died, or is not known to have ended, the next step finds out, behind the gate.
        let reply = self.git.run_outliving(call)?;
        let has_begun = reply.code != 0 && (!is_refused(&reply.stderr) || lock.is_written());
        self.settle(step.gate, step.note, &noted, has_begun)?;
        self.forget_merge(step.note)?;
        let found = self.read_ref(branch)?;
        if found.as_ref() == Some(to) {
            return Ok(Follow::Followed);
        }
        if let Some(path) = locked() {
            return Ok(Follow::Locked { path });
        }
        match &found {
            Some(found) if self.is_ancestor(to, found)? => Ok(Follow::Followed),
            Some(found) if self.is_ancestor(found, to)? => {
                if is_unwritten(&reply.stderr) {
                    return Err(reply.failure(dir));
                }
                self.obstructed(dir, (found, to), step.is_landing(), Stderr(reply.stderr))
            }
            Some(_) | None => Ok(Follow::NotFastForward(found)),
        }
    }

    /// Returns the locks that stand in the way of a fast-forward, the index first.
    pub(super) fn locks_in_checkout(&self, admin: &Path, branch: &str) -> Vec<PathBuf> {
        let names = ["index.lock", "HEAD.lock", "ORIG_HEAD.lock"];
        let mut locks: Vec<PathBuf> = names.iter().map(|name| admin.join(name)).collect();
        locks.push(self.ref_lock(branch));
        locks.retain(|path| path.exists());
        locks
    }
}

/// Returns the command by which a checkout leaves its branch, with all that is in it.
#[must_use]
pub fn leave_command(dir: &Path) -> String {
    format!("git -C {} switch --detach", shell_path(dir))
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::slice;
    use std::time::SystemTime;

    use super::*;
    use crate::git::SlotRequest;
    use crate::git::halfway::Noted;
    use crate::git::index_lock::IndexLock;
    use crate::git::scratch::Scratch;
    use crate::sys::child;

    const MAIN: &str = "refs/heads/main";

    struct Case {
        scratch: Scratch,
        old: Oid,
        to: Oid,
    }

    impl Case {
        /// `main` is checked out at `old`; `to` changes line 1 of `a.txt` and adds `new.txt`.
        fn new() -> Self {
            let scratch = Scratch::new();
            let old = scratch.rev("HEAD");
            let text = "one\n2\n3\n4\n5\n6\n7\n8\n9\n10\n";
            let to = scratch.commit_on(&old, "a.txt", text);
            let to = scratch.commit_on(&to, "new.txt", "new");
            Self { scratch, old, to }
        }

        fn follow(&self) -> Follow {
            let repo = &self.scratch.repo;
            repo.base_follow(&repo.base_gate().unwrap(), MAIN, &self.to, &self.old).unwrap()
        }

        fn noted(&self, is_checked_out: bool) -> Noted {
            let admin = is_checked_out.then(|| self.scratch.repo.common.clone());
            Noted { from: self.old.clone(), to: self.to.clone(), branch: MAIN.to_owned(), admin }
        }

        fn write(&self, path: &str, text: &str) {
            fs::write(self.scratch.root.join(path), text).unwrap();
        }

        fn run(&self, line: &str) {
            child::command("sh", &self.scratch.root).args(["-c", line]).output().unwrap();
        }

        fn text(&self, path: &str) -> Option<String> {
            fs::read_to_string(self.scratch.root.join(path)).ok()
        }

        fn assert_untouched(&self) {
            assert_eq!(self.scratch.rev(MAIN), self.old);
            assert!(!self.scratch.root.join(".git/pipeline/git").join(NOTE).exists());
        }
    }

    #[test]
    fn a_base_that_nobody_has_checked_out_is_swapped() {
        let case = Case::new();
        case.scratch.git(["checkout", "-q", "--detach"]);
        for _ in 0..2 {
            assert_eq!(case.follow(), Follow::Followed);
        }
        assert_eq!(case.scratch.rev(MAIN), case.to);
        assert_eq!(case.text("new.txt"), None);
    }

    #[test]
    fn a_clean_checkout_is_fast_forwarded() {
        let case = Case::new();
        case.scratch.git(["config", "branch.main.mergeOptions", "--squash"]);
        for _ in 0..2 {
            assert_eq!(case.follow(), Follow::Followed);
        }
        assert_eq!(case.text("new.txt").as_deref(), Some("new"));
        assert_eq!(case.scratch.git(["status", "--porcelain"]), "");
    }

    #[test]
    fn edits_elsewhere_stay_as_they_are() {
        let case = Case::new();
        case.write("mine.txt", "mine");
        case.write("other.txt", "x");
        case.scratch.git(["add", "other.txt"]);
        assert_eq!(case.follow(), Follow::Followed);
        assert_eq!(case.text("mine.txt").as_deref(), Some("mine"));
        assert_eq!(case.scratch.git(["status", "--porcelain"]), "A  other.txt\n?? mine.txt");
    }

    #[test]
    fn what_is_in_the_way_is_refused_and_nothing_changes() {
        let case = Case::new();
        case.scratch.git(["config", "merge.autoStash", "true"]);
        case.write("a.txt", "mine");
        assert!(matches!(case.follow(), Follow::Refused { .. }));
        assert_eq!(case.text("a.txt").as_deref(), Some("mine"));
        case.scratch.git(["checkout", "-q", "a.txt"]);

        case.write("new.txt", "untracked");
        let Follow::Refused { stderr, command, .. } = case.follow() else { panic!("followed") };
        assert!(stderr.0.contains("new.txt"), "{stderr}");
        assert!(command.is_some());
        case.write(".git/info/exclude", "new.txt\n");
        let Follow::Refused { command, .. } = case.follow() else { panic!("followed") };
        assert_eq!(case.text("new.txt").as_deref(), Some("untracked"));
        case.assert_untouched();

        case.write("new.txt.aside-1", "older");
        case.run(&command.expect("what moves it away"));
        assert_eq!(
            case.text("new.txt.aside-1").as_deref(),
            Some("older"),
            "nothing is overwritten"
        );
        assert_eq!(case.scratch.rev(MAIN), case.old);
        let Follow::Refused { command, .. } = case.follow() else { panic!("followed") };
        case.run(&command.expect("what moves it away"));
        assert_eq!(case.scratch.rev(MAIN), case.to);
        assert_eq!(case.text("new.txt.aside-1").as_deref(), Some("older"));
        assert_eq!(case.text("new.txt.aside-2").as_deref(), Some("untracked"));
    }

    #[test]
    fn a_lock_in_the_checkout_means_later_and_stays() {
        let case = Case::new();
        let lock = case.scratch.root.join(".git/index.lock");
        fs::write(&lock, "").unwrap();
        assert_eq!(case.follow(), Follow::Locked { path: lock.clone() });
        assert!(lock.exists());
        case.assert_untouched();
        fs::remove_file(lock).unwrap();
        assert_eq!(case.follow(), Follow::Followed);
    }

    #[test]
    fn a_locked_ref_means_later_and_stays() {
        let case = Case::new();
        case.scratch.git(["checkout", "-q", "--detach"]);
        let lock = case.scratch.root.join(".git/refs/heads/main.lock");
        fs::write(&lock, "").unwrap();
        assert_eq!(case.follow(), Follow::Locked { path: lock.clone() });
        assert!(lock.exists());
    }

    #[test]
    fn commits_of_a_person_are_not_a_fast_forward() {
        let case = Case::new();
        let person = case.scratch.commit_on(&case.old, "p", "p");
        case.scratch.git(["reset", "-q", "--hard", person.as_str()]);
        assert_eq!(case.follow(), Follow::NotFastForward(Some(person.clone())));
        // The person took a commit back: it is not put there again.
        let repo = &case.scratch.repo;
        let further = case.scratch.commit_on(&person, "q", "q");
        case.scratch.git(["reset", "-q", "--hard", case.old.as_str()]);
        let found = repo.base_follow(&repo.base_gate().unwrap(), MAIN, &further, &person).unwrap();
        assert_eq!(found, Follow::NotFastForward(Some(case.old.clone())));
        let found = repo
            .base_follow(&repo.base_gate().unwrap(), "refs/heads/none", &case.to, &case.old)
            .unwrap();
        assert_eq!(found, Follow::NotFastForward(None));
    }

    #[test]
    fn a_base_beyond_the_goal_has_followed() {
        let case = Case::new();
        assert_eq!(case.follow(), Follow::Followed);
        let person = case.scratch.commit_on(&case.to, "p", "p");
        case.scratch.git(["reset", "-q", "--hard", person.as_str()]);
        assert_eq!(case.follow(), Follow::Followed);
        assert_eq!(case.scratch.rev(MAIN), person);
    }

    #[test]
    fn a_checkout_that_the_shared_settings_move_away_is_left_alone() {
        let case = Case::new();
        let elsewhere = case.scratch.home().join("elsewhere");
        fs::create_dir(&elsewhere).unwrap();
        let elsewhere = elsewhere.to_str().unwrap();
        for (name, value) in [("core.bare", "true"), ("core.worktree", elsewhere)] {
            case.scratch.git(["config", name, value]);
            let Follow::Refused { why, command, .. } = case.follow() else { panic!("followed") };
            assert!(why.contains(name), "{why}");
            case.assert_untouched();
            case.scratch.git(["branch", "-f", "pipeline/landed", case.old.as_str()]);
            let landed = "refs/heads/pipeline/landed";
            let step = case.scratch.repo.landing_follow(landed, &case.to, &case.old).unwrap();
            assert!(matches!(step, Follow::Refused { .. }), "{step:?}");
            case.run(&command.expect("what sets it back"));
        }
        assert!(fs::read_dir(elsewhere).unwrap().next().is_none());
        // As in the main checkout of a submodule: set, and it leads here.
        case.scratch.git(["config", "core.worktree", ".."]);
        assert_eq!(case.scratch.repo.displaced().unwrap(), None);
        assert_eq!(case.follow(), Follow::Followed);
        assert_eq!(case.scratch.git(["status", "--porcelain"]), "");
    }

    #[test]
    fn a_rebase_or_a_merge_under_way_is_refused() {
        let case = Case::new();
        let git = case.scratch.root.join(".git");
        fs::create_dir(git.join("rebase-merge")).unwrap();
        fs::write(git.join("rebase-merge/head-name"), "refs/heads/main\n").unwrap();
        let Follow::Refused { why, .. } = case.follow() else { panic!("followed") };
        assert!(why.contains("rebase"));
        fs::remove_dir_all(git.join("rebase-merge")).unwrap();
        fs::write(git.join("MERGE_HEAD"), format!("{}\n", case.old)).unwrap();
        let Follow::Refused { why, .. } = case.follow() else { panic!("followed") };
        assert!(why.contains("a merge is under way"));
        case.assert_untouched();
    }

    #[test]
    fn a_linked_worktree_of_the_user_is_fast_forwarded() {
        let case = Case::new();
        case.scratch.git(["checkout", "-q", "--detach"]);
        let linked = case.scratch.home().join("linked it's");
        case.scratch.git(["worktree", "add", "-q", linked.to_str().unwrap(), "main"]);
        assert_eq!(case.follow(), Follow::Followed);
        assert_eq!(fs::read_to_string(linked.join("new.txt")).unwrap(), "new");
        assert_eq!(case.text("new.txt"), None);
    }

    #[test]
    fn a_git_folder_elsewhere_is_followed_in_the_projects_root() {
        for is_link in [true, false] {
            let mut case = Case::new();
            let (own, gd) = (case.scratch.root.join(".git"), case.scratch.home().join("gd"));
            fs::rename(&own, &gd).unwrap();
            if is_link {
                std::os::unix::fs::symlink(&gd, &own).unwrap();
            } else {
                fs::write(&own, format!("gitdir: {}\n", gd.display())).unwrap();
            }
            case.scratch.repo = case.scratch.reopened();
            case.write("new.txt", "untracked");
            let Follow::Refused { command, .. } = case.follow() else { panic!("followed") };
            let command = command.expect("what moves it away");
            assert!(command.starts_with(&format!("cd '{}' && mv", case.scratch.root.display())));
            case.run(&command);
            assert_eq!(case.scratch.rev(MAIN), case.to);
            assert_eq!(case.follow(), Follow::Followed);
            assert_eq!(case.text("new.txt").as_deref(), Some("new"));
        }
    }

    /// A fast-forward that was killed with its monitor when git had done so much.
    fn killed(case: &Case, git: &[&[&str]]) -> IndexLock {
        let (repo, root) = (&case.scratch.repo, &case.scratch.root);
        fs::create_dir_all(repo.gates_dir()).unwrap();
        repo.note_merge(NOTE, &case.noted(true)).unwrap();
        let lock = repo.index_lock(&root.join(".git"), NOTE);
        assert!(lock.take().unwrap());
        for args in git {
            let call = Call::write("git.x", root).args(*args).env("GIT_INDEX_FILE", &lock.copy);
            repo.git.ok(call).unwrap();
        }
        lock
    }

    #[test]
    fn a_fast_forward_killed_at_any_step_leaves_nothing_to_a_person() {
        for done in 0..4 {
            let case = Case::new();
            case.write("mine.txt", "mine");
            case.write("staged.txt", "mine");
            case.scratch.git(["add", "staged.txt"]);
            let update = ["read-tree", "-m", "-u", case.old.as_str(), case.to.as_str()];
            let moved = ["update-ref", "HEAD", case.to.as_str()];
            let lock = killed(&case, &[&update[..], &moved[..]][..done.min(2)]);
            if done == 3 {
                fs::rename(&lock.copy, &lock.index).unwrap();
            }
            let next = case.scratch.commit_on(&case.to, "next.txt", "next");
            let at = case.scratch.rev("HEAD");
            let repo = &case.scratch.repo;
            let followed = repo.base_follow(&repo.base_gate().unwrap(), MAIN, &next, &at).unwrap();
            assert_eq!(followed, Follow::Followed, "{done}");
            let status = case.scratch.git(["status", "--porcelain"]);
            assert_eq!(status, "A  staged.txt\n?? mine.txt", "{done}");
            assert!(!lock.lock.exists() && !lock.copy.exists());
            assert!(!repo.has_base_step());
        }
    }

    #[test]
    fn what_a_fast_forward_wrote_goes_where_the_branch_went_elsewhere() {
        let case = Case::new();
        case.write("p.txt", "p");
        case.scratch.git(["add", "p.txt"]);
        let update = ["read-tree", "-m", "-u", case.old.as_str(), case.to.as_str()];
        let lock = killed(&case, &[&update]);
        case.write("new.txt", "ne");
        case.write("a.txt", "edited since\n");
        // A commit that had read the index before it was locked.
        let person = case.scratch.commit_on(&case.old, "p.txt", "p");
        case.scratch.git(["update-ref", "HEAD", person.as_str()]);
        assert_eq!(case.follow(), Follow::NotFastForward(Some(person)));
        assert_eq!(case.scratch.git(["status", "--porcelain"]), " M a.txt");
        assert_eq!(case.text("a.txt").as_deref(), Some("edited since\n"));
        assert!(!lock.lock.exists());
    }

    #[test]
    fn a_lock_of_another_git_on_the_index_is_not_taken_for_ours() {
        let case = Case::new();
        let lock = killed(&case, &[]);
        for text in ["", "DIRC", &"x".repeat(fs::read(&lock.lock).unwrap().len())] {
            fs::write(&lock.lock, text).unwrap();
            assert_eq!(case.follow(), Follow::Locked { path: lock.lock.clone() });
            assert_eq!(fs::read_to_string(&lock.lock).unwrap(), text);
        }
    }

    #[test]
    fn a_shell_that_is_killed_is_waited_for_with_its_git() {
        let case = Case::new();
        let leader = "$(cut -d ' ' -f 5 /proc/self/stat)";
        // Until the monitor has taken note of its end.
        let wait = "while kill -0 $l; do sleep 0.01; done";
        let ended = follow_during(&case, &format!("l={leader}; kill -9 $l; {wait}"));
        assert!(matches!(ended, Err(GitError::Killed { signal: 9, .. })), "{ended:?}");
        assert_eq!(case.follow(), Follow::Followed);
        assert_eq!(case.scratch.git(["status", "--porcelain"]), "");
    }

    #[test]
    fn a_base_in_a_slot_is_left_alone_until_the_agent_is_done() {
        let case = Case::new();
        case.scratch.git(["checkout", "-q", "--detach"]);
        let slot = case.scratch.root.join(".pipeline/worktrees/impl/1");
        let at = &case.old;
        let request = SlotRequest { path: &slot, at, keep: &[], merge: None, is_ready: false };
        case.scratch.repo.prepare_slot(&request).unwrap();
        case.scratch.git_in(&slot, ["checkout", "-q", "main"]);
        let Follow::Refused { why, .. } = case.follow() else { panic!("followed") };
        assert!(why.contains("an agent"));
        case.scratch.repo.prepare_slot(&request).unwrap();
        assert_eq!(case.follow(), Follow::Followed);
    }

    #[test]
    fn a_lock_of_our_killed_git_comes_with_a_command() {
        for name in ["ORIG_HEAD", "AUTO_MERGE", "packed-refs", "refs/heads/main"] {
            let case = Case::new();
            let (repo, root) = (&case.scratch.repo, &case.scratch.root);
            fs::create_dir_all(repo.gates_dir()).unwrap();
            repo.note_merge(NOTE, &case.noted(true)).unwrap();
            let lock = root.join(format!(".git/{name}.lock"));
            fs::write(&lock, "").unwrap();
            let Follow::Refused { command: Some(command), .. } = case.follow() else { panic!() };
            assert!(lock.exists());
            let mut shell = child::command("sh", root);
            assert!(shell.args(["-c", &command]).status().unwrap().success());
            assert_eq!(case.follow(), Follow::Followed, "{name}");
        }
    }

    #[test]
    fn a_lock_on_a_base_that_nobody_has_checked_out_comes_with_a_command() {
        let case = Case::new();
        let (repo, root) = (&case.scratch.repo, &case.scratch.root);
        case.scratch.git(["checkout", "-q", "--detach"]);
        fs::create_dir_all(repo.gates_dir()).unwrap();
        repo.note_merge(NOTE, &case.noted(false)).unwrap();
        fs::write(root.join(".git/refs/heads/main.lock"), "").unwrap();
        let Follow::Refused { command: Some(command), .. } = case.follow() else { panic!() };
        let mut shell = child::command("sh", root);
        assert!(shell.args(["-c", &command]).status().unwrap().success());
        assert_eq!(case.follow(), Follow::Followed);
        assert!(!repo.gates_dir().join(NOTE).exists());
    }

    /// Follows while a person runs `script` just as git has begun.
    fn follow_during(case: &Case, script: &str) -> Result<Follow, GitError> {
        let place = case.scratch.home().join("person.sh");
        let once = case.scratch.home().join("once");
        let place = place.to_str().unwrap();
        // Git has a filter read what looks changed when it has read the index.
        let text = format!(
            "cat\nmkdir '{}' 2>/dev/null || exit 0\nunset GIT_INDEX_FILE\n({script}) >&2\nexit 0\n",
            once.display()
        );
        fs::write(place, text).unwrap();
        case.write(".git/info/attributes", "a.txt filter=slow\n");
        case.scratch.git(["config", "filter.slow.clean", &format!("sh '{place}'")]);
        let file = fs::File::options().append(true).open(case.scratch.root.join("a.txt")).unwrap();
        file.set_modified(SystemTime::UNIX_EPOCH).unwrap();
        let repo = &case.scratch.repo;
        let ended = repo.base_follow(&repo.base_gate().unwrap(), MAIN, &case.to, &case.old);
        assert!(once.exists(), "git called no filter");
        ended
    }

    #[test]
    fn what_a_person_adds_meanwhile_falls_out_of_no_index() {
        let case = Case::new();
        let mine = "echo p >p.txt; git add p.txt && git commit -q -m mine";
        assert_eq!(follow_during(&case, mine).unwrap(), Follow::Followed);
        assert_eq!(case.scratch.git(["status", "--porcelain"]), "?? p.txt");
    }

    #[test]
    fn a_lock_that_a_person_removes_meanwhile_costs_no_index() {
        let case = Case::new();
        let mine = "rm .git/index.lock; echo p >p.txt; git add p.txt";
        assert_eq!(follow_during(&case, mine).unwrap(), Follow::Followed);
        assert_eq!(case.scratch.git(["status", "--porcelain"]), "A  p.txt");
        assert_eq!(case.scratch.git(["ls-files", "new.txt"]), "new.txt");
    }

    #[test]
    fn a_lock_that_is_anothers_by_the_end_stays_and_is_waited_for() {
        let case = Case::new();
        let lock = case.scratch.root.join(".git/index.lock");
        follow_during(&case, "rm .git/index.lock; echo another >.git/index.lock").unwrap_err();
        assert_eq!(fs::read_to_string(&lock).unwrap(), "another\n");
        fs::remove_file(&lock).unwrap();
        assert_eq!(case.follow(), Follow::Followed);
        assert_eq!(case.scratch.git(["status", "--porcelain"]), "");
    }

    #[test]
    fn what_was_left_is_ended_without_a_further_step() {
        let case = Case::new();
        let update = ["read-tree", "-m", "-u", case.old.as_str(), case.to.as_str()];
        let moved = ["update-ref", "HEAD", case.to.as_str()];
        let lock = killed(&case, &[&update, &moved]);
        assert_eq!(case.scratch.repo.cut_short().unwrap(), slice::from_ref(&lock.lock));
        case.scratch.repo.end_left_steps(Duration::ZERO).unwrap();
        assert!(!lock.lock.exists());
        assert_eq!(case.scratch.git(["status", "--porcelain"]), "");
    }

    #[test]
    fn what_was_left_in_a_linked_worktree_is_ended_there_and_in_no_copy() {
        let case = Case::new();
        let (repo, linked) = (&case.scratch.repo, case.scratch.home().join("linked"));
        case.scratch.git(["checkout", "-q", "--detach"]);
        case.scratch.git(["worktree", "add", "-q", linked.to_str().unwrap(), "main"]);
        let admin = repo.admin_of(&linked).unwrap().unwrap();
        fs::create_dir_all(repo.gates_dir()).unwrap();
        repo.note_merge(NOTE, &Noted { admin: Some(admin.clone()), ..case.noted(true) }).unwrap();
        let lock = repo.index_lock(&admin, NOTE);
        assert!(lock.take().unwrap());
        fs::write(linked.join("new.txt"), "ne").unwrap();
        let copy = case.scratch.home().join("copy");
        let mut cp = child::command("cp", &case.scratch.root);
        assert!(cp.arg("-a").arg(&case.scratch.root).arg(&copy).status().unwrap().success());
        let other = Repo::discover_by(repo.git.clone(), &copy).unwrap();
        other.end_left_steps(Duration::ZERO).unwrap();
        assert!(linked.join("new.txt").exists() && lock.lock.exists());
        repo.end_left_steps(Duration::ZERO).unwrap();
        assert!(!linked.join("new.txt").exists() && !lock.lock.exists());
    }

    #[test]
    fn an_index_that_is_no_longer_of_that_step_stays_as_it_is() {
        let case = Case::new();
        let moved = ["update-ref", "HEAD", case.to.as_str()];
        let lock = killed(&case, &[&moved]);
        fs::remove_file(&lock.lock).unwrap();
        // What a person takes back by a commit of their own.
        let tree = format!("{}^{{tree}}", case.old);
        let back = case.scratch.git(["commit-tree", &tree, "-p", case.to.as_str(), "-m", "back"]);
        case.scratch.git(["update-ref", "HEAD", &back]);
        case.scratch.repo.end_left_steps(Duration::ZERO).unwrap();
        assert_eq!(case.scratch.git(["status", "--porcelain"]), "");
        assert!(!lock.copy.exists());
    }

    #[test]
    fn an_index_that_is_a_link_is_left_alone() {
        let case = Case::new();
        let (index, kept) = (case.scratch.root.join(".git/index"), case.scratch.home().join("i"));
        fs::rename(&index, &kept).unwrap();
        std::os::unix::fs::symlink(&kept, &index).unwrap();
        let Follow::Refused { why, .. } = case.follow() else { panic!("followed") };
        assert!(why.contains("symbolic link"), "{why}");
        case.assert_untouched();
    }
}
