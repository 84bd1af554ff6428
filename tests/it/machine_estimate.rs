//! What is expected of tasks, and the time limits drawn from it.

use pipeline::machine::estimate::{COUNT_MIN, Subject, attempt_ms, learn, timeout_ms};
use pipeline::machine::event::NewTask;
use pipeline::machine::settings::Settings;
use pipeline::machine::task::Task;
use pipeline::machine::{Command, State};

use crate::machine_support::{Machine, new_task, settings};

const IMPLEMENTATION: Subject<'static> =
    Subject { stage: "implementation", group: None, complexity: None };

fn with(tasks: Vec<NewTask>) -> State {
    let mut machine = Machine::new(uneven());
    machine.must(Command::AddTasks { tasks });
    machine.state
}

/// The settings of the tests, with stages estimated at 10, 20, 30 and 40 minutes.
fn uneven() -> Settings {
    let mut settings = settings();
    for (place, stage) in settings.stages.iter_mut().enumerate() {
        stage.estimate_ms = (place as u64 + 1) * 600_000;
        (stage.timeout_min_ms, stage.timeout_max_ms) = (1_800_000, 7_200_000);
    }
    settings
}

#[test]
fn what_a_person_said_is_spread_in_the_ratio_of_the_stages() {
    let mut said = new_task("A", &[]);
    said.spec.estimate_ms = Some(1_001);
    let state = &with(vec![said, new_task("B", &[])]);
    let of = |task: &Task| -> Vec<u64> {
        state.settings.stages.iter().map(|stage| attempt_ms(state, task, stage, None)).collect()
    };
    let tasks: Vec<&Task> = state.tasks.values().collect();
    assert_eq!(of(tasks[0]), [100, 200, 300, 401]);
    assert_eq!(of(tasks[1]), [600_000, 1_200_000, 1_800_000, 2_400_000]);
}

#[test]
fn an_automatic_timeout_follows_what_was_learned_within_its_bounds() {
    let mut state = with(vec![new_task("A", &[])]);
    let config = state.settings.stages[2].clone();
    let (least, most) = (config.timeout_min_ms, config.timeout_max_ms);
    assert_eq!(timeout_ms(&state, &config, None, None), most, "nothing is known");
    let cases: [(&[u64], u64); 5] = [
        (&[60_000; 4], least),
        (&[1_500_000; 4], 3_000_000),
        (&[9_000_000; 4], most),
        // Twice the mean is 1 980 000, one and a half times the longest is more.
        (&[200_000, 200_000, 200_000, 1_720_000, 2_600_000], 3_900_000),
        (&[2_000_000; 3], most),
    ];
    for (durations, timeout) in cases {
        state.metrics.learned.clear();
        let history = &mut state.metrics.learned;
        durations.iter().for_each(|ms| learn(history, IMPLEMENTATION, *ms));
        assert_eq!(timeout_ms(&state, &config, None, None), timeout, "{durations:?}");
    }
    let mut config = config;
    config.timeout_ms = Some(7);
    assert_eq!(timeout_ms(&state, &config, None, None), 7);
}

#[test]
fn a_task_that_was_given_more_time_has_a_later_timeout() {
    let mut said = new_task("A", &[]);
    said.spec.estimate_ms = Some(142_000_000);
    let mut state = with(vec![said]);
    let history = &mut state.metrics.learned;
    (0..COUNT_MIN).for_each(|_| learn(history, IMPLEMENTATION, 60_000));
    let task = state.tasks.values().next();
    let config = &state.settings.stages[2];
    let share = task.map_or(0, |task| attempt_ms(&state, task, config, None));
    assert!(2 * share < config.timeout_max_ms && 2 * share > config.timeout_min_ms);
    assert_eq!(timeout_ms(&state, config, task, None), 2 * share);
}
