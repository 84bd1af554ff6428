//! The fallback from production that the rollout still stands at: nobody has set it since.

use serde::Serialize;

use super::words::Stamp;
use crate::machine::State;
use crate::machine::mode::Rollout;

/// What a reason that the machine gives begins with.
const HEAD: &str = "fell back from production: ";

/// When and why production fell back to the pilot by itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct FellBack<'a> {
    pub at: Stamp,
    pub why: &'a str,
    /// The command to type.
    pub next: &'static str,
}

/// Returns the fallback; `None`: a person has set the rollout that there is.
#[must_use]
pub fn fell_back(state: &State) -> Option<FellBack<'_>> {
    let trial = &state.trial;
    let is_here = |at: &_| state.rollout == Rollout::Pilot && *at == trial.since;
    let at = trial.fell_back_at.filter(is_here)?;
    let why = trial.why.strip_prefix(HEAD).unwrap_or(&trial.why);
    Some(FellBack { at: Stamp(at), why, next: "pipeline rollout check" })
}

#[cfg(test)]
mod tests {
    use super::fell_back;
    use crate::machine::Command;
    use crate::machine::mode::Rollout;
    use crate::observe::report::report;
    use crate::observe::status::{MonitorInfo, status};
    use crate::observe::support::{Pipeline, settings, task};
    use crate::observe::text::text;

    #[test]
    fn a_fallback_is_told_in_the_morning_until_a_person_sets_the_rollout() {
        let mut pipeline = Pipeline::started(settings(), vec![task("A", &[])]);
        assert_eq!(fell_back(&pipeline.state), None);
        let trial = &mut pipeline.state.trial;
        trial.fell_back_at = Some(pipeline.now);
        trial.since = pipeline.now;
        trial.why = "fell back from production: the checks of 5 of the last 9 failed".into();
        pipeline.state.rollout = Rollout::Pilot;
        let at = fell_back(&pipeline.state).expect("it fell back").at.to_string();
        let info = MonitorInfo { running: true, pid: Some(1), poll_interval_s: 1.0 };
        let document = status(&pipeline.state, 1, pipeline.now, info);
        let said = text(&document, false, 80);
        let line = format!("fell back from production at {}Z: pipeline rollout check\n", &at[..19]);
        assert!(said.contains(&line), "{said}");
        assert!(said.contains("\n  the checks of 5 of the last 9 failed\n"), "{said}");
        let json = serde_json::to_value(&document).expect("it has string keys");
        assert_eq!(json["fell_back"]["why"], "the checks of 5 of the last 9 failed");
        let told = report(&pipeline.state, pipeline.now, pipeline.now);
        assert_eq!(told.fell_back.map(|it| it.next), Some("pipeline rollout check"));
        let to = Rollout::Production;
        pipeline.pass(1000);
        pipeline.send(Command::SetRollout { to, is_forced: true });
        assert_eq!(fell_back(&pipeline.state), None);
    }
}
