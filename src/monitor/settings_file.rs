//! `pipeline.toml` while the monitor runs: taken up when it changes, kept out while it is broken.

use super::progress::Progress;
use crate::config;
use crate::config::layout::Layout;
use crate::machine::{Command, EventBody, Refusal, State};
use crate::observe::words;
use crate::sys::file::read_bounded;

/// Largest `pipeline.toml` read, in bytes.
const BYTES_MAX: u64 = 1 << 20;

/// What was read of it last.
#[derive(Debug, Default)]
pub struct SettingsFile {
    seen: Option<Vec<u8>>,
    /// It is looked at again though it stays as it is: a file that it names may be there by then.
    is_broken: bool,
    /// The same of what was refused: the task in its way may have gone on by then.
    is_refused: bool,
    /// What it says was told when it was refused before.
    is_told: bool,
}

impl SettingsFile {
    /// Returns the command that adopts the file, when it has changed and is valid; warns of a broken
    /// one, once.
    pub fn read(
        &mut self,
        layout: &Layout,
        state: &State,
        progress: &mut Progress,
    ) -> Option<EventBody> {
        let path = layout.config();
        // A file gone missing keeps the adopted settings, and so does an empty one: most programs empty
        // a file first, and write into it then.
        let bytes = read_bounded(&path, BYTES_MAX).ok()??;
        if bytes.trim_ascii().is_empty() {
            return None;
        }
        let is_seen = self.seen.as_ref() == Some(&bytes);
        if is_seen && !self.is_broken && !self.is_refused {
            return None;
        }
        self.is_told = is_seen && (self.is_told || self.is_refused);
        let loaded = config::load_in(&layout.root, &String::from_utf8_lossy(&bytes));
        self.seen = Some(bytes);
        self.is_broken = loaded.is_err();
        self.is_refused = false;
        match loaded {
            Ok(loaded) => {
                let mode = loaded.settings.project.orchestration;
                let other = words::differing_mode(mode, state.orchestration);
                let warnings = loaded.warnings.iter().chain(&other);
                warnings.filter(|_| !self.is_told).for_each(|warning| progress.warn(warning));
                if loaded.settings.hash == state.settings.hash {
                    return None;
                }
                let settings = Box::new(loaded.settings);
                Some(EventBody::Command(Command::AdoptSettings { settings }))
            }
            Err(_) if is_seen => None,
            Err(error) => {
                let path = path.display();
                progress
                    .warn(&format!("`{path}` is broken, the settings stay as they were: {error}"));
                None
            }
        }
    }

    /// Notes that the machine refused what was read: it is told once, and tried again.
    pub fn refused(&mut self, refusal: &Refusal, layout: &Layout, progress: &Progress) {
        self.is_refused = true;
        if !self.is_told {
            progress.warn(&words::refused_settings(&layout.config(), refusal));
        }
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;
    use crate::machine::RefusalKind;
    use crate::machine::time::Time;
    use crate::monitor::progress::LogFormat;
    use crate::observe::support::settings;

    #[test]
    fn a_file_whose_prompt_is_missing_is_taken_up_once_it_is_there() {
        let dir = tempfile::tempdir().expect("temporary folder");
        let layout = Layout::of_folder(dir.path());
        let state = State::new(settings(), Time::default());
        let mut progress = Progress::new(LogFormat::Text, false, true, false);
        let mut file = SettingsFile::default();
        let mut adopts = || file.read(&layout, &state, &mut progress).is_some();
        assert!(!adopts(), "there is no file");
        let text = "[[stage]]\nname = \"a\"\nprompt = \"a.md\"\n";
        fs::write(layout.config(), text).expect("written");
        assert!(!adopts() && !adopts(), "its prompt is missing");
        fs::write(dir.path().join("a.md"), "Do it.\n").expect("written");
        assert!(adopts());
        assert!(!adopts(), "it is not told twice");
        fs::write(layout.config(), "\n").expect("emptied");
        assert!(!adopts(), "it is about to be written");
    }

    #[test]
    fn what_was_refused_is_tried_again_until_it_is_taken_up() {
        let dir = tempfile::tempdir().expect("temporary folder");
        let layout = Layout::of_folder(dir.path());
        let state = State::new(settings(), Time::default());
        let mut progress = Progress::new(LogFormat::Text, false, true, false);
        let mut file = SettingsFile::default();
        let (kind, reason, hint) = (RefusalKind::Busy, "no".into(), String::new());
        let refusal = Refusal { kind, reason, hint };
        for text in ["[[stage]]\nname = \"a\"\n", "[[stage]]\nname = \"b\"\n"] {
            fs::write(layout.config(), text).expect("written");
            for n in 0..3 {
                assert!(file.read(&layout, &state, &mut progress).is_some());
                assert_eq!(file.is_told, n > 0, "what it says is told once");
                file.refused(&refusal, &layout, &progress);
            }
        }
        assert!(file.read(&layout, &state, &mut progress).is_some());
        assert!(file.read(&layout, &state, &mut progress).is_none(), "it is accepted");
    }
}
