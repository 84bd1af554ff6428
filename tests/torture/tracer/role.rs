//! Which part of the program a process is, by what it executes.

use std::fs;
use std::path::Path;

/// Options of git that take the next argument.
const WITH_VALUE: [&str; 4] = ["-c", "-C", "--git-dir", "--work-tree"];

/// Returns the role of a process that has just executed something; `None`: none of ours.
pub(super) fn of(id: i32, is_first: bool) -> Option<String> {
    let line = fs::read(format!("/proc/{id}/cmdline")).ok()?;
    let text = String::from_utf8_lossy(&line);
    let args: Vec<&str> = text.split_terminator('\0').collect();
    let name = Path::new(args.first()?).file_name()?.to_str()?;
    match name {
        "git" => Some(format!("git {}", subcommand(&args))),
        "pipeline" => Some(of_ours(&args)),
        _ if is_first => Some(name.to_owned()),
        _ => None,
    }
}

fn of_ours(args: &[&str]) -> String {
    match args.iter().position(|arg| *arg == "__keeper") {
        Some(place) => format!("keeper {}", args.get(place + 1).unwrap_or(&"")),
        None if args.contains(&"monitor") => "monitor".into(),
        None => "command".into(),
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
