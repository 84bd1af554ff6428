//! How much room a file system has, and which failures mean that there is too little of something.

use std::io;
use std::path::Path;

use super::fail;

/// What a file system has left for us.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Room {
    /// Bytes that may still be written.
    pub free_bytes: u64,
    /// Its size in bytes.
    pub bytes: u64,
    /// Files that may still be made.
    pub free_inodes: u64,
    /// Files it can hold; 0 where there is no such bound.
    pub inodes: u64,
    /// Whether nothing can be written to it at all.
    pub is_read_only: bool,
}

/// Asks for the file system that holds `path`.
///
/// # Errors
/// When there is no such path, or the kernel does not say.
pub fn room(path: &Path) -> io::Result<Room> {
    fail::point("room.look")?;
    let stat = rustix::fs::statvfs(path)?;
    Ok(Room {
        free_bytes: stat.f_bavail.saturating_mul(stat.f_frsize),
        bytes: stat.f_blocks.saturating_mul(stat.f_frsize),
        free_inodes: stat.f_favail,
        inodes: stat.f_files,
        is_read_only: stat.f_flag.contains(rustix::fs::StatVfsMountFlags::RDONLY),
    })
}

/// What the C libraries (glibc, then musl where it differs) call the failures that pass when there is
/// room again: of the disk, of descriptors, of processes and memory, or of a server; and git's word for
/// a disk that took a part.
const WORDS: [&str; 14] = [
    "No space left on device",
    "Out of diskspace",
    "Disk quota exceeded",
    "Quota exceeded",
    "Read-only file system",
    "Input/output error",
    "I/O error",
    "Too many open files",
    "No file descriptors available",
    "Resource temporarily unavailable",
    "Cannot allocate memory",
    "Out of memory",
    "Stale file handle",
    "Stale NFS file handle",
];

/// Returns whether `text`, from us or from a program run with `LC_ALL=C`, tells of a failure that
/// passes when there is room again.
#[must_use]
pub fn is_shortage(text: &str) -> bool {
    WORDS.iter().any(|words| text.contains(words))
}

#[cfg(test)]
mod tests {
    use std::io;
    use std::path::Path;

    use rustix::io::Errno;

    use super::{is_shortage, room};

    #[test]
    fn folder_that_can_be_written_has_room() {
        let dir = tempfile::tempdir().expect("temporary folder");
        let found = room(dir.path()).expect("the kernel says");
        assert!(found.bytes >= found.free_bytes && found.free_bytes > 0, "{found:?}");
        assert!(!found.is_read_only);
        assert!(room(Path::new("/nowhere")).is_err());
    }

    #[test]
    fn shortages_are_known_by_the_words_of_the_library() {
        let passing = [
            Errno::NOSPC,
            Errno::DQUOT,
            Errno::ROFS,
            Errno::IO,
            Errno::MFILE,
            Errno::NFILE,
            Errno::AGAIN,
            Errno::NOMEM,
            Errno::STALE,
        ];
        for errno in passing {
            let text = format!("cannot run git: {}", io::Error::from(errno));
            assert!(is_shortage(&text), "{text}");
        }
        for errno in [Errno::NOENT, Errno::ACCESS, Errno::NOEXEC] {
            assert!(!is_shortage(&io::Error::from(errno).to_string()));
        }
    }
}
