//! What agents change outside of their worktrees: told with the attempts that ran, never reverted; and
//! our own branches, which are put back.

use std::fs;

use crate::support::processes_of;
use crate::support::project::{Backlog, Project, Running};

const ONE: &Backlog = &[("A", &[])];
const TWO: &Backlog = &[("A", &[]), ("B", &["A"])];
const APART: &Backlog = &[("A", &[]), ("B", &[])];

/// Does its stage, and before it what `mischief` says, as task A's implementation alone.
fn agent(mischief: &str) -> String {
    format!(
        r#"set -eu
echo "$PIPELINE_ATTEMPT" >>"$E2E_DIR/runs"
while [ -e "$E2E_DIR/hold.$PIPELINE_STAGE" ]; do sleep 0.02; done
if [ "$PIPELINE_STAGE" = implementation ] && [ "$PIPELINE_TASK_ID" = A ]; then
{mischief}
fi
[ "$PIPELINE_STAGE" = supervisor ] && exit 0
mkdir -p "$PIPELINE_STAGE"
echo "$PIPELINE_TASK_ID" >"$PIPELINE_STAGE/$PIPELINE_TASK_ID.txt"
"#
    )
}

fn project(settings: &str, mischief: &str) -> Project {
    let project = Project::with(1, settings);
    let mischief = if mischief.is_empty() { ":" } else { mischief };
    project.write("tools/agent.sh", &agent(mischief));
    project.commit("Agents of this test");
    project
}

/// What was told of each attempt: `(attempt, difference)`, in order.
fn told(project: &Project) -> Vec<(String, String)> {
    let log = project.log();
    let told = log.iter().filter(|entry| entry["kind"] == "attempt_found_outside");
    told.flat_map(|entry| {
        let attempt = entry["attempt"].as_str().expect("an attempt").to_owned();
        let found = entry["found"].as_array().expect("what was found").clone();
        let words = found.into_iter().map(|line| line.as_str().expect("words").to_owned());
        words.map(|line| (attempt.clone(), line)).collect::<Vec<_>>()
    })
    .collect()
}

fn assert_told(project: &Project, attempt: &str, what: &str) {
    let told = told(project);
    let is_it = |(of, line): &(String, String)| of == attempt && line.contains(what);
    assert!(told.iter().any(is_it), "{what:?} of {attempt} in {told:#?}\n{}", project.story());
}

fn ends(project: &Project, monitor: &mut Running) {
    assert_eq!(monitor.end(project), Some(0), "{}{}", monitor.said(), project.story());
}

fn held(project: &Project, backlog: &Backlog) -> Running {
    project.import(backlog);
    project.hold("hold.implementation");
    let monitor = project.monitor(&["--until-idle"]);
    project.until("the implementation", || project.runs().iter().any(|id| id == "A.impl.1"));
    monitor
}

#[test]
fn what_an_agent_changes_outside_is_told_with_its_attempt_and_stays() {
    let project = project(
        "",
        r#"echo astray >"$PIPELINE_PROJECT/astray.txt"
echo staged >"$PIPELINE_PROJECT/staged.txt"
git -C "$PIPELINE_PROJECT" add staged.txt
echo more >>"$PIPELINE_PROJECT/README"
git tag v1
git update-ref refs/heads/topic "$(git commit-tree -m Moved 'HEAD^{tree}')"
"#,
    );
    project.git(&["branch", "topic"]);
    project.import(ONE);
    let mut monitor = project.monitor(&["--until-idle"]);
    ends(&project, &mut monitor);
    project.assert_landed(ONE);
    for what in [
        "main checkout: ?? astray.txt",
        "main checkout: A staged.txt (staged)",
        "main checkout: M README",
        "refs/tags/v1 made at ",
        "refs/heads/topic moved ",
    ] {
        assert_told(&project, "A.impl.1", what);
    }
    let others = told(&project).into_iter().filter(|(of, _)| of != "A.impl.1");
    assert_eq!(others.collect::<Vec<_>>(), [], "{}", project.story());
    assert!(monitor.said().contains("changed while A.impl.1 ran: "), "{}", monitor.said());
    let shown = project.ok(&["task", "show", "A"]);
    assert!(shown.contains("changed outside while A.impl.1 ran\n"), "{shown}");
    let status = project.ok(&["status"]);
    let line = "needs a look: changes outside while A.impl.1 ran: pipeline task show A\n";
    assert!(status.contains(line), "{status}");
    // Nothing is taken back.
    assert_eq!(fs::read_to_string(project.path("astray.txt")).expect("it stays"), "astray\n");
    let left = project.git(&["status", "--porcelain"]);
    assert_eq!(left, " M README\nA  staged.txt\n?? astray.txt");
    assert_eq!(project.git(&["log", "-1", "--format=%s", "topic"]), "Moved");
    project.git(&["rev-parse", "v1"]);
}

#[test]
fn settings_that_an_agent_changes_for_all_are_told_and_what_lands_waits() {
    let project = project(
        "",
        "git config core.bare true\nmkdir -p \"$PIPELINE_PROJECT/.git/hooks\"\n\
         echo exit 1 >\"$PIPELINE_PROJECT/.git/hooks/pre-push\"",
    );
    let before = project.git(&["rev-parse", "main"]);
    project.import(ONE);
    let mut monitor = project.monitor(&["--until-idle"]);
    monitor.until_said("somebody set `core.bare`");
    assert_eq!(project.git(&["rev-parse", "main"]), before);
    let said = project.fails(2, &["status"]);
    assert!(said.contains("config core.bare false"), "{said}");
    project.git(&["config", "core.bare", "false"]);
    ends(&project, &mut monitor);
    project.assert_landed(ONE);
    assert_eq!(project.git(&["status", "--porcelain"]), "");
    for what in [".git/config changed", ".git/hooks/pre-push made"] {
        assert_told(&project, "A.impl.1", what);
    }
}

/// Past its bound of tries a landing needs a person: it is told as such, with what to type, and once
/// that is done the next monitor lands it at once, whatever pause was left.
#[test]
fn a_landing_that_is_stuck_needs_a_person_and_a_restart_after_the_cure_lands_it() {
    let limits = "[limits]\ninfrastructure_retries = 0\n";
    let project = project(limits, "git config core.worktree \"$PWD\"");
    let toml = fs::read_to_string(project.path("pipeline.toml")).expect("it is there");
    let toml = toml.replace("first = \"250ms\"", "first = \"1h\"");
    project.write("pipeline.toml", &toml.replace("max = \"2s\"", "max = \"1h\""));
    project.commit("Long pauses");
    project.import(ONE);
    let before = project.git(&["rev-parse", "main"]);
    for _ in 0..2 {
        let mut monitor = project.monitor(&["--until-idle"]);
        assert_eq!(monitor.end(&project), Some(1), "{}{}", monitor.said(), project.story());
        let said = monitor.said();
        assert!(said.contains("`A` needs a person, its landing is stuck: "), "{said}");
        assert!(said.contains("config --unset core.worktree"), "{said}");
    }
    assert_eq!(project.git(&["rev-parse", "main"]), before);
    let status = project.ok(&["status"]);
    assert!(status.starts_with("0 of 1 landed, 1 needs a person\n"), "{status}");
    assert!(
        status.contains("\nneeds a person\n  A  `pipeline/landed` cannot move on: "),
        "{status}"
    );
    assert!(status.contains("config --unset core.worktree\n"), "{status}");
    assert!(!status.contains("\nwaiting\n"), "it is told once: {status}");
    let landing = &project.status()["landing"];
    let why = landing["why"].as_str().expect("why");
    assert!(why.contains("somebody set `core.worktree`"), "{why}");
    let next = landing["next"].as_str().expect("what to type").to_owned();
    project.fails(1, &["status", "--fail-on", "blocked"]);
    project.fails(1, &["status", "--fail-on", "unhealthy"]);
    let found = project.fails(1, &["doctor"]);
    assert!(found.contains("bad      repository: somebody set `core.worktree`"), "{found}");
    assert!(found.contains("bad      landing: `pipeline/landed` cannot move on"), "{found}");

    assert_eq!(project.shell(&next).code, Some(0));
    // Nobody is sent to cure it once more.
    let status = project.ok(&["status", "--fail-on", "blocked"]);
    assert!(status.starts_with("0 of 1 landed, 1 waits\n"), "{status}");
    assert!(status.contains("what was in the way is gone: pipeline monitor\n"), "{status}");
    let found = project.ok(&["doctor"]);
    assert!(found.contains("what was in the way of a landing is gone"), "{found}");
    let mut monitor = project.monitor(&["--until-idle"]);
    ends(&project, &mut monitor);
    project.assert_landed(ONE);
    project.ok(&["doctor"]);
}

#[test]
fn a_commit_of_an_agent_in_the_checkout_is_told_and_taken_in() {
    let project = project(
        "",
        r#"cd "$PIPELINE_PROJECT"
echo astray >astray.txt
git add astray.txt
git commit -q -m Astray
cd "$OLDPWD"
"#,
    );
    project.import(ONE);
    let mut monitor = project.monitor(&["--until-idle"]);
    ends(&project, &mut monitor);
    project.assert_landed(ONE);
    assert_told(&project, "A.impl.1", "refs/heads/main moved ");
    assert_eq!(project.git(&["show", "main:astray.txt"]), "astray");
    project.assert_nothing_left();
}

#[test]
fn clean_attempts_and_a_base_that_follows_are_told_of_nobody() {
    let project = project("", "");
    project.write(".git/info/exclude", "/.pipeline/\n");
    project.import(TWO);
    project.write("README", "a project, edited\n");
    project.write("architect/mine.txt", "untracked, beside what lands\n");
    project.write("staged.txt", "staged\n");
    project.git(&["add", "staged.txt"]);
    let mut monitor = project.monitor(&["--until-idle"]);
    ends(&project, &mut monitor);
    project.assert_landed(TWO);
    assert_eq!(told(&project), [], "{}", project.story());
    assert!(!project.ok(&["status"]).contains("needs a look"));
}

#[test]
fn what_a_person_does_while_nobody_works_is_told_of_nobody() {
    let setup = "[worktree]\nsetup = [\"while [ -e $E2E_DIR/hold.setup ]; do sleep 0.02; done\"]\n";
    let project = project(setup, "");
    let mut monitor = project.monitor(&[]);
    let looked =
        || fs::read_to_string(project.path(".git/pipeline/outside.at")).unwrap_or_default();
    project.until("the first look", || !looked().is_empty());
    project.write("mine.txt", "mine\n");
    project.git(&["tag", "mine"]);
    let before = looked();
    project.hold("hold.setup");
    project.ok(&["task", "add", "Task A", "--id", "A"]);
    project.until("the look before it begins", || looked() != before);
    project.release("hold.setup");
    project.until("the end", || project.task("A") == "completed");
    project.ok(&["stop"]);
    ends(&project, &mut monitor);
    assert_eq!(told(&project), [], "{}", project.story());
}

#[test]
fn what_changes_while_several_run_is_told_with_all_of_them() {
    let project = Project::new(2);
    project.import(APART);
    project.hold("hold.implementation");
    let mut monitor = project.monitor(&["--until-idle"]);
    let runs = |id: &str| project.runs().iter().any(|run| run == id);
    project.until("both", || runs("A.impl.1") && runs("B.impl.1"));
    // A person, who is not told from an agent.
    project.write("mine.txt", "mine\n");
    project.release("hold.implementation");
    ends(&project, &mut monitor);
    for id in ["A.impl.1", "B.impl.1"] {
        assert_told(&project, id, "main checkout: ?? mine.txt");
    }
    assert_eq!(told(&project).len(), 2, "{:#?}", told(&project));
    assert!(monitor.said().contains("changed while A.impl.1 (and B.impl.1) ran: "));
    assert!(project.ok(&["task", "show", "A"]).contains("while A.impl.1 (and B.impl.1) ran\n"));
    assert_eq!(fs::read_to_string(project.path("mine.txt")).expect("it stays"), "mine\n");
}

#[test]
fn what_changed_while_no_monitor_ran_is_told_by_the_next_one() {
    let project = project("", "");
    let mut monitor = held(&project, ONE);
    monitor.kill();
    project.write("astray.txt", "astray\n");
    project.release("hold.implementation");
    project.until("the agent's end", || {
        let ended = project.path(".git/pipeline/attempts/A.impl.1/exit.json");
        ended.exists()
    });
    let mut monitor = project.monitor(&["--until-idle"]);
    ends(&project, &mut monitor);
    project.assert_landed(ONE);
    assert_told(&project, "A.impl.1", "main checkout: ?? astray.txt");
    let others = told(&project).into_iter().filter(|(of, _)| of != "A.impl.1");
    assert_eq!(others.collect::<Vec<_>>(), []);
    // After the last attempt's end a change is nobody's, whoever compares.
    project.write("later.txt", "later\n");
    project.ok(&["monitor", "--once"]);
    project.ok(&["monitor", "--once"]);
    assert!(!told(&project).iter().any(|(_, line)| line.contains("later")));
    assert_eq!(processes_of(&project.dir()), []);
}

#[test]
fn without_what_was_kept_it_is_said_that_nothing_is_known() {
    let project = project("", "");
    let mut monitor = held(&project, ONE);
    project.until("a look", || project.path(".git/pipeline/outside.json").exists());
    monitor.kill();
    project.write("astray.txt", "astray\n");
    project.write(".git/pipeline/outside.json", "{\"head\":");
    let mut monitor = project.monitor(&["--until-idle"]);
    monitor.until_said("what changed outside while A.impl.1 ran until now is not known");
    project.release("hold.implementation");
    ends(&project, &mut monitor);
    project.assert_landed(ONE);
    assert_eq!(told(&project), []);
}

/// Everything in our part of the refs that another may do to it.
fn meddle(project: &Project) -> String {
    let astray = project.git(&["commit-tree", "-m", "Astray", "main^{tree}"]);
    project.git(&["update-ref", "refs/heads/pipeline/landed", &astray]);
    project.git(&["branch", "pipeline/mine", "main"]);
    project.git(&["update-ref", "-d", "refs/heads/pipeline/task/A"]);
    // In the way of the branch that was removed.
    project.git(&["update-ref", "refs/heads/pipeline/task/A/below", &astray]);
    project.git(&["symbolic-ref", "refs/heads/pipeline/task/B", "refs/heads/main"]);
    project.git(&["pack-refs", "--all"]);
    astray
}

fn assert_put_back(project: &Project, astray: &str) {
    let refs =
        project.git(&["for-each-ref", "--format=%(refname) %(symref)", "refs/heads/pipeline/"]);
    let names = ["landed", "task/A", "task/B"].map(|name| format!("refs/heads/pipeline/{name} "));
    assert_eq!(refs.lines().map(|it| format!("{} ", it.trim_end())).collect::<Vec<_>>(), names);
    let kept = project.git(&["for-each-ref", "--format=%(objectname)", "refs/pipeline/salvage/"]);
    assert!(kept.lines().any(|kept| kept == astray), "{kept}");
    let names = project.git(&["for-each-ref", "--format=%(refname)", "refs/pipeline/salvage/"]);
    for name in ["landed.found-", "task-A-below.found-", "mine.found-"] {
        assert!(names.contains(name), "{name} in {names}");
    }
}

#[test]
fn branches_of_ours_are_put_back_within_the_poll_and_told_with_who_ran() {
    let poll = "[monitor]\npoll = { busy = \"1s\", normal = \"1s\", idle = \"1s\" }\n";
    let project = Project::with(2, poll);
    project.import(APART);
    project.hold("hold.implementation");
    let mut monitor = project.monitor(&["--until-idle"]);
    let runs = |id: &str| project.runs().iter().any(|run| run == id);
    project.until("both", || runs("A.impl.1") && runs("B.impl.1"));
    let task = |id: &str| project.git(&["rev-parse", &format!("refs/heads/pipeline/task/{id}")]);
    let before = (task("A"), task("B"));
    let astray = meddle(&project);
    // No attempt ends meanwhile.
    project.until("all of it to be told", || {
        let told = told(&project);
        ["landed moved to ", "mine made", "task/A removed", "below made", "task/B -> "]
            .iter()
            .all(|what| told.iter().any(|(of, line)| of == "A.impl.1" && line.contains(what)))
    });
    assert_put_back(&project, &astray);
    assert_eq!((task("A"), task("B")), before);
    project.release("hold.implementation");
    ends(&project, &mut monitor);
    project.assert_landed(APART);
    project.assert_nothing_left();
}

#[test]
fn branches_of_ours_are_put_back_at_an_attempts_end() {
    let project = Project::new(1);
    let mut monitor = held(&project, TWO);
    let astray = project.git(&["commit-tree", "-m", "Astray", "main^{tree}"]);
    project.git(&["update-ref", "refs/heads/pipeline/landed", &astray]);
    project.git(&["branch", "pipeline/mine", &astray]);
    project.git(&["update-ref", "refs/heads/pipeline/task/A", &astray]);
    project.release("hold.implementation");
    ends(&project, &mut monitor);
    project.assert_landed(TWO);
    for what in ["landed.found-", "pipeline/mine made", "A.found-"] {
        assert_told(&project, "A.impl.1", what);
    }
    let others = told(&project).into_iter().filter(|(of, _)| of != "A.impl.1");
    assert_eq!(others.collect::<Vec<_>>(), [], "{}", project.story());
    let names = project.git(&["for-each-ref", "--format=%(refname)", "refs/pipeline/salvage/"]);
    for name in ["landed.found-", "A.found-", "mine.found-"] {
        assert!(names.contains(name), "{name} in {names}");
    }
    project.assert_nothing_left();
}

#[test]
fn a_branch_in_our_part_that_somebody_has_checked_out_is_left_until_he_goes() {
    let project = Project::new(1);
    let mut monitor = held(&project, TWO);
    project.git(&["checkout", "-q", "-b", "pipeline/mine"]);
    project.write("mine.txt", "mine\n");
    project.commit("Mine");
    let mine = project.git(&["rev-parse", "HEAD"]);
    project.release("hold.implementation");
    project.until("the landing", || project.task("B") == "completed");
    assert_eq!(project.git(&["rev-parse", "HEAD"]), mine);
    assert_eq!(project.git(&["status", "--porcelain"]), "");
    ends(&project, &mut monitor);
    project.git(&["checkout", "-q", "main"]);
    project.until("a look", || {
        project.ok(&["monitor", "--once"]);
        project.try_git(&["rev-parse", "-q", "--verify", "pipeline/mine"]).code != Some(0)
    });
    let kept = project.git(&["for-each-ref", "--format=%(objectname)", "refs/pipeline/salvage/"]);
    assert!(kept.contains(&mine), "{kept}");
    project.assert_landed(TWO);
}

#[test]
fn who_runs_after_the_rollout_has_left_shadow_is_looked_at_too() {
    let project = project("", "echo astray >\"$PIPELINE_PROJECT/astray.txt\"");
    project.import(ONE);
    project.ok(&["rollout", "set", "shadow"]);
    let mut monitor = project.monitor(&["--until-idle"]);
    assert_eq!(monitor.end(&project), Some(1), "in shadow nothing is done");
    let mut monitor = project.monitor(&[]);
    project.ok(&["rollout", "set", "production"]);
    project.until("it to land", || project.count("completed") == 1);
    project
        .until("it to be told", || told(&project).iter().any(|(_, line)| line.contains("astray")));
    project.ok(&["stop"]);
    ends(&project, &mut monitor);
    fs::remove_file(project.path("astray.txt")).expect("the agent made it");
    project.assert_nothing_left();
}

#[test]
fn a_landing_branch_of_another_name_is_ours_too() {
    let project = Project::new(1);
    let settings = fs::read_to_string(project.path("pipeline.toml")).expect("settings");
    let settings = settings.replace("[landing]\n", "[landing]\nbranch = \"integration\"\n");
    project.write("pipeline.toml", &settings);
    project.commit("Lands elsewhere");
    let mut monitor = held(&project, APART);
    project.until("what came before", || project.runs().iter().any(|id| id == "B.test.1"));
    let astray = project.git(&["commit-tree", "-m", "Astray", "main^{tree}"]);
    project.git(&["update-ref", "refs/heads/integration", &astray]);
    project.release("hold.implementation");
    ends(&project, &mut monitor);
    project.assert_landed(APART);
    let told = told(&project);
    let is_put_back = |(_, line): &&(String, String)| line.contains(".found-");
    assert!(told.iter().any(|told| is_put_back(&told)), "{told:#?}");
    assert!(told.iter().all(|told| is_put_back(&told)), "no landing is told: {told:#?}");
}

#[test]
fn a_task_branch_that_somebody_has_checked_out_is_left_until_he_goes() {
    let poll = "[monitor]\npoll = { busy = \"1s\", normal = \"1s\", idle = \"1s\" }\n";
    let project = Project::with(1, poll);
    let mut monitor = held(&project, ONE);
    let branch = "pipeline/task/A";
    let before = project.git(&["rev-parse", branch]);
    let dir = project.dir().join("mine");
    let name = dir.to_str().expect("it is UTF-8");
    project.git(&["worktree", "add", "-q", name, branch]);
    fs::write(dir.join("mine.txt"), "mine\n").expect("a file of the person's");
    project.git(&["-C", name, "add", "mine.txt"]);
    project.git(&["-C", name, "commit", "-q", "-m", "Mine"]);
    let mine = project.git(&["rev-parse", branch]);
    let command = format!(": git -C {name} switch --detach\n");
    project.until("it to be told", || {
        let status = project.ok(&["status"]);
        status.contains("pipeline/task/A is checked out") && status.contains(&command)
    });
    // The stage that runs ends, and the next one begins: the work goes on behind the branch.
    project.hold("hold.supervisor");
    project.release("hold.implementation");
    project.until("the next stage", || project.runs().iter().any(|id| id == "A.super.1"));
    assert_eq!(project.git(&["rev-parse", branch]), mine);
    assert_eq!(project.git(&["-C", name, "status", "--porcelain"]), "");
    project.git(&["-C", name, "switch", "-q", "--detach"]);
    project.until("the branch to be back", || {
        let now = project.git(&["rev-parse", branch]);
        now != mine && now != before
    });
    project.until("that to be told", || !project.ok(&["status"]).contains("is checked out"));
    project.release("hold.supervisor");
    ends(&project, &mut monitor);
    project.assert_landed(ONE);
    let kept = project.git(&["for-each-ref", "--format=%(objectname)", "refs/pipeline/salvage/"]);
    assert!(kept.contains(&mine), "{kept}");
    let log = project.log();
    let held = log.iter().filter(|entry| entry["kind"] == "branches_held");
    let held: Vec<usize> =
        held.map(|entry| entry["found"].as_array().map_or(0, Vec::len)).collect();
    assert_eq!(held, [1, 0], "{}", project.story());
    project.git(&["worktree", "remove", "--force", name]);
}

#[test]
fn an_agent_on_its_tasks_branch_commits_there_and_nobody_is_sent_into_its_worktree() {
    let poll = "[monitor]\npoll = { busy = \"1s\", normal = \"1s\", idle = \"1s\" }\n";
    let own = "git switch -q pipeline/task/A\ngit commit -q --allow-empty -m Own\n\
               while [ -e \"$E2E_DIR/hold.own\" ]; do sleep 0.02; done\n";
    let project = project(poll, own);
    project.hold("hold.own");
    let mut monitor = held(&project, ONE);
    project.release("hold.implementation");
    let branch = "pipeline/task/A";
    let subject = || project.git(&["log", "-1", "--format=%s", branch]);
    project.until("its commit", || subject() == "Own");
    // A look that began after it tells of what a person has checked out.
    let dir = project.dir().join("mine");
    let name = dir.to_str().expect("it is UTF-8");
    project.git(&["worktree", "add", "-q", "-b", "pipeline/mine", name]);
    project.until("that to be told", || project.ok(&["status"]).contains("pipeline/mine is"));
    assert!(!project.ok(&["status"]).contains("task/A is checked out"), "{}", project.story());
    assert_eq!(subject(), "Own", "it is not moved under its agent");
    project.git(&["worktree", "remove", "--force", name]);
    project.git(&["branch", "-q", "-D", "pipeline/mine"]);
    project.release("hold.own");
    ends(&project, &mut monitor);
    project.assert_landed(ONE);
    assert!(project.git(&["log", "--format=%s", "main"]).contains("Own"));
    let kept = project.git(&["for-each-ref", "--format=%(refname)", "refs/pipeline/salvage/"]);
    assert!(!kept.contains("A.found-"), "{kept}");
}

#[test]
fn what_an_agent_committed_on_its_tasks_branch_is_not_put_back_while_the_branch_cannot_be_moved() {
    let settings = "[monitor]\npoll = { busy = \"1s\", normal = \"1s\", idle = \"1s\" }\n\
                    [limits]\ninfrastructure_retries = 100\n";
    let own = "git switch -q pipeline/task/A\ngit commit -q --allow-empty -m Own\n\
               mkdir \"$(git rev-parse --git-common-dir)/refs/heads/pipeline/task/A.lock\"\n";
    let project = project(settings, own);
    let mut monitor = held(&project, ONE);
    project.release("hold.implementation");
    project.until("the lock to be in the way", || monitor.said().contains("A.lock"));
    let dir = project.dir().join("mine");
    let name = dir.to_str().expect("it is UTF-8");
    project.git(&["worktree", "add", "-q", "-b", "pipeline/mine", name]);
    project.until("a look", || project.ok(&["status"]).contains("pipeline/mine is"));
    fs::remove_dir(project.path(".git/refs/heads/pipeline/task/A.lock")).expect("it is there");
    project.git(&["worktree", "remove", "--force", name]);
    project.git(&["branch", "-q", "-D", "pipeline/mine"]);
    ends(&project, &mut monitor);
    project.assert_landed(ONE);
    let kept = project.git(&["for-each-ref", "--format=%(refname)", "refs/pipeline/salvage/"]);
    assert!(!kept.contains("A.found-"), "{kept}");
    let told = told(&project);
    assert!(told.iter().all(|(_, line)| !line.contains("task/A")), "{told:?}");
}

#[test]
fn a_task_is_taken_from_an_agent_that_left_its_worktree_on_the_branch() {
    let own = "git switch -q pipeline/task/A\ngit commit -q --allow-empty -m Own\nexit 3\n";
    let project = project("[limits]\nattempts_per_stage = 1\n", own);
    project.import(ONE);
    project.fails(1, &["monitor", "--until-idle", "--timeout", "240s"]);
    let dir = project.ok(&["task", "take", "A"]);
    let on = |dir: &str| project.git(&["-C", dir, "branch", "--show-current"]);
    assert_eq!(on(dir.trim_end()), "pipeline/task/A");
    let slots = fs::read_dir(project.path(".pipeline/worktrees/implementation")).expect("slots");
    for slot in slots.flatten() {
        assert_eq!(on(slot.path().to_str().expect("it is UTF-8")), "");
    }
}

#[test]
fn what_is_put_back_while_nobody_runs_is_in_the_journal_once() {
    let poll = "[monitor]\npoll = { busy = \"1s\", normal = \"1s\", idle = \"1s\" }\n";
    let project = Project::with(1, poll);
    let mut monitor = held(&project, ONE);
    project.release("hold.implementation");
    ends(&project, &mut monitor);
    let mut monitor = project.monitor(&[]);
    let looked =
        || fs::read_to_string(project.path(".git/pipeline/outside.at")).unwrap_or_default();
    let before = looked();
    project.until("a look", || looked() != before);
    project.git(&["branch", "pipeline/mine", "main"]);
    let found = || {
        let log = project.log();
        log.into_iter().filter(|entry| entry["kind"] == "found_outside").count()
    };
    project.until("it to be told", || found() == 1);
    let line = "needs a look: branches were put back while no agent ran: pipeline log\n";
    assert!(project.ok(&["status"]).contains(line), "{}", project.ok(&["status"]));
    assert!(monitor.said().contains("changed while no agent ran: refs/heads/pipeline/mine made"));
    // Something else, two polls later: nothing was told again until then.
    project.git(&["branch", "pipeline/other", "main"]);
    project.until("that to be told", || found() == 2);
    project.ok(&["stop"]);
    ends(&project, &mut monitor);
    assert_eq!(found(), 2, "{}", project.story());
}
