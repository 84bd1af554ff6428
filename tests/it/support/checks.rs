//! What holds after a run, whatever happened during it.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use fs2::FileExt;
use serde_json::Value;

use super::processes_of;
use super::project::{Backlog, Project, STAGES};

impl Project {
    /// All landed on main in an order that respects every dependency, each stage completed once.
    pub(crate) fn assert_landed(&self, backlog: &Backlog) {
        let view = fs::read_to_string(self.path(".git/pipeline/state.json")).expect("the view");
        let view: Value = serde_json::from_str(&view).expect("the view is JSON");
        for (id, _) in backlog {
            assert_eq!(view["tasks"][id]["status"], "completed", "{id}\n{}", self.story());
        }
        let order = self.landings("main");
        for (id, deps) in backlog {
            let place = |id: &str| {
                let places: Vec<usize> =
                    (0..order.len()).filter(|place| order[*place] == id).collect();
                assert_eq!(places.len(), 1, "{id} in {order:?}\n{}", self.story());
                places[0]
            };
            deps.iter().for_each(|dep| assert!(place(dep) < place(id), "{dep}, {id}: {order:?}"));
            for stage in &STAGES[..3] {
                let file = self.try_git(&["show", &format!("main:{stage}/{id}.txt")]);
                assert_eq!(file.out.trim_end(), *id, "{stage}: {}\n{}", file.err, self.story());
            }
        }
        self.assert_stages_once(backlog);
        self.ok(&["doctor"]);
    }

    /// Tasks in the order in which they landed on a branch, by the trailers of its own line.
    pub(crate) fn landings(&self, branch: &str) -> Vec<String> {
        let format = "--format=%(trailers:key=Pipeline-Task,valueonly,separator=%x2C)";
        let text = self.git(&["log", "--first-parent", "--merges", "--reverse", format, branch]);
        text.lines().filter(|line| !line.is_empty()).map(str::to_owned).collect()
    }

    /// Each stage of each task completed exactly once.
    pub(crate) fn assert_stages_once(&self, backlog: &Backlog) {
        let mut completed: BTreeMap<String, u32> = BTreeMap::new();
        let mut stages: BTreeMap<String, String> = BTreeMap::new();
        for entry in self.log() {
            let text = |name: &str| entry[name].as_str().unwrap_or_default().to_owned();
            let (attempt, task) = (text("attempt"), text("task"));
            match text("kind").as_str() {
                "attempt_added" if text("purpose") == "work" => {
                    stages.insert(attempt, format!("{task} {}", text("stage")));
                }
                "attempt_ended" if text("class") == "completed" => {
                    if let Some(stage) = stages.get(&attempt) {
                        *completed.entry(stage.clone()).or_default() += 1;
                    }
                }
                _ => {}
            }
        }
        for (id, _) in backlog {
            for stage in STAGES {
                let count = completed.get(&format!("{id} {stage}")).copied();
                assert_eq!(count, Some(1), "{id} {stage}\n{}", self.story());
            }
        }
    }

    /// No process, held lock, dirt, temporary or lock file; the repository is whole.
    pub(crate) fn assert_nothing_left(&self) {
        self.until("its processes to leave", || processes_of(&self.dir()).is_empty());
        let state = self.path(".git/pipeline");
        for path in files(&state) {
            let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
            if name == "lock" || name.ends_with(".lock") {
                let file = fs::File::open(&path).expect("a lock's file");
                let is_free = FileExt::try_lock_exclusive(&file).is_ok();
                assert!(is_free, "{} is held", path.display());
            }
        }
        // What a killed writer left goes with a later view.
        self.until("temporary files to go", || {
            let is_temporary = |path: &PathBuf| {
                let name = path.file_name().unwrap_or_default().to_string_lossy();
                name.contains(".tmp") || name.starts_with('.')
            };
            let is_clean = !files(&state).iter().any(is_temporary);
            is_clean || self.run(&["monitor", "--once"]).code.is_none()
        });
        let git_locks: Vec<PathBuf> = files(&self.path(".git"))
            .into_iter()
            .filter(|path| path.extension().is_some_and(|ending| ending == "lock"))
            .filter(|path| !path.starts_with(&state))
            .collect();
        assert_eq!(git_locks, Vec::<PathBuf>::new());
        assert_eq!(files(&self.dir().join("tmp")), Vec::<PathBuf>::new());
        assert_eq!(self.git(&["status", "--porcelain"]), "");
        let fsck = self.try_git(&["fsck", "--no-dangling", "--no-progress"]);
        assert_eq!((fsck.code, fsck.out.as_str(), fsck.err.as_str()), (Some(0), "", ""));
    }
}

/// All files below a folder; sorted.
fn files(dir: &Path) -> Vec<PathBuf> {
    let entries = walkdir::WalkDir::new(dir).sort_by_file_name().into_iter().flatten();
    entries
        .filter(|entry| !entry.file_type().is_dir())
        .map(|entry| entry.path().to_owned())
        .collect()
}
