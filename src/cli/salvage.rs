//! `pipeline salvage`: work that is on no branch of ours, shown, given to a person, or let go.

use std::path::{Path, PathBuf};

use serde::Serialize;

use super::args::SalvageCommand;
use super::console::{Console, Format};
use super::error::Error;
use super::hands;
use super::project::Open;
use super::rim::print;
use super::show;
use super::views::page;
use crate::git::{Cas, GitError, Kept, Oid, Repo, Size};
use crate::machine::State;
use crate::machine::time::Time;
use crate::observe::page::{Ink, Page, clean, columns, cut, first_line};
use crate::observe::salvage::Origin;
use crate::observe::words::{Stamp, attempt_words, span};
use crate::sys::file::shell_path;

/// Where salvage is.
const SALVAGE: &str = "refs/pipeline/salvage/";
/// The folder of branches that hold restored work.
const BRANCHES: &str = "salvage";

/// One thing in salvage.
#[derive(Debug, Serialize)]
struct Entry {
    #[serde(rename = "ref")]
    name: String,
    commit: String,
    task: Option<String>,
    /// Long name.
    stage: Option<String>,
    attempt: Option<String>,
    class: Option<&'static str>,
    at: Option<Stamp>,
    /// All of it has landed, or is on its task's branch.
    is_held: bool,
    /// The repository has no such commit (any more): there is nothing left to take.
    is_gone: bool,
    files: u64,
    added: u64,
    removed: u64,
    why: String,
    /// The commit that its size is counted from.
    #[serde(skip)]
    from: Oid,
    /// That is a commit, and not what there was before the first one.
    #[serde(skip)]
    is_rooted: bool,
    #[serde(skip)]
    to: Oid,
}

/// `pipeline salvage …`.
///
/// # Errors
/// An unknown REF, a place that is taken, and git's failures.
pub fn run(
    open: &Open,
    dir: &Path,
    console: &mut Console<'_>,
    command: &SalvageCommand,
) -> Result<(), Error> {
    let Some(repo) = &open.project.repo else {
        return Err(Error::usage("without git nothing is kept in salvage")
            .hint("what agents changed is in the project's folder"));
    };
    match command {
        SalvageCommand::List => list(open, repo, console),
        SalvageCommand::Show { name } => show_one(open, repo, console, name),
        SalvageCommand::Restore { name, place } => {
            let place = place.as_ref().map(|place| dir.join(place));
            restore(open, repo, console, name, place)
        }
        SalvageCommand::Drop { names } => drop_all(open, repo, console, names),
    }
}

fn git(error: GitError) -> Error {
    Error::failed("cannot look into salvage").because_git(&error)
}

fn list(open: &Open, repo: &Repo, console: &mut Console<'_>) -> Result<(), Error> {
    let state = open.now().0;
    let entries = entries(state, repo, repo.kept().map_err(git)?)?;
    if entries.is_empty() && console.format == Format::Text {
        console.note("nothing is kept in salvage");
        return Ok(());
    }
    let (page, now) = (page(console), open.clock());
    print(
        console,
        || {
            let wide = Widths::of(&entries, page, now);
            entries.iter().map(|entry| lines(entry, page, now, &wide)).collect()
        },
        || show::document(&serde_json::json!({ "salvage": entries })),
    )
}

/// Finds out whose work they are, and how much.
fn entries(state: &State, repo: &Repo, kept: Vec<Kept>) -> Result<Vec<Entry>, Error> {
    let landed = state.base.landed.as_ref().and_then(|oid| oid.as_str().parse::<Oid>().ok());
    let mut entries = Vec::new();
    for kept in kept {
        let origin = Origin::of(state, kept.name.trim_start_matches(SALVAGE));
        let origin = origin.at(&kept.commit.to_string());
        let tip = origin.task.and_then(|task| task.tip.as_ref());
        let tip = tip.and_then(|tip| tip.as_str().parse::<Oid>().ok());
        let shared = match kept.is_gone {
            true => Some(kept.commit.clone()),
            false => start(repo, &kept.commit, [tip.as_ref(), landed.as_ref()])?,
        };
        let is_rooted = shared.is_some();
        let from = shared.map_or_else(|| repo.empty_tree().map_err(git), Ok)?;
        let attempt = origin.attempt;
        let class = attempt.and_then(|it| it.outcome.as_ref()).map(|it| it.class.word());
        entries.push(Entry {
            commit: kept.commit.to_string(),
            task: origin.task.map(|task| task.id.to_string()),
            stage: attempt.and_then(|it| it.stage()).map(|stage| stage.to_string()),
            attempt: attempt.map(|attempt| attempt.id.to_string()),
            class,
            at: kept.at_s.map(|at| Stamp(Time::from_ms(at.saturating_mul(1000)))),
            is_held: from == kept.commit && !kept.is_gone,
            is_gone: kept.is_gone,
            files: 0,
            added: 0,
            removed: 0,
            why: origin.why(),
            name: kept.name,
            from,
            is_rooted,
            to: kept.commit,
        });
    }
    let rooted = entries.iter().filter(|it| it.is_rooted && !it.is_gone);
    let pairs: Vec<(Oid, Oid)> = rooted.map(|it| (it.from.clone(), it.to.clone())).collect();
    let mut sizes = repo.sizes(&pairs).map_err(git)?.into_iter();
    for entry in entries.iter_mut().filter(|it| !it.is_gone) {
        let known = if entry.is_rooted { sizes.next() } else { None };
        let size = known.map_or_else(|| repo.size(&entry.from, &entry.to).map_err(git), Ok)?;
        Size { files: entry.files, added: entry.added, removed: entry.removed } = size;
    }
    Ok(entries)
}

/// Returns where the work begins: the newest commit that it shares with the task's branch or with
/// what has landed; itself where one of them holds all of it; `None`: it shares nothing with them.
fn start(repo: &Repo, commit: &Oid, known: [Option<&Oid>; 2]) -> Result<Option<Oid>, Error> {
    let mut nearest: Option<Oid> = None;
    for known in known.into_iter().flatten() {
        // A branch that is gone with its commits tells nothing.
        let Ok(Some(shared)) = repo.merge_base(commit, known) else { continue };
        nearest = match nearest {
            Some(before) if !repo.is_ancestor(&before, &shared).map_err(git)? => Some(before),
            Some(_) | None => Some(shared),
        };
    }
    Ok(nearest)
}

/// How wide the columns of a list are.
struct Widths {
    name: usize,
    class: usize,
    age: usize,
}

impl Widths {
    /// Fits them to all entries; a name that leaves no room for the rest has a line of its own.
    fn of(all: &[Entry], page: Page, now: Time) -> Self {
        let widest = |of: &dyn Fn(&Entry) -> usize| all.iter().map(of).max().unwrap_or(0);
        let class = widest(&|entry| columns(class_of(entry)));
        let age = widest(&|entry| columns(&age_of(entry, now)));
        let size = widest(&|entry| columns(&size_words(entry)));
        let room = page.columns().saturating_sub(class + age + size + 6);
        let names = all.iter().map(|entry| columns(short(entry)));
        Self { name: names.filter(|name| *name <= room).max().unwrap_or(0), class, age }
    }
}

fn short(entry: &Entry) -> &str {
    entry.name.trim_start_matches(SALVAGE)
}

fn class_of(entry: &Entry) -> &'static str {
    entry.class.unwrap_or("-")
}

fn age_of(entry: &Entry, now: Time) -> String {
    entry.at.map_or("-".to_owned(), |at| format!("{} ago", span(now.ms_since(at.0))))
}

/// Returns two lines: what it is, and why it is there; three where the name leaves no room.
fn lines(entry: &Entry, page: Page, now: Time, wide: &Widths) -> String {
    let (name, class, age) = (short(entry), class_of(entry), age_of(entry, now));
    let gap = match wide.name.checked_sub(columns(name)) {
        Some(pad) => " ".repeat(pad + 2),
        None => "\n  ".to_owned(),
    };
    let Widths { class: class_wide, age: age_wide, .. } = *wide;
    let what = format!("{class:class_wide$}  {age:age_wide$}  {}", size_words(entry));
    let whose = match (&entry.task, &entry.stage, &entry.attempt) {
        (Some(task), Some(stage), Some(_)) => format!("{stage} of {task}: "),
        (Some(task), ..) => format!("{task}: "),
        (None, ..) => String::new(),
    };
    let why = format!("{whose}{}", first_line(&entry.why));
    let name = page.paint(Ink::Strong, &clean(name));
    let why = cut(&why, page.columns().saturating_sub(2)).into_owned();
    format!("{name}{gap}{what}\n  {}\n", page.paint(Ink::Faint, &why))
}

fn size_words(entry: &Entry) -> String {
    if entry.is_gone {
        return "its commit is gone".into();
    }
    if entry.is_held {
        return "all on its branch".into();
    }
    let noun = if entry.files == 1 { "file" } else { "files" };
    format!("{} {noun} +{} -{}", entry.files, entry.added, entry.removed)
}

/// Finds what a person names, by its full name or the part below `refs/pipeline/salvage/`.
fn find(repo: &Repo, name: &str) -> Result<Kept, Error> {
    let short = name.trim_start_matches("refs/").trim_start_matches("pipeline/");
    let full = format!("{SALVAGE}{}", short.trim_start_matches("salvage/"));
    let kept = repo.kept().map_err(git)?;
    let found = kept.into_iter().find(|kept| kept.name == full);
    found.ok_or_else(|| {
        Error::invalid(format!("there is nothing in salvage under `{}`", name.escape_debug()))
            .hint("see `pipeline salvage list`")
    })
}

/// Refuses what names a commit that is gone.
fn need_there(kept: Kept) -> Result<Kept, Error> {
    if !kept.is_gone {
        return Ok(kept);
    }
    let short = kept.name.trim_start_matches(SALVAGE);
    let what = format!("nothing is left of `{short}`: its commit {} is gone", kept.commit);
    Err(Error::failed(what).hint(format!("pipeline salvage drop {short}")))
}

fn find_entry(open: &Open, repo: &Repo, name: &str) -> Result<Entry, Error> {
    let kept = need_there(find(repo, name)?)?;
    let found = entries(open.now().0, repo, vec![kept])?.pop();
    Ok(found.expect("one was given, one comes back"))
}

fn show_one(open: &Open, repo: &Repo, console: &mut Console<'_>, name: &str) -> Result<(), Error> {
    let entry = find_entry(open, repo, name)?;
    let is_colored = console.is_colored && console.format == Format::Text;
    let patch = repo.patch(&entry.from, &entry.to, is_colored).map_err(git)?;
    match console.format {
        Format::Json => {
            let mut document = serde_json::to_value(&entry)
                .map_err(|error| Error::failed("cannot make JSON").because(&error))?;
            document["from"] = entry.from.as_str().into();
            document["diff"] = String::from_utf8_lossy(&patch).into();
            console.json(&document)
        }
        Format::Text => {
            let (page, now) = (page(console), open.clock());
            let wide = Widths::of(std::slice::from_ref(&entry), page, now);
            console.write(lines(&entry, page, now, &wide).as_bytes())?;
            console.line(&format!("  commit {}\n", entry.commit))?;
            console.write(&patch)
        }
    }
}

fn restore(
    open: &Open,
    repo: &Repo,
    console: &mut Console<'_>,
    name: &str,
    place: Option<PathBuf>,
) -> Result<(), Error> {
    let kept = need_there(find(repo, name)?)?;
    let short = kept.name.trim_start_matches(SALVAGE);
    let branch = format!("{BRANCHES}/{short}");
    let full = format!("refs/heads/{branch}");
    if let Some(found) = repo.read_ref(&full).map_err(git)?
        && !repo.is_ancestor(&kept.commit, &found).map_err(git)?
    {
        return Err(Error::busy(format!(
            "cannot restore `{short}`: the branch `{branch}` is there, and holds other work"
        ))
        .hint(format!("rename it, then try again: git branch -m {branch} NAME")));
    }
    let there = repo.checkouts_of(&full).map_err(git)?.into_iter().find(|it| !it.is_gone);
    let path = match (there, place) {
        (Some(there), place) if place.as_ref().is_none_or(|place| is_same(place, &there.path)) => {
            repo.finish_hand(&there.path).map_err(git)?;
            console.note(&format!("`{branch}` was restored before"));
            there.path
        }
        (Some(there), _) => {
            let path = there.path.display();
            return Err(Error::busy(format!(
                "cannot restore `{short}`: its branch `{branch}` is checked out at `{path}`"
            ))
            .at(&there.path)
            .hint(format!(
                "work there, or give it up first: git worktree remove {}",
                shell_path(&there.path)
            )));
        }
        (None, place) => {
            let layout = &open.project.layout;
            let free = layout.restored();
            let place = place.unwrap_or_else(|| free.join(short));
            if hands::is_ours(&place, &free, layout, repo, &open.now().0.settings) {
                let hint = "name another folder, or none: it goes below `.pipeline/restored` then";
                return Err(hands::not_there(&place).hint(hint));
            }
            let made = repo.add_worktree(&place, &branch, &kept.commit).map_err(|error| {
                let what = format!("cannot restore `{short}` to `{}`", place.display());
                match &error {
                    GitError::ForeignSlot { why, .. } => Error::busy(what)
                        .because_of(format!("it is in the way: {why}"))
                        .at(&place)
                        .hint("name a folder that is not there yet"),
                    _ => Error::failed(what).at(&place).because_git(&error),
                }
            })?;
            console.note(&format!("on branch `{branch}`; the salvage stays until it is dropped"));
            made
        }
    };
    let path = path.to_string_lossy();
    console.data(&serde_json::json!({ "ref": kept.name, "branch": branch, "path": path }), &path)
}

fn is_same(one: &Path, other: &Path) -> bool {
    let true_path = |path: &Path| std::fs::canonicalize(path).ok();
    true_path(one).is_some() && true_path(one) == true_path(other)
}

/// What was let go.
#[derive(Debug, Serialize)]
struct Dropped {
    #[serde(rename = "ref")]
    name: String,
    commit: String,
}

fn drop_all(
    open: &Open,
    repo: &Repo,
    console: &mut Console<'_>,
    names: &[String],
) -> Result<(), Error> {
    let state = open.now().0;
    let mut found: Vec<Kept> =
        names.iter().map(|name| find(repo, name)).collect::<Result<_, _>>()?;
    found.sort_by(|a, b| a.name.cmp(&b.name));
    found.dedup();
    // All of them or none.
    for kept in &found {
        need_unused(state, kept)?;
    }
    let mut dropped = Vec::new();
    let done = found.into_iter().try_for_each(|kept| {
        drop_one(repo, &kept)?;
        let Kept { name, commit, .. } = kept;
        if console.format == Format::Text {
            console.line(&format!("{name} {commit}"))?;
        }
        dropped.push(Dropped { name, commit: commit.to_string() });
        Ok(())
    });
    // Also where a later one could not be let go: without its commit id none can be taken back.
    if !dropped.is_empty() {
        match console.format {
            Format::Json => console.json(&serde_json::json!({ "dropped": dropped }))?,
            Format::Text => {
                console.note("until git collects it, `git update-ref REF COMMIT` takes one back");
            }
        }
    }
    done
}

fn drop_one(repo: &Repo, kept: &Kept) -> Result<(), Error> {
    let Kept { name, commit, .. } = kept;
    let failed = |error| Error::failed(format!("cannot drop `{name}`")).because_git(&error);
    match repo.cas_ref(name, None, Some(commit)).map_err(failed)? {
        Cas::Done | Cas::Moved(None) => Ok(()),
        Cas::Moved(Some(now)) => {
            Err(Error::failed(format!("cannot drop `{name}`: it has just changed"))
                .because_of(format!("it was {commit} and is {now}"))
                .hint("look at it again: `pipeline salvage list`"))
        }
    }
}

/// Refuses to drop what the pipeline itself goes on from.
fn need_unused(state: &State, kept: &Kept) -> Result<(), Error> {
    let name = kept.name.trim_start_matches(SALVAGE);
    let refused = |why: String| Error::busy(format!("cannot drop `{name}`")).because_of(why);
    if let Some(attempt) = state.attempts.values().find(|it| it.id.as_str() == name) {
        let words = attempt_words(&state.settings, &attempt.id);
        let task = words.task.unwrap_or_default();
        return Err(refused(format!("the attempt at {} of `{task}` is not over", words.what))
            .hint(format!("wait for it, or end it: pipeline task cancel {task}")));
    }
    let goes_on = state.tasks.values().filter(|task| !task.is_final()).find(|task| {
        task.resume_from.as_ref().is_some_and(|from| from.as_str() == kept.commit.as_str())
    });
    match goes_on {
        None => Ok(()),
        Some(task) => Err(refused(format!("the next attempt at `{}` goes on from it", task.id))
            .hint(format!("begin it afresh first: pipeline task retry {} --fresh", task.id))),
    }
}

#[cfg(test)]
mod tests {
    use super::{Entry, SALVAGE, Widths, lines};
    use crate::machine::time::Time;
    use crate::observe::page::Page;
    use crate::observe::words::Stamp;

    fn entry(name: &str) -> Entry {
        let commit = "a".repeat(40);
        let oid = || commit.parse().expect("an id");
        Entry {
            name: format!("{SALVAGE}{name}"),
            task: None,
            stage: None,
            attempt: None,
            class: Some("infrastructure"),
            at: Some(Stamp(Time::from_ms(0))),
            is_held: false,
            is_gone: false,
            files: 12,
            added: 345,
            removed: 67,
            why: "x".repeat(100),
            from: oid(),
            is_rooted: true,
            to: oid(),
            commit,
        }
    }

    #[test]
    fn a_long_name_stands_alone_and_the_rest_below_it() {
        let all = [entry("A.impl.1"), entry(&format!("{}.implementation.1", "T".repeat(60)))];
        let now = Time::from_ms(90_000_000);
        let wide = Widths::of(&all, Page::plain(80), now);
        for (entry, count) in all.iter().zip([2, 3]) {
            let text = lines(entry, Page::plain(80), now, &wide);
            assert_eq!(text.lines().count(), count, "{text}");
            assert!(text.lines().all(|line| line.chars().count() <= 80), "{text}");
            assert!(text.contains("infrastructure  1 d 1 h ago  12 files +345 -67\n"), "{text}");
        }
    }
}
