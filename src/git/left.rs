//! What an agent left that is in no commit of the result: repositories inside its slot, which are moved
//! out of it, and commits that its HEAD went away from.

use std::collections::BTreeSet;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use walkdir::WalkDir;

use super::call::Call;
use super::error::GitError;
use super::gate::Gate;
use super::landing::Trees;
use super::oid::Oid;
use super::remains::OTHERS;
use super::repo::Repo;
use super::slot::{Found, linked, registered, settle};
use crate::sys::fail;

/// In a slot's administrative folder: how many bytes the log of its HEAD had when it was prepared.
pub(super) const LOGGED: &str = "pipeline-logged";
/// The folder beside an agent's slots for what lay in them.
const ASIDE: &str = "left";
/// Most commits of an attempt that are kept beside its result.
const KEPT_MAX: usize = 8;

impl Repo {
    /// Returns repositories in the index at `index` that `tip` has not and no `.gitmodules` names:
    /// nobody else could get them.
    pub(super) fn embedded(
        &self,
        gate: &Gate<'_>,
        (slot, admin, index): (&Path, &Path, &Path),
        tip: &Oid,
    ) -> Result<Vec<String>, GitError> {
        let call = self.in_slot(Call::write("git.embedded", slot), slot, admin);
        let args = ["diff-index", "--cached", "-z", "--no-renames", "--ignore-submodules=none"];
        let call = call.env("GIT_INDEX_FILE", index).args(args).args([tip.as_str(), "--"]);
        let fields = self.git.ok(call.gate(gate))?.texts();
        let modules = named_modules(slot);
        let is_new = |pair: &&[String]| {
            let mut modes = pair[0].split(' ');
            modes.next() != Some(":160000") && modes.next() == Some("160000")
        };
        let found = fields.chunks_exact(2).filter(is_new).map(|pair| pair[1].clone());
        Ok(found.filter(|path| !modules.contains(path)).collect())
    }

    /// Moves repositories out of a slot, so that nobody removes them with it, to a folder beside the
    /// slot that is named `name`; those that cleaning keeps (`keep`) stay. Returns the folder, and what
    /// is in it: done twice is done once.
    ///
    /// # Errors
    /// When git fails, or one cannot be moved.
    pub fn set_apart(
        &self,
        slot: &Path,
        paths: &[String],
        keep: &[String],
        name: &str,
    ) -> Result<(PathBuf, Vec<String>), GitError> {
        let slot = settle(slot)?;
        let to = aside(&slot, name);
        let _gate = self.slot_gate(&slot)?;
        if let Found::Ready(admin) = self.find_slot(&slot)? {
            let kept = self.kept_in(&slot, &admin, paths, keep)?;
            for path in paths.iter().filter(|path| !kept.contains(*path)) {
                self.move_aside(&slot.join(path), &to.join(path))?;
            }
        }
        let mut found = Vec::new();
        let mut entries = WalkDir::new(&to).min_depth(1).sort_by_file_name().into_iter();
        while let Some(entry) = entries.next() {
            let Ok(entry) = entry else { continue };
            if fs::symlink_metadata(entry.path().join(".git")).is_ok() {
                self.tell_moved(entry.path())?;
                let path = entry.path().strip_prefix(&to).unwrap_or(entry.path());
                found.push(path.display().to_string());
                entries.skip_current_dir();
            }
        }
        Ok((to, found))
    }

    /// Returns what git ignores in a slot, folders as one, but for `exclude` and what cleaning keeps.
    ///
    /// # Errors
    /// When git fails.
    pub fn ignored_in(
        &self,
        slot: &Path,
        exclude: &[String],
        keep: &[String],
    ) -> Result<Vec<String>, GitError> {
        let slot = settle(slot)?;
        let Found::Ready(admin) = self.find_slot(&slot)? else { return Ok(Vec::new()) };
        let call = self.in_slot(Call::read("git.ignored_in", &slot), &slot, &admin);
        let args = ["--others", "--ignored", "--exclude-standard", "--directory"];
        let texts = self.git.ok(call.args(["ls-files", "-z"]).args(args))?.texts();
        let mut found: Vec<String> = Vec::new();
        let names = texts.into_iter().map(|path| path.trim_end_matches('/').to_owned());
        for path in names.filter(|path| !exclude.contains(path)) {
            // Of a folder that ignores itself git names the files as well, after it.
            if !found.iter().any(|dir| Path::new(&path).starts_with(dir)) {
                found.push(path);
            }
        }
        let kept = self.kept_in(&slot, &admin, &found, keep)?;
        found.retain(|path| !kept.contains(path));
        Ok(found)
    }

    /// Returns those of `paths` that the cleaning of the slot leaves there.
    fn kept_in(
        &self,
        slot: &Path,
        admin: &Path,
        paths: &[String],
        keep: &[String],
    ) -> Result<BTreeSet<String>, GitError> {
        if keep.is_empty() || paths.is_empty() {
            return Ok(BTreeSet::new());
        }
        let call = self.in_slot(Call::read("git.kept_in", slot), slot, admin);
        let call = call
            .args(["ls-files", "-z", "--others", "--ignored", "--directory"])
            .args(keep.iter().map(|pattern| format!("--exclude={pattern}")))
            .args(["--"])
            .args(paths.iter().map(|path| format!(":(top,literal){path}")));
        let texts = self.git.ok(call)?.texts();
        Ok(texts.into_iter().map(|path| path.trim_end_matches('/').to_owned()).collect())
    }

    fn move_aside(&self, from: &Path, to: &Path) -> Result<(), GitError> {
        let failed = |source| GitError::File { doing: "move aside", path: from.into(), source };
        let Ok(meta) = fs::symlink_metadata(from) else { return Ok(()) };
        if !meta.is_dir() {
            return Ok(());
        }
        let free = |to: PathBuf| fs::symlink_metadata(&to).is_err().then_some(to);
        let more = (2..).map(|count| PathBuf::from(format!("{}.{count}", to.display())));
        let Some(to) = std::iter::once(to.to_owned()).chain(more).find_map(free) else {
            return Ok(());
        };
        let mode = meta.permissions().mode();
        if mode & 0o700 != 0o700 {
            // Who may not write to a folder may not move it.
            fs::set_permissions(from, fs::Permissions::from_mode(mode | 0o700)).map_err(failed)?;
        }
        fail::point("git.set_aside")
            .and_then(|()| fs::create_dir_all(to.parent().unwrap_or(Path::new("/"))))
            .and_then(|()| fs::rename(from, &to))
            .map_err(failed)?;
        Ok(())
    }

    /// Tells git where a worktree is that was moved aside, also by somebody who was killed before they
    /// told it. Where it cannot be told, the files are there.
    fn tell_moved(&self, dir: &Path) -> Result<(), GitError> {
        let known = linked(dir).and_then(|admin| registered(&admin));
        if !dir.join(".git").is_file() || known.is_some_and(|at| at.join(".git").exists()) {
            return Ok(());
        }
        let _gate = self.registry_gate()?;
        let call = Call::write("git.repair", &self.root).args(["worktree", "repair", "--"]);
        self.git.run(call.args([dir])).map(drop)
    }

    /// Notes how far the log of a slot's HEAD goes, for [`Repo::keep_left`].
    pub(super) fn mark_log(&self, admin: &Path) -> Result<(), GitError> {
        let bytes = fs::metadata(admin.join("logs/HEAD")).map_or(0, |meta| meta.len());
        let path = admin.join(LOGGED);
        let written = fail::point("git.mark").and_then(|()| fs::write(&path, bytes.to_string()));
        written.map_err(|source| GitError::File { doing: "write", path, source })
    }

    /// Keeps commits at which HEAD stood since the slot was prepared, and whose changes neither
    /// `result` nor one of `known` nor another ref holds, at `<pin>.head.<id>`; returns these names.
    /// What was amended is none of them.
    pub(super) fn keep_left(
        &self,
        admin: &Path,
        result: &Oid,
        known: &[&Oid],
        pin: &str,
    ) -> Result<Vec<String>, GitError> {
        let stood = stood_at(admin);
        if stood.iter().all(|oid| oid == result || known.contains(&oid)) {
            return Ok(Vec::new());
        }
        let gone = self.missing_commits(&stood)?;
        let stood: Vec<Oid> = stood.into_iter().filter(|oid| !gone.contains(oid)).collect();
        let held = known.iter().copied().chain([result]).map(|oid| format!("^{oid}\n"));
        let input: String = stood.iter().map(|oid| format!("{oid}\n")).chain(held).collect();
        let call = Call::read("git.left", &self.root).args(["rev-list", "--stdin"]);
        let text = self.git.ok(call.args(OTHERS).bytes(input.as_bytes()))?.line();
        let alone: BTreeSet<&str> = text.lines().collect();
        let tree = self.tree_of(result)?;
        let (mut kept, mut names): (Vec<Oid>, Vec<String>) = (Vec::new(), Vec::new());
        for oid in stood.into_iter().filter(|oid| alone.contains(oid.as_str())).take(KEPT_MAX) {
            let mut is_held = false;
            for newer in &kept {
                is_held = is_held || self.is_ancestor(&oid, newer)?;
            }
            // One that was rebased is in the result under another name.
            let is_in = || {
                Ok::<_, GitError>(match self.merge_trees(result, &oid) {
                    Ok(Trees::Clean(merged)) => merged == tree,
                    Ok(Trees::Conflict(_)) | Err(GitError::Failed { .. }) => false,
                    Err(error) => return Err(error),
                })
            };
            if !is_held && !is_in()? {
                let name = format!("{pin}.head.{}", oid.short());
                self.keep_at(&name, &oid)?;
                names.push(name);
                kept.push(oid);
            }
        }
        Ok(names)
    }
}

/// Returns where `.gitmodules` has submodules.
pub(super) fn named_modules(dir: &Path) -> Vec<String> {
    let text = fs::read_to_string(dir.join(".gitmodules")).unwrap_or_default();
    let lines = text.lines().filter_map(|line| line.trim().strip_prefix("path"));
    let paths = lines.filter_map(|rest| rest.trim_start().strip_prefix('='));
    paths.map(|path| path.trim().to_owned()).collect()
}

/// Returns the folder for what an attempt of that name left in the slot.
pub(super) fn aside(slot: &Path, name: &str) -> PathBuf {
    slot.with_file_name(ASIDE).join(name)
}

/// Returns where a slot's HEAD stood since it was prepared, the newest first, but for what was amended.
fn stood_at(admin: &Path) -> Vec<Oid> {
    let from = fs::read_to_string(admin.join(LOGGED)).ok();
    let from = from.and_then(|text| text.trim().parse::<usize>().ok());
    let log = fs::read(admin.join("logs/HEAD")).unwrap_or_default();
    // Nothing is known of one that was prepared by an earlier version, or whose log was cut.
    let Some(log) = from.and_then(|from| log.get(from..)) else { return Vec::new() };
    let log = String::from_utf8_lossy(log);
    let (mut found, mut amended) = (Vec::new(), BTreeSet::new());
    for line in log.lines().rev() {
        let mut oids = line.splitn(3, ' ');
        let (Some(old), Some(new)) = (oids.next(), oids.next()) else { continue };
        let what = line.split_once('\t').and_then(|(_, message)| message.split(": ").next());
        if what.is_some_and(|what| what.ends_with("(amend)")) {
            amended.insert(old);
        }
        if let (Ok(oid), false) = (new.parse::<Oid>(), amended.contains(new))
            && !found.contains(&oid)
        {
            found.push(oid);
        }
    }
    found
}
