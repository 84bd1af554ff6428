//! The prompt: all that an agent is told, in one text of bounded size.
//!
//! Role, task, what others left, and how to say that it is done, in that order. Where all of it is too
//! long, sections are cut in the order of [`SECTIONS`]; what was cut is named in the prompt, with
//! where the whole stands. Role, title and the rules at the end are never cut.

use super::budget::{self, Section};
use super::passage::{self, Passage, TITLE_CHARS_MAX};
use super::task_file::{self, TaskFile};
use crate::machine::settings::ROLE_BYTES_MAX;

/// No prompt is longer, in bytes.
///
/// About 16,000 tokens: a small part of what the models take in, so that most is left for the code. As
/// an argument, which some programs want, Linux takes 128 KiB; on standard input 100 kB were seen to
/// arrive at all that read it.
pub const PROMPT_BYTES_MAX: usize = 64 << 10;

/// What a section is made by, and what it is never cut below, in bytes.
struct Rule {
    heading: &'static str,
    floor: usize,
    make: fn(&TaskFile, usize) -> Passage,
}

/// What may be cut, in the order in which it is cut: first what is looked up most easily.
///
/// The floors fit in what role, title and ending leave at their longest.
const SECTIONS: [Rule; 6] = [
    Rule {
        heading: task_file::BLOCKED,
        floor: 1 << 10,
        make: |file, bytes_max| task_file::blocked(&file.blocked, bytes_max),
    },
    Rule {
        heading: task_file::NOTES,
        floor: 8 << 10,
        make: |file, bytes_max| task_file::notes(&file.notes, bytes_max),
    },
    Rule {
        heading: task_file::FAILURES,
        floor: 6 << 10,
        make: |file, bytes_max| task_file::failures(&file.failures, bytes_max),
    },
    Rule { heading: task_file::MERGE, floor: 2 << 10, make: task_file::merge },
    Rule {
        heading: task_file::TASK,
        floor: 10 << 10,
        make: |file, bytes_max| passage::markdown(&file.body, bytes_max),
    },
    Rule { heading: task_file::PERSON, floor: 3 << 10, make: task_file::hint },
];

/// The order in which the sections stand, the most pressing last.
const ORDER: [&str; 6] = [
    task_file::TASK,
    task_file::NOTES,
    task_file::BLOCKED,
    task_file::FAILURES,
    task_file::MERGE,
    task_file::PERSON,
];

/// Checks named in a prompt; the rest is counted.
const CHECKS_MAX: usize = 6;
/// Longest check named, in characters.
const CHECK_CHARS_MAX: usize = 120;

/// What a prompt is made of, besides the role.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Context<'a> {
    /// The task and all that belongs to the attempt.
    pub file: &'a TaskFile,
    /// Where the agent finds its task file, as it would open it.
    pub path: &'a str,
    /// Long names of all stages of the task, in order.
    pub stages: &'a [&'a str],
    /// The branch that holds what has landed; `None` without git.
    pub landed: Option<&'a str>,
    /// Long name of the stage that CHANGES REQUESTED goes to; `None` where there is none.
    pub returns_to: Option<&'a str>,
    /// Commands that must pass in the worktree when it says that it is done.
    pub checks: &'a [String],
    /// Commands that must pass on the merged result before it lands.
    pub landing_checks: &'a [String],
    /// Saying done without having changed a file counts as a failure.
    pub must_change: bool,
}

/// A prompt, and what was left out of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Prompt {
    /// At most [`PROMPT_BYTES_MAX`] bytes.
    pub text: String,
    /// In the order in which sections are cut; empty when all is whole.
    pub cut: Vec<Cut>,
}

/// A section that is not whole.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Cut {
    /// Its heading.
    pub section: &'static str,
    /// Bytes left out.
    pub bytes: usize,
    /// A file or a command that has all of it.
    pub whole: String,
}

/// Returns the built-in role prompt of a stage, or the general one.
#[must_use]
pub fn built_in(stage: &str) -> &'static str {
    match stage {
        "architect" => include_str!("../../agents/architect.md"),
        "test" => include_str!("../../agents/test.md"),
        "implementation" => include_str!("../../agents/implementation.md"),
        "supervisor" => include_str!("../../agents/supervisor.md"),
        _ => include_str!("../../agents/general.md"),
    }
}

/// Returns the prompt for a role of at most [`ROLE_BYTES_MAX`] bytes.
#[must_use]
pub fn render(role: &str, context: &Context<'_>) -> Prompt {
    let file = context.file;
    let line = |text: &str| passage::single_line(text, TITLE_CHARS_MAX);
    let (task, title, stage) = (line(&file.task), line(&file.title), line(&file.stage));
    // Longer by what quotes it, and no more.
    let role = passage::markdown(role, 2 * ROLE_BYTES_MAX).text;
    let mut text = format!("{role}\n# {task}: {title}\n\nStage: {stage}.");
    if context.stages.len() > 1 {
        text.push_str(&format!(" All stages: {}.", line(&context.stages.join(", "))));
    }
    text.push('\n');
    if let Some(landed) = context.landed {
        text.push_str(&format!("What was done so far: `git diff {}...HEAD`\n", line(landed)));
    }
    if file.resumed.is_some() {
        section(&mut text, task_file::RESUMED, &task_file::resumed(file));
    }
    let ending = ending(context);
    let headings: usize = SECTIONS.iter().map(|rule| framed(rule.heading, "").len()).sum();
    let fixed = text.len() + headings + ending.len() + cut_bytes_max(context);
    let makes = SECTIONS.each_ref().map(|rule| move |bytes_max| (rule.make)(file, bytes_max));
    let sections: Vec<Section<'_>> = SECTIONS
        .iter()
        .zip(&makes)
        .map(|(rule, make)| Section { floor: rule.floor, make })
        .collect();
    let made = budget::fit(&sections, PROMPT_BYTES_MAX.saturating_sub(fixed));
    let made: Vec<(&'static str, Passage)> =
        SECTIONS.iter().map(|rule| rule.heading).zip(made).collect();
    for heading in ORDER {
        for (_, made) in made.iter().filter(|(of, made)| *of == heading && !made.text.is_empty()) {
            section(&mut text, heading, &made.text);
        }
    }
    let cut = made.iter().filter(|(_, made)| made.cut_bytes > 0);
    let cut: Vec<Cut> = cut
        .map(|(section, made)| Cut {
            section,
            bytes: made.cut_bytes,
            whole: whole(context, section),
        })
        .collect();
    text.push_str(&left_out(&cut));
    text.push_str(&ending);
    Prompt { text, cut }
}

fn framed(heading: &str, text: &str) -> String {
    format!("\n## {heading}\n\n{text}")
}

fn section(prompt: &mut String, heading: &str, text: &str) {
    prompt.push_str(&framed(heading, text));
}

/// Returns where the whole of a section stands: in the task file where that is not cut itself.
fn whole(context: &Context<'_>, section: &str) -> String {
    let file = context.file;
    let is_in_file = match section {
        task_file::TASK => passage::markdown(&file.body, task_file::BODY_BYTES_MAX).cut_bytes == 0,
        task_file::PERSON => task_file::hint(file, task_file::HINT_BYTES_MAX).cut_bytes == 0,
        // What is kept of them fits in.
        _ => true,
    };
    if is_in_file {
        passage::single_line(context.path, TITLE_CHARS_MAX)
    } else {
        format!("pipeline task show {}", passage::single_line(&file.task, TITLE_CHARS_MAX))
    }
}

fn left_out(cut: &[Cut]) -> String {
    if cut.is_empty() {
        return String::new();
    }
    let line =
        |cut: &Cut| format!("- {}: {} bytes; whole: `{}`\n", cut.section, cut.bytes, cut.whole);
    framed("Left out for length", &cut.iter().map(line).collect::<String>())
}

/// Returns how long the list of what was left out may get.
fn cut_bytes_max(context: &Context<'_>) -> usize {
    let long = |text: &str| passage::single_line(text, TITLE_CHARS_MAX);
    let whole = format!("pipeline task show {}{}", long(&context.file.task), long(context.path));
    let cut =
        SECTIONS.map(|rule| Cut { section: rule.heading, bytes: usize::MAX, whole: whole.clone() });
    left_out(&cut).len()
}

/// Returns how to finish, and what counts.
fn ending(context: &Context<'_>) -> String {
    let path = passage::single_line(context.path, TITLE_CHARS_MAX);
    let changes = context.returns_to.map(|stage| {
        let stage = passage::single_line(stage, TITLE_CHARS_MAX);
        let end = "`## Status: CHANGES REQUESTED: WHAT`";
        format!("- `pipeline request-changes \"WHAT\"` ({end}): {stage} must do more.\n")
    });
    let mut text = framed(
        "How to finish",
        &format!(
            "Work in the current folder only; you need not commit. Write what the next stage should \
             know below\n`## Notes` in `{path}`, and keep the lines at its top. That file is never \
             committed.\n\n\
             Then say how it ended with one of these commands. Where it cannot be run, put the line \
             in brackets\nin place of the last line of `{path}`.\n\n\
             - `pipeline done` (`## Status: COMPLETED ✅`): your stage is done.\n\
             - `pipeline block \"WHY\"` (`## Status: BLOCKED: WHY`): only a person can go on.\n\
             - `pipeline fail \"WHY\"` (`## Status: FAILED: WHY`): it did not work; it is tried \
             again.\n{}\n",
            changes.unwrap_or_default()
        ),
    );
    text.push_str("What counts is what is in the folder then, not what was said before. ");
    text.push_str("An end without one of these\ncounts as a failure");
    if context.must_change {
        text.push_str("; so does `pipeline done` without a changed file");
    }
    text.push_str(".\n");
    for (what, checks) in [
        ("After `pipeline done` these must pass here", context.checks),
        ("Before it lands, these must pass on the merged result", context.landing_checks),
    ] {
        if !checks.is_empty() {
            text.push_str(&format!("\n{what}:\n\n{}", listed(checks)));
        }
    }
    text.push_str("\nThen stop.\n");
    text
}

/// Returns commands as indented code, one a line.
fn listed(commands: &[String]) -> String {
    let line = |text: &String| format!("    {}\n", passage::single_line(text, CHECK_CHARS_MAX));
    let mut text: String = commands.iter().take(CHECKS_MAX).map(line).collect();
    let more = commands.len().saturating_sub(CHECKS_MAX);
    if more > 0 {
        text.push_str(&format!("\n… and {more} more.\n"));
    }
    text
}

#[cfg(test)]
mod tests {
    use super::{
        Context, ORDER, PROMPT_BYTES_MAX, Prompt, ROLE_BYTES_MAX, SECTIONS, built_in, render,
    };
    use crate::agent::passage::{self, TITLE_CHARS_MAX, WHOLE};
    use crate::agent::status_line;
    use crate::agent::task_file::{
        BlockedTask, Failure, Merge, NOTES, Note, Resumed, TaskFile, Work,
    };

    fn full(text: &str) -> TaskFile {
        let text = text.to_owned();
        let blocked =
            BlockedTask { task: "T-2".into(), stage: "test".into(), reason: text.clone() };
        TaskFile {
            task: "TASK-001".into(),
            title: text.clone(),
            stage: "supervisor".into(),
            attempt: "TASK-001.super.1".into(),
            nonce: "5f0c".into(),
            body: text.clone(),
            notes: vec![Note { stage: "test".into(), text: text.clone() }; 4],
            failures: vec![Failure { what: text.clone(), evidence: text.clone() }; 4],
            hint: Some(text.clone()),
            blocked: vec![blocked; 40],
            resumed: Some(Resumed { attempt: text.clone(), how: text.clone(), work: Work::Apart }),
            merge: Some(Merge { with: text.clone(), files: vec![text; 40] }),
        }
    }

    fn prompt(file: &TaskFile, role: &str) -> Prompt {
        let checks = vec![file.body.clone(); 9];
        let context = Context {
            file,
            path: "TASK-001.md",
            stages: &["test", "supervisor"],
            landed: Some("pipeline/landed"),
            returns_to: Some("test"),
            checks: &checks,
            landing_checks: &checks,
            must_change: true,
        };
        render(role, &context)
    }

    fn bare(file: &TaskFile) -> Context<'_> {
        Context {
            file,
            path: "TASK-A.md",
            stages: &["test"],
            landed: None,
            returns_to: None,
            checks: &[],
            landing_checks: &[],
            must_change: false,
        }
    }

    #[test]
    fn a_prompt_holds_every_part_in_order() {
        let mut file = full("words");
        file.notes.truncate(1);
        file.hint = Some("look at a.rs".into());
        let Prompt { text, cut } = prompt(&file, built_in("supervisor"));
        let parts = [
            "You are the supervisor.",
            "\n# TASK-001: words\n\nStage: supervisor. All stages: test, supervisor.\n",
            "`git diff pipeline/landed...HEAD`\n",
            "was cut short",
            "\n## The task\n\nwords\n",
            "### test\n\nwords\n",
            "- T-2 (test): words\n",
            "- words\n\n```\nwords\n```\n",
            "## Merge to finish",
            "\n## From a person\n\nlook at a.rs\n",
            "below\n`## Notes` in `TASK-001.md`",
            "`pipeline done`",
            "`pipeline request-changes \"WHAT\"`",
            "without a changed file",
            "must pass here:\n\n    words\n",
            "… and 3 more.\n",
            "merged result:\n\n    words\n",
            "\nThen stop.\n",
        ];
        let mut at = 0;
        for part in parts {
            at += text[at..].find(part).unwrap_or_else(|| panic!("{part} in {text}"));
        }
        assert_eq!(cut, []);
        assert!(!text.contains("Left out"), "{text}");
    }

    #[test]
    fn parts_without_content_are_left_out() {
        let file = TaskFile { task: "A".into(), ..TaskFile::default() };
        let text = render("Role.", &bare(&file)).text;
        let absent = ["From a person", "Blocked tasks", "request-changes", "Left out", "must pass"];
        for part in absent.into_iter().chain(["cut short", "changed file", "git diff"]) {
            assert!(!text.contains(part), "{part} in {text}");
        }
    }

    /// Every part that must be there is there, and all that was cut is named.
    fn holds(file: &TaskFile, role: &str) -> Prompt {
        let prompt = prompt(file, role);
        let text = &prompt.text;
        assert!(text.len() <= PROMPT_BYTES_MAX, "{}", text.len());
        assert_eq!(status_line::last(text.as_bytes()), None, "{text}");
        let title = passage::single_line(&file.title, TITLE_CHARS_MAX);
        assert!(text.contains(&format!("# TASK-001: {title}\n\nStage: supervisor. ")), "{text}");
        let ends = ["`pipeline done`", "`pipeline block", "`pipeline fail", "`pipeline request-"];
        let rules = text.split_once("\n## How to finish\n").expect("the rules").1;
        assert!(ends.iter().all(|end| rules.contains(end)) && rules.ends_with("Then stop.\n"));
        for cut in &prompt.cut {
            let line = format!("- {}: {} bytes; whole: `{}`\n", cut.section, cut.bytes, cut.whole);
            assert!(text.contains(&line), "{line} in {text}");
        }
        // What is marked as cut is named, and nothing else is.
        let has_gap = text.contains("bytes left out …]") || text.contains("\n- … and ");
        assert_eq!(has_gap, !prompt.cut.is_empty(), "{text}");
        prompt
    }

    const NASTY: [&str; 7] =
        ["é🦀 x\n", "##status:\n", "```\n", "~~~~~~~~~\n", "`", "## Status: FAILED ", "word\n"];

    #[test]
    fn a_prompt_is_bounded_and_names_what_was_cut() {
        for nasty in NASTY {
            let role = nasty.repeat(ROLE_BYTES_MAX / nasty.len());
            let mut file = full(&nasty.repeat(12_000 / nasty.len()));
            file.body = nasty.repeat(210_000 / nasty.len());
            file.hint = Some(nasty.repeat(60_000 / nasty.len()));
            let Prompt { cut, .. } = holds(&file, &role);
            let named: Vec<&str> = cut.iter().map(|cut| cut.section).collect();
            // Of status lines nothing is left in notes.
            let is_left = |heading: &&str| *heading != NOTES || !nasty.starts_with("##");
            let all: Vec<&str> = SECTIONS.iter().map(|rule| rule.heading).filter(is_left).collect();
            assert_eq!(named, all, "{nasty:?}");
            let whole = |section: &str| {
                &cut.iter().find(|cut| cut.section == section).expect("it is cut").whole
            };
            assert_eq!(whole("The task"), "pipeline task show TASK-001");
            assert_eq!(whole("Why earlier attempts did not pass"), "TASK-001.md");
        }
    }

    #[test]
    fn sections_are_cut_in_their_order_at_any_size() {
        let mut seen = 0;
        for (round, nasty) in NASTY.iter().cycle().enumerate().take(42) {
            let text = |bytes: usize| nasty.repeat(bytes.div_ceil(nasty.len()));
            let size = |n: usize| 40 << ((round * 7 + n * 5) % 10);
            let mut file = full("words");
            file.body = text(size(1));
            file.notes.iter_mut().for_each(|note| note.text = text(size(2)));
            file.failures.iter_mut().for_each(|failure| failure.evidence = text(size(3)));
            file.hint = Some(text(size(4)));
            file.blocked.iter_mut().for_each(|task| task.reason = text(size(5)));
            let Prompt { cut, .. } = holds(&file, built_in("supervisor"));
            let file = &file;
            // Whatever comes before one that was cut is at its floor.
            let places =
                SECTIONS.iter().map(|rule| cut.iter().any(|it| it.section == rule.heading));
            let last = places.enumerate().filter(|(_, is_cut)| *is_cut).map(|(at, _)| at).max();
            for rule in SECTIONS.iter().take(last.unwrap_or(0)) {
                let whole = (rule.make)(file, WHOLE).text.len();
                let is_cut = cut.iter().any(|it| it.section == rule.heading);
                assert_eq!(is_cut, whole > rule.floor, "{} {whole}", rule.heading);
            }
            seen += usize::from(last.is_some());
        }
        assert!(seen > 10, "{seen} were cut");
    }

    #[test]
    fn a_long_task_alone_has_all_the_room() {
        let mut file = full("");
        file.body = "word\n".repeat(11 << 10);
        file.blocked.clear();
        let text = holds(&file, built_in("supervisor")).text;
        assert!(text.contains(&file.body), "{} of {}", text.len(), file.body.len());
        file.body = "word\n".repeat(12 << 10);
        let Prompt { text, cut } = holds(&file, built_in("supervisor"));
        assert!(text.len() > PROMPT_BYTES_MAX - 2048, "{}", text.len());
        assert_eq!(cut.len(), 1);
        assert_eq!(cut[0].whole, "TASK-001.md");
    }

    #[test]
    fn every_section_has_its_place() {
        let mut order = ORDER.to_vec();
        let mut sections = SECTIONS.map(|rule| rule.heading).to_vec();
        order.sort_unstable();
        sections.sort_unstable();
        assert_eq!(order, sections);
    }

    #[test]
    fn every_default_stage_has_a_prompt_of_its_own_that_says_how_to_end() {
        let general = built_in("deploy");
        for stage in ["architect", "test", "implementation", "supervisor", "deploy"] {
            let text = built_in(stage);
            assert_eq!(text == general, stage == "deploy");
            assert!(text.len() < 2048, "{stage}: {}", text.len());
            assert!(
                text.contains("`pipeline done`") && text.contains("`pipeline block`"),
                "{stage}"
            );
        }
        assert!(built_in("implementation").contains("`pipeline fail`"));
        assert!(built_in("supervisor").contains("`pipeline request-changes`"));
    }
}
