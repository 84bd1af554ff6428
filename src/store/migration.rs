//! Keeps the journal as it was, before it goes on in a newer format.

use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};

use super::{StoreError, segment};
use crate::sys::{fail, file};

/// Copies the segments of `journal` into a folder of their own beside it, durably; returns that. One
/// that a killed migration made is taken as it is.
pub(super) fn keep(
    dir: &Path,
    journal: &Path,
    format: u64,
    last: u64,
) -> Result<PathBuf, StoreError> {
    let backup = dir.join(format!("journal.format-{format}-{last}"));
    if backup.is_dir() {
        return Ok(backup);
    }
    let temp = backup.with_extension("tmp");
    let segments = segment::list(journal)?.segments;
    let copy = || -> io::Result<()> {
        if temp.exists() {
            fs::remove_dir_all(&temp)?;
        }
        fail::point("migrate.folder")?;
        fs::create_dir(&temp)?;
        for seq in segments {
            let to = segment::path(&temp, seq);
            fail::point("migrate.copy")?;
            fs::copy(segment::path(journal, seq), &to)?;
            fail::point("migrate.sync")?;
            File::open(&to)?.sync_all()?;
        }
        file::sync_dir(&temp)?;
        fail::point("migrate.rename")?;
        fs::rename(&temp, &backup)?;
        file::sync_dir(dir)
    };
    copy().map_err(StoreError::io("keep the journal as it was in", &backup))?;
    Ok(backup)
}

#[cfg(test)]
mod tests {
    use std::path::Path;
    use std::time::Duration;

    use xxhash_rust::xxh3::xxh3_64;

    use super::*;
    use crate::machine::time::Time;
    use crate::machine::{Command, Event, EventBody};
    use crate::store::journal::FileStore;
    use crate::store::ledger::{Ledger, LedgerError, Turns};
    use crate::store::{Json, line, repair};

    const WAIT: Duration = Duration::from_secs(30);

    /// Makes a journal of format 0 that holds the state of the first program and nothing else.
    fn first_program(dir: &Path) -> Vec<u8> {
        let sample = concat!(env!("CARGO_MANIFEST_DIR"), "/state/samples/checkpoint-v1-first.json");
        let text = fs::read_to_string(sample).unwrap();
        let state: serde_json::Value = serde_json::from_str(&text).unwrap();
        let state = Json::of(&state).unwrap();
        let (head, end, _) = line::around_state(7, Time::from_ms(9), &state, 0);
        let text = head + state.get() + std::str::from_utf8(&end).unwrap();
        let body = text.replacen("{\"v\":1,", "{\"v\":0,", 1);
        let body = &body[..body.rfind(",\"sum\"").unwrap()];
        let line = [body.as_bytes(), &line::end_of_line(xxh3_64(body.as_bytes()))].concat();
        fs::create_dir_all(dir.join("journal")).unwrap();
        fs::write(segment::path(&dir.join("journal"), 7), &line).unwrap();
        line
    }

    #[test]
    fn a_damaged_line_after_a_takeover_at_a_checkpoint_costs_no_later_record() {
        let dir = tempfile::tempdir().unwrap();
        first_program(dir.path());
        let open = || Ledger::open(FileStore::open(dir.path(), 0), "test").map(|(it, _)| it);
        let mut ledger = open().unwrap();
        ledger.migrate(WAIT).unwrap().unwrap();
        assert!(resume(&mut ledger).unwrap());
        let state = ledger.state().clone();
        drop(ledger);
        let path = segment::path(&dir.path().join("journal"), 8);
        let mut bytes = fs::read(&path).unwrap();
        bytes[20] ^= 1;
        fs::write(&path, &bytes).unwrap();
        let refused = open().unwrap_err();
        assert!(matches!(refused, LedgerError::Store(StoreError::Damaged { .. })), "{refused:?}");
        let done = repair::repair(dir.path(), WAIT).unwrap();
        let [repair::Mend::Restart { last, lost, .. }, repair::Mend::SetAside { .. }] =
            done.as_slice()
        else {
            panic!("{done:?}")
        };
        assert_eq!((*last, *lost), (9, 0));
        assert_eq!(*open().unwrap().state(), state);
    }

    fn resume(ledger: &mut Ledger<FileStore>) -> Result<bool, LedgerError> {
        let (at, body) = (Time::from_ms(20), EventBody::Command(Command::Resume));
        let event = Event { at, random: 0, body };
        ledger.transact(WAIT, at, &[event], Turns::None).map(|done| !done.changes.is_empty())
    }

    #[test]
    fn the_first_program_s_state_is_read_refuses_writes_and_goes_on_after_the_takeover() {
        let dir = tempfile::tempdir().unwrap();
        let bytes = first_program(dir.path());
        let open = || Ledger::open(FileStore::open(dir.path(), 0), "test").unwrap().0;
        let mut ledger = open();
        assert!(!ledger.state().tasks.is_empty() && ledger.state().is_paused);
        let before = ledger.state().clone();
        let error = resume(&mut ledger).unwrap_err();
        let LedgerError::Store(StoreError::Older { found: 0, current: 1, .. }) = error else {
            panic!("{error:?}");
        };
        assert_eq!(fs::read(segment::path(&dir.path().join("journal"), 7)).unwrap(), bytes);
        let mut ledger = open();
        let migrated = ledger.migrate(WAIT).unwrap().unwrap();
        assert_eq!((migrated.from, ledger.seq()), (0, 8), "two segments have two numbers");
        assert_eq!(fs::read(segment::path(&migrated.backup, 7)).unwrap(), bytes);
        assert!(migrated.to_string().contains("journal.format-0-7`"));
        assert_eq!(*open().state(), before);
        assert!(ledger.migrate(WAIT).unwrap().is_none());
        assert!(resume(&mut ledger).unwrap());
        let mut other = open();
        assert!(!other.state().is_paused && other.migrate(WAIT).unwrap().is_none());
        assert_eq!(other.seq(), 9);
    }
}
