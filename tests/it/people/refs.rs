//! Commits, branches and objects.

use std::fs;

use super::{ONCE_EACH, ONE, TWO, assert_ends_landed, assert_kept, held, landing};
use crate::support::project::Project;

#[test]
fn a_commit_to_the_base_during_a_landing_is_taken_in() {
    let project = Project::new(1);
    let mut monitor = landing(&project, TWO);
    project.write("person.txt", "mine\n");
    project.commit("Mine");
    let mine = project.git(&["rev-parse", "HEAD"]);
    project.release("hold.check");
    assert_ends_landed(&project, &mut monitor, TWO);
    assert_kept(&project, &mine);
}

#[test]
fn a_commit_that_conflicts_with_a_landing_is_left_to_the_person_with_the_command() {
    let project = Project::new(1);
    let mut monitor = landing(&project, ONE);
    project.write("architect/A.txt", "mine\n");
    project.commit("Mine");
    let mine = project.git(&["rev-parse", "HEAD"]);
    project.release("hold.check");
    project.until("the landing", || project.task("A") == "completed");
    project.until("the conflict", || project.ok(&["status"]).contains("git merge pipeline/landed"));
    assert_eq!(project.git(&["rev-parse", "main"]), mine);
    assert_eq!(fs::read_to_string(project.path("architect/A.txt")).expect("mine"), "mine\n");
    // All is done but for the base, which waits for the person.
    assert_eq!(monitor.end(&project), Some(0), "{}", project.story());
    project.git(&["merge", "-q", "-X", "theirs", "--no-edit", "pipeline/landed"]);
    project.ok(&["monitor", "--until-idle", "--timeout", "240s"]);
    assert_kept(&project, &mine);
    assert_kept(&project, "pipeline/landed");
    project.ok(&["doctor"]);
    project.assert_nothing_left();
}

#[test]
fn a_task_branch_deleted_under_its_stage_is_put_back() {
    let project = Project::new(1);
    let mut monitor = held(&project, TWO);
    project.git(&["branch", "-q", "-D", "pipeline/task/A"]);
    project.release("hold.implementation");
    assert_ends_landed(&project, &mut monitor, TWO);
}

#[test]
fn a_task_branch_deleted_between_stages_is_put_back() {
    let project = Project::new(1);
    let mut monitor = held(&project, ONE);
    let mut stop = project.start(&["stop", "--drain"]);
    monitor.until_said("stop");
    project.release("hold.implementation");
    assert_eq!(stop.end(&project), Some(0), "{}", stop.said());
    assert_eq!(monitor.end(&project), Some(0));
    project.git(&["branch", "-q", "-D", "pipeline/task/A"]);
    let mut monitor = project.monitor(&["--until-idle"]);
    assert_ends_landed(&project, &mut monitor, ONE);
    assert_eq!(project.runs(), ONCE_EACH);
}

#[test]
fn a_rewritten_base_keeps_the_new_commit_and_what_has_landed() {
    let project = Project::new(1);
    project.write("more.txt", "more\n");
    project.commit("More");
    let mut monitor = held(&project, TWO);
    project.write("better.txt", "better\n");
    project.git(&["add", "better.txt"]);
    project.git(&["commit", "-q", "--amend", "-m", "Better"]);
    let mine = project.git(&["rev-parse", "HEAD"]);
    project.release("hold.implementation");
    assert_ends_landed(&project, &mut monitor, TWO);
    assert_kept(&project, &mine);
    assert_eq!(project.git(&["show", "main:better.txt"]), "better");
}

#[test]
fn a_rewritten_base_that_conflicts_waits_for_the_person_and_stays() {
    let project = Project::new(1);
    project.write("README", "more\n");
    project.commit("More");
    let mut monitor = held(&project, ONE);
    project.write("README", "better\n");
    project.git(&["commit", "-q", "--amend", "-a", "-m", "Better"]);
    let mine = project.git(&["rev-parse", "HEAD"]);
    project.release("hold.implementation");
    assert_eq!(monitor.end(&project), Some(1), "{}", project.story());
    assert!(monitor.said().contains("`main` conflicts with `pipeline/landed` in README"));
    assert!(project.ok(&["status"]).contains("git merge pipeline/landed"));
    assert_eq!(project.git(&["rev-parse", "main"]), mine);
    project.git(&["merge", "-q", "-X", "ours", "--no-edit", "pipeline/landed"]);
    let mut monitor = project.monitor(&["--until-idle"]);
    assert_ends_landed(&project, &mut monitor, ONE);
    assert_eq!(project.runs(), ONCE_EACH);
    assert_eq!(project.git(&["show", "main:README"]), "better");
}

#[test]
fn a_base_set_back_during_a_landing_follows_again() {
    let project = Project::new(1);
    let mut monitor = landing(&project, ONE);
    project.git(&["reset", "-q", "--hard", "HEAD~1"]);
    project.release("hold.check");
    assert_ends_landed(&project, &mut monitor, ONE);
}

#[test]
fn a_base_that_is_deleted_is_said_and_follows_when_it_is_back() {
    let project = Project::new(1);
    let mut monitor = held(&project, ONE);
    let before = project.git(&["rev-parse", "main"]);
    project.git(&["checkout", "-q", "--detach"]);
    project.git(&["branch", "-q", "-D", "main"]);
    project.release("hold.implementation");
    project.until("the landing", || project.task("A") == "completed");
    assert_eq!(monitor.end(&project), Some(0), "{}", project.story());
    let landing = project.status()["landing"].clone();
    let why = landing["why"].as_str().unwrap_or_default();
    assert!(why.ends_with("the base branch `main` is gone"), "{landing}");
    let said = project.ok(&["status"]);
    assert!(said.contains("git branch main pipeline/landed"), "{said}");
    project.git(&["branch", "-q", "main", &before]);
    project.ok(&["monitor", "--until-idle", "--timeout", "240s"]);
    project.assert_landed(ONE);
    project.git(&["checkout", "-q", "main"]);
    project.assert_nothing_left();
}

#[test]
fn without_its_base_a_monitor_does_not_begin() {
    let project = Project::new(1);
    project.import(ONE);
    project.git(&["checkout", "-q", "-b", "other"]);
    project.git(&["branch", "-q", "-D", "main"]);
    let said = project.fails(1, &["monitor", "--until-idle"]);
    assert!(said.contains("`main`") && said.contains("gone"), "{said}");
    assert_eq!(project.runs(), [""; 0]);
    project.git(&["branch", "-q", "main"]);
    let mut monitor = project.monitor(&["--until-idle"]);
    assert_ends_landed(&project, &mut monitor, ONE);
}

#[test]
fn a_landing_branch_deleted_during_a_landing_is_put_back() {
    let project = Project::new(1);
    let mut monitor = landing(&project, TWO);
    project.git(&["update-ref", "-d", "refs/heads/pipeline/landed"]);
    project.release("hold.check");
    assert_ends_landed(&project, &mut monitor, TWO);
}

#[test]
fn a_landing_branch_moved_during_a_landing_is_put_back_and_the_commit_kept() {
    let project = Project::new(1);
    let mut monitor = landing(&project, TWO);
    let tree = "main^{tree}";
    let astray = project.git(&["commit-tree", "-m", "Astray", "-p", "pipeline/landed", tree]);
    project.git(&["update-ref", "refs/heads/pipeline/landed", &astray]);
    project.release("hold.check");
    assert_ends_landed(&project, &mut monitor, TWO);
    let kept = project.git(&["for-each-ref", "--contains", &astray, "--format=%(refname)"]);
    assert!(!kept.is_empty(), "{}", project.story());
}

/// All that collects what nobody refers to.
fn collect(project: &Project) {
    project.git(&["reflog", "expire", "--expire=now", "--all"]);
    project.git(&["worktree", "prune", "--expire=now"]);
    project.git(&["gc", "-q", "--prune=now"]);
}

#[test]
fn collecting_garbage_under_an_agent_and_a_landing_costs_nothing() {
    let project = Project::new(1);
    let mut monitor = landing(&project, TWO);
    project.hold("hold.implementation");
    collect(&project);
    project.release("hold.check");
    project.until("the other task", || project.runs().iter().any(|id| id == "B.impl.1"));
    project.write(".pipeline/worktrees/implementation/1/half.txt", "half done\n");
    collect(&project);
    project.release("hold.implementation");
    assert_ends_landed(&project, &mut monitor, TWO);
    assert_eq!(project.git(&["show", "main:half.txt"]), "half done");
    assert_eq!(project.runs().len(), 8, "{:?}", project.runs());
}
