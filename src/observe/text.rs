//! The status for a person: first what landed, what needs them, what waits; then the details.

use std::borrow::Cow;
use std::collections::BTreeMap;

use super::agents::{AgentEntry, AgentStatus};
use super::blocked::Blocked;
use super::epics::EpicEntry;
use super::outside;
use super::page::{Cell, Ink, Page, clean, columns, cut, filled, first_line, table};
use super::providers::{ProviderEntry, ProviderStatus};
use super::purse::cost_words;
use super::status::StatusDocument;
use super::waiting::{On, Waiting};
use super::words::{amount, approval, landings, span};
use crate::machine::plan::Outlook;
use crate::machine::shell::shell_word;

/// Waiting tasks shown; the rest is counted.
pub const WAITING_SHOWN_MAX: usize = 20;
/// Open epics shown; the rest is counted.
pub const EPICS_SHOWN_MAX: usize = 20;
/// Agents shown; the rest is counted.
pub const AGENTS_SHOWN_MAX: usize = 50;
/// Columns left for a reason, however long the command beside it.
const REASON_COLUMNS_MIN: usize = 16;

/// Returns the status as text; every line ends in a line feed.
///
/// Lines are at most `width` columns, but for a command to type, which is never cut, and for the
/// first one, which scripts take by itself.
#[must_use]
pub fn text(status: &StatusDocument<'_>, color: bool, width: usize) -> String {
    let page = Page { has_color: color, width };
    let mut out = headline(status, page);
    out.push_str(&page.paint(Ink::Faint, &mode_line(status)));
    out.push('\n');
    if let Some(what) = status.shortage {
        let line = format!("nothing new starts: {}", first_line(what));
        out.push_str(&format!("{}\n", cut(&line, page.columns())));
    }
    for told in &status.run.told {
        out.push_str(&format!("{}\n", page.paint(Ink::Bad, &cut(told, page.columns()))));
    }
    out.push_str(&fallback_lines(status, page));
    out.push_str(&base_lines(status, page));
    out.push_str(&outside_lines(status, page));
    out.push_str(&person_lines(status, page));
    out.push_str(&epic_lines(status, page));
    out.push_str(&agent_lines(status, page));
    out.push_str(&waiting_lines(status, page));
    if status.blocked.iter().any(|entry| entry.is_root) {
        let more = "why: pipeline task log ID --failed; what it took: pipeline report";
        out.push_str(&format!("\n{}\n", page.paint(Ink::Faint, more)));
    }
    out
}

/// Returns the tasks that wait for `task approve`.
fn approvals<'a>(status: &'a StatusDocument<'_>) -> impl Iterator<Item = &'a Waiting<'a>> {
    status.waiting.iter().filter(|waiting| waiting.reason.on == On::Approval)
}

/// Returns the providers that refuse their agents, with what they say.
fn refusing<'a>(
    status: &'a StatusDocument<'_>,
) -> impl Iterator<Item = (&'a str, &'a ProviderEntry<'a>)> {
    let all = status.providers.iter().map(|(name, entry)| (*name, entry));
    all.filter(|(_, entry)| entry.status == ProviderStatus::Unauthorized)
}

fn headline(status: &StatusDocument<'_>, page: Page) -> String {
    let counts = &status.counts;
    if counts.total == 0 {
        return "no tasks yet: pipeline task add TITLE\n".into();
    }
    let done = if status.has_git { "landed" } else { "completed" };
    let roots = status.blocked.iter().filter(|blocked| blocked.is_root).count();
    let held_up = status.blocked.len() - roots;
    let approvals = approvals(status).count();
    let stuck = usize::from(status.stuck.is_some());
    let persons = roots + approvals + stuck + status.asked.len();
    let waits = status.waiting.len() - approvals - stuck + held_up;
    let in_work = counts.total - counts.completed - counts.cancelled - persons - waits;
    let landed = format!("{} of {} {done}{}", landed_count(status), counts.total, range(status));
    let mut parts = vec![page.paint(Ink::Good, &landed)];
    let by_hand = counts.completed - landed_count(status);
    if by_hand > 0 {
        parts.push(page.paint(Ink::Good, &format!("{by_hand} done by a person")));
    }
    if persons > 0 {
        let verb = if persons == 1 { "needs" } else { "need" };
        parts.push(page.paint(Ink::Bad, &format!("{persons} {verb} a person")));
    }
    let refusing = refusing(status).count();
    if refusing > 0 {
        let verb = if refusing == 1 { "provider needs" } else { "providers need" };
        parts.push(page.paint(Ink::Bad, &format!("{refusing} {verb} a person")));
    }
    if waits > 0 {
        parts.push(format!("{waits} {}", if waits == 1 { "waits" } else { "wait" }));
    }
    if in_work > 0 {
        parts.push(page.paint(Ink::Busy, &format!("{in_work} in work")));
    }
    if counts.cancelled > 0 {
        parts.push(format!("{} cancelled", counts.cancelled));
    }
    let (cost_usd, unknown) = (status.metrics.cost_usd, status.metrics.cost_unknown);
    let cost = cost_words(cost_usd, unknown);
    let tokens = status.metrics.tokens.map(|tokens| format!("{} tokens", amount(tokens)));
    // What is said of tokens, and of how many costs are not known, is left out where it does not fit.
    let plain: usize = parts.iter().map(|part| columns(&clean(part)) + 2).sum();
    let width = |more: &Option<String>| more.as_ref().map_or(0, |more| columns(more) + 2);
    if plain + width(&tokens) + width(&cost) <= page.columns() + 2 {
        parts.extend(tokens);
    }
    let brief = cost.as_ref().and_then(|cost| Some(cost.split_once(" (")?.0.to_owned()));
    let fits = plain + width(&cost) <= page.columns() + 2;
    parts.extend(brief.filter(|_| !fits).or(cost));
    parts.join(", ") + "\n"
}

/// Returns how many tasks landed, or without git are completed.
fn landed_count(status: &StatusDocument<'_>) -> usize {
    let by_hand = if status.has_git { status.done_by_hand } else { 0 };
    status.counts.completed - by_hand
}

/// Returns the commits of the last run, after a blank: all of what landed, or how many of them.
fn range(status: &StatusDocument<'_>) -> String {
    match &status.landings {
        Some(found) if found.count < landed_count(status) => {
            format!(" ({} in this run: {})", found.count, found.range)
        }
        Some(found) => format!(" ({})", found.range),
        None => String::new(),
    }
}

fn mode_line(status: &StatusDocument<'_>) -> String {
    let monitor = match (status.monitor.running, status.monitor.pid) {
        (true, Some(pid)) => format!("monitor {pid} runs"),
        (true, None) => "a monitor runs".into(),
        (false, _) => "no monitor runs: pipeline monitor".into(),
    };
    let paused = if status.paused { ", paused: pipeline resume" } else { "" };
    let end = match status.outlook {
        Outlook::Ends { in_ms } => format!(", about {} to go", span(in_ms)),
        Outlook::TooMuch => ", for the end see pipeline plan".into(),
        Outlook::Unknown => String::new(),
    };
    format!("{}, {}, {monitor}{paused}{end}", status.orchestration_mode, status.mode)
}

fn fallback_lines(status: &StatusDocument<'_>, page: Page) -> String {
    let Some(it) = &status.fell_back else { return String::new() };
    let at = it.at.to_string();
    // To the second.
    let what = format!("fell back from production at {}Z", at.split('.').next().unwrap_or(&at));
    let why = format!("  {}", first_line(it.why));
    with_command(page, 0, "", &what, it.next) + &cut(&why, page.columns()) + "\n"
}

fn base_lines(status: &StatusDocument<'_>, page: Page) -> String {
    let landing = &status.landing;
    let mut out = String::new();
    // That of a task stands where it is said what needs a person.
    if status.stuck.is_none()
        && let (Some(why), Some(next)) = (&landing.why, &landing.next)
    {
        out.push_str(&above_command(page, 0, "", why, next));
    }
    if landing.behind > 0 {
        let (base, branch) = (landing.base, landing.branch);
        out.push_str(&format!("{base} is {} behind {branch}\n", landings(landing.behind)));
    }
    out
}

/// Says what outside of the worktrees needs a look.
fn outside_lines(status: &StatusDocument<'_>, page: Page) -> String {
    let mut out = String::new();
    for (name, dir) in status.held {
        let name = format!("{} ", clean(outside::branch(name)));
        let command = format!("git -C {} switch --detach", shell_word(&clean(dir)));
        out.push_str(&with_command(page, 0, &name, "is checked out, left as it is", &command));
    }
    if status.is_put_back {
        let what = "branches were put back while no agent ran";
        out.push_str(&with_command(page, 0, "needs a look: ", what, "pipeline log"));
    }
    out + &changes_line(status, page)
}

fn changes_line(status: &StatusDocument<'_>, page: Page) -> String {
    let Some((attempt, count)) = status.outside else { return String::new() };
    let ran = match count {
        1 => format!("{} ran", attempt.id),
        count => format!("{count} attempts ran"),
    };
    let command = match &attempt.task {
        Some(task) => format!("pipeline task show {task}"),
        None => "pipeline log".into(),
    };
    with_command(page, 0, "needs a look: ", &format!("changes outside while {ran}"), &command)
}

/// Returns one line: name, reason cut to what is left, command whole.
fn with_command(page: Page, indent: usize, name: &str, reason: &str, command: &str) -> String {
    let taken = indent + columns(name) + columns(command) + 2;
    let room = page.columns().saturating_sub(taken).max(REASON_COLUMNS_MIN);
    let reason = first_line(reason);
    let (reason, command) = (cut(&reason, room), page.paint(Ink::Strong, command));
    format!("{:indent$}{name}{reason}: {command}\n", "")
}

/// As [`with_command`], but that neither is cut for the other: a command that does not fit stands
/// below.
fn above_command(page: Page, indent: usize, name: &str, reason: &str, command: &str) -> String {
    let reason = first_line(reason);
    let before = indent + columns(name);
    if before + columns(&reason) + columns(command) + 2 <= page.columns() {
        return with_command(page, indent, name, &reason, command);
    }
    let reason = cut(&reason, page.columns().saturating_sub(before + 1).max(REASON_COLUMNS_MIN));
    let command = page.paint(Ink::Strong, command);
    format!("{:indent$}{name}{reason}:\n{:indent$}  {command}\n", "", "")
}

fn person_lines(status: &StatusDocument<'_>, page: Page) -> String {
    let roots: Vec<&Blocked<'_>> = status.blocked.iter().filter(|entry| entry.is_root).collect();
    let waiting: Vec<&Waiting<'_>> = approvals(status).collect();
    let refusing: Vec<(&str, &ProviderEntry<'_>)> = refusing(status).collect();
    let is_none = roots.is_empty() && waiting.is_empty() && refusing.is_empty();
    if is_none && status.asked.is_empty() && status.stuck.is_none() {
        return String::new();
    }
    let ids = roots.iter().map(|entry| entry.id).chain(waiting.iter().map(|entry| entry.id));
    let ids = ids.chain(status.asked.iter().map(|asked| asked.id)).chain(status.stuck);
    let ids = ids.chain(refusing.iter().map(|(name, _)| *name));
    let wide = ids.map(columns).max().unwrap_or(0).min(page.columns() / 3);
    let mut out = section(page, "needs a person");
    for (provider, entry) in refusing {
        let name = format!("{provider:wide$}  ");
        out.push_str(&with_command(page, 2, &name, &first_line(entry.why), &entry.next));
    }
    for asked in &status.asked {
        let reason = format!("{} is yours, in the window of `{}`", asked.stage, asked.agent);
        let name = format!("{:wide$}  ", asked.id);
        out.push_str(&with_command(page, 2, &name, &reason, &asked.next));
    }
    if let (Some(id), Some(why), Some(next)) =
        (status.stuck, &status.landing.why, &status.landing.next)
    {
        let name = format!("{id:wide$}  ");
        out.push_str(&above_command(page, 2, &name, why, next));
    }
    for entry in roots {
        let stage = entry.place.map(|place| format!("{place}: ")).unwrap_or_default();
        let reason = match entry.reason.trim() {
            "" => format!("{stage}{}", entry.class),
            reason => format!("{stage}{}", first_line(reason)),
        };
        let name = format!("{:wide$}  ", entry.id);
        out.push_str(&with_command(page, 2, &name, &reason, &entry.next));
    }
    for entry in waiting {
        let reason = approval(&entry.reason.what);
        let next = format!("pipeline task approve {}", entry.id);
        let name = format!("{:wide$}  ", entry.id);
        out.push_str(&with_command(page, 2, &name, &reason, &next));
    }
    let held_up = status.blocked.iter().filter(|entry| !entry.is_root).count();
    if held_up > 0 {
        let what = if held_up == 1 { "task depends" } else { "tasks depend" };
        out.push_str(&format!("  {held_up} more {what} on these\n"));
    }
    out
}

fn section(page: Page, title: &str) -> String {
    format!("\n{}\n", page.paint(Ink::Strong, title))
}

fn epic_lines(status: &StatusDocument<'_>, page: Page) -> String {
    let open: Vec<&EpicEntry<'_>> = status.epics.iter().filter(|epic| epic.is_open()).collect();
    if open.is_empty() {
        return String::new();
    }
    let shown = open.iter().take(EPICS_SHOWN_MAX).map(|epic| {
        vec![Cell::new(epic.id), Cell::new(&epic.progress.words()), Cell::new(epic.title)]
    });
    let mut out = section(page, "epics") + &table(page, 2, &shown.collect::<Vec<_>>());
    let more = open.len().saturating_sub(EPICS_SHOWN_MAX);
    if more > 0 {
        out.push_str(&format!("  and {more} more\n"));
    }
    out
}

fn agent_lines(status: &StatusDocument<'_>, page: Page) -> String {
    if status.agents.is_empty() {
        return String::new();
    }
    let mut rows: Vec<Vec<Cell>> =
        status.agents.iter().take(AGENTS_SHOWN_MAX).map(|(name, entry)| row(name, entry)).collect();
    if status.agents.len() > AGENTS_SHOWN_MAX {
        let more = status.agents.len() - AGENTS_SHOWN_MAX;
        rows.push(vec![Cell::new(&format!("and {more} more"))]);
    }
    section(page, "agents") + &table(page, 2, &rows)
}

/// Returns an agent's line: name, status, what it is at.
pub fn row(name: &str, entry: &AgentEntry<'_>) -> Vec<Cell> {
    let ink = match entry.status {
        AgentStatus::Idle => Ink::Faint,
        AgentStatus::Working => Ink::Busy,
        AgentStatus::Paused | AgentStatus::Cooling | AgentStatus::Failed => Ink::Bad,
    };
    let mut at_it = match (entry.current_task, entry.stage, entry.at_it_ms) {
        (Some(task), Some(stage), Some(ms)) => format!("{task} {stage} for {}", span(ms)),
        (Some(task), _, _) => task.to_owned(),
        (None, _, _) => String::new(),
    };
    if let Some(left) = entry.left_ms {
        let gap = if at_it.is_empty() { "" } else { " " };
        at_it.push_str(&format!("{gap}for another {}", span(left)));
    }
    if let Some((provider, pause)) = entry.refused {
        let gap = if at_it.is_empty() { "" } else { "; " };
        at_it.push_str(&format!("{gap}{provider}: {}", first_line(&pause.why)));
    } else if let Some(why) = entry.why {
        let gap = if at_it.is_empty() { "" } else { "; " };
        at_it.push_str(&format!("{gap}cannot start: {}", first_line(why)));
    }
    if let Some(why) = entry.leaves {
        at_it.push_str(&format!(" ({why})"));
    }
    let last = if entry.leaves.is_some() { " (last)" } else { "" };
    let status = Cell::new(&format!("{}{last}", entry.status.word())).inked(ink);
    vec![Cell::new(name), status, Cell::new(&at_it)]
}

fn waiting_lines(status: &StatusDocument<'_>, page: Page) -> String {
    let is_told =
        |entry: &&Waiting<'_>| entry.reason.on == On::Approval || status.stuck == Some(entry.id);
    let waiting = || status.waiting.iter().filter(|entry| !is_told(entry));
    let count = waiting().count();
    if count == 0 {
        return String::new();
    }
    let shown = || waiting().take(WAITING_SHOWN_MAX);
    let widest = |width: fn(&Waiting<'_>) -> usize| {
        shown().map(width).max().unwrap_or(0).min(page.columns() / 3) + 2
    };
    let before = 2 + widest(|entry| columns(entry.id)) + widest(|it| columns(it.reason.on.word()));
    let rows: Vec<Vec<Cell>> = shown()
        .flat_map(|entry| {
            let reason = &entry.reason;
            let until = reason.until.map(|until| until.0.ms_since(status.now));
            let until = until.map(|ms| match ms {
                0 => " (over by now)".to_owned(),
                ms => format!(" (in {})", span(ms)),
            });
            let until = until.unwrap_or_default();
            let room = page.columns().saturating_sub(before);
            // When it ends is not cut with the reason.
            let what = match reason.what.contains(": pipeline ") {
                true => Cow::Borrowed(reason.what.as_str()),
                false => cut(&reason.what, room.saturating_sub(columns(&until))),
            };
            let heads = [Cell::new(entry.id), Cell::new(reason.on.word()).inked(Ink::Faint)];
            row_with_command(heads, &format!("{what}{until}"), room)
        })
        .collect();
    let mut out = section(page, "waiting") + &table(page, 2, &rows);
    let mut rest: BTreeMap<On, usize> = BTreeMap::new();
    for entry in waiting().skip(WAITING_SHOWN_MAX) {
        *rest.entry(entry.reason.on).or_default() += 1;
    }
    if count > WAITING_SHOWN_MAX {
        let kinds: Vec<String> = rest.iter().map(|(on, n)| format!("{n} {}", on.word())).collect();
        out.push_str(&format!("  and {} more: {}\n", count - WAITING_SHOWN_MAX, kinds.join(", ")));
    }
    out
}

/// Returns a row; a command to type that would be cut with the text stands below it, whole.
fn row_with_command(heads: [Cell; 2], what: &str, room: usize) -> Vec<Vec<Cell>> {
    let start = what.find(": pipeline ").filter(|_| columns(what) > room);
    let (why, command) = start.map_or((what, ""), |at| what.split_at(at + 1));
    let mut rows = vec![heads.into_iter().chain([Cell::new(why)]).collect()];
    let words: Vec<&str> = command.split_whitespace().collect();
    let lines = filled(&words, " ", room).into_iter();
    rows.extend(lines.map(|line| vec![Cell::new(""), Cell::new(""), Cell::new(&line)]));
    rows
}

#[cfg(test)]
mod tests {
    use super::text;
    use crate::machine::attempt::Marker;
    use crate::machine::event::NewTask;
    use crate::machine::id::TaskId;
    use crate::machine::settings::{AgentCommand, LauncherKind};
    use crate::machine::task::TaskKind;
    use crate::machine::{Command, Observation};
    use crate::observe::status::{MonitorInfo, status};
    use crate::observe::support::{End, Pipeline, oid, settings, task};

    fn of(pipeline: &Pipeline, color: bool, width: usize) -> String {
        let monitor = MonitorInfo { running: true, pid: Some(4711), poll_interval_s: 15.0 };
        text(&status(&pipeline.state, pipeline.seq, pipeline.now, monitor), color, width)
    }

    #[test]
    fn a_command_to_type_is_never_cut() {
        let long = "TASK-WITH-A-LONG-NAME-001-OF-MANY";
        let mut held = [task(long, &[]), task("B", &[])];
        held.iter_mut().for_each(|task| task.is_held = true);
        let pipeline = Pipeline::started(settings(), held.to_vec());
        let text = of(&pipeline, false, 80);
        let indent = " ".repeat(36);
        let folded =
            format!("  hold  held by a person:\n{indent}pipeline task release\n{indent}{long}\n");
        assert!(text.contains(&folded), "{text}");
        assert!(text.contains("  hold  held by a person: pipeline task release B\n"), "{text}");
        let narrow = of(&pipeline, false, 60);
        let folded =
            format!("  hold  held by a person:\n{}pipeline task release B\n", " ".repeat(30));
        assert!(narrow.contains(&folded), "{narrow}");
        assert!(text.lines().all(|line| line.chars().count() <= 80), "{text}");
    }

    #[test]
    fn a_person_who_has_a_task_in_a_window_is_asked_with_the_command_to_type() {
        let mut settings = settings();
        settings.agents[0].name = "me".into();
        settings.agents[0].command = AgentCommand::Person;
        settings.agents[0].launcher = LauncherKind::Tmux;
        let mut pipeline = Pipeline::started(settings, vec![task("A", &[])]);
        let text = of(&pipeline, false, 80);
        assert!(text.starts_with("0 of 1 landed, 1 in work\n"), "it has no window yet: {text}");
        pipeline.start("A.arch.1");
        let text = of(&pipeline, false, 80);
        assert!(text.starts_with("0 of 1 landed, 1 needs a person\n"), "{text}");
        let asked = "\nneeds a person\n  A  architect is yours, in the window of `me`: pipeline agent attach me\n";
        assert!(text.contains(asked), "{text}");
        pipeline.run("A.arch.1", End::Done);
        let text = of(&pipeline, false, 80);
        assert!(!text.contains("a person"), "{text}");
    }

    #[test]
    fn what_a_person_says_is_done_is_not_told_as_landed() {
        let mut pipeline = Pipeline::started(settings(), vec![task("A", &[]), task("B", &[])]);
        pipeline.send(Command::CompleteTask { id: TaskId::new("B"), commit: None });
        let text = of(&pipeline, false, 80);
        assert!(text.starts_with("0 of 2 landed, 1 done by a person, 1 in work\n"), "{text}");
        pipeline.run_stages("A");
        pipeline.land("A");
        let text = of(&pipeline, false, 80);
        assert!(text.starts_with("1 of 2 landed (ccccccc~1..ccccccc), 1 done by"), "{text}");
    }

    #[test]
    fn the_first_lines_say_what_landed_what_needs_a_person_and_what_waits() {
        let tasks = vec![task("A", &[]), task("B", &["A"]), task("C", &["B"]), task("D", &[])];
        let mut pipeline = Pipeline::started(settings(), tasks);
        let why = "which colour shall the bike shed have, and may it be the one it had before?";
        pipeline.run("A.arch.1", End::Says(Marker::Blocked(why.into())));
        pipeline.turn();
        let expected = "\
0 of 4 landed, 1 needs a person, 2 wait, 1 in work
parallel, production, monitor 4711 runs

needs a person
  A  architect: which colour shall t…: pipeline task retry A --note 'ANSWER'
  2 more tasks depend on these

agents
  architect         working  D architect for 0 s
  implementation-1  idle
  implementation-2  idle
  supervisor        idle
  test              idle

why: pipeline task log ID --failed; what it took: pipeline report
";
        let plain = of(&pipeline, false, 80);
        let same = |line: &&str| !line.starts_with("  A ");
        let lines = |text: &str| text.lines().filter(same).map(str::to_owned).collect::<Vec<_>>();
        assert_eq!(lines(&plain), lines(expected), "{plain}");
        assert!(plain.contains(": pipeline task retry A --note 'ANSWER'\n"), "{plain}");
        assert!(plain.lines().all(|line| line.chars().count() <= 80), "{plain}");
        assert!(of(&pipeline, true, 80).contains("\x1b[31m1 needs a person\x1b[0m"));
        assert!(of(&pipeline, false, 10).contains("pipeline task retry A --note 'ANSWER'\n"));
    }

    #[test]
    fn an_approval_needs_a_person_and_names_the_paths() {
        let mut pipeline = Pipeline::started(settings(), vec![task("A", &[])]);
        pipeline.run_stages("A");
        pipeline.turn();
        pipeline.see(Observation::Merged {
            task: TaskId::new("A"),
            number: 1,
            commit: oid('c'),
            onto: oid('a'),
            protected: vec!["pipeline.toml".into()],
        });
        let plain = of(&pipeline, false, 80);
        assert!(plain.starts_with("0 of 1 landed, 1 needs a person\n"), "{plain}");
        assert!(plain.contains("  A  touches pipeline.toml: pipeline task approve A\n"), "{plain}");
        assert!(!plain.contains("\nwaiting\n"), "{plain}");
    }

    #[test]
    fn what_waits_is_listed_up_to_a_bound_and_counted() {
        let ids: Vec<String> = (0..30).map(|n| format!("T{n:02}")).collect();
        let mut tasks: Vec<NewTask> = ids.iter().map(|id| task(id, &["T00"])).collect();
        tasks[0].spec.depends_on.clear();
        tasks[1].spec.title = "evil \x1b[2J".into();
        let mut pipeline = Pipeline::started(settings(), tasks);
        pipeline.run("T00.arch.1", End::Status(1));
        let plain = of(&pipeline, false, 80);
        assert!(plain.starts_with("0 of 30 landed, 30 wait\n"), "{plain}");
        let failure = "  T00  backoff     after: exited with status 1 (in 5 s)\n";
        assert!(plain.contains(failure), "{plain}");
        assert!(
            plain.ends_with("  T19  dependency  T00\n  and 10 more: 10 dependency\n"),
            "{plain}"
        );
    }

    #[test]
    fn open_epics_are_listed_with_what_is_done_below_them() {
        let below = |id: &str, epic: &str| {
            let mut new = task(id, &[]);
            new.spec.parent = Some(TaskId::new(epic));
            new
        };
        let epic = |new: NewTask| {
            let mut new = new;
            new.spec.kind = TaskKind::Epic;
            new
        };
        let tasks = vec![
            epic(task("E", &[])),
            epic(below("F", "E")),
            below("A", "E"),
            below("B", "F"),
            epic(task("G", &[])),
        ];
        let mut pipeline = Pipeline::started(settings(), tasks);
        let epics = |pipeline: &Pipeline| {
            let text = of(pipeline, false, 80);
            let at = text.find("epics\n").expect("epics are listed");
            let lines = text[at..].lines().skip(1).map_while(|line| line.strip_prefix("  "));
            lines.map(str::to_owned).collect::<Vec<_>>()
        };
        let titles = |e: u32, f: u32| {
            [format!("E  {e} of 2 done  Title of E"), format!("F  {f} of 1 done  Title of F")]
        };
        let none = "G  0 of 0 done  Title of G".to_owned();
        assert_eq!(epics(&pipeline), [&titles(0, 0)[..], std::slice::from_ref(&none)].concat());
        pipeline.run_stages("A");
        pipeline.land("A");
        assert_eq!(epics(&pipeline), [&titles(1, 0)[..], std::slice::from_ref(&none)].concat());
        pipeline.turn();
        pipeline.run_stages("B");
        pipeline.land("B");
        assert_eq!(epics(&pipeline), [none]);
    }

    #[test]
    fn the_headline_is_one_line_however_narrow_the_page() {
        let tasks = vec![task("A", &[]), task("B", &["A"]), task("C", &[]), task("D", &[])];
        let mut pipeline = Pipeline::started(settings(), tasks);
        pipeline.send(Command::CompleteTask { id: TaskId::new("D"), commit: None });
        pipeline.run("A.arch.1", End::Says(Marker::Blocked("why".into())));
        pipeline.turn();
        let first = "0 of 4 landed, 1 done by a person, 1 needs a person, 1 waits, 1 in work";
        for width in [10, 40, 80] {
            let text = of(&pipeline, false, width);
            assert_eq!(text.lines().next(), Some(first), "at {width}");
        }
    }

    #[test]
    fn an_empty_project_says_how_to_begin() {
        let pipeline = Pipeline::new(settings());
        assert!(of(&pipeline, false, 80).starts_with("no tasks yet: pipeline task add TITLE\n"));
    }

    #[test]
    fn a_conflicting_base_comes_with_its_command() {
        let mut pipeline = Pipeline::started(settings(), vec![task("A", &[])]);
        pipeline.see(Observation::BaseSeen { tip: oid('d'), landed: Some(oid('a')) });
        pipeline.see(Observation::BaseConflicts { base: oid('d'), paths: vec!["x.rs".into()] });
        pipeline.send(Command::Pause);
        let plain = of(&pipeline, false, 100);
        let line = "`main` conflicts with `pipeline/landed` in x.rs: git merge pipeline/landed\n";
        assert!(plain.contains(line), "{plain}");
        assert!(plain.contains("paused: pipeline resume"), "{plain}");
    }
}
