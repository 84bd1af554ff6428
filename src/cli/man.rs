//! `pipeline man`: one manual page of all commands, made from the definition of the command line.

use std::io;

use clap::CommandFactory;
use clap_mangen::Man;

use super::args::Args;
use super::console::Console;
use super::error::Error;

/// What the page says besides the commands. Lines that begin with a point are requests to roff.
const BEHIND: &str = r"
.SH EXIT STATUS
.TP
\fB0\fR
Done.
.TP
\fB1\fR
The operation failed, or a gate did not pass.
.TP
\fB2\fR
Bad usage or bad input; nothing changed.
.TP
\fB3\fR
The state on disk is damaged; \fBpipeline doctor\fR says more.
.TP
\fB4\fR
Refused because something is in the way: another monitor, busy agents, checks that are red on the
base branch, a lock not had within \fB\-\-lock\-timeout\fR, a state written by a newer program.
.TP
\fB130\fR
Ended by Ctrl-C. SIGTERM ends with 0.
.PP
Errors go to standard error: what failed, on what, why, and what to do; with \fB\-\-json\fR as one
object. Standard output is data only.
.SH ENVIRONMENT
.TP
\fBNO_COLOR\fR, \fBCLICOLOR_FORCE\fR
No colours; colours where no terminal is. \fB\-\-color\fR goes before both.
.TP
\fBEDITOR\fR, \fBVISUAL\fR
What \fBpipeline task edit ID\fR opens.
.TP
\fBCI\fR
Set: a monitor that ends ends its agents too, unless \fBmonitor.on_exit\fR says otherwise.
.SH FILES
.TP
\fBpipeline.toml\fR
The settings, in the main checkout. \fBpipeline schema config\fR describes them.
.TP
\fB.git/pipeline/\fR
State, journal, logs; without git \fB.pipeline/state/\fR.
.TP
\fB.pipeline/worktrees/\fR
Where agents work.
.SH SEE ALSO
\fBgit\fR(1), \fBtmux\fR(1)
";

/// Prints the page.
///
/// # Errors
/// When standard output cannot be written.
pub fn run(console: &mut Console<'_>) -> Result<(), Error> {
    let page = page();
    let page =
        page.map_err(|error| Error::failed("cannot make the manual page").because(&error))?;
    console.write(page.as_bytes())
}

/// Returns the page in roff.
fn page() -> io::Result<String> {
    let mut command = Args::command().disable_help_subcommand(true);
    command.build();
    let name = command.get_name().to_owned();
    let version = command.get_version().unwrap_or_default().to_owned();
    let usage = usage(&command);
    let whole = Man::new(command.clone().override_usage(usage))
        .source(format!("{name} {version}"))
        .manual("Pipeline");
    let mut text = Vec::new();
    whole.render_title(&mut text)?;
    whole.render_name_section(&mut text)?;
    whole.render_synopsis_section(&mut text)?;
    whole.render_description_section(&mut text)?;
    whole.render_options_section(&mut text)?;
    let mut page = lines(&text).replace(".SH GLOBAL\n", ".SH GLOBAL OPTIONS\n");
    page.push_str(".SH COMMANDS\n");
    add_commands(&mut page, &command, &name)?;
    page.push_str(BEHIND.trim_start());
    Ok(page)
}

/// Returns the line of clap's own help, which names the values.
fn usage(command: &clap::Command) -> String {
    let usage = command.clone().render_usage().to_string();
    usage.trim_start_matches("Usage:").trim().to_owned()
}

/// Adds each command below `above` that is shown; one that only holds others stands with them.
fn add_commands(page: &mut String, above: &clap::Command, words: &str) -> io::Result<()> {
    for command in above.get_subcommands().filter(|command| !command.is_hide_set()) {
        let words = format!("{words} {}", command.get_name());
        if command.has_subcommands() {
            add_commands(page, command, &words)?;
            continue;
        }
        // What is global stands in the page once.
        let own = command.clone().mut_args(|arg| {
            let is_shared = arg.is_global_set() || arg.get_id() == "help";
            if is_shared { arg.hide(true) } else { arg }
        });
        let usage = usage(command);
        let (own, mut text) = (Man::new(own.override_usage(usage)), Vec::new());
        own.render_synopsis_section(&mut text)?;
        own.render_description_section(&mut text)?;
        own.render_options_section(&mut text)?;
        page.push_str(&format!(".SS {}\n", words.replace('-', "\\-")));
        for line in lines(&text).lines().filter(|line| !line.is_empty()) {
            match line {
                ".SH SYNOPSIS" | ".SH OPTIONS" => {}
                ".SH DESCRIPTION" => page.push_str(".PP\n"),
                line => {
                    page.push_str(line);
                    page.push('\n');
                }
            }
        }
        let aliases: Vec<&str> = command.get_visible_aliases().collect();
        if !aliases.is_empty() {
            page.push_str(&format!(".PP\nAlso: {words}, as {}.\n", aliases.join(", ")));
        }
    }
    Ok(())
}

/// Returns text of roff in ASCII, which every roff reads the same.
fn lines(text: &[u8]) -> String {
    let escape = |c: char| match c.is_ascii() {
        true => c.to_string(),
        false => format!("\\[u{:04X}]", u32::from(c)),
    };
    String::from_utf8_lossy(text).chars().map(escape).collect()
}

#[cfg(test)]
mod tests {
    use super::page;
    use crate::cli::args::Args;
    use clap::CommandFactory;

    /// Returns the words of every command that is shown and holds no others.
    fn leaves(above: &clap::Command, words: &str) -> Vec<String> {
        let shown = above.get_subcommands().filter(|command| !command.is_hide_set());
        let below = |command: &clap::Command| {
            let words = format!("{words} {}", command.get_name());
            if command.has_subcommands() { leaves(command, &words) } else { vec![words] }
        };
        shown.flat_map(below).collect()
    }

    #[test]
    fn the_page_has_every_command_and_option_once_and_nothing_that_is_hidden() {
        let page = page().expect("memory takes every byte");
        assert!(page.contains(".TH pipeline 1"), "{page}");
        let commands = leaves(&Args::command(), "pipeline");
        assert!(commands.len() > 40, "{commands:?}");
        for words in commands {
            let heading = format!(".SS {}\n", words.replace('-', "\\-"));
            assert_eq!(page.matches(&heading).count(), 1, "{heading}");
        }
        assert!(!page.contains("keeper") && !page.contains("__"), "{page}");
        assert_eq!(page.matches("\\-\\-lock\\-timeout\\fR ").count(), 1, "globals stand once");
        assert!(page.contains("\\-\\-on\\-missing"), "{page}");
        assert!(page.contains("\\fBpipeline task log\\fR [OPTIONS] <ID>\n"), "{page}");
        assert!(!page.contains("\\-C  ]"), "an option stands with its value");
        assert!(page.is_ascii(), "old roffs read bytes");
        assert_eq!(page.matches(".SH DESCRIPTION").count(), 1, "of the whole");
    }
}
