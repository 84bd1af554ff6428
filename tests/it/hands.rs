//! Tasks in a person's hands, through the machine and through the real program.

use std::path::{Path, PathBuf};

use pipeline::machine::event::{Dependents, GiveTo, RetryTarget};
use pipeline::machine::id::{Oid, StageName};
use pipeline::machine::task::TaskPhase;
use pipeline::machine::{Answer, Command};

use serde_json::Value;

use crate::machine_support::{Machine, group, id, new_task, settings, stage};
use crate::support::project::Project;

const DIR: &str = "/project/.pipeline/taken/A";

/// A stage that must change something and one that need not.
fn machine() -> Machine {
    let mut settings = settings();
    settings.stages =
        vec![stage("implementation", "impl", true), stage("supervisor", "super", false)];
    settings.agents = ["implementation", "supervisor"].map(|name| group(name, &[name], 1)).to_vec();
    let mut machine = Machine::new(settings);
    machine.begin();
    machine
}

fn take(m: &mut Machine, name: &str) -> Answer {
    m.ask(Command::TakeTask { id: id(name), dir: DIR.into(), from: Oid::new("c0") })
}

fn give(m: &mut Machine, name: &str, to: GiveTo, commit: &str) -> Answer {
    m.ask(Command::GiveTask { id: id(name), to, commit: Oid::new(commit), changed: None })
}

/// Why a command was refused.
fn refusal(answer: Answer) -> String {
    match answer {
        Answer::Refuse(refusal) => refusal.reason,
        Answer::Accept | Answer::Note(_) => panic!("it was not refused"),
    }
}

fn stage_named(name: &str) -> GiveTo {
    GiveTo::Stage(StageName::new(name))
}

#[test]
fn a_taken_task_is_left_alone_until_it_is_given_back() {
    let mut m = machine();
    m.must(Command::Pause);
    m.add(&[new_task("A", &[])]);
    assert_eq!(take(&mut m, "A"), Answer::Accept);
    m.must(Command::Resume);
    m.turns();
    assert!(m.state.attempts.is_empty(), "nothing starts at it");
    let release = Command::ReleaseTasks { ids: vec![id("A")] };
    assert!(refusal(m.ask(release)).contains(DIR));
    let target = RetryTarget::Tasks(vec![id("A")]);
    let retry = Command::RetryTasks { target, stage: None, note: None, is_fresh: true };
    assert!(refusal(m.ask(retry)).contains("taken by a person"));
    // Once more is no mistake, elsewhere is.
    assert_eq!(take(&mut m, "A"), Answer::Accept);
    let other = Command::TakeTask { id: id("A"), dir: "/other".into(), from: Oid::new("c0") };
    assert!(refusal(m.ask(other)).contains("is taken already"));
    m.state.check();
}

#[test]
fn what_is_given_goes_on_behind_the_stage_that_the_person_did() {
    // (from, to, with commits, where it goes on)
    let table = [
        (GiveTo::Onward, "c0", "working A.impl.1"),
        (GiveTo::Onward, "c9", "working A.super.1"),
        (stage_named("implementation"), "c9", "working A.impl.1"),
        (stage_named("supervisor"), "c0", "working A.super.1"),
        (GiveTo::Landing, "c9", "landing"),
    ];
    for (to, commit, stand) in table {
        let mut m = machine();
        m.must(Command::Pause);
        m.add(&[new_task("A", &[])]);
        take(&mut m, "A");
        m.must(Command::Resume);
        assert_eq!(give(&mut m, "A", to.clone(), commit), Answer::Accept, "{to:?}");
        m.turns();
        assert_eq!(m.stand("A"), stand, "{to:?} {commit}");
        let task = &m.state.tasks[&id("A")];
        assert_eq!(task.tip, Some(Oid::new(commit)));
        assert!(task.taken.is_none() && !task.is_held);
        m.state.check();
    }
}

#[test]
fn a_task_is_taken_out_of_the_lane_and_put_back_into_it() {
    let mut m = machine();
    m.add(&[new_task("A", &[])]);
    m.complete_stages("A");
    assert!(m.state.landing.is_some());
    assert_eq!(take(&mut m, "A"), Answer::Accept);
    m.turns();
    assert!(m.state.landing.is_none(), "nothing of it lands while a person has it");
    assert_eq!(give(&mut m, "A", GiveTo::Onward, "c0"), Answer::Accept);
    m.turns();
    assert_eq!(m.stand("A"), "landing");
    m.land("A");
    assert_eq!(m.stand("A"), "completed");
}

#[test]
fn what_cannot_be_taken_or_given_is_refused_with_the_reason() {
    let mut m = machine();
    m.add(&[new_task("A", &[]), new_task("B", &["A"])]);
    assert!(refusal(take(&mut m, "X")).contains("there is no task `X`"));
    assert!(refusal(take(&mut m, "A")).contains("is working on `A`"));
    assert!(refusal(give(&mut m, "A", GiveTo::Onward, "c0")).contains("is not taken"));
    assert_eq!(take(&mut m, "B"), Answer::Accept);
    let early = refusal(give(&mut m, "B", GiveTo::Landing, "c0"));
    assert!(early.contains("cannot land before what it depends on: A"), "{early}");
    let unknown = refusal(give(&mut m, "B", stage_named("deploy"), "c0"));
    assert!(unknown.contains("does not pass through stage `deploy`"), "{unknown}");
    m.must(Command::CancelTasks { ids: vec![id("B")], dependents: Dependents::Refuse });
    let task = &m.state.tasks[&id("B")];
    assert!(task.taken.is_none() && !task.is_held, "a finished task is in nobody's hands");
    assert!(refusal(take(&mut m, "B")).contains("is cancelled"));
    m.state.check();
}

#[test]
fn a_persons_word_completes_a_task_and_frees_what_depends_on_it() {
    let mut m = machine();
    m.add(&[new_task("A", &[]), new_task("B", &["A"])]);
    assert_eq!(m.stand("A"), "working A.impl.1");
    m.must(Command::CompleteTask { id: id("A"), commit: None });
    assert!(m.state.attempts.values().all(|attempt| attempt.is_stopping), "its agent is ended");
    assert!(matches!(m.state.tasks[&id("A")].phase, TaskPhase::Completed { commit: None, .. }));
    let cancel = Command::CancelTasks { ids: vec![id("A")], dependents: Dependents::Refuse };
    assert_eq!(refusal(m.ask(cancel)), "task `A` was completed by hand", "nothing landed");
    let again = m.ask(Command::CompleteTask { id: id("A"), commit: None });
    assert!(refusal(again).contains("is completed"));
    m.state.check();
}

#[test]
fn a_finished_task_is_reopened_from_its_first_stage() {
    let mut m = machine();
    m.add(&[new_task("A", &[]), new_task("B", &["A"])]);
    let reopen = |name: &str| Command::ReopenTask { id: id(name), is_fresh: false };
    assert!(refusal(m.ask(reopen("A"))).contains("is not finished"));
    m.complete_stages("A");
    m.land("A");
    m.turns();
    assert_eq!(m.stand("B"), "working B.impl.1");
    m.must(Command::CancelTasks { ids: vec![id("B")], dependents: Dependents::Refuse });
    assert!(refusal(m.ask(reopen("B"))).contains("is still being ended"));
    m.must(reopen("A"));
    m.turns();
    assert_eq!(m.state.tasks[&id("A")].tip, None, "what has landed is no beginning");
    m.state.check();
}

/// Runs the monitor until only a person can go on, or all is done.
fn run_on(project: &Project) {
    let done = project.run(&["monitor", "--until-idle", "--timeout", "240s"]);
    assert!(matches!(done.code, Some(0 | 1)), "{}{}", done.out, project.story());
}

fn taken(project: &Project, args: &[&str]) -> PathBuf {
    let out = project.ok(&[&["task", "take"], args].concat());
    let path = out.strip_suffix('\n').expect("one line");
    assert!(Path::new(path).is_dir() && !path.contains('\n'), "its path alone: {out:?}");
    path.into()
}

fn commit_in(project: &Project, dir: &Path, name: &str) {
    std::fs::write(dir.join(name), "mine\n").expect("a file of the person's");
    let dir = dir.to_str().expect("it is UTF-8");
    project.git(&["-C", dir, "add", "-A"]);
    project.git(&["-C", dir, "commit", "-q", "-m", "By hand"]);
}

fn has(project: &Project, commit: &str, file: &str) -> bool {
    project.try_git(&["cat-file", "-e", &format!("{commit}:{file}")]).code == Some(0)
}

#[test]
fn a_person_takes_a_task_commits_and_lands_it() {
    let project = Project::new(1);
    project.import(&[("A", &[]), ("B", &["A"])]);
    let dir = taken(&project, &["A"]);
    assert_eq!(dir, project.path(".pipeline/taken/A"));
    assert_eq!(taken(&project, &["A"]), dir, "said again it is the same");
    run_on(&project);
    assert!(project.runs().is_empty(), "nobody works on what a person has");
    std::fs::write(dir.join("draft"), "x").expect("a file");
    let said = project.fails(4, &["task", "give", "A", "--stage", "landing"]);
    assert!(said.contains("not everything in") && said.contains("stash -u"), "{said}");
    commit_in(&project, &dir, "hand.txt");
    project.ok(&["task", "give", "A", "--stage", "landing"]);
    assert!(!dir.exists(), "nothing in it is lost");
    run_on(&project);
    assert_eq!([project.task("A"), project.task("B")], ["completed", "completed"]);
    assert!(has(&project, "main", "hand.txt") && has(&project, "main", "draft"));
    assert!(project.runs().iter().all(|run| run.starts_with("B.")), "{:?}", project.runs());
}

#[test]
fn a_worktree_stays_while_something_in_it_would_be_lost() {
    let project = Project::new(1);
    project.import(&[("A", &[])]);
    let place = project.dir().join("my place");
    let dir = taken(&project, &["A", place.to_str().expect("it is UTF-8")]);
    assert_eq!(dir, place);
    std::fs::write(dir.join(".gitignore"), "*.key\n").expect("a file");
    std::fs::write(dir.join("my.key"), "secret").expect("a file");
    commit_in(&project, &dir, "hand.txt");
    let here = ["-C", place.to_str().expect("it is UTF-8")];
    project.git(&[&here[..], &["update-index", "--skip-worktree", "hand.txt"]].concat());
    std::fs::write(dir.join("hand.txt"), "for this machine alone").expect("a file");
    let done = project.run(&["task", "give", "A", "--stage", "super"]);
    assert_eq!(done.code, Some(0), "{}", done.err);
    assert!(done.err.contains("git ignores `my.key` and 1 more there"), "{}", done.err);
    assert!(dir.join("my.key").exists());
    let text = std::fs::read_to_string(dir.join("hand.txt")).expect("it is there");
    assert_eq!(text, "for this machine alone");
    assert!(project.git(&["-C", place.to_str().expect("UTF-8"), "status", "--short"]).is_empty());
    run_on(&project);
    assert_eq!(project.runs(), ["A.super.1"], "it went on from there");
    assert_eq!(project.task("A"), "completed");
    // The worktree that stayed is the person's again.
    project.ok(&["task", "reopen", "A"]);
    assert_eq!(taken(&project, &["A", place.to_str().expect("it is UTF-8")]), place);
    let name = project.git(&["-C", place.to_str().expect("UTF-8"), "symbolic-ref", "HEAD"]);
    assert_eq!(name, "refs/heads/pipeline/task/A");
    assert!(dir.join("my.key").exists() && dir.join("hand.txt").exists());
    let done = project.run(&["task", "cancel", "A"]);
    assert!(done.err.contains("the worktree of `A` stays"), "{}", done.err);
    project.ok(&["task", "reopen", "A"]);
    assert_eq!(taken(&project, &["A", place.to_str().expect("it is UTF-8")]), place);
}

#[test]
fn what_a_person_rewrote_is_kept_and_a_worktree_gone_loses_no_commit() {
    let project = Project::new(1);
    project.import(&[("A", &[])]);
    let dir = taken(&project, &["A"]);
    commit_in(&project, &dir, "one.txt");
    std::fs::remove_dir_all(&dir).expect("it was there");
    assert_eq!(taken(&project, &["A"]), dir, "made again");
    assert!(dir.join("one.txt").exists(), "with what was committed");
    std::fs::remove_dir_all(&dir).expect("it was there");
    project.ok(&["task", "give", "A", "--stage", "landing"]);
    run_on(&project);
    assert!(has(&project, "main", "one.txt"));
}

/// Killed between record and worktree, it finds on the branch what was given up before.
#[cfg(feature = "failpoints")]
#[test]
fn a_take_that_was_killed_brings_nothing_back_that_was_given_up() {
    for point in ["hands.take", "hands.level"] {
        let project = Project::new(1);
        project.import(&[("A", &[])]);
        let dir = taken(&project, &["A"]);
        commit_in(&project, &dir, "given-up.txt");
        project.ok(&["task", "give", "A", "--stage", "arch"]);
        project.ok(&["task", "retry", "A", "--fresh"]);
        let mut command = project.command(&project.root, &["task", "take", "A"]);
        let ended = command.env("PIPELINE_FAILPOINT", point).output().expect("it starts");
        assert!(!ended.status.success(), "{point} was not passed");
        if point == "hands.level" {
            assert_eq!(taken(&project, &["A"]), dir);
            assert!(!dir.join("given-up.txt").exists(), "{point}: said again");
            commit_in(&project, &dir, "mine.txt");
        }
        project.ok(&["task", "give", "A", "--stage", "landing"]);
        run_on(&project);
        assert_eq!(project.task("A"), "completed");
        assert!(!has(&project, "main", "given-up.txt"), "{point}: it was given as theirs");
        assert_eq!(has(&project, "main", "mine.txt"), point == "hands.level");
        let kept = project.git(&["for-each-ref", "--format=%(refname)", "refs/pipeline/salvage"]);
        assert!(kept.lines().any(|name| has(&project, name, "given-up.txt")), "{kept}");
    }
}

#[test]
fn an_agent_at_work_is_not_interrupted_by_take() {
    let project = Project::not_ahead(1);
    project.import(&[("A", &[])]);
    project.hold("hold");
    let _monitor = project.monitor(&[]);
    project.until("the agent", || !project.runs().is_empty());
    let said = project.fails(4, &["task", "take", "A"]);
    assert!(said.contains("is working on `A`") && said.contains("pipeline task hold A"), "{said}");
    project.ok(&["task", "hold", "A"]);
    project.release("hold");
    project.until("the stage's end", || project.task("A") != "arch_wip");
    let dir = taken(&project, &["A"]);
    assert!(dir.join("architect/A.txt").exists(), "with what was done so far");
    // A task that a person has is given to nobody, and its branch is theirs beside a monitor.
    commit_in(&project, &dir, "hand.txt");
    project.ok(&["task", "give", "A"]);
    project.until("the landing", || project.task("A") == "completed");
    assert!(has(&project, "pipeline/landed", "hand.txt"));
    assert_eq!(project.runs()[..2], ["A.arch.1", "A.impl.1"], "the person did the test stage");
}

#[test]
fn complete_takes_only_what_has_landed_and_reopen_begins_anew() {
    let project = Project::new(1);
    project.import(&[("A", &[]), ("B", &["A"])]);
    project.git(&["switch", "-q", "-c", "side"]);
    project.write("mine.txt", "mine\n");
    project.commit("Mine");
    project.git(&["switch", "-q", "main"]);
    let said = project.fails(2, &["task", "complete", "A", "--commit", "side"]);
    assert!(said.contains("neither on `main` nor on `pipeline/landed`"), "{said}");
    let said = project.fails(2, &["task", "complete", "A", "--commit", "nothing"]);
    assert!(said.contains("there is no commit `nothing`"), "{said}");
    project.git(&["merge", "-q", "--ff-only", "side"]);
    project.ok(&["task", "complete", "A", "--commit", "side"]);
    assert_eq!(project.task("A"), "completed");
    run_on(&project);
    assert_eq!(project.task("B"), "completed");
    assert!(project.runs().iter().all(|run| run.starts_with("B.")), "{:?}", project.runs());
    project.ok(&["task", "reopen", "A"]);
    run_on(&project);
    assert_eq!(project.task("A"), "completed");
    assert!(project.runs().contains(&"A.arch.1".into()), "{:?}", project.runs());
    assert!(has(&project, "main", "mine.txt"), "what has landed stays");
}

#[test]
fn a_task_with_nothing_to_merge_is_not_told_by_the_landing_of_another() {
    let project = Project::new(1);
    project.import(&[("M", &[])]);
    project.ok(&["task", "add", "a look", "--id", "N", "--stages", "supervisor"]);
    project.ok(&["task", "add", "talk", "--id", "T"]);
    project.ok(&["task", "hold", "N", "T"]);
    run_on(&project);
    project.ok(&["task", "release", "N"]);
    run_on(&project);
    project.ok(&["task", "complete", "T"]);
    assert_eq!(project.count("completed"), 3);
    let said = project.ok(&["status"]);
    assert!(said.starts_with("2 of 3 landed, 1 done by a person\n"), "{said}");
    let told: Value =
        serde_json::from_str(&project.ok(&["report", "--since", "1h", "--format", "json"]))
            .expect("the report is JSON");
    let landed = told["landed"].as_array().expect("a list");
    let of = |id: &str| landed.iter().find(|entry| entry["id"] == id).expect("it landed");
    let lines = |id: &str| of(id)["verify"].as_array().expect("a list").len();
    assert_eq!((lines("M"), lines("N")), (2, 1), "{told:#}");
    assert_eq!(told["done_by_hand"][0]["id"], "T");
    let seen = project.run(&["task", "diff", "N"]);
    assert_eq!((seen.code, seen.out.as_str()), (Some(0), ""));
    assert!(seen.err.contains("landed nothing of its own"), "{}", seen.err);
    assert!(project.ok(&["task", "diff", "M"]).contains("implementation/M.txt"));
    let said = project.run(&["task", "reopen", "N"]);
    assert!(!said.err.contains("git revert"), "{}", said.err);
    let said = project.run(&["task", "reopen", "M"]);
    let commit = project.git(&["rev-parse", "--short=12", "pipeline/landed"]);
    assert!(said.err.contains(&format!("git revert -m 1 {commit}")), "{}", said.err);
}

#[test]
fn a_cancelled_task_goes_on_from_its_branch_when_it_is_reopened() {
    let project = Project::new(1);
    project.import(&[("A", &[])]);
    let dir = taken(&project, &["A"]);
    commit_in(&project, &dir, "hand.txt");
    project.ok(&["task", "give", "A", "--stage", "arch"]);
    project.ok(&["task", "cancel", "A"]);
    project.ok(&["task", "reopen", "A"]);
    run_on(&project);
    assert_eq!(project.task("A"), "completed");
    assert!(has(&project, "main", "hand.txt"));
}

fn at(dir: &Path) -> &str {
    dir.to_str().expect("it is UTF-8")
}

#[test]
fn a_worktree_beside_its_branch_is_not_given() {
    let project = Project::new(1);
    project.import(&[("A", &[])]);
    let dir = taken(&project, &["A"]);
    commit_in(&project, &dir, "mine.txt");
    project.git(&["-C", at(&dir), "switch", "-q", "--detach", "main"]);
    let said = project.fails(4, &["task", "give", "A", "--stage", "landing"]);
    assert!(said.contains("does not hold what is on `pipeline/task/A`"), "{said}");
    assert!(said.contains("switch pipeline/task/A") && dir.exists(), "{said}");
    assert!(has(&project, "pipeline/task/A", "mine.txt"));
    // A branch of theirs that has it all may be given.
    project.git(&["-C", at(&dir), "switch", "-q", "-c", "own", "pipeline/task/A"]);
    commit_in(&project, &dir, "more.txt");
    project.ok(&["task", "give", "A", "--stage", "landing"]);
    run_on(&project);
    assert!(has(&project, "main", "mine.txt") && has(&project, "main", "more.txt"));
}

#[test]
fn a_worktree_that_stays_is_off_its_branch_and_nobody_moves_it_under_a_person() {
    let project = Project::new(1);
    project.import(&[("A", &[]), ("B", &[])]);
    let dir = taken(&project, &["A"]);
    commit_in(&project, &dir, "mine.txt");
    let mine = project.git(&["rev-parse", "pipeline/task/A"]);
    let done = project.run(&["task", "cancel", "A"]);
    assert!(done.err.contains("commits that were not given"), "{}", done.err);
    assert_eq!(project.try_git(&["-C", at(&dir), "symbolic-ref", "-q", "HEAD"]).code, Some(1));
    // On the branch again it would be moved by an agent.
    project.git(&["-C", at(&dir), "switch", "-q", "pipeline/task/A"]);
    let said = project.fails(4, &["task", "reopen", "A"]);
    assert!(said.contains("is checked out in") && said.contains("switch --detach"), "{said}");
    project.git(&["-C", at(&dir), "switch", "-q", "--detach"]);
    let done = project.run(&["task", "reopen", "A"]);
    assert!(done.err.contains("were not given go to salvage"), "{}", done.err);
    let other = taken(&project, &["B"]);
    commit_in(&project, &other, "theirs.txt");
    let done = project.run(&["task", "complete", "B"]);
    assert!(done.err.contains("it holds work that has not landed"), "{}", done.err);
    assert_eq!(project.try_git(&["-C", at(&other), "symbolic-ref", "-q", "HEAD"]).code, Some(1));
    run_on(&project);
    assert_eq!(project.task("A"), "completed");
    assert_eq!(project.git(&["-C", at(&dir), "rev-parse", "HEAD"]), mine);
    assert!(project.git(&["-C", at(&dir), "status", "--short"]).is_empty());
    let kept = project.git(&["for-each-ref", "--format=%(objectname)", "refs/pipeline/salvage/"]);
    assert!(kept.lines().any(|at| at == mine), "{kept}");
}

#[test]
fn no_worktree_is_made_where_an_attempt_would_wipe_it() {
    let project = Project::new(1);
    project.import(&[("A", &[])]);
    std::os::unix::fs::symlink(project.path(".pipeline"), project.path("link")).expect("a link");
    for place in [
        ".pipeline/worktrees/architect/0",
        ".pipeline/worktrees",
        ".pipeline/taken",
        ".pipeline/mine",
        ".pipeline/taken/../worktrees/x",
        "link/worktrees/test/1",
        ".git/pipeline/x",
    ] {
        let said = project.fails(4, &["task", "take", "A", place]);
        assert!(said.contains("the pipeline's own") && said.contains("task take A"), "{said}");
    }
    assert!(!project.path(".pipeline/worktrees").exists(), "nothing was made");
    std::fs::remove_file(project.path("link")).expect("it was there");
    // Nobody has taken it.
    taken(&project, &["A", ".pipeline/taken/elsewhere"]);
}

#[test]
fn with_the_manual_strategy_nothing_lands_without_a_person() {
    let project = Project::new(1);
    let text = std::fs::read_to_string(project.path("pipeline.toml")).expect("it is there");
    let text = text.replace("[landing]\n", "[landing]\nstrategy = \"manual\"\n");
    project.write("pipeline.toml", &text);
    project.commit("By hand");
    project.import(&[("A", &[])]);
    run_on(&project);
    assert_eq!(project.task("A"), "landing");
    let status = project.ok(&["status"]);
    assert!(status.contains("pipeline task approve A"), "{status}");
    assert_eq!(project.status()["waiting"][0]["on"], "approval");
    let log = project.run(&["task", "log", "A", "--failed"]);
    let why = "note: waits for approval: may land when you say so (landing.strategy = \"manual\"); \
               type: pipeline task approve A\n";
    assert_eq!((log.code, log.out.as_str(), log.err.as_str()), (Some(0), "", why));
    let failing = ["status", "--fail-on", "blocked"];
    project.fails(1, &failing);
    // What is to be approved is no leftover.
    let found = project.ok(&["doctor"]);
    assert!(!found.contains("refs/pipeline/pending/A"), "{found}");
    let done = project.ok(&["doctor", "--repair"]);
    assert!(!done.contains("refs/pipeline/pending/A"), "{done}");
    project.git(&["rev-parse", "--verify", "refs/pipeline/pending/A"]);
    project.ok(&["task", "approve", "A"]);
    run_on(&project);
    assert_eq!(project.task("A"), "completed");
}

#[test]
fn a_landing_check_that_failed_is_told_while_approval_is_waited_for_again() {
    let project = Project::new(1);
    let text = std::fs::read_to_string(project.path("pipeline.toml")).expect("it is there");
    let check = "[ ! -e implementation/A.txt ] || { echo this landing is broken; false; }";
    let manual = format!("[landing]\nstrategy = \"manual\"\nchecks = [\"{check}\"]\n");
    let text = text.replace("[landing]\nchecks = [\"sh tools/check.sh\"]\n", &manual);
    assert!(text.contains(&manual), "{text}");
    project.write("pipeline.toml", &text);
    let agent = std::fs::read_to_string(project.path("tools/agent.sh")).expect("it is there");
    // So that there is something to land again.
    project
        .write("tools/agent.sh", &agent.replace("\" >\"$PIPELINE_STAGE", "\" >>\"$PIPELINE_STAGE"));
    project.commit("By hand");
    project.import(&[("A", &[])]);
    run_on(&project);
    project.ok(&["task", "approve", "A"]);
    run_on(&project);
    assert_eq!(project.status()["waiting"][0]["on"], "approval");
    let log = project.run(&["task", "log", "A", "--failed"]);
    assert!(log.err.starts_with("note: waits for approval: "), "{}", log.err);
    assert!(log.err.contains("note: checks_failed: "), "{}", log.err);
    assert!(log.out.contains("this landing is broken\n"), "{}", log.out);
}

#[test]
fn commands_to_type_work_where_a_path_has_blanks_and_quotes() {
    let project = Project::new(1);
    project.ok(&["task", "add", "one", "--id", "ONE"]);
    let place = project.dir().join("it's my place");
    let dir = place.to_str().expect("UTF-8");
    let typed = |said: &str, before: &str, after: &str| {
        let lines = said.lines().find_map(|line| line.split_once(before)).expect(before);
        let command = lines.1.strip_suffix(after).expect(after);
        let done = project.shell(command);
        assert_eq!(done.code, Some(0), "{command}: {}{}", done.out, done.err);
    };
    project.ok(&["task", "take", "ONE", dir]);
    std::fs::write(place.join("mine.txt"), "mine\n").expect("a file");
    typed(&project.fails(4, &["task", "give", "ONE"]), "to put it away: ", "");
    assert!(!place.join("mine.txt").exists());
    project.git(&["-C", dir, "commit", "-q", "--allow-empty", "-m", "Mine"]);
    project.git(&["-C", dir, "switch", "-q", "--detach", "HEAD~1"]);
    typed(&project.fails(4, &["task", "give", "ONE"]), "give the branch: ", "; then give it again");
    let other = project.dir().join("another");
    let said = project.fails(4, &["task", "take", "ONE", other.to_str().expect("UTF-8")]);
    assert!(said.contains(dir), "{said}");
    project.ok(&["task", "give", "ONE"]);
    let branch = "pipeline/task/ONE";
    project.git(&["worktree", "add", "-q", dir, branch]);
    let said = project.fails(4, &["task", "take", "ONE", other.to_str().expect("UTF-8")]);
    typed(&said, "hint: ", "");
    project.ok(&["task", "take", "ONE", other.to_str().expect("UTF-8")]);
}
