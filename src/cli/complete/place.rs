//! Where on the command line the cursor stands, and what can stand there.

use clap::{Arg, ArgAction, Command, ValueHint};

/// What is looked up in the project.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Named {
    /// Tasks that fit.
    Tasks(Fit),
    Epics,
    Stages,
    Agents,
    Groups,
    Salvage,
}

/// Which tasks a command is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Fit {
    All,
    /// Neither completed nor cancelled.
    Open,
    Finished,
    Blocked,
    Held,
    Taken,
    /// Their landing waits for a person.
    Unapproved,
}

/// What can stand there.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Choice {
    Word { word: String, about: String },
    Named(Named),
    Files,
    Folders,
}

/// The place of the cursor.
#[derive(Debug, Default)]
pub(super) struct Place {
    /// What `-C` said, in order.
    pub(super) dirs: Vec<String>,
    pub(super) choices: Vec<Choice>,
    /// What stands of the word that is chosen.
    pub(super) typed: String,
    /// What stands before it in the same word of the shell: `--stage=`, `a,b,`.
    pub(super) before: String,
    /// What the same argument was given already.
    pub(super) given: Vec<String>,
}

/// The words before the cursor, as far as they are read.
struct Walk<'a> {
    root: &'a Command,
    command: &'a Command,
    /// The option whose value comes next.
    pending: Option<&'a Arg>,
    /// The last option, which a lone `=` gives its value: bash cuts `--a=b` into three.
    last: Option<&'a Arg>,
    /// Behind `--`.
    is_plain: bool,
    /// Positional arguments that stand there.
    plain: Vec<String>,
    dirs: Vec<String>,
}

impl<'a> Walk<'a> {
    fn args(&self) -> impl Iterator<Item = &'a Arg> + use<'a> {
        let (own, global) = (self.command.get_arguments(), self.root.get_arguments());
        let is_root = std::ptr::eq(self.command, self.root);
        own.chain(global.filter(move |arg| !is_root && arg.is_global_set()))
    }

    fn long(&self, name: &str) -> Option<&'a Arg> {
        self.args().find(|arg| arg.get_long() == Some(name))
    }

    fn take(&mut self, word: &str) {
        if word == "=" && self.last.is_some() && !self.is_plain {
            self.pending = self.last;
            return;
        }
        if let Some(arg) = self.pending.take() {
            self.note(arg, word);
            return;
        }
        self.last = None;
        if !self.is_plain && word == "--" {
            self.is_plain = true;
        } else if let Some(long) = word.strip_prefix("--").filter(|_| !self.is_plain) {
            let name = long.split('=').next().unwrap_or_default();
            self.last = self.long(name);
            self.pending = self.last.filter(|arg| !long.contains('=') && needs_value(arg));
        } else if let Some(short) =
            word.strip_prefix('-').filter(|s| !self.is_plain && !s.is_empty())
        {
            self.take_short(short);
        } else if let Some(below) = self.below(word) {
            self.command = below;
        } else {
            self.plain.push(word.to_owned());
        }
    }

    fn below(&self, word: &str) -> Option<&'a Command> {
        self.command.find_subcommand(word).filter(|_| !self.is_plain && self.plain.is_empty())
    }

    /// Reads `-v`, `-qn`, `-Cdir`, or `-C` whose value comes next.
    fn take_short(&mut self, short: &str) {
        for (place, letter) in short.char_indices() {
            let Some(arg) = self.args().find(|arg| arg.get_short() == Some(letter)) else { return };
            if !needs_value(arg) {
                continue;
            }
            let rest = &short[place + letter.len_utf8()..];
            if rest.is_empty() {
                self.pending = Some(arg);
            } else {
                self.note(arg, rest);
            }
            return;
        }
    }

    fn note(&mut self, arg: &Arg, value: &str) {
        if arg.get_id() == "dir" {
            self.dirs.push(value.to_owned());
        }
    }
}

fn needs_value(arg: &Arg) -> bool {
    let takes = matches!(arg.get_action(), ArgAction::Set | ArgAction::Append);
    takes && !arg.is_require_equals_set() && !arg.is_positional()
}

impl Place {
    /// Finds the place of the last of `words`, which is the one that is completed.
    pub(super) fn of(command: &Command, words: &[String]) -> Self {
        let (current, before) = words.split_last().map_or(("", words), |(last, rest)| (last, rest));
        let mut walk = Walk {
            root: command,
            command,
            pending: None,
            last: None,
            is_plain: false,
            plain: Vec::new(),
            dirs: Vec::new(),
        };
        before.iter().for_each(|word| walk.take(word));
        let mut place = Self { typed: current.into(), ..Self::default() };
        if current == "=" && walk.last.is_some() {
            walk.pending = walk.last;
            place.typed.clear();
        }
        if let Some(arg) = walk.pending {
            place.add_values(&walk, arg);
        } else if let Some((name, value)) = current
            .strip_prefix("--")
            .and_then(|long| long.split_once('='))
            .filter(|_| !walk.is_plain)
        {
            place.before = format!("--{name}=");
            place.typed = value.into();
            if let Some(arg) = walk.long(name) {
                place.add_values(&walk, arg);
            }
        } else if current.starts_with('-') && !walk.is_plain {
            place.add_flags(&walk);
        } else {
            place.add_plain(&walk);
        }
        place.dirs = walk.dirs;
        place
    }

    fn word(&mut self, word: &str, about: impl ToString) {
        self.choices.push(Choice::Word { word: word.into(), about: about.to_string() });
    }

    fn add_flags(&mut self, walk: &Walk<'_>) {
        for arg in walk.args().filter(|arg| !arg.is_hide_set() && !arg.is_positional()) {
            let about = arg.get_help().map(ToString::to_string).unwrap_or_default();
            if let Some(long) = arg.get_long() {
                self.word(&format!("--{long}"), &about);
            } else if let Some(short) = arg.get_short() {
                self.word(&format!("-{short}"), &about);
            }
        }
        self.word("--help", "Print help.");
    }

    fn add_plain(&mut self, walk: &Walk<'_>) {
        if walk.plain.is_empty() && !walk.is_plain {
            for command in walk.command.get_subcommands().filter(|it| !it.is_hide_set()) {
                let about = command.get_about().map(ToString::to_string).unwrap_or_default();
                self.word(command.get_name(), about);
            }
        }
        let args: Vec<&Arg> = walk.command.get_positionals().collect();
        let is_many = |arg: &&&Arg| matches!(arg.get_action(), ArgAction::Append);
        let arg = args.get(walk.plain.len()).or_else(|| args.last().filter(is_many));
        if let Some(arg) = arg {
            self.given.clone_from(&walk.plain);
            self.add_values(walk, arg);
        }
    }

    fn add_values(&mut self, walk: &Walk<'_>, arg: &Arg) {
        if let Some(delimiter) = arg.get_value_delimiter()
            && let Some((before, typed)) = self.typed.rsplit_once(delimiter)
        {
            self.before.push_str(&format!("{before}{delimiter}"));
            self.given = before.split(delimiter).map(str::to_owned).collect();
            self.typed = typed.to_owned();
        }
        for value in arg.get_possible_values().iter().filter(|value| !value.is_hide_set()) {
            let about = value.get_help().map(ToString::to_string).unwrap_or_default();
            self.word(value.get_name(), about);
        }
        if !self.choices.is_empty() {
            return;
        }
        let named = arg.get_value_names().and_then(|names| names.first()).map(|name| name.as_str());
        let (command, id) = (walk.command.get_name(), arg.get_id().as_str());
        let words: &[&str] = match (command, id, named.unwrap_or_default()) {
            (_, _, "DIR") => return self.choices.push(Choice::Folders),
            (_, _, "REF") => return self.named(Named::Salvage),
            (_, _, "EPIC") => return self.named(Named::Epics),
            ("add", "id", _) => return,
            (_, "id" | "ids", _) => return self.named(Named::Tasks(fit(command))),
            (_, _, "ID") => return self.named(Named::Tasks(Fit::All)),
            (_, "stage" | "stages", name) => {
                if name == "NAME|landing" {
                    self.word("landing", "nothing more is to be done");
                }
                return self.named(Named::Stages);
            }
            ("test", "name", _) => {
                self.named(Named::Agents);
                return self.named(Named::Groups);
            }
            ("pause" | "resume" | "attach" | "logs", "name", _) => {
                return self.named(Named::Agents);
            }
            (_, "group", _) => return self.named(Named::Groups),
            ("scale", "to", _) => &["auto"],
            (_, "mode", _) => &["sequential", "parallel", "hybrid"],
            (_, "rollout", _) => &["shadow", "pilot", "production"],
            (_, "priority", _) => &["low", "medium", "high", "critical"],
            (_, "complexity", _) => &["simple", "moderate", "complex"],
            ("import", "format", _) => {
                &["json", "jsonl", "taskmaster", "beads", "github", "markdown"]
            }
            (_, "status", _) => {
                &["unassigned", "ready", "wip", "landing", "blocked", "completed", "cancelled"]
            }
            (_, "exclusive" | "front" | "hold", "BOOL") => &["true", "false"],
            _ => &[],
        };
        words.iter().for_each(|word| self.word(word, ""));
        let is_path = matches!(arg.get_value_hint(), ValueHint::AnyPath | ValueHint::FilePath);
        if words.is_empty() && is_path {
            self.choices.push(Choice::Files);
        }
    }

    fn named(&mut self, kind: Named) {
        self.choices.push(Choice::Named(kind));
    }
}

/// Returns the tasks that a command is for.
fn fit(command: &str) -> Fit {
    match command {
        "hold" | "cancel" | "complete" | "take" => Fit::Open,
        "release" => Fit::Held,
        "retry" => Fit::Blocked,
        "give" => Fit::Taken,
        "reopen" => Fit::Finished,
        "approve" => Fit::Unapproved,
        _ => Fit::All,
    }
}

#[cfg(test)]
mod tests {
    use super::{Choice, Fit, Named, Place};
    use crate::cli::args;

    /// Returns the place behind a line; the last word is the one that is completed.
    fn place(line: &str) -> Place {
        let words: Vec<String> = line.split(' ').map(str::to_owned).collect();
        Place::of(&args::definition(), &words)
    }

    fn words(line: &str) -> Vec<String> {
        let word = |choice: Choice| match choice {
            Choice::Word { word, .. } => Some(word),
            Choice::Named(_) | Choice::Files | Choice::Folders => None,
        };
        place(line).choices.into_iter().filter_map(word).collect()
    }

    #[test]
    fn what_can_stand_at_a_place_is_known() {
        let tasks = |fit| Choice::Named(Named::Tasks(fit));
        for (line, choice) in [
            ("task show ", tasks(Fit::All)),
            ("task retry A ", tasks(Fit::Blocked)),
            ("-C x --json task hold A B", tasks(Fit::Open)),
            ("task add T --depends-on ", tasks(Fit::All)),
            ("task add T --depends-on=A,B", tasks(Fit::All)),
            ("task add T --parent E", Choice::Named(Named::Epics)),
            ("task log A --stage im", Choice::Named(Named::Stages)),
            ("task log A --stage = im", Choice::Named(Named::Stages)),
            ("task log A --stage =", Choice::Named(Named::Stages)),
            ("log --task ", tasks(Fit::All)),
            ("agent pause ", Choice::Named(Named::Agents)),
            ("agent scale ", Choice::Named(Named::Groups)),
            ("salvage drop a ", Choice::Named(Named::Salvage)),
            ("salvage restore a ", Choice::Folders),
            ("-C ", Choice::Folders),
            ("graph ", Choice::Files),
            ("task import -n ", Choice::Files),
            ("report -o ", Choice::Files),
        ] {
            let choices = place(line).choices;
            assert!(choices.contains(&choice), "{line}: {choices:?}");
        }
        assert!(place("task add T --id ").choices.is_empty(), "a new id is not chosen");
        assert!(place("task show A ").choices.is_empty(), "there is one id");
        assert!(place("task add T --title-of ").choices.len() < 2, "an unknown flag is no end");
        assert_eq!(place("-C a -Cb task -C c show ").dirs, ["a", "b", "c"]);
    }

    #[test]
    fn commands_flags_and_words_are_offered_where_they_may_stand() {
        assert!(words("").contains(&"task".into()) && !words("").iter().any(|w| w.contains("__")));
        assert!(words("task ").contains(&"retry".into()));
        assert!(words("run ").is_empty() && words("run -").contains(&"--until-idle".into()));
        assert!(words("task retry --").contains(&"--lock-timeout".into()));
        assert!(words("task retry -- --").is_empty());
        assert_eq!(words("mode switch "), ["sequential", "parallel", "hybrid"]);
        assert_eq!(words("task import x --format "), words("task import x --format=j"));
        assert_eq!(words("stop --drain --color "), ["auto", "always", "never"]);
        assert!(words("completions ").contains(&"zsh".into()));
        assert!(words("schema ").contains(&"config".into()));
        assert!(words("task give A --stage ").contains(&"landing".into()));
    }

    #[test]
    fn what_stands_before_the_word_is_kept() {
        let place = place("task add T --depends-on=A,B");
        assert_eq!((place.before.as_str(), place.typed.as_str()), ("--depends-on=A,", "B"));
        assert_eq!(place.given, ["A"]);
    }
}
