//! What is left when a run ends: each task with what it waits for.

use super::blocked::blocked;
use super::lane::{Lane, stuck};
use super::page::first_line;
use super::waiting::Waits;
use crate::machine::State;
use crate::machine::task::{Task, TaskKind, TaskPhase};

/// Returns a line for each task that is neither completed nor cancelled, in order of entry. Epics
/// are left out: they complete with their children.
#[must_use]
pub fn remaining(state: &State) -> Vec<String> {
    let mut waits = Waits::new(state);
    let is_open = |task: &&Task| !task.is_final() && task.spec.kind == TaskKind::Task;
    let mut tasks: Vec<&Task> = state.tasks.values().filter(is_open).collect();
    tasks.sort_by_key(|task| task.entry);
    tasks.into_iter().map(|task| line(state, &mut waits, task)).collect()
}

fn line<'a>(state: &'a State, waits: &mut Waits<'a>, task: &'a Task) -> String {
    let id = &task.id;
    let lane = Lane::on_record(state);
    if let Some(tries) = lane.stuck.filter(|_| lane.stuck_task(state) == Some(id.as_str())) {
        let (why, next) = stuck(&state.settings.landing.branch, tries);
        return format!("`{id}` needs a person, its landing is stuck: {why}: {next}");
    }
    if let Some(reason) = waits.reason(task) {
        return format!("`{id}` waits for {}: {}", reason.on.word(), reason.what);
    }
    if let Some(found) = blocked(state, task) {
        let why = first_line(found.reason);
        return format!("`{id}` is blocked, {}: {why}: {}", found.class, found.next);
    }
    match &task.phase {
        TaskPhase::Working { stage, attempt } => {
            format!("`{id}` is in work at {stage} ({attempt})")
        }
        TaskPhase::Landing { .. } => format!("`{id}` is being landed"),
        TaskPhase::Waiting
        | TaskPhase::Ready { .. }
        | TaskPhase::Blocked(_)
        | TaskPhase::Completed { .. }
        | TaskPhase::Cancelled { .. } => format!("`{id}` is left"),
    }
}

#[cfg(test)]
mod tests {
    use super::remaining;
    use crate::machine::Command;
    use crate::machine::attempt::Marker;
    use crate::machine::id::TaskId;
    use crate::observe::support::{End, Pipeline, settings, task};

    #[test]
    fn each_task_that_is_left_says_what_it_waits_for() {
        let tasks = vec![task("A", &[]), task("B", &["A"]), task("C", &[]), task("D", &[])];
        let mut pipeline = Pipeline::started(settings(), tasks);
        pipeline.send(Command::HoldTasks { ids: vec![TaskId::new("C")] });
        pipeline.run("A.arch.1", End::Says(Marker::Blocked("which colour?".into())));
        pipeline.turn();
        let lines = remaining(&pipeline.state);
        let expected = [
            "`A` is blocked, blocked: which colour?: pipeline task retry A --note 'ANSWER'",
            "`B` is blocked, dependency: ",
            "`C` waits for hold: held by a person: pipeline task release C",
            "`D` is in work at architect (D.arch.1)",
        ];
        assert_eq!(lines.len(), expected.len(), "{lines:#?}");
        for (line, expected) in lines.iter().zip(expected) {
            assert!(line.starts_with(expected), "{line}");
        }
    }
}
