//! `pipeline rollout …`: how far the pipeline acts, and what stands before the next step.

use std::fmt::Write as _;

use serde_json::{Value, json};

use crate::machine::Command;
use crate::machine::event::PilotEnd;
use crate::machine::mode::Rollout;
use crate::machine::rollout::{Gate as Threshold, gates, next, short};
use crate::machine::time::Time;
use crate::machine::{Change, State, change::ProjectChange};
use crate::observe::words::Stamp;
use crate::sys::clock::{Clock, SystemClock};

use super::args::{PromoteArgs, RolloutArgs, RolloutCommand};
use super::console::{Console, Format};
use super::error::Error;
use super::exit_code::Exit;
use super::gate::{self, Gate};
use super::value;
use super::word::right_command;

/// `pipeline rollout …`.
///
/// # Errors
/// A word that is no rollout, what the machine refuses, and what the store reports.
pub fn run(
    gate: &mut dyn Gate,
    console: &mut Console<'_>,
    command: &RolloutCommand,
) -> Result<Exit, Error> {
    match command {
        RolloutCommand::Show => {
            let word = value::rollout_word(gate.state()?.0.rollout);
            console.data(&json!({ "mode": word }), word)?;
        }
        RolloutCommand::Check => {
            return check(gate.state()?.0, SystemClock::start().now(), console);
        }
        RolloutCommand::Promote(args) => send(gate, console, promotion(args))?,
        RolloutCommand::Demote => send(gate, console, Command::Demote)?,
        RolloutCommand::Set(args) => {
            let to = named(args)?;
            gate::send(gate, console, Command::SetRollout { to, is_forced: args.force })?;
        }
    }
    Ok(Exit::Done)
}

fn promotion(args: &PromoteArgs) -> Command {
    let pilot = match (args.land_pilot, args.drop_pilot) {
        (true, _) => Some(PilotEnd::Land),
        (false, true) => Some(PilotEnd::Drop),
        (false, false) => None,
    };
    Command::Promote { is_forced: args.force, pilot }
}

fn named(args: &RolloutArgs) -> Result<Rollout, Error> {
    let word = args.rollout.as_str();
    value::rollout(word).ok_or_else(|| match right_command(word) {
        Some(right) => Error::usage(right),
        None => Error::usage(format!("`{}` is no rollout", word.escape_debug()))
            .hint("the rollouts are shadow, pilot and production"),
    })
}

/// Sends a step and prints where it led.
fn send(gate: &mut dyn Gate, console: &mut Console<'_>, command: Command) -> Result<(), Error> {
    let sent = gate::send(gate, console, command)?;
    let to = sent.changes.iter().find_map(|change| match change {
        Change::Project(ProjectChange::RolloutSet { to }) => Some(*to),
        Change::Project(_) | Change::Task(..) | Change::Attempt(..) | Change::Lane(_) => None,
    });
    let word = value::rollout_word(to.unwrap_or(gate.state()?.0.rollout));
    console.data(&json!({ "mode": word }), word)
}

/// Prints each gate before the next rollout; fails when one does not hold.
fn check(state: &State, at: Time, console: &mut Console<'_>) -> Result<Exit, Error> {
    let gates = gates(state, at);
    let passed = gates.iter().all(|gate| gate.holds);
    match console.format {
        Format::Json => console.json(&as_json(state, &gates, passed))?,
        Format::Text => console.write(as_text(state, &gates, passed).as_bytes())?,
    }
    Ok(if passed { Exit::Done } else { Exit::Failed })
}

fn as_json(state: &State, gates: &[Threshold], passed: bool) -> Value {
    let (trial, rules) = (&state.trial, &state.settings.rollout.fallback);
    let gates = gates.iter().map(|gate| {
        json!({
            "gate": gate.name.word(),
            "figure": gate.figure,
            "threshold": gate.threshold,
            "asked": gate.is_asked,
            "holds": gate.holds,
            "what": gate.what,
        })
    });
    json!({
        "mode": value::rollout_word(state.rollout),
        "since": Stamp(trial.since),
        "reason": (!trial.why.is_empty()).then_some(&trial.why),
        "next": next(state.rollout).map(value::rollout_word),
        "passed": passed,
        "gates": gates.collect::<Vec<_>>(),
        "fallback": {
            "landings": trial.landings.len(),
            "failed": trial.failed_landings(),
            "window": rules.window,
            "failure_rate": rules.failure_rate,
            "last": trial.fell_back_at.map(Stamp),
        },
    })
}

fn as_text(state: &State, gates: &[Threshold], passed: bool) -> String {
    let (trial, rules) = (&state.trial, &state.settings.rollout.fallback);
    let word = value::rollout_word(state.rollout);
    let mut text = format!("{word} since {}", Stamp(trial.since));
    if !trial.why.is_empty() {
        text.push_str(&format!("\n  {}", trial.why));
    }
    text.push_str("\n\n  gate          figure  threshold\n");
    let cell = |figure: Option<f64>| figure.map_or_else(|| "-".to_owned(), short);
    for gate in gates {
        let bound = if gate.name.is_upper() { "<=" } else { ">=" };
        let verdict = match (gate.is_asked, gate.holds) {
            (false, _) => format!("not asked in {word}"),
            (true, true) => "holds".to_owned(),
            (true, false) => "does not hold".to_owned(),
        };
        let what = if gate.what.is_empty() { String::new() } else { format!(": {}", gate.what) };
        let (name, figure) = (gate.name.word(), cell(gate.figure));
        let threshold = format!("{bound} {}", short(gate.threshold));
        // Writing to a string cannot fail.
        let _ = writeln!(text, "  {name:<12}  {figure:>6}  {threshold:<9}  {verdict}{what}");
    }
    if state.rollout == Rollout::Production {
        let (failed, seen) = (trial.failed_landings(), trial.landings.len());
        let most = (rules.failure_rate * f64::from(rules.window)).floor();
        let _ = writeln!(
            text,
            "\n  falls back to pilot when the checks of more than {most} of {} landings fail;\n  \
             {failed} of the last {seen} did",
            rules.window
        );
    }
    text.push('\n');
    text.push_str(&match (next(state.rollout), passed) {
        (Some(to), true) => {
            format!("every gate holds; to {}: pipeline rollout promote\n", value::rollout_word(to))
        }
        (Some(to), false) => format!("not yet for {}\n", value::rollout_word(to)),
        (None, _) => "production is the last rollout\n".to_owned(),
    });
    text
}
