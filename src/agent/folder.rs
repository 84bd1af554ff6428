//! Which folder something was written into: moved it is the same, a copy of it is another.

use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use serde::{Deserialize, Serialize};

/// A folder as the kernel knows it, whatever its path is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct FolderId {
    device: u64,
    inode: u64,
}

impl FolderId {
    /// Returns that of `dir`.
    ///
    /// # Errors
    /// When it cannot be looked at.
    pub fn of(dir: &Path) -> io::Result<Self> {
        let meta = fs::metadata(dir)?;
        Ok(Self { device: meta.dev(), inode: meta.ino() })
    }

    /// Returns whether what names `folder` and lies in `dir` was written there, and not copied along
    /// with it; an older program names none, which is believed.
    ///
    /// # Errors
    /// When `dir` cannot be looked at.
    pub fn is_home(folder: Option<Self>, dir: &Path) -> io::Result<bool> {
        folder.map_or(Ok(true), |folder| Ok(Self::of(dir)? == folder))
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::FolderId;

    #[test]
    fn a_folder_that_was_moved_is_the_same_and_a_copy_another() {
        let temp = tempfile::tempdir().expect("temporary folder");
        let (dir, moved) = (temp.path().join("a"), temp.path().join("b"));
        fs::create_dir(&dir).expect("made");
        let id = FolderId::of(&dir).expect("it is there");
        fs::rename(&dir, &moved).expect("it moves");
        fs::create_dir(&dir).expect("made");
        assert!(FolderId::is_home(Some(id), &moved).expect("it is there"));
        assert!(!FolderId::is_home(Some(id), &dir).expect("it is there"));
        assert!(FolderId::is_home(None, &dir).expect("it is there"));
        assert!(FolderId::is_home(Some(id), &temp.path().join("c")).is_err());
    }
}
