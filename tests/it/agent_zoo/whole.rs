//! Slots are whole: no sparse checkout of an earlier agent, no submodule as it left it.

use super::zoo::{Zoo, one_stage};

const UPDATE: &str = "git -c protocol.file.allow=always submodule update -q --init";

#[test]
fn a_sparse_checkout_of_one_agent_hides_nothing_from_the_next() {
    let script = r#"
test -e d2/x
if test "$PIPELINE_TASK_ID" = T-1; then git sparse-checkout set d1; fi
mkdir -p d2; echo x > d2/$PIPELINE_TASK_ID; echo x > $PIPELINE_TASK_ID; pipeline done"#;
    let zoo = Zoo::new(&one_stage("", 1, script));
    zoo.write("d1/x", "x");
    zoo.write("d2/x", "x");
    zoo.git(&["add", "-A"]);
    zoo.git(&["commit", "-q", "-m", "folders"]);
    zoo.add("T-1", &[]);
    zoo.add("T-2", &["--depends-on", "T-1"]);
    assert_eq!(zoo.run().code, Some(0), "{:?}", zoo.task("T-1"));
    let landed = zoo.landed_files();
    for name in ["T-1", "T-2", "d1/x", "d2/T-1", "d2/T-2", "d2/x"] {
        assert!(landed.iter().any(|it| it == name), "{name}: {landed:?}");
    }
}

#[test]
fn a_sparse_checkout_of_the_person_keeps_no_file_of_an_agent_back() {
    let script = "mkdir -p d2; echo y > d2/new; echo x > b.txt; pipeline done";
    let zoo = Zoo::new(&one_stage("", 1, script));
    zoo.write("d1/x", "x");
    zoo.write("d2/x", "x");
    zoo.git(&["add", "-A"]);
    zoo.git(&["commit", "-q", "-m", "folders"]);
    zoo.git(&["sparse-checkout", "set", "d1"]);
    zoo.add("T-1", &[]);
    assert_eq!(zoo.run().code, Some(0), "{:?}", zoo.task("T-1"));
    assert!(zoo.landed_files().iter().any(|name| name == "d2/new"));
    assert!(zoo.root().join("b.txt").exists() && !zoo.root().join("d2").exists());
    assert_eq!(zoo.git(&["sparse-checkout", "list"]), "d1");
}

/// A zoo with the submodule `sub`, of which `lib` beside the project is the origin.
fn with_submodule(settings: &str) -> Zoo {
    let zoo = Zoo::new(settings);
    let lib = zoo.path("lib").display().to_string();
    zoo.git(&["init", "-q", "-b", "main", &lib]);
    commit_in(&zoo, "lib", "one");
    let add = ["-c", "protocol.file.allow=always", "submodule", "add", "-q", "--", &lib, "sub"];
    zoo.git(&add);
    zoo.git(&["commit", "-q", "-m", "with a submodule"]);
    zoo
}

/// Writes `text` into `v` of a repository beside the project or in it, and commits that.
fn commit_in(zoo: &Zoo, dir: &str, text: &str) {
    let dir = zoo.path(dir).display().to_string();
    std::fs::write(format!("{dir}/v"), text).expect("writes");
    zoo.git(&["-C", &dir, "add", "-A"]);
    let name = ["-c", "user.name=Person", "-c", "user.email=person@example.org"];
    zoo.git(&[&["-C", &dir], &name[..], &["commit", "-q", "-m", text]].concat());
}

#[test]
fn a_submodule_that_a_person_moved_on_stays_there() {
    let more = format!("[worktree]\nsetup = [\"{UPDATE}\"]\n");
    let script = "cp sub/v $PIPELINE_TASK_ID; pipeline done";
    let zoo = with_submodule(&one_stage(&more, 1, script));
    zoo.add("T-1", &[]);
    assert_eq!(zoo.run().code, Some(0), "{:?}", zoo.task("T-1"));
    commit_in(&zoo, "lib", "two");
    zoo.git(&["-C", "sub", "pull", "-q"]);
    zoo.git(&["commit", "-q", "-a", "-m", "bump"]);
    let bumped = zoo.git(&["rev-parse", "main:sub"]);
    zoo.add("T-2", &[]);
    zoo.add("T-3", &["--depends-on", "T-2"]);
    assert_eq!(zoo.run().code, Some(0), "{:?}", zoo.task("T-2"));
    assert_eq!(zoo.git(&["rev-parse", "main:sub"]), bumped);
    // The second may have begun before the base was taken in.
    let seen = ["T-1", "T-3"].map(|name| zoo.git(&["show", &format!("main:{name}")]));
    assert_eq!(seen, ["one", "two"]);
}

#[test]
fn what_a_rejected_attempt_did_in_a_submodule_is_in_no_other_task() {
    // With a setup every task gets the same worktree.
    let more = "[limits]\nattempts_per_stage = 1\nattempts_per_task = 1\n[worktree]\nsetup = \
                [\"true\"]\n";
    let script = format!(
        r#"
echo x > $PIPELINE_TASK_ID
if test "$PIPELINE_TASK_ID" = T-1; then
  {UPDATE}; cd sub; echo sm >> v
  git -c user.name=a -c user.email=a@example.org commit -qam x; exit 1
fi
pipeline done"#
    );
    let zoo = with_submodule(&one_stage(more, 1, &script));
    let before = zoo.git(&["rev-parse", "main:sub"]);
    zoo.add("T-1", &[]);
    assert_eq!(zoo.run().code, Some(1));
    zoo.add("T-2", &[]);
    zoo.run();
    assert_eq!(zoo.task("T-2").status(), "completed", "{:?}", zoo.task("T-2"));
    assert_eq!(zoo.git(&["rev-parse", "main:sub"]), before);
}

/// An agent that commits in a submodule, does `push` there, and leaves more that is not committed.
fn committed_in_submodule(push: &str) -> Zoo {
    let more = "[limits]\nattempts_per_stage = 1\nattempts_per_task = 1\n";
    let script = format!(
        r#"
echo x > $PIPELINE_TASK_ID
{UPDATE}; cd sub; echo sm > v; echo new > w
git -c user.name=a -c user.email=a@example.org commit -qam x
{push}
git -C .. commit -q -m bump sub
rm w; echo dirty >> v
pipeline done"#
    );
    let zoo = with_submodule(&one_stage(more, 1, &script));
    in_lib(&zoo, &["switch", "-q", "-c", "other"]);
    zoo.add("T-1", &[]);
    zoo
}

/// Runs git in the origin of the submodule.
fn in_lib(zoo: &Zoo, args: &[&str]) -> String {
    let lib = zoo.path("lib").display().to_string();
    zoo.git(&[&["-C", &lib], args].concat())
}

#[test]
fn a_commit_that_only_a_submodule_has_is_kept_and_not_landed() {
    let zoo = committed_in_submodule("");
    let before = zoo.git(&["rev-parse", "main:sub"]);
    assert_eq!(zoo.run().code, Some(1), "{:?}", zoo.task("T-1"));
    assert_eq!(zoo.git(&["rev-parse", "main:sub"]), before);
    let told = format!("{:?}", zoo.task("T-1"));
    assert!(
        told.contains("incomplete")
            && told.contains("that no remote-tracking branch of it has: push it"),
        "{told}"
    );
    let (_, bundle) = told.split_once("kept in `").expect("it is told where");
    let (bundle, _) = bundle.split_once('`').expect("a path");
    assert!(bundle.ends_with("/left/T-1.impl.1/sub.bundle"), "{bundle}");
    in_lib(&zoo, &["fetch", "-q", bundle, "refs/pipeline/saved/T-1.impl.1:refs/heads/back"]);
    assert_eq!(in_lib(&zoo, &["show", "back:v"]), "sm\ndirty");
    assert_eq!(in_lib(&zoo, &["show", "back~1:v"]), "sm");
}

#[test]
fn a_commit_that_was_pushed_from_a_submodule_lands() {
    let zoo = committed_in_submodule("git push -q origin HEAD:main");
    assert_eq!(zoo.run().code, Some(0), "{:?}", zoo.task("T-1"));
    assert_eq!(zoo.git(&["rev-parse", "main:sub"]), in_lib(&zoo, &["rev-parse", "main"]));
    assert_eq!(zoo.git(&["show", "main:T-1"]), "x");
}
