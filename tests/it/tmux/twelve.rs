//! The whole of it: twelve tasks, an agent of each stage in a window, one of them a person.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use pipeline::sys::clock::monotonic;

use super::desk::{
    Client, assert_done, kill_server, lost, pane_of, shown, those_with, tmux, with_settings,
};
use crate::support::project::{Project, STAGES, TWELVE};
use crate::support::until;

/// Shows nothing for a moment, then listens, works and leaves.
const PROGRAM: &str = r#"sleep 0.2
echo "$PIPELINE_ATTEMPT" >>"$E2E_DIR/runs"
printf '\033[?2004h> '
read -r line
case "$line" in *"Read TASK-$PIPELINE_TASK_ID.md, "*) ;; *) echo "odd: $line"; exit 7 ;; esac
if [ -e "$E2E_DIR/hold" ]; then touch "$E2E_DIR/held"; fi
while [ -e "$E2E_DIR/hold" ]; do sleep 0.02; done
if [ "$PIPELINE_STAGE" != supervisor ]; then
    mkdir -p "$PIPELINE_STAGE" && echo "$PIPELINE_TASK_ID" >"$PIPELINE_STAGE/$PIPELINE_TASK_ID.txt"
fi
pipeline done
"#;

/// What the person types behind each line, to know what was typed already.
const MINE: &str = "# mine";
/// Between two looks of the person.
const LOOK: Duration = Duration::from_millis(100);

fn project() -> Project {
    let mut agents = String::new();
    for stage in STAGES {
        let command = match stage {
            "implementation" => "\"person\"",
            _ => super::COMMAND,
        };
        agents.push_str(&format!(
            "[[agent]]\nname = \"{stage}\"\nstages = [\"{stage}\"]\nlauncher = \"tmux\"\n\
             command = {command}\n\n"
        ));
    }
    with_settings("[landing]\nchecks = [\"test -d tools\"]\n\n", &agents, PROGRAM)
}

/// The task whose notice stands in the person's window, with nothing typed below it.
fn asked(project: &Project, pane: &str) -> Option<String> {
    let text = shown(project, pane);
    let (_, below) = text.rsplit_once("This is yours: ")?;
    let (task, rest) = below.split_once(':')?;
    // The notice is whole, and a shell waits below it.
    let is_new = rest.contains("no time limit.") && !rest.contains(MINE);
    is_new.then(|| task.to_owned())
}

/// A person who looks into the window of the implementation now and then, does what is asked and
/// types `pipeline done`, until it is over; how often.
fn person(project: &Project, is_over: &AtomicBool) -> usize {
    let mut typed = 0;
    while !is_over.load(Ordering::Relaxed) {
        std::thread::park_timeout(LOOK);
        let Some(pane) = pane_of(project, "implementation") else { continue };
        let Some(task) = asked(project, &pane) else { continue };
        let file = format!("implementation/{task}.txt");
        let line = format!("mkdir -p implementation; echo {task} >{file}; pipeline done {MINE}");
        tmux(project, &["send-keys", "-t", &pane, "-l", &line]);
        tmux(project, &["send-keys", "-t", &pane, "Enter"]);
        typed += 1;
        until(
            "what was typed to show",
            || project.story(),
            || {
                // Or the window goes away with its server.
                let is_there = pane_of(project, "implementation").is_some();
                (!is_there || asked(project, &pane).as_ref() != Some(&task)).then_some(())
            },
        );
    }
    typed
}

/// Waits until so many programs have begun; the person's are not among them.
fn begun(project: &Project, count: usize) {
    for next in project.runs().len()..count {
        project.until("another program", || project.runs().len() > next);
    }
}

/// Looks on, scrolls, makes windows small and large, and takes the server away.
fn disturb(project: &Project) {
    begun(project, 3);
    let watching = Client::attach(project, "architect");
    let pane = |agent: &str| {
        let found = || pane_of(project, agent);
        until("a window", || project.story(), found)
    };
    tmux(project, &["copy-mode", "-t", &pane("test")]);
    tmux(project, &["resize-window", "-t", &pane("architect"), "-x", "33", "-y", "8"]);
    tmux(project, &["resize-window", "-t", &pane("implementation"), "-x", "150", "-y", "50"]);
    begun(project, 12);
    project.hold("hold");
    project.until("an agent in the middle", || project.dir().join("held").exists());
    kill_server(project);
    watching.end();
    project.until("the shims' end", || those_with(project, "__pane").is_empty());
    project.release("hold");
    begun(project, 20);
    let mut watching = Client::attach(project, "supervisor");
    tmux(project, &["copy-mode", "-t", &pane("supervisor")]);
    watching.types(b"q\x02d");
    watching.end();
}

#[test]
fn twelve_tasks_of_agents_in_windows_and_a_person_land_though_the_server_is_killed() {
    let project = project();
    project.import(TWELVE);
    let begun_at = monotonic();
    let mut monitor = project.monitor(&["--until-idle"]);
    let is_over = AtomicBool::new(false);
    let typed = std::thread::scope(|scope| {
        let person = scope.spawn(|| person(&project, &is_over));
        let run = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
            disturb(&project);
            while monitor.has_ended().is_none() {
                let count = project.log().len();
                let mut is_news = || monitor.has_ended().is_some() || project.log().len() > count;
                project.until("something to happen", &mut is_news);
            }
        }));
        is_over.store(true, Ordering::Relaxed);
        let typed = person.join();
        run.and(typed)
    });
    let typed = typed.unwrap_or_else(|panic| std::panic::resume_unwind(panic));
    assert_eq!(monitor.end(&project), Some(0), "{}", project.story());
    project.assert_landed(TWELVE);
    let mut backlog = TWELVE.to_vec();
    backlog.sort();
    assert_done(&project, &backlog);
    let log = project.log();
    let works = log.iter().filter(|entry| entry["kind"] == "attempt_added");
    let works = works.filter(|entry| entry["purpose"] == "work").count();
    let lost = lost(&project);
    assert!(lost >= 1 && typed >= 12, "{lost} lost, {typed} typed\n{}", project.story());
    assert_eq!(works, 48 + lost, "nothing but what was lost ran again\n{}", project.story());
    let seconds = begun_at.elapsed().as_secs();
    println!("12 landed: {works} attempts, {lost} lost, {typed} typed, {seconds} s");
}
