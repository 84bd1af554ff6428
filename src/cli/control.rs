//! Commands on the whole: pause, resume, stop, agents, modes.

use std::time::Duration;

use jiff::Timestamp;
use serde_json::json;

use crate::machine::event::StopKind;
use crate::machine::id::AgentName;
use crate::machine::mode::Orchestration;
use crate::machine::time::Time;
use crate::machine::{Command, State};
use crate::sys::clock;

use super::args::{AgentCount, ModeCommand, StopArgs, SwitchArgs};
use super::console::{Console, Format};
use super::error::Error;
use super::gate::{self, Gate};
use super::value;
use super::word::right_command;

/// How long the monitor may take to clear a drain that has run out.
const DRAIN_GRACE: Duration = Duration::from_secs(5);

/// Sends a command that has nothing to print.
///
/// # Errors
/// What the machine refuses, and what the store reports.
pub fn plain(
    gate: &mut dyn Gate,
    console: &mut Console<'_>,
    command: Command,
) -> Result<(), Error> {
    gate::send(gate, console, command).map(drop)
}

/// Lets an agent pause.
///
/// # Errors
/// As [`plain`].
pub fn pause_agent(
    gate: &mut dyn Gate,
    console: &mut Console<'_>,
    name: &str,
) -> Result<(), Error> {
    plain(gate, console, Command::PauseAgent { name: AgentName::new(name) })
}

/// Gives an agent work again.
///
/// # Errors
/// As [`plain`].
pub fn resume_agent(
    gate: &mut dyn Gate,
    console: &mut Console<'_>,
    name: &str,
) -> Result<(), Error> {
    plain(gate, console, Command::ResumeAgent { name: AgentName::new(name) })
}

/// Says how many agents a group has, and who leaves later.
///
/// # Errors
/// As [`plain`].
pub fn scale(
    gate: &mut dyn Gate,
    console: &mut Console<'_>,
    group: &str,
    to: AgentCount,
) -> Result<(), Error> {
    let count = match to {
        AgentCount::Auto => None,
        AgentCount::Exactly(count) => Some(count),
    };
    let sent = gate::send(gate, console, Command::ScaleAgents { group: group.into(), to: count })?;
    let state = gate.state()?.0;
    let Some(config) = state.settings.group(group) else { return Ok(()) };
    let target = state.target(config).count;
    let retiring: Vec<&str> = state
        .agents
        .values()
        .filter(|agent| agent.is_retired && config.number_of(agent.name.as_str()).is_some())
        .map(|agent| agent.name.as_str())
        .collect();
    if console.format == Format::Json {
        return console.json(&json!({ "group": group, "target": target, "retiring": retiring }));
    }
    if !sent.changes.is_empty() {
        let how = if to == AgentCount::Auto && config.scale_min.is_some() {
            "at first, then by queue length"
        } else {
            "from now on"
        };
        console.note(&format!("`{group}`: {target} {how}"));
        if !retiring.is_empty() {
            console.note(&format!("after their task leave: {}", retiring.join(", ")));
        }
    }
    Ok(())
}

/// Returns how the flags say that the monitor ends.
#[must_use]
pub const fn stop_kind(args: &StopArgs) -> StopKind {
    match (args.now, args.drain) {
        (true, _) => StopKind::Now,
        (false, true) => StopKind::Drain,
        (false, false) => StopKind::Leave,
    }
}

/// `pipeline mode …`.
///
/// # Errors
/// A word that is no mode, what the machine refuses, agents that are still busy when the time to
/// wait is over, and what the store reports.
pub fn mode(
    gate: &mut dyn Gate,
    console: &mut Console<'_>,
    command: &ModeCommand,
) -> Result<(), Error> {
    match command {
        ModeCommand::Show => show_mode(gate, console),
        ModeCommand::Switch(args) => switch(gate, console, args),
    }
}

fn show_mode(gate: &mut dyn Gate, console: &mut Console<'_>) -> Result<(), Error> {
    let (state, _) = gate.state()?;
    let word = value::orchestration_word(state.orchestration);
    let drain = state.drain.map(|drain| {
        let to = value::orchestration_word(drain.to);
        json!({ "to": to, "until": rfc3339(drain.until) })
    });
    let note = state.drain.map(|drain| {
        let to = value::orchestration_word(drain.to);
        format!("switches to {to} when the running agents are done")
    });
    console.data(&json!({ "orchestration_mode": word, "drain": drain }), word)?;
    if let Some(note) = note {
        console.note(&note);
    }
    Ok(())
}

fn rfc3339(at: Time) -> Option<String> {
    let at = Timestamp::from_millisecond(i64::try_from(at.as_ms()).ok()?).ok()?;
    Some(at.to_string())
}

fn switch(gate: &mut dyn Gate, console: &mut Console<'_>, args: &SwitchArgs) -> Result<(), Error> {
    let word = args.mode.as_str();
    let Some(to) = value::orchestration(word) else {
        return Err(match right_command(word) {
            Some(right) => Error::usage(right),
            None => Error::usage(format!("`{}` is no mode", word.escape_debug()))
                .hint("the modes are sequential, parallel and hybrid"),
        });
    };
    let wait_ms = args.wait.map(|wait| u64::try_from(wait.as_millis()).unwrap_or(u64::MAX));
    let command = Command::SwitchMode { to, wait_ms, is_forced: args.force };
    gate::send(gate, console, command)?;
    let Some(wait) = args.wait else { return Ok(()) };
    let begun = clock::monotonic();
    loop {
        let left = (wait + DRAIN_GRACE).saturating_sub(begun.elapsed());
        let (state, _) = gate.state()?;
        if state.orchestration == to {
            return Ok(());
        }
        let is_waiting = state.drain.is_some_and(|drain| drain.to == to);
        if !is_waiting || left.is_zero() {
            return Err(still(state, to, is_waiting));
        }
        gate.wait_change(left)?;
    }
}

/// Says why the mode was not switched.
fn still(state: &State, to: Orchestration, is_waiting: bool) -> Error {
    let to = value::orchestration_word(to);
    let error = Error::busy(format!("cannot switch to {to} mode in the time given"));
    let busy = state.attempts.values().find(|attempt| attempt.is_work());
    let error = match busy.and_then(|attempt| attempt.task.as_ref().zip(Some(&attempt.agent))) {
        Some((task, agent)) => error.because_of(format!("agent `{agent}` is working on `{task}`")),
        None => error.because_of("somebody else asked for another mode meanwhile"),
    };
    let hint = if is_waiting {
        "no monitor seems to run: `pipeline monitor` switches when the last agent is done"
    } else {
        "wait longer, or `--force` switches beside running agents"
    };
    error.hint(hint)
}

#[cfg(test)]
mod tests {
    use crate::cli::args::{Command, parse};
    use crate::cli::console::Format;
    use crate::cli::console::tests::captured;
    use crate::cli::gate::memory::Memory;
    use crate::machine::mode::{Orchestration, Rollout};
    use crate::machine::{EventBody, Observation};

    use super::stop_kind;

    /// Returns (exit code, output, error output).
    fn check(memory: &mut Memory, line: &str, format: Format) -> (u8, String, String) {
        let words = std::iter::once("pipeline").chain(line.split(' ')).map(Into::into);
        let command = parse(&words.collect::<Vec<_>>()).expect("good usage").command;
        let (done, out, err) = captured("", format, |console| {
            let done = match &command {
                Command::Mode(command) => super::mode(memory, console, command),
                Command::Rollout(command) => {
                    crate::cli::rollout::run(memory, console, command).map(drop)
                }
                Command::Stop(args) => {
                    let kind = stop_kind(args);
                    super::plain(memory, console, crate::machine::Command::Stop { kind })
                }
                Command::Pause => super::plain(memory, console, crate::machine::Command::Pause),
                Command::Agent(crate::cli::args::AgentCommand::Pause { name }) => {
                    super::pause_agent(memory, console, name)
                }
                Command::Agent(crate::cli::args::AgentCommand::Scale { group, to }) => {
                    super::scale(memory, console, group, *to)
                }
                other => panic!("{other:?}"),
            };
            done.inspect_err(|error| console.error(error))
        });
        (done.map_or_else(|error| error.kind.exit().number(), |()| 0), out, err)
    }

    fn busy() -> Memory {
        let mut memory = Memory::with(&["a"]);
        // The first turn sorts the waiting tasks, the second weighs them, the third assigns.
        for _ in 0..3 {
            memory.turn();
        }
        assert!(memory.state.has_work());
        memory
    }

    #[test]
    fn modes_are_shown_and_switched() {
        let mut memory = Memory::new();
        assert_eq!(check(&mut memory, "mode show", Format::Text).1, "parallel\n");
        assert_eq!(check(&mut memory, "mode switch sequential", Format::Text).0, 0);
        let json = "{\"drain\":null,\"orchestration_mode\":\"sequential\"}\n";
        assert_eq!(check(&mut memory, "mode show", Format::Json).1, json);
    }

    #[test]
    fn words_given_to_the_wrong_command_are_answered_with_the_right_one() {
        let mut memory = Memory::new();
        for (line, text) in [
            ("mode switch pilot", "error: `pilot` is a rollout: pipeline rollout set pilot\n"),
            (
                "rollout set parallel",
                "error: `parallel` is a mode: pipeline mode switch parallel\n",
            ),
            (
                "mode switch fast",
                "error: `fast` is no mode\n  hint: the modes are sequential, parallel and hybrid\n",
            ),
            (
                "rollout set all",
                "error: `all` is no rollout\n  \
                 hint: the rollouts are shadow, pilot and production\n",
            ),
        ] {
            assert_eq!(check(&mut memory, line, Format::Text), (2, String::new(), text.into()));
        }
        let (_, _, err) = check(&mut memory, "mode switch pilot", Format::Json);
        assert!(err.starts_with("{\"error\":{\"kind\":\"usage\""), "{err}");
    }

    #[test]
    fn busy_agents_are_named_and_force_passes_them() {
        let mut memory = busy();
        let (code, _, err) = check(&mut memory, "mode switch sequential", Format::Text);
        assert_eq!(code, 4);
        assert!(err.contains("agent `tester` is working on `a`"), "{err}");
        assert_eq!(check(&mut memory, "mode switch sequential --force", Format::Text).0, 0);
        assert_eq!(memory.state.orchestration, Orchestration::Sequential);
    }

    #[test]
    fn waiting_ends_when_the_last_attempt_does() {
        let mut memory = busy();
        memory.happenings.push_back(Box::new(|memory: &mut Memory| {
            let id = memory.state.attempts.keys().next().expect("one runs").clone();
            let lost = Observation::Lost { attempt: id, why: "gone".into() };
            memory.happen(EventBody::Observation(lost)).expect("observations are taken");
        }));
        memory.happenings.push_back(Box::new(Memory::turn));
        memory.happenings.push_back(Box::new(Memory::turn));
        let (code, _, err) = check(&mut memory, "mode switch sequential --wait 1h", Format::Text);
        assert_eq!((code, err.as_str()), (0, ""));
        assert_eq!(memory.state.orchestration, Orchestration::Sequential);
    }

    #[test]
    fn waiting_in_vain_is_busy() {
        let mut memory = busy();
        memory.happenings.push_back(Box::new(Memory::turn));
        memory.happenings.push_back(Box::new(Memory::turn));
        let (code, _, err) = check(&mut memory, "mode switch sequential --wait 1ms", Format::Text);
        assert_eq!(code, 4, "{err}");
        assert!(err.contains("cannot switch to sequential mode in the time given"), "{err}");
        assert!(err.contains("agent `tester` is working on `a`"), "{err}");
        assert_eq!(memory.state.drain, None);
    }

    #[test]
    fn groups_are_scaled_and_who_leaves_is_named() {
        let mut memory = busy();
        let said = "note: `tester`: 2 from now on\n";
        assert_eq!(check(&mut memory, "agent scale tester 2", Format::Text).2, said);
        let (code, _, err) = check(&mut memory, "agent scale tester 0", Format::Text);
        assert_eq!(code, 0);
        assert!(err.starts_with("note: no agent serves `test` now"), "{err}");
        assert!(err.ends_with("note: after their task leave: tester\n"), "{err}");
        let json = "{\"group\":\"tester\",\"retiring\":[],\"target\":1}\n";
        assert_eq!(check(&mut memory, "agent scale tester auto", Format::Json).1, json);
        let (code, _, err) = check(&mut memory, "agent scale tester-1 3", Format::Text);
        assert_eq!(code, 2);
        assert!(err.contains("there is no group of agents `tester-1`"), "{err}");
        let (code, _, err) = check(&mut memory, "agent scale tester-2 3", Format::Text);
        assert_eq!(code, 2);
        assert!(err.contains("hint: it is one agent; its group is `tester`"), "{err}");
    }

    #[test]
    fn rollouts_are_shown_and_set() {
        let mut memory = Memory::new();
        let told = check(&mut memory, "rollout check", Format::Text).1;
        assert!(told.contains("\n  revert_rate 0.2: nothing lands unchecked"), "{told}");
        let told = check(&mut memory, "rollout check", Format::Json).1;
        assert!(told.contains(r#""passed":true"#) && told.contains(r#""revert_rate":0.2"#));
        assert_eq!(check(&mut memory, "rollout set shadow", Format::Text).0, 0);
        assert_eq!(memory.state.rollout, Rollout::Shadow);
        assert_eq!(check(&mut memory, "rollout show", Format::Text).1, "shadow\n");
        assert_eq!(check(&mut memory, "rollout show", Format::Json).1, "{\"mode\":\"shadow\"}\n");
    }

    #[test]
    fn pausing_twice_is_noted_and_unknown_agents_are_refused() {
        let mut memory = Memory::new();
        assert_eq!(check(&mut memory, "pause", Format::Text).2, "");
        assert_eq!(check(&mut memory, "pause", Format::Text).2, "note: already paused\n");
        assert_eq!(check(&mut memory, "agent pause coder", Format::Text).0, 0);
        let (code, _, err) = check(&mut memory, "agent pause x", Format::Text);
        assert_eq!(code, 2);
        assert!(err.contains("there is no agent `x`"), "{err}");
        assert_eq!(check(&mut memory, "stop --drain", Format::Text).0, 0);
        assert_eq!(memory.state.stopping, Some(crate::machine::event::StopKind::Drain));
    }
}
