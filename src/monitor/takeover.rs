//! What a monitor begins with: the journal, read, and of the format that this program writes.

use std::time::Duration;

use super::error::RunError;
use super::progress::Progress;
use crate::store::journal::FileStore;
use crate::store::ledger::Ledger;

/// Reads the journal, and takes one of an older format over.
///
/// # Errors
/// Damage, a newer format, the file system's own.
pub fn open_ledger(
    store: FileStore,
    wait: Duration,
    progress: &mut Progress,
) -> Result<Ledger<FileStore>, RunError> {
    let (mut ledger, warnings) = Ledger::open(store, "monitor")?;
    warnings.iter().for_each(|warning| progress.warn(warning));
    if let Some(migrated) = ledger.migrate(wait)? {
        progress.warn(&migrated.to_string());
    }
    Ok(ledger)
}
