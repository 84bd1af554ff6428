//! Completions as a person meets them: the script in a real bash, driven as readline drives it.

use crate::support::project::Project;

/// Completes a line in a new bash with the program's script; the words offered, sorted as they came.
/// The line is cut into words as readline cuts it: at blanks, and around `=`.
fn complete(project: &Project, line: &str) -> Vec<String> {
    let line = line.replace('=', " = ");
    let script = format!(
        "source <(pipeline completions bash)\n\
         words='{line}'\nread -r -a COMP_WORDS <<<\"$words\"\n\
         [[ $words == *' ' ]] && COMP_WORDS+=('')\n\
         COMP_CWORD=$((${{#COMP_WORDS[@]}} - 1))\n\
         compopt() {{ COMPREPLY+=(\"<$2>\"); }}\n\
         _pipeline\n\
         printf '%s\\n' \"${{COMPREPLY[@]}}\"\n"
    );
    let done = project.shell(&format!("bash --norc <<'END'\n{script}END\n"));
    assert_eq!((done.code, done.err.as_str()), (Some(0), ""), "{line}: {}", done.out);
    done.out.lines().filter(|word| !word.is_empty()).map(str::to_owned).collect()
}

fn project() -> Project {
    let project = Project::new(2);
    for (id, title) in [("TASK-001", "One"), ("TASK-002", "It's \"two\"; $(false)"), ("FIX", "3")] {
        project.ok(&["task", "add", title, "--id", id]);
    }
    project.ok(&["task", "add", "All", "--id", "EPIC", "--kind", "epic"]);
    project.ok(&["task", "hold", "TASK-002"]);
    project
}

#[test]
fn bash_is_offered_what_there_is_in_the_project() {
    let project = project();
    for (line, expected) in [
        ("pipeline task show TASK", &["TASK-001", "TASK-002"][..]),
        ("pipeline task show ", &["EPIC", "FIX", "TASK-001", "TASK-002"]),
        ("pipeline task hold TASK-001 T", &["TASK-002"]),
        ("pipeline task release ", &["TASK-002"]),
        ("pipeline task add x --parent ", &["EPIC"]),
        ("pipeline task add x --depends-on FIX,TASK-001,T", &["FIX,TASK-001,TASK-002"]),
        ("pipeline task log FIX --stage=im", &["implementation"]),
        ("pipeline task give FIX --stage l", &["landing"]),
        ("pipeline agent pause implementation", &["implementation-1", "implementation-2"]),
        ("pipeline agent scale i", &["implementation"]),
        ("pipeline mode switch ", &["sequential", "parallel", "hybrid"]),
        ("pipeline rollout set p", &["pilot", "production"]),
        ("pipeline sta", &["status"]),
        ("pipeline status --fail-on b", &["blocked"]),
        ("pipeline task retry --fr", &["--fresh"]),
        ("pipeline graph ", &["<default>"]),
        ("pipeline -C ", &["<dirnames>"]),
        ("pipeline task show NOBODY", &[]),
    ] {
        assert_eq!(complete(&project, line), expected, "{line}");
    }
    let root = project.root.to_str().expect("it is UTF-8");
    assert_eq!(complete(&project, &format!("pipeline -C {root} task show F")), ["FIX"]);
}

#[test]
fn salvage_is_offered_by_its_short_names() {
    let project = project();
    let commit = project.git(&["rev-parse", "HEAD"]);
    project.git(&["update-ref", "refs/pipeline/salvage/TASK-001.impl.1", &commit]);
    assert_eq!(complete(&project, "pipeline salvage show T"), ["TASK-001.impl.1"]);
}

#[test]
fn completion_never_fails_and_never_waits() {
    let project = project();
    // Somebody holds the lock; nobody could wait for it.
    let lock = std::fs::File::open(project.path(".git/pipeline/lock")).expect("the lock");
    fs2::FileExt::lock_exclusive(&lock).expect("it is free");
    assert_eq!(complete(&project, "pipeline task show F"), ["FIX"]);
    drop(lock);
    for (what, text) in [("state.json", "{"), ("state.json", ""), ("state.json", "[1]")] {
        project.write(&format!(".git/pipeline/{what}"), text);
        assert_eq!(complete(&project, "pipeline task show "), [""; 0]);
        assert_eq!(complete(&project, "pipeline sta"), ["status"]);
    }
    project.write("pipeline.toml", "broken");
    assert_eq!(complete(&project, "pipeline task log A --stage "), [""; 0]);
    let outside = project.dir();
    let done = project.command(&outside, &["__complete", "--", "task", "show", ""]).output();
    let done = done.expect("it runs");
    assert!(done.status.success() && done.stderr.is_empty() && done.stdout.is_empty(), "{done:?}");
}

#[test]
fn scripts_of_other_shells_ask_the_program_too() {
    let project = Project::bare();
    std::fs::create_dir(&project.root).expect("a folder");
    for shell in ["bash", "zsh", "fish"] {
        let script = project.ok(&["completions", shell]);
        assert!(script.contains("__complete --") && script.contains(":folders"), "{script}");
    }
    for shell in ["elvish", "powershell"] {
        assert!(project.ok(&["completions", shell]).contains("until-idle"));
    }
}
