//! Which part of the program a process is, by what it executes.

use std::fs;
use std::path::Path;

/// Options of git that take the next argument.
const WITH_VALUE: [&str; 4] = ["-c", "-C", "--git-dir", "--work-tree"];

/// How the last argument ends of what finishes a fast-forward.
const INDEX: [&str; 2] = ["/.git/index", "/.git/index.lock"];

/// What a process that has just executed something is to us.
pub(super) enum Role {
    /// Its calls are points.
    Ours(String),
    /// tmux: what it does is not counted, and what it starts is followed.
    Terminal,
    /// It is let go.
    Foreign,
}

/// Returns the role of a process that has just executed something.
pub(super) fn of(id: i32, is_first: bool) -> Role {
    let line = fs::read(format!("/proc/{id}/cmdline")).unwrap_or_default();
    let text = String::from_utf8_lossy(&line);
    let args: Vec<&str> = text.split_terminator('\0').collect();
    let path = args.first().map(Path::new);
    let name = path.and_then(Path::file_name).unwrap_or_default().to_string_lossy();
    match name.as_ref() {
        "git" => Role::Ours(format!("git {}", subcommand(&args))),
        "pipeline" => Role::Ours(of_ours(&args)),
        "tmux" => Role::Terminal,
        "sh" if args.get(3) == Some(&"fast-forward") => Role::Ours("shell".into()),
        "mv" | "rm" if args.last().is_some_and(|it| INDEX.iter().any(|end| it.ends_with(end))) => {
            Role::Ours(name.into_owned())
        }
        name if is_first => Role::Ours(name.to_owned()),
        _ => Role::Foreign,
    }
}

fn of_ours(args: &[&str]) -> String {
    let behind = |word: &str, count: usize| {
        let place = args.iter().position(|arg| *arg == word)?;
        Some(*args.get(place + count).unwrap_or(&""))
    };
    match (behind("__keeper", 1), behind("__pane", 2)) {
        (Some(agent), _) => format!("keeper {agent}"),
        (None, Some(agent)) => format!("pane {agent}"),
        (None, None) if args.contains(&"monitor") => "monitor".into(),
        (None, None) => "command".into(),
    }
}

fn subcommand<'a>(args: &[&'a str]) -> &'a str {
    let mut rest = args.iter().skip(1);
    while let Some(arg) = rest.next() {
        if WITH_VALUE.contains(arg) {
            rest.next();
        } else if !arg.starts_with('-') {
            return arg;
        }
    }
    ""
}
