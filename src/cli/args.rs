//! The command line: what clap parses, and what becomes of what it cannot.
//!
//! The doc comments here are the help texts. A command that is not built is not listed.

use std::ffi::OsString;
use std::path::PathBuf;
use std::time::Duration;

use clap::error::ErrorKind;
use clap::{ArgAction, CommandFactory, Parser, Subcommand, ValueEnum};

use super::console::Color;
use super::error::Error;
use super::schema::SchemaArg;
use super::task_args::TaskCommand;
use super::value;
use super::when::{self, When};
use super::word;

/// Take a backlog through architect, test, implementation and supervisor agents.
#[derive(Debug, Parser)]
#[command(name = "pipeline", version, arg_required_else_help = true)]
#[command(subcommand_required = true, max_term_width = 80)]
pub struct Args {
    #[command(flatten)]
    pub globals: Globals,
    #[command(subcommand)]
    pub command: Command,
}

/// What `doctor` is to do.
#[derive(Debug, clap::Args)]
pub struct DoctorArgs {
    /// Mend what can be mended; damaged originals are kept.
    #[arg(long)]
    pub repair: bool,
    /// Only say what --repair would do.
    #[arg(short = 'n', long, requires = "repair")]
    pub dry_run: bool,
    /// Run `setup` and the landing's checks on the base branch too, in a worktree of their own.
    #[arg(long)]
    pub checks: bool,
}

/// What every command takes.
#[derive(Debug, clap::Args)]
pub struct Globals {
    /// Run as if started in DIR.
    #[arg(short = 'C', value_name = "DIR", global = true, help_heading = "Global")]
    pub dir: Vec<PathBuf>,
    /// Print JSON: one value, or one object a line for streams.
    #[arg(long, global = true, help_heading = "Global")]
    pub json: bool,
    /// Say when to use colours.
    #[arg(long, value_enum, default_value = "auto", value_name = "WHEN", global = true)]
    #[arg(help_heading = "Global", hide_possible_values = false)]
    pub color: Color,
    /// Say more; twice: still more.
    #[arg(short, long, action = ArgAction::Count, global = true, help_heading = "Global")]
    pub verbose: u8,
    /// Say only what went wrong.
    #[arg(short, long, global = true, conflicts_with = "verbose", help_heading = "Global")]
    pub quiet: bool,
    /// Wait so long for another process that writes the state.
    #[arg(long, value_name = "DURATION", default_value = "10s", value_parser = when::duration)]
    #[arg(global = true, help_heading = "Global")]
    pub lock_timeout: Duration,
}

#[derive(Debug, Subcommand)]
#[expect(clippy::large_enum_variant, reason = "there is one, made once")]
pub enum Command {
    /// Set the pipeline up in this repository.
    Init(InitArgs),
    /// Show the whole way of four tasks in a scratch repository.
    Demo(DemoArgs),
    /// Take the pipeline out of this repository.
    Deinit(DeinitArgs),
    /// Add, see and steer tasks.
    #[command(subcommand)]
    Task(TaskCommand),
    /// Run the loop that starts agents and lands their work.
    #[command(visible_alias = "run")]
    Monitor(MonitorArgs),
    /// Start no new attempts; what runs goes on.
    Pause,
    /// Start attempts again.
    Resume,
    /// End the monitor; agents keep running unless said otherwise.
    Stop(StopArgs),
    /// Show or switch between sequential, parallel and hybrid.
    #[command(subcommand)]
    Mode(ModeCommand),
    /// Show or set how far the pipeline acts: shadow, pilot, production.
    #[command(subcommand)]
    Rollout(RolloutCommand),
    /// Say how things stand.
    Status(StatusArgs),
    /// Read the journal.
    Log(LogArgs),
    /// Tell what a run did: what landed, what is blocked and why, what it took.
    Report(ReportArgs),
    /// Show who would do what, and when, if all went as expected.
    Plan(PlanArgs),
    /// Show the dependencies of the project, or of a backlog file without importing it.
    Graph(GraphArgs),
    /// See and steer agents.
    #[command(subcommand)]
    Agent(AgentCommand),
    /// See, take and drop work that is on no branch of ours.
    #[command(subcommand)]
    Salvage(SalvageCommand),
    /// Say that the task of this worktree is done.
    Done,
    /// Say that the task of this worktree needs a person.
    #[command(visible_alias = "blocked")]
    Block(WhyArgs),
    /// Say that the task of this worktree did not work out.
    #[command(visible_alias = "failed")]
    Fail(WhyArgs),
    /// Say that the work in this worktree must be changed first.
    RequestChanges(WhatArgs),
    /// Look for damage and say what to do about it, or mend it.
    Doctor(DoctorArgs),
    /// Print the completions for a shell.
    Completions {
        /// Name the shell.
        shell: clap_complete::Shell,
    },
    /// Print the manual page; `pipeline man | man -l -` shows it.
    Man,
    /// Print the JSON Schema of what the program writes or reads.
    Schema {
        /// Name the document.
        what: SchemaArg,
    },
    /// Say what a command line could go on with.
    #[command(name = "__complete", hide = true)]
    Complete {
        #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
        words: Vec<OsString>,
    },
    /// Hold an agent's process.
    #[command(name = "__keeper", hide = true)]
    Keeper {
        #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
        args: Vec<OsString>,
    },
    /// Hold an agent's window.
    #[command(name = "__pane", hide = true)]
    Pane {
        #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
        args: Vec<OsString>,
    },
    /// Tell whether a lock is held.
    #[command(name = "__held", hide = true)]
    Held { path: PathBuf },
    /// Become a program on this terminal.
    #[command(name = "__exec", hide = true)]
    Exec {
        #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
        args: Vec<OsString>,
    },
}

#[derive(Debug, clap::Args)]
pub struct InitArgs {
    /// Start from and return to BRANCH instead of the one checked out.
    #[arg(long)]
    pub base: Option<String>,
    /// Write agents of these presets (claude, codex, …; by default those on the PATH), or of names of
    /// your own, for you to fill in their commands; `shell`: small scripts that work.
    #[arg(long, value_name = "NAME,…", value_delimiter = ',')]
    pub agents: Vec<String>,
    /// Say how agents are started.
    #[arg(long, value_enum)]
    pub launcher: Option<LauncherArg>,
    /// Go without git: agents run in the project folder, nothing is committed or landed.
    #[arg(long, value_enum)]
    pub isolation: Option<IsolationArg>,
    /// Set up anew over what an earlier pipeline left; its refs move to salvage.
    #[arg(long)]
    pub force: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum LauncherArg {
    Process,
    Tmux,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum IsolationArg {
    None,
}

#[derive(Debug, clap::Args)]
pub struct DemoArgs {
    /// Make the repository in DIR instead of a temporary folder.
    // An id of its own: `dir` is the global `-C`, and would be followed before the folder is made.
    #[arg(id = "demo_dir", value_name = "DIR")]
    pub dir: Option<PathBuf>,
}

#[derive(Debug, clap::Args)]
pub struct DeinitArgs {
    /// Only say what would be done.
    #[arg(short = 'n', long)]
    pub dry_run: bool,
    /// Leave the branches below `pipeline/`.
    #[arg(long)]
    pub keep_branches: bool,
    /// End what runs, and put work that has not landed into a file first.
    #[arg(long)]
    pub force: bool,
}

#[derive(Debug, clap::Args)]
pub struct MonitorArgs {
    /// Take one turn: observe, decide, do what is due, wait for no agent.
    #[arg(long, conflicts_with_all = ["until_idle", "until", "detach"])]
    pub once: bool,
    /// End when only a person can move anything further.
    #[arg(long)]
    pub until_idle: bool,
    /// Give up after so long, with exit code 1.
    #[arg(long, value_name = "DURATION", requires = "until_idle", value_parser = when::duration)]
    pub timeout: Option<Duration>,
    /// End at TIME: `8h`, `22:00`, RFC 3339.
    #[arg(long, value_name = "TIME", value_parser = when::when)]
    pub until: Option<When>,
    /// Go on in the background.
    #[arg(long)]
    pub detach: bool,
    /// Use no file events.
    #[arg(long)]
    pub poll_only: bool,
    /// Start agents although the checks fail on the base.
    #[arg(long)]
    pub allow_red_base: bool,
    /// Say how the log is written.
    #[arg(long, value_enum, default_value = "text")]
    pub log_format: LogFormat,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum LogFormat {
    Text,
    Json,
}

#[derive(Debug, clap::Args)]
pub struct StopArgs {
    /// Wait for running agents first.
    #[arg(long, conflicts_with = "now")]
    pub drain: bool,
    /// End running agents; their work is saved.
    #[arg(long)]
    pub now: bool,
}

#[derive(Debug, Subcommand)]
pub enum ModeCommand {
    /// Print the present mode.
    Show,
    /// Switch to another mode.
    Switch(SwitchArgs),
}

#[derive(Debug, clap::Args)]
pub struct SwitchArgs {
    /// Name the mode: sequential, parallel or hybrid.
    pub mode: String,
    /// Start nothing new and switch when the last agent is done, if that takes no longer.
    #[arg(long, value_name = "DURATION", conflicts_with = "force", value_parser = when::duration)]
    pub wait: Option<Duration>,
    /// Switch beside running agents.
    #[arg(long)]
    pub force: bool,
}

#[derive(Debug, Subcommand)]
pub enum RolloutCommand {
    /// Print how far the pipeline acts.
    Show,
    /// Print each gate before the next rollout; 1 when one does not hold.
    Check,
    /// Go on to the next rollout, if every gate holds.
    Promote(PromoteArgs),
    /// Go back to the rollout before.
    Demote,
    /// Set how far the pipeline acts.
    Set(RolloutArgs),
}

#[derive(Debug, clap::Args)]
pub struct PromoteArgs {
    /// Promote though gates do not hold; it is journalled.
    #[arg(long)]
    pub force: bool,
    /// Let the base follow to what the pilot landed, which is what happens without a flag too.
    #[arg(long, conflicts_with = "drop_pilot")]
    pub land_pilot: bool,
    /// Move what the pilot landed to salvage, and do its tasks anew.
    #[arg(long)]
    pub drop_pilot: bool,
}

#[derive(Debug, clap::Args)]
pub struct RolloutArgs {
    /// Name the rollout: shadow, pilot or production.
    pub rollout: String,
    /// Set it without being told which gates do not hold, also within the cooldown after a fallback.
    #[arg(long)]
    pub force: bool,
}

#[derive(Debug, clap::Args)]
pub struct StatusArgs {
    /// Go on and show how things change; with --fail-on until that is so.
    #[arg(long)]
    pub watch: bool,
    /// Exit with 1 when this is so; may be given several times.
    #[arg(long, value_enum, value_name = "WHAT")]
    pub fail_on: Vec<FailOn>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum FailOn {
    /// A task needs a person.
    Blocked,
    /// A ready task is not assigned to a free agent, or an agent is gone.
    Stalled,
    /// The doctor finds something.
    Unhealthy,
}

#[derive(Debug, clap::Args)]
pub struct LogArgs {
    /// Go on with what happens.
    #[arg(short, long)]
    pub follow: bool,
    /// Show what concerns the task ID only.
    #[arg(long, value_name = "ID", value_parser = value::id)]
    pub task: Option<crate::machine::id::TaskId>,
    /// Begin at WHEN: `8h`, `22:00`, `yesterday`, RFC 3339.
    #[arg(long, value_name = "WHEN", value_parser = when::when)]
    pub since: Option<When>,
}

#[derive(Debug, clap::Args)]
pub struct ReportArgs {
    /// Begin at WHEN instead of where the last run began: `8h`, `22:00`, `yesterday`, RFC 3339.
    #[arg(long, value_name = "WHEN", value_parser = when::when)]
    pub since: Option<When>,
    /// Write it in this format instead of Markdown.
    #[arg(long, value_enum)]
    pub format: Option<ReportFormat>,
    /// Write it to FILE instead of standard output.
    #[arg(short, long, value_name = "FILE")]
    pub output: Option<PathBuf>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum ReportFormat {
    Md,
    Html,
    Json,
}

#[derive(Debug, clap::Args)]
pub struct PlanArgs {
    /// Plan for N agents that can do everything, instead of those there are.
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=1000))]
    pub workers: Option<u32>,
}

#[derive(Debug, clap::Args)]
pub struct GraphArgs {
    /// Look at this backlog file instead of the project.
    pub file: Option<PathBuf>,
    /// Print it for Graphviz, cycles in red.
    #[arg(long, conflicts_with_all = ["mermaid", "json"])]
    pub dot: bool,
    /// Print it for Mermaid, cycles in red.
    #[arg(long, conflicts_with = "json")]
    pub mermaid: bool,
}

/// How many agents a group is to have.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AgentCount {
    /// What its settings say.
    Auto,
    /// So many.
    Exactly(u32),
}

fn parse_number(text: &str) -> Result<AgentCount, String> {
    match text {
        "auto" => Ok(AgentCount::Auto),
        number => number
            .parse()
            .map(AgentCount::Exactly)
            .map_err(|_| "expected a number or `auto`".into()),
    }
}

#[derive(Debug, Subcommand)]
pub enum AgentCommand {
    /// List the agents and what they do.
    List,
    /// Give the agent nothing new.
    Pause {
        /// Name the agent.
        name: String,
    },
    /// Give the agent work again.
    Resume {
        /// Name the agent.
        name: String,
    },
    /// Look at the agent's window and help it there; Ctrl-b d leaves it.
    Attach {
        /// Name the agent.
        name: String,
    },
    /// Give the agent one small task in a repository made for it, and say whether it works.
    Test(AgentTestArgs),
    /// Say how many agents a group has; those too many leave after their task.
    ///
    /// A group is an `[[agent]]` of pipeline.toml. The number stays until `count` or `scale` of that
    /// group change there, or until `auto` gives it back to them. With `scale` it lies within min and
    /// max. Give 0 to let all of a group go.
    Scale {
        /// Name the group.
        group: String,
        /// Give the number of agents, or `auto` for what pipeline.toml says.
        #[arg(value_name = "N|auto", value_parser = parse_number)]
        to: AgentCount,
    },
    /// Print what the agent wrote.
    Logs {
        /// Name the agent.
        name: String,
        /// Go on with what it writes.
        #[arg(short, long)]
        follow: bool,
    },
}

#[derive(Debug, clap::Args)]
pub struct AgentTestArgs {
    /// Name the agent, or its group.
    pub name: String,
    /// End it after so long.
    #[arg(long, value_name = "DURATION", default_value = "5m", value_parser = when::duration)]
    pub timeout: Duration,
}

#[derive(Debug, Subcommand)]
pub enum SalvageCommand {
    /// List what is kept, whose it is, how much, and why.
    List,
    /// Print what it changes: a line per file, then the patch.
    Show {
        /// Name it as `salvage list` does.
        #[arg(value_name = "REF")]
        name: String,
    },
    /// Make a worktree with it, on a branch of its own; prints its path.
    Restore {
        /// Name it as `salvage list` does.
        #[arg(value_name = "REF")]
        name: String,
        /// Make the worktree here instead of below `.pipeline/restored`.
        #[arg(id = "restore_dir", value_name = "DIR")]
        place: Option<PathBuf>,
    },
    /// Let it go; prints each REF with its commit, by which it can be taken back.
    Drop {
        /// Name them as `salvage list` does.
        #[arg(value_name = "REF", required = true)]
        names: Vec<String>,
    },
}

#[derive(Debug, clap::Args)]
pub struct WhyArgs {
    /// Say why.
    #[arg(value_name = "WHY", required = true)]
    pub why: Vec<String>,
}

#[derive(Debug, clap::Args)]
pub struct WhatArgs {
    /// Say what must change.
    #[arg(value_name = "WHAT", required = true)]
    pub what: Vec<String>,
}

/// Why there is no command to run.
#[derive(Debug)]
pub enum Early {
    /// Help or version was asked for: clap prints it, exit 0.
    Asked(clap::Error),
    /// The command line is wrong: clap's text for people, the error for scripts.
    Wrong(clap::Error, Error),
}

/// Parses the arguments, the first being the program's name.
///
/// # Errors
/// What is to be printed instead of running a command.
pub fn parse(args: &[OsString]) -> Result<Args, Early> {
    Args::try_parse_from(args).map_err(|error| match error.kind() {
        ErrorKind::DisplayHelp | ErrorKind::DisplayVersion => Early::Asked(error),
        _ => {
            let told = usage(&error);
            Early::Wrong(error, told)
        }
    })
}

/// Returns true when the arguments ask for JSON, even where they cannot be parsed.
#[must_use]
pub fn has_json(args: &[OsString]) -> bool {
    args.iter().take_while(|arg| *arg != "--").any(|arg| arg == "--json")
}

/// Returns the definition of the command line without what is hidden, for completions.
#[must_use]
pub fn definition() -> clap::Command {
    let full = Args::command();
    let shown = full.get_subcommands().filter(|sub| !sub.is_hide_set()).cloned();
    let bare = clap::Command::default().name("pipeline");
    bare.args(full.get_arguments().cloned()).subcommands(shown)
}

/// Puts what clap says into our form: its first paragraph, then the tips.
fn usage(error: &clap::Error) -> Error {
    let is_missing = matches!(
        error.kind(),
        ErrorKind::DisplayHelpOnMissingArgumentOrSubcommand | ErrorKind::MissingSubcommand
    );
    if is_missing {
        return Error::usage("no command given").hint("see `pipeline --help`");
    }
    let text = error.render().to_string();
    let mut lines = text.lines().map(str::trim);
    let first = lines.next().unwrap_or_default();
    let mut message = first.strip_prefix("error: ").unwrap_or(first).to_owned();
    for line in lines.by_ref().take_while(|line| !line.is_empty()) {
        message.push(' ');
        message.push_str(line);
    }
    let mut told = Error::usage(message);
    if let Some(hint) = word::hint(error) {
        // What looks alike to clap would only distract.
        return told.hint(hint).hint("see `pipeline --help`");
    }
    for tip in lines.filter_map(|line| line.strip_prefix("tip: ")) {
        told = told.hint(tip);
    }
    told.hint("see `pipeline --help`")
}

impl Early {
    /// Returns what people read of a wrong command line.
    #[must_use]
    pub fn text(error: &clap::Error, told: &Error) -> String {
        let text = error.render().to_string();
        // Clap's list of what is missing would name hidden commands.
        let is_ours = error.kind() == ErrorKind::MissingSubcommand || word::hint(error).is_some();
        if is_ours { told.text() } else { text }
    }
}

#[cfg(test)]
mod tests {
    use std::ffi::OsString;

    use clap::CommandFactory;

    use super::{Args, Command, Early, Error, definition, parse};

    fn words(line: &str) -> Vec<OsString> {
        std::iter::once("pipeline").chain(line.split_whitespace()).map(OsString::from).collect()
    }

    fn good(line: &str) -> Args {
        parse(&words(line)).unwrap_or_else(|error| panic!("{line}: {error:?}"))
    }

    fn bad(line: &str) -> (String, Error) {
        match parse(&words(line)) {
            Err(Early::Wrong(error, told)) => (Early::text(&error, &told), told),
            other => panic!("{line}: {other:?}"),
        }
    }

    #[test]
    fn definition_is_sound() {
        Args::command().debug_assert();
        definition().debug_assert();
    }

    #[test]
    fn every_command_that_is_due_parses() {
        for line in [
            "init --base main --agents a,b --launcher process --isolation none --force",
            "demo x",
            "task add Title --id A --body - --depends-on B --touches src/** --priority high",
            "task add T --kind epic --parent E --stages test,impl --label l --complexity simple",
            "task add T --needs gpu --resource cpu=2 --exclusive --estimate 5m --command x --front",
            "task add T --hold --body-file f",
            "task import f --format json -n --on-missing block --all",
            "task list --status blocked --stage impl --json",
            "task show A --json",
            "task edit A --add-depends-on B --remove-depends-on C --title t",
            "task edit A",
            "task hold A B",
            "task release A",
            "task retry A --stage impl --note - --fresh",
            "task retry --blocked",
            "task cancel A --dependents release",
            "task approve A",
            "task log A --stage impl --attempt 2 --failed -f",
            "task diff A --stat",
            "monitor --until-idle --timeout 5m --poll-only --allow-red-base --log-format json",
            "run --once",
            "monitor --until 22:00 --detach",
            "pause",
            "resume",
            "stop --drain",
            "stop --now",
            "mode switch sequential --wait 10m",
            "rollout show",
            "rollout set pilot --force",
            "status --json --fail-on blocked --fail-on stalled --fail-on unhealthy",
            "log -f --task A --since yesterday --json",
            "report --since 22:00 --format html -o night.html",
            "status --watch --fail-on stalled",
            "graph f --json",
            "plan --workers 4 --json",
            "graph --dot",
            "graph f --mermaid",
            "agent list",
            "agent pause a",
            "agent attach a",
            "agent scale a 3",
            "agent scale a auto",
            "agent logs a -f",
            "deinit",
            "deinit -n --keep-branches --force --json",
            "salvage list --json",
            "salvage show A.impl.1",
            "salvage restore A.impl.1 x",
            "salvage drop A.impl.1 B.test.2",
            "done",
            "blocked no key",
            "failed it broke",
            "request-changes the name",
            "doctor",
            "completions bash",
            "man",
            "schema state",
            "__complete -- --json task ''",
            "__keeper --any thing",
            "__exec /bin/sh sh -c --help",
            "__pane /run/s a",
            "-C a -C b --color never -vv --lock-timeout 1s status",
            "status -q",
        ] {
            good(line);
        }
    }

    #[test]
    fn hidden_commands_are_not_told() {
        let help = Args::command().render_long_help().to_string();
        assert!(!help.contains("keeper"), "{help}");
        let (text, told) = bad("--json");
        assert!(!text.contains("keeper") && !told.message.contains("keeper"), "{text}");
    }

    #[test]
    fn nothing_at_all_prints_help() {
        let (text, told) = bad("");
        assert!(text.contains("Usage: pipeline"), "{text}");
        assert_eq!(told.message, "no command given");
        assert_eq!(told.kind.exit().number(), 2);
    }

    #[test]
    fn words_in_the_wrong_place_are_answered_with_the_right_command() {
        let (text, told) = bad("mode pilot");
        assert_eq!(told.hints[0], "`pilot` is a rollout: pipeline rollout set pilot");
        assert!(text.contains(&told.hints[0]), "{text}");
        let (_, told) = bad("rollout sequential");
        assert_eq!(told.hints[0], "`sequential` is a mode: pipeline mode switch sequential");
        let (text, told) = bad("rollout show parallel");
        assert_eq!(told.hints[0], "`parallel` is a mode: pipeline mode switch parallel");
        assert!(text.contains(&told.hints[0]), "{text}");
        let (text, told) = bad("retry A");
        assert_eq!(told.hints[0], "did you mean `pipeline task retry`?");
        assert!(text.contains(&told.hints[0]) && !text.contains("report"), "{text}");
        let (_, told) = bad("agent list-all");
        assert!(!told.hints[0].starts_with("did you mean"), "{told:?}");
        let (_, told) = bad("list");
        assert_eq!(
            told.hints[0],
            "did you mean `pipeline task list`, `pipeline agent list` or `pipeline salvage list`?"
        );
        let (_, told) = bad("task status");
        assert_eq!(told.hints[0], "did you mean `pipeline status`?");
        let (_, told) = bad("task add fix pilot");
        assert_eq!(told.hints, ["see `pipeline --help`"], "a title without quotes");
    }

    #[test]
    fn usage_errors_name_the_value_and_what_is_expected() {
        let (text, told) = bad("log --since soon");
        assert!(text.starts_with("error: "), "{text}");
        assert!(
            told.message.contains("'soon'") && told.message.contains("`yesterday`"),
            "{told:?}"
        );
        let (_, told) = bad("task retry");
        assert!(told.message.contains("required"), "{told:?}");
        let (_, told) = bad("task retry A --blocked");
        assert!(told.message.contains("cannot be used with"), "{told:?}");
        let (_, told) = bad("statsu");
        assert!(told.hints[0].contains("'status'"), "{told:?}");
    }

    #[test]
    fn help_of_every_command_begins_with_an_imperative() {
        fn walk(command: &clap::Command) {
            let about = command.get_about().map(ToString::to_string).unwrap_or_default();
            let first = about.split_whitespace().next().unwrap_or_default();
            assert!(!first.is_empty(), "{} has no help", command.get_name());
            assert!(!first.ends_with('s') || first == "pass", "{about}");
            assert!(about.len() <= 90, "{about}");
            command.get_subcommands().filter(|sub| sub.get_name() != "help").for_each(walk);
        }
        walk(&Args::command());
    }

    #[test]
    fn why_may_go_without_quotes() {
        let Command::Block(args) = good("block no API key").command else { panic!("no block") };
        assert_eq!(args.why.join(" "), "no API key");
    }
}
