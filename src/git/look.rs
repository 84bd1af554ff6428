//! A look at what is not ours: the user's checkout and all refs; compared with an earlier one it says
//! what somebody changed there. Nothing of theirs is written, no lock taken, nothing read twice.

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::OsStr;
use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::MetadataExt;
use std::time::Duration;

use xxhash_rust::xxh3::xxh3_64;

use super::call::{Call, Reply};
use super::error::GitError;
use super::gate::Gate;
use super::oid::Oid;
use super::own_index::OwnIndex;
use super::repo::Repo;
use crate::sys::file::read_bounded;

/// What of the common git folder holds for all worktrees, hooks aside.
const SHARED: [&str; 4] = ["config", "config.worktree", "info/attributes", "info/exclude"];
/// Largest of these files that is read, in bytes; of others the size counts.
const SHARED_BYTES_MAX: u64 = 1 << 20;
/// Hooks that are looked at.
const HOOKS_MAX: usize = 100;
/// Longest wait for a step of the base under way; then there is no look now.
const FOLLOW_WAIT: Duration = Duration::from_secs(20);
/// Longest that git may take for the checkout's state.
const LIMIT: Duration = Duration::from_secs(60);
/// Changed files whose time and size are read, so that another change of one is seen.
const STAMPED_MAX: usize = 2_000;
/// Digits of an object id in words.
const SHORT: usize = 12;

/// Where a ref stands, in one word: an object id; `-> NAME` when it stands for another ref.
pub type Value = String;

/// What stood where when it was looked at.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Look {
    /// The branch that the main checkout is on, or its commit when it is on none.
    pub head: String,
    /// By full name.
    pub refs: BTreeMap<String, Value>,
    /// What of the main checkout differs from its commit: by path, from its root, how.
    pub paths: BTreeMap<String, Entry>,
    /// Settings and hooks that all worktrees share: by path, what is in them; `None`: not looked at.
    pub shared: Option<BTreeMap<String, String>>,
}

/// How a path of a checkout differs from the commit.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Entry {
    /// Git's two letters, of the index and of the file.
    pub letters: String,
    /// Tells apart what was staged and what is in the file: ids, time and size.
    pub stamp: String,
}

/// One thing that differs between two looks.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Difference {
    /// The main checkout went from one branch, or commit, to another.
    Head { old: String, new: String },
    /// A ref; `None`: it was, or is, not there.
    Ref { name: String, old: Option<Value>, new: Option<Value> },
    /// A path of the main checkout; `None`: as committed then, or now.
    Path { path: String, was: Option<Entry>, now: Option<Entry> },
    /// A file that all worktrees share; `None`: it was, or is, not there.
    Shared { path: String, was: Option<String>, now: Option<String> },
}

impl Difference {
    /// Says it in words.
    #[must_use]
    pub fn words(&self) -> String {
        match self {
            Self::Head { old, new } => format!("main checkout: HEAD {old} -> {new}"),
            Self::Ref { name, old: None, new: Some(new) } => {
                format!("{name} made at {}", short(new))
            }
            Self::Ref { name, old: Some(old), new: None } => {
                format!("{name} removed, was at {}", short(old))
            }
            Self::Ref { name, old, new } => {
                let word = |value: &Option<Value>| short(value.as_deref().unwrap_or("")).to_owned();
                format!("{name} moved {}..{}", word(old), word(new))
            }
            Self::Shared { path, was: None, .. } => format!("{path} made"),
            Self::Shared { path, now: None, .. } => format!("{path} removed"),
            Self::Shared { path, .. } => format!("{path} changed"),
            Self::Path { path, now: None, .. } => {
                format!("main checkout: {path} as committed again")
            }
            Self::Path { path, now: Some(entry), .. } => {
                let staged = entry.letters.chars().next().filter(|letter| *letter != '.');
                let file = entry.letters.chars().nth(1).filter(|letter| *letter != '.');
                match (staged, file) {
                    _ if entry.letters == "??" => format!("main checkout: ?? {path}"),
                    (Some(staged), None) => format!("main checkout: {staged} {path} (staged)"),
                    (staged, file) => {
                        let letters: String = staged.into_iter().chain(file).collect();
                        format!("main checkout: {letters} {path}")
                    }
                }
            }
        }
    }
}

fn short(value: &str) -> &str {
    if value.starts_with("-> ") { value } else { value.get(..SHORT).unwrap_or(value) }
}

impl Look {
    /// Returns what differs in `later`: HEAD, refs, paths, then what is shared, each by name.
    ///
    /// What lay in an untracked folder that is now looked into, or the other way round, is no
    /// difference: that comes of what is tracked beside it.
    #[must_use]
    pub fn differences(&self, later: &Self) -> Vec<Difference> {
        let mut found = Vec::new();
        if self.head != later.head && !self.head.is_empty() && !later.head.is_empty() {
            let (old, new) = (self.head.clone(), later.head.clone());
            found.push(Difference::Head { old, new });
        }
        found.extend(self.ref_differences(later));
        for (path, now) in &later.paths {
            let is_new = match self.paths.get(path) {
                Some(before) => before != now,
                None => !is_below_untracked(&self.paths, path) && !is_opened(&self.paths, path),
            };
            if is_new {
                let (was, now) = (self.paths.get(path).cloned(), Some(now.clone()));
                found.push(Difference::Path { path: path.clone(), was, now });
            }
        }
        for (path, was) in self.paths.iter().filter(|(path, _)| !later.paths.contains_key(*path)) {
            if !is_opened(&later.paths, path) && !is_below_untracked(&later.paths, path) {
                let was = Some(was.clone());
                found.push(Difference::Path { path: path.clone(), was, now: None });
            }
        }
        if let (Some(before), Some(after)) = (&self.shared, &later.shared) {
            let paths: BTreeSet<&String> = before.keys().chain(after.keys()).collect();
            for path in paths.into_iter().filter(|path| before.get(*path) != after.get(*path)) {
                let (was, now) = (before.get(path).cloned(), after.get(path).cloned());
                found.push(Difference::Shared { path: path.clone(), was, now });
            }
        }
        found
    }

    /// Returns what differs in the refs of `later`.
    #[must_use]
    pub fn ref_differences(&self, later: &Self) -> Vec<Difference> {
        let gone = self.refs.iter().filter(|(name, _)| !later.refs.contains_key(*name));
        let gone = gone.map(|(name, old)| Difference::Ref {
            name: name.clone(),
            old: Some(old.clone()),
            new: None,
        });
        let moved = later.refs.iter().filter_map(|(name, new)| {
            let old = self.refs.get(name);
            (old != Some(new)).then(|| Difference::Ref {
                name: name.clone(),
                old: old.cloned(),
                new: Some(new.clone()),
            })
        });
        gone.chain(moved).collect()
    }
}

/// Returns whether `path` is a folder of which some part is in `paths`.
fn is_opened(paths: &BTreeMap<String, Entry>, path: &str) -> bool {
    let mut next = paths.range(path.to_owned()..);
    path.ends_with('/') && next.next().is_some_and(|(it, _)| it.starts_with(path))
}

/// Returns whether one of the folders that `path` lies in is an untracked one as a whole.
fn is_below_untracked(paths: &BTreeMap<String, Entry>, path: &str) -> bool {
    let inner = path.strip_suffix('/').unwrap_or(path);
    inner.match_indices('/').any(|(at, _)| paths.contains_key(&inner[..=at]))
}

impl Repo {
    /// Looks at all refs; `with_checkout`: and at the main checkout. Paths that begin with one of
    /// `ignored` are left out. Cost: the refs, and what `git status` costs in that checkout; with an
    /// index of our own, files whose times are out of date are read once and not each time.
    ///
    /// # Errors
    /// When git fails or is too slow, or a step of the base takes too long.
    pub fn look_outside(
        &self,
        with_checkout: bool,
        ignored: &[String],
        own: Option<&mut OwnIndex>,
    ) -> Result<Look, GitError> {
        let mut look = Look { refs: self.every_ref()?, ..Look::default() };
        if with_checkout {
            // A fast-forward of ours that is half done is nobody's change.
            let gate = Gate::close(&self.gates_dir(), "base.lock", None, FOLLOW_WAIT)?;
            let reply = self.checkout_status(own)?;
            drop(gate);
            self.read_status(&reply, ignored, &mut look)?;
            look.shared = Some(self.shared_files());
        }
        Ok(look)
    }

    /// Reads what every worktree goes by, git's samples of hooks aside.
    fn shared_files(&self) -> BTreeMap<String, String> {
        let hooks = fs::read_dir(self.common.join("hooks")).into_iter().flatten().flatten();
        let hooks = hooks.map(|hook| format!("hooks/{}", hook.file_name().to_string_lossy()));
        let hooks = hooks.filter(|name| !name.ends_with(".sample")).take(HOOKS_MAX);
        let stamped = SHARED.map(str::to_owned).into_iter().chain(hooks).filter_map(|name| {
            let path = self.common.join(&name);
            // No pipe is opened, which might never end.
            let meta = fs::metadata(&path).ok().filter(fs::Metadata::is_file)?;
            let read = read_bounded(&path, SHARED_BYTES_MAX);
            let text = read.ok().flatten().map(|bytes| format!("{:016x}", xxh3_64(&bytes)));
            let text = text.unwrap_or_else(|| format!("{}", meta.size()));
            Some((format!(".git/{name}"), format!("{text} {:o}", meta.mode())))
        });
        stamped.collect()
    }

    fn checkout_status(&self, own: Option<&mut OwnIndex>) -> Result<Reply, GitError> {
        let call = || {
            Call::read("git.look_outside", &self.root)
                .args(["status", "--porcelain=v2", "-z", "--branch", "--no-renames"])
                .args(["--untracked-files=normal", "--no-ahead-behind"])
                // Wherever `core.worktree` points by now, and whatever `core.bare` says.
                .env("GIT_WORK_TREE", &self.root)
                .limited(LIMIT)
        };
        // Git drops the index for what it runs in submodules, but not the leave to lock: there it would
        // lock the person's.
        let own = own.filter(|_| !self.has_submodules());
        let Some(own) = own else { return self.git.ok(call()) };
        let replied = own.renew(&self.common.join("index")).map(|path| {
            let call = call().env("GIT_INDEX_FILE", path).env("GIT_OPTIONAL_LOCKS", "1");
            self.git.ok(call)
        });
        match replied {
            // Without it a look that is too slow would not be faster.
            Ok(reply @ (Ok(_) | Err(GitError::Late { .. }))) => reply,
            Ok(Err(_)) | Err(_) => {
                own.forget();
                self.git.ok(call())
            }
        }
    }

    /// Returns whether there may be submodules in the main checkout.
    fn has_submodules(&self) -> bool {
        [self.root.join(".gitmodules"), self.common.join("modules")]
            .iter()
            .any(|path| fs::symlink_metadata(path).is_ok())
    }

    /// Reads one ref by its full name: the commit, and where it stands as in a look; `None` when it
    /// is not there, or stands for another one that is not.
    ///
    /// # Errors
    /// When git fails.
    pub fn read_value(&self, full: &str) -> Result<(Option<Oid>, Option<Value>), GitError> {
        let read = || Ok(self.refs_below(&["--", full])?.remove(full));
        let found: Option<Value> = read()?;
        match found {
            None => Ok((None, None)),
            Some(alias) if alias.starts_with("-> ") => {
                let oid = self.read_ref(full)?;
                // The id is that of what was read first, or none: others move it meanwhile.
                let now = read()?;
                Ok((oid.filter(|_| now.as_ref() == Some(&alias)), now))
            }
            // Not read again: what an effect of ours moves it to meanwhile is not what was found.
            Some(value) => {
                let oid =
                    value.parse().map_err(|error| GitError::bad_oid("git for-each-ref", error))?;
                Ok((Some(oid), Some(value)))
            }
        }
    }

    fn every_ref(&self) -> Result<BTreeMap<String, Value>, GitError> {
        self.refs_below(&[])
    }

    fn refs_below(&self, names: &[&str]) -> Result<BTreeMap<String, Value>, GitError> {
        let call = Call::read("git.look_at_refs", &self.root)
            .args(["for-each-ref", "--format=%(objectname) %(refname) %(symref)"])
            .args(names)
            .limited(LIMIT);
        let reply = self.git.ok(call)?;
        let text = String::from_utf8_lossy(&reply.stdout);
        let parse = |line: &str| {
            let mut words = line.splitn(3, ' ');
            let (oid, name, symref) = (words.next()?, words.next()?, words.next()?);
            let value = if symref.is_empty() { oid.to_owned() } else { format!("-> {symref}") };
            Some((name.to_owned(), value))
        };
        let found: Option<BTreeMap<String, Value>> = text.lines().map(parse).collect();
        found.ok_or_else(|| GitError::answer(&reply.call, &reply.stdout))
    }

    fn read_status(
        &self,
        reply: &Reply,
        ignored: &[String],
        look: &mut Look,
    ) -> Result<(), GitError> {
        let mut commit = String::new();
        for field in reply.fields() {
            let text = String::from_utf8_lossy(field);
            if let Some(oid) = text.strip_prefix("# branch.oid ") {
                commit = oid.to_owned();
            } else if let Some(head) = text.strip_prefix("# branch.head ") {
                let is_detached = head == "(detached)";
                look.head = if is_detached { short(&commit).to_owned() } else { head.to_owned() };
            } else if !text.starts_with("# ") {
                let entry = entry(&text).ok_or_else(|| GitError::answer(&reply.call, field))?;
                let (path, mut entry) = entry;
                if ignored.iter().any(|prefix| path.starts_with(prefix)) {
                    continue;
                }
                if look.paths.len() < STAMPED_MAX {
                    // What stands before the path is ASCII.
                    let start = text.len() - path.len();
                    let place = self.root.join(OsStr::from_bytes(&field[start..]));
                    if let Ok(meta) = fs::symlink_metadata(&place) {
                        let (at, part, size) = (meta.mtime(), meta.mtime_nsec(), meta.size());
                        entry.stamp += &format!(" {at}.{part} {size}");
                    }
                }
                look.paths.insert(path.to_owned(), entry);
            }
        }
        Ok(())
    }
}

/// Reads one entry of `git status --porcelain=v2`: its path and how it differs.
fn entry(text: &str) -> Option<(&str, Entry)> {
    let (kind, rest) = text.split_once(' ')?;
    // Before the path stand so many fields.
    let fields = match kind {
        "1" => 7,
        "u" => 9,
        "?" => {
            let letters = "??".to_owned();
            return Some((rest, Entry { letters, stamp: String::new() }));
        }
        _ => return None,
    };
    let mut parts = rest.splitn(fields + 1, ' ');
    let letters = parts.next()?.to_owned();
    let before: Vec<&str> = parts.by_ref().take(fields - 1).collect();
    // Of the ids the last one is what is staged; those of the commit change with it.
    let stamp = before.last().copied().unwrap_or_default().to_owned();
    Some((parts.next()?, Entry { letters, stamp }))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::git::scratch::Scratch;

    fn look(scratch: &Scratch) -> Look {
        scratch.repo.look_outside(true, &[".pipeline/".to_owned()], None).unwrap()
    }

    fn words(before: &Look, after: &Look) -> Vec<String> {
        before.differences(after).iter().map(Difference::words).collect()
    }

    #[test]
    fn what_changes_in_checkout_and_refs_is_named() {
        let scratch = Scratch::new();
        let write = |path: &str, text: &str| fs::write(scratch.root.join(path), text).unwrap();
        let clean = look(&scratch);
        assert!(clean.paths.is_empty());
        assert_eq!(words(&clean, &look(&scratch)), [""; 0]);
        write("ü x.txt", "x");
        write("a.txt", "mine");
        let dirty = look(&scratch);
        assert_eq!(words(&clean, &dirty), ["main checkout: M a.txt", "main checkout: ?? ü x.txt"]);
        // Once more: no letter changes.
        write("a.txt", "mine too");
        assert_eq!(words(&dirty, &look(&scratch)), ["main checkout: M a.txt"]);
        scratch.git(["add", "a.txt"]);
        let staged = look(&scratch);
        assert_eq!(words(&dirty, &staged), ["main checkout: M a.txt (staged)"]);
        scratch.git(["tag", "v1"]);
        scratch.git(["branch", "topic"]);
        scratch.git(["symbolic-ref", "refs/heads/alias", "refs/heads/main"]);
        let first = scratch.rev("HEAD");
        let short = first.short();
        let tagged = look(&scratch);
        let made = [
            "refs/heads/alias made at -> refs/heads/main".to_owned(),
            format!("refs/heads/topic made at {short}"),
            format!("refs/tags/v1 made at {short}"),
        ];
        assert_eq!(words(&staged, &tagged), made);
        scratch.git(["commit", "-q", "-m", "second"]);
        scratch.git(["tag", "-d", "v1"]);
        scratch.git(["checkout", "-q", "topic"]);
        let second = scratch.rev("main");
        let expected = [
            "main checkout: HEAD main -> topic".to_owned(),
            format!("refs/tags/v1 removed, was at {short}"),
            format!("refs/heads/main moved {short}..{}", second.short()),
            "main checkout: a.txt as committed again".to_owned(),
        ];
        assert_eq!(words(&tagged, &look(&scratch)), expected);
    }

    #[test]
    fn what_all_worktrees_share_is_looked_at_too() {
        let scratch = Scratch::new();
        let git = scratch.root.join(".git");
        fs::create_dir_all(git.join("hooks")).unwrap();
        fs::write(git.join("info/exclude"), "").unwrap();
        let before = look(&scratch);
        assert_eq!(words(&before, &look(&scratch)), [""; 0]);
        fs::write(git.join("hooks/pre-commit"), "exit 1\n").unwrap();
        fs::write(git.join("hooks/pre-push.sample"), "exit 1\n").unwrap();
        fs::write(git.join("info/attributes"), "* -text\n").unwrap();
        fs::remove_file(git.join("info/exclude")).unwrap();
        // Neither is believed: the checkout is what it was.
        for (name, value) in [("core.bare", "true"), ("core.worktree", "/")] {
            scratch.git(["config", name, value]);
            let told = [
                ".git/config changed",
                ".git/hooks/pre-commit made",
                ".git/info/attributes made",
                ".git/info/exclude removed",
            ];
            assert_eq!(words(&before, &look(&scratch)), told);
            scratch.git(["config", "core.bare", "false"]);
        }
        let older = Look { shared: None, ..before };
        assert_eq!(words(&older, &look(&scratch)), [""; 0]);
    }

    #[test]
    fn a_commit_beside_untracked_files_is_not_a_change_of_these() {
        let scratch = Scratch::new();
        fs::create_dir_all(scratch.root.join("dir/deep")).unwrap();
        fs::write(scratch.root.join("dir/deep/mine"), "").unwrap();
        fs::write(scratch.root.join("dir/yours"), "").unwrap();
        let before = look(&scratch);
        assert_eq!(before.paths.keys().collect::<Vec<_>>(), ["dir/"]);
        scratch.git(["add", "dir/yours"]);
        scratch.git(["commit", "-q", "-m", "yours"]);
        let after = look(&scratch);
        assert_eq!(after.paths.keys().collect::<Vec<_>>(), ["dir/deep/"]);
        let is_path = |found: &Difference| matches!(found, Difference::Path { .. });
        assert!(!before.differences(&after).iter().any(is_path));
        assert!(!after.differences(&before).iter().any(is_path));
    }

    #[test]
    fn a_look_leaves_the_index_of_a_submodule_alone() {
        let scratch = Scratch::new();
        let sub = scratch.root.join("sub");
        fs::create_dir(&sub).unwrap();
        fs::write(sub.join("b.txt"), "b\n").unwrap();
        for args in [&["init", "-q"][..], &["add", "-A"], &["commit", "-q", "-m", "sub"]] {
            scratch.git_in(&sub, args.iter().copied());
        }
        let module = "[submodule \"sub\"]\n\tpath = sub\n\turl = ./sub\n";
        fs::write(scratch.root.join(".gitmodules"), module).unwrap();
        scratch.git(["add", "-A"]);
        scratch.git(["commit", "-q", "-m", "with a submodule"]);
        let before = fs::read(sub.join(".git/index")).unwrap();
        let file = fs::File::options().write(true).open(sub.join("b.txt")).unwrap();
        let earlier = file.metadata().unwrap().modified().unwrap() - Duration::from_secs(3_600);
        file.set_modified(earlier).unwrap();
        let mut own = OwnIndex::new(scratch.dir.path().join("own"));
        let look = scratch.repo.look_outside(true, &[], Some(&mut own)).unwrap();
        assert!(look.paths.is_empty(), "{look:?}");
        assert_eq!(fs::read(sub.join(".git/index")).unwrap(), before);
    }

    #[test]
    fn a_look_waits_for_nobody_and_takes_no_lock() {
        let scratch = Scratch::new();
        let lock = scratch.root.join(".git/index.lock");
        fs::write(&lock, "a person's").unwrap();
        assert_eq!(look(&scratch).head, "main");
        assert_eq!(fs::read_to_string(&lock).unwrap(), "a person's");
        fs::remove_file(lock).unwrap();
        scratch.git(["checkout", "-q", "--detach"]);
        assert_eq!(look(&scratch).head, scratch.rev("HEAD").short());
        let only_refs = scratch.repo.look_outside(false, &[], None).unwrap();
        assert!(only_refs.head.is_empty() && only_refs.refs.len() == 1);
    }
}
