//! The files of the pipeline itself.

use std::fs;

use super::{ONCE_EACH, ONE, TWO, assert_ends_landed, held};
use crate::support::project::Project;

/// The view with another truth in it.
fn edit_view(project: &Project) {
    let path = project.path(".git/pipeline/state.json");
    let text = fs::read_to_string(&path).expect("the view");
    let edited = text.replace("\"title\":\"Task A\"", "\"title\":\"Mine\"").replacen(
        "\"seq\":",
        "\"seq\":9",
        1,
    );
    assert_ne!(text, edited);
    fs::write(&path, edited).expect("it is ours");
}

/// Views that were kept aside.
fn kept_views(project: &Project) -> usize {
    let entries = fs::read_dir(project.path(".git/pipeline")).expect("the state").flatten();
    let is_kept =
        |entry: &fs::DirEntry| entry.file_name().to_string_lossy().contains("state.json.edited-");
    entries.filter(is_kept).count()
}

#[test]
fn an_edited_view_is_said_kept_and_not_believed() {
    let project = Project::new(1);
    let mut monitor = held(&project, ONE);
    project.until("a quiet view", || {
        let view = fs::read_to_string(project.path(".git/pipeline/state.json")).expect("the view");
        view.contains("impl_wip")
    });
    edit_view(&project);
    project.ok(&["pause"]);
    monitor.until_said("was edited by hand");
    assert_eq!(kept_views(&project), 1);
    assert!(project.ok(&["task", "show", "A"]).contains("Task A"));
    // And with no monitor, by the command that comes next.
    project.ok(&["stop"]);
    assert_eq!(monitor.end(&project), Some(0));
    edit_view(&project);
    let done = project.run(&["resume"]);
    assert!(done.err.contains("was edited by hand"), "{}", done.err);
    assert_eq!(kept_views(&project), 2);
    project.release("hold.implementation");
    let mut monitor = project.monitor(&["--until-idle"]);
    assert_eq!(monitor.end(&project), Some(0), "{}", project.story());
    assert_eq!(project.runs(), ONCE_EACH);
    project.assert_landed(ONE);
    project.assert_nothing_left();
}

#[test]
fn folders_of_the_run_that_are_deleted_are_made_again() {
    for name in
        [".pipeline", ".git/pipeline/keepers", ".git/pipeline/attempts", ".git/pipeline/logs"]
    {
        let project = Project::not_ahead(1);
        let mut monitor = held(&project, TWO);
        fs::remove_dir_all(project.path(name)).expect(name);
        project.release("hold.implementation");
        eprintln!("{name}");
        assert_ends_landed(&project, &mut monitor, TWO);
    }
}

#[test]
fn sockets_that_are_deleted_cost_no_task() {
    let project = Project::new(1);
    let mut monitor = held(&project, TWO);
    monitor.kill();
    let run = project.dir().join("run");
    for entry in fs::read_dir(&run).expect("the folder").flatten() {
        fs::remove_dir_all(entry.path()).expect("it is there");
    }
    let mut monitor = project.monitor(&["--until-idle"]);
    project.release("hold.implementation");
    assert_ends_landed(&project, &mut monitor, TWO);
}

#[test]
fn a_journal_that_is_gone_stops_all_until_it_is_back() {
    let project = Project::new(1);
    let mut monitor = held(&project, ONE);
    let (journal, aside) = (project.path(".git/pipeline/journal"), project.dir().join("aside"));
    fs::rename(&journal, &aside).expect("it can be moved");
    project.release("hold.implementation");
    assert_eq!(monitor.end(&project), Some(3), "{}", monitor.said());
    for args in [&["status"][..], &["task", "add", "More"], &["monitor"], &["init"]] {
        let said = project.run(args);
        assert!(matches!(said.code, Some(3 | 4)), "{args:?}: {said:?}");
        assert!(!journal.exists(), "{args:?}");
    }
    fs::rename(&aside, &journal).expect("it can be moved back");
    let mut monitor = project.monitor(&["--until-idle"]);
    assert_eq!(monitor.end(&project), Some(0), "{}", project.story());
    assert_eq!(project.runs(), ONCE_EACH);
    project.assert_landed(ONE);
    project.assert_nothing_left();
}

#[test]
fn a_deleted_lock_of_the_journal_is_made_again() {
    let project = Project::new(1);
    let mut monitor = held(&project, TWO);
    fs::remove_file(project.path(".git/pipeline/lock")).expect("it is there");
    project.ok(&["task", "add", "More", "--id", "C"]);
    project.release("hold.implementation");
    assert_ends_landed(&project, &mut monitor, &[("A", &[]), ("B", &["A"]), ("C", &[])]);
}

#[test]
fn a_monitor_whose_lock_was_deleted_gives_way_to_the_next_one() {
    let project = Project::new(1);
    let mut monitor = held(&project, ONE);
    fs::remove_file(project.path(".git/pipeline/monitor.lock")).expect("it is there");
    let mut next = project.monitor(&["--until-idle"]);
    assert_eq!(monitor.end(&project), Some(4), "{}", monitor.said());
    assert!(monitor.said().contains("was deleted or replaced"), "{}", monitor.said());
    project.release("hold.implementation");
    assert_ends_landed(&project, &mut next, ONE);
    assert_eq!(project.runs(), ONCE_EACH);
}
