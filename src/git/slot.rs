//! Where slots are: finding, making, removing and listing them, and their administrative folders.
//!
//! Git keeps for every worktree a folder `worktrees/<id>` in the common folder; its file `gitdir`
//! names the worktree, whose file `.git` names it back. Either may be missing or wrong.

use std::ffi::OsStr;
use std::fs;
use std::io::{self, ErrorKind};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use walkdir::WalkDir;
use xxhash_rust::xxh3::xxh3_64;

use super::call::Call;
use super::error::GitError;
use super::gate::{Gate, WAIT_MAX};
use super::left::LOGGED;
use super::oid::Oid;
use super::repo::{Repo, canonical};
use crate::sys::fail;
use crate::sys::file::{read_bounded, small_text};
use crate::sys::proc::is_held_open;

/// In a slot's administrative folder: this worktree is one of ours.
pub(super) const MARK: &str = "pipeline-slot";
/// Why git has a worktree locked while it adds it.
const ADDING: &str = "initializing";
/// More than a path that git writes into a file, in bytes.
const PATH_BYTES_MAX: u64 = 1 << 16;
/// A worktree of somebody else being made at this very moment is younger than this.
pub(super) const HALF_MADE_AGE_MIN: Duration = Duration::from_secs(10);
/// A git writes a file that it has just made for less.
const CUT_OFF_AGE_MIN: Duration = Duration::from_secs(1);

/// What there is at a slot's place.
pub(super) enum Found {
    /// Nothing, and git knows of nothing.
    Absent,
    /// A worktree of ours, with its administrative folder.
    Ready(PathBuf),
    /// Parts of a worktree of ours.
    Broken,
    /// Something of somebody else: what.
    Foreign(&'static str),
}

impl Repo {
    /// Removes a slot and all that is in it; nothing happens when it is gone.
    ///
    /// # Errors
    /// [`GitError::ForeignSlot`] when the place is not ours; files that cannot be removed.
    pub fn remove_slot(&self, slot: &Path) -> Result<(), GitError> {
        let path = settle(slot)?;
        let gate = self.slot_gate(&path)?;
        match self.find_slot(&path)? {
            Found::Foreign(why) => Err(GitError::ForeignSlot { path, why }),
            Found::Absent => Ok(()),
            Found::Ready(_) | Found::Broken => {
                let _registry = self.registry_gate()?;
                self.clear_slot(&gate, &path)
            }
        }
    }

    pub(super) fn slot_gate(&self, slot: &Path) -> Result<Gate<'_>, GitError> {
        let name = format!("slot-{:016x}.lock", xxh3_64(slot.as_os_str().as_bytes()));
        Gate::close(&self.gates_dir(), &name, None, WAIT_MAX)
    }

    /// Returns the administrative folder of the worktree at `path`, whatever its `.git` file says.
    pub(super) fn admin_of(&self, path: &Path) -> Result<Option<PathBuf>, GitError> {
        Ok(self.admins_of(path)?.into_iter().next())
    }

    /// Returns whether the worktree at `path` is a slot of ours.
    ///
    /// # Errors
    /// When the list of worktrees cannot be read.
    pub fn is_slot(&self, path: &Path) -> Result<bool, GitError> {
        Ok(self.admin_of(path)?.is_some_and(|admin| admin.join(MARK).exists()))
    }

    /// Returns every administrative folder, sorted.
    pub(super) fn admins(&self) -> Result<Vec<PathBuf>, GitError> {
        let dir = self.common.join("worktrees");
        let entries = match fs::read_dir(&dir) {
            Ok(entries) => entries,
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(Vec::new()),
            Err(source) => return Err(GitError::File { doing: "read", path: dir, source }),
        };
        let mut admins: Vec<PathBuf> = entries.filter_map(Result::ok).map(|it| it.path()).collect();
        admins.sort();
        Ok(admins)
    }

    pub(super) fn admins_of(&self, slot: &Path) -> Result<Vec<PathBuf>, GitError> {
        let mut admins = self.admins()?;
        admins.retain(|admin| registered(admin).as_deref() == Some(slot));
        Ok(admins)
    }

    pub(super) fn find_slot(&self, slot: &Path) -> Result<Found, GitError> {
        let admins = self.admins_of(slot)?;
        let meta = match fs::symlink_metadata(slot) {
            Ok(meta) => meta,
            Err(error) if error.kind() == ErrorKind::NotFound => {
                return Ok(if admins.is_empty() { Found::Absent } else { Found::Broken });
            }
            Err(source) => {
                return Err(GitError::File { doing: "look at", path: slot.into(), source });
            }
        };
        if meta.is_symlink() {
            return Ok(Found::Foreign("it is a symbolic link"));
        }
        if !meta.is_dir() {
            return Ok(Found::Foreign("it is not a folder"));
        }
        let link = linked(slot);
        if let ([admin], Some(link)) = (admins.as_slice(), &link) {
            let is_whole = admin.join("HEAD").exists() && admin.join("commondir").exists();
            if link == admin && is_whole {
                return Ok(Found::Ready(admin.clone()));
            }
        }
        if self.is_others(slot) {
            return Ok(Found::Foreign("it is a worktree of another repository"));
        }
        let is_ours = !admins.is_empty()
            || link.is_some_and(|link| link.starts_with(self.common.join("worktrees")));
        let is_empty = || fs::read_dir(slot).is_ok_and(|mut entries| entries.next().is_none());
        if is_ours || is_empty() {
            return Ok(Found::Broken);
        }
        Ok(Found::Foreign("it is not a worktree of this repository"))
    }

    /// Makes the slot from nothing, after clearing what a killed or broken one left; returns its
    /// administrative folder. Passed every kill point of `worktree add` (measured on 2.47).
    pub(super) fn make_slot(
        &self,
        gate: &Gate<'_>,
        slot: &Path,
        at: &Oid,
    ) -> Result<PathBuf, GitError> {
        let registry = self.registry_gate()?;
        self.clear_slot(gate, slot)?;
        self.clear_given_up(&registry, slot)?;
        self.clear_cut_off(&registry)?;
        let call = Call::write("git.worktree_add", &self.root)
            .args(["worktree", "add", "--detach", "--no-checkout", "-q", "--"])
            .args([slot.as_os_str(), OsStr::new(at.as_str())]);
        self.git.ok(call.gate(&registry))?;
        let admin = self.admin_of(slot)?;
        admin.ok_or_else(|| GitError::answer("git worktree add", slot.as_os_str().as_bytes()))
    }

    /// Removes a slot's folder, then its administrative folders; killed in between, it is still
    /// known as ours.
    pub(super) fn clear_slot(&self, _gate: &Gate<'_>, slot: &Path) -> Result<(), GitError> {
        let mut admins = self.admins_of(slot)?;
        admins.extend(linked(slot).filter(|link| {
            let is_admin = link.parent() == Some(&self.common.join("worktrees"));
            is_admin && registered(link).is_none_or(|path| path == slot)
        }));
        admins.extend(self.half_made(slot)?);
        for admin in &admins {
            // Half of what is being removed is not what an attempt left.
            remove_file(&admin.join(LOGGED))?;
        }
        remove_tree("git.remove_slot", slot)?;
        for admin in admins {
            self.remove_admin(&admin)?;
        }
        Ok(())
    }

    /// Removes what a failed `worktree add` left of the same agent's other slots, which may never be
    /// made again: `git fsck` takes it for a fault. None is being added while the registry is ours.
    fn clear_given_up(&self, _registry: &Gate<'_>, slot: &Path) -> Result<(), GitError> {
        for admin in self.admins()? {
            let Some(path) = registered(&admin).filter(|path| *path != slot) else { continue };
            let name = path.file_name().unwrap_or_default().as_bytes();
            let is_slot = path.parent() == slot.parent() && name.iter().all(u8::is_ascii_digit);
            let lock = small_text(&admin.join("locked"));
            let is_empty = fs::read_dir(&path)
                .is_ok_and(|entries| entries.flatten().all(|entry| entry.file_name() == ".git"));
            if is_slot && lock.trim() == ADDING && (is_empty || !path.exists()) {
                // What cannot be removed is in nobody's way, and is tried again.
                let _ =
                    remove_tree("git.remove_slot", &path).and_then(|()| self.remove_admin(&admin));
            }
        }
        Ok(())
    }

    /// Removes what a `worktree add` left that was killed where git fails for all worktrees since. It
    /// holds no work yet, whoever it was for. None of ours is being added while the registry is ours.
    pub(super) fn clear_cut_off(&self, _registry: &Gate<'_>) -> Result<(), GitError> {
        let cut_off = self.admins()?.into_iter().filter(|admin| is_cut_off(admin));
        cut_off.collect::<Vec<_>>().iter().try_for_each(|admin| self.remove_admin(admin))
    }

    /// Removes an administrative folder: at once for git, by a rename into our own folder. Killed in the
    /// middle of a plain removal, parts would stay that nobody can tell whose they are.
    pub(super) fn remove_admin(&self, admin: &Path) -> Result<(), GitError> {
        let name = admin.file_name().unwrap_or_default().to_string_lossy();
        let aside = self.gates_dir().join(format!("removed-{name}"));
        remove_tree("git.remove_admin", &aside)?;
        match fail::point("git.move_admin").and_then(|()| fs::rename(admin, &aside)) {
            Ok(()) => remove_tree("git.remove_admin", &aside),
            Err(_) => remove_tree("git.remove_admin", admin),
        }
    }

    /// Returns folders which `worktree add` of a slot of this name made and then died: they hold
    /// nothing but `locked` and an empty `gitdir`, so git neither lists nor prunes them.
    fn half_made(&self, slot: &Path) -> Result<Vec<PathBuf>, GitError> {
        let base = slot.file_name().unwrap_or_default().as_bytes();
        let mut admins = self.admins()?;
        admins.retain(|admin| {
            let name = admin.file_name().unwrap_or_default().as_bytes();
            let rest = name.strip_prefix(base);
            let is_named = rest.is_some_and(|rest| rest.iter().all(u8::is_ascii_digit));
            is_named && Self::is_half_made(admin)
        });
        Ok(admins)
    }

    /// Returns whether a folder holds no more than `locked` and an empty `gitdir`, and is not new.
    pub(super) fn is_half_made(admin: &Path) -> bool {
        let names = fs::read_dir(admin).map(|it| it.filter_map(Result::ok));
        let is_empty = |entry: &fs::DirEntry| {
            entry.file_name() == "gitdir" && entry.metadata().is_ok_and(|meta| meta.len() == 0)
        };
        let is_bare = names
            .is_ok_and(|mut it| it.all(|entry| entry.file_name() == "locked" || is_empty(&entry)));
        let age = fs::metadata(admin).and_then(|meta| meta.modified()).map(|at| at.elapsed());
        is_bare && matches!(age, Ok(Ok(age)) if age > HALF_MADE_AGE_MIN)
    }
}

/// Returns whether a git died while it wrote `commondir`: one that lives has an empty one open, and if
/// /proc does not show it, for a moment.
fn is_cut_off(admin: &Path) -> bool {
    let commondir = admin.join("commondir");
    let is_empty = || {
        let found = fs::symlink_metadata(&commondir).ok().filter(|file| file.len() == 0);
        let age = found.and_then(|file| file.modified().ok()?.elapsed().ok());
        age.is_some_and(|age| age > CUT_OFF_AGE_MIN)
    };
    let is_adding = small_text(&admin.join("locked")).trim() == ADDING;
    is_empty() && is_adding && !is_held_open(&commondir) && is_empty()
}

/// Returns the slot's true path; its folder's parent is made when it is not there.
pub(super) fn settle(slot: &Path) -> Result<PathBuf, GitError> {
    let foreign = |why| GitError::ForeignSlot { path: slot.into(), why };
    let (Some(parent), Some(name)) = (slot.parent(), slot.file_name()) else {
        return Err(foreign("it is the root"));
    };
    if fs::symlink_metadata(parent).is_ok_and(|meta| meta.is_symlink()) {
        return Err(foreign("the folder above it is a symbolic link"));
    }
    fs::create_dir_all(parent).map_err(|source| GitError::File {
        doing: "create",
        path: parent.into(),
        source,
    })?;
    Ok(canonical(parent)?.join(name))
}

/// Returns the worktree that an administrative folder belongs to; `None` when it does not say.
pub(super) fn registered(admin: &Path) -> Option<PathBuf> {
    let bytes = read_bounded(&admin.join("gitdir"), PATH_BYTES_MAX).ok()??;
    let path = Path::new(OsStr::from_bytes(bytes.trim_ascii_end()));
    let file = absolute(admin, path);
    (file.file_name() == Some(OsStr::new(".git"))).then(|| file.parent().map(Path::to_owned))?
}

/// Returns the administrative folder that a worktree's `.git` file names.
pub(super) fn linked(slot: &Path) -> Option<PathBuf> {
    let file = slot.join(".git");
    let bytes = read_bounded(&file, PATH_BYTES_MAX).ok()??;
    let path = bytes.trim_ascii_end().strip_prefix(b"gitdir: ")?;
    Some(absolute(slot, Path::new(OsStr::from_bytes(path))))
}

/// Resolves a path of git's, which may be relative to `dir` (`worktree.useRelativePaths`).
fn absolute(dir: &Path, path: &Path) -> PathBuf {
    let joined = dir.join(path);
    if path.is_absolute() { joined } else { fs::canonicalize(&joined).unwrap_or(joined) }
}

pub(super) fn remove_file(path: &Path) -> Result<(), GitError> {
    match fail::point("git.remove_file").and_then(|()| fs::remove_file(path)) {
        Err(source) if source.kind() != ErrorKind::NotFound => {
            Err(GitError::File { doing: "remove", path: path.into(), source })
        }
        Ok(()) | Err(_) => Ok(()),
    }
}

/// Removes a folder and all below it, read-only folders included; gone already is fine.
pub(super) fn remove_tree(point: &'static str, path: &Path) -> Result<(), GitError> {
    let remove = || -> io::Result<()> {
        fail::point(point)?;
        match fs::remove_dir_all(path) {
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(()),
            other => other,
        }
    };
    remove()
        .or_else(|error| {
            if error.kind() != ErrorKind::PermissionDenied {
                return Err(error);
            }
            make_writable(path);
            remove()
        })
        .map_err(|source| GitError::File { doing: "remove", path: path.into(), source })
}

/// Lets the owner into every folder below `dir`; where that fails, the removal after it will say.
pub(super) fn make_writable(dir: &Path) {
    for entry in WalkDir::new(dir).into_iter().filter_map(Result::ok) {
        if entry.file_type().is_dir() {
            // A folder of another user stays as it is.
            let _ = fs::set_permissions(entry.path(), fs::Permissions::from_mode(0o700));
        }
    }
}
