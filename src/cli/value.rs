//! The small values on a command line and in backlogs: ids, globs, priorities, amounts, stages.

use crate::machine::id::{StageName, TaskId};
use crate::machine::mode::{Orchestration, Rollout};
use crate::machine::overlap;
use crate::machine::settings::Settings;
use crate::machine::task::Priority;

/// Reads a task id.
///
/// # Errors
/// What is wrong with it.
pub fn id(text: &str) -> Result<TaskId, String> {
    text.parse()
}

/// Reads a path glob, relative to the project's root.
///
/// # Errors
/// What is wrong with it; among other things that it leaves the project.
pub fn glob(text: &str) -> Result<String, String> {
    overlap::check(text).map_err(|why| format!("glob `{}` {why}", text.escape_debug()))?;
    Ok(text.to_owned())
}

/// Reads `low`, `medium`, `high` or `critical`.
///
/// # Errors
/// The words there are.
pub fn priority(text: &str) -> Result<Priority, String> {
    match text {
        "low" => Ok(Priority::Low),
        "medium" => Ok(Priority::Medium),
        "high" => Ok(Priority::High),
        "critical" => Ok(Priority::Critical),
        _ => Err("expected `low`, `medium`, `high` or `critical`".to_owned()),
    }
}

/// Reads a priority as other trackers write it: words in any case, `p0` (critical) to `p4`,
/// `0` to `4`.
///
/// # Errors
/// What is understood.
pub fn foreign_priority(text: &str) -> Result<Priority, String> {
    match text.trim().to_ascii_lowercase().as_str() {
        "critical" | "urgent" | "highest" | "p0" | "0" => Ok(Priority::Critical),
        "high" | "p1" | "1" => Ok(Priority::High),
        "medium" | "normal" | "p2" | "2" => Ok(Priority::Medium),
        "low" | "lowest" | "p3" | "3" | "p4" | "4" => Ok(Priority::Low),
        _ => Err("expected `critical`, `high`, `medium`, `low` or `p0` to `p4`".to_owned()),
    }
}

/// Reads `simple`, `moderate` or `complex`.
///
/// # Errors
/// The words there are.
pub fn complexity(text: &str) -> Result<String, String> {
    match text {
        "simple" | "moderate" | "complex" => Ok(text.to_owned()),
        _ => Err("expected `simple`, `moderate` or `complex`".to_owned()),
    }
}

/// Reads `K=V`.
///
/// # Errors
/// What was expected.
pub fn pair(text: &str) -> Result<(String, String), String> {
    let is_name = |c: char| c.is_ascii_alphanumeric() || "_-.".contains(c);
    match text.split_once('=') {
        Some((key, value))
            if !key.is_empty() && key.chars().all(is_name) && !value.trim().is_empty() =>
        {
            Ok((key.to_owned(), value.trim().to_owned()))
        }
        Some(_) | None => Err("expected NAME=AMOUNT, e.g. `memory=4GiB`".to_owned()),
    }
}

/// Finds a stage by its long or short name.
///
/// # Errors
/// The stages there are.
pub fn stage(settings: &Settings, text: &str) -> Result<StageName, String> {
    let found = settings.stage_by_any_name(text).map(|stage| stage.id());
    found.ok_or_else(|| {
        let known: Vec<&str> = settings.stages.iter().map(|stage| stage.name.as_str()).collect();
        format!("there is no stage `{}`; the stages are {}", text.escape_debug(), known.join(", "))
    })
}

/// Reads a word for how tasks are scheduled; `None` when it is none that is built.
#[must_use]
pub fn orchestration(text: &str) -> Option<Orchestration> {
    match text {
        "sequential" => Some(Orchestration::Sequential),
        "parallel" => Some(Orchestration::Parallel),
        "hybrid" => Some(Orchestration::Hybrid),
        _ => None,
    }
}

/// Returns the word for it.
#[must_use]
pub const fn orchestration_word(mode: Orchestration) -> &'static str {
    match mode {
        Orchestration::Sequential => "sequential",
        Orchestration::Parallel => "parallel",
        Orchestration::Hybrid => "hybrid",
    }
}

/// Reads a word for how far the pipeline acts; `None` when it is none.
#[must_use]
pub fn rollout(text: &str) -> Option<Rollout> {
    match text {
        "shadow" => Some(Rollout::Shadow),
        "pilot" => Some(Rollout::Pilot),
        "production" => Some(Rollout::Production),
        _ => None,
    }
}

/// Returns the word for it.
#[must_use]
pub const fn rollout_word(rollout: Rollout) -> &'static str {
    match rollout {
        Rollout::Shadow => "shadow",
        Rollout::Pilot => "pilot",
        Rollout::Production => "production",
    }
}

#[cfg(test)]
mod tests {
    use crate::machine::task::Priority;

    use super::{foreign_priority, glob, pair};

    #[test]
    fn globs_that_leave_the_project_are_refused() {
        for bad in ["", " ", "/etc/*", "../x", "a/../../b", "a[", "{a"] {
            assert!(glob(bad).is_err(), "{bad}");
        }
        for good in ["src/**", "*.rs", "a/{b,c}/**/d?", "a..b"] {
            assert_eq!(glob(good).as_deref(), Ok(good));
        }
    }

    #[test]
    fn foreign_priorities_are_understood() {
        for (text, priority) in [
            ("P0", Priority::Critical),
            ("Urgent", Priority::Critical),
            ("1", Priority::High),
            ("Medium", Priority::Medium),
            ("p4", Priority::Low),
        ] {
            assert_eq!(foreign_priority(text), Ok(priority), "{text}");
        }
        assert!(foreign_priority("soon").is_err());
    }

    #[test]
    fn amounts_have_a_name() {
        assert_eq!(pair("memory=4GiB"), Ok(("memory".into(), "4GiB".into())));
        for bad in ["memory", "=4", "a b=1", "cpu="] {
            assert!(pair(bad).is_err(), "{bad}");
        }
    }
}
