//! How an attempt ended: from exit status and status line to a class.

use super::attempt::{Class, EndedBy, Exit, FaultKind, Marker, Outcome};
use super::settings::Completion;

/// The signal that no process ends itself by.
const SIGKILL: i32 = 9;

/// Judges a work attempt by its exit and its marker; evidence and checks come after.
///
/// `is_stopping`: somebody asked for its end.
#[must_use]
pub fn of_work(exit: &Exit, completion: Completion, is_stopping: bool) -> Outcome {
    let (class, reason) = class_of(exit, completion, is_stopping);
    let is_wordless = reason.trim().is_empty() && class != Class::Completed;
    let reason = if is_wordless { format!("said {}, and not why", class.word()) } else { reason };
    Outcome { class, reason, at: exit.ended_at }
}

fn class_of(exit: &Exit, completion: Completion, is_stopping: bool) -> (Class, String) {
    let is_clean = exit.code == Some(0) || exit.ended_by == EndedBy::MarkerGrace;
    match exit.ended_by {
        EndedBy::SpawnFailed => return (Class::Unstartable, first_line(&exit.tail)),
        EndedBy::Timeout => {
            let late = (Class::TimedOut, "ran longer than its time limit".into());
            return of_fault(exit).unwrap_or(late);
        }
        EndedBy::Silence => {
            let silent = (Class::Silent, "wrote nothing for too long".into());
            return of_fault(exit).unwrap_or(silent);
        }
        EndedBy::Stop => {
            // Nobody asked: it stood still in its terminal since its provider refused it.
            let fault = if is_stopping { None } else { of_fault(exit) };
            return fault.unwrap_or((Class::Stopped, "ended on request".into()));
        }
        EndedBy::Exit if is_stopping && !is_clean => {
            return (Class::Stopped, "ended on request".into());
        }
        EndedBy::Exit | EndedBy::MarkerGrace => {}
    }
    match &exit.marker {
        Some(Marker::Blocked(why)) => (Class::Blocked, why.clone()),
        Some(Marker::Failed(why)) => (Class::Failed, why.clone()),
        Some(Marker::ChangesRequested(what)) => (Class::ChangesRequested, what.clone()),
        Some(Marker::Completed) if is_clean => (Class::Completed, String::new()),
        Some(Marker::Completed) => {
            let reason = format!("said completed but {}", ending(exit));
            of_fault(exit).unwrap_or((Class::Failed, reason))
        }
        None if exit.signal.is_some() => (Class::Crashed, ending(exit)),
        // Exit 0 proves nothing here: some programs end with it when their key was refused.
        None => of_fault(exit).unwrap_or_else(|| without_word(exit, completion, is_clean)),
    }
}

/// Judges an end without a status line and without a word of the provider.
fn without_word(exit: &Exit, completion: Completion, is_clean: bool) -> (Class, String) {
    match completion {
        Completion::Exit | Completion::Marker if !is_clean => (Class::Failed, ending(exit)),
        // Not one that took its word back when it was told to end.
        Completion::Exit if exit.ended_by == EndedBy::Exit => (Class::Completed, String::new()),
        Completion::Exit | Completion::Marker => {
            (Class::Incomplete, "exited without a status line in its task file".into())
        }
    }
}

/// Returns the class of what the program last said of its provider, with its own words.
pub(super) fn of_fault(exit: &Exit) -> Option<(Class, String)> {
    let fault = exit.fault.as_ref()?;
    let (class, what) = match fault.kind {
        FaultKind::RateLimited => (Class::RateLimited, "its provider's limit is reached"),
        FaultKind::Unauthorized => (Class::Unauthorized, "its provider refused it"),
        FaultKind::ContextExceeded => {
            let what = "it filled its model's context: work in smaller steps, and read only the \
                        parts of files that are needed";
            (Class::ContextExceeded, what)
        }
    };
    let said = fault.text.trim();
    let reason = match (class, said) {
        (_, "") => what.to_owned(),
        (Class::ContextExceeded, said) => format!("{what} ({said})"),
        (_, said) => said.to_owned(),
    };
    Some((class, reason))
}

/// Judges a check: every command must exit with 0.
#[must_use]
pub fn of_check(exit: &Exit, commands: &[String]) -> Outcome {
    let name = commands.get(exit.command_index as usize).map_or("check", String::as_str);
    let (class, reason) = match exit.ended_by {
        EndedBy::SpawnFailed => (Class::Unstartable, first_line(&exit.tail)),
        EndedBy::Timeout => (Class::ChecksFailed, format!("`{name}` ran longer than its limit")),
        EndedBy::Silence => (Class::ChecksFailed, format!("`{name}` wrote nothing for too long")),
        EndedBy::Stop => (Class::Stopped, "ended on request".into()),
        EndedBy::Exit | EndedBy::MarkerGrace if exit.code == Some(0) => {
            (Class::Completed, String::new())
        }
        // By a person, or for want of memory: that says nothing of what was checked.
        EndedBy::Exit | EndedBy::MarkerGrace if exit.signal == Some(SIGKILL) => {
            (Class::Lost, format!("`{name}` was killed"))
        }
        EndedBy::Exit | EndedBy::MarkerGrace => {
            (Class::ChecksFailed, format!("`{name}` {}", ending(exit)))
        }
    };
    Outcome { class, reason, at: exit.ended_at }
}

fn ending(exit: &Exit) -> String {
    match (exit.code, exit.signal) {
        (_, Some(signal)) => format!("ended by signal {signal}"),
        (Some(code), None) => format!("exited with status {code}"),
        (None, None) => "ended without a status".into(),
    }
}

fn first_line(text: &str) -> String {
    text.lines().next().unwrap_or("could not be started").to_owned()
}

#[cfg(test)]
mod tests {
    use super::{Class, Completion, EndedBy, Exit, FaultKind, Marker, of_check, of_work};
    use crate::machine::attempt::Fault;
    use crate::machine::time::Time;

    fn exit(code: Option<i32>, ended_by: EndedBy, marker: Option<Marker>) -> Exit {
        Exit {
            started_at: Time::from_ms(1),
            ended_at: Time::from_ms(2),
            code,
            signal: code.is_none().then_some(9),
            ended_by,
            command_index: 0,
            leaked: 0,
            cpu_ms: 0,
            rss_kib_max: 0,
            usage: crate::machine::usage::Usage::default(),
            marker,
            notes: String::new(),
            tail: String::new(),
            fault: None,
        }
    }

    #[test]
    fn a_check_that_somebody_killed_has_not_failed() {
        let class = |signal| {
            let exit = Exit { signal, ..exit(None, EndedBy::Exit, None) };
            of_check(&exit, &["make".into()]).class
        };
        assert_eq!(class(Some(9)), Class::Lost);
        assert_eq!(class(Some(11)), Class::ChecksFailed);
    }

    #[test]
    fn exit_and_marker_together_decide() {
        use Completion::{Exit as ByExit, Marker as ByMarker};
        use EndedBy::{Exit, MarkerGrace, Silence, SpawnFailed, Stop, Timeout};
        let done = || Some(Marker::Completed);
        let failed = || Some(Marker::Failed("no".into()));
        let asked = || Some(Marker::ChangesRequested("more".into()));
        let blocked = || Some(Marker::Blocked("who".into()));
        let cases = [
            (exit(Some(0), Exit, done()), ByMarker, Class::Completed),
            (exit(Some(0), Exit, None), ByMarker, Class::Incomplete),
            (exit(Some(0), Exit, None), ByExit, Class::Completed),
            (exit(Some(0), Exit, failed()), ByExit, Class::Failed),
            (exit(Some(1), Exit, done()), ByMarker, Class::Failed),
            (exit(Some(1), Exit, done()), ByExit, Class::Failed),
            (exit(Some(1), Exit, None), ByExit, Class::Failed),
            (exit(None, Exit, None), ByExit, Class::Crashed),
            (exit(None, MarkerGrace, done()), ByMarker, Class::Completed),
            (exit(Some(143), MarkerGrace, None), ByExit, Class::Incomplete),
            (exit(Some(0), MarkerGrace, None), ByExit, Class::Incomplete),
            (exit(Some(3), Exit, asked()), ByMarker, Class::ChangesRequested),
            (exit(Some(3), Exit, blocked()), ByMarker, Class::Blocked),
            (exit(None, Timeout, done()), ByMarker, Class::TimedOut),
            (exit(None, Silence, None), ByMarker, Class::Silent),
            (exit(None, Stop, done()), ByMarker, Class::Stopped),
            (exit(None, SpawnFailed, None), ByExit, Class::Unstartable),
        ];
        for (exit, completion, class) in cases {
            assert_eq!(of_work(&exit, completion, false).class, class, "{exit:?} {completion:?}");
        }
    }

    #[test]
    fn a_status_without_words_has_a_reason() {
        let reason = |marker| {
            let exit = exit(Some(0), EndedBy::Exit, Some(marker));
            of_work(&exit, Completion::Marker, false).reason
        };
        let said = reason(Marker::ChangesRequested(String::new()));
        assert_eq!(said, "said changes_requested, and not why");
        assert_eq!(reason(Marker::Blocked(" ".into())), "said blocked, and not why");
        assert_eq!(reason(Marker::Failed("no".into())), "no");
    }

    #[test]
    fn one_that_stood_still_is_judged_by_what_its_provider_said() {
        let fault = Fault { kind: FaultKind::RateLimited, text: "429".into(), until: None };
        let exit = Exit { fault: Some(fault), ..exit(None, EndedBy::Stop, None) };
        let class = |is_stopping| of_work(&exit, Completion::Marker, is_stopping).class;
        assert_eq!(class(false), Class::RateLimited);
        assert_eq!(class(true), Class::Stopped, "somebody asked for its end");
    }
}
