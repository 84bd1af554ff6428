//! The prompt: all that an agent is told, in one text of bounded size.
//!
//! Assembled from the role, the task and how to say that it is done. Each part has its own bound, so
//! that a huge test log cannot push out the task; what was cut is named at the end.

use super::passage::{self, Passage, TITLE_CHARS_MAX};
use super::task_file::{self, TaskFile};

/// No prompt is longer.
pub const PROMPT_BYTES_MAX: usize = 64 << 10;

// Together below the bound by 5 KiB, which the fixed text fits in.
const ROLE_BYTES_MAX: usize = 13 << 10;
const BODY_BYTES_MAX: usize = 18 << 10;
const NOTES_BYTES_MAX: usize = 10 << 10;
const EVIDENCE_BYTES_MAX: usize = 8 << 10;
const MERGE_BYTES_MAX: usize = 3 << 10;
const BLOCKED_BYTES_MAX: usize = 4 << 10;
const HINT_BYTES_MAX: usize = 3 << 10;

/// What a prompt is made of, besides the role.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Context<'a> {
    /// The task and all that belongs to the attempt.
    pub file: &'a TaskFile,
    /// Where the agent finds its task file, as it would open it.
    pub path: &'a str,
    /// What a person said with `task retry --note`.
    pub hint: Option<&'a str>,
    /// Long name of the stage that CHANGES REQUESTED goes to; `None` where there is none.
    pub returns_to: Option<&'a str>,
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

/// Returns the prompt, at most [`PROMPT_BYTES_MAX`] bytes.
#[must_use]
pub fn render(role: &str, context: &Context<'_>) -> String {
    let file = context.file;
    let line = |text: &str| passage::single_line(text, TITLE_CHARS_MAX);
    let merge = file.merge.as_ref().map(task_file::merge).unwrap_or_default();
    let sections = [
        ("", "role", passage::markdown(role, ROLE_BYTES_MAX)),
        ("The task", "task", passage::markdown(&file.body, BODY_BYTES_MAX)),
        ("Notes of earlier stages", "notes", task_file::notes(&file.notes, NOTES_BYTES_MAX)),
        (
            "Why earlier attempts did not pass",
            "evidence",
            task_file::failures(&file.failures, EVIDENCE_BYTES_MAX),
        ),
        ("Merge to finish", "merge", passage::markdown(&merge, MERGE_BYTES_MAX)),
        (
            "Blocked tasks",
            "blocked tasks",
            passage::markdown(&task_file::blocked(&file.blocked), BLOCKED_BYTES_MAX),
        ),
        (
            "From a person",
            "hint",
            passage::markdown(context.hint.unwrap_or_default(), HINT_BYTES_MAX),
        ),
    ];
    let mut text = String::new();
    let mut cut = Vec::new();
    for (heading, name, Passage { text: section, cut_bytes }) in &sections {
        if *cut_bytes > 0 {
            cut.push(*name);
        }
        if heading.is_empty() {
            let (task, title, stage) = (line(&file.task), line(&file.title), line(&file.stage));
            text.push_str(&format!("{section}\n# {task}: {title}\n\nStage: {stage}.\n"));
        } else if !section.is_empty() {
            text.push_str(&format!("\n## {heading}\n\n{section}"));
        }
    }
    text.push_str(&ending(context));
    if !cut.is_empty() {
        let cut = cut.join(", ");
        text.push_str(&format!("\nCut here for length: {cut}; the task file holds more.\n"));
    }
    text
}

/// Returns how to finish.
fn ending(context: &Context<'_>) -> String {
    let path = passage::single_line(context.path, TITLE_CHARS_MAX);
    let changes = context.returns_to.map(|stage| {
        let stage = passage::single_line(stage, TITLE_CHARS_MAX);
        let end = "`## Status: CHANGES REQUESTED: WHAT`";
        format!("- `pipeline request-changes \"WHAT\"` ({end}): {stage} must do more.\n")
    });
    format!(
        "\n## How to finish\n\n\
         Work in the current folder only; you need not commit. Write what the next stage should \
         know below\n`## Notes` in `{path}`, and keep the lines at its top. That file is never \
         committed.\n\n\
         Then say how it ended with one of these commands. Without the command, put the line in \
         brackets in\nplace of the last line of `{path}`.\n\n\
         - `pipeline done` (`## Status: COMPLETED ✅`): your stage is done.\n\
         - `pipeline block \"WHY\"` (`## Status: BLOCKED: WHY`): only a person can go on.\n\
         - `pipeline fail \"WHY\"` (`## Status: FAILED: WHY`): it did not work; it is tried again.\n\
         {}\n\
         Then stop.\n",
        changes.unwrap_or_default()
    )
}

#[cfg(test)]
mod tests {
    use super::{Context, PROMPT_BYTES_MAX, built_in, render};
    use crate::agent::status_line;
    use crate::agent::task_file::{BlockedTask, Failure, Merge, Note, TaskFile};

    fn full(text: &str) -> TaskFile {
        let text = text.to_owned();
        TaskFile {
            task: "TASK-001".into(),
            title: text.clone(),
            stage: "supervisor".into(),
            attempt: "TASK-001.super.1".into(),
            nonce: "5f0c".into(),
            body: text.clone(),
            notes: vec![Note { stage: "test".into(), text: text.clone() }; 4],
            failures: vec![Failure { what: text.clone(), evidence: text.clone() }; 4],
            blocked: vec![
                BlockedTask {
                    task: "T-2".into(),
                    stage: "test".into(),
                    reason: text.clone()
                };
                40
            ],
            merge: Some(Merge { with: text.clone(), files: vec![text; 40] }),
        }
    }

    fn prompt(file: &TaskFile, role: &str, hint: &str) -> String {
        let context =
            Context { file, path: "TASK-001.md", hint: Some(hint), returns_to: Some("test") };
        render(role, &context)
    }

    #[test]
    fn a_prompt_holds_every_part_in_order() {
        let mut file = full("words");
        file.notes.truncate(1);
        let text = prompt(&file, built_in("supervisor"), "look at a.rs");
        let parts = [
            "You are the supervisor.",
            "\n# TASK-001: words\n\nStage: supervisor.\n",
            "\n## The task\n\nwords\n",
            "### test\n\nwords\n",
            "- words\n\n```\nwords\n```\n",
            "## Merge to finish",
            "- T-2 (test): words\n",
            "\n## From a person\n\nlook at a.rs\n",
            "below\n`## Notes` in `TASK-001.md`",
            "`pipeline done`",
            "`pipeline request-changes \"WHAT\"`",
        ];
        let mut at = 0;
        for part in parts {
            at += text[at..].find(part).unwrap_or_else(|| panic!("{part} in {text}"));
        }
    }

    #[test]
    fn parts_without_content_are_left_out() {
        let file = TaskFile { task: "A".into(), ..TaskFile::default() };
        let context = Context { file: &file, path: "TASK-A.md", hint: None, returns_to: None };
        let text = render("Role.", &context);
        assert!(!text.contains("From a person") && !text.contains("Blocked tasks"), "{text}");
        assert!(!text.contains("request-changes") && !text.contains("Cut here"), "{text}");
    }

    #[test]
    fn a_prompt_is_bounded_and_names_what_was_cut() {
        for nasty in ["é🦀 x\n", "##status:\n", "```\n", "~~~~~~~~~\n", "`", "## Status: FAILED "]
        {
            let huge = nasty.repeat(100_000 / nasty.len());
            let text = prompt(&full(&huge), &huge, &huge);
            assert!(text.len() <= PROMPT_BYTES_MAX, "{nasty:?}: {}", text.len());
            assert!(text.contains("Cut here for length: role, task,"), "{nasty:?}");
            assert!(text.contains("\n## How to finish\n"));
            assert_eq!(status_line::last(text.as_bytes()), None, "{nasty:?}");
        }
    }

    #[test]
    fn every_default_stage_has_a_prompt_of_its_own() {
        let general = built_in("deploy");
        for stage in ["architect", "test", "implementation", "supervisor"] {
            assert_ne!(built_in(stage), general);
            assert!(built_in(stage).len() < 4096);
        }
    }
}
