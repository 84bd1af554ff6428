//! People who interfere with a run: each claim with the real program and real git.
//!
//! Claims that stand elsewhere:
//! * commits to the base between landings: `commits_of_people_are_taken_in`;
//! * an edit where the base is to follow: `an_edit_in_the_way_holds_up_the_base_alone`,
//!   `the_base_follows_once_the_edit_is_gone_and_more_has_landed`;
//! * `git clean -ffdx`, which also takes settings away that nobody committed:
//!   `cleaning_the_checkout_in_the_middle_costs_no_work`;
//! * worktrees deleted: `worktrees_deleted_under_agents_are_made_again`;
//! * broken settings: `broken_settings_keep_the_old_ones`;
//! * two monitors: `there_is_one_monitor`; a lock kept: `a_lock_that_somebody_keeps_is_waited_for`;
//! * branches of ours moved by an agent: `branches_of_ours_that_an_agent_removes_or_moves_are_put_back`;
//! * a state without its journal: `lost_journal_is_never_an_empty_start`.
//!
//! A clock that is set, and a machine that sleeps, are for the simulator: neither can be had here
//! without harm to what runs beside.

mod checkout;
mod refs;
mod state;

use rustix::process::Signal;

use crate::support::project::{Backlog, Project, Running};

const ONE: &Backlog = &[("A", &[])];
const TWO: &Backlog = &[("A", &[]), ("B", &["A"])];
const ONCE_EACH: [&str; 4] = ["A.arch.1", "A.test.1", "A.impl.1", "A.super.1"];

/// A check that waits while it is told to, and says so.
const CHECK: &str = r#"
if [ -e "$E2E_DIR/hold.check" ]; then echo >"$E2E_DIR/held"; fi
while [ -e "$E2E_DIR/hold.check" ]; do sleep 0.02; done
"#;

/// A monitor with the first task held in its implementation.
fn held(project: &Project, backlog: &Backlog) -> Running {
    project.import(backlog);
    project.hold("hold.implementation");
    let monitor = project.monitor(&["--until-idle"]);
    project.until("the implementation", || project.runs().iter().any(|id| id == "A.impl.1"));
    monitor
}

/// A monitor with the first task held in the checks of its landing.
fn landing(project: &Project, backlog: &Backlog) -> Running {
    project.write("tools/check.sh", CHECK);
    project.commit("Checks can be held");
    project.import(backlog);
    project.hold("hold.supervisor");
    let monitor = project.monitor(&["--until-idle"]);
    project.until("the supervisor", || project.runs().iter().any(|id| id == "A.super.1"));
    project.hold("hold.check");
    project.release("hold.supervisor");
    project.until("the landing's checks", || project.dir().join("held").exists());
    monitor
}

fn assert_ends_landed(project: &Project, monitor: &mut Running, backlog: &Backlog) {
    assert_eq!(monitor.end(project), Some(0), "{}{}", monitor.said(), project.story());
    project.assert_landed(backlog);
    assert_eq!(project.git(&["rev-parse", "main"]), project.git(&["rev-parse", "pipeline/landed"]));
    project.assert_nothing_left();
}

fn assert_kept(project: &Project, commit: &str) {
    let kept = project.try_git(&["merge-base", "--is-ancestor", commit, "main"]);
    assert_eq!(kept.code, Some(0), "{commit} is lost\n{}", project.story());
}

#[test]
fn a_stopped_monitor_misses_nothing_and_counts_no_limit() {
    const LIMIT_MS: u64 = 8_000;
    let mut stages = String::new();
    for (name, short) in [
        ("architect", "arch"),
        ("test", "test"),
        ("implementation", "impl"),
        ("supervisor", "super"),
    ] {
        let change = matches!(name, "test" | "implementation");
        stages += &format!(
            "[[stage]]\nname = \"{name}\"\nshort = \"{short}\"\nmust_change = {change}\n\
             timeout = \"{}\"\n",
            if name == "implementation" { format!("{LIMIT_MS}ms") } else { "10m".into() }
        );
    }
    let project = Project::with(1, &stages);
    let mut monitor = held(&project, ONE);
    let begun = pipeline::sys::clock::monotonic();
    monitor.signal(Signal::STOP);
    project.release("hold.implementation");
    project.until("a pause longer than the limit", || {
        begun.elapsed().as_millis() > u128::from(LIMIT_MS + LIMIT_MS / 4)
    });
    monitor.signal(Signal::CONT);
    assert_eq!(monitor.end(&project), Some(0), "{}", project.story());
    assert_eq!(project.runs(), ONCE_EACH);
    project.assert_landed(ONE);
    project.assert_nothing_left();
}
