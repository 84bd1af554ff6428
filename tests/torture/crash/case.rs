//! One scenario as it is run again and again, each time from the same files at the same place.

use std::any::Any;
use std::fs;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;
use std::time::Duration;

use rustix::process::Signal;
use serde_json::Value;
use tempfile::TempDir;

use super::check;
use super::scenario::{MONITOR, Scenario};
use crate::support::project::Project;
use crate::support::{processes_of, signal};
use crate::tracer::{OUTPUT, Outcome, Plan, Point, trace};

/// Longest that a traced run may take.
const RUN_LIMIT: Duration = Duration::from_secs(90);

/// There once a process has died at its fail point, beside the logs.
pub(super) const STRUCK: &str = "struck";

/// How a run ended.
#[derive(Debug)]
pub(crate) enum Ending {
    /// Struck there, and all that must hold holds.
    Survived,
    /// This time the process made fewer calls; it was checked all the same.
    Unreached,
    /// Something does not hold.
    Failed(String),
}

/// A scenario's project, and its files as they were when it was prepared.
pub(crate) struct Case {
    pub(super) scenario: &'static Scenario,
    project: Project,
    /// How many records it has.
    records: usize,
    kept: TempDir,
}

impl Case {
    pub(crate) fn new(scenario: &'static Scenario) -> Self {
        let project = Project::bare();
        (scenario.prepare)(&project);
        until_alone(&project);
        let kept = tempfile::Builder::new().prefix("e2e-kept-").tempdir().expect("a folder");
        copy(&project.dir(), kept.path());
        // Before `init` there is no log.
        let records = if project.state_dir().exists() { project.log().len() } else { 0 };
        Self { scenario, project, records, kept }
    }

    /// Lists the points of a whole run.
    pub(crate) fn observe(&self) -> Result<Vec<Point>, String> {
        caught(|| {
            self.reset();
            let outcome = self.traced(self.scenario.args, &Plan::Observe);
            assert!(!outcome.is_late, "the run did not end\n{}", self.project.story());
            self.recover(&outcome);
            outcome.points
        })
    }

    /// Runs it with one strike.
    pub(super) fn run(&self, plan: &Plan) -> Ending {
        let mut seen = None;
        let done = caught(|| {
            self.reset();
            let outcome = self.traced(self.scenario.args, plan);
            seen.clone_from(&outcome.struck);
            self.recover(&outcome);
        });
        ending(done, seen)
    }

    /// Runs it with this plan for its fail points, lets `look` at the logs of those that were passed, one
    /// of each process, and goes on; panics with what does not hold.
    pub(super) fn run_with(&self, plan: &str, look: impl FnOnce(&Path)) {
        let project = &self.project;
        self.reset();
        let logs = project.dir().join("points");
        fs::create_dir(&logs).expect("a folder of our own");
        let (log, once) = (logs.join("%p"), logs.join(STRUCK));
        let [log, once] = [&log, &once].map(|path| path.to_str().expect("UTF-8"));
        let env = [
            ("PIPELINE_FAILPOINT", plan),
            ("PIPELINE_FAILPOINT_LOG", log),
            ("PIPELINE_FAILPOINT_ONCE", once),
        ];
        let mut command = project.start_with(self.scenario.args, &env);
        let code = command.end(project);
        fs::write(project.dir().join(OUTPUT), command.said()).expect("a file of our own");
        if code.is_some() {
            self.assert_has_come_through(code);
        }
        self.put_right();
        self.go_on();
        look(&logs);
    }

    /// Runs it with a strike, and with a second one in the monitor that goes on after it: at the point
    /// that `draw` takes of those of such a monitor. Returns that one as well.
    pub(super) fn run_twice(
        &self,
        first: &Plan,
        draw: impl FnOnce(&[Point]) -> (Point, Plan),
    ) -> (Ending, Option<Point>) {
        let mut points = Vec::new();
        let once = caught(|| {
            self.reset();
            self.set_right(&self.traced(self.scenario.args, first));
            points = self.traced(MONITOR, &Plan::Observe).points;
            self.go_on();
        });
        if once.is_err() || points.is_empty() {
            return (ending(once, None), None);
        }
        let (second, plan) = draw(&points);
        let mut seen = None;
        let done = caught(|| {
            self.reset();
            self.set_right(&self.traced(self.scenario.args, first));
            let outcome = self.traced(MONITOR, &plan);
            assert!(!outcome.is_late, "the run did not end\n{}", self.project.story());
            seen.clone_from(&outcome.struck);
            let said = fs::read_to_string(self.project.dir().join(OUTPUT)).unwrap_or_default();
            self.remove_what_stays(&said);
            self.go_on();
        });
        (ending(done, seen), Some(second))
    }

    /// Runs it with a call that fails; `again` is left out where the command says that it is done.
    pub(crate) fn run_failing(&self, plan: &Plan) -> Ending {
        let mut seen = None;
        let done = caught(|| {
            self.reset();
            let outcome = self.traced(self.scenario.args, plan);
            seen.clone_from(&outcome.struck);
            let project = &self.project;
            let said = fs::read_to_string(project.dir().join(OUTPUT)).unwrap_or_default();
            assert!(!outcome.is_late, "the run did not end\n{}", project.story());
            assert!(!said.contains("panicked"), "{said}");
            assert!(matches!(outcome.code, Some(0..=4)), "{:?}: {said}", outcome.code);
            if outcome.struck.as_ref().is_some_and(|point| !point.is_of_command()) {
                self.assert_has_come_through(outcome.code);
            }
            self.release();
            self.remove_what_stays(&said);
            if outcome.code != Some(0) {
                (self.scenario.again)(project);
            }
            (self.scenario.next)(project);
            let done = project.run(MONITOR);
            let said = format!("{said}{}{}{}", done.out, done.err, project.story());
            assert_eq!(done.code, Some(self.scenario.code), "the next monitor: {said}");
            if self.finish_fast_forward() {
                self.follow_the_rest();
            }
            check::assert_whole(project, self.scenario);
        });
        ending(done, seen)
    }

    /// A person's worktree whose removal failed stays, and that is told: a person types what they are
    /// told to.
    fn remove_what_stays(&self, said: &str) {
        for line in said.lines().filter(|line| line.contains("the worktree stay")) {
            let (_, command) = line.rsplit_once(": ").expect("what to type");
            let mut shell = pipeline::sys::child::command("sh", &self.project.root);
            let done = shell.args(["-c", command]).output().expect("a shell");
            let said = String::from_utf8_lossy(&done.stderr).into_owned();
            assert!(done.status.success(), "`{command}`: {said}");
        }
    }

    fn traced(&self, args: &[&str], plan: &Plan) -> Outcome {
        let command = self.project.command(&self.project.root, args);
        trace(&command, plan, &self.project.dir(), RUN_LIMIT).expect("tracing is permitted")
    }

    /// Starts it again, and looks at everything.
    fn recover(&self, outcome: &Outcome) {
        self.set_right(outcome);
        self.go_on();
        let is_of_monitor = |point: &Point| point.role.starts_with("monitor");
        if outcome.struck.as_ref().is_some_and(is_of_monitor) && !self.scenario.strikes_terminal {
            check::assert_found_again(&self.project);
        }
    }

    /// Looks at how the traced command ended, and puts right what it left.
    fn set_right(&self, outcome: &Outcome) {
        assert!(!outcome.is_late, "the run did not end\n{}", self.project.story());
        let is_alive = outcome
            .struck
            .as_ref()
            .is_some_and(|point| self.scenario.strikes_terminal || !point.is_of_command());
        if is_alive {
            self.assert_has_come_through(outcome.code);
        }
        self.put_right();
    }

    /// A monitor that was not struck itself ends as if nothing had been.
    fn assert_has_come_through(&self, code: Option<i32>) {
        if self.scenario.args == MONITOR && !self.never_began() {
            assert_eq!(
                code,
                Some(self.scenario.code),
                "the living monitor\n{}",
                self.project.story()
            );
        }
    }

    /// Does what people do after a strike, before the next monitor.
    fn put_right(&self) {
        let project = &self.project;
        self.release();
        let said = fs::read_to_string(project.dir().join(OUTPUT)).unwrap_or_default();
        self.remove_what_stays(&said);
        (self.scenario.again)(project);
        (self.scenario.next)(project);
    }

    /// Runs the next monitor, and looks at everything.
    fn go_on(&self) {
        let project = &self.project;
        let done = project.run(MONITOR);
        let said = format!("{}{}{}", done.out, done.err, project.story());
        assert_eq!(done.code, Some(self.scenario.code), "the next monitor: {said}");
        let is_finished = self.finish_fast_forward();
        if self.unlock_refs() || is_finished {
            self.follow_the_rest();
        }
        check::assert_whole(project, self.scenario);
    }

    /// A lock on all refs may be a person's: it is the user's to remove, and must be told. Returns
    /// whether there was one.
    fn unlock_refs(&self) -> bool {
        let project = &self.project;
        let lock = project.path(".git/packed-refs.lock");
        if !lock.exists() {
            return false;
        }
        check::make_old(&lock);
        let told: Value = serde_json::from_str(&project.ok(&["doctor", "--json"])).expect("JSON");
        let remedies = told["findings"].as_array().into_iter().flatten();
        let remedies = remedies.filter_map(|finding| finding["remedy"].as_str());
        let command = remedies.filter_map(|remedy| remedy.split_once("rm -f ")).next();
        let (_, path) = command.unwrap_or_else(|| panic!("the lock on refs is not told: {told}"));
        assert_eq!(path, lock.to_str().expect("UTF-8"));
        fs::remove_file(lock).expect("it is there");
        true
    }

    /// What landed behind the step that a person has put right follows when a monitor looks again,
    /// after the pause that such a step is given.
    fn follow_the_rest(&self) {
        let project = &self.project;
        let is_behind = || {
            let status = project.status();
            let why = status["landing"]["why"].as_str().unwrap_or_default();
            why.contains("cannot follow")
        };
        // Where a person's file is in the way, it does not follow.
        if !is_behind() || self.scenario.name == "in-the-way" {
            return;
        }
        let mut monitor = project.start(&["monitor"]);
        project.until("the base to follow once more", || !is_behind());
        project.ok(&["stop"]);
        assert_eq!(monitor.end(project), Some(0), "{}", project.story());
    }

    /// A fast-forward of the user's checkout that was killed and left git's locks, or whose git failed
    /// and left new files behind, is the user's to finish: it must be told, with a command that does.
    /// Returns whether there was one.
    fn finish_fast_forward(&self) -> bool {
        let project = &self.project;
        if !project.path(".git").is_dir() || check::checkout_dirt(project, self.scenario).is_empty()
        {
            return false;
        }
        let dirt = check::checkout_dirt(project, self.scenario);
        let status = project.status();
        let command = status["landing"]["next"].as_str().unwrap_or_default();
        let why = status["landing"]["why"].as_str().unwrap_or_default();
        assert!(
            why.contains("killed half-way") || why.contains("not tracked is in the way"),
            "{dirt:?} is not told: {why}\n{}",
            project.story()
        );
        let is_of_git = |line: &String| line.ends_with(".lock") && line != "index.lock";
        let is_left = why.contains("killed half-way") && !dirt.iter().all(is_of_git);
        assert!(!is_left, "{dirt:?} is not taken back\n{}", project.story());
        let mut shell = pipeline::sys::child::command("sh", &project.root);
        let done = shell.args(["-c", command]).output().expect("a shell");
        let said = String::from_utf8_lossy(&done.stderr).into_owned();
        // It removes the locks, and is told then what else is in the way.
        let is_stopped = self.scenario.name == "in-the-way" && said.contains("architect-A.txt");
        assert!(done.status.success() || is_stopped, "`{command}`: {said}");
        for line in dirt {
            // What git left was moved aside, and that is looked at and thrown away.
            let aside = project.path(&format!("{}.aside-1", line.trim_start_matches("?? ")));
            if aside.exists() {
                fs::remove_file(aside).expect("it is there");
            }
        }
        project.ok(MONITOR);
        true
    }

    /// Returns true when the traced monitor did no more than begin, since a git that it asks at first
    /// was killed, and said so.
    fn never_began(&self) -> bool {
        let said = fs::read_to_string(self.project.dir().join(OUTPUT)).unwrap_or_default();
        let is_told = said.contains("error: ") && said.contains("killed by signal 9");
        let log = self.project.log();
        let has_worked = log.last().is_some_and(|entry| {
            let actor = entry["actor"].as_str().unwrap_or_default();
            actor.starts_with("monitor") && entry["kind"] != "monitor_started"
        });
        is_told && (!has_worked || log.len() == self.records)
    }

    /// Agents that are held go on.
    fn release(&self) {
        let hold = self.project.dir().join("hold");
        if hold.exists() {
            fs::remove_file(hold).expect("a file beside the project");
        }
    }

    /// Puts everything back to where it was when the scenario was prepared.
    fn reset(&self) {
        let dir = self.project.dir();
        until_alone(&self.project);
        for entry in fs::read_dir(&dir).expect("its folder").flatten() {
            let path = entry.path();
            let removed =
                if path.is_dir() { fs::remove_dir_all(&path) } else { fs::remove_file(&path) };
            removed.expect("a folder of our own");
        }
        copy(self.kept.path(), &dir);
        (self.scenario.begin)(&self.project);
    }
}

/// What a run came to that was struck there.
fn ending(done: Result<(), String>, struck: Option<Point>) -> Ending {
    match (done, struck) {
        (Ok(()), Some(_)) => Ending::Survived,
        (Ok(()), None) => Ending::Unreached,
        (Err(text), struck) => {
            let at = struck.map_or("not struck".into(), |point| format!("before {}", point.call));
            Ending::Failed(format!("{at}: {text}"))
        }
    }
}

/// Ends what is left of an earlier run.
fn until_alone(project: &Project) {
    project.until("what ran before to leave", || {
        let left = processes_of(&project.dir());
        left.iter().for_each(|(pid, _)| signal(*pid, Signal::KILL));
        left.is_empty()
    });
}

fn copy(from: &Path, to: &Path) {
    let mut command = pipeline::sys::child::command("cp", from);
    let status = command.args(["-a", "."]).arg(to).status().expect("cp is there");
    assert!(status.success(), "cannot copy `{}`", from.display());
}

/// What `work` gives, or the text of its panic.
pub(super) fn caught<T>(work: impl FnOnce() -> T) -> Result<T, String> {
    catch_unwind(AssertUnwindSafe(work)).map_err(|panic: Box<dyn Any + Send>| {
        let text = panic.downcast_ref::<String>().cloned();
        let text = text.or_else(|| panic.downcast_ref::<&str>().map(|text| (*text).to_owned()));
        text.unwrap_or_default()
    })
}
