//! `pipeline.toml` while the monitor runs: taken up when it changes, kept out while it is broken.

use super::progress::Progress;
use crate::config;
use crate::config::layout::Layout;
use crate::machine::{Command, EventBody, State};
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
        if is_seen && !self.is_broken {
            return None;
        }
        let loaded = config::load_in(&layout.root, &String::from_utf8_lossy(&bytes));
        self.seen = Some(bytes);
        self.is_broken = loaded.is_err();
        match loaded {
            Ok(loaded) => {
                loaded.warnings.iter().for_each(|warning| progress.warn(warning));
                let mode = loaded.settings.project.orchestration;
                if let Some(what) = words::differing_mode(mode, state.orchestration) {
                    progress.warn(&what);
                }
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
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;
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
}
