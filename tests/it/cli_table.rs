//! Every command with one wrong use: what is said, and the exit code; and what every command takes.

use std::collections::BTreeSet;

use clap::Command;
use serde_json::Value;

use crate::support::project::Project;

/// A command, the words behind it, the exit code, what is said.
type Case = (&'static str, &'static str, i32, &'static str);

const USES: &[Case] = &[
    ("init", "--isolation docker", 2, "invalid value 'docker'"),
    ("demo", "README", 2, "name a folder that does not exist yet"),
    ("deinit", "all", 2, "unexpected argument 'all'"),
    ("task add", "", 2, "<TITLE>"),
    ("task add", "T --depends-on NOBODY", 2, "depends on unknown `NOBODY`"),
    ("task add", "T --id a..b", 2, "must not hold `..`"),
    ("task import", "gone.json", 2, "cannot read"),
    ("task list", "--status lost", 2, "`lost` is no status"),
    ("task show", "NOBODY", 2, "there is no task `NOBODY`"),
    ("task edit", "A --depends-on A", 2, "task `A` depends on itself"),
    ("task hold", "NOBODY", 2, "there is no task `NOBODY`"),
    ("task release", "NOBODY", 2, "there is no task `NOBODY`"),
    ("task retry", "A --stage NONE", 2, "there is no stage `NONE`"),
    ("task take", "NOBODY", 2, "there is no task `NOBODY`"),
    ("task give", "A", 2, "`pipeline task take A` makes a worktree for you"),
    ("task approve", "A", 2, "does not wait for approval"),
    ("task cancel", "A", 4, "say `--dependents cancel|release`"),
    ("task complete", "A --commit NONE", 2, "there is no commit `NONE`"),
    ("task reopen", "A", 2, "is not finished"),
    ("task log", "NOBODY", 2, "there is no task `NOBODY`"),
    ("task diff", "NOBODY", 2, "there is no task `NOBODY`"),
    ("task prompt", "A --stage NONE", 2, "there is no stage `NONE`"),
    ("monitor", "--once --until-idle", 2, "cannot be used with"),
    ("monitor", "--timeout 5m", 2, "--until-idle"),
    ("pause", "now", 2, "unexpected argument 'now'"),
    ("resume", "now", 2, "unexpected argument 'now'"),
    ("stop", "--drain --now", 2, "cannot be used with"),
    ("mode show", "pilot", 2, "`pilot` is a rollout: pipeline rollout set pilot"),
    ("mode switch", "shadow", 2, "`shadow` is a rollout: pipeline rollout set shadow"),
    ("mode switch", "fast", 2, "the modes are sequential, parallel and hybrid"),
    ("rollout show", "hybrid", 2, "`hybrid` is a mode: pipeline mode switch hybrid"),
    ("rollout check", "now", 2, "unexpected argument 'now'"),
    ("rollout promote", "--land-pilot --drop-pilot", 2, "cannot be used with"),
    ("rollout demote", "shadow", 2, "`shadow` is a rollout: pipeline rollout set shadow"),
    ("rollout set", "sequential", 2, "`sequential` is a mode: pipeline mode switch sequential"),
    ("status", "--fail-on nothing", 2, "blocked, stalled, unhealthy"),
    ("log", "--since soon", 2, "`yesterday`"),
    ("report", "--format pdf", 2, "md, html, json"),
    ("report", "-o gone/x.md", 1, "give a file in a folder that exists"),
    ("plan", "--workers 0", 2, "0 is not in 1..=1000"),
    ("graph", "gone.json", 2, "cannot read"),
    ("graph", "--dot --mermaid", 2, "cannot be used with"),
    ("agent list", "all", 2, "unexpected argument 'all'"),
    ("agent pause", "NOBODY", 2, "there is no agent `NOBODY`"),
    ("agent resume", "NOBODY", 2, "there is no agent `NOBODY`"),
    ("agent attach", "NOBODY", 2, "there is no agent `NOBODY`"),
    ("agent test", "NOBODY", 2, "there is no agent `NOBODY`"),
    ("agent scale", "NOBODY 2", 2, "there is no group of agents `NOBODY`"),
    ("agent scale", "test many", 2, "expected a number or `auto`"),
    ("agent logs", "NOBODY", 2, "there is no agent `NOBODY`"),
    ("salvage list", "all", 2, "unexpected argument 'all'"),
    ("salvage show", "NONE", 2, "there is nothing in salvage under `NONE`"),
    ("salvage restore", "NONE", 2, "there is nothing in salvage under `NONE`"),
    ("salvage drop", "NONE", 2, "there is nothing in salvage under `NONE`"),
    ("done", "", 2, "there is no task file"),
    ("block", "", 2, "<WHY>"),
    ("fail", "why", 2, "there is no task file"),
    ("request-changes", "what", 2, "there is no task file"),
    ("doctor", "--dry-run", 2, "--repair"),
    ("completions", "tcsh", 2, "bash, elvish, fish, powershell, zsh"),
    ("man", "task", 2, "unexpected argument 'task'"),
    ("schema", "all", 2, "state, config, journal, status, task"),
];

/// Returns every command that is shown and holds no others.
fn leaves(above: &Command, words: &str) -> Vec<String> {
    let shown = above.get_subcommands().filter(|command| !command.is_hide_set());
    let below = |command: &Command| {
        let words = format!("{words}{}", command.get_name());
        if command.has_subcommands() { leaves(command, &format!("{words} ")) } else { vec![words] }
    };
    shown.flat_map(below).collect()
}

fn project() -> Project {
    let project = Project::new(1);
    project.ok(&["task", "add", "One", "--id", "A"]);
    project.ok(&["task", "add", "Two", "--id", "B", "--depends-on", "A"]);
    project
}

#[test]
fn every_command_refuses_one_wrong_use_with_its_code_and_changes_nothing() {
    let used: BTreeSet<String> = USES.iter().map(|(command, ..)| (*command).to_owned()).collect();
    let there = leaves(&pipeline::cli::args::definition(), "").into_iter().collect();
    assert_eq!(used, there, "each command has a wrong use here");
    let project = project();
    let before = (project.journal_bytes(), project.git(&["for-each-ref"]));
    for (command, rest, code, said) in USES {
        let line = format!("{command} {rest}");
        let args: Vec<&str> = line.split_whitespace().collect();
        let done = project.run(&args);
        assert_eq!(done.code, Some(*code), "{line}: {}{}", done.out, done.err);
        assert!(done.err.starts_with("error: "), "{line}: {}", done.err);
        assert!(done.err.contains(said), "{line}: {}", done.err);
        assert_eq!(done.out, "", "{line}: standard output is data only");
        let told = project.run(&[&args[..], &["--json"]].concat());
        assert_eq!(told.code, Some(*code), "{line} --json: {}{}", told.out, told.err);
        let error: Value = serde_json::from_str(&told.err)
            .unwrap_or_else(|error| panic!("{line} --json: {error}: {}", told.err));
        for field in ["kind", "message", "causes", "hint", "path"] {
            assert!(error["error"].get(field).is_some(), "{line} --json: {error}");
        }
    }
    assert_eq!(before, (project.journal_bytes(), project.git(&["for-each-ref"])));
    project.assert_nothing_left();
}

#[test]
fn words_that_stand_elsewhere_are_answered_with_the_right_command() {
    let project = Project::bare();
    std::fs::create_dir(&project.root).expect("a folder");
    for (line, said) in [
        ("pilot", "`pilot` is a rollout: pipeline rollout set pilot"),
        ("mode production", "`production` is a rollout: pipeline rollout set production"),
        ("rollout parallel", "`parallel` is a mode: pipeline mode switch parallel"),
        ("sequential", "`sequential` is a mode: pipeline mode switch sequential"),
        ("promote", "did you mean `pipeline rollout promote`?"),
        ("retry A", "did you mean `pipeline task retry`?"),
        ("scale test 2", "did you mean `pipeline agent scale`?"),
        ("task pause A", "did you mean `pipeline pause` or `pipeline agent pause`?"),
        ("statsu", "a similar subcommand exists: 'status'"),
    ] {
        let args: Vec<&str> = line.split(' ').collect();
        let said_here = project.fails(2, &args);
        assert!(said_here.contains(said), "{line}: {said_here}");
        let told = project.fails(2, &[&args[..], &["--json"]].concat());
        let error: Value = serde_json::from_str(&told).expect("JSON");
        let hint = error["error"]["hint"].as_str().expect("a hint");
        assert!(hint.contains(said), "{line}: {hint}");
    }
}

#[test]
fn what_every_command_takes_works_before_and_behind_it() {
    let project = project();
    let outside = project.dir();
    let run = |args: &[&str], env: &[(&str, &str)]| {
        let mut command = project.command(&outside, args);
        let done = command.envs(env.iter().copied()).output().expect("it runs");
        (done.status.code(), String::from_utf8(done.stdout).expect("UTF-8"), done.stderr)
    };
    // `-C` adds up, as git's does, and works behind the command too.
    for args in
        [["-C", ".", "-C", "project", "task", "list"], ["task", "list", "-C", ".", "-C", "project"]]
    {
        let (code, out, _) = run(&args, &[]);
        assert_eq!(code, Some(0), "{args:?}");
        assert!(out.contains("One"), "{out}");
    }
    let (code, _, err) = run(&["-C", "gone", "status"], &[]);
    assert_eq!(code, Some(2));
    assert!(String::from_utf8_lossy(&err).contains("is no folder"));
    let colored = |args: &[&str], env: &[(&str, &str)]| {
        let args = [&["-C", "project", "status"][..], args].concat();
        run(&args, env).1.contains('\u{1b}')
    };
    assert!(!colored(&[], &[]), "no terminal");
    assert!(colored(&["--color", "always"], &[]));
    assert!(colored(&[], &[("CLICOLOR_FORCE", "1")]));
    assert!(!colored(&[], &[("CLICOLOR_FORCE", "0")]));
    assert!(!colored(&[], &[("CLICOLOR_FORCE", "1"), ("NO_COLOR", "1")]));
    assert!(!colored(&["--color", "never"], &[("CLICOLOR_FORCE", "1")]));
    assert!(colored(&["--color", "always"], &[("NO_COLOR", "1")]), "the flag goes before");
    for (args, word) in [(&["rollout", "check"][..], "holds"), (&["doctor"], "ok")] {
        let painted = |args: &[&str]| run(args, &[]).1.contains(&format!("\u{1b}[32m{word}"));
        let args = [&["-C", "project"][..], args].concat();
        assert!(painted(&[&args[..], &["--color", "always"]].concat()) && !painted(&args));
    }
    let loud = run(&["-C", "project", "init"], &[]).2;
    let quiet = run(&["-C", "project", "init", "-q"], &[]).2;
    assert!(!loud.is_empty() && quiet.is_empty(), "{}", String::from_utf8_lossy(&quiet));
    let lock = std::fs::File::open(project.path(".git/pipeline/lock")).expect("the lock");
    fs2::FileExt::lock_exclusive(&lock).expect("it is free");
    let (code, _, err) = run(&["-C", "project", "--lock-timeout", "50ms", "pause"], &[]);
    let said = String::from_utf8_lossy(&err).into_owned();
    assert_eq!(code, Some(4), "{said}");
    assert!(said.contains("lock"), "{said}");
}

#[test]
fn the_manual_page_is_shown_by_man_without_a_complaint() {
    let project = Project::bare();
    std::fs::create_dir(&project.root).expect("a folder");
    let page = project.ok(&["man"]);
    assert!(page.contains(".SS pipeline task add"), "{page}");
    let show = "pipeline man | groff -man -Tutf8 -P-cbou -ww -rLL=80n 2>&1";
    let shown = project.shell(&format!("command -v groff >/dev/null || exit 77; {show}"));
    if shown.code == Some(77) {
        eprintln!("no groff here: the page was not shown");
        return;
    }
    assert_eq!(shown.code, Some(0), "{}", shown.err);
    for text in ["pipeline task retry", "EXIT STATUS", "--until-idle", "pipeline schema"] {
        assert!(shown.out.contains(text), "{text} is not in\n{}", shown.out);
    }
    assert!(!shown.out.contains("warning"), "{}", shown.out);
}
