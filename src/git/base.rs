//! The base branch follows what has landed, and the landing branch moves on, without ever disturbing
//! the person who has it checked out: nothing is written there but a fast-forward that git itself
//! allows, and no lock is removed.

use std::io;
use std::path::{Path, PathBuf};

use super::call::Call;
use super::error::{GitError, Stderr};
use super::gate::{Gate, WAIT_MAX};
use super::halfway::{STAGED, has_begun};
use super::obstacle::left_branch;
use super::oid::Oid;
use super::refs::{Cas, Checkout};
use super::repo::Repo;
use crate::sys::fail;
use crate::sys::file::{read_bounded, shell_path};

/// Note that a fast-forward has begun, and of which checkout if any; left over when its git was
/// killed, or only the branch was left to move.
const NOTE: &str = "base-follow";
/// The same of the landing branch.
const LANDING_NOTE: &str = "landing-follow";
/// Bound of that note: two paths' worth.
const NOTE_BYTES_MAX: u64 = 16 * 1024;

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

/// A branch that is moved by the holder of the gate.
struct Step<'a> {
    gate: &'a Gate<'a>,
    /// By full name.
    branch: &'a str,
    note: &'static str,
}

impl Step<'_> {
    fn is_landing(&self) -> bool {
        self.note == LANDING_NOTE
    }
}

/// What a step of the base that was killed has left.
enum Left {
    Nothing,
    /// It had begun to move to this commit; some or all files of a checkout may stand there.
    Begun(Oid),
    /// Locks, which are the person's to remove.
    Locked(Follow),
}

impl Left {
    fn refused(self) -> Option<Follow> {
        match self {
            Self::Locked(refused) => Some(refused),
            Self::Nothing | Self::Begun(_) => None,
        }
    }
}

impl Follow {
    fn refused(why: String, command: Option<String>) -> Self {
        Self::Refused { why, command, stderr: Stderr(String::new()) }
    }
}

impl Repo {
    /// Waits until the base can be moved by nobody else of ours.
    ///
    /// # Errors
    /// When another step of the base takes too long, or the gate cannot be opened.
    pub fn base_gate(&self) -> Result<BaseGate, GitError> {
        Ok(BaseGate(Gate::close(&self.gates_dir(), "base.lock", None, WAIT_MAX)?))
    }

    /// Returns whether a step of the base has begun, and is under way or was killed; the next one
    /// finds out.
    #[must_use]
    pub fn has_base_step(&self) -> bool {
        self.gates_dir().join(NOTE).exists()
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

    /// Returns why git no longer takes the project's folder for its checkout, as when an agent set
    /// `core.bare` or `core.worktree` for all, and the command that sets it back: files would be
    /// written elsewhere, or not at all.
    ///
    /// # Errors
    /// When git fails.
    pub fn displaced(&self) -> Result<Option<(String, String)>, GitError> {
        let call = Call::read("git.base_place", &self.root).args([
            "rev-parse",
            "--is-bare-repository",
            "--is-inside-work-tree",
            "--show-cdup",
        ]);
        let reply = self.git.ok(call)?;
        let (config, root) = (self.common.join("config"), shell_path(&self.root));
        let (name, command) = match reply.line().lines().collect::<Vec<_>>().as_slice() {
            ["false", "true"] | ["false", "true", ""] => return Ok(None),
            ["true", ..] => ("core.bare", format!("git -C {root} config core.bare false")),
            _ => ("core.worktree", format!("git -C {root} config --unset core.worktree")),
        };
        let why = format!("somebody set `{name}` in `{}`", config.display());
        Ok(Some((why, command)))
    }

    /// Returns the refusal where the checkout is displaced.
    fn away(&self) -> Result<Option<Follow>, GitError> {
        let displaced = self.displaced()?;
        Ok(displaced.map(|(why, command)| Follow::refused(why, Some(command))))
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
        let begun = match self.left_by_killed_merge(step)? {
            Left::Nothing => None,
            Left::Begun(to) => Some(to),
            Left::Locked(refused) => return Ok(refused),
        };
        let found = self.read_ref(step.branch)?;
        let is_on_way = |begun: &Oid| {
            found
                .as_ref()
                .is_some_and(|found| found != begun && self.lies_between(found, begun, to))
        };
        let begun = begun.filter(is_on_way);
        if begun.is_none() {
            self.forget_merge(step.note)?;
        }
        let Some(found) = found else {
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
            [checkout] => {
                // The files may stand there already, which would be in the way of any other goal.
                let begun =
                    begun.filter(|begun| begun != to && self.lies_between(&found, begun, to));
                if let Some(begun) = begun
                    && let locked @ Follow::Locked { .. } =
                        self.merge_in_checkout(step, &checkout.path, &begun)?
                {
                    return Ok(locked);
                }
                self.merge_in_checkout(step, &checkout.path, to)
            }
            [first, second, ..] => {
                let (first, second) = (first.path.display(), second.path.display());
                let why = format!("it is checked out twice, in `{first}` and `{second}`");
                Ok(Follow::refused(why, None))
            }
        }
    }

    /// Returns whether `middle` is on the way from `old` to `new`; what cannot be told is not.
    fn lies_between(&self, old: &Oid, middle: &Oid, new: &Oid) -> bool {
        let is_ancestor = |a, b| self.is_ancestor(a, b).unwrap_or(false);
        is_ancestor(old, middle) && is_ancestor(middle, new)
    }

    fn swap(&self, step: &Step<'_>, to: &Oid, found: &Oid) -> Result<Follow, GitError> {
        let branch = step.branch;
        if let Some(path) = self.busy_checkout(step.is_landing())? {
            return Ok(Follow::Locked { path });
        }
        self.note_merge(step.note, None, to)?;
        let swapped = self.cas_ref(branch, Some(to), Some(found));
        if let Err(failure @ GitError::Killed { .. }) = swapped {
            return self.left_by_killed_merge(step)?.refused().ok_or(failure);
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
    fn merge_in_checkout(&self, step: &Step<'_>, dir: &Path, to: &Oid) -> Result<Follow, GitError> {
        let branch = step.branch;
        let admin = self.admin_of(dir)?.unwrap_or_else(|| self.common.clone());
        let locked = || self.locks_in_checkout(&admin, branch).into_iter().next();
        if let Some(path) = locked() {
            return Ok(Follow::Locked { path });
        }
        if let Some(refused) = Self::under_way(&admin, dir) {
            return Ok(refused);
        }
        if let Some(path) = left_branch(&admin, branch) {
            return Ok(Follow::Locked { path });
        }
        self.note_merge(step.note, Some(dir), to)?;
        let call = Call::write("git.base_merge", dir)
            .args(["merge", "--ff-only", "--no-squash", "--no-overwrite-ignore", "--no-autostash"])
            .args(["--no-stat", "-q", "--", to.as_str()]);
        let reply = match self.git.run_outliving(self.signed(call, None)?.gate(step.gate)) {
            Ok(reply) => reply,
            Err(failure @ GitError::Killed { .. }) => {
                return self.left_by_killed_merge(step)?.refused().ok_or(failure);
            }
            Err(failure) => return Err(failure),
        };
        let found = self.read_ref(branch)?;
        if let Some(found) = found.as_ref().filter(|found| *found != to)
            && self.is_ancestor(found, to)?
        {
            let changes = self.changes(dir, found, to)?;
            let has_begun = has_begun(&reply.stderr);
            let is_staged = match self.is_staged(dir, &changes, to) {
                Err(failure) if has_begun => return Err(failure),
                looked => looked.unwrap_or(false),
            };
            if is_staged {
                // Only the branch is behind, and this very fast-forward moves it.
                self.note_staged(step.note, dir, to)?;
                let path = locked().ok_or_else(|| reply.failure(dir))?;
                return Ok(Follow::Locked { path });
            }
            if has_begun {
                self.take_back(step.gate, step.note, dir, &changes, (found, to))?;
                self.forget_merge(step.note)?;
                return Err(reply.failure(dir));
            }
        }
        self.forget_merge(step.note)?;
        if found.as_ref() == Some(to) {
            return Ok(Follow::Followed);
        }
        if let Some(path) = locked() {
            return Ok(Follow::Locked { path });
        }
        match &found {
            Some(found) if self.is_ancestor(to, found)? => Ok(Follow::Followed),
            Some(found) if self.is_ancestor(found, to)? => {
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

    /// Returns the refusal for a checkout in which a git of ours was killed half-way and left its
    /// locks; it is the person's to put right, since edits may have been made since.
    fn left_by_killed_merge(&self, step: &Step<'_>) -> Result<Left, GitError> {
        let branch = step.branch;
        let path = self.gates_dir().join(step.note);
        let read = fail::point("git.read_note").and_then(|()| read_bounded(&path, NOTE_BYTES_MAX));
        let file = |source: io::Error| GitError::File { doing: "read", path: path.clone(), source };
        let Some(bytes) = read.map_err(file)? else { return Ok(Left::Nothing) };
        let text = String::from_utf8_lossy(&bytes).into_owned();
        if let Some((_, "")) = text.split_once('\n') {
            let lock = self.ref_lock(branch);
            if lock.exists() {
                let path = lock.display();
                let why = format!("a git that moved it was killed half-way and left `{path}`");
                let command = format!("rm -f {}", shell_path(&lock));
                return Ok(Left::Locked(Follow::refused(why, Some(command))));
            }
        } else if let Some((to, dir)) = text.split_once('\n') {
            if let Some(Ok(to)) = to.strip_suffix(STAGED).map(str::parse) {
                // That git has ended, so locks are another's.
                return Ok(Left::Begun(to));
            }
            let dir = Path::new(dir);
            let admin = self.admin_of(dir)?.unwrap_or_else(|| self.common.clone());
            let mut locks = self.locks_in_checkout(&admin, branch);
            // Those that git takes on its way out, when the branch has moved; they stop no other
            // fast-forward.
            let last = [admin.join("AUTO_MERGE.lock"), self.common.join("packed-refs.lock")];
            locks.extend(last.into_iter().filter(|path| path.exists()));
            if let Some(lock) = locks.first() {
                let why = format!(
                    "a fast-forward of `{}` was killed half-way and left `{}`; when no git runs there",
                    dir.display(),
                    lock.display()
                );
                let command = repair_command(dir, &locks, to);
                return Ok(Left::Locked(Follow::refused(why, Some(command))));
            }
            if let Ok(to) = to.parse() {
                return Ok(Left::Begun(to));
            }
        }
        self.forget_merge(step.note)?;
        Ok(Left::Nothing)
    }
}

/// Returns the command by which a checkout leaves its branch, with all that is in it.
#[must_use]
pub fn leave_command(dir: &Path) -> String {
    format!("git -C {} switch --detach", shell_path(dir))
}

/// Returns the command that finishes a half-done fast-forward. Where the index was locked, files may
/// be half done: it restores only those that the fast-forward changes. Git had begun only because the
/// person had no edits in those; what they have edited since goes to the stash, with what git had
/// written. `git stash create` fails where a file only looks changed, hence the refresh. Checked at
/// every kill point of `git merge --ff-only` (2.47).
fn repair_command(dir: &Path, locks: &[PathBuf], to: &str) -> String {
    let names: Vec<String> = locks.iter().map(|lock| shell_path(lock)).collect();
    let start = format!("rm -f {} && cd {}", names.join(" "), shell_path(dir));
    if !locks.iter().any(|lock| lock.ends_with("index.lock")) {
        return format!("{start} && git merge -q --ff-only --no-squash --no-overwrite-ignore {to}");
    }
    format!(
        "{start} && {{ git update-index -q --refresh; s=$(git stash create); }} && {{ [ -z \"$s\" ] || \
         git stash store -q -m 'before the fast-forward was finished' $s; }} && git diff -z --name-only --no-renames HEAD {to} | xargs -0 -r git \
         --literal-pathspecs restore -s {to} -SW -- && git reset -q --soft {to}"
    )
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::time::SystemTime;

    use super::*;
    use crate::git::SlotRequest;
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

    #[test]
    fn a_fast_forward_killed_before_the_ref_moved_is_finished() {
        let case = Case::new();
        let repo = &case.scratch.repo;
        fs::create_dir_all(repo.gates_dir()).unwrap();
        repo.note_merge(NOTE, Some(&case.scratch.root), &case.to).unwrap();
        case.scratch.git(["read-tree", "-m", "-u", case.old.as_str(), case.to.as_str()]);
        assert_eq!(case.follow(), Follow::Followed);
        assert_eq!(case.scratch.git(["status", "--porcelain"]), "");
    }

    #[test]
    fn a_fast_forward_killed_on_the_way_is_finished_before_the_next() {
        let case = Case::new();
        let repo = &case.scratch.repo;
        fs::create_dir_all(repo.gates_dir()).unwrap();
        repo.note_merge(NOTE, Some(&case.scratch.root), &case.to).unwrap();
        case.scratch.git(["read-tree", "-m", "-u", case.old.as_str(), case.to.as_str()]);
        let tree: Oid =
            case.scratch.git(["rev-parse", &format!("{}^{{tree}}", case.old)]).parse().unwrap();
        let next = repo.commit_tree(&tree, std::slice::from_ref(&case.to), "next", 1).unwrap();
        let followed = repo
            .base_follow(&repo.base_gate().unwrap(), "refs/heads/main", &next, &case.old)
            .unwrap();
        assert_eq!(followed, Follow::Followed);
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
            repo.note_merge(NOTE, Some(root), &case.to).unwrap();
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
        repo.note_merge(NOTE, None, &case.to).unwrap();
        fs::write(root.join(".git/refs/heads/main.lock"), "").unwrap();
        let Follow::Refused { command: Some(command), .. } = case.follow() else { panic!() };
        let mut shell = child::command("sh", root);
        assert!(shell.args(["-c", &command]).status().unwrap().success());
        assert_eq!(case.follow(), Follow::Followed);
        assert!(!repo.gates_dir().join(NOTE).exists());
    }

    /// Follows by the command that finishes a fast-forward which was killed half-way.
    fn finish(case: &Case) {
        let (repo, root) = (&case.scratch.repo, &case.scratch.root);
        fs::create_dir_all(repo.gates_dir()).unwrap();
        repo.note_merge(NOTE, Some(root), &case.to).unwrap();
        fs::write(root.join(".git/index.lock"), "half").unwrap();
        case.write("new.txt", "");
        for _ in 0..2 {
            assert!(matches!(case.follow(), Follow::Refused { command: Some(_), .. }));
            assert!(repo.has_base_step(), "it is not over");
        }
        let Follow::Refused { command: Some(command), .. } = case.follow() else { panic!() };
        let mut shell = child::command("sh", root);
        assert!(shell.args(["-c", &command]).status().unwrap().success());
        assert_eq!(case.follow(), Follow::Followed);
        assert_eq!(case.scratch.rev("HEAD"), case.to);
    }

    #[test]
    fn a_half_killed_fast_forward_is_reported_with_a_command_that_finishes_it() {
        let case = Case::new();
        case.write("mine.txt", "mine");
        case.write("a.txt", "one\n2\n");
        finish(&case);
        assert_eq!(case.scratch.git(["status", "--porcelain"]), "?? mine.txt");
        // What the person may have edited since is not gone.
        assert_eq!(case.scratch.git(["show", "stash@{0}:a.txt"]), "one\n2");
    }

    #[test]
    fn a_file_that_only_looks_changed_is_not_in_the_way_of_that_command() {
        let case = Case::new();
        let file = fs::File::options().append(true).open(case.scratch.root.join("a.txt")).unwrap();
        file.set_modified(SystemTime::UNIX_EPOCH).unwrap();
        finish(&case);
        assert_eq!(case.scratch.git(["status", "--porcelain"]), "");
        assert_eq!(case.scratch.git(["stash", "list"]), "");
    }
}
