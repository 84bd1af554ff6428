//! Worktree slots: detached worktrees that are made once, cleaned and used again.
//!
//! **Invariants.** A slot is always detached, so no branch is ever "already checked out". Calls into
//! a slot name its administrative folder themselves, so a `.git` file that an agent broke or turned
//! elsewhere leads nowhere. A folder that is not ours is never cleaned or removed. Preparing throws
//! away what is in the slot: [`Repo::snapshot`] comes first. The agent of the slot must be dead.

use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use super::call::{Call, Reply};
use super::error::GitError;
use super::gate::Gate;
use super::left::LOGGED;
use super::oid::Oid;
use super::remains::is_on_branch;
use super::repo::Repo;
use super::rest::REST;
use super::slot::{Found, MARK, make_writable, remove_file, remove_tree, settle};
use super::whole::note_settings;
use crate::sys::fail;
use crate::sys::file::small_text;

/// In a slot's administrative folder: the commit at which `setup` last ran, and after NUL each the
/// paths that agents have changed since.
const SET_UP: &str = "pipeline-set-up";
/// Where a slot shall stand.
#[derive(Debug, Clone)]
pub struct SlotRequest<'a> {
    /// Its folder, absolute; made when it is not there.
    pub path: &'a Path,
    /// The commit to stand at, detached.
    pub at: &'a Oid,
    /// Ignore patterns of what survives cleaning.
    pub keep: &'a [String],
    /// A commit to merge into the files, without committing; conflicts as markers (diff3).
    pub merge: Option<&'a Oid>,
    /// It was made to stand there before, and nothing has been at work in it since: only looked at.
    pub is_ready: bool,
}

/// A slot that stands where it was asked to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SlotReady {
    /// Where it stands.
    pub head: Oid,
    /// Files with conflicts of the prepared merge, in git's order; empty when it merged cleanly.
    pub conflicts: Vec<String>,
    /// What is different from the last time `setup` ran.
    pub changed: Changed,
    /// Tracked files that git calls modified right after a forced checkout: the repository's line
    /// ends or filters disagree with what is committed. Usually empty.
    pub unclean: Vec<String>,
}

/// What is different in a slot from the last time [`Repo::mark_set_up`] was called for it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Changed {
    /// It was never called: the slot is new or was made again.
    Everything,
    /// These paths, sorted, including those that the last agent changed; may be empty.
    Paths(Vec<String>),
}

impl Repo {
    /// Makes a slot stand at a commit, clean but for `keep`; makes or repairs it first where needed.
    ///
    /// # Errors
    /// [`GitError::ForeignSlot`] when the place is taken; [`GitError::Disturbed`] before anything is
    /// thrown away that came there while nobody worked in it; [`GitError::Busy`] while a git of a dead
    /// monitor is at work there; [`GitError::Killed`]: repeat. Git's failures, after one attempt to
    /// make the slot anew.
    pub fn prepare_slot(&self, request: &SlotRequest<'_>) -> Result<SlotReady, GitError> {
        let path = settle(request.path)?;
        let gate = self.slot_gate(&path)?;
        self.git.go_on()?;
        let admin = match self.find_slot(&path)? {
            Found::Foreign(why) => return Err(GitError::ForeignSlot { path, why }),
            Found::Absent | Found::Broken => self.make_slot(&gate, &path, request.at)?,
            // One of ours is made detached, and marked before anything is done in it.
            Found::Ready(admin) if !admin.join(MARK).exists() && is_on_branch(&admin) => {
                let why = "it is a worktree on a branch, which somebody else made";
                return Err(GitError::ForeignSlot { path, why });
            }
            Found::Ready(admin) => admin,
        };
        let fill = |admin: &Path| {
            let filled = self.fill_slot(&gate, &path, admin, request);
            // What a killed git leaves locked goes also where the next attempt gets another slot.
            filled.inspect_err(|failure| {
                if matches!(failure, GitError::Killed { .. } | GitError::Late { .. }) {
                    let _ = clear_state(admin);
                }
            })
        };
        match fill(&admin) {
            Err(failure @ (GitError::Failed { .. } | GitError::SlotHead { .. })) => {
                let mut needed = vec![request.at.clone()];
                needed.extend(request.merge.cloned());
                if !self.missing_commits(&needed)?.is_empty() {
                    return Err(failure);
                }
                fill(&self.make_slot(&gate, &path, request.at)?)
            }
            other => other,
        }
    }

    /// Takes away the locks that an ended git left in a slot that nobody uses. One that is half made
    /// is made again by whoever needs it.
    ///
    /// # Errors
    /// When somebody else is at work there, or files cannot be removed.
    pub fn tidy_slot(&self, slot: &Path) -> Result<(), GitError> {
        let path = settle(slot)?;
        let _gate = self.slot_gate(&path)?;
        match self.find_slot(&path)? {
            Found::Ready(admin) => clear_state(&admin),
            Found::Absent | Found::Broken | Found::Foreign(_) => Ok(()),
        }
    }

    /// Notes that `setup` ran in the slot at `commit`, so that the next [`SlotReady::changed`] is
    /// counted from there.
    ///
    /// # Errors
    /// When the slot is not one of ours, or the note cannot be written.
    pub fn mark_set_up(&self, slot: &Path, commit: &Oid) -> Result<(), GitError> {
        let path = settle(slot)?;
        match self.find_slot(&path)? {
            Found::Ready(admin) => {
                note_settings(&admin)?;
                write(&admin.join(SET_UP), commit.as_str())
            }
            Found::Absent | Found::Broken => {
                Err(GitError::ForeignSlot { path, why: "the worktree is gone" })
            }
            Found::Foreign(why) => Err(GitError::ForeignSlot { path, why }),
        }
    }

    fn fill_slot(
        &self,
        gate: &Gate<'_>,
        slot: &Path,
        admin: &Path,
        request: &SlotRequest<'_>,
    ) -> Result<SlotReady, GitError> {
        if !admin.join(MARK).exists() {
            write(&admin.join(MARK), "")?;
        }
        clear_state(admin)?;
        let mut changed = self.changed_since_set_up(slot, admin, request.at)?;
        let digits = request.at.as_str().len();
        self.make_whole(slot, admin, digits)?;
        if request.is_ready && request.merge.is_none() && self.is_as_left(slot, admin, request)? {
            let (head, conflicts, unclean) = (request.at.clone(), Vec::new(), Vec::new());
            remove_file(&admin.join(REST))?;
            self.mark_log(admin)?;
            return Ok(SlotReady { head, conflicts, changed, unclean });
        }
        // Nothing is remade before that is known.
        if self.is_disturbed(gate, slot, admin)? {
            return Err(GitError::Disturbed { path: slot.into() });
        }
        // Until it is filled, what is newer in it than its last attempt is nobody's work.
        remove_file(&admin.join(LOGGED))?;
        remove_file(&admin.join(REST))?;
        let mut unclean = self.check_out(gate, slot, admin, request)?;
        if !unclean.is_empty() {
            // Racy times: read every file anew, once.
            remove_file(&admin.join("index"))?;
            unclean = self.check_out(gate, slot, admin, request)?;
        }
        let mark = admin.join(SET_UP);
        let mut is_emptied = self.empty_modules(slot, admin, digits, &mark)?;
        let conflicts = match request.merge {
            Some(theirs) => {
                let conflicts = self.prepare_merge(gate, slot, admin, theirs)?;
                // The merge may have moved some in the index.
                is_emptied |= self.empty_modules(slot, admin, digits, &mark)?;
                conflicts
            }
            None => Vec::new(),
        };
        if is_emptied {
            changed = Changed::Everything;
        }
        self.mark_log(admin)?;
        Ok(SlotReady { head: request.at.clone(), conflicts, changed, unclean })
    }

    /// Returns what differs between the last setup and now, in the files as the last agent left
    /// them, and in the commit to come.
    fn changed_since_set_up(
        &self,
        slot: &Path,
        admin: &Path,
        at: &Oid,
    ) -> Result<Changed, GitError> {
        let text = small_text(&admin.join(SET_UP));
        let mut lines = text.split('\0');
        let mark = lines.next().unwrap_or_default().parse::<Oid>();
        let Ok(mark) = mark else { return Ok(Changed::Everything) };
        let args = ["diff-index", "-z", "--name-only", "--no-renames", mark.as_str(), "--"];
        let call = self.in_slot(Call::read("git.slot_diff", slot), slot, admin).args(args);
        let reply = self.git.run(call)?;
        if reply.code != 0 {
            // The commit was collected, or the index is broken.
            return Ok(Changed::Everything);
        }
        // What an agent changed is in no file once it is cleaned away: killed before the next setup,
        // or prepared ahead of it, it must still be known.
        let known: Vec<String> = lines.map(str::to_owned).collect();
        let mut paths: Vec<String> = reply.texts().into_iter().chain(known.clone()).collect();
        paths.sort();
        paths.dedup();
        if paths != known {
            let text: Vec<&str> =
                std::iter::once(mark.as_str()).chain(paths.iter().map(String::as_str)).collect();
            write(&admin.join(SET_UP), &text.join("\0"))?;
        }
        paths.extend(self.changed_paths(&mark, at)?);
        paths.sort();
        paths.dedup();
        Ok(Changed::Paths(paths))
    }

    /// Returns whether a slot that was made ready is still: at its commit, no file changed, none added.
    fn is_as_left(
        &self,
        slot: &Path,
        admin: &Path,
        request: &SlotRequest<'_>,
    ) -> Result<bool, GitError> {
        let more = ["--untracked-files=normal", "--ignored"];
        let (found, other) = self.status(slot, admin, &more)?;
        Ok(found == request.at.as_str() && other.is_empty())
    }

    /// Removes what git does not track, but for `keep`.
    fn clean(
        &self,
        gate: &Gate<'_>,
        slot: &Path,
        admin: &Path,
        keep: &[String],
    ) -> Result<Reply, GitError> {
        let call = self.in_slot(Call::write("git.clean", slot), slot, admin);
        let keep = keep.iter().map(|pattern| format!("--exclude={pattern}"));
        self.git.run(call.args(["clean", "-ffdxq"]).args(keep).gate(gate))
    }

    /// Returns where a slot stands, and the files that are not as there.
    fn status(
        &self,
        slot: &Path,
        admin: &Path,
        more: &[&str],
    ) -> Result<(String, Vec<String>), GitError> {
        let args = ["status", "--porcelain=v2", "--branch", "-z"];
        let call = self.in_slot(Call::read("git.slot_status", slot), slot, admin).args(args);
        let call = call.args(more).args(["--ignore-submodules=all", "--no-renames"]);
        let (mut found, mut other) = (String::new(), Vec::new());
        for field in self.git.ok(call)?.texts() {
            if let Some(oid) = field.strip_prefix("# branch.oid ") {
                found = oid.to_owned();
            } else if !field.starts_with('#') {
                // Fields before the path: one of a file that git does not track, ten of an unmerged
                // one, eight of a changed one.
                let fields = match field.as_bytes().first() {
                    Some(b'?' | b'!') => 2,
                    Some(b'u') => 11,
                    Some(_) | None => 9,
                };
                other.extend(field.splitn(fields, ' ').last().map(str::to_owned));
            }
        }
        Ok((found, other))
    }

    /// Checks out and cleans; returns what is nevertheless modified.
    fn check_out(
        &self,
        gate: &Gate<'_>,
        slot: &Path,
        admin: &Path,
        request: &SlotRequest<'_>,
    ) -> Result<Vec<String>, GitError> {
        let at = request.at;
        // Not `git checkout`: it locks the packed refs, where people work too, and killed it would
        // leave that lock.
        let args = ["read-tree", "--reset", "-u", at.as_str()];
        let call = self.in_slot(Call::write("git.checkout", slot), slot, admin).args(args);
        self.git.ok(call.gate(gate))?;
        let args = ["update-ref", "--no-deref", "HEAD", at.as_str()];
        let call = self.in_slot(Call::write("git.slot_head", slot), slot, admin).args(args);
        self.git.ok(call.gate(gate))?;
        let clean = || self.clean(gate, slot, admin, request.keep);
        if clean()?.code != 0 {
            // Some tools make their caches read-only, folders included.
            make_writable(slot);
            let reply = clean()?;
            if reply.code != 0 {
                return Err(reply.failure(slot));
            }
        }
        let (found, unclean) = self.status(slot, admin, &["--untracked-files=no"])?;
        if found != at.as_str() {
            return Err(GitError::SlotHead { path: slot.into(), found, expected: at.clone() });
        }
        Ok(unclean)
    }

    /// Merges into the slot's files without committing; returns the files in conflict.
    fn prepare_merge(
        &self,
        gate: &Gate<'_>,
        slot: &Path,
        admin: &Path,
        theirs: &Oid,
    ) -> Result<Vec<String>, GitError> {
        let call = self
            .in_slot(Call::write("git.slot_merge", slot), slot, admin)
            .args(["merge", "--no-ff", "--no-commit", "--no-autostash", "--no-stat", "-q"])
            .args(["--no-rerere-autoupdate", "--", theirs.as_str()]);
        let merged = self.git.run(self.signed(call, None)?.gate(gate))?;
        if merged.code == 0 {
            return Ok(Vec::new());
        }
        let args = ["diff", "--name-only", "--diff-filter=U", "-z"];
        let call = self.in_slot(Call::read("git.slot_conflicts", slot), slot, admin).args(args);
        let conflicts = self.git.ok(call)?.texts();
        if merged.code == 1 && !conflicts.is_empty() {
            return Ok(conflicts);
        }
        Err(merged.failure(slot))
    }

    /// Points a call at a slot by its administrative folder; whatever anybody has set, it is not sparse.
    pub(super) fn in_slot<'a>(&self, call: Call<'a>, slot: &Path, admin: &Path) -> Call<'a> {
        let call = call.setting("core.sparseCheckout=false");
        call.env("GIT_DIR", admin).env("GIT_WORK_TREE", slot)
    }
}

/// Removes what merges, rebases and killed gits left in a slot's administrative folder.
fn clear_state(admin: &Path) -> Result<(), GitError> {
    const FILES: &[&str] = &[
        "locked",
        "MERGE_HEAD",
        "MERGE_MSG",
        "MERGE_MODE",
        "MERGE_RR",
        "MERGE_AUTOSTASH",
        "AUTO_MERGE",
        "SQUASH_MSG",
        "CHERRY_PICK_HEAD",
        "REVERT_HEAD",
        "REBASE_HEAD",
        "BISECT_START",
        "BISECT_LOG",
        "BISECT_NAMES",
        "BISECT_TERMS",
        "BISECT_EXPECTED_REV",
    ];
    const FOLDERS: &[&str] = &["rebase-merge", "rebase-apply", "sequencer"];
    let entries = fs::read_dir(admin).map_err(|source| GitError::File {
        doing: "read",
        path: admin.into(),
        source,
    })?;
    for entry in entries.filter_map(Result::ok) {
        let name = entry.file_name();
        let is_named = |names: &[&str]| names.iter().any(|it| name == **it);
        if is_named(FILES) || name.as_bytes().ends_with(b".lock") {
            remove_file(&entry.path())?;
        } else if is_named(FOLDERS) {
            remove_tree("git.clear_state", &entry.path())?;
        }
    }
    Ok(())
}

pub(super) fn write(path: &Path, text: &str) -> Result<(), GitError> {
    let written = fail::point("git.mark").and_then(|()| fs::write(path, text));
    written.map_err(|source| GitError::File { doing: "write", path: path.into(), source })
}

#[cfg(test)]
mod tests {
    use std::path::PathBuf;
    use std::time::Duration;

    use super::*;
    use crate::git::scratch::Scratch;
    use crate::git::slot::HALF_MADE_AGE_MIN;
    use crate::sys::{child, clock};

    struct Case {
        scratch: Scratch,
        slot: PathBuf,
        tip: Oid,
    }

    impl Case {
        fn new() -> Self {
            let scratch = Scratch::new();
            let slot = scratch.root.join(".pipeline/worktrees/impl ü/1");
            let tip = scratch.rev("HEAD");
            Self { scratch, slot, tip }
        }

        fn request<'a>(&'a self, at: &'a Oid) -> SlotRequest<'a> {
            SlotRequest { path: &self.slot, at, keep: &[], merge: None, is_ready: false }
        }

        /// Prepares and checks all that must hold afterwards, whatever was there before.
        fn prepare(&self, at: &Oid) -> SlotReady {
            let ready = self.scratch.repo.prepare_slot(&self.request(at)).unwrap();
            self.assert_ready(at);
            assert_eq!((&ready.head, ready.unclean.len()), (at, 0));
            ready
        }

        fn assert_ready(&self, at: &Oid) {
            let git = |args: &[&str]| self.scratch.git_in(&self.slot, args.iter().copied());
            assert_eq!(git(&["rev-parse", "HEAD"]), at.as_str());
            assert_eq!(git(&["status", "--porcelain", "--ignored"]), "");
            assert_eq!(git(&["branch", "--show-current"]), "");
            assert!(self.slot.join("a.txt").exists());
            let admins = self.scratch.repo.admins().unwrap();
            assert_eq!(admins.len(), 1, "{admins:?}");
            self.scratch.fsck();
        }

        fn admin(&self) -> PathBuf {
            self.scratch.repo.admin_of(&self.slot).unwrap().unwrap()
        }

        fn write(&self, path: &str, text: &str) {
            let path = self.slot.join(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, text).unwrap();
        }
    }

    #[test]
    fn a_slot_is_made_used_again_and_removed() {
        let case = Case::new();
        let repo = &case.scratch.repo;
        assert_eq!(case.prepare(&case.tip).changed, Changed::Everything);
        assert_eq!(case.prepare(&case.tip).changed, Changed::Everything);
        let next = case.scratch.commit_on(&case.tip, "b b.txt", "b");
        case.prepare(&next);
        let dir = case.scratch.root.join(".pipeline");
        assert_eq!(repo.own_slots(&dir).unwrap(), std::slice::from_ref(&case.slot));
        for _ in 0..2 {
            repo.remove_slot(&case.slot).unwrap();
        }
        assert!(!case.slot.exists() && repo.own_slots(&dir).unwrap().is_empty());
        assert_eq!(repo.checkouts().unwrap().len(), 1);
    }

    #[test]
    fn whatever_an_agent_left_is_gone() {
        let case = Case::new();
        case.prepare(&case.tip);
        let theirs = case.scratch.commit_on(&case.tip, "a.txt", "theirs");
        let git = |args: &[&str]| case.scratch.git_in(&case.slot, args.iter().copied());
        git(&["checkout", "-q", "-b", "agents-own"]);
        case.write("a.txt", "ours");
        case.write("new dir/ü\n.txt", "new");
        case.write(".gitignore", "ignored\n");
        case.write("ignored/x", "x");
        git(&["init", "-q", "nested"]);
        git(&["commit", "-q", "-am", "mine"]);
        let call = Call::write("git.x", &case.slot).args(["rebase", "-q", theirs.as_str()]);
        assert_ne!(case.scratch.repo.git.run(call).unwrap().code, 0);
        fs::write(case.admin().join("index.lock"), "").unwrap();
        fs::write(case.admin().join("HEAD.lock"), "").unwrap();
        case.prepare(&case.tip);
        assert!(!case.admin().join("rebase-merge").exists());
    }

    #[test]
    fn no_lock_is_taken_where_people_work() {
        use notify::Watcher;
        let case = Case::new();
        let (sender, events) = std::sync::mpsc::channel();
        let mut watcher = notify::recommended_watcher(sender).unwrap();
        watcher.watch(&case.scratch.repo.common, notify::RecursiveMode::NonRecursive).unwrap();
        for tip in [&case.tip, &case.scratch.commit_on(&case.tip, "b.txt", "b")] {
            case.prepare(tip);
        }
        let last = case.scratch.repo.common.join("last");
        fs::write(&last, "").unwrap();
        let events = events.iter().map(|event| event.unwrap());
        let mut seen = events.flat_map(|event| event.paths).take_while(|path| *path != last);
        assert_eq!(seen.find(|path| path.ends_with("packed-refs.lock")), None);
    }

    #[test]
    fn kept_patterns_survive() {
        let case = Case::new();
        case.prepare(&case.tip);
        case.write("sub/node_modules/x", "x");
        case.write("target/y", "y");
        case.write("other/z", "z");
        let keep = ["node_modules".to_owned(), "/target".to_owned()];
        let request = SlotRequest { keep: &keep, ..case.request(&case.tip) };
        let ready = case.scratch.repo.prepare_slot(&request).unwrap();
        assert!(ready.unclean.is_empty());
        assert!(case.slot.join("sub/node_modules/x").exists());
        assert!(case.slot.join("target/y").exists());
        assert!(!case.slot.join("other").exists());
    }

    #[test]
    fn changes_are_counted_from_the_last_setup() {
        let case = Case::new();
        let repo = &case.scratch.repo;
        case.prepare(&case.tip);
        repo.mark_set_up(&case.slot, &case.tip).unwrap();
        assert_eq!(case.prepare(&case.tip).changed, Changed::Paths(vec![]));
        // An agent changed one file and threw it away; the next commit changes another.
        case.write("a.txt", "agent");
        let next = case.scratch.commit_on(&case.tip, "lock.json", "1");
        let changed = Changed::Paths(vec!["a.txt".into(), "lock.json".into()]);
        assert_eq!(case.prepare(&next).changed, changed);
        assert_eq!(case.prepare(&next).changed, changed, "what was cleaned away is still known");
        repo.mark_set_up(&case.slot, &next).unwrap();
        assert_eq!(case.prepare(&next).changed, Changed::Paths(vec![]));
    }

    #[test]
    fn a_slot_that_was_made_ready_is_only_looked_at_and_made_again_where_it_is_not() {
        let case = Case::new();
        let other = case.scratch.commit_on(&case.tip, "a.txt", "other");
        type Meddle = fn(&Case);
        let meddles: [(&str, Meddle); 6] = [
            ("nothing", |_| {}),
            ("changed", |case| case.write("a.txt", "changed")),
            ("added", |case| case.write("new.txt", "new")),
            ("ignored", |case| case.write("ignored/x", "x")),
            ("elsewhere", |case| {
                let args = ["commit", "-q", "--allow-empty", "-m", "x"];
                case.scratch.git_in(&case.slot, args);
            }),
            ("gone", |case| fs::remove_dir_all(&case.slot).unwrap()),
        ];
        fs::write(case.scratch.root.join(".git/info/exclude"), "ignored\n").unwrap();
        for (name, meddle) in meddles {
            case.prepare(&case.tip);
            let index = || fs::metadata(case.admin().join("index")).unwrap().modified().unwrap();
            let before = index();
            meddle(&case);
            let request = SlotRequest { is_ready: true, ..case.request(&case.tip) };
            case.scratch.repo.prepare_slot(&request).unwrap();
            assert_eq!(index() == before, name == "nothing", "{name}");
            case.assert_ready(&case.tip);
            // What is wanted elsewhere is never found to be there already.
            let request = SlotRequest { is_ready: true, ..case.request(&other) };
            case.scratch.repo.prepare_slot(&request).unwrap();
            case.assert_ready(&other);
        }
    }

    #[test]
    fn calls_that_are_wanted_no_longer_touch_no_slot() {
        let case = Case::new();
        case.prepare(&case.tip);
        // Not a worktree any more: it would be made anew.
        fs::remove_file(case.slot.join(".git")).unwrap();
        case.write("an agent's", "work");
        let stop = std::sync::Arc::new(child::Stop::new().unwrap());
        let repo = case.scratch.repo.until(std::sync::Arc::clone(&stop));
        stop.raise();
        let failed = repo.prepare_slot(&case.request(&case.tip));
        assert!(matches!(failed, Err(GitError::Start { .. })), "{failed:?}");
        assert!(case.slot.join("an agent's").exists());
    }

    #[test]
    fn half_made_and_broken_slots_are_made_again() {
        let case = Case::new();
        case.prepare(&case.tip);
        type Damage = fn(&Case);
        let breaks: [(&str, Damage); 8] = [
            ("folder gone", |case| fs::remove_dir_all(&case.slot).unwrap()),
            ("all worktrees gone", |case| {
                fs::remove_dir_all(case.scratch.root.join(".pipeline")).unwrap();
            }),
            ("admin gone", |case| fs::remove_dir_all(case.admin()).unwrap()),
            ("link gone", |case| fs::remove_file(case.slot.join(".git")).unwrap()),
            ("link replaced by a repository", |case| {
                fs::remove_file(case.slot.join(".git")).unwrap();
                case.scratch.git(["init", "-q", case.slot.to_str().unwrap()]);
            }),
            ("no HEAD yet", |case| {
                fs::remove_file(case.admin().join("HEAD")).unwrap();
                fs::write(case.admin().join("locked"), "initializing").unwrap();
            }),
            ("broken index", |case| fs::write(case.admin().join("index"), "junk").unwrap()),
            ("HEAD at nothing", |case| {
                fs::write(case.admin().join("HEAD"), "0".repeat(40)).unwrap();
            }),
        ];
        for (name, damage) in breaks {
            damage(&case);
            let ready = case.scratch.repo.prepare_slot(&case.request(&case.tip));
            assert!(ready.is_ok(), "{name}: {ready:?}");
            case.assert_ready(&case.tip);
        }
    }

    #[test]
    fn a_slot_whose_making_was_killed_anywhere_is_made_again() {
        let case = Case::new();
        let repo = &case.scratch.repo;
        for step in 0..24 {
            let gate = repo.slot_gate(&case.slot).unwrap();
            let mut command = child::command("git", &case.scratch.root);
            command.args(["worktree", "add", "-q", "--detach", "--"]).arg(&case.slot);
            command.stdin(gate.share().unwrap()).stderr(std::process::Stdio::null());
            let mut git = command.arg(case.tip.as_str()).spawn().unwrap();
            drop((command, gate));
            let start = clock::monotonic();
            while start.elapsed() < Duration::from_micros(250 * step) {
                std::hint::spin_loop();
            }
            git.kill().unwrap();
            git.wait().unwrap();
            // Waits for what that git started; an unfinished folder that says nothing stays.
            let half = fs::read_dir(case.scratch.root.join(".git/worktrees"));
            let ready = repo.prepare_slot(&case.request(&case.tip)).unwrap();
            assert!(ready.unclean.is_empty());
            case.scratch.fsck();
            repo.remove_slot(&case.slot).unwrap();
            for admin in half.into_iter().flatten().filter_map(Result::ok) {
                // One that names no slot is too young to be taken for dead.
                let left = admin.path();
                let named = fs::metadata(left.join("gitdir")).map_or(0, |meta| meta.len());
                assert_eq!(named, 0, "{left:?}");
            }
        }
    }

    #[test]
    fn a_git_that_is_killed_in_a_slot_leaves_no_lock_there() {
        let case = Case::new();
        let attributes = case.scratch.root.join(".git/info/attributes");
        fs::write(attributes, "a.txt filter=dies\n").unwrap();
        case.scratch.git(["config", "filter.dies.smudge", "kill -9 $PPID"]);
        let killed = case.scratch.repo.prepare_slot(&case.request(&case.tip)).unwrap_err();
        assert!(matches!(killed, GitError::Killed { .. }), "{killed}");
        let left = fs::read_dir(case.admin()).unwrap().map(|entry| entry.unwrap().path());
        let locks: Vec<_> = left.filter(|path| path.extension() == Some("lock".as_ref())).collect();
        assert_eq!(locks, Vec::<PathBuf>::new());
    }

    #[test]
    fn an_admin_folder_with_only_its_lock_does_not_change_the_name() {
        let case = Case::new();
        let half = case.scratch.root.join(".git/worktrees/1");
        fs::create_dir_all(&half).unwrap();
        fs::write(half.join("locked"), "initializing").unwrap();
        let old = fs::metadata(&half).unwrap().modified().unwrap() - 2 * HALF_MADE_AGE_MIN;
        fs::File::open(&half).unwrap().set_modified(old).unwrap();
        fs::create_dir_all(&case.slot).unwrap();
        case.prepare(&case.tip);
        assert_eq!(case.admin(), half);
    }

    #[test]
    fn what_a_failed_making_left_goes_with_the_making_of_the_next_slot() {
        let case = Case::new();
        let (scratch, next) = (&case.scratch, case.slot.with_file_name("2"));
        case.prepare(&case.tip);
        let admin = case.admin();
        fs::remove_file(admin.join("HEAD")).unwrap();
        let left = [(case.slot.clone(), "a person's"), (case.slot.clone(), "initializing\n")];
        for (number, (slot, reason)) in left.into_iter().enumerate() {
            fs::write(admin.join("locked"), reason).unwrap();
            let is_ours = number == 1;
            if is_ours {
                // All that git puts there before it fills a worktree.
                for entry in fs::read_dir(&slot).unwrap().flatten() {
                    if entry.file_name() != ".git" {
                        fs::remove_file(entry.path()).unwrap();
                    }
                }
            }
            let request = SlotRequest { path: &next, ..case.request(&case.tip) };
            scratch.repo.prepare_slot(&request).unwrap();
            assert_eq!((admin.exists(), slot.exists()), (!is_ours, !is_ours));
            scratch.repo.remove_slot(&next).unwrap();
        }
        scratch.fsck();
    }

    #[test]
    fn places_of_others_are_refused() {
        let case = Case::new();
        let repo = &case.scratch.repo;
        let mine = case.scratch.home().join("mine");
        fs::create_dir_all(&mine).unwrap();
        fs::write(mine.join("x"), "x").unwrap();
        fs::create_dir_all(case.slot.parent().unwrap()).unwrap();
        let refused = || {
            let prepared = repo.prepare_slot(&case.request(&case.tip));
            assert!(matches!(prepared, Err(GitError::ForeignSlot { .. })), "{prepared:?}");
            assert!(matches!(repo.remove_slot(&case.slot), Err(GitError::ForeignSlot { .. })));
        };
        std::os::unix::fs::symlink(&mine, &case.slot).unwrap();
        refused();
        fs::remove_file(&case.slot).unwrap();
        fs::write(&case.slot, "file").unwrap();
        refused();
        fs::remove_file(&case.slot).unwrap();
        fs::rename(&mine, &case.slot).unwrap();
        refused();
        assert!(case.slot.join("x").exists());
    }

    #[test]
    fn an_unknown_commit_fails_and_keeps_the_slot() {
        let case = Case::new();
        case.prepare(&case.tip);
        case.write("keep me", "x");
        let none: Oid = "1".repeat(40).parse().unwrap();
        let failed = case.scratch.repo.prepare_slot(&case.request(&none));
        assert!(matches!(failed, Err(GitError::Failed { .. })), "{failed:?}");
        assert!(case.slot.join("keep me").exists());
    }

    #[test]
    fn a_prepared_merge_has_markers_with_the_common_base() {
        let case = Case::new();
        let (repo, tip) = (&case.scratch.repo, &case.tip);
        let ours = case.scratch.commit_on(tip, "a.txt", "ours\n");
        let theirs = case.scratch.commit_on(tip, "a.txt", "theirs\n");
        let theirs = case.scratch.commit_on(&theirs, "t ü.txt", "t");
        let request = SlotRequest { merge: Some(&theirs), ..case.request(&ours) };
        for _ in 0..2 {
            let ready = repo.prepare_slot(&request).unwrap();
            assert_eq!(ready.conflicts, ["a.txt"]);
            let text = fs::read_to_string(case.slot.join("a.txt")).unwrap();
            for mark in ["<<<<<<< ", "||||||| ", "=======\n", ">>>>>>> "] {
                assert!(text.contains(mark), "{text}");
            }
            assert!(case.slot.join("t ü.txt").exists());
        }
        case.prepare(&ours);
        let clean = case.scratch.commit_on(tip, "c", "c");
        let request = SlotRequest { merge: Some(&clean), ..case.request(&ours) };
        assert!(repo.prepare_slot(&request).unwrap().conflicts.is_empty());
        assert!(case.slot.join("c").exists());
    }

    #[test]
    fn a_persons_worktree_in_a_slots_place_is_left_alone() {
        let case = Case::new();
        case.scratch.git(["worktree", "add", "-q", "-b", "mine", case.slot.to_str().unwrap()]);
        case.write("mine", "mine");
        let found = case.scratch.repo.prepare_slot(&case.request(&case.tip));
        assert!(matches!(found, Err(GitError::ForeignSlot { .. })), "{found:?}");
        assert!(case.slot.join("mine").exists());
    }

    #[test]
    fn slots_are_prepared_at_once_by_many_threads() {
        let case = Case::new();
        std::thread::scope(|scope| {
            for index in 0..4 {
                let case = &case;
                scope.spawn(move || {
                    let path = case.scratch.root.join(format!(".pipeline/worktrees/a{index}/1"));
                    for _ in 0..2 {
                        let request = SlotRequest { path: &path, ..case.request(&case.tip) };
                        case.scratch.repo.prepare_slot(&request).unwrap();
                    }
                });
            }
        });
        assert_eq!(case.scratch.repo.own_slots(&case.scratch.root).unwrap().len(), 4);
    }

    #[test]
    fn a_repository_that_disagrees_with_its_line_ends_is_reported() {
        let case = Case::new();
        let crlf = case.scratch.commit_on(&case.tip, "w.txt", "1\r\n");
        let at = case.scratch.commit_on(&crlf, ".gitattributes", "*.txt text eol=lf\n");
        let ready = case.scratch.repo.prepare_slot(&case.request(&at)).unwrap();
        assert_eq!(ready.unclean, ["w.txt"]);
    }
}
