//! What a name in salvage says: whose work it is, and why it is kept.

use crate::machine::State;
use crate::machine::attempt::Attempt;
use crate::machine::id::AttemptId;
use crate::machine::task::Task;

/// Why something is kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// What an attempt left.
    Left,
    /// Commits that an agent made beside its task's branch.
    Beside,
    /// What came into its worktree before it, while nobody worked there.
    ByHand,
    /// Another value that the same name had before.
    Earlier,
    /// What stood where a branch of ours belongs.
    Found,
    /// What a task's branch held before the task was begun anew.
    Anew,
    /// What a pilot had landed that was dropped.
    Pilot,
    /// What the task's branch held before a person gave another line.
    Replaced,
    /// A landing that never ended.
    Landing,
    /// A branch of an earlier pipeline.
    Before,
    /// The name does not say.
    Other,
}

/// Whose work it is.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Origin<'a> {
    pub kind: Kind,
    pub task: Option<&'a Task>,
    pub attempt: Option<&'a Attempt>,
}

impl<'a> Origin<'a> {
    /// Reads a name below `refs/pipeline/salvage/`.
    #[must_use]
    pub fn of(state: &'a State, name: &str) -> Self {
        if let Some(branch) = name.strip_prefix("init-") {
            let id = branch.strip_prefix("task-").unwrap_or(branch);
            let task = id.parse().ok().and_then(|id| state.tasks.get(&id));
            return Self { kind: Kind::Before, task, attempt: None };
        }
        let dots = name.match_indices('.').map(|(at, _)| at).rev();
        for end in std::iter::once(name.len()).chain(dots) {
            let (whose, rest) = name.split_at(end);
            if let Some((task, attempt)) = attempt_of(state, whose) {
                let kind = match rest {
                    "" => Kind::Left,
                    _ if rest.starts_with(".head") => Kind::Beside,
                    _ if rest.starts_with(".slot") => Kind::ByHand,
                    _ => kind_of(rest).unwrap_or(Kind::Earlier),
                };
                return Self { kind, task: Some(task), attempt: Some(attempt) };
            }
            // A branch that others made is named with its folder.
            let id = whose.strip_prefix("task-").filter(|_| rest.starts_with(".found-"));
            let task = [Some(whose), id].into_iter().flatten().find_map(|id| {
                let id = id.parse().ok()?;
                state.tasks.get(&id)
            });
            if let Some(task) = task {
                let kind = kind_of(rest).unwrap_or(Kind::Other);
                return Self { kind, task: Some(task), attempt: None };
            }
        }
        let kind = match name.rfind(".found-") {
            Some(_) => Kind::Found,
            None if name.starts_with("pilot-") => Kind::Pilot,
            None => Kind::Other,
        };
        Self { kind, task: None, attempt: None }
    }

    /// Looks at the commit too: what a task saved itself was nobody else's, wherever it was found.
    #[must_use]
    pub fn at(self, commit: &str) -> Self {
        let mut history = self.task.into_iter().flat_map(|task| &task.history);
        let is_own = |old: &Attempt| old.saved.as_ref().is_some_and(|it| it.as_str() == commit);
        let is_anew = self.kind == Kind::Found && history.any(is_own);
        Self { kind: if is_anew { Kind::Anew } else { self.kind }, ..self }
    }

    /// Says why it is kept.
    #[must_use]
    pub fn why(&self) -> String {
        match (self.kind, self.attempt) {
            (Kind::Left, Some(attempt)) => match &attempt.outcome {
                Some(outcome) if outcome.reason.is_empty() => {
                    format!("ended as {}", outcome.class.word())
                }
                Some(outcome) => outcome.reason.clone(),
                None => "its attempt is not over".into(),
            },
            (Kind::Left, None) | (Kind::Other, _) => "no branch of ours holds it".into(),
            (Kind::Beside, _) => "its agent's own commits, made beside the task's branch".into(),
            (Kind::ByHand, _) => "came into its worktree while nobody worked there".into(),
            (Kind::Earlier, _) => "an earlier state of the same".into(),
            (Kind::Found, _) => "found where a branch of ours belongs, which was put back".into(),
            (Kind::Anew, _) => {
                "what its branch held before it was begun anew: the pilot was dropped, or a retry \
                 --fresh"
                    .into()
            }
            (Kind::Pilot, _) => "what the pilot had landed: it was dropped".into(),
            (Kind::Replaced, _) => {
                "what its branch held before a person's commits took its place".into()
            }
            (Kind::Landing, _) => "its landing was never ended".into(),
            (Kind::Before, _) => "left by an earlier pipeline, kept by `init --force`".into(),
        }
    }
}

fn kind_of(rest: &str) -> Option<Kind> {
    if rest.starts_with(".found-") {
        Some(Kind::Found)
    } else if rest.starts_with(".before-") {
        Some(Kind::Replaced)
    } else if rest.starts_with(".pending-") {
        Some(Kind::Landing)
    } else {
        None
    }
}

/// Finds an attempt, live or over, by its id.
fn attempt_of<'a>(state: &'a State, id: &str) -> Option<(&'a Task, &'a Attempt)> {
    let mut parts = id.rsplitn(3, '.');
    let task = parts.nth(2)?.parse().ok()?;
    let task = state.tasks.get(&task)?;
    let id = AttemptId::new(id);
    let over = task.history.iter().find(|attempt| attempt.id == id);
    Some((task, over.or_else(|| state.attempts.get(&id))?))
}

#[cfg(test)]
mod tests {
    use super::{Kind, Origin};
    use crate::machine::attempt::Marker;
    use crate::machine::id::TaskId;
    use crate::observe::support::{End, Pipeline, settings, task};

    #[test]
    fn names_in_salvage_tell_whose_work_they_hold() {
        let mut pipeline = Pipeline::started(settings(), vec![task("A", &[])]);
        pipeline.run("A.arch.1", End::Says(Marker::Failed("no way".into())));
        for (name, kind, task, has_attempt) in [
            ("A.arch.1", Kind::Left, Some("A"), true),
            ("A.arch.1.head", Kind::Beside, Some("A"), true),
            ("A.arch.1.slot", Kind::ByHand, Some("A"), true),
            ("A.arch.1.0123456789ab", Kind::Earlier, Some("A"), true),
            ("A.arch.9", Kind::Other, Some("A"), false),
            ("A.found-0123456789ab", Kind::Found, Some("A"), false),
            ("task-A.found-0123456789ab", Kind::Found, Some("A"), false),
            ("landed.found-0123456789ab", Kind::Found, None, false),
            ("A.before-0123456789ab", Kind::Replaced, Some("A"), false),
            ("A.pending-0123456789ab", Kind::Landing, Some("A"), false),
            ("init-task-A", Kind::Before, Some("A"), false),
            ("pilot-0123456789ab", Kind::Pilot, None, false),
            ("init-landed", Kind::Before, None, false),
            ("what", Kind::Other, None, false),
        ] {
            let origin = Origin::of(&pipeline.state, name);
            assert_eq!(origin.kind, kind, "{name}");
            assert_eq!(origin.task.map(|task| task.id.as_str()), task, "{name}");
            assert_eq!(origin.attempt.is_some(), has_attempt, "{name}");
            assert!(!origin.why().is_empty());
        }
        assert!(Origin::of(&pipeline.state, "A.arch.1").why().contains("no way"));
        let saved = pipeline.state.tasks[&TaskId::new("A")].history[0].saved.clone();
        let saved = saved.expect("it left something");
        let found = Origin::of(&pipeline.state, "A.found-0123456789ab");
        assert_eq!(found.at(saved.as_str()).kind, Kind::Anew, "its own work");
        assert_eq!(found.at("0123456789ab").kind, Kind::Found, "somebody else's");
    }
}
