//! The table of moves: every phase and trigger, as a file to be looked at in review.

use std::fmt::Write as _;
use std::path::PathBuf;

use pipeline::machine::attempt::AttemptPhase;
use pipeline::machine::phase::{Move, TaskStand, TaskTrigger, attempt_moves, task_move};

const ATTEMPT_PHASES: [AttemptPhase; 6] = [
    AttemptPhase::Preparing,
    AttemptPhase::Starting,
    AttemptPhase::Running,
    AttemptPhase::Saving,
    AttemptPhase::Checking,
    AttemptPhase::Advancing,
];

fn table() -> String {
    let mut out = String::from("tasks: phase, trigger, what follows\n");
    for from in TaskStand::ALL {
        for trigger in TaskTrigger::ALL {
            let next = match task_move(from, trigger) {
                Move::To(next) => format!("{next:?}"),
                Move::Ignored => "-".into(),
                Move::Refused => "refused".into(),
            };
            let (from, trigger) = (format!("{from:?}"), format!("{trigger:?}"));
            writeln!(out, "{from:<10} {trigger:<14} {next}").unwrap();
        }
    }
    out.push_str("\nattempts: phase, what may follow; each may end\n");
    for from in ATTEMPT_PHASES {
        writeln!(out, "{:<10} {:?}", format!("{from:?}"), attempt_moves(from)).unwrap();
    }
    out
}

#[test]
fn the_table_of_moves_is_the_reviewed_one() {
    let path = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/golden/transitions.txt");
    if std::env::var_os("UPDATE_GOLDEN").is_some_and(|value| value == "1") {
        std::fs::write(&path, table()).unwrap();
    }
    let golden = std::fs::read_to_string(&path).unwrap_or_default();
    assert_eq!(golden, table(), "UPDATE_GOLDEN=1 rewrites {}", path.display());
}

#[test]
fn every_phase_and_trigger_is_listed_once() {
    for (place, from) in TaskStand::ALL.iter().enumerate() {
        assert_eq!(TaskStand::ALL.iter().position(|other| other == from), Some(place));
    }
    for (place, trigger) in TaskTrigger::ALL.iter().enumerate() {
        assert_eq!(TaskTrigger::ALL.iter().position(|other| other == trigger), Some(place));
    }
}

#[test]
fn a_finished_task_never_moves() {
    for from in [TaskStand::Completed, TaskStand::Cancelled] {
        for trigger in TaskTrigger::ALL {
            let next = task_move(from, trigger);
            let is_kept = matches!(next, Move::Ignored | Move::Refused);
            // Only with the pilot, which a person drops.
            let is_dropped = (from, trigger) == (TaskStand::Completed, TaskTrigger::Dropped);
            // A person alone begins it anew.
            let is_begun_anew = (is_dropped || trigger == TaskTrigger::Reopened)
                && next == Move::To(TaskStand::Waiting);
            assert!(is_kept || is_begun_anew, "{from:?} {trigger:?}");
        }
    }
}

#[test]
fn every_phase_but_the_first_is_reached_and_every_open_one_left() {
    for stand in TaskStand::ALL {
        let is_entered = TaskStand::ALL.iter().any(|from| {
            TaskTrigger::ALL.iter().any(|trigger| task_move(*from, *trigger) == Move::To(stand))
        });
        assert!(is_entered, "{stand:?}");
        let is_final = matches!(stand, TaskStand::Completed | TaskStand::Cancelled);
        let is_ordinary =
            |t: &&TaskTrigger| !matches!(t, TaskTrigger::Dropped | TaskTrigger::Reopened);
        let mut ordinary = TaskTrigger::ALL.iter().filter(is_ordinary);
        let is_left = ordinary.any(|t| matches!(task_move(stand, *t), Move::To(_)));
        assert_eq!(is_left, !is_final, "{stand:?}");
    }
}

#[test]
fn attempts_only_go_forward() {
    for (place, from) in ATTEMPT_PHASES.iter().enumerate() {
        for next in attempt_moves(*from) {
            let next = ATTEMPT_PHASES.iter().position(|phase| phase == next);
            assert!(next > Some(place), "{from:?}");
        }
    }
}
