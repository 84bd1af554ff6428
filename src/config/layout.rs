//! Where things lie in a project.

use std::fs;
use std::io;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};

/// The folders of one project; all paths absolute.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Layout {
    /// The main checkout, or the project's folder without git.
    pub root: PathBuf,
    /// `.git/pipeline` in the common git folder, or `.pipeline/state` without git.
    pub state: PathBuf,
}

impl Layout {
    /// Returns the layout of a git repository.
    #[must_use]
    pub fn of_repository(root: &Path, common_dir: &Path) -> Self {
        Self { root: root.into(), state: common_dir.join("pipeline") }
    }

    /// Returns the layout of a folder without git.
    #[must_use]
    pub fn of_folder(root: &Path) -> Self {
        Self { root: root.into(), state: root.join(".pipeline/state") }
    }

    /// Returns the path that is not UTF-8, if one is: orders to keepers and records cannot name it.
    #[must_use]
    pub fn unspeakable(&self) -> Option<&Path> {
        [self.root.as_path(), &self.state].into_iter().find(|path| path.to_str().is_none())
    }

    /// Returns the settings file.
    #[must_use]
    pub fn config(&self) -> PathBuf {
        self.root.join("pipeline.toml")
    }

    /// Returns the folder of what we keep beside the user's files.
    #[must_use]
    pub fn dot(&self) -> PathBuf {
        self.root.join(".pipeline")
    }

    /// Returns the folder of worktrees of people who name no place for theirs.
    #[must_use]
    pub fn taken(&self) -> PathBuf {
        self.dot().join("taken")
    }

    /// Returns the folder of restored work for which nobody names another place.
    #[must_use]
    pub fn restored(&self) -> PathBuf {
        self.dot().join("restored")
    }

    /// Returns the folders of ours in which worktrees of people may lie.
    #[must_use]
    pub fn hands(&self) -> [PathBuf; 3] {
        [self.dot(), self.restored(), self.taken()]
    }

    /// Makes `.pipeline/state`, the way to the state for people and scripts, if it is not there.
    ///
    /// # Errors
    /// `AlreadyExists` when something else stands there; and the file system's own.
    pub fn link(&self) -> io::Result<()> {
        fs::create_dir_all(self.dot())?;
        let link = self.dot().join("state");
        let target = match self.state.strip_prefix(&self.root) {
            Ok(below) => Path::new("..").join(below),
            Err(_) => self.state.clone(),
        };
        if fs::read_link(&link).is_ok_and(|found| found == target) {
            return Ok(());
        }
        if fs::symlink_metadata(&link).is_ok_and(|meta| meta.is_symlink()) {
            fs::remove_file(&link)?;
        }
        symlink(&target, &link)
    }

    /// Returns what stands where the state or [`Layout::link`] goes, or the folder for it.
    #[must_use]
    pub fn in_the_way(&self) -> Option<PathBuf> {
        let (dot, link) = (self.dot(), self.dot().join("state"));
        let found = |path: &Path| fs::symlink_metadata(path).ok();
        if found(&dot).is_some() && !dot.is_dir() {
            return Some(dot);
        }
        let is_foreign = link != self.state && found(&link).is_some_and(|meta| !meta.is_symlink());
        is_foreign.then_some(link)
    }

    /// Returns the folders that a state has from the beginning: of attempts, of what agents write, and
    /// one that stays empty, which scripts may count on.
    #[must_use]
    pub fn folders(&self) -> [PathBuf; 3] {
        ["attempts", "logs", "tasks"].map(|name| self.state.join(name))
    }

    /// Returns an agent's worktree slot; `dir` is `worktree.dir` of the settings.
    #[must_use]
    pub fn slot(&self, dir: &str, agent: &str, slot: u32) -> PathBuf {
        self.root.join(dir).join(agent).join(slot.to_string())
    }

    /// Returns the folder with one folder per keeper.
    #[must_use]
    pub fn keepers(&self) -> PathBuf {
        self.state.join("keepers")
    }

    /// Returns an attempt's folder: prompt, records, and the task file without git.
    #[must_use]
    pub fn attempt(&self, id: &str) -> PathBuf {
        self.state.join("attempts").join(id)
    }

    /// Returns an attempt's log.
    #[must_use]
    pub fn log(&self, id: &str) -> PathBuf {
        self.state.join("logs").join(format!("{id}.log"))
    }

    /// Returns the lock that the monitor holds.
    #[must_use]
    pub fn monitor_lock(&self) -> PathBuf {
        self.state.join("monitor.lock")
    }
}
