//! What there is in a project, as far as its views tell.

use std::cell::OnceCell;
use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;

use serde::Deserialize;

use super::place::{Fit, Named};
use crate::cli::project::{CONFIG_BYTES_MAX, Project};
use crate::config;
use crate::machine::settings::Settings;
use crate::sys::file::read_bounded;

/// Largest `state.json` that is read, in bytes.
const VIEW_BYTES_MAX: u64 = 256 << 20;
/// Where salvage is.
const SALVAGE: &str = "refs/pipeline/salvage/";

/// A project, found and read when it is asked for.
pub(super) struct Known {
    dir: PathBuf,
    project: OnceCell<Option<Project>>,
    view: OnceCell<View>,
    settings: OnceCell<Option<Settings>>,
}

/// What is read of `state.json`.
#[derive(Debug, Default, Deserialize)]
struct View {
    tasks: BTreeMap<String, TaskLine>,
    agents: BTreeMap<String, AgentLine>,
}

#[derive(Debug, Deserialize)]
struct TaskLine {
    title: String,
    status: String,
    #[serde(default)]
    kind: String,
    #[serde(default)]
    held: bool,
    taken: Option<String>,
    approval: Option<String>,
}

#[derive(Debug, Deserialize)]
struct AgentLine {
    stages: Vec<String>,
}

impl TaskLine {
    fn fits(&self, fit: Fit) -> bool {
        let is_finished = matches!(self.status.as_str(), "completed" | "cancelled");
        match fit {
            Fit::All => true,
            Fit::Open => !is_finished,
            Fit::Finished => is_finished,
            Fit::Blocked => self.status == "blocked",
            Fit::Held => self.held,
            Fit::Taken => self.taken.is_some(),
            Fit::Unapproved => self.approval.is_some(),
        }
    }
}

impl Known {
    /// Knows of the project that the folder belongs to, if there is one.
    pub(super) fn new(dir: PathBuf) -> Self {
        let (project, view, settings) = Default::default();
        Self { dir, project, view, settings }
    }

    fn project(&self) -> Option<&Project> {
        self.project.get_or_init(|| Project::find(&self.dir).ok()).as_ref()
    }

    /// Returns words of a kind with what they mean; none where they are not known.
    pub(super) fn words(&self, kind: Named) -> Vec<(String, String)> {
        match kind {
            Named::Tasks(fit) => self.tasks(|task| task.fits(fit)),
            Named::Epics => self.tasks(|task| task.kind == "epic"),
            Named::Stages => self.stages(),
            Named::Agents => {
                let agents = self.view().agents.iter();
                agents.map(|(name, agent)| (name.clone(), agent.stages.join(", "))).collect()
            }
            Named::Groups => {
                let groups = self.settings().map_or(&[][..], |settings| &settings.agents);
                groups.iter().map(|group| (group.name.clone(), group.stages.join(", "))).collect()
            }
            Named::Salvage => self.salvage(),
        }
    }

    /// Returns the tasks that fit; all where none does: the view may be older than the state.
    fn tasks(&self, fits: impl Fn(&TaskLine) -> bool) -> Vec<(String, String)> {
        let tasks = &self.view().tasks;
        let any = tasks.values().any(&fits);
        let fitting = tasks.iter().filter(|(_, task)| !any || fits(task));
        fitting.map(|(id, task)| (id.clone(), format!("{}: {}", task.status, task.title))).collect()
    }

    fn stages(&self) -> Vec<(String, String)> {
        if let Some(settings) = self.settings() {
            let stages = settings.stages.iter();
            return stages.map(|stage| (stage.name.clone(), stage.short.clone())).collect();
        }
        let served = self.view().agents.values().flat_map(|agent| &agent.stages);
        let served: BTreeSet<&String> = served.collect();
        served.into_iter().map(|stage| (stage.clone(), String::new())).collect()
    }

    fn salvage(&self) -> Vec<(String, String)> {
        let repo = self.project().and_then(|project| project.repo.as_ref());
        let kept = repo.and_then(|repo| repo.list_refs(SALVAGE).ok()).unwrap_or_default();
        let short = |name: String| name.trim_start_matches(SALVAGE).to_owned();
        kept.into_iter().map(|(name, oid)| (short(name), oid.to_string())).collect()
    }

    fn view(&self) -> &View {
        self.view.get_or_init(|| {
            let path = self.project().map(|it| it.layout.state.join("state.json"));
            let bytes = path.and_then(|path| read_bounded(&path, VIEW_BYTES_MAX).ok().flatten());
            let read = bytes.and_then(|bytes| serde_json::from_slice(&bytes).ok());
            read.unwrap_or_default()
        })
    }

    /// Returns what `pipeline.toml` says; `None` when it is not there or broken.
    fn settings(&self) -> Option<&Settings> {
        let settings = self.settings.get_or_init(|| {
            let path = self.project()?.layout.config();
            let bytes = read_bounded(&path, CONFIG_BYTES_MAX).ok()??;
            let text = String::from_utf8(bytes).ok()?;
            config::load(&text).ok().map(|loaded| loaded.settings)
        });
        settings.as_ref()
    }
}
