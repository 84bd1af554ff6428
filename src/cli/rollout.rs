//! `pipeline rollout …`: how far the pipeline acts, and what stands before the next step.

use std::fmt::Write as _;

use serde_json::{Value, json};

use crate::machine::Command;
use crate::machine::event::PilotEnd;
use crate::machine::mode::Rollout;
use crate::machine::rollout::{Gate as Threshold, Trial, gates, next, short};
use crate::machine::time::Time;
use crate::machine::{Change, State, change::ProjectChange};
use crate::observe::page::{Ink, Page, broken};
use crate::observe::words::Stamp;
use crate::sys::clock::{Clock, SystemClock};

use super::args::{PromoteArgs, RolloutArgs, RolloutCommand};
use super::console::{Console, Format};
use super::error::Error;
use super::exit_code::Exit;
use super::gate::{self, Gate};
use super::value;
use super::views::page;
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
    // Before the last one there is none: nothing is left to be promoted to.
    let passed = next(state.rollout).is_none() || gates.iter().all(|gate| gate.holds);
    match console.format {
        Format::Json => console.json(&as_json(state, &gates, passed))?,
        Format::Text => {
            let text = as_text(state, &gates, passed, page(console));
            console.write(text.as_bytes())?;
        }
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
        "since": since(trial),
        "reason": (!trial.why.is_empty()).then_some(&trial.why),
        "next": next(state.rollout).map(value::rollout_word),
        "passed": passed,
        "gates": gates.collect::<Vec<_>>(),
        "fallback": {
            "landings": trial.landings.len(),
            "failed": trial.failed_landings(),
            "window": rules.window,
            "failure_rate": rules.failure_rate,
            "revert_rate": rules.revert_rate,
            "last": trial.fell_back_at.map(Stamp),
        },
    })
}

/// Returns when the rollout was set; `None`: by a program that did not note it.
fn since(trial: &Trial) -> Option<Stamp> {
    Some(Stamp(trial.since)).filter(|_| trial.since != Time::default())
}

/// Returns text in lines that fit behind `indent` columns, those after the first indented so.
fn hanging(text: &str, indent: usize, page: Page) -> String {
    let lines = broken(text, page.columns().saturating_sub(indent));
    lines.join(&format!("\n{:indent$}", ""))
}

fn as_text(state: &State, gates: &[Threshold], passed: bool, page: Page) -> String {
    let (trial, rules) = (&state.trial, &state.settings.rollout.fallback);
    let word = value::rollout_word(state.rollout);
    let mut text = since(trial).map_or_else(|| word.to_owned(), |at| format!("{word} since {at}"));
    if !trial.why.is_empty() {
        text.push_str(&format!("\n  {}", hanging(&trial.why, 2, page)));
    }
    text.push_str("\n\n  gate          figure  threshold\n");
    let cell = |figure: Option<f64>| figure.map_or_else(|| "-".to_owned(), short);
    for gate in gates {
        let bound = if gate.name.is_upper() { "<=" } else { ">=" };
        let (verdict, ink) = match (gate.is_asked, gate.holds) {
            (false, _) => (format!("not asked in {word}"), Ink::Faint),
            (true, true) => ("holds".to_owned(), Ink::Good),
            (true, false) => ("does not hold".to_owned(), Ink::Bad),
        };
        let what = if gate.what.is_empty() { String::new() } else { format!(": {}", gate.what) };
        let (name, figure) = (gate.name.word(), cell(gate.figure));
        let threshold = format!("{bound} {}", short(gate.threshold));
        let head = format!("  {name:<12}  {figure:>6}  {threshold:<9}  ");
        let told = hanging(&format!("{verdict}{what}"), head.len(), page);
        let told = told.replacen(&verdict, &page.paint(ink, &verdict), 1);
        // Writing to a string cannot fail.
        let _ = writeln!(text, "{head}{told}");
    }
    if state.rollout == Rollout::Production {
        let (failed, seen) = (trial.failed_landings(), trial.landings.len());
        let most = (rules.failure_rate * f64::from(rules.window)).floor();
        let _ = writeln!(
            text,
            "\n  falls back to pilot when the checks of more than {most} of {} landings fail;\n  \
             {failed} of the last {seen} did\n  revert_rate {}: nothing lands unchecked, so that nothing \
             is reverted",
            rules.window,
            short(rules.revert_rate)
        );
    }
    text.push('\n');
    text.push_str(&match (next(state.rollout), passed) {
        (Some(to), true) => {
            format!("every gate holds; to {}: pipeline rollout promote\n", value::rollout_word(to))
        }
        (Some(to), false) => format!("not yet for {}\n", value::rollout_word(to)),
        (None, _) => "production is the last rollout: no gate stands before another\n".to_owned(),
    });
    text
}

#[cfg(test)]
mod tests {
    use serde_json::Value;

    use super::{as_json, as_text};
    use crate::machine::mode::Rollout;
    use crate::machine::rollout::gates;
    use crate::machine::time::Time;
    use crate::observe::page::{Page, clean};
    use crate::observe::support::{Pipeline, settings};

    #[test]
    fn when_a_rollout_was_set_is_left_out_where_it_was_not_noted() {
        let mut state = Pipeline::new(settings()).state;
        assert!(as_text(&state, &[], true, Page::plain(80)).starts_with("production since 2026-"));
        state.trial.since = Time::default();
        assert_eq!(as_json(&state, &[], true)["since"], Value::Null);
        assert!(as_text(&state, &[], true, Page::plain(80)).starts_with("production\n"));
    }

    #[test]
    fn no_line_of_the_gates_is_wider_than_the_page() {
        let mut state = Pipeline::new(settings()).state;
        let why = "the checks of 1 of the last 1 landings failed, more than 0.3 of 3";
        state.trial.why = format!("fell back from production: {why}");
        state.trial.fell_back_at = Some(Time::from_ms(1));
        state.trial.completed = 123_456;
        for rollout in [Rollout::Shadow, Rollout::Pilot, Rollout::Production] {
            state.rollout = rollout;
            let text = as_text(&state, &gates(&state, Time::from_ms(2)), false, Page::plain(80));
            assert!(text.lines().all(|line| line.chars().count() <= 80), "{text}");
            assert!(text.contains("failed, more\n  than 0.3 of 3\n"), "{text}");
            assert!(text.contains("back\n"), "the whole of it is there: {text}");
            let colored = Page { has_color: true, width: 80 };
            let colored = as_text(&state, &gates(&state, Time::from_ms(2)), false, colored);
            let is_red = colored.contains("\x1b[31mdoes not hold\x1b[0m");
            assert_eq!(is_red, text.contains("does not hold"), "{colored}");
            assert_eq!(colored.lines().map(clean).collect::<Vec<_>>().join("\n"), text.trim_end());
        }
    }
}
