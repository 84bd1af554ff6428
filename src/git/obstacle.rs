//! What is in the way of the base in a person's checkout, and what they can type about it: from any
//! folder, and so that nothing of theirs is overwritten.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::base::{Follow, leave_command};
use super::call::Call;
use super::error::{GitError, Stderr};
use super::oid::Oid;
use super::repo::Repo;
use super::slot::{MARK, registered};
use crate::sys::file::{shell_path, small_text};
use crate::sys::proc::is_held_open;

/// As many places are asked about at a time.
const ASKED_MAX: usize = 200;
/// As many are moved away by one command; it is shown again while there are more.
const SET_ASIDE_MAX: usize = 10;
/// As many edited files are named.
const NAMED_MAX: usize = 3;
/// What moves forward and nothing else, and overwrites nothing.
pub(super) const FORWARD: &str = "merge --ff-only --no-squash --no-overwrite-ignore";

/// A lock that is younger counts as that of a living git which /proc does not show, as in a container.
const LOCK_AGE_MAX: Duration = Duration::from_secs(30);

/// What git's file HEAD says where refs are kept in no files.
const NO_FILE: &str = "refs/heads/.invalid";

/// How a refusal begins whose cause only git knows.
pub const UNEXPLAINED: &str = "git cannot fast-forward";

/// In a worktree's administrative folder, while a git command waits there that did not leave the
/// branch: what it is, and what goes on with it.
const UNDER_WAY: [(&str, &str, &str); 5] = [
    ("MERGE_HEAD", "a merge", "merge --continue"),
    ("CHERRY_PICK_HEAD", "a cherry-pick", "cherry-pick --continue"),
    ("REVERT_HEAD", "a revert", "revert --continue"),
    ("sequencer", "a cherry-pick or revert", "status"),
    ("rebase-apply/applying", "a `git am`", "status"),
];
/// The same, of one that left its branches (named there) and comes back to them.
const REWRITING: [(&str, &str); 4] = [
    ("rebase-merge/head-name", "a rebase"),
    ("rebase-apply/head-name", "a rebase"),
    ("rebase-merge/update-refs", "a rebase"),
    ("BISECT_START", "a bisect"),
];

impl Repo {
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
    pub(super) fn away(&self) -> Result<Option<Follow>, GitError> {
        let displaced = self.displaced()?;
        Ok(displaced.map(|(why, command)| Follow::refused(why, Some(command))))
    }

    /// Returns the refusal for a checkout in which a git command waits for the person.
    pub(super) fn under_way(admin: &Path, dir: &Path) -> Option<Follow> {
        let (_, what, command) = UNDER_WAY.iter().find(|(file, ..)| admin.join(file).exists())?;
        let why = format!("{what} is under way in `{}`", dir.display());
        Some(unfinished(&why, dir, command))
    }

    /// Returns the refusal for a `branch` that is being rewritten in some worktree: while a rebase or
    /// a bisect runs, git shows HEAD as detached, but will come back to the branch. Where it is the
    /// landing branch, what lands does not wait for an agent: slots of ours do not count.
    pub(super) fn rewriting(
        &self,
        branch: &str,
        is_landing: bool,
    ) -> Result<Option<Follow>, GitError> {
        let short = branch.strip_prefix("refs/heads/").unwrap_or(branch);
        let mut admins = vec![self.common.clone()];
        admins.extend(self.admins()?);
        admins.retain(|admin| !is_landing || !admin.join(MARK).exists());
        for admin in admins {
            for (file, what) in REWRITING {
                let text = small_text(&admin.join(file));
                if text.lines().any(|line| line == branch || line == short) {
                    let dir = registered(&admin).unwrap_or_else(|| self.root.clone());
                    let why = format!("{what} of `{short}` is under way in `{}`", dir.display());
                    return Ok(Some(unfinished(&why, &dir, "status")));
                }
            }
        }
        Ok(None)
    }

    /// Returns the lock of a git that is at work in a checkout of people's, whatever that is on: `git
    /// switch` reads first where the branch stands to which it goes, then writes all files, and says
    /// last that it is there. On a branch that moved meanwhile all that came would look taken back.
    /// Nobody's landing waits for the lock of a killed git: few go to the landing branch.
    ///
    /// # Errors
    /// When the list of worktrees cannot be read.
    pub fn busy_checkout(&self, is_landing: bool) -> Result<Option<PathBuf>, GitError> {
        let mut admins = self.admins()?;
        admins.retain(|admin| !admin.join(MARK).exists());
        admins.push(self.common.clone());
        let locks = admins.into_iter().map(|admin| admin.join("index.lock"));
        Ok(locks.into_iter().find(|lock| !is_landing && is_new(lock) || is_held_open(lock)))
    }

    /// Returns whether something that a look can tell keeps a branch (full name) from being moved
    /// forward to `to`. Nothing is changed, and no lock taken.
    ///
    /// # Errors
    /// When git cannot be asked.
    pub fn is_obstructed(
        &self,
        branch: &str,
        to: &Oid,
        is_landing: bool,
    ) -> Result<bool, GitError> {
        let Some(found) = self.read_ref(branch)? else { return Ok(true) };
        let is_rewritten = || Ok(self.rewriting(branch, is_landing)?.is_some());
        let is_locked = self.ref_lock(branch).exists();
        let is_busy = || Ok::<_, GitError>(self.busy_checkout(is_landing)?.is_some());
        if is_locked || is_busy()? || is_rewritten()? || self.displaced()?.is_some() {
            return Ok(true);
        }
        let checkouts =
            if is_landing { self.persons_on(branch)? } else { self.checkouts_of(branch)? };
        let dir = match checkouts.as_slice() {
            [] => return Ok(false),
            [one] if !one.is_gone && !self.is_slot(&one.path)? => &one.path,
            [_, ..] => return Ok(true),
        };
        let admin = self.admin_of(dir)?.unwrap_or_else(|| self.common.clone());
        let is_locked = !self.locks_in_checkout(&admin, branch).is_empty();
        if is_locked || Self::under_way(&admin, dir).is_some() {
            return Ok(true);
        }
        let (edits, unmerged) = self.edits_in_the_way(dir, &found, to)?;
        let is_edited = !edits.is_empty() || !unmerged.is_empty();
        Ok(is_edited || !self.untracked_in_the_way(dir, &found, to)?.is_empty())
    }

    /// Returns the refusal for a checkout at `found` that git would not fast-forward to `to`.
    pub(super) fn obstructed(
        &self,
        dir: &Path,
        (found, to): (&Oid, &Oid),
        is_landing: bool,
        stderr: Stderr,
    ) -> Result<Follow, GitError> {
        let place = dir.display();
        let (edits, unmerged) = self.edits_in_the_way(dir, found, to)?;
        if !unmerged.is_empty() {
            let why = format!("conflicts in {} are not resolved in `{place}`", named(&unmerged));
            return Ok(unfinished(&why, dir, "status"));
        }
        let untracked = self.untracked_in_the_way(dir, found, to)?;
        let (why, stderr) = match (edits.is_empty(), untracked.is_empty()) {
            (true, true) => (format!("{UNEXPLAINED} `{place}`"), stderr),
            (true, false) => (format!("what is not tracked is in the way in `{place}`"), stderr),
            (false, _) => {
                let why = format!("edits of {} are in the way in `{place}`", named(&edits));
                (why, Stderr(String::new()))
            }
        };
        if is_landing {
            // What has landed waits for it: leaving the branch keeps all edits.
            return Ok(Follow::Refused { why, command: Some(leave_command(dir)), stderr });
        }
        if edits.is_empty() && untracked.is_empty() {
            let command = Some(format!("git -C {} {FORWARD} {to}", shell_path(dir)));
            return Ok(Follow::Refused { why, command, stderr });
        }
        let (why, stash) = match edits.is_empty() {
            true => (why, ""),
            false => (format!("{why}: once committed it follows by itself"), " && git stash push"),
        };
        let aside = set_aside(dir, &untracked);
        let command = Some(format!("cd {}{stash}{aside} && git {FORWARD} {to}", shell_path(dir)));
        Ok(Follow::Refused { why, command, stderr })
    }

    /// Returns which of the files that differ between two commits are edited in a checkout, and what
    /// is unmerged there.
    fn edits_in_the_way(
        &self,
        dir: &Path,
        found: &Oid,
        to: &Oid,
    ) -> Result<(Vec<String>, Vec<String>), GitError> {
        let call = Call::read("git.base_edits", dir).args([
            "status",
            "--porcelain=v1",
            "-z",
            "--no-renames",
            "--untracked-files=no",
        ]);
        let (mut edits, mut unmerged) = (Vec::new(), Vec::new());
        for field in self.git.ok(call)?.texts() {
            let Some((kind, name)) = field.split_at_checked(3) else { continue };
            let is_unmerged = kind.contains('U') || ["AA ", "DD "].contains(&kind);
            if is_unmerged { &mut unmerged } else { &mut edits }.push(name.to_owned());
        }
        if !edits.is_empty() {
            let changed: BTreeSet<String> =
                self.differing(dir, (found, to), None)?.into_iter().collect();
            edits.retain(|edit| changed.contains(edit));
        }
        Ok((edits, unmerged))
    }

    /// Returns the files and folders of a checkout that are not tracked, or hold what is not, and
    /// stand where `to` brings new files: a person's, or what a fast-forward that failed half-way left.
    fn untracked_in_the_way(
        &self,
        dir: &Path,
        found: &Oid,
        to: &Oid,
    ) -> Result<Vec<String>, GitError> {
        let added = self.differing(dir, (found, to), Some("--diff-filter=A"))?;
        let places: BTreeSet<&str> = added.iter().filter_map(|path| occupied(dir, path)).collect();
        let places: Vec<&str> = places.into_iter().collect();
        let mut untracked = Vec::new();
        for places in places.chunks(ASKED_MAX) {
            // What is below a folder counts as that folder, of which there may be any number of files.
            let call = Call::read("git.base_untracked", dir)
                .args(["--literal-pathspecs", "ls-files", "-z", "--others", "--directory"])
                .args(["--no-empty-directory", "--"])
                .args(places);
            let others = self.git.ok(call)?.texts();
            let is_untracked = |place: &&str| {
                others.iter().any(|other| {
                    let other = other.trim_end_matches('/');
                    is_within(other, place) || is_within(place, other)
                })
            };
            untracked.extend(places.iter().copied().filter(is_untracked).map(str::to_owned));
            if untracked.len() >= SET_ASIDE_MAX {
                break;
            }
        }
        untracked.truncate(SET_ASIDE_MAX);
        Ok(untracked)
    }

    fn differing(
        &self,
        dir: &Path,
        (from, to): (&Oid, &Oid),
        filter: Option<&str>,
    ) -> Result<Vec<String>, GitError> {
        let call = Call::read("git.base_changes", dir)
            .args(["diff-tree", "-r", "-z", "--no-renames", "--name-only"])
            .args(filter)
            .args([from.as_str(), to.as_str()]);
        Ok(self.git.ok(call)?.texts())
    }
}

/// The person ends what they began; a merge in the middle of it would rewrite that.
fn unfinished(why: &str, dir: &Path, command: &str) -> Follow {
    Follow::Refused {
        why: format!("{why}: finish or abort that, and it follows by itself"),
        command: Some(format!("git -C {} {command}", shell_path(dir))),
        stderr: Stderr(String::new()),
    }
}

/// Returns whether a git may live that made the lock, though nobody has it open that /proc shows. The
/// one of a killed git stays, and so, closed, does that of a `git commit -a` whose editor is open:
/// neither goes to another branch.
fn is_new(lock: &Path) -> bool {
    let made = fs::symlink_metadata(lock).and_then(|lock| lock.modified());
    made.is_ok_and(|made| made.elapsed().map_or(true, |age| age < LOCK_AGE_MAX))
}

/// Returns the file that says that a checkout is on another branch than it was listed on.
pub(super) fn left_branch(admin: &Path, branch: &str) -> Option<PathBuf> {
    let head = admin.join("HEAD");
    let text = small_text(&head);
    let on = text.trim_end().strip_prefix("ref: ");
    on.is_none_or(|on| on != branch && on != NO_FILE).then_some(head)
}

/// Returns the place at which a file that comes to `path` would meet one that is there: the path
/// itself, or what is no folder on the way to it.
fn occupied<'a>(dir: &Path, path: &'a str) -> Option<&'a str> {
    let ends = path.match_indices('/').map(|(end, _)| end).chain([path.len()]);
    for end in ends {
        let place = path.get(..end)?;
        let found = fs::symlink_metadata(dir.join(place)).ok()?;
        if end == path.len() || !found.is_dir() {
            return Some(place);
        }
    }
    None
}

/// Returns true when `path` is `folder` or below it.
fn is_within(path: &str, folder: &str) -> bool {
    path.strip_prefix(folder).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
}

fn named(paths: &[String]) -> String {
    let names: Vec<String> = paths.iter().take(NAMED_MAX).map(|it| format!("`{it}`")).collect();
    let names = names.join(", ");
    match paths.len().saturating_sub(NAMED_MAX) {
        0 => names,
        more => format!("{names} and {more} more"),
    }
}

/// Returns the part of a command that moves files and folders out of the way, typed in `dir`.
fn set_aside(dir: &Path, places: &[String]) -> String {
    let mut command = String::new();
    for place in places {
        let is_free = |aside: &String| fs::symlink_metadata(dir.join(aside)).is_err();
        let mut asides = (1..=u32::MAX).map(|number| format!("{place}.aside-{number}"));
        if let Some(aside) = asides.find(is_free) {
            let (place, aside) = (shell_path(place.as_ref()), shell_path(aside.as_ref()));
            command += &format!(" && mv -n -- {place} {aside}");
        }
    }
    command
}

#[cfg(test)]
mod tests {
    use std::io::{BufRead as _, BufReader};
    use std::process::Stdio;

    use super::*;
    use crate::git::scratch::Scratch;
    use crate::sys::child;

    const MAIN: &str = "refs/heads/main";

    fn follow(scratch: &Scratch, to: &Oid) -> Follow {
        let repo = &scratch.repo;
        repo.base_follow(&repo.base_gate().unwrap(), MAIN, to, &scratch.rev(MAIN)).unwrap()
    }

    fn refusal(scratch: &Scratch, to: &Oid) -> (String, String) {
        match follow(scratch, to) {
            Follow::Refused { why, command: Some(command), .. } => (why, command),
            other => panic!("{other:?}"),
        }
    }

    /// Types a command elsewhere than in the checkout; returns whether it succeeded.
    fn typed(scratch: &Scratch, command: &str) -> bool {
        let mut shell = child::command("sh", scratch.dir.path());
        shell.env("GIT_CONFIG_GLOBAL", scratch.home().join("gitconfig")).args(["-c", command]);
        shell.output().unwrap().status.success()
    }

    fn text(scratch: &Scratch, path: &str) -> Option<String> {
        fs::read_to_string(scratch.root.join(path)).ok()
    }

    fn ignore(scratch: &Scratch, patterns: &str) {
        fs::write(scratch.root.join(".git/info/exclude"), patterns).unwrap();
    }

    #[test]
    fn while_a_person_switches_to_the_branch_it_does_not_move() {
        let scratch = Scratch::new();
        let old = scratch.rev("HEAD");
        let write = |path: &str, text: &str| fs::write(scratch.root.join(path), text).unwrap();
        // It stands for a checkout that takes its time, as with files that are fetched.
        write(".git/slow", "echo it waits >&2\nread -r go <.git/go\ncat\n");
        assert!(child::command("mkfifo", &scratch.root).arg(".git/go").status().unwrap().success());
        scratch.git(["config", "filter.slow.smudge", "sh .git/slow"]);
        write(".git/info/attributes", "slow.bin filter=slow\n");
        scratch.git(["switch", "-q", "-c", "feature"]);
        write("slow.bin", "1");
        scratch.git(["add", "-A"]);
        scratch.git(["commit", "-q", "-m", "theirs"]);
        let tip = scratch.rev("feature");
        let base = scratch.commit_on(&old, "slow.bin", "0");
        scratch.git(["update-ref", MAIN, base.as_str()]);
        let to = scratch.commit_on(&base, "new.txt", "new");
        let landing = |to: &Oid, from: &Oid| scratch.repo.landing_follow(MAIN, to, from).unwrap();

        let mut switch = child::command("git", &scratch.root);
        let switch = switch.args(["switch", "-q", "main"]).stderr(Stdio::piped());
        let mut switch = switch.spawn().unwrap();
        let mut said = String::new();
        BufReader::new(switch.stderr.as_mut().unwrap()).read_line(&mut said).unwrap();
        assert_eq!(said, "it waits\n");
        let lock = scratch.root.join(".git/index.lock");
        let hour = std::time::Duration::from_secs(3_600);
        let made = fs::metadata(&lock).unwrap().modified().unwrap();
        fs::File::options().append(true).open(&lock).unwrap().set_modified(made - hour).unwrap();
        assert_eq!(scratch.rev("HEAD"), tip, "git says last where it is");
        assert_eq!(
            (follow(&scratch, &to), landing(&to, &base)),
            (Follow::Locked { path: lock.clone() }, Follow::Locked { path: lock.clone() })
        );
        assert!(scratch.repo.is_obstructed(MAIN, &to, false).unwrap());
        write(".git/go", "go\n");
        assert!(switch.wait().unwrap().success());
        scratch.git(["config", "--unset", "filter.slow.smudge"]);
        assert_eq!(follow(&scratch, &to), Follow::Followed);
        assert_eq!(scratch.git(["status", "--porcelain"]), "");

        // The lock of a killed git stays; what is not checked out waits for none such, or not for long.
        scratch.git(["switch", "-q", "feature"]);
        let file = fs::File::create(&lock).unwrap();
        let next = scratch.commit_on(&to, "next.txt", "next");
        assert_eq!(
            (follow(&scratch, &next), landing(&next, &to)),
            (Follow::Locked { path: lock.clone() }, Follow::Locked { path: lock.clone() })
        );
        drop(file);
        assert_eq!(follow(&scratch, &next), Follow::Locked { path: lock.clone() });
        assert_eq!(landing(&next, &to), Follow::Followed);
        let file = fs::File::options().append(true).open(&lock).unwrap();
        file.set_modified(made - hour).unwrap();
        drop(file);
        let last = scratch.commit_on(&next, "last.txt", "last");
        assert_eq!(follow(&scratch, &last), Follow::Followed);
    }

    #[test]
    fn a_checkout_that_went_elsewhere_meanwhile_is_not_moved() {
        let scratch = Scratch::new();
        let admin = scratch.root.join(".git");
        assert_eq!(left_branch(&admin, MAIN), None);
        for args in [["switch", "-q", "-c", "other"], ["switch", "-q", "--detach", "main"]] {
            scratch.git(args);
            assert_eq!(left_branch(&admin, MAIN), Some(admin.join("HEAD")));
        }
    }

    #[test]
    fn ignored_files_in_the_way_are_moved_aside_and_never_overwritten() {
        let scratch = Scratch::new();
        let to = scratch.commit_on(&scratch.rev(MAIN), "settings.local", "theirs");
        let to = scratch.commit_on(&to, "d/e/file", "theirs");
        ignore(&scratch, "settings.local\nd\n");
        for path in ["settings.local", "d"] {
            fs::write(scratch.root.join(path), "mine").unwrap();
        }
        let (_, command) = refusal(&scratch, &to);
        assert!(command.contains("mv -n -- d d.aside-1"), "{command}");
        assert!(typed(&scratch, &command), "{command}");
        assert_eq!(scratch.rev(MAIN), to);
        for path in ["settings.local.aside-1", "d.aside-1"] {
            assert_eq!(text(&scratch, path).as_deref(), Some("mine"), "{path}");
        }
        assert_eq!(text(&scratch, "d/e/file").as_deref(), Some("theirs"));
    }

    #[test]
    fn a_folder_in_the_way_is_moved_aside_as_one_however_many_files_it_holds() {
        let scratch = Scratch::new();
        let to = scratch.commit_on(&scratch.rev(MAIN), "node_modules", "a link");
        ignore(&scratch, "node_modules/\n");
        fs::create_dir_all(scratch.root.join("node_modules/deep")).unwrap();
        for number in 0..300 {
            fs::write(scratch.root.join(format!("node_modules/{number}")), "mine").unwrap();
        }
        fs::write(scratch.root.join("node_modules/deep/file"), "mine").unwrap();
        let (_, command) = refusal(&scratch, &to);
        assert!(command.contains(" && mv -n -- node_modules node_modules.aside-1 && git merge"));
        assert!(typed(&scratch, &command), "{command}");
        assert_eq!(scratch.rev(MAIN), to);
        assert_eq!(text(&scratch, "node_modules.aside-1/deep/file").as_deref(), Some("mine"));
        assert_eq!(text(&scratch, "node_modules").as_deref(), Some("a link"));
    }

    #[test]
    fn a_link_where_a_folder_comes_is_moved_aside_itself() {
        let scratch = Scratch::new();
        let to = scratch.commit_on(&scratch.rev(MAIN), "lib/file", "theirs");
        fs::create_dir(scratch.home().join("mine")).unwrap();
        fs::write(scratch.home().join("mine/file"), "mine").unwrap();
        let link = scratch.root.join("lib");
        std::os::unix::fs::symlink(scratch.home().join("mine"), &link).unwrap();
        let (_, command) = refusal(&scratch, &to);
        assert!(typed(&scratch, &command), "{command}");
        assert_eq!(scratch.rev(MAIN), to);
        assert_eq!(text(&scratch, "lib.aside-1/file").as_deref(), Some("mine"));
        assert_eq!(text(&scratch, "lib/file").as_deref(), Some("theirs"));
    }

    #[test]
    fn many_files_in_the_way_make_a_command_of_bounded_length() {
        let scratch = Scratch::new();
        let mut to = scratch.rev(MAIN);
        for number in 0..SET_ASIDE_MAX + 3 {
            let path = format!("new/{number}");
            to = scratch.commit_on(&to, &path, "theirs");
            fs::create_dir_all(scratch.root.join("new")).unwrap();
            fs::write(scratch.root.join(path), "mine").unwrap();
        }
        let (_, command) = refusal(&scratch, &to);
        assert_eq!(command.matches("mv -n").count(), SET_ASIDE_MAX);
        assert!(!typed(&scratch, &command), "there are more");
        let (_, command) = refusal(&scratch, &to);
        assert!(typed(&scratch, &command), "{command}");
        assert_eq!(scratch.rev(MAIN), to);
    }

    #[test]
    fn edits_in_the_way_are_named_and_the_command_keeps_them() {
        let scratch = Scratch::new();
        let to = scratch.commit_on(&scratch.rev(MAIN), "a.txt", "theirs");
        let to = scratch.commit_on(&to, "new.txt", "theirs");
        for path in ["a.txt", "new.txt"] {
            fs::write(scratch.root.join(path), "mine").unwrap();
        }
        let (why, command) = refusal(&scratch, &to);
        assert!(why.starts_with("edits of `a.txt` are in the way"), "{why}");
        assert!(typed(&scratch, &command), "{command}");
        assert_eq!(scratch.rev(MAIN), to);
        assert_eq!(scratch.git(["show", "stash@{0}:a.txt"]), "mine");
        assert_eq!(text(&scratch, "new.txt.aside-1").as_deref(), Some("mine"));
    }

    #[test]
    fn what_the_person_is_in_the_middle_of_is_theirs_to_end_and_nothing_is_merged_into_it() {
        let scratch = Scratch::new();
        let old = scratch.rev(MAIN);
        let first = scratch.commit_on(&old, "a.txt", "first");
        let second = scratch.commit_on(&first, "b.txt", "second");
        let to = scratch.commit_on(&second, "c.txt", "third");
        scratch.git(["reset", "-q", "--hard", second.as_str()]);
        let edit = "-c sequence.editor='sed -i 1s/pick/edit/' rebase -q -i";
        let begun = [
            (format!("bisect start {second} {old}"), ["bisect", "reset"]),
            (format!("{edit} {old}"), ["rebase", "--abort"]),
            (format!("revert --no-commit {first}"), ["revert", "--abort"]),
        ];
        for (begin, end) in begun {
            let begin = format!("cd '{}' && git {begin}", scratch.root.display());
            assert!(typed(&scratch, &begin), "{begin}");
            let head = scratch.rev("HEAD");
            let (why, command) = refusal(&scratch, &to);
            assert!(why.contains("under way") && why.contains("follows by itself"), "{why}");
            assert!(!command.contains("merge"), "{command}");
            if command.ends_with(" status") {
                assert!(typed(&scratch, &command), "{command}");
                assert_eq!(scratch.rev("HEAD"), head, "{begin}");
            }
            scratch.git(end);
        }
        assert_eq!(follow(&scratch, &to), Follow::Followed);
    }

    #[test]
    fn conflicts_that_are_left_are_told_as_that() {
        let scratch = Scratch::new();
        let to = scratch.commit_on(&scratch.rev(MAIN), "a.txt", "theirs");
        fs::write(scratch.root.join("a.txt"), "mine").unwrap();
        scratch.git(["stash"]);
        scratch.git(["reset", "-q", "--hard", to.as_str()]);
        let next = scratch.commit_on(&to, "a.txt", "more of theirs");
        assert!(!typed(&scratch, &format!("cd '{}' && git stash pop", scratch.root.display())));
        let (why, command) = refusal(&scratch, &next);
        assert!(why.starts_with("conflicts in `a.txt`") && command.ends_with(" status"), "{why}");
    }
}
