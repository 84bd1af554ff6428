//! What keeps a slot whole: no sparse checkout, no flags that hide a file, no submodule as another
//! attempt left it.
//!
//! An agent may make its own worktree sparse, flag files in its index and fill submodules, and a new
//! worktree takes after a sparse main checkout. What of that is there is read from files, so that git
//! is called only where there is something. The user's checkout and the shared settings stay as they
//! are.

use std::ffi::OsStr;
use std::fs;
use std::io::ErrorKind;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::{Path, PathBuf};

use super::call::Call;
use super::error::GitError;
use super::gate::Gate;
use super::repo::Repo;
use super::slot::{remove_file, remove_tree};
use super::snapshot::is_behind_link;
use super::worktree::write;
use crate::sys::fail;

/// What a slot's own settings may say of a sparse checkout.
const SPARSE: [&str; 3] = ["core.sparseCheckout", "core.sparseCheckoutCone", "index.sparse"];

/// In a slot's administrative folder: its own settings as they were when it was made, or set up.
const SETTINGS: &str = "pipeline-config";

/// Notes a slot's own settings, which an agent may change for the one after it.
pub(super) fn note_settings(admin: &Path) -> Result<(), GitError> {
    write(&admin.join(SETTINGS), &own_settings(admin)?)
}

/// Puts a slot's own settings back. Of a slot that an older program made they are not known.
fn put_settings_back(admin: &Path) -> Result<(), GitError> {
    let Ok(noted) = fs::read_to_string(admin.join(SETTINGS)) else { return Ok(()) };
    if own_settings(admin).is_ok_and(|now| now == noted) {
        return Ok(());
    }
    let own = admin.join("config.worktree");
    // Through a link, nothing is written.
    if own.is_dir() {
        remove_tree("git.settings", &own)?
    } else {
        remove_file(&own)?
    }
    if noted.is_empty() { Ok(()) } else { write(&own, &noted) }
}

fn own_settings(admin: &Path) -> Result<String, GitError> {
    let path = admin.join("config.worktree");
    match fs::read_to_string(&path) {
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(String::new()),
        read => read.map_err(|source| GitError::File { doing: "read", path, source }),
    }
}

/// What an index says of its entries that matters here.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Entries {
    /// One of them is flagged `skip-worktree` or `assume-unchanged`, so that git passes over its file;
    /// or that stands in another file.
    pub(super) has_flags: bool,
    /// Those of submodules: where below the root, and at which commit.
    pub(super) modules: Vec<(PathBuf, String)>,
}

impl Entries {
    /// Reads an index file of objects whose ids have `digits`; one that is not there is empty, and of
    /// one that cannot be understood the worst is assumed.
    pub(super) fn read(index: &Path, digits: usize) -> Result<Self, GitError> {
        let read = fail::point("git.entries").and_then(|()| fs::read(index));
        match read {
            Ok(bytes) => {
                let unknown = || Self { has_flags: true, modules: Vec::new() };
                Ok(Self::parse(&bytes, digits / 2).unwrap_or_else(unknown))
            }
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(Self::default()),
            Err(source) => Err(GitError::File { doing: "read", path: index.into(), source }),
        }
    }

    /// Reads versions 2 to 4 (gitformat-index); `None`: it is something else. `hash`: bytes of an id.
    fn parse(bytes: &[u8], hash: usize) -> Option<Self> {
        let word = |at: usize| Some(u32::from_be_bytes(bytes.get(at..at + 4)?.try_into().ok()?));
        let half = |at: usize| Some(u16::from_be_bytes(bytes.get(at..at + 2)?.try_into().ok()?));
        let version = word(4)?;
        if bytes.get(..4)? != b"DIRC" || !(2..=4).contains(&version) {
            return None;
        }
        let (mut entries, mut name, mut at) = (Self::default(), Vec::new(), 12);
        for _ in 0..word(8)? {
            let begin = at;
            let (mode, id) = (word(begin + 24)?, bytes.get(begin + 40..begin + 40 + hash)?);
            let flags = half(begin + 40 + hash)?;
            at = begin + 42 + hash;
            let mut more = 0;
            if flags & 0x4000 != 0 {
                more = half(at)?;
                at += 2;
            }
            // The bits of `assume-unchanged` and of `skip-worktree`.
            entries.has_flags |= flags & 0x8000 != 0 || more & 0x4000 != 0;
            if version == 4 {
                let shared = name.len().checked_sub(number(bytes, &mut at)?)?;
                name.truncate(shared);
            } else {
                name.clear();
            }
            let rest = bytes.get(at..)?;
            let length = rest.iter().position(|byte| *byte == 0)?;
            name.extend_from_slice(&rest[..length]);
            at += length + 1;
            if version < 4 {
                at = begin + (at - begin).next_multiple_of(8);
            }
            if mode == 0o160_000 {
                let id = id.iter().map(|byte| format!("{byte:02x}")).collect();
                entries.modules.push((std::ffi::OsString::from_vec(name.clone()).into(), id));
            }
        }
        while at + 8 <= bytes.len().saturating_sub(hash) {
            // A split index: most entries stand in another file.
            entries.has_flags |= bytes.get(at..at + 4)? == b"link";
            at += 8 + word(at + 4)? as usize;
        }
        Some(entries)
    }
}

/// Reads a number of varying length, as git writes it before a shortened name.
fn number(bytes: &[u8], at: &mut usize) -> Option<usize> {
    let mut number = 0_usize;
    loop {
        let byte = *bytes.get(*at)?;
        *at += 1;
        number = number.checked_mul(128)?.checked_add(usize::from(byte & 127))?;
        if byte & 128 == 0 {
            return Some(number);
        }
        number += 1;
    }
}

impl Repo {
    /// Makes a slot's worktree one of all files again: the next checkout writes what is not there.
    pub(super) fn make_whole(
        &self,
        slot: &Path,
        admin: &Path,
        digits: usize,
    ) -> Result<(), GitError> {
        put_settings_back(admin)?;
        remove_file(&admin.join("info/sparse-checkout"))?;
        let own = admin.join("config.worktree");
        // One that cannot be read as text fails in git too, and the slot is made anew.
        let text = fs::read_to_string(&own).unwrap_or_default().to_ascii_lowercase();
        if text.contains("sparse") {
            for key in SPARSE {
                let call = Call::write("git.unset_sparse", &self.root).args(["config", "--file"]);
                let reply = self.git.run(call.args([&own]).args(["--unset-all", key]))?;
                // 5: it does not stand there.
                if !matches!(reply.code, 0 | 5) {
                    return Err(reply.failure(slot));
                }
            }
        }
        if !admin.join(SETTINGS).exists() {
            note_settings(admin)?;
        }
        if Entries::read(&admin.join("index"), digits)?.has_flags {
            remove_file(&admin.join("index"))?;
        }
        Ok(())
    }

    /// Empties the folders of submodules that do not stand as the commit in the slot has them; returns
    /// whether there were any. What git keeps of them elsewhere stays. `mark` is removed before: who is
    /// killed here must still know that something is missing.
    pub(super) fn empty_modules(
        &self,
        slot: &Path,
        admin: &Path,
        digits: usize,
        mark: &Path,
    ) -> Result<bool, GitError> {
        let mut is_emptied = false;
        for (path, commit) in Entries::read(&admin.join("index"), digits)?.modules {
            let dir = slot.join(path);
            let is_filled = fs::read_dir(&dir).is_ok_and(|mut it| it.next().is_some());
            if !is_filled || self.is_module_at(&dir, &commit)? {
                continue;
            }
            remove_file(mark)?;
            remove_tree("git.empty_module", &dir)?;
            let made = fs::create_dir(&dir);
            made.map_err(|source| GitError::File { doing: "create", path: dir, source })?;
            is_emptied = true;
        }
        Ok(is_emptied)
    }

    /// Returns whether a submodule is at the commit, and nothing else is in its folder.
    fn is_module_at(&self, dir: &Path, commit: &str) -> Result<bool, GitError> {
        let args = ["status", "--porcelain=v2", "--branch", "-z", "--ignored"];
        let call = Call::read("git.module", dir).args(args);
        let reply =
            self.git.run(call.args(["--untracked-files=normal", "--ignore-submodules=none"]))?;
        let fields = reply.texts();
        let is_there = fields.iter().any(|field| *field == format!("# branch.oid {commit}"));
        Ok(reply.code == 0 && is_there && fields.iter().all(|field| field.starts_with("# ")))
    }

    /// Takes the flags off a snapshot's index, so that git looks at the files again. What a sparse
    /// checkout left out counts as unchanged; it is looked at where the agent wrote it all the same.
    pub(super) fn unflag(
        &self,
        gate: &Gate<'_>,
        slot: &Path,
        admin: &Path,
        index: &Path,
    ) -> Result<(), GitError> {
        let call = |point| {
            self.in_slot(Call::write(point, slot), slot, admin).env("GIT_INDEX_FILE", index)
        };
        let listed = self.git.run(call("git.flags").args(["ls-files", "-v", "-z"]).gate(gate))?;
        if listed.code != 0 {
            // A broken index, of which the caller makes another.
            return Ok(());
        }
        let (mut unchanged, mut skipped) = (Vec::new(), Vec::new());
        for field in listed.fields() {
            let [letter, b' ', path @ ..] = field else { continue };
            if letter.is_ascii_lowercase() {
                unchanged.extend([path, b"\0"].concat());
            }
            let path_of = || Path::new(OsStr::from_bytes(path));
            if letter.eq_ignore_ascii_case(&b's')
                && fs::symlink_metadata(slot.join(path_of())).is_ok()
                && !is_behind_link(slot, path_of())
            {
                skipped.extend([path, b"\0"].concat());
            }
        }
        let lists = [("--no-assume-unchanged", unchanged), ("--no-skip-worktree", skipped)];
        for (option, paths) in lists.iter().filter(|(_, paths)| !paths.is_empty()) {
            let call = call("git.unflag").args(["update-index", option, "-z", "--stdin"]);
            self.git.ok(call.bytes(paths))?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::git::scratch::Scratch;
    use crate::git::{Changed, Oid, SlotRequest, SnapshotRequest};

    struct Case {
        scratch: Scratch,
        slot: PathBuf,
        tip: Oid,
    }

    impl Case {
        fn new() -> Self {
            let scratch = Scratch::new();
            let tip = scratch.commit_on(&scratch.rev("HEAD"), "d1/x", "x");
            let tip = scratch.commit_on(&tip, "d2/x", "x");
            Self::at(scratch, tip)
        }

        fn at(scratch: Scratch, tip: Oid) -> Self {
            scratch.git(["reset", "-q", "--hard", tip.as_str()]);
            let slot = scratch.root.join(".pipeline/worktrees/impl/1");
            Self { scratch, slot, tip }
        }

        fn prepare(&self) -> Changed {
            let (path, at) = (&self.slot, &self.tip);
            let request = SlotRequest { path, at, keep: &[], merge: None, is_ready: false };
            self.scratch.repo.prepare_slot(&request).unwrap().changed
        }

        /// Returns what a snapshot takes, sorted.
        fn taken(&self) -> Vec<String> {
            let request = SnapshotRequest {
                slot: &self.slot,
                tip: &self.tip,
                merge: None,
                exclude: &["TASK-1.md".to_owned()],
                message: "T-1: impl",
                date_s: 1,
                begun: None,
                pin: "refs/pipeline/salvage/T-1.impl.1",
            };
            let commit = self.scratch.repo.snapshot(&request).unwrap().commit.unwrap();
            let mut paths = self.scratch.repo.changed_paths(&self.tip, &commit).unwrap();
            paths.sort();
            paths
        }

        fn git(&self, args: &[&str]) -> String {
            self.scratch.git_in(&self.slot, args.iter().copied())
        }

        fn write(&self, path: &str, text: &str) {
            let path = self.slot.join(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, text).unwrap();
        }

        fn assert_whole(&self) {
            assert_eq!(self.git(&["ls-files", "-v"]), "H a.txt\nH d1/x\nH d2/x");
            assert_eq!(self.git(&["status", "--porcelain"]), "");
            assert!(self.slot.join("d2/x").exists());
            let sparse = ["config", "--default", "false", "core.sparseCheckout"];
            assert_eq!(self.git(&sparse), "false");
        }
    }

    #[test]
    fn a_slot_beside_a_sparse_checkout_is_whole_and_that_one_stays() {
        let case = Case::new();
        case.scratch.git(["sparse-checkout", "set", "d1"]);
        case.prepare();
        case.assert_whole();
        case.write("d2/new", "new");
        assert_eq!(case.taken(), ["d2/new"]);
        assert!(!case.scratch.root.join("d2").exists());
        assert_eq!(case.scratch.git(["sparse-checkout", "list"]), "d1");
    }

    #[test]
    fn what_an_agent_sets_for_its_worktree_goes_with_it_and_what_setup_sets_stays() {
        let case = Case::new();
        case.scratch.git(["config", "extensions.worktreeConfig", "true"]);
        let get = |key: &str| case.git(&["config", "--default", "none", key]);
        case.prepare();
        case.git(&["config", "--worktree", "case.one", "true"]);
        case.prepare();
        assert_eq!(get("case.one"), "none");
        case.git(&["config", "--worktree", "case.two", "hooks"]);
        let head = case.scratch.rev("HEAD");
        case.scratch.repo.mark_set_up(&case.slot, &head).unwrap();
        case.git(&["config", "--worktree", "case.one", "true"]);
        case.prepare();
        assert_eq!((get("case.one"), get("case.two")), ("none".into(), "hooks".into()));
        assert_eq!(case.scratch.git(["config", "--default", "none", "case.two"]), "none");
    }

    #[test]
    fn all_that_is_done_in_a_sparse_slot_is_taken_and_the_next_is_whole() {
        for kind in ["--cone", "--no-cone", "--sparse-index"] {
            let case = Case::new();
            case.prepare();
            case.git(&["sparse-checkout", "set", kind, "d1"]);
            assert!(!case.slot.join("d2").exists());
            case.write("d1/x", "changed");
            case.write("d3/new", "new");
            case.write("d2/new", "new");
            assert_eq!(case.taken(), ["d1/x", "d2/new", "d3/new"], "{kind}");
            case.write("d2/x", "changed");
            assert_eq!(case.taken(), ["d1/x", "d2/new", "d2/x", "d3/new"], "{kind}");
            case.prepare();
            case.assert_whole();
        }
    }

    #[test]
    fn what_flags_hide_is_taken_and_the_flags_do_not_stay() {
        for version in ["2", "4"] {
            let case = Case::new();
            case.prepare();
            case.git(&["update-index", "--index-version", version]);
            case.git(&["update-index", "--skip-worktree", "a.txt"]);
            case.git(&["update-index", "--assume-unchanged", "d1/x", "d2/x"]);
            case.write("a.txt", "hidden");
            case.write("d1/x", "hidden");
            fs::remove_file(case.slot.join("d2/x")).unwrap();
            assert_eq!(case.taken(), ["a.txt", "d1/x", "d2/x"]);
            case.prepare();
            case.assert_whole();
        }
    }

    #[test]
    fn entries_are_read_as_git_writes_them() {
        let scratch = Scratch::new();
        let tip = scratch.rev("HEAD");
        for n in 1..20 {
            fs::write(scratch.root.join("n".repeat(n)), "x").unwrap();
        }
        let module = format!("160000,{tip},some/module");
        scratch.git(["add", "-A"]);
        scratch.git(["update-index", "--add", "--cacheinfo", &module]);
        let read = || Entries::read(&scratch.root.join(".git/index"), tip.as_str().len()).unwrap();
        let modules = vec![(PathBuf::from("some/module"), tip.to_string())];
        for version in ["2", "3", "4"] {
            scratch.git(["update-index", "--index-version", version]);
            assert_eq!(read(), Entries { has_flags: false, modules: modules.clone() }, "{version}");
            for flag in ["assume-unchanged", "skip-worktree"] {
                scratch.git(["update-index", &format!("--{flag}"), "nnn"]);
                assert!(read().has_flags, "{version} {flag}");
                scratch.git(["update-index", &format!("--no-{flag}"), "nnn"]);
                assert_eq!(read().modules, modules);
            }
        }
        scratch.git(["update-index", "--split-index"]);
        assert!(read().has_flags, "they stand elsewhere");
        fs::write(scratch.root.join(".git/index"), "junk").unwrap();
        assert!(read().has_flags);
    }

    #[test]
    fn a_submodule_that_does_not_stand_as_committed_is_emptied() {
        let scratch = Scratch::new();
        let first = scratch.rev("HEAD");
        let url = scratch.root.to_str().unwrap().to_owned();
        let add = ["-c", "protocol.file.allow=always", "submodule", "add", "-q", "--", &url, "sub"];
        scratch.git(add);
        scratch.git(["commit", "-q", "-m", "with a submodule"]);
        let tip = scratch.rev("HEAD");
        let case = Case::at(scratch, tip);
        case.prepare();
        let (dir, update) = (case.slot.join("sub"), ["submodule", "update", "-q", "--init"]);
        let fill = || {
            case.git(&[&["-c", "protocol.file.allow=always"][..], &update].concat());
            case.scratch.repo.mark_set_up(&case.slot, &case.tip).unwrap();
            assert!(dir.join("a.txt").exists());
        };
        fill();
        assert_ne!(case.prepare(), Changed::Everything);
        assert!(dir.join("a.txt").exists(), "it stands as committed");

        let changes: [fn(&Case); 4] = [
            |case| case.write("sub/a.txt", "edited"),
            |case| case.write("sub/new", "new"),
            |case| {
                case.git(&["-C", "sub", "commit", "-q", "--allow-empty", "-m", "mine"]);
            },
            |case| fs::remove_file(case.slot.join("sub/.git")).unwrap(),
        ];
        for change in changes {
            change(&case);
            assert_eq!(case.prepare(), Changed::Everything);
            assert_eq!(fs::read_dir(&dir).unwrap().count(), 0);
            assert_eq!(case.git(&["status", "--porcelain"]), "");
            assert_eq!(case.prepare(), Changed::Everything, "as long as setup has not run");
            fill();
            assert_eq!(case.git(&["-C", "sub", "rev-parse", "HEAD"]), first.as_str());
        }
    }
}
