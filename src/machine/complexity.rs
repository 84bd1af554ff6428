//! How hard a task is: said by a person, or judged by what is known before anybody begins.

use super::task::Spec;

/// How hard a task is expected to be, in that order.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Complexity {
    Simple,
    Moderate,
    Complex,
}

impl Complexity {
    /// Returns the word used in settings, files and text.
    #[must_use]
    pub const fn word(self) -> &'static str {
        match self {
            Self::Simple => "simple",
            Self::Moderate => "moderate",
            Self::Complex => "complex",
        }
    }

    fn read(word: &str) -> Option<Self> {
        [Self::Simple, Self::Moderate, Self::Complex].into_iter().find(|found| found.word() == word)
    }
}

/// Bytes of the body, paths and dependencies: up to the first number the task counts as simple in
/// that respect (0), up to the second as moderate (1), beyond as complex (2).
const BODY: [usize; 2] = [500, 2000];
const PATHS: [usize; 2] = [2, 6];
const DEPENDENCIES: [usize; 2] = [2, 5];
/// Sum of the three from which a task is moderate, and from which it is complex.
const MODERATE: usize = 1;
const COMPLEX: usize = 3;

/// Returns how hard the task is: as given, else by the size of its body and the number of its paths
/// and dependencies. One that says nothing of what is to be done where counts as moderate.
#[must_use]
pub fn of(spec: &Spec) -> Complexity {
    given(spec).unwrap_or_else(|| assessed(spec))
}

/// Returns why [`of`] says what it says, in words.
#[must_use]
pub fn reason(spec: &Spec) -> String {
    if given(spec).is_some() {
        return "given".into();
    }
    let counted = |count: usize, one: &str, more: &str| {
        if count == 1 { format!("1 {one}") } else { format!("{count} {more}") }
    };
    let body = match spec.body.trim().len() {
        0 => "no body".to_owned(),
        bytes => format!("a body of {}", counted(bytes, "byte", "bytes")),
    };
    let paths = counted(spec.touches.len(), "path", "paths");
    let dependencies = counted(spec.depends_on.len(), "dependency", "dependencies");
    format!("assessed: {body}, {paths}, {dependencies}")
}

fn given(spec: &Spec) -> Option<Complexity> {
    spec.complexity.as_deref().and_then(Complexity::read)
}

fn assessed(spec: &Spec) -> Complexity {
    let degree = |count: usize, bounds: [usize; 2]| bounds.iter().filter(|n| count > **n).count();
    let body = spec.body.trim().len();
    let says_nothing = body == 0 && spec.touches.is_empty();
    let sum = degree(body, BODY)
        + degree(spec.touches.len(), PATHS)
        + degree(spec.depends_on.len(), DEPENDENCIES);
    match sum.max(if says_nothing { MODERATE } else { 0 }) {
        COMPLEX.. => Complexity::Complex,
        MODERATE.. => Complexity::Moderate,
        0 => Complexity::Simple,
    }
}

#[cfg(test)]
mod tests {
    use super::{Complexity, of, reason};
    use crate::machine::id::TaskId;
    use crate::machine::task::Spec;

    fn spec(body: usize, touches: usize, depends_on: usize) -> Spec {
        Spec {
            body: "b".repeat(body),
            touches: (0..touches).map(|n| format!("src/{n}.rs")).collect(),
            depends_on: (0..depends_on).map(|n| TaskId::new(format!("T-{n}"))).collect(),
            ..Spec::default()
        }
    }

    #[test]
    fn size_paths_and_dependencies_make_a_task_hard() {
        use Complexity::{Complex, Moderate, Simple};
        let cases = [
            ((0, 0, 0), Moderate, "assessed: no body, 0 paths, 0 dependencies"),
            ((0, 0, 9), Moderate, "assessed: no body, 0 paths, 9 dependencies"),
            ((0, 1, 0), Simple, "assessed: no body, 1 path, 0 dependencies"),
            ((500, 2, 2), Simple, "assessed: a body of 500 bytes, 2 paths, 2 dependencies"),
            ((501, 2, 2), Moderate, "assessed: a body of 501 bytes, 2 paths, 2 dependencies"),
            ((1, 3, 3), Moderate, "assessed: a body of 1 byte, 3 paths, 3 dependencies"),
            ((2001, 3, 1), Complex, "assessed: a body of 2001 bytes, 3 paths, 1 dependency"),
            ((1, 7, 6), Complex, "assessed: a body of 1 byte, 7 paths, 6 dependencies"),
        ];
        for ((body, touches, depends_on), complexity, why) in cases {
            let spec = spec(body, touches, depends_on);
            assert_eq!((of(&spec), reason(&spec).as_str()), (complexity, why));
        }
    }

    #[test]
    fn what_a_person_says_of_a_task_counts() {
        for word in ["simple", "moderate", "complex"] {
            let spec = Spec { complexity: Some(word.into()), ..spec(9999, 9, 9) };
            assert_eq!((of(&spec).word(), reason(&spec).as_str()), (word, "given"));
        }
    }
}
